//! Decides how many records from the end of the log the next request asks for.
//!
//! The window should just overlap with what was delivered: if the window is too small, the overlap is missing and
//! another request is needed; if it is too large, the daemon sends lines that were read before. `None` asks for the
//! whole log from the position on.

/// Records in the smallest window.
const SMALLEST: u64 = 64;
/// Factor by which the window grows when it did not reach the last delivered line.
const GROWTH: u64 = 16;
/// Records in the largest window. To go back farther, reading the whole log costs no more.
const LARGEST: u64 = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TailWindow(Option<u64>);

impl TailWindow {
    pub(super) fn new() -> Self {
        TailWindow(Some(SMALLEST))
    }

    #[cfg(test)]
    pub(super) fn of(records: Option<u64>) -> Self {
        TailWindow(records)
    }

    pub(super) fn records(self) -> Option<u64> {
        self.0
    }

    /// Returns the window after a response with `fresh` new records.
    #[must_use]
    pub(super) fn after_success(self, fresh: u64) -> Self {
        TailWindow(Some(self.0.map_or(SMALLEST, |_| (fresh * 2).clamp(SMALLEST, LARGEST))))
    }

    /// Returns the window after a response that did not reach the last delivered line. While no line was delivered,
    /// there is nothing to reach.
    #[must_use]
    pub(super) fn widened(self, is_at_start: bool) -> Self {
        let wider = self.0.filter(|_| !is_at_start).map(|records| records * GROWTH);
        TailWindow(wider.filter(|records| *records <= LARGEST))
    }

    /// Returns the window once there is a delivered line to reach.
    #[must_use]
    pub(super) fn after_line(self) -> Self {
        TailWindow(self.0.or(Some(SMALLEST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_until_the_whole_log_is_cheaper() {
        let mut windows = vec![TailWindow::new()];
        while let Some(window) = windows.last().filter(|window| window.records().is_some()) {
            windows.push(window.widened(false));
        }
        let records: Vec<_> = windows.into_iter().map(TailWindow::records).collect();
        assert_eq!(records, [Some(64), Some(1024), Some(16_384), Some(262_144), None]);
        assert_eq!(TailWindow(None).widened(false), TailWindow(None));
    }

    #[test]
    fn nothing_is_reached_before_the_first_line() {
        assert_eq!(TailWindow::new().widened(true), TailWindow(None));
        assert_eq!(TailWindow(None).after_line(), TailWindow::new());
        assert_eq!(TailWindow(Some(1000)).after_line(), TailWindow(Some(1000)));
    }

    #[test]
    fn the_next_window_is_twice_what_was_new() {
        for (window, fresh, expected) in [
            (Some(1024), 0, 64),
            (Some(64), 32, 64),
            (Some(64), 100, 200),
            (Some(64), 1 << 30, 1 << 18),
            // The whole log was read.
            (None, 5000, 64),
        ] {
            assert_eq!(TailWindow(window).after_success(fresh), TailWindow(Some(expected)), "{window:?} {fresh}");
        }
    }
}

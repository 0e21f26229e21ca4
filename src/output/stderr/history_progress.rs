//! Shows a status line while a long history is being read: how much has been read, and how fast.
//!
//! Drawn only if stderr is a terminal and the log lines go elsewhere. The history counts as read once no lines arrive
//! for [`IDLE`]; live lines arrive one at a time after that.

use super::{diagnostics, status_line};
use crate::model::batch::Batch;
use indicatif::ProgressBar;
use std::time::{Duration, Instant};

/// A shorter history needs no status line.
const MIN_DURATION: Duration = Duration::from_secs(1);
/// Once nothing has arrived for this long, the history has been read.
const IDLE: Duration = Duration::from_millis(300);

pub(crate) struct Progress {
    is_wanted: bool,
    burst: Option<Burst>,
}

/// Lines that arrive without a pause of [`IDLE`] between them.
struct Burst {
    started: Instant,
    last: Instant,
    lines: u64,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Progress { is_wanted: is_wanted && diagnostics::is_stderr_terminal(), burst: None }
    }

    /// Counts lines that were written.
    pub(crate) fn add(&mut self, batch: &Batch) {
        if !self.is_wanted {
            return;
        }
        let now = Instant::now();
        if self.burst.as_ref().is_some_and(|burst| now - burst.last > IDLE) {
            self.hide();
        }
        let burst = self.burst.get_or_insert(Burst { started: now, last: now, lines: 0, bytes: 0, bar: None });
        burst.last = now;
        burst.lines += batch.lines.len() as u64;
        burst.bytes += batch.message_bytes();
        if now - burst.started > MIN_DURATION {
            burst.show(now - burst.started);
        }
    }

    /// How long to wait for more lines before calling [`Progress::hide_when_idle`]; `None` while nothing is shown.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.burst.as_ref().and_then(|burst| burst.bar.as_ref()).map(|_| IDLE)
    }

    /// Removes the status line if nothing has arrived for [`IDLE`].
    pub(crate) fn hide_when_idle(&mut self) {
        if self.burst.as_ref().is_some_and(|burst| burst.last.elapsed() >= IDLE) {
            self.hide();
        }
    }

    /// Removes the status line.
    pub(crate) fn hide(&mut self) {
        if let Some(bar) = self.burst.take().and_then(|burst| burst.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Burst {
    fn show(&mut self, elapsed: Duration) {
        let bar = self.bar.get_or_insert_with(status_line::bar);
        let megabytes = self.bytes as f64 / 1e6;
        let speed = megabytes / elapsed.as_secs_f64();
        bar.set_message(format!("catching up: {} lines, {megabytes:.0} MB, {speed:.0} MB/s", self.lines));
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}

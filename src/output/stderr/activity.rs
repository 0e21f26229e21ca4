//! Shows on one line of the terminal what a command is doing, for as long as it is doing it.
//!
//! Nothing is drawn unless stderr is a terminal. Only steps that take noticeably long are shown.

use super::diagnostics;
use super::status_line::{self, PLAIN};
use indicatif::{ProgressBar, ProgressStyle};
use std::borrow::Cow;

/// A status line on stderr. Clones share the line, and dropping the last clone removes it.
#[derive(Clone)]
pub(crate) struct ActivityLine {
    bar: Option<ActivityBar>,
}

#[derive(Clone)]
struct ActivityBar {
    bar: ProgressBar,
    spinner: ProgressStyle,
    counter: ProgressStyle,
}

impl ActivityLine {
    /// Creates a line that draws only if it `is_wanted` and stderr is a terminal.
    pub(crate) fn new(is_wanted: bool) -> Self {
        let is_shown = is_wanted && diagnostics::is_stderr_terminal();
        let style = |template| ProgressStyle::with_template(template).ok();
        let bar = is_shown.then(|| {
            let (spinner, counter) = (style(PLAIN)?, style("{bar:30} {pos} of {len} {msg}, {eta} left")?);
            Some(ActivityBar { bar: status_line::bar(), spinner, counter })
        });
        ActivityLine { bar: bar.flatten() }
    }

    /// Shows a step of unknown duration, with a spinner.
    pub(crate) fn show(&self, what: impl Into<Cow<'static, str>>) {
        if let Some(ActivityBar { bar, spinner, .. }) = &self.bar {
            bar.set_style(spinner.clone());
            bar.set_message(what);
            bar.tick();
        }
    }

    /// Counts one more of `total` items as done. Another `total` starts a new count.
    pub(crate) fn count(&self, total: usize, what: &'static str) {
        if let Some(ActivityBar { bar, .. }) = &self.bar {
            let done = if bar.length() == Some(total as u64) { bar.position() } else { 0 };
            self.reach(done + 1, total as u64, what);
        }
    }

    /// Shows that `done` of `total` items are finished.
    pub(crate) fn reach(&self, done: u64, total: u64, what: &'static str) {
        if let Some(ActivityBar { bar, counter, .. }) = &self.bar {
            if bar.length() != Some(total) {
                bar.set_style(counter.clone());
                bar.set_length(total);
                bar.set_message(what);
            }
            bar.set_position(done);
        }
    }

    /// Removes the line from the terminal.
    pub(crate) fn clear(&self) {
        if let Some(ActivityBar { bar, .. }) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

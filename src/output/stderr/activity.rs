//! What a verb is at, on one line of the terminal while it is at it.
//!
//! Only where stderr is a terminal, and only of what takes longer than a blink.

use super::diagnostics;
use super::status_line::{self, PLAIN};
use indicatif::{ProgressBar, ProgressStyle};
use std::borrow::Cow;

/// See the module. Clones are the same line; it goes with the last of them.
#[derive(Clone)]
pub struct ActivityLine {
    line: Option<Line>,
}

#[derive(Clone)]
struct Line {
    bar: ProgressBar,
    plain: ProgressStyle,
    counting: ProgressStyle,
}

impl ActivityLine {
    /// Nothing is shown unless it `is_wanted`.
    pub fn new(is_wanted: bool) -> Self {
        let is_shown = is_wanted && diagnostics::is_on_terminal();
        let style = |template| ProgressStyle::with_template(template).ok();
        let line = is_shown.then(|| {
            let (plain, counting) = (style(PLAIN)?, style("{bar:30} {pos} of {len} {msg}, {eta} left")?);
            Some(Line { bar: status_line::bar(), plain, counting })
        });
        ActivityLine { line: line.flatten() }
    }

    /// Something begins of which nobody knows how long it takes.
    pub fn say(&self, what: impl Into<Cow<'static, str>>) {
        if let Some(Line { bar, plain, .. }) = &self.line {
            bar.set_style(plain.clone());
            bar.set_message(what);
            bar.tick();
        }
    }

    /// One of so many more is done.
    pub fn count(&self, all: usize, what: &'static str) {
        if let Some(Line { bar, .. }) = &self.line {
            let done = if bar.length() == Some(all as u64) { bar.position() } else { 0 };
            self.reach(done + 1, all as u64, what);
        }
    }

    /// So many of so many are done.
    pub fn reach(&self, done: u64, all: u64, what: &'static str) {
        if let Some(Line { bar, counting, .. }) = &self.line {
            if bar.length() != Some(all) {
                bar.set_style(counting.clone());
                bar.set_length(all);
                bar.set_message(what);
            }
            bar.set_position(done);
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if let Some(Line { bar, .. }) = &self.line {
            bar.finish_and_clear();
        }
    }
}

//! What a verb is at, on one line of the terminal while it is at it.
//!
//! Only where stderr is a terminal, and only of what takes longer than a blink.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// See the module. Clones are the same line; it goes with the last of them.
#[derive(Clone)]
pub struct Meter {
    line: Option<Line>,
}

#[derive(Clone)]
struct Line {
    bar: ProgressBar,
    plain: ProgressStyle,
    counting: ProgressStyle,
}

impl Meter {
    /// Nothing is shown unless it `is_wanted`.
    pub fn new(is_wanted: bool) -> Self {
        let is_shown = is_wanted && std::io::stderr().is_terminal();
        let style = |template| ProgressStyle::with_template(template).ok();
        let line = is_shown.then(|| {
            let (plain, counting) = (style("{spinner} {msg}")?, style("{bar:30} {pos}/{len} {msg}")?);
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            Some(Line { bar, plain, counting })
        });
        Meter { line: line.flatten() }
    }

    /// Something begins of which nobody knows how long it takes.
    pub fn say(&self, what: &'static str) {
        if let Some(Line { bar, plain, .. }) = &self.line {
            bar.set_style(plain.clone());
            bar.set_message(what);
            bar.tick();
        }
    }

    /// One of so many is done.
    pub fn count(&self, all: usize, what: &'static str) {
        if let Some(Line { bar, counting, .. }) = &self.line {
            if bar.length() != Some(all as u64) {
                bar.set_style(counting.clone());
                bar.set_length(all as u64);
                bar.set_position(0);
                bar.set_message(what);
            }
            bar.inc(1);
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if let Some(Line { bar, .. }) = &self.line {
            bar.finish_and_clear();
        }
    }
}

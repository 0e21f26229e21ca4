//! The status line while a long history is read: how much has come, and how fast.
//!
//! Only where nothing else is drawn: stderr is a terminal and the lines go elsewhere. Caught up is where nothing has come
//! for a moment; what comes then comes one by one.

use super::{diagnostics, status_line};
use crate::model::batch::Batch;
use indicatif::ProgressBar;
use std::time::{Duration, Instant};

/// A history that takes no longer needs no status.
const SHORT: Duration = Duration::from_secs(1);
/// Nothing has come for so long: caught up.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) struct Progress {
    is_wanted: bool,
    spell: Option<Spell>,
}

/// Lines that come without a pause between them.
struct Spell {
    started: Instant,
    last: Instant,
    lines: u64,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Progress { is_wanted: is_wanted && diagnostics::is_on_terminal(), spell: None }
    }

    /// These lines were written.
    pub(crate) fn add(&mut self, batch: &Batch) {
        if !self.is_wanted {
            return;
        }
        let now = Instant::now();
        if self.spell.as_ref().is_some_and(|spell| now - spell.last > PAUSE) {
            self.rest();
        }
        let spell = self.spell.get_or_insert(Spell { started: now, last: now, lines: 0, bytes: 0, bar: None });
        spell.last = now;
        spell.lines += batch.lines.len() as u64;
        spell.bytes += batch.message_bytes();
        if now - spell.started > SHORT {
            spell.show(now - spell.started);
        }
    }

    /// How long to wait for more before [`Progress::rest`]: as long as anything is shown that will have to go.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.spell.as_ref().and_then(|spell| spell.bar.as_ref()).map(|_| PAUSE)
    }

    /// Takes the status away, if nothing has come for long enough.
    pub(crate) fn rest_when_due(&mut self) {
        if self.spell.as_ref().is_some_and(|spell| spell.last.elapsed() >= PAUSE) {
            self.rest();
        }
    }

    /// Takes the status away.
    pub(crate) fn rest(&mut self) {
        if let Some(bar) = self.spell.take().and_then(|spell| spell.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Spell {
    fn show(&mut self, took: Duration) {
        let bar = self.bar.get_or_insert_with(status_line::bar);
        let megabytes = self.bytes as f64 / 1e6;
        let speed = megabytes / took.as_secs_f64();
        bar.set_message(format!("catching up: {} lines, {megabytes:.0} MB, {speed:.0} MB/s", self.lines));
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.rest();
    }
}

//! The status line while a long history is read: how much has come, and how fast.
//!
//! Only where nothing else is drawn: stderr is a terminal and the lines go elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A history shorter than this needs no status.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
    is_wanted: bool,
    lines: u64,
    bytes: u64,
}

impl Progress {
    pub(super) fn new(is_wanted: bool) -> Self {
        let is_wanted = is_wanted && std::io::stderr().is_terminal();
        Progress { started: Instant::now(), bar: None, is_wanted, lines: 0, bytes: 0 }
    }

    /// So much more was written.
    pub(super) fn add(&mut self, lines: usize, bytes: usize) {
        if !self.is_wanted {
            return;
        }
        self.lines += lines as u64;
        self.bytes += bytes as u64;
        if self.bar.is_none() && self.started.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let seconds = self.started.elapsed().as_secs_f64();
        let (size, speed) = (self.bytes as f64 / 1e6, self.bytes as f64 / 1e6 / seconds);
        bar.set_message(format!("catching up: {} lines, {size:.0} MB, {speed:.0} MB/s", self.lines));
    }

    /// Caught up: what comes now comes one by one.
    pub(super) fn rest(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.started = Instant::now();
        (self.lines, self.bytes) = (0, 0);
    }
}

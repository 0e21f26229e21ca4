//! The last line of a terminal, where a status is drawn and taken away again.
//!
//! In: what the progress library draws. Out: the same on stderr, but for the blanks that it fills a line up with: behind
//! them a terminal's own `^C` would land on a line of its own, and what clears the status would clear that one.

use super::diagnostics;
use crate::output::sanitizer::Form;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use rustix::fd::AsFd;
use rustix::termios::tcgetwinsize;
use std::io;

/// Redrawn so often a second at most.
const RATE: u8 = 5;

/// What is being done, in words.
pub(crate) const PLAIN: &str = "{spinner} {msg}";

/// A status in words.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like_with_hz(Box::new(LastLine), RATE));
    match ProgressStyle::with_template(PLAIN) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How wide a terminal is.
pub(crate) fn columns(terminal: impl AsFd) -> u16 {
    tcgetwinsize(terminal).map(|size| size.ws_col).ok().filter(|width| *width > 0).unwrap_or(80)
}

#[derive(Debug)]
struct LastLine;

impl LastLine {
    /// Our own sequences.
    fn put(sequence: &str) -> io::Result<()> {
        diagnostics::write(sequence.as_bytes(), Form::Verbatim)
    }

    fn show(text: &str) -> io::Result<()> {
        diagnostics::write(text.as_bytes(), Form::Text)
    }

    fn move_by(n: usize, direction: char) -> io::Result<()> {
        if n == 0 { Ok(()) } else { LastLine::put(&format!("\x1b[{n}{direction}")) }
    }
}

impl TermLike for LastLine {
    fn width(&self) -> u16 {
        columns(rustix::stdio::stderr())
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        LastLine::move_by(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        LastLine::move_by(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        LastLine::move_by(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        LastLine::move_by(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        LastLine::show(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let is_filler = !text.is_empty() && text.bytes().all(|byte| byte == b' ');
        if is_filler { Ok(()) } else { LastLine::show(text) }
    }

    fn clear_line(&self) -> io::Result<()> {
        LastLine::put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        // Nothing is kept back.
        Ok(())
    }
}

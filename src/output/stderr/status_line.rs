//! Draws a status on the last line of the terminal and removes it again.
//!
//! Passes on to stderr what the progress library draws, except for the blanks with which it pads a line. After the
//! padding, the `^C` that a terminal echoes would wrap onto a line of its own, and clearing the status would clear that
//! line instead.

use super::diagnostics;
use crate::output::sanitizer::Form;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use rustix::fd::AsFd;
use rustix::termios::tcgetwinsize;
use std::io;

/// The most redraws per second.
const MAX_REDRAWS: u8 = 5;

/// The template of a status without a count.
pub(crate) const PLAIN: &str = "{spinner} {msg}";

/// Creates a status without a count.
pub(crate) fn bar() -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like_with_hz(Box::new(LastLine), MAX_REDRAWS));
    match ProgressStyle::with_template(PLAIN) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The width of a terminal; 80 where it is unknown.
pub(crate) fn columns(terminal: impl AsFd) -> u16 {
    tcgetwinsize(terminal).map(|size| size.ws_col).ok().filter(|width| *width > 0).unwrap_or(80)
}

#[derive(Debug)]
struct LastLine;

impl LastLine {
    /// Writes an escape sequence of our own.
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
        let is_padding = !text.is_empty() && text.bytes().all(|byte| byte == b' ');
        if is_padding { Ok(()) } else { LastLine::show(text) }
    }

    fn clear_line(&self) -> io::Result<()> {
        LastLine::put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        // Nothing is buffered.
        Ok(())
    }
}

//! Writes log lines, events, reports and diagnostics in the format that the user asked for.
//!
//! - `lines` formats log lines: [`Printer`] takes items from the queue in order and writes them as text, JSON or raw
//!   bytes.
//! - `reports` prints what the other commands produce: [`EventPrinter`] for events, `dry_run`, `pool` and `reconcile`.
//! - `stderr` writes diagnostics, and draws the status line of long operations.
//! - `sink` is the destination, stdout or FILE. `sanitizer` makes untrusted text safe for a terminal.
//!
//! No other module writes to stdout or stderr.

mod lines;
mod reports;
mod sanitizer;
mod sink;
mod stderr;

pub use lines::printer::Printer;
pub(crate) use lines::repeats::Repeats;
pub(crate) use reports::dry_run::{PlannedContainer, plan};
pub(crate) use reports::event::{EventPrinter, EventRecord};
pub(crate) use reports::pool::{PoolCheck, PoolClient, PoolEngine, PoolLoad, PoolReport, PoolSize, Spread, pool};
pub(crate) use reports::reconcile::{Reconciled, ReportFormat};
pub(crate) use sanitizer::safe;
pub(crate) use stderr::activity::ActivityLine;
pub use stderr::diagnostics::LogFormat;
pub(crate) use stderr::diagnostics::{Diagnostic, Level, Tracer, is_stderr_terminal, notice, report};

use sanitizer::Form;
use sink::Sink;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader of stdout closed the pipe: it has read all it wants, so this is no failure.
    #[error("the reader of stdout is gone")]
    Closed,
    /// FILE cannot be opened.
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot write to {to}")]
    Write {
        /// `stdout`, or the path of FILE.
        to: String,
        source: io::Error,
    },
}

/// Writes a complete answer to stdout, such as help or completions. A reader that went away is no error.
pub(crate) fn answer(text: &str) -> Result<(), Error> {
    match Sink::stdout(Form::Text)?.write(text.as_bytes()) {
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

pub(crate) fn is_stdout_terminal() -> bool {
    rustix::stdio::stdout().is_terminal()
}

/// What happened to FILE while it is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaced {
    /// It has another name.
    Moved,
    /// It has no name left, so nobody can read what is written to it.
    Removed,
}

/// What `watch` prints, and how.
#[derive(Clone, Debug)]
pub struct PrinterSettings {
    pub format: OutputFormat,
    /// Print the daemon's timestamp before each text or raw line.
    pub timestamps: bool,
    /// Add labels, networks and state to JSON records.
    pub metadata: bool,
    /// Add lifecycle records to JSON output.
    pub lifecycle: bool,
    /// How control characters in messages are treated.
    pub ansi: Ansi,
    /// Colours for container names and notices.
    pub color: When,
    /// Print only this stream; `None` means both.
    pub stream: Option<crate::model::line_id::Stream>,
    /// A line is printed if one of these matches its message or the list is empty, ...
    pub include: Vec<regex::bytes::Regex>,
    /// ... and none of these matches.
    pub exclude: Vec<regex::bytes::Regex>,
    /// Append to this file instead of writing to stdout.
    pub file: Option<PathBuf>,
    /// Print neither notices nor a status line.
    pub quiet: bool,
    /// The format of notices. JSON allows no status line.
    pub log_format: LogFormat,
}

impl PrinterSettings {
    /// Whether long operations show a status line.
    pub fn wants_status(&self) -> bool {
        !self.quiet && self.log_format == LogFormat::Text
    }
}

/// The format of a record (`--format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people: `NAME | MESSAGE`.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// The message without a prefix.
    Raw,
}

/// How control characters and escape sequences in a message are treated (`--ansi`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ansi {
    /// On a terminal, make them visible instead of harmful and pass only SGR colours; elsewhere, keep them.
    #[default]
    Auto,
    Keep,
    Strip,
}

/// When to use colours (`--color`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    Always,
    Never,
}

impl When {
    /// Whether to use colours for this destination.
    pub(crate) fn is_enabled(self, is_terminal: bool) -> bool {
        match self {
            When::Auto => is_terminal,
            When::Always => true,
            When::Never => false,
        }
    }
}

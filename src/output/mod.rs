//! Output: lines, notices and reports in the forms a user asked for.
//!
//! [`Printer`] takes items in order and writes them: `text` and `json` are the forms, `stamp` the times in them, `color`
//! and `terminal` what a terminal needs, `sink` where it all goes. [`EventPrinter`] does the same for events. `progress` and
//! `meter` tell on stderr how far a long work is, on the line of `status`, and `diagnostic` says everything else there;
//! `plan`, `pool` and `reconcile` are reports. Only this room writes to stdout.

mod lines;
mod reports;
mod sanitizer;
mod sink;
mod stderr;

pub use lines::printer::Printer;
pub use lines::repeats::Repeats;
pub use reports::dry_run::{PlannedContainer, plan};
pub use reports::event::{EventPrinter, EventRecord};
pub use reports::pool::{PoolCheck, PoolClient, PoolEngine, PoolLoad, PoolReport, PoolSize, Spread, pool};
pub use reports::reconcile::{Reconciled, ReportFormat};
pub use sanitizer::safe;
pub use stderr::activity::ActivityLine;
pub use stderr::diagnostics::{Diagnostic, Level, LogFormat, Tracer, is_on_terminal, notice, report};

use sanitizer::Form;
use sink::Sink;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Why nothing more can be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader of stdout has gone; it has all it wanted.
    #[error("the reader of stdout has gone")]
    Closed,
    /// The file to append to cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write to {to}")]
    Write {
        /// `stdout`, or the file.
        to: String,
        /// Why.
        source: io::Error,
    },
}

/// Writes an answer to stdout: help, completion, what a script evaluates. A reader that went away had enough.
pub fn answer(text: &str) -> Result<(), Error> {
    match Sink::stdout(Form::Text)?.write(text.as_bytes()) {
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

/// Whether stdout is a terminal.
pub fn is_data_on_terminal() -> bool {
    rustix::stdio::stdout().is_terminal()
}

/// What became of a file that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaced {
    /// It has another name now.
    Moved,
    /// It has none, and what is written to it nobody can read.
    Removed,
}

/// What is shown of a watch, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The form of a record.
    pub format: Format,
    /// The engine's time before each text or raw line.
    pub timestamps: bool,
    /// Labels, networks and state in JSON records.
    pub metadata: bool,
    /// Lifecycle records in JSON.
    pub lifecycle: bool,
    /// What becomes of control characters in messages.
    pub ansi: Ansi,
    /// Names and notices in colour.
    pub color: When,
    /// Only this stream; `None` is both.
    pub stream: Option<crate::model::cursor::Stream>,
    /// A line is shown when one of these matches its message, or there are none, ...
    pub include: Vec<regex::bytes::Regex>,
    /// ... and none of these does.
    pub exclude: Vec<regex::bytes::Regex>,
    /// Append here instead of writing to stdout.
    pub file: Option<PathBuf>,
    /// No notices and no status line.
    pub quiet: bool,
    /// The form of notices. Only text has room for a status line.
    pub log_format: LogFormat,
}

impl Settings {
    /// Whether what takes long is told of on the terminal.
    pub fn wants_status(&self) -> bool {
        !self.quiet && self.log_format == LogFormat::Text
    }
}

/// The form of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `NAME | MESSAGE`.
    #[default]
    Text,
    /// One object a line.
    Json,
    /// The message alone.
    Raw,
}

/// What becomes of control characters and escape sequences in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ansi {
    /// On a terminal shown instead of obeyed, but for SGR colours; elsewhere kept.
    #[default]
    Auto,
    /// Kept as they are.
    Keep,
    /// Removed.
    Strip,
}

/// A choice that `auto` leaves to the terminal and the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// As the terminal and the environment say.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

impl When {
    /// Whether it is so on what is a terminal, or is none.
    pub(crate) fn holds(self, is_terminal: bool) -> bool {
        match self {
            When::Auto => is_terminal,
            When::Always => true,
            When::Never => false,
        }
    }
}

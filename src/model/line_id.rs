//! Which line of a container: the identity of a line, and the names of the streams and routes it can come by.
//!
//! These types are shared by batches ([`super::batch`]) and positions ([`super::position`]). A [`Cursor`] does not depend
//! on the route: the log file and the API yield the same cursor for the same line.

use super::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which of a container's two streams a line was written to. A container with a terminal has only stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// The name that Docker uses in `json-file` logs.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// The letter that stands for the stream in a written cursor.
    pub const fn letter(self) -> char {
        match self {
            Stream::Stdout => 'o',
            Stream::Stderr => 'e',
        }
    }
}

/// The identity of a line within its stream, in the order of an undisturbed clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineNumber {
    /// The daemon's timestamp of the line.
    pub time: Timestamp,
    /// Counts the lines of the same stream with the same time, from 0.
    pub ordinal: u32,
}

/// The identity of a line within its container. Written as `TIME-SO`: nanoseconds since the Unix epoch, the letter of the
/// stream, and the ordinal, such as `1795215653037882171-o0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The daemon's timestamp of the line.
    pub time: Timestamp,
    pub stream: Stream,
    /// Counts the lines of the same stream with the same time, from 0.
    pub ordinal: u32,
}

impl Cursor {
    /// Combines a stream and the identity of a line within it.
    pub const fn new(stream: Stream, LineNumber { time, ordinal }: LineNumber) -> Self {
        Cursor { time, stream, ordinal }
    }

    /// The identity of the line within its stream.
    pub const fn number(self) -> LineNumber {
        LineNumber { time: self.time, ordinal: self.ordinal }
    }

    /// Parses the written form.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, line) = text.rsplit_once('-')?;
        let (stream, ordinal) = match line.split_at_checked(1)? {
            ("o", ordinal) => (Stream::Stdout, ordinal),
            ("e", ordinal) => (Stream::Stderr, ordinal),
            _ => return None,
        };
        Some(Cursor { time: Timestamp(time.parse().ok()?), stream, ordinal: ordinal.parse().ok()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}{}", self.time.0, self.stream.letter(), self.ordinal)
    }
}

/// How a container's log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// From the log file.
    File,
    /// From one API response that stays open.
    Stream,
    /// From API responses that each stay open for a limited time.
    Rotate,
    /// From repeated API requests, each up to the current end of the log.
    Poll,
}

impl Route {
    pub const ALL: [Route; 4] = [Route::File, Route::Stream, Route::Rotate, Route::Poll];

    /// The name in JSON records, notices and the state.
    pub const fn name(self) -> &'static str {
        match self {
            Route::File => "file",
            Route::Stream => "stream",
            Route::Rotate => "rotate",
            Route::Poll => "poll",
        }
    }
}

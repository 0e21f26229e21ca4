//! What travels from a tail to the output: lines in batches, and what is told between them.
//!
//! A batch owns one buffer of bytes as they were read and small references into it, so that a line costs neither an
//! allocation nor a send.

use super::container::Container;
use super::position::Position;
use super::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A followed container's number within this run; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey(pub u32);

/// Which of a container's two streams a line was written to. A container with a terminal has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As the engine writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// Its letter in a cursor.
    pub const fn letter(self) -> char {
        match self {
            Stream::Stdout => 'o',
            Stream::Stderr => 'e',
        }
    }
}

/// How a message lies in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8 with nothing in it that JSON would escape: the same in both forms.
    Plain,
    /// The inside of a JSON string, valid as it lies.
    Json,
    /// The same, but for halves of surrogate pairs, which stand for nothing: [`crate::model::json::unescape`] tells what is meant.
    Surrogates,
    /// The bytes that the container wrote.
    Raw,
}

impl Encoding {
    /// Whether it is the inside of a JSON string that may have escapes in it.
    #[inline]
    pub const fn is_escaped(self) -> bool {
        matches!(self, Encoding::Json | Encoding::Surrogates)
    }

    /// Of two pieces behind each other.
    #[inline]
    pub(crate) const fn joined_with(self, next: Encoding) -> Encoding {
        match (self, next) {
            (Encoding::Surrogates, _) | (_, Encoding::Plain) => self,
            _ => next,
        }
    }
}

/// Whether a record is a whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is.
    Whole,
    /// A piece of one that was longer than the limit; more follow.
    Cut,
    /// The last piece of such a one.
    Last,
}

/// A reference to one message.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The engine's time.
    pub time: Timestamp,
    /// Its number among the lines of its stream with the same time.
    pub ordinal: u32,
    start: u32,
    len: u32,
    /// Where it was written to.
    pub stream: Stream,
    /// How it lies.
    pub encoding: Encoding,
    /// Whole or a piece.
    pub part: Part,
    joined: bool,
}

/// Lines of one container, in its order.
#[derive(Debug)]
pub struct Batch {
    /// Whose.
    pub key: ContainerKey,
    /// By which route they were read.
    pub route: Route,
    /// As read. The length is that of the buffer, not of what is in it: buffers are used again without being cleared.
    pub bytes: Vec<u8>,
    /// Messages that had to be put together from pieces.
    pub joined: Vec<u8>,
    /// The lines.
    pub lines: Vec<Line>,
    /// What was lost, each with the number of lines that come before it.
    pub gaps: Vec<(usize, Gap)>,
    /// Where to go on once all of this is passed on; `None` where the one before still holds.
    pub position: Option<Position>,
}

impl Batch {
    /// An empty one around a buffer.
    pub fn new(key: ContainerKey, route: Route, bytes: Vec<u8>, lines: Vec<Line>) -> Self {
        Batch { key, route, bytes, joined: Vec::new(), lines, gaps: Vec::new(), position: None }
    }

    /// The message that a line of this batch refers to, without its newline.
    #[inline]
    pub fn text(&self, line: &Line) -> &[u8] {
        let bytes = if line.joined { &self.joined } else { &self.bytes };
        &bytes[line.start as usize..(line.start + line.len) as usize]
    }

    /// Bytes of all messages as they lie.
    pub fn message_bytes(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.len)).sum()
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.gaps.is_empty()
    }

    /// Bytes of a log file that it stands for, but for what encloses its first and its last message.
    pub fn extent(&self) -> usize {
        // Where an empty message lies says nothing.
        let of_block = |line: &&Line| !line.joined && line.len > 0;
        let (first, last) = (self.lines.iter().find(of_block), self.lines.iter().rfind(of_block));
        let block = first.zip(last).map_or(0, |(first, last)| (last.start + last.len).saturating_sub(first.start));
        block as usize + self.joined.len()
    }

    /// Bytes of memory it holds.
    pub fn weight(&self) -> usize {
        self.bytes.capacity() + self.joined.capacity() + self.lines.capacity() * size_of::<Line>()
    }
}

/// What a line is but for where its message lies.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The engine's time.
    pub time: Timestamp,
    /// Its number among the lines of its stream with the same time.
    pub ordinal: u32,
    /// Where it was written to.
    pub stream: Stream,
    /// How it lies.
    pub encoding: Encoding,
    /// Whole or a piece.
    pub part: Part,
}

impl Line {
    /// A line whose message lies at `start..start + len` of [`Batch::bytes`]. A buffer is far smaller than 4 GiB.
    #[inline]
    pub fn read(head: Head, start: usize, len: usize) -> Self {
        let Head { time, ordinal, stream, encoding, part } = head;
        Line { time, ordinal, start: start as u32, len: len as u32, stream, encoding, part, joined: false }
    }

    /// A line whose message lies at `start..start + len` of [`Batch::joined`].
    pub fn joined(head: Head, start: usize, len: usize) -> Self {
        Line { joined: true, ..Line::read(head, start, len) }
    }

    /// Its identity within its container.
    pub fn cursor(&self) -> Cursor {
        Cursor { time: self.time, stream: self.stream, ordinal: self.ordinal }
    }
}

/// A line's identity within its container, the same by whichever route it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The engine's time.
    pub time: Timestamp,
    /// Where it was written to.
    pub stream: Stream,
    /// Its number among the lines of its stream with the same time.
    pub ordinal: u32,
}

impl Cursor {
    /// Reads the written form.
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

/// The route by which a line was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// The log file.
    File,
    /// One long API stream.
    Stream,
    /// API streams, each for some time.
    Rotate,
    /// API reads, each to the end there is.
    Poll,
}

impl Route {
    /// All of them.
    pub const ALL: [Route; 4] = [Route::File, Route::Stream, Route::Rotate, Route::Poll];

    /// As records and notices call it.
    pub const fn name(self) -> &'static str {
        match self {
            Route::File => "file",
            Route::Stream => "stream",
            Route::Rotate => "rotate",
            Route::Poll => "poll",
        }
    }
}

/// Something that is known to be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: Reason,
    /// How much of the log, if that can be known.
    pub lost_bytes: Option<u64>,
    /// The last line before it.
    pub after: Option<Cursor>,
}

/// Why something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The engine removed a file before it was read.
    RotatedAway,
    /// The file got shorter.
    Truncated,
    /// Bytes that are no record.
    Corrupt,
    /// Reading failed.
    Unreadable,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 4] = [Reason::RotatedAway, Reason::Truncated, Reason::Corrupt, Reason::Unreadable];

    /// As records and counters call it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::RotatedAway => "rotated_away",
            Reason::Truncated => "truncated",
            Reason::Corrupt => "corrupt",
            Reason::Unreadable => "unreadable",
        }
    }

    /// As notices say it.
    pub const fn phrase(self) -> &'static str {
        match self {
            Reason::RotatedAway => "the engine's rotation removed a log file before it could be read",
            Reason::Truncated => "the log file was truncated; what was not read before is gone",
            Reason::Corrupt => "part of the log is no record and was stepped over",
            Reason::Unreadable => "the log could not be read",
        }
    }
}

/// What happened to a container, as `--lifecycle` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// The engine's time.
    pub time: Timestamp,
    /// `start`, `die`, ...
    pub action: String,
    /// What the engine says about it, `exitCode` for one.
    pub attributes: BTreeMap<String, String>,
}

/// One thing on the way to the output. Whatever shares this queue keeps its place among the lines.
#[derive(Debug)]
pub enum Item {
    /// Lines.
    Lines(Batch),
    /// From here on this is what is known of the container with this key.
    Meet(ContainerKey, Arc<Container>),
    /// Where to go on in the container's log, though nothing of it was read yet.
    Place(ContainerKey, Position),
    /// The container is followed by this route; the engine's time of the event that told of it, where one did.
    Begin(ContainerKey, Route, Option<Timestamp>),
    /// What a stopped container has written is read by this route. Of one that shows no line neither this nor its end is
    /// worth a word.
    Recall(ContainerKey, Route),
    /// The container will write no more for now; the code it exited with, where known.
    End(ContainerKey, Option<i64>),
    /// The container was removed, and nothing will come of this key any more.
    Gone(ContainerKey),
    /// The container is not wanted, and nothing will come of this key any more.
    Forget(ContainerKey),
    /// Something happened to the container.
    Lifecycle(ContainerKey, Lifecycle),
    /// A sentence for the user, about a container or in general.
    Notice(Option<ContainerKey>, String),
}

impl Item {
    /// What is left of a container's log behind its last line, which no route can read.
    pub fn unreadable(key: ContainerKey, route: Route, after: Option<Cursor>) -> Item {
        let mut batch = Batch::new(key, route, Vec::new(), Vec::new());
        batch.gaps.push((0, Gap { reason: Reason::Unreadable, lost_bytes: None, after }));
        Item::Lines(batch)
    }

    /// Bytes of memory it holds, roughly.
    pub fn weight(&self) -> usize {
        match self {
            Item::Lines(batch) => batch.weight(),
            _ => size_of::<Item>(),
        }
    }

    /// Bytes of a log file that it stands for, roughly.
    pub fn of_file(&self) -> usize {
        match self {
            Item::Lines(batch) if batch.route == Route::File => batch.extent(),
            _ => 0,
        }
    }
}

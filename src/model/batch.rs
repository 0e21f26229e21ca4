//! What readers send to the output: batches of lines, and the items that keep their place among them.
//!
//! A batch owns one buffer with the bytes as they were read, and small references into it, so that a line costs
//! neither an allocation nor a send of its own.

use super::container::Container;
use super::line_id::{Cursor, Route, Stream};
use super::position::Position;
use super::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Identifies a followed container within this run. Never reused for another container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey(pub u32);

/// How the bytes of a message in a batch are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8 without any character that JSON would escape, so that text and JSON output are the same bytes.
    Plain,
    /// The inside of a JSON string, valid as it is.
    Json,
    /// Like [`Encoding::Json`], but with escapes of lone surrogates, which encode no
    /// character. [`crate::model::json::unescape`] replaces them.
    Surrogates,
    /// The bytes that the container wrote.
    Raw,
}

impl Encoding {
    /// Whether the message is the inside of a JSON string, which may contain escapes.
    #[inline]
    pub const fn is_escaped(self) -> bool {
        matches!(self, Encoding::Json | Encoding::Surrogates)
    }

    /// The encoding of this piece followed by a piece in the encoding `next`.
    #[inline]
    pub(crate) const fn joined_with(self, next: Encoding) -> Encoding {
        match (self, next) {
            (Encoding::Surrogates, _) | (_, Encoding::Plain) => self,
            _ => next,
        }
    }
}

/// Whether a record holds a whole message. A message longer than the limit is cut into several records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// A piece of a cut message; more pieces follow.
    Cut,
    /// The last piece of a cut message.
    Last,
}

/// A reference to one message of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// When dockerd received the line, by its clock.
    pub time: Timestamp,
    /// Counts the lines of the same stream with the same time, from 0.
    pub ordinal: u32,
    start: u32,
    len: u32,
    pub stream: Stream,
    pub encoding: Encoding,
    pub part: Part,
    /// Whether `start` is an index into [`Batch::joined`] rather than [`Batch::bytes`].
    joined: bool,
}

/// Lines of one container, in the order of its log.
#[derive(Debug)]
pub struct Batch {
    pub key: ContainerKey,
    /// How the lines were read.
    pub route: Route,
    /// The block as it was read. Buffers are reused without being cleared: the length is that of the buffer, and bytes
    /// outside the lines are left over from earlier blocks.
    pub bytes: Vec<u8>,
    /// Messages that were joined from several pieces.
    pub joined: Vec<u8>,
    pub lines: Vec<Line>,
    /// Losses, each with the number of `lines` before it.
    pub gaps: Vec<(usize, Gap)>,
    /// Where reading continues once the whole batch is delivered. `None` if the position of the
    /// batch before still holds.
    pub position: Option<Position>,
}

impl Batch {
    /// Creates an empty batch around a buffer.
    pub fn new(key: ContainerKey, route: Route, bytes: Vec<u8>, lines: Vec<Line>) -> Self {
        Batch { key, route, bytes, joined: Vec::new(), lines, gaps: Vec::new(), position: None }
    }

    /// The message of a line of this batch, without its newline.
    #[inline]
    pub fn text(&self, line: &Line) -> &[u8] {
        let bytes = if line.joined { &self.joined } else { &self.bytes };
        &bytes[line.start as usize..(line.start + line.len) as usize]
    }

    /// The size of all messages in bytes, in their encodings.
    pub fn message_bytes(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.len)).sum()
    }

    /// Whether there is nothing to print: neither lines nor gaps.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.gaps.is_empty()
    }

    /// The bytes of a log file that this batch covers, without what surrounds its first and its last message.
    pub fn extent(&self) -> usize {
        // The start of an empty message is meaningless.
        let is_in_block = |line: &&Line| !line.joined && line.len > 0;
        let (first, last) = (self.lines.iter().find(is_in_block), self.lines.iter().rfind(is_in_block));
        let block = first.zip(last).map_or(0, |(first, last)| (last.start + last.len).saturating_sub(first.start));
        block as usize + self.joined.len()
    }

    /// The memory that the batch holds, in bytes.
    pub fn weight(&self) -> usize {
        self.bytes.capacity() + self.joined.capacity() + self.lines.capacity() * size_of::<Line>()
    }
}

/// The fields of a line without the location of its message.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// When dockerd received the line, by its clock.
    pub time: Timestamp,
    /// Counts the lines of the same stream with the same time, from 0.
    pub ordinal: u32,
    pub stream: Stream,
    pub encoding: Encoding,
    pub part: Part,
}

impl Line {
    /// A line whose message is at `start..start + len` of [`Batch::bytes`]. Buffers are far smaller than 4 GiB.
    #[inline]
    pub fn read(head: Head, start: usize, len: usize) -> Self {
        let Head { time, ordinal, stream, encoding, part } = head;
        Line { time, ordinal, start: start as u32, len: len as u32, stream, encoding, part, joined: false }
    }

    /// A line whose message is at `start..start + len` of [`Batch::joined`].
    pub fn joined(head: Head, start: usize, len: usize) -> Self {
        Line { joined: true, ..Line::read(head, start, len) }
    }

    /// The identity of the line within its container.
    pub fn cursor(&self) -> Cursor {
        Cursor { time: self.time, stream: self.stream, ordinal: self.ordinal }
    }
}

/// A known loss of log.
/// Something that is known to be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub reason: Reason,
    /// The lost bytes of the log, if known.
    pub lost_bytes: Option<u64>,
    /// The last line before the loss.
    pub after: Option<Cursor>,
}

/// Why a part of a log was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The daemon removed a file before it was read.
    RotatedAway,
    /// The file was truncated.
    Truncated,
    /// Some bytes are not a valid record.
    Corrupt,
    /// The file or the API cannot be read, or the rest was removed.
    Unreadable,
}

impl Reason {
    pub const ALL: [Reason; 4] = [Reason::RotatedAway, Reason::Truncated, Reason::Corrupt, Reason::Unreadable];

    /// The name in JSON records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::RotatedAway => "rotated_away",
            Reason::Truncated => "truncated",
            Reason::Corrupt => "corrupt",
            Reason::Unreadable => "unreadable",
        }
    }

    /// The text of a notice.
    pub const fn phrase(self) -> &'static str {
        match self {
            Reason::RotatedAway => "log rotation removed a log file before it was read",
            Reason::Truncated => "the log file was truncated; what was not read before is lost",
            Reason::Corrupt => "part of the log could not be decoded and was skipped",
            Reason::Unreadable => "the log could not be read",
        }
    }
}

/// An event of a container, as `--lifecycle` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// When it happened, by the daemon's clock.
    pub time: Timestamp,
    /// The action of the event: `start`, `die`, ...
    pub action: String,
    /// The attributes of the event, such as `exitCode`.
    pub attributes: BTreeMap<String, String>,
}

/// An item of the queue between the readers and the output. All items share one queue, so that each keeps its
/// place among the lines.
#[derive(Debug)]
pub enum Item {
    Lines(Batch),
    /// Describes the container with this key, from here on.
    Describe(ContainerKey, Arc<Container>),
    /// The position at which reading of the log starts. Sent before anything is read.
    StartAt(ContainerKey, Position),
    /// The container is now followed by this route. If an event caused it, the time of that event
    /// by the daemon's clock.
    Followed(ContainerKey, Route, Option<Timestamp>),
    /// What a stopped container wrote is now read by this route. If no line of it is printed, neither this item nor the
    /// matching [`Item::End`] is reported.
    History(ContainerKey, Route),
    /// The container stopped and writes no more for now. Carries its exit code, if known.
    End(ContainerKey, Option<i64>),
    /// The container was removed; no further item has this key.
    Removed(ContainerKey),
    /// The container is no longer selected; no further item has this key.
    Deselected(ContainerKey),
    Lifecycle(ContainerKey, Lifecycle),
    /// A message for people, about one container or in general.
    Notice(Option<ContainerKey>, String),
}

impl Item {
    /// A gap for the rest of a container's log after the line `after`, which no route can read.
    pub fn unreadable(key: ContainerKey, route: Route, after: Option<Cursor>) -> Item {
        let mut batch = Batch::new(key, route, Vec::new(), Vec::new());
        batch.gaps.push((0, Gap { reason: Reason::Unreadable, lost_bytes: None, after }));
        Item::Lines(batch)
    }

    /// The approximate memory that the item holds, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Item::Lines(batch) => batch.weight(),
            _ => size_of::<Item>(),
        }
    }

    /// The approximate bytes of a log file that the item covers; 0 if it was not read from a file.
    pub fn file_bytes(&self) -> usize {
        match self {
            Item::Lines(batch) if batch.route == Route::File => batch.extent(),
            _ => 0,
        }
    }
}

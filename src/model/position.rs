//! Where reading of a container's log continues, in a form that every route can use.
//!
//! A reader attaches a position to each batch, the output passes it on once it has delivered the batch, the state
//! stores it, and the next reader of that container starts from it. A position has two parts. [`TimePosition`] is by
//! time and serves every route. [`FilePosition`] is by file and offset: it is exact even if the clock was changed, as
//! long as the file still exists, be it renamed or compressed by rotation.

use super::file_id::FileId;
use super::line_id::{Cursor, LineNumber, Route, Stream};
use super::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a container's log was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The route that read up to here.
    pub route: Route,
    pub resume: TimePosition,
    /// `None` if the log was not read from a file.
    pub place: Option<FilePosition>,
}

/// A position by time: the last line of each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimePosition {
    /// The time from which the log has to be read again. `None` is the beginning of the log.
    pub since: Option<Timestamp>,
    /// The last delivered line of stdout and of stderr, indexed by [`Stream`].
    pub seen: [Option<Mark>; 2],
}

/// The last line of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    pub time: Timestamp,
    /// Counts the lines of the same stream with the same time, from 0.
    pub ordinal: u32,
    /// The latest time of any line up to this one. Later than `time` if the clock was set back.
    pub high: Timestamp,
}

impl Mark {
    /// The identity of the line within its stream.
    pub const fn line(self) -> LineNumber {
        LineNumber { time: self.time, ordinal: self.ordinal }
    }
}

/// A file as a position identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSignature {
    pub id: FileId,
    /// Hash of its first record, if it had one.
    pub fingerprint: Option<u64>,
    /// Number of its device. Not used for identification.
    pub device: u64,
}

/// A position by file and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The device number of the file. Only for people who inspect the state: files are not recognised by it.
    pub device: u64,
    pub file: FileId,
    /// The fingerprint of the file's first record, if it had one. Older versions stored a value derived from the birth
    /// time if it had none.
    pub fingerprint: Option<u64>,
    /// Where the first record to read starts, in bytes of log. In a compressed file, an offset
    /// into the unpacked content.
    pub offset: u64,
    /// The time and ordinal of the last line of each stream before `offset`, indexed by [`Stream`].
    pub before: [Option<(Timestamp, u32)>; 2],
    /// How many lines of each stream after `offset` were delivered already, indexed by [`Stream`]: `offset` stays at
    /// the start of an unfinished line while complete lines follow between its pieces.
    pub passed: [u32; 2],
}

impl FilePosition {
    /// The file that the position names.
    pub const fn signature(&self) -> FileSignature {
        FileSignature { id: self.file, fingerprint: self.fingerprint, device: self.device }
    }
}

impl TimePosition {
    /// A position before which nothing is wanted, with no line delivered yet.
    pub fn at(since: Option<Timestamp>) -> Self {
        TimePosition { since, seen: [None; 2] }
    }

    /// Records the last delivered line of a stream. `since` stays as it is.
    pub fn advance(&mut self, line: Cursor) {
        let seen = &mut self.seen[line.stream as usize];
        let high = seen.map_or(line.time, |seen| seen.high.max(line.time));
        *seen = Some(Mark { time: line.time, ordinal: line.ordinal, high });
    }

    /// Whether no line was delivered.
    pub fn is_at_start(&self) -> bool {
        self.seen == [None; 2]
    }

    /// The last delivered line of both streams, by time.
    pub fn last(&self) -> Option<Cursor> {
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().zip(self.seen);
        let last = streams.filter_map(|(stream, seen)| Some(Cursor::new(stream, seen?.line())));
        last.max_by_key(|line| line.time)
    }

    /// Whether this line was delivered. If no line of its stream was, its time is compared with the last mark
    /// of the other stream.
    pub fn has(&self, line: Cursor) -> bool {
        let newest = || self.seen.iter().flatten().map(|seen| LineNumber { time: seen.time, ordinal: 0 }).max();
        let own = self.seen[line.stream as usize].map(Mark::line);
        own.or_else(newest).is_some_and(|seen| line.number() <= seen)
    }
}

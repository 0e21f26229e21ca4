//! Where to go on in a container's log, in forms that any route can go on from.
//!
//! A tail makes one behind each batch, the output hands it on once it has the batch, the state keeps it, and the next
//! tail of that container starts from it. [`TimePosition`] is by time and serves every route; [`FilePosition`] is by file and offset
//! and is exact whatever the clock did, as long as the file or what the engine has made of it is still there.

use super::batch::{Cursor, Route, Stream};
use super::file_id::FileId;
use super::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a container's log was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// By which route it came this far.
    pub route: Route,
    /// By time.
    pub resume: TimePosition,
    /// In a file, where it was read from one.
    pub place: Option<FilePosition>,
}

/// How far, by time: the last line of each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimePosition {
    /// Where the log has to be read again from; `None` is the beginning.
    pub since: Option<Timestamp>,
    /// The last line of stdout and of stderr that was passed on.
    pub seen: [Option<Mark>; 2],
}

/// The last line of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Its time.
    pub time: Timestamp,
    /// Its number among the lines of its stream with the same time.
    pub ordinal: u32,
    /// The latest time of any line up to it. A clock that was set back leaves lines behind it with earlier ones.
    pub high: Timestamp,
}

/// How far, in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The number of the device that the file was on. For people who look at the state: nothing is recognised by it.
    pub device: u64,
    /// Which file it is.
    pub file: FileId,
    /// Of the file's first record, if there was one. Older versions of this program put the birth time here where there
    /// was none.
    pub fingerprint: Option<u64>,
    /// Of the record to start with, in bytes of log: of a compressed file, once unpacked.
    pub offset: u64,
    /// The last line of each stream before that record, with its ordinal.
    pub before: [Option<(Timestamp, u32)>; 2],
    /// Lines of each stream behind that record which were passed on: those that came between the pieces of a longer one.
    pub passed: [u32; 2],
}

impl TimePosition {
    /// Nothing passed on yet, and nothing wanted from before this.
    pub fn at(since: Option<Timestamp>) -> Self {
        TimePosition { since, seen: [None; 2] }
    }

    /// This line is the last of its stream now; what is read again may begin where it did.
    pub fn advance(&mut self, line: Cursor) {
        let seen = &mut self.seen[line.stream as usize];
        let high = seen.map_or(line.time, |seen| seen.high.max(line.time));
        *seen = Some(Mark { time: line.time, ordinal: line.ordinal, high });
    }

    /// Whether no line was passed on.
    pub fn is_at_start(&self) -> bool {
        self.seen == [None; 2]
    }

    /// This, or the other when this is no position at all.
    #[must_use]
    pub fn or(self, other: TimePosition) -> TimePosition {
        if self.is_at_start() && self.since.is_none() { other } else { self }
    }

    /// The last line of either stream.
    pub fn last(&self) -> Option<Cursor> {
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().zip(self.seen);
        let last = streams.filter_map(|(stream, seen)| {
            let Mark { time, ordinal, .. } = seen?;
            Some(Cursor { time, stream, ordinal })
        });
        last.max_by_key(|line| line.time)
    }

    /// Whether this line lies before it; by its time alone when no line of its stream was passed on.
    pub fn has(&self, line: Cursor) -> bool {
        let newest = || self.seen.iter().flatten().map(|seen| (seen.time, 0)).max();
        let own = self.seen[line.stream as usize].map(|seen| (seen.time, seen.ordinal));
        own.or_else(newest).is_some_and(|seen| (line.time, line.ordinal) <= seen)
    }
}

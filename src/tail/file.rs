//! Follows one container's `json-file` log across rotations.
//!
//! In: the container's folder and where to start. Out: batches, one at a time, when [`super::reader`] asks. Knows
//! nothing of the engine or the output.
//! The engine rotates by renaming the live file to `.1`, or removing it when `max-file=1`, and making a new one (moby
//! `daemon/logger/loggerutils/logfile.go`). An open handle still reads the old bytes, so new files are opened as they
//! appear and wait behind the old one until it is read to its end.

use super::handle::{self, Handle, Identity};
use super::partial::{Joiner, Sheet};
use super::{Follow, Piece, json_file, seek};
use crate::batch::{Batch, Item, Key, Reason, Route};
use crate::position::Resume;
use crate::queue::Queue;
use crate::time::{Reader as Clock, Timestamp};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a read takes while there is a lot to catch up with, ...
const LARGE: usize = 256 * 1024;
/// ... and when a file is read as it grows.
const SMALL: usize = 16 * 1024;
/// The engine writes no longer record: 16 KiB, each byte escaped to six, and attributes.
const LONGEST_RECORD: usize = 4 * 1024 * 1024;
/// Rotated files older than what the engine keeps by any sane setting are not searched for.
const MOST_FILES: u32 = 1000;

/// One container's log.
pub(super) struct Log {
    key: Key,
    live: PathBuf,
    /// Its last part, which every event of the folder is compared with.
    live_name: OsString,
    /// Open files, the one being read first, the live one last.
    chain: VecDeque<Handle>,
    /// Where reading stopped when the container did; no file is open then.
    closed: Option<Closed>,
    /// The beginning of a record whose end is not there yet.
    carry: Vec<u8>,
    /// In a stretch that is no record, looking for the next one.
    lost: bool,
    joiner: Joiner,
    clock: Clock,
    until: Timestamp,
    /// Everything was read that was there when it was opened, and that was all that was asked for.
    once: bool,
    /// The last read filled its buffer.
    behind: bool,
}

/// The file at which reading stopped.
struct Closed {
    identity: Identity,
    written: SystemTime,
    /// The time of its last record: all that tells it once the engine has compressed it.
    last: Option<Timestamp>,
    offset: u64,
}

/// A file to be found again among what the engine has made of it.
struct Known<'a> {
    identity: Identity,
    written: SystemTime,
    /// The time of its last record, which takes a look into it.
    last: &'a dyn Fn() -> Option<Timestamp>,
}

impl Known<'_> {
    fn ends_at(&self, time: Timestamp) -> bool {
        (self.last)() == Some(time)
    }
}

/// What a turn of reading gave.
pub(super) enum Turn {
    /// Lines or gaps, and perhaps more behind them.
    Batch(Batch),
    /// Bytes were read, but nothing to tell came of them.
    Nothing,
    /// The end, for now.
    End,
}

impl Log {
    /// Not open yet.
    pub(super) fn new(follow: &Follow) -> Self {
        let live_name = live_name(&follow.id);
        Log {
            key: follow.key,
            live: follow.folder.join(&live_name),
            live_name,
            chain: VecDeque::new(),
            closed: None,
            carry: Vec::new(),
            lost: false,
            joiner: Joiner::new(follow.max_line_size, follow.window),
            clock: Clock::default(),
            until: Timestamp(follow.window.until.0.saturating_add(super::SLACK)),
            once: follow.once,
            behind: false,
        }
    }

    /// Whether a file is open.
    pub(super) fn is_open(&self) -> bool {
        !self.chain.is_empty()
    }

    /// Whether one was, and where it ended is remembered.
    pub(super) fn was_open(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether an event about this name may concern it.
    pub(super) fn is_live_name(&self, name: &std::ffi::OsStr) -> bool {
        self.live_name == name
    }

    /// Opens what is there to be read first. `NotFound` when the engine has not made the file yet.
    pub(super) fn open(&mut self, start: super::Start) -> io::Result<()> {
        let mut handles = match self.closed.take() {
            Some(closed) => self.reopen(closed)?,
            None => seek::start(&self.live, start)?,
        };
        if let (true, Some(live)) = (self.once, handles.last_mut()) {
            live.end = live.size()?;
        }
        self.chain = handles.into();
        self.behind = true;
        Ok(())
    }

    /// Reads this from its beginning: it was opened before anybody asked for it.
    pub(super) fn adopt(&mut self, handle: Handle) {
        self.chain = VecDeque::from([handle]);
        self.behind = true;
    }

    /// Goes on where reading stopped, through what was rotated meanwhile.
    fn reopen(&mut self, closed: Closed) -> io::Result<Vec<Handle>> {
        let newest = match Handle::open(&self.live) {
            Ok(newest) => newest,
            Err(error) => {
                self.closed = Some(closed);
                return Err(error);
            }
        };
        let known = Known { identity: closed.identity, written: closed.written, last: &|| closed.last };
        let mut handles = self.back_to(&known, newest)?;
        if let Some(first) = handles.first_mut().filter(|first| first.identity == closed.identity) {
            first.offset = closed.offset;
        }
        Ok(handles)
    }

    /// The live file and those before it, back to the one that is known; oldest first. What the engine has removed
    /// in between is a gap before the first of them.
    fn back_to(&self, known: &Known<'_>, newest: Handle) -> io::Result<Vec<Handle>> {
        let mut handles = vec![newest];
        let mut is_found = handles[0].identity == known.identity;
        for number in 1..MOST_FILES {
            if is_found {
                break;
            }
            let Some(path) = handle::numbered(&self.live, number) else {
                // Between two steps of a rotation the first number stands for nothing.
                if number == 1 {
                    continue;
                }
                break;
            };
            match Handle::open(&path) {
                // What was a file's number a moment ago may be the one before it by now.
                Ok(handle) if handles.iter().any(|other| other.identity == handle.identity) => {}
                // With `max-file=1` the known file is unlinked at once, and what lies in numbered files may be older.
                Ok(handle) if handle.written < known.written => break,
                Ok(handle)
                    if handle.plain().is_none() && handle.last_time().is_some_and(|last| known.ends_at(last)) =>
                {
                    is_found = true;
                }
                Ok(handle) => {
                    is_found = handle.identity == known.identity;
                    handles.push(handle);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        if !is_found && let [_, .., oldest] = handles.as_mut_slice() {
            oldest.follows_gap = true;
        }
        handles.reverse();
        Ok(handles)
    }

    /// The live name has a new file behind it, perhaps: opens it, and any that came and went in between.
    pub(super) fn follow_rotation(&mut self) -> io::Result<()> {
        let Some(newest) = self.chain.back() else { return Ok(()) };
        let identity = newest.identity;
        if self.once || handle::identity(&self.live)? == identity {
            return Ok(());
        }
        let last = || seek::last_time(newest).ok().flatten();
        let known = Known { identity, written: newest.last_written()?, last: &last };
        let found = self.back_to(&known, Handle::open(&self.live)?)?;
        let fresh = found.into_iter().filter(|handle| handle.identity != identity);
        self.chain.extend(fresh);
        Ok(())
    }

    /// Bytes that are there to be read and have not been; asks the file system.
    pub(super) fn has_more(&self) -> bool {
        self.chain.len() > 1
            || self
                .chain
                .front()
                .is_some_and(|file| file.size().is_ok_and(|size| size.is_some_and(|size| size != file.offset)))
    }

    /// Whether the last read left something behind for certain.
    pub(super) fn has_known_rest(&self) -> bool {
        self.behind || self.chain.len() > 1
    }

    /// Reads one block and takes it apart.
    pub(super) fn turn(&mut self, queue: &Queue) -> io::Result<Turn> {
        let size = if self.behind { LARGE } else { SMALL };
        let (mut bytes, lines) = queue.buffer(size.max(self.carry.len() + SMALL));
        let held = self.carry.len();
        bytes[..held].copy_from_slice(&self.carry);
        let read = loop {
            let Some(file) = self.chain.front_mut() else { return Ok(Turn::End) };
            if std::mem::take(&mut file.follows_gap) {
                return Ok(self.told(|log, sheet| log.joiner.gap(Reason::RotatedAway, None, sheet)));
            }
            let read = file.read(&mut bytes[held..])?;
            if read > 0 || !self.next_file() {
                break read;
            }
            if held > self.carry.len() {
                // The finished file ended inside a record: told with the next batch.
                return Ok(self.told(|log, sheet| log.joiner.gap(Reason::Corrupt, Some(held as u64), sheet)));
            }
        };
        if read == 0 {
            queue.finish_unused(bytes, lines);
            return if self.was_truncated()? {
                Ok(self.told(|log, sheet| log.joiner.gap(Reason::Truncated, None, sheet)))
            } else {
                Ok(Turn::End)
            };
        }
        let filled = held + read;
        self.behind = filled == bytes.len();
        self.carry.clear();
        let mut batch = Batch::new(self.key, Route::File, Vec::new(), lines);
        let taken = self.take_apart(&bytes[..filled], &mut Sheet::of(&mut batch));
        self.carry.extend_from_slice(&bytes[taken..filled]);
        batch.bytes = bytes;
        if batch.is_empty() {
            queue.finish_unused(batch.bytes, batch.lines);
            return Ok(Turn::Nothing);
        }
        Ok(Turn::Batch(batch))
    }

    /// The last piece of a line, when the container has died and its log was read to the end.
    pub(super) fn flush(&mut self) -> Option<Item> {
        match self.told(|log, sheet| {
            if !log.carry.is_empty() && !log.once {
                log.joiner.gap(Reason::Corrupt, Some(log.carry.len() as u64), sheet);
            }
            log.carry.clear();
            log.joiner.flush_all(sheet);
        }) {
            Turn::Batch(batch) => Some(Item::Lines(batch)),
            Turn::Nothing | Turn::End => None,
        }
    }

    /// Gives the descriptor back and remembers where to go on.
    pub(super) fn close(&mut self) {
        if let Some(file) = self.chain.back() {
            self.closed = Some(Closed {
                identity: file.identity,
                written: file.last_written().unwrap_or(file.written),
                last: seek::last_time(file).ok().flatten(),
                offset: file.offset - self.carry.len() as u64,
            });
        }
        self.chain.clear();
        self.carry.clear();
    }

    /// How far it has come, for another route to go on from.
    pub(super) fn position(&self) -> Resume {
        self.joiner.position()
    }

    /// A loss that is no fault of the bytes.
    pub(super) fn unreadable(&mut self) -> Option<Item> {
        match self.told(|log, sheet| log.joiner.gap(Reason::Unreadable, None, sheet)) {
            Turn::Batch(batch) => Some(Item::Lines(batch)),
            Turn::Nothing | Turn::End => None,
        }
    }

    fn told(&mut self, tell: impl FnOnce(&mut Self, &mut Sheet<'_>)) -> Turn {
        let mut batch = Batch::new(self.key, Route::File, Vec::new(), Vec::new());
        tell(self, &mut Sheet::of(&mut batch));
        if batch.is_empty() { Turn::Nothing } else { Turn::Batch(batch) }
    }

    /// Goes to the next file when the one being read has come to its last end.
    fn next_file(&mut self) -> bool {
        if self.chain.len() < 2 {
            return false;
        }
        self.chain.pop_front();
        self.carry.clear();
        self.behind = true;
        self.joiner.muted = false;
        true
    }

    fn was_truncated(&mut self) -> io::Result<bool> {
        let Some(file) = self.chain.front_mut() else { return Ok(false) };
        let truncated = file.end.is_none() && file.size()?.is_some_and(|size| size < file.offset);
        if truncated {
            file.offset = 0;
            self.carry.clear();
            self.behind = true;
        }
        Ok(truncated)
    }

    /// Hands every whole record to the joiner; returns how many bytes that were.
    fn take_apart(&mut self, bytes: &[u8], sheet: &mut Sheet<'_>) -> usize {
        let mut from = if self.lost { self.find_record(bytes, sheet) } else { 0 };
        if let Some(last) = memchr::memrchr(b'\n', &bytes[from..]) {
            let end = from + last + 1;
            let shown_from =
                self.chain.front().map_or(0, |file| (file.shown_from + bytes.len() as u64).saturating_sub(file.offset));
            let is_text = simdutf8::basic::from_utf8(&bytes[from..end]).is_ok();
            let muted = usize::try_from(shown_from).unwrap_or(usize::MAX).clamp(from, end);
            self.joiner.muted = true;
            self.records(bytes, from..muted, is_text, sheet);
            self.joiner.muted = false;
            self.records(bytes, muted..end, is_text, sheet);
            from = end;
        }
        if bytes.len() - from > LONGEST_RECORD {
            self.joiner.gap(Reason::Corrupt, Some((bytes.len() - from) as u64), sheet);
            self.lost = true;
            from = bytes.len();
        }
        from
    }

    /// Past a stretch that is no record: behind its newline, or where a record starts inside it.
    fn find_record(&mut self, bytes: &[u8], sheet: &mut Sheet<'_>) -> usize {
        let newline = memchr::memchr(b'\n', bytes).map(|at| at + 1);
        let record = json_file::find(bytes);
        let found = newline.into_iter().chain(record).min();
        self.lost = found.is_none();
        let end = found.unwrap_or(bytes.len());
        self.joiner.gap(Reason::Corrupt, Some(end as u64), sheet);
        end
    }

    /// Takes the lines of a range apart; the range starts and ends where a line does.
    fn records(&mut self, bytes: &[u8], range: std::ops::Range<usize>, is_text: bool, sheet: &mut Sheet<'_>) {
        let mut from = range.start;
        for newline in memchr::memchr_iter(b'\n', &bytes[range.clone()]) {
            let end = range.start + newline;
            let record = &bytes[from..end];
            let valid = is_text || std::str::from_utf8(record).is_ok();
            match if valid { json_file::decode(record, &mut self.clock) } else { None } {
                Some(piece) => self.push(piece, from, sheet),
                None => self.salvage(&bytes[from..end], from, sheet),
            }
            from = end + 1;
        }
    }

    #[inline]
    fn push(&mut self, piece: Piece<'_>, record: usize, sheet: &mut Sheet<'_>) {
        if piece.time > self.until && self.once {
            self.stop_early();
        }
        let at = matches!(piece.text, Cow::Borrowed(_)).then_some(record + json_file::MESSAGE_AT);
        self.joiner.push(piece, at, sheet);
    }

    /// Nothing behind this can be wanted any more.
    #[cold]
    fn stop_early(&mut self) {
        self.chain.truncate(1);
        if let Some(file) = self.chain.front_mut() {
            file.end = Some(file.offset);
        }
    }

    /// A line that is no record may hold one behind its damage: NULs of a power cut, half a record of a full disk.
    #[cold]
    fn salvage(&mut self, line: &[u8], at: usize, sheet: &mut Sheet<'_>) {
        let mut from = 0;
        while let Some(next) = json_file::resync(&line[from..]) {
            from += next;
            let record = &line[from..];
            if std::str::from_utf8(record).is_ok()
                && let Some(piece) = json_file::decode(record, &mut self.clock)
            {
                self.joiner.gap(Reason::Corrupt, Some(from as u64), sheet);
                return self.push(piece, at + from, sheet);
            }
        }
        self.joiner.gap(Reason::Corrupt, Some(line.len() as u64 + 1), sheet);
    }

    /// Whether it was asked to read only what was there.
    pub(super) fn is_once(&self) -> bool {
        self.once
    }
}

/// The file the engine writes now.
pub(super) fn live_name(id: &str) -> OsString {
    OsString::from(format!("{id}-json.log"))
}

/// Where a container's log lies, for the engine to see which route to take.
pub fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(live_name(id))
}

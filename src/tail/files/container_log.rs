//! Reads one container's log, file after file.
//!
//! In: the container's folder and where to start. Out: batches, one per call from [`super::reader`], each with the
//! position after it. [`super::rotation`] manages the files, and [`crate::tail::decode::block`] decodes their bytes.
//! Knows nothing of the daemon or the output.

use super::log_file::{self, GUARD, Handle, ReadOutcome};
use super::rotation::{Chain, RotationOutcome};
use super::seek;
use crate::model::batch::{Batch, ContainerKey, Item, Reason};
use crate::model::line_id::Route;
use crate::model::position::{Position, TimePosition};
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::tail::decode::block::{Block, BlockDecoder, DecodedBlock, HeldBack, UnknownFormat};
use crate::tail::decode::format::LogLocation;
use crate::tail::decode::local::WORD;
use crate::tail::lines::{Joiner, LineSink};
use crate::tail::resume::{Completeness, RestartPoint};
use crate::tail::{Follow, Start};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Size of a read while catching up.
const LARGE: usize = 256 * 1024;
/// Size of a read while following a growing file.
const SMALL: usize = 16 * 1024;

/// One container's log, across its rotated files.
pub(super) struct ContainerLog {
    key: ContainerKey,
    id: String,
    folder: PathBuf,
    /// Its files. The reader passes inotify events to it.
    pub(super) chain: Chain,
    /// Where to resume when no file is open. Boxed, because there are many logs and most are open.
    resume: Option<Box<StopPoint>>,
    /// Where to start without a position.
    start: Start,
    /// The beginning of a record whose end has not been read yet.
    carry: Vec<u8>,
    /// Set from the first opening on, when the format is known.
    decoder: Option<BlockDecoder>,
    /// Set until the first opening, when it moves into `decoder`.
    joiner: Option<Joiner>,
    /// Where the oldest line starts that is unfinished or lies after the window. Valid while the decoder has one
    /// ([`BlockDecoder::holds_back`]).
    held_back: Option<RestartPoint>,
    /// Decoding stops after a line later than this.
    until: Timestamp,
    /// Only read what existed when the log was opened.
    once: bool,
    /// More bytes are certainly available: the last read filled its buffer, or another file is in front.
    has_rest: bool,
    /// At the start of a truncated file, where NULs are not part of the log.
    in_hole: bool,
}

/// Where reading stopped, in this run or an earlier one.
#[derive(Clone, Copy, Debug)]
struct StopPoint {
    position: Position,
    /// Files that were modified later than this are newer than the position.
    written: SystemTime,
}

/// The outcome of reading one block.
#[expect(clippy::large_enum_variant, reason = "it is moved once, and most are batches")]
pub(super) enum BlockOutcome {
    /// Lines or gaps. More may follow.
    Batch(Batch),
    /// Bytes were read, but they contain nothing to deliver yet.
    Nothing,
    /// The end of the log for now.
    End,
}

impl ContainerLog {
    /// Creates a log without opening its file.
    pub(super) fn new(follow: &Follow) -> Self {
        let resume = follow.position.map(|position| {
            let newest = position.resume.seen.iter().flatten().map(|seen| seen.time).max();
            Box::new(StopPoint { position, written: newest.map_or(UNIX_EPOCH, system_time) })
        });
        ContainerLog {
            key: follow.key,
            id: follow.id.clone(),
            folder: follow.folder.clone(),
            chain: Chain::default(),
            resume,
            start: follow.start,
            carry: Vec::new(),
            decoder: None,
            joiner: Some(Joiner::new(follow.max_line_size, follow.window)),
            held_back: None,
            until: match follow.once {
                true => Timestamp(follow.window.until.0.saturating_add(crate::tail::SLACK)),
                false => Timestamp(i64::MAX),
            },
            once: follow.once,
            has_rest: false,
            in_hole: false,
        }
    }

    /// Returns whether a file is open.
    pub(super) fn is_open(&self) -> bool {
        self.chain.len() > 0
    }

    /// Returns whether a file is or was open.
    pub(super) fn was_open(&self) -> bool {
        self.decoder.is_some()
    }

    /// Returns whether only what existed at its opening is read.
    pub(super) fn is_once(&self) -> bool {
        self.once
    }

    /// Returns whether an event about a file of this name may concern this log.
    pub(super) fn is_live_name(&self, name: &OsStr) -> bool {
        match self.chain.location() {
            Some(_) => self.chain.is_live_name(name),
            None => crate::tail::decode::format::is_log_name(name, &self.id),
        }
    }

    /// Returns the folder to watch: that of the file, or the one in which it will probably be created.
    pub(super) fn watched(&self) -> PathBuf {
        match self.chain.location() {
            Some(location) => location.folder().to_owned(),
            None => crate::tail::decode::format::inner_folder(&self.folder).unwrap_or_else(|| self.folder.clone()),
        }
    }

    /// Opens the files to read. `NotFound` if dockerd has not created the log file yet.
    pub(super) fn open(&mut self, start: Start) -> io::Result<()> {
        self.start = start;
        let location = match self.chain.location() {
            Some(location) => location.clone(),
            None => LogLocation::find(&self.folder, &self.id).ok_or(io::ErrorKind::NotFound)?,
        };
        let newest = match Handle::open(&location.live, location.format) {
            // Somebody removed it. The file read last may be among the rotated ones.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.names_a_file() => None,
            newest => Some(newest?),
        };
        self.set_location(location.clone());
        let (mut handles, new) = match (self.resume.as_deref().copied(), newest) {
            (Some(stop), newest) => self.resume_at(stop, &location, newest)?,
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
            (None, Some(newest)) => {
                let handles = seek::start(&location.live, newest, start)?;
                let are_new = start == Start::All;
                let new = i64::try_from(handles.len()).ok().filter(|_| are_new);
                (handles, new)
            }
        };
        self.resume = None;
        if let (true, Some(live)) = (self.once, handles.last_mut()) {
            live.end = live.size()?;
        }
        self.begin(handles, new)
    }

    /// Returns whether the position names a file.
    fn names_a_file(&self) -> bool {
        self.resume.as_ref().is_some_and(|stop| stop.position.place.is_some())
    }

    /// Returns whether dockerd has not created any file of this log yet.
    pub(super) fn has_no_files(&self) -> bool {
        let locations = LogLocation::all(&self.folder, &self.id);
        locations.iter().all(|location| (1..=2).all(|number| log_file::numbered(&location.live, number).is_none()))
    }

    /// Reads a file that was opened before the container was followed, from its beginning. Files that were rotated
    /// earlier come first.
    pub(super) fn adopt(&mut self, location: LogLocation, handle: Handle) -> io::Result<()> {
        let all = Handle::open(&location.live, location.format)
            .and_then(|live| seek::start(&location.live, live, Start::All));
        let mut handles = all.unwrap_or_default();
        let before = handles.iter().position(|other| other.identity == handle.identity);
        handles.truncate(before.unwrap_or(0));
        handles.push(handle);
        self.set_location(location);
        self.begin(handles, None)
    }

    /// Sets the location and format of the log.
    fn set_location(&mut self, location: LogLocation) {
        if let Some(joiner) = self.joiner.take() {
            self.decoder = Some(BlockDecoder::new(location.format, joiner, self.until));
        }
        self.chain.set_location(location);
    }

    /// Starts reading these files. `new` is how many of them dockerd created since this log was last checked, if known.
    fn begin(&mut self, mut handles: Vec<Handle>, new: Option<i64>) -> io::Result<()> {
        for handle in handles.iter_mut().filter(|handle| handle.offset > 0) {
            handle.guard()?;
        }
        self.chain.begin(handles, new);
        self.enter_file();
        Ok(())
    }

    /// Resumes at a position. Returns the files from there on, oldest first, and how many of them are newer than the
    /// file of the position, if known.
    fn resume_at(
        &mut self,
        stop: StopPoint,
        location: &LogLocation,
        newest: Option<Handle>,
    ) -> io::Result<(Vec<Handle>, Option<i64>)> {
        let StopPoint { position: Position { resume, place, .. }, written } = stop;
        let Some(joiner) = self.decoder.as_mut().map(|decoder| &mut decoder.joiner) else {
            return Ok((Vec::new(), None));
        };
        let Some(place) = place else {
            joiner.replay_by_time(&resume, Completeness::MustReappear);
            if let (true, Some(since)) = (resume.is_at_start(), resume.since) {
                joiner.filter.hide_before(since);
            }
            let start = resume.since.map_or(Start::All, Start::Since);
            let newest = newest.ok_or(io::ErrorKind::NotFound)?;
            return Ok((seek::start(&location.live, newest, start)?, None));
        };
        let (mut handles, is_first) = self.chain.back_to(place.signature(), written)?;
        let Some(first) = handles.first_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        if !is_first {
            // If any of the remaining files was read before, its lines are recognised by their times.
            joiner.replay_by_time(&resume, Completeness::Proven);
            return Ok((handles, None));
        }
        if first.skip_to(place.offset)? {
            seek::back_to_whole(first)?;
            joiner.replay_by_count(&place, &resume);
        } else {
            joiner.replay_by_time(&resume, Completeness::Proven);
            self.chain.add_loss(Reason::Truncated);
            first.start_over()?;
        }
        let new = i64::try_from(handles.len() - 1).ok();
        Ok((handles, new))
    }

    /// Opens the file under the live name if it is a new one, and the files that were rotated in between. If the folder
    /// is now on another device, the caller has to watch it and call [`ContainerLog::reopen`].
    pub(super) fn follow_rotation(&mut self) -> io::Result<RotationOutcome> {
        if self.once {
            return Ok(RotationOutcome::Unchanged);
        }
        let followed = self.chain.follow_rotation(self.carry.len() as u64)?;
        if followed == RotationOutcome::NewFront {
            self.enter_file();
        }
        Ok(followed)
    }

    /// Continues with the files that the folder contains now. The open files are on an unmounted file system, where
    /// nobody writes any more.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let Some(location) = self.chain.location() else { return Ok(()) };
        // Keep the open files until there is a new one.
        Handle::open(&location.live, location.format)?;
        self.close();
        self.open(self.start)
    }

    /// Returns whether there is certainly more to read.
    pub(super) fn has_more_for_sure(&self) -> bool {
        self.has_rest || self.chain.len() > 1
    }

    /// Reads and decodes one block.
    pub(super) fn read_block(&mut self, queue: &Queue) -> io::Result<BlockOutcome> {
        if let Some((reason, lost)) = self.chain.take_loss() {
            // This turn has not read what it was scheduled for.
            self.has_rest = true;
            return Ok(self.batch_of(|log, sink| log.gap(reason, lost, sink)));
        }
        let size = if self.has_rest { LARGE } else { SMALL };
        let (mut bytes, lines) = queue.buffer(size.max(GUARD + self.carry.len() + SMALL));
        let held = GUARD + self.carry.len();
        bytes[GUARD..held].copy_from_slice(&self.carry);
        let Some(file) = self.chain.front_mut() else {
            queue.finish_unused(bytes, lines);
            return Ok(BlockOutcome::End);
        };
        if file.must_skip() {
            let has_more = file.skip(&mut bytes)?;
            queue.finish_unused(bytes, lines);
            self.has_rest = true;
            if !has_more {
                self.chain.add_loss(Reason::Truncated);
            }
            return Ok(BlockOutcome::Nothing);
        }
        let offset = file.offset - self.carry.len() as u64;
        let shown_from = file.shown_from;
        match file.read(&mut bytes, held)? {
            ReadOutcome::Bytes(0) => {
                queue.finish_unused(bytes, lines);
                Ok(self.next_file())
            }
            ReadOutcome::Bytes(read) => {
                let filled = held + read;
                if offset == 0 {
                    // The file may have been truncated before anything was read.
                    self.in_hole = true;
                    file.forget_fingerprint();
                }
                self.has_rest = filled == bytes.len() || file.has_more()?;
                let from = self.skip_hole(&bytes[..filled])?;
                let offset = offset + (from - GUARD) as u64;
                let block = Block { bytes: &bytes[..filled], from, offset, shown_from };
                let mut batch = Batch::new(self.key, Route::File, Vec::new(), lines);
                let taken = self.decode(block, &mut batch)?;
                self.carry.clear();
                self.carry.extend_from_slice(&bytes[taken..filled]);
                batch.bytes = bytes;
                Ok(self.finish_batch(batch, queue))
            }
            ReadOutcome::Rewritten => {
                queue.finish_unused(bytes, lines);
                self.chain.start_over()?;
                self.carry.clear();
                (self.has_rest, self.in_hole) = (true, true);
                self.restart_decoder();
                Ok(self.batch_of(|log, sink| log.gap(Reason::Truncated, None, sink)))
            }
        }
    }

    fn decode(&mut self, block: Block<'_>, batch: &mut Batch) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else { return Ok(block.from) };
        let DecodedBlock { taken, held_back } =
            decoder.decode(block, &mut LineSink::of(batch)).map_err(|UnknownFormat| {
                io::Error::new(io::ErrorKind::InvalidData, "its log file has an unknown format")
            })?;
        if let (Some(HeldBack { offset, before }), Some(file)) = (held_back, self.chain.front()) {
            self.held_back = Some(RestartPoint { file: file.signature(), offset, before });
        }
        if decoder.is_past_end() {
            self.stop_early();
        }
        Ok(taken)
    }

    /// Skips NULs at the start of a truncated file: the hole up to where its writer continues, and the rest of that
    /// block.
    fn skip_hole(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (true, Some(file)) = (self.in_hole, self.chain.front_mut()) else { return Ok(GUARD) };
        let from = GUARD + file.format.nuls(&bytes[GUARD..]);
        if from == bytes.len() {
            file.skip_hole()?;
        }
        let rest = &bytes[from..];
        self.in_hole = rest.iter().take(WORD).all(|byte| *byte == 0);
        Ok(from)
    }

    fn finish_batch(&mut self, mut batch: Batch, queue: &Queue) -> BlockOutcome {
        batch.position = self.position();
        if batch.is_empty() && batch.position.is_none() {
            queue.finish_unused(batch.bytes, batch.lines);
            return BlockOutcome::Nothing;
        }
        BlockOutcome::Batch(batch)
    }

    /// Returns the unfinished lines: the container has died and its log was read to the end.
    pub(super) fn flush(&mut self) -> Option<Item> {
        let outcome = self.batch_of(|log, sink| {
            let Some(decoder) = &mut log.decoder else { return };
            let taken = decoder.decode_rest(&log.carry, sink);
            log.carry.drain(..taken);
            if !log.carry.is_empty() && !log.once {
                decoder.joiner.gap(Reason::Corrupt, Some(log.carry.len() as u64), sink);
                // So that the gap is reported once.
                log.carry.clear();
            }
            decoder.joiner.flush_all(sink);
            if log.chain.take_loss_at_end() {
                decoder.joiner.gap(Reason::RotatedAway, None, sink);
            }
        });
        match outcome {
            BlockOutcome::Batch(batch) => Some(Item::Lines(batch)),
            BlockOutcome::Nothing | BlockOutcome::End => None,
        }
    }

    /// Closes all files and remembers where to resume.
    pub(super) fn close(&mut self) {
        if let (Some(position), Some(file)) = (self.position(), self.chain.newest()) {
            let written = file.last_written().unwrap_or(file.written);
            self.resume = Some(Box::new(StopPoint { position, written }));
        }
        self.chain.clear();
        self.carry.clear();
    }

    /// Returns the position after the lines so far. `None` while there is none to resume from.
    pub(super) fn position(&self) -> Option<Position> {
        let Some(file) = self.chain.front() else { return self.resume.as_ref().map(|stop| stop.position) };
        let decoder = self.decoder.as_ref()?;
        let offset = (file.offset - self.carry.len() as u64).max(file.resume_offset);
        if offset < file.shown_from {
            return None;
        }
        let joiner = &decoder.joiner;
        let point = match decoder.holds_back() {
            true => self.held_back,
            false => Some(RestartPoint { file: file.signature(), offset, before: joiner.filter.progress() }),
        };
        let (resume, place) = (joiner.position(), point.and_then(|point| joiner.filter.file_position(&point)));
        Some(Position { route: Route::File, resume, place })
    }

    /// Returns the position by time, for routes without files.
    pub(super) fn resume(&self) -> TimePosition {
        self.decoder.as_ref().map_or_else(
            || self.resume.as_ref().map(|stop| stop.position.resume).unwrap_or_default(),
            |decoder| decoder.joiner.position(),
        )
    }

    fn gap(&mut self, reason: Reason, lost: Option<u64>, sink: &mut LineSink<'_>) {
        if let Some(decoder) = &mut self.decoder {
            decoder.joiner.gap(reason, lost, sink);
        }
    }

    fn batch_of(&mut self, fill: impl FnOnce(&mut Self, &mut LineSink<'_>)) -> BlockOutcome {
        let mut batch = Batch::new(self.key, Route::File, Vec::new(), Vec::new());
        fill(self, &mut LineSink::of(&mut batch));
        if batch.is_empty() {
            return BlockOutcome::Nothing;
        }
        batch.position = self.position();
        BlockOutcome::Batch(batch)
    }

    /// Moves to the next file once the current one was read to its end.
    fn next_file(&mut self) -> BlockOutcome {
        self.has_rest = false;
        if self.chain.len() < 2 {
            if self.decoder.as_mut().is_some_and(|decoder| decoder.joiner.end_replay()) {
                self.chain.add_loss(Reason::RotatedAway);
            }
            return BlockOutcome::End;
        }
        let torn = self.carry.len() as u64;
        let outcome = match torn {
            0 => BlockOutcome::Nothing,
            // The finished file ends inside a record.
            _ => self.batch_of(|log, sink| log.gap(Reason::Corrupt, Some(torn), sink)),
        };
        self.chain.advance();
        self.enter_file();
        outcome
    }

    /// Prepares for reading another file.
    fn enter_file(&mut self) {
        self.carry.clear();
        self.restart_decoder();
        self.has_rest = true;
        self.in_hole = self.chain.front().is_some_and(|file| file.offset == 0 && file.starts_with_hole());
        if let (true, Some(file)) = (self.in_hole, self.chain.front_mut()) {
            // If the file system does not report holes, the NULs are read instead.
            let _ = file.start_over();
        }
    }

    fn restart_decoder(&mut self) {
        if let Some(decoder) = &mut self.decoder {
            decoder.restart();
        }
    }

    /// Stops reading: no later line can be wanted.
    #[cold]
    fn stop_early(&mut self) {
        self.chain.keep_front_alone();
        if let Some(file) = self.chain.front_mut() {
            file.end = Some(file.offset);
        }
    }
}

/// Converts the time of a record to a modification time that is certainly not later.
fn system_time(time: Timestamp) -> SystemTime {
    let nanos = u64::try_from(time.0).unwrap_or(0);
    // A file's time has the resolution of a clock tick, a record's time that of a nanosecond.
    (UNIX_EPOCH + Duration::from_nanos(nanos)).checked_sub(Duration::from_secs(1)).unwrap_or(UNIX_EPOCH)
}

//! Reads one container's log, file after file.
//!
//! In: the container's folder and where to start. Out: batches, one at a time, when [`super::reader`] asks, each with the
//! position behind it. Which files there are is [`super::chain`]'s, what is in the bytes [`super::block`]'s. Knows nothing
//! of the engine or the output.

use super::log_file::{self, Found, GUARD, Handle};
use super::rotation::{Chain, File, Followed};
use super::seek;
use crate::model::batch::{Batch, ContainerKey, Item, Reason};
use crate::model::cursor::Route;
use crate::model::position::{FilePosition, Position, TimePosition};
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::tail::decode::block::{Block, Blocks, Strange};
use crate::tail::decode::format::Spot;
use crate::tail::decode::local::WORD;
use crate::tail::lines::{Joiner, Sheet, Tally};
use crate::tail::{Follow, Start};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a read takes while there is a lot to catch up with, ...
const LARGE: usize = 256 * 1024;
/// ... and when a file is read as it grows.
const SMALL: usize = 16 * 1024;

/// One container's log.
pub(super) struct Log {
    key: ContainerKey,
    id: String,
    folder: PathBuf,
    /// Its files. What is told of them comes from the reader.
    pub(super) chain: Chain,
    /// Where to go on when no file is open. In a box, since most logs are open and there are many.
    resume: Option<Box<Stop>>,
    /// Where it began, should it never have come to a position.
    start: Start,
    /// The beginning of a record whose end is not there yet.
    carry: Vec<u8>,
    blocks: Option<Blocks>,
    joiner: Option<Joiner>,
    /// Of the oldest line that is not whole.
    begun_in: Option<File>,
    until: Timestamp,
    /// Everything was read that was there when it was opened, and that was all that was asked for.
    once: bool,
    /// The last read filled its buffer.
    behind: bool,
    /// At the start of a file that was truncated, where NULs are no log.
    in_hole: bool,
}

/// Where reading stopped, in this run or an earlier one.
#[derive(Clone, Copy, Debug)]
struct Stop {
    position: Position,
    /// What was last written before is older than this file.
    written: SystemTime,
}

/// What a turn of reading gave.
#[expect(clippy::large_enum_variant, reason = "it is handed on at once, and most are batches")]
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
        let resume = follow.position.map(|position| {
            let newest = position.resume.seen.iter().flatten().map(|seen| seen.time).max();
            Box::new(Stop { position, written: newest.map_or(UNIX_EPOCH, system_time) })
        });
        Log {
            key: follow.key,
            id: follow.id.clone(),
            folder: follow.folder.clone(),
            chain: Chain::default(),
            resume,
            start: follow.start,
            carry: Vec::new(),
            blocks: None,
            joiner: Some(Joiner::new(follow.max_line_size, follow.window)),
            begun_in: None,
            until: match follow.once {
                true => Timestamp(follow.window.until.0.saturating_add(crate::tail::SLACK)),
                false => Timestamp(i64::MAX),
            },
            once: follow.once,
            behind: false,
            in_hole: false,
        }
    }

    /// Whether a file is open.
    pub(super) fn is_open(&self) -> bool {
        self.chain.len() > 0
    }

    /// Whether one was.
    pub(super) fn was_open(&self) -> bool {
        self.blocks.is_some()
    }

    /// Whether it was asked to read only what was there.
    pub(super) fn is_once(&self) -> bool {
        self.once
    }

    /// Whether an event about this name may concern it.
    pub(super) fn is_live_name(&self, name: &OsStr) -> bool {
        match self.chain.spot() {
            Some(_) => self.chain.is_live_name(name),
            None => crate::tail::decode::format::is_log_name(name, &self.id),
        }
    }

    /// The folder that has to be watched, as far as can be seen: that of the file, or the one it will be made in.
    pub(super) fn watched(&self) -> PathBuf {
        match self.chain.spot() {
            Some(spot) => spot.folder().to_owned(),
            None => crate::tail::decode::format::inner_folder(&self.folder).unwrap_or_else(|| self.folder.clone()),
        }
    }

    /// Opens what is there to be read first. `NotFound` when the engine has not made the file yet.
    pub(super) fn open(&mut self, start: Start) -> io::Result<()> {
        self.start = start;
        let spot = match self.chain.spot() {
            Some(spot) => spot.clone(),
            None => Spot::find(&self.folder, &self.id).ok_or(io::ErrorKind::NotFound)?,
        };
        let newest = match Handle::open(&spot.live, spot.format) {
            // Somebody removed it; what was read last may be among those that were rotated.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.has_place() => None,
            newest => Some(newest?),
        };
        self.settle_at(spot.clone());
        let (mut handles, new) = match (self.resume.as_deref().copied(), newest) {
            (Some(stop), newest) => self.go_on(stop, &spot, newest)?,
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
            (None, Some(newest)) => {
                let handles = seek::start(&spot.live, newest, start)?;
                let are_new = matches!(start, Start::Beginning | Start::All);
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

    /// Whether it goes on in a file, whatever the live one is.
    fn has_place(&self) -> bool {
        self.resume.as_ref().is_some_and(|stop| stop.position.place.is_some())
    }

    /// Whether the engine has made no file of it yet.
    pub(super) fn is_unmade(&self) -> bool {
        let spots = Spot::all(&self.folder, &self.id);
        spots.iter().all(|spot| (1..=2).all(|number| log_file::numbered(&spot.live, number).is_none()))
    }

    /// Reads this from its beginning: it was opened before anybody asked for it. What was rotated before that goes ahead.
    pub(super) fn adopt(&mut self, spot: Spot, handle: Handle) -> io::Result<()> {
        let all = Handle::open(&spot.live, spot.format).and_then(|live| seek::start(&spot.live, live, Start::All));
        let mut handles = all.unwrap_or_default();
        let before = handles.iter().position(|other| other.identity == handle.identity);
        handles.truncate(before.unwrap_or(0));
        handles.push(handle);
        self.settle_at(spot);
        self.begin(handles, None)
    }

    /// From now on it is this file.
    fn settle_at(&mut self, spot: Spot) {
        if let Some(joiner) = self.joiner.take() {
            self.blocks = Some(Blocks::new(spot.format, joiner, self.until));
        }
        self.chain.settle_at(spot);
    }

    /// So many of these, where that is known, were made since this log was last looked at.
    fn begin(&mut self, mut handles: Vec<Handle>, new: Option<i64>) -> io::Result<()> {
        for handle in handles.iter_mut().filter(|handle| handle.offset > 0) {
            handle.guard()?;
        }
        self.chain.begin(handles, new);
        self.arrive();
        Ok(())
    }

    /// The files from where reading stopped on, oldest first, and how many of them are behind it, where that is known.
    fn go_on(&mut self, stop: Stop, spot: &Spot, newest: Option<Handle>) -> io::Result<(Vec<Handle>, Option<i64>)> {
        let Stop { position: Position { resume, place, .. }, written } = stop;
        let Some(joiner) = self.blocks.as_mut().map(|blocks| &mut blocks.joiner) else { return Ok((Vec::new(), None)) };
        let Some(place) = place else {
            joiner.rewind_in_doubt(resume);
            if let (true, Some(since)) = (resume.is_at_start(), resume.since) {
                joiner.not_before(since);
            }
            let start = resume.since.map_or(Start::All, Start::Since);
            let newest = newest.ok_or(io::ErrorKind::NotFound)?;
            return Ok((seek::start(&spot.live, newest, start)?, None));
        };
        let file = File { id: place.file, device: place.device, fingerprint: place.fingerprint };
        let (mut handles, is_first) = self.chain.back_to(file, written)?;
        let Some(first) = handles.first_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        if !is_first {
            // Should anything of what is left have been read after all, it is told by its time.
            joiner.rewind(resume);
            return Ok((handles, None));
        }
        if first.skip_to(place.offset)? {
            seek::back_to_whole(first)?;
            let high = resume.seen.map(|seen| seen.map_or(Timestamp(i64::MIN), |seen| seen.high));
            joiner.start(Tally { last: place.before, ..Tally::default() }, place.passed, high);
            joiner.expect(resume.seen);
        } else {
            joiner.rewind(resume);
            self.chain.owe(Reason::Truncated);
            first.start_over()?;
        }
        let new = i64::try_from(handles.len() - 1).ok();
        Ok((handles, new))
    }

    /// The live name has a new file behind it, perhaps: opens it, and any that came and went in between. When its folder is
    /// on another device than before, the caller has to watch that and call [`Log::reopen`].
    pub(super) fn follow_rotation(&mut self) -> io::Result<Followed> {
        if self.once {
            return Ok(Followed::Nothing);
        }
        let followed = self.chain.follow_rotation(self.carry.len() as u64)?;
        if followed == Followed::NewFront {
            self.arrive();
        }
        Ok(followed)
    }

    /// Goes on in the files that its folder holds now. What is open is on a file system that was unmounted, where nothing is
    /// written any more.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let Some(spot) = self.chain.spot() else { return Ok(()) };
        // Until there is a file, what is open is kept.
        Handle::open(&spot.live, spot.format)?;
        self.close();
        self.open(self.start)
    }

    /// Whether the last read left something behind for certain.
    pub(super) fn has_known_rest(&self) -> bool {
        self.behind || self.chain.len() > 1
    }

    /// Reads one block and takes it apart.
    pub(super) fn turn(&mut self, queue: &Queue) -> io::Result<Turn> {
        if let Some((reason, lost)) = self.chain.take_loss() {
            // What this turn was for has not been read.
            self.behind = true;
            return Ok(self.told(|log, sheet| log.gap(reason, lost, sheet)));
        }
        let size = if self.behind { LARGE } else { SMALL };
        let (mut bytes, lines) = queue.buffer(size.max(GUARD + self.carry.len() + SMALL));
        let held = GUARD + self.carry.len();
        bytes[GUARD..held].copy_from_slice(&self.carry);
        let Some(file) = self.chain.front_mut() else {
            queue.finish_unused(bytes, lines);
            return Ok(Turn::End);
        };
        if file.has_to_skip() {
            let has_more = file.skip(&mut bytes)?;
            queue.finish_unused(bytes, lines);
            self.behind = true;
            if !has_more {
                self.chain.owe(Reason::Truncated);
            }
            return Ok(Turn::Nothing);
        }
        let offset = file.offset - self.carry.len() as u64;
        let shown_from = file.shown_from;
        match file.read(&mut bytes, held)? {
            Found::Bytes(0) => {
                queue.finish_unused(bytes, lines);
                Ok(self.next_file())
            }
            Found::Bytes(read) => {
                let filled = held + read;
                if offset == 0 {
                    // It may have been truncated before anything of it was read.
                    self.in_hole = true;
                    file.look_again();
                }
                self.behind = filled == bytes.len() || file.has_more()?;
                let from = self.skip_hole(&bytes[..filled])?;
                let offset = offset + (from - GUARD) as u64;
                let block = Block { bytes: &bytes[..filled], from, offset, shown_from };
                let mut batch = Batch::new(self.key, Route::File, Vec::new(), lines);
                let taken = self.take_apart(block, &mut batch)?;
                self.carry.clear();
                self.carry.extend_from_slice(&bytes[taken..filled]);
                batch.bytes = bytes;
                Ok(self.finished(batch, queue))
            }
            Found::Rewritten => {
                queue.finish_unused(bytes, lines);
                self.chain.start_over()?;
                self.carry.clear();
                (self.behind, self.in_hole) = (true, true);
                self.jump();
                Ok(self.told(|log, sheet| log.gap(Reason::Truncated, None, sheet)))
            }
        }
    }

    fn take_apart(&mut self, block: Block<'_>, batch: &mut Batch) -> io::Result<usize> {
        let Some(blocks) = &mut self.blocks else { return Ok(block.from) };
        let taken = blocks.take(block, &mut Sheet::of(batch));
        if let (Some(begun), Some(file)) = (blocks.begun().filter(|begun| begun.is_new), self.chain.front()) {
            begun.is_new = false;
            self.begun_in = Some(File::of(file));
        }
        if blocks.is_past() {
            self.stop_early();
        }
        taken.map_err(|Strange| io::Error::new(io::ErrorKind::InvalidData, "its log file has an unknown form"))
    }

    /// What a truncated file has at its start is a hole up to where its writer goes on, and the rest of that block.
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

    fn finished(&mut self, mut batch: Batch, queue: &Queue) -> Turn {
        batch.position = self.position();
        if batch.is_empty() && batch.position.is_none() {
            queue.finish_unused(batch.bytes, batch.lines);
            return Turn::Nothing;
        }
        Turn::Batch(batch)
    }

    /// The last piece of a line, when the container has died and its log was read to the end.
    pub(super) fn flush(&mut self) -> Option<Item> {
        let told = self.told(|log, sheet| {
            let Some(blocks) = &mut log.blocks else { return };
            let taken = blocks.take_rest(&log.carry, sheet);
            log.carry.drain(..taken);
            if !log.carry.is_empty() && !log.once {
                blocks.joiner.gap(Reason::Corrupt, Some(log.carry.len() as u64), sheet);
                // So that it is told once.
                log.carry.clear();
            }
            blocks.joiner.flush_all(sheet);
            if log.chain.owes_at_end() {
                blocks.joiner.gap(Reason::RotatedAway, None, sheet);
            }
        });
        match told {
            Turn::Batch(batch) => Some(Item::Lines(batch)),
            Turn::Nothing | Turn::End => None,
        }
    }

    /// Gives the descriptor back and remembers where to go on.
    pub(super) fn close(&mut self) {
        if let (Some(position), Some(file)) = (self.position(), self.chain.newest()) {
            let written = file.last_written().unwrap_or(file.written);
            self.resume = Some(Box::new(Stop { position, written }));
        }
        self.chain.clear();
        self.carry.clear();
    }

    /// How far it has come; `None` when nothing is known yet that could be gone on from.
    pub(super) fn position(&mut self) -> Option<Position> {
        let Some(file) = self.chain.front() else { return self.resume.as_ref().map(|stop| stop.position) };
        let blocks = self.blocks.as_mut()?;
        let offset = (file.offset - self.carry.len() as u64).max(file.goes_on_at);
        if offset < file.shown_from {
            return None;
        }
        let begun = blocks.begun().copied();
        let joiner = &blocks.joiner;
        let resume = joiner.position();
        let place = |file: File, offset, tally: Tally| {
            let passed = joiner.passed_since(&tally);
            let File { id, device, fingerprint } = file;
            FilePosition { device, file: id, fingerprint, offset, before: tally.last, passed }
        };
        let place = match begun {
            // Only the times tell what comes again.
            _ if joiner.is_rewound() => None,
            Some(begun) => self.begun_in.map(|file| place(file, begun.offset, begun.tally)),
            None => Some(place(File::of(file), offset, joiner.tally())),
        };
        Some(Position { route: Route::File, resume, place })
    }

    /// How far it has come, for a route that has no files.
    pub(super) fn resume(&self) -> TimePosition {
        self.blocks.as_ref().map_or_else(
            || self.resume.as_ref().map(|stop| stop.position.resume).unwrap_or_default(),
            |blocks| blocks.joiner.position(),
        )
    }

    fn gap(&mut self, reason: Reason, lost: Option<u64>, sheet: &mut Sheet<'_>) {
        if let Some(blocks) = &mut self.blocks {
            blocks.joiner.gap(reason, lost, sheet);
        }
    }

    fn told(&mut self, tell: impl FnOnce(&mut Self, &mut Sheet<'_>)) -> Turn {
        let mut batch = Batch::new(self.key, Route::File, Vec::new(), Vec::new());
        tell(self, &mut Sheet::of(&mut batch));
        if batch.is_empty() {
            return Turn::Nothing;
        }
        batch.position = self.position();
        Turn::Batch(batch)
    }

    /// Goes to the next file when the one being read has come to its last end.
    fn next_file(&mut self) -> Turn {
        self.behind = false;
        if self.chain.len() < 2 {
            if self.blocks.as_mut().is_some_and(|blocks| blocks.joiner.catch_up()) {
                self.chain.owe(Reason::RotatedAway);
            }
            return Turn::End;
        }
        let torn = self.carry.len() as u64;
        let told = match torn {
            0 => Turn::Nothing,
            // The finished file ended inside a record.
            _ => self.told(|log, sheet| log.gap(Reason::Corrupt, Some(torn), sheet)),
        };
        self.chain.advance();
        self.arrive();
        told
    }

    /// Another file is in front.
    fn arrive(&mut self) {
        self.carry.clear();
        self.jump();
        self.behind = true;
        self.in_hole = self.chain.front().is_some_and(|file| file.offset == 0 && file.begins_with_a_hole());
        if let (true, Some(file)) = (self.in_hole, self.chain.front_mut()) {
            // Where it cannot be asked for, it is read.
            let _ = file.start_over();
        }
    }

    fn jump(&mut self) {
        if let Some(blocks) = &mut self.blocks {
            blocks.jump();
        }
    }

    /// Nothing behind this can be wanted any more.
    #[cold]
    fn stop_early(&mut self) {
        self.chain.keep_front_alone();
        if let Some(file) = self.chain.front_mut() {
            file.end = Some(file.offset);
        }
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = u64::try_from(time.0).unwrap_or(0);
    // A file's time has the clock's tick, a record's its nanoseconds.
    (UNIX_EPOCH + Duration::from_nanos(nanos)).checked_sub(Duration::from_secs(1)).unwrap_or(UNIX_EPOCH)
}

//! Follows one container's log files across rotations.
//!
//! In: the container's folder and where to start. Out: batches, one at a time, when [`super::reader`] asks. Knows
//! nothing of the engine or the output; what is in the bytes is [`super::block`]'s.
//! The engine rotates by renaming the live file to `.1`, or removing it when `max-file=1`, and making a new one (moby
//! `daemon/logger/loggerutils/logfile.go`). An open handle still reads the old bytes, so new files are opened as they
//! appear and wait behind the old one until it is read to its end.

use super::block::{Block, Blocks, Strange};
use super::format::Spot;
use super::handle::{self, Found, GUARD, Handle, Identity, MOST_WALKS, Rotated};
use super::local::WORD;
use super::partial::{Joiner, Sheet, Tally};
use super::{Follow, Start, seek};
use crate::batch::{Batch, Item, Key, Reason, Route};
use crate::position::{Place, Position, Resume};
use crate::queue::Queue;
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a read takes while there is a lot to catch up with, ...
const LARGE: usize = 256 * 1024;
/// ... and when a file is read as it grows.
const SMALL: usize = 16 * 1024;
/// Files held open that wait behind the one being read, ...
const MOST_HELD: usize = 512;
/// ... and bytes in them that the disk cannot have back: beyond this the oldest are given up.
const MOST_PINNED: u64 = 1024 * 1024 * 1024;
/// Files remembered as read when they are met again: more than the engine keeps by any sane setting.
const MOST_PASSED: usize = 128;

/// One container's log.
pub(super) struct Log {
    key: Key,
    id: String,
    folder: PathBuf,
    spot: Option<Spot>,
    /// The last part of the live file's path, which every event of its folder is compared with.
    live_name: OsString,
    /// Open files, the one being read first, the live one last.
    chain: VecDeque<Handle>,
    /// Where to go on when no file is open.
    resume: Option<Stop>,
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
    births: Births,
    /// The last files that were left behind, by their fingerprints.
    passed: VecDeque<u64>,
    /// A loss to be told before the next line.
    owed: Option<(Reason, Option<u64>)>,
}

/// A file, as a position names it.
#[derive(Clone, Copy, Debug)]
struct File {
    identity: Identity,
    fingerprint: Option<u64>,
}

impl File {
    fn of(handle: &Handle) -> Self {
        File { identity: handle.identity, fingerprint: handle.fingerprint().or(handle.birth) }
    }
}

/// Where reading stopped, in this run or an earlier one.
#[derive(Clone, Copy, Debug)]
struct Stop {
    position: Position,
    /// What was last written before is older than this file.
    written: SystemTime,
}

/// A file to be found again among what the engine has made of it.
struct Known {
    file: File,
    written: SystemTime,
    /// The number of an open file is not given out again.
    is_open: bool,
}

impl Known {
    /// Numbers of files are given out again; what a record says is not, nor when a file was made.
    fn is(&self, handle: &Handle) -> bool {
        let is_same = self.file.identity == handle.identity;
        match self.file.fingerprint {
            _ if self.is_open && is_same => true,
            Some(known) => handle.fingerprint() == Some(known) || handle.birth == Some(known),
            None => is_same,
        }
    }
}

/// New files that were told of, beside those that were opened: with `max-file=1` nothing else shows that the engine made
/// one and removed it before we came.
#[derive(Default)]
struct Births {
    /// Opened less told.
    balance: i64,
    /// Until all is heard that was told before the first was opened.
    is_settled: bool,
    /// What came before this file was not found: as many as were told of may have been opened all the same.
    doubted: Option<Identity>,
    /// Nothing is known of what came before this file, as it need not be: a rotation with one file looks so, and a start.
    lone: Option<Identity>,
    /// The newest file was opened since this was last settled with what was told, and is the last of them.
    has_new: bool,
    /// One that came behind the newest was missed: told before the next, or at the end.
    owes_next: bool,
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
            Stop { position, written: newest.map_or(UNIX_EPOCH, system_time) }
        });
        Log {
            key: follow.key,
            id: follow.id.clone(),
            folder: follow.folder.clone(),
            spot: None,
            live_name: OsString::new(),
            chain: VecDeque::new(),
            resume,
            carry: Vec::new(),
            blocks: None,
            joiner: Some(Joiner::new(follow.max_line_size, follow.window)),
            begun_in: None,
            until: match follow.once {
                true => Timestamp(follow.window.until.0.saturating_add(super::SLACK)),
                false => Timestamp(i64::MAX),
            },
            once: follow.once,
            behind: false,
            in_hole: false,
            births: Births::default(),
            passed: VecDeque::new(),
            owed: None,
        }
    }

    /// Whether a file is open.
    pub(super) fn is_open(&self) -> bool {
        !self.chain.is_empty()
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
        match self.spot {
            Some(_) => self.live_name == name,
            None => super::format::is_log_name(name, &self.id),
        }
    }

    /// The folder that has to be watched, as far as can be seen: that of the file, or the one it will be made in.
    pub(super) fn watched(&self) -> PathBuf {
        match &self.spot {
            Some(spot) => spot.folder().to_owned(),
            None => super::format::inner_folder(&self.folder).unwrap_or_else(|| self.folder.clone()),
        }
    }

    /// Opens what is there to be read first. `NotFound` when the engine has not made the file yet.
    pub(super) fn open(&mut self, start: Start) -> io::Result<()> {
        let spot = match &self.spot {
            Some(spot) => spot.clone(),
            None => Spot::find(&self.folder, &self.id).ok_or(io::ErrorKind::NotFound)?,
        };
        let newest = match Handle::open(&spot.live, spot.format) {
            // Somebody removed it; what was read last may be among those that were rotated.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.has_place() => None,
            newest => Some(newest?),
        };
        self.settle_at(spot);
        let (mut handles, new) = match (self.resume, newest) {
            (Some(stop), newest) => self.go_on(stop, newest)?,
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
            (None, Some(newest)) => {
                let handles = seek::start(&self.live()?, newest, start)?;
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
        self.resume.is_some_and(|stop| stop.position.place.is_some())
    }

    /// Whether the engine has made no file of it yet.
    pub(super) fn is_unmade(&self) -> bool {
        let spots = Spot::all(&self.folder, &self.id);
        spots.iter().all(|spot| (1..=2).all(|number| handle::numbered(&spot.live, number).is_none()))
    }

    /// Its folder is watched and has no file: whatever will be made in it is told.
    pub(super) fn is_to_come(&mut self) {
        self.births = Births { is_settled: true, ..Births::default() };
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
        self.live_name = spot.name();
        self.spot = Some(spot);
    }

    /// So many of these, where that is known, were made since this log was last looked at.
    fn begin(&mut self, mut handles: Vec<Handle>, new: Option<i64>) -> io::Result<()> {
        for handle in handles.iter_mut().filter(|handle| handle.offset > 0) {
            handle.guard()?;
        }
        self.births = match new.filter(|_| self.births.is_settled) {
            Some(balance) => {
                let oldest = usize::try_from(balance).ok().and_then(|new| handles.len().checked_sub(new));
                let lone = oldest.and_then(|oldest| handles.get(oldest)).map(|oldest| oldest.identity);
                Births { balance, is_settled: true, has_new: true, lone, ..Births::default() }
            }
            None => Births::default(),
        };
        self.chain = handles.into();
        self.arrive();
        Ok(())
    }

    fn live(&self) -> io::Result<PathBuf> {
        self.spot.as_ref().map(|spot| spot.live.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The files from where reading stopped on, oldest first, and how many of them are behind it, where that is known.
    fn go_on(&mut self, stop: Stop, newest: Option<Handle>) -> io::Result<(Vec<Handle>, Option<i64>)> {
        let Stop { position: Position { resume, place, .. }, written } = stop;
        let spot = self.spot.clone().ok_or(io::ErrorKind::NotFound)?;
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
        let identity = Identity { device: place.device, inode: place.inode };
        let known = Known { file: File { identity, fingerprint: place.fingerprint }, written, is_open: false };
        let (mut handles, _) = back_to(&spot, &known, |_| false)?;
        let Some(first) = handles.first_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        if !known.is(first) {
            // Should anything of what is left have been read after all, it is told by its time.
            joiner.rewind(resume);
            return Ok((handles, None));
        }
        if first.skip_to(place.offset)? {
            seek::back_to_start(first)?;
            let high = resume.seen.map(|seen| seen.map_or(Timestamp(i64::MIN), |seen| seen.high));
            joiner.start(Tally { last: place.before, ..Tally::default() }, place.passed, high);
            joiner.expect(resume.seen);
        } else {
            joiner.rewind(resume);
            self.owed = Some((Reason::Truncated, None));
            first.start_over()?;
        }
        let new = i64::try_from(handles.len() - 1).ok();
        Ok((handles, new))
    }

    /// The live name has a new file behind it, perhaps: opens it, and any that came and went in between.
    pub(super) fn follow_rotation(&mut self) -> io::Result<()> {
        let (Some(newest), Some(spot)) = (self.chain.back(), &self.spot) else { return Ok(()) };
        let identity = newest.identity;
        if self.once {
            return Ok(());
        }
        match handle::identity(&spot.live) {
            Ok(found) if found == identity => return Ok(()),
            // Between two steps of a rotation, and when somebody removed it, the live name stands for nothing.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // It may have been truncated since.
        newest.look_again();
        let known = Known { file: File::of(newest), written: newest.last_written()?, is_open: true };
        let is_passed = |handle: &Handle| {
            let is_passed = || File::of(handle).fingerprint.is_some_and(|file| self.passed.contains(&file));
            self.chain.iter().any(|other| other.is_same(handle)) || is_passed()
        };
        let (mut fresh, has_live) = back_to(spot, &known, is_passed)?;
        let births = &mut self.births;
        births.balance += i64::try_from(fresh.len()).unwrap_or(i64::MAX);
        if let ([only], true) = (fresh.as_mut_slice(), births.is_settled) {
            // With `max-file=1` that is a rotation like any; had there been more, they would have been told of.
            births.lone = only.follows_gap.take().map(|_| only.identity);
        }
        if let Some(doubted) = fresh.iter().find(|handle| handle.follows_gap.is_some()) {
            births.doubted = Some(doubted.identity);
        }
        if let Some(oldest) = fresh.first_mut() {
            births.has_new = has_live;
            if std::mem::take(&mut births.owes_next) {
                oldest.follows_gap = Some(None);
                births.doubted = None;
            }
        }
        for handle in fresh {
            if let Some(replaced) = self.chain.back_mut() {
                replaced.pinned = replaced.size()?.unwrap_or(0);
            }
            self.chain.push_back(handle);
        }
        self.give_up_oldest();
        Ok(())
    }

    /// So many new files were told of. Whatever was told before this call has been taken into account by its end.
    pub(super) fn heard_of(&mut self, births: u32) {
        self.births.balance -= i64::from(births);
        let has_new = std::mem::take(&mut self.births.has_new);
        let (doubted, lone) = (self.births.doubted.take(), self.births.lone.take());
        if !self.births.is_settled {
            // The first file may have been told of as well, before it was opened.
            self.births.balance = self.births.balance.max(0);
            self.births.is_settled = true;
        } else if self.births.balance == 0 {
            self.clear_doubt(doubted);
        } else if self.births.balance < 0 {
            self.births.balance = 0;
            let first = match lone {
                Some(lone) => self.chain.iter_mut().find(|file| file.identity == lone),
                None => self.chain.back_mut().filter(|_| has_new),
            };
            match first.filter(|first| first.offset == 0) {
                _ if doubted.is_some() => {}
                Some(first) => first.follows_gap = Some(None),
                None if has_new => self.owed = Some((Reason::RotatedAway, None)),
                None => {}
            }
            // Where none has the live name, one may have come behind the newest as well.
            self.births.owes_next |= !has_new;
        }
    }

    /// All that were told of were opened, so nothing came between them.
    fn clear_doubt(&mut self, doubted: Option<Identity>) {
        if let Some(file) = self.chain.iter_mut().find(|file| Some(file.identity) == doubted) {
            file.follows_gap = None;
        }
    }

    /// Not everything was told.
    pub(super) fn misheard(&mut self) {
        self.births.is_settled = false;
    }

    /// What waits is bounded: the disk is not ours, nor are all descriptors.
    fn give_up_oldest(&mut self) {
        let waiting = |chain: &VecDeque<Handle>| chain.iter().map(|handle| handle.pinned).sum::<u64>();
        let (mut lost, mut any) = (Some(0), false);
        while self.chain.len() > 1 && (self.chain.len() > MOST_HELD || waiting(&self.chain) > MOST_PINNED) {
            let Some(oldest) = self.chain.pop_front() else { break };
            let unread = oldest.plain().map(|_| oldest.pinned.saturating_sub(oldest.offset - self.carry.len() as u64));
            lost = lost.zip(unread).map(|(lost, unread)| lost + unread);
            any = true;
            self.leave(&oldest);
        }
        if let (true, Some(first)) = (any, self.chain.front_mut()) {
            first.follows_gap = Some(lost);
        }
    }

    /// Bytes that are there to be read and have not been; asks the file system.
    pub(super) fn has_more(&self) -> bool {
        self.chain.len() > 1
            || self
                .chain
                .front()
                .is_some_and(|file| file.size().is_ok_and(|size| size.is_some_and(|size| size != file.offset)))
    }

    /// Bytes of log that are there and have not been read, where that can be known without unpacking; asks the file system.
    pub(super) fn unread(&self) -> u64 {
        let unread = |file: &Handle| file.size().ok()?.map(|size| size.saturating_sub(file.offset));
        self.chain.iter().filter_map(unread).sum()
    }

    /// Whether the last read left something behind for certain.
    pub(super) fn has_known_rest(&self) -> bool {
        self.behind || self.chain.len() > 1
    }

    /// Reads one block and takes it apart.
    pub(super) fn turn(&mut self, queue: &Queue) -> io::Result<Turn> {
        if let Some((reason, lost)) = self.take_owed() {
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
            self.owed = (!has_more).then_some((Reason::Truncated, None));
            return Ok(Turn::Nothing);
        }
        let offset = file.offset - self.carry.len() as u64;
        let (shown_from, told) = (file.shown_from, file.told);
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
                self.behind = filled == bytes.len();
                let from = self.skip_hole(&bytes[..filled])?;
                let offset = offset + (from - GUARD) as u64;
                let block = Block { bytes: &bytes[..filled], from, offset, shown_from, told };
                let mut batch = Batch::new(self.key, Route::File, Vec::new(), lines);
                let taken = self.take_apart(block, &mut batch)?;
                self.carry.clear();
                self.carry.extend_from_slice(&bytes[taken..filled]);
                batch.bytes = bytes;
                Ok(self.finished(batch, queue))
            }
            Found::Rewritten => {
                queue.finish_unused(bytes, lines);
                let rewritten = File::of(file);
                file.start_over()?;
                self.pass(rewritten);
                self.carry.clear();
                (self.behind, self.in_hole) = (true, true);
                self.jump();
                Ok(self.told(|log, sheet| log.gap(Reason::Truncated, None, sheet)))
            }
        }
    }

    fn take_owed(&mut self) -> Option<(Reason, Option<u64>)> {
        let rotated_away = |file: &mut Handle| file.follows_gap.take().map(|lost| (Reason::RotatedAway, lost));
        self.owed.take().or_else(|| rotated_away(self.chain.front_mut()?))
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
            if let (Some(file), false) = (log.chain.front_mut(), log.once) {
                if let Some(torn) = torn(file, &log.carry) {
                    blocks.joiner.gap(Reason::Corrupt, Some(torn), sheet);
                }
                file.told = file.offset;
            }
            blocks.joiner.flush_all(sheet);
            if std::mem::take(&mut log.births.owes_next) {
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
        if let (Some(position), Some(file)) = (self.position(), self.chain.back()) {
            self.resume = Some(Stop { position, written: file.last_written().unwrap_or(file.written) });
        }
        self.chain.clear();
        self.carry.clear();
    }

    /// How far it has come; `None` when nothing is known yet that could be gone on from.
    pub(super) fn position(&mut self) -> Option<Position> {
        let Some(file) = self.chain.front() else { return self.resume.map(|stop| stop.position) };
        let blocks = self.blocks.as_mut()?;
        let offset = (file.offset - self.carry.len() as u64).max(file.told);
        if offset < file.shown_from {
            return None;
        }
        let begun = blocks.begun().copied();
        let joiner = &blocks.joiner;
        let resume = joiner.position();
        let place = |file: File, offset, tally: Tally| {
            let Identity { device, inode } = file.identity;
            let passed = joiner.passed_since(&tally);
            Place { device, inode, fingerprint: file.fingerprint, offset, before: tally.last, passed }
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
    pub(super) fn resume(&self) -> Resume {
        self.blocks.as_ref().map_or_else(
            || self.resume.map(|stop| stop.position.resume).unwrap_or_default(),
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
                self.owed = Some((Reason::RotatedAway, None));
            }
            return Turn::End;
        }
        let told = match self.chain.front().and_then(|file| torn(file, &self.carry)) {
            None => Turn::Nothing,
            // The finished file ended inside a record.
            torn => self.told(|log, sheet| log.gap(Reason::Corrupt, torn, sheet)),
        };
        if let Some(read) = self.chain.pop_front() {
            self.leave(&read);
        }
        told
    }

    /// The file that was read is left behind.
    fn leave(&mut self, file: &Handle) {
        self.pass(File::of(file));
        self.carry.clear();
        self.jump();
        self.arrive();
    }

    fn pass(&mut self, file: File) {
        self.passed.extend(file.fingerprint);
        if self.passed.len() > MOST_PASSED {
            self.passed.pop_front();
        }
    }

    fn arrive(&mut self) {
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
        self.chain.truncate(1);
        if let Some(file) = self.chain.front_mut() {
            file.end = Some(file.offset);
        }
    }
}

/// Looks for files back to the one that is known: the one that the engine writes, and those that it has rotated. Oldest
/// first, those left out that were passed; what the engine has removed in between is a gap before the first of them. And
/// whether the last is the one that the engine writes.
fn back_to(spot: &Spot, known: &Known, is_passed: impl Fn(&Handle) -> bool) -> io::Result<(Vec<Handle>, bool)> {
    let mut found = walk_back(spot, known, &is_passed)?;
    for _ in 1..MOST_WALKS {
        let live = found.handles.first().filter(|_| found.has_live).map(|live| live.identity);
        if live == handle::identity(&spot.live).ok() {
            break;
        }
        // By their numbers they are in order, but for rotations in the meantime.
        let before = std::mem::replace(&mut found, walk_back(spot, known, &is_passed)?);
        found.is_known |= before.is_known;
        for handle in before.handles {
            if !found.handles.iter().any(|other| other.is_same(&handle)) {
                found.handles.push(handle);
            }
        }
    }
    let Walk { mut handles, has_live, is_known } = found;
    if !is_known {
        // With `max-file=1` the known file is unlinked at once, and what lies in numbered files may be older.
        let mut rotated = handles.iter().enumerate().skip(has_live.into());
        let older = rotated.find(|(_, handle)| handle.written <= known.written).map(|(at, _)| at);
        handles.truncate(older.unwrap_or(handles.len()));
        if let Some(oldest) = handles.last_mut() {
            oldest.follows_gap = Some(None);
        }
    }
    handles.reverse();
    Ok((handles, has_live))
}

/// What was found in the engine's files, newest first.
struct Walk {
    handles: Vec<Handle>,
    /// The first of them is the one that the engine writes.
    has_live: bool,
    /// The known one is among them, or was passed.
    is_known: bool,
}

fn walk_back(spot: &Spot, known: &Known, is_passed: impl Fn(&Handle) -> bool) -> io::Result<Walk> {
    let mut handles = match Handle::open(&spot.live, spot.format) {
        Ok(live) => vec![live],
        // Between two steps of a rotation, and when somebody removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let has_live = !handles.is_empty();
    let mut is_known = handles.first().is_some_and(|live| known.is(live));
    let mut rotated = Rotated::new(&spot.live, spot.format);
    while !is_known && let Some(handle) = rotated.next(&handles)? {
        is_known = known.is(&handle);
        if !is_passed(&handle) && !handle.is_hollow() {
            handles.push(handle);
        }
    }
    Ok(Walk { handles, has_live, is_known })
}

/// Bytes at the end of a file that are the beginning of a record, those left out that were told of; `None` for none.
fn torn(file: &Handle, carry: &[u8]) -> Option<u64> {
    let from = (file.offset - carry.len() as u64).max(file.told);
    file.offset.checked_sub(from).filter(|torn| *torn > 0)
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = u64::try_from(time.0).unwrap_or(0);
    // A file's time has the clock's tick, a record's its nanoseconds.
    (UNIX_EPOCH + Duration::from_nanos(nanos)).checked_sub(Duration::from_secs(1)).unwrap_or(UNIX_EPOCH)
}

//! Follows one container's log files across rotations.
//!
//! In: the container's folder and where to start. Out: batches, one at a time, when [`super::reader`] asks. Knows
//! nothing of the engine or the output; what is in the bytes is [`super::block`]'s.
//! The engine rotates by renaming the live file to `.1`, or removing it when `max-file=1`, and making a new one (moby
//! `daemon/logger/loggerutils/logfile.go`). An open handle still reads the old bytes, so new files are opened as they
//! appear and wait behind the old one until it is read to its end.

use super::block::{Block, Blocks, Strange};
use super::format::Spot;
use super::handle::{self, Found, GUARD, Handle, Identity};
use super::partial::{Joiner, Sheet, Tally};
use super::{Follow, Start, seek};
use crate::batch::{Batch, Item, Key, Reason, Route};
use crate::position::{Place, Position, Resume};
use crate::queue::Queue;
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a read takes while there is a lot to catch up with, ...
const LARGE: usize = 256 * 1024;
/// ... and when a file is read as it grows.
const SMALL: usize = 16 * 1024;
/// Rotated files older than what the engine keeps by any sane setting are not searched for.
const MOST_FILES: u32 = 1000;
/// Files held open that wait behind the one being read, ...
const MOST_HELD: usize = 512;
/// ... and bytes in them that the disk cannot have back: beyond this the oldest are given up.
const MOST_PINNED: u64 = 1024 * 1024 * 1024;

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
        File { identity: handle.identity, fingerprint: handle.fingerprint() }
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
}

impl Known {
    /// Numbers of files are given out again; what a record says is not.
    fn is(&self, handle: &Handle) -> bool {
        match (self.file.fingerprint, handle.fingerprint()) {
            (Some(known), Some(found)) => known == found,
            _ => self.file.identity == handle.identity,
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
        let newest = Handle::open(&spot.live, spot.format)?;
        self.settle_at(spot);
        let mut handles = match self.resume {
            Some(stop) => self.go_on(stop, newest)?,
            None => seek::start(&self.live()?, newest, start)?,
        };
        self.resume = None;
        if let (true, Some(live)) = (self.once, handles.last_mut()) {
            live.end = live.size()?;
        }
        self.begin(handles)
    }

    /// Reads this from its beginning: it was opened before anybody asked for it. What was rotated before that goes ahead.
    pub(super) fn adopt(&mut self, spot: Spot, handle: Handle) -> io::Result<()> {
        let all = Handle::open(&spot.live, spot.format).and_then(|live| seek::start(&spot.live, live, Start::All));
        let mut handles = all.unwrap_or_default();
        let before = handles.iter().position(|other| other.identity == handle.identity);
        handles.truncate(before.unwrap_or(0));
        handles.push(handle);
        self.settle_at(spot);
        self.begin(handles)
    }

    /// From now on it is this file.
    fn settle_at(&mut self, spot: Spot) {
        if let Some(joiner) = self.joiner.take() {
            self.blocks = Some(Blocks::new(spot.format, joiner, self.until));
        }
        self.live_name = spot.name();
        self.spot = Some(spot);
    }

    fn begin(&mut self, mut handles: Vec<Handle>) -> io::Result<()> {
        for handle in handles.iter_mut().filter(|handle| handle.offset > 0) {
            handle.guard()?;
        }
        self.chain = handles.into();
        self.arrive();
        self.births = Births::default();
        Ok(())
    }

    fn live(&self) -> io::Result<PathBuf> {
        self.spot.as_ref().map(|spot| spot.live.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The files from where reading stopped on, oldest first.
    fn go_on(&mut self, stop: Stop, newest: Handle) -> io::Result<Vec<Handle>> {
        let Stop { position: Position { resume, place, .. }, written } = stop;
        let live = self.live()?;
        let Some(joiner) = self.blocks.as_mut().map(|blocks| &mut blocks.joiner) else { return Ok(Vec::new()) };
        let Some(place) = place else {
            joiner.rewind(resume);
            if let (true, Some(since)) = (resume.is_at_start(), resume.since) {
                joiner.not_before(since);
            }
            let start = resume.since.map_or(Start::All, Start::Since);
            return seek::start(&live, newest, start);
        };
        let identity = Identity { device: place.device, inode: place.inode };
        let known = Known { file: File { identity, fingerprint: place.fingerprint }, written };
        let mut handles = back_to(&live, &known, newest, true)?;
        let Some(first) = handles.first_mut() else { return Ok(handles) };
        if !known.is(first) {
            // Should anything of what is left have been read after all, it is told by its time.
            joiner.rewind(resume);
            first.follows_gap = Some(None);
            return Ok(handles);
        }
        if !first.skip_to(place.offset)? {
            joiner.rewind(resume);
            self.owed = Some((Reason::Truncated, None));
            first.start_over()?;
            return Ok(handles);
        }
        let high = resume.seen.map(|seen| seen.map_or(Timestamp(i64::MIN), |seen| seen.high));
        joiner.start(Tally { last: place.before, ..Tally::default() }, place.passed, high);
        Ok(handles)
    }

    /// The live name has a new file behind it, perhaps: opens it, and any that came and went in between.
    pub(super) fn follow_rotation(&mut self) -> io::Result<()> {
        let (Some(newest), Some(spot)) = (self.chain.back(), &self.spot) else { return Ok(()) };
        let identity = newest.identity;
        if self.once || handle::identity(&spot.live)? == identity {
            return Ok(());
        }
        let known = Known { file: File::of(newest), written: newest.last_written()? };
        let found = back_to(&spot.live, &known, Handle::open(&spot.live, spot.format)?, false)?;
        let fresh: Vec<Handle> = found.into_iter().filter(|handle| handle.identity != identity).collect();
        self.births.balance += i64::try_from(fresh.len()).unwrap_or(i64::MAX);
        if fresh.iter().any(|handle| handle.follows_gap.is_some()) {
            self.births.is_settled = false;
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
        let missed = -self.births.balance;
        if !self.births.is_settled {
            // The first file may have been told of as well, before it was opened.
            self.births.balance = self.births.balance.max(0);
            self.births.is_settled = true;
        } else if missed > 0 {
            self.births.balance = 0;
            match self.chain.back_mut().filter(|newest| newest.offset == 0) {
                Some(newest) => newest.follows_gap = Some(None),
                None => self.owed = Some((Reason::RotatedAway, None)),
            }
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
            self.leave();
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

    /// Whether the last read left something behind for certain.
    pub(super) fn has_known_rest(&self) -> bool {
        self.behind || self.chain.len() > 1
    }

    /// Reads one block and takes it apart.
    pub(super) fn turn(&mut self, queue: &Queue) -> io::Result<Turn> {
        if let Some((reason, lost)) = self.take_owed() {
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
        let offset = file.offset - self.carry.len() as u64;
        let shown_from = file.shown_from;
        match file.read(&mut bytes, held)? {
            Found::Bytes(0) => {
                queue.finish_unused(bytes, lines);
                Ok(self.next_file())
            }
            Found::Bytes(read) => {
                let filled = held + read;
                self.behind = filled == bytes.len();
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
                file.start_over()?;
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
        self.in_hole = bytes[from..].iter().all(|byte| *byte == 0);
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
            let carried = log.carry.len() as u64;
            let Some(blocks) = &mut log.blocks else { return };
            if carried > 0 && !log.once {
                blocks.joiner.gap(Reason::Corrupt, Some(carried), sheet);
            }
            blocks.joiner.flush_all(sheet);
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
        let offset = file.offset - self.carry.len() as u64;
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
            return Turn::End;
        }
        let torn = self.carry.len() as u64;
        let told = match torn {
            0 => Turn::Nothing,
            // The finished file ended inside a record.
            _ => self.told(|log, sheet| log.gap(Reason::Corrupt, Some(torn), sheet)),
        };
        self.chain.pop_front();
        self.leave();
        told
    }

    /// The file that was read is left behind.
    fn leave(&mut self) {
        self.carry.clear();
        self.jump();
        self.arrive();
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

/// The live file and those before it, back to the one that is known; oldest first. What the engine has removed in between
/// is a gap before the first of them. `with_known`: also when what is left of the known one is compressed.
fn back_to(live: &Path, known: &Known, newest: Handle, with_known: bool) -> io::Result<Vec<Handle>> {
    let format = newest.format;
    let mut is_found = known.is(&newest);
    let mut handles = vec![newest];
    for number in 1..MOST_FILES {
        if is_found {
            break;
        }
        let Some(path) = handle::numbered(live, number) else {
            // Between two steps of a rotation the first number stands for nothing.
            if number == 1 {
                continue;
            }
            break;
        };
        match Handle::open(&path, format) {
            // What was a file's number a moment ago may be the one before it by now.
            Ok(handle) if handles.iter().any(|other| other.identity == handle.identity) => {}
            Ok(handle) => {
                is_found = known.is(&handle);
                // With `max-file=1` the known file is unlinked at once, and what lies in numbered files may be older.
                if !is_found && handle.written < known.written {
                    break;
                }
                if !is_found || with_known {
                    handles.push(handle);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    if !is_found && let [_, .., oldest] = handles.as_mut_slice() {
        oldest.follows_gap = Some(None);
    }
    handles.reverse();
    Ok(handles)
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = u64::try_from(time.0).unwrap_or(0);
    // A file's time has the clock's tick, a record's its nanoseconds.
    (UNIX_EPOCH + Duration::from_nanos(nanos)).checked_sub(Duration::from_secs(1)).unwrap_or(UNIX_EPOCH)
}

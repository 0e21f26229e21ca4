//! Which log files of a container there are, in what order, and what is missing between them.
//!
//! In: where the engine writes the log, and that it has made a file there. Out: open files, the one to be read first, the
//! live one last, and a loss to be told. Called by [`super::file`], which reads them, and by [`super::reader`], which is
//! told of new ones; knows nothing of lines.
//! The engine rotates by renaming the live file to `.1`, or removing it when `max-file=1`, and making a new one (moby
//! `daemon/logger/loggerutils/logfile.go`). An open handle still reads the old bytes, so new files are opened as they
//! appear and wait behind the old one until it is read to its end.

use super::log_file::{self, Handle, Identity, MOST_WALKS, Rotated};
use crate::model::batch::Reason;
use crate::model::file_id::{FileId, Likeness};
use crate::tail::decode::format::Spot;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::SystemTime;

/// Files held open that wait behind the one being read, ...
const MOST_HELD: usize = 512;
/// ... and bytes in them that the disk cannot have back: beyond this the oldest are given up.
const MOST_PINNED: u64 = 1024 * 1024 * 1024;
/// Files remembered as read when they are met again: more than the engine keeps by any sane setting.
const MOST_PASSED: usize = 128;

/// Why something is missing, and how many bytes, where that is known.
pub(super) type Loss = (Reason, Option<u64>);

/// The files of one container's log.
#[derive(Default)]
pub(super) struct Chain {
    spot: Option<Spot>,
    /// The last part of the live file's path, which every event of its folder is compared with.
    live_name: OsString,
    /// Open files, the one being read first, the live one last.
    files: VecDeque<Handle>,
    births: Births,
    /// The last files that were left behind, by their marks.
    passed: VecDeque<u64>,
    /// A loss to be told before the next line.
    owed: Option<Loss>,
}

/// A file, as a position names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) id: FileId,
    /// Of its first record, if it had one.
    pub(super) fingerprint: Option<u64>,
    /// The device it was on, which says nothing of which file it is.
    pub(super) device: u64,
}

impl File {
    pub(super) fn of(handle: &Handle) -> Self {
        File { id: handle.id, fingerprint: handle.fingerprint(), device: handle.identity.device }
    }

    /// One number for it: of its first record, or else of its birth.
    fn mark(&self) -> Option<u64> {
        self.fingerprint.or_else(|| log_file::birth_mark(&self.id))
    }

    /// Whether it is the one that was opened here. Inode numbers are given out again; what a record says is not, and it
    /// stays when the engine compresses the file or somebody copies it.
    fn is(&self, handle: &Handle) -> bool {
        match self.fingerprint {
            Some(known) => handle.fingerprint() == Some(known) || log_file::birth_mark(&handle.id) == Some(known),
            // It had no record, so that there is hardly anything to be mistaken about.
            None => self.id.likeness(&handle.id) != Likeness::Other,
        }
    }
}

/// What came of a look at the live name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// The file that is being read is the one that was.
    Nothing,
    /// Too many files wait, so that another one is being read.
    NewFront,
    /// The name leads to another device: its folder was mounted anew.
    Moved,
}

/// A file to be found again among what the engine has made of it.
struct Known {
    file: File,
    written: SystemTime,
    /// Where it is open, its number is not given out again.
    open: Option<Identity>,
}

impl Known {
    fn is(&self, handle: &Handle) -> bool {
        self.open == Some(handle.identity) || self.file.is(handle)
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

impl Chain {
    /// Where the files lie, once that is known.
    pub(super) fn spot(&self) -> Option<&Spot> {
        self.spot.as_ref()
    }

    /// From now on they lie here.
    pub(super) fn settle_at(&mut self, spot: Spot) {
        self.live_name = spot.name();
        self.spot = Some(spot);
    }

    /// Whether the live file has this name, where it is known where that lies.
    pub(super) fn is_live_name(&self, name: &OsStr) -> bool {
        self.live_name == name
    }

    /// Its folder is watched and has no file: whatever will be made in it is told.
    pub(super) fn is_to_come(&mut self) {
        self.births = Births { is_settled: true, ..Births::default() };
    }

    /// These are read, oldest first. So many of them, where that is known, were made since this log was last looked at.
    pub(super) fn begin(&mut self, files: Vec<Handle>, new: Option<i64>) {
        self.births = match new.filter(|_| self.births.is_settled) {
            Some(balance) => {
                let oldest = usize::try_from(balance).ok().and_then(|new| files.len().checked_sub(new));
                let lone = oldest.and_then(|oldest| files.get(oldest)).map(|oldest| oldest.identity);
                Births { balance, is_settled: true, has_new: true, lone, ..Births::default() }
            }
            None => Births::default(),
        };
        self.files = files.into();
    }

    /// What there is from this file on, oldest first, and whether that is the file itself. When nothing shows it, files
    /// are taken to be newer that were written later than this.
    pub(super) fn back_to(&self, file: File, written: SystemTime) -> io::Result<(Vec<Handle>, bool)> {
        let spot = self.spot.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let known = Known { file, written, open: None };
        let (handles, _) = back_to(spot, &known, |_| false)?;
        let is_first = handles.first().is_some_and(|first| known.is(first));
        Ok((handles, is_first))
    }

    /// The live name has a new file behind it, perhaps: opens it, and any that came and went in between. Of the one being
    /// read, so many bytes were taken but not told.
    pub(super) fn follow_rotation(&mut self, carried: u64) -> io::Result<Followed> {
        let (Some(newest), Some(spot)) = (self.files.back_mut(), &self.spot) else { return Ok(Followed::Nothing) };
        let identity = newest.identity;
        // Before its name is looked up, so that what happens in between is found next time.
        let metadata = newest.plain().map(std::fs::File::metadata).transpose()?;
        match log_file::identity(&spot.live) {
            Ok(found) if found == identity => {
                if let Some(metadata) = metadata {
                    newest.settle(&metadata, SystemTime::now());
                }
                return Ok(Followed::Nothing);
            }
            Ok(found) if found.device != identity.device => return Ok(Followed::Moved),
            // Between two steps of a rotation, and when somebody removed it, the live name stands for nothing.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // It may have been truncated since.
        newest.look_again();
        let known = Known { file: File::of(newest), written: newest.last_written()?, open: Some(identity) };
        let is_passed = |handle: &Handle| {
            let is_passed = || File::of(handle).mark().is_some_and(|mark| self.passed.contains(&mark));
            self.files.iter().any(|other| other.is_same(handle)) || is_passed()
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
            if let Some(replaced) = self.files.back_mut() {
                replaced.pinned = replaced.size()?.unwrap_or(0);
            }
            self.files.push_back(handle);
        }
        Ok(if self.give_up_oldest(carried) { Followed::NewFront } else { Followed::Nothing })
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
                Some(lone) => self.files.iter_mut().find(|file| file.identity == lone),
                None => self.files.back_mut().filter(|_| has_new),
            };
            match first.filter(|first| first.offset == 0) {
                _ if doubted.is_some() => {}
                Some(first) => first.follows_gap = Some(None),
                None if has_new => self.owe(Reason::RotatedAway),
                None => {}
            }
            // Where none has the live name, one may have come behind the newest as well.
            self.births.owes_next |= !has_new;
        }
    }

    /// All that were told of were opened, so nothing came between them.
    fn clear_doubt(&mut self, doubted: Option<Identity>) {
        if let Some(file) = self.files.iter_mut().find(|file| Some(file.identity) == doubted) {
            file.follows_gap = None;
        }
    }

    /// Not everything was told.
    pub(super) fn misheard(&mut self) {
        self.births.is_settled = false;
    }

    /// What waits is bounded: the disk is not ours, nor are all descriptors. Whether any was given up.
    fn give_up_oldest(&mut self, mut carried: u64) -> bool {
        let (mut lost, mut any) = (Some(0), false);
        while self.files.len() > 1 && (self.files.len() > MOST_HELD || self.waiting() > MOST_PINNED) {
            let Some(oldest) = self.advance() else { break };
            let unread = oldest.plain().map(|_| oldest.pinned.saturating_sub(oldest.offset - carried));
            lost = lost.zip(unread).map(|(lost, unread)| lost + unread);
            (any, carried) = (true, 0);
        }
        if let (true, Some(first)) = (any, self.files.front_mut()) {
            first.follows_gap = Some(lost);
        }
        any
    }

    /// Bytes on the disk that wait to be read.
    fn waiting(&self) -> u64 {
        self.files.iter().map(|file| file.pinned).sum()
    }

    /// The one being read.
    pub(super) fn front(&self) -> Option<&Handle> {
        self.files.front()
    }

    /// The one being read.
    pub(super) fn front_mut(&mut self) -> Option<&mut Handle> {
        self.files.front_mut()
    }

    /// The live one, as of the last look.
    pub(super) fn newest(&self) -> Option<&Handle> {
        self.files.back()
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The one being read is left behind.
    pub(super) fn advance(&mut self) -> Option<Handle> {
        let read = self.files.pop_front()?;
        self.pass(File::of(&read));
        Some(read)
    }

    /// The one being read was written anew: what it was is left behind.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        let Some(file) = self.files.front_mut() else { return Ok(()) };
        let before = File::of(file);
        file.start_over()?;
        self.pass(before);
        Ok(())
    }

    fn pass(&mut self, file: File) {
        self.passed.extend(file.mark());
        if self.passed.len() > MOST_PASSED {
            self.passed.pop_front();
        }
    }

    /// Nothing behind the one being read is wanted.
    pub(super) fn keep_front_alone(&mut self) {
        self.files.truncate(1);
    }

    /// Gives all descriptors back.
    pub(super) fn clear(&mut self) {
        self.files.clear();
    }

    /// Something is missing at the place where reading is.
    pub(super) fn owe(&mut self, reason: Reason) {
        self.owed = Some((reason, None));
    }

    /// What has to be told before the next line.
    pub(super) fn take_loss(&mut self) -> Option<Loss> {
        let rotated_away = |file: &mut Handle| file.follows_gap.take().map(|lost| (Reason::RotatedAway, lost));
        self.owed.take().or_else(|| rotated_away(self.files.front_mut()?))
    }

    /// Whether a file is missing behind the last one; told once.
    pub(super) fn owes_at_end(&mut self) -> bool {
        std::mem::take(&mut self.births.owes_next)
    }

    /// Whether nothing has happened to the only file since the last look.
    pub(super) fn is_settled(&self) -> bool {
        self.files.len() == 1 && self.files.front().is_some_and(Handle::is_settled)
    }

    /// Whether inotify reports all that happens to its files.
    pub(super) fn is_local(&self) -> bool {
        self.files.iter().all(|file| file.is_local)
    }

    /// Bytes that are there to be read and have not been; asks the file system.
    pub(super) fn has_more(&self) -> bool {
        let is_unread = |file: &Handle| file.size().is_ok_and(|size| size.is_some_and(|size| size != file.offset));
        self.files.len() > 1 || self.files.front().is_some_and(is_unread)
    }

    /// Bytes of log that are there and have not been read, where that can be known without unpacking; asks the file system.
    pub(super) fn unread(&self) -> u64 {
        let unread = |file: &Handle| file.size().ok()?.map(|size| size.saturating_sub(file.offset));
        self.files.iter().filter_map(unread).sum()
    }
}

/// Looks for files back to the one that is known: the one that the engine writes, and those that it has rotated. Oldest
/// first, those left out that were passed; what the engine has removed in between is a gap before the first of them. And
/// whether the last is the one that the engine writes.
fn back_to(spot: &Spot, known: &Known, is_passed: impl Fn(&Handle) -> bool) -> io::Result<(Vec<Handle>, bool)> {
    let mut found = walk_back(spot, known, &is_passed)?;
    for _ in 1..MOST_WALKS {
        let live = found.handles.first().filter(|_| found.has_live).map(|live| live.identity);
        if live == log_file::identity(&spot.live).ok() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;
    use crate::tail::decode::format::Format;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn open(live: &Path) -> Handle {
        Handle::open(live, Format::JsonFile).unwrap()
    }

    /// A chain of the live file, which has one record.
    fn begun(folder: &Path) -> (Chain, PathBuf) {
        let live = folder.join("web-json.log");
        fs::write(&live, "{\"log\":0}\n").unwrap();
        let mut chain = Chain::default();
        chain.settle_at(Spot { live: live.clone(), format: Format::JsonFile });
        chain.is_to_come();
        chain.begin(vec![open(&live)], Some(1));
        chain.heard_of(1);
        (chain, live)
    }

    /// A record decides where there is one, whatever became of the numbers. Without one the ID does, with the benefit of the
    /// doubt; what older versions put into their states is understood.
    #[test]
    fn a_file_is_known_by_its_record_or_else_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "{\"log\":0}\n").unwrap();
        let handle = open(&path);
        let file = File::of(&handle);
        let (id, record, birth) = (file.id, file.fingerprint, log_file::birth_mark(&file.id));
        assert!(record.is_some() && birth.is_some() && id.filesystem.is_some(), "the file system tells all of it");
        let nothing = FileId { filesystem: None, inode: id.inode, born: None };
        let other = FileId { filesystem: Some(1), inode: id.inode + 1, born: Some(Timestamp(1)) };
        for (known, fingerprint, expected) in [
            (id, record, true),
            (nothing, record, true),
            // A copy, or what is left after a restore.
            (other, record, true),
            (id, Some(1), false),
            (id, None, true),
            (nothing, None, true),
            (other, None, false),
            (FileId { inode: id.inode + 1, ..nothing }, None, false),
            (FileId { born: Some(Timestamp(1)), ..id }, None, false),
            (FileId { filesystem: Some(1), ..nothing }, None, false),
            // Another UUID, as a clone of a disk gets.
            (FileId { filesystem: Some(1), ..id }, None, true),
            (FileId { filesystem: None, ..id }, None, true),
            // Of an older version, which knew no record then.
            (nothing, birth, true),
        ] {
            // Of the device nothing depends.
            for device in [file.device, file.device + 1] {
                let known = File { id: known, fingerprint, device };
                assert_eq!(known.is(&handle), expected, "{known:?} {file:?}");
            }
        }
    }

    #[test]
    fn what_was_made_and_removed_before_it_was_opened_is_missed_by_counting() {
        let lost = Some((Reason::RotatedAway, None));
        // As many as were made, whether one is left, whether all of it was told, and what is missing before it and at the end.
        let cases = [
            (1, true, true, None, false),
            (2, true, true, lost, false),
            (3, true, true, lost, false),
            (1, true, false, lost, false),
            (0, true, true, None, false),
            (0, true, false, None, false),
            (1, false, true, None, true),
            (2, false, true, None, true),
        ];
        for (made, is_left, is_told, before, at_end) in cases {
            let folder = tempfile::tempdir().unwrap();
            let (mut chain, live) = begun(folder.path());
            for number in 1..=made {
                fs::remove_file(&live).unwrap();
                fs::write(&live, format!("{{\"log\":{number}}}\n")).unwrap();
            }
            if !is_left {
                fs::remove_file(&live).unwrap();
            }
            if !is_told {
                chain.misheard();
            }
            assert_eq!(chain.follow_rotation(0).unwrap(), Followed::Nothing);
            chain.heard_of(made);
            assert_eq!(chain.take_loss(), None, "the first is whole");
            assert_eq!(chain.len(), 1 + usize::from(made > 0 && is_left));
            chain.advance();
            let told = (chain.take_loss(), chain.owes_at_end(), chain.take_loss(), chain.owes_at_end());
            assert_eq!(told, (before, at_end, None, false), "{made} made, left: {is_left}, told: {is_told}");
        }
    }

    #[test]
    fn the_oldest_are_given_up_when_too_many_wait_and_what_was_in_them_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut chain, live) = begun(folder.path());
        let mut rotate = |number: usize| {
            let rotated = folder.path().join("web-json.log.1");
            fs::rename(&live, rotated).unwrap();
            fs::write(&live, format!("{{\"log\":{number}}}\n")).unwrap();
            chain.front_mut().unwrap().offset = 10;
            let is_given_up = chain.follow_rotation(3).unwrap() == Followed::NewFront;
            (is_given_up, chain.len(), chain.take_loss())
        };
        for number in 1..MOST_HELD {
            assert_eq!(rotate(number), (false, number + 1, None));
        }
        // Of its ten bytes seven were told of.
        assert_eq!(rotate(MOST_HELD), (true, MOST_HELD, Some((Reason::RotatedAway, Some(3)))));
    }
}

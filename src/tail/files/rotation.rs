//! The files of one container's log: which exist, in what order, and what is missing between them.
//!
//! In: where dockerd writes the log, and how many new files inotify announced. Out: open files, the one being read
//! first and the live one last, and gaps to report. Used by [`super::container_log`], which reads the files, and by
//! [`super::reader`], which receives the events. Knows nothing of lines.
//!
//! dockerd rotates by renaming the live file to `.1`, or removing it if `max-file=1`, and creating a new one (moby
//! `daemon/logger/loggerutils/logfile.go`). An open descriptor still reads the old bytes. So new files are opened as
//! they appear, and wait until the older ones were read to their ends.

use super::log_file::{self, Handle, Identity, MAX_WALKS, Rotated};
use crate::model::batch::Reason;
use crate::model::position::FileSignature;
use crate::tail::decode::format::LogLocation;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::SystemTime;

/// Number of files that may be open. Beyond this, the oldest are abandoned.
const MAX_OPEN: usize = 512;
/// Bytes in replaced files that may wait to be read, because open files occupy the disk even when they were removed.
/// Beyond this, the oldest are abandoned.
const MAX_PINNED: u64 = 1024 * 1024 * 1024;
/// Number of finished files that are remembered: more than dockerd keeps with any sensible setting.
const MAX_FINISHED: usize = 128;

/// Why something is missing, and the number of lost bytes, if known.
pub(super) type Loss = (Reason, Option<u64>);

/// The files of one container's log.
#[derive(Default)]
pub(super) struct Chain {
    /// Set once the log file was found.
    location: Option<LogLocation>,
    /// File name of the live file, with which every event of its folder is compared.
    live_name: OsString,
    /// Open files: the one being read first, the live one last.
    files: VecDeque<Handle>,
    creates: CreateCount,
    /// Hashes of the last finished files, at most [`MAX_FINISHED`].
    finished: VecDeque<u64>,
    /// A gap to report before the next line.
    loss: Option<Loss>,
}

/// The outcome of checking the live name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RotationOutcome {
    /// The file being read stays the same. New files may have been opened after it.
    Unchanged,
    /// Too many files waited, so the oldest were abandoned and another one is being read.
    NewFront,
    /// The name leads to another device: its folder was mounted again.
    Moved,
}

/// A file to find among the live and the rotated files.
struct SoughtFile {
    file: FileSignature,
    /// Its last modification time.
    written: SystemTime,
    /// Its identity if it is open: then its inode number is not reused.
    open: Option<Identity>,
}

impl SoughtFile {
    fn is(&self, handle: &Handle) -> bool {
        self.open == Some(handle.identity) || handle.has_signature(&self.file)
    }
}

/// Compares the number of new files that inotify announced with the number that was opened. With `max-file=1`, nothing
/// else shows that dockerd created a file and removed it before it could be opened.
#[derive(Default)]
struct CreateCount {
    /// Files opened minus files announced.
    balance: i64,
    /// The count is valid: all events from before the first file was opened were handled, and none was lost since.
    is_settled: bool,
    /// The predecessor of this file was not found. If all announced files were opened, nothing is missing nevertheless.
    after_gap: Option<Identity>,
    /// The first new file, whose predecessor is unknown without being a gap by itself: so at the start, and after a
    /// rotation with `max-file=1`.
    first_new: Option<Identity>,
    /// Since the last comparison, a new file was opened and it has the live name.
    has_new: bool,
    /// A file after the newest one was missed. Reported before the next file, or at the end.
    missed_after_newest: bool,
}

impl Chain {
    /// Returns where the files are, once known.
    pub(super) fn location(&self) -> Option<&LogLocation> {
        self.location.as_ref()
    }

    /// Sets where the files are.
    pub(super) fn set_location(&mut self, location: LogLocation) {
        self.live_name = location.name();
        self.location = Some(location);
    }

    /// Returns whether the live file has this name, once its location is known.
    pub(super) fn is_live_name(&self, name: &OsStr) -> bool {
        self.live_name == name
    }

    /// Starts counting: the folder is watched and contains no file yet, so inotify will announce every file.
    pub(super) fn expect_first_file(&mut self) {
        self.creates = CreateCount { is_settled: true, ..CreateCount::default() };
    }

    /// Starts with these files, oldest first. `new` is how many of them were created since this log was last checked,
    /// if known.
    pub(super) fn begin(&mut self, files: Vec<Handle>, new: Option<i64>) {
        self.creates = match new.filter(|_| self.creates.is_settled) {
            Some(balance) => {
                let oldest = usize::try_from(balance).ok().and_then(|new| files.len().checked_sub(new));
                let first_new = oldest.and_then(|oldest| files.get(oldest)).map(|oldest| oldest.identity);
                CreateCount { balance, is_settled: true, has_new: true, first_new, ..CreateCount::default() }
            }
            None => CreateCount::default(),
        };
        self.files = files.into();
    }

    /// Opens the files from `file` on, oldest first, and returns whether the first one is `file`. If it is not found,
    /// files that were modified later than `written` count as newer.
    pub(super) fn back_to(&self, file: FileSignature, written: SystemTime) -> io::Result<(Vec<Handle>, bool)> {
        let location = self.location.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let known = SoughtFile { file, written, open: None };
        let (handles, _) = back_to(location, &known, |_| false)?;
        let is_first = handles.first().is_some_and(|first| known.is(first));
        Ok((handles, is_first))
    }

    /// Opens the file under the live name if it is a new one, and the files that were rotated in between. `carried` is
    /// the number of bytes of the front file that were read but not decoded.
    pub(super) fn follow_rotation(&mut self, carried: u64) -> io::Result<RotationOutcome> {
        let (Some(newest), Some(location)) = (self.files.back_mut(), &self.location) else {
            return Ok(RotationOutcome::Unchanged);
        };
        let identity = newest.identity;
        // Read before the name is looked up, so that a change in between is found by the next check.
        let metadata = newest.plain().map(std::fs::File::metadata).transpose()?;
        match log_file::identity(&location.live) {
            Ok(found) if found == identity => {
                if let Some(metadata) = metadata {
                    newest.settle(&metadata, SystemTime::now());
                }
                return Ok(RotationOutcome::Unchanged);
            }
            Ok(found) if found.device != identity.device => return Ok(RotationOutcome::Moved),
            // The live name does not exist between two steps of a rotation, and when somebody removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The file may have been truncated since.
        newest.forget_fingerprint();
        let known = SoughtFile { file: newest.signature(), written: newest.last_written()?, open: Some(identity) };
        let is_finished = |handle: &Handle| {
            let is_finished = || log_file::hash(&handle.signature()).is_some_and(|hash| self.finished.contains(&hash));
            self.files.iter().any(|other| other.is_same(handle)) || is_finished()
        };
        let (mut fresh, has_live) = back_to(location, &known, is_finished)?;
        let creates = &mut self.creates;
        creates.balance += i64::try_from(fresh.len()).unwrap_or(i64::MAX);
        if let ([only], true) = (fresh.as_mut_slice(), creates.is_settled) {
            // A normal rotation with `max-file=1`. If there had been more files, they would have been announced.
            creates.first_new = only.follows_gap.take().map(|_| only.identity);
        }
        if let Some(after_gap) = fresh.iter().find(|handle| handle.follows_gap.is_some()) {
            creates.after_gap = Some(after_gap.identity);
        }
        if let Some(oldest) = fresh.first_mut() {
            creates.has_new = has_live;
            if std::mem::take(&mut creates.missed_after_newest) {
                oldest.follows_gap = Some(None);
                creates.after_gap = None;
            }
        }
        for handle in fresh {
            if let Some(replaced) = self.files.back_mut() {
                replaced.pinned = replaced.size()?.unwrap_or(0);
            }
            self.files.push_back(handle);
        }
        Ok(if self.abandon_oldest(carried) { RotationOutcome::NewFront } else { RotationOutcome::Unchanged })
    }

    /// Adds `announced` files and compares them with the opened ones. All events that arrived so far must be included.
    pub(super) fn count_announced(&mut self, announced: u32) {
        self.creates.balance -= i64::from(announced);
        let has_new = std::mem::take(&mut self.creates.has_new);
        let (after_gap, first_new) = (self.creates.after_gap.take(), self.creates.first_new.take());
        if !self.creates.is_settled {
            // The first file may have been announced too, before it was opened.
            self.creates.balance = self.creates.balance.max(0);
            self.creates.is_settled = true;
        } else if self.creates.balance == 0 {
            self.clear_gap(after_gap);
        } else if self.creates.balance < 0 {
            self.creates.balance = 0;
            let first = match first_new {
                Some(first_new) => self.files.iter_mut().find(|file| file.identity == first_new),
                None => self.files.back_mut().filter(|_| has_new),
            };
            match first.filter(|first| first.offset == 0) {
                _ if after_gap.is_some() => {}
                Some(first) => first.follows_gap = Some(None),
                None if has_new => self.add_loss(Reason::RotatedAway),
                None => {}
            }
            // If no file has the live name, the missed file may also be newer than the newest one.
            self.creates.missed_after_newest |= !has_new;
        }
    }

    /// Removes a gap: all announced files were opened, so none is missing between them.
    fn clear_gap(&mut self, after_gap: Option<Identity>) {
        if let Some(file) = self.files.iter_mut().find(|file| Some(file.identity) == after_gap) {
            file.follows_gap = None;
        }
    }

    /// Invalidates the count, because inotify events were lost or the watch is new.
    pub(super) fn events_lost(&mut self) {
        self.creates.is_settled = false;
    }

    /// Abandons the oldest files beyond the limits, to spare the disk and descriptors. Returns whether any was
    /// abandoned.
    fn abandon_oldest(&mut self, mut carried: u64) -> bool {
        let (mut lost, mut any) = (Some(0), false);
        while self.files.len() > 1 && (self.files.len() > MAX_OPEN || self.pinned_bytes() > MAX_PINNED) {
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

    /// Returns the size of the replaced files that wait to be read, in bytes.
    fn pinned_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.pinned).sum()
    }

    /// Returns the file being read.
    pub(super) fn front(&self) -> Option<&Handle> {
        self.files.front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Handle> {
        self.files.front_mut()
    }

    /// Returns the live file, as of the last check.
    pub(super) fn newest(&self) -> Option<&Handle> {
        self.files.back()
    }

    /// Returns the number of open files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Removes the file being read, because it is finished or abandoned.
    pub(super) fn advance(&mut self) -> Option<Handle> {
        let read = self.files.pop_front()?;
        self.finish(read.signature());
        Some(read)
    }

    /// Starts the file being read from its beginning, because it was written again. Its old content counts as finished.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        let Some(file) = self.files.front_mut() else { return Ok(()) };
        let before = file.signature();
        file.start_over()?;
        self.finish(before);
        Ok(())
    }

    fn finish(&mut self, file: FileSignature) {
        self.finished.extend(log_file::hash(&file));
        if self.finished.len() > MAX_FINISHED {
            self.finished.pop_front();
        }
    }

    /// Closes all files except the one being read.
    pub(super) fn keep_front_alone(&mut self) {
        self.files.truncate(1);
    }

    pub(super) fn clear(&mut self) {
        self.files.clear();
    }

    /// Records a gap at the current position.
    pub(super) fn add_loss(&mut self, reason: Reason) {
        self.loss = Some((reason, None));
    }

    /// Takes the gap to report before the next line.
    pub(super) fn take_loss(&mut self) -> Option<Loss> {
        let rotated_away = |file: &mut Handle| file.follows_gap.take().map(|lost| (Reason::RotatedAway, lost));
        self.loss.take().or_else(|| rotated_away(self.files.front_mut()?))
    }

    /// Returns whether a file after the last one is missing, and clears that.
    pub(super) fn take_loss_at_end(&mut self) -> bool {
        std::mem::take(&mut self.creates.missed_after_newest)
    }

    /// Returns whether nothing has happened to the only file since the last check.
    pub(super) fn is_settled(&self) -> bool {
        self.files.len() == 1 && self.files.front().is_some_and(Handle::is_settled)
    }

    /// Returns whether inotify reports everything that happens to these files.
    pub(super) fn is_local(&self) -> bool {
        self.files.iter().all(|file| file.is_local)
    }

    /// Returns whether there are unread bytes, according to the file system.
    pub(super) fn has_more(&self) -> bool {
        let is_unread = |file: &Handle| file.size().is_ok_and(|size| size.is_some_and(|size| size != file.offset));
        self.files.len() > 1 || self.files.front().is_some_and(is_unread)
    }

    /// Returns the number of unread bytes according to the file system, without compressed files.
    pub(super) fn unread(&self) -> u64 {
        let unread = |file: &Handle| file.size().ok()?.map(|size| size.saturating_sub(file.offset));
        self.files.iter().filter_map(unread).sum()
    }
}

/// Opens the live file and the rotated files back to `known`, without those for which `is_finished` holds. Returns them
/// oldest first, and whether the last one is the live file. If `known` is not found, the oldest one follows a gap.
fn back_to(
    location: &LogLocation,
    known: &SoughtFile,
    is_finished: impl Fn(&Handle) -> bool,
) -> io::Result<(Vec<Handle>, bool)> {
    let mut found = walk_back(location, known, &is_finished)?;
    for _ in 1..MAX_WALKS {
        let live = found.handles.first().filter(|_| found.has_live).map(|live| live.identity);
        if live == log_file::identity(&location.live).ok() {
            break;
        }
        // The numbers give the order, unless a rotation happened meanwhile.
        let before = std::mem::replace(&mut found, walk_back(location, known, &is_finished)?);
        found.is_known |= before.is_known;
        for handle in before.handles {
            if !found.handles.iter().any(|other| other.is_same(&handle)) {
                found.handles.push(handle);
            }
        }
    }
    let FoundFiles { mut handles, has_live, is_known } = found;
    if !is_known {
        // With `max-file=1` the known file is removed at once, and numbered files may be older.
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

/// The result of a walk through the live and the rotated files.
struct FoundFiles {
    /// The open files, newest first.
    handles: Vec<Handle>,
    /// The first of `handles` is the live file.
    has_live: bool,
    /// The known file is among them, or was left out as finished.
    is_known: bool,
}

fn walk_back(
    location: &LogLocation,
    known: &SoughtFile,
    is_finished: impl Fn(&Handle) -> bool,
) -> io::Result<FoundFiles> {
    let mut handles = match Handle::open(&location.live, location.format) {
        Ok(live) => vec![live],
        // Between two steps of a rotation, or when somebody removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let has_live = !handles.is_empty();
    let mut is_known = handles.first().is_some_and(|live| known.is(live));
    let mut rotated = Rotated::new(&location.live, location.format);
    while !is_known && let Some(handle) = rotated.next(&handles)? {
        is_known = known.is(&handle);
        if !is_finished(&handle) && !handle.is_empty_archive() {
            handles.push(handle);
        }
    }
    Ok(FoundFiles { handles, has_live, is_known })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_id::FileId;
    use crate::model::time::Timestamp;
    use crate::tail::decode::format::Format;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn open(live: &Path) -> Handle {
        Handle::open(live, Format::JsonFile).unwrap()
    }

    /// A chain with a live file that has one record.
    fn with_one_record(folder: &Path) -> (Chain, PathBuf) {
        let live = folder.join("web-json.log");
        fs::write(&live, "{\"log\":0}\n").unwrap();
        let mut chain = Chain::default();
        chain.set_location(LogLocation { live: live.clone(), format: Format::JsonFile });
        chain.expect_first_file();
        chain.begin(vec![open(&live)], Some(1));
        chain.count_announced(1);
        (chain, live)
    }

    /// The record decides if there is one, whatever the inode numbers. Without one, the ID decides, and a doubtful
    /// match counts. What older versions saved is understood.
    #[test]
    fn a_file_is_recognised_by_its_record_or_else_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "{\"log\":0}\n").unwrap();
        let handle = open(&path);
        let file = handle.signature();
        let (id, record, birth) = (file.id, file.fingerprint, log_file::birth_hash(&file.id));
        assert!(record.is_some() && birth.is_some() && id.filesystem.is_some(), "the file system provides all of it");
        let nothing = FileId { filesystem: None, inode: id.inode, born: None };
        let other = FileId { filesystem: Some(1), inode: id.inode + 1, born: Some(Timestamp(1)) };
        for (known, fingerprint, expected) in [
            (id, record, true),
            (nothing, record, true),
            // A copy, or a restored backup.
            (other, record, true),
            (id, Some(1), false),
            (id, None, true),
            (nothing, None, true),
            (other, None, false),
            (FileId { inode: id.inode + 1, ..nothing }, None, false),
            (FileId { born: Some(Timestamp(1)), ..id }, None, false),
            (FileId { filesystem: Some(1), ..nothing }, None, false),
            // Another UUID, as after cloning a disk.
            (FileId { filesystem: Some(1), ..id }, None, true),
            (FileId { filesystem: None, ..id }, None, true),
            // Saved by an older version while the file had no record.
            (nothing, birth, true),
        ] {
            // The device does not matter.
            for device in [file.device, file.device + 1] {
                let known = FileSignature { id: known, fingerprint, device };
                assert_eq!(handle.has_signature(&known), expected, "{known:?} {file:?}");
            }
        }
    }

    #[test]
    fn counting_finds_files_that_were_removed_before_opening() {
        let lost = Some((Reason::RotatedAway, None));
        // Files created, whether one is left, whether all were announced; gap before it and at the end.
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
        for (made, is_left, is_announced, before, at_end) in cases {
            let folder = tempfile::tempdir().unwrap();
            let (mut chain, live) = with_one_record(folder.path());
            for number in 1..=made {
                fs::remove_file(&live).unwrap();
                fs::write(&live, format!("{{\"log\":{number}}}\n")).unwrap();
            }
            if !is_left {
                fs::remove_file(&live).unwrap();
            }
            if !is_announced {
                chain.events_lost();
            }
            assert_eq!(chain.follow_rotation(0).unwrap(), RotationOutcome::Unchanged);
            chain.count_announced(made);
            assert_eq!(chain.take_loss(), None, "the first is whole");
            assert_eq!(chain.len(), 1 + usize::from(made > 0 && is_left));
            chain.advance();
            let found = (chain.take_loss(), chain.take_loss_at_end(), chain.take_loss(), chain.take_loss_at_end());
            assert_eq!(found, (before, at_end, None, false), "{made} made, left: {is_left}, found: {is_announced}");
        }
    }

    #[test]
    fn too_many_waiting_files_are_abandoned_with_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let (mut chain, live) = with_one_record(folder.path());
        let mut rotate = |number: usize| {
            let rotated = folder.path().join("web-json.log.1");
            fs::rename(&live, rotated).unwrap();
            fs::write(&live, format!("{{\"log\":{number}}}\n")).unwrap();
            chain.front_mut().unwrap().offset = 10;
            let is_abandoned = chain.follow_rotation(3).unwrap() == RotationOutcome::NewFront;
            (is_abandoned, chain.len(), chain.take_loss())
        };
        for number in 1..MAX_OPEN {
            assert_eq!(rotate(number), (false, number + 1, None));
        }
        // Seven of its ten bytes were delivered.
        assert_eq!(rotate(MAX_OPEN), (true, MAX_OPEN, Some((Reason::RotatedAway, Some(3)))));
    }
}

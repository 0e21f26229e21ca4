//! Makes FILE of `-o FILE --resume` and the positions consistent at the start of a run, however the last one ended.
//!
//! In: FILE, the last commit, and the content of the write-ahead log. Out: the positions after the last line in FILE.
//! Called by `watch/resume`. Three rules apply:
//!
//! 1. A complete line in FILE stays, whoever wrote it. The positions advance to the end of FILE, and never go back.
//! 2. What the write-ahead log contains and FILE lacks is written now: its container may be gone, and its log with it.
//! 3. If the write-ahead log is complete, other bytes in FILE are from other programs. After a power failure it may be
//!    incomplete. Then the cursors of JSON records show how far each container was written; other lines are remembered
//!    and left out when they are read again ([`Repeats`]).
//!
//! Only an incomplete line at the end, or proven damage, is removed from FILE; it is saved in FILE.damaged.

use super::wal::{EntryKind, FileRef, PositionChange, WalContents, WalEntry, apply};
use crate::model::file_id::FileId;
use crate::model::line_id::{Cursor, Route};
use crate::model::position::{Position, TimePosition};
use crate::model::time::Timestamp;
use crate::output::{OutputFormat, Repeats};
use crate::state::{Saved, SavedOutput};
use memchr::{memmem, memrchr};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::geteuid;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Number of bytes after its offset in which a logged write is searched: other programs may have appended first.
const SEARCH_LENGTH: u64 = 64 << 20;
/// Upper bound in bytes of a line that this program writes. Longer lines are not examined.
const MAX_LINE: u64 = 64 << 20;

/// Resolution of the clock that file systems use for modification times.
const MTIME_RESOLUTION: Duration = Duration::from_millis(20);

/// Input of the recovery.
pub(crate) struct Recovery<'a> {
    /// FILE, with symbolic links resolved.
    pub(crate) path: &'a Path,
    /// FILE, opened to append.
    pub(crate) file: &'a File,
    /// The last commit's description of FILE.
    pub(crate) known: Option<SavedOutput>,
    /// Content of the write-ahead log.
    pub(crate) found: WalContents,
    pub(crate) format: OutputFormat,
}

/// Result of the recovery.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Largest sequence number in the log and the last commit.
    pub(crate) sequence: u64,
    /// Notices for the user.
    pub(crate) notices: Vec<String>,
    /// Lines in FILE that will be read again.
    pub(crate) repeats: Option<Repeats>,
    /// Offset in FILE at which these lines begin. While some of them have not been read again, a commit must not
    /// include what follows this offset.
    pub(crate) unproven_from: Option<u64>,
    /// The log contained positions that are newer than the last commit.
    pub(crate) has_found_positions: bool,
}

/// Identifies an output file.
pub(crate) fn file_ref(file: &File) -> io::Result<FileRef> {
    let metadata = file.metadata()?;
    Ok(FileRef { device: metadata.dev(), id: FileId::with(file, &metadata) })
}

impl FileRef {
    fn of_commit(output: &SavedOutput) -> Self {
        let id = FileId { filesystem: None, inode: output.inode, born: output.born };
        FileRef { device: output.device, id }
    }
}

/// How much of a logged write a file contains.
#[derive(Debug, PartialEq, Eq)]
enum Presence {
    /// All bytes; the last one is before this offset.
    Complete(u64),
    /// This number of bytes, then the file ends.
    Partial(usize),
    /// This number of bytes, then other content follows.
    Diverged(usize),
    /// The file ends before the offset of the write.
    PastEnd,
}

impl Recovery<'_> {
    /// Completes FILE and advances `positions`, which are keyed by container ID, to its end.
    pub(crate) fn run(self, positions: &mut HashMap<String, Saved>) -> io::Result<Recovered> {
        let committed = self.known.map_or(0, |known| known.sequence);
        let mut outcome = Recovered { sequence: committed.max(self.found.last().unwrap_or(0)), ..Recovered::default() };
        let mut output = TargetFile::open(self.path, self.file)?;
        let mut moved = HashMap::new();
        // Without a file that the log names, somebody has removed it to start over.
        let is_log_obsolete = self.known.is_none() && !self.any_logged_file_exists(&output, &mut moved)?;
        let is_log_newer = self.found.last().is_some_and(|last| last > committed) && !is_log_obsolete;
        let mut end = match &self.known {
            Some(known) if output.id.is_same(&FileRef::of_commit(known)) => known.length,
            _ => 0,
        };
        if output.length()? < end {
            outcome.notices.push(format!("{} was truncated: lines are appended at its end", self.path.display()));
            (end, output.is_truncated) = (output.length()?, true);
        }
        if is_log_newer {
            outcome.has_found_positions = true;
            self.replay(committed, positions, &mut output, &mut moved, &mut end, &mut outcome.notices)?;
        }
        // A state whose run ended regularly, but whose log does not match, may come from a backup. Only JSON records
        // show what was written since.
        let is_proven = self.found.last() == Some(committed) || self.format != OutputFormat::Json;
        let is_closed = self.known.is_some_and(|known| known.is_closed) && !is_log_newer && is_proven;
        let is_complete = self.found.last() >= Some(committed) && self.found.is_complete();
        if is_closed || is_complete || self.known.is_none() && !is_log_newer {
            outcome.notices.extend(output.keep_foreign_bytes(end)?);
        } else {
            let mut unproven = UnprovenLines { format: self.format, positions, repeats: None };
            outcome.notices.extend(self.search_moved(&mut moved, &mut unproven)?);
            outcome.notices.extend(output.search(end, &mut unproven)?);
            outcome.repeats = unproven.repeats;
            outcome.unproven_from = outcome.repeats.as_ref().map(|_| end);
        }
        output.file.sync_all()?;
        Ok(outcome)
    }

    /// Returns whether any file that the log names still exists.
    fn any_logged_file_exists(&self, output: &TargetFile<'_>, moved: &mut MovedFiles) -> io::Result<bool> {
        for entry in &self.found.entries {
            if let EntryKind::Write { file, .. } | EntryKind::Snapshot { file, .. } = &entry.kind
                && (output.id.is_same(file) || self.find_moved(moved, file)?.is_some())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Repeats what the last run logged since the last commit. `end` is the length of FILE up to which
    /// its content is known.
    fn replay(
        &self,
        committed: u64,
        positions: &mut HashMap<String, Saved>,
        output: &mut TargetFile<'_>,
        moved: &mut MovedFiles,
        end: &mut u64,
        notices: &mut Vec<String>,
    ) -> io::Result<()> {
        let mut due = self.found.entries.iter().filter(|entry| entry.sequence > committed).peekable();
        while let Some(entry) = due.next() {
            match &entry.kind {
                EntryKind::Snapshot { positions: all, file, length, .. } => {
                    *positions = all.iter().cloned().collect();
                    if output.id.is_same(file) {
                        *end = (*end).max((*length).min(output.length()?));
                    } else if let Some(moved) = self.find_moved(moved, file)? {
                        moved.end = moved.end.max(*length);
                    }
                }
                EntryKind::Write { file, offset, changes, bytes } => {
                    for (id, change) in changes {
                        apply(positions, id, change);
                    }
                    let failed_after = due.peek().and_then(|next| next.failed_after());
                    // The next entry is logged after this write has ended. Only a power failure can undo a successful
                    // write.
                    let is_done = self.found.is_complete() && due.peek().is_some() && failed_after.is_none();
                    match (output.id.is_same(file), is_done) {
                        (true, true) => *end = (*end).max((offset + bytes.len() as u64).min(output.length()?)),
                        (true, false) => *end = output.complete(*offset, bytes, *end, notices)?,
                        (false, true) => {}
                        (false, false) => {
                            let rest = self.missing_from_moved(moved, file, *offset, bytes, failed_after)?;
                            if !rest.is_empty() {
                                *end = output.append(rest)?;
                            }
                        }
                    }
                }
                EntryKind::Failed { .. } => {}
            }
        }
        Ok(())
    }

    /// Returns the part of a logged write that a moved file lacks and that belongs into FILE instead: complete lines.
    /// Removes an incomplete line from the end of the moved file.
    fn missing_from_moved<'b>(
        &self,
        moved: &mut MovedFiles,
        file: &FileRef,
        offset: u64,
        bytes: &'b [u8],
        failed_after: Option<u64>,
    ) -> io::Result<&'b [u8]> {
        let Some(MovedFile { path, file, end, is_truncated }) = self.find_moved(moved, file)? else {
            // The file cannot be examined. A write takes microseconds, so it succeeded unless the log says otherwise.
            return Ok(failed_after.map_or(&[], |written| {
                let written = usize::try_from(written).unwrap_or(usize::MAX).min(bytes.len());
                &bytes[complete_lines(bytes, written)..]
            }));
        };
        match locate(file, offset, bytes)? {
            Presence::Complete(up_to) => {
                *end = up_to.max(*end);
                Ok(&[])
            }
            Presence::Partial(common) => {
                let lines = complete_lines(bytes, common);
                *end = offset + lines as u64;
                if lines < common {
                    save_damaged_tail(path, file, *end)?;
                    file.set_len(*end)?;
                }
                Ok(&bytes[lines..])
            }
            Presence::Diverged(common) => {
                let lines = complete_lines(bytes, common);
                *end = (offset + lines as u64).max(*end);
                Ok(&bytes[lines..])
            }
            // The file contained the write before somebody truncated it.
            Presence::PastEnd if *is_truncated => Ok(&[]),
            Presence::PastEnd => Ok(bytes),
        }
    }

    /// Finds a file that was moved away, in FILE's folder, where rotation leaves it.
    fn find_moved<'m>(&self, moved: &'m mut MovedFiles, file: &FileRef) -> io::Result<Option<&'m mut MovedFile>> {
        if !moved.contains_key(&file.id.inode) {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let found = entries.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.ino() == file.id.inode));
            for entry in found {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let Ok(opened) = rustix::fs::open(entry.path(), flags, Mode::empty()).map(File::from) else { continue };
                // Without a birth time nothing proves that it is the same file: inode numbers are reused.
                if file.id.born.is_some() && file_ref(&opened)?.is_same(file) && opened.metadata()?.is_file() {
                    let known = self.known.filter(|known| FileRef::of_commit(known).is_same(file));
                    let end = known.map_or(0, |known| known.length);
                    let is_truncated = opened.metadata()?.len() < end;
                    moved.insert(file.id.inode, MovedFile { path: entry.path(), file: opened, end, is_truncated });
                    break;
                }
            }
        }
        Ok(moved.get_mut(&file.id.inode))
    }

    /// For an incomplete log: examines what the moved files contain after the known part.
    fn search_moved(&self, moved: &mut MovedFiles, unproven: &mut UnprovenLines<'_>) -> io::Result<Vec<String>> {
        let mut notices = Vec::new();
        if let Some(id) = self.known.as_ref().map(FileRef::of_commit)
            && !id.is_same(&file_ref(self.file)?)
            && self.find_moved(moved, &id)?.is_none()
        {
            let text =
                "is not the file that the last run wrote when it was interrupted: its last lines may be repeated";
            notices.push(format!("{} {text}", self.path.display()));
        }
        for MovedFile { path, file, end, .. } in moved.values() {
            let end = unproven.search(file, *end)?;
            if end < file.metadata()?.len() {
                notices.push(save_damaged_tail(path, file, end)?);
                file.set_len(end)?;
            }
        }
        Ok(notices)
    }
}

/// A former output file that was moved away.
struct MovedFile {
    /// Its path now, in the folder of FILE.
    path: PathBuf,
    file: File,
    /// Offset up to which its content is known.
    end: u64,
    /// Somebody has truncated it: it ends before what the last commit synced.
    is_truncated: bool,
}

/// The moved files that were found, by inode.
type MovedFiles = HashMap<u64, MovedFile>;

impl WalEntry {
    /// If this entry reports the failure of the previous write, returns how many bytes were written.
    fn failed_after(&self) -> Option<u64> {
        match self.kind {
            EntryKind::Failed { written } => Some(written),
            _ => None,
        }
    }
}

/// FILE, while the recovery examines and completes it.
struct TargetFile<'a> {
    path: &'a Path,
    /// The descriptor that appends, which the printer uses afterwards.
    file: &'a File,
    /// The same file, opened to read.
    reader: File,
    id: FileRef,
    /// Somebody has truncated it: it ends before what the last commit synced.
    is_truncated: bool,
}

impl<'a> TargetFile<'a> {
    fn open(path: &'a Path, file: &'a File) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let id = file_ref(file)?;
        if !file_ref(&reader)?.is_same(&id) {
            return Err(io::Error::other("the file was replaced while it was being opened"));
        }
        Ok(TargetFile { path, file, reader, id, is_truncated: false })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Appends, and returns the new length.
    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let (mut file, before) = (self.file, self.length()?);
        if let Err(error) = file.write_all(bytes) {
            // Leave no partial line. The log still has all of it.
            let _ = self.file.set_len(before);
            return Err(error);
        }
        self.length()
    }

    /// Writes what the file lacks of a logged write. `end` is the offset up to which the content is known;
    /// returns its new value.
    fn complete(&mut self, offset: u64, bytes: &[u8], end: u64, notices: &mut Vec<String>) -> io::Result<u64> {
        match locate(&self.reader, offset, bytes)? {
            Presence::Complete(up_to) => Ok(up_to.max(end)),
            Presence::Partial(common) => self.append(&bytes[common..]),
            // The file contained the write before somebody truncated it.
            Presence::PastEnd if self.is_truncated => Ok(end),
            Presence::PastEnd => {
                self.end_line()?;
                self.append(bytes)
            }
            Presence::Diverged(common) => {
                let lines = complete_lines(bytes, common);
                let written_end = offset + common as u64;
                if is_nul(&self.reader, written_end)? {
                    // The file system extended the file but did not write that part before the power failed.
                    notices.push(save_damaged_tail(self.path, &self.reader, written_end)?);
                    self.file.set_len(written_end)?;
                    return self.append(&bytes[common..]);
                }
                if lines < common {
                    notices.extend(self.blank_partial_record(offset + lines as u64, common - lines)?);
                }
                self.end_line()?;
                self.append(&bytes[lines..])
            }
        }
    }

    /// Overwrites a partial record with a blank line, if another program has appended to it and the resulting line is
    /// no valid JSON. What the other program wrote then is a line of its own.
    fn blank_partial_record(&self, at: u64, length: usize) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut reader = &self.reader;
        reader.seek(SeekFrom::Start(at))?;
        BufReader::new(reader.take(MAX_LINE)).read_until(b'\n', &mut line)?;
        let is_record = line.first() == Some(&b'{');
        if !is_record || serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok() {
            return Ok(None);
        }
        let mut partial = vec![0; length];
        self.reader.read_exact_at(&mut partial, at)?;
        let notice = append_to_damaged(self.path, &partial)?;
        let mut blank = vec![b' '; length];
        blank[length - 1] = b'\n';
        // With O_APPEND, Linux ignores the offset of a write (pwrite(2), BUGS).
        let flags = fcntl_getfl(self.file)?;
        fcntl_setfl(self.file, flags - OFlags::APPEND)?;
        let written = self.file.write_all_at(&blank, at);
        fcntl_setfl(self.file, flags)?;
        written?;
        Ok(Some(notice))
    }

    /// Appends a newline unless the file ends with one.
    fn end_line(&mut self) -> io::Result<()> {
        let length = self.length()?;
        let mut last = [b'\n'];
        if length > 0 {
            self.reader.read_exact_at(&mut last, length - 1)?;
        }
        if last != [b'\n'] { self.append(b"\n").map(drop) } else { Ok(()) }
    }

    /// For a complete log: what follows the known content is from other programs and stays.
    fn keep_foreign_bytes(&mut self, end: u64) -> io::Result<Option<String>> {
        let length = self.length()?;
        self.end_line()?;
        let added = length.saturating_sub(end);
        let text = format!("{}: keeping {added} bytes that another program appended", self.path.display());
        Ok((added > 0 && end > 0).then_some(text))
    }

    /// For an incomplete log: examines what follows the known content, and moves an incomplete
    /// last line to FILE.damaged.
    fn search(&mut self, end: u64, unproven: &mut UnprovenLines<'_>) -> io::Result<Option<String>> {
        let end = unproven.search(&self.reader, end)?;
        if end == self.length()? {
            return Ok(None);
        }
        let notice = save_damaged_tail(self.path, &self.reader, end)?;
        self.file.set_len(end)?;
        Ok(Some(notice))
    }
}

/// Returns the length of the complete lines within the first `length` bytes.
fn complete_lines(bytes: &[u8], length: usize) -> usize {
    memrchr(b'\n', &bytes[..length]).map_or(0, |at| at + 1)
}

/// Determines how much the file contains of `bytes`, which were to be written at `offset`.
fn locate(file: &File, offset: u64, bytes: &[u8]) -> io::Result<Presence> {
    let length = file.metadata()?.len();
    if length < offset {
        return Ok(Presence::PastEnd);
    }
    let mut content = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(offset))?;
    reader.take(bytes.len() as u64).read_to_end(&mut content)?;
    let common = content.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    if common == bytes.len() {
        return Ok(Presence::Complete(offset + bytes.len() as u64));
    }
    if common == content.len() && offset + common as u64 == length {
        return Ok(Presence::Partial(common));
    }
    // Another program may have appended between our reading the length and our write.
    reader.take(SEARCH_LENGTH).read_to_end(&mut content)?;
    match memmem::find(&content, bytes) {
        Some(at) => Ok(Presence::Complete(offset + (at + bytes.len()) as u64)),
        None => Ok(Presence::Diverged(common)),
    }
}

/// Returns whether a file contains only NUL bytes from this offset on.
fn is_nul(mut file: &File, from: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(from))?;
    let mut block = vec![0; 64 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(true),
            read if block[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// Copies the tail of a file, without NULs at its end, to the file with the suffix `.damaged`. Returns a notice.
fn save_damaged_tail(path: &Path, mut file: &File, from: u64) -> io::Result<String> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(MAX_LINE).read_to_end(&mut tail)?;
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    append_to_damaged(path, &tail[..used])
}

fn append_to_damaged(path: &Path, bytes: &[u8]) -> io::Result<String> {
    let mut damaged = path.as_os_str().to_owned();
    damaged.push(".damaged");
    let damaged = Path::new(&damaged);
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(damaged, flags, Mode::RUSR | Mode::WUSR)?);
    // In a folder that others can write to, this name may lead to a file of theirs.
    let (metadata, output) = (file.metadata()?, fs::metadata(path)?);
    let is_of_known_owner = [output.uid(), geteuid().as_raw()].contains(&metadata.uid());
    if !metadata.is_file() || !is_of_known_owner || metadata.nlink() > 1 {
        let refusal = "exists and was not created by docker-logwatch";
        return Err(io::Error::other(format!("{} {refusal}", damaged.display())));
    }
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let count = bytes.len();
    let damaged = damaged.display();
    Ok(format!("{}: an incomplete record of {count} bytes was moved to {damaged}", path.display()))
}

/// Examines lines that this program may have written although the log does not contain them.
struct UnprovenLines<'a> {
    format: OutputFormat,
    /// By container ID; advanced by JSON records.
    positions: &'a mut HashMap<String, Saved>,
    repeats: Option<Repeats>,
}

/// The fields of a JSON record that show how far its container was written.
#[derive(Deserialize)]
struct WrittenRecord {
    container_id: String,
    container_name: String,
    source: String,
    cursor: String,
}

impl UnprovenLines<'_> {
    /// Examines the lines after an offset. Returns the end of the last complete line.
    fn search(&mut self, file: &File, from: u64) -> io::Result<u64> {
        let written = file.metadata()?.modified().ok().and_then(|written| Timestamp::of(written + MTIME_RESOLUTION));
        let mut reader = BufReader::new(file);
        let (mut end, mut line) = (from, Vec::new());
        reader.seek(SeekFrom::Start(from))?;
        loop {
            line.clear();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            if read as u64 == MAX_LINE {
                // This program writes no line that long. The rest of the file stays as it is.
                return Ok(file.metadata()?.len());
            }
            if line.pop() != Some(b'\n') {
                return Ok(end);
            }
            end += read as u64;
            match self.format {
                OutputFormat::Json => self.record(&line),
                OutputFormat::Text | OutputFormat::Raw => {
                    let until = written.unwrap_or(Timestamp(i64::MAX));
                    self.repeats.get_or_insert_with(|| Repeats::new(until)).add(&line);
                }
            }
        }
    }

    fn record(&mut self, line: &[u8]) {
        let Ok(record) = serde_json::from_slice::<WrittenRecord>(line) else { return };
        let Some(cursor) = Cursor::parse(&record.cursor) else { return };
        let Some(route) = Route::ALL.into_iter().find(|route| route.name() == record.source) else { return };
        let new = || Saved {
            name: record.container_name.clone(),
            position: Position { route, resume: TimePosition::at(None), place: None },
            ended: false,
        };
        let saved = self.positions.entry(record.container_id.clone()).or_insert_with(new);
        if saved.position.resume.has(cursor) {
            return;
        }
        // The record shows the time of the line but not its offset in the log file.
        saved.position.place = None;
        saved.position.resume.advance(cursor);
        saved.ended = false;
    }
}

/// Returns the change of a container's position after these lines, for a batch of which only a part was written.
/// `saved` is the position before them.
pub(crate) fn partial_change(
    saved: Option<&Saved>,
    name: &str,
    route: Route,
    lines: impl Iterator<Item = Cursor>,
) -> PositionChange {
    let mut position =
        saved.map_or(Position { route, resume: TimePosition::at(None), place: None }, |saved| saved.position);
    (position.route, position.place) = (route, None);
    lines.for_each(|line| position.resume.advance(line));
    PositionChange::Saved(Saved { name: name.to_owned(), position, ended: false })
}

#[cfg(test)]
mod tests;

//! Brings FILE of `-o FILE --resume` and the positions together at the start of a run, however the last one ended.
//!
//! In: FILE, the last commit, and what the write-ahead log holds. Out: the positions that belong to what FILE holds.
//! Called by [`super::resume`]. Three rules decide:
//!
//! 1. A whole line in FILE stays, whoever wrote it. The positions go to where FILE ends, never back.
//! 2. What the log has and FILE lacks is written now. Its container may be gone, and the log with it.
//! 3. What FILE holds beyond the log was added by others if the log is complete. After a power failure it may not be:
//!    JSON records then tell by their cursors how far each container was written; other lines are remembered and left
//!    out when they are read again ([`Repeats`]).
//!
//! Only an incomplete line at the end, or what is proven to be damaged, is taken out of FILE, into a file beside it.

use super::wal::{Change, Entry, FileRef, Found, Kind, apply};
use crate::model::cursor::{Cursor, Route};
use crate::model::file_id::FileId;
use crate::model::position::{Position, TimePosition};
use crate::model::time::Timestamp;
use crate::output::{Format, Repeats};
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

/// An entry is looked for in so many bytes behind its place: others may have written there first.
const SEARCHED: u64 = 64 << 20;
/// No line of ours is longer; what is longer is not looked into.
const LONGEST_LINE: u64 = 64 << 20;

/// A file system notes the time of a write by a clock that ticks no more often than this.
const COARSE: Duration = Duration::from_millis(20);

/// What a run starts from.
pub(crate) struct Recovery<'a> {
    /// FILE, without links in it, ...
    pub(crate) path: &'a Path,
    /// ... opened to append.
    pub(crate) file: &'a File,
    /// As of the last commit, where there was one.
    pub(crate) known: Option<SavedOutput>,
    pub(crate) found: Found,
    pub(crate) format: Format,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The last entry of the log.
    pub(crate) sequence: u64,
    /// Sentences for the user.
    pub(crate) notices: Vec<String>,
    /// Lines in FILE that will be read again, ...
    pub(crate) repeats: Option<Repeats>,
    /// ... and where they begin: as long as any are expected, what is behind does not count as committed.
    pub(crate) unproven_from: Option<u64>,
    /// Nothing was known of FILE, but the log had positions.
    pub(crate) has_found_positions: bool,
}

/// A file that lines were appended to.
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

/// Where the bytes of an entry are.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// In the file, up to this offset.
    Whole(u64),
    /// So many of them are, and then the file ends.
    Begun(usize),
    /// So many of them are, and then the file goes on differently.
    Mixed(usize),
    /// The file is too short for them by now.
    Beyond,
}

impl Recovery<'_> {
    /// Completes FILE and moves `positions` to its end.
    pub(crate) fn run(self, positions: &mut HashMap<String, Saved>) -> io::Result<Recovered> {
        let committed = self.known.map_or(0, |known| known.sequence);
        let mut outcome = Recovered { sequence: committed.max(self.found.last().unwrap_or(0)), ..Recovered::default() };
        let mut output = Target::open(self.path, self.file)?;
        let mut moved = HashMap::new();
        let is_forgotten = self.known.is_none() && !self.wrote_to_what_is_there(&output, &mut moved)?;
        let is_newer = self.found.last().is_some_and(|last| last > committed) && !is_forgotten;
        let mut end = match &self.known {
            Some(known) if output.id.is_same(&FileRef::of_commit(known)) => known.length,
            _ => 0,
        };
        if output.length()? < end {
            outcome
                .notices
                .push(format!("{} is shorter than it was: lines are appended at its end", self.path.display()));
            (end, output.is_emptied) = (output.length()?, true);
        }
        if is_newer {
            outcome.has_found_positions = true;
            self.replay(committed, positions, &mut output, &mut moved, &mut end, &mut outcome.notices)?;
        }
        // A state that ended well and has no log may come from a backup. Only records can tell.
        let is_proven = self.found.last() == Some(committed) || self.format != Format::Json;
        let is_closed = self.known.is_some_and(|known| known.is_closed) && !is_newer && is_proven;
        let is_complete = self.found.last() >= Some(committed) && self.found.is_complete();
        if is_closed || is_complete || self.known.is_none() && !is_newer {
            outcome.notices.extend(output.keep_what_others_added(end)?);
        } else {
            let mut unproven = Unproven { format: self.format, positions, repeats: None };
            outcome.notices.extend(self.search_moved(&mut moved, &mut unproven)?);
            outcome.notices.extend(output.search(end, &mut unproven)?);
            outcome.repeats = unproven.repeats;
            outcome.unproven_from = outcome.repeats.as_ref().map(|_| end);
        }
        output.file.sync_all()?;
        Ok(outcome)
    }

    /// Whether the file that the log tells of still exists. If not, somebody has started over.
    fn wrote_to_what_is_there(&self, output: &Target<'_>, moved: &mut AllMoved) -> io::Result<bool> {
        for entry in &self.found.entries {
            if let Kind::Write { file, .. } | Kind::Snapshot { file, .. } = &entry.kind
                && (output.id.is_same(file) || self.moved(moved, file)?.is_some())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes through what the last run did since the last commit.
    fn replay(
        &self,
        committed: u64,
        positions: &mut HashMap<String, Saved>,
        output: &mut Target<'_>,
        moved: &mut AllMoved,
        end: &mut u64,
        notices: &mut Vec<String>,
    ) -> io::Result<()> {
        let mut due = self.found.entries.iter().filter(|entry| entry.sequence > committed).peekable();
        while let Some(entry) = due.next() {
            match &entry.kind {
                Kind::Snapshot { positions: all, file, length, .. } => {
                    *positions = all.iter().cloned().collect();
                    if output.id.is_same(file) {
                        *end = (*end).max((*length).min(output.length()?));
                    } else if let Some(there) = self.moved(moved, file)? {
                        there.end = there.end.max(*length);
                    }
                }
                Kind::Write { file, offset, changes, bytes } => {
                    for (id, change) in changes {
                        apply(positions, id, change);
                    }
                    let written = due.peek().and_then(|next| next.written());
                    // The next entry is logged once all of this one is written. Only a power failure takes it back.
                    let is_done = self.found.is_complete() && due.peek().is_some() && written.is_none();
                    if is_done {
                        if output.id.is_same(file) {
                            *end = (*end).max((offset + bytes.len() as u64).min(output.length()?));
                        }
                    } else if output.id.is_same(file) {
                        *end = output.complete(*offset, bytes, *end, notices)?;
                    } else if let Some(from) = self.rest_of_moved(moved, file, *offset, bytes, written)?
                        && from < bytes.len()
                    {
                        *end = output.append(&bytes[from..])?;
                    }
                }
                Kind::Failed { .. } => {}
            }
        }
        Ok(())
    }

    /// From which of its bytes on an entry for a file that was moved away has to be written to FILE instead; `None` if
    /// all of it is there.
    fn rest_of_moved(
        &self,
        moved: &mut AllMoved,
        file: &FileRef,
        offset: u64,
        bytes: &[u8],
        written: Option<u64>,
    ) -> io::Result<Option<usize>> {
        let whole = |common: usize| memrchr(b'\n', &bytes[..common]).map_or(0, |at| at + 1);
        let Some(Moved { path, file, end, is_emptied }) = self.moved(moved, file)? else {
            // It cannot be seen. A write that failed is known to have; others are done within microseconds.
            return Ok(written.map(|written| whole(usize::try_from(written).unwrap_or(usize::MAX).min(bytes.len()))));
        };
        match stand(file, offset, bytes)? {
            Standing::Whole(up_to) => {
                *end = up_to.max(*end);
                Ok(None)
            }
            Standing::Begun(common) => {
                *end = offset + whole(common) as u64;
                if whole(common) < common {
                    set_aside(path, file, *end)?;
                    file.set_len(*end)?;
                }
                Ok(Some(whole(common)))
            }
            Standing::Mixed(common) => {
                *end = (offset + whole(common) as u64).max(*end);
                Ok(Some(whole(common)))
            }
            // It was there, as all before it.
            Standing::Beyond if *is_emptied => Ok(None),
            Standing::Beyond => Ok(Some(0)),
        }
    }

    /// A file that was moved away, not far: as files are rotated.
    fn moved<'m>(&self, moved: &'m mut AllMoved, file: &FileRef) -> io::Result<Option<&'m mut Moved>> {
        if !moved.contains_key(&file.id.inode) {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            let beside = fs::read_dir(folder).into_iter().flatten().flatten();
            let found = beside.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.ino() == file.id.inode));
            for entry in found {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let Ok(opened) = rustix::fs::open(entry.path(), flags, Mode::empty()).map(File::from) else { continue };
                // Where the file system does not remember births, nothing proves that it is the same.
                if file.id.born.is_some() && file_ref(&opened)?.is_same(file) && opened.metadata()?.is_file() {
                    let known = self.known.filter(|known| FileRef::of_commit(known).is_same(file));
                    let end = known.map_or(0, |known| known.length);
                    let is_emptied = opened.metadata()?.len() < end;
                    moved.insert(file.id.inode, Moved { path: entry.path(), file: opened, end, is_emptied });
                    break;
                }
            }
        }
        Ok(moved.get_mut(&file.id.inode))
    }

    /// The log is not complete: what the files that were moved away hold behind what it proves may be ours.
    fn search_moved(&self, moved: &mut AllMoved, unproven: &mut Unproven<'_>) -> io::Result<Vec<String>> {
        let mut notices = Vec::new();
        if let Some(id) = self.known.as_ref().map(FileRef::of_commit)
            && !id.is_same(&file_ref(self.file)?)
            && self.moved(moved, &id)?.is_none()
        {
            let text = "is not the file that the last run wrote, which did not end well: its last lines may come again";
            notices.push(format!("{} {text}", self.path.display()));
        }
        for Moved { path, file, end, .. } in moved.values() {
            let end = unproven.search(file, *end)?;
            if end < file.metadata()?.len() {
                notices.push(set_aside(path, file, end)?);
                file.set_len(end)?;
            }
        }
        Ok(notices)
    }
}

/// A file that lines were appended to before it was moved away.
struct Moved {
    /// What it is called now.
    path: PathBuf,
    file: File,
    /// Up to here it is known what it holds.
    end: u64,
    /// Somebody has shortened it: it ends before what was synced.
    is_emptied: bool,
}

/// All that were found, by inode.
type AllMoved = HashMap<u64, Moved>;

impl Entry {
    /// How much of the entry before was written, if this tells that.
    fn written(&self) -> Option<u64> {
        match self.kind {
            Kind::Failed { written } => Some(written),
            _ => None,
        }
    }
}

/// FILE.
struct Target<'a> {
    path: &'a Path,
    /// Opened to append, ...
    file: &'a File,
    /// ... and to read.
    reader: File,
    id: FileRef,
    /// Somebody has shortened it: it ends before what was synced.
    is_emptied: bool,
}

impl<'a> Target<'a> {
    fn open(path: &'a Path, file: &'a File) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let id = file_ref(file)?;
        if !file_ref(&reader)?.is_same(&id) {
            return Err(io::Error::other("it was replaced while it was opened"));
        }
        Ok(Target { path, file, reader, id, is_emptied: false })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Appends, and returns where the file ends then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let (mut file, before) = (self.file, self.length()?);
        if let Err(error) = file.write_all(bytes) {
            // No half line stays. The log still has all of it.
            let _ = self.file.set_len(before);
            return Err(error);
        }
        self.length()
    }

    /// Sees to it that all bytes of an entry are in the file; `end` is how much of it is known to be ours and synced.
    /// Returns where what is known to be ours ends then.
    fn complete(&mut self, offset: u64, bytes: &[u8], end: u64, notices: &mut Vec<String>) -> io::Result<u64> {
        match stand(&self.reader, offset, bytes)? {
            Standing::Whole(up_to) => Ok(up_to.max(end)),
            Standing::Begun(common) => self.append(&bytes[common..]),
            // It was there, as all before it.
            Standing::Beyond if self.is_emptied => Ok(end),
            Standing::Beyond => {
                self.end_line()?;
                self.append(bytes)
            }
            Standing::Mixed(common) => {
                let whole = memrchr(b'\n', &bytes[..common]).map_or(0, |at| at + 1);
                let behind = offset + common as u64;
                if is_nul(&self.reader, behind)? {
                    // A file system that had made the file longer, but not written that part, before the power failed.
                    notices.push(set_aside(self.path, &self.reader, behind)?);
                    self.file.set_len(behind)?;
                    return self.append(&bytes[common..]);
                }
                if whole < common {
                    notices.extend(self.blank(offset + whole as u64, common - whole)?);
                }
                self.end_line()?;
                self.append(&bytes[whole..])
            }
        }
    }

    /// Half a record that others have written behind is damage if the line they make together is no JSON. It is
    /// overwritten in place, and what the others wrote stays a line.
    fn blank(&self, at: u64, length: usize) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut reader = &self.reader;
        reader.seek(SeekFrom::Start(at))?;
        BufReader::new(reader.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
        let is_record = line.first() == Some(&b'{');
        if !is_record || serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok() {
            return Ok(None);
        }
        let mut half = vec![0; length];
        self.reader.read_exact_at(&mut half, at)?;
        let notice = append_aside(self.path, &half)?;
        let mut blank = vec![b' '; length];
        blank[length - 1] = b'\n';
        // While a descriptor appends, the kernel ignores where it is told to write (pwrite(2)).
        let flags = fcntl_getfl(self.file)?;
        fcntl_setfl(self.file, flags - OFlags::APPEND)?;
        let written = self.file.write_all_at(&blank, at);
        fcntl_setfl(self.file, flags)?;
        written?;
        Ok(Some(notice))
    }

    /// What comes next begins a line.
    fn end_line(&mut self) -> io::Result<()> {
        let length = self.length()?;
        let mut last = [b'\n'];
        if length > 0 {
            self.reader.read_exact_at(&mut last, length - 1)?;
        }
        if last != [b'\n'] { self.append(b"\n").map(drop) } else { Ok(()) }
    }

    /// All of ours is known, so what is behind it is not ours.
    fn keep_what_others_added(&mut self, end: u64) -> io::Result<Option<String>> {
        let length = self.length()?;
        self.end_line()?;
        let added = length.saturating_sub(end);
        let text = format!("{}: {added} bytes were added that are not ours: they are kept", self.path.display());
        Ok((added > 0 && end > 0).then_some(text))
    }

    /// Searches what may be ours, and sets aside an incomplete line at the end.
    fn search(&mut self, end: u64, unproven: &mut Unproven<'_>) -> io::Result<Option<String>> {
        let end = unproven.search(&self.reader, end)?;
        if end == self.length()? {
            return Ok(None);
        }
        let notice = set_aside(self.path, &self.reader, end)?;
        self.file.set_len(end)?;
        Ok(Some(notice))
    }
}

/// Where the bytes of an entry are that was to be written at `offset`.
fn stand(file: &File, offset: u64, bytes: &[u8]) -> io::Result<Standing> {
    let length = file.metadata()?.len();
    if length < offset {
        return Ok(Standing::Beyond);
    }
    let mut there = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(offset))?;
    reader.take(bytes.len() as u64).read_to_end(&mut there)?;
    let common = there.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    if common == bytes.len() {
        return Ok(Standing::Whole(offset + bytes.len() as u64));
    }
    if common == there.len() && offset + common as u64 == length {
        return Ok(Standing::Begun(common));
    }
    // Somebody else may have written between our look at the length and our write.
    reader.take(SEARCHED).read_to_end(&mut there)?;
    match memmem::find(&there, bytes) {
        Some(at) => Ok(Standing::Whole(offset + (at + bytes.len()) as u64)),
        None => Ok(Standing::Mixed(common)),
    }
}

/// Whether a file holds NUL bytes from there on, and nothing else.
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

/// Copies what is in a file from there on to the file beside it, but for NULs at its end; a sentence about it.
fn set_aside(path: &Path, mut file: &File, from: u64) -> io::Result<String> {
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(LONGEST_LINE).read_to_end(&mut rest)?;
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    append_aside(path, &rest[..used])
}

fn append_aside(path: &Path, bytes: &[u8]) -> io::Result<String> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(&aside, flags, Mode::RUSR | Mode::WUSR)?);
    let (there, ours) = (file.metadata()?, fs::metadata(path)?);
    let is_of_known_owner = [ours.uid(), geteuid().as_raw()].contains(&there.uid());
    if !there.is_file() || !is_of_known_owner || there.nlink() > 1 {
        let refusal = "is in the way: it is not a file that we made";
        return Err(io::Error::other(format!("{} {refusal}", Path::new(&aside).display())));
    }
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let count = bytes.len();
    let aside = Path::new(&aside).display();
    Ok(format!("{}: an incomplete record of {count} bytes was moved to {aside}", path.display()))
}

/// What may be ours without the log telling so.
struct Unproven<'a> {
    format: Format,
    positions: &'a mut HashMap<String, Saved>,
    repeats: Option<Repeats>,
}

/// Of a JSON record, what tells how far its container was written.
#[derive(Deserialize)]
struct Record {
    container_id: String,
    container_name: String,
    source: String,
    cursor: String,
}

impl Unproven<'_> {
    /// Goes through the lines from an offset on; returns where the last complete one ends.
    fn search(&mut self, file: &File, from: u64) -> io::Result<u64> {
        let written = file.metadata()?.modified().ok().and_then(|written| Timestamp::of(written + COARSE));
        let mut reader = BufReader::new(file);
        let (mut end, mut line) = (from, Vec::new());
        reader.seek(SeekFrom::Start(from))?;
        loop {
            line.clear();
            let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            if read as u64 == LONGEST_LINE {
                // Nobody could tell what that is. It stays.
                return Ok(file.metadata()?.len());
            }
            if line.pop() != Some(b'\n') {
                return Ok(end);
            }
            end += read as u64;
            match self.format {
                Format::Json => self.record(&line),
                Format::Text | Format::Raw => {
                    let until = written.unwrap_or(Timestamp(i64::MAX));
                    self.repeats.get_or_insert_with(|| Repeats::new(until)).add(&line);
                }
            }
        }
    }

    fn record(&mut self, line: &[u8]) {
        let Ok(record) = serde_json::from_slice::<Record>(line) else { return };
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
        // Where that is in a file is not known, its time is.
        saved.position.place = None;
        saved.position.resume.advance(cursor);
        saved.ended = false;
    }
}

/// How far a container was read when only a part of a batch was written.
pub(crate) fn part(saved: Option<&Saved>, name: &str, route: Route, lines: impl Iterator<Item = Cursor>) -> Change {
    let mut position =
        saved.map_or(Position { route, resume: TimePosition::at(None), place: None }, |saved| saved.position);
    (position.route, position.place) = (route, None);
    lines.for_each(|line| position.resume.advance(line));
    Change::Saved(Saved { name: name.to_owned(), position, ended: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::deliver::wal::{self, Wal};
    use crate::model::cursor::Stream;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// What happens to a run and its files.
    #[derive(Clone, Debug)]
    enum Op {
        /// So many lines of a container are written.
        Write(u64, u64),
        /// What was written is synced and committed.
        Commit,
        /// Somebody else appends a line.
        Foreign,
        /// The run ends well.
        End,
        /// The run is killed while it writes so many lines, once this share of the bytes is written; 101: before the log is.
        Kill(u64, u64, usize),
        /// FILE is moved away once the run is dead.
        Move,
        /// Somebody copies FILE and empties it once the run is dead.
        CopyTruncate,
        /// The state comes back from a backup that is so many commits old.
        Restore(usize),
        /// The power fails. Of what was not synced this share of FILE is left, then NULs if so, and of each segment of the log
        /// that share.
        PowerCut(usize, bool, [usize; 2]),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (0..3_u64, 1..5_u64).prop_map(|(container, lines)| Op::Write(container, lines)),
            3 => Just(Op::Commit),
            2 => Just(Op::Foreign),
            1 => Just(Op::End),
            3 => (0..3_u64, 1..5_u64, 0..102_usize).prop_map(|(container, lines, share)| Op::Kill(container, lines, share)),
            1 => Just(Op::Move),
            1 => Just(Op::CopyTruncate),
            1 => (0..4_usize).prop_map(Op::Restore),
            1 => (0..101_usize, any::<bool>(), [0..101_usize, 0..101]).prop_map(|(file, nul, log)| Op::PowerCut(file, nul, log)),
        ];
        prop::collection::vec(op, 1..40)
    }

    type State = (Option<SavedOutput>, HashMap<String, Saved>);

    struct Model {
        folder: tempfile::TempDir,
        format: Format,
        state: State,
        backups: Vec<State>,
        run: Option<Run>,
        /// Lines that were complete in FILE at some time and survived what was not synced, ours and others'.
        ever: HashSet<String>,
        foreign: u64,
        moves: u64,
        is_moved: bool,
        has_power_failed: bool,
        /// The last run was killed in a write.
        is_unfinished: bool,
        /// FILE was copied and emptied since.
        is_copied: bool,
        copies: u64,
    }

    struct Run {
        file: File,
        wal: Wal,
        positions: HashMap<String, Saved>,
        repeats: Option<Repeats>,
        sequence: u64,
        /// Bytes of FILE that no power failure takes.
        synced: u64,
        /// It began after a power failure and has committed nothing yet.
        is_fresh: bool,
    }

    fn seen(positions: &HashMap<String, Saved>, container: &str) -> u64 {
        let seen = positions.get(container).and_then(|saved| saved.position.resume.seen[0]);
        seen.map_or(0, |seen| seen.time.0.cast_unsigned())
    }

    fn line(format: Format, container: &str, number: u64) -> String {
        match format {
            Format::Json => format!(
                "{{\"type\":\"log\",\"container_id\":\"{container}\",\"container_name\":\"{container}\",\"source\":\"file\",\"cursor\":\"{number}-o0\"}}\n"
            ),
            _ => format!("{container} | line {number}\n"),
        }
    }

    fn saved(container: &str, number: u64) -> Saved {
        let mut resume = TimePosition::at(None);
        let time = Timestamp(number.cast_signed());
        resume.advance(Cursor { time, stream: Stream::Stdout, ordinal: 0 });
        Saved { name: container.into(), position: Position { route: Route::File, resume, place: None }, ended: false }
    }

    impl Model {
        fn new(format: Format) -> Self {
            Model {
                folder: tempfile::tempdir().unwrap(),
                format,
                state: (None, HashMap::new()),
                backups: Vec::new(),
                run: None,
                ever: HashSet::new(),
                foreign: 0,
                moves: 0,
                is_moved: false,
                has_power_failed: false,
                is_unfinished: false,
                is_copied: false,
                copies: 0,
            }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("out")
        }

        fn log(&self) -> PathBuf {
            self.folder.path().join("state.wal")
        }

        /// Complete lines of all files but what was set aside.
        fn lines(&self) -> Vec<String> {
            let names =
                (1..=self.moves).map(|turn| self.folder.path().join(format!("out.{turn}"))).chain([self.path()]);
            let text: String = names.map(|name| fs::read_to_string(name).unwrap_or_default()).collect();
            text.split_inclusive('\n')
                .filter(|line| line.ends_with('\n') && !line.trim().is_empty())
                .map(str::to_owned)
                .collect()
        }

        fn note(&mut self) {
            let lines: Vec<String> = self.lines().into_iter().filter(|line| self.is_whole(line)).collect();
            self.ever.extend(lines);
        }

        fn ends_whole(&self) -> bool {
            fs::read(self.path()).unwrap_or_default().ends_with(b"\n")
        }

        /// Not the end of one line behind the beginning of another.
        fn is_whole(&self, line: &str) -> bool {
            match self.format {
                Format::Json => serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok(),
                _ => {
                    let foreign = line.strip_prefix("note ");
                    let ours = || line.strip_prefix('c').and_then(|line| line.get(1..)?.strip_prefix(" | line "));
                    foreign.or_else(ours).is_some_and(|number| number.trim_end().parse::<u64>().is_ok())
                }
            }
        }

        fn start(&mut self) {
            if self.run.is_some() {
                return;
            }
            if std::mem::take(&mut self.is_moved) && self.path().exists() {
                self.moves += 1;
                fs::rename(self.path(), self.folder.path().join(format!("out.{}", self.moves))).unwrap();
            }
            (self.is_unfinished, self.is_copied) = (false, false);
            let path = self.path();
            let file = File::options().append(true).create(true).open(&path).unwrap();
            let mut found = wal::read(&self.log(), &self.log());
            let is_fresh = std::mem::take(&mut self.has_power_failed);
            if is_fresh {
                found.mount = "another boot".into();
            }
            let mut positions = self.state.1.clone();
            let recovery = Recovery { path: &path, file: &file, known: self.state.0, found, format: self.format };
            let recovered = recovery.run(&mut positions).unwrap();
            let id = file_ref(&file).unwrap();
            let length = file.metadata().unwrap().len();
            let end = recovered.unproven_from.unwrap_or(file.metadata().unwrap().len());
            self.save(&file, end, &positions, recovered.sequence, false);
            let wal = Wal::start(&self.log(), &self.log(), recovered.sequence, positions.clone(), (id, end)).unwrap();
            let sequence = wal.sequence();
            self.run =
                Some(Run { file, wal, positions, repeats: recovered.repeats, sequence, synced: length, is_fresh });
            self.check();
            // What nothing but a look into FILE proves is read again at once, and no other run comes before that.
            self.read_repeats();
        }

        fn read_repeats(&mut self) {
            for _ in 0..40 {
                if self.run.as_ref().and_then(|run| run.repeats.as_ref()).is_none_or(Repeats::is_over) {
                    break;
                }
                (0..3).for_each(|container| self.write(container, 1, 100));
            }
        }

        fn save(
            &mut self,
            file: &File,
            length: u64,
            positions: &HashMap<String, Saved>,
            sequence: u64,
            is_closed: bool,
        ) {
            let id = file_ref(file).unwrap();
            let FileRef { device, id: FileId { inode, born, .. } } = id;
            let output = SavedOutput { device, inode, length, is_closed, born, sequence };
            self.backups.push(self.state.clone());
            self.state = (Some(output), positions.clone());
        }

        /// What is written next of a container, and what that makes of it.
        fn next(&mut self, container: u64, count: u64) -> (String, HashMap<String, Change>) {
            let (format, container) = (self.format, format!("c{container}"));
            let run = self.run.as_mut().unwrap();
            let from = seen(&run.positions, &container);
            let mut bytes = String::new();
            for number in from + 1..=from + count {
                let line = line(format, &container, number);
                let time = Timestamp(number.cast_signed());
                let is_repeat =
                    run.repeats.as_mut().is_some_and(|repeats| repeats.take(line.trim_end().as_bytes(), time));
                if !is_repeat {
                    bytes.push_str(&line);
                }
            }
            let change = Change::Saved(saved(&container, from + count));
            (bytes, HashMap::from([(container, change)]))
        }

        fn write(&mut self, container: u64, count: u64, share: usize) {
            let (bytes, changes) = self.next(container, count);
            let run = self.run.as_mut().unwrap();
            if share > 100 {
                return;
            }
            let (id, end) = (file_ref(&run.file).unwrap(), run.file.metadata().unwrap().len());
            run.wal.append(id, end, &changes, bytes.as_bytes()).unwrap();
            (&run.file).write_all(&bytes.as_bytes()[..bytes.len() * share / 100]).unwrap();
            changes.iter().for_each(|(id, change)| apply(&mut run.positions, id, change));
            run.sequence = run.wal.sequence();
        }

        fn play(&mut self, op: &Op) {
            match op {
                Op::Write(container, count) => {
                    self.start();
                    self.write(*container, *count, 100);
                }
                Op::Commit | Op::End => {
                    self.start();
                    let run = self.run.take().unwrap();
                    let end = run.file.metadata().unwrap().len();
                    self.save(&run.file, end, &run.positions, run.sequence, matches!(op, Op::End));
                    let mut run = run;
                    run.wal.commit(run.sequence).unwrap();
                    if matches!(op, Op::End) {
                        run.wal.clear().unwrap();
                    } else {
                        self.run = Some(run);
                        let run = self.run.as_mut().unwrap();
                        (run.synced, run.is_fresh) = (end, false);
                    }
                }
                Op::Foreign => {
                    self.foreign += 1;
                    let line = match self.format {
                        Format::Json => format!("{{\"note\":{}}}\n", self.foreign),
                        _ => format!("note {}\n", self.foreign),
                    };
                    let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
                    file.write_all(line.as_bytes()).unwrap();
                }
                Op::Kill(container, count, share) => {
                    self.start();
                    self.write(*container, *count, *share);
                    self.run = None;
                    self.is_unfinished = *share < 100;
                }
                Op::Move => self.is_moved = self.run.is_none() && self.state.0.is_some(),
                Op::CopyTruncate => {
                    // Of an empty file nothing was synced, so nothing tells that it was shortened. And of a write that was
                    // logged and not begun nothing tells any more.
                    let is_known = self.state.0.is_some_and(|output| output.length > 0) && !self.is_unfinished;
                    let is_steady = self.run.is_none() && !self.has_power_failed && !self.is_moved && !self.is_copied;
                    if is_known && is_steady && self.lines().last().is_some() && self.ends_whole() {
                        self.is_copied = true;
                        self.copies += 1;
                        self.moves += 1;
                        let copy = self.folder.path().join(format!("out.{}", self.moves));
                        fs::copy(self.path(), copy).unwrap();
                        File::options().write(true).open(self.path()).unwrap().set_len(0).unwrap();
                    }
                }
                Op::Restore(age) => {
                    let known = self.backups.iter().rev().filter(|(known, _)| known.is_some()).nth(*age).cloned();
                    // Without a log, and after a run that ended well, nothing tells whose a text line is.
                    // Nor does a FILE whose lines are in a copy alone.
                    let is_told = self.format == Format::Json && self.copies == 0;
                    let can_tell = (!self.has_power_failed || is_told) && !self.is_copied;
                    if let Some(state) = known.filter(|_| self.run.is_none() && can_tell) {
                        self.state = state;
                    }
                }
                Op::PowerCut(share, has_nul, logs) => self.cut_power(*share, *has_nul, *logs),
            }
            self.note();
        }

        fn cut_power(&mut self, share: usize, has_nul: bool, logs: [usize; 2]) {
            // Of a dead run all has been written back by now.
            // Text that was recognised once is committed within a fraction of a second: no power failure comes before.
            if self.format != Format::Json && self.run.as_ref().is_some_and(|run| run.is_fresh) {
                return;
            }
            let Some(run) = self.run.take() else { return };
            let length = run.file.metadata().unwrap().len();
            let synced = run.synced.min(length);
            let left = synced + (length - synced) * share as u64 / 100;
            run.file.set_len(left).unwrap();
            if has_nul {
                run.file.set_len(length).unwrap();
            }
            for (number, share) in logs.into_iter().enumerate() {
                let segment = File::options().write(true).open(wal::segment_path(&self.log(), number)).unwrap();
                segment.set_len(segment.metadata().unwrap().len() * share as u64 / 100).unwrap();
            }
            self.has_power_failed = true;
            let there: HashSet<String> = self.lines().into_iter().collect();
            self.ever.retain(|line| there.contains(line));
        }

        /// What was ever complete is there, everything once, and of each container no line is missing up to its position.
        fn check(&self) {
            let lines = self.lines();
            for line in &self.ever {
                assert!(lines.contains(line), "{line:?} is gone");
            }
            let whole: Vec<&String> = lines.iter().filter(|line| self.is_whole(line)).collect();
            let distinct: HashSet<&&String> = whole.iter().collect();
            assert_eq!(distinct.len(), whole.len(), "something is there twice: {lines:?}");
            let run = self.run.as_ref().unwrap();
            for container in ["c0", "c1", "c2"] {
                let seen = seen(&run.positions, container);
                for number in 1..=seen {
                    let line = line(self.format, container, number);
                    assert!(lines.contains(&line), "{container} is said to be read to {seen}, and {number} is missing");
                }
                let is_beyond = lines.contains(&line(self.format, container, seen + 1));
                assert!(!is_beyond || run.repeats.is_some(), "{container}: {} will be read again", seen + 1);
            }
        }

        /// Reads everything to a common end, as the next run would.
        fn finish(&mut self) {
            self.start();
            for container in 0..3 {
                let seen = seen(&self.run.as_ref().unwrap().positions, &format!("c{container}"));
                self.write(container, 400 - seen, 100);
            }
            self.note();
            self.check();
        }
    }

    fn play(format: Format, ops: &[Op]) {
        let mut model = Model::new(format);
        ops.iter().for_each(|op| model.play(op));
        model.finish();
    }

    fn cases() -> u32 {
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
    }

    proptest! {
        // Each case syncs files dozens of times. PROPTEST_CASES asks for more of them.
        #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

        /// The promise of `-o FILE --resume`, for records that say which line they are.
        #[test]
        fn no_json_record_is_lost_or_repeated_whatever_happens(ops in ops()) {
            play(Format::Json, &ops);
        }

        /// The same for lines that do not.
        #[test]
        fn no_text_line_is_lost_or_repeated_whatever_happens(ops in ops()) {
            play(Format::Text, &ops);
        }
    }
}

//! A write-ahead log for `-o FILE --resume`: what was written to FILE, and how far each container was read by then.
//!
//! An [`Entry`] with the bytes goes here before they go to FILE, so whatever moment a run is killed at, the next one
//! can see which of its bytes reached FILE, write those that did not, and knows the positions behind them. Called by
//! [`super::keep`] while a run writes and by [`super::recovery`] when one starts. Nothing here is synced: the kernel
//! keeps what a killed process wrote. After a power failure an entry may be missing or damaged, which its checksum
//! and its sequence number show.
//!
//! The log lies in two segments beside the state file. Each begins with a snapshot of all positions. One is written
//! until it is large; then the other one is, once everything in it has been committed to the state.

use crate::model::file_id::{FileId, Likeness};
use crate::model::small_file;
use crate::state::{Saved, open_companion};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The other segment takes over once this one is longer.
const LARGE: u64 = 4 << 20;
/// A segment that is longer has to wait for a commit. What the next run reads stays in its memory.
const LARGEST: u64 = 16 << 20;
/// More than a segment of [`LARGEST`] bytes and one last entry can hold.
const MOST_READ: u64 = 64 << 20;

/// Marks the beginning of an entry, and the version of its form.
const MAGIC: [u8; 4] = *b"LWw1";
/// Magic, length of the header, length of the bytes, checksum over all that follows the magic but itself.
const FRAME: usize = 16;

/// One step of a run, in the order of `sequence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Larger than that of every entry before, also of earlier runs; consecutive within a run.
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// How far each container had been read, and FILE been written, when the segment was begun; in which boot and on
    /// which device.
    Snapshot { positions: Vec<(String, Saved)>, file: FileRef, length: u64, mount: String },
    /// These bytes are about to be appended to a file; it ended at `offset` just before.
    Write {
        file: FileRef,
        offset: u64,
        changes: Vec<(String, Change)>,
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// The write of the entry before failed after so many bytes.
    Failed { written: u64 },
}

/// A file that lines were appended to, whatever it is called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRef {
    /// Changes when the file system is mounted from another device: it counts only where the ID leaves doubts.
    pub(crate) device: u64,
    pub(crate) id: FileId,
}

impl FileRef {
    pub(crate) fn is_same(&self, other: &FileRef) -> bool {
        match self.id.likeness(&other.id) {
            Likeness::Same => true,
            Likeness::Other => false,
            Likeness::Unsure => self.device == other.device,
        }
    }
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one")]
pub(crate) enum Change {
    /// It was read so far.
    Saved(Saved),
    /// It has stopped and was read to its end, which is where the last commit left it.
    Ended,
    /// It was removed.
    Removed,
}

/// Positions with their changes applied, by container ID.
pub(crate) fn apply(positions: &mut HashMap<String, Saved>, id: &str, change: &Change) {
    match change {
        Change::Saved(saved) => drop(positions.insert(id.to_owned(), saved.clone())),
        Change::Ended => {
            if let Some(saved) = positions.get_mut(id) {
                saved.ended = true;
            }
        }
        Change::Removed => drop(positions.remove(id)),
    }
}

/// What the segments held when a run started.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// In order, without gaps from one to the next; the first is a snapshot.
    pub(crate) entries: Vec<Entry>,
    /// The boot and the mount that the segments are read in.
    pub(crate) mount: String,
}

impl Found {
    pub(crate) fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.sequence)
    }

    /// Whether every write to FILE is among the entries: none can have been lost in a power failure since.
    pub(crate) fn is_complete(&self) -> bool {
        let mount = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            Kind::Snapshot { mount, .. } => Some(mount),
            _ => None,
        });
        mount.is_some_and(|mount| *mount == self.mount)
    }
}

/// Where a run's segments lie: one pair for each engine, resume name and FILE.
pub(crate) fn base(state: &Path, engine_id: &str, name: &str, file: &Path) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(engine_id);
    hash.update([0]);
    hash.update(file.as_os_str().as_encoded_bytes());
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut base = state.as_os_str().to_owned();
    base.push(format!(".output-{name}-{hash}.wal"));
    PathBuf::from(base)
}

pub(crate) fn segment_path(base: &Path, number: usize) -> PathBuf {
    let mut path = base.as_os_str().to_owned();
    path.push(number.to_string());
    PathBuf::from(path)
}

/// Reads both segments. One that is missing, or no file of ours, holds nothing.
pub(crate) fn read(state: &Path, base: &Path) -> Found {
    let mut here = String::new();
    let [one, other] = [0, 1].map(|number| {
        let mut bytes = Vec::new();
        if let Ok(file) = open_companion(state, &segment_path(base, number), OFlags::RDONLY) {
            here = mount(&file);
            // What could be read counts: each entry has a checksum.
            let _ = file.take(MOST_READ).read_to_end(&mut bytes);
        }
        parse(&bytes)
    });
    Found { mount: here, ..join(one, other) }
}

/// Names this boot of the machine and the device that a file lies on. Both stay the same as long as all that a process
/// wrote is still in the kernel's memory.
fn mount(file: &File) -> String {
    let boot = small_file::read_small(Path::new("/proc/sys/kernel/random/boot_id"), 64).unwrap_or_default();
    let device = file.metadata().map_or(0, |metadata| metadata.dev());
    format!("{}/{device}", String::from_utf8_lossy(&boot).trim())
}

/// The entries of a segment up to the first that is damaged or not the next.
fn parse(mut bytes: &[u8]) -> Found {
    let mut found = Found::default();
    while let Some((entry, rest)) = decode(bytes) {
        let is_next = match found.entries.last() {
            Some(last) => entry.sequence == last.sequence + 1,
            None => matches!(entry.kind, Kind::Snapshot { .. }),
        };
        if !is_next {
            break;
        }
        found.entries.push(entry);
        bytes = rest;
    }
    found
}

/// Two segments as one: the older before the newer, if that goes on where it ends.
fn join(one: Found, other: Found) -> Found {
    let (mut older, newer) = if one.last() <= other.last() { (one, other) } else { (other, one) };
    let is_continued = older.last().zip(newer.entries.first()).is_some_and(|(last, next)| last + 1 == next.sequence);
    if !is_continued {
        return newer;
    }
    older.entries.extend(newer.entries);
    older
}

fn decode(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (frame, rest) = bytes.split_at_checked(FRAME)?;
    let number = |at: usize| frame[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let (header_length, bytes_length, checksum) = (number(4)? as usize, number(8)? as usize, number(12)?);
    let (body, rest) = rest.split_at_checked(header_length.checked_add(bytes_length)?)?;
    if frame[..4] != MAGIC || checksum != sum(&frame[4..12], body) {
        return None;
    }
    let mut entry: Entry = serde_json::from_slice(&body[..header_length]).ok()?;
    if let Kind::Write { bytes, .. } = &mut entry.kind {
        *bytes = body[header_length..].to_vec();
    }
    Some((entry, rest))
}

fn sum(lengths: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(body);
    hasher.finalize()
}

/// Appends an entry whose bytes are not in it.
fn encode(entry: &Entry, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME]);
    serde_json::to_writer(&mut *out, entry)?;
    let header_length = out.len() - start - FRAME;
    out.extend_from_slice(bytes);
    let lengths = [header_length, bytes.len()].map(|length| u32::try_from(length).map(u32::to_le_bytes));
    let [Ok(header), Ok(length)] = lengths else { return Err(io::ErrorKind::FileTooLarge.into()) };
    let (frame, body) = out[start..].split_at_mut(FRAME);
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&header);
    frame[8..12].copy_from_slice(&length);
    let checksum = sum(&frame[4..12], body);
    frame[12..].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// The log of a run under way.
#[derive(Debug)]
pub(crate) struct Wal {
    segments: [Segment; 2],
    /// The segment that is written.
    current: usize,
    /// Of the last entry.
    sequence: u64,
    /// Every entry up to this one is in the state.
    committed: u64,
    positions: HashMap<String, Saved>,
    /// What is written, and where it ends.
    written: (FileRef, u64),
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    length: u64,
    last: u64,
}

impl Wal {
    /// Begins anew behind `sequence`, up to which all is committed.
    pub(crate) fn start(
        state: &Path,
        base: &Path,
        sequence: u64,
        positions: HashMap<String, Saved>,
        written: (FileRef, u64),
    ) -> io::Result<Wal> {
        let open = |number| {
            let file = open_companion(state, &segment_path(base, number), OFlags::WRONLY | OFlags::CREATE);
            file.map(|file| Segment { file, length: 0, last: 0 })
        };
        let (segments, buffer) = ([open(0)?, open(1)?], Vec::new());
        // Later than all before, also of a state that was restored from a backup and knows of less.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
        let sequence = sequence.max(u64::try_from(now).unwrap_or(0));
        let mut wal = Wal { segments, current: 0, sequence, committed: sequence, positions, written, buffer };
        wal.begin(0, sequence + 1)?;
        wal.segments[1].file.set_len(0)?;
        Ok(wal)
    }

    /// Of the last entry.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes a segment the current one, with nothing but a snapshot in it.
    fn begin(&mut self, number: usize, sequence: u64) -> io::Result<()> {
        let positions = self.positions.iter().map(|(id, saved)| (id.clone(), saved.clone())).collect();
        let ((file, length), mount) = (self.written, mount(&self.segments[number].file));
        let kind = Kind::Snapshot { positions, file, length, mount };
        let entry = Entry { sequence, kind };
        self.buffer.clear();
        encode(&entry, &[], &mut self.buffer)?;
        let segment = &mut self.segments[number];
        segment.file.set_len(0)?;
        rustix::fs::seek(&segment.file, rustix::fs::SeekFrom::Start(0))?;
        segment.file.write_all(&self.buffer)?;
        (segment.length, segment.last) = (self.buffer.len() as u64, entry.sequence);
        (self.current, self.sequence) = (number, entry.sequence);
        Ok(())
    }

    /// Logs that these bytes are about to be appended to a file, and what that makes of containers.
    pub(crate) fn append(
        &mut self,
        file: FileRef,
        offset: u64,
        changes: &HashMap<String, Change>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let list = changes.iter().map(|(id, change)| (id.clone(), change.clone())).collect();
        self.log(Kind::Write { file, offset, changes: list, bytes: Vec::new() }, bytes)?;
        for (id, change) in changes {
            apply(&mut self.positions, id, change);
        }
        self.written = (file, offset + bytes.len() as u64);
        Ok(())
    }

    /// Logs that the write of the entry before failed.
    pub(crate) fn fail(&mut self, written: u64) -> io::Result<()> {
        self.log(Kind::Failed { written }, &[])
    }

    fn log(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let other = 1 - self.current;
        if self.segments[self.current].length > LARGE && self.segments[other].last <= self.committed {
            self.begin(other, self.sequence + 1)?;
        }
        let entry = Entry { sequence: self.sequence + 1, kind };
        self.buffer.clear();
        encode(&entry, bytes, &mut self.buffer)?;
        let segment = &mut self.segments[self.current];
        segment.file.write_all(&self.buffer)?;
        segment.length += self.buffer.len() as u64;
        (segment.last, self.sequence) = (entry.sequence, entry.sequence);
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// No more fits before a commit has made room.
    pub(crate) fn is_full(&self) -> bool {
        let is_waited_for = self.segments[1 - self.current].last > self.committed;
        is_waited_for && self.segments[self.current].length > LARGEST
    }

    /// All up to this entry is in the state.
    pub(crate) fn commit(&mut self, sequence: u64) -> io::Result<()> {
        self.committed = self.committed.max(sequence);
        // A flood has left long segments that nobody needs any more.
        if self.committed == self.sequence && self.segments.iter().any(|segment| segment.length > LARGE) {
            self.clear()?;
        }
        Ok(())
    }

    /// Leaves nothing but a snapshot, once all is committed: what was logged is nobody's business any more.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        // Under the number that is committed, so that the state is not older than this.
        self.begin(0, self.sequence)?;
        let other = &mut self.segments[1];
        (other.length, other.last) = (0, 0);
        other.file.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileRef = FileRef { device: 1, id: FileId { filesystem: None, inode: 2, born: None } };

    fn begin(base: &Path) -> Wal {
        Wal::start(base, base, 0, HashMap::new(), (FILE, 0)).unwrap()
    }

    /// Bytes of the writes found, in order.
    fn writes(found: &Found) -> Vec<Vec<u8>> {
        let writes = found.entries.iter().filter_map(|entry| match &entry.kind {
            Kind::Write { bytes, .. } => Some(bytes.clone()),
            _ => None,
        });
        writes.collect()
    }

    #[test]
    fn what_was_appended_is_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("wal");
        assert_eq!(read(&base, &base).entries, []);
        let mut wal = begin(&base);
        for line in ["one", "two", "three"] {
            wal.append(FILE, 0, &HashMap::new(), line.as_bytes()).unwrap();
        }
        wal.fail(2).unwrap();
        let found = read(&base, &base);
        assert_eq!(writes(&found), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        assert_eq!((found.last(), found.is_complete()), (Some(wal.sequence()), true));
        assert!(matches!(found.entries.last().unwrap().kind, Kind::Failed { written: 2 }));
    }

    /// A power failure may leave any bytes; an entry is found as it was written or not at all.
    #[test]
    fn damage_ends_the_log_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("wal");
        let mut wal = begin(&base);
        for line in ["one", "two", "three"] {
            wal.append(FILE, 0, &HashMap::new(), line.as_bytes()).unwrap();
        }
        let whole = std::fs::read(segment_path(&base, 0)).unwrap();
        let expected = parse(&whole).entries;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            for bytes in [&damaged[..], &whole[..at]] {
                let entries = parse(bytes).entries;
                assert!(entries.len() < expected.len() && expected.starts_with(&entries), "at {at}");
            }
        }
    }

    /// What is committed is written over, what is not is kept, in two segments that are read as one.
    #[test]
    fn segments_take_turns_as_commits_allow() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("wal");
        let mut wal = begin(&base);
        let line = vec![b'x'; LARGE as usize / 2];
        let append = |wal: &mut Wal| {
            wal.append(FILE, 0, &HashMap::new(), &line).unwrap();
            wal.sequence()
        };
        let sequences: Vec<u64> = (0..6).map(|_| append(&mut wal)).collect();
        assert_eq!(writes(&read(&base, &base)).len(), 6, "the other segment takes over after the second");
        assert_eq!(wal.current, 1);
        while !wal.is_full() {
            append(&mut wal);
        }
        let all = writes(&read(&base, &base)).len();
        wal.commit(sequences[3]).unwrap();
        assert!(!wal.is_full());
        append(&mut wal);
        let left = writes(&read(&base, &base)).len();
        assert_eq!((wal.current, left), (0, all - 2 + 1), "the two of the first segment made room for the last");
        wal.commit(wal.sequence()).unwrap();
        assert_eq!(writes(&read(&base, &base)), [b""; 0], "nothing is left to be written");
        let size: u64 = (0..2).map(|number| std::fs::metadata(segment_path(&base, number)).unwrap().len()).sum();
        assert!(size < 1000, "{size} bytes are left");
    }

    /// Of an older run, or of one whose state came from a backup.
    #[test]
    fn a_new_run_begins_behind_all_before() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("wal");
        let first = begin(&base).sequence();
        assert!(begin(&base).sequence() > first);
        let later = Wal::start(&base, &base, first + 1_000_000_000_000, HashMap::new(), (FILE, 0)).unwrap();
        assert!(later.sequence() > first + 1_000_000_000_000);
    }
}

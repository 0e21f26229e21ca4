//! The write-ahead log of `-o FILE --resume`: each write to FILE, with the positions of the containers after it.
//!
//! A [`WalEntry`] with the bytes is written here before the bytes are written to FILE. Whenever a run is killed, the
//! next one sees which bytes reached FILE, writes those that did not, and knows the positions after them. Used by
//! [`super::checkpoint`] while a run writes, and by [`super::recovery`] at the start of a run. Nothing here is synced:
//! the kernel keeps what a killed process wrote. After a power failure an entry may be missing or damaged, which its
//! checksum and its sequence number show.
//!
//! The log consists of two segments next to the state file. Each begins with a snapshot of all positions. Once the
//! current segment is large, the other one is overwritten, provided that everything in it is committed to the state.

use crate::model::bounded_read;
use crate::model::file_id::{FileId, Likeness};
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

/// Length in bytes after which the other segment becomes the current one.
const SWITCH_LENGTH: u64 = 4 << 20;
/// Length in bytes after which writing waits for a commit. It bounds the memory of the next run, which reads all of it.
const MAX_LENGTH: u64 = 16 << 20;
/// Upper bound in bytes of a segment, with one entry beyond [`MAX_LENGTH`].
const MAX_READ: u64 = 64 << 20;

/// Begins each entry, and denotes the version of the format.
const MAGIC: [u8; 4] = *b"LWw1";
/// Size in bytes of the frame before an entry: magic, length of the header, length of the bytes, and a checksum over
/// both lengths, the header and the bytes. Each has 4 bytes; numbers are little-endian.
const FRAME: usize = 16;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WalEntry {
    /// Larger than in all entries before, including those of earlier runs; consecutive within a run.
    pub(crate) sequence: u64,
    pub(crate) kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum EntryKind {
    /// First entry of a segment: all positions, FILE and its length when the segment was begun, and
    /// the value of [`mount`].
    Snapshot { positions: Vec<(String, Saved)>, file: FileRef, length: u64, mount: String },
    /// These bytes are about to be appended to a file, which then had `offset` bytes.
    Write {
        file: FileRef,
        offset: u64,
        changes: Vec<(String, PositionChange)>,
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// The write of the previous entry failed after `written` bytes.
    Failed { written: u64 },
}

/// Identifies an output file, whatever its name is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRef {
    /// Device number. It changes when the file system is mounted from another device, so it decides
    /// only if `id` cannot.
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

/// What a delivered item changes about a container's committed position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly all values are of the large variant")]
pub(crate) enum PositionChange {
    /// Lines were delivered up to this position.
    Saved(Saved),
    /// The container stopped and was read to the end. Its position is unchanged.
    Ended,
    /// The container was removed.
    Removed,
}

/// Applies a change of one container to the positions of all, which are keyed by container ID.
pub(crate) fn apply(positions: &mut HashMap<String, Saved>, id: &str, change: &PositionChange) {
    match change {
        PositionChange::Saved(saved) => drop(positions.insert(id.to_owned(), saved.clone())),
        PositionChange::Ended => {
            if let Some(saved) = positions.get_mut(id) {
                saved.ended = true;
            }
        }
        PositionChange::Removed => drop(positions.remove(id)),
    }
}

/// Content of both segments at the start of a run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WalContents {
    /// With consecutive sequence numbers; the first is a snapshot.
    pub(crate) entries: Vec<WalEntry>,
    /// Value of [`mount`] now.
    pub(crate) mount: String,
}

impl WalContents {
    /// Returns the last sequence number.
    pub(crate) fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.sequence)
    }

    /// Returns whether the entries contain every write to FILE: no power failure since can have lost any.
    pub(crate) fn is_complete(&self) -> bool {
        let mount = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Snapshot { mount, .. } => Some(mount),
            _ => None,
        });
        mount.is_some_and(|mount| *mount == self.mount)
    }
}

/// Returns the path of the segments without their number. Each combination of engine, resume name and FILE has its own.
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

/// Reads both segments. A segment that is missing, or not a file of ours, counts as empty.
pub(crate) fn read(state: &Path, base: &Path) -> WalContents {
    let mut current_mount = String::new();
    let [one, other] = [0, 1].map(|number| {
        let mut bytes = Vec::new();
        if let Ok(file) = open_companion(state, &segment_path(base, number), OFlags::RDONLY) {
            current_mount = mount(&file);
            // After a read error the entries before it remain valid: each has a checksum.
            let _ = file.take(MAX_READ).read_to_end(&mut bytes);
        }
        parse(&bytes)
    });
    WalContents { mount: current_mount, ..join(one, other) }
}

/// Identifies this boot of the machine and the device of a file. While both stay the same, the kernel has lost nothing
/// that a process wrote.
fn mount(file: &File) -> String {
    let boot = bounded_read::read_small(Path::new("/proc/sys/kernel/random/boot_id"), 64).unwrap_or_default();
    let device = file.metadata().map_or(0, |metadata| metadata.dev());
    format!("{}/{device}", String::from_utf8_lossy(&boot).trim())
}

/// Returns the entries of a segment up to the first that is damaged or out of sequence.
fn parse(mut bytes: &[u8]) -> WalContents {
    let mut found = WalContents::default();
    while let Some((entry, rest)) = decode(bytes) {
        let is_next = match found.entries.last() {
            Some(last) => entry.sequence == last.sequence + 1,
            None => matches!(entry.kind, EntryKind::Snapshot { .. }),
        };
        if !is_next {
            break;
        }
        found.entries.push(entry);
        bytes = rest;
    }
    found
}

/// Joins two segments. If the newer one does not continue the older one, only the newer one counts.
fn join(one: WalContents, other: WalContents) -> WalContents {
    let (mut older, newer) = if one.last() <= other.last() { (one, other) } else { (other, one) };
    let is_continued = older.last().zip(newer.entries.first()).is_some_and(|(last, next)| last + 1 == next.sequence);
    if !is_continued {
        return newer;
    }
    older.entries.extend(newer.entries);
    older
}

/// Decodes the first entry; returns it and the rest.
fn decode(bytes: &[u8]) -> Option<(WalEntry, &[u8])> {
    let (frame, rest) = bytes.split_at_checked(FRAME)?;
    let number = |at: usize| frame[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let (header_length, bytes_length, checksum) = (number(4)? as usize, number(8)? as usize, number(12)?);
    let (body, rest) = rest.split_at_checked(header_length.checked_add(bytes_length)?)?;
    if frame[..4] != MAGIC || checksum != sum(&frame[4..12], body) {
        return None;
    }
    let mut entry: WalEntry = serde_json::from_slice(&body[..header_length]).ok()?;
    if let EntryKind::Write { bytes, .. } = &mut entry.kind {
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

/// Appends the encoding of an entry to `out`. The bytes of a write are passed separately, to avoid a copy.
fn encode(entry: &WalEntry, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
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

/// The log of the current run.
#[derive(Debug)]
pub(crate) struct Wal {
    segments: [Segment; 2],
    /// Index of the current segment, 0 or 1.
    current: usize,
    /// Sequence number of the last entry.
    sequence: u64,
    /// All entries up to this sequence number are committed to the state.
    committed: u64,
    /// By container ID, the positions after the last entry.
    positions: HashMap<String, Saved>,
    /// The output file and its length after the last entry.
    written: (FileRef, u64),
    /// Scratch space for encoding; empty between calls or left over from the last one.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    /// Length of its entries in bytes.
    length: u64,
    /// Sequence number of its last entry; 0 if it is empty.
    last: u64,
}

impl Wal {
    /// Begins a new log after `sequence`, up to which all is committed.
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
        // By time, so that it is larger than in all earlier runs even if the state was restored from a backup.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
        let sequence = sequence.max(u64::try_from(now).unwrap_or(0));
        let mut wal = Wal { segments, current: 0, sequence, committed: sequence, positions, written, buffer };
        wal.begin(0, sequence + 1)?;
        wal.segments[1].file.set_len(0)?;
        Ok(wal)
    }

    /// Returns the sequence number of the last entry.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes a segment the current one and overwrites it with a snapshot.
    fn begin(&mut self, number: usize, sequence: u64) -> io::Result<()> {
        let positions = self.positions.iter().map(|(id, saved)| (id.clone(), saved.clone())).collect();
        let ((file, length), mount) = (self.written, mount(&self.segments[number].file));
        let kind = EntryKind::Snapshot { positions, file, length, mount };
        let entry = WalEntry { sequence, kind };
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

    /// Logs that these bytes are about to be appended to a file of length `offset`, and the positions after them.
    pub(crate) fn append(
        &mut self,
        file: FileRef,
        offset: u64,
        changes: &HashMap<String, PositionChange>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let list = changes.iter().map(|(id, change)| (id.clone(), change.clone())).collect();
        self.log(EntryKind::Write { file, offset, changes: list, bytes: Vec::new() }, bytes)?;
        for (id, change) in changes {
            apply(&mut self.positions, id, change);
        }
        self.written = (file, offset + bytes.len() as u64);
        Ok(())
    }

    /// Logs that the write of the previous entry failed after `written` bytes.
    pub(crate) fn fail(&mut self, written: u64) -> io::Result<()> {
        self.log(EntryKind::Failed { written }, &[])
    }

    fn log(&mut self, kind: EntryKind, bytes: &[u8]) -> io::Result<()> {
        let other = 1 - self.current;
        if self.segments[self.current].length > SWITCH_LENGTH && self.segments[other].last <= self.committed {
            self.begin(other, self.sequence + 1)?;
        }
        let entry = WalEntry { sequence: self.sequence + 1, kind };
        self.buffer.clear();
        encode(&entry, bytes, &mut self.buffer)?;
        let segment = &mut self.segments[self.current];
        segment.file.write_all(&self.buffer)?;
        segment.length += self.buffer.len() as u64;
        (segment.last, self.sequence) = (entry.sequence, entry.sequence);
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// Returns whether no entry fits before the next commit.
    pub(crate) fn is_full(&self) -> bool {
        let other_is_in_use = self.segments[1 - self.current].last > self.committed;
        other_is_in_use && self.segments[self.current].length > MAX_LENGTH
    }

    /// Notes that all entries up to `sequence` are committed to the state.
    pub(crate) fn commit(&mut self, sequence: u64) -> io::Result<()> {
        self.committed = self.committed.max(sequence);
        // Long segments remain after a flood, and nobody needs them any more.
        if self.committed == self.sequence && self.segments.iter().any(|segment| segment.length > SWITCH_LENGTH) {
            self.clear()?;
        }
        Ok(())
    }

    /// Replaces all entries by one snapshot. Call it once all is committed: logged lines should not stay on disk.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        // With the committed sequence number, so that the log is not newer than the state.
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

    /// Returns the bytes of each write.
    fn writes(found: &WalContents) -> Vec<Vec<u8>> {
        let writes = found.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::Write { bytes, .. } => Some(bytes.clone()),
            _ => None,
        });
        writes.collect()
    }

    #[test]
    fn reads_entries_in_the_order_of_appending() {
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
        assert!(matches!(found.entries.last().unwrap().kind, EntryKind::Failed { written: 2 }));
    }

    /// A power failure may leave any bytes. An entry is read as it was written, or not at all.
    #[test]
    fn reads_only_entries_before_damage() {
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

    #[test]
    fn overwrites_a_segment_only_once_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("wal");
        let mut wal = begin(&base);
        let line = vec![b'x'; SWITCH_LENGTH as usize / 2];
        let append = |wal: &mut Wal| {
            wal.append(FILE, 0, &HashMap::new(), &line).unwrap();
            wal.sequence()
        };
        let sequences: Vec<u64> = (0..6).map(|_| append(&mut wal)).collect();
        assert_eq!(writes(&read(&base, &base)).len(), 6, "the other segment is current after the second write");
        assert_eq!(wal.current, 1);
        while !wal.is_full() {
            append(&mut wal);
        }
        let all = writes(&read(&base, &base)).len();
        wal.commit(sequences[3]).unwrap();
        assert!(!wal.is_full());
        append(&mut wal);
        let left = writes(&read(&base, &base)).len();
        assert_eq!((wal.current, left), (0, all - 2 + 1), "the last write replaced the two of the first segment");
        wal.commit(wal.sequence()).unwrap();
        assert_eq!(writes(&read(&base, &base)), [b""; 0], "no write is left");
        let size: u64 = (0..2).map(|number| std::fs::metadata(segment_path(&base, number)).unwrap().len()).sum();
        assert!(size < 1000, "{size} bytes are left");
    }

    #[test]
    fn a_new_log_has_larger_sequence_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("wal");
        let first = begin(&base).sequence();
        assert!(begin(&base).sequence() > first);
        let later = Wal::start(&base, &base, first + 1_000_000_000_000, HashMap::new(), (FILE, 0)).unwrap();
        assert!(later.sequence() > first + 1_000_000_000_000);
    }
}

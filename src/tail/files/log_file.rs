//! One open log file: its bytes from an offset on, its identity, and whether it was truncated.
//!
//! In: a path, made of the daemon's data root and a container's ID. Out: the bytes of the log, decompressed if
//! necessary. Used by [`super::container_log`], [`super::rotation`] and [`super::seek`]. A [`Handle`] continues to read
//! the same file after a rename or an unlink.
//!
//! The paths come from the daemon, which may be hostile, while this process may be root. So only a regular file is
//! opened, not through a symbolic link in the last component, and only if its first byte can start a record.

use super::pread::{fill_at, some_at};
use crate::model::file_id::{FileId, Likeness};
use crate::model::position::FileSignature;
use crate::model::time::Timestamp;
use crate::tail::decode::format::Format;
use crate::tail::decode::local::WORD;
use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Number of bytes before the offset that each read checks again. They contain the end of a record with its time in
/// nanoseconds. If they differ, the file was truncated and written again.
pub(crate) const GUARD: usize = 32;
/// The first record is searched in this many bytes at the start of a file ...
const NEAR: usize = 4 * 1024;
/// ... and if it is longer, in this many.
const FAR: usize = 256 * 1024;
/// Highest number of a rotated file that is looked for; more than anybody keeps.
const MAX_NUMBER: u32 = 10_000;
/// Seconds after which an unchanged inode counts as settled: more than a clock tick of any file system.
const SETTLED_AFTER: i64 = 3;
/// How often the search for rotated files is repeated while dockerd rotates.
pub(crate) const MAX_WALKS: u32 = 3;
/// The search for rotated files ends after this many missing numbers in a row.
const MAX_MISSING: u32 = 3;

/// Identifies a file whatever its name, while it is open. For closed files, whose inode number may be reused, there is
/// [`FileId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// An open log file, and how far it was read.
#[derive(Debug)]
pub(crate) struct Handle {
    content: Content,
    pub(crate) format: Format,
    pub(crate) identity: Identity,
    /// Recognises the file after it was closed. A compressed copy has another ID.
    pub(crate) id: FileId,
    /// Only this machine writes to its file system. See [`is_local`].
    pub(crate) is_local: bool,
    /// `ctime` of the inode (seconds, nanoseconds) at a check that found the file under its live name. `None` if the
    /// inode had changed too recently to rely on that.
    pub(crate) settled: Option<(i64, i64)>,
    /// Modification time when it was opened.
    pub(crate) written: SystemTime,
    /// Set if something between the previous file and this one is lost. Holds the number of lost bytes, if known.
    pub(crate) follows_gap: Option<Option<u64>>,
    /// Number of bytes read so far. If compressed, in decompressed bytes, like all offsets here.
    pub(crate) offset: u64,
    /// Reading stops at this offset.
    pub(crate) end: Option<u64>,
    /// Lines that end before this offset are read but not shown.
    pub(crate) shown_from: u64,
    /// Reading resumes at this offset. A compressed file must be read up to here first.
    pub(crate) resume_offset: u64,
    /// Size of the file when the next one took its name, or 0 before that.
    pub(crate) pinned: u64,
    /// The last `guard_len` bytes before `offset`.
    guard: [u8; GUARD],
    guard_len: usize,
    /// The first `head_len` bytes of the file. Only used for `local`, whose records have their time at the start and
    /// may have equal ends.
    head: [u8; GUARD],
    head_len: usize,
    /// Computed when first asked for, once there is a record.
    fingerprint: Cell<Option<u64>>,
    begins_with_nul: bool,
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Compressed(Arc<File>, Box<MultiGzDecoder<ReadAt>>),
}

/// Reads a file from its beginning with an offset of its own.
#[derive(Debug)]
struct ReadAt {
    file: Arc<File>,
    offset: u64,
}

impl Read for ReadAt {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = some_at(&self.file, into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn decompressor(file: &Arc<File>) -> MultiGzDecoder<ReadAt> {
    MultiGzDecoder::new(ReadAt { file: Arc::clone(file), offset: 0 })
}

/// The outcome of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// Number of bytes read. 0 at the current end of the file.
    Bytes(usize),
    /// The bytes before the offset have changed: the file was truncated and written again.
    Rewritten,
}

impl Handle {
    /// Opens a file, set to its beginning.
    pub(crate) fn open(path: &Path, format: Format) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| rustix::fs::open(path, flags, Mode::empty());
        // A growing file is always newer than its last access, so each read would update the inode.
        let opened = match open(flags | OFlags::NOATIME) {
            // `O_NOATIME` requires the file's owner or root.
            Err(Errno::PERM) => open(flags),
            opened => opened,
        };
        let file = File::from(opened?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let id = FileId::with(&file, &metadata);
        let is_local = rustix::fs::fstatfs(&file).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(is_local));
        let mut begins_with_nul = false;
        let content = if path.extension() == Some(OsStr::new("gz")) {
            let file = Arc::new(file);
            let decoder = Box::new(decompressor(&file));
            Content::Compressed(file, decoder)
        } else {
            let mut first = [0];
            // If somebody truncates a file that dockerd writes at an offset, the file starts with a hole of NULs.
            let has_first = some_at(&file, &mut first, 0)? == 1;
            begins_with_nul = has_first && first == [0];
            if has_first && !format.begins_with(first[0]) && !begins_with_nul {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a Docker log file"));
            }
            Content::Plain(file)
        };
        Ok(Handle {
            content,
            format,
            identity: Identity::of(&metadata),
            id,
            is_local,
            settled: None,
            written: metadata.modified()?,
            follows_gap: None,
            offset: 0,
            end: None,
            shown_from: 0,
            resume_offset: 0,
            pinned: 0,
            guard: [0; GUARD],
            guard_len: 0,
            head: [0; GUARD],
            head_len: 0,
            fingerprint: Cell::new(None),
            begins_with_nul,
        })
    }

    /// Returns the file if it is not compressed, so that any offset can be read.
    pub(crate) fn plain(&self) -> Option<&File> {
        match &self.content {
            Content::Plain(file) => Some(file),
            Content::Compressed(..) => None,
        }
    }

    /// Returns the current size of the file, if it is not compressed.
    pub(crate) fn size(&self) -> io::Result<Option<u64>> {
        self.plain().map(|file| file.metadata().map(|metadata| metadata.len())).transpose()
    }

    /// Returns whether there is more to read although the last read did not fill its buffer. Only asks on file systems
    /// whose reads may be short.
    pub(crate) fn has_more(&self) -> io::Result<bool> {
        #[cfg(test)]
        let is_local = self.is_local && !super::pread::short::is_on();
        #[cfg(not(test))]
        let is_local = self.is_local;
        if is_local {
            return Ok(false);
        }
        let end = self.end.unwrap_or(u64::MAX);
        Ok(self.size()?.is_some_and(|size| size.min(end) > self.offset))
    }

    /// Returns the current modification time. A compressed file keeps the one from when it was opened.
    pub(crate) fn last_written(&self) -> io::Result<SystemTime> {
        self.plain().map_or(Ok(self.written), |file| file.metadata()?.modified())
    }

    /// Returns the time of the last record of a compressed file. dockerd writes it into the gzip header: bare JSON in
    /// the extra field, where other programs put subfields (moby `daemon/logger/loggerutils/logfile.go`,
    /// `rotateFileMetadata`).
    pub(crate) fn last_time(&self) -> Option<Timestamp> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Extra {
            last_time: String,
        }
        let Content::Compressed(_, decoder) = &self.content else { return None };
        let extra: Extra = serde_json::from_slice(decoder.header()?.extra()?).ok()?;
        Timestamp::parse(extra.last_time.as_bytes())
    }

    /// Returns the hash of the first record, which contains a time in nanoseconds. It is the same for a file, its
    /// copies, and the compressed file that dockerd makes of it. `None` while the file has no record.
    pub(crate) fn fingerprint(&self) -> Option<u64> {
        if self.fingerprint.get().is_none() {
            let found = [NEAR, FAR].into_iter().find_map(|size| self.first_record(size));
            self.fingerprint.set(found);
        }
        self.fingerprint.get()
    }

    /// Discards the fingerprint, because the first record may have changed.
    pub(crate) fn forget_fingerprint(&self) {
        self.fingerprint.set(None);
    }

    fn first_record(&self, size: usize) -> Option<u64> {
        let mut bytes = vec![0; size];
        let read = match &self.content {
            Content::Plain(file) => {
                let read = fill_at(file, &mut bytes, 0).ok()?;
                match bytes[..read].starts_with(&[0; WORD]) {
                    true => fill_at(file, &mut bytes, rustix::fs::seek(file, SeekFrom::Data(0)).ok()?).ok()?,
                    false => read,
                }
            }
            Content::Compressed(file, _) => self.read_after_hole(&mut decompressor(file), &mut bytes).ok()?,
        };
        let bytes = &bytes[..read];
        let bytes = &bytes[self.format.nuls(bytes)..];
        digest(&bytes[..self.format.first_end(bytes)?])
    }

    /// Reads from the first byte after a hole. A file that was truncated while being written is compressed with the
    /// hole.
    fn read_after_hole(&self, file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
        let mut read = read_full(file, into)?;
        while read == into.len() && into.iter().all(|byte| *byte == 0) {
            read = read_full(file, into)?;
        }
        let hole = self.format.nuls(&into[..read]);
        into.copy_within(hole..read, 0);
        Ok(read - hole + read_full(file, &mut into[read - hole..])?)
    }

    /// Returns whether it is a compressed file without content.
    pub(crate) fn is_empty_archive(&self) -> bool {
        let Content::Compressed(file, _) = &self.content else { return false };
        read_full(&mut decompressor(file), &mut [0]).is_ok_and(|read| read == 0)
    }

    /// Returns whether both are the same file, or one is a copy of the other, compressed or not.
    pub(crate) fn is_same(&self, other: &Handle) -> bool {
        let records = || self.fingerprint().zip(other.fingerprint());
        self.identity == other.identity
            || self.id.likeness(&other.id) == Likeness::Same
            || records().is_some_and(|(this, other)| this == other)
    }

    /// Returns what a position saves to find the file again.
    pub(crate) fn signature(&self) -> FileSignature {
        FileSignature { id: self.id, fingerprint: self.fingerprint(), device: self.identity.device }
    }

    /// Returns whether a position names this file. The first record decides if there is one: inode numbers are reused,
    /// but a record is unique, and it survives when dockerd compresses the file or somebody copies it.
    pub(crate) fn has_signature(&self, known: &FileSignature) -> bool {
        match known.fingerprint {
            Some(known) => self.fingerprint() == Some(known) || birth_hash(&self.id) == Some(known),
            // Without a record, a wrong match loses hardly anything.
            None => known.id.likeness(&self.id) != Likeness::Other,
        }
    }

    /// Returns whether nothing has happened to the file since [`Handle::settle`]. Needs a single `fstat` and no path
    /// lookup, because renaming a file changes its `ctime` too.
    pub(crate) fn is_settled(&self) -> bool {
        let (Some(settled), Some(file)) = (self.settled, self.plain()) else { return false };
        file.metadata()
            .is_ok_and(|now| now.len() == self.offset && now.nlink() > 0 && (now.ctime(), now.ctime_nsec()) == settled)
    }

    /// Remembers the state of the inode for [`Handle::is_settled`]. `metadata` must have been read before the check
    /// that found the file under its live name. `now` is the time of that.
    pub(crate) fn settle(&mut self, metadata: &Metadata, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        // A change within the same clock tick would leave the same time.
        let is_old = i64::try_from(now).is_ok_and(|now| now - metadata.ctime() >= SETTLED_AFTER);
        self.settled = is_old.then(|| (metadata.ctime(), metadata.ctime_nsec()));
    }

    /// Moves to an offset. Returns whether the file reaches that far, as far as is known: a compressed file has to be
    /// read up to there first, with [`Handle::skip`].
    pub(crate) fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        let Some(size) = self.size()? else {
            self.resume_offset = offset;
            return Ok(true);
        };
        self.offset = offset.min(size);
        Ok(size >= offset)
    }

    /// Returns whether [`Handle::skip`] has to be called before reading.
    pub(crate) fn must_skip(&self) -> bool {
        self.offset < self.resume_offset
    }

    /// Reads and drops bytes up to the resume offset, at most one buffer. Returns `false` if the file ends before that
    /// offset; then reading resumes at its end.
    pub(crate) fn skip(&mut self, into: &mut [u8]) -> io::Result<bool> {
        let left = usize::try_from(self.resume_offset - self.offset).unwrap_or(usize::MAX).min(into.len());
        let has_more = self.read(&mut into[..left], 0)? != ReadOutcome::Bytes(0);
        if !has_more {
            self.resume_offset = self.offset;
        }
        Ok(has_more)
    }

    /// Remembers the bytes before the offset, for later reads to check.
    pub(crate) fn guard(&mut self) -> io::Result<()> {
        let Content::Plain(file) = &self.content else { return Ok(()) };
        // If the file is shorter by now, these bytes make the next read find a difference.
        self.guard = [0xff; GUARD];
        self.guard_len = usize::try_from(self.offset).unwrap_or(usize::MAX).min(GUARD);
        fill_at(file, &mut self.guard[..self.guard_len], self.offset - self.guard_len as u64)?;
        Ok(())
    }

    /// Starts from the beginning again: all of the content is new.
    pub(crate) fn start_over(&mut self) -> io::Result<()> {
        (self.offset, self.shown_from, self.head_len) = (0, 0, 0);
        self.fingerprint.set(None);
        self.skip_hole()?;
        self.guard()
    }

    /// Moves past a hole at the offset. A program that writes at its old offset into a truncated file leaves a hole
    /// before it. Does not move if there is no hole, or if the file system does not report holes.
    pub(crate) fn skip_hole(&mut self) -> io::Result<()> {
        let Content::Plain(file) = &self.content else { return Ok(()) };
        if let Ok(offset) = rustix::fs::seek(file, SeekFrom::Data(self.offset)) {
            self.offset = offset;
        }
        self.guard()
    }

    /// Returns whether the file was truncated while its writer continued at its old offset.
    pub(crate) fn starts_with_hole(&self) -> bool {
        let data = || self.plain().and_then(|file| rustix::fs::seek(file, SeekFrom::Data(0)).ok());
        self.begins_with_nul && data().is_some_and(|offset| offset > 0)
    }

    /// Reads the next bytes into `into[held..]`. Overwrites up to [`GUARD`] bytes before `held`, and checks them if
    /// there is space for them.
    pub(crate) fn read(&mut self, into: &mut [u8], held: usize) -> io::Result<ReadOutcome> {
        let left =
            self.end.map_or(usize::MAX, |end| usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX));
        let space = (into.len() - held).min(left);
        let read = match &mut self.content {
            Content::Plain(_) => match self.read_guarded(&mut into[..held + space], held)? {
                ReadOutcome::Bytes(read) => read,
                ReadOutcome::Rewritten => return Ok(ReadOutcome::Rewritten),
            },
            Content::Compressed(_, decoder) => uninterrupted(|| decoder.read(&mut into[held..held + space]))?,
        };
        self.offset += read as u64;
        Ok(ReadOutcome::Bytes(read))
    }

    /// Returns whether the first bytes of the file have changed since the last call.
    fn has_new_head(&mut self) -> io::Result<bool> {
        let (Content::Plain(file), Format::Local) = (&self.content, self.format) else { return Ok(false) };
        let mut head = [0; GUARD];
        let read = fill_at(file, &mut head, 0)?;
        let is_new = read < self.head_len || head[..self.head_len] != self.head[..self.head_len];
        (self.head, self.head_len) = (head, read);
        Ok(is_new)
    }

    fn read_guarded(&mut self, into: &mut [u8], held: usize) -> io::Result<ReadOutcome> {
        if self.has_new_head()? {
            return Ok(ReadOutcome::Rewritten);
        }
        let Content::Plain(file) = &self.content else { return Ok(ReadOutcome::Bytes(0)) };
        let guard_len = self.guard_len.min(held);
        let expected = &self.guard[self.guard_len - guard_len..self.guard_len];
        let from = held - guard_len;
        let mut read = some_at(file, &mut into[from..], self.offset - guard_len as u64)?;
        if read < guard_len {
            read += fill_at(file, &mut into[from + read..held], self.offset - (guard_len - read) as u64)?;
        }
        // The file ends before the offset or has other bytes there.
        if read < guard_len || into[from..held] != expected[..] {
            return Ok(ReadOutcome::Rewritten);
        }
        if read == guard_len && into.len() > held && file.metadata()?.len() > self.offset {
            read += some_at(file, &mut into[held..], self.offset)?;
        }
        let fresh = read - guard_len;
        let filled = held + fresh;
        let kept = (guard_len + fresh).min(GUARD);
        if fresh > 0 {
            self.guard[..kept].copy_from_slice(&into[filled - kept..filled]);
            self.guard_len = kept;
        }
        Ok(ReadOutcome::Bytes(fresh))
    }
}

/// Returns a single number for a file: the hash of its first record, or else of its birth time.
pub(crate) fn hash(file: &FileSignature) -> Option<u64> {
    file.fingerprint.or_else(|| birth_hash(&file.id))
}

/// Hash of a file's birth time and inode number; the latter because several files may be created within a clock tick.
/// `None` if the birth time is unknown. Positions saved by older versions contain it for files without a record, so it
/// must not change.
pub(crate) fn birth_hash(id: &FileId) -> Option<u64> {
    let born = u128::try_from(id.born?.0).ok()?;
    let [time, number] = [born, id.inode.into()].map(u128::to_be_bytes);
    digest(&[time, number].concat())
}

/// Returns whether only this machine changes files on this type of file system. Then inotify reports every change, and
/// reads are short only at the end of a file. Neither holds on network file systems and FUSE. Unknown types are treated
/// like those.
fn is_local(kind: u64) -> bool {
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    const F2FS: u64 = 0xf2f5_2010;
    const ZFS: u64 = 0x2fc1_2fc1;
    const BCACHEFS: u64 = 0xca45_1a4e;
    [EXT, XFS, BTRFS, TMPFS, OVERLAY, F2FS, ZFS, BCACHEFS].contains(&kind)
}

fn digest(bytes: &[u8]) -> Option<u64> {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Fills the buffer, or reads up to the end.
fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match uninterrupted(|| from.read(&mut into[filled..]))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Iterates over the rotated files of a log, newest first.
pub(crate) struct Rotated<'a> {
    live: &'a Path,
    format: Format,
    /// Number of the file that was returned last. 0 is the live file.
    pub(crate) number: u32,
}

impl<'a> Rotated<'a> {
    pub(crate) fn new(live: &'a Path, format: Format) -> Self {
        Rotated { live, format, number: 0 }
    }

    /// Opens the next file that is not among `known`. A rotation may shift the numbers meanwhile, so that a known file
    /// has the next number. Up to two numbers in a row may be missing: between two steps of a rotation, or when
    /// somebody removed a file.
    pub(crate) fn next(&mut self, known: &[Handle]) -> io::Result<Option<Handle>> {
        let mut missing = 0;
        while missing < MAX_MISSING && self.number < MAX_NUMBER {
            self.number += 1;
            match self.open() {
                Ok(handle) if known.iter().any(|other| other.is_same(&handle)) => missing = 0,
                Ok(handle) => return Ok(Some(handle)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Opens the file with the current number again.
    pub(crate) fn open(&self) -> io::Result<Handle> {
        Handle::open(&numbered(self.live, self.number).ok_or(io::ErrorKind::NotFound)?, self.format)
    }
}

/// Returns which file a path leads to now.
pub(crate) fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::symlink_metadata(path).map(|metadata| Identity::of(&metadata))
}

/// Returns the path of the rotated file `live.N`, plain or compressed. Prefers the plain file while both exist.
pub(crate) fn numbered(live: &Path, number: u32) -> Option<PathBuf> {
    let with = |suffix: &str| {
        let mut name = live.as_os_str().to_owned();
        name.push(format!(".{number}{suffix}"));
        PathBuf::from(name)
    };
    [with(""), with(".gz")].into_iter().find(|path| path.symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::files::pread::short::{self, Cut};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::fs::FileTimes;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::time::{Duration, UNIX_EPOCH};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn open(path: &Path) -> Handle {
        Handle::open(path, Format::JsonFile).unwrap()
    }

    /// Reads like [`super::super::container_log`]. `None` if the file was rewritten.
    fn read(handle: &mut Handle) -> io::Result<Option<Vec<u8>>> {
        let mut into = vec![0; GUARD + 64];
        Ok(match handle.read(&mut into, GUARD)? {
            ReadOutcome::Bytes(read) => Some(into[GUARD..GUARD + read].to_vec()),
            ReadOutcome::Rewritten => None,
        })
    }

    #[test]
    fn reading_does_not_change_the_access_time() {
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "{}\n").unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(1);
        File::options().append(true).open(&path).unwrap().set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
        assert_eq!(read(&mut open(&path)).unwrap().unwrap(), b"{}\n");
        assert_eq!(std::fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
    }

    #[test]
    fn a_rewritten_file_is_noticed() {
        let old = "{\"log\":\"the first record\",\"time\":1}\n{\"log\":\"the second\",\"time\":2}\n";
        assert!(old.len() > 2 * GUARD);
        let new = old.replace("first", "other").replace("\"time\":2", "\"time\":3");
        let (longer, shorter) = (format!("{new}{{\"log\":\"a third\"}}\n"), &new[..GUARD]);
        let hole = format!("{}{{\"log\":\"after the hole\"}}\n", "\0".repeat(old.len()));
        let appended = format!("{old}{{}}\n");
        for (what, then, expected) in [
            ("nothing", old, Some("")),
            ("appended", &*appended, Some("{}\n")),
            ("as long", &*new, None),
            ("longer", &*longer, None),
            ("shorter", shorter, None),
            ("empty", "", None),
            ("after a hole", &*hole, None),
        ] {
            let folder = folder();
            let path = folder.path().join("log");
            std::fs::write(&path, old).unwrap();
            let mut handle = open(&path);
            assert_eq!(read_all(&mut handle).as_deref(), Some(old.as_bytes()));
            std::fs::write(&path, then).unwrap();
            assert_eq!(read_all(&mut handle).as_deref(), expected.map(str::as_bytes), "{what}");
            if expected.is_none() {
                handle.start_over().unwrap();
                assert_eq!(read_all(&mut handle).as_deref(), Some(then.as_bytes()), "{what}, from the start");
            }
        }
    }

    /// Reads up to the end. `None` if the file was rewritten.
    fn read_all(handle: &mut Handle) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            match read(handle).unwrap()? {
                bytes if bytes.is_empty() => return Some(all),
                bytes => all.extend(bytes),
            }
        }
    }

    /// Reads may be short at any boundary: between guard and new bytes, within either, or empty. Still, only changed
    /// bytes and a smaller size count as a truncation, and only the size decides where the file ends.
    #[test]
    fn a_short_read_is_neither_a_truncation_nor_an_end() {
        // The other test checks what each change does. Here it runs under all kinds of cuts.
        for most in 1..=2 * GUARD {
            for cuts in [
                vec![Cut::To(most)],
                vec![Cut::To(0), Cut::To(most)],
                vec![Cut::Interrupted, Cut::To(most), Cut::To(0)],
                vec![Cut::Whole, Cut::To(most)],
            ] {
                short::during(short::cycle(cuts), a_rewritten_file_is_noticed);
            }
        }
    }

    /// Pins which file systems count as reporting every change and shortening reads only at the end of a file.
    #[test]
    fn only_local_file_systems_count_as_local() {
        let (ext, xfs, btrfs, tmpfs, overlay) = (0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630);
        let (nfs, fuse, cifs, smb2, v9fs, ceph) =
            (0x6969, 0x6573_5546, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400);
        for kind in [ext, xfs, btrfs, tmpfs, overlay] {
            assert!(is_local(kind), "{kind:x}");
        }
        for kind in [nfs, fuse, cifs, smb2, v9fs, ceph, 0] {
            assert!(!is_local(kind), "{kind:x}");
        }
    }

    /// A check without a path lookup finds every change that can make another file the live one.
    #[test]
    fn a_settled_file_is_unsettled_by_writes_renames_and_removal() {
        let later = SystemTime::now() + Duration::from_secs(60);
        let changes: [fn(&Path); 5] = [
            |path| File::options().append(true).open(path).unwrap().write_all(b"{}\n").unwrap(),
            |path| std::fs::rename(path, path.with_extension("1")).unwrap(),
            |path| std::fs::remove_file(path).unwrap(),
            |path| File::options().write(true).open(path).unwrap().set_len(1).unwrap(),
            |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(b"x", 1).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let folder = folder();
            let path = folder.path().join("log");
            std::fs::write(&path, "{}\n").unwrap();
            let mut handle = open(&path);
            let metadata = handle.plain().unwrap().metadata().unwrap();
            handle.settle(&metadata, later);
            assert!(!handle.is_settled(), "it was not read");
            assert_eq!(read_all(&mut handle).unwrap(), b"{}\n");
            assert!(handle.is_settled());
            handle.settle(&metadata, metadata.modified().unwrap());
            assert!(!handle.is_settled(), "it has just been written");
            // Wait until the clock tick of the file system has passed.
            let tick = metadata.modified().unwrap() + Duration::from_millis(20);
            while SystemTime::now() < tick {
                std::thread::yield_now();
            }
            handle.settle(&metadata, later);
            change(&path);
            assert!(!handle.is_settled(), "change {number}");
        }
    }

    #[test]
    fn a_handle_moved_to_an_offset_notices_a_rewrite() {
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "{\"log\":\"a\"}\n{\"log\":\"b\"}\n").unwrap();
        for (offset, place) in [(12, 12), (24, 24), (25, 24)] {
            let mut handle = open(&path);
            assert_eq!(handle.skip_to(offset).unwrap(), offset == place);
            handle.guard().unwrap();
            assert_eq!(handle.offset, place);
            std::fs::write(&path, "{\"log\":\"A\"}\n{\"log\":\"B\"}\n").unwrap();
            assert_eq!(read(&mut handle).unwrap(), None);
            std::fs::write(&path, "{\"log\":\"a\"}\n{\"log\":\"b\"}\n").unwrap();
        }
    }

    #[test]
    fn nothing_after_the_end_is_read() {
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "{0123456789}\n").unwrap();
        let mut handle = open(&path);
        handle.end = Some(5);
        assert_eq!(read(&mut handle).unwrap().unwrap(), b"{0123");
        assert_eq!(read(&mut handle).unwrap().unwrap(), b"");
    }

    #[test]
    fn reading_skips_a_hole() {
        let folder = folder();
        let path = folder.path().join("log");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"{}\n", 1 << 20).unwrap();
        let mut handle = open(&path);
        assert!(handle.starts_with_hole());
        handle.start_over().unwrap();
        // The block that contains the record starts with NULs too.
        assert!(handle.offset > (1 << 20) - (1 << 16) && handle.offset <= 1 << 20);
        assert_eq!(read(&mut handle).unwrap().map(|bytes| bytes.len().min(3)), Some(3));
        std::fs::write(&path, "\0{}\n").unwrap();
        assert!(!open(&path).starts_with_hole());
    }

    #[test]
    fn only_regular_log_files_are_opened() {
        let folder = folder();
        let (path, link) = (folder.path().join("log"), folder.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (bytes, format, is_log) in [
            (&b"{}"[..], Format::JsonFile, true),
            (b"", Format::JsonFile, true),
            (b"\0\0{}", Format::JsonFile, true),
            (b"root:x:0:0", Format::JsonFile, false),
            (b"\0\0\0\x05", Format::Local, true),
            (b"", Format::Local, true),
            (b"{}", Format::Local, false),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Handle::open(&path, format).is_ok(), is_log, "{format:?} {}", bytes.escape_ascii());
            assert!(Handle::open(&link, format).is_err());
        }
        assert!(Handle::open(folder.path(), Format::JsonFile).is_err());
    }

    fn compressed(log: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(log).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn copies_share_a_fingerprint_and_other_files_do_not() {
        let folder = folder();
        let fingerprint = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            open(&path).fingerprint()
        };
        let line = |length: usize| [b"{", &*vec![b'x'; length], b"}\n"].concat();
        let mut seen = Vec::new();
        for first in [line(0), line(1), line(NEAR), line(FAR - 3), b"{\0}\n".to_vec()] {
            let log = [&*first, b"{more}\n"].concat();
            let plain = fingerprint("log", &log);
            assert!(plain.is_some_and(|plain| !seen.contains(&plain)));
            seen.extend(plain);
            assert_eq!(fingerprint("log.1", &first), plain, "before there was more");
            assert_eq!(fingerprint("log.2.gz", &compressed(&log)), plain, "compressed");
        }
        for none in [&b""[..], b"{no end", &line(FAR)] {
            assert_eq!(fingerprint("log", none), None);
            assert_eq!(fingerprint("log.gz", &compressed(none)), None);
        }
        assert_eq!(fingerprint("log.gz", b"{}\n"), None, "not compressed at all");
    }

    #[test]
    fn a_fingerprint_comes_with_the_first_record_and_stays() {
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "{half").unwrap();
        let handle = open(&path);
        assert_eq!(handle.fingerprint(), None);
        std::fs::write(&path, "{half of it}\n").unwrap();
        let fingerprint = handle.fingerprint();
        assert_eq!(fingerprint, open(&path).fingerprint());
        assert!(fingerprint.is_some());
        std::fs::write(&path, "{another}\n").unwrap();
        assert_eq!(handle.fingerprint(), fingerprint);
    }

    /// How reads are cut, if at all. Never more empty reads in a row than are accepted, and no read too short for a
    /// whole record, because only whole records differ from one another.
    fn cuts() -> impl Strategy<Value = Vec<Cut>> {
        let whole_or_short = prop_oneof![4 => (24..2 * GUARD).prop_map(Cut::To), 2 => Just(Cut::Whole)];
        let read = (any::<[bool; 2]>(), whole_or_short).prop_map(|([is_interrupted, is_empty_first], cut)| {
            let before = [is_interrupted.then_some(Cut::Interrupted), is_empty_first.then_some(Cut::To(0))];
            before.into_iter().flatten().chain([cut]).collect::<Vec<_>>()
        });
        prop::collection::vec(read, 1..8).prop_map(|cuts| cuts.concat())
    }

    /// An action on a file while it is read.
    #[derive(Clone, Debug)]
    enum FileAction {
        Append(usize),
        /// Truncates the file and writes this many records.
        Rewrite(usize),
        Read,
    }

    proptest! {
        /// The model is the file itself: what was read since the last rewrite is what the file contains.
        #[test]
        fn reads_return_the_content_and_notice_rewrites(
            actions in prop::collection::vec(
                prop_oneof![
                    3 => (1..4_usize).prop_map(FileAction::Append),
                    1 => (0..6_usize).prop_map(FileAction::Rewrite),
                    4 => Just(FileAction::Read),
                ],
                1..40,
            ),
            cuts in cuts(),
        ) { short::during(short::cycle(cuts), || {
            let folder = folder();
            let path = folder.path().join("log");
            let (mut log, mut count) = (Vec::new(), 0);
            // No two records are equal, and no two sequences of `GUARD` bytes are either.
            let mut more = |log: &mut Vec<u8>, records: usize| {
                for _ in 0..records {
                    count += 1;
                    log.extend(format!("{{{count:020}}}\n").bytes());
                }
            };
            more(&mut log, 1);
            std::fs::write(&path, &log).unwrap();
            let mut handle = open(&path);
            let (mut taken, mut is_rewritten) = (Vec::new(), false);
            for action in actions {
                match action {
                    FileAction::Append(records) => more(&mut log, records),
                    FileAction::Rewrite(records) => {
                        log.clear();
                        more(&mut log, records);
                        is_rewritten |= !taken.is_empty();
                    }
                    FileAction::Read => match read(&mut handle).unwrap() {
                        Some(bytes) => {
                            prop_assert!(!is_rewritten);
                            let left = 64.min(log.len() - taken.len());
                            prop_assert!(bytes.len() <= left && bytes.is_empty() == (left == 0));
                            taken.extend(bytes);
                            prop_assert!(log.starts_with(&taken));
                        }
                        None => {
                            prop_assert!(is_rewritten);
                            handle.start_over().unwrap();
                            (taken, is_rewritten) = (Vec::new(), false);
                        }
                    },
                }
                // In place, like `truncate` and unlike dockerd's rotation.
                std::fs::write(&path, &log).unwrap();
            }
            Ok(())
        })?; }
    }
}

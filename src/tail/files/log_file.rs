//! One log file, opened.
//!
//! In: a path that the engine's data root and a container's ID make. Out: its bytes, from some offset on. Called by
//! [`super::file`], [`super::chain`] and [`super::seek`]. A handle goes on reading the same file after a rename or an
//! unlink.
//! The engine that we are connected to names the paths; it may be hostile and we may be root. So nothing is opened that
//! is not a regular file of exactly this name, not through a link at its end, and not unless it begins like a record.

use super::pread::{fill_at, some_at};
use crate::model::file_id::{FileId, Likeness};
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

/// Of what stands before the offset, so many bytes are looked at again with each read: the end of a record, with its
/// time in nanoseconds. Other bytes there mean that the file was truncated and written anew.
pub(crate) const GUARD: usize = 32;
/// The first record is looked for in the first bytes of a file, ...
const NEAR: usize = 4 * 1024;
/// ... and if it is longer, in so many.
const FAR: usize = 256 * 1024;
/// More rotated files than anybody keeps.
const MOST_FILES: u32 = 10_000;
/// Seconds after which an inode that has not changed counts as settled: more than a tick of any file system's clock.
const SETTLED_AFTER: i64 = 3;
/// How often rotated files are looked through when the engine rotates meanwhile.
pub(crate) const MOST_WALKS: u32 = 3;
/// So many numbers in a row that stand for nothing are the end of them.
const MOST_MISSING: u32 = 3;

/// Which file it is, whatever its name has become: exact for as long as it is open, and not beyond. For a file that was
/// closed see [`FileId`].
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

/// An open log file and how far it was read.
#[derive(Debug)]
pub(crate) struct Handle {
    content: Content,
    pub(crate) format: Format,
    pub(crate) identity: Identity,
    /// What it is recognised by when it is met again; not the same for what it is compressed to.
    pub(crate) id: FileId,
    /// It is on a file system of this machine alone. See [`is_local`].
    pub(crate) is_local: bool,
    /// When its inode was last changed, as of a look that found it under its name with nothing unread.
    pub(crate) settled: Option<(i64, i64)>,
    /// When it was last written, as of its opening.
    pub(crate) written: SystemTime,
    /// What came between the file before and this one is lost: so many bytes, where that is known.
    pub(crate) follows_gap: Option<Option<u64>>,
    /// Bytes of log taken so far.
    pub(crate) offset: u64,
    /// Reading stops here, where it does.
    pub(crate) end: Option<u64>,
    /// Lines that end before this offset are read but not shown.
    pub(crate) shown_from: u64,
    /// Compressed, it has to be read up to here to go on.
    pub(crate) goes_on_at: u64,
    /// Bytes in it when another took its place.
    pub(crate) pinned: u64,
    /// What stands before the offset.
    guard: [u8; GUARD],
    guarded: usize,
    /// What it begins with, where a record has its time at its start and may end as others do.
    head: [u8; GUARD],
    headed: usize,
    fingerprint: Cell<Option<u64>>,
    begins_with_nul: bool,
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Compressed(Arc<File>, Box<MultiGzDecoder<FromStart>>),
}

/// Reads a file from its beginning, whoever else reads it.
#[derive(Debug)]
struct FromStart {
    file: Arc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = some_at(&self.file, into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn unpacked(file: &Arc<File>) -> MultiGzDecoder<FromStart> {
    MultiGzDecoder::new(FromStart { file: Arc::clone(file), offset: 0 })
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many bytes; none at the end as it is now.
    Bytes(usize),
    /// Other bytes stand where we have been.
    Rewritten,
}

impl Handle {
    /// Opens a file as it lies.
    pub(crate) fn open(path: &Path, format: Format) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| rustix::fs::open(path, flags, Mode::empty());
        // A growing file is always newer than its last access, so that each read would write the inode.
        let opened = match open(flags | OFlags::NOATIME) {
            // It takes the file's owner, or root.
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
            let decoder = Box::new(unpacked(&file));
            Content::Compressed(file, decoder)
        } else {
            let mut first = [0];
            // A hole of NULs stands at the start when somebody truncated a file that the engine writes at an offset.
            let has_first = some_at(&file, &mut first, 0)? == 1;
            begins_with_nul = has_first && first == [0];
            if has_first && !format.begins_with(first[0]) && !begins_with_nul {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a log of the engine"));
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
            goes_on_at: 0,
            pinned: 0,
            guard: [0; GUARD],
            guarded: 0,
            head: [0; GUARD],
            headed: 0,
            fingerprint: Cell::new(None),
            begins_with_nul,
        })
    }

    /// The file, where bytes can be read at any place.
    pub(crate) fn plain(&self) -> Option<&File> {
        match &self.content {
            Content::Plain(file) => Some(file),
            Content::Compressed(..) => None,
        }
    }

    /// Bytes in the file now, where these are bytes of log.
    pub(crate) fn size(&self) -> io::Result<Option<u64>> {
        self.plain().map(|file| file.metadata().map(|metadata| metadata.len())).transpose()
    }

    /// Whether there is more to read although the last read did not fill its buffer: asked where a read may be short.
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

    /// When it was last written, as of now where it can still be.
    pub(crate) fn last_written(&self) -> io::Result<SystemTime> {
        self.plain().map_or(Ok(self.written), |file| file.metadata()?.modified())
    }

    /// The time of the last record of a compressed file: the engine writes it into the header, as bare JSON where other
    /// programs put subfields (moby `daemon/logger/loggerutils/logfile.go`, `rotateFileMetadata`).
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

    /// Of its first record, which holds a time in nanoseconds: the same for a file, its copies, and what the engine
    /// has compressed it to. `None` while it has no record.
    pub(crate) fn fingerprint(&self) -> Option<u64> {
        if self.fingerprint.get().is_none() {
            let found = [NEAR, FAR].into_iter().find_map(|size| self.first_record(size));
            self.fingerprint.set(found);
        }
        self.fingerprint.get()
    }

    /// The first record may be another one by now.
    pub(crate) fn look_again(&self) {
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
            Content::Compressed(file, _) => self.read_behind_hole(&mut unpacked(file), &mut bytes).ok()?,
        };
        let bytes = &bytes[..read];
        let bytes = &bytes[self.format.nuls(bytes)..];
        digest(&bytes[..self.format.first_end(bytes)?])
    }

    /// A file that was truncated under its writer is compressed with the hole at its start.
    fn read_behind_hole(&self, file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
        let mut read = read_full(file, into)?;
        while read == into.len() && into.iter().all(|byte| *byte == 0) {
            read = read_full(file, into)?;
        }
        let hole = self.format.nuls(&into[..read]);
        into.copy_within(hole..read, 0);
        Ok(read - hole + read_full(file, &mut into[read - hole..])?)
    }

    /// Whether nothing was compressed to it.
    pub(crate) fn is_hollow(&self) -> bool {
        let Content::Compressed(file, _) = &self.content else { return false };
        read_full(&mut unpacked(file), &mut [0]).is_ok_and(|read| read == 0)
    }

    /// Whether it is the same file, by whatever way it was reached, or what that was compressed to.
    pub(crate) fn is_same(&self, other: &Handle) -> bool {
        let records = || self.fingerprint().zip(other.fingerprint());
        self.identity == other.identity
            || self.id.likeness(&other.id) == Likeness::Same
            || records().is_some_and(|(this, other)| this == other)
    }

    /// Whether nothing has happened to it since [`Handle::settle`]. One call of the kernel, which looks up no path: a new
    /// name changes the inode as well.
    pub(crate) fn is_settled(&self) -> bool {
        let (Some(settled), Some(file)) = (self.settled, self.plain()) else { return false };
        file.metadata()
            .is_ok_and(|now| now.len() == self.offset && now.nlink() > 0 && (now.ctime(), now.ctime_nsec()) == settled)
    }

    /// Remembers how the inode is, for [`Handle::is_settled`]. What it was told by must have been asked for after this
    /// metadata, which is of `now`.
    pub(crate) fn settle(&mut self, metadata: &Metadata, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        // A change within the same tick of the clock would leave the same time.
        let is_old = i64::try_from(now).is_ok_and(|now| now - metadata.ctime() >= SETTLED_AFTER);
        self.settled = is_old.then(|| (metadata.ctime(), metadata.ctime_nsec()));
    }

    /// Goes to a place in it. Whether it has that place, as far as can be seen: what is compressed has to be read up to
    /// there, with [`Handle::skip`].
    pub(crate) fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        let Some(size) = self.size()? else {
            self.goes_on_at = offset;
            return Ok(true);
        };
        self.offset = offset.min(size);
        Ok(size >= offset)
    }

    /// Whether it has to be read up to the place where it goes on.
    pub(crate) fn has_to_skip(&self) -> bool {
        self.offset < self.goes_on_at
    }

    /// Goes on to that place by as many bytes as fit. Where it turns out not to have it, it goes on where it ends.
    pub(crate) fn skip(&mut self, into: &mut [u8]) -> io::Result<bool> {
        let left = usize::try_from(self.goes_on_at - self.offset).unwrap_or(usize::MAX).min(into.len());
        let has_more = self.read(&mut into[..left], 0)? != Found::Bytes(0);
        if !has_more {
            self.goes_on_at = self.offset;
        }
        Ok(has_more)
    }

    /// Remembers what stands before the offset.
    pub(crate) fn guard(&mut self) -> io::Result<()> {
        let Content::Plain(file) = &self.content else { return Ok(()) };
        // Where it has become shorter by now, the next read finds other bytes than these.
        self.guard = [0xff; GUARD];
        self.guarded = usize::try_from(self.offset).unwrap_or(usize::MAX).min(GUARD);
        fill_at(file, &mut self.guard[..self.guarded], self.offset - self.guarded as u64)?;
        Ok(())
    }

    /// Starts over: what it holds is new.
    pub(crate) fn start_over(&mut self) -> io::Result<()> {
        (self.offset, self.shown_from, self.headed) = (0, 0, 0);
        self.fingerprint.set(None);
        self.skip_hole()?;
        self.guard()
    }

    /// Goes to where there is something behind the offset: whoever writes at an offset into a file that was truncated
    /// leaves a hole before it. Where holes cannot be asked for, or none is there, it stays.
    pub(crate) fn skip_hole(&mut self) -> io::Result<()> {
        let Content::Plain(file) = &self.content else { return Ok(()) };
        if let Ok(offset) = rustix::fs::seek(file, SeekFrom::Data(self.offset)) {
            self.offset = offset;
        }
        self.guard()
    }

    /// Whether it was truncated under a writer that went on at its offset.
    pub(crate) fn begins_with_a_hole(&self) -> bool {
        let data = || self.plain().and_then(|file| rustix::fs::seek(file, SeekFrom::Data(0)).ok());
        self.begins_with_nul && data().is_some_and(|offset| offset > 0)
    }

    /// The next bytes, into `into` from `held` on, where at least [`GUARD`] bytes have to be free before: they are
    /// written over.
    pub(crate) fn read(&mut self, into: &mut [u8], held: usize) -> io::Result<Found> {
        let left =
            self.end.map_or(usize::MAX, |end| usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX));
        let room = (into.len() - held).min(left);
        let read = match &mut self.content {
            Content::Plain(_) => match self.read_guarded(&mut into[..held + room], held)? {
                Found::Bytes(read) => read,
                Found::Rewritten => return Ok(Found::Rewritten),
            },
            Content::Compressed(_, decoder) => uninterrupted(|| decoder.read(&mut into[held..held + room]))?,
        };
        self.offset += read as u64;
        Ok(Found::Bytes(read))
    }

    /// Whether it begins with other bytes than before.
    fn has_new_head(&mut self) -> io::Result<bool> {
        let (Content::Plain(file), Format::Local) = (&self.content, self.format) else { return Ok(false) };
        let mut head = [0; GUARD];
        let read = fill_at(file, &mut head, 0)?;
        let is_new = read < self.headed || head[..self.headed] != self.head[..self.headed];
        (self.head, self.headed) = (head, read);
        Ok(is_new)
    }

    fn read_guarded(&mut self, into: &mut [u8], held: usize) -> io::Result<Found> {
        if self.has_new_head()? {
            return Ok(Found::Rewritten);
        }
        let Content::Plain(file) = &self.content else { return Ok(Found::Bytes(0)) };
        let guarded = self.guarded.min(held);
        let expected = &self.guard[self.guarded - guarded..self.guarded];
        let from = held - guarded;
        let mut read = some_at(file, &mut into[from..], self.offset - guarded as u64)?;
        if read < guarded {
            read += fill_at(file, &mut into[from + read..held], self.offset - (guarded - read) as u64)?;
        }
        // It ends before the offset, or holds other bytes there.
        if read < guarded || into[from..held] != expected[..] {
            return Ok(Found::Rewritten);
        }
        if read == guarded && into.len() > held && file.metadata()?.len() > self.offset {
            read += some_at(file, &mut into[held..], self.offset)?;
        }
        let fresh = read - guarded;
        let filled = held + fresh;
        let kept = (guarded + fresh).min(GUARD);
        if fresh > 0 {
            self.guard[..kept].copy_from_slice(&into[filled - kept..filled]);
            self.guarded = kept;
        }
        Ok(Found::Bytes(fresh))
    }
}

/// One number for when a file was created, where that is known. With its inode number, since several files are created
/// within a tick of the clock. Positions in states of older versions hold it for files without a record, so that it must
/// stay as it is.
pub(crate) fn birth_mark(id: &FileId) -> Option<u64> {
    let born = u128::try_from(id.born?.0).ok()?;
    let [time, number] = [born, id.inode.into()].map(u128::to_be_bytes);
    digest(&[time, number].concat())
}

/// Whether all changes to the files of this kind of file system are made on this machine, so that inotify reports them, and
/// its reads are short only at the end of a file. Not so on network file systems and FUSE; what is not known is taken for
/// one of these.
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

/// As many bytes as there are and fit.
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

/// The files that the engine has rotated, newest first.
pub(crate) struct Rotated<'a> {
    live: &'a Path,
    format: Format,
    /// Of the file that was found last.
    pub(crate) number: u32,
}

impl<'a> Rotated<'a> {
    pub(crate) fn new(live: &'a Path, format: Format) -> Self {
        Rotated { live, format, number: 0 }
    }

    /// The next one that is none of these: what was a file's number a moment ago may be the one before it by now. A number
    /// or two may stand for nothing: between two steps of a rotation, and where somebody removed a file.
    pub(crate) fn next(&mut self, known: &[Handle]) -> io::Result<Option<Handle>> {
        let mut missing = 0;
        while missing < MOST_MISSING && self.number < MOST_FILES {
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

    /// Opens the one with the present number, once more.
    pub(crate) fn open(&self) -> io::Result<Handle> {
        Handle::open(&numbered(self.live, self.number).ok_or(io::ErrorKind::NotFound)?, self.format)
    }
}

/// What lies at a path now.
pub(crate) fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::symlink_metadata(path).map(|metadata| Identity::of(&metadata))
}

/// `live.N`, plain or compressed, whichever is there; the plain one while both are.
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

    /// What a read gives, as [`super::super::file`] asks for it.
    fn read(handle: &mut Handle) -> io::Result<Option<Vec<u8>>> {
        let mut into = vec![0; GUARD + 64];
        Ok(match handle.read(&mut into, GUARD)? {
            Found::Bytes(read) => Some(into[GUARD..GUARD + read].to_vec()),
            Found::Rewritten => None,
        })
    }

    #[test]
    fn reading_leaves_the_access_time_alone() {
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "{}\n").unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(1);
        File::options().append(true).open(&path).unwrap().set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
        assert_eq!(read(&mut open(&path)).unwrap().unwrap(), b"{}\n");
        assert_eq!(std::fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
    }

    #[test]
    fn a_file_that_was_written_anew_is_told() {
        let old = "{\"log\":\"the first record\",\"time\":1}\n{\"log\":\"the second\",\"time\":2}\n";
        assert!(old.len() > 2 * GUARD);
        let new = old.replace("first", "other").replace("\"time\":2", "\"time\":3");
        let (longer, shorter) = (format!("{new}{{\"log\":\"a third\"}}\n"), &new[..GUARD]);
        let hole = format!("{}{{\"log\":\"behind the hole\"}}\n", "\0".repeat(old.len()));
        let appended = format!("{old}{{}}\n");
        for (what, then, told) in [
            ("nothing", old, Some("")),
            ("appended", &*appended, Some("{}\n")),
            ("as long", &*new, None),
            ("longer", &*longer, None),
            ("shorter", shorter, None),
            ("empty", "", None),
            ("behind a hole", &*hole, None),
        ] {
            let folder = folder();
            let path = folder.path().join("log");
            std::fs::write(&path, old).unwrap();
            let mut handle = open(&path);
            assert_eq!(read_all(&mut handle).as_deref(), Some(old.as_bytes()));
            std::fs::write(&path, then).unwrap();
            assert_eq!(read_all(&mut handle).as_deref(), told.map(str::as_bytes), "{what}");
            if told.is_none() {
                handle.start_over().unwrap();
                assert_eq!(read_all(&mut handle).as_deref(), Some(then.as_bytes()), "{what}, from the start");
            }
        }
    }

    /// Up to the end; `None` where other bytes stand.
    fn read_all(handle: &mut Handle) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            match read(handle).unwrap()? {
                bytes if bytes.is_empty() => return Some(all),
                bytes => all.extend(bytes),
            }
        }
    }

    /// Reads may be short at every boundary there is: between guard and news, within either, or empty. Still only other
    /// bytes and a smaller size count as a truncation, and only the size as the end.
    #[test]
    fn a_short_read_is_neither_a_truncation_nor_an_end() {
        // What each of them does to a file that has been read is the other test's; here all of it is done under cuts.
        for most in 1..=2 * GUARD {
            for cuts in [
                vec![Cut::To(most)],
                vec![Cut::To(0), Cut::To(most)],
                vec![Cut::Interrupted, Cut::To(most), Cut::To(0)],
                vec![Cut::Whole, Cut::To(most)],
            ] {
                short::during(short::cycle(cuts), a_file_that_was_written_anew_is_told);
            }
        }
    }

    /// Pins which file systems are believed to report every change and to end reads early only at the end of a file.
    #[test]
    fn only_file_systems_of_this_machine_are_believed() {
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

    /// A look without a path finds every change that may make another file the live one.
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
            // A clock whose tick has passed.
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
    fn a_handle_that_was_set_to_a_place_guards_it_too() {
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
    fn nothing_behind_the_end_is_read() {
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "{0123456789}\n").unwrap();
        let mut handle = open(&path);
        handle.end = Some(5);
        assert_eq!(read(&mut handle).unwrap().unwrap(), b"{0123");
        assert_eq!(read(&mut handle).unwrap().unwrap(), b"");
    }

    #[test]
    fn a_hole_is_stepped_over_to_what_was_written_behind_it() {
        let folder = folder();
        let path = folder.path().join("log");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"{}\n", 1 << 20).unwrap();
        let mut handle = open(&path);
        assert!(handle.begins_with_a_hole());
        handle.start_over().unwrap();
        // The rest of the block that the record lies in are NULs as well.
        assert!(handle.offset > (1 << 20) - (1 << 16) && handle.offset <= 1 << 20);
        assert_eq!(read(&mut handle).unwrap().map(|bytes| bytes.len().min(3)), Some(3));
        std::fs::write(&path, "\0{}\n").unwrap();
        assert!(!open(&path).begins_with_a_hole());
    }

    #[test]
    fn what_is_no_log_is_not_opened() {
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
    fn a_file_and_what_was_made_of_it_have_one_fingerprint_and_others_have_others() {
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

    /// How reads are cut, if at all; not more of them empty in a row than are put up with, and none so short that it holds
    /// no whole record, by which alone these differ.
    fn cuts() -> impl Strategy<Value = Vec<Cut>> {
        let whole_or_short = prop_oneof![4 => (24..2 * GUARD).prop_map(Cut::To), 2 => Just(Cut::Whole)];
        let read = (any::<[bool; 2]>(), whole_or_short).prop_map(|([is_interrupted, is_empty_first], cut)| {
            let before = [is_interrupted.then_some(Cut::Interrupted), is_empty_first.then_some(Cut::To(0))];
            before.into_iter().flatten().chain([cut]).collect::<Vec<_>>()
        });
        prop::collection::vec(read, 1..8).prop_map(|cuts| cuts.concat())
    }

    /// What happens to a file while it is read.
    #[derive(Clone, Debug)]
    enum Act {
        Append(usize),
        /// Truncates it and writes so many records.
        Rewrite(usize),
        Read,
    }

    proptest! {
        /// The model is the file itself: what was read since it was last written anew is what lies in it.
        #[test]
        fn what_is_read_is_what_lies_there_and_other_bytes_are_told(
            acts in prop::collection::vec(
                prop_oneof![
                    3 => (1..4_usize).prop_map(Act::Append),
                    1 => (0..6_usize).prop_map(Act::Rewrite),
                    4 => Just(Act::Read),
                ],
                1..40,
            ),
            cuts in cuts(),
        ) { short::during(short::cycle(cuts), || {
            let folder = folder();
            let path = folder.path().join("log");
            let (mut log, mut count) = (Vec::new(), 0);
            // No two of them are alike, nor are as many bytes as are guarded, wherever they begin.
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
            for act in acts {
                match act {
                    Act::Append(records) => more(&mut log, records),
                    Act::Rewrite(records) => {
                        log.clear();
                        more(&mut log, records);
                        is_rewritten |= !taken.is_empty();
                    }
                    Act::Read => match read(&mut handle).unwrap() {
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
                // In place, as the engine's rotation does not and `truncate` does.
                std::fs::write(&path, &log).unwrap();
            }
            Ok(())
        })?; }
    }
}

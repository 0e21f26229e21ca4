//! One log file, opened.
//!
//! In: a path that the engine's data root and a container's ID make. Out: its bytes, from some offset on. Called by
//! [`super::file`] and [`super::seek`]. A handle goes on reading the same file after a rename or an unlink.
//! The engine that we are connected to names the paths; it may be hostile and we may be root. So nothing is opened that
//! is not a regular file of exactly this name, not through a link at its end, and not unless it begins like a record.

use crate::time::Timestamp;
use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a file is, whatever its name has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// An open log file and how far it was read.
#[derive(Debug)]
pub(super) struct Handle {
    content: Content,
    pub(super) identity: Identity,
    /// When it was last written, as of its opening.
    pub(super) written: SystemTime,
    /// What came between the file before and this one is lost.
    pub(super) follows_gap: bool,
    /// Bytes of log taken so far.
    pub(super) offset: u64,
    /// Reading stops here, where it does.
    pub(super) end: Option<u64>,
    /// Lines that end before this offset are read but not shown.
    pub(super) shown_from: u64,
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Compressed(Box<MultiGzDecoder<File>>),
}

impl Handle {
    /// Opens a file as it lies.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
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
        let identity = Identity::of(&metadata);
        let content = if path.extension() == Some(OsStr::new("gz")) {
            Content::Compressed(Box::new(MultiGzDecoder::new(file)))
        } else {
            let mut first = [0];
            // A hole of NULs stands at the start when somebody truncated a file that the engine writes at an offset.
            if file.read_at(&mut first, 0)? == 1 && first != *b"{" && first != [0] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a json-file log"));
            }
            Content::Plain(file)
        };
        let written = metadata.modified()?;
        Ok(Handle { content, identity, written, follows_gap: false, offset: 0, end: None, shown_from: 0 })
    }

    /// The file, where bytes can be read at any place.
    pub(super) fn plain(&self) -> Option<&File> {
        match &self.content {
            Content::Plain(file) => Some(file),
            Content::Compressed(_) => None,
        }
    }

    /// Bytes in the file now, where these are bytes of log.
    pub(super) fn size(&self) -> io::Result<Option<u64>> {
        self.plain().map(|file| file.metadata().map(|metadata| metadata.len())).transpose()
    }

    /// When it was last written, as of now where it can still be.
    pub(super) fn last_written(&self) -> io::Result<SystemTime> {
        self.plain().map_or(Ok(self.written), |file| file.metadata()?.modified())
    }

    /// The time of the last record of a compressed file: the engine writes it into the header, as bare JSON where other
    /// programs put subfields (moby `daemon/logger/loggerutils/logfile.go`, `rotateFileMetadata`).
    pub(super) fn last_time(&self) -> Option<Timestamp> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Extra {
            last_time: String,
        }
        let Content::Compressed(decoder) = &self.content else { return None };
        let extra: Extra = serde_json::from_slice(decoder.header()?.extra()?).ok()?;
        Timestamp::parse(extra.last_time.as_bytes())
    }

    /// The next bytes; none at the end as it is now.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left =
            self.end.map_or(usize::MAX, |end| usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX));
        let room = into.len().min(left);
        let into = &mut into[..room];
        let read = loop {
            let read = match &mut self.content {
                Content::Plain(file) => file.read_at(into, self.offset),
                Content::Compressed(decoder) => decoder.read(into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.offset += read as u64;
        Ok(read)
    }
}

/// What lies at a path now.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::symlink_metadata(path).map(|metadata| Identity::of(&metadata))
}

/// `live.N`, plain or compressed, whichever is there; the plain one while both are.
pub(super) fn numbered(live: &Path, number: u32) -> Option<PathBuf> {
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
    use std::fs::FileTimes;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn reading_leaves_the_access_time_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "{}\n").unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(1);
        File::options().append(true).open(&path).unwrap().set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
        let mut handle = Handle::open(&path).unwrap();
        assert_eq!(handle.read(&mut [0; 16]).unwrap(), 3);
        assert_eq!(std::fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
    }
}

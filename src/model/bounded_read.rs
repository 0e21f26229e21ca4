//! Reads small local files safely, whatever is at the path.
//!
//! In: a path and a limit. Out: the bytes. Reading a pipe could block forever, and `/dev/zero` never ends, so the file type
//! is checked before anything is read, and no more than the limit is read. Used for configuration, certificates and the
//! files in which the daemon describes a container.

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a regular file. `/dev/null` counts as an empty file.
pub(crate) fn read_small(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(&open(path)?, limit)
}

/// Opens a file for [`read_open`] without blocking.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Without `NONBLOCK`, opening a pipe waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Like [`read_small`], for a file that is already open, from its current offset.
pub(crate) fn read_open(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let status = fstat(file)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        // `/dev/null`: some people link a path to it where they want an empty file.
        FileType::CharacterDevice if status.st_rdev == makedev(1, 3) => return Ok(Vec::new()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whatever the path leads to, reading it ends, and the error says what is wrong.
    #[test]
    fn only_small_regular_files_are_read_without_blocking() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("small"), "text").unwrap();
        std::fs::write(at("just"), "x".repeat(16)).unwrap();
        std::fs::write(at("large"), "x".repeat(17)).unwrap();
        let sparse = File::create(at("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, target) in [("link", "small"), ("null", "/dev/null"), ("zero", "/dev/zero"), ("to-pipe", "pipe")] {
            symlink(target, at(name)).unwrap();
        }
        let not_regular = Err("not a regular file".to_owned());
        let too_large = Err("larger than 16 bytes".to_owned());
        for (path, read) in [
            (at("small"), Ok("text".to_owned())),
            (at("just"), Ok("x".repeat(16))),
            (at("link"), Ok("text".to_owned())),
            ("/dev/null".into(), Ok(String::new())),
            ("/proc/self/comm".into(), Ok(std::fs::read_to_string("/proc/self/comm").unwrap())),
            (at("large"), too_large.clone()),
            (at("sparse"), too_large),
            (at("pipe"), not_regular.clone()),
            (at("to-pipe"), not_regular.clone()),
            (at("zero"), not_regular),
            (at("null"), Ok(String::new())),
            (folder.path().to_owned(), Err("is a directory".to_owned())),
            (at("socket"), Err("No such device or address (os error 6)".to_owned())),
            (at("missing"), Err("No such file or directory (os error 2)".to_owned())),
        ] {
            let result = read_small(&path, 16).map_err(|error| error.to_string());
            assert_eq!(result.map(|bytes| String::from_utf8(bytes).unwrap()), read, "{}", path.display());
        }
    }
}

//! Small files of this machine, read without harm whatever lies at their path.
//!
//! In: a path and a limit. Out: the bytes. A pipe would make its reader wait for ever, and `/dev/zero` has no end, so the
//! type is looked at before anything is read, and no more is read than the limit. Used by every room that reads
//! configuration, certificates or what the engine writes about a container.

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The bytes of a regular file, or of `/dev/null`, which everybody has as an empty one.
pub fn read_small(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(&open(path)?, limit)
}

/// Opens a file for [`read_open`].
pub fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe waits for somebody who writes, unless it is told not to.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The same of a file that is open, from where it stands.
pub fn read_open(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let status = fstat(file)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        // `/dev/null`, which some link to where they want an empty file.
        FileType::CharacterDevice if status.st_rdev == makedev(1, 3) => return Ok(Vec::new()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whatever lies at a path, reading it ends, and says in words what is wrong.
    #[test]
    fn only_small_regular_files_are_read_and_nothing_is_waited_for() {
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
        let is_no_file = Err("it is no regular file".to_owned());
        let is_long = Err("it has more than 16 bytes".to_owned());
        for (path, read) in [
            (at("small"), Ok("text".to_owned())),
            (at("just"), Ok("x".repeat(16))),
            (at("link"), Ok("text".to_owned())),
            ("/dev/null".into(), Ok(String::new())),
            ("/proc/self/comm".into(), Ok(std::fs::read_to_string("/proc/self/comm").unwrap())),
            (at("large"), is_long.clone()),
            (at("sparse"), is_long),
            (at("pipe"), is_no_file.clone()),
            (at("to-pipe"), is_no_file.clone()),
            (at("zero"), is_no_file),
            (at("null"), Ok(String::new())),
            (folder.path().to_owned(), Err("is a directory".to_owned())),
            (at("socket"), Err("No such device or address (os error 6)".to_owned())),
            (at("missing"), Err("No such file or directory (os error 2)".to_owned())),
        ] {
            let told = read_small(&path, 16).map_err(|error| error.to_string());
            assert_eq!(told.map(|bytes| String::from_utf8(bytes).unwrap()), read, "{}", path.display());
        }
    }
}

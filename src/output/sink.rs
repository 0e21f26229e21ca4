//! The destination of records: stdout, or a file that they are appended to.
//!
//! A sink does not buffer: the printer does, and what it passes to the sink has left the process when the call returns.
//! All bytes that go to a terminal are sanitised here, no matter which module wrote them.
//! An output file is identified by its path: if it is moved away or removed, a new file at that path takes its place.

use super::sanitizer::{self, Form};
use super::stderr::status_line;
use super::{Displaced, Error};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fcntl_setfl};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Only the owner may read a new output file, because it contains logs that only root can read
/// in the daemon's directory.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

const NOT_REGULAR: &str = "it is no longer a regular file";

const NO_LINK: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Resolves the symbolic links in the path of a file that does not exist yet. The path itself may be a dangling link to
/// where the file is to be created.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    // The kernel follows as many links (path_resolution(7)).
    for _ in 0..40 {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize()?;
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let named = folder.join(name);
        match std::fs::read_link(&named) {
            Ok(target) => path = folder.join(target),
            Err(_) => return Ok(named),
        }
    }
    Err(Errno::LOOP.into())
}

/// Opens a path that contained no symbolic links when it was resolved. It is an error if any part of it is a link now.
/// A file that this creates is readable by its owner only.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let mode = if flags.contains(OFlags::CREATE) { PRIVATE } else { Mode::empty() };
    let flags = OFlags::WRONLY | OFlags::APPEND | NO_LINK | flags;
    let opened = rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS);
    let opened = match opened {
        // `openat2` does not exist before Linux 5.6 and in some sandboxes.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => rustix::fs::open(path, flags, mode),
        opened => opened,
    };
    match opened {
        Ok(file) => Ok(file.into()),
        Err(Errno::LOOP) => Err(io::Error::other("the path contains a symbolic link that did not exist at the start")),
        Err(errno) => Err(errno.into()),
    }
}

/// Refuses a file that another user put at the path, who may not be allowed to read the logs, and a file that has a
/// second hard link, through which another file would be overwritten.
fn check_trusted(found: &File, ours: &Metadata) -> io::Result<()> {
    let metadata = found.metadata()?;
    let is_of_known_owner = [ours.uid(), rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    let refusal = match () {
        () if !metadata.is_file() => NOT_REGULAR,
        () if !is_of_known_owner => "the file there now belongs to another user",
        () if metadata.nlink() > 1 => "the file there now has more than one hard link",
        () => return Ok(()),
    };
    Err(io::Error::other(refusal))
}

/// An open destination. All data leaves the process through one.
pub(super) struct Sink {
    file: File,
    /// The path of an output file, free of symbolic links; `None` for stdout.
    path: Option<PathBuf>,
    pub(super) is_terminal: bool,
    /// Whether a failed write is removed from the file completely, instead of keeping its whole lines.
    pub(super) all_or_nothing: bool,
    form: Form,
    /// Reused buffer for sanitised bytes.
    shielded: Vec<u8>,
}

impl Sink {
    /// Opens standard output, through a copy of the descriptor: the standard library's handle
    /// splits writes at newlines.
    pub(super) fn stdout(form: Form) -> Result<Self, Error> {
        let stdout = rustix::stdio::stdout();
        let file = stdout.try_clone_to_owned().map_err(|source| Error::Write { to: "stdout".into(), source })?;
        Ok(Sink::new(File::from(file), None, form))
    }

    fn new(file: File, path: Option<PathBuf>, form: Form) -> Self {
        Sink { is_terminal: file.is_terminal(), all_or_nothing: false, file, path, form, shielded: Vec::new() }
    }

    /// Opens a file for appending, and creates it if it does not exist. Symbolic links in the path
    /// are resolved once, here.
    pub(super) fn file(path: &Path, form: Form) -> Result<Self, Error> {
        let opened = match (path.canonicalize(), std::fs::metadata(path)) {
            (Ok(resolved), Ok(there)) if there.is_file() => {
                open(&resolved, OFlags::empty()).map(|file| (file, resolved))
            }
            // A pipe or a device, or /dev/stdout, which may refer to a file without a path.
            (resolved, Ok(_)) => {
                let file = File::options().append(true).open(path);
                file.map(|file| (file, resolved.unwrap_or_else(|_| path.to_owned())))
            }
            _ => resolve(path).and_then(|resolved| Ok((open(&resolved, OFlags::CREATE)?, resolved))),
        };
        let (file, path) = opened.map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Sink::new(file, Some(path), form))
    }

    /// What happened to the file, if it is no longer the one at its path.
    pub(super) fn displaced(&self) -> Option<Displaced> {
        let (path, file) = self.regular_file()?;
        let ours = file.metadata().ok()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => None,
            _ if ours.nlink() == 0 => Some(Displaced::Removed),
            Ok(_) => Some(Displaced::Moved),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Some(Displaced::Moved)
            }
            // The path cannot be examined, so assume that nothing changed.
            Err(_) => None,
        }
    }

    /// Opens the file that is at the path now. If there is none, creates it with the permissions of the previous file,
    /// and with its owner and group as far as the process may change them.
    pub(super) fn reopen(&self) -> Result<Self, Error> {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let ours = self.file.metadata().map_err(failed)?;
        // The file stays private until its owner is set.
        match open(path, OFlags::CREATE | OFlags::EXCL) {
            Ok(made) => {
                if fchown(&made, Some(ours.uid()), Some(ours.gid())).is_err() {
                    let _ = fchown(&made, None, Some(ours.gid()));
                }
                let mode = PermissionsExt::from_mode(ours.permissions().mode() & 0o777);
                made.set_permissions(mode).map_err(failed)?;
                Ok(self.successor(made))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Without NONBLOCK, opening a pipe would block.
                let there = open(path, OFlags::NONBLOCK).map_err(|error| {
                    match error.raw_os_error().map(Errno::from_raw_os_error) {
                        // A directory, or a pipe without a reader.
                        Some(Errno::ISDIR | Errno::NXIO) => failed(io::Error::other(NOT_REGULAR)),
                        _ => failed(error),
                    }
                })?;
                check_trusted(&there, &ours).map_err(failed)?;
                fcntl_setfl(&there, OFlags::APPEND).map_err(|errno| failed(errno.into()))?;
                Ok(self.successor(there))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn successor(&self, file: File) -> Self {
        let sink = Sink::new(file, self.path.clone(), self.form);
        Sink { all_or_nothing: self.all_or_nothing, ..sink }
    }

    /// The output file and its path, if it is a regular file.
    pub(super) fn regular_file(&self) -> Option<(&Path, &File)> {
        let is_regular = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        self.path.as_deref().filter(|_| is_regular).map(|path| (path, &self.file))
    }

    /// The width of the terminal; `None` if the sink is no terminal.
    pub(super) fn columns(&self) -> Option<usize> {
        self.is_terminal.then(|| usize::from(status_line::columns(&self.file)))
    }

    /// Writes all of `bytes`, and returns when the kernel has taken them. Text consists of whole lines.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.append(bytes).map_err(|(_, error)| error)
    }

    /// Like `write`, but an error also says how many of the bytes remain in the output. After a failed write to a file,
    /// an incomplete line is removed from its end, or everything with `all_or_nothing`, unless another process has
    /// appended to the file in the meantime.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), (usize, Error)> {
        if !self.is_terminal {
            return self.put(bytes);
        }
        let mut shielded = std::mem::take(&mut self.shielded);
        shielded.clear();
        sanitizer::shield(bytes, self.form, &mut shielded);
        let written = self.put(&shielded);
        self.shielded = shielded;
        written
    }

    fn put(&self, bytes: &[u8]) -> Result<(), (usize, Error)> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let error = match (&self.file).write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = &rest[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Another process that shares the terminal or pipe made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_until_writable();
                    continue;
                }
                Err(error) => error,
            };
            let written = &bytes[..bytes.len() - rest.len()];
            let whole = memchr::memrchr(b'\n', written).map_or(0, |at| at + 1);
            let kept = if self.all_or_nothing { 0 } else { whole };
            let is_cut = self.cut_off(&written[kept..]).unwrap_or(false);
            return Err((if is_cut { kept } else { written.len() }, self.failed(error)));
        }
        Ok(())
    }

    /// Removes what was just written from the end of the file, if it is still at the end. Returns whether it did.
    fn cut_off(&self, written: &[u8]) -> io::Result<bool> {
        let Some((path, file)) = self.regular_file() else { return Ok(false) };
        let reader = File::from(rustix::fs::open(path, OFlags::RDONLY | NO_LINK, Mode::empty())?);
        let (ours, there) = (file.metadata()?, reader.metadata()?);
        let Some(start) = ours.len().checked_sub(written.len() as u64) else { return Ok(false) };
        let mut end = vec![0; written.len()];
        reader.read_exact_at(&mut end, start)?;
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) || end != written {
            return Ok(false);
        }
        file.set_len(start)?;
        Ok(true)
    }

    fn wait_until_writable(&self) {
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        let _ = rustix::event::poll(&mut fds, None);
    }

    fn failed(&self, source: io::Error) -> Error {
        match &self.path {
            None if source.kind() == io::ErrorKind::BrokenPipe => Error::Closed,
            None => Error::Write { to: "stdout".into(), source },
            Some(path) => Error::Write { to: path.display().to_string(), source },
        }
    }
}

//! Where records go: stdout, or a file they are appended to.
//!
//! Unbuffered on purpose: the printer gathers, and what it hands over here has left the process when the call returns.
//! Whatever goes to a terminal is made safe for it here, by whoever it was written.
//! A file is known by its name, as to who looks for it there: when it is moved away or removed, another takes its place.

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

/// A new file holds what only root may read in the engine's logs.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

const NOT_REGULAR: &str = "it is no regular file any more";

const NO_LINK: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// The path of a file that does not exist, without links in it. It may be a link to where the file is to be made.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    // As many links as the kernel follows (path_resolution(7)).
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

/// Opens a path that has no links in it; one that has become a link since, or lies behind one, is an error. What it
/// makes is readable by us alone.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let mode = if flags.contains(OFlags::CREATE) { PRIVATE } else { Mode::empty() };
    let flags = OFlags::WRONLY | OFlags::APPEND | NO_LINK | flags;
    let opened = rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS);
    let opened = match opened {
        // Linux before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => rustix::fs::open(path, flags, mode),
        opened => opened,
    };
    match opened {
        Ok(file) => Ok(file.into()),
        Err(Errno::LOOP) => {
            Err(io::Error::other("it is, or lies behind, a symbolic link that was not there at the start"))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Refuses to go on in a file that somebody put there who may not read what is written, or through which another file is
/// written to.
fn trust(there: &File, ours: &Metadata) -> io::Result<()> {
    let metadata = there.metadata()?;
    let is_of_known_owner = [ours.uid(), rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    let refusal = match () {
        () if !metadata.is_file() => NOT_REGULAR,
        () if !is_of_known_owner => "somebody else owns what is there now",
        () if metadata.nlink() > 1 => "what is there now has another name, too",
        () => return Ok(()),
    };
    Err(io::Error::other(refusal))
}

/// The one place that data leaves by.
pub(super) struct Sink {
    file: File,
    /// Of a file, without links in it.
    path: Option<PathBuf>,
    pub(super) is_terminal: bool,
    /// A write that fails leaves nothing behind.
    pub(super) all_or_nothing: bool,
    form: Form,
    /// What a terminal is given in place of what was written.
    shielded: Vec<u8>,
}

impl Sink {
    /// Standard output. A copy of the descriptor, since the standard library's own splits what is written at newlines.
    pub(super) fn stdout(form: Form) -> Result<Self, Error> {
        let stdout = rustix::stdio::stdout();
        let file = stdout.try_clone_to_owned().map_err(|source| Error::Write { to: "stdout".into(), source })?;
        Ok(Sink::new(File::from(file), None, form))
    }

    fn new(file: File, path: Option<PathBuf>, form: Form) -> Self {
        Sink { is_terminal: file.is_terminal(), all_or_nothing: false, file, path, form, shielded: Vec::new() }
    }

    /// Appends to a file, which is made when it is not there. Links in its path are followed now and never again.
    pub(super) fn file(path: &Path, form: Form) -> Result<Self, Error> {
        let opened = match (path.canonicalize(), std::fs::metadata(path)) {
            (Ok(resolved), Ok(there)) if there.is_file() => {
                open(&resolved, OFlags::empty()).map(|file| (file, resolved))
            }
            // A pipe or a device; or /dev/stdout, which leads to a file that may have no path.
            (resolved, Ok(_)) => {
                let file = File::options().append(true).open(path);
                file.map(|file| (file, resolved.unwrap_or_else(|_| path.to_owned())))
            }
            _ => resolve(path).and_then(|resolved| Ok((open(&resolved, OFlags::CREATE)?, resolved))),
        };
        let (file, path) = opened.map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Sink::new(file, Some(path), form))
    }

    /// What has become of the file, if it is no longer the one under its name.
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
            // What is there cannot be seen.
            Err(_) => None,
        }
    }

    /// Opens the file that is under the name now, or makes it with the permissions of the one before, its owner and group
    /// as far as we may give it away.
    pub(super) fn anew(&self) -> Result<Self, Error> {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let ours = self.file.metadata().map_err(failed)?;
        // Nobody else may read it before it is theirs.
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
                // A pipe would be waited for.
                let there = open(path, OFlags::NONBLOCK).map_err(|error| {
                    match error.raw_os_error().map(Errno::from_raw_os_error) {
                        // A folder, or a pipe that nobody reads.
                        Some(Errno::ISDIR | Errno::NXIO) => failed(io::Error::other(NOT_REGULAR)),
                        _ => failed(error),
                    }
                })?;
                trust(&there, &ours).map_err(failed)?;
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

    /// The file behind a path, if it is no device and no pipe.
    pub(super) fn regular_file(&self) -> Option<(&Path, &File)> {
        let is_regular = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        self.path.as_deref().filter(|_| is_regular).map(|path| (path, &self.file))
    }

    /// How wide it is, if it is a terminal.
    pub(super) fn columns(&self) -> Option<usize> {
        self.is_terminal.then(|| usize::from(status_line::columns(&self.file)))
    }

    /// Returns when the kernel has taken all of it. Of text these are whole lines.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.append(bytes).map_err(|(_, error)| error)
    }

    /// As `write`. On an error: how much of it is written all the same. Of a file an incomplete line is cut off its end,
    /// and where it takes `all_or_nothing` all of it, unless somebody else has appended to it meanwhile.
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
                // Another holder of the same terminal or pipe made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait();
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

    /// Cuts off the file what was just written at its end, if that is still there.
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

    fn wait(&self) {
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

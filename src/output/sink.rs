//! Where records go: stdout, or a file they are appended to.
//!
//! Unbuffered on purpose: the printer gathers, and what it hands over here has left the process when the call returns.
//! Whatever goes to a terminal is made safe for it here, by whoever it was written.
//! A file is known by its name, as to who looks for it there: when it is moved away or removed, another takes its place.

use super::terminal::{self, Form};
use super::{Displaced, Error, status};
use rustix::event::{PollFd, PollFlags};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The one place that data leaves by.
pub(super) struct Sink {
    file: File,
    /// Of a file, without links in it.
    path: Option<PathBuf>,
    pub(super) is_terminal: bool,
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
        Sink { is_terminal: file.is_terminal(), file, path, form, shielded: Vec::new() }
    }

    /// Appends to a file, which is made when it is not there.
    pub(super) fn file(path: &Path, form: Form) -> Result<Self, Error> {
        let opened = File::options().append(true).create(true).open(path);
        let file = opened.map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Sink::new(file, Some(path.canonicalize().unwrap_or_else(|_| path.to_owned())), form))
    }

    /// What has become of the file, if it is no longer the one under its name.
    pub(super) fn displaced(&self) -> Option<Displaced> {
        let (path, file) = self.regular_file()?;
        let ours = file.metadata().ok()?;
        match std::fs::metadata(path) {
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
        // A pipe would be waited for.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(failed(io::Error::other("it is no regular file any more")));
        }
        let ours = self.file.metadata().map_err(failed)?;
        // Nobody else may read it before it is theirs.
        match File::options().append(true).create_new(true).mode(0o600).open(path) {
            Ok(made) => {
                if fchown(&made, Some(ours.uid()), Some(ours.gid())).is_err() {
                    let _ = fchown(&made, None, Some(ours.gid()));
                }
                let mode = PermissionsExt::from_mode(ours.permissions().mode() & 0o777);
                made.set_permissions(mode).map_err(failed)?;
                Ok(Sink::new(made, self.path.clone(), self.form))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Sink::file(path, self.form),
            Err(error) => Err(failed(error)),
        }
    }

    /// The file behind a path, if it is no device and no pipe.
    pub(super) fn regular_file(&self) -> Option<(&Path, &File)> {
        let is_regular = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        self.path.as_deref().filter(|_| is_regular).map(|path| (path, &self.file))
    }

    /// How wide it is, if it is a terminal.
    pub(super) fn columns(&self) -> Option<usize> {
        self.is_terminal.then(|| usize::from(status::columns(&self.file)))
    }

    /// Returns when the kernel has taken all of it. Of text these are whole lines.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.is_terminal {
            return self.put(bytes);
        }
        let mut shielded = std::mem::take(&mut self.shielded);
        shielded.clear();
        terminal::shield(bytes, self.form, &mut shielded);
        let written = self.put(&shielded);
        self.shielded = shielded;
        written
    }

    fn put(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match (&self.file).write(bytes) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another holder of the same terminal or pipe made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(),
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
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

//! The file that lines are appended to: who else writes to it, where it counts from, and what takes its place.
//!
//! In: the printer, and of a run with positions their keeper. Called by [`super::resume`] and [`super::watch`] at the start
//! and by [`super::deliver`] before it writes. A file is rotated by its name: once it is moved away or removed, another one
//! takes its place, and no line is written to both.

use super::Error;
use super::keep::{Keeper, born};
use crate::batch::Item;
use crate::output::{self, Displaced, Printer};
use crate::state::{Held, Output};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at what is under the file's name, while something is written.
const LOOK: Duration = Duration::from_millis(200);

/// What is written to the file may stand among what others write; not where a run has it for itself.
pub(super) fn share(path: &Path, file: &File) -> Result<(), Error> {
    lock(path, file, FlockOperation::NonBlockingLockShared)
}

/// Nobody else may write to it.
pub(super) fn own(path: &Path, file: &File) -> Result<(), Error> {
    lock(path, file, FlockOperation::NonBlockingLockExclusive)
}

fn lock(path: &Path, file: &File, operation: FlockOperation) -> Result<(), Error> {
    // Not every file system has locks, so other errors are none.
    if flock(file, operation) == Err(Errno::WOULDBLOCK) {
        return Err(Error::OutputInUse { path: path.to_owned() });
    }
    Ok(())
}

/// Another descriptor of it, for who keeps how long it is.
pub(super) fn copy(path: &Path, file: &File) -> Result<File, Error> {
    file.try_clone().map_err(|source| failed(path, source))
}

/// What is written to the file counts from the last commit on: what a run that did not end well wrote behind it is cut
/// off. A sentence where that was so, or where somebody else has changed the file.
pub(super) fn cut(held: &Held, path: &Path, file: &File) -> Result<Option<String>, Error> {
    let failed = |source: io::Error| failed(path, source);
    let metadata = file.metadata().map_err(failed)?;
    match held.output(path)? {
        Some(known) if is(&metadata, &known) => cut_back(path, file, metadata.len(), &known),
        known => {
            sync_folder(path)?;
            known.filter(|known| !known.is_closed).map_or(Ok(None), |known| cut_moved(path, &known))
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    output::Error::Write { to: path.display().to_string(), source }.into()
}

/// A file that was just made is there after a power cut once its folder is on disk.
fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().map(File::open).transpose();
    let synced = folder.and_then(|folder| folder.map_or(Ok(()), |folder| folder.sync_all()));
    synced.map_err(|source| failed(path, source))
}

/// Numbers of removed files are given to new ones, which are others' and not to be cut.
fn is(metadata: &Metadata, known: &Output) -> bool {
    let is_born_then = known.born.is_none() || born(metadata) == known.born;
    (metadata.dev(), metadata.ino()) == (known.device, known.inode) && is_born_then
}

fn cut_back(path: &Path, file: &File, length: u64, known: &Output) -> Result<Option<String>, Error> {
    let path = path.display();
    if length < known.length {
        return Ok(Some(format!("{path} is shorter than it was: its end is gone on from")));
    }
    let behind = length - known.length;
    if behind == 0 {
        return Ok(None);
    }
    if known.is_closed {
        return Ok(Some(format!("{path}: {behind} bytes were added that are not ours: they are left")));
    }
    file.set_len(known.length).map_err(|source| output::Error::Write { to: path.to_string(), source })?;
    let told = "bytes behind the last commit are cut off and read again: the run that wrote them did not end well";
    Ok(Some(format!("{path}: {behind} {told}")))
}

/// The run that did not end well wrote to a file that has been moved away since; not far, as files are rotated.
fn cut_moved(path: &Path, known: &Output) -> Result<Option<String>, Error> {
    let beside = fs::read_dir(path.parent().unwrap_or(Path::new("/"))).into_iter().flatten().flatten();
    for entry in beside.filter(|entry| entry.metadata().is_ok_and(|metadata| is(&metadata, known))) {
        let moved = entry.path();
        let Ok(file) = File::options().write(true).open(&moved) else { continue };
        let metadata = file.metadata().map_err(|source| failed(&moved, source))?;
        // Where that cannot be proven, or another run writes to it now, it is left as it is.
        if is(&metadata, known) && known.born.is_some() && own(&moved, &file).is_ok() {
            return cut_back(&moved, &file, metadata.len(), known);
        }
    }
    let told =
        "is another file than the last run wrote, which did not end well: the last lines of that one may come again";
    Ok(Some(format!("{} {told}", path.display())))
}

/// Sees to it that what is under the file's name is what is written to.
pub(super) struct Rollover {
    /// The next look.
    next: Instant,
    /// How long the file was when it was last seen under its name.
    length: u64,
    /// That it cannot be replaced was told.
    is_told: bool,
}

impl Rollover {
    /// The file has just been opened.
    pub(super) fn new() -> Self {
        Rollover { next: Instant::now(), length: 0, is_told: false }
    }

    /// To be called before something is written. An error where what is written would be lost.
    pub(super) fn look(&mut self, printer: &mut Printer, keeper: Option<&mut Keeper>) -> Result<(), Error> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.next = now + LOOK;
        self.look_at_once(printer, keeper)
    }

    /// The same, however short the last look was ago.
    pub(super) fn look_at_once(&mut self, printer: &mut Printer, keeper: Option<&mut Keeper>) -> Result<(), Error> {
        let Some((path, length)) = place(printer) else { return Ok(()) };
        let Some(displaced) = printer.displaced() else {
            (self.length, self.is_told) = (length, false);
            return Ok(());
        };
        let replaced = match displaced {
            Displaced::Moved => "was moved away",
            Displaced::Removed => "was removed",
        };
        let path = path.display();
        match replace(printer, keeper, displaced) {
            Ok(true) if displaced == Displaced::Removed && length > self.length => {
                let lost = length - self.length;
                let text = format!(
                    "{path} {replaced}, and with it up to {lost} bytes that were written since it was last seen: a new one is written"
                );
                self.length = 0;
                Ok(printer.warn(&text)?)
            }
            Ok(true) => {
                self.length = 0;
                Ok(printer.take(&Item::Notice(None, format!("{path} {replaced}: a new one is written")))?)
            }
            // The state is busy.
            Ok(false) => Ok(()),
            // Where it is now it can still be read.
            Err(error) if displaced == Displaced::Moved => {
                let cause = match error {
                    Error::Output(output::Error::Open { source, .. }) => source.to_string(),
                    Error::OutputInUse { .. } => error.to_string(),
                    error => return Err(error),
                };
                if std::mem::replace(&mut self.is_told, true) {
                    return Ok(());
                }
                let text = format!(
                    "{path} {replaced} and cannot be opened anew, so it is written to where it is now: {cause}"
                );
                Ok(printer.warn(&text)?)
            }
            Err(error) => Err(error),
        }
    }
}

fn place(printer: &Printer) -> Option<(PathBuf, u64)> {
    let (path, file) = printer.file()?;
    Some((path.to_owned(), file.metadata().ok()?.len()))
}

/// False where that has to wait.
fn replace(printer: &mut Printer, keeper: Option<&mut Keeper>, displaced: Displaced) -> Result<bool, Error> {
    let successor = printer.successor()?;
    // Moved away again meanwhile; or a file system that numbers files anew each time tells nothing by its numbers.
    let Some((path, file)) = successor.file().filter(|_| !successor.is_displaced()) else { return Ok(false) };
    let is_done = match keeper {
        Some(keeper) => {
            own(path, file)?;
            sync_folder(path)?;
            let copy = copy(path, file)?;
            // A part of what was taken may be in the moved one already: all of it goes there, and counts. Of what is gone
            // nothing counts that is not kept yet.
            if displaced == Displaced::Moved {
                printer.flush()?;
                keeper.flushed();
            }
            keeper.replace(path.to_owned(), copy)?
        }
        None => share(path, file).map(|()| true)?,
    };
    if is_done {
        printer.replace(successor);
    }
    Ok(is_done)
}

//! The output file, FILE of `-o FILE`: its lock, and its successors under rotation.
//!
//! In: the printer, and with `--resume` the checkpointer. Called by `watch` at the start and by [`super`] before it
//! writes. Rotation is detected by name: once FILE was moved away or removed, a new file of that name takes its place.
//! No line is written to both.

use super::checkpoint::Checkpointer;
use crate::commands::Error;
use crate::model::batch::Item;
use crate::model::report_once::Once;
use crate::output::{self, Displaced, Printer};
use crate::state::OutputLock;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Minimum time between two checks of the file's name.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Locks the printer's file for this run alone, or shared with other runs that only append. Fails if another run holds
/// a conflicting lock. `state` is the path of the state file, next to which the lock file is created.
pub(crate) fn lock(state: &Path, printer: &Printer, is_shared: bool) -> Result<Option<OutputLock>, Error> {
    let Some((path, _)) = printer.file() else { return Ok(None) };
    match OutputLock::take(state, path, is_shared) {
        Ok(None) => Err(Error::OutputInUse { path: path.to_owned() }),
        // A run without positions needs no state, so it does not fail for lack of a place for one.
        Err(_) if is_shared => Ok(None),
        taken => Ok(taken?),
    }
}

/// Duplicates the file descriptor, for the checkpointer.
pub(crate) fn copy(path: &Path, file: &File) -> Result<File, Error> {
    file.try_clone().map_err(|source| failed(path, source))
}

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
    output::Error::Write { to: path.display().to_string(), source }.into()
}

/// Syncs the folder of a file. Only then does a new file survive a power failure.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().map(File::open).transpose();
    let synced = folder.and_then(|folder| folder.map_or(Ok(()), |folder| folder.sync_all()));
    synced.map_err(|source| failed(path, source))
}

/// Switches to a new file once the open one is no longer the file of that name.
pub(crate) struct Rollover {
    /// Time of the next check.
    next: Instant,
    /// Length in bytes at the last check at which the file had its name.
    length: u64,
    /// A failure to open a new file was reported, and no check has succeeded since.
    warned: Once,
}

impl Rollover {
    /// For a file that was just opened.
    pub(crate) fn new() -> Self {
        Rollover { next: Instant::now(), length: 0, warned: Once::default() }
    }

    /// Checks the file's name, unless that was done within [`CHECK_INTERVAL`]. Call it before each write; it fails if
    /// the write would be lost.
    pub(crate) fn check(
        &mut self,
        printer: &mut Printer,
        checkpointer: Option<&mut Checkpointer>,
    ) -> Result<(), Error> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.next = now + CHECK_INTERVAL;
        self.check_now(printer, checkpointer)
    }

    /// Checks the file's name now.
    pub(crate) fn check_now(
        &mut self,
        printer: &mut Printer,
        checkpointer: Option<&mut Checkpointer>,
    ) -> Result<(), Error> {
        let Some((path, length)) = path_and_length(printer) else { return Ok(()) };
        let Some(displaced) = printer.displaced() else {
            self.length = length;
            self.warned.reset();
            return Ok(());
        };
        let what = match displaced {
            Displaced::Moved => "was moved away",
            Displaced::Removed => "was removed",
        };
        let path = path.display();
        match replace(printer, checkpointer, displaced) {
            Ok(true) if displaced == Displaced::Removed && length > self.length => {
                let lost = length - self.length;
                let text = format!(
                    "{path} {what}, and with it up to {lost} bytes written since the last check: continuing in a new file"
                );
                self.length = 0;
                Ok(printer.warn(&text)?)
            }
            Ok(true) => {
                self.length = 0;
                Ok(printer.take(&Item::Notice(None, format!("{path} {what}: continuing in a new file")))?)
            }
            // It has to wait. The next check tries again.
            Ok(false) => Ok(()),
            // The moved file can still be read, so writing to it loses nothing.
            Err(error) if displaced == Displaced::Moved => {
                let cause = match error {
                    Error::Output(output::Error::Open { source, .. }) => source.to_string(),
                    error => return Err(error),
                };
                if !self.warned.is_first() {
                    return Ok(());
                }
                let text =
                    format!("{path} {what} and cannot be reopened, so lines still go to the moved file: {cause}");
                Ok(printer.warn(&text)?)
            }
            Err(error) => Err(error),
        }
    }
}

fn path_and_length(printer: &Printer) -> Option<(PathBuf, u64)> {
    let (path, file) = printer.file()?;
    Some((path.to_owned(), file.metadata().ok()?.len()))
}

/// Opens a new file and writes to it from now on. Returns false if that has to wait, because the state is busy or the
/// new file was displaced, too.
fn replace(
    printer: &mut Printer,
    checkpointer: Option<&mut Checkpointer>,
    displaced: Displaced,
) -> Result<bool, Error> {
    let successor = printer.successor()?;
    // A new file that is displaced at once was either rotated again, or its file system assigns new inode numbers at
    // each lookup, so that they prove nothing.
    let Some((path, file)) = successor.file().filter(|_| !successor.is_displaced()) else { return Ok(false) };
    let is_done = match checkpointer {
        Some(checkpointer) => {
            sync_folder(path)?;
            let copy = copy(path, file)?;
            // A part of the buffered lines may be in the moved file already, so all of them go there and are committed
            // with it. What went to a removed file and is not committed yet is never committed.
            if displaced == Displaced::Moved {
                checkpointer.flush(printer)?;
            }
            checkpointer.replace(path.to_owned(), copy)?
        }
        None => true,
    };
    if is_done {
        printer.replace(successor);
    }
    Ok(is_done)
}

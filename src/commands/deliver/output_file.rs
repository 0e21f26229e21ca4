//! The file that lines are appended to: who else writes to it, where it counts from, and what takes its place.
//!
//! In: the printer, and of a run with positions their keeper. Called by [`super::resume`] and [`super::watch`] at the start
//! and by [`super::deliver`] before it writes. A file is rotated by its name: once it is moved away or removed, another one
//! takes its place, and no line is written to both.

use super::checkpoint::Checkpointer;
use crate::commands::Error;
use crate::model::batch::Item;
use crate::output::{self, Displaced, Printer};
use crate::state::OutputLock;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at what is under the file's name, while something is written.
const LOOK: Duration = Duration::from_millis(200);

/// Takes the right to write to the printer's file: alone, or shared with other runs that only append.
pub(crate) fn lock(state: &Path, printer: &Printer, is_shared: bool) -> Result<Option<OutputLock>, Error> {
    let Some((path, _)) = printer.file() else { return Ok(None) };
    match OutputLock::take(state, path, is_shared) {
        Ok(None) => Err(Error::OutputInUse { path: path.to_owned() }),
        // Whoever keeps no positions does without a place for a state.
        Err(_) if is_shared => Ok(None),
        taken => Ok(taken?),
    }
}

/// Another descriptor of it, for who keeps how long it is.
pub(crate) fn copy(path: &Path, file: &File) -> Result<File, Error> {
    file.try_clone().map_err(|source| failed(path, source))
}

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
    output::Error::Write { to: path.display().to_string(), source }.into()
}

/// A file that was just made is there after a power cut once its folder is on disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().map(File::open).transpose();
    let synced = folder.and_then(|folder| folder.map_or(Ok(()), |folder| folder.sync_all()));
    synced.map_err(|source| failed(path, source))
}

/// Sees to it that what is under the file's name is what is written to.
pub(crate) struct Rollover {
    /// The next look.
    next: Instant,
    /// How long the file was when it was last seen under its name.
    length: u64,
    /// That it cannot be replaced was told.
    is_told: bool,
}

impl Rollover {
    /// The file has just been opened.
    pub(crate) fn new() -> Self {
        Rollover { next: Instant::now(), length: 0, is_told: false }
    }

    /// To be called before something is written. An error where what is written would be lost.
    pub(crate) fn look(&mut self, printer: &mut Printer, keeper: Option<&mut Checkpointer>) -> Result<(), Error> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.next = now + LOOK;
        self.look_at_once(printer, keeper)
    }

    /// The same, however short the last look was ago.
    pub(crate) fn look_at_once(
        &mut self,
        printer: &mut Printer,
        keeper: Option<&mut Checkpointer>,
    ) -> Result<(), Error> {
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
fn replace(printer: &mut Printer, keeper: Option<&mut Checkpointer>, displaced: Displaced) -> Result<bool, Error> {
    let successor = printer.successor()?;
    // Moved away again meanwhile; or a file system that numbers files anew each time tells nothing by its numbers.
    let Some((path, file)) = successor.file().filter(|_| !successor.is_displaced()) else { return Ok(false) };
    let is_done = match keeper {
        Some(keeper) => {
            sync_folder(path)?;
            let copy = copy(path, file)?;
            // A part of what was taken may be in the moved one already: all of it goes there, and counts. Of what is gone
            // nothing counts that is not kept yet.
            if displaced == Displaced::Moved {
                keeper.flush(printer)?;
            }
            keeper.replace(path.to_owned(), copy)?
        }
        None => true,
    };
    if is_done {
        printer.replace(successor);
    }
    Ok(is_done)
}

//! `--resume`: where the last run of a name stopped, and the file it wrote.
//!
//! In: the state and the first listing. Out: a position for each container that was read before, and a `Keeper` for
//! what follows. Called by [`super::watch`] before anything is read.

use super::Error;
use super::keep::Keeper;
use crate::batch::Route;
use crate::container::Container;
use crate::output::Printer;
use crate::position::{self, Position};
use crate::state::{Held, Saved, Store};
use crate::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is to be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The state file.
    pub state: PathBuf,
    /// The name that positions are kept under.
    pub name: String,
}

/// The last run of a name.
pub(super) struct Last {
    held: Held,
    saved: HashMap<String, Saved>,
    pub(super) is_first: bool,
    passed_over: HashMap<String, Saved>,
}

impl Last {
    /// Takes the name, or tells who has it.
    pub(super) fn open(store: &Store, resume: &Resume, engine_id: &str) -> Result<Last, Error> {
        let held = store.hold(engine_id, &resume.name)?;
        let (saved, is_first) = (held.positions()?, held.is_new());
        Ok(Last { held, saved, is_first, passed_over: HashMap::new() })
    }

    /// Forgets containers that are gone; a sentence about those whose last lines nobody can read any more.
    pub(super) fn forget_gone(&mut self, listing: &[Container]) -> Result<Option<String>, Error> {
        let gone = self.held.forget_all_but(listing.iter().map(|container| container.id.as_str()))?;
        let mut lost: Vec<String> = Vec::new();
        for (id, saved) in gone {
            self.saved.remove(&id);
            if !saved.ended {
                lost.push(saved.name);
            }
        }
        lost.sort_unstable();
        Ok(super::lost(&lost))
    }

    /// Before a first run: of these containers only what they write from now on is wanted.
    pub(super) fn pass_over<'a>(&mut self, standing: impl Iterator<Item = &'a Container>, now: Timestamp) {
        let position = Position { route: Route::Stream, resume: position::Resume::at(Some(now)), place: None };
        let saved = |container: &Container| Saved { name: container.name.clone(), position, ended: true };
        self.passed_over.extend(standing.map(|container| (container.id.clone(), saved(container))));
    }

    /// What is written to a file counts from the last commit on: what a run that did not end well wrote behind it is cut
    /// off. A sentence where that was so, or where somebody else has changed the file.
    pub(super) fn keep(self, printer: &Printer) -> Result<(Keeper, Positions, Option<String>), Error> {
        let Last { held, saved, is_first, passed_over } = self;
        let positions = Positions { is_first, of: saved.into_iter().map(|(id, saved)| (id, saved.position)).collect() };
        let Some((path, file)) = printer.file() else {
            return Ok((Keeper::start(held, None, passed_over)?, positions, None));
        };
        let failed = |source: io::Error| crate::output::Error::Write { to: path.display().to_string(), source };
        let path = path.canonicalize().map_err(failed)?;
        let file = file.try_clone().map_err(failed)?;
        lock(&path, &file, FlockOperation::NonBlockingLockExclusive)?;
        let told = cut(&held, &path, &file)?;
        Ok((Keeper::start(held, Some((path, file)), passed_over)?, positions, told))
    }
}

/// What is written to the file may stand among what others write; not where a run has it for itself.
pub(super) fn share(printer: &Printer) -> Result<(), Error> {
    printer.file().map_or(Ok(()), |(path, file)| lock(path, file, FlockOperation::NonBlockingLockShared))
}

fn lock(path: &Path, file: &File, operation: FlockOperation) -> Result<(), Error> {
    // Not every file system has locks, so other errors are none.
    if flock(file, operation) == Err(Errno::WOULDBLOCK) {
        return Err(Error::OutputInUse { path: path.to_owned() });
    }
    Ok(())
}

fn cut(held: &Held, path: &Path, file: &File) -> Result<Option<String>, Error> {
    let failed = |source: io::Error| crate::output::Error::Write { to: path.display().to_string(), source };
    let metadata = file.metadata().map_err(failed)?;
    let known = held.output(path)?.filter(|known| (known.device, known.inode) == (metadata.dev(), metadata.ino()));
    let Some(known) = known else {
        // A file that was just made is there after a power cut once its folder is on disk.
        let folder = path.parent().map(File::open);
        folder.transpose().and_then(|folder| folder.map_or(Ok(()), |folder| folder.sync_all())).map_err(failed)?;
        return Ok(None);
    };
    if metadata.len() < known.length {
        return Ok(Some(format!("{} is shorter than it was: its end is gone on from", path.display())));
    }
    let behind = metadata.len() - known.length;
    if behind > 0 && known.is_closed {
        let told = "bytes were added that are not ours: they are left";
        return Ok(Some(format!("{}: {behind} {told}", path.display())));
    }
    if behind > 0 {
        file.set_len(known.length).map_err(failed)?;
        let told = "bytes behind the last commit are cut off and read again: the run that wrote them did not end well";
        return Ok(Some(format!("{}: {behind} {told}", path.display())));
    }
    Ok(None)
}

/// Where containers were, as of the last run.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// There was none.
    pub(super) is_first: bool,
    of: HashMap<String, Position>,
}

impl Positions {
    /// Where to go on with a container; it is asked for once.
    pub(super) fn take(&mut self, id: &str) -> Option<Position> {
        self.of.remove(id)
    }
}

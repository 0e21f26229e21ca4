//! `--resume`: where the last run of a name stopped, and the file it wrote.
//!
//! In: the state and the first listing. Out: a position for each container that was read before, and a `Keeper` for
//! what follows. Called by [`super::watch`] before anything is read.

use super::keep::Keeper;
use super::{Error, appended};
use crate::batch::Route;
use crate::container::Container;
use crate::output::Printer;
use crate::position::{self, Position};
use crate::state::{Held, Saved, Store};
use crate::time::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;

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

    /// The keeper of what follows, and where each container was. A sentence where the file that is written to was cut back,
    /// or somebody else has changed it.
    pub(super) fn keep(self, printer: &Printer) -> Result<(Keeper, Positions, Option<String>), Error> {
        let Last { held, saved, is_first, passed_over } = self;
        let positions = Positions { is_first, of: saved.into_iter().map(|(id, saved)| (id, saved.position)).collect() };
        let Some((path, file)) = printer.file() else {
            return Ok((Keeper::start(held, None, passed_over)?, positions, None));
        };
        appended::own(path, file)?;
        let told = appended::cut(&held, path, file)?;
        let output = (path.to_owned(), appended::copy(path, file)?);
        Ok((Keeper::start(held, Some(output), passed_over)?, positions, told))
    }
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

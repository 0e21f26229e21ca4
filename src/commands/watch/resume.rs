//! `--resume`: where the last run of a name stopped, and the file it wrote.
//!
//! In: the state, the file and the first listing. Out: a position for each container that was read before, and a
//! `Keeper` for what follows. Called by [`super::watch`] before anything is read.

use crate::commands::Error;
use crate::commands::deliver::checkpoint::{Checkpointer, Output, WalLocation};
use crate::commands::deliver::recovery::Recovery;
use crate::commands::deliver::{output_file, wal};
use crate::model::container::Container;
use crate::model::cursor::{Cursor, Route};
use crate::model::position::{self, Position};
use crate::model::time::Timestamp;
use crate::output::{self, Printer};
use crate::state::{HeldName, Saved, Store};
use std::collections::{HashMap, HashSet};
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
pub(crate) struct Last {
    held: HeldName,
    state: PathBuf,
    saved: HashMap<String, Saved>,
    pub(crate) is_first: bool,
    passed_over: HashMap<String, Saved>,
    /// The last entry of the log of the output.
    sequence: u64,
    /// Where lines of the output begin that will be read again.
    unproven_from: Option<u64>,
}

/// A container that was removed before all of its log was read.
pub(crate) struct Lost {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) route: Route,
    /// The last line that was read.
    pub(crate) after: Option<Cursor>,
}

impl Last {
    /// Takes the name, or tells who has it.
    pub(crate) fn open(store: &Store, resume: &Resume, engine_id: &str) -> Result<Last, Error> {
        let held = store.hold(engine_id, &resume.name)?;
        let (saved, is_first) = (held.positions()?, held.is_new());
        let state = resume.state.clone();
        Ok(Last { held, state, saved, is_first, passed_over: HashMap::new(), sequence: 0, unproven_from: None })
    }

    /// Brings positions and output together, whatever the last run left; sentences about what that took.
    pub(crate) fn recover(&mut self, printer: &mut Printer) -> Result<Vec<String>, Error> {
        let format = printer.format();
        let Some((path, file)) = printer.file() else { return Ok(Vec::new()) };
        output_file::sync_folder(path)?;
        let (known, found) = (self.held.output(path)?, wal::read(&self.state, &self.log_path(path)));
        let recovery = Recovery { path, file, known, found, format };
        let recovered = recovery
            .run(&mut self.saved)
            .map_err(|source| Error::Lines(output::Error::Write { to: path.display().to_string(), source }))?;
        printer.write_all_or_nothing();
        (self.sequence, self.unproven_from) = (recovered.sequence, recovered.unproven_from);
        self.is_first &= !recovered.has_found_positions;
        if let Some(repeats) = recovered.repeats {
            printer.skip(repeats);
        }
        Ok(recovered.notices)
    }

    fn log_path(&self, output: &Path) -> PathBuf {
        wal::base(&self.state, self.held.engine_id(), self.held.name(), output)
    }

    /// Forgets containers that are gone; returns those whose last lines nobody can read any more.
    pub(crate) fn forget_gone(&mut self, listing: &[Container]) -> Result<Vec<Lost>, Error> {
        let there: HashSet<&str> = listing.iter().map(|container| container.id.as_str()).collect();
        self.held.forget_all_but(there.iter().copied())?;
        let mut lost = Vec::new();
        self.saved.retain(|id, saved| {
            let is_there = there.contains(id.as_str());
            if !is_there && !saved.ended {
                let (route, after) = (saved.position.route, saved.position.resume.last());
                lost.push(Lost { id: id.clone(), name: saved.name.clone(), route, after });
            }
            is_there
        });
        lost.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(lost)
    }

    /// Before a first run: of these containers only what they write from now on is wanted.
    pub(crate) fn pass_over<'a>(&mut self, standing: impl Iterator<Item = &'a Container>, now: Timestamp) {
        let position = Position { route: Route::Stream, resume: position::TimePosition::at(Some(now)), place: None };
        let saved = |container: &Container| Saved { name: container.name.clone(), position, ended: true };
        self.passed_over.extend(standing.map(|container| (container.id.clone(), saved(container))));
    }

    /// The keeper of what follows, and where each container was.
    pub(crate) fn keep(self, printer: &Printer) -> Result<(Checkpointer, Positions), Error> {
        let output = match printer.file() {
            Some((path, file)) => {
                let log = WalLocation { state: self.state.clone(), base: self.log_path(path), sequence: self.sequence };
                Some(Output {
                    path: path.to_owned(),
                    file: output_file::copy(path, file)?,
                    log,
                    unproven_from: self.unproven_from,
                })
            }
            None => None,
        };
        let Last { held, saved, is_first, passed_over, .. } = self;
        let of = saved.iter().map(|(id, saved)| (id.clone(), saved.position)).collect();
        let known = if output.is_some() { saved.into_iter().chain(passed_over).collect() } else { passed_over };
        Ok((Checkpointer::start(held, output, known)?, Positions { is_first, of }))
    }
}

/// Where containers were, as of the last run.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// There was none.
    pub(crate) is_first: bool,
    of: HashMap<String, Position>,
}

impl Positions {
    /// Where to go on with a container; it is asked for once.
    pub(crate) fn take(&mut self, id: &str) -> Option<Position> {
        self.of.remove(id)
    }
}

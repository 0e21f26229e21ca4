//! `--resume`: continues where the last run with the same name stopped.
//!
//! In: the state, the output file, and the first listing. Out: a position for each container that was read before, and a
//! [`Checkpointer`] for this run. Everything here happens before the first line is read.

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

/// Which run to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// The SQLite file that holds positions.
    pub state: PathBuf,
    /// The name under which positions are stored.
    pub name: String,
}

/// What the last run with this name left behind.
pub(crate) struct Last {
    /// The exclusive right to use the name, for as long as this run lasts.
    held: HeldName,
    state: PathBuf,
    saved: HashMap<String, Saved>,
    /// Whether there was no run with this name before.
    pub(crate) is_first: bool,
    /// Containers of a first run whose history is not wanted.
    passed_over: HashMap<String, Saved>,
    /// The sequence number of the last entry in the write-ahead log.
    sequence: u64,
    /// The offset in the output file from which lines will be read again.
    unproven_from: Option<u64>,
}

/// A container that was removed before all of its log was read.
pub(crate) struct Lost {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) route: Route,
    /// The last line that was delivered.
    pub(crate) after: Option<Cursor>,
}

impl Last {
    /// Takes the name. Fails if another run has it.
    pub(crate) fn open(store: &Store, resume: &Resume, engine_id: &str) -> Result<Last, Error> {
        let held = store.hold(engine_id, &resume.name)?;
        let (saved, is_first) = (held.positions()?, held.is_new());
        let state = resume.state.clone();
        Ok(Last { held, state, saved, is_first, passed_over: HashMap::new(), sequence: 0, unproven_from: None })
    }

    /// Makes positions and output file agree, whatever the last run left. Returns notices about what had to be done.
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

    /// Forgets containers that do not exist any more. Returns those whose last lines were never delivered, by name.
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

    /// In a first run: of these stopped containers, only what they write from `now` on is wanted.
    pub(crate) fn pass_over<'a>(&mut self, stopped: impl Iterator<Item = &'a Container>, now: Timestamp) {
        let position = Position { route: Route::Stream, resume: position::TimePosition::at(Some(now)), place: None };
        let saved = |container: &Container| Saved { name: container.name.clone(), position, ended: true };
        self.passed_over.extend(stopped.map(|container| (container.id.clone(), saved(container))));
    }

    /// Starts the checkpointer, and returns the positions.
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

/// Where the last run stopped in each container's log.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// Whether there was no last run.
    pub(crate) is_first: bool,
    /// By container ID.
    pub(super) of: HashMap<String, Position>,
}

impl Positions {
    /// Takes out the position of a container, which is used once.
    pub(crate) fn take(&mut self, id: &str) -> Option<Position> {
        self.of.remove(id)
    }
}

//! `--resume`: continues where the last run with the same name stopped.
//!
//! In: the state, the output file, and the first listing. Out: a position for each container that was read before, and
//! a [`Checkpointer`] for this run. Everything here happens before the first line is read.

use crate::commands::Error;
use crate::commands::deliver::checkpoint::{Checkpointer, CommittedOutput, WalLocation};
use crate::commands::deliver::recovery::Recovery;
use crate::commands::deliver::{output_file, wal};
use crate::model::container::Container;
use crate::model::line_id::{Cursor, Route};
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
pub(crate) struct LastRun {
    /// The exclusive right to use the name, for as long as this run lasts.
    held: HeldName,
    state: PathBuf,
    saved: HashMap<String, Saved>,
    /// Whether no run with this name came before.
    pub(crate) is_first: bool,
    /// Stopped containers of a first run whose history is skipped.
    skipped: HashMap<String, Saved>,
    /// The sequence number of the last entry in the write-ahead log.
    sequence: u64,
    /// The offset in the output file from which lines will be read again.
    unproven_from: Option<u64>,
}

/// A container that was removed before all of its log was read.
pub(crate) struct LostContainer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) route: Route,
    /// The last line that was delivered.
    pub(crate) after: Option<Cursor>,
}

impl LastRun {
    /// Takes the name. Fails if another run holds it.
    pub(crate) fn open(store: &Store, resume: &Resume, engine_id: &str) -> Result<LastRun, Error> {
        let held = store.hold(engine_id, &resume.name)?;
        let (saved, is_first) = (held.positions()?, held.is_new());
        let state = resume.state.clone();
        Ok(LastRun { held, state, saved, is_first, skipped: HashMap::new(), sequence: 0, unproven_from: None })
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

    /// Deletes the positions of containers that no longer exist. Returns those whose last lines were never delivered,
    /// in the order of their names.
    pub(crate) fn forget_gone(&mut self, listing: &[Container]) -> Result<Vec<LostContainer>, Error> {
        let there: HashSet<&str> = listing.iter().map(|container| container.id.as_str()).collect();
        self.held.forget_all_but(there.iter().copied())?;
        let mut lost = Vec::new();
        self.saved.retain(|id, saved| {
            let is_there = there.contains(id.as_str());
            if !is_there && !saved.ended {
                let (route, after) = (saved.position.route, saved.position.resume.last());
                lost.push(LostContainer { id: id.clone(), name: saved.name.clone(), route, after });
            }
            is_there
        });
        lost.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(lost)
    }

    /// For a first run: of these stopped containers, only what they write from `now` on is printed.
    pub(crate) fn skip_history<'a>(&mut self, stopped: impl Iterator<Item = &'a Container>, now: Timestamp) {
        let position = Position { route: Route::Stream, resume: position::TimePosition::at(Some(now)), place: None };
        let saved = |container: &Container| Saved { name: container.name.clone(), position, ended: true };
        self.skipped.extend(stopped.map(|container| (container.id.clone(), saved(container))));
    }

    /// Starts the checkpointer, and returns it with the positions.
    pub(crate) fn start_checkpointer(self, printer: &Printer) -> Result<(Checkpointer, Positions), Error> {
        let output = match printer.file() {
            Some((path, file)) => {
                let log = WalLocation { state: self.state.clone(), base: self.log_path(path), sequence: self.sequence };
                Some(CommittedOutput {
                    path: path.to_owned(),
                    file: output_file::copy(path, file)?,
                    log,
                    unproven_from: self.unproven_from,
                })
            }
            None => None,
        };
        let LastRun { held, saved, is_first, skipped, .. } = self;
        let by_id = saved.iter().map(|(id, saved)| (id.clone(), saved.position)).collect();
        let known = if output.is_some() { saved.into_iter().chain(skipped).collect() } else { skipped };
        Ok((Checkpointer::start(held, output, known)?, Positions { is_first, by_id }))
    }
}

/// Where the last run stopped in each container's log.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// Whether no run with this name came before.
    pub(crate) is_first: bool,
    /// The positions that were not used yet, by container ID.
    pub(super) by_id: HashMap<String, Position>,
}

impl Positions {
    /// Removes and returns the position of a container: it is used only once.
    pub(crate) fn take(&mut self, id: &str) -> Option<Position> {
        self.by_id.remove(id)
    }
}

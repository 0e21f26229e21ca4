//! Keeps how far each container was passed on, behind the output.
//!
//! In: items as the output takes them, and word of when it is out. Out: commits to the state, at most one at a time and a
//! few a second. Called by [`super::deliver`]. A position is kept only once all that comes before it was written, so a
//! crash can repeat lines and never skip any. What goes to a file goes to its write-ahead log first ([`super::wal`]),
//! so there not even a crash repeats one.

use super::recovery;
use super::wal::{self, Change, Wal};
use crate::model::batch::{Batch, ContainerKey, Item, Line};
use crate::model::file_id::born;
use crate::model::health::{SharedHealth, Status};
use crate::model::position::Position;
use crate::output::Printer;
use crate::state::{self, Commit, Held, Saved, Written};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Between two commits.
const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct Checkpointer {
    held: Held,
    output: Option<Output>,
    /// The log of `output`. There is none before the first commit has succeeded, and nothing is written until then.
    wal: Option<Wal>,
    names: HashMap<ContainerKey, (String, String)>,
    /// The position of each container behind everything that the output has written.
    reached: HashMap<String, Saved>,
    /// The last entry of the log whose bytes the output has written.
    sequence: u64,
    /// The last write failed, and nothing of it is left in the output.
    is_cut: bool,
    /// Of what the output has taken and perhaps not written.
    taken: Changes,
    /// Of what it has written.
    written: Changes,
    commit: Option<Committing>,
    next: Instant,
    /// Where it is told whether commits succeed.
    health: SharedHealth,
}

/// The file that is written to.
pub(crate) struct Output {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// What goes there goes to this log first.
    pub(crate) log: Log,
    /// What is behind it does not count as committed, as long as lines of it are expected to come again.
    pub(crate) unproven_from: Option<u64>,
}

/// The write-ahead log of an output.
pub(crate) struct Log {
    /// The state file that it lies beside.
    pub(crate) state: PathBuf,
    /// Its path without the number of a segment.
    pub(crate) base: PathBuf,
    /// The last entry of the run before.
    pub(crate) sequence: u64,
}

type Changes = HashMap<String, Change>;

/// A commit under way: how it ends, and what to say again if it fails.
struct Committing {
    ended: Receiver<Result<(), state::Error>>,
    changes: Changes,
    /// The last entry of the log that it includes.
    sequence: u64,
}

impl Log {
    fn failed(&self, source: io::Error) -> state::Error {
        match source.kind() {
            io::ErrorKind::StorageFull => state::Error::Full { path: self.state.clone(), source: source.into() },
            _ => state::Error::OutputLog { path: self.base.clone(), source },
        }
    }
}

impl Checkpointer {
    /// Commits first how far each container is known to have been read, and how long the file is; then begins its log.
    pub(crate) fn start(
        held: Held,
        output: Option<Output>,
        known: HashMap<String, Saved>,
    ) -> Result<Self, state::Error> {
        let sequence = output.as_ref().map_or(0, |output| output.log.sequence);
        let mut keeper = Checkpointer {
            held,
            output,
            wal: None,
            sequence,
            is_cut: false,
            names: HashMap::new(),
            taken: Changes::new(),
            written: known.iter().map(|(id, saved)| (id.clone(), Change::Saved(saved.clone()))).collect(),
            reached: known,
            commit: None,
            next: Instant::now(),
            health: SharedHealth::default(),
        };
        keeper.commit(false)?;
        if keeper.settle()? {
            keeper.begin_log()?;
        }
        Ok(keeper)
    }

    /// Begins the log once the run before has no need of its own any more.
    fn begin_log(&mut self) -> Result<(), state::Error> {
        let Some(output) = &self.output else { return Ok(()) };
        let begin = || {
            let end = output.unproven_from.map_or_else(|| Ok(output.file.metadata()?.len()), Ok::<_, io::Error>)?;
            let written = (recovery::file_ref(&output.file)?, end);
            Wal::start(&output.log.state, &output.log.base, output.log.sequence, self.reached.clone(), written)
        };
        let wal = begin().map_err(|error| output.log.failed(error))?;
        self.sequence = wal.sequence();
        self.wal = Some(wal);
        Ok(())
    }

    /// Tells there from now on whether commits succeed; those up to here did.
    pub(crate) fn tell(&mut self, health: SharedHealth) {
        self.health = health;
        self.told(Status::Healthy);
    }

    fn told(&self, status: Status) {
        self.health.update(|health| health.state.positions = status);
    }

    /// The output has taken an item.
    pub(crate) fn take(&mut self, item: &Item) {
        match item {
            Item::Meet(key, container) => {
                self.names.insert(*key, (container.id.clone(), container.name.clone()));
            }
            Item::Lines(batch) => {
                if let Some(position) = batch.position {
                    self.reached(batch.key, position);
                }
            }
            Item::Place(key, position) => self.reached(*key, *position),
            Item::End(key, _) => self.ended(*key),
            Item::Gone(key) => {
                if let Some((id, _)) = self.names.remove(key) {
                    self.taken.insert(id, Change::Removed);
                }
            }
            Item::Forget(key) => drop(self.names.remove(key)),
            Item::Begin(..) | Item::Recall(..) | Item::Lifecycle(..) | Item::Notice(..) => {}
        }
    }

    fn reached(&mut self, key: ContainerKey, position: Position) {
        let Some((id, name)) = self.names.get(&key) else { return };
        match self.taken.get_mut(id) {
            Some(Change::Saved(saved)) => (saved.position, saved.ended) = (position, false),
            _ => {
                let saved = Saved { name: name.clone(), position, ended: false };
                self.taken.insert(id.clone(), Change::Saved(saved));
            }
        }
    }

    fn ended(&mut self, key: ContainerKey) {
        let Some((id, _)) = self.names.get(&key) else { return };
        let under_way = self.commit.as_ref().and_then(|commit| commit.changes.get(id));
        let last = self.taken.get(id).or_else(|| self.written.get(id)).or(under_way);
        let change = match last {
            Some(Change::Saved(saved)) => Change::Saved(Saved { ended: true, ..saved.clone() }),
            Some(Change::Removed) => return,
            Some(Change::Ended) | None => Change::Ended,
        };
        self.taken.insert(id.clone(), change);
    }

    /// The output has taken the lines of a batch up to one in its middle.
    pub(crate) fn take_part(&mut self, batch: &Batch, end: usize) {
        let Some((id, name)) = self.names.get(&batch.key) else { return };
        let last = match self.taken.get(id) {
            Some(Change::Saved(saved)) => Some(saved),
            _ => self.reached.get(id),
        };
        let change = recovery::part(last, name, batch.route, batch.lines[..end].iter().map(Line::cursor));
        self.taken.insert(id.clone(), change);
    }

    /// Writes what the printer has gathered, to the log first.
    pub(crate) fn flush(&mut self, printer: &mut Printer) -> Result<(), crate::commands::Error> {
        self.log(printer.buffered())?;
        if let Err(error) = printer.flush() {
            if let Some(wal) = &mut self.wal {
                self.is_cut = printer.written() == 0;
                // Without it the next run looks into the file.
                let _ = wal.fail(printer.written() as u64);
            }
            return Err(error.into());
        }
        self.sequence = self.wal.as_ref().map_or(self.sequence, Wal::sequence);
        if let Some(output) = self.output.as_mut().filter(|_| !printer.is_skipping()) {
            output.unproven_from = None;
        }
        for (id, change) in &self.taken {
            wal::apply(&mut self.reached, id, change);
        }
        self.written.extend(self.taken.drain());
        Ok(())
    }

    fn log(&mut self, bytes: &[u8]) -> Result<(), state::Error> {
        if bytes.is_empty() && self.taken.is_empty() || self.output.is_none() {
            return Ok(());
        }
        // Also when the state was busy at the start: nothing is written that is not logged.
        while self.wal.as_ref().is_none_or(Wal::is_full) {
            self.settle()?;
            self.commit(false)?;
            if self.settle()? && self.wal.is_none() {
                self.begin_log()?;
            }
        }
        let (Some(wal), Some(output)) = (&mut self.wal, &self.output) else { return Ok(()) };
        let mut append = || {
            let (file, end) = (recovery::file_ref(&output.file)?, output.file.metadata()?.len());
            wal.append(file, end, &self.taken, bytes)
        };
        append().map_err(|error| output.log.failed(error))
    }

    /// How long until a commit is due, if one will be.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let is_due = self.commit.is_some() || !self.written.is_empty() || !self.taken.is_empty();
        is_due.then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Whether one is due now.
    pub(crate) fn is_due(&self) -> bool {
        self.patience().is_some_and(|patience| patience.is_zero())
    }

    /// Commits what was written, if the commit before has ended; called when all that was taken is. An error is one that
    /// waiting will not mend.
    pub(crate) fn keep(&mut self) -> Result<(), state::Error> {
        self.next = Instant::now() + PAUSE;
        if let Some(commit) = self.commit.take() {
            match commit.ended.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.commit = Some(commit);
                    return Ok(());
                }
                Err(TryRecvError::Disconnected) => return Err(state::Error::Closed),
                Ok(result) => drop(self.hear(commit.changes, commit.sequence, result)?),
            }
        }
        if self.written.is_empty() { Ok(()) } else { self.commit(false) }
    }

    fn hear(
        &mut self,
        changes: Changes,
        sequence: u64,
        result: Result<(), state::Error>,
    ) -> Result<bool, state::Error> {
        let Err(error) = result else {
            self.told(Status::Healthy);
            if let (Some(wal), Some(output)) = (&mut self.wal, &self.output) {
                wal.commit(sequence).map_err(|error| output.log.failed(error))?;
            }
            return Ok(true);
        };
        self.told(if error.is_passing() { Status::Degraded } else { Status::Unhealthy });
        // What was written since is newer.
        for (id, change) in changes {
            match self.written.get_mut(&id) {
                // But that is all that it says.
                Some(newer @ Change::Ended) => {
                    if let Change::Saved(saved) = change {
                        *newer = Change::Saved(Saved { ended: true, ..saved });
                    }
                }
                Some(_) => {}
                None => drop(self.written.insert(id, change)),
            }
        }
        if !error.is_passing() {
            return Err(error);
        }
        tracing::warn!(%error, "how far each log was read is kept later");
        Ok(false)
    }

    fn commit(&mut self, is_last: bool) -> Result<(), state::Error> {
        let changes = std::mem::take(&mut self.written);
        let mut commit = Commit::default();
        for (id, change) in &changes {
            match change {
                Change::Saved(saved) => commit.positions.push((id.clone(), saved.clone())),
                Change::Ended => commit.ended.push(id.clone()),
                Change::Removed => commit.removed.push(id.clone()),
            }
        }
        let sequence = self.sequence;
        commit.output = self.output.as_ref().map(|output| output.as_it_is(is_last, sequence)).transpose()?;
        let (done, ended) = channel();
        // Nobody hears it when we have left meanwhile.
        self.held.commit(commit, move |result| drop(done.send(result)));
        self.commit = Some(Committing { ended, changes, sequence });
        Ok(())
    }

    /// From now on that file is written to instead, and counts, with what was written to the one before, once that is on
    /// disk. Not if the state is busy: false, and nothing has changed.
    pub(crate) fn replace(&mut self, path: PathBuf, file: File) -> Result<bool, state::Error> {
        self.settle()?;
        let Some(output) = &mut self.output else { return Ok(false) };
        output.file.sync_data().map_err(|source| state::Error::Output { path: output.path.clone(), source })?;
        output.unproven_from = None;
        let (path, file) = (std::mem::replace(&mut output.path, path), std::mem::replace(&mut output.file, file));
        self.commit(false)?;
        let is_done = self.settle()?;
        if let (false, Some(output)) = (is_done, &mut self.output) {
            (output.path, output.file) = (path, file);
        }
        Ok(is_done)
    }

    /// Commits what was written and waits until that is done. Not `is_whole`: the last write failed.
    pub(crate) fn finish(mut self, is_whole: bool) -> Result<(), state::Error> {
        self.settle()?;
        let has_file = self.output.is_some();
        if has_file && !is_whole {
            // What is behind the commit would be taken for written twice by who has the state alone.
            if self.is_cut {
                self.commit(false)?;
                self.settle()?;
            }
            return Ok(());
        }
        if !has_file && self.written.is_empty() {
            return Ok(());
        }
        // Once more, for what was only passing.
        for _ in 0..2 {
            self.commit(true)?;
            self.settle()?;
            if self.written.is_empty() {
                let (wal, output) = (self.wal.as_mut(), self.output.as_ref());
                let cleared =
                    wal.zip(output).map(|(wal, output)| wal.clear().map_err(|error| output.log.failed(error)));
                return cleared.unwrap_or(Ok(()));
            }
        }
        Err(state::Error::Closed)
    }

    /// Waits for the commit under way; false if it was hindered for now.
    fn settle(&mut self) -> Result<bool, state::Error> {
        let Some(Committing { ended, changes, sequence }) = self.commit.take() else { return Ok(true) };
        let result = ended.recv().unwrap_or(Err(state::Error::Closed));
        self.hear(changes, sequence, result)
    }
}

impl Output {
    fn as_it_is(&self, is_last: bool, sequence: u64) -> Result<Written, state::Error> {
        let failed = |source: io::Error| state::Error::Output { path: self.path.clone(), source };
        let metadata = self.file.metadata().map_err(failed)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        let (length, is_last) = (self.unproven_from.unwrap_or(metadata.len()), is_last && self.unproven_from.is_none());
        let file = self.file.try_clone().map_err(failed)?;
        Ok(Written { path: self.path.clone(), file, device, inode, born: born(&metadata), length, is_last, sequence })
    }
}

//! Commits the position of each container to the state, after the output has written the lines before it.
//!
//! In: the items that the printer takes, and each flush. Out: commits, at most one at a time and a few per second.
//! Called by [`super`]. Invariant: a position is committed only once all lines before it are written, so a crash can
//! repeat lines but never skip any. Lines for a file go to the write-ahead log first ([`super::wal`]), so for a file a
//! crash does not even repeat any.

use super::recovery;
use super::wal::{self, PositionChange, Wal};
use crate::model::batch::{Batch, ContainerKey, Item, Line};
use crate::model::file_id::born;
use crate::model::health::{SharedHealth, Status};
use crate::model::position::Position;
use crate::output::Printer;
use crate::state::{self, Commit, HeldName, OutputProgress, Saved};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Minimum time between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Checkpointer {
    /// This run's exclusive use of its resume name in the state.
    held: HeldName,
    /// `None` if the output is not a file.
    output: Option<CommittedOutput>,
    /// Write-ahead log of `output`. `None` until the first commit has succeeded; nothing is written before.
    wal: Option<Wal>,
    /// ID and name of each container in the queue.
    names: HashMap<ContainerKey, (String, String)>,
    /// By container ID, the position after everything that the output has written.
    reached: HashMap<String, Saved>,
    /// Sequence number of the last log entry whose bytes the output has written.
    sequence: u64,
    /// The last write failed before any of its bytes reached the output.
    nothing_written: bool,
    /// Changes of lines that the printer has taken but perhaps not written.
    taken: PositionChanges,
    /// Changes of lines that the printer has written, and that no commit contains yet.
    written: PositionChanges,
    commit: Option<PendingCommit>,
    /// Earliest time of the next commit.
    next: Instant,
    /// Receives the result of each commit.
    health: SharedHealth,
}

/// The output file whose length is committed together with the positions.
pub(crate) struct CommittedOutput {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) log: WalLocation,
    /// Length to commit instead of the file's, as long as the printer still expects the lines after it to be read
    /// again: [`recovery`] explains why.
    pub(crate) unproven_from: Option<u64>,
}

/// Where the write-ahead log of an output file is.
pub(crate) struct WalLocation {
    /// Path of the state file; the log is in the same directory.
    pub(crate) state: PathBuf,
    /// Path of the log without the number of a segment.
    pub(crate) base: PathBuf,
    /// Sequence number of the last entry of the previous run.
    pub(crate) sequence: u64,
}

/// The latest change of each container's position, by container ID.
type PositionChanges = HashMap<String, PositionChange>;

/// A commit under way.
struct PendingCommit {
    ended: Receiver<Result<(), state::Error>>,
    /// What it commits, to be committed again if it fails.
    changes: PositionChanges,
    /// Sequence number of the last log entry that it includes.
    sequence: u64,
}

impl WalLocation {
    fn failed(&self, source: io::Error) -> state::Error {
        match source.kind() {
            io::ErrorKind::StorageFull => state::Error::Full { path: self.state.clone(), source: source.into() },
            _ => state::Error::OutputLog { path: self.base.clone(), source },
        }
    }
}

impl Checkpointer {
    /// Commits the known positions and the length of the file, then begins the write-ahead log.
    pub(crate) fn start(
        held: HeldName,
        output: Option<CommittedOutput>,
        known: HashMap<String, Saved>,
    ) -> Result<Self, state::Error> {
        let sequence = output.as_ref().map_or(0, |output| output.log.sequence);
        let mut checkpointer = Checkpointer {
            held,
            output,
            wal: None,
            sequence,
            nothing_written: false,
            names: HashMap::new(),
            taken: PositionChanges::new(),
            written: known.iter().map(|(id, saved)| (id.clone(), PositionChange::Saved(saved.clone()))).collect(),
            reached: known,
            commit: None,
            next: Instant::now(),
            health: SharedHealth::default(),
        };
        checkpointer.commit(false)?;
        if checkpointer.wait_for_commit()? {
            checkpointer.begin_log()?;
        }
        Ok(checkpointer)
    }

    /// Overwrites the previous run's log with a new one. Its content must be committed before.
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

    /// Reports commit results to `health` from now on. All commits so far have succeeded.
    pub(crate) fn report_to(&mut self, health: SharedHealth) {
        self.health = health;
        self.report(Status::Healthy);
    }

    fn report(&self, status: Status) {
        self.health.update(|health| health.state.positions = status);
    }

    /// Notes the changes of an item that the printer has taken.
    pub(crate) fn take(&mut self, item: &Item) {
        match item {
            Item::Describe(key, container) => {
                self.names.insert(*key, (container.id.clone(), container.name.clone()));
            }
            Item::Lines(batch) => {
                if let Some(position) = batch.position {
                    self.reached(batch.key, position);
                }
            }
            Item::StartAt(key, position) => self.reached(*key, *position),
            Item::End(key, _) => self.ended(*key),
            Item::Removed(key) => {
                if let Some((id, _)) = self.names.remove(key) {
                    self.taken.insert(id, PositionChange::Removed);
                }
            }
            Item::Deselected(key) => drop(self.names.remove(key)),
            Item::Followed(..) | Item::History(..) | Item::Lifecycle(..) | Item::Notice(..) => {}
        }
    }

    fn reached(&mut self, key: ContainerKey, position: Position) {
        let Some((id, name)) = self.names.get(&key) else { return };
        match self.taken.get_mut(id) {
            Some(PositionChange::Saved(saved)) => (saved.position, saved.ended) = (position, false),
            _ => {
                let saved = Saved { name: name.clone(), position, ended: false };
                self.taken.insert(id.clone(), PositionChange::Saved(saved));
            }
        }
    }

    fn ended(&mut self, key: ContainerKey) {
        let Some((id, _)) = self.names.get(&key) else { return };
        let under_way = self.commit.as_ref().and_then(|commit| commit.changes.get(id));
        let last = self.taken.get(id).or_else(|| self.written.get(id)).or(under_way);
        let change = match last {
            Some(PositionChange::Saved(saved)) => PositionChange::Saved(Saved { ended: true, ..saved.clone() }),
            Some(PositionChange::Removed) => return,
            Some(PositionChange::Ended) | None => PositionChange::Ended,
        };
        self.taken.insert(id.clone(), change);
    }

    /// Notes that the printer has taken the lines of a batch before index `end`.
    pub(crate) fn take_part(&mut self, batch: &Batch, end: usize) {
        let Some((id, name)) = self.names.get(&batch.key) else { return };
        let last = match self.taken.get(id) {
            Some(PositionChange::Saved(saved)) => Some(saved),
            _ => self.reached.get(id),
        };
        let change = recovery::partial_change(last, name, batch.route, batch.lines[..end].iter().map(Line::cursor));
        self.taken.insert(id.clone(), change);
    }

    /// Writes the printer's buffer to the log, then to the output.
    pub(crate) fn flush(&mut self, printer: &mut Printer) -> Result<(), crate::commands::Error> {
        self.log(printer.buffered())?;
        if let Err(error) = printer.flush() {
            if let Some(wal) = &mut self.wal {
                self.nothing_written = printer.written() == 0;
                // If this fails, the next run finds out from the file itself.
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
        // Waits for commits until the log has space, or, if the state was busy at the start, until there is a log:
        // nothing is written that is not logged.
        while self.wal.as_ref().is_none_or(Wal::is_full) {
            self.wait_for_commit()?;
            self.commit(false)?;
            if self.wait_for_commit()? && self.wal.is_none() {
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

    /// Returns how long it is until a commit is due; `None` if there is nothing to commit.
    pub(crate) fn time_to_commit(&self) -> Option<Duration> {
        let is_due = self.commit.is_some() || !self.written.is_empty() || !self.taken.is_empty();
        is_due.then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Returns whether a commit is due now.
    pub(crate) fn is_due(&self) -> bool {
        self.time_to_commit().is_some_and(|time| time.is_zero())
    }

    /// Starts a commit of what was written, unless the previous one is still under way. Call it after a flush. Fails
    /// only if a retry cannot help.
    pub(crate) fn checkpoint(&mut self) -> Result<(), state::Error> {
        self.next = Instant::now() + COMMIT_INTERVAL;
        if let Some(commit) = self.commit.take() {
            match commit.ended.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.commit = Some(commit);
                    return Ok(());
                }
                Err(TryRecvError::Disconnected) => return Err(state::Error::Closed),
                Ok(result) => drop(self.complete(commit.changes, commit.sequence, result)?),
            }
        }
        if self.written.is_empty() { Ok(()) } else { self.commit(false) }
    }

    /// Processes the result of a commit. Returns false if it failed and has to be repeated.
    fn complete(
        &mut self,
        changes: PositionChanges,
        sequence: u64,
        result: Result<(), state::Error>,
    ) -> Result<bool, state::Error> {
        let Err(error) = result else {
            self.report(Status::Healthy);
            if let (Some(wal), Some(output)) = (&mut self.wal, &self.output) {
                wal.commit(sequence).map_err(|error| output.log.failed(error))?;
            }
            return Ok(true);
        };
        self.report(if error.is_temporary() { Status::Degraded } else { Status::Unhealthy });
        // Changes that were written since are newer than those of the commit.
        for (id, change) in changes {
            match self.written.get_mut(&id) {
                // `Ended` contains no position, so the position comes from the commit.
                Some(newer @ PositionChange::Ended) => {
                    if let PositionChange::Saved(saved) = change {
                        *newer = PositionChange::Saved(Saved { ended: true, ..saved });
                    }
                }
                Some(_) => {}
                None => drop(self.written.insert(id, change)),
            }
        }
        if !error.is_temporary() {
            return Err(error);
        }
        tracing::warn!(%error, "cannot commit positions; trying again later");
        Ok(false)
    }

    fn commit(&mut self, is_last: bool) -> Result<(), state::Error> {
        let changes = std::mem::take(&mut self.written);
        let mut commit = Commit::default();
        for (id, change) in &changes {
            match change {
                PositionChange::Saved(saved) => commit.positions.push((id.clone(), saved.clone())),
                PositionChange::Ended => commit.ended.push(id.clone()),
                PositionChange::Removed => commit.removed.push(id.clone()),
            }
        }
        let sequence = self.sequence;
        commit.output = self.output.as_ref().map(|output| output.current(is_last, sequence)).transpose()?;
        let (sender, ended) = channel();
        // Sending fails if this checkpointer is gone by then.
        self.held.commit(commit, move |result| drop(sender.send(result)));
        self.commit = Some(PendingCommit { ended, changes, sequence });
        Ok(())
    }

    /// Replaces the output file by a new one, in one commit with everything that was written to the old file, after
    /// that is synced. Returns false if the state is busy; then nothing has changed.
    pub(crate) fn replace(&mut self, path: PathBuf, file: File) -> Result<bool, state::Error> {
        self.wait_for_commit()?;
        let Some(output) = &mut self.output else { return Ok(false) };
        output.file.sync_data().map_err(|source| state::Error::Output { path: output.path.clone(), source })?;
        output.unproven_from = None;
        let (path, file) = (std::mem::replace(&mut output.path, path), std::mem::replace(&mut output.file, file));
        self.commit(false)?;
        let is_done = self.wait_for_commit()?;
        if let (false, Some(output)) = (is_done, &mut self.output) {
            (output.path, output.file) = (path, file);
        }
        Ok(is_done)
    }

    /// Commits what was written and waits for the commit. `is_complete` is false if the last write failed.
    pub(crate) fn finish(mut self, is_complete: bool) -> Result<(), state::Error> {
        self.wait_for_commit()?;
        let has_file = self.output.is_some();
        if has_file && !is_complete {
            // Without a commit, a next run that has the state but not the log would write again what the file holds
            // after the last commit. After a partial write, however, the length of the file does not match the
            // positions: then only the log shows what is in it.
            if self.nothing_written {
                self.commit(false)?;
                self.wait_for_commit()?;
            }
            return Ok(());
        }
        if !has_file && self.written.is_empty() {
            return Ok(());
        }
        // The second try is for a transient failure.
        for _ in 0..2 {
            self.commit(true)?;
            self.wait_for_commit()?;
            if self.written.is_empty() {
                let (wal, output) = (self.wal.as_mut(), self.output.as_ref());
                let cleared =
                    wal.zip(output).map(|(wal, output)| wal.clear().map_err(|error| output.log.failed(error)));
                return cleared.unwrap_or(Ok(()));
            }
        }
        Err(state::Error::Closed)
    }

    /// Waits for the commit under way. Returns false if it failed and has to be repeated.
    fn wait_for_commit(&mut self) -> Result<bool, state::Error> {
        let Some(PendingCommit { ended, changes, sequence }) = self.commit.take() else { return Ok(true) };
        let result = ended.recv().unwrap_or(Err(state::Error::Closed));
        self.complete(changes, sequence, result)
    }
}

impl CommittedOutput {
    /// Describes the file as it is now, for a commit.
    fn current(&self, is_last: bool, sequence: u64) -> Result<OutputProgress, state::Error> {
        let failed = |source: io::Error| state::Error::Output { path: self.path.clone(), source };
        let metadata = self.file.metadata().map_err(failed)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        let (length, is_last) = (self.unproven_from.unwrap_or(metadata.len()), is_last && self.unproven_from.is_none());
        let file = self.file.try_clone().map_err(failed)?;
        Ok(OutputProgress {
            path: self.path.clone(),
            file,
            device,
            inode,
            born: born(&metadata),
            length,
            is_last,
            sequence,
        })
    }
}

//! Keeps how far each container was passed on, behind the output.
//!
//! In: items as the output takes them, and word of when it is out. Out: commits to the state, at most one at a time and a
//! few a second. Called by [`super::deliver`]. A position is kept only once all that comes before it was written, so a
//! crash can repeat lines and never skip any; of a file the length is kept with it, and what the file holds beyond is
//! cut off by the next run, so there not even a crash repeats one.

use crate::batch::{Item, Key};
use crate::health::{Board, Status};
use crate::position::Position;
use crate::state::{self, Commit, Held, Saved, Written};
use crate::time::Timestamp;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Between two commits.
const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Keeper {
    held: Held,
    output: Option<Output>,
    names: HashMap<Key, (String, String)>,
    /// Of what the output has taken and perhaps not written.
    taken: Changes,
    /// Of what it has written.
    written: Changes,
    commit: Option<Committing>,
    next: Instant,
    /// Where it is told whether commits succeed.
    health: Board,
}

/// The file that is written to.
struct Output {
    path: PathBuf,
    file: File,
}

type Changes = HashMap<String, Change>;

/// What became of a container.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one")]
enum Change {
    /// It was read so far.
    Saved(Saved),
    /// It has stopped and was read to its end, which is where it was when that was committed.
    Ended,
    /// It was removed.
    Removed,
}

/// A commit under way: how it ends, and what to say again if it fails.
struct Committing {
    ended: Receiver<Result<(), state::Error>>,
    changes: Changes,
}

impl Keeper {
    /// Commits first what is known of some containers before anything is read, and how long the file is: what is written
    /// to it from now on counts when its positions do.
    pub(super) fn start(
        held: Held,
        output: Option<(PathBuf, File)>,
        known: HashMap<String, Saved>,
    ) -> Result<Self, state::Error> {
        let output = output.map(|(path, file)| Output { path, file });
        let mut keeper = Keeper {
            held,
            output,
            names: HashMap::new(),
            taken: Changes::new(),
            written: known.into_iter().map(|(id, saved)| (id, Change::Saved(saved))).collect(),
            commit: None,
            next: Instant::now(),
            health: Board::default(),
        };
        keeper.commit(false)?;
        keeper.settle()?;
        Ok(keeper)
    }

    /// Tells there from now on whether commits succeed; those up to here did.
    pub(super) fn tell(&mut self, health: Board) {
        self.health = health;
        self.told(Status::Healthy);
    }

    fn told(&self, status: Status) {
        self.health.update(|health| health.state.positions = status);
    }

    /// The output has taken an item.
    pub(super) fn take(&mut self, item: &Item) {
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

    fn reached(&mut self, key: Key, position: Position) {
        let Some((id, name)) = self.names.get(&key) else { return };
        match self.taken.get_mut(id) {
            Some(Change::Saved(saved)) => (saved.position, saved.ended) = (position, false),
            _ => {
                let saved = Saved { name: name.clone(), position, ended: false };
                self.taken.insert(id.clone(), Change::Saved(saved));
            }
        }
    }

    fn ended(&mut self, key: Key) {
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

    /// All that was taken is written.
    pub(super) fn flushed(&mut self) {
        self.written.extend(self.taken.drain());
    }

    /// How long until a commit is due, if one will be.
    pub(super) fn patience(&self) -> Option<Duration> {
        let is_due = self.commit.is_some() || !self.written.is_empty() || !self.taken.is_empty();
        is_due.then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Whether one is due now.
    pub(super) fn is_due(&self) -> bool {
        self.patience().is_some_and(|patience| patience.is_zero())
    }

    /// Commits what was written, if the commit before has ended; called when all that was taken is. An error is one that
    /// waiting will not mend.
    pub(super) fn keep(&mut self) -> Result<(), state::Error> {
        self.next = Instant::now() + PAUSE;
        if let Some(commit) = self.commit.take() {
            match commit.ended.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.commit = Some(commit);
                    return Ok(());
                }
                Err(TryRecvError::Disconnected) => return Err(state::Error::Closed),
                Ok(result) => drop(self.hear(commit.changes, result)?),
            }
        }
        if self.written.is_empty() { Ok(()) } else { self.commit(false) }
    }

    fn hear(&mut self, changes: Changes, result: Result<(), state::Error>) -> Result<bool, state::Error> {
        let Err(error) = result else {
            self.told(Status::Healthy);
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
        commit.output = self.output.as_ref().map(|output| output.as_it_is(is_last)).transpose()?;
        let (done, ended) = channel();
        // Nobody hears it when we have left meanwhile.
        self.held.commit(commit, move |result| drop(done.send(result)));
        self.commit = Some(Committing { ended, changes });
        Ok(())
    }

    /// From now on that file is written to instead, and counts, with what was written to the one before, once that is on
    /// disk. Not if the state is busy: false, and nothing has changed.
    pub(super) fn replace(&mut self, path: PathBuf, file: File) -> Result<bool, state::Error> {
        self.settle()?;
        if let Some(Output { path, file }) = &self.output {
            file.sync_data().map_err(|source| state::Error::Output { path: path.clone(), source })?;
        }
        let before = self.output.replace(Output { path, file });
        self.commit(false)?;
        let is_done = self.settle()?;
        if !is_done {
            self.output = before;
        }
        Ok(is_done)
    }

    /// Commits what was written and waits until that is done. Not `is_whole`: something was written behind it that no
    /// position tells of, which a file's length would.
    pub(super) fn finish(mut self, is_whole: bool) -> Result<(), state::Error> {
        self.settle()?;
        let has_file = self.output.is_some();
        if has_file && !is_whole || !has_file && self.written.is_empty() {
            return Ok(());
        }
        // Once more, for what was only passing.
        for _ in 0..2 {
            self.commit(true)?;
            self.settle()?;
            if self.written.is_empty() {
                return Ok(());
            }
        }
        Err(state::Error::Closed)
    }

    /// Waits for the commit under way; false if it was hindered for now.
    fn settle(&mut self) -> Result<bool, state::Error> {
        let Some(Committing { ended, changes }) = self.commit.take() else { return Ok(true) };
        let result = ended.recv().unwrap_or(Err(state::Error::Closed));
        self.hear(changes, result)
    }
}

/// When a file was made, where its file system tells.
pub(super) fn born(metadata: &Metadata) -> Option<Timestamp> {
    metadata.created().ok().and_then(Timestamp::of)
}

impl Output {
    fn as_it_is(&self, is_last: bool) -> Result<Written, state::Error> {
        let failed = |source: io::Error| state::Error::Output { path: self.path.clone(), source };
        let metadata = self.file.metadata().map_err(failed)?;
        let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
        let file = self.file.try_clone().map_err(failed)?;
        Ok(Written { path: self.path.clone(), file, device, inode, born: born(&metadata), length, is_last })
    }
}

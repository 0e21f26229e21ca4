//! The state: what outlasts a run, in one SQLite file. The only module that uses SQL.
//!
//! [`Store`] passes work to the one thread that owns the connection (`thread`). [`HeldName`] is a resume name, which only one
//! run can hold at a time (`names`, `name_lock`). Its positions and the length of its output file (`positions`) are committed
//! together. The inventory of each engine is in the same file (`inventory`). `schema` opens the file and migrates it to the
//! current schema (`migrations/`), and `location` decides whether the file may be used at all. Called by the commands;
//! depends only on `model`.
//!
//! A commit is on the disk when it is reported, so that a power failure cannot undo it: the output file is synced first,
//! then SQLite syncs its write-ahead log (`synchronous=FULL`, <https://sqlite.org/pragma.html#pragma_synchronous>).

mod error;
mod inventory;
mod location;
mod name_lock;
mod names;
mod positions;
mod schema;
mod thread;

pub(crate) use error::Error;
pub(crate) use inventory::Trigger;
pub(crate) use location::open_companion;
pub(crate) use name_lock::OutputLock;
pub(crate) use names::HeldName;
pub(crate) use positions::{Commit, OutputProgress, Saved, SavedOutput};

use crate::model::inventory::{ChangeSummary, Update};
use crate::model::plan::{Observed, Plan};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thread::Thread;

/// How long to wait for another program that holds SQLite's lock of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the one thread that owns the connection to a state file. A clone is another handle to the same thread, and so
/// is each [`HeldName`]. Dropping the last handle waits until all requests are done and the file is closed.
#[derive(Clone)]
pub(crate) struct Store {
    thread: Arc<Thread>,
}

impl Store {
    /// Opens a state file. A missing file is created with mode 0600, and its folder with mode 0700. An older schema is
    /// migrated. A newer schema, a damaged file and a database of another program are rejected and left unchanged.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Store::open_with(path, BUSY_TIMEOUT)
    }

    fn open_with(path: &Path, busy_timeout: Duration) -> Result<Self, Error> {
        // An absolute path, because SQLite does not take `:memory:` and the empty path for files.
        let path = std::path::absolute(path)
            .map_err(|source| Error::CannotOpen { path: path.to_owned(), source: source.into() })?;
        let connection = schema::open(&path, busy_timeout)?;
        Store::start(path, connection)
    }

    fn start(path: PathBuf, connection: Connection) -> Result<Self, Error> {
        Ok(Store { thread: Arc::new(Thread::start(path, connection)?) })
    }

    /// Opens an existing state file without migrating it, for callers that only read. `None` if there is none. Rejects the
    /// same files as [`Store::open`].
    pub(crate) fn open_existing(path: &Path) -> Result<Option<Self>, Error> {
        let path = std::path::absolute(path)
            .map_err(|source| Error::CannotOpen { path: path.to_owned(), source: source.into() })?;
        let Some(connection) = schema::open_existing(&path, BUSY_TIMEOUT)? else { return Ok(None) };
        Store::start(path, connection).map(Some)
    }

    /// Compares the inventory of an engine with an observation and, if the trigger says so, applies the difference, all in
    /// one transaction. `done` is called on the thread of the state, like that of [`HeldName::commit`].
    pub(crate) fn reconcile(
        &self,
        engine_id: &str,
        observed: Observed,
        trigger: Trigger,
        done: impl FnOnce(Result<Plan, Error>) + Send + 'static,
    ) {
        let (engine_id, path) = (engine_id.to_owned(), self.thread.path().to_owned());
        self.thread.send(move |connection| {
            let is_held = |name: &str| name_lock::is_held(&path, &engine_id, name);
            done(connection.and_then(|connection| {
                let plan = inventory::reconcile(connection, &engine_id, &observed, trigger, is_held);
                plan.map_err(|error| Error::of(&path, error))
            }));
        });
    }

    /// Applies updates from events to the inventory of an engine, in one transaction, and passes the number of changes to
    /// `done`, which is called like that of [`HeldName::commit`].
    pub(crate) fn apply_updates(
        &self,
        engine_id: &str,
        updates: Vec<Update>,
        done: impl FnOnce(Result<ChangeSummary, Error>) + Send + 'static,
    ) {
        let (engine_id, path) = (engine_id.to_owned(), self.thread.path().to_owned());
        self.thread.send(move |connection| {
            done(connection.and_then(|connection| {
                inventory::apply_updates(connection, &engine_id, &updates).map_err(|error| Error::of(&path, error))
            }));
        });
    }

    /// Takes a resume name for an engine. Fails with [`Error::Held`] if another run holds it, and with [`Error::BadName`] if
    /// the name is invalid.
    pub(crate) fn hold(&self, engine_id: &str, name: &str) -> Result<HeldName, Error> {
        HeldName::take(&self.thread, engine_id, name)
    }
}

//! The thread that owns the connection to a state file.
//!
//! In: jobs, which run one after the other on the thread. Out: what they report. Called by [`super::Store`] and
//! [`super::HeldName`]. SQLite blocks, so nobody else uses the connection. The last handle that is dropped waits until
//! all jobs are done and the file is closed.

use super::error::Error;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SendError, SyncSender};
use std::thread::{self, JoinHandle};

/// The number of jobs that can wait for the thread before [`Thread::send`] blocks.
const QUEUE: usize = 64;

/// A request to run on the thread. It gets an error if the thread is gone.
type Job = Box<dyn FnOnce(Result<&mut Connection, Error>) + Send>;

/// The thread that owns a connection.
pub(super) struct Thread {
    path: PathBuf,
    /// `None` once the thread should end.
    jobs: Option<SyncSender<Job>>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts the thread for a connection to the file `path`.
    pub(super) fn start(path: PathBuf, connection: Connection) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let serve = move || serve(connection, &queue);
        let handle = thread::Builder::new().name("state".into()).spawn(serve).map_err(Error::Thread)?;
        Ok(Thread { path, jobs: Some(jobs), handle: Some(handle) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Queues a job. Blocks while the queue is full.
    pub(super) fn send(&self, job: impl FnOnce(Result<&mut Connection, Error>) + Send + 'static) {
        let job: Job = Box::new(job);
        let refused = match &self.jobs {
            Some(jobs) => jobs.send(job).err(),
            None => Some(SendError(job)),
        };
        if let Some(SendError(job)) = refused {
            job(Err(Error::Closed));
        }
    }

    /// Runs a query after all earlier jobs, and waits for the answer.
    pub(super) fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = mpsc::sync_channel(1);
        let path = self.path.clone();
        self.send(move |connection| {
            let answer = connection.and_then(|connection| query(connection).map_err(|e| Error::of(&path, e)));
            // The receiver waits below, so sending cannot fail.
            let _ = reply.send(answer);
        });
        answer.recv().unwrap_or(Err(Error::Closed))
    }

    /// Whether the caller is on this thread, which cannot wait for itself.
    pub(super) fn is_current(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| handle.thread().id() == thread::current().id())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        let is_current = self.is_current();
        if let Some(handle) = self.handle.take().filter(|_| !is_current) {
            // A panic of the thread was reported when it happened.
            let _ = handle.join();
        }
    }
}

/// The body of the thread: runs jobs until all senders are gone, then closes the file.
fn serve(mut connection: Connection, queue: &Receiver<Job>) {
    for job in queue {
        job(Ok(&mut connection));
    }
    // Closing runs a checkpoint too, but only if no other process has the file open. Data that stays in the
    // write-ahead log is equally safe.
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = checkpoint.and_then(|()| connection.close().map_err(|(_, error)| error)) {
        tracing::debug!(%error, "the state was closed without a checkpoint");
    }
}

//! The thread that owns the connection to a state file.
//!
//! In: requests, which run one after the other on the thread. Out: what they report. Called by [`super::Store`] and
//! [`super::HeldName`]. SQLite blocks, so nobody else uses the connection. The last handle that is dropped waits until all
//! requests are done and the file is closed.

use super::error::Error;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SendError, SyncSender};
use std::thread::{self, JoinHandle};

/// The number of requests that can wait for the thread before [`Thread::send`] blocks.
const QUEUE: usize = 64;

/// A request to the thread. It gets an error if the thread is gone.
type Request = Box<dyn FnOnce(Result<&mut Connection, Error>) + Send>;

/// The thread that owns a connection.
pub(super) struct Thread {
    path: PathBuf,
    /// `None` once no more requests will come.
    requests: Option<SyncSender<Request>>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts the thread for a connection to the file `path`.
    pub(super) fn start(path: PathBuf, connection: Connection) -> Result<Self, Error> {
        let (requests, queue) = mpsc::sync_channel(QUEUE);
        let serve = move || serve(connection, &queue);
        let handle = thread::Builder::new().name("state".into()).spawn(serve).map_err(Error::Thread)?;
        Ok(Thread { path, requests: Some(requests), handle: Some(handle) })
    }

    /// The state file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Queues a request. Blocks while the queue is full.
    pub(super) fn send(&self, request: impl FnOnce(Result<&mut Connection, Error>) + Send + 'static) {
        let request: Request = Box::new(request);
        let refused = match &self.requests {
            Some(requests) => requests.send(request).err(),
            None => Some(SendError(request)),
        };
        if let Some(SendError(request)) = refused {
            request(Err(Error::Closed));
        }
    }

    /// Runs a query after all earlier requests, and waits for the answer.
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
        self.requests = None;
        let is_current = self.is_current();
        if let Some(handle) = self.handle.take().filter(|_| !is_current) {
            // A panic of the thread was reported when it happened.
            let _ = handle.join();
        }
    }
}

/// The body of the thread: handles requests until all senders are gone, then closes the file.
fn serve(mut connection: Connection, queue: &Receiver<Request>) {
    for request in queue {
        request(Ok(&mut connection));
    }
    // Closing runs a checkpoint too, but only if no other process has the file open. Data that stays in the write-ahead log
    // is equally safe.
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = checkpoint.and_then(|()| connection.close().map_err(|(_, error)| error)) {
        tracing::debug!(%error, "the state was closed without a checkpoint");
    }
}

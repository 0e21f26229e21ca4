//! The engine: connects the rooms and answers the verbs. The only room that spawns tasks and threads.
//!
//! `subscription` keeps the event stream open and passes each event once, `inbox` is where they wait. `events` prints them.
//! `watch` decides who is followed: `feed` adds listings to events, `discover` tells what follows from both. `tails` has
//! them read: `route` says how, `stream` does it over the API, request after request (`course`, `silence`, `patience`).
//! `order` settles who was created before whom.
//! `deliver` carries what was read to the output, `keep` remembers how far it got, with the help of a write-ahead log
//! (`wal`) where the output is a file, and `resume` is where the next run begins, once `recovery` has completed that file.
//! `questions` asks about single containers, `metadata` is what of that is still believed. `listener` keeps what is
//! served to whoever asks how `watch` is doing.
//!
//! `reconcile` brings the state in line with what the engine has, which `observe` asks it; `inventory` keeps it so while
//! `watch` runs, by the plan of `agenda`. `pool` looks at the connection pool that all of them ask through.

mod creation_order;
mod deliver;
pub mod events;
mod inventory;
pub mod pool;
pub mod reconcile;
mod route;
mod stream;
pub mod watch;

use crate::docker::{self, Docker, Endpoint};
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output::ActivityLine;
use crate::{output, serve, state};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine, or the way to it.
    #[error(transparent)]
    Docker(#[from] docker::Error),
    /// The output.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// What is kept between runs.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Metrics and health cannot be served.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// Another program writes to the file that is to be exactly what we write.
    #[error("{} is being written to by another docker-logwatch", path.display())]
    OutputInUse {
        /// The file.
        path: PathBuf,
    },
    /// Fewer events came than were waited for.
    #[error("{came} of {wanted} events came{}", within(*.span))]
    TooFew {
        /// So many were written.
        came: u64,
        /// So many were to come.
        wanted: u64,
        /// How long they were waited for, if that was limited.
        span: Option<Duration>,
    },
    /// The event stream was lost and not there again when the time came up to which events were wanted, or to stop.
    #[error("the event stream was not back by {until}: events may be missing")]
    Away {
        /// That time.
        until: Timestamp,
    },
    /// The operating system refused what the program itself needs: a thread, a descriptor.
    #[error("cannot start")]
    Start(#[from] io::Error),
    /// The lines of a watch, which are still in the engine's logs.
    #[error(transparent)]
    Lines(output::Error),
    /// A log was not read to the end that was asked for.
    #[error("not read to the end: {}", few(names))]
    Unread {
        /// Of the containers.
        names: Vec<String>,
        /// What the engine, or the way to it, met us with.
        source: Option<docker::Error>,
    },
    /// Nothing has this name or ID, and nothing was to be waited for.
    #[error("no such container: {}", names.join(", "))]
    NoSuchContainer {
        /// As they were given.
        names: Vec<String>,
        /// Who follows would wait for it.
        is_read_once: bool,
    },
    /// A word is the beginning of several IDs.
    #[error(transparent)]
    Ambiguous(#[from] crate::model::selector::Ambiguous),
    /// `--source file`, and no file of any container can be read.
    #[error("no log file can be read in {folder}")]
    NoFiles {
        /// Where the engine keeps them.
        folder: String,
        /// Why not.
        source: io::Error,
    },
}

fn few(names: &[String]) -> String {
    const FEW: usize = 3;
    let more = names.len().saturating_sub(FEW);
    let named = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

fn within(span: Option<Duration>) -> String {
    span.map(|span| format!(" within {span:?}")).unwrap_or_default()
}

/// Runs a verb on a runtime of one thread: what takes time has threads of its own.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// What the output is given to take what was read before we were told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// The same where nobody wants to wait. An order may come twice in a row and be one: timeout(1) signals its child and
/// then the child's group. What is on its way to a reader that reads takes no longer.
const HASTE: Duration = Duration::from_millis(300);

/// Returns when the output has had its time; it has all it wants unless we are told to stop.
pub(crate) async fn drained(stop: &Stop) {
    stop.cancelled().await;
    let hasty = async {
        tokio::time::sleep(HASTE).await;
        stop.hurried().await;
    };
    tokio::select! {
        () = tokio::time::sleep(DRAIN) => {}
        () = hasty => {}
    }
}

/// Has a thread of its own write a report, so that we can be told to stop while nobody reads it.
async fn written(stop: &Stop, write: impl FnOnce() -> Result<(), output::Error> + Send + 'static) -> Result<(), Error> {
    let (done, written) = oneshot::channel();
    thread::Builder::new().name("output".into()).spawn(move || {
        // Whoever stopped waiting has left already.
        let _ = done.send(write());
    })?;
    tokio::select! {
        result = written => Ok(result.map_err(io::Error::other)??),
        () = drained(stop) => Ok(()),
    }
}

/// Writes a report, for the command line. Returns before that is done where we are told to stop and nobody reads it.
pub fn write_report(
    stop: &Stop,
    write: impl FnOnce() -> Result<(), output::Error> + Send + 'static,
) -> Result<(), Error> {
    runtime()?.block_on(written(stop, write))
}

/// As long as an answer may take before it is said whose is waited for.
const SOON: Duration = Duration::from_secs(2);

/// An answer of the engine, which may be long in coming: then the terminal shows what is waited for.
async fn awaited<T>(answer: impl Future<Output = T>, endpoint: &str, meter: &ActivityLine) -> T {
    tokio::pin!(answer);
    match tokio::time::timeout(SOON, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            meter.say(format!("waiting for the engine at {}", output::safe(endpoint)));
            answer.await
        }
    }
}

/// A sentence about containers whose last lines nobody can read any more, by their names.
pub(crate) fn lost(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [name] => Some(format!("{name} was removed while nobody watched: what it wrote since then cannot be read")),
        [first, rest @ ..] => Some(format!(
            "{first} and {} more were removed while nobody watched: what they wrote since then cannot be read",
            rest.len()
        )),
    }
}

/// Asks the engine one question, for the shell that completes a name.
pub fn ask<T, F>(endpoint: Endpoint, question: impl FnOnce(Docker) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, docker::Error>>,
{
    runtime()?.block_on(async { Ok(question(Docker::connect(endpoint).await?).await?) })
}

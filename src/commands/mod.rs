//! The work behind each command. The only module that spawns tasks and threads, apart from the state's own thread.
//!
//! - `events`: prints the engine's events. Its `subscription` keeps the event stream open and returns each event once;
//!   a `backlog` holds events that are not processed yet.
//! - `watch`: decides which containers are followed, from listings and events (`feed`, `discovery`), and has them read.
//! - `stream`: reads one log over the API, request after request.
//! - `deliver`: prints what was read and checkpoints the positions, with a write-ahead log if the output is a file.
//!   After a run was killed, its `recovery` completes that file.
//! - `reconcile`: brings the inventory in the state in line with the engine, once. `inventory` does so while `watch`
//!   runs.
//! - `pool`: reports on the connection pool that all commands use.
//! - `readiness`: reports to systemd.
//! - `route`: how a container is read. `creation_order`: the filters `before` and `since`.

mod creation_order;
mod deliver;
pub(crate) mod events;
mod inventory;
pub(crate) mod pool;
mod readiness;
pub(crate) mod reconcile;
mod route;
mod stream;
pub(crate) mod watch;

use crate::docker::{self, Docker, Endpoint};
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output::ActivityLine;
use crate::{output, serve, state};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Docker(#[from] docker::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    /// The server of metrics and health cannot start.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// Another run writes to an output file that a run with `--resume` needs for itself.
    #[error("{} is being written to by another docker-logwatch", path.display())]
    OutputInUse { path: PathBuf },
    /// `events --count` received fewer events than requested.
    #[error("received {received} of {wanted} events{}", within(*.span))]
    TooFew {
        received: u64,
        wanted: u64,
        /// The time limit, if that ended the wait.
        span: Option<Duration>,
    },
    /// The event stream was lost and not open again at `--until`, or when `--timeout` ended.
    #[error("the event stream was still down at {until}: events may be missing")]
    StreamStillDown { until: Timestamp },
    /// The operating system refused a resource that the program needs: a thread, a descriptor.
    #[error("cannot start")]
    Start(#[from] io::Error),
    /// `watch` cannot write lines. They are still in the engine's logs.
    #[error(transparent)]
    Lines(output::Error),
    /// Some logs were not read to the requested end.
    #[error("not read to the end: {}", first_names(names))]
    Unread {
        /// Names of the containers.
        names: Vec<String>,
        source: Option<docker::Error>,
    },
    /// No container has these names or IDs, and the command does not wait for new ones.
    #[error("no such container: {}", names.join(", "))]
    NoSuchContainer {
        /// As given on the command line.
        names: Vec<String>,
        /// Only because the command does not follow; with `--follow` it would wait for them.
        is_read_once: bool,
    },
    /// An argument is a prefix of several IDs.
    #[error(transparent)]
    Ambiguous(#[from] crate::model::selector::Ambiguous),
    /// With `--source file`: the log files of this engine cannot be read.
    #[error("no log file can be read in {folder}")]
    NoFiles {
        /// Folder in which the engine keeps its containers.
        folder: String,
        source: io::Error,
    },
}

fn first_names(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = names.len().saturating_sub(SHOWN);
    let named = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

fn within(span: Option<Duration>) -> String {
    span.map(|span| format!(" within {span:?}")).unwrap_or_default()
}

/// Creates the runtime of a command. One thread is enough: blocking work has threads of its own.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Completes with `future`, or never if there is none.
pub(crate) async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Sleeps until `due`, or forever if there is no such time.
async fn sleep_until(due: Option<Instant>) {
    or_never(due.map(|due| tokio::time::sleep_until(due.into()))).await;
}

/// Time limit for writing what was read before the command was stopped.
const DRAIN: Duration = Duration::from_secs(5);

/// The shortest such limit, however often the command is stopped. Two signals in a row may mean one: timeout(1) signals
/// its child and then the child's process group. A reader that still reads needs no longer.
const MIN_DRAIN: Duration = Duration::from_millis(300);

/// Returns when the output has had its time to drain after `stop` was cancelled; never, unless `stop` is cancelled.
pub(crate) async fn drained(stop: &Stop) {
    stop.cancelled().await;
    let hurried = async {
        tokio::time::sleep(MIN_DRAIN).await;
        stop.hurried().await;
    };
    tokio::select! {
        () = tokio::time::sleep(DRAIN) => {}
        () = hurried => {}
    }
}

/// Writes a report on a thread of its own, so that the command can be stopped while nobody reads the report.
async fn write_on_thread(
    stop: &Stop,
    write: impl FnOnce() -> Result<(), output::Error> + Send + 'static,
) -> Result<(), Error> {
    let (sender, result) = oneshot::channel();
    thread::Builder::new().name("output".into()).spawn(move || {
        // Fails if the command has ended without waiting for us.
        let _ = sender.send(write());
    })?;
    tokio::select! {
        result = result => Ok(result.map_err(io::Error::other)??),
        () = drained(stop) => Ok(()),
    }
}

/// Writes a report to stdout, for the command line. Gives up when `stop` is cancelled and nobody reads the report.
pub(crate) fn write_report(
    stop: &Stop,
    write: impl FnOnce() -> Result<(), output::Error> + Send + 'static,
) -> Result<(), Error> {
    runtime()?.block_on(write_on_thread(stop, write))
}

/// How long to wait for an answer before the terminal shows what the command is waiting for.
const SILENT_WAIT: Duration = Duration::from_secs(2);

/// Waits for an answer of the engine. If it takes long, the terminal shows what the command is waiting for.
async fn show_while_waiting<T>(answer: impl Future<Output = T>, endpoint: &str, meter: &ActivityLine) -> T {
    tokio::pin!(answer);
    match tokio::time::timeout(SILENT_WAIT, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            meter.show(format!("waiting for the engine at {}", output::safe(endpoint)));
            answer.await
        }
    }
}

/// Formats a notice about removed containers, by name, whose last lines can no longer be read. `None`
/// if there are none.
pub(crate) fn lost_notice(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [name] => Some(format!("{name} was removed while no watch was running: its last lines cannot be read")),
        [first, rest @ ..] => Some(format!(
            "{first} and {} more were removed while no watch was running: their last lines cannot be read",
            rest.len()
        )),
    }
}

/// Connects and sends one request, for shell completion of names.
pub(crate) fn query<T, F>(endpoint: Endpoint, request: impl FnOnce(Docker) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, docker::Error>>,
{
    runtime()?.block_on(async { Ok(request(Docker::connect(endpoint).await?).await?) })
}

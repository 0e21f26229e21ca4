//! Startup of `watch`: from options to a running watch.
//!
//! The order matters. Mistakes of the user are reported before anything is written; the output is opened before the
//! event stream, because opening a pipe blocks until somebody reads it, and meanwhile unread events would pile up; and
//! the event stream is opened before the first listing, so that nothing that happens between the two is missed.

use super::effects::{Executor, LocalFiles, ReaderCommands, Streams};
use super::feed::{Feed, FeedOptions, News};
use super::lookups::Lookups;
use super::metadata::Metadata;
use super::options::WatchOptions;
use super::resume::{LastRun, LostContainer, Positions};
use super::status::StatusReporter;
use super::supervisor::{Effect, Now, Supervisor, SupervisorSettings};
use super::{Running, Watch};
use crate::commands::deliver::Deliver;
use crate::commands::deliver::output_file::{self, Rollover};
use crate::commands::inventory::{Inventory, InventoryContext};
use crate::commands::route::Routes;
use crate::commands::stream::StreamContext;
use crate::commands::{Error, creation_order, lost_notice, show_while_waiting};
use crate::config::{EventsConfig, Source};
use crate::docker::{self, Docker, Endpoint, Engine};
use crate::metrics::{EventMetrics, Metrics, PoolMetrics};
use crate::model::batch::Item;
use crate::model::container::Container;
use crate::model::queue::Queue;
use crate::model::selector::Filters;
use crate::output::{ActivityLine, Printer, PrinterSettings};
use crate::serve::Server;
use crate::state::{OutputLock, Store};
use crate::tail::{Command, LogReader, Report, Wake};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

/// Bytes that may wait for the output before reading pauses.
const QUEUE: usize = 8 * 1024 * 1024;
/// Containers that are read at the same time with `--no-follow`, at most.
const MAX_PARALLEL: usize = 32;

/// Raises the soft `RLIMIT_NOFILE` to the hard limit: rotated logs stay open until they are read. Running out of
/// descriptors is reported when it happens.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    tracing::debug!(?limit, ?raised, "descriptors");
}

/// Does everything that precedes the first line.
pub(super) async fn start(endpoint: Endpoint, mut options: WatchOptions) -> Result<Running, Error> {
    let server = bind(options.listen.as_deref()).await?;
    let metrics = Metrics::new().map_err(io::Error::other)?;
    let mut daemon = Daemon::connect(endpoint, &options, metrics.pool.clone()).await?;
    let file_notice = daemon.file_notice();
    let mut notices = Vec::new();
    let (inventory, mut last) = open_state(&mut daemon, &options, &metrics, &mut notices)?;
    creation_order::resolve(&daemon.docker, &mut options.selector).await?;
    let feed_options = feed_options(&options, metrics.events.clone(), inventory.is_some());
    let (printer, lock) = open_output(&options, &mut last, &mut notices).await?;
    let (feed, listing) = Feed::open(daemon.docker.clone(), feed_options, daemon.engine.time).await?;
    notices.extend(feed.refusal_notice());
    let lost = check_listing(&listing, &mut options, last.as_mut(), &mut notices)?;
    let (checkpointer, positions) = last.map(|last| last.start_checkpointer(&printer)).transpose()?.unzip();
    let mut deliver =
        Deliver { printer, rollover: Rollover::new(), checkpointer, _lock: lock, logs: metrics.logs.clone() };
    announce(server.as_ref(), &mut deliver.printer, &mut notices)?;
    let mut watch = connect_parts(daemon, options, metrics, deliver, positions)?;
    watch.inventory = inventory.map(|context| Inventory::start(context, watch.status.health()));
    if let Some(server) = server {
        watch.status.serve(server, &watch.metrics);
    }
    watch.report_start(notices, lost, file_notice);
    Ok(Running { watch: Box::new(watch), feed: Box::new(feed), listing })
}

async fn bind(listen: Option<&str>) -> Result<Option<Server>, Error> {
    match listen {
        Some(address) => Ok(Some(Server::bind(address).await?)),
        None => Ok(None),
    }
}

/// A connection to the daemon, and what the daemon reports about itself.
pub(super) struct Daemon {
    pub(super) docker: Docker,
    pub(super) engine: Engine,
    pub(super) routes: Arc<Routes>,
    /// The error with which the daemon, or a proxy before it, refuses `GET /info`, if it does.
    refused: Option<docker::Error>,
}

impl Daemon {
    /// Connects. Fails with `--source file` if no log file can be read.
    pub(super) async fn connect(
        endpoint: Endpoint,
        options: &WatchOptions,
        metrics: PoolMetrics,
    ) -> Result<Daemon, Error> {
        let address = endpoint.to_string();
        let identifying = Daemon::identify(endpoint, options, metrics);
        let daemon =
            show_while_waiting(identifying, &address, &ActivityLine::new(options.output.wants_status())).await?;
        let must_read_files = options.source == Source::File;
        if must_read_files && daemon.routes.file_error().is_some() { Err(daemon.into_no_files()) } else { Ok(daemon) }
    }

    async fn identify(endpoint: Endpoint, options: &WatchOptions, metrics: PoolMetrics) -> Result<Daemon, Error> {
        let docker = Docker::connect_with(endpoint, &options.docker, metrics).await?;
        let (engine, refused) = match docker.info().await {
            Err(error) if error.is_refusal() => (guess_engine(&docker, options.source).await, Some(error)),
            answer => (answer?, None),
        };
        let routes = Arc::new(Routes::new(&docker, &engine, options.source));
        Ok(Daemon { docker, engine, routes, refused })
    }

    /// Returns a notice if files cannot be read although the options allow it.
    fn file_notice(&self) -> Option<String> {
        let error = self.routes.file_error()?;
        if error.kind() == io::ErrorKind::PermissionDenied {
            let folder = self.routes.folder.display();
            let advice = "reading through the engine instead (root can read the files directly)";
            return Some(format!("no permission to read {folder}: {advice}"));
        }
        tracing::info!(%error, "logs are read through the engine");
        None
    }

    /// A daemon that refuses `GET /info` does not report where its files are either: then the refusal is the error.
    fn into_no_files(self) -> Error {
        let folder = self.routes.folder.display().to_string();
        match (self.refused, self.routes.file_error()) {
            (Some(refused), _) => refused.into(),
            (None, error) => {
                let source = error.map(|error| io::Error::new(error.kind(), error.to_string()));
                Error::NoFiles { folder, source: source.unwrap_or_else(|| io::ErrorKind::NotFound.into()) }
            }
        }
    }
}

/// Returns what is known about a daemon that refuses `GET /info`. An inspection of any of its containers shows where
/// it keeps log files.
async fn guess_engine(docker: &Docker, source: Source) -> Engine {
    /// Number of containers to try: each may be removed before it is inspected.
    const CANDIDATES: usize = 3;
    let engine = docker.unnamed();
    if !docker.endpoint().is_local() || engine.is_podman || !matches!(source, Source::Auto | Source::File) {
        return engine;
    }
    for container in docker.list(&Filters::new()).await.unwrap_or_default().iter().take(CANDIDATES) {
        let root_dir = docker.inspect(&container.id).await.ok().and_then(|details| details.root_dir());
        if let Some(root_dir) = root_dir {
            return Engine { root_dir, ..engine };
        }
    }
    engine
}

/// Opens the state for the inventory and for `--resume`, if the options and the daemon allow it.
fn open_state(
    daemon: &mut Daemon,
    options: &WatchOptions,
    metrics: &Metrics,
    notices: &mut Vec<String>,
) -> Result<(Option<InventoryContext>, Option<LastRun>), Error> {
    let mut inventory = options.inventory.as_ref().filter(|_| options.follow);
    if let Some(error) = daemon.refused.take() {
        // All rows of the state belong to an engine ID.
        if options.resume.is_some() {
            return Err(error.into());
        }
        if inventory.take().is_some() {
            notices.push(format!("{error}; without the engine's ID the inventory is not updated"));
        }
    }
    let path = options.resume.as_ref().map(|resume| &resume.state).or(inventory);
    let Some(store) = path.map(|path| Store::open(path)).transpose()? else { return Ok((None, None)) };
    let engine_id = &daemon.engine.id;
    let last = options.resume.as_ref().map(|resume| LastRun::open(&store, resume, engine_id)).transpose()?;
    let context = inventory.map(|_| InventoryContext {
        docker: daemon.docker.clone(),
        routes: Arc::clone(&daemon.routes),
        store,
        engine_id: engine_id.clone(),
        metrics: metrics.reconciliation.clone(),
    });
    Ok((context, last))
}

/// What the feed delivers to a run with these options.
pub(super) fn feed_options(options: &WatchOptions, metrics: EventMetrics, with_volumes: bool) -> FeedOptions {
    FeedOptions {
        daemon_filters: options.selector.daemon_filters(),
        config: EventsConfig { enabled: options.wants_events(), ..options.events.clone() },
        metrics,
        with_volumes,
        with_all_events: options.output.lifecycle,
    }
}

/// Opens and locks the output, and completes the file of a run that was killed.
async fn open_output(
    options: &WatchOptions,
    last: &mut Option<LastRun>,
    notices: &mut Vec<String>,
) -> Result<(Printer, Option<OutputLock>), Error> {
    let mut printer = open_printer(options.output.clone()).await?;
    let lock = match &options.lock_base {
        Some(state) => output_file::lock(state, &printer, last.is_none())?,
        None => None,
    };
    if let Some(last) = last {
        notices.extend(last.recover(&mut printer)?);
    }
    Ok((printer, lock))
}

/// Opens the output on its own thread, so that `watch` can be stopped while a pipe waits for its reader.
async fn open_printer(settings: PrinterSettings) -> Result<Printer, Error> {
    let (opened, printer) = oneshot::channel();
    thread::Builder::new().name("open".into()).spawn(move || {
        // Fails only if nobody waits for the printer any more.
        let _ = opened.send(Printer::open(settings));
    })?;
    Ok(printer.await.map_err(io::Error::other)??)
}

/// Resolves the names that the user gave, and compares the existing containers with those of the last run. Returns the
/// containers that were removed before all of their lines were read.
fn check_listing(
    listing: &News,
    options: &mut WatchOptions,
    last: Option<&mut LastRun>,
    notices: &mut Vec<String>,
) -> Result<Vec<LostContainer>, Error> {
    let News::Listing(containers, at, _) = listing else { return Ok(Vec::new()) };
    resolve_names(containers, options)?;
    let Some(last) = last else { return Ok(Vec::new()) };
    let lost = last.forget_gone(containers)?;
    notices.extend(lost_notice(&lost.iter().map(|lost| lost.name.clone()).collect::<Vec<_>>()));
    if last.is_first && options.follow {
        let is_idle = |container: &&Container| !container.is_up() && !options.wants_stopped(container);
        let matching = containers.iter().filter(is_idle).filter(|container| options.selector.matches(container));
        last.skip_history(matching, *at);
    }
    Ok(lost)
}

/// Decides what each name on the command line stands for. A name that no container has is an error unless `watch` waits
/// for such a container.
pub(super) fn resolve_names(containers: &[Container], options: &mut WatchOptions) -> Result<(), Error> {
    options.selector.resolve_names(containers.iter())?;
    let unmatched = options.selector.unmatched(containers.iter());
    let names: Vec<String> = unmatched.into_iter().map(str::to_owned).collect();
    if names.is_empty() || options.follow && !options.dry_run {
        return Ok(());
    }
    Err(Error::NoSuchContainer { names, is_read_once: !options.dry_run })
}

/// Reports the address of the metrics server, even with `--quiet` if the system chose the port: nothing else shows it.
fn announce(server: Option<&Server>, printer: &mut Printer, notices: &mut Vec<String>) -> Result<(), Error> {
    let Some(server) = server else { return Ok(()) };
    let text = format!("serving metrics and health at http://{}", server.address());
    if server.has_chosen_port() {
        printer.announce(&text)?;
    } else {
        notices.push(text);
    }
    Ok(())
}

/// Starts the threads that read files and deliver lines, and connects them with the supervisor.
fn connect_parts(
    daemon: Daemon,
    options: WatchOptions,
    metrics: Metrics,
    mut deliver: Deliver,
    positions: Option<Positions>,
) -> Result<Watch, Error> {
    let Daemon { docker, routes, .. } = daemon;
    let status = StatusReporter::new(options.wants_events());
    if let Some(checkpointer) = &mut deliver.checkpointer {
        checkpointer.report_to(status.health());
    }
    let (queue, commands, reports) = start_reader()?;
    let delivered = deliver.start(Arc::clone(&queue))?;
    if let Some(folder) = routes.folder_to_watch().filter(|_| options.follow) {
        commands.send(Command::WatchNewcomers(folder.to_owned()));
    }
    let streams = start_streams(&docker, &routes, &queue, &options);
    let executor = Executor::new(commands, Lookups::new(docker.clone()), streams, Arc::clone(&queue));
    let (follow, until) = (options.follow, options.until);
    let supervisor = new_supervisor(options, routes, &docker, &metrics, positions);
    Ok(Watch {
        follow,
        until,
        docker,
        queue,
        supervisor,
        executor,
        reports,
        delivered,
        inventory: None,
        metrics,
        status,
    })
}

fn new_supervisor(
    options: WatchOptions,
    routes: Arc<Routes>,
    docker: &Docker,
    metrics: &Metrics,
    positions: Option<Positions>,
) -> Supervisor {
    let settings = supervisor_settings(&options, &routes, docker);
    let metadata = Metadata::new(options.metadata_cache_ttl, metrics.logs.clone());
    Supervisor::new(settings, Box::new(LocalFiles(routes)), options.selector, metadata, positions, Now::read())
}

type ReaderParts = (Arc<Queue>, ReaderCommands, UnboundedReceiver<Report>);

/// Starts the thread that reads files.
fn start_reader() -> Result<ReaderParts, Error> {
    let wake = Wake::new()?;
    let wake_reader = wake.clone();
    let queue = Arc::new(Queue::new(QUEUE, move || wake_reader.wake()));
    let (sender, received) = mpsc::channel();
    // Each report answers a command or ends a file, so there are never more than a few for a container.
    let (report, reports) = unbounded_channel();
    let reader = LogReader::new(Arc::clone(&queue), wake.clone(), received, move |message| {
        // Fails only when `watch` is stopping.
        let _ = report.send(message);
    })?;
    thread::Builder::new().name("reader".into()).spawn(move || reader.run())?;
    Ok((queue, ReaderCommands { sender, wake }, reports))
}

fn start_streams(docker: &Docker, routes: &Arc<Routes>, queue: &Arc<Queue>, options: &WatchOptions) -> Streams {
    Streams::new(Arc::clone(routes), |reports, shorten_retries| StreamContext {
        docker: docker.clone(),
        queue: Arc::clone(queue),
        route: routes.api_route(),
        interval: options.interval,
        max_line_size: options.max_line_size,
        reports,
        shorten_retries,
    })
}

fn supervisor_settings(options: &WatchOptions, routes: &Routes, docker: &Docker) -> SupervisorSettings {
    SupervisorSettings {
        follow: options.follow,
        all: options.all,
        metadata: options.output.metadata,
        history: options.history(),
        window: options.window(),
        max_line_size: options.max_line_size,
        source: options.source,
        api_route: routes.api_route(),
        folder: routes.folder.clone(),
        max_parallel: MAX_PARALLEL.min(docker.max_log_streams()),
    }
}

impl Watch {
    /// Prints notices from the start, before the first listing is processed.
    fn report_start(&mut self, notices: Vec<String>, lost: Vec<LostContainer>, file_notice: Option<String>) {
        let notice = |text| Effect::Push(vec![Item::Notice(None, text)]);
        self.executor.perform(notices.into_iter().map(notice));
        for LostContainer { id, name, route, after } in lost {
            let container = Container { id, name, ..Container::default() };
            let effect = self.supervisor.report_lost(container, route, after);
            self.executor.perform([effect]);
        }
        self.executor.perform(file_notice.map(notice));
    }
}

//! Startup of `watch`: from options to a running watch.
//!
//! The order matters. What a user can get wrong is checked before anything is written; the output is opened before the
//! event stream, because opening a pipe blocks until somebody reads it and unread events would pile up meanwhile; and the
//! event stream is opened before the first listing, so that nothing happens unseen between the two.

use super::effects::{Executor, LocalFiles, ReaderCommands, Streams};
use super::feed::{Feed, News, Terms};
use super::lookups::Lookups;
use super::metadata::Metadata;
use super::options::WatchOptions;
use super::resume::{Last, Lost, Positions};
use super::status::StatusReporter;
use super::supervisor::{self, Effect, Now, Supervisor};
use super::{Running, Watch};
use crate::commands::deliver::Deliver;
use crate::commands::deliver::output_file::{self, Rollover};
use crate::commands::inventory::{Inventory, InventoryContext};
use crate::commands::route::Routes;
use crate::commands::stream::StreamContext;
use crate::commands::{Error, awaited, creation_order, lost as describe_lost};
use crate::config::{EventsConfig, Source};
use crate::docker::{self, Docker, Endpoint, Engine};
use crate::metrics::{EventMetrics, Metrics, PoolMetrics};
use crate::model::batch::Item;
use crate::model::container::Container;
use crate::model::queue::Queue;
use crate::model::selector::Filters;
use crate::output::{ActivityLine, Printer, Settings};
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
const MAX_SLOTS: usize = 32;

/// Raises the soft `RLIMIT_NOFILE` to the hard limit: rotated logs stay open until they are read. Running out of
/// descriptors is reported when it happens.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    tracing::debug!(?limit, ?raised, "descriptors");
}

/// Does everything that comes before the first line.
pub(super) async fn start(endpoint: Endpoint, mut options: WatchOptions) -> Result<Running, Error> {
    let server = bind(options.listen.as_deref()).await?;
    let metrics = Metrics::new().map_err(io::Error::other)?;
    let mut daemon = Daemon::connect(endpoint, &options, metrics.pool.clone()).await?;
    let refusal = daemon.explain_refusal();
    let mut notices = Vec::new();
    let (keeping, mut last) = open_state(&mut daemon, &options, &metrics, &mut notices)?;
    creation_order::settle(&daemon.docker, &mut options.selector).await?;
    let terms = feed_terms(&options, metrics.events.clone(), keeping.is_some());
    let (printer, lock) = open_output(&options, &mut last, &mut notices).await?;
    let (feed, listing) = Feed::open(daemon.docker.clone(), terms, daemon.engine.time).await?;
    notices.extend(feed.trouble());
    let lost = check_listing(&listing, &mut options, last.as_mut(), &mut notices)?;
    let (checkpointer, positions) = last.map(|last| last.keep(&printer)).transpose()?.unzip();
    let mut deliver =
        Deliver { printer, rollover: Rollover::new(), checkpointer, _lock: lock, logs: metrics.logs.clone() };
    announce(server.as_ref(), &mut deliver.printer, &mut notices)?;
    let mut watch = connect_parts(daemon, options, metrics, deliver, positions)?;
    watch.inventory = keeping.map(|keeping| Inventory::start(keeping, watch.status.board()));
    if let Some(server) = server {
        watch.status.serve(server, &watch.metrics);
    }
    watch.report_start(notices, lost, refusal);
    Ok(Running { watch: Box::new(watch), feed: Box::new(feed), listing })
}

async fn bind(listen: Option<&str>) -> Result<Option<Server>, Error> {
    match listen {
        Some(address) => Ok(Some(Server::bind(address).await?)),
        None => Ok(None),
    }
}

/// A connection to the daemon, and what it says about itself.
pub(super) struct Daemon {
    pub(super) docker: Docker,
    pub(super) engine: Engine,
    pub(super) routes: Arc<Routes>,
    /// The error, if the daemon (or a proxy before it) refuses to say who it is.
    refused: Option<docker::Error>,
}

impl Daemon {
    /// Connects, and fails where `--source file` was given and no log file can be read.
    pub(super) async fn connect(
        endpoint: Endpoint,
        options: &WatchOptions,
        metrics: PoolMetrics,
    ) -> Result<Daemon, Error> {
        let address = endpoint.to_string();
        let greeting = Daemon::identify(endpoint, options, metrics);
        let daemon = awaited(greeting, &address, &ActivityLine::new(options.output.wants_status())).await?;
        let must_read_files = options.source == Source::File;
        if must_read_files && daemon.routes.refusal().is_some() { Err(daemon.into_no_files()) } else { Ok(daemon) }
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

    /// A notice, if files cannot be read though the options allow it.
    fn explain_refusal(&self) -> Option<String> {
        let error = self.routes.refusal()?;
        if error.kind() == io::ErrorKind::PermissionDenied {
            let folder = self.routes.folder.display();
            let advice = "reading through the engine instead (root reads the files themselves)";
            return Some(format!("no permission to read {folder}: {advice}"));
        }
        tracing::info!(%error, "logs are read through the engine");
        None
    }

    /// A daemon that does not say who it is does not say where its files are either: then that is the reason.
    fn into_no_files(self) -> Error {
        let folder = self.routes.folder.display().to_string();
        match (self.refused, self.routes.refusal()) {
            (Some(refused), _) => refused.into(),
            (None, error) => {
                let source = error.map(|error| io::Error::new(error.kind(), error.to_string()));
                Error::NoFiles { folder, source: source.unwrap_or_else(|| io::ErrorKind::NotFound.into()) }
            }
        }
    }
}

/// What is known of a daemon that may not be asked for `/info`. Inspecting one of its containers shows where it keeps log
/// files, if there is one.
async fn guess_engine(docker: &Docker, source: Source) -> Engine {
    /// Any of these may be removed before it is inspected.
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

/// Opens the state for the inventory and for `--resume`, as far as each is wanted and possible.
fn open_state(
    daemon: &mut Daemon,
    options: &WatchOptions,
    metrics: &Metrics,
    notices: &mut Vec<String>,
) -> Result<(Option<InventoryContext>, Option<Last>), Error> {
    let mut inventory = options.inventory.as_ref().filter(|_| options.follow);
    if let Some(error) = daemon.refused.take() {
        // All rows of the state belong to an engine ID.
        if options.resume.is_some() {
            return Err(error.into());
        }
        if inventory.take().is_some() {
            notices.push(format!("{error}; without the engine's ID no inventory is kept"));
        }
    }
    let path = options.resume.as_ref().map(|resume| &resume.state).or(inventory);
    let Some(store) = path.map(|path| Store::open(path)).transpose()? else { return Ok((None, None)) };
    let engine_id = &daemon.engine.id;
    let last = options.resume.as_ref().map(|resume| Last::open(&store, resume, engine_id)).transpose()?;
    let keeping = inventory.map(|_| InventoryContext {
        docker: daemon.docker.clone(),
        routes: Arc::clone(&daemon.routes),
        store,
        engine_id: engine_id.clone(),
        metrics: metrics.reconciliation.clone(),
    });
    Ok((keeping, last))
}

/// What the feed is to deliver.
pub(super) fn feed_terms(options: &WatchOptions, count: EventMetrics, with_volumes: bool) -> Terms {
    Terms {
        remote: options.selector.remote(),
        config: EventsConfig { enabled: options.wants_events(), ..options.events.clone() },
        count,
        with_volumes,
        is_each_wanted: options.output.lifecycle,
    }
}

/// Opens and locks the output, and completes what a run that was killed left of it.
async fn open_output(
    options: &WatchOptions,
    last: &mut Option<Last>,
    notices: &mut Vec<String>,
) -> Result<(Printer, Option<OutputLock>), Error> {
    let mut printer = open_printer(options.output.clone()).await?;
    let lock = match &options.lock_beside {
        Some(state) => output_file::lock(state, &printer, last.is_none())?,
        None => None,
    };
    if let Some(last) = last {
        notices.extend(last.recover(&mut printer)?);
    }
    Ok((printer, lock))
}

/// Opens the output on its own thread, so that `watch` can be stopped while a pipe waits for its reader.
async fn open_printer(settings: Settings) -> Result<Printer, Error> {
    let (opened, printer) = oneshot::channel();
    thread::Builder::new().name("open".into()).spawn(move || {
        // Fails only where nobody waits any more.
        let _ = opened.send(Printer::open(settings));
    })?;
    Ok(printer.await.map_err(io::Error::other)??)
}

/// Resolves the names that the user gave, and compares the containers that exist with those of the last run. Returns
/// those that were removed before all of their lines were read.
fn check_listing(
    listing: &News,
    options: &mut WatchOptions,
    last: Option<&mut Last>,
    notices: &mut Vec<String>,
) -> Result<Vec<Lost>, Error> {
    let News::Listing(containers, at, _) = listing else { return Ok(Vec::new()) };
    resolve_names(containers, options)?;
    let Some(last) = last else { return Ok(Vec::new()) };
    let lost = last.forget_gone(containers)?;
    notices.extend(describe_lost(&lost.iter().map(|lost| lost.name.clone()).collect::<Vec<_>>()));
    if last.is_first && options.follow {
        let is_idle = |container: &&Container| !container.is_up() && !options.wants_stopped(container);
        let matching = containers.iter().filter(is_idle).filter(|container| options.selector.matches(container));
        last.pass_over(matching, *at);
    }
    Ok(lost)
}

/// Decides what each name on the command line stands for. A name that no container has is an error unless `watch` waits
/// for such a container.
pub(super) fn resolve_names(containers: &[Container], options: &mut WatchOptions) -> Result<(), Error> {
    options.selector.settle(containers.iter())?;
    let unmatched = options.selector.unmatched(containers.iter());
    let names: Vec<String> = unmatched.into_iter().map(str::to_owned).collect();
    if names.is_empty() || options.follow && !options.dry_run {
        return Ok(());
    }
    Err(Error::NoSuchContainer { names, is_read_once: !options.dry_run })
}

/// Reports the address of the metrics server: in any case if the system chose the port, since nothing else shows it.
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
        checkpointer.report_to(status.board());
    }
    let (queue, commands, reports) = start_reader()?;
    let delivered = deliver.start(Arc::clone(&queue))?;
    if let Some(folder) = routes.new_files().filter(|_| options.follow) {
        commands.send(Command::WatchNewcomers(folder.to_owned()));
    }
    let streams = start_streams(&docker, &routes, &queue, &options);
    let metadata = Metadata::new(options.metadata_cache_ttl, metrics.logs.clone());
    let settings = supervisor_settings(&options, &routes, &docker);
    let (files, selector) = (Box::new(LocalFiles(routes)), options.selector);
    let supervisor = Supervisor::new(settings, files, selector, metadata, positions, Now::read());
    let executor = Executor::new(commands, Lookups::new(docker.clone()), streams, Arc::clone(&queue));
    let (follow, until) = (options.follow, options.until);
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

type ReaderParts = (Arc<Queue>, ReaderCommands, UnboundedReceiver<Report>);

/// Starts the thread that reads files.
fn start_reader() -> Result<ReaderParts, Error> {
    let wake = Wake::new()?;
    let on_room = wake.clone();
    let queue = Arc::new(Queue::new(QUEUE, move || on_room.wake()));
    let (sender, received) = mpsc::channel();
    // Each report answers a command or ends a file, so there are never more than a few for a container.
    let (report, reports) = unbounded_channel();
    let reader = LogReader::new(Arc::clone(&queue), wake.clone(), received, move |text| {
        // Fails only when `watch` is stopping.
        let _ = report.send(text);
    })?;
    thread::Builder::new().name("reader".into()).spawn(move || reader.run())?;
    Ok((queue, ReaderCommands { sender, wake }, reports))
}

fn start_streams(docker: &Docker, routes: &Arc<Routes>, queue: &Arc<Queue>, options: &WatchOptions) -> Streams {
    Streams::new(Arc::clone(routes), |reports, shorten_retries| StreamContext {
        docker: docker.clone(),
        queue: Arc::clone(queue),
        route: routes.over_api(),
        interval: options.interval,
        max_line_size: options.max_line_size,
        reports,
        shorten_retries,
    })
}

fn supervisor_settings(options: &WatchOptions, routes: &Routes, docker: &Docker) -> supervisor::Settings {
    supervisor::Settings {
        follow: options.follow,
        all: options.all,
        metadata: options.output.metadata,
        history: options.history(),
        window: options.window(),
        max_line_size: options.max_line_size,
        source: options.source,
        api_route: routes.over_api(),
        folder: routes.folder.clone(),
        slots: MAX_SLOTS.min(docker.most_logs()),
    }
}

impl Watch {
    /// Prints what happened before the first listing is processed.
    fn report_start(&mut self, notices: Vec<String>, lost: Vec<Lost>, refusal: Option<String>) {
        let notice = |text| Effect::Push(vec![Item::Notice(None, text)]);
        self.executor.perform(notices.into_iter().map(notice));
        for Lost { id, name, route, after } in lost {
            let container = Container { id, name, ..Container::default() };
            let effect = self.supervisor.report_lost(container, route, after);
            self.executor.perform([effect]);
        }
        self.executor.perform(refusal.map(notice));
    }
}

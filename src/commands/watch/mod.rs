//! `watch`: who is followed, from the first listing to the last line.
//!
//! One loop over a closed set of happenings: news of containers, reports of the tails, the end of the output, the end of
//! the time asked for, and being told to stop. It never waits for the engine inside a step.

mod discovery;
mod dry_run;
pub(crate) mod feed;
mod lookups;
mod metadata;
mod options;
pub mod resume;
mod start;
mod status;
mod supervisor;

use super::Error;
use super::deliver::Deliver;
use super::inventory::Inventory;
use super::route::Routes;
use crate::docker::{self, Docker, Endpoint};
use crate::metrics::Metrics;
use crate::model::batch::Lifecycle;
use crate::model::container::Container;
use crate::model::queue::Queue;
use crate::model::selector::Selector;
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output;
use crate::tail::{Reader, Report, Start, Wake};
pub use options::WatchOptions;

use discovery::{Change, Discovery};
use feed::{Feed, News};
use lookups::{Answer, Lookups};
use metadata::Metadata;
use resume::Positions;
use status::StatusReporter;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use supervisor::{Supervisor, Unread};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Bytes that wait for the output before reading pauses.
const QUEUE: usize = 8 * 1024 * 1024;

/// Follows containers until `stop`, or until everything that was asked for is read. With `dry_run`, prints the plan.
pub fn watch(endpoint: Endpoint, options: WatchOptions, stop: &Stop) -> Result<(), Error> {
    start::raise_descriptor_limit();
    super::runtime()?.block_on(async {
        if options.dry_run {
            return dry_run::run(endpoint, options, stop).await;
        }
        let running = tokio::select! {
            running = start::start(endpoint, options) => running?,
            () = stop.cancelled() => return Ok(()),
        };
        let Running { watch, feed, listing } = running;
        watch.follow(feed, listing, stop).await
    })
}

/// A watch that is ready to process its first listing.
struct Running {
    watch: Watch,
    feed: Feed,
    listing: News,
}

/// A watch under way.
struct Watch {
    docker: Docker,
    options: WatchOptions,
    queue: Arc<Queue>,
    reports: UnboundedReceiver<Report>,
    delivered: oneshot::Receiver<Result<(), Error>>,
    discovery: Discovery,
    tails: Supervisor,
    /// Of all the engine has, if that is kept.
    inventory: Option<Inventory>,
    /// Where the last run stopped, if that is gone on with.
    positions: Option<Positions>,
    /// To the engine, about single containers.
    questions: Lookups,
    /// What was asked.
    metadata: Metadata,
    metrics: Metrics,
    listener: StatusReporter,
    /// IDs of those that came and went while nobody told of them.
    claimed: HashSet<String>,
    /// IDs that pass the filters which only the engine can evaluate, where there are such.
    passing: Option<HashSet<String>>,
    /// Of containers whose exit code is asked for, the event of their end, and what happened since.
    ending: HashMap<String, (Lifecycle, Vec<Change>)>,
    /// When those were let go that were followed before, by ID.
    released: HashMap<String, Timestamp>,
    /// When we came: what is found later was made or started since.
    began: Timestamp,
    is_first: bool,
    told_lost: bool,
}

impl Watch {
    fn start(
        docker: Docker,
        routes: Arc<Routes>,
        options: WatchOptions,
        metrics: Metrics,
        mut deliver: Deliver,
        positions: Option<Positions>,
    ) -> Result<Watch, Error> {
        let listener = StatusReporter::new(options.follow && options.events.enabled);
        if let Some(keeper) = &mut deliver.keeper {
            keeper.tell(listener.board());
        }
        let wake = Wake::new()?;
        let on_room = wake.clone();
        let queue = Arc::new(Queue::new(QUEUE, move || on_room.wake()));
        let (commands, received) = mpsc::channel();
        // Each report answers a command or ends a file, so there are never more than a few for a container.
        let (report, reports) = unbounded_channel();
        let reader = Reader::new(Arc::clone(&queue), wake.clone(), received, move |said| {
            // Nobody listens any more when we stop.
            let _ = report.send(said);
        })?;
        thread::Builder::new().name("reader".into()).spawn(move || reader.run())?;
        let delivered = deliver.start(Arc::clone(&queue))?;
        let tails = Supervisor::new(docker.clone(), routes, Arc::clone(&queue), commands, wake, &options);
        Ok(Watch {
            metadata: Metadata::new(options.metadata_cache_ttl, metrics.logs.clone()),
            metrics,
            listener,
            questions: Lookups::new(docker.clone()),
            docker,
            options,
            queue,
            reports,
            delivered,
            discovery: Discovery::default(),
            tails,
            inventory: None,
            positions,
            claimed: HashSet::new(),
            passing: None,
            ending: HashMap::new(),
            released: HashMap::new(),
            began: Timestamp::now(),
            is_first: true,
            told_lost: false,
        })
    }

    async fn follow(mut self, feed: Feed, listing: News, stop: &Stop) -> Result<(), Error> {
        self.greet(&listing);
        self.apply(listing);
        self.is_first = false;
        let mut upkeep = JoinSet::new();
        upkeep.spawn(self.docker.upkeep());
        let mut news = self.options.follow.then(|| feed.run());
        let until = reached(self.options.until);
        tokio::pin!(until);
        loop {
            if news.is_none() && !self.tails.is_reading() {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = &mut self.delivered => return ended(done),
                () = &mut until, if news.is_some() => {
                    news = None;
                    self.tails.finish_all();
                }
                Some(said) = next(&mut news) => self.apply(said),
                Some(report) = self.reports.recv() => match report {
                    Report::Unclaimed(container) => self.claim(*container),
                    report => self.tails.hear(report),
                },
                Some(()) = self.tails.next_ended() => {}
                Some(answer) = self.questions.answer() => self.hear(answer),
                Some(asked) = self.listener.asked() => self.count(asked),
            }
        }
        self.stop(stop).await
    }

    /// Brings up to date what is counted only when somebody asks; the reader thread does the last of it.
    fn count(&self, asked: oneshot::Sender<()>) {
        self.listener.count(&self.metrics);
        self.metrics.logs.monitor(self.tails.by_route());
        let logs = self.metrics.logs.clone();
        self.tails.measure(move |bytes| {
            logs.lag(bytes);
            // It may have been waited for long enough.
            let _ = asked.send(());
        });
    }

    /// Closes in the order of the flow. What was read is still written, if its reader takes it.
    async fn stop(self, stop: &Stop) -> Result<(), Error> {
        let Watch { queue, tails, inventory, delivered, options, discovery, .. } = self;
        let unread = tails.stop().await;
        queue.close();
        let done = tokio::select! {
            done = delivered => ended(done),
            // Whoever reads our output has not for all this time; what it has not taken is still in the logs.
            () = super::drained(stop) => Ok(()),
        };
        if let Some(inventory) = inventory {
            inventory.stop().await;
        }
        done?;
        if stop.is_cancelled() { Ok(()) } else { complete(unread, &options.selector, &discovery) }
    }

    /// What a user should know before the first line.
    fn greet(&self, listing: &News) {
        if let Some(error) = self.tails.routes.refusal() {
            let folder = self.tails.routes.folder.display();
            if error.kind() == io::ErrorKind::PermissionDenied {
                let advice = "reading through the engine instead (root reads the files themselves)";
                self.tails.tell(format!("no permission to read {folder}: {advice}"));
            } else {
                tracing::info!(%error, "logs are read through the engine");
            }
        }
        let News::Listing(containers, _, passing) = listing else { return };
        let unmatched = self.options.selector.unmatched(containers.iter());
        for name in &unmatched {
            let advice = "waiting for it to be started (`docker ps -a` lists what there is)";
            self.tails.tell(format!("no container is called {name}: {advice}"));
        }
        let is_passing = |id: &String| passing.as_ref().is_none_or(|passing| passing.contains(id));
        let mut read = containers
            .iter()
            .filter(|container| self.wants_history(container))
            .filter(|container| is_passing(&container.id));
        if unmatched.is_empty() && !read.any(|container| self.options.selector.matches(container)) {
            // An empty screen could be quiet containers as well as a slip.
            self.tails.tell(match self.options.follow {
                true => "no running container matches: waiting for one to start",
                false => "no container matches",
            });
        }
    }

    fn apply(&mut self, news: News) {
        self.note(&news);
        if let Some(inventory) = &self.inventory {
            inventory.hear(&news);
        }
        let changes = match news {
            News::Listing(containers, at, passing) => {
                if std::mem::take(&mut self.told_lost) {
                    self.tails.tell("the engine is back");
                }
                self.passing = passing.map(HashSet::from_iter);
                self.discovery.listing(containers, Instant::now(), at)
            }
            // All there was of it has been read.
            News::Event(event) if self.claimed.contains(&event.id) => return,
            News::Event(event) => self.discovery.event(&event, Instant::now()),
            News::Lost(error) => {
                if !std::mem::replace(&mut self.told_lost, true) {
                    self.tails.tell(format!("{error}: trying again, log files are followed meanwhile"));
                }
                return;
            }
            News::Back(continuity) => return self.tails.tell(format!("{continuity}; the containers are listed anew")),
            // What a line may have told a listing tells.
            News::Nonsense(_) | News::Forgotten(_) => return,
        };
        self.make(changes);
        // Answers and reports have their own course.
        self.tails.follows(None);
    }

    /// What is told of our health, and what is believed of a container, changes with the news.
    fn note(&mut self, news: &News) {
        self.listener.note(news);
        self.tails.follows(match news {
            News::Event(event) => Some(event.time),
            _ => None,
        });
        match news {
            News::Listing(containers, ..) if self.options.output.metadata => {
                let at = Instant::now();
                containers.iter().for_each(|container| self.metadata.learn(Arc::new(container.clone()), at));
            }
            News::Event(event) => self.metadata.forget(&event.id),
            _ => {}
        }
    }

    /// The engine has said what a container ended with. What happened to it meanwhile comes behind that.
    fn ended(&mut self, id: String, code: Option<i64>) {
        let Some((mut event, waiting)) = self.ending.remove(&id) else { return };
        if let Some(code) = code {
            event.attributes.insert("exitCode".into(), code.to_string());
        }
        self.discovery.ended(&id, code);
        self.make([Change::Down(id, code, Some(event))].into_iter().chain(waiting).collect());
    }

    fn make(&mut self, changes: Vec<Change>) {
        let mut doubted = Vec::new();
        for change in changes {
            if let Some((_, waiting)) = self.ending.get_mut(change.id()) {
                waiting.push(change);
                continue;
            }
            match change {
                Change::DownSomehow(id, event) if self.tails.has(&id) => {
                    self.questions.code(&id);
                    self.ending.insert(id, (event, Vec::new()));
                }
                Change::DownSomehow(..) => {}
                Change::Found(container) => self.found(&container),
                Change::Altered(container) => self.altered(&container),
                Change::Up(id) => self.up(&id),
                Change::Down(id, code, event) => self.tails.down(&id, code, event),
                Change::Gone(id) => {
                    self.metadata.forget(&id);
                    self.released.remove(&id);
                    self.tails.gone(&id);
                }
                Change::Doubted(id) => doubted.push(id),
                Change::Happened(id, event) => self.happened(&id, event),
            }
        }
        doubted.retain(|id| self.tails.has(id));
        if !doubted.is_empty() {
            self.questions.runs(doubted);
        }
    }

    /// No event and no listing has told of this container, which is gone; its log is at hand.
    fn claim(&mut self, container: Container) {
        let is_known = self.tails.has(&container.id) || self.discovery.container(&container.id).is_some();
        if is_known || !self.options.selector.matches(&container) {
            return self.tails.ignore(&container.id);
        }
        if self.passing.is_some() {
            tracing::warn!(name = container.name, "cannot tell whether it matches; it is followed");
        }
        self.claimed.insert(container.id.clone());
        self.tails.claim(&Arc::new(container));
    }

    /// Lets go of a container that was meant by the beginning of its ID, where another now has that word as its name.
    fn settle(&mut self, container: &Container) {
        let Some(id) = self.options.selector.learn(container) else { return };
        let other = self.discovery.container(&id).map(Arc::clone);
        if other.is_none_or(|other| !self.options.selector.matches(&other)) {
            let text = format!("is no longer followed: {} is the name of another container now", container.name);
            self.tails.let_go(&id, text);
            self.released.insert(id, Timestamp::now());
        }
    }

    fn found(&mut self, container: &Arc<Container>) {
        self.settle(container);
        if !self.options.selector.may_match(container) {
            return self.tails.ignore(&container.id);
        }
        if !self.is_first {
            // It may be found late, and have rotated its log since.
            return self.add_new(container, Start::All, true);
        }
        if self.passing.as_ref().is_some_and(|passing| !passing.contains(&container.id)) {
            return;
        }
        let position = self.positions.as_mut().and_then(|positions| positions.take(&container.id));
        match (self.wants_history(container) || position.is_some(), self.options.follow) {
            (true, _) => self.tails.add_as_it_is(container, self.options.history(), position, false),
            (false, true) => self.tails.add_as_it_is(container, Start::Last(0), None, false),
            (false, false) => {}
        }
    }

    /// Whether what it wrote before we came is wanted.
    fn wants_history(&self, container: &Container) -> bool {
        // One that was not there in the last run has come since, and perhaps ended.
        let is_news = self.positions.as_ref().is_some_and(|positions| !positions.is_first);
        container.is_up() || is_news || self.options.wants_stopped(container)
    }

    /// A container that was not there, or not wanted, when we came. Its file is opened before the engine is asked whether
    /// it is wanted: it may be gone by then. Of one that was just found what became of it since is told as well.
    fn add_new(&mut self, container: &Arc<Container>, start: Start, is_just_found: bool) {
        let must_see = !self.options.selector.matches(container);
        let must_ask = self.passing.is_some() || must_see;
        // Labels that its event could not show come with its networks, which it has once it runs.
        let lacks_labels = is_just_found && self.options.output.metadata && !container.hidden.is_empty();
        let must_wait = !must_ask && lacks_labels;
        // It need not be new to us.
        let position = self.positions.as_mut().and_then(|positions| positions.take(&container.id));
        let start = if position.is_some() { Start::All } else { start };
        match is_just_found {
            true => self.tails.add(container, start, position, must_ask || must_wait),
            false => self.tails.add_as_it_is(container, start, position, must_ask),
        }
        if must_ask {
            self.questions.is_passing(&container.id, self.options.selector.remote(), must_see || lacks_labels);
        } else if must_wait {
            self.tails.hold_until_described(&container.id);
        }
    }

    fn altered(&mut self, container: &Arc<Container>) {
        self.settle(container);
        if self.tails.has(&container.id) {
            self.questions.doubt(&container.id);
            self.tails.alter(container);
        } else if !self.is_first && self.options.follow && self.options.selector.may_match(container) {
            let since = self.released.remove(&container.id).unwrap_or(self.began);
            self.add_new(container, Start::Since(since), false);
        }
    }

    fn up(&mut self, id: &str) {
        self.tails.up(id);
        if self.options.output.metadata && self.tails.has(id) && !self.is_first {
            match self.metadata.find(id, Instant::now()) {
                Some(container) => {
                    self.tails.alter(&container);
                    self.tails.described(id);
                }
                None => self.questions.details(id),
            }
        }
    }

    fn happened(&mut self, id: &str, event: Lifecycle) {
        // What only the engine can evaluate may have changed with it.
        let may_pass = self.passing.is_some() && !self.tails.has(id) && event.action.starts_with("health_status");
        if may_pass
            && let Some(container) = self.discovery.container(id).map(Arc::clone)
            && self.options.selector.may_match(&container)
        {
            self.add_new(&container, Start::Since(self.began), false);
        }
        if event.action.starts_with("health_status") {
            self.questions.doubt(id);
        }
        self.tails.happened(id, event);
    }

    fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Passing(id, is_passing) => match self.questions.was_doubted(&id) && !is_passing {
                true => self.questions.is_passing(&id, self.options.selector.remote(), true),
                false => self.tails.admit(&id, is_passing),
            },
            Answer::Seen(container) => {
                let seen = self.discovery.seen(&container);
                let is_wanted = self.options.selector.matches(&seen);
                if is_wanted {
                    self.tails.alter(&seen);
                }
                self.tails.admit(&seen.id, is_wanted);
            }
            Answer::NoDetails(id) => self.tails.described(&id),
            Answer::Code(id, code) => self.ended(id, code),
            Answer::Details(container) => {
                let container = Arc::new(*container);
                self.discovery.seen(&container);
                self.tails.alter(&container);
                self.tails.described(&container.id);
                // Nothing would make us forget one that has gone meanwhile.
                if self.tails.has(&container.id) {
                    self.metadata.learn(container, Instant::now());
                }
            }
            Answer::Runs(runs) => {
                for (id, run) in runs {
                    let changes = self.discovery.inspected(&id, &run);
                    self.make(changes);
                }
            }
            Answer::Nothing => {}
        }
    }
}

/// Whether all were read to the end that was asked for. That one has no log is told, and is a failure where it was named.
fn complete(unread: Unread, selector: &Selector, discovery: &Discovery) -> Result<(), Error> {
    let (mut names, mut source) = (Vec::new(), None);
    for (id, error) in unread {
        let container = discovery.container(&id);
        let is_meant = container.is_none_or(|container| selector.names_container(container));
        if is_meant || !matches!(error, Some(docker::Error::NoLogs { .. })) {
            names.push(container.map_or(id, |container| container.name.clone()));
            source = source.or(error);
        }
    }
    if names.is_empty() { Ok(()) } else { Err(Error::Unread { names, source }) }
}

async fn next(news: &mut Option<Receiver<News>>) -> Option<News> {
    news.as_mut()?.recv().await
}

/// Returns when the time has come, and a little later, for what is stamped now and written soon.
async fn reached(until: Option<Timestamp>) {
    const LATE: Duration = Duration::from_millis(500);
    let Some(until) = until else { return std::future::pending().await };
    let left = until.0.saturating_sub(Timestamp::now().0);
    tokio::time::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)) + LATE).await;
}

/// A reader of our output that went away had all it wanted.
fn ended(done: Result<Result<(), Error>, oneshot::error::RecvError>) -> Result<(), Error> {
    match done {
        Ok(Err(Error::Output(output::Error::Closed))) => Ok(()),
        Ok(Err(Error::Output(error))) => Err(Error::Lines(error)),
        Ok(result) => result,
        Err(_) => Err(Error::Start(io::Error::other("the output thread is gone"))),
    }
}

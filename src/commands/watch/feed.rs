//! What `watch` hears of containers: events as they come, and a listing whenever events may be missing.
//!
//! In: an engine. Out: [`News`], one at a time. The events are read at once whatever happens behind, and wait in the
//! [`Backlog`]; what finds no room there, a break of the stream, and an engine that may have skipped us are answered with a
//! new listing. A listing that is under way has its place among the events kept: what came before it was asked for goes
//! before it, what came later may be news to it.

use crate::commands::Error;
use crate::commands::events::backlog::Backlog;
use crate::commands::events::subscription::{Continuity, Subscription, SubscriptionEvent, Wanted, backoff_settings};
use crate::config;
use crate::docker::backoff::Backoff;
use crate::docker::{Docker, Event};
use crate::metrics;
use crate::model::container::Container;
use crate::model::selector::Filters;
use crate::model::time::Timestamp;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, channel};

/// Silence after which the engine has told what happened while we were away, ...
const BACKLOG: Duration = Duration::from_millis(100);
/// ... and how long that may take where it is never silent.
const LONGEST_BACKLOG: Duration = Duration::from_secs(2);
/// An engine that has not begun to answer listens by then all the same, as far as anybody can tell.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two listings where there are no events, and no interval is asked for.
const LISTINGS: Duration = Duration::from_secs(30);
/// What can change which containers there are, and what a lifecycle record may tell. `health_status` makes the engine
/// match all of them as prefixes, which adds none.
const ACTIONS: [&str; 15] = [
    "create",
    "start",
    "die",
    "stop",
    "kill",
    "destroy",
    "pause",
    "unpause",
    "rename",
    "restart",
    "update",
    "oom",
    "health_status",
    "attach",
    "detach",
];

/// What else can change which volumes there are and who uses them. What a prune of volumes removes is told by nothing else.
const ACTIONS_OF_VOLUMES: [&str; 3] = ["mount", "unmount", "prune"];

/// What is new.
#[derive(Debug)]
pub(crate) enum News {
    /// All containers there are, by the engine's clock when; those that pass the filters which only the engine can evaluate.
    Listing(Vec<Container>, Timestamp, Option<Vec<String>>),
    /// Something happened.
    Event(Box<Event>),
    /// The engine is gone; it is tried again.
    Lost(crate::docker::Error),
    /// The events are back, and what is to be said of those in between.
    Back(Continuity),
}

impl From<Box<Event>> for News {
    fn from(event: Box<Event>) -> Self {
        News::Event(event)
    }
}

/// What a feed is made for.
pub(crate) struct Terms {
    /// Filters that only the engine can evaluate.
    pub(crate) remote: Filters,
    /// How events are listened to, or that they are not.
    pub(crate) config: config::EventsConfig,
    /// What is counted.
    pub(crate) count: metrics::EventMetrics,
    /// Events of volumes too.
    pub(crate) with_volumes: bool,
    /// Each event is wanted, not only what a container is now.
    pub(crate) is_each_wanted: bool,
}

/// An open subscription and what was there when it was opened.
pub(crate) struct Feed {
    docker: Docker,
    terms: Terms,
    /// `None` where events are off, or refused.
    subscription: Option<Subscription>,
    inbox: Backlog<News>,
    /// Since when something is missing that a listing has to make up for.
    missed: Option<Instant>,
    /// When the last event came.
    heard: Instant,
    /// What the engine's clock showed at the start, where it was asked.
    clock: Option<(Timestamp, Instant)>,
    /// When to list in any case.
    due: Option<Instant>,
    /// The return of an engine that a listing was asked of in vain.
    returned: Option<Return>,
    listing: Option<Listing>,
    /// Before the next listing, where the last one failed.
    backoff: Backoff,
    not_before: Option<Instant>,
    /// The events are back since the last listing.
    is_back: bool,
    /// Why events are not listened to though they are wanted.
    refused: Option<crate::docker::Error>,
}

type Return = Pin<Box<dyn Future<Output = ()> + Send>>;
type Listing = Pin<Box<dyn Future<Output = Result<News, crate::docker::Error>> + Send>>;

impl Feed {
    /// Subscribes, then lists: what happens between the two is in both.
    pub(crate) async fn open(docker: Docker, terms: Terms, now: Option<Timestamp>) -> Result<(Feed, News), Error> {
        let config = &terms.config;
        let (mut subscription, mut refused) = (None, None);
        if config.enabled {
            let wanted = wanted(terms.with_volumes);
            match Subscription::open(docker.clone(), wanted, now, config, terms.count.clone()).await {
                Ok(opened) => subscription = Some(opened),
                Err(error) if error.is_refusal() => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let waits = backoff_settings(config);
        let mut feed = Feed {
            inbox: Backlog::new(config.queue_size, !terms.is_each_wanted),
            docker,
            terms,
            subscription,
            missed: None,
            heard: Instant::now(),
            clock: now.map(|now| (now, Instant::now())),
            due: None,
            returned: None,
            listing: None,
            backoff: Backoff::new(waits),
            not_before: None,
            is_back: false,
            refused,
        };
        let listing = feed.list().await?;
        feed.due = feed.next_due();
        Ok((feed, listing))
    }

    fn list(&self) -> Listing {
        let at = self.subscription.as_ref().map_or_else(|| self.engine_time(), Subscription::engine_time);
        let (docker, remote) = (self.docker.clone(), self.terms.remote.clone());
        Box::pin(async move {
            let all = docker.list(true, &Filters::new()).await?;
            if remote.is_empty() {
                return Ok(News::Listing(all, at, None));
            }
            let passing = docker.list_ids(true, &remote).await?;
            Ok(News::Listing(all, at, Some(passing)))
        })
    }

    /// What the engine's clock shows, where no event tells.
    fn engine_time(&self) -> Timestamp {
        let since = |at: &Instant| i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.clock.map_or_else(Timestamp::now, |(then, at)| then.plus(since(&at)))
    }

    fn next_due(&self) -> Option<Instant> {
        let is_unsure = self.subscription.as_ref().is_some_and(Subscription::is_unconfirmed);
        let settled = is_unsure.then_some(SETTLED);
        settled.into_iter().chain(self.interval()).min().map(|span| Instant::now() + span)
    }

    /// A sentence where events are refused, and containers are listed instead.
    pub(crate) fn trouble(&self) -> Option<String> {
        let (refused, interval) = (self.refused.as_ref()?, self.interval()?);
        Some(format!("{refused}; containers are listed every {}s instead", interval.as_secs()))
    }

    fn interval(&self) -> Option<Duration> {
        // What is meant for who hears of everything is too seldom for who does not.
        if self.refused.is_some() {
            let asked = Some(self.terms.config.reconcile_interval).filter(|interval| !interval.is_zero());
            return Some(asked.map_or(LISTINGS, |asked| asked.min(LISTINGS)));
        }
        let asked = Some(self.terms.config.reconcile_interval).filter(|interval| !interval.is_zero());
        asked.or_else(|| (!self.terms.config.enabled).then_some(LISTINGS))
    }

    /// Reads events until the receiver is gone.
    pub(crate) fn run(mut self) -> Receiver<News> {
        // All that waits does so in the inbox.
        let (news, receiver) = channel(1);
        tokio::spawn(async move {
            loop {
                self.terms.count.queued(self.inbox.len());
                let due = self.listing_due();
                tokio::select! {
                    () = news.closed() => return,
                    happening = next(&mut self.subscription) => self.take(happening),
                    listed = under_way(&mut self.listing) => self.listed(listed),
                    () = come(&mut self.returned) => {
                        self.returned = None;
                        self.not_before = None;
                    }
                    Ok(room) = news.reserve(), if self.inbox.is_ready() => {
                        if let Some(first) = self.inbox.pop() {
                            room.send(first);
                        }
                    }
                    () = until(due) => self.begin_listing(),
                }
            }
        });
        receiver
    }

    fn take(&mut self, happening: SubscriptionEvent) {
        self.heard = Instant::now();
        match happening {
            SubscriptionEvent::Event(event) => {
                let (kind, verb) = (event.kind.clone(), event.verb().to_owned());
                let has_room = self.inbox.push_event(event).is_ok();
                match has_room {
                    true => self.terms.count.processed(&kind, &verb),
                    false => self.terms.count.dropped(),
                }
                if !has_room || self.is_late() {
                    self.miss();
                }
            }
            SubscriptionEvent::Malformed(error) => {
                tracing::info!(%error, "an event that makes no sense");
                self.miss();
            }
            SubscriptionEvent::Lost(error) => self.inbox.push(News::Lost(error)),
            SubscriptionEvent::Back(continuity) => {
                if continuity != Continuity::Whole {
                    self.inbox.push(News::Back(continuity));
                }
                self.not_before = None;
                self.is_back = true;
                self.miss();
                self.due = self.next_due();
            }
            // All that happened before is in a listing that is made now.
            SubscriptionEvent::Begun => self.miss(),
            SubscriptionEvent::Ended => {}
        }
    }

    fn miss(&mut self) {
        self.missed.get_or_insert_with(Instant::now);
    }

    fn is_late(&self) -> bool {
        self.subscription.as_ref().is_some_and(Subscription::is_late)
    }

    /// When the next listing is to be made. Once older events are all read, none can undo what it tells.
    fn listing_due(&self) -> Option<Instant> {
        let is_deaf = self.subscription.as_ref().is_some_and(|subscription| !subscription.is_open());
        if self.listing.is_some() || is_deaf || !self.inbox.has_room() {
            return None;
        }
        let quiet = self.missed.map(|missed| {
            let quiet = self.heard + BACKLOG;
            if self.is_late() { quiet } else { quiet.min(missed + LONGEST_BACKLOG) }
        });
        let due = quiet.into_iter().chain(self.due).min();
        due.map(|due| due.max(self.not_before.unwrap_or(due)))
    }

    fn begin_listing(&mut self) {
        if self.missed.take().is_some() {
            tracing::info!("events are missing; listing the containers anew");
        }
        if let Some(subscription) = &mut self.subscription {
            subscription.rebase_delay();
        }
        self.due = self.interval().map(|interval| Instant::now() + interval);
        self.returned = None;
        self.inbox.reserve();
        self.listing = Some(self.list());
    }

    fn listed(&mut self, listed: Result<News, crate::docker::Error>) {
        self.listing = None;
        match listed {
            Ok(listing) => {
                self.backoff.reset();
                self.not_before = None;
                self.inbox.fill_reserved(Some(listing));
            }
            Err(error) => {
                if error.is_of_connection() {
                    self.returned = Some(Box::pin(self.docker.returned(&error)));
                }
                self.inbox.fill_reserved(Some(News::Lost(error)));
                // An engine that has just come back may answer events before it answers all else, and nothing would tell
                // of a second return.
                let wait = self.backoff.wait(fastrand::f64());
                let wait = if std::mem::take(&mut self.is_back) { wait.min(SETTLED) } else { wait };
                self.not_before = Some(Instant::now() + wait);
                self.miss();
            }
        }
    }
}

async fn next(subscription: &mut Option<Subscription>) -> SubscriptionEvent {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

async fn under_way(listing: &mut Option<Listing>) -> Result<News, crate::docker::Error> {
    match listing {
        Some(listing) => listing.await,
        None => std::future::pending().await,
    }
}

async fn come(returned: &mut Option<Return>) {
    match returned {
        Some(returned) => returned.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn wanted(with_volumes: bool) -> Wanted {
    let (mut kinds, mut actions) = (vec!["container"], ACTIONS.to_vec());
    if with_volumes {
        kinds.push("volume");
        actions.extend(ACTIONS_OF_VOLUMES);
    }
    let values = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
    let filters = Filters::from([("type".to_owned(), values(kinds)), ("event".to_owned(), values(actions))]);
    Wanted { filters, since: None, until: None }
}

//! The source of news about containers for `watch`: events as they arrive, and a listing whenever
//! events may be missing.
//!
//! In: a connection to the daemon. Out: [`News`], one at a time. Events are read as they arrive and wait in the
//! [`Backlog`], so that the daemon never waits for us. A new listing is made when the backlog is full, when the stream
//! was interrupted, and when the daemon may have left out events. A pending listing keeps its place in the backlog:
//! events that arrived before its request come before it, and later ones after it, since it may not show them yet.

use crate::commands::events::backlog::Backlog;
use crate::commands::events::subscription::{Continuity, Subscription, SubscriptionEvent, Wanted, backoff_settings};
use crate::commands::{Error, or_never, sleep_until};
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

/// After a reconnect the daemon sends the missed events. Once none has arrived for this long, there are no more.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);
/// Upper limit of that wait, for a daemon whose events never pause.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(2);
/// A daemon that has not sent the header of its response by then is assumed to have accepted the subscription.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two listings if there are no events, and no interval is configured.
const LISTINGS: Duration = Duration::from_secs(30);
/// Actions that can change which containers exist or run, and those that are printed as lifecycle records. Because of
/// `health_status` the daemon matches all of them as prefixes, which lets no other action pass.
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

/// Actions that can change which volumes exist and which containers use them. Only `prune` reports that
/// a prune removed volumes.
const VOLUME_ACTIONS: [&str; 3] = ["mount", "unmount", "prune"];

/// Something that happened to the containers, or to the connection.
#[derive(Debug)]
pub(crate) enum News {
    /// All existing containers; the time of the listing by the daemon's clock; and, if there are filters that only the
    /// daemon can evaluate, the IDs of the containers that pass them.
    Listing(Vec<Container>, Timestamp, Option<Vec<String>>),
    Event(Box<Event>),
    /// The daemon cannot be reached. Another attempt follows.
    Lost(crate::docker::Error),
    /// The event stream is open again, and some events in between may be missing.
    Back(Continuity),
}

impl From<Box<Event>> for News {
    fn from(event: Box<Event>) -> Self {
        News::Event(event)
    }
}

/// What a feed delivers.
pub(crate) struct FeedOptions {
    /// Filters that only the daemon can evaluate.
    pub(crate) daemon_filters: Filters,
    /// Whether to subscribe to events, and with which bounds.
    pub(crate) config: config::EventsConfig,
    pub(crate) metrics: metrics::EventMetrics,
    /// Whether to subscribe to events of volumes, too.
    pub(crate) with_volumes: bool,
    /// Whether to deliver every event. Otherwise events that a later one supersedes may be dropped.
    pub(crate) with_all_events: bool,
}

/// The subscription, and when to list next.
pub(crate) struct Feed {
    docker: Docker,
    options: FeedOptions,
    /// `None` if events are disabled or refused.
    subscription: Option<Subscription>,
    backlog: Backlog<News>,
    /// Since when events may be missing, so that a listing is needed.
    missed: Option<Instant>,
    /// When the last event or report of the subscription arrived.
    last_arrival: Instant,
    /// The daemon's clock at the start, and ours at the same moment; `None` if the daemon's is unknown.
    clock: Option<(Timestamp, Instant)>,
    /// When to list even if nothing is missing.
    due: Option<Instant>,
    /// After a failed listing, resolves when the daemon is reachable again.
    daemon_return: Option<Return>,
    /// The pending listing, at most one.
    listing: Option<Listing>,
    /// Delays the next listing after a failed one.
    backoff: Backoff,
    /// Earliest time of the next listing, after a failed one.
    not_before: Option<Instant>,
    /// Whether the event stream was reopened since the last listing.
    is_back: bool,
    /// The error with which the daemon refuses events, if it does.
    refused: Option<crate::docker::Error>,
}

type Return = Pin<Box<dyn Future<Output = ()> + Send>>;
type Listing = Pin<Box<dyn Future<Output = Result<News, crate::docker::Error>> + Send>>;

impl Feed {
    /// Subscribes, then lists, so that what happens between the two is in at least one of them.
    pub(crate) async fn open(
        docker: Docker,
        options: FeedOptions,
        now: Option<Timestamp>,
    ) -> Result<(Feed, News), Error> {
        let config = &options.config;
        let (mut subscription, mut refused) = (None, None);
        if config.enabled {
            let wanted = wanted(options.with_volumes);
            match Subscription::open(docker.clone(), wanted, now, config, options.metrics.clone()).await {
                Ok(opened) => subscription = Some(opened),
                Err(error) if error.is_refusal() => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let waits = backoff_settings(config);
        let mut feed = Feed {
            backlog: match options.with_all_events {
                true => Backlog::new(config.queue_size),
                false => Backlog::coalescing(config.queue_size),
            },
            docker,
            options,
            subscription,
            missed: None,
            last_arrival: Instant::now(),
            clock: now.map(|now| (now, Instant::now())),
            due: None,
            daemon_return: None,
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
        let (docker, daemon_filters) = (self.docker.clone(), self.options.daemon_filters.clone());
        Box::pin(async move {
            let all = docker.list(&Filters::new()).await?;
            if daemon_filters.is_empty() {
                return Ok(News::Listing(all, at, None));
            }
            let passing = docker.list_ids(&daemon_filters).await?;
            Ok(News::Listing(all, at, Some(passing)))
        })
    }

    /// Estimates the daemon's clock from that at the start, for a feed without events.
    fn engine_time(&self) -> Timestamp {
        self.clock.map_or_else(Timestamp::now, |(then, at)| then + at.elapsed())
    }

    fn next_due(&self) -> Option<Instant> {
        let is_unsure = self.subscription.as_ref().is_some_and(Subscription::is_unconfirmed);
        let confirmation = is_unsure.then_some(CONFIRMATION_TIMEOUT);
        confirmation.into_iter().chain(self.interval()).min().map(|span| Instant::now() + span)
    }

    /// A notice, if events are refused and containers are listed periodically instead.
    pub(crate) fn refusal_notice(&self) -> Option<String> {
        let (refused, interval) = (self.refused.as_ref()?, self.interval()?);
        Some(format!("{refused}; containers are listed every {}s instead", interval.as_secs()))
    }

    fn interval(&self) -> Option<Duration> {
        // The configured interval assumes events. Without them, it may be too long.
        if self.refused.is_some() {
            let configured = Some(self.options.config.reconcile_interval).filter(|interval| !interval.is_zero());
            return Some(configured.map_or(LISTINGS, |interval| interval.min(LISTINGS)));
        }
        let configured = Some(self.options.config.reconcile_interval).filter(|interval| !interval.is_zero());
        configured.or_else(|| (!self.options.config.enabled).then_some(LISTINGS))
    }

    /// Reads events until the receiver is gone.
    pub(crate) fn run(mut self) -> Receiver<News> {
        // The backlog is the only buffer.
        let (news, receiver) = channel(1);
        tokio::spawn(async move {
            loop {
                self.options.metrics.queued(self.backlog.len());
                let due = self.listing_due();
                tokio::select! {
                    () = news.closed() => return,
                    event = or_never(self.subscription.as_mut().map(Subscription::next)) => self.take(event),
                    listed = or_never(self.listing.as_mut()) => self.listed(listed),
                    () = or_never(self.daemon_return.as_mut()) => {
                        self.daemon_return = None;
                        self.not_before = None;
                    }
                    Ok(permit) = news.reserve(), if self.backlog.is_ready() => {
                        if let Some(first) = self.backlog.pop() {
                            permit.send(first);
                        }
                    }
                    () = sleep_until(due) => self.begin_listing(),
                }
            }
        });
        receiver
    }

    fn take(&mut self, event: SubscriptionEvent) {
        self.last_arrival = Instant::now();
        match event {
            SubscriptionEvent::Event(event) => {
                let (kind, action) = (event.kind.clone(), event.base_action().to_owned());
                let is_accepted = self.backlog.push_event(event).is_ok();
                match is_accepted {
                    true => self.options.metrics.processed(&kind, &action),
                    false => self.options.metrics.dropped(),
                }
                if !is_accepted || self.is_late() {
                    self.request_listing();
                }
            }
            SubscriptionEvent::Malformed(error) => {
                tracing::info!(%error, "an event could not be parsed");
                self.request_listing();
            }
            SubscriptionEvent::Lost(error) => self.backlog.push(News::Lost(error)),
            SubscriptionEvent::Back(continuity) => {
                if continuity != Continuity::Whole {
                    self.backlog.push(News::Back(continuity));
                }
                self.not_before = None;
                self.is_back = true;
                self.request_listing();
                self.due = self.next_due();
            }
            // Events from before may be missing. A listing that is made now shows their result.
            SubscriptionEvent::Begun => self.request_listing(),
            SubscriptionEvent::Ended => {}
        }
    }

    fn request_listing(&mut self) {
        self.missed.get_or_insert_with(Instant::now);
    }

    fn is_late(&self) -> bool {
        self.subscription.as_ref().is_some_and(Subscription::is_late)
    }

    /// When to make the next listing. It waits until the missed events have arrived, because an older event that is
    /// processed after the listing would undo what it shows.
    fn listing_due(&self) -> Option<Instant> {
        let is_interrupted = self.subscription.as_ref().is_some_and(|subscription| !subscription.is_open());
        if self.listing.is_some() || is_interrupted || !self.backlog.has_room() {
            return None;
        }
        let quiet = self.missed.map(|missed| {
            let quiet = self.last_arrival + CATCH_UP_PAUSE;
            if self.is_late() { quiet } else { quiet.min(missed + LONGEST_CATCH_UP) }
        });
        let due = quiet.into_iter().chain(self.due).min();
        due.map(|due| due.max(self.not_before.unwrap_or(due)))
    }

    fn begin_listing(&mut self) {
        if self.missed.take().is_some() {
            tracing::info!("events are missing; listing the containers again");
        }
        if let Some(subscription) = &mut self.subscription {
            subscription.rebase_delay();
        }
        self.due = self.interval().map(|interval| Instant::now() + interval);
        self.daemon_return = None;
        self.backlog.reserve();
        self.listing = Some(self.list());
    }

    fn listed(&mut self, listed: Result<News, crate::docker::Error>) {
        self.listing = None;
        match listed {
            Ok(listing) => {
                self.backoff.reset();
                self.not_before = None;
                self.backlog.fill_reserved(Some(listing));
            }
            Err(error) => {
                if error.is_of_connection() {
                    self.daemon_return = Some(Box::pin(self.docker.wait_for_daemon(&error)));
                }
                self.backlog.fill_reserved(Some(News::Lost(error)));
                // A daemon that has just started may accept the subscription before it answers other requests, and
                // nothing will report its return a second time.
                let wait = self.backoff.wait(fastrand::f64());
                let wait = if std::mem::take(&mut self.is_back) { wait.min(CONFIRMATION_TIMEOUT) } else { wait };
                self.not_before = Some(Instant::now() + wait);
                self.request_listing();
            }
        }
    }
}

fn wanted(with_volumes: bool) -> Wanted {
    let (mut kinds, mut actions) = (vec!["container"], ACTIONS.to_vec());
    if with_volumes {
        kinds.push("volume");
        actions.extend(VOLUME_ACTIONS);
    }
    let values = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
    let filters = Filters::from([("type".to_owned(), values(kinds)), ("event".to_owned(), values(actions))]);
    Wanted { filters, since: None, until: None }
}

//! Keeps the event stream open: subscribe, list, and after a break once more.
//!
//! In: an engine. Out: [`News`] on a bounded channel. The engine makes everybody wait for a subscriber that does not read
//! and then skips it (moby `pubsub`: 1024 entries, 100 ms), so the socket is read at once whatever happens behind the
//! channel; when that is full, news is dropped and a new listing takes its place.

use super::Error;
use crate::container::Container;
use crate::docker::backoff::{Backoff, Settings};
use crate::docker::{Docker, Event, EventStream, EventsQuery};
use crate::selector::Filters;
use crate::time::Timestamp;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

/// Events that wait to be applied.
const QUEUE: usize = 1000;
/// Between two attempts to get the events back.
const BACKOFF: Settings =
    Settings { initial: Duration::from_millis(500), max: Duration::from_secs(10), multiplier: 2.0, jitter: true };
/// Silence after which the engine has told what happened while we were away, ...
const BACKLOG: Duration = Duration::from_millis(100);
/// ... and how long that may take where it is never silent.
const LONGEST_BACKLOG: Duration = Duration::from_secs(2);
/// An event that took so much longer to reach us has waited for us, and others behind it may have been left out.
const LATE: i64 = 1_000_000_000;
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

/// What is new.
pub(super) enum News {
    /// All containers there are, by the engine's clock when; those that pass the filters which only the engine can evaluate.
    Listing(Vec<Container>, Timestamp, Option<Vec<String>>),
    /// Something happened.
    Event(Box<Event>),
    /// The engine is gone; it is tried again.
    Lost(crate::docker::Error),
}

/// An open subscription and what was there when it was opened.
pub(super) struct Feed {
    docker: Docker,
    remote: Filters,
    events: EventStream,
    /// Of the last event seen, or when we came.
    last: Option<Timestamp>,
    clock: Clock,
}

/// How long events take to reach us, by a clock that need not agree with the engine's.
#[derive(Debug, Default)]
struct Clock {
    /// The least so far, and that of the newest event, in nanoseconds; negative where our clock is behind.
    least: Option<i64>,
    newest: i64,
}

impl Clock {
    fn note(&mut self, written: Timestamp, now: Timestamp) {
        self.newest = now.0.saturating_sub(written.0);
        self.least = Some(self.least.map_or(self.newest, |least| least.min(self.newest)));
    }

    /// Whether the newest event was.
    fn is_late(&self) -> bool {
        self.least.is_some_and(|least| self.newest.saturating_sub(least) > LATE)
    }

    /// What the engine's clock shows when ours shows this, as far as events tell.
    fn theirs(&self, ours: Timestamp) -> Timestamp {
        Timestamp(ours.0.saturating_sub(self.least.unwrap_or(0)))
    }

    /// What took as long as the newest event is in time from now on. A clock that was set would make all late for ever.
    fn follow(&mut self) {
        self.least = Some(self.newest);
    }
}

impl Feed {
    /// Subscribes, then lists: what happens between the two is in both.
    pub(super) async fn open(docker: Docker, remote: Filters, now: Option<Timestamp>) -> Result<(Feed, News), Error> {
        let events = docker.events(&query(None)).await?;
        let mut clock = Clock::default();
        if let Some(now) = now {
            clock.note(now, Timestamp::now());
        }
        let feed = Feed { docker, remote, events, last: now, clock };
        let listing = feed.list().await?;
        Ok((feed, listing))
    }

    async fn list(&self) -> Result<News, crate::docker::Error> {
        let at = self.clock.theirs(Timestamp::now());
        let all = self.docker.list(true, &Filters::new()).await?;
        if self.remote.is_empty() {
            return Ok(News::Listing(all, at, None));
        }
        let passing = self.docker.list(true, &self.remote).await?;
        Ok(News::Listing(all, at, Some(passing.into_iter().map(|container| container.id).collect())))
    }

    /// Reads events until the receiver is gone.
    pub(super) fn run(mut self) -> tokio::sync::mpsc::Receiver<News> {
        let (news, receiver) = channel(QUEUE);
        tokio::spawn(async move {
            while self.read(&news).await.is_some() {
                if self.reconnect(&news).await.is_none() {
                    return;
                }
            }
        });
        receiver
    }

    /// Until the stream ends; `None` when nobody listens any more.
    async fn read(&mut self, news: &Sender<News>) -> Option<()> {
        // Since when something is missing that a listing has to make up for.
        let mut missed: Option<Instant> = None;
        loop {
            let has_waited = missed.is_some_and(|since| since.elapsed() > LONGEST_BACKLOG) && !self.clock.is_late();
            let event = tokio::select! {
                () = news.closed() => return None,
                event = self.events.next() => event,
                // Once older events are all read, none can undo what the listing tells.
                () = tokio::time::sleep(if has_waited { Duration::ZERO } else { BACKLOG }), if missed.is_some() => {
                    if news.capacity() > QUEUE / 2 {
                        tracing::info!("events are missing; listing the containers anew");
                        self.clock.follow();
                        missed = None;
                        match self.list().await {
                            Ok(listing) => news.send(listing).await.ok()?,
                            Err(error) => return self.lost(news, error).await,
                        }
                    }
                    continue;
                }
            };
            let is_missing = match event {
                Some(Ok(event)) => {
                    self.note(&event);
                    match news.try_send(News::Event(Box::new(event))) {
                        Ok(()) => self.clock.is_late(),
                        Err(TrySendError::Full(_)) => true,
                        Err(TrySendError::Closed(_)) => return None,
                    }
                }
                Some(Err(error)) if !error.is_passing() => {
                    tracing::info!(%error, "an event that makes no sense");
                    true
                }
                Some(Err(error)) => return self.lost(news, error).await,
                None => return self.lost(news, self.ended()).await,
            };
            if is_missing {
                missed.get_or_insert_with(Instant::now);
            }
        }
    }

    fn note(&mut self, event: &Event) {
        self.last = self.last.max(Some(event.time));
        self.clock.note(event.time, Timestamp::now());
    }

    fn ended(&self) -> crate::docker::Error {
        let endpoint = self.docker.endpoint().to_string();
        crate::docker::Error::Broken { endpoint, source: "the event stream ended".into() }
    }

    async fn lost(&self, news: &Sender<News>, error: crate::docker::Error) -> Option<()> {
        news.send(News::Lost(error)).await.ok()
    }

    async fn reconnect(&mut self, news: &Sender<News>) -> Option<()> {
        let mut backoff = Backoff::new(BACKOFF);
        loop {
            let wait = backoff.wait(fastrand::f64());
            tokio::select! {
                () = news.closed() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            match self.resubscribe(news).await {
                Ok(listing) => return news.send(listing).await.ok(),
                Err(error) => tracing::info!(%error, attempt = backoff.attempts(), "the engine is not back"),
            }
        }
    }

    async fn resubscribe(&mut self, news: &Sender<News>) -> Result<News, crate::docker::Error> {
        // Another version may have come up.
        self.docker.renegotiate().await?;
        self.events = self.docker.events(&query(self.last)).await?;
        // What happened meanwhile comes at once and goes ahead: the listing is newer, and corrects what is missing.
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_BACKLOG
            && let Ok(event) = tokio::time::timeout(BACKLOG, self.events.next()).await
        {
            match event {
                Some(Ok(event)) => {
                    self.note(&event);
                    // When nobody listens any more the next step finds out.
                    let _ = news.send(News::Event(Box::new(event))).await;
                }
                Some(Err(error)) if !error.is_passing() => tracing::info!(%error, "an event that makes no sense"),
                Some(Err(error)) => return Err(error),
                None => return Err(self.ended()),
            }
        }
        self.list().await
    }
}

fn query(since: Option<Timestamp>) -> EventsQuery {
    let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    let filters = Filters::from([("type".to_owned(), values(&["container"])), ("event".to_owned(), values(&ACTIONS))]);
    EventsQuery { since, until: None, filters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_late_that_took_longer_than_others_whatever_the_clocks_say() {
        const SECOND: i64 = 1_000_000_000;
        for offset in [0, 3600 * SECOND, -3600 * SECOND] {
            let mut clock = Clock::default();
            let mut late = |written: i64, read: i64| {
                clock.note(Timestamp(written * SECOND + offset), Timestamp(read * SECOND));
                clock.is_late()
            };
            assert_eq!(
                [late(0, 0), late(10, 11), late(11, 41), late(40, 41), late(50, 50)],
                [false, false, true, false, false]
            );
            // One clock was set.
            assert!(late(60, 70) && late(61, 71));
            clock.follow();
            let mut late = |written: i64, read: i64| {
                clock.note(Timestamp(written * SECOND + offset), Timestamp(read * SECOND));
                clock.is_late()
            };
            assert_eq!([late(70, 80), late(80, 92), late(90, 90), late(91, 93)], [false, true, false, true]);
        }
    }
}

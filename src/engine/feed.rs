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
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

/// Events that wait to be applied.
const QUEUE: usize = 1000;
/// Between two attempts to get the events back.
const BACKOFF: Settings =
    Settings { initial: Duration::from_millis(500), max: Duration::from_secs(10), multiplier: 2.0 };
/// Silence after which the engine has told what happened while we were away.
const BACKLOG: Duration = Duration::from_millis(100);
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
    /// All containers there are; those that pass the filters which only the engine can evaluate.
    Listing(Vec<Container>, Option<Vec<String>>),
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
}

impl Feed {
    /// Subscribes, then lists: what happens between the two is in both.
    pub(super) async fn open(docker: Docker, remote: Filters, now: Option<Timestamp>) -> Result<(Feed, News), Error> {
        let events = docker.events(&query(None)).await?;
        let feed = Feed { docker, remote, events, last: now };
        let listing = feed.list().await?;
        Ok((feed, listing))
    }

    async fn list(&self) -> Result<News, crate::docker::Error> {
        let all = self.docker.list(true, &Filters::new()).await?;
        if self.remote.is_empty() {
            return Ok(News::Listing(all, None));
        }
        let passing = self.docker.list(true, &self.remote).await?;
        Ok(News::Listing(all, Some(passing.into_iter().map(|container| container.id).collect())))
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
        let mut has_dropped = false;
        loop {
            let event = tokio::select! {
                () = news.closed() => return None,
                event = self.events.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    self.last = self.last.max(Some(event.time));
                    match news.try_send(News::Event(Box::new(event))) {
                        Ok(()) => {}
                        Err(TrySendError::Full(_)) => has_dropped = true,
                        Err(TrySendError::Closed(_)) => return None,
                    }
                }
                Some(Err(error)) if !error.is_passing() => tracing::warn!(%error, "an event that makes no sense"),
                Some(Err(error)) => return self.lost(news, error).await,
                None => return self.lost(news, self.ended()).await,
            }
            if has_dropped && news.capacity() > QUEUE / 2 {
                tracing::warn!("events came faster than they could be applied; listing the containers anew");
                has_dropped = false;
                match self.list().await {
                    Ok(listing) => news.send(listing).await.ok()?,
                    Err(error) => return self.lost(news, error).await,
                }
            }
        }
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
        while let Ok(event) = tokio::time::timeout(BACKLOG, self.events.next()).await {
            match event {
                Some(Ok(event)) => {
                    self.last = self.last.max(Some(event.time));
                    // When nobody listens any more the next step finds out.
                    let _ = news.send(News::Event(Box::new(event))).await;
                }
                Some(Err(error)) if !error.is_passing() => tracing::warn!(%error, "an event that makes no sense"),
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

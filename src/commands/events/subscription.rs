//! One subscription to the engine's events: stays open across reconnects and returns each event once.
//!
//! In: which events. Out: [`SubscriptionEvent`]s. The caller must keep calling [`Subscription::next`]: the engine
//! blocks every subscriber on one that does not read, and then skips that one (moby `pubsub`: 1024 entries, 100 ms).
//! Used by `feed` for `watch`, and by `events`. It does not interpret events.
//!
//! After a break it requests what happened since. The engine keeps its last 256 events of all types together, in
//! memory. It walks them backwards and stops at the first that is older than `since` (moby `daemon/events/events.go`:
//! loadBufferedEvents). Their order there differs from the order of their times by some ms, and a clock may have been
//! set. Therefore `since` lies well before the last event seen, and events seen before are filtered out. If the full
//! history still contains the last event seen, nothing is missing. If it does not, the history may still reach back far
//! enough.

use super::suspend::SuspendDetector;
use crate::config;
use crate::docker::backoff::{self, Backoff};
use crate::docker::event_decoder::EventKey;
use crate::docker::{Docker, Error, Event, EventStream, EventsQuery};
use crate::metrics;
use crate::metrics::events::Failure;
use crate::model::selector::Filters;
use crate::model::time::Timestamp;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of events that the engine remembers.
const HISTORY: usize = 256;
/// A history of this length counts as full: events that happen during the request push older ones out of the answer.
const FULL: usize = HISTORY * 3 / 4;
/// Number of events remembered here to recognise repeats: the engine repeats at most its history, plus a few.
const REMEMBERED: usize = 2 * HISTORY;
/// Nanoseconds. An event that took this much longer than others has waited for us, so the engine may have skipped
/// others.
const LATE: i64 = 1_000_000_000;
/// A broken connection to this machine is noticed within this time, so all events from before it have arrived.
const UNREAD: Duration = Duration::from_secs(1);
/// The same over a network, where a lost peer is noticed only after the keep-alive probes.
const UNHEARD: Duration = Duration::from_secs(60);
/// How long before `until` the end of a stream counts as regular: the engine's clock is not known more precisely.
const END_TOLERANCE: Duration = Duration::from_secs(2);
/// Wait before the next request in that case.
const END_RETRY: Duration = Duration::from_millis(50);
/// Time limit for the engine's history, which is a short answer from memory.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which events to subscribe to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Filters that the engine evaluates.
    pub(crate) filters: Filters,
    /// Start time, as far as the engine remembers; `None` for now.
    pub(crate) since: Option<Timestamp>,
    /// Time at which the stream ends; `None` for never.
    pub(crate) until: Option<Timestamp>,
}

/// What a subscription reports.
#[derive(Debug)]
pub(crate) enum SubscriptionEvent {
    /// An event that was not reported before.
    Event(Box<Event>),
    /// A line that cannot be parsed; the stream continues.
    Malformed(Error),
    /// The stream broke or was refused. The subscription reconnects.
    Lost(Error),
    /// The stream is open again.
    Back(Continuity),
    /// The engine sent the delayed response header of a new stream; earlier events may be missing.
    Begun,
    /// The stream has reached [`Wanted::until`].
    Ended,
}

/// Whether all events of a break were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// None is missing, as far as the engine's history shows.
    Whole,
    /// More events happened than the engine remembers.
    Overrun,
    /// The engine was restarted and lost its history.
    Restarted,
    /// The engine's clock is behind the time of the break, so `since` cannot express "after the break".
    ClockSet,
}

impl fmt::Display for Continuity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Continuity::Whole => "no events are missing",
            Continuity::Overrun => "events may be missing: more happened meanwhile than the engine remembers",
            Continuity::Restarted => "events may be missing: the engine was restarted and lost its event history",
            Continuity::ClockSet => "events may be missing or repeated: the engine's clock was set back",
        })
    }
}

pub(crate) struct Subscription {
    docker: Docker,
    wanted: Wanted,
    connection: Connection,
    recent: RecentEvents,
    delay: Delay,
    suspend: SuspendDetector,
    backoff: Backoff,
    metrics: metrics::EventMetrics,
    /// [`Wanted::since`], else when it was first opened, by the engine's clock.
    start: Timestamp,
    /// The last event that arrived in time: the engine skipped none before it.
    last: Option<EventKey>,
    /// Before this time no event of the last break can be missing; by the engine's clock and by ours.
    broke: (Timestamp, Instant),
    /// When the current stream was opened, by the engine's clock and by ours. Older events come from the history.
    opened: (Timestamp, Instant),
    /// [`SubscriptionEvent::Lost`] was reported, and the stream is not back.
    is_lost: bool,
}

enum Connection {
    Open(Box<EventStream>),
    Waiting(Pin<Box<dyn Future<Output = Waited> + Send>>),
    Connecting(Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send>>),
    Paused,
    Ended,
}

/// What ended the wait before a reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// The backoff is over.
    Out,
    /// The engine is reachable again.
    Returned,
}

struct Connected {
    stream: EventStream,
    /// When it was opened, by the engine's clock.
    at: Timestamp,
    continuity: Continuity,
}

impl Subscription {
    /// Subscribes. `now` is the time by the engine's clock, if known.
    pub(crate) async fn open(
        docker: Docker,
        wanted: Wanted,
        now: Option<Timestamp>,
        config: &config::EventsConfig,
        metrics: metrics::EventMetrics,
    ) -> Result<Self, Error> {
        let mut delay = Delay::default();
        if let Some(now) = now {
            delay.measure(now, Timestamp::now());
        }
        let opened = (delay.engine_time(Timestamp::now()), Instant::now());
        let start = wanted.since.unwrap_or(opened.0);
        // Podman's response does not show when its subscription takes effect, so `since` covers the time from the
        // request.
        let since = wanted.since.or_else(|| docker.is_podman().then_some(start));
        let query = EventsQuery { since, until: wanted.until, filters: wanted.filters.clone() };
        let stream = docker.events(&query).await?;
        metrics.connected(opened.1);
        Ok(Subscription {
            docker,
            wanted,
            connection: Connection::Open(Box::new(stream)),
            recent: RecentEvents::default(),
            delay,
            suspend: SuspendDetector::new(),
            backoff: Backoff::new(backoff_settings(config)),
            metrics,
            start,
            last: None,
            broke: opened,
            opened,
            is_lost: false,
        })
    }

    /// Returns the next report; never returns while paused or after the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SubscriptionEvent {
        loop {
            let event = match &mut self.connection {
                Connection::Open(stream) if !stream.has_begun() => {
                    let begun = stream.begun().await;
                    Some(begun.map_or_else(|error| self.lost(error), |()| SubscriptionEvent::Begun))
                }
                Connection::Open(stream) => {
                    let received = stream.next().await;
                    self.receive(received)
                }
                Connection::Waiting(wait) => {
                    if wait.as_mut().await == Waited::Returned {
                        self.backoff.reset();
                    }
                    self.connect();
                    None
                }
                Connection::Connecting(attempt) => {
                    let done = attempt.as_mut().await;
                    self.connected(done)
                }
                Connection::Paused | Connection::Ended => std::future::pending().await,
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Returns whether the newest event was delayed so long that the engine may have skipped others.
    pub(crate) fn is_late(&self) -> bool {
        self.delay.is_late()
    }

    /// Accepts the delay of the newest event as normal from now on.
    pub(crate) fn rebase_delay(&mut self) {
        self.delay.rebase();
    }

    /// Returns whether a stream is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.connection, Connection::Open(_))
    }

    /// Returns whether a stream is open but the engine has not sent its response header: it may or may not listen yet.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        matches!(&self.connection, Connection::Open(stream) if !stream.has_begun())
    }

    /// Returns whether the stream was reported as lost and is not back.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The current time by the engine's clock, estimated from its events.
    pub(crate) fn engine_time(&self) -> Timestamp {
        self.delay.engine_time(Timestamp::now())
    }

    /// Closes the stream until [`Subscription::reopen`], because nobody takes the events.
    pub(crate) fn pause(&mut self) {
        if self.is_open() {
            self.broken();
        }
        self.connection = Connection::Paused;
    }

    /// Opens a new stream that starts before anything can be missing.
    pub(crate) fn reopen(&mut self) {
        match self.connection {
            Connection::Open(_) => self.broken(),
            Connection::Paused => {}
            // A reconnect is under way already, or not wanted.
            Connection::Waiting(_) | Connection::Connecting(_) | Connection::Ended => return,
        }
        self.delay.rebase();
        self.is_lost = false;
        self.connect();
    }

    fn receive(&mut self, received: Option<Result<Event, Error>>) -> Option<SubscriptionEvent> {
        match received {
            Some(Ok(event)) => {
                self.backoff.reset();
                self.accept(event)
            }
            Some(Err(error)) if !error.is_temporary() => {
                self.metrics.failed(Failure::Malformed);
                Some(SubscriptionEvent::Malformed(error))
            }
            Some(Err(error)) => Some(self.lost(error)),
            None if self.is_over(Duration::ZERO) => {
                self.metrics.disconnected(self.opened.1.elapsed());
                self.connection = Connection::Ended;
                Some(SubscriptionEvent::Ended)
            }
            None if self.is_over(END_TOLERANCE) => {
                // Either the engine ended the stream by its own clock, or something else did and events are missing.
                self.broken();
                self.connection = Connection::Waiting(Box::pin(async {
                    tokio::time::sleep(END_RETRY).await;
                    Waited::Out
                }));
                None
            }
            None => {
                let endpoint = self.docker.endpoint().to_string();
                Some(self.lost(Error::Broken { endpoint, source: "the event stream ended".into() }))
            }
        }
    }

    fn accept(&mut self, event: Event) -> Option<SubscriptionEvent> {
        let key = event.key();
        if self.is_unwanted_future(event.time) || !self.recent.insert(&key) {
            return None;
        }
        // The age of an event from the engine's history does not measure the delay of the connection.
        if event.time >= self.opened.0 {
            self.delay.measure(event.time, Timestamp::now());
        }
        if !self.is_late() {
            self.last = Some(key);
            // An event in time proves that no earlier suspension made the engine skip any.
            self.suspend.take();
        }
        self.metrics.arrived(event.time, Instant::now());
        Some(SubscriptionEvent::Event(Box::new(event)))
    }

    /// Returns whether an event is older than `start` and yet in the future. The engine sends such events after its
    /// clock was set back: everything it remembers from before then lies in the future.
    fn is_unwanted_future(&self, time: Timestamp) -> bool {
        let since = self.opened.1.elapsed() + Duration::from_secs(1);
        let now = self.opened.0.0.saturating_add(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        time < self.start && time.0 > now
    }

    /// Returns whether `until` is reached `ahead` from now. Of two lower bounds for the engine's clock it takes the
    /// later.
    fn is_over(&self, ahead: Duration) -> bool {
        let after = |time: Timestamp, span: Duration| {
            Timestamp(time.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
        };
        let now = self.engine_time().max(after(self.opened.0, self.opened.1.elapsed()));
        self.wanted.until.is_some_and(|until| until <= after(now, ahead))
    }

    fn lost(&mut self, error: Error) -> SubscriptionEvent {
        self.broken();
        self.metrics.failed(Failure::Lost);
        self.wait_to_reconnect(&error);
        self.is_lost = true;
        SubscriptionEvent::Lost(error)
    }

    /// Sets `broke`, the time after which events may be missing.
    fn broken(&mut self) {
        let open_for = self.opened.1.elapsed();
        if open_for >= Duration::from_secs(1) {
            self.backoff.reset();
        }
        self.metrics.disconnected(open_for);
        let last = self.last.as_ref().map(|last| last.time);
        let was_suspended = self.suspend.take();
        let (margin, sure) = if self.is_late() {
            (Duration::ZERO, last.unwrap_or(self.opened.0))
        } else if was_suspended {
            // The connection may have broken at any time since the last event.
            (Duration::ZERO, last.map_or(self.opened.0, |last| last.max(self.opened.0)))
        } else {
            let margin = if self.docker.endpoint().is_local() { UNREAD } else { UNHEARD };
            let unread = i64::try_from(margin.as_nanos()).unwrap_or(i64::MAX);
            let now = self.engine_time();
            (
                margin,
                Timestamp(now.0.saturating_sub(unread))
                    .max(self.start.min(now))
                    .max(last.unwrap_or(self.start.min(now))),
            )
        };
        self.broke = (sure, Instant::now().checked_sub(margin).unwrap_or_else(Instant::now));
    }

    fn wait_to_reconnect(&mut self, failure: &Error) {
        let wait = self.backoff.wait(fastrand::f64());
        let returned = self.docker.wait_for_daemon(failure);
        self.connection = Connection::Waiting(Box::pin(async move {
            tokio::select! {
                biased;
                () = returned => Waited::Returned,
                () = tokio::time::sleep(wait) => Waited::Out,
            }
        }));
    }

    fn connect(&mut self) {
        let attempt = Attempt {
            docker: self.docker.clone(),
            wanted: self.wanted.clone(),
            earliest: self.recent.earliest().unwrap_or(self.start),
            last: self.last.clone(),
            broke: self.broke,
            engine_time: self.engine_time(),
        };
        self.connection = Connection::Connecting(Box::pin(attempt.make()));
    }

    fn connected(&mut self, done: Result<Connected, Error>) -> Option<SubscriptionEvent> {
        match done {
            Ok(Connected { stream, at, continuity }) => {
                self.connection = Connection::Open(Box::new(stream));
                self.opened = (at, Instant::now());
                self.is_lost = false;
                self.metrics.reconnected(self.opened.1, Timestamp::now());
                match continuity {
                    Continuity::Whole => {}
                    Continuity::Overrun | Continuity::ClockSet => self.metrics.failed(Failure::Overrun),
                    Continuity::Restarted => self.metrics.failed(Failure::Restarted),
                }
                Some(SubscriptionEvent::Back(continuity))
            }
            Err(error) => {
                self.metrics.failed(Failure::Refused);
                self.wait_to_reconnect(&error);
                tracing::info!(%error, attempt = self.backoff.attempts(), "cannot reopen the event stream");
                (!std::mem::replace(&mut self.is_lost, true)).then_some(SubscriptionEvent::Lost(error))
            }
        }
    }
}

/// One attempt to reopen the stream.
struct Attempt {
    docker: Docker,
    wanted: Wanted,
    /// Time of the oldest event that would be recognised as a repeat, else [`Subscription::start`].
    earliest: Timestamp,
    last: Option<EventKey>,
    broke: (Timestamp, Instant),
    /// Estimate of the engine's clock.
    engine_time: Timestamp,
}

impl Attempt {
    async fn make(self) -> Result<Connected, Error> {
        // The engine may have been upgraded meanwhile.
        self.docker.renegotiate().await?;
        // Some proxies refuse this request.
        let engine = self.docker.info().await.inspect_err(|error| tracing::debug!(%error, "engine time unknown")).ok();
        let now = engine.as_ref().and_then(|engine| engine.time).unwrap_or(self.engine_time);
        let away = self.broke.1.elapsed();
        let since = resume_at(self.earliest, self.broke.0, now, away);
        let query = EventsQuery { since: Some(since), until: self.wanted.until, filters: self.wanted.filters.clone() };
        let stream = self.docker.events(&query).await?;
        // Podman keeps all events in a journal.
        let continuity = match engine.is_some_and(|engine| engine.is_podman) {
            true => Continuity::Whole,
            false => continuity(&history(&self.docker, now).await?, self.last.as_ref(), self.broke.0, now),
        };
        Ok(Connected { stream, at: now, continuity })
    }
}

/// Returns all events that the engine remembers, of every type.
async fn history(docker: &Docker, until: Timestamp) -> Result<Vec<EventKey>, Error> {
    let query = EventsQuery { since: Some(Timestamp(0)), until: Some(until), filters: Filters::new() };
    let request = async {
        let mut stream = docker.past_events(&query).await?;
        let (mut keys, mut malformed) = (Vec::new(), None);
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => keys.push(event.key()),
                Err(error) if error.is_temporary() => return Err(error),
                Err(error) => malformed = Some(error),
            }
            // No engine remembers this many, so the answer may be endless.
            if keys.len() > 2 * REMEMBERED {
                break;
            }
        }
        match malformed {
            // Without a single event that parses, this is no event history, so no engine answers.
            Some(error) if keys.is_empty() => Err(error),
            _ => Ok(keys),
        }
    };
    let endpoint = || docker.endpoint().to_string();
    tokio::time::timeout(HISTORY_TIMEOUT, request)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { endpoint: endpoint(), after: HISTORY_TIMEOUT }))
}

/// If the engine's history no longer reaches back to `since`, returns the time of the oldest event in it.
pub(crate) async fn history_starts_after(
    docker: &Docker,
    since: Timestamp,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let history = history(docker, now).await?;
    let oldest = history.first().filter(|_| history.len() >= FULL).map(|oldest| oldest.time);
    Ok(oldest.filter(|oldest| *oldest > since))
}

/// Returns `since` for the request after a break. If the engine's clock was set back meanwhile, that is the time of the
/// break by the new clock.
fn resume_at(earliest: Timestamp, broke: Timestamp, now: Timestamp, away: Duration) -> Timestamp {
    if now >= broke {
        return earliest;
    }
    let away = i64::try_from(away.as_nanos()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(away)).min(earliest)
}

/// Derives from the engine's history whether events of a break are missing. `last` is the last event seen before it.
fn continuity(history: &[EventKey], last: Option<&EventKey>, broke: Timestamp, now: Timestamp) -> Continuity {
    let is_full = history.len() >= FULL;
    let reaches_back = history.first().is_some_and(|oldest| oldest.time <= broke);
    match last {
        Some(last) if history.contains(last) => Continuity::Whole,
        _ if now < broke => Continuity::ClockSet,
        // `last` was pushed out by events that the filters exclude and that are older than the break, or it was never
        // in the history as it reached us (garbled on the way).
        _ if reaches_back => Continuity::Whole,
        // It was pushed out by events since the break.
        _ if is_full => Continuity::Overrun,
        Some(_) => Continuity::Restarted,
        None => Continuity::Whole,
    }
}

/// Backoff of reconnects. The first wait is random below the lower bound of the configuration; none exceeds the upper
/// one.
pub(crate) fn backoff_settings(config: &config::EventsConfig) -> backoff::Settings {
    backoff::Settings { initial: config.backoff_min, max: config.backoff_max, multiplier: 2.0, jitter: true }
}

/// The newest [`REMEMBERED`] events, to recognise repeats.
#[derive(Default)]
struct RecentEvents {
    keys: HashSet<Arc<EventKey>>,
    order: VecDeque<Arc<EventKey>>,
}

impl RecentEvents {
    /// Adds an event; returns whether it is new.
    fn insert(&mut self, key: &EventKey) -> bool {
        if self.keys.contains(key) {
            return false;
        }
        let key = Arc::new(key.clone());
        self.keys.insert(Arc::clone(&key));
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }

    /// Returns the smallest time among them.
    fn earliest(&self) -> Option<Timestamp> {
        self.order.iter().map(|key| key.time).min()
    }
}

/// How long events take to reach us, although our clock may disagree with the engine's.
///
/// Both fields are nanoseconds from the engine's timestamp to our clock at arrival: delay plus clock difference, so
/// they are negative if our clock is behind.
#[derive(Debug, Default)]
struct Delay {
    /// The smallest so far; `None` before the first measurement.
    least: Option<i64>,
    /// That of the newest event.
    newest: i64,
}

impl Delay {
    fn measure(&mut self, written: Timestamp, now: Timestamp) {
        self.newest = now.0.saturating_sub(written.0);
        self.least = Some(self.least.map_or(self.newest, |least| least.min(self.newest)));
    }

    /// Returns whether the newest event exceeds the smallest delay by more than [`LATE`].
    fn is_late(&self) -> bool {
        self.least.is_some_and(|least| self.newest.saturating_sub(least) > LATE)
    }

    /// Estimates the time by the engine's clock when our clock shows `ours`.
    fn engine_time(&self, ours: Timestamp) -> Timestamp {
        Timestamp(ours.0.saturating_sub(self.least.unwrap_or(0)))
    }

    /// Takes the delay of the newest event as the smallest. Otherwise every event would be late once a clock was set.
    fn rebase(&mut self) {
        self.least = self.least.map(|_| self.newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn key(time: i64) -> EventKey {
        EventKey {
            time: Timestamp(time * SECOND),
            kind: "container".into(),
            action: "die".into(),
            id: time.to_string(),
        }
    }

    fn history_of(times: std::ops::RangeInclusive<i64>) -> Vec<EventKey> {
        times.map(key).collect()
    }

    #[test]
    fn derives_continuity_from_the_history() {
        use Continuity::{ClockSet, Overrun, Restarted, Whole};
        for (history, last, broke, now, expected, case) in [
            (history_of(1..=20), Some(15), 16, 30, Whole, "the last event is in the history"),
            (history_of(10..=265), Some(10), 12, 300, Whole, "the last event is the oldest in the history"),
            (
                history_of(11..=266),
                Some(10),
                12,
                300,
                Whole,
                "the last event is gone, but the history covers the break",
            ),
            (history_of(13..=268), Some(10), 12, 300, Overrun, "the history begins after the break"),
            (history_of(13..=268), None, 12, 300, Overrun, "the same without any earlier event"),
            (history_of(13..=230), Some(10), 12, 300, Overrun, "not quite full, as events arrived during the request"),
            (history_of(12..=267), None, 12, 300, Whole, "no event seen, and the history covers the break"),
            (history_of(13..=100), None, 12, 300, Whole, "no event seen, and the history is not full"),
            (history_of(11..=100), Some(10), 12, 300, Whole, "the last event arrived garbled"),
            (history_of(13..=100), Some(10), 12, 300, Restarted, "a new, short history"),
            (Vec::new(), Some(10), 12, 300, Restarted, "no event since the restart"),
            (Vec::new(), None, 12, 300, Whole, "no event ever"),
            (history_of(1..=5), Some(10), 12, 6, ClockSet, "the clock was set back, and the last event is gone"),
            (history_of(1..=20), Some(10), 22, 21, Whole, "the clock was set back, but the last event is there"),
        ] {
            let last = last.map(key);
            let second = |seconds: i64| Timestamp(seconds * SECOND);
            assert_eq!(continuity(&history, last.as_ref(), second(broke), second(now)), expected, "{case}");
        }
    }

    #[test]
    fn requests_since_the_earliest_known_event_or_the_break() {
        for (earliest, broke, now, away, expected) in [
            (10, 20, 50, 30, 10),
            (10, 20, 20, 0, 10),
            // The clock was set back by an hour and shows 15 now; the stream broke 5 s ago.
            (3610, 3620, 15, 5, 10),
            // The clock was set back a little.
            (10, 20, 18, 2, 10),
        ] {
            let second = |seconds: i64| Timestamp(seconds * SECOND);
            let got = resume_at(second(earliest), second(broke), second(now), Duration::from_secs(away));
            assert_eq!(got, second(expected), "{earliest} {broke} {now} {away}");
        }
    }

    #[test]
    fn recognises_repeats_of_the_whole_history() {
        let mut recent = RecentEvents::default();
        let mut new = |events: std::ops::RangeInclusive<i64>| events.filter(|time| recent.insert(&key(*time))).count();
        assert_eq!(new(1..=300), 300);
        for reconnects in 0..40 {
            let end = 300 + 10 * reconnects;
            // The engine repeats its 256 events, then continues.
            assert_eq!(new(end - 255..=end), 0);
            assert_eq!(new(end - 255..=end + 10), 10);
        }
        let other = [
            EventKey { action: "stop".into(), ..key(690) },
            EventKey { kind: "volume".into(), ..key(690) },
            EventKey { id: "x".into(), ..key(690) },
            EventKey { time: Timestamp(690 * SECOND + 1), ..key(690) },
        ];
        assert!(other.iter().all(|key| recent.insert(key)) && !other.iter().any(|key| recent.insert(key)));
        assert_eq!((recent.keys.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn backoff_stays_within_the_configured_bounds() {
        let seconds = Duration::from_secs;
        let bounds = |min, max| config::EventsConfig {
            backoff_min: seconds(min),
            backoff_max: seconds(max),
            ..Default::default()
        };
        for (min, max, waits) in [
            (1, 300, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
            (5, 5, [5; 11]),
            (2, 9, [2, 4, 8, 9, 9, 9, 9, 9, 9, 9, 9]),
        ] {
            let mut backoff = Backoff::new(backoff_settings(&bounds(min, max)));
            assert_eq!(waits.map(|_| backoff.wait(1.0).as_secs()), waits);
            let mut backoff = Backoff::new(backoff_settings(&bounds(min, max)));
            assert!(waits.iter().all(|longest| backoff.wait(fastrand::f64()) <= seconds(*longest)));
        }
    }

    #[test]
    fn detects_late_events_despite_clock_differences() {
        for offset in [0, 3600 * SECOND, -3600 * SECOND] {
            let mut delay = Delay::default();
            let mut late = |written: i64, read: i64| {
                delay.measure(Timestamp(written * SECOND + offset), Timestamp(read * SECOND));
                delay.is_late()
            };
            assert_eq!(
                [late(0, 0), late(10, 11), late(11, 41), late(40, 41), late(50, 50)],
                [false, false, true, false, false]
            );
            // Now one clock is set.
            assert!(late(60, 70) && late(61, 71));
            delay.rebase();
            let mut late = |written: i64, read: i64| {
                delay.measure(Timestamp(written * SECOND + offset), Timestamp(read * SECOND));
                delay.is_late()
            };
            assert_eq!([late(70, 80), late(80, 92), late(90, 90), late(91, 93)], [false, true, false, true]);
        }
    }
}

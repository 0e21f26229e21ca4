//! The engine's event stream as one client: it stays open, and each event comes once.
//!
//! In: which events. Out: [`Happening`]s, to be asked for without delay: the engine makes everybody wait for a subscriber
//! that does not read and then skips it (moby `pubsub`: 1024 entries, 100 ms). Called by `feed` for `watch` and by
//! `events`. Knows nothing of what follows from an event.
//!
//! After a break it asks for what happened since. The engine remembers its last 256 events of all types together, in
//! memory; it walks them backwards and stops at the first that is older than what was asked for (moby
//! `daemon/events/events.go`: loadBufferedEvents). Events lie there in another order than their times by some ms, and a
//! clock may have been set, so it is asked from well before the last event seen, and what was seen is left out. That the
//! last event seen is still in the whole of the history shows that nothing is missing; where it is not, the history may
//! reach back far enough all the same.

use super::suspend::Standstill;
use crate::config;
use crate::docker::backoff::{self, Backoff};
use crate::docker::events::EventKey;
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

/// Events that the engine remembers.
const HISTORY: usize = 256;
/// So many are all of them: what happens while they are asked for pushes others out, and is not told.
const FULL: usize = HISTORY * 3 / 4;
/// Events remembered here to tell a repeat. What the engine repeats is among as many as it remembers, or nearly.
const REMEMBERED: usize = 2 * HISTORY;
/// An event that took so much longer to reach us has waited for us, and others behind it may have been left out.
const LATE: i64 = 1_000_000_000;
/// So long before a break was noticed all that happened had reached us, over a socket of this machine ...
const UNREAD: Duration = Duration::from_secs(1);
/// ... and over a network, where the other side may be gone for as long as the probes take.
const UNHEARD: Duration = Duration::from_secs(60);
/// A stream that ends so long before it should may have ended by itself: the engine's clock is not known better.
const ABOUT: Duration = Duration::from_secs(2);
/// Before it is asked again then.
const ONCE_MORE: Duration = Duration::from_millis(50);
/// For the engine to tell its history, which ends at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// As the engine evaluates them.
    pub(crate) filters: Filters,
    /// From then on, as far as the engine remembers; else from now on.
    pub(crate) since: Option<Timestamp>,
    /// Up to then, when the stream ends.
    pub(crate) until: Option<Timestamp>,
}

/// What the stream tells.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Something happened, told for the first time.
    Event(Box<Event>),
    /// A line that makes no sense; the stream goes on.
    Nonsense(Error),
    /// The stream broke, or is refused; it is tried again.
    Lost(Error),
    /// It is back.
    Back(Continuity),
    /// The engine has begun to answer, which it did not at once: what happened until now may have been missed.
    Begun,
    /// The time has come up to which events were wanted.
    Ended,
}

/// Whether all that happened in a break has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// All of it, as far as the engine tells.
    Whole,
    /// So much happened that the engine does not remember all of it.
    Overrun,
    /// The engine was started anew, and remembers nothing from before.
    Restarted,
    /// The engine's clock shows less than at the break: what is older than what cannot be told.
    ClockSet,
}

impl fmt::Display for Continuity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Continuity::Whole => "no events are missing",
            Continuity::Overrun => "events may be missing: more happened meanwhile than the engine remembers",
            Continuity::Restarted => {
                "events may be missing: the engine was started anew and forgot what it had not told"
            }
            Continuity::ClockSet => "events may be missing, or come again: the engine's clock was set back",
        })
    }
}

/// See the module.
pub(crate) struct Subscription {
    docker: Docker,
    wanted: Wanted,
    state: State,
    seen: Seen,
    clock: Clock,
    standstill: Standstill,
    backoff: Backoff,
    count: metrics::EventMetrics,
    /// When it was opened first, by the engine's clock, or from when on events are wanted.
    start: Timestamp,
    /// The last event before which none can have been left out.
    last: Option<EventKey>,
    /// Up to when nothing can be missing, by the engine's clock and by ours: at the break.
    broke: (Timestamp, Instant),
    /// When the stream that stands was opened, by both clocks: what is older comes from the engine's history.
    opened: (Timestamp, Instant),
    /// That it is lost was told.
    is_told: bool,
}

enum State {
    Open(Box<EventStream>),
    Waiting(Pin<Box<dyn Future<Output = Waited> + Send>>),
    Connecting(Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send>>),
    Paused,
    Ended,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// Its time was over.
    Out,
    /// The engine is there again.
    Returned,
}

struct Connected {
    stream: EventStream,
    /// By the engine's clock.
    at: Timestamp,
    continuity: Continuity,
}

impl Subscription {
    /// Opens it. `now` is what the engine's clock shows, if that is known.
    pub(crate) async fn open(
        docker: Docker,
        wanted: Wanted,
        now: Option<Timestamp>,
        config: &config::EventsConfig,
        count: metrics::EventMetrics,
    ) -> Result<Self, Error> {
        let mut clock = Clock::default();
        if let Some(now) = now {
            clock.note(now, Timestamp::now());
        }
        let opened = (clock.theirs(Timestamp::now()), Instant::now());
        let start = wanted.since.unwrap_or(opened.0);
        // Where it does not show when the engine began to listen, it is to tell what happened since it was asked.
        let since = wanted.since.or_else(|| docker.is_podman().then_some(start));
        let query = EventsQuery { since, until: wanted.until, filters: wanted.filters.clone() };
        let stream = docker.events(&query).await?;
        count.connected(opened.1);
        Ok(Subscription {
            docker,
            wanted,
            state: State::Open(Box::new(stream)),
            seen: Seen::default(),
            clock,
            standstill: Standstill::new(),
            backoff: Backoff::new(between(config)),
            count,
            start,
            last: None,
            broke: opened,
            opened,
            is_told: false,
        })
    }

    /// The next happening; it never comes once it ended or is paused. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Happening {
        loop {
            let happening = match &mut self.state {
                State::Open(stream) if !stream.has_begun() => {
                    let begun = stream.begun().await;
                    Some(begun.map_or_else(|error| self.lost(error), |()| Happening::Begun))
                }
                State::Open(stream) => {
                    let came = stream.next().await;
                    self.take(came)
                }
                State::Waiting(rest) => {
                    if rest.as_mut().await == Waited::Returned {
                        self.backoff.reset();
                    }
                    self.connect();
                    None
                }
                State::Connecting(attempt) => {
                    let done = attempt.as_mut().await;
                    self.connected(done)
                }
                State::Paused | State::Ended => std::future::pending().await,
            };
            if let Some(happening) = happening {
                return happening;
            }
        }
    }

    /// Whether the newest event took so long to come that the engine may have left out others.
    pub(crate) fn is_late(&self) -> bool {
        self.clock.is_late()
    }

    /// Takes it as it is: what takes as long as the newest event is in time from now on.
    pub(crate) fn follow_clock(&mut self) {
        self.clock.follow();
    }

    /// Whether the stream stands.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether the stream stands, and the engine has not begun to answer: it may listen, or not yet.
    pub(crate) fn is_unsure(&self) -> bool {
        matches!(&self.state, State::Open(stream) if !stream.has_begun())
    }

    /// Whether it is told to be lost, and not back.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_told
    }

    /// What the engine's clock shows now, as far as its events tell.
    pub(crate) fn engine_time(&self) -> Timestamp {
        self.clock.theirs(Timestamp::now())
    }

    /// Closes it until [`Subscription::renew`]: nobody takes the events.
    pub(crate) fn pause(&mut self) {
        if self.is_open() {
            self.broken();
        }
        self.state = State::Paused;
    }

    /// Opens it anew, from where nothing can be missing.
    pub(crate) fn renew(&mut self) {
        match self.state {
            State::Open(_) => self.broken(),
            State::Paused => {}
            // That is under way.
            State::Waiting(_) | State::Connecting(_) | State::Ended => return,
        }
        self.clock.follow();
        self.is_told = false;
        self.connect();
    }

    fn take(&mut self, came: Option<Result<Event, Error>>) -> Option<Happening> {
        match came {
            Some(Ok(event)) => {
                self.backoff.reset();
                self.note(event)
            }
            Some(Err(error)) if !error.is_passing() => {
                self.count.failed(Failure::Malformed);
                Some(Happening::Nonsense(error))
            }
            Some(Err(error)) => Some(self.lost(error)),
            None if self.is_over(Duration::ZERO) => {
                self.count.disconnected(self.opened.1.elapsed());
                self.state = State::Ended;
                Some(Happening::Ended)
            }
            None if self.is_over(ABOUT) => {
                // The engine ends it by a clock that we do not know better, or somebody else did, and some is missing.
                self.broken();
                self.state = State::Waiting(Box::pin(async {
                    tokio::time::sleep(ONCE_MORE).await;
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

    fn note(&mut self, event: Event) -> Option<Happening> {
        let key = event.key();
        if self.is_from_before(event.time) || !self.seen.insert(&key) {
            return None;
        }
        // What is from the engine's history says nothing of how long the way to us is.
        if event.time >= self.opened.0 {
            self.clock.note(event.time, Timestamp::now());
        }
        if !self.is_late() {
            self.last = Some(key);
            // Nothing waited for us then.
            self.standstill.take();
        }
        self.count.arrived(event.time, Instant::now());
        Some(Happening::Event(Box::new(event)))
    }

    /// Whether it is older than what is wanted though the engine tells it: its clock was set back, and all that it
    /// remembers from before lies in the future.
    fn is_from_before(&self, time: Timestamp) -> bool {
        let since = self.opened.1.elapsed() + Duration::from_secs(1);
        let now = self.opened.0.0.saturating_add(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        time < self.start && time.0 > now
    }

    /// Whether the time has come, or will by then, up to which events are wanted. By either measure the engine's clock
    /// shows no less.
    fn is_over(&self, then: Duration) -> bool {
        let after = |time: Timestamp, span: Duration| {
            Timestamp(time.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
        };
        let now = self.engine_time().max(after(self.opened.0, self.opened.1.elapsed()));
        self.wanted.until.is_some_and(|until| until <= after(now, then))
    }

    fn lost(&mut self, error: Error) -> Happening {
        self.broken();
        self.count.failed(Failure::Lost);
        self.rest(&error);
        self.is_told = true;
        Happening::Lost(error)
    }

    /// Notes from when on something may be missing.
    fn broken(&mut self) {
        let stood = self.opened.1.elapsed();
        if stood >= Duration::from_secs(1) {
            self.backoff.reset();
        }
        self.count.disconnected(stood);
        let last = self.last.as_ref().map(|last| last.time);
        let stood_still = self.standstill.take();
        let (margin, sure) = if self.is_late() {
            (Duration::ZERO, last.unwrap_or(self.opened.0))
        } else if stood_still {
            // It may have broken at any time since.
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

    fn rest(&mut self, failure: &Error) {
        let wait = self.backoff.wait(fastrand::f64());
        let returned = self.docker.returned(failure);
        self.state = State::Waiting(Box::pin(async move {
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
            first: self.seen.earliest().unwrap_or(self.start),
            last: self.last.clone(),
            broke: self.broke,
            theirs: self.engine_time(),
        };
        self.state = State::Connecting(Box::pin(attempt.make()));
    }

    fn connected(&mut self, done: Result<Connected, Error>) -> Option<Happening> {
        match done {
            Ok(Connected { stream, at, continuity }) => {
                self.state = State::Open(Box::new(stream));
                self.opened = (at, Instant::now());
                self.is_told = false;
                self.count.reconnected(self.opened.1, Timestamp::now());
                match continuity {
                    Continuity::Whole => {}
                    Continuity::Overrun | Continuity::ClockSet => self.count.failed(Failure::Overrun),
                    Continuity::Restarted => self.count.failed(Failure::Restarted),
                }
                Some(Happening::Back(continuity))
            }
            Err(error) => {
                self.count.failed(Failure::Refused);
                self.rest(&error);
                tracing::info!(%error, attempt = self.backoff.attempts(), "the event stream is not back");
                (!std::mem::replace(&mut self.is_told, true)).then_some(Happening::Lost(error))
            }
        }
    }
}

/// What is needed to open the stream once more.
struct Attempt {
    docker: Docker,
    wanted: Wanted,
    /// When the first of the events that would be known again was, or from when on they are wanted.
    first: Timestamp,
    last: Option<EventKey>,
    broke: (Timestamp, Instant),
    /// The engine's clock as we take it to be.
    theirs: Timestamp,
}

impl Attempt {
    async fn make(self) -> Result<Connected, Error> {
        // Another version may have come up.
        self.docker.renegotiate().await?;
        // There are proxies that let nobody ask this.
        let engine = self.docker.info().await.inspect_err(|error| tracing::debug!(%error, "no clock")).ok();
        let now = engine.as_ref().and_then(|engine| engine.time).unwrap_or(self.theirs);
        let away = self.broke.1.elapsed();
        let since = resume_at(self.first, self.broke.0, now, away);
        let query = EventsQuery { since: Some(since), until: self.wanted.until, filters: self.wanted.filters.clone() };
        let stream = self.docker.events(&query).await?;
        // Podman keeps all in a journal.
        let continuity = match engine.is_some_and(|engine| engine.is_podman) {
            true => Continuity::Whole,
            false => continuity(&history(&self.docker, now).await?, self.last.as_ref(), self.broke.0, now),
        };
        Ok(Connected { stream, at: now, continuity })
    }
}

/// All that the engine remembers, whatever its type.
async fn history(docker: &Docker, until: Timestamp) -> Result<Vec<EventKey>, Error> {
    let query = EventsQuery { since: Some(Timestamp(0)), until: Some(until), filters: Filters::new() };
    let told = async {
        let mut stream = docker.past_events(&query).await?;
        let (mut keys, mut nonsense) = (Vec::new(), None);
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => keys.push(event.key()),
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => nonsense = Some(error),
            }
            // No engine remembers so many, so this answer may have no end.
            if keys.len() > 2 * REMEMBERED {
                break;
            }
        }
        match nonsense {
            // Nobody's history: this is not the engine.
            Some(error) if keys.is_empty() => Err(error),
            _ => Ok(keys),
        }
    };
    let endpoint = || docker.endpoint().to_string();
    tokio::time::timeout(PATIENCE, told)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { endpoint: endpoint(), after: PATIENCE }))
}

/// Whether the engine no longer remembers all that happened since then; if so, the oldest that it does.
pub(crate) async fn forgotten(docker: &Docker, since: Timestamp, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let history = history(docker, now).await?;
    let oldest = history.first().filter(|_| history.len() >= FULL).map(|oldest| oldest.time);
    Ok(oldest.filter(|oldest| *oldest > since))
}

/// From when on events are asked for after a break. Where the engine's clock was set back meanwhile, by when it broke as
/// the new clock has it.
fn resume_at(first: Timestamp, broke: Timestamp, now: Timestamp, away: Duration) -> Timestamp {
    if now >= broke {
        return first;
    }
    let away = i64::try_from(away.as_nanos()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(away)).min(first)
}

/// Whether the history reaches back to the break. `last` is the last event that was seen before it, if any was.
fn continuity(history: &[EventKey], last: Option<&EventKey>, broke: Timestamp, now: Timestamp) -> Continuity {
    let is_full = history.len() >= FULL;
    let reaches_back = history.first().is_some_and(|oldest| oldest.time <= broke);
    match last {
        Some(last) if history.contains(last) => Continuity::Whole,
        _ if now < broke => Continuity::ClockSet,
        // It has been pushed out by events that were not wanted and were made before the break, or never was as it
        // reached us, ...
        _ if reaches_back => Continuity::Whole,
        // ... or by others.
        _ if is_full => Continuity::Overrun,
        Some(_) => Continuity::Restarted,
        None => Continuity::Whole,
    }
}

/// "Between the two bounds": the first wait is drawn below the lower one, none above the upper one.
pub(crate) fn between(config: &config::EventsConfig) -> backoff::Settings {
    backoff::Settings { initial: config.backoff_min, max: config.backoff_max, multiplier: 2.0, jitter: true }
}

/// The newest events that were seen.
#[derive(Default)]
struct Seen {
    keys: HashSet<Arc<EventKey>>,
    order: VecDeque<Arc<EventKey>>,
}

impl Seen {
    /// Whether it is new.
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

    /// When the first of them was.
    fn earliest(&self) -> Option<Timestamp> {
        self.order.iter().map(|key| key.time).min()
    }
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
    fn what_the_engine_remembers_shows_whether_events_are_missing() {
        use Continuity::{ClockSet, Overrun, Restarted, Whole};
        for (history, last, broke, now, expected, case) in [
            (history_of(1..=20), Some(15), 16, 30, Whole, "the last event is still there"),
            (history_of(10..=265), Some(10), 12, 300, Whole, "just so"),
            (history_of(11..=266), Some(10), 12, 300, Whole, "gone, but what was at the break is there"),
            (history_of(13..=268), Some(10), 12, 300, Overrun, "the break itself is gone"),
            (history_of(13..=268), None, 12, 300, Overrun, "without any event before it too"),
            (history_of(13..=230), Some(10), 12, 300, Overrun, "some have come since it was asked for"),
            (history_of(12..=267), None, 12, 300, Whole, "reaches back"),
            (history_of(13..=100), None, 12, 300, Whole, "so little happened, and nothing was there before"),
            (history_of(11..=100), Some(10), 12, 300, Whole, "the last one was garbled on its way"),
            (history_of(13..=100), Some(10), 12, 300, Restarted, "a history that has begun anew"),
            (Vec::new(), Some(10), 12, 300, Restarted, "nothing happened since the engine was started"),
            (Vec::new(), None, 12, 300, Whole, "nothing ever happened"),
            (history_of(1..=5), Some(10), 12, 6, ClockSet, "what is from before the clock was set cannot be asked for"),
            (history_of(1..=20), Some(10), 22, 21, Whole, "the clock was set, and yet it is there"),
        ] {
            let last = last.map(key);
            let second = |seconds: i64| Timestamp(seconds * SECOND);
            assert_eq!(continuity(&history, last.as_ref(), second(broke), second(now)), expected, "{case}");
        }
    }

    #[test]
    fn it_is_asked_from_the_first_event_remembered_and_where_the_clock_was_set_back_from_the_break() {
        for (first, broke, now, away, expected) in [
            (10, 20, 50, 30, 10),
            (10, 20, 20, 0, 10),
            // An hour back: now 15 there, and it broke 5 s ago.
            (3610, 3620, 15, 5, 10),
            // A little back.
            (10, 20, 18, 2, 10),
        ] {
            let second = |seconds: i64| Timestamp(seconds * SECOND);
            let got = resume_at(second(first), second(broke), second(now), Duration::from_secs(away));
            assert_eq!(got, second(expected), "{first} {broke} {now} {away}");
        }
    }

    #[test]
    fn an_event_is_new_once_however_often_the_engine_repeats_its_history() {
        let mut seen = Seen::default();
        let mut new = |events: std::ops::RangeInclusive<i64>| events.filter(|time| seen.insert(&key(*time))).count();
        assert_eq!(new(1..=300), 300);
        for reconnects in 0..40 {
            let end = 300 + 10 * reconnects;
            // The engine repeats its 256, and then goes on.
            assert_eq!(new(end - 255..=end), 0);
            assert_eq!(new(end - 255..=end + 10), 10);
        }
        let other = [
            EventKey { action: "stop".into(), ..key(690) },
            EventKey { kind: "volume".into(), ..key(690) },
            EventKey { id: "x".into(), ..key(690) },
            EventKey { time: Timestamp(690 * SECOND + 1), ..key(690) },
        ];
        assert!(other.iter().all(|key| seen.insert(key)) && !other.iter().any(|key| seen.insert(key)));
        assert_eq!((seen.keys.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn waits_lie_between_the_two_bounds() {
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
            let mut backoff = Backoff::new(between(&bounds(min, max)));
            assert_eq!(waits.map(|_| backoff.wait(1.0).as_secs()), waits);
            let mut backoff = Backoff::new(between(&bounds(min, max)));
            assert!(waits.iter().all(|longest| backoff.wait(fastrand::f64()) <= seconds(*longest)));
        }
    }

    #[test]
    fn an_event_is_late_that_took_longer_than_others_whatever_the_clocks_say() {
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

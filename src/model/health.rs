//! How we are doing: plain numbers on the shelf. The engine keeps them true, the listener tells them.

use super::time::Timestamp;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Without an event for so long, it may be that none can come.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// The worst comes last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is turned off.
    #[default]
    NotConfigured,
    /// All is well.
    Healthy,
    /// It works, and may miss something.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl Status {
    /// As the contract words it.
    pub const fn name(self) -> &'static str {
        match self {
            Status::NotConfigured => "not_configured",
            Status::Healthy => "healthy",
            Status::Degraded => "degraded",
            Status::Unhealthy => "unhealthy",
        }
    }
}

/// All there is to tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The engine.
    pub docker: Status,
    /// What is kept between runs.
    pub state: StateHealth,
    /// The engine's events.
    pub events: EventsHealth,
}

impl Health {
    /// The worst of the three; with nothing that could be wrong, all is well.
    pub fn status(&self, now: Instant) -> Status {
        self.docker.max(self.state.status()).max(self.events.status(now)).max(Status::Healthy)
    }
}

/// What is kept between runs, by what it is: each is as well as the last try to keep it. One that will be made up for is
/// degraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateHealth {
    /// How far each log was read.
    pub positions: Status,
    /// What the engine has.
    pub inventory: Status,
}

impl StateHealth {
    /// The worse of the two.
    pub fn status(self) -> Status {
        self.positions.max(self.inventory)
    }
}

/// The event stream, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventsHealth {
    /// Whether they are listened to at all.
    pub is_enabled: bool,
    /// Since when the stream stands; `None` while it does not.
    pub connected: Option<Instant>,
    /// Events that wait to be dealt with.
    pub queued: u64,
    /// Events dealt with.
    pub processed: u64,
    /// Streams that broke, and what came and made no sense.
    pub errors: u64,
    /// Events that nobody took in time.
    pub dropped: u64,
    /// Times that the stream came back.
    pub reconnects: u64,
    /// When the newest event came.
    pub heard: Option<Instant>,
    /// When it happened, by the engine's clock.
    pub last_event: Option<Timestamp>,
    /// When the stream last came back.
    pub last_reconnect: Option<Timestamp>,
    /// Reconciliations that ran.
    pub reconciliations: Reconciliations,
}

/// Reconciliations by what they were about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciliations {
    /// All of it.
    pub full: u64,
    /// Volumes alone.
    pub volumes: u64,
    /// Containers alone.
    pub containers: u64,
}

impl EventsHealth {
    /// Whether they come. A stream that stands and has told nothing for long is doubted.
    pub fn status(&self, now: Instant) -> Status {
        let Some(connected) = self.connected.filter(|_| self.is_enabled) else {
            return if self.is_enabled { Status::Unhealthy } else { Status::NotConfigured };
        };
        let heard = self.heard.map_or(connected, |heard| heard.max(connected));
        if now.saturating_duration_since(heard) >= QUIET { Status::Degraded } else { Status::Healthy }
    }

    /// Since the newest event came.
    pub fn last_event_age(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.saturating_duration_since(heard))
    }
}

/// The one copy of it: kept by the engine, read by whoever is asked.
#[derive(Clone, Debug, Default)]
pub struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    /// Changes what is told.
    pub fn update(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is told now.
    pub fn read(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_as_well_as_their_stream_and_doubted_after_five_quiet_minutes() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        for (is_enabled, connected, heard, now, expected) in [
            (false, None, None, 0, Status::NotConfigured),
            (false, Some(0), None, 0, Status::NotConfigured),
            (true, None, None, 0, Status::Unhealthy),
            (true, None, Some(5), 6, Status::Unhealthy),
            (true, Some(0), None, 299, Status::Healthy),
            (true, Some(0), None, 300, Status::Degraded),
            (true, Some(0), Some(100), 399, Status::Healthy),
            (true, Some(0), Some(100), 400, Status::Degraded),
            // Just connected anew, after a long time without events.
            (true, Some(500), Some(100), 501, Status::Healthy),
        ] {
            let events = EventsHealth {
                is_enabled,
                connected: connected.map(at),
                heard: heard.map(at),
                ..EventsHealth::default()
            };
            assert_eq!(events.status(at(now)), expected, "{is_enabled} {connected:?} {heard:?} {now}");
        }
    }

    #[test]
    fn the_whole_is_as_ill_as_its_worst_part() {
        use Status::{Degraded, Healthy, NotConfigured, Unhealthy};
        let begun = Instant::now();
        let now = begun + Duration::from_secs(1000);
        let standing = EventsHealth { is_enabled: true, connected: Some(now), ..EventsHealth::default() };
        let quiet = EventsHealth { connected: Some(begun), ..standing.clone() };
        for (docker, [positions, inventory], events, expected) in [
            (Healthy, [Healthy, Healthy], &standing, Healthy),
            (Healthy, [NotConfigured, NotConfigured], &EventsHealth::default(), Healthy),
            (Healthy, [NotConfigured, NotConfigured], &quiet, Degraded),
            (Unhealthy, [Healthy, Healthy], &quiet, Unhealthy),
            (Healthy, [Healthy, Unhealthy], &standing, Unhealthy),
            (Healthy, [Degraded, Healthy], &standing, Degraded),
            (Healthy, [NotConfigured, Degraded], &standing, Degraded),
        ] {
            let health = Health { docker, state: StateHealth { positions, inventory }, events: events.clone() };
            assert_eq!(health.status(now), expected, "{health:?}");
        }
    }
}

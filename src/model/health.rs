//! The health of a running `watch`, as plain numbers. The commands update it, and the HTTP endpoint reports it.

use super::time::Timestamp;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Without an event for this long, the event stream may be broken without notice.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// The health of a part, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    NotConfigured,
    Healthy,
    /// It works but may miss something.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl Status {
    /// The name in the health report.
    pub const fn name(self) -> &'static str {
        match self {
            Status::NotConfigured => "not_configured",
            Status::Healthy => "healthy",
            Status::Degraded => "degraded",
            Status::Unhealthy => "unhealthy",
        }
    }
}

/// The health of all parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Health {
    /// The connection to the Docker Engine.
    pub docker: Status,
    pub state: StateHealth,
    pub events: EventsHealth,
}

impl Health {
    /// The worst status of all parts; healthy if no part is configured.
    pub(crate) fn status(&self, now: Instant) -> Status {
        self.docker.max(self.state.status()).max(self.events.status(now)).max(Status::Healthy)
    }
}

/// The health of the state. Each part reflects its latest write. A failed write that will be made up for
/// later counts as degraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateHealth {
    pub positions: Status,
    pub inventory: Status,
}

impl StateHealth {
    /// The worse of the two.
    pub(crate) fn status(self) -> Status {
        self.positions.max(self.inventory)
    }
}

/// The health and counters of the event stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EventsHealth {
    /// Whether the command subscribes to events at all.
    pub is_enabled: bool,
    /// When the current stream was opened; `None` while there is none.
    pub connected: Option<Instant>,
    /// Events that wait to be processed.
    pub queued: u64,
    pub processed: u64,
    /// Broken streams and undecodable messages.
    pub errors: u64,
    /// Events that were discarded because they were not processed in time.
    pub dropped: u64,
    /// How often the stream was opened again.
    pub reconnects: u64,
    /// When the newest event arrived.
    pub heard: Option<Instant>,
    /// When the newest event happened, by the daemon's clock.
    pub last_event: Option<Timestamp>,
    /// When the stream was last opened again.
    pub last_reconnect: Option<Timestamp>,
    pub reconciliations: Reconciliations,
}

/// How many reconciliations ran, by scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Reconciliations {
    pub full: u64,
    pub volumes: u64,
    pub containers: u64,
}

impl EventsHealth {
    /// The health of the stream. An open stream without events for five minutes is degraded.
    pub(crate) fn status(&self, now: Instant) -> Status {
        let Some(connected) = self.connected.filter(|_| self.is_enabled) else {
            return if self.is_enabled { Status::Unhealthy } else { Status::NotConfigured };
        };
        let heard = self.heard.map_or(connected, |heard| heard.max(connected));
        if now.saturating_duration_since(heard) >= QUIET { Status::Degraded } else { Status::Healthy }
    }

    /// The time since the newest event arrived.
    pub(crate) fn last_event_age(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|heard| now.saturating_duration_since(heard))
    }
}

/// The shared health: the commands write it, the HTTP endpoint reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    pub(crate) fn update(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn read(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_event_stream_is_degraded_after_five_minutes() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (is_enabled, connected, heard, now, expected) in [
            (false, None, None, 0, Status::NotConfigured),
            (false, Some(0), None, 0, Status::NotConfigured),
            (true, None, None, 0, Status::Unhealthy),
            (true, None, Some(5), 6, Status::Unhealthy),
            (true, Some(0), None, 299, Status::Healthy),
            (true, Some(0), None, 300, Status::Degraded),
            (true, Some(0), Some(100), 399, Status::Healthy),
            (true, Some(0), Some(100), 400, Status::Degraded),
            // Just reconnected, after a long time without events.
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
    fn overall_health_is_the_worst_of_its_parts() {
        use Status::{Degraded, Healthy, NotConfigured, Unhealthy};
        let start = Instant::now();
        let now = start + Duration::from_secs(1000);
        let standing = EventsHealth { is_enabled: true, connected: Some(now), ..EventsHealth::default() };
        let quiet = EventsHealth { connected: Some(start), ..standing.clone() };
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

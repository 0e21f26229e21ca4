//! Counts the daemon's events and failures of the event stream, for Prometheus and for [`health::EventsHealth`].
//!
//! The daemon chooses the types and actions of events, and some actions contain free text (`exec_create: sh -c …`).
//! Only the known ones become labels; all others are counted as `other`.

use crate::model::health;
use crate::model::time::Timestamp;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The known event types.
pub(crate) const TYPES: [&str; 11] =
    ["builder", "config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume"];

/// The known actions, without the text that follows a colon in some of them.
pub(crate) const ACTIONS: [&str; 48] = [
    "attach",
    "checkpoint",
    "commit",
    "connect",
    "copy",
    "create",
    "delete",
    "destroy",
    "detach",
    "die",
    "disable",
    "disconnect",
    "enable",
    "exec_create",
    "exec_detach",
    "exec_die",
    "exec_start",
    "export",
    "extract-to-dir",
    "health_status",
    "import",
    "install",
    "kill",
    "load",
    "mount",
    "oom",
    "pause",
    "prune",
    "pull",
    "push",
    "reload",
    "remove",
    "rename",
    "resize",
    "restart",
    "restore",
    "save",
    "start",
    "stop",
    "tag",
    "top",
    "uninstall",
    "unmount",
    "unpause",
    "untag",
    "update",
    "upgrade",
    "archive-path",
];

/// A failure of the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A line could not be parsed as an event.
    Malformed,
    /// The stream broke or ended unexpectedly.
    Lost,
    /// An attempt to reconnect failed.
    Refused,
    /// The daemon's event history no longer reaches back to the last event seen.
    Overrun,
    /// The daemon was restarted, which clears its event history.
    Restarted,
}

impl Failure {
    const ALL: [Failure; 5] =
        [Failure::Malformed, Failure::Lost, Failure::Refused, Failure::Overrun, Failure::Restarted];

    fn name(self) -> &'static str {
        match self {
            Failure::Malformed => "malformed",
            Failure::Lost => "lost",
            Failure::Refused => "refused",
            Failure::Overrun => "history_overrun",
            Failure::Restarted => "history_gone",
        }
    }
}

/// The metrics of events. Clones share their counters.
#[derive(Clone, Debug)]
pub(crate) struct EventMetrics {
    processed: IntCounterVec,
    failed: IntCounterVec,
    dropped: IntCounter,
    queued: IntGauge,
    connected: IntGauge,
    reconnects: IntCounter,
    stream: Histogram,
    last_event: Gauge,
    times: Arc<Mutex<Times>>,
}

/// The times that a health report needs and that the series lack or round.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// Since when the stream has been connected; `None` while it is not.
    connected: Option<Instant>,
    /// When the last event arrived.
    heard: Option<Instant>,
    /// The last event's own time, by the daemon's clock.
    last_event: Option<Timestamp>,
    last_reconnect: Option<Timestamp>,
}

impl EventMetrics {
    /// Registers the series, at zero.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = vec![1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0];
        let stream = HistogramOpts::new("logwatch_docker_events_stream_duration_seconds", "Lifetime of event streams.");
        let events = EventMetrics {
            processed: IntCounterVec::new(
                Opts::new("logwatch_docker_events_processed_total", "Processed events."),
                &["event_type", "action"],
            )?,
            failed: IntCounterVec::new(
                Opts::new("logwatch_docker_events_failed_total", "Failures of the event stream, by cause."),
                &["error_type", "event_type"],
            )?,
            dropped: IntCounter::new(
                "logwatch_docker_events_dropped_total",
                "Events dropped because too many were waiting; a listing replaces them.",
            )?,
            queued: IntGauge::new("logwatch_docker_events_queue_size", "Events that wait to be processed.")?,
            connected: IntGauge::new(
                "logwatch_docker_events_connection_status",
                "Whether the event stream is connected: 1 or 0.",
            )?,
            reconnects: IntCounter::new(
                "logwatch_docker_events_reconnects_total",
                "Reconnections of the event stream.",
            )?,
            stream: Histogram::with_opts(stream.buckets(buckets))?,
            last_event: Gauge::new(
                "logwatch_docker_events_last_event_timestamp",
                "Unix time of the last event in seconds, by the clock of the Docker Engine.",
            )?,
            times: Arc::default(),
        };
        let series: [Box<dyn Collector>; 8] = [
            Box::new(events.processed.clone()),
            Box::new(events.failed.clone()),
            Box::new(events.dropped.clone()),
            Box::new(events.queued.clone()),
            Box::new(events.connected.clone()),
            Box::new(events.reconnects.clone()),
            Box::new(events.stream.clone()),
            Box::new(events.last_event.clone()),
        ];
        for collector in series {
            registry.register(collector)?;
        }
        // Create the series now: to Prometheus, a series that first appears with a failure has never increased.
        Failure::ALL.into_iter().for_each(|failure| drop(events.failures(failure)));
        Ok(events)
    }

    /// Records that an event arrived. `time` is its own time.
    pub(crate) fn arrived(&self, time: Timestamp, now: Instant) {
        self.last_event.set(seconds(time));
        self.note(|times| (times.heard, times.last_event) = (Some(now), Some(time)));
    }

    /// Records that an event was processed.
    pub(crate) fn processed(&self, kind: &str, action: &str) {
        self.processed.with_label_values(&[known(kind, &TYPES), known(action, &ACTIONS)]).inc();
    }

    /// Records a failure of the stream as a whole.
    pub(crate) fn failed(&self, failure: Failure) {
        self.failures(failure).inc();
    }

    fn failures(&self, failure: Failure) -> IntCounter {
        self.failed.with_label_values(&[failure.name(), "all"])
    }

    pub(crate) fn dropped(&self) {
        self.dropped.inc();
    }

    /// Sets the number of events that wait to be processed.
    pub(crate) fn queued(&self, count: usize) {
        self.queued.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Records that the stream was connected for the first time.
    pub(crate) fn connected(&self, now: Instant) {
        self.connected.set(1);
        self.note(|times| times.connected = Some(now));
    }

    /// Records that the stream was reconnected. `now` and `time` are the same moment on two clocks.
    pub(crate) fn reconnected(&self, now: Instant, time: Timestamp) {
        self.connected(now);
        self.reconnects.inc();
        self.note(|times| times.last_reconnect = Some(time));
    }

    /// Records that the stream ended after `lasted`.
    pub(crate) fn disconnected(&self, lasted: Duration) {
        self.connected.set(0);
        self.stream.observe(lasted.as_secs_f64());
        self.note(|times| times.connected = None);
    }

    fn note(&self, change: impl FnOnce(&mut Times)) {
        change(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The current health, except for the fields that are not known here.
    pub(crate) fn health(&self) -> health::EventsHealth {
        let sum = |family: &IntCounterVec| {
            let series = family.collect();
            let values = series.iter().flat_map(|family| family.get_metric());
            // The values are integers below 2^53.
            values.map(|metric| metric.get_counter().get_value()).sum::<f64>() as u64
        };
        let Times { connected, heard, last_event, last_reconnect } =
            *self.times.lock().unwrap_or_else(PoisonError::into_inner);
        health::EventsHealth {
            connected,
            queued: u64::try_from(self.queued.get()).unwrap_or(0),
            processed: sum(&self.processed),
            errors: sum(&self.failed),
            dropped: self.dropped.get(),
            reconnects: self.reconnects.get(),
            heard,
            last_event,
            last_reconnect,
            ..health::EventsHealth::default()
        }
    }
}

/// Replaces an unknown type or action by `other`.
fn known<'a>(name: &'a str, names: &[&str]) -> &'a str {
    if names.contains(&name) { name } else { "other" }
}

/// Seconds since the epoch, to the microsecond, which is the precision of an `f64`.
fn seconds(time: Timestamp) -> f64 {
    (time.0 / 1000) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

    fn rendered(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn every_series_has_its_documented_name_and_value() {
        let registry = Registry::new();
        let events = EventMetrics::new(&registry).unwrap();
        let now = Instant::now();
        let [later, last] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        events.connected(now);
        let times = [1_795_215_655_500_000_000, 1_795_215_654_500_000_000].map(Timestamp);
        for (time, at) in times.into_iter().zip([now, later]) {
            events.arrived(time, at);
            events.processed("container", "die");
        }
        events.failed(Failure::Overrun);
        events.dropped();
        events.queued(7);
        events.disconnected(Duration::from_secs(5));
        assert_eq!(events.health().connected, None);
        events.reconnected(last, Timestamp(1_795_215_660_000_000_000));
        let text = rendered(&registry);
        for line in [
            "logwatch_docker_events_processed_total{action=\"die\",event_type=\"container\"} 2",
            "logwatch_docker_events_failed_total{error_type=\"history_overrun\",event_type=\"all\"} 1",
            "logwatch_docker_events_dropped_total 1",
            "logwatch_docker_events_queue_size 7",
            "logwatch_docker_events_connection_status 1",
            "logwatch_docker_events_reconnects_total 1",
            "logwatch_docker_events_stream_duration_seconds_bucket{le=\"10\"} 1",
            "logwatch_docker_events_last_event_timestamp 1795215654.5",
        ] {
            assert!(text.lines().any(|served| served == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# HELP").count(), 8, "{text}");
        // The last event is the one that arrived last, because the daemon's clock may have been set back.
        let expected = health::EventsHealth {
            connected: Some(last),
            queued: 7,
            processed: 2,
            errors: 1,
            dropped: 1,
            reconnects: 1,
            heard: Some(later),
            last_event: Some(times[1]),
            last_reconnect: Some(Timestamp(1_795_215_660_000_000_000)),
            ..health::EventsHealth::default()
        };
        assert_eq!(events.health(), expected);
    }

    #[test]
    fn initially_there_are_no_times_and_all_failures_are_zero() {
        let registry = Registry::new();
        let events = EventMetrics::new(&registry).unwrap();
        assert_eq!(events.health(), health::EventsHealth::default());
        let text = rendered(&registry);
        let failures: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("logwatch_docker_events_failed_total")).collect();
        let expected = ["history_gone", "history_overrun", "lost", "malformed", "refused"];
        let expected = expected.map(|failure| format!("{{error_type=\"{failure}\",event_type=\"all\"}} 0"));
        assert_eq!(failures, expected);
    }

    #[test]
    fn unknown_types_and_actions_create_no_series() {
        let registry = Registry::new();
        let events = EventMetrics::new(&registry).unwrap();
        for number in 0..1000 {
            events.processed(&format!("type{number}"), &format!("action {number}"));
        }
        events.processed("pod", "die");
        events.processed("container", "exec_create");
        let text = rendered(&registry);
        let series: Vec<&str> = text.lines().filter(|line| line.starts_with("logwatch_docker_events_proc")).collect();
        let expected = [
            "logwatch_docker_events_processed_total{action=\"die\",event_type=\"other\"} 1",
            "logwatch_docker_events_processed_total{action=\"exec_create\",event_type=\"container\"} 1",
            "logwatch_docker_events_processed_total{action=\"other\",event_type=\"other\"} 1000",
        ];
        assert_eq!(series, expected);
    }
}

//! The engine's events: how many came, what became of them, and whether the stream stands.
//!
//! In: the event client's calls as it works. Out: series for Prometheus, and the same numbers as [`health::EventsHealth`] has
//! them. Types and actions are words of the engine, and some carry text (`exec_create: sh -c …`): only those it is known
//! to use become labels, all else is `other`.

use crate::model::health;
use crate::model::time::Timestamp;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The types of what events are about.
pub const TYPES: [&str; 11] =
    ["builder", "config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume"];

/// What can happen, without what some actions carry behind a colon.
pub const ACTIONS: [&str; 48] = [
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

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A line that is no event.
    Malformed,
    /// The stream broke, or ended when it should not.
    Lost,
    /// An attempt to get it back.
    Refused,
    /// The engine's history no longer reached back to where the stream broke.
    Overrun,
    /// The engine was started anew, and its history with it.
    Restarted,
}

impl Failure {
    const ALL: [Failure; 5] =
        [Failure::Malformed, Failure::Lost, Failure::Refused, Failure::Overrun, Failure::Restarted];

    fn word(self) -> &'static str {
        match self {
            Failure::Malformed => "malformed",
            Failure::Lost => "lost",
            Failure::Refused => "refused",
            Failure::Overrun => "history_overrun",
            Failure::Restarted => "history_gone",
        }
    }
}

/// Clones count together.
#[derive(Clone, Debug)]
pub struct EventMetrics {
    processed: IntCounterVec,
    failed: IntCounterVec,
    dropped: IntCounter,
    queued: IntGauge,
    connected: IntGauge,
    reconnects: IntCounter,
    stream: Histogram,
    last_event: Gauge,
    moments: Arc<Mutex<Moments>>,
}

/// What no series tells, or not as exactly as a health report.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    connected: Option<Instant>,
    heard: Option<Instant>,
    last_event: Option<Timestamp>,
    last_reconnect: Option<Timestamp>,
}

impl EventMetrics {
    /// Makes the series known to what serves them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let spans = vec![1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0];
        let stream = HistogramOpts::new(
            "logwatch_docker_events_stream_duration_seconds",
            "How long event streams stood before they broke.",
        );
        let events = EventMetrics {
            processed: IntCounterVec::new(
                Opts::new("logwatch_docker_events_processed_total", "Events dealt with."),
                &["event_type", "action"],
            )?,
            failed: IntCounterVec::new(
                Opts::new("logwatch_docker_events_failed_total", "Failures of the event stream, by cause."),
                &["error_type", "event_type"],
            )?,
            dropped: IntCounter::new(
                "logwatch_docker_events_dropped_total",
                "Events left out because too many waited; a listing makes up for them.",
            )?,
            queued: IntGauge::new("logwatch_docker_events_queue_size", "Events that wait to be dealt with.")?,
            connected: IntGauge::new(
                "logwatch_docker_events_connection_status",
                "Whether the event stream stands: 1 or 0.",
            )?,
            reconnects: IntCounter::new(
                "logwatch_docker_events_reconnects_total",
                "Times that the event stream came back.",
            )?,
            stream: Histogram::with_opts(stream.buckets(spans))?,
            last_event: Gauge::new(
                "logwatch_docker_events_last_event_timestamp",
                "Unix time of the last event, in seconds, by the engine's clock.",
            )?,
            moments: Arc::default(),
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
        // A series that begins with its first failure never increases, as Prometheus sees it.
        Failure::ALL.into_iter().for_each(|failure| drop(events.failures(failure)));
        Ok(events)
    }

    /// An event has come.
    pub fn arrived(&self, written: Timestamp, now: Instant) {
        self.last_event.set(seconds(written));
        self.note(|moments| (moments.heard, moments.last_event) = (Some(now), Some(written)));
    }

    /// It was taken by whoever it is for.
    pub fn processed(&self, kind: &str, verb: &str) {
        self.processed.with_label_values(&[known(kind, &TYPES), known(verb, &ACTIONS)]).inc();
    }

    /// Something failed that no single event can be blamed for.
    pub fn failed(&self, failure: Failure) {
        self.failures(failure).inc();
    }

    fn failures(&self, failure: Failure) -> IntCounter {
        self.failed.with_label_values(&[failure.word(), "all"])
    }

    /// An event was left out.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// So many wait.
    pub fn queued(&self, count: usize) {
        self.queued.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The stream stands.
    pub fn connected(&self, now: Instant) {
        self.connected.set(1);
        self.note(|moments| moments.connected = Some(now));
    }

    /// It stands again; now, by both clocks.
    pub fn reconnected(&self, now: Instant, time: Timestamp) {
        self.connected(now);
        self.reconnects.inc();
        self.note(|moments| moments.last_reconnect = Some(time));
    }

    /// It has ended after so long.
    pub fn disconnected(&self, stood: Duration) {
        self.connected.set(0);
        self.stream.observe(stood.as_secs_f64());
        self.note(|moments| moments.connected = None);
    }

    fn note(&self, change: impl FnOnce(&mut Moments)) {
        change(&mut self.moments.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All of it at this moment, as far as it is known here.
    pub fn health(&self) -> health::EventsHealth {
        let sum = |family: &IntCounterVec| {
            let series = family.collect();
            let values = series.iter().flat_map(|family| family.get_metric());
            // Whole numbers, and below 2^53.
            values.map(|metric| metric.get_counter().get_value()).sum::<f64>() as u64
        };
        let Moments { connected, heard, last_event, last_reconnect } =
            *self.moments.lock().unwrap_or_else(PoisonError::into_inner);
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

fn known<'a>(word: &'a str, words: &[&str]) -> &'a str {
    if words.contains(&word) { word } else { "other" }
}

/// To the microsecond, which is what is left of it in 64 bits.
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
    fn every_series_of_events_is_served_under_its_name() {
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
        // The newest event is the one that came last: the engine's clock may have been set back.
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
    fn before_anything_happened_there_is_no_time_of_it_and_failures_stand_at_none() {
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
    fn whatever_an_engine_says_the_series_stay_few() {
        let registry = Registry::new();
        let events = EventMetrics::new(&registry).unwrap();
        for number in 0..1000 {
            events.processed(&format!("type{number}"), &format!("verb {number}"));
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

//! Counts the lines that were read and lost, by route and by reason.
//!
//! Each batch is counted once, on its way to the output. `watch` sets the gauges when metrics are requested. The
//! numbers are served to Prometheus and, as a sentence, logged by `-v`.

use crate::model::batch::{Batch, Reason};
use crate::model::line_id::Route;
use crate::model::time::Timestamp;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::fmt;

/// The metrics of all containers' logs. Clones share their counters.
#[derive(Clone, Debug)]
pub(crate) struct LogMetrics {
    /// Lines passed to the output, by [`Route`].
    lines: [IntCounter; Route::ALL.len()],
    /// Bytes of their messages, as encoded in the log.
    bytes: [IntCounter; Route::ALL.len()],
    /// Known losses, counted by [`Reason`].
    gaps: [IntCounter; Reason::ALL.len()],
    /// Bytes of log that were lost, as far as the number is known.
    lost_bytes: IntCounter,
    /// Running containers that are being read, by [`Route`].
    monitored: [IntGauge; Route::ALL.len()],
    /// Bytes of log files that have not been written to the output yet.
    lag: IntGauge,
    /// Seconds from the event that announced a container to the first read of its log.
    discovery: Histogram,
    /// Container lookups that were answered from the cache.
    pub cache_hits: IntCounter,
    /// Container lookups that needed a request to the daemon.
    pub cache_misses: IntCounter,
}

/// Histogram buckets of the discovery latency, in seconds.
const LATENCIES: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

impl LogMetrics {
    /// Registers the series. All exist from the start, at zero.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let lines = counters("logwatch_log_lines_total", "Lines passed to the output.", "source")?;
        let bytes = counters("logwatch_log_bytes_total", "Bytes of the messages of these lines.", "source")?;
        let gaps = counters("logwatch_log_gaps_total", "Known gaps in the logs, by reason.", "reason")?;
        let monitored = Opts::new("logwatch_containers_monitored", "Running containers that are being read, by route.");
        let monitored = IntGaugeVec::new(monitored, &["source"])?;
        let lag = IntGauge::new(
            "logwatch_log_lag_bytes",
            "Bytes of log files that have not been written to the output yet.",
        )?;
        let discovery = HistogramOpts::new(
            "logwatch_discovery_latency_seconds",
            "Time from the event that announced a container to the first read of its log.",
        );
        let discovery = Histogram::with_opts(discovery.buckets(LATENCIES.to_vec()))?;
        registry.register(Box::new(monitored.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(discovery.clone()))?;
        Ok(LogMetrics {
            lines: Route::ALL.map(|route| lines.with_label_values(&[route.name()])),
            bytes: Route::ALL.map(|route| bytes.with_label_values(&[route.name()])),
            gaps: Reason::ALL.map(|reason| gaps.with_label_values(&[reason.name()])),
            lost_bytes: counter(
                "logwatch_log_lost_bytes_total",
                "Bytes of log that were lost, as far as the number is known.",
            )?,
            monitored: Route::ALL.map(|route| monitored.with_label_values(&[route.name()])),
            lag,
            discovery,
            cache_hits: counter("logwatch_metadata_cache_hits_total", "Container lookups answered from the cache.")?,
            cache_misses: counter(
                "logwatch_metadata_cache_misses_total",
                "Container lookups that needed a request to the Docker Engine.",
            )?,
        })
    }

    /// Counts the lines and gaps of a batch.
    pub(crate) fn add(&self, batch: &Batch) {
        let route = batch.route as usize;
        self.lines[route].inc_by(batch.lines.len() as u64);
        self.bytes[route].inc_by(batch.message_bytes());
        for (_, gap) in &batch.gaps {
            self.gaps[gap.reason as usize].inc();
            self.lost_bytes.inc_by(gap.lost_bytes.unwrap_or(0));
        }
    }

    /// Records that the log of a container is first read at `now`, after an event at `event_time`. The daemon's clock
    /// may be ahead of ours; the latency is 0 then.
    pub(crate) fn discovered(&self, event_time: Timestamp, now: Timestamp) {
        self.discovery.observe(now.0.saturating_sub(event_time.0).max(0) as f64 / 1e9);
    }

    /// Sets the number of running containers that are being read, by [`Route`].
    pub(crate) fn monitor(&self, containers: [usize; Route::ALL.len()]) {
        for (gauge, count) in self.monitored.iter().zip(containers) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the number of bytes that have not been written to the output yet.
    pub(crate) fn lag(&self, bytes: u64) {
        self.lag.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// `2000 lines by file, 10 lines by stream; 1 gap (1 truncated), 0 bytes known to be lost`.
impl fmt::Display for LogMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_route = Route::ALL.iter().zip(&self.lines).filter(|(_, lines)| lines.get() > 0);
        let describe = |(route, lines): (&Route, &IntCounter)| {
            let s = if lines.get() == 1 { "" } else { "s" };
            format!("{} line{s} by {}", lines.get(), route.name())
        };
        let lines: Vec<String> = by_route.map(describe).collect();
        f.write_str(if lines.is_empty() { "no lines" } else { "" })?;
        f.write_str(&lines.join(", "))?;
        let gaps: u64 = self.gaps.iter().map(IntCounter::get).sum();
        if gaps == 0 {
            return f.write_str("; no gap");
        }
        let by_reason = Reason::ALL.iter().zip(&self.gaps).filter(|(_, gaps)| gaps.get() > 0);
        let causes: Vec<String> = by_reason.map(|(reason, gaps)| format!("{} {}", gaps.get(), reason.name())).collect();
        let s = if gaps == 1 { "" } else { "s" };
        write!(f, "; {gaps} gap{s} ({}), {} bytes known to be lost", causes.join(", "), self.lost_bytes.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{ContainerKey, Encoding, Gap, Head, Line, Part};
    use crate::model::line_id::Stream;

    #[test]
    fn lines_and_gaps_are_counted_by_route_and_reason() {
        let registry = Registry::new();
        let logs = LogMetrics::new(&registry).unwrap();
        assert_eq!(logs.to_string(), "no lines; no gap");
        let head = Head {
            time: Timestamp(1),
            ordinal: 0,
            stream: Stream::Stdout,
            encoding: Encoding::Plain,
            part: Part::Whole,
        };
        let mut batch = Batch::new(ContainerKey(0), Route::File, b"hello you".to_vec(), vec![Line::read(head, 0, 5)]);
        logs.add(&batch);
        batch.route = Route::Poll;
        batch.lines.push(Line::read(head, 6, 3));
        let gap = |reason, lost_bytes| (0, Gap { reason, lost_bytes, after: None });
        batch.gaps = vec![gap(Reason::Corrupt, Some(7)), gap(Reason::RotatedAway, None)];
        logs.clone().add(&batch);
        let summary = "1 line by file, 2 lines by poll; 2 gaps (1 rotated_away, 1 corrupt), 7 bytes known to be lost";
        assert_eq!(logs.to_string(), summary);
        logs.monitor([3, 0, 0, 1]);
        logs.lag(42);
        logs.discovered(Timestamp(5_000_000), Timestamp(9_000_000));
        logs.discovered(Timestamp(9_000_000), Timestamp(5_000_000));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "logwatch_log_lines_total{source=\"file\"} 1",
            "logwatch_log_lines_total{source=\"stream\"} 0",
            "logwatch_log_bytes_total{source=\"poll\"} 8",
            "logwatch_log_gaps_total{reason=\"corrupt\"} 1",
            "logwatch_log_lost_bytes_total 7",
            "logwatch_containers_monitored{source=\"file\"} 3",
            "logwatch_log_lag_bytes 42",
            "logwatch_discovery_latency_seconds_bucket{le=\"0.001\"} 1",
            "logwatch_discovery_latency_seconds_bucket{le=\"0.005\"} 2",
        ] {
            assert!(text.lines().any(|sample| sample == line), "{line}\n{text}");
        }
    }
}

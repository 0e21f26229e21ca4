//! Counts what the connection pool of [`crate::docker`] does: its clients, their health checks, and their calls.
//!
//! Without a registry ([`PoolMetrics::default`]) nothing is counted.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, Result,
};
use std::sync::Arc;
use std::time::Duration;

/// Buckets for calls, in seconds: from a local daemon that answers within a millisecond to the default time
/// limit of a call.
const CALL_BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Buckets for connections, in seconds: from those that break at once to those that outlive their maximum age.
const CONNECTION_BUCKETS: [f64; 9] = [0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

/// The metrics of the pool. Clones share their series; [`PoolMetrics::default`] counts nothing.
#[derive(Clone, Debug, Default)]
pub struct PoolMetrics(Option<Arc<Series>>);

#[derive(Debug)]
struct Series {
    active: IntGauge,
    opened: IntCounter,
    size: IntGauge,
    healthy: IntGauge,
    utilization: Gauge,
    connections: Histogram,
    checks: Histogram,
    operations: HistogramVec,
    waits: Histogram,
    errors: IntCounter,
    failed_checks: IntCounter,
    recoveries: IntCounter,
    breakers: IntGaugeVec,
}

impl PoolMetrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let buckets =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        let series = Series {
            active: IntGauge::with_opts(opts("pool_connections_active", "Clients in use."))?,
            opened: IntCounter::with_opts(opts(
                "pool_connections_total",
                "Connections opened, including those of streams.",
            ))?,
            size: IntGauge::with_opts(opts("pool_size", "Clients in the pool."))?,
            healthy: IntGauge::with_opts(opts("pool_connections_healthy", "Healthy clients."))?,
            utilization: Gauge::with_opts(opts("pool_utilization", "Fraction of the clients in use, 0 to 1."))?,
            connections: Histogram::with_opts(buckets(
                "connection_duration_seconds",
                "Lifetime of connections.",
                &CONNECTION_BUCKETS,
            ))?,
            checks: Histogram::with_opts(buckets(
                "health_check_duration_seconds",
                "Duration of the health checks of a client.",
                &CALL_BUCKETS,
            ))?,
            operations: HistogramVec::new(
                buckets("operation_latency_seconds", "Duration of calls, including waits and retries.", &CALL_BUCKETS),
                &["operation"],
            )?,
            waits: Histogram::with_opts(buckets(
                "pool_wait_duration_seconds",
                "Time that calls waited for a client.",
                &CALL_BUCKETS,
            ))?,
            errors: IntCounter::with_opts(opts("connection_errors_total", "Connections and requests that failed."))?,
            failed_checks: IntCounter::with_opts(opts("health_check_failures_total", "Health checks that failed."))?,
            recoveries: IntCounter::with_opts(opts(
                "recovery_operations_total",
                "Clients that recovered or were replaced.",
            ))?,
            breakers: IntGaugeVec::new(opts("circuit_breaker_state", "0 closed, 1 half-open, 2 open."), &["client"])?,
        };
        registry.register(Box::new(series.active.clone()))?;
        registry.register(Box::new(series.opened.clone()))?;
        registry.register(Box::new(series.size.clone()))?;
        registry.register(Box::new(series.healthy.clone()))?;
        registry.register(Box::new(series.utilization.clone()))?;
        registry.register(Box::new(series.connections.clone()))?;
        registry.register(Box::new(series.checks.clone()))?;
        registry.register(Box::new(series.operations.clone()))?;
        registry.register(Box::new(series.waits.clone()))?;
        registry.register(Box::new(series.errors.clone()))?;
        registry.register(Box::new(series.failed_checks.clone()))?;
        registry.register(Box::new(series.recoveries.clone()))?;
        registry.register(Box::new(series.breakers.clone()))?;
        Ok(PoolMetrics(Some(Arc::new(series))))
    }

    /// Sets the numbers of clients: in use, healthy, and in total.
    pub fn clients(&self, active: usize, healthy: usize, total: usize) {
        let Some(series) = &self.0 else { return };
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        series.active.set(number(active));
        series.healthy.set(number(healthy));
        series.size.set(number(total));
        series.utilization.set(active as f64 / total.max(1) as f64);
    }

    /// Sets the state of a client's breaker: 0 closed, 1 half-open, 2 open; `None` once the client is removed.
    pub fn breaker(&self, client: u32, state: Option<i64>) {
        let Some(series) = &self.0 else { return };
        let client = client.to_string();
        match state {
            Some(state) => series.breakers.with_label_values(&[&client]).set(state),
            // The series does not exist if the client never made a call.
            None => drop(series.breakers.remove_label_values(&[&client])),
        }
    }

    pub fn opened(&self) {
        self.update(|series| series.opened.inc());
    }

    /// Records that a connection was closed after `lasted`.
    pub fn closed(&self, lasted: Duration) {
        self.update(|series| series.connections.observe(lasted.as_secs_f64()));
    }

    /// Records a health check of a client.
    pub fn checked(&self, took: Duration, passed: bool) {
        self.update(|series| {
            series.checks.observe(took.as_secs_f64());
            series.failed_checks.inc_by(u64::from(!passed));
        });
    }

    /// Records a completed call: its total time, and the part of it that it waited for a client.
    pub fn called(&self, operation: &str, took: Duration, waited: Duration) {
        self.update(|series| {
            series.operations.with_label_values(&[operation]).observe(took.as_secs_f64());
            series.waits.observe(waited.as_secs_f64());
        });
    }

    /// Records a failed connection or request: of a call, a health check, a stream, or a ping that
    /// looks for the daemon.
    pub fn failed(&self) {
        self.update(|series| series.errors.inc());
    }

    /// Records that a client recovered or was replaced.
    pub fn recovered(&self) {
        self.update(|series| series.recoveries.inc());
    }

    fn update(&self, count: impl FnOnce(&Series)) {
        if let Some(series) = &self.0 {
            count(series);
        }
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("logwatch_docker_{name}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

    #[test]
    fn every_series_has_its_documented_name_and_value() {
        let registry = Registry::new();
        let pool = PoolMetrics::new(&registry).unwrap();
        pool.clients(1, 3, 4);
        pool.breaker(7, Some(2));
        pool.breaker(8, Some(1));
        pool.breaker(8, None);
        pool.opened();
        pool.opened();
        pool.closed(Duration::from_secs(2));
        pool.checked(Duration::from_millis(2), false);
        pool.called("ping", Duration::from_millis(3), Duration::ZERO);
        pool.failed();
        pool.recovered();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let samples: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).collect();
        assert_eq!(
            samples,
            [
                "logwatch_docker_circuit_breaker_state{client=\"7\"} 2",
                "logwatch_docker_connection_duration_seconds_sum 2",
                "logwatch_docker_connection_duration_seconds_count 1",
                "logwatch_docker_connection_errors_total 1",
                "logwatch_docker_health_check_duration_seconds_sum 0.002",
                "logwatch_docker_health_check_duration_seconds_count 1",
                "logwatch_docker_health_check_failures_total 1",
                "logwatch_docker_operation_latency_seconds_sum{operation=\"ping\"} 0.003",
                "logwatch_docker_operation_latency_seconds_count{operation=\"ping\"} 1",
                "logwatch_docker_pool_connections_active 1",
                "logwatch_docker_pool_connections_healthy 3",
                "logwatch_docker_pool_connections_total 2",
                "logwatch_docker_pool_size 4",
                "logwatch_docker_pool_utilization 0.25",
                "logwatch_docker_pool_wait_duration_seconds_sum 0",
                "logwatch_docker_pool_wait_duration_seconds_count 1",
                "logwatch_docker_recovery_operations_total 1",
            ]
        );
    }
}

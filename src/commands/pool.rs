//! The `pool` command: opens the connection pool as every command does, checks it, and reports on it. On request it
//! runs a load through the pool.
//!
//! In: an endpoint and options. Out: a report on stdout, and the health of the pool. An unreachable engine gives a
//! report as well.

use super::Error;
use crate::docker::{self, Docker, Endpoint, Snapshot, Spent};
use crate::model::health::Status;
use crate::model::stop::Stop;
use crate::output::pool as write_report;
use crate::output::{ActivityLine, PoolCheck, PoolClient, PoolEngine, PoolLoad, PoolReport, PoolSize, Spread, When};
use crate::{config, metrics};
use hdrhistogram::Histogram;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Interval at which the progress of a load is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Significant decimal digits of each latency in the histograms.
const DIGITS: u8 = 3;

/// Options of the command.
#[derive(Clone, Debug)]
pub(crate) struct PoolOptions {
    pub docker: config::DockerConfig,
    /// Load to run through the pool.
    pub load: Option<Load>,
    /// Write no table: only the exit code matters.
    pub is_check: bool,
    /// Write the report as a JSON object.
    pub is_json: bool,
    pub color: When,
    /// Show no progress bar.
    pub quiet: bool,
}

/// A load of pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Total number of pings.
    pub requests: u64,
    /// Maximum number of pings at the same time.
    pub concurrency: usize,
}

/// Health of the pool.
#[derive(Debug)]
pub(crate) enum PoolOutcome {
    /// All clients are healthy, or the command was stopped before the result was known. Contains a failed check, if a
    /// client counts as healthy in spite of one.
    Healthy(Option<String>),
    /// Some clients are unhealthy: which, and why.
    Degraded(String),
    /// No client is healthy: why.
    Unhealthy(String),
    /// No engine answers, and the reason why.
    Unreachable(docker::Error),
}

/// Opens the pool, checks it, and writes the report to stdout.
pub(crate) fn pool(endpoint: Endpoint, options: PoolOptions, stop: &Stop) -> Result<PoolOutcome, Error> {
    super::runtime()?.block_on(async {
        let mut config = options.docker.clone();
        // With the rate limit, a load would measure the limit.
        config.rate_limit.enabled &= options.load.is_none();
        let docker = Docker::new(endpoint, &config, metrics::PoolMetrics::default())?;
        // The command ends within the time limit of one check, even if the engine accepts connections and never
        // answers. A tenth of that time is left for the report.
        let (begun, limit) = (Instant::now(), config.pool.health_check_timeout.mul_f64(0.9));
        let identified = tokio::select! {
            identified = identify(&docker, limit) => identified,
            () = stop.cancelled() => return Ok(PoolOutcome::Healthy(None)),
        };
        let engine = match identified {
            Ok(engine) => engine,
            Err(error) => return unreachable(&docker, &options, error, stop).await,
        };
        tokio::select! {
            () = docker.check_within(in_tenths(limit.saturating_sub(begun.elapsed()))) => {}
            () = stop.cancelled() => return Ok(PoolOutcome::Healthy(None)),
        }
        let mut load = None;
        if let Some(requested) = options.load {
            load = Some(run_load(&docker, requested, &options, stop).await?);
            // The load may have added clients to the pool.
            tokio::select! {
                () = docker.check() => {}
                () = stop.cancelled() => {}
            }
        }
        let snapshot = docker.pool();
        let problem = problem(&snapshot);
        let report = PoolReport { engine: Some(engine), load, ..report(&docker, &snapshot, problem.clone()) };
        write(report.clone(), &options, stop).await?;
        Ok(match report.status {
            Status::Unhealthy => PoolOutcome::Unhealthy(problem.unwrap_or_default()),
            Status::Degraded => PoolOutcome::Degraded(problem.unwrap_or_default()),
            Status::Healthy | Status::NotConfigured => PoolOutcome::Healthy(first_failed_check(&snapshot)),
        })
    })
}

/// Negotiates the API version and queries what the engine is.
async fn identify(docker: &Docker, limit: Duration) -> Result<PoolEngine, docker::Error> {
    let requests = async {
        docker.renegotiate().await?;
        match docker.info().await {
            Err(error) if error.is_refusal() => {
                tracing::info!(%error, "engine info is refused; reporting less about the engine");
                Ok(docker.unnamed_with_version().await.unwrap_or_else(|_| docker.unnamed()))
            }
            result => result,
        }
    };
    let late = |_| docker::Error::Timeout { endpoint: docker.endpoint().to_string(), after: limit };
    let engine = timeout(limit, requests).await.map_err(late)??;
    Ok(PoolEngine {
        id: engine.id,
        version: engine.version,
        api_version: docker.api_version().to_string(),
        os: engine.os,
        logging_driver: engine.logging_driver,
        name: if engine.is_podman { "Podman" } else { "Docker" },
    })
}

async fn unreachable(
    docker: &Docker,
    options: &PoolOptions,
    error: docker::Error,
    stop: &Stop,
) -> Result<PoolOutcome, Error> {
    let report = PoolReport { status: Status::Unhealthy, ..report(docker, &docker.pool(), Some(error.in_full())) };
    let unhealthy = |client| PoolClient { status: Status::Unhealthy.name(), score: 0.0, ..client };
    let clients = report.clients.into_iter().map(unhealthy);
    let pool = PoolSize { healthy: 0, ..report.pool };
    write(PoolReport { clients: clients.collect(), pool, ..report }, options, stop).await?;
    Ok(PoolOutcome::Unreachable(error))
}

async fn write(report: PoolReport, options: &PoolOptions, stop: &Stop) -> Result<(), Error> {
    let PoolOptions { is_check, is_json, color, .. } = *options;
    if is_check && !is_json {
        return Ok(());
    }
    super::write_on_thread(stop, move || write_report(&report, is_json, color)).await
}

fn report(docker: &Docker, snapshot: &Snapshot, error: Option<String>) -> PoolReport {
    let Snapshot { size, min, max, healthy, active, utilization, .. } = *snapshot;
    let clients = snapshot.clients.iter().map(|client| PoolClient {
        id: client.id,
        status: client.status.name(),
        score: client.score,
        breaker: client.breaker.name(),
        usage_count: client.usage_count,
        errors: client.errors,
        age_seconds: client.age.as_secs_f64(),
        checks: client.checks.iter().map(check).collect(),
    });
    PoolReport {
        endpoint: docker.endpoint().to_string(),
        status: snapshot.status(),
        engine: None,
        pool: PoolSize { size, min, max, healthy, active, utilization },
        clients: clients.collect(),
        load: None,
        error,
    }
}

fn check(check: &docker::Check) -> PoolCheck {
    PoolCheck { name: check.name, ok: check.ok, latency_ms: milliseconds(check.latency), error: check.error.clone() }
}

/// Rounds down to tenths of a second, at least one, so that error messages show a short number.
fn in_tenths(span: Duration) -> Duration {
    let tenth = Duration::from_millis(100);
    tenth * u32::try_from(span.as_millis() / tenth.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn milliseconds(span: Duration) -> f64 {
    // Three decimals: less than a microsecond is noise.
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Describes why the pool is not healthy; `None` if it is.
fn problem(snapshot: &Snapshot) -> Option<String> {
    if snapshot.status() == Status::Healthy {
        return None;
    }
    let describe = |client: &docker::ClientReport| {
        let why = failed_check(client).unwrap_or_else(|| format!("its breaker is {}", client.breaker.name()));
        format!("client {}: {why}", client.id)
    };
    let first = snapshot.clients.iter().find(|client| client.status != Status::Healthy).map(describe);
    let why = first.map_or_else(String::new, |why| format!(", {why}"));
    Some(format!("{} of {} clients healthy{why}", snapshot.healthy, snapshot.size))
}

/// Describes the first failed check, for a pool that counts as healthy in spite of it.
fn first_failed_check(snapshot: &Snapshot) -> Option<String> {
    snapshot.clients.iter().find_map(|client| Some(format!("client {}: {}", client.id, failed_check(client)?)))
}

fn failed_check(client: &docker::ClientReport) -> Option<String> {
    let check = client.checks.iter().find(|check| !check.ok)?;
    Some(format!("{}: {}", check.name, check.error.as_deref().unwrap_or("failed")))
}

/// Measurements of a load.
struct LoadStats {
    latency: Histogram<u64>,
    wait: Histogram<u64>,
    requests: u64,
    errors: u64,
    retries: u64,
}

impl LoadStats {
    fn new(empty: &Histogram<u64>) -> Self {
        LoadStats { latency: empty.clone(), wait: empty.clone(), requests: 0, errors: 0, retries: 0 }
    }

    fn record(&mut self, is_answered: bool, spent: Spent) {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        // Cannot fail: the histograms resize themselves.
        let _ = (self.latency.record(nanos(spent.took)), self.wait.record(nanos(spent.waited)));
        self.requests += 1;
        self.errors += u64::from(!is_answered);
        self.retries += u64::from(spent.retries);
    }

    fn add(&mut self, other: &LoadStats) {
        // Cannot fail: both have the same precision.
        let _ = self.latency.add(&other.latency);
        let _ = self.wait.add(&other.wait);
        self.requests += other.requests;
        self.errors += other.errors;
        self.retries += other.retries;
    }
}

/// Runs the load through the pool until it is complete or `stop` is cancelled.
async fn run_load(docker: &Docker, load: Load, options: &PoolOptions, stop: &Stop) -> Result<PoolLoad, Error> {
    let empty = Histogram::new(DIGITS).map_err(io::Error::other)?;
    let begun = Instant::now();
    let (started, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..load.concurrency {
        let (docker, stop) = (docker.clone(), stop.clone());
        let (started, done, empty) = (Arc::clone(&started), Arc::clone(&done), empty.clone());
        workers.spawn(async move {
            let mut stats = LoadStats::new(&empty);
            while started.fetch_add(1, Ordering::Relaxed) < load.requests {
                let (answer, spent) = tokio::select! {
                    answer = docker.ping_timed() => answer,
                    () = stop.cancelled() => break,
                };
                stats.record(answer.is_ok(), spent);
                done.fetch_add(1, Ordering::Relaxed);
            }
            stats
        });
    }
    let mut all = LoadStats::new(&empty);
    let meter = ActivityLine::new(!options.quiet);
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(Ok(stats)) => all.add(&stats),
                Some(Err(_)) => {}
                None => break,
            },
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                meter.reach(done.load(Ordering::Relaxed), load.requests, "requests");
            }
        }
    }
    meter.clear();
    let seconds = begun.elapsed().as_secs_f64();
    Ok(PoolLoad {
        requests: all.requests,
        errors: all.errors,
        retries: all.retries,
        seconds: (seconds * 1e3).round() / 1e3,
        requests_per_second: (all.requests as f64 / seconds * 10.0).round() / 10.0,
        latency_ms: spread(&all.latency),
        wait_ms: spread(&all.wait),
    })
}

fn spread(histogram: &Histogram<u64>) -> Spread {
    let at = |quantile| milliseconds(Duration::from_nanos(histogram.value_at_quantile(quantile)));
    let max = milliseconds(Duration::from_nanos(histogram.max()));
    Spread { p50: at(0.5).min(max), p95: at(0.95).min(max), p99: at(0.99).min(max), max }
}

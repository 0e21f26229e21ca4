//! `pool`: opens the connection pool as every verb does, checks it, puts a load through it if asked, and tells.
//!
//! In: an endpoint and options. Out: a report, and how well it all is. Called by the command line. What is told of an
//! engine that cannot be reached is a report as well.

use super::Error;
use crate::docker::{self, Docker, Endpoint, Snapshot, Spent};
use crate::model::health::Status;
use crate::model::stop::Stop;
use crate::output::pool as tell;
use crate::output::{ActivityLine, PoolCheck, PoolClient, PoolEngine, PoolLoad, PoolReport, PoolSize, Spread, When};
use crate::{config, metrics};
use hdrhistogram::Histogram;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Between two looks at how far a load is.
const LOOK: Duration = Duration::from_millis(100);
/// Of each latency, in decimal.
const DIGITS: u8 = 3;

/// Everything `pool` can be told.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Of the pool.
    pub docker: config::DockerConfig,
    /// What to put through it.
    pub load: Option<Load>,
    /// Write no table.
    pub is_check: bool,
    /// The report as an object.
    pub is_json: bool,
    /// The report in colour.
    pub color: When,
    /// No progress bar.
    pub quiet: bool,
}

/// What is put through the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Pings in all, ...
    pub requests: u64,
    /// ... and at one time.
    pub concurrency: usize,
}

/// How well it is.
#[derive(Debug)]
pub enum PoolOutcome {
    /// All of it is, or we were told to stop before we knew; with a check that failed all the same, if one did.
    Healthy(Option<String>),
    /// Some clients are not: which, and why.
    Degraded(String),
    /// No client is: why.
    Unhealthy(String),
    /// There is no engine that talks to us.
    Unreachable(docker::Error),
}

/// Opens the pool, looks at it, and writes the report to stdout.
pub fn pool(endpoint: Endpoint, options: PoolOptions, stop: &Stop) -> Result<PoolOutcome, Error> {
    super::runtime()?.block_on(async {
        let mut config = options.docker.clone();
        // A load under a limit would measure the limit.
        config.rate_limit.enabled &= options.load.is_none();
        let docker = Docker::new(endpoint, &config, metrics::PoolMetrics::default())?;
        // An engine that takes connections and says nothing is told within the time of a check: what is left is for telling.
        let (begun, patience) = (Instant::now(), config.pool.health_check_timeout.mul_f64(0.9));
        let greeted = tokio::select! {
            greeted = greet(&docker, patience) => greeted,
            () = stop.cancelled() => return Ok(PoolOutcome::Healthy(None)),
        };
        let engine = match greeted {
            Ok(engine) => engine,
            Err(error) => return unreachable(&docker, &options, error, stop).await,
        };
        tokio::select! {
            () = docker.check_within(in_tenths(patience.saturating_sub(begun.elapsed()))) => {}
            () = stop.cancelled() => return Ok(PoolOutcome::Healthy(None)),
        }
        let mut load = None;
        if let Some(asked) = options.load {
            load = Some(put(&docker, asked, &options, stop).await?);
            // There may be more clients now.
            tokio::select! {
                () = docker.check() => {}
                () = stop.cancelled() => {}
            }
        }
        let snapshot = docker.pool();
        let words = trouble(&snapshot);
        let report = PoolReport { engine: Some(engine), load, ..report(&docker, &snapshot, words.clone()) };
        write(report.clone(), &options, stop).await?;
        Ok(match report.status {
            Status::Unhealthy => PoolOutcome::Unhealthy(words.unwrap_or_default()),
            Status::Degraded => PoolOutcome::Degraded(words.unwrap_or_default()),
            Status::Healthy | Status::NotConfigured => PoolOutcome::Healthy(failed(&snapshot)),
        })
    })
}

/// Agrees on a version and asks who it is.
async fn greet(docker: &Docker, patience: Duration) -> Result<PoolEngine, docker::Error> {
    let greeting = async {
        docker.renegotiate().await?;
        match docker.info().await {
            Err(error) if error.is_refusal() => {
                tracing::info!(%error, "less is known of the engine");
                Ok(docker.unnamed_with_version().await.unwrap_or_else(|_| docker.unnamed()))
            }
            told => told,
        }
    };
    let late = |_| docker::Error::Timeout { endpoint: docker.endpoint().to_string(), after: patience };
    let engine = timeout(patience, greeting).await.map_err(late)??;
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
    let words = error.in_full();
    let report = PoolReport { status: Status::Unhealthy, ..report(docker, &docker.pool(), Some(words)) };
    let ill = |client| PoolClient { status: Status::Unhealthy.name(), score: 0.0, ..client };
    let clients = report.clients.into_iter().map(ill);
    let pool = PoolSize { healthy: 0, ..report.pool };
    write(PoolReport { clients: clients.collect(), pool, ..report }, options, stop).await?;
    Ok(PoolOutcome::Unreachable(error))
}

async fn write(report: PoolReport, options: &PoolOptions, stop: &Stop) -> Result<(), Error> {
    let PoolOptions { is_check, is_json, color, .. } = *options;
    if is_check && !is_json { Ok(()) } else { super::written(stop, move || tell(&report, is_json, color)).await }
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

/// Rounded down, as a message need not say it more exactly; never none.
fn in_tenths(span: Duration) -> Duration {
    let tenth = Duration::from_millis(100);
    tenth * u32::try_from(span.as_millis() / tenth.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn milliseconds(span: Duration) -> f64 {
    // Nanoseconds behind the point are noise.
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Why the pool is not healthy; `None` when it is.
fn trouble(snapshot: &Snapshot) -> Option<String> {
    if snapshot.status() == Status::Healthy {
        return None;
    }
    let of_client = |client: &docker::ClientReport| {
        let why = failed_check(client).unwrap_or_else(|| format!("its breaker is {}", client.breaker.name()));
        format!("client {}: {why}", client.id)
    };
    let ill = snapshot.clients.iter().find(|client| client.status != Status::Healthy).map(of_client);
    let why = ill.map_or_else(String::new, |why| format!(", {why}"));
    Some(format!("{} of {} clients healthy{why}", snapshot.healthy, snapshot.size))
}

/// The first check that failed though its client counts as healthy.
fn failed(snapshot: &Snapshot) -> Option<String> {
    snapshot.clients.iter().find_map(|client| Some(format!("client {}: {}", client.id, failed_check(client)?)))
}

fn failed_check(client: &docker::ClientReport) -> Option<String> {
    let check = client.checks.iter().find(|check| !check.ok)?;
    Some(format!("{}: {}", check.name, check.error.as_deref().unwrap_or("failed")))
}

/// What one of those that ask at the same time met with.
struct Met {
    latency: Histogram<u64>,
    wait: Histogram<u64>,
    requests: u64,
    errors: u64,
    retries: u64,
}

impl Met {
    fn new(empty: &Histogram<u64>) -> Self {
        Met { latency: empty.clone(), wait: empty.clone(), requests: 0, errors: 0, retries: 0 }
    }

    fn note(&mut self, is_answered: bool, spent: Spent) {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        // It grows with what it is given: nothing that is a time can be refused.
        let _ = (self.latency.record(nanos(spent.took)), self.wait.record(nanos(spent.waited)));
        self.requests += 1;
        self.errors += u64::from(!is_answered);
        self.retries += u64::from(spent.retries);
    }

    fn add(&mut self, other: &Met) {
        // Of the same digits, so the sums fit.
        let _ = self.latency.add(&other.latency);
        let _ = self.wait.add(&other.wait);
        self.requests += other.requests;
        self.errors += other.errors;
        self.retries += other.retries;
    }
}

/// Puts the load through the pool, or as much of it as there is time for before we are told to stop.
async fn put(docker: &Docker, load: Load, options: &PoolOptions, stop: &Stop) -> Result<PoolLoad, Error> {
    let empty = Histogram::new(DIGITS).map_err(io::Error::other)?;
    let begun = Instant::now();
    let (taken, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut asking = JoinSet::new();
    for _ in 0..load.concurrency {
        let (docker, stop) = (docker.clone(), stop.clone());
        let (taken, done, empty) = (Arc::clone(&taken), Arc::clone(&done), empty.clone());
        asking.spawn(async move {
            let mut met = Met::new(&empty);
            while taken.fetch_add(1, Ordering::Relaxed) < load.requests {
                let (answer, spent) = tokio::select! {
                    answer = docker.ping_timed() => answer,
                    () = stop.cancelled() => break,
                };
                met.note(answer.is_ok(), spent);
                done.fetch_add(1, Ordering::Relaxed);
            }
            met
        });
    }
    let mut all = Met::new(&empty);
    let meter = ActivityLine::new(!options.quiet);
    loop {
        tokio::select! {
            ended = asking.join_next() => match ended {
                Some(Ok(met)) => all.add(&met),
                Some(Err(_)) => {}
                None => break,
            },
            () = tokio::time::sleep(LOOK) => meter.reach(done.load(Ordering::Relaxed), load.requests, "requests"),
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

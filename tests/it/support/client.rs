//! Helpers for the module `docker` as a library: endpoints, connections, and messages of failed ones.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use logwatch::internals::config;
use logwatch::internals::docker::{Docker, Endpoint, Environment, Error, Flags, Snapshot, Spent};
use logwatch::internals::metrics;
use tokio::task::JoinSet;

use super::{PATIENCE, Proxy};

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn environment(variables: &[(&str, &str)]) -> Environment {
    [("HOME", "/nowhere")].iter().chain(variables).copied().collect()
}

pub fn at(host: &str) -> Endpoint {
    resolve(host, &[])
}

pub fn resolve(host: &str, variables: &[(&str, &str)]) -> Endpoint {
    let flags = Flags { host: Some(host.to_owned()), ..Flags::default() };
    Endpoint::resolve(&flags, &environment(variables)).unwrap()
}

/// The error and its causes, one per line.
pub fn chain(error: &Error) -> String {
    let mut reported = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        reported.push_str(&format!("\n{cause}"));
        next = cause.source();
    }
    reported
}

pub async fn connect_with(endpoint: Endpoint, pool: config::PoolConfig) -> Result<Docker, Error> {
    let config = config::DockerConfig { pool, ..config::DockerConfig::default() };
    Docker::connect_with(endpoint, &config, metrics::PoolMetrics::default()).await
}

pub async fn failure(endpoint: Endpoint) -> Error {
    Docker::connect(endpoint).await.err().expect("it connected")
}

/// Connects through a proxy.
pub async fn connect(proxy: &Proxy, config: &config::DockerConfig) -> Docker {
    Docker::connect_with(at(&proxy.host()), config, metrics::PoolMetrics::default()).await.unwrap()
}

/// When one call ended, how long it took, and its error.
pub type Call = (Instant, Spent, Option<String>);

/// Starts this many callers, each of which calls again while `go_on` allows it for the number of calls so far.
pub async fn load(
    docker: &Docker,
    callers: usize,
    go_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Vec<Call> {
    let made = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (docker, go_on, made) = (docker.clone(), go_on.clone(), made.clone());
        tasks.spawn(async move {
            let mut calls = Vec::new();
            while go_on(made.fetch_add(1, Ordering::Relaxed)) {
                let (answer, spent) = docker.ping_timed().await;
                calls.push((Instant::now(), spent, answer.err().map(|error| error.to_string())));
            }
            calls
        });
    }
    tasks.join_all().await.concat()
}

/// Polls for something that no call shows, while the pool keeps working.
pub async fn until(docker: &Docker, promise: &str, holds: impl Fn(&Snapshot) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds(&docker.pool()) {
        assert!(Instant::now() < end, "timed out, waiting until {promise}: {:?}", docker.pool());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

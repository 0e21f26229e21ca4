//! Helpers for the module `docker` as a library: endpoints, connections, and messages of failed ones.

use std::net::TcpListener;

use logwatch::internals::config;
use logwatch::internals::docker::{Docker, Endpoint, Environment, Error, Flags};
use logwatch::internals::metrics;

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

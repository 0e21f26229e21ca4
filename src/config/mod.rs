//! What can be configured, and what it is where nobody said anything.
//!
//! Plain data on the shelf: the command line makes it, every room may read the part that concerns it. `layers` puts it
//! together from the file (`file`), the environment and flags; `keys` is the table of what there is, `value` reads the
//! values.

mod file;
pub mod keys;
mod layers;
pub mod value;

pub use layers::{ConfigInputs, Layers};

use std::path::PathBuf;
use std::time::Duration;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// How the engine is spoken to.
    pub docker: DockerConfig,
    /// The engine's events.
    pub events: EventsConfig,
    /// How logs are followed.
    pub watch: WatchConfig,
    /// `host:port` where metrics and health are served; `None` is nowhere.
    pub listen: Option<String>,
    /// The state file; `None` is the usual place.
    pub state: Option<PathBuf>,
}

/// How the engine is spoken to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DockerConfig {
    /// The clients, their health, and how calls are repeated.
    pub pool: PoolConfig,
    /// When a client is left alone.
    pub circuit_breaker: CircuitBreaker,
    /// How many calls a second.
    pub rate_limit: RateLimit,
}

/// The clients of the connection pool, their health, and how calls are repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// Never fewer clients, ...
    pub min_size: usize,
    /// ... never more, ...
    pub max_size: usize,
    /// ... and so many at first.
    pub initial_size: usize,
    /// By how much it grows when callers wait.
    pub growth_factor: f64,
    /// Logs and events that are read at one time.
    pub max_concurrent_streams: usize,
    /// For a connection, TLS handshake included.
    pub connection_timeout: Duration,
    /// For a whole answer, and in all for a call with its repetitions, of which an attempt that may be repeated gets half.
    pub request_timeout: Duration,
    /// How long an unused client is kept beyond the least number.
    pub idle_timeout: Duration,
    /// After so long a connection is replaced, between two calls.
    pub max_connection_age: Duration,
    /// Between two checks of each client; zero is never.
    pub health_check_interval: Duration,
    /// For one check.
    pub health_check_timeout: Duration,
    /// Failed checks in a row that make a client unhealthy.
    pub unhealthy_threshold: u32,
    /// Between two checks of an unhealthy client.
    pub recovery_check_interval: Duration,
    /// Repetitions of a call that failed.
    pub max_retries: u32,
    /// Before the first of them at most, ...
    pub initial_retry_delay: Duration,
    /// ... before each of them at most, ...
    pub max_retry_delay: Duration,
    /// ... and by how much that grows from one to the next.
    pub retry_multiplier: f64,
    /// Wait for a random part of that.
    pub jitter: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            min_size: 1,
            max_size: 8,
            initial_size: 2,
            growth_factor: 1.5,
            max_concurrent_streams: 512,
            connection_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(5 * 60),
            max_connection_age: Duration::from_secs(60 * 60),
            health_check_interval: Duration::from_secs(30),
            health_check_timeout: Duration::from_secs(10),
            unhealthy_threshold: 3,
            recovery_check_interval: Duration::from_secs(60),
            max_retries: 5,
            initial_retry_delay: Duration::from_millis(100),
            max_retry_delay: Duration::from_secs(30),
            retry_multiplier: 2.0,
            jitter: true,
        }
    }
}

/// When a client that fails is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Whether there is any.
    pub enabled: bool,
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// Successes in a row that close it from half open.
    pub success_threshold: u32,
    /// How long it stays open before it is half open; where the engine did not answer at all, until a ping is answered.
    pub timeout: Duration,
    /// Calls let through at one time by all breakers that are half open.
    pub half_open_max_calls: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            enabled: true,
            failure_threshold: 5,
            success_threshold: 3,
            timeout: Duration::from_secs(60),
            half_open_max_calls: 10,
        }
    }
}

/// How many calls a second, streams not counted.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Whether there is any.
    pub enabled: bool,
    /// In the long run.
    pub requests_per_second: u32,
    /// At once after a rest.
    pub burst_size: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { enabled: true, requests_per_second: 100, burst_size: 200 }
    }
}

/// The engine's events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsConfig {
    /// Whether they are listened to; if not, containers are listed at an interval.
    pub enabled: bool,
    /// How many may wait to be dealt with.
    pub queue_size: usize,
    /// Before the first attempt to get them back at most, ...
    pub backoff_min: Duration,
    /// ... and before each.
    pub backoff_max: Duration,
    /// Between two reconciliations of a watch; zero is never.
    pub reconcile_interval: Duration,
}

impl Default for EventsConfig {
    fn default() -> Self {
        EventsConfig {
            enabled: true,
            queue_size: 1000,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(5 * 60),
            reconcile_interval: Duration::from_secs(30 * 60),
        }
    }
}

/// How logs are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchConfig {
    /// By which route containers are read.
    pub source: Source,
    /// How long what was asked about a container is believed.
    pub metadata_cache_ttl: Duration,
    /// With [`Source::Rotate`], from one stream to the next.
    pub rotate_interval: Duration,
    /// With [`Source::Poll`], from one read to the next.
    pub poll_interval: Duration,
    /// Bytes of a message beyond which it is cut.
    pub max_line_size: usize,
}

impl Default for WatchConfig {
    fn default() -> Self {
        WatchConfig {
            source: Source::Auto,
            metadata_cache_ttl: Duration::from_secs(5 * 60),
            rotate_interval: Duration::from_secs(30),
            poll_interval: Duration::from_secs(2),
            max_line_size: 1 << 20,
        }
    }
}

/// How a container's log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The file where it can be opened, else the stream.
    #[default]
    Auto,
    /// Files only.
    File,
    /// One long API stream.
    Stream,
    /// API streams renewed at an interval.
    Rotate,
    /// API reads at an interval.
    Poll,
}

//! The configuration and its defaults.
//!
//! Plain data: the command line builds it, and each module reads the part that concerns it. `layers` combines the
//! configuration file (`file`), environment variables and options; `keys` lists all keys; `value` parses values.

mod file;
pub(crate) mod keys;
mod layers;
pub(crate) mod value;

pub(crate) use layers::{ConfigInputs, Layers};

use std::path::PathBuf;
use std::time::Duration;

/// The complete configuration, checked by [`Layers::finish`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    pub docker: DockerConfig,
    pub events: EventsConfig,
    pub watch: WatchConfig,
    /// `host:port` at which metrics and health are served; `None` serves nothing.
    pub listen: Option<String>,
    /// The state file; `None` means the default location.
    pub state: Option<PathBuf>,
}

/// Access to the Docker Engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DockerConfig {
    pub pool: PoolConfig,
    pub circuit_breaker: CircuitBreaker,
    pub rate_limit: RateLimit,
}

/// The clients of the connection pool, their health checks, and the retries of calls.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The least number of clients; not above `max_size`.
    pub min_size: usize,
    pub max_size: usize,
    /// Clients at the start, from `min_size` to `max_size`.
    pub initial_size: usize,
    /// Factor by which the pool grows when calls wait for a client; at least 1.
    pub growth_factor: f64,
    /// Log and event streams that may be open at the same time.
    pub max_concurrent_streams: usize,
    /// Time limit for establishing a connection, including the TLS handshake.
    pub connection_timeout: Duration,
    /// Time limit for a complete response, and for a call with all its retries. An attempt that may be retried
    /// gets half of it.
    pub request_timeout: Duration,
    /// How long unused clients beyond `min_size` are kept.
    pub idle_timeout: Duration,
    /// Age at which a connection is replaced, between two calls.
    pub max_connection_age: Duration,
    /// Time between two checks of a healthy client; zero disables checks.
    pub health_check_interval: Duration,
    /// Time limit for one check.
    pub health_check_timeout: Duration,
    /// Consecutive failed checks that make a client unhealthy.
    pub unhealthy_threshold: u32,
    /// Time between two checks of an unhealthy client.
    pub recovery_check_interval: Duration,
    /// How often a failed call is retried.
    pub max_retries: u32,
    /// The longest delay before the first retry.
    pub initial_retry_delay: Duration,
    /// The longest delay before any retry; at least `initial_retry_delay`.
    pub max_retry_delay: Duration,
    /// Factor by which the delay grows from one retry to the next; at least 1.
    pub retry_multiplier: f64,
    /// Whether to wait only a random part of the delay.
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

/// When a failing client is no longer used for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    pub enabled: bool,
    /// Consecutive failures that open a breaker.
    pub failure_threshold: u32,
    /// Consecutive successes that close a half-open breaker.
    pub success_threshold: u32,
    /// How long a breaker stays open before it becomes half-open. If the daemon did not answer at all, the breaker
    /// stays open until a ping succeeds.
    pub timeout: Duration,
    /// Trial calls that all half-open breakers together admit at the same time.
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

/// The rate limit for calls. Streams do not count.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub enabled: bool,
    /// Calls per second that are allowed for any length of time.
    pub requests_per_second: u32,
    /// Calls that may follow each other immediately after an idle period.
    pub burst_size: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { enabled: true, requests_per_second: 100, burst_size: 200 }
    }
}

/// The daemon's event stream and the reconciliations that complete it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventsConfig {
    /// Whether `watch` subscribes to events. If not, it lists containers every `reconcile_interval`.
    pub enabled: bool,
    /// Events that may wait to be processed.
    pub queue_size: usize,
    /// The longest delay before the first attempt to reconnect.
    pub backoff_min: Duration,
    /// The longest delay before any attempt; at least `backoff_min`.
    pub backoff_max: Duration,
    /// Time between two reconciliations of `watch`; zero disables them.
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

/// How `watch` reads logs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WatchConfig {
    pub source: Source,
    /// How long the answer to a container lookup is cached.
    pub metadata_cache_ttl: Duration,
    /// Lifetime of each stream with [`Source::Rotate`].
    pub rotate_interval: Duration,
    /// Time between two reads with [`Source::Poll`].
    pub poll_interval: Duration,
    /// Maximum size of a message in bytes; longer messages are split.
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

/// How a container's log is read (`--source`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// Files where they can be opened, otherwise `Stream`.
    #[default]
    Auto,
    /// Files only; containers without a readable file are not read.
    File,
    /// One long API stream.
    Stream,
    /// API streams renewed at an interval.
    Rotate,
    /// API reads at an interval.
    Poll,
}

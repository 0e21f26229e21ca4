//! Talking to the Docker engine: the few calls we make, in our own types.
//!
//! In: an [`Endpoint`]. Out: containers, logs and events. Called by [`crate::commands`]. Knows nothing of files, of
//! positions, or of what a user asked to see. The only room that speaks HTTP to an engine.
//!
//! - [`endpoint`]: which engine, as docker's CLI finds it; `address` reads the forms of a host, `go` its JSON
//! - `transport`: HTTP over a unix socket, tcp, TLS (`tls`) or ssh (`ssh`)
//! - [`version`]: which version of the API to speak
//! - `answers`: what the engine tells of itself and of containers; `inventory`: containers with their mounts, and volumes;
//!   `streams`: logs and events as they come
//! - `pool`: through which every call goes, and `wire`, what each of its clients has
//! - `body`: how long an answer may be, and lists that are decoded while they arrive
//! - [`events`]: one event
//! - [`backoff`]: how long to wait before trying again; `returns`: what ends such a wait early
//!
//! All requests are our own. bollard 0.21 sends no version (its `Uri::parse` joins the path over the prefix), cuts `since`
//! to seconds, ends an event stream at a type it does not know, and collects every body whole, however long it is.

mod answers;
mod api;
pub mod backoff;
pub mod endpoint;
mod error;
pub mod events;
mod http;
mod inventory;
#[cfg(any(test, fuzzing))]
pub mod oracle;
mod pool;
mod stream_permits;
mod streams;
pub mod version;
mod wait_for_daemon;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::config;
use crate::metrics;
use crate::model::container::Container;
use crate::model::selector::Filters;

pub use answers::{Details, Engine};
pub use endpoint::{Endpoint, Environment, Flags};
pub use error::{Cause, Error, Kind};
pub use events::Event;
pub use http::ssh::{WORD as SSH, become_ssh};
pub use pool::{BreakerState, Check, ClientReport, HEALTHY, Snapshot, Spent};
pub use streams::{EventStream, EventsQuery, LogStream, LogsQuery};
pub use version::Version;

use answers::{Listed, Named};
use api::{Api, Negotiated};
use http::body::Weigh;
use http::{Http, Timeouts};
use pool::{Client, Pool, StreamPermits};
use wait_for_daemon::Returns;

/// An engine begins to answer a request for events at once, but for Podman, and proxies that wait for a body: these begin
/// with the first event. So long it is waited for the beginning ...
const BEGUN: Duration = Duration::from_secs(2);
/// ... and with Podman, of which it is known, for no longer than a refusal takes.
const BEGUN_BY_PODMAN: Duration = Duration::from_millis(200);

/// A client of one engine. Clones share connections, the version spoken and the count of requests.
#[derive(Clone)]
pub struct Docker(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    /// What is answered at once.
    pool: Pool,
    /// What is read piece by piece: each on a connection of its own, ...
    wire: Arc<Api>,
    /// ... and so many at one time.
    places: StreamPermits,
    returns: Returns,
}

impl Docker {
    /// Reaches the engine and agrees on a version. As configured where nobody said anything, and counted nowhere.
    pub async fn connect(endpoint: Endpoint) -> Result<Docker, Error> {
        Docker::connect_with(endpoint, &config::DockerConfig::default(), metrics::PoolMetrics::default()).await
    }

    /// As [`Docker::connect`]. An engine that is not there is told at once: nothing is repeated.
    pub async fn connect_with(
        endpoint: Endpoint,
        config: &config::DockerConfig,
        metrics: metrics::PoolMetrics,
    ) -> Result<Docker, Error> {
        let docker = Docker::new(endpoint, config, metrics)?;
        docker.renegotiate().await?;
        Ok(docker)
    }

    /// A client that has reached nothing yet and agreed on nothing: until [`Docker::renegotiate`] it speaks our own version.
    pub fn new(
        endpoint: Endpoint,
        config: &config::DockerConfig,
        metrics: metrics::PoolMetrics,
    ) -> Result<Docker, Error> {
        let http = Http::new(&endpoint, Timeouts::of(&config.pool), metrics.clone())?;
        let wire = Arc::new(Api::new(http, Negotiated::of_nobody(endpoint.pinned)));
        let pool = Pool::new(wire.beside(), config.clone(), metrics);
        let places = StreamPermits::new(config.pool.max_concurrent_streams);
        let returns = Returns::new(&endpoint);
        Ok(Docker(Arc::new(Shared { endpoint, pool, wire, places, returns })))
    }

    /// Agrees on a version anew, for when the engine may have been replaced by another: after each lost connection. Nothing
    /// is repeated: whoever lost it tries again at a pace of its own.
    pub async fn renegotiate(&self) -> Result<(), Error> {
        let Shared { pool, endpoint, .. } = &*self.0;
        pool.by(pool.end(), pool.first().wire.agree(endpoint.pinned)).await
    }

    /// Looks after the clients until it is dropped: checks their health, brings back who is unwell, takes away who idles.
    /// To be run beside a verb that lasts.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + 'static {
        let docker = self.clone();
        async move { docker.0.pool.upkeep(&docker.0.wire).await }
    }

    /// Checks all clients now. One check decides: who fails it is unhealthy.
    pub async fn check(&self) {
        self.check_within(self.0.pool.checks_patience()).await;
    }

    /// As [`Docker::check`], with less time than is configured.
    pub async fn check_within(&self, limit: Duration) {
        self.0.pool.check_all(&self.0.wire, limit).await;
    }

    /// The clients as they stand.
    pub fn pool(&self) -> Snapshot {
        let (streams, max_streams) = self.0.places.taken();
        Snapshot { streams, max_streams, ..self.0.pool.snapshot() }
    }

    /// So many logs may be read at one time; one place, if there are several, is kept for events.
    pub fn most_logs(&self) -> usize {
        self.0.places.most_logs()
    }

    /// The engine it talks to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The version spoken.
    pub fn api_version(&self) -> Version {
        self.0.wire.terms().spoken
    }

    /// Whether it is Podman behind Docker's API.
    pub fn is_podman(&self) -> bool {
        self.0.wire.terms().is_podman
    }

    /// How many requests were sent so far, over all clones, those for connecting and for checks included.
    pub fn requests(&self) -> u64 {
        self.0.wire.http.requests()
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ping_timed().await.0
    }

    /// As [`Docker::ping`], with what became of the call on its way through the pool.
    pub async fn ping_timed(&self) -> (Result<(), Error>, Spent) {
        self.0.pool.call_timed("ping", |client| async move { client.wire.ping().await }).await
    }

    /// What the engine says of itself.
    pub async fn info(&self) -> Result<Engine, Error> {
        let ask = |client: Arc<Client>| async move { client.wire.object("info", "/info").await };
        let said = self.0.pool.call("info", ask).await?;
        let Negotiated { newest, is_podman, .. } = self.0.wire.terms();
        Ok(Engine::told(said, newest, is_podman))
    }

    /// All that is known of an engine that does not say it, whose ID is not.
    pub fn unnamed(&self) -> Engine {
        let Negotiated { newest, is_podman, .. } = self.0.wire.terms();
        Engine { api_version: newest.to_string(), is_podman, ..Engine::default() }
    }

    /// The same, and which version of which system it is.
    pub async fn unnamed_with_version(&self) -> Result<Engine, Error> {
        let ask = |client: Arc<Client>| async move { client.wire.object("its version", "/version").await };
        let answers::Release { version, os } = self.0.pool.call("version", ask).await?;
        Ok(Engine { version, os, ..self.unnamed() })
    }

    /// The containers that match, running ones only unless `all`, newest first. Never waits for a container's lock.
    pub async fn list(&self, all: bool, filters: &Filters) -> Result<Vec<Container>, Error> {
        self.listed(all, filters, answers::listed).await
    }

    /// The IDs of the containers that match, as above.
    pub async fn list_ids(&self, all: bool, filters: &Filters) -> Result<Vec<String>, Error> {
        self.listed(all, filters, |said| answers::listed(said).map(|container| container.id)).await
    }

    async fn listed<T: Weigh>(
        &self,
        all: bool,
        filters: &Filters,
        keep: impl Fn(Listed) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut path = format!("/containers/json?all={}", u8::from(all));
        if !filters.is_empty() {
            path = format!("{path}&filters={}", streams::encoded(filters));
        }
        let (path, keep) = (&path, &keep);
        let ask = |client: Arc<Client>| async move { client.wire.list("the container list", path, None, keep).await };
        self.0.pool.call("container_list", ask).await
    }

    /// The names of all networks.
    pub async fn networks(&self) -> Result<Vec<String>, Error> {
        let ask = |client: Arc<Client>| async move {
            client.wire.list("the network list", "/networks", None, |network: Named| Ok(network.name)).await
        };
        self.0.pool.call("network_list", ask).await
    }

    /// The names of all volumes.
    pub async fn volumes(&self) -> Result<Vec<String>, Error> {
        self.listed_volumes(|volume: Named| Ok(volume.name)).await
    }

    async fn listed_volumes<S: DeserializeOwned, T: Weigh>(
        &self,
        keep: impl Fn(S) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let keep = &keep;
        let ask = |client: Arc<Client>| async move {
            client.wire.list("the volume list", "/volumes", Some("Volumes"), keep).await
        };
        self.0.pool.call("volume_list", ask).await
    }

    /// All that is known of one container, by ID, prefix or name. Waits while the engine starts or stops it.
    pub async fn inspect(&self, id: &str) -> Result<Details, Error> {
        is_reference(id)?;
        let path = &format!("/containers/{id}/json");
        let ask = |client: Arc<Client>| async move { client.wire.object("a container", path).await };
        Details::told(self.0.pool.call("container_inspect", ask).await?)
    }

    /// A container's logs with the time before each line, framed unless it has a terminal. Opened once: whoever reads knows
    /// better where to go on.
    pub async fn logs(&self, id: &str, query: &LogsQuery) -> Result<LogStream, Error> {
        self.logs_within(Duration::MAX, id, query).await
    }

    /// The same for who waits no longer than that for a place, or for an engine that is gone to come back.
    pub async fn logs_within(&self, patience: Duration, id: &str, query: &LogsQuery) -> Result<LogStream, Error> {
        is_reference(id)?;
        let Shared { pool, wire, places, .. } = &*self.0;
        let end = pool.end();
        let soon = Instant::now().checked_add(patience).map_or(end, |soon| soon.min(end));
        let place = match query.follow {
            true => places.for_following()?,
            false => places.for_reading(soon).await?,
        };
        pool.engine_is_there(soon).await?;
        let answer = pool.by(end, wire.get(&query.path(id, wire.terms().is_podman), Some(id))).await?;
        Ok(LogStream::new(answer.into_body(), wire.clone(), place))
    }

    /// Returns when an engine that was gone is back, and may never do so: for whoever waits before trying again what has
    /// failed with this.
    pub fn returned(&self, failure: &Error) -> impl Future<Output = ()> + Send + 'static {
        let (docker, was_shut) = (self.clone(), matches!(failure, Error::Unreachable { .. }));
        async move { docker.0.returns.next(was_shut).await }
    }

    /// The engine's events, which may not have begun yet ([`EventStream::has_begun`]). To be read without delay: a full queue
    /// of ours makes the engine slow for everybody, and then it drops what we did not take (moby `daemon/events/events.go`).
    pub async fn events(&self, query: &EventsQuery) -> Result<EventStream, Error> {
        let place = self.0.places.for_events()?;
        let Shared { pool, wire, .. } = &*self.0;
        pool.engine_is_there(pool.end()).await?;
        let is_podman = wire.terms().is_podman;
        let (way, path) = (Arc::clone(wire), query.path(is_podman));
        let answer = async move { way.get_patiently(&path).await };
        let mut stream = EventStream::awaiting(Box::pin(answer), wire.clone(), place);
        let soon = if is_podman { BEGUN_BY_PODMAN } else { BEGUN };
        match timeout(soon, stream.begun()).await {
            Ok(begun) => begun.map(|()| stream),
            Err(_) => Ok(stream),
        }
    }

    /// As [`Docker::events`] up to a time that is over by the engine's clock: they end at once, and take no place, so that
    /// they can be asked for beside a stream that has the last one.
    pub async fn past_events(&self, query: &EventsQuery) -> Result<EventStream, Error> {
        let Shared { pool, wire, .. } = &*self.0;
        let end = pool.end();
        pool.engine_is_there(end).await?;
        let answer = pool.by(end, wire.get(&query.path(wire.terms().is_podman), None)).await?;
        Ok(EventStream::new(answer.into_body(), wire.clone()))
    }
}

/// What the engine takes for a container. Anything else could reach another path.
fn is_reference(id: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match id.bytes().next() {
        Some(first) if first.is_ascii_alphanumeric() && id.bytes().all(plain) => Ok(()),
        _ => Err(Error::NotFound { message: format!("No such container: {id}") }),
    }
}

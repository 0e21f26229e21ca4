//! Client of the Docker Engine API: the few calls this program makes, in its own types.
//!
//! In: an [`Endpoint`]. Out: containers, logs and events. Called by [`crate::commands`]. Knows nothing of files,
//! positions or command lines. No other module speaks HTTP to a daemon.
//!
//! - [`endpoint`]: finds the daemon as docker's CLI does; `address` parses host addresses, `go_json` reads JSON as Go
//!   does
//! - `http`: HTTP over a unix socket, tcp, TLS (`tls`) or ssh (`ssh`); `body` limits the size of responses and decodes
//!   lists while they arrive
//! - `api`: requests in the negotiated [`version`] of the API; `negotiation` chooses it
//! - `operation`: the names of these calls
//! - `pool`: connections for all calls that are answered at once
//! - `streams`: log and event responses that stay open; `stream_permits` limits how many may be open
//! - `answers`: what the daemon reports about itself and about containers; `inventory`: containers with their mounts,
//!   and volumes
//! - [`event_decoder`]: decodes events
//! - [`backoff`]: how long to wait before a retry; `wait_for_daemon`: ends such a wait when the daemon is back
//!
//! Why not a library: bollard 0.21 sends no API version (its `Uri::parse` joins the path over the prefix), cuts `since`
//! to seconds, ends an event stream at an event type it does not know, and collects every body whole, however long it
//! is.

mod api;
pub(crate) mod backoff;
pub(crate) mod endpoint;
mod error;
pub(crate) mod event_decoder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod http;
mod inventory_listing;
mod negotiation;
mod operation;
mod pool;
mod responses;
mod stream_permits;
mod streams;
pub(crate) mod version;
mod wait_for_daemon;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::config;
use crate::metrics;
use crate::model::container::Container;
use crate::model::selector::Filters;

pub use endpoint::{Endpoint, Environment, Flags};
pub(crate) use error::{Cause, PoolLimit};
pub use error::{Error, Kind};
pub use event_decoder::Event;
pub(crate) use http::ssh::{SUBCOMMAND as SSH, become_ssh};
pub(crate) use operation::ApiOperation;
pub(crate) use pool::Check;
pub use pool::{BreakerState, ClientReport, HEALTHY, Snapshot, Spent};
pub(crate) use responses::{Details, Engine};
pub use streams::{EventStream, EventsQuery, LogStream, LogsQuery};
pub use version::Version;

use api::Api;
use http::bounded_body::Weigh;
use http::{Http, Timeouts};
use negotiation::Negotiated;
use pool::{Client, Pool};
use responses::{ListedContainer, NamedObject};
use stream_permits::StreamPermits;
use wait_for_daemon::DaemonWatch;

/// How long [`Docker::events`] waits for the response to begin. dockerd answers a request for events at once. Podman,
/// and proxies that wait for a body, answer only when the first event comes ...
const EVENTS_RESPONSE_WAIT: Duration = Duration::from_secs(2);
/// ... so with a known Podman the wait only has to be long enough for a refusal to arrive.
const EVENTS_RESPONSE_WAIT_PODMAN: Duration = Duration::from_millis(200);

/// A client of one Docker Engine. Clones share connections and the negotiated version.
#[derive(Clone)]
pub struct Docker(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    /// For calls that are answered at once.
    pool: Pool,
    /// For responses that stay open: each takes a connection of its own.
    api: Arc<Api>,
    /// Limits how many such responses are open at once.
    permits: StreamPermits,
    daemon_watch: DaemonWatch,
}

impl Docker {
    /// Connects and negotiates the API version, with the default configuration and without metrics.
    pub async fn connect(endpoint: Endpoint) -> Result<Docker, Error> {
        Docker::connect_with(endpoint, &config::DockerConfig::default(), metrics::PoolMetrics::default()).await
    }

    /// Connects and negotiates the API version. Does not retry, so that an unreachable daemon is reported at once.
    pub async fn connect_with(
        endpoint: Endpoint,
        config: &config::DockerConfig,
        metrics: metrics::PoolMetrics,
    ) -> Result<Docker, Error> {
        let docker = Docker::new(endpoint, config, metrics)?;
        docker.renegotiate().await?;
        Ok(docker)
    }

    /// A client that has not connected yet. Until [`Docker::renegotiate`] it assumes API 1.44, or the version in
    /// `DOCKER_API_VERSION`.
    pub fn new(
        endpoint: Endpoint,
        config: &config::DockerConfig,
        metrics: metrics::PoolMetrics,
    ) -> Result<Docker, Error> {
        let http = Http::new(&endpoint, Timeouts::of(&config.pool), metrics.clone())?;
        let api = Arc::new(Api::new(http, endpoint.pinned));
        let pool = Pool::new(api.sibling(), config.clone(), metrics);
        let permits = StreamPermits::new(config.pool.max_concurrent_streams);
        let daemon_watch = DaemonWatch::new(&endpoint);
        Ok(Docker(Arc::new(Inner { endpoint, pool, api, permits, daemon_watch })))
    }

    /// Negotiates the API version again. To be called after each lost connection, since a different daemon may be
    /// running now. Does not retry: the caller retries at its own pace.
    pub async fn renegotiate(&self) -> Result<(), Error> {
        let Inner { pool, endpoint, .. } = &*self.0;
        pool.within(pool.deadline(), pool.first().api.negotiate(endpoint.pinned)).await
    }

    /// Maintains the pool until the future is dropped: checks the health of clients, restores unhealthy ones and
    /// removes idle ones. To be run next to a command that lasts.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + 'static {
        let docker = self.clone();
        async move { docker.0.pool.upkeep(&docker.0.api).await }
    }

    /// Checks all clients now. A client that fails this single check is unhealthy.
    pub async fn check(&self) {
        self.check_within(self.0.pool.check_timeout()).await;
    }

    /// Like [`Docker::check`], with `limit` instead of the configured timeout.
    pub async fn check_within(&self, limit: Duration) {
        self.0.pool.check_all(&self.0.api, limit).await;
    }

    /// The current state of the pool.
    pub fn pool(&self) -> Snapshot {
        let (streams, max_streams) = self.0.permits.in_use();
        Snapshot { streams, max_streams, ..self.0.pool.snapshot() }
    }

    /// How many log streams may be open at once. If the limit for streams is above one, one of them is reserved for
    /// events.
    pub fn max_log_streams(&self) -> usize {
        self.0.permits.max_logs()
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The negotiated version of the API.
    pub fn api_version(&self) -> Version {
        self.0.api.negotiated().spoken
    }

    /// Whether the server is Podman, which offers Docker's API too.
    pub fn is_podman(&self) -> bool {
        self.0.api.negotiated().is_podman
    }

    pub async fn ping(&self) -> Result<(), Error> {
        self.ping_timed().await.0
    }

    /// Like [`Docker::ping`], with the times and retries of the call.
    pub async fn ping_timed(&self) -> (Result<(), Error>, Spent) {
        self.0.pool.call_timed(ApiOperation::Ping, |client| async move { client.api.ping().await }).await
    }

    /// Requests what the daemon is (`GET /info`).
    pub async fn info(&self) -> Result<Engine, Error> {
        let request = |client: Arc<Client>| async move { client.api.get_object(ApiOperation::Info, "/info").await };
        let info = self.0.pool.call(ApiOperation::Info, request).await?;
        let Negotiated { newest, is_podman, .. } = self.0.api.negotiated();
        Ok(Engine::from_info(info, newest, is_podman))
    }

    /// What is known of a daemon that refuses `GET /info`. Its ID is empty.
    pub fn unnamed(&self) -> Engine {
        let Negotiated { newest, is_podman, .. } = self.0.api.negotiated();
        Engine { api_version: newest.to_string(), is_podman, ..Engine::default() }
    }

    /// Like [`Docker::unnamed`], with its version and operating system from `GET /version`.
    pub async fn unnamed_with_version(&self) -> Result<Engine, Error> {
        let request =
            |client: Arc<Client>| async move { client.api.get_object(ApiOperation::Version, "/version").await };
        let responses::Release { version, os } = self.0.pool.call(ApiOperation::Version, request).await?;
        Ok(Engine { version, os, ..self.unnamed() })
    }

    /// The containers that match, stopped ones included, newest first. Never waits for a container's lock.
    pub async fn list(&self, filters: &Filters) -> Result<Vec<Container>, Error> {
        self.listed(filters, responses::listed).await
    }

    /// Like [`Docker::list`], but returns only IDs.
    pub async fn list_ids(&self, filters: &Filters) -> Result<Vec<String>, Error> {
        self.listed(filters, |entry| responses::listed(entry).map(|container| container.id)).await
    }

    /// Lists containers. `keep` converts each entry as it arrives.
    async fn listed<T: Weigh>(
        &self,
        filters: &Filters,
        keep: impl Fn(ListedContainer) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut path = "/containers/json?all=1".to_owned();
        if !filters.is_empty() {
            path = format!("{path}&filters={}", streams::encode_filters(filters));
        }
        let (path, keep) = (&path, &keep);
        let request = |client: Arc<Client>| async move {
            client.api.get_list(ApiOperation::ContainerList, path, None, keep).await
        };
        self.0.pool.call(ApiOperation::ContainerList, request).await
    }

    /// The names of all networks.
    pub async fn networks(&self) -> Result<Vec<String>, Error> {
        let request = |client: Arc<Client>| async move {
            client
                .api
                .get_list(ApiOperation::NetworkList, "/networks", None, |network: NamedObject| Ok(network.name))
                .await
        };
        self.0.pool.call(ApiOperation::NetworkList, request).await
    }

    /// The names of all volumes.
    pub async fn volumes(&self) -> Result<Vec<String>, Error> {
        self.listed_volumes(|volume: NamedObject| Ok(volume.name)).await
    }

    /// Lists volumes. `keep` converts each entry as it arrives.
    async fn listed_volumes<S: DeserializeOwned, T: Weigh>(
        &self,
        keep: impl Fn(S) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let keep = &keep;
        let request = |client: Arc<Client>| async move {
            client.api.get_list(ApiOperation::VolumeList, "/volumes", Some("Volumes"), keep).await
        };
        self.0.pool.call(ApiOperation::VolumeList, request).await
    }

    /// Inspects one container, by ID, prefix of an ID, or name. Waits while the daemon starts or stops that container.
    pub async fn inspect(&self, id: &str) -> Result<Details, Error> {
        check_reference(id)?;
        let path = &format!("/containers/{id}/json");
        let request =
            |client: Arc<Client>| async move { client.api.get_object(ApiOperation::ContainerInspect, path).await };
        Details::from_inspection(self.0.pool.call(ApiOperation::ContainerInspect, request).await?)
    }

    /// Opens a container's logs. Each line begins with its time; the stream is framed unless the container has a
    /// terminal. Does not retry: the caller knows best where to continue.
    pub async fn logs(&self, id: &str, query: &LogsQuery) -> Result<LogStream, Error> {
        self.logs_within(Duration::MAX, id, query).await
    }

    /// Like [`Docker::logs`], but waits at most `wait` for a stream permit and for an unreachable daemon.
    pub async fn logs_within(&self, wait: Duration, id: &str, query: &LogsQuery) -> Result<LogStream, Error> {
        check_reference(id)?;
        let Inner { pool, api, permits, .. } = &*self.0;
        let deadline = pool.deadline();
        let wait_until = Instant::now().checked_add(wait).map_or(deadline, |until| until.min(deadline));
        let permit = match query.follow {
            true => permits.for_following()?,
            false => permits.for_reading(wait_until).await?,
        };
        pool.wait_for_daemon(wait_until).await?;
        let path = query.path(id, api.negotiated().is_podman);
        let response = pool.within(deadline, api.get(&path, Some(id))).await?;
        Ok(LogStream::new(response.into_body(), api.clone(), permit))
    }

    /// Completes when a daemon that was gone is back, possibly never. Ends a wait before a retry early; `failure` is
    /// the error that the wait follows.
    pub fn wait_for_daemon(&self, failure: &Error) -> impl Future<Output = ()> + Send + 'static {
        let (docker, was_refused) = (self.clone(), matches!(failure, Error::Unreachable { .. }));
        async move { docker.0.daemon_watch.next(was_refused).await }
    }

    /// Opens a stream of events, whose response may not have begun yet ([`EventStream::has_begun`]).
    ///
    /// The caller must read without delay. A full socket buffer slows the daemon down for everybody, and then the
    /// daemon drops the events that were not read (moby `daemon/events/events.go`).
    pub async fn events(&self, query: &EventsQuery) -> Result<EventStream, Error> {
        let permit = self.0.permits.for_events()?;
        let Inner { pool, api, .. } = &*self.0;
        pool.wait_for_daemon(pool.deadline()).await?;
        let is_podman = api.negotiated().is_podman;
        let (request_api, path) = (Arc::clone(api), query.path(is_podman));
        let response = async move { request_api.get(&path, None).await };
        let mut stream = EventStream::awaiting(Box::pin(response), api.clone(), permit);
        let wait = if is_podman { EVENTS_RESPONSE_WAIT_PODMAN } else { EVENTS_RESPONSE_WAIT };
        match timeout(wait, stream.begun()).await {
            Ok(begun) => begun.map(|()| stream),
            Err(_) => Ok(stream),
        }
    }

    /// Like [`Docker::events`], for a query whose `until` is in the past by the daemon's clock. Such a stream ends at
    /// once, so it takes no permit and can be read next to a stream that holds the last one.
    pub async fn past_events(&self, query: &EventsQuery) -> Result<EventStream, Error> {
        let Inner { pool, api, .. } = &*self.0;
        let deadline = pool.deadline();
        pool.wait_for_daemon(deadline).await?;
        let response = pool.within(deadline, api.get(&query.path(api.negotiated().is_podman), None)).await?;
        Ok(EventStream::new(response.into_body(), api.clone()))
    }
}

/// Accepts what the daemon accepts as a container's ID or name. Any other text could lead to a different path.
fn check_reference(id: &str) -> Result<(), Error> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match id.bytes().next() {
        Some(first) if first.is_ascii_alphanumeric() && id.bytes().all(is_allowed) => Ok(()),
        _ => Err(Error::NotFound { message: format!("No such container: {id}") }),
    }
}

//! Talking to the Docker engine: the few calls we make, in our own types.
//!
//! In: an [`Endpoint`]. Out: containers, logs and events. Called by [`crate::engine`]. Knows nothing of files, of
//! positions, or of what a user asked to see. The only room that names a type of the client library.
//!
//! - [`endpoint`]: which engine, as docker's CLI finds it; `address` reads the forms of a host
//! - `transport`: HTTP over a unix socket, tcp, TLS (`tls`) or ssh (`ssh`)
//! - [`version`]: which version of the API to speak
//! - `answers`: what the engine tells of itself and of containers; `streams`: logs and events as they come
//! - [`events`]: one event
//! - [`backoff`]: how long to wait before trying again
//!
//! bollard 0.21 decodes what it fetches well, but sends no version (its `Uri::parse` joins the path over the prefix),
//! cuts `since` to seconds and ends an event stream at a type it does not know. So it works over our transport, which
//! puts the version before each path, and logs and events are our own requests.

mod address;
mod answers;
pub mod backoff;
pub mod endpoint;
mod error;
pub mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ssh;
mod streams;
mod tls;
mod transport;
pub mod version;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions,
};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};

use crate::container::Container;
use crate::selector::Filters;

pub use answers::{Details, Engine};
pub use endpoint::{Endpoint, Environment, Flags};
pub use error::{Cause, Error, Kind};
pub use events::Event;
pub use streams::{EventStream, EventsQuery, LogStream, LogsQuery};
pub use transport::Timeouts;
pub use version::Version;

use transport::Http;

/// A client of one engine. Clones share connections, the version spoken and the count of requests.
#[derive(Clone)]
pub struct Docker {
    endpoint: Arc<Endpoint>,
    wire: Arc<Wire>,
    /// Works over `wire`, too.
    typed: bollard::Docker,
}

/// The way to the engine, and what was agreed on with it.
struct Wire {
    http: Http,
    terms: RwLock<Terms>,
}

#[derive(Clone, Copy)]
struct Terms {
    spoken: Version,
    newest: Version,
    is_podman: bool,
}

impl Docker {
    /// Reaches the engine and agrees on a version.
    pub async fn connect(endpoint: Endpoint) -> Result<Docker, Error> {
        Docker::connect_with(endpoint, Timeouts::default()).await
    }

    /// As [`Docker::connect`].
    pub async fn connect_with(endpoint: Endpoint, timeouts: Timeouts) -> Result<Docker, Error> {
        let http = Http::new(&endpoint, timeouts)?;
        let terms = RwLock::new(negotiate(&http, endpoint.pinned).await?);
        let wire = Arc::new(Wire { http, terms });
        let typed = typed(wire.clone()).map_err(|e| Error::Protocol { what: "a client", source: e.into() })?;
        Ok(Docker { endpoint: Arc::new(endpoint), wire, typed })
    }

    /// Agrees on a version anew, for when the engine may have been replaced by another: after each lost connection.
    pub async fn renegotiate(&self) -> Result<(), Error> {
        let terms = negotiate(&self.wire.http, self.endpoint.pinned).await?;
        *self.wire.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        Ok(())
    }

    /// The engine it talks to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The version spoken.
    pub fn api_version(&self) -> Version {
        self.wire.terms().spoken
    }

    /// How many requests were sent so far, over all clones, those for connecting included.
    pub fn requests(&self) -> u64 {
        self.wire.http.requests()
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let answer = self.wire.get("/_ping", None).await?;
        self.wire.http.read(answer.into_body()).await.map(drop)
    }

    /// What the engine says of itself.
    pub async fn info(&self) -> Result<Engine, Error> {
        let said = self.ask("info", self.typed.info()).await?;
        let Terms { newest, is_podman, .. } = self.wire.terms();
        Ok(Engine::told(said, newest, is_podman))
    }

    /// The containers that match, running ones only unless `all`, newest first. Never waits for a container's lock.
    pub async fn list(&self, all: bool, filters: &Filters) -> Result<Vec<Container>, Error> {
        let filters: HashMap<_, _> = filters.clone().into_iter().collect();
        let options = ListContainersOptions { all, filters: Some(filters), ..Default::default() };
        let found = self.ask("the container list", self.typed.list_containers(Some(options))).await?;
        found.into_iter().map(answers::listed).collect()
    }

    /// The names of all networks.
    pub async fn networks(&self) -> Result<Vec<String>, Error> {
        let asked = self.typed.list_networks(None::<ListNetworksOptions>);
        let found = self.ask("the network list", asked).await?;
        Ok(found.into_iter().filter_map(|network| network.name).collect())
    }

    /// The names of all volumes.
    pub async fn volumes(&self) -> Result<Vec<String>, Error> {
        let asked = self.typed.list_volumes(None::<ListVolumesOptions>);
        let found = self.ask("the volume list", asked).await?;
        Ok(found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
    }

    /// All that is known of one container, by ID, prefix or name. Waits while the engine starts or stops it.
    pub async fn inspect(&self, id: &str) -> Result<Details, Error> {
        is_reference(id)?;
        let asked = self.typed.inspect_container(id, None::<InspectContainerOptions>);
        Details::told(self.ask("a container", asked).await?)
    }

    /// A container's logs with the time before each line, framed unless it has a terminal.
    pub async fn logs(&self, id: &str, query: &LogsQuery) -> Result<LogStream, Error> {
        is_reference(id)?;
        let answer = self.wire.get(&query.path(id), Some(id)).await?;
        Ok(LogStream::new(answer.into_body(), self.wire.clone()))
    }

    /// The engine's events. To be read without delay: a full queue of ours makes the engine slow for everybody, and
    /// then it drops what we did not take (moby `daemon/events/events.go`).
    pub async fn events(&self, query: &EventsQuery) -> Result<EventStream, Error> {
        let answer = self.wire.get(&query.path(self.wire.terms().is_podman), None).await?;
        Ok(EventStream::new(answer.into_body(), self.wire.clone()))
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        // The library's own limit ends at the headers.
        self.wire.http.within(call).await?.map_err(|error| self.wire.explain(what, error))
    }
}

impl Wire {
    fn terms(&self) -> Terms {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.terms().spoken)
    }

    async fn get(&self, path: &str, id: Option<&str>) -> Result<Response<Incoming>, Error> {
        self.http.get(&self.versioned(path), id).await
    }

    fn explain(&self, what: &'static str, error: bollard::errors::Error) -> Error {
        use bollard::errors::Error as Theirs;
        match error {
            Theirs::DockerResponseServerError { status_code, message } => {
                transport::refused(status_code, message.trim().to_owned(), None)
            }
            // Our transport's own error on its way through.
            Theirs::IOError { err } => match err.downcast::<Error>() {
                Ok(ours) => ours,
                Err(err) => self.http.broken(err.into()),
            },
            Theirs::HyperResponseError { err } => self.http.broken(err.into()),
            other => Error::Protocol { what, source: other.into() },
        }
    }
}

/// The client library over our transport. Its requests have no body: we only ask.
fn typed(wire: Arc<Wire>) -> Result<bollard::Docker, bollard::errors::Error> {
    /// Of the library, in seconds: never before ours.
    const LIMIT: u64 = 24 * 60 * 60;
    let transport = move |asked: bollard::BollardRequest| {
        let wire = wire.clone();
        async move {
            let path = asked.uri().path_and_query().map_or("/", |path| path.as_str());
            let answer = wire.http.send(asked.method().clone(), &wire.versioned(path)).await;
            answer.map_err(|ours| std::io::Error::other(ours).into())
        }
    };
    let (address, version) = (Some("http://localhost"), bollard::API_DEFAULT_VERSION);
    bollard::Docker::connect_with_custom_transport(transport, address, LIMIT, version)
}

/// Asks without a version what the engine's newest is, then whether it still takes ours: the minimum is not told here,
/// and a refusal does come with status 400.
async fn negotiate(http: &Http, pinned: Option<Version>) -> Result<Terms, Error> {
    let headers = greet(http).await?;
    let newest = newest(&headers)?;
    let is_podman = headers.contains_key("libpod-api-version");
    let wanted = match pinned {
        Some(pinned) => pinned,
        None => version::choose(newest, None)?,
    };
    if wanted == newest {
        return Ok(Terms { spoken: wanted, newest, is_podman });
    }
    let spoken = match http.get(&format!("/v{wanted}/_ping"), None).await {
        Err(Error::TooNew { engine, .. }) if pinned.is_none() => version::choose(newest, Some(engine))?,
        Err(error) => return Err(error),
        Ok(answer) => http.read(answer.into_body()).await.map(|_| wanted)?,
    };
    Ok(Terms { spoken, newest, is_podman })
}

/// The headers of `/_ping`. Engines before 19.03 know only GET there.
async fn greet(http: &Http) -> Result<HeaderMap, Error> {
    let answer = http.send(Method::HEAD, "/_ping").await?;
    if answer.status() == StatusCode::OK {
        return Ok(answer.headers().clone());
    }
    let answer = http.get("/_ping", None).await?;
    let headers = answer.headers().clone();
    http.read(answer.into_body()).await.map(|_| headers)
}

/// Without the header it is an engine from before it, or none at all: docker's CLI takes it for 1.24.
fn newest(headers: &HeaderMap) -> Result<Version, Error> {
    let Some(told) = headers.get("api-version") else { return Ok(version::OLDEST) };
    let told = String::from_utf8_lossy(told.as_bytes());
    let bad = || Error::Protocol { what: "its API version", source: format!("\"{told}\" is no version").into() };
    told.parse().map_err(|()| bad())
}

/// What the engine takes for a container. Anything else could reach another path.
fn is_reference(id: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match id.bytes().next() {
        Some(first) if first.is_ascii_alphanumeric() && id.bytes().all(plain) => Ok(()),
        _ => Err(Error::NotFound { message: format!("No such container: {id}") }),
    }
}

//! HTTP/1.1 requests to a daemon.
//!
//! In: an [`Endpoint`] and paths. Out: responses whose body is still to be read. Called by [`super::api`]. Knows
//! nothing of what the paths mean.
//!
//! - `connect`: opens connections, over `tcp`, `tls`, `proxy` or [`ssh`]; `connections` keeps them for further requests
//! - [`bounded_body`]: limits for bodies, and lists that are decoded while they arrive
//! - `refusal`: what an error response means
//!
//! Requests have no timeout of their own: each call has one deadline, which its caller enforces ([`super::pool`]).
//!
//! A response that stays open occupies its connection, so streams use an `Http` of their own.

pub(crate) mod bounded_body;
mod connect;
mod connections;
mod error_response;
mod proxy;
pub(crate) mod ssh;
mod tcp;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, Response, Uri};

use crate::{config, metrics};

use super::endpoint::Endpoint;
use super::error::find;
use super::{ApiOperation, Cause, Error};
use connect::{Link, Target, Transport};
use connections::{Connections, HttpConnection};
use error_response::{error_response, request_name};

#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For opening a connection, TLS handshake included. ssh has a timeout of its own.
    connect: Duration,
    /// For the body of an error response, which a request without a deadline may have too.
    error_body: Duration,
    /// How long an unused connection is kept.
    idle: Duration,
}

impl Timeouts {
    pub(super) fn of(config: &config::PoolConfig) -> Timeouts {
        Timeouts { connect: config.connection_timeout, error_body: config.request_timeout, idle: config.idle_timeout }
    }
}

/// Limit for the bodies of pings, versions and error responses, in bytes.
const MAX_SHORT_BODY: usize = 64 << 10;

/// Sends requests to one daemon.
pub(super) struct Http {
    connections: Arc<Connections>,
    shared: Arc<Shared>,
}

/// What all siblings have in common.
struct Shared {
    transport: Arc<Transport>,
    base: String,
    headers: HeaderMap,
    timeouts: Timeouts,
    /// The address as messages show it.
    endpoint: String,
    metrics: metrics::PoolMetrics,
}

impl Http {
    /// An `Http` that keeps any number of connections.
    pub(super) fn new(endpoint: &Endpoint, timeouts: Timeouts, metrics: metrics::PoolMetrics) -> Result<Http, Error> {
        let Target { transport, base, host } = Target::of(endpoint)?;
        let mut headers = endpoint.headers.clone();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("docker-logwatch/", env!("CARGO_PKG_VERSION"))));
        headers.entry(HOST).or_insert(host);
        if let Some(auth) = transport.proxy_authorization() {
            headers.insert(PROXY_AUTHORIZATION, auth.clone());
        }
        let (endpoint, transport) = (endpoint.to_string(), Arc::new(transport));
        let shared = Shared { transport, base, headers, timeouts, endpoint, metrics };
        Ok(Http::with_limit(Arc::new(shared), usize::MAX))
    }

    /// Another `Http` to the same daemon, which keeps at most one connection.
    pub(super) fn sibling(&self) -> Http {
        Http::with_limit(Arc::clone(&self.shared), 1)
    }

    fn with_limit(shared: Arc<Shared>, limit: usize) -> Http {
        Http { connections: Connections::new(limit, shared.timeouts.idle), shared }
    }

    /// The error for a response that did not come in time. Counts as a failure in the metrics.
    pub(super) fn timed_out(&self, after: Duration) -> Error {
        self.shared.metrics.failed();
        Error::Timeout { endpoint: self.shared.endpoint.clone(), after }
    }

    /// Sends a request. `path` begins with a slash and includes the query. A response of any status is `Ok`.
    pub(super) async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
        let uri = Uri::try_from(format!("{}{path}", self.shared.base)).map_err(|e| self.connection_lost(e.into()))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.shared.headers.clone();
        loop {
            let kept = self.connections.take();
            let is_reused = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.send(request).await {
                Ok(response) => {
                    self.connections.keep(connection);
                    return Ok(response);
                }
                Err(mut failed) => match failed.take_message().filter(|_| is_reused) {
                    // The daemon closed the connection before it took the request.
                    Some(unsent) => request = unsent,
                    None => return Err(self.failed(failed.into_error().into(), Stage::Request)),
                },
            }
        }
    }

    async fn connect(&self) -> Result<HttpConnection, Error> {
        let Shared { transport, timeouts, metrics, .. } = &*self.shared;
        let link = Link::open(transport, timeouts.connect, metrics).await;
        let link = link.map_err(|error| self.failed(error.into(), Stage::Connect))?;
        self.connections.start(link).await.map_err(|error| self.failed(error.into(), Stage::Request))
    }

    /// Requests `path`. A status other than success is an error. `id` is the container, if its logs are requested.
    pub(super) async fn get(&self, path: &str, id: Option<&str>) -> Result<Response<Incoming>, Error> {
        let response = self.send(Method::GET, path).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        // The status is an error even if its body cannot be read.
        let body = self.read_short(response.into_body(), ApiOperation::Logs);
        let body = tokio::time::timeout(self.shared.timeouts.error_body, body).await;
        let body = body.unwrap_or_else(|_| Err(self.timed_out(self.shared.timeouts.error_body))).unwrap_or_default();
        Err(error_response(&request_name(&Method::GET, path), status, &body, id))
    }

    /// Reads a whole body of at most [`MAX_SHORT_BODY`] bytes.
    pub(super) async fn read_short(&self, body: Incoming, operation: ApiOperation) -> Result<Vec<u8>, Error> {
        self.read(body, operation, MAX_SHORT_BODY).await
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(super) async fn read(
        &self,
        mut body: Incoming,
        operation: ApiOperation,
        limit: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next(&mut body).await? {
            if whole.len() + piece.len() > limit {
                return Err(Error::TooLarge { operation, limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// The next piece of a body; `None` at its end.
    pub(super) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = body.frame().await {
            // A frame without data contains trailers, which have no meaning here.
            if let Ok(piece) = frame.map_err(|error| self.connection_lost(error.into()))?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// The error for a lost connection. Counts as a failure in the metrics.
    pub(super) fn connection_lost(&self, source: Cause) -> Error {
        self.shared.metrics.failed();
        Error::Broken { endpoint: self.shared.endpoint.clone(), source }
    }

    /// The error for a transport failure. Counts as a failure in the metrics.
    fn failed(&self, error: Cause, stage: Stage) -> Error {
        self.shared.metrics.failed();
        let endpoint = self.shared.endpoint.clone();
        let is_tls = find::<rustls::Error>(&*error).is_some();
        let is_ssh = find::<ssh::SshError>(&*error).is_some();
        // For tcp, permission is denied by a firewall, where changing the socket's group does not help.
        let is_denied = endpoint.starts_with("unix:")
            && find::<io::Error>(&*error).is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
        let source = root_cause(error, stage);
        match (is_tls, is_ssh, stage) {
            (true, ..) => Error::Tls { endpoint, source },
            (_, true, _) => Error::Unreachable { endpoint, source },
            (.., Stage::Connect) if is_denied => Error::Forbidden { endpoint, source },
            (.., Stage::Connect) => Error::Unreachable { endpoint, source },
            (.., Stage::Request) => Error::Broken { endpoint, source },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Opening a connection.
    Connect,
    /// A request over an open connection.
    Request,
}

/// The first cause below hyper's own errors that can be owned, else the whole chain. Hyper's text adds nothing to ours.
fn root_cause(error: Cause, stage: Stage) -> Cause {
    if let Some(inner) = find::<rustls::Error>(&*error) {
        return inner.clone().into();
    }
    if let Some(ssh::SshError(message)) = find::<ssh::SshError>(&*error) {
        return ssh::SshError(message.clone()).into();
    }
    match find::<io::Error>(&*error).map(|inner| (inner.raw_os_error(), inner)) {
        Some((Some(code), _)) => io::Error::from_raw_os_error(code).into(),
        Some((None, inner)) if stage == Stage::Connect => io::Error::new(inner.kind(), inner.to_string()).into(),
        _ => error,
    }
}

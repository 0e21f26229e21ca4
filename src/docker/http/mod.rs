//! HTTP/1.1 to an engine: connections, and requests over them.
//!
//! In: an [`Endpoint`] and paths. Out: responses whose body is still to be read. Called by [`super::DockerConfig`]. Knows
//! nothing of what the paths mean.
//! Idle connections are kept and used again; a long answer holds the one it came on, so streams have their own. The
//! connections are opened in [`Route::open`]. A proxy is honoured for tcp, as docker's CLI does
//! (docker/go-connections `sockets`: ConfigureTransport), never for this machine (Go's `httpproxy`: useProxy).
//! Engines ignore the Host header on a unix socket, but HTTP/1.1 without one is answered 400.

pub(crate) mod body;
pub(crate) mod ssh;
mod tls;

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::{config, metrics};

use super::Error;
use super::endpoint::address::{Address, Ssh, authority};
use super::endpoint::{Endpoint, Proxies};
use super::error::find;

/// How long we wait for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For a connection, TLS handshake included. Not for ssh, which has a limit of its own.
    connect: Duration,
    /// For a whole answer; of a stream, for its beginning.
    pub(super) request: Duration,
    /// How long an unused connection is kept.
    idle: Duration,
}

impl Timeouts {
    pub(super) fn of(config: &config::PoolConfig) -> Timeouts {
        Timeouts { connect: config.connection_timeout, request: config.request_timeout, idle: config.idle_timeout }
    }
}

/// Pings and refusals are shorter than this.
const SHORT: usize = 64 << 10;

/// So much of a refusal is shown.
const WORDS: usize = 1024;

/// A connection's buffer grows to this while much arrives. Hyper's own bound, 400 KiB, is too much for each of hundreds
/// of log streams.
const READ: usize = 64 << 10;

/// Sends requests to one engine.
pub(super) struct Http {
    client: Client<Connector, Empty<Bytes>>,
    way: Arc<Way>,
}

/// What all who go to one engine share.
struct Way {
    route: Route,
    /// `http://localhost` and whatever goes before every path.
    base: String,
    headers: HeaderMap,
    timeouts: Timeouts,
    /// For messages.
    endpoint: String,
    requests: AtomicU64,
    metrics: metrics::PoolMetrics,
}

impl Http {
    /// With as many connections as are wanted at one time.
    pub(super) fn new(endpoint: &Endpoint, timeouts: Timeouts, metrics: metrics::PoolMetrics) -> Result<Http, Error> {
        let (route, base) = Route::to(endpoint)?;
        let mut headers = endpoint.headers.clone();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("docker-logwatch/", env!("CARGO_PKG_VERSION"))));
        if let Route::Tcp { via: Some(Via { auth: Some(auth), .. }), tls: None, .. } = &route {
            headers.insert(PROXY_AUTHORIZATION, auth.clone());
        }
        let (endpoint, requests) = (endpoint.to_string(), AtomicU64::new(0));
        Ok(Http::over(Arc::new(Way { route, base, headers, timeouts, endpoint, requests, metrics }), usize::MAX))
    }

    /// Another to the same engine, which keeps one connection.
    pub(super) fn beside(&self) -> Http {
        Http::over(Arc::clone(&self.way), 1)
    }

    fn over(way: Arc<Way>, kept: usize) -> Http {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(way.timeouts.idle)
            .pool_max_idle_per_host(kept)
            .http1_max_buf_size(READ)
            .build(Connector { way: Arc::clone(&way) });
        Http { client, way }
    }

    /// An answer did not come in time.
    pub(super) fn late(&self, after: Duration) -> Error {
        self.way.metrics.failed();
        Error::Timeout { endpoint: self.way.endpoint.clone(), after }
    }

    /// Asks for `path`, which begins with a slash and holds the query. Any status is an answer.
    pub(super) async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
        self.within(self.ask(method, path)).await?
    }

    /// As [`Http::send`], however long it takes from the connection to the beginning of the answer.
    async fn ask(&self, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
        let uri = Uri::try_from(format!("{}{path}", self.way.base)).map_err(|e| self.broken(e.into()))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.way.headers.clone();
        self.way.requests.fetch_add(1, Ordering::Relaxed);
        self.client.request(request).await.map_err(|error| {
            self.way.metrics.failed();
            self.explain(error)
        })
    }

    /// Asks for `path`; whatever is not a success is an error. `id` is whose logs, if it is about logs.
    pub(super) async fn get(&self, path: &str, id: Option<&str>) -> Result<Response<Incoming>, Error> {
        let answer = self.send(Method::GET, path).await?;
        self.granted(answer, path, id).await
    }

    /// As [`Http::get`], for an answer that need not begin before there is something to say.
    pub(super) async fn get_patiently(&self, path: &str) -> Result<Response<Incoming>, Error> {
        let answer = self.ask(Method::GET, path).await?;
        self.granted(answer, path, None).await
    }

    async fn granted(
        &self,
        answer: Response<Incoming>,
        path: &str,
        id: Option<&str>,
    ) -> Result<Response<Incoming>, Error> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        // Without its words a refusal is still one.
        let body = self.read_short(answer.into_body(), "a refusal").await.unwrap_or_default();
        Err(refusal(&named(&Method::GET, path), status, &body, id))
    }

    /// Waits no longer than for any request.
    pub(super) async fn within<T>(&self, answer: impl Future<Output = T>) -> Result<T, Error> {
        let after = self.way.timeouts.request;
        tokio::time::timeout(after, answer).await.map_err(|_| self.late(after))
    }

    /// The whole of an answer that is known to be short.
    pub(super) async fn read_short(&self, body: Incoming, what: &'static str) -> Result<Vec<u8>, Error> {
        self.within(self.read(body, what, SHORT)).await?
    }

    /// The whole of an answer, which may have so many bytes. Waits for it as long as it takes.
    pub(super) async fn read(&self, mut body: Incoming, what: &'static str, limit: usize) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next(&mut body).await? {
            if whole.len() + piece.len() > limit {
                return Err(Error::TooLarge { what, limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// The next piece of an answer; `None` at its end.
    pub(super) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = body.frame().await {
            // What is no data are trailers, which say nothing.
            if let Ok(piece) = frame.map_err(|error| self.broken(error.into()))?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// How many requests were sent, repetitions by the client on a stale connection not counted.
    pub(super) fn requests(&self) -> u64 {
        self.way.requests.load(Ordering::Relaxed)
    }

    /// A connection was lost.
    pub(super) fn broken(&self, source: super::Cause) -> Error {
        self.way.metrics.failed();
        Error::Broken { endpoint: self.way.endpoint.clone(), source }
    }

    /// A failure of the transport, by what a caller can do about it.
    fn explain(&self, error: legacy::Error) -> Error {
        let endpoint = self.way.endpoint.clone();
        let of_tls = find::<rustls::Error>(&error).is_some();
        let of_ssh = find::<ssh::Failed>(&error).is_some();
        // On tcp it is a firewall that denies, which no change of the socket's group will help.
        let denied = endpoint.starts_with("unix:")
            && find::<io::Error>(&error).is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
        let connecting = error.is_connect();
        // What hyper adds says nothing that our own line does not.
        let source = cause(error);
        match (of_tls, of_ssh, connecting) {
            (true, ..) => Error::Tls { endpoint, source },
            (_, true, _) => Error::Unreachable { endpoint, source },
            (.., true) if denied => Error::Forbidden { endpoint, source },
            (.., true) => Error::Unreachable { endpoint, source },
            _ => Error::Broken { endpoint, source },
        }
    }
}

/// The nearest cause below hyper's own wrappings that can be owned, else the whole chain.
fn cause(error: legacy::Error) -> super::Cause {
    if let Some(inner) = find::<rustls::Error>(&error) {
        return inner.clone().into();
    }
    if let Some(ssh::Failed(words)) = find::<ssh::Failed>(&error) {
        return ssh::Failed(words.clone()).into();
    }
    match find::<io::Error>(&error).map(|inner| (inner.raw_os_error(), inner)) {
        Some((Some(code), _)) => io::Error::from_raw_os_error(code).into(),
        Some((None, inner)) if error.is_connect() => io::Error::new(inner.kind(), inner.to_string()).into(),
        _ => error.into(),
    }
}

/// What a refusal means. The engine puts its words into `{"message":…}`; what stands before it may answer anything.
pub(super) fn refusal(request: &str, status: StatusCode, body: &[u8], id: Option<&str>) -> Error {
    #[derive(serde::Deserialize)]
    struct Words {
        message: String,
    }
    let words = serde_json::from_slice::<Words>(body).map(|words| words.message);
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    let (code, request) = (status.as_u16(), request.to_owned());
    match code {
        401 | 403 | 405 | 407 => {
            let words = words.unwrap_or_else(|_| permission(&request));
            return Error::Refused { request, code, words };
        }
        404 if !is_json => {
            let words = permission(&request);
            return Error::Refused { request, code, words };
        }
        _ if body.trim_ascii_start().starts_with(b"<") => {
            let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
            return Error::Gateway { request, code, reason };
        }
        _ => {}
    }
    let message = words.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned()).trim().to_owned();
    refused(code, message, id)
}

/// A request as people know it, without the version and what is asked in particular.
fn named(method: &Method, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let rest = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|slash| (&rest[..slash], &rest[slash..])));
    match rest {
        Some((version, rest)) if version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            format!("{method} {rest}")
        }
        _ => format!("{method} {path}"),
    }
}

/// What to allow, in the words of the usual socket proxies, which have a variable for each first part of a path.
fn permission(request: &str) -> String {
    let part = request.split('/').nth(1).unwrap_or_default().trim_start_matches('_');
    format!("allow it ({}=1)", part.to_ascii_uppercase())
}

/// As [`refusal`], from the engine's words. They are shown to a user, so a page of a proxy is cut.
fn refused(code: u16, mut message: String, id: Option<&str>) -> Error {
    if message.len() > WORDS {
        let end = (0..=WORDS).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        message.push_str(" ...");
    }
    let message = match StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) if message.is_empty() => reason.to_owned(),
        _ => message,
    };
    match (code, id) {
        (404, _) => Error::NotFound { message },
        (409, _) => Error::Conflict { message },
        (501, Some(id)) => Error::NoLogs { id: id.to_owned(), message },
        (400, _) => wrong_version(&message).unwrap_or(Error::Status { code, message }),
        _ => Error::Status { code, message },
    }
}

/// `client version 1.99 is too new. Maximum supported API version is 1.41` and its opposite
/// (moby `api/server/middleware/version.go`).
fn wrong_version(message: &str) -> Option<Error> {
    let (wanted, rest) = message.strip_prefix("client version ")?.split_once(" is too ")?;
    let (_, engine) = rest.split_once("supported API version is ")?;
    let engine = engine.split([',', ' ', ';']).next()?.parse().ok()?;
    let wanted = wanted.parse().ok()?;
    if rest.starts_with("new") {
        Some(Error::TooOld { engine, wanted })
    } else {
        Some(Error::TooNew { engine, wanted })
    }
}

/// How connections to one engine are made.
enum Route {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<(TlsConnector, ServerName<'static>)>, via: Option<Via> },
    Ssh { to: Ssh, path: Option<OsString>, program: Option<PathBuf> },
}

/// An HTTP proxy.
#[derive(Clone)]
struct Via {
    proxy: Uri,
    auth: Option<HeaderValue>,
}

impl Route {
    /// The route, and what stands before every path in a request's address.
    fn to(endpoint: &Endpoint) -> Result<(Route, String), Error> {
        let name = endpoint.to_string();
        match &endpoint.address {
            Address::Unix(path) => Ok((Route::Unix(path.clone()), "http://localhost".to_owned())),
            Address::Ssh(to) => {
                let (path, program) = (endpoint.path.clone(), endpoint.program.clone());
                let route = Route::Ssh { to: to.clone(), path, program };
                Ok((route, "http://localhost".to_owned()))
            }
            Address::Tcp { host, port, prefix } => {
                let scheme = if endpoint.tls.is_some() { "https" } else { "http" };
                let base = format!("{scheme}://{}", authority(host, *port));
                let bad = |reason| Error::BadHost { host: name.clone(), reason };
                let uri = Uri::try_from(&base).map_err(|_| bad("it makes no URL"))?;
                let via = via(&endpoint.proxies, host, &uri)?;
                let server = || ServerName::try_from(host.clone()).map_err(|_| bad("TLS needs a name or an address"));
                let tls = match &endpoint.tls {
                    Some(settings) => Some((tls::connector(settings, &name)?, server()?)),
                    None => None,
                };
                Ok((Route::Tcp { host: host.clone(), port: *port, tls, via }, format!("{base}{prefix}")))
            }
        }
    }

    /// The connection, and whether its other end is a proxy that wants to see the whole address.
    async fn open(&self, uri: Uri) -> io::Result<(Box<dyn Duplex>, bool)> {
        let stream: Box<dyn Duplex> = match self {
            Route::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Route::Ssh { to, path, program } => Box::new(ssh::open(to, path.as_deref(), program.as_deref())?),
            Route::Tcp { host, port, tls: None, via: None } => Box::new(dial(host, *port).await?),
            Route::Tcp { tls: None, via: Some(via), .. } => {
                let io = Box::new(dial_proxy(&via.proxy).await?);
                return Ok((io, true));
            }
            Route::Tcp { host, port, tls: Some((tls, server)), via } => {
                let stream = match via {
                    Some(via) => tunnel(via, uri).await?,
                    None => dial(host, *port).await?,
                };
                Box::new(tls.connect(server.clone(), stream).await?)
            }
        };
        Ok((stream, false))
    }
}

/// The proxy to go through, if any.
fn via(proxies: &Proxies, host: &str, uri: &Uri) -> Result<Option<Via>, Error> {
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let matcher =
        Matcher::builder().http(proxies.http.clone()).https(proxies.https.clone()).no(proxies.no.clone()).build();
    let Some(found) = matcher.intercept(uri).filter(|_| !here) else { return Ok(None) };
    let proxy = found.uri().clone();
    match proxy.scheme_str() {
        Some("http") => Ok(Some(Via { proxy, auth: found.basic_auth().cloned() })),
        _ => Err(Error::BadProxy { proxy: proxy.to_string() }),
    }
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    // A log stream may be silent for days. Without probes we would not notice that the other machine is gone.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(&stream, 3)?;
    Ok(stream)
}

async fn dial_proxy(proxy: &Uri) -> io::Result<TcpStream> {
    let host = proxy.host().unwrap_or_default().trim_matches(['[', ']']);
    dial(host, proxy.port_u16().unwrap_or(80)).await
}

async fn tunnel(via: &Via, to: Uri) -> io::Result<TcpStream> {
    let stream = dial_proxy(&via.proxy).await?;
    let tunnel = Tunnel::new(via.proxy.clone(), Ready(Some(TokioIo::new(stream))));
    let mut tunnel = match &via.auth {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    };
    tunnel.call(to).await.map(TokioIo::into_inner).map_err(io::Error::other)
}

/// Hands over the connection that is already there: [`Tunnel`] wants to make its own.
struct Ready(Option<TokioIo<TcpStream>>);

impl Service<Uri> for Ready {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// Opens connections for the client's pool.
#[derive(Clone)]
struct Connector {
    way: Arc<Way>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { way } = self.clone();
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            let (io, proxied) =
                tokio::time::timeout(way.timeouts.connect, way.route.open(uri)).await.map_err(late)??;
            way.metrics.opened();
            Ok(TokioIo::new(Link { io, proxied, opened: Instant::now(), metrics: way.metrics.clone() }))
        })
    }
}

/// One connection, of whatever kind.
struct Link {
    io: Box<dyn Duplex>,
    /// The other end is a proxy that wants to see the whole address.
    proxied: bool,
    opened: Instant,
    metrics: metrics::PoolMetrics,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.metrics.closed(self.opened.elapsed());
    }
}

/// What every connection can do. A trait object, as nothing above needs to tell the four kinds apart again.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_what_can_be_done() {
        for (code, body, id, line) in [
            (404, r#"{"message":"No such container: x"}"#, None, "No such container: x"),
            (409, r#"{"message":"marked for removal"}"#, Some("x"), "marked for removal"),
            (501, r#"{"message":"no reading"}"#, Some("x"), "the engine cannot read the logs of x: no reading"),
            (501, "", None, "the engine answered 501: Not Implemented"),
            (500, "oh", None, "the engine answered 500: oh"),
            (
                403,
                r#"{"message":"plugin says no"}"#,
                None,
                "the engine or a proxy before it refuses GET /info (403): plugin says no",
            ),
            (403, "<html>\n", None, "the engine or a proxy before it refuses GET /info (403): allow it (INFO=1)"),
            (403, "", None, "the engine or a proxy before it refuses GET /info (403): allow it (INFO=1)"),
            (404, "<html>\n", None, "the engine or a proxy before it refuses GET /info (404): allow it (INFO=1)"),
            (405, "no", None, "the engine or a proxy before it refuses GET /info (405): allow it (INFO=1)"),
            (502, " <html>\n", None, "the engine or a proxy before it answers GET /info with 502 Bad Gateway"),
            (599, "<html>\n", None, "the engine or a proxy before it answers GET /info with 599"),
            (400, r#"{"message":"bad filter"}"#, None, "the engine answered 400: bad filter"),
            (
                400,
                r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.41"}"#,
                None,
                "the engine speaks API 1.41 at most and 1.99 is needed: it is too old",
            ),
            (
                400,
                r#"{"message":"client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version"}"#,
                None,
                "the engine takes API 1.44 at least and 1.41 was to be spoken: it is too new",
            ),
        ] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(refusal("GET /info", status, body.as_bytes(), id).to_string(), line);
        }
    }

    /// A refused request is named without what is particular to it, and with the permission that a proxy has for it.
    #[test]
    fn a_request_is_named_with_the_permission_it_needs() {
        for (path, name, advice) in [
            ("/_ping", "GET /_ping", "allow it (PING=1)"),
            ("/v1.41/_ping", "GET /_ping", "allow it (PING=1)"),
            ("/v1.44/containers/json?all=1", "GET /containers/json", "allow it (CONTAINERS=1)"),
            ("/v1.44/containers/4ac9/logs?tail=1", "GET /containers/4ac9/logs", "allow it (CONTAINERS=1)"),
            ("/v1.44/events?filters=%7B%7D", "GET /events", "allow it (EVENTS=1)"),
            ("/volumes", "GET /volumes", "allow it (VOLUMES=1)"),
            ("/version", "GET /version", "allow it (VERSION=1)"),
        ] {
            let request = named(&Method::GET, path);
            assert_eq!((request.as_str(), permission(&request).as_str()), (name, advice), "{path}");
        }
    }

    #[test]
    fn a_proxy_is_used_for_other_machines_only() {
        let proxies = Proxies {
            http: "proxy:3128".to_owned(),
            https: "http://me:secret@proxy".to_owned(),
            no: "near.example, 10.0.0.0/8".to_owned(),
        };
        for (host, scheme, through) in [
            ("far.example", "http", Some("http://proxy:3128/")),
            ("far.example", "https", Some("http://proxy/")),
            ("near.example", "http", None),
            ("10.1.2.3", "https", None),
            ("localhost", "http", None),
            ("127.0.0.1", "http", None),
        ] {
            let uri = Uri::try_from(format!("{scheme}://{host}:2375")).unwrap();
            let found = via(&proxies, host, &uri).unwrap();
            assert_eq!(found.map(|via| via.proxy.to_string()).as_deref(), through, "{scheme} {host}");
        }
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_and_its_password_not_told() {
        let proxies = Proxies { http: "socks5://me:secret@proxy:1080".to_owned(), ..Proxies::default() };
        let refused = via(&proxies, "far.example", &Uri::from_static("http://far.example:2375"));
        let line = refused.err().unwrap().to_string();
        assert_eq!(line, "invalid proxy \"socks5://proxy:1080/\": only http:// proxies are supported");
    }
}

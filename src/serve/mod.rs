//! Serves metrics and health over HTTP (`--listen`).
//!
//! The server binds one address and answers `GET` and `HEAD` only. Before each response it asks `watch` to update its
//! gauges. Clients are untrusted: a connection serves one request, has a few seconds for it, and may send only a small
//! head. If there are too many connections, the oldest is closed, so that idle ones do not lock out others.
//! `host_header` protects against web pages that reach the server under a host name of their own (DNS rebinding).

mod host_header;

use crate::model::health::{EventsHealth, Health, Reconciliations, SharedHealth, Status};
use crate::model::time::Timestamp;
use bytes::Bytes;
use host_header::AllowedHosts;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// The most connections at one time.
const MAX_CONNECTIONS: usize = 64;
/// Time limit for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a request's head in bytes.
const MAX_HEAD_SIZE: usize = 16 * 1024;
/// Time limit for updating the gauges; after that, their last values are served.
const UPDATE_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after a connection could not be accepted, for example for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub(crate) struct Error {
    /// The address as the user wrote it.
    pub address: String,
    pub source: io::Error,
}

/// The sources of everything that is served.
#[derive(Clone)]
pub(crate) struct StatusSource {
    pub registry: Registry,
    pub health: SharedHealth,
    /// Requests an update of the gauges that are computed on demand. The reply may never arrive.
    pub updates: mpsc::Sender<oneshot::Sender<()>>,
}

/// A server that is bound to its address.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    has_chosen_port: bool,
    hosts: AllowedHosts,
}

impl Server {
    /// Binds `host:port`. If the host name has several addresses, binds the first one that is available.
    pub(crate) async fn bind(requested: &str) -> Result<Server, Error> {
        let failed = |source| Error { address: requested.to_owned(), source };
        let listener = TcpListener::bind(requested).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let has_chosen_port = requested.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0));
        let hosts = AllowedHosts::of(requested, address);
        Ok(Server { listener, address, has_chosen_port, hosts })
    }

    /// Whether port 0 was requested, so that the system chose the port.
    pub(crate) fn has_chosen_port(&self) -> bool {
        self.has_chosen_port
    }

    /// The address of the server, with the actual port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests. Dropping the future closes all connections.
    pub(crate) async fn run(self, source: StatusSource) {
        let mut connections = JoinSet::new();
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        open.retain(|connection| !connection.is_finished());
                        if open.len() >= MAX_CONNECTIONS && let Some(oldest) = open.pop_front() {
                            oldest.abort();
                        }
                        open.push_back(connections.spawn(serve_connection(socket, source.clone(), self.hosts.clone())));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Serves the single request of a connection.
async fn serve_connection(socket: TcpStream, source: StatusSource, hosts: AllowedHosts) {
    let service = service_fn(move |request| {
        let (source, hosts) = (source.clone(), hosts.clone());
        async move { Ok::<_, Infallible>(answer(&request, &source, &hosts).await) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_SIZE);
    // Errors of a client are not reported.
    let _ = timeout(CONNECTION_TIMEOUT, server.serve_connection(TokioIo::new(socket), service)).await;
}

async fn answer<B>(request: &Request<B>, source: &StatusSource, hosts: &AllowedHosts) -> Response<Full<Bytes>> {
    if let Err((code, reason)) = hosts.check(request) {
        return text(code, "text/plain; charset=utf-8", reason);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal =
            text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD are supported\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => metrics(source).await,
        "/api/v1/health" => {
            update_gauges(source).await;
            let (health, now) = (source.health.read(), Instant::now());
            health_response(health.status(now), &health_body(&health, now, Timestamp::now()))
        }
        "/api/v1/health/events" => {
            update_gauges(source).await;
            let (events, now) = (source.health.read().events, Instant::now());
            health_response(events.status(now), &events_body(&events, now))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "not found: available are /metrics, /api/v1/health and /api/v1/health/events\n",
        ),
    }
}

/// Requests an update of the gauges and waits for it. `watch` may be stopping and never reply.
async fn update_gauges(source: &StatusSource) {
    let (done, updated) = oneshot::channel();
    if source.updates.try_send(done).is_ok() {
        let _ = timeout(UPDATE_TIMEOUT, updated).await;
    }
}

async fn metrics(source: &StatusSource) -> Response<Full<Bytes>> {
    update_gauges(source).await;
    match TextEncoder::new().encode_to_string(&source.registry.gather()) {
        Ok(series) => text(StatusCode::OK, prometheus::TEXT_FORMAT, series),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", format!("{error}\n")),
    }
}

fn health_response(status: Status, body: &impl Serialize) -> Response<Full<Bytes>> {
    let code = if status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    // Only numbers and strings, so serialization cannot fail.
    text(code, "application/json", serde_json::to_string(body).unwrap_or_default() + "\n")
}

fn text(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of `/api/v1/health`. Users rely on the names and the order of its keys.
#[derive(Serialize)]
struct HealthBody {
    status: Status,
    timestamp: i64,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    docker: StatusBody,
    state: StatusBody,
    events: EventsBody,
}

#[derive(Serialize)]
struct StatusBody {
    status: Status,
}

/// The body of `/api/v1/health/events`.
#[derive(Serialize)]
struct EventsBody {
    status: Status,
    connected: bool,
    queue_size: u64,
    processed_total: u64,
    errors_total: u64,
    dropped_total: u64,
    reconnects_total: u64,
    last_event_timestamp: Option<i64>,
    last_event_age_seconds: Option<f64>,
    last_reconnect_timestamp: Option<i64>,
    reconciliation_runs: Reconciliations,
}

fn health_body(health: &Health, now: Instant, time: Timestamp) -> HealthBody {
    let checks = Checks {
        docker: StatusBody { status: health.docker },
        state: StatusBody { status: health.state.status() },
        events: events_body(&health.events, now),
    };
    HealthBody { status: health.status(now), timestamp: seconds(time), checks }
}

fn events_body(events: &EventsHealth, now: Instant) -> EventsBody {
    EventsBody {
        status: events.status(now),
        connected: events.connected.is_some(),
        queue_size: events.queued,
        processed_total: events.processed,
        errors_total: events.errors,
        dropped_total: events.dropped,
        reconnects_total: events.reconnects,
        last_event_timestamp: events.last_event.map(seconds),
        last_event_age_seconds: events.last_event_age(now).map(|age| age.as_millis() as f64 / 1e3),
        last_reconnect_timestamp: events.last_reconnect.map(seconds),
        reconciliation_runs: events.reconciliations,
    }
}

/// Whole seconds since the Unix epoch.
fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::{Reconciliations, StateHealth};
    use prometheus::IntGauge;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Runs a server with one gauge, which updates the requests for an update, and returns the result of `ask`.
    async fn serving<F: Future>(health: SharedHealth, ask: impl FnOnce(SocketAddr) -> F) -> F::Output {
        let registry = Registry::new();
        let gauge = IntGauge::new("updates", "Updates.").unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        let (updates, mut requests) = mpsc::channel::<oneshot::Sender<()>>(8);
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.address();
        let updating = async {
            while let Some(done) = requests.recv().await {
                gauge.inc();
                let _ = done.send(());
            }
        };
        tokio::select! {
            () = server.run(StatusSource { registry, health, updates }) => unreachable!("it runs until dropped"),
            () = updating => unreachable!("the server holds the sender"),
            answer = ask(address) => answer,
        }
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    fn in_runtime<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn paths_and_methods_are_answered_correctly() {
        let head =
            |code: &str, kind: &str| format!("HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncache-control: no-store\r\n");
        let plain = "text/plain; charset=utf-8";
        let series = "# HELP updates Updates.\n# TYPE updates gauge\nupdates 1\n";
        let paths = "not found: available are /metrics, /api/v1/health and /api/v1/health/events\n";
        for (request, begin, end) in [
            ("GET /metrics", head("200 OK", "text/plain; version=0.0.4"), series),
            ("GET /metrics?x=y", head("200 OK", "text/plain; version=0.0.4"), series),
            ("HEAD /metrics", head("200 OK", "text/plain; version=0.0.4"), ""),
            ("HEAD /api/v1/health", head("503 Service Unavailable", "application/json"), ""),
            ("GET /api/v1/health/events", head("503 Service Unavailable", "application/json"), "}\n"),
            ("GET /", head("404 Not Found", plain), paths),
            ("GET /metrics/", head("404 Not Found", plain), paths),
            (
                "POST /metrics",
                head("405 Method Not Allowed", plain) + "allow: GET, HEAD\r\n",
                "only GET and HEAD are supported\n",
            ),
            (
                "DELETE /nowhere",
                head("405 Method Not Allowed", plain) + "allow: GET, HEAD\r\n",
                "only GET and HEAD are supported\n",
            ),
        ] {
            let health = SharedHealth::default();
            health.update(|health| health.events.is_enabled = true);
            let request_text = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = in_runtime(serving(health, |address| async move { exchange(address, &request_text).await }));
            assert!(answer.starts_with(&begin), "{request}: {answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(body.ends_with(end) && (body.is_empty() == end.is_empty()), "{request}: {answer}");
        }
    }

    #[test]
    fn health_has_the_documented_keys_in_order() {
        let heard = Instant::now();
        let (now, time) = (heard + Duration::from_millis(2250), Timestamp(1_795_215_653_500_000_000));
        // The daemon's clock is ahead.
        let last = Timestamp(time.0 + 7_000_000_000);
        let mut health = Health {
            docker: Status::Healthy,
            state: StateHealth::default(),
            events: EventsHealth {
                is_enabled: true,
                connected: Some(heard),
                queued: 1,
                processed: 2,
                errors: 3,
                dropped: 4,
                reconnects: 5,
                heard: Some(heard),
                last_event: Some(last),
                last_reconnect: None,
                reconciliations: Reconciliations { full: 6, volumes: 7, containers: 8 },
            },
        };
        let events = concat!(
            r#"{"status":"healthy","connected":true,"queue_size":1,"processed_total":2,"errors_total":3,"#,
            r#""dropped_total":4,"reconnects_total":5,"last_event_timestamp":1795215660,"last_event_age_seconds":2.25,"#,
            r#""last_reconnect_timestamp":null,"reconciliation_runs":{"full":6,"volumes":7,"containers":8}}"#,
        );
        let expected = format!(
            r#"{{"status":"healthy","timestamp":1795215653,"checks":{{"docker":{{"status":"healthy"}},"state":{{"status":"not_configured"}},"events":{events}}}}}"#
        );
        assert_eq!(serde_json::to_string(&health_body(&health, now, time)).unwrap(), expected);
        health.events.connected = None;
        let disconnected = events_body(&health.events, now);
        assert_eq!((disconnected.status, disconnected.connected), (Status::Unhealthy, false));
        for (status, code) in
            [(Status::Healthy, 200), (Status::Degraded, 200), (Status::NotConfigured, 200), (Status::Unhealthy, 503)]
        {
            assert_eq!(health_response(status, &()).status().as_u16(), code);
        }
    }

    #[test]
    fn idle_clients_and_huge_requests_lock_nobody_out() {
        let ask = async |address: SocketAddr| {
            let mut idle = Vec::new();
            for _ in 0..4 * MAX_CONNECTIONS {
                let mut socket = TcpStream::connect(address).await.unwrap();
                let _ = socket.write_all(b"GET /metrics HTTP/1.1\r\n").await;
                idle.push(socket);
            }
            let huge =
                format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(8 * MAX_HEAD_SIZE));
            let refused = exchange(address, &huge).await;
            assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
            timeout(Duration::from_secs(5), exchange(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                .await
                .unwrap()
        };
        let answer = in_runtime(serving(SharedHealth::default(), ask));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[test]
    fn a_client_that_never_ends_its_request_is_cut_off() {
        let ask = async |address: SocketAddr| {
            let begun = std::time::Instant::now();
            let answer = exchange(address, "GET /metrics HTTP/1.1\r\nA: ").await;
            (answer.starts_with("HTTP/1.1 200"), begun.elapsed() < CONNECTION_TIMEOUT)
        };
        assert_eq!(in_runtime(serving(SharedHealth::default(), ask)), (false, true));
    }

    #[test]
    fn a_missing_gauge_update_does_not_block_responses() {
        let statuses = async {
            let (updates, _receiver) = mpsc::channel(1);
            let source = StatusSource { registry: Registry::new(), health: SharedHealth::default(), updates };
            let request = Request::get("/api/v1/health").version(hyper::Version::HTTP_10).body(()).unwrap();
            let hosts = AllowedHosts::of("localhost:0", SocketAddr::from(([127, 0, 0, 1], 1)));
            // The first one times out, the second finds the channel full.
            [answer(&request, &source, &hosts).await.status(), answer(&request, &source, &hosts).await.status()]
        };
        assert_eq!(in_runtime(statuses), [StatusCode::OK, StatusCode::OK]);
    }

    #[test]
    fn an_address_that_cannot_be_bound_is_named() {
        let taken = in_runtime(async {
            let first = Server::bind("127.0.0.1:0").await.unwrap();
            let address = first.address().to_string();
            let error = Server::bind(&address).await.err().unwrap();
            (error.to_string() == format!("cannot listen on {address}"), error.source.kind())
        });
        assert_eq!(taken, (true, io::ErrorKind::AddrInUse));
    }
}

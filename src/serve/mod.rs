//! Metrics and health over HTTP, for whoever watches us.
//!
//! In: all series, and how we are doing. Out: answers to `GET` and `HEAD` at one address, and nothing else anywhere. Called
//! by the engine, which is asked to bring its gauges up to date before each answer. Whoever connects may mean harm: each
//! connection serves one request and has a few seconds for it, its head is small, and of too many connections the oldest
//! is closed, so that idle ones keep nobody out. `host` keeps out web pages that reach us by a name of their own.

mod host_header;

use crate::model::health::{EventsHealth, Health, Reconciliations, SharedHealth, Status};
use crate::model::time::Timestamp;
use bytes::Bytes;
use host_header::Names;
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

/// Connections at one time.
const MOST: usize = 64;
/// For a request to arrive, ...
const ASKING: Duration = Duration::from_secs(5);
/// ... and for the whole connection.
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD: usize = 16 * 1024;
/// What the engine is given to count anew; after that the last count is told.
const COUNTING: Duration = Duration::from_millis(500);
/// Before the next try when no connection can be taken, for lack of descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {place}")]
pub struct Error {
    /// As it was given.
    pub place: String,
    /// Why not.
    pub source: io::Error,
}

/// What is told.
#[derive(Clone)]
pub struct Source {
    /// All series.
    pub registry: Registry,
    /// How we are doing.
    pub board: SharedHealth,
    /// Asks for a new count of what is only counted when somebody wants to know. The answer may fail to come.
    pub counts: mpsc::Sender<oneshot::Sender<()>>,
}

/// A place that was bound.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    has_chosen_port: bool,
    names: Names,
}

impl Server {
    /// Binds `host:port` and nothing else; of a name with several addresses the first that can be had.
    pub async fn bind(place: &str) -> Result<Server, Error> {
        let failed = |source| Error { place: place.to_owned(), source };
        let listener = TcpListener::bind(place).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let has_chosen_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0));
        let names = Names::of(place, address);
        Ok(Server { listener, address, has_chosen_port, names })
    }

    /// Whether any free port was asked for.
    pub fn has_chosen_port(&self) -> bool {
        self.has_chosen_port
    }

    /// Where it listens, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped, and all its connections with it.
    pub async fn run(self, source: Source) {
        let mut connections = JoinSet::new();
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        open.retain(|connection| !connection.is_finished());
                        if open.len() >= MOST && let Some(oldest) = open.pop_front() {
                            oldest.abort();
                        }
                        open.push_back(connections.spawn(converse(socket, source.clone(), self.names.clone())));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot take a connection");
                        tokio::time::sleep(AGAIN).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// One request, one answer.
async fn converse(socket: TcpStream, source: Source, names: Names) {
    let service = service_fn(move |request| {
        let (source, names) = (source.clone(), names.clone());
        async move { Ok::<_, Infallible>(answer(&request, &source, &names).await) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(ASKING).max_buf_size(HEAD);
    // What a client does wrong is no concern of ours.
    let _ = timeout(WHOLE, server.serve_connection(TokioIo::new(socket), service)).await;
}

async fn answer<B>(request: &Request<B>, source: &Source, names: &Names) -> Response<Full<Bytes>> {
    if let Err((code, why)) = names.check(request) {
        return text(code, "text/plain; charset=utf-8", why);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => metrics(source).await,
        "/api/v1/health" => {
            count(source).await;
            let (health, now) = (source.board.read(), Instant::now());
            told(health.status(now), &whole(&health, now, Timestamp::now()))
        }
        "/api/v1/health/events" => {
            count(source).await;
            let (events, now) = (source.board.read().events, Instant::now());
            told(events.status(now), &stream(&events, now))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "there are /metrics, /api/v1/health and /api/v1/health/events\n",
        ),
    }
}

/// Whoever counts may be at its end.
async fn count(source: &Source) {
    let (done, counted) = oneshot::channel();
    if source.counts.try_send(done).is_ok() {
        let _ = timeout(COUNTING, counted).await;
    }
}

async fn metrics(source: &Source) -> Response<Full<Bytes>> {
    count(source).await;
    match TextEncoder::new().encode_to_string(&source.registry.gather()) {
        Ok(series) => text(StatusCode::OK, prometheus::TEXT_FORMAT, series),
        Err(error) => {
            let said = format!("{error}\n");
            text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", said)
        }
    }
}

fn told(status: Status, body: &impl Serialize) -> Response<Full<Bytes>> {
    let code = if status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    // Numbers and words alone: there is nothing in it that JSON cannot hold.
    text(code, "application/json", serde_json::to_string(body).unwrap_or_default() + "\n")
}

fn text(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of `/api/v1/health`, in the order of the contract.
#[derive(Serialize)]
struct Whole {
    status: Status,
    timestamp: i64,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    docker: One,
    state: One,
    events: Stream,
}

#[derive(Serialize)]
struct One {
    status: Status,
}

/// The body of `/api/v1/health/events`.
#[derive(Serialize)]
struct Stream {
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

fn whole(health: &Health, now: Instant, time: Timestamp) -> Whole {
    let one = |status| One { status };
    let checks =
        Checks { docker: one(health.docker), state: one(health.state.status()), events: stream(&health.events, now) };
    Whole { status: health.status(now), timestamp: seconds(time), checks }
}

fn stream(events: &EventsHealth, now: Instant) -> Stream {
    Stream {
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

    /// A server with one gauge, which counts how often it was asked to count, and what it tells of health.
    async fn serving<F: Future>(board: SharedHealth, ask: impl FnOnce(SocketAddr) -> F) -> F::Output {
        let registry = Registry::new();
        let gauge = IntGauge::new("counted", "How often.").unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        let (counts, mut asked) = mpsc::channel::<oneshot::Sender<()>>(8);
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.address();
        let counting = async {
            while let Some(done) = asked.recv().await {
                gauge.inc();
                let _ = done.send(());
            }
        };
        tokio::select! {
            () = server.run(Source { registry, board, counts }) => unreachable!("it runs until dropped"),
            () = counting => unreachable!("the server holds the sender"),
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
    fn each_path_and_method_has_its_answer() {
        let head =
            |code: &str, kind: &str| format!("HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncache-control: no-store\r\n");
        let plain = "text/plain; charset=utf-8";
        let series = "# HELP counted How often.\n# TYPE counted gauge\ncounted 1\n";
        let paths = "there are /metrics, /api/v1/health and /api/v1/health/events\n";
        for (request, begin, end) in [
            ("GET /metrics", head("200 OK", "text/plain; version=0.0.4"), series),
            ("GET /metrics?x=y", head("200 OK", "text/plain; version=0.0.4"), series),
            ("HEAD /metrics", head("200 OK", "text/plain; version=0.0.4"), ""),
            ("HEAD /api/v1/health", head("503 Service Unavailable", "application/json"), ""),
            ("GET /api/v1/health/events", head("503 Service Unavailable", "application/json"), "}\n"),
            ("GET /", head("404 Not Found", plain), paths),
            ("GET /metrics/", head("404 Not Found", plain), paths),
            ("POST /metrics", head("405 Method Not Allowed", plain) + "allow: GET, HEAD\r\n", "only GET and HEAD\n"),
            ("DELETE /nowhere", head("405 Method Not Allowed", plain) + "allow: GET, HEAD\r\n", "only GET and HEAD\n"),
        ] {
            let board = SharedHealth::default();
            board.update(|health| health.events.is_enabled = true);
            let asked = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = in_runtime(serving(board, |address| async move { exchange(address, &asked).await }));
            assert!(answer.starts_with(&begin), "{request}: {answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(body.ends_with(end) && (body.is_empty() == end.is_empty()), "{request}: {answer}");
        }
    }

    #[test]
    fn health_is_told_as_the_contract_has_it_in_its_order() {
        let heard = Instant::now();
        let (now, time) = (heard + Duration::from_millis(2250), Timestamp(1_795_215_653_500_000_000));
        // The engine's clock is ahead.
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
        assert_eq!(serde_json::to_string(&whole(&health, now, time)).unwrap(), expected);
        health.events.connected = None;
        let ill = stream(&health.events, now);
        assert_eq!((ill.status, ill.connected), (Status::Unhealthy, false));
        for (status, code) in
            [(Status::Healthy, 200), (Status::Degraded, 200), (Status::NotConfigured, 200), (Status::Unhealthy, 503)]
        {
            assert_eq!(told(status, &()).status().as_u16(), code);
        }
    }

    #[test]
    fn idle_and_endless_clients_keep_nobody_out() {
        let asked = async |address: SocketAddr| {
            let mut idle = Vec::new();
            for _ in 0..4 * MOST {
                let mut socket = TcpStream::connect(address).await.unwrap();
                let _ = socket.write_all(b"GET /metrics HTTP/1.1\r\n").await;
                idle.push(socket);
            }
            let huge = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(8 * HEAD));
            let refused = exchange(address, &huge).await;
            assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
            timeout(Duration::from_secs(5), exchange(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                .await
                .unwrap()
        };
        let answer = in_runtime(serving(SharedHealth::default(), asked));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[test]
    fn a_client_that_never_ends_its_request_is_cut_off() {
        let asked = async |address: SocketAddr| {
            let begun = std::time::Instant::now();
            let answer = exchange(address, "GET /metrics HTTP/1.1\r\nA: ").await;
            (answer.starts_with("HTTP/1.1 200"), begun.elapsed() < WHOLE)
        };
        assert_eq!(in_runtime(serving(SharedHealth::default(), asked)), (false, true));
    }

    #[test]
    fn a_count_that_does_not_come_keeps_no_answer_back() {
        let asked = async {
            let (counts, _kept) = mpsc::channel(1);
            let source = Source { registry: Registry::new(), board: SharedHealth::default(), counts };
            let request = Request::get("/api/v1/health").version(hyper::Version::HTTP_10).body(()).unwrap();
            let names = Names::of("localhost:0", SocketAddr::from(([127, 0, 0, 1], 1)));
            // The first waits in vain, the second finds the channel full.
            [answer(&request, &source, &names).await.status(), answer(&request, &source, &names).await.status()]
        };
        assert_eq!(in_runtime(asked), [StatusCode::OK, StatusCode::OK]);
    }

    #[test]
    fn a_place_that_cannot_be_bound_is_named() {
        let taken = in_runtime(async {
            let first = Server::bind("127.0.0.1:0").await.unwrap();
            let place = first.address().to_string();
            let error = Server::bind(&place).await.err().unwrap();
            (error.to_string() == format!("cannot listen at {place}"), error.source.kind())
        });
        assert_eq!(taken, (true, io::ErrorKind::AddrInUse));
    }
}

//! The connection pool with a scripted engine, through a proxy that applies faults. What it decides is tested by the
//! tables of `src/docker/pool`; here it keeps its promises to callers while connections break, stall and are refused.

use std::time::{Duration, Instant};

use crate::support::client::{Call, at, connect, load, until};
use crate::support::{Answer, Fault, PATIENCE, Proxy, Request, Script, eventually};
use logwatch::internals::config;
use logwatch::internals::docker::{
    BreakerState, ClientReport, Docker, Error, EventsQuery, HEALTHY, LogsQuery, Snapshot, Version,
};
use logwatch::internals::metrics;
use logwatch::internals::model::Filters;
use logwatch::internals::model::Status;
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);

/// A healthy engine with a container `web`, whose log goes on, and without events.
fn engine() -> Script {
    Script::start(|request: &Request, answer: &mut Answer| {
        if !request.path.starts_with("/containers/web/logs?") {
            return Answer::as_idle(request, answer);
        }
        answer.begin("application/vnd.docker.raw-stream");
        answer.frame(1, b"2026-11-30T19:58:01.000000000Z line 000000001\n");
        if request.path.contains("follow=1") {
            answer.hold();
        }
    })
}

/// The defaults except for these settings, without a rate limit.
fn configured(pool: config::PoolConfig) -> config::DockerConfig {
    let rate_limit = config::RateLimit { enabled: false, ..config::RateLimit::default() };
    config::DockerConfig { pool, rate_limit, ..config::DockerConfig::default() }
}

fn of_size(size: usize) -> config::PoolConfig {
    config::PoolConfig { min_size: size, initial_size: size, max_size: size, ..config::PoolConfig::default() }
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

/// Calls whose connection is cut are repeated, and none fails.
#[tokio::test]
async fn connections_cut_six_times_fail_no_request() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let docker = connect(&proxy, &configured(config::PoolConfig::default())).await;
    let cutting = async {
        for cut in 1..=6 {
            while proxy.count("/_ping") < cut * 300 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            proxy.cut();
        }
    };
    let (calls, ()) = tokio::join!(load(&docker, 8, |made| made < 2000), cutting);
    let failed: Vec<_> = calls.iter().filter_map(|(.., error)| error.as_ref()).collect();
    assert_eq!((calls.len(), failed), (2000, vec![]));
    let snapshot = docker.pool();
    let retries: u32 = calls.iter().map(|(_, spent, _)| spent.retries).sum();
    assert!(retries > 0 && u64::from(retries) == snapshot.retries, "{retries} {snapshot:?}");
    assert!((1 + 6..=9 + 6 * 9).contains(&proxy.connections()), "{}", proxy.connections());
    assert_eq!((snapshot.size, snapshot.active, snapshot.status()), (8, 0, Status::Healthy));
    assert!(snapshot.clients.iter().map(|client| client.usage_count).sum::<u64>() >= 2000 + snapshot.retries);
}

/// The other half of the connections serves meanwhile.
#[tokio::test]
async fn half_stalled_connections_are_replaced() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    // So that the engine's time counts, and not that of this machine.
    proxy.on("/_ping", Fault::Delay(Duration::from_millis(10)));
    let breaking = config::CircuitBreaker {
        failure_threshold: 2,
        success_threshold: 2,
        timeout: 4 * SECOND,
        ..config::CircuitBreaker::default()
    };
    let pool = config::PoolConfig { request_timeout: 2 * SECOND, ..of_size(8) };
    let docker = connect(&proxy, &config::DockerConfig { circuit_breaker: breaking, ..configured(pool) }).await;
    let normal = load(&docker, 8, |made| made < 800).await;
    assert_eq!(proxy.open(), 8, "a connection each");
    let normal = p99(normal.iter().map(|(_, spent, _)| spent.took).collect());

    assert_eq!(proxy.stall_half(), 4);
    let begun = Instant::now();
    let stalled = load(&docker, 8, move |_| begun.elapsed() < 4 * SECOND).await;
    let (late, rest): (Vec<&Call>, Vec<&Call>) = stalled.iter().partition(|(_, spent, _)| spent.retries > 0);
    let rest = p99(rest.iter().map(|(_, spent, _)| spent.took).collect());
    assert!(rest <= 3 * normal, "{rest:?}, normally {normal:?}");
    assert!((4..=3 * 4).contains(&late.len()), "{late:?}");
    let failed: Vec<_> = late.iter().filter_map(|(.., error)| error.as_ref()).collect();
    assert_eq!(failed, [""; 0], "another client serves them in their time");
    assert!(late.iter().all(|(_, spent, _)| spent.took < 2 * SECOND), "{late:?}");
    let open =
        |snapshot: &Snapshot| snapshot.clients.iter().filter(|client| client.breaker == BreakerState::Open).count();
    // A client may have opened its next connection before it closed the stalled one, and so have escaped.
    let opened = open(&docker.pool());
    assert!((3..=4).contains(&opened) && docker.pool().healthy == 8 - opened, "{:?}", docker.pool());
    assert_eq!(docker.pool().status(), Status::Degraded);

    proxy.heal();
    let back = {
        let docker = docker.clone();
        load(&docker.clone(), 8, move |_| !docker.pool().clients.iter().all(is_closed)).await
    };
    assert_eq!(back.iter().filter_map(|(.., error)| error.clone()).collect::<Vec<_>>(), [""; 0]);
    assert_eq!((open(&docker.pool()), docker.pool().status()), (0, Status::Healthy));
}

fn is_closed(client: &ClientReport) -> bool {
    client.breaker == BreakerState::Closed
}

/// The rate is kept to within a twentieth.
#[tokio::test]
async fn the_request_rate_is_kept() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    for (rate, burst_size, seconds) in [(150, 10, 3), (20, 1, 3)] {
        let rate_limit = config::RateLimit { enabled: true, requests_per_second: rate, burst_size };
        let docker = connect(&proxy, &config::DockerConfig { rate_limit, ..config::DockerConfig::default() }).await;
        load(&docker, 8, |made| made < 10).await;
        proxy.forget();
        let begun = Instant::now();
        load(&docker, 8, move |_| begun.elapsed() < seconds * SECOND).await;
        let asked = proxy.count("/_ping");
        // The last calls may take until long after no more are made.
        let least = f64::from(rate) * f64::from(seconds) * 0.95;
        let most = f64::from(rate) * begun.elapsed().as_secs_f64() * 1.05;
        assert!((least..=most).contains(&f64::from(u32::try_from(asked).unwrap())), "{asked} of {least} to {most}");
    }
}

/// Cuts a hundred clients off together. Returns how many of them, at most, come back within a tenth of the delay.
async fn crowd(proxy: &Proxy, jitter: bool) -> usize {
    let pool = config::PoolConfig {
        max_retries: 20,
        initial_retry_delay: SECOND,
        retry_multiplier: 1.0,
        jitter,
        ..of_size(1)
    };
    let config = configured(pool);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(connect(proxy, &config).await);
    }
    proxy.refuse();
    let mut tasks = JoinSet::new();
    for docker in clients {
        tasks.spawn(async move { docker.list(&Filters::new()).await.map(drop) });
    }
    tokio::time::sleep(SECOND / 4).await;
    proxy.admit();
    proxy.forget();
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    let came = proxy.arrivals("/containers/json");
    assert_eq!(came.len(), 100);
    came.iter()
        .map(|from| came.iter().filter(|other| **other >= *from && **other < *from + SECOND / 10).count())
        .max()
        .unwrap()
}

/// Of a hundred clients that lose the engine together, few return at the same time.
#[tokio::test]
async fn jitter_spreads_those_who_lost_the_engine_together() {
    let engine = engine();
    let (spread, together) = {
        let (one, other) = (Proxy::before(&engine), Proxy::before(&engine));
        (crowd(&one, true).await, crowd(&other, false).await)
    };
    eprintln!("at most {spread} of 100 within a tenth of the wait; {together} without jitter");
    // A busy machine spreads the ones and gathers the others.
    assert!(spread * 3 <= together * 2, "{spread} and {together}");
}

/// Nobody waits longer than the time limit.
#[tokio::test]
async fn callers_are_served_in_order() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig { request_timeout: SECOND, max_retries: 0, ..of_size(1) };
    let docker = connect(&proxy, &configured(pool)).await;
    proxy.on("/_ping", Fault::Delay(Duration::from_millis(20)));
    let over = std::sync::Mutex::new(Vec::new());
    let call = async |number: usize| {
        docker.ping().await.unwrap();
        over.lock().unwrap().push(number);
    };
    tokio::join!(call(0), call(1), call(2), call(3), call(4));
    assert_eq!(*over.lock().unwrap(), [0, 1, 2, 3, 4]);

    proxy.on("/_ping", Fault::Stall);
    let begun = Instant::now();
    let (one, other) = tokio::join!(docker.ping(), docker.ping_timed());
    assert!(matches!(&one, Err(Error::Timeout { .. })), "{one:?}");
    let (other, spent) = other;
    assert_eq!(
        other.unwrap_err().to_string(),
        "timed out after 1s waiting for a free connection (docker.pool.max_pool_size is 1)"
    );
    assert!(spent.waited >= SECOND && begun.elapsed() < 2 * SECOND, "{spent:?}");
}

/// Callers beyond the size of the pool wait or time out; they open no connection and harm no client.
#[tokio::test]
async fn waiting_callers_cost_no_connection() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig { request_timeout: SECOND, ..of_size(1) };
    let docker = connect(&proxy, &configured(pool)).await;
    proxy.on("/_ping", Fault::Delay(Duration::from_millis(200)));
    let begun = Instant::now();
    let calls = load(&docker, 20, move |_| begun.elapsed() < 3 * SECOND).await;
    let reported: Vec<_> = calls.iter().filter_map(|(.., error)| error.as_deref()).collect();
    assert!(
        reported
            .iter()
            .all(|reported| *reported
                == "timed out after 1s waiting for a free connection (docker.pool.max_pool_size is 1)"),
        "{reported:?}"
    );
    let served = calls.iter().filter(|(over, _, error)| error.is_none() && *over <= begun + 3 * SECOND).count();
    // One every 0.2 s.
    assert!((12..=15).contains(&served), "{served}");
    assert_eq!((docker.pool().clients[0].errors, proxy.connections()), (0, 1));
    assert_eq!(docker.pool().status(), Status::Healthy);
}

/// Each is retried as often as configured.
#[tokio::test]
async fn only_repeatable_calls_are_retried() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool =
        config::PoolConfig { max_retries: 3, initial_retry_delay: SECOND / 100, ..config::PoolConfig::default() };
    let docker = connect(&proxy, &configured(pool)).await;
    for (fault, requests, reported) in [
        (Fault::Status(500), 4, "the Docker Engine answered 500: the proxy says 500"),
        (Fault::Status(503), 4, "the Docker Engine answered 503: the proxy says 503"),
        (Fault::Status(429), 4, "the Docker Engine answered 429: the proxy says 429"),
        (Fault::Hangup, 4, "lost the connection to HOST"),
        (Fault::Status(404), 1, "the proxy says 404"),
        (Fault::Status(409), 1, "the proxy says 409"),
        (Fault::Status(400), 1, "the Docker Engine answered 400: the proxy says 400"),
        (Fault::Status(501), 1, "the Docker Engine answered 501: the proxy says 501"),
        // A client whose ping is refused requests the version instead.
        (Fault::Status(403), 1, "OK"),
    ] {
        proxy.heal();
        // So that the clients' circuit breakers do not interfere.
        for _ in 0..4 {
            docker.ping().await.unwrap();
        }
        proxy.forget();
        proxy.on("/_ping", fault);
        let (answer, spent) = docker.ping_timed().await;
        let answer = answer.map_or_else(|error| error.to_string(), |()| "OK".to_owned());
        assert_eq!(answer.replace(&proxy.host(), "HOST"), reported);
        assert_eq!((proxy.count("/_ping"), spent.retries), (requests, requests as u32 - 1), "{fault:?}");
    }
}

/// The pool grows with the load, uses its clients evenly, and shrinks when they idle.
#[tokio::test]
async fn the_pool_grows_and_shrinks() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig {
        max_size: 5,
        idle_timeout: SECOND / 2,
        health_check_interval: Duration::ZERO,
        ..config::PoolConfig::default()
    };
    let docker = connect(&proxy, &configured(pool)).await;
    for _ in 0..20 {
        docker.ping().await.unwrap();
    }
    assert_eq!((docker.pool().size, proxy.connections()), (2, 1), "one after the other take one connection");
    let upkeep = tokio::spawn(docker.upkeep());
    load(&docker, 12, |made| made < 200).await;
    assert_eq!((docker.pool().size, proxy.open()), (5, 5));
    let spread = || {
        let uses: Vec<u64> = docker.pool().clients.iter().map(|client| client.usage_count).collect();
        uses.iter().max().unwrap() - uses.iter().min().unwrap()
    };
    for _ in 0..4 * spread() {
        docker.ping().await.unwrap();
    }
    assert!(spread() <= 1, "the least used goes first: {:?}", docker.pool());
    let begun = Instant::now();
    until(&docker, "those who idle are gone", |snapshot| snapshot.size == 1).await;
    assert!(begun.elapsed() >= SECOND / 3, "{:?}", begun.elapsed());
    eventually("their connections are closed", || proxy.open() <= 1);
    docker.ping().await.unwrap();
    upkeep.abort();
}

/// A connection that has reached its age is replaced between two calls.
#[tokio::test]
async fn old_connections_are_replaced_unnoticed() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig { max_connection_age: SECOND / 5, ..of_size(2) };
    let docker = connect(&proxy, &configured(pool)).await;
    let begun = Instant::now();
    let calls = load(&docker, 2, move |_| begun.elapsed() < SECOND).await;
    assert_eq!(calls.iter().filter_map(|(.., error)| error.clone()).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(calls.iter().map(|(_, spent, _)| spent.retries).max(), Some(0));
    assert!((6..=12).contains(&proxy.connections()), "{}", proxy.connections());
    assert!(docker.pool().clients.iter().all(|client| client.age < SECOND / 2), "{:?}", docker.pool());
}

/// One check answers all who ask meanwhile.
#[tokio::test]
async fn checks_report_what_works() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig { health_check_timeout: SECOND / 2, ..of_size(2) };
    let docker = connect(&proxy, &configured(pool)).await;
    let all = [("/_ping", "ping"), ("/containers/json", "container_list"), ("/events", "event_stream")];
    // A check that stalls on the client's own connection leaves no time for the ones after it.
    for (broken, refused, stalled) in [
        (&[][..], 1.0, 1.0),
        (&["/events"], 0.7, 0.7),
        (&["/_ping"], 0.7, 0.3),
        (&["/containers/json"], 0.6, 0.6),
        (&["/_ping", "/events"], 0.4, 0.0),
        (&["/_ping", "/containers/json", "/events"], 0.0, 0.0),
        (&[], 1.0, 1.0),
    ] {
        for (fault, reported, score) in
            [(Fault::Status(500), "the Docker Engine answered 500", refused), (Fault::Stall, "no answer from", stalled)]
        {
            proxy.heal();
            broken.iter().for_each(|part| proxy.on(part, fault));
            let begun = Instant::now();
            docker.check().await;
            assert!(begun.elapsed() < SECOND, "together no longer than one");
            let snapshot = docker.pool();
            let status = if score >= HEALTHY { Status::Healthy } else { Status::Unhealthy };
            assert_eq!(snapshot.status(), status, "{broken:?} {fault:?}");
            for client in &snapshot.clients {
                let row = (client.score, client.status, client.usage_count);
                assert_eq!(row, (score, status, 0), "{broken:?} {fault:?}");
                for (path, name) in all {
                    let check = client.checks.iter().find(|check| check.name == name).unwrap();
                    let follows = name == "container_list" && fault == Fault::Stall && broken.contains(&"/_ping");
                    assert_eq!(check.ok, !broken.contains(&path) && !follows, "{broken:?} {fault:?} {name}");
                    assert!(check.error.as_deref().unwrap_or(reported).starts_with(reported), "{check:?}");
                    assert_eq!(check.ok, check.error.is_none());
                }
            }
        }
    }
    let lists: Vec<_> = proxy.requests().into_iter().filter(|line| line.contains("/containers/json")).collect();
    assert!(lists.iter().all(|line| line.contains("limit=1")), "{lists:?}");
}

/// The value of a series, whose name is given without `logwatch_docker_`.
#[track_caller]
fn sample(registry: &prometheus::Registry, name: &str) -> f64 {
    let reported = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = reported.lines().find(|line| line.starts_with(&format!("logwatch_docker_{name} "))).map(str::to_owned);
    line.unwrap_or_else(|| panic!("{name} in {reported}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// A health check never shares a client's connection with a call.
#[tokio::test]
async fn checks_and_calls_use_different_connections() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let docker =
        connect(&proxy, &configured(config::PoolConfig { health_check_interval: SECOND / 10, ..of_size(1) })).await;
    proxy.on("/_ping", Fault::Delay(Duration::from_millis(30)));
    proxy.on("/containers/json", Fault::Delay(Duration::from_millis(30)));
    let upkeep = tokio::spawn(docker.upkeep());
    let end = Instant::now() + PATIENCE;
    while proxy.count("/containers/json") < 8 {
        assert!(Instant::now() < end, "{:?}", docker.pool());
        docker.ping().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upkeep.abort();
    // The client's connection, and the one on which the checks request events.
    assert_eq!(proxy.connections(), 2);
    let client = &docker.pool().clients[0];
    assert_eq!((client.errors, client.score), (0, 1.0));
}

/// When every connection hangs, calls wait, and are served once the engine answers.
#[tokio::test]
async fn a_pool_of_stuck_clients_recovers() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig { request_timeout: 2 * SECOND, health_check_interval: SECOND / 10, ..of_size(2) };
    let breaking = config::CircuitBreaker { failure_threshold: 2, ..config::CircuitBreaker::default() };
    let docker = connect(&proxy, &config::DockerConfig { circuit_breaker: breaking, ..configured(pool) }).await;
    let upkeep = tokio::spawn(docker.upkeep());
    proxy.on("", Fault::Stall);
    let (one, other, ()) = tokio::join!(docker.ping(), docker.ping(), async {
        until(&docker, "none serves", |snapshot| snapshot.healthy == 0).await;
        proxy.heal();
    });
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    until(&docker, "both serve", |snapshot| snapshot.healthy == 2).await;
    upkeep.abort();
}

/// Each kind of failed connection counts once in the metrics.
#[tokio::test]
async fn every_connection_failure_is_counted() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let registry = prometheus::Registry::new();
    let pool = config::PoolConfig { max_retries: 0, request_timeout: SECOND, ..of_size(1) };
    let breaking = config::CircuitBreaker { failure_threshold: 1, ..config::CircuitBreaker::default() };
    let config = config::DockerConfig { circuit_breaker: breaking, ..configured(pool) };
    let metrics = metrics::PoolMetrics::new(&registry).unwrap();
    let docker = Docker::connect_with(at(&proxy.host()), &config, metrics).await.unwrap();
    let errors = || sample(&registry, "connection_errors_total");
    assert_eq!(errors(), 0.0);
    let mut events = docker.events(&EventsQuery::default()).await.unwrap();
    proxy.cut();
    events.next().await.unwrap().unwrap_err();
    assert_eq!(errors(), 1.0, "a stream");
    proxy.refuse();
    docker.renegotiate().await.unwrap_err();
    assert_eq!(errors(), 2.0, "an agreement on the version");
    docker.events(&EventsQuery::default()).await.err().unwrap();
    assert_eq!(errors(), 3.0, "a stream's beginning");
    docker.check().await;
    assert_eq!(errors(), 6.0, "three checks");
    docker.ping().await.unwrap_err();
    assert_eq!(errors(), 7.0, "a call");
    docker.ping().await.unwrap_err();
    assert!(errors() > 7.0, "looks whether it is back");
    proxy.admit();
    docker.ping().await.unwrap();
    let before = errors();
    proxy.on("/_ping", Fault::Stall);
    docker.ping().await.unwrap_err();
    assert_eq!(errors(), before + 1.0, "an answer that is late");
}

/// A breaker is reported as half-open though nobody calls.
#[tokio::test]
async fn an_expired_breaker_is_half_open() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let registry = prometheus::Registry::new();
    let breaking =
        config::CircuitBreaker { failure_threshold: 2, timeout: SECOND, ..config::CircuitBreaker::default() };
    let config = configured(config::PoolConfig { max_retries: 1, ..of_size(1) });
    let config = config::DockerConfig { circuit_breaker: breaking, ..config };
    let metrics = metrics::PoolMetrics::new(&registry).unwrap();
    let docker = Docker::connect_with(at(&proxy.host()), &config, metrics).await.unwrap();
    let upkeep = tokio::spawn(docker.upkeep());
    let breaker = || sample(&registry, "circuit_breaker_state{client=\"0\"}");
    docker.ping().await.unwrap();
    assert_eq!(breaker(), 0.0);
    proxy.on("/_ping", Fault::Status(500));
    docker.ping().await.unwrap_err();
    assert_eq!(breaker(), 2.0);
    let begun = Instant::now();
    until(&docker, "it is half open", |_| breaker() == 1.0).await;
    assert!((SECOND / 2..5 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    upkeep.abort();
}

/// An engine that answers pings and fails calls gets no call while the breaker is open.
#[tokio::test]
async fn a_failing_engine_is_left_alone() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig { max_retries: 0, request_timeout: 2 * SECOND, ..of_size(2) };
    let breaking = config::CircuitBreaker {
        failure_threshold: 2,
        success_threshold: 1,
        timeout: 3 * SECOND,
        ..config::CircuitBreaker::default()
    };
    let docker = connect(&proxy, &config::DockerConfig { circuit_breaker: breaking, ..configured(pool) }).await;
    proxy.on("/containers/json", Fault::Status(500));
    for _ in 0..4 {
        docker.list(&Filters::new()).await.unwrap_err();
    }
    let opened = Instant::now();
    proxy.heal();
    proxy.forget();
    assert_eq!(docker.ping().await.unwrap_err().to_string(), "the Docker Engine answered 500: the proxy says 500");
    docker.ping().await.unwrap();
    let after = opened.elapsed();
    assert!((2 * SECOND..4 * SECOND).contains(&after), "{after:?}");
    assert_eq!(proxy.requests().len(), 1, "nobody looked for it: {:?}", proxy.requests());
}

/// Waiting for a permit, connecting and negotiating share the time limit of the call.
#[tokio::test]
async fn one_time_limit_covers_a_whole_call() {
    let engine = engine();
    let id = "web";
    let proxy = Proxy::before(&engine);
    let pool =
        config::PoolConfig { max_concurrent_streams: 1, request_timeout: SECOND, ..config::PoolConfig::default() };
    let docker = connect(&proxy, &configured(pool)).await;
    let first = docker.logs(id, &LogsQuery { follow: true, ..LogsQuery::default() }).await.unwrap();
    proxy.on("/logs", Fault::Stall);
    let begun = Instant::now();
    let (whole, leave) = (LogsQuery::default(), async {
        tokio::time::sleep(SECOND * 7 / 10).await;
        drop(first);
    });
    let (late, ()) = tokio::join!(docker.logs(id, &whole), leave);
    assert!(matches!(late.err().unwrap(), Error::Timeout { .. }));
    assert!((SECOND..SECOND * 3 / 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    let slow = Script::start(|_: &Request, answer: &mut Answer| {
        std::thread::sleep(SECOND * 7 / 10);
        answer.raw(b"HTTP/1.1 200 OK\r\nApi-Version: 1.99\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    });
    let config = configured(config::PoolConfig { request_timeout: SECOND, ..config::PoolConfig::default() });
    let docker = Docker::new(at(&slow.host()), &config, metrics::PoolMetrics::default()).unwrap();
    let begun = Instant::now();
    let late = docker.renegotiate().await.unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }), "{late:?}");
    assert!(begun.elapsed() < SECOND * 13 / 10, "{:?}", begun.elapsed());
}

/// Clients whose checks fail are replaced until they work, which the metrics show.
#[tokio::test]
async fn unhealthy_clients_are_replaced() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let registry = prometheus::Registry::new();
    let pool = config::PoolConfig {
        health_check_interval: SECOND / 10,
        recovery_check_interval: SECOND / 5,
        unhealthy_threshold: 2,
        ..of_size(2)
    };
    let metrics = metrics::PoolMetrics::new(&registry).unwrap();
    let docker = Docker::connect_with(at(&proxy.host()), &configured(pool), metrics).await.unwrap();
    let upkeep = tokio::spawn(docker.upkeep());
    load(&docker, 2, |made| made < 20).await;
    let checks = |docker: &Docker| docker.pool().clients.iter().all(|client| !client.checks.is_empty());
    until(&docker, "both were checked", |snapshot| snapshot.clients.iter().all(|client| !client.checks.is_empty()))
        .await;
    assert!(checks(&docker) && docker.pool().status() == Status::Healthy);

    proxy.on("/containers/json", Fault::Status(500));
    until(&docker, "both are unhealthy", |snapshot| snapshot.healthy == 0).await;
    docker.ping().await.unwrap();
    let sample = |name: &str| sample(&registry, name);
    until(&docker, "both were made anew", |_| sample("recovery_operations_total") >= 2.0).await;
    assert_eq!(docker.pool().status(), Status::Unhealthy);
    proxy.heal();
    until(&docker, "both are healthy", |snapshot| snapshot.healthy == 2).await;
    upkeep.abort();
    assert!(sample("health_check_failures_total") >= 2.0 * 4.0);
    assert!(sample("recovery_operations_total") >= 4.0);
    assert_eq!(
        (sample("circuit_breaker_state{client=\"0\"}"), sample("circuit_breaker_state{client=\"1\"}")),
        (0.0, 0.0)
    );
    assert_eq!((sample("pool_connections_healthy"), sample("pool_size")), (2.0, 2.0));
    assert!(sample("operation_latency_seconds_count{operation=\"ping\"}") >= 21.0);
    assert!(sample("connection_duration_seconds_count") >= 2.0);
}

/// However short the configured intervals are, checks are at least a tenth of a second apart.
#[tokio::test]
async fn upkeep_rests_between_checks() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig {
        health_check_interval: SECOND / 1000,
        recovery_check_interval: SECOND / 1000,
        unhealthy_threshold: 1,
        ..of_size(1)
    };
    let docker = connect(&proxy, &configured(pool)).await;
    docker.ping().await.unwrap();
    proxy.on("/containers/json", Fault::Status(500));
    let upkeep = tokio::spawn(docker.upkeep());
    until(&docker, "it is unhealthy", |snapshot| snapshot.healthy == 0).await;
    proxy.forget();
    tokio::time::sleep(SECOND).await;
    let checks = proxy.count("/containers/json");
    assert!((2..=11).contains(&checks), "{checks} checks in a second");
    upkeep.abort();
}

/// Streams beyond the limit are refused or wait, and calls go on meanwhile.
#[tokio::test]
async fn streams_are_limited_and_calls_are_not() {
    let engine = engine();
    let id = "web";
    let proxy = Proxy::before(&engine);
    let pool =
        config::PoolConfig { max_concurrent_streams: 3, request_timeout: SECOND, ..config::PoolConfig::default() };
    let docker = connect(&proxy, &configured(pool)).await;
    let follow = LogsQuery { follow: true, ..LogsQuery::default() };
    let mut logs = docker.logs(id, &follow).await.unwrap();
    logs.next().await.unwrap().unwrap();
    let other = docker.logs(id, &follow).await.unwrap();
    let reported = "all 3 log and event streams are in use (docker.pool.max_concurrent_streams)";
    assert_eq!(docker.logs(id, &follow).await.err().unwrap().to_string(), reported);
    let events = docker.events(&EventsQuery::default()).await.unwrap();
    assert_eq!(docker.events(&EventsQuery::default()).await.err().unwrap().to_string(), reported);
    assert_eq!((docker.pool().streams, docker.pool().max_streams), (3, 3));
    for _ in 0..10 {
        docker.list(&Filters::new()).await.unwrap();
    }
    // A stream that ends soon waits for its permit, within its time limit.
    assert_eq!(docker.logs(id, &LogsQuery::default()).await.err().unwrap().to_string(), reported);
    let whole = LogsQuery::default();
    let (read, ()) = tokio::join!(docker.logs(id, &whole), async { drop(other) });
    let mut read = read.unwrap();
    while let Some(bytes) = read.next().await {
        bytes.unwrap();
    }
    // A stream that was read to its end has released its permit, though it is still held.
    let again = docker.logs(id, &follow).await.unwrap();
    drop((logs, again, events, read));
    assert_eq!(docker.pool().streams, 0);
}

/// Streams do not reconnect again and again meanwhile.
#[tokio::test]
async fn streams_wait_for_a_missing_engine() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    let pool = config::PoolConfig {
        max_retries: 2,
        initial_retry_delay: SECOND / 100,
        request_timeout: 3 * SECOND,
        ..of_size(1)
    };
    let breaking = config::CircuitBreaker { failure_threshold: 3, ..config::CircuitBreaker::default() };
    let docker = connect(&proxy, &config::DockerConfig { circuit_breaker: breaking, ..configured(pool) }).await;
    proxy.refuse();
    let error = docker.ping().await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach the Docker Engine at {}", proxy.host()));
    assert_eq!(docker.pool().clients[0].breaker, BreakerState::Open);
    let begun = Instant::now();
    let all = EventsQuery::default();
    let (late, late_events) = tokio::join!(docker.ping(), docker.events(&all));
    assert!(begun.elapsed() >= 3 * SECOND);
    for error in [late.unwrap_err(), late_events.err().unwrap()] {
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    }
    let admit = async {
        tokio::time::sleep(SECOND / 2).await;
        proxy.admit();
    };
    let (ping, events, ()) = tokio::join!(docker.ping(), docker.events(&all), admit);
    ping.unwrap();
    events.unwrap();
    assert_eq!(docker.pool().status(), Status::Healthy);

    proxy.refuse();
    docker.ping().await.unwrap_err();
    assert_eq!(docker.pool().status(), Status::Unhealthy);
    proxy.admit();
    docker.check().await;
    assert_eq!(docker.pool().status(), Status::Healthy, "a check that passes shows it as well");
}

/// A report on the pool is still possible.
#[tokio::test]
async fn a_missing_engine_is_reported_at_once() {
    let engine = engine();
    let proxy = Proxy::before(&engine);
    proxy.refuse();
    let begun = Instant::now();
    assert!(Docker::connect(at(&proxy.host())).await.is_err());
    let docker =
        Docker::new(at(&proxy.host()), &config::DockerConfig::default(), metrics::PoolMetrics::default()).unwrap();
    docker.check().await;
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    let snapshot = docker.pool();
    assert_eq!((snapshot.size, snapshot.status()), (2, Status::Unhealthy));
    let reported = format!("cannot reach the Docker Engine at {}: ", proxy.host());
    let checks = snapshot.clients.iter().flat_map(|client| &client.checks);
    assert!(
        checks.clone().count() == 6 && checks.clone().all(|check| check.error.as_ref().unwrap().starts_with(&reported))
    );
    proxy.admit();
    docker.renegotiate().await.unwrap();
    docker.check().await;
    assert_eq!((docker.pool().status(), docker.api_version()), (Status::Healthy, Version { major: 1, minor: 41 }));
}

//! What `--listen` serves, with a real engine that is cut off and returns.

use crate::support::{Engine, Proxy, Signal, Watch, documented, eventually, get, keys, place};
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

fn health(place: &str) -> (u16, Value) {
    let (status, body) = get(place, "/api/v1/health");
    (status, serde_json::from_str(&body).unwrap())
}

/// The value of one series, labels included in its name; `None` if it does not exist.
fn value(place: &str, series: &str) -> Option<f64> {
    let (status, text) = get(place, "/metrics");
    assert_eq!(status, 200);
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Lines are counted by route, and no series names a container.
#[test]
fn metrics_count_by_route() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &LISTEN);
    let place = place(&watch);
    let id = engine.run("talker", &[], &["--count", "300", "--size", "50"]);
    watch.wait_for_ends(1);
    for (series, expected) in [
        ("logwatch_log_lines_total{source=\"file\"}", 300.0),
        ("logwatch_log_lines_total{source=\"stream\"}", 0.0),
        ("logwatch_log_bytes_total{source=\"file\"}", 300.0 * 49.0),
        ("logwatch_log_gaps_total{reason=\"rotated_away\"}", 0.0),
        ("logwatch_log_lost_bytes_total", 0.0),
        ("logwatch_log_lag_bytes", 0.0),
        // This is the beacon.
        ("logwatch_containers_monitored{source=\"file\"}", 1.0),
        ("logwatch_metadata_cache_misses_total", 0.0),
        ("logwatch_discovery_latency_seconds_count", 1.0),
        (concat!("logwatch_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(value(&place, series), Some(expected), "{series}");
    }
    let (_, text) = get(&place, "/metrics");
    assert!(!text.contains("talker") && !text.contains(&id[..12]), "{text}");
    engine.run("api", &[], &["--count", "0", "--idle"]);
    eventually("the new container was counted", || {
        value(&place, "logwatch_containers_monitored{source=\"file\"}") == Some(2.0)
    });
    engine.must(&["kill", "api"]);
    eventually("the dead one was not", || value(&place, "logwatch_containers_monitored{source=\"file\"}") == Some(1.0));
    let (_, events) = health(&place);
    assert_eq!(
        (&events["checks"]["events"]["errors_total"], events["checks"]["events"]["processed_total"].as_u64() > Some(5)),
        (&0.into(), true)
    );
    let finished = watch.stop();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(TcpStream::connect(&place).is_err());
}

/// The lag is what was not written yet, and 0 once it is.
#[test]
fn unread_output_is_reported_as_lag() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &LISTEN);
    let place = place(&watch);
    let lag = || value(&place, "logwatch_log_lag_bytes").unwrap();
    watch.hold();
    engine.run("flood", &[], &["--count", "200000", "--size", "100"]);
    engine.wait("flood");
    // Queue and pipe are full, and most of 26 MB is unread.
    assert!(lag() > 10e6, "{}", lag());
    watch.release();
    watch.wait_for_ends(1);
    assert_eq!(lag(), 0.0);
}

/// The return of the engine shows as well.
#[test]
fn health_follows_a_cut_within_two_seconds() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let longest = Duration::from_secs(2);
    let mut command = Watch::command();
    engine.configure(&mut command);
    command.env("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "2s").args(["-H", &proxy.host(), "watch"]).args(LISTEN);
    let watch = Watch::spawn(&mut command);
    watch.wait_until_up();
    let place = place(&watch);
    let (status, reported) = health(&place);
    assert_eq!((status, &reported["status"]), (200, &"healthy".into()), "{reported}");
    assert_eq!(reported["checks"]["docker"]["status"], "healthy");
    assert_eq!(reported["checks"]["state"]["status"], "not_configured");
    let within = |limit: Duration, wanted: u16| {
        let start = Instant::now();
        while health(&place).0 != wanted {
            assert!(start.elapsed() < limit, "not {wanted} within {limit:?}: {}", health(&place).1);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    proxy.refuse();
    within(Duration::from_secs(2), 503);
    // The loss of the stream is noticed a moment before that of the engine.
    eventually("the engine is unhealthy", || health(&place).1["checks"]["docker"]["status"] == "unhealthy");
    let (_, reported) = health(&place);
    let (checks, now) = (&reported["checks"], reported["timestamp"].as_u64().unwrap());
    assert_eq!(reported["status"], "unhealthy");
    assert_eq!((&checks["events"]["connected"], &checks["events"]["errors_total"]), (&false.into(), &1.into()));
    assert_eq!(get(&place, "/api/v1/health/events").0, 503);
    // Metrics are still served.
    assert_eq!(value(&place, "logwatch_log_gaps_total{reason=\"corrupt\"}"), Some(0.0));
    proxy.admit();
    // The longest backoff delay, and the time to connect and to list.
    within(longest + Duration::from_secs(1), 200);
    let (status, events) = get(&place, "/api/v1/health/events");
    let events: Value = serde_json::from_str(&events).unwrap();
    assert_eq!((status, &events["status"], &events["reconnects_total"]), (200, &"healthy".into(), &1.into()));
    assert!(events["last_reconnect_timestamp"].as_u64() >= Some(now), "{events}");
}

/// With a state, its health is part of the report, whose keys are the documented ones.
#[test]
fn state_is_reported_if_there_is_one() {
    let engine = Engine::start();
    let state = engine.home().join("state.db");
    let watch = Watch::ready(&engine, &[&LISTEN[..], &["--resume", "--state", state.to_str().unwrap()]].concat());
    let place = place(&watch);
    assert_eq!(health(&place).1["checks"]["state"]["status"], "healthy");
    assert_eq!(keys(&get(&place, "/api/v1/health").1), keys(documented("{\"status\":\"healthy\",\"timestamp\"")));
}

/// Another program holds the lock of the state file for longer than we wait. A watch with positions notices that by
/// itself, since nothing happens to any container; so does one that stores only the inventory.
#[test]
fn an_unwritable_state_degrades_health() {
    const FAILURES: &str =
        "logwatch_docker_reconciliation_failures_total{error_type=\"state\",reconciliation_type=\"containers\"}";
    const RUNS: &str = "logwatch_docker_reconciliation_runs_total{reconciliation_type=\"full\"}";
    let engine = Engine::start();
    engine.run("talker", &[], &["--forever", "--rate", "20"]);
    for (name, resume) in [("positions", &["--resume"][..]), ("inventory", &[])] {
        let state = engine.home().join(name);
        let watch = Watch::start(&engine, &[&LISTEN[..], resume, &["--state", state.to_str().unwrap()]].concat());
        let place = place(&watch);
        let is = |expected: &str| {
            let (code, reported) = health(&place);
            (code, &reported["status"], &reported["checks"]["state"]["status"])
                == (200, &expected.into(), &expected.into())
        };
        eventually("all is well", || value(&place, RUNS) == Some(1.0) && is("healthy"));
        let other = rusqlite::Connection::open(&state).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        if resume.is_empty() {
            engine.create("made", &[], &[]);
        }
        eventually("it is reported", || is("degraded"));
        assert_eq!(value(&place, FAILURES).unwrap() > 0.0, resume.is_empty(), "{name}");
        other.execute_batch("ROLLBACK").unwrap();
        eventually("it is made up for", || is("healthy"));
        assert_eq!(watch.stop().code, Some(0));
    }
}

/// No address is bound that was not requested.
#[test]
fn an_address_in_use_ends_with_1() {
    let engine = Engine::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = Watch::start(&engine, &["--listen", &address]).finish();
    assert_eq!(finished.code, Some(1));
    assert_eq!(
        finished.stderr,
        format!(
            "error: cannot listen on {address}\n  caused by: Address already in use (os error 98)\n\
             hint: another program listens there (`ss -ltnp` shows which); use another port\n"
        )
    );
    let sockets = |pid: u32| {
        // A listening socket is in state 0A; ours are among our descriptors.
        let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap());
        let ours: Vec<String> = super::support::process::open_files(pid);
        let listens = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
        let inode = |line: &str| format!("socket:[{}]", line.split_whitespace().nth(9).unwrap());
        let lines: Vec<String> =
            tables.iter().flat_map(|table| table.lines().filter(listens).map(str::to_owned)).collect();
        lines
            .into_iter()
            .filter(|line| ours.contains(&inode(line)))
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let [silent, serving] = Watch::ready_each(&engine, [(&engine.host(), &[]), (&engine.host(), &LISTEN)]);
    let port = place(&serving).rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    assert_eq!((sockets(silent.pid()), sockets(serving.pid())), (Vec::new(), vec![format!("0100007F:{port:04X}")]));
    serving.signal(Signal::TERM);
    assert_eq!(serving.finish().code, Some(0));
}

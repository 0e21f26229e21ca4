//! `pool` with a scripted engine: which failures make a client unhealthy, and how soon a silent engine is reported.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Answer, Finished, Proxy, Request, Script, Watch, assert_pool_check, eventually, report};

/// A healthy engine, except that it answers 500 where `fails` returns true for a path and the number of earlier
/// requests for it.
fn unwell(fails: impl Fn(&str, usize) -> bool + Send + Sync + 'static) -> Script {
    let asked = Mutex::new(HashMap::<String, usize>::new());
    Script::start(move |request: &Request, answer: &mut Answer| {
        let path = request.path.split('?').next().unwrap();
        let before = {
            let mut asked = asked.lock().unwrap();
            let count = asked.entry(path.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        match path {
            _ if fails(path, before) => answer.json(500, r#"{"message":"unwell"}"#),
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"x","ServerVersion":"20.10.24","OSType":"linux"}"#),
            "/containers/json" => answer.json(200, "[]"),
            _ => answer.json(200, ""),
        }
    })
}

fn pool_of_nobody(script: &Script, args: &[&str]) -> Finished {
    pool_at(&script.host(), args).finish()
}

fn pool_at(host: &str, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nowhere");
    Watch::spawn(command.args(["-H", host, "pool"]).args(args))
}

/// This includes the time that the engine took for earlier answers.
#[test]
fn a_hanging_listing_is_reported_in_ten_seconds() {
    // Side by side: each takes nearly ten seconds.
    thread::scope(|scope| {
        for seconds in [0, 5] {
            scope.spawn(move || {
                let script = Script::start(move |request: &Request, answer: &mut Answer| {
                    match request.path.split('?').next().unwrap() {
                        "/_ping" => answer.json(200, "OK"),
                        "/info" => {
                            thread::sleep(Duration::from_secs(seconds));
                            answer.json(200, r#"{"ID":"slow","ServerVersion":"20.10.24","OSType":"linux"}"#);
                        }
                        "/containers/json" => answer.hold(),
                        _ => answer.json(200, ""),
                    }
                });
                let begun = Instant::now();
                let finished = pool_of_nobody(&script, &["--check"]);
                assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
                assert_eq!((finished.code, finished.stderr.lines().count()), (Some(4), 1), "{finished:?}");
                let reported = "error: the connection pool is unhealthy: 0 of 2 clients healthy, client 0: container_list: no answer from ";
                assert!(finished.stderr.starts_with(reported), "{}", finished.stderr);
            });
        }
    });
}

/// Only `--check` takes a degraded pool for a failure.
#[test]
fn an_unhealthy_client_degrades_the_pool() {
    let script = unwell(|path, before| path == "/containers/json" && before % 2 == 0);
    // Either client may be the first to send the request.
    let reasons = [0, 1].map(|client| {
        format!("1 of 2 clients healthy, client {client}: container_list: the Docker Engine answered 500: unwell")
    });
    let check = pool_of_nobody(&script, &["--check"]);
    let unwell = reasons.iter().position(|reason| check.stderr.contains(reason)).unwrap_or(0);
    assert_pool_check(&check, &format!("degraded: {}", reasons[unwell]));
    let finished = pool_of_nobody(&script, &["--format", "json"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let report = report(&finished);
    assert_eq!((&report["status"], &report["pool"]["healthy"]), (&"degraded".into(), &1.into()));
    let unwell = reasons.iter().position(|reason| report["error"] == **reason).unwrap_or_else(|| panic!("{report}"));
    let of = |client: usize| report["clients"][client]["status"].clone();
    assert_eq!([of(unwell), of(1 - unwell)], ["unhealthy", "healthy"]);
}

/// A size beyond the limit is a usage error, and nothing is requested.
#[test]
fn the_pool_size_is_limited() {
    let script = unwell(|_, _| false);
    let finished = pool_of_nobody(&script, &["--size", "1001"]);
    assert_eq!((finished.code, script.requests()), (Some(2), Vec::new()));
    assert!(
        finished.stderr.contains("invalid value '1001' for '--size <N>': expected at most 1000"),
        "{}",
        finished.stderr
    );
}

/// Where only the ping or the event stream fails, `--check` warns and ends with 0.
#[test]
fn a_single_failed_check_is_a_warning() {
    for (path, name) in [("/events", "event_stream"), ("/_ping", "ping")] {
        // The first ping is part of connecting.
        let script = unwell(move |asked, before| asked == path && (before > 0 || path == "/events"));
        let finished = pool_of_nobody(&script, &["--check"]);
        let reported = " WARN the connection pool is healthy, but a check failed: client 0: ";
        let expected = format!("{reported}{name}: the Docker Engine answered 500: unwell\n");
        assert_eq!((finished.code, finished.stderr, finished.stdout.len()), (Some(0), expected, 0), "{name}");
    }
}

/// An engine that accepts connections and says nothing is reported in time for `cron`.
#[test]
fn a_silent_engine_is_reported_in_ten_seconds() {
    let script = Script::start(|_: &Request, answer: &mut Answer| answer.hold());
    let begun = Instant::now();
    let finished = pool_of_nobody(&script, &["--check"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_pool_check(&finished, &format!("unhealthy: no answer from {} within 9s", script.host()));
}

/// The report says which check failed.
#[test]
fn failing_listings_make_the_pool_unhealthy() {
    let script = unwell(|path, _| path == "/containers/json");
    let finished = pool_of_nobody(&script, &["--format", "json"]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let report = report(&finished);
    assert_eq!((&report["status"], &report["pool"]["healthy"]), (&"unhealthy".into(), &0.into()));
    let client = &report["clients"][0];
    assert_eq!((&client["status"], client["score"].as_f64()), (&"unhealthy".into(), Some(0.6)));
    assert_eq!((&client["checks"][0]["ok"], &client["checks"][1]["ok"]), (&true.into(), &false.into()));
    let check = pool_of_nobody(&script, &["--check"]);
    assert_eq!((check.code, check.stderr.lines().count()), (Some(4), 1));
    let reported = "error: the connection pool is unhealthy: 0 of 2 clients healthy, client 0: container_list: the Docker Engine answered 500";
    assert!(check.stderr.starts_with(reported), "{}", check.stderr);
}

/// The load is repeated where connections are cut, and none of its requests fails.
#[test]
fn a_load_survives_cut_connections() {
    const REQUESTS: u64 = 6000;
    let script = unwell(|_, _| false);
    let proxy = Proxy::before(&script);
    let args = ["--requests", &REQUESTS.to_string(), "--concurrency", "8", "--format", "json"];
    let load = pool_at(&proxy.host(), &args);
    for cut in 1..=3 {
        let so_many = cut * REQUESTS as usize / 5;
        eventually("the load goes on", || proxy.count("/_ping") > so_many);
        proxy.cut();
    }
    let finished = load.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let load = report(&finished)["load"].clone();
    assert_eq!((load["requests"].as_u64(), load["errors"].as_u64()), (Some(REQUESTS), Some(0)), "{load}");
    assert!(load["retries"].as_u64() > Some(0), "{load}");
    assert!(proxy.count("/_ping") as u64 >= REQUESTS);
    let spread = |key: &str| ["p50", "p95", "p99", "max"].map(|at| load[key][at].as_f64().unwrap());
    assert!(spread("latency_ms").is_sorted() && spread("latency_ms")[0] > 0.0, "{load}");
    assert!(spread("wait_ms").is_sorted() && load["requests_per_second"].as_f64() > Some(0.0), "{load}");
}

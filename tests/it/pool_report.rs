//! `pool`: what it tells of an engine that is well, of one that is not, and under load.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{Answer, Engine, Fault, Finished, Proxy, Request, Script, Watch, eventually};

fn pool(engine: &Engine, host: &str, words: &[&str]) -> Finished {
    Watch::at(engine, host, &[&["pool"], words].concat()).finish()
}

#[track_caller]
fn report(finished: &Finished) -> Value {
    let records = finished.records();
    assert_eq!(records.len(), 1, "{finished:?}");
    records[0].clone()
}

#[test]
fn a_healthy_engine_is_reported_in_full_and_a_check_of_it_is_silent() {
    let engine = Engine::start();
    let finished = pool(&engine, &engine.host(), &["--format", "json"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let report = report(&finished);
    let told = engine.must(&["info", "--format", "{{.ID}} {{.ServerVersion}} {{.LoggingDriver}}"]);
    let of = |key: &str| report["engine"][key].as_str().unwrap().to_owned();
    assert_eq!(format!("{} {} {}", of("id"), of("version"), of("logging_driver")), told);
    assert_eq!((of("os"), of("api_version")), ("linux".into(), engine.spoken().to_string()));
    assert_eq!(report["endpoint"], engine.host());
    assert_eq!((&report["status"], &report["load"], &report["error"]), (&"healthy".into(), &Value::Null, &Value::Null));
    let pool_size = serde_json::json!({"size": 2, "min": 1, "max": 8, "healthy": 2, "active": 0, "utilization": 0.0});
    assert_eq!(report["pool"], pool_size);
    for client in report["clients"].as_array().unwrap() {
        assert_eq!((&client["status"], &client["breaker"]), (&"healthy".into(), &"closed".into()));
        assert_eq!((client["score"].as_f64(), client["errors"].as_u64()), (Some(1.0), Some(0)));
        let checks = client["checks"].as_array().unwrap();
        let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["ping", "container_list", "event_stream"]);
        assert!(checks.iter().all(|check| check["ok"] == true && check["latency_ms"].as_f64() > Some(0.0)));
    }
    let check = pool(&engine, &engine.host(), &["--check"]);
    assert_eq!((check.code, check.stderr.as_str(), check.stdout.len()), (Some(0), "", 0));
    let check = pool(&engine, &engine.host(), &["--check", "--format", "json"]);
    assert_eq!((check.code, check.stderr.as_str(), &check.records()[0]["status"]), (Some(0), "", &"healthy".into()));
    let table = pool(&engine, &engine.host(), &["--size", "3"]);
    let lines = table.lines();
    assert!(lines.contains(&"Status    healthy: 3 of 3 clients healthy".to_owned()), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("  healthy   1.00  closed")).count(), 3, "{lines:?}");
}

#[test]
fn a_load_is_put_through_the_pool_whole_though_its_connections_are_cut() {
    const REQUESTS: u64 = 6000;
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let words = ["pool", "--requests", &REQUESTS.to_string(), "--concurrency", "8", "--format", "json"];
    let load = Watch::at(&engine, &proxy.host(), &words);
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

/// The check that cron makes: one line, of these words, and 4.
#[track_caller]
fn assert_check(finished: &Finished, words: &str) {
    let expected = format!("error: the connection pool is {words}\n");
    assert_eq!((finished.code, &finished.stderr, finished.stdout.len()), (Some(4), &expected, 0));
}

/// The same engine without `--check`: a report all the same, and 3.
#[track_caller]
fn assert_report(finished: &Finished, words: &str) {
    let report = report(finished);
    assert_eq!((finished.code, &report["status"]), (Some(3), &"unhealthy".into()), "{finished:?}");
    assert_eq!((&report["engine"], &report["pool"]["healthy"]), (&Value::Null, &0.into()));
    assert_eq!(report["error"], words);
    assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
}

#[test]
fn an_engine_that_is_dead_or_forbidden_or_of_another_age_is_told_apart_in_words() {
    let engine = Engine::start();
    let check = |host: &str, words: &str| {
        assert_check(&pool(&engine, host, &["--check"]), &format!("unhealthy: {words}"));
        assert_report(&pool(&engine, host, &["--format", "json"]), words);
        let both = pool(&engine, host, &["--check", "--format", "json"]);
        assert_eq!((both.code, &report(&both)["error"]), (Some(4), &words.into()));
    };
    check(
        "unix:///nowhere.sock",
        "cannot reach the Docker engine at unix:///nowhere.sock: No such file or directory (os error 2)",
    );
    let old = Script::start(|request: &Request, answer: &mut Answer| match &request.version {
        None => answer.raw(b"HTTP/1.1 200 OK\r\nApi-Version: 1.30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Some(_) => {
            answer.json(400, r#"{"message":"client version 1.41 is too new. Maximum supported API version is 1.30"}"#)
        }
    });
    check(&old.host(), "the engine speaks API 1.30 at most and 1.41 is needed: it is too old");
    let new = Script::start(|request: &Request, answer: &mut Answer| {
        match &request.version {
        None => answer.raw(b"HTTP/1.1 200 OK\r\nApi-Version: 1.99\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Some(_) => answer.json(
            400,
            r#"{"message":"client version 1.41 is too old. Minimum supported API version is 1.90, please upgrade your client to a newer version"}"#,
        ),
    }
    });
    let finished = pool(&engine, &new.host(), &["--check"]);
    assert_eq!(finished.code, Some(4));
    assert!(finished.stderr.ends_with("it is too new\n"), "{}", finished.stderr);
    let proxy = Proxy::start(&engine);
    proxy.on("", Fault::Status(500));
    let finished = pool(&engine, &proxy.host(), &["--check"]);
    assert_eq!(finished.code, Some(4));
    let told = "error: the connection pool is unhealthy: the engine answered 500: ";
    assert!(finished.stderr.starts_with(told) && finished.stderr.lines().count() == 1, "{}", finished.stderr);
    proxy.heal();
    // What stands where cargo puts it is root's alone.
    let path = engine.home().join("docker-logwatch");
    fs::copy(env!("CARGO_BIN_EXE_docker-logwatch"), &path).unwrap();
    fs::set_permissions(engine.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    engine.furnish(&mut command);
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(path);
    let finished =
        Watch::spawn(command.env_remove("DOCKER_HOST").args(["-H", &engine.host(), "pool", "--check"])).finish();
    assert_check(
        &finished,
        &format!(
            "unhealthy: permission denied on the Docker socket at {}: Permission denied (os error 13)",
            engine.host()
        ),
    );
}

#[test]
fn an_engine_that_takes_connections_and_says_nothing_is_told_within_ten_seconds() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    proxy.on("", Fault::Stall);
    let begun = Instant::now();
    let finished = pool(&engine, &proxy.host(), &["--check"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_check(&finished, &format!("unhealthy: no answer from {} within 9s", proxy.host()));
}

#[test]
fn an_engine_whose_listing_hangs_is_told_within_ten_seconds_however_long_it_took_to_say_who_it_is() {
    for seconds in [0, 5] {
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
        let told = "error: the connection pool is unhealthy: 0 of 2 clients healthy, client 0: container_list: no answer from ";
        assert!(finished.stderr.starts_with(told), "{}", finished.stderr);
    }
}

/// An engine that is well but for what `fails` says of a path and how often it was asked for before.
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

fn pool_of_nobody(script: &Script, words: &[&str]) -> Finished {
    let mut command = Watch::command();
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nonexistent");
    Watch::spawn(command.args(["-H", &script.host(), "pool"]).args(words)).finish()
}

#[test]
fn a_pool_of_which_some_clients_are_unwell_is_degraded_which_only_a_check_takes_for_a_failure() {
    let script = unwell(|path, before| path == "/containers/json" && before % 2 == 0);
    // Either client may be the first to ask.
    let words = [0, 1].map(|client| {
        format!("1 of 2 clients healthy, client {client}: container_list: the engine answered 500: unwell")
    });
    let check = pool_of_nobody(&script, &["--check"]);
    let unwell = words.iter().position(|words| check.stderr.contains(words)).unwrap_or(0);
    assert_check(&check, &format!("degraded: {}", words[unwell]));
    let finished = pool_of_nobody(&script, &["--format", "json"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let report = report(&finished);
    assert_eq!((&report["status"], &report["pool"]["healthy"]), (&"degraded".into(), &1.into()));
    let unwell = words.iter().position(|words| report["error"] == **words).unwrap_or_else(|| panic!("{report}"));
    let of = |client: usize| report["clients"][client]["status"].clone();
    assert_eq!([of(unwell), of(1 - unwell)], ["unhealthy", "healthy"]);
}

#[test]
fn no_more_clients_are_opened_than_are_of_any_use() {
    let script = unwell(|_, _| false);
    let finished = pool_of_nobody(&script, &["--size", "1001"]);
    assert_eq!((finished.code, script.requests()), (Some(2), Vec::new()));
    assert!(
        finished.stderr.contains("invalid value '1001' for '--size <N>': expected at most 1000"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_check_that_fails_alone_is_warned_of() {
    for (path, name) in [("/events", "event_stream"), ("/_ping", "ping")] {
        // The first is that of the greeting.
        let script = unwell(move |asked, before| asked == path && (before > 0 || path == "/events"));
        let finished = pool_of_nobody(&script, &["--check"]);
        let told = " WARN the connection pool is healthy, but a check failed: client 0: ";
        let expected = format!("{told}{name}: the engine answered 500: unwell\n");
        assert_eq!((finished.code, finished.stderr, finished.stdout.len()), (Some(0), expected, 0), "{name}");
    }
}

#[test]
fn a_pool_whose_listing_fails_is_unhealthy_and_says_which_check_failed() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    proxy.on("/containers/json", Fault::Status(500));
    let finished = pool(&engine, &proxy.host(), &["--format", "json"]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let report = report(&finished);
    assert_eq!((&report["status"], &report["pool"]["healthy"]), (&"unhealthy".into(), &0.into()));
    let client = &report["clients"][0];
    assert_eq!((&client["status"], client["score"].as_f64()), (&"unhealthy".into(), Some(0.6)));
    assert_eq!((&client["checks"][0]["ok"], &client["checks"][1]["ok"]), (&true.into(), &false.into()));
    let check = pool(&engine, &proxy.host(), &["--check"]);
    assert_eq!((check.code, check.stderr.lines().count()), (Some(4), 1));
    let told = "error: the connection pool is unhealthy: 0 of 2 clients healthy, client 0: container_list: the engine answered 500";
    assert!(check.stderr.starts_with(told), "{}", check.stderr);
}

#[test]
fn a_load_on_a_terminal_shows_how_far_it_is_and_takes_that_away() {
    let engine = Engine::start();
    let binary = env!("CARGO_BIN_EXE_docker-logwatch");
    let line = format!("{binary} -H {} pool --requests 20000 --format json > /dev/null", engine.host());
    let mut script = Command::new("script");
    engine.furnish(&mut script);
    let output =
        script.env_remove("DOCKER_HOST").env("TERM", "xterm").args(["-qec", &line, "/dev/null"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" of 20000 requests, "), "{text:?}");
    assert!(text.ends_with("\r\x1b[2K"), "{text:?}");
}

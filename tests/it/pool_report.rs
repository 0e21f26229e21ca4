//! `pool` with a private engine: its report on a healthy one, the causes of failure, and the progress of a load.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::{Answer, Engine, Fault, Finished, Proxy, Request, Script, Watch, assert_pool_check, report};

fn pool(engine: &Engine, host: &str, args: &[&str]) -> Finished {
    Watch::at(engine, host, &[&["pool"], args].concat()).finish()
}

/// `--check` on a healthy engine prints nothing.
#[test]
fn a_healthy_engine_is_reported_in_full() {
    let engine = Engine::start();
    let finished = pool(&engine, &engine.host(), &["--format", "json"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let report = report(&finished);
    let reported = engine.must(&["info", "--format", "{{.ID}} {{.ServerVersion}} {{.LoggingDriver}}"]);
    let of = |key: &str| report["engine"][key].as_str().unwrap().to_owned();
    assert_eq!(format!("{} {} {}", of("id"), of("version"), of("logging_driver")), reported);
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

/// Fails unless the same engine without `--check` gives a report and exit code 3.
#[track_caller]
fn assert_report(finished: &Finished, reason: &str) {
    let report = report(finished);
    assert_eq!((finished.code, &report["status"]), (Some(3), &"unhealthy".into()), "{finished:?}");
    assert_eq!((&report["engine"], &report["pool"]["healthy"]), (&Value::Null, &0.into()));
    assert_eq!(report["error"], reason);
    assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
}

/// An engine may be dead, forbidden, too old or too new.
#[test]
fn causes_of_failure_are_told_apart() {
    let engine = Engine::start();
    let check = |host: &str, reason: &str| {
        assert_pool_check(&pool(&engine, host, &["--check"]), &format!("unhealthy: {reason}"));
        assert_report(&pool(&engine, host, &["--format", "json"]), reason);
        let both = pool(&engine, host, &["--check", "--format", "json"]);
        assert_eq!((both.code, &report(&both)["error"]), (Some(4), &reason.into()));
    };
    check(
        "unix:///nowhere.sock",
        "cannot reach the Docker Engine at unix:///nowhere.sock: No such file or directory (os error 2)",
    );
    let old = Script::start(|request: &Request, answer: &mut Answer| match &request.version {
        None => answer.raw(b"HTTP/1.1 200 OK\r\nApi-Version: 1.30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Some(_) => {
            answer.json(400, r#"{"message":"client version 1.41 is too new. Maximum supported API version is 1.30"}"#)
        }
    });
    check(&old.host(), "the Docker Engine is too old: it supports API versions up to 1.30, and 1.41 is needed");
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
    assert!(finished.stderr.ends_with("and 1.41 was requested\n"), "{}", finished.stderr);
    let proxy = Proxy::start(&engine);
    proxy.on("", Fault::Status(500));
    let finished = pool(&engine, &proxy.host(), &["--check"]);
    assert_eq!(finished.code, Some(4));
    let reported = "error: the connection pool is unhealthy: the Docker Engine answered 500: ";
    assert!(finished.stderr.starts_with(reported) && finished.stderr.lines().count() == 1, "{}", finished.stderr);
    proxy.heal();
    // The build directory may be readable by root alone.
    let path = engine.home().join("docker-logwatch");
    fs::copy(env!("CARGO_BIN_EXE_docker-logwatch"), &path).unwrap();
    fs::set_permissions(engine.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    engine.configure(&mut command);
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(path);
    let finished =
        Watch::spawn(command.env_remove("DOCKER_HOST").args(["-H", &engine.host(), "pool", "--check"])).finish();
    assert_pool_check(
        &finished,
        &format!(
            "unhealthy: permission denied on the Docker socket at {}: Permission denied (os error 13)",
            engine.host()
        ),
    );
}

/// The progress line is removed in the end.
#[test]
fn a_load_shows_progress_on_a_terminal() {
    let engine = Engine::start();
    let binary = env!("CARGO_BIN_EXE_docker-logwatch");
    let line = format!("{binary} -H {} pool --requests 20000 --format json > /dev/null", engine.host());
    let mut script = Command::new("script");
    engine.configure(&mut script);
    let output =
        script.env_remove("DOCKER_HOST").env("TERM", "xterm").args(["-qec", &line, "/dev/null"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" of 20000 requests, "), "{text:?}");
    assert!(text.ends_with("\r\x1b[2K"), "{text:?}");
}

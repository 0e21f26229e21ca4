//! Tests of the support itself, where a fault in it would let other tests pass.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use super::engine::{mounts, shim_sockets};
use super::{Answer, Engine, Fault, Numbers, Proxy, Request, Script, Watch, eventually, process};

/// The standard output of `docker logs`, by lines.
fn logs(engine: &Engine, container: &str) -> Vec<String> {
    engine.must(&["logs", container]).lines().map(str::to_owned).collect()
}

/// What `/chatter` writes is what `docker logs` returns.
#[test]
fn containers_write_what_docker_logs_shows() {
    let engine = Engine::start();
    let id = engine.run("web", &["--log-opt", "max-size=1m"], &["--count", "1000", "--exit", "3"]);
    assert_eq!(engine.wait("web"), 3);
    let lines = logs(&engine, "web");
    assert_eq!(lines[0], "line 000000001");
    Numbers::of_raw("web", &lines).assert_whole("web", 1..=1000);
    assert!(fs::read_to_string(engine.log_path(&id)).unwrap().starts_with("{\"log\":\"line 000000001\\n\""));
    engine.must(&["start", "web"]);
    engine.wait("web");
    let flaw = Numbers::of_raw("web", &logs(&engine, "web")).flaw("web", 1..=1000).unwrap();
    assert!(flaw.starts_with("web: 1000 of 1000: 1000 twice, first 1; out of order"), "{flaw}");
}

/// Containers live on with `--live-restore` when the engine is stopped or killed.
#[test]
fn a_stopped_or_killed_engine_returns() {
    let engine = Engine::with(&["--live-restore"]);
    engine.run("steady", &[], &["--forever", "--rate", "100"]);
    let pid = |engine: &Engine| engine.must(&["inspect", "--format", "{{.State.Pid}}", "steady"]);
    let before = pid(&engine);
    let first = engine.pid();
    engine.kill();
    assert!(!process::lives(first) && process::lives(before.parse().unwrap()));
    engine.up();
    engine.restart();
    assert_eq!(pid(&engine), before, "live-restore keeps the container");
    assert!(engine.cpu() > Duration::ZERO && engine.descriptors() > 5);
}

/// After an engine is dropped no process, mount, cgroup or file of it is left.
#[test]
fn an_engine_leaves_nothing_behind() {
    let mut left = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let engine = Engine::start();
        engine.run("always", &["--restart", "always"], &["--forever", "--rate", "10"]);
        engine.run("volume", &["--volume", "data:/data"], &["--idle"]);
        let home = engine.home().to_owned();
        let family = process::family(&home);
        assert!(family.len() >= 6, "dockerd, containerd, two shims, two containers: {family:?}");
        assert!(mounts(&home).len() >= 3);
        let sockets = shim_sockets(&home);
        assert!(sockets.len() == 2 && sockets.iter().all(|socket| socket.exists()), "{sockets:?}");
        left = Some((home, family, sockets));
        panic!("a test fails");
    }));
    assert!(panicked.is_err());
    let (home, family, sockets) = left.unwrap();
    assert_eq!(family.iter().filter(|pid| process::lives(**pid)).count(), 0);
    assert_eq!(process::family(&home), [0; 0]);
    assert_eq!(mounts(&home), [""; 0]);
    assert!(!home.exists());
    assert!(!sockets.iter().any(|socket| socket.exists()));
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name"]).arg(home.file_name().unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// Each fault has its effect on the requests it selects, and on no other.
#[test]
fn the_proxy_applies_and_counts_faults() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let ask = |args: &[&str]| {
        let output = engine.command().env("DOCKER_HOST", proxy.host()).args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(ask(&["ps"]).0);
    assert_eq!(proxy.count("/containers/json"), 1);

    engine.run("steady", &[], &["--forever", "--rate", "200"]);
    let mut command = engine.command();
    let follow = Watch::spawn(command.env("DOCKER_HOST", proxy.host()).args(["logs", "-f", "steady"]));
    follow.wait_for_count(20);
    proxy.on("/logs", Fault::Stall);
    // What was under way when the rule was added may still arrive.
    eventually("nothing came for a while", || {
        let before = follow.lines().len();
        std::thread::sleep(Duration::from_millis(100));
        follow.lines().len() == before
    });
    assert_eq!(proxy.open(), 1);
    proxy.heal();
    let stalled = follow.lines().len();
    follow.wait_for_count(stalled + 50);
    assert_eq!(proxy.cut_where("/logs"), 1);
    let lines = follow.finish().lines();
    let whole = Numbers::of_raw("steady", &lines);
    whole.assert_whole("steady", 1..=whole.count("steady") as u64);

    proxy.on("/containers/json", Fault::Status(500));
    assert!(ask(&["ps"]).1.contains("the proxy says 500"));
    assert!(ask(&["version"]).0);
    proxy.heal();
    proxy.on("", Fault::Delay(Duration::from_millis(200)));
    let asked = Instant::now();
    assert!(ask(&["ps"]).0 && asked.elapsed() >= Duration::from_millis(200));
    proxy.heal();
    engine.run("done", &[], &["--count", "5000"]);
    engine.wait("done");
    let logs = |host: &str| engine.command().env("DOCKER_HOST", host).args(["logs", "done"]).output().unwrap();
    assert!(logs(&proxy.host()).stdout == logs(&engine.host()).stdout);
    proxy.on("/logs", Fault::Corrupt);
    assert!(logs(&proxy.host()).stdout != logs(&engine.host()).stdout);
    proxy.heal();
    proxy.on("", Fault::Hangup);
    assert!(!ask(&["ps"]).0);
    proxy.heal();
    proxy.refuse();
    assert!(ask(&["ps"]).1.contains("Cannot connect"));
    proxy.admit();
    assert!(ask(&["ps"]).0);
}

/// The docker CLI accepts the answers of a scripted engine.
#[test]
fn a_script_serves_the_docker_cli() {
    let script = Script::start(|request: &Request, answer: &mut Answer| match request.path.as_str() {
        "/_ping" => answer.json(200, "OK"),
        "/containers/x/json" => answer.json(200, r#"{"Id":"x","Config":{"Tty":false}}"#),
        path if path.starts_with("/containers/x/logs") => {
            answer.begin("application/vnd.docker.raw-stream");
            answer.frame(1, b"one\n");
            answer.frame(2, b"two\n");
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    });
    let mut docker = Command::new("docker");
    let logs = Watch::spawn(docker.args(["-H", &script.host(), "logs", "x"])).finish();
    assert_eq!((logs.code, logs.stdout.as_slice(), logs.stderr.as_str()), (Some(0), b"one\n".as_slice(), "two\n"));
    assert!(script.requests().last().unwrap().starts_with("GET /v1.41/containers/x/logs?"));
    let mut docker = Command::new("docker");
    let lost = Watch::spawn(docker.args(["-H", &script.host(), "logs", "y"])).finish();
    // Docker 20.10 replaces the message by its own.
    let reported = ["not in the script", "No such container: y"];
    assert!(reported.iter().any(|args| lost.stderr.contains(args)), "{}", lost.stderr);
}

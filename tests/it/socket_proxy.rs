//! Proxies before the engine that allow only some requests: what works without the others, and what the errors say.

use super::support::{Engine, Fault, Finished, PATIENCE, Proxy, Watch, records};

/// The expected result of a command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes {
    /// Everything that was requested, and exit code 0.
    All,
    /// This exit code, and one line that names the request.
    End(i32),
}
use Comes::{All, End};

const COMMANDS: [&[&str]; 8] = [
    &["watch"],
    &["watch", "--source", "stream"],
    &["watch", "--no-follow"],
    &["watch", "--no-follow", "--source", "stream"],
    &["watch", "--dry-run"],
    &["events", "--since", "0", "--count", "1"],
    &["reconcile", "--dry-run"],
    &["pool", "--check"],
];

/// Each request that we ever send, as a part of its line and by its name in messages, and the results of [`COMMANDS`]
/// when only that request is refused.
const REQUESTS: [(&str, &str, [Comes; COMMANDS.len()]); 7] = [
    ("/_ping", "/_ping (CODE): allow it (PING=1)", [All; 8]),
    ("/version", "", [All; 8]),
    ("/info", "/info (CODE): allow it (INFO=1)", [All, All, All, All, All, All, End(3), All]),
    (
        "/containers/json",
        "/containers/json (CODE): allow it (CONTAINERS=1)",
        [End(3), End(3), End(3), End(3), End(3), All, End(3), End(4)],
    ),
    // Only a plan needs this, for its remarks on logging drivers.
    ("ID/json", "", [All; 8]),
    ("ID/logs", "/containers/ID/logs (CODE): allow it (CONTAINERS=1)", [All, All, All, End(3), All, All, All, All]),
    ("/events", "/events (CODE): allow it (EVENTS=1)", [All, All, All, All, All, End(3), All, All]),
];

/// Only the inventory uses volumes.
const VOLUMES: (&str, &str, [Comes; COMMANDS.len()]) =
    ("/volumes", "/volumes (CODE): allow it (VOLUMES=1)", [All, All, All, All, All, All, End(3), All]);

/// Runs a command to its end, or, if it follows, until it has printed what it can.
fn run(engine: &Engine, proxy: &Proxy, args: &[&str], reported: &str) -> Finished {
    let state = engine.home().join("state.db");
    let global = ["--state", state.to_str().unwrap()];
    // Temporary notices are ignored.
    let watch = {
        let mut command = Watch::command();
        engine.configure(&mut command);
        command.env("LOGWATCH_DOCKER_POOL_MAX_RETRIES", "0").env_remove("DOCKER_HOST");
        Watch::spawn(command.arg("-H").arg(proxy.host()).args(global).args(args))
    };
    if args == ["watch"] || args == ["watch", "--source", "stream"] {
        let is_reported = |lines: &[String]| {
            let is_over =
                lines.iter().any(|line| line.starts_with("error: ") || !reported.is_empty() && line.contains(reported));
            is_over || lines.iter().any(|line| line.starts_with("+ web"))
        };
        watch.wait_for_notice(is_reported, PATIENCE);
        if !watch.notices().iter().any(|line| line.starts_with("error: ") || line.starts_with("! web")) {
            watch.wait_for_count(1);
            return watch.stop();
        }
        if watch.notices().iter().any(|line| line.starts_with("! web")) {
            return watch.stop();
        }
    }
    watch.finish()
}

/// A refused request that a command does not need does no harm; one that it needs is named with the permission for it.
#[test]
fn a_blocked_request_costs_only_its_users() {
    let engine = Engine::start();
    let id = engine.run("web", &[], &["--count", "1", "--idle"]);
    let proxy = Proxy::start(&engine);
    for (part, reported, outcomes) in REQUESTS.iter().chain([&VOLUMES]) {
        for fault in [Fault::Page(403), Fault::Page(404), Fault::Page(405)] {
            proxy.heal();
            proxy.on(&part.replace("ID", &id), fault);
            let Fault::Page(code) = fault else { unreachable!() };
            let reported = reported.replace("CODE", &code.to_string()).replace("ID", &id);
            for (args, expected) in COMMANDS.iter().zip(outcomes) {
                let finished = run(&engine, &proxy, args, &reported);
                let (stdout, stderr) = (String::from_utf8_lossy(&finished.stdout), &finished.stderr);
                let case = format!("{part} {code} {args:?}: {:?}\n{stdout}{stderr}", finished.code);
                assert!(!stderr.contains("html") && !stdout.contains("html"), "{case}");
                match expected {
                    All => assert_eq!(finished.code, Some(0), "{case}"),
                    End(exit) => {
                        assert_eq!(finished.code, Some(*exit), "{case}");
                        let reported = format!("the Docker Engine or a proxy in front of it refuses GET {reported}");
                        let lines = stderr.lines().filter(|line| line.contains(&reported)).count();
                        assert!((1..=2).contains(&lines), "{case}");
                    }
                }
            }
        }
    }
}

/// The error names the request when a gateway cannot reach the engine, and does not print the gateway's page.
#[test]
fn a_request_that_meets_a_gateway_is_named() {
    let engine = Engine::start();
    let id = engine.run("web", &[], &["--count", "1", "--idle"]);
    let proxy = Proxy::start(&engine);
    for (part, name, outcomes) in [
        ("/_ping", "/_ping", [End(1), End(1), End(1), End(1), End(1), End(1), End(1), End(4)]),
        ("/info", "/info", [End(1), End(1), End(1), End(1), End(1), All, End(1), End(4)]),
        ("/containers/json", "/containers/json", [End(1), End(1), End(1), End(1), End(1), All, End(1), End(4)]),
        ("ID/json", "/containers/ID/json", [All, All, All, All, End(1), All, All, All]),
        ("/events", "/events", [End(1), End(1), All, All, All, End(1), End(1), All]),
        ("/volumes", "/volumes", [All, All, All, All, All, All, End(1), All]),
    ] {
        proxy.heal();
        proxy.on(&part.replace("ID", &id), Fault::Page(502));
        let reported = format!("GET {} with 502 Bad Gateway", name.replace("ID", &id));
        for (args, expected) in COMMANDS.iter().zip(outcomes) {
            let finished = run(&engine, &proxy, args, &reported);
            let case = format!("{part} {args:?}: {:?}\n{}", finished.code, finished.stderr);
            assert!(!finished.stderr.contains("html"), "{case}");
            match expected {
                All => assert_eq!(finished.code, Some(0), "{case}"),
                End(exit) => {
                    assert_eq!(finished.code, Some(exit), "{case}");
                    assert!(finished.stderr.contains(&reported), "{case}");
                }
            }
        }
    }
}

/// Log files are read without `/info` if a container's data show where they are; what needs the engine's ID says so.
#[test]
fn without_info_files_are_still_read() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "5", "--idle"]);
    let proxy = Proxy::start(&engine);
    proxy.on("/info", Fault::Page(403));
    let at = |args: &[&str]| Watch::at(&engine, &proxy.host(), args);
    let refused = "the Docker Engine or a proxy in front of it refuses GET /info (403): allow it (INFO=1)";
    let read = at(&["watch", "--no-follow", "--format", "json", "--source", "file"]).finish();
    let sources: Vec<_> = records(read.lines()).iter().map(|record| record["source"].clone()).collect();
    assert_eq!((read.code, read.stderr.as_str(), sources), (Some(0), "", vec!["file".into(); 5]));
    let resumed = at(&["watch", "--resume"]).finish();
    assert_eq!((resumed.code, resumed.stderr.lines().next()), (Some(3), Some(&*format!("error: {refused}"))));
    let state = engine.home().join("state.db");
    let watch = at(&["watch", "--state", state.to_str().unwrap()]);
    watch.wait_for_count(5);
    let reported = watch.stop().stderr;
    assert!(
        reported.contains(&format!("{refused}; without the engine's ID the inventory is not updated\n")),
        "{reported}"
    );
    engine.must(&["rm", "--force", "web"]);
    let nowhere = at(&["watch", "--source", "file"]).finish();
    assert_eq!((nowhere.code, nowhere.stderr.lines().next()), (Some(3), Some(&*format!("error: {refused}"))));
}

/// Where events are refused, listings find the containers, and one notice says so.
#[test]
fn without_events_containers_are_listed_instead() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1", "--idle"]);
    let proxy = Proxy::start(&engine);
    proxy.on("/events", Fault::Page(403));
    let mut command = Watch::command();
    engine.configure(&mut command);
    command.env("LOGWATCH_EVENTS_RECONCILE_INTERVAL", "1s").env_remove("DOCKER_HOST");
    let watch = Watch::spawn(command.arg("-H").arg(proxy.host()).args(["watch", "--source", "stream"]));
    watch.wait_for_count(1);
    engine.run("later", &[], &["--count", "1", "--idle"]);
    watch.wait_for_count(2);
    let reported = "the Docker Engine or a proxy in front of it refuses GET /events (403): allow it (EVENTS=1); containers are listed \
                every 1s instead";
    assert_eq!(watch.stop().stderr.lines().filter(|line| *line == reported).count(), 1);
}

//! `events` compared with `docker events`: the same lines, none missing and none twice, whatever happens to the
//! connection. And the event client of `watch`: without events it uses listings. `no_engine::events` has what needs no
//! engine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Engine, Fault, IMAGE, PATIENCE, Proxy, Script, Signal, Watch, configured, eventually, get, long, place, process,
};
use logwatch::internals::model::Timestamp;

/// How many events the engine remembers.
const HISTORY: usize = 256;

/// Seconds since the Unix epoch in the form of docker's CLI.
fn now() -> String {
    let now = Timestamp::now();
    now.api()
}

/// `POST` or `DELETE` with a JSON body, without docker's CLI, which is slow.
#[track_caller]
fn call(engine: &Engine, method: &str, path: &str, body: &str) {
    let mut socket = UnixStream::connect(engine.socket()).unwrap();
    let head = "Host: docker\r\nContent-Type: application/json";
    write!(socket, "{method} {path} HTTP/1.0\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1).unwrap_or_default().starts_with('2'), "{method} {path}: {answer}");
}

fn make_volume(engine: &Engine, name: &str) {
    call(engine, "POST", "/volumes/create", &format!(r#"{{"Name":"{name}"}}"#));
}

fn remove_volume(engine: &Engine, name: &str) {
    call(engine, "DELETE", &format!("/volumes/{name}"), "");
}

/// Creates and removes a container without starting it.
fn live(engine: &Engine, name: &str) {
    let body = format!(r#"{{"Image":"{IMAGE}","HostConfig":{{"NetworkMode":"none"}},"Labels":{{"life":"{name}"}}}}"#);
    call(engine, "POST", &format!("/containers/create?name={name}"), &body);
    call(engine, "DELETE", &format!("/containers/{name}"), "");
}

/// Creates volumes, two events each.
fn make_volumes(engine: &Engine, prefix: &str, count: usize) {
    for number in 0..count {
        let name = format!("{prefix}{number}");
        make_volume(engine, &name);
        remove_volume(engine, &name);
    }
}

fn ours(engine: &Engine, args: &[&str]) -> Watch {
    Watch::subcommand(engine, "events", args)
}

/// `docker events`, its output awaited like ours.
fn theirs(engine: &Engine, args: &[&str]) -> Watch {
    Watch::spawn(engine.command().arg("events").args(args))
}

/// Waits until it receives events: a volume is created until its event is printed.
fn wait_until_reported(engine: &Engine, watches: &[&Watch], name: &str) {
    for attempt in 0.. {
        let name = format!("{name}-{attempt}");
        make_volume(engine, &name);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            if watches.iter().all(|watch| watch.lines().iter().any(|line| line.contains(&name))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(attempt < 15, "no event of it came");
    }
}

/// Waits until each has printed the event of a volume that is created last.
fn wait_for_end(engine: &Engine, watches: &[&Watch], name: &str) {
    make_volume(engine, name);
    let is_end =
        |line: &String| line.contains(&format!("create {name} ")) || line.contains(&format!(r#""ID":"{name}""#));
    watches.iter().for_each(|watch| watch.wait_for(|lines| lines.iter().any(is_end), PATIENCE));
}

/// The lines from the first event of a name on, sorted by their text.
fn sorted_from(lines: &[String], name: &str) -> Vec<String> {
    let from = lines.iter().position(|line| line.contains(name)).unwrap();
    let mut lines = lines[from..].to_vec();
    lines.sort();
    lines
}

/// JSON in the form of Go 1.22 and later, with which newer docker clients are built: `\b` and `\f` instead of `\u0008`
/// and `\u000c`.
fn with_short_escapes(json: &str) -> String {
    let mut short = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        short.push_str(before);
        let (name, length) = match escape {
            _ if escape.starts_with("\\u0008") => ("\\b", 6),
            _ if escape.starts_with("\\u000c") => ("\\f", 6),
            // The backslash and the character it escapes, which may be a backslash.
            _ => (&escape[..2], 2),
        };
        short.push_str(name);
        rest = &escape[length..];
    }
    short + rest
}

#[track_caller]
fn assert_same_as_docker(engine: &Engine, filters: &[&str], window: &[&str], zone: &str) -> usize {
    let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
    let mut lines = 0;
    for (format, dockers) in [("text", None), ("json", Some(["--format", "{{json .}}"]))] {
        let args = [window, &filters].concat();
        let mut asked = engine.command();
        asked.env("TZ", zone).arg("events").args(&args).args(dockers.into_iter().flatten());
        let theirs = asked.output().unwrap();
        assert!(theirs.status.success(), "{filters:?}: {}", String::from_utf8_lossy(&theirs.stderr));
        let mut command = Watch::command();
        engine.configure(&mut command);
        let got = command.env("TZ", zone).arg("events").args(&args).args(["--format", format]).output().unwrap();
        let got_text = String::from_utf8(got.stdout).unwrap();
        let mut text = String::from_utf8(theirs.stdout).unwrap();
        if format == "json" {
            text = with_short_escapes(&text);
        }
        assert_eq!(got_text, text, "{filters:?} as {format}");
        assert_eq!((got.status.code(), String::from_utf8_lossy(&got.stderr).as_ref()), (Some(0), ""), "{filters:?}");
        lines = text.lines().count();
    }
    lines
}

/// For each filter, window and time zone the lines are those of `docker events`, as text and as JSON.
#[test]
fn filtered_events_match_docker_events() {
    let engine = Engine::start();
    let since = now();
    let hostile = "esc=\u{1b}[31m\u{7}<b>&\"quoted\"\\ \u{2028}\u{9b}\u{202e}\r\nline\u{8}\u{c}";
    let labels = ["--label", "tier=front", "--label", "owner=me", "--label", hostile, "--volume", "data:/data"];
    let id = engine.run("web", &labels, &["--count", "1"]);
    engine.wait("web");
    engine.run("db", &["--label", "tier=back", "--health-cmd", "--count 0", "--health-interval", "200ms"], &["--idle"]);
    eventually("its health is reported", || {
        engine.must(&["inspect", "-f", "{{.State.Health.Status}}", "db"]) != "starting"
    });
    engine.must(&["rename", "db", "base"]);
    engine.must(&["pause", "base"]);
    engine.must(&["unpause", "base"]);
    engine.must(&["tag", IMAGE, "other:1"]);
    engine.must(&["rmi", "other:1"]);
    engine.must(&["rm", "-f", "base"]);
    engine.must(&["rm", "web"]);
    engine.must(&["volume", "rm", "data"]);
    engine.must(&["volume", "create", "--label", "tier=front", "cache"]);
    engine.must(&["container", "prune", "--force"]);
    let daemon = engine.must(&["info", "--format", "{{.ID}}"]);
    process::signal(engine.pid(), Signal::HUP);
    let reloads = || {
        let until = now();
        let args = ["events", "--since", &since, "--until", &until, "--filter", "event=reload"];
        !engine.must(&args).is_empty()
    };
    eventually("it read its configuration again", reloads);
    let until = now();
    let window = ["--since", &since, "--until", &until];
    let all = assert_same_as_docker(&engine, &[], &window, "");
    assert!((20..HISTORY).contains(&all), "{all} events");
    let container = format!("container={}", &id[..12]);
    let daemon = format!("daemon={daemon}");
    let image = format!("image={IMAGE}");
    for filters in [
        &["type=container"][..],
        &["type=volume"],
        &["type=network"],
        &["type=image"],
        &["type=daemon"],
        &["type=container", "type=volume"],
        &["event=create"],
        &["event=create", "event=destroy", "event=reload"],
        &["event=die"],
        &["event=health_status"],
        &["event=exec_create", "event=die"],
        &["container=web"],
        &["container=base"],
        &[&container],
        &[&image],
        &["label=tier"],
        &["label=tier=front"],
        &["label=tier=front", "label=owner=me"],
        &["volume=data"],
        &["network=none"],
        &[&daemon],
        &["scope=local"],
        &["type=container", "event=start", "label=tier=back"],
        &[" TYPE = volume "],
    ] {
        let some = assert_same_as_docker(&engine, filters, &window, "");
        assert!((1..all).contains(&some) || filters == ["scope=local"], "{filters:?} shows {some} of {all}");
    }
    for filters in [
        &["scope=swarm"][..],
        &["event=no-such"],
        &["type=plugin"],
        &["plugin=x"],
        &["node=x"],
        &["service=x"],
        &["secret=x"],
        &["config=x"],
        &["label=tier=front", "label=tier=back"],
        &["container=web", "type=volume"],
    ] {
        assert_eq!(assert_same_as_docker(&engine, filters, &window, ""), 0, "{filters:?}");
    }
    for zone in ["America/St_Johns", "Asia/Kolkata", "UTC"] {
        assert_eq!(assert_same_as_docker(&engine, &[], &window, zone), all, "in {zone}");
    }
}

/// Compared with `docker events`, no event is missing and none comes twice, although the connection is cut repeatedly.
#[test]
fn cut_again_and_again_no_event_is_lost() {
    let (cuts, lives, volumes) = if long() { (50, 500, 200) } else { (8, 40, 16) };
    let engine = &Engine::start();
    let proxy = Proxy::start(engine);
    let cut = Watch::at(engine, &proxy.host(), &["events", "--format", "json"]);
    let theirs = theirs(engine, &["--format", "{{json .}}"]);
    wait_until_reported(engine, &[&cut, &theirs], "begin");
    make_volume(engine, "first");
    thread::scope(|scope| {
        // No more events in one outage than the engine remembers.
        let pace = |millis| thread::sleep(Duration::from_millis(millis));
        scope.spawn(move || {
            for number in 0..lives {
                live(engine, &format!("life-{number}"));
                pace(100);
            }
        });
        scope.spawn(move || {
            for number in 0..volumes {
                make_volumes(engine, &format!("volume-{number}-"), 1);
                pace(250);
            }
        });
        for cuts in 1..=cuts {
            proxy.cut();
            let back = |lines: &[String]| lines.iter().filter(|line| line.contains("is back")).count() == cuts;
            cut.wait_for_notice(back, PATIENCE);
        }
    });
    // Events of the last outage are printed as well.
    live(engine, "last");
    wait_for_end(engine, &[&cut, &theirs], "the-end");
    assert_eq!(sorted_from(&cut.lines(), r#""first""#), sorted_from(&theirs.lines(), r#""first""#));
    let finished = cut.stop();
    assert_eq!(finished.code, Some(0));
    let back = "the event stream is back: no event is missing\n";
    assert_eq!(finished.stderr.matches(back).count(), cuts, "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 2 * cuts, "{}", finished.stderr);
}

/// What the engine no longer remembers is reported as missing, and what it does remember is printed.
#[test]
fn events_beyond_the_engines_memory_are_reported() {
    let engine = Engine::start();
    let proxies = [(); 2].map(|()| Proxy::start(&engine));
    let all = Watch::at(&engine, &proxies[0].host(), &["events"]);
    let some = Watch::at(&engine, &proxies[1].host(), &["events", "--filter", "event=create"]);
    let each = [&all, &some];
    wait_until_reported(&engine, &each, "begin");
    // Other events displace the last one that it saw, and yet it misses nothing.
    live(&engine, "seen");
    some.wait_for(|lines| lines.iter().any(|line| line.contains("name=seen")), PATIENCE);
    let id = engine.create("busy", &[], &[]);
    for number in 0..HISTORY {
        call(&engine, "POST", &format!("/containers/{id}/rename?name=busy{number}"), "");
    }
    wait_for_end(&engine, &each, "full");
    for watch in each {
        assert_eq!(watch.notices(), Vec::<String>::new());
    }
    proxies.iter().for_each(|proxy| proxy.cut());
    for watch in each {
        watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains("no event is missing")), PATIENCE);
    }
    // Now more events happen than the engine remembers.
    proxies.iter().for_each(Proxy::refuse);
    thread::sleep(Duration::from_millis(1500));
    make_volumes(&engine, "lost-", HISTORY / 2 + 20);
    proxies.iter().for_each(Proxy::admit);
    wait_for_end(&engine, &each, "after");
    for watch in each {
        let missing = "events may be missing: more happened meanwhile than the engine remembers";
        watch.wait_for_notice(|lines| lines.iter().any(|line| line == missing), PATIENCE);
    }
    let reported = |watch: &Watch| watch.lines().iter().filter(|line| line.contains("volume create lost-")).count();
    assert!((HISTORY / 2 - 5..HISTORY / 2 + 20).contains(&reported(&all)), "{} of the volumes", reported(&all));
    assert_eq!(reported(&all), reported(&some));
    // The engine's history is gone.
    engine.restart();
    wait_for_end(&engine, &each, "anew");
    for watch in [all, some] {
        let finished = watch.stop();
        assert_eq!(finished.stderr.matches("the engine was restarted").count(), 1, "{}", finished.stderr);
        assert_eq!(finished.stderr.matches("may be missing").count(), 2, "{}", finished.stderr);
        let mut lines = finished.lines();
        let count = lines.len();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), count, "none came twice");
    }
    let late = ours(&engine, &["--since", "1h", "--until", "0s"]).finish();
    assert_eq!((late.code, late.stderr.as_str()), (Some(0), ""));
    make_volumes(&engine, "more-", HISTORY / 2 + 1);
    let late = ours(&engine, &["--since", "1h", "--until", "0s"]).finish();
    assert_eq!((late.code, late.lines().len()), (Some(0), HISTORY));
    assert!(late.stderr.starts_with("the engine remembers no event before 2"), "{}", late.stderr);
}

/// Then nobody knows when the connection broke, only that it was noticed now.
#[test]
fn a_suspended_run_does_not_claim_completeness() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::at(&engine, &proxy.host(), &["events"]);
    wait_until_reported(&engine, &[&watch], "begin");
    let mut backs = 0;
    for (count, reported) in [
        (10, "no event is missing"),
        (HISTORY / 2 + 20, "events may be missing: more happened meanwhile than the engine remembers"),
        (10, "no event is missing"),
    ] {
        watch.signal(Signal::STOP);
        proxy.cut();
        make_volumes(&engine, "volume-", count);
        // Longer than events can be under way when a connection breaks.
        thread::sleep(Duration::from_millis(1500));
        watch.signal(Signal::CONT);
        backs += 1;
        watch.wait_for_notice(|lines| lines.len() == 2 * backs, PATIENCE);
        let notices = watch.notices();
        assert!(notices.last().unwrap().contains(reported), "{count}: {notices:?}");
        wait_for_end(&engine, &[&watch], &format!("after-{backs}"));
    }
}

/// Each way in which `events` can end has its exit code and its message.
#[test]
fn exit_codes_match_the_contract() {
    let engine = Engine::start();
    let since = now();
    make_volumes(&engine, "v", 3);
    let since = ["--since", since.as_str()];
    let rows = [
        (&["--until", "0s"][..], 0, 6, ""),
        (&["--count", "2"], 0, 2, ""),
        (&["--count", "6", "--timeout", "20s"], 0, 6, ""),
        (&["--count", "7", "--timeout", "3s"], 4, 6, "error: received 6 of 7 events within 3s\n"),
        (&["--count", "9", "--until", "0s"], 4, 6, "error: received 6 of 9 events\n"),
        (&["--timeout", "3s"], 0, 6, ""),
        (&["--filter", "event=oom", "--timeout", "2s"], 0, 0, ""),
        (
            &["--filter", "event=oom", "--count", "1", "--timeout", "2s"],
            4,
            0,
            "error: received 0 of 1 events within 2s\n",
        ),
    ];
    // Side by side, because some end at a time.
    let started = rows.map(|(args, ..)| ours(&engine, &[&since, args].concat()));
    for (watch, (args, code, lines, reported)) in started.into_iter().zip(rows) {
        let finished = watch.finish();
        assert_eq!((finished.code, finished.lines().len()), (Some(code), lines), "{args:?} {}", finished.stderr);
        assert_eq!(finished.stderr, reported, "{args:?}");
    }
    let soon = Timestamp(Timestamp::now().0 + 1_500_000_000).api();
    let begun = Instant::now();
    let finished = ours(&engine, &["--until", &soon]).finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert!(begun.elapsed() > Duration::from_secs(1), "it ends at that time");
    for signal in [Signal::INT, Signal::TERM] {
        let watch = ours(&engine, &["--since", "1h"]);
        watch.wait_for_count(6);
        watch.signal(signal);
        assert_eq!(watch.finish().code, Some(0), "{signal:?}");
    }
    let nowhere = Watch::at(&engine, "unix:///nowhere/docker.sock", &["events"]).finish();
    assert_eq!(nowhere.code, Some(3), "{}", nowhere.stderr);
    for args in [&["--filter", "nonsense=x"][..], &["--filter", "type"], &["--count", "0"], &["--timeout", "5"]] {
        assert_eq!(ours(&engine, args).finish().code, Some(2), "{args:?}");
    }
}

/// With `--no-reconnect` a cut stream ends the run, and with `--until` nobody waits for the engine beyond that time.
#[test]
fn no_reconnect_ends_with_the_stream() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::at(&engine, &proxy.host(), &["events", "--no-reconnect"]);
    wait_until_reported(&engine, &[&watch], "begin");
    proxy.cut();
    let finished = watch.finish();
    assert_eq!(finished.code, Some(3));
    assert!(finished.stderr.starts_with("error: lost the connection to "), "{}", finished.stderr);
    // It does not wait for the engine beyond the requested end either.
    let until = Timestamp(Timestamp::now().0 + 3_000_000_000).api();
    let watch = Watch::at(&engine, &proxy.host(), &["events", "--until", &until]);
    wait_until_reported(&engine, &[&watch], "again");
    proxy.refuse();
    let finished = watch.finish();
    assert_eq!(finished.code, Some(3));
    assert!(finished.stderr.contains("error: the event stream was still down at "), "{}", finished.stderr);
}

/// A timeout while the engine is silent or away ends with 3, not with 0 or 4.
#[test]
fn a_timeout_during_an_outage_is_an_error() {
    let engine = Engine::start();
    let silent = Script::start(|_, answer| answer.hold());
    for args in [&["events", "--timeout", "300ms"][..], &["events", "--timeout", "300ms", "--count", "1"]] {
        let finished = Watch::at(&engine, &silent.host(), args).finish();
        assert_eq!((finished.code, finished.lines().len()), (Some(3), 0), "{}", finished.stderr);
        let reported = format!("error: no answer from {} within 0.3s\n", silent.host());
        assert!(finished.stderr.starts_with(&reported), "{}", finished.stderr);
    }
    let proxy = Proxy::start(&engine);
    let counts = [&["--count", "100"][..], &[]];
    let watches =
        counts.map(|count| Watch::at(&engine, &proxy.host(), &[&["events", "--timeout", "6s"], count].concat()));
    wait_until_reported(&engine, &[&watches[0], &watches[1]], "begin");
    proxy.refuse();
    for (watch, count) in watches.into_iter().zip(counts) {
        let finished = watch.finish();
        assert_eq!(finished.code, Some(3), "{count:?} {}", finished.stderr);
        assert!(finished.stderr.contains("error: the event stream was still down at "), "{}", finished.stderr);
    }
}

/// When the reader of its output leaves, `events` ends silently with 0.
#[test]
fn a_reader_that_left_ends_it_well() {
    let engine = Engine::start();
    let mut command = Watch::command();
    engine.configure(&mut command);
    let mut child = command.arg("events").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    eventually("it ended", || {
        make_volumes(&engine, "v", 1);
        child.try_wait().unwrap().is_some()
    });
    let mut reported = String::new();
    child.stderr.take().unwrap().read_to_string(&mut reported).unwrap();
    assert_eq!((child.wait().unwrap().code(), reported.as_str()), (Some(0), ""));
}

/// A slow reader neither slows the engine nor loses what that still remembers; what is lost is reported.
#[test]
fn a_slow_reader_loses_no_remembered_event() {
    const CLOSED: &str = "closing the event stream until it is written";
    let engine = Engine::start();
    let watch = ours(&engine, &["-v"]);
    wait_until_reported(&engine, &[&watch], "begin");
    let id = engine.create("busy", &[], &[]);
    let mut slowest = Duration::ZERO;
    let mut made = 0;
    let mut make = |count: usize| {
        for _ in 0..count {
            made += 1;
            let begun = Instant::now();
            call(&engine, "POST", &format!("/containers/{id}/rename?name=busy-{made}"), "");
            slowest = slowest.max(begun.elapsed());
        }
        made
    };
    let notices = |part: &str| watch.notices().iter().filter(|line| line.contains(part)).count();
    let reported = || watch.lines().iter().filter(|line| line.contains(" container rename ")).count();
    // First fewer events than the engine remembers, then more, while the stream is closed because nobody reads.
    for (round, more, missing) in [(1, HISTORY - 30, 0), (2, HISTORY + 150, 1)] {
        watch.hold();
        let before = reported();
        let mut all = 0;
        while notices(CLOSED) < round {
            all = make(10);
            assert!(all < 20_000, "nothing waits");
        }
        all = all.max(make(more));
        watch.release();
        let last = format!("name=busy-{all}, ");
        watch.wait_for(|lines| lines.iter().any(|line| line.contains(&last)), PATIENCE);
        assert!(reported() > before + 1000);
        assert_eq!(notices("more happened meanwhile than the engine remembers"), missing, "{:?}", watch.notices());
        assert_eq!(reported() == all, missing == 0, "{} of {all}", reported());
    }
    wait_for_end(&engine, &[&watch], "the-end");
    let memory = watch.peak_memory();
    assert!(memory < 48 << 20, "{memory} bytes");
    assert!(slowest < Duration::from_secs(1), "the engine took {slowest:?}");
    let mut lines = watch.lines();
    let all = lines.len();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), all, "none came twice");
}

/// Listings that fail make the engine unhealthy, and leave the event stream connected.
#[test]
fn a_failed_listing_counts_as_no_lost_event() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let variables = [("LOGWATCH_EVENTS_RECONCILE_INTERVAL", "300ms"), ("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "1s")];
    let watch = configured(&proxy.host(), &variables, &["--listen", "127.0.0.1:0"]);
    let place = place(&watch);
    let checks = || {
        let reported: Value = serde_json::from_str(&get(&place, "/api/v1/health").1).unwrap();
        let checks = &reported["checks"];
        let events =
            ["connected", "reconnects_total", "last_reconnect_timestamp"].map(|name| checks["events"][name].clone());
        (checks["docker"]["status"].as_str().unwrap().to_owned(), events)
    };
    let stands = [Value::Bool(true), 0.into(), Value::Null];
    for (fault, status) in [(None, "healthy"), (Some(Fault::Status(500)), "unhealthy"), (None, "healthy")] {
        match fault {
            Some(fault) => proxy.on("/containers/json", fault),
            None => proxy.heal(),
        }
        eventually(status, || checks().0 == status);
        assert_eq!(checks(), (status.to_owned(), stands.clone()));
    }
    assert_eq!(watch.stop().code, Some(0));
}

/// With `events.enabled: false` containers are found by listings, and nobody subscribes.
#[test]
fn without_events_listings_find_containers() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let variables = [
        ("LOGWATCH_EVENTS_ENABLED", "false"),
        ("LOGWATCH_EVENTS_RECONCILE_INTERVAL", "300ms"),
        ("LOGWATCH_EVENTS_BACKOFF_MIN_DURATION", "100ms"),
        ("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "1s"),
        // On a busy machine the fault lasts long enough to open a circuit breaker, by default for a minute.
        ("LOGWATCH_DOCKER_CIRCUIT_BREAKER_TIMEOUT", "1s"),
        // The health checks would request events.
        ("LOGWATCH_DOCKER_POOL_HEALTH_CHECK_INTERVAL", "0"),
    ];
    let watch = configured(&proxy.host(), &variables, &["--listen", "127.0.0.1:0"]);
    let come = |name: &str| watch.lines().iter().filter(|line| line.starts_with(name)).count();
    eventually("it has listed", || proxy.count("/containers/json") > 0);
    let (status, health) = get(&place(&watch), "/api/v1/health/events");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["status"]), (200, &"not_configured".into()), "{health}");
    engine.run("later", &[], &["--count", "3", "--idle"]);
    eventually("it was found", || come("later") == 3);
    proxy.on("/containers/json", Fault::Status(500));
    engine.run("while-away", &[], &["--count", "2"]);
    proxy.forget();
    eventually("it was asked again", || proxy.count("/containers/json") > 1);
    proxy.heal();
    eventually("it was found", || come("while-away") == 2);
    let reported = watch.stop().lines();
    assert_eq!(proxy.count("/events"), 0);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    reported.into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

/// The pipelines of the help find the failed containers, and wait for a healthy one.
#[test]
fn the_examples_of_the_help_work() {
    let engine = Engine::start();
    let program = Watch::command().get_program().to_str().unwrap().to_owned();
    let mut shell = Command::new("sh");
    engine.configure(&mut shell);
    let recipe = format!(
        "{program} events -f event=oom -f event=die --format json --count 3 |
         jq -r --unbuffered 'select(.Actor.Attributes.exitCode != \"0\") | .Actor.Attributes.name'"
    );
    let failed = Watch::spawn(shell.args(["-c", &recipe]));
    let healthy = ["-f", "container=web", "-f", "event=health_status: healthy", "--count", "1", "--timeout", "25s"];
    let healthy = ours(&engine, &healthy);
    eventually("both listen", || {
        let sockets = |pid: u32| process::open_files(pid).iter().filter(|file| file.starts_with("socket")).count();
        let listeners: Vec<u32> = process::children(failed.pid()).into_iter().chain([healthy.pid()]).collect();
        listeners.iter().filter(|pid| process::command(**pid).contains("events") && sockets(**pid) > 1).count() == 2
    });
    engine.run("good", &[], &["--count", "1"]);
    engine.run("bad", &[], &["--count", "1", "--exit", "3"]);
    engine.wait("good");
    engine.wait("bad");
    engine.run("web", &["--health-cmd", "--count 0", "--health-interval", "200ms"], &["--idle"]);
    let healthy = healthy.finish();
    assert_eq!((healthy.code, healthy.lines().len()), (Some(0), 1), "{}", healthy.stderr);
    engine.must(&["kill", "web"]);
    let failed = failed.finish();
    assert_eq!((failed.code, failed.lines()), (Some(0), vec!["bad".to_owned(), "web".to_owned()]), "{}", failed.stderr);
}

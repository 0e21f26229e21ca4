//! `events` beside `docker events`: the same lines, none missing and none twice, whatever becomes of the connection; and
//! the event client under `watch`: a busy engine is not slowed, and without events there are listings.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::serve;
use crate::support::{
    Answer, Engine, Fault, IMAGE, PATIENCE, Proxy, Request, Script, Signal, Watch, eventually, long, process,
};

/// What the engine remembers.
const HISTORY: usize = 256;

/// Seconds since the epoch as docker's CLI takes them.
fn now() -> String {
    let now = logwatch::model::time::Timestamp::now();
    now.api()
}

/// `POST` or `DELETE`, with a JSON body, without the docker CLI, which takes its time.
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

/// A container that is made and removed; never started.
fn live(engine: &Engine, name: &str) {
    let body = format!(r#"{{"Image":"{IMAGE}","HostConfig":{{"NetworkMode":"none"}},"Labels":{{"life":"{name}"}}}}"#);
    call(engine, "POST", &format!("/containers/create?name={name}"), &body);
    call(engine, "DELETE", &format!("/containers/{name}"), "");
}

/// Makes two events of each.
fn make_volumes(engine: &Engine, prefix: &str, count: usize) {
    for number in 0..count {
        let name = format!("{prefix}{number}");
        make_volume(engine, &name);
        remove_volume(engine, &name);
    }
}

fn ours(engine: &Engine, words: &[&str]) -> Watch {
    Watch::verb(engine, "events", words)
}

/// `docker events`, its output awaited as ours is.
fn theirs(engine: &Engine, words: &[&str]) -> Watch {
    Watch::spawn(engine.command().arg("events").args(words))
}

/// Waits until it hears of whatever happens from now on: the events of a volume are told.
fn wait_until_told(engine: &Engine, watches: &[&Watch], name: &str) {
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
        assert!(attempt < 15, "not told");
    }
}

/// Waits until each has told of a volume made last.
fn wait_for_end(engine: &Engine, watches: &[&Watch], name: &str) {
    make_volume(engine, name);
    let is_end =
        |line: &String| line.contains(&format!("create {name} ")) || line.contains(&format!(r#""ID":"{name}""#));
    watches.iter().for_each(|watch| watch.wait_for(|lines| lines.iter().any(is_end), PATIENCE));
}

/// From the first event of a name on, in the order of the text.
fn sorted_from(lines: &[String], name: &str) -> Vec<String> {
    let from = lines.iter().position(|line| line.contains(name)).unwrap();
    let mut lines = lines[from..].to_vec();
    lines.sort();
    lines
}

/// JSON as Go writes it from 1.22 on, and with it docker's newer clients: `\b` and `\f` are no longer `\u0008` and `\u000c`.
fn with_short_escapes(json: &str) -> String {
    let mut short = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        short.push_str(before);
        let (name, length) = match escape {
            _ if escape.starts_with("\\u0008") => ("\\b", 6),
            _ if escape.starts_with("\\u000c") => ("\\f", 6),
            // The backslash and what it stands before, which may be another one.
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
        let words = [window, &filters].concat();
        let mut asked = engine.command();
        asked.env("TZ", zone).arg("events").args(&words).args(dockers.into_iter().flatten());
        let theirs = asked.output().unwrap();
        assert!(theirs.status.success(), "{filters:?}: {}", String::from_utf8_lossy(&theirs.stderr));
        let mut command = Watch::command();
        engine.furnish(&mut command);
        let got = command.env("TZ", zone).arg("events").args(&words).args(["--format", format]).output().unwrap();
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

#[test]
fn whatever_is_filtered_the_lines_and_objects_are_those_of_docker() {
    let engine = Engine::start();
    let since = now();
    let hostile = "esc=\u{1b}[31m\u{7}<b>&\"quoted\"\\ \u{2028}\u{9b}\u{202e}\r\nline\u{8}\u{c}";
    let labels = ["--label", "tier=front", "--label", "owner=me", "--label", hostile, "--volume", "data:/data"];
    let id = engine.run("web", &labels, &["--count", "1"]);
    engine.wait("web");
    engine.run("db", &["--label", "tier=back", "--health-cmd", "--count 0", "--health-interval", "200ms"], &["--idle"]);
    eventually("its health was told", || {
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
        let words = ["events", "--since", &since, "--until", &until, "--filter", "event=reload"];
        !engine.must(&words).is_empty()
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

#[test]
fn beside_docker_through_a_socket_that_is_cut_again_and_again_none_is_missing_and_none_comes_twice() {
    let (cuts, lives, volumes) = if long() { (50, 500, 200) } else { (8, 40, 16) };
    let engine = &Engine::start();
    let proxy = Proxy::start(engine);
    let cut = Watch::at(engine, &proxy.host(), &["events", "--format", "json"]);
    let theirs = theirs(engine, &["--format", "{{json .}}"]);
    wait_until_told(engine, &[&cut, &theirs], "begin");
    make_volume(engine, "first");
    thread::scope(|scope| {
        // Not more of them in an outage than the engine remembers.
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
    // What happens in the last outage is told, too.
    live(engine, "last");
    wait_for_end(engine, &[&cut, &theirs], "the-end");
    assert_eq!(sorted_from(&cut.lines(), r#""first""#), sorted_from(&theirs.lines(), r#""first""#));
    let finished = cut.stop();
    assert_eq!(finished.code, Some(0));
    let back = "the event stream is back: no event is missing\n";
    assert_eq!(finished.stderr.matches(back).count(), cuts, "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 2 * cuts, "{}", finished.stderr);
}

#[test]
fn what_the_engine_no_longer_remembers_is_said_and_what_it_does_is_told() {
    let engine = Engine::start();
    let proxies = [(); 2].map(|()| Proxy::start(&engine));
    let all = Watch::at(&engine, &proxies[0].host(), &["events"]);
    let some = Watch::at(&engine, &proxies[1].host(), &["events", "--filter", "event=create"]);
    let each = [&all, &some];
    wait_until_told(&engine, &each, "begin");
    // The last event that one of them saw is pushed out by others, and yet it misses nothing.
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
    // Now more happens than it remembers.
    proxies.iter().for_each(Proxy::refuse);
    thread::sleep(Duration::from_millis(1500));
    make_volumes(&engine, "lost-", HISTORY / 2 + 20);
    proxies.iter().for_each(Proxy::admit);
    wait_for_end(&engine, &each, "after");
    for watch in each {
        let missing = "events may be missing: more happened meanwhile than the engine remembers";
        watch.wait_for_notice(|lines| lines.iter().any(|line| line == missing), PATIENCE);
    }
    let told = |watch: &Watch| watch.lines().iter().filter(|line| line.contains("volume create lost-")).count();
    assert!((HISTORY / 2 - 5..HISTORY / 2 + 20).contains(&told(&all)), "{} of the volumes", told(&all));
    assert_eq!(told(&all), told(&some));
    // A history that is gone.
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

/// Nobody can say then when the way was cut, only that it was noticed just now.
#[test]
fn one_that_stood_still_while_much_happened_does_not_claim_to_have_missed_nothing() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::at(&engine, &proxy.host(), &["events"]);
    wait_until_told(&engine, &[&watch], "begin");
    let mut backs = 0;
    for (count, told) in [
        (10, "no event is missing"),
        (HISTORY / 2 + 20, "events may be missing: more happened meanwhile than the engine remembers"),
        (10, "no event is missing"),
    ] {
        watch.signal(Signal::STOP);
        proxy.cut();
        make_volumes(&engine, "volume-", count);
        // Longer than what may be on its way when a connection breaks.
        thread::sleep(Duration::from_millis(1500));
        watch.signal(Signal::CONT);
        backs += 1;
        watch.wait_for_notice(|lines| lines.len() == 2 * backs, PATIENCE);
        let notices = watch.notices();
        assert!(notices.last().unwrap().contains(told), "{count}: {notices:?}");
        wait_for_end(&engine, &[&watch], &format!("after-{backs}"));
    }
}

#[test]
fn it_exits_as_the_contract_says() {
    let engine = Engine::start();
    let since = now();
    make_volumes(&engine, "v", 3);
    let since = ["--since", since.as_str()];
    for (words, code, lines, told) in [
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
    ] {
        let finished = ours(&engine, &[&since, words].concat()).finish();
        assert_eq!((finished.code, finished.lines().len()), (Some(code), lines), "{words:?} {}", finished.stderr);
        assert_eq!(finished.stderr, told, "{words:?}");
    }
    let soon = logwatch::model::time::Timestamp(logwatch::model::time::Timestamp::now().0 + 1_500_000_000).api();
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
    for words in [&["--filter", "nonsense=x"][..], &["--filter", "type"], &["--count", "0"], &["--timeout", "5"]] {
        assert_eq!(ours(&engine, words).finish().code, Some(2), "{words:?}");
    }
}

#[test]
fn a_lost_stream_ends_it_where_it_is_not_to_come_back() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::at(&engine, &proxy.host(), &["events", "--no-reconnect"]);
    wait_until_told(&engine, &[&watch], "begin");
    proxy.cut();
    let finished = watch.finish();
    assert_eq!(finished.code, Some(3));
    assert!(finished.stderr.starts_with("error: lost the connection to "), "{}", finished.stderr);
    // Nor is it waited for beyond the end that was asked for.
    let until = logwatch::model::time::Timestamp(logwatch::model::time::Timestamp::now().0 + 3_000_000_000).api();
    let watch = Watch::at(&engine, &proxy.host(), &["events", "--until", &until]);
    wait_until_told(&engine, &[&watch], "again");
    proxy.refuse();
    let finished = watch.finish();
    assert_eq!(finished.code, Some(3));
    assert!(finished.stderr.contains("error: the event stream was not back by "), "{}", finished.stderr);
}

/// Events that were made a second before the end that was asked for, and a stream that ends before it has told them.
#[test]
fn a_stream_that_ends_a_little_before_its_time_is_asked_once_more() {
    let machine = Engine::start();
    let until = logwatch::model::time::Timestamp(logwatch::model::time::Timestamp::now().0 + 1_800_000_000);
    let streams = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&streams);
    let script = Script::start(move |request, answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"e","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
        "/events" => {
            answer.begin("application/json");
            let is_ours = request.path.contains(&format!("until={}", until.api()));
            let stream = counted.fetch_add(u64::from(is_ours), Ordering::SeqCst);
            let all = ["early", "late"];
            for (number, id) in all.iter().enumerate().take(if is_ours && stream == 0 { 1 } else { 2 }) {
                let time = until.0 - 1_000_000_000 + i64::try_from(number).unwrap();
                let event = format!(
                    r#"{{"Type":"volume","Action":"create","Actor":{{"ID":"{id}","Attributes":{{}}}},"timeNano":{time}}}"#
                );
                answer.chunk(format!("{event}\n").as_bytes());
            }
            if is_ours && stream > 0 {
                let left = until.0 - logwatch::model::time::Timestamp::now().0;
                thread::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)));
            }
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    });
    let since = logwatch::model::time::Timestamp(until.0 - 10_000_000_000).api();
    let words = ["events", "--since", &since, "--until", &until.api()];
    let finished = Watch::at(&machine, &script.host(), &words).finish();
    let ids: Vec<String> = finished.lines().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!((finished.code, ids, finished.stderr.as_str()), (Some(0), vec!["early".into(), "late".into()], ""));
    assert!(logwatch::model::time::Timestamp::now() >= until, "it ends at that time");
    assert!(streams.load(Ordering::SeqCst) > 1);
}

/// The events that were waited for come at the very end of a stream, and nobody reads them before that has come.
#[test]
fn events_that_came_in_the_number_asked_for_are_enough_whatever_ends_it() {
    let machine = Engine::start();
    for (count, code) in [("3", 0), ("4", 3)] {
        let (is_held, has_ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (held, ended) = (Arc::clone(&is_held), Arc::clone(&has_ended));
        let script = Script::start(move |request, answer| match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"e","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
            "/events" => {
                eventually("nobody reads", || held.load(Ordering::SeqCst));
                answer.begin("application/json");
                // More than a pipe holds.
                let (time, large) = (logwatch::model::time::Timestamp::now().0, "x".repeat(200_000));
                for number in 0..3 {
                    let actor = format!(r#"{{"ID":"v{number}","Attributes":{{"large":"{large}"}}}}"#);
                    let time = time + number;
                    let event = format!(r#"{{"Type":"volume","Action":"create","Actor":{actor},"timeNano":{time}}}"#);
                    answer.chunk(format!("{event}\n").as_bytes());
                }
                ended.store(true, Ordering::SeqCst);
            }
            _ => answer.json(404, r#"{"message":"not in the script"}"#),
        });
        let watch = Watch::at(&machine, &script.host(), &["events", "--no-reconnect", "--count", count]);
        watch.hold();
        is_held.store(true, Ordering::SeqCst);
        eventually("the stream has ended", || has_ended.load(Ordering::SeqCst));
        // It says nothing of having read up to there.
        thread::sleep(Duration::from_millis(300));
        watch.release();
        let finished = watch.finish();
        assert_eq!((finished.code, finished.lines().len()), (Some(code), 3), "{count}: {}", finished.stderr);
    }
}

#[test]
fn a_time_out_while_the_engine_is_not_there_is_no_quiet_time() {
    let engine = Engine::start();
    let silent = Script::start(|_, answer| answer.hold());
    for words in [&["events", "--timeout", "300ms"][..], &["events", "--timeout", "300ms", "--count", "1"]] {
        let finished = Watch::at(&engine, &silent.host(), words).finish();
        assert_eq!((finished.code, finished.lines().len()), (Some(3), 0), "{}", finished.stderr);
        let told = format!("error: no answer from {} within 0.3s\n", silent.host());
        assert!(finished.stderr.starts_with(&told), "{}", finished.stderr);
    }
    let proxy = Proxy::start(&engine);
    for count in [&["--count", "100"][..], &[]] {
        let words = [&["events", "--timeout", "6s"], count].concat();
        let watch = Watch::at(&engine, &proxy.host(), &words);
        wait_until_told(&engine, &[&watch], "begin");
        proxy.refuse();
        let finished = watch.finish();
        assert_eq!(finished.code, Some(3), "{count:?} {}", finished.stderr);
        assert!(finished.stderr.contains("error: the event stream was not back by "), "{}", finished.stderr);
        proxy.admit();
    }
}

#[test]
fn a_reader_that_left_ends_it_well() {
    let engine = Engine::start();
    let mut command = Watch::command();
    engine.furnish(&mut command);
    let mut child = command.arg("events").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    eventually("it ended", || {
        make_volumes(&engine, "v", 1);
        child.try_wait().unwrap().is_some()
    });
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((child.wait().unwrap().code(), told.as_str()), (Some(0), ""));
}

#[test]
fn a_slow_reader_slows_no_engine_loses_nothing_that_it_remembers_and_is_told_of_what_it_does_not() {
    const CLOSED: &str = "the stream is closed meanwhile";
    let engine = Engine::start();
    let watch = ours(&engine, &["-v"]);
    wait_until_told(&engine, &[&watch], "begin");
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
    let told = || watch.lines().iter().filter(|line| line.contains(" container rename ")).count();
    // Fewer events than it remembers, and then more, while the stream is closed because nobody reads.
    for (round, more, missing) in [(1, HISTORY - 30, 0), (2, HISTORY + 150, 1)] {
        watch.hold();
        let before = told();
        let mut all = 0;
        while notices(CLOSED) < round {
            all = make(10);
            assert!(all < 20_000, "nothing waits");
        }
        all = all.max(make(more));
        watch.release();
        let last = format!("name=busy-{all}, ");
        watch.wait_for(|lines| lines.iter().any(|line| line.contains(&last)), PATIENCE);
        assert!(told() > before + 1000);
        assert_eq!(notices("more happened meanwhile than the engine remembers"), missing, "{:?}", watch.notices());
        assert_eq!(told() == all, missing == 0, "{} of {all}", told());
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

/// An engine that tells of so many events a second, for so long; how long it ever had to wait for us.
struct Busy {
    script: Script,
    slowest: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Busy {
    fn start(rate: u64, span: Duration) -> Self {
        let (slowest, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&slowest), Arc::clone(&sent));
        let script = Script::start(move |request, answer| busy(request, answer, rate, span, &counters));
        Self { script, slowest, sent }
    }
}

fn busy(
    request: &Request,
    answer: &mut Answer,
    rate: u64,
    span: Duration,
    counters: &(Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let path = request.path.split('?').next().unwrap();
    match path {
        "/_ping" => answer.json(200, "OK"),
        "/info" => {
            answer.json(200, r#"{"ID":"busy","ServerVersion":"20.10.24","DockerRootDir":"/nowhere","OSType":"linux"}"#)
        }
        "/containers/json" => answer.json(200, "[]"),
        "/events" => {
            answer.begin("application/json");
            let begun = Instant::now();
            for number in 0..rate * span.as_secs() {
                let due =
                    begun + Duration::from_secs(1) * u32::try_from(number).unwrap() / u32::try_from(rate).unwrap();
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let (id, time) = (number % 50, logwatch::model::time::Timestamp::now().0);
                let action = ["kill", "update", "health_status: healthy", "pause", "unpause"][number as usize % 5];
                let event = format!(
                    r#"{{"status":"{action}","id":"{id:064}","from":"i","Type":"container","Action":"{action}","Actor":{{"ID":"{id:064}","Attributes":{{"image":"i","name":"c{id}","label":"{}"}}}},"scope":"local","time":{},"timeNano":{time}}}"#,
                    "x".repeat(500),
                    time / 1_000_000_000,
                );
                let begun = Instant::now();
                answer.chunk(format!("{event}\n").as_bytes());
                counters.0.fetch_max(u64::try_from(begun.elapsed().as_micros()).unwrap(), Ordering::SeqCst);
                counters.1.fetch_add(1, Ordering::SeqCst);
            }
            answer.hold();
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    }
}

#[test]
fn five_hundred_events_a_second_neither_slow_the_engine_nor_grow_our_memory() {
    let engine = Engine::start();
    let span = Duration::from_secs(if long() { 60 } else { 6 });
    let busy = Busy::start(500, span);
    // The checks of the connections ask for the same, every 30 s.
    let mut command = Watch::command();
    engine.furnish(&mut command);
    command.env_remove("DOCKER_HOST").env("LOGWATCH_DOCKER_POOL_HEALTH_CHECK_INTERVAL", "0");
    let watch = Watch::spawn(command.args(["-H", &busy.script.host(), "watch"]));
    let sent = || busy.sent.load(Ordering::SeqCst);
    eventually("a second of them was sent", || sent() > 500);
    let before = process::memory(watch.pid());
    let cpu = watch.cpu();
    let all = 500 * span.as_secs();
    let deadline = Instant::now() + span * 4;
    while sent() < all {
        assert!(Instant::now() < deadline, "{} of {all}", sent());
        thread::sleep(Duration::from_millis(50));
    }
    let grown = process::memory(watch.pid()).saturating_sub(before);
    let slowest = Duration::from_micros(busy.slowest.load(Ordering::SeqCst));
    eprintln!("{all} events: grown by {grown} bytes, the slowest write took {slowest:?}, CPU {:?}", watch.cpu() - cpu);
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    assert!(slowest < Duration::from_millis(500), "the engine waited {slowest:?}");
    let asked = |part: &str| busy.script.requests().iter().filter(|line| line.contains(part)).count();
    assert_eq!((asked("/events"), asked("/containers/json")), (1, 1), "nothing was made up for");
    let finished = watch.stop();
    // The script has no logs, and says so.
    let expected = |line: &str| {
        let is_about_one = line.starts_with("+ c") || line.starts_with("! c") && line.ends_with("could not be read");
        is_about_one || line.starts_with("no running container matches")
    };
    assert!(finished.stderr.lines().all(expected), "{}", finished.stderr);
    assert_eq!(finished.code, Some(0));
}

/// An engine whose clock and history are in our hands: what it remembers, in the order of its making.
#[derive(Default)]
struct Remembered {
    /// Time in nanoseconds, and the object's ID.
    events: Vec<(i64, String)>,
    /// Its clock as compared with ours.
    ahead: i64,
    /// How often all streams were cut.
    cuts: usize,
    streams: usize,
}

impl Remembered {
    fn now(&self) -> i64 {
        logwatch::model::time::Timestamp::now().0 + self.ahead
    }

    /// As the engine picks them (moby `daemon/events/events.go`: loadBufferedEvents).
    fn backlog(&self, since: Option<i64>, until: Option<i64>) -> Vec<(i64, String)> {
        let Some(since) = since else { return Vec::new() };
        let mut picked: Vec<_> = self.events.iter().rev().take_while(|(time, _)| *time >= since).cloned().collect();
        picked.retain(|(time, _)| until.is_none_or(|until| *time <= until));
        picked.reverse();
        picked
    }
}

fn remembering(request: &Request, answer: &mut Answer, engine: &Mutex<Remembered>) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let moment = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name))?;
        let (seconds, nanos) = value.split_once('.').unwrap();
        Some(seconds.parse::<i64>().unwrap() * 1_000_000_000 + nanos.parse::<i64>().unwrap())
    };
    let line = |(time, id): &(i64, String)| {
        let actor = format!(r#"{{"ID":"{id}","Attributes":{{}}}}"#);
        format!(r#"{{"Type":"volume","Action":"create","Actor":{actor},"time":1,"timeNano":{time}}}"#) + "\n"
    };
    match path {
        "/_ping" => answer.json(200, "OK"),
        "/info" => {
            let now = logwatch::model::time::Timestamp(engine.lock().unwrap().now());
            answer.json(200, &format!(r#"{{"ID":"e","SystemTime":"{now}"}}"#));
        }
        "/events" => {
            answer.begin("application/json");
            let mut state = engine.lock().unwrap();
            let until = moment("until=");
            let backlog = state.backlog(moment("since="), until);
            let (mut sent, cuts) = (state.events.len(), state.cuts);
            state.streams += usize::from(until.is_none());
            drop(state);
            answer.chunk(b"\n");
            backlog.iter().for_each(|event| answer.chunk(line(event).as_bytes()));
            while until.is_none() && engine.lock().unwrap().cuts == cuts {
                let new: Vec<_> = engine.lock().unwrap().events[sent..].to_vec();
                new.iter().for_each(|event| answer.chunk(line(event).as_bytes()));
                sent += new.len();
                thread::sleep(Duration::from_millis(2));
            }
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    }
}

/// Two events lie in the history in another order than their times, one of them told before the break; then the clock is
/// set back an hour, and everything new is older than all that was seen.
#[test]
fn neither_the_order_of_the_history_nor_a_clock_that_was_set_hides_an_event_or_brings_one_twice() {
    let machine = Engine::start();
    let engine = Arc::new(Mutex::new(Remembered::default()));
    let script = Script::start({
        let engine = Arc::clone(&engine);
        move |request, answer| remembering(request, answer, &engine)
    });
    let make = |id: &str, earlier: i64| {
        let mut engine = engine.lock().unwrap();
        let time = engine.now() - earlier;
        engine.events.push((time, id.to_owned()));
    };
    let streams = || engine.lock().unwrap().streams;
    let cut = || engine.lock().unwrap().cuts += 1;
    make("before", 0);
    let watch = Watch::at(&machine, &script.host(), &["events"]);
    eventually("it has subscribed", || streams() == 1);
    make("one", 10_000);
    make("three", 0);
    watch.wait_for_count(2);
    // In the history behind the third, and a little older.
    let third = engine.lock().unwrap().events.last().unwrap().0;
    cut();
    engine.lock().unwrap().events.push((third - 1000, "two".to_owned()));
    watch.wait_for_count(3);
    let back =
        |lines: &[String]| lines.last().is_some_and(|line| line == "the event stream is back: no event is missing");
    watch.wait_for_notice(back, PATIENCE);
    // Now all of its history is told each time.
    engine.lock().unwrap().ahead = -3_600_000_000_000;
    cut();
    make("four", 0);
    make("five", 0);
    watch.wait_for_count(5);
    let told = |lines: &[String]| lines.last().is_some_and(|line| line.ends_with("the engine's clock was set back"));
    watch.wait_for_notice(told, PATIENCE);
    make("six", 0);
    watch.wait_for_count(6);
    cut();
    make("seven", 0);
    watch.wait_for_count(7);
    let finished = watch.stop();
    let ids: Vec<String> = finished.lines().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(ids, ["one", "three", "two", "four", "five", "six", "seven"]);
    assert_eq!(finished.stderr.matches("may be missing").count(), 1, "{}", finished.stderr);
}

/// A watch at this host, configured by variables.
fn configured(host: &str, variables: &[(&str, &str)], words: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nonexistent").envs(variables.iter().copied());
    Watch::spawn(command.args(["-H", host, "watch"]).args(words))
}

/// More at once than may wait, none of which can be left out; then a listing shows one container.
#[test]
fn events_that_find_no_room_are_counted_and_a_listing_makes_up_for_them() {
    const ALL: u64 = 5000;
    let listings = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&listings);
    let script = Script::start(move |request, answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => {
            answer.json(200, r#"{"ID":"busy","ServerVersion":"20.10.24","DockerRootDir":"/nowhere","OSType":"linux"}"#)
        }
        "/containers/json" if counted.fetch_add(1, Ordering::SeqCst) == 0 => answer.json(200, "[]"),
        "/containers/json" => {
            let id = format!("{:064}", ALL + 1);
            answer.json(
                200,
                &format!(r#"[{{"Id":"{id}","Names":["/found"],"Image":"i","State":"running","Labels":{{}}}}]"#),
            );
        }
        "/events" => {
            answer.begin("application/json");
            eventually("it has listed", || counted.load(Ordering::SeqCst) > 0);
            let time = logwatch::model::time::Timestamp::now().0;
            let event = |id: u64| {
                format!(
                    r#"{{"Type":"container","Action":"create","Actor":{{"ID":"{id:064}","Attributes":{{"name":"c"}}}},"timeNano":{}}}"#,
                    time + i64::try_from(id).unwrap(),
                )
            };
            answer.chunk((0..ALL).map(|id| event(id) + "\n").collect::<String>().as_bytes());
            answer.hold();
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    });
    let watch = configured(&script.host(), &[("LOGWATCH_EVENTS_QUEUE_SIZE", "5")], &["--listen", "127.0.0.1:0"]);
    eventually("it has listed again", || listings.load(Ordering::SeqCst) > 1);
    eventually("it asks for the log of what is listed", || {
        script.requests().iter().any(|line| line.contains(&format!("{:064}/logs", ALL + 1)))
    });
    let (status, health) = serve::get(&serve::place(&watch), "/api/v1/health/events");
    let health: Value = serde_json::from_str(&health).unwrap();
    let [processed, dropped] = ["processed_total", "dropped_total"].map(|name| health[name].as_u64().unwrap());
    assert_eq!((status, processed + dropped), (200, ALL), "{health}");
    assert!((1..ALL).contains(&dropped), "{health}");
}

#[test]
fn a_listing_that_fails_is_the_engines_fault_and_no_loss_of_events() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let variables = [("LOGWATCH_EVENTS_RECONCILE_INTERVAL", "300ms"), ("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "1s")];
    let watch = configured(&proxy.host(), &variables, &["--listen", "127.0.0.1:0"]);
    let place = serve::place(&watch);
    let checks = || {
        let told: Value = serde_json::from_str(&serve::get(&place, "/api/v1/health").1).unwrap();
        let checks = &told["checks"];
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

#[test]
fn without_events_containers_are_found_by_listings_and_nobody_subscribes() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let variables = [
        ("LOGWATCH_EVENTS_ENABLED", "false"),
        ("LOGWATCH_EVENTS_RECONCILE_INTERVAL", "300ms"),
        ("LOGWATCH_EVENTS_BACKOFF_MIN_DURATION", "100ms"),
        ("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "1s"),
        // On a busy machine the fault lasts long enough to open a breaker, for a minute by default.
        ("LOGWATCH_DOCKER_CIRCUIT_BREAKER_TIMEOUT", "1s"),
        // Its checks would ask for events.
        ("LOGWATCH_DOCKER_POOL_HEALTH_CHECK_INTERVAL", "0"),
    ];
    let watch = configured(&proxy.host(), &variables, &["--listen", "127.0.0.1:0"]);
    let come = |name: &str| watch.lines().iter().filter(|line| line.starts_with(name)).count();
    eventually("it has listed", || proxy.count("/containers/json") > 0);
    let (status, health) = serve::get(&serve::place(&watch), "/api/v1/health/events");
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
    let told = watch.stop().lines();
    assert_eq!(proxy.count("/events"), 0);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    told.into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn the_examples_do_what_they_say() {
    let engine = Engine::start();
    let program = Watch::command().get_program().to_str().unwrap().to_owned();
    let mut shell = Command::new("sh");
    engine.furnish(&mut shell);
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

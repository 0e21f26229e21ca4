//! The API routes, each with its own rhythm, under the same promises: every line once, in order, to the end.

use std::collections::BTreeMap;
use std::thread;

use serde_json::Value;

use crate::support::routes::{POLL, ROTATE, STREAM, Way};
use crate::support::{Engine, Numbers, PATIENCE, Proxy, Watch, eventually};

#[track_caller]
fn assert_all_by(lines: &[String], source: &str) {
    let reported = format!("\"source\":\"{source}\"");
    let logs = lines.iter().filter(|line| line.starts_with(r#"{"type":"log""#));
    for line in logs {
        assert!(line.contains(&reported), "{line}");
    }
}

/// Every line comes once and in order.
#[test]
fn renewed_streams_and_polls_lose_nothing() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let args = ["--count", "8000", "--rate", "2000", "--stream", "alternating"];
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = [ROTATE, POLL].map(|(source, way)| {
        let args = [&["watch", "--format", "json"], way].concat();
        let watch = Watch::at(&engine, &proxy.host(), &args);
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    for driver in ["json-file", "local"] {
        engine.run(driver, &["--log-driver", driver], &args);
    }
    for ((source, _), watch) in [ROTATE, POLL].into_iter().zip(watches) {
        watch.wait_for_ends(2);
        let finished = watch.stop();
        let (lines, notices) = (finished.lines(), finished.stderr);
        assert_all_by(&lines, source);
        let numbers = Numbers::of_json(&lines);
        for driver in ["json-file", "local"] {
            numbers.assert_whole(driver, 1..=8000);
            assert_eq!(notices.matches(&format!("+ {driver} ({source})")).count(), 1, "{notices}");
        }
        assert!(!notices.contains('!'), "{source}: {notices}");
    }
    // Four seconds of each make 13 streams and 20 polls, and fewer on a busy machine.
    for driver in ["json-file", "local"] {
        let part = |follow: u8| format!("{}/logs?follow={follow}", engine.id(driver));
        let (streams, polls) = (proxy.count(&part(1)), proxy.count(&part(0)));
        eprintln!("{driver}: {streams} streams, {polls} polls");
        assert!((6..22).contains(&streams) && (10..38).contains(&polls), "{driver}: {streams} streams, {polls} polls");
    }
}

/// This holds for each API route that makes new requests while a container runs.
#[test]
fn restarts_pauses_and_renames_lose_nothing() {
    let engine = Engine::start();
    let check = |(source, way): Way| {
        let watch = Watch::start(&engine, &[&["--format", "json", &format!("{source}-*")], way].concat());
        watch.wait_until_up();
        let name = format!("{source}-lives");
        engine.run(&name, &[], &["--count", "700", "--rate", "1000", "--stream", "alternating", "--resume", "--idle"]);
        for lives in 1..=3 {
            watch.wait_for_count(lives * 700);
            if lives < 3 {
                engine.must(&["restart", &name]);
            }
        }
        engine.must(&["kill", &name]);
        watch.wait_for_ends(3);
        let (before, after) = (format!("{source}-before"), format!("{source}-after"));
        engine.run(&before, &[], &["--count", "3000", "--rate", "1500", "--stream", "alternating"]);
        watch.wait_for_count(2100 + 300);
        engine.must(&["pause", &before]);
        engine.must(&["rename", &before, &after]);
        engine.must(&["unpause", &after]);
        watch.wait_for_ends(4);
        let finished = watch.stop();
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole(&name, 1..=2100);
        let old = numbers.count(&before) as u64;
        assert!(old >= 300 && numbers.count(&after) as u64 == 3000 - old, "{source}: {old} before");
        let renamed: Vec<String> = finished.lines().iter().map(|line| line.replace(&before, &after)).collect();
        Numbers::of_json(&renamed).assert_whole(&after, 1..=3000);
        assert!(!finished.stderr.contains('!'), "{source}: {}", finished.stderr);
    };
    thread::scope(|scope| {
        scope.spawn(|| check(ROTATE));
        scope.spawn(|| check(POLL));
    });
}

/// Engines up to 24.0.7 send the times of `local` logs and caches with the offset of their own zone.
#[test]
fn every_route_reads_other_time_zones() {
    let engine = Engine::in_zone("Europe/Amsterdam");
    let sink = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("gelf-address=udp://{}", sink.local_addr().unwrap());
    let kinds: [(&str, &[&str]); 4] = [
        ("json-file", &["--log-driver", "json-file"]),
        ("local", &["--log-driver", "local"]),
        ("local-tty", &["--log-driver", "local", "--tty"]),
        ("cache", &["--log-driver", "gelf", "--log-opt", &address]),
    ];
    let args = ["--count", "2000", "--rate", "1000"];
    for (name, options) in kinds {
        engine.run(&format!("{name}-before"), options, &args);
    }
    for (name, _) in kinds {
        engine.wait(&format!("{name}-before"));
    }
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = [STREAM, ROTATE, POLL].map(|(source, way)| {
        let watch = Watch::start(&engine, &[&["--format", "json", "--all", "-n", "all"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    for (name, options) in kinds {
        engine.run(&format!("{name}-later"), options, &args);
    }
    for ((source, way), watch) in [STREAM, ROTATE, POLL].into_iter().zip(watches) {
        // Containers that had ended before have an end notice as well.
        watch.wait_for_ends(2 * kinds.len());
        for (name, _) in kinds {
            watch.wait_for(
                |lines| lines.iter().filter(|line| line.contains(&format!("\"{name}-before\""))).count() >= 2000,
                PATIENCE,
            );
        }
        let finished = watch.stop();
        assert!(!finished.stderr.contains('!'), "{source}: {}", finished.stderr);
        let lines = finished.lines();
        let numbers = Numbers::of_json(&lines);
        for (name, _) in kinds {
            for container in [format!("{name}-before"), format!("{name}-later")] {
                numbers.assert_whole(&container, 1..=2000);
                let times = engine.must(&["logs", "--timestamps", &container]);
                let theirs =
                    times.lines().map(|line| line.split(' ').next().unwrap().parse::<jiff::Timestamp>().unwrap());
                let of = format!("\"container_name\":\"{container}\"");
                let ours = lines.iter().filter(|line| line.contains(&of)).map(|line| {
                    let record: Value = serde_json::from_str(line).unwrap();
                    let time = record["time"].as_str().unwrap().to_owned();
                    assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
                    time.parse::<jiff::Timestamp>().unwrap()
                });
                assert!(ours.eq(theirs), "{source}: {container}");
            }
        }
        let last =
            Watch::read(&engine, &[&["--format", "json", "-n", "7", "local-before", "cache-before"], way].concat());
        let numbers = Numbers::of_json(&last.lines());
        for name in ["local-before", "cache-before"] {
            numbers.assert_whole(name, 1994..=2000);
        }
    }
}

/// What the engine has of a container, which is less than that wrote when the engine was killed.
fn lines_of_docker(engine: &Engine, container: &str) -> BTreeMap<&'static str, Vec<String>> {
    let output = engine.docker(&["logs", container]);
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    BTreeMap::from([("stdout", lines(&output.stdout)), ("stderr", lines(&output.stderr))])
}

fn our_lines(lines: &[String], container: &str) -> BTreeMap<&'static str, Vec<String>> {
    let mut reported = BTreeMap::from([("stdout", Vec::new()), ("stderr", Vec::new())]);
    for line in lines {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["type"] == "log" && record["container_name"] == container {
            let message = record["message"].as_str().unwrap().to_owned();
            reported.get_mut(record["stream"].as_str().unwrap()).unwrap().push(message);
        }
    }
    reported
}

/// This holds on every API route.
#[test]
fn a_killed_engine_costs_no_api_line() {
    let engine = Engine::with(&["--live-restore"]);
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = [ROTATE, POLL].map(|(source, way)| {
        let watch = Watch::start(&engine, &[&["--format", "json"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    let args = ["--count", "9000", "--rate", "1500", "--stream", "alternating"];
    for driver in ["json-file", "local"] {
        engine.run(driver, &["--log-driver", driver], &args);
    }
    watches.iter().for_each(|watch| watch.wait_for_count(1000));
    engine.kill();
    for watch in &watches {
        watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains("trying again")), PATIENCE);
    }
    engine.up();
    for ((source, _), watch) in [ROTATE, POLL].into_iter().zip(watches) {
        watch.wait_for_ends(2);
        let lines = watch.stop().lines();
        for driver in ["json-file", "local"] {
            let (ours, theirs) = (our_lines(&lines, driver), lines_of_docker(&engine, driver));
            for (stream, theirs) in &theirs {
                let first = ours[stream].iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
                let counts = (ours[stream].len(), theirs.len());
                assert!(first.is_none() && counts.0 == counts.1, "{driver} by {source}: {counts:?}, {first:?}");
                assert!(counts.1 > 4000, "{driver}: {counts:?}");
            }
        }
    }
}

/// However long the polling interval, a container that dies is read to its end at once.
#[test]
fn a_death_between_polls_loses_nothing() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "poll", "--poll-interval", "1h"]);
    let id = engine.run("web", &[], &["--count", "500", "--rate", "500", "--unfinished", "--resume"]);
    watch.wait_for_ends(1);
    watch.wait_for_count(500);
    engine.must(&["start", "web"]);
    watch.wait_for_ends(2);
    let lines = watch.stop().lines();
    Numbers::of_json(&lines).assert_whole("web", 1..=1000);
    // One read when it starts and one when it has died, in both runs; none between, and none while it is dead.
    let reads = proxy.count(&format!("{id}/logs"));
    assert!((4..=6).contains(&reads), "{reads}: {:?}", proxy.requests());
}

/// Polling requests only the last records, and prints everything that comes.
#[test]
fn polling_from_now_on_asks_for_little() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let bursts = ["--count", "16000", "--burst", "8000", "--every", "4000", "--stream", "alternating", "--idle"];
    let id = engine.run("web", &["--log-driver", "local"], &bursts);
    eventually("the first burst was written", || {
        lines_of_docker(&engine, "web").values().all(|lines| lines.len() == 4000)
    });
    let watch = Watch::at(&engine, &proxy.host(), &[&["watch", "--format", "json", "-n", "0"], POLL.1].concat());
    let small = format!("{id}/logs?follow=0&stdout=1&stderr=1&timestamps=1&since=");
    watch.wait_for_count(8000);
    Numbers::of_json(&watch.lines()).assert_whole("web", 8001..=16_000);
    let (all, tails) = (proxy.count(&format!("{id}/logs")), proxy.count("&tail="));
    watch.stop();
    assert!(proxy.count(&small) > 10);
    // Each burst may exceed what was requested, and the first has no line before it to connect to.
    assert!(tails > 10 && all - tails <= 2, "{all} requests, {tails} for the last records");
}

/// A driver that keeps nothing is reported once and its log requested once, on each API route.
#[test]
fn a_container_without_log_is_asked_once() {
    let engine = Engine::start();
    for (source, way) in [STREAM, ROTATE, POLL] {
        let proxy = Proxy::start(&engine);
        let name = format!("{source}-mute");
        // By name, because the listing may still show the previous container as running.
        let args = [&["watch", "--format", "json", &name], way].concat();
        let watch = Watch::at(&engine, &proxy.host(), &args);
        watch.wait_until_up();
        let id = engine.run(&name, &["--log-driver", "none"], &["--count", "3", "--after", "1500", "--exit", "3"]);
        watch.wait_for_ends(1);
        let finished = watch.stop();
        assert_eq!(finished.stdout, b"");
        let reported = format!("! {name}: cannot be followed: configured logging driver does not support reading");
        assert_eq!(finished.stderr.lines().filter(|line| *line == reported).count(), 1, "{}", finished.stderr);
        assert!(!finished.stderr.contains('+'), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("- {name} (exit 3)")), "{}", finished.stderr);
        assert_eq!(proxy.count(&format!("{id}/logs")), 1, "{:?}", proxy.requests());
    }
}

/// Polled often enough, a rotating log has no gap, also on engines whose own following has one.
#[test]
fn polling_reads_a_rotating_log_whole() {
    let engine = Engine::start();
    let options = ["--log-opt", "max-size=100k", "--log-opt", "max-file=5"];
    let args = ["--count", "6000", "--rate", "1000", "--stream", "alternating"];
    let ways = [STREAM, ROTATE, POLL];
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = ways.map(|(source, way)| {
        let watch = Watch::start(&engine, &[&["--format", "json"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    for driver in ["json-file", "local"] {
        engine.run(driver, &[&["--log-driver", driver], &options[..]].concat(), &args);
    }
    for ((source, _), watch) in ways.into_iter().zip(watches) {
        watch.wait_for_ends(2);
        let finished = watch.stop();
        let numbers = Numbers::of_json(&finished.lines());
        for driver in ["json-file", "local"] {
            let flaw = numbers.flaw(driver, 1..=6000);
            eprintln!("{source}: {} lines of {driver}: {}", numbers.count(driver), flaw.as_deref().unwrap_or("whole"));
            assert!(source != "poll" || flaw.is_none(), "{flaw:?}");
        }
    }
}

//! Reads over the API that fail are repeated; what cannot be read at all is reported, and nothing is made up.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Engine, Fault, Numbers, PATIENCE, Proxy, Signal, Watch, eventually, records};

/// Less than half of the lines of [`written`].
const PART: Fault = Fault::Cut(40_000);

/// Runs a container to its end that writes 2,000 lines.
fn written(engine: &Engine, name: &str, options: &[&str]) {
    engine.run(name, options, &["--count", "2000"]);
    engine.wait(name);
}

/// The reasons of all gaps.
fn gaps(lines: &[String]) -> Vec<String> {
    let gaps = records(lines).into_iter().filter(|record| record["type"] == "gap");
    gaps.map(|gap| gap["reason"].as_str().unwrap().to_owned()).collect()
}

/// The log is complete though its connection breaks for a while.
#[test]
fn a_broken_connection_costs_no_line() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let check = |name: &str, options: &[&str]| {
        written(&engine, name, options);
        for tail in ["all", "1500"] {
            let part = format!("{}/logs", engine.id(name));
            proxy.on(&part, PART);
            let before = proxy.count(&part);
            let args = ["watch", "--no-follow", "--format", "json", "--source", "stream", "--tail", tail, name];
            let watch = Watch::at(&engine, &proxy.host(), &args);
            eventually("it has asked again", || proxy.count(&part) >= before + 6);
            proxy.off(&part);
            let finished = watch.finish();
            let first = if tail == "all" { 1 } else { 501 };
            Numbers::of_json(&finished.lines()).assert_whole(name, first..=2000);
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{name} {tail}");
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| check("framed", &[]));
        scope.spawn(|| check("terminal", &["--tty"]));
    });
}

/// A container without a readable log is a notice, and an error where it was named.
#[test]
fn a_named_container_without_log_fails() {
    let engine = Engine::start();
    engine.run("mute", &["--log-driver", "none"], &["--count", "3"]);
    engine.run("web", &[], &["--count", "3"]);
    engine.wait("mute");
    engine.wait("web");
    let why = "configured logging driver does not support reading";
    for (args, lines, code, reported) in [
        (&["--all"][..], 3, 0, format!("! mute: cannot be read: {why}\n")),
        (&["-q", "--all"], 3, 0, String::new()),
        (
            &["-q", "mute", "web"],
            3,
            1,
            format!(
                "error: not read to the end: mute\n  caused by: the Docker Engine cannot read the logs of {}: {why}\n",
                engine.id("mute")
            ),
        ),
    ] {
        let finished = Watch::start(&engine, &[&["--no-follow"], args].concat()).finish();
        assert_eq!((finished.lines().len(), finished.code, finished.stderr), (lines, Some(code), reported), "{args:?}");
    }
    let file = Watch::start(&engine, &["--no-follow", "--source", "file", "mute"]).finish();
    assert_eq!(file.code, Some(1), "{}", file.stderr);
    assert!(file.stderr.ends_with("error: not read to the end: mute\n"), "{}", file.stderr);
}

/// While the last lines cannot be requested, following waits, and then starts with them.
#[test]
fn following_starts_despite_failing_tail_requests() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "20", "--resume", "--idle"]);
    let proxy = Proxy::start(&engine);
    proxy.on("/logs", Fault::Hangup);
    let watch = Watch::at(&engine, &proxy.host(), &["watch", "--format", "json", "--source", "stream"]);
    // How often it is tried is a row of `retry`.
    eventually("it has tried again", || proxy.count("/logs") >= 4);
    proxy.heal();
    watch.wait_for_count(10);
    engine.must(&["restart", "web"]);
    watch.wait_for_count(30);
    let finished = watch.stop();
    Numbers::of_json(&finished.lines()).assert_whole("web", 11..=40);
    assert!(!finished.stderr.contains("cannot be followed"), "{}", finished.stderr);
}

/// The time in so many seconds, in the form of `--until`.
fn until(seconds: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs_f64(seconds);
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// What was written before `--until` is read, though the engine is away at that moment.
#[test]
fn until_is_met_despite_an_outage() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    engine.run("web", &[], &["--forever", "--rate", "200"]);
    let until = until(3.0);
    let args = ["watch", "--format", "json", "--source", "stream", "--tail", "all", "--until", &until];
    let watch = Watch::at(&engine, &proxy.host(), &args);
    watch.wait_for_count(10);
    proxy.on("/logs", Fault::Hangup);
    proxy.cut_where("/logs");
    let end = Instant::now() + Duration::from_secs(4);
    eventually("the time was over for a while", || Instant::now() > end);
    proxy.forget();
    eventually("it was asked again", || proxy.count("/logs") > 0);
    proxy.heal();
    let finished = watch.finish();
    assert_eq!(finished.code, Some(0));
    let all = Watch::read(&engine, &["--format", "json", "--until", &until]).lines();
    let (ours, theirs) = (Numbers::of_json(&finished.lines()).count("web"), Numbers::of_json(&all).count("web"));
    Numbers::of_json(&finished.lines()).assert_whole("web", 1..=theirs as u64);
    assert!(ours > 300, "{ours}");
    assert_eq!(gaps(&finished.lines()), [""; 0]);
}

/// A container whose lookup is pending when the time of `--until` comes is read up to then, and delays no other.
#[test]
fn until_is_met_by_a_slow_answer() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    engine.run("beacon", &[], &["--count", "1", "--idle"]);
    let until = until(6.0);
    let watches = ["auto", "stream"].map(|source| {
        let args = ["watch", "--format", "json", "-f", "network=none", "--source", source, "--until", &until];
        let watch = Watch::at(&engine, &proxy.host(), &args);
        watch.wait_for_count(1);
        watch
    });
    // Longer than the time until then.
    proxy.on("/containers/json", Fault::Delay(Duration::from_secs(7)));
    engine.run("web", &[], &["--count", "30", "--idle"]);
    for watch in watches {
        let finished = watch.finish();
        assert_eq!(finished.code, Some(0));
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=30);
        assert_eq!(gaps(&finished.lines()), [""; 0]);
    }
}

/// A run that is killed before it knows whether a container is selected leaves its first lines to the next run.
#[test]
fn first_lines_wait_for_the_filter() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    engine.run("beacon", &[], &["--forever", "--rate", "20"]);
    let state = engine.home().join("state.db");
    let args = ["--state", state.to_str().unwrap(), "--resume", "--format", "json", "--source", "stream"];
    let args = [&["watch", "-f", "network=none"], &args[..]].concat();
    let watch = Watch::at(&engine, &proxy.host(), &args);
    watch.wait_for_count(12);
    proxy.on("/containers/json", Fault::Stall);
    // It writes before its start event is received.
    proxy.on("/events", Fault::Delay(Duration::from_secs(1)));
    proxy.forget();
    engine.run("web", &[], &["--count", "30", "--idle"]);
    proxy.wait_for("/containers/json", Duration::from_secs(20));
    // So long that its first lines, and the position of the other container, are stored.
    let lines = watch.lines().len();
    watch.wait_for_count(lines + 30);
    watch.signal(Signal::KILL);
    watch.finish();
    proxy.heal();
    let finished = Watch::at(&engine, &proxy.host(), &[&args[..], &["--no-follow"]].concat()).finish();
    Numbers::of_json(&finished.lines()).assert_whole("web", 1..=30);
}

/// Fails unless every number comes once and in order, or a gap is where some are missing. Returns the number of gaps.
#[track_caller]
fn assert_whole_or_reported(lines: &[String], name: &str, last: u64) -> usize {
    let (mut next, mut is_reported, mut gaps) = (1, false, 0);
    for record in records(lines).into_iter().filter(|record| record["container_name"] == name) {
        if record["type"] == "gap" {
            assert_eq!(record["reason"], "rotated_away", "{record}");
            (is_reported, gaps) = (true, gaps + 1);
        } else if record["type"] == "log" {
            let message = record["message"].as_str().unwrap();
            let number: u64 = message.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(
                number == next || is_reported && number > next,
                "{name}: {number} for {next}, reported: {is_reported}"
            );
            (next, is_reported) = (number + 1, false);
        }
    }
    assert_eq!(next, last + 1, "{name}: the end");
    gaps
}

/// What was rotated away between two runs is reported on every API route.
#[test]
fn rotation_before_a_resume_is_reported() {
    let engine = Engine::start();
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    for (source, driver) in [("stream", "json-file"), ("rotate", "json-file"), ("poll", "json-file"), ("poll", "local")]
    {
        let name = format!("{source}-{driver}");
        let options = [&["--log-driver", driver], &options[..]].concat();
        let state = engine.home().join(&name).with_extension("db");
        let args = ["--state", state.to_str().unwrap(), "--resume", "--format", "json", "--source", source, &name];
        let mut lines = Vec::new();
        engine.run(&name, &options, &["--count", "1000", "--size", "100", "--resume"]);
        // The first run reads what is left of the log, the second finds nothing new, and the third comes too late for
        // some of it.
        for (run, gone) in [(1, false), (2, false), (3, true)] {
            if run == 3 {
                engine.must(&["start", &name]);
            }
            engine.wait(&name);
            let finished = Watch::start(&engine, &[&["--no-follow"], &args[..]].concat()).finish();
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            let more = finished.lines();
            let reported = more.iter().filter(|line| line.contains(r#""type":"gap""#)).count();
            assert_eq!(reported, usize::from(gone), "{name}, run {run}: {}", finished.stderr);
            lines.extend(more);
        }
        let gap = lines.iter().position(|line| line.contains(r#""type":"gap""#)).unwrap();
        let numbers = |lines: &[String]| Numbers::of_json(lines).count(&name) as u64;
        let (before, behind) = (numbers(&lines[..gap]), numbers(&lines[gap..]));
        Numbers::of_json(&lines[..gap]).assert_whole(&name, 1001 - before..=1000);
        Numbers::of_json(&lines[gap..]).assert_whole(&name, 2001 - behind..=2000);
        assert!(behind < 1000, "{behind}");
    }
}

/// A log that rotates faster than it is polled is complete except for the reported gaps.
#[test]
fn polling_too_slowly_reports_the_loss() {
    let engine = Engine::start();
    let (host, intervals) = (engine.host(), ["200ms", "2s"]);
    let args = intervals.map(|interval| ["--source", "poll", "--poll-interval", interval, "--tail", "all"]);
    let watches = Watch::ready_each(&engine, args.each_ref().map(|args| (host.as_str(), &args[..])));
    let names = ["fast", "slow"];
    for (name, options) in names.iter().zip([["max-size=10k", "max-file=3"], ["max-size=20k", "max-file=2"]]) {
        let options = options.map(|option| ["--log-opt", option]).concat();
        engine.run(name, &options, &["--count", "2500", "--rate", "500"]);
    }
    // Both watches poll both logs.
    for (watch, interval) in watches.into_iter().zip(intervals) {
        watch.wait_for_ends(2);
        let finished = watch.stop();
        let gaps = names.map(|name| assert_whole_or_reported(&finished.lines(), name, 2500));
        assert!(interval == "200ms" || gaps.iter().all(|gaps| *gaps > 0), "every {interval}: {gaps:?}");
    }
}

/// Runs five `--rm` containers of three lines one after the other, each until it is removed; returns their IDs and
/// names.
fn five_gone(engine: &Engine, prefix: &str) -> Vec<(String, String)> {
    let run = |number: usize| {
        let name = format!("{prefix}-{number}");
        let id = engine.create(&name, &["--rm"], &["--count", "3"]);
        engine.must(&["start", "--attach", &name]);
        eventually("it was removed", || {
            engine.must(&["ps", "--all", "--quiet", "--filter", &format!("id={id}")]).is_empty()
        });
        (id, name)
    };
    (0..5).map(run).collect()
}

/// A container that was removed before its log could be read is one gap, on every route.
#[test]
fn removals_during_a_suspension_are_gaps() {
    let engine = Engine::start();
    let args = [
        &["-v", "--source", "auto"][..],
        &["-v", "--source", "file"],
        &["-v", "--source", "stream"],
        &["-v", "--source", "rotate"],
        &["-v", "--source", "poll"],
        &["-v", "--filter", "network=none"],
        &["-v", "--source", "stream", "--filter", "network=none"],
        &["-v", "--metadata", "--lifecycle"],
    ];
    let host = engine.host();
    let watches = Watch::ready_each(&engine, args.map(|args| (host.as_str(), args)));
    let text = Watch::start(&engine, &[]);
    text.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), PATIENCE);
    for watch in watches.iter().chain([&text]) {
        watch.signal(Signal::STOP);
    }
    let gone = five_gone(&engine, "gone");
    for watch in watches.iter().chain([&text]) {
        watch.signal(Signal::CONT);
    }
    for (watch, args) in watches.into_iter().zip(args) {
        watch.wait_for_ends(5);
        let finished = watch.stop();
        let records = finished.records();
        let mut gaps = 0;
        for (id, name) in &gone {
            let of = |kind: &str| {
                let ours =
                    records.iter().filter(|record| record["type"] == kind && record["container_id"] == id.as_str());
                ours.inspect(|record| assert_eq!(record["container_name"], name.as_str())).count()
            };
            assert!(
                matches!((of("log"), of("gap")), (3, 0) | (0..3, 1)),
                "{args:?} {name}: {} {}",
                of("log"),
                of("gap")
            );
            gaps += of("gap");
        }
        assert_eq!(records.iter().filter(|record| record["type"] == "gap").count(), gaps, "{args:?}: of nobody else");
        let counted = match gaps {
            0 => "; no gap".to_owned(),
            1 => "; 1 gap (1 unreadable)".to_owned(),
            gaps => format!("; {gaps} gaps ({gaps} unreadable)"),
        };
        assert!(finished.stderr.contains(&counted), "{args:?}: {counted}\n{}", finished.stderr);
    }
    text.wait_for_ends(5);
    let finished = text.stop();
    for (_, name) in &gone {
        let lines = finished.lines().iter().filter(|line| line.starts_with(&format!("{name} | "))).count();
        let notice = format!("! {name}: the log could not be read");
        let gaps = finished.stderr.lines().filter(|line| line.starts_with(&notice)).count();
        assert!(matches!((lines, gaps), (3, 0) | (0..3, 1)), "{name}: {lines} {gaps}");
    }
}

/// A container from a listing that is removed before its history could be read is a gap as well.
#[test]
fn removal_before_the_first_read_is_one_gap() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    for (tail, name) in [("10", "some"), ("all", "whole")] {
        let id = engine.run(name, &[], &["--count", "20", "--idle"]);
        engine.create("made", &[], &["--count", "1"]);
        proxy.on("/logs", Fault::Hangup);
        proxy.forget();
        let args = ["watch", "--format", "json", "--source", "stream", "--tail", tail];
        let watch = Watch::at(&engine, &proxy.host(), &args);
        proxy.wait_for(&format!("{id}/logs"), PATIENCE);
        engine.must(&["rm", "--force", name, "made"]);
        proxy.heal();
        watch.wait_for_ends(1);
        let finished = watch.stop();
        let records = finished.records();
        assert_eq!(records.len(), 1, "{records:?}: one that never ran has lost nothing");
        assert_eq!((&records[0]["type"], &records[0]["container_name"]), (&"gap".into(), &name.into()), "{records:?}");
    }
}

/// Nothing is lost of a container whose stream the engine ended before it removed the log.
#[test]
fn a_removed_container_read_whole_has_no_gap() {
    let engine = Engine::start();
    let sources = ["auto", "stream"].map(|source| ["-v", "--source", source]);
    let host = engine.host();
    let watches = Watch::ready_each(&engine, sources.each_ref().map(|args| (host.as_str(), &args[..])));
    for number in 0..5 {
        engine.run(&format!("web-{number}"), &["--rm"], &["--forever", "--rate", "500"]);
    }
    for watch in &watches {
        watch.wait_for_count(500);
    }
    engine.must(&["rm", "--force", "web-0", "web-1", "web-2", "web-3", "web-4"]);
    for watch in watches {
        watch.wait_for_ends(5);
        let finished = watch.stop();
        assert!(finished.stderr.contains("; no gap"), "{}", finished.stderr);
    }
}

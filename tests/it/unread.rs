//! What cannot be read over the API is asked for again; where that is in vain it is told, and nothing is made up.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{Engine, Fault, Numbers, PATIENCE, Proxy, Signal, Watch, eventually, records};

/// Less than half of the lines of [`written`].
const PART: Fault = Fault::Cut(40_000);

/// A container whose 2,000 lines are there.
fn written(engine: &Engine, name: &str, options: &[&str]) {
    engine.run(name, options, &["--count", "2000"]);
    engine.wait(name);
}

/// The reasons of all gaps.
fn gaps(lines: &[String]) -> Vec<String> {
    let gaps = records(lines).into_iter().filter(|record| record["type"] == "gap");
    gaps.map(|gap| gap["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_log_that_is_read_once_is_whole_though_its_connection_breaks_for_a_while() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    for (name, options) in [("framed", &[][..]), ("terminal", &["--tty"])] {
        written(&engine, name, options);
        for tail in ["all", "1500"] {
            let part = format!("{}/logs", engine.id(name));
            proxy.on(&part, PART);
            proxy.forget();
            let words = ["watch", "--no-follow", "--format", "json", "--source", "stream", "--tail", tail, name];
            let watch = Watch::at(&engine, &proxy.host(), &words);
            eventually("it has asked again", || proxy.count(&part) >= 6);
            proxy.heal();
            let finished = watch.finish();
            let first = if tail == "all" { 1 } else { 501 };
            Numbers::of_json(&finished.lines()).assert_whole(name, first..=2000);
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{name} {tail}");
        }
    }
}

#[test]
fn an_engine_that_goes_for_good_while_logs_are_read_once_ends_that_soon_and_the_loss_is_told() {
    let engine = Engine::start();
    let names: Vec<String> = (0..40).map(|number| format!("web-{number}")).collect();
    for name in &names {
        engine.run(name, &[], &["--count", "1"]);
    }
    // The newest are read first.
    written(&engine, "terminal", &["--tty"]);
    written(&engine, "framed", &[]);
    let proxy = Proxy::start(&engine);
    proxy.on("/logs", Fault::Stall);
    for name in ["terminal", "framed"] {
        proxy.on(&format!("{}/logs", engine.id(name)), PART);
    }
    let words = ["watch", "--all", "--no-follow", "--format", "json", "--source", "stream", "--tail", "all"];
    let watch = Watch::at(&engine, &proxy.host(), &words);
    watch.wait_for_count(1000);
    let gone = Instant::now();
    proxy.refuse();
    let finished = watch.finish();
    // Twenty seconds for those that are read, and one for those that wait behind them.
    assert!(gone.elapsed() < Duration::from_secs(28), "{:?}", gone.elapsed());
    let lines = finished.lines();
    let numbers = Numbers::of_json(&lines);
    for name in ["terminal", "framed"] {
        // No half line among them.
        let count = numbers.count(name);
        assert!((100..2000).contains(&count), "{name}: {count}");
        let message = |record: &Value| record["message"].as_str().map(|text| text.trim_end().to_owned());
        let ours = records(&lines).into_iter().filter(|record| record["container_name"] == name);
        let ours: Vec<String> = ours.filter_map(|record| message(&record)).collect();
        let theirs: Vec<String> = engine.must(&["logs", name]).lines().map(|line| line.trim_end().to_owned()).collect();
        assert!(ours[..count] == theirs[..count], "{name}: {:?}", ours.last());
    }
    let told: Vec<Value> = records(&lines).into_iter().filter(|record| record["type"] == "gap").collect();
    assert_eq!((told.len(), gaps(&lines)), (42, vec!["unreadable".to_owned(); 42]), "{}", finished.stderr);
    let behind = told.iter().filter(|gap| gap["after_cursor"].is_string()).count();
    assert_eq!(behind, 2, "{told:?}");
    for name in ["terminal", "framed", "web-39"] {
        assert!(finished.stderr.contains(&format!("! {name}: ")), "{}", finished.stderr);
    }
    let told = finished.stderr.lines().find(|line| line.starts_with("error: not read to the end: "));
    assert!(told.is_some_and(|told| told.ends_with(" and 39 more")), "{}", finished.stderr);
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
}

#[test]
fn a_container_without_a_log_is_a_failure_where_it_was_named() {
    let engine = Engine::start();
    engine.run("mute", &["--log-driver", "none"], &["--count", "3"]);
    engine.run("web", &[], &["--count", "3"]);
    engine.wait("mute");
    engine.wait("web");
    let why = "configured logging driver does not support reading";
    for (words, lines, code, told) in [
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
        let finished = Watch::start(&engine, &[&["--no-follow"], words].concat()).finish();
        assert_eq!((finished.lines().len(), finished.code, finished.stderr), (lines, Some(code), told), "{words:?}");
    }
    let file = Watch::start(&engine, &["--no-follow", "--source", "file", "mute"]).finish();
    assert_eq!(file.code, Some(1), "{}", file.stderr);
    assert!(file.stderr.ends_with("error: not read to the end: mute\n"), "{}", file.stderr);
}

#[test]
fn a_container_whose_last_lines_cannot_be_found_at_once_is_followed_all_the_same() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "20", "--resume", "--idle"]);
    let proxy = Proxy::start(&engine);
    proxy.on("/logs", Fault::Hangup);
    let watch = Watch::at(&engine, &proxy.host(), &["watch", "--format", "json", "--source", "stream"]);
    eventually("it has tried as often as an engine that refuses is asked", || proxy.count("/logs") >= 7);
    proxy.heal();
    watch.wait_for_count(10);
    engine.must(&["restart", "web"]);
    watch.wait_for_count(30);
    let finished = watch.stop();
    Numbers::of_json(&finished.lines()).assert_whole("web", 11..=40);
    assert!(!finished.stderr.contains("cannot be followed"), "{}", finished.stderr);
}

#[test]
fn of_a_container_that_was_removed_the_rest_that_cannot_be_read_is_told_as_a_gap() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "stream"]);
    let id = engine.run("web", &[], &["--forever", "--rate", "500"]);
    watch.wait_for_count(100);
    let part = format!("{id}/logs");
    proxy.on(&part, Fault::Hangup);
    proxy.forget();
    proxy.cut_where(&part);
    engine.must(&["rm", "--force", "web"]);
    watch.wait_for(|lines| !gaps(lines).is_empty(), Duration::from_secs(30));
    // More than the one time that it was asked for before.
    assert!(proxy.count(&part) > 4, "{:?}", proxy.requests());
    let finished = watch.stop();
    let (numbers, lines) = (Numbers::of_json(&finished.lines()), finished.lines());
    numbers.assert_whole("web", 1..=numbers.count("web") as u64);
    assert_eq!(gaps(&lines), ["unreadable"]);
    assert!(finished.stderr.contains("! web: lost the connection to "), "{}", finished.stderr);
}

/// So many seconds from now, as `--until` takes it.
fn until(seconds: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs_f64(seconds);
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

#[test]
fn what_was_written_by_the_time_asked_for_is_read_though_the_engine_is_away_just_then() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    engine.run("web", &[], &["--forever", "--rate", "200"]);
    let until = until(3.0);
    let words = ["watch", "--format", "json", "--source", "stream", "--tail", "all", "--until", &until];
    let watch = Watch::at(&engine, &proxy.host(), &words);
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

#[test]
fn a_container_that_is_asked_about_when_the_time_has_come_is_read_up_to_then_and_holds_nobody_up() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    for source in ["auto", "stream"] {
        engine.run("beacon", &[], &["--count", "1", "--idle"]);
        let until = until(6.0);
        let words = ["watch", "--format", "json", "-f", "network=none", "--source", source, "--until", &until];
        let watch = Watch::at(&engine, &proxy.host(), &words);
        watch.wait_for_count(1);
        // Longer than until then.
        proxy.on("/containers/json", Fault::Delay(Duration::from_secs(7)));
        engine.run("web", &[], &["--count", "30", "--idle"]);
        let finished = watch.finish();
        assert_eq!(finished.code, Some(0));
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=30);
        assert_eq!(gaps(&finished.lines()), [""; 0]);
        proxy.heal();
        engine.must(&["rm", "--force", "beacon", "web"]);
    }
}

#[test]
fn a_run_that_is_killed_before_it_knows_whether_a_container_is_wanted_leaves_its_first_lines_to_the_next() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    engine.run("beacon", &[], &["--forever", "--rate", "20"]);
    let state = engine.home().join("state.db");
    let words = ["--state", state.to_str().unwrap(), "--resume", "--format", "json", "--source", "stream"];
    let words = [&["watch", "-f", "network=none"], &words[..]].concat();
    let watch = Watch::at(&engine, &proxy.host(), &words);
    watch.wait_for_count(12);
    proxy.on("/containers/json", Fault::Stall);
    // It writes before it is heard of.
    proxy.on("/events", Fault::Delay(Duration::from_secs(1)));
    proxy.forget();
    engine.run("web", &[], &["--count", "30", "--idle"]);
    proxy.wait_for("/containers/json", Duration::from_secs(20));
    // So long that what was known of it then is kept, as is how far the other one has come.
    let lines = watch.lines().len();
    watch.wait_for_count(lines + 30);
    watch.signal(Signal::KILL);
    watch.finish();
    proxy.heal();
    let finished = Watch::at(&engine, &proxy.host(), &[&words[..], &["--no-follow"]].concat()).finish();
    Numbers::of_json(&finished.lines()).assert_whole("web", 1..=30);
}

/// Fails unless every number is there once and in order, or a gap stands where some are missing; how many gaps there are.
#[track_caller]
fn assert_whole_or_told(lines: &[String], name: &str, last: u64) -> usize {
    let (mut next, mut is_told, mut gaps) = (1, false, 0);
    for record in records(lines).into_iter().filter(|record| record["container_name"] == name) {
        if record["type"] == "gap" {
            assert_eq!(record["reason"], "rotated_away", "{record}");
            (is_told, gaps) = (true, gaps + 1);
        } else if record["type"] == "log" {
            let message = record["message"].as_str().unwrap();
            let number: u64 = message.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(number == next || is_told && number > next, "{name}: {number} for {next}, told: {is_told}");
            (next, is_told) = (number + 1, false);
        }
    }
    assert_eq!(next, last + 1, "{name}: the end");
    gaps
}

#[test]
fn what_the_engine_rotated_away_while_nobody_watched_is_told_by_every_route_over_the_api() {
    let engine = Engine::start();
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    for (source, driver) in [("stream", "json-file"), ("rotate", "json-file"), ("poll", "json-file"), ("poll", "local")]
    {
        let name = format!("{source}-{driver}");
        let options = [&["--log-driver", driver], &options[..]].concat();
        let state = engine.home().join(&name).with_extension("db");
        let words = ["--state", state.to_str().unwrap(), "--resume", "--format", "json", "--source", source, &name];
        let mut lines = Vec::new();
        engine.run(&name, &options, &["--count", "1000", "--size", "100", "--resume"]);
        // The first run finds what is left of the log; the second nothing new; and the third is too late for some of it.
        for (run, gone) in [(1, false), (2, false), (3, true)] {
            if run == 3 {
                engine.must(&["start", &name]);
            }
            engine.wait(&name);
            let finished = Watch::start(&engine, &[&["--no-follow"], &words[..]].concat()).finish();
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            let more = finished.lines();
            let told = more.iter().filter(|line| line.contains(r#""type":"gap""#)).count();
            assert_eq!(told, usize::from(gone), "{name}, run {run}: {}", finished.stderr);
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

#[test]
fn polled_too_seldom_for_its_rotation_a_log_comes_whole_but_for_what_is_told() {
    let engine = Engine::start();
    for (name, options, interval) in
        [("fast", ["max-size=10k", "max-file=3"], "200ms"), ("slow", ["max-size=20k", "max-file=2"], "2s")]
    {
        let words = ["watch", "--format", "json", "--source", "poll", "--poll-interval", interval, "--tail", "all"];
        let watch = Watch::ready(&engine, &words[3..]);
        let options = options.map(|option| ["--log-opt", option]).concat();
        engine.run(name, &options, &["--count", "4000", "--rate", "500"]);
        watch.wait_for_ends(1);
        let finished = watch.stop();
        let gaps = assert_whole_or_told(&finished.lines(), name, 4000);
        assert!(gaps > 0 || name == "fast", "{name}: {gaps}");
        engine.must(&["rm", "--force", "beacon"]);
    }
}

/// Runs five `--rm` containers of three lines one after the other, each until it is gone; their IDs and names.
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

/// A container that was gone before its log could be read is a gap, whatever the route, and counted once.
#[test]
fn each_container_gone_while_the_watch_stood_still_is_one_gap() {
    let engine = Engine::start();
    let words = [
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
    let watches = Watch::ready_each(&engine, words.map(|words| (host.as_str(), words)));
    let text = Watch::start(&engine, &[]);
    text.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), PATIENCE);
    for watch in watches.iter().chain([&text]) {
        watch.signal(Signal::STOP);
    }
    let gone = five_gone(&engine, "gone");
    for watch in watches.iter().chain([&text]) {
        watch.signal(Signal::CONT);
    }
    for (watch, words) in watches.into_iter().zip(words) {
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
                "{words:?} {name}: {} {}",
                of("log"),
                of("gap")
            );
            gaps += of("gap");
        }
        assert_eq!(records.iter().filter(|record| record["type"] == "gap").count(), gaps, "{words:?}: of nobody else");
        let counted = match gaps {
            0 => "; no gap".to_owned(),
            1 => "; 1 gap (1 unreadable)".to_owned(),
            gaps => format!("; {gaps} gaps ({gaps} unreadable)"),
        };
        assert!(finished.stderr.contains(&counted), "{words:?}: {counted}\n{}", finished.stderr);
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

/// A container that a listing told of is a gap, too, when it is gone before its history could be read.
#[test]
fn a_listed_container_removed_before_its_history_was_read_is_one_gap() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    for (tail, name) in [("10", "some"), ("all", "whole")] {
        let id = engine.run(name, &[], &["--count", "20", "--idle"]);
        engine.create("made", &[], &["--count", "1"]);
        proxy.on("/logs", Fault::Hangup);
        proxy.forget();
        let words = ["watch", "--format", "json", "--source", "stream", "--tail", tail];
        let watch = Watch::at(&engine, &proxy.host(), &words);
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
fn a_container_read_to_the_end_of_its_stream_and_removed_is_no_gap() {
    let engine = Engine::start();
    let sources = ["auto", "stream"].map(|source| ["-v", "--source", source]);
    let host = engine.host();
    let watches = Watch::ready_each(&engine, sources.each_ref().map(|words| (host.as_str(), &words[..])));
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

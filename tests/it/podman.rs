//! Podman through Docker's API: what it says about itself, and that no route loses or repeats a line.
//!
//! It stamps lines with whole seconds, excludes both ends of a requested range, sends a line in pieces, and begins its
//! answer to a request for events only with the first event.

use std::fs;

use serde_json::Value;

use crate::support::{Numbers, PATIENCE, Podman, Signal, Watch, records};

/// The routes with arguments that make each send requests often.
const WAYS: [(&str, &[&str]); 3] = [
    ("stream", &["--source", "stream"]),
    ("rotate", &["--source", "rotate", "--rotate-interval", "300ms"]),
    ("poll", &["--source", "poll", "--poll-interval", "200ms"]),
];

/// The messages of one container and stream, in order.
fn messages<'a>(records: &'a [Value], container: &str, stream: &str) -> Vec<&'a str> {
    let of = |record: &&Value| {
        record["type"] == "log" && record["container_name"] == container && record["stream"] == stream
    };
    records.iter().filter(of).map(|record| record["message"].as_str().unwrap()).collect()
}

/// What docker's CLI prints of a container.
fn lines_of_docker(podman: &Podman, container: &str) -> [Vec<String>; 2] {
    let output = podman.docker(&["logs", container]);
    [output.stdout, output.stderr].map(|bytes| {
        String::from_utf8_lossy(&bytes).lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
    })
}

#[track_caller]
fn assert_as_docker_has_it(podman: &Podman, records: &[Value], name: &str) {
    let theirs = lines_of_docker(podman, name);
    for (stream, theirs) in ["stdout", "stderr"].into_iter().zip(theirs) {
        let ours: Vec<_> = messages(records, name, stream).iter().map(|line| line.trim_end_matches('\r')).collect();
        let differs = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
        let around = |at: usize| {
            (
                &ours[at.saturating_sub(3)..(at + 3).min(ours.len())],
                &theirs[at.saturating_sub(3)..(at + 3).min(theirs.len())],
            )
        };
        assert!(
            differs.is_none() && ours.len() == theirs.len(),
            "{name} {stream}: {} of {}, {differs:?}: {:?}",
            ours.len(),
            theirs.len(),
            differs.map(around)
        );
    }
}

fn every_line_comes_once(podman: &Podman) {
    let args = ["--count", "4000", "--rate", "400", "--stream", "alternating"];
    podman.run("before", &[], &args);
    podman.run("stopped", &[], &["--count", "300", "--stream", "alternating"]);
    podman.wait("stopped");
    let watches = WAYS.map(|(source, way)| {
        let watch = podman.logwatch(&[&["watch", "--format", "json", "--all", "-n", "all"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ before ({source})")), PATIENCE);
        watch
    });
    podman.run("later", &[], &args);
    podman.run("tty", &["--tty"], &["--count", "1000", "--rate", "400"]);
    podman.run("brief", &[], &["--count", "20"]);
    for name in ["before", "later", "tty", "brief"] {
        podman.wait(name);
    }
    for ((source, _), watch) in WAYS.into_iter().zip(watches) {
        watch.wait_for_ends(5);
        let finished = watch.stop();
        assert!(!finished.stderr.contains('!'), "{source}: {}", finished.stderr);
        let (lines, records) = (finished.lines(), finished.records());
        let numbers = Numbers::of_json(&lines);
        for (name, count) in [("before", 4000), ("stopped", 300), ("later", 4000), ("tty", 1000), ("brief", 20)] {
            if let Some(flaw) = numbers.flaw(name, 1..=count) {
                let [stdout, stderr] = lines_of_docker(podman, name).map(|lines| lines.len());
                panic!("--source {source}: {flaw}; docker logs has {stdout} and {stderr} lines");
            }
            assert_as_docker_has_it(podman, &records, name);
        }
        for record in records.iter().filter(|record| record["type"] == "log") {
            assert_eq!(record["source"], source, "{record}");
            let time = record["time"].as_str().unwrap();
            assert!(time.len() == 30 && time.ends_with(".000000000Z"), "{time}");
        }
    }
}

/// Many lines share a second, and each comes once, from before the watch and from later containers.
#[test]
fn podman_4_is_read_whole() {
    let podman = Podman::of("bookworm");
    assert!(podman.version().starts_with("4."), "{}", podman.version());
    every_line_comes_once(&podman);
}

/// The same with the Podman of Debian 13.
#[test]
fn podman_5_is_read_whole() {
    let podman = Podman::of("trixie");
    assert!(podman.version().starts_with("5."), "{}", podman.version());
    every_line_comes_once(&podman);
}

/// Podman 5 drops lines of a response that follows a container when the container ends before they are sent; they are
/// read again.
#[test]
fn lines_that_podman_drops_at_an_end_are_read_again() {
    let podman = Podman::of("trixie");
    podman.run("first", &[], &["--count", "1"]);
    podman.wait("first");
    let watch = podman.logwatch(&["watch", "--format", "json", "--all"]);
    watch.wait_for_notice(|lines| lines.contains(&"- first (exit 0)".to_owned()), PATIENCE);
    for (name, options) in [("burst", &[][..]), ("terminal", &["--tty"])] {
        podman.run(name, options, &["--count", "100000"]);
        podman.wait(name);
    }
    watch.wait_for_ends(3);
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    for name in ["burst", "terminal"] {
        numbers.assert_whole(name, 1..=100_000);
    }
}

/// The log of a container with `--rm` may be gone before it can be read again. Then a gap reports what Podman dropped.
#[test]
fn lines_dropped_with_their_log_are_a_gap() {
    let podman = Podman::of("trixie");
    podman.run("first", &[], &["--count", "1"]);
    podman.wait("first");
    let watch = podman.logwatch(&["watch", "--format", "json", "--all"]);
    watch.wait_for_notice(|lines| lines.contains(&"- first (exit 0)".to_owned()), PATIENCE);
    for number in 0..3 {
        podman.run(&format!("burst-{number}"), &["--rm"], &["--count", "30000"]);
    }
    watch.wait_for_ends(4);
    let finished = watch.stop();
    let (numbers, records) = (Numbers::of_json(&finished.lines()), finished.records());
    for name in ["burst-0", "burst-1", "burst-2"] {
        let has_gap = records.iter().any(|record| record["type"] == "gap" && record["container_name"] == name);
        let flaw = numbers.flaw(name, 1..=30_000);
        assert!(has_gap || flaw.is_none(), "{flaw:?}, without a gap");
        assert!(numbers.count(name) <= 30_000, "{name}: lines come twice");
    }
}

/// Runs that are killed within a second of each other continue where the last one was, on every route.
#[test]
fn killed_watches_of_podman_resume_exactly() {
    let podman = Podman::start();
    podman.run("web", &[], &["--forever", "--rate", "300", "--stream", "alternating"]);
    for (source, way) in WAYS {
        let output = podman.home().join(format!("{source}.json"));
        let output = output.to_str().unwrap();
        let state = format!("{output}.db");
        let own = ["watch", "--format", "json", "--resume", "--state", &state, "-o", output, "web"];
        let lines = || fs::read_to_string(output).unwrap_or_default().lines().count();
        for _ in 0..5 {
            let before = lines();
            let watch = podman.logwatch(&[&own[..], way].concat());
            crate::support::eventually("some lines were written", || lines() > before + 40);
            watch.signal(Signal::KILL);
            drop(watch);
        }
    }
    podman.must(&["kill", "web"]);
    podman.wait("web");
    let written: usize = lines_of_docker(&podman, "web").iter().map(Vec::len).sum();
    for (source, way) in WAYS {
        let output = podman.home().join(format!("{source}.json"));
        let output = output.to_str().unwrap();
        let state = format!("{output}.db");
        let own = ["watch", "--no-follow", "--format", "json", "--resume", "--state", &state, "-o", output, "web"];
        let finished = podman.logwatch(&[&own[..], way].concat()).finish();
        assert_eq!(finished.code, Some(0), "{source}: {}", finished.stderr);
        let text = fs::read_to_string(output).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(!records(&lines).iter().any(|record| record["type"] == "gap"), "{source}: {}", finished.stderr);
        Numbers::of_json(&lines).assert_whole("web", 1..=written as u64);
    }
}

/// A service that is away for a while costs no line, and its return is noticed.
#[test]
fn a_podman_that_returns_is_read_on() {
    let podman = Podman::start();
    podman.run("web", &[], &["--count", "4000", "--rate", "400", "--stream", "alternating"]);
    let watches = WAYS.map(|(_, way)| podman.logwatch(&[&["watch", "--format", "json", "-n", "all"], way].concat()));
    watches.iter().for_each(|watch| watch.wait_for_count(500));
    for _ in 0..3 {
        let before = watches.each_ref().map(|watch| watch.lines().len());
        podman.kill();
        podman.up();
        for (watch, before) in watches.iter().zip(before) {
            watch.wait_for(|lines| lines.len() > before || lines.len() >= 4000, PATIENCE);
        }
    }
    podman.wait("web");
    for ((source, _), watch) in WAYS.into_iter().zip(watches) {
        watch.wait_for_ends(1);
        let finished = watch.stop();
        eprintln!("{source}: {}", finished.stderr);
        assert_as_docker_has_it(&podman, &finished.records(), "web");
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=4000);
    }
}

/// `-n`, `--since` and `--until` mean the same as with Docker, although Podman's times are less precise.
#[test]
fn tail_since_and_until_select_podman_lines() {
    let podman = Podman::start();
    podman.run("web", &[], &["--count", "600", "--rate", "150"]);
    podman.wait("web");
    let kept = podman.must(&["inspect", "--format", "{{.LogPath}}", "web"]);
    let kept: Vec<String> = fs::read_to_string(kept).unwrap().lines().map(str::to_owned).collect();
    for (source, way) in WAYS {
        let read = |args: &[&str]| {
            let finished =
                podman.logwatch(&[&["watch", "--no-follow", "--format", "json", "web"], way, args].concat()).finish();
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{source} {args:?}");
            finished.lines()
        };
        let all = read(&[]);
        Numbers::of_json(&all).assert_whole("web", 1..=600);
        for last in [1_u64, 7, 100, 400] {
            Numbers::of_json(&read(&["-n", &last.to_string()])).assert_whole("web", 600 - last + 1..=600);
        }
        // Between this line and the next one, by the engine's own log, which is more precise than what it sends.
        let split = |around: usize| {
            let read = |number: usize| {
                let stamp = kept[number - 1].split(' ').next().unwrap();
                stamp.parse::<jiff::Timestamp>().unwrap().as_nanosecond()
            };
            let last = (around..).find(|number| read(*number) + 4000 < read(number + 1)).unwrap();
            let middle = jiff::Timestamp::from_nanosecond((read(last) + read(last + 1)) / 2).unwrap();
            (last as u64, format!("{middle:.9}"))
        };
        let ((early, from), (late, to)) = (split(100), split(333));
        Numbers::of_json(&read(&["--since", &from])).assert_whole("web", early + 1..=600);
        Numbers::of_json(&read(&["--until", &from])).assert_whole("web", 1..=early);
        Numbers::of_json(&read(&["--since", &from, "--until", &to])).assert_whole("web", early + 1..=late);
    }
}

/// A watch from now on prints what is written from now on, also within the second in which it started.
#[test]
fn first_second_lines_of_podman_are_shown() {
    let podman = Podman::start();
    podman.run("web", &[], &["--count", "3000", "--rate", "300"]);
    for (source, way) in WAYS {
        let watch = podman.logwatch(&[&["watch", "--format", "json", "-n", "0"], way].concat());
        watch.wait_for_count(100);
        let records = watch.stop().records();
        let numbers: Vec<u64> = messages(&records, "web", "stdout")
            .iter()
            .map(|message| message.split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        let first = numbers[0];
        assert!(first > 1, "{source}: {first}");
        assert!(numbers.iter().zip(first..).all(|(number, expected)| *number == expected), "{source}: {numbers:?}");
    }
}

/// Podman sends a long line in pieces, each with its own second; it does the same with a line that is written in parts.
#[test]
fn lines_that_come_in_pieces_are_put_together() {
    let podman = Podman::start();
    let long = ["--count", "40", "--rate", "20", "--size", "50000"];
    podman.run("framed", &[], &long);
    podman.run("tty", &["--tty"], &["--count", "5", "--rate", "20", "--size", "50000"]);
    podman.run("unfinished", &[], &["--count", "3", "--unfinished"]);
    for name in ["framed", "tty", "unfinished"] {
        podman.wait(name);
    }
    for (source, way) in WAYS {
        let args = [&["watch", "--no-follow", "--all", "--format", "json"], way].concat();
        let finished = podman.logwatch(&args).finish();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{source}");
        let records = finished.records();
        let framed = messages(&records, "framed", "stdout");
        assert!(framed.len() == 40 && framed.iter().all(|line| line.len() == 49_999), "{source}: {}", framed.len());
        assert_eq!(messages(&records, "tty", "stdout").len(), 5, "{source}");
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole("framed", 1..=40);
        numbers.assert_whole("tty", 1..=5);
        numbers.assert_whole("unfinished", 1..=3);
    }
}

/// A container that is restarted after an unfinished line continues with a line of its own.
#[test]
fn an_unfinished_line_is_shown() {
    let podman = Podman::start();
    let watches = WAYS.map(|(_, way)| podman.logwatch(&[&["watch", "--format", "json"], way].concat()));
    watches.iter().for_each(Watch::wait_until_up);
    podman.run("web", &[], &["--count", "5", "--unfinished", "--resume"]);
    for lives in 1..=3 {
        watches.iter().for_each(|watch| watch.wait_for_ends(lives));
        if lives < 3 {
            podman.must(&["start", "web"]);
        }
    }
    for ((source, _), watch) in WAYS.into_iter().zip(watches) {
        let finished = watch.stop();
        assert!(!finished.stderr.contains('!'), "{source}: {}", finished.stderr);
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=15);
    }
}

/// Text and JSON reports name the engine as Podman.
#[test]
fn podman_is_called_podman() {
    let podman = Podman::start();
    let report = podman.logwatch(&["pool"]).finish();
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    let name = format!("Podman {} on linux", podman.version());
    assert!(report.code == Some(0) && text.contains(&name) && !text.contains("Docker 4"), "{text}");
    let report = podman.logwatch(&["pool", "--format", "json"]).finish();
    let json: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(json["engine"]["version"].as_str(), Some(podman.version().as_str()), "{json}");
}

/// Podman's names for removal and death are reported as Docker's.
#[test]
fn podman_lifecycle_matches_docker() {
    let podman = Podman::start();
    let watch = podman.logwatch(&["watch", "--format", "json", "--lifecycle"]);
    // From before they happen: nothing shows when the command has subscribed.
    let events = podman.logwatch(&["events", "--format", "json", "--filter", "type=container", "--since", "1h"]);
    watch.wait_until_up();
    podman.run("web", &["--rm"], &["--count", "3", "--after", "300", "--exit", "3"]);
    watch.wait_for_ends(1);
    events.wait_for(|lines| lines.iter().any(|line| line.contains("\"destroy\"")), PATIENCE);
    let finished = watch.stop();
    assert!(finished.stderr.contains("- web (exit 3)"), "{}", finished.stderr);
    Numbers::of_json(&finished.lines()).assert_whole("web", 1..=3);
    let reported: Vec<String> = records(events.stop().lines())
        .iter()
        .filter_map(|event| event["Action"].as_str().map(str::to_owned))
        .filter(|action| ["create", "start", "die", "destroy"].contains(&action.as_str()))
        .collect();
    assert_eq!(reported, ["create", "start", "die", "destroy"]);
}

/// On an idle host Podman answers a request for events with nothing at all, not even headers.
#[test]
fn a_quiet_podman_is_followed() {
    let podman = Podman::start();
    podman.run("web", &[], &["--count", "100000", "--rate", "20"]);
    let logwatch = |args: &[&str]| {
        let mut command = Watch::command();
        podman.configure(&mut command);
        Watch::spawn(command.env("LOGWATCH_DOCKER_POOL_REQUEST_TIMEOUT", "5s").args(args))
    };
    let once = logwatch(&["watch", "--no-follow", "--format", "json"]).finish();
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    let dry = logwatch(&["watch", "--dry-run"]).finish();
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    let watch = logwatch(&["watch", "--format", "json"]);
    let events = logwatch(&["events", "--filter", "type=container"]);
    // Longer than an answer may take.
    watch.wait_for(|lines| lines.len() > 20 * 8, PATIENCE);
    podman.run("later", &[], &["--count", "5"]);
    watch.wait_for_ends(1);
    podman.must(&["rm", "later"]);
    events.wait_for(|lines| lines.iter().any(|line| line.contains(" container destroy ")), PATIENCE);
    let finished = watch.stop();
    Numbers::of_json(&finished.lines()).assert_whole("later", 1..=5);
    assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    let reported = events.stop();
    assert!(reported.code == Some(0) && !reported.stderr.contains('!'), "{:?} {}", reported.code, reported.stderr);
    for action in ["create", "start", "die", "destroy"] {
        let count = reported.lines().iter().filter(|line| line.contains(&format!(" container {action} "))).count();
        assert_eq!(count, 1, "{action}: {:?}", reported.lines());
    }
}

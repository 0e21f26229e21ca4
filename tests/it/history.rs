//! Which lines of the past are printed, across rotations, on every route; and what a damaged log yields.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::support::{Engine, Numbers, PATIENCE, Watch, eventually};

/// The names of the containers of [`with_histories`].
const NAMES: [&str; 5] = ["plain", "rotated", "compressed", "long", "restarted"];

const SOURCES: [&str; 4] = ["file", "stream", "rotate", "poll"];

/// What identifies each line, in the order of the output.
fn cursors(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["cursor"].as_str().unwrap().to_owned()).collect()
}

fn read(engine: &Engine, args: &[&str]) -> Vec<Value> {
    Watch::read(engine, &[&["--format", "json"], args].concat()).records()
}

/// Containers whose history is in one file, in several, in compressed ones, and in lines of several records.
fn with_histories() -> Engine {
    let engine = Engine::start();
    let rotated = ["--log-opt", "max-size=20k", "--log-opt", "max-file=5"];
    let compressed = [&rotated[..], &["--log-opt", "compress=true"]].concat();
    let small = ["--count", "600", "--size", "40", "--stream", "alternating"];
    engine.run("plain", &[], &["--count", "50", "--rate", "500"]);
    engine.run("rotated", &rotated, &small);
    engine.run("compressed", &compressed, &small);
    let long = ["--count", "40", "--shape", "hostile", "--stream", "alternating", "--unfinished"];
    engine.run("long", &[], &long);
    // Each run ends in a line without a newline; some of these lines are in compressed files.
    engine.run("restarted", &compressed, &["--count", "80", "--size", "200", "--unfinished"]);
    for _ in 1..3 {
        engine.wait("restarted");
        engine.must(&["start", "restarted"]);
    }
    for name in NAMES {
        engine.wait(name);
    }
    let files = |name: &str, suffix: &str| {
        let entries = fs::read_dir(engine.container_dir(name)).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().to_str().unwrap().ends_with(suffix)).count()
    };
    for name in ["compressed", "restarted"] {
        eventually("the rotated files were compressed", || files(name, ".gz") >= 2 && files(name, ".1") == 0);
    }
    assert!(files("rotated", ".1") + files("rotated", ".2") + files("rotated", ".3") == 3);
    engine
}

/// A `--no-follow` run writes everything, however long its reader pauses.
#[test]
fn a_slow_reader_gets_every_line() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "200000", "--size", "100"]);
    engine.wait("web");
    let sources = ["file", "stream"];
    let watches = sources.map(|source| {
        let watch = Watch::start(&engine, &["--no-follow", "--source", source, "--format", "raw", "web"]);
        watch.wait_for_count(1);
        watch.hold();
        watch
    });
    // Longer than a stop waits for what was read before.
    std::thread::sleep(Duration::from_secs(6));
    for (watch, source) in watches.into_iter().zip(sources) {
        let finished = watch.finish();
        assert_eq!(
            (finished.code, finished.lines().len(), finished.stderr.as_str()),
            (Some(0), 200_000, ""),
            "{source}"
        );
    }
}

/// `--tail` shows so many lines, whatever they are made of and in whichever files they are.
#[test]
fn tail_counts_lines_in_any_log() {
    let engine = with_histories();
    for name in NAMES {
        let whole = cursors(&read(&engine, &[name]));
        // Some lines of "long" are empty.
        let least = [50, 600, 600, 40, 240][NAMES.iter().position(|known| *known == name).unwrap()];
        assert!(if name == "long" { whole.len() > least } else { whole.len() == least }, "{name}: {}", whole.len());
        for source in SOURCES {
            for wanted in ["0", "1", "16", "33", "250", "599", "600", "601", "all"] {
                let count = wanted.parse::<usize>().unwrap_or(usize::MAX).min(whole.len());
                let shown = cursors(&read(&engine, &[name, "--source", source, "--tail", wanted]));
                assert!(
                    shown == whole[whole.len() - count..],
                    "{name} by {source}: --tail {wanted} gave {}",
                    shown.len()
                );
            }
        }
    }
    // In rotated logs nothing is missing between two files.
    for name in ["rotated", "compressed"] {
        let lines = Watch::read(&engine, &[name, "--format", "json", "--source", "file"]).lines();
        Numbers::of_json(&lines).assert_whole(name, 1..=600);
    }
}

/// `--tail` is 10 when following, and everything with `--since`, on each route.
#[test]
fn following_starts_with_ten_lines() {
    let engine = Engine::start();
    engine.run("steady", &[], &["--count", "100", "--burst", "50", "--every", "1500", "--idle"]);
    for source in SOURCES {
        eventually("the first half was written", || {
            engine.must(&["logs", "--tail", "1", "steady"]).ends_with("50") || source != "file"
        });
        let check = |args: &[&str], first: u64| {
            let watch = Watch::start(&engine, &[&["steady", "--source", source, "--format", "json"], args].concat());
            let expected = (101 - first) as usize;
            watch.wait_for(|lines| lines.len() >= expected, PATIENCE);
            let finished = watch.stop();
            assert_eq!(finished.code, Some(0));
            Numbers::of_json(&finished.lines()).assert_whole("steady", first..=100);
        };
        if source == "file" {
            // Half of it is written while we follow.
            check(&[], 41);
        }
        check(&[], 91);
        check(&["--tail", "3"], 98);
        check(&["--tail", "all"], 1);
        check(&["--since", "1h"], 1);
        check(&["--since", "1h", "--tail", "5"], 96);
    }
}

/// Both bounds include their nanosecond, in each form of a time and on each route, as `docker logs` does.
#[test]
fn since_and_until_include_their_nanosecond() {
    let engine = with_histories();
    let unix = |cursor: &str| {
        let nanos: u64 = cursor.split('-').next().unwrap().parse().unwrap();
        format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
    };
    for name in NAMES {
        let whole = read(&engine, &[name]);
        let time = |record: &Value| record["time"].as_str().unwrap().to_owned();
        let last = whole.len() - 1;
        for (from, to) in [(0, last), (1, last), (last, last), (0, 0), (last / 3, last / 2), (last / 2, last / 2)] {
            let (since, until) = (time(&whole[from]), time(&whole[to]));
            if since > until {
                continue;
            }
            // All times have nine digits, so they sort like their text.
            let expected: Vec<Value> =
                whole.iter().filter(|record| since <= time(record) && time(record) <= until).cloned().collect();
            let expected = cursors(&expected);
            let fraction = (unix(&cursors(&whole)[from]), unix(&cursors(&whole)[to]));
            for (number, source) in SOURCES.into_iter().enumerate() {
                // Both forms of a time, by turns.
                let (since, until) = if number % 2 == 0 { (&since, &until) } else { (&fraction.0, &fraction.1) };
                let args = [name, "--source", source, "--since", since, "--until", until];
                assert!(cursors(&read(&engine, &args)) == expected, "{name} by {source}: {since} to {until}");
            }
            // Where the two streams overtake each other, engines differ in what they return between two times.
            if name == "plain" {
                let reported = engine.docker(&["logs", "--since", &since, "--until", &until, name]);
                for (stream, reported) in [("stdout", reported.stdout), ("stderr", reported.stderr)] {
                    let args = [name, "--since", &since, "--until", &until, "--stream", stream, "--format", "raw"];
                    let ours = Watch::read(&engine, &args);
                    assert_eq!(
                        String::from_utf8_lossy(&ours.stdout),
                        String::from_utf8_lossy(&reported),
                        "{since} {until}"
                    );
                }
            }
        }
        // Each form of a time means the same on every route.
        for source in SOURCES.into_iter().filter(|_| name == "compressed") {
            for (args, expected) in [
                (["--since", "1h"], whole.len()),
                (["--since", "1h30m5.5s"], whole.len()),
                (["--since", "2020-01-01"], whole.len()),
                (["--since", "2020-01-01T00:00:00.5"], whole.len()),
                (["--since", "1577836800"], whole.len()),
                (["--since", "2099-01-01"], 0),
                (["--until", "2099-12-31T23:59:59+01:00"], whole.len()),
                (["--until", "1h"], 0),
                (["--until", "2020-01-01"], 0),
            ] {
                let shown = read(&engine, &[&[name, "--source", source], &args[..]].concat()).len();
                assert_eq!(shown, expected, "{name} by {source}: {args:?}");
            }
        }
    }
}

/// A followed watch ends at `--until` with every line up to it, also those of a silent container.
#[test]
fn until_ends_a_watch() {
    let engine = Engine::start();
    engine.run("steady", &[], &["--forever", "--rate", "200", "--stream", "alternating"]);
    // On a silent container `docker logs --until` never ends.
    engine.run("silent", &[], &["--count", "1", "--idle"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs() + 2, now.subsec_nanos());
    let watches = SOURCES.map(|source| {
        Watch::start(&engine, &["--source", source, "--format", "json", "--tail", "all", "--until", &until])
    });
    for (watch, source) in watches.into_iter().zip(SOURCES) {
        let finished = watch.finish();
        assert_eq!(finished.code, Some(0));
        assert_eq!(finished.stderr.lines().count(), 2, "{}", finished.stderr);
        // Every line up to that time is there, and none after it.
        let of_steady = |records: Vec<Value>| {
            let steady = records.into_iter().filter(|record| record["container_name"] == "steady");
            cursors(&steady.collect::<Vec<_>>())
        };
        let ours = of_steady(finished.records());
        let expected = of_steady(read(&engine, &["--source", source, "--until", &until]));
        assert!(ours == expected, "{source}: {} lines of {}", ours.len(), expected.len());
    }
}

/// A time in a large log is found without reading all of it.
#[test]
fn since_seeks_in_a_large_log() {
    let engine = Engine::start();
    let id = engine.run("large", &[], &["--count", "1"]);
    engine.wait("large");
    // 100 MB: a line of 1,000 bytes every 10 ms for 1,000 s.
    let mut log = std::io::BufWriter::new(File::create(engine.log_path(&id)).unwrap());
    let fill = "x".repeat(900);
    let time = |number: u64| {
        let seconds = number / 100;
        format!("2026-01-01T00:{:02}:{:02}.{:02}Z", seconds / 60, seconds % 60, number % 100)
    };
    for number in 0..100_000 {
        let time = time(number);
        writeln!(log, r#"{{"log":"{fill} {number:09}\n","stream":"stdout","time":"{time}"}}"#).unwrap();
    }
    log.into_inner().unwrap().sync_data().unwrap();
    let trace = engine.home().join("trace");
    let (late, early) = (time(99_995), time(4));
    for (args, shown, megabytes) in [
        (&["--since", &late][..], 99_995..=99_999, 4),
        (&["--tail", "5"], 99_995..=99_999, 3),
        (&["--until", &early], 0..=4, 4),
        (&["--since", "2026-01-01T00:08:00Z", "--until", "2026-01-01T00:08:00.1Z"], 48_000..=48_010, 6),
    ] {
        let mut strace = Command::new("strace");
        engine.configure(&mut strace);
        strace.args(["-f", "-qq", "-e", "trace=pread64", "-o", trace.to_str().unwrap()]);
        strace.args([env!("CARGO_BIN_EXE_docker-logwatch"), "watch", "--no-follow", "large", "--format", "json"]);
        let finished = Watch::spawn(strace.args(args)).finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        Numbers::of_json(&finished.lines()).assert_whole("large", shown);
        let calls = fs::read_to_string(&trace).unwrap();
        let read: u64 = calls.lines().filter_map(|call| call.rsplit(" = ").next()?.parse::<u64>().ok()).sum();
        assert!(read > 4000 && read < megabytes << 20, "{args:?} read {read} bytes");
    }
}

/// The message of each record; of a gap its reason, the lost bytes and the cursor before it.
fn reported(records: &[Value]) -> Vec<String> {
    let reported = records.iter().map(|record| match record["type"].as_str() {
        Some("gap") => format!("gap {} {} after {}", record["reason"], record["lost_bytes"], record["after_cursor"]),
        _ => record["message"].as_str().unwrap().to_owned(),
    });
    reported.collect()
}

/// Only the damaged part of a log is lost, and the loss is reported.
#[test]
fn damage_costs_only_the_damaged_lines() {
    let engine = Engine::start();
    let id = engine.run("web", &[], &["--count", "1"]);
    engine.wait("web");
    let record = |number: u64| {
        let time = format!("2026-01-01T00:00:{number:02}Z");
        format!("{{\"log\":\"line {number:09}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n").into_bytes()
    };
    let half = &record(99)[..20];
    let log = [
        &record(1)[..],
        &[0; 500],
        &record(2),
        half,
        &record(3),
        b"garbage\n",
        &record(4),
        b"{\"log\":\"bad \xff byte\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:04Z\"}\n",
        &record(5),
        b"{\"message\":\"of another program\"}\n",
        &record(6),
        b"{\"log\":\"\n",
        b"\n",
        &record(7),
        half,
    ]
    .concat();
    fs::write(engine.log_path(&id), log).unwrap();
    let expected = [
        "line 000000001",
        "gap \"corrupt\" 500 after \"1767225601000000000-o0\"",
        "line 000000002",
        "gap \"corrupt\" 20 after \"1767225602000000000-o0\"",
        "line 000000003",
        "gap \"corrupt\" 8 after \"1767225603000000000-o0\"",
        "line 000000004",
        "gap \"corrupt\" 71 after \"1767225604000000000-o0\"",
        "line 000000005",
        "gap \"corrupt\" 33 after \"1767225605000000000-o0\"",
        "line 000000006",
        "gap \"corrupt\" 10 after \"1767225606000000000-o0\"",
        "line 000000007",
    ];
    let all = read(&engine, &["web", "--source", "file"]);
    assert_eq!(reported(&all), expected);
    let gap = all[1].as_object().unwrap();
    let keys: Vec<&str> = gap.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["after_cursor", "container_id", "container_name", "lost_bytes", "message", "reason", "time", "type"]
    );
    assert_eq!((&gap["container_id"], &gap["container_name"]), (&Value::from(id), &Value::from("web")));
    // In text format it is a notice that cannot be turned off.
    let text = Watch::start(&engine, &["web", "--no-follow", "--quiet"]).finish();
    assert_eq!(text.code, Some(0));
    assert_eq!(text.lines(), (1..=7).map(|number| format!("web | line {number:09}")).collect::<Vec<_>>());
    let notices: Vec<&str> = text.stderr.lines().collect();
    assert_eq!(notices.len(), 6, "{notices:#?}");
    assert!(notices.iter().all(|notice| notice.starts_with("! web: ")), "{notices:#?}");
    assert!(notices[0].ends_with(", 500 bytes of log"), "{notices:#?}");
    let counted = Watch::start(&engine, &["web", "--no-follow", "-v"]).finish().stderr;
    let sums = "delivered 7 lines by file; 6 gaps (6 corrupt), 642 bytes known to be lost\n";
    assert!(counted.ends_with(sums), "{counted}");
    // Also when it is read from its end.
    assert_eq!(reported(&read(&engine, &["web", "--source", "file", "--tail", "2"])), expected[10..]);
    assert_eq!(
        reported(&read(&engine, &["web", "--source", "file", "--since", "2026-01-01T00:00:06Z"])).last().unwrap(),
        expected[12]
    );
}

/// Damage that appears while we follow is reported, and the lines after it are read.
#[test]
fn damage_while_following_is_reported() {
    let engine = Engine::start();
    let id = engine.run("web", &[], &["--forever", "--rate", "50"]);
    let watch = Watch::start(&engine, &["web", "--format", "json", "--tail", "all"]);
    watch.wait_for_count(5);
    let path = engine.log_path(&id);
    let mut log = File::options().append(true).open(&path).unwrap();
    let gaps = |lines: &[String]| lines.iter().filter(|line| line.starts_with("{\"type\":\"gap\"")).count();
    // One write each, as the engine does it, so that neither lands inside a record of the other.
    for (count, damage) in [&b"garbage\n"[..], &[0; 300], b"\xff\xfe\n", b"{\"log\":\"half"].into_iter().enumerate() {
        log.write_all(damage).unwrap();
        watch.wait_for(|lines| gaps(lines) == count + 1, PATIENCE);
    }
    let before = watch.lines().len();
    watch.wait_for_count(before + 5);
    let reasons = |lines: &[String]| {
        let gaps = lines.iter().filter(|line| line.starts_with("{\"type\":\"gap\""));
        let gaps = gaps.map(|line| serde_json::from_str::<Value>(line).unwrap());
        gaps.map(|gap| format!("{} {}", gap["reason"].as_str().unwrap(), gap["lost_bytes"])).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&watch.lines()), ["corrupt 8", "corrupt 300", "corrupt 3", "corrupt 12"]);
    let seen = Numbers::of_json(&watch.lines());
    seen.assert_whole("web", 1..=seen.count("web") as u64);
    // Truncated by hand, the log starts again.
    let before = watch.lines().len();
    File::create(&path).unwrap();
    watch.wait_for_count(before + 10);
    let finished = watch.stop();
    let lines = finished.lines();
    assert_eq!(reasons(&lines).last().unwrap(), "truncated null");
    assert_eq!((finished.code, reasons(&lines).len()), (Some(0), 5));
    let numbers = Numbers::of_json(&lines);
    let flaw = numbers.flaw("web", 1..=numbers.count("web") as u64);
    assert!(flaw.as_ref().is_none_or(|flaw| flaw.contains("missing") && !flaw.contains("twice")), "{flaw:?}");
}

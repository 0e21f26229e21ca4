//! A run continues where the last run of its name stopped, however that one ended: each line is printed once.

use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::routes::{DRIVERS, ROUTES};
use crate::support::{Engine, Kept, Numbers, PATIENCE, Signal, Watch, eventually};

/// The forms of a log and the routes to read it: current file, rotated files, cache, API.
const WAYS: [(&str, &[&str], &str); 6] = [
    ("plain", &[], "auto"),
    ("rotating", &["--log-opt", "max-size=50k", "--log-opt", "max-file=50"], "auto"),
    ("compressed", &["--log-opt", "max-size=50k", "--log-opt", "max-file=50", "--log-opt", "compress=true"], "auto"),
    ("local", &["--log-driver", "local", "--log-opt", "max-size=50k", "--log-opt", "max-file=50"], "auto"),
    ("api", &[], "stream"),
    ("api-local", &["--log-driver", "local", "--log-opt", "max-size=50k", "--log-opt", "max-file=50"], "stream"),
];

/// Run after run, for each form of a log and each route, a line comes once.
#[test]
fn each_run_resumes_the_one_before() {
    let engine = &Engine::start();
    let check = |(name, options, source): (&str, &[&str], &str)| {
        let kept = Kept {
            state: engine.home().join(name).join("state.db"),
            file: engine.home().join(name).with_extension("out"),
        };
        let more = ["--source", source, name];
        engine.run(name, options, &["--count", "2000", "--resume", "--stream", "alternating"]);
        for life in 1..=3 {
            engine.wait(name);
            kept.read(engine, &more);
            Numbers::of_json(&kept.lines()).assert_whole(name, 1..=life * 2000);
            if life < 3 {
                engine.must(&["start", name]);
            }
        }
        let before = kept.count();
        kept.read(engine, &more);
        assert_eq!(kept.lines().len(), before, "{name}: nothing new");
        assert!(kept.lines().iter().all(|line| line.contains("\"type\":\"log\"")), "{name}: no gap");
    };
    thread::scope(|scope| WAYS.map(|way| scope.spawn(move || check(way))).map(|lane| lane.join().unwrap()));
}

/// A container that was stopped before the first run is ignored.
#[test]
fn unwatched_new_containers_are_read_whole() {
    let engine = Engine::start();
    let kept = ROUTES.map(|(source, _)| {
        let state = engine.home().join(source).join("state.db");
        (Kept { state, file: engine.home().join(source).with_extension("out") }, ["--source", source])
    });
    for driver in DRIVERS {
        engine.run(&format!("old-{driver}"), &["--log-driver", driver], &["--count", "5", "--resume"]);
        engine.wait(&format!("old-{driver}"));
    }
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    for (kept, source) in &kept {
        let watch = kept.start(&engine, source);
        watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), PATIENCE);
        assert_eq!(watch.stop().code, Some(0));
        assert_eq!(kept.lines(), [""; 0], "stopped containers are no business of a first run");
    }
    for driver in DRIVERS {
        engine.run(&format!("short-{driver}"), &["--log-driver", driver], &["--count", "30"]);
        engine.must(&["start", &format!("old-{driver}")]);
        engine.must(&["wait", &format!("short-{driver}"), &format!("old-{driver}")]);
    }
    for (kept, source) in &kept {
        kept.read(&engine, source);
        let numbers = Numbers::of_json(&kept.lines());
        for driver in DRIVERS {
            numbers.assert_whole(&format!("short-{driver}"), 1..=30);
            numbers.assert_whole(&format!("old-{driver}"), 6..=10);
        }
    }
}

/// The lost end of the first container is reported.
#[test]
fn a_recreated_container_is_another_one() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "100", "--rate", "200", "--idle"]);
    let watch = kept.start(&engine, &[]);
    eventually("lines were kept", || kept.count() > 20);
    watch.stop();
    engine.must(&["rm", "-f", "web"]);
    let id = engine.run("web", &[], &["--count", "7"]);
    engine.wait("web");
    let before = kept.count();
    let reported = kept.read(&engine, &[]).stderr;
    assert_eq!(reported, "web was removed while no watch was running: its last lines cannot be read\n");
    let all = kept.lines();
    let (anew, lost): (Vec<String>, Vec<String>) = all[before..].iter().cloned().partition(|line| line.contains(&id));
    assert!(matches!(&lost[..], [gap] if gap.contains(r#""type":"gap""#)), "{lost:?}");
    Numbers::of_json(&anew).assert_whole("web", 1..=7);
    assert_eq!(kept.read(&engine, &[]).stderr, "", "reported once");
}

/// The second run learns who holds the name.
#[test]
fn one_name_has_one_holder() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "3", "--idle"]);
    let watch = kept.start(&engine, &[]);
    eventually("lines were kept", || kept.count() == 3);
    let second = kept.start(&engine, &["--no-follow"]).finish();
    assert_eq!(second.code, Some(1));
    let reported = format!("error: \"default\" is in use by process {} since ", watch.pid());
    assert!(second.stderr.starts_with(&reported), "{}", second.stderr);
    assert!(second.stderr.ends_with("hint: stop that process, or use another name: `--resume=NAME`\n"));
    let state = kept.state.to_str().unwrap();
    let same_file = ["--state", state, "--resume=other", "--no-follow", "-o", kept.file.to_str().unwrap()];
    let third = Watch::start(&engine, &same_file).finish();
    assert_eq!(third.code, Some(1));
    let file = kept.file.canonicalize().unwrap();
    let reported = format!("error: {} is being written to by another docker-logwatch\n", file.display());
    assert!(third.stderr.starts_with(&reported), "{}", third.stderr);
    let other = Watch::start(&engine, &["--state", state, "--resume=other", "--no-follow", "--format", "raw"]).finish();
    assert_eq!((other.code, other.lines().len()), (Some(0), 3));
    watch.signal(Signal::KILL);
    watch.finish();
    assert_eq!(kept.read(&engine, &[]).stderr, "", "a dead holder holds nothing");
    assert_eq!(kept.lines().len(), 3);
}

/// Whoever may read FILE may lock it, and must not be able to stop a run that way.
#[test]
fn a_locked_output_file_stops_no_run() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "10"]);
    engine.wait("web");
    fs::write(&kept.file, "").unwrap();
    let reader = fs::File::open(&kept.file).unwrap();
    rustix::fs::flock(&reader, rustix::fs::FlockOperation::LockExclusive).unwrap();
    kept.read(&engine, &["web"]);
    assert_eq!(kept.lines().len(), 10);
}

/// Kills the watch this many times while the containers write, then lets it catch up.
fn killed_again_and_again(engine: &Engine, kept: &Kept, kills: u32, every: Duration, total: usize, more: &[&str]) {
    for _ in 0..kills {
        let watch = kept.start(engine, more);
        let begun = Instant::now();
        // The moment of death is random.
        thread::sleep(every.mul_f64(fastrand_f64(begun)));
        watch.signal(Signal::KILL);
        watch.finish();
    }
    let watch = kept.start(engine, more);
    eventually("all came", || kept.count() >= total);
    watch.stop();
}

/// A random number from 0.5 to 1.5.
fn fastrand_f64(seed: Instant) -> f64 {
    let nanos = seed.elapsed().subsec_nanos() ^ std::process::id();
    0.5 + f64::from(nanos.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24)
}

/// The file holds every line once and in order.
#[test]
fn fifty_kills_under_load_lose_nothing() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    let (count, rate) = (30_000, "1700");
    let args = ["--count", &count.to_string(), "--rate", rate, "--stream", "alternating"];
    let rotating = ["--log-opt", "max-size=200k", "--log-opt", "max-file=50"];
    let compressed = [&rotating[..], &["--log-opt", "compress=true"]].concat();
    engine.run("rotating", &rotating, &args);
    engine.run("compressed", &compressed, &args);
    engine.run("local", &[&rotating[..], &["--log-driver", "local"]].concat(), &args);
    killed_again_and_again(&engine, &kept, 50, Duration::from_millis(350), 3 * count, &[]);
    let lines = kept.lines();
    let numbers = Numbers::of_json(&lines);
    for name in ["rotating", "compressed", "local"] {
        numbers.assert_whole(name, 1..=count as u64);
    }
    let others = lines.iter().filter(|line| !line.starts_with(r#"{"type":"log""#));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0], "no gap");
}

/// Runs that read over the API and are killed again and again leave each line once.
#[test]
fn a_killed_api_run_repeats_nothing() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    let args = ["--count", "6000", "--rate", "1000", "--stream", "alternating"];
    engine.run("json", &[], &args);
    engine.run("local", &["--log-driver", "local"], &args);
    killed_again_and_again(&engine, &kept, 12, Duration::from_millis(400), 12_000, &["--source", "stream"]);
    let numbers = Numbers::of_json(&kept.lines());
    numbers.assert_whole("json", 1..=6000);
    numbers.assert_whole("local", 1..=6000);
}

/// Nothing is repeated either, and cursors stay the same.
#[test]
fn changing_routes_between_runs_loses_nothing() {
    let engine = Engine::start();
    let rotating = ["--log-opt", "max-size=100k", "--log-opt", "max-file=50"];
    // When engines before 23 follow a log through a rotation they send some lines twice, but not when they read it
    // once.
    let check = |kind: &str, options: &[&str], api: &str| {
        let home = engine.home().join(kind);
        let kept = Kept { state: home.join("state.db"), file: engine.home().join(format!("{kind}.out")) };
        let names = [format!("{kind}-json"), format!("{kind}-local")];
        let args = ["--count", "12000", "--rate", "1500", "--stream", "alternating"];
        engine.run(&names[0], options, &args);
        engine.run(&names[1], &[options, &["--log-driver", "local"]].concat(), &args);
        let names = names.each_ref().map(String::as_str);
        for (run, source) in ["file", api, "file", "auto", api].into_iter().enumerate() {
            let before = kept.count();
            let watch = kept.start(&engine, &[&["--source", source], &names[..]].concat());
            eventually("it has read something", || kept.count() > before + 500 * (run + 1));
            watch.signal(if run % 2 == 0 { Signal::KILL } else { Signal::TERM });
            watch.finish();
        }
        for name in names {
            engine.wait(name);
        }
        kept.read(&engine, &[&["--source", "file"], &names[..]].concat());
        let lines = kept.lines();
        let numbers = Numbers::of_json(&lines);
        let ours: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        for name in names {
            numbers.assert_whole(name, 1..=12_000);
            let cursors = |records: &[Value]| {
                let own = records.iter().filter(|record| record["container_name"] == name);
                own.map(|record| record["cursor"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let whole = Watch::read(&engine, &["--format", "json", "--source", "file", name]).records();
            assert_eq!(cursors(&ours), cursors(&whole), "{name}");
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| check("rotating", &rotating, "poll"));
        scope.spawn(|| check("plain", &[], "stream"));
    });
}

/// A run with `--until` and the next one without it share out the lines exactly.
#[test]
fn the_next_run_starts_behind_until() {
    let engine = Engine::start();
    for (name, options, _) in &WAYS[..4] {
        engine.run(name, options, &["--count", "3000", "--rate", "3000", "--stream", "alternating"]);
    }
    for (name, ..) in &WAYS[..4] {
        engine.wait(name);
        let whole = Watch::read(&engine, &["--format", "json", name]).records();
        for (source, _) in ROUTES {
            let home = engine.home().join(name).join(source);
            let kept = Kept { state: home.join("state.db"), file: home.join("out") };
            for end in [1, 700, 701, 2999] {
                let until = whole[end - 1]["time"].as_str().unwrap();
                kept.read(&engine, &["--source", source, "--until", until, name]);
                let came = kept.count();
                assert_eq!(
                    came,
                    whole.iter().filter(|line| line["time"].as_str() <= Some(until)).count(),
                    "{name} {source}"
                );
            }
            kept.read(&engine, &["--source", source, name]);
            Numbers::of_json(&kept.lines()).assert_whole(name, 1..=3000);
        }
    }
    let name = "followed";
    let kept = Kept::of(&engine);
    engine.run(name, &[], &["--count", "2000", "--rate", "500", "--stream", "alternating"]);
    let end = SystemTime::now() + Duration::from_secs(2);
    let until = end.duration_since(UNIX_EPOCH).unwrap().as_secs_f64().to_string();
    let watch = kept.start(&engine, &["--until", &until, name]);
    assert_eq!(watch.finish().code, Some(0));
    let before = kept.count();
    assert!((100..2000).contains(&before), "{before} before the time");
    engine.wait(name);
    kept.read(&engine, &[name]);
    Numbers::of_json(&kept.lines()).assert_whole(name, 1..=2000);
}

/// This also holds for an unfinished line of another program, after which ours starts a new line.
#[test]
fn what_somebody_else_adds_to_the_output_stays() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "100"]);
    engine.wait("web");
    let add = |text: &str| {
        let mut file = fs::File::options().append(true).open(&kept.file).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    kept.read(&engine, &["web"]);
    add("a note\n");
    let reported = format!("{}: keeping 7 bytes that another program appended\n", kept.file.display());
    assert_eq!(kept.read(&engine, &["web"]).stderr.lines().next(), Some(reported.trim_end()));
    assert_eq!(kept.read(&engine, &["web"]).stderr, "");
    assert_eq!((kept.lines().len(), kept.lines()[100].as_str()), (101, "a note"));
    engine.run("idle", &[], &["--count", "1", "--idle"]);
    let watch = kept.start(&engine, &["web", "idle"]);
    eventually("it has read", || kept.count() == 102);
    watch.signal(Signal::KILL);
    watch.finish();
    add("half a li");
    engine.run("more", &[], &["--count", "1"]);
    engine.wait("more");
    let reported = kept.read(&engine, &["web", "idle", "more"]).stderr;
    assert!(reported.contains(": keeping 9 bytes that another program appended"), "{reported}");
    let lines = kept.lines();
    assert_eq!((lines.len(), lines[102].as_str()), (104, "half a li"));
    assert!(lines[103].starts_with(r#"{"type":"log""#), "{}", lines[103]);
}

/// A file with positions has one run at a time; without `--resume` runs may share it.
#[test]
fn two_runs_never_share_a_file() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "10", "--idle"]);
    let file = kept.file.to_str().unwrap();
    // The locks are next to the state.
    let state = kept.state.to_str().unwrap();
    let plain = ["--no-follow", "--state", state, "-o", file, "web"];
    let holder = kept.start(&engine, &["web"]);
    eventually("it has read", || kept.count() == 10);
    let refused = Watch::start(&engine, &plain).finish();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is being written to by another docker-logwatch"), "{}", refused.stderr);
    assert_eq!((holder.stop().code, kept.lines().len()), (Some(0), 10));
    // Without --resume two runs may share the file.
    let shared = Watch::start(&engine, &["--state", state, "-o", file, "web"]);
    eventually("it has read", || kept.count() == 20);
    assert_eq!((Watch::start(&engine, &plain).finish().code, kept.lines().len()), (Some(0), 30));
    let refused = kept.start(&engine, &["web"]).finish();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    shared.stop();
}

/// The container continues where an earlier run left it.
#[test]
fn a_reselected_container_resumes() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web-1", &[], &["--count", "100000", "--rate", "200"]);
    let watch = kept.start(&engine, &["web-*"]);
    eventually("it has read", || kept.count() > 50);
    assert_eq!(watch.stop().code, Some(0));
    engine.must(&["rename", "web-1", "other"]);
    let watch = kept.start(&engine, &["web-*"]);
    watch.wait_until_up();
    engine.must(&["rename", "other", "web-1"]);
    eventually("it has read on", || kept.count() > 300);
    assert_eq!(watch.stop().code, Some(0));
    let count = kept.count() as u64;
    Numbers::of_json(&kept.lines()).assert_whole("web-1", 1..=count);
}

/// On stdout a position counts once the reader has taken the lines: nothing is skipped.
#[test]
fn positions_follow_the_reader_of_stdout() {
    let engine = Engine::start();
    let kept = Kept::of(&engine);
    engine.run("web", &[], &["--count", "200000", "--size", "100"]);
    engine.wait("web");
    let state = kept.state.to_str().unwrap();
    let args = ["--state", state, "--resume", "--format", "json", "--no-follow", "web"];
    let first = Watch::start(&engine, &args);
    first.wait_for_count(1000);
    // Nobody reads the rest: it fills the pipe and stays unwritten.
    first.hold();
    first.signal(Signal::TERM);
    let first = first.finish();
    let taken = first.lines();
    assert!(taken.len() < 200_000, "it was stopped in the middle");
    let second = Watch::start(&engine, &args).finish();
    assert_eq!(second.code, Some(0));
    let all = [taken.clone(), second.lines()].concat();
    let mut numbers: Vec<u64> = Vec::new();
    for line in &all {
        let record: Value = serde_json::from_str(line).unwrap();
        numbers.extend(record["message"].as_str().and_then(|message| message.split(' ').nth(1)?.parse::<u64>().ok()));
    }
    let (before, after) = numbers.split_at(taken.len());
    assert_eq!(before.first(), Some(&1));
    assert!(before.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert!(after.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert!(
        after[0] <= before[before.len() - 1] + 1,
        "nothing is skipped: {} after {}",
        after[0],
        before[before.len() - 1]
    );
    assert_eq!(after.last(), Some(&200_000));
}

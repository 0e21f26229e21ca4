//! The device number of the engine's data changes: the log files are still the same, and so are the positions.

use crate::support::process::{lives, open_files, signal};
use crate::support::{Disk, Engine, Kept, Numbers, Signal, eventually};

/// Name, options and lines per run of containers with different forms of logs. `silent` has a log file without records.
const CONTAINERS: [(&str, &[&str], u64); 5] = [
    ("json", &[], 300),
    ("rotating", &["--log-opt", "max-size=20k", "--log-opt", "max-file=50"], 600),
    ("compressed", &["--log-opt", "max-size=20k", "--log-opt", "max-file=50", "--log-opt", "compress=true"], 600),
    ("local", &["--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=50"], 600),
    ("silent", &[], 0),
];

fn run_all(engine: &Engine) {
    for (name, options, lines) in CONTAINERS {
        engine.run(name, options, &["--count", &lines.to_string(), "--resume", "--stream", "alternating"]);
    }
    wait_for_all(engine);
}

fn start_all_again(engine: &Engine) {
    for (name, ..) in CONTAINERS {
        engine.must(&["start", name]);
    }
    wait_for_all(engine);
}

fn wait_for_all(engine: &Engine) {
    for (name, ..) in CONTAINERS {
        engine.wait(name);
    }
}

/// How many lines all of them write in this many runs.
fn written(lives: u64) -> usize {
    let each: u64 = CONTAINERS.iter().map(|(.., lines)| lines).sum();
    usize::try_from(lives * each).unwrap()
}

#[track_caller]
fn assert_all_once(lines: &[String], lives: u64) {
    let numbers = Numbers::of_json(lines);
    for (name, _, count) in CONTAINERS.into_iter().filter(|(.., count)| *count > 0) {
        numbers.assert_whole(name, 1..=lives * count);
    }
    let others: Vec<&String> = lines.iter().filter(|line| !line.contains("\"type\":\"log\"")).collect();
    assert_eq!(others, [""; 0], "no gap");
}

/// A run that resumes on another device number repeats nothing, misses nothing and reports no gap.
#[test]
fn resuming_on_another_device_number_is_exactly_once() {
    let engine = Engine::start();
    resume_between_moves(&engine, &Disk::under(&engine));
}

/// The same holds where the file system does not record creation times.
#[test]
fn resuming_without_birth_times_is_exactly_once() {
    let engine = Engine::start();
    resume_between_moves(&engine, &Disk::without_births_under(&engine));
}

fn resume_between_moves(engine: &Engine, disk: &Disk) {
    let kept = Kept::of(engine);
    run_all(engine);
    kept.read(engine, &["--all"]);
    assert_all_once(&kept.lines(), 1);
    engine.stop();
    disk.move_to_another_device();
    engine.up();
    kept.read(engine, &["--all"]);
    assert_all_once(&kept.lines(), 1);
    start_all_again(engine);
    engine.stop();
    disk.move_to_another_device();
    engine.up();
    kept.read(engine, &["--all"]);
    assert_all_once(&kept.lines(), 2);
}

/// A running watch follows each log to the other device, and follows containers that start later.
#[test]
fn a_running_watch_survives_a_move() {
    let engine = Engine::start();
    let disk = Disk::under(&engine);
    let kept = Kept::of(&engine);
    let watch = kept.start(&engine, &[]);
    watch.wait_until_up();
    for lives in 1..=3 {
        if lives == 1 {
            run_all(&engine);
        } else {
            start_all_again(&engine);
        }
        eventually("all lines came", || kept.count() >= written(lives));
        // Events that an engine has pending when it stops keep a log open until it is back.
        let is_ours = |file: &String| file.starts_with(engine.data().to_str().unwrap());
        eventually("all logs are closed", || !open_files(watch.pid()).iter().any(is_ours));
        engine.stop();
        disk.move_to_another_device();
        engine.up();
    }
    let seen = kept.count();
    engine.run("later", &[], &["--count", "50"]);
    eventually("a new container is followed", || kept.count() >= seen + 50);
    watch.stop();
    assert_all_once(&kept.lines(), 3);
    Numbers::of_json(&kept.lines()).assert_whole("later", 1..=50);
}

/// A watch whose files are open when the disk moves continues with each of them on the new device, once.
#[test]
fn open_files_survive_a_move() {
    let engine = Engine::start();
    let disk = Disk::under(&engine);
    let kept = Kept::of(&engine);
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=50", "--restart", "always"];
    let names = ["one", "two"];
    for name in names {
        engine.run(name, &options, &["--count", "400", "--resume", "--idle"]);
    }
    let watch = kept.start(&engine, &[]);
    eventually("all lines came", || kept.count() >= 800);
    let containers = names.map(|name| engine.must(&["inspect", "--format", "{{.State.Pid}}", name]).parse().unwrap());
    engine.kill();
    for pid in containers {
        signal(pid, Signal::KILL);
    }
    eventually("they ended", || !containers.iter().any(|pid| lives(*pid)));
    disk.move_to_another_device_in_use();
    engine.up();
    eventually("what they write on the other device came", || kept.count() >= 1600);
    watch.stop();
    let numbers = Numbers::of_json(&kept.lines());
    for name in names {
        numbers.assert_whole(name, 1..=800);
    }
    let gaps = kept.lines().iter().filter(|line| line.contains("\"type\":\"gap\"")).count();
    assert_eq!(gaps, 0);
}

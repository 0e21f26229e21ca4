//! `-o FILE --resume` under everything that can end a run: each line that was ever complete in FILE is there in the
//! end, exactly once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Disk, Engine, Finished, Numbers, Signal, Watch, beside, count_lines, eventually, lines, long};

const ROTATING: [&str; 4] = ["--log-opt", "max-size=50k", "--log-opt", "max-file=100"];

/// The state, the output file and the format of a run.
struct Run {
    state: PathBuf,
    file: PathBuf,
    format: &'static str,
}

impl Run {
    fn of(engine: &Engine) -> Self {
        Self::at(engine.home(), "json")
    }

    fn at(folder: &Path, format: &'static str) -> Self {
        Run { state: folder.join("state/state.db"), file: folder.join("out"), format }
    }

    fn start(&self, engine: &Engine, more: &[&str]) -> Watch {
        let (state, file) = (self.state.to_str().unwrap(), self.file.to_str().unwrap());
        Watch::start(engine, &[&["--state", state, "--format", self.format, "-o", file], more].concat())
    }

    #[track_caller]
    fn read(&self, engine: &Engine, more: &[&str]) -> Finished {
        let finished = self.start(engine, &[&["--no-follow"], more].concat()).finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished
    }

    fn lines(&self) -> Vec<String> {
        lines(&self.file)
    }

    fn count(&self) -> usize {
        count_lines(&self.file)
    }

    fn numbers(&self) -> Numbers {
        if self.format == "json" { Numbers::of_json(&self.lines()) } else { Numbers::of_text(&self.lines()) }
    }
}

fn kill(watch: Watch) {
    watch.signal(Signal::KILL);
    watch.finish();
}

/// The complete lines of a file, unparsed.
fn whole_lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
}

/// The complete records of a JSON file. A run of another name ends the record that a killed run left half written, so that
/// its own begin on a new line.
fn whole_records(path: &Path) -> Vec<String> {
    let mut lines = whole_lines(path);
    lines.retain(|line| serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok());
    lines
}

#[track_caller]
fn assert_once<'a>(lines: &[String], ever: impl IntoIterator<Item = &'a String>) {
    let mut counts: HashMap<&String, u32> = HashMap::new();
    lines.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    let twice = counts.iter().find(|(_, count)| **count > 1);
    assert_eq!(twice, None, "a line is there more than once");
    let gone: Vec<&String> = ever.into_iter().filter(|line| !counts.contains_key(line)).collect();
    assert_eq!(gone, [""; 0], "complete lines are gone");
}

/// The log of a `--rm` container vanishes with it, so its lines can be read only once.
#[test]
fn lines_of_removed_containers_survive_a_kill() {
    let engine = Engine::start();
    let run = Run::of(&engine);
    engine.run("load", &ROTATING, &["--forever", "--rate", "2000"]);
    for round in 0..10 {
        let watch = run.start(&engine, &["--resume"]);
        watch.wait_until_up();
        let name = format!("job-{round}");
        engine.must(&["run", "--rm", "-d", "--network", "none", "--name", &name, "logwatch-test", "--count", "1"]);
        let is_there = || run.lines().iter().any(|line| line.contains(&format!("\"{name}\"")));
        eventually("the job's line is there", is_there);
        kill(watch);
        let before = whole_lines(&run.file);
        eventually("the job is gone", || engine.must(&["ps", "-aq", "--filter", &format!("name={name}")]).is_empty());
        let watch = run.start(&engine, &["--resume"]);
        eventually("it goes on", || run.count() > before.len() + 10);
        kill(watch);
        assert_once(&whole_lines(&run.file), &before);
        assert!(is_there());
    }
    engine.must(&["rm", "-f", "load"]);
    run.read(&engine, &["--resume"]);
    let numbers = run.numbers();
    numbers.assert_whole("load", 1..=numbers.count("load") as u64);
}

/// Two names take turns on one FILE, each killed at random, while containers come and go and logs rotate.
#[test]
fn two_killed_names_lose_and_repeat_nothing() {
    let engine = Engine::start();
    let run = Run::of(&engine);
    let names = [["--resume=a", "a-*"], ["--resume=b", "b-*"]];
    for name in ["a", "b"] {
        engine.run(&format!("{name}-load"), &ROTATING, &["--forever", "--rate", "1000", "--stream", "alternating"]);
        engine.run(
            &format!("{name}-local"),
            &[&ROTATING[..], &["--log-driver", "local"]].concat(),
            &["--forever", "--rate", "500"],
        );
        // From here on both names have positions.
        let watch = run.start(&engine, &names[usize::from(name == "b")]);
        watch.wait_until_up();
        kill(watch);
    }
    let (mut ever, jobs) = (HashSet::new(), AtomicU64::new(0));
    let job = || {
        let number = jobs.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-job-{number}", if number % 2 == 0 { "a" } else { "b" });
        engine.docker(&["run", "--rm", "--network", "none", "--name", &name, "logwatch-test", "--count", "5"]);
    };
    let kills = if long() { 200 } else { 24 };
    beside(job, || {
        for turn in 0..kills {
            let watch = run.start(&engine, &names[turn % 2]);
            // The moment of death is random.
            thread::sleep(Duration::from_millis(u64::from(std::process::id() * 7919 + turn as u32 * 104_729) % 700));
            kill(watch);
            ever.extend(whole_records(&run.file));
        }
    });
    for name in ["a-load", "a-local", "b-load", "b-local"] {
        engine.must(&["kill", name]);
        engine.wait(name);
    }
    names.iter().for_each(|args| drop(run.read(&engine, args)));
    assert_once(&whole_records(&run.file), &ever);
    let numbers = run.numbers();
    for name in ["a-load", "a-local", "b-load", "b-local"] {
        numbers.assert_whole(name, 1..=numbers.count(name) as u64);
    }
    assert!(run.lines().iter().all(|line| line.contains(r#""type":"log""#) || line.contains("-job-")), "no other gap");
}

/// Other programs may append to FILE at any time, even after half a record.
#[test]
fn lines_that_others_append_stay() {
    let engine = Engine::start();
    let run = Run::of(&engine);
    engine.run("web", &[], &["--forever", "--rate", "500"]);
    for turn in 0..5 {
        let watch = run.start(&engine, &["--resume"]);
        let before = run.count();
        eventually("it is written to", || run.count() > before + 50);
        kill(watch);
        let mut file = File::options().append(true).open(&run.file).unwrap();
        writeln!(file, "{{\"note\":{turn}}}").unwrap();
    }
    engine.must(&["kill", "web"]);
    engine.wait("web");
    run.read(&engine, &["--resume"]);
    let lines = run.lines();
    let (notes, ours): (Vec<String>, Vec<String>) = lines.into_iter().partition(|line| line.contains("\"note\""));
    assert_eq!(notes, (0..5).map(|turn| format!("{{\"note\":{turn}}}")).collect::<Vec<_>>());
    let numbers = Numbers::of_json(&ours);
    numbers.assert_whole("web", 1..=numbers.count("web") as u64);
}

/// The state forgets what was written since the backup, but FILE and its log do not.
#[test]
fn a_restored_state_continues_at_the_file_end() {
    for (format, has_log) in [("json", true), ("json", false), ("text", true)] {
        let engine = Engine::start();
        let run = Run::at(&engine.home().join("kept"), format);
        fs::create_dir(engine.home().join("kept")).unwrap();
        engine.run("web", &ROTATING, &["--forever", "--rate", "1000"]);
        let watch = run.start(&engine, &["--resume"]);
        eventually("it is written to", || run.count() > 500);
        assert_eq!(watch.stop().code, Some(0));
        let backup = run.state.with_extension("backup");
        fs::copy(&run.state, &backup).unwrap();
        for _ in 0..2 {
            let before = run.count();
            let watch = run.start(&engine, &["--resume"]);
            eventually("it is written to", || run.count() > before + 500);
            kill(watch);
        }
        let before = whole_lines(&run.file);
        for file in fs::read_dir(run.state.parent().unwrap()).unwrap() {
            let name = file.unwrap().path();
            let is_of_state = name.to_string_lossy().ends_with("-wal") || name.to_string_lossy().ends_with("-shm");
            if is_of_state || !has_log && name.to_string_lossy().contains(".wal") {
                fs::remove_file(name).unwrap();
            }
        }
        fs::copy(&backup, &run.state).unwrap();
        engine.must(&["kill", "web"]);
        engine.wait("web");
        run.read(&engine, &["--resume"]);
        assert_eq!(whole_lines(&run.file)[..before.len()], before, "{format}");
        let numbers = run.numbers();
        numbers.assert_whole("web", 1..=numbers.count("web") as u64);
        assert!(numbers.count("web") > before.len(), "{format}: there was more to read");
    }
}

/// Only what was synced is there after a power failure. None of that is lost, and nothing comes twice.
#[test]
fn a_power_failure_loses_and_repeats_nothing() {
    for (format, turns) in [("json", 3), ("text", 3)] {
        let engine = Engine::start();
        let disk = Disk::new(&engine, "disk", 128);
        let run = Run::at(disk.path(), format);
        engine.run("web", &ROTATING, &["--forever", "--rate", "1000"]);
        engine.run("other", &[], &["--forever", "--rate", "300", "--stream", "stderr"]);
        for _ in 0..turns {
            let watch = run.start(&engine, &["--resume"]);
            let before = run.count();
            eventually("it is written to", || run.count() > before + 700);
            disk.cut_power();
            kill(watch);
            disk.restore_power();
        }
        for name in ["web", "other"] {
            engine.must(&["kill", name]);
            engine.wait(name);
        }
        run.read(&engine, &["--resume"]);
        let numbers = run.numbers();
        for name in ["web", "other"] {
            let count = numbers.count(name) as u64;
            assert!(count > 100, "{format}: {name} has {count} lines");
            numbers.assert_whole(name, 1..=count);
        }
    }
}

/// Device numbers are assigned anew at each boot.
#[test]
fn the_file_is_known_on_another_device() {
    let engine = Engine::start();
    let disk = Disk::new(&engine, "disk", 64);
    let run = Run::at(disk.path(), "text");
    engine.run("web", &[], &["--forever", "--rate", "500"]);
    for turn in 0..4 {
        let watch = run.start(&engine, &["--resume"]);
        let before = run.count();
        eventually("it is written to", || run.count() > before + 200);
        if turn % 2 == 0 {
            kill(watch);
        } else {
            assert_eq!(watch.stop().code, Some(0));
        }
        disk.move_to_another_device();
    }
    engine.must(&["kill", "web"]);
    engine.wait("web");
    let reported = run.read(&engine, &["--resume"]).stderr;
    assert_eq!(reported, "");
    let numbers = run.numbers();
    numbers.assert_whole("web", 1..=numbers.count("web") as u64);
}

/// Half a record at the end of FILE, which no log explains, is moved to a file next to it.
#[test]
fn half_a_record_is_moved_beside_the_file() {
    let engine = Engine::start();
    let run = Run::of(&engine);
    engine.run("web", &[], &["--count", "50", "--idle"]);
    let watch = run.start(&engine, &["--resume"]);
    eventually("all is there", || run.count() == 50);
    kill(watch);
    let whole = fs::read(&run.file).unwrap();
    // As a power failure may leave it: no write-ahead log, and half a line.
    for file in fs::read_dir(run.state.parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().contains(".wal") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(&run.file, [&whole[..], b"{\"type\":\"log\",\"ti\0\0\0\0"].concat()).unwrap();
    let reported = run.read(&engine, &["--resume"]).stderr;
    let (file, aside) = (run.file.display(), format!("{}.damaged", run.file.display()));
    assert!(
        reported.starts_with(&format!("{file}: an incomplete record of 17 bytes was moved to {aside}\n")),
        "{reported}"
    );
    assert_eq!(fs::read(&run.file).unwrap(), whole);
    assert_eq!(fs::read(&aside).unwrap(), b"{\"type\":\"log\",\"ti\n");
    assert_eq!(run.read(&engine, &["--resume"]).stderr, "");
}

/// Lines that can no longer be read, and were perhaps not written, are a gap in FILE.
#[test]
fn an_unwatched_removal_leaves_a_gap() {
    let engine = Engine::start();
    let run = Run::of(&engine);
    let id = engine.run("web", &[], &["--forever", "--rate", "100"]);
    let watch = run.start(&engine, &["--resume"]);
    eventually("it is written to", || run.count() > 50);
    kill(watch);
    engine.must(&["rm", "-f", "web"]);
    run.read(&engine, &["--resume"]);
    let lines = run.lines();
    let records: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, gap) = (&records[records.len() - 2], &records[records.len() - 1]);
    assert_eq!(
        (&gap["type"], &gap["container_id"], &gap["container_name"]),
        (&"gap".into(), &id.into(), &"web".into())
    );
    assert_eq!((&gap["reason"], &gap["after_cursor"]), (&"unreadable".into(), &last["cursor"]));
    run.read(&engine, &["--resume"]);
    assert_eq!(run.lines().len(), lines.len(), "once");
}

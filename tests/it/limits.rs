//! Limits of our own machine: full disks, no descriptors, an unusable state; and logs that are made to exceed memory.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::{Engine, Finished, Numbers, PATIENCE, Watch, count_lines, eventually};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Mounts a file system of so many KiB in the engine's home.
fn small_disk(engine: &Engine, name: &str, size: u32) -> PathBuf {
    let disk = engine.home().join(name);
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}k"), "tmpfs"]).arg(&disk);
    assert!(mount.status().unwrap().success());
    disk
}

fn resumed(engine: &Engine, state: &Path, file: &Path, more: &[&str]) -> Finished {
    let (state, file) = (state.to_str().unwrap(), file.to_str().unwrap());
    let args = [&["--state", state, "--resume", "--format", "json", "-o", file, "--no-follow"], more].concat();
    Watch::start(engine, &args).finish()
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Run after run on a full disk, file and state agree, and nothing is lost once there is space.
#[test]
fn a_full_output_disk_leaves_whole_lines() {
    let engine = Engine::start();
    let disk = small_disk(&engine, "disk", 512);
    let (state, file) = (engine.home().join("s/state.db"), disk.join("out.jsonl"));
    engine.run("web", &["--log-opt", "max-size=200k", "--log-opt", "max-file=50"], &["--count", "10000"]);
    engine.wait("web");
    let ballast = disk.join("ballast");
    for (run, size) in [400, 300, 200].into_iter().enumerate() {
        fs::write(&ballast, vec![1; size * 1024]).unwrap();
        let finished = resumed(&engine, &state, &file, &["web"]);
        let reported = format!(
            "error: cannot write to {}\n  caused by: No space left on device (os error 28)\n\
             hint: free some space there; the lines that were not written are still in the container logs\n",
            file.display()
        );
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), reported.as_str()), "run {run}");
        // With exclusive use of the state, a run finds nothing in the file that the state does not know.
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "run {run} left half a line");
        let connection = rusqlite::Connection::open(&state).unwrap();
        let length = connection.query_row("SELECT length FROM outputs", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(length.cast_unsigned(), text.len() as u64, "run {run}");
    }
    // The state under another name, so that the file's write-ahead log is not found, and the file in another place.
    let (other, away) = (engine.home().join("s/other.db"), engine.home().join("away.jsonl"));
    fs::copy(&state, &other).unwrap();
    fs::copy(&file, &away).unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(&ballast).unwrap();
    assert!(Command::new("mount").args(["-o", "remount,size=16m"]).arg(&disk).status().unwrap().success());
    assert_eq!(resumed(&engine, &other, &file, &["web"]).code, Some(0));
    Numbers::of_json(&[lines(&away), lines(&file)].concat()).assert_whole("web", 1..=10_000);
}

/// Once there is space, the run continues where it had to stop.
#[test]
fn a_file_on_a_full_disk_becomes_whole() {
    let engine = Engine::start();
    let disk = small_disk(&engine, "disk", 512);
    let (state, file) = (engine.home().join("s/state.db"), disk.join("out.jsonl"));
    engine.run("web", &["--log-opt", "max-size=200k", "--log-opt", "max-file=50"], &["--count", "10000"]);
    engine.wait("web");
    for _ in 0..2 {
        assert_eq!(resumed(&engine, &state, &file, &["web"]).code, Some(1));
    }
    assert!(Command::new("mount").args(["-o", "remount,size=16m"]).arg(&disk).status().unwrap().success());
    assert_eq!(resumed(&engine, &state, &file, &["web"]).code, Some(0));
    Numbers::of_json(&lines(&file)).assert_whole("web", 1..=10_000);
}

/// A state that cannot be written ends the run, and the next one continues without a loss.
#[test]
fn a_full_state_disk_loses_nothing() {
    let engine = Engine::start();
    let disk = small_disk(&engine, "disk", 4096);
    let (state, file) = (disk.join("state.db"), engine.home().join("out.jsonl"));
    engine.run("web", &[], &["--forever", "--rate", "500"]);
    let args =
        ["--state", state.to_str().unwrap(), "--resume", "--format", "json", "-o", file.to_str().unwrap(), "web"];
    let watch = Watch::start(&engine, &args);
    eventually("lines are kept", || file.exists() && count_lines(&file) > 300);
    // Fill the rest of the disk, however much that is.
    let ballast = disk.join("ballast");
    let _ = fs::write(&ballast, vec![1; 8 << 20]);
    let finished = watch.finish();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let reported = format!("error: no space left for the state in {}\n", state.display());
    assert!(finished.stderr.contains(&reported), "{}", finished.stderr);
    assert!(
        finished.stderr.ends_with("hint: free some space there; the next run continues from the saved positions\n")
    );
    fs::remove_file(&ballast).unwrap();
    let before = count_lines(&file);
    let watch = Watch::start(&engine, &args);
    eventually("lines are kept again", || count_lines(&file) > before + 300);
    assert_eq!(watch.stop().code, Some(0));
    let numbers = Numbers::of_json(&lines(&file));
    numbers.assert_whole("web", 1..=numbers.count("web") as u64);
}

/// A damaged, foreign or newer state is refused with a hint, and not written to.
#[test]
fn an_unusable_state_is_refused_unchanged() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "3"]);
    engine.wait("web");
    let home = engine.home().join("states");
    fs::create_dir(&home).unwrap();
    let (file, good) = (home.join("out"), home.join("good.db"));
    assert_eq!(resumed(&engine, &good, &file, &["web"]).code, Some(0));
    let path = |name: &str| home.join(name);
    let mut damaged = fs::read(&good).unwrap();
    damaged.iter_mut().skip(4096).for_each(|byte| *byte = 0xa5);
    fs::write(path("damaged.db"), &damaged).unwrap();
    fs::write(
        path("text.db"),
        "this is no database, and longer than a header of one would be: a hundred bytes or so at the least",
    )
    .unwrap();
    let mut newer = fs::read(&good).unwrap();
    // `user_version` is at offset 60 of the header (https://sqlite.org/fileformat2.html).
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(path("newer.db"), &newer).unwrap();
    for (name, reported, hint) in [
        ("damaged.db", "the state in FILE is damaged", "move it away to start again"),
        ("text.db", "FILE is not a state file", "use another file with --state\n"),
        (
            "newer.db",
            "the state in FILE was written by a newer docker-logwatch (schema 99, this one knows 6)",
            "use the newer docker-logwatch",
        ),
    ] {
        let before = fs::read(path(name)).unwrap();
        let finished = resumed(&engine, &path(name), &file, &["web"]);
        assert_eq!(finished.code, Some(1), "{name}: {}", finished.stderr);
        let first = format!("error: {}\n", reported.replace("FILE", path(name).to_str().unwrap()));
        assert!(finished.stderr.starts_with(&first), "{name}: {}", finished.stderr);
        assert!(finished.stderr.contains(&format!("hint: {hint}")), "{name}: {}", finished.stderr);
        assert!(fs::read(path(name)).unwrap() == before, "{name} was written to");
    }
    assert_eq!(lines(&file).len(), 3);
    let bad = Watch::start(&engine, &["--resume=a/b", "--no-follow", "--state", good.to_str().unwrap()]).finish();
    assert_eq!(bad.code, Some(2));
    let reported = "error: invalid resume name \"a/b\": expected 1 to 64 letters, digits, `_`, `.` and `-`\n";
    assert_eq!(bad.stderr, reported);
}

/// When descriptors run out, one notice says so, and all files are read in the end.
#[test]
fn without_descriptors_files_wait_their_turn() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let mut command = Command::new("prlimit");
    engine.configure(&mut command);
    command.arg("--nofile=34:34").arg(Watch::command().get_program());
    let watch = Watch::spawn(command.args(["watch", "--format", "json"]));
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), PATIENCE);
    let names: Vec<String> = (0..40).map(|number| format!("web-{number}")).collect();
    for name in &names {
        engine.run(name, &[], &["--count", "20", "--idle"]);
    }
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("no descriptors are left")), PATIENCE);
    // Containers that end free their descriptors.
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    engine.must(&[&["kill"], &all[..]].concat());
    watch.wait_for_ends(40);
    let finished = watch.stop();
    assert_eq!(finished.stderr.matches("no descriptors are left").count(), 1, "{}", finished.stderr);
    let numbers = Numbers::of_json(&finished.lines());
    for name in &names {
        numbers.assert_whole(name, 1..=20);
    }
}

/// A line of a hundred megabytes and a million empty ones take no more memory than others.
#[test]
fn huge_and_empty_lines_cost_little_memory() {
    let engine = Engine::start();
    for (name, driver) in [("json", "json-file"), ("local", "local")] {
        let options = ["--log-driver", driver, "--log-opt", "max-size=1g"];
        engine.run(&format!("long-{name}"), &options, &["--count", "1", "--size", "104857600"]);
        engine.run(&format!("empty-{name}"), &options, &["--count", "1000000", "--shape", "empty"]);
    }
    for name in ["json", "local"] {
        let (long, empty) = (format!("long-{name}"), format!("empty-{name}"));
        engine.wait(&long);
        let watch = Watch::start(&engine, &["--no-follow", "--format", "json", "--source", "file", &long]);
        watch.wait_for_count(1);
        watch.hold();
        eventually("it has read ahead as far as it does", || {
            let written = || fs::read_to_string(format!("/proc/{}/io", watch.pid())).unwrap();
            let before = written();
            thread::sleep(Duration::from_millis(200));
            written() == before
        });
        let peak = watch.peak_memory();
        assert!(peak < 64 << 20, "{name}: {} MiB", peak >> 20);
        let records = watch.finish().records();
        assert_eq!(records.len(), 100, "{name}: cut at 1 MiB");
        let size = records.iter().map(|record| record["message"].as_str().unwrap().len()).sum::<usize>();
        assert_eq!(size, 104_857_599, "{name}");
        let whole = ["--no-follow", "--format", "raw", "--source", "file", "--max-line-size", "128MiB", &long];
        let sizes: Vec<usize> = Watch::start(&engine, &whole).finish().lines().iter().map(String::len).collect();
        assert_eq!(sizes, [104_857_599], "{name}: not cut");
        engine.wait(&empty);
        let finished = Watch::read(&engine, &["--format", "raw", "--source", "file", &empty]);
        assert_eq!(finished.stdout, vec![b'\n'; 1_000_000], "{name}");
    }
}

/// How much memory an endless line may cost, in bytes.
const MOST: u64 = 64 << 20;

/// A rotated log that is small on disk and contains an endless line costs no more than another.
#[test]
fn an_endless_compressed_line_costs_little_memory() {
    let engine = Engine::start();
    let id = engine.run("web", &["--log-opt", "max-size=10m", "--log-opt", "max-file=3"], &["--count", "3"]);
    engine.wait("web");
    let log = engine.must(&["inspect", "-f", "{{.LogPath}}", &id]);
    let mut packed = GzEncoder::new(File::create(format!("{log}.1.gz")).unwrap(), Compression::fast());
    let block = vec![b'a'; 1 << 20];
    for _ in 0..300 {
        packed.write_all(&block).unwrap();
    }
    packed.finish().unwrap();
    let args = ["watch", "--source", "file", "-n", "5", "--format", "json", "--no-follow", "web"];
    let mut command = Watch::command();
    engine.configure(&mut command);
    let watch = Watch::spawn(command.env("DOCKER_HOST", engine.host()).args(args));
    let peak = watch.peak_memory_until(MOST, |_| false);
    let finished = watch.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(peak < MOST, "{} MiB", peak >> 20);
    let lines = finished.records();
    assert_eq!(lines.iter().filter(|line| line["type"] != "gap").count(), 3);
}

//! Containers start, stop, restart, change their names and rotate their logs: each of their lines comes once.

use std::io::BufRead;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::support::routes::DRIVERS;
use crate::support::{Engine, IMAGE, Numbers, PATIENCE, Signal, Watch, beside, eventually, long, messages, process};

/// The routes by which the logs of each of [`DRIVERS`] are read.
const SOURCES: [&str; 4] = ["file", "stream", "rotate", "poll"];

/// One watch of the same containers for each of [`SOURCES`].
fn by_each_source(engine: &Engine) -> [Watch; 4] {
    let args = SOURCES.map(|source| ["--source", source]);
    let host = engine.host();
    Watch::ready_each(engine, args.each_ref().map(|args| (host.as_str(), &args[..])))
}

/// Keeps two processors busy while `work` runs.
fn while_busy<T>(work: impl FnOnce() -> T) -> T {
    beside(std::hint::spin_loop, || beside(std::hint::spin_loop, work))
}

/// Runs `docker run --rm` this many times, a few at a time, with three lines each. Returns the numbers of the
/// containers whose lines all reached the engine. A busy engine sometimes passes on nothing of a container's output,
/// neither to its log nor to `docker run` (seen on 26.1). If somebody requests the log of a container that has just
/// ended, the engine opens it again, which may make its own removal of the directory fail (moby `daemon/logs.go`:
/// getLogger).
fn short_lives(engine: &Engine, count: usize, is_asked: bool) -> Vec<usize> {
    let heard = |lane: usize| {
        let heard = (lane..count).step_by(4).filter(|number| {
            let name = format!("short-{number}");
            let run = engine.docker(&["run", "--rm", "--network", "none", "--name", &name, IMAGE, "--count", "3"]);
            let reported = String::from_utf8(run.stderr).unwrap();
            let is_removed = run.status.success() || is_asked && reported.contains("unable to remove filesystem");
            assert!(is_removed, "{name}: {}: {reported}", run.status);
            run.stdout.lines().count() == 3
        });
        heard.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..4).map(|lane| scope.spawn(move || heard(lane))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    })
}

/// A rename is reported, and later notices have the new name.
#[test]
fn a_new_name_is_used_at_once() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    engine.run("svc", &[], &["--count", "0", "--idle"]);
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ svc ")), PATIENCE);
    engine.must(&["rename", "svc", "svc2"]);
    engine.must(&["kill", "svc2"]);
    watch.wait_for_ends(1);
    let notices = watch.stop().stderr;
    let reported: Vec<&str> = notices.lines().filter(|line| line.contains("svc")).collect();
    assert_eq!(reported, ["+ svc (file)", "svc is now called svc2", "- svc2 (exit 137)"]);
}

/// A hundred containers that print and exit on a busy machine are read whole.
#[test]
fn short_lived_containers_are_read_whole() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &["--source", "file"]);
    let heard = while_busy(|| short_lives(&engine, 100, false));
    watch.wait_for_ends(100);
    let numbers = Numbers::of_json(&watch.stop().lines());
    for number in &heard {
        numbers.assert_whole(&format!("short-{number}"), 1..=3);
    }
    assert!(heard.len() >= 95, "the engine itself heard {} of 100", heard.len());
}

/// The engine may have removed the log before it can be requested, so only the file route promises more.
#[test]
fn short_lived_containers_over_the_api() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &["--source", "stream"]);
    short_lives(&engine, 20, true);
    watch.wait_for_ends(20);
    let numbers = Numbers::of_json(&watch.stop().lines());
    let whole = (0..20).filter(|number| numbers.flaw(&format!("short-{number}"), 1..=3).is_none()).count();
    eprintln!("{whole} of 20 short lives whole over the API");
    for container in numbers.containers() {
        let seen = numbers.count(container) as u64;
        numbers.assert_whole(container, 1..=seen);
    }
    assert!(whole > 0, "none of 20");
}

/// `docker restart` loses and repeats no line on any route.
#[test]
fn docker_restart_loses_no_line() {
    let engine = Engine::start();
    let watches = by_each_source(&engine);
    for driver in DRIVERS {
        let args = ["--count", "500", "--rate", "5000", "--resume", "--idle"];
        engine.run(driver, &["--log-driver", driver], &args);
    }
    for lives in 1..=3 {
        watches.iter().for_each(|watch| watch.wait_for_count(lives * 1000));
        if lives < 3 {
            engine.must(&[&["restart"], DRIVERS.as_slice()].concat());
        }
    }
    engine.must(&[&["kill"], DRIVERS.as_slice()].concat());
    for (watch, source) in watches.into_iter().zip(SOURCES) {
        watch.wait_for_ends(6);
        let numbers = Numbers::of_json(&watch.stop().lines());
        DRIVERS.iter().for_each(|driver| assert_eq!(numbers.flaw(driver, 1..=1500), None, "{driver} by {source}"));
    }
}

/// Each life that a restart policy gives a container is read whole.
#[test]
fn restart_policies_are_followed() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let args = ["--count", "100", "--resume", "--exit", "1"];
    engine.run("failing", &["--restart", "on-failure:3"], &args);
    engine.run("always", &["--restart", "always"], &["--count", "300", "--resume", "--idle"]);
    for life in 1..=3 {
        let said = |lines: &[String]| Numbers::of_json(lines).count("always") >= life * 300;
        watch.wait_for(said, PATIENCE);
        // `docker kill` counts as the user's intention, after which the engine does not restart it.
        let pid = engine.must(&["inspect", "--format", "{{.State.Pid}}", "always"]);
        process::signal(pid.parse().unwrap(), Signal::KILL);
    }
    watch.wait_for(|lines| Numbers::of_json(lines).count("always") >= 1200, PATIENCE);
    watch.wait_for_ends(7);
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    numbers.assert_whole("failing", 1..=400);
    numbers.assert_whole("always", 1..=1200);
    assert_eq!(finished.stderr.matches("- failing (exit 1)\n").count(), 4, "{}", finished.stderr);
}

/// Pausing in the middle of writing loses nothing, and is a lifecycle record.
#[test]
fn a_paused_container_goes_on_afterwards() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &["--lifecycle"]);
    engine.run("web", &[], &["--count", "3000", "--rate", "2000"]);
    watch.wait_for_count(500);
    engine.must(&["pause", "web"]);
    watch.wait_for(|lines| lines.iter().any(|line| line.contains(r#""action":"pause""#)), PATIENCE);
    engine.must(&["unpause", "web"]);
    watch.wait_for_ends(1);
    let lines = watch.stop().lines();
    Numbers::of_json(&lines).assert_whole("web", 1..=3000);
    assert!(lines.iter().any(|line| line.contains(r#""action":"unpause""#)));
}

/// The lines before a rename have the old name, those after it the new one, and none is missing.
#[test]
fn a_rename_while_writing_loses_nothing() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    engine.run("before", &[], &["--count", "4000", "--rate", "2000"]);
    watch.wait_for_count(500);
    engine.must(&["rename", "before", "after"]);
    watch.wait_for_ends(1);
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    let old = numbers.count("before") as u64;
    assert!((500..4000).contains(&old), "{old}");
    numbers.assert_whole("before", 1..=old);
    numbers.assert_whole("after", old + 1..=4000);
    assert!(finished.stderr.contains("- after (exit 0)"), "{}", finished.stderr);
}

/// A container that was stopped when the watch began is read from the first line of its next run.
#[test]
fn a_restarted_container_is_read_from_there() {
    let engine = Engine::start();
    for name in DRIVERS.iter().flat_map(|driver| [format!("old-{driver}"), format!("dead-{driver}")]) {
        let (_, driver) = name.split_once('-').unwrap();
        engine.run(&name, &["--log-driver", driver], &["--count", "50", "--resume"]);
        engine.wait(&name);
    }
    // The engine sends a die event before its listing shows it, and no watch must see them as running.
    eventually("they are listed as dead", || engine.must(&["ps", "--quiet"]).is_empty());
    let watches = by_each_source(&engine);
    engine.must(&["start", "old-json-file", "old-local"]);
    for (watch, source) in watches.into_iter().zip(SOURCES) {
        watch.wait_for_ends(2);
        let numbers = Numbers::of_json(&watch.stop().lines());
        for driver in DRIVERS {
            assert_eq!(numbers.flaw(&format!("old-{driver}"), 51..=100), None, "{driver} by {source}");
        }
        assert_eq!(numbers.containers(), ["old-json-file", "old-local"], "by {source}");
    }
}

/// A last line without a newline is not joined with the first line of the next run.
#[test]
fn an_unfinished_last_line_stays_apart() {
    let engine = Engine::start();
    let watches = by_each_source(&engine);
    for driver in DRIVERS {
        engine.run(driver, &["--log-driver", driver], &["--count", "3", "--unfinished", "--resume"]);
    }
    watches.iter().for_each(|watch| watch.wait_for_ends(2));
    engine.must(&[&["start"], DRIVERS.as_slice()].concat());
    let expected: Vec<String> = (1..=6).map(|number| format!("line {number:09}")).collect();
    for (watch, source) in watches.into_iter().zip(SOURCES) {
        watch.wait_for_ends(4);
        let lines = watch.stop().lines();
        DRIVERS.iter().for_each(|driver| assert_eq!(messages(&lines, driver), expected, "{driver} by {source}"));
    }
}

/// Containers that cannot start neither delay others nor leave anything open.
#[test]
fn containers_that_cannot_start_block_nobody() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let before = watch.descriptors();
    for number in 0..5 {
        let name = format!("stillborn-{number}");
        let options = ["run", "--detach", "--rm", "--network", "none", "--name", &name, "--entrypoint", "/nothing"];
        let failed = engine.docker(&[&options[..], &[IMAGE]].concat());
        assert_eq!(failed.status.code(), Some(127));
    }
    engine.run("web", &[], &["--count", "20"]);
    watch.wait_for_ends(1);
    eventually("no file of theirs is open", || watch.descriptors() <= before);
    let finished = watch.stop();
    assert_eq!(finished.code, Some(0));
    Numbers::of_json(&finished.lines()).assert_whole("web", 1..=20);
}

/// With one file, several, and compressed ones, a rotating log is whole.
#[test]
fn every_kind_of_rotation_is_followed() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let args = ["--count", "20000", "--rate", "5000", "--size", "60"];
    for (name, options) in [
        ("three", &["--log-opt", "max-size=100k", "--log-opt", "max-file=3"][..]),
        ("one", &["--log-opt", "max-size=100k", "--log-opt", "max-file=1"]),
        ("gz", &["--log-opt", "max-size=100k", "--log-opt", "max-file=3", "--log-opt", "compress=true"]),
    ] {
        engine.run(name, options, &args);
    }
    watch.wait_for_ends(3);
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    for name in ["three", "one", "gz"] {
        numbers.assert_whole(name, 1..=20_000);
        let dir = engine.container_dir(name);
        assert!(std::fs::read_dir(&dir).unwrap().count() > 0, "{}", dir.display());
    }
    assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
}

/// Suspends the watch after the first burst until the container has written all of its bursts of 300 lines. Returns the
/// output.
fn stopped_meanwhile(bursts: u64, options: &[&str]) -> Vec<String> {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let count = (bursts * 300).to_string();
    engine.run("web", options, &["--count", &count, "--burst", "300", "--every", "400", "--size", "100"]);
    watch.wait_for_count(300);
    watch.signal(Signal::STOP);
    engine.wait("web");
    watch.signal(Signal::CONT);
    watch.wait_for_ends(1);
    watch.stop().lines()
}

/// What was rotated away while we were suspended is a gap in its place.
#[test]
fn rotation_while_stopped_is_a_gap() {
    let lines = stopped_meanwhile(20, &["--log-opt", "max-size=100k", "--log-opt", "max-file=2"]);
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let gaps: Vec<usize> = (0..records.len()).filter(|at| records[*at]["type"] == "gap").collect();
    let [gap] = gaps[..] else { panic!("{} gaps in {} records", gaps.len(), records.len()) };
    assert_eq!(records[gap]["reason"], "rotated_away");
    assert_eq!(records[gap]["container_name"], "web");
    let [before, after] = [&lines[..gap], &lines[gap + 1..]].map(Numbers::of_json);
    let read = before.count("web") as u64;
    before.assert_whole("web", 1..=read);
    let first = 6001 - after.count("web") as u64;
    after.assert_whole("web", first..=6000);
    assert!(first > read + 1, "{first} after {read}");
}

/// What was rotated and compressed while we were suspended is read.
#[test]
fn files_compressed_meanwhile_are_read_whole() {
    let options = ["--log-opt", "max-size=100k", "--log-opt", "max-file=3", "--log-opt", "compress=true"];
    let lines = stopped_meanwhile(4, &options);
    assert!(lines.iter().all(|line| line.contains(r#""type":"log""#)), "no gap");
    Numbers::of_json(&lines).assert_whole("web", 1..=1200);
}

/// Each container with a start notice gets an end notice, and a stopped container of which nothing is printed gets
/// none.
#[test]
fn start_and_end_notices_come_in_pairs() {
    let engine = Engine::start();
    engine.run("done", &[], &["--count", "3", "--exit", "7"]);
    engine.run("mute", &[], &["--count", "0"]);
    engine.create("made", &[], &["--count", "1"]);
    for name in ["done", "mute"] {
        engine.wait(name);
    }
    let state = engine.home().join("state.db");
    let resume = ["--state", state.to_str().unwrap(), "--resume"];
    // The first run of a name ignores containers that were stopped before.
    let first = Watch::start(&engine, &[&resume[..], &["--no-follow", "--all"]].concat()).finish();
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    engine.must(&["start", "done"]);
    engine.wait("done");
    engine.run("live", &[], &["--count", "1", "--idle"]);
    // The supervisor, which decides this, has only two cases: a file or a stream.
    for source in ["file", "stream"] {
        let (plus, minus) = (format!("+ done ({source})"), "- done (exit 7)".to_owned());
        let shown = [plus, minus];
        let copy = engine.home().join(format!("{source}.db"));
        std::fs::copy(&state, &copy).unwrap();
        let resume = ["--state", copy.to_str().unwrap(), "--resume"];
        for (args, lines, of_done) in [
            (&[][..], 1, &[][..]),
            (&["--all"], 7, &shown),
            (&["done", "mute", "made", "live", "later"], 7, &shown),
            (&["--all", "--tail", "0"], 0, &[]),
            (&["--all", "--include", "^later"], 0, &[]),
            (&resume, 4, &shown),
            (&resume, 0, &[]),
        ] {
            let watch = Watch::start(&engine, &[&["--source", source], args].concat());
            watch.wait_for_count(lines);
            watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ live")), PATIENCE);
            watch.wait_for_notice(|lines| of_done.iter().all(|line| lines.contains(line)), PATIENCE);
            // What comes after the end is known to be complete.
            engine.run("later", &[], &["--count", "1", "--prefix", "later"]);
            watch.wait_for_ends(of_done.len() / 2 + 1);
            let finished = watch.stop();
            let reported = finished.stderr.lines();
            let reported: Vec<&str> =
                reported.filter(|line| !line.contains(" live ") && !line.contains("later")).collect();
            assert_eq!(reported, of_done, "{source} {args:?}: {}", finished.stderr);
            assert_eq!(finished.lines().len(), lines + 1, "{source} {args:?}");
            engine.must(&["rm", "later"]);
        }
        let read = Watch::start(&engine, &["--source", source, "--no-follow", "done"]).finish();
        assert_eq!((read.lines().len(), read.stderr.as_str()), (6, ""), "{source}");
    }
}

/// How many containers start and end.
fn many_lives() -> usize {
    if long() { 1000 } else { 150 }
}

/// Containers that come and go leave no descriptor, no thread and no memory behind.
#[test]
fn hundreds_of_containers_leak_nothing() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let begun = Instant::now();
    // A busy engine sometimes passes on nothing of a container's output, so what `docker run` printed counts.
    let live = |from: usize, to: usize| -> usize {
        let said = thread::scope(|scope| {
            let lane = |lane: usize| {
                let live = |number: usize| {
                    let name = format!("life-{number}");
                    let args = ["run", "--rm", "--network", "none", "--name", &name, IMAGE, "--count", "3"];
                    engine.must(&args).lines().count()
                };
                (from + lane..to).step_by(4).map(live).sum::<usize>()
            };
            let lanes: Vec<_> = (0..4).map(|number| scope.spawn(move || lane(number))).collect();
            lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
        });
        watch.wait_for_ends(to);
        eventually("the last removal was heard", || {
            process::open_files(watch.pid()).iter().all(|file| !file.contains("deleted"))
        });
        said
    };
    // Connections to the engine belong to the pool, which may open or close one meanwhile, within its limit.
    let sockets = |files: &[String]| files.iter().filter(|file| file.starts_with("socket:")).count();
    let held = || {
        let files = process::open_files(watch.pid());
        let memory = process::memory(watch.pid()) / 1024;
        assert!(sockets(&files) <= 12, "{files:?}");
        (files.len() - sockets(&files), process::threads(watch.pid()), memory)
    };
    let early = live(0, 20);
    let before = held();
    let late = live(20, many_lives());
    let after = held();
    eprintln!("{} lives in {:?}: descriptors, threads, KiB {before:?}, then {after:?}", many_lives(), begun.elapsed());
    assert!(after.0 <= before.0 && after.1 <= before.1 && after.2 <= before.2 + 3072, "{before:?}, then {after:?}");
    let numbers = Numbers::of_json(&watch.stop().lines());
    assert_eq!(numbers.total(), early + late);
    assert!(early + late > many_lives() * 3 * 9 / 10);
}

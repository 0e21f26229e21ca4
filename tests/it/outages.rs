//! The engine is away for long, returns in another version, sends garbage, or forgets events: what it logged is read
//! once and in order. The lines are compared with the contents of the log files, because a killed engine loses lines
//! that it had read from a container and not yet written.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use serde_json::Value;

use crate::support::routes::{
    DRIVERS, ROUTES, assert_as_the_engine_has_it, assert_same, by_each_route, by_each_route_through, count, has,
    stop_each, wait_for_more,
};
use crate::support::{
    Engine, Fault, IMAGE, Numbers, PATIENCE, Proxy, Signal, Watch, beside, eventually, long, messages, process,
};

const ROTATING: [&str; 4] = ["--log-opt", "max-size=200k", "--log-opt", "max-file=5"];

/// Keeps a link to every file that the engine rotates away while `work` runs: everything a container's log ever held.
fn with_all_files_kept<T>(engine: &Engine, id: &str, work: impl FnOnce() -> T) -> (T, Vec<String>) {
    // The engine bind-mounts its data over itself, and hard links cannot leave a mount.
    let (folder, kept) = (engine.container_dir(id), engine.data().join(format!("kept-{id}")));
    fs::create_dir(&kept).unwrap();
    let look = || {
        keep(&folder, &kept);
        thread::sleep(Duration::from_millis(50));
    };
    let result = beside(look, work);
    keep(&folder, &kept);
    let mut files: Vec<Vec<Value>> = fs::read_dir(&kept).unwrap().map(|file| log(&file.unwrap().path())).collect();
    files.retain(|file| !file.is_empty());
    files.sort_by(|one, other| one[0]["time"].as_str().cmp(&other[0]["time"].as_str()));
    let texts = files.iter().flatten().map(|record| record["log"].as_str().unwrap().trim_end().to_owned());
    (result, texts.collect())
}

fn keep(folder: &Path, kept: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().contains("-json.log")
            && let Ok(metadata) = file.metadata()
        {
            // It exists already or was just removed; both are fine.
            let _ = fs::hard_link(file.path(), kept.join(metadata.ino().to_string()));
        }
    }
}

fn log(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Containers that write until they are killed, one for each form of log.
const WRITERS: [&str; 3] = ["json-file", "local", "rotating"];

/// Starts them; returns the ID of the rotating one.
fn start_writers(engine: &Engine, watches: &[Watch], rate: &str) -> String {
    let args = ["--forever", "--rate", rate];
    for driver in DRIVERS {
        engine.run(driver, &["--log-driver", driver], &args);
    }
    let id = engine.run("rotating", &ROTATING, &args);
    watches.iter().for_each(|watch| wait_for_more(watch, &WRITERS));
    id
}

/// Kills them and waits until all their lines are printed.
fn end_writers(engine: &Engine, watches: &[Watch]) {
    engine.must(&[&["kill"], WRITERS.as_slice()].concat());
    for (watch, name) in watches.iter().flat_map(|watch| WRITERS.map(|name| (watch, name))) {
        has(watch, &format!("- {name} "));
    }
}

/// Compares the output of each watch. `theirs` is everything that the rotating log ever held: over the API the engine
/// may have removed some of it before it answers again.
#[track_caller]
fn assert_writers_whole(engine: &Engine, watches: [Watch; 2], theirs: &[String]) -> [Vec<String>; 2] {
    let [by_file, over_api] = stop_each(watches).map(|finished| finished.lines());
    assert_same(&messages(&by_file, "rotating"), theirs, "rotating");
    for (lines, name) in [&by_file, &over_api].iter().flat_map(|lines| DRIVERS.map(|name| (lines, name))) {
        assert_as_the_engine_has_it(engine, lines, name);
    }
    [by_file, over_api]
}

/// An engine killed ten times under load costs no line that reached a file.
#[test]
fn ten_killed_engines_cost_no_written_line() {
    let engine = Engine::with(&["--live-restore"]);
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    let id = start_writers(&engine, &watches, "1500");
    let ((), theirs) = with_all_files_kept(&engine, &id, || {
        for kills in 1..=10 {
            engine.kill();
            engine.up();
            wait_for_more(&watches[0], &WRITERS);
            // The API route takes its time to return, and may be cut off while it does.
            if kills % 3 == 0 {
                wait_for_more(&watches[1], &WRITERS);
            }
        }
        end_writers(&engine, &watches);
    });
    for lines in assert_writers_whole(&engine, watches, &theirs) {
        assert!(DRIVERS.iter().all(|driver| messages(&lines, driver).len() > 2000));
        assert!(lines.iter().all(|line| line.contains(r#""type":"log""#)), "no gap");
    }
}

/// `--live-restore` keeps the containers running meanwhile.
#[test]
fn a_stopped_engine_costs_no_line() {
    let engine = Engine::with(&["--live-restore"]);
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    let id = start_writers(&engine, &watches, "1500");
    let ((), theirs) = with_all_files_kept(&engine, &id, || {
        for _ in 0..3 {
            engine.restart();
            watches.iter().for_each(|watch| wait_for_more(watch, &WRITERS));
        }
        end_writers(&engine, &watches);
    });
    assert_writers_whole(&engine, watches, &theirs);
}

/// After each of two upgrades of the engine, its API version is negotiated again, and no line is lost.
#[test]
fn upgrades_under_a_watch_cost_no_line() {
    let engine = Engine::of_the_machine(&["--live-restore"]);
    let proxies = [(); 2].map(|()| Proxy::start(&engine));
    let watches = by_each_route_through(&engine, &proxies);
    let id = start_writers(&engine, &watches, "500");
    let pid = || engine.must(&["inspect", "--format", "{{.State.Pid}}", "json-file"]);
    let first = pid();
    let ((), theirs) = with_all_files_kept(&engine, &id, || {
        for suite in ["trixie", "unstable"] {
            proxies.iter().for_each(Proxy::forget);
            engine.become_that_of(suite);
            eprintln!("now {}", engine.version());
            for (watch, proxy) in watches.iter().zip(&proxies) {
                wait_for_more(watch, &WRITERS);
                proxy.wait_for("GET /v1.44/containers/json", PATIENCE);
            }
            assert!(proxies[1].count("/logs") > 0, "and is asked for logs");
            assert_eq!(pid(), first, "live-restore keeps the container");
        }
        engine.run("later", &[], &["--count", "10"]);
        end_writers(&engine, &watches);
    });
    watches.iter().for_each(|watch| has(watch, "- later "));
    for lines in assert_writers_whole(&engine, watches, &theirs) {
        Numbers::of_json(&lines).assert_whole("later", 1..=10);
    }
}

/// No line is lost while the socket is elsewhere, or when it is made again.
#[test]
fn a_moved_socket_loses_no_line() {
    let engine = Engine::with(&["--live-restore"]);
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    let away = engine.home().join("away.sock");
    let elsewhere = format!("unix://{}", away.display());
    fs::rename(engine.socket(), &away).unwrap();
    // Nobody can connect any more, but the open event stream still delivers.
    for driver in DRIVERS {
        let options =
            ["-H", &elsewhere, "run", "--detach", "--network", "none", "--name", driver, "--log-driver", driver];
        engine.must(&[&options[..], &[IMAGE, "--count", "3000", "--rate", "1000"]].concat());
    }
    eventually("their files are read", || DRIVERS.iter().all(|driver| count(&watches[0], driver) > 500));
    engine.restart();
    watches.iter().for_each(|watch| watch.wait_for_ends(2));
    for finished in stop_each(watches) {
        let lines = finished.lines();
        for name in DRIVERS {
            assert!(assert_as_the_engine_has_it(&engine, &lines, name) > 2000);
        }
    }
}

/// How long the engine stalls.
fn stall() -> Duration {
    Duration::from_secs(if long() { 60 } else { 6 })
}

/// The stall stops no file, and containers started meanwhile are read from their first line.
#[test]
fn an_engine_stalled_for_long_costs_no_line() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watches = by_each_route(&engine, [&proxy.host(); 2]);
    start_writers(&engine, &watches, "300");
    proxy.on("", Fault::Stall);
    // These are opened again and then get no answer. The stream of `json-file` stays open and goes on afterwards.
    for name in ["local", "rotating"] {
        assert!(proxy.cut_where(&format!("{}/logs", engine.id(name))) > 0);
    }
    let begun = Instant::now();
    for driver in DRIVERS {
        engine.run(&format!("new-{driver}"), &["--log-driver", driver], &["--count", "500", "--rate", "1000"]);
    }
    engine.run("brief", &["--rm"], &["--count", "20"]);
    engine.must(&["rename", "new-json-file", "renamed"]);
    while begun.elapsed() < stall() {
        wait_for_more(&watches[0], &WRITERS);
        thread::sleep(Duration::from_millis(100));
    }
    proxy.heal();
    for watch in &watches {
        for name in ["renamed", "new-local", "brief"] {
            has(watch, &format!("- {name} "));
        }
        wait_for_more(watch, &WRITERS);
    }
    end_writers(&engine, &watches);
    for (finished, (source, _)) in stop_each(watches).iter().zip(ROUTES) {
        let lines = finished.lines();
        for name in WRITERS {
            assert_whole_but_for_rotation(&engine, &lines, name);
        }
        let numbers = Numbers::of_json(&lines);
        let (old, new) = (numbers.count("new-json-file") as u64, numbers.count("renamed") as u64);
        numbers.assert_whole("new-json-file", 1..=old);
        assert_eq!(old + new, 500);
        numbers.assert_whole("renamed", old + 1..=500);
        numbers.assert_whole("new-local", 1..=500);
        // What was removed by then exists only in a file that was open.
        if source == "auto" {
            numbers.assert_whole("brief", 1..=20);
        }
    }
}

/// An engine that ran all the time has written everything that the container wrote.
#[track_caller]
fn assert_whole_but_for_rotation(engine: &Engine, lines: &[String], container: &str) {
    let theirs = engine.must(&["logs", "--tail", "1", container]);
    let last = theirs.rsplit(' ').next().unwrap().parse().unwrap();
    Numbers::of_json(lines).assert_whole(container, 1..=last);
}

/// One watch for each kind of garbage and each route that meets it, all of the same containers.
#[test]
fn garbage_answers_are_retried() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let faults = [Fault::Status(500), Fault::Page(502), Fault::Half];
    let parts = ["/events", "/containers/json", "/logs", "/_ping"];
    let broken = parts.iter().flat_map(|part| faults.map(|fault| (*part, fault)));
    let strange = [("/events", Fault::Page(200)), ("/events", Fault::Corrupt), ("/containers/json", Fault::Page(200))];
    let watches: Vec<(Watch, Proxy, (&str, &str, Fault))> = broken
        .chain(strange)
        .flat_map(|(part, fault)| ROUTES.map(|(source, _)| (source, part, fault)))
        .filter(|(source, part, _)| *source == "stream" || *part != "/logs")
        .map(|row| {
            let proxy = Proxy::start(&engine);
            let mut command = Watch::command();
            engine.configure(&mut command);
            // On a busy machine a fault lasts, and backoff delays that grow with it would exceed the timeout of the
            // test.
            for wait in ["DOCKER_CIRCUIT_BREAKER_TIMEOUT", "DOCKER_POOL_MAX_RETRY_DELAY", "EVENTS_BACKOFF_MAX_DURATION"]
            {
                command.env(format!("LOGWATCH_{wait}"), "1s");
            }
            command.env_remove("DOCKER_HOST");
            command.args(["-H", &proxy.host(), "watch", "--format", "json", "--source", row.0]);
            (Watch::spawn(&mut command), proxy, row)
        })
        .collect();
    watches.iter().for_each(|(watch, ..)| has(watch, "+ beacon"));
    for driver in DRIVERS {
        // Until all have met their faults, however long that takes.
        engine.run(driver, &["--log-driver", driver], &["--forever", "--rate", "300"]);
    }
    for (watch, proxy, (_, part, fault)) in &watches {
        wait_for_more(watch, &DRIVERS);
        proxy.on(part, *fault);
        proxy.forget();
        proxy.cut();
    }
    watches.iter().for_each(|(_, proxy, (_, part, _))| proxy.wait_for(part, PATIENCE));
    engine.run("new", &[], &["--count", "50"]);
    engine.wait("new");
    for (_, proxy, (_, part, fault)) in &watches {
        // An event stream that continues after nonsense is not opened again, and its remaining events may be wrong.
        let is_lying = *fault == Fault::Corrupt;
        eventually(&format!("after {part} {fault:?} it was asked again"), || is_lying || proxy.count(part) > 1);
        proxy.heal();
        if is_lying {
            proxy.cut();
        }
    }
    let written = DRIVERS.map(|driver| {
        engine.must(&["kill", driver]);
        engine.wait(driver);
        (driver, engine.must(&["logs", driver]).lines().count() as u64)
    });
    for (watch, _, row) in watches {
        for name in ["new"].iter().chain(&DRIVERS) {
            has(&watch, &format!("- {name}"));
        }
        let finished = watch.stop();
        let numbers = Numbers::of_json(&finished.lines());
        for (name, count) in written.into_iter().chain([("new", 50)]) {
            assert_eq!(numbers.flaw(name, 1..=count), None, "after {row:?}:\n{}", finished.stderr);
        }
        let reported = finished.stderr.lines().count();
        assert!(reported < 24, "after {row:?} a flood of notices:\n{}", finished.stderr);
    }
}

/// Causes this many events that change nothing.
fn make_events(engine: &Engine, count: usize) {
    let id = engine.id("beacon");
    for _ in 0..count {
        // The answer to this request is not HTTP.
        let _ = engine.post(&format!("/containers/{id}/attach?stream=0&logs=0"));
    }
}

/// As many events as the engine remembers, and more.
const HISTORY: usize = 300;

/// Deaths, returns, renames and removals while no event came show as soon as events are back.
#[test]
fn unseen_changes_show_afterwards() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watches = by_each_route(&engine, [&proxy.host(); 2]);
    let resumed = ["--count", "200", "--resume"];
    for driver in DRIVERS {
        let run = |name: &str, options: &[&str], args: &[&str]| {
            engine.run(&format!("{name}-{driver}"), &[&["--log-driver", driver], options].concat(), args);
        };
        run("removed", &[], &["--count", "100", "--idle"]);
        run("renamed", &[], &["--forever", "--rate", "100"]);
        run("restarted", &["--restart", "always"], &[&resumed[..], &["--idle"]].concat());
        run("ended", &[], &[&resumed[..], &["--idle"]].concat());
        run("again", &[], &resumed);
        engine.create(&format!("made-{driver}"), &["--log-driver", driver], &["--count", "70"]);
    }
    for (watch, driver) in each(&watches) {
        for (name, said) in [("removed", 100), ("renamed", 1), ("restarted", 200), ("ended", 200), ("again", 200)] {
            let name = format!("{name}-{driver}");
            eventually(&format!("{name} was heard"), || count(watch, &name) >= said);
        }
        has(watch, &format!("- again-{driver} "));
    }
    proxy.on("/events", Fault::Hangup);
    proxy.cut_where("/events");
    watches.iter().for_each(|watch| has(watch, "trying again"));
    for driver in DRIVERS {
        let named = |name: &str| format!("{name}-{driver}");
        engine.must(&["rm", "--force", &named("removed")]);
        engine.must(&["rename", &named("renamed"), &named("other")]);
        let pid = engine.must(&["inspect", "--format", "{{.State.Pid}}", &named("restarted")]);
        process::signal(pid.parse().unwrap(), Signal::KILL);
        engine.must(&["kill", &named("ended")]);
        engine.must(&["start", &named("again"), &named("made")]);
        engine.run(&named("born"), &["--log-driver", driver], &["--count", "60"]);
        let rotating = ["--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=5"];
        engine.run(&named("turned"), &rotating, &["--count", "500", "--size", "80"]);
        for name in ["again", "made", "born", "turned"] {
            engine.wait(&named(name));
        }
    }
    make_events(&engine, HISTORY);
    proxy.heal();
    watches.iter().for_each(|watch| has(watch, "the engine is back"));
    for (watch, driver) in each(&watches) {
        has(watch, &format!("- removed-{driver}"));
        // A listing, not an event, showed their end.
        for (name, code) in [("ended", 137), ("made", 0), ("born", 0), ("turned", 0)] {
            has(watch, &format!("- {name}-{driver} (exit {code})"));
        }
        for (name, said) in [("other", 1), ("restarted", 400), ("again", 400)] {
            let name = format!("{name}-{driver}");
            eventually(&format!("{name} was heard of"), || count(watch, &name) >= said);
        }
    }
    for driver in DRIVERS {
        engine.must(&["kill", &format!("other-{driver}"), &format!("restarted-{driver}")]);
    }
    for (watch, driver) in each(&watches) {
        has(watch, &format!("- other-{driver}"));
        let end = format!("- restarted-{driver} (exit 137)");
        eventually("its end is reported", || watch.notices().contains(&end));
    }
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        for driver in DRIVERS {
            let named = |name: &str| format!("{name}-{driver}");
            for (name, said) in [
                ("removed", 100),
                ("restarted", 400),
                ("ended", 200),
                ("again", 400),
                ("made", 70),
                ("born", 60),
                ("turned", 500),
            ] {
                numbers.assert_whole(&named(name), 1..=said);
            }
            let old = numbers.count(&named("renamed")) as u64;
            numbers.assert_whole(&named("renamed"), 1..=old);
            numbers.assert_whole(&named("other"), old + 1..=old + numbers.count(&named("other")) as u64);
            assert_whole_together(&engine, old, &numbers, &named("other"));
        }
    }
}

/// Each watch combined with each driver.
fn each(watches: &[Watch]) -> impl Iterator<Item = (&Watch, &'static str)> {
    watches.iter().flat_map(|watch| DRIVERS.map(|driver| (watch, driver)))
}

fn assert_whole_together(engine: &Engine, before: u64, numbers: &Numbers, name: &str) {
    let last = engine.must(&["logs", "--tail", "1", name]);
    let last: u64 = last.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(before + numbers.count(name) as u64, last, "{name}");
}

/// One watch after the other: of two suspended watches the engine need not drop both at the same moment.
#[test]
fn a_dropped_subscription_loses_nothing() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    for (source, _) in ROUTES {
        let watch = Watch::start(&engine, &["--format", "json", "--source", source, &format!("*-{source}")]);
        watch.wait_until_up();
        let run = |name: &str, driver: &str, args: &[&str]| {
            let name = format!("{name}-{driver}-{source}");
            engine.run(&name, &["--log-driver", driver], &[&["--count", "100"], args].concat());
        };
        for driver in DRIVERS {
            run("old", driver, &["--idle"]);
            run("mortal", driver, &["--idle"]);
        }
        watch.wait_for_count(400);
        watch.signal(Signal::STOP);
        make_events(&engine, 1000);
        // From some moment on each takes 100 ms: the engine waits for us, and then drops us.
        let is_left_out = || {
            let begun = Instant::now();
            make_events(&engine, 10);
            begun.elapsed() > Duration::from_secs(1)
        };
        eventually("the engine has had enough of us", is_left_out);
        for driver in DRIVERS {
            let named = |name: &str| format!("{name}-{driver}-{source}");
            engine.must(&["rename", &named("old"), &named("other")]);
            engine.must(&["kill", &named("mortal")]);
            run("new", driver, &["--idle"]);
            run("born", driver, &[]);
        }
        assert!(is_left_out(), "and it still has");
        watch.signal(Signal::CONT);
        for driver in DRIVERS {
            let named = |name: &str| format!("{name}-{driver}-{source}");
            has(&watch, &format!("- {}", named("mortal")));
            has(&watch, &format!("- {}", named("born")));
            eventually("the new one was read", || count(&watch, &named("new")) == 100);
            engine.must(&["kill", &named("other")]);
            has(&watch, &format!("- {}", named("other")));
        }
        let numbers = Numbers::of_json(&watch.stop().lines());
        for (name, driver) in
            ["old", "mortal", "new", "born"].iter().flat_map(|name| DRIVERS.map(|driver| (name, driver)))
        {
            numbers.assert_whole(&format!("{name}-{driver}-{source}"), 1..=100);
        }
    }
}

/// What a new container rotated while we were suspended is read.
#[test]
fn rotation_while_suspended_is_read() {
    let engine = Engine::start();
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    watches.iter().for_each(|watch| watch.signal(Signal::STOP));
    for driver in DRIVERS {
        let options = ["--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=5"];
        engine.run(driver, &options, &["--count", "500", "--size", "80"]);
        engine.wait(driver);
    }
    for watch in &watches {
        watch.signal(Signal::CONT);
        watch.wait_for_ends(2);
    }
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        DRIVERS.iter().for_each(|driver| numbers.assert_whole(driver, 1..=500));
    }
}

/// A listing replaces a malformed event at once.
#[test]
fn a_malformed_event_is_made_up_for() {
    let engine = Engine::start();
    let proxies = [(); 2].map(|()| Proxy::start(&engine));
    let watches = by_each_route_through(&engine, &proxies);
    proxies.iter().for_each(|proxy| proxy.on("/events", Fault::Blot));
    for driver in DRIVERS {
        engine.run(driver, &["--log-driver", driver], &["--count", "100", "--idle"]);
    }
    for (watch, proxy) in watches.iter().zip(&proxies) {
        watch.wait_for_count(200);
        assert_eq!(proxy.count("/events"), 1, "the stream goes on");
    }
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        DRIVERS.iter().for_each(|driver| numbers.assert_whole(driver, 1..=100));
    }
}

/// A listing may not show a death that was just announced, so a listing alone does not revive a container.
#[test]
fn a_missed_start_event_loses_nothing() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watches = by_each_route(&engine, [&proxy.host(); 2]);
    for driver in DRIVERS {
        engine.run(driver, &["--log-driver", driver], &["--count", "100", "--resume", "--idle"]);
    }
    watches.iter().for_each(|watch| watch.wait_for_count(200));
    proxy.on("/events", Fault::Hangup);
    engine.must(&[&["kill"], DRIVERS.as_slice()].concat());
    watches.iter().for_each(|watch| watch.wait_for_ends(2));
    proxy.cut_where("/events");
    engine.must(&[&["start"], DRIVERS.as_slice()].concat());
    make_events(&engine, HISTORY);
    proxy.heal();
    watches.iter().for_each(|watch| watch.wait_for_count(400));
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        DRIVERS.iter().for_each(|driver| numbers.assert_whole(driver, 1..=200));
    }
}

/// The kernel's limit is the same for every inotify queue: when this test's own queue overflows, so does the one of the
/// watch.
fn queue_of(folders: &[PathBuf]) -> OwnedFd {
    let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    for folder in folders {
        inotify::add_watch(&queue, folder, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO).unwrap();
    }
    queue
}

fn has_overflowed(queue: &OwnedFd) -> bool {
    let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
    let mut reader = inotify::Reader::new(queue, &mut buffer);
    std::iter::from_fn(|| reader.next().ok().map(|event| event.events()))
        .any(|flags| flags.contains(ReadFlags::QUEUE_OVERFLOW))
}

/// What an overflowed inotify queue no longer reports is found all the same.
#[test]
fn an_inotify_overflow_loses_nothing() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let writers: Vec<String> = (0..6).map(|number| format!("writer-{number}")).collect();
    let names: Vec<&str> = writers.iter().map(String::as_str).collect();
    let options = ["--log-opt", "max-size=1m", "--log-opt", "max-file=50"];
    let args = ["--forever", "--rate", "1000"];
    let ids: Vec<String> = names.iter().map(|name| engine.run(name, &options, &args)).collect();
    engine.create("made", &[], &["--count", "100"]);
    wait_for_more(&watch, &names);
    watch.signal(Signal::STOP);
    let queue = queue_of(&ids.iter().map(|id| engine.container_dir(id)).collect::<Vec<_>>());
    let mut last = 0;
    eventually("nothing more fits into the queue", || {
        thread::sleep(Duration::from_millis(200));
        let waiting = rustix::io::ioctl_fionread(&queue).unwrap();
        std::mem::replace(&mut last, waiting) == waiting
    });
    engine.must(&["start", "made"]);
    engine.run("new", &options, &["--count", "100"]);
    engine.must(&["wait", "made", "new"]);
    engine.must(&[&["kill"], names.as_slice()].concat());
    assert!(has_overflowed(&queue), "there were too few events");
    watch.signal(Signal::CONT);
    watch.wait_for_ends(8);
    let lines = watch.stop().lines();
    for name in names {
        assert_whole_but_for_rotation(&engine, &lines, name);
    }
    let numbers = Numbers::of_json(&lines);
    numbers.assert_whole("made", 1..=100);
    numbers.assert_whole("new", 1..=100);
}

/// Containers that die while the engine is down are reported, and those that their policy restarts are followed again.
#[test]
fn containers_of_a_dead_engine() {
    let engine = Engine::with(&["--live-restore"]);
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    let args = ["--count", "500", "--resume", "--idle"];
    let mut names = Vec::new();
    for driver in DRIVERS {
        for (name, options) in [("always", &["--restart", "always"][..]), ("mortal", &[]), ("brief", &["--rm"])] {
            names.push(format!("{name}-{driver}"));
            engine.run(&format!("{name}-{driver}"), &[&["--log-driver", driver], options].concat(), &args);
        }
    }
    watches.iter().for_each(|watch| watch.wait_for_count(3000));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pids = engine.must(&[&["inspect", "--format", "{{.State.Pid}}"], names.as_slice()].concat());
    engine.kill();
    for pid in pids.lines().map(|pid| pid.parse().unwrap()) {
        process::signal(pid, Signal::KILL);
        eventually("it died", || !process::lives(pid));
    }
    engine.up();
    watches.iter().for_each(|watch| watch.wait_for_count(4000));
    for (watch, driver) in each(&watches) {
        has(watch, &format!("- mortal-{driver}"));
        has(watch, &format!("- brief-{driver}"));
    }
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        for driver in DRIVERS {
            numbers.assert_whole(&format!("always-{driver}"), 1..=1000);
            numbers.assert_whole(&format!("mortal-{driver}"), 1..=500);
            numbers.assert_whole(&format!("brief-{driver}"), 1..=500);
        }
    }
}

/// How many containers start and end unseen.
fn unseen() -> usize {
    if long() { 300 } else { 40 }
}

/// Every other container is removed when it ends. Returns the names of those whose lines all reached the engine: a busy
/// one may lose the output of a container that is removed at once.
fn live_unseen(engine: &Engine, prefix: &str, count: usize) -> BTreeSet<String> {
    let live = |number: usize| {
        let name = format!("{prefix}-{number}");
        let options: &[&str] = if number % 8 < 4 { &["--rm"] } else { &[] };
        let run = [&["run", "--network", "none", "--name", &name], options, &[IMAGE, "--count", "30"]].concat();
        let is_heard = engine.must(&run).lines().count() == 30;
        is_heard.then_some(name)
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..4)
            .map(|lane| scope.spawn(move || (lane..count).step_by(4).filter_map(live).collect::<Vec<_>>()))
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    })
}

/// Containers that came and went while no event came are read whole, whether they still exist, are in the engine's
/// history of events, or neither.
#[test]
fn unseen_containers_are_read_whole() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &[]);
    let (mut all, mut heard) = (BTreeSet::new(), 0);
    for (prefix, count, is_remembered) in [("few", 8, true), ("many", unseen(), false)] {
        proxy.on("/events", Fault::Hangup);
        proxy.cut_where("/events");
        has(&watch, "trying again");
        let lived = live_unseen(&engine, prefix, count);
        heard += lived.len();
        if !is_remembered {
            make_events(&engine, HISTORY);
        }
        proxy.heal();
        let names =
            (0..count).filter(|number| is_remembered || number % 8 >= 4).map(|number| format!("{prefix}-{number}"));
        let found: Vec<String> = names.filter(|name| lived.contains(name)).collect();
        let are_whole = |lines: &[String]| {
            let numbers = Numbers::of_json(lines);
            found.iter().all(|name| numbers.flaw(name, 1..=30).is_none())
        };
        // The next attempt to subscribe may be half a minute away.
        watch.wait_for(are_whole, PATIENCE * 4);
        all.extend(lived);
    }
    let lived = 8 + unseen();
    if long() {
        // No event will ever announce those that were removed: the watch waits a minute for one, and then reads them all
        // the same (`newcomers` and the supervisor have rows for it).
        watch.wait_for(|lines| Numbers::of_json(lines).total() >= 30 * all.len(), PATIENCE * 4);
        watch.wait_for_ends(lived);
    } else {
        all.retain(|name| {
            let (prefix, number) = name.split_once('-').unwrap();
            prefix == "few" || number.parse::<usize>().unwrap() % 8 >= 4
        });
    }
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    for name in &all {
        numbers.assert_whole(name, 1..=30);
    }
    assert!(heard * 100 >= 95 * lived, "the engine itself heard {heard} of {lived}");
}

/// A time that was changed on the way cannot be recognised, so for these containers only this is promised: they delay
/// no other, and their ends are reported.
#[test]
fn corrupt_log_streams_harm_no_other_container() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "stream"]);
    let changed = ["json-file-0", "local-0", "local-1"];
    let args = ["--forever", "--rate", "1000"];
    let ids = changed.map(|name| engine.run(name, &["--log-driver", &name[..name.len() - 2]], &args));
    engine.run("sound", &[], &["--count", "5000", "--rate", "1000"]);
    wait_for_more(&watch, &changed);
    ids.iter().for_each(|id| proxy.on(&format!("{id}/logs"), Fault::Corrupt));
    let before = count(&watch, "sound");
    eventually("a thousand lines passed", || count(&watch, "sound") >= (before + 1000).min(5000));
    proxy.heal();
    engine.must(&[&["kill"], &changed[..]].concat());
    engine.run("later", &["--log-driver", "local"], &["--count", "500"]);
    watch.wait_for_ends(5);
    let finished = watch.stop();
    assert_eq!(finished.code, Some(0));
    let numbers = Numbers::of_json(&finished.lines());
    numbers.assert_whole("sound", 1..=5000);
    numbers.assert_whole("later", 1..=500);
    assert!(finished.stderr.lines().count() < 24, "{}", finished.stderr);
}

/// A container that dies while its log is refused is read to its end afterwards.
#[test]
fn a_death_during_refused_reads_loses_nothing() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "stream"]);
    engine.run("web", &[], &["--count", "2000", "--rate", "1000"]);
    watch.wait_for_count(100);
    proxy.on("/logs", Fault::Status(500));
    proxy.cut_where("/logs");
    engine.wait("web");
    eventually("its end was asked for several times", || proxy.count("/logs?follow=0") > 4);
    proxy.heal();
    watch.wait_for_ends(1);
    Numbers::of_json(&watch.stop().lines()).assert_whole("web", 1..=2000);
}

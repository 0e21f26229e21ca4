//! The engine dies, stalls and refuses, our reader stops reading or leaves, we are told to stop: nothing is lost that is
//! still there, nothing comes twice, and we end when we are to.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::life::messages;
use crate::support::{Engine, Fault, Finished, Numbers, PATIENCE, Proxy, Signal, Watch, eventually, process};

/// How containers are read by the first and by the second of two watches, and what their lines say of it: each promise
/// holds for the files and for the API.
pub const ROUTES: [(&str, &str); 2] = [("auto", "file"), ("stream", "stream")];

/// The log drivers that both of them read.
pub const DRIVERS: [&str; 2] = ["json-file", "local"];

/// Two watches of the same containers, by [`ROUTES`].
#[track_caller]
pub fn by_each_route(engine: &Engine, hosts: [&str; 2]) -> [Watch; 2] {
    let words = ROUTES.map(|(source, _)| ["--source", source]);
    Watch::ready_each(engine, [(hosts[0], &words[0]), (hosts[1], &words[1])])
}

/// The same, each through a proxy of its own.
#[track_caller]
pub fn by_each_route_through(engine: &Engine, proxies: &[Proxy; 2]) -> [Watch; 2] {
    let hosts = proxies.each_ref().map(Proxy::host);
    by_each_route(engine, [&hosts[0], &hosts[1]])
}

/// Stops both. Fails when a line did not come by the route that its watch is there for.
#[track_caller]
pub fn stop_each(watches: [Watch; 2]) -> [Finished; 2] {
    let finished = watches.map(Watch::stop);
    for (finished, (_, route)) in finished.iter().zip(ROUTES) {
        let source = format!(r#""source":"{route}""#);
        let other =
            finished.lines().into_iter().find(|line| line.contains(r#""type":"log""#) && !line.contains(&source));
        assert_eq!(other, None, "not by {route}");
    }
    finished
}

/// The lines of a container so far.
pub fn count(watch: &Watch, container: &str) -> usize {
    let name = format!("\"container_name\":\"{container}\"");
    watch.lines().iter().filter(|line| line.contains(&name)).count()
}

/// Waits until each of these containers has said something more.
#[track_caller]
pub fn wait_for_more(watch: &Watch, containers: &[&str]) {
    let before: Vec<usize> = containers.iter().map(|name| count(watch, name)).collect();
    for (name, before) in containers.iter().zip(before) {
        eventually(&format!("{name} said more than {before} lines"), || count(watch, name) > before);
    }
}

#[track_caller]
pub fn has(watch: &Watch, notice: &str) {
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains(notice)), PATIENCE);
}

/// Fails unless what came out is what the engine has, line by line. A killed engine takes lines along that it had read
/// from the container and not yet written, so the container's own count is no measure.
#[track_caller]
pub fn assert_as_the_engine_has_it(engine: &Engine, lines: &[String], container: &str) -> usize {
    let theirs: Vec<String> = engine.must(&["logs", container]).lines().map(str::to_owned).collect();
    let ours = messages(lines, container);
    assert_same(&ours, &theirs, container);
    ours.len()
}

#[track_caller]
pub fn assert_same(ours: &[String], theirs: &[String], container: &str) {
    let first = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
    let at = first.unwrap_or(ours.len().min(theirs.len()));
    let told = format!("{container}: ours {}, theirs {}, first other at {at}", ours.len(), theirs.len());
    assert!(ours == theirs, "{told}: {:?} for {:?}", ours.get(at), theirs.get(at));
}

#[test]
fn an_engine_killed_and_started_again_costs_no_line_of_the_containers_that_live_on() {
    let engine = Engine::with(&["--live-restore"]);
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    let words = ["--count", "12000", "--rate", "1500"];
    let containers = [("json-0", "json-file"), ("json-1", "json-file"), ("local-0", "local"), ("local-1", "local")];
    for (name, driver) in containers {
        engine.run(name, &["--log-driver", driver], &words);
    }
    for (watch, (name, _)) in watches.iter().flat_map(|watch| containers.map(|container| (watch, container))) {
        watch.wait_for(|lines| lines.iter().any(|line| line.contains(name)), PATIENCE);
    }
    engine.kill();
    watches.iter().for_each(|watch| has(watch, "trying again, log files are followed meanwhile"));
    engine.up();
    watches.iter().for_each(|watch| has(watch, "the engine is back"));
    engine.run("later", &[], &["--count", "10"]);
    watches.iter().for_each(|watch| watch.wait_for_ends(5));
    for finished in stop_each(watches) {
        let lines = finished.lines();
        for (name, _) in containers {
            let count = assert_as_the_engine_has_it(&engine, &lines, name);
            assert!(count > 11_000, "{name}: {count}");
        }
        Numbers::of_json(&lines).assert_whole("later", 1..=10);
        assert_eq!(finished.stderr.matches("trying again").count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn an_engine_that_is_restarted_takes_its_containers_along_and_those_that_return_are_read_on() {
    let engine = Engine::start();
    let watches = by_each_route(&engine, [&engine.host(); 2]);
    let words = ["--count", "1000", "--rate", "5000", "--resume", "--idle"];
    for driver in DRIVERS {
        let options = ["--log-driver", driver];
        engine.run(&format!("always-{driver}"), &[&options[..], &["--restart", "always"]].concat(), &words);
        engine.run(&format!("mortal-{driver}"), &options, &words);
    }
    watches.iter().for_each(|watch| watch.wait_for_count(4000));
    engine.restart();
    watches.iter().for_each(|watch| watch.wait_for_count(6000));
    engine.must(&["kill", "always-json-file", "always-local"]);
    for watch in &watches {
        eventually("both ends were told", || {
            let ends =
                |name: &str| watch.notices().iter().filter(|line| line.starts_with(&format!("- {name} "))).count();
            DRIVERS
                .iter()
                .all(|driver| ends(&format!("always-{driver}")) >= 2 && ends(&format!("mortal-{driver}")) == 1)
        });
    }
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        for driver in DRIVERS {
            numbers.assert_whole(&format!("always-{driver}"), 1..=2000);
            numbers.assert_whole(&format!("mortal-{driver}"), 1..=1000);
        }
    }
}

#[test]
fn events_cut_off_twenty_times_miss_no_container_and_bring_none_twice() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &[]);
    thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            for cuts in 1..=20 {
                eventually("it has subscribed and lists", || proxy.count("/containers/json") >= cuts);
                eventually("the subscription was cut", || proxy.cut_where("/events?") > 0);
            }
        });
        for lane in 0..2 {
            let engine = &engine;
            scope.spawn(move || {
                for number in (lane..40).step_by(2) {
                    engine.run(&format!("web-{number}"), &[], &["--count", "3"]);
                }
            });
        }
        cutter.join().unwrap();
    });
    watch.wait_for_ends(40);
    // A busy engine may lose what a container writes that is gone at once (seen on 26.1 and 28.5).
    let is_heard = |number: &u64| engine.must(&["logs", &format!("web-{number}")]).lines().count() == 3;
    let heard: Vec<u64> = (0..40).filter(is_heard).collect();
    assert!(heard.len() >= 38, "the engine itself heard {} of 40", heard.len());
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    for number in &heard {
        numbers.assert_whole(&format!("web-{number}"), 1..=3);
    }
    for number in 0..40 {
        let end = format!("- web-{number}");
        let ends = finished.stderr.lines().filter(|line| line.split(" (").next() == Some(&end)).count();
        assert_eq!(ends, 1, "{end}:\n{}", finished.stderr);
    }
}

#[test]
fn a_log_stream_cut_off_twenty_times_gives_every_line_once() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "stream", "-E", "none"]);
    engine.run("web", &[], &["--count", "16000", "--rate", "1000", "--stream", "alternating"]);
    let id = engine.id("web");
    let part = format!("{id}/logs");
    let mut seen = 0;
    for _ in 0..20 {
        watch.wait_for_count(seen + 1);
        eventually("a log stream was cut", || proxy.cut_where(&part) > 0);
        eventually("the cut connection is gone", || proxy.cut_where(&part) == 0);
        seen = watch.lines().len();
    }
    watch.wait_for_ends(1);
    Numbers::of_json(&watch.stop().lines()).assert_whole("web", 1..=16_000);
    assert!(proxy.count(&part) > 20);
}

#[test]
fn an_engine_that_answers_500_for_a_while_is_asked_again_and_loses_nothing() {
    let engine = Engine::start();
    let proxies = [(); 2].map(|()| Proxy::start(&engine));
    let watches = by_each_route_through(&engine, &proxies);
    engine.run("local", &["--log-driver", "local"], &["--count", "3000", "--rate", "1000", "--resume"]);
    watches.iter().for_each(|watch| watch.wait_for_count(100));
    for proxy in &proxies {
        proxy.on("", Fault::Status(500));
        proxy.forget();
        proxy.cut();
    }
    watches.iter().for_each(|watch| has(watch, "trying again"));
    engine.run("new", &[], &["--count", "50"]);
    engine.wait("new");
    for proxy in &proxies {
        eventually("it tried several times", || proxy.requests().len() > 4);
        proxy.heal();
    }
    for watch in &watches {
        has(watch, "the engine is back");
        watch.wait_for_ends(2);
    }
    assert!(proxies[1].count("/logs") > 1);
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole("local", 1..=3000);
        numbers.assert_whole("new", 1..=50);
        assert!(finished.stderr.lines().count() < 12, "a refusal is no flood of notices:\n{}", finished.stderr);
    }
}

#[test]
fn an_engine_that_stalls_for_five_seconds_stops_no_file_and_costs_no_line() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watches = by_each_route(&engine, [&proxy.host(); 2]);
    for driver in DRIVERS {
        engine.run(driver, &["--log-driver", driver], &["--count", "8000", "--rate", "1000"]);
    }
    for watch in &watches {
        wait_for_more(watch, &DRIVERS);
    }
    proxy.on("", Fault::Stall);
    let before = DRIVERS.map(|driver| count(&watches[0], driver));
    for (driver, before) in DRIVERS.iter().zip(before) {
        eventually("five seconds' worth of lines came", || count(&watches[0], driver) > before + 5000);
    }
    engine.run("new", &[], &["--count", "50"]);
    proxy.heal();
    watches.iter().for_each(|watch| watch.wait_for_ends(3));
    for finished in stop_each(watches) {
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole("json-file", 1..=8000);
        numbers.assert_whole("local", 1..=8000);
        numbers.assert_whole("new", 1..=50);
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_us_quickly_silently_and_with_0() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "100"]);
    let mut shell = Command::new("bash");
    engine.furnish(&mut shell);
    let line = "\"$0\" watch -q --format raw | head -5; echo \"${PIPESTATUS[0]}\"";
    let begun = Instant::now();
    let finished = Watch::spawn(shell.args(["-c", line]).arg(Watch::command().get_program())).finish();
    let lines = finished.lines();
    assert_eq!((lines.len(), lines[5].as_str(), finished.stderr.as_str()), (6, "0", ""));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn told_to_stop_before_anybody_reads_the_pipe_it_is_to_write_to_it_ends_with_0() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "10", "--idle"]);
    let pipe = engine.home().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let proxy = Proxy::start(&engine);
    let words = ["watch", "-o", pipe.to_str().unwrap(), "--format", "raw"];
    let watch = Watch::at(&engine, &proxy.host(), &words);
    let tasks = || fs::read_dir(format!("/proc/{}/task", watch.pid())).unwrap().map(|task| task.unwrap().path());
    let is_opening = || tasks().any(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "open\n"));
    eventually("it opens the pipe", is_opening);
    assert_eq!(proxy.count("/events"), 0, "nobody would read them");
    assert_eq!(watch.stop().code, Some(0));
    let watch = Watch::at(&engine, &proxy.host(), &words);
    let mut reader = std::io::BufReader::new(fs::File::open(&pipe).unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert!(!line.is_empty());
    assert_eq!(watch.stop().code, Some(0));
}

#[test]
fn told_to_stop_it_writes_what_was_read_and_ends_with_0() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "2000"]);
    for signal in [Signal::INT, Signal::TERM] {
        let watch = Watch::start(&engine, &["--format", "json", "--tail", "all"]);
        watch.wait_for_count(2000);
        watch.signal(signal);
        let finished = watch.finish();
        assert_eq!(finished.code, Some(0), "{signal:?}");
        assert!(finished.stdout.ends_with(b"}\n"), "{signal:?}: the last line is whole");
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole("web", 1..=numbers.count("web") as u64);
    }
}

/// A watch whose output nobody reads, with more to write than the pipe takes.
fn blocked(engine: &Engine) -> Watch {
    let watch = Watch::start(engine, &["--tail", "all"]);
    watch.wait_for_count(1);
    watch.hold();
    let written = || fs::read_to_string(format!("/proc/{}/io", watch.pid())).unwrap();
    let mut last = String::new();
    eventually("it was blocked", || {
        thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut last, written()) == last
    });
    watch
}

#[test]
fn told_to_stop_while_its_output_is_blocked_it_ends_with_0_within_seconds_and_at_the_third_signal_at_once() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "200000", "--size", "200", "--idle"]);
    watch_the_file_grow(&engine);
    for signal in [Signal::INT, Signal::TERM] {
        let watch = blocked(&engine);
        let begun = Instant::now();
        watch.signal(signal);
        eventually("it ended", || !process::lives(watch.pid()));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!(watch.finish().code, Some(0), "{signal:?}");
    }
    let watch = blocked(&engine);
    let begun = Instant::now();
    // Signals that come closer than they are heard are one.
    eventually("it ended", || {
        watch.signal(Signal::INT);
        thread::sleep(Duration::from_millis(20));
        !process::lives(watch.pid())
    });
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(watch.finish().code, Some(130));
}

/// Until the container has written all of its 40 MB.
fn watch_the_file_grow(engine: &Engine) {
    let path = engine.log_path(&engine.id("web"));
    eventually("all was written", || fs::metadata(&path).is_ok_and(|file| file.len() > 200_000 * 250));
}

/// The docker CLI that runs us as its plugin, into a pipe.
fn through_docker(engine: &Engine) -> Watch {
    let plugins = engine.config_dir().join("cli-plugins");
    if !plugins.exists() {
        fs::create_dir(&plugins).unwrap();
        symlink(Watch::command().get_program(), plugins.join("docker-logwatch")).unwrap();
    }
    let watch = Watch::spawn(engine.command().args(["logwatch", "watch", "--format", "json"]));
    watch.wait_for_count(10);
    watch
}

fn docker_major() -> u32 {
    let output = Command::new("docker").arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim_start_matches("Docker version ").split('.').next().unwrap().parse().unwrap()
}

#[test]
fn as_dockers_plugin_we_end_when_docker_is_told_to_stop_and_when_it_is_killed() {
    let engine = Engine::start();
    engine.run("web", &[], &["--forever", "--rate", "200"]);
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let docker = through_docker(&engine);
        let plugins = process::children(docker.pid());
        let [plugin] = plugins[..] else { panic!("{plugins:?}") };
        docker.signal(signal);
        if docker_major() < 25 {
            // It tells its plugin nothing: a terminal would have.
            process::signal(plugin, Signal::TERM);
        }
        eventually("the plugin ended", || !process::lives(plugin));
        let finished = docker.finish();
        let expected = if signal == Signal::KILL { None } else { Some(0) };
        assert_eq!(finished.code, expected, "{signal:?}: {}", finished.stderr);
        assert!(finished.stdout.ends_with(b"}\n"), "{signal:?}: the last line is whole");
    }
}

#[test]
fn without_inotify_watches_files_are_looked_at_and_this_is_said_once() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    // The limit of a user namespace is its own; the machine's stays what it is.
    let line = "echo 1 >/proc/sys/user/max_inotify_watches; exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    engine.furnish(&mut command);
    command.args(["--user", "--map-root-user", "sh", "-c", line]).arg(Watch::command().get_program());
    let watch = Watch::spawn(command.args(["watch", "--format", "json", "--source", "file"]));
    has(&watch, "+ beacon");
    for name in ["one", "two", "three"] {
        let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
        engine.run(name, &options, &["--count", "1000", "--rate", "200"]);
    }
    watch.wait_for_ends(3);
    let finished = watch.stop();
    assert_eq!(finished.stderr.matches("no inotify watches are left").count(), 1, "{}", finished.stderr);
    let numbers = Numbers::of_json(&finished.lines());
    for name in ["one", "two", "three"] {
        numbers.assert_whole(name, 1..=1000);
    }
}

#[test]
fn a_full_disk_ends_it_with_1_and_the_file_holds_whole_records_up_to_there() {
    let engine = Engine::start();
    let disk = engine.home().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk);
    assert!(mount.status().unwrap().success());
    engine.run("web", &[], &["--count", "1000"]);
    engine.wait("web");
    let file = disk.join("out.json");
    let words = ["--all", "--tail", "all", "--format", "json", "-q", "-o", file.to_str().unwrap()];
    let finished = Watch::start(&engine, &words).finish();
    assert_eq!(finished.code, Some(1));
    assert_eq!(finished.stdout, b"");
    let path = file.display();
    let expected = format!(
        "error: cannot write to {path}\n  caused by: No space left on device (os error 28)\n\
         hint: free some space there; the lines that were not written are still in the container logs\n"
    );
    assert_eq!(finished.stderr, expected);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with('\n'), "no half record");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    Numbers::of_json(&lines).assert_whole("web", 1..=lines.len() as u64);
    assert!(lines.len() > 100, "{} lines", lines.len());
}

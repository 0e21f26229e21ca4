//! What heavy load costs, and what idling costs. They run one at a time, by `.config/nextest.toml` and, without
//! nextest, by a lock.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Answer, Engine, Numbers, Proxy, Request, Script, Signal, Watch, counts, eventually, long, process,
};

/// How long the twenty containers of the load write, in seconds.
fn seconds() -> u64 {
    if long() { 60 } else { 15 }
}

/// How long the idle watch is measured.
const REST: Duration = Duration::from_secs(6);

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const MIB: u64 = 1024 * 1024;

/// A container that writes as fast as it can into three small files is read whole.
#[test]
fn a_flood_into_rotating_files_is_whole() {
    let _alone = alone();
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let options = ["--log-opt", "max-size=1m", "--log-opt", "max-file=3"];
    engine.run("flood", &options, &["--count", "200000", "--size", "200"]);
    watch.wait_for_ends(1);
    let finished = watch.stop();
    assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    Numbers::of_json(&finished.lines()).assert_whole("flood", 1..=200_000);
}

/// Four kinds of logs at 15,000 lines a second are whole, or their loss is reported.
#[test]
fn fast_rotating_logs_are_whole() {
    let _alone = alone();
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let size = "max-size=1m";
    let kinds: [(&str, &[&str]); 4] = [
        ("plain", &["--log-opt", size, "--log-opt", "max-file=3"]),
        ("compressed", &["--log-opt", size, "--log-opt", "max-file=3", "--log-opt", "compress=true"]),
        ("local", &["--log-driver", "local", "--log-opt", size]),
        ("one", &["--log-opt", size, "--log-opt", "max-file=1"]),
    ];
    for (name, options) in kinds {
        engine.run(name, options, &["--count", "60000", "--rate", "15000"]);
    }
    watch.wait_for_ends(kinds.len());
    let lines = watch.stop().lines();
    let numbers = Numbers::of_json(&lines);
    for name in ["plain", "compressed", "local"] {
        numbers.assert_whole(name, 1..=60_000);
    }
    let gaps = lines.iter().filter(|line| line.starts_with(r#"{"type":"gap""#)).collect::<Vec<_>>();
    assert!(gaps.iter().all(|gap| gap.contains(r#""container_name":"one""#)), "{gaps:?}");
    if let Some(flaw) = numbers.flaw("one", 1..=60_000) {
        assert!(!gaps.is_empty() && flaw.contains("missing") && !flaw.contains("twice"), "{flaw}; {gaps:?}");
    }
}

/// The lines of eight containers, which are identified by their prefix, checked as they come because they are too many
/// to keep.
#[derive(Default)]
struct Count {
    next: [u64; FLOODS],
    flaws: Vec<String>,
}

const FLOODS: usize = 8;

impl Count {
    fn add(&mut self, line: &str) {
        let mut words = line.split(' ');
        let flood = words.next().and_then(|word| word.strip_prefix("flood-")?.parse::<usize>().ok());
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        match flood.zip(number) {
            Some((flood, number)) if number == self.next[flood] + 1 => self.next[flood] = number,
            _ => self.flaws.push(line.chars().take(40).collect()),
        }
    }
}

/// While nobody reads our output, memory stays small and what rotates is kept.
#[test]
fn an_unread_output_keeps_memory_small() {
    let _alone = alone();
    // With `long()`: 100 MB each into files of 10 MiB, unread for a minute.
    let (lines, size, held) = if long() { (500_000, "10m", 60) } else { (100_000, "2m", 0) };
    let engine = Engine::start();
    let mut command = Watch::command();
    engine.configure(&mut command);
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    command.args(["watch", "--format", "raw", "beacon", "flood-*"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notices = BufReader::new(watch.stderr.take().unwrap()).lines();
    assert_eq!(notices.next().unwrap().unwrap(), "+ beacon (file)");
    let begun = Instant::now();
    let size = format!("max-size={size}");
    for number in 0..FLOODS {
        let name = format!("flood-{number}");
        let args = ["--count", &lines.to_string(), "--size", "200", "--prefix", &name];
        engine.run(&name, &["--log-opt", &size, "--log-opt", "max-file=3"], &args);
    }
    for number in 0..FLOODS {
        engine.wait(&format!("flood-{number}"));
    }
    thread::sleep(Duration::from_secs(held).saturating_sub(begun.elapsed()));
    let unread = process::peak_memory(watch.id());
    let mut count = Count::default();
    for line in BufReader::new(watch.stdout.take().unwrap()).lines().take(FLOODS * lines) {
        count.add(&line.unwrap());
    }
    let peak = process::peak_memory(watch.id());
    eprintln!("peak memory {} MiB, {} while unread", peak / MIB, unread / MIB);
    process::signal(watch.id(), Signal::TERM);
    let said: Vec<String> = notices.map(Result::unwrap).collect();
    assert!(watch.wait().unwrap().success());
    assert_eq!((count.next, count.flaws), ([lines as u64; FLOODS], vec![]));
    assert!(said.iter().all(|notice| !notice.starts_with('!')), "{said:?}");
    assert!(peak < 64 * MIB, "{} MiB", peak / MIB);
}

/// Twenty containers at 2,000 lines a second are read whole and in order.
#[test]
fn twenty_busy_containers_are_read_whole() {
    let _alone = alone();
    let engine = Engine::start();
    let watch = Watch::start(&engine, &[]);
    let count = 2000 * seconds();
    let names: Vec<String> = (0..20).map(|number| format!("load-{number}")).collect();
    for name in &names {
        engine.run(name, &[], &["--count", &count.to_string(), "--rate", "2000"]);
    }
    let expected = names.len() * usize::try_from(count).unwrap();
    watch.wait_for(|lines| lines.len() >= expected, Duration::from_secs(seconds() * 5));
    watch.wait_for_ends(names.len());
    eprintln!("{expected} lines for {:?} of CPU, {} MiB", watch.cpu(), watch.peak_memory() / MIB);
    assert!(watch.peak_memory() < 64 * MIB);
    let numbers = Numbers::of_text(&watch.stop().lines());
    for name in &names {
        numbers.assert_whole(name, 1..=count);
    }
}

/// How often the threads of a process went to sleep.
fn wakeups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let count = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
    };
    statuses.filter_map(count).sum()
}

/// Starts `idle-0` to `idle-49`, four at a time.
fn run_fifty(engine: &Engine, args: &[&str]) {
    thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                for number in (lane..50).step_by(4) {
                    engine.run(&format!("idle-{number}"), &[], args);
                }
            });
        }
    });
}

/// An idle watch sends no request, hardly wakes up, and holds few descriptors.
#[test]
fn fifty_idle_containers_cost_nothing() {
    let _alone = alone();
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    run_fifty(&engine, &["--count", "1", "--idle"]);
    let watch = Watch::at(&engine, &proxy.host(), &["watch"]);
    watch.wait_for_count(50);
    let quiet = || (wakeups(watch.pid()), proxy.requests().len());
    let mut last = quiet();
    eventually("the start was over", || {
        thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, quiet()) == last
    });
    proxy.forget();
    let (awake, ours, theirs) = (wakeups(watch.pid()), watch.cpu(), engine.cpu());
    let begun = Instant::now();
    // This measures a span of time.
    thread::sleep(REST);
    let (awake, ours, theirs) = (wakeups(watch.pid()) - awake, watch.cpu() - ours, engine.cpu() - theirs);
    let descriptors = watch.descriptors();
    eprintln!(
        "in {:?} at rest: {awake} wake-ups, {ours:?} of CPU, {theirs:?} in dockerd; {descriptors} descriptors, {} KiB resident",
        begun.elapsed(),
        process::memory(watch.pid()) / 1024,
    );
    // The pool's health checks, by their paths: none of them if the span starts soon after the program, otherwise
    // three.
    let is_check = |line: &&String| {
        line.contains("/_ping ")
            || line.contains("/json?") && line.contains("limit=1")
            || line.contains("&since=1.000000000&")
    };
    let requests = proxy.requests();
    let (checks, others): (Vec<_>, Vec<_>) = requests.iter().partition(is_check);
    assert!(others.is_empty() && checks.len() <= 3, "{requests:?}");
    assert!(awake <= 4, "{awake} wake-ups: the look at all files every 5 s is one or two");
    assert!(descriptors <= 2 * 50 + 24, "{descriptors}");
    assert!(theirs < Duration::from_millis(100), "{theirs:?}");
    drop(watch);
}

/// Fifty polled containers cost one request each in an interval, and not all at once.
#[test]
fn polls_are_spread_over_the_interval() {
    const INTERVALS: u32 = 3;
    let _alone = alone();
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    run_fifty(&engine, &["--count", "100", "--idle"]);
    let watch = Watch::at(&engine, &proxy.host(), &["watch", "--source", "poll"]);
    watch.wait_for_count(500);
    // Each was requested once for its history and once at a random time within its first interval.
    eventually("all have their rhythm", || proxy.count("&tail=64") >= 60);
    proxy.forget();
    let (ours, theirs, begun) = (watch.cpu(), engine.cpu(), Instant::now());
    let mut most = 0;
    let mut before = 0;
    while begun.elapsed() < Duration::from_secs(2) * INTERVALS {
        thread::sleep(Duration::from_millis(200));
        let asked = proxy.count("/logs?");
        most = most.max(asked - before);
        before = asked;
    }
    let (ours, theirs) = (watch.cpu() - ours, engine.cpu() - theirs);
    let minute = 60.0 / begun.elapsed().as_secs_f64() * before as f64;
    eprintln!("{minute:.0} requests a minute, at most {most} in 200 ms; {ours:?} of CPU, {theirs:?} in dockerd");
    assert!(before <= 50 * (INTERVALS as usize + 1) && before >= 50 * (INTERVALS as usize - 1), "{before}");
    assert!(most <= 25, "{most} of 50 within a tenth of the interval");
    drop(watch);
}

/// A reconciliation takes a handful of calls, little memory and less than two seconds.
#[test]
fn reconciling_two_thousand_containers_is_cheap() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.db");
    let engine = crowd(2000);
    let run = |args: &[&str]| {
        let mut command = Watch::command();
        command.env("HOME", dir.path()).env_remove("DOCKER_HOST").args(["-H", &engine.host(), "reconcile"]);
        command.args(["--state", state.to_str().unwrap(), "--format", "json"]).args(args);
        let before = engine.requests().len();
        let begun = Instant::now();
        let watch = Watch::spawn(&mut command);
        let mut peak = 0;
        eventually("it ended", || {
            peak = peak.max(process::peak_memory(watch.pid()));
            !process::lives(watch.pid())
        });
        let took = begun.elapsed();
        let finished = watch.finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let calls = engine.requests()[before..].to_vec();
        eprintln!("{took:?}, {} KiB, {} calls", peak / 1024, calls.len());
        assert!(calls.len() <= 5, "{calls:?}");
        assert!(peak < 64 << 20, "{peak}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        finished.records().pop().unwrap()
    };
    let first = run(&[]);
    assert_eq!(counts(&first, "containers"), [2000, 0, 0, 0]);
    assert_eq!(counts(&first, "volumes"), [200, 0, 0, 0]);
    assert_eq!(counts(&first, "mounts"), [4000, 0, 0, 0]);
    let second = run(&[]);
    assert_eq!((&second["in_sync"], counts(&second, "mounts")), (&json!(true), [0, 0, 0, 4000]));
    assert_eq!(run(&["--check"])["in_sync"], json!(true));
}

/// An engine with this many containers, each with two mounts, and one volume for ten of them.
fn crowd(count: usize) -> Script {
    let containers: Vec<Value> = (0..count)
        .map(|number| {
            let volume = format!("v{}", number / 10);
            json!({
                "Id": format!("{number:064x}"),
                "Names": [format!("/name-{number}")],
                "Image": "img:1",
                "ImageID": format!("sha256:{:064x}", 7),
                "Command": "/chatter",
                "Created": 1_795_215_653,
                "Ports": [],
                "Labels": {"com.docker.compose.project": "shop", "number": number.to_string()},
                "State": if number % 3 == 0 { "exited" } else { "running" },
                "Status": "Up 2 minutes",
                "HostConfig": {"NetworkMode": "none"},
                "NetworkSettings": {"Networks": {}},
                "Mounts": [
                    {"Type": "volume", "Name": volume, "Source": format!("/d/{volume}/_data"), "Destination": "/data",
                        "Driver": "local", "Mode": "z", "RW": true, "Propagation": ""},
                    {"Type": "bind", "Source": "/etc/app", "Destination": "/etc/app", "Mode": "ro", "RW": false,
                        "Propagation": "rprivate"},
                ],
            })
        })
        .collect();
    let volumes: Vec<Value> = (0..count / 10)
        .map(|number| {
            json!({"Name": format!("v{number}"), "Driver": "local", "Mountpoint": format!("/d/v{number}/_data"),
                "Scope": "local", "CreatedAt": "2026-11-20T23:00:53Z", "Labels": null, "Options": null})
        })
        .collect();
    let containers = Value::from(containers).to_string();
    let volumes = json!({"Volumes": volumes, "Warnings": null}).to_string();
    let info = json!({"ID": "CROWD", "ServerVersion": "20.10.24", "OSType": "linux", "DockerRootDir": "/nowhere",
        "LoggingDriver": "json-file"})
    .to_string();
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, &info),
        "/containers/json" => answer.json(200, &containers),
        "/volumes" => answer.json(200, &volumes),
        "/events" => {
            answer.begin("application/json");
            // A request for past events ends.
            if !request.path.contains("until=") {
                answer.hold();
            }
        }
        _ => answer.json(404, r#"{"message":"page not found"}"#),
    })
}

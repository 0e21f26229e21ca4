//! The routes over the API, each with its own rhythm, under the same promises: every line once, in order, to the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Answer, Engine, Fault, Numbers, PATIENCE, Proxy, Request, Script, Watch, eventually};

/// A route's name and the words for it.
type Way = (&'static str, &'static [&'static str]);

const STREAM: Way = ("stream", &["--source", "stream"]);
const ROTATE: Way = ("rotate", &["--source", "rotate", "--rotate-interval", "300ms"]);
const POLL: Way = ("poll", &["--source", "poll", "--poll-interval", "200ms"]);

#[track_caller]
fn assert_all_by(lines: &[String], source: &str) {
    let told = format!("\"source\":\"{source}\"");
    let logs = lines.iter().filter(|line| line.starts_with(r#"{"type":"log""#));
    for line in logs {
        assert!(line.contains(&told), "{line}");
    }
}

#[test]
fn renewed_streams_and_polls_give_every_line_once_and_in_order() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let words = ["--count", "20000", "--rate", "2000", "--stream", "alternating"];
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = [ROTATE, POLL].map(|(source, way)| {
        let words = [&["watch", "--format", "json"], way].concat();
        let watch = Watch::at(&engine, &proxy.host(), &words);
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    for driver in ["json-file", "local"] {
        engine.run(driver, &["--log-driver", driver], &words);
    }
    for ((source, _), watch) in [ROTATE, POLL].into_iter().zip(watches) {
        watch.wait_for_ends(2);
        let finished = watch.stop();
        let (lines, notices) = (finished.lines(), finished.stderr);
        assert_all_by(&lines, source);
        let numbers = Numbers::of_json(&lines);
        for driver in ["json-file", "local"] {
            numbers.assert_whole(driver, 1..=20_000);
            assert_eq!(notices.matches(&format!("+ {driver} ({source})")).count(), 1, "{notices}");
        }
        assert!(!notices.contains('!'), "{source}: {notices}");
    }
    // Ten seconds of each: 33 streams and 50 polls, but for a busy machine.
    for driver in ["json-file", "local"] {
        let part = |follow: u8| format!("{}/logs?follow={follow}", engine.id(driver));
        let (streams, polls) = (proxy.count(&part(1)), proxy.count(&part(0)));
        eprintln!("{driver}: {streams} streams, {polls} polls");
        assert!((15..50).contains(&streams) && (25..90).contains(&polls), "{driver}: {streams} streams, {polls} polls");
    }
}

#[test]
fn restarted_paused_and_renamed_a_container_goes_on_where_it_was() {
    let engine = Engine::start();
    for (source, way) in [ROTATE, POLL] {
        let watch = Watch::start(&engine, &[&["--format", "json", "-E", "beacon"], way].concat());
        watch.wait_until_up();
        let name = format!("{source}-lives");
        engine.run(&name, &[], &["--count", "700", "--rate", "1000", "--stream", "alternating", "--resume", "--idle"]);
        for lives in 1..=3 {
            watch.wait_for_count(lives * 700);
            if lives < 3 {
                engine.must(&["restart", &name]);
            }
        }
        engine.must(&["kill", &name]);
        watch.wait_for_ends(3);
        let (before, after) = (format!("{source}-before"), format!("{source}-after"));
        engine.run(&before, &[], &["--count", "3000", "--rate", "1500", "--stream", "alternating"]);
        watch.wait_for_count(2100 + 300);
        engine.must(&["pause", &before]);
        engine.must(&["rename", &before, &after]);
        engine.must(&["unpause", &after]);
        watch.wait_for_ends(4);
        let finished = watch.stop();
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole(&name, 1..=2100);
        let old = numbers.count(&before) as u64;
        assert!(old >= 300 && numbers.count(&after) as u64 == 3000 - old, "{source}: {old} before");
        let renamed: Vec<String> = finished.lines().iter().map(|line| line.replace(&before, &after)).collect();
        Numbers::of_json(&renamed).assert_whole(&after, 1..=3000);
        assert!(!finished.stderr.contains('!'), "{source}: {}", finished.stderr);
        engine.must(&["rm", "--force", &name, &after]);
    }
}

/// Engines up to 24.0.7 send what the `local` driver and the cache hold with the offset of their own zone.
#[test]
fn an_engine_outside_utc_is_read_alike_by_every_route() {
    let engine = Engine::in_zone("Europe/Amsterdam");
    let sink = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("gelf-address=udp://{}", sink.local_addr().unwrap());
    let kinds: [(&str, &[&str]); 4] = [
        ("json-file", &["--log-driver", "json-file"]),
        ("local", &["--log-driver", "local"]),
        ("local-tty", &["--log-driver", "local", "--tty"]),
        ("cache", &["--log-driver", "gelf", "--log-opt", &address]),
    ];
    let words = ["--count", "2000", "--rate", "1000"];
    for (name, options) in kinds {
        engine.run(&format!("{name}-before"), options, &words);
        engine.wait(&format!("{name}-before"));
    }
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = [STREAM, ROTATE, POLL].map(|(source, way)| {
        let watch = Watch::start(&engine, &[&["--format", "json", "--all", "-n", "all"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    for (name, options) in kinds {
        engine.run(&format!("{name}-later"), options, &words);
    }
    for ((source, way), watch) in [STREAM, ROTATE, POLL].into_iter().zip(watches) {
        // Those that had ended before have their end told, too.
        watch.wait_for_ends(2 * kinds.len());
        for (name, _) in kinds {
            watch.wait_for(
                |lines| lines.iter().filter(|line| line.contains(&format!("\"{name}-before\""))).count() >= 2000,
                PATIENCE,
            );
        }
        let finished = watch.stop();
        assert!(!finished.stderr.contains('!'), "{source}: {}", finished.stderr);
        let lines = finished.lines();
        let numbers = Numbers::of_json(&lines);
        for (name, _) in kinds {
            for container in [format!("{name}-before"), format!("{name}-later")] {
                numbers.assert_whole(&container, 1..=2000);
                let times = engine.must(&["logs", "--timestamps", &container]);
                let theirs =
                    times.lines().map(|line| line.split(' ').next().unwrap().parse::<jiff::Timestamp>().unwrap());
                let of = format!("\"container_name\":\"{container}\"");
                let ours = lines.iter().filter(|line| line.contains(&of)).map(|line| {
                    let record: Value = serde_json::from_str(line).unwrap();
                    let time = record["time"].as_str().unwrap().to_owned();
                    assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
                    time.parse::<jiff::Timestamp>().unwrap()
                });
                assert!(ours.eq(theirs), "{source}: {container}");
            }
        }
        let last =
            Watch::read(&engine, &[&["--format", "json", "-n", "7", "local-before", "cache-before"], way].concat());
        let numbers = Numbers::of_json(&last.lines());
        for name in ["local-before", "cache-before"] {
            numbers.assert_whole(name, 1994..=2000);
        }
    }
}

/// What the engine has of a container, which is less than that wrote when the engine was killed.
fn told_by_docker(engine: &Engine, container: &str) -> BTreeMap<&'static str, Vec<String>> {
    let output = engine.docker(&["logs", container]);
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    BTreeMap::from([("stdout", lines(&output.stdout)), ("stderr", lines(&output.stderr))])
}

fn told_by_us(lines: &[String], container: &str) -> BTreeMap<&'static str, Vec<String>> {
    let mut told = BTreeMap::from([("stdout", Vec::new()), ("stderr", Vec::new())]);
    for line in lines {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["type"] == "log" && record["container_name"] == container {
            let message = record["message"].as_str().unwrap().to_owned();
            told.get_mut(record["stream"].as_str().unwrap()).unwrap().push(message);
        }
    }
    told
}

#[test]
fn an_engine_killed_and_started_again_costs_no_line_by_any_route_over_the_api() {
    let engine = Engine::with(&["--live-restore"]);
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = [ROTATE, POLL].map(|(source, way)| {
        let watch = Watch::start(&engine, &[&["--format", "json"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    let words = ["--count", "9000", "--rate", "1500", "--stream", "alternating"];
    for driver in ["json-file", "local"] {
        engine.run(driver, &["--log-driver", driver], &words);
    }
    watches.iter().for_each(|watch| watch.wait_for_count(1000));
    engine.kill();
    for watch in &watches {
        watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains("trying again")), PATIENCE);
    }
    engine.up();
    for ((source, _), watch) in [ROTATE, POLL].into_iter().zip(watches) {
        watch.wait_for_ends(2);
        let lines = watch.stop().lines();
        for driver in ["json-file", "local"] {
            let (ours, theirs) = (told_by_us(&lines, driver), told_by_docker(&engine, driver));
            for (stream, theirs) in &theirs {
                let first = ours[stream].iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
                let counts = (ours[stream].len(), theirs.len());
                assert!(first.is_none() && counts.0 == counts.1, "{driver} by {source}: {counts:?}, {first:?}");
                assert!(counts.1 > 4000, "{driver}: {counts:?}");
            }
        }
    }
}

#[test]
fn a_container_that_dies_between_two_reads_is_read_to_its_end() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "poll", "--poll-interval", "1h"]);
    let id = engine.run("web", &[], &["--count", "500", "--rate", "500", "--unfinished", "--resume"]);
    watch.wait_for_ends(1);
    watch.wait_for_count(500);
    engine.must(&["start", "web"]);
    watch.wait_for_ends(2);
    let lines = watch.stop().lines();
    Numbers::of_json(&lines).assert_whole("web", 1..=1000);
    // One when it starts and one when it has died, twice; none between, and none while it is dead.
    let reads = proxy.count(&format!("{id}/logs"));
    assert!((4..=6).contains(&reads), "{reads}: {:?}", proxy.requests());
}

#[test]
fn polled_from_now_on_a_container_is_asked_for_its_last_records_and_everything_that_comes_is_read() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let bursts = ["--count", "24000", "--burst", "8000", "--every", "4000", "--stream", "alternating", "--idle"];
    let id = engine.run("web", &["--log-driver", "local"], &bursts);
    eventually("the first burst was written", || {
        told_by_docker(&engine, "web").values().all(|lines| lines.len() == 4000)
    });
    let watch = Watch::at(&engine, &proxy.host(), &[&["watch", "--format", "json", "-n", "0"], POLL.1].concat());
    let small = format!("{id}/logs?follow=0&stdout=1&stderr=1&timestamps=1&since=");
    watch.wait_for_count(16_000);
    Numbers::of_json(&watch.lines()).assert_whole("web", 8001..=24_000);
    let (all, tails) = (proxy.count(&format!("{id}/logs")), proxy.count("&tail="));
    watch.stop();
    assert!(proxy.count(&small) > 10);
    // Each burst may be more than was asked for, and the first has no line before it to be joined to.
    assert!(tails > 10 && all - tails <= 2, "{all} requests, {tails} for the last records");
}

#[test]
fn a_container_whose_driver_keeps_nothing_is_told_once_and_not_asked_for_again() {
    let engine = Engine::start();
    for (source, way) in [STREAM, ROTATE, POLL] {
        let proxy = Proxy::start(&engine);
        let name = format!("{source}-mute");
        // By name: the listing may still have the one before as running.
        let words = [&["watch", "--format", "json", &name], way].concat();
        let watch = Watch::at(&engine, &proxy.host(), &words);
        watch.wait_until_up();
        let id = engine.run(&name, &["--log-driver", "none"], &["--count", "3", "--after", "1500", "--exit", "3"]);
        watch.wait_for_ends(1);
        let finished = watch.stop();
        assert_eq!(finished.stdout, b"");
        let told = format!("! {name}: cannot be followed: configured logging driver does not support reading");
        assert_eq!(finished.stderr.lines().filter(|line| *line == told).count(), 1, "{}", finished.stderr);
        assert!(!finished.stderr.contains('+'), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("- {name} (exit 3)")), "{}", finished.stderr);
        assert_eq!(proxy.count(&format!("{id}/logs")), 1, "{:?}", proxy.requests());
    }
}

/// The first silence that is looked into, and some time to see what comes of it.
const SILENCE: Duration = Duration::from_secs(45);

#[test]
fn a_stream_that_stalls_while_its_log_grows_is_noticed_and_costs_no_line() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    for name in ["idle", "paused"] {
        engine.run(name, &[], &["--count", "3", "--idle"]);
    }
    engine.must(&["pause", "paused"]);
    let watches = [STREAM.1, &["--source", "rotate", "--rotate-interval", "1h"]].map(|way| {
        let watch = Watch::at(&engine, &proxy.host(), &[&["watch", "--format", "json"], way].concat());
        watch.wait_for_count(6);
        watch
    });
    let id = engine.run("web", &[], &["--count", "9000", "--rate", "200", "--stream", "alternating"]);
    watches.iter().for_each(|watch| watch.wait_for_count(300));
    let stalled: Vec<String> =
        proxy.requests().into_iter().filter(|line| line.contains(&id) && line.contains("follow=1")).collect();
    // Those two, and not what is asked for later.
    stalled.iter().for_each(|line| proxy.on(line, Fault::Stall));
    proxy.forget();
    let before = watches.each_ref().map(|watch| watch.lines().len());
    assert!(before.iter().all(|lines| *lines < 2000), "{before:?} of 9006 before the stall");
    watches.iter().for_each(|watch| watch.wait_for(|lines| lines.len() > 6000, SILENCE));
    // Each found the last line again among the last 64, 1,024 or 16,384 records.
    let again = proxy.count(&format!("{id}/logs?follow=1"));
    assert!((2..=6).contains(&again), "{:?}", proxy.requests());
    // Whoever is silent is asked about once, and who cannot speak not at all.
    let looks = |name: &str| proxy.count(&format!("{}/logs?follow=0", engine.id(name)));
    assert_eq!((looks("idle"), looks("paused")), (2, 0), "{:?}", proxy.requests());
    for watch in watches {
        watch.wait_for_ends(1);
        let finished = watch.stop();
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=9000);
        assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    }
}

/// A log that a scripted engine keeps and serves as engines up to 23 do: `since` meets each record.
#[derive(Default)]
struct Log {
    records: Mutex<Vec<(i64, u8, String)>>,
    grown: Condvar,
}

impl Log {
    fn write(&self, time: i64, stream: u8, text: String) {
        self.records.lock().unwrap().push((time, stream, text));
        self.grown.notify_all();
    }

    /// Answers `GET /containers/ID/logs?…`, for ever if it is followed.
    fn serve(&self, request: &Request, answer: &mut Answer) {
        let value = |key: &str| {
            let query = request.path.split_once('?')?.1;
            query
                .split('&')
                .find_map(|pair| Some(pair.split_once('=')?).filter(|(name, _)| *name == key))
                .map(|(_, v)| v)
        };
        let since = value("since").map_or(i64::MIN, |since| {
            let (seconds, nanos) = since.split_once('.').unwrap();
            seconds.parse::<i64>().unwrap() * 1_000_000_000 + nanos.parse::<i64>().unwrap()
        });
        answer.begin("application/vnd.docker.raw-stream");
        let mut records = self.records.lock().unwrap();
        let tail = value("tail").map_or(usize::MAX, |tail| tail.parse().unwrap());
        let mut next = records.len().saturating_sub(tail);
        loop {
            for (time, stream, text) in &records[next..] {
                if *time >= since {
                    answer.frame(*stream, format!("{} {text}\n", written(*time)).as_bytes());
                }
            }
            next = records.len();
            if value("follow") != Some("1") {
                return;
            }
            // Until whoever asked has left, which the next write finds out.
            records = self.grown.wait_timeout(records, Duration::from_secs(300)).unwrap().0;
        }
    }
}

/// With all nine digits, as the engine writes it.
fn written(nanos: i64) -> String {
    format!("{:.9}", jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap())
}

/// An engine with one container, `web`, whose logs are as `logs` says.
fn scripted(logs: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Script {
    let id = "ab".repeat(32);
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
        "/containers/json" => {
            answer.json(200, &format!(r#"[{{"Id":"{id}","Names":["/web"],"Image":"i","State":"running"}}]"#));
        }
        "/events" => {
            answer.begin("application/json");
            answer.hold();
        }
        path if path.ends_with("/logs") => logs(request, answer),
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    })
}

fn watch_script(script: &Script, words: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_API_VERSION").env("DOCKER_CONFIG", "/nonexistent");
    command.args(["-H", &script.host(), "watch", "--format", "json"]).args(words);
    Watch::spawn(&mut command)
}

#[test]
fn a_clock_set_back_by_an_hour_costs_no_line_by_any_route() {
    const SECOND: i64 = 1_000_000_000;
    let start = 1_795_215_653 * SECOND;
    let log = Arc::new(Log::default());
    let script = scripted({
        let log = Arc::clone(&log);
        move |request: &Request, answer: &mut Answer| log.serve(request, answer)
    });
    let say = |number: i64, time: i64| {
        log.write(time, 1 + u8::from(number % 3 == 0), format!("line {number:09}"));
    };
    // Two hours of history, of which the last lines are wanted.
    (1..=200).for_each(|number| say(number, start + number * 36 * SECOND));
    let ways = [STREAM, ROTATE, POLL];
    let watches = ways.map(|(_, way)| watch_script(&script, &[&["-n", "20"], way].concat()));
    watches.iter().for_each(|watch| watch.wait_for_count(20));
    let now = start + 7200 * SECOND;
    (201..=300).for_each(|number| say(number, now + number * SECOND / 10));
    watches.iter().for_each(|watch| watch.wait_for_count(120));
    let now = now - 3600 * SECOND;
    for number in 301..=400 {
        say(number, now + number * SECOND / 2);
        // The clock runs on between lines; so that requests fall between them.
        thread::sleep(Duration::from_millis(5));
    }
    for ((source, _), watch) in ways.iter().zip(&watches) {
        let begun = Instant::now();
        watch.wait_for(|lines| lines.len() >= 220, SILENCE);
        eprintln!("{source}: {:?}", begun.elapsed());
    }
    // And once more, while it is read on.
    let now = now - 3600 * SECOND;
    (401..=500).for_each(|number| say(number, now + number * SECOND / 10));
    for watch in watches {
        watch.wait_for(|lines| lines.len() >= 320, SILENCE);
        let finished = watch.stop();
        Numbers::of_json(&finished.lines()).assert_whole("web", 181..=500);
        assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    }
}

#[test]
fn what_goes_wrong_with_a_log_is_told_once_and_gone_on_from() {
    /// An answer instead of the log, or behind its first lines.
    type Trouble = fn(&mut Answer);
    let refusal: Trouble = |answer| answer.json(500, r#"{"message":"broken"}"#);
    let conflict: Trouble = |answer| answer.json(409, r#"{"message":"dead or marked for removal"}"#);
    let failure: Trouble = |answer| answer.frame(3, b"Error grabbing logs: no such file\n");
    let garbage: Trouble = |answer| answer.chunk(b"\x01\0\0\x07garbage");
    let torn: Trouble = |answer| answer.chunk(b"\x01\0\0\0\0\0\0\x30half a fr");
    for (name, is_behind, trouble, times, notice) in [
        ("500", false, refusal, 6, "the engine answered 500: broken"),
        ("409", false, conflict, 3, ""),
        ("type 3", true, failure, 4, "the daemon failed to read the log: Error grabbing logs: no such file"),
        ("garbage", true, garbage, 4, "the log stream is malformed: no frame header where one should be"),
        ("torn", true, torn, 2, ""),
    ] {
        let log = Arc::new(Log::default());
        (1..=50).for_each(|number| log.write(number * 1_000_000, 1, format!("line {number:09}")));
        let asked = AtomicUsize::new(0);
        let script = scripted({
            let log = Arc::clone(&log);
            move |request: &Request, answer: &mut Answer| {
                if asked.fetch_add(1, Ordering::SeqCst) >= times {
                    return log.serve(request, answer);
                }
                if is_behind {
                    answer.begin("application/vnd.docker.raw-stream");
                    for line in 1..=20 {
                        answer.frame(1, format!("{} line {line:09}\n", written(line * 1_000_000)).as_bytes());
                    }
                }
                trouble(answer);
            }
        });
        let watch = watch_script(&script, &["--tail", "all", "--source", "stream"]);
        watch.wait_for_count(50);
        (51..=60).for_each(|number| log.write(number * 1_000_000, 1, format!("line {number:09}")));
        watch.wait_for_count(60);
        let finished = watch.stop();
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=60);
        let notices: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with('!')).collect();
        let expected = if notice.is_empty() { vec![] } else { vec![format!("! web: {notice}")] };
        assert_eq!(notices, expected, "{name}: {}", finished.stderr);
    }
}

#[test]
fn a_log_that_rotates_under_polls_is_read_whole() {
    let engine = Engine::start();
    let options = ["--log-opt", "max-size=100k", "--log-opt", "max-file=5"];
    let words = ["--count", "10000", "--rate", "1000", "--stream", "alternating"];
    let ways = [STREAM, ROTATE, POLL];
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let watches = ways.map(|(source, way)| {
        let watch = Watch::start(&engine, &[&["--format", "json"], way].concat());
        watch.wait_for_notice(|lines| lines.contains(&format!("+ beacon ({source})")), PATIENCE);
        watch
    });
    for driver in ["json-file", "local"] {
        engine.run(driver, &[&["--log-driver", driver], &options[..]].concat(), &words);
    }
    for ((source, _), watch) in ways.into_iter().zip(watches) {
        watch.wait_for_ends(2);
        let finished = watch.stop();
        let numbers = Numbers::of_json(&finished.lines());
        for driver in ["json-file", "local"] {
            let flaw = numbers.flaw(driver, 1..=10_000);
            eprintln!("{source}: {} lines of {driver}: {}", numbers.count(driver), flaw.as_deref().unwrap_or("whole"));
            assert!(source != "poll" || flaw.is_none(), "{flaw:?}");
        }
    }
}

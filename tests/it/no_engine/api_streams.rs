//! Reading a log over the API from a scripted engine: a clock that is set back, a stream that hangs,
//! and every way in which an answer fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::routes::{POLL, ROTATE, STREAM};
use crate::support::{Answer, Numbers, Request, Script, Watch};

/// The idle time after which a stream is examined, and some time to see the result.
const SILENCE: Duration = Duration::from_secs(45);

/// A log in a scripted engine that behaves like engines up to 23: `since` filters every record.
#[derive(Default)]
struct Log {
    records: Mutex<Vec<(i64, u8, String)>>,
    grown: Condvar,
    /// How often [`Log::stall`] was called.
    stalls: AtomicUsize,
}

impl Log {
    fn write(&self, time: i64, stream: u8, text: String) {
        self.records.lock().unwrap().push((time, stream, text));
        self.grown.notify_all();
    }

    /// Nothing more arrives on the streams that are open now.
    fn stall(&self) {
        self.stalls.fetch_add(1, Ordering::SeqCst);
        self.grown.notify_all();
    }

    /// Answers `GET /containers/ID/logs?…`; endlessly if it is followed.
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
        let stalls = self.stalls.load(Ordering::SeqCst);
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
            // Until the client has left, which the next write shows.
            records = self.grown.wait_timeout(records, Duration::from_secs(300)).unwrap().0;
            if self.stalls.load(Ordering::SeqCst) != stalls {
                drop(records);
                return answer.hold();
            }
        }
    }
}

/// With all nine digits, as the engine writes it.
fn written(nanos: i64) -> String {
    format!("{:.9}", jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap())
}

fn id(name: &str) -> String {
    format!("{:0<64}", name.bytes().map(|byte| format!("{byte:x}")).collect::<String>())
}

/// An engine with one running container, `web`, whose logs are served by `logs`.
fn scripted(logs: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Script {
    scripted_with([("web", "running")], logs)
}

/// An engine with containers of these names and states.
fn scripted_with<const N: usize>(
    containers: [(&str, &str); N],
    logs: impl Fn(&Request, &mut Answer) + Send + Sync + 'static,
) -> Script {
    let listed = containers
        .map(|(name, state)| format!(r#"{{"Id":"{}","Names":["/{name}"],"Image":"i","State":"{state}"}}"#, id(name)));
    let listed = format!("[{}]", listed.join(","));
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
        "/containers/json" => {
            answer.json(200, &listed);
        }
        "/events" => {
            answer.begin("application/json");
            answer.hold();
        }
        path if path.ends_with("/logs") => logs(request, answer),
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    })
}

fn watch_script(script: &Script, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_API_VERSION").env("DOCKER_CONFIG", "/nowhere");
    command.args(["-H", &script.host(), "watch", "--format", "json"]).args(args);
    Watch::spawn(&mut command)
}

/// On every API route, and also when the clock is set back twice.
#[test]
fn a_clock_set_back_costs_no_line() {
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
    // Two hours of history, of which the last lines are requested.
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
        // The clock advances between lines, so that requests fall between them.
        thread::sleep(Duration::from_millis(5));
    }
    for ((source, _), watch) in ways.iter().zip(&watches) {
        let begun = Instant::now();
        watch.wait_for(|lines| lines.len() >= 220, SILENCE);
        eprintln!("{source}: {:?}", begun.elapsed());
    }
    // Set back once more while reading continues.
    let now = now - 3600 * SECOND;
    (401..=500).for_each(|number| say(number, now + number * SECOND / 10));
    for watch in watches {
        watch.wait_for(|lines| lines.len() >= 320, SILENCE);
        let finished = watch.stop();
        Numbers::of_json(&finished.lines()).assert_whole("web", 181..=500);
        assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    }
}

/// A stream that hangs while its log grows is replaced after half a minute, and no line is lost. Meanwhile an idle
/// container costs one request, and a paused one none.
#[test]
fn a_stalled_stream_is_noticed() {
    let logs = ["web", "idle", "paused"].map(|name| (id(name), Arc::new(Log::default())));
    let web = Arc::clone(&logs[0].1);
    let say = |log: &Log, number: i64| log.write(number * 1_000_000, 1, format!("line {number:09}"));
    logs.iter().for_each(|(_, log)| (1..=3).for_each(|number| say(log, number)));
    let containers = [("web", "running"), ("idle", "running"), ("paused", "paused")];
    let script = scripted_with(containers, move |request: &Request, answer: &mut Answer| {
        let (_, log) = logs.iter().find(|(id, _)| request.path.contains(id)).unwrap();
        log.serve(request, answer);
    });
    let watches = [STREAM.1, &["--source", "rotate", "--rotate-interval", "1h"]].map(|way| {
        let watch = watch_script(&script, way);
        watch.wait_for_count(9);
        watch
    });
    (4..=100).for_each(|number| say(&web, number));
    watches.iter().for_each(|watch| watch.wait_for_count(106));
    web.stall();
    let before = script.requests().len();
    (101..=5000).for_each(|number| say(&web, number));
    watches.iter().for_each(|watch| watch.wait_for(|lines| lines.len() >= 5006, SILENCE));
    let requests = script.requests().split_off(before);
    let count = |name: &str, follow: u8| {
        let part = format!("{}/logs?follow={follow}", id(name));
        requests.iter().filter(|line| line.contains(&part)).count()
    };
    // Each found the last line again among the last 64, 1,024 or 16,384 records.
    assert!((2..=6).contains(&count("web", 1)), "{requests:?}");
    assert_eq!((count("idle", 0), count("paused", 0)), (2, 0), "{requests:?}");
    for watch in watches {
        let finished = watch.stop();
        Numbers::of_json(&finished.lines()).assert_whole("web", 1..=5000);
        assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    }
}

/// Every way in which a log fails is reported once, and reading goes on from there.
#[test]
fn a_failing_log_is_reported_once() {
    /// An answer that replaces the log, or follows its first lines.
    type Trouble = fn(&mut Answer);
    let refusal: Trouble = |answer| answer.json(500, r#"{"message":"broken"}"#);
    let conflict: Trouble = |answer| answer.json(409, r#"{"message":"dead or marked for removal"}"#);
    let failure: Trouble = |answer| answer.frame(3, b"Error grabbing logs: no such file\n");
    let garbage: Trouble = |answer| answer.chunk(b"\x01\0\0\x07garbage");
    let torn: Trouble = |answer| answer.chunk(b"\x01\0\0\0\0\0\0\x30half a fr");
    for (name, is_behind, trouble, times, notice) in [
        ("500", false, refusal, 6, "the Docker Engine answered 500: broken"),
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

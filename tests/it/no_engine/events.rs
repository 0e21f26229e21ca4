//! The event client with a scripted engine, whose clock, history and rate the tests control.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use logwatch::internals::model::Timestamp;

use crate::support::{Answer, PATIENCE, Request, Script, Watch, configured, eventually, long, process};

fn watch_at(host: &str, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nowhere");
    Watch::spawn(command.args(["-H", host]).args(args))
}

/// Events happen a second before the requested end, and the stream ends before it has delivered them.
#[test]
fn a_stream_that_ends_early_is_resumed() {
    let until = Timestamp(Timestamp::now().0 + 1_800_000_000);
    let streams = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&streams);
    let script = Script::start(move |request, answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"e","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
        "/events" => {
            answer.begin("application/json");
            let is_ours = request.path.contains(&format!("until={}", until.api()));
            let stream = counted.fetch_add(u64::from(is_ours), Ordering::SeqCst);
            let all = ["early", "late"];
            for (number, id) in all.iter().enumerate().take(if is_ours && stream == 0 { 1 } else { 2 }) {
                let time = until.0 - 1_000_000_000 + i64::try_from(number).unwrap();
                let event = format!(
                    r#"{{"Type":"volume","Action":"create","Actor":{{"ID":"{id}","Attributes":{{}}}},"timeNano":{time}}}"#
                );
                answer.chunk(format!("{event}\n").as_bytes());
            }
            if is_ours && stream > 0 {
                let left = until.0 - Timestamp::now().0;
                thread::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)));
            }
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    });
    let since = Timestamp(until.0 - 10_000_000_000).api();
    let args = ["events", "--since", &since, "--until", &until.api()];
    let finished = watch_at(&script.host(), &args).finish();
    let ids: Vec<String> = finished.lines().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!((finished.code, ids, finished.stderr.as_str()), (Some(0), vec!["early".into(), "late".into()], ""));
    assert!(Timestamp::now() >= until, "it ends at that time");
    assert!(streams.load(Ordering::SeqCst) > 1);
}

/// The requested events come at the very end of a stream, and nobody reads them before that has arrived.
#[test]
fn the_requested_count_suffices_however_it_ends() {
    for (count, code) in [("3", 0), ("4", 3)] {
        let (is_held, has_ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (held, ended) = (Arc::clone(&is_held), Arc::clone(&has_ended));
        let script = Script::start(move |request, answer| match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"e","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
            "/events" => {
                eventually("nobody reads", || held.load(Ordering::SeqCst));
                answer.begin("application/json");
                // More than a pipe holds.
                let (time, large) = (Timestamp::now().0, "x".repeat(200_000));
                for number in 0..3 {
                    let actor = format!(r#"{{"ID":"v{number}","Attributes":{{"large":"{large}"}}}}"#);
                    let time = time + number;
                    let event = format!(r#"{{"Type":"volume","Action":"create","Actor":{actor},"timeNano":{time}}}"#);
                    answer.chunk(format!("{event}\n").as_bytes());
                }
                ended.store(true, Ordering::SeqCst);
            }
            _ => answer.json(404, r#"{"message":"not in the script"}"#),
        });
        let watch = watch_at(&script.host(), &["events", "--no-reconnect", "--count", count]);
        watch.hold();
        is_held.store(true, Ordering::SeqCst);
        eventually("the stream has ended", || has_ended.load(Ordering::SeqCst));
        // It does not claim to have read up to there.
        thread::sleep(Duration::from_millis(300));
        watch.release();
        let finished = watch.finish();
        assert_eq!((finished.code, finished.lines().len()), (Some(code), 3), "{count}: {}", finished.stderr);
    }
}

/// Emits events at this rate for this long; measures how long the engine had to wait for us.
struct Busy {
    script: Script,
    slowest: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Busy {
    fn start(rate: u64, span: Duration) -> Self {
        let (slowest, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&slowest), Arc::clone(&sent));
        let script = Script::start(move |request, answer| busy(request, answer, rate, span, &counters));
        Self { script, slowest, sent }
    }
}

fn busy(
    request: &Request,
    answer: &mut Answer,
    rate: u64,
    span: Duration,
    counters: &(Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let path = request.path.split('?').next().unwrap();
    match path {
        "/_ping" => answer.json(200, "OK"),
        "/info" => {
            answer.json(200, r#"{"ID":"busy","ServerVersion":"20.10.24","DockerRootDir":"/nowhere","OSType":"linux"}"#)
        }
        "/containers/json" => answer.json(200, "[]"),
        "/events" => {
            answer.begin("application/json");
            let begun = Instant::now();
            for number in 0..rate * span.as_secs() {
                let due =
                    begun + Duration::from_secs(1) * u32::try_from(number).unwrap() / u32::try_from(rate).unwrap();
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let (id, time) = (number % 50, Timestamp::now().0);
                let action = ["kill", "update", "health_status: healthy", "pause", "unpause"][number as usize % 5];
                let event = format!(
                    r#"{{"status":"{action}","id":"{id:064}","from":"i","Type":"container","Action":"{action}","Actor":{{"ID":"{id:064}","Attributes":{{"image":"i","name":"c{id}","label":"{}"}}}},"scope":"local","time":{},"timeNano":{time}}}"#,
                    "x".repeat(500),
                    time / 1_000_000_000,
                );
                let begun = Instant::now();
                answer.chunk(format!("{event}\n").as_bytes());
                counters.0.fetch_max(u64::try_from(begun.elapsed().as_micros()).unwrap(), Ordering::SeqCst);
                counters.1.fetch_add(1, Ordering::SeqCst);
            }
            answer.hold();
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    }
}

/// Five hundred events a second neither slow the engine nor grow our memory.
#[test]
fn many_events_cost_little() {
    let span = Duration::from_secs(if long() { 60 } else { 6 });
    let busy = Busy::start(500, span);
    // The health checks request the same every 30 s.
    let watch = configured(&busy.script.host(), &[("LOGWATCH_DOCKER_POOL_HEALTH_CHECK_INTERVAL", "0")], &[]);
    let sent = || busy.sent.load(Ordering::SeqCst);
    eventually("a second of them was sent", || sent() > 500);
    let before = process::memory(watch.pid());
    let cpu = watch.cpu();
    let all = 500 * span.as_secs();
    let deadline = Instant::now() + span * 4;
    while sent() < all {
        assert!(Instant::now() < deadline, "{} of {all}", sent());
        thread::sleep(Duration::from_millis(50));
    }
    let grown = process::memory(watch.pid()).saturating_sub(before);
    let slowest = Duration::from_micros(busy.slowest.load(Ordering::SeqCst));
    eprintln!("{all} events: grown by {grown} bytes, the slowest write took {slowest:?}, CPU {:?}", watch.cpu() - cpu);
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    assert!(slowest < Duration::from_millis(500), "the engine waited {slowest:?}");
    let asked = |part: &str| busy.script.requests().iter().filter(|line| line.contains(part)).count();
    assert_eq!((asked("/events"), asked("/containers/json")), (1, 1), "nothing was made up for");
    let finished = watch.stop();
    // The script has no logs, and says so.
    let expected = |line: &str| {
        let is_about_one = line.starts_with("+ c") || line.starts_with("! c") && line.ends_with("could not be read");
        is_about_one || line.starts_with("no running container matches")
    };
    assert!(finished.stderr.lines().all(expected), "{}", finished.stderr);
    assert_eq!(finished.code, Some(0));
}

/// An engine whose clock and history the test controls: what it remembers, in order of creation.
#[derive(Default)]
struct Remembered {
    /// Time in nanoseconds and the ID of the object.
    events: Vec<(i64, String)>,
    /// The offset of its clock from ours.
    ahead: i64,
    /// How often all streams were cut.
    cuts: usize,
    streams: usize,
}

impl Remembered {
    fn now(&self) -> i64 {
        Timestamp::now().0 + self.ahead
    }

    /// The events the engine selects (moby `daemon/events/events.go`: loadBufferedEvents).
    fn backlog(&self, since: Option<i64>, until: Option<i64>) -> Vec<(i64, String)> {
        let Some(since) = since else { return Vec::new() };
        let mut picked: Vec<_> = self.events.iter().rev().take_while(|(time, _)| *time >= since).cloned().collect();
        picked.retain(|(time, _)| until.is_none_or(|until| *time <= until));
        picked.reverse();
        picked
    }
}

fn remembering(request: &Request, answer: &mut Answer, engine: &Mutex<Remembered>) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let moment = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name))?;
        let (seconds, nanos) = value.split_once('.').unwrap();
        Some(seconds.parse::<i64>().unwrap() * 1_000_000_000 + nanos.parse::<i64>().unwrap())
    };
    let line = |(time, id): &(i64, String)| {
        let actor = format!(r#"{{"ID":"{id}","Attributes":{{}}}}"#);
        format!(r#"{{"Type":"volume","Action":"create","Actor":{actor},"time":1,"timeNano":{time}}}"#) + "\n"
    };
    match path {
        "/_ping" => answer.json(200, "OK"),
        "/info" => {
            let now = Timestamp(engine.lock().unwrap().now());
            answer.json(200, &format!(r#"{{"ID":"e","SystemTime":"{now}"}}"#));
        }
        "/events" => {
            answer.begin("application/json");
            let mut state = engine.lock().unwrap();
            let until = moment("until=");
            let backlog = state.backlog(moment("since="), until);
            let (mut sent, cuts) = (state.events.len(), state.cuts);
            state.streams += usize::from(until.is_none());
            drop(state);
            answer.chunk(b"\n");
            backlog.iter().for_each(|event| answer.chunk(line(event).as_bytes()));
            while until.is_none() && engine.lock().unwrap().cuts == cuts {
                let new: Vec<_> = engine.lock().unwrap().events[sent..].to_vec();
                new.iter().for_each(|event| answer.chunk(line(event).as_bytes()));
                sent += new.len();
                thread::sleep(Duration::from_millis(2));
            }
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    }
}

/// Two events are in the history in another order than that of their times, and one of them was delivered before the
/// break. Then the clock is set back by an hour, so everything new is older than everything seen.
#[test]
fn unordered_history_hides_and_repeats_no_event() {
    let engine = Arc::new(Mutex::new(Remembered::default()));
    let script = Script::start({
        let engine = Arc::clone(&engine);
        move |request, answer| remembering(request, answer, &engine)
    });
    let make = |id: &str, earlier: i64| {
        let mut engine = engine.lock().unwrap();
        let time = engine.now() - earlier;
        engine.events.push((time, id.to_owned()));
    };
    let streams = || engine.lock().unwrap().streams;
    let cut = || engine.lock().unwrap().cuts += 1;
    make("before", 0);
    let watch = watch_at(&script.host(), &["events"]);
    eventually("it has subscribed", || streams() == 1);
    make("one", 10_000);
    make("three", 0);
    watch.wait_for_count(2);
    // In the history after the third event, and a little older.
    let third = engine.lock().unwrap().events.last().unwrap().0;
    cut();
    engine.lock().unwrap().events.push((third - 1000, "two".to_owned()));
    watch.wait_for_count(3);
    let back =
        |lines: &[String]| lines.last().is_some_and(|line| line == "the event stream is back: no event is missing");
    watch.wait_for_notice(back, PATIENCE);
    // From now on all of the history is delivered each time.
    engine.lock().unwrap().ahead = -3_600_000_000_000;
    cut();
    make("four", 0);
    make("five", 0);
    watch.wait_for_count(5);
    let reported =
        |lines: &[String]| lines.last().is_some_and(|line| line.ends_with("the engine's clock was set back"));
    watch.wait_for_notice(reported, PATIENCE);
    make("six", 0);
    watch.wait_for_count(6);
    cut();
    make("seven", 0);
    watch.wait_for_count(7);
    let finished = watch.stop();
    let ids: Vec<String> = finished.lines().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(ids, ["one", "three", "two", "four", "five", "six", "seven"]);
    assert_eq!(finished.stderr.matches("may be missing").count(), 1, "{}", finished.stderr);
}

//! Reads over the API of an engine that does not come back, or no longer serves a log: they end, and the loss is reported.
//! How long they are repeated is decided by the tables of `retry` and `outcome` in `src/commands/stream`.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Answer, Fault, Numbers, PATIENCE, Proxy, Request, Script, Watch, records};

fn id(name: &str) -> String {
    format!("{:0<64}", name.bytes().map(|byte| format!("{byte:x}")).collect::<String>())
}

/// The events of a scripted engine.
#[derive(Default)]
struct Events {
    sent: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Events {
    fn send(&self, action: &str, name: &str) {
        let time = logwatch::internals::model::Timestamp::now().0;
        let attributes = format!(r#"{{"name":"{name}","image":"i","exitCode":"137"}}"#);
        let actor = format!(r#"{{"ID":"{}","Attributes":{attributes}}}"#, id(name));
        let event = format!(r#"{{"Type":"container","Action":"{action}","Actor":{actor},"timeNano":{time}}}"#);
        self.sent.lock().unwrap().push(event + "\n");
        self.grown.notify_all();
    }

    fn serve(&self, answer: &mut Answer) {
        answer.begin("application/json");
        let (mut sent, mut next) = (self.sent.lock().unwrap(), 0);
        loop {
            sent[next..].iter().for_each(|event| answer.chunk(event.as_bytes()));
            next = sent.len();
            // Until the client has left, which the next write shows.
            sent = self.grown.wait_timeout(sent, Duration::from_secs(300)).unwrap().0;
        }
    }
}

/// An engine with these containers, the newest first. Each has written 2,000 lines; the one called `terminal` has a TTY.
fn engine(names: &[String], state: &'static str, events: &Arc<Events>) -> Script {
    let (names, events) = (names.to_vec(), Arc::clone(events));
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
        "/containers/json" => {
            let listed = names.iter().enumerate().map(|(number, name)| {
                let created = 1_795_215_653 - number;
                let id = id(name);
                format!(r#"{{"Id":"{id}","Names":["/{name}"],"Image":"i","State":"{state}","Created":{created}}}"#)
            });
            answer.json(200, &format!("[{}]", listed.collect::<Vec<_>>().join(",")));
        }
        "/events" if !request.path.contains("until=") => events.serve(answer),
        path if path.ends_with("/logs") => {
            answer.begin("application/vnd.docker.raw-stream");
            let is_terminal = path.contains(&id("terminal"));
            for line in 1..=2000 {
                let text = format!("2026-11-30T19:58:01.{line:09}Z line {line:09}");
                match is_terminal {
                    true => answer.chunk(format!("{text}\r\n").as_bytes()),
                    false => answer.frame(1, format!("{text}\n").as_bytes()),
                }
            }
            if request.path.contains("follow=1") {
                answer.hold();
            }
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    })
}

fn watch_at(proxy: &Proxy, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nowhere");
    Watch::spawn(command.args(["-H", &proxy.host(), "watch", "--format", "json", "--source", "stream"]).args(args))
}

/// The gaps among these records.
fn gaps(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["type"] == "gap").collect()
}

/// With `--no-follow` an engine that goes for good ends the run soon, and the loss is reported.
#[test]
fn an_engine_gone_for_good_ends_the_read() {
    let mut names = vec!["framed".to_owned(), "terminal".to_owned()];
    names.extend((0..40).rev().map(|number| format!("web-{number}")));
    let script = engine(&names, "exited", &Arc::default());
    let proxy = Proxy::before(&script);
    proxy.on("/logs", Fault::Stall);
    for name in ["terminal", "framed"] {
        // Less than half of its lines.
        proxy.on(&format!("{}/logs", id(name)), Fault::Cut(40_000));
    }
    let watch = watch_at(&proxy, &["--all", "--no-follow", "--tail", "all"]);
    watch.wait_for_count(1000);
    let gone = Instant::now();
    proxy.refuse();
    let finished = watch.finish();
    // Twenty seconds for those that are being read, and one for those that wait behind them.
    assert!(gone.elapsed() < Duration::from_secs(28), "{:?}", gone.elapsed());
    let (lines, records) = (finished.lines(), finished.records());
    let numbers = Numbers::of_json(&lines);
    for name in ["terminal", "framed"] {
        // There is no partial line among them.
        let count = numbers.count(name) as u64;
        assert!((100..2000).contains(&count), "{name}: {count}");
        numbers.assert_whole(name, 1..=count);
    }
    let gaps = gaps(&records);
    assert!(gaps.len() == 42 && gaps.iter().all(|gap| gap["reason"] == "unreadable"), "{}", finished.stderr);
    let behind = gaps.iter().filter(|gap| gap["after_cursor"].is_string()).count();
    assert_eq!(behind, 2, "{gaps:?}");
    for name in ["terminal", "framed", "web-39"] {
        assert!(finished.stderr.contains(&format!("! {name}: ")), "{}", finished.stderr);
    }
    let reported = finished.stderr.lines().find(|line| line.starts_with("error: not read to the end: "));
    assert!(reported.is_some_and(|reported| reported.ends_with(" and 39 more")), "{}", finished.stderr);
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
}

/// The rest of a removed container that cannot be read is reported as a gap.
#[test]
fn an_unreadable_rest_is_a_gap() {
    let events = Arc::new(Events::default());
    let script = engine(&["web".to_owned()], "running", &events);
    let proxy = Proxy::before(&script);
    let watch = watch_at(&proxy, &["--tail", "all"]);
    watch.wait_for_count(2000);
    proxy.wait_for("/logs?follow=1", PATIENCE);
    proxy.on("/logs", Fault::Hangup);
    proxy.forget();
    proxy.cut_where("/logs");
    events.send("die", "web");
    events.send("destroy", "web");
    watch.wait_for(|lines| !gaps(&records(lines)).is_empty(), PATIENCE);
    // It was requested more than once after the break.
    assert!(proxy.count("/logs") > 4, "{:?}", proxy.requests());
    let finished = watch.stop();
    Numbers::of_json(&finished.lines()).assert_whole("web", 1..=2000);
    let records = finished.records();
    let gaps = gaps(&records);
    assert!(gaps.len() == 1 && gaps[0]["reason"] == "unreadable", "{gaps:?}");
    assert!(finished.stderr.contains("! web: lost the connection to "), "{}", finished.stderr);
}

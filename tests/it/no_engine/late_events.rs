//! Engines that begin the answer to a request for events only with the first event, as Podman and some proxies do.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use crate::support::{Answer, Numbers, PATIENCE, Request, Script, Watch, configured, eventually, get, place};
use logwatch::internals::model::Timestamp;

/// The state of the scripted engine.
#[derive(Default)]
struct Stage {
    /// Names of containers; each has written ten lines.
    containers: Mutex<Vec<&'static str>>,
    /// The number of requests for events so far, and the current step.
    events: AtomicUsize,
    step: Mutex<usize>,
    turned: Condvar,
}

/// The steps after the first one, in which the engine sends nothing.
const BEGUN: usize = 1;
const TOLD: usize = 2;
const HUNG_UP: usize = 3;

impl Stage {
    fn with(containers: &[&'static str]) -> Arc<Stage> {
        let stage = Stage::default();
        stage.containers.lock().unwrap().extend(containers);
        Arc::new(stage)
    }

    fn turn(&self, step: usize) {
        *self.step.lock().unwrap() = step;
        self.turned.notify_all();
    }

    fn wait(&self, steps: &[usize]) -> usize {
        let step = self.turned.wait_while(self.step.lock().unwrap(), |step| !steps.contains(step)).unwrap();
        *step
    }

    fn play(stage: &Arc<Stage>) -> Script {
        let stage = Arc::clone(stage);
        Script::start(move |request: &Request, answer: &mut Answer| stage.answer(request, answer))
    }

    fn answer(&self, request: &Request, answer: &mut Answer) {
        match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
            "/containers/json" => {
                let containers = self.containers.lock().unwrap().clone();
                let listed = containers.iter().map(|name| {
                    format!(r#"{{"Id":"{}","Names":["/{name}"],"Image":"i","State":"running"}}"#, id(name))
                });
                answer.json(200, &format!("[{}]", listed.collect::<Vec<_>>().join(",")));
            }
            // Past events: none, and this answer begins at once.
            "/events" if request.path.contains("until=") => answer.json(200, ""),
            "/events" => {
                self.events.fetch_add(1, Ordering::SeqCst);
                if self.wait(&[BEGUN, TOLD, HUNG_UP]) == HUNG_UP {
                    return;
                }
                answer.begin("application/json");
                self.wait(&[TOLD]);
                let event = r#"{"Type":"container","Action":"start","Actor":{"ID":"ID","Attributes":{"name":"third"}},"scope":"local","time":1796068683,"timeNano":1796068683000000000}"#;
                answer
                    .chunk(format!("{}\n", event.replace("ID\":\"ID", &format!("ID\":\"{}", id("third")))).as_bytes());
                answer.hold();
            }
            path if path.ends_with("/logs") => {
                answer.begin("application/vnd.docker.raw-stream");
                for line in 1..=10 {
                    answer.frame(1, format!("2026-11-30T19:58:{line:02}.000000000Z line {line:09}\n").as_bytes());
                }
                if request.path.contains("follow=1") {
                    answer.hold();
                }
            }
            path if path.ends_with("/json") => {
                let id = path.split('/').nth(2).unwrap();
                answer.json(200, &format!(r#"{{"Id":"{id}","Name":"/x","State":{{"Status":"running","Running":true}},"HostConfig":{{"LogConfig":{{"Type":"json-file"}}}}}}"#));
            }
            _ => answer.json(404, r#"{"message":"not in the script"}"#),
        }
    }
}

fn id(name: &str) -> String {
    format!("{:0<64}", name.bytes().map(|byte| format!("{byte:x}")).collect::<String>())
}

/// With a time limit for answers that is shorter than the delay of the beginning.
fn logwatch(script: &Script, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_API_VERSION").env("DOCKER_CONFIG", "/nowhere");
    command.env("LOGWATCH_DOCKER_POOL_REQUEST_TIMEOUT", "3s");
    Watch::spawn(command.args(["-H", &script.host()]).args(args))
}

/// Containers are listed and followed meanwhile, and none is missed that was there before the beginning.
#[test]
fn a_subscription_that_begins_late_loses_no_container() {
    let stage = Stage::with(&["first"]);
    let script = Stage::play(&stage);
    let watch = logwatch(&script, &["watch", "--format", "json", "-n", "all"]);
    watch.wait_for_count(10);
    // It lists once more in case the engine has silently begun to deliver events.
    let listings = || script.requests().iter().filter(|request| request.contains("/containers/json?")).count();
    let first = listings();
    stage.containers.lock().unwrap().push("second");
    watch.wait_for_count(20);
    assert!(listings() > first && stage.events.load(Ordering::SeqCst) == 1, "{:?}", script.requests());
    // And again when the answer begins.
    stage.containers.lock().unwrap().push("third");
    stage.turn(BEGUN);
    watch.wait_for_count(30);
    stage.turn(TOLD);
    let finished = watch.stop();
    for name in ["first", "second", "third"] {
        Numbers::of_json(&finished.lines()).assert_whole(name, 1..=10);
    }
    assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
}

/// Commands that read only what exists need no events.
#[test]
fn nothing_that_ends_by_itself_asks_for_events() {
    for args in [&["watch", "--no-follow", "--format", "json"][..], &["watch", "--dry-run"]] {
        let stage = Stage::with(&["first"]);
        let script = Stage::play(&stage);
        let finished = logwatch(&script, args).finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(!script.requests().iter().any(|request| request.contains("/events")), "{:?}", script.requests());
    }
}

/// `events` waits for the first event as long as it takes, and notices when the engine hangs up meanwhile.
#[test]
fn events_wait_for_a_late_beginning() {
    let stage = Stage::with(&["first"]);
    let script = Stage::play(&stage);
    // Twice as long as an answer may take.
    let finished = logwatch(&script, &["events", "--timeout", "6s"]).finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    // It has listed containers, so it did not wait for the beginning.
    let watch = logwatch(&script, &["watch", "--format", "json", "-n", "all"]);
    watch.wait_for_count(10);
    stage.turn(HUNG_UP);
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains("trying again")), PATIENCE);
    stage.turn(TOLD);
    stage.containers.lock().unwrap().push("third");
    watch.wait_for_count(20);
    let events = logwatch(&script, &["events"]);
    events.wait_for(|lines| lines.iter().any(|line| line.contains("container start")), PATIENCE);
    events.stop();

    let stage = Stage::with(&["first"]);
    let script = Stage::play(&stage);
    let events = logwatch(&script, &["events", "--no-reconnect"]);
    eventually("events are asked for", || stage.events.load(Ordering::SeqCst) == 1);
    stage.turn(HUNG_UP);
    let finished = events.finish();
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
}

/// More events at once than fit into the queue, none of which can be merged; then a listing shows one container.
#[test]
fn dropped_events_are_counted() {
    const ALL: u64 = 5000;
    let listings = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&listings);
    let script = Script::start(move |request, answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => {
            answer.json(200, r#"{"ID":"busy","ServerVersion":"20.10.24","DockerRootDir":"/nowhere","OSType":"linux"}"#)
        }
        "/containers/json" if counted.fetch_add(1, Ordering::SeqCst) == 0 => answer.json(200, "[]"),
        "/containers/json" => {
            let id = format!("{:064}", ALL + 1);
            answer.json(
                200,
                &format!(r#"[{{"Id":"{id}","Names":["/found"],"Image":"i","State":"running","Labels":{{}}}}]"#),
            );
        }
        "/events" => {
            answer.begin("application/json");
            eventually("it has listed", || counted.load(Ordering::SeqCst) > 0);
            let time = Timestamp::now().0;
            let event = |id: u64| {
                format!(
                    r#"{{"Type":"container","Action":"create","Actor":{{"ID":"{id:064}","Attributes":{{"name":"c"}}}},"timeNano":{}}}"#,
                    time + i64::try_from(id).unwrap(),
                )
            };
            answer.chunk((0..ALL).map(|id| event(id) + "\n").collect::<String>().as_bytes());
            answer.hold();
        }
        _ => answer.json(404, r#"{"message":"not in the script"}"#),
    });
    let watch = configured(&script.host(), &[("LOGWATCH_EVENTS_QUEUE_SIZE", "5")], &["--listen", "127.0.0.1:0"]);
    eventually("it has listed again", || listings.load(Ordering::SeqCst) > 1);
    eventually("it asks for the log of what is listed", || {
        script.requests().iter().any(|line| line.contains(&format!("{:064}/logs", ALL + 1)))
    });
    let (status, health) = get(&place(&watch), "/api/v1/health/events");
    let health: Value = serde_json::from_str(&health).unwrap();
    let [processed, dropped] = ["processed_total", "dropped_total"].map(|name| health[name].as_u64().unwrap());
    assert_eq!((status, processed + dropped), (200, ALL), "{health}");
    assert!((1..ALL).contains(&dropped), "{health}");
}

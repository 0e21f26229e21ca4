//! `reconcile` and the inventory of `watch` with a scripted engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Request, Script, Signal, Watch, eventually, rows};
use logwatch::internals::model::Timestamp;

/// Another engine starts at the same endpoint, and sends an event of a container before it is asked for its ID.
#[test]
fn a_second_engine_gets_rows_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.db");
    let (is_other, streams) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let other = Arc::clone(&is_other);
    let id = format!("{:064x}", 7);
    let listed = json!([{"Id": id, "Names": ["/new"], "Image": "img", "State": "created", "Labels": {}}]).to_string();
    let engine = Script::start(move |request: &Request, answer: &mut Answer| {
        let is_other = other.load(Ordering::SeqCst);
        match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/info" => {
                let id = if is_other { "SECOND" } else { "FIRST" };
                answer.json(
                    200,
                    &json!({"ID": id, "ServerVersion": "20.10.24", "DockerRootDir": "/nowhere"}).to_string(),
                );
            }
            "/containers/json" if is_other => {
                // Long after the event was stored.
                std::thread::sleep(Duration::from_secs(1));
                answer.json(200, &listed);
            }
            "/containers/json" => answer.json(200, "[]"),
            "/volumes" => answer.json(200, r#"{"Volumes":[]}"#),
            "/events" => {
                answer.begin("application/json");
                if request.path.contains("until=") {
                    return;
                }
                if streams.fetch_add(1, Ordering::SeqCst) > 0 {
                    let now = Timestamp::now().0;
                    let made = json!({"Type": "container", "Action": "create", "timeNano": now,
                        "Actor": {"ID": id, "Attributes": {"name": "new", "image": "img"}}});
                    answer.chunk(format!("{made}\n").as_bytes());
                    answer.hold();
                }
                eventually("another one comes", || other.load(Ordering::SeqCst));
            }
            _ => answer.json(404, r#"{"message":"page not found"}"#),
        }
    });
    let mut command = Watch::command();
    command.env("HOME", dir.path()).env_remove("DOCKER_HOST").args(["-H", &engine.host(), "watch"]);
    let watch = Watch::spawn(command.args(["--state", state.to_str().unwrap()]));
    watch.wait_until_up();
    eventually("the first was compared", || rows(&state, "SELECT engine_id FROM reconciliations") == ["FIRST"]);
    is_other.store(true, Ordering::SeqCst);
    eventually("the second was", || rows(&state, "SELECT engine_id FROM reconciliations").len() == 2);
    assert_eq!(rows(&state, "SELECT engine_id || ' ' || name FROM containers"), ["SECOND new"]);
    assert_eq!(watch.stop().code, Some(0));
}

/// A reconciliation that is interrupted while the engine answers records nothing, and ends with 0.
#[test]
fn a_stop_before_writing_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.db");
    let engine = Script::start(|request: &Request, answer: &mut Answer| match request.path.as_str() {
        path if path.ends_with("/_ping") => answer.json(200, "OK"),
        path if path.ends_with("/info") => answer.json(200, r#"{"ID":"SLOW","ServerVersion":"20.10.24"}"#),
        _ => answer.hold(),
    });
    for signal in [Signal::INT, Signal::TERM] {
        let before = engine.requests().len();
        let mut command = Watch::command();
        command.env("HOME", dir.path()).env_remove("DOCKER_HOST").args(["-H", &engine.host(), "reconcile"]);
        let reconcile = Watch::spawn(command.args(["--state", state.to_str().unwrap()]));
        eventually("it has asked", || engine.requests()[before..].iter().any(|request| request.contains("/events")));
        reconcile.signal(signal);
        let finished = reconcile.finish();
        assert_eq!((finished.code, finished.stdout.len(), finished.stderr.as_str()), (Some(0), 0, ""), "{signal:?}");
    }
    assert_eq!(rows(&state, "SELECT source FROM reconciliations"), Vec::<String>::new());
}

/// A watch with a state sends no request while nothing happens.
#[test]
fn at_rest_the_inventory_asks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.db");
    let engine = empty();
    let mut command = Watch::command();
    command.env("HOME", dir.path()).env_remove("DOCKER_HOST").args(["-H", &engine.host(), "watch"]);
    let watch = Watch::spawn(command.args(["--state", state.to_str().unwrap()]));
    watch.wait_until_up();
    eventually("everything was compared", || rows(&state, "SELECT source FROM reconciliations").len() == 1);
    let asked = engine.requests();
    let volumes = asked.iter().filter(|request| request.ends_with("/volumes")).count();
    assert_eq!(volumes, 1, "{asked:?}");
    let events = asked.iter().find(|request| request.contains("/events")).unwrap();
    assert!(events.contains("volume") && events.contains("unmount"), "{events}");
    // A request that should not be sent would be sent within two rounds.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(engine.requests(), asked);
    assert_eq!(watch.stop().code, Some(0));
}

/// A container whose death event came is listed again until the listing shows it as dead.
#[test]
fn a_death_is_not_overwritten_by_listings() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.db");
    let id = format!("{:064x}", 7);
    let (listings, container) = (AtomicUsize::new(0), id.clone());
    let engine =
        Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"SLOW","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
            "/containers/json" => {
                let is_first = listings.fetch_add(1, Ordering::SeqCst) == 0;
                let state = if is_first { "running" } else { "exited" };
                let listed =
                    json!([{"Id": container, "Names": ["/web"], "Image": "img", "State": state, "Labels": {}}]);
                answer.json(200, &listed.to_string());
            }
            "/volumes" => answer.json(200, r#"{"Volumes":[]}"#),
            "/events" => {
                let then = Timestamp::now().0 - 100_000_000;
                let died = json!({"Type": "container", "Action": "die", "Actor": {"ID": container}, "timeNano": then});
                answer.begin("application/json");
                answer.chunk(format!("{died}\n").as_bytes());
            }
            _ => answer.json(404, r#"{"message":"page not found"}"#),
        });
    let mut command = Watch::command();
    command.env("HOME", dir.path()).env_remove("DOCKER_HOST").args(["-H", &engine.host(), "reconcile"]);
    let finished = Watch::spawn(command.args(["--state", state.to_str().unwrap()])).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(rows(&state, "SELECT container_id || ' ' || state FROM containers"), [format!("{id} exited")]);
}

/// An engine without containers on which nothing happens.
fn empty() -> Script {
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"EMPTY","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
        "/containers/json" => answer.json(200, "[]"),
        "/volumes" => answer.json(200, r#"{"Volumes":[]}"#),
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

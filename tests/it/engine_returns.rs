//! An engine that returns after a long absence is noticed, however long the wait before the next attempt is.

use std::net::TcpListener;

use crate::support::{Engine, PATIENCE, Watch, eventually};

/// With backoff delays that are far longer than the test.
fn patient_watch(engine: &Engine, host: &str, args: &[&str]) -> Watch {
    let mut command = Watch::command();
    engine.configure(&mut command);
    command.env("LOGWATCH_EVENTS_BACKOFF_MIN_DURATION", "24h").env("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "24h");
    Watch::spawn(command.env_remove("DOCKER_HOST").args(["-H", host]).args(args))
}

/// How many of these lines belong to a container.
fn count(lines: &[String], name: &str) -> usize {
    let of = format!("\"container_name\":\"{name}\"");
    lines.iter().filter(|line| line.contains(&of)).count()
}

/// Over the socket, whose return inotify shows, and over TCP, where nothing does.
#[test]
fn a_returning_engine_ends_the_longest_wait() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = format!("tcp://127.0.0.1:{port}");
    let engine = Engine::with(&["--live-restore", &format!("--host={tcp}")]);
    let own = ["watch", "--format", "json", "--source", "stream"];
    let hosts = [engine.host(), tcp];
    let watches = hosts.each_ref().map(|host| patient_watch(&engine, host, &own));
    let events = patient_watch(&engine, &engine.host(), &["events", "--filter", "type=container"]);
    engine.run("web", &[], &["--forever", "--rate", "50"]);
    for watch in &watches {
        watch.wait_for(|lines| lines.len() > 20, PATIENCE);
    }
    events.wait_for(|lines| lines.iter().any(|line| line.contains("container start")), PATIENCE);
    for round in 1..=2 {
        engine.kill();
        for watch in watches.iter().chain([&events]) {
            watch.wait_for_notice(
                |lines| lines.iter().filter(|line| line.contains("trying again")).count() >= round,
                PATIENCE,
            );
        }
        let before = watches.each_ref().map(|watch| count(&watch.lines(), "web"));
        engine.up();
        // The log returns after its own backoff, new containers after that of the events.
        let name = format!("later-{round}");
        engine.run(&name, &[], &["--count", "10"]);
        for (watch, before) in watches.iter().zip(before) {
            watch.wait_for(|lines| count(lines, "web") > before && count(lines, &name) == 10, PATIENCE);
        }
        let started = format!("name={name}");
        events.wait_for(|lines| lines.iter().any(|line| line.contains("start") && line.contains(&started)), PATIENCE);
        // The listing that ends the outage comes last; a loss before it is not reported a second time.
        eventually("the engine is said to be back", || {
            watches.iter().all(|watch| watch.notices().iter().filter(|line| line.contains("is back")).count() == round)
        });
    }
}

//! The connection pool with a private engine: one that is stopped and returns, and logs and events that share its
//! streams. `no_engine::pool` has what needs no engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{connect, load, until};
use crate::support::{Engine, Numbers, Proxy, Watch, eventually};
use logwatch::internals::config;
use logwatch::internals::docker::{BreakerState, Snapshot};
use logwatch::internals::model::Status;

const SECOND: Duration = Duration::from_secs(1);

/// While the engine is down the number of requests is bounded; once it is back, calls are served at once.
#[tokio::test]
async fn a_stopped_engine_is_asked_rarely() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let docker = connect(&proxy, &config::DockerConfig::default()).await;
    let (goes_on, caller) = (Arc::new(AtomicBool::new(true)), docker.clone());
    let calls = tokio::spawn({
        let goes_on = goes_on.clone();
        async move { load(&caller, 8, move |_| goes_on.load(Ordering::Relaxed)).await }
    });
    until(&docker, "it has grown", |snapshot| snapshot.size == 8).await;
    let engine = tokio::task::spawn_blocking(move || {
        engine.stop();
        engine
    });
    let engine = engine.await.unwrap();
    let gone = Instant::now();
    proxy.forget();
    let is_gone = |snapshot: &Snapshot| snapshot.clients.iter().all(|client| client.breaker == BreakerState::Open);
    until(&docker, "all breakers are open", is_gone).await;
    assert_eq!(docker.pool().status(), Status::Unhealthy);
    tokio::time::sleep_until((gone + 5 * SECOND).into()).await;
    let attempts = proxy.connections();
    // One from each caller, and then on average one every half second, with shorter delays at first.
    assert!((8..=50).contains(&attempts), "{attempts} attempts");
    let engine = tokio::task::spawn_blocking(move || {
        engine.up();
        engine
    });
    let engine = engine.await.unwrap();
    let back = Instant::now();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((docker.pool().healthy, docker.pool().size), (8, 8), "{:?}", docker.pool());
    tokio::time::sleep(SECOND).await;
    goes_on.store(false, Ordering::Relaxed);
    let calls = calls.await.unwrap();
    let failed: Vec<_> = calls.iter().filter_map(|(.., error)| error.as_ref()).collect();
    assert_eq!(failed, [""; 0], "all had time enough to wait");
    let first = calls.iter().map(|(over, ..)| *over).filter(|over| *over > back).min().unwrap();
    let served = calls.iter().filter(|(over, ..)| *over > back + 2 * SECOND).count();
    eprintln!("{attempts} attempts in 5 s; the first answer {:?} after, {served} in the third second", first - back);
    assert!(first - back < 2 * SECOND);
    // All that the rate limit allows.
    assert!(served >= 80, "{served}");
    drop(engine);
}

/// A watch of more logs than there are stream permits reads what it can, and the others when one ends.
#[test]
fn logs_beyond_the_stream_limit_wait() {
    let engine = Engine::start();
    let names = ["one", "two", "three", "four"];
    for name in names {
        engine.run(name, &[], &["--count", "20", "--idle"]);
    }
    let proxy = Proxy::start(&engine);
    let mut command = Watch::command();
    engine.configure(&mut command);
    // One for events, two for logs.
    command.env_remove("DOCKER_HOST").env("LOGWATCH_DOCKER_POOL_MAX_CONCURRENT_STREAMS", "3");
    command.args(["-H", &proxy.host(), "watch", "--source", "stream", "-n", "all", "--format", "json"]);
    let watch = Watch::spawn(&mut command);
    let read =
        || names.into_iter().filter(|name| Numbers::of_json(&watch.lines()).count(name) == 20).collect::<Vec<_>>();
    eventually("two were read", || read().len() >= 2);
    // Waiting streams retry now and then, without a request to the engine.
    std::thread::sleep(2 * SECOND);
    assert_eq!((read().len(), proxy.count("/logs?")), (2, 2), "{:?}", proxy.requests());
    for ended in read() {
        engine.must(&["kill", ended]);
    }
    eventually("the others were read", || read().len() == 4);
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    names.iter().for_each(|name| numbers.assert_whole(name, 1..=20));
    assert_eq!(finished.stderr.matches("max_concurrent_streams").count(), 1, "{}", finished.stderr);
}

/// Events return after a break though logs have all other permits.
#[test]
fn events_have_a_stream_of_their_own() {
    for (places, source) in [("2", "stream"), ("1", "auto")] {
        let engine = Engine::start();
        let proxy = Proxy::start(&engine);
        engine.run("beacon", &[], &["--count", "20", "--idle"]);
        let mut command = Watch::command();
        engine.configure(&mut command);
        command.env_remove("DOCKER_HOST").env("LOGWATCH_DOCKER_POOL_MAX_CONCURRENT_STREAMS", places);
        let args = ["watch", "--source", source, "-n", "all", "--format", "json", "--lifecycle"];
        let watch = Watch::spawn(command.args(["-H", &proxy.host()]).args(args));
        let read = |name: &str| Numbers::of_json(&watch.lines()).count(name) == 20;
        eventually("the first was read", || read("beacon"));
        assert!(proxy.cut_where("/events") > 0, "{:?}", proxy.requests());
        engine.run("late", &[], &["--count", "20", "--idle"]);
        let is_start = |line: &String| line.contains("\"lifecycle\"") && line.contains("\"action\":\"start\"");
        eventually("the start is reported", || {
            watch.lines().iter().any(|line| is_start(line) && line.contains("late"))
        });
        engine.must(&["kill", "beacon"]);
        eventually("the second was read", || read("late"));
        watch.stop();
    }
}

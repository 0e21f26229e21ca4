//! Two watches of the same containers, one that reads files and one that reads API streams.

use super::{Engine, Finished, PATIENCE, Proxy, Watch, eventually, messages};

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

/// A route's name and the words for it.
pub type Way = (&'static str, &'static [&'static str]);

pub const STREAM: Way = ("stream", &["--source", "stream"]);

pub const ROTATE: Way = ("rotate", &["--source", "rotate", "--rotate-interval", "300ms"]);

pub const POLL: Way = ("poll", &["--source", "poll", "--poll-interval", "200ms"]);

//! Two watches of the same containers, one that reads files and one that reads API streams.

use super::{Engine, Finished, PATIENCE, Proxy, Watch, eventually, messages};

/// The `--source` of two watches, and the `source` that their records have: promises are checked for files and for the
/// API.
pub const ROUTES: [(&str, &str); 2] = [("auto", "file"), ("stream", "stream")];

/// The log drivers that both routes can read.
pub const DRIVERS: [&str; 2] = ["json-file", "local"];

/// Two watches of the same containers, one for each of [`ROUTES`].
#[track_caller]
pub fn by_each_route(engine: &Engine, hosts: [&str; 2]) -> [Watch; 2] {
    let args = ROUTES.map(|(source, _)| ["--source", source]);
    Watch::ready_each(engine, [(hosts[0], &args[0]), (hosts[1], &args[1])])
}

/// The same, each through its own proxy.
#[track_caller]
pub fn by_each_route_through(engine: &Engine, proxies: &[Proxy; 2]) -> [Watch; 2] {
    let hosts = proxies.each_ref().map(Proxy::host);
    by_each_route(engine, [&hosts[0], &hosts[1]])
}

/// Stops both. Fails if a line came by another route than that of its watch.
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

/// How many lines of a container came so far.
pub fn count(watch: &Watch, container: &str) -> usize {
    let name = format!("\"container_name\":\"{container}\"");
    watch.count_lines(|line| line.contains(&name))
}

/// Waits until more lines of each of these containers have come.
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

/// Fails unless the lines of a container are those that the engine has. A killed engine loses lines that it had read
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
    let reported = format!("{container}: ours {}, theirs {}, first other at {at}", ours.len(), theirs.len());
    assert!(ours == theirs, "{reported}: {:?} for {:?}", ours.get(at), theirs.get(at));
}

/// A route over the API, and the arguments that choose it.
pub type Way = (&'static str, &'static [&'static str]);

pub const STREAM: Way = ("stream", &["--source", "stream"]);

pub const ROTATE: Way = ("rotate", &["--source", "rotate", "--rotate-interval", "300ms"]);

pub const POLL: Way = ("poll", &["--source", "poll", "--poll-interval", "200ms"]);

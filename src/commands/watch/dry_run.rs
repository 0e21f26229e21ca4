//! `watch --dry-run`: which containers match, by which route each would be read, and which are configured in a way that
//! loses lines.

use super::feed::{Feed, News};
use super::options::WatchOptions;
use super::start::{Daemon, feed_options, resolve_names};
use crate::commands::route::{Choice, Routes};
use crate::commands::{Error, creation_order, write_on_thread};
use crate::docker::{self, Details, Endpoint};
use crate::metrics::Metrics;
use crate::model::container::Container;
use crate::model::line_id::Route;
use crate::model::stop::Stop;
use crate::output::{self, OutputFormat, PlannedContainer};
use std::io;

/// A busy container fills a `max-size` below this within seconds.
const SMALL: u64 = 10_000_000;

pub(super) async fn run(endpoint: Endpoint, options: WatchOptions, stop: &Stop) -> Result<(), Error> {
    let is_json = options.output.format == OutputFormat::Json;
    let planned = tokio::select! {
        planned = plan(endpoint, options) => planned?,
        () = stop.cancelled() => return Ok(()),
    };
    write_on_thread(stop, move || output::plan(&planned, is_json)).await
}

async fn plan(endpoint: Endpoint, mut options: WatchOptions) -> Result<Vec<PlannedContainer>, Error> {
    let metrics = Metrics::new().map_err(io::Error::other)?;
    let daemon = Daemon::connect(endpoint, &options, metrics.pool).await?;
    creation_order::resolve(&daemon.docker, &mut options.selector).await?;
    let feed_options = feed_options(&options, metrics.events, false);
    let (_, listing) = Feed::open(daemon.docker.clone(), feed_options, daemon.engine.time).await?;
    let News::Listing(containers, _, passing) = listing else { return Ok(Vec::new()) };
    resolve_names(&containers, &mut options)?;
    let is_wanted = |container: &Container| {
        let passes = passing.as_ref().is_none_or(|passing| passing.contains(&container.id));
        let has_lines = container.is_up() || options.wants_stopped(container);
        options.selector.matches(container) && passes && has_lines
    };
    describe(&daemon, containers.into_iter().filter(is_wanted)).await
}

async fn describe(
    daemon: &Daemon,
    containers: impl Iterator<Item = Container>,
) -> Result<Vec<PlannedContainer>, Error> {
    let (mut planned, mut refused) = (Vec::new(), None);
    for container in containers {
        planned.push(match daemon.docker.inspect(&container.id).await {
            Ok(details) => inspected(container, details, &daemon.routes),
            Err(error) if error.is_refusal() => {
                refused = Some(error);
                uninspected(container, &daemon.routes)
            }
            // It was removed since it was listed.
            Err(docker::Error::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        });
    }
    if let Some(error) = refused {
        tracing::warn!(%error, "cannot inspect containers: their logging drivers, and whether these lose lines, are unknown");
    }
    Ok(planned)
}

/// The plan for a container whose logging driver is not known.
fn uninspected(container: Container, routes: &Routes) -> PlannedContainer {
    let source = match routes.choose(&container) {
        Choice::File(_) => Some(Route::File.name()),
        Choice::Stream => Some(routes.api_route().name()),
        Choice::Nothing => None,
    };
    PlannedContainer { container, driver: String::new(), source, risk: None }
}

fn inspected(container: Container, details: Details, routes: &Routes) -> PlannedContainer {
    let source = match routes.choose(&container) {
        Choice::File(_) if keeps_file(&details) => Some(Route::File.name()),
        Choice::File(_) | Choice::Stream if keeps_log(&details) => Some(routes.api_route().name()),
        Choice::File(_) | Choice::Stream | Choice::Nothing => None,
    };
    let risk = risk(&details);
    PlannedContainer { container, driver: details.log_driver, source, risk }
}

/// Drivers whose logs the daemon reads back itself. For all others it keeps a cache in a file,
/// unless `cache-disabled` is set.
const READABLE: [&str; 3] = ["json-file", "local", "journald"];

fn keeps_log(details: &Details) -> bool {
    let is_cached = details.log_options.get("cache-disabled").is_none_or(|value| value != "true");
    READABLE.contains(&&*details.log_driver) || details.log_driver != "none" && is_cached
}

fn keeps_file(details: &Details) -> bool {
    keeps_log(details) && details.log_driver != "journald"
}

/// Why this container can lose lines, whoever reads them.
fn risk(details: &Details) -> Option<String> {
    let option = |name: &str| details.log_options.get(name).map(String::as_str);
    if details.log_driver == "none" {
        return Some("the driver keeps nothing".into());
    }
    if !keeps_log(details) {
        return Some("cache-disabled=true keeps nothing of what this driver sends away".into());
    }
    if option("mode") == Some("non-blocking") {
        return Some("mode=non-blocking drops lines when the driver is slow".into());
    }
    if !READABLE.contains(&&*details.log_driver) && option("mode") != Some("blocking") {
        return Some("the engine's cache of this driver drops lines of a burst without mode=blocking".into());
    }
    let size = option("max-size").and_then(decimal)?;
    // The drivers' defaults.
    let default = if details.log_driver == "local" { 5 } else { 1 };
    let files = option("max-file").and_then(|files| files.parse().ok()).unwrap_or(default);
    (files == 1 && size < SMALL).then(|| "max-file=1 with a small max-size: a burst removes its own lines".into())
}

/// Parses a size the way the daemon does: `10m` is ten million bytes.
fn decimal(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let scale = match size[digits.len()..].to_ascii_lowercase().chars().next() {
        None | Some('b') => 1,
        Some('k') => 1_000,
        Some('m') => 1_000_000,
        Some('g') => 1_000_000_000,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_lose_lines_are_named() {
        for (driver, options, expected) in [
            ("json-file", &[][..], None),
            ("none", &[], Some("the driver")),
            ("json-file", &[("mode", "non-blocking")], Some("mode=non-blocking")),
            ("json-file", &[("mode", "blocking"), ("max-size", "10m")], None),
            ("json-file", &[("max-size", "1m")], Some("max-file=1")),
            ("json-file", &[("max-size", "64k"), ("max-file", "1")], Some("max-file=1")),
            ("json-file", &[("max-size", "1m"), ("max-file", "3")], None),
            ("local", &[("max-size", "9999999b"), ("max-file", "1")], Some("max-file=1")),
            ("local", &[("max-size", "1m")], None),
            ("gelf", &[], Some("the engine's cache")),
            ("gelf", &[("mode", "blocking")], None),
            ("gelf", &[("mode", "blocking"), ("cache-disabled", "true")], Some("cache-disabled=true")),
            ("journald", &[], None),
        ] {
            let log_options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let found = risk(&Details { log_driver: driver.into(), log_options, ..Details::default() });
            assert_eq!(found.is_some(), expected.is_some(), "{driver} {options:?}");
            assert!(found.unwrap_or_default().starts_with(expected.unwrap_or_default()), "{driver} {options:?}");
        }
    }
}

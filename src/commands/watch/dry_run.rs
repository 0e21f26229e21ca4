//! `watch --dry-run`: which containers match, how each would be read, and which are set up to lose lines.

use super::WatchOptions;
use super::feed::News;
use crate::commands::Error;
use crate::commands::route::{Choice, Routes};
use crate::docker::{self, Details, Docker};
use crate::model::cursor::Route;
use crate::output::PlannedContainer;

/// A log that small is rotated away within seconds of a busy container.
const SMALL: u64 = 10_000_000;

/// The plan.
pub(super) async fn plan(
    docker: &Docker,
    options: &WatchOptions,
    routes: &Routes,
    listing: News,
) -> Result<Vec<PlannedContainer>, Error> {
    let News::Listing(containers, _, passing) = listing else { return Ok(Vec::new()) };
    let selector = &options.selector;
    let (mut planned, mut refused) = (Vec::new(), None);
    for container in containers {
        let passes = passing.as_ref().is_none_or(|passing| passing.contains(&container.id));
        let stands = container.is_up() || options.wants_standing(&container);
        if !(selector.matches(&container) && passes && stands) {
            continue;
        }
        let details = match docker.inspect(&container.id).await {
            Ok(details) => Some(details),
            Err(error) if error.is_refusal() => {
                refused = Some(error);
                None
            }
            // It was removed meanwhile.
            Err(docker::Error::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(details) = details else {
            let source = match routes.of(&container) {
                Choice::File(_) => Some(Route::File.name()),
                Choice::Stream => Some(routes.over_api().name()),
                Choice::Nothing => None,
            };
            planned.push(PlannedContainer { container, driver: String::new(), source, risk: None });
            continue;
        };
        let source = match routes.of(&container) {
            Choice::File(_) if keeps_a_file(&details) => Some(Route::File.name()),
            Choice::File(_) | Choice::Stream if keeps_a_log(&details) => Some(routes.over_api().name()),
            Choice::File(_) | Choice::Stream | Choice::Nothing => None,
        };
        let risk = risk(&details);
        planned.push(PlannedContainer { container, driver: details.log_driver, source, risk });
    }
    if let Some(error) = refused {
        tracing::warn!(%error, "logging drivers, and which of them lose lines, are not known");
    }
    Ok(planned)
}

/// Drivers that the engine can read back itself: all others have a cache in a file, if that is not turned off.
const READABLE: [&str; 3] = ["json-file", "local", "journald"];

fn keeps_a_log(details: &Details) -> bool {
    let is_cached = details.log_options.get("cache-disabled").is_none_or(|value| value != "true");
    READABLE.contains(&&*details.log_driver) || details.log_driver != "none" && is_cached
}

fn keeps_a_file(details: &Details) -> bool {
    keeps_a_log(details) && details.log_driver != "journald"
}

/// How this container can lose lines, whoever reads them.
fn risk(details: &Details) -> Option<String> {
    let option = |name: &str| details.log_options.get(name).map(String::as_str);
    if details.log_driver == "none" {
        return Some("the driver keeps nothing".into());
    }
    if !keeps_a_log(details) {
        return Some("cache-disabled=true keeps nothing of what this driver sends away".into());
    }
    if option("mode") == Some("non-blocking") {
        return Some("mode=non-blocking drops lines when the driver is slow".into());
    }
    if !READABLE.contains(&&*details.log_driver) && option("mode") != Some("blocking") {
        return Some("the engine's cache of this driver drops lines of a burst without mode=blocking".into());
    }
    let size = option("max-size").and_then(decimal)?;
    // What the drivers keep unless they are told otherwise.
    let usual = if details.log_driver == "local" { 5 } else { 1 };
    let files = option("max-file").and_then(|files| files.parse().ok()).unwrap_or(usual);
    (files == 1 && size < SMALL).then(|| "max-file=1 with a small max-size: a burst removes its own lines".into())
}

/// A size as the engine takes it: `10m` is ten million bytes.
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
    fn what_can_lose_lines_is_named() {
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
            let told = risk(&Details { log_driver: driver.into(), log_options, ..Details::default() });
            assert_eq!(told.is_some(), expected.is_some(), "{driver} {options:?}");
            assert!(told.unwrap_or_default().starts_with(expected.unwrap_or_default()), "{driver} {options:?}");
        }
    }
}

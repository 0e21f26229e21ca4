//! Every key there is: its path, what is allowed, and where it goes.
//!
//! One table for the file, the environment and the messages about both.

use super::value::{self, PLACES, SIZES, SPANS};
use super::{Config, Source};
use std::path::PathBuf;
use std::time::Duration;

/// A key and its place in a [`Config`].
pub struct Key {
    /// Its words, joined by dots.
    pub path: &'static str,
    slot: Slot,
}

/// Where a value goes, and what it can be.
enum Slot {
    Switch(fn(&mut Config) -> &mut bool),
    /// From one on.
    Count(fn(&mut Config) -> &mut usize),
    /// From one on, each with a connection.
    Clients(fn(&mut Config) -> &mut usize),
    /// From one on.
    Number(fn(&mut Config) -> &mut u32),
    /// None is a number as well.
    Repeats(fn(&mut Config) -> &mut u32),
    /// One or more.
    Factor(fn(&mut Config) -> &mut f64),
    /// Longer than none.
    Span(fn(&mut Config) -> &mut Duration),
    /// None turns something off.
    Interval(fn(&mut Config) -> &mut Duration),
    Size(fn(&mut Config) -> &mut usize),
    Source(fn(&mut Config) -> &mut Source),
    Listen(fn(&mut Config) -> &mut Option<String>),
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
}

/// No machine has use for more of anything that is counted.
const MOST: usize = 1_000_000;
/// Connections that are used at one time: no engine serves more any faster.
pub const MOST_CLIENTS: u16 = 1000;
/// What grows by more from one time to the next has no use for a factor.
const STEEPEST: f64 = 100.0;

/// The words for how containers are read.
const SOURCES: [(&str, Source); 5] = [
    ("auto", Source::Auto),
    ("file", Source::File),
    ("stream", Source::Stream),
    ("rotate", Source::Rotate),
    ("poll", Source::Poll),
];

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path)
    }
}

impl Key {
    /// The environment variable of the same meaning.
    pub fn variable(&self) -> String {
        format!("LOGWATCH_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// Takes a value as it is written; `None` where it is none that is allowed.
    pub fn set(&self, config: &mut Config, text: &str) -> Option<()> {
        match self.slot {
            Slot::Switch(at) => *at(config) = switch(text)?,
            Slot::Count(at) => *at(config) = count(text)?,
            Slot::Clients(at) => *at(config) = count(text).filter(|count| *count <= MOST_CLIENTS.into())?,
            Slot::Number(at) => *at(config) = u32::try_from(count(text)?).ok()?,
            Slot::Repeats(at) if text == "0" => *at(config) = 0,
            Slot::Repeats(at) => *at(config) = u32::try_from(count(text)?).ok()?,
            Slot::Factor(at) => *at(config) = text.parse().ok().filter(|factor| (1.0..=STEEPEST).contains(factor))?,
            Slot::Span(at) => *at(config) = value::span(text).filter(|span| !span.is_zero())?,
            Slot::Interval(at) if text == "0" => *at(config) = Duration::ZERO,
            Slot::Interval(at) => *at(config) = value::span(text)?,
            Slot::Size(at) => *at(config) = value::size(text)?,
            Slot::Source(at) => *at(config) = SOURCES.iter().find(|(word, _)| *word == text)?.1,
            Slot::Listen(at) if text.is_empty() => *at(config) = None,
            Slot::Listen(at) => *at(config) = Some(text.to_owned()).filter(|text| value::is_place(text))?.into(),
            Slot::Path(at) => *at(config) = (!text.is_empty()).then(|| text.into()),
        }
        Some(())
    }

    /// What is allowed, for "expected ...".
    pub fn allowed(&self) -> String {
        match self.slot {
            Slot::Switch(_) => "`true` or `false`".to_owned(),
            Slot::Count(_) | Slot::Number(_) => format!("a whole number from 1 to {MOST}"),
            Slot::Clients(_) => format!("a whole number from 1 to {MOST_CLIENTS}"),
            Slot::Repeats(_) => format!("a whole number from 0 to {MOST}"),
            Slot::Factor(_) => format!("a number from 1 to {STEEPEST}, such as `1.5`"),
            Slot::Span(_) => format!("a span longer than none: {SPANS}"),
            Slot::Interval(_) => format!("a span, {SPANS}, or `0` to turn it off"),
            Slot::Size(_) => format!("bytes: {SIZES}"),
            Slot::Source(_) => format!("one of {}", SOURCES.map(|(word, _)| word).join(", ")),
            Slot::Listen(_) => format!("{PLACES}, or nothing"),
            Slot::Path(_) => "the path of a file".to_owned(),
        }
    }

    /// Its value, as it would be written.
    pub fn text(&self, config: &Config) -> String {
        let config = &mut config.clone();
        match self.slot {
            Slot::Switch(at) => at(config).to_string(),
            Slot::Count(at) | Slot::Clients(at) => at(config).to_string(),
            Slot::Number(at) | Slot::Repeats(at) => at(config).to_string(),
            Slot::Factor(at) => format!("{:?}", at(config)),
            Slot::Span(at) | Slot::Interval(at) => value::span_text(*at(config)),
            Slot::Size(at) => value::size_text(*at(config)),
            Slot::Source(at) => {
                let source = *at(config);
                SOURCES.iter().find(|(_, meaning)| *meaning == source).map_or("", |(word, _)| word).to_owned()
            }
            Slot::Listen(at) => at(config).clone().unwrap_or_default(),
            Slot::Path(at) => at(config).as_ref().map_or_else(String::new, |path| path.display().to_string()),
        }
    }
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn count(text: &str) -> Option<usize> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && (1..=MOST).contains(number))
}

/// By its path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys begin with these words.
pub fn is_group(path: &str) -> bool {
    members(path).next().is_some()
}

/// The words that can stand in a group, in order; those of the whole file for the empty path.
pub fn members(group: &str) -> impl Iterator<Item = &'static str> {
    let inside = move |path: &'static str| match group {
        "" => Some(path),
        _ => path.strip_prefix(group)?.strip_prefix('.'),
    };
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let word = inside(key.path)?.split('.').next().filter(|word| *word != last)?;
        last = word;
        Some(word)
    })
}

/// What was probably meant by a path that is none.
pub fn nearest(path: &str) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(path, known);
        let word = strsim::normalized_damerau_levenshtein(&last(path), &last(known));
        // A word in the wrong group is more than a word that is like another one there.
        whole.max(word * 0.95)
    };
    let groups = KEYS.iter().flat_map(|key| key.path.match_indices('.').map(|(at, _)| &key.path[..at]));
    let known = KEYS.iter().map(|key| key.path).chain(groups).map(|known| (likeness(known), known));
    let (likeness, known) = known.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness > 0.7).then(|| known.to_owned())
}

const fn key(path: &'static str, slot: Slot) -> Key {
    Key { path, slot }
}

/// In the order in which they are written.
pub const KEYS: &[Key] = &[
    key("docker.pool.min_pool_size", Slot::Clients(|c| &mut c.docker.pool.min_size)),
    key("docker.pool.max_pool_size", Slot::Clients(|c| &mut c.docker.pool.max_size)),
    key("docker.pool.initial_pool_size", Slot::Clients(|c| &mut c.docker.pool.initial_size)),
    key("docker.pool.pool_growth_factor", Slot::Factor(|c| &mut c.docker.pool.growth_factor)),
    key("docker.pool.max_concurrent_streams", Slot::Count(|c| &mut c.docker.pool.max_concurrent_streams)),
    key("docker.pool.connection_timeout", Slot::Span(|c| &mut c.docker.pool.connection_timeout)),
    key("docker.pool.request_timeout", Slot::Span(|c| &mut c.docker.pool.request_timeout)),
    key("docker.pool.idle_timeout", Slot::Span(|c| &mut c.docker.pool.idle_timeout)),
    key("docker.pool.max_connection_age", Slot::Span(|c| &mut c.docker.pool.max_connection_age)),
    key("docker.pool.health_check_interval", Slot::Interval(|c| &mut c.docker.pool.health_check_interval)),
    key("docker.pool.health_check_timeout", Slot::Span(|c| &mut c.docker.pool.health_check_timeout)),
    key("docker.pool.unhealthy_threshold", Slot::Number(|c| &mut c.docker.pool.unhealthy_threshold)),
    key("docker.pool.recovery_check_interval", Slot::Span(|c| &mut c.docker.pool.recovery_check_interval)),
    key("docker.pool.max_retries", Slot::Repeats(|c| &mut c.docker.pool.max_retries)),
    key("docker.pool.initial_retry_delay", Slot::Span(|c| &mut c.docker.pool.initial_retry_delay)),
    key("docker.pool.max_retry_delay", Slot::Span(|c| &mut c.docker.pool.max_retry_delay)),
    key("docker.pool.retry_multiplier", Slot::Factor(|c| &mut c.docker.pool.retry_multiplier)),
    key("docker.pool.jitter", Slot::Switch(|c| &mut c.docker.pool.jitter)),
    key("docker.circuit_breaker.enabled", Slot::Switch(|c| &mut c.docker.circuit_breaker.enabled)),
    key("docker.circuit_breaker.failure_threshold", Slot::Number(|c| &mut c.docker.circuit_breaker.failure_threshold)),
    key("docker.circuit_breaker.success_threshold", Slot::Number(|c| &mut c.docker.circuit_breaker.success_threshold)),
    key("docker.circuit_breaker.timeout", Slot::Span(|c| &mut c.docker.circuit_breaker.timeout)),
    key(
        "docker.circuit_breaker.half_open_max_calls",
        Slot::Number(|c| &mut c.docker.circuit_breaker.half_open_max_calls),
    ),
    key("docker.rate_limit.enabled", Slot::Switch(|c| &mut c.docker.rate_limit.enabled)),
    key("docker.rate_limit.requests_per_second", Slot::Number(|c| &mut c.docker.rate_limit.requests_per_second)),
    key("docker.rate_limit.burst_size", Slot::Number(|c| &mut c.docker.rate_limit.burst_size)),
    key("events.enabled", Slot::Switch(|c| &mut c.events.enabled)),
    key("events.queue_size", Slot::Count(|c| &mut c.events.queue_size)),
    key("events.backoff_min_duration", Slot::Span(|c| &mut c.events.backoff_min)),
    key("events.backoff_max_duration", Slot::Span(|c| &mut c.events.backoff_max)),
    key("events.reconcile_interval", Slot::Interval(|c| &mut c.events.reconcile_interval)),
    key("watch.source", Slot::Source(|c| &mut c.watch.source)),
    key("watch.metadata_cache_ttl", Slot::Interval(|c| &mut c.watch.metadata_cache_ttl)),
    key("watch.rotate_interval", Slot::Span(|c| &mut c.watch.rotate_interval)),
    key("watch.poll_interval", Slot::Span(|c| &mut c.watch.poll_interval)),
    key("watch.max_line_size", Slot::Size(|c| &mut c.watch.max_line_size)),
    key("metrics.listen", Slot::Listen(|c| &mut c.listen)),
    key("state.path", Slot::Path(|c| &mut c.state)),
];

/// What cannot be above what.
pub struct Order {
    /// The path of the lesser one, ...
    pub lesser: &'static str,
    /// ... and of the other.
    pub greater: &'static str,
    /// Whether it is so.
    pub holds: fn(&Config) -> bool,
}

/// All of them.
pub const ORDERS: &[Order] = &[
    Order {
        lesser: "docker.pool.min_pool_size",
        greater: "docker.pool.max_pool_size",
        holds: |c| c.docker.pool.min_size <= c.docker.pool.max_size,
    },
    Order {
        lesser: "docker.pool.min_pool_size",
        greater: "docker.pool.initial_pool_size",
        holds: |c| c.docker.pool.min_size <= c.docker.pool.initial_size,
    },
    Order {
        lesser: "docker.pool.initial_pool_size",
        greater: "docker.pool.max_pool_size",
        holds: |c| c.docker.pool.initial_size <= c.docker.pool.max_size,
    },
    Order {
        lesser: "docker.pool.initial_retry_delay",
        greater: "docker.pool.max_retry_delay",
        holds: |c| c.docker.pool.initial_retry_delay <= c.docker.pool.max_retry_delay,
    },
    Order {
        lesser: "events.backoff_min_duration",
        greater: "events.backoff_max_duration",
        holds: |c| c.events.backoff_min <= c.events.backoff_max,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_takes_back_its_own_default_and_no_nonsense() {
        let default = Config::default();
        for key in KEYS {
            let mut config = default.clone();
            assert_eq!(key.set(&mut config, &key.text(&default)), Some(()), "{}", key.path);
            assert_eq!(config, default, "{}", key.path);
            if !key.path.ends_with(".path") {
                assert_eq!(key.set(&mut config, "a b"), None, "{}", key.path);
            }
            let may_be_empty = matches!(key.slot, Slot::Listen(_) | Slot::Path(_));
            assert_eq!(key.set(&mut config, "").is_some(), may_be_empty, "{}", key.path);
        }
    }

    #[test]
    fn each_key_has_a_place_of_its_own() {
        let different = ["7", "false", "7s", "7.5", "poll", "7KiB", "h:7", "/7"];
        let mut seen = Vec::new();
        for key in KEYS {
            let mut config = Config::default();
            let fits = |text: &&&str| key.set(&mut config, text).is_some() && config != Config::default();
            assert!(different.iter().find(fits).is_some(), "{}", key.path);
            assert!(!seen.contains(&config), "{} goes where another key goes", key.path);
            seen.push(config);
        }
    }

    #[test]
    fn what_is_allowed_is_taken_and_nothing_else() {
        for (path, taken, refused) in [
            ("docker.pool.jitter", &["true", "False"][..], &["yes", "1", "on", "tRUE"][..]),
            ("docker.pool.max_pool_size", &["1", "1000"], &["0", "1001"]),
            ("events.queue_size", &["1", "1000000"], &["0", "-1", "+1", "1.0", "1000001", "0x8", "1e3", "8 "]),
            ("docker.pool.max_retries", &["0", "5"], &["-1", "00"]),
            ("docker.pool.retry_multiplier", &["1", "1.0", "100"], &["0.99", "nan", "inf", "-2", "101"]),
            ("docker.pool.idle_timeout", &["1ms", "1h30m", "1.5h", "2d"], &["0", "0s", "300", "-5s", "5 minutes"]),
            ("events.reconcile_interval", &["0", "0s", "30m"], &["30", "off", "-1s"]),
            ("watch.source", &["auto", "rotate"], &["Auto", "files"]),
            ("watch.max_line_size", &["1MiB", "64k", "5"], &["0", "1.5MiB", "1 kilo"]),
            ("metrics.listen", &["", "0.0.0.0:1", "[::1]:0"], &[":8519", "8519", "h", "h:99999", "http://h:1"]),
            ("state.path", &["", "~/x", "a b", "/x"], &[]),
        ] {
            let key = find(path).unwrap();
            for text in taken {
                assert_eq!(key.set(&mut Config::default(), text), Some(()), "{path} {text:?}");
            }
            for text in refused {
                let mut config = Config::default();
                assert_eq!((key.set(&mut config, text), config), (None, Config::default()), "{path} {text:?}");
            }
        }
    }

    #[test]
    fn groups_know_their_members() {
        let of = |group| members(group).collect::<Vec<_>>().join(" ");
        assert_eq!(of(""), "docker events watch metrics state");
        assert_eq!(of("docker"), "pool circuit_breaker rate_limit");
        assert_eq!(of("docker.rate_limit"), "enabled requests_per_second burst_size");
        assert_eq!((of("docke"), of("metrics.listen")), (String::new(), String::new()));
        assert!(is_group("docker.pool") && !is_group("docker.pools") && !is_group("state.path"));
    }

    #[test]
    fn a_slip_finds_the_key_that_was_meant() {
        for (path, meant) in [
            ("docker.pool.max_pol_size", Some("docker.pool.max_pool_size")),
            ("docker.pool.max_size", Some("docker.pool.max_pool_size")),
            ("pool.max_pool_size", Some("docker.pool.max_pool_size")),
            ("max_pool_size", Some("docker.pool.max_pool_size")),
            ("docker.jitter", Some("docker.pool.jitter")),
            ("event", Some("events")),
            ("watch.sources", Some("watch.source")),
            ("docker.ratelimit", Some("docker.rate_limit")),
            ("colour", None),
            ("a.b.c", None),
        ] {
            assert_eq!(nearest(path).as_deref(), meant, "{path}");
        }
    }
}

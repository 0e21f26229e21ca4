//! The table of all configuration keys: the path of each key, its type, and the field of [`Config`] that it sets.
//!
//! The configuration file, the environment variables and the messages about both are derived from this table.

use super::value::{self, LISTEN_ADDRESSES, SIZES, SPANS};
use super::{Config, Source};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) struct Key {
    /// The names of its groups and its own name, joined by dots.
    pub path: &'static str,
    kind: KeyType,
}

/// The type of a key's value, with access to the field that holds it.
enum KeyType {
    Bool(fn(&mut Config) -> &mut bool),
    /// A whole number from 1 to [`MAX_COUNT`].
    Count(fn(&mut Config) -> &mut usize),
    /// 1 to [`MAX_CLIENTS`]; each client has a connection.
    Clients(fn(&mut Config) -> &mut usize),
    /// A whole number from 1 to [`MAX_COUNT`].
    Number(fn(&mut Config) -> &mut u32),
    /// A whole number from 0 to [`MAX_COUNT`].
    Retries(fn(&mut Config) -> &mut u32),
    /// A number from 1 to [`MAX_FACTOR`].
    Factor(fn(&mut Config) -> &mut f64),
    /// A duration greater than zero.
    Span(fn(&mut Config) -> &mut Duration),
    /// A duration; zero disables what happens at the interval.
    Interval(fn(&mut Config) -> &mut Duration),
    Size(fn(&mut Config) -> &mut usize),
    Source(fn(&mut Config) -> &mut Source),
    Listen(fn(&mut Config) -> &mut Option<String>),
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
}

/// The largest count; no machine needs more.
const MAX_COUNT: usize = 1_000_000;
/// The largest number of clients. No daemon becomes faster with more connections.
pub(crate) const MAX_CLIENTS: u16 = 1000;
/// The largest growth factor.
const MAX_FACTOR: f64 = 100.0;

/// The names of the sources.
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
    /// The name of the environment variable that sets this key.
    pub(crate) fn variable(&self) -> String {
        format!("LOGWATCH_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// Parses and sets a value. Returns `None`, and changes nothing, if the value is not allowed.
    pub(crate) fn set(&self, config: &mut Config, text: &str) -> Option<()> {
        match self.kind {
            KeyType::Bool(at) => *at(config) = parse_bool(text)?,
            KeyType::Count(at) => *at(config) = parse_count(text)?,
            KeyType::Clients(at) => *at(config) = parse_count(text).filter(|count| *count <= MAX_CLIENTS.into())?,
            KeyType::Number(at) => *at(config) = u32::try_from(parse_count(text)?).ok()?,
            KeyType::Retries(at) if text == "0" => *at(config) = 0,
            KeyType::Retries(at) => *at(config) = u32::try_from(parse_count(text)?).ok()?,
            KeyType::Factor(at) => {
                *at(config) = text.parse().ok().filter(|factor| (1.0..=MAX_FACTOR).contains(factor))?
            }
            KeyType::Span(at) => *at(config) = value::span(text).filter(|span| !span.is_zero())?,
            KeyType::Interval(at) if text == "0" => *at(config) = Duration::ZERO,
            KeyType::Interval(at) => *at(config) = value::span(text)?,
            KeyType::Size(at) => *at(config) = value::size(text)?,
            KeyType::Source(at) => *at(config) = SOURCES.iter().find(|(name, _)| *name == text)?.1,
            KeyType::Listen(at) if text.is_empty() => *at(config) = None,
            KeyType::Listen(at) => {
                *at(config) = Some(text.to_owned()).filter(|text| value::is_listen_address(text))?.into()
            }
            KeyType::Path(at) => *at(config) = (!text.is_empty()).then(|| text.into()),
        }
        Some(())
    }

    /// Describes the allowed values, to follow "expected".
    pub(crate) fn allowed(&self) -> String {
        match self.kind {
            KeyType::Bool(_) => "`true` or `false`".to_owned(),
            KeyType::Count(_) | KeyType::Number(_) => format!("a whole number from 1 to {MAX_COUNT}"),
            KeyType::Clients(_) => format!("a whole number from 1 to {MAX_CLIENTS}"),
            KeyType::Retries(_) => format!("a whole number from 0 to {MAX_COUNT}"),
            KeyType::Factor(_) => format!("a number from 1 to {MAX_FACTOR}, such as `1.5`"),
            KeyType::Span(_) => format!("a duration greater than 0, such as {SPANS}"),
            KeyType::Interval(_) => format!("a duration, such as {SPANS}, or `0` to turn it off"),
            KeyType::Size(_) => format!("a size in bytes, such as {SIZES}"),
            KeyType::Source(_) => format!("one of {}", SOURCES.map(|(name, _)| name).join(", ")),
            KeyType::Listen(_) => format!("{LISTEN_ADDRESSES}, or nothing"),
            KeyType::Path(_) => "the path of a file".to_owned(),
        }
    }

    /// Formats the value that this key has in `config`.
    pub(crate) fn text(&self, config: &Config) -> String {
        let config = &mut config.clone();
        match self.kind {
            KeyType::Bool(at) => at(config).to_string(),
            KeyType::Count(at) | KeyType::Clients(at) => at(config).to_string(),
            KeyType::Number(at) | KeyType::Retries(at) => at(config).to_string(),
            KeyType::Factor(at) => format!("{:?}", at(config)),
            KeyType::Span(at) | KeyType::Interval(at) => value::span_text(*at(config)),
            KeyType::Size(at) => value::size_text(*at(config)),
            KeyType::Source(at) => {
                let source = *at(config);
                SOURCES.iter().find(|(_, meaning)| *meaning == source).map_or("", |(name, _)| name).to_owned()
            }
            KeyType::Listen(at) => at(config).clone().unwrap_or_default(),
            KeyType::Path(at) => at(config).as_ref().map_or_else(String::new, |path| path.display().to_string()),
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn parse_count(text: &str) -> Option<usize> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && (1..=MAX_COUNT).contains(number))
}

/// Finds a key by its path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether the path names a group of keys.
pub(crate) fn is_group(path: &str) -> bool {
    members(path).next().is_some()
}

/// The names that are allowed in a group, in order. The empty path stands for the top level of the file.
pub(crate) fn members(group: &str) -> impl Iterator<Item = &'static str> {
    let inside = move |path: &'static str| match group {
        "" => Some(path),
        _ => path.strip_prefix(group)?.strip_prefix('.'),
    };
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let name = inside(key.path)?.split('.').next().filter(|name| *name != last)?;
        last = name;
        Some(name)
    })
}

/// Finds the key or group that was probably meant by an unknown path.
pub(crate) fn nearest(path: &str) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(path, known);
        let name = strsim::normalized_damerau_levenshtein(&last(path), &last(known));
        // The right name in a wrong group is a better match than a similar name in the right group.
        whole.max(name * 0.95)
    };
    let groups = KEYS.iter().flat_map(|key| key.path.match_indices('.').map(|(at, _)| &key.path[..at]));
    let known = KEYS.iter().map(|key| key.path).chain(groups).map(|known| (likeness(known), known));
    let (likeness, known) = known.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness > 0.7).then(|| known.to_owned())
}

const fn key(path: &'static str, kind: KeyType) -> Key {
    Key { path, kind }
}

/// All keys, in the order of the example file.
pub(crate) const KEYS: &[Key] = &[
    key("docker.pool.min_pool_size", KeyType::Clients(|c| &mut c.docker.pool.min_size)),
    key("docker.pool.max_pool_size", KeyType::Clients(|c| &mut c.docker.pool.max_size)),
    key("docker.pool.initial_pool_size", KeyType::Clients(|c| &mut c.docker.pool.initial_size)),
    key("docker.pool.pool_growth_factor", KeyType::Factor(|c| &mut c.docker.pool.growth_factor)),
    key("docker.pool.max_concurrent_streams", KeyType::Count(|c| &mut c.docker.pool.max_concurrent_streams)),
    key("docker.pool.connection_timeout", KeyType::Span(|c| &mut c.docker.pool.connection_timeout)),
    key("docker.pool.request_timeout", KeyType::Span(|c| &mut c.docker.pool.request_timeout)),
    key("docker.pool.idle_timeout", KeyType::Span(|c| &mut c.docker.pool.idle_timeout)),
    key("docker.pool.max_connection_age", KeyType::Span(|c| &mut c.docker.pool.max_connection_age)),
    key("docker.pool.health_check_interval", KeyType::Interval(|c| &mut c.docker.pool.health_check_interval)),
    key("docker.pool.health_check_timeout", KeyType::Span(|c| &mut c.docker.pool.health_check_timeout)),
    key("docker.pool.unhealthy_threshold", KeyType::Number(|c| &mut c.docker.pool.unhealthy_threshold)),
    key("docker.pool.recovery_check_interval", KeyType::Span(|c| &mut c.docker.pool.recovery_check_interval)),
    key("docker.pool.max_retries", KeyType::Retries(|c| &mut c.docker.pool.max_retries)),
    key("docker.pool.initial_retry_delay", KeyType::Span(|c| &mut c.docker.pool.initial_retry_delay)),
    key("docker.pool.max_retry_delay", KeyType::Span(|c| &mut c.docker.pool.max_retry_delay)),
    key("docker.pool.retry_multiplier", KeyType::Factor(|c| &mut c.docker.pool.retry_multiplier)),
    key("docker.pool.jitter", KeyType::Bool(|c| &mut c.docker.pool.jitter)),
    key("docker.circuit_breaker.enabled", KeyType::Bool(|c| &mut c.docker.circuit_breaker.enabled)),
    key(
        "docker.circuit_breaker.failure_threshold",
        KeyType::Number(|c| &mut c.docker.circuit_breaker.failure_threshold),
    ),
    key(
        "docker.circuit_breaker.success_threshold",
        KeyType::Number(|c| &mut c.docker.circuit_breaker.success_threshold),
    ),
    key("docker.circuit_breaker.timeout", KeyType::Span(|c| &mut c.docker.circuit_breaker.timeout)),
    key(
        "docker.circuit_breaker.half_open_max_calls",
        KeyType::Number(|c| &mut c.docker.circuit_breaker.half_open_max_calls),
    ),
    key("docker.rate_limit.enabled", KeyType::Bool(|c| &mut c.docker.rate_limit.enabled)),
    key("docker.rate_limit.requests_per_second", KeyType::Number(|c| &mut c.docker.rate_limit.requests_per_second)),
    key("docker.rate_limit.burst_size", KeyType::Number(|c| &mut c.docker.rate_limit.burst_size)),
    key("events.enabled", KeyType::Bool(|c| &mut c.events.enabled)),
    key("events.queue_size", KeyType::Count(|c| &mut c.events.queue_size)),
    key("events.backoff_min_duration", KeyType::Span(|c| &mut c.events.backoff_min)),
    key("events.backoff_max_duration", KeyType::Span(|c| &mut c.events.backoff_max)),
    key("events.reconcile_interval", KeyType::Interval(|c| &mut c.events.reconcile_interval)),
    key("watch.source", KeyType::Source(|c| &mut c.watch.source)),
    key("watch.metadata_cache_ttl", KeyType::Interval(|c| &mut c.watch.metadata_cache_ttl)),
    key("watch.rotate_interval", KeyType::Span(|c| &mut c.watch.rotate_interval)),
    key("watch.poll_interval", KeyType::Span(|c| &mut c.watch.poll_interval)),
    key("watch.max_line_size", KeyType::Size(|c| &mut c.watch.max_line_size)),
    key("metrics.listen", KeyType::Listen(|c| &mut c.listen)),
    key("state.path", KeyType::Path(|c| &mut c.state)),
];

/// A constraint between two keys: the value of `lesser` must not exceed that of `greater`.
pub(crate) struct Constraint {
    pub lesser: &'static str,
    pub greater: &'static str,
    pub holds: fn(&Config) -> bool,
}

pub(crate) const CONSTRAINTS: &[Constraint] = &[
    Constraint {
        lesser: "docker.pool.min_pool_size",
        greater: "docker.pool.max_pool_size",
        holds: |c| c.docker.pool.min_size <= c.docker.pool.max_size,
    },
    Constraint {
        lesser: "docker.pool.min_pool_size",
        greater: "docker.pool.initial_pool_size",
        holds: |c| c.docker.pool.min_size <= c.docker.pool.initial_size,
    },
    Constraint {
        lesser: "docker.pool.initial_pool_size",
        greater: "docker.pool.max_pool_size",
        holds: |c| c.docker.pool.initial_size <= c.docker.pool.max_size,
    },
    Constraint {
        lesser: "docker.pool.initial_retry_delay",
        greater: "docker.pool.max_retry_delay",
        holds: |c| c.docker.pool.initial_retry_delay <= c.docker.pool.max_retry_delay,
    },
    Constraint {
        lesser: "events.backoff_min_duration",
        greater: "events.backoff_max_duration",
        holds: |c| c.events.backoff_min <= c.events.backoff_max,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_parses_its_own_default() {
        let default = Config::default();
        for key in KEYS {
            let mut config = default.clone();
            assert_eq!(key.set(&mut config, &key.text(&default)), Some(()), "{}", key.path);
            assert_eq!(config, default, "{}", key.path);
            if !key.path.ends_with(".path") {
                assert_eq!(key.set(&mut config, "a b"), None, "{}", key.path);
            }
            let may_be_empty = matches!(key.kind, KeyType::Listen(_) | KeyType::Path(_));
            assert_eq!(key.set(&mut config, "").is_some(), may_be_empty, "{}", key.path);
        }
    }

    #[test]
    fn each_key_sets_a_field_of_its_own() {
        let different = ["7", "false", "7s", "7.5", "poll", "7KiB", "h:7", "/7"];
        let mut seen = Vec::new();
        for key in KEYS {
            let mut config = Config::default();
            let fits = |text: &&&str| key.set(&mut config, text).is_some() && config != Config::default();
            assert!(different.iter().find(fits).is_some(), "{}", key.path);
            assert!(!seen.contains(&config), "{} sets the field of another key", key.path);
            seen.push(config);
        }
    }

    #[test]
    fn keys_accept_only_allowed_values() {
        for (path, accepted, rejected) in [
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
            for text in accepted {
                assert_eq!(key.set(&mut Config::default(), text), Some(()), "{path} {text:?}");
            }
            for text in rejected {
                let mut config = Config::default();
                assert_eq!((key.set(&mut config, text), config), (None, Config::default()), "{path} {text:?}");
            }
        }
    }

    #[test]
    fn groups_list_their_members() {
        let of = |group| members(group).collect::<Vec<_>>().join(" ");
        assert_eq!(of(""), "docker events watch metrics state");
        assert_eq!(of("docker"), "pool circuit_breaker rate_limit");
        assert_eq!(of("docker.rate_limit"), "enabled requests_per_second burst_size");
        assert_eq!((of("docke"), of("metrics.listen")), (String::new(), String::new()));
        assert!(is_group("docker.pool") && !is_group("docker.pools") && !is_group("state.path"));
    }

    #[test]
    fn misspelled_keys_find_the_intended_key() {
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

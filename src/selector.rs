//! Which containers are asked for.
//!
//! A container is selected when it passes every kind of condition that was given: a named word, a project, a service,
//! each filter key; and no exclusion. Within a kind one hit is enough, but all `label` filters must hold, as with
//! `docker ps --filter` (moby `daemon/list.go`: includeContainerInList).
//!
//! | condition | what it is compared with |
//! |---|---|
//! | `CONTAINER` | the whole name, the beginning of the ID, or, with one of `*?[{`, the name as a glob |
//! | `--exclude-container` | the name, as a glob |
//! | `--project`, `--service` | the labels that Compose sets |
//! | `name` | a regular expression, unanchored, on the name with and without a leading slash |
//! | `id` | the beginning of the ID |
//! | `label` | `key` present, or `key=value` exactly |
//! | `status` | the state |
//! | `ancestor`, `network`, `volume`, `health` | only the engine can tell: [`Selector::remote`] |

use crate::container::Container;
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Filters as the engine's list and events endpoints take them: key to the values of that key.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Which containers are asked for. The default asks for all.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// Any of these containers; none means all.
    pub names: Vec<Pattern>,
    /// None of these.
    pub exclude: Vec<Glob>,
    /// Of any of these Compose projects; none means all.
    pub projects: Vec<String>,
    /// Instances of any of these Compose services; none means all.
    pub services: Vec<String>,
    /// As `docker ps --filter`.
    pub filters: Vec<Filter>,
}

/// What a user calls a container.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// A whole name, or the beginning of an ID.
    Word(String),
    /// A whole name that some container has, so that it does not stand for an ID: see [`Selector::settle`].
    Name(String),
    /// A glob over names.
    Glob(Glob),
}

/// A glob over container names.
#[derive(Clone, Debug)]
pub struct Glob(GlobMatcher);

/// One `KEY=VALUE` of `docker ps --filter`.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Matches the name, with or without a leading slash.
    Name(Regex),
    /// The beginning of the ID.
    Id(String),
    /// The key, and with a value that value.
    Label(String, Option<String>),
    /// One of [`STATES`].
    Status(String),
    /// Key and value of a filter that only the engine can evaluate.
    Remote(&'static str, String),
}

/// A key of `--filter`: its name, what it selects, and its values where they are known beforehand.
pub struct Key {
    /// As it is written before the `=`.
    pub name: &'static str,
    /// In a few words, for completion.
    pub help: &'static str,
    /// Empty when there is no fixed set.
    pub values: &'static [&'static str],
}

/// The states a container can be in.
pub const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// The verdicts of a health check.
const HEALTH: &[&str] = &["starting", "healthy", "unhealthy", "none"];

/// The keys of `--filter`.
pub const KEYS: &[Key] = &[
    Key { name: "name", help: "Name, as a regular expression", values: &[] },
    Key { name: "id", help: "ID prefix", values: &[] },
    Key { name: "label", help: "Label `key` or `key=value`", values: &[] },
    Key { name: "ancestor", help: "Image, or one built upon it", values: &[] },
    Key { name: "status", help: "State", values: STATES },
    Key { name: "network", help: "Network name or ID", values: &[] },
    Key { name: "volume", help: "Volume name or mount point", values: &[] },
    Key { name: "health", help: "Verdict of the health check", values: HEALTH },
];

/// Why a word selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An unset variable in a script, most likely: as a prefix it would select everything.
    #[error("a container's name cannot be empty")]
    Empty,
    /// The reason in words.
    #[error("no glob: {0}")]
    Glob(String),
    /// The reason in words.
    #[error("no regular expression: {0}")]
    Regex(String),
    /// There is no `=`, or nothing before or behind it.
    #[error("expected KEY=VALUE, KEY being one of {}", keys())]
    NoPair,
    /// An unknown key.
    #[error("no filter is called `{key}`; there are {}", keys())]
    Key {
        /// What was given.
        key: String,
    },
    /// The key, the value, and those allowed.
    #[error("`{key}` cannot be `{value}`, only {}", listed(*.allowed))]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: &'static [&'static str],
    },
}

fn keys() -> String {
    listed(KEYS.iter().map(|key| &key.name))
}

fn listed<'a>(words: impl IntoIterator<Item = &'a &'a str>) -> String {
    words.into_iter().copied().collect::<Vec<_>>().join(", ")
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // As the API writes names; `docker logs /web` works, too.
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(Error::Empty);
        }
        // No name contains these (moby `daemon/names/names.go`), so a word with one cannot be a name.
        if text.contains(['*', '?', '[', '{']) {
            text.parse().map(Pattern::Glob)
        } else {
            Ok(Pattern::Word(text.into()))
        }
    }
}

impl Pattern {
    fn names(&self, container: &Container) -> bool {
        match self {
            Pattern::Word(word) => container.name == *word || container.id.starts_with(&**word),
            Pattern::Name(name) => container.name == *name,
            Pattern::Glob(glob) => glob.matches(&container.name),
        }
    }
}

impl FromStr for Glob {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(Error::Empty);
        }
        let glob = GlobBuilder::new(text).build().map_err(|error| Error::Glob(error.kind().to_string()))?;
        Ok(Glob(glob.compile_matcher()))
    }
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // Blanks and capitals in the key are forgiven as docker forgives them (docker/cli `opts/opts.go`: FilterOpt).
        let (key, value) = text.split_once('=').ok_or(Error::NoPair)?;
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(Error::NoPair);
        }
        let Some(key) = KEYS.iter().find(|known| known.name == key) else {
            return Err(Error::Key { key });
        };
        if !key.values.is_empty() && !key.values.contains(&value) {
            return Err(Error::Value { key: key.name, value: value.into(), allowed: key.values });
        }
        Ok(match key.name {
            "name" => Filter::Name(Regex::new(value).map_err(|error| Error::Regex(reason(&error)))?),
            "id" => Filter::Id(value.into()),
            "label" => match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.into(), Some(value.into())),
                None => Filter::Label(value.into(), None),
            },
            "status" => Filter::Status(value.into()),
            remote => Filter::Remote(remote, value.into()),
        })
    }
}

/// The last line of the library's drawing of what is wrong with a pattern: the reason alone.
pub fn reason(error: &regex::Error) -> String {
    let drawn = error.to_string();
    let last = drawn.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl Filter {
    /// The pair as the engine takes it.
    fn pair(&self) -> (&'static str, String) {
        match self {
            Filter::Name(regex) => ("name", regex.to_string()),
            Filter::Id(id) => ("id", id.clone()),
            Filter::Label(key, None) => ("label", key.clone()),
            Filter::Label(key, Some(value)) => ("label", format!("{key}={value}")),
            Filter::Status(state) => ("status", state.clone()),
            Filter::Remote(key, value) => (key, value.clone()),
        }
    }
}

impl Selector {
    /// Whether everything holds that can be told from the container itself. What [`Selector::remote`] returns must be
    /// asked of the engine besides.
    pub fn matches(&self, container: &Container) -> bool {
        let one_of = |asked: &[String], has: Option<&str>| asked.is_empty() || asked.iter().any(|a| has == Some(a));
        (self.names.is_empty() || self.names_container(container))
            && !self.exclude.iter().any(|glob| glob.matches(&container.name))
            && one_of(&self.projects, container.project())
            && one_of(&self.services, container.service())
            && self.passes(container)
    }

    /// Whether a word of the user's stands for it, so that it is meant even when it is stopped.
    pub fn names_container(&self, container: &Container) -> bool {
        self.names.iter().any(|pattern| pattern.names(container))
    }

    /// The filters that only the engine can evaluate.
    pub fn remote(&self) -> Filters {
        collect(self.filters.iter().filter(|filter| matches!(filter, Filter::Remote(..))).map(Filter::pair))
    }

    /// All that makes the engine's first listing shorter and loses nothing that [`Selector::matches`] would take. `name`
    /// and `id` are left out: the engine silently finds nothing for an expression it cannot read, and for an ID prefix
    /// that several containers share.
    pub fn listing(&self) -> Filters {
        let filters = self.filters.iter().filter(|filter| !matches!(filter, Filter::Name(_) | Filter::Id(_)));
        // All values of `label` must hold, so two projects cannot be put this way.
        let only = |key: &str, values: &[String]| match values {
            [value] => Some(("label", format!("com.docker.compose.{key}={value}"))),
            _ => None,
        };
        let compose = only("project", &self.projects).into_iter().chain(only("service", &self.services));
        collect(filters.map(Filter::pair).chain(compose))
    }

    /// Whether a filter asks for containers that do not run, which lists them without `--all`, as `docker ps` does.
    pub fn includes_stopped(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter, Filter::Status(state) if state != "running"))
    }

    /// The words that stand for none of these containers; globs are not among them, for they may match later.
    pub fn unmatched<'a>(&self, seen: impl Iterator<Item = &'a Container>) -> Vec<&str> {
        let mut left: Vec<&Pattern> = self.names.iter().filter(|name| !matches!(name, Pattern::Glob(_))).collect();
        for container in seen {
            left.retain(|pattern| !pattern.names(container));
        }
        left.into_iter()
            .filter_map(|pattern| match pattern {
                Pattern::Word(word) | Pattern::Name(word) => Some(word.as_str()),
                Pattern::Glob(_) => None,
            })
            .collect()
    }

    /// Lets a word that is the whole name of one of these containers stand for that name alone, as docker prefers the
    /// name: `db` would else select one in 256 of all containers by their IDs, now and later.
    pub fn settle<'a>(&mut self, listed: impl Iterator<Item = &'a Container>) {
        for container in listed {
            for pattern in &mut self.names {
                if matches!(pattern, Pattern::Word(word) if *word == container.name) {
                    *pattern = Pattern::Name(container.name.clone());
                }
            }
        }
    }

    /// Filters of one key are alternatives, but each label must hold, and so must each key.
    fn passes(&self, container: &Container) -> bool {
        let (mut name, mut id, mut status) = (None, None, None);
        for filter in &self.filters {
            let (key, holds) = match filter {
                Filter::Name(regex) => {
                    let slashed = || regex.is_match(&format!("/{}", container.name));
                    (&mut name, regex.is_match(&container.name) || slashed())
                }
                Filter::Id(prefix) => (&mut id, container.id.starts_with(&**prefix)),
                Filter::Status(state) => (&mut status, container.state == *state),
                Filter::Label(key, value) => {
                    match container.labels.get(key) {
                        Some(has) if value.as_ref().is_none_or(|value| has == value) => continue,
                        _ => return false,
                    };
                }
                Filter::Remote(..) => continue,
            };
            *key = Some(key.unwrap_or(false) || holds);
        }
        [name, id, status].into_iter().all(|held| held != Some(false))
    }
}

fn collect(pairs: impl Iterator<Item = (&'static str, String)>) -> Filters {
    let mut filters = Filters::new();
    for (key, value) in pairs {
        filters.entry(key.to_owned()).or_default().push(value);
    }
    filters
}

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
//! | `before`, `since` | what the engine lists when the watch begins: [`CreationOrder`] |
//! | `ancestor`, `network`, `volume`, `health`, `exited`, `expose`, `publish`, `is-task` | only the engine can tell: [`Selector::remote`] |

use super::container::Container;
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use std::collections::{BTreeMap, HashSet};
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
    /// A whole name, which does not stand for an ID: see [`Selector::settle`].
    Name(String),
    /// A word that no container has as its name, and the ID that begins with it.
    Id(String, String),
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
    /// What the filters `before` and `since` came to.
    Order(CreationOrder),
}

/// The filters that compare the time at which a container was created with that of another one.
const ORDERS: [&str; 2] = ["before", "since"];

/// Which containers were created before or since another one. The engine is asked once: the order never changes, and the
/// other container may be removed meanwhile, after which the engine refuses to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreationOrder {
    /// The IDs of all that there were.
    pub known: HashSet<String>,
    /// Those that pass.
    pub passing: HashSet<String>,
    /// One that was created later passes.
    pub takes_new: bool,
}

impl CreationOrder {
    fn holds(&self, container: &Container) -> bool {
        match self.known.contains(&container.id) {
            true => self.passing.contains(&container.id),
            false => self.takes_new,
        }
    }
}

/// A key of `--filter`: its name, what it selects, and its values where they are known beforehand.
pub struct FilterKey {
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
pub const KEYS: &[FilterKey] = &[
    FilterKey { name: "name", help: "Name, as a regular expression", values: &[] },
    FilterKey { name: "id", help: "ID prefix", values: &[] },
    FilterKey { name: "label", help: "Label `key` or `key=value`", values: &[] },
    FilterKey { name: "ancestor", help: "Image, or one built upon it", values: &[] },
    FilterKey { name: "status", help: "State", values: STATES },
    FilterKey { name: "network", help: "Network name or ID", values: &[] },
    FilterKey { name: "volume", help: "Volume name or mount point", values: &[] },
    FilterKey { name: "health", help: "Verdict of the health check", values: HEALTH },
    FilterKey { name: "before", help: "Created before this container", values: &[] },
    FilterKey { name: "since", help: "Created since this container", values: &[] },
    FilterKey { name: "exited", help: "Exit code", values: &[] },
    FilterKey { name: "expose", help: "Exposed `port[/proto]`, or a range of ports", values: &[] },
    FilterKey { name: "publish", help: "Published `port[/proto]`, or a range of ports", values: &[] },
    FilterKey { name: "is-task", help: "Whether a Swarm task", values: &["true", "false"] },
];

/// What `exited` takes.
const CODES: &str = "a whole number";
/// What `expose` and `publish` take.
const PORTS: &str = "`PORT[/PROTOCOL]` or `FIRST-LAST[/PROTOCOL]`, the protocol being tcp, udp or sctp";

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
    /// The value is not of the form that the key takes.
    #[error("`{key}` cannot be `{value}`, only {form}")]
    Form {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        form: &'static str,
    },
}

/// A word that is no container's name, and the beginning of several IDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} containers have an ID that begins with {word}, {} and {} among them", names[0], names[1])]
pub struct Ambiguous {
    /// As it was given.
    pub word: String,
    /// Two of the containers.
    pub names: [String; 2],
    /// How many there are.
    pub count: usize,
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
            Pattern::Id(_, id) => container.id == *id,
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
            "exited" if value.parse::<i32>().is_err() => {
                return Err(Error::Form { key: key.name, value: value.into(), form: CODES });
            }
            "expose" | "publish" if !is_ports(value) => {
                return Err(Error::Form { key: key.name, value: value.into(), form: PORTS });
            }
            "name" => Filter::Name(Regex::new(&unquoted(value)).map_err(|error| Error::Regex(reason(&error)))?),
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

/// `80`, `80/udp`, `80-90/tcp` (moby `daemon/list.go`: portOp).
fn is_ports(text: &str) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let is_range = port(first).zip(port(last)).is_some_and(|(first, last)| first <= last);
    is_range && matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp")
}

/// A regular expression of Go without `\Q…\E`, the one form that our library does not know: what is between is literal.
fn unquoted(pattern: &str) -> String {
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = escape.strip_prefix("\\Q") {
            let (literal, behind) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = behind;
        } else {
            // The character behind a backslash begins no quotation.
            let len = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(&escape[..len]);
            rest = &escape[len..];
        }
    }
    out + rest
}

/// The last line of the library's drawing of what is wrong with a pattern: the reason alone.
pub fn reason(error: &regex::Error) -> String {
    let drawn = error.to_string();
    let last = drawn.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl Filter {
    /// The pair as the engine takes it.
    fn pair(&self) -> Option<(&'static str, String)> {
        Some(match self {
            Filter::Order(_) => return None,
            Filter::Name(regex) => ("name", regex.to_string()),
            Filter::Id(id) => ("id", id.clone()),
            Filter::Label(key, None) => ("label", key.clone()),
            Filter::Label(key, Some(value)) => ("label", format!("{key}={value}")),
            Filter::Status(state) => ("status", state.clone()),
            Filter::Remote(key, value) => (*key, value.clone()),
        })
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

    /// Whether [`Selector::matches`] may hold once the labels are known that are hidden now.
    pub fn may_match(&self, container: &Container) -> bool {
        let is_hidden =
            |filter: &Filter| matches!(filter, Filter::Label(key, _) if container.hidden.contains(&key.as_str()));
        if !self.filters.iter().any(is_hidden) {
            return self.matches(container);
        }
        let filters = self.filters.iter().filter(|filter| !is_hidden(filter)).cloned().collect();
        Selector { filters, ..self.clone() }.matches(container)
    }

    /// Whether a word of the user's stands for it, so that it is meant even when it is stopped.
    pub fn names_container(&self, container: &Container) -> bool {
        self.names.iter().any(|pattern| pattern.names(container))
    }

    /// The filters that only the engine can evaluate.
    pub fn remote(&self) -> Filters {
        collect(self.filters.iter().filter(|filter| matches!(filter, Filter::Remote(..))).filter_map(Filter::pair))
    }

    /// The filters that [`Selector::set_order`] takes the place of, once the engine has told what they come to.
    pub fn order(&self) -> Filters {
        let mut filters = self.remote();
        filters.retain(|key, _| ORDERS.contains(&key.as_str()));
        filters
    }

    /// What passes the filters of [`Selector::order`]: `passing` of all that are `known`. A container that is created later
    /// was created since any of them, and before none.
    pub fn set_order(&mut self, known: HashSet<String>, passing: HashSet<String>) {
        let takes_new = !self.order().contains_key("before");
        self.filters.retain(|filter| !matches!(filter, Filter::Remote(key, _) if ORDERS.contains(key)));
        self.filters.push(Filter::Order(CreationOrder { known, passing, takes_new }));
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
        collect(filters.filter_map(Filter::pair).chain(compose))
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
                Pattern::Word(word) | Pattern::Name(word) | Pattern::Id(word, _) => Some(word.as_str()),
                Pattern::Glob(_) => None,
            })
            .collect()
    }

    /// Decides for each word what it stands for among all containers there are, in docker's order: a whole ID, a name, the
    /// beginning of one ID (moby `daemon/container.go`: GetContainer). As there, the beginning of several IDs is an error.
    ///
    /// A word that stands for nothing yet is waited for as a name: else `db` would select one in 256 of all containers that
    /// come. Only what is as long as the IDs that docker prints may still turn out to be one.
    pub fn settle<'a>(&mut self, listed: impl Iterator<Item = &'a Container> + Clone) -> Result<(), Ambiguous> {
        for pattern in &mut self.names {
            let Pattern::Word(word) = pattern else { continue };
            let word = std::mem::take(word);
            *pattern = resolve(word, listed.clone())?;
        }
        Ok(())
    }

    /// Takes note of a container that is new, or has a new name. A name goes before the beginning of an ID at any time, and
    /// once a container had it the word stands for that name for good: one that is made anew is not to be mistaken for
    /// another while it is away. Returns the ID that a word stood for until now.
    pub fn learn(&mut self, container: &Container) -> Option<String> {
        let mut let_go = None;
        for pattern in &mut self.names {
            match pattern {
                Pattern::Word(word) | Pattern::Id(word, _) if *word == container.name => {
                    let name = Pattern::Name(std::mem::take(word));
                    if let Pattern::Id(_, id) = std::mem::replace(pattern, name) {
                        let_go = Some(id);
                    }
                }
                Pattern::Word(word) if container.id.starts_with(&**word) => {
                    *pattern = Pattern::Id(std::mem::take(word), container.id.clone());
                }
                Pattern::Word(_) | Pattern::Name(_) | Pattern::Id(..) | Pattern::Glob(_) => {}
            }
        }
        let_go
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
                Filter::Order(order) if !order.holds(container) => return false,
                Filter::Remote(..) | Filter::Order(_) => continue,
            };
            *key = Some(key.unwrap_or(false) || holds);
        }
        [name, id, status].into_iter().all(|held| held != Some(false))
    }
}

fn resolve<'a>(word: String, listed: impl Iterator<Item = &'a Container> + Clone) -> Result<Pattern, Ambiguous> {
    let of_id = |id: &str| id.starts_with(&*word);
    if listed.clone().any(|container| container.id == word) {
        return Ok(Pattern::Id(word.clone(), word));
    }
    if listed.clone().any(|container| container.name == word) {
        return Ok(Pattern::Name(word));
    }
    let mut found = listed.filter(|container| of_id(&container.id));
    match (found.next(), found.next()) {
        (None, _) if is_like_an_id(&word) => Ok(Pattern::Word(word)),
        (None, _) => Ok(Pattern::Name(word)),
        (Some(one), None) => Ok(Pattern::Id(word, one.id.clone())),
        (Some(one), Some(another)) => {
            Err(Ambiguous { names: [one.name.clone(), another.name.clone()], count: 2 + found.count(), word })
        }
    }
}

/// As long as docker prints them.
fn is_like_an_id(word: &str) -> bool {
    word.len() >= 12 && word.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn collect(pairs: impl Iterator<Item = (&'static str, String)>) -> Filters {
    let mut filters = Filters::new();
    for (key, value) in pairs {
        filters.entry(key.to_owned()).or_default().push(value);
    }
    filters
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "com.docker.compose.project";
    const SERVICE: &str = "com.docker.compose.service";

    /// The containers of all tests, by name.
    fn containers() -> Vec<Container> {
        let container = |name: &str, id: &str, state: &str, labels: &[(&str, &str)]| Container {
            id: format!("{id:0<64}"),
            name: name.into(),
            image: "busybox".into(),
            labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            state: state.into(),
            ..Container::default()
        };
        vec![
            container("web-1", "aa1", "running", &[(PROJECT, "shop"), (SERVICE, "web"), ("tier", "front")]),
            container("web-2", "aa2", "exited", &[(PROJECT, "shop"), (SERVICE, "web"), ("tier", "front"), ("old", "")]),
            container("db", "bb1", "paused", &[(PROJECT, "shop"), (SERVICE, "db"), ("tier", "back")]),
            container("wiki", "db1", "running", &[(PROJECT, "wiki"), (SERVICE, "web")]),
            container("lone", "cc1", "created", &[]),
        ]
    }

    /// Reads words as `watch` does: `-E`, `-p`, `-s` (service) and `-f` take the next word, others name containers.
    fn selector(line: &str) -> Selector {
        let mut selector = Selector::default();
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap();
            match word {
                "-E" => selector.exclude.push(value().parse().unwrap()),
                "-p" => selector.projects.push(value().into()),
                "-s" => selector.services.push(value().into()),
                "-f" => selector.filters.push(value().parse().unwrap()),
                name => selector.names.push(name.parse().unwrap()),
            }
        }
        selector
    }

    fn selected(selector: &Selector) -> String {
        let containers = containers();
        let names = containers.iter().filter(|container| selector.matches(container)).map(|c| c.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_container_is_selected_when_every_kind_of_condition_holds() {
        for (line, expected) in [
            ("", "web-1 web-2 db wiki lone"),
            ("web-1", "web-1"),
            ("/web-1", "web-1"),
            ("web", ""),
            ("web-1 lone", "web-1 lone"),
            ("aa1", "web-1"),
            ("aa", "web-1 web-2"),
            ("AA", ""),
            ("db", "db wiki"),
            ("web-*", "web-1 web-2"),
            ("w?ki", "wiki"),
            ("web-[13]", "web-1"),
            ("{db,lone}", "db lone"),
            ("aa*", ""),
            ("web-* lone", "web-1 web-2 lone"),
            ("-E web-*", "db wiki lone"),
            ("-E web-1 -E lone", "web-2 db wiki"),
            ("web-* -E *-2", "web-1"),
            ("web-1 -E web-1", ""),
            ("-E aa", "web-1 web-2 db wiki lone"),
            ("-p shop", "web-1 web-2 db"),
            ("-p shop -p wiki", "web-1 web-2 db wiki"),
            ("-p sho", ""),
            ("-s web", "web-1 web-2 wiki"),
            ("-s web -s db", "web-1 web-2 db wiki"),
            ("-p shop -s web", "web-1 web-2"),
            ("lone -p shop", ""),
            ("-f name=web", "web-1 web-2"),
            ("-f name=e", "web-1 web-2 lone"),
            ("-f name=^web-1$", "web-1"),
            ("-f name=^/web-1$", "web-1"),
            ("-f name=^/?db", "db"),
            ("-f name=db -f name=lone", "db lone"),
            ("-f id=aa", "web-1 web-2"),
            ("-f id=a1", ""),
            ("-f id=aa1 -f id=cc", "web-1 lone"),
            ("-f label=tier", "web-1 web-2 db"),
            ("-f label=tier=front", "web-1 web-2"),
            ("-f label=tier=fro", ""),
            ("-f label=old=", "web-2"),
            ("-f label=tier -f label=old", "web-2"),
            ("-f label=tier=front -f label=tier=back", ""),
            ("-f status=running", "web-1 wiki"),
            ("-f status=exited -f status=created", "web-2 lone"),
            ("-f status=running -f name=web", "web-1"),
            ("-f NAME=db", "db"),
            ("-f network=none -f volume=v -f ancestor=a -f health=none", "web-1 web-2 db wiki lone"),
        ] {
            assert_eq!(selected(&selector(line)), expected, "{line:?}");
        }
    }

    /// A label that an event cannot show decides nothing before the engine was asked, and all else does.
    #[test]
    fn a_hidden_label_leaves_open_whether_a_container_matches() {
        let hidden: &[&str] = &["name", "image"];
        for (line, of_event, labels, matches, may_match) in [
            ("-f label=name", hidden, &[][..], false, true),
            ("-f label=name=web", hidden, &[], false, true),
            ("-f label=image=x -f label=tier", hidden, &[], false, false),
            ("-f label=image=x -f label=tier", hidden, &["tier"], false, true),
            ("other -f label=name", hidden, &[], false, false),
            ("-f label=tier", hidden, &[], false, false),
            ("-f label=tier", hidden, &["tier"], true, true),
            ("-f label=name", &[], &[], false, false),
            ("-f label=name", &[], &["name"], true, true),
            ("", hidden, &[], true, true),
        ] {
            let labels = labels.iter().map(|label| ((*label).to_owned(), String::new())).collect();
            let container = Container { labels, hidden: of_event, ..named("web", "aa") };
            let selector = selector(line);
            let got = (selector.matches(&container), selector.may_match(&container));
            assert_eq!(got, (matches, may_match), "{line} {:?}", container.labels);
        }
    }

    #[test]
    fn a_word_that_is_no_selection_says_what_would_be() {
        let keys = "name, id, label, ancestor, status, network, volume, health, before, since, exited, expose, publish, is-task";
        for (text, expected) in [
            ("status", format!("expected KEY=VALUE, KEY being one of {keys}")),
            ("=x", format!("expected KEY=VALUE, KEY being one of {keys}")),
            ("name=", format!("expected KEY=VALUE, KEY being one of {keys}")),
            ("limit=1", format!("no filter is called `limit`; there are {keys}")),
            ("exited=x", "`exited` cannot be `x`, only a whole number".into()),
            ("is-task=1", "`is-task` cannot be `1`, only true, false".into()),
            ("expose=x", format!("`expose` cannot be `x`, only {PORTS}")),
            ("publish=90-80", format!("`publish` cannot be `90-80`, only {PORTS}")),
            ("publish=80/ip", format!("`publish` cannot be `80/ip`, only {PORTS}")),
            ("expose=65536", format!("`expose` cannot be `65536`, only {PORTS}")),
            ("expose=+1", format!("`expose` cannot be `+1`, only {PORTS}")),
            ("health=ill", "`health` cannot be `ill`, only starting, healthy, unhealthy, none".into()),
            ("name=(", "no regular expression: unclosed group".into()),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap_err().to_string(), expected, "{text:?}");
        }
        let told = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(told(""), "a container's name cannot be empty");
        assert_eq!(told("/"), "a container's name cannot be empty");
        assert_eq!(told("web-["), "no glob: unclosed character class; missing ']'");
    }

    #[test]
    fn what_the_engine_evaluates_is_taken_in_every_form() {
        for text in
            ["exited=0", "exited=-1", "expose=80", "publish=80/UDP", "expose=80-90/sctp", "is-task=true", "before=a"]
        {
            assert!(matches!(text.parse(), Ok(Filter::Remote(..))), "{text}");
        }
        for (pattern, expected) in
            [(r"^web-\d$", r"^web-\d$"), (r"a\Qb.c\E.d\\Qe", r"ab\.c.d\\Qe"), (r"\Q.", r"\."), (r"\", r"\")]
        {
            assert_eq!(unquoted(pattern), expected);
        }
    }

    /// What was there has its verdict, what comes later is newer than anything.
    #[test]
    fn the_order_of_creation_is_settled_once() {
        let ids = |names: &[&str]| -> HashSet<String> {
            containers().into_iter().filter(|c| names.contains(&c.name.as_str())).map(|c| c.id).collect()
        };
        let known = ids(&["web-1", "web-2", "db"]);
        for (line, expected) in [
            ("-f since=web-2", "db wiki lone"),
            ("-f before=wiki", "db"),
            ("-f before=wiki -f since=web-2 -f status=paused", "db"),
            ("-f since=web-2 -f name=web", ""),
        ] {
            let mut selector = selector(line);
            assert!(!selector.order().is_empty());
            selector.set_order(known.clone(), ids(&["db"]));
            assert_eq!((selected(&selector), selector.remote()), (expected.to_owned(), Filters::new()), "{line}");
        }
        assert!(selector("-f network=n -f status=dead").order().is_empty());
    }

    fn filters(line: &str, of: impl Fn(&Selector) -> Filters) -> String {
        of(&selector(line)).iter().map(|(key, values)| format!("{key}={} ", values.join("|"))).collect()
    }

    #[test]
    fn the_engine_is_asked_only_what_it_can_answer_as_we_would() {
        let everything =
            "-f ancestor=nginx -f ancestor=redis -f network=n -f name=a -f id=b -f status=dead -f label=c=d";
        for (line, remote, listing) in [
            ("", "", ""),
            ("web-1 -E x", "", ""),
            (everything, "ancestor=nginx|redis network=n ", "ancestor=nginx|redis label=c=d network=n status=dead "),
            ("-f volume=/v -f health=none", "health=none volume=/v ", "health=none volume=/v "),
            ("-p shop -s web", "", "label=com.docker.compose.project=shop|com.docker.compose.service=web "),
            ("-p shop -p wiki -f label=k", "", "label=k "),
        ] {
            assert_eq!(filters(line, Selector::remote), remote, "{line:?}");
            assert_eq!(filters(line, Selector::listing), listing, "{line:?}");
        }
    }

    #[test]
    fn a_status_other_than_running_asks_for_stopped_containers() {
        for (line, expected) in [
            ("", false),
            ("web-1", false),
            ("-f status=running", false),
            ("-f status=exited", true),
            ("-f status=running -f status=created", true),
        ] {
            assert_eq!(selector(line).includes_stopped(), expected, "{line:?}");
        }
    }

    #[test]
    fn a_container_is_named_by_words_and_globs_alone() {
        for (line, expected) in
            [("", ""), ("-p shop", ""), ("lone", "lone"), ("w*", "web-1 web-2 wiki"), ("cc", "lone")]
        {
            let selector = selector(line);
            let containers = containers();
            let named: Vec<&str> =
                containers.iter().filter(|c| selector.names_container(c)).map(|c| c.name.as_str()).collect();
            assert_eq!(named.join(" "), expected, "{line:?}");
        }
    }

    #[test]
    fn words_that_stand_for_nothing_are_told_and_globs_are_not() {
        for (line, expected) in [
            ("", &[][..]),
            ("web-1 lone aa2", &[]),
            ("web web-1 ff", &["web", "ff"]),
            ("nothing-* web", &["web"]),
            ("web -p shop", &["web"]),
        ] {
            assert_eq!(selector(line).unmatched(containers().iter()), expected, "{line:?}");
        }
    }

    fn named(name: &str, id: &str) -> Container {
        Container { id: format!("{id:0<64}"), name: name.into(), ..Container::default() }
    }

    /// A word is read as docker reads it: an ID, else a name, else the beginning of one ID.
    #[test]
    fn a_word_stands_for_what_docker_takes_it_for() {
        let id = format!("{:0<64}", "bb1");
        for (words, expected) in [
            ("db", Ok("db")),
            ("wiki", Ok("wiki")),
            ("aa1", Ok("web-1")),
            ("db1", Ok("wiki")),
            ("aa1 db", Ok("web-1 db")),
            (&id, Ok("db")),
            ("ff", Ok("")),
            ("aa", Err("2 containers have an ID that begins with aa, web-1 and web-2 among them")),
            ("a", Err("2 containers have an ID that begins with a, web-1 and web-2 among them")),
            ("lone aa", Err("2 containers have an ID that begins with aa, web-1 and web-2 among them")),
            ("aa*", Ok("")),
        ] {
            let mut selector = selector(words);
            let settled = selector.settle(containers().iter()).map(|()| selected(&selector));
            assert_eq!(
                settled.map_err(|error| error.to_string()),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{words}"
            );
        }
    }

    /// A name goes before an ID whenever it appears, and is kept while nobody has it.
    #[test]
    fn a_name_that_appears_takes_its_word_from_an_id() {
        let (other, late) = (named("other", "ed1"), named("late", "ed2"));
        let (ed, renamed) = (named("ed", "11"), named("away", "11"));
        let long = named("long", "ed1234567890");
        /// What comes one after the other, and whom `words` select behind each.
        type Steps<'a> = &'a [(&'a Container, Option<&'a Container>, &'a [&'a Container])];
        let steps: [(&str, &[Container], Steps<'_>); 5] = [
            (
                "ed",
                std::slice::from_ref(&other),
                &[(&other, None, &[&other]), (&late, None, &[&other]), (&ed, Some(&other), &[&ed])],
            ),
            // The name is gone and nobody else is meant by it.
            ("ed", &[ed.clone(), other.clone()], &[(&renamed, None, &[]), (&late, None, &[]), (&ed, None, &[&ed])]),
            // What stands for nothing is waited for as a name, unless it is as long as an ID.
            ("ed", &[], &[(&late, None, &[]), (&ed, None, &[&ed])]),
            ("ed1234567890", &[], &[(&late, None, &[]), (&long, None, &[&long])]),
            ("ed other", std::slice::from_ref(&other), &[(&ed, Some(&other), &[&other, &ed])]),
        ];
        for (words, listed, steps) in steps {
            let mut selector = selector(words);
            selector.settle(listed.iter()).unwrap();
            let mut seen = listed.to_vec();
            for (container, let_go, selected) in steps {
                assert_eq!(selector.learn(container), let_go.map(|gone| gone.id.clone()), "{words} {}", container.name);
                seen.retain(|known| known.id != container.id);
                seen.push((*container).clone());
                let got: Vec<&str> = seen.iter().filter(|c| selector.matches(c)).map(|c| c.name.as_str()).collect();
                let mut expected: Vec<&str> = selected.iter().map(|c| c.name.as_str()).collect();
                expected.sort_by_key(|name| seen.iter().position(|c| c.name == *name));
                assert_eq!(got, expected, "{words} behind {}", container.name);
            }
        }
    }
}

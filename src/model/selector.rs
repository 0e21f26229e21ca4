//! Which containers the user selects.
//!
//! A container is selected if it meets at least one condition of every kind that was given (names, projects, services,
//! and each filter key) and no exclusion. Only `label` filters must all hold, like with `docker ps
//! --filter` (moby `daemon/list.go`: includeContainerInList).
//!
//! | condition | what it is compared with |
//! |---|---|
//! | `CONTAINER` | the whole name, the start of the ID, or, if it contains one of `*?[{`, the name as a glob |
//! | `--exclude-container` | the name, as a glob |
//! | `--project`, `--service` | the labels that Compose sets |
//! | `name` | a regular expression, unanchored, on the name with and without a leading slash |
//! | `id` | the start of the ID |
//! | `label` | `key` present, or `key=value` exactly |
//! | `status` | the state |
//! | `before`, `since` | what the engine lists when the watch begins: [`CreationOrder`] |
//! | `ancestor`, `network`, `volume`, `health`, `exited`, `expose`, `publish`, `is-task` | only the engine can evaluate these: [`Selector::daemon_filters`] |

use super::container::Container;
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;

/// Filters in the form that the list and events endpoints take: each key with its values.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Which containers are selected. The default selects all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    /// Any of these containers; empty means all.
    pub names: Vec<Pattern>,
    /// None of these containers.
    pub exclude: Vec<Glob>,
    /// Any of these Compose projects; empty means all.
    pub projects: Vec<String>,
    /// Any of these Compose services; empty means all.
    pub services: Vec<String>,
    /// Filters of `docker ps --filter`.
    pub filters: Vec<Filter>,
}

/// What one `CONTAINER` argument selects.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// A whole name, or the start of an ID, not resolved yet.
    Unresolved(String),
    /// A whole name. It does not match IDs: see [`Selector::resolve_names`].
    Name(String),
    /// An argument that is no container's name, and the ID that starts with it.
    Id(String, String),
    /// A glob over names.
    Glob(Glob),
}

/// A glob over container names.
#[derive(Clone, Debug)]
pub(crate) struct Glob(GlobMatcher);

/// One `KEY=VALUE` of `docker ps --filter`.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    /// Matches the name, with or without a leading slash.
    Name(Regex),
    /// Matches the start of the ID.
    Id(String),
    /// Matches a label by its key, and by its value if one is given.
    Label(String, Option<String>),
    /// Matches a state, which is one of [`STATES`].
    Status(String),
    /// Key and value of a filter that only the engine can evaluate.
    Remote(&'static str, String),
    /// The result of the filters `before` and `since`.
    Order(CreationOrder),
}

/// The filters that compare the creation time of a container with that of another one.
const ORDERS: [&str; 2] = ["before", "since"];

/// Which containers were created before or since another one. The engine is queried once, because the order never
/// changes and the other container may be removed later, after which the engine rejects the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CreationOrder {
    /// The IDs of all containers that existed.
    pub known: HashSet<String>,
    /// Those of `known` that pass the filter.
    pub passing: HashSet<String>,
    /// Whether containers that are created later pass.
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

/// A key of `--filter`.
pub(crate) struct FilterKey {
    /// The text before the `=`.
    pub name: &'static str,
    /// A short description for completion.
    pub help: &'static str,
    /// The allowed values; empty if they are not a fixed set.
    pub values: &'static [&'static str],
}

/// The states that a container can be in.
pub(crate) const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// The results of a health check.
const HEALTH: &[&str] = &["starting", "healthy", "unhealthy", "none"];

/// The keys of `--filter`.
pub(crate) const KEYS: &[FilterKey] = &[
    FilterKey { name: "name", help: "Name, as a regular expression", values: &[] },
    FilterKey { name: "id", help: "ID prefix", values: &[] },
    FilterKey { name: "label", help: "Label `key` or `key=value`", values: &[] },
    FilterKey { name: "ancestor", help: "Image, or an image built on it", values: &[] },
    FilterKey { name: "status", help: "State", values: STATES },
    FilterKey { name: "network", help: "Network name or ID", values: &[] },
    FilterKey { name: "volume", help: "Volume name or mount point", values: &[] },
    FilterKey { name: "health", help: "Result of the health check", values: HEALTH },
    FilterKey { name: "before", help: "Created before this container", values: &[] },
    FilterKey { name: "since", help: "Created since this container", values: &[] },
    FilterKey { name: "exited", help: "Exit code", values: &[] },
    FilterKey { name: "expose", help: "Exposed `port[/proto]`, or a range of ports", values: &[] },
    FilterKey { name: "publish", help: "Published `port[/proto]`, or a range of ports", values: &[] },
    FilterKey { name: "is-task", help: "Whether it is a Swarm task", values: &["true", "false"] },
];

/// The values of `exited`, for error messages.
const CODES: &str = "a whole number";
/// The values of `expose` and `publish`, for error messages.
const PORTS: &str = "`PORT[/PROTOCOL]` or `FIRST-LAST[/PROTOCOL]`, where PROTOCOL is tcp, udp or sctp";

/// Why an argument is not a valid selection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Most likely an unset variable in a script. As an ID prefix it would select everything.
    #[error("a container's name cannot be empty")]
    Empty,
    #[error("invalid pattern: {0}")]
    Glob(String),
    #[error("invalid regular expression: {0}")]
    Regex(String),
    /// There is no `=`, or nothing before or after it.
    #[error("expected KEY=VALUE, where KEY is one of {}", keys())]
    NoPair,
    #[error("unknown filter `{key}`; expected one of {}", keys())]
    Key { key: String },
    /// The key takes only certain values.
    #[error("`{key}` cannot be `{value}`: expected one of {}", listed(*.allowed))]
    Value { key: &'static str, value: String, allowed: &'static [&'static str] },
    /// The value does not have the form that the key takes.
    #[error("`{key}` cannot be `{value}`: expected {form}")]
    Form { key: &'static str, value: String, form: &'static str },
}

/// An argument that is no container's name, and the start of several IDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} container IDs start with {argument}, including those of {} and {}", names[0], names[1])]
pub(crate) struct Ambiguous {
    pub argument: String,
    /// The names of two of the containers.
    pub names: [String; 2],
    /// How many containers there are.
    pub count: usize,
}

fn keys() -> String {
    listed(KEYS.iter().map(|key| &key.name))
}

fn listed<'a>(values: impl IntoIterator<Item = &'a &'a str>) -> String {
    values.into_iter().copied().collect::<Vec<_>>().join(", ")
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // The API writes names with a leading slash, and `docker logs /web` works too.
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(Error::Empty);
        }
        // Names cannot contain these characters (moby `daemon/names/names.go`).
        if text.contains(['*', '?', '[', '{']) {
            text.parse().map(Pattern::Glob)
        } else {
            Ok(Pattern::Unresolved(text.into()))
        }
    }
}

impl Pattern {
    fn names(&self, container: &Container) -> bool {
        match self {
            Pattern::Unresolved(argument) => container.name == *argument || container.id.starts_with(&**argument),
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
        // Docker also ignores blanks around the key and its case (docker/cli `opts/opts.go`: FilterOpt).
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

/// Whether the text is like `80`, `80/udp` or `80-90/tcp` (moby `daemon/list.go`: portOp).
fn is_ports(text: &str) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let is_range = port(first).zip(port(last)).is_some_and(|(first, last)| first <= last);
    is_range && matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp")
}

/// Replaces `\Q…\E` in a regular expression of Go by escapes. It is the only syntax of Go that our
/// library does not support.
fn unquoted(pattern: &str) -> String {
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = escape.strip_prefix("\\Q") {
            let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = after;
        } else {
            // A character after a backslash cannot start a quotation.
            let len = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(&escape[..len]);
            rest = &escape[len..];
        }
    }
    out + rest
}

/// The reason why a pattern is invalid: the last line of the library's message, without its drawing of the pattern.
pub(crate) fn reason(error: &regex::Error) -> String {
    let message = error.to_string();
    let last = message.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl Selector {
    /// Whether the container meets all conditions that can be checked without the engine. The filters of
    /// [`Selector::daemon_filters`] must be checked by the engine in addition.
    pub(crate) fn matches(&self, container: &Container) -> bool {
        let one_of = |values: &[String], has: Option<&str>| values.is_empty() || values.iter().any(|v| has == Some(v));
        (self.names.is_empty() || self.names_container(container))
            && !self.exclude.iter().any(|glob| glob.matches(&container.name))
            && one_of(&self.projects, container.project())
            && one_of(&self.services, container.service())
            && self.passes(container)
    }

    /// Whether [`Selector::matches`] may become true once the hidden labels of the container are known.
    pub(crate) fn may_match(&self, container: &Container) -> bool {
        let is_hidden =
            |filter: &Filter| matches!(filter, Filter::Label(key, _) if container.hidden.contains(&key.as_str()));
        if !self.filters.iter().any(is_hidden) {
            return self.matches(container);
        }
        let filters = self.filters.iter().filter(|filter| !is_hidden(filter)).cloned().collect();
        Selector { filters, ..self.clone() }.matches(container)
    }

    /// Whether a `CONTAINER` argument matches the container. Such a container is selected even if it is stopped.
    pub(crate) fn names_container(&self, container: &Container) -> bool {
        self.names.iter().any(|pattern| pattern.names(container))
    }

    /// The filters that only the engine can evaluate.
    pub(crate) fn daemon_filters(&self) -> Filters {
        let mut filters = Filters::new();
        for filter in &self.filters {
            if let Filter::Remote(key, value) = filter {
                filters.entry((*key).to_owned()).or_default().push(value.clone());
            }
        }
        filters
    }

    /// The filters `before` and `since`, which [`Selector::set_order`] replaces by their result.
    pub(crate) fn order(&self) -> Filters {
        let mut filters = self.daemon_filters();
        filters.retain(|key, _| ORDERS.contains(&key.as_str()));
        filters
    }

    /// Sets the result of the filters of [`Selector::order`]: of all containers in `known`, those in `passing` pass. A
    /// container that is created later passes `since` and never passes `before`.
    pub(crate) fn set_order(&mut self, known: HashSet<String>, passing: HashSet<String>) {
        let takes_new = !self.order().contains_key("before");
        self.filters.retain(|filter| !matches!(filter, Filter::Remote(key, _) if ORDERS.contains(key)));
        self.filters.push(Filter::Order(CreationOrder { known, passing, takes_new }));
    }

    /// Whether a filter selects stopped containers, which lists them without `--all`, like in `docker ps`.
    pub(crate) fn includes_stopped(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter, Filter::Status(state) if state != "running"))
    }

    /// The `CONTAINER` arguments that match none of these containers. Globs are not among them, because
    /// they may match later.
    pub(crate) fn unmatched<'a>(&self, seen: impl Iterator<Item = &'a Container>) -> Vec<&str> {
        let mut left: Vec<&Pattern> = self.names.iter().filter(|name| !matches!(name, Pattern::Glob(_))).collect();
        for container in seen {
            left.retain(|pattern| !pattern.names(container));
        }
        left.into_iter()
            .filter_map(|pattern| match pattern {
                Pattern::Unresolved(argument) | Pattern::Name(argument) | Pattern::Id(argument, _) => {
                    Some(argument.as_str())
                }
                Pattern::Glob(_) => None,
            })
            .collect()
    }

    /// Resolves each `CONTAINER` argument against all existing containers, in docker's order: a whole ID, a name, the
    /// start of one ID (moby `daemon/container.go`: GetContainer). As in docker, the start of several IDs is an error.
    ///
    /// An argument that matches nothing yet can only match a name later: as an ID prefix, `db` would select one in 256
    /// of all new containers. Only an argument as long as the IDs that docker prints may still match an ID.
    pub(crate) fn resolve_names<'a>(
        &mut self,
        listed: impl Iterator<Item = &'a Container> + Clone,
    ) -> Result<(), Ambiguous> {
        for pattern in &mut self.names {
            let Pattern::Unresolved(argument) = pattern else { continue };
            let argument = std::mem::take(argument);
            *pattern = resolve(argument, listed.clone())?;
        }
        Ok(())
    }

    /// Updates the arguments for a container that is new or has a new name. A name always takes precedence over the
    /// start of an ID. Once a container had the name, the argument stands for that name for good: while a container is
    /// being recreated, its argument must not match the ID of another one. Returns the ID that an argument
    /// stood for until now.
    pub(crate) fn update_names(&mut self, container: &Container) -> Option<String> {
        let mut released = None;
        for pattern in &mut self.names {
            match pattern {
                Pattern::Unresolved(argument) | Pattern::Id(argument, _) if *argument == container.name => {
                    let name = Pattern::Name(std::mem::take(argument));
                    if let Pattern::Id(_, id) = std::mem::replace(pattern, name) {
                        released = Some(id);
                    }
                }
                Pattern::Unresolved(argument) if container.id.starts_with(&**argument) => {
                    *pattern = Pattern::Id(std::mem::take(argument), container.id.clone());
                }
                Pattern::Unresolved(_) | Pattern::Name(_) | Pattern::Id(..) | Pattern::Glob(_) => {}
            }
        }
        released
    }

    /// Whether the filters hold. Filters of one key are alternatives, except that every label must hold.
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

fn resolve<'a>(argument: String, listed: impl Iterator<Item = &'a Container> + Clone) -> Result<Pattern, Ambiguous> {
    let starts_id = |id: &str| id.starts_with(&*argument);
    if listed.clone().any(|container| container.id == argument) {
        return Ok(Pattern::Id(argument.clone(), argument));
    }
    if listed.clone().any(|container| container.name == argument) {
        return Ok(Pattern::Name(argument));
    }
    let mut found = listed.filter(|container| starts_id(&container.id));
    match (found.next(), found.next()) {
        (None, _) if is_like_an_id(&argument) => Ok(Pattern::Unresolved(argument)),
        (None, _) => Ok(Pattern::Name(argument)),
        (Some(one), None) => Ok(Pattern::Id(argument, one.id.clone())),
        (Some(one), Some(another)) => {
            Err(Ambiguous { names: [one.name.clone(), another.name.clone()], count: 2 + found.count(), argument })
        }
    }
}

/// Whether the text is at least as long as the short IDs that docker prints.
fn is_like_an_id(argument: &str) -> bool {
    argument.len() >= 12 && argument.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
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

    /// Parses arguments like `watch`: `-E`, `-p`, `-s` (service) and `-f` take a value, others name containers.
    fn selector(line: &str) -> Selector {
        let mut selector = Selector::default();
        let mut arguments = line.split_whitespace();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap();
            match argument {
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
    fn containers_must_meet_every_kind_of_condition() {
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

    /// A label that an event hides decides nothing before the engine was queried; everything else does.
    #[test]
    fn hidden_labels_leave_a_match_open() {
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
    fn invalid_selections_name_the_valid_ones() {
        let keys = "name, id, label, ancestor, status, network, volume, health, before, since, exited, expose, publish, is-task";
        for (text, expected) in [
            ("status", format!("expected KEY=VALUE, where KEY is one of {keys}")),
            ("=x", format!("expected KEY=VALUE, where KEY is one of {keys}")),
            ("name=", format!("expected KEY=VALUE, where KEY is one of {keys}")),
            ("limit=1", format!("unknown filter `limit`; expected one of {keys}")),
            ("exited=x", "`exited` cannot be `x`: expected a whole number".into()),
            ("is-task=1", "`is-task` cannot be `1`: expected one of true, false".into()),
            ("expose=x", format!("`expose` cannot be `x`: expected {PORTS}")),
            ("publish=90-80", format!("`publish` cannot be `90-80`: expected {PORTS}")),
            ("publish=80/ip", format!("`publish` cannot be `80/ip`: expected {PORTS}")),
            ("expose=65536", format!("`expose` cannot be `65536`: expected {PORTS}")),
            ("expose=+1", format!("`expose` cannot be `+1`: expected {PORTS}")),
            ("health=ill", "`health` cannot be `ill`: expected one of starting, healthy, unhealthy, none".into()),
            ("name=(", "invalid regular expression: unclosed group".into()),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap_err().to_string(), expected, "{text:?}");
        }
        let message = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(message(""), "a container's name cannot be empty");
        assert_eq!(message("/"), "a container's name cannot be empty");
        assert_eq!(message("web-["), "invalid pattern: unclosed character class; missing ']'");
    }

    #[test]
    fn filters_for_the_engine_are_accepted_in_every_form() {
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

    /// The result holds for existing containers; later ones are newer than any of them.
    #[test]
    fn creation_order_is_resolved_once() {
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
            assert_eq!(
                (selected(&selector), selector.daemon_filters()),
                (expected.to_owned(), Filters::new()),
                "{line}"
            );
        }
        assert!(selector("-f network=n -f status=dead").order().is_empty());
    }

    #[test]
    fn the_engine_gets_only_filters_that_we_cannot_evaluate() {
        let everything =
            "-f ancestor=nginx -f ancestor=redis -f network=n -f name=a -f id=b -f status=dead -f label=c=d";
        for (line, expected) in [
            ("", ""),
            ("web-1 -E x", ""),
            (everything, "ancestor=nginx|redis network=n"),
            ("-f volume=/v -f health=none", "health=none volume=/v"),
            ("-p shop -s web", ""),
            ("-p shop -p wiki -f label=k", ""),
        ] {
            let remote = selector(line).daemon_filters();
            let filters: Vec<String> =
                remote.iter().map(|(key, values)| format!("{key}={}", values.join("|"))).collect();
            assert_eq!(filters.join(" "), expected, "{line:?}");
        }
    }

    #[test]
    fn a_status_other_than_running_selects_stopped_containers() {
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
    fn only_names_and_globs_name_a_container() {
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
    fn unmatched_arguments_are_reported_except_globs() {
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

    /// Arguments resolve like in docker: an ID, else a name, else the start of one ID.
    #[test]
    fn arguments_resolve_like_in_docker() {
        let id = format!("{:0<64}", "bb1");
        for (line, expected) in [
            ("db", Ok("db")),
            ("wiki", Ok("wiki")),
            ("aa1", Ok("web-1")),
            ("db1", Ok("wiki")),
            ("aa1 db", Ok("web-1 db")),
            (&id, Ok("db")),
            ("ff", Ok("")),
            ("aa", Err("2 container IDs start with aa, including those of web-1 and web-2")),
            ("a", Err("2 container IDs start with a, including those of web-1 and web-2")),
            ("lone aa", Err("2 container IDs start with aa, including those of web-1 and web-2")),
            ("aa*", Ok("")),
        ] {
            let mut selector = selector(line);
            let resolved = selector.resolve_names(containers().iter()).map(|()| selected(&selector));
            assert_eq!(
                resolved.map_err(|error| error.to_string()),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{line}"
            );
        }
    }

    /// A new name always takes precedence over an ID, and stays reserved while no container has it.
    #[test]
    fn a_new_name_takes_its_argument_from_an_id() {
        let (other, late) = (named("other", "ed1"), named("late", "ed2"));
        let (ed, renamed) = (named("ed", "11"), named("away", "11"));
        let long = named("long", "ed1234567890");
        /// Containers that appear one after the other, each with the ID it replaces and
        /// the selected containers afterwards.
        type Steps<'a> = &'a [(&'a Container, Option<&'a Container>, &'a [&'a Container])];
        let steps: [(&str, &[Container], Steps<'_>); 5] = [
            (
                "ed",
                std::slice::from_ref(&other),
                &[(&other, None, &[&other]), (&late, None, &[&other]), (&ed, Some(&other), &[&ed])],
            ),
            // The name is gone, and the argument matches no other container.
            ("ed", &[ed.clone(), other.clone()], &[(&renamed, None, &[]), (&late, None, &[]), (&ed, None, &[&ed])]),
            // An argument that matches nothing waits for a name, unless it is as long as an ID.
            ("ed", &[], &[(&late, None, &[]), (&ed, None, &[&ed])]),
            ("ed1234567890", &[], &[(&late, None, &[]), (&long, None, &[&long])]),
            ("ed other", std::slice::from_ref(&other), &[(&ed, Some(&other), &[&other, &ed])]),
        ];
        for (line, listed, steps) in steps {
            let mut selector = selector(line);
            selector.resolve_names(listed.iter()).unwrap();
            let mut seen = listed.to_vec();
            for (container, released, selected) in steps {
                assert_eq!(
                    selector.update_names(container),
                    released.map(|old| old.id.clone()),
                    "{line} {}",
                    container.name
                );
                seen.retain(|known| known.id != container.id);
                seen.push((*container).clone());
                let got: Vec<&str> = seen.iter().filter(|c| selector.matches(c)).map(|c| c.name.as_str()).collect();
                let mut expected: Vec<&str> = selected.iter().map(|c| c.name.as_str()).collect();
                expected.sort_by_key(|name| seen.iter().position(|c| c.name == *name));
                assert_eq!(got, expected, "{line} after {}", container.name);
            }
        }
    }
}

//! Shell completion in the protocol of the docker CLI, which is that of spf13/cobra (`completions.go`).
//!
//! The request contains the arguments typed so far; the last one, possibly empty, is to be completed. The answer has
//! one candidate per line, with its description after a tab, and a last line `:N` that says what the shell may offer
//! besides. Docker passes the answer on unchanged, but spoils it if the exit code is not 0: on any error there are no
//! candidates. Everything about options comes from the clap definitions. The *value name* of an option determines
//! which names it takes (containers, projects, ...), so a new option needs no change here.

use super::StandaloneFlags;
use crate::docker::{Environment, Flags, endpoint};
use crate::metrics::events::ACTIONS;
use crate::model::container::{Container, short};
use crate::model::selector::{FilterKey, KEYS};
use crate::output::safe;
use clap::{Arg, ArgAction, Command, FromArgMatches, ValueHint};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What the shell does besides offering the candidates. The numbers are sums of cobra's `ShellCompDirective` flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    /// Offer files as well.
    Files = 0,
    /// Offer the candidates and nothing else.
    Nothing = 4,
    /// Offer nothing else, and add no space: the argument is not complete yet.
    NoSpace = 6,
    /// Offer directories, but no other files.
    Directories = 16,
}

/// Which names to request from the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// All containers, including stopped ones.
    Containers,
    Networks,
    Volumes,
}

/// Names from the daemon. Only those of the requested [`NameKind`] are set.
#[derive(Clone, Debug, Default)]
pub(super) struct DaemonNames {
    /// Projects, services, images and labels are taken from these.
    pub containers: Vec<Container>,
    pub networks: Vec<String>,
    pub volumes: Vec<String>,
}

/// The longest time to wait for the daemon after the user has pressed a key.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A request for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// The arguments typed so far; the last one is to be completed.
    pub typed: &'a [OsString],
    /// Whether the answer must not have descriptions, because the shell would take them for candidates.
    pub is_bare: bool,
}

/// Returns the request if the arguments are one. It comes from docker, or directly from a shell script: ours, or that
/// of docker before 23.
pub(super) fn request(args: &[OsString]) -> Option<Request<'_>> {
    let (name, typed) = args.split_first()?;
    let is_bare = name == "__completeNoDesc";
    (is_bare || name == "__complete").then_some(Request { typed, is_bare })
}

/// Returns the whole answer. `fetch` gets docker's options as far as they are typed. It is called at most once, and
/// only if names from the daemon are needed. Its result is not awaited for longer than two seconds.
pub(super) fn answer<F>(command: Command, request: Request<'_>, fetch: F) -> String
where
    F: FnOnce(&Flags, NameKind) -> DaemonNames + Send + 'static,
{
    let Request { typed, is_bare } = request;
    let args: Vec<String> = typed.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let flags = typed_flags(command.clone(), &args);
    let fetch = Box::new({
        let flags = flags.clone();
        move |kind| with_timeout(move || fetch(&flags, kind))
    });
    let mut root = command;
    root.build();
    let Some((current, before)) = args.split_last() else {
        return Completions::none(Directive::Nothing).to_text(is_bare);
    };
    CommandLine::parse(&root, before).complete(current, fetch, &flags).to_text(is_bare)
}

/// Docker's options among the typed arguments, which may be incomplete. There are none in a plugin: docker removes
/// them from completion requests.
fn typed_flags(command: Command, args: &[String]) -> Flags {
    let matches = command.no_binary_name(true).ignore_errors(true).try_get_matches_from(args).ok();
    let standalone = matches.filter(|matches| matches.try_contains_id("host").is_ok());
    let flags = standalone.and_then(|matches| StandaloneFlags::from_arg_matches(&matches).ok());
    flags.map(|flags| super::DockerFlags::from(flags).endpoint).unwrap_or_default()
}

/// Calls `fetch` on a thread. After the timeout the thread is abandoned: the process exits after the answer.
fn with_timeout(fetch: impl FnOnce() -> DaemonNames + Send + 'static) -> DaemonNames {
    let (send, receive) = mpsc::channel();
    let fetching = thread::Builder::new().spawn(move || send.send(fetch()));
    fetching.ok().and_then(|_| receive.recv_timeout(TIMEOUT).ok()).unwrap_or_default()
}

type Fetch<'a> = Box<dyn FnOnce(NameKind) -> DaemonNames + 'a>;

/// The arguments before the current one, as far as they can be parsed.
struct CommandLine<'a> {
    command: &'a Command,
    /// The options given so far, with their values; the value is empty for an option that takes none.
    given: Vec<(&'a Arg, String)>,
    operands: Vec<&'a str>,
    /// The option whose value is the next argument.
    pending: Option<&'a Arg>,
    /// Whether `--` was given, after which there are no options.
    is_past_options: bool,
}

impl<'a> CommandLine<'a> {
    fn parse(command: &'a Command, args: &'a [String]) -> Self {
        let mut line =
            CommandLine { command, given: Vec::new(), operands: Vec::new(), pending: None, is_past_options: false };
        for arg in args {
            line.push(arg);
        }
        line
    }

    fn push(&mut self, arg: &'a str) {
        if let Some(flag) = self.pending.take() {
            self.given.push((flag, arg.to_owned()));
        } else if self.is_past_options {
            self.operands.push(arg);
        } else if arg == "--" {
            self.is_past_options = true;
        } else if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if let Some(flag) = self.long(name) {
                self.push_flag(flag, value);
            }
        } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            self.push_letters(letters);
        } else if let Some(command) = self.command.find_subcommand(arg) {
            self.command = command;
        } else {
            self.operands.push(arg);
        }
    }

    /// Adds short options that share a dash. The value of the first one that takes a value is the rest of the argument,
    /// or the next argument.
    fn push_letters(&mut self, letters: &str) {
        for (at, letter) in letters.char_indices() {
            let Some(flag) = self.command.get_arguments().find(|flag| flag.get_short() == Some(letter)) else {
                continue;
            };
            let rest = &letters[at + letter.len_utf8()..];
            if takes_value(flag) {
                let value = rest.strip_prefix('=').unwrap_or(rest);
                return self.push_flag(flag, (!rest.is_empty()).then_some(value));
            }
            self.push_flag(flag, None);
        }
    }

    fn push_flag(&mut self, flag: &'a Arg, value: Option<&str>) {
        match value {
            None if takes_value(flag) => self.pending = Some(flag),
            value => self.given.push((flag, value.unwrap_or_default().to_owned())),
        }
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|flag| flag.get_long() == Some(name))
    }

    fn complete(&self, current: &str, fetch: Fetch<'_>, flags: &Flags) -> Completions {
        if let Some(flag) = self.pending {
            return self.values(flag, current, fetch, flags);
        }
        if !self.is_past_options && current.starts_with('-') {
            // The candidates are only values: the shell keeps what is before the `=`.
            return match current.strip_prefix("--").and_then(|long| long.split_once('=')) {
                Some((name, value)) => match self.long(name) {
                    Some(flag) => self.values(flag, value, fetch, flags),
                    None => Completions::none(Directive::Nothing),
                },
                None => self.flags(current),
            };
        }
        let commands = self.command.get_subcommands().filter(|command| !command.is_hide_set() && !self.is_past_options);
        let commands: Vec<_> =
            commands.map(|command| Candidate::from_help(command.get_name(), command.get_about())).collect();
        if !commands.is_empty() {
            return Completions::new(commands, Directive::Nothing).with_prefix(current);
        }
        match self.operand() {
            Some(operand) => self.values(operand, current, fetch, flags),
            None => Completions::none(Directive::Nothing),
        }
    }

    /// The operand that the current argument is. The last one can be given again if it is repeatable.
    fn operand(&self) -> Option<&'a Arg> {
        let operands: Vec<&Arg> = self.command.get_positionals().collect();
        let repeatable = operands.last().copied().filter(|last| matches!(last.get_action(), ArgAction::Append));
        operands.get(self.operands.len()).copied().or(repeatable)
    }

    /// The options that can still be given.
    fn flags(&self, current: &str) -> Completions {
        let is_repeatable = |flag: &Arg| matches!(flag.get_action(), ArgAction::Append | ArgAction::Count);
        let is_given = |flag: &Arg| self.given.iter().any(|(given, _)| given.get_id() == flag.get_id());
        let is_open = |flag: &&Arg| !flag.is_hide_set() && (is_repeatable(flag) || !is_given(flag));
        let candidates = self.command.get_arguments().filter(is_open).flat_map(|flag| {
            let long = flag.get_long().map(|long| format!("--{long}"));
            let short = flag.get_short().map(|letter| format!("-{letter}"));
            long.into_iter().chain(short).map(|name| Candidate::from_help(&name, flag.get_help()))
        });
        Completions::new(candidates.collect(), Directive::Nothing).with_prefix(current)
    }

    fn values(&self, flag: &Arg, current: &str, fetch: Fetch<'_>, flags: &Flags) -> Completions {
        let only = |candidates| Completions::new(candidates, Directive::Nothing).with_prefix(current);
        let fixed: Vec<_> = flag.get_possible_values().into_iter().filter(|value| !value.is_hide_set()).collect();
        if !fixed.is_empty() {
            return only(fixed.iter().map(|value| Candidate::from_help(value.get_name(), value.get_help())).collect());
        }
        let name = flag.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        match (name, flag.get_value_hint()) {
            ("CONTAINER" | "GLOB", _) => only(self.containers(fetch(NameKind::Containers))),
            ("PROJECT", _) => only(counted(&fetch(NameKind::Containers).containers, Container::project)),
            ("SERVICE", _) => only(counted(&self.of_project(fetch(NameKind::Containers)), Container::service)),
            ("CONTEXT", _) => only(contexts(flags)),
            ("KEY=VALUE", _) if self.command.get_name() == "events" => event_filter(current, fetch),
            ("KEY=VALUE", _) => filter(current, fetch),
            (_, ValueHint::FilePath | ValueHint::AnyPath) => Completions::none(Directive::Files),
            (_, ValueHint::DirPath) => Completions::none(Directive::Directories),
            _ => Completions::none(Directive::Nothing),
        }
    }

    /// The containers whose names have not been given yet.
    fn containers(&self, names: DaemonNames) -> Vec<Candidate> {
        let open = names.containers.iter().filter(|container| !self.operands.contains(&&*container.name));
        open.map(|container| Candidate::new(&container.name, description(container))).collect()
    }

    /// The containers of the projects that are given, or else all.
    fn of_project(&self, names: DaemonNames) -> Vec<Container> {
        let is_project = |flag: &Arg| flag.get_id() == "project";
        let projects: Vec<&str> = self.given.iter().filter(|(f, _)| is_project(f)).map(|(_, v)| v.as_str()).collect();
        let mut containers = names.containers;
        containers
            .retain(|container| projects.is_empty() || container.project().is_some_and(|p| projects.contains(&p)));
        containers
    }
}

/// Whether the next argument can be the value: not if the value must be attached with `=`.
fn takes_value(flag: &Arg) -> bool {
    flag.get_action().takes_values() && !flag.is_require_equals_set()
}

/// Completes a filter of `docker ps`.
fn filter(current: &str, fetch: Fetch<'_>) -> Completions {
    pair(current, KEYS, |key, value| match key {
        "name" | "before" | "since" => {
            described(&fetch(NameKind::Containers).containers, |container| container.name.as_str())
        }
        "id" => described(&fetch(NameKind::Containers).containers, |container| short(&container.id)),
        "label" => labels(&fetch(NameKind::Containers).containers, value),
        "ancestor" => counted(&fetch(NameKind::Containers).containers, |container| Some(&container.image)),
        "network" => plain(fetch(NameKind::Networks).networks),
        "volume" => plain(fetch(NameKind::Volumes).volumes),
        _ => Vec::new(),
    })
}

/// Completes a filter of `docker events`.
fn event_filter(current: &str, fetch: Fetch<'_>) -> Completions {
    pair(current, super::events::KEYS, |key, value| match key {
        "event" => event_names().map(|name| Candidate::new(name, String::new())).collect(),
        "container" => described(&fetch(NameKind::Containers).containers, |container| container.name.as_str()),
        "image" => counted(&fetch(NameKind::Containers).containers, |container| Some(&container.image)),
        "label" => labels(&fetch(NameKind::Containers).containers, value),
        "network" => plain(fetch(NameKind::Networks).networks),
        "volume" => plain(fetch(NameKind::Volumes).volumes),
        _ => Vec::new(),
    })
}

/// The names of events, including the two results of a health check, which users often wait for.
fn event_names() -> impl Iterator<Item = &'static str> {
    ACTIONS.into_iter().chain(["health_status: healthy", "health_status: unhealthy"])
}

/// Completes `KEY=VALUE`: first the key with its `=`, then the value. `values` gets the key and the value so far, for
/// keys without fixed values.
fn pair(current: &str, keys: &[FilterKey], values: impl FnOnce(&str, &str) -> Vec<Candidate>) -> Completions {
    let Some((key, value)) = current.split_once('=') else {
        let keys = keys.iter().map(|key| Candidate::new(&format!("{}=", key.name), key.help.to_owned()));
        return Completions::new(keys.collect(), Directive::NoSpace).with_prefix(current);
    };
    let fixed = keys.iter().find(|known| known.name == key).map_or(&[][..], |known| known.values);
    let values = match fixed {
        [] => values(key, value),
        fixed => fixed.iter().map(|value| Candidate::new(value, String::new())).collect(),
    };
    let pairs = values.into_iter().map(|value| Candidate { text: format!("{key}={}", value.text), ..value });
    Completions::new(pairs.collect(), Directive::Nothing).with_prefix(current)
}

/// The keys of labels, or `KEY=VALUE` for each value of a label if `current` has its key and a `=`.
fn labels(containers: &[Container], current: &str) -> Vec<Candidate> {
    let all = containers.iter().flat_map(|container| &container.labels);
    let mut labels: Vec<String> = match current.split_once('=') {
        None => all.map(|(key, _)| key.clone()).collect(),
        Some((typed, _)) => all.filter(|(key, _)| *key == typed).map(|(key, value)| format!("{key}={value}")).collect(),
    };
    labels.sort();
    labels.dedup();
    plain(labels)
}

/// A candidate for each container, described by image and state.
fn described<'a>(containers: &'a [Container], text: impl Fn(&'a Container) -> &'a str) -> Vec<Candidate> {
    containers.iter().map(|container| Candidate::new(text(container), description(container))).collect()
}

/// A candidate for each distinct value, described by the number of containers that have it.
fn counted<'a>(containers: &'a [Container], value: impl Fn(&'a Container) -> Option<&'a str>) -> Vec<Candidate> {
    let mut counts = BTreeMap::new();
    for value in containers.iter().filter_map(value) {
        *counts.entry(value).or_insert(0) += 1;
    }
    let description = |count| if count == 1 { "1 container".to_owned() } else { format!("{count} containers") };
    counts.into_iter().map(|(value, count)| Candidate::new(value, description(count))).collect()
}

fn plain(texts: Vec<String>) -> Vec<Candidate> {
    texts.into_iter().map(|text| Candidate { text, description: String::new() }).collect()
}

fn description(container: &Container) -> String {
    match container.is_up() {
        true => container.image.clone(),
        false => format!("{}, {}", container.image, container.state),
    }
}

fn contexts(flags: &Flags) -> Vec<Candidate> {
    let found = endpoint::contexts(flags, &Environment::of_process());
    found.into_iter().map(|(name, description)| Candidate::new(&name, description)).collect()
}

#[derive(Clone, Debug)]
struct Candidate {
    text: String,
    /// May be empty. Only its first line is shown.
    description: String,
}

impl Candidate {
    fn new(text: &str, description: String) -> Self {
        Candidate { text: text.to_owned(), description }
    }

    fn from_help(text: &str, help: Option<&clap::builder::StyledStr>) -> Self {
        Candidate::new(text, help.map(ToString::to_string).unwrap_or_default())
    }
}

struct Completions {
    candidates: Vec<Candidate>,
    directive: Directive,
}

impl Completions {
    fn new(candidates: Vec<Candidate>, directive: Directive) -> Self {
        Completions { candidates, directive }
    }

    fn none(directive: Directive) -> Self {
        Completions::new(Vec::new(), directive)
    }

    fn with_prefix(mut self, current: &str) -> Self {
        self.candidates.retain(|candidate| candidate.text.starts_with(current));
        self
    }

    /// Formats the answer. Leaves out candidates that a terminal or the format cannot take unescaped, because escaped
    /// they would not complete to the name.
    fn to_text(&self, is_bare: bool) -> String {
        let mut lines = String::new();
        for Candidate { text, description } in &self.candidates {
            if text.contains('\t') || safe(text) != *text {
                continue;
            }
            lines.push_str(text);
            let description = description.lines().next().unwrap_or_default().replace('\t', " ");
            if !description.is_empty() && !is_bare {
                lines.push('\t');
                lines.push_str(&safe(&description));
            }
            lines.push('\n');
        }
        lines + &format!(":{}\n", self.directive as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, id: &str, state: &str, labels: &[(&str, &str)]) -> Container {
        Container {
            id: id.repeat(64 / id.len()),
            name: name.into(),
            image: "nginx:1".into(),
            labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            state: state.into(),
            ..Container::default()
        }
    }

    fn daemon(_: &Flags, kind: NameKind) -> DaemonNames {
        let shop = ("com.docker.compose.project", "shop");
        let blog = ("com.docker.compose.project", "blog");
        let service = |name| ("com.docker.compose.service", name);
        match kind {
            NameKind::Containers => DaemonNames {
                containers: vec![
                    container("web-1", "ab", "running", &[shop, service("web"), ("tier", "front")]),
                    container("web-2", "cd", "exited", &[shop, service("web"), ("tier", "evil\x1b")]),
                    container("db", "ef", "running", &[blog, service("db")]),
                ],
                ..DaemonNames::default()
            },
            NameKind::Networks => {
                DaemonNames { networks: vec!["bridge".into(), "shop_default".into()], ..DaemonNames::default() }
            }
            NameKind::Volumes => DaemonNames { volumes: vec!["data".into()], ..DaemonNames::default() },
        }
    }

    fn no_daemon(_: &Flags, kind: NameKind) -> DaemonNames {
        panic!("{kind:?} were requested from the daemon")
    }

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn as_plugin<F>(line: &str, fetch: F) -> String
    where
        F: FnOnce(&Flags, NameKind) -> DaemonNames + Send + 'static,
    {
        let typed = &args(line);
        answer(crate::cli::command(true), Request { typed, is_bare: false }, fetch)
    }

    fn check(line: &str, expected: &str) {
        assert_eq!(as_plugin(line, daemon), expected, "{line:?}");
    }

    #[test]
    fn candidates_of_the_definitions_need_no_daemon() {
        let watch = "watch\tFollow the logs of every matching container, including those that start later\n";
        let since = "--since\tStart at this time: `10m` or `1h30m` ago, a date or time, Unix seconds\n:4\n";
        for (line, expected) in [
            ("wa", format!("{watch}:4\n")),
            ("x", ":4\n".into()),
            ("help wa", format!("{watch}:4\n")),
            ("watch --si", since.into()),
            ("watch -p shop --tail=3 --si", since.into()),
            ("watch --since 1h --si", ":4\n".into()),
            ("watch --fi", "--filter\tOnly containers that `docker ps --filter` would list; repeatable\n:4\n".into()),
            (
                "watch -f name=a --fi",
                "--filter\tOnly containers that `docker ps --filter` would list; repeatable\n:4\n".into(),
            ),
            ("watch -E", "-E\tExclude containers whose name matches; repeatable\n:4\n".into()),
            ("watch --ho", ":4\n".into()),
            ("watch --since ", ":4\n".into()),
            ("watch --output ", ":0\n".into()),
            ("watch -o ", ":0\n".into()),
            ("watch --color a", "auto\tOn a terminal\nalways\tAlways\n:4\n".into()),
            ("--color=n", "never\tNever\n:4\n".into()),
            ("watch --format j", "json\tOne JSON object per line\n:4\n".into()),
            ("watch -tao x --format=r", "raw\tThe message only\n:4\n".into()),
            ("watch -f st", "status=\tState\n:6\n".into()),
            ("watch --filter=he", "health=\tResult of the health check\n:6\n".into()),
            ("watch -f status=r", "status=running\nstatus=restarting\nstatus=removing\n:4\n".into()),
            ("watch --filter health=un", "health=unhealthy\n:4\n".into()),
            ("watch -f nonsense=", ":4\n".into()),
            ("watch -f is-task=", "is-task=true\nis-task=false\n:4\n".into()),
            ("watch -f ex", "exited=\tExit code\nexpose=\tExposed `port[/proto]`, or a range of ports\n:6\n".into()),
            ("ev", "events\tPrint the events of the Docker Engine, without gaps\n:4\n".into()),
            ("events -f ty", "type=\tType of object\n:6\n".into()),
            ("events -f type=v", "type=volume\n:4\n".into()),
            ("events -f scope=", "scope=local\nscope=swarm\n:4\n".into()),
            ("events -f event=oo", "event=oom\n:4\n".into()),
            (
                "events -f event=health",
                "event=health_status\nevent=health_status: healthy\nevent=health_status: unhealthy\n:4\n".into(),
            ),
            ("events -f status=", ":4\n".into()),
            ("events ", ":4\n".into()),
        ] {
            assert_eq!(as_plugin(line, no_daemon), expected, "{line:?}");
        }
    }

    #[test]
    fn names_come_from_the_daemon() {
        for (line, expected) in [
            ("watch ", "web-1\tnginx:1\nweb-2\tnginx:1, exited\ndb\tnginx:1\n:4\n"),
            ("watch web-1 we", "web-2\tnginx:1, exited\n:4\n"),
            ("watch -- d", "db\tnginx:1\n:4\n"),
            ("watch -E web-1", "web-1\tnginx:1\n:4\n"),
            ("watch -p ", "blog\t1 container\nshop\t2 containers\n:4\n"),
            ("watch --project=s", "shop\t2 containers\n:4\n"),
            ("watch --service ", "db\t1 container\nweb\t2 containers\n:4\n"),
            ("watch -p shop --service ", "web\t2 containers\n:4\n"),
            ("watch -f name=w", "name=web-1\tnginx:1\nname=web-2\tnginx:1, exited\n:4\n"),
            ("watch -f since=d", "since=db\tnginx:1\n:4\n"),
            ("watch -f id=ef", "id=efefefefefef\tnginx:1\n:4\n"),
            ("watch -f ancestor=", "ancestor=nginx:1\t3 containers\n:4\n"),
            ("watch -f label=t", "label=tier\n:4\n"),
            ("watch -f label=tier=", "label=tier=front\n:4\n"),
            ("watch -f network=", "network=bridge\nnetwork=shop_default\n:4\n"),
            ("watch --filter=volume=d", "volume=data\n:4\n"),
            ("events -f container=w", "container=web-1\tnginx:1\ncontainer=web-2\tnginx:1, exited\n:4\n"),
            ("events -f image=", "image=nginx:1\t3 containers\n:4\n"),
            ("events -f label=tier=", "label=tier=front\n:4\n"),
            ("events -f network=s", "network=shop_default\n:4\n"),
            ("events -f volume=", "volume=data\n:4\n"),
        ] {
            check(line, expected);
        }
    }

    #[test]
    fn standalone_completes_dockers_options_and_uses_them() {
        let standalone = |line: &str, fetch: fn(&Flags, NameKind) -> DaemonNames| {
            let typed = &args(line);
            answer(crate::cli::command(false), Request { typed, is_bare: false }, fetch)
        };
        assert!(standalone("watch --ho", no_daemon).starts_with("--host\tDocker Engine, such as"));
        assert_eq!(standalone("watch --config ", no_daemon), ":16\n");
        assert_eq!(standalone("--tlscacert ", no_daemon), ":0\n");
        let echo = |flags: &Flags, _| {
            let name = format!("{}-{}", flags.context.as_deref().unwrap_or("-"), flags.host.as_deref().unwrap_or("-"));
            DaemonNames { containers: vec![container(&name, "ab", "running", &[])], ..DaemonNames::default() }
        };
        assert_eq!(standalone("-c far watch -q ", echo), "far--\tnginx:1\n:4\n");
        assert_eq!(standalone("watch -Hunix:///s --since -- ", echo), "--unix:///s\tnginx:1\n:4\n");
        assert_eq!(standalone("watch --host=tcp://h --nonsense ", echo), "--tcp://h\tnginx:1\n:4\n");
    }

    #[test]
    fn contexts_come_from_dockers_configuration_directory() {
        let dir = tempfile::tempdir().unwrap();
        for (id, meta) in [
            ("1", r#"{"Name":"far","Metadata":{"Description":"over\tthere"},"Endpoints":{}}"#),
            ("2", r#"{"Name":"away","Metadata":{}}"#),
            ("3", "broken"),
        ] {
            let meta_dir = dir.path().join("contexts/meta").join(id);
            std::fs::create_dir_all(&meta_dir).unwrap();
            std::fs::write(meta_dir.join("meta.json"), meta).unwrap();
        }
        let typed: Vec<OsString> =
            vec!["--config".into(), dir.path().into(), "watch".into(), "--context".into(), "".into()];
        let request = Request { typed: &typed, is_bare: false };
        let answer = answer(crate::cli::command(false), request, no_daemon);
        assert_eq!(answer, "away\ndefault\nfar\tover there\n:4\n");
    }

    #[test]
    fn waiting_for_the_daemon_is_limited() {
        let start = std::time::Instant::now();
        let (_sender, never) = mpsc::channel::<DaemonNames>();
        assert_eq!(as_plugin("watch ", move |_, _| never.recv().unwrap_or_default()), ":4\n");
        assert!(start.elapsed() < TIMEOUT * 2);
    }

    #[test]
    fn a_failing_daemon_gives_no_names() {
        assert_eq!(as_plugin("watch ", |_, _| DaemonNames::default()), ":4\n");
    }

    /// The shell script of docker 20.10 offers every word of the answer, so the answer must not have descriptions.
    #[test]
    fn both_requests_are_answered_one_without_descriptions() {
        for (line, typed, is_bare) in [
            ("__complete watch ", Some("watch "), false),
            ("__completeNoDesc w", Some("w"), true),
            ("watch", None, false),
        ] {
            let args = args(line);
            let expected = typed.map(self::args);
            let request = request(&args);
            assert_eq!(request.map(|request| request.typed.to_vec()), expected, "{line:?}");
            assert_eq!(request.is_some_and(|request| request.is_bare), is_bare, "{line:?}");
        }
        let bare = |line: &str| {
            let typed = &args(line);
            answer(crate::cli::command(true), Request { typed, is_bare: true }, daemon)
        };
        assert_eq!(bare("watch "), "web-1\nweb-2\ndb\n:4\n");
        assert_eq!(bare("watch --color a"), "auto\nalways\n:4\n");
        assert!(!bare("").contains('\t') && !bare("watch --").contains('\t'));
        let nothing = Request { typed: &[], is_bare: true };
        assert_eq!(answer(crate::cli::command(true), nothing, no_daemon), ":4\n");
    }
}

//! Completion as docker asks for it.
//!
//! In: the words typed so far, the last being the one that is completed, be it empty. Out: a candidate a line, with its
//! description behind a tab, and a last line `:N` that tells the shell how to go on (spf13/cobra `completions.go`).
//! Docker passes our answer on as it is, and spoils it when we do not exit with 0: whatever goes wrong, there are just no
//! candidates. All that is known of flags comes from the clap tree; the *name of a flag's value* says which names of
//! containers, projects, ... can stand there, so a new flag needs no word here.

use super::OwnDocker;
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

/// What the shell does with our candidates; the numbers are cobra's and can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Files are offered as well.
    Files = 0,
    /// Nothing else is offered.
    Only = 4,
    /// Nothing else is offered, and the word is not finished.
    GoOn = 6,
    /// Directories are offered.
    Directories = 16,
}

/// What must be asked of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// All containers, stopped ones too.
    Containers,
    /// The names of networks.
    Networks,
    /// The names of volumes.
    Volumes,
}

/// What the engine answered: the kind that was wanted, the others empty.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Projects, services, images and labels are found in these.
    pub containers: Vec<Container>,
    /// By name.
    pub networks: Vec<String>,
    /// By name.
    pub volumes: Vec<String>,
}

/// Nobody waits longer for a key to act.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a shell asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The words typed so far.
    pub typed: &'a [OsString],
    /// The shell takes every word of the answer for a candidate, so there must be no descriptions.
    pub is_bare: bool,
}

/// The question when these words are docker's or, from its older shell script, the question put to us directly.
pub fn asked(words: &[OsString]) -> Option<Question<'_>> {
    let (question, typed) = words.split_first()?;
    let is_bare = question == "__completeNoDesc";
    (is_bare || question == "__complete").then_some(Question { typed, is_bare })
}

/// The whole answer. `fetch` is called at most once, only when the engine's names are needed, and is given up on after
/// two seconds; it gets docker's flags as far as they were typed.
pub fn answer<F>(command: Command, question: Question<'_>, fetch: F) -> String
where
    F: FnOnce(&Flags, Want) -> Live + Send + 'static,
{
    let Question { typed, is_bare } = question;
    let words: Vec<String> = typed.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let flags = typed_flags(command.clone(), &words);
    let ask = Box::new({
        let flags = flags.clone();
        move |want| in_time(move || fetch(&flags, want))
    });
    let mut tree = command;
    tree.build();
    let Some((current, before)) = words.split_last() else {
        return Answer::nothing(Then::Only).written(is_bare);
    };
    Typed::read(&tree, before).complete(current, ask, &flags).written(is_bare)
}

/// Docker's flags among the typed words, unfinished as they are. A plugin has none: docker drops them when it completes.
fn typed_flags(command: Command, words: &[String]) -> Flags {
    let matches = command.no_binary_name(true).ignore_errors(true).try_get_matches_from(words).ok();
    let own = matches.filter(|matches| matches.try_contains_id("host").is_ok());
    let own = own.and_then(|matches| OwnDocker::from_arg_matches(&matches).ok());
    own.map(|own| super::DockerFlags::from(own).endpoint).unwrap_or_default()
}

/// The thread is not waited for beyond the limit: the process ends after the answer.
fn in_time(fetch: impl FnOnce() -> Live + Send + 'static) -> Live {
    let (send, receive) = mpsc::channel();
    let fetching = thread::Builder::new().spawn(move || send.send(fetch()));
    fetching.ok().and_then(|_| receive.recv_timeout(PATIENCE).ok()).unwrap_or_default()
}

type Ask<'a> = Box<dyn FnOnce(Want) -> Live + 'a>;

/// What the words before the current one mean.
struct Typed<'a> {
    command: &'a Command,
    /// Flags given, with their values.
    given: Vec<(&'a Arg, String)>,
    operands: Vec<&'a str>,
    /// The flag whose value comes next.
    awaiting: Option<&'a Arg>,
    /// A `--` has been given: no more flags.
    plain: bool,
}

impl<'a> Typed<'a> {
    fn read(command: &'a Command, words: &'a [String]) -> Self {
        let mut typed = Typed { command, given: Vec::new(), operands: Vec::new(), awaiting: None, plain: false };
        for word in words {
            typed.take(word);
        }
        typed
    }

    fn take(&mut self, word: &'a str) {
        if let Some(flag) = self.awaiting.take() {
            self.given.push((flag, word.to_owned()));
        } else if self.plain {
            self.operands.push(word);
        } else if word == "--" {
            self.plain = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if let Some(flag) = self.long(name) {
                self.give(flag, value);
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            self.take_letters(letters);
        } else if let Some(verb) = self.command.find_subcommand(word) {
            self.command = verb;
        } else {
            self.operands.push(word);
        }
    }

    /// Switches may be joined; the first flag with a value takes the rest, or the next word.
    fn take_letters(&mut self, letters: &str) {
        for (at, letter) in letters.char_indices() {
            let Some(flag) = self.command.get_arguments().find(|flag| flag.get_short() == Some(letter)) else {
                continue;
            };
            let behind = &letters[at + letter.len_utf8()..];
            if takes_value(flag) {
                let value = behind.strip_prefix('=').unwrap_or(behind);
                return self.give(flag, (!behind.is_empty()).then_some(value));
            }
            self.give(flag, None);
        }
    }

    fn give(&mut self, flag: &'a Arg, value: Option<&str>) {
        match value {
            None if takes_value(flag) => self.awaiting = Some(flag),
            value => self.given.push((flag, value.unwrap_or_default().to_owned())),
        }
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|flag| flag.get_long() == Some(name))
    }

    fn complete(&self, current: &str, ask: Ask<'_>, flags: &Flags) -> Answer {
        if let Some(flag) = self.awaiting {
            return self.values(flag, current, ask, flags);
        }
        if !self.plain && current.starts_with('-') {
            // The shell keeps what is before the `=`.
            return match current.strip_prefix("--").and_then(|long| long.split_once('=')) {
                Some((name, value)) => match self.long(name) {
                    Some(flag) => self.values(flag, value, ask, flags),
                    None => Answer::nothing(Then::Only),
                },
                None => self.flags(current),
            };
        }
        let verbs = self.command.get_subcommands().filter(|verb| !verb.is_hide_set() && !self.plain);
        let verbs: Vec<_> = verbs.map(|verb| Candidate::new(verb.get_name(), verb.get_about())).collect();
        if !verbs.is_empty() {
            return Answer::of(verbs, Then::Only).beginning_with(current);
        }
        match self.operand() {
            Some(operand) => self.values(operand, current, ask, flags),
            None => Answer::nothing(Then::Only),
        }
    }

    /// The operand that the current word is; the last one can be given again when it takes several.
    fn operand(&self) -> Option<&'a Arg> {
        let operands: Vec<&Arg> = self.command.get_positionals().collect();
        let repeated = operands.last().copied().filter(|last| matches!(last.get_action(), ArgAction::Append));
        operands.get(self.operands.len()).copied().or(repeated)
    }

    fn flags(&self, current: &str) -> Answer {
        let again = |flag: &Arg| matches!(flag.get_action(), ArgAction::Append | ArgAction::Count);
        let is_given = |flag: &Arg| self.given.iter().any(|(given, _)| given.get_id() == flag.get_id());
        let open = self.command.get_arguments().filter(|flag| !flag.is_hide_set() && (again(flag) || !is_given(flag)));
        let words = open.flat_map(|flag| {
            let long = flag.get_long().map(|long| format!("--{long}"));
            let short = flag.get_short().map(|letter| format!("-{letter}"));
            long.into_iter().chain(short).map(|word| Candidate::new(&word, flag.get_help()))
        });
        Answer::of(words.collect(), Then::Only).beginning_with(current)
    }

    fn values(&self, flag: &Arg, current: &str, ask: Ask<'_>, flags: &Flags) -> Answer {
        let fixed: Vec<_> = flag.get_possible_values().into_iter().filter(|value| !value.is_hide_set()).collect();
        if !fixed.is_empty() {
            let words = fixed.iter().map(|value| Candidate::new(value.get_name(), value.get_help()));
            return Answer::of(words.collect(), Then::Only).beginning_with(current);
        }
        let only = |words| Answer::of(words, Then::Only).beginning_with(current);
        let name = flag.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        match (name, flag.get_value_hint()) {
            ("CONTAINER" | "GLOB", _) => only(self.containers(ask(Want::Containers))),
            ("PROJECT", _) => only(counted(&ask(Want::Containers).containers, Container::project)),
            ("SERVICE", _) => only(counted(&self.of_project(ask(Want::Containers)), Container::service)),
            ("CONTEXT", _) => only(contexts(flags)),
            ("KEY=VALUE", _) if self.command.get_name() == "events" => event_filter(current, ask),
            ("KEY=VALUE", _) => filter(current, ask),
            (_, ValueHint::FilePath | ValueHint::AnyPath) => Answer::nothing(Then::Files),
            (_, ValueHint::DirPath) => Answer::nothing(Then::Directories),
            _ => Answer::nothing(Then::Only),
        }
    }

    /// The names that have not been given yet.
    fn containers(&self, live: Live) -> Vec<Candidate> {
        let open = live.containers.iter().filter(|container| !self.operands.contains(&&*container.name));
        open.map(|container| Candidate::told(&container.name, told(container))).collect()
    }

    fn of_project(&self, live: Live) -> Vec<Container> {
        let is_project = |flag: &Arg| flag.get_id() == "project";
        let projects: Vec<&str> = self.given.iter().filter(|(f, _)| is_project(f)).map(|(_, v)| v.as_str()).collect();
        let mut containers = live.containers;
        containers
            .retain(|container| projects.is_empty() || container.project().is_some_and(|p| projects.contains(&p)));
        containers
    }
}

/// A value that only an `=` can attach does not swallow the next word.
fn takes_value(flag: &Arg) -> bool {
    flag.get_action().takes_values() && !flag.is_require_equals_set()
}

/// `docker ps` filters.
fn filter(current: &str, ask: Ask<'_>) -> Answer {
    pair(current, KEYS, |key, value| match key {
        "name" | "before" | "since" => named(&ask(Want::Containers).containers, |container| container.name.as_str()),
        "id" => named(&ask(Want::Containers).containers, |container| short(&container.id)),
        "label" => labels(&ask(Want::Containers).containers, value),
        "ancestor" => counted(&ask(Want::Containers).containers, |container| Some(&container.image)),
        "network" => plain(ask(Want::Networks).networks),
        "volume" => plain(ask(Want::Volumes).volumes),
        _ => Vec::new(),
    })
}

/// `docker events` filters.
fn event_filter(current: &str, ask: Ask<'_>) -> Answer {
    pair(current, super::events::KEYS, |key, value| match key {
        "event" => happenings().map(|word| Candidate::told(word, String::new())).collect(),
        "container" => named(&ask(Want::Containers).containers, |container| container.name.as_str()),
        "image" => counted(&ask(Want::Containers).containers, |container| Some(&container.image)),
        "label" => labels(&ask(Want::Containers).containers, value),
        "network" => plain(ask(Want::Networks).networks),
        "volume" => plain(ask(Want::Volumes).volumes),
        _ => Vec::new(),
    })
}

/// What can happen, and the two outcomes of a health check, which one waits for.
fn happenings() -> impl Iterator<Item = &'static str> {
    ACTIONS.into_iter().chain(["health_status: healthy", "health_status: unhealthy"])
}

/// First the key with its `=`, then what can stand behind it.
fn pair(current: &str, keys: &[FilterKey], values: impl FnOnce(&str, &str) -> Vec<Candidate>) -> Answer {
    let Some((key, value)) = current.split_once('=') else {
        let keys = keys.iter().map(|key| Candidate::told(&format!("{}=", key.name), key.help.to_owned()));
        return Answer::of(keys.collect(), Then::GoOn).beginning_with(current);
    };
    let fixed = keys.iter().find(|known| known.name == key).map_or(&[][..], |known| known.values);
    let values = match fixed {
        [] => values(key, value),
        fixed => fixed.iter().map(|value| Candidate::told(value, String::new())).collect(),
    };
    let words = values.into_iter().map(|value| Candidate { word: format!("{key}={}", value.word), ..value });
    Answer::of(words.collect(), Then::Only).beginning_with(current)
}

/// Label keys, and once there is a `=` behind a key its values.
fn labels(containers: &[Container], current: &str) -> Vec<Candidate> {
    let all = containers.iter().flat_map(|container| &container.labels);
    let mut words: Vec<String> = match current.split_once('=') {
        None => all.map(|(key, _)| key.clone()).collect(),
        Some((asked, _)) => all.filter(|(key, _)| *key == asked).map(|(key, value)| format!("{key}={value}")).collect(),
    };
    words.sort();
    words.dedup();
    plain(words)
}

fn named<'a>(containers: &'a [Container], word: impl Fn(&'a Container) -> &'a str) -> Vec<Candidate> {
    containers.iter().map(|container| Candidate::told(word(container), told(container))).collect()
}

/// Each distinct word with the number of containers that share it.
fn counted<'a>(containers: &'a [Container], word: impl Fn(&'a Container) -> Option<&'a str>) -> Vec<Candidate> {
    let mut counts = BTreeMap::new();
    for word in containers.iter().filter_map(word) {
        *counts.entry(word).or_insert(0) += 1;
    }
    let told = |count| if count == 1 { "1 container".to_owned() } else { format!("{count} containers") };
    counts.into_iter().map(|(word, count)| Candidate::told(word, told(count))).collect()
}

fn plain(words: Vec<String>) -> Vec<Candidate> {
    words.into_iter().map(|word| Candidate { word, told: String::new() }).collect()
}

fn told(container: &Container) -> String {
    match container.is_up() {
        true => container.image.clone(),
        false => format!("{}, {}", container.image, container.state),
    }
}

fn contexts(flags: &Flags) -> Vec<Candidate> {
    let found = endpoint::contexts(flags, &Environment::of_process());
    found.into_iter().map(|(name, description)| Candidate::told(&name, description)).collect()
}

#[derive(Clone, Debug)]
struct Candidate {
    word: String,
    told: String,
}

impl Candidate {
    fn new(word: &str, help: Option<&clap::builder::StyledStr>) -> Self {
        Candidate::told(word, help.map(ToString::to_string).unwrap_or_default())
    }

    fn told(word: &str, told: String) -> Self {
        Candidate { word: word.to_owned(), told }
    }
}

struct Answer {
    candidates: Vec<Candidate>,
    then: Then,
}

impl Answer {
    fn of(candidates: Vec<Candidate>, then: Then) -> Self {
        Answer { candidates, then }
    }

    fn nothing(then: Then) -> Self {
        Answer::of(Vec::new(), then)
    }

    fn beginning_with(mut self, current: &str) -> Self {
        self.candidates.retain(|candidate| candidate.word.starts_with(current));
        self
    }

    /// A word that has to be escaped cannot be completed to, and is left out.
    fn written(&self, is_bare: bool) -> String {
        let mut lines = String::new();
        for Candidate { word, told } in &self.candidates {
            if word.contains('\t') || safe(word) != *word {
                continue;
            }
            lines.push_str(word);
            let told = told.lines().next().unwrap_or_default().replace('\t', " ");
            if !told.is_empty() && !is_bare {
                lines.push('\t');
                lines.push_str(&safe(&told));
            }
            lines.push('\n');
        }
        lines + &format!(":{}\n", self.then as u8)
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

    fn engine(_: &Flags, want: Want) -> Live {
        let shop = ("com.docker.compose.project", "shop");
        let blog = ("com.docker.compose.project", "blog");
        let service = |name| ("com.docker.compose.service", name);
        match want {
            Want::Containers => Live {
                containers: vec![
                    container("web-1", "ab", "running", &[shop, service("web"), ("tier", "front")]),
                    container("web-2", "cd", "exited", &[shop, service("web"), ("tier", "evil\x1b")]),
                    container("db", "ef", "running", &[blog, service("db")]),
                ],
                ..Live::default()
            },
            Want::Networks => Live { networks: vec!["bridge".into(), "shop_default".into()], ..Live::default() },
            Want::Volumes => Live { volumes: vec!["data".into()], ..Live::default() },
        }
    }

    fn unasked(_: &Flags, want: Want) -> Live {
        panic!("the engine was asked for {want:?}")
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn as_plugin<F>(line: &str, fetch: F) -> String
    where
        F: FnOnce(&Flags, Want) -> Live + Send + 'static,
    {
        let typed = &words(line);
        answer(crate::cli::command(true), Question { typed, is_bare: false }, fetch)
    }

    fn check(line: &str, expected: &str) {
        assert_eq!(as_plugin(line, engine), expected, "{line:?}");
    }

    #[test]
    fn what_the_flags_say_themselves_needs_no_engine() {
        let verbs = "watch\tFollow the logs of every matching container, including those that start later\n";
        let since = "--since\tLines from here on: `10m`, `1h30m`, a date or time, Unix seconds\n:4\n";
        for (line, expected) in [
            ("wa", format!("{verbs}:4\n")),
            ("x", ":4\n".into()),
            ("help wa", format!("{verbs}:4\n")),
            ("watch --si", since.into()),
            ("watch -p shop --tail=3 --si", since.into()),
            ("watch --since 1h --si", ":4\n".into()),
            ("watch --fi", "--filter\tOnly containers that `docker ps --filter` would list\n:4\n".into()),
            ("watch -f name=a --fi", "--filter\tOnly containers that `docker ps --filter` would list\n:4\n".into()),
            ("watch -E", "-E\tLeave out containers whose name matches\n:4\n".into()),
            ("watch --ho", ":4\n".into()),
            ("watch --since ", ":4\n".into()),
            ("watch --output ", ":0\n".into()),
            ("watch -o ", ":0\n".into()),
            ("watch --color a", "auto\tOn a terminal\nalways\tIn any case\n:4\n".into()),
            ("--color=n", "never\tIn no case\n:4\n".into()),
            ("watch --format j", "json\tOne object a line\n:4\n".into()),
            ("watch -tao x --format=r", "raw\tThe message alone\n:4\n".into()),
            ("watch -f st", "status=\tState\n:6\n".into()),
            ("watch --filter=he", "health=\tResult of the health check\n:6\n".into()),
            ("watch -f status=r", "status=running\nstatus=restarting\nstatus=removing\n:4\n".into()),
            ("watch --filter health=un", "health=unhealthy\n:4\n".into()),
            ("watch -f nonsense=", ":4\n".into()),
            ("watch -f is-task=", "is-task=true\nis-task=false\n:4\n".into()),
            ("watch -f ex", "exited=\tExit code\nexpose=\tExposed `port[/proto]`, or a range of ports\n:6\n".into()),
            ("ev", "events\tPrint the engine's events, without gaps\n:4\n".into()),
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
            assert_eq!(as_plugin(line, unasked), expected, "{line:?}");
        }
    }

    #[test]
    fn names_come_from_the_engine() {
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
    fn on_its_own_docker_flags_complete_too_and_reach_the_engine() {
        let alone = |line: &str, fetch: fn(&Flags, Want) -> Live| {
            let typed = &words(line);
            answer(crate::cli::command(false), Question { typed, is_bare: false }, fetch)
        };
        assert!(alone("watch --ho", unasked).starts_with("--host\tEngine, such as"));
        assert_eq!(alone("watch --config ", unasked), ":16\n");
        assert_eq!(alone("--tlscacert ", unasked), ":0\n");
        let heard = |flags: &Flags, _| {
            let name = format!("{}-{}", flags.context.as_deref().unwrap_or("-"), flags.host.as_deref().unwrap_or("-"));
            Live { containers: vec![container(&name, "ab", "running", &[])], ..Live::default() }
        };
        assert_eq!(alone("-c far watch -q ", heard), "far--\tnginx:1\n:4\n");
        assert_eq!(alone("watch -Hunix:///s --since -- ", heard), "--unix:///s\tnginx:1\n:4\n");
        assert_eq!(alone("watch --host=tcp://h --nonsense ", heard), "--tcp://h\tnginx:1\n:4\n");
    }

    #[test]
    fn contexts_are_those_in_dockers_directory() {
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
        let question = Question { typed: &typed, is_bare: false };
        let answer = answer(crate::cli::command(false), question, unasked);
        assert_eq!(answer, "away\ndefault\nfar\tover there\n:4\n");
    }

    #[test]
    fn an_engine_that_does_not_answer_is_not_waited_for() {
        let began = std::time::Instant::now();
        let (_held, never) = mpsc::channel::<Live>();
        assert_eq!(as_plugin("watch ", move |_, _| never.recv().unwrap_or_default()), ":4\n");
        assert!(began.elapsed() < PATIENCE * 2);
    }

    #[test]
    fn an_engine_that_fails_leaves_an_answer_without_names() {
        assert_eq!(as_plugin("watch ", |_, _| Live::default()), ":4\n");
    }

    /// Docker 20.10's shell script offers every word that it is given, so there a description must not stand.
    #[test]
    fn both_of_dockers_questions_are_answered_one_without_descriptions() {
        for (line, typed, is_bare) in [
            ("__complete watch ", Some("watch "), false),
            ("__completeNoDesc w", Some("w"), true),
            ("watch", None, false),
        ] {
            let words = words(line);
            let expected = typed.map(self::words);
            let question = asked(&words);
            assert_eq!(question.map(|question| question.typed.to_vec()), expected, "{line:?}");
            assert_eq!(question.is_some_and(|question| question.is_bare), is_bare, "{line:?}");
        }
        let bare = |line: &str| {
            let typed = &words(line);
            answer(crate::cli::command(true), Question { typed, is_bare: true }, engine)
        };
        assert_eq!(bare("watch "), "web-1\nweb-2\ndb\n:4\n");
        assert_eq!(bare("watch --color a"), "auto\nalways\n:4\n");
        assert!(!bare("").contains('\t') && !bare("watch --").contains('\t'));
        let nothing = Question { typed: &[], is_bare: true };
        assert_eq!(answer(crate::cli::command(true), nothing, unasked), ":4\n");
    }
}

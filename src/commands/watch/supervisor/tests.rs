//! Tables of inputs and the effects that follow.
//!
//! A row has three texts: the inputs before, the last input, and the effects of the last one. The first letter of an ID
//! says where the container's log is: `f` in a file, `s` over the API, `n` nowhere. All times are small numbers: events
//! happen at 7, and everything else at 100 by our clock. [`input`] and [`show`] define both languages.

use super::*;
use crate::commands::watch::discovery::Run;
use crate::docker::{Error, Event};
use crate::metrics::LogMetrics;
use crate::model::position::{Mark, Position, TimePosition};
use crate::model::selector::{Filter, Pattern};
use prometheus::Registry;
use std::io;
use std::time::Duration;

/// Log files as the IDs say. Folders of containers with a `g` in their ID are gone.
struct Table;

impl LogFiles for Table {
    fn choose(&self, container: &Container) -> Choice {
        match container.id.as_bytes()[0] {
            b'f' => Choice::File(PathBuf::from("/c").join(&container.id)),
            b's' => Choice::Stream,
            _ => Choice::Nothing,
        }
    }

    fn is_gone(&self, id: &str) -> bool {
        id.contains('g')
    }
}

/// A supervisor, and the containers that it has described to the output.
struct World {
    supervisor: Supervisor,
    names: HashMap<ContainerKey, String>,
    keys: HashMap<String, ContainerKey>,
}

/// Options are separated by spaces: `once`, `files` (`--source file`), `metadata`, `remote` (a filter that only the
/// daemon can evaluate), `tail0`, `all`, `named=ID`, `label` (`--filter label=wanted`), `hidden` (a label that events
/// cannot show), `resumed` (the containers f1 and s1 have positions) and `parallel=N`.
fn world(options: &str) -> World {
    let settings = SupervisorSettings {
        follow: true,
        all: false,
        metadata: false,
        history: Start::All,
        window: Window::default(),
        max_line_size: 1000,
        source: Source::Auto,
        api_route: Route::Stream,
        folder: "/c".into(),
        max_parallel: 2,
    };
    let metadata = Metadata::new(Duration::from_secs(10), LogMetrics::new(&Registry::new()).unwrap());
    let now = Now { instant: Instant::now(), time: Timestamp(50) };
    let mut supervisor = Supervisor::new(settings, Box::new(Table), Selector::default(), metadata, None, now);
    for option in options.split_whitespace() {
        let settings = &mut supervisor.settings;
        match option.split_once('=').unwrap_or((option, "")) {
            ("once", _) => settings.follow = false,
            ("files", _) => settings.source = Source::File,
            ("metadata", _) => settings.metadata = true,
            ("all", _) => settings.all = true,
            ("tail0", _) => settings.history = Start::Last(0),
            ("parallel", number) => settings.max_parallel = number.parse().unwrap(),
            ("remote", _) => supervisor.selector.filters.push(Filter::Remote("health", "healthy".into())),
            ("label", _) => supervisor.selector.filters.push(Filter::Label("wanted".into(), None)),
            ("hidden", _) => supervisor.selector.filters.push(Filter::Label("name".into(), None)),
            ("named", name) => supervisor.selector.names.push(Pattern::Unresolved(name.into())),
            ("resumed", _) => {
                let resume = TimePosition { since: Some(Timestamp(30)), seen: [Some(mark(40)), None] };
                let position = |route| Position { route, resume, place: None };
                let by_id =
                    [("f1", Route::File), ("s1", Route::Stream)].map(|(id, route)| (id.into(), position(route)));
                supervisor.positions = Some(Positions { is_first: false, by_id: by_id.into() });
            }
            _ => panic!("{option}"),
        }
    }
    World { supervisor, names: HashMap::new(), keys: HashMap::new() }
}

fn mark(time: i64) -> Mark {
    Mark { time: Timestamp(time), ordinal: 0, high: Timestamp(time) }
}

fn container(id: &str, state: &str) -> Container {
    Container { id: id.into(), name: id.into(), image: "img".into(), state: state.into(), ..Container::default() }
}

/// `start f1`, `die f1 3`, `rename f1 new`, ...
fn event(action: &str, id: &str, more: &[&str]) -> Event {
    let name = if action == "rename" { more[0] } else { id };
    let mut attributes = vec![("name", name), ("image", "img")];
    match (action, more) {
        ("die", [code]) => attributes.push(("exitCode", code)),
        ("die-forged", _) => attributes.push(("exitCode", "0")),
        ("start", ["wanted"]) | ("create", ["wanted"]) => attributes.push(("wanted", "")),
        ("create", ["forging"]) => attributes.push(("exitCode", "9")),
        _ => {}
    }
    Event {
        kind: "container".into(),
        action: action.trim_end_matches("-forged").replace("health", "health_status: healthy"),
        id: id.into(),
        attributes: attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        time: Timestamp(7),
        ..Event::default()
    }
}

impl World {
    fn key(&self, id: &str) -> ContainerKey {
        *self.keys.get(id).unwrap_or_else(|| panic!("{id} has no key"))
    }

    /// `list f1:running s1:exited,3 s2:running*`: with a star, the container does not pass the filters that only
    /// the daemon can evaluate.
    fn listing(&self, listed: &[&str]) -> News {
        let has_remote = !self.supervisor.selector.daemon_filters().is_empty();
        let (mut containers, mut passing) = (Vec::new(), Vec::new());
        for entry in listed {
            let (id, state) = entry.trim_end_matches('*').split_once(':').unwrap();
            let (state, code) = state.split_once(',').unwrap_or((state, ""));
            containers.push(Container { exit_code: code.parse().ok(), ..container(id, state) });
            if !entry.ends_with('*') {
                passing.push(id.to_owned());
            }
        }
        News::Listing(containers, Timestamp(8), has_remote.then_some(passing))
    }

    fn input(&self, text: &str) -> Input {
        let words: Vec<&str> = text.split_whitespace().collect();
        let end = |id: &str| Item::End(self.key(id), Some(9));
        let resume = || TimePosition { since: None, seen: [Some(mark(60)), None] };
        let error = |kind: &str| match kind {
            "missing" => io::ErrorKind::NotFound.into(),
            "denied" => io::ErrorKind::PermissionDenied.into(),
            _ => io::Error::other("broken"),
        };
        match *words {
            ["list", ref listed @ ..] => Input::News(self.listing(listed)),
            ["lost"] => Input::News(News::Lost(no_logs())),
            ["back"] => Input::News(News::Back(crate::commands::events::subscription::Continuity::Overrun)),
            ["unclaimed", id] => Input::Report(Report::Unclaimed(Box::new(container(id, "exited")))),
            ["finished", id] => Input::Report(Report::Finished(self.key(id))),
            ["forgotten", id] => Input::Report(Report::Forgotten(self.key(id))),
            ["no-watches"] => Input::Report(Report::NoWatches),
            ["no-descriptors"] => Input::Report(Report::NoDescriptors),
            ["not-followed", id] => Input::Report(Report::NotFollowed(self.key(id), vec![end(id)])),
            ["refused", id, kind] => {
                Input::Report(Report::Refused(self.key(id), error(kind), TimePosition::default(), None))
            }
            ["refused-at-60", id, kind] => Input::Report(Report::Refused(self.key(id), error(kind), resume(), None)),
            ["refused-at-end", id, kind] => {
                Input::Report(Report::Refused(self.key(id), error(kind), resume(), Some(vec![end(id)])))
            }
            ["readable", id] => Input::Stream(StreamReport::Readable(self.key(id), true)),
            ["no-permit"] => Input::Stream(StreamReport::NoPermit("too many".into())),
            ["gave-up"] => Input::Stream(StreamReport::GaveUp(true)),
            ["reached-end"] => Input::Stream(StreamReport::GaveUp(false)),
            ["ended", id] => Input::Stream(StreamReport::Ended(self.key(id), id.into(), Ok(()))),
            ["ended-first", id] => Input::Stream(StreamReport::Ended(ContainerKey(0), id.into(), Ok(()))),
            ["failed", id] => Input::Stream(StreamReport::Ended(self.key(id), id.into(), Err(None))),
            ["no-logs", id] => Input::Stream(StreamReport::Ended(self.key(id), id.into(), Err(Some(no_logs())))),
            ["passes", id] => Input::Lookup(Answer::Passing(id.into(), true)),
            ["fails", id] => Input::Lookup(Answer::Passing(id.into(), false)),
            ["passes-details", id] => Input::Lookup(Answer::PassingDetails(Box::new(container(id, "running")))),
            ["passes-details", id, label] => {
                let labels = [(label.to_owned(), String::new())].into();
                Input::Lookup(Answer::PassingDetails(Box::new(Container { labels, ..container(id, "running") })))
            }
            ["details", id] => Input::Lookup(Answer::Details(Box::new(container(id, "running")))),
            ["no-details", id] => Input::Lookup(Answer::NoDetails(id.into())),
            ["no-answer"] => Input::Lookup(Answer::Nothing),
            ["code", id, code] => Input::Lookup(Answer::Code(id.into(), code.parse().ok())),
            ["ran", id] => {
                let run = Run { is_up: false, started: Timestamp(9), finished: Some(Timestamp(10)), code: Some(4) };
                Input::Lookup(Answer::Runs(vec![(id.into(), run)]))
            }
            ["finish"] => Input::Finish,
            [action, id, ref more @ ..] => Input::News(News::Event(Box::new(event(action, id, more)))),
            _ => panic!("{text}"),
        }
    }

    /// Runs inputs that are separated by `;`. Returns the effects of the last one.
    fn run(&mut self, inputs: &str) -> String {
        let mut last = String::new();
        for text in inputs.split(';').map(str::trim).filter(|text| !text.is_empty()) {
            let now = Now { instant: Instant::now(), time: Timestamp(100) };
            let input = self.input(text);
            let effects = self.supervisor.step(input, now);
            last = effects.iter().map(|effect| self.show(effect)).collect::<Vec<_>>().join("; ");
        }
        last
    }

    fn name(&self, key: ContainerKey) -> &str {
        &self.names[&key]
    }

    fn show(&mut self, effect: &Effect) -> String {
        match effect {
            Effect::Command(command) => self.show_command(command),
            Effect::Spawn(plan) => {
                let flags = [(plan.once, " once"), (plan.is_up, " up"), (plan.is_history, " history")];
                let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, text)| *text).collect();
                let resume = plan.resume.and_then(|resume| resume.last()).map(|last| format!(" at {}", last.time.0));
                let cause = plan.cause.map(|cause| format!(" @{}", cause.0));
                let parts = [show_start(plan.start), flags, resume.unwrap_or_default(), cause.unwrap_or_default()];
                format!("spawn {}{}", plan.id, parts.concat())
            }
            Effect::Signal(key, Signal::Up) => format!("signal {} up", self.name(*key)),
            Effect::Signal(key, Signal::Finish(items)) => format!("signal {}{}", self.name(*key), self.list(items)),
            Effect::Pause(key, is_paused) => format!("pause {} {is_paused}", self.name(*key)),
            Effect::Close(key) => format!("close {}", self.name(*key)),
            Effect::ShortenRetries(is_short) => format!("shorten retries {is_short}"),
            Effect::Push(items) => {
                for item in items {
                    if let Item::Describe(key, container) = item {
                        self.names.insert(*key, container.id.clone());
                        self.keys.insert(container.id.clone(), *key);
                    }
                }
                self.list(items).trim().to_owned()
            }
            Effect::LookUp(Lookup::Passing { id, needs_details, .. }) => {
                format!("look up whether {id} passes{}", if *needs_details { " with details" } else { "" })
            }
            Effect::LookUp(Lookup::Runs(ids)) => format!("look up runs of {}", ids.join(" ")),
            Effect::LookUp(Lookup::Details(id)) => format!("look up details of {id}"),
            Effect::LookUp(Lookup::ExitCode(id)) => format!("look up code of {id}"),
        }
    }

    fn show_command(&self, command: &Command) -> String {
        match command {
            Command::Follow(follow) => {
                let flags = [(follow.once, " once"), (follow.is_held, " held")];
                let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, text)| *text).collect();
                let position = follow.position.map(|_| " at position").unwrap_or_default();
                let start = show_start(follow.start);
                format!("open {}{start}{flags}{position}{}", follow.id, self.list(&follow.on_open))
            }
            Command::Finish(key, items) => format!("finish {}{}", self.name(*key), self.list(items)),
            Command::Forget(key, items) => format!("forget {}{}", self.name(*key), self.list(items)),
            Command::Expect(key) => format!("expect {}", self.name(*key)),
            Command::Admit(key) => format!("admit {}", self.name(*key)),
            Command::Drop(key) => format!("drop {}", self.name(*key)),
            Command::Ignore(id) => format!("ignore {id}"),
            Command::WatchNewcomers(_) | Command::Measure(_) => panic!("{command:?}"),
        }
    }

    /// Items in square brackets, if there are any.
    fn list(&self, items: &[Item]) -> String {
        let items: Vec<String> = items.iter().map(|item| self.show_item(item)).collect();
        if items.is_empty() { String::new() } else { format!(" [{}]", items.join(", ")) }
    }

    fn show_item(&self, item: &Item) -> String {
        let code = |code: &Option<i64>| code.map_or("?".to_owned(), |code| code.to_string());
        match item {
            Item::Describe(key, container) => format!("describe {} {}", self.name(*key), container.state),
            Item::StartAt(key, position) => {
                format!("start-at {} {:?}", self.name(*key), position.resume.since.map(|at| at.0))
            }
            Item::Followed(key, route, cause) => {
                let cause = cause.map(|cause| format!(" @{}", cause.0)).unwrap_or_default();
                format!("+{} {}{cause}", self.name(*key), route.name())
            }
            Item::History(key, route) => format!("history of {} {}", self.name(*key), route.name()),
            Item::End(key, exit) => format!("-{} {}", self.name(*key), code(exit)),
            Item::Removed(key) => format!("gone {}", self.name(*key)),
            Item::Deselected(key) => format!("forget {}", self.name(*key)),
            Item::Lifecycle(key, event) => {
                let code = event.attributes.get("exitCode").map(|code| format!(" {code}")).unwrap_or_default();
                format!("{}{code} {}", event.action, self.name(*key))
            }
            Item::Notice(key, text) => {
                let subject = key.map(|key| format!("{}: ", self.name(key))).unwrap_or_default();
                format!("! {subject}{}", text.split_whitespace().take(4).collect::<Vec<_>>().join(" "))
            }
            Item::Lines(batch) => {
                let after = batch.gaps[0].1.after.map(|after| format!(" after {}", after.time.0)).unwrap_or_default();
                format!("gap {}{after}", self.name(batch.key))
            }
        }
    }
}

fn show_start(start: Start) -> String {
    match start {
        Start::All => String::new(),
        Start::Last(lines) => format!(" from last {lines}"),
        Start::Since(since) => format!(" from {}", since.0),
    }
}

fn no_logs() -> Error {
    Error::NoLogs { id: "x".into(), message: "no logs".into() }
}

/// Options, inputs before, the last input, and its effects.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

fn check(rows: &[Case<'_>]) {
    let mut wrong = String::new();
    for (options, before, input, expected) in rows {
        let mut world = world(options);
        world.run(before);
        let found = world.run(input);
        if found != *expected {
            wrong += &format!("({options:?}, {before:?}, {input:?}, {found:?})\n    expected {expected:?}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn containers_that_exist_at_the_start_are_read_as_they_are() {
    check(&[
        ("", "", "list f1:running", "[describe f1 running]; open f1 [+f1 file]"),
        ("", "", "list s1:running", "[describe s1 running]; spawn s1 up"),
        ("files", "", "list n1:running", "[describe n1 running]; [! n1: has no log file]"),
        // The history of stopped containers is skipped, but their next run is read from its first line.
        (
            "",
            "",
            "list f1:running f2:exited,3",
            "[describe f1 running]; open f1 [+f1 file]; [describe f2 exited]; open f2 from last 0 [history of f2 file]; finish f2 [-f2 3]",
        ),
        (
            "",
            "",
            "list f1:running s2:exited,3",
            "[describe f1 running]; open f1 [+f1 file]; [describe s2 exited]; [start-at s2 Some(100)]",
        ),
        ("all", "", "list f2:exited,3", "[describe f2 exited]; open f2 [history of f2 file]; finish f2 [-f2 3]"),
        ("all", "", "list s2:exited,3", "[describe s2 exited]; spawn s2 history; signal s2 [-s2 3]"),
        ("all files", "", "list n2:exited,3", "[describe n2 exited]; [! n2: has no log file]"),
        ("all", "", "list s2:created", "[describe s2 created]; spawn s2 history"),
        // Nothing of it is wanted, so nothing is printed about it: not even that it has ended.
        (
            "all tail0",
            "",
            "list f2:exited,3",
            "[describe f2 exited]; open f2 from last 0 [history of f2 file]; finish f2 [-f2 3]",
        ),
        ("all tail0", "", "list s2:exited,3", "[describe s2 exited]; [start-at s2 Some(100)]"),
        ("resumed", "", "list s2:exited,3", "[describe s2 exited]; spawn s2 history; signal s2 [-s2 3]"),
        (
            "all resumed",
            "",
            "list s2:exited,3 f2:created",
            "[describe s2 exited]; spawn s2 history; signal s2 [-s2 3]; [describe f2 created]; open f2 [history of f2 file]",
        ),
        ("tail0", "", "list s1:running", "[describe s1 running]; spawn s1 from 100 up"),
        ("tail0", "", "list f1:running", "[describe f1 running]; open f1 from last 0 [+f1 file]"),
        // An earlier run has read a part.
        ("resumed", "", "list f1:running", "[describe f1 running]; open f1 at position [+f1 file]"),
        ("resumed", "", "list s1:running", "[describe s1 running]; spawn s1 up at 40"),
        (
            "resumed",
            "",
            "list f1:exited,3",
            "[describe f1 exited]; open f1 at position [history of f1 file]; finish f1 [-f1 3]",
        ),
    ]);
}

#[test]
fn an_empty_selection_is_reported() {
    check(&[
        ("", "", "list", "[! no running container matches:]"),
        ("once", "", "list", "[! no container matches]"),
        ("named=web", "", "list f1:running", "[! no container is called]; ignore f1"),
        ("remote", "", "list f1:running*", "[! no running container matches:]"),
        ("remote", "", "list f1:running* f2:running", "[describe f2 running]; open f2 [+f2 file]"),
    ]);
}

#[test]
fn containers_are_read_through_their_whole_life() {
    check(&[
        ("", "list f9:running", "create f1", "[describe f1 created]; open f1 [+f1 file @7]; [create f1]"),
        (
            "",
            "list f9:running; create f1",
            "start f1",
            "[describe f1 running]; open f1 [+f1 file @7]; expect f1; [start f1]",
        ),
        ("", "list f9:running; create f1; start f1", "die f1 3", "[describe f1 exited]; finish f1 [die 3 f1, -f1 3]"),
        // What happens after the death is printed after the last line.
        ("", "list f9:running; create f1; start f1; die f1 3", "stop f1", "finish f1 [stop f1]"),
        ("", "list f9:running; create f1; start f1", "kill f1", "[kill f1]"),
        (
            "",
            "list f9:running; create f1; start f1; die f1 3",
            "start f1",
            "[describe f1 running]; open f1 [+f1 file @7]; expect f1; [start f1]",
        ),
        (
            "",
            "list f9:running; create f1; start f1; die f1 3",
            "destroy f1",
            "finish f1 [destroy f1]; forget f1 [gone f1]",
        ),
        ("", "list f9:running; create f1; start f1; die f1 3; destroy f1", "finished f1", ""),
        ("", "list f9:running; create f1; start f1; die f1 3; destroy f1", "forgotten f1", ""),
        // Over the API.
        ("", "list f9:running", "create s1", "[describe s1 created]; spawn s1 @7; [create s1]"),
        ("", "list f9:running; create s1", "start s1", "[describe s1 running]; signal s1 up; [start s1]"),
        ("", "list f9:running; create s1; start s1", "die s1 3", "[describe s1 exited]; signal s1 [die 3 s1, -s1 3]"),
        ("", "list f9:running; create s1; start s1; die s1 3", "stop s1", "signal s1 [stop s1]"),
        (
            "",
            "list f9:running; create s1; start s1; die s1 3",
            "destroy s1",
            "signal s1 [destroy s1]; signal s1 [gone s1]; close s1",
        ),
        ("", "list f9:running; create s1; start s1", "pause s1", "pause s1 true; [describe s1 paused]; [pause s1]"),
        (
            "",
            "list f9:running; create s1; start s1; pause s1",
            "unpause s1",
            "pause s1 false; [describe s1 running]; [unpause s1]",
        ),
        ("", "list f9:running; create f1; start f1", "pause f1", "[describe f1 paused]; [pause f1]"),
        ("", "list f9:running; create s1; start s1", "rename s1 new", "[describe s1 running]; [rename s1]"),
        // Neither by file nor over the API.
        ("files", "list f9:running", "create n1", "[describe n1 created]; [! n1: has no log file]; [create n1]"),
        ("files", "list f9:running; create n1", "start n1", "[describe n1 running]; [start n1]"),
        ("files", "list f9:running; create n1; start n1", "die n1 3", "[describe n1 exited]; [die 3 n1, -n1 3]"),
        ("files", "list f9:running; create n1; start n1; die n1 3", "destroy n1", "[destroy n1]; [gone n1]"),
        // A container that was stopped at the start, and starts.
        ("", "list f9:running s2:exited,3", "start s2", "[describe s2 running]; spawn s2 from 100 up @7; [start s2]"),
        (
            "",
            "list f9:running f2:exited,3",
            "start f2",
            "[describe f2 running]; open f2 from last 0 [+f2 file @7]; expect f2; [start f2]",
        ),
    ]);
}

#[test]
fn a_listing_makes_up_for_missing_events() {
    check(&[
        ("named=f9", "list f9:running f1:running; die f1 3", "list f9:running f1:exited,3", ""),
        ("", "list f1:running", "list", "finish f1 [-f1 ?]; forget f1 [gone f1]"),
        ("", "list f1:running", "list f1:exited,3", "[describe f1 exited]; finish f1 [-f1 3]"),
        ("", "list s1:running", "list s1:exited,3", "[describe s1 exited]; signal s1 [-s1 3]"),
        ("", "list f1:running", "list f1:running s2:running", "[describe s2 running]; spawn s2 up"),
        (
            "",
            "list f1:running",
            "list f1:running f2:exited,4",
            "[describe f2 exited]; open f2 [+f2 file]; finish f2; open f2 [+f2 file]; expect f2; finish f2 [-f2 4]",
        ),
        ("", "list f1:running; die f1 3", "list f1:exited,3", "look up runs of f1"),
        (
            "",
            "list f1:running; die f1 3; list f1:exited,3",
            "ran f1",
            "open f1 [+f1 file]; expect f1; finish f1 [-f1 4]",
        ),
        ("", "list f1:running", "list f1:running", ""),
        ("", "list f1:running", "lost", "[! the Docker Engine cannot]"),
        ("", "list f1:running; lost", "lost", ""),
        ("", "list f1:running; lost", "list f1:running", "[! the engine is back]"),
        ("", "list f1:running; lost; list f1:running", "lost", "[! the Docker Engine cannot]"),
        ("", "list f1:running", "back", "[! events may be missing:]"),
    ]);
}

#[test]
fn a_container_whose_file_cannot_be_read_is_read_over_the_api() {
    check(&[
        ("resumed", "list f1:running", "refused f1 missing", "spawn f1 up at 40"),
        (
            "files",
            "list fg:running",
            "refused-at-60 fg denied",
            "[gap fg after 60, ! fg: permission denied]; [! fg: has no log file]",
        ),
        ("", "list f1:running", "refused f1 denied", "[! no permission to read]; spawn f1 up"),
        ("", "list f1:running f2:running; refused f1 denied", "refused f2 denied", "spawn f2 up"),
        ("", "list f1:running", "refused-at-60 f1 broken", "[! f1: broken: reading through the]; spawn f1 up at 60"),
        ("", "list f1:running", "refused-at-60 f1 missing", "spawn f1 up at 60"),
        ("", "list f1:running", "refused-at-end f1 missing", "spawn f1 up at 60; signal f1 [-f1 9]"),
        ("", "list f1:running; die f1 3", "refused f1 missing", "spawn f1; signal f1"),
        // The end was asked for before the refusal arrived.
        ("", "list f1:running; die f1 3; refused f1 missing", "not-followed f1", "signal f1 [-f1 9]"),
        ("", "list f1:running; refused f1 missing", "start f1", "[start f1]"),
        (
            "",
            "list f1:running; refused f1 missing; die f1 3",
            "start f1",
            "[describe f1 running]; signal f1 up; [start f1]",
        ),
        // It was removed in the meantime.
        ("", "list f1:running; destroy f1", "refused-at-60 f1 missing", "[gap f1 after 60]"),
        ("", "list f1:running; destroy f1", "refused-at-end f1 missing", "[gap f1 after 60]; [-f1 9]"),
        ("", "list f1:running; destroy f1", "not-followed f1", "[-f1 9]"),
        (
            "",
            "list f1:running; refused f1 missing",
            "destroy f1",
            "[destroy f1]; signal f1 [-f1 ?]; forget f1 [gone f1]",
        ),
        ("", "list f1:running; refused f1 missing; destroy f1", "not-followed f1", "signal f1 [-f1 9]"),
        ("", "list f1:running; refused f1 missing; destroy f1; not-followed f1", "forgotten f1", "close f1"),
        // With `--source file` nothing else is allowed.
        ("files", "list f1:running", "refused-at-60 f1 missing", "[! f1: has no log file]"),
        ("files", "list fg:running", "refused-at-60 fg missing", "[gap fg after 60]"),
        (
            "files",
            "list f1:running",
            "refused-at-60 f1 denied",
            "[gap f1 after 60, ! f1: permission denied]; [! f1: has no log file]",
        ),
        (
            "files",
            "list f1:running",
            "refused-at-end f1 broken",
            "[gap f1 after 60, ! f1: broken]; [! f1: has no log file]; [-f1 9]",
        ),
        ("files", "list f1:running; refused f1 missing", "start f1", "[start f1]"),
        ("files", "list f1:running; refused f1 missing", "die f1 3", "[describe f1 exited]; [die 3 f1, -f1 3]"),
        // Problems that concern all containers.
        ("", "list", "no-watches", "[! no inotify watches are]"),
        ("", "list; no-watches", "no-watches", ""),
        ("", "list; no-descriptors", "no-descriptors", "[! no descriptors are left]"),
        ("", "list", "no-permit", "[! too many: some logs]"),
        ("", "list; no-permit", "no-permit", ""),
    ]);
}

#[test]
fn what_is_held_is_printed_once_it_is_wanted() {
    check(&[
        // Nothing shows that it ever ran.
        ("remote", "list f9:running; rename s1 x", "passes s1", "[rename s1]"),
        // Its event cannot show whether it has the label.
        (
            "hidden",
            "list f9:running",
            "create f1",
            "[describe f1 created]; open f1 held [+f1 file @7]; look up whether f1 passes with details",
        ),
        ("hidden", "list f9:running; create f1", "passes-details f1", "drop f1; [forget f1]"),
        (
            "hidden",
            "list f9:running; create f1",
            "passes-details f1 name",
            "[describe f1 created]; [create f1]; admit f1",
        ),
        // It passes the filters only after it has started.
        (
            "remote",
            "list f1:running* f9:running",
            "health f1",
            "[describe f1 running]; open f1 from 50 held [+f1 file @7]; look up whether f1 passes",
        ),
        ("remote", "list f1:running* f9:running", "kill f1", ""),
        (
            "remote",
            "list f1:running* f9:running; health f1",
            "passes f1",
            "[health_status: healthy f1]; admit f1; open f1 from 50 [+f1 file @7]; expect f1",
        ),
        ("remote", "list f9:running", "health f9", "[health_status: healthy f9]"),
        (
            "remote",
            "list f9:running",
            "create f1",
            "[describe f1 created]; open f1 held [+f1 file @7]; look up whether f1 passes",
        ),
        ("remote", "list f9:running", "create s1", "[describe s1 created]; look up whether s1 passes"),
        ("remote", "list f9:running; create f1", "passes f1", "[create f1]; admit f1"),
        ("remote", "list f9:running; create f1", "fails f1", "drop f1; [forget f1]"),
        ("remote", "list f9:running; create s1", "fails s1", "[forget s1]"),
        ("remote", "list f9:running; create s1", "passes s1", "[create s1]"),
        ("remote", "list f9:running; create s1; start s1", "passes s1", "[create s1, start s1]; spawn s1 up @7"),
        (
            "remote",
            "list f9:running; create f1; start f1",
            "passes f1",
            "[create f1, start f1]; admit f1; open f1 [+f1 file @7]; expect f1",
        ),
        // It has changed since the lookup began.
        ("remote", "list f9:running; create f1; start f1", "fails f1", "look up whether f1 passes with details"),
        ("remote", "list f9:running; create f1; health f1", "fails f1", "look up whether f1 passes with details"),
        ("remote", "list f9:running; create f1; start f1; fails f1", "fails f1", "drop f1; [forget f1]"),
        (
            "remote",
            "list f9:running; create f1; start f1; die f1 3",
            "passes f1",
            "[create f1, start f1]; admit f1; expect f1",
        ),
        (
            "remote",
            "list f9:running; create f1; start f1",
            "die f1 3",
            "[describe f1 exited]; finish f1 [die 3 f1, -f1 3]",
        ),
        ("remote", "list f9:running; create s1; start s1", "die s1 3", "[describe s1 exited]"),
        (
            "remote",
            "list f9:running; create s1; start s1; die s1 3",
            "passes s1",
            "[create s1, start s1]; spawn s1 @7; signal s1 [die 3 s1, -s1 3]",
        ),
        (
            "remote",
            "list f9:running; create s1; start s1; die s1 3; start s1",
            "passes s1",
            "[create s1, start s1, start s1]; [die 3 s1, -s1 3]; spawn s1 up @7",
        ),
        // It is removed before the answer arrives.
        ("remote", "list f9:running; create f1; start f1; die f1 3", "destroy f1", ""),
        (
            "remote",
            "list f9:running; create f1; start f1; die f1 3; destroy f1",
            "passes f1",
            "[create f1, start f1, destroy f1]; admit f1; expect f1; forget f1 [gone f1]",
        ),
        (
            "remote",
            "list f9:running; create s1; start s1; die s1 3; destroy s1",
            "passes s1",
            "[create s1, start s1, destroy s1]; spawn s1 @7; signal s1 [die 3 s1, -s1 3]; signal s1 [gone s1]; close s1",
        ),
        ("remote", "list f9:running; create f1; start f1; die f1 3; destroy f1; passes f1", "passes f1", ""),
        // The reader refuses it before the answer arrives.
        ("remote", "list f9:running; create f1; start f1", "refused f1 missing", ""),
        (
            "remote",
            "list f9:running; create f1; start f1; refused f1 broken",
            "passes f1",
            "[create f1, start f1, ! f1: broken: reading through the]; spawn f1 up @7",
        ),
        (
            "remote",
            "list f9:running; create f1; start f1; refused-at-end f1 broken",
            "passes f1",
            "[create f1, start f1, ! f1: broken: reading through the]; [-f1 9]; spawn f1 up @7",
        ),
        // Its labels decide whether it is selected.
        ("label", "list f9:running", "create f1 wanted", "[describe f1 created]; open f1 [+f1 file @7]; [create f1]"),
        ("label", "list f9:running", "create f1", "ignore f1"),
    ]);
}

#[test]
fn labels_and_networks_are_looked_up_when_a_container_starts() {
    check(&[
        ("metadata", "", "list f1:running", "[describe f1 running]; open f1 [+f1 file]"),
        (
            "metadata",
            "list f9:running",
            "list f9:running f1:running",
            "[describe f1 running]; open f1 [+f1 file]; [describe f1 running]",
        ),
        ("metadata named=f9", "list f9:running", "start f1", "ignore f1"),
        (
            "metadata",
            "list f1:running; die f1 3; details f1",
            "ran f1",
            "open f1 [+f1 file]; expect f1; [describe f1 running]; finish f1 [-f1 4]",
        ),
        (
            "metadata remote",
            "list f9:running",
            "create f1",
            "[describe f1 created]; open f1 held [+f1 file @7]; look up whether f1 passes with details",
        ),
        (
            "metadata remote",
            "list f9:running; create f1; fails f1",
            "rename f1 new",
            "[describe f1 created]; open f1 from 50 held [history of f1 file]; look up whether f1 passes",
        ),
        ("metadata", "list f9:running", "create f1", "[describe f1 created]; open f1 held [+f1 file @7]"),
        ("metadata", "list f9:running; create f1", "start f1", "[describe f1 running]; look up details of f1"),
        (
            "metadata",
            "list f9:running; create f1; start f1",
            "details f1",
            "[describe f1 running]; [create f1, start f1]; admit f1; open f1 [+f1 file @7]; expect f1",
        ),
        (
            "metadata",
            "list f9:running; create f1; start f1",
            "no-details f1",
            "[create f1, start f1]; admit f1; open f1 [+f1 file @7]; expect f1",
        ),
        ("metadata", "list f9:running; create f1; start f1; details f1", "no-details f1", ""),
        (
            "metadata",
            "list f9:running; create f1",
            "destroy f1",
            "[create f1, destroy f1]; admit f1; forget f1 [gone f1]",
        ),
        ("metadata", "list f9:running; create f1; start f1; die f1 3", "destroy f1", ""),
        (
            "metadata",
            "list f9:running; create f1; start f1; die f1 3; destroy f1",
            "no-details f1",
            "[create f1, start f1, destroy f1]; admit f1; expect f1; forget f1 [gone f1]",
        ),
        ("metadata", "list f9:running", "details f1", ""),
        ("metadata", "list f9:running", "no-answer", ""),
    ]);
}

#[test]
fn an_exit_code_that_may_be_a_label_is_looked_up_first() {
    check(&[
        (
            "",
            "list f9:running; create f1 forging; start f1",
            "die-forged f1",
            "[describe f1 exited]; look up code of f1",
        ),
        ("", "list f9:running; create f1 forging; start f1; die-forged f1", "start f1", ""),
        ("", "list f9:running; create f1 forging; start f1; die-forged f1", "code f1 5", "finish f1 [die 5 f1, -f1 5]"),
        ("", "list f9:running; create f1 forging; start f1; die-forged f1", "code f1 ?", "finish f1 [die f1, -f1 ?]"),
        (
            "",
            "list f9:running; create f1 forging; start f1; die-forged f1; start f1",
            "code f1 5",
            "finish f1 [die 5 f1, -f1 5]; [describe f1 running]; open f1 [+f1 file]; expect f1; [start f1]",
        ),
        ("named=f9", "list f9:running; create f1 forging; start f1", "die-forged f1", ""),
    ]);
}

#[test]
fn containers_that_no_event_reported_are_claimed() {
    check(&[
        ("remote", "list f9:running; create f1; start f1; destroy f1", "unclaimed f1", "ignore f1"),
        (
            "",
            "list f9:running",
            "unclaimed f1",
            "[describe f1 exited]; open f1 [+f1 file]; finish f1 [-f1 ?]; forget f1 [gone f1]",
        ),
        ("", "list f9:running; unclaimed f1", "die f1 3", ""),
        ("", "list f9:running", "unclaimed f9", "ignore f9"),
        ("named=f9", "list f9:running", "unclaimed f1", "ignore f1"),
        (
            "",
            "list f9:running; finish",
            "unclaimed f1",
            "[describe f1 exited]; open f1 [+f1 file]; finish f1; finish f1 [-f1 ?]; forget f1 [gone f1]",
        ),
    ]);
}

#[test]
fn a_name_takes_precedence_over_an_id_prefix() {
    check(&[
        ("named=f named=f1", "list f1:running", "create f", "[describe f created]; open f [+f file @7]; [create f]"),
        (
            "resumed named=web",
            "list f1:running",
            "rename f1 web",
            "[describe f1 running]; open f1 at position [+f1 file @7]; [rename f1]",
        ),
        (
            "named=f",
            "list f1:running",
            "create f",
            "forget f1 [! f1: is no longer followed:, -f1 ?, forget f1]; [describe f created]; open f [+f file @7]; [create f]",
        ),
        (
            "named=s",
            "list s1:running",
            "create s",
            "signal s1 [! s1: is no longer followed:, -s1 ?, forget s1]; close s1; [describe s created]; spawn s @7; [create s]",
        ),
        (
            "named=web",
            "list f1:running",
            "rename f1 web",
            "[describe f1 running]; open f1 from 50 [+f1 file @7]; [rename f1]",
        ),
        ("named=web", "list f1:running; rename f1 web", "rename f1 other", "[describe f1 running]; [rename f1]"),
        (
            "named=f",
            "list f1:exited,3",
            "create f",
            "forget f1 [! f1: is no longer followed:, forget f1]; [describe f created]; open f [+f file @7]; [create f]",
        ),
        (
            "named=f",
            "list f1:running; create f",
            "rename f1 f",
            "[describe f1 running]; open f1 from 100 [+f1 file @7]; [rename f1]",
        ),
    ]);
}

#[test]
fn without_follow_only_the_allowed_number_is_read_in_parallel() {
    check(&[
        ("once", "", "list f1:running", "[describe f1 running]; open f1 once; finish f1"),
        ("once", "", "list s1:running", "[describe s1 running]; spawn s1 once up"),
        ("once", "", "list f1:exited,3 s1:exited,3", "[! no container matches]"),
        (
            "once",
            "",
            "list f1:running s1:running f2:running",
            "[describe f1 running]; [describe s1 running]; [describe f2 running]; open f1 once; finish f1; spawn s1 once up",
        ),
        ("once", "list f1:running s1:running f2:running", "finished f1", "open f2 once; finish f2"),
        ("once", "list f1:running s1:running f2:running", "ended s1", "open f2 once; finish f2"),
        (
            "once parallel=1",
            "",
            "list f1:running f2:running",
            "[describe f1 running]; [describe f2 running]; open f1 once; finish f1",
        ),
        (
            "once files parallel=1",
            "",
            "list n1:running f2:running",
            "[describe n1 running]; [describe f2 running]; [! n1: has no log file]; open f2 once; finish f2",
        ),
        ("once", "list f1:running", "refused-at-60 f1 missing", "spawn f1 once up at 60"),
        ("once", "list f1:running; refused-at-60 f1 missing", "not-followed f1", ""),
        ("once", "list f1:running; refused-at-60 f1 missing; not-followed f1", "ended f1", "[-f1 9]"),
        ("once", "list s1:running", "gave-up", "shorten retries true"),
        ("once", "list s1:running; gave-up", "gave-up", ""),
        ("once", "list s1:running; gave-up", "reached-end", "shorten retries false"),
    ]);
}

#[test]
fn until_reads_every_log_to_its_current_end() {
    check(&[
        ("", "list f1:running s1:running", "finish", "finish f1; signal s1; close s1"),
        ("files", "list n1:running", "finish", ""),
        ("", "list f1:running; die f1 3; finish", "ran f1", "finish f1 [-f1 4]"),
        ("", "list s2:exited,3; finish", "ran s2", "[-s2 4]"),
        ("", "list f1:running; finish", "refused-at-60 f1 missing", "spawn f1 up at 60; signal f1; close f1"),
        ("", "list f1:running; finish", "refused-at-end f1 missing", "spawn f1 up at 60; signal f1 [-f1 9]; close f1"),
        ("", "list f1:running; finish; refused-at-60 f1 missing", "not-followed f1", ""),
        ("", "list f1:running; finish; refused-at-60 f1 missing; not-followed f1", "ended f1", "[-f1 9]"),
        ("files", "list f1:running; finish", "refused-at-60 f1 missing", "[! f1: has no log file]"),
        ("remote", "list f9:running; create f1", "finish", "finish f9; finish f1"),
        ("remote", "list f9:running; create f1; finish", "passes f1", "[create f1]; admit f1"),
        ("remote", "list f9:running; create f1; start f1; finish", "passes f1", "[create f1, start f1]; admit f1"),
        (
            "remote",
            "list f9:running; create s1; start s1; finish",
            "passes s1",
            "[create s1, start s1]; spawn s1 up @7; signal s1; close s1",
        ),
        (
            "remote",
            "list f9:running; create s1; start s1; finish",
            "fails s1",
            "look up whether s1 passes with details",
        ),
        (
            "metadata",
            "list f9:running; create f1; start f1",
            "finish",
            "finish f9; [create f1, start f1]; admit f1; finish f1",
        ),
        (
            "",
            "list f9:running; create f1 forging; start f1; die-forged f1; finish; finished f1",
            "code f1 5",
            "[die 5 f1, -f1 5]",
        ),
    ]);
}

#[test]
fn watch_ends_when_everything_that_was_asked_for_is_read() {
    for (options, inputs, expected) in [
        ("", "list", false),
        ("", "list; finish", true),
        ("", "list f1:running; finish", false),
        ("", "list f1:running; finish; finished f1", true),
        ("", "list s1:running; finish; finished s1", false),
        ("", "list s1:running; finish; ended s1", true),
        ("", "list f1:running; finish; refused f1 missing", false),
        ("", "list f1:running; finish; refused f1 missing; finished f1", false),
        ("", "list f1:running; finish; refused f1 missing; ended f1", true),
        ("", "list f1:running; destroy f1; finish", false),
        ("", "list f1:running; destroy f1; finish; finished f1; forgotten f1", true),
        ("", "list f9:running; finish; finished f9; unclaimed f1", false),
        ("remote", "list; create s1; finish", false),
        ("remote", "list; create s1; finish; fails s1", true),
        ("remote", "list; create s1; finish; passes s1; ended s1", true),
        ("remote", "list; create f1; finish; passes f1", false),
        ("remote", "list; create f1; finish; passes f1; finished f1", true),
        ("files", "list f1:running; finish; refused f1 missing", true),
        // It stopped being followed and is followed again: the end of its first task is not the end of its second.
        ("named=s", "list s1:running; create s; rename s1 s; finish; ended s; ended-first s1", false),
        ("named=s", "list s1:running; create s; rename s1 s; finish; ended s; ended-first s1; ended s1", true),
        ("once", "list", true),
        ("once", "list f1:running f2:running f3:running", false),
        ("once", "list f1:running f2:running f3:running; finished f1; finished f2", false),
        ("once", "list f1:running f2:running f3:running; finished f1; finished f2; finished f3", true),
        ("once", "list s1:running; failed s1", true),
        ("once files", "list n1:running", true),
    ] {
        let mut world = world(options);
        world.run(inputs);
        assert_eq!(world.supervisor.is_done(), expected, "{options}: {inputs}");
    }
}

#[test]
fn logs_that_were_not_read_to_the_end_are_named() {
    for (options, inputs, expected) in [
        ("once", "list s1:running; ended s1", ""),
        ("once", "list s1:running; failed s1", "s1"),
        ("once", "list s1:running f1:running; failed s1; no-logs f1", "s1"),
        ("once named=s1", "list s1:running; no-logs s1", "s1 with reason"),
        ("once", "list s1:running; no-logs s1", ""),
        ("once files", "list n1:running", "n1"),
        ("", "list s1:running; failed s1", ""),
        ("", "list s1:running; finish; failed s1", "s1"),
        ("files", "list f1:running; finish; refused f1 missing", "f1"),
        ("files", "list n1:running; finish", ""),
    ] {
        let mut world = world(options);
        world.run(inputs);
        let (names, source) = world.supervisor.into_unread();
        let reason = if source.is_some() { " with reason" } else { "" };
        assert_eq!(names.join(" ") + reason, expected, "{options}: {inputs}");
    }
}

#[test]
fn running_containers_are_counted_by_route() {
    for (options, inputs, expected) in [
        ("", "list f1:running f2:running s1:running", [2, 0, 0, 0]),
        ("", "list f1:running s1:running; readable s1", [1, 1, 0, 0]),
        ("", "list f1:running s1:running; readable s1; die s1 3; die f1 3", [0, 0, 0, 0]),
        ("", "list f1:running; refused f1 missing", [0, 0, 0, 0]),
        ("", "list f1:running; refused f1 missing; readable f1", [0, 1, 0, 0]),
        ("remote", "list; create f1; start f1", [1, 0, 0, 0]),
        ("files", "list n1:running", [0, 0, 0, 0]),
        ("", "list f1:running; finish", [1, 0, 0, 0]),
        ("", "list s1:running; readable s1; finish", [0, 1, 0, 0]),
    ] {
        let mut world = world(options);
        world.run(inputs);
        assert_eq!(world.supervisor.by_route(), expected, "{options}: {inputs}");
    }
}

/// An earlier run skipped the history of the container and recorded the time 20.
#[test]
fn a_skipped_container_is_read_from_the_recorded_time() {
    let mut world = world("");
    let resume = TimePosition::at(Some(Timestamp(20)));
    let position = Position { route: Route::Stream, resume, place: None };
    let by_id = HashMap::from([("s1".to_owned(), position)]);
    world.supervisor.positions = Some(Positions { is_first: false, by_id });
    assert_eq!(world.run("list s1:running"), "[describe s1 running]; spawn s1 from 20 up");
}

#[test]
fn a_lost_container_is_described_and_reported() {
    let mut world = world("");
    let effect = world.supervisor.report_lost(container("f1", "exited"), Route::File, None);
    assert_eq!(world.show(&effect), "[describe f1 exited, gap f1, forget f1]");
    assert_eq!(world.run("list f2:running"), "[describe f2 running]; open f2 [+f2 file]");
    assert_ne!(world.key("f1"), world.key("f2"));
}

#[test]
fn lines_before_a_start_by_time_are_outside_the_window() {
    let mut world = world("tail0");
    world.run("list f9:running");
    let effects = world
        .supervisor
        .step(world.input("list f9:running s1:running"), Now { instant: Instant::now(), time: Timestamp(100) });
    let since = effects.iter().find_map(|effect| match effect {
        Effect::Spawn(plan) => Some(plan.window.since),
        _ => None,
    });
    assert_eq!(since, Some(Window::default().since), "a new container is read from its first line");
    let effects = super::tests::world("tail0").first_effects("list s1:running");
    let Some(Effect::Spawn(plan)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(plan.window.since, Timestamp(100));
    let mut later = super::tests::world("tail0");
    later.supervisor.settings.window.since = Timestamp(200);
    let effects = later.first_effects("list s1:running");
    let Some(Effect::Spawn(plan)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(plan.window.since, Timestamp(200));
}

impl World {
    fn first_effects(mut self, text: &str) -> Vec<Effect> {
        let input = self.input(text);
        self.supervisor.step(input, Now { instant: Instant::now(), time: Timestamp(100) })
    }
}

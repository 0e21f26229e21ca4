//! Turns listings and events into changes: which containers exist, and which of them run.
//!
//! A state machine without clock or socket. Each event arrives at most once ([`crate::commands::events::subscription`]
//! removes repeats), but late, or not at all while the connection is down; a listing corrects the rest. So every step
//! compares what a container is now with what was known of it, and reports only the difference.

use crate::docker::Event;
use crate::model::batch::Lifecycle;
use crate::model::container::Container;
use crate::model::inventory;
use crate::model::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A listing may lag behind events by this much. During this time after a death, only a `start` event proves that
/// the container runs again.
const LISTINGS_LAG: Duration = inventory::LISTINGS_LAG;

/// What an event or a listing changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A container that was not known: it was just created, or it is in the first listing.
    Found(Arc<Container>),
    /// Its name, state, labels or networks have changed.
    Updated(Arc<Container>),
    /// It runs, and did not before.
    Up(String),
    /// It ran, and does not run any more. With the exit code and the event, if known.
    Down(String, Option<i64>, Option<Lifecycle>),
    /// Like `Down`, but the exit code in the event may be a label of that name: it has to be looked up.
    DownUnknownCode(String, Lifecycle),
    /// The container was removed.
    Gone(String),
    /// It may have run between two listings; an inspection shows when it was last started.
    MayHaveRun(String),
    /// An event to print as a lifecycle record.
    Event(String, Lifecycle),
}

impl Change {
    /// The ID of the container.
    pub(super) fn id(&self) -> &str {
        match self {
            Change::Found(container) | Change::Updated(container) => &container.id,
            Change::Up(id)
            | Change::Down(id, ..)
            | Change::DownUnknownCode(id, _)
            | Change::Gone(id)
            | Change::MayHaveRun(id)
            | Change::Event(id, _) => id,
        }
    }
}

/// All containers that exist, as far as is known.
#[derive(Default)]
pub(super) struct Discovery {
    known: HashMap<String, Arc<Container>>,
    /// Whether there was a listing. Containers that first appear in a later one were created since.
    has_listed: bool,
    /// The last death of each container that does not run.
    deaths: HashMap<String, Death>,
}

/// The end of a container's last known run.
#[derive(Clone, Copy)]
struct Death {
    /// By the daemon's clock; for a container that was found stopped, the time of the listing.
    at: Timestamp,
    /// When the event arrived; `None` if a listing or an inspection showed the death.
    arrived: Option<Instant>,
}

impl Death {
    fn is_recent(&self, now: Instant) -> bool {
        self.arrived.is_some_and(|arrived| now.duration_since(arrived) < LISTINGS_LAG)
    }
}

/// A container's newest run, as an inspection shows it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) is_up: bool,
    pub(super) started: Timestamp,
    pub(super) finished: Option<Timestamp>,
    pub(super) code: Option<i64>,
}

impl Discovery {
    /// Returns what is known about a container.
    pub(super) fn container(&self, id: &str) -> Option<&Arc<Container>> {
        self.known.get(id)
    }

    /// Applies a listing of all containers, made at `now`, which is `at` by the daemon's clock.
    pub(super) fn listing(&mut self, listing: Vec<Container>, now: Instant, at: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        let listed: HashSet<String> = listing.iter().map(|container| container.id.clone()).collect();
        let mut gone: Vec<String> = self.known.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        gone.sort_unstable();
        for id in gone {
            self.remove(&id, &mut changes);
        }
        for mut container in listing {
            let id = container.id.clone();
            if let (Some(known), Some(death)) = (self.known.get(&id), self.deaths.get(&id)) {
                let is_recent = death.is_recent(now);
                if is_recent || !container.is_up() {
                    changes.push(Change::MayHaveRun(id.clone()));
                }
                if is_recent {
                    container.state.clone_from(&known.state);
                    container.exit_code = known.exit_code;
                }
            }
            let (is_up, is_created) = (container.is_up(), container.state == "created");
            self.update(container, &mut changes);
            if is_up {
                self.deaths.remove(&id);
            } else if !is_created {
                self.deaths.entry(id).or_insert(Death { at, arrived: None });
            }
        }
        self.has_listed = true;
        changes
    }

    /// Resolves a [`Change::MayHaveRun`]. A run that began before the known death is the run that the death ended.
    pub(super) fn inspected(&mut self, id: &str, run: &Run) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(known) = self.known.get(id).filter(|known| !known.is_up()) else { return changes };
        let Some(death) = self.deaths.get_mut(id).filter(|death| death.at < run.started) else { return changes };
        if run.is_up {
            let container = Container { state: "running".into(), exit_code: None, ..(**known).clone() };
            self.deaths.remove(id);
            self.update(container, &mut changes);
        } else {
            *death = Death { at: run.finished.unwrap_or(run.started), arrived: None };
            let container = Container { exit_code: run.code, ..(**known).clone() };
            self.known.insert(id.to_owned(), Arc::new(container));
            changes.extend([Change::Up(id.to_owned()), Change::Down(id.to_owned(), run.code, None)]);
        }
        changes
    }

    /// Adds labels and networks, which events do not contain, from the answer to a lookup. Returns
    /// the container with them.
    pub(super) fn add_details(&mut self, container: &Container) -> Arc<Container> {
        let known = self.known.get(&container.id).map_or(container, |known| &**known);
        let Container { labels, networks, hidden, .. } = container.clone();
        let seen = Arc::new(Container { labels, networks, hidden, ..known.clone() });
        if let Some(known) = self.known.get_mut(&container.id) {
            *known = Arc::clone(&seen);
        }
        seen
    }

    /// Sets the exit code of a stopped container, after [`Change::DownUnknownCode`].
    pub(super) fn set_exit_code(&mut self, id: &str, code: Option<i64>) {
        if let Some(known) = self.known.get_mut(id).filter(|known| !known.is_up()) {
            *known = Arc::new(Container { exit_code: code, ..(**known).clone() });
        }
    }

    /// Applies an event that arrived at `now`.
    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(mut container) = event.container() else { return changes };
        if let Some(known) = self.known.get(&event.id) {
            // An event changes nothing else.
            let Container { name, state, exit_code, .. } = container;
            container = (**known).clone();
            container.name = name;
            // A listing may have shown the container, and a later state, before its `create` event arrives.
            if !state.is_empty() && event.base_action() != "create" {
                (container.state, container.exit_code) = (state, exit_code);
            }
        }
        let mut record = lifecycle(event);
        let is_forged = event.base_action() == "die" && {
            let has_label = self.known.get(&event.id).map(|known| known.labels.contains_key("exitCode"));
            has_label.unwrap_or(false) || container.hidden.contains(&"exitCode")
        };
        if is_forged {
            container.exit_code = None;
            record.attributes.remove("exitCode");
        }
        match event.base_action() {
            "destroy" => {
                changes.push(Change::Event(event.id.clone(), record));
                self.remove(&event.id, &mut changes);
            }
            "die" => {
                self.deaths.insert(event.id.clone(), Death { at: event.time, arrived: Some(now) });
                let container_code = container.exit_code;
                self.update(container, &mut changes);
                let down = changes.iter_mut().find(|change| matches!(change, Change::Down(..)));
                match down {
                    Some(down) if is_forged => *down = Change::DownUnknownCode(event.id.clone(), record),
                    Some(down) => *down = Change::Down(event.id.clone(), container_code, Some(record)),
                    None => changes.push(Change::Event(event.id.clone(), record)),
                }
            }
            action => {
                if action == "start" {
                    self.deaths.remove(&event.id);
                }
                self.update(container, &mut changes);
                changes.push(Change::Event(event.id.clone(), record));
            }
        }
        changes
    }

    fn update(&mut self, container: Container, changes: &mut Vec<Change>) {
        let (id, code) = (container.id.clone(), container.exit_code);
        let container = Arc::new(container);
        let before = self.known.insert(id.clone(), Arc::clone(&container));
        let was_up = before.as_ref().is_some_and(|before| before.is_up());
        // It was started and stopped, and no event reported either.
        let never_ran = before.as_ref().map_or(self.has_listed, |before| before.state == "created");
        let ran_unnoticed = never_ran && matches!(container.state.as_str(), "exited" | "dead");
        match before {
            None => changes.push(Change::Found(Arc::clone(&container))),
            Some(before) if before != container => changes.push(Change::Updated(Arc::clone(&container))),
            Some(_) => {}
        }
        match (was_up, container.is_up()) {
            (false, true) => changes.push(Change::Up(id)),
            (true, false) => changes.push(Change::Down(id, code, None)),
            (false, false) if ran_unnoticed => changes.extend([Change::Up(id.clone()), Change::Down(id, code, None)]),
            _ => {}
        }
    }

    fn remove(&mut self, id: &str, changes: &mut Vec<Change>) {
        self.deaths.remove(id);
        if let Some(container) = self.known.remove(id) {
            if container.is_up() {
                changes.push(Change::Down(id.to_owned(), None, None));
            }
            changes.push(Change::Gone(id.to_owned()));
        }
    }
}

fn lifecycle(event: &Event) -> Lifecycle {
    Lifecycle { time: event.time, action: event.action.clone(), attributes: event.attributes.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `state` is `running` or, with the code that a run ended with, `exited 137`.
    fn listed(id: &str, name: &str, state: &str) -> Container {
        let (state, code) = state.split_once(' ').map_or((state, None), |(state, code)| (state, code.parse().ok()));
        Container { id: id.into(), name: name.into(), state: state.into(), exit_code: code, ..Container::default() }
    }

    fn event(time: i64, id: &str, action: &str, more: &[(&str, &str)]) -> Event {
        let attributes = [("name", "web"), ("image", "img")].iter().chain(more);
        Event {
            kind: "container".into(),
            action: action.into(),
            id: id.into(),
            attributes: attributes.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            time: Timestamp(time),
            ..Event::default()
        }
    }

    /// Applies a listing of the time 5.
    fn list(discovery: &mut Discovery, listing: &[(&str, &str, &str)]) -> String {
        let listing = listing.iter().map(|(id, name, state)| listed(id, name, state)).collect();
        show(&discovery.listing(listing, Instant::now(), Timestamp(5)))
    }

    fn show(changes: &[Change]) -> String {
        let shown = changes.iter().map(|change| match change {
            Change::Found(container) => format!("found {} {}", container.name, container.state),
            Change::Updated(container) => format!("updated {} {}", container.name, container.state),
            Change::Up(id) => format!("up {id}"),
            Change::Down(id, code, event) => format!("down {id} {code:?} {}", event.is_some()),
            Change::DownUnknownCode(id, _) => format!("down {id} with unknown code"),
            Change::Gone(id) => format!("gone {id}"),
            Change::MayHaveRun(id) => format!("may have run {id}"),
            Change::Event(_, event) => format!("({})", event.action),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// Time, action and attributes of an event, and what it changes.
    type Step<'a> = (i64, &'a str, &'a [(&'a str, &'a str)], &'a str);

    fn check(discovery: &mut Discovery, events: &[Step<'_>]) {
        for (time, action, more, expected) in events {
            assert_eq!(
                show(&discovery.event(&event(*time, "a", action, more), Instant::now())),
                *expected,
                "{action} at {time}"
            );
        }
    }

    #[test]
    fn a_life_from_create_to_destroy() {
        check(
            &mut Discovery::default(),
            &[
                (1, "create", &[], "found web created, (create)"),
                (2, "start", &[], "updated web running, up a, (start)"),
                (3, "pause", &[], "updated web paused, (pause)"),
                (4, "unpause", &[], "updated web running, (unpause)"),
                (5, "rename", &[("name", "api"), ("oldName", "/web")], "updated api running, (rename)"),
                (6, "kill", &[("name", "api"), ("signal", "10")], "(kill)"),
                (7, "die", &[("name", "api"), ("exitCode", "3")], "updated api exited, down a Some(3) true"),
                (8, "stop", &[("name", "api")], "(stop)"),
                (9, "destroy", &[("name", "api")], "(destroy), gone a"),
            ],
        );
    }

    /// A label called `exitCode` replaces the exit code in the event, so the code is looked up.
    #[test]
    fn an_exit_code_forged_by_a_label_is_looked_up() {
        let mut discovery = Discovery::default();
        check(
            &mut discovery,
            &[
                (1, "start", &[("exitCode", "42")], "found web running, up a, (start)"),
                (2, "die", &[("exitCode", "42")], "updated web exited, down a with unknown code"),
            ],
        );
        discovery.set_exit_code("a", Some(7));
        assert_eq!(discovery.container("a").and_then(|container| container.exit_code), Some(7));
        let container =
            Container { labels: [("name".to_owned(), "x".to_owned())].into(), ..listed("a", "y", "running") };
        let seen = discovery.add_details(&container);
        assert_eq!((seen.name.as_str(), seen.state.as_str(), seen.labels.len()), ("web", "exited", 1));
        // No other event of this container has shown whether it has such a label.
        let mut discovery = Discovery::default();
        list(&mut discovery, &[]);
        check(&mut discovery, &[(2, "die", &[("exitCode", "42")], "found web exited, up a, down a with unknown code")]);
    }

    #[test]
    fn a_restart_is_down_and_up_again() {
        let mut discovery = Discovery::default();
        list(&mut discovery, &[("a", "web", "running")]);
        check(
            &mut discovery,
            &[
                (1, "kill", &[("signal", "15")], "(kill)"),
                (2, "die", &[("exitCode", "0")], "updated web exited, down a Some(0) true"),
                (3, "stop", &[], "(stop)"),
                (4, "start", &[], "updated web running, up a, (start)"),
                (5, "restart", &[], "(restart)"),
                // Docker 23 and later do not always keep this order.
                (6, "kill", &[("signal", "15")], "(kill)"),
                (7, "stop", &[], "(stop)"),
                (8, "die", &[("exitCode", "3")], "updated web exited, down a Some(3) true"),
                (9, "start", &[], "updated web running, up a, (start)"),
                (10, "die", &[("exitCode", "1")], "updated web exited, down a Some(1) true"),
                (11, "restart", &[], "(restart)"),
            ],
        );
    }

    #[test]
    fn a_start_without_its_create_is_enough() {
        check(&mut Discovery::default(), &[(2, "start", &[], "found web running, up a, (start)")]);
    }

    #[test]
    fn a_listing_makes_up_for_missing_events() {
        let mut discovery = Discovery::default();
        let first = [("a", "web", "running"), ("b", "db", "exited"), ("c", "job", "running")];
        assert_eq!(list(&mut discovery, &first), "found web running, up a, found db exited, found job running, up c");
        let second = [("a", "www", "exited 137"), ("b", "db", "running"), ("d", "new", "created")];
        assert_eq!(
            list(&mut discovery, &second),
            "down c None false, gone c, updated www exited, down a Some(137) false, updated db running, up b, found new created",
        );
        assert_eq!(list(&mut discovery, &second), "may have run a");
    }

    #[test]
    fn a_created_container_that_ran_unnoticed_is_up_and_down() {
        let mut discovery = Discovery::default();
        list(&mut discovery, &[("a", "web", "created")]);
        let expected = "updated web exited, up a, down a Some(0) false";
        assert_eq!(list(&mut discovery, &[("a", "web", "exited 0")]), expected);
    }

    #[test]
    fn a_new_container_that_ran_unnoticed_is_up_and_down() {
        let mut discovery = Discovery::default();
        assert_eq!(list(&mut discovery, &[("a", "old", "exited")]), "found old exited");
        let second = [("a", "old", "exited"), ("b", "web", "dead")];
        assert_eq!(list(&mut discovery, &second), "may have run a, found web dead, up b, down b None false");
    }

    #[test]
    fn a_late_create_event_does_not_stop_a_container() {
        let mut discovery = Discovery::default();
        list(&mut discovery, &[("a", "web", "running")]);
        check(&mut discovery, &[(1, "create", &[], "(create)"), (2, "start", &[], "(start)")]);
    }

    #[test]
    fn a_listing_that_lags_behind_a_death_revives_nobody() {
        let (mut discovery, start) = (Discovery::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let running = || vec![listed("a", "web", "running")];
        discovery.listing(running(), at(0), Timestamp(5));
        let mut steps = vec![
            show(&discovery.event(&event(1, "a", "die", &[("exitCode", "0")]), at(10))),
            show(&discovery.listing(running(), at(11), Timestamp(5))),
        ];
        steps.push(show(&discovery.event(&event(2, "a", "start", &[]), at(12))));
        steps.push(show(&discovery.listing(running(), at(12), Timestamp(5))));
        steps.push(show(&discovery.event(&event(3, "a", "die", &[("exitCode", "0")]), at(13))));
        steps.push(show(&discovery.listing(running(), at(30), Timestamp(5))));
        let died = "updated web exited, down a Some(0) true";
        let up = "updated web running, up a";
        let expected = [died, "may have run a", "updated web running, up a, (start)", "", died, up];
        assert_eq!(steps, expected);
    }

    #[test]
    fn an_inspection_shows_whether_a_container_ran_again() {
        let run =
            |is_up, started| Run { is_up, started: Timestamp(started), finished: Some(Timestamp(20)), code: Some(3) };
        for (inspected, died_again, expected) in [
            (run(true, 11), None, "updated web running, up a"),
            // The inspection lags behind the death, too.
            (run(true, 9), None, ""),
            (run(true, 11), Some(12), ""),
            // It ran once more without an event.
            (run(false, 11), None, "up a, down a Some(3) false"),
            (run(false, 9), None, ""),
        ] {
            let mut discovery = Discovery::default();
            list(&mut discovery, &[("a", "web", "running")]);
            for died in [Some(10), died_again].into_iter().flatten() {
                discovery.event(&event(died, "a", "die", &[]), Instant::now());
            }
            assert_eq!(show(&discovery.inspected("a", &inspected)), expected, "{} {died_again:?}", inspected.started);
            assert_eq!(show(&discovery.inspected("b", &inspected)), "");
            // The same answer changes nothing twice.
            assert_eq!(show(&discovery.inspected("a", &inspected)), "");
        }
    }

    #[test]
    fn events_of_other_types_change_nothing() {
        let network = Event { kind: "network".into(), ..event(1, "a", "connect", &[]) };
        assert_eq!(show(&Discovery::default().event(&network, Instant::now())), "");
    }
}

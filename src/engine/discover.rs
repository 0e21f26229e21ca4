//! Which containers there are: listings and events in, changes out.
//!
//! A state machine without clock or socket. Events may come twice (once from the engine's history, once live), late, or
//! not at all while the connection was down; a listing corrects whatever is left. So every step asks what the container
//! is now and tells only what differs from what was known.

use crate::batch::Lifecycle;
use crate::container::Container;
use crate::docker::Event;
use crate::docker::events::Key as EventKey;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events remembered to tell a repeat: the engine's own history has 256.
const REMEMBERED: usize = 1024;

/// The engine tells of a death before its listings do (moby `daemon/monitor.go`: the event, then clearing up, then the
/// snapshot that listings are made from). Within this time of a death, that a container runs is told by its start alone.
const LISTINGS_LAG: Duration = Duration::from_secs(5);

/// What follows from an event or a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A container that was not known: made just now, or there when we first looked.
    Found(Arc<Container>),
    /// Its name, state or networks are others.
    Altered(Arc<Container>),
    /// It runs, and did not.
    Up(String),
    /// It ran, and does not; the code and the event, where known.
    Down(String, Option<i64>, Option<Lifecycle>),
    /// It was removed.
    Gone(String),
    /// For a lifecycle record.
    Happened(String, Lifecycle),
}

/// All containers that are known.
#[derive(Default)]
pub(super) struct Discovery {
    known: HashMap<String, Arc<Container>>,
    /// When we were told of a death.
    deaths: HashMap<String, Instant>,
    seen: HashSet<EventKey>,
    order: VecDeque<EventKey>,
}

impl Discovery {
    /// What a container is known to be.
    pub(super) fn container(&self, id: &str) -> Option<&Arc<Container>> {
        self.known.get(id)
    }

    /// Applies a listing of all containers, made just now.
    pub(super) fn listing(&mut self, listing: Vec<Container>, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let listed: HashSet<String> = listing.iter().map(|container| container.id.clone()).collect();
        for id in self.known.keys().filter(|id| !listed.contains(*id)).cloned().collect::<Vec<_>>() {
            self.remove(&id, &mut changes);
        }
        self.deaths.retain(|_, died| now.duration_since(*died) < LISTINGS_LAG);
        for mut container in listing {
            if let (true, Some(known)) = (self.deaths.contains_key(&container.id), self.known.get(&container.id)) {
                container.state.clone_from(&known.state);
            }
            self.learn(container, &mut changes);
        }
        changes
    }

    /// Applies an event that came just now. A repeat changes nothing.
    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(mut container) = event.container() else { return changes };
        if !self.is_first(event.key()) {
            return changes;
        }
        if let Some(known) = self.known.get(&event.id) {
            // Only these two change in a container's life as far as events tell.
            let Container { name, state, .. } = container;
            container = (**known).clone();
            container.name = name;
            if !state.is_empty() {
                container.state = state;
            }
        }
        let happened = lifecycle(event);
        match event.verb() {
            "destroy" => {
                changes.push(Change::Happened(event.id.clone(), happened));
                self.remove(&event.id, &mut changes);
            }
            "die" => {
                self.deaths.insert(event.id.clone(), now);
                self.learn(container, &mut changes);
                let told = changes.iter_mut().find_map(|change| match change {
                    Change::Down(_, code, told) => Some((code, told)),
                    _ => None,
                });
                match told {
                    Some((code, told)) => (*code, *told) = (event.exit_code(), Some(happened)),
                    None => changes.push(Change::Happened(event.id.clone(), happened)),
                }
            }
            verb => {
                if verb == "start" {
                    self.deaths.remove(&event.id);
                }
                self.learn(container, &mut changes);
                changes.push(Change::Happened(event.id.clone(), happened));
            }
        }
        changes
    }

    fn learn(&mut self, container: Container, changes: &mut Vec<Change>) {
        let id = container.id.clone();
        let container = Arc::new(container);
        let before = self.known.insert(id.clone(), Arc::clone(&container));
        let was_up = before.as_ref().is_some_and(|before| before.is_up());
        // A whole life of which nothing was told.
        let has_lived = before.as_ref().is_some_and(|before| before.state == "created")
            && matches!(container.state.as_str(), "exited" | "dead");
        match before {
            None => changes.push(Change::Found(Arc::clone(&container))),
            Some(before) if before != container => changes.push(Change::Altered(Arc::clone(&container))),
            Some(_) => {}
        }
        match (was_up, container.is_up()) {
            (false, true) => changes.push(Change::Up(id)),
            (true, false) => changes.push(Change::Down(id, None, None)),
            (false, false) if has_lived => changes.extend([Change::Up(id.clone()), Change::Down(id, None, None)]),
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

    fn is_first(&mut self, key: EventKey) -> bool {
        if !self.seen.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

fn lifecycle(event: &Event) -> Lifecycle {
    Lifecycle { time: event.time, action: event.action.clone(), attributes: event.attributes.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn listed(id: &str, name: &str, state: &str) -> Container {
        Container { id: id.into(), name: name.into(), state: state.into(), ..Container::default() }
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

    fn told(changes: &[Change]) -> String {
        let words = changes.iter().map(|change| match change {
            Change::Found(container) => format!("found {} {}", container.name, container.state),
            Change::Altered(container) => format!("altered {} {}", container.name, container.state),
            Change::Up(id) => format!("up {id}"),
            Change::Down(id, code, event) => format!("down {id} {code:?} {}", event.is_some()),
            Change::Gone(id) => format!("gone {id}"),
            Change::Happened(_, event) => format!("({})", event.action),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Time, action and attributes of an event, and what it changes.
    type Step<'a> = (i64, &'a str, &'a [(&'a str, &'a str)], &'a str);

    fn check(discovery: &mut Discovery, events: &[Step<'_>]) {
        for (time, action, more, expected) in events {
            assert_eq!(
                told(&discovery.event(&event(*time, "a", action, more), Instant::now())),
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
                (2, "start", &[], "altered web running, up a, (start)"),
                (3, "pause", &[], "altered web paused, (pause)"),
                (4, "unpause", &[], "altered web running, (unpause)"),
                (5, "rename", &[("name", "api"), ("oldName", "/web")], "altered api running, (rename)"),
                (6, "kill", &[("name", "api"), ("signal", "10")], "(kill)"),
                (7, "die", &[("name", "api"), ("exitCode", "3")], "altered api exited, down a Some(3) true"),
                (8, "stop", &[("name", "api")], "(stop)"),
                (9, "destroy", &[("name", "api")], "(destroy), gone a"),
            ],
        );
    }

    #[test]
    fn a_restart_is_down_and_up_again() {
        let mut discovery = Discovery::default();
        discovery.listing(vec![listed("a", "web", "running")], Instant::now());
        check(
            &mut discovery,
            &[
                (1, "kill", &[("signal", "15")], "(kill)"),
                (2, "die", &[("exitCode", "0")], "altered web exited, down a Some(0) true"),
                (3, "stop", &[], "(stop)"),
                (4, "start", &[], "altered web running, up a, (start)"),
                (5, "restart", &[], "(restart)"),
                // Engines from 23 on are not always in that order.
                (6, "kill", &[("signal", "15")], "(kill)"),
                (7, "stop", &[], "(stop)"),
                (8, "die", &[("exitCode", "3")], "altered web exited, down a Some(3) true"),
                (9, "start", &[], "altered web running, up a, (start)"),
                (10, "die", &[("exitCode", "1")], "altered web exited, down a Some(1) true"),
                (11, "restart", &[], "(restart)"),
            ],
        );
    }

    #[test]
    fn an_event_that_comes_twice_changes_nothing_the_second_time() {
        check(
            &mut Discovery::default(),
            &[
                (1, "create", &[], "found web created, (create)"),
                (1, "create", &[], ""),
                (2, "start", &[], "altered web running, up a, (start)"),
                (1, "create", &[], ""),
                (2, "start", &[], ""),
            ],
        );
    }

    #[test]
    fn a_start_without_its_create_is_enough() {
        check(&mut Discovery::default(), &[(2, "start", &[], "found web running, up a, (start)")]);
    }

    #[test]
    fn a_listing_corrects_what_events_did_not_tell() {
        let mut discovery = Discovery::default();
        let told = |changes: Vec<Change>| told(&changes);
        let first = vec![listed("a", "web", "running"), listed("b", "db", "exited"), listed("c", "job", "running")];
        assert_eq!(
            told(discovery.listing(first, Instant::now())),
            "found web running, up a, found db exited, found job running, up c"
        );
        let second = vec![listed("a", "www", "exited"), listed("b", "db", "running"), listed("d", "new", "created")];
        assert_eq!(
            told(discovery.listing(second.clone(), Instant::now())),
            "down c None false, gone c, altered www exited, down a None false, altered db running, up b, found new created",
        );
        assert_eq!(told(discovery.listing(second, Instant::now())), "");
    }

    #[test]
    fn a_container_that_lived_while_nobody_looked_is_up_and_down() {
        let mut discovery = Discovery::default();
        discovery.listing(vec![listed("a", "web", "created")], Instant::now());
        let changes = discovery.listing(vec![listed("a", "web", "exited")], Instant::now());
        assert_eq!(told(&changes), "altered web exited, up a, down a None false");
    }

    #[test]
    fn a_listing_that_has_not_heard_of_a_death_yet_revives_nobody() {
        let (mut discovery, start) = (Discovery::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let running = || vec![listed("a", "web", "running")];
        discovery.listing(running(), at(0));
        let mut steps = vec![
            told(&discovery.event(&event(1, "a", "die", &[("exitCode", "0")]), at(10))),
            told(&discovery.listing(running(), at(11))),
        ];
        steps.push(told(&discovery.event(&event(2, "a", "start", &[]), at(12))));
        steps.push(told(&discovery.listing(running(), at(12))));
        steps.push(told(&discovery.event(&event(3, "a", "die", &[("exitCode", "0")]), at(13))));
        steps.push(told(&discovery.listing(running(), at(30))));
        let died = "altered web exited, down a Some(0) true";
        let expected = [died, "", "altered web running, up a, (start)", "", died, "altered web running, up a"];
        assert_eq!(steps, expected);
    }

    #[test]
    fn events_of_other_types_are_none_of_ours() {
        let network = Event { kind: "network".into(), ..event(1, "a", "connect", &[]) };
        assert_eq!(told(&Discovery::default().event(&network, Instant::now())), "");
    }
}

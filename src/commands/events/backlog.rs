//! Events that wait for whoever takes them: so many at most, and none that a later one makes needless.
//!
//! In: news in the order in which it came. Out: the same, one by one. Called by whoever reads the event stream, which must
//! not wait: what finds no room here is left out, and the caller makes up for it. No clock, no socket.
//!
//! A container's state is what its last event says, so of two that wait the older can be left out where all it tells is
//! told again. What opens, starts, ends or removes something is never left out: a `create` opens a log, a `die` has an
//! exit code.

use crate::commands::watch::feed::News;
use crate::docker::Event;
use std::collections::{BTreeMap, HashMap};

/// Bytes that may wait: an event carries all labels of its container, which nothing limits.
const BYTES: usize = 16 << 20;

/// See the module.
pub(crate) struct Backlog {
    /// By number, in the order of their coming.
    waiting: BTreeMap<u64, News>,
    next: u64,
    bytes: usize,
    /// Events that may wait at most.
    bound: usize,
    /// Numbers and verbs of waiting events that a later one of their container may make needless; `None` to keep all.
    passing: Option<HashMap<String, Vec<(u64, String)>>>,
    /// A place that is kept; nothing behind it is handed out.
    held: Option<u64>,
}

impl Backlog {
    /// An empty one. With `folds`, needless events are left out.
    pub(crate) fn new(bound: usize, folds: bool) -> Self {
        let passing = folds.then(HashMap::new);
        Backlog { waiting: BTreeMap::new(), next: 0, bytes: 0, bound: bound.max(1), passing, held: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether much is free.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() <= self.bound / 2 && self.bytes <= BYTES / 2
    }

    /// Whether no more events find room.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.bound || self.bytes >= BYTES
    }

    /// Whether there is something to hand out.
    pub(crate) fn is_ready(&self) -> bool {
        let first = self.waiting.first_key_value().map(|(number, _)| *number);
        first.is_some_and(|first| self.held.is_none_or(|held| first < held))
    }

    /// Takes an event, or gives it back when there is no room for it.
    pub(crate) fn push_event(&mut self, event: Box<Event>) -> Result<(), Box<Event>> {
        self.fold(&event);
        if self.is_full() {
            return Err(event);
        }
        if let Some(passing) = &mut self.passing
            && is_passing(&event)
        {
            passing.entry(event.id.clone()).or_default().push((self.next, event.verb().to_owned()));
        }
        self.bytes += weight(&event);
        self.push(News::Event(event));
        Ok(())
    }

    /// Takes what is rare and small.
    pub(crate) fn push(&mut self, news: News) {
        self.waiting.insert(self.next, news);
        self.next += 1;
    }

    /// Keeps the next place for something that is not there yet.
    pub(crate) fn hold(&mut self) {
        self.held = Some(self.next);
        self.next += 1;
    }

    /// Puts it there; `None` gives the place up.
    pub(crate) fn fill(&mut self, news: Option<News>) {
        if let (Some(place), Some(news)) = (self.held.take(), news) {
            self.waiting.insert(place, news);
        }
    }

    /// What came first.
    pub(crate) fn pop(&mut self) -> Option<News> {
        if !self.is_ready() {
            return None;
        }
        let (number, news) = self.waiting.pop_first()?;
        if let News::Event(event) = &news {
            self.bytes -= weight(event);
            self.forget(&event.id, number);
        }
        Some(news)
    }

    /// Takes away what the event makes needless.
    fn fold(&mut self, event: &Event) {
        let Some(passing) = self.passing.as_mut().filter(|_| event.kind == "container") else { return };
        let Some(waiting) = passing.get_mut(&event.id) else { return };
        let needless: Vec<u64> =
            waiting.extract_if(.., |(_, verb)| supersedes(event.verb(), verb)).map(|(n, _)| n).collect();
        if waiting.is_empty() {
            passing.remove(&event.id);
        }
        for number in needless {
            if let Some(News::Event(event)) = self.waiting.remove(&number) {
                self.bytes -= weight(&event);
            }
        }
    }

    fn forget(&mut self, id: &str, number: u64) {
        let Some(passing) = &mut self.passing else { return };
        if let Some(waiting) = passing.get_mut(id) {
            waiting.retain(|(waiting, _)| *waiting != number);
            if waiting.is_empty() {
                passing.remove(id);
            }
        }
    }
}

/// Whether a later event of its container may make it needless.
fn is_passing(event: &Event) -> bool {
    event.kind == "container" && supersedes("destroy", event.verb())
}

/// Whether the newer of two events of one container tells all that the older does to whoever wants only to know what the
/// container is now. Every event tells its name, and whoever wants to know it takes it from any.
fn supersedes(newer: &str, older: &str) -> bool {
    match older {
        "attach" | "detach" | "kill" | "oom" | "rename" | "restart" | "stop" | "update" => true,
        "pause" | "unpause" => matches!(newer, "pause" | "unpause" | "die" | "destroy"),
        "health_status" => matches!(newer, "health_status" | "destroy"),
        _ => false,
    }
}

/// About as many bytes as it holds.
fn weight(event: &Event) -> usize {
    let attributes: usize = event.attributes.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    let texts = [&event.kind, &event.action, &event.id, &event.scope, &event.status, &event.from];
    size_of::<Event>() + texts.into_iter().map(String::len).sum::<usize>() + attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::inventory;
    use crate::model::inventory::{ContainerRow, Update};
    use crate::model::time::Timestamp;
    use proptest::prelude::*;

    fn event(text: &str) -> Box<Event> {
        let (id, action) = text.split_once(' ').unwrap();
        let kind = if id.starts_with('v') { "volume" } else { "container" };
        Box::new(Event { kind: kind.into(), id: id.into(), action: action.into(), ..Event::default() })
    }

    fn told(news: &News) -> String {
        match news {
            News::Event(event) => format!("{} {}", event.id, event.action),
            News::Listing(..) => "listing".into(),
            other => format!("{other:?}"),
        }
    }

    fn rest(inbox: &mut Backlog) -> Vec<String> {
        std::iter::from_fn(|| inbox.pop()).map(|news| told(&news)).collect()
    }

    fn listing() -> News {
        News::Listing(Vec::new(), Timestamp(0), None)
    }

    fn folded(came: &str) -> String {
        let mut inbox = Backlog::new(100, true);
        for text in came.split(", ") {
            inbox.push_event(event(text)).unwrap();
        }
        let left = rest(&mut inbox).join(", ");
        assert_eq!((inbox.len(), inbox.bytes, inbox.passing.unwrap().len()), (0, 0, 0), "{came}");
        left
    }

    #[test]
    fn what_a_later_event_tells_as_well_is_left_out_and_nothing_else() {
        for (came, left) in [
            ("a kill, a die, a stop, a destroy", "a die, a destroy"),
            ("a create, a attach, a start, a die, a destroy", "a create, a start, a die, a destroy"),
            ("a start, a die, a start, a die", "a start, a die, a start, a die"),
            ("a pause, a unpause, a pause, a unpause", "a unpause"),
            ("a pause, a kill, a rename", "a pause, a rename"),
            ("a unpause, a kill, a die", "a die"),
            ("a health_status: healthy, a health_status: unhealthy", "a health_status: unhealthy"),
            ("a health_status: healthy, a kill, a die", "a health_status: healthy, a die"),
            ("a oom, a die", "a die"),
            ("a rename, a rename, a update", "a update"),
            // Each container by itself, and containers alone.
            ("a kill, b kill, a die", "b kill, a die"),
            ("v mount, v unmount, v mount, v destroy", "v mount, v unmount, v mount, v destroy"),
            ("a exec_create: sh, a exec_die, a die", "a exec_create: sh, a exec_die, a die"),
            ("a something_new, a die", "a something_new, a die"),
        ] {
            assert_eq!(folded(came), left, "{came}");
        }
    }

    #[test]
    fn where_each_is_wanted_none_is_left_out() {
        let mut inbox = Backlog::new(100, false);
        let came = ["a kill", "a pause", "a unpause", "a die"];
        came.iter().for_each(|text| inbox.push_event(event(text)).unwrap());
        assert_eq!(rest(&mut inbox), came);
    }

    #[test]
    fn what_finds_no_room_is_given_back_and_what_makes_room_is_taken() {
        let mut inbox = Backlog::new(3, true);
        for text in ["a create", "a kill", "b create"] {
            inbox.push_event(event(text)).unwrap();
        }
        assert_eq!(inbox.push_event(event("c create")).unwrap_err().id, "c");
        inbox.push_event(event("a die")).unwrap();
        assert!(inbox.push_event(event("a start")).is_err());
        assert_eq!(told(&inbox.pop().unwrap()), "a create");
        inbox.push_event(event("a start")).unwrap();
        assert_eq!(rest(&mut inbox), ["b create", "a die", "a start"]);
    }

    #[test]
    fn large_events_are_bounded_by_their_bytes() {
        let mut inbox = Backlog::new(1_000_000, true);
        let large = |number: u32| {
            let mut event = event("a create");
            event.attributes.insert(number.to_string(), "x".repeat(1 << 20));
            event
        };
        let taken = (0..100).filter(|number| inbox.push_event(large(*number)).is_ok()).count();
        assert_eq!(taken, 16);
        assert!(!inbox.has_room());
        rest(&mut inbox);
        assert_eq!((inbox.bytes, inbox.has_room()), (0, true));
    }

    #[test]
    fn what_has_its_place_kept_goes_before_what_came_behind_it() {
        let mut inbox = Backlog::new(100, true);
        inbox.push_event(event("a create")).unwrap();
        inbox.hold();
        inbox.push_event(event("b create")).unwrap();
        assert_eq!(rest(&mut inbox), ["a create"]);
        assert!(!inbox.is_ready());
        inbox.fill(Some(listing()));
        assert_eq!(rest(&mut inbox), ["listing", "b create"]);
        inbox.hold();
        inbox.push_event(event("c create")).unwrap();
        inbox.fill(None);
        assert_eq!(rest(&mut inbox), ["c create"]);
    }

    /// What the inventory has of each container, but for when it was first told of.
    fn keep(rows: &mut BTreeMap<String, ContainerRow>, told: Update) {
        match told {
            Update::Container(row) => {
                if let Some(mut row) = ContainerRow::after_event(rows.get(&row.id), &row) {
                    row.seen.first = Timestamp(0);
                    rows.insert(row.id.clone(), row);
                }
            }
            Update::ContainerGone(id, _) => drop(rows.remove(&id)),
            other => panic!("of no container: {other:?}"),
        }
    }

    proptest! {
        /// Whatever comes, folding leaves each container in the state in which it would be without it, and its row in the inventory.
        #[test]
        fn folding_changes_no_outcome(came in proptest::collection::vec((0..3_u8, 0..14_usize), 0..60)) {
            const VERBS: [&str; 14] = [
                "create", "start", "die", "stop", "kill", "destroy", "pause", "unpause", "rename", "restart", "update",
                "oom", "health_status: healthy", "health_status: unhealthy",
            ];
            let mut inboxes = [Backlog::new(100, true), Backlog::new(100, false)];
            for (number, (id, verb)) in came.iter().enumerate() {
                for inbox in &mut inboxes {
                    let mut event = event(&format!("{id} {}", VERBS[*verb]));
                    event.attributes.insert("name".into(), number.to_string());
                    event.time = Timestamp(i64::try_from(number).unwrap());
                    inbox.push_event(event).unwrap();
                }
            }
            let outcomes = inboxes.map(|mut inbox| {
                let mut last: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
                let (mut kept, mut rows) = (Vec::new(), BTreeMap::new());
                while let Some(News::Event(event)) = inbox.pop() {
                    let known = last.entry(event.id.clone()).or_default();
                    known.insert("name", event.attributes["name"].clone());
                    match event.verb() {
                        "pause" | "unpause" | "start" | "die" | "create" => known.insert("state", event.action.clone()),
                        "health_status" => known.insert("health", event.action.clone()),
                        "destroy" => last.remove(&event.id).and(None),
                        _ => None,
                    };
                    if matches!(event.verb(), "create" | "start" | "die" | "destroy") {
                        kept.push((event.id.clone(), event.action.clone(), event.attributes["name"].clone()));
                    }
                    inventory::told(&event).into_iter().for_each(|told| keep(&mut rows, told));
                }
                (last, kept, rows)
            });
            prop_assert_eq!(&outcomes[0], &outcomes[1]);
        }
    }
}

//! A bounded queue of events that are not processed yet.
//!
//! In: events and other items, in the order of their arrival. Out: the same order. The caller reads the event stream
//! and must never wait, so a full backlog returns an event instead of taking it, and the caller makes up for the loss.
//! No clock, no socket.
//!
//! A backlog that coalesces drops a waiting event once a later event of the same container supersedes it. An event that
//! creates, starts, ends or removes something is never dropped: a `create` opens a log, and a `die` carries an exit
//! code.

use crate::docker::Event;
use std::collections::{BTreeMap, HashMap};

/// Limit in bytes. An event carries all labels of its container, and Docker does not limit their size.
const MAX_BYTES: usize = 16 << 20;

/// Queue of events, and of items of type `T` that are rare and small. [`Backlog::pop`] returns both as `T`.
///
/// Only events count towards the limits, and only events are coalesced.
pub(crate) struct Backlog<T> {
    /// Keyed by sequence number, so iteration follows the order of arrival.
    entries: BTreeMap<u64, Queued<T>>,
    /// Sequence number of the next entry.
    next: u64,
    /// Approximate size of all queued events.
    bytes: usize,
    /// Maximum number of entries, at least 1.
    capacity: usize,
    /// By container ID, the sequence number and action of each queued event that a later one may supersede. `None` if
    /// the backlog does not coalesce.
    coalescible: Option<HashMap<String, Vec<(u64, String)>>>,
    /// Sequence number that is reserved for an item to come. No later entry leaves before it is filled.
    reserved: Option<u64>,
}

enum Queued<T> {
    Event(Box<Event>),
    Other(T),
}

impl<T: From<Box<Event>>> Backlog<T> {
    /// An empty backlog for `capacity` entries, which keeps every event.
    pub(crate) fn new(capacity: usize) -> Self {
        let (entries, capacity) = (BTreeMap::new(), capacity.max(1));
        Backlog { entries, next: 0, bytes: 0, capacity, coalescible: None, reserved: None }
    }

    /// Like [`Backlog::new`], but superseded events are dropped.
    pub(crate) fn coalescing(capacity: usize) -> Self {
        Backlog { coalescible: Some(HashMap::new()), ..Backlog::new(capacity) }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether at least half of the capacity is free, both in entries and in bytes.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() <= self.capacity / 2 && self.bytes <= MAX_BYTES / 2
    }

    /// Returns whether the backlog refuses further events.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity || self.bytes >= MAX_BYTES
    }

    /// Returns whether [`Backlog::pop`] would return an entry.
    pub(crate) fn is_ready(&self) -> bool {
        let first = self.entries.first_key_value().map(|(number, _)| *number);
        first.is_some_and(|first| self.reserved.is_none_or(|reserved| first < reserved))
    }

    /// Queues an event, or returns it when the backlog is full.
    pub(crate) fn push_event(&mut self, event: Box<Event>) -> Result<(), Box<Event>> {
        self.drop_superseded(&event);
        if self.is_full() {
            return Err(event);
        }
        if let Some(coalescible) = &mut self.coalescible
            && is_coalescible(&event)
        {
            coalescible.entry(event.id.clone()).or_default().push((self.next, event.base_action().to_owned()));
        }
        self.bytes += size(&event);
        self.insert(Queued::Event(event));
        Ok(())
    }

    /// Queues an item even when the backlog is full: these are rare and small.
    pub(crate) fn push(&mut self, item: T) {
        self.insert(Queued::Other(item));
    }

    fn insert(&mut self, entry: Queued<T>) {
        self.entries.insert(self.next, entry);
        self.next += 1;
    }

    /// Reserves the next place for an item that is not available yet.
    pub(crate) fn reserve(&mut self) {
        self.reserved = Some(self.next);
        self.next += 1;
    }

    /// Puts the item into the reserved place; `None` releases the place.
    pub(crate) fn fill_reserved(&mut self, item: Option<T>) {
        if let (Some(place), Some(item)) = (self.reserved.take(), item) {
            self.entries.insert(place, Queued::Other(item));
        }
    }

    /// Removes the oldest entry, unless it comes after the reserved place.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if !self.is_ready() {
            return None;
        }
        let (number, entry) = self.entries.pop_first()?;
        Some(match entry {
            Queued::Event(event) => {
                self.bytes -= size(&event);
                self.forget(&event.id, number);
                event.into()
            }
            Queued::Other(item) => item,
        })
    }

    /// Drops the queued events that `event` supersedes.
    fn drop_superseded(&mut self, event: &Event) {
        let Some(coalescible) = self.coalescible.as_mut().filter(|_| event.kind == "container") else { return };
        let Some(queued) = coalescible.get_mut(&event.id) else { return };
        let superseded: Vec<u64> = queued
            .extract_if(.., |(_, action)| supersedes(event.base_action(), action))
            .map(|(number, _)| number)
            .collect();
        if queued.is_empty() {
            coalescible.remove(&event.id);
        }
        for number in superseded {
            if let Some(Queued::Event(event)) = self.entries.remove(&number) {
                self.bytes -= size(&event);
            }
        }
    }

    fn forget(&mut self, id: &str, number: u64) {
        let Some(coalescible) = &mut self.coalescible else { return };
        if let Some(queued) = coalescible.get_mut(id) {
            queued.retain(|(queued, _)| *queued != number);
            if queued.is_empty() {
                coalescible.remove(id);
            }
        }
    }
}

/// Returns whether any later event of its container may supersede this one.
fn is_coalescible(event: &Event) -> bool {
    event.kind == "container" && supersedes("destroy", event.base_action())
}

/// Returns whether the newer of two events of one container makes the older one redundant for a reader who needs only
/// the container's current state. The name never matters here: every event carries it, and such a reader takes it from
/// any.
fn supersedes(newer: &str, older: &str) -> bool {
    match older {
        "attach" | "detach" | "kill" | "oom" | "rename" | "restart" | "stop" | "update" => true,
        "pause" | "unpause" => matches!(newer, "pause" | "unpause" | "die" | "destroy"),
        "health_status" => matches!(newer, "health_status" | "destroy"),
        _ => false,
    }
}

/// Approximate size of an event in memory, in bytes.
fn size(event: &Event) -> usize {
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

    enum Entry {
        Event(Box<Event>),
        Listing,
    }

    impl From<Box<Event>> for Entry {
        fn from(event: Box<Event>) -> Self {
            Entry::Event(event)
        }
    }

    fn event(text: &str) -> Box<Event> {
        let (id, action) = text.split_once(' ').unwrap();
        let kind = if id.starts_with('v') { "volume" } else { "container" };
        Box::new(Event { kind: kind.into(), id: id.into(), action: action.into(), ..Event::default() })
    }

    fn text(entry: &Entry) -> String {
        match entry {
            Entry::Event(event) => format!("{} {}", event.id, event.action),
            Entry::Listing => "listing".into(),
        }
    }

    fn drain(backlog: &mut Backlog<Entry>) -> Vec<String> {
        std::iter::from_fn(|| backlog.pop()).map(|item| text(&item)).collect()
    }

    fn coalesce(events: &str) -> String {
        let mut backlog = Backlog::coalescing(100);
        for text in events.split(", ") {
            backlog.push_event(event(text)).unwrap();
        }
        let left = drain(&mut backlog).join(", ");
        assert_eq!((backlog.len(), backlog.bytes, backlog.coalescible.unwrap().len()), (0, 0, 0), "{events}");
        left
    }

    #[test]
    fn drops_exactly_the_superseded_events() {
        for (events, left) in [
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
            // Only events of the same container, and only of containers.
            ("a kill, b kill, a die", "b kill, a die"),
            ("v mount, v unmount, v mount, v destroy", "v mount, v unmount, v mount, v destroy"),
            ("a exec_create: sh, a exec_die, a die", "a exec_create: sh, a exec_die, a die"),
            ("a something_new, a die", "a something_new, a die"),
        ] {
            assert_eq!(coalesce(events), left, "{events}");
        }
    }

    #[test]
    fn keeps_every_event_without_coalescing() {
        let mut backlog = Backlog::new(100);
        let events = ["a kill", "a pause", "a unpause", "a die"];
        events.iter().for_each(|text| backlog.push_event(event(text)).unwrap());
        assert_eq!(drain(&mut backlog), events);
    }

    #[test]
    fn returns_events_when_full_but_takes_one_that_frees_space() {
        let mut backlog = Backlog::coalescing(3);
        for text in ["a create", "a kill", "b create"] {
            backlog.push_event(event(text)).unwrap();
        }
        assert_eq!(backlog.push_event(event("c create")).unwrap_err().id, "c");
        backlog.push_event(event("a die")).unwrap();
        assert!(backlog.push_event(event("a start")).is_err());
        assert_eq!(text(&backlog.pop().unwrap()), "a create");
        backlog.push_event(event("a start")).unwrap();
        assert_eq!(drain(&mut backlog), ["b create", "a die", "a start"]);
    }

    #[test]
    fn limits_the_bytes_of_large_events() {
        let mut backlog = Backlog::coalescing(1_000_000);
        let large = |number: u32| {
            let mut event = event("a create");
            event.attributes.insert(number.to_string(), "x".repeat(1 << 20));
            event
        };
        let taken = (0..100).filter(|number| backlog.push_event(large(*number)).is_ok()).count();
        assert_eq!(taken, 16);
        assert!(!backlog.has_room());
        drain(&mut backlog);
        assert_eq!((backlog.bytes, backlog.has_room()), (0, true));
    }

    #[test]
    fn a_reserved_place_holds_back_later_entries() {
        let mut backlog = Backlog::coalescing(100);
        backlog.push_event(event("a create")).unwrap();
        backlog.reserve();
        backlog.push_event(event("b create")).unwrap();
        assert_eq!(drain(&mut backlog), ["a create"]);
        assert!(!backlog.is_ready());
        backlog.fill_reserved(Some(Entry::Listing));
        assert_eq!(drain(&mut backlog), ["listing", "b create"]);
        backlog.reserve();
        backlog.push_event(event("c create")).unwrap();
        backlog.fill_reserved(None);
        assert_eq!(drain(&mut backlog), ["c create"]);
    }

    /// Applies an update to the inventory rows. The time of first sight is left out: coalescing may change it.
    fn apply(rows: &mut BTreeMap<String, ContainerRow>, update: Update) {
        match update {
            Update::Container(row) => {
                if let Some(mut row) = ContainerRow::after_event(rows.get(&row.id), &row) {
                    row.seen.first = Timestamp(0);
                    rows.insert(row.id.clone(), row);
                }
            }
            Update::ContainerGone(id, _) => drop(rows.remove(&id)),
            other => panic!("not an update of a container: {other:?}"),
        }
    }

    proptest! {
        /// Coalescing changes neither the final state of a container nor its row in the inventory.
        #[test]
        fn coalescing_changes_no_outcome(events in proptest::collection::vec((0..3_u8, 0..14_usize), 0..60)) {
            const ACTIONS: [&str; 14] = [
                "create", "start", "die", "stop", "kill", "destroy", "pause", "unpause", "rename", "restart", "update",
                "oom", "health_status: healthy", "health_status: unhealthy",
            ];
            let mut backlogs = [Backlog::<Entry>::coalescing(100), Backlog::new(100)];
            for (number, (id, action)) in events.iter().enumerate() {
                for backlog in &mut backlogs {
                    let mut event = event(&format!("{id} {}", ACTIONS[*action]));
                    event.attributes.insert("name".into(), number.to_string());
                    event.time = Timestamp(i64::try_from(number).unwrap());
                    backlog.push_event(event).unwrap();
                }
            }
            let outcomes = backlogs.map(|mut backlog| {
                let mut last: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
                let (mut kept, mut rows) = (Vec::new(), BTreeMap::new());
                while let Some(Entry::Event(event)) = backlog.pop() {
                    let known = last.entry(event.id.clone()).or_default();
                    known.insert("name", event.attributes["name"].clone());
                    match event.base_action() {
                        "pause" | "unpause" | "start" | "die" | "create" => known.insert("state", event.action.clone()),
                        "health_status" => known.insert("health", event.action.clone()),
                        "destroy" => last.remove(&event.id).and(None),
                        _ => None,
                    };
                    if matches!(event.base_action(), "create" | "start" | "die" | "destroy") {
                        kept.push((event.id.clone(), event.action.clone(), event.attributes["name"].clone()));
                    }
                    inventory::updates(&event).into_iter().for_each(|update| apply(&mut rows, update));
                }
                (last, kept, rows)
            });
            prop_assert_eq!(&outcomes[0], &outcomes[1]);
        }
    }
}

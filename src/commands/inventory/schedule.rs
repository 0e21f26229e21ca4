//! What of the inventory is to be looked up, and when.
//!
//! In: what events told, and the time. Out: errands. Called by [`super::inventory`]. A plan without clock or socket:
//! nothing is due at rest, and what many events of one second ask for is one errand.

use crate::model::inventory::{LISTINGS_LAG, Update};
use crate::model::time::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From an event to the look at what it did not tell.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// After a death, which the engine's listings show late.
pub(crate) const LOOK_AFTER_DEATH: Duration = LISTINGS_LAG;
/// More IDs than fit a request: then everything is compared.
const MOST: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Which containers, and when; with the moment of the engine's clock that has passed by then.
    looks: BTreeMap<(Instant, String), Timestamp>,
    /// When volumes are.
    volumes: Option<Instant>,
    /// When everything is.
    everything: Option<Instant>,
    /// The newest event's time.
    latest: Timestamp,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// All there is.
    Everything,
    /// These containers, and perhaps all volumes, at that moment of the engine's clock, which has passed.
    Some { ids: Vec<String>, with_volumes: bool, at: Timestamp },
}

impl Schedule {
    /// When something is.
    pub(crate) fn due(&self) -> Option<Instant> {
        let look = self.looks.keys().next().map(|(due, _)| *due);
        [look, self.volumes, self.everything].into_iter().flatten().min()
    }

    /// The newest moment of the engine's clock that an event told of.
    pub(crate) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Everything, then, whatever was planned.
    pub(crate) fn plan_everything(&mut self, due: Option<Instant>) {
        self.everything = due;
    }

    /// Everything, then or earlier.
    pub(crate) fn plan_everything_by(&mut self, due: Instant) {
        self.everything = Some(self.everything.map_or(due, |planned| planned.min(due)));
    }

    /// What this event did not tell.
    pub(crate) fn note(&mut self, told: &Update, now: Instant) {
        match told {
            Update::Container(container) => {
                let at = container.seen.last;
                self.latest = self.latest.max(at);
                if container.unlisted.finished.is_some() {
                    self.doubt(&container.id, at, now);
                } else {
                    self.look(&container.id, now + LOOK, at);
                }
            }
            Update::ContainerGone(id, at) => {
                self.latest = self.latest.max(*at);
                self.looks.retain(|(_, of), _| of != id);
            }
            Update::Volume(volume) => self.note_volume(volume.seen.last, now),
            Update::VolumeGone(_, at) => self.note_volume(*at, now),
            Update::Mount(mount, at) => {
                self.look(&mount.container_id, now + LOOK, *at);
                self.note_volume(*at, now);
            }
        }
    }

    /// A container that died then, or may have: listings will show it.
    pub(crate) fn doubt(&mut self, id: &str, at: Timestamp, now: Instant) {
        self.look(id, now + LOOK_AFTER_DEATH, at + LISTINGS_LAG);
    }

    /// Which volumes there are has changed by then.
    pub(crate) fn note_volume(&mut self, at: Timestamp, now: Instant) {
        self.latest = self.latest.max(at);
        self.volumes.get_or_insert(now + LOOK);
    }

    fn look(&mut self, id: &str, due: Instant, at: Timestamp) {
        let is_due_soon = |(planned, of): &(Instant, String)| {
            of == id && *planned <= due && due.saturating_duration_since(*planned) < LOOK
        };
        match self.looks.iter_mut().find(|(key, _)| is_due_soon(key)) {
            Some((_, planned)) => *planned = at.max(*planned),
            None => {
                self.looks.insert((due, id.to_owned()), at);
            }
        }
    }

    /// What is due now, and is from now on as good as done.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Errand> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let mut at = self.latest;
        let mut ids = Vec::new();
        while let Some(entry) = self.looks.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), of) = entry.remove_entry();
            at = at.max(of);
            ids.push(id);
        }
        ids.sort_unstable();
        ids.dedup();
        if is_due(self.everything) || ids.len() > MOST {
            (self.everything, self.volumes) = (None, None);
            return Some(Errand::Everything);
        }
        let with_volumes = is_due(self.volumes) || (self.volumes.is_some() && !ids.is_empty());
        self.volumes = self.volumes.filter(|_| !with_volumes);
        (with_volumes || !ids.is_empty()).then_some(Errand::Some { ids, with_volumes, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::inventory::{ContainerRow, MountRow, SeenRange, UnlistedFields, VolumeRow};

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000_000)
    }

    fn container(id: &str, second: i64, has_died: bool) -> Update {
        let unlisted = UnlistedFields { finished: Some(at(second)).filter(|_| has_died), ..UnlistedFields::default() };
        Update::Container(Box::new(ContainerRow {
            id: id.into(),
            unlisted,
            seen: SeenRange::at(at(second)),
            ..ContainerRow::default()
        }))
    }

    fn volume(second: i64) -> Update {
        Update::Volume(VolumeRow { name: "v".into(), seen: SeenRange::at(at(second)), ..VolumeRow::default() })
    }

    /// Told at these milliseconds; then what is due, when, until nothing is.
    fn errands(told: &[(u64, Update)]) -> Vec<(u128, String)> {
        let begun = Instant::now();
        let mut agenda = Schedule::default();
        let mut errands = Vec::new();
        let mut run = |agenda: &mut Schedule, until: Option<Instant>| {
            while let Some(due) = agenda.due().filter(|due| until.is_none_or(|until| *due <= until)) {
                if let Some(errand) = agenda.take(due) {
                    errands.push(((due - begun).as_millis(), words(&errand)));
                }
            }
        };
        for (millis, told) in told {
            let now = begun + Duration::from_millis(*millis);
            run(&mut agenda, Some(now));
            agenda.note(told, now);
        }
        run(&mut agenda, None);
        errands
    }

    fn words(errand: &Errand) -> String {
        match errand {
            Errand::Everything => "everything".into(),
            Errand::Some { ids, with_volumes, at } => {
                let volumes = if *with_volumes { " and volumes" } else { "" };
                format!("{}{volumes} at {}", ids.join(" "), at.0 / 1_000_000_000)
            }
        }
    }

    #[track_caller]
    fn check(told: &[(u64, Update)], expected: &[(u128, &str)]) {
        let errands = errands(told);
        let errands: Vec<(u128, &str)> = errands.iter().map(|(millis, errand)| (*millis, &**errand)).collect();
        assert_eq!(errands, expected);
    }

    #[test]
    fn what_many_events_ask_for_is_one_errand_and_at_rest_there_is_none() {
        assert_eq!(Schedule::default().due(), None);
        check(&[(0, container("a", 7, false))], &[(1000, "a at 7")]);
        let life = [(0, container("a", 7, false)), (10, container("a", 8, false)), (900, container("a", 9, false))];
        check(&life, &[(1000, "a at 9")]);
        check(&[(0, volume(7)), (500, volume(8))], &[(1000, " and volumes at 8")]);
        let mount = Update::Mount(MountRow { container_id: "a".into(), ..MountRow::default() }, at(8));
        check(&[(0, container("a", 7, false)), (10, mount), (20, volume(9))], &[(1000, "a and volumes at 9")]);
    }

    #[test]
    fn a_death_is_looked_at_when_listings_show_it_and_who_is_gone_is_not_looked_at() {
        check(&[(0, container("a", 7, true))], &[(5000, "a at 12")]);
        let gone = (100, Update::ContainerGone("a".into(), at(8)));
        check(&[(0, container("a", 7, false)), (50, container("a", 7, true)), gone], &[]);
        let restarted = [(0, container("a", 7, true)), (100, container("a", 8, false))];
        check(&restarted, &[(1100, "a at 8"), (5000, "a at 12")]);
    }

    #[test]
    fn too_many_for_a_request_are_everything_and_so_is_what_comes_due_with_it() {
        let crowd: Vec<(u64, Update)> =
            (0..=MOST).map(|number| (0, container(&format!("c{number}"), 7, false))).collect();
        check(&crowd[..MOST - 1], &[(1000, &errands(&crowd[..MOST - 1])[0].1)]);
        check(&crowd, &[(1000, "everything")]);
        let now = Instant::now();
        let mut agenda = Schedule::default();
        agenda.note(&container("a", 7, false), now);
        agenda.note(&volume(7), now);
        agenda.plan_everything_by(now + LOOK * 9);
        agenda.plan_everything_by(now + LOOK);
        assert_eq!(agenda.take(now + LOOK), Some(Errand::Everything));
        assert_eq!((agenda.due(), agenda.take(now + LOOK * 99)), (None, None));
    }
}

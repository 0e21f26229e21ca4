//! Schedules when rows of the inventory are refreshed from the engine.
//!
//! In: updates from events, and the time. Out: [`Refresh`]es. Called by [`super`]. No clock, no socket. Without events
//! nothing is due, and the events of one second lead to a single refresh.

use crate::model::inventory::{LISTINGS_LAG, Update};
use crate::model::time::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time from an event to the refresh of what the event does not contain.
pub(crate) const REFRESH_DELAY: Duration = Duration::from_secs(1);
/// The same after a container died, which the engine's listings show late.
const DELAY_AFTER_DEATH: Duration = LISTINGS_LAG;
/// Maximum number of IDs in one request. With more, everything is refreshed.
const MAX_IDS: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Refreshes of single containers, by due time and ID. The value is a time by the engine's clock that has passed
    /// when the refresh is due.
    containers: BTreeMap<(Instant, String), Timestamp>,
    /// When to refresh all volumes.
    volumes: Option<Instant>,
    /// When to refresh everything.
    everything: Option<Instant>,
    /// Time of the newest event, by the engine's clock.
    latest: Timestamp,
}

/// What to query from the engine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// All containers and volumes.
    Everything,
    /// These containers, and all volumes if `with_volumes`. `at` is a time by the engine's clock that has passed.
    Some { ids: Vec<String>, with_volumes: bool, at: Timestamp },
}

impl Schedule {
    /// Returns when the next refresh is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let container = self.containers.keys().next().map(|(due, _)| *due);
        [container, self.volumes, self.everything].into_iter().flatten().min()
    }

    /// Returns the time of the newest event, by the engine's clock.
    pub(crate) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Schedules the refresh of everything for this time, instead of any time before; `None` cancels it.
    pub(crate) fn plan_everything(&mut self, due: Option<Instant>) {
        self.everything = due;
    }

    /// Schedules the refresh of everything for this time, unless it is due earlier.
    pub(crate) fn plan_everything_by(&mut self, due: Instant) {
        self.everything = Some(self.everything.map_or(due, |planned| planned.min(due)));
    }

    /// Schedules the refresh of what an event does not contain.
    pub(crate) fn note(&mut self, update: &Update, now: Instant) {
        match update {
            Update::Container(container) => {
                let at = container.seen.last;
                self.latest = self.latest.max(at);
                if container.unlisted.finished.is_some() {
                    self.note_death(&container.id, at, now);
                } else {
                    self.add(&container.id, now + REFRESH_DELAY, at);
                }
            }
            Update::ContainerGone(id, at) => {
                self.latest = self.latest.max(*at);
                self.containers.retain(|(_, of), _| of != id);
            }
            Update::Volume(volume) => self.note_volume(volume.seen.last, now),
            Update::VolumeGone(_, at) => self.note_volume(*at, now),
            Update::Mount(mount, at) => {
                self.add(&mount.container_id, now + REFRESH_DELAY, *at);
                self.note_volume(*at, now);
            }
        }
    }

    /// A container died at this time, or may have: schedules a refresh for when listings show it.
    pub(crate) fn note_death(&mut self, id: &str, at: Timestamp, now: Instant) {
        self.add(id, now + DELAY_AFTER_DEATH, at + LISTINGS_LAG);
    }

    /// The set of volumes changed at this time.
    pub(crate) fn note_volume(&mut self, at: Timestamp, now: Instant) {
        self.latest = self.latest.max(at);
        self.volumes.get_or_insert(now + REFRESH_DELAY);
    }

    fn add(&mut self, id: &str, due: Instant, at: Timestamp) {
        let is_due_soon = |(planned, of): &(Instant, String)| {
            of == id && *planned <= due && due.saturating_duration_since(*planned) < REFRESH_DELAY
        };
        match self.containers.iter_mut().find(|(key, _)| is_due_soon(key)) {
            Some((_, planned)) => *planned = at.max(*planned),
            None => {
                self.containers.insert((due, id.to_owned()), at);
            }
        }
    }

    /// Removes what is due from the schedule and returns it.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Refresh> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let mut at = self.latest;
        let mut ids = Vec::new();
        while let Some(entry) = self.containers.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, id), of) = entry.remove_entry();
            at = at.max(of);
            ids.push(id);
        }
        ids.sort_unstable();
        ids.dedup();
        if is_due(self.everything) || ids.len() > MAX_IDS {
            (self.everything, self.volumes) = (None, None);
            return Some(Refresh::Everything);
        }
        let with_volumes = is_due(self.volumes) || (self.volumes.is_some() && !ids.is_empty());
        self.volumes = self.volumes.filter(|_| !with_volumes);
        (with_volumes || !ids.is_empty()).then_some(Refresh::Some { ids, with_volumes, at })
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

    /// Notes updates at these milliseconds; returns all refreshes with the milliseconds at which they are due.
    fn refreshes(updates: &[(u64, Update)]) -> Vec<(u128, String)> {
        let begun = Instant::now();
        let mut schedule = Schedule::default();
        let mut refreshes = Vec::new();
        let mut run = |schedule: &mut Schedule, until: Option<Instant>| {
            while let Some(due) = schedule.due().filter(|due| until.is_none_or(|until| *due <= until)) {
                if let Some(refresh) = schedule.take(due) {
                    refreshes.push(((due - begun).as_millis(), text(&refresh)));
                }
            }
        };
        for (millis, update) in updates {
            let now = begun + Duration::from_millis(*millis);
            run(&mut schedule, Some(now));
            schedule.note(update, now);
        }
        run(&mut schedule, None);
        refreshes
    }

    fn text(refresh: &Refresh) -> String {
        match refresh {
            Refresh::Everything => "everything".into(),
            Refresh::Some { ids, with_volumes, at } => {
                let volumes = if *with_volumes { " and volumes" } else { "" };
                format!("{}{volumes} at {}", ids.join(" "), at.0 / 1_000_000_000)
            }
        }
    }

    #[track_caller]
    fn check(updates: &[(u64, Update)], expected: &[(u128, &str)]) {
        let refreshes = refreshes(updates);
        let refreshes: Vec<(u128, &str)> = refreshes.iter().map(|(millis, text)| (*millis, &**text)).collect();
        assert_eq!(refreshes, expected);
    }

    #[test]
    fn joins_many_events_into_one_refresh() {
        assert_eq!(Schedule::default().due(), None);
        check(&[(0, container("a", 7, false))], &[(1000, "a at 7")]);
        let life = [(0, container("a", 7, false)), (10, container("a", 8, false)), (900, container("a", 9, false))];
        check(&life, &[(1000, "a at 9")]);
        check(&[(0, volume(7)), (500, volume(8))], &[(1000, " and volumes at 8")]);
        let mount = Update::Mount(MountRow { container_id: "a".into(), ..MountRow::default() }, at(8));
        check(&[(0, container("a", 7, false)), (10, mount), (20, volume(9))], &[(1000, "a and volumes at 9")]);
    }

    #[test]
    fn refreshes_late_after_a_death_and_never_after_removal() {
        check(&[(0, container("a", 7, true))], &[(5000, "a at 12")]);
        let gone = (100, Update::ContainerGone("a".into(), at(8)));
        check(&[(0, container("a", 7, false)), (50, container("a", 7, true)), gone], &[]);
        let restarted = [(0, container("a", 7, true)), (100, container("a", 8, false))];
        check(&restarted, &[(1100, "a at 8"), (5000, "a at 12")]);
    }

    #[test]
    fn refreshes_everything_for_too_many_ids() {
        let crowd: Vec<(u64, Update)> =
            (0..=MAX_IDS).map(|number| (0, container(&format!("c{number}"), 7, false))).collect();
        check(&crowd[..MAX_IDS - 1], &[(1000, &refreshes(&crowd[..MAX_IDS - 1])[0].1)]);
        check(&crowd, &[(1000, "everything")]);
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.note(&container("a", 7, false), now);
        schedule.note(&volume(7), now);
        schedule.plan_everything_by(now + REFRESH_DELAY * 9);
        schedule.plan_everything_by(now + REFRESH_DELAY);
        assert_eq!(schedule.take(now + REFRESH_DELAY), Some(Refresh::Everything));
        assert_eq!((schedule.due(), schedule.take(now + REFRESH_DELAY * 99)), (None, None));
    }
}

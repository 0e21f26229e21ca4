//! The changes that bring the inventory in line with an observation, as data that can be printed.
//!
//! In: the known rows and what a listing showed. Out: the rows to create, update and remove, and those that stay. The
//! state calls [`plan`] in the transaction that applies the result, so that no other change comes in between. A row
//! that is newer than the listing stays as it is, and what listings cannot prove never counts as a difference.
//! Therefore a second plan from the same observation is empty.

use super::inventory::{
    ChangeCounts, ChangeSummary, ContainerRow, Field, MountRow, PositionRow, Resource, Row, VolumeRow, is_newer,
};
use super::time::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What an engine showed in one observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// A time by the daemon's clock, not later than the observation.
    pub at: Timestamp,
    /// The containers, each with its mounts.
    pub containers: Vec<(ContainerRow, Vec<MountRow>)>,
    /// The IDs of the containers that were queried; `None` means all.
    pub requested: Option<Vec<String>>,
    /// All volumes; `None` if they were not queried.
    pub volumes: Option<Vec<VolumeRow>>,
    /// Whether positions of containers that no longer exist are removed too.
    pub with_positions: bool,
}

/// The rows of an engine before the comparison.
#[derive(Debug, Default)]
pub(crate) struct KnownRows {
    /// The key is the container ID.
    pub containers: BTreeMap<String, ContainerRow>,
    /// The key is the volume's name.
    pub volumes: BTreeMap<String, VolumeRow>,
    /// The key consists of container ID and destination.
    pub mounts: BTreeMap<(String, String), MountRow>,
    /// The positions of all resume names.
    pub positions: Vec<PositionRow>,
    /// IDs of removed containers. IDs are never reused.
    pub removed_containers: HashSet<String>,
    /// Names of removed volumes with the time of the removal: a new volume may have the same name later.
    pub removed_volumes: HashMap<String, Timestamp>,
}

/// The result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub containers: TableChanges<ContainerRow>,
    pub volumes: TableChanges<VolumeRow>,
    pub mounts: TableChanges<MountRow>,
    /// Positions are only ever removed.
    pub positions: TableChanges<PositionRow>,
    /// IDs of containers whose listed state is in doubt, because the listing may not show a recent death yet.
    pub uncertain: Vec<String>,
}

/// The changes to one kind of rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableChanges<T> {
    pub created: Vec<T>,
    /// Each row before and after.
    pub updated: Vec<(T, T)>,
    pub removed: Vec<T>,
    /// Rows in which only the time last seen, or fields that listings do not report, change. They count as unchanged.
    pub refreshed: Vec<T>,
    /// How many rows stay untouched.
    pub kept: u64,
}

impl<T> Default for TableChanges<T> {
    fn default() -> Self {
        TableChanges { created: Vec::new(), updated: Vec::new(), removed: Vec::new(), refreshed: Vec::new(), kept: 0 }
    }
}

/// One change of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PlanStep {
    pub resource: Resource,
    /// The ID of the container, or the name of the volume.
    pub id: String,
    /// What the row is called in reports.
    pub name: String,
    pub operation: Operation,
    /// The fields that differ; empty unless the row is updated.
    pub fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Created,
    Updated,
    Removed,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Created => "created",
            Operation::Updated => "updated",
            Operation::Removed => "removed",
        }
    }
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {:?}", self.operation.name(), self.resource.name(), self.id, self.name)?;
        for (number, field) in self.fields.iter().enumerate() {
            write!(f, "{}{field}", if number == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// One step per line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl<T: Row> TableChanges<T> {
    fn add(&mut self, known: Option<&T>, row: T)
    where
        T: Clone + PartialEq,
    {
        match known {
            None => self.created.push(row),
            Some(known) if !known.differences(&row).is_empty() => self.updated.push((known.clone(), row)),
            Some(known) if *known != row => self.refreshed.push(row),
            Some(_) => self.kept += 1,
        }
    }

    /// Keeps only the changes that `before` also contained.
    fn confirm(&mut self, before: &TableChanges<T>) {
        let keys = |rows: &[T]| rows.iter().map(key).collect::<HashSet<_>>();
        let (created, removed) = (keys(&before.created), keys(&before.removed));
        let updated = before.updated.iter().map(|(from, row)| (key(row), from.differences(row)));
        let updated: HashMap<_, _> = updated.collect();
        let count = self.updated.len() + self.removed.len();
        self.created.retain(|row| created.contains(&key(row)));
        self.updated.retain(|(from, row)| updated.get(&key(row)) == Some(&from.differences(row)));
        self.removed.retain(|row| removed.contains(&key(row)));
        self.kept += (count - self.updated.len() - self.removed.len()) as u64;
    }

    /// How many rows change, and how.
    pub(crate) fn changes(&self) -> ChangeCounts {
        ChangeCounts {
            created: self.created.len() as u64,
            updated: self.updated.len() as u64,
            removed: self.removed.len() as u64,
            unchanged: self.refreshed.len() as u64 + self.kept,
        }
    }

    fn steps(&self, steps: &mut Vec<PlanStep>) {
        let step = |row: &T, operation, fields| PlanStep {
            resource: T::RESOURCE,
            id: row.id().to_owned(),
            name: row.name(),
            operation,
            fields,
        };
        steps.extend(self.created.iter().map(|row| step(row, Operation::Created, Vec::new())));
        let updated = self.updated.iter();
        steps.extend(updated.map(|(before, row)| step(row, Operation::Updated, before.differences(row))));
        steps.extend(self.removed.iter().map(|row| step(row, Operation::Removed, Vec::new())));
    }
}

/// Identifies a row among the rows of its kind.
fn key<T: Row>(row: &T) -> (String, String) {
    (row.id().to_owned(), row.name())
}

impl Plan {
    /// Keeps only the changes that the plan of a moment before also contained. The others were caused by
    /// what happened in between.
    pub(crate) fn confirmed_by(mut self, before: &Plan) -> Plan {
        self.containers.confirm(&before.containers);
        self.volumes.confirm(&before.volumes);
        self.mounts.confirm(&before.mounts);
        self.positions.confirm(&before.positions);
        self
    }

    /// How many rows change, and how.
    pub(crate) fn summary(&self) -> ChangeSummary {
        ChangeSummary([
            self.containers.changes(),
            self.volumes.changes(),
            self.mounts.changes(),
            self.positions.changes(),
        ])
    }

    /// The changes as a list.
    pub(crate) fn steps(&self) -> Vec<PlanStep> {
        let mut steps = Vec::new();
        self.containers.steps(&mut steps);
        self.volumes.steps(&mut steps);
        self.mounts.steps(&mut steps);
        self.positions.steps(&mut steps);
        steps
    }

    /// Names of containers whose log can no longer be read to its end, each once.
    pub(crate) fn lost(&self) -> Vec<String> {
        let lost = self.positions.removed.iter().filter(|position| !position.has_ended);
        let mut names: Vec<String> = lost.map(|position| position.container_name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Compares the known rows with an observation.
pub(crate) fn plan(known: &KnownRows, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let there: HashSet<&str> = observed.containers.iter().map(|(container, _)| &*container.id).collect();
    let requested = observed.requested.as_ref().map(|ids| ids.iter().map(String::as_str).collect::<HashSet<_>>());
    let is_requested = |id: &str| requested.as_ref().is_none_or(|ids| ids.contains(id));
    for (container, mounts) in &observed.containers {
        if known.removed_containers.contains(&container.id) {
            continue;
        }
        let before = known.containers.get(&container.id);
        let (after, is_uncertain) = ContainerRow::after_listing(before, container);
        if is_uncertain {
            plan.uncertain.push(after.id.clone());
        }
        plan.containers.add(before, after);
        plan.compare_mounts(known, &container.id, mounts);
    }
    let is_newer = |id: &str| known.containers.get(id).is_some_and(|container| container.seen.is_newer(observed.at));
    for (id, container) in known.containers.iter().filter(|(id, _)| is_requested(id) && !there.contains(id.as_str())) {
        if is_newer(id) {
            plan.containers.kept += 1;
        } else {
            plan.containers.removed.push(container.clone());
        }
    }
    for ((id, _), mount) in known.mounts.iter().filter(|((id, _), _)| is_requested(id) && !there.contains(id.as_str()))
    {
        if is_newer(id) {
            plan.mounts.kept += 1;
        } else {
            plan.mounts.removed.push(mount.clone());
        }
    }
    if let Some(volumes) = &observed.volumes {
        plan.compare_volumes(known, volumes, observed.at);
    }
    if observed.with_positions {
        for position in &known.positions {
            let is_gone = !there.contains(&*position.container_id) && !is_newer(&position.container_id);
            if is_gone && !position.is_held {
                plan.positions.removed.push(position.clone());
            } else {
                plan.positions.kept += 1;
            }
        }
    }
    plan
}

impl Plan {
    /// Compares all mounts of one container.
    fn compare_mounts(&mut self, known: &KnownRows, id: &str, mounts: &[MountRow]) {
        let of_container = (id.to_owned(), String::new())..;
        let mut before: BTreeMap<&str, &MountRow> = known
            .mounts
            .range(of_container)
            .take_while(|((of, _), _)| of == id)
            .map(|((_, at), mount)| (at.as_str(), mount))
            .collect();
        for mount in mounts {
            let known = before.remove(&*mount.destination);
            self.mounts.add(known, MountRow::after_listing(known, mount));
        }
        self.mounts.removed.extend(before.into_values().cloned());
    }

    fn compare_volumes(&mut self, known: &KnownRows, volumes: &[VolumeRow], at: Timestamp) {
        let there: HashSet<&str> = volumes.iter().map(|volume| &*volume.name).collect();
        for volume in volumes {
            if known.removed_volumes.get(&volume.name).is_some_and(|removed| is_newer(*removed, at)) {
                continue;
            }
            let before = known.volumes.get(&volume.name);
            self.volumes.add(before, VolumeRow::after_listing(before, volume));
        }
        for volume in known.volumes.values().filter(|volume| !there.contains(&*volume.name)) {
            if volume.seen.is_newer(at) {
                self.volumes.kept += 1;
            } else {
                self.volumes.removed.push(volume.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::inventory::{SeenRange, UnlistedFields};

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * SECOND)
    }

    /// Builds a row from `ID NAME STATE`, as a listing at that second reports it.
    fn container(text: &str, seconds: i64) -> ContainerRow {
        let parts: Vec<&str> = text.split(' ').collect();
        let seen = SeenRange::at(at(seconds));
        let (id, name, state) = (parts[0].into(), parts[1].into(), parts[2].into());
        ContainerRow { id, name, state, seen, state_seen: Some(at(seconds)), ..ContainerRow::default() }
    }

    fn mount(container_id: &str, destination: &str, volume: &str) -> MountRow {
        MountRow {
            container_id: container_id.into(),
            destination: destination.into(),
            volume: Some(volume.into()),
            is_writable: true,
            ..MountRow::default()
        }
    }

    fn volume(name: &str, driver: &str, seconds: i64) -> VolumeRow {
        VolumeRow { name: name.into(), driver: driver.into(), seen: SeenRange::at(at(seconds)), ..VolumeRow::default() }
    }

    fn known(containers: &[(&str, i64)]) -> KnownRows {
        let containers = containers.iter().map(|(text, seconds)| container(text, *seconds));
        KnownRows { containers: containers.map(|row| (row.id.clone(), row)).collect(), ..KnownRows::default() }
    }

    fn observed(seconds: i64, containers: &[&str]) -> Observed {
        let containers = containers.iter().map(|text| (container(text, seconds), Vec::new()));
        Observed { at: at(seconds), containers: containers.collect(), ..Observed::default() }
    }

    #[track_caller]
    fn check(known: &KnownRows, observed: &Observed, expected: &str) {
        assert_eq!(plan(known, observed).to_string(), expected);
    }

    #[test]
    fn differing_rows_are_created_updated_or_removed() {
        let before = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1)]);
        let now = observed(9, &["a web running", "b db-1 exited", "d new created"]);
        let expected = "\
created container d \"new\"
updated container b \"db-1\": name: db -> db-1, state: running -> exited
removed container c \"old\"
";
        check(&before, &now, expected);
        let ChangeSummary([containers, ..]) = plan(&before, &now).summary();
        assert_eq!(containers, ChangeCounts { created: 1, updated: 1, removed: 1, unchanged: 1 });
        check(&KnownRows::default(), &Observed::default(), "");
    }

    #[test]
    fn only_changes_in_both_plans_are_confirmed() {
        let before = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1), ("e job running", 1)]);
        let first = plan(&before, &observed(8, &["a web exited", "b db-1 running", "d new created"]));
        // Meanwhile a watch recorded the new container, and `a` changed once more.
        let mut kept = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1), ("d new created", 8)]);
        kept.containers.insert("e".into(), container("e job exited", 9));
        let second =
            plan(&kept, &observed(10, &["a web paused", "b db-1 running", "d new created", "f newer created"]));
        assert_eq!(second.steps().len(), 5, "{second}");
        let confirmed = second.confirmed_by(&first);
        let expected = "\
updated container b \"db-1\": name: db -> db-1
removed container c \"old\"
removed container e \"job\"
";
        assert_eq!(confirmed.to_string(), expected);
        let ChangeSummary([containers, ..]) = confirmed.summary();
        assert_eq!(containers, ChangeCounts { created: 0, updated: 1, removed: 2, unchanged: 2 });
    }

    #[test]
    fn rows_newer_than_the_listing_stay() {
        let before = known(&[("a web exited", 9), ("b new created", 9)]);
        check(&before, &observed(8, &["a web running"]), "");
        // An hour newer means that the clock was set back.
        check(
            &known(&[("a web exited", 3600), ("b new created", 3600)]),
            &observed(8, &["a web running"]),
            "updated container a \"web\": state: exited -> running\nremoved container b \"new\"\n",
        );
        let mut gone = known(&[]);
        gone.removed_containers.insert("a".into());
        gone.removed_volumes.insert("late".into(), at(9));
        gone.removed_volumes.insert("anew".into(), at(7));
        let mut now = observed(8, &["a web running"]);
        now.volumes = Some(vec![volume("late", "local", 8), volume("anew", "local", 8)]);
        check(&gone, &now, "created volume anew \"anew\"\n");
    }

    #[test]
    fn a_listing_does_not_revive_a_recently_dead_container() {
        let dead = |died: i64, started: Option<i64>| {
            let mut before = known(&[("a web exited", died)]);
            let unlisted = UnlistedFields { finished: Some(at(died)), ..UnlistedFields::default() };
            before.containers.get_mut("a").unwrap().unlisted = unlisted;
            let mut now = observed(10, &["a web running"]);
            now.containers[0].0.unlisted.started = started.map(at);
            let plan = plan(&before, &now);
            (plan.containers.updated.len(), plan.uncertain.len())
        };
        for (died, started, expected) in [
            (9, None, (0, 1)),
            (6, None, (0, 1)),
            (5, None, (1, 0)),
            // The daemon's own file says whether the container was restarted.
            (9, Some(8), (0, 1)),
            (8, Some(9), (1, 0)),
        ] {
            assert_eq!(dead(died, started), expected, "died at {died}, started at {started:?}");
        }
        let mut restarting = known(&[("a web exited", 9)]);
        restarting.containers.get_mut("a").unwrap().unlisted.finished = Some(at(9));
        let expected = "updated container a \"web\": state: exited -> restarting\n";
        check(&restarting, &observed(10, &["a web restarting"]), expected);
    }

    #[test]
    fn unlisted_fields_are_kept_and_are_no_difference() {
        let mut before = known(&[("a web running", 1)]);
        let mut now = observed(9, &["a web running"]);
        now.containers[0].0.unlisted.log_driver = Some("local".into());
        // The reference of the container's image points to another image now.
        before.containers.get_mut("a").unwrap().image = "nginx:1".into();
        now.containers[0].0.image = "sha256:0123".into();
        before.volumes.insert("v".into(), VolumeRow { created: Some(at(1)), ..volume("v", "local", 1) });
        now.volumes = Some(vec![VolumeRow { created: Some(at(5)), ..volume("v", "local", 9) }]);
        let plan = plan(&before, &now);
        assert_eq!(plan.to_string(), "");
        let kept = &plan.containers.refreshed[0];
        assert_eq!((kept.unlisted.log_driver.as_deref(), &*kept.image), (Some("local"), "nginx:1"));
        assert_eq!(
            (kept.seen, plan.volumes.refreshed[0].created),
            (SeenRange { first: at(1), last: at(9) }, Some(at(1)))
        );
    }

    #[test]
    fn mounts_follow_their_containers_and_only_queried_containers_count() {
        let mut before = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1)]);
        for mount in [mount("a", "/x", "v"), mount("a", "/y", "v"), mount("b", "/x", "v"), mount("c", "/x", "v")] {
            before.mounts.insert((mount.container_id.clone(), mount.destination.clone()), mount);
        }
        let mut now = observed(9, &["a web running"]);
        let read_only = MountRow { is_writable: false, ..mount("a", "/x", "v") };
        now.containers[0].1 = vec![read_only, mount("a", "/z", "w")];
        now.requested = Some(vec!["a".into(), "c".into()]);
        // For a container that was never started, the listing reports no source.
        let with_source = |source: &str| MountRow { source: Some(source.into()), ..mount("a", "/s", "s") };
        before.mounts.insert(("a".into(), "/s".into()), with_source("/volumes/s"));
        now.containers[0].1.push(with_source(""));
        let expected = "\
removed container c \"old\"
created mount a \"/z\"
updated mount a \"/x\": read_only: 0 -> 1
removed mount a \"/y\"
removed mount c \"/x\"
";
        check(&before, &now, expected);
    }

    #[test]
    fn positions_of_removed_containers_are_removed_unless_held() {
        let position = |resume: &str, id: &str, name: &str, has_ended, is_held| PositionRow {
            resume: resume.into(),
            container_id: id.into(),
            container_name: name.into(),
            has_ended,
            is_held,
        };
        let mut before = known(&[("a web running", 1), ("n new running", 9)]);
        before.positions = vec![
            position("default", "a", "web", false, false),
            position("default", "b", "db", true, false),
            position("default", "c", "job", false, false),
            position("other", "c", "job", false, false),
            position("held", "c", "job", false, true),
            position("default", "n", "new", false, false),
        ];
        let mut now = observed(8, &["a web running"]);
        check(&before, &now, "");
        now.with_positions = true;
        let expected = "\
removed position b \"db (default)\"
removed position c \"job (default)\"
removed position c \"job (other)\"
";
        check(&before, &now, expected);
        let plan = plan(&before, &now);
        assert_eq!((plan.lost(), plan.positions.kept), (vec!["job".to_owned()], 3));
    }
}

//! What it takes to bring the inventory in line with what was observed, as data that prints.
//!
//! In: what is known and what a listing showed. Out: rows to make, to change and to remove, and those that stay. Called by
//! the state within the transaction that applies it, so that nothing comes between. What is known by something newer than
//! the listing stays as it is, and what no listing can prove makes no difference: a second plan has nothing to do.

use super::inventory::{
    ChangeCounts, ChangeSummary, ContainerRow, Field, MountRow, PositionRow, Resource, Row, VolumeRow, is_newer,
};
use super::time::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What an engine showed of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// By the engine's clock, no later than it was shown.
    pub at: Timestamp,
    /// Each with its mounts.
    pub containers: Vec<(ContainerRow, Vec<MountRow>)>,
    /// IDs of the only containers that were asked for; `None` is all.
    pub asked: Option<Vec<String>>,
    /// All of them, where they were asked for.
    pub volumes: Option<Vec<VolumeRow>>,
    /// Positions of containers that are gone shall go too.
    pub with_positions: bool,
}

/// What is known before.
#[derive(Debug, Default)]
pub struct KnownRows {
    /// By ID.
    pub containers: BTreeMap<String, ContainerRow>,
    /// By name.
    pub volumes: BTreeMap<String, VolumeRow>,
    /// By the container's ID and the place in it.
    pub mounts: BTreeMap<(String, String), MountRow>,
    /// Of all resume NAMEs.
    pub positions: Vec<PositionRow>,
    /// IDs of containers that are gone for good.
    pub removed_containers: HashSet<String>,
    /// Names of volumes that are gone, and when they went: another may be called so later.
    pub removed_volumes: HashMap<String, Timestamp>,
}

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Of containers.
    pub containers: TableChanges<ContainerRow>,
    /// Of volumes.
    pub volumes: TableChanges<VolumeRow>,
    /// Of mounts.
    pub mounts: TableChanges<MountRow>,
    /// Of positions, which are only ever removed.
    pub positions: TableChanges<PositionRow>,
    /// IDs of containers that may be otherwise than the listing shows: it may be behind a death.
    pub doubted: Vec<String>,
}

/// What becomes of the rows of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct TableChanges<T> {
    /// Rows to make.
    pub created: Vec<T>,
    /// Rows to change, before and after.
    pub updated: Vec<(T, T)>,
    /// Rows to remove.
    pub removed: Vec<T>,
    /// Rows that stay, but for when they were seen and what no listing tells.
    pub refreshed: Vec<T>,
    /// How many stay untouched.
    pub kept: u64,
}

impl<T> Default for TableChanges<T> {
    fn default() -> Self {
        TableChanges { created: Vec::new(), updated: Vec::new(), removed: Vec::new(), refreshed: Vec::new(), kept: 0 }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanStep {
    /// Of what kind the row is.
    pub resource: Resource,
    /// Of the container, or the volume's name.
    pub id: String,
    /// What a person knows it by.
    pub name: String,
    /// What becomes of it.
    pub operation: Operation,
    /// What is changed.
    pub fields: Vec<Field>,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// It is made.
    Created,
    /// It is changed.
    Updated,
    /// It is removed.
    Removed,
}

impl Operation {
    /// `created`, `updated` or `removed`.
    pub fn name(self) -> &'static str {
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

/// A step on each line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl<T: Row> TableChanges<T> {
    fn settle(&mut self, known: Option<&T>, row: T)
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

    /// Leaves out what is otherwise than in the plan before.
    fn last(&mut self, before: &TableChanges<T>) {
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

    /// How many rows change.
    pub fn changes(&self) -> ChangeCounts {
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

/// What tells a row from others of its kind.
fn key<T: Row>(row: &T) -> (String, String) {
    (row.id().to_owned(), row.name())
}

impl Plan {
    /// What of it stood in a plan of a moment before as well. The rest has just happened.
    pub fn lasting(mut self, before: &Plan) -> Plan {
        self.containers.last(&before.containers);
        self.volumes.last(&before.volumes);
        self.mounts.last(&before.mounts);
        self.positions.last(&before.positions);
        self
    }

    /// How many rows change.
    pub fn tally(&self) -> ChangeSummary {
        ChangeSummary([
            self.containers.changes(),
            self.volumes.changes(),
            self.mounts.changes(),
            self.positions.changes(),
        ])
    }

    /// What is to be done, one by one.
    pub fn steps(&self) -> Vec<PlanStep> {
        let mut steps = Vec::new();
        self.containers.steps(&mut steps);
        self.volumes.steps(&mut steps);
        self.mounts.steps(&mut steps);
        self.positions.steps(&mut steps);
        steps
    }

    /// Names of containers that were not read to their end and now cannot be any more, each once.
    pub fn lost(&self) -> Vec<String> {
        let lost = self.positions.removed.iter().filter(|position| !position.has_ended);
        let mut names: Vec<String> = lost.map(|position| position.container_name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Compares.
pub fn plan(known: &KnownRows, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let there: HashSet<&str> = observed.containers.iter().map(|(container, _)| &*container.id).collect();
    let asked = observed.asked.as_ref().map(|asked| asked.iter().map(String::as_str).collect::<HashSet<_>>());
    let is_asked = |id: &str| asked.as_ref().is_none_or(|asked| asked.contains(id));
    for (container, mounts) in &observed.containers {
        if known.removed_containers.contains(&container.id) {
            continue;
        }
        let before = known.containers.get(&container.id);
        let (after, is_doubted) = ContainerRow::listed(before, container);
        if is_doubted {
            plan.doubted.push(after.id.clone());
        }
        plan.containers.settle(before, after);
        plan.settle_mounts(known, &container.id, mounts);
    }
    let is_newer = |id: &str| known.containers.get(id).is_some_and(|container| container.seen.is_newer(observed.at));
    for (id, container) in known.containers.iter().filter(|(id, _)| is_asked(id) && !there.contains(id.as_str())) {
        if is_newer(id) {
            plan.containers.kept += 1;
        } else {
            plan.containers.removed.push(container.clone());
        }
    }
    for ((id, _), mount) in known.mounts.iter().filter(|((id, _), _)| is_asked(id) && !there.contains(id.as_str())) {
        if is_newer(id) {
            plan.mounts.kept += 1;
        } else {
            plan.mounts.removed.push(mount.clone());
        }
    }
    if let Some(volumes) = &observed.volumes {
        plan.settle_volumes(known, volumes, observed.at);
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
    /// All mounts of one container.
    fn settle_mounts(&mut self, known: &KnownRows, id: &str, mounts: &[MountRow]) {
        let of_container = (id.to_owned(), String::new())..;
        let mut before: BTreeMap<&str, &MountRow> = known
            .mounts
            .range(of_container)
            .take_while(|((of, _), _)| of == id)
            .map(|((_, at), mount)| (at.as_str(), mount))
            .collect();
        for mount in mounts {
            let known = before.remove(&*mount.destination);
            self.mounts.settle(known, MountRow::listed(known, mount));
        }
        self.mounts.removed.extend(before.into_values().cloned());
    }

    fn settle_volumes(&mut self, known: &KnownRows, volumes: &[VolumeRow], at: Timestamp) {
        let there: HashSet<&str> = volumes.iter().map(|volume| &*volume.name).collect();
        for volume in volumes {
            if known.removed_volumes.get(&volume.name).is_some_and(|removed| is_newer(*removed, at)) {
                continue;
            }
            let before = known.volumes.get(&volume.name);
            self.volumes.settle(before, VolumeRow::listed(before, volume));
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

    /// `ID NAME STATE` as a listing tells it at that second.
    fn container(told: &str, seconds: i64) -> ContainerRow {
        let words: Vec<&str> = told.split(' ').collect();
        let seen = SeenRange::at(at(seconds));
        let (id, name, state) = (words[0].into(), words[1].into(), words[2].into());
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
        let containers = containers.iter().map(|(told, seconds)| container(told, *seconds));
        KnownRows { containers: containers.map(|row| (row.id.clone(), row)).collect(), ..KnownRows::default() }
    }

    fn observed(seconds: i64, containers: &[&str]) -> Observed {
        let containers = containers.iter().map(|told| (container(told, seconds), Vec::new()));
        Observed { at: at(seconds), containers: containers.collect(), ..Observed::default() }
    }

    #[track_caller]
    fn check(known: &KnownRows, observed: &Observed, expected: &str) {
        assert_eq!(plan(known, observed).to_string(), expected);
    }

    #[test]
    fn what_differs_is_made_changed_or_removed_and_the_rest_stays() {
        let before = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1)]);
        let now = observed(9, &["a web running", "b db-1 exited", "d new created"]);
        let expected = "\
created container d \"new\"
updated container b \"db-1\": name: db -> db-1, state: running -> exited
removed container c \"old\"
";
        check(&before, &now, expected);
        let ChangeSummary([containers, ..]) = plan(&before, &now).tally();
        assert_eq!(containers, ChangeCounts { created: 1, updated: 1, removed: 1, unchanged: 1 });
        check(&KnownRows::default(), &Observed::default(), "");
    }

    #[test]
    fn what_is_otherwise_than_a_moment_before_has_just_happened_and_does_not_last() {
        let before = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1), ("e job running", 1)]);
        let first = plan(&before, &observed(8, &["a web exited", "b db-1 running", "d new created"]));
        // Meanwhile a watch has kept the new one, and `a` has gone on.
        let mut kept = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1), ("d new created", 8)]);
        kept.containers.insert("e".into(), container("e job exited", 9));
        let second =
            plan(&kept, &observed(10, &["a web paused", "b db-1 running", "d new created", "f newer created"]));
        assert_eq!(second.steps().len(), 5, "{second}");
        let lasting = second.lasting(&first);
        let expected = "\
updated container b \"db-1\": name: db -> db-1
removed container c \"old\"
removed container e \"job\"
";
        assert_eq!(lasting.to_string(), expected);
        let ChangeSummary([containers, ..]) = lasting.tally();
        assert_eq!(containers, ChangeCounts { created: 0, updated: 1, removed: 2, unchanged: 2 });
    }

    #[test]
    fn what_is_known_by_something_newer_than_the_listing_stays() {
        let before = known(&[("a web exited", 9), ("b new created", 9)]);
        check(&before, &observed(8, &["a web running"]), "");
        // A clock that was set back is no newer event.
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
    fn a_listing_does_not_bring_back_to_life_who_has_just_died() {
        let dead = |died: i64, started: Option<i64>| {
            let mut before = known(&[("a web exited", died)]);
            let beyond = UnlistedFields { finished: Some(at(died)), ..UnlistedFields::default() };
            before.containers.get_mut("a").unwrap().beyond = beyond;
            let mut now = observed(10, &["a web running"]);
            now.containers[0].0.beyond.started = started.map(at);
            let plan = plan(&before, &now);
            (plan.containers.updated.len(), plan.doubted.len())
        };
        for (died, started, expected) in [
            (9, None, (0, 1)),
            (6, None, (0, 1)),
            (5, None, (1, 0)),
            // What the engine has written down tells that it was started again.
            (9, Some(8), (0, 1)),
            (8, Some(9), (1, 0)),
        ] {
            assert_eq!(dead(died, started), expected, "died at {died}, started at {started:?}");
        }
        let mut restarting = known(&[("a web exited", 9)]);
        restarting.containers.get_mut("a").unwrap().beyond.finished = Some(at(9));
        let told = "updated container a \"web\": state: exited -> restarting\n";
        check(&restarting, &observed(10, &["a web restarting"]), told);
    }

    #[test]
    fn what_no_listing_proves_makes_no_difference_and_is_kept() {
        let mut before = known(&[("a web running", 1)]);
        let mut now = observed(9, &["a web running"]);
        now.containers[0].0.beyond.log_driver = Some("local".into());
        // The name of its image means another one now.
        before.containers.get_mut("a").unwrap().image = "nginx:1".into();
        now.containers[0].0.image = "sha256:0123".into();
        before.volumes.insert("v".into(), VolumeRow { created: Some(at(1)), ..volume("v", "local", 1) });
        now.volumes = Some(vec![VolumeRow { created: Some(at(5)), ..volume("v", "local", 9) }]);
        let plan = plan(&before, &now);
        assert_eq!(plan.to_string(), "");
        let kept = &plan.containers.refreshed[0];
        assert_eq!((kept.beyond.log_driver.as_deref(), &*kept.image), (Some("local"), "nginx:1"));
        assert_eq!(
            (kept.seen, plan.volumes.refreshed[0].created),
            (SeenRange { first: at(1), last: at(9) }, Some(at(1)))
        );
    }

    #[test]
    fn mounts_go_with_their_containers_and_only_who_was_asked_for_is_judged() {
        let mut before = known(&[("a web running", 1), ("b db running", 1), ("c old exited", 1)]);
        for mount in [mount("a", "/x", "v"), mount("a", "/y", "v"), mount("b", "/x", "v"), mount("c", "/x", "v")] {
            before.mounts.insert((mount.container_id.clone(), mount.destination.clone()), mount);
        }
        let mut now = observed(9, &["a web running"]);
        let read_only = MountRow { is_writable: false, ..mount("a", "/x", "v") };
        now.containers[0].1 = vec![read_only, mount("a", "/z", "w")];
        now.asked = Some(vec!["a".into(), "c".into()]);
        // Of a container that was never started the listing tells no source.
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
    fn positions_of_who_is_gone_go_unless_a_run_holds_them() {
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

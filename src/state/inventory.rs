//! Stores the inventory of each engine: its containers, volumes and mounts, and the history of reconciliations.
//!
//! In: an observation, or updates from events. Out: what was changed. Called by [`super::Store`], on the thread of the
//! connection. Each function is one transaction that reads rows, compares them by the rules of
//! [`crate::model::inventory`] and [`crate::model::plan`], and writes them, so that two processes that watch the same
//! engine do not undo each other's changes.

use crate::model::inventory::{
    ChangeCounts, ChangeSummary, ContainerRow, MountRow, PositionRow, Resource, Row as _, SeenRange, UnlistedFields,
    Update, VolumeRow, object,
};
use crate::model::plan::{KnownRows, Observed, Plan, TableChanges, plan};
use crate::model::time::Timestamp;
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The number of reconciliations of an engine that are kept in the history.
const HISTORY: i64 = 1000;

/// How long a removal is remembered, by the daemon's clock. Updates from before the removal arrive within seconds.
const REMOVAL_MEMORY: Duration = Duration::from_secs(600);

/// Who runs a reconciliation, since when, and whether the result is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trigger {
    /// The command: `reconcile` or `watch`.
    pub source: &'static str,
    /// The start by the system clock.
    pub started: Timestamp,
    /// The same moment by the monotonic clock.
    pub begun: Instant,
    /// Whether to apply the plan; otherwise it is only returned.
    pub must_write: bool,
    /// Whether to apply nothing if a container is in doubt ([`Plan::uncertain`]).
    pub must_be_certain: bool,
}

/// Compares the inventory with an observation and applies the plan if the trigger says so. `is_held` returns whether a
/// run holds a resume name.
pub(super) fn reconcile(
    connection: &mut Connection,
    engine_id: &str,
    observed: &Observed,
    trigger: Trigger,
    is_held: impl Fn(&str) -> bool,
) -> Result<Plan> {
    let behavior = if trigger.must_write { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
    let transaction = connection.transaction_with_behavior(behavior)?;
    let known = read(&transaction, engine_id, observed, is_held)?;
    let plan = plan(&known, observed);
    let is_certain = plan.uncertain.is_empty() || !trigger.must_be_certain;
    if trigger.must_write && is_certain {
        apply(&transaction, engine_id, &plan)?;
        forget_removals(&transaction, engine_id, observed.at)?;
        if observed.requested.is_none() {
            record(&transaction, engine_id, &plan, trigger)?;
        }
        transaction.commit()?;
    }
    Ok(plan)
}

/// Applies updates from events, and returns how many rows changed.
pub(super) fn apply_updates(connection: &mut Connection, engine_id: &str, updates: &[Update]) -> Result<ChangeSummary> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut summary = ChangeSummary::default();
    for update in updates {
        match update {
            Update::Container(container) => update_container(&transaction, engine_id, container, &mut summary)?,
            Update::ContainerGone(id, at) => {
                let mounts = transaction.prepare_cached(REMOVE_MOUNTS)?.execute(params![engine_id, id])?;
                summary.of(Resource::Mount).removed += mounts as u64;
                let rows = transaction.prepare_cached(REMOVE_CONTAINER)?.execute(params![engine_id, id])?;
                summary.of(Resource::Container).removed += rows as u64;
                remember_removal(&transaction, engine_id, Resource::Container, id, *at)?;
                forget_removals(&transaction, engine_id, *at)?;
            }
            Update::Volume(volume) => update_volume(&transaction, engine_id, volume, &mut summary)?,
            Update::VolumeGone(name, at) => {
                let rows = transaction.prepare_cached(REMOVE_OLD_VOLUME)?.execute(params![engine_id, name, at])?;
                summary.of(Resource::Volume).removed += rows as u64;
                remember_removal(&transaction, engine_id, Resource::Volume, name, *at)?;
            }
            Update::Mount(mount, at) => add_mount(&transaction, engine_id, mount, *at, &mut summary)?,
        }
    }
    transaction.commit()?;
    Ok(summary)
}

fn update_container(
    transaction: &Transaction<'_>,
    engine_id: &str,
    update: &ContainerRow,
    summary: &mut ChangeSummary,
) -> Result<()> {
    let changes = summary.of(Resource::Container);
    if removed_at(transaction, engine_id, Resource::Container, &update.id)?.is_some() {
        return Ok(());
    }
    let known = transaction
        .prepare_cached(&one(CONTAINERS, "container_id"))?
        .query_row(params![engine_id, update.id], container)
        .optional()?;
    let Some(row) = ContainerRow::after_event(known.as_ref(), update) else { return Ok(()) };
    save_container(transaction, engine_id, &row)?;
    count(changes, known.as_ref().map(|known| known.differences(&row).is_empty()));
    Ok(())
}

fn update_volume(
    transaction: &Transaction<'_>,
    engine_id: &str,
    update: &VolumeRow,
    summary: &mut ChangeSummary,
) -> Result<()> {
    let removed = removed_at(transaction, engine_id, Resource::Volume, &update.name)?;
    if removed.is_some_and(|removed| removed >= update.seen.last) {
        return Ok(());
    }
    let known = transaction
        .prepare_cached(&one(VOLUMES, "name"))?
        .query_row(params![engine_id, update.name], volume)
        .optional()?;
    let Some(row) = VolumeRow::after_event(known.as_ref(), update) else { return Ok(()) };
    save_volume(transaction, engine_id, &row)?;
    count(summary.of(Resource::Volume), known.as_ref().map(|known| known.differences(&row).is_empty()));
    Ok(())
}

const ADD_MOUNT: &str = "\
INSERT OR IGNORE INTO mounts (
    engine_id, container_id, destination, type, volume, source, driver, mode, read_only, propagation
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// Adds a mount and its volume. A known mount stays as it is: mounts never change, and listings
/// contain more about them.
fn add_mount(
    transaction: &Transaction<'_>,
    engine_id: &str,
    mount: &MountRow,
    at: Timestamp,
    summary: &mut ChangeSummary,
) -> Result<()> {
    let volume = VolumeRow {
        name: mount.volume.clone().unwrap_or_default(),
        driver: mount.driver.clone().unwrap_or_default(),
        seen: SeenRange::at(at),
        ..VolumeRow::default()
    };
    update_volume(transaction, engine_id, &volume, summary)?;
    if removed_at(transaction, engine_id, Resource::Container, &mount.container_id)?.is_none() {
        let added = write_mount(transaction, ADD_MOUNT, engine_id, mount)?;
        summary.of(Resource::Mount).created += added as u64;
    }
    Ok(())
}

/// Counts a written row. `is_unchanged` is `None` if the row is new.
fn count(changes: &mut ChangeCounts, is_unchanged: Option<bool>) {
    match is_unchanged {
        None => changes.created += 1,
        Some(false) => changes.updated += 1,
        Some(true) => changes.unchanged += 1,
    }
}

const CONTAINERS: &str = "SELECT * FROM containers WHERE engine_id = ?1";
const VOLUMES: &str = "SELECT * FROM volumes WHERE engine_id = ?1";
const MOUNTS: &str = "SELECT * FROM mounts WHERE engine_id = ?1";
const POSITIONS: &str =
    "SELECT name, container_id, container_name, ended FROM positions WHERE engine_id = ?1 ORDER BY name, container_id";
const REMOVALS: &str = "SELECT id, removed_at FROM removals WHERE engine_id = ?1 AND resource = ?2";

/// Restricts a query to the rows with one key.
fn one(select: &str, column: &str) -> String {
    format!("{select} AND {column} = ?2")
}

fn read(
    transaction: &Transaction<'_>,
    engine_id: &str,
    observed: &Observed,
    is_held: impl Fn(&str) -> bool,
) -> Result<KnownRows> {
    let mut known = KnownRows::default();
    if observed.with_positions {
        known.positions = read_positions(transaction, engine_id, is_held)?;
    }
    let schema: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // A file that was opened without migrating it may have no inventory yet.
    if schema < 2 {
        return Ok(known);
    }
    let mut keep_container = |found: ContainerRow| drop(known.containers.insert(found.id.clone(), found));
    let mut keep_mount = |found: MountRow| {
        let key = (found.container_id.clone(), found.destination.clone());
        known.mounts.insert(key, found);
    };
    let removal = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    match &observed.requested {
        None => {
            each(transaction, CONTAINERS, params![engine_id], container, &mut keep_container)?;
            each(transaction, MOUNTS, params![engine_id], mount, &mut keep_mount)?;
            let key = params![engine_id, Resource::Container.name()];
            each(transaction, REMOVALS, key, removal, |(id, _): (String, Timestamp)| {
                known.removed_containers.insert(id);
            })?;
        }
        Some(ids) => {
            let (containers, mounts) = (one(CONTAINERS, "container_id"), one(MOUNTS, "container_id"));
            for id in ids {
                each(transaction, &containers, params![engine_id, id], container, &mut keep_container)?;
                each(transaction, &mounts, params![engine_id, id], mount, &mut keep_mount)?;
                if removed_at(transaction, engine_id, Resource::Container, id)?.is_some() {
                    known.removed_containers.insert(id.clone());
                }
            }
        }
    }
    if observed.volumes.is_some() {
        let keep = |found: VolumeRow| drop(known.volumes.insert(found.name.clone(), found));
        each(transaction, VOLUMES, params![engine_id], volume, keep)?;
        let key = params![engine_id, Resource::Volume.name()];
        each(transaction, REMOVALS, key, removal, |(name, at)| {
            known.removed_volumes.insert(name, at);
        })?;
    }
    Ok(known)
}

fn read_positions(
    transaction: &Transaction<'_>,
    engine_id: &str,
    is_held: impl Fn(&str) -> bool,
) -> Result<Vec<PositionRow>> {
    let mut held: BTreeMap<String, bool> = BTreeMap::new();
    let mut positions = Vec::new();
    let position = |row: &Row<'_>| {
        Ok(PositionRow {
            resume: row.get(0)?,
            container_id: row.get(1)?,
            container_name: row.get(2)?,
            has_ended: row.get(3)?,
            is_held: false,
        })
    };
    each(transaction, POSITIONS, params![engine_id], position, |mut position| {
        position.is_held = *held.entry(position.resume.clone()).or_insert_with_key(|name| is_held(name));
        positions.push(position);
    })?;
    Ok(positions)
}

fn each<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    row: impl FnMut(&Row<'_>) -> Result<T>,
    mut take: impl FnMut(T),
) -> Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    for found in statement.query_map(params, row)? {
        take(found?);
    }
    Ok(())
}

fn apply(transaction: &Transaction<'_>, engine_id: &str, plan: &Plan) -> Result<()> {
    for row in rows_to_write(&plan.containers) {
        save_container(transaction, engine_id, row)?;
    }
    for row in &plan.containers.removed {
        transaction.prepare_cached(REMOVE_CONTAINER)?.execute(params![engine_id, row.id])?;
    }
    for row in rows_to_write(&plan.volumes) {
        save_volume(transaction, engine_id, row)?;
    }
    for row in &plan.volumes.removed {
        transaction.prepare_cached(REMOVE_VOLUME)?.execute(params![engine_id, row.name])?;
    }
    for row in rows_to_write(&plan.mounts) {
        write_mount(transaction, SAVE_MOUNT, engine_id, row)?;
    }
    for row in &plan.mounts.removed {
        let key = params![engine_id, row.container_id, row.destination];
        transaction.prepare_cached(REMOVE_MOUNT)?.execute(key)?;
    }
    for row in &plan.positions.removed {
        let key = params![engine_id, row.resume, row.container_id];
        transaction.prepare_cached(REMOVE_POSITION)?.execute(key)?;
    }
    Ok(())
}

fn rows_to_write<T>(changes: &TableChanges<T>) -> impl Iterator<Item = &T> {
    changes.created.iter().chain(changes.updated.iter().map(|(_, row)| row)).chain(&changes.refreshed)
}

const SAVE_CONTAINER: &str = "\
INSERT OR REPLACE INTO containers (
    engine_id, container_id, name, image, labels, state, created_at, started_at, finished_at, exit_code,
    log_driver, log_route, first_seen_at, last_seen_at, state_seen_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";

fn save_container(transaction: &Transaction<'_>, engine_id: &str, row: &ContainerRow) -> Result<()> {
    let UnlistedFields { log_driver, log_route, started, finished, exit_code } = &row.unlisted;
    let values = params![
        engine_id,
        row.id,
        row.name,
        row.image,
        object(&row.labels),
        row.state,
        row.created,
        started,
        finished,
        exit_code,
        log_driver,
        log_route,
        row.seen.first,
        row.seen.last,
        row.state_seen,
    ];
    transaction.prepare_cached(SAVE_CONTAINER)?.execute(values).map(drop)
}

const SAVE_VOLUME: &str = "\
INSERT OR REPLACE INTO volumes (
    engine_id, name, driver, scope, mountpoint, labels, created_at, first_seen_at, last_seen_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

fn save_volume(transaction: &Transaction<'_>, engine_id: &str, row: &VolumeRow) -> Result<()> {
    let labels = object(&row.labels);
    let values = params![
        engine_id,
        row.name,
        row.driver,
        row.scope,
        row.mountpoint,
        labels,
        row.created,
        row.seen.first,
        row.seen.last
    ];
    transaction.prepare_cached(SAVE_VOLUME)?.execute(values).map(drop)
}

const SAVE_MOUNT: &str = "\
INSERT OR REPLACE INTO mounts (
    engine_id, container_id, destination, type, volume, source, driver, mode, read_only, propagation
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

fn write_mount(transaction: &Transaction<'_>, sql: &str, engine_id: &str, row: &MountRow) -> Result<usize> {
    let values = params![
        engine_id,
        row.container_id,
        row.destination,
        row.kind,
        row.volume,
        row.source,
        row.driver,
        row.mode,
        !row.is_writable,
        row.propagation
    ];
    transaction.prepare_cached(sql)?.execute(values)
}

const REMOVE_CONTAINER: &str = "DELETE FROM containers WHERE engine_id = ?1 AND container_id = ?2";
const REMOVE_VOLUME: &str = "DELETE FROM volumes WHERE engine_id = ?1 AND name = ?2";
/// Keeps a volume that was created again after the removal.
const REMOVE_OLD_VOLUME: &str = "DELETE FROM volumes WHERE engine_id = ?1 AND name = ?2 AND last_seen_at <= ?3";
const REMOVE_MOUNT: &str = "DELETE FROM mounts WHERE engine_id = ?1 AND container_id = ?2 AND destination = ?3";
const REMOVE_MOUNTS: &str = "DELETE FROM mounts WHERE engine_id = ?1 AND container_id = ?2";
const REMOVE_POSITION: &str = "DELETE FROM positions WHERE engine_id = ?1 AND name = ?2 AND container_id = ?3";

const REMOVED_AT: &str = "SELECT removed_at FROM removals WHERE engine_id = ?1 AND resource = ?2 AND id = ?3";

fn removed_at(
    transaction: &Transaction<'_>,
    engine_id: &str,
    resource: Resource,
    id: &str,
) -> Result<Option<Timestamp>> {
    let key = params![engine_id, resource.name(), id];
    transaction.prepare_cached(REMOVED_AT)?.query_row(key, |row| row.get(0)).optional()
}

const REMEMBER_REMOVAL: &str = "\
INSERT INTO removals (engine_id, resource, id, removed_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (engine_id, resource, id) DO UPDATE SET removed_at = max(removed_at, excluded.removed_at)";

fn remember_removal(
    transaction: &Transaction<'_>,
    engine_id: &str,
    resource: Resource,
    id: &str,
    at: Timestamp,
) -> Result<()> {
    let values = params![engine_id, resource.name(), id, at];
    transaction.prepare_cached(REMEMBER_REMOVAL)?.execute(values).map(drop)
}

const FORGET_REMOVALS: &str = "DELETE FROM removals WHERE engine_id = ?1 AND removed_at < ?2";

fn forget_removals(transaction: &Transaction<'_>, engine_id: &str, now: Timestamp) -> Result<()> {
    let before = now - REMOVAL_MEMORY;
    transaction.prepare_cached(FORGET_REMOVALS)?.execute(params![engine_id, before]).map(drop)
}

const RECORD: &str = "\
INSERT INTO reconciliations (
    engine_id, started_at, duration_seconds, source,
    containers_created, containers_updated, containers_removed, containers_unchanged,
    volumes_created, volumes_updated, volumes_removed, volumes_unchanged,
    mounts_created, mounts_updated, mounts_removed, mounts_unchanged,
    positions_removed, positions_unchanged
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

const FORGET_RECORDS: &str = "\
DELETE FROM reconciliations WHERE engine_id = ?1 AND id <= (
    SELECT id FROM reconciliations WHERE engine_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2
)";

/// Adds a reconciliation to the history, and removes the oldest ones.
fn record(transaction: &Transaction<'_>, engine_id: &str, plan: &Plan, trigger: Trigger) -> Result<()> {
    let ChangeSummary([containers, volumes, mounts, positions]) = plan.summary();
    let number = |count: u64| count.cast_signed();
    let values = params![
        engine_id,
        trigger.started,
        trigger.begun.elapsed().as_secs_f64(),
        trigger.source,
        number(containers.created),
        number(containers.updated),
        number(containers.removed),
        number(containers.unchanged),
        number(volumes.created),
        number(volumes.updated),
        number(volumes.removed),
        number(volumes.unchanged),
        number(mounts.created),
        number(mounts.updated),
        number(mounts.removed),
        number(mounts.unchanged),
        number(positions.removed),
        number(positions.unchanged),
    ];
    transaction.prepare_cached(RECORD)?.execute(values)?;
    transaction.prepare_cached(FORGET_RECORDS)?.execute(params![engine_id, HISTORY]).map(drop)
}

fn container(row: &Row<'_>) -> Result<ContainerRow> {
    Ok(ContainerRow {
        id: row.get("container_id")?,
        name: row.get("name")?,
        image: row.get("image")?,
        labels: labels(row)?,
        state: row.get("state")?,
        created: row.get("created_at")?,
        unlisted: UnlistedFields {
            log_driver: row.get("log_driver")?,
            log_route: row.get("log_route")?,
            started: row.get("started_at")?,
            finished: row.get("finished_at")?,
            exit_code: row.get("exit_code")?,
        },
        seen: seen(row)?,
        state_seen: row.get("state_seen_at")?,
    })
}

fn volume(row: &Row<'_>) -> Result<VolumeRow> {
    Ok(VolumeRow {
        name: row.get("name")?,
        driver: row.get("driver")?,
        scope: row.get("scope")?,
        mountpoint: row.get("mountpoint")?,
        labels: labels(row)?,
        created: row.get("created_at")?,
        seen: seen(row)?,
    })
}

fn mount(row: &Row<'_>) -> Result<MountRow> {
    Ok(MountRow {
        container_id: row.get("container_id")?,
        destination: row.get("destination")?,
        kind: row.get("type")?,
        volume: row.get("volume")?,
        source: row.get("source")?,
        driver: row.get("driver")?,
        mode: row.get("mode")?,
        is_writable: !row.get::<_, bool>("read_only")?,
        propagation: row.get("propagation")?,
    })
}

fn seen(row: &Row<'_>) -> Result<SeenRange> {
    Ok(SeenRange { first: row.get("first_seen_at")?, last: row.get("last_seen_at")? })
}

fn labels(row: &Row<'_>) -> Result<BTreeMap<String, String>> {
    let text: String = row.get("labels")?;
    serde_json::from_str(&text).map_err(|error| {
        let column = row.as_ref().column_index("labels").unwrap_or_default();
        let error = FromSqlError::Other(error.into());
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::schema;
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};

    const ENGINE: &str = "ABCD:EFGH";

    const SECOND: i64 = 1_000_000_000;

    fn open() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let connection = schema::open(&dir.path().join("state.db"), Duration::ZERO).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        (dir, connection)
    }

    fn trigger() -> Trigger {
        let (started, begun) = (Timestamp::now(), Instant::now());
        Trigger { source: "reconcile", started, begun, must_write: true, must_be_certain: false }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp(1_795_215_653_000_000_000 + second * SECOND + 7)
    }

    fn container(id: &str, name: &str, state: &str, second: i64) -> ContainerRow {
        let labels = BTreeMap::from([("of".to_owned(), id.to_owned())]);
        let state_seen = Some(at(second)).filter(|_| !state.is_empty());
        let (id, name, image, state) = (id.to_owned(), name.to_owned(), "img".to_owned(), state.to_owned());
        ContainerRow {
            id,
            name,
            image,
            labels,
            state,
            seen: SeenRange::at(at(second)),
            state_seen,
            ..ContainerRow::default()
        }
    }

    fn volume(name: &str, second: i64) -> VolumeRow {
        VolumeRow { name: name.into(), driver: "local".into(), seen: SeenRange::at(at(second)), ..VolumeRow::default() }
    }

    fn mount(id: &str, volume: &str) -> MountRow {
        MountRow {
            container_id: id.into(),
            destination: format!("/{volume}"),
            kind: "volume".into(),
            volume: Some(volume.into()),
            driver: Some("local".into()),
            is_writable: true,
            ..MountRow::default()
        }
    }

    /// The inventory of an engine as text, without the times at which things were seen.
    fn dump(connection: &Connection, engine_id: &str) -> Vec<String> {
        let sql = "
            SELECT 'container ' || container_id || ' ' || name || ' ' || state || ' ' || labels
                FROM containers WHERE engine_id = ?1
            UNION ALL SELECT 'volume ' || name || ' ' || driver FROM volumes WHERE engine_id = ?1
            UNION ALL SELECT 'mount ' || container_id || ' ' || destination || ' ' || volume FROM mounts WHERE engine_id = ?1
            ORDER BY 1";
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([engine_id], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// An action in the fake engine.
    #[derive(Clone, Copy, Debug)]
    enum Action {
        Create(usize),
        Start(usize),
        Die(usize),
        Pause(usize),
        Rename(usize),
        Destroy(usize),
        MakeVolume(usize),
        RemoveVolume(usize),
        Mount(usize, usize),
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let one = prop_oneof![
            (0..4_usize).prop_map(Action::Create),
            (0..4_usize).prop_map(Action::Start),
            (0..4_usize).prop_map(Action::Die),
            (0..4_usize).prop_map(Action::Pause),
            (0..4_usize).prop_map(Action::Rename),
            (0..4_usize).prop_map(Action::Destroy),
            (0..3_usize).prop_map(Action::MakeVolume),
            (0..3_usize).prop_map(Action::RemoveVolume),
            (0..4_usize, 0..3_usize).prop_map(|(container, volume)| Action::Mount(container, volume)),
        ];
        prop::collection::vec(one, 1..40)
    }

    /// Performs the actions that are possible, collects the updates that events would report, and produces listings.
    #[derive(Default)]
    struct FakeEngine {
        slots: [Option<(String, String, &'static str)>; 4],
        volumes: [bool; 3],
        mounts: Vec<(String, String)>,
        created: usize,
        now: i64,
        updates: Vec<Update>,
    }

    impl FakeEngine {
        fn act(&mut self, action: Action) {
            self.now += 1;
            let now = self.now;
            let volume_name = |volume: usize| format!("v{volume}");
            match action {
                Action::Create(slot) if self.slots[slot].is_none() => {
                    // IDs are never reused.
                    let id = format!("c{}", self.created);
                    self.created += 1;
                    self.slots[slot] = Some((id, format!("name{slot}"), "created"));
                    self.report(slot, "created");
                }
                Action::Start(slot) => self.change(slot, &["created", "exited"], "running"),
                Action::Die(slot) => self.change(slot, &["running"], "exited"),
                Action::Pause(slot) => self.change(slot, &["running"], "paused"),
                Action::Rename(slot) => {
                    if let Some((_, name, _)) = &mut self.slots[slot] {
                        *name = format!("name{slot}-{now}");
                        self.report(slot, "");
                    }
                }
                Action::Destroy(slot) => {
                    if let Some((id, ..)) = self.slots[slot].take() {
                        self.mounts.retain(|(of, _)| *of != id);
                        self.updates.push(Update::ContainerGone(id, at(now)));
                    }
                }
                Action::MakeVolume(slot) => {
                    self.volumes[slot] = true;
                    self.updates.push(Update::Volume(volume(&volume_name(slot), now)));
                }
                Action::RemoveVolume(slot) => {
                    let is_used = self.mounts.iter().any(|(_, volume)| *volume == volume_name(slot));
                    if self.volumes[slot] && !is_used {
                        self.volumes[slot] = false;
                        self.updates.push(Update::VolumeGone(volume_name(slot), at(now)));
                    }
                }
                Action::Mount(slot, of) => {
                    if let Some((id, ..)) = self.slots[slot].as_ref().filter(|_| self.volumes[of]) {
                        let used = (id.clone(), volume_name(of));
                        self.updates.push(Update::Mount(mount(id, &volume_name(of)), at(now)));
                        if !self.mounts.contains(&used) {
                            self.mounts.push(used);
                        }
                    }
                }
                Action::Create(_) => {}
            }
        }

        fn change(&mut self, slot: usize, from: &[&str], to: &'static str) {
            if let Some((_, _, state)) = self.slots[slot].as_mut().filter(|(_, _, state)| from.contains(state)) {
                *state = to;
                self.report(slot, to);
            }
        }

        fn report(&mut self, slot: usize, state: &str) {
            let Some((id, name, _)) = &self.slots[slot] else { return };
            let mut row = container(id, name, state, self.now);
            row.unlisted.finished = row.state_seen.filter(|_| state == "exited");
            self.updates.push(Update::Container(Box::new(row)));
        }

        /// Lists everything ten seconds after the last action.
        fn list(&self) -> Observed {
            let now = self.now + 10;
            let existing = self.slots.iter().flatten();
            let containers = existing.map(|(id, name, state)| {
                let mounts = self.mounts.iter().filter(|(of, _)| of == id);
                (container(id, name, state, now), mounts.map(|(id, volume)| mount(id, volume)).collect())
            });
            let volumes = self.volumes.iter().enumerate().filter(|(_, exists)| **exists);
            let volumes = volumes.map(|(slot, _)| volume(&format!("v{slot}"), now)).collect();
            Observed { at: at(now), containers: containers.collect(), volumes: Some(volumes), ..Observed::default() }
        }
    }

    #[test]
    fn updates_in_any_order_and_repetition_match_the_listing() {
        let (_dir, connection) = open();
        let (connection, cases) = (RefCell::new(connection), Cell::new(0));
        let order = prop::collection::vec(any::<u32>(), 80);
        let repeats = prop::collection::vec(any::<prop::sample::Index>(), 0..20);
        proptest!(|(actions in actions(), order in order, repeats in repeats, batch in 1..20_usize)| {
            let mut connection = connection.borrow_mut();
            // Each case uses its own engine IDs.
            let number = cases.replace(cases.get() + 1);
            let (by_events, by_listing) = (format!("events {number}"), format!("listing {number}"));
            let mut engine = FakeEngine::default();
            actions.iter().for_each(|action| engine.act(*action));
            let mut updates: Vec<Update> = engine.updates.clone();
            if !updates.is_empty() {
                updates.extend(repeats.iter().map(|index| index.get(&engine.updates).clone()));
            }
            let mut shuffled: Vec<(u32, Update)> = order.iter().copied().cycle().zip(updates).collect();
            shuffled.sort_by_key(|(key, _)| *key);
            let shuffled: Vec<Update> = shuffled.into_iter().map(|(_, update)| update).collect();
            for batch in shuffled.chunks(batch) {
                apply_updates(&mut connection, &by_events, batch).unwrap();
            }
            reconcile(&mut connection, &by_listing, &engine.list(), trigger(), |_| false).unwrap();
            prop_assert_eq!(dump(&connection, &by_events), dump(&connection, &by_listing));
            // A listing leads to no changes, and neither do the same updates after it.
            let plan = reconcile(&mut connection, &by_events, &engine.list(), trigger(), |_| false).unwrap();
            prop_assert_eq!(plan.to_string(), "");
            apply_updates(&mut connection, &by_events, &shuffled).unwrap();
            prop_assert_eq!(dump(&connection, &by_events), dump(&connection, &by_listing));
        });
    }

    #[test]
    fn every_column_is_read_back_and_engines_are_independent() {
        let (_dir, mut connection) = open();
        let row = ContainerRow {
            labels: BTreeMap::from([("a \"b\"".into(), "\u{1b}\0ü".into()), (String::new(), String::new())]),
            created: Some(at(1)),
            unlisted: UnlistedFields {
                log_driver: Some("local".into()),
                log_route: Some(crate::model::line_id::Route::File),
                started: Some(at(2)),
                finished: Some(at(3)),
                exit_code: Some(-1),
            },
            ..container("a", "web\n", "exited", 4)
        };
        let disk = VolumeRow { mountpoint: "/x".into(), scope: "local".into(), created: Some(at(1)), ..volume("v", 4) };
        let bind =
            MountRow { source: Some("/etc".into()), mode: Some("ro".into()), is_writable: false, ..mount("a", "v") };
        let observed = Observed {
            at: at(4),
            containers: vec![(row.clone(), vec![bind.clone()])],
            volumes: Some(vec![disk.clone()]),
            ..Observed::default()
        };
        for engine in [ENGINE, "other"] {
            let plan = reconcile(&mut connection, engine, &observed, trigger(), |_| false).unwrap();
            assert_eq!(plan.steps().len(), 3, "{plan}");
            let again = reconcile(&mut connection, engine, &observed, trigger(), |_| false).unwrap();
            assert_eq!((again.to_string(), again.containers.kept), (String::new(), 1));
        }
        let transaction = connection.transaction().unwrap();
        let known = read(&transaction, ENGINE, &observed, |_| false).unwrap();
        assert_eq!((&known.containers["a"], &known.volumes["v"]), (&row, &disk));
        assert_eq!(known.mounts.values().collect::<Vec<_>>(), [&bind]);
        drop(transaction);
        let nothing = Observed { at: at(5), volumes: Some(Vec::new()), ..Observed::default() };
        let plan = reconcile(&mut connection, "other", &nothing, trigger(), |_| false).unwrap();
        assert_eq!(plan.summary().0.map(|changes| changes.removed), [1, 1, 1, 0]);
        assert_eq!(dump(&connection, ENGINE).len(), 3);
        let runs: Vec<(String, i64)> = connection
            .prepare("SELECT engine_id, containers_created FROM reconciliations ORDER BY id")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let runs: Vec<(&str, i64)> = runs.iter().map(|(engine, created)| (&**engine, *created)).collect();
        assert_eq!(runs, [(ENGINE, 1), (ENGINE, 0), ("other", 1), ("other", 0), ("other", 0)]);
    }

    #[test]
    fn dry_runs_and_uncertain_plans_are_not_written() {
        let (_dir, mut connection) = open();
        let died = ContainerRow {
            unlisted: UnlistedFields { finished: Some(at(3)), ..UnlistedFields::default() },
            ..container("a", "web", "exited", 3)
        };
        apply_updates(&mut connection, ENGINE, &[Update::Container(Box::new(died))]).unwrap();
        let before = dump(&connection, ENGINE);
        let containers =
            vec![(container("a", "web", "running", 4), vec![]), (container("b", "db", "running", 4), vec![])];
        let observed = Observed { at: at(4), containers, ..Observed::default() };
        for (must_write, must_be_certain, rows) in
            [(false, false, 1), (false, true, 1), (true, true, 1), (true, false, 2)]
        {
            let trigger = Trigger { must_write, must_be_certain, ..trigger() };
            let plan = reconcile(&mut connection, ENGINE, &observed, trigger, |_| false).unwrap();
            assert_eq!(
                (plan.to_string().as_str(), &plan.uncertain),
                ("created container b \"db\"\n", &vec!["a".to_owned()])
            );
            assert_eq!(dump(&connection, ENGINE).len(), rows);
        }
        assert!(dump(&connection, ENGINE).starts_with(&before), "the death must stay recorded");
    }

    #[test]
    fn old_removals_and_reconciliations_are_deleted() {
        let (_dir, mut connection) = open();
        let count = |connection: &Connection, table: &str| -> i64 {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        for second in 0..700 {
            apply_updates(&mut connection, ENGINE, &[Update::ContainerGone(format!("c{second}"), at(second))]).unwrap();
        }
        assert_eq!(count(&connection, "removals"), 601);
        for _ in 0..HISTORY + 5 {
            let observed = Observed { at: at(5000), ..Observed::default() };
            reconcile(&mut connection, ENGINE, &observed, trigger(), |_| false).unwrap();
        }
        assert_eq!((count(&connection, "removals"), count(&connection, "reconciliations")), (0, HISTORY));
    }

    #[test]
    fn invalid_values_are_reported_as_damage() {
        let (dir, mut connection) = open();
        let updates =
            [Update::Container(Box::new(container("a", "web", "running", 1))), Update::Mount(mount("a", "v"), at(1))];
        for change in [
            "UPDATE containers SET labels = '['",
            "UPDATE containers SET labels = 5",
            "UPDATE containers SET last_seen_at = 'yesterday'",
            "UPDATE containers SET log_route = 'pigeon'",
            "UPDATE mounts SET read_only = 'no'",
        ] {
            connection.execute_batch("DELETE FROM containers; DELETE FROM volumes; DELETE FROM mounts").unwrap();
            apply_updates(&mut connection, ENGINE, &updates).unwrap();
            connection.execute_batch(change).unwrap();
            let observed = Observed { at: at(2), volumes: Some(Vec::new()), ..Observed::default() };
            let error = reconcile(&mut connection, ENGINE, &observed, trigger(), |_| false).unwrap_err();
            let error = crate::state::Error::of(&dir.path().join("state.db"), error);
            assert!(error.to_string().ends_with("is damaged"), "{change}: {error}");
        }
    }
}

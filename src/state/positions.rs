//! Stores how far each container's log was delivered, and the length of the output file at that time.
//!
//! In: a connection, and whose positions to access. Called by [`super::HeldName`], on the thread of the connection. Each
//! function is one transaction. SQLite has only signed integers, so unsigned 64-bit numbers are stored as the signed ones
//! with the same bits.

use crate::model::file_id::FileId;
use crate::model::line_id::Route;
use crate::model::position::{FilePosition, Mark, Position, TimePosition};
use crate::model::time::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Result, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The committed position of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// The container's name at the time of the commit.
    pub name: String,
    pub position: Position,
    /// Whether the container had stopped and its log was read to the end.
    pub ended: bool,
}

/// The committed progress of an output file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedOutput {
    pub device: u64,
    pub inode: u64,
    /// The length of the file in bytes up to which the positions account for it.
    pub length: u64,
    /// Whether the run that wrote the file ended with all of its output committed. What follows `length` is not its own.
    pub is_closed: bool,
    /// When the file was created, if its file system records it: the inode may belong to another file by now.
    pub born: Option<Timestamp>,
    /// The last entry of the write-ahead log that the positions include; 0 if there was no such log.
    pub sequence: u64,
}

/// What to commit, all of it or nothing.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    /// Container IDs and their positions.
    pub positions: Vec<(String, Saved)>,
    /// IDs of containers that have stopped and whose logs were read to the position committed before.
    pub ended: Vec<String>,
    /// IDs of containers whose positions are deleted, even if they are among `positions`.
    pub removed: Vec<String>,
    /// The file that the lines were written to, if any.
    pub output: Option<OutputProgress>,
}

/// An output file and how far it was written.
#[derive(Debug)]
pub(crate) struct OutputProgress {
    /// The path by which the file is found again.
    pub path: PathBuf,
    /// Any descriptor of the file. It is synced before the positions are committed.
    pub file: File,
    pub device: u64,
    pub inode: u64,
    /// When the file was created, if its file system records it.
    pub born: Option<Timestamp>,
    /// The length of the file in bytes once everything up to the positions is written.
    pub length: u64,
    /// Whether this run writes no more to the file.
    pub is_last: bool,
    /// The last entry of the write-ahead log that the positions include.
    pub sequence: u64,
}

/// The key of a set of positions: a resume name of an engine.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) engine_id: String,
    pub(super) name: String,
}

const IS_KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM resumes WHERE engine_id = ?1 AND name = ?2)";

/// Whether anything was ever committed under this name.
pub(super) fn is_known(connection: &Connection, owner: &Owner) -> Result<bool> {
    connection.prepare_cached(IS_KNOWN)?.query_row(params![owner.engine_id, owner.name], |row| row.get(0))
}

const READ: &str = "SELECT * FROM positions WHERE engine_id = ?1 AND name = ?2";

/// Reads all positions, by container ID.
pub(super) fn read(connection: &Connection, owner: &Owner) -> Result<HashMap<String, Saved>> {
    let mut statement = connection.prepare_cached(READ)?;
    let rows =
        statement.query_map(params![owner.engine_id, owner.name], |row| Ok((row.get("container_id")?, saved(row)?)))?;
    rows.collect()
}

const READ_OUTPUT: &str = "SELECT device, inode, length, is_closed, born, sequence FROM outputs WHERE engine_id = ?1 AND name = ?2 AND path = ?3";

/// Reads the progress of an output file.
pub(super) fn read_output(connection: &Connection, owner: &Owner, path: &Path) -> Result<Option<SavedOutput>> {
    let mut statement = connection.prepare_cached(READ_OUTPUT)?;
    let output = |row: &Row<'_>| {
        let number = |column| row.get(column).map(i64::cast_unsigned);
        let (device, inode, length) = (number("device")?, number("inode")?, number("length")?);
        let (is_closed, born, sequence) = (row.get("is_closed")?, row.get("born")?, number("sequence")?);
        Ok(SavedOutput { device, inode, length, is_closed, born, sequence })
    };
    statement.query_row(params![owner.engine_id, owner.name, SqlPath(path)], output).optional()
}

pub(super) fn commit(connection: &mut Connection, owner: &Owner, commit: &Commit) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = Timestamp::now();
    save_name(&transaction, owner, now)?;
    for (container_id, saved) in &commit.positions {
        save(&transaction, owner, container_id, saved, now)?;
    }
    for container_id in &commit.ended {
        transaction.prepare_cached(END)?.execute(params![owner.engine_id, owner.name, container_id, now])?;
    }
    for container_id in &commit.removed {
        forget(&transaction, owner, container_id)?;
    }
    if let Some(output) = &commit.output {
        save_output(&transaction, owner, output, now)?;
    }
    transaction.commit()
}

/// Deletes the positions of all containers except these, and returns the deleted ones with their IDs.
pub(super) fn forget_all_but(
    connection: &mut Connection,
    owner: &Owner,
    container_ids: &HashSet<String>,
) -> Result<Vec<(String, Saved)>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut deleted = Vec::from_iter(read(&transaction, owner)?);
    deleted.retain(|(container_id, _)| !container_ids.contains(container_id));
    for (container_id, _) in &deleted {
        forget(&transaction, owner, container_id)?;
    }
    transaction.commit()?;
    Ok(deleted)
}

const SAVE_NAME: &str = "\
INSERT INTO resumes (engine_id, name, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)
ON CONFLICT (engine_id, name) DO UPDATE SET updated_at = excluded.updated_at";

fn save_name(connection: &Connection, owner: &Owner, now: Timestamp) -> Result<()> {
    connection.prepare_cached(SAVE_NAME)?.execute(params![owner.engine_id, owner.name, now]).map(drop)
}

const SAVE: &str = "\
INSERT OR REPLACE INTO positions (
    engine_id, name, container_id, container_name, route, ended, since,
    stdout_time, stdout_ordinal, stdout_high, stderr_time, stderr_ordinal, stderr_high,
    device, inode, filesystem, born, fingerprint, offset,
    stdout_before_time, stdout_before_ordinal, stdout_passed, stderr_before_time, stderr_before_ordinal, stderr_passed,
    updated_at
) VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6, ?7,
    ?8, ?9, ?10, ?11, ?12, ?13,
    ?14, ?15, ?16, ?17, ?18, ?19,
    ?20, ?21, ?22, ?23, ?24, ?25,
    ?26
)";

fn save(connection: &Connection, owner: &Owner, container_id: &str, saved: &Saved, now: Timestamp) -> Result<()> {
    let Saved { name, position: Position { route, resume, place }, ended } = saved;
    let [stdout, stderr] = resume.seen;
    let [before_stdout, before_stderr] = place.map_or([None; 2], |place| place.before);
    let values = params![
        owner.engine_id,
        owner.name,
        container_id,
        name,
        route,
        ended,
        resume.since,
        stdout.map(|seen| seen.time),
        stdout.map(|seen| seen.ordinal),
        stdout.map(|seen| seen.high),
        stderr.map(|seen| seen.time),
        stderr.map(|seen| seen.ordinal),
        stderr.map(|seen| seen.high),
        place.map(|place| place.device.cast_signed()),
        place.map(|place| place.file.inode.cast_signed()),
        place.and_then(|place| place.file.filesystem).map(u64::cast_signed),
        place.and_then(|place| place.file.born),
        place.and_then(|place| place.fingerprint).map(u64::cast_signed),
        place.map(|place| place.offset.cast_signed()),
        before_stdout.map(|(time, _)| time),
        before_stdout.map(|(_, ordinal)| ordinal),
        place.map(|place| place.passed[0]),
        before_stderr.map(|(time, _)| time),
        before_stderr.map(|(_, ordinal)| ordinal),
        place.map(|place| place.passed[1]),
        now,
    ];
    connection.prepare_cached(SAVE)?.execute(values).map(drop)
}

const END: &str = "\
UPDATE positions SET ended = 1, updated_at = ?4 WHERE engine_id = ?1 AND name = ?2 AND container_id = ?3";

const FORGET: &str = "DELETE FROM positions WHERE engine_id = ?1 AND name = ?2 AND container_id = ?3";

fn forget(connection: &Connection, owner: &Owner, container_id: &str) -> Result<()> {
    connection.prepare_cached(FORGET)?.execute(params![owner.engine_id, owner.name, container_id]).map(drop)
}

const SAVE_OUTPUT: &str = "\
INSERT OR REPLACE INTO outputs (
    engine_id, name, path, device, inode, length, is_closed, born, sequence, updated_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

fn save_output(connection: &Connection, owner: &Owner, output: &OutputProgress, now: Timestamp) -> Result<()> {
    let [device, inode, length, sequence] =
        [output.device, output.inode, output.length, output.sequence].map(u64::cast_signed);
    let (path, born) = (SqlPath(&output.path), output.born);
    let values = params![owner.engine_id, owner.name, path, device, inode, length, output.is_last, born, sequence, now];
    connection.prepare_cached(SAVE_OUTPUT)?.execute(values).map(drop)
}

fn saved(row: &Row<'_>) -> Result<Saved> {
    let seen = [
        seen(row, "stdout_time", "stdout_ordinal", "stdout_high")?,
        seen(row, "stderr_time", "stderr_ordinal", "stderr_high")?,
    ];
    let resume = TimePosition { since: row.get("since")?, seen };
    let position = Position { route: row.get("route")?, resume, place: place(row)? };
    Ok(Saved { name: row.get("container_name")?, position, ended: row.get("ended")? })
}

fn seen(row: &Row<'_>, time: &str, ordinal: &str, high: &str) -> Result<Option<Mark>> {
    let Some(time) = row.get(time)? else { return Ok(None) };
    Ok(Some(Mark { time, ordinal: row.get(ordinal)?, high: row.get(high)? }))
}

fn place(row: &Row<'_>) -> Result<Option<FilePosition>> {
    let Some(device) = row.get::<_, Option<i64>>("device")? else { return Ok(None) };
    let number = |column| row.get(column).map(|number: Option<i64>| number.map(i64::cast_unsigned));
    let inode = row.get("inode").map(i64::cast_unsigned)?;
    Ok(Some(FilePosition {
        device: device.cast_unsigned(),
        file: FileId { filesystem: number("filesystem")?, inode, born: row.get("born")? },
        fingerprint: number("fingerprint")?,
        offset: row.get("offset").map(i64::cast_unsigned)?,
        before: [
            before(row, "stdout_before_time", "stdout_before_ordinal")?,
            before(row, "stderr_before_time", "stderr_before_ordinal")?,
        ],
        passed: [row.get("stdout_passed")?, row.get("stderr_passed")?],
    }))
}

fn before(row: &Row<'_>, time: &str, ordinal: &str) -> Result<Option<(Timestamp, u32)>> {
    let Some(time) = row.get(time)? else { return Ok(None) };
    Ok(Some((time, row.get(ordinal)?)))
}

/// Stored as text, in the form of JSON records. The date functions of SQLite can parse it.
impl ToSql for Timestamp {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Timestamp::parse(text.as_bytes())
            .ok_or_else(|| FromSqlError::Other(format!("{text:?} is not a timestamp").into()))
    }
}

impl ToSql for Route {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

impl FromSql for Route {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let route = Route::ALL.into_iter().find(|route| route.name() == text);
        route.ok_or_else(|| FromSqlError::Other(format!("{text:?} is not a route").into()))
    }
}

/// A path. Stored as text if it is UTF-8, as nearly all paths are, and as a blob otherwise.
struct SqlPath<'a>(&'a Path);

impl ToSql for SqlPath<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let bytes = self.0.as_os_str().as_bytes();
        Ok(ToSqlOutput::Borrowed(self.0.to_str().map_or(ValueRef::Blob(bytes), ValueRef::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::schema;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::time::Duration;

    fn times() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp)
    }

    fn seen() -> impl Strategy<Value = Option<Mark>> {
        let parts = (times(), any::<u32>(), times());
        prop::option::of(parts.prop_map(|(time, ordinal, high)| Mark { time, ordinal, high }))
    }

    fn resumes() -> impl Strategy<Value = TimePosition> {
        (prop::option::of(times()), [seen(), seen()]).prop_map(|(since, seen)| TimePosition { since, seen })
    }

    fn places() -> impl Strategy<Value = Option<FilePosition>> {
        let before = || prop::option::of((times(), any::<u32>()));
        let files = (any::<Option<u64>>(), any::<u64>(), prop::option::of(times()));
        let files = files.prop_map(|(filesystem, inode, born)| FileId { filesystem, inode, born });
        let numbers = (any::<u64>(), files, any::<Option<u64>>(), any::<u64>());
        let parts = (numbers, [before(), before()], any::<[u32; 2]>());
        prop::option::of(parts.prop_map(|((device, file, fingerprint, offset), before, passed)| FilePosition {
            device,
            file,
            fingerprint,
            offset,
            before,
            passed,
        }))
    }

    fn anything_saved() -> impl Strategy<Value = Saved> {
        let route = prop::sample::select(Route::ALL.to_vec());
        let position =
            (route, resumes(), places()).prop_map(|(route, resume, place)| Position { route, resume, place });
        (any::<String>(), position, any::<bool>()).prop_map(|(name, position, ended)| Saved { name, position, ended })
    }

    #[test]
    fn any_committed_position_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let connection = schema::open(&dir.path().join("state.db"), Duration::ZERO).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let owner = Owner { engine_id: "engine".into(), name: "default".into() };
        let connection = RefCell::new(connection);
        proptest!(|(saved in anything_saved())| {
            let one = Commit { positions: vec![("one".into(), saved.clone())], ..Commit::default() };
            commit(&mut connection.borrow_mut(), &owner, &one).unwrap();
            prop_assert_eq!(read(&connection.borrow(), &owner).unwrap(), HashMap::from([("one".into(), saved)]));
        });
    }

    #[test]
    fn invalid_values_are_reported_as_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let mut connection = schema::open(&path, Duration::ZERO).unwrap();
        let owner = Owner { engine_id: "engine".into(), name: "default".into() };
        let place = FilePosition {
            device: 1,
            file: FileId { filesystem: None, inode: 2, born: None },
            fingerprint: None,
            offset: 3,
            before: [Some((Timestamp(4), 0)); 2],
            passed: [0; 2],
        };
        let seen = Mark { time: Timestamp(5), ordinal: 0, high: Timestamp(5) };
        let position = Position {
            route: Route::File,
            resume: TimePosition { since: None, seen: [Some(seen); 2] },
            place: Some(place),
        };
        let saved = Saved { name: "web".into(), position, ended: false };
        for (column, value) in [
            ("route", "'carrier pigeon'"),
            ("since", "'yesterday'"),
            ("since", "5"),
            ("stdout_time", "'2026-11-20'"),
            ("stderr_ordinal", "-1"),
            ("stderr_ordinal", "NULL"),
            ("stdout_high", "NULL"),
            ("inode", "NULL"),
            ("filesystem", "'ext4'"),
            ("born", "7"),
            ("offset", "'far'"),
            ("stdout_passed", "4294967296"),
            ("stdout_before_ordinal", "NULL"),
        ] {
            let one = Commit { positions: vec![("one".into(), saved.clone())], ..Commit::default() };
            commit(&mut connection, &owner, &one).unwrap();
            assert_eq!(read(&connection, &owner).unwrap()["one"], saved);
            connection.execute(&format!("UPDATE positions SET {column} = {value}"), []).unwrap();
            let error = crate::state::Error::of(&path, read(&connection, &owner).unwrap_err());
            assert_eq!(error.to_string(), format!("the state in {} is damaged", path.display()), "{column} = {value}");
        }
    }
}

//! The JSON report of a run, and rows of its state.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::Finished;

#[track_caller]
pub fn report(finished: &Finished) -> Value {
    let records = finished.records();
    assert_eq!(records.len(), 1, "{finished:?}");
    records[0].clone()
}

/// Fails unless this is a failed `pool --check`: exit code 4, one line with this reason, nothing on stdout.
#[track_caller]
pub fn assert_pool_check(finished: &Finished, reason: &str) {
    let expected = format!("error: the connection pool is {reason}\n");
    assert_eq!((finished.code, &finished.stderr, finished.stdout.len()), (Some(4), &expected, 0));
}

pub fn rows(state: &Path, sql: &str) -> Vec<String> {
    let connection = Connection::open_with_flags(state, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[track_caller]
pub fn assert_failure(finished: &Finished, code: i32, reported: &str) {
    let stdout = String::from_utf8_lossy(&finished.stdout);
    assert_eq!((finished.code, &*stdout, &*finished.stderr), (Some(code), "", reported));
}

/// The created, updated, removed and unchanged rows of one kind.
pub fn counts(report: &Value, resource: &str) -> [u64; 4] {
    ["created", "updated", "removed", "unchanged"].map(|kind| report["changes"][resource][kind].as_u64().unwrap())
}

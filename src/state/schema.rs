//! Opens a state file: creates, rejects or migrates it.
//!
//! In: a path. Out: a connection that can write. Called by [`super::Store::open`].
//!
//! The file is not changed before it has proved to be ours, intact, and of a schema that we know. SQLite creates the
//! files that it keeps next to a database (`-wal`, `-shm`) with the mode of the database
//! itself (sqlite `src/os_unix.c`, `findCreateFileMode`).

use super::error::Error;
use super::location;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Migration N, counted from 1, migrates a file from schema N - 1 to schema N.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_positions.sql"),
    include_str!("migrations/0002_inventory.sql"),
    include_str!("migrations/0003_closed_outputs.sql"),
    include_str!("migrations/0004_births_of_outputs.sql"),
    include_str!("migrations/0005_files_of_positions.sql"),
    include_str!("migrations/0006_output_sequences.sql"),
];

/// The number of the current schema.
const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// `PRAGMA application_id` of our files, set by the first migration.
const APPLICATION: i64 = 0x6c6f_6777;

/// The largest file, in bytes, that is checked completely before use. That takes a fraction of a second, and a state
/// needs one page for a dozen containers.
const CHECKED: u64 = 64 << 20;

/// The pause before another attempt while another process is creating the file. SQLite itself waits in such steps.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Opens the file, creating it and its folders if they are missing. Waits up to `busy_timeout` for other processes
/// that hold SQLite's lock.
pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Connection, Error> {
    let real = location::resolve(path)?;
    create(path, &real)?;
    let failed = |source| Error::of(path, source);
    let mut connection = connect(path, &real, busy_timeout)?;
    configure(&connection, busy_timeout).map_err(failed)?;
    migrate(&mut connection, MIGRATIONS).map_err(failed)?;
    Ok(connection)
}

/// Opens an existing file without migrating it. `None` if there is none, or if it is still empty.
pub(super) fn open_existing(path: &Path, busy_timeout: Duration) -> Result<Option<Connection>, Error> {
    match fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::CannotOpen { path: path.to_owned(), source: source.into() }),
        Ok(_) => {}
    }
    let mut connection = connect(path, &location::resolve(path)?, busy_timeout)?;
    let (schema, ..) = read_header(&mut connection).map_err(|source| Error::of(path, source))?;
    Ok((schema > 0).then_some(connection))
}

/// Connects to an existing file at the resolved path `real`, and checks that it is ours.
fn connect(path: &Path, real: &Path, busy_timeout: Duration) -> Result<Connection, Error> {
    location::check(path, real)?;
    let failed = |source| Error::of(path, source);
    // Without the flag to create the file, because SQLite would create it with mode 0644.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The path was resolved without links; a link that appeared since then is rejected.
    let flags = flags | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(real, flags).map_err(failed)?;
    connection.busy_timeout(busy_timeout).map_err(failed)?;
    // If the file is rejected, closing must not move what a crash left in its write-ahead log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    check(&mut connection, path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    Ok(connection)
}

/// Creates the file and its folders at the resolved path `real` if they are missing.
fn create(path: &Path, real: &Path) -> Result<(), Error> {
    if let Some(folder) = real.parent() {
        create_folder(folder).map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
    }
    // Not with `open`: a process that closes any descriptor of a file loses all its locks on it (fcntl(2)),
    // including those of SQLite.
    match rustix::fs::mknodat(rustix::fs::CWD, real, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno @ Errno::ROFS) => {
            Err(Error::ReadOnly { path: path.to_owned(), source: Some(io::Error::from(errno).into()) })
        }
        Err(errno) => Err(Error::CannotOpen { path: path.to_owned(), source: io::Error::from(errno).into() }),
    }
}

/// Creates a folder that only its owner may enter, and its missing parents. Each parent is synced, because otherwise a
/// power failure could remove the folder and what was committed in it.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent();
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // Some folders cannot be opened for reading, and some file systems cannot sync folders.
            let _ = parent.map(|parent| File::open(parent)?.sync_all());
            Ok(())
        }
    }
}

/// Rejects files that we must not write to.
fn check(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::of(path, source);
    if connection.is_readonly(MAIN_DB).map_err(failed)? {
        return Err(Error::ReadOnly { path: path.to_owned(), source: None });
    }
    let (schema, application, tables) = read_header(connection).map_err(failed)?;
    // An empty file belongs to no program yet.
    if application != APPLICATION && (application != 0 || tables > 0) {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    if schema > SCHEMA {
        return Err(Error::Newer { path: path.to_owned(), schema, known: SCHEMA });
    }
    let size =
        fs::metadata(path).map_err(|source| Error::CannotOpen { path: path.to_owned(), source: source.into() })?;
    if size.len() <= CHECKED {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(Error::Damaged { path: path.to_owned(), source: verdict.into() });
        }
    }
    Ok(())
}

/// Reads the schema, the application ID and the number of tables in one transaction, because another process may
/// be creating the file.
fn read_header(connection: &mut Connection) -> rusqlite::Result<(i64, i64, i64)> {
    let snapshot = connection.transaction()?;
    let tables = snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let schema = snapshot.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application = snapshot.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok((schema, application, tables))
}

/// Configures the connection so that a commit is on the disk when it returns.
fn configure(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    switch_to_log(connection, Instant::now() + busy_timeout)?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Switches the file to a write-ahead log. If the file system does not support the shared memory that it needs, SQLite
/// keeps its rollback journal, which is equally safe but slower.
///
/// Only a new file needs the switch. Unlike other statements it does not wait for other processes by itself, because it
/// requests its lock while it holds a read lock (sqlite `src/btree.c`, `sqlite3BtreeSetVersion`).
fn switch_to_log(connection: &Connection, deadline: Instant) -> rusqlite::Result<()> {
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                thread::sleep(RETRY_PAUSE);
            }
            switched => return switched,
        }
    }
}

/// Applies the missing migrations, each in its own transaction. A file of the current schema is not written to, so that
/// opening it does not wait for other processes.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    while due(connection, migrations)?.is_some() {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have applied it in the meantime.
        if let Some((schema, migration)) = due(&step, migrations)? {
            step.execute_batch(migration)?;
            step.pragma_update(None, "user_version", schema)?;
            step.commit()?;
        }
    }
    Ok(())
}

/// The next migration and the number of the schema that it creates.
fn due<'a>(connection: &Connection, migrations: &[&'a str]) -> rusqlite::Result<Option<(i64, &'a str)>> {
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let next = usize::try_from(schema).ok().and_then(|schema| migrations.get(schema));
    Ok(next.map(|migration| (schema + 1, *migration)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_id::FileId;
    use crate::model::position::FilePosition;
    use crate::state::SavedOutput;
    use crate::state::positions::{self, Owner};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

    const TABLES: [&str; 8] =
        ["containers", "mounts", "outputs", "positions", "reconciliations", "removals", "resumes", "volumes"];

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn number(connection: &Connection, pragma: &str) -> i64 {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    }

    fn tables(connection: &Connection) -> Vec<String> {
        let mut statement =
            connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn new_files_are_private_and_existing_ones_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let folder = dir.path().join("new/folder");
        let connection = open(&folder.join("state.db"), BUSY_TIMEOUT).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!((mode(&folder), mode(&dir.path().join("new"))), (0o700, 0o700));
        for file in ["state.db", "state.db-wal", "state.db-shm"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
        connection.close().unwrap();
        let elsewhere = dir.path().join("state.db");
        fs::write(&elsewhere, "").unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o640)).unwrap();
        let _connection = open(&elsewhere, BUSY_TIMEOUT).unwrap();
        assert_eq!(mode(&elsewhere), 0o640);
        assert_eq!(mode(dir.path()), 0o755);
    }

    #[test]
    fn commits_are_synced_and_wait_five_seconds_for_locks() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("state.db"), crate::state::BUSY_TIMEOUT).unwrap();
        let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(journal, "wal");
        assert_eq!(number(&connection, "synchronous"), 2);
        assert_eq!(number(&connection, "busy_timeout"), 5000);
    }

    #[test]
    fn an_older_schema_is_migrated_and_the_current_one_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        // Schema 0: an empty file, as the SQLite shell leaves it.
        Connection::open(&path).unwrap().execute_batch("VACUUM").unwrap();
        let connection = open(&path, BUSY_TIMEOUT).unwrap();
        assert_eq!((number(&connection, "user_version"), number(&connection, "application_id")), (SCHEMA, APPLICATION));
        assert_eq!(tables(&connection), TABLES);
        connection.close().unwrap();
        let before = fs::read(&path).unwrap();
        open(&path, BUSY_TIMEOUT).unwrap().close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    /// A state with schema 1 after two runs on a real engine: two containers, two names, one output.
    const VERSION_1: &[u8] = include_bytes!("fixtures/version-1.db");

    #[test]
    fn a_version_1_file_is_migrated_with_its_content_when_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, VERSION_1).unwrap();
        let content = |connection: &Connection| -> Vec<String> {
            let sql = "SELECT name || ' ' || container_name || ' ' || route || ' ' || offset || ' ' || stdout_time
                FROM positions UNION ALL SELECT name || ' ' || length FROM outputs ORDER BY 1";
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let existing = open_existing(&path, BUSY_TIMEOUT).unwrap().unwrap();
        let before = content(&existing);
        assert_eq!((before.len(), number(&existing, "user_version")), (4, 1));
        existing.close().unwrap();
        assert!(fs::read(&path).unwrap() == VERSION_1);
        let connection = open(&path, BUSY_TIMEOUT).unwrap();
        assert_eq!(
            (number(&connection, "user_version"), tables(&connection)),
            (SCHEMA, TABLES.map(str::to_owned).to_vec())
        );
        assert_eq!(content(&connection), before);
        connection.execute_batch("INSERT INTO removals VALUES ('e', 'container', 'a', '2026-11-20')").unwrap();
    }

    /// Each schema was in use by programs that people may have run.
    #[test]
    fn outputs_of_every_schema_are_read() {
        for schema in 1..=MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            let mut old = Connection::open(&path).unwrap();
            migrate(&mut old, &MIGRATIONS[..schema]).unwrap();
            let insert = "INSERT INTO outputs (engine_id, name, path, device, inode, length, updated_at)
                VALUES ('e', 'default', '/out', 7, 8, 9, '2026-11-20T00:00:00.000000000Z')";
            old.execute(insert, []).unwrap();
            old.close().unwrap();
            let connection = open(&path, BUSY_TIMEOUT).unwrap();
            let owner = Owner { engine_id: "e".into(), name: "default".into() };
            let output = positions::read_output(&connection, &owner, Path::new("/out")).unwrap();
            let expected = SavedOutput { device: 7, inode: 8, length: 9, is_closed: false, born: None, sequence: 0 };
            assert_eq!(output, Some(expected), "schema {schema}");
        }
    }

    /// A position of any schema is read completely; fields that the schema did not have are unknown.
    #[test]
    fn positions_of_every_schema_are_read() {
        for schema in 1..=MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            let mut old = Connection::open(&path).unwrap();
            migrate(&mut old, &MIGRATIONS[..schema]).unwrap();
            let insert =
                "INSERT INTO positions (engine_id, name, container_id, container_name, route, ended, device, inode,
                    fingerprint, offset, stdout_passed, stderr_passed, updated_at)
                VALUES ('e', 'default', 'c', 'web', 'file', 0, 7, 8, -9, 10, 1, 2, '2026-11-20T00:00:00.000000000Z')";
            old.execute(insert, []).unwrap();
            old.close().unwrap();
            let connection = open(&path, BUSY_TIMEOUT).unwrap();
            let owner = Owner { engine_id: "e".into(), name: "default".into() };
            let known = positions::read(&connection, &owner).unwrap()["c"].position.place;
            let file = FileId { filesystem: None, inode: 8, born: None };
            let (fingerprint, before) = (Some(u64::MAX - 8), [None; 2]);
            let expected = FilePosition { device: 7, file, fingerprint, offset: 10, before, passed: [1, 2] };
            assert_eq!(known, Some(expected), "schema {schema}");
        }
    }

    #[test]
    fn opening_only_existing_files_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder/state.db");
        assert!(open_existing(&path, BUSY_TIMEOUT).unwrap().is_none());
        assert!(!path.parent().unwrap().exists());
        let empty = dir.path().join("empty.db");
        fs::write(&empty, "").unwrap();
        assert!(open_existing(&empty, BUSY_TIMEOUT).unwrap().is_none());
        assert!(fs::read(&empty).unwrap().is_empty());
    }

    #[test]
    fn each_migration_is_atomic() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = open(&dir.path().join("state.db"), BUSY_TIMEOUT).unwrap();
        let next = ["CREATE TABLE third (a);", "CREATE TABLE fourth (a); CREATE TABLE third (a);"];
        let more = [MIGRATIONS, &next].concat();
        migrate(&mut connection, &more).unwrap_err();
        assert_eq!(number(&connection, "user_version"), SCHEMA + 1);
        assert_eq!(tables(&connection), [&TABLES[..7], &["third", "volumes"]].concat());
        migrate(&mut connection, &more[..=MIGRATIONS.len()]).unwrap();
    }

    #[test]
    fn a_current_file_opens_while_another_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let other = open(&path, BUSY_TIMEOUT).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; DELETE FROM positions").unwrap();
        open(&path, Duration::ZERO).unwrap();
    }

    /// A closed state file with a few pages of content.
    fn filled(path: &Path) -> Vec<u8> {
        let connection = open(path, BUSY_TIMEOUT).unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
            INSERT INTO resumes SELECT 'engine', 'name' || i, '', '' FROM n";
        connection.execute(fill, []).unwrap();
        connection.close().unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn foreign_and_damaged_files_are_rejected_unchanged() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 9] = [
            ("FILE is not a state file", |path| fs::write(path, "x\n").unwrap()),
            ("FILE is not a state file", |path| fs::write(path, "not a database\n".repeat(1000)).unwrap()),
            ("the state in FILE is damaged", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
            }),
            ("FILE is not a state file", |path| scribble(path, 0)),
            ("the state in FILE is damaged", |path| scribble(path, 100)),
            ("the state in FILE is damaged", |path| {
                let length = fs::metadata(path).unwrap().len();
                scribble(path, length - 4096);
            }),
            ("FILE is the database of another program", |path| {
                fs::remove_file(path).unwrap();
                alter(path, "CREATE TABLE bookmarks (url)");
            }),
            ("FILE is the database of another program", |path| alter(path, "PRAGMA application_id = 7")),
            ("the state in FILE was written by a newer docker-logwatch (schema 7, this one knows 6)", |path| {
                alter(path, "PRAGMA user_version = 7")
            }),
        ];
        for (number, (message, damage)) in cases.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            filled(&path);
            damage(&path);
            let before = fs::read(&path).unwrap();
            let error = open(&path, BUSY_TIMEOUT).err().unwrap_or_else(|| panic!("case {number} was not rejected"));
            assert_eq!(error.to_string(), message.replace("FILE", path.to_str().unwrap()), "case {number}: {error:?}");
            assert!(!error.is_temporary());
            assert_eq!(fs::read(&path).unwrap(), before, "case {number}");
        }
    }

    fn alter(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    fn scribble(path: &Path, at: u64) {
        File::options().write(true).open(path).unwrap().write_all_at(&[0x5a; 64], at).unwrap();
    }

    #[test]
    fn the_write_ahead_log_of_a_rejected_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("state.db"), dir.path().join("copy.db"));
        let connection = open(&path, BUSY_TIMEOUT).unwrap();
        connection.execute_batch("PRAGMA user_version = 7").unwrap();
        let log = |path: &Path| path.with_extension("db-wal");
        fs::copy(&path, &copy).unwrap();
        fs::copy(log(&path), log(&copy)).unwrap();
        let before = (fs::read(&copy).unwrap(), fs::read(log(&copy)).unwrap());
        assert!(matches!(open(&copy, BUSY_TIMEOUT).unwrap_err(), Error::Newer { schema: 7, .. }));
        assert!((fs::read(&copy).unwrap(), fs::read(log(&copy)).unwrap()) == before);
    }

    #[test]
    fn an_unusable_path_is_reported_with_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name: &str| dir.path().join(name);
        fs::write(inside("file"), "").unwrap();
        fs::create_dir(inside("folder")).unwrap();
        std::os::unix::fs::symlink(inside("missing"), inside("link")).unwrap();
        for (path, message) in [
            (inside("file/state.db"), format!("cannot create the folder {}", inside("file").display())),
            (inside("folder"), format!("cannot open the state in {}", inside("folder").display())),
            (inside("link"), format!("cannot open the state in {}", inside("link").display())),
        ] {
            let error = open(&path, BUSY_TIMEOUT).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(std::error::Error::source(&error).is_some(), "{error:?} has no cause");
        }
        assert!(!inside("missing").exists());
    }
}

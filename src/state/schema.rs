//! Opens a state file: makes it, refuses it, or brings it to our schema.
//!
//! In: a path. Out: a connection that may be written to. Called by [`super::Store::open`].
//! Until the file has proved to be ours, of a schema that we know, and whole, nothing of it is changed. SQLite makes what it
//! keeps beside a database (`-wal`, `-shm`) with the mode of the database itself (sqlite `src/os_unix.c`,
//! `findCreateFileMode`).

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

/// Each brings a file from the schema before it to its own, which is its number.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_positions.sql"),
    include_str!("migrations/0002_inventory.sql"),
    include_str!("migrations/0003_closed_outputs.sql"),
    include_str!("migrations/0004_births_of_outputs.sql"),
    include_str!("migrations/0005_files_of_positions.sql"),
    include_str!("migrations/0006_output_sequences.sql"),
];

/// The newest schema.
const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// `PRAGMA application_id` of our files; set by the first migration.
const APPLICATION: i64 = 0x6c6f_6777;

/// A file up to this size is read through before it is used. It takes a fraction of a second, and a state has a page for a
/// dozen containers.
const CHECKED: u64 = 64 << 20;

/// After so long a file that another process is making is tried again; SQLite itself waits in such steps.
const AGAIN: Duration = Duration::from_millis(10);

/// Opens the file, made with its folders where missing. `patience`: how long to wait for others that hold it.
pub(super) fn open(path: &Path, patience: Duration) -> Result<Connection, Error> {
    let real = location::resolve(path)?;
    make(path, &real)?;
    let failed = |source| Error::of(path, source);
    let mut connection = connect(path, &real, patience)?;
    configure(&connection, patience).map_err(failed)?;
    migrate(&mut connection, MIGRATIONS).map_err(failed)?;
    Ok(connection)
}

/// Opens the file as it is; `None` where there is none, or an empty one that is nobody's yet.
pub(super) fn look(path: &Path, patience: Duration) -> Result<Option<Connection>, Error> {
    match fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::Unopened { path: path.to_owned(), source: source.into() }),
        Ok(_) => {}
    }
    let mut connection = connect(path, &location::resolve(path)?, patience)?;
    let (schema, ..) = read_header(&mut connection).map_err(|source| Error::of(path, source))?;
    Ok((schema > 0).then_some(connection))
}

/// A connection to a file that is there, at the place `real`, and has proved to be ours.
fn connect(path: &Path, real: &Path, patience: Duration) -> Result<Connection, Error> {
    location::check(path, real)?;
    let failed = |source| Error::of(path, source);
    // Never made by SQLite, whose mode for new files is 0644.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // There was no link on the way when it was checked, and one that has come since is refused.
    let flags = flags | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(real, flags).map_err(failed)?;
    connection.busy_timeout(patience).map_err(failed)?;
    // What a crash left in the write-ahead log of a file that we refuse stays there.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    check(&mut connection, path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    Ok(connection)
}

/// Makes the file and its folders at the place `real`, where missing.
fn make(path: &Path, real: &Path) -> Result<(), Error> {
    if let Some(folder) = real.parent() {
        make_folder(folder).map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
    }
    // Not by opening it: a process that closes any descriptor of a file loses all its locks there (fcntl(2)), SQLite's too.
    match rustix::fs::mknodat(rustix::fs::CWD, real, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno @ Errno::ROFS) => {
            Err(Error::ReadOnly { path: path.to_owned(), source: Some(io::Error::from(errno).into()) })
        }
        Err(errno) => Err(Error::Unopened { path: path.to_owned(), source: io::Error::from(errno).into() }),
    }
}

/// Makes a folder that only its owner may enter, and those above it. Each is synced into its parent, or a power cut could
/// take the folder and what was committed in it.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent();
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // Not every folder may be read, and not every file system syncs them.
            let _ = parent.map(|parent| File::open(parent)?.sync_all());
            Ok(())
        }
    }
}

/// Refuses what is not ours to write to.
fn check(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::of(path, source);
    if connection.is_readonly(MAIN_DB).map_err(failed)? {
        return Err(Error::ReadOnly { path: path.to_owned(), source: None });
    }
    let (schema, application, tables) = read_header(connection).map_err(failed)?;
    // A file that is still empty belongs to nobody.
    if application != APPLICATION && (application != 0 || tables > 0) {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    if schema > SCHEMA {
        return Err(Error::Newer { path: path.to_owned(), schema, known: SCHEMA });
    }
    let size = fs::metadata(path).map_err(|source| Error::Unopened { path: path.to_owned(), source: source.into() })?;
    if size.len() <= CHECKED {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(Error::Damaged { path: path.to_owned(), source: verdict.into() });
        }
    }
    Ok(())
}

/// The schema, whose file it is, and how many tables there are, all of one moment: another process may be making it.
fn read_header(connection: &mut Connection) -> rusqlite::Result<(i64, i64, i64)> {
    let moment = connection.transaction()?;
    let tables = moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let schema = moment.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application = moment.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok((schema, application, tables))
}

/// A commit is on the disk when it returns.
fn configure(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    switch_to_log(connection, Instant::now() + patience)?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Has the file written by way of a write-ahead log. Where the file system cannot share the memory that this takes, SQLite
/// stays with its rollback journal, which is as safe and slower.
///
/// The switch, which only a new file needs, does not wait for others as all else does: it asks for its lock while it holds
/// one for reading (sqlite `src/btree.c`, `sqlite3BtreeSetVersion`).
fn switch_to_log(connection: &Connection, deadline: Instant) -> rusqlite::Result<()> {
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                thread::sleep(AGAIN);
            }
            switched => return switched,
        }
    }
}

/// Takes the steps to our schema, each of them whole. A file that has it is not written to, so that nobody is waited for.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    while due(connection, migrations)?.is_some() {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Unless another process has just taken it.
        if let Some((schema, migration)) = due(&step, migrations)? {
            step.execute_batch(migration)?;
            step.pragma_update(None, "user_version", schema)?;
            step.commit()?;
        }
    }
    Ok(())
}

/// The next migration and the schema it makes.
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
    use crate::state::Output;
    use crate::state::positions::{self, Owner};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    const PATIENCE: Duration = Duration::from_secs(5);

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
    fn what_is_made_is_for_its_owner_alone_and_what_was_there_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let folder = dir.path().join("made/here");
        let connection = open(&folder.join("state.db"), PATIENCE).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!((mode(&folder), mode(&dir.path().join("made"))), (0o700, 0o700));
        for file in ["state.db", "state.db-wal", "state.db-shm"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
        connection.close().unwrap();
        let elsewhere = dir.path().join("state.db");
        fs::write(&elsewhere, "").unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o640)).unwrap();
        let _connection = open(&elsewhere, PATIENCE).unwrap();
        assert_eq!(mode(&elsewhere), 0o640);
        assert_eq!(mode(dir.path()), 0o755);
    }

    #[test]
    fn a_commit_reaches_the_disk_and_waits_five_seconds_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("state.db"), crate::state::PATIENCE).unwrap();
        let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(journal, "wal");
        assert_eq!(number(&connection, "synchronous"), 2);
        assert_eq!(number(&connection, "busy_timeout"), 5000);
    }

    #[test]
    fn an_older_schema_is_brought_to_ours_and_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        // Of schema 0, as SQLite's own shell leaves a file that nothing was put into.
        Connection::open(&path).unwrap().execute_batch("VACUUM").unwrap();
        let connection = open(&path, PATIENCE).unwrap();
        assert_eq!((number(&connection, "user_version"), number(&connection, "application_id")), (SCHEMA, APPLICATION));
        assert_eq!(tables(&connection), TABLES);
        connection.close().unwrap();
        let before = fs::read(&path).unwrap();
        open(&path, PATIENCE).unwrap().close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    /// As the program of schema 1 left it after two runs on a real engine: two containers, two names, one output.
    const VERSION_1: &[u8] = include_bytes!("fixtures/version-1.db");

    #[test]
    fn a_file_of_version_1_is_migrated_with_all_that_is_in_it_and_only_looked_at_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, VERSION_1).unwrap();
        let content = |connection: &Connection| -> Vec<String> {
            let sql = "SELECT name || ' ' || container_name || ' ' || route || ' ' || offset || ' ' || stdout_time
                FROM positions UNION ALL SELECT name || ' ' || length FROM outputs ORDER BY 1";
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let looked = look(&path, PATIENCE).unwrap().unwrap();
        let before = content(&looked);
        assert_eq!((before.len(), number(&looked, "user_version")), (4, 1));
        looked.close().unwrap();
        assert!(fs::read(&path).unwrap() == VERSION_1);
        let connection = open(&path, PATIENCE).unwrap();
        assert_eq!(
            (number(&connection, "user_version"), tables(&connection)),
            (SCHEMA, TABLES.map(str::to_owned).to_vec())
        );
        assert_eq!(content(&connection), before);
        connection.execute_batch("INSERT INTO removals VALUES ('e', 'container', 'a', '2026-11-20')").unwrap();
    }

    /// Each landed with programs that people may have run.
    #[test]
    fn an_output_that_a_program_of_any_schema_wrote_is_still_known() {
        for schema in 1..=MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            let mut old = Connection::open(&path).unwrap();
            migrate(&mut old, &MIGRATIONS[..schema]).unwrap();
            let insert = "INSERT INTO outputs (engine_id, name, path, device, inode, length, updated_at)
                VALUES ('e', 'default', '/out', 7, 8, 9, '2026-11-20T00:00:00.000000000Z')";
            old.execute(insert, []).unwrap();
            old.close().unwrap();
            let connection = open(&path, PATIENCE).unwrap();
            let owner = Owner { engine_id: "e".into(), name: "default".into() };
            let output = positions::read_output(&connection, &owner, Path::new("/out")).unwrap();
            let expected = Output { device: 7, inode: 8, length: 9, is_closed: false, born: None, sequence: 0 };
            assert_eq!(output, Some(expected), "schema {schema}");
        }
    }

    /// A position that a program of any schema saved is read back whole; what that schema did not know is unknown.
    #[test]
    fn a_position_of_any_schema_is_still_known() {
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
            let connection = open(&path, PATIENCE).unwrap();
            let owner = Owner { engine_id: "e".into(), name: "default".into() };
            let known = positions::read(&connection, &owner).unwrap()["c"].position.place;
            let file = FileId { filesystem: None, inode: 8, born: None };
            let (fingerprint, before) = (Some(u64::MAX - 8), [None; 2]);
            let expected = FilePosition { device: 7, file, fingerprint, offset: 10, before, passed: [1, 2] };
            assert_eq!(known, Some(expected), "schema {schema}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_made_by_looking() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder/state.db");
        assert!(look(&path, PATIENCE).unwrap().is_none());
        assert!(!path.parent().unwrap().exists());
        let empty = dir.path().join("empty.db");
        fs::write(&empty, "").unwrap();
        assert!(look(&empty, PATIENCE).unwrap().is_none());
        assert!(fs::read(&empty).unwrap().is_empty());
    }

    #[test]
    fn each_migration_is_done_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = open(&dir.path().join("state.db"), PATIENCE).unwrap();
        let next = ["CREATE TABLE third (a);", "CREATE TABLE fourth (a); CREATE TABLE third (a);"];
        let more = [MIGRATIONS, &next].concat();
        migrate(&mut connection, &more).unwrap_err();
        assert_eq!(number(&connection, "user_version"), SCHEMA + 1);
        assert_eq!(tables(&connection), [&TABLES[..7], &["third", "volumes"]].concat());
        migrate(&mut connection, &more[..=MIGRATIONS.len()]).unwrap();
    }

    #[test]
    fn a_file_of_our_schema_opens_while_another_writes_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let other = open(&path, PATIENCE).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; DELETE FROM positions").unwrap();
        open(&path, Duration::ZERO).unwrap();
    }

    /// A closed state file with a few pages of content.
    fn filled(path: &Path) -> Vec<u8> {
        let connection = open(path, PATIENCE).unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
            INSERT INTO resumes SELECT 'engine', 'name' || i, '', '' FROM n";
        connection.execute(fill, []).unwrap();
        connection.close().unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn what_is_not_ours_to_write_to_is_refused_and_left_as_it_is() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 9] = [
            ("FILE is no state file", |path| fs::write(path, "x\n").unwrap()),
            ("FILE is no state file", |path| fs::write(path, "not a database\n".repeat(1000)).unwrap()),
            ("the state in FILE is damaged", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
            }),
            ("FILE is no state file", |path| scribble(path, 0)),
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
        for (number, (words, harm)) in harms.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            filled(&path);
            harm(&path);
            let before = fs::read(&path).unwrap();
            let error = open(&path, PATIENCE).err().unwrap_or_else(|| panic!("harm {number} was not seen"));
            assert_eq!(error.to_string(), words.replace("FILE", path.to_str().unwrap()), "harm {number}: {error:?}");
            assert!(!error.is_passing());
            assert_eq!(fs::read(&path).unwrap(), before, "harm {number}");
        }
    }

    fn alter(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    fn scribble(path: &Path, at: u64) {
        File::options().write(true).open(path).unwrap().write_all_at(&[0x5a; 64], at).unwrap();
    }

    #[test]
    fn what_a_crash_left_in_the_log_of_a_refused_file_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("state.db"), dir.path().join("copy.db"));
        let connection = open(&path, PATIENCE).unwrap();
        connection.execute_batch("PRAGMA user_version = 7").unwrap();
        let log = |path: &Path| path.with_extension("db-wal");
        fs::copy(&path, &copy).unwrap();
        fs::copy(log(&path), log(&copy)).unwrap();
        let before = (fs::read(&copy).unwrap(), fs::read(log(&copy)).unwrap());
        assert!(matches!(open(&copy, PATIENCE).unwrap_err(), Error::Newer { schema: 7, .. }));
        assert!((fs::read(&copy).unwrap(), fs::read(log(&copy)).unwrap()) == before);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told_with_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name: &str| dir.path().join(name);
        fs::write(inside("file"), "").unwrap();
        fs::create_dir(inside("folder")).unwrap();
        std::os::unix::fs::symlink(inside("missing"), inside("link")).unwrap();
        for (path, words) in [
            (inside("file/state.db"), format!("cannot make the folder {}", inside("file").display())),
            (inside("folder"), format!("cannot open the state in {}", inside("folder").display())),
            (inside("link"), format!("cannot open the state in {}", inside("link").display())),
        ] {
            let error = open(&path, PATIENCE).unwrap_err();
            assert_eq!(error.to_string(), words);
            assert!(std::error::Error::source(&error).is_some(), "{error:?} has no cause");
        }
        assert!(!inside("missing").exists());
    }
}

//! What can go wrong with the state, by what a caller can do about it.
//!
//! `Display` is one line about one object; the cause is in `source()`.

use crate::model::time::Timestamp;
use rusqlite::{ErrorCode, ffi};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A cause of any type.
pub type Fault = Box<dyn StdError + Send + Sync>;

/// What can go wrong with the state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of the state file is missing and cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Of the file system.
        source: io::Error,
    },
    /// It, or what SQLite keeps beside it, cannot be opened or made.
    #[error("cannot open the state in {}", path.display())]
    Unopened {
        /// The state file.
        path: PathBuf,
        /// Of the file system or of SQLite.
        source: Fault,
    },
    /// Somebody else could have put it there. It was left as it is.
    #[error("the state in {} is not used: {reason}", path.display())]
    Untrusted {
        /// The state file, as it was given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It can be read and not written.
    #[error("the state in {} cannot be written: it is read-only", path.display())]
    ReadOnly {
        /// The state file.
        path: PathBuf,
        /// Of the file system or of SQLite, where one of them said so.
        source: Option<Fault>,
    },
    /// Another program has held its lock for longer than we wait.
    #[error("the state in {} is locked by another program", path.display())]
    Busy {
        /// The state file.
        path: PathBuf,
        /// Of SQLite.
        source: Fault,
    },
    /// No room is left on its disk. What was committed before is whole.
    #[error("no room is left for the state in {}", path.display())]
    Full {
        /// The state file.
        path: PathBuf,
        /// Of SQLite.
        source: Fault,
    },
    /// Its disk failed, or the file system does not do what SQLite needs.
    #[error("reading or writing the state in {} failed", path.display())]
    Disk {
        /// The state file.
        path: PathBuf,
        /// Of SQLite.
        source: Fault,
    },
    /// It does not begin as a database does. It was left as it is.
    #[error("{} is no state file", path.display())]
    NoState {
        /// The file.
        path: PathBuf,
        /// Of SQLite.
        source: Fault,
    },
    /// It is a broken database. It was left as it is.
    #[error("the state in {} is damaged", path.display())]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        source: Fault,
    },
    /// It is a database of some other program. It was left as it is.
    #[error("{} is the database of another program", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Its schema is one of the future. It was left as it is.
    #[error(
        "the state in {} was written by a newer docker-logwatch (schema {schema}, this one knows {known})",
        path.display()
    )]
    Newer {
        /// The state file.
        path: PathBuf,
        /// Its schema.
        schema: i64,
        /// The newest that we know.
        known: i64,
    },
    /// A resume NAME with characters of the wrong kind, with none, or with too many.
    #[error("invalid resume name {name:?}: it takes 1 to 64 letters, digits, `_`, `.` and `-`")]
    BadName {
        /// As it was given.
        name: String,
    },
    /// Another run holds the resume NAME.
    #[error("\"{name}\" is in use by {}", described(holder.as_ref()))]
    Held {
        /// The NAME.
        name: String,
        /// Who it is, where it could be told.
        holder: Option<Holder>,
    },
    /// The lock of a resume NAME cannot be made.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Of the file system.
        source: io::Error,
    },
    /// The output did not reach its disk, so nothing was committed.
    #[error("cannot write {} to its disk", path.display())]
    Output {
        /// The output.
        path: PathBuf,
        /// Of the file system.
        source: io::Error,
    },
    /// What goes to the output cannot be logged first, so it is not written.
    #[error("cannot write the log of the output in {}", path.display())]
    OutputLog {
        /// The log.
        path: PathBuf,
        /// Of the file system.
        source: io::Error,
    },
    /// The operating system gives us no thread.
    #[error("cannot start the thread of the state")]
    Thread(#[source] io::Error),
    /// The thread of the state has ended before its time.
    #[error("the state is closed")]
    Closed,
    /// Anything else that SQLite refuses.
    #[error("cannot use the state in {}", path.display())]
    Failed {
        /// The state file.
        path: PathBuf,
        /// Of SQLite.
        source: Fault,
    },
}

/// Who holds a resume NAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, as it sees itself: in a container that is another number than outside.
    pub pid: u32,
    /// Since when, in whole seconds.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.to_string();
        let seconds = since.split('.').next().unwrap_or_default();
        write!(f, "process {} since {seconds}Z", self.pid)
    }
}

fn described(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".into(), Holder::to_string)
}

impl Error {
    /// Whether the same call may work a little later, without anybody doing anything about it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Busy { .. })
    }

    /// What an error of SQLite on this file means.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        // The index of the write-ahead log is made large at once, and only a full disk hinders that.
        let no_room = source.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE);
        let code = source.sqlite_error_code();
        let is_misread = matches!(source, rusqlite::Error::FromSqlConversionFailure(..))
            || matches!(source, rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..));
        let (path, source) = (path.to_owned(), Fault::from(source));
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path, source },
            Some(ErrorCode::ReadOnly) => Error::ReadOnly { path, source: Some(source) },
            Some(ErrorCode::DiskFull) => Error::Full { path, source },
            Some(ErrorCode::SystemIoFailure) if no_room => Error::Full { path, source },
            Some(ErrorCode::SystemIoFailure) => Error::Disk { path, source },
            Some(ErrorCode::DatabaseCorrupt) => Error::Damaged { path, source },
            Some(ErrorCode::NotADatabase) => Error::NoState { path, source },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Error::Unopened { path, source },
            None if is_misread => Error::Damaged { path, source },
            _ => Error::Failed { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_sqlite_names_the_file_and_tells_what_to_do_about_it() {
        for (code, words, is_passing) in [
            (ffi::SQLITE_BUSY, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_BUSY_SNAPSHOT, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_BUSY_RECOVERY, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_LOCKED, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_READONLY_DIRECTORY, "the state in /s.db cannot be written: it is read-only", false),
            (ffi::SQLITE_FULL, "no room is left for the state in /s.db", false),
            (ffi::SQLITE_IOERR_SHMSIZE, "no room is left for the state in /s.db", false),
            (ffi::SQLITE_IOERR_WRITE, "reading or writing the state in /s.db failed", false),
            (ffi::SQLITE_IOERR_FSYNC, "reading or writing the state in /s.db failed", false),
            (ffi::SQLITE_CORRUPT, "the state in /s.db is damaged", false),
            (ffi::SQLITE_CORRUPT_INDEX, "the state in /s.db is damaged", false),
            (ffi::SQLITE_NOTADB, "/s.db is no state file", false),
            (ffi::SQLITE_CANTOPEN, "cannot open the state in /s.db", false),
            (ffi::SQLITE_PERM, "cannot open the state in /s.db", false),
            (ffi::SQLITE_NOMEM, "cannot use the state in /s.db", false),
        ] {
            let error = Error::of(Path::new("/s.db"), rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            assert_eq!((error.to_string().as_str(), error.is_passing()), (words, is_passing), "{code}");
            assert!(error.source().is_some(), "{error:?} has no cause");
        }
    }
}

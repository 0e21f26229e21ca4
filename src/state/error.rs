//! Errors of the state, one variant for each situation that a caller can act on.
//!
//! `Display` is one line about one object; the cause is in `source()`.

use crate::model::time::Timestamp;
use rusqlite::{ErrorCode, ffi};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub(super) type BoxedError = Box<dyn StdError + Send + Sync>;

/// An error of the state. In each variant, `path` is the file that the message names, and `source` comes from the
/// operating system or from SQLite.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder of the state file is missing and cannot be created.
    #[error("cannot create the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// The file, or one that SQLite keeps next to it, cannot be opened or created.
    #[error("cannot open the state in {}", path.display())]
    CannotOpen { path: PathBuf, source: BoxedError },
    /// Another user could have put the file there. It was left unchanged.
    #[error("refusing to use the state in {}: {reason}", path.display())]
    Untrusted {
        /// The state file as the user gave it.
        path: PathBuf,
        reason: String,
    },
    /// The file can be read but not written.
    #[error("the state in {} cannot be written: it is read-only", path.display())]
    ReadOnly {
        path: PathBuf,
        /// `None` if SQLite opened the file read-only without an error.
        source: Option<BoxedError>,
    },
    /// Another program has held SQLite's lock of the file for longer than we wait.
    #[error("the state in {} is locked by another program", path.display())]
    Busy { path: PathBuf, source: BoxedError },
    /// The disk is full. What was committed before is intact.
    #[error("no space left for the state in {}", path.display())]
    Full { path: PathBuf, source: BoxedError },
    /// The disk failed, or the file system does not support what SQLite needs.
    #[error("cannot read or write the state in {}", path.display())]
    Disk { path: PathBuf, source: BoxedError },
    /// The file does not start like a database. It was left unchanged.
    #[error("{} is not a state file", path.display())]
    NotAState { path: PathBuf, source: BoxedError },
    /// The file is a corrupt database. It was left unchanged.
    #[error("the state in {} is damaged", path.display())]
    Damaged { path: PathBuf, source: BoxedError },
    /// The file is a database of another program. It was left unchanged.
    #[error("{} is the database of another program", path.display())]
    Foreign { path: PathBuf },
    /// The schema of the file is newer than ours. The file was left unchanged.
    #[error(
        "the state in {} was written by a newer docker-logwatch (schema {schema}, this one knows {known})",
        path.display()
    )]
    Newer {
        path: PathBuf,
        schema: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// A resume name has invalid characters, or is too short or too long.
    #[error("invalid resume name {name:?}: expected 1 to 64 letters, digits, `_`, `.` and `-`")]
    BadName { name: String },
    /// Another run holds the resume name.
    #[error("\"{name}\" is in use by {}", described(holder.as_ref()))]
    Held {
        name: String,
        /// `None` if the holder has not recorded itself yet.
        holder: Option<Holder>,
    },
    /// The lock file of a resume name or an output cannot be created or locked.
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    /// The output file could not be synced, so nothing was committed.
    #[error("cannot sync {} to its disk", path.display())]
    Output { path: PathBuf, source: io::Error },
    /// The write-ahead log of the output file could not be written, so neither was the output file.
    #[error("cannot write the write-ahead log of the output in {}", path.display())]
    OutputLog { path: PathBuf, source: io::Error },
    #[error("cannot start the thread of the state")]
    Thread(#[source] io::Error),
    /// The thread of the state ended early.
    #[error("the state is closed")]
    Closed,
    /// Any other error of SQLite.
    #[error("cannot use the state in {}", path.display())]
    Failed { path: PathBuf, source: BoxedError },
}

/// The process that holds a resume name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The process ID as the process itself sees it; inside a container it differs from the one outside.
    pub pid: u32,
    /// When the process took the name.
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
    /// Whether the same call may succeed a little later without any intervention.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Error::Busy { .. })
    }

    /// Classifies an error of SQLite on this file.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        // SQLite grows the index of the write-ahead log to its full size at once, which only a full disk prevents.
        let is_full = source.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE);
        let code = source.sqlite_error_code();
        let is_invalid_value = matches!(source, rusqlite::Error::FromSqlConversionFailure(..))
            || matches!(source, rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..));
        let (path, source) = (path.to_owned(), BoxedError::from(source));
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path, source },
            Some(ErrorCode::ReadOnly) => Error::ReadOnly { path, source: Some(source) },
            Some(ErrorCode::DiskFull) => Error::Full { path, source },
            Some(ErrorCode::SystemIoFailure) if is_full => Error::Full { path, source },
            Some(ErrorCode::SystemIoFailure) => Error::Disk { path, source },
            Some(ErrorCode::DatabaseCorrupt) => Error::Damaged { path, source },
            Some(ErrorCode::NotADatabase) => Error::NotAState { path, source },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Error::CannotOpen { path, source },
            None if is_invalid_value => Error::Damaged { path, source },
            _ => Error::Failed { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlite_error_names_the_file_and_has_a_cause() {
        for (code, message, is_temporary) in [
            (ffi::SQLITE_BUSY, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_BUSY_SNAPSHOT, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_BUSY_RECOVERY, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_LOCKED, "the state in /s.db is locked by another program", true),
            (ffi::SQLITE_READONLY_DIRECTORY, "the state in /s.db cannot be written: it is read-only", false),
            (ffi::SQLITE_FULL, "no space left for the state in /s.db", false),
            (ffi::SQLITE_IOERR_SHMSIZE, "no space left for the state in /s.db", false),
            (ffi::SQLITE_IOERR_WRITE, "cannot read or write the state in /s.db", false),
            (ffi::SQLITE_IOERR_FSYNC, "cannot read or write the state in /s.db", false),
            (ffi::SQLITE_CORRUPT, "the state in /s.db is damaged", false),
            (ffi::SQLITE_CORRUPT_INDEX, "the state in /s.db is damaged", false),
            (ffi::SQLITE_NOTADB, "/s.db is not a state file", false),
            (ffi::SQLITE_CANTOPEN, "cannot open the state in /s.db", false),
            (ffi::SQLITE_PERM, "cannot open the state in /s.db", false),
            (ffi::SQLITE_NOMEM, "cannot use the state in /s.db", false),
        ] {
            let error = Error::of(Path::new("/s.db"), rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            assert_eq!((error.to_string().as_str(), error.is_temporary()), (message, is_temporary), "{code}");
            assert!(error.source().is_some(), "{error:?} has no cause");
        }
    }
}

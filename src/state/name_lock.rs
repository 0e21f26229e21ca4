//! Locks that allow one holder at a time, across all processes: of a resume name, and of an output file.
//!
//! In: the state file, an engine and a resume name. Out: a lock that lasts as long as its value. Called by
//! [`super::Store::hold`].
//!
//! The lock of a name belongs to one engine, like the positions, because runs on two engines never touch each other's
//! positions. The kernel releases it with the last descriptor (flock(2)), so a killed process leaves only the lock file
//! behind. That file is never removed: another process could have opened it in the meantime, and would then lock a file
//! that nobody else can find.

use super::error::{Error, Holder};
use super::location;
use crate::model::time::Timestamp;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The pause between attempts to take a lock: [`is_held`] holds it for a moment only to check whether it is free.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
const ATTEMPTS: u32 = 10;

/// A limit in bytes that no record of a holder reaches.
const RECORD: u64 = 64;

/// The lock of a resume name.
#[derive(Debug)]
pub(super) struct NameLock(File);

impl NameLock {
    /// Takes the lock. Fails with [`Error::Held`] if another run holds it.
    pub(super) fn take(state: &Path, engine_id: &str, name: &str) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::BadName { name: name.to_owned() });
        }
        let path = path(state, engine_id, name);
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = location::open_companion(state, &path, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
        let mut attempts = 1;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempts < ATTEMPTS => thread::sleep(RETRY_PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(Error::Held { name: name.to_owned(), holder: read(file) }),
                Err(errno) => return Err(failed(errno.into())),
            }
            attempts += 1;
        }
        write(&file).map_err(failed)?;
        Ok(NameLock(file))
    }
}

/// The lock of an output file, against other runs with the same state file. The lock file is next to the state; the
/// output itself may be opened and locked by other programs.
#[derive(Debug)]
pub(crate) struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Takes the lock of an output file, given by its path without links. Runs that only append may share it; a run
    /// that stores positions needs it alone. `None` if another run holds it.
    pub(crate) fn take(state: &Path, output: &Path, is_shared: bool) -> Result<Option<Self>, Error> {
        let mut path = state.as_os_str().to_owned();
        path.push(format!(".output-{}.lock", short_hash(output.as_os_str().as_encoded_bytes())));
        let path = PathBuf::from(path);
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = location::open_companion(state, &path, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
        let operation = match is_shared {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&file, operation) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            // Not every file system supports locks. Without them, the run goes on unprotected.
            _ => Ok(Some(OutputLock { _file: file })),
        }
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // Closing the descriptor is not enough: a child process that is just being started may have a copy of
        // it for a moment.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Whether a run, in this process or another one, holds the name. Takes the lock for a moment; [`NameLock::take`]
/// retries for longer than that.
pub(super) fn is_held(state: &Path, engine_id: &str, name: &str) -> bool {
    let Ok(file) = location::open_companion(state, &path(state, engine_id, name), OFlags::RDONLY) else { return false };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
            false
        }
        Err(errno) => errno == Errno::WOULDBLOCK,
    }
}

/// Whether the name can be part of a file name and is readable in a message.
fn is_name(name: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// Returns a path such as `state.db.resume-NAME-1f2e3d4c5b6a7988.lock`. It contains a hash of the engine ID, which
/// may have any form.
fn path(state: &Path, engine_id: &str, name: &str) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(format!(".resume-{name}-{}.lock", short_hash(engine_id.as_bytes())));
    PathBuf::from(path)
}

fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Records this process as the holder.
fn write(mut file: &File) -> io::Result<()> {
    let record = format!("{} {}\n", std::process::id(), Timestamp::now());
    file.set_len(0)?;
    file.write_all(record.as_bytes())
}

/// Reads the record of the holder. `None` if there is none yet.
fn read(file: File) -> Option<Holder> {
    let mut record = String::new();
    file.take(RECORD).read_to_string(&mut record).ok()?;
    let (pid, since) = record.trim_end().split_once(' ')?;
    Some(Holder { pid: pid.parse().ok()?, since: Timestamp::parse(since.as_bytes())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_and_three_marks() {
        let longest = "x".repeat(64);
        for name in ["default", "a", "A-1_b.c", ".", "..", &longest] {
            assert!(is_name(name), "{name:?}");
        }
        let too_long = "x".repeat(65);
        for name in ["", "a b", "a/b", "ä", "a\0", "a\n", "*", &too_long] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn checking_a_name_does_not_block_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.db");
        assert!(!is_held(&state, "engine", "default"), "the name was never taken");
        let lock = NameLock::take(&state, "engine", "default").unwrap();
        assert!(is_held(&state, "engine", "default") && !is_held(&state, "other engine", "default"));
        drop(lock);
        assert!(!is_held(&state, "engine", "default"));
        let checking = File::open(path(&state, "engine", "default")).unwrap();
        rustix::fs::flock(&checking, FlockOperation::LockShared).unwrap();
        assert!(!is_held(&state, "engine", "default"), "two checks at once");
        let taking = std::thread::spawn(move || NameLock::take(&state, "engine", "default"));
        drop(checking);
        taking.join().unwrap().unwrap();
    }

    #[test]
    fn a_holder_without_a_record_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.db");
        let file = File::create(path(&state, "engine", "default")).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        for record in ["", "4711", "4711 yesterday\n", "who 2026-11-20T23:00:53Z\n"] {
            std::fs::write(path(&state, "engine", "default"), record).unwrap();
            let error = NameLock::take(&state, "engine", "default").unwrap_err();
            assert_eq!(error.to_string(), "\"default\" is in use by another process", "{record:?}");
        }
        NameLock::take(&state, "other engine", "default").unwrap();
        drop(file);
        NameLock::take(&state, "engine", "default").unwrap();
    }
}

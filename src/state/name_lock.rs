//! One holder at once of a resume NAME, over all processes.
//!
//! In: the state file, an engine and a NAME. Out: a lock that lasts as long as its value. Called by
//! [`super::Store::hold`].
//! It is of one engine, as the positions are: runs on two engines never touch each other's. The kernel frees it with the
//! last descriptor (flock(2)), so a killed process leaves nothing behind but the file. The file is never removed: somebody
//! could have opened it meanwhile, and would then lock what nobody else can find.

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

/// Between two attempts at a lock that somebody has who may only look whether it is free, ...
const AGAIN: Duration = Duration::from_millis(5);
/// ... and so many times in all.
const ATTEMPTS: u32 = 10;

/// Longer than any record of a holder.
const RECORD: u64 = 64;

/// A resume NAME that is held.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the NAME, or says who has it.
    pub(super) fn take(state: &Path, engine_id: &str, name: &str) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::BadName { name: name.to_owned() });
        }
        let path = path(state, engine_id, name);
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = location::open_beside(state, &path, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
        let mut attempts = 1;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempts < ATTEMPTS => thread::sleep(AGAIN),
                Err(Errno::WOULDBLOCK) => return Err(Error::Held { name: name.to_owned(), holder: read(file) }),
                Err(errno) => return Err(failed(errno.into())),
            }
            attempts += 1;
        }
        write(&file).map_err(failed)?;
        Ok(Lock(file))
    }
}

/// The right to write to an output, against other runs with the same state file. It lies beside the state and not in the
/// output itself, which others may open and lock.
#[derive(Debug)]
pub struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Takes the right to write to an output, given by its path without links. Runs that only append may share it; one that
    /// keeps positions has it alone. `None` when another run has it.
    pub fn take(state: &Path, output: &Path, is_shared: bool) -> Result<Option<Self>, Error> {
        let mut path = state.as_os_str().to_owned();
        path.push(format!(".output-{}.lock", short_hash(output.as_os_str().as_encoded_bytes())));
        let path = PathBuf::from(path);
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = location::open_beside(state, &path, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
        let operation = match is_shared {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&file, operation) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            // Not every file system has locks.
            _ => Ok(Some(OutputLock { _file: file })),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the descriptor goes, since a child that is just being started may have a copy of it for a moment.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Whether a run holds a NAME, this process among them. It is looked at for a moment only, which who takes it waits out.
pub(super) fn is_held(state: &Path, engine_id: &str, name: &str) -> bool {
    let Ok(file) = location::open_beside(state, &path(state, engine_id, name), OFlags::RDONLY) else { return false };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
            false
        }
        Err(errno) => errno == Errno::WOULDBLOCK,
    }
}

/// Whether it can be part of a file name and reads well in a message.
fn is_name(name: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// `state.db.resume-NAME-1f2e3d4c5b6a7988.lock`. Engine IDs are of any form, so it is a hash of it that stands there.
fn path(state: &Path, engine_id: &str, name: &str) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(format!(".resume-{name}-{}.lock", short_hash(engine_id.as_bytes())));
    PathBuf::from(path)
}

fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Leaves who we are, for those who come later.
fn write(mut file: &File) -> io::Result<()> {
    let record = format!("{} {}\n", std::process::id(), Timestamp::now());
    file.set_len(0)?;
    file.write_all(record.as_bytes())
}

/// Who left its record; `None` when there is none yet.
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
    fn a_name_is_letters_digits_and_three_marks() {
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
    fn whether_a_name_is_held_can_be_looked_at_and_hinders_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.db");
        assert!(!is_held(&state, "engine", "default"), "nobody ever took it");
        let lock = Lock::take(&state, "engine", "default").unwrap();
        assert!(is_held(&state, "engine", "default") && !is_held(&state, "other engine", "default"));
        drop(lock);
        assert!(!is_held(&state, "engine", "default"));
        let looking = File::open(path(&state, "engine", "default")).unwrap();
        rustix::fs::flock(&looking, FlockOperation::LockShared).unwrap();
        assert!(!is_held(&state, "engine", "default"), "two may look");
        let taking = std::thread::spawn(move || Lock::take(&state, "engine", "default"));
        drop(looking);
        taking.join().unwrap().unwrap();
    }

    #[test]
    fn a_holder_that_has_not_said_who_it_is_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.db");
        let file = File::create(path(&state, "engine", "default")).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        for record in ["", "4711", "4711 yesterday\n", "who 2026-11-20T23:00:53Z\n"] {
            std::fs::write(path(&state, "engine", "default"), record).unwrap();
            let error = Lock::take(&state, "engine", "default").unwrap_err();
            assert_eq!(error.to_string(), "\"default\" is in use by another process", "{record:?}");
        }
        Lock::take(&state, "other engine", "default").unwrap();
        drop(file);
        Lock::take(&state, "engine", "default").unwrap();
    }
}

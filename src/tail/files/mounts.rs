//! Notices when the containers' folder is mounted again.
//!
//! In: the folders of the followed containers. Out: whether the path of one leads to another place than before. Used by
//! [`super::reader`]. Watches and open files belong to the mount on which they were created. If that is unmounted while
//! in use (`umount --lazy`, a new mount on top, another namespace), nothing reports that they are dead.
//!
//! The kernel reports each change of the mount table on `/proc/self/mountinfo` (proc(5)), so this costs nothing when
//! idle.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Minimum interval between checks of the mount table, because dockerd mounts file systems for
/// each container it starts.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches the mount table.
pub(super) struct MountWatch {
    /// `None` if there is no `/proc`.
    table: Option<OwnedFd>,
    /// The containers' folders, each with its device and inode number if it existed.
    folders: HashMap<PathBuf, Option<(u64, u64)>>,
    /// The table is not polled before this time.
    resume_at: Instant,
}

impl MountWatch {
    pub(super) fn new(now: Instant) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let table = rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty()).ok();
        MountWatch { table, folders: HashMap::new(), resume_at: now }
    }

    /// Watches the parent of a container's folder.
    pub(super) fn add(&mut self, folder: &Path) {
        let Some(parent) = folder.parent() else { return };
        if !self.folders.contains_key(parent) {
            self.folders.insert(parent.to_owned(), device_and_inode(parent));
        }
    }

    /// Returns the descriptor to poll for `PRI`, unless polling is paused.
    pub(super) fn table(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        self.table.as_ref().filter(|_| now >= self.resume_at).map(AsFd::as_fd)
    }

    /// Returns when polling resumes, if it is paused.
    pub(super) fn resume_at(&self, now: Instant) -> Option<Instant> {
        self.table.as_ref().and_then(|_| (now < self.resume_at).then_some(self.resume_at))
    }

    /// Pauses polling, because the table has just changed.
    pub(super) fn pause(&mut self, now: Instant) {
        self.resume_at = now + PAUSE;
    }

    /// Returns whether the path of a folder leads to another place than last time. A missing folder does
    /// not count as moved.
    pub(super) fn have_moved(&mut self) -> bool {
        let mut have_moved = false;
        for (folder, known) in &mut self.folders {
            let found = device_and_inode(folder);
            if found.is_some() && found != *known {
                have_moved |= known.is_some();
                *known = found;
            }
        }
        have_moved
    }
}

fn device_and_inode(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Only a path that leads to another folder counts as moved, and each move counts once.
    #[test]
    fn another_folder_under_the_same_path_is_reported_once() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("containers");
        fs::create_dir(&folder).unwrap();
        let mut mounts = MountWatch::new(Instant::now());
        mounts.add(&folder.join("web"));
        mounts.add(&folder.join("db"));
        assert!(!mounts.have_moved());
        fs::create_dir(folder.join("web")).unwrap();
        assert!(!mounts.have_moved(), "a change within the folder is not a move");
        fs::rename(&folder, outer.path().join("aside")).unwrap();
        assert!(!mounts.have_moved(), "it is missing");
        fs::create_dir(&folder).unwrap();
        assert!(mounts.have_moved());
        assert!(!mounts.have_moved());
    }

    /// After a change, polling the table pauses for a while.
    #[test]
    fn a_changing_mount_table_is_polled_with_pauses() {
        let now = Instant::now();
        let mut mounts = MountWatch::new(now);
        assert!(mounts.table(now).is_some() && mounts.resume_at(now).is_none());
        mounts.pause(now);
        assert!(mounts.table(now).is_none() && mounts.resume_at(now) == Some(now + PAUSE));
        assert!(mounts.table(now + PAUSE).is_some() && mounts.resume_at(now + PAUSE).is_none());
    }
}

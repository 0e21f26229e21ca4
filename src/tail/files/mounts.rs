//! Notices that the folder of all containers was mounted anew.
//!
//! In: the folders that are followed. Out: whether one leads elsewhere than before. Called by [`super::reader`]. Watches
//! and open files stay with the mount on which they were made, and when that was unmounted while in use (`umount --lazy`,
//! a new mount on top, another namespace) nobody reports that it is dead.
//! The kernel reports each change of the mount table on `/proc/self/mountinfo` (proc(5)): so this costs nothing at rest.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An engine mounts a few things for each container it starts, so the table is not asked about more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Mounts {
    /// `None` where there is no `/proc`.
    table: Option<OwnedFd>,
    /// The folders, each with its device and inode number, if it was there.
    folders: HashMap<PathBuf, Option<(u64, u64)>>,
    resume_at: Instant,
}

impl Mounts {
    pub(super) fn new(now: Instant) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let table = rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty()).ok();
        Mounts { table, folders: HashMap::new(), resume_at: now }
    }

    /// Looks out for what happens to the folder that this one is in.
    pub(super) fn add(&mut self, folder: &Path) {
        let Some(parent) = folder.parent() else { return };
        if !self.folders.contains_key(parent) {
            self.folders.insert(parent.to_owned(), numbers(parent));
        }
    }

    /// What to poll for `PRI`, unless it is too early.
    pub(super) fn table(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        self.table.as_ref().filter(|_| now >= self.resume_at).map(AsFd::as_fd)
    }

    /// When to poll again, where it is too early now.
    pub(super) fn resume_at(&self, now: Instant) -> Option<Instant> {
        self.table.as_ref().and_then(|_| (now < self.resume_at).then_some(self.resume_at))
    }

    /// The table has changed.
    pub(super) fn pause(&mut self, now: Instant) {
        self.resume_at = now + PAUSE;
    }

    /// Whether one of the folders leads elsewhere than the last time. While it is missing, nobody knows where to.
    pub(super) fn have_moved(&mut self) -> bool {
        let mut have_moved = false;
        for (folder, known) in &mut self.folders {
            let found = numbers(folder);
            if found.is_some() && found != *known {
                have_moved |= known.is_some();
                *known = found;
            }
        }
        have_moved
    }
}

fn numbers(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Only a folder that leads elsewhere counts as moved, and each move counts once.
    #[test]
    fn another_folder_under_the_same_name_is_reported_once() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("containers");
        fs::create_dir(&folder).unwrap();
        let mut mounts = Mounts::new(Instant::now());
        mounts.add(&folder.join("web"));
        mounts.add(&folder.join("db"));
        assert!(!mounts.have_moved());
        fs::create_dir(folder.join("web")).unwrap();
        assert!(!mounts.have_moved(), "what happens in it is no move");
        fs::rename(&folder, outer.path().join("aside")).unwrap();
        assert!(!mounts.have_moved(), "it is missing");
        fs::create_dir(&folder).unwrap();
        assert!(mounts.have_moved());
        assert!(!mounts.have_moved());
    }

    /// After a change the table is left alone for a while, and then polled again.
    #[test]
    fn a_changing_mount_table_is_polled_with_pauses() {
        let now = Instant::now();
        let mut mounts = Mounts::new(now);
        assert!(mounts.table(now).is_some() && mounts.resume_at(now).is_none());
        mounts.pause(now);
        assert!(mounts.table(now).is_none() && mounts.resume_at(now) == Some(now + PAUSE));
        assert!(mounts.table(now + PAUSE).is_some() && mounts.resume_at(now + PAUSE).is_none());
    }
}

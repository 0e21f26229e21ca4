//! inotify on the folders that contain log files.
//!
//! In: folders to watch. Out: events about the files in them. Used by [`super::reader`], which knows what each watch is
//! for. One watch per folder reports growth, creation and renaming in it; a watch on the file itself would follow a
//! rotated file. Linux merges equal adjacent events, and drops events beyond `max_queued_events`, which it reports
//! (inotify(7)).

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is watched in the folder of a container.
const FOLDER_EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// The watch descriptor that inotify assigns to a folder.
pub(super) type WatchId = i32;

pub(super) struct Inotify {
    inotify: OwnedFd,
}

/// An event in a watched folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileEvent<'a> {
    /// A file grew, shrank or was overwritten.
    Written(WatchId, &'a OsStr),
    /// A file or folder of this name was created or moved here.
    Appeared(WatchId, &'a OsStr),
    /// The folder was removed or unmounted, and the watch with it.
    Gone(WatchId),
    /// The kernel dropped events: anything may have happened in any folder.
    Overflow,
}

impl Inotify {
    pub(super) fn new() -> Result<Self, Errno> {
        inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map(|inotify| Inotify { inotify })
    }

    /// Watches `folder`. Returns `ENOSPC` if the user's watches are used up.
    pub(super) fn add(&self, folder: &Path) -> Result<WatchId, Errno> {
        inotify::add_watch(&self.inotify, folder, FOLDER_EVENTS)
    }

    pub(super) fn remove(&self, watch: WatchId) {
        // Fails if the kernel has already removed the watch together with its folder.
        let _ = inotify::remove_watch(&self.inotify, watch);
    }

    /// Passes all pending events to `each`.
    pub(super) fn drain(&self, mut each: impl FnMut(FileEvent<'_>)) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            let flags = event.events();
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                each(FileEvent::Overflow);
            } else if flags.contains(ReadFlags::IGNORED) {
                each(FileEvent::Gone(event.wd()));
            } else if let Some(name) = name {
                if flags.contains(ReadFlags::MODIFY) {
                    each(FileEvent::Written(event.wd(), name));
                } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    each(FileEvent::Appeared(event.wd(), name));
                }
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn growth_creation_renaming_and_removal_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Inotify::new().unwrap();
        let watch = watcher.add(dir.path()).unwrap();
        let events = || {
            let mut events = Vec::new();
            watcher.drain(|event| {
                events.push(match event {
                    FileEvent::Written(of, name) if of == watch => format!("written {}", name.display()),
                    FileEvent::Appeared(of, name) if of == watch => format!("appeared {}", name.display()),
                    FileEvent::Gone(of) if of == watch => "gone".into(),
                    other => format!("{other:?}"),
                });
            });
            events
        };
        fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(events(), ["appeared a", "written a"]);
        fs::rename(dir.path().join("a"), dir.path().join("a.1")).unwrap();
        assert_eq!(events(), ["appeared a.1"]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(events(), ["gone"]);
    }
}

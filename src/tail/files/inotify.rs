//! inotify on the folders that log files lie in.
//!
//! One watch a folder tells of growth, creation and renaming within it; a watch on the file would follow a rotated file
//! away. Called by [`super::reader`], which owns what the watches mean. Linux coalesces equal neighbouring events and drops
//! all beyond `max_queued_events`, saying so with a last one (inotify(7)).

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Of the folder of one container.
const FOLDER: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// A watch's number.
pub(super) type Watch = i32;

pub(super) struct Inotify {
    inotify: OwnedFd,
}

/// What happened in a watched folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happening<'a> {
    /// A file grew, shrank or was written over.
    Written(Watch, &'a OsStr),
    /// A file or folder of this name is there now.
    Appeared(Watch, &'a OsStr),
    /// The folder is gone, and the watch with it.
    Gone(Watch),
    /// The kernel dropped some: anything may have happened anywhere.
    Overflow,
}

impl Inotify {
    pub(super) fn new() -> Result<Self, Errno> {
        inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map(|inotify| Inotify { inotify })
    }

    /// Watches what happens in `folder`. `ENOSPC` when the user's watches are used up.
    pub(super) fn add(&self, folder: &Path) -> Result<Watch, Errno> {
        inotify::add_watch(&self.inotify, folder, FOLDER)
    }

    pub(super) fn remove(&self, watch: Watch) {
        // A watch that the kernel removed with its folder is already gone.
        let _ = inotify::remove_watch(&self.inotify, watch);
    }

    /// Hands on all that has happened.
    pub(super) fn drain(&self, mut each: impl FnMut(Happening<'_>)) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            let flags = event.events();
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                each(Happening::Overflow);
            } else if flags.contains(ReadFlags::IGNORED) {
                each(Happening::Gone(event.wd()));
            } else if let Some(name) = name {
                if flags.contains(ReadFlags::MODIFY) {
                    each(Happening::Written(event.wd(), name));
                } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    each(Happening::Appeared(event.wd(), name));
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
    fn growth_creation_renaming_and_removal_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Inotify::new().unwrap();
        let watch = watcher.add(dir.path()).unwrap();
        let told = || {
            let mut told = Vec::new();
            watcher.drain(|happening| {
                told.push(match happening {
                    Happening::Written(of, name) if of == watch => format!("written {}", name.display()),
                    Happening::Appeared(of, name) if of == watch => format!("appeared {}", name.display()),
                    Happening::Gone(of) if of == watch => "gone".into(),
                    other => format!("{other:?}"),
                });
            });
            told
        };
        fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(told(), ["appeared a", "written a"]);
        fs::rename(dir.path().join("a"), dir.path().join("a.1")).unwrap();
        assert_eq!(told(), ["appeared a.1"]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(told(), ["gone"]);
    }
}

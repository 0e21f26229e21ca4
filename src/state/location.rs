//! Resolves the path of a state file, and decides whether the file there can be trusted.
//!
//! In: the path that a user gave. Out: the path without symbolic links, or why it is rejected. Called by
//! [`super::schema`] before anything is written, and by [`super::name_lock`].
//!
//! Whoever may write to a folder on the way can plant a link there and make this process, which may be root, turn
//! another user's file into a database. Therefore a link is followed only if nobody but root and us could have made
//! it, an empty file is used only if it is ours, and the files that SQLite keeps next to a database only if they
//! belong to a trusted user. A state of another user that is already one may be used: its owner can harm
//! nothing but that file.

use super::error::Error;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, statat};
use rustix::process::{getegid, geteuid};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The most links on the way to one file. The kernel follows as many.
const LINKS: usize = 40;

/// Returns the path without links. Its last parts may not exist; they are created later.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source: io::Error| Error::CannotOpen { path: path.to_owned(), source: source.into() };
    let mut ahead: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    let (mut real, mut links) = (PathBuf::new(), 0);
    while let Some(part) = ahead.pop_front() {
        if part == OsStr::new("..") {
            real.pop();
        }
        if part == OsStr::new("..") || part == OsStr::new(".") {
            continue;
        }
        let next = real.join(&part);
        let Ok(status) = lstat(&next) else {
            // Nothing is there, or we may not access it: opening it will report the error.
            real = next;
            continue;
        };
        if kind(&status) != FileType::Symlink {
            real = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(failed(io::Error::from(rustix::io::Errno::LOOP)));
        }
        let folder = lstat(&real).map_err(|errno| failed(errno.into()))?;
        if !is_safe_link(&status, &folder) {
            return Err(untrusted(path, format!("{} is a link that another user could have made", next.display())));
        }
        let target = fs::read_link(&next).map_err(failed)?;
        if ahead.is_empty() && fs::metadata(&next).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        for part in target.components().rev() {
            ahead.push_front(part.as_os_str().to_owned());
        }
        if target.has_root() {
            real = PathBuf::new();
        }
    }
    Ok(real)
}

/// Rejects an existing file that must not be written to. `path` is the path that the user gave,
/// `real` the resolved one.
pub(super) fn check(path: &Path, real: &Path) -> Result<(), Error> {
    let Ok(status) = lstat(real) else { return Ok(()) };
    let is_ours = status.st_uid == geteuid().as_raw();
    match kind(&status) {
        FileType::RegularFile => {}
        // SQLite reports it.
        FileType::Directory => return Ok(()),
        _ => return Err(untrusted(path, "it is not a regular file".to_owned())),
    }
    if !is_ours && path != real && lstat(path).is_ok_and(|given| kind(&given) == FileType::Symlink) {
        return Err(untrusted(path, "it is a link to another user's file".to_owned()));
    }
    if !is_ours && status.st_size == 0 {
        return Err(untrusted(path, "it is another user's empty file".to_owned()));
    }
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut companion = real.as_os_str().to_owned();
        companion.push(suffix);
        if let Ok(found) = lstat(Path::new(&companion))
            && !is_trusted(&found, status.st_uid)
        {
            return Err(untrusted(path, format!("{} belongs to another user", Path::new(&companion).display())));
        }
    }
    Ok(())
}

/// Opens a file next to a state file, and creates it if `flags` say so. Does not follow links, does not block, and
/// rejects a file of another user.
pub(crate) fn open_companion(state: &Path, path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let owner = statat(CWD, state, AtFlags::empty()).map_or(geteuid().as_raw(), |status| status.st_uid);
    match is_trusted(&fstat(&file)?, owner) {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user")),
    }
}

/// Whether it is a regular file of the state's owner, of us or of root.
fn is_trusted(status: &Stat, owner: u32) -> bool {
    kind(status) == FileType::RegularFile && [0, geteuid().as_raw(), owner].contains(&status.st_uid)
}

/// Whether only root and we can have made the link, and nobody else can replace it.
fn is_safe_link(link: &Stat, folder: &Stat) -> bool {
    let is_known = |status: &Stat| [0, geteuid().as_raw()].contains(&status.st_uid);
    let mode = Mode::from_raw_mode(folder.st_mode);
    let by_others = mode.contains(Mode::WOTH) || mode.contains(Mode::WGRP) && folder.st_gid != getegid().as_raw();
    // In a sticky folder, such as /tmp, nobody can replace the files of others.
    is_known(link) && is_known(folder) && (!by_others || mode.contains(Mode::SVTX))
}

fn untrusted(path: &Path, reason: String) -> Error {
    Error::Untrusted { path: path.to_owned(), reason }
}

fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

fn lstat(path: &Path) -> rustix::io::Result<Stat> {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// Tests that need root: they give files to another user. Profile `fast` skips modules of this name.
#[cfg(test)]
mod as_root {
    use super::*;
    use crate::state::Store;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    /// A user that is not root.
    const OTHER: u32 = 4711;

    /// Opens a state. Returns the outcome, and whether the victim's file stayed empty.
    fn opened(prepare: impl FnOnce(&Path, &Path) -> PathBuf) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("mine");
        let victim = dir.path().join("victim");
        fs::create_dir(&mine).unwrap();
        fs::write(&victim, "").unwrap();
        chown(&victim, Some(OTHER), None).unwrap();
        let path = prepare(&mine, &victim);
        let existing = Store::open_existing(&path).err().map(|error| error.to_string());
        let outcome = match Store::open(&path) {
            Ok(_) => "opened".to_owned(),
            Err(error) => {
                assert!(existing.is_none_or(|existing| existing == error.to_string()), "{error}");
                error.to_string()
            }
        };
        let outcome = outcome.replace(path.to_str().unwrap(), "STATE").replace(dir.path().to_str().unwrap(), "DIR");
        (outcome, fs::metadata(victim).unwrap().len() == 0)
    }

    fn is_root() -> bool {
        geteuid().is_root()
    }

    /// Another user's file never becomes a database, whatever path leads to it.
    #[test]
    fn links_and_files_of_other_users_are_rejected_unchanged() {
        assert!(is_root(), "these tests give files to another user, which takes root");
        let refused = |reason: &str| (format!("refusing to use the state in STATE: {reason}"), true);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let link = |target: &Path, at: PathBuf| {
            symlink(target, &at).unwrap();
            at
        };
        assert_eq!(opened(|mine, victim| link(victim, mine.join("s"))), refused("it is a link to another user's file"));
        assert_eq!(opened(|_, victim| victim.to_owned()), refused("it is another user's empty file"));
        let by_other = |mine: &Path, _: &Path| {
            fs::write(mine.join("own"), "").unwrap();
            let at = link(&mine.join("own"), mine.join("s"));
            lchown(&at, Some(OTHER), None).unwrap();
            at
        };
        assert_eq!(opened(by_other), refused("STATE is a link that another user could have made"));
        for (bits, expected) in [
            (0o777, refused("STATE is a link that another user could have made")),
            (0o775, ("opened".to_owned(), true)),
            (0o1777, ("opened".to_owned(), true)),
            (0o755, ("opened".to_owned(), true)),
        ] {
            let in_folder = |mine: &Path, _: &Path| {
                fs::write(mine.join("own"), "").unwrap();
                mode(mine, bits);
                link(&mine.join("own"), mine.join("s"))
            };
            assert_eq!(opened(in_folder), expected, "{bits:o}");
        }
        let of_another_group = |mine: &Path, _: &Path| {
            fs::write(mine.join("own"), "").unwrap();
            chown(mine, None, Some(OTHER)).unwrap();
            mode(mine, 0o775);
            link(&mine.join("own"), mine.join("s"))
        };
        assert_eq!(opened(of_another_group), refused("STATE is a link that another user could have made"));
        let folder_link = |mine: &Path, victim: &Path| {
            mode(mine, 0o777);
            link(victim.parent().unwrap(), mine.join("folder")).join("new.db")
        };
        assert_eq!(opened(folder_link), refused("DIR/mine/folder is a link that another user could have made"));
        let safe_folder = |mine: &Path, _: &Path| {
            fs::create_dir(mine.join("real")).unwrap();
            link(Path::new("./real/../real"), mine.join("folder")).join("new.db")
        };
        assert_eq!(opened(safe_folder), ("opened".to_owned(), true));
        let round = |mine: &Path, _: &Path| link(&mine.join("s"), mine.join("s"));
        assert_eq!(opened(round).0, "cannot open the state in STATE");
        let pipe = |mine: &Path, _: &Path| {
            let at = mine.join("s");
            rustix::fs::mkfifoat(CWD, &at, Mode::RUSR | Mode::WUSR).unwrap();
            at
        };
        assert_eq!(opened(pipe), refused("it is not a regular file"));
        for suffix in ["-wal", "-shm", "-journal"] {
            let companion = |is_link: bool| {
                move |mine: &Path, victim: &Path| {
                    let at = mine.join("s");
                    fs::write(&at, "").unwrap();
                    match is_link {
                        true => symlink(victim, mine.join(format!("s{suffix}"))).unwrap(),
                        false => fs::hard_link(victim, mine.join(format!("s{suffix}"))).unwrap(),
                    }
                    at
                }
            };
            let expected = refused(&format!("STATE{suffix} belongs to another user"));
            assert_eq!((opened(companion(true)), opened(companion(false))), (expected.clone(), expected));
        }
    }

    /// Root may use a state that another user created.
    #[test]
    fn a_valid_state_of_another_user_is_used() {
        assert!(is_root(), "these tests give files to another user, which takes root");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        chown(&path, Some(OTHER), None).unwrap();
        let store = Store::open(&path).unwrap();
        drop(store.hold("engine", "default").unwrap());
        let lock = fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .find(|file| file.path().extension() == Some(OsStr::new("lock")));
        chown(lock.unwrap().path(), Some(OTHER), None).unwrap();
        drop(store.hold("engine", "default").unwrap());
    }

    /// A lock file that another user put in place is not written to.
    #[test]
    fn lock_files_of_others_and_links_are_rejected() {
        assert!(is_root(), "these tests give files to another user, which takes root");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let store = Store::open(&path).unwrap();
        drop(store.hold("engine", "default").unwrap());
        let found = fs::read_dir(dir.path()).unwrap().flatten().map(|file| file.path());
        let lock = found.into_iter().find(|file| file.extension() == Some(OsStr::new("lock"))).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        chown(&victim, Some(OTHER), None).unwrap();
        let expected = format!("cannot lock {}", lock.display());
        for is_link in [true, false] {
            fs::remove_file(&lock).unwrap();
            if is_link { symlink(&victim, &lock) } else { fs::hard_link(&victim, &lock) }.unwrap();
            assert_eq!(store.hold("engine", "default").err().unwrap().to_string(), expected);
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
        }
    }
}

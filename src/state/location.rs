//! Where a state file really lies, and whether what lies there may be used.
//!
//! In: the path that a user gave. Out: the same without links, or why not. Called by [`super::schema`] before anything is
//! written, and by [`super::lock`]. Whoever may write to a folder on the way can plant a link there, and have us, who may
//! be root, make a database of somebody else's file. So a link counts only if nobody but root and us could have made it,
//! an empty file only if it is ours, and what SQLite keeps beside a database only if it belongs to whom that belongs to.
//! A state of another user that proves to be one may be used as ever: who owns it can harm nothing but it.

use super::error::Error;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, statat};
use rustix::process::{getegid, geteuid};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Links on the way to one file; the kernel follows as many.
const LINKS: usize = 40;

/// The path without links. What is missing at its end may be made there.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source: io::Error| Error::Unopened { path: path.to_owned(), source: source.into() };
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
            // Nothing is there, or we may not look: opening it will tell.
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
            return Err(untrusted(path, format!("{} is a link that another user can have made", next.display())));
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

/// Refuses a file that is there and must not be written to. `path` is what the user calls it, `real` where it lies.
pub(super) fn check(path: &Path, real: &Path) -> Result<(), Error> {
    let Ok(status) = lstat(real) else { return Ok(()) };
    let is_ours = status.st_uid == geteuid().as_raw();
    match kind(&status) {
        FileType::RegularFile => {}
        // SQLite says what is wrong with it.
        FileType::Directory => return Ok(()),
        _ => return Err(untrusted(path, "it is no regular file".to_owned())),
    }
    if !is_ours && path != real && lstat(path).is_ok_and(|given| kind(&given) == FileType::Symlink) {
        return Err(untrusted(path, "it is a link to a file of another user".to_owned()));
    }
    if !is_ours && status.st_size == 0 {
        return Err(untrusted(path, "it is an empty file of another user".to_owned()));
    }
    for end in ["-wal", "-shm", "-journal"] {
        let mut beside = real.as_os_str().to_owned();
        beside.push(end);
        if let Ok(found) = lstat(Path::new(&beside))
            && !is_trusted(&found, status.st_uid)
        {
            return Err(untrusted(path, format!("{} belongs to another user", Path::new(&beside).display())));
        }
    }
    Ok(())
}

/// Opens a file beside a state file, and makes it where `flags` say so. It is not followed where it is a link, not waited
/// for, and refused where it belongs to somebody else.
pub fn open_beside(state: &Path, path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let owner = statat(CWD, state, AtFlags::empty()).map_or(geteuid().as_raw(), |status| status.st_uid);
    match is_trusted(&fstat(&file)?, owner) {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user")),
    }
}

/// Whether it is a file of the state's owner, of ours or of root's.
fn is_trusted(status: &Stat, owner: u32) -> bool {
    kind(status) == FileType::RegularFile && [0, geteuid().as_raw(), owner].contains(&status.st_uid)
}

/// Whether nobody but root and us can have made a link, and nobody else can put another in its place.
fn is_safe_link(link: &Stat, folder: &Stat) -> bool {
    let is_known = |status: &Stat| [0, geteuid().as_raw()].contains(&status.st_uid);
    let mode = Mode::from_raw_mode(folder.st_mode);
    let by_others = mode.contains(Mode::WOTH) || mode.contains(Mode::WGRP) && folder.st_gid != getegid().as_raw();
    // In a sticky folder, such as /tmp, nobody replaces what belongs to others.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Store;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    /// Of any user that is neither root nor us.
    const OTHER: u32 = 4711;

    /// Runs as root, who can give files away. Returns what the store says, and whether the victim's file stayed empty.
    fn opened(prepare: impl FnOnce(&Path, &Path) -> PathBuf) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("mine");
        let victim = dir.path().join("victim");
        fs::create_dir(&mine).unwrap();
        fs::write(&victim, "").unwrap();
        chown(&victim, Some(OTHER), None).unwrap();
        let path = prepare(&mine, &victim);
        let looked = Store::look(&path).err().map(|error| error.to_string());
        let told = match Store::open(&path) {
            Ok(_) => "opened".to_owned(),
            Err(error) => {
                assert!(looked.is_none_or(|looked| looked == error.to_string()), "{error}");
                error.to_string()
            }
        };
        let told = told.replace(path.to_str().unwrap(), "STATE").replace(dir.path().to_str().unwrap(), "DIR");
        (told, fs::metadata(victim).unwrap().len() == 0)
    }

    fn is_root() -> bool {
        geteuid().is_root()
    }

    /// Somebody else's file never becomes a database, whatever leads there.
    #[test]
    fn a_link_of_others_or_a_file_of_others_is_refused_and_left_alone() {
        assert!(is_root(), "these tests give files away, which takes root");
        let refused = |reason: &str| (format!("the state in STATE is not used: {reason}"), true);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let link = |target: &Path, at: PathBuf| {
            symlink(target, &at).unwrap();
            at
        };
        assert_eq!(
            opened(|mine, victim| link(victim, mine.join("s"))),
            refused("it is a link to a file of another user")
        );
        assert_eq!(opened(|_, victim| victim.to_owned()), refused("it is an empty file of another user"));
        let by_other = |mine: &Path, _: &Path| {
            fs::write(mine.join("own"), "").unwrap();
            let at = link(&mine.join("own"), mine.join("s"));
            lchown(&at, Some(OTHER), None).unwrap();
            at
        };
        assert_eq!(opened(by_other), refused("STATE is a link that another user can have made"));
        for (bits, told) in [
            (0o777, refused("STATE is a link that another user can have made")),
            (0o775, ("opened".to_owned(), true)),
            (0o1777, ("opened".to_owned(), true)),
            (0o755, ("opened".to_owned(), true)),
        ] {
            let in_folder = |mine: &Path, _: &Path| {
                fs::write(mine.join("own"), "").unwrap();
                mode(mine, bits);
                link(&mine.join("own"), mine.join("s"))
            };
            assert_eq!(opened(in_folder), told, "{bits:o}");
        }
        let of_another_group = |mine: &Path, _: &Path| {
            fs::write(mine.join("own"), "").unwrap();
            chown(mine, None, Some(OTHER)).unwrap();
            mode(mine, 0o775);
            link(&mine.join("own"), mine.join("s"))
        };
        assert_eq!(opened(of_another_group), refused("STATE is a link that another user can have made"));
        let folder_link = |mine: &Path, victim: &Path| {
            mode(mine, 0o777);
            link(victim.parent().unwrap(), mine.join("folder")).join("new.db")
        };
        assert_eq!(opened(folder_link), refused("DIR/mine/folder is a link that another user can have made"));
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
        assert_eq!(opened(pipe), refused("it is no regular file"));
        for end in ["-wal", "-shm", "-journal"] {
            let beside = |is_link: bool| {
                move |mine: &Path, victim: &Path| {
                    let at = mine.join("s");
                    fs::write(&at, "").unwrap();
                    match is_link {
                        true => symlink(victim, mine.join(format!("s{end}"))).unwrap(),
                        false => fs::hard_link(victim, mine.join(format!("s{end}"))).unwrap(),
                    }
                    at
                }
            };
            let told = refused(&format!("STATE{end} belongs to another user"));
            assert_eq!((opened(beside(true)), opened(beside(false))), (told.clone(), told));
        }
    }

    /// What a user has made, root may go on with.
    #[test]
    fn a_state_of_another_user_that_is_one_is_used_as_ever() {
        assert!(is_root(), "these tests give files away, which takes root");
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

    /// A lock is not written into what somebody else has put in its place.
    #[test]
    fn a_lock_that_belongs_to_others_or_is_a_link_is_refused() {
        assert!(is_root(), "these tests give files away, which takes root");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let store = Store::open(&path).unwrap();
        drop(store.hold("engine", "default").unwrap());
        let found = fs::read_dir(dir.path()).unwrap().flatten().map(|file| file.path());
        let lock = found.into_iter().find(|file| file.extension() == Some(OsStr::new("lock"))).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        chown(&victim, Some(OTHER), None).unwrap();
        let told = format!("cannot lock {}", lock.display());
        for is_link in [true, false] {
            fs::remove_file(&lock).unwrap();
            if is_link { symlink(&victim, &lock) } else { fs::hard_link(&victim, &lock) }.unwrap();
            assert_eq!(store.hold("engine", "default").err().unwrap().to_string(), told);
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
        }
    }
}

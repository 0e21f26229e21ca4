//! Shows whether a log has changed, without reading it.
//!
//! In: a container's folder. Out: a value that differs after a write or a rotation. Used by
//! `commands::stream`, which requests a log only after this value has changed.

use super::decode::format::LogLocation;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode number and size of each possible log file of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogStat([Option<(u64, u64)>; 3]);

impl LogStat {
    /// Reads the state of the log in a container's folder. `None` if there is no accessible log file.
    pub(crate) fn of(folder: &Path, id: &str) -> Option<LogStat> {
        let found = LogLocation::all(folder, id)
            .map(|LogLocation { live: file, .. }| file.symlink_metadata().ok().filter(Metadata::is_file));
        let found = found.map(|file| file.map(|file| (file.ino(), file.len())));
        found.iter().any(Option::is_some).then_some(LogStat(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_writes_and_rotations_change_the_stat() {
        let folder = tempfile::tempdir().unwrap();
        let stat = || LogStat::of(folder.path(), "web");
        assert_eq!(stat(), None);
        for file in ["web-json.log", "local-logs/container.log", "container-cached.log"] {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "one").unwrap();
            let before = stat();
            assert!(before.is_some() && stat() == before);
            fs::write(&file, "one, two").unwrap();
            assert_ne!(stat(), before);
            let grown = stat();
            fs::rename(&file, file.with_extension("1")).unwrap();
            fs::write(&file, "one, two").unwrap();
            assert_ne!(stat(), grown, "another file of the same length");
        }
    }
}

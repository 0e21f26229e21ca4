//! What can be told of a log without reading it.
//!
//! In: a container's folder. Out: a value that is another one when something was written. Called by the engine room, which
//! asks the engine only when this has changed.

use super::decode::format::Spot;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which files a log has, and how long each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStat([Option<(u64, u64)>; 3]);

impl LogStat {
    /// Looks at the log in a container's folder; `None` when there is none that may be looked at.
    pub fn of(folder: &Path, id: &str) -> Option<LogStat> {
        let found =
            Spot::all(folder, id).map(|Spot { live: file, .. }| file.symlink_metadata().ok().filter(Metadata::is_file));
        let found = found.map(|file| file.map(|file| (file.ino(), file.len())));
        found.iter().any(Option::is_some).then_some(LogStat(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_changes_with_every_write_and_rotation_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let look = || LogStat::of(folder.path(), "web");
        assert_eq!(look(), None);
        for file in ["web-json.log", "local-logs/container.log", "container-cached.log"] {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "one").unwrap();
            let before = look();
            assert!(before.is_some() && look() == before);
            fs::write(&file, "one, two").unwrap();
            assert_ne!(look(), before);
            let grown = look();
            fs::rename(&file, file.with_extension("1")).unwrap();
            fs::write(&file, "one, two").unwrap();
            assert_ne!(look(), grown, "another file of the same length");
        }
    }
}

//! Recognises a file that was seen before, even after a reboot or on another device node.
//!
//! In: an open file. Out: a [`FileId`], which is kept in memory or in the state and compared with that of a file found
//! later. Used for log files and for the output file.
//!
//! The device number (`st_dev`) is not part of the ID, because it identifies a device node and not a file system: a
//! loop device may get another number, disks are found in another order at boot, and btrfs, NFS and overlayfs take the
//! next free number at each mount. While a file is open, its device and inode number identify it exactly. Afterwards
//! only what is stored on the disk does.
//!
//! A file system may give the inode number of a removed file to a new one, often at once. The birth time distinguishes
//! the two. Where neither is enough, the answer is [`Likeness::Unsure`], and the caller compares the content.

use super::time::Timestamp;
use rustix::fd::AsFd;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What identifies a file from one run to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// The ID of the file system, if it stays the same from one mount to the next (ext, btrfs, tmpfs).
    pub filesystem: Option<u64>,
    pub inode: u64,
    /// When the file was created, if the file system records it.
    pub born: Option<Timestamp>,
}

/// Whether two IDs belong to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    Same,
    Other,
    /// Only the content can decide. A caller that has no content to compare should assume one file only where
    /// a mistake is harmless.
    Unsure,
}

impl FileId {
    /// The ID of an open file with this metadata.
    pub fn with(file: impl AsFd, metadata: &Metadata) -> FileId {
        FileId { filesystem: filesystem(file), inode: metadata.ino(), born: born(metadata) }
    }

    /// Compares two IDs. The first row that applies decides:
    ///
    /// | inode     | birth time       | file system ID   | result   |
    /// |-----------|------------------|------------------|----------|
    /// | different |                  |                  | `Other`  |
    /// | equal     | different        |                  | `Other`  |
    /// | equal     | equal            | different        | `Unsure` |
    /// | equal     | equal            | equal or unknown | `Same`   |
    /// | equal     | unknown          | different        | `Other`  |
    /// | equal     | unknown          | equal or unknown | `Unsure` |
    ///
    /// "Unknown" means that at least one of the two lacks the value. The third row is a clone of a disk with a new
    /// file system ID, or two file systems that a reproducible build filled with files of one time. In the last row
    /// the inode number may have been given to a new file.
    pub fn likeness(&self, other: &FileId) -> Likeness {
        let differ = |pair: Option<(u64, u64)>| pair.map(|(this, other)| this != other);
        let has_other_filesystem = differ(self.filesystem.zip(other.filesystem)) == Some(true);
        let has_same_birth = self.born.zip(other.born).map(|(this, other)| this == other);
        match (self.inode == other.inode, has_same_birth) {
            (false, _) | (true, Some(false)) => Likeness::Other,
            (true, Some(true)) if has_other_filesystem => Likeness::Unsure,
            (true, Some(true)) => Likeness::Same,
            (true, None) if has_other_filesystem => Likeness::Other,
            (true, None) => Likeness::Unsure,
        }
    }
}

/// When a file was created, if its file system records it.
pub(crate) fn born(metadata: &Metadata) -> Option<Timestamp> {
    let born = metadata.created().ok().and_then(Timestamp::of)?;
    // File systems that have the field but no value for it leave it at zero.
    (born > Timestamp(0)).then_some(born)
}

fn filesystem(file: impl AsFd) -> Option<u64> {
    // A sandbox may refuse these calls; the file then has no file system ID.
    let kind = rustix::fs::fstatfs(&file).ok()?.f_type;
    let id = rustix::fs::fstatvfs(&file).ok()?.f_fsid;
    // The kernel reports zero for "none".
    (keeps_its_id(u64::try_from(kind).ok()?) && id != 0).then_some(id)
}

/// The magic numbers of statfs(2).
mod magic {
    pub(crate) const EXT: u64 = 0xef53;
    pub(crate) const BTRFS: u64 = 0x9123_683e;
    pub(crate) const TMPFS: u64 = 0x0102_1994;
}

/// Whether `f_fsid` of this kind of file system is known to stay the same from mount to mount:
///
/// - ext2, ext3, ext4: made from the UUID on the disk.
/// - btrfs: made from the UUID on the disk and the number of the subvolume.
/// - tmpfs: random (zero before Linux 5.12), and its files do not outlive the mount.
///
/// XFS, f2fs, FAT, exFAT, NTFS and squashfs return the device number instead, overlayfs returns the ID of the file
/// system below it, and NFS and FUSE return zero.
fn keeps_its_id(kind: u64) -> bool {
    [magic::EXT, magic::BTRFS, magic::TMPFS].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    fn id(filesystem: Option<u64>, inode: u64, born: Option<i64>) -> FileId {
        FileId { filesystem, inode, born: born.map(Timestamp) }
    }

    /// Pins the whole decision: every combination of known, unknown, equal and different parts, in both directions.
    #[test]
    fn likeness_follows_inode_then_birth_then_file_system() {
        let this = id(Some(1), 7, Some(100));
        for (one, two, expected) in [
            (this, this, Likeness::Same),
            (this, id(None, 7, Some(100)), Likeness::Same),
            (id(None, 7, Some(100)), id(None, 7, Some(100)), Likeness::Same),
            (this, id(Some(2), 7, Some(100)), Likeness::Unsure),
            (this, id(Some(1), 7, Some(101)), Likeness::Other),
            (this, id(Some(2), 7, Some(101)), Likeness::Other),
            (this, id(None, 7, Some(101)), Likeness::Other),
            (this, id(Some(1), 7, None), Likeness::Unsure),
            (this, id(None, 7, None), Likeness::Unsure),
            (this, id(Some(2), 7, None), Likeness::Other),
            (id(Some(1), 7, None), id(Some(1), 7, None), Likeness::Unsure),
            (id(Some(1), 7, None), id(Some(2), 7, None), Likeness::Other),
            (id(None, 7, None), id(None, 7, None), Likeness::Unsure),
            (this, id(Some(1), 8, Some(100)), Likeness::Other),
            (this, id(None, 8, None), Likeness::Other),
            (id(None, 7, None), id(None, 8, None), Likeness::Other),
        ] {
            assert_eq!(one.likeness(&two), expected, "{one:?} {two:?}");
            assert_eq!(two.likeness(&one), expected, "{two:?} {one:?}");
        }
    }

    /// Pins which file systems have a trusted ID.
    #[test]
    fn only_ids_derived_from_the_disk_are_trusted() {
        let (ext, btrfs, tmpfs) = (0xef53, 0x9123_683e, 0x0102_1994);
        let (xfs, overlay, nfs, fuse, fat) = (0x5846_5342, 0x794c_7630, 0x6969, 0x6573_5546, 0x4d44);
        for (kind, is_trusted) in [
            (ext, true),
            (btrfs, true),
            (tmpfs, true),
            (xfs, false),
            (overlay, false),
            (nfs, false),
            (fuse, false),
            (fat, false),
            (0, false),
        ] {
            assert_eq!(keeps_its_id(kind), is_trusted, "{kind:x}");
        }
    }

    /// A file keeps its ID through writes and renames, and its successor under the same name has another one.
    #[test]
    fn writing_and_renaming_keep_the_id_and_replacing_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let id_of = |file: &File| FileId::with(file, &file.metadata().unwrap());
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        fs::write(&path, "one").unwrap();
        let open = File::open(&path).unwrap();
        let first = id_of(&open);
        fs::write(&path, "two, and longer").unwrap();
        fs::rename(&path, &moved).unwrap();
        assert_eq!(id_of(&File::open(&moved).unwrap()), first);
        fs::write(&path, "one").unwrap();
        let successor = id_of(&File::open(&path).unwrap());
        assert_eq!(successor.likeness(&first), Likeness::Other);
        assert_eq!(successor.filesystem, first.filesystem);
    }
}

//! An ext4 file system in an image file behind a loop device, which can move to another device number and lose power.
//!
//! It lies below an engine's home, so the end of the engine unmounts it; the kernel releases the loop device with the
//! last mount.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Engine;

/// The size of a disk for an engine's data, in MiB. The image is sparse.
const DATA: u64 = 512;

/// A mounted file system.
pub struct Disk {
    image: PathBuf,
    path: PathBuf,
}

impl Disk {
    /// An empty disk of `size` MiB, mounted at `name` below the engine's home.
    pub fn new(engine: &Engine, name: &str, size: u64) -> Self {
        Self::at(engine.home().join(name), size, &[])
    }

    /// Moves the engine's data to a disk of their own. The engine runs again when this returns.
    pub fn under(engine: &Engine) -> Self {
        Self::made_under(engine, &[])
    }

    /// The same on a file system that does not record when a file was created.
    pub fn without_births_under(engine: &Engine) -> Self {
        Self::made_under(engine, &["-I", "128"])
    }

    fn made_under(engine: &Engine, options: &[&str]) -> Self {
        engine.stop();
        let before = engine.home().join("data-before");
        fs::rename(engine.data(), &before).unwrap();
        let disk = Self::at(engine.data(), DATA, options);
        run(Command::new("cp").arg("-a").arg(before.join(".")).arg(engine.data()));
        engine.up();
        disk
    }

    fn at(path: PathBuf, size: u64, options: &[&str]) -> Self {
        let disk = Disk { image: path.with_extension("img"), path };
        fs::create_dir(&disk.path).unwrap();
        File::create(&disk.image).unwrap().set_len(size << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).args(options).arg(&disk.image));
        disk.mount(&disk.attach());
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it with another device number. Nothing may be open on it; an engine whose data it holds is stopped.
    pub fn move_to_another_device(&self) {
        self.sync();
        self.remount(&[]);
    }

    /// The same while somebody has files open there.
    pub fn move_to_another_device_in_use(&self) {
        self.sync();
        self.remount(&["--lazy"]);
    }

    /// From now on nothing reaches it that was not synced before: neither data nor the file system's own journal.
    pub fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (linux fs/ext4/ext4.h).
        let script = r#"open(F, "<", $ARGV[0]) or die "open: $!"; my $how = pack("L", 2);
            defined(ioctl(F, 0x8004587d, $how)) or die "ioctl: $!";"#;
        run(Command::new("perl").args(["-e", script]).arg(&self.path));
    }

    /// After [`Disk::cut_power`]: mounts it again, with another device number and what had reached it.
    pub fn restore_power(&self) {
        self.remount(&[]);
    }

    /// Writes everything, and prevents further writes. The file system outlives its mount while a file is open on it,
    /// or while a container that any engine starts holds a copy of all mounts.
    fn sync(&self) {
        // A killed engine leaves mounts of its own below it.
        let inner = super::mounts(&self.path);
        if !inner.is_empty() {
            run(Command::new("umount").arg("--lazy").args(inner));
        }
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path));
    }

    fn remount(&self, options: &[&str]) {
        let number = || fs::metadata(&self.path).unwrap().dev();
        let before = number();
        // Attached before the other one is released, so that it gets another number.
        let device = self.attach();
        run(Command::new("umount").args(options).arg(&self.path));
        // The kernel may have read ahead of what was written through the other device.
        run(Command::new("blockdev").args(["--flushbufs", &device]));
        self.mount(&device);
        assert_ne!(number(), before, "the disk has the device number that it had");
    }

    fn attach(&self) -> String {
        run(Command::new("losetup").args(["--find", "--show"]).arg(&self.image)).trim().to_owned()
    }

    fn mount(&self, device: &str) {
        run(Command::new("mount").arg(device).arg(&self.path));
        // The kernel postpones this until the device is unmounted.
        run(Command::new("losetup").args(["--detach", device]));
    }
}

/// Runs a command that must succeed; returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let need = "this test needs root, loop devices (/dev/loop-control, the kernel module `loop`) and mkfs.ext4";
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {need}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}; {need}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

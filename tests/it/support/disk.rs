//! A file system of its own for an engine's data, which can be moved from one device number to another.
//!
//! In: a running engine. Out: its data on an ext4 image behind a loop device, mounted where it was before. The engine's
//! end unmounts it, and with the last mount the kernel releases the device.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::Engine;

/// Room for a few containers' logs. The file is sparse.
const SIZE: u64 = 512 << 20;

/// See the module.
pub struct Disk<'a> {
    engine: &'a Engine,
    image: PathBuf,
}

impl<'a> Disk<'a> {
    /// Moves what the engine has to a disk of its own. The engine runs again when this returns.
    pub fn under(engine: &'a Engine) -> Self {
        Self::made_with(&[], engine)
    }

    /// The same on a file system that does not record when a file was created.
    pub fn without_births_under(engine: &'a Engine) -> Self {
        Self::made_with(&["-I", "128"], engine)
    }

    fn made_with(options: &[&str], engine: &'a Engine) -> Self {
        let disk = Disk { engine, image: engine.home().join("disk.img") };
        File::create(&disk.image).unwrap().set_len(SIZE).unwrap();
        must(Command::new("mkfs.ext4").args(["-q", "-F"]).args(options).arg(&disk.image));
        engine.stop();
        let aside = engine.home().join("data-before");
        fs::rename(engine.data(), &aside).unwrap();
        fs::create_dir(engine.data()).unwrap();
        disk.mount();
        must(Command::new("cp").arg("-a").arg(aside.join(".")).arg(engine.data()));
        engine.up();
        disk
    }

    /// The number of the device that the engine's data are on now.
    pub fn device(&self) -> u64 {
        fs::metadata(self.engine.data()).unwrap().dev()
    }

    /// Unmounts the data of an engine that is down, and mounts the same disk with another device number.
    pub fn move_to_another_device(&self) {
        self.remount(&[]);
    }

    /// The same while somebody has files open there.
    pub fn move_to_another_device_in_use(&self) {
        self.remount(&["--lazy"]);
    }

    fn remount(&self, how: &[&str]) {
        let before = self.device();
        // Attached before the other is released, so that it is another one.
        let device = self.attach();
        // The engine leaves mounts of its own below it when it is killed.
        let inner = super::mounts(&self.engine.data());
        if !inner.is_empty() {
            must(Command::new("umount").arg("--lazy").args(inner));
        }
        // The file system outlives this mount while a file is open on it, or while a container that any engine starts holds
        // a copy of all mounts. So whatever is unwritten goes to the disk now, and nothing does afterwards.
        must(Command::new("mount").args(["-o", "remount,ro"]).arg(self.engine.data()));
        must(Command::new("umount").args(how).arg(self.engine.data()));
        // The kernel may have read ahead of what was written by way of the other device.
        must(Command::new("blockdev").args(["--flushbufs", &device]));
        self.mount_from(&device);
        assert_ne!(self.device(), before, "the disk has the device number that it had");
    }

    fn mount(&self) {
        self.mount_from(&self.attach());
    }

    fn attach(&self) -> String {
        let device = must(Command::new("losetup").args(["--find", "--show"]).arg(&self.image));
        device.trim().to_owned()
    }

    fn mount_from(&self, device: &str) {
        must(Command::new("mount").arg(device).arg(self.engine.data()));
        // The kernel waits with this until the device is unmounted.
        must(Command::new("losetup").args(["--detach", device]));
    }
}

#[track_caller]
pub(super) fn must(command: &mut Command) -> String {
    let need = "this test needs root, loop devices (/dev/loop-control, the kernel module `loop`) and mkfs.ext4";
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {need}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {told}; {need}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

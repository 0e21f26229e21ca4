//! A volume for what a run writes: an ext4 file system in an image, which can lose power and move to another device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Engine;
use super::disk::must;

/// Mounted at [`Volume::path`] until it is dropped.
pub struct Volume {
    image: PathBuf,
    path: PathBuf,
    device: String,
}

#[track_caller]
fn run(program: &str, words: &[&str]) -> String {
    must(Command::new(program).args(words)).trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Volume {
    /// An empty one of so many MiB.
    pub fn new(engine: &Engine, name: &str, size: u64) -> Self {
        let (image, path) = (engine.home().join(name).with_extension("img"), engine.home().join(name));
        fs::create_dir(&path).unwrap();
        File::create(&image).unwrap().set_len(size << 20).unwrap();
        run("mkfs.ext4", &["-q", text(&image)]);
        let device = attach(&image);
        let disk = Volume { image, path, device };
        disk.mount();
        disk
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn mount(&self) {
        run("mount", &[&self.device, text(&self.path)]);
    }

    fn unmount(&self) {
        run("umount", &[text(&self.path)]);
        run("losetup", &["-d", &self.device]);
    }

    /// From now on nothing reaches it that was not synced before: neither data nor the file system's own journal.
    pub fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (linux fs/ext4/ext4.h).
        let script = r#"open(F, "<", $ARGV[0]) or die "open: $!"; my $how = pack("L", 2);
            defined(ioctl(F, 0x8004587d, $how)) or die "ioctl: $!";"#;
        run("perl", &["-e", script, text(&self.path)]);
    }

    /// Takes it away and brings it back as another device, so that `st_dev` of its files is another one.
    pub fn move_to_another_device(&mut self) {
        let before = self.device.clone();
        self.unmount();
        // Whoever takes the old number meanwhile only helps.
        let holder = self.image.with_extension("holder");
        File::create(&holder).unwrap().set_len(1 << 20).unwrap();
        let held = Command::new("losetup").args([&before, text(&holder)]).status().unwrap();
        self.device = attach(&self.image);
        assert_ne!(self.device, before);
        self.mount();
        if held.success() {
            run("losetup", &["-d", &before]);
        }
    }
}

fn attach(image: &Path) -> String {
    run("losetup", &["-f", "--show", text(image)])
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", text(&self.path)]).output();
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
    }
}

//! Writes the log files of one container as the engine does, and knows which records each of them holds.
//!
//! The order of steps is that of moby `daemon/logger/loggerutils/logfile.go`, the bytes are those of the drivers
//! `jsonfilelog` and `local`.

use flate2::{Compression, GzBuilder};
use logwatch::internals::model::{Stream, Timestamp};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The log driver, or the cache that the engine keeps for a driver that cannot be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    JsonFile,
    Local,
    Cache,
}

/// The log options of a container.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub driver: Driver,
    /// In bytes: once the file is larger, the next record goes to a new file.
    pub max_size: u64,
    pub max_file: u32,
    pub compress: bool,
    /// With `max_file` 1: removes the full file, as engines from 23 on do, instead of renaming it.
    pub unlinks: bool,
}

/// One piece of a line, as the driver receives it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub stream: Stream,
    pub time: Timestamp,
    pub text: &'a [u8],
    /// Counted from 1 among the pieces of a line that was split.
    pub ordinal: Option<u32>,
    /// The piece ends with a newline.
    pub ends: bool,
}

/// The name of a file in the log's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Live,
    Plain(u32),
    Packed(u32),
}

/// A file, numbered in the order of creation.
pub type Id = usize;

/// The content of a file, under whatever name.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The numbers of its records.
    pub records: Vec<usize>,
    /// It was created by somebody other than the engine.
    pub is_copy: bool,
}

/// One step of a rotation. The reader may look between any two steps.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Pack,
    Close,
    Remove(Name),
    Rename(Name, Name),
    Create,
}

/// The progress of compressing `.1`, which goes on while new records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Nothing,
    Due,
    Begun,
    Packed,
}

struct Writer {
    file: File,
    id: Id,
    /// The size as the engine counts it, regardless of what others did to the file.
    size: u64,
}

pub struct Engine {
    options: Options,
    live: PathBuf,
    pub files: Vec<Content>,
    pub names: BTreeMap<Name, Id>,
    writer: Option<Writer>,
    packing: Packing,
    last: Timestamp,
    /// The modification time of written files; without it, the system's clock stamps them.
    pub clock: Option<Timestamp>,
}

impl Engine {
    pub fn new(container: &Path, id: &str, options: Options) -> Self {
        let live = match options.driver {
            Driver::JsonFile => container.join(format!("{id}-json.log")),
            Driver::Local => container.join("local-logs/container.log"),
            Driver::Cache => container.join("container-cached.log"),
        };
        let (files, names) = (Vec::new(), BTreeMap::new());
        Engine { options, live, files, names, writer: None, packing: Packing::Nothing, last: Timestamp(0), clock: None }
    }

    pub fn is_running(&self) -> bool {
        self.writer.is_some()
    }

    /// The container starts: the engine continues in the existing file.
    pub fn start(&mut self) {
        if let Some(folder) = self.live.parent() {
            fs::create_dir_all(folder).unwrap();
        }
        let file = OpenOptions::new().append(true).create(true).open(&self.live).unwrap();
        let id = self.names.get(&Name::Live).copied().unwrap_or_else(|| self.add(&file));
        self.names.insert(Name::Live, id);
        let size = file.metadata().unwrap().len();
        self.writer = Some(Writer { file, id, size });
    }

    /// The container dies.
    pub fn stop(&mut self) {
        self.writer = None;
    }

    fn add(&mut self, file: &File) -> Id {
        self.stamp(file);
        self.files.push(Content::default());
        self.files.len() - 1
    }

    /// The file that is being written but has lost its name.
    pub fn hidden(&self) -> Option<Id> {
        self.writer.as_ref().map(|writer| writer.id).filter(|id| self.names.get(&Name::Live) != Some(id))
    }

    pub fn must_rotate(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.size >= self.options.max_size)
    }

    pub fn is_empty(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.size == 0)
    }

    /// The steps of a rotation that begins now.
    pub fn rotation(&self) -> Vec<Step> {
        let numbered = |number| if self.options.compress { Name::Packed(number) } else { Name::Plain(number) };
        let mut steps = vec![Step::Pack; 3];
        steps.push(Step::Close);
        match self.options.max_file {
            1 if self.options.unlinks => steps.push(Step::Remove(Name::Live)),
            1 => steps.push(Step::Rename(Name::Live, Name::Plain(1))),
            most => {
                steps.push(Step::Remove(numbered(most - 1)));
                steps.extend((2..most).rev().map(|to| Step::Rename(numbered(to - 1), numbered(to))));
                steps.push(Step::Rename(Name::Live, Name::Plain(1)));
            }
        }
        steps.push(Step::Create);
        steps
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Pack => drop(self.pack()),
            Step::Close => self.writer = None,
            Step::Remove(name) => self.remove(name),
            Step::Rename(from, to) => {
                // A missing file is skipped.
                if let Some(id) = self.names.remove(&from) {
                    fs::rename(self.path(from), self.path(to)).unwrap();
                    self.names.insert(to, id);
                }
            }
            Step::Create => {
                let file =
                    OpenOptions::new().write(true).create(true).truncate(true).open(self.path(Name::Live)).unwrap();
                let id = self.add(&file);
                self.names.insert(Name::Live, id);
                self.writer = Some(Writer { file, id, size: 0 });
                if self.options.compress && self.options.max_file > 1 && self.names.contains_key(&Name::Plain(1)) {
                    self.packing = Packing::Due;
                }
            }
        }
    }

    /// Does one step of compressing `.1`; returns whether there was one.
    pub fn pack(&mut self) -> bool {
        let (plain, packed) = (self.path(Name::Plain(1)), self.path(Name::Packed(1)));
        let begin = || OpenOptions::new().write(true).create(true).truncate(true).open(&packed).unwrap();
        self.packing = match self.packing {
            Packing::Nothing => return false,
            Packing::Due => {
                drop(begin());
                Packing::Begun
            }
            Packing::Begun => {
                let time = self.last.written();
                let extra = format!("{{\"lastTime\":\"{}\"}}", String::from_utf8_lossy(&time));
                let mut gzip = GzBuilder::new().extra(extra).write(begin(), Compression::fast());
                gzip.write_all(&fs::read(&plain).unwrap()).unwrap();
                self.stamp(&gzip.finish().unwrap());
                if let Some(id) = self.names.get(&Name::Plain(1)) {
                    self.names.insert(Name::Packed(1), *id);
                }
                Packing::Packed
            }
            Packing::Packed => {
                self.remove(Name::Plain(1));
                Packing::Nothing
            }
        };
        true
    }

    /// Appends a record, and calls `halfway` when its first half is written.
    pub fn write(&mut self, number: usize, record: Record<'_>, halfway: Option<&mut dyn FnMut()>) {
        let bytes = match self.options.driver {
            Driver::JsonFile => json_line(record),
            Driver::Local | Driver::Cache => entry(record),
        };
        let Some(mut writer) = self.writer.take() else { return };
        let (first, second) = bytes.split_at(if halfway.is_some() { bytes.len() / 2 } else { 0 });
        if let Some(halfway) = halfway {
            writer.file.write_all(first).unwrap();
            self.stamp(&writer.file);
            halfway();
        }
        writer.file.write_all(second).unwrap();
        self.stamp(&writer.file);
        writer.size += bytes.len() as u64;
        self.files[writer.id].records.push(number);
        self.last = record.time;
        self.writer = Some(writer);
    }

    fn stamp(&self, file: &File) {
        if let Some(clock) = self.clock {
            file.set_modified(written(clock)).unwrap();
        }
    }

    /// Somebody truncates the live file, whatever it holds.
    pub fn truncate(&mut self) -> Option<Id> {
        let id = *self.names.get(&Name::Live)?;
        self.stamp(&File::options().write(true).truncate(true).open(&self.live).unwrap());
        self.files[id].records.clear();
        Some(id)
    }

    /// `logrotate` with `copytruncate`, of which the engine knows nothing.
    pub fn copy_and_truncate(&mut self) -> Option<Id> {
        while self.pack() {}
        let id = *self.names.get(&Name::Live)?;
        let most = self.options.max_file.max(2);
        for name in [Name::Plain, Name::Packed] {
            self.remove(name(most - 1));
            for to in (2..most).rev() {
                self.take(Step::Rename(name(to - 1), name(to)));
            }
        }
        fs::copy(&self.live, self.path(Name::Plain(1))).unwrap();
        let file = File::options().write(true).open(self.path(Name::Plain(1))).unwrap();
        let copy = self.add(&file);
        self.files[copy].records = self.files[id].records.clone();
        self.files[copy].is_copy = true;
        self.names.insert(Name::Plain(1), copy);
        self.truncate()
    }

    /// Somebody removes a file; whoever has it open can still use it.
    pub fn remove(&mut self, name: Name) {
        if self.names.remove(&name).is_some() {
            fs::remove_file(self.path(name)).unwrap();
        }
    }

    /// The container is removed with all its files.
    pub fn remove_all(&mut self, container: &Path) {
        self.names.clear();
        self.packing = Packing::Nothing;
        fs::remove_dir_all(container).unwrap();
    }

    fn path(&self, name: Name) -> PathBuf {
        let mut path = self.live.clone().into_os_string();
        match name {
            Name::Live => {}
            Name::Plain(number) => path.push(format!(".{number}")),
            Name::Packed(number) => path.push(format!(".{number}.gz")),
        }
        path.into()
    }
}

fn written(time: Timestamp) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(time.0).unwrap())
}

fn json_line(record: Record<'_>) -> Vec<u8> {
    let mut line = b"{\"log\":\"".to_vec();
    for &byte in record.text {
        match byte {
            b'"' | b'\\' => line.extend([b'\\', byte]),
            b'<' | b'>' | b'&' | ..0x20 => write!(line, "\\u{byte:04x}").unwrap(),
            _ => line.push(byte),
        }
    }
    if record.ends {
        line.extend(b"\\n");
    }
    let time = String::from_utf8(record.time.written().to_vec()).unwrap();
    let time = time.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    writeln!(line, "\",\"stream\":\"{}\",\"time\":\"{time}Z\"}}", record.stream.name()).unwrap();
    line
}

fn entry(record: Record<'_>) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, 1, record.stream.name().as_bytes());
    number(&mut entry, 2, record.time.0.cast_unsigned());
    if !record.text.is_empty() {
        field(&mut entry, 3, record.text);
    }
    if let Some(ordinal) = record.ordinal {
        number(&mut entry, 4, 1);
        let mut metadata = Vec::new();
        if record.ends {
            number(&mut metadata, 1, 1);
        }
        field(&mut metadata, 2, format!("{:064x}", record.time.0).as_bytes());
        number(&mut metadata, 3, ordinal.into());
        field(&mut entry, 5, &metadata);
    }
    let length = u32::try_from(entry.len()).unwrap().to_be_bytes();
    [&length[..], &entry, &length].concat()
}

fn number(into: &mut Vec<u8>, field: u8, value: u64) {
    into.push(field << 3);
    varint(into, value);
}

fn field(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    into.push(field << 3 | 2);
    varint(into, bytes.len() as u64);
    into.extend(bytes);
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

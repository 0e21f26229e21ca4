//! The forms in which the engine keeps logs in files: where such a file lies, and where its records begin and end.
//!
//! In: a container's folder, or bytes of a file. Out: which file it is; records, decoded. Called by [`super::file`],
//! [`super::seek`] and [`super::handle`]; what one record holds is told by [`super::json_file`] and [`super::local`].
//! The names are those of moby `container/container.go` (`json-file`), `daemon/logger/local/local.go` and
//! `daemon/logger/loggerutils/cache/local_cache.go`: the cache has the form of the `local` driver, and is kept for
//! drivers that cannot be read back. A container's driver never changes, so it has one of them.

use super::{Piece, json_file, local};
use crate::time::Reader as Clock;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The folder in which the `local` driver keeps its files.
const LOCAL_FOLDER: &str = "local-logs";
const LOCAL: &str = "container.log";
const CACHE: &str = "container-cached.log";

const BLOCK: usize = 256 * 1024;

/// A form of log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Lines of JSON.
    JsonFile,
    /// Records between their lengths.
    Local,
}

/// A container's log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The file the engine writes now.
    pub(super) live: PathBuf,
    pub(super) format: Format,
}

impl Spot {
    /// All that there may be.
    pub(super) fn all(folder: &Path, id: &str) -> [Spot; 3] {
        let json_file = (folder.join(format!("{id}-json.log")), Format::JsonFile);
        let local = (folder.join(LOCAL_FOLDER).join(LOCAL), Format::Local);
        let cache = (folder.join(CACHE), Format::Local);
        [json_file, local, cache].map(|(live, format)| Spot { live, format })
    }

    /// The one that is there, if any is.
    pub(super) fn find(folder: &Path, id: &str) -> Option<Spot> {
        Spot::all(folder, id).into_iter().find(|spot| spot.live.symlink_metadata().is_ok())
    }

    /// Its folder, which is the container's own or one in it.
    pub(super) fn folder(&self) -> &Path {
        self.live.parent().unwrap_or(&self.live)
    }

    /// The name that the engine gives to each new file.
    pub(super) fn name(&self) -> OsString {
        self.live.file_name().unwrap_or_default().to_owned()
    }
}

/// Whether something of this name in a container's folder, or in the one within, may be or hold its log.
pub(super) fn is_log_name(name: &OsStr, id: &str) -> bool {
    let is_json_file = || name.to_str().and_then(|name| name.strip_suffix("-json.log")) == Some(id);
    name == LOCAL_FOLDER || name == LOCAL || name == CACHE || is_json_file()
}

/// Whether the engine has made a log file for this container, for the engine room to see which route to take.
pub fn has_log(folder: &Path, id: &str) -> bool {
    Spot::find(folder, id).is_some()
}

/// The folder within a container's that has to be watched as well, if it is there.
pub(super) fn inner_folder(folder: &Path) -> Option<PathBuf> {
    let inner = folder.join(LOCAL_FOLDER);
    inner.is_dir().then_some(inner)
}

/// A record among bytes: from where to where, its framing included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Format {
    /// Whether a file of this form can begin so.
    pub(super) fn begins_with(self, byte: u8) -> bool {
        match self {
            Format::JsonFile => byte == b'{',
            // No record is 16 MiB long.
            Format::Local => byte == 0,
        }
    }

    /// Where the first record of a file ends, if that much of it is there.
    pub(super) fn first_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Format::JsonFile => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Format::Local => match local::frame(bytes) {
                local::Frame::Whole(length) => Some(length),
                local::Frame::Part | local::Frame::Broken => None,
            },
        }
    }

    /// How many of the NULs at the start, which a truncated file has before its first record, are none of a record's.
    pub(super) fn nuls(self, bytes: &[u8]) -> usize {
        match self {
            Format::JsonFile => bytes.iter().take_while(|byte| **byte == 0).count(),
            // A record begins with one to three.
            Format::Local if bytes.starts_with(&[0; local::WORD]) => {
                local::find(bytes).unwrap_or(bytes.len() - (local::WORD - 1))
            }
            Format::Local => 0,
        }
    }

    /// What a record holds; these are its bytes with its framing.
    pub(super) fn decode<'a>(self, record: &'a [u8], clock: &mut Clock) -> Option<Piece<'a>> {
        match self {
            Format::JsonFile => {
                let record = record.strip_suffix(b"\n").unwrap_or(record);
                std::str::from_utf8(record).ok().and_then(|_| json_file::decode(record, clock))
            }
            Format::Local => local::decode(record),
        }
    }

    /// Hands the whole records among bytes that begin where one does to `each`; returns where the rest begins. Bytes
    /// between them that are no record are left out.
    pub(super) fn forwards(self, bytes: &[u8], mut each: impl FnMut(Record)) -> usize {
        let mut start = 0;
        match self {
            Format::JsonFile => {
                for newline in memchr::memchr_iter(b'\n', bytes) {
                    each(Record { start, end: newline + 1 });
                    start = newline + 1;
                }
                start
            }
            Format::Local => loop {
                match local::frame(&bytes[start..]) {
                    local::Frame::Whole(length) => {
                        each(Record { start, end: start + length });
                        start += length;
                    }
                    local::Frame::Part => return start,
                    local::Frame::Broken => match local::find(&bytes[start + 1..]) {
                        Some(at) => start += 1 + at,
                        None => return bytes.len().saturating_sub(local::LONGEST).max(start),
                    },
                }
            },
        }
    }

    /// The first place at or behind `from` where a record starts, or the end of the file.
    pub(super) fn next_start(self, file: &File, mut from: u64) -> io::Result<u64> {
        let mut block = vec![0; if self == Format::Local { 2 * local::LONGEST } else { 16 * 1024 }];
        loop {
            let read = file.read_at(&mut block, from)?;
            let found = match self {
                Format::JsonFile => memchr::memchr(b'\n', &block[..read]).map(|at| at + 1),
                Format::Local => local::find(&block[..read]),
            };
            match found {
                Some(at) => return Ok(from + at as u64),
                None if read < block.len() => return Ok(from + read as u64),
                None if self == Format::Local => from += local::LONGEST as u64,
                None => from += read as u64,
            }
        }
    }

    /// Hands the records of a file up to `size` to `each`, last first, until it says no: where each starts, and its
    /// bytes, framing included. What begins behind the last whole record comes first, where something does.
    pub(super) fn backwards(
        self,
        file: &File,
        size: u64,
        each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        match self {
            Format::JsonFile => lines_backwards(file, size, each),
            Format::Local => local_backwards(file, size, each),
        }
    }
}

fn lines_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    // What was read of the line that starts before the block at hand.
    let mut tail: Vec<u8> = Vec::new();
    let mut block = vec![0; BLOCK];
    let mut at = size;
    while at > 0 {
        let length = usize::try_from(at).map_or(BLOCK, |at| at.min(BLOCK));
        at -= length as u64;
        file.read_exact_at(&mut block[..length], at)?;
        let mut end = length;
        while let Some(newline) = memchr::memrchr(b'\n', &block[..end]) {
            let start = newline + 1;
            tail.splice(0..0, block[start..end].iter().copied());
            if !tail.is_empty() && each(at + start as u64, &tail).is_break() {
                return Ok(());
            }
            tail.clear();
            tail.push(b'\n');
            end = newline;
        }
        tail.splice(0..0, block[..end].iter().copied());
    }
    if !tail.is_empty() {
        let _ = each(0, &tail);
    }
    Ok(())
}

fn local_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut end = size;
    let mut buffer = Buffer::new(file);
    while end > 0 {
        let length = buffer.trailer(end)?.and_then(|length| u64::try_from(length).ok()).filter(|&length| length <= end);
        let start = match length {
            Some(length) => end - length,
            // Half a record, or something else: from the nearest place before it from which all is records.
            None => match last_start(file, end)? {
                Some(start) if start < end => start,
                _ => return Ok(()),
            },
        };
        let record = buffer.get(start, end)?;
        if each(start, record).is_break() {
            return Ok(());
        }
        end = start;
    }
    Ok(())
}

/// Where the last thing that may be a record starts before `end`, or the rest behind the last whole one.
fn last_start(file: &File, end: u64) -> io::Result<Option<u64>> {
    let from = end.saturating_sub(2 * local::LONGEST as u64);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    let Some(first) = (if from == 0 { Some(0) } else { local::find(&bytes) }) else { return Ok(None) };
    let mut last = first;
    let rest = first + Format::Local.forwards(&bytes[first..], |record| last = first + record.start);
    let start = if rest < bytes.len() { rest } else { last };
    Ok(Some(from + start as u64))
}

/// Reads a file backwards in blocks.
struct Buffer<'a> {
    file: &'a File,
    block: Vec<u8>,
    start: u64,
}

impl<'a> Buffer<'a> {
    fn new(file: &'a File) -> Self {
        Buffer { file, block: Vec::new(), start: 0 }
    }

    /// The length of the record that ends here, its framing included, if one does.
    fn trailer(&mut self, end: u64) -> io::Result<Option<usize>> {
        let Some(start) = end.checked_sub(local::WORD as u64) else { return Ok(None) };
        let length = local::length(self.get(start, end)?);
        let Some(length) = length else { return Ok(None) };
        let Some(start) = end.checked_sub(length as u64) else { return Ok(None) };
        let whole = matches!(local::frame(self.get(start, end)?), local::Frame::Whole(found) if found == length);
        Ok(whole.then_some(length))
    }

    fn get(&mut self, start: u64, end: u64) -> io::Result<&[u8]> {
        if start < self.start || end > self.start + self.block.len() as u64 {
            let from = start.min(end.saturating_sub(BLOCK as u64));
            self.block.resize(usize::try_from(end - from).unwrap_or(0), 0);
            self.file.read_exact_at(&mut self.block, from)?;
            self.start = from;
        }
        // Both lie in the block, whose size is a `usize`.
        let [start, end] = [start, end].map(|at| (at - self.start) as usize);
        Ok(&self.block[start..end])
    }
}

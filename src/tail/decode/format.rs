//! The forms in which the engine keeps logs in files: where such a file lies, and where its records begin and end.
//!
//! In: a container's folder, or bytes of a file. Out: which file it is; records, decoded. Called by [`super::file`],
//! [`super::seek`] and [`super::handle`]; what one record holds is told by [`super::json_file`] and [`super::local`].
//! The names are those of moby `container/container.go` (`json-file`), `daemon/logger/local/local.go` and
//! `daemon/logger/loggerutils/cache/local_cache.go`: the cache has the form of the `local` driver, and is kept for
//! drivers that cannot be read back. A container's driver never changes, so it has one of them.

use super::{json_file, local};
use crate::model::time::TimestampParser as Clock;
use crate::tail::Piece;
use crate::tail::files::pread::{exact_at, fill_at};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The folder in which the `local` driver keeps its files.
const LOCAL_FOLDER: &str = "local-logs";
const LOCAL: &str = "container.log";
const CACHE: &str = "container-cached.log";

const BLOCK: usize = 256 * 1024;

/// A form of log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines of JSON.
    JsonFile,
    /// Records between their lengths.
    Local,
}

/// A container's log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The file the engine writes now.
    pub(crate) live: PathBuf,
    pub(crate) format: Format,
}

impl Spot {
    /// The one that is there, if any is.
    pub(crate) fn find(folder: &Path, id: &str) -> Option<Spot> {
        Spot::all(folder, id).into_iter().find(|spot| spot.live.symlink_metadata().is_ok())
    }

    /// All that there can be.
    pub(crate) fn all(folder: &Path, id: &str) -> [Spot; 3] {
        let json_file = (folder.join(format!("{id}-json.log")), Format::JsonFile);
        let local = (folder.join(LOCAL_FOLDER).join(LOCAL), Format::Local);
        let cache = (folder.join(CACHE), Format::Local);
        [json_file, local, cache].map(|(live, format)| Spot { live, format })
    }

    /// Its folder, which is the container's own or one in it.
    pub(crate) fn folder(&self) -> &Path {
        self.live.parent().unwrap_or(&self.live)
    }

    /// The name that the engine gives to each new file.
    pub(crate) fn name(&self) -> OsString {
        self.live.file_name().unwrap_or_default().to_owned()
    }
}

/// Whether something of this name in a container's folder, or in the one within, may be or hold its log.
pub(crate) fn is_log_name(name: &OsStr, id: &str) -> bool {
    let is_json_file = || name.to_str().and_then(|name| name.strip_suffix("-json.log")) == Some(id);
    name == LOCAL_FOLDER || name == LOCAL || name == CACHE || is_json_file()
}

/// Whether the engine has made a log file for this container, for the engine room to see which route to take.
pub fn has_log(folder: &Path, id: &str) -> bool {
    Spot::find(folder, id).is_some()
}

/// The folder within a container's that has to be watched as well, if it is there.
pub(crate) fn inner_folder(folder: &Path) -> Option<PathBuf> {
    let inner = folder.join(LOCAL_FOLDER);
    inner.is_dir().then_some(inner)
}

/// A record among bytes: from where to where, its framing included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Format {
    /// Whether a file of this form can begin so.
    pub(crate) fn begins_with(self, byte: u8) -> bool {
        match self {
            Format::JsonFile => byte == b'{',
            // No record is 16 MiB long.
            Format::Local => byte == 0,
        }
    }

    /// Where the first record of a file ends, if that much of it is there.
    pub(crate) fn first_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Format::JsonFile => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Format::Local => match local::frame(bytes) {
                local::Frame::Whole(length) => Some(length),
                local::Frame::Part | local::Frame::Broken => None,
            },
        }
    }

    /// How many of the NULs at the start, which a truncated file has before its first record, are none of a record's.
    pub(crate) fn nuls(self, bytes: &[u8]) -> usize {
        match self {
            Format::JsonFile => bytes.iter().take_while(|byte| **byte == 0).count(),
            // A record begins with one to three, which only a whole one tells from those before it.
            Format::Local if bytes.starts_with(&[0; local::WORD]) => local::find(bytes).unwrap_or_else(|| {
                let nuls = bytes.iter().take_while(|byte| **byte == 0).count();
                nuls - local::WORD
            }),
            Format::Local => 0,
        }
    }

    /// What a record holds; these are its bytes with its framing.
    pub(crate) fn decode<'a>(self, record: &'a [u8], clock: &mut Clock) -> Option<Piece<'a>> {
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
    pub(crate) fn forwards(self, bytes: &[u8], mut each: impl FnMut(Record)) -> usize {
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
    pub(crate) fn next_start(self, file: &File, mut from: u64) -> io::Result<u64> {
        let mut block = vec![0; if self == Format::Local { 2 * local::LONGEST } else { 16 * 1024 }];
        loop {
            let read = fill_at(file, &mut block, from)?;
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

    /// Whether a record ends at a place in a file, or nothing is before it.
    pub(crate) fn ends_at(self, file: &File, end: u64) -> io::Result<bool> {
        match self {
            Format::JsonFile => {
                let mut last = [0];
                if end > 0 {
                    exact_at(file, &mut last, end - 1)?;
                }
                // Behind a hole it is as at the start.
                Ok(matches!(last, [b'\n' | 0]))
            }
            Format::Local => {
                let mut words = [[0; local::WORD]; 2];
                let Some(at) = end.checked_sub(local::WORD as u64) else { return Ok(end == 0) };
                exact_at(file, &mut words[1], at)?;
                let length = local::length(&words[1]).and_then(|length| end.checked_sub(length as u64));
                let Some(start) = length else { return Ok(false) };
                exact_at(file, &mut words[0], start)?;
                Ok(words[0] == words[1])
            }
        }
    }

    /// Bytes of the longest record.
    pub(crate) fn longest(self) -> usize {
        match self {
            Format::JsonFile => json_file::LONGEST,
            Format::Local => local::LONGEST,
        }
    }

    /// Hands the records of a file up to `size` to `each`, last first, until it says no: where each starts, and its
    /// bytes, framing included. What begins behind the last whole record comes first, where something does.
    pub(crate) fn backwards(
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

/// Of a line that is longer than any record, only the end is handed on: it may be one behind a hole.
fn lines_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    // What was read of the line that starts before the block at hand, and where it ends.
    let mut tail: Vec<u8> = Vec::new();
    let mut tail_end = size;
    let mut block = vec![0; BLOCK];
    let mut at = size;
    while at > 0 {
        let length = usize::try_from(at).map_or(BLOCK, |at| at.min(BLOCK));
        at -= length as u64;
        exact_at(file, &mut block[..length], at)?;
        let mut end = length;
        while let Some(newline) = memchr::memrchr(b'\n', &block[..end]) {
            prepend(&block[newline + 1..end], &mut tail);
            if !tail.is_empty() && each(tail_end - tail.len() as u64, &tail).is_break() {
                return Ok(());
            }
            tail.clear();
            tail.push(b'\n');
            tail_end = at + newline as u64 + 1;
            end = newline;
        }
        prepend(&block[..end], &mut tail);
    }
    let record = &tail[Format::JsonFile.nuls(&tail)..];
    if !record.is_empty() {
        let _ = each(tail_end - record.len() as u64, record);
    }
    Ok(())
}

/// Puts bytes before others, as long as these are not more than a record has.
fn prepend(bytes: &[u8], tail: &mut Vec<u8>) {
    let room = json_file::LONGEST.saturating_sub(tail.len());
    tail.splice(0..0, bytes[bytes.len().saturating_sub(room)..].iter().copied());
}

fn local_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut end = size;
    let mut buffer = Buffer::new(file);
    while end > 0 {
        let length = buffer.trailer(end)?.and_then(|length| u64::try_from(length).ok()).filter(|&length| length <= end);
        let start = match length {
            Some(length) => end - length,
            // Half a record, or something else: from the nearest place before it from which all is records.
            None => match last_start(file, end, end < size)? {
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

/// Where the last thing that may be a record starts before `end`, or the rest behind the last whole one. Where it is known
/// that another record begins there, what would reach past it is none.
fn last_start(file: &File, end: u64, is_start: bool) -> io::Result<Option<u64>> {
    let from = end.saturating_sub(2 * local::LONGEST as u64);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
    exact_at(file, &mut bytes, from)?;
    let Some(first) = (if from == 0 { Some(0) } else { local::find(&bytes) }) else { return Ok(None) };
    let (mut last, mut rest) = (first, first);
    loop {
        let base = rest;
        rest += Format::Local.forwards(&bytes[base..], |record| last = base + record.start);
        let behind = bytes.get(rest + 1..).filter(|_| is_start).and_then(local::find);
        match behind {
            Some(at) => rest += 1 + at,
            None => break,
        }
    }
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
            exact_at(self.file, &mut self.block, from)?;
            self.start = from;
        }
        // Both lie in the block, whose size is a `usize`.
        let [start, end] = [start, end].map(|at| (at - self.start) as usize);
        Ok(&self.block[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;
    use crate::tail::oracle::{LogEntry, framed, records_backwards, records_forwards, whole_at};
    use proptest::prelude::*;
    use prost::Message;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// In the order of the file.
    fn backwards(format: Format, log: &[u8], size: usize) -> Vec<(u64, Vec<u8>)> {
        let mut records = Vec::new();
        let each = |start, record: &[u8]| {
            records.push((start, record.to_vec()));
            ControlFlow::Continue(())
        };
        format.backwards(&file(log), size as u64, each).unwrap();
        records.reverse();
        records
    }

    fn split(log: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut at = 0;
        let lines = log.split_inclusive(|byte| *byte == b'\n').map(|line| {
            at += line.len() as u64;
            (at - line.len() as u64, line.to_vec())
        });
        lines.collect()
    }

    #[test]
    fn backwards_stops_where_it_is_told_to() {
        let entry = |line: &[u8]| LogEntry { line: line.to_vec(), ..entry(0) }.encode_to_vec();
        for (format, log) in [
            (Format::JsonFile, b"one\ntwo\nthree\n".to_vec()),
            (Format::Local, [b"one", b"two", b"new"].map(|line| framed(&entry(line))).concat()),
        ] {
            let mut seen = Vec::new();
            let each = |start, record: &[u8]| {
                seen.push((start, record.len()));
                if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            format.backwards(&file(&log), log.len() as u64, each).unwrap();
            let (starts, lengths): (Vec<u64>, Vec<usize>) = seen.into_iter().unzip();
            assert_eq!(starts[1] as usize + lengths[0] + lengths[1], log.len(), "{format:?}");
        }
    }

    #[test]
    fn of_a_line_longer_than_any_record_only_the_end_is_held() {
        let long = [vec![b'x'; json_file::LONGEST + 3 * BLOCK], b"end\n".to_vec()].concat();
        let log = [b"before\n", &*long, b"behind\n"].concat();
        let [before, longest, behind] = &*backwards(Format::JsonFile, &log, log.len()) else { panic!() };
        assert_eq!(before, &(0, b"before\n".to_vec()));
        assert_eq!(behind, &(log.len() as u64 - 7, b"behind\n".to_vec()));
        assert_eq!(longest.1.len(), json_file::LONGEST);
        assert_eq!(longest.0 as usize + longest.1.len(), log.len() - b"behind\n".len());
        assert!(longest.1.ends_with(b"xend\n"));
    }

    #[test]
    fn the_record_behind_a_hole_is_one_backwards_as_well() {
        for hole in [3, BLOCK, json_file::LONGEST + BLOCK] {
            let log = [vec![0; hole], b"{one}\n{two}\n".to_vec()].concat();
            let told = [(hole as u64, b"{one}\n".to_vec()), (hole as u64 + 6, b"{two}\n".to_vec())];
            assert_eq!(backwards(Format::JsonFile, &log, log.len()), told, "{hole}");
            assert_eq!(backwards(Format::JsonFile, &log, hole), [], "nothing but a hole of {hole}");
        }
    }

    #[test]
    fn nuls_before_a_record_are_told_from_its_own() {
        let record = framed(&entry(0).encode_to_vec());
        for nuls in [0, 1, 2, 3, 4, 1000] {
            let hole = vec![0; nuls];
            assert_eq!(Format::JsonFile.nuls(&[&*hole, b"{\0"].concat()), nuls);
            let own = Format::Local.nuls(&[&*hole, &record].concat());
            // One NUL is no more than a record may begin with.
            assert_eq!(own, if nuls == 0 { 0 } else { nuls });
        }
    }

    fn entry(time_nano: i64) -> LogEntry {
        LogEntry { source: "stdout".to_owned(), time_nano, ..LogEntry::default() }
    }

    /// What lies in a log of the `local` driver.
    #[derive(Clone, Debug)]
    enum Thing {
        Record(Vec<u8>),
        /// A record whose end is missing.
        Torn(Vec<u8>, prop::sample::Index),
        Garbage(Vec<u8>),
    }

    fn things() -> impl Strategy<Value = Vec<Thing>> {
        let line = || prop::collection::vec(any::<u8>(), 0..100);
        let thing = prop_oneof![
            8 => line().prop_map(Thing::Record),
            1 => (BLOCK - 50..BLOCK + 50, any::<u8>()).prop_map(|(length, byte)| Thing::Record(vec![byte; length])),
            1 => (line(), any::<prop::sample::Index>()).prop_map(|(line, end)| Thing::Torn(line, end)),
            // Such as cannot be a length.
            2 => prop::collection::vec(1..=255_u8, 1..50).prop_map(Thing::Garbage),
        ];
        prop::collection::vec(thing, 0..20)
    }

    /// The log, and where its records are.
    fn local_log(things: &[Thing]) -> (Vec<u8>, Vec<Record>) {
        let (mut log, mut records) = (Vec::new(), Vec::new());
        let record = |line: &[u8], time| framed(&LogEntry { line: line.to_vec(), ..entry(time) }.encode_to_vec());
        // At the end is a record that is longer than what a torn one lacks, and unlike it.
        let last = [Thing::Record(vec![b'.'; 200])];
        for (time, thing) in (1..).zip(things.iter().chain(&last)) {
            let start = log.len();
            match thing {
                Thing::Record(line) => {
                    log.extend(record(line, time));
                    records.push(Record { start, end: log.len() });
                }
                // With its length, and not so much that the length of the next one completes it.
                Thing::Torn(line, end) => {
                    let whole = record(line, time);
                    log.extend_from_slice(&whole[..local::WORD + end.index(whole.len() - 3 * local::WORD)]);
                }
                Thing::Garbage(bytes) => log.extend_from_slice(bytes),
            }
        }
        (log, records)
    }

    proptest! {
        // Blocks are large.
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn lines_are_the_same_backwards(
            lines in prop::collection::vec(
                prop_oneof![8 => 0..100_usize, 1 => BLOCK - 2..BLOCK + 2, 1 => Just(3 * BLOCK)], 0..12
            ),
            open: bool,
        ) {
            let mut log = Vec::new();
            for (number, length) in lines.iter().enumerate() {
                log.resize(log.len() + length, b'a' + number as u8);
                log.push(b'\n');
            }
            if open {
                log.pop();
            }
            prop_assert_eq!(backwards(Format::JsonFile, &log, log.len()), split(&log));
            let half = log.len() / 2;
            prop_assert_eq!(backwards(Format::JsonFile, &log, half), split(&log[..half]));
            let ends = split(&log).into_iter().filter(|(_, line)| line.ends_with(b"\n"));
            let ends: Vec<usize> = ends.map(|(at, line)| at as usize + line.len()).collect();
            let mut forwards = Vec::new();
            let rest = Format::JsonFile.forwards(&log, |record| forwards.push(record));
            prop_assert_eq!(rest, ends.last().copied().unwrap_or(0));
            let starts = [0].into_iter().chain(ends.iter().copied());
            let lines: Vec<Record> = starts.zip(&ends).map(|(start, end)| Record { start, end: *end }).collect();
            prop_assert_eq!(forwards, lines);
        }

        #[test]
        fn records_are_the_same_forwards_and_backwards_whatever_lies_between(things in things()) {
            let (log, records) = local_log(&things);
            // What the file begins with is a record, or it is no such log.
            let forwards = records_forwards(&log);
            prop_assert_eq!(&forwards, &records);
            let whole = |record: &Record| whole_at(&log, record.start) == Some(*record);
            let backwards: Vec<Record> = records_backwards(&log).into_iter().filter(whole).collect();
            prop_assert_eq!(&backwards, &records);
            let mut clock = Clock::default();
            let times = records.iter().map(|record| Format::Local.decode(&log[record.start..record.end], &mut clock));
            prop_assert!(times.map(|piece| piece.unwrap().time).is_sorted_by(|a, b| *a > Timestamp(0) && a < b));
        }

        #[test]
        fn from_any_place_the_next_record_is_found(things in things(), from: prop::sample::Index) {
            let (log, records) = local_log(&things);
            let from = from.index(log.len());
            let expected = records.iter().map(|record| record.start).find(|start| *start >= from).unwrap_or(log.len());
            prop_assert_eq!(Format::Local.next_start(&file(&log), from as u64).unwrap(), expected as u64);
        }

        #[test]
        fn from_any_place_the_next_line_is_found(
            lines in prop::collection::vec(prop_oneof![4 => 0..100_usize, 1 => 16_380..16_390_usize], 1..12),
            from: prop::sample::Index,
        ) {
            let log: Vec<u8> = lines.iter().flat_map(|length| [vec![b'x'; *length], vec![b'\n']].concat()).collect();
            let from = from.index(log.len());
            let expected = from + memchr::memchr(b'\n', &log[from..]).unwrap() + 1;
            prop_assert_eq!(Format::JsonFile.next_start(&file(&log), from as u64).unwrap(), expected as u64);
        }
    }
}

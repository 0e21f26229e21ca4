//! The formats of Docker's log files: where a log file is, and where its records start and end.
//!
//! In: a container's folder, or bytes of a file. Out: the location of the log, and decoded records. Used by
//! [`super::block`] and [`crate::tail::files`]. [`super::json_file`] and [`super::local`] decode a single record.
//!
//! The file names come from moby `container/container.go` (`json-file`), `daemon/logger/local/local.go` and
//! `daemon/logger/loggerutils/cache/local_cache.go`. The dual-logging cache has the format of the `local` driver, and
//! exists for drivers that cannot be read back. A container's driver never changes, so it has only one of these files.

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

/// Bytes per read when searching backwards.
const BLOCK: usize = 256 * 1024;

/// The format of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `json-file`: one JSON object per line.
    JsonFile,
    /// `local`: binary records, each between two copies of its length.
    Local,
}

/// Where a container's log is, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLocation {
    /// The file that dockerd writes now.
    pub(crate) live: PathBuf,
    pub(crate) format: Format,
}

impl LogLocation {
    /// Returns the log that exists, if any.
    pub(crate) fn find(folder: &Path, id: &str) -> Option<LogLocation> {
        LogLocation::all(folder, id).into_iter().find(|location| location.live.symlink_metadata().is_ok())
    }

    /// Returns every possible location.
    pub(crate) fn all(folder: &Path, id: &str) -> [LogLocation; 3] {
        let json_file = (folder.join(format!("{id}-json.log")), Format::JsonFile);
        let local = (folder.join(LOCAL_FOLDER).join(LOCAL), Format::Local);
        let cache = (folder.join(CACHE), Format::Local);
        [json_file, local, cache].map(|(live, format)| LogLocation { live, format })
    }

    /// Returns the folder of the log: that of the container, or one in it.
    pub(crate) fn folder(&self) -> &Path {
        self.live.parent().unwrap_or(&self.live)
    }

    /// Returns the name that dockerd gives to each new file.
    pub(crate) fn name(&self) -> OsString {
        self.live.file_name().unwrap_or_default().to_owned()
    }
}

/// Returns whether a file or folder of this name, in a container's folder or the inner folder, may be
/// or contain its log.
pub(crate) fn is_log_name(name: &OsStr, id: &str) -> bool {
    let is_json_file = || name.to_str().and_then(|name| name.strip_suffix("-json.log")) == Some(id);
    name == LOCAL_FOLDER || name == LOCAL || name == CACHE || is_json_file()
}

/// Returns whether dockerd has created a log file for this container. Used to choose the route.
pub(crate) fn has_log(folder: &Path, id: &str) -> bool {
    LogLocation::find(folder, id).is_some()
}

/// Returns the folder of the `local` driver in a container's folder, if it exists.
pub(crate) fn inner_folder(folder: &Path) -> Option<PathBuf> {
    let inner = folder.join(LOCAL_FOLDER);
    inner.is_dir().then_some(inner)
}

/// The range of a record in some bytes, including its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordRange {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Format {
    /// Returns whether a file of this format can start with this byte.
    pub(crate) fn begins_with(self, byte: u8) -> bool {
        match self {
            Format::JsonFile => byte == b'{',
            // The first byte of a length. No record is 16 MiB long.
            Format::Local => byte == 0,
        }
    }

    /// Returns the end of the first record, if it is complete.
    pub(crate) fn first_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Format::JsonFile => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Format::Local => match local::frame(bytes) {
                local::Frame::Whole(length) => Some(length),
                local::Frame::Part | local::Frame::Broken => None,
            },
        }
    }

    /// Returns how many of the NULs at the start are not part of a record. A truncated file has NULs
    /// before its first record.
    pub(crate) fn nuls(self, bytes: &[u8]) -> usize {
        match self {
            Format::JsonFile => bytes.iter().take_while(|byte| **byte == 0).count(),
            // A record itself starts with one to three NULs. Only a complete record separates them from those before
            // it.
            Format::Local if bytes.starts_with(&[0; local::WORD]) => local::find(bytes).unwrap_or_else(|| {
                let nuls = bytes.iter().take_while(|byte| **byte == 0).count();
                nuls - local::WORD
            }),
            Format::Local => 0,
        }
    }

    /// Decodes a record, given with its framing.
    pub(crate) fn decode<'a>(self, record: &'a [u8], clock: &mut Clock) -> Option<Piece<'a>> {
        match self {
            Format::JsonFile => {
                let record = record.strip_suffix(b"\n").unwrap_or(record);
                std::str::from_utf8(record).ok().and_then(|_| json_file::decode(record, clock))
            }
            Format::Local => local::decode(record),
        }
    }

    /// Passes the complete records of `bytes`, which start at a record, to `each`. Returns the end of the last one.
    /// Skips bytes between them that are not a record.
    pub(crate) fn forwards(self, bytes: &[u8], mut each: impl FnMut(RecordRange)) -> usize {
        let mut start = 0;
        match self {
            Format::JsonFile => {
                for newline in memchr::memchr_iter(b'\n', bytes) {
                    each(RecordRange { start, end: newline + 1 });
                    start = newline + 1;
                }
                start
            }
            Format::Local => loop {
                match local::frame(&bytes[start..]) {
                    local::Frame::Whole(length) => {
                        each(RecordRange { start, end: start + length });
                        start += length;
                    }
                    local::Frame::Part => return start,
                    local::Frame::Broken => match local::find(&bytes[start + 1..]) {
                        Some(at) => start += 1 + at,
                        None => return bytes.len().saturating_sub(local::MAX_RECORD).max(start),
                    },
                }
            },
        }
    }

    /// Returns the first offset from `from` on at which a record starts, or the end of the file.
    pub(crate) fn next_start(self, file: &File, mut from: u64) -> io::Result<u64> {
        let mut block = vec![0; if self == Format::Local { 2 * local::MAX_RECORD } else { 16 * 1024 }];
        loop {
            let read = fill_at(file, &mut block, from)?;
            let found = match self {
                Format::JsonFile => memchr::memchr(b'\n', &block[..read]).map(|at| at + 1),
                Format::Local => local::find(&block[..read]),
            };
            match found {
                Some(at) => return Ok(from + at as u64),
                None if read < block.len() => return Ok(from + read as u64),
                None if self == Format::Local => from += local::MAX_RECORD as u64,
                None => from += read as u64,
            }
        }
    }

    /// Returns whether a record ends at this offset of a file, or nothing precedes it.
    pub(crate) fn ends_at(self, file: &File, end: u64) -> io::Result<bool> {
        match self {
            Format::JsonFile => {
                let mut last = [0];
                if end > 0 {
                    exact_at(file, &mut last, end - 1)?;
                }
                // After a hole is like at the start.
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

    /// Returns the maximum size of a record in bytes.
    pub(crate) fn longest(self) -> usize {
        match self {
            Format::JsonFile => json_file::MAX_RECORD,
            Format::Local => local::MAX_RECORD,
        }
    }

    /// Passes the records in the first `size` bytes of a file to `each`, last first, until `each` breaks: the offset of
    /// each and its bytes with framing. If an incomplete record follows the last complete one, it comes first.
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

/// Passes only the end of a line that is longer than any record, because that may be a record after a hole.
fn lines_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    // What was read of the line that starts before the current block, and where that line ends.
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

/// Prepends bytes to `tail`, which grows to at most the size of a record.
fn prepend(bytes: &[u8], tail: &mut Vec<u8>) {
    let space = json_file::MAX_RECORD.saturating_sub(tail.len());
    tail.splice(0..0, bytes[bytes.len().saturating_sub(space)..].iter().copied());
}

fn local_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut end = size;
    let mut buffer = BackwardReader::new(file);
    while end > 0 {
        let length = buffer.trailer(end)?.and_then(|length| u64::try_from(length).ok()).filter(|&length| length <= end);
        let start = match length {
            Some(length) => end - length,
            // Half a record or something else: search forwards from an earlier record.
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

/// Returns where the last possible record before `end` starts, or the rest after the last complete one. If `is_start`,
/// a record is known to start at `end`, so that nothing before it can extend beyond.
fn last_start(file: &File, end: u64, is_start: bool) -> io::Result<Option<u64>> {
    let from = end.saturating_sub(2 * local::MAX_RECORD as u64);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
    exact_at(file, &mut bytes, from)?;
    let Some(first) = (if from == 0 { Some(0) } else { local::find(&bytes) }) else { return Ok(None) };
    let (mut last, mut rest) = (first, first);
    loop {
        let base = rest;
        rest += Format::Local.forwards(&bytes[base..], |record| last = base + record.start);
        let after = bytes.get(rest + 1..).filter(|_| is_start).and_then(local::find);
        match after {
            Some(at) => rest += 1 + at,
            None => break,
        }
    }
    let start = if rest < bytes.len() { rest } else { last };
    Ok(Some(from + start as u64))
}

/// A window on a file that is read backwards, in blocks.
struct BackwardReader<'a> {
    file: &'a File,
    block: Vec<u8>,
    start: u64,
}

impl<'a> BackwardReader<'a> {
    fn new(file: &'a File) -> Self {
        BackwardReader { file, block: Vec::new(), start: 0 }
    }

    /// Returns the length of the record that ends at `end`, including its framing, if there is one.
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
        // Both are within the block, whose size is a `usize`.
        let [start, end] = [start, end].map(|at| (at - self.start) as usize);
        Ok(&self.block[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;
    use crate::tail::fuzz_checks::{LogEntry, framed, records_backwards, records_forwards, whole_at};
    use proptest::prelude::*;
    use prost::Message;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Reads backwards. Returns the records in the order of the file.
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
    fn reading_backwards_stops_when_asked() {
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
    fn only_the_end_of_an_oversized_line_is_kept() {
        let long = [vec![b'x'; json_file::MAX_RECORD + 3 * BLOCK], b"end\n".to_vec()].concat();
        let log = [b"before\n", &*long, b"behind\n"].concat();
        let [before, longest, behind] = &*backwards(Format::JsonFile, &log, log.len()) else { panic!() };
        assert_eq!(before, &(0, b"before\n".to_vec()));
        assert_eq!(behind, &(log.len() as u64 - 7, b"behind\n".to_vec()));
        assert_eq!(longest.1.len(), json_file::MAX_RECORD);
        assert_eq!(longest.0 as usize + longest.1.len(), log.len() - b"behind\n".len());
        assert!(longest.1.ends_with(b"xend\n"));
    }

    #[test]
    fn reading_backwards_finds_the_record_after_a_hole() {
        for hole in [3, BLOCK, json_file::MAX_RECORD + BLOCK] {
            let log = [vec![0; hole], b"{one}\n{two}\n".to_vec()].concat();
            let expected = [(hole as u64, b"{one}\n".to_vec()), (hole as u64 + 6, b"{two}\n".to_vec())];
            assert_eq!(backwards(Format::JsonFile, &log, log.len()), expected, "{hole}");
            assert_eq!(backwards(Format::JsonFile, &log, hole), [], "nothing but a hole of {hole}");
        }
    }

    #[test]
    fn nuls_before_a_record_are_not_its_own() {
        let record = framed(&entry(0).encode_to_vec());
        for nuls in [0, 1, 2, 3, 4, 1000] {
            let hole = vec![0; nuls];
            assert_eq!(Format::JsonFile.nuls(&[&*hole, b"{\0"].concat()), nuls);
            let own = Format::Local.nuls(&[&*hole, &record].concat());
            // A record may start with one NUL.
            assert_eq!(own, if nuls == 0 { 0 } else { nuls });
        }
    }

    fn entry(time_nano: i64) -> LogEntry {
        LogEntry { source: "stdout".to_owned(), time_nano, ..LogEntry::default() }
    }

    /// A part of a log of the `local` driver.
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
            // Without NULs, so that it cannot be a length.
            2 => prop::collection::vec(1..=255_u8, 1..50).prop_map(Thing::Garbage),
        ];
        prop::collection::vec(thing, 0..20)
    }

    /// Returns the log, and the ranges of its records.
    fn local_log(things: &[Thing]) -> (Vec<u8>, Vec<RecordRange>) {
        let (mut log, mut records) = (Vec::new(), Vec::new());
        let record = |line: &[u8], time| framed(&LogEntry { line: line.to_vec(), ..entry(time) }.encode_to_vec());
        // The last record is longer than what is missing of a torn one, and different.
        let last = [Thing::Record(vec![b'.'; 200])];
        for (time, thing) in (1..).zip(things.iter().chain(&last)) {
            let start = log.len();
            match thing {
                Thing::Record(line) => {
                    log.extend(record(line, time));
                    records.push(RecordRange { start, end: log.len() });
                }
                // With its length, but too short for the next record's length to complete it.
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
        // Fewer cases, because blocks are large.
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn lines_are_the_same_forwards_and_backwards(
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
            let lines: Vec<RecordRange> = starts.zip(&ends).map(|(start, end)| RecordRange { start, end: *end }).collect();
            prop_assert_eq!(forwards, lines);
        }

        #[test]
        fn records_are_the_same_forwards_and_backwards(things in things()) {
            let (log, records) = local_log(&things);
            // The file starts with a record, else it is not such a log.
            let forwards = records_forwards(&log);
            prop_assert_eq!(&forwards, &records);
            let whole = |record: &RecordRange| whole_at(&log, record.start) == Some(*record);
            let backwards: Vec<RecordRange> = records_backwards(&log).into_iter().filter(whole).collect();
            prop_assert_eq!(&backwards, &records);
            let mut clock = Clock::default();
            let times = records.iter().map(|record| Format::Local.decode(&log[record.start..record.end], &mut clock));
            prop_assert!(times.map(|piece| piece.unwrap().time).is_sorted_by(|a, b| *a > Timestamp(0) && a < b));
        }

        #[test]
        fn the_next_record_is_found_from_any_offset(things in things(), from: prop::sample::Index) {
            let (log, records) = local_log(&things);
            let from = from.index(log.len());
            let expected = records.iter().map(|record| record.start).find(|start| *start >= from).unwrap_or(log.len());
            prop_assert_eq!(Format::Local.next_start(&file(&log), from as u64).unwrap(), expected as u64);
        }

        #[test]
        fn the_next_line_is_found_from_any_offset(
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

//! Where to start in what is already written.
//!
//! In: a container's log files as they lie. Out: handles, oldest first, set to where reading starts. Called by
//! [`super::file`] when a container is first followed. Costs a search from the end for a number of lines, and a binary
//! search for a time; the whole is read only when the whole is wanted, or through a compressed file.
//! Times in a log are not in order: stdout and stderr are stamped by two writers, and a line cut at 16 KiB carries the
//! time of its first piece. The search by time therefore stops short of it, as [`super::before`] does.

use super::handle::{self, Handle};
use super::{Piece, Start, json_file};
use crate::batch::Stream;
use crate::time::{Reader, Timestamp};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: usize = 256 * 1024;
/// How far back the beginning of a line is looked for on a stream that shows nothing of itself.
const WARM_UP: u64 = 1024 * 1024;
/// More rotated files than anybody keeps.
const MOST_FILES: u32 = 10_000;

/// The files to read, oldest first, the live one last.
pub(super) fn start(live: &Path, start: Start) -> io::Result<Vec<Handle>> {
    let mut newest = Handle::open(live)?;
    match start {
        Start::Beginning => {}
        Start::All => return files(live, newest, |_| Ok(false)),
        Start::Since(time) => {
            let early = super::before(time);
            let mut handles = files(live, newest, |file| starts_before(file, early))?;
            if let Some(first) = handles.first_mut() {
                first.offset = offset_of(first, early)?;
            }
            return Ok(handles);
        }
        Start::Last(0) => {
            let size = newest.size()?.unwrap_or(0);
            newest.offset = last_newline(&newest, size)?;
        }
        Start::Last(lines) => return last_lines(live, newest, lines),
    }
    Ok(vec![newest])
}

/// The live file and those before it, oldest first, back to the first of which `enough` holds.
fn files(live: &Path, newest: Handle, mut enough: impl FnMut(&Handle) -> io::Result<bool>) -> io::Result<Vec<Handle>> {
    let mut handles = vec![newest];
    while !handles.last().map_or(Ok(true), &mut enough)? {
        match older(live, handles.len())? {
            Some(handle) => handles.push(handle),
            None => break,
        }
    }
    handles.reverse();
    Ok(handles)
}

/// The rotated file with this number, counted from 1 for the newest.
fn older(live: &Path, number: usize) -> io::Result<Option<Handle>> {
    let number = u32::try_from(number).unwrap_or(MOST_FILES);
    let Some(path) = (number < MOST_FILES).then(|| handle::numbered(live, number)).flatten() else {
        return Ok(None);
    };
    match Handle::open(&path) {
        Ok(handle) => Ok(Some(handle)),
        // Rotated on or away since we looked: what comes behind it is gone too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the first record of a file is before a time. A compressed file is taken to be when its last one is.
fn starts_before(handle: &Handle, time: Timestamp) -> io::Result<bool> {
    match handle.plain() {
        Some(file) => Ok(first_time(file, 0)?.is_some_and(|(_, first)| first < time)),
        None => Ok(handle.last_time().is_some_and(|last| last < time)),
    }
}

/// The first record at or behind `from` that decodes: where it starts, and its time.
fn first_time(file: &File, mut from: u64) -> io::Result<Option<(u64, Timestamp)>> {
    let mut block = vec![0; BLOCK];
    let mut clock = Reader::default();
    // A record that does not decode is stepped over, but not without end.
    for _ in 0..16 {
        let read = file.read_at(&mut block, from)?;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &block[..read]) {
            if let Some(piece) = json_file::decode(&block[start..end], &mut clock) {
                return Ok(Some((from + start as u64, piece.time)));
            }
            start = end + 1;
        }
        if read == 0 {
            break;
        }
        from += if start == 0 { read as u64 } else { start as u64 };
    }
    Ok(None)
}

/// Where the first record at or after a time starts, taking times to be in order.
fn offset_of(handle: &Handle, time: Timestamp) -> io::Result<u64> {
    let Some(file) = handle.plain() else { return Ok(0) };
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > BLOCK as u64 {
        let middle = low + (high - low) / 2;
        let newline = next_newline(file, middle)?;
        match first_time(file, newline)? {
            Some((at, found)) if at < high && found < time => low = at,
            _ => high = middle,
        }
    }
    Ok(low)
}

fn next_newline(file: &File, mut from: u64) -> io::Result<u64> {
    let mut block = vec![0; 16 * 1024];
    loop {
        let read = file.read_at(&mut block, from)?;
        match memchr::memchr(b'\n', &block[..read]) {
            Some(at) => return Ok(from + at as u64 + 1),
            None if read == 0 => return Ok(from),
            None => from += read as u64,
        }
    }
}

/// Where the record that is being written at `end` starts.
fn last_newline(handle: &Handle, end: u64) -> io::Result<u64> {
    let mut at = 0;
    if let Some(file) = handle.plain() {
        records_backwards(file, end, |start, record| {
            at = start + if record.is_empty() { 0 } else { record.len() as u64 + 1 };
            false
        })?;
    }
    Ok(at)
}

/// The time of the last whole record.
pub(super) fn last_time(handle: &Handle) -> io::Result<Option<Timestamp>> {
    let Some(file) = handle.plain() else { return Ok(handle.last_time()) };
    let mut last = None;
    records_backwards(file, file.metadata()?.len(), |_, record| {
        last = json_file::decode(record, &mut Reader::default()).map(|piece| piece.time);
        last.is_none()
    })?;
    Ok(last)
}

/// The files and places from which the last `wanted` lines come whole.
fn last_lines(live: &Path, newest: Handle, mut wanted: u64) -> io::Result<Vec<Handle>> {
    let mut handles = Vec::new();
    let mut next = Some(newest);
    let mut behind = Behind::default();
    while let Some(mut handle) = next {
        wanted = match handle.plain() {
            Some(_) => back_to_line(&mut handle, wanted, &mut behind)?,
            None => skip_to_line(&mut handle, live, handles.len(), wanted, &mut behind)?,
        };
        handles.push(handle);
        next = if wanted > 0 { older(live, handles.len())? } else { None };
    }
    handles.reverse();
    Ok(handles)
}

/// With which time each stream goes on behind a place in the log, if it does.
#[derive(Default)]
struct Behind([Option<Timestamp>; 2]);

impl Behind {
    /// Whether no more of its line follows: it has the newline, or never got one.
    fn ends_a_line(&self, stream: Stream, time: Timestamp, complete: bool) -> bool {
        complete || self.0[stream as usize] != Some(time)
    }
}

/// Sets a handle back by `wanted` lines, or to its start; returns how many are still wanted.
fn back_to_line(handle: &mut Handle, mut wanted: u64, behind: &mut Behind) -> io::Result<u64> {
    let Some(file) = handle.plain() else { return Ok(wanted) };
    let size = file.metadata()?.len();
    let mut clock = Reader::default();
    let mut settled = [false; 2];
    let (mut offset, mut shown_from) = (0, 0);
    records_backwards(file, size, |start, record| {
        let piece = json_file::decode(record, &mut clock);
        if wanted > 0 {
            if let Some(Piece { stream, time, complete, .. }) = piece {
                if behind.ends_a_line(stream, time, complete) {
                    wanted -= 1;
                    shown_from = start;
                }
                behind.0[stream as usize] = Some(time);
            }
            return true;
        }
        // Now far enough back that each stream's first line is known from its beginning.
        offset = start;
        if let Some(Piece { stream, complete: true, .. }) = piece {
            settled[stream as usize] = true;
        }
        let quiet =
            shown_from - start > WARM_UP && (settled[Stream::Stdout as usize] || settled[Stream::Stderr as usize]);
        !(settled == [true; 2] || quiet)
    })?;
    handle.offset = offset;
    handle.shown_from = if wanted > 0 { 0 } else { shown_from };
    Ok(wanted)
}

/// A compressed file can only be read forwards: counted first, then read up to the wanted line without being shown.
fn skip_to_line(handle: &mut Handle, live: &Path, number: usize, wanted: u64, behind: &mut Behind) -> io::Result<u64> {
    let Some(mut counted) = older(live, number)?.filter(|again| again.identity == handle.identity) else {
        return Ok(wanted);
    };
    let mut ends = std::collections::VecDeque::new();
    let mut end_at = |start: u64| {
        ends.insert(ends.partition_point(|&end| end < start), start);
        if ends.len() as u64 > wanted {
            ends.pop_front();
        }
    };
    // Of each stream: the time that it begins with, and the last record while that has no newline.
    let (mut first, mut open) = ([None; 2], [None; 2]);
    let mut clock = Reader::default();
    let (mut buffer, mut filled, mut base) = (vec![0; BLOCK], 0, 0);
    loop {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        let read = counted.read(&mut buffer[filled..])?;
        filled += read;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..filled]) {
            if let Some(piece) = json_file::decode(&buffer[start..end], &mut clock) {
                let (at, stream) = (base + start as u64, piece.stream as usize);
                first[stream].get_or_insert(piece.time);
                if let Some((unfinished, _)) = open[stream].take().filter(|(_, time)| *time != piece.time) {
                    end_at(unfinished);
                }
                if piece.complete {
                    end_at(at);
                } else {
                    open[stream] = Some((at, piece.time));
                }
            }
            start = end + 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        base += start as u64;
        if read == 0 {
            break;
        }
    }
    for (stream, unfinished) in [Stream::Stdout, Stream::Stderr].into_iter().zip(open) {
        if let Some((at, time)) = unfinished
            && behind.ends_a_line(stream, time, false)
        {
            end_at(at);
        }
        behind.0[stream as usize] = first[stream as usize].or(behind.0[stream as usize]);
    }
    let left = wanted - ends.len() as u64;
    handle.shown_from = if left > 0 { 0 } else { ends.front().copied().unwrap_or(0) };
    Ok(left)
}

/// Hands the lines of a file to `each`, last first, without their newlines, until it says no. What stands behind the
/// last newline comes first, empty when nothing does.
fn records_backwards(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    let mut tail: Vec<u8> = Vec::new();
    let mut block = vec![0; BLOCK];
    let mut at = size;
    while at > 0 {
        let length = usize::try_from(at).map_or(BLOCK, |at| at.min(BLOCK));
        at -= length as u64;
        file.read_exact_at(&mut block[..length], at)?;
        let mut end = length;
        while let Some(newline) = memchr::memrchr(b'\n', &block[..end]) {
            let start = at + newline as u64 + 1;
            let go_on = if tail.is_empty() {
                each(start, &block[newline + 1..end])
            } else {
                tail.splice(0..0, block[newline + 1..end].iter().copied());
                let go_on = each(start, &tail);
                tail.clear();
                go_on
            };
            if !go_on {
                return Ok(());
            }
            end = newline;
        }
        tail.splice(0..0, block[..end].iter().copied());
    }
    each(0, &tail);
    Ok(())
}

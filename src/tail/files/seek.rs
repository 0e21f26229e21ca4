//! Where to start in what is already written.
//!
//! In: a container's log files as they lie. Out: handles, oldest first, set to where reading starts. Called by
//! [`super::file`] when a container is first followed, or again. Costs a search from the end for a number of lines, and a
//! binary search for a time; the whole is read only when the whole is wanted, or through a compressed file.
//! Times in a log are not in order: stdout and stderr are stamped by two writers, and a line cut at 16 KiB carries the
//! time of its first piece. The search by time therefore stops short of it, as [`super::before`] does.

use super::log_file::{self, Found, Handle, MOST_WALKS, Rotated};
use super::pread::fill_at;
use crate::model::cursor::Stream;
use crate::model::time::{Timestamp, TimestampParser};
use crate::tail::decode::format::{Format, Record};
use crate::tail::{Piece, Start};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

const BLOCK: usize = 256 * 1024;
/// How far back the beginning of a line is looked for on a stream that shows nothing of itself.
const WARM_UP: u64 = 1024 * 1024;
/// Blocks without a record before a file is taken to have none.
const MOST_STRANGE: u32 = 16;

/// The files to read, oldest first, the live one last.
pub(super) fn start(live: &Path, newest: Handle, start: Start) -> io::Result<Vec<Handle>> {
    let format = newest.format;
    let mut found = start_from(live, newest, start);
    for _ in 1..MOST_WALKS {
        match &found {
            // By their numbers they are in order, but for rotations in the meantime.
            Ok(handles) if is_live(live, handles.last())? => break,
            // It was truncated after its size was asked for.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => break,
            Ok(_) | Err(_) => {}
        }
        found = start_from(live, Handle::open(live, format)?, start);
    }
    found
}

/// Whether this is the file that the engine writes; between two steps of a rotation there is none.
fn is_live(live: &Path, newest: Option<&Handle>) -> io::Result<bool> {
    match log_file::identity(live) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        found => Ok(newest.map(|newest| newest.identity) == Some(found?)),
    }
}

fn start_from(live: &Path, mut newest: Handle, start: Start) -> io::Result<Vec<Handle>> {
    match start {
        Start::Beginning => {}
        Start::All => return files(live, newest, |_| Ok(false)),
        Start::Since(time) => {
            let early = crate::tail::before(time);
            let mut handles = files(live, newest, |file| starts_before(file, early))?;
            if let Some(first) = handles.first_mut() {
                first.offset = offset_of(first, early)?;
            }
            return Ok(handles);
        }
        Start::Last(0) => {
            let size = newest.size()?.unwrap_or(0);
            newest.offset = last_start(&newest, size)?;
        }
        Start::Last(lines) => return last_lines(live, newest, lines),
    }
    Ok(vec![newest])
}

/// The live file and those before it, oldest first, back to the first of which `enough` holds.
fn files(live: &Path, newest: Handle, mut enough: impl FnMut(&Handle) -> io::Result<bool>) -> io::Result<Vec<Handle>> {
    let mut rotated = Rotated::new(live, newest.format);
    let mut handles = vec![newest];
    while !handles.last().map_or(Ok(true), &mut enough)? {
        match rotated.next(&handles)? {
            Some(handle) => handles.push(handle),
            None => break,
        }
    }
    handles.reverse();
    Ok(handles)
}

/// Whether the first record of a file is before a time. A compressed file is taken to be when its last one is.
fn starts_before(handle: &Handle, time: Timestamp) -> io::Result<bool> {
    match handle.plain() {
        Some(_) => Ok(first_time(handle, 0)?.is_some_and(|(_, first)| first < time)),
        None => Ok(handle.last_time().is_some_and(|last| last < time)),
    }
}

/// The first record at or behind `from`, where one starts, that decodes: where it starts, and its time.
fn first_time(handle: &Handle, mut from: u64) -> io::Result<Option<(u64, Timestamp)>> {
    let (Some(file), format) = (handle.plain(), handle.format) else { return Ok(None) };
    let mut block = vec![0; BLOCK];
    let mut clock = TimestampParser::default();
    // A record that does not decode is stepped over, but not without end.
    for _ in 0..MOST_STRANGE {
        let read = fill_at(file, &mut block, from)?;
        let mut first = None;
        let rest = format.forwards(&block[..read], |Record { start, end }| {
            if first.is_none() {
                let piece = format.decode(&block[start..end], &mut clock);
                first = piece.map(|piece| (from + start as u64, piece.time));
            }
        });
        if first.is_some() || read == 0 {
            return Ok(first);
        }
        from += if rest == 0 { read as u64 } else { rest as u64 };
    }
    Ok(None)
}

/// Where the first record at or after a time starts, taking times to be in order.
fn offset_of(handle: &Handle, time: Timestamp) -> io::Result<u64> {
    let Some(file) = handle.plain() else { return Ok(0) };
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > BLOCK as u64 {
        let middle = low + (high - low) / 2;
        let start = handle.format.next_start(file, middle)?;
        match first_time(handle, start)? {
            Some((at, found)) if at < high && found < time => low = at,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Where the record that is being written at `end` starts.
fn last_start(handle: &Handle, end: u64) -> io::Result<u64> {
    let Some(file) = handle.plain() else { return Ok(0) };
    let mut at = end;
    handle.format.backwards(file, end, |start, record| {
        let is_whole = handle.format.first_end(record) == Some(record.len());
        at = if is_whole { start + record.len() as u64 } else { start };
        ControlFlow::Break(())
    })?;
    Ok(at)
}

/// What was half a record where reading stopped, and told to be none, may be whole by now: then it is read from its start.
pub(super) fn back_to_whole(handle: &mut Handle) -> io::Result<()> {
    match start_of_whole(handle) {
        Ok(start) => handle.offset = start.unwrap_or(handle.offset),
        // It was truncated meanwhile, which the next read finds.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Where the record starts that a handle is inside of, if it is one.
fn start_of_whole(handle: &Handle) -> io::Result<Option<u64>> {
    let Some(file) = handle.plain() else { return Ok(None) };
    if handle.format.ends_at(file, handle.offset)? {
        return Ok(None);
    }
    let start = last_start(handle, handle.offset)?;
    let mut bytes = vec![0; BLOCK];
    let read = fill_at(file, &mut bytes, start)?;
    let end = handle.format.first_end(&bytes[..read]).filter(|end| start + *end as u64 > handle.offset);
    let record = end.and_then(|end| handle.format.decode(&bytes[..end], &mut TimestampParser::default()));
    Ok(record.map(|_| start))
}

/// The files and places from which the last `wanted` lines come whole.
fn last_lines(live: &Path, newest: Handle, mut wanted: u64) -> io::Result<Vec<Handle>> {
    let mut rotated = Rotated::new(live, newest.format);
    let mut handles = Vec::new();
    let mut next = Some(newest);
    let mut behind = Behind::default();
    while let Some(mut handle) = next {
        wanted = match handle.plain() {
            Some(_) => back_to_line(&mut handle, wanted, &mut behind)?,
            None => skip_to_line(&mut handle, &rotated, wanted, &mut behind)?,
        };
        handles.push(handle);
        next = if wanted > 0 { rotated.next(&handles)? } else { None };
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
    let (Some(file), format) = (handle.plain(), handle.format) else { return Ok(wanted) };
    let size = file.metadata()?.len();
    let mut clock = TimestampParser::default();
    let mut settled = [false; 2];
    let (mut offset, mut shown_from) = (0, 0);
    format.backwards(file, size, |start, record| {
        let piece = format.decode(record, &mut clock);
        if wanted > 0 {
            if let Some(Piece { stream, time, complete, .. }) = piece {
                if behind.ends_a_line(stream, time, complete) {
                    wanted -= 1;
                    shown_from = start;
                }
                behind.0[stream as usize] = Some(time);
            }
            return ControlFlow::Continue(());
        }
        // Now far enough back that each stream's first line is known from its beginning.
        offset = start;
        if let Some(Piece { stream, complete: true, .. }) = piece {
            settled[stream as usize] = true;
        }
        let quiet =
            shown_from - start > WARM_UP && (settled[Stream::Stdout as usize] || settled[Stream::Stderr as usize]);
        if settled == [true; 2] || quiet { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    handle.offset = offset;
    handle.shown_from = if wanted > 0 { 0 } else { shown_from };
    Ok(wanted)
}

/// Makes room behind a buffer that is full without a whole record. Once it holds more than any record has, the beginning
/// goes instead, and the number of bytes that went is returned: compressed, a line without end is small.
fn make_room(buffer: &mut Vec<u8>, format: Format) -> usize {
    let longest = format.longest();
    if buffer.len() < 2 * longest {
        buffer.resize(buffer.len() * 2, 0);
        return 0;
    }
    let dropped = buffer.len() - longest;
    buffer.copy_within(dropped.., 0);
    dropped
}

/// A compressed file can only be read forwards: counted first, then read up to the wanted line without being shown.
fn skip_to_line(handle: &mut Handle, rotated: &Rotated<'_>, wanted: u64, behind: &mut Behind) -> io::Result<u64> {
    let format = handle.format;
    let mut counted = match rotated.open() {
        Ok(again) if again.identity == handle.identity => again,
        Ok(_) => return Ok(wanted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(wanted),
        Err(error) => return Err(error),
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
    let mut clock = TimestampParser::default();
    let (mut buffer, mut filled, mut base) = (vec![0; BLOCK], 0, 0);
    loop {
        if filled == buffer.len() {
            let dropped = make_room(&mut buffer, format);
            filled -= dropped;
            base += dropped as u64;
        }
        let Found::Bytes(read) = counted.read(&mut buffer, filled)? else { break };
        filled += read;
        let rest = format.forwards(&buffer[..filled], |Record { start, end }| {
            let Some(piece) = format.decode(&buffer[start..end], &mut clock) else { return };
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
        });
        buffer.copy_within(rest..filled, 0);
        filled -= rest;
        base += rest as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// However much comes without a record in it, what is held stays small, and its end stays.
    #[test]
    fn a_buffer_without_a_record_does_not_grow_for_ever() {
        for format in [Format::JsonFile, Format::Local] {
            let mut buffer = vec![0; BLOCK];
            let mut dropped = 0;
            while dropped < 64 << 20 {
                let last = buffer.len() - 1;
                buffer[last] = 1;
                let more = make_room(&mut buffer, format);
                assert!(buffer.len() <= 4 * format.longest(), "{format:?}: {}", buffer.len());
                assert_eq!(buffer[last - more], 1, "{format:?}");
                dropped += more;
            }
        }
    }
}

//! Finds where to start in existing log files.
//!
//! In: a container's live and rotated files, and a [`Start`]. Out: handles, oldest first, set to where reading starts.
//! Called by [`super::container_log`]. A number of lines is searched from the end, a time by binary search. Everything
//! is read only if everything is wanted, or in compressed files.
//!
//! Times in a log are not in order: two writers stamp stdout and stderr, and a line that dockerd cut at 16 KiB carries
//! the time of its first piece. So the search looks for an earlier time, see [`crate::tail::minus_slack`].

use super::log_file::{self, Handle, MAX_WALKS, ReadOutcome, Rotated};
use super::pread::fill_at;
use crate::model::line_id::Stream;
use crate::model::time::{Timestamp, TimestampParser};
use crate::tail::decode::format::{Format, RecordRange};
use crate::tail::{Piece, Start};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Number of bytes per read.
const BLOCK: usize = 256 * 1024;
/// How many bytes before the first line to show are searched for a line of a stream that has none so far.
const WARM_UP: u64 = 1024 * 1024;
/// After this many blocks without a record, a file counts as having none.
const MAX_UNDECODED: u32 = 16;

/// Opens the files to read, oldest first, the live one last.
pub(super) fn start(live: &Path, newest: Handle, start: Start) -> io::Result<Vec<Handle>> {
    let format = newest.format;
    let mut found = start_from(live, newest, start);
    for _ in 1..MAX_WALKS {
        match &found {
            // The numbers give the order, unless a rotation happened meanwhile.
            Ok(handles) if is_live(live, handles.last())? => break,
            // The file was truncated after its size was read.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => break,
            Ok(_) | Err(_) => {}
        }
        found = start_from(live, Handle::open(live, format)?, start);
    }
    found
}

/// Returns whether `newest` is the live file. Also true between two steps of a rotation, when there is no live file.
fn is_live(live: &Path, newest: Option<&Handle>) -> io::Result<bool> {
    match log_file::identity(live) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        found => Ok(newest.map(|newest| newest.identity) == Some(found?)),
    }
}

fn start_from(live: &Path, mut newest: Handle, start: Start) -> io::Result<Vec<Handle>> {
    match start {
        Start::All => return files(live, newest, |_| Ok(false)),
        Start::Since(time) => {
            let early = crate::tail::minus_slack(time);
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

/// Opens the live file and the rotated files back to the first for which `enough` holds. Oldest first.
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

/// Returns whether the first record of a file is earlier than `time`. For a compressed file, checks the last record.
fn starts_before(handle: &Handle, time: Timestamp) -> io::Result<bool> {
    match handle.plain() {
        Some(_) => Ok(first_time(handle, 0)?.is_some_and(|(_, first)| first < time)),
        None => Ok(handle.last_time().is_some_and(|last| last < time)),
    }
}

/// Finds the first record from `from` on that can be decoded. Returns its offset and time. A record
/// must start at `from`.
fn first_time(handle: &Handle, mut from: u64) -> io::Result<Option<(u64, Timestamp)>> {
    let (Some(file), format) = (handle.plain(), handle.format) else { return Ok(None) };
    let mut block = vec![0; BLOCK];
    let mut clock = TimestampParser::default();
    // Records that cannot be decoded are skipped, up to a limit.
    for _ in 0..MAX_UNDECODED {
        let read = fill_at(file, &mut block, from)?;
        let mut first = None;
        let rest = format.forwards(&block[..read], |RecordRange { start, end }| {
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

/// Returns an offset at or before the first record with at least this time, assuming that times are in order.
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

/// Returns where the record starts that is being written at `end`.
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

/// Moves back to the start of a record that was incomplete when reading stopped and is complete now. It was
/// reported as corrupt then.
pub(super) fn back_to_whole(handle: &mut Handle) -> io::Result<()> {
    match start_of_whole(handle) {
        Ok(start) => handle.offset = start.unwrap_or(handle.offset),
        // The file was truncated meanwhile. The next read finds that.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Returns the start of the complete record that contains the handle's offset, if there is one.
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

/// Opens the files that contain the last `wanted` lines, set to where reading yields these lines completely.
fn last_lines(live: &Path, newest: Handle, mut wanted: u64) -> io::Result<Vec<Handle>> {
    let mut rotated = Rotated::new(live, newest.format);
    let mut handles = Vec::new();
    let mut next = Some(newest);
    let mut next_times = NextTimes::default();
    while let Some(mut handle) = next {
        wanted = match handle.plain() {
            Some(_) => back_to_line(&mut handle, wanted, &mut next_times)?,
            None => skip_to_line(&mut handle, &rotated, wanted, &mut next_times)?,
        };
        handles.push(handle);
        next = if wanted > 0 { rotated.next(&handles)? } else { None };
    }
    handles.reverse();
    Ok(handles)
}

/// The time of each stream's next record after some place in the log, if there is one.
#[derive(Default)]
struct NextTimes([Option<Timestamp>; 2]);

impl NextTimes {
    /// Returns whether a record ends its line: it has the newline, or its line never got one.
    fn ends_a_line(&self, stream: Stream, time: Timestamp, complete: bool) -> bool {
        complete || self.0[stream as usize] != Some(time)
    }
}

/// Moves a handle back by `wanted` lines, or to its start. Returns how many lines are still wanted.
fn back_to_line(handle: &mut Handle, mut wanted: u64, next_times: &mut NextTimes) -> io::Result<u64> {
    let (Some(file), format) = (handle.plain(), handle.format) else { return Ok(wanted) };
    let size = file.metadata()?.len();
    let mut clock = TimestampParser::default();
    let mut settled = [false; 2];
    let (mut offset, mut shown_from) = (0, 0);
    format.backwards(file, size, |start, record| {
        let piece = format.decode(record, &mut clock);
        if wanted > 0 {
            if let Some(Piece { stream, time, complete, .. }) = piece {
                if next_times.ends_a_line(stream, time, complete) {
                    wanted -= 1;
                    shown_from = start;
                }
                next_times.0[stream as usize] = Some(time);
            }
            return ControlFlow::Continue(());
        }
        // Move back until the first line to show of each stream is read from its beginning.
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

/// Makes space in a buffer that is full and contains no complete record. Once the buffer is larger than any record,
/// drops bytes from its start instead and returns their number: a tiny compressed file can contain an endless line.
fn make_space(buffer: &mut Vec<u8>, format: Format) -> usize {
    let longest = format.longest();
    if buffer.len() < 2 * longest {
        buffer.resize(buffer.len() * 2, 0);
        return 0;
    }
    let dropped = buffer.len() - longest;
    buffer.copy_within(dropped.., 0);
    dropped
}

/// Like [`back_to_line`] for a compressed file, which can only be read forwards: counts its lines first, then reads up
/// to the first wanted line without showing the others.
fn skip_to_line(
    handle: &mut Handle,
    rotated: &Rotated<'_>,
    wanted: u64,
    next_times: &mut NextTimes,
) -> io::Result<u64> {
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
    // For each stream: its first time, and the offset and time of its last record if that has no newline.
    let (mut first, mut open) = ([None; 2], [None; 2]);
    let mut clock = TimestampParser::default();
    let (mut buffer, mut filled, mut base) = (vec![0; BLOCK], 0, 0);
    loop {
        if filled == buffer.len() {
            let dropped = make_space(&mut buffer, format);
            filled -= dropped;
            base += dropped as u64;
        }
        let ReadOutcome::Bytes(read) = counted.read(&mut buffer, filled)? else { break };
        filled += read;
        let rest = format.forwards(&buffer[..filled], |RecordRange { start, end }| {
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
            && next_times.ends_a_line(stream, time, false)
        {
            end_at(at);
        }
        next_times.0[stream as usize] = first[stream as usize].or(next_times.0[stream as usize]);
    }
    let left = wanted - ends.len() as u64;
    handle.shown_from = if left > 0 { 0 } else { ends.front().copied().unwrap_or(0) };
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many bytes come without a record, the buffer stays small and keeps their end.
    #[test]
    fn a_buffer_without_a_record_stays_small() {
        for format in [Format::JsonFile, Format::Local] {
            let mut buffer = vec![0; BLOCK];
            let mut dropped = 0;
            while dropped < 64 << 20 {
                let last = buffer.len() - 1;
                buffer[last] = 1;
                let more = make_space(&mut buffer, format);
                assert!(buffer.len() <= 4 * format.longest(), "{format:?}: {}", buffer.len());
                assert_eq!(buffer[last - more], 1, "{format:?}");
                dropped += more;
            }
        }
    }
}

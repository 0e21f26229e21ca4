//! Properties of this module's decoders that hold for any input, for the fuzz targets and for tests. See
//! [`crate::model::fuzz_checks`].
//!
//! Each decoder is compared with an independent implementation: `serde_json` for `json-file`, `prost` for `local`, and
//! `flate2` on bytes in memory for compressed files. Decoding in blocks and frames is compared with a simple decoder
//! that gets all bytes at once, and cutting the input anywhere must make no difference.

use super::api::body::Error;
use super::decode::block::{Block, BlockDecoder};
use super::decode::format::{Format, RecordRange};
use super::decode::{json_file, local};
use super::files::log_file::{GUARD, Handle, ReadOutcome};
use super::lines::{Joiner, LineSink};
use super::{Decoded, Frames, Piece, Window};
use crate::model::batch::{Batch, ContainerKey, Encoding, Item, Part, Reason};
use crate::model::fuzz_checks::{Script, chunks, lengths};
use crate::model::json;
use crate::model::line_id::{Cursor, Route, Stream};
use crate::model::time::{Timestamp, TimestampParser};
use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Checks one line of a `json-file` log.
pub fn json_record(line: &[u8]) {
    let mut warm = TimestampParser::default();
    let piece = Format::JsonFile.decode(line, &mut warm);
    let again = Format::JsonFile.decode(line, &mut warm);
    assert_eq!(piece.as_ref().map(seen), again.as_ref().map(seen), "with a parser that has cached the minute");
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = std::str::from_utf8(line).ok();
    match (&piece, text.and_then(|text| serde_json::from_str::<JsonLog>(text).ok())) {
        (Some(piece), Some(record)) => assert_eq!(plain(piece), record.content(), "{}", line.escape_ascii()),
        (None, Some(record)) => assert_eq!(record.time(), None, "refused: {}", line.escape_ascii()),
        (Some(_), None) => assert!(is_nearly_json(line), "accepted: {}", line.escape_ascii()),
        (None, None) => {}
    }
    if let Some(Piece { text, encoding, .. }) = &piece {
        let quoted = [b"\"", &**text, b"\""].concat();
        let is_whole = serde_json::from_slice::<String>(&quoted).is_ok();
        match encoding {
            Encoding::Surrogates => {
                assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&quoted).is_ok(), "not inside of a string");
                assert!(!is_whole, "no half of a surrogate pair in it");
            }
            _ => assert!(is_whole, "not inside of a string"),
        }
        assert_eq!(*encoding == Encoding::Plain, json_file::first_special(text) == text.len());
    }
}

#[derive(serde::Deserialize)]
struct JsonLog {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: String,
}

impl JsonLog {
    fn time(&self) -> Option<i64> {
        // Times that the two libraries read differently are compared elsewhere.
        if !crate::model::fuzz_checks::is_shared_form(self.time.as_bytes()) {
            return Timestamp::parse(self.time.as_bytes()).map(|time| time.0);
        }
        i64::try_from(self.time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
    }

    fn content(&self) -> (Option<i64>, Stream, Vec<u8>, bool) {
        let stream = if self.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
        let line = self.log.strip_suffix('\n');
        (self.time(), stream, line.unwrap_or(&self.log).into(), line.is_some())
    }
}

fn plain(piece: &Piece<'_>) -> (Option<i64>, Stream, Vec<u8>, bool) {
    let mut text = Vec::new();
    json::unescape(&piece.text, &mut text);
    (Some(piece.time.0), piece.stream, text, piece.complete)
}

fn seen<'a>(piece: &'a Piece<'_>) -> (Timestamp, Stream, &'a [u8], Encoding, bool) {
    (piece.time, piece.stream, &piece.text, piece.encoding, piece.complete)
}

/// Returns whether a line may be accepted although a library refuses it: because of lone surrogates, which JSON allows
/// but a `String` cannot contain, or of attributes, which are not checked.
fn is_nearly_json(line: &[u8]) -> bool {
    let has = |what| memchr::memmem::find(line, what).is_some();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    is_json && (has(b"\\ud") || has(b"\\uD")) || has(b"\"attrs\":{")
}

/// Checks lines of a `json-file` log, complete or not, read in blocks. The first bytes control how.
pub fn json_block(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (cuts, limit, hidden) = (lengths(script.take(4)), 1 + usize::from(script.byte()), script.byte());
    let log = script.rest();
    let starts = memchr::memchr_iter(b'\n', log).map(|at| at + 1);
    let shown_from = [0].into_iter().chain(starts).take(1 + usize::from(hidden % 8)).last().unwrap_or(0);
    let expected = lines_simply(log, shown_from, limit);
    assert_eq!(in_blocks(Format::JsonFile, [log], shown_from, limit).as_ref(), Some(&expected));
    assert_eq!(in_blocks(Format::JsonFile, chunks(&cuts, log), shown_from, limit), Some(expected), "cut by {cuts:?}");
}

/// Decodes line by line: each line as it is, or from where a record starts in it.
fn lines_simply(log: &[u8], shown_from: usize, limit: usize) -> DecodedLog {
    let mut reading = SimpleDecoder::new(limit);
    let mut at = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        reading.joiner.muted = at < shown_from;
        let record = &line[..line.len() - 1];
        let is_start = |at: &usize| *at == 0 || record[*at..].starts_with(b"{\"log\":\"");
        let decode = |at| Some((at, Format::JsonFile.decode(&record[at..], &mut TimestampParser::default())?));
        match (0..record.len()).filter(is_start).find_map(decode) {
            Some((from, piece)) => {
                reading.lose(from as u64);
                reading.joiner.push(piece, None, &mut LineSink::of(&mut reading.batch));
            }
            None => reading.lose(line.len() as u64),
        }
        at += line.len();
    }
    reading.finish(at)
}

/// Checks one record of a `local` log, without its lengths.
pub fn local_record(entry: &[u8]) {
    let record = framed(entry);
    let piece = local::decode(&record);
    match (piece, LogEntry::decode(entry)) {
        (Some(piece), Ok(entry)) => assert_eq!(seen(&piece), seen(&entry.piece()), "{entry:?}"),
        (Some(_), Err(why)) => panic!("accepted: {why}: {}", entry.escape_ascii()),
        (None, Ok(_)) => assert!(is_foreign(entry), "refused: {}", entry.escape_ascii()),
        (None, Err(_)) => {}
    }
}

/// `LogEntry` of dockerd's `entry.proto`. The attributes, which were added in Docker 29.5, are ignored.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LogEntry {
    #[prost(string, tag = "1")]
    pub(super) source: String,
    #[prost(int64, tag = "2")]
    pub(super) time_nano: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) line: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub(super) partial: bool,
    #[prost(message, optional, tag = "5")]
    pub(super) partial_log_metadata: Option<PartialLogEntryMetadata>,
}

/// `PartialLogEntryMetadata` of dockerd's `entry.proto`: describes a piece of a line.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialLogEntryMetadata {
    #[prost(bool, tag = "1")]
    pub(super) last: bool,
    #[prost(string, tag = "2")]
    pub(super) id: String,
    #[prost(int32, tag = "3")]
    pub(super) ordinal: i32,
}

impl LogEntry {
    /// Returns its content. Panics unless its source is stdout or stderr.
    pub(super) fn piece(&self) -> Piece<'_> {
        let stream = match self.source.as_str() {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            other => panic!("no stream: {other:?}"),
        };
        let complete = !self.partial || self.partial_log_metadata.as_ref().is_some_and(|metadata| metadata.last);
        let (time, text) = (Timestamp(self.time_nano), Cow::Borrowed(&*self.line));
        Piece { time, stream, text, encoding: Encoding::Raw, complete }
    }
}

/// Returns an entry with its length before and after it.
pub(super) fn framed(entry: &[u8]) -> Vec<u8> {
    let length = u32::try_from(entry.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, entry, &length].concat()
}

/// Returns whether an entry may be refused although a library accepts it. dockerd never writes such entries: without a
/// source, with another source, even if a later one replaces it, or with groups, an obsolete feature of the protocol.
fn is_foreign(entry: &[u8]) -> bool {
    let mut has_source = false;
    let mut rest = entry;
    while let Ok((tag, wire_type)) = decode_key(&mut rest) {
        let before = rest;
        if wire_type == WireType::StartGroup || skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err()
        {
            return true;
        }
        let mut value = &before[..before.len() - rest.len()];
        if wire_type == WireType::LengthDelimited {
            let _ = decode_varint(&mut value);
        }
        match tag {
            1 if value != b"stdout" && value != b"stderr" => return true,
            1 => has_source = true,
            5 if has_group(value) => return true,
            _ => {}
        }
    }
    !has_source
}

fn has_group(mut message: &[u8]) -> bool {
    while let Ok((tag, wire_type)) = decode_key(&mut message) {
        if wire_type == WireType::StartGroup {
            return true;
        }
        if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

/// Checks records of a `local` log with garbage between them, or arbitrary bytes, read in blocks and backwards. The
/// first bytes control how.
pub fn local_block(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (cuts, limit, hidden) =
        (lengths(script.take(4)), 1 + usize::from(script.byte()), usize::from(script.byte()) % 64);
    let log = if script.byte().is_multiple_of(4) { script.rest().to_vec() } else { local_log(script) };
    let expected = records_simply(&log, hidden, limit);
    assert_eq!(in_blocks(Format::Local, [&*log], hidden, limit), expected);
    let records: Vec<RecordRange> = (0..log.len()).filter_map(|at| whole_at(&log, at)).collect();
    assert_eq!(local::find(&log), records.first().map(|record| record.start));
    // After garbage, an incomplete record is skipped in favour of a record inside it.
    if records.is_sorted_by(|before, record| before.end <= record.start) {
        assert_eq!(in_blocks(Format::Local, chunks(&cuts, &log), hidden, limit), expected, "cut by {cuts:?}");
    }
    let forwards = records_forwards(&log);
    let backwards = records_backwards(&log);
    let whole: Vec<RecordRange> = backwards.iter().copied().filter(|record| is_whole(&log, *record)).collect();
    // Without garbage between them, there is only one way to read them.
    if forwards.iter().map(|record| record.end - record.start).sum::<usize>() == log.len() {
        assert_eq!(whole, forwards);
    }
    for pair in backwards.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{backwards:?}");
    }
    assert!(backwards.iter().all(|record| record.start < record.end), "{backwards:?}");
}

/// Builds a log from a fuzzer's bytes: records as dockerd writes them, and garbage between them.
fn local_log(mut script: Script<'_>) -> Vec<u8> {
    let mut log = Vec::new();
    let mut time_nano = 1_795_215_653_037_882_171;
    while !script.is_empty() {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        if kind & 7 == 7 {
            log.extend_from_slice(script.take(length % 32));
            continue;
        }
        time_nano += i64::from(kind >> 6);
        let source = if kind & 1 == 0 { "stdout" } else { "stderr" }.to_owned();
        let metadata = PartialLogEntryMetadata { last: kind & 8 != 0, id: "id".to_owned(), ordinal: 1 };
        let partial_log_metadata = (kind & 16 != 0).then_some(metadata);
        let line = script.take(length).to_vec();
        let entry = LogEntry { source, time_nano, line, partial: kind & 6 == 2, partial_log_metadata };
        log.extend(framed(&entry.encode_to_vec()));
    }
    log
}

/// Returns the length of the complete record at an offset, and its content as a library reads it.
fn record_at(log: &[u8], at: usize) -> Option<(usize, Option<LogEntry>)> {
    let head = log.get(at..at + 4)?;
    let length = u32::from_be_bytes(head.try_into().ok()?) as usize;
    let end = at + 4 + length;
    let entry = log.get(at + 4..end)?;
    let is_whole = (1..=1_000_000).contains(&length) && log.get(end..end + 4) == Some(head);
    is_whole.then(|| (length + 8, LogEntry::decode(entry).ok().filter(|_| !is_foreign(entry))))
}

/// Decodes record by record, and after garbage from the next valid one. `None` if the log does not start like one.
fn records_simply(log: &[u8], shown_from: usize, limit: usize) -> Option<DecodedLog> {
    let mut reading = SimpleDecoder::new(limit);
    let mut at = 0;
    while let Some(head) = log.get(at..at + 4) {
        let length = u32::from_be_bytes(head.try_into().ok()?) as usize;
        if let Some((length, entry)) = record_at(log, at) {
            reading.joiner.muted = at < shown_from;
            match entry {
                Some(entry) => reading.joiner.push(entry.piece(), None, &mut LineSink::of(&mut reading.batch)),
                None => reading.lose(length as u64),
            }
            at += length;
        } else if (1..=1_000_000).contains(&length) && at + length + 8 > log.len() {
            // The rest of the record may follow.
            break;
        } else if at == 0 {
            return None;
        } else {
            let Some(next) = (at + 1..log.len()).find_map(|at| whole_at(log, at)) else { break };
            reading.lose((next.start - at) as u64);
            at = next.start;
        }
    }
    Some(reading.finish(at))
}

pub(super) fn records_forwards(log: &[u8]) -> Vec<RecordRange> {
    let mut records = Vec::new();
    let rest = Format::Local.forwards(log, |record| records.push(record));
    assert!(rest <= log.len());
    let ends = records.iter().map(|record| record.end).chain([rest]);
    let starts = [0].into_iter().chain(records.iter().map(|record| record.end));
    assert!(starts.zip(ends).all(|(start, end)| start <= end), "{records:?} then {rest}");
    assert!(records.iter().all(|record| is_whole(log, *record)), "{records:?}");
    records
}

/// Reads records backwards. Returns them in the order of the file.
pub(super) fn records_backwards(log: &[u8]) -> Vec<RecordRange> {
    let scratch = Scratch::new("backwards.log", log);
    let file = std::fs::File::open(&scratch.0).unwrap_or_else(|error| panic!("{error}"));
    let mut records = Vec::new();
    let read = Format::Local.backwards(&file, log.len() as u64, |start, bytes| {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let record = RecordRange { start, end: start + bytes.len() };
        assert_eq!(&log[record.start..record.end], bytes);
        records.push(record);
        ControlFlow::Continue(())
    });
    assert!(read.is_ok(), "{read:?}");
    records.reverse();
    records
}

fn is_whole(log: &[u8], RecordRange { start, end }: RecordRange) -> bool {
    record_at(log, start).is_some_and(|(length, _)| start + length == end)
}

/// Returns the complete record at an offset, if it can be decoded.
pub(super) fn whole_at(log: &[u8], start: usize) -> Option<RecordRange> {
    let (length, entry) = record_at(log, start)?;
    entry.map(|_| RecordRange { start, end: start + length })
}

/// Decodes the chunks of a log like [`super::files::container_log`]. `None` if the format is unknown.
fn in_blocks<'a>(
    format: Format,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    shown_from: usize,
    limit: usize,
) -> Option<DecodedLog> {
    let mut blocks = BlockDecoder::new(format, Joiner::new(limit, Window::default()), Timestamp(i64::MAX));
    let (mut decoded, mut carry, mut offset) = (DecodedLog::default(), Vec::new(), 0);
    for chunk in chunks {
        carry.extend_from_slice(chunk);
        let mut batch = batch();
        let block = Block { bytes: &carry, from: 0, offset: offset as u64, shown_from: shown_from as u64 };
        let taken = blocks.decode(block, &mut LineSink::of(&mut batch)).ok()?.taken;
        let rest = carry.split_off(taken);
        batch.bytes = std::mem::replace(&mut carry, rest);
        offset += taken;
        decoded.add(&batch);
    }
    let mut batch = batch();
    blocks.joiner.muted = false;
    blocks.joiner.flush_all(&mut LineSink::of(&mut batch));
    decoded.add(&batch);
    decoded.taken = offset;
    Some(decoded)
}

/// What some bytes decode to, regardless of how that is split into batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DecodedLog {
    items: Vec<DecodedItem>,
    /// Number of bytes that are completely decoded.
    taken: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum DecodedItem {
    Line(String, Vec<u8>, Part),
    Lost(Reason, u64),
}

impl DecodedLog {
    fn add(&mut self, batch: &Batch) {
        let mut gaps = batch.gaps.iter().peekable();
        for at in 0..=batch.lines.len() {
            while let Some((_, gap)) = gaps.next_if(|(before, _)| *before == at) {
                self.lose(gap.reason, gap.lost_bytes.unwrap_or(0));
            }
            if let Some(line) = batch.lines.get(at) {
                let Cursor { time, stream, ordinal } = line.cursor();
                let head = format!("{}-{}{ordinal} {:?}", time.0, stream.letter(), line.encoding);
                self.items.push(DecodedItem::Line(head, batch.text(line).to_vec(), line.part));
            }
        }
        assert_eq!(gaps.next(), None, "a gap after the last line");
    }

    /// Returns whether `other` starts with this. The last gap of this may be the start of a longer one.
    fn is_start_of(&self, other: &DecodedLog) -> bool {
        let Some((last, before)) = self.items.split_last() else { return true };
        let is_last = |item: &DecodedItem| match (last, item) {
            (DecodedItem::Lost(reason, lost), DecodedItem::Lost(of, all)) => reason == of && lost <= all,
            (last, item) => last == item,
        };
        other.items.starts_with(before) && other.items.get(before.len()).is_some_and(is_last)
    }

    /// Adds a gap. Adjacent gaps are merged.
    fn lose(&mut self, reason: Reason, lost: u64) {
        match self.items.last_mut() {
            Some(DecodedItem::Lost(last, before)) if *last == reason => *before += lost,
            _ => self.items.push(DecodedItem::Lost(reason, lost)),
        }
    }
}

fn batch() -> Batch {
    Batch::new(ContainerKey(0), Route::File, Vec::new(), Vec::new())
}

/// The simple decoder: joins pieces and gaps that are added one by one.
struct SimpleDecoder {
    joiner: Joiner,
    batch: Batch,
}

impl SimpleDecoder {
    fn new(limit: usize) -> Self {
        SimpleDecoder { joiner: Joiner::new(limit, Window::default()), batch: batch() }
    }

    fn lose(&mut self, bytes: u64) {
        if bytes > 0 {
            self.joiner.gap(Reason::Corrupt, Some(bytes), &mut LineSink::of(&mut self.batch));
        }
    }

    fn finish(mut self, taken: usize) -> DecodedLog {
        self.joiner.muted = false;
        self.joiner.flush_all(&mut LineSink::of(&mut self.batch));
        let mut decoded = DecodedLog { taken, ..DecodedLog::default() };
        decoded.add(&self.batch);
        decoded
    }
}

/// Checks a body of the logs API, with or without a terminal, cut anywhere. The first bytes control how.
pub fn frames(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (cuts, mut limit) = (script.take(4), 1 + usize::from(script.byte()));
    let body = match script.byte() % 4 {
        0 => script.rest().to_vec(),
        1 => {
            // A higher limit, so that long lines have few parts.
            limit = 1024 + 64 * limit;
            terminal_body(script)
        }
        _ => frames_body(script),
    };
    let whole = pushed([&*body], limit);
    // Cutting a large body into tiny chunks takes long and finds nothing more.
    let step = 1 + body.len() / 1024;
    let cuts: Vec<usize> = lengths(cuts).into_iter().map(|cut| cut * step).collect();
    assert_eq!(pushed(chunks(&cuts, &body), limit), whole, "cut by {cuts:?}");
    if body.first().is_some_and(|first| !first.is_ascii_digit()) {
        let expected = frames_simply(&body, limit);
        match whole {
            // Another request would follow from there, which is not part of this test.
            (decoded, Some(error)) if error == super::Discontinuity::TimeWentBack.to_string() => {
                assert!(decoded.is_start_of(&expected.0), "{decoded:?} of {expected:?}");
            }
            whole => assert_eq!(whole, expected),
        }
    }
}

fn terminal_body(mut script: Script<'_>) -> Vec<u8> {
    let (mut body, mut nanos) = (Vec::new(), 1_795_215_653_037_882_171);
    while !script.is_empty() {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        nanos += i64::from(kind & 1);
        let text = script.take(length % 32);
        // Some lines are longer than dockerd's buffer, up to more than `Body` buffers, and repeat their time.
        let pieces = if kind >> 5 == 0 && body.len() < 1 << 18 { 1 + length % 12 } else { 0 };
        for piece in 0..=pieces {
            body.extend_from_slice(&Timestamp(nanos).written());
            body.push(b' ');
            body.resize(body.len() + if piece < pieces { 16 * 1024 } else { 0 }, b'x');
        }
        body.extend_from_slice(text);
        // dockerd before 23 omits some newlines.
        body.extend_from_slice(if kind & 2 == 0 { b"\r\n" } else { b"\r" });
    }
    body
}

fn frames_body(mut script: Script<'_>) -> Vec<u8> {
    let (mut body, mut nanos) = (Vec::new(), 1_795_215_653_037_882_171);
    while !script.is_empty() {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        nanos += i64::from(kind & 1);
        let mut payload = Timestamp(nanos).written().to_vec();
        payload.push(b' ');
        payload.extend_from_slice(script.take(length));
        payload.extend_from_slice(if kind & 8 == 0 { b"\n" } else { b"" });
        // Most are from stdout and stderr, one in 32 is an error of the daemon, and some have no time.
        let stream = if kind >> 3 == 31 { 3 } else { 1 + (kind >> 1 & 1) };
        let payload = if kind & 0xf4 == 0x44 { &payload[length.min(payload.len())..] } else { &payload[..] };
        body.extend_from_slice(&[stream, 0, 0, 0]);
        body.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(payload);
    }
    body
}

/// Decodes a body. Returns its lines, and the error with which it ended.
fn pushed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> (DecodedLog, Option<String>) {
    let mut frames = Frames::new(ContainerKey(0), Route::Stream, Window::default(), limit);
    let mut decoded = DecodedLog::default();
    let mut add = |item: Option<Item>| {
        if let Some(Item::Lines(batch)) = item {
            decoded.add(&batch);
        }
    };
    for chunk in chunks {
        let Decoded { item, end, .. } = frames.push(chunk);
        add(item);
        if let Err(error) = end {
            return (decoded, Some(error.to_string()));
        }
    }
    add(frames.flush().0);
    (decoded, None)
}

/// Decodes a body frame by frame.
fn frames_simply(body: &[u8], limit: usize) -> (DecodedLog, Option<String>) {
    let mut reading = SimpleDecoder::new(limit);
    let (mut rest, mut error) = (body, None);
    while let Some((&[kind, a, b, c, size @ ..], after)) = rest.split_first_chunk::<8>() {
        let size = u32::from_be_bytes(size) as usize;
        let stream = match kind {
            _ if [a, b, c] != [0; 3] => Err(Error::Malformed("no frame header where one should be")),
            _ if size > 4 << 20 => Err(Error::Malformed("a frame longer than any record")),
            4.. => Err(Error::Malformed("a frame of an unknown type")),
            _ if after.len() < size => break,
            0 | 1 => Ok(Stream::Stdout),
            2 => Ok(Stream::Stderr),
            3 => Err(Error::Engine(String::from_utf8_lossy(&after[..size]).trim_end().to_owned())),
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(why) => {
                error = Some(why.to_string());
                break;
            }
        };
        let (payload, next) = after.split_at(size);
        let line = payload.strip_suffix(b"\n");
        let text = line.unwrap_or(payload);
        let space = text.iter().take(65).position(|byte| *byte == b' ');
        let split = space.and_then(|space| text.split_at_checked(space));
        let piece = split.and_then(|(time, text)| Some((Timestamp::parse(time)?, text.strip_prefix(b" ")?)));
        match piece {
            Some((time, text)) => {
                let (text, encoding, complete) = (Cow::Borrowed(text), Encoding::Raw, line.is_some());
                let piece = Piece { time, stream, text, encoding, complete };
                reading.joiner.push(piece, None, &mut LineSink::of(&mut reading.batch));
            }
            None => reading.joiner.gap(Reason::Corrupt, Some(size as u64), &mut LineSink::of(&mut reading.batch)),
        }
        rest = next;
    }
    if error.is_some() {
        // An unfinished line waits for the next request.
        reading.joiner.replay_by_time(
            &crate::model::position::TimePosition::default(),
            crate::tail::resume::Completeness::Proven,
        );
    }
    (reading.finish(0), error)
}

/// Checks a compressed log, complete, cut off or changed, read through its handle. The first bytes control how.
pub fn gzip(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (how, step, skip) = (script.byte(), 1 + usize::from(script.byte()), usize::from(script.byte()));
    let log = script.rest();
    let format = if how & 1 == 0 { Format::JsonFile } else { Format::Local };
    if how & 6 == 6 {
        return drop(unpack(log, format, step, 0));
    }
    let middle = log.len() / (1 + usize::from(how >> 4));
    let packed = [member(&log[..middle], how & 8 != 0), member(&log[middle..], false)].concat();
    let (read, whole) = unpack(&packed, format, step, 0);
    assert!(whole, "an error in a complete file");
    assert_eq!(read, log);
    let (read, _) = unpack(&packed, format, step, skip);
    assert_eq!(read, log.get(skip..).unwrap_or_default(), "from {skip}");
    let (read, whole) = unpack(&packed[..packed.len() - 1 - skip % packed.len()], format, step, 0);
    assert!(log.starts_with(&read), "cut off");
    assert!(!whole || read == log[..middle] || read.is_empty() || read == log, "cut off, but no error");
    same_file(log, &packed, format);
}

/// Compresses like dockerd, which writes the time of the last record into the header.
fn member(log: &[u8], with_time: bool) -> Vec<u8> {
    let builder = GzBuilder::new();
    let builder = if with_time { builder.extra(r#"{"lastTime":"1970-01-01T00:00:01.5Z"}"#) } else { builder };
    let mut encoder = builder.write(Vec::new(), Compression::fast());
    let written = encoder.write_all(log).and_then(|()| encoder.finish());
    written.unwrap_or_else(|error| panic!("{error}"))
}

/// Reads a compressed file through a handle, from an offset on and in steps, and compares with what the library reads
/// from memory. Returns the bytes, and whether reading ended without an error.
fn unpack(packed: &[u8], format: Format, step: usize, skip: usize) -> (Vec<u8>, bool) {
    const MOST: usize = 1 << 16;
    let scratch = Scratch::new("log.gz", packed);
    let mut handle = open(&scratch.0, format).unwrap_or_else(|error| panic!("{error}"));
    let mut expected = vec![0; MOST];
    let (length, fails) = fill(&mut MultiGzDecoder::new(packed), &mut expected);
    expected.truncate(length);
    let mut read = Vec::new();
    let mut block = vec![0; GUARD + step];
    let mut go_to = |place| {
        let mut is_there = handle.skip_to(place)?;
        while handle.must_skip() {
            is_there = handle.skip(&mut block)?;
        }
        Ok::<_, io::Error>(is_there)
    };
    let mut ended = match go_to(skip as u64) {
        Ok(is_there) => {
            assert_eq!(is_there, skip <= length);
            handle.offset < skip as u64
        }
        Err(_) => {
            assert!(fails);
            return (read, false);
        }
    };
    while !ended && read.len() + skip < MOST {
        match handle.read(&mut block, GUARD) {
            Ok(ReadOutcome::Bytes(0)) => ended = true,
            Ok(ReadOutcome::Bytes(more)) => read.extend_from_slice(&block[GUARD..GUARD + more]),
            Ok(ReadOutcome::Rewritten) => panic!("a compressed file is never rewritten"),
            Err(_) => {
                assert!(fails, "an error that the library does not report");
                break;
            }
        }
        assert_eq!(handle.offset, (skip + read.len()) as u64);
    }
    assert!(read.starts_with(expected.get(skip..).unwrap_or_default()) || read.len() + skip >= MOST);
    (read, ended)
}

/// Fills the buffer or reads to the end. Returns the number of bytes, and whether there was an error.
fn fill(from: &mut impl Read, into: &mut [u8]) -> (usize, bool) {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(_) => return (filled, true),
        }
    }
    (filled, false)
}

/// Checks that a file and its compressed copy count as the same, and a different file does not.
fn same_file(log: &[u8], packed: &[u8], format: Format) {
    let of = |name: &str, bytes: &[u8]| {
        let scratch = Scratch::new(name, bytes);
        open(&scratch.0, format).map(|handle| (handle.fingerprint(), handle.last_time()))
    };
    let Ok((compressed, time)) = of("same.log.gz", packed) else { panic!("a compressed file opens") };
    assert!(time.is_none_or(|time| time == Timestamp(1_500_000_000)));
    let looks_right = log.first().is_none_or(|first| *first == 0 || *first == b'{' && format == Format::JsonFile);
    match of("same.log", log) {
        Ok((plain, _)) => assert_eq!((plain, looks_right), (compressed, true)),
        Err(error) => assert_eq!((error.kind(), looks_right), (io::ErrorKind::InvalidData, false)),
    }
    let mut other = log.to_vec();
    if let (Some(end), Ok(_)) = (format.first_end(log), of("same.log", log)) {
        other[end / 2] ^= 1;
        if let (Ok((fingerprint, _)), Some(_)) = (of("same.log", &other), format.first_end(&other)) {
            assert_ne!(fingerprint, compressed);
        }
    }
}

fn open(path: &Path, format: Format) -> io::Result<Handle> {
    Handle::open(path, format)
}

/// A temporary file, removed on drop. Its name is unique to this process and thread.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let thread = format!("{:?}", std::thread::current().id());
        let path = std::env::temp_dir().join(format!("logwatch-{}-{thread}-{name}", std::process::id()));
        let written = std::fs::write(&path, bytes);
        assert!(written.is_ok(), "{}: {written:?}", path.display());
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use crate::model::fuzz_checks::tests::try_out;

    #[test]
    fn a_library_reads_records_of_both_formats_alike() {
        try_out("json_record", super::json_record);
        try_out("local_record", super::local_record);
    }

    #[test]
    fn the_size_of_blocks_does_not_matter() {
        try_out("json_block", super::json_block);
        try_out("local_block", super::local_block);
    }

    #[test]
    fn the_size_of_chunks_does_not_matter() {
        try_out("frames", super::frames);
    }

    #[test]
    fn a_compressed_file_yields_the_original() {
        try_out("gzip", super::gzip);
    }
}

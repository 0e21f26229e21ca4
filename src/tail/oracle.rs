//! What holds of the room's decoders whatever they are given. As [`crate::model::oracle`].
//!
//! `serde_json` is the oracle of `json-file`, `prost` that of `local`, and `flate2` on bytes in memory that of a
//! compressed file. How blocks and frames are taken apart is held against a plain reading of the whole, and a cut
//! anywhere must make no difference.

use super::api::body::Error;
use super::decode::block::{Block, Blocks};
use super::decode::format::{Format, Record};
use super::decode::{json_file, local};
use super::files::log_file::{Found, GUARD, Handle};
use super::lines::{Joiner, Sheet, Window};
use super::{Frames, Piece};
use crate::model::batch::{Batch, ContainerKey, Encoding, Item, Part, Reason};
use crate::model::cursor::{Cursor, Route, Stream};
use crate::model::json;
use crate::model::oracle::{Script, chunks, lengths};
use crate::model::time::{Timestamp, TimestampParser};
use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// One line of a `json-file` log.
pub fn json_record(line: &[u8]) {
    let mut warm = TimestampParser::default();
    let piece = Format::JsonFile.decode(line, &mut warm);
    let again = Format::JsonFile.decode(line, &mut warm);
    assert_eq!(piece.as_ref().map(seen), again.as_ref().map(seen), "by a reader that knows the minute");
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = std::str::from_utf8(line).ok();
    match (&piece, text.and_then(|text| serde_json::from_str::<JsonLog>(text).ok())) {
        (Some(piece), Some(record)) => assert_eq!(plain(piece), record.told(), "{}", line.escape_ascii()),
        (None, Some(record)) => assert_eq!(record.time(), None, "refused: {}", line.escape_ascii()),
        (Some(_), None) => assert!(is_nearly_json(line), "taken: {}", line.escape_ascii()),
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
        // What the two read differently is compared elsewhere.
        if !crate::model::oracle::is_shared_form(self.time.as_bytes()) {
            return Timestamp::parse(self.time.as_bytes()).map(|time| time.0);
        }
        i64::try_from(self.time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
    }

    fn told(&self) -> (Option<i64>, Stream, Vec<u8>, bool) {
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

/// What is taken though a library refuses it: half a surrogate pair, which JSON can write and a `String` cannot hold, and
/// attributes, which are not looked into.
fn is_nearly_json(line: &[u8]) -> bool {
    let has = |what| memchr::memmem::find(line, what).is_some();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    is_json && (has(b"\\ud") || has(b"\\uD")) || has(b"\"attrs\":{")
}

/// Lines of a `json-file` log, whole and half, read in blocks. The first bytes say how.
pub fn json_block(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (cuts, limit, hidden) = (lengths(script.take(4)), 1 + usize::from(script.byte()), script.byte());
    let log = script.rest();
    let starts = memchr::memchr_iter(b'\n', log).map(|at| at + 1);
    let shown_from = [0].into_iter().chain(starts).take(1 + usize::from(hidden % 8)).last().unwrap_or(0);
    let plainly = lines_plainly(log, shown_from, limit);
    assert_eq!(in_blocks(Format::JsonFile, [log], shown_from, limit).as_ref(), Some(&plainly));
    assert_eq!(in_blocks(Format::JsonFile, chunks(&cuts, log), shown_from, limit), Some(plainly), "cut by {cuts:?}");
}

/// Line by line: what decodes as it is, or from where a record begins in it.
fn lines_plainly(log: &[u8], shown_from: usize, limit: usize) -> Told {
    let mut reading = Plainly::new(limit);
    let mut at = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        reading.joiner.muted = at < shown_from;
        let record = &line[..line.len() - 1];
        let is_start = |at: &usize| *at == 0 || record[*at..].starts_with(b"{\"log\":\"");
        let decode = |at| Some((at, Format::JsonFile.decode(&record[at..], &mut TimestampParser::default())?));
        match (0..record.len()).filter(is_start).find_map(decode) {
            Some((from, piece)) => {
                reading.lose(from as u64);
                reading.joiner.push(piece, None, &mut Sheet::of(&mut reading.batch));
            }
            None => reading.lose(line.len() as u64),
        }
        at += line.len();
    }
    reading.told(at)
}

/// One record of a `local` log, without its lengths.
pub fn local_record(entry: &[u8]) {
    let record = framed(entry);
    let piece = local::decode(&record);
    match (piece, LogEntry::decode(entry)) {
        (Some(piece), Ok(entry)) => assert_eq!(seen(&piece), seen(&entry.piece()), "{entry:?}"),
        (Some(_), Err(why)) => panic!("taken: {why}: {}", entry.escape_ascii()),
        (None, Ok(_)) => assert!(is_foreign(entry), "refused: {}", entry.escape_ascii()),
        (None, Err(_)) => {}
    }
}

/// As the engine's `entry.proto` has it. Of its attributes, which came with engine 29.5, nothing is known before, and
/// nothing is looked at here.
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

/// Of a piece of a line.
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
    /// What it holds, if its source is one of the two that there are.
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

/// With its length before and behind.
pub(super) fn framed(entry: &[u8]) -> Vec<u8> {
    let length = u32::try_from(entry.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, entry, &length].concat()
}

/// What is refused though a library takes it, and no engine writes: another source or none, also where a later one
/// replaces it, and the groups of an older protocol.
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

/// Records of a `local` log with garbage between, or bytes that are like none, read in blocks and backwards. The first
/// bytes say how.
pub fn local_block(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (cuts, limit, hidden) =
        (lengths(script.take(4)), 1 + usize::from(script.byte()), usize::from(script.byte()) % 64);
    let log = if script.byte().is_multiple_of(4) { script.rest().to_vec() } else { local_log(script) };
    let plainly = records_plainly(&log, hidden, limit);
    assert_eq!(in_blocks(Format::Local, [&*log], hidden, limit), plainly);
    let records: Vec<Record> = (0..log.len()).filter_map(|at| whole_at(&log, at)).collect();
    assert_eq!(local::find(&log), records.first().map(|record| record.start));
    // Behind garbage, a record that is not all there yet is passed over for one that it has inside.
    if records.is_sorted_by(|before, record| before.end <= record.start) {
        assert_eq!(in_blocks(Format::Local, chunks(&cuts, &log), hidden, limit), plainly, "cut by {cuts:?}");
    }
    let forwards = records_forwards(&log);
    let backwards = records_backwards(&log);
    let whole: Vec<Record> = backwards.iter().copied().filter(|record| is_whole(&log, *record)).collect();
    // Where nothing lies between them there is only one way to read them.
    if forwards.iter().map(|record| record.end - record.start).sum::<usize>() == log.len() {
        assert_eq!(whole, forwards);
    }
    for pair in backwards.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{backwards:?}");
    }
    assert!(backwards.iter().all(|record| record.start < record.end), "{backwards:?}");
}

/// Records as the engine writes them, and what lies between, as a fuzzer's bytes have it.
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

/// The length of the whole record at a place, and what it holds, as a library reads it.
fn record_at(log: &[u8], at: usize) -> Option<(usize, Option<LogEntry>)> {
    let head = log.get(at..at + 4)?;
    let length = u32::from_be_bytes(head.try_into().ok()?) as usize;
    let end = at + 4 + length;
    let entry = log.get(at + 4..end)?;
    let is_whole = (1..=1_000_000).contains(&length) && log.get(end..end + 4) == Some(head);
    is_whole.then(|| (length + 8, LogEntry::decode(entry).ok().filter(|_| !is_foreign(entry))))
}

/// Record by record, and where there is none, from the next one that decodes; `None` if the log does not begin like one.
fn records_plainly(log: &[u8], shown_from: usize, limit: usize) -> Option<Told> {
    let mut reading = Plainly::new(limit);
    let mut at = 0;
    while let Some(head) = log.get(at..at + 4) {
        let length = u32::from_be_bytes(head.try_into().ok()?) as usize;
        if let Some((length, entry)) = record_at(log, at) {
            reading.joiner.muted = at < shown_from;
            match entry {
                Some(entry) => reading.joiner.push(entry.piece(), None, &mut Sheet::of(&mut reading.batch)),
                None => reading.lose(length as u64),
            }
            at += length;
        } else if (1..=1_000_000).contains(&length) && at + length + 8 > log.len() {
            // More of it may come.
            break;
        } else if at == 0 {
            return None;
        } else {
            let Some(next) = (at + 1..log.len()).find_map(|at| whole_at(log, at)) else { break };
            reading.lose((next.start - at) as u64);
            at = next.start;
        }
    }
    Some(reading.told(at))
}

pub(super) fn records_forwards(log: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let rest = Format::Local.forwards(log, |record| records.push(record));
    assert!(rest <= log.len());
    let ends = records.iter().map(|record| record.end).chain([rest]);
    let starts = [0].into_iter().chain(records.iter().map(|record| record.end));
    assert!(starts.zip(ends).all(|(start, end)| start <= end), "{records:?} then {rest}");
    assert!(records.iter().all(|record| is_whole(log, *record)), "{records:?}");
    records
}

/// In the order of the file.
pub(super) fn records_backwards(log: &[u8]) -> Vec<Record> {
    let scratch = Scratch::new("backwards.log", log);
    let file = std::fs::File::open(&scratch.0).unwrap_or_else(|error| panic!("{error}"));
    let mut records = Vec::new();
    let read = Format::Local.backwards(&file, log.len() as u64, |start, bytes| {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let record = Record { start, end: start + bytes.len() };
        assert_eq!(&log[record.start..record.end], bytes);
        records.push(record);
        ControlFlow::Continue(())
    });
    assert!(read.is_ok(), "{read:?}");
    records.reverse();
    records
}

fn is_whole(log: &[u8], Record { start, end }: Record) -> bool {
    record_at(log, start).is_some_and(|(length, _)| start + length == end)
}

/// The whole record at a place, if it decodes.
pub(super) fn whole_at(log: &[u8], start: usize) -> Option<Record> {
    let (length, entry) = record_at(log, start)?;
    entry.map(|_| Record { start, end: start + length })
}

/// Takes the chunks of a log apart as [`super::file`] does; `None` when it is of no known form.
fn in_blocks<'a>(
    format: Format,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    shown_from: usize,
    limit: usize,
) -> Option<Told> {
    let mut blocks = Blocks::new(format, Joiner::new(limit, Window::default()), Timestamp(i64::MAX));
    let (mut told, mut carry, mut offset) = (Told::default(), Vec::new(), 0);
    for chunk in chunks {
        carry.extend_from_slice(chunk);
        let mut batch = batch();
        let block = Block { bytes: &carry, from: 0, offset: offset as u64, shown_from: shown_from as u64 };
        let taken = blocks.take(block, &mut Sheet::of(&mut batch)).ok()?;
        let rest = carry.split_off(taken);
        batch.bytes = std::mem::replace(&mut carry, rest);
        offset += taken;
        told.add(&batch);
    }
    let mut batch = batch();
    blocks.joiner.muted = false;
    blocks.joiner.flush_all(&mut Sheet::of(&mut batch));
    told.add(&batch);
    told.taken = offset;
    Some(told)
}

/// What came of some bytes, however it was cut into batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    items: Vec<Telling>,
    /// Bytes that nothing more can come of.
    taken: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Telling {
    Line(String, Vec<u8>, Part),
    Lost(Reason, u64),
}

impl Told {
    fn add(&mut self, batch: &Batch) {
        let mut gaps = batch.gaps.iter().peekable();
        for at in 0..=batch.lines.len() {
            while let Some((_, gap)) = gaps.next_if(|(before, _)| *before == at) {
                self.lose(gap.reason, gap.lost_bytes.unwrap_or(0));
            }
            if let Some(line) = batch.lines.get(at) {
                let Cursor { time, stream, ordinal } = line.cursor();
                let head = format!("{}-{}{ordinal} {:?}", time.0, stream.letter(), line.encoding);
                self.items.push(Telling::Line(head, batch.text(line).to_vec(), line.part));
            }
        }
        assert_eq!(gaps.next(), None, "a gap behind the last line");
    }

    /// Whether the other goes on where this ends, be it in the middle of a loss.
    fn is_start_of(&self, other: &Told) -> bool {
        let Some((last, before)) = self.items.split_last() else { return true };
        let is_last = |item: &Telling| match (last, item) {
            (Telling::Lost(reason, lost), Telling::Lost(of, all)) => reason == of && lost <= all,
            (last, item) => last == item,
        };
        other.items.starts_with(before) && other.items.get(before.len()).is_some_and(is_last)
    }

    /// Neighbouring losses are one.
    fn lose(&mut self, reason: Reason, lost: u64) {
        match self.items.last_mut() {
            Some(Telling::Lost(last, before)) if *last == reason => *before += lost,
            _ => self.items.push(Telling::Lost(reason, lost)),
        }
    }
}

fn batch() -> Batch {
    Batch::new(ContainerKey(0), Route::File, Vec::new(), Vec::new())
}

/// Pieces and losses one by one, joined by the same rule.
struct Plainly {
    joiner: Joiner,
    batch: Batch,
}

impl Plainly {
    fn new(limit: usize) -> Self {
        Plainly { joiner: Joiner::new(limit, Window::default()), batch: batch() }
    }

    fn lose(&mut self, bytes: u64) {
        if bytes > 0 {
            self.joiner.gap(Reason::Corrupt, Some(bytes), &mut Sheet::of(&mut self.batch));
        }
    }

    fn told(mut self, taken: usize) -> Told {
        self.joiner.muted = false;
        self.joiner.flush_all(&mut Sheet::of(&mut self.batch));
        let mut told = Told { taken, ..Told::default() };
        told.add(&self.batch);
        told
    }
}

/// A body of the logs API, with a terminal or without, cut anywhere. The first bytes say how.
pub fn frames(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (cuts, mut limit) = (script.take(4), 1 + usize::from(script.byte()));
    let body = match script.byte() % 4 {
        0 => script.rest().to_vec(),
        1 => {
            // Long lines in few parts.
            limit = 1024 + 64 * limit;
            terminal_body(script)
        }
        _ => frames_body(script),
    };
    let whole = pushed([&*body], limit);
    // Cutting much into little takes its time and shows no more.
    let step = 1 + body.len() / 1024;
    let cuts: Vec<usize> = lengths(cuts).into_iter().map(|cut| cut * step).collect();
    assert_eq!(pushed(chunks(&cuts, &body), limit), whole, "cut by {cuts:?}");
    if body.first().is_some_and(|first| !first.is_ascii_digit()) {
        let plainly = frames_plainly(&body, limit);
        match whole {
            // It is asked for anew from there, which does not show here.
            (told, Some(error)) if error == super::Error::Back.to_string() => {
                assert!(told.is_start_of(&plainly.0), "{told:?} of {plainly:?}");
            }
            whole => assert_eq!(whole, plainly),
        }
    }
}

fn terminal_body(mut script: Script<'_>) -> Vec<u8> {
    let (mut body, mut nanos) = (Vec::new(), 1_795_215_653_037_882_171);
    while !script.is_empty() {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        nanos += i64::from(kind & 1);
        let text = script.take(length % 32);
        // Some are longer than the engine's buffer, up to more than is held of a line, and have their time again.
        let pieces = if kind >> 5 == 0 && body.len() < 1 << 18 { 1 + length % 12 } else { 0 };
        for piece in 0..=pieces {
            Timestamp(nanos).write(&mut body);
            body.push(b' ');
            body.resize(body.len() + if piece < pieces { 16 * 1024 } else { 0 }, b'x');
        }
        body.extend_from_slice(text);
        // ... and engines before 23 forget some newlines.
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
        // Most are of stdout and stderr, one in 32 is an error of the engine, and some have no time.
        let stream = if kind >> 3 == 31 { 3 } else { 1 + (kind >> 1 & 1) };
        let payload = if kind & 0xf4 == 0x44 { &payload[length.min(payload.len())..] } else { &payload[..] };
        body.extend_from_slice(&[stream, 0, 0, 0]);
        body.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(payload);
    }
    body
}

/// What came of a body, and how it ended.
fn pushed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> (Told, Option<String>) {
    let mut frames = Frames::new(ContainerKey(0), Route::Stream, Window::default(), limit);
    let mut told = Told::default();
    let mut add = |item: Option<Item>| {
        if let Some(Item::Lines(batch)) = item {
            told.add(&batch);
        }
    };
    for chunk in chunks {
        let (item, end) = frames.push(chunk);
        add(item);
        if let Err(error) = end {
            return (told, Some(error.to_string()));
        }
    }
    add(frames.flush());
    (told, None)
}

/// Frame by frame.
fn frames_plainly(body: &[u8], limit: usize) -> (Told, Option<String>) {
    let mut reading = Plainly::new(limit);
    let (mut rest, mut error) = (body, None);
    while let Some((&[kind, a, b, c, size @ ..], behind)) = rest.split_first_chunk::<8>() {
        let size = u32::from_be_bytes(size) as usize;
        let stream = match kind {
            _ if [a, b, c] != [0; 3] => Err(Error::Malformed("no frame header where one should be")),
            _ if size > 4 << 20 => Err(Error::Malformed("a frame longer than any record")),
            4.. => Err(Error::Malformed("a frame of an unknown type")),
            _ if behind.len() < size => break,
            0 | 1 => Ok(Stream::Stdout),
            2 => Ok(Stream::Stderr),
            3 => Err(Error::Engine(String::from_utf8_lossy(&behind[..size]).trim_end().to_owned())),
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(why) => {
                error = Some(why.to_string());
                break;
            }
        };
        let (payload, next) = behind.split_at(size);
        let line = payload.strip_suffix(b"\n");
        let text = line.unwrap_or(payload);
        let space = text.iter().take(65).position(|byte| *byte == b' ');
        let split = space.and_then(|space| text.split_at_checked(space));
        let piece = split.and_then(|(time, text)| Some((Timestamp::parse(time)?, text.strip_prefix(b" ")?)));
        match piece {
            Some((time, text)) => {
                let (text, encoding, complete) = (Cow::Borrowed(text), Encoding::Raw, line.is_some());
                let piece = Piece { time, stream, text, encoding, complete };
                reading.joiner.push(piece, None, &mut Sheet::of(&mut reading.batch));
            }
            None => reading.joiner.gap(Reason::Corrupt, Some(size as u64), &mut Sheet::of(&mut reading.batch)),
        }
        rest = next;
    }
    if error.is_some() {
        // What has begun waits for the next request.
        reading.joiner.rewind(crate::model::position::TimePosition::default());
    }
    (reading.told(0), error)
}

/// A log that is compressed, whole, cut off or changed, read through its handle. The first bytes say how.
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
    assert!(whole, "an error in what is whole");
    assert_eq!(read, log);
    let (read, _) = unpack(&packed, format, step, skip);
    assert_eq!(read, log.get(skip..).unwrap_or_default(), "from {skip}");
    let (read, whole) = unpack(&packed[..packed.len() - 1 - skip % packed.len()], format, step, 0);
    assert!(log.starts_with(&read), "cut off");
    assert!(!whole || read == log[..middle] || read.is_empty() || read == log, "cut off, and whole");
    same_file(log, &packed, format);
}

/// As the engine compresses it: the header has the time of the last record.
fn member(log: &[u8], with_time: bool) -> Vec<u8> {
    let builder = GzBuilder::new();
    let builder = if with_time { builder.extra(r#"{"lastTime":"1970-01-01T00:00:01.5Z"}"#) } else { builder };
    let mut encoder = builder.write(Vec::new(), Compression::fast());
    let written = encoder.write_all(log).and_then(|()| encoder.finish());
    written.unwrap_or_else(|error| panic!("{error}"))
}

/// What a handle reads of a compressed file from some place on, in steps, and whether it ends well; as the library reads
/// it from memory.
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
        while handle.has_to_skip() {
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
            Ok(Found::Bytes(0)) => ended = true,
            Ok(Found::Bytes(more)) => read.extend_from_slice(&block[GUARD..GUARD + more]),
            Ok(Found::Rewritten) => panic!("a compressed file is not written again"),
            Err(_) => {
                assert!(fails, "an error that the library has not");
                break;
            }
        }
        assert_eq!(handle.offset, (skip + read.len()) as u64);
    }
    assert!(read.starts_with(expected.get(skip..).unwrap_or_default()) || read.len() + skip >= MOST);
    (read, ended)
}

/// As much as there is and fits, and whether it ends in an error.
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

/// A file and what it is compressed to are told to be the same, and another one is not.
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

/// A file that goes when this does; no other of this process and thread has its name.
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
    use crate::model::oracle::tests::try_out;

    #[test]
    fn a_record_of_either_form_is_what_a_library_reads() {
        try_out("json_record", super::json_record);
        try_out("local_record", super::local_record);
    }

    #[test]
    fn a_file_of_either_form_is_the_same_in_whatever_blocks_it_is_read() {
        try_out("json_block", super::json_block);
        try_out("local_block", super::local_block);
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        try_out("frames", super::frames);
    }

    #[test]
    fn a_compressed_file_holds_what_was_compressed() {
        try_out("gzip", super::gzip);
    }
}

//! One property for both routes: wherever reading stops, whichever route continues, and however many batches are lost
//! after the last commit, each line is delivered once.

use super::*;
use crate::model::batch::{Batch, ContainerKey, Item};
use crate::model::file_id::FileId;
use crate::model::line_id::{Route, Stream};
use crate::model::position::{FileSignature, Position, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::api::body::tests::frame;
use crate::tail::decode::block::{Block, BlockDecoder, HeldBack};
use crate::tail::decode::format::Format;
use crate::tail::lines::{Joiner, LineSink};
use crate::tail::{Decoded, Error, Frames, minus_slack};
use proptest::prelude::*;
use std::ops::Range;

/// A record of a log.
#[derive(Clone, Debug)]
struct LogRecord {
    time: i64,
    stream: Stream,
    /// With or without a newline.
    text: String,
    /// Where the record lies in the log file.
    file_range: Range<usize>,
}

/// A log, as records and as a file.
#[derive(Clone, Debug)]
struct Log {
    records: Vec<LogRecord>,
    file: Vec<u8>,
}

const SECOND: i64 = 1_000_000_000;

/// Numbered lines on two streams, whole or in pieces.
///
/// Either many times are equal, and the clock is set back now and then; or the streams mix, also between the pieces of a
/// line, and the records of stderr come after later ones of stdout. Not both: an overlap is ambiguous if a record of the
/// other stream with another time lies between two lines of the same stream and time, and daemons up to 23 leave out a
/// late line of one stream after the clock was set back.
fn logs() -> impl Strategy<Value = Log> {
    let line = (0..4_i64, any::<bool>(), 1..4_usize, 0..20_u8);
    let mixed = prop::option::of((0..4 * SECOND, any::<u64>()));
    (prop::collection::vec(line, 1..30), mixed).prop_map(|(lines, mixed)| {
        let (mut time, mut queues) = (100_000 * SECOND, [Vec::new(), Vec::new()]);
        let mut log = Log { records: Vec::new(), file: Vec::new() };
        let (lag, mut order) = mixed.unwrap_or_default();
        for (number, (step, is_stderr, pieces, chance)) in lines.into_iter().enumerate() {
            if chance == 0 && mixed.is_none() {
                time -= 3600 * SECOND;
            }
            // Mixed records are out of order by less than the slack.
            time += if mixed.is_some() { step.max(1) * SECOND / 4 } else { step * SECOND };
            let (stream, lag) = if is_stderr { (Stream::Stderr, lag) } else { (Stream::Stdout, 0) };
            for piece in 1..=pieces {
                let end = if piece == pieces { "\n" } else { "" };
                queues[stream as usize].push((time - lag, stream, format!("{number}.{piece}{end}")));
            }
            // A new time, so that the next line is not joined to this one.
            time += i64::from(pieces > 1);
            if mixed.is_none() || queues.iter().map(Vec::len).sum::<usize>() > 4 {
                mix(&mut queues, &mut order, &mut log);
            }
        }
        mix(&mut queues, &mut order, &mut log);
        log
    })
}

/// Appends what both streams have written to the log, in an order that `order` determines.
fn mix(queues: &mut [Vec<(i64, Stream, String)>; 2], order: &mut u64, log: &mut Log) {
    let [stdout, stderr] = queues;
    while !(stdout.is_empty() && stderr.is_empty()) {
        *order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let is_stderr = stdout.is_empty() || !stderr.is_empty() && (*order >> 33) & 1 == 0;
        let (time, stream, text) = if is_stderr { stderr.remove(0) } else { stdout.remove(0) };
        let start = log.file.len();
        let (escaped, name) = (text.replace('\n', "\\n"), stream.name());
        let record = format!("{{\"log\":\"{escaped}\",\"stream\":\"{name}\",\"time\":\"{}\"}}\n", Timestamp(time));
        log.file.extend(record.bytes());
        log.records.push(LogRecord { time, stream, text, file_range: start..log.file.len() });
    }
}

/// The lines of a batch, or the reasons of its gaps, which the property does not allow.
fn rendered(batch: &Batch) -> Vec<String> {
    let gaps = batch.gaps.iter().map(|(_, gap)| gap.reason.name().to_owned());
    let line =
        |line: &crate::model::batch::Line| format!("{} {}", line.cursor(), String::from_utf8_lossy(batch.text(line)));
    gaps.chain(batch.lines.iter().map(line)).collect()
}

/// Groups lines by their streams, in order.
fn by_stream(lines: Vec<String>) -> (Vec<String>, Vec<String>) {
    lines.into_iter().partition(|line| line.contains("-o"))
}

/// What a reader puts on the queue: lines, and the position after them.
type Delivery = (Vec<String>, Position);

fn signature() -> FileSignature {
    FileSignature { id: FileId { filesystem: None, inode: 1, born: None }, fingerprint: Some(1), device: 0 }
}

/// Reads the file up to `until` in blocks, like [`crate::tail::files::container_log`]. Every end in `ends` is the end of
/// the file for a while.
fn by_file(log: &Log, from: Option<Position>, ends: &[usize], until: usize, block: usize) -> Vec<Delivery> {
    let mut decoder = BlockDecoder::new(Format::JsonFile, Joiner::new(1 << 20, Window::default()), Timestamp(i64::MAX));
    let (mut offset, mut held_back, mut deliveries) = (0, None, Vec::new());
    match from {
        Some(Position { place: Some(place), resume, .. }) => {
            decoder.joiner.replay_by_count(&place, &resume);
            offset = usize::try_from(place.offset).unwrap();
        }
        Some(Position { resume, .. }) => {
            decoder.joiner.replay_by_time(&resume, Completeness::MustReappear);
            let is_wanted =
                |record: &&LogRecord| resume.since.is_none_or(|since| Timestamp(record.time) >= minus_slack(since));
            offset = log.records.iter().find(is_wanted).map_or(log.file.len(), |record| record.file_range.start);
        }
        None => {}
    }
    for end in ends.iter().copied().filter(|end| *end < until).chain([until]) {
        while offset < end {
            // At least one record, as the carry of a real reader grows until there is one.
            let bytes = &log.file[offset..end];
            let bytes = &bytes[..block.min(bytes.len())];
            let mut batch = Batch::new(ContainerKey(1), Route::File, Vec::new(), Vec::new());
            let sink = &mut LineSink::of(&mut batch);
            let block = Block { bytes, from: 0, offset: offset as u64, shown_from: 0 };
            let decoded = decoder.decode(block, sink).ok().unwrap();
            batch.bytes = bytes.to_vec();
            if let Some(HeldBack { offset, before }) = decoded.held_back {
                held_back = Some(RestartPoint { file: signature(), offset, before });
            }
            if decoded.taken == 0 {
                break;
            }
            offset += decoded.taken;
            let filter = &decoder.joiner.filter;
            let here = RestartPoint { file: signature(), offset: offset as u64, before: filter.progress() };
            let point = if decoder.holds_back() { held_back.unwrap() } else { here };
            let place = filter.file_position(&point);
            let position = Position { route: Route::File, resume: decoder.joiner.position(), place };
            deliveries.push((rendered(&batch), position));
        }
        let is_at_end = log.records.last().is_some_and(|last| last.file_range.end <= offset) || offset == end;
        if is_at_end && decoder.joiner.end_replay() {
            deliveries.push((
                vec!["lost at the end".to_owned()],
                deliveries.last().map_or_else(|| from.unwrap(), |last| last.1),
            ));
        }
    }
    deliveries
}

/// The body that dockerd sends for a log: up to 23 if `is_old`, else from 24 on.
fn body(records: &[LogRecord], RequestRange { since, tail }: RequestRange, is_old: bool) -> Vec<u8> {
    let tail = usize::try_from(tail.unwrap_or(u64::MAX)).unwrap().min(records.len());
    let records = &records[records.len() - tail..];
    let is_wanted = |record: &&LogRecord| since.is_none_or(|since| Timestamp(record.time) >= since);
    let first = records.iter().position(|record| is_wanted(&record)).unwrap_or(records.len());
    let sent = records[first..].iter().filter(|record| !is_old || is_wanted(record));
    sent.flat_map(|LogRecord { time, stream, text, .. }| {
        frame(1 + *stream as u8, &format!("{} {text}", Timestamp(*time)))
    })
    .collect()
}

/// Makes requests until the last one is read to the end, like `commands::stream`. `cuts` says where the bodies of the
/// first requests break off.
fn by_api(
    records: &[LogRecord],
    from: TimePosition,
    cuts: &[prop::sample::Index],
    (is_old, is_followed): (bool, bool),
    tail: Option<u64>,
) -> Vec<Delivery> {
    let delivered = Delivered::up_to(from).with_window(tail);
    let mut frames = Frames::new(ContainerKey(1), Route::Stream, Window::default(), 1 << 20).continue_from(delivered);
    let mut deliveries = Vec::new();
    let mut cuts = cuts.iter();
    // Requests that do not continue where the last one ended are followed by others that do.
    for _ in 0..30 + 5 * records.len() {
        let cut = cuts.next();
        let mode = if is_followed { Mode::Follow { may_repeat: false } } else { Mode::Read };
        let range = frames.request(mode);
        let body = body(records, range, is_old);
        let end = cut.map_or(body.len(), |cut| cut.index(body.len() + 1));
        let mut is_continuous = true;
        for chunk in body[..end].chunks(50) {
            let Decoded { item, receipt, end } = frames.push(chunk);
            if let Some(Item::Lines(batch)) = item {
                deliveries.push((rendered(&batch), batch.position.unwrap()));
            }
            frames.commit(receipt);
            match end {
                Ok(()) => {}
                Err(Error::Discontinuity(_)) => {
                    is_continuous = false;
                    break;
                }
                Err(Error::Body(error)) => panic!("{error}"),
            }
        }
        if !is_continuous || cut.is_some() || mode == Mode::Read && frames.end().is_err() {
            continue;
        }
        // The idle probe finds that the response lacks the newest line, which has a time before `since`.
        let newest = records.last().map(|record| Timestamp(record.time));
        if newest.is_none() || frames.newest().map(|newest| newest.time) == newest || newest >= range.since {
            break;
        }
        frames.read_from_start();
    }
    deliveries
}

/// How one run reads.
#[derive(Clone, Debug)]
enum RunRoute {
    FileByCount,
    FileByTime,
    Api { is_old: bool, is_followed: bool, tail: Option<u64> },
}

fn routes() -> impl Strategy<Value = RunRoute> {
    let tail = prop::option::of(1..12_u64);
    prop_oneof![
        2 => Just(RunRoute::FileByCount),
        1 => Just(RunRoute::FileByTime),
        3 => (any::<bool>(), any::<bool>(), tail)
            .prop_map(|(is_old, is_followed, tail)| RunRoute::Api { is_old, is_followed, tail }),
    ]
}

/// One run: its route, how far the log has grown at its end and in between, where API bodies break off, the size of the
/// blocks of a file, and how many of its deliveries are committed.
#[derive(Clone, Debug)]
struct Run {
    route: RunRoute,
    grown: prop::sample::Index,
    growth: Vec<prop::sample::Index>,
    cuts: Vec<prop::sample::Index>,
    block: usize,
    committed: prop::sample::Index,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let index = any::<prop::sample::Index>;
    let run = (
        routes(),
        index(),
        prop::collection::vec(index(), 0..3),
        prop::collection::vec(index(), 0..3),
        300..900_usize,
        index(),
    );
    let run = run.prop_map(|(route, grown, growth, cuts, block, committed)| Run {
        route,
        grown,
        growth,
        cuts,
        block,
        committed,
    });
    prop::collection::vec(run, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_cut_and_route_and_order_delivers_every_line_once(log in logs(), mut runs in runs()) {
        let expected: Vec<String> =
            by_file(&log, None, &[], log.file.len(), log.file.len()).into_iter().flat_map(|(lines, _)| lines).collect();
        runs.sort_by_key(|run| run.grown.index(log.file.len() + 1));
        let last = runs.len() - 1;
        let (mut position, mut lines, mut before) = (None, Vec::new(), 0);
        for (at, run) in runs.iter().enumerate() {
            let until = if at == last { log.file.len() } else { run.grown.index(log.file.len() + 1) };
            let there = log.records.partition_point(|record| record.file_range.end <= until);
            let deliveries = match run.route {
                RunRoute::FileByCount | RunRoute::FileByTime => {
                    let by_time = |position: Position| Position { place: None, ..position };
                    let from = match run.route {
                        RunRoute::FileByTime => position.map(by_time),
                        _ => position,
                    };
                    let mut ends: Vec<usize> = run.growth.iter().map(|end| before + end.index(until - before + 1)).collect();
                    ends.sort_unstable();
                    by_file(&log, from, &ends, until, run.block)
                }
                RunRoute::Api { is_old, is_followed, tail } => {
                    let from = position.map_or_else(TimePosition::default, |position: Position| position.resume);
                    by_api(&log.records[..there], from, &run.cuts, (is_old, is_followed), tail)
                }
            };
            before = until;
            // What comes after the last commit is lost.
            let committed = if at == last { deliveries.len() } else { run.committed.index(deliveries.len() + 1) };
            for (delivered, after) in deliveries.into_iter().take(committed) {
                lines.extend(delivered);
                position = Some(after);
            }
        }
        // With a daemon up to 23, a late line of one stream may come after later ones of the other.
        prop_assert_eq!(by_stream(lines), by_stream(expected));
    }
}

//! Reads a container's log over the API, across any number of responses.
//!
//! In: chunks of the body of `GET /containers/{id}/logs?timestamps=1`, which [`super::body`] splits into records. Out:
//! batches. [`crate::commands::stream`] sends the requests; this module computes their ranges, and drops lines that
//! were delivered before, so that no line is missed or repeated. `since` accepts all nine digits of a time and is
//! inclusive.
//!
//! For a request with `since` alone, dockerd reads the whole log. With `tail` it reads only the end: the last delivered
//! line must be among those records (the overlap, see [`Delivered`]), and everything after it is new. Such a request
//! needs `since` as well, or dockerd decompresses every rotated file. But up to Docker 23, `since` also omits lines
//! that were written after the clock was set back, wherever they are. If a response to `since` alone lacks the last
//! delivered line, rotation has removed it.

use super::body::{self, BodyPart, BodySplitter, Record};
use crate::model::batch::{Batch, ContainerKey, Encoding, Item, Reason};
use crate::model::cursor::{Cursor, Route};
use crate::model::position::{Position, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::lines::{Joiner, LineSink};
use crate::tail::resume::Completeness;
use crate::tail::{Piece, SLACK, Window, minus_slack};
use std::borrow::Cow;
use std::ops::ControlFlow;

/// How a server reports log times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Each piece has the time of its line in nanoseconds.
    #[default]
    Docker,
    /// Each piece has the second in which it was read. Podman stores nanoseconds and compares `since` with those, so a
    /// request can be more precise than the response.
    Podman,
}

impl Dialect {
    /// Rounds a time down to what the server reports for it.
    pub fn reported(self, time: Timestamp) -> Timestamp {
        match self {
            Dialect::Docker => time,
            Dialect::Podman => time.whole_second(),
        }
    }
}

/// Decodes one container's log over the API.
pub struct Frames {
    key: ContainerKey,
    route: Route,
    body: BodySplitter,
    joiner: Joiner,
    /// Lines before this one are not shown, unless they lie after the position.
    first: Option<(Cursor, TimePosition)>,
    /// Number of records in all bodies so far.
    records: u64,
    /// Value of `records` at the start of this body, or at the end of the overlap.
    old_records: u64,
    /// The last record of this body.
    newest: Option<Record>,
    /// The last complete line of this body, shown or not.
    last_line: Option<Cursor>,
    /// Time of the last record before `newest` that has another time.
    other_time: Option<Timestamp>,
    /// Records are skipped up to the first with at least this time, because the server may ignore `since`.
    since: Option<Timestamp>,
    /// The overlap that must be found before any record counts as new.
    overlap: Option<Overlap>,
    /// The server may send a record of this body twice.
    may_repeat: bool,
    /// Time of each stream's last line, and whether the next line must not be earlier.
    latest: [Option<(Timestamp, bool)>; 2],
    /// The error found after the lines of the current chunk.
    failed: Option<Error>,
    dialect: Dialect,
    /// No request asks for anything before this time.
    earliest: Option<Timestamp>,
}

/// The delivered line to find in a response to a request with `tail`.
#[derive(Debug)]
struct Overlap {
    position: TimePosition,
    /// The last delivered line. `None` if nothing was delivered: then all records must fit into the response.
    last: Option<Cursor>,
    /// Number of records requested from the end.
    tail_window: u64,
}

/// How far lines were delivered, across responses.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    position: TimePosition,
    /// The last delivered line and the time of a record before it, if the line is suitable for finding the overlap.
    overlap: Option<(Cursor, Timestamp)>,
}

/// The range that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRange {
    /// Time of the earliest record, inclusive.
    pub since: Option<Timestamp>,
    /// Number of records from the end of the log.
    pub tail: Option<u64>,
}

/// Why reading a body stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The last delivered line is not among the requested number of records.
    #[error("the response does not reach back to the last delivered line")]
    NoOverlap,
    /// The clock was set back, and dockerd may have omitted lines because of it; or dockerd repeats records, as
    /// versions up to 20.10 do after a rotation. The next body shows which.
    #[error("the times of the log went backwards")]
    TimeWentBack,
    /// A line has the same time as the line before and may be the same line: dockerd up to 20.10 sends it again when it
    /// continues after a rotation. A request without `follow` shows which, because its response repeats nothing.
    #[error("a line may have been sent twice")]
    PossibleRepeat,
    /// The bytes cannot be decoded.
    #[error(transparent)]
    Body(#[from] body::Error),
}

impl Frames {
    /// Creates a decoder that starts with the first line of the first response.
    pub fn new(key: ContainerKey, route: Route, window: Window, max_line_size: usize) -> Self {
        Frames {
            key,
            route,
            body: BodySplitter::default(),
            joiner: Joiner::new(max_line_size, window),
            first: None,
            records: 0,
            old_records: 0,
            newest: None,
            last_line: None,
            other_time: None,
            since: None,
            overlap: None,
            may_repeat: false,
            latest: [None; 2],
            failed: None,
            dialect: Dialect::Docker,
            earliest: None,
        }
    }

    /// Sets the dialect, and the time at which this reader starts. Podman's lines of the same second differ only by
    /// their ordinals, so all requests that include a second must begin at the same place within it.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect, begin: Option<Timestamp>) -> Self {
        self.dialect = dialect;
        if dialect == Dialect::Podman {
            self.earliest = begin;
            self.joiner.count_pieces();
        }
        self
    }

    /// Hides lines before `first`, unless they lie after `known`.
    pub fn start_at(&mut self, first: Cursor, known: TimePosition) {
        self.first = Some((first, known));
    }

    /// Sets whether the server may send a record of this body twice.
    pub fn set_may_repeat(&mut self, may_repeat: bool) {
        self.may_repeat = may_repeat;
    }

    /// Returns the position after the lines so far.
    pub fn position(&self) -> TimePosition {
        let mut position = with_last_lines(self.joiner.position());
        // The clock was set back: dockerd up to 23 omits lines with a time before `since`, wherever they are.
        if let (Some(since), Some(newest)) = (position.since, self.newest)
            && newest.time < since
        {
            position.since = Some(minus_slack(newest.time));
        }
        position.since = position.since.map(|since| self.earliest.map_or(since, |earliest| since.max(earliest)));
        position
    }

    /// Prepares for the body of a request with `position.since`. If that body begins with a new line, the last
    /// delivered lines are gone, and perhaps others.
    pub fn resume(&mut self, position: TimePosition) {
        self.body.restart();
        self.failed = None;
        (self.newest, self.last_line, self.other_time) = (None, None, None);
        let since = position.since.map(|since| self.dialect.reported(since));
        (self.since, self.overlap, self.old_records) = (since, None, self.records);
        // Without `since`, nothing is omitted and earlier times are harmless.
        let is_cut = position.since.is_some();
        self.latest = position.seen.map(|seen| seen.map(|seen| (seen.time, is_cut)));
        self.joiner.replay_by_time(&position, Completeness::MustReappear);
    }

    /// Returns the number of records so far, in the unit of the request's `tail`.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the number of new records in this body, as far as repeated ones are recognised.
    pub fn new_records(&self) -> u64 {
        self.records - self.old_records
    }

    /// Returns the last record of this body.
    pub fn newest(&self) -> Option<Record> {
        self.newest
    }

    /// Decodes a chunk. Returns its lines, and whether reading can continue after them.
    pub fn push(&mut self, chunk: &[u8]) -> (Option<Item>, Result<(), Error>) {
        if chunk.is_empty() {
            return (None, Ok(()));
        }
        let mut batch = Batch::new(self.key, self.route, Vec::new(), Vec::new());
        // Moved out because its callback borrows `self`.
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.gather(chunk);
        let end = body.each(&bytes, |part| self.take(part, &mut batch));
        (self.body, batch.bytes) = (body, bytes);
        let end = self.failed.take().map_or(end.map_err(Error::from), Err);
        (self.finish_batch(batch), end)
    }

    /// Returns whether the overlap has not been found, when the body has ended.
    pub fn lacks_overlap(&self) -> bool {
        self.overlap.as_ref().is_some_and(|overlap| overlap.last.is_some())
    }

    /// Returns the last line without a newline: the container has died and its log was read to the end.
    pub fn flush(&mut self) -> Option<Item> {
        let mut batch = Batch::new(self.key, self.route, Vec::new(), Vec::new());
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.gather(&[]);
        body.last(&bytes, |part| self.take(part, &mut batch));
        (self.body, batch.bytes) = (body, bytes);
        self.joiner.flush_all(&mut LineSink::of(&mut batch));
        self.finish_batch(batch)
    }

    fn finish_batch(&mut self, mut batch: Batch) -> Option<Item> {
        self.hide_before_first(&mut batch);
        if batch.is_empty() {
            return None;
        }
        batch.position = Some(Position { route: self.route, resume: self.position(), place: None });
        Some(Item::Lines(batch))
    }

    /// Handles one part of a body. Stops at a failure, because the next response repeats everything after it.
    #[inline]
    fn take(&mut self, part: BodyPart<'_>, batch: &mut Batch) -> ControlFlow<()> {
        self.records += 1;
        match part {
            BodyPart::Record(record, message, at) => self.take_record(record, message, at, batch),
            BodyPart::Corrupt(size) if self.overlap.is_none() => {
                self.joiner.gap(Reason::Corrupt, Some(size as u64), &mut LineSink::of(batch));
            }
            BodyPart::Corrupt(_) => {}
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn take_record(&mut self, record: Record, message: &[u8], at: usize, batch: &mut Batch) {
        let before = self.newest.replace(record).map(|before| before.time);
        self.other_time = before.filter(|before| *before != record.time).or(self.other_time);
        if self.overlap.is_some() {
            return self.find_overlap(record);
        }
        if self.since.is_some_and(|since| record.time < since) {
            return;
        }
        self.since = None;
        let Record { time, stream, is_complete: complete } = record;
        // It must not become the line by which the next response is matched.
        if self.joiner.filter.is_after_window(time) {
            return;
        }
        let lines = batch.lines.len();
        let piece = Piece { time, stream, text: Cow::Borrowed(message), encoding: Encoding::Raw, complete };
        if let Some((latest, must_rise)) =
            self.latest[stream as usize].filter(|_| !self.joiner.filter.is_replaying_mark(stream))
        {
            let is_again = time == latest && self.may_repeat && !self.joiner.is_unfinished(stream);
            let is_back = time < latest && must_rise;
            self.failed = is_back.then_some(Error::TimeWentBack).or(is_again.then_some(Error::PossibleRepeat));
            if self.failed.is_some() {
                return;
            }
        }
        self.joiner.push(piece, Some(at), &mut LineSink::of(batch));
        for line in &batch.lines[lines..] {
            self.latest[line.stream as usize] = Some((line.time, true));
        }
        if let (true, Some(last)) = (complete, self.joiner.filter.progress()[stream as usize].last) {
            self.last_line = Some(Cursor::new(stream, last));
        }
    }

    /// Looks for the last delivered line.
    fn find_overlap(&mut self, record: Record) {
        let Some(overlap) = &self.overlap else { return };
        let Some(last) = overlap.last else {
            self.failed = Some(Error::NoOverlap);
            return;
        };
        // The body may begin between lines of the same time. So the line only counts after a record with another time.
        let is_last = (record.stream, record.time) == (last.stream, last.time);
        if is_last && record.is_complete && self.other_time.is_some() {
            self.since = None;
            self.joiner.continue_after(&overlap.position);
            (self.overlap, self.old_records) = (None, self.records);
            return;
        }
        // The last delivered line would have come before this record.
        let slack = if record.stream == last.stream { 0 } else { SLACK };
        let is_later = record.time.0 > last.time.0.saturating_add(slack);
        if is_later || self.records - self.old_records >= overlap.tail_window {
            self.failed = Some(Error::NoOverlap);
        }
    }

    fn hide_before_first(&mut self, batch: &mut Batch) {
        let Some((first, known)) = self.first else { return };
        let is_first = |cursor: Cursor| cursor == first || !known.has(cursor);
        let found = batch.lines.iter().position(|line| is_first(line.cursor()));
        let dropped = found.unwrap_or(batch.lines.len());
        batch.lines.drain(..dropped);
        batch.gaps.retain(|(before, _)| *before >= dropped);
        batch.gaps.iter_mut().for_each(|(before, _)| *before -= dropped);
        if found.is_some() {
            self.first = None;
        }
    }
}

impl Delivered {
    /// Creates the state for a position that any route reached.
    pub fn up_to(position: TimePosition) -> Self {
        Delivered { position: with_last_lines(position), overlap: None }
    }

    /// Returns where to continue.
    pub fn position(&self) -> TimePosition {
        self.position
    }

    /// Prepares `frames` for a body and returns the range to request: the last `tail_window` records if possible, else
    /// everything since the position.
    pub fn begin(&self, frames: &mut Frames, tail_window: Option<u64>, follow: bool) -> RequestRange {
        frames.resume(self.position);
        let since = self.position.since;
        // Podman first reads the last records and then opens the log again to follow it. A response to `tail` lacks
        // records that are written in between.
        let tail_window = tail_window.filter(|_| frames.dialect == Dialect::Docker);
        // While following, a response that is too short cannot be recognised.
        let is_at_start = self.position.is_at_start() && since.is_some() && !follow;
        let Some(tail_window) = tail_window.filter(|_| self.overlap.is_some() || is_at_start) else {
            return RequestRange { since, tail: None };
        };
        let (last, earlier) = self.overlap.map(|(last, other)| (last, last.time.min(other))).unzip();
        frames.overlap = Some(Overlap { position: self.position, last, tail_window });
        RequestRange { since: since.map(|since| earlier.map_or(since, minus_slack)), tail: Some(tail_window) }
    }

    /// Returns the state after everything up to and including `item` was delivered.
    #[must_use]
    pub fn after(mut self, frames: &Frames, item: Option<&Item>) -> Delivered {
        let is_new = matches!(item, Some(Item::Lines(batch)) if !batch.lines.is_empty());
        if is_new || !frames.joiner.filter.is_replaying_marks() {
            // The line must be identified by its time alone and differ from what precedes it.
            let is_suitable = |line: &Cursor| line.ordinal == 0 && !frames.joiner.has_unfinished();
            let overlap = frames.last_line.filter(is_suitable).zip(frames.other_time);
            self.overlap = overlap.or(self.overlap.filter(|_| !is_new));
        }
        let position = frames.position();
        // While delivered lines are being repeated, the position carries nothing new.
        if position.seen != self.position.seen {
            self.position = position;
        }
        self
    }

    /// Forgets the overlap. Called when a response does not contain it: the last line was delivered without its
    /// newline, or everything before it is gone.
    #[must_use]
    pub fn without_overlap(self) -> Delivered {
        Delivered { overlap: None, ..self }
    }

    /// Reads from the first line next time, because the clock was set back at an unknown place.
    #[must_use]
    pub fn from_start(mut self) -> Delivered {
        self.position.since = None;
        self
    }
}

/// After the clock was set back, only the last line itself separates lines before it from lines after it. So moves
/// `since` back far enough for the last line of each stream to reappear.
fn with_last_lines(mut position: TimePosition) -> TimePosition {
    for seen in position.seen.iter().flatten().filter(|seen| seen.high > seen.time) {
        position.since = position.since.map(|since| since.min(seen.time));
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::Stream;
    use crate::model::position::Mark;
    use crate::tail::api::body::tests::frame;
    use proptest::prelude::*;
    use std::ops::Range;

    fn at(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    fn rendered(items: impl IntoIterator<Item = Option<Item>>) -> Vec<String> {
        let mut lines = Vec::new();
        for item in items.into_iter().flatten() {
            let Item::Lines(batch) = item else { panic!("{item:?}") };
            for at in 0..=batch.lines.len() {
                let gaps = batch.gaps.iter().filter(|(before, _)| *before == at);
                lines.extend(gaps.map(|(_, gap)| gap.reason.name().to_owned()));
                let line = batch.lines.get(at);
                lines.extend(
                    line.map(|line| format!("{} {}", line.cursor(), String::from_utf8_lossy(batch.text(line)))),
                );
            }
        }
        lines
    }

    fn frames() -> Frames {
        Frames::new(ContainerKey(1), Route::Stream, Window::default(), 1 << 20)
    }

    fn pushed(log: &mut Frames, chunk: &[u8]) -> Option<Item> {
        let (item, end) = log.push(chunk);
        end.unwrap();
        item
    }

    #[test]
    fn lines_before_an_error_come_with_their_position() {
        for (failure, message) in [
            (frame(3, "Error grabbing logs: gone\n"), "the daemon failed to read the log: Error grabbing logs: gone"),
            (b"HTTP/1.1 500".to_vec(), "the log stream is malformed: no frame header where one should be"),
        ] {
            let mut log = frames();
            let (item, end) = log.push(&[frame(1, &format!("{} one\n", at(1))), failure].concat());
            let Some(Item::Lines(batch)) = &item else { panic!("{item:?}") };
            let seen = Mark { time: at(1), ordinal: 0, high: at(1) };
            let resume = TimePosition { since: Some(minus_slack(at(1))), seen: [Some(seen), None] };
            assert_eq!(batch.position, Some(Position { route: Route::Stream, resume, place: None }));
            assert_eq!(rendered([item]), ["1-o0 one"]);
            assert_eq!(end.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_position_does_not_skip_an_unfinished_line() {
        let mut log = frames();
        let (early, late) = (at(20_000_000_000), at(50_000_000_000));
        let body = [frame(2, &format!("{early} half")), frame(1, &format!("{late} one\n"))].concat();
        let Some(Item::Lines(batch)) = pushed(&mut log, &body) else { panic!() };
        let resume = batch.position.unwrap().resume;
        assert_eq!(resume.since, Some(early));
        let mut next = frames();
        next.resume(resume);
        let more = [body, frame(2, &format!("{early} and half\n"))].concat();
        assert_eq!(rendered([pushed(&mut next, &more)]), [format!("{}-e0 halfand half", early.0)]);
    }

    #[test]
    fn a_whole_log_yields_only_lines_after_the_position() {
        let second = |number: i64| at(number * 1_000_000_000);
        let seen = Mark { time: second(100), ordinal: 0, high: second(100) };
        let position = TimePosition { since: Some(minus_slack(second(100))), seen: [Some(seen), None] };
        let written = [(1, 2), (2, 3), (2, 95), (1, 100), (2, 99), (1, 101), (2, 102)];
        let body = |from: usize| -> Vec<u8> {
            let written = written[from..].iter();
            written.flat_map(|(stream, time)| frame(*stream, &format!("{} {time}\n", second(*time)))).collect()
        };
        for (from, expected) in [
            (0, &["95000000000-e0 95", "99000000000-e0 99", "101000000000-o0 101", "102000000000-e0 102"][..]),
            (4, &["99000000000-e0 99", "rotated_away", "101000000000-o0 101", "102000000000-e0 102"]),
            (6, &["rotated_away", "102000000000-e0 102"]),
        ] {
            let mut log = frames();
            log.resume(position);
            assert_eq!(rendered([pushed(&mut log, &body(from))]), expected, "{from}");
        }
    }

    #[test]
    fn an_empty_chunk_changes_nothing() {
        let mut log = frames();
        let body = format!("{} a\r\n", at(1));
        assert_eq!(rendered([pushed(&mut log, b""), pushed(&mut log, body.as_bytes())]), ["1-o0 a\r"]);
    }

    /// A record of a log: time, stream, and text with or without a newline.
    type LogRecord = (i64, Stream, String);

    /// Lines in pieces or whole, on two streams. The times of each stream rise except where the clock is set back.
    fn logs(is_set_back: bool) -> impl Strategy<Value = Vec<LogRecord>> {
        let line = (0..4_i64, any::<bool>(), 1..4_usize, 0..20_u8);
        prop::collection::vec(line, 1..40).prop_map(move |lines| {
            let (mut log, mut time) = (Vec::new(), 100_000_000_000_000);
            for (number, (step, is_stderr, pieces, chance)) in lines.into_iter().enumerate() {
                time += step * 1_000_000_000 - if is_set_back && chance == 0 { 3_600_000_000_000 } else { 0 };
                let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
                for piece in 1..=pieces {
                    let end = if piece == pieces { "\n" } else { "" };
                    log.push((time, stream, format!("{number}.{piece}{end}")));
                }
                // A new time, so that the next line is not joined to this one.
                time += i64::from(pieces > 1);
            }
            log
        })
    }

    /// The body that dockerd sends for a log: up to 23 if `is_old`, else from 24 on.
    fn body(log: &[LogRecord], since: Option<Timestamp>, tail: Option<u64>, is_old: bool) -> Vec<u8> {
        let tail = usize::try_from(tail.unwrap_or(u64::MAX)).unwrap().min(log.len());
        let log = &log[log.len() - tail..];
        let wanted = |record: &LogRecord| since.is_none_or(|since| at(record.0) >= since);
        let first = log.iter().position(wanted).unwrap_or(log.len());
        let sent = log[first..].iter().filter(|record| !is_old || wanted(record));
        sent.flat_map(|(time, stream, text)| frame(1 + *stream as u8, &format!("{} {text}", at(*time)))).collect()
    }

    /// The lines as the file route reads them: escaped, and record by record.
    fn by_file(log: &[LogRecord]) -> (Vec<String>, TimePosition) {
        let mut joiner = Joiner::new(1 << 20, Window::default());
        let mut batch = Batch::new(ContainerKey(1), Route::File, Vec::new(), Vec::new());
        for (time, stream, text) in log {
            let (message, complete) = text.strip_suffix('\n').map_or((text.as_str(), false), |text| (text, true));
            let (text, encoding) = (message.as_bytes().into(), Encoding::Json);
            let piece = Piece { time: at(*time), stream: *stream, text, encoding, complete };
            joiner.push(piece, None, &mut LineSink::of(&mut batch));
        }
        (rendered([Some(Item::Lines(batch))]), joiner.position())
    }

    /// The part of the log that exists at a request, where the response breaks off, and the request's `tail`.
    type RequestCase = (Range<usize>, prop::sample::Index, Option<u64>);

    /// Sends one request after another as `commands::stream` does, and finally reads everything. When following, an old
    /// dockerd sends the last line twice.
    fn over_api(
        log: &[LogRecord],
        from: TimePosition,
        requests: &[RequestCase],
        is_old: bool,
        is_followed: bool,
    ) -> Vec<String> {
        let (mut reader, mut delivered, mut items) = (frames(), Delivered::up_to(from), Vec::new());
        let mut is_uncertain = false;
        let mut ask = |log: &[LogRecord], end: Option<prop::sample::Index>, tail_window: Option<u64>| {
            let is_followed = is_followed && !is_uncertain;
            let RequestRange { since, tail } = delivered.begin(&mut reader, tail_window, is_followed);
            reader.set_may_repeat(is_followed && is_old);
            let mut body = body(log, since, tail, is_old);
            let last = log.last().filter(|(time, _, text)| text.ends_with('\n') && Some(at(*time)) >= since);
            if let (true, Some((time, stream, text))) = (is_followed && is_old, last) {
                body.extend(frame(1 + *stream as u8, &format!("{} {text}", at(*time))));
            }
            let end = end.map_or(body.len(), |end| end.index(body.len() + 1));
            for chunk in body[..end].chunks(50) {
                let (item, end) = reader.push(chunk);
                if item.is_some() || end.is_ok() {
                    delivered = delivered.after(&reader, item.as_ref());
                    items.push(item);
                }
                match end {
                    Ok(()) => {}
                    Err(Error::NoOverlap) => return,
                    Err(Error::PossibleRepeat) => return is_uncertain = true,
                    Err(Error::TimeWentBack) => return delivered = delivered.from_start(),
                    Err(error) => panic!("{error}"),
                }
            }
            is_uncertain &= end < body.len() || reader.lacks_overlap();
            // The response lacks the newest line, so that line has a time before `since`.
            let newest = log.last().map(|(time, ..)| at(*time));
            if end == body.len() && reader.newest().map(|newest| newest.time) != newest && newest < since {
                delivered = delivered.from_start();
            }
        };
        for (there, end, tail_window) in requests {
            ask(&log[there.clone()], Some(*end), *tail_window);
        }
        let log = &log[requests.last().map_or(0, |(there, ..)| there.start)..];
        for step in 0..60 {
            ask(log, None, Some(2).filter(|_| step % 2 == 0));
        }
        rendered(items)
    }

    /// The body that Podman sends for a log. `since` is exclusive and compared with nanoseconds, and requests ask for a
    /// microsecond less. Times in the body are whole seconds.
    fn body_of_podman(log: &[LogRecord], since: Option<Timestamp>) -> Vec<u8> {
        let wanted = log.iter().filter(|(time, ..)| since.is_none_or(|since| at(*time) > since.plus(-1000)));
        let whole_second = |time: i64| at(time).whole_second().to_string().replace(".000000000", "");
        wanted
            .flat_map(|(time, stream, text)| frame(1 + *stream as u8, &format!("{} {text}", whole_second(*time))))
            .collect()
    }

    /// Podman's pieces, each with its own time, several in a second.
    fn logs_of_podman() -> impl Strategy<Value = Vec<LogRecord>> {
        let piece = (1..700_000_000_i64, any::<bool>(), 0..3_u8);
        prop::collection::vec(piece, 1..40).prop_map(|pieces| {
            let (mut log, mut time) = (Vec::new(), 100_000_000_000_000);
            for (number, (step, is_stderr, end)) in pieces.into_iter().enumerate() {
                time += step;
                let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
                log.push((time, stream, format!("{number}{}", if end > 0 { "\n" } else { "." })));
            }
            log
        })
    }

    proptest! {
        /// From any start, across any breaks and any number of runs, each of Podman's lines comes once.
        #[test]
        fn lines_sharing_a_second_come_once_across_breaks(
            log in logs_of_podman(),
            start in prop::option::of(0..15_000_000_000_i64),
            requests in prop::collection::vec((any::<[prop::sample::Index; 2]>(), any::<bool>()), 0..8),
        ) {
            let begin = start.map(|start| at(100_000_000_000_000 + start));
            let reader = |begin| frames().with_dialect(Dialect::Podman, begin);
            let (mut whole, mut last) = (reader(begin), Vec::new());
            whole.resume(TimePosition::at(begin));
            let expected = rendered([pushed(&mut whole, &body_of_podman(&log, begin))]);
            let (mut reading, mut delivered) = (reader(begin), Delivered::up_to(TimePosition::at(begin)));
            let mut requests: Vec<_> =
                requests.into_iter().map(|([grown, end], is_run)| (grown.index(log.len() + 1), Some(end), is_run)).collect();
            requests.sort_by_key(|(grown, ..)| *grown);
            requests.push((log.len(), None, false));
            for (grown, end, is_new_run) in requests {
                if is_new_run {
                    reading = reader(delivered.position().since);
                    delivered = Delivered::up_to(delivered.position());
                }
                let wanted = delivered.begin(&mut reading, Some(2), false);
                prop_assert_eq!(wanted.tail, None);
                let body = body_of_podman(&log[..grown], wanted.since);
                let end = end.map_or(body.len(), |end| end.index(body.len() + 1));
                for chunk in body[..end].chunks(50) {
                    let item = pushed(&mut reading, chunk);
                    delivered = delivered.after(&reading, item.as_ref());
                    last.push(item);
                }
            }
            prop_assert_eq!(rendered(last), expected);
        }

        #[test]
        fn any_sequence_of_requests_yields_every_line_once(
            log in logs(true),
            requests in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..12_u64), 0..8),
            (is_old, is_followed) in any::<(bool, bool)>(),
        ) {
            let tail_window = |tail_window: u64| Some(tail_window).filter(|tail_window| *tail_window > 0);
            let sized = requests.iter().map(|(grown, end, records)| (0..grown.index(log.len() + 1), *end, tail_window(*records)));
            let mut requests: Vec<RequestCase> = sized.collect();
            requests.sort_by_key(|(there, ..)| there.end);
            prop_assert_eq!(over_api(&log, TimePosition::default(), &requests, is_old, is_followed), by_file(&log).0);
        }

        #[test]
        fn reading_a_file_continues_over_the_api(
            log in logs(true),
            read: prop::sample::Index,
            (is_old, is_followed) in any::<(bool, bool)>(),
        ) {
            let (mut lines, position) = by_file(&log[..read.index(log.len() + 1)]);
            lines.extend(over_api(&log, position, &[], is_old, is_followed));
            prop_assert_eq!(lines, by_file(&log).0);
        }

        #[test]
        fn rotation_between_requests_yields_gaps_but_no_repeats(
            log in logs(false),
            read in prop::option::of(any::<prop::sample::Index>()),
            requests in prop::collection::vec(
                (any::<[prop::sample::Index; 2]>(), any::<prop::sample::Index>(), 0..12_u64),
                1..8,
            ),
            (is_old, is_followed) in any::<(bool, bool)>(),
        ) {
            // Rotation removes whole files. A file ends with a line, and not between lines of the same time.
            let is_first = |at: &usize| *at == 0 || log[*at - 1].0 != log[*at].0 && log[*at - 1].2.ends_with('\n');
            let starts: Vec<usize> = (0..log.len()).filter(is_first).collect();
            let mut grown: Vec<usize> = requests.iter().map(|([grown, _], ..)| grown.index(log.len() + 1)).collect();
            let mut gone: Vec<usize> = requests.iter().map(|([_, gone], ..)| starts[gone.index(starts.len())]).collect();
            grown.sort_unstable();
            gone.sort_unstable();
            let read = read.map_or(0, |read| read.index(log.len() + 1));
            let there = gone.iter().zip(grown).map(|(gone, grown)| *gone..grown.max(*gone).max(read));
            let requests: Vec<RequestCase> = requests
                .iter()
                .zip(there)
                .map(|((_, end, tail_window), there)| (there, *end, Some(*tail_window).filter(|tail_window| *tail_window > 0)))
                .collect();
            let (mut lines, position) = by_file(&log[..read]);
            lines.extend(over_api(&log, position, &requests, is_old, is_followed));
            let whole = by_file(&log).0;
            // The number of lines whose records were gone in the end.
            let gone = by_file(&log[..gone.last().copied().unwrap_or(0)]).0.len();
            let (mut next, mut has_gap) = (0, false);
            for line in &lines {
                if line == "rotated_away" {
                    has_gap = true;
                    continue;
                }
                let at = whole.iter().position(|other| other == line);
                prop_assert!(at.is_some_and(|at| at >= next), "{} repeated or never written: {:?}", line, lines);
                let at = at.unwrap_or(next);
                prop_assert!(at == next || has_gap || next == 0, "no gap before {}: {:?}", line, lines);
                prop_assert!(!has_gap || next > 0 && gone >= next, "gap before {} without need: {:?}", line, lines);
                (next, has_gap) = (at + 1, false);
            }
            prop_assert_eq!((next, has_gap), (whole.len(), false));
        }
    }

    proptest! {
        /// A log is read with breaks at any byte. Each time the server sends everything at or after `since`.
        #[test]
        fn after_any_break_every_line_comes_once(
            log in prop::collection::vec((0..3_i64, any::<bool>(), 1..4_usize), 1..30),
            breaks in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            // The times of each stream are in order. Many are equal, and some lines are in pieces.
            let (mut records, mut time) = (Vec::new(), 100);
            for (number, (step, stderr, pieces)) in log.iter().enumerate() {
                time += step;
                for piece in 1..=*pieces {
                    let end = if piece == *pieces { "\n" } else { "" };
                    records.push((at(time), frame(1 + u8::from(*stderr), &format!("{} {number}.{piece}{end}", at(time)))));
                }
                // A new time, so that the next line is not joined to this one.
                time += i64::from(*pieces > 1);
            }
            let body = |since: Option<Timestamp>| {
                records.iter().filter(|(time, _)| since.is_none_or(|since| *time >= since)).flat_map(|(_, frame)| frame.clone()).collect::<Vec<_>>()
            };
            let whole = rendered([pushed(&mut frames(), &body(None))]);
            let (mut reader, mut items) = (frames(), Vec::new());
            for at in breaks {
                let position = reader.position();
                reader.resume(position);
                let body = body(position.since);
                if !body.is_empty() {
                    items.push(pushed(&mut reader, &body[..at.index(body.len())]));
                }
            }
            let position = reader.position();
            reader.resume(position);
            items.push(pushed(&mut reader, &body(position.since)));
            prop_assert_eq!(rendered(items), whole);
        }
    }
}

//! A container's log as the API sends it, from one body to the next.
//!
//! In: chunks of the body of `GET /containers/{id}/logs?timestamps=1`, which [`super::body`] takes apart. Out: batches. The
//! engine room opens the requests; this knows where the next one has to start so that no line is missed and none comes twice.
//! `since` takes all nine digits of a time and includes it.
//!
//! A request for all since a time costs the engine a walk through the whole log. One for so many records from the end does
//! not: the last line that was passed on has to be among them ([`Delivered`]), and everything behind it is new. The time has to
//! be there all the same, or the engine unpacks every compressed file; but up to 23 it leaves out for it what was written
//! after the clock was set back, wherever that stands. Where the last line is not in all there is since its time, the engine
//! has rotated it away.

use super::body::{self, Body, Part, Record};
use crate::model::batch::{Batch, ContainerKey, Encoding, Item, Reason};
use crate::model::cursor::{Cursor, Route};
use crate::model::position::{Position, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::lines::{Joiner, Sheet, Tally};
use crate::tail::{Piece, SLACK, Window, before};
use std::borrow::Cow;
use std::ops::ControlFlow;

/// How an engine tells its logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// With the nanosecond of a line before each of its pieces.
    #[default]
    Docker,
    /// With the second in which a piece was read. The engine knows the time to the nanosecond, and goes by that in what it
    /// sends: times that are asked for say more than those that come.
    Podman,
}

impl Dialect {
    /// The least time that a line may come with which has this one.
    pub fn told(self, time: Timestamp) -> Timestamp {
        match self {
            Dialect::Docker => time,
            Dialect::Podman => time.whole_second(),
        }
    }
}

/// One container's log over the API.
pub struct Frames {
    key: ContainerKey,
    route: Route,
    body: Body,
    joiner: Joiner,
    /// Of the lines up to a position, those before this one are not wanted.
    first: Option<(Cursor, TimePosition)>,
    records: u64,
    /// What `records` was when this body began, or when all that came again had come.
    known: u64,
    /// The last record of this body.
    newest: Option<Record>,
    /// The last whole line of this body, shown or not.
    line: Option<Cursor>,
    /// The time of the last record before it, or before those of its time.
    other: Option<Timestamp>,
    /// Up to the first record of at least this time nothing is wanted, whether or not the engine was told so.
    since: Option<Timestamp>,
    /// What has to come again before anything is new.
    seam: Option<Seam>,
    /// The engine may send again what it has sent.
    may_repeat: bool,
    /// Of what was passed on something has still to come in this body.
    is_in_doubt: bool,
    /// The time of each stream's last line, and whether the next has to lie behind it.
    latest: [Option<(Timestamp, bool)>; 2],
    /// What came behind the lines that were handed out.
    failed: Option<Error>,
    dialect: Dialect,
    /// Nothing before this is ever asked for, nor counted.
    floor: Option<Timestamp>,
}

/// What is to be found again in a body of so many records from the end.
#[derive(Debug)]
struct Seam {
    position: TimePosition,
    /// Nothing, where nothing was passed on: then nothing is to come.
    last: Option<Cursor>,
    reach: u64,
}

/// How far lines were passed on, over many bodies.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    position: TimePosition,
    /// The last line, if a body can be joined to it, and the time of a record before it.
    seam: Option<(Cursor, Timestamp)>,
}

/// What a request has to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRange {
    /// Not before.
    pub since: Option<Timestamp>,
    /// So many records from the end.
    pub tail: Option<u64>,
}

/// Why a body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The last line that was passed on is not among so many records from the end.
    #[error("more was written than was asked for")]
    Apart,
    /// The clock was set back, and the engine may have left out lines for it; or it sends again what it has sent, as those
    /// up to 20.10 do after a rotation. The next body tells.
    #[error("the times of the log went back")]
    Back,
    /// A line has the time of the one before it: it may be that line, which those up to 20.10 send again when they go on
    /// behind a rotation. A body that is not followed tells, for nothing is sent again in it.
    #[error("a line may have been sent again")]
    Again,
    /// It does not say what comes next.
    #[error(transparent)]
    Body(#[from] body::Error),
}

impl Frames {
    /// From the first line that the request asks for.
    pub fn new(key: ContainerKey, route: Route, window: Window, max_line_size: usize) -> Self {
        Frames {
            key,
            route,
            body: Body::default(),
            joiner: Joiner::new(max_line_size, window),
            first: None,
            records: 0,
            known: 0,
            newest: None,
            line: None,
            other: None,
            since: None,
            seam: None,
            may_repeat: false,
            is_in_doubt: false,
            latest: [None; 2],
            failed: None,
            dialect: Dialect::Docker,
            floor: None,
        }
    }

    /// For the log of an engine that speaks this, from where a reader begins with it. Lines of one second are told apart by
    /// their numbers, so all requests that come to a second have to begin at the same place in it.
    #[must_use]
    pub fn of(mut self, dialect: Dialect, begin: Option<Timestamp>) -> Self {
        self.dialect = dialect;
        if dialect == Dialect::Podman {
            self.floor = begin;
            self.joiner.count_pieces();
        }
        self
    }

    /// Of the lines up to a position, shows none before this one.
    pub fn start_at(&mut self, first: Cursor, known: TimePosition) {
        self.first = Some((first, known));
    }

    /// Whether the engine may send again, in this body, what it has sent.
    pub fn suspect(&mut self, may_repeat: bool) {
        self.may_repeat = may_repeat;
    }

    /// How far it has come.
    pub fn position(&self) -> TimePosition {
        let mut position = with_last_lines(self.joiner.position());
        // The clock was set back: engines up to 23 leave out what has a time before `since`, wherever it stands.
        if let (Some(since), Some(newest)) = (position.since, self.newest)
            && newest.time < since
        {
            position.since = Some(before(newest.time));
        }
        position.since = position.since.map(|since| self.floor.map_or(since, |floor| since.max(floor)));
        position
    }

    /// A new body follows, of a request from its [`TimePosition::since`] on. Where it begins with something new the lines that
    /// were passed on last are gone, and perhaps more.
    pub fn resume(&mut self, position: TimePosition) {
        self.body.restart();
        self.failed = None;
        (self.newest, self.line, self.other) = (None, None, None);
        let since = position.since.map(|since| self.dialect.told(since));
        (self.since, self.seam, self.known) = (since, None, self.records);
        // Where nothing is left out there is nothing to be said against earlier times.
        let is_cut = position.since.is_some();
        self.latest = position.seen.map(|seen| seen.map(|seen| (seen.time, is_cut)));
        self.joiner.rewind_in_doubt(position);
        self.is_in_doubt = self.joiner.is_in_doubt();
    }

    /// Records seen so far, which is what the request's `tail` counts.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Records of this body that are new, where the old ones can be told.
    pub fn fresh(&self) -> u64 {
        self.records - self.known
    }

    /// The last record of this body.
    pub fn newest(&self) -> Option<Record> {
        self.newest
    }

    /// Takes a chunk: what came of it, and whether the body can be read on behind that.
    pub fn push(&mut self, chunk: &[u8]) -> (Option<Item>, Result<(), Error>) {
        if chunk.is_empty() {
            return (None, Ok(()));
        }
        let mut batch = Batch::new(self.key, self.route, Vec::new(), Vec::new());
        // Out of here while its records come back in.
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.gather(chunk);
        let end = body.each(&bytes, |part| self.take(part, &mut batch));
        (self.body, batch.bytes) = (body, bytes);
        let end = self.failed.take().map_or(end.map_err(Error::from), Err);
        (self.hand_out(batch), end)
    }

    /// The body has come to its end, and the line to be found again has not.
    pub fn is_apart(&self) -> bool {
        self.seam.as_ref().is_some_and(|seam| seam.last.is_some())
    }

    /// The container has died and its log was read to the end.
    pub fn flush(&mut self) -> Option<Item> {
        let mut batch = Batch::new(self.key, self.route, Vec::new(), Vec::new());
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.gather(&[]);
        body.last(&bytes, |part| self.take(part, &mut batch));
        (self.body, batch.bytes) = (body, bytes);
        let (lines, last) = (batch.lines.len(), self.joiner.last());
        self.joiner.flush_all(&mut Sheet::of(&mut batch));
        self.miss(lines, last, &mut batch);
        self.hand_out(batch)
    }

    fn hand_out(&mut self, mut batch: Batch) -> Option<Item> {
        self.skip_to_first(&mut batch);
        if batch.is_empty() {
            return None;
        }
        batch.position = Some(Position { route: self.route, resume: self.position(), place: None });
        Some(Item::Lines(batch))
    }

    /// Takes what a body is made of, and whether to go on: behind a failure all comes again.
    #[inline]
    fn take(&mut self, part: Part<'_>, batch: &mut Batch) -> ControlFlow<()> {
        self.records += 1;
        match part {
            Part::Record(record, message, at) => self.piece(record, message, at, batch),
            Part::Corrupt(size) if self.seam.is_none() => {
                self.joiner.gap(Reason::Corrupt, Some(size as u64), &mut Sheet::of(batch));
            }
            Part::Corrupt(_) => {}
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn piece(&mut self, record: Record, message: &[u8], at: usize, batch: &mut Batch) {
        let before = self.newest.replace(record).map(|before| before.time);
        self.other = before.filter(|before| *before != record.time).or(self.other);
        if self.seam.is_some() {
            return self.join(record);
        }
        if self.since.is_some_and(|since| record.time < since) {
            return;
        }
        self.since = None;
        let Record { time, stream, is_complete: complete } = record;
        // A later body has to be joined to what was passed on.
        if self.joiner.is_late(time) {
            return;
        }
        let lines = batch.lines.len();
        let piece = Piece { time, stream, text: Cow::Borrowed(message), encoding: Encoding::Raw, complete };
        if let Some((latest, must_rise)) = self.latest[stream as usize].filter(|_| !self.joiner.is_behind(stream)) {
            let is_again = time == latest && self.may_repeat && !self.joiner.has_begun(stream);
            let is_back = time < latest && must_rise;
            self.failed = is_back.then_some(Error::Back).or(is_again.then_some(Error::Again));
            if self.failed.is_some() {
                return;
            }
        }
        let last = self.joiner.last();
        self.joiner.push(piece, Some(at), &mut Sheet::of(batch));
        self.miss(lines, last, batch);
        for line in &batch.lines[lines..] {
            self.latest[line.stream as usize] = Some((line.time, true));
        }
        if let (true, Some((time, ordinal))) = (complete, self.joiner.tally().last[stream as usize]) {
            self.line = Some(Cursor { time, stream, ordinal });
        }
    }

    /// Behind so many lines of the batch new ones may have come.
    fn miss(&mut self, lines: usize, last: Option<Cursor>, batch: &mut Batch) {
        if self.is_in_doubt {
            if batch.lines.len() > lines {
                self.joiner.miss(lines, last, &mut Sheet::of(batch));
            }
            self.is_in_doubt = self.joiner.is_in_doubt();
        }
    }

    /// Looks for the line that was passed on last.
    fn join(&mut self, record: Record) {
        let Some(seam) = &self.seam else { return };
        let Some(last) = seam.last else {
            self.failed = Some(Error::Apart);
            return;
        };
        // Lines of one time could be cut apart where the body begins.
        let is_last = (record.stream, record.time) == (last.stream, last.time);
        if is_last && record.is_complete && self.other.is_some() {
            let seen = seam.position.seen;
            let tally = Tally { last: seen.map(|seen| Some((seen?.time, seen?.ordinal))), ..Tally::default() };
            let high = seen.map(|seen| seen.map_or(Timestamp(i64::MIN), |seen| seen.high));
            self.since = None;
            self.joiner.start(tally, [0; 2], high);
            (self.seam, self.known, self.is_in_doubt) = (None, self.records, false);
            return;
        }
        // It would have come before this one, if it comes at all.
        let slack = if record.stream == last.stream { 0 } else { SLACK };
        let is_behind = record.time.0 > last.time.0.saturating_add(slack);
        if is_behind || self.records - self.known >= seam.reach {
            self.failed = Some(Error::Apart);
        }
    }

    fn skip_to_first(&mut self, batch: &mut Batch) {
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
    /// Up to here, by whichever route.
    pub fn to(position: TimePosition) -> Self {
        Delivered { position: with_last_lines(position), seam: None }
    }

    /// Where to go on.
    pub fn position(&self) -> TimePosition {
        self.position
    }

    /// Makes ready for a body, and says of what: if possible of the last `reach` records, else of all there may be.
    /// One that is followed tells nothing of what it is not for.
    pub fn begin(&self, frames: &mut Frames, reach: Option<u64>, follow: bool) -> RequestRange {
        frames.resume(self.position);
        let since = self.position.since;
        // Podman reads the last records first and opens the log for the rest behind that: what is written in between is
        // in no answer for so many records.
        let reach = reach.filter(|_| frames.dialect == Dialect::Docker);
        let is_at_start = self.position.is_at_start() && since.is_some() && !follow;
        let Some(reach) = reach.filter(|_| self.seam.is_some() || is_at_start) else {
            return RequestRange { since, tail: None };
        };
        let (last, earlier) = self.seam.map(|(last, other)| (last, last.time.min(other))).unzip();
        frames.seam = Some(Seam { position: self.position, last, reach });
        RequestRange { since: since.map(|since| earlier.map_or(since, before)), tail: Some(reach) }
    }

    /// Once all that was handed out is passed on, `item` as the last of it.
    #[must_use]
    pub fn after(mut self, frames: &Frames, item: Option<&Item>) -> Delivered {
        let is_new = matches!(item, Some(Item::Lines(batch)) if !batch.lines.is_empty());
        if is_new || !frames.joiner.is_rewound() {
            // One that can be told by its time, and from what is before it.
            let is_fit = |line: &Cursor| line.ordinal == 0 && !frames.joiner.is_open();
            let seam = frames.line.filter(is_fit).zip(frames.other);
            self.seam = seam.or(self.seam.filter(|_| !is_new));
        }
        let position = frames.position();
        // While the lines come again that were passed on, it says no more than it was made from.
        if position.seen != self.position.seen {
            self.position = position;
        }
        self
    }

    /// Once it was seen that a body cannot be joined to the last line: what has begun of one was passed on without its
    /// newline, or all before it is gone.
    #[must_use]
    pub fn without_seam(self) -> Delivered {
        Delivered { seam: None, ..self }
    }

    /// The clock was set back, and who knows when: from the first line, then.
    #[must_use]
    pub fn from_the_first(mut self) -> Delivered {
        self.position.since = None;
        self
    }
}

/// Where the clock was set back, nothing but the last line itself tells the lines before it from those behind it: it has to
/// come again.
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

    fn told(items: impl IntoIterator<Item = Option<Item>>) -> Vec<String> {
        let mut told = Vec::new();
        for item in items.into_iter().flatten() {
            let Item::Lines(batch) = item else { panic!("{item:?}") };
            for at in 0..=batch.lines.len() {
                let gaps = batch.gaps.iter().filter(|(before, _)| *before == at);
                told.extend(gaps.map(|(_, gap)| gap.reason.name().to_owned()));
                let line = batch.lines.get(at);
                told.extend(
                    line.map(|line| format!("{} {}", line.cursor(), String::from_utf8_lossy(batch.text(line)))),
                );
            }
        }
        told
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
    fn lines_before_a_failure_are_handed_out_with_the_position_behind_them() {
        for (failure, told_as) in [
            (frame(3, "Error grabbing logs: gone\n"), "the engine failed to read the log: Error grabbing logs: gone"),
            (b"HTTP/1.1 500".to_vec(), "the log stream is malformed: no frame header where one should be"),
        ] {
            let mut log = frames();
            let (item, end) = log.push(&[frame(1, &format!("{} one\n", at(1))), failure].concat());
            let Some(Item::Lines(batch)) = &item else { panic!("{item:?}") };
            let seen = Mark { time: at(1), ordinal: 0, high: at(1) };
            let resume = TimePosition { since: Some(before(at(1))), seen: [Some(seen), None] };
            assert_eq!(batch.position, Some(Position { route: Route::Stream, resume, place: None }));
            assert_eq!(told([item]), ["1-o0 one"]);
            assert_eq!(end.unwrap_err().to_string(), told_as);
        }
    }

    #[test]
    fn a_position_does_not_pass_what_has_begun_of_a_line() {
        let mut log = frames();
        let (early, late) = (at(20_000_000_000), at(50_000_000_000));
        let body = [frame(2, &format!("{early} half")), frame(1, &format!("{late} one\n"))].concat();
        let Some(Item::Lines(batch)) = pushed(&mut log, &body) else { panic!() };
        let resume = batch.position.unwrap().resume;
        assert_eq!(resume.since, Some(early));
        let mut next = frames();
        next.resume(resume);
        let more = [body, frame(2, &format!("{early} and half\n"))].concat();
        assert_eq!(told([pushed(&mut next, &more)]), [format!("{}-e0 halfand half", early.0)]);
    }

    #[test]
    fn from_an_engine_that_is_told_no_time_nothing_old_is_new_and_nothing_is_missed() {
        let second = |number: i64| at(number * 1_000_000_000);
        let seen = Mark { time: second(100), ordinal: 0, high: second(100) };
        let position = TimePosition { since: Some(before(second(100))), seen: [Some(seen), None] };
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
            assert_eq!(told([pushed(&mut log, &body(from))]), expected, "{from}");
        }
    }

    #[test]
    fn a_chunk_without_bytes_says_nothing() {
        let mut log = frames();
        let body = format!("{} a\r\n", at(1));
        assert_eq!(told([pushed(&mut log, b""), pushed(&mut log, body.as_bytes())]), ["1-o0 a\r"]);
    }

    /// A record of a log: time, stream, text with or without its newline.
    type Written = (i64, Stream, String);

    /// Lines in pieces or whole, on two streams; the times of each stream rise but where the clock is set back.
    fn logs(is_set_back: bool) -> impl Strategy<Value = Vec<Written>> {
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
                // A line that got no newline for another one to be joined to has the next time.
                time += i64::from(pieces > 1);
            }
            log
        })
    }

    /// What the engine has of a log, up to 23 or from 24 on.
    fn body(log: &[Written], since: Option<Timestamp>, tail: Option<u64>, is_old: bool) -> Vec<u8> {
        let tail = usize::try_from(tail.unwrap_or(u64::MAX)).unwrap().min(log.len());
        let log = &log[log.len() - tail..];
        let wanted = |record: &Written| since.is_none_or(|since| at(record.0) >= since);
        let first = log.iter().position(wanted).unwrap_or(log.len());
        let sent = log[first..].iter().filter(|record| !is_old || wanted(record));
        sent.flat_map(|(time, stream, text)| frame(1 + *stream as u8, &format!("{} {text}", at(*time)))).collect()
    }

    /// As the file route reads it: escaped, and record by record.
    fn by_file(log: &[Written]) -> (Vec<String>, TimePosition) {
        let mut joiner = Joiner::new(1 << 20, Window::default());
        let mut batch = Batch::new(ContainerKey(1), Route::File, Vec::new(), Vec::new());
        for (time, stream, text) in log {
            let (message, complete) = text.strip_suffix('\n').map_or((text.as_str(), false), |text| (text, true));
            let (text, encoding) = (message.as_bytes().into(), Encoding::Json);
            let piece = Piece { time: at(*time), stream: *stream, text, encoding, complete };
            joiner.push(piece, None, &mut Sheet::of(&mut batch));
        }
        (told([Some(Item::Lines(batch))]), joiner.position())
    }

    /// How much of the log is gone before a request and how it has grown, where its answer is broken off, for how many
    /// records it is.
    type Request = (Range<usize>, prop::sample::Index, Option<u64>);

    /// As the engine room does it: request after request, and at last all there is. An old engine that is followed sends
    /// the last line again.
    fn over_api(
        log: &[Written],
        from: TimePosition,
        requests: &[Request],
        is_old: bool,
        is_followed: bool,
    ) -> Vec<String> {
        let (mut reader, mut passed, mut items) = (frames(), Delivered::to(from), Vec::new());
        let mut is_doubted = false;
        let mut ask = |log: &[Written], end: Option<prop::sample::Index>, reach: Option<u64>| {
            let is_followed = is_followed && !is_doubted;
            let RequestRange { since, tail } = passed.begin(&mut reader, reach, is_followed);
            reader.suspect(is_followed && is_old);
            let mut body = body(log, since, tail, is_old);
            let last = log.last().filter(|(time, _, text)| text.ends_with('\n') && Some(at(*time)) >= since);
            if let (true, Some((time, stream, text))) = (is_followed && is_old, last) {
                body.extend(frame(1 + *stream as u8, &format!("{} {text}", at(*time))));
            }
            let end = end.map_or(body.len(), |end| end.index(body.len() + 1));
            for chunk in body[..end].chunks(50) {
                let (item, end) = reader.push(chunk);
                if item.is_some() || end.is_ok() {
                    passed = passed.after(&reader, item.as_ref());
                    items.push(item);
                }
                match end {
                    Ok(()) => {}
                    Err(Error::Apart) => return,
                    Err(Error::Again) => return is_doubted = true,
                    Err(Error::Back) => return passed = passed.from_the_first(),
                    Err(error) => panic!("{error}"),
                }
            }
            is_doubted &= end < body.len() || reader.is_apart();
            // Where it has nothing of what was written last, that has a time before what was asked for.
            let newest = log.last().map(|(time, ..)| at(*time));
            if end == body.len() && reader.newest().map(|newest| newest.time) != newest && newest < since {
                passed = passed.from_the_first();
            }
        };
        for (there, end, reach) in requests {
            ask(&log[there.clone()], Some(*end), *reach);
        }
        let log = &log[requests.last().map_or(0, |(there, ..)| there.start)..];
        for step in 0..60 {
            ask(log, None, Some(2).filter(|_| step % 2 == 0));
        }
        told(items)
    }

    /// What Podman has of a log: it goes by all digits of a time, leaves out what is not later, and tells the second.
    fn body_of_podman(log: &[Written], since: Option<Timestamp>) -> Vec<u8> {
        let wanted = log.iter().filter(|(time, ..)| since.is_none_or(|since| at(*time) > since.plus(-1000)));
        let told = |time: i64| at(time).whole_second().to_string().replace(".000000000", "");
        wanted.flat_map(|(time, stream, text)| frame(1 + *stream as u8, &format!("{} {text}", told(*time)))).collect()
    }

    /// Podman's pieces: each with a time of its own, several in a second.
    fn logs_of_podman() -> impl Strategy<Value = Vec<Written>> {
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
        /// Read from any moment, over any breaks and by any number of runs, each line of Podman's comes once.
        #[test]
        fn lines_that_share_a_second_come_once_whatever_breaks(
            log in logs_of_podman(),
            start in prop::option::of(0..15_000_000_000_i64),
            requests in prop::collection::vec((any::<[prop::sample::Index; 2]>(), any::<bool>()), 0..8),
        ) {
            let begin = start.map(|start| at(100_000_000_000_000 + start));
            let reader = |begin| frames().of(Dialect::Podman, begin);
            let (mut whole, mut last) = (reader(begin), Vec::new());
            whole.resume(TimePosition::at(begin));
            let expected = told([pushed(&mut whole, &body_of_podman(&log, begin))]);
            let (mut reading, mut passed) = (reader(begin), Delivered::to(TimePosition::at(begin)));
            let mut requests: Vec<_> =
                requests.into_iter().map(|([grown, end], is_run)| (grown.index(log.len() + 1), Some(end), is_run)).collect();
            requests.sort_by_key(|(grown, ..)| *grown);
            requests.push((log.len(), None, false));
            for (grown, end, is_new_run) in requests {
                if is_new_run {
                    reading = reader(passed.position().since);
                    passed = Delivered::to(passed.position());
                }
                let wanted = passed.begin(&mut reading, Some(2), false);
                prop_assert_eq!(wanted.tail, None);
                let body = body_of_podman(&log[..grown], wanted.since);
                let end = end.map_or(body.len(), |end| end.index(body.len() + 1));
                for chunk in body[..end].chunks(50) {
                    let item = pushed(&mut reading, chunk);
                    passed = passed.after(&reading, item.as_ref());
                    last.push(item);
                }
            }
            prop_assert_eq!(told(last), expected);
        }

        #[test]
        fn a_log_read_in_any_parts_is_whole_and_has_nothing_twice(
            log in logs(true),
            requests in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..12_u64), 0..8),
            (is_old, is_followed) in any::<(bool, bool)>(),
        ) {
            let reach = |reach: u64| Some(reach).filter(|reach| *reach > 0);
            let sized = requests.iter().map(|(grown, end, records)| (0..grown.index(log.len() + 1), *end, reach(*records)));
            let mut requests: Vec<Request> = sized.collect();
            requests.sort_by_key(|(there, ..)| there.end);
            prop_assert_eq!(over_api(&log, TimePosition::default(), &requests, is_old, is_followed), by_file(&log).0);
        }

        #[test]
        fn what_a_file_was_read_for_is_gone_on_with_over_the_api(
            log in logs(true),
            read: prop::sample::Index,
            (is_old, is_followed) in any::<(bool, bool)>(),
        ) {
            let (mut lines, position) = by_file(&log[..read.index(log.len() + 1)]);
            lines.extend(over_api(&log, position, &[], is_old, is_followed));
            prop_assert_eq!(lines, by_file(&log).0);
        }

        #[test]
        fn a_log_whose_beginning_goes_is_whole_or_the_loss_is_told_and_nothing_comes_twice(
            log in logs(false),
            read in prop::option::of(any::<prop::sample::Index>()),
            requests in prop::collection::vec(
                (any::<[prop::sample::Index; 2]>(), any::<prop::sample::Index>(), 0..12_u64),
                1..8,
            ),
            (is_old, is_followed) in any::<(bool, bool)>(),
        ) {
            // What goes are whole files; one ends where a line does, and not between lines of one time.
            let is_first = |at: &usize| *at == 0 || log[*at - 1].0 != log[*at].0 && log[*at - 1].2.ends_with('\n');
            let starts: Vec<usize> = (0..log.len()).filter(is_first).collect();
            let mut grown: Vec<usize> = requests.iter().map(|([grown, _], ..)| grown.index(log.len() + 1)).collect();
            let mut gone: Vec<usize> = requests.iter().map(|([_, gone], ..)| starts[gone.index(starts.len())]).collect();
            grown.sort_unstable();
            gone.sort_unstable();
            let read = read.map_or(0, |read| read.index(log.len() + 1));
            let there = gone.iter().zip(grown).map(|(gone, grown)| *gone..grown.max(*gone).max(read));
            let requests: Vec<Request> = requests
                .iter()
                .zip(there)
                .map(|((_, end, reach), there)| (there, *end, Some(*reach).filter(|reach| *reach > 0)))
                .collect();
            let (mut told, position) = by_file(&log[..read]);
            told.extend(over_api(&log, position, &requests, is_old, is_followed));
            let whole = by_file(&log).0;
            // Records that were gone in the end, by lines.
            let gone = by_file(&log[..gone.last().copied().unwrap_or(0)]).0.len();
            let (mut next, mut is_told) = (0, false);
            for line in &told {
                if line == "rotated_away" {
                    is_told = true;
                    continue;
                }
                let at = whole.iter().position(|other| other == line);
                prop_assert!(at.is_some_and(|at| at >= next), "{} again or never written: {:?}", line, told);
                let at = at.unwrap_or(next);
                prop_assert!(at == next || is_told || next == 0, "nothing told before {}: {:?}", line, told);
                prop_assert!(!is_told || next > 0 && gone >= next, "told before {} without need: {:?}", line, told);
                (next, is_told) = (at + 1, false);
            }
            prop_assert_eq!((next, is_told), (whole.len(), false));
        }
    }

    proptest! {
        /// A log is read with breaks at any byte; each time the engine sends again what is at or after `since`.
        #[test]
        fn after_any_break_no_line_is_missing_and_none_comes_twice(
            log in prop::collection::vec((0..3_i64, any::<bool>(), 1..4_usize), 1..30),
            breaks in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            // Times of each stream in order; many equal, some lines in pieces.
            let (mut records, mut time) = (Vec::new(), 100);
            for (number, (step, stderr, pieces)) in log.iter().enumerate() {
                time += step;
                for piece in 1..=*pieces {
                    let end = if piece == *pieces { "\n" } else { "" };
                    records.push((at(time), frame(1 + u8::from(*stderr), &format!("{} {number}.{piece}{end}", at(time)))));
                }
                // A line that got no newline for another one to be joined to has the next time.
                time += i64::from(*pieces > 1);
            }
            let body = |since: Option<Timestamp>| {
                records.iter().filter(|(time, _)| since.is_none_or(|since| *time >= since)).flat_map(|(_, frame)| frame.clone()).collect::<Vec<_>>()
            };
            let whole = told([pushed(&mut frames(), &body(None))]);
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
            prop_assert_eq!(told(items), whole);
        }
    }
}

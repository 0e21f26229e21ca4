//! Reads a container's log over the API, across any number of responses.
//!
//! In: chunks of the body of `GET /containers/{id}/logs?timestamps=1`, which [`super::body`] splits into records. Out:
//! batches. `commands::stream` sends the requests; [`crate::tail::resume`] computes their ranges, and decides
//! which records are new, so that no line is missed or repeated. `since` accepts all nine digits of a time and is
//! inclusive.
//!
//! The calls of one request: [`Frames::request`], then [`Frames::push`] for each chunk, and [`Frames::commit`] once the
//! item of that chunk was delivered. [`Frames::end`] follows if the body ends by itself and only existing records were
//! requested. A request may be abandoned at any time: the next one continues behind the last commit.

use super::body::{self, BodyPart, BodySplitter, Record};
use crate::model::batch::{Batch, ContainerKey, Encoding, Item, Reason};
use crate::model::line_id::{Cursor, Route, Stream};
use crate::model::position::{Position, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::lines::{Joiner, LineSink};
use crate::tail::resume::{
    Admission, Comparison, Completeness, Delivered, Dialect, Discontinuity, Mode, ReadLines, Recall, Received,
    RequestRange, RequestState, Tracker,
};
use crate::tail::{Piece, Window};
use std::borrow::Cow;
use std::ops::ControlFlow;

/// Decodes one container's log over the API.
pub(crate) struct Frames {
    key: ContainerKey,
    route: Route,
    body: BodySplitter,
    joiner: Joiner,
    /// Lines before this one are not shown, unless they lie after the position.
    first: Option<(Cursor, TimePosition)>,
    /// How far lines were delivered.
    delivered: Delivered,
    /// The request whose body is being read.
    request: RequestState,
    /// The error found after the lines of the current chunk.
    failed: Option<Discontinuity>,
    dialect: Dialect,
    /// No request asks for anything before this time.
    earliest: Option<Timestamp>,
    /// What bodies brought that Podman may have cut, up to the next complete body.
    received: Received,
    /// Present while pieces have to be remembered: Podman may lose lines of this body, or fills in what it lost.
    tracker: Option<Tracker>,
    /// What this body repeats of `received`. While it does, pieces are identified by their content instead of their
    /// numbers.
    recall: Option<Recall>,
}

/// What a chunk contains.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// To be delivered first, if there is one.
    pub item: Option<Item>,
    /// To be committed once `item` was delivered.
    pub receipt: Receipt,
    /// Whether reading can continue after `item`.
    pub end: Result<(), Error>,
}

/// How far lines are delivered once an item was. See [`Frames::commit`].
#[derive(Debug)]
#[must_use = "the item was not delivered before its receipt is committed"]
pub(crate) struct Receipt(Delivered);

/// Why reading a body stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It does not continue where the last line was delivered.
    #[error(transparent)]
    Discontinuity(#[from] Discontinuity),
    /// The bytes cannot be decoded.
    #[error(transparent)]
    Body(#[from] body::Error),
}

impl Frames {
    /// Creates a decoder that starts with the first line of the first response.
    pub(crate) fn new(key: ContainerKey, route: Route, window: Window, max_line_size: usize) -> Self {
        Frames {
            key,
            route,
            body: BodySplitter::default(),
            joiner: Joiner::new(max_line_size, window),
            first: None,
            delivered: Delivered::default(),
            request: RequestState::default(),
            failed: None,
            dialect: Dialect::Docker,
            earliest: None,
            received: Received::default(),
            tracker: None,
            recall: None,
        }
    }

    /// Sets the dialect, and the time at which this reader starts. Podman's lines of the same second differ only by
    /// their ordinals, so all requests that include a second must begin at the same place within it.
    #[must_use]
    pub(crate) fn with_dialect(mut self, dialect: Dialect, begin: Option<Timestamp>) -> Self {
        self.dialect = dialect;
        if dialect == Dialect::Podman {
            self.earliest = begin;
            self.joiner.count_pieces();
        }
        self
    }

    /// Continues behind what another decoder has delivered.
    #[must_use]
    pub(crate) fn continue_from(mut self, delivered: Delivered) -> Self {
        self.delivered = delivered;
        self
    }

    /// Hides lines before `first`, unless they lie after `known`.
    pub(crate) fn start_at(&mut self, first: Cursor, known: TimePosition) {
        self.first = Some((first, known));
    }

    /// Returns how far lines were delivered.
    pub(crate) fn delivered(&self) -> &Delivered {
        &self.delivered
    }

    /// Returns the position after the lines so far, whether they were delivered or not.
    pub(crate) fn position(&self) -> TimePosition {
        self.request.position(self.joiner.position(), self.earliest)
    }

    /// Starts a request and returns the range to ask for. Forgets what was read and not committed. If the body begins
    /// with a new line, the last delivered lines are gone, and perhaps others.
    pub(crate) fn request(&mut self, mode: Mode) -> RequestRange {
        let begin = match self.dialect {
            Dialect::Docker => self.delivered,
            Dialect::Podman => Delivered::up_to(self.begin_podman(mode)),
        };
        let (range, request) = begin.request(self.dialect, mode);
        self.request = request;
        self.body.restart();
        self.failed = None;
        self.joiner.replay_by_time(&begin.position(), Completeness::MustReappear);
        range
    }

    /// Returns where the next body has to begin: where the memory of what was received does, if there is any.
    fn begin_podman(&mut self, mode: Mode) -> TimePosition {
        self.set_aside();
        self.recall = self.received.recall();
        let mut position = match &self.recall {
            Some(recall) => recall.origin(),
            None => {
                self.received.clear(self.delivered.position());
                self.delivered.position()
            }
        };
        self.tracker = (mode != Mode::Read || self.recall.is_some()).then(|| self.received.tracker());
        position.since = position.since.map(|since| self.earliest.map_or(since, |earliest| since.max(earliest)));
        position
    }

    /// Notes which pieces were decoded and not delivered, because they have to be read again.
    fn set_aside(&mut self) {
        if let Some(tracker) = self.tracker.take() {
            self.received.set_aside(tracker);
        }
    }

    /// Takes over what another decoder of the same log has received.
    pub(crate) fn take_received(&mut self, other: &mut Frames) {
        other.set_aside();
        self.received = std::mem::take(&mut other.received);
    }

    /// Returns the number of pieces in memory, which changes with each piece that is delivered.
    pub(crate) fn received(&self) -> usize {
        self.received.len()
    }

    /// Returns where the next request has to begin at the latest.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        let since = self.delivered.position().since;
        self.received.origin().map_or(since, |origin| origin.since.min(since))
    }

    /// Returns the number of records of this body so far, in the unit of the request's `tail`.
    pub(crate) fn records(&self) -> u64 {
        self.request.records()
    }

    /// Returns the last record of this body.
    pub(crate) fn newest(&self) -> Option<Record> {
        self.request.newest()
    }

    /// Takes note that everything up to this receipt was delivered. Returns whether that includes any new line.
    pub(crate) fn commit(&mut self, Receipt(delivered): Receipt) -> bool {
        if let Some(tracker) = &mut self.tracker {
            self.received.add(tracker);
        }
        let has_new_lines = !delivered.has_same_lines(&self.delivered);
        self.delivered = delivered;
        has_new_lines
    }

    /// Takes note that the body of a [`Mode::Read`] request has ended. Returns the position behind it if its lines carried
    /// none. Fails if it lacks the last delivered line.
    pub(crate) fn end(&mut self) -> Result<Option<Item>, Discontinuity> {
        if self.request.lacks_overlap() {
            self.delivered = self.delivered.after_failure(Discontinuity::NoOverlap);
            return Err(Discontinuity::NoOverlap);
        }
        self.delivered = self.delivered.after_end(&self.request);
        self.received.clear(TimePosition::default());
        self.tracker = None;
        Ok(self.recall.take().map(|_| {
            self.delivered = self.delivered_with(None);
            Item::StartAt(self.key, self.reached())
        }))
    }

    fn reached(&self) -> Position {
        Position { route: self.route, resume: self.position(), place: None }
    }

    /// Reads from the first line next time, because the clock was set back at an unknown place.
    pub(crate) fn read_from_start(&mut self) {
        self.delivered = self.delivered.read_from_start();
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) -> Decoded {
        if chunk.is_empty() {
            return Decoded { item: None, receipt: Receipt(self.delivered), end: Ok(()) };
        }
        let mut batch = Batch::new(self.key, self.route, Vec::new(), Vec::new());
        // Moved out because its callback borrows `self`.
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.gather(chunk);
        let end = body.each(&bytes, |part| self.take(part, &mut batch));
        (self.body, batch.bytes) = (body, bytes);
        let item = self.finish_batch(batch);
        let failed = self.failed.take();
        let end = failed.map_or(end.map_err(Error::from), |failed| Err(failed.into()));
        let is_read = item.is_some() || end.is_ok();
        let delivered = if is_read { self.delivered_with(item.as_ref()) } else { self.delivered };
        let receipt = Receipt(failed.map_or(delivered, |failed| delivered.after_failure(failed)));
        Decoded { item, receipt, end }
    }

    /// Returns the last line without a newline: the container has died and its log was read to the end.
    pub(crate) fn flush(&mut self) -> (Option<Item>, Receipt) {
        let mut batch = Batch::new(self.key, self.route, Vec::new(), Vec::new());
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.gather(&[]);
        body.last(&bytes, |part| self.take(part, &mut batch));
        (self.body, batch.bytes) = (body, bytes);
        self.joiner.flush_all(&mut LineSink::of(&mut batch));
        if let Some(tracker) = &mut self.tracker {
            [Stream::Stdout, Stream::Stderr].into_iter().for_each(|stream| tracker.decoded(stream));
        }
        let item = self.finish_batch(batch);
        let receipt = Receipt(self.delivered_with(item.as_ref()).without_overlap());
        (item, receipt)
    }

    /// Returns how far lines are delivered once `item` was.
    fn delivered_with(&self, item: Option<&Item>) -> Delivered {
        // While pieces are repeated that were delivered, the position carries nothing new.
        let position = if self.recall.is_some() { self.delivered.position() } else { self.position() };
        let read = ReadLines {
            position,
            has_lines: matches!(item, Some(Item::Lines(batch)) if !batch.lines.is_empty()),
            is_replaying: self.joiner.filter.is_replaying_marks() || self.recall.is_some(),
            has_unfinished: self.joiner.has_unfinished(),
        };
        self.delivered.after(&self.request, &read)
    }

    fn finish_batch(&mut self, mut batch: Batch) -> Option<Item> {
        self.hide_before_first(&mut batch);
        if batch.is_empty() {
            return None;
        }
        // While delivered pieces are repeated, those behind them were delivered as well.
        batch.position = self.recall.is_none().then(|| self.reached());
        Some(Item::Lines(batch))
    }

    /// Handles one part of a body. Stops at a failure, because the next response repeats everything after it.
    #[inline]
    fn take(&mut self, part: BodyPart<'_>, batch: &mut Batch) -> ControlFlow<()> {
        self.request.count();
        match part {
            BodyPart::Record(record, message, at) => self.take_record(record, message, at, batch),
            BodyPart::Corrupt(size) if !self.request.is_before_overlap_end() => {
                self.joiner.gap(Reason::Corrupt, Some(size as u64), &mut LineSink::of(batch));
            }
            BodyPart::Corrupt(_) => {}
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn take_record(&mut self, record: Record, message: &[u8], at: usize, batch: &mut Batch) {
        let Record { time, stream, is_complete: complete } = record;
        match self.request.admit(record, &self.joiner.filter, self.joiner.is_unfinished(stream)) {
            Admission::Take => {}
            Admission::Skip => return,
            Admission::OverlapEnd(position) => return self.joiner.continue_after(&position),
            Admission::Stop(failed) => {
                self.failed = Some(failed);
                return;
            }
        }
        let lines = batch.lines.len();
        let tracker = self.tracker.as_ref().filter(|_| !self.joiner.filter.is_before_mark(stream, time));
        let hash = tracker.map(|tracker| tracker.hash(record, message));
        if hash.is_some_and(|hash| self.is_repeated(record, hash, batch)) {
            return;
        }
        let piece = Piece { time, stream, text: Cow::Borrowed(message), encoding: Encoding::Raw, complete };
        self.joiner.push(piece, Some(at), &mut LineSink::of(batch));
        if let (Some(tracker), Some(hash)) = (&mut self.tracker, hash) {
            if batch.lines.len() > lines {
                // A part of a long line ends before the piece that makes it too long.
                tracker.decoded(stream);
            }
            tracker.add(record, hash);
            if !self.joiner.is_unfinished(stream) {
                tracker.decoded(stream);
            }
        }
        for line in &batch.lines[lines..] {
            self.request.passed(line.cursor());
        }
        if let (true, Some(last)) = (complete, self.joiner.filter.progress()[stream as usize].last) {
            self.request.completed(Cursor::new(stream, last));
        }
    }

    /// Returns whether a piece was delivered, as far as pieces are identified by their content.
    fn is_repeated(&mut self, record: Record, hash: u64, batch: &mut Batch) -> bool {
        let (Some(recall), Some(tracker)) = (&mut self.recall, &mut self.tracker) else { return false };
        match recall.compare(record.time, hash) {
            Comparison::Delivered => {
                self.joiner.skip_numbered(record.time, record.stream, &mut LineSink::of(batch));
                tracker.decoded(record.stream);
                return true;
            }
            Comparison::New => {}
            Comparison::NewAtEdge => self.joiner.gap(Reason::Unreadable, None, &mut LineSink::of(batch)),
            Comparison::Later => self.recall = None,
        }
        false
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::position::Mark;
    use crate::tail::api::body::tests::frame;
    use crate::tail::minus_slack;
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
        let Decoded { item, receipt, end } = log.push(chunk);
        end.unwrap();
        log.commit(receipt);
        item
    }

    #[test]
    fn lines_before_an_error_come_with_their_position() {
        for (failure, message) in [
            (frame(3, "Error grabbing logs: gone\n"), "the daemon failed to read the log: Error grabbing logs: gone"),
            (b"HTTP/1.1 500".to_vec(), "the log stream is malformed: no frame header where one should be"),
        ] {
            let mut log = frames();
            let Decoded { item, end, .. } = log.push(&[frame(1, &format!("{} one\n", at(1))), failure].concat());
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
        let mut next = frames().continue_from(Delivered::up_to(resume));
        next.request(Mode::Read);
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
            let mut log = frames().continue_from(Delivered::up_to(position));
            log.request(Mode::Follow { may_repeat: false });
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
    type LogPiece = (i64, Stream, String);

    /// Lines in pieces or whole, on two streams. The times of each stream rise except where the clock is set back.
    fn logs(is_set_back: bool) -> impl Strategy<Value = Vec<LogPiece>> {
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
    fn body(log: &[LogPiece], since: Option<Timestamp>, tail: Option<u64>, is_old: bool) -> Vec<u8> {
        let tail = usize::try_from(tail.unwrap_or(u64::MAX)).unwrap().min(log.len());
        let log = &log[log.len() - tail..];
        let wanted = |record: &LogPiece| since.is_none_or(|since| at(record.0) >= since);
        let first = log.iter().position(wanted).unwrap_or(log.len());
        let sent = log[first..].iter().filter(|record| !is_old || wanted(record));
        sent.flat_map(|(time, stream, text)| frame(1 + *stream as u8, &format!("{} {text}", at(*time)))).collect()
    }

    /// The lines as the file route reads them: escaped, and record by record.
    fn by_file(log: &[LogPiece]) -> (Vec<String>, TimePosition) {
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
        log: &[LogPiece],
        from: TimePosition,
        requests: &[RequestCase],
        is_old: bool,
        is_followed: bool,
    ) -> Vec<String> {
        let (mut reader, mut items) = (frames().continue_from(Delivered::up_to(from)), Vec::new());
        let mut is_uncertain = false;
        let mut ask = |log: &[LogPiece], end: Option<prop::sample::Index>, tail_window: Option<u64>| {
            let is_followed = is_followed && !is_uncertain;
            reader.delivered = reader.delivered.with_window(tail_window);
            let mode = if is_followed { Mode::Follow { may_repeat: is_old } } else { Mode::Read };
            let RequestRange { since, tail } = reader.request(mode);
            let mut body = body(log, since, tail, is_old);
            let last = log.last().filter(|(time, _, text)| text.ends_with('\n') && Some(at(*time)) >= since);
            if let (true, Some((time, stream, text))) = (is_followed && is_old, last) {
                body.extend(frame(1 + *stream as u8, &format!("{} {text}", at(*time))));
            }
            let end = end.map_or(body.len(), |end| end.index(body.len() + 1));
            for chunk in body[..end].chunks(50) {
                let Decoded { item, receipt, end } = reader.push(chunk);
                items.push(item);
                reader.commit(receipt);
                match end {
                    Ok(()) => {}
                    Err(Error::Discontinuity(Discontinuity::PossibleRepeat)) => return is_uncertain = true,
                    Err(Error::Discontinuity(_)) => return,
                    Err(error) => panic!("{error}"),
                }
            }
            let is_whole = end == body.len();
            is_uncertain &= !is_whole || mode == Mode::Read && reader.end().is_err();
            // The response lacks the newest line, so that line has a time before `since`.
            let newest = log.last().map(|(time, ..)| at(*time));
            if is_whole && reader.newest().map(|newest| newest.time) != newest && newest < since {
                reader.read_from_start();
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
    fn body_of_podman(log: &[LogPiece], since: Option<Timestamp>) -> Vec<u8> {
        let wanted = log.iter().filter(|(time, ..)| since.is_none_or(|since| at(*time) > since.plus(-1000)));
        let whole_second = |time: i64| at(time).whole_second().to_string().replace(".000000000", "");
        wanted
            .flat_map(|(time, stream, text)| frame(1 + *stream as u8, &format!("{} {text}", whole_second(*time))))
            .collect()
    }

    /// Podman's pieces, each with its own time, several in a second.
    fn logs_of_podman() -> impl Strategy<Value = Vec<LogPiece>> {
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

    struct PodmanRequest {
        /// Number of pieces that exist.
        grown: usize,
        /// Where the response breaks off.
        end: Option<prop::sample::Index>,
        /// Where Podman begins to drop pieces of a followed log.
        first: usize,
        /// Which pieces it drops.
        drops: u64,
        is_followed: bool,
        /// Whether reading is cancelled before the first new lines are delivered.
        is_cancelled: bool,
    }

    /// Sends one request after another, and finally one for everything. Returns the numbers of the delivered pieces in
    /// ascending order, and the position after them.
    fn over_dropping_api(log: &[LogPiece], requests: &[PodmanRequest]) -> (Vec<usize>, TimePosition) {
        let mut reader = frames().with_dialect(Dialect::Podman, None);
        let mut items = Vec::new();
        let last =
            PodmanRequest { grown: log.len(), end: None, first: 0, drops: 0, is_followed: false, is_cancelled: false };
        for request in requests.iter().chain([&last]) {
            let log = &log[..request.grown];
            let newest = log.last().map_or(0, |(time, ..)| *time);
            let is_sent = |(at, (time, ..)): &(usize, &LogPiece)| {
                let is_certain = !request.is_followed || *at < request.first || time + 8_000_000_000 < newest;
                is_certain || request.drops >> (at % 64) & 1 == 0
            };
            let sent: Vec<_> = log.iter().enumerate().filter(is_sent).map(|(_, record)| record.clone()).collect();
            let mode = if request.is_followed { Mode::Follow { may_repeat: false } } else { Mode::Read };
            let range = reader.request(mode);
            let body = body_of_podman(&sent, range.since);
            let end = request.end.map_or(body.len(), |end| end.index(body.len() + 1));
            let mut is_cancelled = false;
            for chunk in body[..end].chunks(50) {
                let Decoded { item, receipt, end } = reader.push(chunk);
                end.unwrap();
                is_cancelled = request.is_cancelled && item.is_some();
                if is_cancelled {
                    break;
                }
                reader.commit(receipt);
                items.push(item);
            }
            if !request.is_followed && !is_cancelled && end == body.len() {
                reader.end().unwrap();
            }
        }
        let (rest, receipt) = reader.flush();
        reader.commit(receipt);
        items.push(rest);
        // Missing repetitions look like lines that rotation has removed.
        let lines = rendered(items).into_iter().filter(|line| line.contains(" "));
        let texts = lines.map(|line| line.split_once(' ').map_or(line.clone(), |(_, text)| text.to_owned()));
        let numbers = texts.flat_map(|text| text.split_terminator('.').map(str::to_owned).collect::<Vec<_>>());
        let mut numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
        numbers.sort_unstable();
        (numbers, reader.delivered().position())
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
            let reader = |from: TimePosition| {
                frames().with_dialect(Dialect::Podman, from.since).continue_from(Delivered::up_to(from))
            };
            let (mut whole, mut last) = (reader(TimePosition::at(begin)), Vec::new());
            whole.request(Mode::Read);
            let expected = rendered([pushed(&mut whole, &body_of_podman(&log, begin))]);
            let mut reading = reader(TimePosition::at(begin));
            let mut requests: Vec<_> =
                requests.into_iter().map(|([grown, end], is_run)| (grown.index(log.len() + 1), Some(end), is_run)).collect();
            requests.sort_by_key(|(grown, ..)| *grown);
            requests.push((log.len(), None, false));
            for (grown, end, is_new_run) in requests {
                if is_new_run {
                    reading = reader(reading.delivered().position());
                }
                let wanted = reading.request(Mode::Read);
                prop_assert_eq!(wanted.tail, None);
                let body = body_of_podman(&log[..grown], wanted.since);
                let end = end.map_or(body.len(), |end| end.index(body.len() + 1));
                last.extend(body[..end].chunks(50).map(|chunk| pushed(&mut reading, chunk)));
            }
            prop_assert_eq!(rendered(last), expected);
        }

        /// The next response fills in what Podman has dropped, even if reading is cancelled before a batch is delivered.
        #[test]
        fn pieces_that_podman_drops_come_once(
            log in logs_of_podman(),
            requests in prop::collection::vec(
                (any::<[prop::sample::Index; 3]>(), any::<u64>(), any::<[bool; 3]>()),
                0..8,
            ),
        ) {
            let sized = requests.into_iter().map(|([grown, end, first], drops, [is_followed, is_broken, is_cancelled])| {
                let grown = grown.index(log.len() + 1);
                let first = first.index(grown + 1);
                PodmanRequest { grown, end: is_broken.then_some(end), first, drops, is_followed, is_cancelled }
            });
            let mut requests: Vec<_> = sized.collect();
            requests.sort_by_key(|request| request.grown);
            let (pieces, position) = over_dropping_api(&log, &requests);
            prop_assert_eq!(pieces, (0..log.len()).collect::<Vec<_>>());
            let (_, whole) = over_dropping_api(&log, &[]);
            prop_assert_eq!(position.seen, whole.seen);
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
                let body = body(reader.request(Mode::Follow { may_repeat: false }).since);
                if !body.is_empty() {
                    items.push(pushed(&mut reader, &body[..at.index(body.len())]));
                }
            }
            let wanted = reader.request(Mode::Follow { may_repeat: false });
            items.push(pushed(&mut reader, &body(wanted.since)));
            prop_assert_eq!(rendered(items), whole);
        }
    }
}

//! Joins pieces into lines, separately for stdout and stderr, and drops lines that were delivered before.
//!
//! In: pieces in the order of the log. Out: lines and gaps in a batch, and the position after them. Both routes use it:
//! [`super::decode::block`] for files and [`super::api::frames`] for the API.
//!
//! dockerd cuts a line at its 16 KiB buffer. All pieces of a line carry the time of the first one (moby
//! `daemon/logger/copier.go`), and only the last ends in a newline. So a piece with another time starts a new line,
//! even when the line before never got its newline because the container died.
//!
//! Podman stamps each piece with the time at which it was read, and a piece is whatever one read of the container's
//! pipe returned. There only the newline marks the end of a line, and pieces are numbered instead of lines: a position
//! may lie after a piece that was delivered because the container died, and the next piece is new
//! ([`Joiner::count_pieces`]).

use super::Piece;
use crate::model::batch::{Batch, Encoding, Gap, Head, Line, Part, Reason};
use crate::model::cursor::{Cursor, Stream};
use crate::model::position::{Mark, TimePosition};
use crate::model::time::Timestamp;

/// The times of the lines to show; other lines are dropped while decoding. Earlier lines count as delivered, later ones
/// do not: the next run starts with them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Time of the earliest line to show.
    pub since: Timestamp,
    /// Time of the latest line to show.
    pub until: Timestamp,
}

impl Default for Window {
    fn default() -> Self {
        Window { since: Timestamp(i64::MIN), until: Timestamp(i64::MAX) }
    }
}

/// Joins the pieces of one container.
#[derive(Debug)]
pub(crate) struct Joiner {
    limit: usize,
    window: Window,
    /// Lines are counted but not shown. Set while reading only serves to find the start of the first wanted line.
    pub(crate) muted: bool,
    /// Both streams, indexed by [`Stream`].
    streams: [StreamState; 2],
    /// The last line that was shown.
    last: Option<Cursor>,
    /// Lines with `.0 <= time < .1` are not shown.
    hidden: Option<(Timestamp, Timestamp)>,
    /// Pieces of one line may have different times, and each piece has its own ordinal (Podman).
    counts_pieces: bool,
}

#[derive(Debug, Default)]
struct StreamState {
    /// High-water mark: lines up to this one were already delivered and are being read again. `None` once it was
    /// reached.
    seen: Option<Mark>,
    /// The last delivered line must be read again. If it is missing, lines after it may be missing too.
    must_reappear: bool,
    /// How many of the next lines were already delivered. Counts down to 0.
    repeats: u32,
    /// None of those lines has a later time than this.
    repeats_until: Timestamp,
    /// The last of those lines, where it is more reliable than their number.
    last_repeat: Option<(Timestamp, u32)>,
    /// Time and ordinal of the last line, shown or not.
    last: Option<(Timestamp, u32)>,
    /// The latest time of any line.
    high: Timestamp,
    /// Number of lines so far, modulo 2^32: only differences are used.
    count: u32,
    /// The line whose end has not been read yet.
    pending: Option<Box<Pending>>,
}

#[derive(Debug)]
struct Pending {
    time: Timestamp,
    /// Valid for all of `text`.
    encoding: Encoding,
    text: Vec<u8>,
    /// Length in bytes of the message that `text` encodes.
    size: usize,
    /// The beginning of this line was already delivered as [`Part::Cut`].
    cut: bool,
    /// [`Joiner::muted`] at the last piece.
    muted: bool,
    /// Time and ordinal of the last piece, where pieces are counted.
    newest: Option<(Timestamp, u32)>,
}

impl Joiner {
    /// Creates a joiner that cuts messages longer than `limit` bytes.
    pub(crate) fn new(limit: usize, window: Window) -> Self {
        Joiner {
            limit,
            window,
            muted: false,
            streams: Default::default(),
            last: None,
            hidden: None,
            counts_pieces: false,
        }
    }

    /// Numbers pieces instead of lines from now on, as Podman's logs require.
    pub(crate) fn count_pieces(&mut self) {
        self.counts_pieces = true;
    }

    /// Adds a piece. `at` is the offset of its text in the bytes of the batch, if the text lies there.
    #[inline]
    pub(crate) fn push(&mut self, piece: Piece<'_>, at: Option<usize>, sink: &mut LineSink<'_>) {
        if self.is_after_window(piece.time) {
            return;
        }
        let state = &mut self.streams[piece.stream as usize];
        if let (Some(at), true, None) = (at, piece.complete && piece.text.len() <= self.limit, &state.pending) {
            let head = state.head(piece.time, piece.stream, piece.encoding, Part::Whole);
            if self.is_new(&head, sink) && !self.muted && self.is_shown(piece.time) {
                self.last = Some(Cursor { time: head.time, stream: head.stream, ordinal: head.ordinal });
                sink.lines.push(Line::read(head, at, piece.text.len()));
            }
            return;
        }
        self.push_joined(piece, sink);
    }

    /// Returns whether a time lies after the window. Such lines do not count as delivered; the next run starts with
    /// them.
    #[inline]
    pub(crate) fn is_after_window(&self, time: Timestamp) -> bool {
        time > self.window.until
    }

    #[inline]
    fn is_shown(&self, time: Timestamp) -> bool {
        self.window.since <= time && self.hidden.is_none_or(|(from, to)| time < from || to <= time)
    }

    #[cold]
    fn push_joined(&mut self, piece: Piece<'_>, sink: &mut LineSink<'_>) {
        let stream = piece.stream;
        if self.counts_pieces {
            return self.push_numbered(piece, sink);
        }
        if self.streams[stream as usize].pending.as_ref().is_some_and(|pending| pending.time != piece.time) {
            self.flush(stream, sink);
        }
        let pending = self.streams[stream as usize].pending.take();
        let mut pending = pending.unwrap_or_else(|| Pending::new(piece.time, Encoding::Plain));
        pending.muted = self.muted;
        pending.encoding = pending.encoding.joined_with(piece.encoding);
        pending.text.extend_from_slice(&piece.text);
        pending.size = match pending.encoding {
            // Surrogate halves from two pieces form one character now.
            Encoding::Surrogates => decoded_len(&pending.text, Encoding::Surrogates),
            _ => pending.size + decoded_len(&piece.text, piece.encoding),
        };
        self.emit_or_keep(stream, pending, piece.complete, sink);
    }

    /// Adds a piece that has its own ordinal. A line takes the time and the ordinal of its last piece.
    fn push_numbered(&mut self, piece: Piece<'_>, sink: &mut LineSink<'_>) {
        let Piece { time, stream, encoding, .. } = piece;
        let state = &mut self.streams[stream as usize];
        let pending = state.pending.take();
        let before = pending.as_ref().and_then(|pending| pending.newest).or(state.last);
        let ordinal = before.filter(|(last, _)| *last == time).map_or(0, |(_, ordinal)| ordinal + 1);
        let seen = state.seen;
        let head = Head { time, ordinal, stream, encoding, part: Part::Whole };
        let is_new = self.is_new(&head, sink);
        let state = &mut self.streams[stream as usize];
        if !is_new {
            state.last = Some((time, ordinal));
            state.high = state.high.max(time);
            return;
        }
        if let (Some(seen), None) = (seen, state.seen) {
            // The last delivered piece no longer exists. The position stays after it until a new line is complete.
            state.last = state.last.max(Some((seen.time, seen.ordinal)));
            state.high = state.high.max(seen.high);
        }
        let mut pending = pending.unwrap_or_else(|| Pending::new(time, encoding));
        let size = decoded_len(&piece.text, encoding);
        // Parts of a long line end where pieces end, so that the next run can identify them.
        if pending.size > 0 && pending.size + size > self.limit {
            self.emit(stream, &pending, pending.text.len(), Part::Cut, sink);
            pending.text.clear();
            (pending.size, pending.cut, pending.time) = (0, true, time);
        }
        pending.newest = Some((time, ordinal));
        pending.muted = self.muted;
        pending.size += size;
        pending.text.extend_from_slice(&piece.text);
        self.emit_or_keep(stream, pending, piece.complete, sink);
    }

    /// Counts a piece that was delivered and is not in its place among those that are joined. An unfinished line before
    /// it is emitted, because its end was delivered without it.
    pub(crate) fn skip_numbered(&mut self, time: Timestamp, stream: Stream, sink: &mut LineSink<'_>) {
        self.flush(stream, sink);
        let state = &mut self.streams[stream as usize];
        state.pass(time, state.next_ordinal(time));
    }

    /// Returns whether the stream's next piece was delivered according to the position, if it has this time.
    pub(crate) fn is_before_mark(&self, time: Timestamp, stream: Stream) -> bool {
        let state = &self.streams[stream as usize];
        let is_before =
            |seen: Mark| (time, state.next_ordinal(time)) <= (seen.time, seen.ordinal) || is_from_before(seen, time);
        state.seen.is_some_and(is_before)
    }

    /// Emits as many parts of `limit` bytes as `pending` holds. Then emits the rest if the line is complete, or keeps
    /// it.
    fn emit_or_keep(&mut self, stream: Stream, mut pending: Box<Pending>, complete: bool, sink: &mut LineSink<'_>) {
        while pending.size > self.limit {
            let (end, size) = cut(&pending.text, pending.encoding, self.limit);
            if pending.encoding == Encoding::Surrogates && end == pending.text.len() && !complete {
                // The next piece may start with the other half of this character.
                break;
            }
            self.emit(stream, &pending, end, Part::Cut, sink);
            pending.text.drain(..end);
            pending.size -= size;
            pending.cut = true;
        }
        if complete {
            self.emit_rest(stream, &pending, sink);
        } else {
            self.streams[stream as usize].pending = Some(pending);
        }
    }

    /// Emits unfinished lines: the container has died, so their newlines will never come.
    pub(crate) fn flush_all(&mut self, sink: &mut LineSink<'_>) {
        self.flush(Stream::Stdout, sink);
        self.flush(Stream::Stderr, sink);
    }

    fn flush(&mut self, stream: Stream, sink: &mut LineSink<'_>) {
        if let Some(pending) = self.streams[stream as usize].pending.take() {
            self.emit_rest(stream, &pending, sink);
        }
    }

    fn emit_rest(&mut self, stream: Stream, pending: &Pending, sink: &mut LineSink<'_>) {
        let part = if pending.cut { Part::Last } else { Part::Whole };
        self.emit(stream, pending, pending.text.len(), part, sink);
    }

    fn emit(&mut self, stream: Stream, pending: &Pending, end: usize, part: Part, sink: &mut LineSink<'_>) {
        let state = &mut self.streams[stream as usize];
        let (head, is_new) = match pending.newest {
            Some((time, ordinal)) => {
                state.pass(time, ordinal);
                (Head { time, ordinal, stream, encoding: pending.encoding, part }, true)
            }
            None => {
                let head = state.head(pending.time, stream, pending.encoding, part);
                (head, self.is_new(&head, sink))
            }
        };
        if !is_new || pending.muted || !self.is_shown(head.time) {
            return;
        }
        self.last = Some(Cursor { time: head.time, stream, ordinal: head.ordinal });
        let start = sink.joined.len();
        sink.joined.extend_from_slice(&pending.text[..end]);
        sink.lines.push(Line::joined(head, start, end));
    }

    #[inline]
    fn is_new(&mut self, head: &Head, sink: &mut LineSink<'_>) -> bool {
        let state = &self.streams[head.stream as usize];
        state.repeats == 0 && state.seen.is_none() && state.last_repeat.is_none() || self.is_new_in_replay(head, sink)
    }

    #[cold]
    fn is_new_in_replay(&mut self, head: &Head, sink: &mut LineSink<'_>) -> bool {
        let state = &mut self.streams[head.stream as usize];
        // Lines between `seen` and `head` are lost. That matters unless all of them lie outside the window.
        let seen = state.seen;
        let is_later = seen.is_some_and(|seen| seen.time > self.window.until);
        let is_unwanted = is_later || head.time < self.window.since;
        let is_new = state.is_new_in_replay(head);
        if !is_new && seen.is_some() && state.seen.is_none() {
            // The log is complete after this line, and anything missing before it was delivered.
            self.streams.iter_mut().filter(|state| state.seen.is_some()).for_each(|state| state.must_reappear = false);
            return false;
        }
        if is_new && std::mem::take(&mut state.must_reappear) && !is_unwanted {
            self.gap(Reason::RotatedAway, None, sink);
        }
        is_new
    }

    /// Reports lines of the other stream that are missing before the new line at index `at` of the batch. Lines that
    /// must reappear come before any new line. So a mark that was not reached by now is gone, and perhaps lines after
    /// it too. `after` is the line before the gap.
    pub(crate) fn report_missing(&mut self, at: usize, after: Option<Cursor>, sink: &mut LineSink<'_>) {
        let Some(time) = sink.lines.get(at).map(|line| line.time) else { return };
        // A stream of which nothing was delivered may still have older lines.
        let is_before =
            |state: &&mut StreamState| state.pending.is_none() && state.seen.is_some_and(|seen| seen.time < time);
        let mut is_missing = false;
        for state in self.streams.iter_mut().filter(is_before) {
            is_missing |= std::mem::take(&mut state.must_reappear);
        }
        let is_reported =
            sink.gaps.last().is_some_and(|(before, gap)| (*before, gap.reason) == (at, Reason::RotatedAway));
        if is_missing && !is_reported {
            sink.gaps.push((at, Gap { reason: Reason::RotatedAway, lost_bytes: None, after }));
        }
    }

    /// Returns whether a delivered line must still reappear.
    pub(crate) fn awaits_repeats(&self) -> bool {
        self.streams.iter().any(|state| state.must_reappear)
    }

    /// Returns the last line that was shown.
    pub(crate) fn last(&self) -> Option<Cursor> {
        self.last
    }

    /// Records a gap at this point. Adjacent gaps with the same reason are merged.
    pub(crate) fn gap(&mut self, reason: Reason, lost_bytes: Option<u64>, sink: &mut LineSink<'_>) {
        if self.muted {
            return;
        }
        let at = sink.lines.len();
        if let Some((before, gap)) = sink.gaps.last_mut()
            && (*before, gap.reason) == (at, reason)
        {
            gap.lost_bytes = gap.lost_bytes.zip(lost_bytes).map(|(a, b)| a + b);
            return;
        }
        sink.gaps.push((at, Gap { reason, lost_bytes, after: self.last }));
    }

    /// Returns the position after the lines so far.
    pub(crate) fn position(&self) -> TimePosition {
        let seen = self.streams.each_ref().map(StreamState::position);
        let times = || seen.iter().flatten().map(|seen| seen.time);
        // Two writers stamp the two streams. The stream that lags may still bring a line that is a little older than
        // the last line of the other.
        let earliest = times().max().map(super::minus_slack);
        let earliest = if seen.iter().all(Option::is_some) { times().min().max(earliest) } else { earliest };
        let pending = self.streams.iter().filter_map(|state| state.pending.as_ref()).map(|pending| pending.time).min();
        let since = match (earliest, pending) {
            (Some(earliest), Some(pending)) => Some(earliest.min(pending)),
            // The same applies to a stream without any line so far.
            (earliest, pending) => earliest.or(pending.map(super::minus_slack)),
        };
        TimePosition { since, seen }
    }

    /// Prepares for reading the log again from some line before `position`. Drops unfinished lines, and skips lines
    /// that were delivered.
    pub(crate) fn rewind(&mut self, position: TimePosition) {
        self.last = self.last.or(position.last());
        self.streams = position.seen.map(|seen| {
            let high = seen.map_or(Timestamp(i64::MIN), |seen| seen.high);
            StreamState { seen, high, ..StreamState::default() }
        });
    }

    /// Hides lines shortly before this time. Much older lines are shown: they are new, and the clock was set back.
    pub(crate) fn hide_before(&mut self, since: Timestamp) {
        self.hidden = Some((super::minus_slack(since), since));
    }

    /// Like [`Joiner::rewind`], but also requires the last delivered lines to reappear, because nothing else shows
    /// whether the log is complete from there.
    pub(crate) fn rewind_with_overlap(&mut self, position: TimePosition) {
        self.rewind(position);
        for state in &mut self.streams {
            state.must_reappear = state.seen.is_some_and(|seen| Some(seen.time) >= position.since);
        }
    }

    /// Ends the replay: everything that existed when it started has been read, so later lines are new. Returns whether
    /// a line that must reappear is missing.
    pub(crate) fn end_replay(&mut self) -> bool {
        let mut is_missing = false;
        for state in self.streams.iter_mut().filter(|state| state.pending.is_none()) {
            if let Some(Mark { time, ordinal, high }) = state.seen.take() {
                let last = state.last.filter(|(last, _)| *last == time);
                state.last = last.max(Some((time, ordinal)));
                state.high = state.high.max(high);
            }
            (state.repeats, state.last_repeat) = (0, None);
            is_missing |= std::mem::take(&mut state.must_reappear);
        }
        is_missing
    }

    /// Prepares for reading from a known record. `counts` describes the lines before it, `repeats` how many lines of
    /// each stream after it were already delivered, and `high` their latest times.
    pub(crate) fn start(&mut self, counts: LineCounts, repeats: [u32; 2], high: [Timestamp; 2]) {
        for (stream, state) in self.streams.iter_mut().enumerate() {
            let (last, count, repeats, high) =
                (counts.last[stream], counts.count[stream], repeats[stream], high[stream]);
            let must_reappear = repeats > 0;
            *state = StreamState {
                last,
                count,
                repeats,
                repeats_until: high,
                must_reappear,
                high,
                ..StreamState::default()
            };
        }
    }

    /// Returns what [`Joiner::start`] needs to continue from here.
    pub(crate) fn counts(&self) -> LineCounts {
        LineCounts {
            last: self.streams.each_ref().map(|state| state.last),
            count: self.streams.each_ref().map(|state| state.count),
        }
    }

    /// After [`Joiner::start`]: sets the last delivered lines after that record. They mark the end of the repeats if
    /// the file now holds more lines than were counted. Ignored after the clock was set back, when marks are ambiguous.
    pub(crate) fn expect_last(&mut self, last: [Option<Mark>; 2]) {
        for (state, last) in self.streams.iter_mut().zip(last) {
            let last = last.filter(|last| state.repeats > 0 && last.high == last.time);
            state.last_repeat = last.map(|last| (last.time, last.ordinal));
        }
    }

    /// Returns how many lines of each stream were delivered since `then`.
    pub(crate) fn delivered_since(&self, then: &LineCounts) -> [u32; 2] {
        [0, 1].map(|stream| {
            let state = &self.streams[stream];
            state.count.wrapping_sub(then.count[stream]) + state.repeats
        })
    }

    /// Returns whether any line is unfinished.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.streams.iter().any(|state| state.pending.is_some())
    }

    /// Returns whether the stream has an unfinished line.
    pub(crate) fn is_unfinished(&self, stream: Stream) -> bool {
        self.streams[stream as usize].pending.is_some()
    }

    /// Returns whether the last delivered line of this stream has not been read again yet.
    pub(crate) fn is_replaying(&self, stream: Stream) -> bool {
        self.streams[stream as usize].seen.is_some()
    }

    /// Returns whether lines are being read again that only their times identify as delivered.
    pub(crate) fn is_replaying_any(&self) -> bool {
        self.streams.iter().any(|state| state.seen.is_some())
    }
}

impl Pending {
    fn new(time: Timestamp, encoding: Encoding) -> Box<Self> {
        Box::new(Pending { time, encoding, text: Vec::new(), size: 0, cut: false, muted: false, newest: None })
    }
}

/// The lines before a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineCounts {
    /// Time and ordinal of the last line of each stream.
    pub(crate) last: [Option<(Timestamp, u32)>; 2],
    /// Number of lines of each stream, modulo 2^32.
    pub(crate) count: [u32; 2],
}

impl StreamState {
    fn position(&self) -> Option<Mark> {
        let last = self.last.map(|(time, ordinal)| Mark { time, ordinal, high: self.high.max(time) });
        self.seen.or(last)
    }

    fn is_new_in_replay(&mut self, head: &Head) -> bool {
        if self.repeats > 0 {
            let is_repeat = head.time <= self.repeats_until;
            self.repeats = if is_repeat { self.repeats - 1 } else { 0 };
            self.must_reappear = self.repeats > 0 || !is_repeat;
            if self.last_repeat == Some((head.time, head.ordinal)) {
                (self.last_repeat, self.repeats, self.must_reappear) = (None, 0, false);
            } else if !is_repeat {
                self.last_repeat = None;
            }
            return !is_repeat;
        }
        if let Some(last) = self.last_repeat {
            let this = (head.time, head.ordinal);
            self.last_repeat = self.last_repeat.filter(|_| this < last);
            return this > last;
        }
        let Some(seen) = self.seen else { return true };
        let (this, last) = ((head.time, head.ordinal), (seen.time, seen.ordinal));
        if this == last {
            (self.seen, self.must_reappear) = (None, false);
            return false;
        }
        if this < last || is_from_before(seen, head.time) {
            return false;
        }
        self.seen = None;
        true
    }

    fn next_ordinal(&self, time: Timestamp) -> u32 {
        self.last.filter(|(last, _)| *last == time).map_or(0, |(_, ordinal)| ordinal + 1)
    }

    #[inline]
    fn head(&mut self, time: Timestamp, stream: Stream, encoding: Encoding, part: Part) -> Head {
        let ordinal = match self.last {
            Some((last, ordinal)) if last == time => ordinal + 1,
            _ => 0,
        };
        self.pass(time, ordinal);
        Head { time, ordinal, stream, encoding, part }
    }

    /// Counts a line as the last one.
    #[inline]
    fn pass(&mut self, time: Timestamp, ordinal: u32) {
        self.last = Some((time, ordinal));
        self.high = self.high.max(time);
        self.count = self.count.wrapping_add(1);
    }
}

/// Whether a line of this time was written before the clock was set back, though it is later than the last delivered
/// one.
fn is_from_before(seen: Mark, time: Timestamp) -> bool {
    let was_set_back = seen.high > Timestamp(seen.time.0.saturating_add(super::SLACK));
    was_set_back && time <= seen.high
}

/// The parts of a batch that a joiner fills while the batch's bytes are borrowed for decoding.
pub(crate) struct LineSink<'a> {
    pub(crate) lines: &'a mut Vec<Line>,
    pub(crate) joined: &'a mut Vec<u8>,
    pub(crate) gaps: &'a mut Vec<(usize, Gap)>,
}

impl<'a> LineSink<'a> {
    /// Borrows everything of a batch except its bytes, which the caller holds.
    pub(crate) fn of(batch: &'a mut Batch) -> Self {
        LineSink { lines: &mut batch.lines, joined: &mut batch.joined, gaps: &mut batch.gaps }
    }
}

/// Length in bytes of the message that `text` encodes.
fn decoded_len(text: &[u8], encoding: Encoding) -> usize {
    match encoding {
        Encoding::Plain | Encoding::Raw => text.len(),
        Encoding::Json | Encoding::Surrogates => units(text).map(|unit| unit.size).sum(),
    }
}

/// Finds where to cut `text` so that at most `limit` bytes of message precede the cut, without splitting a character.
/// Returns the offset of the cut and the number of message bytes before it. Takes at least one character, so that
/// cutting ends even if `limit` is smaller than a character.
fn cut(text: &[u8], encoding: Encoding, limit: usize) -> (usize, usize) {
    if encoding.is_escaped() {
        let (mut end, mut size) = (0, 0);
        for unit in units(text) {
            if end > 0 && size + unit.size > limit {
                break;
            }
            end += unit.len;
            size += unit.size;
        }
        return (end, size);
    }
    let is_inside = |at: usize| text.get(at).is_some_and(|&byte| byte & 0xc0 == 0x80);
    let mut end = limit.max(1).min(text.len());
    // A character has at most three continuation bytes. Longer runs are not UTF-8 and may be cut anywhere.
    let character = (0..4).map(|back| end - back.min(end)).find(|&at| !is_inside(at));
    if let Some(at) = character.filter(|&at| at > 0) {
        end = at;
    } else if let Some(at) = (end..end + 4).find(|&at| !is_inside(at)) {
        end = at.min(text.len());
    }
    (end, end)
}

/// A character of a message in a JSON string.
struct Unit {
    /// Number of bytes in the JSON string.
    len: usize,
    /// Number of bytes in the message.
    size: usize,
}

fn units(text: &[u8]) -> impl Iterator<Item = Unit> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let unit = match *rest {
            [] => return None,
            [b'\\', b'u', ref digits @ ..] => escape_unit(digits),
            [b'\\', _, ..] => Unit { len: 2, size: 1 },
            [first, ..] => {
                let len = match first {
                    0xc0..0xe0 => 2,
                    0xe0..0xf0 => 3,
                    0xf0.. => 4,
                    _ => 1,
                };
                Unit { len, size: len }
            }
        };
        let len = unit.len.min(rest.len());
        rest = &rest[len..];
        Some(Unit { len, ..unit })
    })
}

fn escape_unit(digits: &[u8]) -> Unit {
    let hex = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| u32::from_str_radix(text, 16).ok());
    let code = digits.get(..4).and_then(hex).unwrap_or(0);
    let has_low = || {
        matches!(digits.get(4..6), Some(b"\\u"))
            && digits.get(6..10).and_then(hex).is_some_and(|low| (0xdc00..0xe000).contains(&low))
    };
    match code {
        0..0x80 => Unit { len: 6, size: 1 },
        0x80..0x800 => Unit { len: 6, size: 2 },
        0xd800..0xdc00 if has_low() => Unit { len: 12, size: 4 },
        _ => Unit { len: 6, size: 3 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::ContainerKey;
    use crate::model::cursor::Route;
    use proptest::prelude::*;
    use std::borrow::Cow;

    fn batch() -> Batch {
        Batch::new(ContainerKey(0), Route::File, Vec::new(), Vec::new())
    }

    fn piece(time: i64, stream: Stream, text: &str, complete: bool, encoding: Encoding) -> Piece<'static> {
        Piece { time: Timestamp(time), stream, text: Cow::Owned(text.as_bytes().to_vec()), encoding, complete }
    }

    fn lines_of(batch: &Batch) -> Vec<String> {
        let line = |line: &Line| {
            let part = match line.part {
                Part::Whole => "",
                Part::Cut => " cut",
                Part::Last => " last",
            };
            format!("{} {}{part}", line.cursor(), String::from_utf8_lossy(batch.text(line)))
        };
        batch.lines.iter().map(line).collect()
    }

    fn check(limit: usize, pieces: &[(i64, Stream, &str)], expected: &[&str]) {
        let (mut joiner, mut batch) = (Joiner::new(limit, Window::default()), batch());
        for (time, stream, text) in pieces {
            let (text, complete) = text.strip_suffix('\n').map_or((*text, false), |text| (text, true));
            joiner.push(piece(*time, *stream, text, complete, Encoding::Raw), None, &mut LineSink::of(&mut batch));
        }
        joiner.flush_all(&mut LineSink::of(&mut batch));
        assert_eq!(lines_of(&batch), expected);
    }

    use Stream::{Stderr, Stdout};

    #[test]
    fn pieces_with_one_time_form_a_line_per_stream() {
        check(
            100,
            &[(1, Stdout, "a"), (2, Stderr, "x"), (3, Stderr, "y\n"), (1, Stdout, "b"), (1, Stdout, "c\n")],
            &["2-e0 x", "3-e0 y", "1-o0 abc"],
        );
    }

    #[test]
    fn a_line_without_newline_stays_apart_from_the_next_run() {
        check(
            100,
            &[(1, Stdout, "died here"), (9, Stdout, "started again\n")],
            &["1-o0 died here", "9-o0 started again"],
        );
    }

    #[test]
    fn lines_with_the_same_time_are_numbered() {
        check(
            100,
            &[(1, Stdout, "a\n"), (1, Stdout, "b\n"), (1, Stderr, "c\n"), (2, Stdout, "d\n"), (2, Stdout, "e\n")],
            &["1-o0 a", "1-o1 b", "1-e0 c", "2-o0 d", "2-o1 e"],
        );
    }

    /// Podman's pieces are joined up to the newline whatever their times, and the next run identifies them by ordinal.
    #[test]
    fn counted_pieces_form_lines_and_are_identified_again() {
        let log = [(1, "a\n"), (1, "b"), (1, "c"), (2, "d\n"), (2, "e"), (2, "f\n"), (2, "g\n")];
        let read = |position: TimePosition, until: usize, is_flushed: bool| {
            let (mut joiner, mut batch) = (Joiner::new(100, Window::default()), batch());
            joiner.count_pieces();
            joiner.rewind(position);
            for (time, text) in &log[..until] {
                let (text, complete) = text.strip_suffix('\n').map_or((*text, false), |text| (text, true));
                joiner.push(piece(*time, Stdout, text, complete, Encoding::Raw), None, &mut LineSink::of(&mut batch));
            }
            if is_flushed {
                joiner.flush_all(&mut LineSink::of(&mut batch));
            }
            (lines_of(&batch), joiner.position())
        };
        let whole = ["1-o0 a", "2-o0 bcd", "2-o2 ef", "2-o3 g"];
        assert_eq!(read(TimePosition::default(), log.len(), false).0, whole);
        for until in 0..=log.len() {
            let (mut lines, position) = read(TimePosition::default(), until, false);
            lines.extend(read(position, log.len(), false).0);
            assert_eq!(lines, whole, "{until}");
        }
        // The container died after a piece: that piece ends a line, and what follows is another line.
        for (until, expected) in [
            (2, &["1-o0 a", "1-o1 b", "2-o0 cd", "2-o2 ef", "2-o3 g"][..]),
            (3, &["1-o0 a", "1-o2 bc", "2-o0 d", "2-o2 ef", "2-o3 g"]),
            (5, &["1-o0 a", "2-o0 bcd", "2-o1 e", "2-o2 f", "2-o3 g"]),
        ] {
            let (mut lines, position) = read(TimePosition::default(), until, true);
            lines.extend(read(position, log.len(), false).0);
            assert_eq!(lines, expected, "{until}");
        }
    }

    /// A part of a long line has the ordinal of its last piece.
    #[test]
    fn counted_pieces_of_a_long_line_are_cut_between_pieces() {
        let (mut joiner, mut batch) = (Joiner::new(4, Window::default()), batch());
        joiner.count_pieces();
        for (time, text, complete) in [(1, "abc", false), (1, "def", false), (2, "gh", false), (2, "ijkl", true)] {
            joiner.push(piece(time, Stdout, text, complete, Encoding::Raw), None, &mut LineSink::of(&mut batch));
        }
        assert_eq!(lines_of(&batch), ["1-o0 abc cut", "1-o1 def cut", "2-o0 gh cut", "2-o1 ijkl last"]);
    }

    #[test]
    fn a_long_line_is_cut_and_marked() {
        check(4, &[(1, Stdout, "abcdefghij\n")], &["1-o0 abcd cut", "1-o1 efgh cut", "1-o2 ij last"]);
        check(4, &[(1, Stdout, "abcd\n")], &["1-o0 abcd"]);
        check(4, &[(1, Stdout, "abc"), (1, Stdout, "de\n")], &["1-o0 abcd cut", "1-o1 e last"]);
        check(4, &[(1, Stdout, "aéßé\n")], &["1-o0 aé cut", "1-o1 ßé last"]);
    }

    #[test]
    fn lines_outside_the_window_are_counted_but_hidden() {
        let window = Window { since: Timestamp(2), until: Timestamp(3) };
        let (mut joiner, mut batch) = (Joiner::new(9, window), batch());
        for time in [1, 2, 2, 3, 4] {
            joiner.push(piece(time, Stdout, "x", true, Encoding::Raw), None, &mut LineSink::of(&mut batch));
        }
        assert_eq!(lines_of(&batch), ["2-o0 x", "2-o1 x", "3-o0 x"]);
    }

    /// A long line of 16-bit units, some of them lone surrogates, written as escapes in pieces that end anywhere.
    fn long_line() -> impl Strategy<Value = (Vec<u16>, Vec<usize>)> {
        let unit =
            prop_oneof![2 => 0x20..0x7f_u16, 1 => any::<u16>(), 3 => 0xd83d..0xd83f_u16, 3 => 0xde00..0xde02_u16];
        (prop::collection::vec(unit, 1..40), prop::collection::vec(0..40_usize, 0..5))
    }

    proptest! {
        /// Surrogate halves in two pieces are joined, lone ones become U+FFFD, and no cut separates two halves.
        #[test]
        fn surrogate_halves_join_across_pieces((units, cuts) in long_line(), limit in 1..60_usize) {
            let mut bounds: Vec<usize> = cuts.into_iter().map(|cut| cut.min(units.len())).chain([0, units.len()]).collect();
            bounds.sort_unstable();
            let (mut joiner, mut batch) = (Joiner::new(limit, Window::default()), batch());
            for window in bounds.windows(2) {
                let text: String = units[window[0]..window[1]].iter().map(|unit| format!("\\u{unit:04x}")).collect();
                let newline = if window[1] == units.len() { "\\n" } else { "" };
                let record = format!(r#"{{"log":"{text}{newline}","stream":"stdout","time":"1970-01-01T00:00:01Z"}}"#);
                let decoded = crate::tail::decode::json_file::decode(record.as_bytes(), &mut crate::model::time::TimestampParser::default());
                joiner.push(decoded.unwrap(), None, &mut LineSink::of(&mut batch));
                if window[1] == units.len() {
                    break;
                }
            }
            let mut shown = Vec::new();
            for line in &batch.lines {
                let mut part = Vec::new();
                crate::model::json::unescape(batch.text(line), &mut part);
                prop_assert!(part.len() <= limit.max(4), "{part:?}");
                if line.encoding != Encoding::Surrogates {
                    let quoted = [b"\"", batch.text(line), b"\""].concat();
                    prop_assert!(serde_json::from_slice::<String>(&quoted).is_ok());
                }
                shown.extend(part);
            }
            prop_assert_eq!(String::from_utf8(shown).unwrap(), String::from_utf16_lossy(&units));
        }

        #[test]
        fn both_routes_cut_a_line_alike(text in "(?s).{0,60}", limit in 1..40_usize) {
            let mut escaped = Vec::new();
            crate::model::json::escape(text.as_bytes(), &mut escaped);
            let escaped = String::from_utf8(escaped).unwrap();
            let mut shown = Vec::new();
            for (text, encoding) in [(&text, Encoding::Raw), (&escaped, Encoding::Json)] {
                let (mut joiner, mut batch) = (Joiner::new(limit, Window::default()), batch());
                joiner.push(piece(1, Stdout, text, true, encoding), None, &mut LineSink::of(&mut batch));
                let texts = batch.lines.iter().map(|line| {
                    let mut out = Vec::new();
                    match line.encoding {
                        Encoding::Json | Encoding::Surrogates => crate::model::json::unescape(batch.text(line), &mut out),
                        _ => out.extend_from_slice(batch.text(line)),
                    }
                    out
                });
                shown.push(texts.collect::<Vec<_>>());
            }
            prop_assert_eq!(&shown[0], &shown[1]);
            prop_assert_eq!(shown[0].concat(), text.as_bytes());
            // A character longer than the limit is not split.
            prop_assert!(shown[0].iter().all(|part| part.len() <= limit.max(4) && std::str::from_utf8(part).is_ok()));
        }
    }
}

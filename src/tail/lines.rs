//! Pieces into lines, stdout and stderr apart.
//!
//! In: pieces in the order of the log. Out: lines in a batch. Called by [`super::file`] and [`super::stream`].
//! The engine cuts a line at its 16 KiB buffer; the pieces of one line carry the time of its first (moby
//! `daemon/logger/copier.go`), and only the last ends in a newline. A piece with another time is therefore not the rest
//! of the line before, even when that one never got its newline because the container died.
//!
//! Podman stamps each piece with the moment it was read, and a piece is whatever one read of the container's pipe gave. So
//! there only the newline tells where a line ends, and pieces are what is counted: a position may stand behind a piece that
//! was passed on because the container died, and the piece that follows is new ([`Joiner::count_pieces`]).

use super::Piece;
use crate::model::batch::{Batch, Encoding, Gap, Head, Line, Part, Reason};
use crate::model::cursor::{Cursor, Stream};
use crate::model::position::{Mark, TimePosition};
use crate::model::time::Timestamp;

/// Which lines are wanted at all; the rest is dropped as it is decoded. What lies before counts as passed on, what lies
/// behind does not.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Not before.
    pub since: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

impl Default for Window {
    fn default() -> Self {
        Window { since: Timestamp(i64::MIN), until: Timestamp(i64::MAX) }
    }
}

/// The lines of one container in the making.
#[derive(Debug)]
pub(crate) struct Joiner {
    limit: usize,
    window: Window,
    /// Lines are counted but not shown: what is read only to know how the first wanted line begins.
    pub(crate) muted: bool,
    streams: [Half; 2],
    last: Option<Cursor>,
    /// Lines with times from the one up to before the other are not wanted.
    old: Option<(Timestamp, Timestamp)>,
    /// Pieces of one line may have different times, and each has a number of its own.
    counts_pieces: bool,
}

#[derive(Debug, Default)]
struct Half {
    /// Lines up to this one were passed on before and come again.
    seen: Option<Mark>,
    /// The last of them does: where it is missing, so is what came behind it.
    has_to_come: bool,
    /// So many of the next lines were, none of them with a later time than this.
    passed: u32,
    passed_until: Timestamp,
    /// The last of those, where it tells more than their number.
    expected: Option<(Timestamp, u32)>,
    /// The last line, whether it was shown or not.
    last: Option<(Timestamp, u32)>,
    /// The latest time of any.
    high: Timestamp,
    /// Lines so far, as far as this can count: only differences matter.
    count: u32,
    pending: Option<Box<Pending>>,
}

#[derive(Debug)]
struct Pending {
    time: Timestamp,
    encoding: Encoding,
    text: Vec<u8>,
    /// Bytes of the message that `text` stands for.
    size: usize,
    /// Something of this line was already passed on.
    cut: bool,
    /// The last piece of it was not to be shown.
    muted: bool,
    /// The last piece's own time and number, where pieces are counted.
    newest: Option<(Timestamp, u32)>,
}

impl Joiner {
    /// Messages longer than `limit` bytes are cut.
    pub(crate) fn new(limit: usize, window: Window) -> Self {
        Joiner { limit, window, muted: false, streams: Default::default(), last: None, old: None, counts_pieces: false }
    }

    /// From now on each piece is counted, as Podman's are to be.
    pub(crate) fn count_pieces(&mut self) {
        self.counts_pieces = true;
    }

    /// Takes a piece whose text lies at `at` of the batch's bytes, if it lies there at all.
    #[inline]
    pub(crate) fn push(&mut self, piece: Piece<'_>, at: Option<usize>, batch: &mut Sheet<'_>) {
        if self.is_late(piece.time) {
            return;
        }
        let half = &mut self.streams[piece.stream as usize];
        if let (Some(at), true, None) = (at, piece.complete && piece.text.len() <= self.limit, &half.pending) {
            let head = half.head(piece.time, piece.stream, piece.encoding, Part::Whole);
            if self.is_new(&head, batch) && !self.muted && self.shows(piece.time) {
                self.last = Some(Cursor { time: head.time, stream: head.stream, ordinal: head.ordinal });
                batch.lines.push(Line::read(head, at, piece.text.len()));
            }
            return;
        }
        self.push_slowly(piece, batch);
    }

    /// Whether it is behind the window. What is was not passed on, and is what the next run begins with.
    #[inline]
    pub(crate) fn is_late(&self, time: Timestamp) -> bool {
        time > self.window.until
    }

    #[inline]
    fn shows(&self, time: Timestamp) -> bool {
        self.window.since <= time && self.old.is_none_or(|(from, to)| time < from || to <= time)
    }

    #[cold]
    fn push_slowly(&mut self, piece: Piece<'_>, batch: &mut Sheet<'_>) {
        let stream = piece.stream;
        if self.counts_pieces {
            return self.push_counted(piece, batch);
        }
        if self.streams[stream as usize].pending.as_ref().is_some_and(|pending| pending.time != piece.time) {
            self.flush(stream, batch);
        }
        let mut pending = self.streams[stream as usize].pending.take().unwrap_or_else(|| {
            let (time, encoding) = (piece.time, Encoding::Plain);
            Box::new(Pending { time, encoding, text: Vec::new(), size: 0, cut: false, muted: false, newest: None })
        });
        pending.muted = self.muted;
        pending.encoding = pending.encoding.joined_with(piece.encoding);
        pending.text.extend_from_slice(&piece.text);
        pending.size = match pending.encoding {
            // The halves of a character in two pieces are one character now.
            Encoding::Surrogates => decoded_len(&pending.text, Encoding::Surrogates),
            _ => pending.size + decoded_len(&piece.text, piece.encoding),
        };
        while pending.size > self.limit {
            let (end, size) = cut(&pending.text, pending.encoding, self.limit);
            if pending.encoding == Encoding::Surrogates && end == pending.text.len() && !piece.complete {
                // The other half of this character may come in the next piece.
                break;
            }
            self.emit(stream, &pending, end, Part::Cut, batch);
            pending.text.drain(..end);
            pending.size -= size;
            pending.cut = true;
        }
        if piece.complete {
            self.emit_rest(stream, &pending, batch);
        } else {
            self.streams[stream as usize].pending = Some(pending);
        }
    }

    /// A piece that has a number of its own. A line has the time and the number of its last piece.
    fn push_counted(&mut self, piece: Piece<'_>, batch: &mut Sheet<'_>) {
        let Piece { time, stream, encoding, .. } = piece;
        let half = &mut self.streams[stream as usize];
        let pending = half.pending.take();
        let before = pending.as_ref().and_then(|pending| pending.newest).or(half.last);
        let ordinal = before.filter(|(last, _)| *last == time).map_or(0, |(_, ordinal)| ordinal + 1);
        let seen = half.seen;
        let head = Head { time, ordinal, stream, encoding, part: Part::Whole };
        let is_new = self.is_new(&head, batch);
        let half = &mut self.streams[stream as usize];
        if !is_new {
            half.last = Some((time, ordinal));
            half.high = half.high.max(time);
            return;
        }
        if let (Some(seen), None) = (seen, half.seen) {
            // What was passed on is not among what there is; until something new is whole the position stays there.
            half.last = half.last.max(Some((seen.time, seen.ordinal)));
            half.high = half.high.max(seen.high);
        }
        let mut pending = pending.unwrap_or_else(|| {
            Box::new(Pending { time, encoding, text: Vec::new(), size: 0, cut: false, muted: false, newest: None })
        });
        let size = decoded_len(&piece.text, encoding);
        // Parts of a line that is too long end where pieces do, so that the next run can tell them apart.
        if pending.size > 0 && pending.size + size > self.limit {
            self.emit(stream, &pending, pending.text.len(), Part::Cut, batch);
            pending.text.clear();
            (pending.size, pending.cut, pending.time) = (0, true, time);
        }
        pending.newest = Some((time, ordinal));
        pending.muted = self.muted;
        pending.size += size;
        pending.text.extend_from_slice(&piece.text);
        while pending.size > self.limit {
            let (end, size) = cut(&pending.text, encoding, self.limit);
            self.emit(stream, &pending, end, Part::Cut, batch);
            pending.text.drain(..end);
            pending.size -= size;
            pending.cut = true;
        }
        if piece.complete {
            self.emit_rest(stream, &pending, batch);
        } else {
            self.streams[stream as usize].pending = Some(pending);
        }
    }

    /// The container has died: what waits for its newline never gets it.
    pub(crate) fn flush_all(&mut self, batch: &mut Sheet<'_>) {
        self.flush(Stream::Stdout, batch);
        self.flush(Stream::Stderr, batch);
    }

    fn flush(&mut self, stream: Stream, batch: &mut Sheet<'_>) {
        if let Some(pending) = self.streams[stream as usize].pending.take() {
            self.emit_rest(stream, &pending, batch);
        }
    }

    fn emit_rest(&mut self, stream: Stream, pending: &Pending, batch: &mut Sheet<'_>) {
        let part = if pending.cut { Part::Last } else { Part::Whole };
        self.emit(stream, pending, pending.text.len(), part, batch);
    }

    fn emit(&mut self, stream: Stream, pending: &Pending, end: usize, part: Part, batch: &mut Sheet<'_>) {
        let half = &mut self.streams[stream as usize];
        let (head, is_new) = match pending.newest {
            Some((time, ordinal)) => {
                half.pass(time, ordinal);
                (Head { time, ordinal, stream, encoding: pending.encoding, part }, true)
            }
            None => {
                let head = half.head(pending.time, stream, pending.encoding, part);
                (head, self.is_new(&head, batch))
            }
        };
        if !is_new || pending.muted || !self.shows(head.time) {
            return;
        }
        self.last = Some(Cursor { time: head.time, stream, ordinal: head.ordinal });
        let start = batch.joined.len();
        batch.joined.extend_from_slice(&pending.text[..end]);
        batch.lines.push(Line::joined(head, start, end));
    }

    #[inline]
    fn is_new(&mut self, head: &Head, batch: &mut Sheet<'_>) -> bool {
        let half = &self.streams[head.stream as usize];
        half.passed == 0 && half.seen.is_none() && half.expected.is_none() || self.is_new_again(head, batch)
    }

    #[cold]
    fn is_new_again(&mut self, head: &Head, batch: &mut Sheet<'_>) -> bool {
        let half = &mut self.streams[head.stream as usize];
        // What lies between these two is lost, and wanted unless all of it is earlier or later than that.
        let seen = half.seen;
        let is_later = seen.is_some_and(|seen| seen.time > self.window.until);
        let is_unwanted = is_later || head.time < self.window.since;
        let is_new = half.is_new_again(head);
        if !is_new && seen.is_some() && half.seen.is_none() {
            // Behind this one all is there, and what is gone before it was passed on.
            self.streams.iter_mut().filter(|half| half.seen.is_some()).for_each(|half| half.has_to_come = false);
            return false;
        }
        if is_new && std::mem::take(&mut half.has_to_come) && !is_unwanted {
            self.gap(Reason::RotatedAway, None, batch);
        }
        is_new
    }

    /// A line that is new stands at `at` of the batch, `after` the last one: what had to come again of the other stream
    /// comes before all that is new, so where it has not it is gone, and so may be what came behind it.
    pub(crate) fn miss(&mut self, at: usize, after: Option<Cursor>, batch: &mut Sheet<'_>) {
        let Some(time) = batch.lines.get(at).map(|line| line.time) else { return };
        // A stream of which nothing was passed on may have older lines.
        let is_before = |half: &&mut Half| half.pending.is_none() && half.seen.is_some_and(|seen| seen.time < time);
        let mut is_missing = false;
        for half in self.streams.iter_mut().filter(is_before) {
            is_missing |= std::mem::take(&mut half.has_to_come);
        }
        let is_told = batch.gaps.last().is_some_and(|(before, gap)| (*before, gap.reason) == (at, Reason::RotatedAway));
        if is_missing && !is_told {
            batch.gaps.push((at, Gap { reason: Reason::RotatedAway, lost_bytes: None, after }));
        }
    }

    /// Whether something that was passed on has to come again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.streams.iter().any(|half| half.has_to_come)
    }

    /// The last line that was shown.
    pub(crate) fn last(&self) -> Option<Cursor> {
        self.last
    }

    /// Tells a loss at this point. Neighbouring losses of one kind are one.
    pub(crate) fn gap(&mut self, reason: Reason, lost_bytes: Option<u64>, batch: &mut Sheet<'_>) {
        if self.muted {
            return;
        }
        let at = batch.lines.len();
        if let Some((before, gap)) = batch.gaps.last_mut()
            && (*before, gap.reason) == (at, reason)
        {
            gap.lost_bytes = gap.lost_bytes.zip(lost_bytes).map(|(a, b)| a + b);
            return;
        }
        batch.gaps.push((at, Gap { reason, lost_bytes, after: self.last }));
    }

    /// How far it has come.
    pub(crate) fn position(&self) -> TimePosition {
        let seen = self.streams.each_ref().map(Half::position);
        let times = || seen.iter().flatten().map(|seen| seen.time);
        // The two streams are stamped by two writers: a line of the one that is behind may still come with a time before
        // the last of the other, but not by much.
        let behind = times().max().map(super::before);
        let behind = if seen.iter().all(Option::is_some) { times().min().max(behind) } else { behind };
        let pending = self.streams.iter().filter_map(|half| half.pending.as_ref()).map(|pending| pending.time).min();
        let since = match (behind, pending) {
            (Some(behind), Some(pending)) => Some(behind.min(pending)),
            // The same holds of a stream that has said nothing yet.
            (behind, pending) => behind.or(pending.map(super::before)),
        };
        TimePosition { since, seen }
    }

    /// The log will be read again from some line before this: what has begun is forgotten, what was passed on comes no
    /// second time.
    pub(crate) fn rewind(&mut self, position: TimePosition) {
        self.last = self.last.or(position.last());
        self.streams = position.seen.map(|seen| {
            let high = seen.map_or(Timestamp(i64::MIN), |seen| seen.high);
            Half { seen, high, ..Half::default() }
        });
    }

    /// Lines from a little before this are not wanted; what is much older is new, and the clock was set back.
    pub(crate) fn not_before(&mut self, since: Timestamp) {
        self.old = Some((super::before(since), since));
    }

    /// As [`Joiner::rewind`], where nothing else shows whether the log is still there from that line on.
    pub(crate) fn rewind_in_doubt(&mut self, position: TimePosition) {
        self.rewind(position);
        for half in &mut self.streams {
            half.has_to_come = half.seen.is_some_and(|seen| Some(seen.time) >= position.since);
        }
    }

    /// All that was there when it was begun to be read again has been: what begins from now on is new. Whether a line is
    /// missing that had to come.
    pub(crate) fn catch_up(&mut self) -> bool {
        let mut is_missing = false;
        for half in self.streams.iter_mut().filter(|half| half.pending.is_none()) {
            if let Some(Mark { time, ordinal, high }) = half.seen.take() {
                let last = half.last.filter(|(last, _)| *last == time);
                half.last = last.max(Some((time, ordinal)));
                half.high = half.high.max(high);
            }
            (half.passed, half.expected) = (0, None);
            is_missing |= std::mem::take(&mut half.has_to_come);
        }
        is_missing
    }

    /// The log will be read from this record on.
    pub(crate) fn start(&mut self, tally: Tally, passed: [u32; 2], high: [Timestamp; 2]) {
        for (stream, half) in self.streams.iter_mut().enumerate() {
            let (last, count, passed, high) = (tally.last[stream], tally.count[stream], passed[stream], high[stream]);
            *half = Half { last, count, passed, passed_until: high, has_to_come: passed > 0, high, ..Half::default() };
        }
    }

    /// What has been read so far, for [`Joiner::start`] to go on from.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            last: self.streams.each_ref().map(|half| half.last),
            count: self.streams.each_ref().map(|half| half.count),
        }
    }

    /// Behind [`Joiner::start`], of the lines passed on behind that record: the last ones. Should there be more lines now
    /// than were counted, these tell; not after the clock was set back.
    pub(crate) fn expect(&mut self, last: [Option<Mark>; 2]) {
        for (half, last) in self.streams.iter_mut().zip(last) {
            let last = last.filter(|last| half.passed > 0 && last.high == last.time);
            half.expected = last.map(|last| (last.time, last.ordinal));
        }
    }

    /// Lines of each stream that were passed on since this was read.
    pub(crate) fn passed_since(&self, then: &Tally) -> [u32; 2] {
        [0, 1].map(|stream| {
            let half = &self.streams[stream];
            half.count.wrapping_sub(then.count[stream]) + half.passed
        })
    }

    /// Whether a line has begun and waits for its end.
    pub(crate) fn is_open(&self) -> bool {
        self.streams.iter().any(|half| half.pending.is_some())
    }

    /// Whether one of this stream has.
    pub(crate) fn has_begun(&self, stream: Stream) -> bool {
        self.streams[stream as usize].pending.is_some()
    }

    /// Whether the last line of this stream that was passed on is still to come again.
    pub(crate) fn is_behind(&self, stream: Stream) -> bool {
        self.streams[stream as usize].seen.is_some()
    }

    /// Whether lines come again that can only be told by their times.
    pub(crate) fn is_rewound(&self) -> bool {
        self.streams.iter().any(|half| half.seen.is_some())
    }
}

/// How many lines came before a record, and which were the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) last: [Option<(Timestamp, u32)>; 2],
    pub(crate) count: [u32; 2],
}

impl Half {
    fn position(&self) -> Option<Mark> {
        let last = self.last.map(|(time, ordinal)| Mark { time, ordinal, high: self.high.max(time) });
        self.seen.or(last)
    }

    fn is_new_again(&mut self, head: &Head) -> bool {
        if self.passed > 0 {
            let is_passed = head.time <= self.passed_until;
            self.passed = if is_passed { self.passed - 1 } else { 0 };
            self.has_to_come = self.passed > 0 || !is_passed;
            if self.expected == Some((head.time, head.ordinal)) {
                (self.expected, self.passed, self.has_to_come) = (None, 0, false);
            } else if !is_passed {
                self.expected = None;
            }
            return !is_passed;
        }
        if let Some(last) = self.expected {
            let this = (head.time, head.ordinal);
            self.expected = self.expected.filter(|_| this < last);
            return this > last;
        }
        let Some(seen) = self.seen else { return true };
        let (this, last) = ((head.time, head.ordinal), (seen.time, seen.ordinal));
        if this == last {
            (self.seen, self.has_to_come) = (None, false);
            return false;
        }
        // When the clock was set back, lines from before that have later times than the last one.
        let was_set_back = seen.high > Timestamp(seen.time.0.saturating_add(super::SLACK));
        if this < last || was_set_back && head.time <= seen.high {
            return false;
        }
        self.seen = None;
        true
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

    /// A line with this time and number comes to the end.
    #[inline]
    fn pass(&mut self, time: Timestamp, ordinal: u32) {
        self.last = Some((time, ordinal));
        self.high = self.high.max(time);
        self.count = self.count.wrapping_add(1);
    }
}

/// The parts of a batch that a joiner writes, while its bytes are being read.
pub(crate) struct Sheet<'a> {
    pub(crate) lines: &'a mut Vec<Line>,
    pub(crate) joined: &'a mut Vec<u8>,
    pub(crate) gaps: &'a mut Vec<(usize, Gap)>,
}

impl<'a> Sheet<'a> {
    /// Everything of a batch but its bytes, which the caller took out.
    pub(crate) fn of(batch: &'a mut Batch) -> Self {
        Sheet { lines: &mut batch.lines, joined: &mut batch.joined, gaps: &mut batch.gaps }
    }
}

fn decoded_len(text: &[u8], encoding: Encoding) -> usize {
    match encoding {
        Encoding::Plain | Encoding::Raw => text.len(),
        Encoding::Json | Encoding::Surrogates => units(text).map(|unit| unit.size).sum(),
    }
}

/// Where to cut so that at most `limit` bytes of message come before, not inside a character; and how many these are.
/// Always more than none, so that a limit below a character's length still ends.
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
    // At most three continuation bytes; more of them are no character and may be cut anywhere.
    let character = (0..4).map(|back| end - back.min(end)).find(|&at| !is_inside(at));
    if let Some(at) = character.filter(|&at| at > 0) {
        end = at;
    } else if let Some(at) = (end..end + 4).find(|&at| !is_inside(at)) {
        end = at.min(text.len());
    }
    (end, end)
}

/// A character of the message as it lies in a JSON string.
struct Unit {
    /// Bytes it takes there.
    len: usize,
    /// Bytes it stands for.
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

    fn told(batch: &Batch) -> Vec<String> {
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
            joiner.push(piece(*time, *stream, text, complete, Encoding::Raw), None, &mut Sheet::of(&mut batch));
        }
        joiner.flush_all(&mut Sheet::of(&mut batch));
        assert_eq!(told(&batch), expected);
    }

    use Stream::{Stderr, Stdout};

    #[test]
    fn pieces_of_one_time_are_one_line_and_the_streams_stay_apart() {
        check(
            100,
            &[(1, Stdout, "a"), (2, Stderr, "x"), (3, Stderr, "y\n"), (1, Stdout, "b"), (1, Stdout, "c\n")],
            &["2-e0 x", "3-e0 y", "1-o0 abc"],
        );
    }

    #[test]
    fn a_line_without_newline_is_not_joined_to_the_next_run() {
        check(
            100,
            &[(1, Stdout, "died here"), (9, Stdout, "started again\n")],
            &["1-o0 died here", "9-o0 started again"],
        );
    }

    #[test]
    fn lines_of_one_time_are_numbered() {
        check(
            100,
            &[(1, Stdout, "a\n"), (1, Stdout, "b\n"), (1, Stderr, "c\n"), (2, Stdout, "d\n"), (2, Stdout, "e\n")],
            &["1-o0 a", "1-o1 b", "1-e0 c", "2-o0 d", "2-o1 e"],
        );
    }

    /// Podman's pieces: joined up to the newline whatever their times, and told apart by number in the next run.
    #[test]
    fn counted_pieces_are_joined_to_the_newline_and_told_apart() {
        let log = [(1, "a\n"), (1, "b"), (1, "c"), (2, "d\n"), (2, "e"), (2, "f\n"), (2, "g\n")];
        let read = |position: TimePosition, until: usize, is_flushed: bool| {
            let (mut joiner, mut batch) = (Joiner::new(100, Window::default()), batch());
            joiner.count_pieces();
            joiner.rewind(position);
            for (time, text) in &log[..until] {
                let (text, complete) = text.strip_suffix('\n').map_or((*text, false), |text| (text, true));
                joiner.push(piece(*time, Stdout, text, complete, Encoding::Raw), None, &mut Sheet::of(&mut batch));
            }
            if is_flushed {
                joiner.flush_all(&mut Sheet::of(&mut batch));
            }
            (told(&batch), joiner.position())
        };
        let whole = ["1-o0 a", "2-o0 bcd", "2-o2 ef", "2-o3 g"];
        assert_eq!(read(TimePosition::default(), log.len(), false).0, whole);
        for until in 0..=log.len() {
            let (mut lines, position) = read(TimePosition::default(), until, false);
            lines.extend(read(position, log.len(), false).0);
            assert_eq!(lines, whole, "{until}");
        }
        // The container died behind a piece: that is a line then, and what follows it is another.
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

    /// Parts of a line that is too long have numbers of their own as far as pieces do.
    #[test]
    fn counted_pieces_of_a_long_line_are_cut_between_pieces() {
        let (mut joiner, mut batch) = (Joiner::new(4, Window::default()), batch());
        joiner.count_pieces();
        for (time, text, complete) in [(1, "abc", false), (1, "def", false), (2, "gh", false), (2, "ijkl", true)] {
            joiner.push(piece(time, Stdout, text, complete, Encoding::Raw), None, &mut Sheet::of(&mut batch));
        }
        assert_eq!(told(&batch), ["1-o0 abc cut", "1-o1 def cut", "2-o0 gh cut", "2-o1 ijkl last"]);
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        check(4, &[(1, Stdout, "abcdefghij\n")], &["1-o0 abcd cut", "1-o1 efgh cut", "1-o2 ij last"]);
        check(4, &[(1, Stdout, "abcd\n")], &["1-o0 abcd"]);
        check(4, &[(1, Stdout, "abc"), (1, Stdout, "de\n")], &["1-o0 abcd cut", "1-o1 e last"]);
        check(4, &[(1, Stdout, "aéßé\n")], &["1-o0 aé cut", "1-o1 ßé last"]);
    }

    #[test]
    fn what_is_outside_the_window_is_counted_but_not_shown() {
        let window = Window { since: Timestamp(2), until: Timestamp(3) };
        let (mut joiner, mut batch) = (Joiner::new(9, window), batch());
        for time in [1, 2, 2, 3, 4] {
            joiner.push(piece(time, Stdout, "x", true, Encoding::Raw), None, &mut Sheet::of(&mut batch));
        }
        assert_eq!(told(&batch), ["2-o0 x", "2-o1 x", "3-o0 x"]);
    }

    /// A long line of 16-bit units, some of them lone halves of pairs, as escapes in pieces that end anywhere.
    fn long_line() -> impl Strategy<Value = (Vec<u16>, Vec<usize>)> {
        let unit =
            prop_oneof![2 => 0x20..0x7f_u16, 1 => any::<u16>(), 3 => 0xd83d..0xd83f_u16, 3 => 0xde00..0xde02_u16];
        (prop::collection::vec(unit, 1..40), prop::collection::vec(0..40_usize, 0..5))
    }

    proptest! {
        /// Halves of a character in two pieces join, lone ones become U+FFFD, and no cut comes between two halves.
        #[test]
        fn halves_of_characters_join_across_pieces((units, cuts) in long_line(), limit in 1..60_usize) {
            let mut bounds: Vec<usize> = cuts.into_iter().map(|cut| cut.min(units.len())).chain([0, units.len()]).collect();
            bounds.sort_unstable();
            let (mut joiner, mut batch) = (Joiner::new(limit, Window::default()), batch());
            for window in bounds.windows(2) {
                let text: String = units[window[0]..window[1]].iter().map(|unit| format!("\\u{unit:04x}")).collect();
                let newline = if window[1] == units.len() { "\\n" } else { "" };
                let record = format!(r#"{{"log":"{text}{newline}","stream":"stdout","time":"1970-01-01T00:00:01Z"}}"#);
                let decoded = crate::tail::decode::json_file::decode(record.as_bytes(), &mut crate::model::time::TimestampParser::default());
                joiner.push(decoded.unwrap(), None, &mut Sheet::of(&mut batch));
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
        fn a_cut_line_is_the_same_by_either_route(text in "(?s).{0,60}", limit in 1..40_usize) {
            let mut escaped = Vec::new();
            crate::model::json::escape(text.as_bytes(), &mut escaped);
            let escaped = String::from_utf8(escaped).unwrap();
            let mut shown = Vec::new();
            for (text, encoding) in [(&text, Encoding::Raw), (&escaped, Encoding::Json)] {
                let (mut joiner, mut batch) = (Joiner::new(limit, Window::default()), batch());
                joiner.push(piece(1, Stdout, text, true, encoding), None, &mut Sheet::of(&mut batch));
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
            // A character longer than the limit still travels whole.
            prop_assert!(shown[0].iter().all(|part| part.len() <= limit.max(4) && std::str::from_utf8(part).is_ok()));
        }
    }
}

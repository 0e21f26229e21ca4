//! Joins pieces into lines, separately for stdout and stderr.
//!
//! In: pieces in the order of the log. Out: lines and gaps in a batch, and the position after them. Both routes use it:
//! [`super::decode::block`] for files and [`super::api::frames`] for the API. Which lines are new is decided by
//! [`super::resume`].
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
use super::resume::{Completeness, ReplayFilter, Verdict, Window};
use crate::model::batch::{Batch, Encoding, Gap, Head, Line, Part, Reason};
use crate::model::line_id::{Cursor, LineNumber, Stream};
use crate::model::position::{FilePosition, TimePosition};
use crate::model::time::Timestamp;

/// Joins the pieces of one container.
#[derive(Debug)]
pub(crate) struct Joiner {
    limit: usize,
    /// Lines are counted but not shown. Set while reading only serves to find the start of the first wanted line.
    pub(crate) muted: bool,
    /// Decides which lines are new.
    pub(crate) filter: ReplayFilter,
    /// The line of each stream whose end has not been read yet, indexed by [`Stream`].
    pending: [Option<Box<Pending>>; 2],
    /// The last line that was shown.
    last: Option<Cursor>,
    /// Pieces of one line may have different times, and each piece has its own ordinal (Podman).
    counts_pieces: bool,
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
    /// The number of the last piece, where pieces are counted.
    newest: Option<LineNumber>,
}

impl Joiner {
    /// Creates a joiner that cuts messages longer than `limit` bytes.
    pub(crate) fn new(limit: usize, window: Window) -> Self {
        Joiner {
            limit,
            muted: false,
            filter: ReplayFilter::new(window),
            pending: [None, None],
            last: None,
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
        let Piece { time, stream, encoding, complete, .. } = piece;
        if self.filter.is_after_window(time) {
            return;
        }
        if let (Some(at), true, None) = (at, complete && piece.text.len() <= self.limit, &self.pending[stream as usize])
        {
            let (LineNumber { ordinal, .. }, verdict) =
                self.filter.judge(stream, time, self.is_other_unfinished(stream));
            if self.is_new(verdict, sink) && !self.muted && self.filter.is_shown(time) {
                self.last = Some(Cursor { time, stream, ordinal });
                let head = Head { time, ordinal, stream, encoding, part: Part::Whole };
                sink.lines.push(Line::read(head, at, piece.text.len()));
            }
            return;
        }
        self.push_joined(piece, sink);
    }

    /// Returns whether a line is new, and records a gap before it if lines are lost there.
    #[inline]
    fn is_new(&mut self, verdict: Verdict, sink: &mut LineSink<'_>) -> bool {
        if verdict == Verdict::NewAfterGap {
            self.gap(Reason::RotatedAway, None, sink);
        }
        verdict != Verdict::Old
    }

    #[cold]
    fn push_joined(&mut self, piece: Piece<'_>, sink: &mut LineSink<'_>) {
        let stream = piece.stream;
        if self.counts_pieces {
            return self.push_numbered(piece, sink);
        }
        if self.pending[stream as usize].as_ref().is_some_and(|pending| pending.time != piece.time) {
            self.flush(stream, sink);
        }
        let pending = self.pending[stream as usize].take();
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
        let pending = self.pending[stream as usize].take();
        let before = pending.as_ref().and_then(|pending| pending.newest);
        let is_other_unfinished = self.is_other_unfinished(stream);
        let (number, verdict) = self.filter.judge_piece(stream, time, before, is_other_unfinished);
        if !self.is_new(verdict, sink) {
            return;
        }
        let mut pending = pending.unwrap_or_else(|| Pending::new(time, encoding));
        let size = decoded_len(&piece.text, encoding);
        // Parts of a long line end where pieces end, so that the next run can identify them.
        if pending.size > 0 && pending.size + size > self.limit {
            self.emit(stream, &pending, pending.text.len(), Part::Cut, sink);
            pending.text.clear();
            (pending.size, pending.cut, pending.time) = (0, true, time);
        }
        pending.newest = Some(number);
        pending.muted = self.muted;
        pending.size += size;
        pending.text.extend_from_slice(&piece.text);
        self.emit_or_keep(stream, pending, piece.complete, sink);
    }

    /// Counts a piece that was delivered, but not in its place. An unfinished line before it is emitted, because its end
    /// may have been delivered without it.
    pub(crate) fn skip_numbered(&mut self, time: Timestamp, stream: Stream, sink: &mut LineSink<'_>) {
        self.flush(stream, sink);
        self.filter.skip(stream, time);
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
            self.pending[stream as usize] = Some(pending);
        }
    }

    /// Emits unfinished lines: the container has died, so their newlines will never come.
    pub(crate) fn flush_all(&mut self, sink: &mut LineSink<'_>) {
        self.flush(Stream::Stdout, sink);
        self.flush(Stream::Stderr, sink);
    }

    fn flush(&mut self, stream: Stream, sink: &mut LineSink<'_>) {
        if let Some(pending) = self.pending[stream as usize].take() {
            self.emit_rest(stream, &pending, sink);
        }
    }

    fn emit_rest(&mut self, stream: Stream, pending: &Pending, sink: &mut LineSink<'_>) {
        let part = if pending.cut { Part::Last } else { Part::Whole };
        self.emit(stream, pending, pending.text.len(), part, sink);
    }

    fn emit(&mut self, stream: Stream, pending: &Pending, end: usize, part: Part, sink: &mut LineSink<'_>) {
        let (LineNumber { time, ordinal }, is_new) = match pending.newest {
            Some(number) => {
                self.filter.pass(stream, number);
                (number, true)
            }
            None => {
                let is_other_unfinished = self.is_other_unfinished(stream);
                let (number, verdict) = self.filter.judge(stream, pending.time, is_other_unfinished);
                (number, self.is_new(verdict, sink))
            }
        };
        if !is_new || pending.muted || !self.filter.is_shown(time) {
            return;
        }
        self.last = Some(Cursor { time, stream, ordinal });
        let head = Head { time, ordinal, stream, encoding: pending.encoding, part };
        let start = sink.joined.len();
        sink.joined.extend_from_slice(&pending.text[..end]);
        sink.lines.push(Line::joined(head, start, end));
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
        self.filter.time_position(self.pending.each_ref().map(|pending| pending.as_ref().map(|pending| pending.time)))
    }

    /// Prepares for reading a file from the offset of a position. Drops unfinished lines.
    pub(crate) fn replay_by_count(&mut self, file: &FilePosition, position: &TimePosition) {
        self.pending = [None, None];
        self.filter.replay_by_count(file, position);
    }

    /// Prepares for reading the log from some line before a position. Drops unfinished lines.
    pub(crate) fn replay_by_time(&mut self, position: &TimePosition, completeness: Completeness) {
        self.pending = [None, None];
        self.last = self.last.or(position.last());
        self.filter.replay_by_time(position, completeness);
    }

    /// Continues behind a position. Drops unfinished lines.
    pub(crate) fn continue_after(&mut self, position: &TimePosition) {
        self.pending = [None, None];
        self.filter.continue_after(position);
    }

    /// See [`ReplayFilter::end_replay`].
    pub(crate) fn end_replay(&mut self) -> bool {
        self.filter.end_replay(self.pending.each_ref().map(Option::is_some))
    }

    /// Returns whether any line is unfinished.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.pending.iter().any(Option::is_some)
    }

    /// Returns whether the stream has an unfinished line.
    pub(crate) fn is_unfinished(&self, stream: Stream) -> bool {
        self.pending[stream as usize].is_some()
    }

    #[inline]
    fn is_other_unfinished(&self, stream: Stream) -> bool {
        self.pending[1 - stream as usize].is_some()
    }
}

impl Pending {
    fn new(time: Timestamp, encoding: Encoding) -> Box<Self> {
        Box::new(Pending { time, encoding, text: Vec::new(), size: 0, cut: false, muted: false, newest: None })
    }
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
    use crate::model::line_id::Route;
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
            joiner.replay_by_time(&position, Completeness::Proven);
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

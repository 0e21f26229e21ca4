//! Which lines of a source are new, and which position stands for what was delivered.
//!
//! In: the streams and times of lines, in the order of the log, and the position at which an earlier reader stopped.
//! Out: a [`Verdict`] for each line, and the position after it. Used by [`crate::tail::lines::Joiner`] for both routes.

use crate::model::line_id::{LineNumber, Stream};
use crate::model::position::{FilePosition, FileSignature, Mark, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::{SLACK, minus_slack};
use std::ops::Range;

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

/// How far one stream was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamProgress {
    /// The last line, shown or not.
    pub(crate) last: Option<LineNumber>,
    /// The latest time of any line.
    high: Timestamp,
    /// Number of lines, modulo 2^32: only differences are used.
    count: u32,
}

impl StreamProgress {
    /// Starts after this line, of which `high` was the latest time so far.
    fn after(last: Option<LineNumber>, mark: Option<Mark>) -> Self {
        StreamProgress { last, high: mark.map_or(Timestamp(i64::MIN), |mark| mark.high), count: 0 }
    }

    /// Returns the number of the next line, if it has this time.
    #[inline]
    fn next(&self, time: Timestamp) -> LineNumber {
        let ordinal = match self.last {
            Some(last) if last.time == time => last.ordinal + 1,
            _ => 0,
        };
        LineNumber { time, ordinal }
    }

    /// Counts a line as the last one.
    #[inline]
    fn pass(&mut self, line: LineNumber) {
        self.last = Some(line);
        self.high = self.high.max(line.time);
        self.count = self.count.wrapping_add(1);
    }

    fn mark(&self) -> Option<Mark> {
        self.last.map(|last| Mark { time: last.time, ordinal: last.ordinal, high: self.high.max(last.time) })
    }
}

/// Whether lines of a stream that were delivered before are being read again, and how they are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// Every line is new.
    Over,
    /// The next `left` lines (at least one) were delivered, unless they are later than `until`. `last` is the last of
    /// them, if its number identifies it. They must come.
    Count { left: u32, until: Timestamp, last: Option<LineNumber> },
    /// As many lines as were counted have come, but not the last of them: the file now holds more lines than were
    /// counted. Lines up to this one were delivered.
    Past(LineNumber),
    /// Lines up to this one were delivered. If `must_reappear`, nothing but this line shows that none is lost.
    Mark { mark: Mark, must_reappear: bool },
}

impl Replay {
    /// Returns what follows from the next line of the stream, and the state after it.
    fn next(self, line: LineNumber) -> (Verdict, Replay) {
        match self {
            Replay::Over => (Verdict::New, Replay::Over),
            Replay::Count { last, .. } if last == Some(line) => (Verdict::Old, Replay::Over),
            Replay::Count { until, .. } if line.time > until => (Verdict::NewAfterGap, Replay::Over),
            Replay::Count { left: ..=1, last, .. } => (Verdict::Old, last.map_or(Replay::Over, Replay::Past)),
            Replay::Count { left, until, last } => (Verdict::Old, Replay::Count { left: left - 1, until, last }),
            Replay::Past(last) if line < last => (Verdict::Old, self),
            Replay::Past(last) if line == last => (Verdict::Old, Replay::Over),
            Replay::Past(_) => (Verdict::New, Replay::Over),
            Replay::Mark { mark, .. } if line == mark.line() => (Verdict::Old, Replay::Over),
            Replay::Mark { mark, .. } if line < mark.line() || is_set_back(mark) && line.time <= mark.high => {
                (Verdict::Old, self)
            }
            Replay::Mark { must_reappear: true, .. } => (Verdict::NewAfterGap, Replay::Over),
            Replay::Mark { must_reappear: false, .. } => (Verdict::New, Replay::Over),
        }
    }

    /// Returns whether delivered lines must still be read again to show that none is lost.
    fn must_reappear(self) -> bool {
        matches!(self, Replay::Count { .. } | Replay::Mark { must_reappear: true, .. })
    }

    fn mark(self) -> Option<Mark> {
        match self {
            Replay::Mark { mark, .. } => Some(mark),
            _ => None,
        }
    }
}

/// Returns whether the clock was set back before this line. Then lines before it have later times, and only the line
/// itself separates delivered lines from new ones.
fn is_set_back(mark: Mark) -> bool {
    mark.high > Timestamp(mark.time.0.saturating_add(SLACK))
}

/// Whether a line was delivered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Old,
    New,
    /// It is new, and lines before it are lost.
    NewAfterGap,
}

/// Whether everything that was written since a position is in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// The source itself shows that nothing is missing, or reports what is.
    Proven,
    /// Only the delivered lines that are read again show it.
    MustReappear,
}

/// Where in a file a later reader starts: at the oldest line that is unfinished or not wanted yet, or at the end of
/// what was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartPoint {
    pub(crate) file: FileSignature,
    /// Offset in that file, in bytes.
    pub(crate) offset: u64,
    /// The lines before it, indexed by [`Stream`].
    pub(crate) before: [StreamProgress; 2],
}

/// Tells new lines of one container from those that were delivered before.
#[derive(Debug)]
pub(crate) struct ReplayFilter {
    /// Both streams, indexed by [`Stream`].
    streams: [StreamFilter; 2],
    /// The replay of some stream is not over.
    is_replaying: bool,
    window: Window,
    /// Lines of these times are not shown.
    hidden: Option<Range<Timestamp>>,
}

#[derive(Clone, Copy, Debug)]
struct StreamFilter {
    progress: StreamProgress,
    replay: Replay,
}

impl ReplayFilter {
    /// Creates a filter to which every line is new.
    pub(crate) fn new(window: Window) -> Self {
        let stream = StreamFilter { progress: StreamProgress::default(), replay: Replay::Over };
        ReplayFilter { streams: [stream; 2], is_replaying: false, window, hidden: None }
    }

    /// Prepares for reading a file from the offset of a position. `position` is its other part.
    pub(crate) fn replay_by_count(&mut self, file: &FilePosition, position: &TimePosition) {
        self.set_streams(|stream| {
            let mark = position.seen[stream];
            let last = file.before[stream].map(|(time, ordinal)| LineNumber { time, ordinal });
            let progress = StreamProgress::after(last, mark);
            let replay = match file.passed[stream] {
                0 => Replay::Over,
                // The number of the last line is ambiguous after the clock was set back.
                left => Replay::Count {
                    left,
                    until: progress.high,
                    last: mark.filter(|mark| mark.high == mark.time).map(|mark| mark.line()),
                },
            };
            StreamFilter { progress, replay }
        });
    }

    /// Prepares for reading the log from some line before a position.
    pub(crate) fn replay_by_time(&mut self, position: &TimePosition, completeness: Completeness) {
        self.set_streams(|stream| {
            let mark = position.seen[stream];
            let replay = match mark {
                Some(mark) => Replay::Mark {
                    mark,
                    must_reappear: completeness == Completeness::MustReappear && Some(mark.time) >= position.since,
                },
                None => Replay::Over,
            };
            StreamFilter { progress: StreamProgress::after(None, mark), replay }
        });
    }

    /// Continues behind a position: the next line is new.
    pub(crate) fn continue_after(&mut self, position: &TimePosition) {
        self.set_streams(|stream| {
            let mark = position.seen[stream];
            StreamFilter { progress: StreamProgress::after(mark.map(|mark| mark.line()), mark), replay: Replay::Over }
        });
    }

    fn set_streams(&mut self, stream: impl Fn(usize) -> StreamFilter) {
        self.streams = [stream(0), stream(1)];
        self.update_is_replaying();
    }

    fn update_is_replaying(&mut self) {
        self.is_replaying = self.streams.iter().any(|state| state.replay != Replay::Over);
    }

    /// Hides lines shortly before this time. Much older lines are shown: they are new, and the clock was set back.
    pub(crate) fn hide_before(&mut self, since: Timestamp) {
        self.hidden = Some(minus_slack(since)..since);
    }

    /// Returns whether a time lies after the window. Such lines do not count as delivered; the next run starts with
    /// them.
    #[inline]
    pub(crate) fn is_after_window(&self, time: Timestamp) -> bool {
        time > self.window.until
    }

    /// Returns whether a new line of this time is shown.
    #[inline]
    pub(crate) fn is_shown(&self, time: Timestamp) -> bool {
        self.window.since <= time && self.hidden.as_ref().is_none_or(|hidden| !hidden.contains(&time))
    }

    /// Takes the next line of a stream and returns its number. `is_other_open` is whether the other stream has an
    /// unfinished line.
    #[inline]
    pub(crate) fn judge(&mut self, stream: Stream, time: Timestamp, is_other_open: bool) -> (LineNumber, Verdict) {
        let progress = &mut self.streams[stream as usize].progress;
        let line = progress.next(time);
        progress.pass(line);
        let verdict = if self.is_replaying { self.judge_replayed(stream, line, is_other_open) } else { Verdict::New };
        (line, verdict)
    }

    /// Like [`ReplayFilter::judge`] for a piece with a number of its own (Podman). `before` is the number of the piece before
    /// it, if that belongs to the same line. A new piece only counts once its line is delivered, see [`ReplayFilter::pass`].
    pub(crate) fn judge_piece(
        &mut self,
        stream: Stream,
        time: Timestamp,
        before: Option<LineNumber>,
        is_other_open: bool,
    ) -> (LineNumber, Verdict) {
        let state = &self.streams[stream as usize];
        let last = before.or(state.progress.last);
        let line = StreamProgress { last, ..state.progress }.next(time);
        let mark = state.replay.mark();
        let verdict = if self.is_replaying { self.judge_replayed(stream, line, is_other_open) } else { Verdict::New };
        let StreamFilter { progress, replay } = &mut self.streams[stream as usize];
        if verdict == Verdict::Old {
            progress.last = Some(line);
            progress.high = progress.high.max(line.time);
        } else if let (Some(mark), None) = (mark, replay.mark()) {
            // The last delivered piece no longer exists. The position stays after it until a new line is complete.
            progress.last = progress.last.max(Some(mark.line()));
            progress.high = progress.high.max(mark.high);
        }
        (line, verdict)
    }

    /// Returns whether the stream's next piece is one that was delivered according to the position, if it has this time.
    pub(crate) fn is_before_mark(&self, stream: Stream, time: Timestamp) -> bool {
        let StreamFilter { progress, replay } = self.streams[stream as usize];
        replay.mark().is_some() && replay.next(progress.next(time)).0 == Verdict::Old
    }

    /// Counts a piece that is known to be delivered.
    pub(crate) fn skip(&mut self, stream: Stream, time: Timestamp) {
        let progress = &mut self.streams[stream as usize].progress;
        progress.pass(progress.next(time));
    }

    /// Counts a line of numbered pieces, or a part of it, as delivered. `line` is the number of its last piece.
    pub(crate) fn pass(&mut self, stream: Stream, line: LineNumber) {
        self.streams[stream as usize].progress.pass(line);
    }

    #[cold]
    fn judge_replayed(&mut self, stream: Stream, line: LineNumber, is_other_open: bool) -> Verdict {
        let replay = self.streams[stream as usize].replay;
        let (mut verdict, after) = replay.next(line);
        self.streams[stream as usize].replay = after;
        let other = &mut self.streams[1 - stream as usize].replay;
        if verdict == Verdict::Old {
            if let (Some(_), None, Replay::Mark { must_reappear, .. }) = (replay.mark(), after.mark(), &mut *other) {
                // The log is complete after this line, and anything missing before it was delivered.
                *must_reappear = false;
            }
        } else {
            // Lines between the mark and this line are lost. That matters unless all of them lie outside the window.
            let is_unwanted =
                line.time < self.window.since || replay.mark().is_some_and(|mark| mark.time > self.window.until);
            if is_unwanted {
                verdict = Verdict::New;
            }
            if !is_other_open && self.is_shown(line.time) && self.take_missing(1 - stream as usize, line.time) {
                verdict = Verdict::NewAfterGap;
            }
        }
        self.update_is_replaying();
        verdict
    }

    /// Returns whether a delivered line of this stream has to reappear before a new line of the other stream of this
    /// time, and expects it no longer. Delivered lines come before any new line. So a mark that was not reached by now
    /// is gone, and perhaps lines after it too. A stream of which nothing was delivered may still have older lines.
    fn take_missing(&mut self, stream: usize, time: Timestamp) -> bool {
        match &mut self.streams[stream].replay {
            Replay::Mark { mark, must_reappear } if mark.time < time => std::mem::take(must_reappear),
            _ => false,
        }
    }

    /// Ends the replay: everything that existed when it started has been read, so later lines are new. Streams with an
    /// unfinished line (`open`) are exempt. Returns whether a line that must reappear is missing.
    pub(crate) fn end_replay(&mut self, open: [bool; 2]) -> bool {
        let mut is_missing = false;
        for (StreamFilter { progress, replay }, _) in self.streams.iter_mut().zip(open).filter(|(_, open)| !open) {
            is_missing |= replay.must_reappear();
            if let Some(mark) = replay.mark() {
                let last = progress.last.filter(|last| last.time == mark.time);
                progress.last = last.max(Some(mark.line()));
                progress.high = progress.high.max(mark.high);
            }
            *replay = Replay::Over;
        }
        self.update_is_replaying();
        is_missing
    }

    /// Returns the position after the lines so far. `open` holds the times of the unfinished lines, which are not
    /// delivered yet.
    pub(crate) fn time_position(&self, open: [Option<Timestamp>; 2]) -> TimePosition {
        let seen = self.streams.each_ref().map(|state| state.replay.mark().or(state.progress.mark()));
        let times = || seen.iter().flatten().map(|seen| seen.time);
        // Two writers stamp the two streams. The stream that lags may still bring a line that is a little older than
        // the last line of the other.
        let earliest = times().max().map(minus_slack);
        let earliest = if seen.iter().all(Option::is_some) { times().min().max(earliest) } else { earliest };
        let since = match (earliest, open.into_iter().flatten().min()) {
            (Some(earliest), Some(open)) => Some(earliest.min(open)),
            // The same applies to a stream without any line so far.
            (earliest, open) => earliest.or(open.map(minus_slack)),
        };
        TimePosition { since, seen }
    }

    /// Returns the position by file, if a later reader may start at `point`. `None` while lines are being read again
    /// that only their times identify.
    pub(crate) fn file_position(&self, point: &RestartPoint) -> Option<FilePosition> {
        if self.is_replaying_marks() {
            return None;
        }
        let FileSignature { id, device, fingerprint } = point.file;
        let passed = [0, 1].map(|stream| {
            let StreamFilter { progress, replay } = &self.streams[stream];
            let left = if let Replay::Count { left, .. } = replay { *left } else { 0 };
            progress.count.wrapping_sub(point.before[stream].count) + left
        });
        let before = point.before.map(|before| before.last.map(|last| (last.time, last.ordinal)));
        Some(FilePosition { device, file: id, fingerprint, offset: point.offset, before, passed })
    }

    /// Returns how far the streams were read, indexed by [`Stream`].
    pub(crate) fn progress(&self) -> [StreamProgress; 2] {
        self.streams.map(|state| state.progress)
    }

    /// Returns whether the last delivered line of this stream has not been read again yet.
    pub(crate) fn is_replaying_mark(&self, stream: Stream) -> bool {
        self.streams[stream as usize].replay.mark().is_some()
    }

    /// Returns whether lines are being read again that only their times identify as delivered.
    pub(crate) fn is_replaying_marks(&self) -> bool {
        self.streams.iter().any(|state| state.replay.mark().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_id::FileId;
    use Stream::{Stderr, Stdout};
    use Verdict::{New, NewAfterGap, Old};

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * SECOND)
    }

    fn mark(seconds: i64, ordinal: u32, high: i64) -> Option<Mark> {
        Some(Mark { time: at(seconds), ordinal, high: at(high) })
    }

    fn verdicts(filter: &mut ReplayFilter, lines: &[(Stream, i64)]) -> Vec<Verdict> {
        lines.iter().map(|(stream, seconds)| filter.judge(*stream, at(*seconds), false).1).collect()
    }

    fn by_time(seen: [Option<Mark>; 2], since: Option<i64>, completeness: Completeness) -> ReplayFilter {
        let mut filter = ReplayFilter::new(Window { since: at(0), until: at(1000) });
        filter.replay_by_time(&TimePosition { since: since.map(at), seen }, completeness);
        filter
    }

    fn place(passed: [u32; 2]) -> FilePosition {
        let file = FileId { filesystem: None, inode: 1, born: None };
        FilePosition { device: 0, file, fingerprint: None, offset: 0, before: [None; 2], passed }
    }

    #[test]
    fn counted_lines_are_old_up_to_the_number_or_the_last_line() {
        for (passed, last, times, expected) in [
            (0, mark(20, 0, 20), &[10, 20][..], &[New, New][..]),
            (2, mark(20, 0, 20), &[10, 20, 20], &[Old, Old, New]),
            // The last line ends it early: a line that was counted is gone from the file.
            (3, mark(20, 0, 20), &[10, 20, 30], &[Old, Old, New]),
            (3, mark(20, 0, 20), &[10, 20, 20], &[Old, Old, New]),
            // The file holds more lines than were counted.
            (1, mark(20, 1, 20), &[10, 15, 20, 20, 20], &[Old, Old, Old, Old, New]),
            (1, mark(20, 1, 20), &[10, 20, 21], &[Old, Old, New]),
            // A later line than any that was counted: the rest of those is gone.
            (3, mark(20, 0, 20), &[10, 21, 22], &[Old, NewAfterGap, New]),
            // After the clock was set back, only the number counts.
            (2, mark(5, 0, 20), &[20, 5, 5], &[Old, Old, New]),
            (2, mark(5, 0, 20), &[20, 4, 5], &[Old, Old, New]),
        ] {
            let mut filter = ReplayFilter::new(Window::default());
            filter.replay_by_count(&place([passed, 0]), &TimePosition { since: None, seen: [last, None] });
            let lines: Vec<_> = times.iter().map(|time| (Stdout, *time)).collect();
            assert_eq!(verdicts(&mut filter, &lines), expected, "{passed} {last:?} {times:?}");
        }
    }

    #[test]
    fn lines_are_old_until_the_mark_is_reached_or_exceeded() {
        for (last, times, expected) in [
            (mark(20, 1, 20), &[10, 20, 20, 20][..], &[Old, Old, Old, New][..]),
            (mark(20, 1, 20), &[20, 21, 20], &[Old, New, New]),
            // The clock was set back by more than the slack: everything up to `high` is old until the mark comes.
            (mark(20, 0, 50), &[10, 30, 50, 20, 21], &[Old, Old, Old, Old, New]),
            (mark(20, 0, 50), &[30, 51, 20], &[Old, New, New]),
            // Within the slack, times of a stream are in order.
            (mark(20, 0, 25), &[21, 20], &[New, New]),
        ] {
            let mut filter = by_time([last, None], None, Completeness::Proven);
            let lines: Vec<_> = times.iter().map(|time| (Stdout, *time)).collect();
            assert_eq!(verdicts(&mut filter, &lines), expected, "{last:?} {times:?}");
        }
    }

    #[test]
    fn lost_marks_are_reported_once_and_only_if_they_matter() {
        let (out, err) = (mark(20, 0, 20), mark(18, 0, 18));
        for (seen, since, lines, expected, is_missing_at_end) in [
            ([out, None], Some(10), &[(Stdout, 21), (Stdout, 22)][..], &[NewAfterGap, New][..], false),
            // One mark proves that both streams are complete.
            ([out, err], Some(10), &[(Stdout, 20), (Stderr, 19)], &[Old, New], false),
            ([out, err], Some(10), &[(Stderr, 18), (Stdout, 21)], &[Old, New], false),
            // A later new line of one stream shows that the other stream's mark is gone.
            ([None, err], Some(10), &[(Stdout, 17), (Stdout, 19), (Stderr, 19)], &[New, NewAfterGap, New], false),
            // A mark before the requested time cannot reappear.
            ([out, None], Some(21), &[(Stdout, 21)], &[New], false),
            // Nothing shown is lost: before the window, and after it.
            ([out, None], None, &[(Stdout, 2000)], &[NewAfterGap], false),
            ([mark(1001, 0, 1001), None], None, &[(Stdout, 1002)], &[New], false),
            // At the end of the log.
            ([out, err], Some(10), &[(Stdout, 19)], &[Old], true),
            ([out, err], Some(10), &[(Stdout, 20)], &[Old], false),
        ] {
            let mut filter = by_time(seen, since, Completeness::MustReappear);
            assert_eq!(verdicts(&mut filter, lines), expected, "{seen:?} {lines:?}");
            assert_eq!(filter.end_replay([false; 2]), is_missing_at_end, "{seen:?} {lines:?}");
            assert!(!filter.end_replay([false; 2]));
        }
        let mut filter = by_time([out, None], None, Completeness::MustReappear);
        filter.window.since = at(30);
        assert_eq!(verdicts(&mut filter, &[(Stdout, 25)]), [New]);
    }

    #[test]
    fn the_end_of_a_replay_keeps_marks_and_unfinished_lines() {
        let seen = [mark(20, 1, 20), mark(18, 0, 40)];
        let mut filter = by_time(seen, Some(10), Completeness::Proven);
        let point = |filter: &ReplayFilter| RestartPoint {
            file: place([0; 2]).signature(),
            offset: 7,
            before: filter.progress(),
        };
        assert_eq!(filter.file_position(&point(&filter)), None);
        filter.end_replay([true, false]);
        assert!(filter.is_replaying_mark(Stdout) && !filter.is_replaying_mark(Stderr));
        assert_eq!(filter.time_position([None; 2]).seen, seen);
        filter.end_replay([false; 2]);
        let place = filter.file_position(&point(&filter)).unwrap();
        assert_eq!((place.before, place.passed), ([Some((at(20), 1)), Some((at(18), 0))], [0; 2]));
        // The next line of the same time has the next number.
        assert_eq!(filter.judge(Stdout, at(20), false).0, LineNumber { time: at(20), ordinal: 2 });
        assert_eq!(filter.time_position([None; 2]).seen, [mark(20, 2, 20), seen[1]]);
    }

    #[test]
    fn a_new_line_of_one_stream_waits_for_an_unfinished_line_of_the_other() {
        let mut filter = by_time([None, mark(18, 0, 18)], Some(10), Completeness::MustReappear);
        assert_eq!(filter.judge(Stdout, at(19), true).1, New);
        assert_eq!(filter.judge(Stdout, at(20), false).1, NewAfterGap);
    }

    #[test]
    fn since_lies_before_every_line_that_is_not_delivered() {
        for (seen, open, since) in [
            ([None, None], [None, None], None),
            ([mark(100, 0, 100), None], [None, None], Some(90)),
            ([mark(100, 0, 100), mark(95, 0, 95)], [None, None], Some(95)),
            ([mark(100, 0, 100), mark(50, 0, 50)], [None, None], Some(90)),
            ([mark(100, 0, 100), mark(95, 0, 95)], [None, Some(at(60))], Some(60)),
            ([None, None], [Some(at(60)), None], Some(50)),
        ] {
            let mut filter = ReplayFilter::new(Window::default());
            filter.continue_after(&TimePosition { since: None, seen });
            assert_eq!(filter.time_position(open), TimePosition { since: since.map(at), seen });
        }
    }
}

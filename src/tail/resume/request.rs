//! Where the next API request starts, and whether its response continues there.
//!
//! In: how far lines were delivered, and the times of the records of a response. Out: the range to request, whether each
//! record may be passed on, and how far lines are delivered afterwards. Used by [`crate::tail::api::frames`], which
//! decodes the records.
//!
//! For a request with `since` alone, dockerd reads the whole log. With `tail` it reads only the end: the last delivered
//! line must be among those records (the overlap, see [`Delivered`]), and everything after it is new. Such a request
//! needs `since` as well, or dockerd decompresses every rotated file. But up to Docker 23, `since` also omits lines
//! that were written after the clock was set back, wherever they are. If a response to `since` alone lacks the last
//! delivered line, rotation has removed it.

use super::filter::ReplayFilter;
use super::tail_window::TailWindow;
use crate::model::line_id::Cursor;
use crate::model::position::TimePosition;
use crate::model::time::Timestamp;
use crate::tail::api::body::Record;
use crate::tail::{SLACK, minus_slack};

/// How a server reports log times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Each piece has the time of its line in nanoseconds.
    #[default]
    Docker,
    /// Each piece has the second in which it was read. Podman stores nanoseconds and compares `since` with those, so a
    /// request can be more precise than the response.
    Podman,
}

impl Dialect {
    /// Rounds a time down to what the server reports for it.
    pub(crate) fn reported(self, time: Timestamp) -> Timestamp {
        match self {
            Dialect::Docker => time,
            Dialect::Podman => time.whole_second(),
        }
    }
}

/// What kind of response a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What the log holds now.
    Read,
    /// Also what is written from now on. If `may_repeat`, the server may send a record twice.
    Follow { may_repeat: bool },
}

/// The range that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestRange {
    /// Time of the earliest record, inclusive.
    pub since: Option<Timestamp>,
    /// Number of records from the end of the log.
    pub tail: Option<u64>,
}

/// Why a response does not continue where the last line was delivered. The next request takes that into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Discontinuity {
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
}

/// How far lines were delivered, across responses and decoders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    position: TimePosition,
    /// The last delivered line and the time of a record before it, if the line is suitable for finding the overlap: its
    /// ordinal is 0, a record with another time comes before it, and no line was unfinished.
    overlap: Option<(Cursor, Timestamp)>,
    /// How many records the next request asks for.
    window: TailWindow,
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

/// What is known of the response to one request. Replaced as a whole by the next request.
#[derive(Debug, Default)]
pub(crate) struct RequestState {
    /// Number of records in this body.
    records: u64,
    /// Value of `records` at the end of the overlap.
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
}

/// What to do with a record.
#[derive(Debug)]
pub(crate) enum Admission {
    Take,
    /// Drop it: it lies before the requested range, or after the window.
    Skip,
    /// Drop it: it is the last delivered line. Everything after it and this position is new.
    OverlapEnd(TimePosition),
    Stop(Discontinuity),
}

/// What was read of a response, when its lines are about to be delivered.
pub(crate) struct ReadLines {
    /// The position after them.
    pub(crate) position: TimePosition,
    /// Whether there is any line.
    pub(crate) has_lines: bool,
    /// Whether delivered lines are still being repeated.
    pub(crate) is_replaying: bool,
    /// Whether a line is unfinished.
    pub(crate) has_unfinished: bool,
}

impl Default for Delivered {
    fn default() -> Self {
        Delivered::up_to(TimePosition::default())
    }
}

impl Delivered {
    /// Creates the state for a position that any route reached.
    pub(crate) fn up_to(position: TimePosition) -> Self {
        Delivered { position: with_last_lines(position), overlap: None, window: TailWindow::new() }
    }

    /// Returns where to continue.
    pub(crate) fn position(&self) -> TimePosition {
        self.position
    }

    /// Chooses the range to request: the last records if possible, else everything since the position.
    pub(crate) fn request(&self, dialect: Dialect, mode: Mode) -> (RequestRange, RequestState) {
        let TimePosition { since, seen } = self.position;
        let mut state = RequestState {
            since: since.map(|since| dialect.reported(since)),
            may_repeat: mode == Mode::Follow { may_repeat: true },
            // Without `since`, nothing is omitted and earlier times are harmless.
            latest: seen.map(|seen| seen.map(|seen| (seen.time, since.is_some()))),
            ..RequestState::default()
        };
        // Podman first reads the last records and then opens the log again to follow it. A response to `tail` lacks
        // records that are written in between.
        let tail_window = self.window.records().filter(|_| dialect == Dialect::Docker);
        // While following, a response that is too short cannot be recognised.
        let is_at_start = self.position.is_at_start() && since.is_some() && mode == Mode::Read;
        let Some(tail_window) = tail_window.filter(|_| self.overlap.is_some() || is_at_start) else {
            return (RequestRange { since, tail: None }, state);
        };
        let (last, earlier) = self.overlap.map(|(last, other)| (last, last.time.min(other))).unzip();
        state.overlap = Some(Overlap { position: self.position, last, tail_window });
        (RequestRange { since: since.map(|since| earlier.map_or(since, minus_slack)), tail: Some(tail_window) }, state)
    }

    /// Returns the state after these lines of a response were delivered.
    #[must_use]
    pub(crate) fn after(mut self, request: &RequestState, read: &ReadLines) -> Delivered {
        if read.has_lines || !read.is_replaying {
            // The line must be identified by its time alone and differ from what precedes it.
            let is_suitable = |line: &Cursor| line.ordinal == 0 && !read.has_unfinished;
            let overlap = request.last_line.filter(is_suitable).zip(request.other_time);
            self.overlap = overlap.or(self.overlap.filter(|_| !read.has_lines));
        }
        // While delivered lines are being repeated, the position carries nothing new.
        if read.position.seen != self.position.seen {
            self.position = read.position;
            self.window = self.window.after_line();
        }
        self
    }

    /// Returns the state after a response that does not continue where the last line was delivered.
    #[must_use]
    pub(crate) fn after_failure(self, failure: Discontinuity) -> Delivered {
        match failure {
            Discontinuity::NoOverlap => Delivered { window: self.window.widened(self.position.is_at_start()), ..self },
            Discontinuity::TimeWentBack => self.read_from_start(),
            Discontinuity::PossibleRepeat => self,
        }
    }

    /// Returns the state after a response that was read to its end.
    #[must_use]
    pub(crate) fn after_end(self, request: &RequestState) -> Delivered {
        // If the whole log was read, there is nothing before its first line to overlap with.
        let overlap = self.overlap.filter(|_| self.window.records().is_some());
        let window = self.window.after_success(request.records - request.old_records);
        Delivered { overlap, window, ..self }
    }

    /// Forgets the overlap: the last line was delivered without its newline.
    #[must_use]
    pub(crate) fn without_overlap(self) -> Delivered {
        Delivered { overlap: None, ..self }
    }

    /// Reads from the first line next time, because the clock was set back at an unknown place.
    #[must_use]
    pub(crate) fn read_from_start(mut self) -> Delivered {
        self.position.since = None;
        self
    }

    #[cfg(test)]
    pub(crate) fn with_window(self, records: Option<u64>) -> Delivered {
        Delivered { window: TailWindow::of(records), ..self }
    }

    /// Whether the other state has delivered the same lines.
    pub(crate) fn has_same_lines(&self, other: &Delivered) -> bool {
        self.position.seen == other.position.seen
    }
}

impl RequestState {
    /// Counts a record, or bytes in its place.
    pub(crate) fn count(&mut self) {
        self.records += 1;
    }

    /// Returns the number of records so far, in the unit of the request's `tail`.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Returns the last record of this body.
    pub(crate) fn newest(&self) -> Option<Record> {
        self.newest
    }

    /// Returns whether the records so far lie before or in the overlap.
    pub(crate) fn is_before_overlap_end(&self) -> bool {
        self.overlap.is_some()
    }

    /// Returns whether the last delivered line has not been found, when the body has ended.
    pub(crate) fn lacks_overlap(&self) -> bool {
        self.overlap.as_ref().is_some_and(|overlap| overlap.last.is_some())
    }

    /// Decides about the next record. `is_unfinished` is whether its stream has an unfinished line.
    pub(crate) fn admit(&mut self, record: Record, filter: &ReplayFilter, is_unfinished: bool) -> Admission {
        let before = self.newest.replace(record).map(|before| before.time);
        self.other_time = before.filter(|before| *before != record.time).or(self.other_time);
        if self.overlap.is_some() {
            return self.find_overlap(record);
        }
        if self.since.is_some_and(|since| record.time < since) {
            return Admission::Skip;
        }
        self.since = None;
        let Record { time, stream, .. } = record;
        // It must not become the line by which the next response is matched.
        if filter.is_after_window(time) {
            return Admission::Skip;
        }
        if let Some((latest, must_rise)) = self.latest[stream as usize].filter(|_| !filter.is_replaying_mark(stream)) {
            if time < latest && must_rise {
                return Admission::Stop(Discontinuity::TimeWentBack);
            }
            if time == latest && self.may_repeat && !is_unfinished {
                return Admission::Stop(Discontinuity::PossibleRepeat);
            }
        }
        Admission::Take
    }

    /// Looks for the last delivered line.
    fn find_overlap(&mut self, record: Record) -> Admission {
        let Some(Overlap { position, last: Some(last), tail_window }) = self.overlap else {
            return Admission::Stop(Discontinuity::NoOverlap);
        };
        // The body may begin between lines of the same time. So the line only counts after a record with another time.
        let is_last = (record.stream, record.time) == (last.stream, last.time);
        if is_last && record.is_complete && self.other_time.is_some() {
            (self.since, self.overlap, self.old_records) = (None, None, self.records);
            return Admission::OverlapEnd(position);
        }
        // The last delivered line would have come before this record.
        let slack = if record.stream == last.stream { 0 } else { SLACK };
        let is_later = record.time.0 > last.time.0.saturating_add(slack);
        if is_later || self.records >= tail_window {
            return Admission::Stop(Discontinuity::NoOverlap);
        }
        Admission::Skip
    }

    /// Takes note of a line that is passed on.
    pub(crate) fn passed(&mut self, line: Cursor) {
        self.latest[line.stream as usize] = Some((line.time, true));
    }

    /// Takes note of the last line that is complete, whether it is passed on or not.
    pub(crate) fn completed(&mut self, line: Cursor) {
        self.last_line = Some(line);
    }

    /// Returns the position for an API request, from the position after the lines so far. No request asks for anything
    /// before `earliest`.
    pub(crate) fn position(&self, position: TimePosition, earliest: Option<Timestamp>) -> TimePosition {
        let mut position = with_last_lines(position);
        // The clock was set back: dockerd up to 23 omits lines with a time before `since`, wherever they are.
        if let (Some(since), Some(newest)) = (position.since, self.newest)
            && newest.time < since
        {
            position.since = Some(minus_slack(newest.time));
        }
        position.since = position.since.map(|since| earliest.map_or(since, |earliest| since.max(earliest)));
        position
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

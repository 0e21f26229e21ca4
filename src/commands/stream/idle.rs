//! When to look whether a silent log stream has missed something.
//!
//! In: moments. Out: the next one to look at. Called by [`super::course`]. A stream says nothing when the container says
//! nothing, when something on the way holds it up, and when engines up to 23 leave out lines because the clock was set back
//! behind `since` (moby `daemon/logger/loggerutils/logfile.go`); only the log's newest record tells these apart.

use crate::model::position::TimePosition;
use crate::model::time::Timestamp;
use crate::tail::Record;
use std::time::Duration;
use tokio::time::Instant;

/// Silence before the first look.
pub(super) const FIRST: Duration = Duration::from_secs(30);
/// Between two looks it doubles up to this.
pub(super) const LONGEST: Duration = Duration::from_secs(5 * 60);

/// See the module.
pub(super) struct IdleTimer {
    next: Instant,
    span: Duration,
}

impl IdleTimer {
    /// From now on it is listened.
    pub(super) fn new(now: Instant) -> Self {
        IdleTimer { next: now + FIRST, span: FIRST }
    }

    /// When to look.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Something new came.
    pub(super) fn broken(&mut self, now: Instant) {
        *self = IdleTimer::new(now);
    }

    /// It was looked. What was found does not matter: a request may take its time to come to the first line.
    pub(super) fn looked(&mut self, now: Instant) {
        self.span = (self.span * 2).min(LONGEST);
        self.next = now + self.span;
    }
}

/// The time of the log's newest record, if that lies behind what was read: `last` is the last record that has come since
/// the position, if any has.
pub(super) fn ahead(newest: Record, last: Option<Record>, position: &TimePosition) -> Option<Timestamp> {
    let has_come = match last {
        Some(last) => last == newest,
        None => position.seen[newest.stream as usize].is_some_and(|seen| seen.time == newest.time),
    };
    // Before anything was passed on, what is older is not wanted.
    let is_unwanted = position.is_at_start() && position.since.is_some_and(|since| newest.time < since);
    (!has_come && !is_unwanted).then_some(newest.time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::Stream;
    use crate::model::position::Mark;

    #[test]
    fn it_is_looked_less_often_the_longer_it_lasts_and_soon_again_after_a_line() {
        let start = Instant::now();
        let mut silence = IdleTimer::new(start);
        let mut looks = Vec::new();
        for _ in 0..7 {
            looks.push((silence.next() - start).as_secs());
            silence.looked(silence.next());
        }
        assert_eq!(looks, [30, 90, 210, 450, 750, 1050, 1350]);
        silence.broken(start);
        assert_eq!(silence.next() - start, FIRST);
    }

    #[test]
    fn a_log_is_ahead_when_its_newest_record_has_not_come() {
        let record = |time, is_complete| Record { time: Timestamp(time), stream: Stream::Stdout, is_complete };
        let seen = |time| Mark { time: Timestamp(time), ordinal: 0, high: Timestamp(time) };
        let passed = |time| TimePosition { since: Some(Timestamp(time - 10)), seen: [Some(seen(time)), None] };
        let start = |since: Option<i64>| TimePosition::at(since.map(Timestamp));
        for (newest, last, position, expected) in [
            (record(50, true), Some(record(50, true)), passed(50), false),
            (record(51, true), Some(record(50, true)), passed(50), true),
            // The end of a line of which a piece has come.
            (record(50, true), Some(record(50, false)), passed(40), true),
            (record(50, true), None, passed(50), false),
            (record(51, true), None, passed(50), true),
            // The clock was set back.
            (record(7, true), None, passed(50), true),
            (record(7, true), Some(record(50, true)), passed(50), true),
            (record(7, true), None, start(None), true),
            (record(7, true), None, start(Some(8)), false),
            (record(8, true), None, start(Some(8)), true),
        ] {
            let found = ahead(newest, last, &position);
            assert_eq!(found, expected.then_some(newest.time), "{newest:?} {last:?} {position:?}");
        }
    }
}

//! Idle probes: when to check whether a silent stream still works, and whether it has missed lines.
//!
//! In: the times of lines and probes. Out: the time of the next probe. A stream is silent when the container is, when a
//! connection hangs, and when Docker up to 23 leaves out lines because the clock was set back to before `since` (moby
//! `daemon/logger/loggerutils/logfile.go`). Only the newest record of the log distinguishes them.

use crate::model::position::TimePosition;
use crate::model::time::Timestamp;
use crate::tail::Record;
use std::time::Duration;
use tokio::time::Instant;

/// Silence before the first probe.
pub(super) const FIRST: Duration = Duration::from_secs(30);
/// The interval between two probes doubles up to this.
pub(super) const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Decides when to probe.
pub(super) struct IdleTimer {
    next: Instant,
    /// Time from the last line or probe to `next`.
    interval: Duration,
}

impl IdleTimer {
    pub(super) fn new(now: Instant) -> Self {
        IdleTimer { next: now + FIRST, interval: FIRST }
    }

    /// Returns when the next probe is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Starts again after a line arrived.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = IdleTimer::new(now);
    }

    /// Records a probe and doubles the interval, whatever the probe found: a request may take long to
    /// reach its first line.
    pub(super) fn probed(&mut self, now: Instant) {
        self.interval = (self.interval * 2).min(LONGEST);
        self.next = now + self.interval;
    }
}

/// Returns the time of the log's newest record, if that record has not been read. `last` is the last record that
/// arrived after `position`, if any has.
pub(super) fn ahead(newest: Record, last: Option<Record>, position: &TimePosition) -> Option<Timestamp> {
    let is_read = match last {
        Some(last) => last == newest,
        None => position.seen[newest.stream as usize].is_some_and(|seen| seen.time == newest.time),
    };
    // Before the first line was delivered, records from before `since` do not count.
    let is_before_since = position.is_at_start() && position.since.is_some_and(|since| newest.time < since);
    (!is_read && !is_before_since).then_some(newest.time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::line_id::Stream;
    use crate::model::position::Mark;

    #[test]
    fn probes_become_rarer_until_a_line_arrives() {
        let start = Instant::now();
        let mut idle = IdleTimer::new(start);
        let mut probes = Vec::new();
        for _ in 0..7 {
            probes.push((idle.next() - start).as_secs());
            idle.probed(idle.next());
        }
        assert_eq!(probes, [30, 90, 210, 450, 750, 1050, 1350]);
        idle.restart(start);
        assert_eq!(idle.next() - start, FIRST);
    }

    #[test]
    fn a_log_is_ahead_when_its_newest_record_was_not_read() {
        let record = |time, is_complete| Record { time: Timestamp(time), stream: Stream::Stdout, is_complete };
        let seen = |time| Mark { time: Timestamp(time), ordinal: 0, high: Timestamp(time) };
        let passed = |time| TimePosition { since: Some(Timestamp(time - 10)), seen: [Some(seen(time)), None] };
        let start = |since: Option<i64>| TimePosition::at(since.map(Timestamp));
        for (newest, last, position, expected) in [
            (record(50, true), Some(record(50, true)), passed(50), false),
            (record(51, true), Some(record(50, true)), passed(50), true),
            // The end of a line of which only a piece has arrived.
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

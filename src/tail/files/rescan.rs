//! Schedules checks of logs for which inotify has reported nothing.
//!
//! In: containers, how reliable inotify is for each, and the time. Out: which containers to check now. Called by
//! [`super::reader`]. The time is passed in, so that the tests are tables.
//!
//! On a file system that only this machine writes to, inotify misses nothing except during an overflow, which it
//! reports. So these rounds are only a safety net there: each log is checked once per [`ROUND`], a few at a time. Where
//! inotify is known to miss changes, or there is no watch, these checks are what finds new lines. So they are frequent.

use crate::model::batch::ContainerKey;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Every log is checked once in this time, or in twice that while many are added.
const ROUND: Duration = Duration::from_secs(30);
/// A round is split into steps of at least this many logs ...
const STEP: usize = 500;
/// ... and into at most this many steps, because each step wakes the thread.
const MAX_STEPS: usize = 6;

/// How reliable inotify is for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// inotify reports all changes of this file system.
    Full,
    /// Others may write to the files: another machine, or a program after a FUSE file system.
    Doubtful,
    /// There is no watch, or no descriptor for the file.
    None,
}

impl Trust {
    /// Returns the interval between two checks.
    fn pace(self) -> Duration {
        match self {
            Trust::Full => ROUND,
            Trust::Doubtful => Duration::from_secs(5),
            Trust::None => Duration::from_secs(1),
        }
    }
}

/// The schedule of all followed logs.
#[derive(Debug)]
pub(super) struct RescanSchedule {
    all: BTreeSet<ContainerKey>,
    /// The last log checked in this round.
    last: Option<ContainerKey>,
    /// When the next step of the round is due.
    next_step: Instant,
    doubtful: FrequentChecks,
    unwatched: FrequentChecks,
}

/// Logs that are checked more often, all of them at once.
#[derive(Debug)]
struct FrequentChecks {
    keys: BTreeSet<ContainerKey>,
    next: Instant,
}

impl RescanSchedule {
    pub(super) fn new(now: Instant) -> Self {
        let often = |trust: Trust| FrequentChecks { keys: BTreeSet::new(), next: now + trust.pace() };
        RescanSchedule {
            all: BTreeSet::new(),
            last: None,
            next_step: now + ROUND,
            doubtful: often(Trust::Doubtful),
            unwatched: often(Trust::None),
        }
    }

    /// Adds a log or changes how often it is checked.
    pub(super) fn set(&mut self, key: ContainerKey, trust: Trust, now: Instant) {
        if self.all.is_empty() {
            self.next_step = now + ROUND;
        }
        self.all.insert(key);
        for (often, of) in [(&mut self.doubtful, Trust::Doubtful), (&mut self.unwatched, Trust::None)] {
            if trust != of {
                often.keys.remove(&key);
            } else if often.keys.insert(key) {
                often.next = often.next.min(now + of.pace()).max(now);
            }
        }
    }

    pub(super) fn remove(&mut self, key: ContainerKey) {
        self.all.remove(&key);
        self.doubtful.keys.remove(&key);
        self.unwatched.keys.remove(&key);
    }

    /// Returns when the next check is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let step = (!self.all.is_empty()).then_some(self.next_step);
        let often = [&self.doubtful, &self.unwatched].into_iter();
        often.filter(|often| !often.keys.is_empty()).map(|often| often.next).chain(step).min()
    }

    /// Takes the logs that are due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<ContainerKey> {
        let mut due = BTreeSet::new();
        for (often, of) in [(&mut self.doubtful, Trust::Doubtful), (&mut self.unwatched, Trust::None)] {
            if now >= often.next && !often.keys.is_empty() {
                due.extend(&often.keys);
                often.next = now + of.pace();
            }
        }
        if now >= self.next_step && !self.all.is_empty() {
            let steps = self.all.len().div_ceil(STEP).min(MAX_STEPS);
            due.extend(self.next_logs(self.all.len().div_ceil(steps)));
            self.next_step = now + ROUND / u32::try_from(steps).unwrap_or(1);
        }
        due.into_iter().collect()
    }

    /// Returns the next `size` logs, starting over after the last one.
    fn next_logs(&mut self, size: usize) -> Vec<ContainerKey> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let (after, before) = (self.all.range((from, Bound::Unbounded)), self.all.iter());
        let next_logs: Vec<ContainerKey> = after.chain(before).take(size.min(self.all.len())).copied().collect();
        self.last = next_logs.last().copied();
        next_logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SECOND: Duration = Duration::from_secs(1);

    /// Advances the time from one due time to the next. Returns at which seconds each log was due, and the number of
    /// wake-ups.
    fn run(schedule: &mut RescanSchedule, start: Instant, seconds: u64) -> (BTreeMap<u32, Vec<u64>>, usize) {
        let (mut due, mut wakes) = (BTreeMap::<u32, Vec<u64>>::new(), 0);
        let end = start + SECOND * u32::try_from(seconds).unwrap();
        while let Some(next) = schedule.next().filter(|next| *next <= end) {
            wakes += 1;
            for ContainerKey(key) in schedule.take_due(next) {
                due.entry(key).or_default().push((next - start).as_secs());
            }
        }
        (due, wakes)
    }

    /// A watched log is checked once per round, however many there are, and few logs cause few wake-ups.
    #[test]
    fn every_log_is_checked_once_per_round() {
        for (count, steps) in [(1, 1), (500, 1), (501, 2), (2000, 4), (10_000, 6), (60_000, 6)] {
            let start = Instant::now();
            let mut schedule = RescanSchedule::new(start);
            (0..count).for_each(|key| schedule.set(ContainerKey(key), Trust::Full, start));
            // The first step comes after a whole round, since nothing can be overdue before.
            let (due, wakes) = run(&mut schedule, start, 30 + 90 - 1);
            assert_eq!(due.len(), usize::try_from(count).unwrap());
            assert_eq!(wakes, 3 * steps, "{count}");
            for (key, times) in due {
                // A few logs are checked twice if the last step is not full.
                assert!((3..=4).contains(&times.len()), "{key} of {count}: {times:?}");
                assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 31), "{key} of {count}: {times:?}");
            }
        }
    }

    /// A log without a watch is checked often, as soon as that is known.
    #[test]
    fn unreliable_inotify_means_more_frequent_checks() {
        let start = Instant::now();
        let mut schedule = RescanSchedule::new(start);
        assert_eq!(schedule.next(), None, "without logs nothing wakes the thread");
        for (key, trust) in [(1, Trust::Full), (2, Trust::Doubtful), (3, Trust::None)] {
            schedule.set(ContainerKey(key), trust, start);
        }
        let (due, _) = run(&mut schedule, start, 10);
        assert_eq!(due.get(&1), None);
        assert_eq!(due[&2], [5, 10]);
        assert_eq!(due[&3], (1..=10).collect::<Vec<u64>>());
        let later = start + 10 * SECOND;
        schedule.set(ContainerKey(1), Trust::None, later);
        schedule.set(ContainerKey(3), Trust::Full, later);
        schedule.remove(ContainerKey(2));
        let (due, _) = run(&mut schedule, later, 3);
        assert_eq!(due.into_iter().collect::<Vec<_>>(), [(1, vec![1, 2, 3])]);
    }

    /// Adding and removing logs in the middle of a round does not delay other logs.
    #[test]
    fn adding_and_removing_logs_delays_no_other() {
        let start = Instant::now();
        let mut schedule = RescanSchedule::new(start);
        (0..3000).for_each(|key| schedule.set(ContainerKey(key), Trust::Full, start));
        let (mut due, mut now) = (BTreeMap::<u32, u32>::new(), start);
        for step in 0..18_u32 {
            now = schedule.next().unwrap().max(now);
            for ContainerKey(key) in schedule.take_due(now) {
                *due.entry(key).or_default() += 1;
            }
            (0..5).for_each(|more| schedule.set(ContainerKey(10_000 + 5 * step + more), Trust::Full, now));
            // Also remove the log that was checked last.
            let gone = schedule.last.unwrap();
            schedule.remove(gone);
            due.remove(&gone.0);
        }
        for key in schedule.all.iter().filter(|key| key.0 < 3000) {
            assert!((2..=4).contains(&due[&key.0]), "{key:?}: {:?}", due.get(&key.0));
        }
    }
}

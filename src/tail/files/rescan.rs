//! When which log is looked at without inotify having reported anything.
//!
//! In: containers and how far inotify can be believed about each, and the time. Out: who is due. Called by
//! [`super::reader`]. Given the time, so that its tests are tables.
//!
//! inotify misses nothing on a file system of this machine except on an overflow, which it reports. So the rounds are only
//! a safety net there: each log has its turn once in [`ROUND`], a few at a time. Where inotify is known to miss things,
//! or there is no watch at all, looks are what finds new lines, so they come often.

use crate::model::batch::ContainerKey;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Every log is looked at once in this time, or in twice that while many are added.
const ROUND: Duration = Duration::from_secs(30);
/// A round is taken in steps of at least so many logs ...
const STEP: usize = 500;
/// ... and at most so many steps, each of which wakes the thread.
const MOST_STEPS: usize = 6;

/// How far inotify can be believed about a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It reports everything.
    Full,
    /// Others may write to the files, from another machine or behind a file system in user space.
    Doubtful,
    /// There is no watch, or no descriptor for the file.
    None,
}

impl Trust {
    /// How often a log of this kind is looked at.
    fn pace(self) -> Duration {
        match self {
            Trust::Full => ROUND,
            Trust::Doubtful => Duration::from_secs(5),
            Trust::None => Duration::from_secs(1),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rounds {
    all: BTreeSet<ContainerKey>,
    /// The last one that had its turn in this round.
    last: Option<ContainerKey>,
    next_step: Instant,
    doubtful: Often,
    unwatched: Often,
}

/// Those that are looked at more often, all of them at once.
#[derive(Debug)]
struct Often {
    keys: BTreeSet<ContainerKey>,
    next: Instant,
}

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        let often = |trust: Trust| Often { keys: BTreeSet::new(), next: now + trust.pace() };
        Rounds {
            all: BTreeSet::new(),
            last: None,
            next_step: now + ROUND,
            doubtful: often(Trust::Doubtful),
            unwatched: often(Trust::None),
        }
    }

    /// From now on this log is looked at as often as that asks for.
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

    /// It is not followed any more.
    pub(super) fn remove(&mut self, key: ContainerKey) {
        self.all.remove(&key);
        self.doubtful.keys.remove(&key);
        self.unwatched.keys.remove(&key);
    }

    /// When somebody is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        let step = (!self.all.is_empty()).then_some(self.next_step);
        let often = [&self.doubtful, &self.unwatched].into_iter();
        often.filter(|often| !often.keys.is_empty()).map(|often| often.next).chain(step).min()
    }

    /// Who is due now, and never for the same moment again.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<ContainerKey> {
        let mut due = BTreeSet::new();
        for (often, of) in [(&mut self.doubtful, Trust::Doubtful), (&mut self.unwatched, Trust::None)] {
            if now >= often.next && !often.keys.is_empty() {
                due.extend(&often.keys);
                often.next = now + of.pace();
            }
        }
        if now >= self.next_step && !self.all.is_empty() {
            let steps = self.all.len().div_ceil(STEP).min(MOST_STEPS);
            due.extend(self.portion(self.all.len().div_ceil(steps)));
            self.next_step = now + ROUND / u32::try_from(steps).unwrap_or(1);
        }
        due.into_iter().collect()
    }

    /// The next so many, from the start again behind the last one.
    fn portion(&mut self, size: usize) -> Vec<ContainerKey> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let (behind, before) = (self.all.range((from, Bound::Unbounded)), self.all.iter());
        let portion: Vec<ContainerKey> = behind.chain(before).take(size.min(self.all.len())).copied().collect();
        self.last = portion.last().copied();
        portion
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets time pass from one due moment to the next. At which seconds each was due, and how often anybody was.
    fn run(rounds: &mut Rounds, start: Instant, seconds: u64) -> (BTreeMap<u32, Vec<u64>>, usize) {
        let (mut due, mut wakes) = (BTreeMap::<u32, Vec<u64>>::new(), 0);
        let end = start + SECOND * u32::try_from(seconds).unwrap();
        while let Some(next) = rounds.next().filter(|next| *next <= end) {
            wakes += 1;
            for ContainerKey(key) in rounds.take_due(next) {
                due.entry(key).or_default().push((next - start).as_secs());
            }
        }
        (due, wakes)
    }

    /// A watched log has its turn once in a round, however many there are, and few logs cause few wake-ups.
    #[test]
    fn everyone_has_one_turn_in_a_round_of_few_steps() {
        for (count, steps) in [(1, 1), (500, 1), (501, 2), (2000, 4), (10_000, 6), (60_000, 6)] {
            let start = Instant::now();
            let mut rounds = Rounds::new(start);
            (0..count).for_each(|key| rounds.set(ContainerKey(key), Trust::Full, start));
            // The first step comes after a whole round, when nothing can be overdue yet.
            let (due, wakes) = run(&mut rounds, start, 30 + 90 - 1);
            assert_eq!(due.len(), usize::try_from(count).unwrap());
            assert_eq!(wakes, 3 * steps, "{count}");
            for (key, times) in due {
                // A few come twice where the last step has room left.
                assert!((3..=4).contains(&times.len()), "{key} of {count}: {times:?}");
                assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 31), "{key} of {count}: {times:?}");
            }
        }
    }

    /// Who cannot be watched is looked at often, and from the moment on that this is known.
    #[test]
    fn the_less_inotify_is_believed_the_more_often_a_log_is_looked_at() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        assert_eq!(rounds.next(), None, "nobody is followed, so nothing wakes the thread");
        for (key, trust) in [(1, Trust::Full), (2, Trust::Doubtful), (3, Trust::None)] {
            rounds.set(ContainerKey(key), trust, start);
        }
        let (due, _) = run(&mut rounds, start, 10);
        assert_eq!(due.get(&1), None);
        assert_eq!(due[&2], [5, 10]);
        assert_eq!(due[&3], (1..=10).collect::<Vec<u64>>());
        let later = start + 10 * SECOND;
        rounds.set(ContainerKey(1), Trust::None, later);
        rounds.set(ContainerKey(3), Trust::Full, later);
        rounds.remove(ContainerKey(2));
        let (due, _) = run(&mut rounds, later, 3);
        assert_eq!(due.into_iter().collect::<Vec<_>>(), [(1, vec![1, 2, 3])]);
    }

    /// A log that leaves or joins in the middle of a round takes nobody's turn away.
    #[test]
    fn coming_and_going_does_not_starve_anybody() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        (0..3000).for_each(|key| rounds.set(ContainerKey(key), Trust::Full, start));
        let (mut due, mut now) = (BTreeMap::<u32, u32>::new(), start);
        for step in 0..18_u32 {
            now = rounds.next().unwrap().max(now);
            for ContainerKey(key) in rounds.take_due(now) {
                *due.entry(key).or_default() += 1;
            }
            (0..5).for_each(|more| rounds.set(ContainerKey(10_000 + 5 * step + more), Trust::Full, now));
            // Also the one that had its turn last.
            let gone = rounds.last.unwrap();
            rounds.remove(gone);
            due.remove(&gone.0);
        }
        for key in rounds.all.iter().filter(|key| key.0 < 3000) {
            assert!((2..=4).contains(&due[&key.0]), "{key:?}: {:?}", due.get(&key.0));
        }
    }
}

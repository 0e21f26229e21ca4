//! The retry budget of one log: whether, and when, to repeat a request that failed.
//!
//! In: the kind of the failure, and the time. Out: the wait before the next attempt, or `None` to give up. A log that is
//! followed can wait forever; a log that has to be read to its end keeps somebody waiting. Reads no clock.

use crate::docker::backoff::{Backoff, Settings};
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF: Settings =
    Settings { initial: Duration::from_millis(200), max: Duration::from_secs(10), multiplier: 2.0, jitter: true };
/// Failures in a row that count as permanent. A daemon that starts or stops answers with errors for a moment.
pub(super) const REFUSALS: u32 = 4;
/// How long to retry after the last progress, when somebody waits for the end.
const SPAN: Duration = Duration::from_secs(20);
/// The same, after another log has used up [`SPAN`] for nothing.
const BRIEF: Duration = Duration::from_secs(1);

pub(super) struct RetryBudget {
    backoff: Backoff,
    span: Duration,
    /// When the budget is used up. Set by the first failure.
    until: Option<Instant>,
}

impl RetryBudget {
    /// `is_short` if another log has used up its budget.
    pub(super) fn new(is_short: bool) -> Self {
        RetryBudget { backoff: Backoff::new(BACKOFF), span: if is_short { BRIEF } else { SPAN }, until: None }
    }

    /// There was progress: the budget is full again.
    pub(super) fn reset(&mut self) {
        (self.until, self.span) = (None, SPAN);
        self.backoff.reset();
    }

    /// The number of failures in a row.
    pub(super) fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    /// The wait before the next attempt, without a limit. `random` is between 0 and 1.
    pub(super) fn wait(&mut self, random: f64) -> Duration {
        self.backoff.wait(random)
    }

    /// How long an attempt may wait for a daemon that is gone, when somebody waits for the end.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.map_or(self.span, |until| until.saturating_duration_since(now))
    }

    /// The wait before the next attempt, or `None` to give up. A failure that is not temporary (`is_passing`) is repeated a
    /// few times; a temporary one forever, unless the end is the last thing that is wanted of the log (`is_last`).
    pub(super) fn again(&mut self, is_passing: bool, is_last: bool, now: Instant, random: f64) -> Option<Duration> {
        let wait = self.backoff.wait(random);
        if !is_passing {
            return (self.backoff.attempts() < REFUSALS).then_some(wait);
        }
        if !is_last {
            return Some(wait);
        }
        let until = *self.until.get_or_insert(now + self.span);
        (now < until).then(|| wait.min(until - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of attempts (up to 100) and the milliseconds they take, if each fails at once.
    fn tried(mut retry: RetryBudget, is_passing: bool, is_last: bool) -> (usize, u64) {
        let start = Instant::now();
        let (mut now, mut tries) = (start, 1);
        while let Some(wait) = retry.again(is_passing, is_last, now, 1.0)
            && tries < 100
        {
            (now, tries) = (now + wait, tries + 1);
        }
        (tries, (now - start).as_millis() as u64)
    }

    #[test]
    fn temporary_failures_are_retried_longer_than_permanent_ones() {
        for (is_short, is_passing, is_last, expected) in [
            (false, true, true, (8, 20_000)),
            (true, true, true, (4, 1000)),
            (false, false, true, (4, 1400)),
            (false, false, false, (4, 1400)),
        ] {
            let found = tried(RetryBudget::new(is_short), is_passing, is_last);
            assert_eq!(found, expected, "{is_short} {is_passing} {is_last}");
        }
        assert_eq!(tried(RetryBudget::new(true), true, false).0, 100, "a followed log is retried forever");
    }

    #[test]
    fn progress_refills_the_budget() {
        let start = Instant::now();
        let mut retry = RetryBudget::new(true);
        assert_eq!(retry.left(start), BRIEF);
        retry.again(true, true, start, 1.0);
        assert_eq!(retry.left(start + BRIEF), Duration::ZERO);
        retry.reset();
        assert_eq!((retry.left(start + BRIEF), retry.attempts()), (SPAN, 0));
        assert!(retry.again(true, true, start + BRIEF, 1.0).is_some());
    }
}

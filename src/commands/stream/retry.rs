//! The retry budget of one log: whether, and when, to repeat a request that failed.
//!
//! In: the kind of the failure, and the time. Out: the wait before the next attempt, or `None` to give up. A log that
//! is followed can wait forever; a log that has to be read to its end keeps the user waiting. Reads no clock.

use crate::docker::backoff::{Backoff, Settings};
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF: Settings =
    Settings { initial: Duration::from_millis(200), max: Duration::from_secs(10), multiplier: 2.0, jitter: true };
/// Number of consecutive failures that count as permanent. A daemon that is starting or stopping answers with
/// errors for a moment.
pub(super) const REFUSALS: u32 = 4;
/// How long to retry after the last progress, when a log has to be read to its end.
const SPAN: Duration = Duration::from_secs(20);
/// The same after another log has used up [`SPAN`] without success.
const SHORT_SPAN: Duration = Duration::from_secs(1);

pub(super) struct RetryBudget {
    backoff: Backoff,
    span: Duration,
    /// When the budget is used up. Set by the first failure.
    until: Option<Instant>,
}

impl RetryBudget {
    /// `is_short` says that another log has used up its budget.
    pub(super) fn new(is_short: bool) -> Self {
        RetryBudget { backoff: Backoff::new(BACKOFF), span: if is_short { SHORT_SPAN } else { SPAN }, until: None }
    }

    /// Refills the budget after progress.
    pub(super) fn reset(&mut self) {
        (self.until, self.span) = (None, SPAN);
        self.backoff.reset();
    }

    /// Returns the number of consecutive failures.
    pub(super) fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    /// Returns the wait before the next attempt, without a limit. `random` is between 0 and 1.
    pub(super) fn wait(&mut self, random: f64) -> Duration {
        self.backoff.wait(random)
    }

    /// Returns how long an attempt that has to reach the end may wait for an unreachable daemon.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.map_or(self.span, |until| until.saturating_duration_since(now))
    }

    /// Returns the wait before the next attempt, or `None` to give up. After a failure that is not temporary
    /// (`is_temporary`), there are a few attempts; after a temporary one, any number, unless nothing is read after the
    /// next end of the log (`is_last`).
    pub(super) fn next_wait(
        &mut self,
        is_temporary: bool,
        is_last: bool,
        now: Instant,
        random: f64,
    ) -> Option<Duration> {
        let wait = self.backoff.wait(random);
        if !is_temporary {
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
    fn tried(mut retry: RetryBudget, is_temporary: bool, is_last: bool) -> (usize, u64) {
        let start = Instant::now();
        let (mut now, mut tries) = (start, 1);
        while let Some(wait) = retry.next_wait(is_temporary, is_last, now, 1.0)
            && tries < 100
        {
            (now, tries) = (now + wait, tries + 1);
        }
        (tries, (now - start).as_millis() as u64)
    }

    #[test]
    fn temporary_failures_are_retried_longer_than_permanent_ones() {
        for (is_short, is_temporary, is_last, expected) in [
            (false, true, true, (8, 20_000)),
            (true, true, true, (4, 1000)),
            (false, false, true, (4, 1400)),
            (false, false, false, (4, 1400)),
        ] {
            let found = tried(RetryBudget::new(is_short), is_temporary, is_last);
            assert_eq!(found, expected, "{is_short} {is_temporary} {is_last}");
        }
        assert_eq!(tried(RetryBudget::new(true), true, false).0, 100, "a followed log is retried forever");
    }

    #[test]
    fn progress_refills_the_budget() {
        let start = Instant::now();
        let mut retry = RetryBudget::new(true);
        assert_eq!(retry.left(start), SHORT_SPAN);
        retry.next_wait(true, true, start, 1.0);
        assert_eq!(retry.left(start + SHORT_SPAN), Duration::ZERO);
        retry.reset();
        assert_eq!((retry.left(start + SHORT_SPAN), retry.attempts()), (SPAN, 0));
        assert!(retry.next_wait(true, true, start + SHORT_SPAN, 1.0).is_some());
    }
}

//! For how long a log is asked for again when that has failed.
//!
//! In: what kind of failure it was, and when. Out: the wait before the next attempt, or that there is none. Called by
//! [`super::stream`]. A log that is followed has all the time there is; one that is to be read to its end, after which
//! nothing more is heard of it, keeps somebody waiting. Reads no clock, so its tests are tables.

use crate::docker::backoff::{Backoff, Settings};
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF: Settings =
    Settings { initial: Duration::from_millis(200), max: Duration::from_secs(10), multiplier: 2.0, jitter: true };
/// So often an engine may refuse before that counts: one that starts or stops does for a moment.
pub(super) const REFUSALS: u32 = 4;
/// Whoever waits for an end waits so long behind the last that came.
const SPAN: Duration = Duration::from_secs(20);
/// The same where that was in vain for another log.
const BRIEF: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct RetryBudget {
    backoff: Backoff,
    span: Duration,
    /// When it is over, once there is a need for it.
    until: Option<Instant>,
}

impl RetryBudget {
    /// Nothing has failed yet, or everything has for another log.
    pub(super) fn new(was_in_vain: bool) -> Self {
        RetryBudget { backoff: Backoff::new(BACKOFF), span: if was_in_vain { BRIEF } else { SPAN }, until: None }
    }

    /// Something came.
    pub(super) fn reset(&mut self) {
        (self.until, self.span) = (None, SPAN);
        self.backoff.reset();
    }

    /// What has failed in a row.
    pub(super) fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    /// The wait before the next attempt of who has all the time there is; `random` lies in 0 to 1.
    pub(super) fn wait(&mut self, random: f64) -> Duration {
        self.backoff.wait(random)
    }

    /// How long an attempt may wait for an engine that is gone, where somebody waits for the end.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.map_or(self.span, |until| until.saturating_duration_since(now))
    }

    /// The wait before the next attempt, or `None` when there is none: if what failed will not pass by itself it is tried a
    /// few times, else for ever, unless this is the last that will be heard of the log.
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

    /// How often something is tried that fails at once each time, and for how long, up to a limit.
    fn tried(mut patience: RetryBudget, is_passing: bool, is_last: bool) -> (usize, u64) {
        let start = Instant::now();
        let (mut now, mut tries) = (start, 1);
        while let Some(wait) = patience.again(is_passing, is_last, now, 1.0)
            && tries < 100
        {
            (now, tries) = (now + wait, tries + 1);
        }
        (tries, (now - start).as_millis() as u64)
    }

    #[test]
    fn what_passes_is_waited_for_as_long_as_there_is_somebody_to_tell_and_what_does_not_is_tried_a_few_times() {
        for (was_in_vain, is_passing, is_last, expected) in [
            (false, true, true, (8, 20_000)),
            (true, true, true, (4, 1000)),
            (false, false, true, (4, 1400)),
            (false, false, false, (4, 1400)),
        ] {
            let found = tried(RetryBudget::new(was_in_vain), is_passing, is_last);
            assert_eq!(found, expected, "{was_in_vain} {is_passing} {is_last}");
        }
        assert_eq!(tried(RetryBudget::new(true), true, false).0, 100, "a followed log has all the time there is");
    }

    #[test]
    fn patience_begins_anew_with_whatever_comes() {
        let start = Instant::now();
        let mut patience = RetryBudget::new(true);
        assert_eq!(patience.left(start), BRIEF);
        patience.again(true, true, start, 1.0);
        assert_eq!(patience.left(start + BRIEF), Duration::ZERO);
        patience.reset();
        assert_eq!((patience.left(start + BRIEF), patience.attempts()), (SPAN, 0));
        assert!(patience.again(true, true, start + BRIEF, 1.0).is_some());
    }
}

//! How many calls a second: a token bucket, and the line before it.
//!
//! In: moments. Out: whether a call may go, or when. Called by [`super`] before each attempt of a unary call.
//! [`Bucket`] reads no clock. It counts time, not tokens: a moment up to which the allowance is used up (GCRA, ITU-T
//! I.371), so nothing has to be refilled. [`Limiter`] lets callers wait in order. The libraries for it leave the order of
//! waiters to chance, and one that gave up would keep its token.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::config::RateLimit;

/// By so much a timer may be late without the rate suffering: tokio's counts in milliseconds, rounded up.
const GRAIN: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Between two calls in the long run.
    every: Duration,
    /// By so much calls may be ahead of that.
    ahead: Duration,
    /// When the next call would be due in the long run.
    due: Option<Instant>,
}

impl Bucket {
    /// Full.
    pub(super) fn new(settings: &RateLimit) -> Bucket {
        let every = Duration::from_secs(1) / settings.requests_per_second.max(1);
        Bucket { every, ahead: every * settings.burst_size.saturating_sub(1), due: None }
    }

    /// Takes a token, or tells when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let due = self.due.map_or(now, |due| now.checked_sub(GRAIN).map_or(due, |then| due.max(then)));
        if due > now + self.ahead {
            return Err(due - self.ahead);
        }
        self.due = Some(due + self.every);
        Ok(())
    }
}

/// See the module.
pub(super) struct Limiter {
    bucket: Option<Mutex<Bucket>>,
}

impl Limiter {
    pub(super) fn new(settings: &RateLimit) -> Limiter {
        Limiter { bucket: settings.enabled.then(|| Mutex::new(Bucket::new(settings))) }
    }

    /// Returns when a call may go. Whoever stops waiting takes nothing.
    pub(super) async fn pass(&self) {
        let Some(bucket) = &self.bucket else { return };
        // Held while waiting: this lock serves in order, and the next in line could not go earlier.
        let mut bucket = bucket.lock().await;
        while let Err(then) = bucket.take(Instant::now()) {
            sleep_until(then).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(requests_per_second: u32, burst_size: u32) -> Bucket {
        Bucket::new(&RateLimit { enabled: true, requests_per_second, burst_size })
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = bucket(10, 3);
        for (millis, expected) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(100)),
            (99, Err(100)),
            (100, Ok(())),
            (100, Err(200)),
            (250, Ok(())),
            (250, Err(300)),
            // A rest fills it up, and no further.
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Err(10_098)),
        ] {
            assert_eq!(bucket.take(at(millis)), expected.map_err(at), "{millis} ms");
        }
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept_to_the_call() {
        for (rate, burst) in [(1, 1), (7, 3), (100, 200), (1000, 1), (100_000, 10)] {
            let start = Instant::now();
            let (mut now, mut bucket, mut calls) = (start, bucket(rate, burst), 0_u32);
            let end = start + Duration::from_secs(10);
            while now < end {
                match bucket.take(now) {
                    Ok(()) => calls += 1,
                    Err(then) => now = then,
                }
            }
            let most = 10 * rate + burst;
            // A span of whole nanoseconds may be a little short.
            assert!(calls.abs_diff(most) <= 1 + most / 10_000, "{calls} calls at {rate}/s and {burst} at once");
        }
    }

    #[test]
    fn a_timer_that_is_late_within_its_grain_costs_nothing_of_the_rate() {
        for (rate, burst) in [(1, 1), (50, 1), (150, 1), (300, 2)] {
            let start = Instant::now();
            let (mut now, mut bucket, mut calls) = (start, bucket(rate, burst), 0_u32);
            while now < start + Duration::from_secs(10) {
                match bucket.take(now) {
                    Ok(()) => calls += 1,
                    Err(then) => now = then + Duration::from_micros(1900),
                }
            }
            assert!(calls.abs_diff(10 * rate + burst) <= 1, "{calls} calls at {rate}/s and {burst} at once");
        }
    }

    #[tokio::test]
    async fn those_who_wait_go_in_order_and_whoever_gives_up_takes_nothing() {
        let limiter = Limiter::new(&RateLimit { enabled: true, requests_per_second: 20, burst_size: 1 });
        let start = Instant::now();
        limiter.pass().await;
        let gone = std::sync::Mutex::new(Vec::new());
        let call = async |name, patience| {
            let passed = tokio::time::timeout(Duration::from_millis(patience), limiter.pass()).await.is_ok();
            gone.lock().unwrap().push((name, passed));
        };
        tokio::join!(call("a", 30_000), call("b", 10), call("c", 30_000), call("d", 30_000));
        let passed = start.elapsed();
        assert_eq!(*gone.lock().unwrap(), [("b", false), ("a", true), ("c", true), ("d", true)]);
        // A token for each of the three, and none for the one who gave up: the next is due 50 ms after the last.
        assert!(passed >= Duration::from_millis(150), "{passed:?}");
        let due = limiter.bucket.as_ref().unwrap().lock().await.due.unwrap();
        assert!(due <= start + passed + Duration::from_millis(50), "{:?}", due - start);
    }

    #[tokio::test]
    async fn turned_off_nothing_waits() {
        let limiter = Limiter::new(&RateLimit { enabled: false, requests_per_second: 1, burst_size: 1 });
        let passed = async {
            for _ in 0..1000 {
                limiter.pass().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), passed).await.unwrap();
    }
}

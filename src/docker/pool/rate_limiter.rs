//! Limits the number of calls per second with a token bucket.
//!
//! In: the current time. Out: whether a call may start, or when. Called by [`super::Pool`] before each attempt of a
//! call.
//!
//! [`Bucket`] reads no clock. It stores no tokens but the time up to which the allowance is used (GCRA, ITU-T I.371),
//! so nothing has to be refilled. [`Limiter`] makes callers wait in order. Libraries for this leave the order of
//! waiters to chance, and in them a caller that stops waiting has used up its token.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::config::RateLimit;

/// How late a timer may fire without lowering the rate: tokio's timers have a resolution of milliseconds, rounded up.
const TIMER_TOLERANCE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Bucket {
    /// Average time between two calls.
    every: Duration,
    /// How early a call may start compared to `due`: the burst.
    ahead: Duration,
    /// When the next call is due at the average rate; `None` before the first call.
    due: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(settings: &RateLimit) -> Bucket {
        let every = Duration::from_secs(1) / settings.requests_per_second.max(1);
        Bucket { every, ahead: every * settings.burst_size.saturating_sub(1), due: None }
    }

    /// Takes a token, or returns when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let due = self.due.map_or(now, |due| now.checked_sub(TIMER_TOLERANCE).map_or(due, |then| due.max(then)));
        if due > now + self.ahead {
            return Err(due - self.ahead);
        }
        self.due = Some(due + self.every);
        Ok(())
    }
}

/// Makes callers wait for the bucket, in order.
pub(super) struct Limiter {
    /// `None` if the limit is disabled.
    bucket: Option<Mutex<Bucket>>,
}

impl Limiter {
    pub(super) fn new(settings: &RateLimit) -> Limiter {
        Limiter { bucket: settings.enabled.then(|| Mutex::new(Bucket::new(settings))) }
    }

    /// Waits until a call may start. A caller that stops waiting takes no token.
    pub(super) async fn pass(&self) {
        let Some(bucket) = &self.bucket else { return };
        // The lock is held while waiting: it is fair, and the next caller could not start earlier.
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
    fn a_burst_starts_at_once_and_then_calls_follow_the_rate() {
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
            // A pause fills the bucket, and not more than that.
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Err(10_098)),
        ] {
            assert_eq!(bucket.take(at(millis)), expected.map_err(at), "{millis} ms");
        }
    }

    #[test]
    fn the_average_rate_is_exact_to_the_call() {
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
            // `every` is rounded down to whole nanoseconds.
            assert!(calls.abs_diff(most) <= 1 + most / 10_000, "{calls} calls at {rate}/s and {burst} at once");
        }
    }

    #[test]
    fn late_timers_do_not_lower_the_rate() {
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
    async fn callers_pass_in_order_and_giving_up_takes_no_token() {
        let limiter = Limiter::new(&RateLimit { enabled: true, requests_per_second: 20, burst_size: 1 });
        let start = Instant::now();
        limiter.pass().await;
        let finished = std::sync::Mutex::new(Vec::new());
        let call = async |name, limit| {
            let passed = tokio::time::timeout(Duration::from_millis(limit), limiter.pass()).await.is_ok();
            finished.lock().unwrap().push((name, passed));
        };
        tokio::join!(call("a", 30_000), call("b", 10), call("c", 30_000), call("d", 30_000));
        let passed = start.elapsed();
        assert_eq!(*finished.lock().unwrap(), [("b", false), ("a", true), ("c", true), ("d", true)]);
        // Three tokens for those who passed, and none for the one who gave up: the next is due 50 ms after the last.
        assert!(passed >= Duration::from_millis(150), "{passed:?}");
        let due = limiter.bucket.as_ref().unwrap().lock().await.due.unwrap();
        assert!(due <= start + passed + Duration::from_millis(50), "{:?}", due - start);
    }

    #[tokio::test]
    async fn a_disabled_limit_never_waits() {
        let limiter = Limiter::new(&RateLimit { enabled: false, requests_per_second: 1, burst_size: 1 });
        let passed = async {
            for _ in 0..1000 {
                limiter.pass().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), passed).await.unwrap();
    }
}

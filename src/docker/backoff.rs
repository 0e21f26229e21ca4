//! How long to wait before a retry: exponential, capped, with full jitter.
//!
//! In: a random number per wait. Out: the wait. Called by everything that reconnects or repeats a call. Reads no clock
//! and does not sleep, so its tests are tables.
//!
//! With full jitter, a wait is drawn evenly from zero to the current ceiling. That spreads many clients of a returning
//! daemon best (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

/// How the waits grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Ceiling of the first wait.
    pub initial: Duration,
    /// Ceiling that no wait exceeds.
    pub max: Duration,
    /// Factor from one ceiling to the next. Below 1, or not a number, counts as 1.
    pub multiplier: f64,
    /// Wait for a random part of the ceiling instead of all of it.
    pub jitter: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { initial: Duration::from_millis(100), max: Duration::from_secs(30), multiplier: 2.0, jitter: true }
    }
}

/// The waits between consecutive failures.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    settings: Settings,
    /// Upper limit of the next wait, at most `settings.max`.
    ceiling: Duration,
    /// Waits since the last success.
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(settings: Settings) -> Self {
        Backoff { settings, ceiling: settings.initial.min(settings.max), attempts: 0 }
    }

    /// The next wait. `random` is clamped to the range from 0 to 1, in which `fastrand::f64()` returns it.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        let part = if random.is_nan() || !self.settings.jitter { 1.0 } else { random.clamp(0.0, 1.0) };
        let wait = self.ceiling.mul_f64(part);
        self.attempts = self.attempts.saturating_add(1);
        // `f64::max` ignores a NaN. If the product does not fit a `Duration`, the cap replaces it.
        let grown = self.ceiling.as_secs_f64() * self.settings.multiplier.max(1.0);
        self.ceiling = Duration::try_from_secs_f64(grown).unwrap_or(self.settings.max).min(self.settings.max);
        wait
    }

    /// How many waits were returned since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// To be called after a success: the next wait is a first one again.
    pub(crate) fn reset(&mut self) {
        *self = Backoff::new(self.settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(initial: u64, max: u64, multiplier: f64) -> Settings {
        Settings { initial: Duration::from_millis(initial), max: Duration::from_millis(max), multiplier, jitter: true }
    }

    #[test]
    fn without_jitter_every_wait_is_its_ceiling() {
        let mut backoff = Backoff::new(Settings { jitter: false, ..settings(100, 1000, 2.0) });
        let got = [0.0, 0.5, 1.0, f64::NAN, 0.3].map(|random| backoff.wait(random).as_millis());
        assert_eq!(got, [100, 200, 400, 800, 1000]);
    }

    #[test]
    fn waits_grow_to_the_cap_and_are_random_parts() {
        let infinite = f64::INFINITY;
        for (initial, max, multiplier, random, waits) in [
            (100, 1000, 2.0, 1.0, [100, 200, 400, 800, 1000, 1000]),
            (100, 1000, 2.0, 0.5, [50, 100, 200, 400, 500, 500]),
            (100, 1000, 2.0, 0.0, [0; 6]),
            (100, 1000, 1.0, 1.0, [100, 100, 100, 100, 100, 100]),
            (100, 10_000, 3.0, 1.0, [100, 300, 900, 2700, 8100, 10_000]),
            // Invalid settings still lead to waits, and never to longer ones than the cap.
            (100, 1000, 0.1, 1.0, [100, 100, 100, 100, 100, 100]),
            (100, 1000, f64::NAN, 1.0, [100, 100, 100, 100, 100, 100]),
            (100, 1000, infinite, 1.0, [100, 1000, 1000, 1000, 1000, 1000]),
            (5000, 1000, 2.0, 1.0, [1000, 1000, 1000, 1000, 1000, 1000]),
            (100, 1000, 2.0, 7.0, [100, 200, 400, 800, 1000, 1000]),
            (100, 1000, 2.0, -7.0, [0; 6]),
            (100, 1000, 2.0, f64::NAN, [100, 200, 400, 800, 1000, 1000]),
        ] {
            let mut backoff = Backoff::new(settings(initial, max, multiplier));
            let got = waits.map(|_| backoff.wait(random).as_millis());
            assert_eq!(got, waits, "{initial} {max} {multiplier} {random}");
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(settings(100, 1000, 2.0));
        backoff.wait(1.0);
        backoff.wait(1.0);
        assert_eq!(backoff.attempts(), 2);
        backoff.reset();
        assert_eq!((backoff.attempts(), backoff.wait(1.0)), (0, Duration::from_millis(100)));
    }
}

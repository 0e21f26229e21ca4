//! What checks say of a client.
//!
//! In: moments, and the results of checks. Out: a score, whether the client is healthy, and when to check it next. Owned by
//! [`super::roster`], one for each client; [`super::checks`] makes the checks. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// Each check and its weight in tenths. The listing weighs most: an engine may answer a ping while nothing behind it does
/// its work. Events weigh as much as the ping: without them a watch goes on by listings.
pub(super) const WEIGHTS: [(&str, u32); 3] = [("ping", 3), ("container_list", 4), ("event_stream", 3)];

/// From this score on a check of a client has passed: the listing worked, and one of the other two.
pub const HEALTHY: f64 = 0.7;

/// One check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// `ping`, `container_list`, `event_stream`.
    pub name: &'static str,
    /// Whether it was answered as it should.
    pub ok: bool,
    /// From asking to the end of the answer, or until it was given up.
    pub latency: Duration,
    /// What went wrong, with its cause.
    pub error: Option<String>,
}

/// What the checks add up to: 0.0 all failed, 1.0 none.
pub(super) fn score(checks: &[Check]) -> f64 {
    let weight = |check: &&Check| WEIGHTS.iter().find(|(name, _)| *name == check.name).map_or(0, |(_, weight)| *weight);
    let tenths: u32 = checks.iter().filter(|check| check.ok).map(|check| weight(&check)).sum();
    f64::from(tenths) / 10.0
}

/// What follows from a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what it was.
    Same,
    /// It is unhealthy from now on.
    Fell,
    /// It is healthy again.
    Recovered,
    /// It stays unhealthy: it is to be closed and made anew.
    Renew,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Health {
    is_healthy: bool,
    /// Failed checks in a row.
    failed: u32,
    /// It was made anew and not looked at since.
    is_fresh: bool,
    /// Of the last check; 1.0 before the first.
    pub(super) score: f64,
    /// The last ones.
    pub(super) checks: Vec<Check>,
    due: Option<Instant>,
}

impl Health {
    /// Healthy until the contrary is known.
    pub(super) fn new(now: Instant, settings: &config::PoolConfig) -> Health {
        Health {
            is_healthy: true,
            failed: 0,
            is_fresh: false,
            score: 1.0,
            checks: Vec::new(),
            due: after(now, settings.health_check_interval),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    /// When to check it next; `None` is never.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was checked. `is_decisive`: whoever asked wants to know now, so that one check is enough to be unhealthy.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        checks: Vec<Check>,
        is_decisive: bool,
        settings: &config::PoolConfig,
    ) -> Verdict {
        let threshold = settings.unhealthy_threshold.max(1);
        (self.score, self.checks) = (score(&checks), checks);
        let was_healthy = self.is_healthy;
        let was_fresh = std::mem::take(&mut self.is_fresh);
        let verdict = if self.score >= HEALTHY {
            self.failed = 0;
            self.is_healthy = true;
            if was_healthy { Verdict::Same } else { Verdict::Recovered }
        } else {
            self.failed += 1;
            match (was_healthy, self.failed >= threshold) {
                (true, false) if !is_decisive => Verdict::Same,
                (true, _) => {
                    (self.is_healthy, self.failed) = (false, 0);
                    Verdict::Fell
                }
                // With a connection that is new already, another would be no help.
                (false, true) if !was_fresh => {
                    (self.failed, self.is_fresh) = (0, true);
                    Verdict::Renew
                }
                (false, _) => Verdict::Same,
            }
        };
        let interval = settings.health_check_interval;
        self.due = match verdict {
            // Perhaps all it needed was another connection.
            Verdict::Renew if !interval.is_zero() => Some(now),
            _ if self.is_healthy || interval.is_zero() => after(now, interval),
            _ => after(now, settings.recovery_check_interval),
        };
        verdict
    }
}

fn after(now: Instant, interval: Duration) -> Option<Instant> {
    (!interval.is_zero()).then(|| now + interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(passed: &str) -> Vec<Check> {
        let check = |(letter, (name, _)): (char, &(&'static str, u32))| Check {
            name,
            ok: passed.contains(letter),
            latency: Duration::ZERO,
            error: None,
        };
        "ple".chars().zip(&WEIGHTS).map(check).collect()
    }

    #[test]
    fn the_score_is_the_sum_of_the_weights_and_a_listing_is_needed() {
        for (passed, expected, is_enough) in [
            ("ple", 1.0, true),
            ("pl", 0.7, true),
            ("le", 0.7, true),
            ("pe", 0.6, false),
            ("l", 0.4, false),
            ("p", 0.3, false),
            ("", 0.0, false),
        ] {
            let score = score(&checks(passed));
            assert_eq!((score, score >= HEALTHY), (expected, is_enough), "{passed}");
        }
    }

    #[test]
    fn a_client_falls_after_failed_checks_in_a_row_and_comes_back_with_one_that_passes() {
        use Verdict::{Fell, Recovered, Renew, Same};
        let settings = config::PoolConfig::default();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut health = Health::new(start, &settings);
        assert_eq!(health.due(), Some(at(30)));
        for (second, passed, verdict, is_healthy, due) in [
            (30, "ple", Same, true, 60),
            (60, "p", Same, true, 90),
            (90, "", Same, true, 120),
            (120, "pl", Same, true, 150),
            (150, "", Same, true, 180),
            (180, "", Same, true, 210),
            (210, "pe", Fell, false, 270),
            (270, "", Same, false, 330),
            (330, "", Same, false, 390),
            (390, "", Renew, false, 390),
            (390, "", Same, false, 450),
            (450, "le", Recovered, true, 480),
            (480, "", Same, true, 510),
        ] {
            assert_eq!(health.judge(at(second), checks(passed), false, &settings), verdict, "{second} s");
            assert_eq!((health.is_healthy(), health.due()), (is_healthy, Some(at(due))), "{second} s");
        }
    }

    #[test]
    fn one_that_is_made_anew_after_each_failed_check_is_looked_at_at_once_only_once_each_time() {
        use Verdict::{Fell, Recovered, Renew, Same};
        let settings = config::PoolConfig { unhealthy_threshold: 1, ..config::PoolConfig::default() };
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut health = Health::new(start, &settings);
        for (second, passed, verdict, due) in [
            (30, "p", Fell, 90),
            (90, "p", Renew, 90),
            (90, "p", Same, 150),
            (150, "p", Renew, 150),
            (150, "", Same, 210),
            (210, "p", Renew, 210),
            (210, "pl", Recovered, 240),
            (240, "p", Fell, 300),
            (300, "p", Renew, 300),
        ] {
            assert_eq!(health.judge(at(second), checks(passed), false, &settings), verdict, "{second} s");
            assert_eq!(health.due(), Some(at(due)), "{second} s");
        }
    }

    #[test]
    fn whoever_asks_now_is_told_by_one_check() {
        let settings = config::PoolConfig { health_check_interval: Duration::ZERO, ..config::PoolConfig::default() };
        let now = Instant::now();
        let mut health = Health::new(now, &settings);
        assert_eq!(health.judge(now, checks("p"), true, &settings), Verdict::Fell);
        assert_eq!((health.is_healthy(), health.score, health.due()), (false, 0.3, None));
        assert_eq!(health.judge(now, checks("ple"), true, &settings), Verdict::Recovered);
        assert_eq!((health.is_healthy(), health.due()), (true, None));
    }
}

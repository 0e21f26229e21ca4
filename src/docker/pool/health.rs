//! The health of a client, derived from its checks.
//!
//! In: the current time and the results of checks. Out: a score, whether the client is healthy, and when to check it
//! next. Owned by [`super::slots`], one per client; [`super::checks`] runs the checks. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// Each check and its weight in tenths. The listing has the largest weight: a daemon may answer a ping while nothing
/// else works. Events have the same weight as the ping: without them `watch` can continue with listings.
pub(super) const WEIGHTS: [(&str, u32); 3] = [("ping", 3), ("container_list", 4), ("event_stream", 3)];

/// The lowest score with which the checks count as passed: the listing and one of the other two succeeded.
pub const HEALTHY: f64 = 0.7;

/// The result of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// One of `ping`, `container_list` and `event_stream`.
    pub name: &'static str,
    pub ok: bool,
    /// Time from the request to the end of the response, or to the failure.
    pub latency: Duration,
    /// The error with its causes, if the check failed.
    pub error: Option<String>,
}

/// The weighted share of checks that succeeded, from 0.0 to 1.0.
pub(super) fn score(checks: &[Check]) -> f64 {
    let weight = |check: &&Check| WEIGHTS.iter().find(|(name, _)| *name == check.name).map_or(0, |(_, weight)| *weight);
    let tenths: u32 = checks.iter().filter(|check| check.ok).map(|check| weight(&check)).sum();
    f64::from(tenths) / 10.0
}

/// What follows for a client from its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckVerdict {
    Same,
    /// The client has become unhealthy.
    Fell,
    /// The client is healthy again.
    Recovered,
    /// The client stays unhealthy: its connection is to be replaced.
    Renew,
}

/// The health of one client.
#[derive(Clone, Debug)]
pub(super) struct ClientHealth {
    is_healthy: bool,
    /// Consecutive failures since the client's state last changed.
    failed: u32,
    /// The connection was replaced and has not been checked since.
    is_fresh: bool,
    /// Result of the last checks, from 0.0 to 1.0; 1.0 before the first.
    pub(super) score: f64,
    /// The last checks; empty before the first.
    pub(super) checks: Vec<Check>,
    /// When to check next; `None` for never.
    due: Option<Instant>,
}

/// Why checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Routine,
    /// Somebody wants to know the health now, so one failed round is enough to be unhealthy.
    Decisive,
}

impl ClientHealth {
    /// A new client counts as healthy until checks show otherwise.
    pub(super) fn new(now: Instant, settings: &config::PoolConfig) -> ClientHealth {
        ClientHealth {
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

    /// When to check the client next; `None` for never.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the results of a round of checks.
    pub(super) fn record_checks(
        &mut self,
        now: Instant,
        checks: Vec<Check>,
        round: Round,
        settings: &config::PoolConfig,
    ) -> CheckVerdict {
        let threshold = settings.unhealthy_threshold.max(1);
        (self.score, self.checks) = (score(&checks), checks);
        let was_healthy = self.is_healthy;
        let was_fresh = std::mem::take(&mut self.is_fresh);
        let verdict = if self.score >= HEALTHY {
            self.failed = 0;
            self.is_healthy = true;
            if was_healthy { CheckVerdict::Same } else { CheckVerdict::Recovered }
        } else {
            self.failed += 1;
            match (was_healthy, self.failed >= threshold) {
                (true, false) if round == Round::Routine => CheckVerdict::Same,
                (true, _) => {
                    (self.is_healthy, self.failed) = (false, 0);
                    CheckVerdict::Fell
                }
                // If the connection is already new, another one would not help.
                (false, true) if !was_fresh => {
                    (self.failed, self.is_fresh) = (0, true);
                    CheckVerdict::Renew
                }
                (false, _) => CheckVerdict::Same,
            }
        };
        let interval = settings.health_check_interval;
        self.due = match verdict {
            // A new connection may be all that was needed.
            CheckVerdict::Renew if !interval.is_zero() => Some(now),
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
    fn a_healthy_score_needs_the_listing_and_another_check() {
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
    fn consecutive_failures_make_a_client_unhealthy_until_a_success() {
        use CheckVerdict::{Fell, Recovered, Renew, Same};
        let settings = config::PoolConfig::default();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut health = ClientHealth::new(start, &settings);
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
            assert_eq!(
                health.record_checks(at(second), checks(passed), Round::Routine, &settings),
                verdict,
                "{second} s"
            );
            assert_eq!((health.is_healthy(), health.due()), (is_healthy, Some(at(due))), "{second} s");
        }
    }

    #[test]
    fn a_renewed_client_is_checked_at_once_only_one_time() {
        use CheckVerdict::{Fell, Recovered, Renew, Same};
        let settings = config::PoolConfig { unhealthy_threshold: 1, ..config::PoolConfig::default() };
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut health = ClientHealth::new(start, &settings);
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
            assert_eq!(
                health.record_checks(at(second), checks(passed), Round::Routine, &settings),
                verdict,
                "{second} s"
            );
            assert_eq!(health.due(), Some(at(due)), "{second} s");
        }
    }

    #[test]
    fn one_decisive_check_is_enough() {
        let settings = config::PoolConfig { health_check_interval: Duration::ZERO, ..config::PoolConfig::default() };
        let now = Instant::now();
        let mut health = ClientHealth::new(now, &settings);
        assert_eq!(health.record_checks(now, checks("p"), Round::Decisive, &settings), CheckVerdict::Fell);
        assert_eq!((health.is_healthy(), health.score, health.due()), (false, 0.3, None));
        assert_eq!(health.record_checks(now, checks("ple"), Round::Decisive, &settings), CheckVerdict::Recovered);
        assert_eq!((health.is_healthy(), health.due()), (true, None));
    }
}

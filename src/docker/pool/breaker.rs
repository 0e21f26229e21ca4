//! A circuit breaker, which keeps calls away from a client that fails.
//!
//! In: the current time and the outcomes of calls. Out: whether the next call may pass. Owned by [`super::slots`], one
//! per client. Reads no clock, so its tests are tables.
//!
//! ```text
//! closed     => open       after `failure_threshold` consecutive failures
//! open       => half open  after `timeout`; if missing responses opened it, also when the daemon answers a ping
//! half open  => closed     after `success_threshold` consecutive successes
//! half open  => open       after one failure
//! ```

use tokio::time::Instant;

use crate::config::CircuitBreaker;

use crate::docker::Error;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// A few trial calls pass; [`super::slots`] limits how many.
    HalfOpen,
}

impl BreakerState {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// What a call showed about the connection and the daemon behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    /// A response came. It may be an error such as 404.
    Answered,
    /// The daemon responded that it failed, such as with 500.
    Failed,
    /// The connection failed before any response.
    Lost,
    /// Nothing: the caller gave up, or the failure was on our side.
    Unknown,
}

impl CallOutcome {
    /// Classifies a result. A 500 is a failure of the daemon; a 501 is a regular response.
    pub(super) fn of<T>(answer: &Result<T, Error>) -> CallOutcome {
        match answer {
            Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. } | Error::NoLogs { .. }) => {
                CallOutcome::Answered
            }
            Err(Error::Unreachable { .. } | Error::Broken { .. } | Error::Timeout { .. }) => CallOutcome::Lost,
            Err(Error::Status { code, .. } | Error::Gateway { code, .. }) if *code >= 500 && *code != 501 => {
                CallOutcome::Failed
            }
            Err(Error::Status { .. } | Error::Gateway { .. } | Error::Refused { .. }) => CallOutcome::Answered,
            Err(_) => CallOutcome::Unknown,
        }
    }
}

/// The circuit breaker of one client.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    settings: CircuitBreaker,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// `failures` are consecutive, and below the threshold.
    Closed { failures: u32 },
    /// Half open from `until` on, even if no call has come since. `by_lost_calls`: the failure that opened it was a
    /// missing response.
    Open { until: Instant, by_lost_calls: bool },
    /// `successes` are consecutive, and below the threshold.
    HalfOpen { successes: u32 },
}

const HALF_OPEN: At = At::HalfOpen { successes: 0 };

impl Breaker {
    pub(super) fn new(settings: CircuitBreaker) -> Breaker {
        Breaker { settings, at: At::Closed { failures: 0 } }
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.at {
            At::Closed { .. } => BreakerState::Closed,
            At::Open { until, .. } if now < until => BreakerState::Open,
            At::Open { .. } | At::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When an open breaker becomes half open by itself; `None` if it is not open. May be in the past.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.at {
            At::Open { until, .. } => Some(until),
            At::Closed { .. } | At::HalfOpen { .. } => None,
        }
    }

    /// Whether it is open because responses are missing, and not because a daemon responds with failures.
    pub(super) fn opened_by_lost_calls(&self) -> bool {
        matches!(self.at, At::Open { by_lost_calls: true, .. })
    }

    /// Whether a call may pass.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.state(now) != BreakerState::Open
    }

    /// Lets a call pass. Only allowed if [`Breaker::admits`] does.
    pub(super) fn admit(&mut self, now: Instant) {
        if self.open_until().is_some_and(|until| until <= now) {
            self.at = HALF_OPEN;
        }
    }

    /// Takes the outcome of a call that has passed. Ignored while open: the call passed before, so it shows nothing
    /// new.
    pub(super) fn settle(&mut self, now: Instant, outcome: CallOutcome) {
        match &mut self.at {
            At::Open { .. } => {}
            At::Closed { failures } => match outcome {
                CallOutcome::Answered => *failures = 0,
                CallOutcome::Unknown => {}
                CallOutcome::Failed | CallOutcome::Lost => {
                    *failures += 1;
                    if self.settings.enabled && *failures >= self.settings.failure_threshold.max(1) {
                        self.open(now, outcome);
                    }
                }
            },
            At::HalfOpen { successes } => match outcome {
                CallOutcome::Answered => {
                    *successes += 1;
                    if *successes >= self.settings.success_threshold {
                        self.at = At::Closed { failures: 0 };
                    }
                }
                CallOutcome::Unknown => {}
                CallOutcome::Failed | CallOutcome::Lost => self.open(now, outcome),
            },
        }
    }

    /// The daemon answered a ping. That shows nothing new if it responded before, but with failures.
    pub(super) fn ping_answered(&mut self) {
        if self.opened_by_lost_calls() {
            self.at = HALF_OPEN;
        }
    }

    /// The client passed its health checks, so that the daemon is known to work.
    pub(super) fn checks_passed(&mut self) {
        if self.open_until().is_some() {
            self.at = HALF_OPEN;
        }
    }

    fn open(&mut self, now: Instant, outcome: CallOutcome) {
        self.at = At::Open { until: now + self.settings.timeout, by_lost_calls: outcome == CallOutcome::Lost };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::ApiOperation;
    use std::time::Duration;

    /// Runs steps of (second, what happens, state after it).
    fn play(settings: &CircuitBreaker, steps: &[(u64, &str, &str)]) {
        let start = Instant::now();
        let mut breaker = Breaker::new(settings.clone());
        for (number, (second, what, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_secs(*second);
            match *what {
                "pass" => {
                    assert!(breaker.admits(now), "step {number}");
                    breaker.admit(now);
                }
                "refused" => assert!(!breaker.admits(now), "step {number}"),
                "answered" => breaker.settle(now, CallOutcome::Answered),
                "failed" => breaker.settle(now, CallOutcome::Failed),
                "given up" => breaker.settle(now, CallOutcome::Unknown),
                "lost" => breaker.settle(now, CallOutcome::Lost),
                "ping answered" => breaker.ping_answered(),
                "checks passed" => breaker.checks_passed(),
                "wait" => {}
                other => panic!("{other}"),
            }
            assert_eq!(breaker.state(now).name(), *expected, "step {number}: {what} at {second} s");
        }
    }

    fn settings() -> CircuitBreaker {
        CircuitBreaker { failure_threshold: 3, success_threshold: 2, ..Default::default() }
    }

    #[test]
    fn consecutive_failures_open_it_and_successes_close_it() {
        play(
            &settings(),
            &[
                (0, "pass", "closed"),
                (0, "failed", "closed"),
                (1, "failed", "closed"),
                (2, "answered", "closed"),
                (3, "failed", "closed"),
                (3, "failed", "closed"),
                (4, "given up", "closed"),
                (5, "failed", "open"),
                (5, "refused", "open"),
                (64, "refused", "open"),
                (65, "wait", "half_open"),
                (65, "pass", "half_open"),
                (66, "answered", "half_open"),
                (67, "pass", "half_open"),
                (67, "given up", "half_open"),
                (68, "pass", "half_open"),
                (68, "answered", "closed"),
                (68, "failed", "closed"),
                (68, "failed", "closed"),
                (68, "failed", "open"),
            ],
        );
    }

    #[test]
    fn one_failure_while_half_open_opens_it_again() {
        play(
            &settings(),
            &[
                (0, "failed", "closed"),
                (0, "failed", "closed"),
                (0, "failed", "open"),
                (60, "pass", "half_open"),
                (61, "answered", "half_open"),
                (61, "pass", "half_open"),
                (62, "failed", "open"),
                (121, "refused", "open"),
                (122, "pass", "half_open"),
                (122, "answered", "half_open"),
                (122, "pass", "half_open"),
                (122, "answered", "closed"),
            ],
        );
    }

    #[test]
    fn a_ping_does_not_end_the_timeout_after_daemon_failures() {
        play(
            &settings(),
            &[
                (0, "lost", "closed"),
                (0, "lost", "closed"),
                (0, "failed", "open"),
                (1, "ping answered", "open"),
                (59, "refused", "open"),
                (60, "pass", "half_open"),
                (60, "failed", "open"),
                (61, "ping answered", "open"),
                (62, "checks passed", "half_open"),
                (62, "pass", "half_open"),
                (62, "lost", "open"),
                (63, "ping answered", "half_open"),
            ],
        );
    }

    #[test]
    fn a_ping_ends_the_timeout_after_lost_calls() {
        play(
            &settings(),
            &[
                (0, "ping answered", "closed"),
                (0, "failed", "closed"),
                (0, "failed", "closed"),
                (0, "lost", "open"),
                (0, "failed", "open"),
                (0, "answered", "open"),
                (1, "ping answered", "half_open"),
                (1, "pass", "half_open"),
                (1, "ping answered", "half_open"),
                (1, "answered", "half_open"),
                (1, "pass", "half_open"),
                (1, "answered", "closed"),
            ],
        );
    }

    #[test]
    fn a_disabled_breaker_stays_closed() {
        let steps = [(0, "failed", "closed"); 20];
        play(&CircuitBreaker { enabled: false, ..settings() }, &steps);
    }

    #[test]
    fn outcomes_follow_from_errors() {
        let endpoint = || "unix:///s".to_owned();
        let status = |code| Error::Status { code, message: String::new() };
        for (error, expected) in [
            (Error::NotFound { message: String::new() }, CallOutcome::Answered),
            (Error::Conflict { message: String::new() }, CallOutcome::Answered),
            (Error::NoLogs { id: String::new(), message: String::new() }, CallOutcome::Answered),
            (status(400), CallOutcome::Answered),
            (status(429), CallOutcome::Answered),
            (status(501), CallOutcome::Answered),
            (status(500), CallOutcome::Failed),
            (status(503), CallOutcome::Failed),
            (Error::Unreachable { endpoint: endpoint(), source: "refused".into() }, CallOutcome::Lost),
            (Error::Broken { endpoint: endpoint(), source: "reset".into() }, CallOutcome::Lost),
            (Error::Timeout { endpoint: endpoint(), after: Duration::ZERO }, CallOutcome::Lost),
            (Error::Protocol { operation: ApiOperation::Info, source: "no JSON".into() }, CallOutcome::Unknown),
            (Error::Forbidden { endpoint: endpoint(), source: "denied".into() }, CallOutcome::Unknown),
        ] {
            let message = error.to_string();
            assert_eq!(CallOutcome::of::<()>(&Err(error)), expected, "{message}");
        }
        assert_eq!(CallOutcome::of(&Ok(())), CallOutcome::Answered);
    }
}

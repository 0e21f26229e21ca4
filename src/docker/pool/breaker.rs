//! When a client is left alone: a circuit breaker.
//!
//! In: moments, and how calls went. Out: whether the next call may pass. Owned by [`super::roster`], one for each client.
//! Reads no clock, so tests are tables.
//!
//! ```text
//! closed     => open       so many failures in a row
//! open       => half open  after its time; where no answer opened it, also when a probe of the engine was answered
//! half open  => closed     so many successes in a row
//! half open  => open       one failure
//! ```

use tokio::time::Instant;

use crate::config::CircuitBreaker;

use crate::docker::Error;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// None passes.
    Open,
    /// A few pass, to see: how many, the roster knows.
    HalfOpen,
}

impl State {
    /// As reports write it.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }
}

/// How a call went, as far as the connection and the engine behind it are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered; that may have been a refusal, such as 404.
    Answered,
    /// The engine says that it is unwell.
    Failed,
    /// It was not.
    Lost,
    /// Neither can be said: it was given up by whoever made it, or the trouble is ours.
    Unknown,
}

impl Outcome {
    /// What an error says of the connection. A 500 is the engine's trouble, a 501 is its plain answer.
    pub(super) fn of<T>(answer: &Result<T, Error>) -> Outcome {
        match answer {
            Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. } | Error::NoLogs { .. }) => Outcome::Answered,
            Err(Error::Unreachable { .. } | Error::Broken { .. } | Error::Timeout { .. }) => Outcome::Lost,
            Err(Error::Status { code, .. } | Error::Gateway { code, .. }) if *code >= 500 && *code != 501 => {
                Outcome::Failed
            }
            Err(Error::Status { .. } | Error::Gateway { .. } | Error::Refused { .. }) => Outcome::Answered,
            Err(_) => Outcome::Unknown,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    settings: CircuitBreaker,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Closed {
        failures: u32,
    },
    /// `is_lost`: calls were not answered at all.
    Open {
        until: Instant,
        is_lost: bool,
    },
    HalfOpen {
        successes: u32,
    },
}

const HALF_OPEN: At = At::HalfOpen { successes: 0 };

impl Breaker {
    pub(super) fn new(settings: CircuitBreaker) -> Breaker {
        Breaker { settings, at: At::Closed { failures: 0 } }
    }

    pub(super) fn state(&self, now: Instant) -> State {
        match self.at {
            At::Closed { .. } => State::Closed,
            At::Open { until, .. } if now < until => State::Open,
            At::Open { .. } | At::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// When it lets calls pass again by itself, while it lets none pass.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.at {
            At::Open { until, .. } => Some(until),
            At::Closed { .. } | At::HalfOpen { .. } => None,
        }
    }

    /// Whether it opened because calls were not answered; the opposite is an engine that answers and is unwell.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.at, At::Open { is_lost: true, .. })
    }

    /// Whether a call may pass.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.state(now) != State::Open
    }

    /// A call passes that [`Breaker::admits`] lets.
    pub(super) fn admit(&mut self, now: Instant) {
        if self.open_until().is_some_and(|until| until <= now) {
            self.at = HALF_OPEN;
        }
    }

    /// A call that had passed is over. One that passed before it opened says nothing new.
    pub(super) fn settle(&mut self, now: Instant, outcome: Outcome) {
        match &mut self.at {
            At::Open { .. } => {}
            At::Closed { failures } => match outcome {
                Outcome::Answered => *failures = 0,
                Outcome::Unknown => {}
                Outcome::Failed | Outcome::Lost => {
                    *failures += 1;
                    if self.settings.enabled && *failures >= self.settings.failure_threshold.max(1) {
                        self.open(now, outcome);
                    }
                }
            },
            At::HalfOpen { successes } => match outcome {
                Outcome::Answered => {
                    *successes += 1;
                    if *successes >= self.settings.success_threshold {
                        self.at = At::Closed { failures: 0 };
                    }
                }
                Outcome::Unknown => {}
                Outcome::Failed | Outcome::Lost => self.open(now, outcome),
            },
        }
    }

    /// The engine was seen to answer a ping. Where it had answered before and was unwell, that shows nothing new.
    pub(super) fn seen(&mut self) {
        if self.is_lost() {
            self.at = HALF_OPEN;
        }
    }

    /// The engine was seen to do its work.
    pub(super) fn half_open(&mut self) {
        if self.open_until().is_some() {
            self.at = HALF_OPEN;
        }
    }

    fn open(&mut self, now: Instant, outcome: Outcome) {
        self.at = At::Open { until: now + self.settings.timeout, is_lost: outcome == Outcome::Lost };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What happens: a call asks to pass, is answered, fails, is lost or is given up; the engine is seen to be there or to do
    /// its work; time goes by.
    type Step = (u64, &'static str, &'static str);

    fn play(settings: &CircuitBreaker, steps: &[Step]) {
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
                "answered" => breaker.settle(now, Outcome::Answered),
                "failed" => breaker.settle(now, Outcome::Failed),
                "given up" => breaker.settle(now, Outcome::Unknown),
                "lost" => breaker.settle(now, Outcome::Lost),
                "seen" => breaker.seen(),
                "works" => breaker.half_open(),
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
    fn it_opens_after_failures_in_a_row_and_closes_after_successes_in_a_row() {
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
    fn one_failure_while_half_open_opens_it_for_its_whole_time_again() {
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
    fn an_engine_that_is_unwell_and_answers_pings_all_the_same_is_left_alone_for_the_whole_time() {
        play(
            &settings(),
            &[
                (0, "lost", "closed"),
                (0, "lost", "closed"),
                (0, "failed", "open"),
                (1, "seen", "open"),
                (59, "refused", "open"),
                (60, "pass", "half_open"),
                (60, "failed", "open"),
                (61, "seen", "open"),
                (62, "works", "half_open"),
                (62, "pass", "half_open"),
                (62, "lost", "open"),
                (63, "seen", "half_open"),
            ],
        );
    }

    #[test]
    fn an_engine_that_was_seen_is_tried_at_once() {
        play(
            &settings(),
            &[
                (0, "seen", "closed"),
                (0, "failed", "closed"),
                (0, "failed", "closed"),
                (0, "lost", "open"),
                (0, "failed", "open"),
                (0, "answered", "open"),
                (1, "seen", "half_open"),
                (1, "pass", "half_open"),
                (1, "seen", "half_open"),
                (1, "answered", "half_open"),
                (1, "pass", "half_open"),
                (1, "answered", "closed"),
            ],
        );
    }

    #[test]
    fn turned_off_it_stays_closed() {
        let steps = [(0, "failed", "closed"); 20];
        play(&CircuitBreaker { enabled: false, ..settings() }, &steps);
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_broken_connection_is_none() {
        let endpoint = || "unix:///s".to_owned();
        let status = |code| Error::Status { code, message: String::new() };
        for (error, expected) in [
            (Error::NotFound { message: String::new() }, Outcome::Answered),
            (Error::Conflict { message: String::new() }, Outcome::Answered),
            (Error::NoLogs { id: String::new(), message: String::new() }, Outcome::Answered),
            (status(400), Outcome::Answered),
            (status(429), Outcome::Answered),
            (status(501), Outcome::Answered),
            (status(500), Outcome::Failed),
            (status(503), Outcome::Failed),
            (Error::Unreachable { endpoint: endpoint(), source: "refused".into() }, Outcome::Lost),
            (Error::Broken { endpoint: endpoint(), source: "reset".into() }, Outcome::Lost),
            (Error::Timeout { endpoint: endpoint(), after: Duration::ZERO }, Outcome::Lost),
            (Error::Protocol { what: "x", source: "no JSON".into() }, Outcome::Unknown),
            (Error::Forbidden { endpoint: endpoint(), source: "denied".into() }, Outcome::Unknown),
        ] {
            let told = error.to_string();
            assert_eq!(Outcome::of::<()>(&Err(error)), expected, "{told}");
        }
        assert_eq!(Outcome::of(&Ok(())), Outcome::Answered);
    }
}

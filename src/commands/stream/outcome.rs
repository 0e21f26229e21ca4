//! Decides what follows the end of a request: when to make the next one, what to report, and when to give up.
//!
//! Pure: in goes an [`End`], the time and a random number; out comes a decision.

use super::retry::{REFUSALS, RetryBudget};
use crate::docker::Error;
use crate::model::line_id::Route;
use crate::tail;
use std::time::Duration;
use tokio::time::Instant;

/// Time for the event to arrive that explains the end of a request.
pub(super) const GRACE: Duration = Duration::from_millis(500);
/// Minimum time without errors before an error is reported again.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How a request ended.
#[derive(Debug)]
pub(super) enum End {
    /// The daemon sent everything and closed it.
    Whole,
    /// Its time is over; the next request continues.
    Due,
    /// The log has lines that the response did not contain.
    Stuck,
    /// The response does not overlap with what was delivered: more was written meanwhile than was requested.
    Apart,
    Broken(Error),
    Malformed(tail::Error),
}

impl End {
    /// Returns whether the logging driver keeps nothing that can be read, so that nothing is lost.
    pub(super) fn keeps_nothing(&self) -> bool {
        matches!(self, End::Broken(Error::NoLogs { .. }))
    }

    /// Returns whether the container was removed or is being removed, so that its log does not come back.
    pub(super) fn is_removed(&self) -> bool {
        matches!(self, End::Broken(Error::NotFound { .. } | Error::Conflict { .. }))
    }

    /// Returns whether the same request may succeed later: the daemon may come back, and it still has the rest.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, End::Broken(error) if error.is_temporary())
    }

    /// Returns whether the interval to the next request starts again. A request that has missed
    /// lines is repeated instead.
    pub(super) fn is_regular(&self) -> bool {
        !matches!(self, End::Apart | End::Stuck)
    }

    /// Returns the text of a notice; empty for ends without an error.
    pub(super) fn describe(&self) -> String {
        match self {
            End::Broken(error @ Error::NoLogs { .. }) => format!("cannot be read: {}", reason(error)),
            End::Broken(error) => error.to_string(),
            End::Malformed(error) => error.to_string(),
            End::Whole | End::Due | End::Stuck | End::Apart => String::new(),
        }
    }

    /// Returns the error of the daemon or the connection, if that was the reason.
    pub(super) fn into_error(self) -> Option<Error> {
        match self {
            End::Broken(error) => Some(error),
            _ => None,
        }
    }
}

/// The error without the ID, for notices that name the container.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::NoLogs { message, .. } => message.clone(),
        error => error.to_string(),
    }
}

/// What to report about a failed request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FailureReport {
    /// A lack of permits, which is reported once for all containers.
    NoPermit(String),
    /// A notice about this container.
    Notice(String),
}

/// The failures of one log's requests, and its retry budget.
pub(super) struct Failures {
    pub(super) retry: RetryBudget,
    /// When the last error that deserves a notice occurred.
    last: Option<Instant>,
}

impl Failures {
    pub(super) fn new(retry: RetryBudget) -> Self {
        Failures { retry, last: None }
    }

    /// Returns how long to wait before the next request. `until_due` is the rest of the interval.
    pub(super) fn pause(&mut self, end: &End, route: Route, until_due: Duration, random: f64) -> Duration {
        let until_due = if route == Route::Poll { until_due } else { Duration::ZERO };
        match end {
            End::Apart | End::Due => Duration::ZERO,
            End::Stuck => until_due,
            End::Whole if route == Route::Poll => until_due,
            // A request that ended without an error does not show why. The event that does arrives soon.
            End::Whole | End::Broken(_) | End::Malformed(_) => self.retry.wait(random).max(GRACE).max(until_due),
        }
    }

    /// Returns what to report, at most once in [`REPORT_INTERVAL`]. An unreachable daemon is not reported here: the
    /// feed reports it once for all containers.
    pub(super) fn report(&mut self, end: &End, now: Instant) -> Option<FailureReport> {
        let is_worth_reporting = match end {
            End::Broken(error @ Error::TooManyStreams { .. }) => {
                return Some(FailureReport::NoPermit(error.to_string()));
            }
            End::Malformed(_) | End::Broken(Error::Refused { .. }) => true,
            End::Broken(Error::Status { .. } | Error::Gateway { .. } | Error::Protocol { .. }) => {
                self.retry.attempts() >= REFUSALS
            }
            _ => false,
        };
        if !is_worth_reporting {
            return None;
        }
        let last = self.last.replace(now);
        let is_due = last.is_none_or(|last| now.duration_since(last) >= REPORT_INTERVAL);
        is_due.then(|| FailureReport::Notice(end.describe()))
    }
}

/// Returns the wait before the next attempt to read to the end, or `None` to give up. `once`: the task ends with this
/// end. `is_last`: nothing is read after it.
pub(super) fn retry_end(
    retry: &mut RetryBudget,
    end: &End,
    once: bool,
    is_last: bool,
    now: Instant,
    random: f64,
) -> Option<Duration> {
    let wait = retry.next_wait(end.is_temporary(), is_last, now, random);
    let is_final = end.keeps_nothing() || end.is_removed() && !once;
    wait.filter(|_| !is_final)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_logs() -> End {
        End::Broken(Error::NoLogs { id: "0123".into(), message: "no logs".into() })
    }

    fn removed() -> End {
        End::Broken(Error::NotFound { message: "no such container".into() })
    }

    fn malformed() -> End {
        End::Malformed(tail::Error::Discontinuity(tail::Discontinuity::NoOverlap))
    }

    #[test]
    fn the_next_request_waits_for_its_time_or_for_an_event() {
        let (second, zero) = (Duration::from_secs(1), Duration::ZERO);
        for (end, route, expected) in [
            (End::Apart, Route::Poll, zero),
            (End::Due, Route::Rotate, zero),
            (End::Stuck, Route::Stream, zero),
            (End::Stuck, Route::Poll, second),
            (End::Whole, Route::Poll, second),
            (End::Whole, Route::Stream, GRACE),
            (End::Whole, Route::Rotate, GRACE),
            (removed(), Route::Stream, GRACE),
            (removed(), Route::Poll, second),
            (malformed(), Route::Rotate, GRACE),
        ] {
            let mut failures = Failures::new(RetryBudget::new(false));
            assert_eq!(failures.pause(&end, route, second, 0.0), expected, "{end:?} {route:?}");
        }
    }

    #[test]
    fn failures_in_a_row_are_waited_for_longer() {
        let mut failures = Failures::new(RetryBudget::new(false));
        let mut pause = || failures.pause(&removed(), Route::Stream, Duration::ZERO, 1.0);
        let pauses: Vec<_> = (0..5).map(|_| pause().as_millis()).collect();
        assert!(pauses.is_sorted() && pauses[4] > pauses[0], "{pauses:?}");
    }

    #[test]
    fn an_error_is_reported_once_a_minute() {
        let start = Instant::now();
        let mut failures = Failures::new(RetryBudget::new(false));
        let mut reported = Vec::new();
        for seconds in [0, 59, 118, 177, 237] {
            let report = failures.report(&malformed(), start + Duration::from_secs(seconds));
            reported.push(report.is_some());
        }
        // Each error delays the next report.
        assert_eq!(reported, [true, false, false, false, true]);
        for end in [End::Whole, End::Due, End::Stuck, End::Apart, no_logs(), removed()] {
            assert_eq!(Failures::new(RetryBudget::new(false)).report(&end, start), None, "{end:?}");
        }
    }

    #[test]
    fn reading_to_the_end_is_not_repeated_where_nothing_can_come() {
        let now = Instant::now();
        for (end, once, expected) in [
            (no_logs(), false, false),
            (no_logs(), true, false),
            (removed(), false, false),
            // With `--no-follow`, the user gets the final answer of the daemon, which may come late.
            (removed(), true, true),
            (malformed(), false, true),
            (End::Stuck, true, true),
        ] {
            let wait = retry_end(&mut RetryBudget::new(false), &end, once, true, now, 0.5);
            assert_eq!(wait.is_some(), expected, "{end:?} {once}");
        }
        let mut retry = RetryBudget::new(false);
        let waits = (0..10).map_while(|_| retry_end(&mut retry, &malformed(), true, true, now, 0.5)).count();
        assert_eq!(waits, REFUSALS as usize - 1);
    }

    #[test]
    fn notices_name_the_reason_without_the_id() {
        assert_eq!(no_logs().describe(), "cannot be read: no logs");
        assert_eq!(removed().describe(), "no such container");
        assert!(no_logs().into_error().is_some() && malformed().into_error().is_none());
        assert!(!End::Stuck.is_regular() && !End::Apart.is_regular() && End::Whole.is_regular());
    }
}

//! Reads one container over the API, through its restarts and those of the daemon.
//!
//! In: a [`StreamPlan`], and [`Signal`]s about what happens to the container. Out: items on the queue, and
//! [`StreamReport`]s. A request ends when the container stops, when the daemon stops, or when the connection breaks,
//! and nothing shows which of these it was. That makes no difference to what is read, because the next request
//! continues after the last line ([`session`]). The three routes differ in when a request ends and when the
//! next one is made.

mod api_log;
mod idle;
mod outcome;
mod retry;
mod session;

pub(super) use api_log::{ApiLog, Outcome, Signal, StreamContext, StreamPlan, StreamReport};

use crate::docker::{Error, LogStream, LogsQuery};
use crate::model::batch::{Batch, Item};
use crate::model::line_id::{Cursor, Route};
use crate::model::position::TimePosition;
use crate::model::time::Timestamp;
use crate::tail::{Dialect, Start};
use outcome::{End, FailureReport, Failures, GRACE, reason, retry_end};
use retry::RetryBudget;
use session::{RestStart, Session};
use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};

/// Time limit of a request for the rest of a log that Podman may cut.
const REST_LIMIT: Duration = Duration::from_secs(5);

/// Returns whether a signal reports that the container died or was removed.
fn is_death(signal: &Signal) -> bool {
    let Signal::Finish(then) = signal else { return false };
    // A container that is no longer followed may continue to write.
    let is_unfollowed = then.iter().any(|item| matches!(item, Item::Deselected(_)));
    !is_unfollowed && then.iter().any(|item| matches!(item, Item::End(..) | Item::Removed(_)))
}

impl ApiLog {
    /// Reads until nothing more can come: at the end if `once`, else when the signals are closed.
    pub(super) async fn run(mut self, mut signals: UnboundedReceiver<Signal>) -> Outcome {
        let mut failures = Failures::new(self.retry_budget());
        while let Err(error) = self.find_first(failures.retry.left(Instant::now())).await {
            let wait = match error.is_temporary() {
                true => failures.retry.next_wait(true, self.is_last(&signals), Instant::now(), fastrand::f64()),
                false => None,
            };
            let Some(wait) = wait else { return self.give_up(error, &mut signals).await };
            self.report_failure(&End::Broken(error), &mut failures).await;
            sleep(wait).await;
        }
        failures.retry.reset();
        let mut session = Session::new(&self, self.begin());
        if self.plan.once {
            return self.read_to_end(&mut session, &mut Vec::new(), &mut signals).await.map(drop);
        }
        session.announce(self.plan.cause);
        // Spreads the requests for many containers over the interval.
        let mut span = self.context.interval.mul_f64(fastrand::f64());
        let mut received = if self.plan.is_up { None } else { Some(signals.recv().await) };
        loop {
            let begun = Instant::now();
            if received.is_none() {
                let before = session.position();
                let mut progress = session.progress();
                let mut rest = None;
                let end = {
                    let request = self.request(&mut session, begun + span);
                    tokio::pin!(request);
                    tokio::select! {
                        end = &mut request => Some(end),
                        // Cutting the request short is safe: the position moves when a line is on
                        // the queue, not before.
                        signal = signals.recv() => {
                            if signal.as_ref().is_some_and(is_death) {
                                rest = self.end_request(request, &mut progress).await;
                            }
                            received = Some(signal);
                            None
                        }
                    }
                };
                session.use_for_rest(rest);
                if let Some(End::Broken(error @ Error::NoLogs { .. })) = end {
                    return self.give_up(error, &mut signals).await;
                }
                if session.position() != before {
                    failures.retry.reset();
                }
                if let Some(end) = end {
                    self.report_failure(&end, &mut failures).await;
                    let until_due = (begun + span).saturating_duration_since(Instant::now());
                    let wait = failures.pause(&end, self.context.route, until_due, fastrand::f64());
                    if end.is_regular() {
                        span = self.context.interval;
                    }
                    received = self.sleep(wait, &end, signals.recv()).await;
                }
            }
            match received.take() {
                None => {}
                Some(None) => return Ok(()),
                Some(Some(Signal::Up)) => session.container_started(),
                Some(Some(Signal::Finish(then))) => {
                    if let Err(outcome) = self.finish(&mut session, then, &mut signals).await {
                        return outcome;
                    }
                    session.announce(None);
                    session.container_started();
                    failures.retry.reset();
                }
            }
        }
    }

    /// Ends a request because the container has died. Lets it run to its end, as long as data arrives: the daemon ends
    /// it soon, and may have removed the log before another request is made.
    ///
    /// Podman drops lines at the end ([`tail::api`](crate::tail)), so its response is not read on if it answers another
    /// request. Returns that answer.
    async fn end_request(
        &self,
        mut request: Pin<&mut impl Future<Output = End>>,
        progress: &mut RestStart,
    ) -> Option<LogStream> {
        let since = *progress.borrow_and_update();
        if self.dialect() == Dialect::Podman
            && let Ok(Ok(rest)) = timeout(REST_LIMIT, self.rest(since)).await
        {
            return Some(rest);
        }
        loop {
            tokio::select! {
                _ = &mut request => return None,
                progress = timeout(GRACE, progress.changed()) => {
                    // A request makes no progress either while the queue is full.
                    if progress.is_err() && self.context.queue.has_room() {
                        return None;
                    }
                }
            }
        }
    }

    async fn rest(&self, since: Option<Timestamp>) -> Result<LogStream, Error> {
        let query = LogsQuery { since, until: self.until(), ..LogsQuery::default() };
        self.context.docker.logs(&self.plan.id, &query).await
    }

    /// Reports whether the daemon is unreachable, which only tasks that have to reach an end need to know.
    fn report_given_up(&self, has_given_up: bool) {
        if self.plan.once {
            self.report(StreamReport::GaveUp(has_given_up));
        }
    }

    /// Reports a temporary failure. Other failures do not show that the daemon is unreachable.
    fn report_given_up_if(&self, end: &End) {
        if end.is_temporary() {
            self.report_given_up(true);
        }
    }

    fn retry_budget(&self) -> RetryBudget {
        RetryBudget::new(self.plan.once && *self.context.shorten_retries.borrow())
    }

    /// Returns whether nothing is read after the next end of the log.
    fn is_last(&self, signals: &UnboundedReceiver<Signal>) -> bool {
        self.plan.once || signals.is_closed()
    }

    async fn find_first(&mut self, limit: Duration) -> Result<(), Error> {
        if let (Start::Last(_), false) = (self.plan.start, self.plan.has_run) {
            // It never ran, so it has no history.
            self.plan.start = Start::All;
        }
        if let (Start::Last(lines @ 1..), None) = (self.plan.start, self.plan.resume) {
            self.first = self.last_lines(lines, limit).await?;
        }
        Ok(())
    }

    /// Finds the first of the last `wanted` lines. The daemon counts records, of which a long line has several, so the
    /// number of requested records grows until one line more than wanted is complete.
    async fn last_lines(&self, wanted: u64, limit: Duration) -> Result<Option<(Cursor, TimePosition)>, Error> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut records = wanted as u64 + 16;
        loop {
            let mut frames = self.all_frames().with_dialect(self.dialect(), None);
            let mut cursors = VecDeque::new();
            let (mut count, mut oldest) = (0, None);
            let mut keep = |item: Option<Item>| {
                if let Some(Item::Lines(Batch { lines, .. })) = item {
                    count += lines.len();
                    oldest = oldest.or(lines.first().map(|line| line.time));
                    cursors.extend(lines.iter().map(crate::model::batch::Line::cursor));
                    let surplus = cursors.len().saturating_sub(wanted);
                    cursors.drain(..surplus);
                }
            };
            let mut query = LogsQuery { tail: Some(records), ..LogsQuery::default() };
            let mut is_all = false;
            if self.dialect() == Dialect::Podman {
                // With `tail`, Podman joins pieces, which changes the ordinals of lines. So the time of the first
                // record is looked up, and records are requested from there.
                let oldest = self.oldest(&query, limit).await?;
                is_all = oldest.is_none();
                query = LogsQuery { since: oldest, ..LogsQuery::default() };
            }
            let mut body = self.context.docker.logs_within(limit, &self.plan.id, &query).await?;
            while let Some(chunk) = body.next().await {
                keep(frames.push(&chunk?).item);
            }
            keep(frames.flush().0);
            // The response may begin between lines of the same time, whose ordinals are then unknown.
            let is_numbered = count > wanted && cursors.front().is_some_and(|first| Some(first.time) != oldest);
            let is_all = is_all || self.dialect() == Dialect::Docker && frames.records() < records;
            if is_numbered || is_all {
                return Ok(cursors.pop_front().map(|first| (first, frames.position())));
            }
            records = records.saturating_mul(4);
        }
    }

    /// The time of the first of the last `tail` records; `None` if there are fewer.
    async fn oldest(&self, query: &LogsQuery, limit: Duration) -> Result<Option<Timestamp>, Error> {
        let mut frames = self.all_frames().with_dialect(self.dialect(), None);
        let mut oldest = None;
        let mut body = self.context.docker.logs_within(limit, &self.plan.id, query).await?;
        while let Some(chunk) = body.next().await {
            if frames.push(&chunk?).end.is_err() {
                break;
            }
            oldest = oldest.or(frames.newest().map(|record| record.time));
        }
        Ok(oldest.filter(|_| Some(frames.records()) >= query.tail))
    }

    /// Makes one request, which ends as its route requires.
    async fn request(&self, session: &mut Session<'_>, due: Instant) -> End {
        match self.context.route {
            Route::Poll => session.read().await,
            Route::Rotate => session.follow(Some(due)).await,
            Route::Stream | Route::File => session.follow(None).await,
        }
    }

    /// Waits before the next request, or until the daemon is back. Returns what `interruption` resolves to,
    /// if it resolves first.
    async fn sleep<T>(&self, wait: Duration, end: &End, interruption: impl Future<Output = T>) -> Option<T> {
        let returned = async {
            match end {
                End::Broken(error) if error.is_of_connection() => self.context.docker.wait_for_daemon(error).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = interruption => Some(signal),
            () = sleep(wait) => None,
            () = returned => None,
        }
    }

    /// The container has died: reads its log to the end, puts `then` on the queue, and waits until it runs again.
    /// Returns the outcome as an error if it never will.
    async fn finish(
        &self,
        session: &mut Session<'_>,
        mut then: Vec<Item>,
        signals: &mut UnboundedReceiver<Signal>,
    ) -> Result<(), Outcome> {
        let read = self.read_to_end(session, &mut then, signals).await;
        self.send_all(then).await;
        if matches!(read, Ok(false)) || self.wait_for_start(signals).await.is_some() {
            return Ok(());
        }
        Err(read.map(drop))
    }

    /// Reads to the end, and retries as long as that may help. Returns `false` if the container runs again first.
    async fn read_to_end(
        &self,
        session: &mut Session<'_>,
        then: &mut Vec<Item>,
        signals: &mut UnboundedReceiver<Signal>,
    ) -> Result<bool, Option<Error>> {
        let mut retry = self.retry_budget();
        loop {
            let before = session.position();
            let Err(end) = session.finish(retry.left(Instant::now())).await else {
                self.report_given_up(false);
                return Ok(true);
            };
            if session.position() != before {
                retry.reset();
            }
            let (once, is_last) = (self.plan.once, self.is_last(signals));
            let wait = retry_end(&mut retry, &end, once, is_last, Instant::now(), fastrand::f64());
            let Some(wait) = wait else {
                self.report_given_up_if(&end);
                return Err(self.report_loss(end, session.position()).await);
            };
            match self.sleep(wait, &end, signals.recv()).await {
                None => {}
                Some(None) => drop(self.sleep(wait, &end, std::future::pending::<()>()).await),
                Some(Some(Signal::Finish(more))) => then.extend(more),
                Some(Some(Signal::Up)) => return Ok(false),
            }
        }
    }

    /// Reports that the rest of the log is not read, and why. The beginning of an unfinished line is dropped, because
    /// its end is unknown.
    async fn report_loss(&self, end: End, position: TimePosition) -> Option<Error> {
        if !end.keeps_nothing() {
            self.context.queue.send(Item::unreadable(self.plan.key, self.context.route, position.last())).await;
        }
        // For a removed container, the gap is enough.
        if self.plan.once || !end.is_removed() {
            self.notice(end.describe()).await;
        }
        end.into_error()
    }

    /// Waits until the container runs again. Returns `None` if it never will.
    async fn wait_for_start(&self, signals: &mut UnboundedReceiver<Signal>) -> Option<()> {
        loop {
            match signals.recv().await? {
                Signal::Up => return Some(()),
                Signal::Finish(then) => self.send_all(then).await,
            }
        }
    }

    async fn send_all(&self, items: Vec<Item>) {
        for item in items {
            self.context.queue.send(item).await;
        }
    }

    /// Ends after an error that no retry can fix. The items that later signals carry are still queued.
    async fn give_up(&self, error: Error, signals: &mut UnboundedReceiver<Signal>) -> Outcome {
        let end = End::Broken(error);
        let is_lost = self.is_last(signals) || end.is_removed();
        let error = match end {
            End::Broken(error) if !is_lost => {
                self.report(StreamReport::Readable(self.plan.key, false));
                if !matches!(error, Error::NoLogs { .. }) {
                    let after = self.plan.resume.unwrap_or_default().last();
                    self.context.queue.send(Item::unreadable(self.plan.key, self.context.route, after)).await;
                }
                self.notice(format!("cannot be followed: {}", reason(&error))).await;
                Some(error)
            }
            end => {
                self.report_given_up_if(&end);
                self.report_loss(end, self.plan.resume.unwrap_or_default()).await
            }
        };
        while !self.plan.once && self.wait_for_start(signals).await.is_some() {}
        Err(error)
    }

    async fn report_failure(&self, end: &End, failures: &mut Failures) {
        match failures.report(end, Instant::now()) {
            Some(FailureReport::NoPermit(error)) => self.report(StreamReport::NoPermit(error)),
            Some(FailureReport::Notice(text)) => self.notice(text).await,
            None => {}
        }
    }

    async fn notice(&self, text: String) {
        self.context.queue.send(Item::Notice(Some(self.plan.key), text)).await;
    }
}

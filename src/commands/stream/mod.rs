//! Reads one container over the API, through its restarts and the engine's.
//!
//! In: an engine, a place to start, and what happens to the container. Out: items on the queue. Started by
//! [`super::tails`]. A request ends when the container stops, the engine goes or the connection breaks, and does not say
//! which; each next one starts at the position of the last line ([`super::course`]), so it makes no difference to what is
//! read. The three routes differ in when a request ends and the next begins.

mod idle;
mod retry;
mod session;

use crate::docker::{Docker, Error, LogsQuery};
use crate::model::batch::{Batch, ContainerKey, Item};
use crate::model::cursor::{Cursor, Route};
use crate::model::position::TimePosition;
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::tail::{self, Dialect, Frames, Start, Window};
use retry::{REFUSALS, RetryBudget};
use session::{End, Session};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};

/// Between the end of a request and the event that tells why.
const GRACE: Duration = Duration::from_millis(500);
/// Trouble that is this long past is over: the next is told again.
const SPELL: Duration = Duration::from_secs(60);

/// What happens to the container.
pub(super) enum Signal {
    /// It runs again.
    Up,
    /// It will write no more for now: read to the end, then put this on the queue.
    Finish(Vec<Item>),
}

impl Signal {
    fn is_death(&self) -> bool {
        let Signal::Finish(then) = self else { return false };
        // One that is let go writes on.
        let is_let_go = then.iter().any(|item| matches!(item, Item::Forget(_)));
        !is_let_go && then.iter().any(|item| matches!(item, Item::End(..) | Item::Gone(_)))
    }
}

/// What is read, and from where.
pub(super) struct Stream {
    pub(super) docker: Docker,
    pub(super) queue: Arc<Queue>,
    pub(super) key: ContainerKey,
    pub(super) id: String,
    /// One of those over the API.
    pub(super) route: Route,
    /// Between two requests of `rotate` and `poll`.
    pub(super) interval: Duration,
    /// Where its log can be looked at without asking the engine, if anywhere.
    pub(super) folder: Option<PathBuf>,
    /// It runs; if not, nothing is asked before it does or is said to be finished.
    pub(super) is_up: bool,
    /// It was started at some time, so it may have written.
    pub(super) has_run: bool,
    /// Nothing but what it wrote before it was met is read, until it runs again.
    pub(super) is_history: bool,
    /// It cannot write now, though it runs.
    pub(super) is_paused: Arc<AtomicBool>,
    /// The engine has let us read it.
    pub(super) is_read: Arc<AtomicBool>,
    /// The engine's time of the event that told of it.
    pub(super) told: Option<Timestamp>,
    /// A moment instead of the last no lines: those would be counted when the request is made.
    pub(super) start: Start,
    /// Another route has come this far.
    pub(super) resume: Option<TimePosition>,
    pub(super) window: Window,
    pub(super) max_line_size: usize,
    /// Read what is there, and no more.
    pub(super) once: bool,
    /// A user knows that more logs are to be read than may be at one time.
    pub(super) told_no_places: Arc<AtomicBool>,
    /// It was waited in vain for the engine to come back, for another that was to be read to its end.
    pub(super) has_given_up: Arc<AtomicBool>,
    /// Of the wanted lines, where only the last so many are; and how far the log went when they were counted.
    pub(super) first: Option<(Cursor, TimePosition)>,
}

/// What goes wrong, and whether it was told.
struct Trouble {
    patience: RetryBudget,
    last: Option<Instant>,
}

/// How it ended: not with all that was there, for what the engine or the way to it met us with.
pub(super) type Outcome = Result<(), Option<Error>>;

impl Stream {
    /// Until nothing more can come of it.
    pub(super) async fn run(mut self, mut signals: UnboundedReceiver<Signal>) -> Outcome {
        let mut trouble = Trouble { patience: self.patience(), last: None };
        while let Err(error) = self.find_first(trouble.patience.left(Instant::now())).await {
            let wait = match error.is_passing() {
                true => trouble.patience.again(true, self.is_last(&signals), Instant::now(), fastrand::f64()),
                false => None,
            };
            let Some(wait) = wait else { return self.give_up(error, &mut signals).await };
            self.tell(&End::Broken(error), &mut trouble).await;
            sleep(wait).await;
        }
        trouble.patience.reset();
        let mut course = Session::new(&self, self.begin());
        if self.once {
            return self.read_to_end(&mut course, &mut Vec::new(), &mut signals).await.map(drop);
        }
        course.greet(self.told);
        // Many that are read alike are not all asked for at one moment.
        let mut span = self.interval.mul_f64(fastrand::f64());
        let mut heard = if self.is_up { None } else { Some(signals.recv().await) };
        loop {
            let begun = Instant::now();
            if heard.is_none() {
                let before = course.position();
                let sent = course.sent();
                let end = {
                    let asking = self.ask(&mut course, begun + span);
                    tokio::pin!(asking);
                    tokio::select! {
                        end = &mut asking => Some(end),
                        // Cutting the request short is safe: the position moves when a line is on the queue, not before.
                        signal = signals.recv() => {
                            if signal.as_ref().is_some_and(Signal::is_death) {
                                self.drain(asking, &sent).await;
                            }
                            heard = Some(signal);
                            None
                        }
                    }
                };
                if let Some(End::Broken(error @ Error::NoLogs { .. })) = end {
                    return self.give_up(error, &mut signals).await;
                }
                if course.position() != before {
                    trouble.patience.reset();
                }
                if let Some(end) = end {
                    self.tell(&end, &mut trouble).await;
                    let wait = self.pause(&end, &mut trouble.patience, begun + span);
                    if !matches!(end, End::Apart | End::Stuck) {
                        span = self.interval;
                    }
                    heard = self.sleep(wait, &end, signals.recv()).await;
                }
            }
            match heard.take() {
                None => {}
                Some(None) => return Ok(()),
                Some(Some(Signal::Up)) => course.awake(),
                Some(Some(Signal::Finish(then))) => {
                    if let Err(outcome) = self.finish(&mut course, then, &mut signals).await {
                        return outcome;
                    }
                    course.greet(None);
                    course.awake();
                    trouble.patience.reset();
                }
            }
        }
    }

    /// Lets a request run to its end, as long as something comes: the engine ends it when the container has died, and may
    /// have removed the log before another request is made.
    async fn drain(&self, mut asking: Pin<&mut impl Future<Output = End>>, sent: &AtomicU64) {
        loop {
            let before = sent.load(Ordering::Relaxed);
            let is_over = timeout(GRACE, &mut asking).await.is_ok();
            let is_waiting_for_us = !self.queue.has_room();
            if is_over || sent.load(Ordering::Relaxed) == before && !is_waiting_for_us {
                return;
            }
        }
    }

    fn patience(&self) -> RetryBudget {
        RetryBudget::new(self.once && self.has_given_up.load(Ordering::Relaxed))
    }

    /// Whether nothing more will be heard of it.
    fn is_last(&self, signals: &UnboundedReceiver<Signal>) -> bool {
        self.once || signals.is_closed()
    }

    async fn find_first(&mut self, patience: Duration) -> Result<(), Error> {
        if let (Start::Last(_), false) = (self.start, self.has_run) {
            // All there will be is new.
            self.start = Start::All;
        }
        if let (Start::Last(lines @ 1..), None) = (self.start, self.resume) {
            self.first = self.last_lines(lines, patience).await?;
        }
        Ok(())
    }

    /// For the first body from a position.
    pub(super) fn frames(&self, position: TimePosition) -> Frames {
        let dialect = self.dialect();
        let window = Window { since: dialect.reported(self.window.since), ..self.window };
        let frames = Frames::new(self.key, self.route, window, self.max_line_size);
        let mut frames = frames.with_dialect(dialect, self.begin().since);
        if let (Some((first, known)), true) = (self.first, position.is_at_start()) {
            frames.start_at(first, known);
        }
        frames
    }

    /// What its engine speaks.
    pub(super) fn dialect(&self) -> Dialect {
        if self.docker.is_podman() { Dialect::Podman } else { Dialect::Docker }
    }

    /// Where its log is read from.
    pub(super) fn begin(&self) -> TimePosition {
        self.resume.unwrap_or_else(|| self.first_position())
    }

    fn first_position(&self) -> TimePosition {
        TimePosition::at(match self.start {
            // This engine goes by the time of each line, and what it sends of a second begins exactly there.
            Start::Since(time) if self.dialect() == Dialect::Podman => Some(time),
            // The engine passes over a compressed file whose last line is earlier, though the other stream's need not be.
            Start::Since(time) => Some(tail::minus_slack(time)),
            // The other stream's line behind it may have an earlier time.
            Start::Last(_) => self.first.map(|(first, _)| tail::minus_slack(first.time)),
            Start::Beginning | Start::All => None,
        })
    }

    /// The first of the last so many lines. The request counts records, of which a long line has several, so it is asked
    /// for more until one line more than wanted has come whole.
    async fn last_lines(&self, wanted: u64, patience: Duration) -> Result<Option<(Cursor, TimePosition)>, Error> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut records = wanted as u64 + 16;
        loop {
            let mut frames = Frames::new(self.key, self.route, Window::default(), self.max_line_size);
            frames = frames.with_dialect(self.dialect(), None);
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
                // It joins pieces in an answer for the last ones, and their numbers would be others.
                let oldest = self.oldest(&query, patience).await?;
                is_all = oldest.is_none();
                query = LogsQuery { since: oldest, ..LogsQuery::default() };
            }
            let mut body = self.docker.logs_within(patience, &self.id, &query).await?;
            while let Some(chunk) = body.next().await {
                keep(frames.push(&chunk?).0);
            }
            keep(frames.flush());
            // Of the time of its first line it may have only the last ones: then their numbers are others.
            let is_numbered = count > wanted && cursors.front().is_some_and(|first| Some(first.time) != oldest);
            let is_all = is_all || self.dialect() == Dialect::Docker && frames.records() < records;
            if is_numbered || is_all {
                return Ok(cursors.pop_front().map(|first| (first, frames.position())));
            }
            records = records.saturating_mul(4);
        }
    }

    /// The time of the first of so many records, unless there are fewer.
    async fn oldest(&self, query: &LogsQuery, patience: Duration) -> Result<Option<Timestamp>, Error> {
        let mut frames = Frames::new(self.key, self.route, Window::default(), self.max_line_size);
        frames = frames.with_dialect(self.dialect(), None);
        let mut oldest = None;
        let mut body = self.docker.logs_within(patience, &self.id, query).await?;
        while let Some(chunk) = body.next().await {
            if frames.push(&chunk?).1.is_err() {
                break;
            }
            oldest = oldest.or(frames.newest().map(|record| record.time));
        }
        Ok(oldest.filter(|_| Some(frames.records()) >= query.tail))
    }

    /// One request, as the route has it.
    async fn ask(&self, course: &mut Session<'_>, due: Instant) -> End {
        match self.route {
            Route::Poll => course.read().await,
            Route::Rotate => course.follow(Some(due)).await,
            Route::Stream | Route::File => course.follow(None).await,
        }
    }

    /// Before the next request.
    fn pause(&self, end: &End, patience: &mut RetryBudget, due: Instant) -> Duration {
        let until_due = match self.route {
            Route::Poll => due.saturating_duration_since(Instant::now()),
            _ => Duration::ZERO,
        };
        match end {
            End::Apart | End::Due => Duration::ZERO,
            End::Stuck => until_due,
            End::Whole if self.route == Route::Poll => until_due,
            // A request that ended well says nothing about the container; the event that does comes at about this time.
            End::Whole | End::Broken(_) | End::Malformed(_) => patience.wait(fastrand::f64()).max(GRACE).max(until_due),
        }
    }

    /// Before what ended so is tried again; an engine that returns ends the wait. `None` unless something came first.
    async fn sleep<T>(&self, wait: Duration, end: &End, something: impl Future<Output = T>) -> Option<T> {
        let returned = async {
            match end {
                End::Broken(error) if error.is_of_connection() => self.docker.returned(error).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            came = something => Some(came),
            () = sleep(wait) => None,
            () = returned => None,
        }
    }

    /// The container has died: its log is read to the end, then the end is told and it is waited until it runs again. An
    /// error when it never will.
    async fn finish(
        &self,
        course: &mut Session<'_>,
        mut then: Vec<Item>,
        signals: &mut UnboundedReceiver<Signal>,
    ) -> Result<(), Outcome> {
        let read = self.read_to_end(course, &mut then, signals).await;
        self.send_all(then).await;
        if matches!(read, Ok(false)) || self.rest(signals).await.is_some() {
            return Ok(());
        }
        Err(read.map(drop))
    }

    /// Reads what there is, trying again as long as that may help. `false` when the container runs again before that.
    async fn read_to_end(
        &self,
        course: &mut Session<'_>,
        then: &mut Vec<Item>,
        signals: &mut UnboundedReceiver<Signal>,
    ) -> Result<bool, Option<Error>> {
        let mut patience = self.patience();
        loop {
            let before = course.position();
            let Err(end) = course.finish(patience.left(Instant::now())).await else {
                self.has_given_up.store(false, Ordering::Relaxed);
                return Ok(true);
            };
            if course.position() != before {
                patience.reset();
            }
            // An engine that is away comes back, and still has the rest.
            let is_passing = matches!(&end, End::Broken(error) if error.is_passing());
            let is_last = self.is_last(signals);
            let wait = patience.again(is_passing, is_last, Instant::now(), fastrand::f64());
            let is_final = end.keeps_nothing() || end.is_removed() && !self.once;
            let Some(wait) = wait.filter(|_| !is_final) else {
                self.has_given_up.fetch_or(is_passing, Ordering::Relaxed);
                return Err(self.lose(end, course.position()).await);
            };
            match self.sleep(wait, &end, signals.recv()).await {
                None => {}
                Some(None) => drop(self.sleep(wait, &end, std::future::pending::<()>()).await),
                Some(Some(Signal::Finish(more))) => then.extend(more),
                Some(Some(Signal::Up)) => return Ok(false),
            }
        }
    }

    /// The rest is not read, and why. What has begun of a line is none: nobody knows how it ends.
    async fn lose(&self, end: End, position: TimePosition) -> Option<Error> {
        if !end.keeps_nothing() {
            self.queue.send(Item::unreadable(self.key, self.route, position.last())).await;
        }
        // A gap says all there is to say of a container that is gone.
        if self.once || !end.is_removed() {
            self.notice(words(&end)).await;
        }
        match end {
            End::Broken(error) => Some(error),
            _ => None,
        }
    }

    /// Waits until it runs again; `None` when it never will.
    async fn rest(&self, signals: &mut UnboundedReceiver<Signal>) -> Option<()> {
        loop {
            match signals.recv().await? {
                Signal::Up => return Some(()),
                Signal::Finish(then) => self.send_all(then).await,
            }
        }
    }

    async fn send_all(&self, items: Vec<Item>) {
        for item in items {
            self.queue.send(item).await;
        }
    }

    async fn give_up(&self, error: Error, signals: &mut UnboundedReceiver<Signal>) -> Outcome {
        let end = End::Broken(error);
        let is_lost = self.is_last(signals) || end.is_removed();
        let error = match end {
            End::Broken(error) if !is_lost => {
                self.is_read.store(false, Ordering::Relaxed);
                if !matches!(error, Error::NoLogs { .. }) {
                    let after = self.resume.unwrap_or_default().last();
                    self.queue.send(Item::unreadable(self.key, self.route, after)).await;
                }
                self.notice(format!("cannot be followed: {}", reason(&error))).await;
                Some(error)
            }
            end => {
                let is_passing = matches!(&end, End::Broken(error) if error.is_passing());
                self.has_given_up.fetch_or(is_passing, Ordering::Relaxed);
                self.lose(end, self.resume.unwrap_or_default()).await
            }
        };
        while !self.once && self.rest(signals).await.is_some() {}
        Err(error)
    }

    /// Once in a spell, and nothing of an engine that is away: that is told for all containers together.
    async fn tell(&self, end: &End, trouble: &mut Trouble) {
        let is_worth_it = match end {
            End::Broken(error @ Error::TooManyStreams { .. }) => return self.tell_no_place(error).await,
            End::Malformed(_) => true,
            End::Broken(Error::Refused { .. }) => true,
            End::Broken(Error::Status { .. } | Error::Gateway { .. } | Error::Protocol { .. }) => {
                trouble.patience.attempts() >= REFUSALS
            }
            _ => return,
        };
        let now = Instant::now();
        let is_told = trouble.last.is_some_and(|last| now.duration_since(last) < SPELL);
        if is_worth_it && !is_told {
            self.notice(words(end)).await;
        }
        if is_worth_it {
            trouble.last = Some(now);
        }
    }

    /// Once for all: which of them wait is of no interest, and changes.
    async fn tell_no_place(&self, error: &Error) {
        if !self.told_no_places.swap(true, Ordering::Relaxed) {
            let text = format!("{error}: some logs wait to be read until others end");
            self.queue.send(Item::Notice(None, text)).await;
        }
    }

    async fn notice(&self, text: String) {
        self.queue.send(Item::Notice(Some(self.key), text)).await;
    }
}

fn words(end: &End) -> String {
    match end {
        End::Broken(error @ Error::NoLogs { .. }) => format!("cannot be read: {}", reason(error)),
        End::Broken(error) => error.to_string(),
        End::Malformed(error) => error.to_string(),
        End::Whole | End::Due | End::Stuck | End::Apart => String::new(),
    }
}

/// Where it is told whose log it is.
fn reason(error: &Error) -> String {
    match error {
        Error::NoLogs { message, .. } => message.clone(),
        error => error.to_string(),
    }
}

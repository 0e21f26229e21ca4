//! A container's way through its log over the API: request after request, each from where the last line was.
//!
//! In: what to read, and a position. Out: lines on the queue, and how each request ended. Called by [`super::stream`], which
//! knows when the next one is due. The position moves when a line is on the queue and not before, so that a request may be
//! cut off at any moment.

use super::Stream;
use super::idle::{IdleTimer, ahead};
use crate::docker::{Error, LogStream, LogsQuery, Version};
use crate::model::batch::Item;
use crate::model::position::{Mark, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::{self, Delivered, Dialect, Frames, LogStat, Record, RequestRange, Window};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Records from the end that a request is for, when the last line is known that was passed on.
const REACH: u64 = 64;
/// So many times as many, where that was too few.
const FARTHER: u64 = 16;
/// To go back farther than this, the whole log may as well be walked through.
const FARTHEST: u64 = 1 << 18;
/// A stream with nothing at hand for so long loses nothing by being renewed.
const IDLE: Duration = Duration::from_millis(10);
/// For a look at the newest record.
const LOOK: Duration = Duration::from_secs(30);

/// Docker 25: older engines stop looking for rotated files at the first that a time rules out, and that is the oldest
/// (moby `daemon/logger/loggerutils/logfile.go`, `openRotatedFiles`; seen on 20.10, no longer on 26.1).
const HEEDS_SINCE: Version = Version { major: 1, minor: 44 };
/// Docker 23: older engines send the last line again when they go on following behind a rotation.
const SENDS_ONCE: Version = Version { major: 1, minor: 42 };

/// See the module.
pub(super) struct Session<'a> {
    of: &'a Stream,
    frames: Frames,
    passed: Delivered,
    /// Records from the end that the next request is for, if it can be joined to what was passed on.
    reach: Option<u64>,
    /// A followed body may have begun to repeat itself.
    is_doubted: bool,
    /// How long an engine that is gone is waited for, where that is not to be as long as for any call.
    patience: Duration,
    /// To be told once the engine lets us read: that it is read, and since which event.
    greeting: Option<Option<Timestamp>>,
    silence: IdleTimer,
    /// What the log was like when all of it had come.
    level: Option<LogStat>,
    /// The container may have written something that has not come.
    owes: bool,
    /// What was written before we came is read, and nothing else.
    is_history: bool,
    /// Grows with everything that is sent, for who cannot borrow this while a request is under way.
    sent: Arc<AtomicU64>,
}

/// How a request went.
pub(super) enum End {
    /// The engine closed it after the last byte.
    Whole,
    /// It was to be renewed by now.
    Due,
    /// More was written than has come.
    Stuck,
    /// More was written than was asked for.
    Apart,
    Broken(Error),
    Malformed(tail::Error),
}

impl End {
    /// The container's driver keeps nothing that could be read, so nothing is lost.
    pub(super) fn keeps_nothing(&self) -> bool {
        matches!(self, End::Broken(Error::NoLogs { .. }))
    }

    /// The container is removed, or is being removed: its log will not be there again.
    pub(super) fn is_removed(&self) -> bool {
        matches!(self, End::Broken(Error::NotFound { .. } | Error::Conflict { .. }))
    }
}

/// What a look at the log's end found.
enum Look {
    /// A record of this time, that has not come.
    Ahead(Timestamp),
    /// Nothing else.
    Level(Option<LogStat>),
    /// That it cannot be known.
    Unknown,
}

impl<'a> Session<'a> {
    pub(super) fn new(of: &'a Stream, position: TimePosition) -> Self {
        let silence = IdleTimer::new(Instant::now());
        Session {
            of,
            frames: of.frames(position),
            passed: Delivered::up_to(position),
            reach: Some(REACH),
            is_doubted: false,
            patience: Duration::MAX,
            greeting: None,
            silence,
            level: None,
            owes: of.has_run,
            is_history: of.is_history,
            sent: Arc::default(),
        }
    }

    /// A count that grows while a request brings something.
    pub(super) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// How far it has come.
    pub(super) fn position(&self) -> TimePosition {
        self.passed.position()
    }

    /// That it is read is told with the next request that the engine answers; the time of the event that told of it.
    pub(super) fn greet(&mut self, told: Option<Timestamp>) {
        self.greeting = Some(told);
    }

    /// The container runs: from now on something may come.
    pub(super) fn awake(&mut self) {
        (self.owes, self.is_history) = (true, false);
        self.silence.broken(Instant::now());
    }

    /// One request, from the position to its end. With `due` it ends then, or as soon after as all there was has come.
    pub(super) async fn follow(&mut self, due: Option<Instant>) -> End {
        if self.is_doubted {
            match self.read_once().await {
                End::Whole => self.is_doubted = false,
                end => return end,
            }
        }
        let begun = Timestamp::now();
        let mut body = match self.request(true).await {
            Ok(body) => body,
            Err(error) => {
                let end = End::Broken(error);
                // Where it was removed behind the end of its stream, that was the end of its log.
                self.owes |= !end.is_removed();
                return end;
            }
        };
        self.owes = true;
        loop {
            let chunk = match self.next(&mut body, due).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    self.owes = false;
                    return End::Whole;
                }
                Err(end) => return end,
            };
            if let Err(end) = self.take(chunk).await {
                return end;
            }
            let is_late = due.is_some_and(|due| due <= Instant::now());
            if is_late && self.frames.newest().is_some_and(|newest| newest.time >= begun) {
                return End::Due;
            }
        }
    }

    /// One request for what there is.
    pub(super) async fn read(&mut self) -> End {
        let end = self.read_once().await;
        if !matches!(end, End::Whole) || Instant::now() < self.silence.next() {
            return end;
        }
        let look = self.look().await;
        if self.heed(look) { End::Stuck } else { end }
    }

    /// The container has died, or no more is wanted: what a followed stream may have left out is read again, to the end. An
    /// engine that is gone is waited for no longer than that.
    pub(super) async fn finish(&mut self, patience: Duration) -> Result<(), End> {
        self.patience = patience;
        let end = self.read_rest().await;
        self.patience = Duration::MAX;
        end
    }

    async fn read_rest(&mut self) -> Result<(), End> {
        let position = self.position();
        let begun = std::mem::replace(&mut self.frames, self.of.frames(position));
        let end = loop {
            match self.read_once().await {
                End::Apart => {}
                end => break end,
            }
        };
        if !matches!(end, End::Whole) && self.position().seen == position.seen {
            self.frames = begun;
        }
        match end {
            End::Whole => self.flush().await,
            // What has begun of a last line is all that there will be of it.
            end if end.is_removed() && !self.of.once => {
                self.flush().await;
                if std::mem::take(&mut self.owes) {
                    return Err(end);
                }
            }
            end => return Err(end),
        }
        self.owes = false;
        Ok(())
    }

    /// What has begun of a line is a line.
    async fn flush(&mut self) {
        let item = self.frames.flush();
        self.send(item).await;
        self.passed = self.passed.without_overlap();
    }

    async fn read_once(&mut self) -> End {
        let mut body = match self.request(false).await {
            Ok(body) => body,
            Err(error) => return End::Broken(error),
        };
        loop {
            match self.next(&mut body, None).await {
                Ok(Some(chunk)) => {
                    if let Err(end) = self.take(chunk).await {
                        return end;
                    }
                }
                Ok(None) => break,
                Err(end) => return end,
            }
        }
        if self.frames.lacks_overlap() {
            return self.reach_farther();
        }
        match self.reach {
            Some(_) => self.reach = Some((self.frames.new_records() * 2).clamp(REACH, FARTHEST)),
            // The last line is the first there is.
            None => (self.passed, self.reach) = (self.passed.without_overlap(), Some(REACH)),
        }
        End::Whole
    }

    async fn request(&mut self, follow: bool) -> Result<LogStream, Error> {
        let RequestRange { since, tail } = self.passed.begin(&mut self.frames, self.reach, follow);
        // Told a time, they leave out what was rotated behind a compressed file that ends before it. Of the last records
        // that does not matter: the line to join them to is missing then.
        let docker = |newest: Version| !self.of.docker.is_podman() && self.of.docker.api_version() < newest;
        let since = since.filter(|_| tail.is_some() || !docker(HEEDS_SINCE));
        self.frames.set_may_repeat(follow && docker(SENDS_ONCE));
        let query = LogsQuery { follow, since, until: self.until(), tail, ..LogsQuery::default() };
        let body = self.of.docker.logs_within(self.patience, &self.of.id, &query).await?;
        self.of.is_read.store(true, Ordering::Relaxed);
        if let Some(told) = self.greeting.take() {
            let begin = match self.is_history {
                true => Item::Recall(self.of.key, self.of.route),
                false => Item::Begin(self.of.key, self.of.route, told),
            };
            self.of.queue.send(begin).await;
        }
        Ok(body)
    }

    /// Where the times that come do not tell what is too late, the engine has to.
    fn until(&self) -> Option<Timestamp> {
        let until = self.of.window.until;
        (self.of.dialect() == Dialect::Podman && until < Window::default().until).then_some(until)
    }

    async fn take(&mut self, chunk: Result<Bytes, Error>) -> Result<(), End> {
        let (item, end) = self.frames.push(&chunk.map_err(End::Broken)?);
        if item.is_some() || end.is_ok() {
            self.send(item).await;
        }
        end.map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: tail::Error) -> End {
        match error {
            tail::Error::NoOverlap => self.reach_farther(),
            tail::Error::TimeWentBack => {
                self.passed = self.passed.from_start();
                End::Apart
            }
            tail::Error::PossibleRepeat => {
                self.is_doubted = true;
                End::Apart
            }
            error => End::Malformed(error),
        }
    }

    fn reach_farther(&mut self) -> End {
        let is_at_start = self.position().is_at_start();
        let farther = self.reach.filter(|_| !is_at_start).map(|reach| reach * FARTHER);
        self.reach = farther.filter(|reach| *reach <= FARTHEST);
        End::Apart
    }

    async fn send(&mut self, item: Option<Item>) {
        let passed = self.passed.after(&self.frames, item.as_ref());
        if let Some(item) = item {
            self.of.queue.send(item).await;
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        if passed.position().seen != self.position().seen {
            self.silence.broken(Instant::now());
            self.reach = self.reach.or(Some(REACH));
        }
        self.passed = passed;
    }

    /// The next bytes, while there is nothing else to do.
    async fn next(&mut self, body: &mut LogStream, due: Option<Instant>) -> Result<Option<Result<Bytes, Error>>, End> {
        loop {
            // Before the first record the engine may still be on its way through the log.
            let idle = due.filter(|_| self.frames.newest().is_some()).map(|due| due.max(Instant::now() + IDLE));
            let wake = idle.map_or(self.silence.next(), |idle| idle.min(self.silence.next()));
            match timeout_at(wake, body.next()).await {
                Ok(chunk) => return Ok(chunk),
                Err(_) if idle.is_some_and(|idle| idle <= Instant::now()) => return Err(End::Due),
                Err(_) => {}
            }
            let look = tokio::select! {
                biased;
                chunk = body.next() => return Ok(chunk),
                look = self.look() => look,
            };
            if self.heed(look) {
                return Err(End::Stuck);
            }
        }
    }

    /// Whether the log has more than has come. Costs a request, unless it can be seen that nothing was written.
    async fn look(&self) -> Look {
        let trace = self.of.folder.as_ref().and_then(|folder| LogStat::of(folder, &self.of.id));
        if self.of.is_paused.load(Ordering::Relaxed) || trace.is_some() && trace == self.level {
            return Look::Unknown;
        }
        let last = self.position().last().filter(|_| self.of.dialect() == Dialect::Podman);
        let ahead = async {
            match last {
                Some(last) => self.counted_ahead(last.time).await,
                None => {
                    let newest = self.newest().await?;
                    Ok(newest.and_then(|newest| ahead(newest, self.frames.newest(), &self.position())))
                }
            }
        };
        match timeout(LOOK, ahead).await {
            Ok(Ok(time)) => time.map_or(Look::Level(trace), Look::Ahead),
            Ok(Err(_)) | Err(_) => Look::Unknown,
        }
    }

    /// Whether the next request has to be made.
    fn heed(&mut self, look: Look) -> bool {
        self.silence.looked(Instant::now());
        match look {
            Look::Ahead(time) => {
                tracing::info!(id = self.of.id, %time, "its log grew and nothing came: reading on with a new request");
                if self.position().since.is_some_and(|since| time < since) {
                    // The clock was set back, and engines up to 23 leave out what has a time before that.
                    self.passed = self.passed.from_start();
                }
                true
            }
            Look::Level(trace) => {
                self.level = trace;
                false
            }
            Look::Unknown => false,
        }
    }

    /// Many lines may have the time of the last one, and more of them may have come: those from its second on are counted.
    async fn counted_ahead(&self, last: Timestamp) -> Result<Option<Timestamp>, End> {
        let position = self.position();
        let since = self.of.begin().since.map_or(last, |begin| last.max(begin));
        let mut frames = self.of.frames(TimePosition::at(Some(since)));
        frames.resume(TimePosition::at(Some(since)));
        let query = LogsQuery { since: Some(since), until: self.until(), ..LogsQuery::default() };
        let mut body = self.of.docker.logs(&self.of.id, &query).await.map_err(End::Broken)?;
        while let Some(chunk) = body.next().await {
            frames.push(&chunk.map_err(End::Broken)?).1.map_err(End::Malformed)?;
        }
        let is_ahead = |(newest, passed): (Option<Mark>, Option<Mark>)| {
            newest.filter(|newest| {
                passed.is_none_or(|passed| (newest.time, newest.ordinal) > (passed.time, passed.ordinal))
            })
        };
        let pairs = frames.position().seen.into_iter().zip(position.seen);
        Ok(pairs.filter_map(is_ahead).map(|newest| newest.time).max())
    }

    async fn newest(&self) -> Result<Option<Record>, End> {
        let mut frames = Frames::new(self.of.key, self.of.route, Window::default(), self.of.max_line_size);
        let query = LogsQuery { tail: Some(1), ..LogsQuery::default() };
        let mut body = self.of.docker.logs(&self.of.id, &query).await.map_err(End::Broken)?;
        while let Some(chunk) = body.next().await {
            frames.push(&chunk.map_err(End::Broken)?).1.map_err(End::Malformed)?;
        }
        frames.flush();
        Ok(frames.newest())
    }
}

//! Consecutive API requests for one log, each of which continues after the last line of the one before.
//!
//! In: what to read, and a position. Out: lines on the queue, and how each request ended. The caller decides when the next
//! request is made. The position moves when a line is on the queue and not before, so a request may be cancelled at any
//! moment.

use super::api_log::{ApiLog, StreamReport};
use super::idle::{IdleTimer, ahead};
use super::outcome::End;
use crate::docker::{Error, LogStream, LogsQuery, Version};
use crate::model::batch::Item;
use crate::model::position::{Mark, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::{self, Decoded, Delivered, Dialect, Discontinuity, Frames, LogStat};
use crate::tail::{Mode, Receipt, Record, RequestRange};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// A request may be renewed after this much silence, because no data is on the way then.
const QUIET: Duration = Duration::from_millis(10);
/// If Podman ends a response after this much silence, it had read the log to the end before, and has dropped nothing. It
/// waits for 250 ms after the end of the container.
const PODMAN_QUIET: Duration = Duration::from_millis(100);
/// Time limit of an idle probe.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Docker 25: with `since`, older daemons stop looking for rotated files at the first one that ends before it, which is the
/// oldest (moby `daemon/logger/loggerutils/logfile.go`, `openRotatedFiles`; seen on 20.10, no longer on 26.1).
const HEEDS_SINCE: Version = Version { major: 1, minor: 44 };
/// Docker 23: older daemons send the last line again when they continue to follow after a rotation.
const SENDS_ONCE: Version = Version { major: 1, minor: 42 };

/// Where a request for the rest of the log has to begin.
pub(super) type RestStart = watch::Receiver<Option<Timestamp>>;

pub(super) struct Session<'a> {
    log: &'a ApiLog,
    frames: Frames,
    /// Whether a followed body may have begun to repeat lines.
    may_repeat: bool,
    /// How long a request waits for a daemon that is gone, if that is less than the configured time.
    limit: Duration,
    /// Made when the daemon answers a request; `None` once that is done.
    announcement: Option<Announcement>,
    idle: IdleTimer,
    /// The state of the log file when everything in it had been read. Unchanged, it holds nothing new.
    read_up_to: Option<LogStat>,
    /// Whether the container may have written lines that were not read.
    may_have_more: bool,
    /// Whether only what the container wrote before it was found is read.
    is_history: bool,
    /// The daemon has answered a request for this log.
    is_readable: bool,
    /// Where a request for the rest has to begin, updated with each chunk that is read.
    progress: watch::Sender<Option<Timestamp>>,
    /// The answer to a request for the rest that was made already.
    rest: Option<LogStream>,
}

/// A container that has to be announced to the output before its lines.
struct Announcement {
    /// The time of the event that reported the container; `None` if a listing did.
    cause: Option<Timestamp>,
}

/// The result of an idle probe.
enum Probe {
    /// The log has a record of this time that was not read.
    Ahead(Timestamp),
    /// Everything was read, up to this state of the file.
    UpToDate(Option<LogStat>),
    Unknown,
}

impl<'a> Session<'a> {
    pub(super) fn new(log: &'a ApiLog, position: TimePosition) -> Self {
        let idle = IdleTimer::new(Instant::now());
        Session {
            log,
            frames: log.frames(Delivered::up_to(position)),
            may_repeat: false,
            limit: Duration::MAX,
            announcement: None,
            idle,
            read_up_to: None,
            may_have_more: log.plan.has_run,
            is_history: log.plan.is_history,
            is_readable: false,
            progress: watch::Sender::new(position.since),
            rest: None,
        }
    }

    /// Changes with each chunk that is read, while a request is pending.
    pub(super) fn progress(&self) -> RestStart {
        self.progress.subscribe()
    }

    /// Reads this body instead of making the next request for the rest.
    pub(super) fn use_for_rest(&mut self, rest: Option<LogStream>) {
        self.rest = rest;
    }

    /// How far the log was delivered.
    pub(super) fn position(&self) -> TimePosition {
        self.frames.delivered().position()
    }

    /// Announces the container with the next request that the daemon answers. `cause` is the time of the event that
    /// reported it.
    pub(super) fn announce(&mut self, cause: Option<Timestamp>) {
        self.announcement = Some(Announcement { cause });
    }

    /// The container has started, so it may write lines.
    pub(super) fn container_started(&mut self) {
        (self.may_have_more, self.is_history) = (true, false);
        self.idle.restart(Instant::now());
    }

    /// Makes one request that follows the log from the position on. With `due` it ends then, or as soon afterwards as all
    /// lines have arrived that were there.
    pub(super) async fn follow(&mut self, due: Option<Instant>) -> End {
        if self.may_repeat {
            match self.read_once().await {
                End::Whole => self.may_repeat = false,
                end => return end,
            }
        }
        let begun = Timestamp::now();
        let mut body = match self.request(true).await {
            Ok(body) => body,
            Err(error) => {
                let end = End::Broken(error);
                // If it was removed after the last stream had ended, that stream was complete.
                self.may_have_more |= !end.is_removed();
                return end;
            }
        };
        self.may_have_more = true;
        let mut last_chunk = Instant::now();
        loop {
            let chunk = match self.next(&mut body, due).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    self.may_have_more = self.log.dialect() == Dialect::Podman && last_chunk.elapsed() < PODMAN_QUIET;
                    return End::Whole;
                }
                Err(end) => return end,
            };
            last_chunk = Instant::now();
            if let Err(end) = self.take(chunk).await {
                return end;
            }
            let is_late = due.is_some_and(|due| due <= Instant::now());
            if is_late && self.frames.newest().is_some_and(|newest| newest.time >= begun) {
                return End::Due;
            }
        }
    }

    /// Makes one request for what the log holds now.
    pub(super) async fn read(&mut self) -> End {
        let end = self.read_once().await;
        if !matches!(end, End::Whole) || Instant::now() < self.idle.next() {
            return end;
        }
        let probe = self.probe().await;
        if self.has_missed_lines(probe) { End::Stuck } else { end }
    }

    /// Reads to the end after the container has died, or when no more is wanted. A followed stream may have left out the
    /// last lines. `limit` is how long to wait for a daemon that is gone.
    pub(super) async fn finish(&mut self, limit: Duration) -> Result<(), End> {
        self.limit = limit;
        let end = self.read_rest().await;
        self.limit = Duration::MAX;
        end
    }

    async fn read_rest(&mut self) -> Result<(), End> {
        let position = self.position();
        let fresh = self.log.frames(*self.frames.delivered());
        let mut unfinished = std::mem::replace(&mut self.frames, fresh);
        self.frames.take_received(&mut unfinished);
        let received = self.frames.received();
        let end = loop {
            match self.read_once().await {
                End::Apart => {}
                end => break end,
            }
        };
        let has_sent = self.position().seen != position.seen || self.frames.received() != received;
        if !matches!(end, End::Whole) && !has_sent {
            unfinished.take_received(&mut self.frames);
            self.frames = unfinished.continue_from(*self.frames.delivered());
        }
        match end {
            End::Whole => self.flush().await,
            // The beginning of an unfinished line is all there will be of it.
            end if end.is_removed() && !self.log.plan.once => {
                self.flush().await;
                if std::mem::take(&mut self.may_have_more) {
                    return Err(end);
                }
            }
            end => return Err(end),
        }
        self.may_have_more = false;
        Ok(())
    }

    /// Sends an unfinished line as it is.
    async fn flush(&mut self) {
        let (item, receipt) = self.frames.flush();
        self.send(item, receipt).await;
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
        match self.frames.end() {
            Ok(position) => {
                if let Some(item) = position {
                    self.log.context.queue.send(item).await;
                }
                End::Whole
            }
            Err(_) => End::Apart,
        }
    }

    async fn request(&mut self, follow: bool) -> Result<LogStream, Error> {
        let docker = &self.log.context.docker;
        let is_docker_before = |newest: Version| !docker.is_podman() && docker.api_version() < newest;
        let mode = match follow {
            true => Mode::Follow { may_repeat: is_docker_before(SENDS_ONCE) },
            false => Mode::Read,
        };
        let RequestRange { since, tail } = self.frames.request(mode);
        // With `since`, older daemons leave out files that were rotated after a compressed one that ends before it. With
        // `tail` as well that does no harm: the overlap is missing then.
        let since = since.filter(|_| tail.is_some() || !is_docker_before(HEEDS_SINCE));
        let query = LogsQuery { follow, since, until: self.log.until(), tail, ..LogsQuery::default() };
        let body = match self.rest.take().filter(|_| !follow) {
            Some(rest) => rest,
            None => self.log.context.docker.logs_within(self.limit, &self.log.plan.id, &query).await?,
        };
        if !std::mem::replace(&mut self.is_readable, true) {
            self.log.report(StreamReport::Readable(self.log.plan.key, true));
        }
        if let Some(Announcement { cause }) = self.announcement.take() {
            let announcement = match self.is_history {
                true => Item::History(self.log.plan.key, self.log.context.route),
                false => Item::Followed(self.log.plan.key, self.log.context.route, cause),
            };
            self.log.context.queue.send(announcement).await;
        }
        Ok(body)
    }

    async fn take(&mut self, chunk: Result<Bytes, Error>) -> Result<(), End> {
        let Decoded { item, receipt, end } = self.frames.push(&chunk.map_err(End::Broken)?);
        self.send(item, receipt).await;
        end.map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: tail::Error) -> End {
        let tail::Error::Discontinuity(failure) = error else { return End::Malformed(error) };
        self.may_repeat |= failure == Discontinuity::PossibleRepeat;
        End::Apart
    }

    async fn send(&mut self, item: Option<Item>, receipt: Receipt) {
        if let Some(item) = item {
            self.log.context.queue.send(item).await;
        }
        let has_new_lines = self.frames.commit(receipt);
        self.progress.send_replace(self.frames.since());
        if has_new_lines {
            self.idle.restart(Instant::now());
        }
    }

    /// Waits for the next bytes, and probes while there are none.
    async fn next(&mut self, body: &mut LogStream, due: Option<Instant>) -> Result<Option<Result<Bytes, Error>>, End> {
        loop {
            // Before the first record arrives, the daemon may still be reading through the log.
            let renewal = due.filter(|_| self.frames.newest().is_some()).map(|due| due.max(Instant::now() + QUIET));
            let wake = renewal.map_or(self.idle.next(), |renewal| renewal.min(self.idle.next()));
            match timeout_at(wake, body.next()).await {
                Ok(chunk) => return Ok(chunk),
                Err(_) if renewal.is_some_and(|renewal| renewal <= Instant::now()) => return Err(End::Due),
                Err(_) => {}
            }
            let probe = tokio::select! {
                biased;
                chunk = body.next() => return Ok(chunk),
                probe = self.probe() => probe,
            };
            if self.has_missed_lines(probe) {
                return Err(End::Stuck);
            }
        }
    }

    /// Checks whether the log has records that were not read. Costs a request, unless the file shows that nothing was
    /// written.
    async fn probe(&self) -> Probe {
        let stat = self.log.folder.as_ref().and_then(|folder| LogStat::of(folder, &self.log.plan.id));
        if *self.log.is_paused.borrow() || stat.is_some() && stat == self.read_up_to {
            return Probe::Unknown;
        }
        let last = self.position().last().filter(|_| self.log.dialect() == Dialect::Podman);
        let ahead = async {
            match last {
                Some(last) => self.counted_ahead(last.time).await,
                None => {
                    let newest = self.newest().await?;
                    Ok(newest.and_then(|newest| ahead(newest, self.frames.newest(), &self.position())))
                }
            }
        };
        match timeout(PROBE_LIMIT, ahead).await {
            Ok(Ok(time)) => time.map_or(Probe::UpToDate(stat), Probe::Ahead),
            Ok(Err(_)) | Err(_) => Probe::Unknown,
        }
    }

    /// Whether the probe has found lines that the pending request will not bring.
    fn has_missed_lines(&mut self, probe: Probe) -> bool {
        self.idle.probed(Instant::now());
        match probe {
            Probe::Ahead(time) => {
                tracing::info!(id = self.log.plan.id, %time, "the log grew but no line arrived: making a new request");
                if self.position().since.is_some_and(|since| time < since) {
                    // The clock was set back, and Docker up to 23 leaves out records from before `since`.
                    self.frames.read_from_start();
                }
                true
            }
            Probe::UpToDate(stat) => {
                self.read_up_to = stat;
                false
            }
            Probe::Unknown => false,
        }
    }

    /// Podman's records carry no identity but their time, which many lines may share. So the lines from the second of the
    /// last one on are counted.
    async fn counted_ahead(&self, last: Timestamp) -> Result<Option<Timestamp>, End> {
        let position = self.position();
        let since = self.log.begin().since.map_or(last, |begin| last.max(begin));
        let mut frames = self.log.frames(Delivered::up_to(TimePosition::at(Some(since))));
        let RequestRange { since, .. } = frames.request(Mode::Follow { may_repeat: false });
        let query = LogsQuery { since, until: self.log.until(), ..LogsQuery::default() };
        let mut body = self.log.context.docker.logs(&self.log.plan.id, &query).await.map_err(End::Broken)?;
        while let Some(chunk) = body.next().await {
            frames.push(&chunk.map_err(End::Broken)?).end.map_err(End::Malformed)?;
        }
        let is_ahead = |(newest, delivered): (Option<Mark>, Option<Mark>)| {
            newest
                .filter(|newest| delivered.is_none_or(|last| (newest.time, newest.ordinal) > (last.time, last.ordinal)))
        };
        let pairs = frames.position().seen.into_iter().zip(position.seen);
        Ok(pairs.filter_map(is_ahead).map(|newest| newest.time).max())
    }

    async fn newest(&self) -> Result<Option<Record>, End> {
        let mut frames = self.log.all_frames();
        let query = LogsQuery { tail: Some(1), ..LogsQuery::default() };
        let mut body = self.log.context.docker.logs(&self.log.plan.id, &query).await.map_err(End::Broken)?;
        while let Some(chunk) = body.next().await {
            frames.push(&chunk.map_err(End::Broken)?).end.map_err(End::Malformed)?;
        }
        let _ = frames.flush();
        Ok(frames.newest())
    }
}

//! Reads one container over the API, through its restarts and the engine's.
//!
//! In: an engine, a place to start, and what happens to the container. Out: items on the queue. A request ends when the
//! container stops, the engine goes or the connection breaks, and does not say which; each next one starts at the
//! position of the last line, so it makes no difference to what is read.

use crate::batch::{Batch, Cursor, Item, Key, Route};
use crate::docker::backoff::{Backoff, Settings};
use crate::docker::{Docker, Error, LogsQuery};
use crate::position::Resume;
use crate::queue::Queue;
use crate::tail::{self, Frames, Start, Window};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

const BACKOFF: Settings =
    Settings { initial: Duration::from_millis(200), max: Duration::from_secs(10), multiplier: 2.0 };
/// Between the end of a request and the event that tells why.
const GRACE: Duration = Duration::from_millis(500);

/// What happens to the container.
pub(super) enum Signal {
    /// It runs again.
    Up,
    /// It will write no more for now: read to the end, then put this on the queue.
    Finish(Vec<Item>),
}

/// What is read, and from where.
pub(super) struct Stream {
    pub(super) docker: Docker,
    pub(super) queue: Arc<Queue>,
    pub(super) key: Key,
    pub(super) id: String,
    /// A moment instead of the last no lines: those would be counted when the request is made.
    pub(super) start: Start,
    /// Another route has come this far.
    pub(super) resume: Option<Resume>,
    pub(super) window: Window,
    pub(super) max_line_size: usize,
    /// Read what is there, and no more.
    pub(super) once: bool,
    /// Of the wanted lines, where only the last so many are; and how far the log went when they were counted.
    pub(super) first: Option<(Cursor, Resume)>,
}

/// How a request went.
enum End {
    /// The engine closed it after the last byte.
    Whole,
    Broken(Error),
    Malformed(tail::Error),
}

impl Stream {
    /// Until nothing more can come of it.
    pub(super) async fn run(mut self, mut signals: UnboundedReceiver<Signal>) {
        if let Err(error) = self.find_first().await {
            return self.give_up(&error, &mut signals).await;
        }
        let mut position = self.resume.unwrap_or_else(|| self.first_position());
        let mut frames = self.frames(position);
        if self.once {
            let end = self.request(&mut frames, &mut position, false).await;
            self.tell(&end).await;
            return self.flush(&mut frames).await;
        }
        self.queue.send(Item::Begin(self.key, Route::Stream)).await;
        let mut backoff = Backoff::new(BACKOFF);
        loop {
            let before = position;
            let (end, signal) = tokio::select! {
                end = self.request(&mut frames, &mut position, true) => (end, None),
                // Cutting the request short is safe: the position moves when a line is on the queue, not before.
                signal = signals.recv() => (End::Whole, Some(signal)),
            };
            if let End::Broken(Error::NoLogs { .. }) = &end {
                return self.tell(&end).await;
            }
            if position != before {
                backoff.reset();
            }
            // A request that ended well says nothing about the container; the event that does comes at about this time.
            let wait = backoff.wait(fastrand::f64()).max(GRACE);
            let signal = match signal {
                Some(signal) => Ok(signal),
                None => tokio::time::timeout(wait, signals.recv()).await,
            };
            match signal {
                Err(_) | Ok(Some(Signal::Up)) => {}
                Ok(Some(Signal::Finish(then))) => {
                    self.finish(&mut frames, &mut position, then).await;
                    if self.rest(&mut signals).await.is_none() {
                        return;
                    }
                    self.queue.send(Item::Begin(self.key, Route::Stream)).await;
                    backoff.reset();
                }
                Ok(None) => return,
            }
        }
    }

    async fn find_first(&mut self) -> Result<(), Error> {
        if let (Start::Last(lines @ 1..), None) = (self.start, self.resume) {
            self.first = self.last_lines(lines).await?;
        }
        Ok(())
    }

    fn frames(&self, position: Resume) -> Frames {
        let mut frames = Frames::new(self.key, self.window, self.max_line_size);
        if let (Some((first, known)), true) = (self.first, position.is_at_start()) {
            frames.start_at(first, known);
        }
        frames
    }

    fn first_position(&self) -> Resume {
        Resume::at(match self.start {
            // The engine passes over a compressed file whose last line is earlier, though the other stream's need not be.
            Start::Since(time) => Some(tail::before(time)),
            // The other stream's line behind it may have an earlier time.
            Start::Last(_) => self.first.map(|(first, _)| tail::before(first.time)),
            Start::Beginning | Start::All => None,
        })
    }

    /// The first of the last so many lines. The request counts records, of which a long line has several, so it is asked
    /// for more until one line more than wanted has come whole.
    async fn last_lines(&self, wanted: u64) -> Result<Option<(Cursor, Resume)>, Error> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut records = wanted as u64 + 16;
        loop {
            let mut frames = Frames::new(self.key, Window::default(), self.max_line_size);
            let mut cursors = VecDeque::new();
            let mut count = 0;
            let mut keep = |item: Option<Item>| {
                if let Some(Item::Lines(Batch { lines, .. })) = item {
                    count += lines.len();
                    cursors.extend(lines.iter().map(crate::batch::Line::cursor));
                    let surplus = cursors.len().saturating_sub(wanted);
                    cursors.drain(..surplus);
                }
            };
            let query = LogsQuery { tail: Some(records), ..LogsQuery::default() };
            let mut body = self.docker.logs(&self.id, &query).await?;
            while let Some(chunk) = body.next().await {
                keep(frames.push(&chunk?).unwrap_or_default());
            }
            keep(frames.flush());
            if count > wanted || frames.records() < records {
                return Ok(cursors.pop_front().map(|first| (first, frames.position())));
            }
            records = records.saturating_mul(4);
        }
    }

    /// One request, from the position to its end.
    async fn request(&self, frames: &mut Frames, position: &mut Resume, follow: bool) -> End {
        frames.resume(*position);
        let query = LogsQuery { follow, since: position.since, ..LogsQuery::default() };
        let mut body = match self.docker.logs(&self.id, &query).await {
            Ok(body) => body,
            Err(error) => return End::Broken(error),
        };
        while let Some(chunk) = body.next().await {
            let pushed = match chunk {
                Ok(chunk) => frames.push(&chunk),
                Err(error) => return End::Broken(error),
            };
            match pushed {
                Ok(Some(item)) => self.queue.send(item).await,
                Ok(None) => {}
                Err(error) => return End::Malformed(error),
            }
            *position = frames.position().or(*position);
        }
        End::Whole
    }

    /// The container has died: what a followed stream may have left out is read again, then the end is told.
    async fn finish(&self, frames: &mut Frames, position: &mut Resume, then: Vec<Item>) {
        let mut again = self.frames(*position);
        match self.request(&mut again, position, false).await {
            End::Whole => *frames = again,
            // Removed meanwhile: what has begun of a last line is all that there will be of it.
            End::Broken(Error::NotFound { .. } | Error::Conflict { .. }) => {}
            end => self.tell(&end).await,
        }
        self.flush(frames).await;
        *position = frames.position().or(*position);
        self.send_all(then).await;
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

    async fn flush(&self, frames: &mut Frames) {
        if let Some(item) = frames.flush() {
            self.queue.send(item).await;
        }
    }

    async fn give_up(&self, error: &Error, signals: &mut UnboundedReceiver<Signal>) {
        self.queue.send(Item::Notice(Some(self.key), format!("cannot be followed: {error}"))).await;
        while !self.once && self.rest(signals).await.is_some() {}
    }

    async fn tell(&self, end: &End) {
        let why = match end {
            End::Whole => return,
            End::Broken(error) => error.to_string(),
            End::Malformed(error) => error.to_string(),
        };
        self.queue.send(Item::Notice(Some(self.key), why)).await;
    }
}

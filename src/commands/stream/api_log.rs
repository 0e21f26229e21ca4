//! One container's log over the API: what to read of it, and what is needed to read it.

use crate::docker::{Docker, Error};
use crate::model::batch::{ContainerKey, Item};
use crate::model::line_id::{Cursor, Route};
use crate::model::position::TimePosition;
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::tail::{self, Delivered, Dialect, Frames, Start, Window};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

/// What a task has to know about its container.
#[derive(Debug)]
pub(in crate::commands) enum Signal {
    /// The container runs again.
    Up,
    /// It writes no more for now: read its log to the end, then put these items on the queue.
    Finish(Vec<Item>),
}

/// How a task ended: `Err` if it has not read everything, with the error of the daemon or the connection if
/// that was the reason.
pub(in crate::commands) type Outcome = Result<(), Option<Error>>;

/// What a stream task reports.
#[derive(Debug)]
pub(in crate::commands) enum StreamReport {
    /// Whether the daemon answers requests for this container's log.
    Readable(ContainerKey, bool),
    /// The task waits, because as many streams are open as the configuration allows.
    NoPermit(String),
    /// Whether a task that has to reach an end gave up waiting for the daemon (`true`), or reached it (`false`).
    GaveUp(bool),
    /// The task for the container with this key and ID has ended.
    Ended(ContainerKey, String, Outcome),
}

/// What to read of one container.
#[derive(Clone, Debug)]
pub(in crate::commands) struct StreamPlan {
    pub(in crate::commands) key: ContainerKey,
    pub(in crate::commands) id: String,
    /// Whether it runs. If not, nothing is requested before it starts or [`Signal::Finish`] arrives.
    pub(in crate::commands) is_up: bool,
    /// Whether it was ever started, so that it may have written lines.
    pub(in crate::commands) has_run: bool,
    /// Read only what it wrote before it was found, until it starts again.
    pub(in crate::commands) is_history: bool,
    /// Whether it is paused at first: up, but unable to write.
    pub(in crate::commands) is_paused: bool,
    /// The daemon's time of the event that reported it.
    pub(in crate::commands) cause: Option<Timestamp>,
    /// Where to start without `resume`. Never `Last(0)`: the daemon evaluates `tail=0` when the request arrives, so
    /// reading starts from when the container was first seen.
    pub(in crate::commands) start: Start,
    /// How far an earlier run or another route has read.
    pub(in crate::commands) resume: Option<TimePosition>,
    pub(in crate::commands) window: Window,
    /// Read what is there, then end.
    pub(in crate::commands) once: bool,
}

/// What all stream tasks share.
#[derive(Clone)]
pub(in crate::commands) struct StreamContext {
    pub(in crate::commands) docker: Docker,
    pub(in crate::commands) queue: Arc<Queue>,
    /// One of the routes over the API.
    pub(in crate::commands) route: Route,
    /// Time from one request to the next, with `rotate` and `poll`.
    pub(in crate::commands) interval: Duration,
    /// Messages that have more bytes than this are cut.
    pub(in crate::commands) max_line_size: usize,
    pub(in crate::commands) reports: UnboundedSender<StreamReport>,
    /// Set while another task has used up its retry budget, so that this one fails faster.
    pub(in crate::commands) shorten_retries: watch::Receiver<bool>,
}

/// The log of one container.
pub(in crate::commands) struct ApiLog {
    pub(super) context: StreamContext,
    pub(super) plan: StreamPlan,
    /// The container's folder, if its log file can be checked without a request.
    pub(super) folder: Option<PathBuf>,
    pub(super) is_paused: watch::Receiver<bool>,
    /// With `Start::Last`: the first line to print, and the end of the log when that line was determined.
    pub(super) first: Option<(Cursor, TimePosition)>,
}

impl ApiLog {
    pub(in crate::commands) fn new(
        context: StreamContext,
        plan: StreamPlan,
        folder: Option<PathBuf>,
        is_paused: watch::Receiver<bool>,
    ) -> Self {
        ApiLog { context, plan, folder, is_paused, first: None }
    }

    /// A decoder that continues behind what was delivered.
    pub(super) fn frames(&self, delivered: Delivered) -> Frames {
        let dialect = self.dialect();
        let window = Window { since: dialect.reported(self.plan.window.since), ..self.plan.window };
        let frames = Frames::new(self.plan.key, self.context.route, window, self.context.max_line_size);
        let mut frames = frames.with_dialect(dialect, self.begin().since).continue_from(delivered);
        if let (Some((first, known)), true) = (self.first, delivered.position().is_at_start()) {
            frames.start_at(first, known);
        }
        frames
    }

    /// A decoder for all lines, whenever they were written.
    pub(super) fn all_frames(&self) -> Frames {
        Frames::new(self.plan.key, self.context.route, Window::default(), self.context.max_line_size)
    }

    /// Podman has to apply `until` itself: the times in its answers do not suffice.
    pub(super) fn until(&self) -> Option<Timestamp> {
        let until = self.plan.window.until;
        (self.dialect() == Dialect::Podman && until < Window::default().until).then_some(until)
    }

    pub(super) fn dialect(&self) -> Dialect {
        if self.context.docker.is_podman() { Dialect::Podman } else { Dialect::Docker }
    }

    /// The position that reading starts from.
    pub(super) fn begin(&self) -> TimePosition {
        self.plan.resume.unwrap_or_else(|| self.first_position())
    }

    fn first_position(&self) -> TimePosition {
        TimePosition::at(match self.plan.start {
            // Podman compares the time of each line, and what it sends of a second begins exactly there.
            Start::Since(time) if self.dialect() == Dialect::Podman => Some(time),
            // Docker skips a compressed file whose last line is earlier, although lines of the other stream in
            // it may be later.
            Start::Since(time) => Some(tail::minus_slack(time)),
            // A later line of the other stream may have an earlier time.
            Start::Last(_) => self.first.map(|(first, _)| tail::minus_slack(first.time)),
            Start::All => None,
        })
    }

    pub(super) fn report(&self, report: StreamReport) {
        // Fails only when `watch` is stopping.
        let _ = self.context.reports.send(report);
    }
}

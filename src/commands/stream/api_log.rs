//! One container's log over the API: what to read of it, and what is needed to read it.

use crate::docker::{Docker, Error};
use crate::model::batch::{ContainerKey, Item};
use crate::model::cursor::{Cursor, Route};
use crate::model::position::TimePosition;
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::tail::{self, Delivered, Dialect, Frames, Start, Window};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

/// What happens to a container.
#[derive(Debug)]
pub(in crate::commands) enum Signal {
    /// The container runs again.
    Up,
    /// It writes no more for now: read to the end, then put these items on the queue.
    Finish(Vec<Item>),
}

/// How a task ended: with an error if it has not read everything, and with the error of the daemon or the connection if
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
    /// Whether it runs. If not, nothing is requested before it starts or its end is asked for.
    pub(in crate::commands) is_up: bool,
    /// It was started at some time, so it may have written lines.
    pub(in crate::commands) has_run: bool,
    /// Read only what it wrote before it was found, until it starts again.
    pub(in crate::commands) is_history: bool,
    /// Whether it is paused at first, so that it cannot write though it is up.
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
    /// Whether another task has waited in vain for the daemon to come back. Then the others need not wait as long.
    pub(in crate::commands) shorten_retries: watch::Receiver<bool>,
}

/// The log of one container.
pub(in crate::commands) struct ApiLog {
    pub(super) context: StreamContext,
    pub(super) plan: StreamPlan,
    /// Where its log can be looked at without asking the daemon, if anywhere.
    pub(super) folder: Option<PathBuf>,
    pub(super) is_paused: watch::Receiver<bool>,
    /// With `Start::Last`, the first line that is wanted, and how far the log went when that was found out.
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
            // Docker skips a compressed file whose last line is earlier, though lines of the other stream in it need not
            // be.
            Start::Since(time) => Some(tail::minus_slack(time)),
            // A line of the other stream behind it may have an earlier time.
            Start::Last(_) => self.first.map(|(first, _)| tail::minus_slack(first.time)),
            Start::Beginning | Start::All => None,
        })
    }

    pub(super) fn report(&self, report: StreamReport) {
        // Fails only when `watch` is stopping.
        let _ = self.context.reports.send(report);
    }
}

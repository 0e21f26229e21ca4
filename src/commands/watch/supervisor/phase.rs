//! What the supervisor knows of one container.

use crate::model::batch::{ContainerKey, Item};
use crate::model::line_id::Route;
use crate::model::position::Position;
use crate::model::time::Timestamp;
use crate::tail::Start;

/// How a container is read; the table in the documentation of [`super`] describes each phase.
#[derive(Debug)]
pub(super) enum Phase {
    Waiting,
    Held(HeldContainer),
    Idle,
    File,
    Stream,
    FileToEnd,
    /// Contains items to print after the last line that arrived after the channel to the task was closed.
    StreamToEnd(Vec<Item>),
}

impl Phase {
    /// Returns whether `watch` cannot end before the container has left this phase. A watch that follows ends only at
    /// `--until`, which leaves no container in `File` or `Stream`.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self, Phase::Held(_) | Phase::FileToEnd | Phase::StreamToEnd(_))
    }

    /// Returns whether a stream task reads the container.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self, Phase::Stream | Phase::StreamToEnd(_))
    }

    /// Returns whether the reader has the container's file, even if it is held.
    pub(super) fn has_file(&self) -> bool {
        matches!(self, Phase::File | Phase::FileToEnd | Phase::Held(HeldContainer { has_file: true, .. }))
    }

    /// Returns whether nobody reads the container or has its file open.
    pub(super) fn is_unread(&self) -> bool {
        !self.is_streamed() && !self.has_file()
    }

    /// Returns the route by which the container is read; `None` if it is not read.
    pub(super) fn route(&self, api_route: Route) -> Option<Route> {
        match self {
            phase if phase.is_streamed() => Some(api_route),
            phase if phase.has_file() => Some(Route::File),
            _ => None,
        }
    }
}

/// What happened to a container while it is not known whether it is selected.
#[derive(Debug, Default)]
pub(super) struct HeldContainer {
    /// Whether the reader has its file open. It reads nothing of it yet.
    pub(super) has_file: bool,
    /// Items to print before its first line.
    pub(super) before: Vec<Item>,
    /// If it stopped while nobody read it: items to print after its last line.
    pub(super) after: Option<Vec<Item>>,
    pub(super) is_removed: bool,
    /// Whether it is selected, and held only until it has started and its labels and networks are known.
    pub(super) awaits_start: bool,
}

/// A container that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) key: ContainerKey,
    /// Where to start in its log if `position` is `None`.
    pub(super) start: Start,
    /// Where an earlier run stopped, with `--resume`.
    pub(super) position: Option<Position>,
    /// When it was added, by our clock.
    pub(super) found_at: Timestamp,
    /// The daemon's time of the event that reported its last start or, before that, the container itself.
    pub(super) cause: Option<Timestamp>,
    pub(super) is_up: bool,
    /// Whether it is paused: up, but unable to write.
    pub(super) is_paused: bool,
    /// Whether the daemon answers requests for its log. Meaningless while the reader has its file.
    pub(super) is_readable: bool,
    /// Whether it ran while it was followed and does not run now.
    pub(super) has_died: bool,
    /// Whether it was ever started, so that it may have written lines.
    pub(super) has_run: bool,
    /// Whether it has not run since it was found, so that only earlier lines are read.
    pub(super) is_history: bool,
    /// Whether the reader was ever asked to open its file; if so, it must be asked to forget it in the end.
    pub(super) is_with_reader: bool,
    pub(super) phase: Phase,
}

impl Followed {
    pub(super) fn held_mut(&mut self) -> Option<&mut HeldContainer> {
        match &mut self.phase {
            Phase::Held(held) => Some(held),
            _ => None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held(_))
    }
}

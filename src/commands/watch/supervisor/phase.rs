//! What the supervisor knows of one container.

use crate::model::batch::{ContainerKey, Item};
use crate::model::cursor::Route;
use crate::model::position::Position;
use crate::model::time::Timestamp;
use crate::tail::Start;

/// The phases are described in a table at the top of [`super`].
#[derive(Debug)]
pub(super) enum Phase {
    Waiting,
    HeldName(HeldName),
    Idle,
    File,
    Stream,
    FileToEnd,
    /// With what is to be printed behind the last line, where that became known after the channel to the task was closed.
    StreamToEnd(Vec<Item>),
}

impl Phase {
    /// Whether `watch` cannot end before the container has left this phase. When it follows, it ends only with `--until`,
    /// which leaves none in `File` or `Stream`.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self, Phase::HeldName(_) | Phase::FileToEnd | Phase::StreamToEnd(_))
    }

    /// Whether a stream task reads it.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self, Phase::Stream | Phase::StreamToEnd(_))
    }

    /// Whether the reader has it, including a held one.
    pub(super) fn has_file(&self) -> bool {
        matches!(self, Phase::File | Phase::FileToEnd | Phase::HeldName(HeldName { has_file: true, .. }))
    }

    /// Whether nobody reads it, and nobody has its file open.
    pub(super) fn is_unread(&self) -> bool {
        !self.is_streamed() && !self.has_file()
    }

    /// By which route it is read, if it is.
    pub(super) fn route(&self, api_route: Route) -> Option<Route> {
        match self {
            phase if phase.is_streamed() => Some(api_route),
            phase if phase.has_file() => Some(Route::File),
            _ => None,
        }
    }
}

/// What happens to a container while it is not known whether it is wanted.
#[derive(Debug, Default)]
pub(super) struct HeldName {
    /// The reader has its file open, and reads nothing of it yet.
    pub(super) has_file: bool,
    /// To be printed before its first line.
    pub(super) before: Vec<Item>,
    /// It stopped while nobody read it: what to print behind its last line.
    pub(super) after: Option<Vec<Item>>,
    pub(super) is_removed: bool,
    /// It is wanted. It is held only until it has started and its labels and networks are known.
    pub(super) awaits_start: bool,
}

/// A container that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) key: ContainerKey,
    /// Where to start in its log, if it has no position.
    pub(super) start: Start,
    /// Where an earlier run stopped.
    pub(super) position: Option<Position>,
    /// When it was found, by our clock.
    pub(super) found_at: Timestamp,
    /// The daemon's time of the event that reported its last start or, before that, the container itself.
    pub(super) cause: Option<Timestamp>,
    pub(super) is_up: bool,
    /// A paused container is up and cannot write.
    pub(super) is_paused: bool,
    /// Whether the daemon answers requests for its log. Means nothing while the reader has it.
    pub(super) is_readable: bool,
    /// It ran while it was followed, and does not run now.
    pub(super) has_died: bool,
    /// It was started at some time, so it may have written lines.
    pub(super) has_run: bool,
    /// It has not run since it was found: what is read is what it wrote before.
    pub(super) is_history: bool,
    /// Whether the reader was ever asked to open its file. If so, the reader has to forget it in the end.
    pub(super) is_with_reader: bool,
    pub(super) phase: Phase,
}

impl Followed {
    pub(super) fn held_mut(&mut self) -> Option<&mut HeldName> {
        match &mut self.phase {
            Phase::HeldName(held) => Some(held),
            _ => None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::HeldName(_))
    }
}

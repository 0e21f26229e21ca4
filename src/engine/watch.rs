//! What `watch` was asked to do.

use crate::output::Settings;
use crate::selector::Selector;
use crate::time::Timestamp;
use std::time::Duration;

/// Everything `watch` can be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which containers.
    pub selector: Selector,
    /// Stopped containers' history too; a container that the selector names is always included.
    pub all: bool,
    /// Lines from this moment on.
    pub since: Option<Timestamp>,
    /// Lines up to this moment.
    pub until: Option<Timestamp>,
    /// Lines of history per container; `None` is all.
    pub tail: Option<u64>,
    /// Go on with what is written from now on, and with containers that start from now on.
    pub follow: bool,
    /// By which route containers are read.
    pub source: Source,
    /// Pause between two API reads of `rotate` (stream renewed) and `poll`.
    pub interval: Duration,
    /// Bytes of a message beyond which it is cut.
    pub max_line_size: usize,
    /// Tell what would be done, and by which route, then stop.
    pub dry_run: bool,
    /// What is shown, and how.
    pub output: Settings,
}

/// How a container's log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The file where it can be opened, else the stream.
    #[default]
    Auto,
    /// Files only.
    File,
    /// One long API stream.
    Stream,
    /// API streams renewed at an interval.
    Rotate,
    /// API reads at an interval.
    Poll,
}

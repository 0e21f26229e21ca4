//! The options of `watch`: command line, environment and configuration file, resolved and checked.

use super::resume::Resume;
use crate::config::{DockerConfig, EventsConfig, Source};
use crate::model::container::Container;
use crate::model::selector::Selector;
use crate::model::time::Timestamp;
use crate::output::PrinterSettings;
use crate::tail::{Start, Window};
use std::path::PathBuf;
use std::time::Duration;

/// Everything that decides what `watch` does.
#[derive(Clone, Debug)]
pub(crate) struct WatchOptions {
    /// Which containers to read.
    pub selector: Selector,
    /// Also read what stopped containers wrote. Containers that the selector names are read in any case.
    pub all: bool,
    /// Print only lines from this time on.
    pub since: Option<Timestamp>,
    /// Print only lines up to this time; following ends then.
    pub until: Option<Timestamp>,
    /// Lines of history per container; `None` means all of it.
    pub tail: Option<u64>,
    /// Wait for new lines and for containers that start later.
    pub follow: bool,
    /// The routes that may be used.
    pub source: Source,
    /// Time from one API request to the next. Used by the routes `rotate` and `poll` only.
    pub interval: Duration,
    /// Continue where the last run with this name stopped, and record where this run stops.
    pub resume: Option<Resume>,
    /// The state file in which to keep the inventory while following. The same file as that of `resume`,
    /// if both are set.
    pub inventory: Option<PathBuf>,
    /// Path of the state file, even if nothing is stored in it: the lock of the output file is created next to it.
    pub lock_base: Option<PathBuf>,
    /// Messages that have more bytes than this are cut into several records.
    pub max_line_size: usize,
    /// Print which containers would be read by which route, then exit.
    pub dry_run: bool,
    /// Where lines go, in which format.
    pub output: PrinterSettings,
    /// The connections to the daemon, with their limits and retries.
    pub docker: DockerConfig,
    /// Whether to subscribe to events, and how many may wait.
    pub events: EventsConfig,
    /// How long the answer to a lookup stays valid.
    pub metadata_cache_ttl: Duration,
    /// `host:port` on which to serve metrics and health.
    pub listen: Option<String>,
}

impl WatchOptions {
    /// Whether to read what a container wrote before it stopped.
    pub(super) fn wants_stopped(&self, container: &Container) -> bool {
        self.all || self.selector.includes_stopped() || self.selector.names_container(container)
    }

    /// Whether to subscribe to the daemon's events. A run that does not follow needs none.
    pub(super) fn wants_events(&self) -> bool {
        self.events.enabled && self.follow && !self.dry_run
    }

    /// Where to start in the log of a container that exists when `watch` starts.
    pub(super) fn history(&self) -> Start {
        match (self.tail, self.since) {
            (Some(lines), _) => Start::Last(lines),
            (None, Some(since)) => Start::Since(since),
            (None, None) => Start::All,
        }
    }

    pub(super) fn window(&self) -> Window {
        let everything = Window::default();
        Window { since: self.since.unwrap_or(everything.since), until: self.until.unwrap_or(everything.until) }
    }
}

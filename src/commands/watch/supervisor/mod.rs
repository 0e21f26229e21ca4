//! Decides which containers `watch` reads, and by which route each is read at the moment.
//!
//! A pure state machine: one [`Input`] goes in, a list of [`Effect`]s comes out, to be carried out in that order. It
//! opens nothing, waits for nothing and reads no clock. Its only query is where a container's log is ([`LogFiles`]),
//! which the tests replace by a table. [`selection`] decides which containers are wanted, [`reading`] how they are
//! read, and [`phase`] holds what is known of each.
//!
//! # Phases
//!
//! Each container is in one of these phases. "The reader" is the thread that reads files; a "stream task" reads one
//! container over the API.
//!
//! | phase | read by | begins when | ends when |
//! |---|---|---|---|
//! | `Waiting` | nobody; `--no-follow`, as many as allowed are being read | it is found | another one is read to its end: `FileToEnd` or `StreamToEnd` |
//! | `Held` | nobody; the reader may have its file open | it is found, and it is not known yet whether it is selected | a lookup answers: `File`, `Stream`, `Idle`, or it is dropped |
//! | `Idle` | nobody | it is stopped and has no file, or was read to its end | it starts: `Stream` |
//! | `File` | the reader | it has a log file | the reader refuses it: `Stream`, or `Idle` with `--source file` |
//! | `Stream` | a stream task | it has no file that can be read | it is removed |
//! | `FileToEnd` | the reader, up to where the log ends now | `--no-follow`, or `--until` is reached | the reader reports the end: `Idle` |
//! | `StreamToEnd` | a stream task, up to where the log ends now | as for `FileToEnd` | the task ends: `Idle` |
//!
//! A container that was removed is `departing` until the reader has forgotten it, because a report that its file could
//! not be read may still be on its way.
//!
//! # Invariants
//!
//! - What happens to a container reaches the output after the lines that it wrote before: while its log is read, such
//!   items travel with [`Command::Finish`] or [`Signal::Finish`]; otherwise they are pushed at once.
//! - Of a held container, only the description reaches the output. Everything else waits in [`phase::HeldContainer`].
//! - A container is read by one party at a time. Only the reader's refusal moves it from a file to the API, and the
//!   refusal carries the position up to which the file was read.

mod phase;
mod reading;
mod selection;
#[cfg(test)]
mod tests;

use super::discovery::{Change, Discovery};
use super::feed::News;
use super::lookups::{Answer, Lookup};
use super::metadata::Metadata;
use super::resume::Positions;
use crate::commands::route::Choice;
use crate::commands::stream::{Signal, StreamPlan, StreamReport};
use crate::config::Source;
use crate::docker;
use crate::model::batch::{ContainerKey, Item, Lifecycle};
use crate::model::container::Container;
use crate::model::line_id::Route;
use crate::model::report_once::Once;
use crate::model::selector::Selector;
use crate::model::time::Timestamp;
use crate::tail::{Command, Report, Start, Window};
use phase::{Followed, Phase};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// What can happen to a watch.
#[derive(Debug)]
pub(super) enum Input {
    /// From the feed: a listing, an event, or that the daemon is gone or back.
    News(News),
    /// A report of the thread that reads files.
    Report(Report),
    /// A report of a stream task.
    Stream(StreamReport),
    /// The answer to an [`Effect::LookUp`].
    Lookup(Answer),
    /// The time of `--until` has come: every log is read to its current end.
    Finish,
}

/// What the executor has to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Send this to the reader.
    Command(Command),
    /// Start a stream task.
    Spawn(Box<StreamPlan>),
    /// Send a stream task what happened to its container.
    Signal(ContainerKey, Signal),
    /// Send a stream task whether its container is paused.
    Pause(ContainerKey, bool),
    /// Close the channel to a stream task: it reads to the end, then it ends.
    Close(ContainerKey),
    /// Set, for all stream tasks, whether another one has used up its retry budget, so that they fail faster.
    ShortenRetries(bool),
    /// Put these on the queue, with nothing in between.
    Push(Vec<Item>),
    LookUp(Lookup),
}

/// The time of an input, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: Timestamp,
}

impl Now {
    pub(super) fn read() -> Now {
        Now { instant: Instant::now(), time: Timestamp::now() }
    }
}

/// Access to the log files of containers.
pub(super) trait LogFiles {
    /// Returns how a container can be read in its current state.
    fn choose(&self, container: &Container) -> Choice;
    /// Returns whether the folder of a container's log is gone or cannot be seen.
    fn is_gone(&self, id: &str) -> bool;
}

/// What does not change while `watch` runs.
#[derive(Clone, Debug)]
pub(super) struct SupervisorSettings {
    pub(super) follow: bool,
    /// Whether to read what stopped containers wrote.
    pub(super) all: bool,
    /// Whether lines are printed with labels and networks.
    pub(super) metadata: bool,
    /// Where to start in the log of a container that exists when `watch` starts.
    pub(super) history: Start,
    pub(super) window: Window,
    pub(super) max_line_size: usize,
    pub(super) source: Source,
    /// The route of containers that have no file.
    pub(super) api_route: Route,
    /// The daemon's folder of all containers.
    pub(super) folder: PathBuf,
    /// How many containers are read at the same time with `--no-follow`. At least 1.
    pub(super) max_parallel: usize,
}

/// IDs of containers that were not read to the requested end, each with the error if the daemon or the connection to
/// it was the reason.
pub(super) type Unread = Vec<(String, Option<docker::Error>)>;

pub(super) struct Supervisor {
    settings: SupervisorSettings,
    files: Box<dyn LogFiles>,
    effects: Vec<Effect>,

    selector: Selector,
    discovery: Discovery,
    metadata: Metadata,
    /// Where the last run stopped, with `--resume`.
    positions: Option<Positions>,
    /// When this run started. Containers that are found later were created or started since.
    began: Timestamp,
    /// Whether the first listing has been processed.
    has_listed: bool,
    /// A notice said that the daemon cannot be reached, and none since that it is back.
    reported_loss: Once,
    /// IDs of removed containers that only the reader found, by their logs, because no event had reported them.
    claimed: HashSet<String>,
    /// IDs of the containers that pass the filters which only the daemon can evaluate; `None` without such filters.
    passing: Option<HashSet<String>>,
    /// Containers for which a lookup of `passing` is pending, each with whether it has changed since the request.
    filter_lookups: HashMap<String, bool>,
    /// Containers whose exit code is being looked up: the event of their end, and the changes that came after it.
    ending: HashMap<String, (Lifecycle, Vec<Change>)>,
    /// By ID, when a container stopped being followed because it was no longer selected.
    released: HashMap<String, Timestamp>,

    followed: HashMap<String, Followed>,
    ids: HashMap<ContainerKey, String>,
    /// Removed containers that the reader has not forgotten yet.
    departing: HashMap<ContainerKey, Phase>,
    /// Larger than all keys in use, so that no key is reused.
    next_key: u32,
    /// IDs in phase `Waiting`, in the order in which they are read.
    waiting: VecDeque<String>,
    /// How many containers are in a phase that has to end before `watch` can: see [`Phase::is_unfinished`].
    unfinished: usize,
    is_finishing: bool,
    unread: Unread,
    reported_denied: Once,
    reported_watches: Once,
    reported_permits: Once,
    /// Whether the latest stream task with an end to reach gave up waiting for the daemon.
    has_given_up: bool,
}

impl Supervisor {
    pub(super) fn new(
        settings: SupervisorSettings,
        files: Box<dyn LogFiles>,
        selector: Selector,
        metadata: Metadata,
        positions: Option<Positions>,
        now: Now,
    ) -> Self {
        Supervisor {
            settings,
            files,
            effects: Vec::new(),
            selector,
            discovery: Discovery::default(),
            metadata,
            positions,
            began: now.time,
            has_listed: false,
            reported_loss: Once::default(),
            claimed: HashSet::new(),
            passing: None,
            filter_lookups: HashMap::new(),
            ending: HashMap::new(),
            released: HashMap::new(),
            followed: HashMap::new(),
            ids: HashMap::new(),
            departing: HashMap::new(),
            next_key: 0,
            waiting: VecDeque::new(),
            unfinished: 0,
            is_finishing: false,
            unread: Unread::new(),
            reported_denied: Once::default(),
            reported_watches: Once::default(),
            reported_permits: Once::default(),
            has_given_up: false,
        }
    }

    /// Processes an input and returns the effects that follow from it.
    pub(super) fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::News(news) => self.news(news, now),
            Input::Report(report) => self.report(report, now),
            Input::Stream(report) => self.stream_report(report),
            Input::Lookup(answer) => self.answer(answer, now),
            Input::Finish => self.finish_all(),
        }
        self.start_waiting();
        std::mem::take(&mut self.effects)
    }

    /// Returns whether everything requested has been read. Containers wait only while others are unfinished.
    pub(super) fn is_done(&self) -> bool {
        let has_end = !self.settings.follow || self.is_finishing;
        has_end && self.unfinished == 0 && self.departing.is_empty()
    }

    /// How many running containers are being read, by [`Route`].
    pub(super) fn by_route(&self) -> [usize; Route::ALL.len()] {
        let mut counts = [0; Route::ALL.len()];
        for followed in self.followed.values().filter(|followed| followed.is_up) {
            match followed.phase.route(self.settings.api_route) {
                Some(Route::File) => counts[Route::File as usize] += 1,
                Some(route) if followed.is_readable => counts[route as usize] += 1,
                Some(_) | None => {}
            }
        }
        counts
    }

    /// Containers that could not be read to the end, by name, and the first error that was a reason. A container
    /// without a log counts only if the user named it.
    pub(super) fn into_unread(self) -> (Vec<String>, Option<docker::Error>) {
        let (mut names, mut source) = (Vec::new(), None);
        for (id, error) in self.unread {
            let container = self.discovery.container(&id);
            let is_named = container.is_none_or(|container| self.selector.names_container(container));
            if is_named || !matches!(error, Some(docker::Error::NoLogs { .. })) {
                names.push(container.map_or(id, |container| container.name.clone()));
                source = source.or(error);
            }
        }
        (names, source)
    }

    fn push(&mut self, items: impl IntoIterator<Item = Item>) {
        let items = Vec::from_iter(items);
        if !items.is_empty() {
            self.effects.push(Effect::Push(items));
        }
    }

    /// Prints a notice that is about no container in particular.
    fn notice(&mut self, text: impl Into<String>) {
        self.push([Item::Notice(None, text.into())]);
    }

    fn command(&mut self, command: Command) {
        self.effects.push(Effect::Command(command));
    }

    fn signal(&mut self, key: ContainerKey, signal: Signal) {
        self.effects.push(Effect::Signal(key, signal));
    }

    fn look_up(&mut self, lookup: Lookup) {
        self.effects.push(Effect::LookUp(lookup));
    }
}

//! Decides which containers `watch` reads, and by which route each is read at the moment.
//!
//! A pure state machine: one [`Input`] goes in, a list of [`Effect`]s comes out, to be carried out in that order. It
//! opens nothing, waits for nothing and reads no clock. All it asks of the outside is where a container's log is
//! ([`LogFiles`]), which the tests replace by a table. [`selection`] decides which containers are wanted, [`reading`] how
//! they are read, and [`phase`] holds what is known of each.
//!
//! # Phases
//!
//! Each container is in one of these phases. "The reader" is the thread that reads files; a "stream task" reads one
//! container over the API.
//!
//! | phase | read by | begins when | ends when |
//! |---|---|---|---|
//! | `Waiting` | nobody; `--no-follow`, no slot is free | it is found | a slot is free: `FileToEnd` or `StreamToEnd` |
//! | `HeldName` | nobody; the reader may have its file open | it is found, and whether it is wanted is not known | a lookup answers: `File`, `Stream`, `Idle`, or it is dropped |
//! | `Idle` | nobody | it is stopped and has no file, or has been read to the last end | it starts: `Stream` |
//! | `File` | the reader | it has a log file | the reader refuses it: `Stream`, or `Idle` with `--source file` |
//! | `Stream` | a stream task | it has no file that can be read | it is removed |
//! | `FileToEnd` | the reader, up to where the log ends now | `--no-follow`, or `--until` is reached | the reader reports the end: `Idle` |
//! | `StreamToEnd` | a stream task, up to where the log ends now | the same | the task ends: `Idle` |
//!
//! A container that was removed is `departing` until the reader has forgotten it, because a report that its file could
//! not be read may still be on its way.
//!
//! # What always holds
//!
//! - What happens to a container reaches the output behind the lines it wrote before: while somebody reads it, such items
//!   travel with [`Command::Finish`] or [`Signal::Finish`]; otherwise they are pushed at once.
//! - Nothing of a held container reaches the output but its name. What happens to it waits in [`phase::HeldName`].
//! - A container is read by one party at a time. Only the reader's refusal moves it from a file to the API, and the
//!   refusal carries the position up to which the file was read.

mod phase;
mod reading;
mod selection;
#[cfg(test)]
mod tests;

use super::discovery::{Change, Discovery};
use super::feed::News;
use super::lookups::{Answer, Question};
use super::metadata::Metadata;
use super::resume::Positions;
use crate::commands::route::Choice;
use crate::commands::stream::{Signal, StreamPlan, StreamReport};
use crate::config::Source;
use crate::docker;
use crate::model::batch::{ContainerKey, Item, Lifecycle};
use crate::model::container::Container;
use crate::model::cursor::Route;
use crate::model::once::Once;
use crate::model::selector::Selector;
use crate::model::time::Timestamp;
use crate::tail::{Command, Report, Start, Window};
use phase::{Followed, Phase};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Input {
    /// From the feed: a listing, an event, or that the daemon is gone or back.
    News(News),
    /// From the reader.
    Report(Report),
    /// From a stream task.
    Stream(StreamReport),
    /// The answer to a question that was an [`Effect::Ask`].
    Lookup(Answer),
    /// The time of `--until` has come: every log is read to where it ends now.
    Finish,
}

/// Something to do.
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
    /// Send all stream tasks whether another one has waited for the daemon for nothing, so that they need not wait as long.
    ShortenRetries(bool),
    /// Put these on the queue, next to each other.
    Push(Vec<Item>),
    Ask(Question),
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

/// Where log files are.
pub(super) trait LogFiles {
    /// How a container can be read as it is now.
    fn choose(&self, container: &Container) -> Choice;
    /// Whether the folder of a container's log is gone, or is not visible.
    fn is_gone(&self, id: &str) -> bool;
}

/// What does not change while `watch` runs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) follow: bool,
    /// Whether the history of stopped containers is wanted.
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
    pub(super) slots: usize,
}

/// Containers that were not read to the end that was asked for, by ID, each with the error if the daemon or the
/// connection to it was the reason.
pub(super) type Unread = Vec<(String, Option<docker::Error>)>;

pub(super) struct Supervisor {
    settings: Settings,
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
    /// It was reported that the daemon is gone, and not that it is back.
    reported_loss: Once,
    /// IDs of containers that no event reported and that were gone when the reader found their open logs.
    claimed: HashSet<String>,
    /// IDs of the containers that pass the filters which only the daemon can evaluate; `None` without such filters.
    passing: Option<HashSet<String>>,
    /// For each container of which it is looked up whether it passes, whether it has changed since the question.
    doubted: HashMap<String, bool>,
    /// Containers whose exit code is being looked up: the event of their end, and the changes that came after it.
    ending: HashMap<String, (Lifecycle, Vec<Change>)>,
    /// When containers were let go of that were followed before, by ID.
    released: HashMap<String, Timestamp>,

    followed: HashMap<String, Followed>,
    ids: HashMap<ContainerKey, String>,
    /// Removed containers that the reader has not forgotten yet.
    departing: HashMap<ContainerKey, Phase>,
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
    /// Whether the last stream task that had to reach an end gave up waiting for the daemon.
    has_given_up: bool,
}

impl Supervisor {
    pub(super) fn new(
        settings: Settings,
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
            doubted: HashMap::new(),
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

    /// Takes note of what happened, and returns what to do about it.
    pub(super) fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::News(news) => self.news(news, now),
            Input::Report(report) => self.report(report, now),
            Input::Stream(report) => self.stream_report(report),
            Input::Lookup(answer) => self.answer(answer, now),
            Input::Finish => self.finish_all(),
        }
        self.fill_slots();
        std::mem::take(&mut self.effects)
    }

    /// Whether everything that was asked for has been read. Containers wait for a slot only while others are unfinished.
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

    /// Containers that could not be read to the end, by name, and the first error that was a reason. A container without a
    /// log counts only if the user named it.
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

    fn ask(&mut self, question: Question) {
        self.effects.push(Effect::Ask(question));
    }
}

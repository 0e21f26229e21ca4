//! The containers that are followed, and how each is read at the moment.
//!
//! In: who is to be followed, who has died or gone, and what the reader thread reports. Out: commands to that thread,
//! tasks that read over the API, and items on the queue. Called by [`super::watch`], which decides who is wanted.

use super::options::WatchOptions;
use crate::commands::route::{Choice, Routes};
use crate::commands::stream::{Outcome, Signal, Stream};
use crate::config::Source;
use crate::docker::{Docker, Error};
use crate::model::batch::{ContainerKey, Cursor, Item, Lifecycle, Route};
use crate::model::container::Container;
use crate::model::position::{Position, TimePosition};
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::tail::{Command, Follow, Measure, Report, Start, Wake, Window};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Containers read at once when each is read only once.
const AT_ONCE: usize = 32;

/// Containers that could not be read to their end, by ID; with what the engine, or the way to it, failed.
pub(super) type Unread = Vec<(String, Option<Error>)>;

/// See the module.
pub(super) struct Supervisor {
    docker: Docker,
    pub(super) routes: Arc<Routes>,
    queue: Arc<Queue>,
    commands: mpsc::Sender<Command>,
    wake: Wake,
    window: Window,
    max_line_size: usize,
    interval: Duration,
    once: bool,
    tails: HashMap<String, Tail>,
    /// Of removed containers that the reader thread has not forgotten yet, so that what it reports of them still
    /// reaches the output.
    departing: HashMap<ContainerKey, Tail>,
    ids: HashMap<ContainerKey, String>,
    streams: JoinSet<(ContainerKey, String, Outcome)>,
    next_key: u32,
    /// Still to be read, when each is read only once.
    waiting: VecDeque<String>,
    /// Being read to their last end.
    reading: HashSet<ContainerKey>,
    /// All are to be read to where they end now, also those that are admitted later.
    is_finishing: bool,
    /// Those that were to be read to an end and could not be, by ID, and what the engine had to say.
    unread: Unread,
    /// The engine's time of the event that is dealt with.
    heard: Option<Timestamp>,
    told_denied: bool,
    told_no_watches: bool,
    /// Shared with the tasks, of which any may be the first to find no place, ...
    told_no_places: Arc<AtomicBool>,
    /// ... or the last that waited in vain for the engine to come back.
    has_given_up: Arc<AtomicBool>,
}

/// A container that is followed.
struct Tail {
    key: ContainerKey,
    start: Start,
    /// Where to go on, if it was read in an earlier run.
    position: Option<Position>,
    /// When it was met.
    met: Timestamp,
    /// The engine's time of the event that told of it last.
    told: Option<Timestamp>,
    is_up: bool,
    /// Runs, and cannot write now.
    is_paused: Arc<AtomicBool>,
    /// The engine lets us read it; of those that are read over the API.
    is_read: Arc<AtomicBool>,
    /// Ran, and does not run now.
    has_died: bool,
    /// It was started at some time, so it may have written.
    has_run: bool,
    /// It stands still since before it was met, and nothing but what it wrote before, if anything, is read.
    is_history: bool,
    /// The reader thread knows it, or has refused it.
    is_with_reader: bool,
    by: By,
    /// While it is not known whether it is wanted.
    held: Option<Held>,
}

/// What is told of a container once it is admitted, and not at all if it never is.
#[derive(Default)]
struct Held {
    happened: Vec<Item>,
    /// It has died, and nobody read it.
    ended: Option<Vec<Item>>,
    /// It was removed.
    is_gone: bool,
    /// It is wanted, and what is to be shown with its lines is known only once it runs.
    awaits_start: bool,
}

/// Who reads it.
enum By {
    /// Nobody yet.
    Nobody,
    /// The reader thread.
    File,
    /// A task, which is told what happens, as long as it is to go on.
    Stream(Option<UnboundedSender<Signal>>),
}

impl By {
    /// Tells the task that reads it, if one does.
    fn tell(&self, signal: Signal) {
        if let By::Stream(Some(signals)) = self {
            // One that has given up hears nothing.
            let _ = signals.send(signal);
        }
    }
}

impl Supervisor {
    /// Reports that the rest of a container's log, which nothing will be read of any more, is lost.
    pub(super) fn report_lost(&mut self, container: Container, route: Route, after: Option<Cursor>) {
        let key = ContainerKey(self.next_key);
        self.next_key += 1;
        let met = Item::Meet(key, Arc::new(container));
        self.queue.push([met, Item::unreadable(key, route, after), Item::Forget(key)]);
    }

    pub(super) fn new(
        docker: Docker,
        routes: Arc<Routes>,
        queue: Arc<Queue>,
        commands: mpsc::Sender<Command>,
        wake: Wake,
        options: &WatchOptions,
    ) -> Self {
        let tails = Supervisor {
            docker,
            routes,
            queue,
            commands,
            wake,
            window: options.window(),
            max_line_size: options.max_line_size,
            interval: options.interval,
            once: !options.follow,
            tails: HashMap::new(),
            departing: HashMap::new(),
            ids: HashMap::new(),
            streams: JoinSet::new(),
            next_key: 0,
            waiting: VecDeque::new(),
            reading: HashSet::new(),
            is_finishing: false,
            unread: Unread::new(),
            heard: None,
            told_denied: false,
            told_no_watches: false,
            told_no_places: Arc::default(),
            has_given_up: Arc::default(),
        };
        if options.follow
            && let Some(folder) = tails.routes.new_files()
        {
            tails.command(Command::Scout(folder.to_owned()));
        }
        tails
    }

    /// Whether it is followed.
    pub(super) fn has(&self, id: &str) -> bool {
        self.tails.contains_key(id)
    }

    /// What is asked for from now on follows from an event of that time, or from none.
    pub(super) fn follows(&mut self, event: Option<Timestamp>) {
        self.heard = event;
    }

    /// How many containers run and are read, by [`Route`].
    pub(super) fn by_route(&self) -> [usize; Route::ALL.len()] {
        let mut counts = [0; Route::ALL.len()];
        for tail in self.tails.values().filter(|tail| tail.is_up) {
            match tail.by {
                By::File => counts[Route::File as usize] += 1,
                By::Stream(_) if tail.is_read.load(Ordering::Relaxed) => {
                    counts[self.routes.over_api() as usize] += 1;
                }
                By::Stream(_) | By::Nobody => {}
            }
        }
        counts
    }

    /// Has it told how many bytes of log files are not written out.
    pub(super) fn measure(&self, tell: impl FnOnce(u64) + Send + 'static) {
        self.command(Command::Measure(Measure(Box::new(tell))));
    }

    /// A sentence for the user.
    pub(super) fn tell(&self, text: impl Into<String>) {
        self.queue.push([Item::Notice(None, text.into())]);
    }

    /// Follows a container from now on. Held, nothing of it is read before [`Supervisor::admit`].
    pub(super) fn add(&mut self, container: &Arc<Container>, start: Start, position: Option<Position>, is_held: bool) {
        self.begin(container, start, position, is_held, false);
    }

    /// The same for a container of which nobody will tell that it has ended, if it does not run.
    pub(super) fn add_as_it_is(
        &mut self,
        container: &Arc<Container>,
        start: Start,
        position: Option<Position>,
        is_held: bool,
    ) {
        self.begin(container, start, position, is_held, !container.is_up());
    }

    fn begin(
        &mut self,
        container: &Arc<Container>,
        start: Start,
        position: Option<Position>,
        is_held: bool,
        is_history: bool,
    ) {
        let (key, met) = self.meet(container, start, position, is_held);
        if let Some(tail) = self.tails.get_mut(&container.id) {
            tail.is_history = is_history;
        }
        if self.once {
            return self.waiting.push_back(container.id.clone());
        }
        match self.routes.of(container) {
            Choice::File(_) => self.read_file(&container.id, is_held),
            // What stands still has nothing to say over the API before it runs, unless its history is wanted.
            Choice::Stream if !is_held && (container.is_up() || start != Start::Last(0)) => {
                self.read_stream(&container.id, None);
            }
            // In a later run what it says from now on is new.
            Choice::Stream if start == Start::Last(0) => {
                let resume = TimePosition::at(Some(met));
                self.queue.push([Item::Place(key, Position { route: Route::Stream, resume, place: None })]);
            }
            // It is not known whether it is wanted.
            Choice::Stream => {}
            Choice::Nothing => self.tell_no_file(key, Some(None)),
        }
        // One that stands still is read up to its end now, so that its next run is read from its first line.
        if !container.is_up() && container.state != "created" {
            let is_read = |tail: &Tail| !matches!(tail.by, By::Nobody) || tail.held.is_some();
            let is_told = is_history && self.tails.get(&container.id).is_some_and(is_read);
            let end = is_told.then_some(Item::End(key, container.exit_code));
            self.end(&container.id, end.into_iter().collect());
        }
    }

    /// Gives it a key and introduces it; when that was.
    fn meet(
        &mut self,
        container: &Arc<Container>,
        start: Start,
        position: Option<Position>,
        is_held: bool,
    ) -> (ContainerKey, Timestamp) {
        let key = ContainerKey(self.next_key);
        self.next_key += 1;
        self.ids.insert(key, container.id.clone());
        self.queue.push([Item::Meet(key, Arc::clone(container))]);
        let held = is_held.then(Held::default);
        let (met, is_up) = (Timestamp::now(), container.is_up());
        let tail = Tail {
            key,
            start,
            position,
            met,
            told: self.heard,
            is_up,
            is_paused: Arc::new(AtomicBool::new(is_paused(container))),
            is_read: Arc::default(),
            has_died: false,
            has_run: container.state != "created",
            is_history: false,
            is_with_reader: false,
            by: By::Nobody,
            held,
        };
        self.tails.insert(container.id.clone(), tail);
        (key, met)
    }

    /// Reads a container of which nothing is left but its open log.
    pub(super) fn claim(&mut self, container: &Arc<Container>) {
        self.meet(container, Start::All, None, false);
        self.read_file(&container.id, false);
        if self.is_finishing {
            self.finish(&container.id, Vec::new());
        }
        self.down(&container.id, None, None);
        self.gone(&container.id);
    }

    /// Nothing is wanted of this container.
    pub(super) fn ignore(&self, id: &str) {
        self.command(Command::Ignore(id.to_owned()));
    }

    /// The container is another in name, state or networks.
    pub(super) fn alter(&mut self, container: &Arc<Container>) {
        if let Some(tail) = self.tails.get(&container.id) {
            tail.is_paused.store(is_paused(container), Ordering::Relaxed);
            self.queue.push([Item::Meet(tail.key, Arc::clone(container))]);
        }
    }

    /// It runs.
    pub(super) fn up(&mut self, id: &str) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        // A listing that finds it tells that it runs as well.
        let was_up = std::mem::replace(&mut tail.is_up, true);
        if !was_up {
            tail.told = self.heard;
        }
        (tail.has_died, tail.has_run, tail.is_history) = (false, true, false);
        let is_read = was_up && !matches!(tail.by, By::Nobody);
        if !(self.once || self.is_finishing || tail.held.is_some() || is_read) {
            self.read_on(id);
        }
    }

    fn read_on(&mut self, id: &str) {
        let Some(tail) = self.tails.get(id) else { return };
        let key = tail.key;
        match &tail.by {
            // Its end may have been read; the reader knows.
            By::File => {
                self.read_file(id, false);
                self.command(Command::Expect(key));
            }
            By::Stream(_) => tail.by.tell(Signal::Up),
            By::Nobody if self.routes.source == Source::File => {}
            By::Nobody => self.read_stream(id, None),
        }
    }

    /// It has died: this is told when its last line is out.
    pub(super) fn down(&mut self, id: &str, code: Option<i64>, event: Option<Lifecycle>) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        tail.is_up = false;
        (tail.has_died, tail.has_run) = (true, true);
        let key = tail.key;
        let event = event.map(|event| Item::Lifecycle(key, event));
        self.end(id, event.into_iter().chain([Item::End(key, code)]).collect());
    }

    fn end(&mut self, id: &str, then: Vec<Item>) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        let key = tail.key;
        match (&tail.by, &mut tail.held) {
            (By::File, _) => self.command(Command::Finish(key, then)),
            (By::Stream(_), _) => tail.by.tell(Signal::Finish(then)),
            (By::Nobody, Some(held)) if !then.is_empty() => held.ended.get_or_insert_default().extend(then),
            (By::Nobody, Some(_)) => {}
            (By::Nobody, None) => self.queue.push(then),
        }
    }

    /// It was removed.
    pub(super) fn gone(&mut self, id: &str) {
        // Whether it is wanted is decided first: what it wrote may be in an open file.
        let held = self.tails.get_mut(id).and_then(|tail| tail.held.as_mut().map(|held| (held, tail.has_run)));
        match held {
            // It never ran, and nobody was asked about it.
            Some((Held { awaits_start: true, .. }, false)) => self.admit(id, true),
            Some((held, _)) => {
                held.is_gone = true;
                return;
            }
            None => {}
        }
        if let Some(key) = self.tails.get(id).map(|tail| tail.key) {
            self.leave(id, vec![Item::Gone(key)]);
        }
    }

    /// It is not wanted any more, for this reason. What it wrote up to now is still told.
    pub(super) fn let_go(&mut self, id: &str, why: String) {
        let Some(tail) = self.tails.get(id) else { return };
        if tail.held.is_some() {
            return self.admit(id, false);
        }
        let (key, is_up) = (tail.key, tail.is_up);
        let end = is_up.then_some(Item::End(key, None));
        let then = [Item::Notice(Some(key), why)].into_iter().chain(end).chain([Item::Forget(key)]);
        self.leave(id, then.collect());
    }

    fn leave(&mut self, id: &str, then: Vec<Item>) {
        let Some(tail) = self.tails.remove(id) else { return };
        let key = tail.key;
        self.ids.remove(&key);
        if tail.is_with_reader {
            // It may have refused the container a moment ago, and then the loss has to be told before this.
            self.departing.insert(key, tail);
            return self.command(Command::Forget(key, then));
        }
        self.reading.remove(&key);
        self.pass_on(&tail.by, then);
    }

    /// Puts items behind the last line of a container that the reader thread does not read.
    fn pass_on(&self, by: &By, then: Vec<Item>) {
        match by {
            // With its sender gone the task ends when it has read to the end.
            By::Stream(Some(signals)) => {
                if let Err(SendError(Signal::Finish(then))) = signals.send(Signal::Finish(then)) {
                    self.queue.push(then);
                }
            }
            By::Stream(None) | By::Nobody | By::File => self.queue.push(then),
        }
    }

    /// Something for a lifecycle record.
    pub(super) fn happened(&mut self, id: &str, event: Lifecycle) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        let item = Item::Lifecycle(tail.key, event);
        match &mut tail.held {
            Some(held) => held.happened.push(item),
            // Behind its death, which is told behind its last line.
            None if tail.has_died => self.end(id, vec![item]),
            None => self.queue.push([item]),
        }
    }

    /// Holds a container that was just added until what is shown with its lines is known, behind its start.
    pub(super) fn hold_until_described(&mut self, id: &str) {
        if let Some(held) = self.tails.get_mut(id).and_then(|tail| tail.held.as_mut()) {
            held.awaits_start = true;
        }
    }

    /// What is shown with its lines is known, or will not be.
    pub(super) fn described(&mut self, id: &str) {
        let awaits_start = |tail: &Tail| tail.held.as_ref().is_some_and(|held| held.awaits_start);
        if self.tails.get(id).is_some_and(awaits_start) {
            self.admit(id, true);
        }
    }

    /// A held container is wanted after all, or is not.
    pub(super) fn admit(&mut self, id: &str, is_wanted: bool) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        let key = tail.key;
        let Some(Held { happened, ended, is_gone, .. }) = tail.held.take() else { return };
        let has_died = tail.has_died;
        let (is_up, is_file) = (tail.is_up, matches!(tail.by, By::File));
        if !is_wanted {
            self.tails.remove(id);
            self.ids.remove(&key);
            self.reading.remove(&key);
            if is_file {
                self.command(Command::Drop(key));
            }
            return self.queue.push([Item::Forget(key)]);
        }
        self.queue.push(happened);
        if is_file {
            self.command(Command::Admit(key));
            if has_died {
                // If its file was never seen it is too late to wait for it.
                self.command(Command::Expect(key));
            }
        }
        if self.is_finishing {
            if !is_file {
                self.read_on(id);
                self.finish(id, ended.unwrap_or_default());
            }
        } else if is_up {
            self.queue.push(ended.into_iter().flatten());
            self.read_on(id);
        } else if let Some(then) = ended {
            self.read_stream(id, None);
            self.end(id, then);
        }
        if is_gone {
            self.gone(id);
        }
    }

    /// Reads all to where they end now, and no further. Those that are held are waited for.
    pub(super) fn finish_all(&mut self) {
        self.is_finishing = true;
        let ids: Vec<String> = self.tails.keys().cloned().collect();
        for id in ids {
            self.described(&id);
            self.finish(&id, Vec::new());
        }
    }

    fn finish(&mut self, id: &str, then: Vec<Item>) {
        self.end(id, then);
        let Some(tail) = self.tails.get_mut(id) else { return };
        match &mut tail.by {
            By::Nobody if tail.held.is_none() => drop(self.reading.remove(&tail.key)),
            By::Nobody | By::File => drop(self.reading.insert(tail.key)),
            By::Stream(signals) => {
                *signals = None;
                self.reading.insert(tail.key);
            }
        }
    }

    /// Begins with as many of those that wait as may be read at once; whether any is left.
    pub(super) fn is_reading(&mut self) -> bool {
        while self.reading.len() < AT_ONCE.min(self.docker.most_logs())
            && let Some(id) = self.waiting.pop_front()
        {
            self.read_once(&id);
        }
        !self.reading.is_empty()
    }

    fn read_once(&mut self, id: &str) {
        let Some(key) = self.tails.get(id).map(|tail| tail.key) else { return };
        // The state matters only where no file is.
        let container = Container { id: id.to_owned(), ..Container::default() };
        match self.routes.of(&container) {
            Choice::File(_) => {
                self.reading.insert(key);
                self.read_file(id, false);
                self.command(Command::Finish(key, Vec::new()));
            }
            Choice::Stream => {
                self.reading.insert(key);
                self.read_stream(id, None);
            }
            Choice::Nothing => self.tell_no_file(key, Some(None)),
        }
    }

    /// The reader thread says something.
    pub(super) fn hear(&mut self, report: Report) {
        match report {
            // Who reads on over the API says so when that has ended.
            Report::Finished(key) if self.is_streamed(key) => {}
            Report::Finished(key) => drop(self.reading.remove(&key)),
            Report::NotFollowed(key, then) => self.not_followed(key, then),
            Report::Forgotten(key) => drop(self.departing.remove(&key)),
            Report::NoWatches if !self.told_no_watches => {
                self.told_no_watches = true;
                self.tell(
                    "no inotify watches are left (fs.inotify.max_user_watches): some files are looked at every second",
                );
            }
            Report::NoWatches => {}
            Report::NoDescriptors => self.tell(
                "no descriptors are left (ulimit -n): some files wait to be opened until others are read to their end",
            ),
            Report::Refused(key, error, resume, then) => self.refused(key, &error, resume, then),
            // Whether it is wanted is not decided here.
            Report::Unclaimed(_) => {}
        }
    }

    fn is_streamed(&self, key: ContainerKey) -> bool {
        let tail = self.ids.get(&key).and_then(|id| self.tails.get(id));
        tail.is_some_and(|tail| matches!(tail.by, By::Stream(_)))
    }

    /// Tells what was to come behind the last line of a container that the reader thread refused, behind whoever reads it
    /// now.
    fn not_followed(&mut self, key: ContainerKey, then: Vec<Item>) {
        if !self.is_streamed(key) {
            self.reading.remove(&key);
        }
        if let Some(tail) = self.departing.get(&key) {
            self.pass_on(&tail.by, then);
        } else if let Some(id) = self.ids.get(&key).cloned() {
            self.end(&id, then);
        }
    }

    fn refused(&mut self, key: ContainerKey, error: &io::Error, resume: TimePosition, then: Option<Vec<Item>>) {
        let Some(id) = self.ids.get(&key).cloned() else {
            self.reading.remove(&key);
            // It was removed meanwhile, and nothing of it is left to read. Of one that is not wanted nothing is told.
            if self.departing.contains_key(&key) {
                self.queue.push([Item::unreadable(key, Route::File, resume.last())]);
                self.queue.push(then.unwrap_or_default());
            }
            return;
        };
        tracing::debug!(%error, id, "not read from its file");
        let may_stream = self.routes.source != Source::File;
        let mut told = Vec::new();
        match error.kind() {
            io::ErrorKind::NotFound => {}
            _ if !may_stream => told.extend([
                Item::unreadable(key, Route::File, resume.last()),
                Item::Notice(Some(key), error.to_string()),
            ]),
            io::ErrorKind::PermissionDenied if !std::mem::replace(&mut self.told_denied, true) => {
                self.tell("no permission to read log files: reading through the engine instead");
            }
            io::ErrorKind::PermissionDenied => {}
            _ => {
                let text = format!("{error}: reading through the engine instead");
                told.push(Item::Notice(Some(key), text));
            }
        }
        let Some(tail) = self.tails.get_mut(&id) else { return };
        let must_end = then.is_some() || !tail.is_up;
        if let Some(held) = &mut tail.held {
            tail.by = By::Nobody;
            held.happened.extend(told);
            if must_end {
                held.ended.get_or_insert_default().extend(then.unwrap_or_default());
            }
            return;
        }
        self.queue.push(told);
        if !may_stream {
            tail.by = By::Nobody;
            self.reading.remove(&key);
            let after = Some(resume.last()).filter(|_| error.kind() == io::ErrorKind::NotFound);
            self.tell_no_file(key, after);
            return self.queue.push(then.unwrap_or_default());
        }
        self.read_stream(&id, Some(resume).filter(|resume| *resume != TimePosition::default()));
        if self.is_finishing {
            self.finish(&id, then.unwrap_or_default());
        } else if !self.once && must_end {
            self.end(&id, then.unwrap_or_default());
        }
    }

    /// A task has read its container to the last end, or has given that up.
    pub(super) async fn next_ended(&mut self) -> Option<()> {
        let (key, id, result) = self.streams.join_next().await?.ok()?;
        self.reading.remove(&key);
        if let (Err(error), true) = (result, self.once || self.is_finishing) {
            self.unread.push((id, error));
        }
        Some(())
    }

    /// Ends everything; what was read is on the queue. Returns who was to be read to an end and was not.
    pub(super) async fn stop(self) -> Unread {
        let Supervisor { commands, wake, mut streams, unread, .. } = self;
        drop(commands);
        wake.wake();
        streams.shutdown().await;
        unread
    }

    fn read_file(&mut self, id: &str, is_held: bool) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        tail.by = By::File;
        tail.is_with_reader = true;
        let begin = match tail.is_history {
            true => Item::Recall(tail.key, Route::File),
            false => Item::Begin(tail.key, Route::File, tail.told),
        };
        let follow = Follow {
            key: tail.key,
            id: id.to_owned(),
            folder: self.routes.folder.join(id),
            start: tail.start,
            position: tail.position,
            window: window(self.window, tail.start),
            max_line_size: self.max_line_size,
            once: self.once,
            is_held,
            on_open: if self.once { Vec::new() } else { vec![begin] },
        };
        self.command(Command::Follow(Box::new(follow)));
    }

    fn read_stream(&mut self, id: &str, resume: Option<TimePosition>) {
        let Some(tail) = self.tails.get_mut(id) else { return };
        let (signals, heard) = unbounded_channel();
        tail.by = By::Stream(Some(signals));
        let key = tail.key;
        let resume = resume.or(tail.position.map(|position| position.resume));
        // It may have stood still until now, and said something before its start was told.
        let start = if tail.start == Start::Last(0) { Start::Since(tail.met) } else { tail.start };
        // An earlier run left it alone, and what it had said by then.
        let left_alone = resume.filter(TimePosition::is_at_start).and_then(|resume| resume.since);
        let start = left_alone.map_or(start, Start::Since);
        let stream = Stream {
            docker: self.docker.clone(),
            queue: Arc::clone(&self.queue),
            key,
            id: id.to_owned(),
            route: self.routes.over_api(),
            interval: self.interval,
            folder: self.routes.visible(id),
            is_up: tail.is_up,
            has_run: tail.has_run,
            is_history: tail.is_history,
            is_paused: Arc::clone(&tail.is_paused),
            is_read: Arc::clone(&tail.is_read),
            told: tail.told,
            start,
            resume,
            window: window(self.window, start),
            max_line_size: self.max_line_size,
            once: self.once,
            told_no_places: Arc::clone(&self.told_no_places),
            has_given_up: Arc::clone(&self.has_given_up),
            first: None,
        };
        self.streams.spawn(async move {
            let id = stream.id.clone();
            (key, id, stream.run(heard).await)
        });
    }

    /// `after` is the last line that was read, if the file was looked for and is not there.
    fn tell_no_file(&mut self, key: ContainerKey, after: Option<Option<Cursor>>) {
        let Some(id) = self.ids.get(&key).cloned() else { return };
        if self.once || self.is_finishing {
            self.unread.push((id.clone(), None));
        }
        // A driver that keeps no file leaves the folder alone; without it the container and its log were removed.
        if let Some(after) = after
            && self.routes.visible(&id).is_none_or(|folder| !folder.exists())
        {
            return self.queue.push([Item::unreadable(key, Route::File, after)]);
        }
        let text = "has no log file that can be read, and `--source file` allows nothing else";
        self.queue.push([Item::Notice(Some(key), text.into())]);
    }

    fn command(&self, command: Command) {
        // The reader ends only when this sender does.
        let _ = self.commands.send(command);
        self.wake.wake();
    }
}

fn is_paused(container: &Container) -> bool {
    container.state == "paused"
}

/// A search by time stops short of it, so the time itself has to be kept to.
fn window(window: Window, start: Start) -> Window {
    match start {
        Start::Since(since) => Window { since: since.max(window.since), ..window },
        _ => window,
    }
}

//! The one thread that reads all log files.
//!
//! In: commands of the engine, and inotify. Out: batches on the queue, and reports of files that cannot be read.
//! It never waits for the queue: while that is full it goes on opening new files as they appear, and reads again when
//! there is room. Files take turns of at most one block. What inotify can miss, a look finds: at all files at once
//! after an overflow, and else in rounds ([`super::rounds`]), within half a minute where inotify can be believed, five
//! seconds on network file systems and FUSE, and one second for a file without a watch.

use super::container_log::{Log, Turn};
use super::inotify::{Happening, Inotify, Watch};
use super::mounts::Mounts;
use super::newcomers::Newcomers;
use super::rescan::{Rounds, Trust};
use super::rotation::Followed;
use crate::model::batch::{ContainerKey, Item};
use crate::model::container::Container;
use crate::model::position::{Position, TimePosition};
use crate::model::queue::Queue;
use crate::tail::Start;
use crate::tail::lines::Window;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

/// How often new containers are thought of that nobody has asked for yet, ...
const SCOUT_LOOK: Duration = Duration::from_secs(5);
/// ... and a folder that was unmounted.
const LOST_LOOK: Duration = Duration::from_secs(1);
/// As long as nothing but lines is waited for while they come thick.
const UNTIL_CALM: Duration = Duration::from_secs(1);
/// When this many times in a row ...
const THICK: u32 = 4;
/// ... the next line came within this time of being waited for, ...
const AT_ONCE_AGAIN: Duration = Duration::from_micros(500);
/// ... lines are gathered this long before they are waited for.
const GATHER: Duration = Duration::from_millis(3);

/// Bytes read before the output is woken for them.
const AT_ONCE: usize = 1024 * 1024;

/// A container whose file is to be followed.
#[derive(Debug)]
pub struct Follow {
    /// Its number.
    pub key: ContainerKey,
    /// Its ID.
    pub id: String,
    /// The folder that holds its log.
    pub folder: PathBuf,
    /// Where to start when it was not followed before.
    pub start: Start,
    /// Where to go on when it was.
    pub position: Option<Position>,
    /// Which lines are wanted.
    pub window: Window,
    /// Bytes beyond which a message is cut.
    pub max_line_size: usize,
    /// Read what is there, and no more.
    pub once: bool,
    /// Open its file, but read nothing before [`Command::Admit`]: whether it is wanted is not known yet.
    pub is_held: bool,
    /// Put on the queue when its file is open, each time it is.
    pub on_open: Vec<Item>,
}

/// What the reader is told.
#[derive(Debug)]
pub enum Command {
    /// Follow a container; once more, when it starts again.
    Follow(Box<Follow>),
    /// The container will write no more for now: read to the end, close, then put this on the queue.
    Finish(ContainerKey, Vec<Item>),
    /// Finish, and forget the container.
    Forget(ContainerKey, Vec<Item>),
    /// The container runs, so its file has been made: if it was never seen, it is refused.
    Expect(ContainerKey),
    /// A held container is wanted.
    Admit(ContainerKey),
    /// Nothing is wanted of it: close and forget it at once.
    Drop(ContainerKey),
    /// Look out for the folders of new containers in this one, and open what appears in them.
    Scout(PathBuf),
    /// The new container with this ID will not be asked for.
    Ignore(String),
    /// Tell how many bytes of log files are not written out, roughly.
    Measure(Measure),
}

/// Who wants to know how far behind we are, and is told by being called.
pub struct Measure(pub Box<dyn FnOnce(u64) + Send>);

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measure")
    }
}

/// What the reader tells the engine.
#[derive(Debug)]
pub enum Report {
    /// This container's file cannot be read, or not any further than this. Where it has died, what is to be told behind
    /// its last line.
    Refused(ContainerKey, io::Error, TimePosition, Option<Vec<Item>>),
    /// What was asked for of this container was read to its end.
    Finished(ContainerKey),
    /// This container was refused before its end was asked for; what was to be told behind its last line.
    NotFollowed(ContainerKey, Vec<Item>),
    /// This container is forgotten, and nothing more is reported of it.
    Forgotten(ContainerKey),
    /// There are no inotify watches left: such files are looked at every second.
    NoWatches,
    /// There are no descriptors left: files wait to be opened until there are.
    NoDescriptors,
    /// This container came and went, and nobody asked for it. Its log is still open, for a [`Command::Follow`] that comes
    /// soon.
    Unclaimed(Box<Container>),
}

/// Wakes the reader.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        Ok(Wake(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// Does it.
    pub fn wake(&self) {
        // It can only fail when it is already set as often as it can count.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// See the module.
pub struct Reader {
    watcher: Inotify,
    wake: Wake,
    commands: mpsc::Receiver<Command>,
    report: Box<dyn Fn(Report) + Send>,
    queue: Arc<Queue>,
    logs: HashMap<ContainerKey, Entry>,
    watches: HashMap<Watch, ContainerKey>,
    scout: Newcomers,
    /// Those with something to read, or an end to come to.
    ready: VecDeque<ContainerKey>,
    /// Opened since events were last taken.
    new: Vec<ContainerKey>,
    rounds: Rounds,
    mounts: Mounts,
    /// The next time to ask the scout, if it is waiting.
    next_scout: Instant,
    /// There was no watch left for the last one that asked in this look.
    is_out_of_watches: bool,
    told_no_watches: bool,
    told_no_descriptors: bool,
}

struct Entry {
    log: Log,
    start: Start,
    watch: Option<Watch>,
    /// The folder that the watch is on.
    watched: PathBuf,
    /// Its file could not be opened for lack of descriptors.
    is_starved: bool,
    is_ready: bool,
    is_held: bool,
    ending: Option<Ending>,
    on_open: Vec<Item>,
    /// It was opened for what it wrote before it runs.
    is_recalled: bool,
}

impl Entry {
    /// What is told when its file is open: where that is, before the first line.
    fn announcement(&mut self, key: ContainerKey) -> Vec<Item> {
        let mut items = std::mem::take(&mut self.on_open);
        self.is_recalled = items.iter().any(|item| matches!(item, Item::Recall(..)));
        items.extend(self.log.position().map(|position| Item::Place(key, position)));
        items
    }
}

struct Ending {
    then: Vec<Item>,
    forget: bool,
    /// It started again before its end was reached.
    again: bool,
}

impl Reader {
    /// A reader that is told by `commands`, each followed by a wake-up.
    pub fn new(
        queue: Arc<Queue>,
        wake: Wake,
        commands: mpsc::Receiver<Command>,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Reader {
            watcher: Inotify::new()?,
            wake,
            commands,
            report: Box::new(report),
            queue,
            logs: HashMap::new(),
            watches: HashMap::new(),
            scout: Newcomers::default(),
            ready: VecDeque::new(),
            new: Vec::new(),
            rounds: Rounds::new(now),
            mounts: Mounts::new(now),
            next_scout: now,
            is_out_of_watches: false,
            told_no_watches: false,
            told_no_descriptors: false,
        })
    }

    /// Reads until the sender of the commands is dropped.
    pub fn run(mut self) {
        let mut thick = 0;
        loop {
            let can_read = !self.ready.is_empty() && self.queue.has_room();
            if !can_read {
                // Before the wait: what comes meanwhile then needs no wake-up. Also while the queue is full, when nothing
                // but new files matters.
                if thick > THICK {
                    std::thread::sleep(GATHER);
                }
                let rested = Instant::now();
                let was_called = self.wait(thick <= THICK);
                thick = if was_called || rested.elapsed() > AT_ONCE_AGAIN { 0 } else { thick + 1 };
            }
            self.take_events();
            if !self.take_commands() {
                return;
            }
            let now = Instant::now();
            if self.next_look().is_some_and(|next| now >= next) {
                self.look_around(now);
            }
            self.round();
        }
    }

    /// When to look at something that nobody reports.
    fn next_look(&self) -> Option<Instant> {
        let scout = self.scout.is_waiting().then_some(self.next_scout);
        self.rounds.next().into_iter().chain(scout).min()
    }

    /// Sleeps until something happens or it is time to look; whether somebody called. Where lines come thick, the mount
    /// table is not polled, which would make each line a little more expensive.
    fn wait(&mut self, is_calm: bool) -> bool {
        let now = Instant::now();
        let table = self.mounts.table(now).filter(|_| is_calm);
        // Should they have ended with the last one, it is polled from then on.
        let again = if is_calm { self.mounts.resume_at(now) } else { Some(now + UNTIL_CALM) };
        let next = self.next_look().into_iter().chain(again).min();
        let timeout = next.map(|next| next.saturating_duration_since(now));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wake = Arc::clone(&self.wake.0);
        let watched = PollFd::from_borrowed_fd(self.watcher.as_fd(), PollFlags::IN);
        let called = PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN);
        let mounted = table.map(|table| PollFd::from_borrowed_fd(table, PollFlags::PRI));
        let has_table = mounted.is_some();
        let mut fds = [watched, called.clone(), mounted.unwrap_or(called)];
        let polled = &mut fds[..if has_table { 3 } else { 2 }];
        // An interruption is a wake-up like another.
        let _ = rustix::event::poll(polled, timeout.as_ref());
        let was_called = polled[1].revents().contains(PollFlags::IN);
        if polled.get(2).is_some_and(|table| table.revents().contains(PollFlags::PRI)) {
            self.mounts.pause(now);
            self.follow_mounts();
        }
        if was_called {
            self.wake.clear();
        }
        was_called
    }

    /// One turn for each file that has something, then one wake-up of the output for all of them.
    fn round(&mut self) {
        let mut items = Vec::new();
        let mut held = 0;
        for _ in 0..self.ready.len() {
            if !self.queue.has_room() {
                break;
            }
            let Some(key) = self.ready.pop_front() else { break };
            let before = items.len();
            self.turn(key, &mut items);
            // What had to be ahead of a report is on the queue already, and all before it.
            held = items.get(before..).map_or(0, |more| held + more.iter().map(Item::weight).sum::<usize>());
            if held > AT_ONCE {
                self.queue.push(items.drain(..));
                held = 0;
            }
        }
        if !items.is_empty() {
            self.queue.push(items);
        }
    }

    fn turn(&mut self, key: ContainerKey, items: &mut Vec<Item>) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        entry.is_ready = false;
        if entry.is_starved {
            return;
        }
        let more = match entry.log.turn(&self.queue) {
            Ok(Turn::Batch(batch)) => {
                items.push(Item::Lines(batch));
                entry.log.has_known_rest() || entry.ending.is_some()
            }
            Ok(Turn::Nothing) => entry.log.has_known_rest() || entry.ending.is_some(),
            Ok(Turn::End) if entry.ending.is_some() => return self.end(key, items),
            Ok(Turn::End) => false,
            Err(error) => {
                // Before what another route reads.
                self.queue.push(items.drain(..));
                return self.refuse(key, error);
            }
        };
        if more {
            self.make_ready(key);
        }
    }

    /// The container has died and its log was read to the end.
    fn end(&mut self, key: ContainerKey, items: &mut Vec<Item>) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        let Some(ending) = entry.ending.take() else { return };
        if ending.again && !ending.forget && entry.log.is_open() {
            // It may have written since: what has begun can be of its new life.
            items.extend(ending.then);
            items.extend(entry.announcement(key));
            self.queue.push(items.drain(..));
            return (self.report)(Report::Finished(key));
        }
        items.extend(entry.log.flush());
        items.extend(ending.then);
        entry.log.close();
        // Who hears of the end may close the queue.
        self.queue.push(items.drain(..));
        (self.report)(Report::Finished(key));
        self.unwatch(key);
        if ending.forget {
            self.remove(key);
            (self.report)(Report::Forgotten(key));
        } else if ending.again {
            self.attach(key);
        }
        self.judge(key);
    }

    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Follow(follow)) => self.follow(*follow),
                Ok(Command::Finish(key, then)) => self.finish(key, then, false),
                Ok(Command::Forget(key, then)) => self.finish(key, then, true),
                Ok(Command::Expect(key)) => self.expect(key),
                Ok(Command::Admit(key)) => self.admit(key),
                Ok(Command::Drop(key)) => {
                    self.unwatch(key);
                    self.remove(key);
                }
                Ok(Command::Scout(root)) => self.scout.start(&self.watcher, root),
                Ok(Command::Ignore(id)) => self.scout.ignore(&self.watcher, &id),
                Ok(Command::Measure(Measure(tell))) => {
                    let unread: u64 = self.logs.values().map(|entry| entry.log.chain.unread()).sum();
                    tell(unread + self.queue.unwritten() as u64);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn follow(&mut self, follow: Follow) {
        let key = follow.key;
        if let Some(entry) = self.logs.get_mut(&key) {
            match &mut entry.ending {
                Some(ending) => {
                    ending.again = true;
                    entry.on_open = follow.on_open;
                }
                None if !entry.log.is_open() => {
                    entry.on_open = follow.on_open;
                    self.attach(key);
                }
                None if entry.is_recalled => {
                    entry.is_recalled = false;
                    self.queue.push(follow.on_open);
                }
                None => {}
            }
            return;
        }
        self.mounts.add(&follow.folder);
        let mut log = Log::new(&follow);
        let Follow { id, folder, start, position, is_held, on_open, .. } = follow;
        let found = self.scout.take(&id);
        let watch = found.as_ref().and_then(|found| found.watch);
        if let Some(watch) = watch {
            self.watches.insert(watch, key);
        }
        let watched = found.as_ref().map_or(folder, |found| found.watched.clone());
        let fresh = found
            .and_then(|found| found.log)
            .filter(|_| matches!(start, Start::Beginning | Start::All) && position.is_none());
        let is_open = fresh.is_some_and(|(spot, handle)| log.adopt(spot, handle).is_ok());
        let entry = Entry {
            log,
            start,
            watch,
            watched,
            is_starved: false,
            is_ready: false,
            is_held,
            ending: None,
            on_open,
            is_recalled: false,
        };
        self.logs.insert(key, entry);
        if is_open {
            self.opened(key);
            // It may have been rotated since.
            self.appeared(key);
        } else {
            self.attach(key);
        }
        self.judge(key);
    }

    fn remove(&mut self, key: ContainerKey) -> Option<Entry> {
        self.rounds.remove(key);
        self.logs.remove(&key)
    }

    /// Has it looked at as often as its watch and its file system ask for.
    fn judge(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get(&key) else { return };
        let is_unwatched = || entry.watch.is_none() && entry.log.is_open() && !entry.log.is_once();
        let trust = if entry.is_starved || is_unwatched() {
            Trust::None
        } else if entry.log.chain.is_local() {
            Trust::Full
        } else {
            Trust::Doubtful
        };
        self.rounds.set(key, trust, Instant::now());
    }

    /// Watches the folder, then opens what lies in it: in this order nothing falls between.
    fn attach(&mut self, key: ContainerKey) {
        self.watch(key);
        self.open(key);
        let is_waiting = |entry: &&mut Entry| !entry.log.is_open() && entry.log.watched() != entry.watched;
        // The folder within the folder was made in between.
        if self.logs.get_mut(&key).as_ref().is_some_and(is_waiting) {
            self.watch(key);
            self.open(key);
        }
    }

    fn watch(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        let folder = entry.log.watched();
        if entry.log.is_once() || entry.watch.is_some() && folder == entry.watched {
            return;
        }
        match self.watcher.add(&folder) {
            Ok(watch) => {
                self.watches.insert(watch, key);
                entry.watched = folder;
                entry.log.chain.misheard();
                if let Some(outer) = entry.watch.replace(watch).filter(|outer| *outer != watch) {
                    self.watches.remove(&outer);
                    self.watcher.remove(outer);
                }
            }
            Err(Errno::NOSPC) => self.go_without_watch(),
            // A folder that is gone has nothing to open either, which says it better.
            Err(error) => tracing::debug!(%error, folder = %folder.display(), "cannot watch"),
        }
    }

    fn go_without_watch(&mut self) {
        self.is_out_of_watches = true;
        if !std::mem::replace(&mut self.told_no_watches, true) {
            (self.report)(Report::NoWatches);
        }
    }

    fn open(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key).filter(|entry| !entry.log.is_open()) else { return };
        let was_starved = std::mem::take(&mut entry.is_starved);
        match entry.log.open(entry.start) {
            Ok(()) => self.opened(key),
            // Not made yet: the watch tells when it is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if entry.log.is_unmade() {
                    // Then all there will be is new.
                    entry.start = Start::All;
                    if entry.watch.is_some() {
                        entry.log.chain.is_to_come();
                    }
                }
                if entry.log.is_once() || was_starved && entry.ending.is_some() {
                    self.refuse(key, error);
                }
            }
            Err(error) if is_starvation(&error) => self.starve(key),
            Err(error) => self.refuse(key, error),
        }
    }

    /// It waits until descriptors are given back.
    fn starve(&mut self, key: ContainerKey) {
        if let Some(entry) = self.logs.get_mut(&key) {
            entry.is_starved = !entry.log.is_open();
        }
        self.judge(key);
        if !std::mem::replace(&mut self.told_no_descriptors, true) {
            (self.report)(Report::NoDescriptors);
        }
    }

    fn opened(&mut self, key: ContainerKey) {
        // The file decides which folder it is.
        self.watch(key);
        self.new.push(key);
        self.judge(key);
        let Some(entry) = self.logs.get_mut(&key) else { return };
        if !entry.is_held {
            self.queue.push(entry.announcement(key));
        }
        self.make_ready(key);
    }

    fn finish(&mut self, key: ContainerKey, then: Vec<Item>, forget: bool) {
        // Files that came and went by now are told of.
        self.take_events();
        // One that has ended is not watched before it is followed once more.
        let is_new = |entry: &Entry| !entry.log.was_open() || entry.watch.is_some();
        let is_unseen = |entry: &Entry| !entry.log.is_open() && entry.ending.is_none() && is_new(entry);
        if self.logs.get(&key).is_some_and(is_unseen) {
            // It may have written and died before its file was seen.
            self.attach(key);
        }
        // Its last rotation may be newer than what inotify has told us, or was asked to.
        if let Err(error) = self.follow_rotation(key) {
            tracing::debug!(%error, "cannot look for a rotation");
        }
        let Some(entry) = self.logs.get_mut(&key) else {
            // A report that it was refused is on its way. Whoever takes over decides what comes before this.
            (self.report)(Report::NotFollowed(key, then));
            if forget {
                (self.report)(Report::Forgotten(key));
            }
            return;
        };
        match &mut entry.ending {
            Some(ending) => {
                ending.then.extend(then);
                ending.forget |= forget;
                ending.again = false;
            }
            None => entry.ending = Some(Ending { then, forget, again: false }),
        }
        self.make_ready(key);
    }

    fn expect(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        if entry.log.is_open() || entry.log.was_open() {
            return;
        }
        match entry.log.open(entry.start) {
            Ok(()) => self.opened(key),
            Err(error) if is_starvation(&error) => self.starve(key),
            Err(error) => self.refuse(key, error),
        }
    }

    fn admit(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        entry.is_held = false;
        if entry.log.is_open() {
            self.queue.push(entry.announcement(key));
        }
        if entry.log.is_open() || entry.ending.is_some() {
            self.make_ready(key);
        }
    }

    fn make_ready(&mut self, key: ContainerKey) {
        if let Some(entry) = self.logs.get_mut(&key)
            && !entry.is_held
            && !std::mem::replace(&mut entry.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    fn unwatch(&mut self, key: ContainerKey) {
        let watch = self.logs.get_mut(&key).and_then(|entry| entry.watch.take());
        if let Some(watch) = watch {
            self.watches.remove(&watch);
            self.watcher.remove(watch);
        }
    }

    fn take_events(&mut self) {
        let (mut grown, mut appeared, mut gone, mut overflow) =
            (Vec::new(), Vec::<(ContainerKey, u32)>::new(), Vec::new(), false);
        let (watcher, watches, logs, scout) = (&self.watcher, &self.watches, &self.logs, &mut self.scout);
        watcher.drain(|happening| match happening {
            Happening::Appeared(watch, name)
                if scout.appeared(watcher, watch, name, |watch| watches.contains_key(&watch)) => {}
            Happening::Written(watch, name) | Happening::Appeared(watch, name) => {
                let Some((key, entry)) = watches.get(&watch).and_then(|key| Some((*key, logs.get(key)?))) else {
                    return;
                };
                if !entry.log.is_live_name(name) {
                    return;
                }
                // Events of one file mostly come in a row.
                if let Happening::Written(..) = happening {
                    if grown.last() != Some(&key) {
                        grown.push(key);
                    }
                } else if let Some((last, count)) = appeared.last_mut()
                    && *last == key
                {
                    *count += 1;
                } else {
                    appeared.push((key, 1));
                }
            }
            Happening::Gone(watch) => gone.push(watch),
            Happening::Overflow => overflow = true,
        });
        for (key, count) in appeared {
            self.appeared(key);
            if let Some(entry) = self.logs.get_mut(&key) {
                entry.log.chain.heard_of(count);
            }
        }
        for key in std::mem::take(&mut self.new) {
            if let Some(entry) = self.logs.get_mut(&key) {
                entry.log.chain.heard_of(0);
            }
        }
        for key in grown {
            self.make_ready(key);
        }
        for watch in gone {
            self.scout.gone(watch);
            if let Some(key) = self.watches.remove(&watch) {
                if let Some(entry) = self.logs.get_mut(&key) {
                    entry.watch = None;
                }
                self.judge(key);
            }
        }
        if overflow {
            self.logs.values_mut().for_each(|entry| entry.log.chain.misheard());
            self.look_at_all();
        }
    }

    /// The live name has a new file behind it.
    fn appeared(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        if !entry.log.is_open() {
            return self.attach(key);
        }
        match self.follow_rotation(key) {
            Ok(()) => self.make_ready(key),
            // Between two steps of a rotation the name stands for nothing; its next file is told again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_starvation(&error) => self.starve(key),
            Err(error) => self.refuse(key, error),
        }
    }

    /// Another route has to take over; nothing more is read here.
    fn refuse(&mut self, key: ContainerKey, error: io::Error) {
        self.unwatch(key);
        if let Some(entry) = self.remove(key) {
            let is_forgotten = entry.ending.as_ref().is_some_and(|ending| ending.forget);
            let then = entry.ending.map(|ending| ending.then);
            (self.report)(Report::Refused(key, error, entry.log.resume(), then));
            if is_forgotten {
                (self.report)(Report::Forgotten(key));
            }
        }
    }

    /// Opens what came under the live name, also where its folder was mounted anew.
    fn follow_rotation(&mut self, key: ContainerKey) -> io::Result<()> {
        let Some(entry) = self.logs.get_mut(&key) else { return Ok(()) };
        if entry.log.follow_rotation()? != Followed::Moved {
            return Ok(());
        }
        // Watched first, so that nothing falls between.
        self.unwatch(key);
        self.watch(key);
        let Some(entry) = self.logs.get_mut(&key) else { return Ok(()) };
        let reopened = entry.log.reopen();
        // Closed, but not opened: it is tried again as if descriptors had been missing.
        entry.is_starved = !entry.log.is_open();
        match reopened {
            Ok(()) => self.opened(key),
            Err(_) => self.judge(key),
        }
        reopened
    }

    /// Looks at those that are due.
    fn look_around(&mut self, now: Instant) {
        for container in self.scout.expire(&self.watcher, now) {
            (self.report)(Report::Unclaimed(Box::new(container)));
        }
        if self.scout.has_lost_its_root() {
            self.scout.return_to_root(&self.watcher);
        }
        self.next_scout = now + if self.scout.has_lost_its_root() { LOST_LOOK } else { SCOUT_LOOK };
        self.is_out_of_watches = false;
        self.follow_mounts();
        for key in self.rounds.take_due(now) {
            let is_settled = |entry: &Entry| entry.watch.is_some() && entry.log.chain.is_settled();
            if !self.logs.get(&key).is_some_and(is_settled) {
                self.look_at(key);
            }
        }
    }

    /// Where the folder of all containers was mounted anew, goes on there.
    fn follow_mounts(&mut self) {
        if !self.mounts.have_moved() {
            return;
        }
        self.scout.return_to_root(&self.watcher);
        for key in self.keys() {
            let Some(entry) = self.logs.get(&key) else { continue };
            if entry.log.is_open() {
                self.look_at(key);
            } else if entry.watch.is_some() {
                self.unwatch(key);
                self.attach(key);
            }
        }
    }

    /// Asks the file system about everything that is followed.
    fn look_at_all(&mut self) {
        self.is_out_of_watches = false;
        for key in self.keys() {
            self.look_at(key);
        }
    }

    fn keys(&self) -> Vec<ContainerKey> {
        self.logs.keys().copied().collect()
    }

    /// Asks the file system about a log.
    fn look_at(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get(&key) else { return };
        if entry.is_starved {
            self.attach(key);
            return self.judge(key);
        }
        if !entry.log.is_open() {
            return;
        }
        // Watches may have been given back since, or the folder be there again.
        if entry.watch.is_none() && !self.is_out_of_watches {
            self.watch(key);
        }
        // Also while its turn waits for room: reading stops then, opening does not.
        let followed = self.follow_rotation(key);
        let is_unread = |entry: &Entry| !entry.is_ready && entry.log.chain.has_more();
        if self.logs.get(&key).is_some_and(is_unread) {
            self.make_ready(key);
        }
        match followed {
            Err(error) if is_starvation(&error) => self.starve(key),
            Err(error) => tracing::debug!(%error, "cannot look for a rotation"),
            Ok(()) => {}
        }
        self.judge(key);
    }
}

fn is_starvation(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// Whether the engine's file of this name can be opened at all: no rights on the folder is the normal case of users in
/// the `docker` group.
pub fn can_read(containers: &std::path::Path) -> io::Result<()> {
    std::fs::read_dir(containers).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;
    use crate::tail::files::log_file::birth_mark;
    use crate::tail::files::pread::short::{self, Cut};
    use crate::tail::oracle::{LogEntry, framed};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use prost::Message;
    use std::fs;
    use std::io::Write;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    const KEY: ContainerKey = ContainerKey(0);

    /// A reader that is called by hand, on a queue of so many bytes.
    fn reader(limit: usize) -> Reader {
        let (_, commands) = mpsc::channel();
        Reader::new(Arc::new(Queue::new(limit, || ())), Wake::new().unwrap(), commands, drop).unwrap()
    }

    fn follow(folder: &Path, start: Start, position: Option<Position>) -> Follow {
        Follow {
            key: KEY,
            id: "web".to_owned(),
            folder: folder.to_owned(),
            start,
            position,
            window: Window::default(),
            max_line_size: 1024,
            once: false,
            is_held: false,
            on_open: Vec::new(),
        }
    }

    fn line(number: u32) -> String {
        format!("{{\"log\":\"{number}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.{number:09}Z\"}}\n")
    }

    /// What came: the lines, and a word for each loss; and where to go on.
    fn take(queue: &Queue) -> (Vec<String>, Option<Position>) {
        let (mut items, mut told, mut position) = (VecDeque::new(), Vec::new(), None);
        queue.take(&mut items, Some(Duration::ZERO));
        for item in items {
            match &item {
                Item::Lines(batch) => {
                    for at in 0..=batch.lines.len() {
                        let gaps = batch.gaps.iter().filter(|(before, _)| *before == at);
                        told.extend(gaps.map(|(_, gap)| gap.reason.name().to_owned()));
                        let line = batch.lines.get(at).map(|line| batch.text(line));
                        told.extend(line.map(|text| String::from_utf8_lossy(text).into_owned()));
                    }
                    position = batch.position.or(position);
                }
                Item::Place(_, place) => position = Some(*place),
                _ => {}
            }
            queue.finish(item);
        }
        (told, position)
    }

    /// Reads all there is.
    fn read(reader: &mut Reader) -> (Vec<String>, Option<Position>) {
        let (mut told, mut position) = take(&reader.queue);
        while !reader.ready.is_empty() {
            reader.round();
            let (more, place) = take(&reader.queue);
            told.extend(more);
            position = place.or(position);
        }
        (told, position)
    }

    /// Has inotify drop what comes next: two files in turn, since equal neighbours are one event.
    fn overflow(folder: &Path) {
        let limit: u32 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let files = ["a", "b"].map(|name| fs::File::create(folder.join(name)).unwrap());
        for _ in 0..=limit / 2 {
            files.iter().for_each(|file| file.write_all_at(b"x", 0).unwrap());
        }
    }

    #[test]
    fn a_rotation_that_inotify_does_not_tell_of_is_seen_while_the_output_takes_nothing() {
        for has_watch in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let live = folder.path().join("web-json.log");
            fs::write(&live, line(0)).unwrap();
            let mut reader = reader(1);
            reader.follow(follow(folder.path(), Start::All, None));
            if !has_watch {
                reader.unwatch(KEY);
            }
            reader.round();
            assert!(!reader.queue.has_room());
            // Its next turn cannot come.
            reader.make_ready(KEY);
            // As with `max-file=2`: each is gone with the next but one.
            for number in 1..4 {
                if has_watch {
                    overflow(folder.path());
                }
                fs::rename(&live, folder.path().join("web-json.log.1")).unwrap();
                fs::write(&live, line(number)).unwrap();
                // An overflow is a look of its own.
                if has_watch {
                    reader.take_events()
                } else {
                    reader.look_at_all()
                }
                reader.round();
            }
            assert_eq!(read(&mut reader).0, ["0", "1", "2", "3"], "watched: {has_watch}");
        }
    }

    /// How reads are cut in the test below: within what is looked at again, at its end, within a record, at its end.
    fn all_cuts() -> impl Iterator<Item = Vec<Cut>> {
        [1, 2, 13, 31, 32, 33, 57, 66]
            .into_iter()
            .flat_map(|most| [vec![Cut::To(most)], vec![Cut::Interrupted, Cut::To(0), Cut::To(most), Cut::Whole]])
    }

    /// Wherever reads are cut, every line comes once and nothing counts as truncated: from the start, from the last lines,
    /// from a time, from a position, in both forms, through a rotation and out of a compressed file.
    #[test]
    fn short_reads_lose_and_repeat_nothing_however_a_log_is_read() {
        let since = Timestamp::parse(b"2026-01-01T00:00:00.000000002Z").unwrap();
        for cuts in all_cuts() {
            for (name, is_local) in [("web-json.log", false), ("local-logs/container.log", true)] {
                let folder = tempfile::tempdir().unwrap();
                let live = folder.path().join(name);
                fs::create_dir_all(live.parent().unwrap()).unwrap();
                let record = |number| if is_local { local_line(number) } else { line(number).into_bytes() };
                let records = |numbers: Range<u32>| numbers.flat_map(record).collect::<Vec<u8>>();
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(&records(0..3)).unwrap();
                fs::write(format!("{}.2.gz", live.display()), packed.finish().unwrap()).unwrap();
                fs::write(format!("{}.1", live.display()), records(3..6)).unwrap();
                fs::write(&live, records(6..9)).unwrap();
                let starts = [(Start::All, 0), (Start::Last(5), 4), (Start::Last(8), 1), (Start::Beginning, 6)];
                let since = (!is_local).then_some((Start::Since(since), 0));
                let told = short::during(short::cycle(cuts.clone()), || {
                    let mut all = Vec::new();
                    for (start, first) in starts.into_iter().chain(since) {
                        let mut reader = reader(1024 * 1024);
                        reader.follow(follow(folder.path(), start, None));
                        let (mut told, position) = read(&mut reader);
                        fs::File::options().append(true).open(&live).unwrap().write_all(&record(9)).unwrap();
                        reader.take_events();
                        told.extend(read(&mut reader).0);
                        let mut again = self::reader(1024 * 1024);
                        again.follow(follow(folder.path(), start, position));
                        let resumed = read(&mut again).0;
                        fs::write(&live, records(6..9)).unwrap();
                        all.push((start, first, told, resumed));
                    }
                    all
                });
                for (start, first, told, resumed) in told {
                    let expected: Vec<String> = (first..10).map(|number| number.to_string()).collect();
                    assert_eq!(told, expected, "{name} {start:?} {cuts:?}");
                    assert_eq!(resumed, ["9"], "{name} {start:?} {cuts:?}");
                }
            }
        }
    }

    /// Positions that older versions saved, without an ID of the file, go on exactly where they stopped.
    #[test]
    fn positions_of_older_versions_go_on_where_they_stopped() {
        for has_record in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let live = folder.path().join("web-json.log");
            fs::write(&live, if has_record { line(0) } else { String::new() }).unwrap();
            let mut first = reader(1024 * 1024);
            first.follow(follow(folder.path(), Start::All, None));
            let mut position = read(&mut first).1.unwrap();
            let place = position.place.as_mut().unwrap();
            if !has_record {
                assert_eq!(place.fingerprint, None);
                place.fingerprint = birth_mark(&place.file);
            }
            (place.file.filesystem, place.file.born) = (None, None);
            place.device += 1;
            fs::rename(&live, folder.path().join("web-json.log.1")).unwrap();
            fs::write(folder.path().join("web-json.log.1"), [line(0), line(1)].concat()).unwrap();
            fs::write(&live, line(2)).unwrap();
            let mut second = reader(1024 * 1024);
            second.follow(follow(folder.path(), Start::All, Some(position)));
            let expected: &[&str] = if has_record { &["1", "2"] } else { &["0", "1", "2"] };
            assert_eq!(read(&mut second).0, expected, "has a record: {has_record}");
        }
    }

    /// Where inotify told nothing, a look finds what was written, what was rotated, and a watch that is missing.
    #[test]
    fn a_look_finds_what_inotify_did_not_report_and_watches_again() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("web-json.log");
        fs::write(&live, line(0)).unwrap();
        let mut reader = reader(1024 * 1024);
        reader.follow(follow(folder.path(), Start::All, None));
        assert_eq!(read(&mut reader).0, ["0"]);
        let now = Instant::now();
        reader.look_around(now + Duration::from_secs(31));
        let entry = reader.logs.get_mut(&KEY).unwrap();
        assert!(!entry.log.chain.is_settled(), "it has just been written");
        reader.unwatch(KEY);
        reader.judge(KEY);
        assert!(reader.next_look().unwrap() <= Instant::now() + Duration::from_secs(1));
        fs::rename(&live, folder.path().join("web-json.log.1")).unwrap();
        fs::write(&live, line(1)).unwrap();
        reader.look_around(now + Duration::from_secs(33));
        assert_eq!(read(&mut reader).0, ["1"]);
        assert!(reader.logs[&KEY].watch.is_some());
        fs::File::options().append(true).open(&live).unwrap().write_all(line(2).as_bytes()).unwrap();
        reader.take_events();
        assert_eq!(read(&mut reader).0, ["2"], "reported again");
    }

    /// A line of the `local` driver.
    fn local_line(number: u32) -> Vec<u8> {
        let (source, line) = ("stdout".to_owned(), number.to_string().into_bytes());
        framed(&LogEntry { source, time_nano: number.into(), line, ..LogEntry::default() }.encode_to_vec())
    }

    /// Reads a log that begins so to its end as of a death, and to each further end: with the same reader, or each time
    /// with another. Between them is written, behind a rotation for `true`.
    fn lives(live: &Path, begun: &[u8], written: &[(bool, &[u8])], is_same_run: bool) -> Vec<String> {
        let (folder, mut told, mut position) = (tempfile::tempdir().unwrap(), Vec::new(), None);
        let live = folder.path().join(live);
        fs::create_dir_all(live.parent().unwrap()).unwrap();
        let mut reader = self::reader(1024 * 1024);
        // Each place is one to go on from, also before anything is read behind it.
        for (is_rotated, bytes) in [(false, begun), (false, b"")].iter().chain(written) {
            if *is_rotated {
                fs::rename(&live, format!("{}.1", live.display())).unwrap();
            }
            fs::File::options().create(true).append(true).open(&live).unwrap().write_all(bytes).unwrap();
            if !is_same_run {
                reader = self::reader(1024 * 1024);
            }
            reader.follow(follow(folder.path(), Start::All, position));
            reader.finish(KEY, Vec::new(), false);
            let (more, place) = read(&mut reader);
            told.extend(more);
            position = place.or(position);
        }
        told
    }

    #[test]
    fn half_a_record_left_at_a_death_is_told_once() {
        let (json_file, local) = (Path::new("web-json.log"), Path::new("local-logs/container.log"));
        let [lines, records] = [[0, 1, 2].map(|number| line(number).into_bytes()), [0, 1, 2].map(local_line)];
        for (live, [first, torn, next]) in [(json_file, &lines), (local, &records)] {
            let (half, rest) = torn.split_at(9);
            let rest_and_next = [rest, next].concat();
            let cases: [(&[_], &[_]); _] = [
                (&[], &[]),
                (&[(false, &next[..])], &["2"]),
                (&[(false, next), (false, next)], &["2", "2"]),
                (&[(true, next)], &["2"]),
                // It is not told with what comes behind it.
                (&[(false, &half[..5]), (false, next)], &["corrupt", "2"]),
                // The engine was only late.
                (&[(false, rest)], &["1"]),
                (&[(false, &rest_and_next)], &["1", "2"]),
            ];
            for ((written, expected), is_same_run) in cases.iter().flat_map(|case| [(case, true), (case, false)]) {
                let told = lives(live, &[&first[..], half].concat(), written, is_same_run);
                let expected = [&["0", "corrupt"], *expected].concat();
                assert_eq!(told, expected, "{}: {written:?}, same run: {is_same_run}", live.display());
            }
        }
    }

    #[test]
    fn what_is_written_to_a_file_that_was_truncated_is_shown_whatever_was_hidden_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("web-json.log");
        fs::write(&live, (0..9).map(line).collect::<String>()).unwrap();
        let mut reader = reader(1024 * 1024);
        reader.follow(follow(folder.path(), Start::Last(1), None));
        assert_eq!(read(&mut reader).0, ["8"]);
        fs::write(&live, line(9)).unwrap();
        reader.take_events();
        assert_eq!(read(&mut reader).0, ["truncated", "9"]);
    }

    #[test]
    fn a_compressed_file_is_gone_through_to_where_reading_stopped_while_others_are_read() {
        let lines = |numbers: Range<u32>| numbers.map(line).collect::<String>();
        let numbers = |numbers: Range<u32>| numbers.map(|number| number.to_string()).collect::<Vec<_>>();
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let live = folder.path().join("web-json.log");
        fs::write(&live, lines(0..20_000)).unwrap();
        fs::write(other.path().join("web-json.log"), line(7)).unwrap();
        let mut first = reader(1024 * 1024);
        first.follow(follow(folder.path(), Start::All, None));
        let (told, position) = read(&mut first);
        assert_eq!(told.len(), 20_000);
        fs::write(&live, line(20_010)).unwrap();
        let lost = ["truncated".to_owned()];
        for (kept, rest) in [(20_010, &numbers(20_000..20_010)[..]), (20_000, &[]), (10, &lost)] {
            let packed = fs::File::create(folder.path().join("web-json.log.1.gz")).unwrap();
            let mut packed = GzEncoder::new(packed, Compression::fast());
            packed.write_all(lines(0..kept).as_bytes()).unwrap();
            packed.finish().unwrap();
            let mut reader = self::reader(1024 * 1024);
            reader.follow(follow(folder.path(), Start::All, position));
            let offset = |position: Option<Position>| position.unwrap().place.unwrap().offset;
            assert_eq!(offset(take(&reader.queue).1), offset(position), "it is where it was");
            reader.follow(Follow { key: ContainerKey(1), ..follow(other.path(), Start::All, None) });
            reader.round();
            assert_eq!(take(&reader.queue).0, ["7"]);
            assert_eq!(read(&mut reader).0, [rest, &numbers(20_010..20_011)].concat());
        }
    }
}

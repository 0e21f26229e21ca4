//! The single thread that reads all log files.
//!
//! In: [`Command`]s from `watch`, and inotify events. Out: batches on the queue, and [`Report`]s about files that
//! cannot be read. The thread never blocks on the queue: while the queue is full, it continues to open new files as
//! they appear, and it reads again once there is space. Files take turns of at most one block.
//!
//! Checks find what inotify misses: all files are checked after an overflow, otherwise in rounds ([`super::rescan`]):
//! within 30 seconds where inotify is reliable, every 5 seconds on network file systems and FUSE, and every second for
//! a file without a watch.

use super::container_log::{BlockOutcome, ContainerLog};
use super::follow::Follow;
use super::inotify::{FileEvent, Inotify, WatchId};
use super::mounts::MountWatch;
use super::newcomers::Newcomers;
use super::rescan::{RescanSchedule, Trust};
use super::rotation::RotationOutcome;
use crate::model::batch::{ContainerKey, Item};
use crate::model::container::Container;
use crate::model::position::TimePosition;
use crate::model::queue::Queue;
use crate::model::report_once::Once;
use crate::tail::Start;
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

/// How often unclaimed new containers are checked.
const NEWCOMER_INTERVAL: Duration = Duration::from_secs(5);
/// How often the reader tries to watch the containers' folder again after it was unmounted.
const LOST_ROOT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait while lines arrive in quick succession, when the mount table is not polled.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// After more than this many short waits in a row, the reader sleeps for [`GATHER`] before it waits again.
const BUSY_AFTER: u32 = 4;
/// A wait of at most this time counts as short.
const SHORT_WAIT: Duration = Duration::from_micros(500);
/// Gathers lines, so that each wake-up handles several.
const GATHER: Duration = Duration::from_millis(3);

/// Bytes read before the output thread is woken.
const FLUSH_BYTES: usize = 1024 * 1024;

/// A command to the reader.
#[derive(Debug)]
pub enum Command {
    /// Follow a container. Sent again when the container starts again.
    Follow(Box<Follow>),
    /// The container has stopped: read its log to the end, close it, then put these items on the queue.
    Finish(ContainerKey, Vec<Item>),
    /// Like `Finish`, but also forget the container.
    Forget(ContainerKey, Vec<Item>),
    /// The container runs, so dockerd has created its log file. If the file does not exist, refuse the container.
    Expect(ContainerKey),
    /// Start reading a held container.
    Admit(ContainerKey),
    /// Close and forget the container at once.
    Drop(ContainerKey),
    /// Watch this folder for the folders of new containers, and open the logs that appear in them.
    WatchNewcomers(PathBuf),
    /// Nobody will follow the new container with this ID.
    Ignore(String),
    /// Measure roughly how many bytes of log files were not written to the output yet.
    Measure(Measure),
}

/// Callback that receives the number of bytes that were not written yet.
pub struct Measure(pub Box<dyn FnOnce(u64) + Send>);

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measure")
    }
}

/// A report from the reader to `watch`.
#[derive(Debug)]
pub enum Report {
    /// The container's files cannot be read, or not beyond this position. If the container has stopped: the items of
    /// its [`Command::Finish`].
    Refused(ContainerKey, io::Error, TimePosition, Option<Vec<Item>>),
    /// The log was read to the end that [`Command::Finish`] asked for.
    Finished(ContainerKey),
    /// The container was refused before its [`Command::Finish`] arrived. Contains the items of that command.
    NotFollowed(ContainerKey, Vec<Item>),
    /// The container is forgotten. Nothing more is reported about it.
    Forgotten(ContainerKey),
    /// The user's inotify watches are used up. Files without a watch are checked every second.
    NoWatches,
    /// The process's or the system's descriptors are used up. Files wait until they can be opened.
    NoDescriptors,
    /// This container was created and removed, but nobody followed it. Its log stays open for a while, so that a
    /// [`Command::Follow`] can still read it.
    Unclaimed(Box<Container>),
}

/// Wakes the reader from its wait.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    pub fn new() -> io::Result<Self> {
        Ok(Wake(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// Wakes the reader. Several calls before it wakes count as one.
    pub fn wake(&self) {
        // Fails only when the counter is at its maximum, and then the reader is woken anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// Reads the log files of all followed containers, on its own thread.
pub struct LogReader {
    inotify: Inotify,
    wake: Wake,
    commands: mpsc::Receiver<Command>,
    report: Box<dyn Fn(Report) + Send>,
    queue: Arc<Queue>,
    logs: HashMap<ContainerKey, FollowedLog>,
    watches: HashMap<WatchId, ContainerKey>,
    newcomers: Newcomers,
    /// Containers with unread bytes or a pending end. Each is in here at most once ([`FollowedLog::is_ready`]).
    ready: VecDeque<ContainerKey>,
    /// Containers whose file was opened since events were last handled.
    new: Vec<ContainerKey>,
    schedule: RescanSchedule,
    mounts: MountWatch,
    /// When to check `newcomers` next, while it is waiting.
    next_newcomer_check: Instant,
    /// Adding a watch failed for lack of watches since the last check began.
    is_out_of_watches: bool,
    /// [`Report::NoWatches`] was sent; it is sent once.
    reported_no_watches: Once,
    /// [`Report::NoDescriptors`] was sent; it is sent once.
    reported_no_descriptors: Once,
}

/// A container whose log the reader has.
struct FollowedLog {
    log: ContainerLog,
    start: Start,
    watch: Option<WatchId>,
    /// The folder that `watch` is on.
    watched: PathBuf,
    /// Its file could not be opened for lack of descriptors.
    lacks_descriptor: bool,
    /// It is in [`LogReader::ready`].
    is_ready: bool,
    /// Nothing is read before [`Command::Admit`].
    is_held: bool,
    /// Set from [`Command::Finish`] until the end was reached.
    ending: Option<Ending>,
    /// Taken when the file is opened.
    on_open: Vec<Item>,
    /// It was opened to read what an earlier run of the container wrote.
    is_recalled: bool,
}

impl FollowedLog {
    /// Takes the items to queue when its file is opened, before the first line.
    fn opening_items(&mut self, key: ContainerKey) -> Vec<Item> {
        let mut items = std::mem::take(&mut self.on_open);
        self.is_recalled = items.iter().any(|item| matches!(item, Item::History(..)));
        items.extend(self.log.position().map(|position| Item::StartAt(key, position)));
        items
    }
}

/// What to do at the end of a log.
struct Ending {
    /// Items to queue after the last line.
    then: Vec<Item>,
    forget: bool,
    /// The container started again before the end was reached.
    is_restarted: bool,
}

impl LogReader {
    /// Creates a reader. The sender of `commands` must call [`Wake::wake`] after each command.
    pub fn new(
        queue: Arc<Queue>,
        wake: Wake,
        commands: mpsc::Receiver<Command>,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let now = Instant::now();
        Ok(LogReader {
            inotify: Inotify::new()?,
            wake,
            commands,
            report: Box::new(report),
            queue,
            logs: HashMap::new(),
            watches: HashMap::new(),
            newcomers: Newcomers::default(),
            ready: VecDeque::new(),
            new: Vec::new(),
            schedule: RescanSchedule::new(now),
            mounts: MountWatch::new(now),
            next_newcomer_check: now,
            is_out_of_watches: false,
            reported_no_watches: Once::default(),
            reported_no_descriptors: Once::default(),
        })
    }

    /// Runs until the sender of the commands is dropped.
    pub fn run(mut self) {
        let mut short_waits = 0;
        loop {
            let can_read = !self.ready.is_empty() && self.queue.has_room();
            if !can_read {
                // Sleeping before the wait means that lines arriving meanwhile need no wake-up. This also applies while
                // the queue is full, when only new files matter.
                if short_waits > BUSY_AFTER {
                    std::thread::sleep(GATHER);
                }
                let wait_started = Instant::now();
                let was_called = self.wait(short_waits <= BUSY_AFTER);
                short_waits = if was_called || wait_started.elapsed() > SHORT_WAIT { 0 } else { short_waits + 1 };
            }
            self.take_events();
            if !self.take_commands() {
                return;
            }
            let now = Instant::now();
            if self.next_check().is_some_and(|next| now >= next) {
                self.check_due(now);
            }
            self.read_round();
        }
    }

    /// Returns when the next check is due.
    fn next_check(&self) -> Option<Instant> {
        let newcomers = self.newcomers.is_waiting().then_some(self.next_newcomer_check);
        self.schedule.next().into_iter().chain(newcomers).min()
    }

    /// Sleeps until something happens or a check is due. Returns whether [`Wake::wake`] was called. While lines arrive
    /// in quick succession (`!is_calm`), the mount table is not polled, because that would make each line more
    /// expensive.
    fn wait(&mut self, is_calm: bool) -> bool {
        let now = Instant::now();
        let table = self.mounts.table(now).filter(|_| is_calm);
        // When no more lines come, polling of the mount table starts again after this time.
        let again = if is_calm { self.mounts.resume_at(now) } else { Some(now + BUSY_WAIT) };
        let next = self.next_check().into_iter().chain(again).min();
        let timeout = next.map(|next| next.saturating_duration_since(now));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wake = Arc::clone(&self.wake.0);
        let watched = PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN);
        let called = PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN);
        let mounted = table.map(|table| PollFd::from_borrowed_fd(table, PollFlags::PRI));
        let has_table = mounted.is_some();
        let mut fds = [watched, called.clone(), mounted.unwrap_or(called)];
        let polled = &mut fds[..if has_table { 3 } else { 2 }];
        // An interruption counts as a wake-up.
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

    /// Gives each ready file one turn, then wakes the output once for all of them.
    fn read_round(&mut self) {
        let mut items = Vec::new();
        let mut gathered = 0;
        for _ in 0..self.ready.len() {
            if !self.queue.has_room() {
                break;
            }
            let Some(key) = self.ready.pop_front() else { break };
            let before = items.len();
            self.take_turn(key, &mut items);
            // `take_turn` empties `items` when it had to queue them before a report.
            gathered = items.get(before..).map_or(0, |more| gathered + more.iter().map(Item::weight).sum::<usize>());
            if gathered > FLUSH_BYTES {
                self.queue.push(items.drain(..));
                gathered = 0;
            }
        }
        if !items.is_empty() {
            self.queue.push(items);
        }
    }

    fn take_turn(&mut self, key: ContainerKey, items: &mut Vec<Item>) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        entry.is_ready = false;
        if entry.lacks_descriptor {
            return;
        }
        let more = match entry.log.read_block(&self.queue) {
            Ok(BlockOutcome::Batch(batch)) => {
                items.push(Item::Lines(batch));
                entry.log.has_more_for_sure() || entry.ending.is_some()
            }
            Ok(BlockOutcome::Nothing) => entry.log.has_more_for_sure() || entry.ending.is_some(),
            Ok(BlockOutcome::End) if entry.ending.is_some() => return self.end(key, items),
            Ok(BlockOutcome::End) => false,
            Err(error) => {
                // Queue them first, so that they precede what another route reads.
                self.queue.push(items.drain(..));
                return self.refuse(key, error);
            }
        };
        if more {
            self.make_ready(key);
        }
    }

    /// Handles the end of a log: the container has died and its log was read to the end.
    fn end(&mut self, key: ContainerKey, items: &mut Vec<Item>) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        let Some(ending) = entry.ending.take() else { return };
        if ending.is_restarted && !ending.forget && entry.log.is_open() {
            // The new run may have written already, so an unfinished line can belong to it.
            items.extend(ending.then);
            items.extend(entry.opening_items(key));
            self.queue.push(items.drain(..));
            return (self.report)(Report::Finished(key));
        }
        items.extend(entry.log.flush());
        items.extend(ending.then);
        entry.log.close();
        // The receiver of the report may close the queue.
        self.queue.push(items.drain(..));
        (self.report)(Report::Finished(key));
        self.unwatch(key);
        if ending.forget {
            self.remove(key);
            (self.report)(Report::Forgotten(key));
        } else if ending.is_restarted {
            self.watch_and_open(key);
        }
        self.update_trust(key);
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
                Ok(Command::WatchNewcomers(root)) => self.newcomers.start(&self.inotify, root),
                Ok(Command::Ignore(id)) => self.newcomers.ignore(&self.inotify, &id),
                Ok(Command::Measure(Measure(report))) => {
                    let unread: u64 = self.logs.values().map(|entry| entry.log.chain.unread()).sum();
                    report(unread + self.queue.unwritten() as u64);
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
                    ending.is_restarted = true;
                    entry.on_open = follow.on_open;
                }
                None if !entry.log.is_open() => {
                    entry.on_open = follow.on_open;
                    self.watch_and_open(key);
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
        let mut log = ContainerLog::new(&follow);
        let Follow { id, folder, start, position, is_held, on_open, .. } = follow;
        let found = self.newcomers.take(&id);
        let watch = found.as_ref().and_then(|found| found.watch);
        if let Some(watch) = watch {
            self.watches.insert(watch, key);
        }
        let watched = found.as_ref().map_or(folder, |found| found.watched.clone());
        let fresh = found.and_then(|found| found.log).filter(|_| start == Start::All && position.is_none());
        let is_open = fresh.is_some_and(|(location, handle)| log.adopt(location, handle).is_ok());
        let entry = FollowedLog {
            log,
            start,
            watch,
            watched,
            lacks_descriptor: false,
            is_ready: false,
            is_held,
            ending: None,
            on_open,
            is_recalled: false,
        };
        self.logs.insert(key, entry);
        if is_open {
            self.opened(key);
            // The log may have been rotated since `newcomers` opened it.
            self.appeared(key);
        } else {
            self.watch_and_open(key);
        }
        self.update_trust(key);
    }

    fn remove(&mut self, key: ContainerKey) -> Option<FollowedLog> {
        self.schedule.remove(key);
        self.logs.remove(&key)
    }

    /// Sets how often a log is checked, according to its watch and its file system.
    fn update_trust(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get(&key) else { return };
        let is_unwatched = || entry.watch.is_none() && entry.log.is_open() && !entry.log.is_once();
        let trust = if entry.lacks_descriptor || is_unwatched() {
            Trust::None
        } else if entry.log.chain.is_local() {
            Trust::Full
        } else {
            Trust::Doubtful
        };
        self.schedule.set(key, trust, Instant::now());
    }

    /// Watches the folder, then opens the file in it. In this order, no file is missed.
    fn watch_and_open(&mut self, key: ContainerKey) {
        self.watch(key);
        self.open(key);
        let is_waiting = |entry: &&mut FollowedLog| !entry.log.is_open() && entry.log.watched() != entry.watched;
        // The inner folder was created in between.
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
        match self.inotify.add(&folder) {
            Ok(watch) => {
                self.watches.insert(watch, key);
                entry.watched = folder;
                entry.log.chain.events_lost();
                if let Some(outer) = entry.watch.replace(watch).filter(|outer| *outer != watch) {
                    self.watches.remove(&outer);
                    self.inotify.remove(outer);
                }
            }
            Err(Errno::NOSPC) => self.go_without_watch(),
            // If the folder is gone, opening the file will fail too, with a better message.
            Err(error) => tracing::debug!(%error, folder = %folder.display(), "cannot watch folder"),
        }
    }

    fn go_without_watch(&mut self) {
        self.is_out_of_watches = true;
        if self.reported_no_watches.is_first() {
            (self.report)(Report::NoWatches);
        }
    }

    fn open(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key).filter(|entry| !entry.log.is_open()) else { return };
        let lacked_descriptor = std::mem::take(&mut entry.lacks_descriptor);
        match entry.log.open(entry.start) {
            Ok(()) => self.opened(key),
            // dockerd has not created it yet. The watch will report it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if entry.log.has_no_files() {
                    // Whatever appears there is new.
                    entry.start = Start::All;
                    if entry.watch.is_some() {
                        entry.log.chain.expect_first_file();
                    }
                }
                if entry.log.is_once() || lacked_descriptor && entry.ending.is_some() {
                    self.refuse(key, error);
                }
            }
            Err(error) if is_out_of_descriptors(&error) => self.wait_for_descriptors(key),
            Err(error) => self.refuse(key, error),
        }
    }

    /// Lets a file wait until descriptors are free.
    fn wait_for_descriptors(&mut self, key: ContainerKey) {
        if let Some(entry) = self.logs.get_mut(&key) {
            entry.lacks_descriptor = !entry.log.is_open();
        }
        self.update_trust(key);
        if self.reported_no_descriptors.is_first() {
            (self.report)(Report::NoDescriptors);
        }
    }

    fn opened(&mut self, key: ContainerKey) {
        // The log may be in the inner folder.
        self.watch(key);
        self.new.push(key);
        self.update_trust(key);
        let Some(entry) = self.logs.get_mut(&key) else { return };
        if !entry.is_held {
            self.queue.push(entry.opening_items(key));
        }
        self.make_ready(key);
    }

    fn finish(&mut self, key: ContainerKey, then: Vec<Item>, forget: bool) {
        // Count the files that were created and removed by now.
        self.take_events();
        // After its end, a log is not watched until it is followed again.
        let is_new = |entry: &FollowedLog| !entry.log.was_open() || entry.watch.is_some();
        let is_unseen = |entry: &FollowedLog| !entry.log.is_open() && entry.ending.is_none() && is_new(entry);
        if self.logs.get(&key).is_some_and(is_unseen) {
            // The container may have written and died before its file was seen.
            self.watch_and_open(key);
        }
        // The last rotation may be newer than the last inotify event, or there is no watch.
        if let Err(error) = self.follow_rotation(key) {
            tracing::debug!(%error, "cannot check for a rotation");
        }
        let Some(entry) = self.logs.get_mut(&key) else {
            // A `Refused` report is already on its way. The route that takes over decides what precedes these items.
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
                ending.is_restarted = false;
            }
            None => entry.ending = Some(Ending { then, forget, is_restarted: false }),
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
            Err(error) if is_out_of_descriptors(&error) => self.wait_for_descriptors(key),
            Err(error) => self.refuse(key, error),
        }
    }

    fn admit(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        entry.is_held = false;
        if entry.log.is_open() {
            self.queue.push(entry.opening_items(key));
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
            self.inotify.remove(watch);
        }
    }

    fn take_events(&mut self) {
        let (mut grown, mut appeared, mut gone, mut overflow) =
            (Vec::new(), Vec::<(ContainerKey, u32)>::new(), Vec::new(), false);
        let (inotify, watches, logs, newcomers) = (&self.inotify, &self.watches, &self.logs, &mut self.newcomers);
        inotify.drain(|event| match event {
            FileEvent::Appeared(watch, name)
                if newcomers.appeared(inotify, watch, name, |watch| watches.contains_key(&watch)) => {}
            FileEvent::Written(watch, name) | FileEvent::Appeared(watch, name) => {
                let Some((key, entry)) = watches.get(&watch).and_then(|key| Some((*key, logs.get(key)?))) else {
                    return;
                };
                if !entry.log.is_live_name(name) {
                    return;
                }
                // Events of one file usually follow one another.
                if let FileEvent::Written(..) = event {
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
            FileEvent::Gone(watch) => gone.push(watch),
            FileEvent::Overflow => overflow = true,
        });
        for (key, count) in appeared {
            self.appeared(key);
            if let Some(entry) = self.logs.get_mut(&key) {
                entry.log.chain.count_announced(count);
            }
        }
        for key in std::mem::take(&mut self.new) {
            if let Some(entry) = self.logs.get_mut(&key) {
                entry.log.chain.count_announced(0);
            }
        }
        for key in grown {
            self.make_ready(key);
        }
        for watch in gone {
            self.newcomers.gone(watch);
            if let Some(key) = self.watches.remove(&watch) {
                if let Some(entry) = self.logs.get_mut(&key) {
                    entry.watch = None;
                }
                self.update_trust(key);
            }
        }
        if overflow {
            self.logs.values_mut().for_each(|entry| entry.log.chain.events_lost());
            self.check_all();
        }
    }

    /// Handles a new file under the live name.
    fn appeared(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get_mut(&key) else { return };
        if !entry.log.is_open() {
            return self.watch_and_open(key);
        }
        match self.follow_rotation(key) {
            Ok(()) => self.make_ready(key),
            // Between two steps of a rotation, the name does not exist. The next file is another event.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_out_of_descriptors(&error) => self.wait_for_descriptors(key),
            Err(error) => self.refuse(key, error),
        }
    }

    /// Stops reading a container, so that another route takes over.
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

    /// Opens new files under the live name, also after its folder was mounted again.
    fn follow_rotation(&mut self, key: ContainerKey) -> io::Result<()> {
        let Some(entry) = self.logs.get_mut(&key) else { return Ok(()) };
        if entry.log.follow_rotation()? != RotationOutcome::Moved {
            return Ok(());
        }
        // Watch before opening, so that no file is missed.
        self.unwatch(key);
        self.watch(key);
        let Some(entry) = self.logs.get_mut(&key) else { return Ok(()) };
        let reopened = entry.log.reopen();
        // If the old file was closed and the new one not opened, retry as if descriptors were missing.
        entry.lacks_descriptor = !entry.log.is_open();
        match reopened {
            Ok(()) => self.opened(key),
            Err(_) => self.update_trust(key),
        }
        reopened
    }

    /// Runs the checks that are due.
    fn check_due(&mut self, now: Instant) {
        for container in self.newcomers.expire(&self.inotify, now) {
            (self.report)(Report::Unclaimed(Box::new(container)));
        }
        if self.newcomers.has_lost_root() {
            self.newcomers.return_to_root(&self.inotify);
        }
        self.next_newcomer_check =
            now + if self.newcomers.has_lost_root() { LOST_ROOT_INTERVAL } else { NEWCOMER_INTERVAL };
        self.is_out_of_watches = false;
        self.follow_mounts();
        for key in self.schedule.take_due(now) {
            let is_settled = |entry: &FollowedLog| entry.watch.is_some() && entry.log.chain.is_settled();
            if !self.logs.get(&key).is_some_and(is_settled) {
                self.check(key);
            }
        }
    }

    /// Switches to the new mount if the containers' folder was mounted again.
    fn follow_mounts(&mut self) {
        if !self.mounts.have_moved() {
            return;
        }
        self.newcomers.return_to_root(&self.inotify);
        for key in self.keys() {
            let Some(entry) = self.logs.get(&key) else { continue };
            if entry.log.is_open() {
                self.check(key);
            } else if entry.watch.is_some() {
                self.unwatch(key);
                self.watch_and_open(key);
            }
        }
    }

    /// Checks all followed logs against the file system.
    fn check_all(&mut self) {
        self.is_out_of_watches = false;
        for key in self.keys() {
            self.check(key);
        }
    }

    fn keys(&self) -> Vec<ContainerKey> {
        self.logs.keys().copied().collect()
    }

    /// Checks a log against the file system.
    fn check(&mut self, key: ContainerKey) {
        let Some(entry) = self.logs.get(&key) else { return };
        if entry.lacks_descriptor {
            self.watch_and_open(key);
            return self.update_trust(key);
        }
        if !entry.log.is_open() {
            return;
        }
        // Since the last check, watches may have become free, or the folder may exist again.
        if entry.watch.is_none() && !self.is_out_of_watches {
            self.watch(key);
        }
        // Also while the queue is full: that stops reading, but not opening.
        let followed = self.follow_rotation(key);
        let is_unread = |entry: &FollowedLog| !entry.is_ready && entry.log.chain.has_more();
        if self.logs.get(&key).is_some_and(is_unread) {
            self.make_ready(key);
        }
        match followed {
            Err(error) if is_out_of_descriptors(&error) => self.wait_for_descriptors(key),
            Err(error) => tracing::debug!(%error, "cannot check for a rotation"),
            Ok(()) => {}
        }
        self.update_trust(key);
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// Checks whether this process may list the containers' folder. Users in the `docker` group normally may not.
pub(crate) fn can_read(containers: &std::path::Path) -> io::Result<()> {
    std::fs::read_dir(containers).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::position::Position;
    use crate::model::time::Timestamp;
    use crate::tail::Window;
    use crate::tail::files::log_file::birth_hash;
    use crate::tail::files::pread::short::{self, Cut};
    use crate::tail::fuzz_checks::{LogEntry, framed};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use prost::Message;
    use std::fs;
    use std::io::Write;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    const KEY: ContainerKey = ContainerKey(0);

    /// A reader without a thread, on a queue of `limit` bytes.
    fn reader(limit: usize) -> LogReader {
        let (_, commands) = mpsc::channel();
        LogReader::new(Arc::new(Queue::new(limit, || ())), Wake::new().unwrap(), commands, drop).unwrap()
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

    /// Takes what was queued: the lines, the reason of each gap, and the last position.
    fn take(queue: &Queue) -> (Vec<String>, Option<Position>) {
        let (mut items, mut lines, mut position) = (VecDeque::new(), Vec::new(), None);
        queue.take(&mut items, Some(Duration::ZERO));
        for item in items {
            match &item {
                Item::Lines(batch) => {
                    for at in 0..=batch.lines.len() {
                        let gaps = batch.gaps.iter().filter(|(before, _)| *before == at);
                        lines.extend(gaps.map(|(_, gap)| gap.reason.name().to_owned()));
                        let line = batch.lines.get(at).map(|line| batch.text(line));
                        lines.extend(line.map(|text| String::from_utf8_lossy(text).into_owned()));
                    }
                    position = batch.position.or(position);
                }
                Item::StartAt(_, place) => position = Some(*place),
                _ => {}
            }
            queue.finish(item);
        }
        (lines, position)
    }

    /// Reads everything that is ready.
    fn read(reader: &mut LogReader) -> (Vec<String>, Option<Position>) {
        let (mut lines, mut position) = take(&reader.queue);
        while !reader.ready.is_empty() {
            reader.read_round();
            let (more, place) = take(&reader.queue);
            lines.extend(more);
            position = place.or(position);
        }
        (lines, position)
    }

    /// Overflows the inotify queue. Writes to two files in turn, because equal adjacent events are merged.
    fn overflow(folder: &Path) {
        let limit: u32 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let files = ["a", "b"].map(|name| fs::File::create(folder.join(name)).unwrap());
        for _ in 0..=limit / 2 {
            files.iter().for_each(|file| file.write_all_at(b"x", 0).unwrap());
        }
    }

    #[test]
    fn an_unreported_rotation_is_found_while_the_queue_is_full() {
        for has_watch in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let live = folder.path().join("web-json.log");
            fs::write(&live, line(0)).unwrap();
            let mut reader = reader(1);
            reader.follow(follow(folder.path(), Start::All, None));
            if !has_watch {
                reader.unwatch(KEY);
            }
            reader.read_round();
            assert!(!reader.queue.has_room());
            // The full queue prevents its next turn.
            reader.make_ready(KEY);
            // As with `max-file=2`: each file is removed by the second rotation after it.
            for number in 1..4 {
                if has_watch {
                    overflow(folder.path());
                }
                fs::rename(&live, folder.path().join("web-json.log.1")).unwrap();
                fs::write(&live, line(number)).unwrap();
                // An overflow triggers a check by itself.
                if has_watch {
                    reader.take_events()
                } else {
                    reader.check_all()
                }
                reader.read_round();
            }
            assert_eq!(read(&mut reader).0, ["0", "1", "2", "3"], "watched: {has_watch}");
        }
    }

    /// How reads are cut in the test below: within and at the end of the guard, within and at the end of a record.
    fn all_cuts() -> impl Iterator<Item = Vec<Cut>> {
        [1, 2, 13, 31, 32, 33, 57, 66]
            .into_iter()
            .flat_map(|most| [vec![Cut::To(most)], vec![Cut::Interrupted, Cut::To(0), Cut::To(most), Cut::Whole]])
    }

    /// Wherever reads are cut, every line comes once and no file counts as truncated: from the start, from the last
    /// lines, from a time, from a position, in both formats, across a rotation and from a compressed file.
    #[test]
    fn short_reads_lose_and_repeat_nothing() {
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
                let starts = [(Start::All, 0), (Start::Last(5), 4), (Start::Last(8), 1)];
                let since = (!is_local).then_some((Start::Since(since), 0));
                let results = short::during(short::cycle(cuts.clone()), || {
                    let mut all = Vec::new();
                    for (start, first) in starts.into_iter().chain(since) {
                        let mut reader = reader(1024 * 1024);
                        reader.follow(follow(folder.path(), start, None));
                        let (mut lines, position) = read(&mut reader);
                        fs::File::options().append(true).open(&live).unwrap().write_all(&record(9)).unwrap();
                        reader.take_events();
                        lines.extend(read(&mut reader).0);
                        let mut again = self::reader(1024 * 1024);
                        again.follow(follow(folder.path(), start, position));
                        let resumed = read(&mut again).0;
                        fs::write(&live, records(6..9)).unwrap();
                        all.push((start, first, lines, resumed));
                    }
                    all
                });
                for (start, first, lines, resumed) in results {
                    let expected: Vec<String> = (first..10).map(|number| number.to_string()).collect();
                    assert_eq!(lines, expected, "{name} {start:?} {cuts:?}");
                    assert_eq!(resumed, ["9"], "{name} {start:?} {cuts:?}");
                }
            }
        }
    }

    /// Positions saved by older versions, without a file ID, resume exactly where they stopped.
    #[test]
    fn positions_of_older_versions_resume_where_they_stopped() {
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
                place.fingerprint = birth_hash(&place.file);
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

    /// Without inotify events, a check finds new lines, a rotation, and a missing watch.
    #[test]
    fn a_check_finds_unreported_changes_and_watches_again() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("web-json.log");
        fs::write(&live, line(0)).unwrap();
        let mut reader = reader(1024 * 1024);
        reader.follow(follow(folder.path(), Start::All, None));
        assert_eq!(read(&mut reader).0, ["0"]);
        let now = Instant::now();
        reader.check_due(now + Duration::from_secs(31));
        let entry = reader.logs.get_mut(&KEY).unwrap();
        assert!(!entry.log.chain.is_settled(), "it has just been written");
        reader.unwatch(KEY);
        reader.update_trust(KEY);
        assert!(reader.next_check().unwrap() <= Instant::now() + Duration::from_secs(1));
        fs::rename(&live, folder.path().join("web-json.log.1")).unwrap();
        fs::write(&live, line(1)).unwrap();
        reader.check_due(now + Duration::from_secs(33));
        assert_eq!(read(&mut reader).0, ["1"]);
        assert!(reader.logs[&KEY].watch.is_some());
        fs::File::options().append(true).open(&live).unwrap().write_all(line(2).as_bytes()).unwrap();
        reader.take_events();
        assert_eq!(read(&mut reader).0, ["2"], "reported again");
    }

    /// Its event is lost and its folder is gone, but its log is still open.
    #[test]
    fn a_removed_container_without_event_is_read_a_minute_later() {
        let root = tempfile::tempdir().unwrap();
        let (reports, reported) = mpsc::channel();
        let (_, commands) = mpsc::channel();
        let queue = Arc::new(Queue::new(1024 * 1024, || ()));
        let report = move |report| reports.send(report).unwrap();
        let mut reader = LogReader::new(queue, Wake::new().unwrap(), commands, report).unwrap();
        reader.newcomers.start(&reader.inotify, root.path().to_owned());
        let id = "ab".repeat(32);
        let folder = root.path().join(&id);
        fs::create_dir(&folder).unwrap();
        reader.take_events();
        fs::write(folder.join("config.v2.json"), r#"{"Name":"/web","Config":{"Image":"i"}}"#).unwrap();
        fs::write(folder.join(format!("{id}-json.log")), line(0) + &line(1)).unwrap();
        reader.take_events();
        fs::remove_dir_all(&folder).unwrap();
        reader.take_events();
        let now = Instant::now();
        reader.check_due(now);
        assert!(reported.try_recv().is_err(), "its event may still come");
        assert!(reader.next_check().unwrap() <= now + NEWCOMER_INTERVAL);
        reader.check_due(now + Duration::from_secs(61));
        let report = reported.try_recv();
        let Ok(Report::Unclaimed(container)) = report else { panic!("{report:?}") };
        assert_eq!((&*container.id, &*container.name), (&*id, "web"));
        reader.follow(Follow { id, ..follow(&folder, Start::All, None) });
        reader.finish(KEY, Vec::new(), true);
        assert_eq!(read(&mut reader).0, ["0", "1"]);
    }

    /// A line of the `local` driver.
    fn local_line(number: u32) -> Vec<u8> {
        let (source, line) = ("stdout".to_owned(), number.to_string().into_bytes());
        framed(&LogEntry { source, time_nano: number.into(), line, ..LogEntry::default() }.encode_to_vec())
    }

    /// Reads a log to its end as at a container's death, then again after each write: with the same reader, or each
    /// time with a new one. A `true` in `written` means that a rotation precedes the write.
    fn read_across_deaths(live: &Path, begun: &[u8], written: &[(bool, &[u8])], is_same_run: bool) -> Vec<String> {
        let (folder, mut lines, mut position) = (tempfile::tempdir().unwrap(), Vec::new(), None);
        let live = folder.path().join(live);
        fs::create_dir_all(live.parent().unwrap()).unwrap();
        let mut reader = self::reader(1024 * 1024);
        // Each position can be resumed from, even before anything after it was read.
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
            lines.extend(more);
            position = place.or(position);
        }
        lines
    }

    #[test]
    fn half_a_record_at_a_death_is_reported_once() {
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
                // It is not reported again with what follows it.
                (&[(false, &half[..5]), (false, next)], &["corrupt", "2"]),
                // dockerd was just late.
                (&[(false, rest)], &["1"]),
                (&[(false, &rest_and_next)], &["1", "2"]),
            ];
            for ((written, expected), is_same_run) in cases.iter().flat_map(|case| [(case, true), (case, false)]) {
                let lines = read_across_deaths(live, &[&first[..], half].concat(), written, is_same_run);
                let expected = [&["0", "corrupt"], *expected].concat();
                assert_eq!(lines, expected, "{}: {written:?}, same run: {is_same_run}", live.display());
            }
        }
    }

    #[test]
    fn lines_after_a_truncation_are_shown() {
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
    fn skipping_in_a_compressed_file_does_not_block_others() {
        let records = |numbers: Range<u32>| numbers.map(line).collect::<String>();
        let numbers = |numbers: Range<u32>| numbers.map(|number| number.to_string()).collect::<Vec<_>>();
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let live = folder.path().join("web-json.log");
        fs::write(&live, records(0..20_000)).unwrap();
        fs::write(other.path().join("web-json.log"), line(7)).unwrap();
        let mut first = reader(1024 * 1024);
        first.follow(follow(folder.path(), Start::All, None));
        let (lines, position) = read(&mut first);
        assert_eq!(lines.len(), 20_000);
        fs::write(&live, line(20_010)).unwrap();
        let lost = ["truncated".to_owned()];
        for (kept, rest) in [(20_010, &numbers(20_000..20_010)[..]), (20_000, &[]), (10, &lost)] {
            let packed = fs::File::create(folder.path().join("web-json.log.1.gz")).unwrap();
            let mut packed = GzEncoder::new(packed, Compression::fast());
            packed.write_all(records(0..kept).as_bytes()).unwrap();
            packed.finish().unwrap();
            let mut reader = self::reader(1024 * 1024);
            reader.follow(follow(folder.path(), Start::All, position));
            let offset = |position: Option<Position>| position.unwrap().place.unwrap().offset;
            assert_eq!(offset(take(&reader.queue).1), offset(position), "the position is unchanged");
            reader.follow(Follow { key: ContainerKey(1), ..follow(other.path(), Start::All, None) });
            reader.read_round();
            assert_eq!(take(&reader.queue).0, ["7"]);
            assert_eq!(read(&mut reader).0, [rest, &numbers(20_010..20_011)].concat());
        }
    }
}

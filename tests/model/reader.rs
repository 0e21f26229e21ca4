//! Runs the real reader on its own thread, which a play holds while it acts and releases until the reader is at rest.
//!
//! The reader calls back on its own thread when a container has finished, so a container without files serves as a gate
//! that blocks it there. When inotify announces the file of another such container, everything that happened before has
//! been processed.

use logwatch::internals::model::{ContainerKey, Item, Queue};
use logwatch::internals::tail::{Command, Follow, LogReader, Report, Start, Wake, Window};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io};

/// The container's ID.
pub const MAIN: ContainerKey = ContainerKey(0);
const GATE: ContainerKey = ContainerKey(1);
const FIRST_MARKER: u32 = 2;
/// After this time the reader counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Gate {
    /// How often the reader arrived at the gate, and how often it was let through.
    state: Mutex<(u64, u64)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(came, passed)| passed < came).unwrap());
    }

    fn await_reader(&self, times: u64) {
        let state = self.state.lock().unwrap();
        let (_state, waited) = self.changed.wait_timeout_while(state, PATIENCE, |(came, _)| *came < times).unwrap();
        assert!(!waited.timed_out(), "the reader takes no commands");
    }

    fn open(&self, times: u64) {
        self.state.lock().unwrap().1 = times;
        self.changed.notify_all();
    }
}

/// One run of the reader.
pub struct Life {
    queue: Arc<Queue>,
    wake: Wake,
    commands: Option<Sender<Command>>,
    pub reports: Receiver<Report>,
    gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
    /// It is held only until it comes to rest.
    is_loose: bool,
    passes: u32,
    markers: PathBuf,
    /// How often it reached the end of the container's run.
    pub ends: usize,
    /// What it delivered and was not yet checked.
    pub taken: VecDeque<Item>,
}

impl Life {
    pub fn begin(markers: &Path, limit: usize, is_loose: bool) -> io::Result<Self> {
        let wake = Wake::new()?;
        let on_room = wake.clone();
        let queue = Arc::new(Queue::new(limit, move || on_room.wake()));
        let ((commands, received), (report, reports), gate) =
            (mpsc::channel(), mpsc::channel(), Arc::new(Gate::default()));
        let at_gate = Arc::clone(&gate);
        let reader = LogReader::new(Arc::clone(&queue), wake.clone(), received, move |message| match message {
            Report::NotFollowed(GATE, _) => at_gate.pass(),
            // A reader that was dropped has no receiver.
            other => drop(report.send(other)),
        })?;
        let thread = Some(std::thread::spawn(move || reader.run()));
        let (commands, markers, taken) = (Some(commands), markers.to_owned(), VecDeque::new());
        let mut life =
            Life { queue, wake, commands, reports, gate, thread, is_loose, passes: 0, markers, ends: 0, taken };
        life.halt();
        Ok(life)
    }

    pub fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            commands.send(command).unwrap();
        }
        self.wake.wake();
    }

    /// Lets it run until it has processed everything that happened and has checked all files at least once since the
    /// previous pass. Returns how much it delivered.
    pub fn pass(&mut self) -> usize {
        let (before, marker) = (self.taken.len(), ContainerKey(FIRST_MARKER + self.passes));
        fs::write(self.marker_file(), "").unwrap();
        self.gate.open(u64::from(self.passes));
        while !self.take(PATIENCE, Some(marker)) {}
        self.send(Command::Drop(marker));
        self.halt();
        self.take(Duration::ZERO, None);
        self.taken.len() - before
    }

    /// Makes it stop at the gate, with a new marker to recognise the pass.
    fn halt(&mut self) {
        self.passes += 1;
        let (folder, file) = (self.marker_folder(), self.marker_file());
        fs::create_dir_all(&folder).unwrap();
        if file.exists() {
            fs::remove_file(file).unwrap();
        }
        let key = ContainerKey(FIRST_MARKER + self.passes);
        self.send(Command::Follow(Box::new(Follow {
            key,
            id: "marker".to_owned(),
            folder,
            start: Start::All,
            position: None,
            window: Window::default(),
            max_line_size: 1,
            once: false,
            is_held: false,
            on_open: vec![Item::Notice(Some(key), String::new())],
        })));
        self.send(Command::Finish(GATE, Vec::new()));
        self.gate.await_reader(self.passes.into());
        if self.is_loose {
            self.gate.open(self.passes.into());
        }
    }

    fn marker_folder(&self) -> PathBuf {
        self.markers.join((self.passes % 2).to_string())
    }

    fn marker_file(&self) -> PathBuf {
        self.marker_folder().join("marker-json.log")
    }

    /// Takes what is on the queue, or waits for it. Returns whether a marker was there.
    fn take(&mut self, patience: Duration, marker: Option<ContainerKey>) -> bool {
        let (mut items, mut found) = (VecDeque::new(), false);
        self.queue.take(&mut items, Some(patience));
        assert!(marker.is_none() || !items.is_empty(), "the reader does not see a new file");
        for item in items {
            if let Item::End(MAIN, _) = item {
                self.ends += 1;
            }
            let is_mains = match &item {
                Item::Lines(batch) => batch.key == MAIN,
                Item::StartAt(key, _) | Item::End(key, _) => *key == MAIN,
                Item::Notice(key, _) => {
                    found |= *key == marker;
                    false
                }
                _ => false,
            };
            if is_mains {
                self.taken.push_back(item);
            } else {
                self.queue.finish(item);
            }
        }
        found
    }

    /// Tells the reader that the output has written this.
    pub fn finish(&self, item: Item) {
        self.queue.finish(item);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.commands = None;
        self.gate.open(u64::MAX);
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the reader shows in what it did not do.
            let _ = thread.join();
        }
    }
}

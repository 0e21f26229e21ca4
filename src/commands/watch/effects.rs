//! Carries out what the supervisor decides: sends commands to the reader, starts stream tasks and lookups, and puts
//! items on the queue.

use super::lookups::Lookups;
use super::supervisor::{Effect, LogFiles};
use crate::commands::route::{Choice, Routes};
use crate::commands::stream::{ApiLog, Outcome, Signal, StreamContext, StreamPlan, StreamReport};
use crate::model::batch::ContainerKey;
use crate::model::container::Container;
use crate::model::queue::Queue;
use crate::tail::{Command, Wake};
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, error::SendError, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The sending half of a channel to the reader, which is woken for each command.
pub(super) struct ReaderCommands {
    pub(super) sender: mpsc::Sender<Command>,
    pub(super) wake: Wake,
}

impl ReaderCommands {
    pub(super) fn send(&self, command: Command) {
        // Fails only when the reader has ended, which it does only once this sender is dropped.
        let _ = self.sender.send(command);
        self.wake.wake();
    }
}

/// What stream tasks need from outside, and where they report to.
pub(super) struct Streams {
    context: StreamContext,
    routes: Arc<Routes>,
    tasks: JoinSet<(ContainerKey, String, Outcome)>,
    channels: HashMap<ContainerKey, TaskChannels>,
    reports: UnboundedReceiver<StreamReport>,
    shorten_retries: watch::Sender<bool>,
}

/// The channels to one stream task.
struct TaskChannels {
    signals: UnboundedSender<Signal>,
    is_paused: watch::Sender<bool>,
}

impl Streams {
    /// `context` builds the context of the tasks from the channels that this function creates.
    pub(super) fn new(
        routes: Arc<Routes>,
        context: impl FnOnce(UnboundedSender<StreamReport>, watch::Receiver<bool>) -> StreamContext,
    ) -> Self {
        // A task sends few reports: of its first answer, of a lack of permits, and of its end.
        let (report, reports) = unbounded_channel();
        let (shorten_retries, is_shortened) = watch::channel(false);
        let context = context(report, is_shortened);
        Streams { context, routes, tasks: JoinSet::new(), channels: HashMap::new(), reports, shorten_retries }
    }

    fn spawn(&mut self, plan: StreamPlan) {
        let (signals, received) = unbounded_channel();
        let (is_paused, paused) = watch::channel(plan.is_paused);
        self.channels.insert(plan.key, TaskChannels { signals, is_paused });
        let (key, id) = (plan.key, plan.id.clone());
        let log = ApiLog::new(self.context.clone(), plan, self.routes.container_folder(&id), paused);
        self.tasks.spawn(async move { (key, id, log.run(received).await) });
    }

    /// Sends a signal to a task. Returns it if the task has ended.
    fn signal(&self, key: ContainerKey, signal: Signal) -> Option<Signal> {
        match self.channels.get(&key) {
            Some(channels) => channels.signals.send(signal).err().map(|SendError(signal)| signal),
            None => Some(signal),
        }
    }

    /// Returns the next report of any task. Everything that a task reported comes before its end.
    pub(super) async fn next(&mut self) -> Option<StreamReport> {
        tokio::select! {
            biased;
            report = self.reports.recv() => report,
            Some(ended) = self.tasks.join_next() => {
                let (key, id, outcome) = ended.ok()?;
                self.channels.remove(&key);
                Some(StreamReport::Ended(key, id, outcome))
            }
        }
    }
}

/// What effects act on: the reader, lookups, stream tasks, and the queue.
pub(super) struct Executor {
    pub(super) commands: ReaderCommands,
    pub(super) lookups: Lookups,
    pub(super) streams: Streams,
    queue: Arc<Queue>,
}

impl Executor {
    pub(super) fn new(commands: ReaderCommands, lookups: Lookups, streams: Streams, queue: Arc<Queue>) -> Self {
        Executor { commands, lookups, streams, queue }
    }

    pub(super) fn perform(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Command(command) => self.commands.send(command),
                Effect::Spawn(plan) => self.streams.spawn(*plan),
                Effect::Signal(key, signal) => {
                    if let Some(Signal::Finish(items)) = self.streams.signal(key, signal) {
                        self.queue.push(items);
                    }
                }
                Effect::Pause(key, is_paused) => {
                    if let Some(channels) = self.streams.channels.get(&key) {
                        channels.is_paused.send_replace(is_paused);
                    }
                }
                Effect::Close(key) => drop(self.streams.channels.remove(&key)),
                Effect::ShortenRetries(is_shortened) => drop(self.streams.shorten_retries.send_replace(is_shortened)),
                Effect::Push(items) => self.queue.push(items),
                Effect::LookUp(lookup) => self.lookups.start(lookup),
            }
        }
    }

    /// Ends the reader and all tasks. What they have read is on the queue.
    pub(super) async fn stop(self) {
        let ReaderCommands { sender, wake } = self.commands;
        drop(sender);
        wake.wake();
        let mut tasks = self.streams.tasks;
        tasks.shutdown().await;
    }
}

/// The log files on this machine.
pub(super) struct LocalFiles(pub(super) Arc<Routes>);

impl LogFiles for LocalFiles {
    fn choose(&self, container: &Container) -> Choice {
        self.0.choose(container)
    }

    fn is_gone(&self, id: &str) -> bool {
        self.0.container_folder(id).is_none_or(|folder| !folder.exists())
    }
}

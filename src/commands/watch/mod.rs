//! `watch`: follows containers from the first listing to the last line.
//!
//! [`start`] prepares everything, then one loop waits for whatever happens next: news of containers from the [`feed`],
//! reports of those that read logs, answers to lookups, the end of the output, the time of `--until`, or a request to
//! stop. Each becomes an [`Input`] of the [`supervisor`], whose effects the loop carries out. The loop decides
//! nothing, and no step of it waits for the daemon.

mod discovery;
mod dry_run;
mod effects;
pub(crate) mod feed;
mod lookups;
mod metadata;
mod options;
pub(crate) mod resume;
mod start;
mod status;
mod supervisor;

pub(crate) use options::WatchOptions;

use super::inventory::Inventory;
use super::{Error, readiness};
use crate::docker::{Docker, Endpoint};
use crate::metrics::Metrics;
use crate::model::queue::Queue;
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output;
use crate::tail::{Command, Measure, Report};
use effects::Executor;
use feed::{Feed, News};
use status::StatusReporter;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use supervisor::{Input, Now, Supervisor};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Follows containers until `stop` is requested, or until everything that the options ask for is read. With
/// `dry_run`, prints the plan.
pub(crate) fn watch(endpoint: Endpoint, options: WatchOptions, stop: &Stop) -> Result<(), Error> {
    start::raise_descriptor_limit();
    super::runtime()?.block_on(async {
        if options.dry_run {
            return dry_run::run(endpoint, options, stop).await;
        }
        let running = tokio::select! {
            running = start::start(endpoint, options) => running?,
            () = stop.cancelled() => return Ok(()),
        };
        let Running { watch, feed, listing } = running;
        watch.follow(*feed, listing, stop).await
    })
}

/// A watch that is ready to process its first listing.
struct Running {
    watch: Box<Watch>,
    feed: Box<Feed>,
    listing: News,
}

struct Watch {
    follow: bool,
    until: Option<Timestamp>,
    docker: Docker,
    queue: Arc<Queue>,
    supervisor: Supervisor,
    executor: Executor,
    /// Reports of the thread that reads files.
    reports: UnboundedReceiver<Report>,
    /// The result of the deliver thread: `Ok` once the queue is closed, or why nothing can be written or stored.
    delivered: oneshot::Receiver<Result<(), Error>>,
    inventory: Option<Inventory>,
    metrics: Metrics,
    status: StatusReporter,
}

impl Watch {
    async fn follow(mut self, feed: Feed, listing: News, stop: &Stop) -> Result<(), Error> {
        self.note(&listing);
        self.step(Input::News(listing));
        readiness::report_ready();
        let mut upkeep = JoinSet::new();
        upkeep.spawn(self.docker.upkeep());
        let mut news = self.follow.then(|| feed.run());
        let until = reached(self.until);
        tokio::pin!(until);
        while news.is_some() || !self.supervisor.is_done() {
            let input = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = &mut self.delivered => return ended(done),
                () = &mut until, if news.is_some() => {
                    news = None;
                    Input::Finish
                }
                Some(news) = next(&mut news) => {
                    self.note(&news);
                    Input::News(news)
                }
                Some(report) = self.reports.recv() => Input::Report(report),
                Some(report) = self.executor.streams.next() => Input::Stream(report),
                Some(answer) = self.executor.lookups.answer() => Input::Lookup(answer),
                Some(reply) = self.status.update_requested() => {
                    self.update_metrics(reply);
                    continue;
                }
            };
            self.step(input);
        }
        self.stop(stop).await
    }

    fn step(&mut self, input: Input) {
        let effects = self.supervisor.step(input, Now::read());
        self.executor.perform(effects);
    }

    /// Passes news to the health report and to the inventory.
    fn note(&self, news: &News) {
        self.status.note(news);
        if let Some(inventory) = &self.inventory {
            inventory.handle(news);
        }
    }

    /// Updates the metrics that are computed only on request. The reader computes the last of them and then replies.
    fn update_metrics(&self, reply: oneshot::Sender<()>) {
        self.status.update(&self.metrics);
        self.metrics.logs.monitor(self.supervisor.by_route());
        let logs = self.metrics.logs.clone();
        let measure = Measure(Box::new(move |bytes| {
            logs.lag(bytes);
            // Fails if the requester has given up waiting.
            let _ = reply.send(());
        }));
        self.executor.commands.send(Command::Measure(measure));
    }

    /// Ends all parts in the direction in which lines flow. What was read is still written, as long as
    /// the output takes it.
    async fn stop(self, stop: &Stop) -> Result<(), Error> {
        readiness::report_stopping();
        let Watch { queue, supervisor, executor, inventory, delivered, .. } = self;
        executor.stop().await;
        queue.close();
        let done = tokio::select! {
            done = delivered => ended(done),
            // Nobody has read the output for all this time. What is not written is still in the logs.
            () = super::drained(stop) => Ok(()),
        };
        if let Some(inventory) = inventory {
            inventory.stop().await;
        }
        done?;
        let (names, source) = supervisor.into_unread();
        if stop.is_cancelled() || names.is_empty() { Ok(()) } else { Err(Error::Unread { names, source }) }
    }
}

async fn next(news: &mut Option<Receiver<News>>) -> Option<News> {
    news.as_mut()?.recv().await
}

/// Returns shortly after `until`: a line with a time before it may be written a little later.
async fn reached(until: Option<Timestamp>) {
    const LATE: Duration = Duration::from_millis(500);
    let Some(until) = until else { return std::future::pending().await };
    let left = until.0.saturating_sub(Timestamp::now().0);
    tokio::time::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)) + LATE).await;
}

/// Converts the result of the deliver thread. A closed stdout is no error: its reader had all it wanted.
fn ended(done: Result<Result<(), Error>, oneshot::error::RecvError>) -> Result<(), Error> {
    match done {
        Ok(Err(Error::Output(output::Error::Closed))) => Ok(()),
        Ok(Err(Error::Output(error))) => Err(Error::Lines(error)),
        Ok(result) => result,
        Err(_) => Err(Error::Start(io::Error::other("the output thread is gone"))),
    }
}

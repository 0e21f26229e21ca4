//! The `events` command: prints the engine's events as `docker events` does, without gaps.
//!
//! The stream is read without delay, and each event waits in a [`Backlog`] for the thread that writes. When the backlog
//! is full because nobody reads the output, the stream is closed until the backlog is written, and then reopened from
//! there. The engine then repeats what it still remembers, and a warning reports what it does not.

pub(crate) mod backlog;
pub(crate) mod subscription;
mod suspend;

use super::{Error, or_never, readiness, show_while_waiting};
use crate::config;
use crate::docker::{self, Docker, Endpoint, Event};
use crate::metrics;
use crate::model::report_once::Once;
use crate::model::selector::Filters;
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output::{self, ActivityLine, EventPrinter, EventRecord, LogFormat, OutputFormat};
use backlog::Backlog;
use std::io;
use std::thread;
use std::time::Duration;
use subscription::{Continuity, Subscription, SubscriptionEvent, Wanted};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// Capacity of the channel to the thread that writes. Its events no longer count in the backlog and may have megabytes
/// each, so it is small.
const WRITER_QUEUE: usize = 4;

/// Options of the command.
#[derive(Clone, Debug)]
pub(crate) struct EventsOptions {
    /// Filters that the engine evaluates.
    pub filters: Filters,
    /// Start time, as far as the engine remembers; `None` for now.
    pub since: Option<Timestamp>,
    /// Time to end at; `None` for never.
    pub until: Option<Timestamp>,
    /// Number of events to end after.
    pub count: Option<u64>,
    /// Time limit for the whole command.
    pub timeout: Option<Duration>,
    /// Reconnect when the stream is lost, instead of failing.
    pub reconnect: bool,
    pub format: OutputFormat,
    /// Print no notices; warnings about missing events remain.
    pub quiet: bool,
    pub log_format: LogFormat,
    pub docker: config::DockerConfig,
    /// Backlog and backoff of the event stream.
    pub config: config::EventsConfig,
    pub metrics: metrics::EventMetrics,
}

/// Prints events until `stop` is cancelled, or until the end that the options ask for.
pub(crate) fn events(endpoint: Endpoint, options: EventsOptions, stop: &Stop) -> Result<(), Error> {
    super::runtime()?.block_on(async {
        let (wanted, span, address) = (options.count, options.timeout, endpoint.to_string());
        let timeout = or_never(span.map(tokio::time::sleep));
        tokio::pin!(timeout);
        let mut pump = tokio::select! {
            begun = EventPump::begin(endpoint, options) => begun?,
            () = stop.cancelled() => return Ok(()),
            () = &mut timeout => {
                let after = span.unwrap_or_default();
                return Err(docker::Error::Timeout { endpoint: address, after }.into());
            }
        };
        readiness::report_ready();
        let end = tokio::select! {
            end = pump.run() => end,
            () = stop.cancelled() => Ok(EndReason::Stopped),
            () = &mut timeout => pump.timed_out(),
        };
        readiness::report_stopping();
        // Received events are still written, whatever ended the stream, ...
        let give_up = async {
            match end {
                // ... but after `--timeout` no longer than this, even if nobody reads the output.
                Ok(EndReason::Timeout) => tokio::select! {
                    () = tokio::time::sleep(super::DRAIN) => {}
                    () = super::drained(stop) => {}
                },
                _ => super::drained(stop).await,
            }
        };
        let received = tokio::select! {
            received = pump.finish() => received?,
            () = give_up => Some(0),
        };
        if wanted.is_some() && check_count(received, wanted, None).is_ok() {
            return Ok(());
        }
        match end? {
            EndReason::Timeout => check_count(received, wanted, span),
            EndReason::Until => check_count(received, wanted, None),
            EndReason::Output | EndReason::Stopped => Ok(()),
        }
    })
}

/// Why the command ends.
enum EndReason {
    /// The user or docker requested the stop.
    Stopped,
    /// The time limit of `--timeout` is over.
    Timeout,
    /// The stream has reached the time of `--until`.
    Until,
    /// `--count` events are written, or the output failed.
    Output,
}

/// Fails if fewer events than `wanted` were written. `received` is `None` if the reader of the output has gone: then it
/// had all it wanted.
fn check_count(received: Option<u64>, wanted: Option<u64>, span: Option<Duration>) -> Result<(), Error> {
    match (received, wanted) {
        (Some(received), Some(wanted)) if received < wanted => Err(Error::TooFew { received, wanted, span }),
        _ => Ok(()),
    }
}

/// What the output thread prints: events, and notices about the stream.
enum EventOutput {
    Event(Box<Event>),
    /// The stream broke; the subscription reconnects.
    Lost(docker::Error),
    /// The stream is open again.
    Back(Continuity),
    /// One event could not be parsed.
    Malformed(docker::Error),
    /// The engine's history begins at this time, after `--since`.
    HistoryStartsAt(Timestamp),
}

impl From<Box<Event>> for EventOutput {
    fn from(event: Box<Event>) -> Self {
        EventOutput::Event(event)
    }
}

/// Moves events from the subscription through the backlog to the output thread.
struct EventPump {
    subscription: Subscription,
    backlog: Backlog<EventOutput>,
    options: EventsOptions,
    /// The stream has reached `--until`.
    has_ended: bool,
    /// The stream is closed because the backlog is full.
    is_paused: bool,
    writer: Sender<EventOutput>,
    writer_result: oneshot::Receiver<Result<u64, Error>>,
    /// Result of [`EventPump::finish`], if the output thread ended before it was called.
    outcome: Option<Result<Option<u64>, Error>>,
}

impl EventPump {
    async fn begin(endpoint: Endpoint, options: EventsOptions) -> Result<EventPump, Error> {
        let address = endpoint.to_string();
        let connecting = async {
            let docker = Docker::connect_with(endpoint, &options.docker, metrics::PoolMetrics::default()).await?;
            // Some proxies refuse this request; then our own clock has to do.
            let engine = docker.info().await.inspect_err(|error| tracing::debug!(%error, "engine time unknown"));
            Ok::<_, Error>((docker, engine.unwrap_or_default()))
        };
        let is_shown = !options.quiet && options.log_format == LogFormat::Text;
        let (docker, engine) = show_while_waiting(connecting, &address, &ActivityLine::new(is_shown)).await?;
        let EventsOptions { filters, since, until, config, metrics, .. } = options.clone();
        let mut backlog = Backlog::new(config.queue_size);
        if let (Some(since), Some(now), false) = (since, engine.time, engine.is_podman)
            && let Some(oldest) = subscription::history_starts_after(&docker, since, now).await?
        {
            backlog.push(EventOutput::HistoryStartsAt(oldest));
        }
        let wanted = Wanted { filters, since, until };
        let subscription = Subscription::open(docker, wanted, engine.time, &config, metrics).await?;
        let (writer, queue) = channel(WRITER_QUEUE);
        let printer = EventPrinter::open(options.format, options.quiet, options.log_format)?;
        let writer_result =
            EventWriter { printer, queue, wanted: options.count, written: 0, reported_loss: Once::default() }
                .start()?;
        let (has_ended, is_paused, outcome) = (false, false, None);
        Ok(EventPump { subscription, backlog, options, has_ended, is_paused, writer, writer_result, outcome })
    }

    async fn run(&mut self) -> Result<EndReason, Error> {
        let writer = self.writer.clone();
        loop {
            self.options.metrics.queued(self.backlog.len());
            if self.has_ended && self.backlog.len() == 0 {
                return Ok(EndReason::Until);
            }
            self.pause_or_reopen();
            let overdue = self.overdue();
            tokio::select! {
                result = &mut self.writer_result => {
                    self.outcome = Some(outcome(result));
                    return Ok(EndReason::Output);
                }
                event = self.subscription.next() => self.receive(event)?,
                Ok(permit) = writer.reserve(), if self.backlog.is_ready() => {
                    if let Some(first) = self.backlog.pop() {
                        permit.send(first);
                    }
                }
                until = or_never(overdue.map(until_passed)) => return Err(Error::StreamStillDown { until }),
            }
        }
    }

    /// Ends after `--timeout`, which is a failure while the stream is lost.
    fn timed_out(&self) -> Result<EndReason, Error> {
        match self.subscription.is_lost() {
            true => Err(Error::StreamStillDown { until: self.subscription.engine_time() }),
            false => Ok(EndReason::Timeout),
        }
    }

    /// Closes the stream while the backlog is full, and reopens it once the backlog is empty.
    fn pause_or_reopen(&mut self) {
        if self.is_paused && self.backlog.len() == 0 {
            tracing::info!("backlog written; reopening the event stream after the last event");
            self.is_paused = false;
            self.subscription.reopen();
        } else if !self.is_paused && !self.has_ended && self.backlog.is_full() {
            tracing::info!("backlog is full; closing the event stream until it is written");
            self.is_paused = true;
            self.subscription.pause();
        }
    }

    fn receive(&mut self, event: SubscriptionEvent) -> Result<(), Error> {
        match event {
            SubscriptionEvent::Event(event) => {
                let pushed = self.backlog.push_event(event);
                debug_assert!(pushed.is_ok(), "the stream is closed while the backlog is full");
                if self.subscription.is_late() {
                    // This process did not run for a while, and the engine may have skipped it.
                    self.subscription.reopen();
                }
            }
            SubscriptionEvent::Malformed(error) => self.backlog.push(EventOutput::Malformed(error)),
            SubscriptionEvent::Lost(error) if !self.options.reconnect => return Err(error.into()),
            SubscriptionEvent::Lost(error) => self.backlog.push(EventOutput::Lost(error)),
            SubscriptionEvent::Back(continuity) => self.backlog.push(EventOutput::Back(continuity)),
            SubscriptionEvent::Begun => {}
            SubscriptionEvent::Ended => self.has_ended = true,
        }
        Ok(())
    }

    /// While the stream is lost, nobody ends it at `--until`. Returns that time and how long it is until it has passed
    /// for certain.
    fn overdue(&self) -> Option<(Timestamp, Duration)> {
        const GRACE: Duration = Duration::from_secs(2);
        let until =
            self.options.until.filter(|_| !self.has_ended && !self.is_paused && !self.subscription.is_open())?;
        let left = until.0.saturating_sub(self.subscription.engine_time().0);
        Some((until, Duration::from_nanos(u64::try_from(left).unwrap_or(0)) + GRACE))
    }

    /// Writes the backlog and waits for the output thread. Returns the number of events written; `None` if the reader
    /// of the output has gone.
    async fn finish(self) -> Result<Option<u64>, Error> {
        // Closes in the direction of flow: the backlog, the channel, the output thread.
        let EventPump { mut backlog, writer, writer_result, outcome: known, .. } = self;
        if let Some(outcome) = known {
            return outcome;
        }
        while let Some(first) = backlog.pop() {
            if writer.send(first).await.is_err() {
                break;
            }
        }
        drop(writer);
        outcome(writer_result.await)
    }
}

/// Waits until `until` has passed, which takes as long as `left`.
async fn until_passed((until, left): (Timestamp, Duration)) -> Timestamp {
    tokio::time::sleep(left).await;
    until
}

fn outcome(result: Result<Result<u64, Error>, oneshot::error::RecvError>) -> Result<Option<u64>, Error> {
    match result {
        Ok(Err(Error::Output(output::Error::Closed))) => Ok(None),
        Ok(result) => result.map(Some),
        Err(_) => Err(Error::Start(io::Error::other("the output thread is gone"))),
    }
}

/// The output thread: a reader of the output may be slow, and the event stream must not wait for it.
struct EventWriter {
    printer: EventPrinter,
    queue: Receiver<EventOutput>,
    /// Number of events to end after.
    wanted: Option<u64>,
    /// Number of events written.
    written: u64,
    /// The loss of the stream was reported, and its return was not.
    reported_loss: Once,
}

impl EventWriter {
    fn start(self) -> io::Result<oneshot::Receiver<Result<u64, Error>>> {
        let (sender, result) = oneshot::channel();
        thread::Builder::new().name("output".into()).spawn(move || {
            // Fails if the command has ended without waiting for us.
            let _ = sender.send(self.run());
        })?;
        Ok(result)
    }

    /// Returns the number of events written.
    fn run(mut self) -> Result<u64, Error> {
        while self.wanted.is_none_or(|wanted| self.written < wanted) {
            let Some(output) = self.next()? else { break };
            self.write(output)?;
        }
        self.printer.flush()?;
        Ok(self.written)
    }

    fn next(&mut self) -> Result<Option<EventOutput>, Error> {
        match self.queue.try_recv() {
            Ok(output) => Ok(Some(output)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => {
                self.printer.flush()?;
                Ok(self.queue.blocking_recv())
            }
        }
    }

    fn write(&mut self, output: EventOutput) -> Result<(), Error> {
        match output {
            EventOutput::Event(event) => {
                self.written += 1;
                self.printer.take(&record(&event))?;
            }
            EventOutput::Lost(error) => {
                if self.reported_loss.is_first() {
                    self.printer.notice(&format!("{error}: trying again"))?;
                }
            }
            EventOutput::Back(continuity) => {
                let was_lost = self.reported_loss.reset();
                match continuity {
                    Continuity::Whole if was_lost => {
                        self.printer.notice("the event stream is back: no event is missing")?
                    }
                    Continuity::Whole => {}
                    missing => self.printer.warn(&missing.to_string())?,
                }
            }
            EventOutput::Malformed(error) => self.printer.warn(&format!("an event is missing: {}", error.in_full()))?,
            EventOutput::HistoryStartsAt(oldest) => {
                let text = format!("the engine remembers no event before {oldest}: earlier ones are missing");
                self.printer.warn(&text)?;
            }
        }
        Ok(())
    }
}

fn record(event: &Event) -> EventRecord<'_> {
    EventRecord {
        kind: &event.kind,
        action: &event.action,
        id: &event.id,
        attributes: &event.attributes,
        scope: &event.scope,
        time: event.time,
        status: &event.status,
        from: &event.from,
    }
}

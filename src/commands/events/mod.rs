//! `events`: the engine's events as `docker events` prints them, without gaps.
//!
//! The stream is read at once and each event waits in an `Inbox` for the thread that writes. When too many wait because
//! nobody reads our output, the stream is closed until they are written, and then asked for again from there: what the
//! engine still remembers comes then, and where that is not all it is said.

pub(crate) mod backlog;
pub(crate) mod subscription;
mod suspend;

use super::watch::feed::News;
use super::{Error, awaited};
use crate::config;
use crate::docker::{self, Docker, Endpoint, Event};
use crate::metrics;
use crate::model::selector::Filters;
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output::{self, ActivityLine, EventPrinter, EventRecord, Format, LogFormat};
use backlog::Backlog;
use std::io;
use std::thread;
use std::time::Duration;
use subscription::{Continuity, Happening, Subscription, Wanted};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// Events on their way to the thread that writes. They no longer count in the inbox, and each may have megabytes.
const HANDED_ON: usize = 4;

/// Everything `events` can be told.
#[derive(Clone, Debug)]
pub struct EventsOptions {
    /// As the engine evaluates them.
    pub filters: Filters,
    /// From then on, as far as the engine remembers; else from now on.
    pub since: Option<Timestamp>,
    /// Up to then.
    pub until: Option<Timestamp>,
    /// So many.
    pub count: Option<u64>,
    /// For so long.
    pub timeout: Option<Duration>,
    /// Try again when the stream is lost.
    pub reconnect: bool,
    /// Text or JSON.
    pub format: Format,
    /// No notices.
    pub quiet: bool,
    /// The form of notices.
    pub log_format: LogFormat,
    /// How the engine is spoken to.
    pub docker: config::DockerConfig,
    /// How the stream is kept.
    pub config: config::EventsConfig,
    /// What is counted of it.
    pub metrics: metrics::EventMetrics,
}

/// Prints events until told to stop, or to the end of what was asked for.
pub fn events(endpoint: Endpoint, options: EventsOptions, stop: &Stop) -> Result<(), Error> {
    super::runtime()?.block_on(async {
        let (wanted, span, place) = (options.count, options.timeout, endpoint.to_string());
        let timeout = passed(span);
        tokio::pin!(timeout);
        let mut watcher = tokio::select! {
            begun = Watcher::begin(endpoint, options) => begun?,
            () = stop.cancelled() => return Ok(()),
            () = &mut timeout => {
                let after = span.unwrap_or_default();
                return Err(docker::Error::Timeout { endpoint: place, after }.into());
            }
        };
        let end = tokio::select! {
            end = watcher.run() => end,
            () = stop.cancelled() => Ok(End::Order),
            () = &mut timeout => watcher.timed_out(),
        };
        // What came is still written, whatever ended it.
        let late = async {
            match end {
                // Then it ends, whoever reads our output.
                Ok(End::Time) => tokio::select! {
                    () = tokio::time::sleep(super::DRAIN) => {}
                    () = super::drained(stop) => {}
                },
                _ => super::drained(stop).await,
            }
        };
        let came = tokio::select! {
            came = watcher.finish() => came?,
            // Whoever reads our output has not for all this time.
            () = late => Some(0),
        };
        if wanted.is_some() && enough(came, wanted, None).is_ok() {
            return Ok(());
        }
        match end? {
            End::Time => enough(came, wanted, span),
            End::Until => enough(came, wanted, None),
            End::Output | End::Order => Ok(()),
        }
    })
}

/// Why it ends.
enum End {
    /// We were told to stop.
    Order,
    /// `--timeout` has passed.
    Time,
    /// `--until` has come.
    Until,
    /// All that was counted is written, or nothing more can be.
    Output,
}

/// `came` is `None` where the reader of our output has gone: it had all it wanted.
fn enough(came: Option<u64>, wanted: Option<u64>, span: Option<Duration>) -> Result<(), Error> {
    match (came, wanted) {
        (Some(came), Some(wanted)) if came < wanted => Err(Error::TooFew { came, wanted, span }),
        _ => Ok(()),
    }
}

async fn passed(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

/// The stream, what waits, and the thread that writes.
struct Watcher {
    subscription: Subscription,
    inbox: Backlog,
    options: EventsOptions,
    /// The end of the stream has come.
    is_over: bool,
    /// It is closed because too many wait.
    is_paused: bool,
    written: Sender<News>,
    done: oneshot::Receiver<Result<u64, Error>>,
    /// What the thread that writes ended with, once that is known.
    outcome: Option<Result<Option<u64>, Error>>,
}

impl Watcher {
    async fn begin(endpoint: Endpoint, options: EventsOptions) -> Result<Watcher, Error> {
        let address = endpoint.to_string();
        let greeting = async {
            let docker = Docker::connect_with(endpoint, &options.docker, metrics::PoolMetrics::default()).await?;
            // There are proxies that let nobody ask this; then our own clock has to do.
            let engine = docker.info().await.inspect_err(|error| tracing::debug!(%error, "no clock"));
            Ok::<_, Error>((docker, engine.unwrap_or_default()))
        };
        let is_shown = !options.quiet && options.log_format == LogFormat::Text;
        let (docker, engine) = awaited(greeting, &address, &ActivityLine::new(is_shown)).await?;
        let EventsOptions { filters, since, until, config, metrics, .. } = options.clone();
        let mut inbox = Backlog::new(config.queue_size, false);
        if let (Some(since), Some(now), false) = (since, engine.time, engine.is_podman)
            && let Some(oldest) = subscription::forgotten(&docker, since, now).await?
        {
            inbox.push(News::Forgotten(oldest));
        }
        let wanted = Wanted { filters, since, until };
        let subscription = Subscription::open(docker, wanted, engine.time, &config, metrics).await?;
        let (written, news) = channel(HANDED_ON);
        let printer = EventPrinter::open(options.format, options.quiet, options.log_format)?;
        let done = Writer { printer, news, wanted: options.count, came: 0, is_away: false }.start()?;
        Ok(Watcher { subscription, inbox, options, is_over: false, is_paused: false, written, done, outcome: None })
    }

    async fn run(&mut self) -> Result<End, Error> {
        let written = self.written.clone();
        loop {
            self.options.metrics.queued(self.inbox.len());
            if self.is_over && self.inbox.len() == 0 {
                return Ok(End::Until);
            }
            self.pause_or_go_on();
            let overdue = self.overdue();
            tokio::select! {
                done = &mut self.done => {
                    self.outcome = Some(ended(done));
                    return Ok(End::Output);
                }
                happening = self.subscription.next() => self.take(happening)?,
                Ok(room) = written.reserve(), if self.inbox.is_ready() => {
                    if let Some(first) = self.inbox.pop() {
                        room.send(first);
                    }
                }
                until = come(overdue) => return Err(Error::Away { until }),
            }
        }
    }

    /// The time that was given is over, which is no good end where the stream is not there.
    fn timed_out(&self) -> Result<End, Error> {
        match self.subscription.is_lost() {
            true => Err(Error::Away { until: self.subscription.engine_time() }),
            false => Ok(End::Time),
        }
    }

    /// Closes the stream while too many wait, and opens it again when all of them are on their way out.
    fn pause_or_go_on(&mut self) {
        if self.is_paused && self.inbox.len() == 0 {
            tracing::info!("going on behind the last event");
            self.is_paused = false;
            self.subscription.renew();
        } else if !self.is_paused && !self.is_over && self.inbox.is_full() {
            tracing::info!("too many events wait to be written; the stream is closed meanwhile");
            self.is_paused = true;
            self.subscription.pause();
        }
    }

    fn take(&mut self, happening: Happening) -> Result<(), Error> {
        match happening {
            Happening::Event(event) => {
                let taken = self.inbox.push_event(event);
                debug_assert!(taken.is_ok(), "the stream is closed while there is no room");
                if self.subscription.is_late() {
                    // We stood still, and the engine may have gone on without us.
                    self.subscription.renew();
                }
            }
            Happening::Nonsense(error) => self.inbox.push(News::Nonsense(error)),
            Happening::Lost(error) if !self.options.reconnect => return Err(error.into()),
            Happening::Lost(error) => self.inbox.push(News::Lost(error)),
            Happening::Back(continuity) => self.inbox.push(News::Back(continuity)),
            Happening::Begun => {}
            Happening::Ended => self.is_over = true,
        }
        Ok(())
    }

    /// How long it is to the end that was asked for, where the stream, which the engine would end then, is not there.
    fn overdue(&self) -> Option<(Timestamp, Duration)> {
        const GRACE: Duration = Duration::from_secs(2);
        let until = self.options.until.filter(|_| !self.is_over && !self.is_paused && !self.subscription.is_open())?;
        let left = until.0.saturating_sub(self.subscription.engine_time().0);
        Some((until, Duration::from_nanos(u64::try_from(left).unwrap_or(0)) + GRACE))
    }

    /// Closes in the order of the flow. How many events were written; `None` where the reader of our output has gone.
    async fn finish(self) -> Result<Option<u64>, Error> {
        let Watcher { mut inbox, written, done, outcome, .. } = self;
        if let Some(outcome) = outcome {
            return outcome;
        }
        while let Some(first) = inbox.pop() {
            if written.send(first).await.is_err() {
                break;
            }
        }
        drop(written);
        ended(done.await)
    }
}

/// Returns that time so long from now.
async fn come(overdue: Option<(Timestamp, Duration)>) -> Timestamp {
    let Some((until, left)) = overdue else { return std::future::pending().await };
    tokio::time::sleep(left).await;
    until
}

fn ended(done: Result<Result<u64, Error>, oneshot::error::RecvError>) -> Result<Option<u64>, Error> {
    match done {
        Ok(Err(Error::Output(output::Error::Closed))) => Ok(None),
        Ok(result) => result.map(Some),
        Err(_) => Err(Error::Start(io::Error::other("the output thread is gone"))),
    }
}

/// The thread that writes: a reader of our output may be slow, and the stream must not wait.
struct Writer {
    printer: EventPrinter,
    news: Receiver<News>,
    wanted: Option<u64>,
    came: u64,
    /// The stream was told to be lost, and not to be back.
    is_away: bool,
}

impl Writer {
    fn start(self) -> io::Result<oneshot::Receiver<Result<u64, Error>>> {
        let (done, ended) = oneshot::channel();
        thread::Builder::new().name("output".into()).spawn(move || {
            // Whoever stopped waiting has left already.
            let _ = done.send(self.run());
        })?;
        Ok(ended)
    }

    /// How many events were written.
    fn run(mut self) -> Result<u64, Error> {
        while self.wanted.is_none_or(|wanted| self.came < wanted) {
            let Some(news) = self.next()? else { break };
            self.take(news)?;
        }
        self.printer.flush()?;
        Ok(self.came)
    }

    fn next(&mut self) -> Result<Option<News>, Error> {
        match self.news.try_recv() {
            Ok(news) => Ok(Some(news)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => {
                self.printer.flush()?;
                Ok(self.news.blocking_recv())
            }
        }
    }

    fn take(&mut self, news: News) -> Result<(), Error> {
        match news {
            News::Event(event) => {
                self.came += 1;
                self.printer.take(&happened(&event))?;
            }
            News::Lost(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    self.printer.notice(&format!("{error}: trying again"))?;
                }
            }
            News::Back(continuity) => {
                let was_away = std::mem::take(&mut self.is_away);
                match continuity {
                    Continuity::Whole if was_away => {
                        self.printer.notice("the event stream is back: no event is missing")?
                    }
                    Continuity::Whole => {}
                    missing => self.printer.warn(&missing.to_string())?,
                }
            }
            News::Nonsense(error) => self.printer.warn(&format!("an event is missing: {}", reason(&error)))?,
            News::Forgotten(oldest) => {
                let text = format!("the engine remembers no event before {oldest}: earlier ones are missing");
                self.printer.warn(&text)?;
            }
            News::Listing(..) => {}
        }
        Ok(())
    }
}

/// The error and its cause on one line.
fn reason(error: &crate::docker::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

fn happened(event: &Event) -> EventRecord<'_> {
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

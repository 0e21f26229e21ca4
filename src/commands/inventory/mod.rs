//! Keeps the inventory up to date while `watch` runs.
//!
//! In: the [`News`] of [`super::watch`]. Out: rows in the state. One task does the work, fed by a bounded channel, so
//! `watch` never waits for it. If the channel is full or the state cannot be written, the next full comparison corrects
//! the inventory.
//!
//! An event carries ID, name and state, at once and even for a container that lives only milliseconds. The rest
//! (mounts, labels and mountpoints of volumes, the log driver) is queried a moment later, for all events of that moment
//! together: no request without events, and at most two a second. After the first listing, after each reconnect and at
//! intervals, everything is compared.

pub(crate) mod observe;
pub(crate) mod schedule;

use super::route::Routes;
use super::watch::feed::News;
use super::{Error, sleep_until};
use crate::docker::{Docker, Event};
use crate::metrics::{ChangeSource, Extent, FailureCause, ReconciliationMetrics};
use crate::model::health::{SharedHealth, Status};
use crate::model::inventory::{ContainerRow, MountRow, SeenRange, UnlistedFields, Update, VolumeRow};
use crate::model::plan::{Observed, Plan};
use crate::model::report_once::Once;
use crate::model::time::Timestamp;
use crate::state::{self, Store, Trigger};
use observe::Observer;
use schedule::{REFRESH_DELAY, Refresh, Schedule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Capacity of the channel to the task, in messages.
const QUEUE: usize = 1000;
/// Updates from events are collected for this long and written in one transaction.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Maximum number of updates that wait to be written, while it is unknown which engine they are from. With more, they
/// are dropped and everything is compared.
const MAX_UPDATES: usize = 10_000;
/// Limit in bytes of the updates in the channel, and of those in the task. Docker does not limit the length of a label.
const MAX_BYTES: usize = 8 << 20;
/// Time from a failure to the next full comparison; doubled with each failure.
const MIN_RETRY: Duration = Duration::from_secs(2);
/// Upper limit of that time.
const MAX_RETRY: Duration = Duration::from_secs(300);
/// Time limit for the last write when `watch` stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Handle of the task that keeps the inventory.
pub(super) struct Inventory {
    messages: Sender<InventoryMessage>,
    /// Bytes of the updates in the channel.
    queued_bytes: Arc<AtomicUsize>,
    /// A message did not fit the channel, so everything has to be compared. Set here, cleared by the task.
    has_dropped: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// A message to the task.
enum InventoryMessage {
    /// Updates from one event.
    Updates(Vec<Update>),
    /// Some volumes were removed at this time; the event does not name them.
    Pruned(Timestamp),
    /// The connection to the engine was lost. Another engine may answer at the same address afterwards.
    Lost,
    /// Everything has to be compared.
    CompareAll,
}

impl InventoryMessage {
    /// Approximate size in bytes.
    fn weight(&self) -> usize {
        match self {
            InventoryMessage::Updates(updates) => updates.iter().map(Update::weight).sum(),
            InventoryMessage::Pruned(_) | InventoryMessage::Lost | InventoryMessage::CompareAll => 0,
        }
    }
}

/// What the task works with.
pub(super) struct InventoryContext {
    pub(super) docker: Docker,
    pub(super) routes: Arc<Routes>,
    pub(super) store: Store,
    pub(super) engine_id: String,
    pub(super) metrics: ReconciliationMetrics,
}

impl Inventory {
    /// Starts the task. It reports its status to `health`.
    pub(super) fn start(context: InventoryContext, health: SharedHealth) -> Self {
        let (messages, received) = channel(QUEUE);
        let has_dropped = Arc::new(AtomicBool::new(false));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let InventoryContext { docker, routes, store, engine_id, metrics } = context;
        let observer = Observer { docker, routes };
        let task = Task {
            observer,
            store,
            engine_id,
            metrics,
            health,
            queued_bytes: Arc::clone(&queued_bytes),
            has_dropped: Arc::clone(&has_dropped),
            is_engine_uncertain: false,
            pending: Vec::new(),
            pending_bytes: 0,
            flush: None,
            schedule: Schedule::default(),
            retry: MIN_RETRY,
            warned: Once::default(),
        };
        task.report(Status::Healthy);
        Inventory { messages, queued_bytes, has_dropped, task: tokio::spawn(task.run(received)) }
    }

    /// Passes news to the task. Never waits.
    pub(super) fn handle(&self, news: &News) {
        let message = match news {
            News::Event(event) if event.kind == "volume" && event.base_action() == "prune" => {
                InventoryMessage::Pruned(event.time)
            }
            News::Event(event) => match updates(event) {
                updates if updates.is_empty() => return,
                updates => InventoryMessage::Updates(updates),
            },
            News::Listing(..) => InventoryMessage::CompareAll,
            News::Lost(_) | News::Back(_) => InventoryMessage::Lost,
        };
        let bytes = message.weight();
        let fits = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_BYTES;
        if !fits || self.messages.try_send(message).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.has_dropped.store(true, Ordering::Relaxed);
        }
    }

    /// Writes pending updates within [`DRAIN`] and ends the task.
    pub(super) async fn stop(self) {
        let Inventory { messages, mut task, .. } = self;
        drop(messages);
        if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Converts an event to updates of the inventory; empty if the event concerns no row.
pub(super) fn updates(event: &Event) -> Vec<Update> {
    let attribute = |name: &str| event.attributes.get(name).cloned().unwrap_or_default();
    let at = event.time;
    // A prune names no container or volume.
    if event.id.is_empty() {
        return Vec::new();
    }
    match (&*event.kind, event.base_action()) {
        ("container", "destroy") => vec![Update::ContainerGone(event.id.clone(), at)],
        // Every event carries at least the current name: the backlog may have dropped the rename itself.
        ("container", _) => {
            event.container().map(|container| Update::Container(Box::new(row(event, container)))).into_iter().collect()
        }
        ("volume", "create" | "unmount") => {
            vec![Update::Volume(VolumeRow {
                name: event.id.clone(),
                driver: attribute("driver"),
                seen: SeenRange::at(at),
                ..VolumeRow::default()
            })]
        }
        ("volume", "destroy") => vec![Update::VolumeGone(event.id.clone(), at)],
        ("volume", "mount") => {
            let mount = MountRow {
                container_id: attribute("container"),
                destination: attribute("destination"),
                kind: "volume".to_owned(),
                volume: Some(event.id.clone()),
                driver: Some(attribute("driver")).filter(|driver| !driver.is_empty()),
                is_writable: attribute("read/write") != "false",
                propagation: attribute("propagation"),
                ..MountRow::default()
            };
            vec![Update::Mount(mount, at)]
        }
        _ => Vec::new(),
    }
}

fn row(event: &Event, container: crate::model::container::Container) -> ContainerRow {
    let at = event.time;
    let crate::model::container::Container { id, name, image, labels, state, .. } = container;
    let unlisted = match event.base_action() {
        "start" => UnlistedFields { started: Some(at), ..UnlistedFields::default() },
        "die" => UnlistedFields { finished: Some(at), exit_code: event.exit_code(), ..UnlistedFields::default() },
        _ => UnlistedFields::default(),
    };
    let state_seen = Some(at).filter(|_| !state.is_empty());
    ContainerRow { id, name, image, labels, state, created: None, unlisted, seen: SeenRange::at(at), state_seen }
}

struct Task {
    observer: Observer,
    store: Store,
    engine_id: String,
    metrics: ReconciliationMetrics,
    health: SharedHealth,
    /// The counter that [`Inventory::queued_bytes`] increases. Decreased here for each received message.
    queued_bytes: Arc<AtomicUsize>,
    /// The flag that [`Inventory::has_dropped`] sets.
    has_dropped: Arc<AtomicBool>,
    /// Another engine than `engine_id` may answer now, so nothing is written until its ID is known.
    is_engine_uncertain: bool,
    /// Updates that are not written yet.
    pending: Vec<Update>,
    /// Approximate size of `pending`.
    pending_bytes: usize,
    /// When to write `pending`.
    flush: Option<Instant>,
    schedule: Schedule,
    /// Time from the next failure to the next full comparison.
    retry: Duration,
    /// A failure of the state was logged as a warning, and no comparison has succeeded since.
    warned: Once,
}

fn failure_cause(error: &Error) -> FailureCause {
    match error {
        Error::Docker(_) => FailureCause::Docker,
        Error::State(_) => FailureCause::State,
        _ => FailureCause::Other,
    }
}

impl Task {
    async fn run(mut self, mut messages: Receiver<InventoryMessage>) {
        loop {
            let due = self.due();
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.handle(message, Instant::now()).await,
                    None => break,
                },
                () = sleep_until(due) => self.work(Instant::now()).await,
            }
            if self.has_dropped.swap(false, Ordering::Relaxed) {
                self.schedule.plan_everything_by(Instant::now() + REFRESH_DELAY);
            }
        }
        self.write_pending().await;
    }

    fn due(&self) -> Option<Instant> {
        self.flush.into_iter().chain(self.schedule.due()).min()
    }

    async fn handle(&mut self, message: InventoryMessage, now: Instant) {
        self.queued_bytes.fetch_sub(message.weight(), Ordering::Relaxed);
        match message {
            InventoryMessage::CompareAll => self.schedule.plan_everything(Some(now)),
            InventoryMessage::Lost => {
                // Pending updates still belong to the previous engine.
                self.write_pending().await;
                self.is_engine_uncertain = true;
            }
            InventoryMessage::Pruned(at) => self.schedule.note_volume(at, now),
            InventoryMessage::Updates(updates) => {
                updates.iter().for_each(|update| self.schedule.note(update, now));
                self.pending_bytes += updates.iter().map(Update::weight).sum::<usize>();
                self.pending.extend(updates);
                if self.pending.len() > MAX_UPDATES || self.pending_bytes > MAX_BYTES {
                    self.pending.clear();
                    self.pending_bytes = 0;
                    self.schedule.plan_everything_by(now + REFRESH_DELAY);
                }
                self.flush.get_or_insert(now + BATCH_TIME);
            }
        }
    }

    /// Writes pending updates and runs the refresh that is due.
    async fn work(&mut self, now: Instant) {
        self.write_pending().await;
        let (extent, result) = match self.schedule.take(now) {
            None => return,
            Some(Refresh::Everything) => (Extent::Full, self.compare_everything().await),
            // A full comparison queries the engine's ID first.
            Some(Refresh::Some { .. }) if self.is_engine_uncertain => (Extent::Full, self.compare_everything().await),
            Some(Refresh::Some { ids, with_volumes, at }) => {
                let extent = if ids.is_empty() { Extent::Volumes } else { Extent::Containers };
                (extent, self.compare_some(ids, with_volumes, at, extent).await)
            }
        };
        self.complete(extent, result);
    }

    /// Writes pending updates to the state, unless it is uncertain which engine they are from.
    async fn write_pending(&mut self) {
        self.flush = None;
        if self.is_engine_uncertain {
            return;
        }
        let updates = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if updates.is_empty() {
            return;
        }
        let is_volume = |update: &Update| matches!(update, Update::Volume(_) | Update::VolumeGone(..));
        let extent = if updates.iter().all(is_volume) { Extent::Volumes } else { Extent::Containers };
        let (sender, summary) = oneshot::channel();
        self.store.apply_updates(&self.engine_id, updates, move |summary| drop(sender.send(summary)));
        match summary.await.unwrap_or(Err(state::Error::Closed)) {
            Ok(summary) => self.metrics.changed(&summary, ChangeSource::Event),
            Err(error) => self.failed(extent, &error.into()),
        }
    }

    async fn compare_everything(&mut self) -> Result<Plan, Error> {
        let (started, begun) = (Timestamp::now(), Instant::now());
        let engine = self.observer.docker.info().await?;
        let at = engine.time.unwrap_or(self.schedule.latest());
        self.engine_id = engine.id;
        if std::mem::take(&mut self.is_engine_uncertain) {
            self.write_pending().await;
        }
        let observed = self.observer.everything(at, |_| {}).await?;
        self.compare(observed, (started, begun), Extent::Full, ChangeSource::Reconcile).await
    }

    async fn compare_some(
        &mut self,
        ids: Vec<String>,
        with_volumes: bool,
        at: Timestamp,
        extent: Extent,
    ) -> Result<Plan, Error> {
        let since = (Timestamp::now(), Instant::now());
        let observed = self.observer.some(ids, with_volumes, at).await?;
        self.compare(observed, since, extent, ChangeSource::Event).await
    }

    async fn compare(
        &self,
        observed: Observed,
        (started, begun): (Timestamp, Instant),
        extent: Extent,
        origin: ChangeSource,
    ) -> Result<Plan, Error> {
        let trigger = Trigger { source: "watch", started, begun, must_write: true, must_be_certain: false };
        let (sender, plan) = oneshot::channel();
        self.store.reconcile(&self.engine_id, observed, trigger, move |plan| drop(sender.send(plan)));
        let plan = plan.await.unwrap_or(Err(state::Error::Closed))?;
        self.metrics.changed(&plan.summary(), origin);
        self.metrics.ran(extent, begun.elapsed());
        Ok(plan)
    }

    fn complete(&mut self, extent: Extent, result: Result<Plan, Error>) {
        let now = Instant::now();
        match result {
            Ok(plan) => {
                self.retry = MIN_RETRY;
                self.warned.reset();
                if extent == Extent::Full {
                    self.report(Status::Healthy);
                    // The next listing of the feed schedules the next one.
                    self.schedule.plan_everything(None);
                }
                let latest = self.schedule.latest();
                plan.uncertain.iter().for_each(|id| self.schedule.note_death(id, latest, now));
            }
            Err(error) => self.failed(extent, &error),
        }
    }

    fn report(&self, status: Status) {
        self.health.update(|health| health.state.inventory = status);
    }

    /// Schedules a full comparison after a failure. Failures of the state are logged as a warning
    /// once, until one succeeds.
    fn failed(&mut self, extent: Extent, error: &Error) {
        self.metrics.failed(extent, failure_cause(error));
        self.report(match error {
            Error::State(error) if !error.is_temporary() => Status::Unhealthy,
            _ => Status::Degraded,
        });
        if matches!(error, Error::State(_)) && self.warned.is_first() {
            tracing::warn!(%error, "cannot update the inventory; trying again later");
        } else {
            tracing::debug!(%error, "cannot update the inventory; trying again later");
        }
        let due = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(MAX_RETRY);
        self.schedule.plan_everything(Some(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, second: i64, attributes: &[(&str, &str)]) -> Event {
        Event {
            kind: kind.into(),
            action: action.into(),
            id: id.into(),
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            time: Timestamp(second * 1_000_000_000),
            ..Event::default()
        }
    }

    fn text(updates: &[Update]) -> String {
        let texts = updates.iter().map(|update| match update {
            Update::Container(row) => {
                let UnlistedFields { started, finished, exit_code, .. } = &row.unlisted;
                let times = [*started, *finished].map(|time| time.map_or(0, |time| time.0 / 1_000_000_000));
                format!("{} {:?} {:?} {times:?} {exit_code:?}", row.name, row.state, row.labels)
            }
            Update::ContainerGone(id, _) => format!("no container {id}"),
            Update::Volume(volume) => format!("volume {} {}", volume.name, volume.driver),
            Update::VolumeGone(name, _) => format!("no volume {name}"),
            Update::Mount(mount, _) => {
                let MountRow { container_id, destination, volume, is_writable, .. } = mount;
                format!("mount {container_id} {destination} {volume:?} {is_writable}")
            }
        });
        texts.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn converts_events_to_updates() {
        let of = [("name", "web"), ("image", "img"), ("a", "b")];
        let with = |more: &[(&'static str, &'static str)]| [&of[..], more].concat();
        let mounted = [("container", "c"), ("destination", "/d"), ("driver", "local"), ("read/write", "false")];
        for (kind, action, attributes, expected) in [
            ("container", "create", with(&[]), r#"web "created" {"a": "b"} [0, 0] None"#),
            ("container", "start", with(&[]), r#"web "running" {"a": "b"} [7, 0] None"#),
            ("container", "die", with(&[("exitCode", "3")]), r#"web "exited" {"a": "b"} [0, 7] Some(3)"#),
            ("container", "pause", with(&[]), r#"web "paused" {"a": "b"} [0, 0] None"#),
            ("container", "rename", with(&[("oldName", "/x")]), r#"web "" {"a": "b"} [0, 0] None"#),
            ("container", "destroy", with(&[]), "no container id"),
            ("container", "kill", with(&[("signal", "10")]), r#"web "" {"a": "b"} [0, 0] None"#),
            ("container", "health_status: healthy", with(&[]), r#"web "" {"a": "b"} [0, 0] None"#),
            ("volume", "create", vec![("driver", "local")], "volume id local"),
            ("volume", "mount", mounted.to_vec(), r#"mount c /d Some("id") false"#),
            ("volume", "unmount", vec![("container", "c"), ("driver", "local")], "volume id local"),
            ("volume", "destroy", vec![("driver", "local")], "no volume id"),
            ("network", "create", vec![], ""),
        ] {
            let updates = updates(&event(kind, action, "id", 7, &attributes));
            assert_eq!(text(&updates), expected, "{kind} {action}");
        }
        assert_eq!(updates(&event("volume", "prune", "", 7, &[("reclaimed", "0")])), []);
        assert_eq!(updates(&event("container", "destroy", "", 7, &[])), []);
    }
}

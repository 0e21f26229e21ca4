//! Keeps the inventory fresh while `watch` runs.
//!
//! In: the news that [`super::watch`] gets. Out: rows in the state. One task, fed by a bounded channel: following never
//! waits for it, and what it could not take, or the state could not keep, the next reconciliation makes up for.
//!
//! An event says that something is there, how it is called and what became of it, at once and also of what lives for
//! milliseconds only. The rest (mounts, labels and mountpoint of volumes, the log driver) is looked up a moment later, for
//! all that events told of meanwhile, in one or two calls: none at rest, and no more than two a second. After the first
//! listing, each reconnect, and now and then, everything is compared.

pub(crate) mod observe;
pub(crate) mod schedule;

use super::Error;
use super::route::Routes;
use super::watch::feed::News;
use crate::docker::{Docker, Event};
use crate::metrics::{ChangeSource, Culprit, Extent, ReconciliationMetrics};
use crate::model::health::{SharedHealth, Status};
use crate::model::inventory::{ContainerRow, MountRow, SeenRange, UnlistedFields, Update, VolumeRow};
use crate::model::plan::{Observed, Plan};
use crate::model::time::Timestamp;
use crate::state::{self, Store, Trigger};
use observe::Observer;
use schedule::{Errand, LOOK, Schedule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Events that wait to be taken.
const QUEUE: usize = 1000;
/// What events tell is gathered for so long and written in one transaction.
const GATHER: Duration = Duration::from_millis(100);
/// What events told and is not written, while it is not known whose events they are; beyond it everything is compared.
const MOST: usize = 10_000;
/// Bytes of what events told that may wait, on their way here and here each: a label is as long as its container wants.
const BYTES: usize = 8 << 20;
/// After a failure everything is compared so much later at first, ...
const AGAIN: Duration = Duration::from_secs(2);
/// ... and at last.
const LATEST_AGAIN: Duration = Duration::from_secs(300);
/// What the task is given to write what it has when we stop.
const DRAIN: Duration = Duration::from_secs(1);

/// The inventory of a watch.
pub(super) struct Inventory {
    orders: Sender<Order>,
    /// Bytes of what events told in those.
    waiting: Arc<AtomicUsize>,
    /// Something was not taken.
    has_missed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What the task is told.
enum Order {
    /// An event told this, ...
    Heard(Vec<Update>),
    /// Volumes were removed by then, and nothing tells which.
    Pruned(Timestamp),
    /// The engine is gone, and another one may come up at the same place.
    Lost,
    /// Compare everything.
    All,
}

impl Order {
    /// Bytes that it keeps, about.
    fn weight(&self) -> usize {
        match self {
            Order::Heard(told) => told.iter().map(Update::weight).sum(),
            Order::Pruned(_) | Order::Lost | Order::All => 0,
        }
    }
}

/// What keeps it, and where.
pub(super) struct Keeping {
    pub(super) docker: Docker,
    pub(super) routes: Arc<Routes>,
    pub(super) store: Store,
    pub(super) engine_id: String,
    pub(super) metrics: ReconciliationMetrics,
}

impl Inventory {
    /// Starts the task, which tells there how it is doing.
    pub(super) fn start(keeping: Keeping, health: SharedHealth) -> Self {
        let (orders, received) = channel(QUEUE);
        let has_missed = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(AtomicUsize::new(0));
        let Keeping { docker, routes, store, engine_id, metrics } = keeping;
        let observer = Observer { docker, routes };
        let task = Task {
            observer,
            store,
            engine_id,
            metrics,
            health,
            waiting: Arc::clone(&waiting),
            has_missed: Arc::clone(&has_missed),
            is_doubtful: false,
            told: Vec::new(),
            told_bytes: 0,
            flush: None,
            agenda: Schedule::default(),
            again: AGAIN,
            has_told_trouble: false,
        };
        task.told_of(Status::Healthy);
        Inventory { orders, waiting, has_missed, task: tokio::spawn(task.run(received)) }
    }

    /// Takes what is new. Never waits.
    pub(super) fn hear(&self, news: &News) {
        let order = match news {
            News::Event(event) if event.kind == "volume" && event.verb() == "prune" => Order::Pruned(event.time),
            News::Event(event) => match told(event) {
                told if told.is_empty() => return,
                told => Order::Heard(told),
            },
            News::Listing(..) => Order::All,
            News::Lost(_) | News::Back(_) => Order::Lost,
            News::Nonsense(_) | News::Forgotten(_) => return,
        };
        let bytes = order.weight();
        let has_room = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= BYTES;
        if !has_room || self.orders.try_send(order).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.has_missed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what was heard, if that can be done soon.
    pub(super) async fn stop(self) {
        let Inventory { orders, mut task, .. } = self;
        drop(orders);
        if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// What an event tells; nothing where it is of no concern here.
pub(super) fn told(event: &Event) -> Vec<Update> {
    let attribute = |name: &str| event.attributes.get(name).cloned().unwrap_or_default();
    let at = event.time;
    // A prune tells of nothing in particular.
    if event.id.is_empty() {
        return Vec::new();
    }
    match (&*event.kind, event.verb()) {
        ("container", "destroy") => vec![Update::ContainerGone(event.id.clone(), at)],
        // Each tells at least the name: the rename that gave it may have been left out for a newer event.
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
    let beyond = match event.verb() {
        "start" => UnlistedFields { started: Some(at), ..UnlistedFields::default() },
        "die" => UnlistedFields { finished: Some(at), exit_code: event.exit_code(), ..UnlistedFields::default() },
        _ => UnlistedFields::default(),
    };
    let state_seen = Some(at).filter(|_| !state.is_empty());
    ContainerRow { id, name, image, labels, state, created: None, beyond, seen: SeenRange::at(at), state_seen }
}

struct Task {
    observer: Observer,
    store: Store,
    engine_id: String,
    metrics: ReconciliationMetrics,
    health: SharedHealth,
    waiting: Arc<AtomicUsize>,
    has_missed: Arc<AtomicBool>,
    /// Another engine may be at the place of the one that we know.
    is_doubtful: bool,
    /// What events told and the state does not know, and when it shall.
    told: Vec<Update>,
    told_bytes: usize,
    flush: Option<Instant>,
    agenda: Schedule,
    /// From the next failure on.
    again: Duration,
    has_told_trouble: bool,
}

fn culprit(error: &Error) -> Culprit {
    match error {
        Error::Docker(_) => Culprit::Docker,
        Error::State(_) => Culprit::State,
        _ => Culprit::Other,
    }
}

impl Task {
    async fn run(mut self, mut orders: Receiver<Order>) {
        loop {
            let due = self.due();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.take(order, Instant::now()).await,
                    None => break,
                },
                () = until(due) => self.work(Instant::now()).await,
            }
            if self.has_missed.swap(false, Ordering::Relaxed) {
                self.agenda.plan_everything_by(Instant::now() + LOOK);
            }
        }
        self.keep_told().await;
    }

    fn due(&self) -> Option<Instant> {
        self.flush.into_iter().chain(self.agenda.due()).min()
    }

    async fn take(&mut self, order: Order, now: Instant) {
        self.waiting.fetch_sub(order.weight(), Ordering::Relaxed);
        match order {
            Order::All => self.agenda.plan_everything(Some(now)),
            Order::Lost => {
                // These are still of the engine that was there.
                self.keep_told().await;
                self.is_doubtful = true;
            }
            Order::Pruned(at) => self.agenda.note_volume(at, now),
            Order::Heard(told) => {
                told.iter().for_each(|told| self.agenda.note(told, now));
                self.told_bytes += told.iter().map(Update::weight).sum::<usize>();
                self.told.extend(told);
                if self.told.len() > MOST || self.told_bytes > BYTES {
                    self.told.clear();
                    self.told_bytes = 0;
                    self.agenda.plan_everything_by(now + LOOK);
                }
                self.flush.get_or_insert(now + GATHER);
            }
        }
    }

    /// Does what is due.
    async fn work(&mut self, now: Instant) {
        self.keep_told().await;
        let (extent, done) = match self.agenda.take(now) {
            None => return,
            Some(Errand::Everything) => (Extent::Full, self.compare_everything().await),
            // Whose they are has to be asked first.
            Some(Errand::Some { .. }) if self.is_doubtful => (Extent::Full, self.compare_everything().await),
            Some(Errand::Some { ids, with_volumes, at }) => {
                let extent = if ids.is_empty() { Extent::Volumes } else { Extent::Containers };
                (extent, self.compare_some(ids, with_volumes, at, extent).await)
            }
        };
        self.settle(extent, done);
    }

    /// Gives the state what events told, once it is known whose events they are.
    async fn keep_told(&mut self) {
        self.flush = None;
        if self.is_doubtful {
            return;
        }
        let told = std::mem::take(&mut self.told);
        self.told_bytes = 0;
        if told.is_empty() {
            return;
        }
        let is_volume = |told: &Update| matches!(told, Update::Volume(_) | Update::VolumeGone(..));
        let extent = if told.iter().all(is_volume) { Extent::Volumes } else { Extent::Containers };
        let (done, answer) = oneshot::channel();
        self.store.hear(&self.engine_id, told, move |tally| drop(done.send(tally)));
        match answer.await.unwrap_or(Err(state::Error::Closed)) {
            Ok(tally) => self.metrics.changed(&tally, ChangeSource::Event),
            Err(error) => self.failed(extent, &error.into()),
        }
    }

    async fn compare_everything(&mut self) -> Result<Plan, Error> {
        let (started, begun) = (Timestamp::now(), Instant::now());
        let engine = self.observer.docker.info().await?;
        let at = engine.time.unwrap_or(self.agenda.latest());
        self.engine_id = engine.id;
        if std::mem::take(&mut self.is_doubtful) {
            self.keep_told().await;
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
        let occasion = Trigger { source: "watch", started, begun, is_to_write: true, must_be_sure: false };
        let (done, answer) = oneshot::channel();
        self.store.reconcile(&self.engine_id, observed, occasion, move |plan| drop(done.send(plan)));
        let plan = answer.await.unwrap_or(Err(state::Error::Closed))?;
        self.metrics.changed(&plan.tally(), origin);
        self.metrics.ran(extent, begun.elapsed());
        Ok(plan)
    }

    fn settle(&mut self, extent: Extent, done: Result<Plan, Error>) {
        let now = Instant::now();
        match done {
            Ok(plan) => {
                self.again = AGAIN;
                self.has_told_trouble = false;
                if extent == Extent::Full {
                    self.told_of(Status::Healthy);
                    // The next listing of the feed brings the next.
                    self.agenda.plan_everything(None);
                }
                let latest = self.agenda.latest();
                plan.doubted.iter().for_each(|id| self.agenda.doubt(id, latest, now));
            }
            Err(error) => self.failed(extent, &error),
        }
    }

    fn told_of(&self, status: Status) {
        self.health.update(|health| health.state.inventory = status);
    }

    /// What was to be written is not; everything is compared later. Told once, until it works again.
    fn failed(&mut self, extent: Extent, error: &Error) {
        self.metrics.failed(extent, culprit(error));
        self.told_of(match error {
            Error::State(error) if !error.is_passing() => Status::Unhealthy,
            _ => Status::Degraded,
        });
        if matches!(error, Error::State(_)) && !std::mem::replace(&mut self.has_told_trouble, true) {
            tracing::warn!(%error, "the inventory is brought in line later");
        } else {
            tracing::debug!(%error, "the inventory is brought in line later");
        }
        let due = Instant::now() + self.again;
        self.again = (self.again * 2).min(LATEST_AGAIN);
        self.agenda.plan_everything(Some(due));
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
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

    fn words(told: &[Update]) -> String {
        let words = told.iter().map(|told| match told {
            Update::Container(row) => {
                let UnlistedFields { started, finished, exit_code, .. } = &row.beyond;
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
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_an_event_tells_is_taken_and_no_more() {
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
            let told = told(&event(kind, action, "id", 7, &attributes));
            assert_eq!(words(&told), expected, "{kind} {action}");
        }
        assert_eq!(told(&event("volume", "prune", "", 7, &[("reclaimed", "0")])), []);
        assert_eq!(told(&event("container", "destroy", "", 7, &[])), []);
    }
}

//! The `reconcile` command: observes the engine, compares the inventory in the state with it, and applies the
//! differences.
//!
//! In: an engine and a state file. Out: what was, or would be, changed. The number of requests to the engine does not
//! depend on the number of containers. The state compares and applies in one transaction.

use super::inventory::observe::Observer;
use super::inventory::schedule::REFRESH_DELAY;
use super::route::Routes;
use super::{Error, show_while_waiting};
use crate::config::{self, Source};
use crate::docker::{Docker, Endpoint};
use crate::metrics;
use crate::model::inventory::LISTINGS_LAG;
use crate::model::plan::{KnownRows, Observed, Plan, plan};
use crate::model::stop::Stop;
use crate::model::time::Timestamp;
use crate::output::{ActivityLine, Reconciled};
use crate::state::{self, Store, Trigger};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Progress text while requests are under way.
const QUERYING: &str = "querying the engine";

/// Options of the command.
#[derive(Clone, Debug)]
pub(crate) struct ReconcileOptions {
    /// Path of the state file.
    pub state: PathBuf,
    pub docker: config::DockerConfig,
    /// Report the differences and write nothing.
    pub dry_run: bool,
    /// Observe twice and report only differences that are in both: a running watch that updates the state lags a moment
    /// behind the engine, and that is no fault.
    pub confirm_twice: bool,
    /// Show no progress on the terminal.
    pub quiet: bool,
}

/// Brings the state in line with the engine, or reports what that would take. Returns `None` if `stop` was cancelled
/// before anything was written.
pub(crate) fn reconcile(
    endpoint: Endpoint,
    options: &ReconcileOptions,
    stop: &Stop,
) -> Result<Option<Reconciled>, Error> {
    super::runtime()?.block_on(run(endpoint, options, stop))
}

async fn run(endpoint: Endpoint, options: &ReconcileOptions, stop: &Stop) -> Result<Option<Reconciled>, Error> {
    let (started, begun) = (Timestamp::now(), Instant::now());
    let meter = ActivityLine::new(!options.quiet);
    meter.show(QUERYING);
    let address = endpoint.to_string();
    let connecting = Docker::connect_with(endpoint, &options.docker, metrics::PoolMetrics::default());
    let connecting = show_while_waiting(connecting, &address, &meter);
    let Some(docker) = stop.run_until_cancelled(connecting).await else { return Ok(None) };
    meter.show(QUERYING);
    // A state that cannot be used is reported before any request that takes time.
    let store =
        if options.dry_run { Store::open_existing(&options.state)? } else { Some(Store::open(&options.state)?) };
    let mut engine = EngineView { docker: docker?, meter, started, may_wait: true, pause: Duration::ZERO };
    let mut before = None;
    loop {
        let Some(result) = stop.run_until_cancelled(engine.observe()).await else { return Ok(None) };
        let (engine_id, observed) = result?;
        engine.meter.show("comparing");
        let (must_write, must_be_certain) = (!options.dry_run, engine.may_wait);
        let trigger = Trigger { source: "reconcile", started, begun, must_write, must_be_certain };
        let plan = compare(store.as_ref(), &engine_id, observed, trigger).await?;
        if engine.may_wait && !plan.uncertain.is_empty() {
            engine.wait_for_listings();
            continue;
        }
        if options.confirm_twice && before.is_none() && store.is_some() && !plan.summary().is_empty() {
            engine.wait_for_watch();
            before = Some(plan);
            continue;
        }
        let plan = before.iter().fold(plan, |plan, before| plan.confirmed_by(before));
        let took = begun.elapsed();
        let (is_dry_run, has_no_state) = (options.dry_run, store.is_none());
        return Ok(Some(Reconciled { engine_id, is_dry_run, started, took, plan, has_no_state }));
    }
}

/// Observes the engine, repeatedly if its listings lag behind.
struct EngineView {
    docker: Docker,
    meter: ActivityLine,
    /// When the command started, by our clock.
    started: Timestamp,
    /// Whether to wait if listings lag behind a container's death. Waits at most once.
    may_wait: bool,
    /// How long to wait before the next observation.
    pause: Duration,
}

impl EngineView {
    /// Returns the engine's ID and what the engine has.
    async fn observe(&mut self) -> Result<(String, Observed), Error> {
        loop {
            tokio::time::sleep(std::mem::take(&mut self.pause)).await;
            let engine = self.docker.info().await?;
            let routes = Arc::new(Routes::new(&self.docker, &engine, Source::Auto));
            let observer = Observer { docker: self.docker.clone(), routes };
            let meter = self.meter.clone();
            let at = engine.time.unwrap_or(self.started);
            let died = if self.may_wait { observer.recently_died(at).await? } else { HashSet::new() };
            let observed = observer.everything(at, move |count| meter.count(count, "reading containers")).await?;
            let mut containers = observed.containers.iter().map(|(container, _)| container);
            if containers.any(|container| container.state == "running" && died.contains(&container.id)) {
                self.wait_for_listings();
                continue;
            }
            return Ok((engine.id, Observed { with_positions: true, ..observed }));
        }
    }

    /// Delays the next observation until listings reflect all deaths up to now.
    fn wait_for_listings(&mut self) {
        self.meter.show("waiting for the engine's listings to catch up");
        self.may_wait = false;
        self.pause = LISTINGS_LAG;
    }

    /// Delays the next observation until a running watch has written what has just happened.
    fn wait_for_watch(&mut self) {
        self.meter.show("waiting for a running watch to apply the differences");
        self.pause = REFRESH_DELAY * 2;
    }
}

/// Has the state compare, and apply the differences if the trigger says so. Without a state, compares
/// with an empty inventory.
async fn compare(store: Option<&Store>, engine_id: &str, observed: Observed, trigger: Trigger) -> Result<Plan, Error> {
    let Some(store) = store else { return Ok(plan(&KnownRows::default(), &observed)) };
    let (sender, plan) = oneshot::channel();
    store.reconcile(engine_id, observed, trigger, move |plan| drop(sender.send(plan)));
    Ok(plan.await.unwrap_or(Err(state::Error::Closed))?)
}

//! `reconcile`: observe, plan, apply, once.
//!
//! In: an engine and a state file. Out: what was, or would be, changed. The engine is asked a handful of questions however
//! many containers there are; the state compares and applies in one transaction.

use super::inventory::observe::Observer;
use super::inventory::schedule::LOOK;
use super::route::Routes;
use super::{Error, awaited};
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

/// The first that the terminal shows.
const ASKING: &str = "asking the engine";

/// What to do.
#[derive(Clone, Debug)]
pub struct ReconcileOptions {
    /// The state file.
    pub state: PathBuf,
    /// How the engine is spoken to.
    pub docker: config::DockerConfig,
    /// Tell, and write nothing.
    pub dry_run: bool,
    /// What differs is looked at twice: a watch that keeps the state is a moment behind, and that is no fault.
    pub must_last: bool,
    /// No progress on the terminal.
    pub quiet: bool,
}

/// Brings the state in line with the engine, or tells what that would take. `None` when we were told to stop before
/// anything was written.
pub fn reconcile(endpoint: Endpoint, options: &ReconcileOptions, stop: &Stop) -> Result<Option<Reconciled>, Error> {
    super::runtime()?.block_on(run(endpoint, options, stop))
}

async fn run(endpoint: Endpoint, options: &ReconcileOptions, stop: &Stop) -> Result<Option<Reconciled>, Error> {
    let (started, begun) = (Timestamp::now(), Instant::now());
    let meter = ActivityLine::new(!options.quiet);
    meter.say(ASKING);
    let address = endpoint.to_string();
    let greeting = Docker::connect_with(endpoint, &options.docker, metrics::PoolMetrics::default());
    let greeting = awaited(greeting, &address, &meter);
    let Some(docker) = stop.run_until_cancelled(greeting).await else { return Ok(None) };
    meter.say(ASKING);
    // A state that cannot be used is told before anything is asked that takes time.
    let store =
        if options.dry_run { Store::open_existing(&options.state)? } else { Some(Store::open(&options.state)?) };
    let mut glance = Glance { docker: docker?, meter, started, is_patient: true, pause: Duration::ZERO };
    let mut before = None;
    loop {
        let Some(looked) = stop.run_until_cancelled(glance.look()).await else { return Ok(None) };
        let (engine_id, observed) = looked?;
        glance.meter.say("comparing");
        let (is_to_write, must_be_sure) = (!options.dry_run, glance.is_patient);
        let occasion = Trigger { source: "reconcile", started, begun, is_to_write, must_be_sure };
        let plan = compare(store.as_ref(), &engine_id, observed, occasion).await?;
        if glance.is_patient && !plan.doubted.is_empty() {
            glance.wait_for_listings();
            continue;
        }
        if options.must_last && before.is_none() && store.is_some() && !plan.tally().is_empty() {
            glance.wait_for_watch();
            before = Some(plan);
            continue;
        }
        let plan = before.iter().fold(plan, |plan, before| plan.confirmed_by(before));
        let took = begun.elapsed();
        let (is_dry_run, has_no_state) = (options.dry_run, store.is_none());
        return Ok(Some(Reconciled { engine_id, is_dry_run, started, took, plan, has_no_state }));
    }
}

/// A look at the engine, perhaps not the first.
struct Glance {
    docker: Docker,
    meter: ActivityLine,
    started: Timestamp,
    /// What its listings may be behind is waited for.
    is_patient: bool,
    /// Before the next.
    pause: Duration,
}

impl Glance {
    /// Whose it is, and what it shows.
    async fn look(&mut self) -> Result<(String, Observed), Error> {
        loop {
            tokio::time::sleep(std::mem::take(&mut self.pause)).await;
            let engine = self.docker.info().await?;
            let routes = Arc::new(Routes::new(&self.docker, &engine, Source::Auto));
            let observer = Observer { docker: self.docker.clone(), routes };
            let reading = self.meter.clone();
            let at = engine.time.unwrap_or(self.started);
            let died = if self.is_patient { observer.died_lately(at).await? } else { HashSet::new() };
            let observed = observer.everything(at, move |count| reading.count(count, "reading containers")).await?;
            let mut containers = observed.containers.iter().map(|(container, _)| container);
            if containers.any(|container| container.state == "running" && died.contains(&container.id)) {
                self.wait_for_listings();
                continue;
            }
            return Ok((engine.id, Observed { with_positions: true, ..observed }));
        }
    }

    /// Until what the listings show now of who lives has become true.
    fn wait_for_listings(&mut self) {
        self.meter.say("waiting until the engine's listings show who died");
        self.is_patient = false;
        self.pause = LISTINGS_LAG;
    }

    /// Until a watch has kept what had just happened.
    fn wait_for_watch(&mut self) {
        self.meter.say("waiting to see whether a watch brings them in line");
        self.pause = LOOK * 2;
    }
}

/// Has the state compare; where there is none, nothing is known.
async fn compare(store: Option<&Store>, engine_id: &str, observed: Observed, occasion: Trigger) -> Result<Plan, Error> {
    let Some(store) = store else { return Ok(plan(&KnownRows::default(), &observed)) };
    let (done, answer) = oneshot::channel();
    store.reconcile(engine_id, observed, occasion, move |plan| drop(done.send(plan)));
    Ok(answer.await.unwrap_or(Err(state::Error::Closed))?)
}

//! `reconcile`: observe, plan, apply, once.
//!
//! In: an engine and a state file. Out: what was, or would be, changed. The engine is asked a handful of questions however
//! many containers there are; the state compares and applies in one transaction.

use super::observe::Observer;
use super::route::Routes;
use super::{Error, awaited};
use crate::config::{self, Source};
use crate::docker::{Docker, Endpoint};
use crate::inventory::LISTINGS_LAG;
use crate::metrics;
use crate::output::{Meter, Reconciled};
use crate::plan::{Known, Observed, Plan, plan};
use crate::state::{self, Occasion, Store};
use crate::time::Timestamp;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The first that the terminal shows.
const ASKING: &str = "asking the engine";

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state file.
    pub state: PathBuf,
    /// How the engine is spoken to.
    pub docker: config::Docker,
    /// Tell, and write nothing.
    pub dry_run: bool,
    /// No progress on the terminal.
    pub quiet: bool,
}

/// Brings the state in line with the engine, or tells what that would take.
pub fn reconcile(endpoint: Endpoint, options: &Options) -> Result<Reconciled, Error> {
    super::runtime()?.block_on(run(endpoint, options))
}

async fn run(endpoint: Endpoint, options: &Options) -> Result<Reconciled, Error> {
    let (started, begun) = (Timestamp::now(), Instant::now());
    let meter = Meter::new(!options.quiet);
    meter.say(ASKING);
    let address = endpoint.to_string();
    let greeting = Docker::connect_with(endpoint, &options.docker, metrics::Pool::default());
    let docker = awaited(greeting, &address, &meter).await?;
    meter.say(ASKING);
    // A state that cannot be used is told before anything is asked that takes time.
    let store = if options.dry_run { Store::look(&options.state)? } else { Some(Store::open(&options.state)?) };
    let mut is_patient = true;
    loop {
        let engine = docker.info().await?;
        let routes = Arc::new(Routes::new(&docker, &engine, Source::Auto));
        let observer = Observer { docker: docker.clone(), routes };
        let reading = meter.clone();
        let at = engine.time.unwrap_or(started);
        let died = if is_patient { observer.died_lately(at).await? } else { HashSet::new() };
        let observed = observer.everything(at, move |count| reading.count(count, "reading containers")).await?;
        let is_behind = observed
            .containers
            .iter()
            .any(|(container, _)| container.state == "running" && died.contains(&container.id));
        let observed = Observed { with_positions: true, ..observed };
        meter.say("comparing");
        let occasion =
            Occasion { source: "reconcile", started, begun, is_to_write: !options.dry_run, must_be_sure: is_patient };
        if is_behind {
            is_patient = false;
            wait_for_listings(&meter).await;
            continue;
        }
        let plan = compare(store.as_ref(), &engine.id, observed, occasion).await?;
        if is_patient && !plan.doubted.is_empty() {
            is_patient = false;
            wait_for_listings(&meter).await;
            continue;
        }
        return Ok(Reconciled {
            engine_id: engine.id,
            is_dry_run: options.dry_run,
            started,
            took: begun.elapsed(),
            plan,
        });
    }
}

/// Until what the listings show now of who lives has become true.
async fn wait_for_listings(meter: &Meter) {
    meter.say("waiting until the engine's listings show who died");
    tokio::time::sleep(Duration::from_nanos(LISTINGS_LAG.unsigned_abs())).await;
}

/// Has the state compare; where there is none, nothing is known.
async fn compare(
    store: Option<&Store>,
    engine_id: &str,
    observed: Observed,
    occasion: Occasion,
) -> Result<Plan, Error> {
    let Some(store) = store else { return Ok(plan(&Known::default(), &observed)) };
    let (done, answer) = oneshot::channel();
    store.reconcile(engine_id, observed, occasion, move |plan| drop(done.send(plan)));
    Ok(answer.await.unwrap_or(Err(state::Error::Closed))?)
}

//! What an engine has, asked for in a handful of calls.
//!
//! In: the engine. Out: [`Observed`], for the state to compare. Called by [`super::reconcile`] and [`super::inventory`].
//! What no listing tells is read from the containers' folders where that is allowed, on a thread that may block; else it
//! stays unknown, since asking for it would be a call for each container.

use crate::commands::Error;
use crate::commands::route::{Choice, Routes};
use crate::docker::{Docker, EventsQuery};
use crate::model::container;
use crate::model::inventory::{ContainerRow, LISTINGS_LAG, MountRow, UnlistedFields};
use crate::model::plan::Observed;
use crate::model::selector::Filters;
use crate::model::time::Timestamp;
use crate::tail::{self, ContainerConfig};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// For what the engine remembers in its memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// More containers do not die in the seconds that a listing lags behind.
const DEATHS: usize = 10_000;

/// Asks one engine.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) docker: Docker,
    pub(crate) routes: Arc<Routes>,
}

impl Observer {
    /// All there is. `at` is a moment of the engine's clock that has passed; `read` is called for each container once it
    /// is told how many there are.
    pub(crate) async fn everything(
        &self,
        at: Timestamp,
        read: impl Fn(usize) + Send + 'static,
    ) -> Result<Observed, Error> {
        let containers = self.docker.containers_and_mounts(None, at).await?;
        let volumes = self.docker.volumes_in_full(at).await?;
        let observed = Observed { at, containers, asked: None, volumes: Some(volumes), with_positions: false };
        self.beyond(observed, read).await
    }

    /// Who died so shortly before `at` that a listing may not know it, and was not started since, as far as the engine
    /// remembers.
    pub(crate) async fn died_lately(&self, at: Timestamp) -> Result<HashSet<String>, Error> {
        let told = tokio::time::timeout(PATIENCE, self.deaths(at)).await;
        match told {
            // Podman looks through its journal for it, and a proxy may let nobody ask. A listing is believed then.
            Err(_) => Ok(HashSet::new()),
            Ok(Err(Error::Docker(error))) if error.is_refusal() => Ok(HashSet::new()),
            Ok(told) => told,
        }
    }

    async fn deaths(&self, at: Timestamp) -> Result<HashSet<String>, Error> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filters =
            Filters::from([("type".into(), words(&["container"])), ("event".into(), words(&["die", "start"]))]);
        let since = at - LISTINGS_LAG;
        let query = EventsQuery { since: Some(since), until: Some(at), filters };
        let mut events = self.docker.past_events(&query).await?;
        let mut died = HashSet::new();
        while let Some(event) = events.next().await {
            // What makes no sense tells of nobody.
            match event {
                Ok(event) if event.verb() == "die" => drop(died.insert(event.id)),
                Ok(event) => drop(died.remove(&event.id)),
                Err(error) if error.is_passing() => return Err(error.into()),
                Err(_) => {}
            }
            // No engine remembers so many events, so this answer may have no end. A listing is believed then, too.
            if died.len() > DEATHS {
                return Ok(HashSet::new());
            }
        }
        Ok(died)
    }

    /// These containers, and all volumes if they are wanted.
    pub(crate) async fn some(&self, ids: Vec<String>, with_volumes: bool, at: Timestamp) -> Result<Observed, Error> {
        let mut observed = Observed { at, ..Observed::default() };
        // No IDs would be no filter.
        if !ids.is_empty() {
            observed.containers = self.docker.containers_and_mounts(Some(&ids), at).await?;
        }
        observed.asked = Some(ids);
        let lacks_source = observed.containers.iter().flat_map(|(_, mounts)| mounts).any(lacks_source);
        if with_volumes || lacks_source {
            observed.volumes = Some(self.docker.volumes_in_full(at).await?);
        }
        self.beyond(observed, |_| {}).await
    }

    /// Adds what no listing tells.
    async fn beyond(&self, mut observed: Observed, read: impl Fn(usize) + Send + 'static) -> Result<Observed, Error> {
        add_sources(&mut observed);
        let routes = Arc::clone(&self.routes);
        let reading = tokio::task::spawn_blocking(move || {
            let count = observed.containers.len();
            for (container, _) in &mut observed.containers {
                container.unlisted = beyond(&routes, container);
                read(count);
            }
            observed
        });
        reading.await.map_err(|error| Error::Start(io::Error::other(error)))
    }
}

/// Listings do not tell where a volume lies before its container is started.
fn lacks_source(mount: &MountRow) -> bool {
    mount.volume.is_some() && mount.source.as_ref().is_none_or(String::is_empty)
}

fn add_sources(observed: &mut Observed) {
    let volumes = observed.volumes.iter().flatten();
    let places: HashMap<&str, &str> = volumes.map(|volume| (&*volume.name, &*volume.mountpoint)).collect();
    let mounts = observed.containers.iter_mut().flat_map(|(_, mounts)| mounts);
    for mount in mounts.filter(|mount| lacks_source(mount)) {
        let place = mount.volume.as_deref().and_then(|volume| places.get(volume));
        mount.source = place.map(|place| (*place).to_owned());
    }
}

fn beyond(routes: &Routes, container: &ContainerRow) -> UnlistedFields {
    let folder = routes.visible(&container.id);
    let ContainerConfig { log_driver, started, finished, exit_code } =
        folder.map(|folder| tail::describe(&folder)).unwrap_or_default();
    let listed = container::Container {
        id: container.id.clone(),
        state: container.state.clone(),
        ..container::Container::default()
    };
    let log_route = match routes.of(&listed) {
        _ if log_driver.as_deref() == Some("none") => None,
        Choice::File(_) => Some(crate::model::cursor::Route::File),
        Choice::Stream => Some(routes.over_api()),
        Choice::Nothing => None,
    };
    UnlistedFields { log_driver, log_route, started, finished, exit_code }
}

//! Observes what an engine has, in a few requests.
//!
//! In: the engine. Out: [`Observed`], which the state compares with the inventory. Called by [`super`] and by
//! `reconcile`. Fields that no listing contains are read from the containers' folders if possible, on a thread that may
//! block. Otherwise they stay unknown: querying them would take one request for each container.

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

/// Time limit for events from the engine's memory.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper bound for the deaths within [`LISTINGS_LAG`].
const MAX_DEATHS: usize = 10_000;

/// Sends the requests to one engine.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) docker: Docker,
    pub(crate) routes: Arc<Routes>,
}

impl Observer {
    /// Observes all containers and volumes. `at` is a time by the engine's clock that has passed. For progress,
    /// `on_read` is called after each container's folder is read, with the total number of containers.
    pub(crate) async fn everything(
        &self,
        at: Timestamp,
        on_read: impl Fn(usize) + Send + 'static,
    ) -> Result<Observed, Error> {
        let containers = self.docker.containers_and_mounts(None, at).await?;
        let volumes = self.docker.volumes_in_full(at).await?;
        let observed = Observed { at, containers, requested: None, volumes: Some(volumes), with_positions: false };
        self.add_unlisted(observed, on_read).await
    }

    /// Returns the IDs of containers that died so shortly before `at` that a listing may not show it, and that were not
    /// started since, as far as the engine remembers.
    pub(crate) async fn recently_died(&self, at: Timestamp) -> Result<HashSet<String>, Error> {
        match tokio::time::timeout(HISTORY_TIMEOUT, self.deaths(at)).await {
            // Podman searches its journal, which takes long, and a proxy may refuse the request. Then the listing is
            // trusted.
            Err(_) => Ok(HashSet::new()),
            Ok(Err(Error::Docker(error))) if error.is_refusal() => Ok(HashSet::new()),
            Ok(result) => result,
        }
    }

    async fn deaths(&self, at: Timestamp) -> Result<HashSet<String>, Error> {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let filters =
            Filters::from([("type".into(), values(&["container"])), ("event".into(), values(&["die", "start"]))]);
        let since = at - LISTINGS_LAG;
        let query = EventsQuery { since: Some(since), until: Some(at), filters };
        let mut events = self.docker.past_events(&query).await?;
        let mut died = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if event.base_action() == "die" => drop(died.insert(event.id)),
                Ok(event) => drop(died.remove(&event.id)),
                Err(error) if error.is_temporary() => return Err(error.into()),
                // An event that cannot be parsed.
                Err(_) => {}
            }
            // No engine remembers this many events, so the answer may be endless. Then the listing is trusted, too.
            if died.len() > MAX_DEATHS {
                return Ok(HashSet::new());
            }
        }
        Ok(died)
    }

    /// Observes these containers, and all volumes if `with_volumes`.
    pub(crate) async fn some(&self, ids: Vec<String>, with_volumes: bool, at: Timestamp) -> Result<Observed, Error> {
        let mut observed = Observed { at, ..Observed::default() };
        // An empty filter would list all containers.
        if !ids.is_empty() {
            observed.containers = self.docker.containers_and_mounts(Some(&ids), at).await?;
        }
        observed.requested = Some(ids);
        let is_any_missing = observed.containers.iter().flat_map(|(_, mounts)| mounts).any(is_source_missing);
        if with_volumes || is_any_missing {
            observed.volumes = Some(self.docker.volumes_in_full(at).await?);
        }
        self.add_unlisted(observed, |_| {}).await
    }

    /// Adds the fields that no listing contains.
    async fn add_unlisted(
        &self,
        mut observed: Observed,
        on_read: impl Fn(usize) + Send + 'static,
    ) -> Result<Observed, Error> {
        add_sources(&mut observed);
        let routes = Arc::clone(&self.routes);
        let reading = tokio::task::spawn_blocking(move || {
            let count = observed.containers.len();
            for (container, _) in &mut observed.containers {
                container.unlisted = unlisted_fields(&routes, container);
                on_read(count);
            }
            observed
        });
        reading.await.map_err(|error| Error::Start(io::Error::other(error)))
    }
}

/// Returns whether the source of a volume mount is unknown: listings omit it before the container is started.
fn is_source_missing(mount: &MountRow) -> bool {
    mount.volume.is_some() && mount.source.as_ref().is_none_or(String::is_empty)
}

/// Takes the missing sources of mounts from their volumes.
fn add_sources(observed: &mut Observed) {
    let volumes = observed.volumes.iter().flatten();
    let mountpoints: HashMap<&str, &str> = volumes.map(|volume| (&*volume.name, &*volume.mountpoint)).collect();
    let mounts = observed.containers.iter_mut().flat_map(|(_, mounts)| mounts);
    for mount in mounts.filter(|mount| is_source_missing(mount)) {
        let source = mount.volume.as_deref().and_then(|volume| mountpoints.get(volume));
        mount.source = source.map(|source| (*source).to_owned());
    }
}

fn unlisted_fields(routes: &Routes, container: &ContainerRow) -> UnlistedFields {
    let folder = routes.container_folder(&container.id);
    let ContainerConfig { log_driver, started, finished, exit_code } =
        folder.map(|folder| tail::describe(&folder)).unwrap_or_default();
    let listed = container::Container {
        id: container.id.clone(),
        state: container.state.clone(),
        ..container::Container::default()
    };
    let log_route = match routes.choose(&listed) {
        _ if log_driver.as_deref() == Some("none") => None,
        Choice::File(_) => Some(crate::model::line_id::Route::File),
        Choice::Stream => Some(routes.api_route()),
        Choice::Nothing => None,
    };
    UnlistedFields { log_driver, log_route, started, finished, exit_code }
}

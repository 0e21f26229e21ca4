//! Containers with their mounts, and volumes, as the inventory keeps them.
//!
//! In: the client library's types. Out: rows of [`crate::inventory`]. Two calls however many there are: a listing tells all
//! but what is in [`crate::inventory::Beyond`]. [`Docker::list`] takes less from the same answer.

use super::{Docker, Error, answers};
use crate::inventory::{Container, Mount, Seen, Volume};
use crate::time::Timestamp;
use bollard::models;
use bollard::query_parameters::ListContainersOptions;
use std::collections::{BTreeMap, HashMap};

impl Docker {
    /// All containers, or those of these IDs, each with its mounts; `at` is when that is told, by the engine's clock.
    pub async fn containers_and_mounts(
        &self,
        ids: Option<&[String]>,
        at: Timestamp,
    ) -> Result<Vec<(Container, Vec<Mount>)>, Error> {
        let filters = ids.map(|ids| HashMap::from([("id".to_owned(), ids.to_vec())]));
        let options = ListContainersOptions { all: true, filters, ..Default::default() };
        let found = self.listed(options).await?;
        let rows: Result<BTreeMap<String, _>, Error> =
            found.into_iter().map(|said| container(said, at).map(|row| (row.0.id.clone(), row))).collect();
        Ok(rows?.into_values().collect())
    }

    /// All volumes with what is to be known of them; `at` as above.
    pub async fn volumes_in_full(&self, at: Timestamp) -> Result<Vec<Volume>, Error> {
        let found = self.listed_volumes().await?;
        let rows: BTreeMap<String, Volume> =
            found.into_iter().map(|said| (said.name.clone(), volume(said, at))).collect();
        Ok(rows.into_values().collect())
    }
}

fn container(mut said: models::ContainerSummary, at: Timestamp) -> Result<(Container, Vec<Mount>), Error> {
    let created = said.created.and_then(|seconds| seconds.checked_mul(1_000_000_000)).map(Timestamp);
    let mounts = said.mounts.take().unwrap_or_default();
    let crate::container::Container { id, name, image, labels, state, .. } = answers::listed(said)?;
    let mounts: BTreeMap<String, Mount> =
        mounts.into_iter().map(|said| mount(said, &id)).map(|mount| (mount.destination.clone(), mount)).collect();
    let row = Container {
        id,
        name,
        image,
        labels,
        state,
        created,
        seen: Seen::at(at),
        state_seen: Some(at),
        ..Container::default()
    };
    Ok((row, mounts.into_values().collect()))
}

fn mount(said: models::MountPoint, container_id: &str) -> Mount {
    let told = |text: Option<String>| text.filter(|text| !text.is_empty());
    let kind = told(said.typ).unwrap_or_else(|| "bind".to_owned());
    Mount {
        container_id: container_id.to_owned(),
        destination: said.destination.unwrap_or_default(),
        volume: told(said.name).filter(|_| kind == "volume"),
        kind,
        source: Some(said.source.unwrap_or_default()),
        driver: told(said.driver),
        mode: Some(said.mode.unwrap_or_default()),
        is_writable: said.rw.unwrap_or(true),
        propagation: said.propagation.unwrap_or_default(),
    }
}

fn volume(said: models::Volume, at: Timestamp) -> Volume {
    Volume {
        name: said.name,
        driver: said.driver,
        scope: said.scope.map(|scope| scope.to_string()).unwrap_or_default(),
        mountpoint: said.mountpoint,
        labels: said.labels.into_iter().collect(),
        created: said.created_at.as_deref().and_then(answers::time),
        seen: Seen::at(at),
    }
}

//! Lists containers with their mounts, and volumes, as rows of the inventory.
//!
//! In: the daemon's container and volume lists. Out: rows of [`crate::model::inventory`].
//!
//! Two calls are enough for any number of containers: a listing contains everything except
//! [`crate::model::inventory::UnlistedFields`]. [`Docker::list`] keeps less of the same response.

use super::http::bounded_body::Weigh;
use super::responses::{self, ListedContainer, MountPoint, Pairs};
use super::{Docker, Error};
use crate::model::container;
use crate::model::inventory::{ContainerRow, MountRow, SeenRange, VolumeRow};
use crate::model::selector::Filters;
use crate::model::time::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

impl Docker {
    /// All containers, or those with these IDs, each with its mounts. `at` is the current time by the daemon's clock.
    pub async fn containers_and_mounts(
        &self,
        ids: Option<&[String]>,
        at: Timestamp,
    ) -> Result<Vec<(ContainerRow, Vec<MountRow>)>, Error> {
        let filters: Filters = ids.map(|ids| ("id".to_owned(), ids.to_vec())).into_iter().collect();
        let found = self.listed(&filters, |entry| container(entry, at)).await?;
        let rows: BTreeMap<String, _> = found.into_iter().map(|row| (row.0.id.clone(), row)).collect();
        Ok(rows.into_values().collect())
    }

    /// All volumes. `at` is the current time by the daemon's clock.
    pub async fn volumes_in_full(&self, at: Timestamp) -> Result<Vec<VolumeRow>, Error> {
        let found = self.listed_volumes(|entry| volume(entry, at)).await?;
        let rows: BTreeMap<String, VolumeRow> = found.into_iter().map(|row| (row.name.clone(), row)).collect();
        Ok(rows.into_values().collect())
    }
}

/// An entry of `GET /volumes`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedVolume {
    name: String,
    driver: Option<String>,
    scope: Option<String>,
    mountpoint: Option<String>,
    labels: Option<Pairs>,
    created_at: Option<String>,
}

impl Weigh for (ContainerRow, Vec<MountRow>) {
    fn weight(&self) -> usize {
        self.0.weight() + self.1.iter().map(MountRow::weight).sum::<usize>()
    }
}

impl Weigh for VolumeRow {
    fn weight(&self) -> usize {
        VolumeRow::weight(self)
    }
}

fn container(mut entry: ListedContainer, at: Timestamp) -> Result<(ContainerRow, Vec<MountRow>), Error> {
    let created = entry.created.and_then(|seconds| seconds.checked_mul(1_000_000_000)).map(Timestamp);
    let mounts = entry.mounts.take().unwrap_or_default().0;
    let container::Container { id, name, image, labels, state, .. } = responses::listed(entry)?;
    let mounts: BTreeMap<String, MountRow> =
        mounts.into_iter().map(|entry| mount(entry, &id)).map(|mount| (mount.destination.clone(), mount)).collect();
    let row = ContainerRow {
        id,
        name,
        image,
        labels,
        state,
        created,
        seen: SeenRange::at(at),
        state_seen: Some(at),
        ..ContainerRow::default()
    };
    Ok((row, mounts.into_values().collect()))
}

fn mount(entry: MountPoint, container_id: &str) -> MountRow {
    let non_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
    let kind = non_empty(entry.kind).unwrap_or_else(|| "bind".to_owned());
    MountRow {
        container_id: container_id.to_owned(),
        destination: entry.destination.unwrap_or_default(),
        volume: non_empty(entry.name).filter(|_| kind == "volume"),
        kind,
        source: Some(entry.source.unwrap_or_default()),
        driver: non_empty(entry.driver),
        mode: Some(entry.mode.unwrap_or_default()),
        is_writable: entry.is_writable.unwrap_or(true),
        propagation: entry.propagation.unwrap_or_default(),
    }
}

fn volume(entry: ListedVolume, at: Timestamp) -> Result<VolumeRow, Error> {
    Ok(VolumeRow {
        name: entry.name,
        driver: entry.driver.unwrap_or_default(),
        scope: entry.scope.unwrap_or_default(),
        mountpoint: entry.mountpoint.unwrap_or_default(),
        labels: entry.labels.map(|labels| labels.map).unwrap_or_default(),
        created: entry.created_at.as_deref().and_then(responses::time),
        seen: SeenRange::at(at),
    })
}

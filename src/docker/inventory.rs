//! Containers with their mounts, and volumes, as the inventory keeps them.
//!
//! In: the engine's lists. Out: rows of [`crate::model::inventory`]. Two calls however many there are: a listing tells all but what
//! is in [`crate::model::inventory::UnlistedFields`]. [`Docker::list`] takes less from the same answer.

use super::answers::{self, Listed, MountPoint, Pairs};
use super::http::body::Weigh;
use super::{Docker, Error};
use crate::model::container;
use crate::model::inventory::{ContainerRow, MountRow, SeenRange, VolumeRow};
use crate::model::selector::Filters;
use crate::model::time::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

impl Docker {
    /// All containers, or those of these IDs, each with its mounts; `at` is when that is told, by the engine's clock.
    pub async fn containers_and_mounts(
        &self,
        ids: Option<&[String]>,
        at: Timestamp,
    ) -> Result<Vec<(ContainerRow, Vec<MountRow>)>, Error> {
        let filters: Filters = ids.map(|ids| ("id".to_owned(), ids.to_vec())).into_iter().collect();
        let found = self.listed(true, &filters, |said| container(said, at)).await?;
        let rows: BTreeMap<String, _> = found.into_iter().map(|row| (row.0.id.clone(), row)).collect();
        Ok(rows.into_values().collect())
    }

    /// All volumes with what is to be known of them; `at` as above.
    pub async fn volumes_in_full(&self, at: Timestamp) -> Result<Vec<VolumeRow>, Error> {
        let found = self.listed_volumes(|said| volume(said, at)).await?;
        let rows: BTreeMap<String, VolumeRow> = found.into_iter().map(|row| (row.name.clone(), row)).collect();
        Ok(rows.into_values().collect())
    }
}

/// An entry of `GET /volumes`
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

fn container(mut said: Listed, at: Timestamp) -> Result<(ContainerRow, Vec<MountRow>), Error> {
    let created = said.created.and_then(|seconds| seconds.checked_mul(1_000_000_000)).map(Timestamp);
    let mounts = said.mounts.take().unwrap_or_default().0;
    let container::Container { id, name, image, labels, state, .. } = answers::listed(said)?;
    let mounts: BTreeMap<String, MountRow> =
        mounts.into_iter().map(|said| mount(said, &id)).map(|mount| (mount.destination.clone(), mount)).collect();
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

fn mount(said: MountPoint, container_id: &str) -> MountRow {
    let told = |text: Option<String>| text.filter(|text| !text.is_empty());
    let kind = told(said.kind).unwrap_or_else(|| "bind".to_owned());
    MountRow {
        container_id: container_id.to_owned(),
        destination: said.destination.unwrap_or_default(),
        volume: told(said.name).filter(|_| kind == "volume"),
        kind,
        source: Some(said.source.unwrap_or_default()),
        driver: told(said.driver),
        mode: Some(said.mode.unwrap_or_default()),
        is_writable: said.is_writable.unwrap_or(true),
        propagation: said.propagation.unwrap_or_default(),
    }
}

fn volume(said: ListedVolume, at: Timestamp) -> Result<VolumeRow, Error> {
    Ok(VolumeRow {
        name: said.name,
        driver: said.driver.unwrap_or_default(),
        scope: said.scope.unwrap_or_default(),
        mountpoint: said.mountpoint.unwrap_or_default(),
        labels: said.labels.map(|labels| labels.map).unwrap_or_default(),
        created: said.created_at.as_deref().and_then(answers::time),
        seen: SeenRange::at(at),
    })
}

//! What an engine has, as the inventory keeps it: containers, volumes, and who mounts what where.
//!
//! Rows, what events tell of them ([`Update`]), and how one of them changes by what is told: pure rules without SQL, socket or
//! clock, so that any order and any repetition end in the same. Every row knows when it was last told of, by the engine's
//! clock, and what is older changes nothing. Used by the rooms that observe, plan, keep and report.

use super::container;
use super::cursor::Route;
use super::time::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The engine tells of a death before its listings do (moby `daemon/monitor.go`: the event, then clearing up, then the
/// snapshot that listings are made from). Within this time of a death a listing does not prove that a container runs.
/// Nanoseconds.
pub const LISTINGS_LAG: i64 = 5_000_000_000;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// As it was named when the container was created. Listings show an ID instead once that name means another image.
    pub image: String,
    /// All of them.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`; empty while nobody told.
    pub state: String,
    /// In whole seconds, as listings tell it.
    pub created: Option<Timestamp>,
    /// What no listing tells.
    pub beyond: UnlistedFields,
    /// Since when, and how lately, it was told of.
    pub seen: SeenRange,
    /// How lately its state was told, by an event or a listing that is believed.
    pub state_seen: Option<Timestamp>,
}

/// What no listing tells of a container. It is kept where it is known and makes no difference where it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnlistedFields {
    /// `json-file`, `local`, ...
    pub log_driver: Option<String>,
    /// How `watch` would read it.
    pub log_route: Option<Route>,
    /// Of the newest run.
    pub started: Option<Timestamp>,
    /// Of the newest run that ended.
    pub finished: Option<Timestamp>,
    /// Of the newest run that ended.
    pub exit_code: Option<i64>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRow {
    /// Its name.
    pub name: String,
    /// `local`, or that of a plugin.
    pub driver: String,
    /// `local` or `global`; empty while only events told of it, as `mountpoint` and `labels` are.
    pub scope: String,
    /// Where it lies on the engine's machine.
    pub mountpoint: String,
    /// All of them.
    pub labels: BTreeMap<String, String>,
    /// As it was first told: engines before 23 take the time its folder last changed for it.
    pub created: Option<Timestamp>,
    /// Since when, and how lately, it was told of.
    pub seen: SeenRange,
}

/// A container's use of a volume or a folder. It is fixed when the container is created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountRow {
    /// Whose.
    pub container_id: String,
    /// Where in the container.
    pub destination: String,
    /// `volume`, `bind`, `tmpfs`, ...
    pub kind: String,
    /// The volume's name, where it is one.
    pub volume: Option<String>,
    /// Where on the engine's machine; `None` while only an event told of it, as `mode` is.
    pub source: Option<String>,
    /// The volume's driver, where it is one.
    pub driver: Option<String>,
    /// As it was given: `z`, `ro`, ...
    pub mode: Option<String>,
    /// The container may write there.
    pub is_writable: bool,
    /// `rprivate`, ...; mostly empty for volumes.
    pub propagation: String,
}

/// How far a resume NAME has read a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionRow {
    /// The resume NAME.
    pub resume: String,
    /// Whose log.
    pub container_id: String,
    /// As it was called then.
    pub container_name: String,
    /// It had stopped, and its log was read to the end.
    pub has_ended: bool,
    /// A run holds the NAME and sees to it.
    pub is_held: bool,
}

/// When something was told of, by the engine's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenRange {
    /// First.
    pub first: Timestamp,
    /// Last, by an event or a listing.
    pub last: Timestamp,
}

impl SeenRange {
    /// Once, so far.
    pub fn at(time: Timestamp) -> Self {
        SeenRange { first: time, last: time }
    }

    /// Whether it was told of after a listing of that moment. By much more than a listing takes it is a clock that was set
    /// back, and the listing is to be believed.
    pub fn is_newer(self, listing: Timestamp) -> bool {
        is_newer(self.last, listing)
    }

    /// Once more.
    pub fn and(self, time: Timestamp) -> Self {
        SeenRange { first: self.first.min(time), last: self.last.max(time) }
    }
}

/// See [`SeenRange::is_newer`].
pub fn is_newer(told: Timestamp, listing: Timestamp) -> bool {
    const LONGEST: i64 = 60_000_000_000;
    (1..=LONGEST).contains(&told.0.saturating_sub(listing.0))
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// There was this container at [`SeenRange::last`], and it was so.
    Container(Box<ContainerRow>),
    /// It was removed, with its mounts.
    ContainerGone(String, Timestamp),
    /// There was this volume at [`SeenRange::last`].
    Volume(VolumeRow),
    /// It was removed.
    VolumeGone(String, Timestamp),
    /// There was this mount then.
    Mount(MountRow, Timestamp),
}

/// Memory that texts take beside the value that has them, about.
fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| text.len() + 16).sum()
}

fn pairs(pairs: &BTreeMap<String, String>) -> usize {
    pairs.iter().map(|(name, value)| container::weight(name, value)).sum()
}

impl ContainerRow {
    /// Memory that it takes, about, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<ContainerRow>() + texts([&self.id, &self.name, &self.image, &self.state]) + pairs(&self.labels)
    }
}

impl VolumeRow {
    /// Memory that it takes, about, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<VolumeRow>() + texts([&self.name, &self.driver, &self.scope, &self.mountpoint]) + pairs(&self.labels)
    }
}

impl MountRow {
    /// Memory that it takes, about, in bytes.
    pub fn weight(&self) -> usize {
        let optional = [&self.volume, &self.source, &self.driver, &self.mode].into_iter().flatten();
        let plain = [&self.container_id, &self.destination, &self.kind, &self.propagation];
        size_of::<MountRow>() + texts(plain.into_iter().chain(optional))
    }
}

impl Update {
    /// Memory that it takes, about, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Update>()
            + match self {
                Update::Container(container) => container.weight(),
                Update::Volume(volume) => volume.weight(),
                Update::Mount(mount, _) => mount.weight(),
                Update::ContainerGone(id, _) | Update::VolumeGone(id, _) => id.len(),
            }
    }
}

/// What is counted and reported apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A [`ContainerRow`].
    Container,
    /// A [`VolumeRow`].
    Volume,
    /// A [`MountRow`].
    Mount,
    /// A [`PositionRow`].
    Position,
}

impl Resource {
    /// All of them, in the order of reports.
    pub const ALL: [Resource; 4] = [Resource::Container, Resource::Volume, Resource::Mount, Resource::Position];

    /// `container`, `volume`, ...
    pub fn name(self) -> &'static str {
        match self {
            Resource::Container => "container",
            Resource::Volume => "volume",
            Resource::Mount => "mount",
            Resource::Position => "position",
        }
    }
}

/// How many rows changed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangeCounts {
    /// Were not there.
    pub created: u64,
    /// Were there and were otherwise.
    pub updated: u64,
    /// Are not there any more.
    pub removed: u64,
    /// Are as they were.
    pub unchanged: u64,
}

impl ChangeCounts {
    /// Whether no row changed.
    pub fn is_none(&self) -> bool {
        self.created + self.updated + self.removed == 0
    }
}

/// [`ChangeCounts`] of each [`Resource`], in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeSummary(pub [ChangeCounts; 4]);

impl ChangeSummary {
    /// Of one resource.
    pub fn of(&mut self, resource: Resource) -> &mut ChangeCounts {
        &mut self.0[resource as usize]
    }

    /// Whether no row changed.
    pub fn is_none(&self) -> bool {
        self.0.iter().all(ChangeCounts::is_none)
    }
}

/// What differs between two rows, or between a row and none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// As the column is called.
    pub name: &'static str,
    /// As it was.
    pub before: String,
    /// As it is.
    pub after: String,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.before, self.after)
    }
}

/// A row that plans and reports are made of.
pub trait Row {
    /// What kind of row.
    const RESOURCE: Resource;

    /// Of the container, or the volume's name.
    fn id(&self) -> &str;

    /// What a person knows it by.
    fn name(&self) -> String;

    /// What a listing proves to be otherwise in the other.
    fn differences(&self, after: &Self) -> Vec<Field>;
}

impl Row for ContainerRow {
    const RESOURCE: Resource = Resource::Container;

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn differences(&self, after: &Self) -> Vec<Field> {
        let fields = [
            ("name", self.name.clone(), after.name.clone()),
            ("image", self.image.clone(), after.image.clone()),
            ("labels", object(&self.labels), object(&after.labels)),
            ("state", self.state.clone(), after.state.clone()),
            ("created_at", written(self.created), written(after.created)),
        ];
        differing(fields)
    }
}

impl Row for VolumeRow {
    const RESOURCE: Resource = Resource::Volume;

    fn id(&self) -> &str {
        &self.name
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn differences(&self, after: &Self) -> Vec<Field> {
        let fields = [
            ("driver", self.driver.clone(), after.driver.clone()),
            ("scope", self.scope.clone(), after.scope.clone()),
            ("mountpoint", self.mountpoint.clone(), after.mountpoint.clone()),
            ("labels", object(&self.labels), object(&after.labels)),
        ];
        differing(fields)
    }
}

impl Row for MountRow {
    const RESOURCE: Resource = Resource::Mount;

    fn id(&self) -> &str {
        &self.container_id
    }

    fn name(&self) -> String {
        self.destination.clone()
    }

    fn differences(&self, after: &Self) -> Vec<Field> {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let access = |mount: &MountRow| if mount.is_writable { "0" } else { "1" }.to_owned();
        let fields = [
            ("type", self.kind.clone(), after.kind.clone()),
            ("volume", optional(&self.volume), optional(&after.volume)),
            ("source", optional(&self.source), optional(&after.source)),
            ("driver", optional(&self.driver), optional(&after.driver)),
            ("mode", optional(&self.mode), optional(&after.mode)),
            ("read_only", access(self), access(after)),
            ("propagation", self.propagation.clone(), after.propagation.clone()),
        ];
        differing(fields)
    }
}

impl Row for PositionRow {
    const RESOURCE: Resource = Resource::Position;

    fn id(&self) -> &str {
        &self.container_id
    }

    fn name(&self) -> String {
        format!("{} ({})", self.container_name, self.resume)
    }

    fn differences(&self, _: &Self) -> Vec<Field> {
        Vec::new()
    }
}

fn differing<const N: usize>(fields: [(&'static str, String, String); N]) -> Vec<Field> {
    let differing = fields.into_iter().filter(|(_, before, after)| before != after);
    differing.map(|(name, before, after)| Field { name, before, after }).collect()
}

/// Labels as the inventory keeps them: one JSON object.
pub fn object(labels: &BTreeMap<String, String>) -> String {
    // A map of strings is always an object.
    serde_json::to_string(labels).unwrap_or_default()
}

fn written(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

impl ContainerRow {
    /// What is known of a container once an event has told this of it. `None` where nothing is news.
    pub fn heard(known: Option<&ContainerRow>, told: &ContainerRow) -> Option<ContainerRow> {
        let Some(known) = known else { return Some(told.clone()) };
        let mut row = known.clone();
        if told.seen.last >= known.seen.last && !told.name.is_empty() {
            row.name.clone_from(&told.name);
        }
        if known.image.is_empty() {
            row.image.clone_from(&told.image);
        }
        if told.state_seen > known.state_seen {
            row.state.clone_from(&told.state);
            row.state_seen = told.state_seen;
            row.beyond.started = told.beyond.started.or(known.beyond.started);
            if told.beyond.finished.is_some() {
                (row.beyond.finished, row.beyond.exit_code) = (told.beyond.finished, told.beyond.exit_code);
            }
        }
        row.seen = known.seen.and(told.seen.first).and(told.seen.last);
        (row != *known).then_some(row)
    }

    /// What is known of a container once a listing of the moment [`SeenRange::last`] has shown this, and whether that leaves a
    /// doubt: the listing may be behind a death.
    pub fn listed(known: Option<&ContainerRow>, listed: &ContainerRow) -> (ContainerRow, bool) {
        let Some(known) = known else { return (listed.clone(), false) };
        let mut row = known.clone();
        row.beyond = known.beyond.clone().and(&listed.beyond);
        // These never change, so that it does not matter which is newer.
        row.labels.clone_from(&listed.labels);
        row.created = listed.created.or(known.created);
        if known.image.is_empty() {
            row.image.clone_from(&listed.image);
        }
        let at = listed.seen.last;
        if known.seen.is_newer(at) {
            return (row, false);
        }
        row.name.clone_from(&listed.name);
        row.seen.last = at;
        let is_behind = known.has_just_died(listed, at);
        if !is_behind {
            row.state.clone_from(&listed.state);
            row.state_seen = Some(at);
        }
        (row, is_behind)
    }

    fn has_just_died(&self, listed: &ContainerRow, at: Timestamp) -> bool {
        let shows_life = matches!(listed.state.as_str(), "running" | "paused");
        let died = self.beyond.finished.filter(|_| matches!(self.state.as_str(), "exited" | "dead"));
        let has_begun_anew = listed.beyond.started.is_some_and(|started| Some(started) > died);
        let is_new = died.is_some_and(|died| at.0.saturating_sub(died.0) < LISTINGS_LAG);
        shows_life && is_new && !has_begun_anew
    }
}

impl UnlistedFields {
    /// What is known once this is told: what it does not tell stays.
    fn and(self, told: &UnlistedFields) -> UnlistedFields {
        UnlistedFields {
            log_driver: told.log_driver.clone().or(self.log_driver),
            log_route: told.log_route.or(self.log_route),
            started: told.started.or(self.started),
            finished: told.finished.or(self.finished),
            exit_code: told.exit_code.or(self.exit_code),
        }
    }
}

impl MountRow {
    /// What is known of a mount once a listing has shown this: of a container that was never started it need not tell
    /// where a volume lies.
    pub fn listed(known: Option<&MountRow>, listed: &MountRow) -> MountRow {
        let told = listed.source.clone().filter(|source| !source.is_empty());
        MountRow { source: told.or(known.and_then(|known| known.source.clone())), ..listed.clone() }
    }
}

impl VolumeRow {
    /// What is known of a volume once an event has told of it. `None` where nothing is news.
    pub fn heard(known: Option<&VolumeRow>, told: &VolumeRow) -> Option<VolumeRow> {
        let Some(known) = known else { return Some(told.clone()) };
        let mut row = known.clone();
        if known.driver.is_empty() {
            row.driver.clone_from(&told.driver);
        }
        row.seen = known.seen.and(told.seen.first).and(told.seen.last);
        (row != *known).then_some(row)
    }

    /// What is known of a volume once a listing of the moment [`SeenRange::last`] has shown this.
    pub fn listed(known: Option<&VolumeRow>, listed: &VolumeRow) -> VolumeRow {
        let Some(known) = known else { return listed.clone() };
        let row = VolumeRow { created: known.created.or(listed.created), seen: known.seen, ..listed.clone() };
        if known.seen.is_newer(listed.seen.last) {
            // What events do not tell is better known late than never.
            return row;
        }
        VolumeRow { seen: SeenRange { last: listed.seen.last, ..known.seen }, ..row }
    }
}

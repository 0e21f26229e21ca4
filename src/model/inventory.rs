//! The rows of the inventory: an engine's containers and volumes, and which container mounts what where.
//!
//! Defines the rows, the updates that events report ([`Update`]), and how an update or a listing changes a row. The
//! rules are pure functions without SQL, sockets or clocks: updates in any order and any repetition lead to the same
//! rows. Every row records when it was last confirmed, by the daemon's clock, and older updates do not change it.

use super::container;
use super::line_id::Route;
use super::time::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The daemon publishes a death before its listings show it (moby `daemon/monitor.go`: the event, then cleaning up,
/// then the snapshot that listings are made from). Within this time of a death, a listing does not prove that
/// a container still runs.
pub(crate) const LISTINGS_LAG: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRow {
    /// The full ID of 64 hexadecimal digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// The image reference with which the container was created. Listings show an image ID instead once the reference
    /// points to another image.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`; empty while unknown.
    pub state: String,
    /// In whole seconds, as listings report it.
    pub created: Option<Timestamp>,
    pub unlisted: UnlistedFields,
    /// When the container was first and last seen.
    pub seen: SeenRange,
    /// When `state` was last confirmed, by an event or by a listing that is trusted.
    pub state_seen: Option<Timestamp>,
}

/// What listings do not report about a container. Unknown values never count as a difference and
/// never replace known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnlistedFields {
    /// Docker's name of the logging driver, such as `json-file`.
    pub log_driver: Option<String>,
    /// How `watch` would read the log.
    pub log_route: Option<Route>,
    /// When the latest run started.
    pub started: Option<Timestamp>,
    /// When the latest finished run ended.
    pub finished: Option<Timestamp>,
    /// The exit code of the latest finished run.
    pub exit_code: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRow {
    pub name: String,
    /// `local`, or the name of a plugin.
    pub driver: String,
    /// `local` or `global`. Empty, like `mountpoint` and `labels`, while only events have mentioned the volume.
    pub scope: String,
    /// The folder on the engine's machine.
    pub mountpoint: String,
    pub labels: BTreeMap<String, String>,
    /// The first value that was reported: engines before 23 report the time of the last change of the volume's folder.
    pub created: Option<Timestamp>,
    /// When the volume was first and last seen.
    pub seen: SeenRange,
}

/// A container's use of a volume or a folder. Fixed when the container is created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountRow {
    pub container_id: String,
    /// The path in the container.
    pub destination: String,
    /// `volume`, `bind`, `tmpfs`, ...
    pub kind: String,
    /// The name of the volume, if it is one.
    pub volume: Option<String>,
    /// The path on the engine's machine. `None`, like `mode`, while only an event has mentioned the mount.
    pub source: Option<String>,
    /// The driver of the volume, if it is one.
    pub driver: Option<String>,
    /// The options as given by the user: `z`, `ro`, ...
    pub mode: Option<String>,
    /// Whether the container may write to it.
    pub is_writable: bool,
    /// `rprivate`, ...; mostly empty for volumes.
    pub propagation: String,
}

/// A stored position of one resume name for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PositionRow {
    /// The name given to `--resume`.
    pub resume: String,
    pub container_id: String,
    /// The container's name when the position was stored.
    pub container_name: String,
    /// Whether the container had stopped and its log was read to the end.
    pub has_ended: bool,
    /// Whether a run holds the resume name now and maintains its positions.
    pub is_held: bool,
}

/// When something was first and last seen in an event or a listing, by the daemon's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenRange {
    pub first: Timestamp,
    pub last: Timestamp,
}

impl SeenRange {
    /// Seen once, at this time.
    pub fn at(time: Timestamp) -> Self {
        SeenRange { first: time, last: time }
    }

    /// Whether it was seen after a listing of this time; see [`is_newer`].
    pub fn is_newer(self, listing: Timestamp) -> bool {
        is_newer(self.last, listing)
    }

    /// Extends the range to include `time`.
    pub fn and(self, time: Timestamp) -> Self {
        SeenRange { first: self.first.min(time), last: self.last.max(time) }
    }
}

/// Whether something seen at `seen` is newer than a listing of the time `listing`. If it is more than a minute newer,
/// which is longer than any listing takes, the daemon's clock was set back, and the listing wins.
pub(crate) fn is_newer(seen: Timestamp, listing: Timestamp) -> bool {
    const LONGEST_LISTING: Duration = Duration::from_secs(60);
    seen > listing && seen.saturating_duration_since(listing) <= LONGEST_LISTING
}

/// A change of a row that an event reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// The container existed like this at [`SeenRange::last`].
    Container(Box<ContainerRow>),
    /// The container with this ID was removed, with its mounts, at this time.
    ContainerGone(String, Timestamp),
    /// The volume existed at [`SeenRange::last`].
    Volume(VolumeRow),
    /// The volume with this name was removed at this time.
    VolumeGone(String, Timestamp),
    /// The mount existed at this time.
    Mount(MountRow, Timestamp),
}

/// The approximate memory of strings, beyond the struct that holds them.
fn strings<'a>(strings: impl IntoIterator<Item = &'a String>) -> usize {
    strings.into_iter().map(|string| string.len() + 16).sum()
}

fn pairs(pairs: &BTreeMap<String, String>) -> usize {
    pairs.iter().map(|(name, value)| container::weight(name, value)).sum()
}

impl ContainerRow {
    /// The approximate memory that the row takes, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<ContainerRow>() + strings([&self.id, &self.name, &self.image, &self.state]) + pairs(&self.labels)
    }
}

impl VolumeRow {
    /// The approximate memory that the row takes, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<VolumeRow>()
            + strings([&self.name, &self.driver, &self.scope, &self.mountpoint])
            + pairs(&self.labels)
    }
}

impl MountRow {
    /// The approximate memory that the row takes, in bytes.
    pub fn weight(&self) -> usize {
        let optional = [&self.volume, &self.source, &self.driver, &self.mode].into_iter().flatten();
        let plain = [&self.container_id, &self.destination, &self.kind, &self.propagation];
        size_of::<MountRow>() + strings(plain.into_iter().chain(optional))
    }
}

impl Update {
    /// The approximate memory that the update takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Update>()
            + match self {
                Update::Container(container) => container.weight(),
                Update::Volume(volume) => volume.weight(),
                Update::Mount(mount, _) => mount.weight(),
                Update::ContainerGone(id, _) | Update::VolumeGone(id, _) => id.len(),
            }
    }
}

/// A kind of row, counted and reported separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Resource {
    Container,
    Volume,
    Mount,
    Position,
}

impl Resource {
    /// All resources, in the order of reports.
    pub(crate) const ALL: [Resource; 4] = [Resource::Container, Resource::Volume, Resource::Mount, Resource::Position];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Resource::Container => "container",
            Resource::Volume => "volume",
            Resource::Mount => "mount",
            Resource::Position => "position",
        }
    }
}

/// How many rows a comparison or an update created, changed, removed, and left as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ChangeCounts {
    pub created: u64,
    pub updated: u64,
    pub removed: u64,
    pub unchanged: u64,
}

impl ChangeCounts {
    /// Whether no row changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.created + self.updated + self.removed == 0
    }
}

/// The counts of each [`Resource`], in the order of [`Resource::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangeSummary(pub [ChangeCounts; 4]);

impl ChangeSummary {
    /// The counts of one resource.
    pub(crate) fn of(&mut self, resource: Resource) -> &mut ChangeCounts {
        &mut self.0[resource as usize]
    }

    /// Whether no row changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(ChangeCounts::is_empty)
    }
}

/// A field that differs between two versions of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Field {
    /// The name of the column in the state.
    pub name: &'static str,
    pub before: String,
    pub after: String,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.before, self.after)
    }
}

/// What plans and reports need to know of a row.
pub(crate) trait Row {
    const RESOURCE: Resource;

    /// The ID of the container, or the name of the volume.
    fn id(&self) -> &str;

    /// What the row is called in reports.
    fn name(&self) -> String;

    /// The fields that a listing proves to be different in `after`.
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

/// Labels as the state stores them: one JSON object.
pub(crate) fn object(labels: &BTreeMap<String, String>) -> String {
    // A map of strings always serializes to an object.
    serde_json::to_string(labels).unwrap_or_default()
}

fn written(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

impl ContainerRow {
    /// The row after an event reported `update`. `None` if nothing changes.
    pub fn after_event(known: Option<&ContainerRow>, update: &ContainerRow) -> Option<ContainerRow> {
        let Some(known) = known else { return Some(update.clone()) };
        let mut row = known.clone();
        if update.seen.last >= known.seen.last && !update.name.is_empty() {
            row.name.clone_from(&update.name);
        }
        if known.image.is_empty() {
            row.image.clone_from(&update.image);
        }
        if update.state_seen > known.state_seen {
            row.state.clone_from(&update.state);
            row.state_seen = update.state_seen;
            row.unlisted.started = update.unlisted.started.or(known.unlisted.started);
            if update.unlisted.finished.is_some() {
                (row.unlisted.finished, row.unlisted.exit_code) = (update.unlisted.finished, update.unlisted.exit_code);
            }
        }
        row.seen = known.seen.and(update.seen.first).and(update.seen.last);
        (row != *known).then_some(row)
    }

    /// The row after a listing of the time `listed.seen.last` showed `listed`, and whether the listed state is in doubt
    /// because the listing may not show a recent death yet.
    pub fn after_listing(known: Option<&ContainerRow>, listed: &ContainerRow) -> (ContainerRow, bool) {
        let Some(known) = known else { return (listed.clone(), false) };
        let mut row = known.clone();
        row.unlisted = known.unlisted.clone().and(&listed.unlisted);
        // These never change, so it does not matter which source is newer.
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
        let is_uncertain = known.has_just_died(listed, at);
        if !is_uncertain {
            row.state.clone_from(&listed.state);
            row.state_seen = Some(at);
        }
        (row, is_uncertain)
    }

    fn has_just_died(&self, listed: &ContainerRow, at: Timestamp) -> bool {
        let is_listed_alive = matches!(listed.state.as_str(), "running" | "paused");
        let died = self.unlisted.finished.filter(|_| matches!(self.state.as_str(), "exited" | "dead"));
        let was_restarted = listed.unlisted.started.is_some_and(|started| Some(started) > died);
        let is_recent = died.is_some_and(|died| at.saturating_duration_since(died) < LISTINGS_LAG);
        is_listed_alive && is_recent && !was_restarted
    }
}

impl UnlistedFields {
    /// Takes over the known values of `newer`.
    fn and(self, newer: &UnlistedFields) -> UnlistedFields {
        UnlistedFields {
            log_driver: newer.log_driver.clone().or(self.log_driver),
            log_route: newer.log_route.or(self.log_route),
            started: newer.started.or(self.started),
            finished: newer.finished.or(self.finished),
            exit_code: newer.exit_code.or(self.exit_code),
        }
    }
}

impl MountRow {
    /// The row after a listing showed `listed`. For a container that was never started, the daemon may not report the
    /// source of a volume; a known source is kept then.
    pub fn after_listing(known: Option<&MountRow>, listed: &MountRow) -> MountRow {
        let source = listed.source.clone().filter(|source| !source.is_empty());
        MountRow { source: source.or(known.and_then(|known| known.source.clone())), ..listed.clone() }
    }
}

impl VolumeRow {
    /// The row after an event reported `update`. `None` if nothing changes.
    pub fn after_event(known: Option<&VolumeRow>, update: &VolumeRow) -> Option<VolumeRow> {
        let Some(known) = known else { return Some(update.clone()) };
        let mut row = known.clone();
        if known.driver.is_empty() {
            row.driver.clone_from(&update.driver);
        }
        row.seen = known.seen.and(update.seen.first).and(update.seen.last);
        (row != *known).then_some(row)
    }

    /// The row after a listing of the time `listed.seen.last` showed `listed`.
    pub fn after_listing(known: Option<&VolumeRow>, listed: &VolumeRow) -> VolumeRow {
        let Some(known) = known else { return listed.clone() };
        let row = VolumeRow { created: known.created.or(listed.created), seen: known.seen, ..listed.clone() };
        if known.seen.is_newer(listed.seen.last) {
            // Events do not report the other fields, so that even an older listing improves on them.
            return row;
        }
        VolumeRow { seen: SeenRange { last: listed.seen.last, ..known.seen }, ..row }
    }
}

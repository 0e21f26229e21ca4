//! Decodes what the daemon reports about itself and about containers.
//!
//! In: the daemon's JSON, in which every field may be missing or `null`. Out: [`Engine`], [`Details`] and
//! [`Container`]. Called by [`super::Docker`].
//!
//! Only fields that are used are decoded, and large ones only as far as they are kept, so that a response takes no more
//! memory than its own text. A listing has no log path, driver, terminal or exit code; those need an inspection (moby
//! `api/types`).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::container::{self, Container};
use crate::model::time::Timestamp;

use super::http::bounded_body::Weigh;
use super::{ApiOperation, Error, Version};

/// Response to `GET /info`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    #[serde(rename = "ID")]
    id: Option<String>,
    /// Host name of the daemon's machine.
    name: Option<String>,
    server_version: Option<String>,
    #[serde(rename = "OSType")]
    os_type: Option<String>,
    operating_system: Option<String>,
    docker_root_dir: Option<String>,
    logging_driver: Option<String>,
    live_restore_enabled: Option<bool>,
    security_options: Option<Vec<String>>,
    system_time: Option<String>,
}

/// Response to `GET /version`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Release {
    pub(super) version: String,
    pub(super) os: String,
}

/// Response to `GET /containers/ID/json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Inspection {
    id: Option<String>,
    name: Option<String>,
    image: Option<String>,
    log_path: Option<String>,
    hosts_path: Option<String>,
    state: Option<StateJson>,
    config: Option<ConfigJson>,
    host_config: Option<HostConfigJson>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StateJson {
    status: Option<String>,
    exit_code: Option<i64>,
    started_at: Option<String>,
    finished_at: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigJson {
    image: Option<String>,
    labels: Option<Pairs>,
    tty: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfigJson {
    log_config: Option<LogConfigJson>,
    auto_remove: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LogConfigJson {
    #[serde(rename = "Type")]
    driver: Option<String>,
    config: Option<Pairs>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    networks: Option<Pairs<Option<NetworkEndpoint>>>,
}

/// A container's connection to a network.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkEndpoint {
    #[serde(rename = "IPAddress")]
    address: Option<String>,
}

/// An entry of `GET /containers/json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListedContainer {
    id: Option<String>,
    names: Option<OwnName>,
    image: Option<String>,
    labels: Option<Pairs>,
    state: Option<String>,
    status: Option<String>,
    network_settings: Option<NetworkSettings>,
    /// In seconds since the epoch.
    pub(super) created: Option<i64>,
    pub(super) mounts: Option<MountList>,
}

/// An entry of `GET /networks`, or of `GET /volumes` where only the name is needed.
#[derive(Deserialize)]
pub(super) struct NamedObject {
    #[serde(rename = "Name")]
    pub(super) name: String,
}

/// A container's own name. A listing has several names if others link to the container, such as `/other/alias`.
#[derive(Default, Debug, PartialEq, Eq)]
struct OwnName(String);

/// A volume or folder in a container.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct MountPoint {
    #[serde(rename = "Type")]
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    pub(super) source: Option<String>,
    pub(super) destination: Option<String>,
    pub(super) driver: Option<String>,
    pub(super) mode: Option<String>,
    #[serde(rename = "RW")]
    pub(super) is_writable: Option<bool>,
    pub(super) propagation: Option<String>,
}

/// The mounts of one container, at most [`MAX_MOUNTS`].
#[derive(Default)]
pub(super) struct MountList(pub(super) Vec<MountPoint>);

/// No real container has more mounts. The limit is needed because a mount can be three bytes in JSON and is
/// two hundred in memory.
const MAX_MOUNTS: usize = 10_000;

/// Labels, networks or options by name. Limited with [`container::bound`] while they are decoded.
pub(super) struct Pairs<T = String> {
    pub(super) map: BTreeMap<String, String>,
    of: PhantomData<T>,
}

/// A value in [`Pairs`], of which a string is kept.
trait Text {
    fn text(self) -> String;
}

impl Text for String {
    fn text(self) -> String {
        self
    }
}

impl Text for Option<NetworkEndpoint> {
    fn text(self) -> String {
        self.and_then(|connection| connection.address).unwrap_or_default()
    }
}

impl Text for NetworkEndpoint {
    fn text(self) -> String {
        self.address.unwrap_or_default()
    }
}

impl<'de, T: Text + Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<T>(PhantomData<T>);

        impl<'de, T: Text + Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
            type Value = BTreeMap<String, String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
                let (mut map, mut weight) = (BTreeMap::new(), 0);
                while let Some((name, value)) = pairs.next_entry::<String, T>()? {
                    let value = value.text();
                    weight += container::weight(&name, &value);
                    map.insert(name, value);
                    // Removes only what the final call would remove too.
                    if weight > 4 * container::LABELS {
                        weight = container::bound(&mut map);
                    }
                }
                container::bound(&mut map);
                Ok(map)
            }
        }

        let map = deserializer.deserialize_map(PairsVisitor::<T>(PhantomData))?;
        Ok(Pairs { map, of: PhantomData })
    }
}

impl<'de> Deserialize<'de> for OwnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OwnNameVisitor;

        impl<'de> Visitor<'de> for OwnNameVisitor {
            type Value = OwnName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<OwnName, A::Error> {
                let mut own: Option<String> = None;
                while let Some(name) = names.next_element::<String>()? {
                    let name = name.strip_prefix('/').unwrap_or(&name);
                    let is_better = |known: &String| known.contains('/') && !name.contains('/');
                    if own.as_ref().is_none_or(is_better) {
                        own = Some(name.to_owned());
                    }
                }
                Ok(OwnName(own.unwrap_or_default()))
            }
        }

        deserializer.deserialize_seq(OwnNameVisitor)
    }
}

impl<'de> Deserialize<'de> for MountList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MountListVisitor;

        impl<'de> Visitor<'de> for MountListVisitor {
            type Value = MountList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_MOUNTS} mounts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut mounts: A) -> Result<MountList, A::Error> {
                let mut found = Vec::new();
                while let Some(mount) = mounts.next_element()? {
                    if found.len() == MAX_MOUNTS {
                        return Err(serde::de::Error::invalid_length(MAX_MOUNTS + 1, &self));
                    }
                    found.push(mount);
                }
                Ok(MountList(found))
            }
        }

        deserializer.deserialize_seq(MountListVisitor)
    }
}

impl Weigh for Container {
    fn weight(&self) -> usize {
        let texts = [&self.id, &self.name, &self.image, &self.state];
        let pairs = self.labels.iter().chain(&self.networks);
        size_of::<Container>()
            + texts.map(|text| text.len() + 16).iter().sum::<usize>()
            + pairs.map(|(name, value)| container::weight(name, value)).sum::<usize>()
    }
}

/// A Docker Engine's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Stays the same across restarts and upgrades. For Podman it is made of the host name and the data root.
    pub id: String,
    /// The daemon's version, for example `20.10.24`.
    pub version: String,
    /// The newest API version that it supports, such as `1.41`. The one in use is [`super::Docker::api_version`].
    pub api_version: String,
    /// The daemon's operating system, for example `linux`.
    pub os: String,
    /// For example `Debian GNU/Linux 12 (bookworm)` or `Docker Desktop`.
    pub operating_system: String,
    /// The data root on the daemon's machine, which may be a different one. Not to be trusted: it can be any path.
    pub root_dir: PathBuf,
    /// The driver of containers that are created without one.
    pub logging_driver: String,
    /// Whether containers keep running while the daemon is down.
    pub live_restore: bool,
    /// As Docker writes them: `name=userns`, `name=rootless`, ...
    pub security_options: Vec<String>,
    /// Podman behind Docker's API. Its log files have a different format, whatever driver it reports.
    pub is_podman: bool,
    /// The daemon's clock, which may differ from ours.
    pub time: Option<Timestamp>,
}

/// The result of inspecting a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The part that a listing contains as well.
    pub container: Container,
    /// Only for `json-file`, and only once the container was started. Not to be trusted: it can be any path.
    pub log_path: Option<PathBuf>,
    /// `json-file`, `local`, `none`, ...
    pub log_driver: String,
    /// Fixed when the container was created.
    pub log_options: BTreeMap<String, String>,
    /// The container has a terminal: its output is a single stream, which the API sends without frames.
    pub tty: bool,
    /// The container's hosts file. It is in the same folder as the logs of drivers that report no `log_path`.
    pub hosts_path: Option<PathBuf>,
    /// When the latest run began.
    pub started_at: Option<Timestamp>,
    /// When the latest run that has ended did so.
    pub finished_at: Option<Timestamp>,
    /// The daemon removes the container when it exits (`--rm`).
    pub auto_remove: bool,
}

impl Engine {
    pub(super) fn from_info(info: Info, newest: Version, is_podman: bool) -> Engine {
        // Podman invents a new ID for each response.
        let podman_id = || {
            format!(
                "podman {} {}",
                info.name.as_deref().unwrap_or_default(),
                info.docker_root_dir.as_deref().unwrap_or_default()
            )
        };
        Engine {
            id: if is_podman { podman_id() } else { info.id.unwrap_or_default() },
            version: info.server_version.unwrap_or_default(),
            api_version: newest.to_string(),
            os: info.os_type.unwrap_or_default(),
            operating_system: info.operating_system.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default().into(),
            logging_driver: info.logging_driver.unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            security_options: info.security_options.unwrap_or_default(),
            is_podman,
            time: info.system_time.as_deref().and_then(time),
        }
    }
}

impl Details {
    /// The daemon's data root, derived from the paths of this container's files: `ROOT/containers/ID/FILE`.
    pub fn root_dir(&self) -> Option<PathBuf> {
        let root_of = |file: &PathBuf| {
            let folder = file.parent()?;
            let containers = folder.parent()?;
            let is_usual = folder.file_name()? == &*self.container.id && containers.file_name()? == "containers";
            is_usual.then(|| containers.parent().map(PathBuf::from))?
        };
        self.hosts_path.iter().chain(&self.log_path).find_map(root_of)
    }

    pub(super) fn from_inspection(inspection: Inspection) -> Result<Details, Error> {
        let state = inspection.state.unwrap_or_default();
        let config = inspection.config.unwrap_or_default();
        let host = inspection.host_config.unwrap_or_default();
        let log = host.log_config.unwrap_or_default();
        let status = state.status.unwrap_or_default();
        let container = Container {
            id: inspection.id.ok_or_else(|| missing(ApiOperation::ContainerInspect, "Id"))?,
            name: inspection.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            image: config.image.or(inspection.image).unwrap_or_default(),
            labels: config.labels.map(|labels| labels.map).unwrap_or_default(),
            exit_code: state.exit_code.filter(|code| has_exited(&status, *code)),
            state: status,
            networks: networks(inspection.network_settings),
            hidden: &[],
        };
        Ok(Details {
            log_path: path(inspection.log_path),
            log_driver: log.driver.unwrap_or_default(),
            log_options: log.config.map(|options| options.map).unwrap_or_default(),
            tty: config.tty.unwrap_or(false),
            hosts_path: path(inspection.hosts_path),
            started_at: state.started_at.as_deref().and_then(time),
            finished_at: state.finished_at.as_deref().and_then(time),
            auto_remove: host.auto_remove.unwrap_or(false),
            container,
        })
    }
}

/// Translates Podman's states to Docker's. A `stopping` or `stopped` container has not exited yet: its last lines may
/// still come, and its `die` event comes after them.
fn docker_state(state: &str) -> &str {
    match state {
        "stopping" | "stopped" => "running",
        "configured" | "initialized" => "created",
        _ => state,
    }
}

/// Converts an entry of a listing.
pub(super) fn listed(entry: ListedContainer) -> Result<Container, Error> {
    Ok(Container {
        id: entry.id.ok_or_else(|| missing(ApiOperation::ContainerList, "Id"))?,
        name: entry.names.unwrap_or_default().0,
        image: entry.image.unwrap_or_default(),
        labels: entry.labels.map(|labels| labels.map).unwrap_or_default(),
        state: entry.state.as_deref().map(docker_state).unwrap_or_default().to_owned(),
        exit_code: entry.status.as_deref().and_then(exit_code),
        networks: networks(entry.network_settings),
        hidden: &[],
    })
}

/// Parses the exit code from a status such as `Exited (137) 2 seconds ago`. A listing contains it nowhere else.
fn exit_code(status: &str) -> Option<i64> {
    status.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

/// The container's networks with its addresses. Addresses at the top level of `NetworkSettings` no longer exist in API
/// 1.52.
fn networks(settings: Option<NetworkSettings>) -> BTreeMap<String, String> {
    settings.and_then(|settings| settings.networks).map(|networks| networks.map).unwrap_or_default()
}

fn path(text: Option<String>) -> Option<PathBuf> {
    text.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Parses a time. `0001-01-01T00:00:00Z` means never; it is outside the range of [`Timestamp`], so it becomes `None`.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text.as_bytes())
}

/// Whether the exit code is meaningful. The daemon reports 0 for a container that never ran, and 127 or similar for one
/// that could not be started.
fn has_exited(state: &str, code: i64) -> bool {
    match state {
        "running" | "paused" => false,
        "created" => code != 0,
        _ => true,
    }
}

fn missing(operation: ApiOperation, field: &str) -> Error {
    Error::Protocol { operation, source: format!("{field} is missing").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_taken_for_the_containers_name() {
        for (names, own) in [
            (&["/web"][..], "web"),
            (&["/shop/db", "/web"], "web"),
            (&["/web", "/shop/db"], "web"),
            (&["/shop/db"], "shop/db"),
            (&["web"], "web"),
            (&[], ""),
        ] {
            let json = serde_json::to_string(names).unwrap();
            assert_eq!(serde_json::from_str::<OwnName>(&json).unwrap().0, own, "{names:?}");
        }
    }

    #[test]
    fn times_are_parsed_and_the_zero_time_is_none() {
        for (text, nanos) in [
            ("2026-11-20T23:00:53.037882171Z", Some(1_795_215_653_037_882_171)),
            ("2026-11-21T00:00:53.037882171+01:00", Some(1_795_215_653_037_882_171)),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(time(text).map(|time| time.0), nanos, "{text}");
        }
    }

    #[test]
    fn the_data_root_follows_from_a_containers_files() {
        for (hosts, log, root) in [
            (Some("/var/lib/docker/containers/4ac9/hosts"), None, Some("/var/lib/docker")),
            (None, Some("/data/containers/4ac9/4ac9-json.log"), Some("/data")),
            (Some("/run/4ac9/hosts"), Some("/data/containers/4ac9/4ac9-json.log"), Some("/data")),
            (Some("/data/containers/other/hosts"), None, None),
            (Some("/data/elsewhere/4ac9/hosts"), None, None),
            (Some("hosts"), None, None),
            (None, None, None),
        ] {
            let container = Container { id: "4ac9".into(), ..Container::default() };
            let (hosts_path, log_path) = (hosts.map(PathBuf::from), log.map(PathBuf::from));
            let details = Details { container, hosts_path, log_path, ..Details::default() };
            assert_eq!(details.root_dir(), root.map(PathBuf::from), "{hosts:?} {log:?}");
        }
    }

    #[test]
    fn the_exit_code_is_parsed_from_a_status() {
        for (status, code) in [
            ("Exited (137) 2 seconds ago", Some(137)),
            ("Exited (0) Less than a second ago", Some(0)),
            ("Exited (-1) 3 months ago", Some(-1)),
            ("Up 2 hours (healthy)", None),
            // This code belongs to the previous run.
            ("Restarting (1) 5 seconds ago", None),
            ("Created", None),
            ("Dead", None),
            ("Exited (", None),
            ("Exited () 1 second ago", None),
            ("", None),
        ] {
            assert_eq!(exit_code(status), code, "{status}");
        }
    }

    /// Positions are stored under the engine's ID, so it must not change.
    #[test]
    fn podman_always_has_the_same_id() {
        let info = |id: &str| Info {
            id: Some(id.into()),
            name: Some("host".into()),
            docker_root_dir: Some("/var/lib/containers/storage".into()),
            ..Default::default()
        };
        let newest = Version { major: 1, minor: 41 };
        let id = |info, is_podman| Engine::from_info(info, newest, is_podman).id;
        assert_eq!(id(info("one"), true), "podman host /var/lib/containers/storage");
        assert_eq!(id(info("one"), true), id(info("other"), true));
        assert_eq!(id(info("one"), false), "one");
    }

    /// An unknown state is kept as it is and does not make the listing fail.
    #[test]
    fn podmans_states_are_translated_to_dockers() {
        let podman_states = ["running", "stopping", "stopped", "configured", "initialized", "exited", "unknown", "new"];
        let states = podman_states.map(|state| {
            let entry = format!(r#"{{"Id":"{state}","Names":["/a"],"State":"{state}"}}"#);
            listed(serde_json::from_str(&entry).unwrap()).unwrap().state
        });
        assert_eq!(states, ["running", "running", "running", "created", "created", "exited", "unknown", "new"]);
    }

    #[test]
    fn only_exited_containers_have_an_exit_code() {
        for (state, code, expected) in [
            ("running", 0, false),
            ("paused", 0, false),
            ("created", 0, false),
            ("created", 127, true),
            ("restarting", 1, true),
            ("exited", 0, true),
            ("dead", 137, true),
        ] {
            assert_eq!(has_exited(state, code), expected, "{state} {code}");
        }
    }
}

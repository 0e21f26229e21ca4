//! What the engine tells of itself and of containers, in our own types.
//!
//! In: the engine's JSON, in which every field may be missing or `null`. Out: our types. Called by [`super::Docker`]. Only
//! what we use is decoded, and of what can be large only as much as we keep, so an answer takes no more memory than its
//! own text. A listing has no log path, driver, terminal or exit code, so those take an inspection (moby `api/types`).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::container::{self, Container};
use crate::model::time::Timestamp;

use super::http::body::Weigh;
use super::{Error, Version};

/// `GET /info`
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    #[serde(rename = "ID")]
    id: Option<String>,
    /// The host name of the engine's machine.
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

/// `GET /version`
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Release {
    pub(super) version: String,
    pub(super) os: String,
}

/// `GET /containers/ID/json`
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Inspection {
    id: Option<String>,
    name: Option<String>,
    image: Option<String>,
    log_path: Option<String>,
    hosts_path: Option<String>,
    state: Option<State>,
    config: Option<Config>,
    host_config: Option<HostConfig>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    status: Option<String>,
    exit_code: Option<i64>,
    started_at: Option<String>,
    finished_at: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    image: Option<String>,
    labels: Option<Pairs>,
    tty: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    log_config: Option<LogConfig>,
    auto_remove: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LogConfig {
    #[serde(rename = "Type")]
    driver: Option<String>,
    config: Option<Pairs>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    networks: Option<Pairs<Option<Connection>>>,
}

/// How a container is connected to a network.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Connection {
    #[serde(rename = "IPAddress")]
    address: Option<String>,
}

/// An entry of `GET /containers/json`
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Listed {
    id: Option<String>,
    names: Option<Names>,
    image: Option<String>,
    labels: Option<Pairs>,
    state: Option<String>,
    status: Option<String>,
    network_settings: Option<NetworkSettings>,
    /// In seconds.
    pub(super) created: Option<i64>,
    pub(super) mounts: Option<Mounts>,
}

/// An entry of `GET /networks`, and what completion needs of one of `GET /volumes`.
#[derive(Deserialize)]
pub(super) struct Named {
    #[serde(rename = "Name")]
    pub(super) name: String,
}

/// A container's own name among those it is listed under: one that others link to is listed as `/other/alias` as well.
#[derive(Default, Debug, PartialEq, Eq)]
struct Names(String);

/// How a container uses a volume or a folder.
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

/// The mounts of one container, [`MOST_MOUNTS`] at most.
#[derive(Default)]
pub(super) struct Mounts(pub(super) Vec<MountPoint>);

/// More is no container's: in JSON a mount can be three bytes, in memory it is two hundred.
const MOST_MOUNTS: usize = 10_000;

/// Labels, networks or options by name, bounded as [`container::bound`] does while they are decoded.
pub(super) struct Pairs<T = String> {
    pub(super) map: BTreeMap<String, String>,
    of: PhantomData<T>,
}

/// What a value in [`Pairs`] is kept as.
trait Text {
    fn text(self) -> String;
}

impl Text for String {
    fn text(self) -> String {
        self
    }
}

impl Text for Option<Connection> {
    fn text(self) -> String {
        self.and_then(|connection| connection.address).unwrap_or_default()
    }
}

impl Text for Connection {
    fn text(self) -> String {
        self.address.unwrap_or_default()
    }
}

impl<'de, T: Text + Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Text + Deserialize<'de>> Visitor<'de> for Reader<T> {
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
                    // What goes now would go at the end as well.
                    if weight > 4 * container::LABELS {
                        weight = container::bound(&mut map);
                    }
                }
                container::bound(&mut map);
                Ok(map)
            }
        }

        let map = deserializer.deserialize_map(Reader::<T>(PhantomData))?;
        Ok(Pairs { map, of: PhantomData })
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Names, A::Error> {
                let mut own: Option<String> = None;
                while let Some(name) = names.next_element::<String>()? {
                    let name = name.strip_prefix('/').unwrap_or(&name);
                    let is_better = |known: &String| known.contains('/') && !name.contains('/');
                    if own.as_ref().is_none_or(is_better) {
                        own = Some(name.to_owned());
                    }
                }
                Ok(Names(own.unwrap_or_default()))
            }
        }

        deserializer.deserialize_seq(Reader)
    }
}

impl<'de> Deserialize<'de> for Mounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Mounts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST_MOUNTS} mounts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut mounts: A) -> Result<Mounts, A::Error> {
                let mut found = Vec::new();
                while let Some(mount) = mounts.next_element()? {
                    if found.len() == MOST_MOUNTS {
                        return Err(serde::de::Error::invalid_length(MOST_MOUNTS + 1, &self));
                    }
                    found.push(mount);
                }
                Ok(Mounts(found))
            }
        }

        deserializer.deserialize_seq(Reader)
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

/// What an engine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Stays the same over restarts and upgrades. Podman's is made of its machine's name and its folder.
    pub id: String,
    /// `20.10.24`
    pub version: String,
    /// The newest API version it speaks, `1.41`. The one spoken is [`super::Docker::api_version`].
    pub api_version: String,
    /// `linux`
    pub os: String,
    /// `Debian GNU/Linux 12 (bookworm)`, `Docker Desktop`
    pub operating_system: String,
    /// On the engine's machine, which need not be ours; the engine can say anything here.
    pub root_dir: PathBuf,
    /// Of containers that name none.
    pub logging_driver: String,
    /// Containers live on while it is down.
    pub live_restore: bool,
    /// `name=userns`, `name=rootless`, ...
    pub security_options: Vec<String>,
    /// Podman behind Docker's API. Its log files have another form whatever it says of them.
    pub is_podman: bool,
    /// Its clock, which is not ours where it is elsewhere.
    pub time: Option<Timestamp>,
}

/// What a listing does not tell of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// What a listing does tell.
    pub container: Container,
    /// Only for `json-file`, and only once it was started. The engine can say anything here.
    pub log_path: Option<PathBuf>,
    /// `json-file`, `local`, `none`, ...
    pub log_driver: String,
    /// As fixed when it was created.
    pub log_options: BTreeMap<String, String>,
    /// Has a terminal: its output is one stream, and the API sends it without frames.
    pub tty: bool,
    /// Beside the logs of drivers that tell no `log_path`.
    pub hosts_path: Option<PathBuf>,
    /// Of the newest run.
    pub started_at: Option<Timestamp>,
    /// Of the newest run that ended.
    pub finished_at: Option<Timestamp>,
    /// Removed by the engine when it exits (`--rm`).
    pub auto_remove: bool,
}

impl Engine {
    pub(super) fn told(said: Info, newest: Version, is_podman: bool) -> Engine {
        // Podman makes up another one with each answer.
        let own = || {
            format!(
                "podman {} {}",
                said.name.as_deref().unwrap_or_default(),
                said.docker_root_dir.as_deref().unwrap_or_default()
            )
        };
        Engine {
            id: if is_podman { own() } else { said.id.unwrap_or_default() },
            version: said.server_version.unwrap_or_default(),
            api_version: newest.to_string(),
            os: said.os_type.unwrap_or_default(),
            operating_system: said.operating_system.unwrap_or_default(),
            root_dir: said.docker_root_dir.unwrap_or_default().into(),
            logging_driver: said.logging_driver.unwrap_or_default(),
            live_restore: said.live_restore_enabled.unwrap_or(false),
            security_options: said.security_options.unwrap_or_default(),
            is_podman,
            time: said.system_time.as_deref().and_then(time),
        }
    }
}

impl Details {
    /// Where the engine keeps everything, as far as the places of this container's files tell.
    pub fn root_dir(&self) -> Option<PathBuf> {
        let of = |file: &PathBuf| {
            let folder = file.parent()?;
            let all = folder.parent()?;
            let is_usual = folder.file_name()? == &*self.container.id && all.file_name()? == "containers";
            is_usual.then(|| all.parent().map(PathBuf::from))?
        };
        self.hosts_path.iter().chain(&self.log_path).find_map(of)
    }

    pub(super) fn told(said: Inspection) -> Result<Details, Error> {
        let state = said.state.unwrap_or_default();
        let config = said.config.unwrap_or_default();
        let host = said.host_config.unwrap_or_default();
        let log = host.log_config.unwrap_or_default();
        let now = state.status.unwrap_or_default();
        let container = Container {
            id: said.id.ok_or_else(|| missing("a container", "Id"))?,
            name: said.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            image: config.image.or(said.image).unwrap_or_default(),
            labels: config.labels.map(|labels| labels.map).unwrap_or_default(),
            exit_code: state.exit_code.filter(|code| has_exited(&now, *code)),
            state: now,
            networks: networks(said.network_settings),
            hidden: &[],
        };
        Ok(Details {
            log_path: path(said.log_path),
            log_driver: log.driver.unwrap_or_default(),
            log_options: log.config.map(|options| options.map).unwrap_or_default(),
            tty: config.tty.unwrap_or(false),
            hosts_path: path(said.hosts_path),
            started_at: state.started_at.as_deref().and_then(time),
            finished_at: state.finished_at.as_deref().and_then(time),
            auto_remove: host.auto_remove.unwrap_or(false),
            container,
        })
    }
}

/// What Podman calls stopping and stopped has not died yet: its last lines may still come, and then its death is told.
fn in_dockers_words(state: &str) -> &str {
    match state {
        "stopping" | "stopped" => "running",
        "configured" | "initialized" => "created",
        _ => state,
    }
}

/// One entry of a listing.
pub(super) fn listed(said: Listed) -> Result<Container, Error> {
    Ok(Container {
        id: said.id.ok_or_else(|| missing("the container list", "Id"))?,
        name: said.names.unwrap_or_default().0,
        image: said.image.unwrap_or_default(),
        labels: said.labels.map(|labels| labels.map).unwrap_or_default(),
        state: said.state.as_deref().map(in_dockers_words).unwrap_or_default().to_owned(),
        exit_code: said.status.as_deref().and_then(exit_code),
        networks: networks(said.network_settings),
        hidden: &[],
    })
}

/// A listing tells it in no other place than `Exited (137) 2 seconds ago`.
fn exit_code(status: &str) -> Option<i64> {
    status.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

/// The addresses at the top level of `NetworkSettings` are gone with API 1.52.
fn networks(said: Option<NetworkSettings>) -> BTreeMap<String, String> {
    said.and_then(|settings| settings.networks).map(|networks| networks.map).unwrap_or_default()
}

fn path(said: Option<String>) -> Option<PathBuf> {
    said.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `0001-01-01T00:00:00Z` is never, and lies outside what [`Timestamp`] can hold.
pub(super) fn time(said: &str) -> Option<Timestamp> {
    Timestamp::parse(said.as_bytes())
}

/// The engine says 0 of a container that never ran, and 127 or the like of one that could not be started.
fn has_exited(state: &str, code: i64) -> bool {
    match state {
        "running" | "paused" => false,
        "created" => code != 0,
        _ => true,
    }
}

fn missing(what: &'static str, field: &str) -> Error {
    Error::Protocol { what, source: format!("{field} is missing").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_goes_by_its_own_name_never_by_a_link() {
        for (names, own) in [
            (&["/web"][..], "web"),
            (&["/shop/db", "/web"], "web"),
            (&["/web", "/shop/db"], "web"),
            (&["/shop/db"], "shop/db"),
            (&["web"], "web"),
            (&[], ""),
        ] {
            let json = serde_json::to_string(names).unwrap();
            assert_eq!(serde_json::from_str::<Names>(&json).unwrap().0, own, "{names:?}");
        }
    }

    #[test]
    fn times_are_read_in_every_form_and_never_is_none() {
        for (said, nanos) in [
            ("2026-11-20T23:00:53.037882171Z", Some(1_795_215_653_037_882_171)),
            ("2026-11-21T00:00:53.037882171+01:00", Some(1_795_215_653_037_882_171)),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(time(said).map(|time| time.0), nanos, "{said}");
        }
    }

    /// The data root is known without asking the engine for it, from where a container's files are.
    #[test]
    fn the_places_of_a_containers_files_tell_the_data_root() {
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
    fn what_a_listing_says_of_an_end_tells_the_exit_code() {
        for (status, code) in [
            ("Exited (137) 2 seconds ago", Some(137)),
            ("Exited (0) Less than a second ago", Some(0)),
            ("Exited (-1) 3 months ago", Some(-1)),
            ("Up 2 hours (healthy)", None),
            // Of the run before: it is up again in a moment.
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

    /// Positions are kept under the engine's identity.
    #[test]
    fn podman_has_one_identity_however_often_it_is_asked() {
        let said = |id: &str| Info {
            id: Some(id.into()),
            name: Some("host".into()),
            docker_root_dir: Some("/var/lib/containers/storage".into()),
            ..Default::default()
        };
        let newest = Version { major: 1, minor: 41 };
        let id = |said, is_podman| Engine::told(said, newest, is_podman).id;
        assert_eq!(id(said("one"), true), "podman host /var/lib/containers/storage");
        assert_eq!(id(said("one"), true), id(said("other"), true));
        assert_eq!(id(said("one"), false), "one");
    }

    /// A state that only Podman knows costs no listing.
    #[test]
    fn what_podman_calls_a_state_is_what_docker_calls_it() {
        let words = ["running", "stopping", "stopped", "configured", "initialized", "exited", "unknown", "new"];
        let states = words.map(|word| {
            let said = format!(r#"{{"Id":"{word}","Names":["/a"],"State":"{word}"}}"#);
            listed(serde_json::from_str(&said).unwrap()).unwrap().state
        });
        assert_eq!(states, ["running", "running", "running", "created", "created", "exited", "unknown", "new"]);
    }

    #[test]
    fn an_exit_code_is_told_only_of_what_exited() {
        for (state, code, told) in [
            ("running", 0, false),
            ("paused", 0, false),
            ("created", 0, false),
            ("created", 127, true),
            ("restarting", 1, true),
            ("exited", 0, true),
            ("dead", 137, true),
        ] {
            assert_eq!(has_exited(state, code), told, "{state} {code}");
        }
    }
}

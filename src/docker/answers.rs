//! What the engine tells of itself and of containers, in our own types.
//!
//! In: the client library's types, in which every field may be missing. Out: ours. Called by [`super::Docker`].
//! A listing has no log path, driver, terminal or exit code, so those take an inspection (moby `api/types`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bollard::models;

use crate::container::Container;
use crate::time::Timestamp;

use super::{Error, Version};

/// What an engine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Stays the same over restarts and upgrades.
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
    pub(super) fn told(said: models::SystemInfo, newest: Version, is_podman: bool) -> Engine {
        Engine {
            id: said.id.unwrap_or_default(),
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

    pub(super) fn told(said: models::ContainerInspectResponse) -> Result<Details, Error> {
        let state = said.state.unwrap_or_default();
        let config = said.config.unwrap_or_default();
        let host = said.host_config.unwrap_or_default();
        let log = host.log_config.unwrap_or_default();
        let now = state.status.map(|status| status.to_string()).unwrap_or_default();
        let container = Container {
            id: said.id.ok_or_else(|| missing("a container", "Id"))?,
            name: said.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            image: config.image.or(said.image).unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            exit_code: state.exit_code.filter(|code| has_exited(&now, *code)),
            state: now,
            networks: networks(said.network_settings.and_then(|settings| settings.networks)),
            hidden: &[],
        };
        Ok(Details {
            log_path: path(said.log_path),
            log_driver: log.typ.unwrap_or_default(),
            log_options: log.config.unwrap_or_default().into_iter().collect(),
            tty: config.tty.unwrap_or(false),
            hosts_path: path(said.hosts_path),
            started_at: state.started_at.as_deref().and_then(time),
            finished_at: state.finished_at.as_deref().and_then(time),
            auto_remove: host.auto_remove.unwrap_or(false),
            container,
        })
    }
}

/// One entry of a listing.
pub(super) fn listed(said: models::ContainerSummary) -> Result<Container, Error> {
    Ok(Container {
        id: said.id.ok_or_else(|| missing("the container list", "Id"))?,
        name: own_name(&said.names.unwrap_or_default()),
        image: said.image.unwrap_or_default(),
        labels: said.labels.unwrap_or_default().into_iter().collect(),
        state: said.state.map(|state| state.to_string()).unwrap_or_default(),
        exit_code: said.status.as_deref().and_then(exit_code),
        networks: networks(said.network_settings.and_then(|settings| settings.networks)),
        hidden: &[],
    })
}

/// A listing tells it in no other place than `Exited (137) 2 seconds ago`.
fn exit_code(status: &str) -> Option<i64> {
    status.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

/// A container that others link to is listed under `/other/alias` as well.
fn own_name(names: &[String]) -> String {
    let plain = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
    plain.clone().find(|name| !name.contains('/')).or(plain.clone().next()).unwrap_or_default().to_owned()
}

/// The addresses at the top level of `NetworkSettings` are gone with API 1.52.
fn networks(said: Option<HashMap<String, models::EndpointSettings>>) -> BTreeMap<String, String> {
    said.unwrap_or_default().into_iter().map(|(name, at)| (name, at.ip_address.unwrap_or_default())).collect()
}

fn path(said: Option<String>) -> Option<PathBuf> {
    said.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `0001-01-01T00:00:00Z` is never, and lies outside what [`Timestamp`] can hold. Podman writes local offsets.
pub(super) fn time(said: &str) -> Option<Timestamp> {
    let with_offset = || Some(Timestamp(i64::try_from(said.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()?));
    Timestamp::parse(said.as_bytes()).or_else(with_offset)
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
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(own_name(&names), own, "{names:?}");
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

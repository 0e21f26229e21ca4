//! What the engine tells of itself and of containers, in our own types.
//!
//! In: the client library's types, in which every field may be missing. Out: ours. Called by [`super::Docker`].
//! A listing has no log path, driver, terminal or exit code, so those take an inspection (moby `api/types`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bollard::models;
use serde_json::Value;

use crate::container::Container;
use crate::time::Timestamp;

use super::{Error, Version};

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
    pub(super) fn told(said: models::SystemInfo, newest: Version, is_podman: bool) -> Engine {
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

/// A listing by Podman, in Docker's words.
pub(super) fn listing_of_podman(json: &[u8]) -> Result<Vec<models::ContainerSummary>, Error> {
    let refused = |source: serde_json::Error| Error::Protocol { what: "the container list", source: source.into() };
    let mut listing: Vec<Value> = serde_json::from_slice(json).map_err(refused)?;
    for state in listing.iter_mut().filter_map(|container| container.get_mut("State")) {
        let word = state.as_str().map(in_dockers_words).unwrap_or_default();
        *state = word.into();
    }
    listing.into_iter().map(|container| serde_json::from_value(container).map_err(refused)).collect()
}

/// What Podman calls stopping and stopped has not died yet: its last lines may still come, and then its death is told.
fn in_dockers_words(state: &str) -> &str {
    match state {
        "stopping" | "stopped" => "running",
        "configured" | "initialized" => "created",
        "created" | "running" | "paused" | "restarting" | "exited" | "removing" | "dead" => state,
        _ => "",
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
        let said = |id: &str| models::SystemInfo {
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
        let json = words.map(|word| format!(r#"{{"Id":"{word}","Names":["/a"],"State":"{word}"}}"#)).join(",");
        let listing = listing_of_podman(format!("[{json},{{\"Id\":\"none\"}}]").as_bytes()).unwrap();
        let states: Vec<String> = listing.into_iter().map(|said| listed(said).unwrap().state).collect();
        assert_eq!(states, ["running", "running", "running", "created", "created", "exited", "", "", ""]);
        assert!(listing_of_podman(b"{}").is_err() && listing_of_podman(b"[1").is_err());
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

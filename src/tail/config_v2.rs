//! Reads dockerd's own description of a container: `config.v2.json` and `hostconfig.json`.
//!
//! In: the container's folder. Out: properties that no listing contains. Used by [`crate::commands`]. dockerd replaces
//! both files completely whenever something changes (moby `container/container.go`).

use crate::model::bounded_read;
use crate::model::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Size limit of a file in bytes. Only huge labels exceed it.
const MAX_FILE: usize = 1024 * 1024;

/// Properties of a container. `None` means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerConfig {
    /// Docker's name of the logging driver, such as `json-file`.
    pub log_driver: Option<String>,
    /// When the latest run started.
    pub started: Option<Timestamp>,
    /// When the latest run that has ended did so.
    pub finished: Option<Timestamp>,
    /// Exit code of the latest run, if it has ended.
    pub exit_code: Option<i64>,
}

/// Reads the description in a container's folder. Properties that cannot be read are `None`.
pub(crate) fn describe(folder: &Path) -> ContainerConfig {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct ConfigV2 {
        state: StateSection,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct StateSection {
        running: bool,
        exit_code: i64,
        started_at: String,
        finished_at: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct HostConfig {
        log_config: LogConfigSection,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct LogConfigSection {
        r#type: String,
    }
    let ConfigV2 { state } = read(&folder.join("config.v2.json"));
    let HostConfig { log_config } = read(&folder.join("hostconfig.json"));
    // dockerd writes the year 1 for "never", which `parse` rejects.
    let time = |text: &str| Timestamp::parse(text.as_bytes());
    let finished = time(&state.finished_at);
    ContainerConfig {
        log_driver: Some(log_config.r#type).filter(|driver| !driver.is_empty()),
        started: time(&state.started_at),
        finished,
        exit_code: finished.filter(|_| !state.running).map(|_| state.exit_code),
    }
}

fn read<T: Default + DeserializeOwned>(path: &Path) -> T {
    let text = bounded_read::read_small(path, MAX_FILE);
    text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_properties_are_read_and_others_are_none() {
        let running = r#"{"State":{"Running":true,"ExitCode":0,"StartedAt":"2026-11-20T23:00:53.5Z","FinishedAt":"2026-11-20T23:00:50Z"}}"#;
        let ended = r#"{"State":{"Running":false,"ExitCode":3,"StartedAt":"2026-11-20T23:00:53.5Z","FinishedAt":"2026-11-20T23:00:54Z"},"Driver":"x"}"#;
        let made = r#"{"State":{"Running":false,"ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}}"#;
        let host = r#"{"LogConfig":{"Type":"local","Config":{"max-size":"1m"}}}"#;
        const BASE: i64 = 1_795_215_600_000_000_000;
        for (config, host, driver, started, finished, exit_code) in [
            (Some(running), Some(host), Some("local"), Some(53_500), Some(50_000), None),
            (Some(ended), Some(host), Some("local"), Some(53_500), Some(54_000), Some(3)),
            (Some(made), Some("{"), None, None, None, None),
            (Some("["), None, None, None, None, None),
            (None, Some(r#"{"LogConfig":{"Type":""}}"#), None, None, None, None),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in [("config.v2.json", config), ("hostconfig.json", host)] {
                if let Some(text) = text {
                    std::fs::write(folder.path().join(name), text).unwrap();
                }
            }
            let time = |millis: Option<i64>| millis.map(|millis| Timestamp(BASE + millis * 1_000_000));
            let expected = ContainerConfig {
                log_driver: driver.map(str::to_owned),
                started: time(started),
                finished: time(finished),
                exit_code,
            };
            assert_eq!(describe(folder.path()), expected, "{config:?}");
        }
    }
}

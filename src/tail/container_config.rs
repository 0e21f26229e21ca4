//! What the engine has written down of a container, beside its logs.
//!
//! In: the container's folder. Out: what no listing tells. Called by [`crate::commands`]. The engine rewrites both files whole
//! whenever something changes (moby `container/container.go`, `config.v2.json` and `hostconfig.json`).

use crate::model::small_file;
use crate::model::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Longer ones are no descriptions, but for huge labels.
const LONGEST: usize = 1024 * 1024;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// `json-file`, `local`, ...
    pub log_driver: Option<String>,
    /// Of the newest run.
    pub started: Option<Timestamp>,
    /// Of the newest run that ended.
    pub finished: Option<Timestamp>,
    /// Of the newest run, if that has ended.
    pub exit_code: Option<i64>,
}

/// Reads what can be read.
pub fn describe(folder: &Path) -> ContainerConfig {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Config {
        state: State,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct State {
        running: bool,
        exit_code: i64,
        started_at: String,
        finished_at: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Host {
        log_config: LogConfig,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct LogConfig {
        r#type: String,
    }
    let Config { state } = read(&folder.join("config.v2.json"));
    let Host { log_config } = read(&folder.join("hostconfig.json"));
    // What never happened is in the year 1, which is no time here.
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
    let text = small_file::read_small(path, LONGEST);
    text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_and_what_is_not_is_unknown() {
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

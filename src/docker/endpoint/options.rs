//! The inputs that determine the endpoint: docker's global options and the environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Docker's global options that select the daemon; `None` if not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The value of `-H` or `--host`.
    pub host: Option<String>,
    /// The value of `-c` or `--context`.
    pub context: Option<String>,
    /// The value of `--tls`.
    pub tls: Option<bool>,
    /// `--tlsverify`. Turns TLS on even if it is `false`.
    pub tlsverify: Option<bool>,
    /// The value of `--tlscacert`.
    pub tlscacert: Option<PathBuf>,
    /// The value of `--tlscert`.
    pub tlscert: Option<PathBuf>,
    /// The value of `--tlskey`.
    pub tlskey: Option<PathBuf>,
    /// The value of `--config`.
    pub config_dir: Option<PathBuf>,
}

/// Environment variables, as a value, so that tests need not change the process's own.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of a variable. An empty variable counts as unset, as in docker's CLI.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.var(name).map(|value| value.to_string_lossy().into_owned())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Where docker's CLI keeps `config.json` and contexts: `--config`, `DOCKER_CONFIG`, or `~/.docker`.
pub(crate) fn config_dir(flags: &Flags, environment: &Environment) -> PathBuf {
    flags.config_dir.clone().unwrap_or_else(|| default_config_dir(environment))
}

/// As [`config_dir`], without regard to `--config`.
pub(super) fn default_config_dir(environment: &Environment) -> PathBuf {
    let home = || environment.var("HOME").map(PathBuf::from).or_else(std::env::home_dir).unwrap_or_default();
    environment.var("DOCKER_CONFIG").map_or_else(|| home().join(".docker"), PathBuf::from)
}

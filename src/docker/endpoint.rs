//! Which engine, and how to get at it: decided as docker's own CLI decides.
//!
//! In: docker's global flags, the environment, `config.json` and the context store. Out: an [`Endpoint`], nothing
//! connected yet. Called by the cli once at the start, and for shell completion. Knows nothing of HTTP.
//! The order is flag, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext`, the default socket (docker/cli
//! `cli/command/cli.go`: resolveContextName); a context lies in `contexts/meta/<sha256 of its name>/meta.json`, its TLS
//! files in `contexts/tls/<same>/docker/` (`cli/context/store`). `--tls*` and `DOCKER_TLS*` shape the default context
//! only (`cli/flags/options.go`). JSON keys are matched in any case, as Go's decoder does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Error;
use super::address::{self, Address};
use super::version::Version;

/// Docker's global flags that tell which engine; `None` where not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-H`, `--host`
    pub host: Option<String>,
    /// `-c`, `--context`
    pub context: Option<String>,
    /// `--tls`
    pub tls: Option<bool>,
    /// `--tlsverify`; given as `false` it still turns TLS on
    pub tlsverify: Option<bool>,
    /// `--tlscacert`
    pub tlscacert: Option<PathBuf>,
    /// `--tlscert`
    pub tlscert: Option<PathBuf>,
    /// `--tlskey`
    pub tlskey: Option<PathBuf>,
    /// `--config`
    pub config_dir: Option<PathBuf>,
}

/// Environment variables, as a value so that tests need not touch the process's own.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// An empty variable counts as unset, as it does for docker's CLI.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.var(name).map(|value| value.to_string_lossy().into_owned())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// An engine and the way to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub(super) address: Address,
    /// Only of use for `tcp`.
    pub(super) tls: Option<Tls>,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
    /// `DOCKER_API_VERSION`: speak this, negotiate nothing.
    pub(super) pinned: Option<Version>,
    /// Only of use for `tcp`.
    pub(super) proxies: Proxies,
    /// Where `ssh` is looked for; `None` is the process's own `PATH`.
    pub(super) path: Option<OsString>,
    /// The context it came from; `default` when a host was given.
    pub context: String,
    /// What was wrong and could be passed over: to be shown once, on stderr.
    pub warnings: Vec<String>,
}

/// Certificates as they lie on disk.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Tls {
    /// PEM. Given, it is the only one trusted; else the system's are.
    pub(super) ca: Option<Vec<u8>>,
    /// PEM, with whatever intermediates.
    pub(super) cert: Option<Vec<u8>>,
    /// PEM.
    pub(super) key: Option<Vec<u8>>,
    /// Take any certificate from any host.
    pub(super) skip_verify: bool,
}

/// Keys stay out of logs.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("skip_verify", &self.skip_verify).finish_non_exhaustive()
    }
}

/// `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`; empty when not set.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    pub(super) http: String,
    pub(super) https: String,
    pub(super) no: String,
}

/// Passwords stay out of logs.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("no", &self.no).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The engine that docker's CLI would talk to. Reads files; connects to nothing.
    pub fn resolve(flags: &Flags, environment: &Environment) -> Result<Endpoint, Error> {
        if flags.host.is_some() && flags.context.as_ref().is_some_and(|name| !name.is_empty()) {
            return Err(Error::HostAndContext);
        }
        let directory = config_dir(flags, environment);
        let mut warnings = Vec::new();
        let config = read_config(&directory, &mut warnings);
        let context = context_name(flags, environment, &config);
        let (address, tls) = match context.as_str() {
            DEFAULT => default_context(flags, environment)?,
            name => stored_context(&directory, name)?,
        };
        Ok(Endpoint {
            tls: tls.filter(|_| matches!(address, Address::Tcp { .. })),
            address,
            headers: headers(&config, &directory, environment)?,
            pinned: pinned(environment)?,
            proxies: proxies(environment),
            path: environment.var("PATH").map(OsStr::to_owned),
            context,
            warnings,
        })
    }

    /// Whether it is reached by a unix socket, so that its files may be on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }
}

/// As docker's CLI writes a host: `unix:///var/run/docker.sock`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Where docker's CLI keeps `config.json` and contexts: `--config`, `DOCKER_CONFIG`, or `~/.docker`.
pub fn config_dir(flags: &Flags, environment: &Environment) -> PathBuf {
    flags.config_dir.clone().unwrap_or_else(|| default_config_dir(environment))
}

/// The names that `--context` takes and what the user wrote about them, in order, `default` among them. What cannot be
/// read is left out.
pub fn contexts(flags: &Flags, environment: &Environment) -> Vec<(String, String)> {
    let meta = config_dir(flags, environment).join("contexts/meta");
    let folders = std::fs::read_dir(meta).into_iter().flatten().flatten();
    let stored = folders.filter_map(|folder| {
        let json = std::fs::read(folder.path().join("meta.json")).ok()?;
        let meta: Value = serde_json::from_slice(&json).ok()?;
        let description = field(&meta, "Metadata").and_then(|told| text(told, "Description")).unwrap_or_default();
        Some((text(&meta, "Name")?.to_owned(), description.to_owned()))
    });
    let mut contexts: Vec<_> = stored.chain([(DEFAULT.to_owned(), String::new())]).collect();
    contexts.sort();
    contexts
}

const DEFAULT: &str = "default";

fn default_config_dir(environment: &Environment) -> PathBuf {
    let home = || environment.var("HOME").map(PathBuf::from).or_else(std::env::home_dir).unwrap_or_default();
    environment.var("DOCKER_CONFIG").map_or_else(|| home().join(".docker"), PathBuf::from)
}

/// What cannot be read or decoded is a warning and counts as empty; a missing file is no fault.
fn read_config(directory: &Path, warnings: &mut Vec<String>) -> Value {
    let path = directory.join("config.json");
    let read = match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|e| e.to_string()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Value::Null),
        Err(e) => Err(e.to_string()),
    };
    read.unwrap_or_else(|reason| {
        warnings.push(format!("ignoring {}: {reason}", path.display()));
        Value::Null
    })
}

fn context_name(flags: &Flags, environment: &Environment, config: &Value) -> String {
    if let Some(name) = flags.context.as_ref().filter(|name| !name.is_empty()) {
        return name.clone();
    }
    if flags.host.is_some() || environment.var("DOCKER_HOST").is_some() {
        return DEFAULT.to_owned();
    }
    let current = || text(config, "currentContext").filter(|name| !name.is_empty()).map(str::to_owned);
    environment.text("DOCKER_CONTEXT").or_else(current).unwrap_or_else(|| DEFAULT.to_owned())
}

fn default_context(flags: &Flags, environment: &Environment) -> Result<(Address, Option<Tls>), Error> {
    let tls = default_tls(flags, environment)?;
    let host = flags.host.clone().or_else(|| environment.text("DOCKER_HOST")).unwrap_or_default();
    let address = match host.trim() {
        "" if tls.is_some() => address::default_with_tls(),
        host => address::parse(host)?,
    };
    Ok((address, tls))
}

/// The CA must be there even when nothing is verified and even for a unix socket; certificate and key only when named.
fn default_tls(flags: &Flags, environment: &Environment) -> Result<Option<Tls>, Error> {
    let verify = flags.tlsverify.unwrap_or_else(|| environment.var("DOCKER_TLS_VERIFY").is_some());
    let plain = flags.tls.unwrap_or_else(|| environment.var("DOCKER_TLS").is_some());
    if !(verify || plain || flags.tlsverify.is_some()) {
        return Ok(None);
    }
    // Not `config_dir`: docker's CLI fixes this default before it reads `--config`.
    let folder = environment.var("DOCKER_CERT_PATH").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| default_config_dir(environment));
    let (ca, cert, key) = (folder.join("ca.pem"), folder.join("cert.pem"), folder.join("key.pem"));
    Ok(Some(Tls {
        ca: Some(read_pem(flags.tlscacert.as_ref().unwrap_or(&ca))?),
        cert: flags.tlscert.as_deref().map_or_else(|| read_if_there(&cert), |path| read_pem(path).map(Some))?,
        key: flags.tlskey.as_deref().map_or_else(|| read_if_there(&key), |path| read_pem(path).map(Some))?,
        skip_verify: !verify,
    }))
}

fn read_pem(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::TlsFile { path: path.to_owned(), source })
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(pem) => Ok(Some(pem)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(Error::TlsFile { path: path.to_owned(), source }),
    }
}

fn stored_context(directory: &Path, name: &str) -> Result<(Address, Option<Tls>), Error> {
    let id: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    let unusable = |source| Error::BadContext { name: name.to_owned(), source };
    let json = match std::fs::read(directory.join("contexts/meta").join(&id).join("meta.json")) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Error::UnknownContext { name: name.to_owned() });
        }
        read => read.map_err(|e| unusable(e.into()))?,
    };
    let meta: Value = serde_json::from_slice(&json).map_err(|e| unusable(e.into()))?;
    let docker = field(&meta, "Endpoints").and_then(|all| field(all, "docker"));
    let docker = docker.ok_or_else(|| unusable("it has no Docker endpoint".into()))?;
    let address = address::parse(text(docker, "Host").unwrap_or_default())?;
    let folder = directory.join("contexts/tls").join(&id).join("docker");
    let tls = Tls {
        ca: read_if_there(&folder.join("ca.pem"))?,
        cert: read_if_there(&folder.join("cert.pem"))?,
        key: read_if_there(&folder.join("key.pem"))?,
        skip_verify: field(docker, "SkipTLSVerify").and_then(Value::as_bool).unwrap_or(false),
    };
    let wanted = tls != Tls::default();
    Ok((address, wanted.then_some(tls)))
}

fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let exact = object.get(name);
    exact.or_else(|| Some(object.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1))
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    field(object, name)?.as_str()
}

fn pinned(environment: &Environment) -> Result<Option<Version>, Error> {
    let Some(version) = environment.text("DOCKER_API_VERSION") else { return Ok(None) };
    version.parse().map(Some).map_err(|()| Error::BadVersion { version })
}

/// Only these three, upper case first, as Go's `httpproxy` does; `ALL_PROXY` is not among them.
fn proxies(environment: &Environment) -> Proxies {
    let either = |upper, lower| environment.text(upper).or_else(|| environment.text(lower)).unwrap_or_default();
    Proxies {
        http: either("HTTP_PROXY", "http_proxy"),
        https: either("HTTPS_PROXY", "https_proxy"),
        no: either("NO_PROXY", "no_proxy"),
    }
}

/// `DOCKER_CUSTOM_HEADERS` replaces those of `config.json`, it does not add to them.
fn headers(config: &Value, directory: &Path, environment: &Environment) -> Result<HeaderMap, Error> {
    if let Some(csv) = environment.text("DOCKER_CUSTOM_HEADERS") {
        return headers_of(split_csv(&csv), "DOCKER_CUSTOM_HEADERS");
    }
    let configured = field(config, "HttpHeaders").and_then(Value::as_object).into_iter().flatten();
    let pairs = configured.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    headers_of(pairs, &directory.join("config.json").to_string_lossy())
}

fn headers_of(pairs: impl IntoIterator<Item = String>, place: &str) -> Result<HeaderMap, Error> {
    let bad = |reason| Error::BadHeader { place: place.to_owned(), reason };
    let mut headers = HeaderMap::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("it is not NAME=VALUE"))?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad("its name is not allowed"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad("its value is not allowed"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// One line of comma-separated fields; a field in double quotes may hold commas, and quotes by doubling them.
fn split_csv(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

//! Which engine, and how to get at it: decided as docker's own CLI decides.
//!
//! In: docker's global flags, the environment, `config.json` and the context store. Out: an [`Endpoint`], nothing
//! connected yet. Called by the cli once at the start, and for shell completion. Knows nothing of HTTP.
//! The order is flag, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext`, the default socket (docker/cli
//! `cli/command/cli.go`: resolveContextName); a context lies in `contexts/meta/<sha256 of its name>/meta.json`, its TLS
//! files in `contexts/tls/<same>/docker/` (`cli/context/store`). `--tls*` and `DOCKER_TLS*` shape the default context
//! only (`cli/flags/options.go`). JSON is read as Go reads it (`go`): of `config.json` the first value counts, and
//! what has the wrong type is passed over with a warning; a `meta.json` has to be right as a whole (docker/cli
//! `cli/config/configfile/file.go`: LoadFromReader, `cli/context/store/metadatastore.go`: getByID).

pub(crate) mod address;
mod go_json;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::model::small_file;

use super::version::Version;
use super::{Cause, Error};
use address::Address;

/// Bytes of the longest file that is read here. A certificate of every authority there is takes a quarter of it.
const LONGEST: usize = 1 << 20;

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
    /// Our own program, which becomes `ssh` when it is asked to ([`super::become_ssh`]); `None` starts that directly, and
    /// then it may outlive us.
    pub program: Option<PathBuf>,
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
            program: None,
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
        let json = small_file::read_small(&folder.path().join("meta.json"), LONGEST).ok()?;
        let meta = Meta::read(&json).ok()?;
        (!meta.name.is_empty()).then_some((meta.name, meta.description))
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

/// What counts of `config.json`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    current_context: String,
    headers: BTreeMap<String, String>,
}

impl Config {
    /// As docker's CLI does, it takes what can be taken, and warns of what cannot.
    fn read(json: &[u8]) -> (Config, Option<String>) {
        let mut config = Config::default();
        let value = match go_json::first(json) {
            Ok(value) if value.is_null() => return (config, None),
            Ok(value) => value,
            Err(go_json::Malformed::Empty) => return (config, None),
            Err(why) => return (config, Some(why.to_string())),
        };
        let Some(members) = value.members() else {
            return (config, Some("it is no JSON object".to_owned()));
        };
        let mut wrong = None;
        for (key, value) in members {
            let is_right = if go_json::is_field(&key, "currentContext") {
                go_text(&mut config.current_context, value)
            } else if go_json::is_field(&key, "HttpHeaders") {
                go_texts(&mut config.headers, value)
            } else {
                true
            };
            if !is_right {
                wrong.get_or_insert(format!("{key} is not what it should be"));
            }
        }
        (config, wrong)
    }
}

/// Puts a string into a field, as Go does: `null` changes nothing. Whether it is one.
fn go_text(field: &mut String, value: go_json::Value<'_>) -> bool {
    match value.text() {
        Some(text) => *field = text,
        None => return value.is_null(),
    }
    true
}

/// Puts an object into a map, as Go does: it adds to what is there, `null` takes it away, and what is no string is empty.
fn go_texts(field: &mut BTreeMap<String, String>, value: go_json::Value<'_>) -> bool {
    if value.is_null() {
        field.clear();
        return true;
    }
    let Some(members) = value.members() else { return false };
    let mut are_right = true;
    for (key, value) in members {
        are_right &= value.is_null() || value.text().is_some();
        field.insert(key, value.text().unwrap_or_default());
    }
    are_right
}

/// What counts of a context's `meta.json`.
#[derive(Debug, Default)]
struct Meta {
    name: String,
    description: String,
    /// `None` where the context is not one of Docker's.
    docker: Option<DockerMeta>,
}

#[derive(Debug, Default)]
struct DockerMeta {
    host: String,
    skip_tls_verify: bool,
}

impl Meta {
    fn read(json: &[u8]) -> Result<Meta, Cause> {
        let mut meta = Meta::default();
        let value = go_json::only(json)?;
        if value.is_null() {
            return Ok(meta);
        }
        let mut endpoints = BTreeMap::new();
        let mut metadata = None;
        for (key, value) in value.members().ok_or("it is no JSON object")? {
            if go_json::is_field(&key, "Name") {
                if !go_text(&mut meta.name, value) {
                    return Err("its Name is no text".into());
                }
            } else if go_json::is_field(&key, "Metadata") {
                metadata = Some(value);
            } else if go_json::is_field(&key, "Endpoints") {
                match value.members() {
                    Some(members) => endpoints.extend(members),
                    None if value.is_null() => endpoints.clear(),
                    None => return Err("its Endpoints are no object".into()),
                }
            }
        }
        for (key, value) in metadata.filter(|told| !told.is_null()).map(described).transpose()?.into_iter().flatten() {
            if key == "Description" {
                meta.description = value.text().ok_or("its Description is no text")?;
            }
        }
        for (name, endpoint) in endpoints {
            if endpoint.is_null() {
                continue;
            }
            let members = endpoint.members().ok_or_else(|| format!("its endpoint {name:?} is no object"))?;
            if name == "docker" {
                meta.docker = Some(DockerMeta::of(members)?);
            }
        }
        Ok(meta)
    }
}

fn described(metadata: go_json::Value<'_>) -> Result<impl Iterator<Item = (String, go_json::Value<'_>)>, Cause> {
    metadata.members().ok_or_else(|| "its Metadata is no object".into())
}

impl DockerMeta {
    fn of<'a>(members: impl Iterator<Item = (String, go_json::Value<'a>)>) -> Result<DockerMeta, Cause> {
        let mut docker = DockerMeta::default();
        for (key, value) in members {
            if go_json::is_field(&key, "Host") {
                if !go_text(&mut docker.host, value) {
                    return Err("its Host is no text".into());
                }
            } else if go_json::is_field(&key, "SkipTLSVerify") && !value.is_null() {
                docker.skip_tls_verify = value.boolean().ok_or("its SkipTLSVerify is neither true nor false")?;
            }
        }
        Ok(docker)
    }
}

/// What cannot be read or decoded is a warning and counts as empty; a missing file is no fault.
fn read_config(directory: &Path, warnings: &mut Vec<String>) -> Config {
    let path = directory.join("config.json");
    let (config, wrong) = match small_file::read_small(&path, LONGEST) {
        Ok(json) => Config::read(&json),
        Err(e) if is_missing(&e) => (Config::default(), None),
        Err(e) => (Config::default(), Some(e.to_string())),
    };
    if let Some(wrong) = wrong {
        let part = if config == Config::default() { "" } else { "what is wrong in " };
        warnings.push(format!("ignoring {part}{}: {wrong}", path.display()));
    }
    config
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn context_name(flags: &Flags, environment: &Environment, config: &Config) -> String {
    if let Some(name) = flags.context.as_ref().filter(|name| !name.is_empty()) {
        return name.clone();
    }
    if flags.host.is_some() || environment.var("DOCKER_HOST").is_some() {
        return DEFAULT.to_owned();
    }
    let current = || Some(config.current_context.clone()).filter(|name| !name.is_empty());
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
    small_file::read_small(path, LONGEST).map_err(|source| Error::TlsFile { path: path.to_owned(), source })
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match small_file::read_small(path, LONGEST) {
        Ok(pem) => Ok(Some(pem)),
        Err(e) if is_missing(&e) => Ok(None),
        Err(source) => Err(Error::TlsFile { path: path.to_owned(), source }),
    }
}

fn stored_context(directory: &Path, name: &str) -> Result<(Address, Option<Tls>), Error> {
    let id: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    let unusable = |source| Error::BadContext { name: name.to_owned(), source };
    let json = match small_file::read_small(&directory.join("contexts/meta").join(&id).join("meta.json"), LONGEST) {
        Err(e) if is_missing(&e) => return Err(Error::UnknownContext { name: name.to_owned() }),
        read => read.map_err(|e| unusable(e.into()))?,
    };
    let docker = Meta::read(&json).map_err(unusable)?.docker;
    let docker = docker.ok_or_else(|| unusable("it has no Docker endpoint".into()))?;
    let address = address::parse(&docker.host)?;
    let folder = directory.join("contexts/tls").join(&id).join("docker");
    let tls = Tls {
        ca: read_if_there(&folder.join("ca.pem"))?,
        cert: read_if_there(&folder.join("cert.pem"))?,
        key: read_if_there(&folder.join("key.pem"))?,
        skip_verify: docker.skip_tls_verify,
    };
    let wanted = tls != Tls::default();
    Ok((address, wanted.then_some(tls)))
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
fn headers(config: &Config, directory: &Path, environment: &Environment) -> Result<HeaderMap, Error> {
    if let Some(csv) = environment.text("DOCKER_CUSTOM_HEADERS") {
        return headers_of(split_csv(&csv), "DOCKER_CUSTOM_HEADERS");
    }
    let pairs = config.headers.iter().map(|(name, value)| format!("{name}={value}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A config directory with contexts `plain` (a socket), `far` (tcp with TLS files), `open` (tcp, verifies nothing),
    /// `broken`, and a folder of certificates.
    fn config(json: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("config.json", json);
        for (name, endpoint) in [
            ("plain", r#"{"docker":{"Host":"unix:///run/plain.sock","SkipTLSVerify":false}}"#),
            ("far", r#"{"docker":{"Host":"tcp://far:2376"}}"#),
            ("open", r#"{"docker":{"host":"tcp://open:2376","skiptlsverify":true}}"#),
            ("kube", r#"{"kubernetes":{"Host":"https://far"}}"#),
        ] {
            write(&meta(name), &format!(r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{endpoint}}}"#));
        }
        write(&meta("broken"), "{");
        write(&meta("far").replace("meta.json", "docker/ca.pem").replace("/meta/", "/tls/"), "CA of far");
        write(&meta("far").replace("meta.json", "docker/key.pem").replace("/meta/", "/tls/"), "key of far");
        write("certs/ca.pem", "CA");
        write("certs/cert.pem", "cert");
        write("bare/ca.pem", "CA");
        directory
    }

    /// The IDs as `printf NAME | sha256sum` gives them, so that a wrong hash does not find its own files.
    fn meta(name: &str) -> String {
        let id = match name {
            "plain" => "a116c9ed46d6207734a43317d30fd88f52ac8634c37d904bbf4e41d865f90475",
            "far" => "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868",
            "open" => "2348f998744212575d85959674f9607ab26f67708a917157472832386337c904",
            "kube" => "7ab9b39a15b5b065f62b7d99d0e69e8f90ad69308a6ae873a8bbe70255646867",
            "broken" => "f526795c95399cea27c055c842c3d6ab018ed0fa4f66f701c28ab22dec28237b",
            _ => panic!("{name}"),
        };
        format!("contexts/meta/{id}/meta.json")
    }

    fn environment(variables: &[(&str, &str)], root: &Path) -> Environment {
        let place = |value: &str| value.replace("ROOT", root.to_str().unwrap());
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), place(value)));
        given.chain([("DOCKER_CONFIG".to_owned(), place("ROOT"))]).collect()
    }

    fn flags(words: &[&str], root: &Path) -> Flags {
        let mut flags = Flags::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            let value = value.replace("ROOT", root.to_str().unwrap());
            match name {
                "host" => flags.host = Some(value),
                "context" => flags.context = Some(value),
                "tls" => flags.tls = Some(value == "true"),
                "tlsverify" => flags.tlsverify = Some(value == "true"),
                "tlscacert" => flags.tlscacert = Some(value.into()),
                "tlscert" => flags.tlscert = Some(value.into()),
                "config" => flags.config_dir = Some(value.into()),
                _ => panic!("{name}"),
            }
        }
        flags
    }

    /// `context host [tls…]`, or `! the error`.
    fn check(json: &str, words: &[&str], variables: &[(&str, &str)], expected: &str) {
        let root = config(json);
        let resolved = Endpoint::resolve(&flags(words, root.path()), &environment(variables, root.path()));
        let told = match &resolved {
            Ok(endpoint) => format!("{} {endpoint}{}", endpoint.context, tell(endpoint.tls.as_ref())),
            Err(error) => format!("! {error}").replace(root.path().to_str().unwrap(), "ROOT"),
        };
        assert_eq!(told, expected, "{json} {words:?} {variables:?}");
    }

    fn tell(tls: Option<&Tls>) -> String {
        let Some(tls) = tls else { return String::new() };
        let pem = |name: &str, pem: &Option<Vec<u8>>| {
            pem.as_ref().map(|pem| format!(" {name}={}", String::from_utf8_lossy(pem))).unwrap_or_default()
        };
        let skip = if tls.skip_verify { " unverified" } else { "" };
        format!(" tls{}{}{}{skip}", pem("ca", &tls.ca), pem("cert", &tls.cert), pem("key", &tls.key))
    }

    #[test]
    fn flag_host_context_and_current_context_win_in_this_order() {
        const CURRENT: &str = r#"{"currentContext":"plain"}"#;
        let (host, context) = (("DOCKER_HOST", "tcp://env"), ("DOCKER_CONTEXT", "far"));
        check("{}", &[], &[], "default unix:///var/run/docker.sock");
        check(CURRENT, &[], &[], "plain unix:///run/plain.sock");
        check(r#"{"CURRENTCONTEXT":"plain"}"#, &[], &[], "plain unix:///run/plain.sock");
        check(CURRENT, &[], &[context], "far tcp://far:2376 tls ca=CA of far key=key of far");
        check(CURRENT, &[], &[context, host], "default tcp://env:2375");
        check(CURRENT, &[], &[("DOCKER_HOST", "")], "plain unix:///run/plain.sock");
        check(CURRENT, &[], &[("DOCKER_CONTEXT", "default")], "default unix:///var/run/docker.sock");
        check(CURRENT, &["host=tcp://flag"], &[context, host], "default tcp://flag:2375");
        check(CURRENT, &["host="], &[context, host], "default unix:///var/run/docker.sock");
        check(CURRENT, &["context=open"], &[context, host], "open tcp://open:2376 tls unverified");
        check(CURRENT, &["context=default"], &[host], "default tcp://env:2375");
        check(CURRENT, &["context="], &[], "plain unix:///run/plain.sock");
        check(CURRENT, &["host=a", "context=b"], &[], "! --host and --context cannot be given together");
        check("{}", &["context=nosuch"], &[], "! context \"nosuch\" does not exist");
        check("{}", &["context=broken"], &[], "! context \"broken\" cannot be read");
        check("{}", &["context=kube"], &[], "! context \"kube\" cannot be read");
        check("{}", &["config=ROOT/certs", "context=plain"], &[], "! context \"plain\" does not exist");
    }

    #[test]
    fn tls_of_the_default_context_is_set_up_as_docker_does() {
        let certs = ("DOCKER_CERT_PATH", "ROOT/certs");
        for (words, variables, told) in [
            (&["host=tcp://e"][..], &[certs][..], "default tcp://e:2375"),
            (&["host=tcp://e", "tlsverify=true"], &[certs], "default tcp://e:2375 tls ca=CA cert=cert"),
            (&["host=tcp://e", "tls=true"], &[certs], "default tcp://e:2375 tls ca=CA cert=cert unverified"),
            (&["host=tcp://e", "tlsverify=false"], &[certs], "default tcp://e:2375 tls ca=CA cert=cert unverified"),
            (&["host=tcp://e"], &[certs, ("DOCKER_TLS", "1")], "default tcp://e:2375 tls ca=CA cert=cert unverified"),
            (&["host=tcp://e"], &[certs, ("DOCKER_TLS_VERIFY", "0")], "default tcp://e:2375 tls ca=CA cert=cert"),
            (&["host=tcp://e"], &[certs, ("DOCKER_TLS_VERIFY", "")], "default tcp://e:2375"),
            (&["host=tcp://e", "tls=false"], &[certs, ("DOCKER_TLS", "1")], "default tcp://e:2375"),
            (
                &["host=tcp://e", "tls=false"],
                &[certs, ("DOCKER_TLS_VERIFY", "1")],
                "default tcp://e:2375 tls ca=CA cert=cert",
            ),
            (&["tlsverify=true"], &[certs], "default tcp://localhost:2376 tls ca=CA cert=cert"),
            (&["host=unix:///s", "tlsverify=true"], &[certs], "default unix:///s"),
            (
                &["host=tcp://e", "tlsverify=true", "tlscacert=ROOT/bare/ca.pem"],
                &[certs],
                "default tcp://e:2375 tls ca=CA cert=cert",
            ),
            (&["host=unix:///s", "tlsverify=true"], &[], "! cannot read ROOT/ca.pem"),
            (&["tlsverify=true", "config=ROOT/certs"], &[], "! cannot read ROOT/ca.pem"),
            (&["tlsverify=true", "tlscert=ROOT/no.pem"], &[certs], "! cannot read ROOT/no.pem"),
            (&["context=far", "tls=true"], &[], "far tcp://far:2376 tls ca=CA of far key=key of far"),
        ] {
            check("{}", words, variables, told);
        }
    }

    #[test]
    fn a_broken_config_is_a_warning_and_then_the_defaults_hold() {
        let root = config("{broken");
        let endpoint = Endpoint::resolve(&Flags::default(), &environment(&[], root.path())).unwrap();
        assert_eq!(endpoint.to_string(), "unix:///var/run/docker.sock");
        let path = root.path().join("config.json");
        let warning = format!("ignoring {}: byte 1 makes no sense in JSON", path.display());
        assert_eq!(endpoint.warnings, [warning]);
        std::fs::remove_file(path).unwrap();
        let endpoint = Endpoint::resolve(&Flags::default(), &environment(&[], root.path())).unwrap();
        assert_eq!(endpoint.warnings, [""; 0]);
    }

    #[test]
    fn headers_of_the_environment_replace_those_of_the_config() {
        const CONFIGURED: &str = r#"{"HttpHeaders":{"X-One":"1","X-Two":"a=b"}}"#;
        for (json, variable, told) in [
            ("{}", "", ""),
            (CONFIGURED, "", "x-one: 1|x-two: a=b"),
            (CONFIGURED, "X-Three=3", "x-three: 3"),
            ("{}", r#" a = 1,"b=x,y","c=say ""hi""""#, r#"a:  1|b: x,y|c: say "hi""#),
            ("{}", "a=", "a: "),
            ("{}", "a", "! invalid request header in DOCKER_CUSTOM_HEADERS: it is not NAME=VALUE"),
            ("{}", "=a", "! invalid request header in DOCKER_CUSTOM_HEADERS: its name is not allowed"),
            ("{}", "a=\u{1}", "! invalid request header in DOCKER_CUSTOM_HEADERS: its value is not allowed"),
        ] {
            let root = config(json);
            let environment = environment(&[("DOCKER_CUSTOM_HEADERS", variable)], root.path());
            let got = match Endpoint::resolve(&Flags::default(), &environment) {
                Ok(endpoint) => {
                    let mut lines: Vec<String> =
                        endpoint.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
                    lines.sort();
                    lines.join("|")
                }
                Err(error) => format!("! {error}"),
            };
            assert_eq!(got, told, "{json} {variable}");
        }
    }

    #[test]
    fn a_version_can_be_pinned() {
        for (variable, told) in
            [("", Ok(None)), ("1.41", Ok(Some("1.41"))), ("new", Err("invalid API version \"new\""))]
        {
            let root = config("{}");
            let environment = environment(&[("DOCKER_API_VERSION", variable)], root.path());
            let got = Endpoint::resolve(&Flags::default(), &environment).map(|endpoint| endpoint.pinned);
            let got = got.map(|pin| pin.map(|pin| pin.to_string())).map_err(|e| e.to_string());
            assert_eq!(got, told.map(|pin| pin.map(str::to_owned)).map_err(str::to_owned));
        }
    }

    #[test]
    fn the_config_directory_is_flag_variable_or_home() {
        let variables = [("DOCKER_CONFIG", "/variable"), ("HOME", "/home/me")];
        let flags = Flags { config_dir: Some("/flag".into()), ..Flags::default() };
        assert_eq!(config_dir(&flags, &variables.into_iter().collect()), Path::new("/flag"));
        assert_eq!(config_dir(&Flags::default(), &variables.into_iter().collect()), Path::new("/variable"));
        assert_eq!(config_dir(&Flags::default(), &[variables[1]].into_iter().collect()), Path::new("/home/me/.docker"));
    }

    #[test]
    fn contexts_are_listed_for_completion() {
        let root = config("{}");
        let listed = contexts(&Flags::default(), &environment(&[], root.path()));
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["default", "far", "kube", "open", "plain"]);
        let none = Flags { config_dir: Some("/nowhere".into()), ..Flags::default() };
        assert_eq!(contexts(&none, &Environment::default()), [("default".to_owned(), String::new())]);
    }

    #[test]
    fn only_a_socket_is_local_and_keys_are_not_printed() {
        for (host, local) in [("unix:///s", true), ("tcp://127.0.0.1", false), ("ssh://me@here", false)] {
            let flags = Flags { host: Some(host.to_owned()), ..Flags::default() };
            let endpoint = Endpoint::resolve(&flags, &[("HOME", "/nowhere")].into_iter().collect()).unwrap();
            assert_eq!(endpoint.is_local(), local, "{host}");
        }
        let tls = Tls { key: Some(b"secret".to_vec()), ..Tls::default() };
        assert_eq!(format!("{tls:?}"), "Tls { skip_verify: false, .. }");
    }
}

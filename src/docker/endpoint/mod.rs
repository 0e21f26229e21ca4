//! Determines the daemon to connect to, exactly as docker's own CLI does.
//!
//! In: docker's global options, the environment, `config.json` and the context store. Out: an [`Endpoint`]; nothing is
//! connected yet. Called by the cli once at start, and for shell completion. Knows nothing of HTTP.
//!
//! - `options`: the inputs from command line and environment
//! - `config_file`, `context`, `tls`: the files, read with `files`; `go_json` decodes JSON as Go does
//! - `address`: the forms of a host
//!
//! The order of precedence is option, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext`, the default socket (docker/cli
//! `cli/command/cli.go`: resolveContextName). `--tls*` and `DOCKER_TLS*` apply only to the default context
//! (`cli/flags/options.go`).

pub(crate) mod address;
mod config_file;
mod context;
mod files;
mod go_json;
mod options;
mod tls;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::Error;
use super::version::Version;
use address::Address;
use config_file::ConfigFile;
use context::DEFAULT;

pub use context::contexts;
pub(crate) use options::config_dir;
pub use options::{Environment, Flags};

pub(super) use tls::Tls;

/// A daemon's address and how to connect to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) address: Address,
    /// `Some` only for tcp.
    pub(super) tls: Option<Tls>,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
    /// `DOCKER_API_VERSION`: this version is used without negotiation.
    pub(super) pinned: Option<Version>,
    /// Used only for tcp.
    pub(super) proxies: Proxies,
    /// Where to look for `ssh`; `None` for the process's own `PATH`.
    pub(super) path: Option<OsString>,
    /// This program itself, which can replace itself with `ssh` ([`super::become_ssh`]). `None` starts `ssh` directly,
    /// which then may outlive this process.
    pub program: Option<PathBuf>,
    /// The name of the context; `default` if a host was given.
    pub context: String,
    /// Problems that were skipped, to be shown once on stderr.
    pub warnings: Vec<String>,
}

/// `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`; empty if not set.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    pub(super) http: String,
    pub(super) https: String,
    pub(super) no: String,
}

/// Keeps passwords out of logs.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("no", &self.no).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The daemon that docker's CLI would connect to. Reads files, but opens no connection.
    pub fn resolve(flags: &Flags, environment: &Environment) -> Result<Endpoint, Error> {
        if flags.host.is_some() && flags.context.as_ref().is_some_and(|name| !name.is_empty()) {
            return Err(Error::HostAndContext);
        }
        let directory = config_dir(flags, environment);
        let mut warnings = Vec::new();
        let config = ConfigFile::load(&directory, &mut warnings);
        let context = context_name(flags, environment, &config);
        let (address, tls) = match context.as_str() {
            DEFAULT => default_context(flags, environment)?,
            name => context::load(&directory, name)?,
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

    /// Whether the daemon is reached through a unix socket, so that its files may be on this machine.
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

fn context_name(flags: &Flags, environment: &Environment, config: &ConfigFile) -> String {
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
    let tls = Tls::of_default_context(flags, environment)?;
    let host = flags.host.clone().or_else(|| environment.text("DOCKER_HOST")).unwrap_or_default();
    let address = match host.trim() {
        "" if tls.is_some() => address::default_with_tls(),
        host => address::parse(host)?,
    };
    Ok((address, tls))
}

fn pinned(environment: &Environment) -> Result<Option<Version>, Error> {
    let Some(version) = environment.text("DOCKER_API_VERSION") else { return Ok(None) };
    version.parse().map(Some).map_err(|()| Error::BadVersion { version })
}

/// Reads only these three variables, in upper case before lower case, as Go's `httpproxy` does. It ignores `ALL_PROXY`.
fn proxies(environment: &Environment) -> Proxies {
    let either = |upper, lower| environment.text(upper).or_else(|| environment.text(lower)).unwrap_or_default();
    Proxies {
        http: either("HTTP_PROXY", "http_proxy"),
        https: either("HTTPS_PROXY", "https_proxy"),
        no: either("NO_PROXY", "no_proxy"),
    }
}

/// The headers for every request. `DOCKER_CUSTOM_HEADERS` replaces those of `config.json`.
fn headers(config: &ConfigFile, directory: &Path, environment: &Environment) -> Result<HeaderMap, Error> {
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
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("expected NAME=VALUE"))?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad("the name is not allowed"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad("the value is not allowed"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Splits a line of comma-separated fields. A field in double quotes may contain commas, and doubled quotes as quotes.
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

    /// A config directory with the contexts `plain` (a socket), `far` (tcp with TLS files), `open` (tcp without
    /// verification), `kube` (not for Docker) and `broken`, and folders with certificates.
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

    /// The IDs as returned by `printf NAME | sha256sum`. They are not computed here, so that a wrong hash in the code
    /// under test does not find its own files.
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
        let expand = |value: &str| value.replace("ROOT", root.to_str().unwrap());
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), expand(value)));
        given.chain([("DOCKER_CONFIG".to_owned(), expand("ROOT"))]).collect()
    }

    fn flags(options: &[&str], root: &Path) -> Flags {
        let mut flags = Flags::default();
        for option in options {
            let (name, value) = option.split_once('=').unwrap();
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

    /// Compares the endpoint as `context host [tls…]`, or the error as `! message`.
    fn check(json: &str, options: &[&str], variables: &[(&str, &str)], expected: &str) {
        let root = config(json);
        let resolved = Endpoint::resolve(&flags(options, root.path()), &environment(variables, root.path()));
        let summary = match &resolved {
            Ok(endpoint) => format!("{} {endpoint}{}", endpoint.context, tls_summary(endpoint.tls.as_ref())),
            Err(error) => format!("! {error}").replace(root.path().to_str().unwrap(), "ROOT"),
        };
        assert_eq!(summary, expected, "{json} {options:?} {variables:?}");
    }

    fn tls_summary(tls: Option<&Tls>) -> String {
        let Some(tls) = tls else { return String::new() };
        let pem = |name: &str, pem: &Option<Vec<u8>>| {
            pem.as_ref().map(|pem| format!(" {name}={}", String::from_utf8_lossy(pem))).unwrap_or_default()
        };
        let skip = if tls.skip_verify { " unverified" } else { "" };
        format!(" tls{}{}{}{skip}", pem("ca", &tls.ca), pem("cert", &tls.cert), pem("key", &tls.key))
    }

    #[test]
    fn option_host_context_and_current_context_have_this_precedence() {
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
    fn tls_of_the_default_context_is_the_same_as_in_docker() {
        let certs = ("DOCKER_CERT_PATH", "ROOT/certs");
        for (options, variables, expected) in [
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
            check("{}", options, variables, expected);
        }
    }

    #[test]
    fn a_broken_config_is_a_warning_and_defaults_apply() {
        let root = config("{broken");
        let endpoint = Endpoint::resolve(&Flags::default(), &environment(&[], root.path())).unwrap();
        assert_eq!(endpoint.to_string(), "unix:///var/run/docker.sock");
        let path = root.path().join("config.json");
        let warning = format!("ignoring {}: invalid JSON at byte 1", path.display());
        assert_eq!(endpoint.warnings, [warning]);
        std::fs::remove_file(path).unwrap();
        let endpoint = Endpoint::resolve(&Flags::default(), &environment(&[], root.path())).unwrap();
        assert_eq!(endpoint.warnings, [""; 0]);
    }

    #[test]
    fn headers_in_the_environment_replace_those_in_the_config() {
        const CONFIGURED: &str = r#"{"HttpHeaders":{"X-One":"1","X-Two":"a=b"}}"#;
        for (json, variable, expected) in [
            ("{}", "", ""),
            (CONFIGURED, "", "x-one: 1|x-two: a=b"),
            (CONFIGURED, "X-Three=3", "x-three: 3"),
            ("{}", r#" a = 1,"b=x,y","c=say ""hi""""#, r#"a:  1|b: x,y|c: say "hi""#),
            ("{}", "a=", "a: "),
            ("{}", "a", "! invalid request header in DOCKER_CUSTOM_HEADERS: expected NAME=VALUE"),
            ("{}", "=a", "! invalid request header in DOCKER_CUSTOM_HEADERS: the name is not allowed"),
            ("{}", "a=\u{1}", "! invalid request header in DOCKER_CUSTOM_HEADERS: the value is not allowed"),
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
            assert_eq!(got, expected, "{json} {variable}");
        }
    }

    #[test]
    fn a_version_can_be_pinned() {
        for (variable, expected) in
            [("", Ok(None)), ("1.41", Ok(Some("1.41"))), ("new", Err("invalid API version \"new\""))]
        {
            let root = config("{}");
            let environment = environment(&[("DOCKER_API_VERSION", variable)], root.path());
            let got = Endpoint::resolve(&Flags::default(), &environment).map(|endpoint| endpoint.pinned);
            let got = got.map(|pin| pin.map(|pin| pin.to_string())).map_err(|e| e.to_string());
            assert_eq!(got, expected.map(|pin| pin.map(str::to_owned)).map_err(str::to_owned));
        }
    }

    #[test]
    fn the_config_directory_is_from_option_variable_or_home() {
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
    fn only_a_socket_is_local() {
        for (host, local) in [("unix:///s", true), ("tcp://127.0.0.1", false), ("ssh://me@here", false)] {
            let flags = Flags { host: Some(host.to_owned()), ..Flags::default() };
            let endpoint = Endpoint::resolve(&flags, &[("HOME", "/nowhere")].into_iter().collect()).unwrap();
            assert_eq!(endpoint.is_local(), local, "{host}");
        }
    }
}

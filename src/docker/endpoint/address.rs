//! Parses the address of a daemon.
//!
//! In: the value of `-H` or `DOCKER_HOST`, or the host of a context. Out: an [`Address`]. Called by [`super::Endpoint`]
//! and [`super::context`].
//!
//! The rules are those of docker/cli `opts/hosts.go` (ParseHost, ParseTCPAddr) and `cli/connhelper/ssh`: without a
//! scheme it is tcp, missing parts have defaults, a path after the port goes before the path of every request, and an
//! ssh address must not contain a password.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::docker::Error;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// With TLS or without, which the endpoint determines.
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        port: u16,
        /// Goes before every path. Empty, or begins with a slash and does not end with one.
        prefix: String,
    },
    /// Through `docker system dial-stdio` on the remote host.
    Ssh(Ssh),
}

/// The parts of an ssh address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ssh {
    pub(crate) user: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// The socket on the remote host; `None` for the default of docker there.
    pub(crate) socket: Option<String>,
}

const SOCKET: &str = "/var/run/docker.sock";
const HOST: &str = "localhost";
const PORT: u16 = 2375;

/// The address that docker's CLI uses with TLS if no host is given: not the socket.
pub(crate) fn default_with_tls() -> Address {
    Address::Tcp { host: HOST.to_owned(), port: 2376, prefix: String::new() }
}

/// Parses an address. An empty text is the default socket.
pub(crate) fn parse(text: &str) -> Result<Address, Error> {
    let bad = |reason| Error::BadHost { host: without_user(text), reason };
    if text.is_empty() {
        return Ok(Address::Unix(SOCKET.into()));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    if rest.contains("://") {
        return Err(bad("the address has two schemes"));
    }
    match scheme {
        "unix" if rest.is_empty() => Ok(Address::Unix(SOCKET.into())),
        "unix" => Ok(Address::Unix(rest.into())),
        "tcp" => tcp(rest).map_err(bad),
        "ssh" => ssh(rest).map(Address::Ssh).map_err(bad),
        "fd" => Err(bad("fd:// is an address to listen on, not to connect to")),
        "npipe" => Err(bad("npipe:// is supported on Windows only")),
        _ => Err(bad("use unix://, tcp:// or ssh://")),
    }
}

/// Hides what is before the `@`, which may include a password.
fn without_user(text: &str) -> String {
    let Some((user, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = user.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}…@{host}")
}

fn tcp(text: &str) -> Result<Address, &'static str> {
    let parts = Parts::of(text);
    let (host, port) = host_and_port(parts.authority)?;
    let host = if host.is_empty() { HOST } else { host };
    let prefix = parts.path.trim_end_matches('/').to_owned();
    Ok(Address::Tcp { host: host.to_owned(), port: port.unwrap_or(PORT), prefix })
}

fn ssh(text: &str) -> Result<Ssh, &'static str> {
    let parts = Parts::of(text);
    if parts.user.is_some_and(|user| user.contains(':')) {
        return Err("an ssh address must not contain a password; use a key or an ssh agent");
    }
    if parts.has_more {
        return Err("a query or fragment is not allowed");
    }
    let (host, port) = host_and_port(parts.authority)?;
    if host.is_empty() {
        return Err("the host name is missing");
    }
    let socket = (!parts.path.trim_matches('/').is_empty()).then(|| decode(parts.path));
    Ok(Ssh { user: parts.user.map(decode), host: host.to_owned(), port, socket })
}

/// The parts of an address without its scheme.
struct Parts<'a> {
    user: Option<&'a str>,
    authority: &'a str,
    path: &'a str,
    /// There is a query or a fragment.
    has_more: bool,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (authority, path) = text[..end].split_at(text[..end].find('/').unwrap_or(end));
        let (user, authority) = authority.rsplit_once('@').map_or((None, authority), |(u, a)| (Some(u), a));
        Parts { user, authority, path, has_more: end < text.len() }
    }
}

/// Parses `host`, `host:`, `host:port`, `:port`, `v6`, `[v6]` or `[v6]:port`.
fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, None));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
            let port = rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""));
            (host, port.ok_or("only a colon and a port may follow the bracket")?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let bracketed = authority.starts_with('[');
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || bracketed && b":%".contains(&b)) {
        return Err("the host name contains invalid characters");
    }
    if bracketed && !host.contains(':') {
        return Err("only an IPv6 address may be in brackets");
    }
    if port.contains(':') {
        return Err("an IPv6 address with a port must be in brackets");
    }
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or("the port is not a number up to 65535")?;
    Ok((host, Some(port)))
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Host and port as in a URL: IPv6 in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port, prefix } => write!(f, "tcp://{}{prefix}", authority(host, *port)),
            Address::Ssh(ssh) => ssh.fmt(f),
        }
    }
}

impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) => f.write_str(&authority(&self.host, port))?,
            None if self.host.contains(':') => write!(f, "[{}]", self.host)?,
            None => f.write_str(&self.host)?,
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_means_the_same_as_to_docker() {
        for (text, address) in [
            ("", "unix:///var/run/docker.sock"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("unix:///run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock"),
            ("unix://relative.sock", "unix://relative.sock"),
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:4243", "tcp://localhost:4243"),
            ("tcp://engine", "tcp://engine:2375"),
            ("tcp://engine:", "tcp://engine:2375"),
            ("tcp://engine:4243", "tcp://engine:4243"),
            ("engine:4243", "tcp://engine:4243"),
            ("engine", "tcp://engine:2375"),
            ("10.0.0.1", "tcp://10.0.0.1:2375"),
            (":4243", "tcp://localhost:4243"),
            ("/var/run/docker.sock", "tcp://localhost:2375/var/run/docker.sock"),
            ("tcp://engine:4243/a/prefix", "tcp://engine:4243/a/prefix"),
            ("tcp://engine:4243/", "tcp://engine:4243"),
            ("tcp://engine/prefix?query#fragment", "tcp://engine:2375/prefix"),
            // Docker refuses this form and accepts the next; here both are accepted.
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://::1", "tcp://[::1]:2375"),
            ("tcp://[::1]:4243/x", "tcp://[::1]:4243/x"),
            ("ssh://build", "ssh://build"),
            ("ssh://me@build:2222", "ssh://me@build:2222"),
            ("ssh://dom%5Cme@build", "ssh://dom\\me@build"),
            ("ssh://[fe80::1]:22", "ssh://[fe80::1]:22"),
            ("ssh://me@[fe80::1]", "ssh://me@[fe80::1]"),
            ("ssh://build/", "ssh://build"),
            ("ssh://build/run/user/1000/docker.sock", "ssh://build/run/user/1000/docker.sock"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), address, "{text}");
        }
    }

    #[test]
    fn invalid_addresses_are_refused_as_by_docker() {
        for (text, message) in [
            ("http://engine:2375", "invalid host \"http://engine:2375\": use unix://, tcp:// or ssh://"),
            ("https://engine", "invalid host \"https://engine\": use unix://, tcp:// or ssh://"),
            ("fd://", "invalid host \"fd://\": fd:// is an address to listen on, not to connect to"),
            ("npipe:////./pipe/x", "invalid host \"npipe:////./pipe/x\": npipe:// is supported on Windows only"),
            ("tcp://unix:///x", "invalid host \"tcp://unix:///x\": the address has two schemes"),
            ("tcp://engine:x", "invalid host \"tcp://engine:x\": the port is not a number up to 65535"),
            ("tcp://engine:99999", "invalid host \"tcp://engine:99999\": the port is not a number up to 65535"),
            ("tcp://engine:+1", "invalid host \"tcp://engine:+1\": the port is not a number up to 65535"),
            ("tcp://a:b:1", "invalid host \"tcp://a:b:1\": an IPv6 address with a port must be in brackets"),
            ("tcp://[::1", "invalid host \"tcp://[::1\": the bracket is not closed"),
            ("tcp://a b", "invalid host \"tcp://a b\": the host name contains invalid characters"),
            ("me:secret@engine:x", "invalid host \"…@engine:x\": the port is not a number up to 65535"),
            ("http://me:secret@engine", "invalid host \"http://…@engine\": use unix://, tcp:// or ssh://"),
            ("tcp://[engine]", "invalid host \"tcp://[engine]\": only an IPv6 address may be in brackets"),
            ("ssh://a[", "invalid host \"ssh://a[\": the host name contains invalid characters"),
            ("ssh://", "invalid host \"ssh://\": the host name is missing"),
            ("ssh://build?x", "invalid host \"ssh://build?x\": a query or fragment is not allowed"),
            ("ssh://build#x", "invalid host \"ssh://build#x\": a query or fragment is not allowed"),
            (
                "ssh://me:secret@build",
                "invalid host \"ssh://…@build\": an ssh address must not contain a password; use a key or an ssh agent",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_displayed_address_can_be_parsed_again(text in "(unix|tcp|ssh)://[a-z0-9@:/%.\\[\\]é-]{0,20}") {
            if let Ok(address) = parse(&text) {
                let shown = address.to_string();
                // It is displayed decoded, so parsing it again would decode it twice.
                if !text.contains('%') {
                    prop_assert_eq!(parse(&shown).map_err(|e| e.to_string()), Ok(address), "{}", shown);
                }
            }
        }
    }
}

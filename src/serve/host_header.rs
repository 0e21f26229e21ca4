//! Checks the `Host` header of requests, to protect against DNS rebinding.
//!
//! After a malicious web page is loaded, its host name can be made to resolve to 127.0.0.1, so that the page can read
//! what a local server answers as if it were its own data. Therefore, on a loopback address, which only this machine is
//! meant to reach, a request has to name an IP address, `localhost`, the name of this machine, or the host that
//! `--listen` names. On any other address, the user wants the network to have access, under whatever name it uses, and
//! a client can read the same data without a browser. So every host name is allowed there.

use crate::model::bounded_read;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Version};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The host names under which requests are answered.
#[derive(Clone, Debug)]
pub(super) struct AllowedHosts {
    /// Every name is allowed.
    is_any: bool,
    /// Names of this machine in the form that [`normalize`] returns.
    own: Vec<String>,
}

impl AllowedHosts {
    /// `requested` is the `HOST:PORT` of `--listen`, and `address` the address that was bound.
    pub(super) fn of(requested: &str, address: SocketAddr) -> AllowedHosts {
        // The kernel does not accept longer host names.
        let machine = bounded_read::read_small(Path::new("/proc/sys/kernel/hostname"), 1024).unwrap_or_default();
        AllowedHosts::with(requested, address, String::from_utf8_lossy(&machine).trim())
    }

    fn with(requested: &str, address: SocketAddr, machine: &str) -> AllowedHosts {
        let own = ["localhost", host_of(requested), machine].map(normalize);
        AllowedHosts { is_any: !address.ip().to_canonical().is_loopback(), own: own.into() }
    }

    /// Returns the status and the message with which a request is rejected, or `Ok` if it may be answered.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
        let mut headers = request.headers().get_all(HOST).iter();
        let (host, more) = (headers.next(), headers.next());
        if more.is_some() {
            return Err((StatusCode::BAD_REQUEST, "more than one Host header\n"));
        }
        // The host of an absolute URI overrides the header (RFC 9112, 3.2.2).
        let named = match (request.uri().authority(), host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
            (None, None) => return Err((StatusCode::BAD_REQUEST, "the Host header is missing\n")),
        };
        match std::str::from_utf8(named) {
            Ok(named) if self.is_allowed(host_of(named)) => Ok(()),
            _ => Err((
                StatusCode::MISDIRECTED_REQUEST,
                "the Host header must name an IP address, localhost, this machine, or the host given to --listen\n",
            )),
        }
    }

    fn is_allowed(&self, host: &str) -> bool {
        let host = normalize(host);
        let is_address = || match host.strip_prefix('[') {
            Some(inside) => inside.strip_suffix(']').is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok()),
            None => host.parse::<IpAddr>().is_ok(),
        };
        self.is_any || is_address() || host.ends_with(".localhost") || !host.is_empty() && self.own.contains(&host)
    }
}

/// The host of `HOST:PORT` or `HOST`.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Converts a name to the form in which names are compared: lower case, without the trailing dot.
fn normalize(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status with which a request is rejected.
    fn rejection(requested: &str, address: &str, request: Request<()>) -> Option<u16> {
        let hosts = AllowedHosts::with(requested, address.parse().unwrap(), "box.example");
        hosts.check(&request).err().map(|(code, _)| code.as_u16())
    }

    /// On a loopback address, a request from a page under a foreign host name is not answered.
    #[test]
    fn loopback_addresses_answer_only_to_local_names() {
        for (host, is_allowed) in [
            ("localhost", true),
            ("localhost:8519", true),
            ("LOCALHOST.:8519", true),
            ("app.localhost:8519", true),
            ("127.0.0.1:8519", true),
            ("192.168.7.1", true),
            ("[::1]:8519", true),
            ("[::1]", true),
            ("box.example:8519", true),
            ("Named.example", true),
            ("evil.example:8519", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("box.example.evil.example", false),
            ("notlocalhost", false),
            ("evil.example:8519@localhost", false),
            ("localhost:80:80", false),
            ("::1", false),
            ("[evil.example]", false),
            ("", false),
            (":8519", false),
        ] {
            let request = || Request::builder().uri("/metrics").header(HOST, host).body(()).unwrap();
            let code = (!is_allowed).then_some(421);
            for address in ["127.0.0.1:8519", "127.0.1.1:8519", "[::1]:8519", "[::ffff:127.0.0.1]:8519"] {
                assert_eq!(rejection("named.example:8519", address, request()), code, "{host:?} at {address}");
            }
            for address in ["0.0.0.0:8519", "[::]:8519", "192.168.7.1:8519"] {
                assert_eq!(rejection("named.example:8519", address, request()), None, "{host:?} at {address}");
            }
        }
    }

    #[test]
    fn missing_duplicate_and_absolute_hosts_are_handled() {
        let at = "127.0.0.1:1";
        let request = |version| Request::builder().uri("/metrics").version(version);
        assert_eq!(rejection(at, at, request(Version::HTTP_10).body(()).unwrap()), None);
        assert_eq!(rejection(at, at, request(Version::HTTP_11).body(()).unwrap()), Some(400));
        let two = request(Version::HTTP_11).header(HOST, "localhost").header(HOST, "localhost");
        assert_eq!(rejection(at, at, two.body(()).unwrap()), Some(400));
        for (uri, host, code) in [
            ("http://evil.example/metrics", "localhost", Some(421)),
            ("http://localhost/metrics", "evil.example", None),
        ] {
            let request = Request::builder().uri(uri).header(HOST, host).body(()).unwrap();
            assert_eq!(rejection(at, at, request), code, "{uri}");
        }
    }
}

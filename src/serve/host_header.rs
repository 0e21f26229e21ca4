//! Whether a request means us: what stands against web pages that ask for us by a name of their own.
//!
//! In: the address we listen at, and the host that a request names. Out: an answer. Called by [`super`].
//! A web page may have its name resolve to 127.0.0.1 once it is loaded, and then read whatever answers there, as if it
//! were its own ("DNS rebinding"). So at a loopback address, which nothing but this machine was meant to reach, a request
//! has to name an address, `localhost`, this machine or what `--listen` names. At any other address the network was meant
//! to reach us, under whatever name it has for us, and can read the same without a browser: every name is taken there.

use crate::model::small_file;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Version};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The names under which we answer.
#[derive(Clone, Debug)]
pub(super) struct Names {
    is_any: bool,
    own: Vec<String>,
}

impl Names {
    /// `place` is what was asked for, `HOST:PORT`, and `address` what came of it.
    pub(super) fn of(place: &str, address: SocketAddr) -> Names {
        // Longer ones the kernel does not take.
        let machine = small_file::read_small(Path::new("/proc/sys/kernel/hostname"), 1024).unwrap_or_default();
        Names::with(place, address, String::from_utf8_lossy(&machine).trim())
    }

    fn with(place: &str, address: SocketAddr, machine: &str) -> Names {
        let own = ["localhost", host_of(place), machine].map(plain);
        Names { is_any: !address.ip().to_canonical().is_loopback(), own: own.into() }
    }

    /// Why a request is not answered, with a line for whoever sent it; `Ok` if it is.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
        let mut headers = request.headers().get_all(HOST).iter();
        let (host, more) = (headers.next(), headers.next());
        if more.is_some() {
            return Err((StatusCode::BAD_REQUEST, "there can be only one Host header\n"));
        }
        // The address of a request comes before its header (RFC 9112, 3.2.2).
        let named = match (request.uri().authority(), host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
            (None, None) => return Err((StatusCode::BAD_REQUEST, "the Host header is missing\n")),
        };
        match std::str::from_utf8(named) {
            Ok(named) if self.is_ours(host_of(named)) => Ok(()),
            _ => Err((
                StatusCode::MISDIRECTED_REQUEST,
                "the Host header names neither an address, nor localhost, nor this machine: --listen can name another\n",
            )),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = plain(host);
        let is_address = || match host.strip_prefix('[') {
            Some(inside) => inside.strip_suffix(']').is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok()),
            None => host.parse::<IpAddr>().is_ok(),
        };
        self.is_any || is_address() || host.ends_with(".localhost") || !host.is_empty() && self.own.contains(&host)
    }
}

/// Without the port.
fn host_of(place: &str) -> &str {
    match place.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => place,
    }
}

/// As names are compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that a request is refused with.
    fn refused(place: &str, address: &str, request: Request<()>) -> Option<u16> {
        let names = Names::with(place, address.parse().unwrap(), "box.example");
        names.check(&request).err().map(|(code, _)| code.as_u16())
    }

    /// Of a page that calls itself by a name for this machine no request is answered at a loopback address.
    #[test]
    fn at_loopback_only_our_own_names_are_answered_and_elsewhere_all() {
        for (host, is_ours) in [
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
            let code = (!is_ours).then_some(421);
            for address in ["127.0.0.1:8519", "127.0.1.1:8519", "[::1]:8519", "[::ffff:127.0.0.1]:8519"] {
                assert_eq!(refused("named.example:8519", address, request()), code, "{host:?} at {address}");
            }
            for address in ["0.0.0.0:8519", "[::]:8519", "192.168.7.1:8519"] {
                assert_eq!(refused("named.example:8519", address, request()), None, "{host:?} at {address}");
            }
        }
    }

    #[test]
    fn a_request_without_one_host_is_answered_by_its_version() {
        let at = "127.0.0.1:1";
        let request = |version| Request::builder().uri("/metrics").version(version);
        assert_eq!(refused(at, at, request(Version::HTTP_10).body(()).unwrap()), None);
        assert_eq!(refused(at, at, request(Version::HTTP_11).body(()).unwrap()), Some(400));
        let two = request(Version::HTTP_11).header(HOST, "localhost").header(HOST, "localhost");
        assert_eq!(refused(at, at, two.body(()).unwrap()), Some(400));
        for (uri, host, code) in [
            ("http://evil.example/metrics", "localhost", Some(421)),
            ("http://localhost/metrics", "evil.example", None),
        ] {
            let request = Request::builder().uri(uri).header(HOST, host).body(()).unwrap();
            assert_eq!(refused(at, at, request), code, "{uri}");
        }
    }
}

//! HTTP proxies, which are used for tcp endpoints as docker's CLI does (docker/go-connections `sockets`:
//! ConfigureTransport), and never for this machine itself (Go's `httpproxy`: useProxy).
//!
//! In: the proxy variables and the daemon's address. Out: the proxy to use, and connections to or through it. Called by
//! [`super::connect`].

use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::tcp::dial;
use crate::docker::Error;
use crate::docker::endpoint::Proxies;

#[derive(Clone)]
pub(super) struct HttpProxy {
    uri: Uri,
    /// For `Proxy-Authorization`, from user and password in the proxy's address.
    pub(super) auth: Option<HeaderValue>,
}

impl HttpProxy {
    /// The proxy for `uri`, whose host is `host`; `None` for a direct connection.
    pub(super) fn find(proxies: &Proxies, host: &str, uri: &Uri) -> Result<Option<HttpProxy>, Error> {
        let is_this_machine = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let matcher =
            Matcher::builder().http(proxies.http.clone()).https(proxies.https.clone()).no(proxies.no.clone()).build();
        let Some(found) = matcher.intercept(uri).filter(|_| !is_this_machine) else { return Ok(None) };
        let uri = found.uri().clone();
        match uri.scheme_str() {
            Some("http") => Ok(Some(HttpProxy { uri, auth: found.basic_auth().cloned() })),
            _ => Err(Error::BadProxy { proxy: uri.to_string() }),
        }
    }

    /// A connection to the proxy itself.
    pub(super) async fn dial(&self) -> io::Result<TcpStream> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        dial(host, self.uri.port_u16().unwrap_or(80)).await
    }

    /// A connection through the proxy to `target`, opened with CONNECT.
    pub(super) async fn tunnel(&self, target: Uri) -> io::Result<TcpStream> {
        let stream = self.dial().await?;
        let tunnel = Tunnel::new(self.uri.clone(), Ready(Some(TokioIo::new(stream))));
        let mut tunnel = match &self.auth {
            Some(auth) => tunnel.with_auth(auth.clone()),
            None => tunnel,
        };
        tunnel.call(target).await.map(TokioIo::into_inner).map_err(io::Error::other)
    }
}

/// Passes an open connection to [`Tunnel`], which expects a service that opens one.
struct Ready(Option<TokioIo<TcpStream>>);

impl Service<Uri> for Ready {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_used_for_other_machines_only() {
        let proxies = Proxies {
            http: "proxy:3128".to_owned(),
            https: "http://me:secret@proxy".to_owned(),
            no: "near.example, 10.0.0.0/8".to_owned(),
        };
        for (host, scheme, expected) in [
            ("far.example", "http", Some("http://proxy:3128/")),
            ("far.example", "https", Some("http://proxy/")),
            ("near.example", "http", None),
            ("10.1.2.3", "https", None),
            ("localhost", "http", None),
            ("127.0.0.1", "http", None),
        ] {
            let uri = Uri::try_from(format!("{scheme}://{host}:2375")).unwrap();
            let found = HttpProxy::find(&proxies, host, &uri).unwrap();
            assert_eq!(found.map(|proxy| proxy.uri.to_string()).as_deref(), expected, "{scheme} {host}");
        }
    }

    #[test]
    fn an_unsupported_proxy_is_refused_without_showing_its_password() {
        let proxies = Proxies { http: "socks5://me:secret@proxy:1080".to_owned(), ..Proxies::default() };
        let refused = HttpProxy::find(&proxies, "far.example", &Uri::from_static("http://far.example:2375"));
        let message = refused.err().unwrap().to_string();
        assert_eq!(message, "invalid proxy \"socks5://proxy:1080/\": only http:// proxies are supported");
    }
}

//! Opens connections to the daemon: over a unix socket, tcp, TLS, a proxy or ssh.
//!
//! In: an [`Endpoint`]. Out: [`Link`]s, which HTTP runs over. Called by [`super::Http`]. Knows nothing of HTTP
//! requests.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::proxy::HttpProxy;
use super::tcp::dial;
use super::{ssh, tls};
use crate::docker::Error;
use crate::docker::endpoint::Endpoint;
use crate::docker::endpoint::address::{Address, Ssh, authority};
use crate::metrics;

/// How to reach one daemon.
pub(super) struct Target {
    pub(super) transport: Transport,
    /// What every request's URL begins with: the path prefix of the endpoint, and for a proxy that sees the requests also
    /// scheme and host.
    pub(super) base: String,
    /// The `Host` header. Daemons ignore it on a unix socket, but answer requests without one with status 400.
    pub(super) host: HeaderValue,
}

/// How to connect to one daemon.
pub(super) enum Transport {
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
        /// The endpoint without its path prefix.
        url: Uri,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        proxy: Option<HttpProxy>,
    },
    Ssh {
        to: Ssh,
        path: Option<OsString>,
        program: Option<PathBuf>,
    },
}

impl Target {
    pub(super) fn of(endpoint: &Endpoint) -> Result<Target, Error> {
        let name = endpoint.to_string();
        let local = |transport| Target { transport, base: String::new(), host: HeaderValue::from_static("localhost") };
        match &endpoint.address {
            Address::Unix(path) => Ok(local(Transport::Unix(path.clone()))),
            Address::Ssh(to) => {
                let (path, program) = (endpoint.path.clone(), endpoint.program.clone());
                Ok(local(Transport::Ssh { to: to.clone(), path, program }))
            }
            Address::Tcp { host, port, prefix } => {
                let (scheme, default_port) = if endpoint.tls.is_some() { ("https", 443) } else { ("http", 80) };
                let authority = authority(host, *port);
                let base = format!("{scheme}://{authority}");
                let bad = |reason| Error::BadHost { host: name.clone(), reason };
                let url = Uri::try_from(&base).map_err(|_| bad("not a valid URL"))?;
                let proxy = HttpProxy::find(&endpoint.proxies, host, &url)?;
                let server =
                    || ServerName::try_from(host.clone()).map_err(|_| bad("TLS needs a host name or an IP address"));
                let tls = match &endpoint.tls {
                    Some(settings) => Some((tls::connector(settings, &name)?, server()?)),
                    None => None,
                };
                let header = if *port == default_port { url.host().unwrap_or(host) } else { &authority };
                let header = HeaderValue::from_str(header).map_err(|_| bad("not a valid URL"))?;
                let base = if proxy.is_some() && tls.is_none() { base + prefix } else { prefix.clone() };
                let transport = Transport::Tcp { host: host.clone(), port: *port, url, tls, proxy };
                Ok(Target { transport, base, host: header })
            }
        }
    }
}

impl Transport {
    /// The `Proxy-Authorization` header that every request needs: only with a proxy that sees plain requests. A tunnel
    /// is authorized when it is opened.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        match self {
            Transport::Tcp { proxy: Some(proxy), tls: None, .. } => proxy.auth.as_ref(),
            Transport::Tcp { .. } | Transport::Unix(_) | Transport::Ssh { .. } => None,
        }
    }

    async fn open(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Transport::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Transport::Ssh { to, path, program } => Box::new(ssh::open(to, path.as_deref(), program.as_deref())?),
            Transport::Tcp { host, port, tls: None, proxy: None, .. } => Box::new(dial(host, *port).await?),
            Transport::Tcp { tls: None, proxy: Some(proxy), .. } => Box::new(proxy.dial().await?),
            Transport::Tcp { host, port, url, tls: Some((tls, server)), proxy } => {
                let stream = match proxy {
                    Some(proxy) => proxy.tunnel(url.clone()).await?,
                    None => dial(host, *port).await?,
                };
                Box::new(tls.connect(server.clone(), stream).await?)
            }
        })
    }
}

/// An open connection of any kind.
pub(super) struct Link {
    io: Box<dyn Duplex>,
    opened: Instant,
    metrics: metrics::PoolMetrics,
}

impl Link {
    /// Opens a connection. `limit` is for the whole attempt, TLS handshake included. ssh starts at once and has a timeout
    /// of its own.
    pub(super) async fn open(
        transport: &Transport,
        limit: Duration,
        metrics: &metrics::PoolMetrics,
    ) -> io::Result<Link> {
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "connection attempt timed out");
        let io = timeout(limit, transport.open()).await.map_err(timed_out)??;
        metrics.opened();
        Ok(Link { io, opened: Instant::now(), metrics: metrics.clone() })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.metrics.closed(self.opened.elapsed());
    }
}

/// A bidirectional byte stream. A trait object, as nothing above needs to distinguish the kinds again.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

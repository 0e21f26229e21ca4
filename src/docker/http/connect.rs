//! Opens connections to the daemon: over a unix socket, tcp, TLS, a proxy or ssh.
//!
//! In: an [`Endpoint`]. Out: [`Link`]s, which HTTP runs over. Called by [`super::Http`]. Knows nothing of HTTP
//! requests.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::proxy::HttpProxy;
use super::tcp::dial;
use super::{ssh, tls};
use crate::docker::Error;
use crate::docker::endpoint::Endpoint;
use crate::docker::endpoint::address::{Address, Ssh, authority};
use crate::metrics;

/// How to connect to one daemon.
pub(super) enum Transport {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<(TlsConnector, ServerName<'static>)>, proxy: Option<HttpProxy> },
    Ssh { to: Ssh, path: Option<OsString>, program: Option<PathBuf> },
}

impl Transport {
    /// The transport for an endpoint, and the base of every request's URL.
    pub(super) fn to(endpoint: &Endpoint) -> Result<(Transport, String), Error> {
        let name = endpoint.to_string();
        match &endpoint.address {
            Address::Unix(path) => Ok((Transport::Unix(path.clone()), "http://localhost".to_owned())),
            Address::Ssh(to) => {
                let (path, program) = (endpoint.path.clone(), endpoint.program.clone());
                let transport = Transport::Ssh { to: to.clone(), path, program };
                Ok((transport, "http://localhost".to_owned()))
            }
            Address::Tcp { host, port, prefix } => {
                let scheme = if endpoint.tls.is_some() { "https" } else { "http" };
                let base = format!("{scheme}://{}", authority(host, *port));
                let bad = |reason| Error::BadHost { host: name.clone(), reason };
                let uri = Uri::try_from(&base).map_err(|_| bad("not a valid URL"))?;
                let proxy = HttpProxy::find(&endpoint.proxies, host, &uri)?;
                let server =
                    || ServerName::try_from(host.clone()).map_err(|_| bad("TLS needs a host name or an IP address"));
                let tls = match &endpoint.tls {
                    Some(settings) => Some((tls::connector(settings, &name)?, server()?)),
                    None => None,
                };
                Ok((Transport::Tcp { host: host.clone(), port: *port, tls, proxy }, format!("{base}{prefix}")))
            }
        }
    }

    /// The `Proxy-Authorization` header that every request needs: only with a proxy that sees plain requests. A tunnel
    /// is authorized when it is opened.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        match self {
            Transport::Tcp { proxy: Some(proxy), tls: None, .. } => proxy.auth.as_ref(),
            Transport::Tcp { .. } | Transport::Unix(_) | Transport::Ssh { .. } => None,
        }
    }

    /// Opens a connection. Also returns whether its other end is a proxy that needs the absolute URL in requests.
    async fn open(&self, uri: Uri) -> io::Result<(Box<dyn Duplex>, bool)> {
        let stream: Box<dyn Duplex> = match self {
            Transport::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Transport::Ssh { to, path, program } => Box::new(ssh::open(to, path.as_deref(), program.as_deref())?),
            Transport::Tcp { host, port, tls: None, proxy: None } => Box::new(dial(host, *port).await?),
            Transport::Tcp { tls: None, proxy: Some(proxy), .. } => {
                let io = Box::new(proxy.dial().await?);
                return Ok((io, true));
            }
            Transport::Tcp { host, port, tls: Some((tls, server)), proxy } => {
                let stream = match proxy {
                    Some(proxy) => proxy.tunnel(uri).await?,
                    None => dial(host, *port).await?,
                };
                Box::new(tls.connect(server.clone(), stream).await?)
            }
        };
        Ok((stream, false))
    }
}

/// Opens connections for hyper's client.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) transport: Arc<Transport>,
    /// For a whole connection attempt, TLS handshake included. ssh starts at once and has a timeout of its own.
    pub(super) timeout: Duration,
    pub(super) metrics: metrics::PoolMetrics,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { transport, timeout, metrics } = self.clone();
        Box::pin(async move {
            let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "connection attempt timed out");
            let (io, is_proxied) = tokio::time::timeout(timeout, transport.open(uri)).await.map_err(timed_out)??;
            metrics.opened();
            Ok(TokioIo::new(Link { io, is_proxied, opened: Instant::now(), metrics }))
        })
    }
}

/// An open connection of any kind.
pub(super) struct Link {
    io: Box<dyn Duplex>,
    /// The other end is a proxy that needs the absolute URL in requests.
    is_proxied: bool,
    opened: Instant,
    metrics: metrics::PoolMetrics,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.metrics.closed(self.opened.elapsed());
    }
}

/// A bidirectional byte stream. A trait object, as nothing above needs to distinguish the kinds again.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

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

//! Connections that are kept for further requests.
//!
//! In: open [`Link`]s and requests. Out: responses whose body is still to be read. Called by [`super::Http`].
//!
//! A connection carries one request at a time. It is ready for the next one when the body of the response has been read
//! to its end, and closes if the body is dropped before. Unused connections close after a while, at the latest after
//! twice the configured time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::connect::Link;

/// To this size, in bytes, a connection's read buffer may grow. Hyper's default of 400 KiB is too much for each of
/// hundreds of log streams.
const READ_BUFFER: usize = 64 << 10;

/// The least time for which an unused connection is kept.
const MIN_IDLE: Duration = Duration::from_millis(100);

/// The connections of one [`super::Http`]. Dropping this closes those that are not in use.
pub(super) struct Connections {
    /// The one used last is at the end. Some are in use: their response is still being read.
    kept: Mutex<Vec<HttpConnection>>,
    /// How many are kept, at least 1.
    limit: usize,
    /// How long an unused connection is kept.
    idle: Duration,
}

pub(super) struct HttpConnection {
    sender: SendRequest<Empty<Bytes>>,
    /// When the last request was sent.
    used: Instant,
}

impl Connections {
    pub(super) fn new(limit: usize, idle: Duration) -> Arc<Connections> {
        Arc::new(Connections { kept: Mutex::default(), limit, idle: idle.max(MIN_IDLE) })
    }

    /// Takes a kept connection that is ready for a request.
    pub(super) fn take(&self) -> Option<HttpConnection> {
        self.expire();
        let mut kept = self.kept();
        let ready = kept.iter().rposition(|connection| connection.sender.is_ready())?;
        Some(kept.remove(ready))
    }

    /// Keeps a connection whose response is being read. Beyond the limit, the one that was used longest ago is closed as
    /// soon as its response has been read.
    pub(super) fn keep(&self, connection: HttpConnection) {
        let mut kept = self.kept();
        kept.push(connection);
        let surplus = kept.len().saturating_sub(self.limit);
        kept.drain(..surplus);
    }

    /// Drives the connection in a task of its own until it closes.
    pub(super) async fn start(self: &Arc<Self>, link: Link) -> hyper::Result<HttpConnection> {
        let (sender, connection) = Builder::new().max_buf_size(READ_BUFFER).handshake(TokioIo::new(link)).await?;
        let (connections, idle) = (Arc::downgrade(self), self.idle);
        tokio::spawn(async move {
            tokio::pin!(connection);
            // An error is returned by the request or by the body, too. The end of all senders ends the connection.
            while timeout(idle, &mut connection).await.is_err() {
                if let Some(connections) = connections.upgrade() {
                    connections.expire();
                }
            }
        });
        Ok(HttpConnection { sender, used: Instant::now() })
    }

    /// Drops the connections that are closed or have not been used for too long.
    fn expire(&self) {
        let now = Instant::now();
        self.kept().retain(|HttpConnection { sender, used }| {
            !sender.is_closed() && (!sender.is_ready() || now - *used < self.idle)
        });
    }

    fn kept(&self) -> MutexGuard<'_, Vec<HttpConnection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnection {
    /// Sends a request and waits for the beginning of its response. The error contains the request if it was not sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Empty<Bytes>>>> {
        self.used = Instant::now();
        self.sender.try_send_request(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::connect::Transport;
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::Notify;

    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

    /// A daemon that answers each request with the same bytes.
    struct Daemon {
        _folder: tempfile::TempDir,
        transport: Transport,
        accepted: Arc<AtomicUsize>,
        /// Notified when the client has closed a connection.
        closed: Arc<Notify>,
    }

    impl Daemon {
        /// `requests` is how many it answers before it closes the connection.
        fn start(answer: &'static str, requests: usize) -> Daemon {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let (accepted, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
            let (count, notify) = (Arc::clone(&accepted), Arc::clone(&closed));
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    let notify = Arc::clone(&notify);
                    tokio::spawn(async move {
                        if Daemon::serve(socket, answer, requests).await {
                            notify.notify_one();
                        }
                    });
                }
            });
            Daemon { _folder: folder, transport: Transport::Unix(path), accepted, closed }
        }

        /// Returns whether the client closed the connection.
        async fn serve(mut socket: UnixStream, answer: &str, requests: usize) -> bool {
            for _ in 0..requests {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return true,
                    }
                }
                let _ = socket.write_all(answer.as_bytes()).await;
            }
            false
        }

        async fn request(&self, connections: &Arc<Connections>) -> Incoming {
            loop {
                let kept = connections.take();
                let mut connection = match kept {
                    Some(connection) => connection,
                    None => {
                        let link = Link::open(&self.transport, Duration::from_secs(9), &Default::default()).await;
                        connections.start(link.unwrap()).await.unwrap()
                    }
                };
                match connection.send(Request::new(Empty::new())).await {
                    Ok(response) => {
                        connections.keep(connection);
                        return response.into_body();
                    }
                    Err(mut failed) => assert!(failed.take_message().is_some(), "{}", failed.error()),
                }
            }
        }
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_connection_is_used_again_after_a_whole_response() {
        for (answer, requests, is_read, expected) in [
            (WHOLE, 9, true, 1),
            (CHUNKED, 9, true, 1),
            // What is left of the response is dropped, and the connection with it, unless all of it has arrived.
            (ENDLESS, 9, false, 3),
            (LAST, 9, true, 3),
            // The daemon closes a connection that the client would use again.
            (WHOLE, 1, true, 3),
        ] {
            in_runtime(async {
                let (daemon, connections) = (Daemon::start(answer, requests), Connections::new(1, Duration::MAX / 4));
                for _ in 0..3 {
                    let body = daemon.request(&connections).await;
                    if is_read {
                        assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
                    }
                    // Lets the client notice that the daemon has closed the connection.
                    tokio::task::yield_now().await;
                }
                let got = daemon.accepted.load(Ordering::Relaxed);
                assert_eq!(got, expected, "{answer:?} {requests} {is_read}");
            });
        }
    }

    #[test]
    fn a_response_that_stays_open_occupies_its_connection() {
        in_runtime(async {
            let (daemon, connections) = (Daemon::start(ENDLESS, 9), Connections::new(2, Duration::MAX / 4));
            let bodies = [daemon.request(&connections).await, daemon.request(&connections).await];
            let third = daemon.request(&connections).await;
            assert_eq!((daemon.accepted.load(Ordering::Relaxed), connections.kept().len()), (3, 2));
            // One too many is kept no longer, but its response goes on.
            for mut body in bodies.into_iter().chain([third]) {
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
            }
        });
    }

    #[test]
    fn an_unused_connection_closes_after_a_while() {
        in_runtime(async {
            let (daemon, connections) = (Daemon::start(WHOLE, 9), Connections::new(1, Duration::ZERO));
            daemon.request(&connections).await.collect().await.unwrap();
            daemon.closed.notified().await;
            assert_eq!(connections.kept().len(), 0);
            // Those that are left close at once.
            let connections = Connections::new(1, Duration::MAX / 4);
            daemon.request(&connections).await.collect().await.unwrap();
            drop(connections);
            daemon.closed.notified().await;
        });
    }
}

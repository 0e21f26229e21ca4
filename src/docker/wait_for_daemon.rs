//! Notices when a daemon that was gone is back.
//!
//! In: the endpoint. Out: futures that complete when the daemon accepts connections again. Called by
//! [`super::Docker::wait_for_daemon`].
//!
//! Everything that has lost the daemon retries after growing waits, and a long wait must not outlast the outage. A
//! daemon creates its socket when it starts, so the socket's folder is watched during such waits. Over tcp there is no
//! signal, so connecting is tried at short, even intervals. Over ssh an attempt would cost a login, so there is only
//! the backoff. One of those who wait does this for all of them, and nobody does it while the daemon is there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::endpoint::Endpoint;
use super::endpoint::address::Address;

/// Time between two connection attempts if there is nothing to watch, and the least time between two returns.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A daemon creates its socket a moment before it listens. After a change, connecting is tried this many times ...
const LISTEN_ATTEMPTS: u32 = 50;
/// ... at this interval.
const LISTEN_INTERVAL: Duration = Duration::from_millis(20);
/// How many symbolic links from the socket's path are followed.
const MAX_LINKS: usize = 8;

/// Watches for the return of one daemon.
pub(super) struct DaemonWatch {
    target: WatchTarget,
    /// How many times the daemon has returned.
    count: watch::Sender<u64>,
    /// Held by the one task that looks for the daemon.
    looking: tokio::sync::Mutex<()>,
    absence: Mutex<Absence>,
    /// The connection has no TLS. With TLS, a daemon may accept connections although the handshake fails, so a failure
    /// does not mean that it refuses them.
    is_plain: bool,
    /// When the daemon last returned.
    last: Mutex<Option<Instant>>,
}

/// Where to look for the daemon.
enum WatchTarget {
    Socket(PathBuf),
    Tcp(String, u16),
    /// Behind ssh or a proxy, where a connection shows nothing about the daemon.
    Hidden,
}

/// What was observed of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Observation {
    /// It accepts a connection.
    Accepting,
    /// It refuses a connection, or does not answer.
    Refused,
    /// Its socket was created, replaced, or changed its owner or mode.
    Changed,
}

/// Whether the daemon is known to have been gone.
#[derive(Clone, Copy, Debug, Default)]
struct Absence(bool);

impl Absence {
    /// Takes an observation and returns whether the daemon is back. A daemon that has accepted connections all the time
    /// has not returned: it has a different problem, and the retries keep to their backoff.
    fn ends(&mut self, observation: Observation) -> bool {
        match observation {
            Observation::Accepting => std::mem::take(&mut self.0),
            Observation::Refused | Observation::Changed => {
                self.0 = true;
                false
            }
        }
    }
}

impl DaemonWatch {
    pub(super) fn new(endpoint: &Endpoint) -> DaemonWatch {
        let is_direct = endpoint.proxies.http.is_empty() && endpoint.proxies.https.is_empty();
        let target = match &endpoint.address {
            Address::Unix(path) => WatchTarget::Socket(path.clone()),
            Address::Tcp { host, port, .. } if is_direct => WatchTarget::Tcp(host.clone(), *port),
            Address::Tcp { .. } | Address::Ssh(_) => WatchTarget::Hidden,
        };
        DaemonWatch::with_target(target, endpoint.tls.is_none())
    }

    fn with_target(target: WatchTarget, is_plain: bool) -> DaemonWatch {
        let (count, looking) = (watch::Sender::new(0), tokio::sync::Mutex::new(()));
        DaemonWatch { target, count, looking, absence: Mutex::default(), is_plain, last: Mutex::default() }
    }

    /// Completes when a daemon that was gone accepts connections again, possibly never. `was_refused` means that it
    /// just refused a connection.
    pub(super) async fn next(&self, was_refused: bool) {
        let mut count = self.count.subscribe();
        if was_refused && self.is_plain {
            self.absence().ends(Observation::Refused);
        }
        tokio::select! {
            biased;
            // `self` owns the sender, so this is never an error.
            _ = count.changed() => {}
            () = self.look() => {}
        }
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) {
        let _looking = self.looking.lock().await;
        match &self.target {
            WatchTarget::Hidden => return std::future::pending().await,
            WatchTarget::Tcp(..) => self.poll_until_back().await,
            WatchTarget::Socket(path) => match Folders::of(path) {
                Ok(folders) => self.watch(&folders).await,
                Err(error) => {
                    tracing::debug!(%error, "cannot watch the folder of the Docker socket");
                    self.poll_until_back().await;
                }
            },
        }
        // A daemon that comes and goes is not reported more often than this.
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
        if let Some(last) = last {
            sleep(RETRY_INTERVAL.saturating_sub(last.elapsed())).await;
        }
        self.count.send_modify(|count| *count += 1);
    }

    async fn poll_until_back(&self) {
        while !self.is_back().await {
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn watch(&self, folders: &Folders) {
        loop {
            // Also covers what happened before the watch began.
            for _ in 0..LISTEN_ATTEMPTS {
                if self.is_back().await {
                    return;
                }
                if !self.absence().0 {
                    break;
                }
                if timeout(LISTEN_INTERVAL, folders.change()).await.is_ok_and(|change| change.is_err()) {
                    return self.poll_until_back().await;
                }
            }
            if folders.change().await.is_err() {
                return self.poll_until_back().await;
            }
            self.absence().ends(Observation::Changed);
        }
    }

    async fn is_back(&self) -> bool {
        let observation = match timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(())) => Observation::Accepting,
            Ok(Err(_)) | Err(_) => Observation::Refused,
        };
        self.absence().ends(observation)
    }

    async fn connect(&self) -> io::Result<()> {
        match &self.target {
            WatchTarget::Socket(path) => UnixStream::connect(path).await.map(drop),
            WatchTarget::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).await.map(drop),
            WatchTarget::Hidden => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// An inotify watch on the folder of a socket, and on those of the links to it.
struct Folders {
    /// An inotify descriptor, which can be polled and read like a pipe.
    inotify: Receiver,
    /// The file names of the socket and of the links to it.
    names: BTreeSet<OsString>,
}

impl Folders {
    fn of(socket: &Path) -> io::Result<Folders> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // ATTRIB, because a daemon sets its socket's mode and owner after creating it.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        let (mut names, mut next) = (BTreeSet::new(), Some(socket.to_owned()));
        for _ in 0..MAX_LINKS {
            let Some(path) = next.take() else { break };
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            inotify::add_watch(&inotify, folder, flags)?;
            names.extend(path.file_name().map(OsStr::to_owned));
            next = std::fs::read_link(&path).ok().map(|target| folder.join(target));
        }
        Ok(Folders { inotify: Receiver::from_owned_fd_unchecked(inotify)?, names })
    }

    /// Completes when a file with one of the names was created or changed. Fails if the folder is gone.
    async fn change(&self) -> io::Result<()> {
        loop {
            self.inotify.readable().await?;
            let (mut has_changed, mut is_gone) = (false, false);
            let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
            let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
            while let Ok(event) = events.next() {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                is_gone |= event.events().contains(ReadFlags::IGNORED);
                has_changed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                has_changed |= name.is_some_and(|name| self.names.contains(name));
            }
            // Reading until nothing is left clears tokio's readiness flag. An event that arrives only now counts as a
            // change.
            has_changed |= self.inotify.try_read(&mut [0; 4096]).is_ok();
            if is_gone {
                return Err(io::ErrorKind::NotFound.into());
            }
            if has_changed {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After this time a return counts as missed.
    const LIMIT: Duration = Duration::from_secs(30);

    fn of_socket(path: &Path) -> DaemonWatch {
        DaemonWatch::with_target(WatchTarget::Socket(path.to_owned()), true)
    }

    /// In whatever way the socket appears again, all who wait notice it.
    #[tokio::test]
    async fn a_new_socket_ends_all_waits() {
        type Create = fn(&Path) -> tokio::net::UnixListener;
        let bound: Create = |path| tokio::net::UnixListener::bind(path).unwrap();
        let moved: Create = |path| {
            let other = path.with_extension("new");
            let listener = tokio::net::UnixListener::bind(&other).unwrap();
            std::fs::rename(other, path).unwrap();
            listener
        };
        let linked: Create = |path| {
            let other = path.parent().unwrap().join("far/engine.sock");
            tokio::net::UnixListener::bind(other).unwrap()
        };
        let in_a_new_folder: Create = |path| {
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            tokio::net::UnixListener::bind(path).unwrap()
        };
        for (name, create) in [("bound", bound), ("moved", moved), ("linked", linked), ("new", in_a_new_folder)] {
            let folder = tempfile::tempdir().unwrap();
            let path = match name {
                "new" => folder.path().join("later/engine.sock"),
                _ => folder.path().join("engine.sock"),
            };
            if name == "linked" {
                std::fs::create_dir(folder.path().join("far")).unwrap();
                std::os::unix::fs::symlink("far/engine.sock", &path).unwrap();
            }
            let daemon = of_socket(&path);
            let create = async {
                // By now they wait, since nothing else runs on this thread.
                tokio::task::yield_now().await;
                create(&path)
            };
            let all = async { tokio::join!(biased; daemon.next(true), daemon.next(false), create) };
            assert!(timeout(LIMIT, all).await.is_ok(), "{name}");
        }
    }

    /// Otherwise a daemon that accepts connections but fails would be retried in an endless loop.
    #[tokio::test]
    async fn a_daemon_that_was_never_gone_does_not_return() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let _engine = tokio::net::UnixListener::bind(&path).unwrap();
        let daemon = of_socket(&path);
        tokio::select! {
            biased;
            () = daemon.next(false) => panic!("it was never gone"),
            () = sleep(Duration::from_millis(100)) => {}
        }
        // After a refusal it has returned, once.
        assert!(timeout(LIMIT, daemon.next(true)).await.is_ok());
        assert!(!daemon.absence().0);
    }

    #[test]
    fn a_daemon_is_back_if_it_accepts_after_refusing() {
        use Observation::{Accepting, Changed, Refused};
        for (observations, expected) in [
            (&[Accepting, Accepting][..], &[false, false][..]),
            (&[Refused, Accepting, Accepting], &[false, true, false]),
            (&[Refused, Refused, Refused, Accepting], &[false, false, false, true]),
            (&[Changed, Accepting], &[false, true]),
            // The socket exists before the daemon listens on it.
            (&[Refused, Changed, Refused, Accepting], &[false, false, false, true]),
            (
                &[Accepting, Changed, Accepting, Accepting, Refused, Accepting],
                &[false, false, true, false, false, true],
            ),
        ] {
            let mut absence = Absence::default();
            let found: Vec<bool> = observations.iter().map(|observation| absence.ends(*observation)).collect();
            assert_eq!(found, expected, "{observations:?}");
        }
    }
}

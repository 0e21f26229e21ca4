//! When an engine that was gone is there again.
//!
//! Whoever has lost it tries again after a wait that grows, and a long wait must not outlast the outage. So the folder of
//! the engine's socket is watched meanwhile: an engine that starts makes its socket anew. Over tcp nothing tells, so
//! connecting is tried at a short, even distance; ssh would cost a login each time and has its waits alone. One of those
//! who wait looks for all of them, and nobody looks while the engine is there.

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

/// Between two attempts where nothing tells of a return.
const TRIES: Duration = Duration::from_secs(1);
/// An attempt may take so long.
const ATTEMPT: Duration = Duration::from_secs(1);
/// An engine makes its socket a moment before it listens: it is tried so often, ...
const MOMENTS: u32 = 50;
/// ... at this distance.
const MOMENT: Duration = Duration::from_millis(20);
/// Links from one name of the socket to the next, at most.
const LINKS: usize = 8;

/// See the module.
pub(super) struct Returns {
    door: Door,
    /// How often it has returned.
    count: watch::Sender<u64>,
    /// Whoever holds it looks.
    turn: tokio::sync::Mutex<()>,
    absence: Mutex<Absence>,
    /// With TLS a connection may be taken and end in the handshake, which is no refusal.
    is_plain: bool,
    /// The newest return.
    last: Mutex<Option<Instant>>,
}

enum Door {
    Socket(PathBuf),
    Tcp(String, u16),
    /// Behind something else, which tells nothing of the engine.
    Hidden,
}

/// What was seen of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// It takes a connection.
    Open,
    /// It takes none.
    Shut,
    /// Its socket was made anew, or is another's now.
    Changed,
}

/// Whether the engine is known to have been gone.
#[derive(Clone, Copy, Debug, Default)]
struct Absence(bool);

impl Absence {
    /// Whether this sign says that it is back. One that takes connections all the time has not returned: something else is
    /// wrong with it, and it is left alone for as long as the wait says.
    fn ends(&mut self, sign: Sign) -> bool {
        match sign {
            Sign::Open => std::mem::take(&mut self.0),
            Sign::Shut | Sign::Changed => {
                self.0 = true;
                false
            }
        }
    }
}

impl Returns {
    pub(super) fn new(endpoint: &Endpoint) -> Returns {
        let is_direct = endpoint.proxies.http.is_empty() && endpoint.proxies.https.is_empty();
        let door = match &endpoint.address {
            Address::Unix(path) => Door::Socket(path.clone()),
            Address::Tcp { host, port, .. } if is_direct => Door::Tcp(host.clone(), *port),
            Address::Tcp { .. } | Address::Ssh(_) => Door::Hidden,
        };
        Returns::through(door, endpoint.tls.is_none())
    }

    fn through(door: Door, is_plain: bool) -> Returns {
        let (count, turn) = (watch::Sender::new(0), tokio::sync::Mutex::new(()));
        Returns { door, count, turn, absence: Mutex::default(), is_plain, last: Mutex::default() }
    }

    /// Returns when an engine that was gone takes connections again; `was_shut` if it took none a moment ago. May never
    /// return.
    pub(super) async fn next(&self, was_shut: bool) {
        let mut count = self.count.subscribe();
        if was_shut && self.is_plain {
            self.absence().ends(Sign::Shut);
        }
        tokio::select! {
            biased;
            // The sender is ours, so it does not go away.
            _ = count.changed() => {}
            () = self.look() => {}
        }
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) {
        let _turn = self.turn.lock().await;
        match &self.door {
            Door::Hidden => return std::future::pending().await,
            Door::Tcp(..) => self.try_again_and_again().await,
            Door::Socket(path) => match Folders::of(path) {
                Ok(folders) => self.watch(&folders).await,
                Err(error) => {
                    tracing::debug!(%error, "the folder of the engine's socket cannot be watched");
                    self.try_again_and_again().await;
                }
            },
        }
        // One that comes and goes is not tried more often than this.
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
        if let Some(last) = last {
            sleep(TRIES.saturating_sub(last.elapsed())).await;
        }
        self.count.send_modify(|count| *count += 1);
    }

    async fn try_again_and_again(&self) {
        while !self.is_back().await {
            sleep(TRIES).await;
        }
    }

    async fn watch(&self, folders: &Folders) {
        loop {
            // What happened before it was watched has to be looked for.
            for _ in 0..MOMENTS {
                if self.is_back().await {
                    return;
                }
                if !self.absence().0 {
                    break;
                }
                if timeout(MOMENT, folders.change()).await.is_ok_and(|change| change.is_err()) {
                    return self.try_again_and_again().await;
                }
            }
            if folders.change().await.is_err() {
                return self.try_again_and_again().await;
            }
            self.absence().ends(Sign::Changed);
        }
    }

    async fn is_back(&self) -> bool {
        let sign = match timeout(ATTEMPT, self.connect()).await {
            Ok(Ok(())) => Sign::Open,
            Ok(Err(_)) | Err(_) => Sign::Shut,
        };
        self.absence().ends(sign)
    }

    async fn connect(&self) -> io::Result<()> {
        match &self.door {
            Door::Socket(path) => UnixStream::connect(path).await.map(drop),
            Door::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).await.map(drop),
            Door::Hidden => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// The folders in which a socket is made, under each of its names.
struct Folders {
    /// Not a pipe, but read like one.
    inotify: Receiver,
    names: BTreeSet<OsString>,
}

impl Folders {
    fn of(socket: &Path) -> io::Result<Folders> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A socket's mode and owner are set once it is there.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        let (mut names, mut next) = (BTreeSet::new(), Some(socket.to_owned()));
        for _ in 0..LINKS {
            let Some(path) = next.take() else { break };
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            inotify::add_watch(&inotify, folder, flags)?;
            names.extend(path.file_name().map(OsStr::to_owned));
            next = std::fs::read_link(&path).ok().map(|target| folder.join(target));
        }
        Ok(Folders { inotify: Receiver::from_owned_fd_unchecked(inotify)?, names })
    }

    /// Returns when something of that name was made; an error when the folder is gone.
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
            // Nothing is left, which has to be said for the next to be waited for. What comes just now is looked into.
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

    /// As long as a return may take before it counts as missed.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn of_socket(path: &Path) -> Returns {
        Returns::through(Door::Socket(path.to_owned()), true)
    }

    /// However the socket comes to be there again, all who wait are told.
    #[tokio::test]
    async fn a_socket_that_is_there_again_is_noticed_by_all() {
        type Making = fn(&Path) -> tokio::net::UnixListener;
        let bound: Making = |path| tokio::net::UnixListener::bind(path).unwrap();
        let moved: Making = |path| {
            let other = path.with_extension("new");
            let listener = tokio::net::UnixListener::bind(&other).unwrap();
            std::fs::rename(other, path).unwrap();
            listener
        };
        let linked: Making = |path| {
            let other = path.parent().unwrap().join("far/engine.sock");
            tokio::net::UnixListener::bind(other).unwrap()
        };
        let in_a_new_folder: Making = |path| {
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            tokio::net::UnixListener::bind(path).unwrap()
        };
        for (name, making) in [("bound", bound), ("moved", moved), ("linked", linked), ("new", in_a_new_folder)] {
            let folder = tempfile::tempdir().unwrap();
            let path = match name {
                "new" => folder.path().join("later/engine.sock"),
                _ => folder.path().join("engine.sock"),
            };
            if name == "linked" {
                std::fs::create_dir(folder.path().join("far")).unwrap();
                std::os::unix::fs::symlink("far/engine.sock", &path).unwrap();
            }
            let returns = of_socket(&path);
            let making = async {
                // They wait by now: nothing else runs on this thread.
                tokio::task::yield_now().await;
                making(&path)
            };
            let all = async { tokio::join!(biased; returns.next(true), returns.next(false), making) };
            assert!(timeout(PATIENCE, all).await.is_ok(), "{name}");
        }
    }

    /// An engine that takes connections and is unwell otherwise is not tried without end.
    #[tokio::test]
    async fn an_engine_that_never_left_does_not_return() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let _engine = tokio::net::UnixListener::bind(&path).unwrap();
        let returns = of_socket(&path);
        tokio::select! {
            biased;
            () = returns.next(false) => panic!("it never left"),
            () = sleep(Duration::from_millis(100)) => {}
        }
        // After a refusal it has come back; once.
        assert!(timeout(PATIENCE, returns.next(true)).await.is_ok());
        assert!(!returns.absence().0);
    }

    /// Only an engine that was gone can return.
    #[test]
    fn an_engine_is_back_when_it_opens_after_it_was_shut() {
        use Sign::{Changed, Open, Shut};
        for (signs, expected) in [
            (&[Open, Open][..], &[false, false][..]),
            (&[Shut, Open, Open], &[false, true, false]),
            (&[Shut, Shut, Shut, Open], &[false, false, false, true]),
            (&[Changed, Open], &[false, true]),
            // The socket is there, and nobody listens yet.
            (&[Shut, Changed, Shut, Open], &[false, false, false, true]),
            (&[Open, Changed, Open, Open, Shut, Open], &[false, false, true, false, false, true]),
        ] {
            let mut absence = Absence::default();
            let found: Vec<bool> = signs.iter().map(|sign| absence.ends(*sign)).collect();
            assert_eq!(found, expected, "{signs:?}");
        }
    }
}

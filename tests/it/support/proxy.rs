//! A proxy on a Unix socket between the program and the engine, which applies faults to the traffic.
//!
//! Rules select requests by a part of their request line. The proxy counts connections and requests; it parses just
//! enough HTTP to find where each request begins.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use tempfile::TempDir;

use super::{Engine, Script};

/// What happens to the requests that a rule selects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// No more of the engine's answer arrives until the rules change.
    Stall,
    /// Each block of the engine's answer arrives this much later.
    Delay(Duration),
    /// One bit in the middle of every block of the answer except the first is flipped.
    Corrupt,
    /// The request does not reach the engine. The client gets this status with a message in the engine's form, then the
    /// connection ends.
    Status(u16),
    /// The first brace in every block of the answer except the first is replaced.
    Blot,
    /// Half of the first block of the engine's answer arrives, then the connection ends.
    Half,
    /// This many bytes of the engine's answer arrive, then the connection ends.
    Cut(usize),
    /// The request does not reach the engine. The client gets an HTML page with this status, as from a gateway.
    Page(u16),
    /// The request does not reach the engine: the connection ends.
    Hangup,
}

/// A running proxy.
pub struct Proxy {
    dir: TempDir,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    engine: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<(String, Fault)>,
    /// The numbers of the connections on which no answer arrives.
    stalled: Vec<usize>,
    /// All request lines in the order of their arrival.
    requests: Vec<String>,
    /// When each of `requests` arrived.
    arrivals: Vec<Instant>,
    accepted: usize,
    open: Vec<Connection>,
    /// Set when the acceptor has to end.
    closing: bool,
}

struct Connection {
    number: usize,
    /// The last request line on this connection.
    request: String,
    ends: [UnixStream; 2],
}

impl Connection {
    fn cut(&self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Proxy {
    /// Starts a proxy without rules.
    pub fn start(engine: &Engine) -> Self {
        Self::at(engine.socket())
    }

    /// The same in front of a scripted engine.
    pub fn before(script: &Script) -> Self {
        Self::at(script.socket())
    }

    fn at(engine: PathBuf) -> Self {
        super::watchdog::watch();
        let dir = TempDir::with_prefix_in("lwp", "/tmp").unwrap();
        let shared = Arc::new(Shared { engine, state: Mutex::default(), changed: Condvar::new() });
        let proxy = Self { dir, shared, acceptor: Mutex::default() };
        proxy.admit();
        proxy
    }

    /// The value for `-H` and `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// From now on `fault` applies to requests whose line contains `part` (all, if it is empty); the newest rule goes
    /// first. Faults that concern answers also apply to answers that are under way.
    pub fn on(&self, part: &str, fault: Fault) {
        self.shared.state().rules.insert(0, (part.to_owned(), fault));
        self.shared.changed.notify_all();
    }

    /// Removes the rules for requests whose line contains `part`.
    pub fn off(&self, part: &str) {
        self.shared.state().rules.retain(|(of, _)| of != part);
        self.shared.changed.notify_all();
    }

    /// Removes all rules; stalled answers continue where they stopped.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.stalled.clear();
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Stalls every other connection, and later ones that replace a stalled one. Returns how many were stalled.
    pub fn stall_half(&self) -> usize {
        let mut state = self.shared.state();
        state.stalled = state.open.iter().step_by(2).map(|connection| connection.number).collect();
        state.stalled.len()
    }

    /// Cuts every connection; new ones are accepted.
    pub fn cut(&self) {
        self.cut_where("");
    }

    /// Cuts the connections whose last request line contains `part`; returns how many.
    pub fn cut_where(&self, part: &str) -> usize {
        let state = self.shared.state();
        let cut: Vec<_> = state.open.iter().filter(|connection| connection.request.contains(part)).collect();
        cut.iter().for_each(|connection| connection.cut());
        cut.len()
    }

    /// Cuts every connection and refuses new ones, like an engine that is down.
    pub fn refuse(&self) {
        if let Some(acceptor) = self.acceptor.lock().unwrap().take() {
            self.shared.state().closing = true;
            // Only a connection wakes it.
            let _ = UnixStream::connect(self.socket());
            acceptor.join().unwrap();
        }
        self.cut();
    }

    /// Accepts connections again.
    pub fn admit(&self) {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        self.shared.state().closing = false;
        let shared = Arc::clone(&self.shared);
        *self.acceptor.lock().unwrap() = Some(thread::spawn(move || accept(&shared, &listener)));
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state().accepted
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.shared.state().open.len()
    }

    /// Every request line so far, such as `GET /v1.41/containers/json HTTP/1.1`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// When the requests arrived whose line contains `part`.
    pub fn arrivals(&self, part: &str) -> Vec<Instant> {
        let state = self.shared.state();
        let all = state.requests.iter().zip(&state.arrivals);
        all.filter(|(line, _)| line.contains(part)).map(|(_, came)| *came).collect()
    }

    /// How many request lines contain `part`.
    pub fn count(&self, part: &str) -> usize {
        self.shared.state().requests.iter().filter(|line| line.contains(part)).count()
    }

    /// Resets the counts of requests and connections.
    pub fn forget(&self) {
        let mut state = self.shared.state();
        state.requests.clear();
        state.arrivals.clear();
        state.accepted = 0;
    }

    /// Waits until a request line contains `part`.
    #[track_caller]
    pub fn wait_for(&self, part: &str, timeout: Duration) {
        let absent = |state: &mut State| !state.requests.iter().any(|line| line.contains(part));
        let (state, waited) = self.shared.changed.wait_timeout_while(self.shared.state(), timeout, absent).unwrap();
        assert!(!waited.timed_out(), "no request {part:?} in {timeout:?}, but {:?}", state.requests);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.heal();
        self.refuse();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client whose connection stalls may open the next one before it closes that.
    fn wait_for_hangup(&self) {
        let end = Instant::now() + Duration::from_millis(200);
        let has_hung_up = |state: &State| state.stalled.is_empty() || state.left().is_some();
        while !has_hung_up(&self.state()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn fault(&self, request: &str) -> Option<Fault> {
        fault(&self.state(), request)
    }
}

fn fault(state: &State, request: &str) -> Option<Fault> {
    state.rules.iter().find(|(part, _)| request.contains(part)).map(|(_, fault)| *fault)
}

impl State {
    fn is_stalled(&self, number: usize) -> bool {
        self.stalled.contains(&number)
    }

    /// The index among the open connections of a stalled one that its client has closed.
    fn left(&self) -> Option<usize> {
        let is_closed = |connection: &Connection| {
            let peeked = recv(&connection.ends[0], [0_u8; 1].as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT);
            matches!(peeked, Ok((_, 0)))
        };
        self.open.iter().position(|connection| self.is_stalled(connection.number) && is_closed(connection))
    }

    /// The next new connection stalls in place of one that its client has closed.
    fn inherit(&mut self, number: usize) {
        if let Some(left) = self.left() {
            let left = self.open.remove(left);
            left.cut();
            self.stalled.retain(|stalled| *stalled != left.number);
            self.stalled.push(number);
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for (number, client) in listener.incoming().enumerate() {
        shared.wait_for_hangup();
        let mut state = shared.state();
        if state.closing {
            return;
        }
        state.accepted += 1;
        let Ok(client) = client else { continue };
        // To the client, an engine that is down looks like one that hangs up.
        let Ok(engine) = UnixStream::connect(&shared.engine) else { continue };
        let Ok(ends) = both(&client, &engine) else { continue };
        state.inherit(number);
        state.open.push(Connection { number, request: String::new(), ends });
        drop(state);
        shared.changed.notify_all();
        let Ok([from_engine, to_client]) = both(&engine, &client) else { continue };
        let (up, down) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || {
            let _ = carry_requests(&up, number, client, engine);
        });
        thread::spawn(move || {
            let _ = carry_answers(&down, number, from_engine, to_client);
            let mut state = down.state();
            // The connection was cut, or the engine ended it: close both ends.
            state.open.iter().filter(|connection| connection.number == number).for_each(Connection::cut);
            state.open.retain(|connection| connection.number != number);
            drop(state);
            down.changed.notify_all();
        });
    }
}

fn both(one: &UnixStream, other: &UnixStream) -> io::Result<[UnixStream; 2]> {
    Ok([one.try_clone()?, other.try_clone()?])
}

/// Forwards requests one by one. Their bodies have a `Content-Length` or are absent, as Docker clients send them.
fn carry_requests(shared: &Shared, number: usize, mut client: UnixStream, mut engine: UnixStream) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let Some(end) = read_head(&mut client, &mut pending)? else {
            // The client sends no more requests, but may still wait for the answer.
            return engine.shutdown(Shutdown::Write);
        };
        let head = String::from_utf8_lossy(&pending[..end]).into_owned();
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut state = shared.state();
        state.requests.push(line.clone());
        state.arrivals.push(Instant::now());
        if let Some(connection) = state.open.iter_mut().find(|connection| connection.number == number) {
            connection.request.clone_from(&line);
        }
        let fault = fault(&state, &line);
        drop(state);
        shared.changed.notify_all();
        match fault {
            Some(Fault::Status(status)) => {
                let body = format!("{{\"message\":\"the proxy says {status}\"}}\n");
                answer(&mut client, status, "application/json", &body)?;
                return engine.shutdown(Shutdown::Both);
            }
            Some(Fault::Page(status)) => {
                let body = "<html>\n<head><title>Gateway</title></head>\n<body><h1>Sorry</h1></body>\n</html>\n";
                answer(&mut client, status, "text/html", body)?;
                return engine.shutdown(Shutdown::Both);
            }
            Some(Fault::Hangup) => {
                client.shutdown(Shutdown::Both)?;
                return engine.shutdown(Shutdown::Both);
            }
            _ => {}
        }
        let body = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = end + body.unwrap_or(0);
        while pending.len() < length {
            if read_more(&mut client, &mut pending)? == 0 {
                return engine.shutdown(Shutdown::Write);
            }
        }
        engine.write_all(&pending[..length])?;
        pending.drain(..length);
        if head.to_ascii_lowercase().contains("\r\nupgrade:") {
            io::copy(&mut client, &mut engine)?;
            return Ok(());
        }
    }
}

fn answer(client: &mut UnixStream, status: u16, kind: &str, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Fault\r\nContent-Type: {kind}\r\nConnection: close");
    write!(client, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The length of the next request's head in `pending`; `None` when the client has closed the connection.
fn read_head(client: &mut UnixStream, pending: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if read_more(client, pending)? == 0 {
            return Ok(None);
        }
    }
}

fn read_more(client: &mut UnixStream, pending: &mut Vec<u8>) -> io::Result<usize> {
    let mut block = [0; 4096];
    let length = client.read(&mut block)?;
    pending.extend_from_slice(&block[..length]);
    Ok(length)
}

fn carry_answers(shared: &Shared, number: usize, mut engine: UnixStream, mut client: UnixStream) -> io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    let mut asked = String::new();
    let (mut first, mut carried) = (true, 0);
    loop {
        let length = engine.read(&mut block)?;
        if length == 0 {
            return Ok(());
        }
        let request = |state: &State| {
            let connection = state.open.iter().find(|connection| connection.number == number);
            connection.map(|connection| connection.request.clone()).unwrap_or_default()
        };
        let request = request(&shared.state());
        if request != asked {
            (first, carried, asked) = (true, 0, request);
        }
        // A stalled connection may be cut, by us or by the program.
        let stalled = |state: &mut State| {
            (fault(state, &asked) == Some(Fault::Stall) || state.is_stalled(number))
                && state.open.iter().any(|connection| connection.number == number)
        };
        drop(shared.changed.wait_while(shared.state(), stalled));
        match shared.fault(&asked) {
            Some(Fault::Delay(time)) => thread::sleep(time),
            Some(Fault::Corrupt) if !first => block[length / 2] ^= 0x04,
            Some(Fault::Blot) if !first => {
                block[..length].iter_mut().filter(|byte| **byte == b'{').take(1).for_each(|brace| *brace = b'?')
            }
            Some(Fault::Half) => return client.write_all(&block[..length / 2]),
            Some(Fault::Cut(most)) if carried + length >= most => {
                return client.write_all(&block[..most.saturating_sub(carried)]);
            }
            _ => {}
        }
        carried += length;
        client.write_all(&block[..length])?;
        first = false;
    }
}

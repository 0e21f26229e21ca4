//! A scripted HTTP server on a Unix socket, for what a real engine cannot be made to do: another API version, malformed
//! frames, ten thousand containers.
//!
//! A function answers each request. Every connection has its own thread.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

/// A server; dropping it closes all connections.
pub struct Script {
    dir: TempDir,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<String>>,
    open: Mutex<Vec<UnixStream>>,
    closing: AtomicBool,
}

/// A request without its headers and body.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// With the query, without the prefix `/v1.NN`.
    pub path: String,
    /// The `1.NN` of the path, if it has one.
    pub version: Option<String>,
}

/// Where the answer goes: one of [`json`](Self::json), [`raw`](Self::raw), or [`begin`](Self::begin) with
/// [`chunk`](Self::chunk)s. A chunked answer ends when the function returns; a function that sends nothing closes the
/// connection.
pub struct Answer {
    client: UnixStream,
    /// The request was `HEAD`, whose answer has no body.
    pub is_bodiless: bool,
    chunked: bool,
    /// The answer was complete, so the connection can serve another request.
    whole: bool,
}

impl Script {
    /// Serves until it is dropped.
    pub fn start(answer: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Self {
        super::watchdog::watch();
        let dir = TempDir::with_prefix_in("lws", "/tmp").unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let shared = Arc::new(Shared::default());
        let answer = Arc::new(answer);
        let inner = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for client in listener.incoming() {
                if inner.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let Ok(handle) = client.try_clone() else { continue };
                inner.open.lock().unwrap().push(handle);
                let (shared, answer) = (Arc::clone(&inner), Arc::clone(&answer));
                thread::spawn(move || {
                    let _ = serve(&shared, client, &*answer);
                });
            }
        });
        Self { dir, shared, acceptor: Some(acceptor) }
    }

    /// Serves as an engine that has nothing, and to which nothing happens.
    pub fn idle() -> Self {
        Self::start(Answer::as_idle)
    }

    /// The value for `-H` and `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Every request so far, such as `GET /v1.41/info`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.socket());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for client in self.shared.open.lock().unwrap().iter() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

impl Answer {
    /// The answer of an engine that has nothing, and to which nothing happens.
    pub fn as_idle(request: &Request, answer: &mut Answer) {
        match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"idle","ServerVersion":"20.10.24","DockerRootDir":"/nowhere"}"#),
            "/version" => answer.json(200, r#"{"ApiVersion":"1.41","Version":"20.10.24","Os":"linux"}"#),
            "/containers/json" => answer.json(200, "[]"),
            "/events" => {
                answer.begin("application/json");
                // A request for past events ends.
                if !request.path.contains("until=") {
                    answer.hold();
                }
            }
            _ => answer.json(404, r#"{"message":"not in the script"}"#),
        }
    }

    /// A complete answer. Errors are ignored here and below: they mean that the client has left.
    pub fn json(&mut self, status: u16, body: &str) {
        let head = "Content-Type: application/json\r\nApi-Version: 1.41\r\nOstype: linux\r\nServer: Script";
        let length = body.len();
        let body = if self.is_bodiless { "" } else { body };
        self.raw(format!("HTTP/1.1 {status} Scripted\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
        self.whole = true;
    }

    /// Exactly these bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.client.write_all(bytes);
    }

    /// The same; returns `false` once the client has left.
    pub fn try_raw(&mut self, bytes: &[u8]) -> bool {
        self.client.write_all(bytes).is_ok()
    }

    /// The head of a chunked answer with status 200.
    pub fn begin(&mut self, content_type: &str) {
        let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nTransfer-Encoding: chunked";
        self.raw(format!("{head}\r\nContent-Type: {content_type}\r\n\r\n").as_bytes());
        self.chunked = true;
    }

    /// One chunk, sent at once.
    pub fn chunk(&mut self, bytes: &[u8]) {
        self.raw(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
    }

    /// One frame of a log stream: 1 is stdout, 2 is stderr, 3 is an error of the engine.
    pub fn frame(&mut self, stream: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.chunk(&[&[stream, 0, 0, 0], length.as_slice(), payload].concat());
    }

    /// Keeps the answer open until the client leaves or the script is dropped.
    pub fn hold(&mut self) {
        while self.client.read(&mut [0; 256]).is_ok_and(|length| length > 0) {}
        self.chunked = false;
    }
}

fn serve(shared: &Shared, client: UnixStream, answer: &dyn Fn(&Request, &mut Answer)) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    while let Some(request) = read_request(shared, &mut reader)? {
        let mut reply =
            Answer { client: client.try_clone()?, is_bodiless: request.method == "HEAD", chunked: false, whole: false };
        answer(&request, &mut reply);
        if reply.chunked {
            reply.raw(b"0\r\n\r\n");
        }
        if !reply.whole && !reply.chunked {
            break;
        }
    }
    client.shutdown(Shutdown::Both)
}

fn read_request(shared: &Shared, reader: &mut BufReader<UnixStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    shared.requests.lock().unwrap().push(format!("{method} {path}"));
    let (version, path) = match path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((version, rest)) => (Some(version.to_owned()), format!("/{rest}")),
        None => (None, path.to_owned()),
    };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method: method.to_owned(), path, version }))
}

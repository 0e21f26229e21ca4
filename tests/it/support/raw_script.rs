//! A server that answers the head of each request with given bytes, for answers that are not well-formed HTTP.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

/// Calls a function with the head of each request and sends the bytes that it returns. Connections stay open; an empty
/// answer closes one.
pub struct RawScript {
    folder: tempfile::TempDir,
    pub heard: Arc<Mutex<Vec<String>>>,
}

impl RawScript {
    pub fn play(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> RawScript {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (heard.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        RawScript { folder, heard }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("s").display())
    }

    /// The first line of each request so far.
    pub fn lines(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
    }
}

/// How an answer starts after which the server closes the connection.
pub const CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n";

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            log.lock().unwrap().push(text.clone());
            let bytes = answer(&text);
            if bytes.is_empty() || stream.write_all(bytes.as_bytes()).is_err() || bytes.starts_with(CLOSE) {
                return;
            }
        }
    }
}

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// An engine that supports API versions between these and lists no containers.
pub fn engine_of(newest: &'static str, oldest: &'static str) -> impl Fn(&str) -> String + Send + Sync + 'static {
    let number = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    move |head| {
        let path = head.split(' ').nth(1).unwrap();
        let ping = format!("Api-Version: {newest}\r\n");
        let asked = path.strip_prefix("/v").map(|path| path.split('/').next().unwrap());
        let body = match asked {
            Some(asked) if number(asked) > number(newest) => {
                format!("client version {asked} is too new. Maximum supported API version is {newest}")
            }
            Some(asked) if number(asked) < number(oldest) => format!(
                "client version {asked} is too old. Minimum supported API version is {oldest}, please upgrade your client to a newer version"
            ),
            _ if head.starts_with("HEAD") => return format!("HTTP/1.1 200 OK\r\n{ping}Content-Length: 2\r\n\r\n"),
            _ if path.ends_with("/_ping") => return answer("200 OK", &ping, "OK"),
            _ => return answer("200 OK", &ping, "[]"),
        };
        answer("400 Bad Request", &ping, &serde_json::json!({ "message": body }).to_string())
    }
}

/// An HTTP proxy over TCP, scripted in the same way. Returns its port and the heads of all requests.
pub fn http_proxy(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (log, answer) = (heard.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, answer) = (log.clone(), answer.clone());
            std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
        }
    });
    (port, heard)
}

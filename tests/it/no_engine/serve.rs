//! What `--listen` serves to whom, with an engine to which nothing happens.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Script, configured, get, place};

/// The chosen port is reported even when no other notices are wanted.
#[test]
fn a_chosen_port_is_always_reported() {
    let engine = Script::idle();
    let watch = configured(&engine.host(), &[], &["--listen", "127.0.0.1:0", "-q"]);
    let place = place(&watch);
    assert_eq!(get(&place, "/metrics").0, 200);
    let finished = watch.stop();
    assert_eq!(finished.stderr, format!("serving metrics and health at http://{place}\n"));
}

/// A web page that uses a foreign name for this machine is refused, while Prometheus may use any name on the network.
#[test]
fn foreign_host_headers_are_refused() {
    let engine = Script::idle();
    for (listen, code) in [("127.0.0.1:0", 421), ("0.0.0.0:0", 200)] {
        let watch = configured(&engine.host(), &[], &["--listen", listen]);
        let place = place(&watch).replace("0.0.0.0", "127.0.0.1");
        let mut socket = TcpStream::connect(&place).unwrap();
        write!(socket, "GET /metrics HTTP/1.1\r\nHost: evil.example:8519\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{listen}: {answer}");
        assert_eq!(get(&place, "/metrics").0, 200, "{listen}");
        watch.stop();
    }
}

//! Requests to the address that `--listen` serves.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{PATIENCE, Watch};

/// The address in the program's notice.
pub fn place(watch: &Watch) -> String {
    const NOTICE: &str = "serving metrics and health at http://";
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with(NOTICE)), PATIENCE);
    let notices = watch.notices();
    notices.iter().find_map(|line| line.strip_prefix(NOTICE)).unwrap().to_owned()
}

/// Returns status and body.
pub fn get(place: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(place).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

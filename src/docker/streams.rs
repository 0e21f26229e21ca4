//! Logs and events as they come: what to ask for, and the answer that does not end.
//!
//! In: a query. Out: chunks of a log's body, as raw as they arrive, or events. Called by [`super::Docker`].
//! Times go over as `seconds.nanoseconds`: anything else is refused, and whole seconds would repeat or lose lines (moby
//! `daemon/logs.go`). No Accept header is sent, which is how events come one to a line (moby `system_routes.go`).

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::selector::Filters;
use crate::model::time::Timestamp;

use super::events::{Event, Malformed, Splitter};
use super::pool::StreamPermit;
use super::{Api, Error};

/// Which part of a container's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogsQuery {
    /// Go on after the end, until the container stops.
    pub follow: bool,
    /// With the standard output. One of the two has to be asked for.
    pub stdout: bool,
    /// With the standard error.
    pub stderr: bool,
    /// Not before; inclusive.
    pub since: Option<Timestamp>,
    /// Not after; inclusive. With `follow` it ends the stream at the first later line, not at that time.
    pub until: Option<Timestamp>,
    /// That many records from the end, counted before the times are looked at; a record is 16 KiB at most. All of them
    /// if `None`.
    pub tail: Option<u64>,
}

impl Default for LogsQuery {
    fn default() -> Self {
        LogsQuery { follow: false, stdout: true, stderr: true, since: None, until: None, tail: None }
    }
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Inclusive. Up to 256 past events are kept by the engine, in memory, of all types together.
    pub since: Option<Timestamp>,
    /// Inclusive; the stream ends then.
    pub until: Option<Timestamp>,
    /// Values of one key are alternatives, keys add up. `container` matches prefixes of IDs and names. `event` is an
    /// exact match, unless `health_status`, `exec_create` or `exec_start` is among its values: then all are prefixes.
    pub filters: Filters,
}

impl LogsQuery {
    pub(super) fn path(&self, id: &str, is_podman: bool) -> String {
        let (follow, stdout, stderr) = (u8::from(self.follow), u8::from(self.stdout), u8::from(self.stderr));
        // Podman's own form has frames with a terminal too: without them nothing tells where a piece of a line ends.
        let api = if is_podman { "/libpod" } else { "" };
        let mut path =
            format!("{api}/containers/{id}/logs?follow={follow}&stdout={stdout}&stderr={stderr}&timestamps=1");
        // Podman leaves out both ends, and reads the numbers as floating point, which is a quarter of a microsecond off.
        let margin = if is_podman { 1000 } else { 0 };
        let (since, until) = (self.since.map(|time| time.plus(-margin)), self.until.map(|time| time.plus(margin)));
        push_times(&mut path, since, until);
        if let Some(tail) = self.tail {
            let _ = write!(path, "&tail={tail}");
        }
        path
    }
}

impl EventsQuery {
    pub(super) fn path(&self, is_podman: bool) -> String {
        let mut filters = self.filters.clone();
        if is_podman && let Some(wanted) = filters.get_mut("event") {
            add_podmans_words(wanted);
        }
        let mut path = format!("/events?filters={}", encoded(&filters));
        push_times(&mut path, self.since, self.until);
        path
    }
}

fn push_times(path: &mut String, since: Option<Timestamp>, until: Option<Timestamp>) {
    for (name, time) in [("since", since), ("until", until)] {
        if let Some(time) = time {
            let _ = write!(path, "&{name}={}", time.api());
        }
    }
}

/// The reverse of what [`super::events`] does to the answers.
fn add_podmans_words(wanted: &mut Vec<String>) {
    for (dockers, podmans) in [("destroy", "remove"), ("die", "died")] {
        if wanted.iter().any(|word| word == dockers) {
            wanted.push(podmans.to_owned());
        }
    }
}

/// As a parameter of a request.
pub(super) fn encoded(filters: &Filters) -> String {
    let json = serde_json::json!(filters).to_string();
    utf8_percent_encode(&json, NON_ALPHANUMERIC).to_string()
}

/// What is handed on at once, where so much has come.
const BLOCK: usize = 64 * 1024;

/// A container's logs. Dropped, it closes its connection.
pub struct LogStream {
    body: Body,
    /// What has come and was not handed on.
    block: BytesMut,
    /// What came behind it.
    failed: Option<Error>,
}

impl LogStream {
    pub(super) fn new(body: Incoming, wire: Arc<Api>, place: StreamPermit) -> Self {
        LogStream { body: Body { body: Some((body, Some(place))), wire }, block: BytesMut::new(), failed: None }
    }

    /// The next bytes, cut anywhere; `None` at the end. A lost connection is the last item. Nothing is lost when the
    /// future is dropped.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.block.is_empty() {
            if let Some(error) = self.failed.take() {
                return Some(Err(error));
            }
            match self.body.next().await? {
                Ok(bytes) => self.block.extend_from_slice(&bytes),
                Err(error) => return Some(Err(error)),
            }
        }
        // The engine sends each record as a chunk of its own, and one by one they would cost more than what is in them.
        while self.block.len() < BLOCK {
            // The task that reads the socket is given its turn.
            tokio::task::yield_now().await;
            match self.body.next().now_or_never() {
                Some(Some(Ok(bytes))) => self.block.extend_from_slice(&bytes),
                Some(Some(Err(error))) => {
                    self.failed = Some(error);
                    break;
                }
                Some(None) | None => break,
            }
        }
        Some(Ok(self.block.split().freeze()))
    }
}

/// An answer that may be long in beginning.
type Begun = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>;

/// The engine's events. Dropped, it closes its connection.
pub struct EventStream {
    /// Until the answer has begun.
    opening: Option<(Begun, StreamPermit)>,
    body: Body,
    lines: Splitter,
}

impl EventStream {
    pub(super) fn new(body: Incoming, wire: Arc<Api>) -> Self {
        EventStream { opening: None, body: Body { body: Some((body, None)), wire }, lines: Splitter::default() }
    }

    pub(super) fn awaiting(answer: Begun, wire: Arc<Api>, place: StreamPermit) -> Self {
        EventStream { opening: Some((answer, place)), body: Body { body: None, wire }, lines: Splitter::default() }
    }

    /// Whether the answer has begun: only then it is certain that nothing that happens from now on is missing.
    pub fn has_begun(&self) -> bool {
        self.opening.is_none()
    }

    /// Returns when the answer has begun. Nothing is lost when the future is dropped.
    pub async fn begun(&mut self) -> Result<(), Error> {
        let Some((answer, _)) = &mut self.opening else { return Ok(()) };
        let answer = answer.as_mut().await;
        let place = self.opening.take().map(|(_, place)| place);
        self.body.body = Some((answer?.into_body(), place));
        Ok(())
    }

    /// Ends it, and gives its place to whoever comes next.
    pub fn close(&mut self) {
        (self.opening, self.body.body) = (None, None);
    }

    /// The next event; `None` at the end. After [`Error::Protocol`] it goes on, any other error is the last item.
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        if let Err(error) = self.begun().await {
            return Some(Err(error));
        }
        loop {
            if let Some(event) = self.lines.next() {
                return Some(event.map_err(malformed));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.lines.push(&chunk),
                Some(Err(error)) => {
                    // Half a line before it says nothing that the next stream will not say.
                    self.lines = Splitter::default();
                    return Some(Err(error));
                }
                None => return Some(self.lines.rest()?.map_err(malformed)),
            }
        }
    }
}

fn malformed(source: Malformed) -> Error {
    Error::Protocol { what: "events", source: source.into() }
}

struct Body {
    /// `None` once it ended, and then its place is free.
    body: Option<(Incoming, Option<StreamPermit>)>,
    wire: Arc<Api>,
}

impl Body {
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.body.as_mut()?.0.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Some(Ok(bytes)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    self.body = None;
                    return Some(Err(self.wire.http.broken(error.into())));
                }
                None => self.body = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_asked_for_to_the_nanosecond() {
        let times = |since, until| LogsQuery { since, until, ..LogsQuery::default() };
        for (query, path) in [
            (LogsQuery::default(), "follow=0&stdout=1&stderr=1&timestamps=1"),
            (
                LogsQuery { follow: true, stderr: false, tail: Some(10), ..LogsQuery::default() },
                "follow=1&stdout=1&stderr=0&timestamps=1&tail=10",
            ),
            (
                times(Some(Timestamp(1_795_215_653_037_882_171)), Some(Timestamp(1_795_215_654_000_000_001))),
                "follow=0&stdout=1&stderr=1&timestamps=1&since=1795215653.037882171&until=1795215654.000000001",
            ),
        ] {
            assert_eq!(query.path("4ac9", false), format!("/containers/4ac9/logs?{path}"));
        }
    }

    /// Podman's ends are exclusive and ours are not, so a little more is asked for.
    #[test]
    fn podman_is_asked_for_the_ends_too() {
        let (since, until) = (Timestamp(1_795_215_653_000_000_000), Timestamp(1_795_215_654_000_000_001));
        let query = LogsQuery { since: Some(since), until: Some(until), ..LogsQuery::default() };
        let asked = query.path("4ac9", true);
        assert!(asked.starts_with("/libpod/containers/4ac9/logs?"), "{asked}");
        assert!(asked.ends_with("&since=1795215652.999999000&until=1795215654.000001001"), "{asked}");
    }

    #[test]
    fn podman_is_asked_in_its_own_words() {
        let wanted = ["start", "die", "destroy"].map(str::to_owned).to_vec();
        let query = EventsQuery { filters: [("event".to_owned(), wanted)].into(), ..EventsQuery::default() };
        let asked = |is_podman| {
            percent_encoding::percent_decode_str(&query.path(is_podman)).decode_utf8().unwrap().into_owned()
        };
        assert_eq!(asked(false), r#"/events?filters={"event":["start","die","destroy"]}"#);
        assert_eq!(asked(true), r#"/events?filters={"event":["start","die","destroy","remove","died"]}"#);
    }
}

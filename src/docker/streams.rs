//! Log and event streams: their queries, and reading responses that stay open.
//!
//! In: a query. Out: raw chunks of a log's body, or events. Called by [`super::Docker`].
//!
//! Times are sent as `seconds.nanoseconds`. The daemon refuses other forms, and whole seconds would repeat or lose
//! lines (moby `daemon/logs.go`). No Accept header is sent, so that events come one per line (moby `system_routes.go`).

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

use super::api::Api;
use super::event_decoder::{Event, Malformed, Splitter};
use super::stream_permits::StreamPermit;
use super::{ApiOperation, Error};

/// Which part of a container's logs to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogsQuery {
    /// Wait for further lines after the end, until the container stops.
    pub follow: bool,
    /// Include stdout. At least one of `stdout` and `stderr` must be set.
    pub stdout: bool,
    pub stderr: bool,
    /// The earliest time, inclusive.
    pub since: Option<Timestamp>,
    /// The latest time, inclusive. With `follow`, the stream ends at the first later line and not at this time.
    pub until: Option<Timestamp>,
    /// How many records from the end, counted before `since` and `until` are applied; `None` for all. A record has at
    /// most 16 KiB.
    pub tail: Option<u64>,
}

impl Default for LogsQuery {
    fn default() -> Self {
        LogsQuery { follow: false, stdout: true, stderr: true, since: None, until: None, tail: None }
    }
}

/// Which events to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// The earliest time, inclusive. The daemon keeps the last 256 events of all types in memory.
    pub since: Option<Timestamp>,
    /// The latest time, inclusive, at which the stream ends.
    pub until: Option<Timestamp>,
    /// An event must match every key, and at least one of the key's values. `container` matches prefixes of IDs and
    /// names. `event` matches exactly, unless `health_status`, `exec_create` or `exec_start` is among its values: then
    /// all its values match prefixes.
    pub filters: Filters,
}

impl LogsQuery {
    pub(super) fn path(&self, id: &str, is_podman: bool) -> String {
        let (follow, stdout, stderr) = (u8::from(self.follow), u8::from(self.stdout), u8::from(self.stderr));
        // Podman's own API sends frames for containers with a terminal as well. Without frames, the end of a partial
        // line would be unknown.
        let api = if is_podman { "/libpod" } else { "" };
        let mut path =
            format!("{api}/containers/{id}/logs?follow={follow}&stdout={stdout}&stderr={stderr}&timestamps=1");
        // Podman's limits are exclusive, and it parses the numbers as floating point, which is off by up to a quarter
        // of a microsecond.
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
        if is_podman && let Some(actions) = filters.get_mut("event") {
            add_podman_actions(actions);
        }
        let mut path = format!("/events?filters={}", encode_filters(&filters));
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

/// Adds Podman's names of actions. [`super::event_decoder`] translates them back.
fn add_podman_actions(actions: &mut Vec<String>) {
    for (docker, podman) in [("destroy", "remove"), ("die", "died")] {
        if actions.iter().any(|action| action == docker) {
            actions.push(podman.to_owned());
        }
    }
}

/// Filters as the value of a query parameter: JSON, percent-encoded.
pub(super) fn encode_filters(filters: &Filters) -> String {
    let json = serde_json::json!(filters).to_string();
    utf8_percent_encode(&json, NON_ALPHANUMERIC).to_string()
}

/// How many bytes [`LogStream::next`] collects before it returns, if that many have arrived.
const MAX_BLOCK: usize = 64 * 1024;

/// A container's logs. Dropping it closes its connection.
pub struct LogStream {
    body: StreamBody,
    /// Bytes that have arrived and were not returned yet.
    block: BytesMut,
    /// The error that ended the stream, to be returned after `block`.
    failed: Option<Error>,
}

impl LogStream {
    pub(super) fn new(body: Incoming, api: Arc<Api>, permit: StreamPermit) -> Self {
        LogStream { body: StreamBody { body: Some((body, Some(permit))), api }, block: BytesMut::new(), failed: None }
    }

    /// The next bytes, split at any position; `None` at the end. An error is the last item. Nothing is lost if the
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
        // The daemon sends each record as a separate chunk. Handling these one by one would cost more than their
        // content.
        while self.block.len() < MAX_BLOCK {
            // Lets hyper's task read the socket.
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

/// A response that may take long to begin.
type PendingResponse = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>;

/// The daemon's events. Dropping it closes its connection.
pub struct EventStream {
    /// `Some` until the response has begun; `body` is empty until then.
    opening: Option<(PendingResponse, StreamPermit)>,
    body: StreamBody,
    lines: Splitter,
}

impl EventStream {
    pub(super) fn new(body: Incoming, api: Arc<Api>) -> Self {
        EventStream { opening: None, body: StreamBody { body: Some((body, None)), api }, lines: Splitter::default() }
    }

    /// A stream whose response has not begun.
    pub(super) fn awaiting(response: PendingResponse, api: Arc<Api>, permit: StreamPermit) -> Self {
        EventStream {
            opening: Some((response, permit)),
            body: StreamBody { body: None, api },
            lines: Splitter::default(),
        }
    }

    /// Whether the response has begun. Only then is it certain that all further events will arrive.
    pub fn has_begun(&self) -> bool {
        self.opening.is_none()
    }

    /// Waits until the response has begun. Nothing is lost if the future is dropped.
    pub async fn begun(&mut self) -> Result<(), Error> {
        let Some((response, _)) = &mut self.opening else { return Ok(()) };
        let response = response.as_mut().await;
        let permit = self.opening.take().map(|(_, permit)| permit);
        self.body.body = Some((response?.into_body(), permit));
        Ok(())
    }

    /// The next event; `None` at the end. The stream continues after [`Error::Protocol`]; any other error is the last
    /// item. Nothing is lost if the future is dropped.
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
                    // An incomplete line before the error is discarded: the next stream will contain it.
                    self.lines = Splitter::default();
                    return Some(Err(error));
                }
                None => return Some(self.lines.rest()?.map_err(malformed)),
            }
        }
    }
}

fn malformed(source: Malformed) -> Error {
    Error::Protocol { operation: ApiOperation::Events, source: source.into() }
}

struct StreamBody {
    /// `None` once it has ended, which also returns the permit. `None` instead of a permit if the stream ends at once.
    body: Option<(Incoming, Option<StreamPermit>)>,
    api: Arc<Api>,
}

impl StreamBody {
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.body.as_mut()?.0.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Some(Ok(bytes)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    self.body = None;
                    return Some(Err(self.api.http.connection_lost(error.into())));
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
    fn times_are_sent_in_nanoseconds() {
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

    /// Podman's limits are exclusive and those of a query are inclusive, so a little more is requested.
    #[test]
    fn podman_includes_the_first_and_last_line() {
        let (since, until) = (Timestamp(1_795_215_653_000_000_000), Timestamp(1_795_215_654_000_000_001));
        let query = LogsQuery { since: Some(since), until: Some(until), ..LogsQuery::default() };
        let path = query.path("4ac9", true);
        assert!(path.starts_with("/libpod/containers/4ac9/logs?"), "{path}");
        assert!(path.ends_with("&since=1795215652.999999000&until=1795215654.000001001"), "{path}");
    }

    #[test]
    fn podman_gets_its_own_names_of_actions() {
        let actions = ["start", "die", "destroy"].map(str::to_owned).to_vec();
        let query = EventsQuery { filters: [("event".to_owned(), actions)].into(), ..EventsQuery::default() };
        let path = |is_podman| {
            percent_encoding::percent_decode_str(&query.path(is_podman)).decode_utf8().unwrap().into_owned()
        };
        assert_eq!(path(false), r#"/events?filters={"event":["start","die","destroy"]}"#);
        assert_eq!(path(true), r#"/events?filters={"event":["start","die","destroy","remove","died"]}"#);
    }
}

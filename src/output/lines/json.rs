//! Formats records as JSON, one object per line.
//!
//! The parts that are the same for all lines of a container are rendered once, so a line costs only a few copies. A
//! message that is already JSON-escaped in the log is copied unchanged.

use super::stamp::StampWriter;
use crate::model::batch::{Batch, Encoding, Gap, Lifecycle, Line, Part};
use crate::model::container::Container;
use crate::model::json;
use crate::model::line_id::Stream;
use crate::model::time::Timestamp;
use std::collections::BTreeMap;

/// The constant parts of a container's records, rendered in advance.
pub(super) struct Template {
    /// From the end of the time to the start of the message, indexed by [`Stream`].
    middle: [Vec<u8>; 2],
    /// `"container_id":…,"container_name":…`, which all types of records contain.
    identity: Vec<u8>,
    /// The metadata and the closing brace.
    end: Vec<u8>,
}

impl Template {
    pub(super) fn new(container: &Container, with_metadata: bool) -> Self {
        let mut identity = Vec::new();
        member(b"\"container_id\":", &container.id, &mut identity);
        member(b",\"container_name\":", &container.name, &mut identity);
        let middle = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let mut middle = b"\",".to_vec();
            middle.extend_from_slice(&identity);
            member(b",\"image\":", &container.image, &mut middle);
            if let Some(project) = container.project() {
                member(b",\"project\":", project, &mut middle);
            }
            if let Some(service) = container.service() {
                member(b",\"service\":", service, &mut middle);
            }
            member(b",\"stream\":", stream.name(), &mut middle);
            middle.extend_from_slice(b",\"message\":\"");
            middle
        });
        let mut end = Vec::new();
        if with_metadata {
            object(b",\"labels\":{", "container_label_", &container.labels, &mut end);
            object(b",\"networks\":{", "network_", &container.networks, &mut end);
            // The start event may arrive after the first lines, so a container that has lines is running.
            let state = if container.state == "created" { "running" } else { &container.state };
            member(b",\"state\":", state, &mut end);
        }
        end.extend_from_slice(b"}\n");
        Template { middle, identity, end }
    }
}

/// Appends the record of a log line.
#[inline]
pub(super) fn log(batch: &Batch, line: &Line, template: &Template, stamp: &mut StampWriter, out: &mut Vec<u8>) {
    let message = batch.text(line);
    stamp.set(line.time);
    let middle = &template.middle[line.stream as usize];
    out.reserve(message.len() + middle.len() + template.end.len() + 160);
    out.extend_from_slice(b"{\"type\":\"log\",\"time\":\"");
    out.extend_from_slice(stamp.written());
    out.extend_from_slice(middle);
    match line.encoding {
        Encoding::Plain | Encoding::Json => out.extend_from_slice(message),
        Encoding::Raw => json::escape(message, out),
        Encoding::Surrogates => escape_surrogates(message, out),
    }
    out.extend_from_slice(match line.part {
        Part::Whole => b"\",\"source\":\"" as &[u8],
        Part::Cut => b"\",\"partial\":true,\"source\":\"",
        Part::Last => b"\",\"partial\":true,\"partial_last\":true,\"source\":\"",
    });
    out.extend_from_slice(batch.route.name().as_bytes());
    out.extend_from_slice(b"\",\"cursor\":\"");
    stamp.write_nanos(line.time, out);
    match (line.stream, line.ordinal) {
        (Stream::Stdout, 0) => out.extend_from_slice(b"-o0\""),
        (Stream::Stderr, 0) => out.extend_from_slice(b"-e0\""),
        (stream, ordinal) => out.extend_from_slice(format!("-{}{ordinal}\"", stream.letter()).as_bytes()),
    }
    out.extend_from_slice(&template.end);
}

/// Replaces unpaired surrogates, which JSON parsers reject, by U+FFFD, as Go's `encoding/json` and thus docker does.
#[cold]
fn escape_surrogates(message: &[u8], out: &mut Vec<u8>) {
    let mut text = Vec::new();
    json::unescape(message, &mut text);
    json::escape(&text, out);
}

/// Appends the record of a gap that was detected at `now`.
pub(super) fn gap(gap: &Gap, message: &str, template: &Template, now: Timestamp, out: &mut Vec<u8>) {
    head("gap", now, template, out);
    member(b",\"reason\":", gap.reason.name(), out);
    let lost = gap.lost_bytes.map_or_else(|| "null".to_owned(), |bytes| bytes.to_string());
    out.extend_from_slice(format!(",\"lost_bytes\":{lost},\"after_cursor\":").as_bytes());
    match gap.after {
        Some(cursor) => out.extend_from_slice(format!("\"{cursor}\"").as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    member(b",\"message\":", message, out);
    out.extend_from_slice(b"}\n");
}

/// Appends the record of a lifecycle event.
pub(super) fn lifecycle(event: &Lifecycle, template: &Template, out: &mut Vec<u8>) {
    head("lifecycle", event.time, template, out);
    member(b",\"action\":", &event.action, out);
    object(b",\"attributes\":{", "", &event.attributes, out);
    out.extend_from_slice(b"}\n");
}

fn head(kind: &str, time: Timestamp, template: &Template, out: &mut Vec<u8>) {
    member(b"{\"type\":", kind, out);
    member(b",\"time\":", &time.to_string(), out);
    out.push(b',');
    out.extend_from_slice(&template.identity);
}

fn member(key: &[u8], value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    out.push(b'"');
    json::escape(value.as_bytes(), out);
    out.push(b'"');
}

fn object(open: &[u8], prefix: &str, members: &BTreeMap<String, String>, out: &mut Vec<u8>) {
    out.extend_from_slice(open);
    for (number, (key, value)) in members.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(prefix.as_bytes());
        json::escape(key.as_bytes(), out);
        member(b"\":", value, out);
    }
    out.push(b'}');
}

//! Records as JSON, one object a line.
//!
//! What does not change from line to line is written once for each container; a line then costs a handful of copies. A
//! message that lies in JSON form already is copied as it lies.

use super::stamp::Stamp;
use crate::model::batch::{Batch, Encoding, Gap, Lifecycle, Line, Part};
use crate::model::container::Container;
use crate::model::cursor::Stream;
use crate::model::json;
use crate::model::time::Timestamp;
use std::collections::BTreeMap;

/// The parts of a container's records that stay.
pub(super) struct Template {
    /// From behind the time to before the message, for each stream.
    middle: [Vec<u8>; 2],
    /// `"container_id":…,"container_name":…`, as all kinds of records have them.
    who: Vec<u8>,
    /// Metadata and the end of the object.
    end: Vec<u8>,
}

impl Template {
    pub(super) fn new(container: &Container, with_metadata: bool) -> Self {
        let mut who = Vec::new();
        member(b"\"container_id\":", &container.id, &mut who);
        member(b",\"container_name\":", &container.name, &mut who);
        let middle = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let mut middle = b"\",".to_vec();
            middle.extend_from_slice(&who);
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
            // The engine tells of a start behind the first lines.
            let state = if container.state == "created" { "running" } else { &container.state };
            member(b",\"state\":", state, &mut end);
        }
        end.extend_from_slice(b"}\n");
        Template { middle, who, end }
    }
}

/// Appends the record of a line.
#[inline]
pub(super) fn log(batch: &Batch, line: &Line, template: &Template, stamp: &mut Stamp, out: &mut Vec<u8>) {
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
        Encoding::Surrogates => whole_characters(message, out),
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

/// No reader of JSON takes half a surrogate pair. Go's `encoding/json`, and so docker, reads one as U+FFFD.
#[cold]
fn whole_characters(message: &[u8], out: &mut Vec<u8>) {
    let mut text = Vec::new();
    json::unescape(message, &mut text);
    json::escape(&text, out);
}

/// Appends the record of a loss that was noticed at `now`.
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

/// Appends the record of something that happened to a container.
pub(super) fn lifecycle(happening: &Lifecycle, template: &Template, out: &mut Vec<u8>) {
    head("lifecycle", happening.time, template, out);
    member(b",\"action\":", &happening.action, out);
    object(b",\"attributes\":{", "", &happening.attributes, out);
    out.extend_from_slice(b"}\n");
}

fn head(kind: &str, time: Timestamp, template: &Template, out: &mut Vec<u8>) {
    member(b"{\"type\":", kind, out);
    member(b",\"time\":", &time.to_string(), out);
    out.push(b',');
    out.extend_from_slice(&template.who);
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

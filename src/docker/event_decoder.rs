//! Decodes the daemon's events: from the bytes of `GET /events` to [`Event`]s.
//!
//! In: the body in chunks of any size. Out: events in the order of arrival, with errors in between: an invalid line is
//! skipped with an error and does not end the stream. Called by [`super::EventStream`]. Knows nothing of the
//! connection.
//!
//! What the daemon sends for what happens to a container, as observed with 20.10.24 (network events come for
//! `--network none` as well):
//!
//! | what happens | events of type `container` (and others), in order |
//! |---|---|
//! | `run --rm -v` | (volume create), create, attach if a client is attached, (network connect), (volume mount), start, die, (network disconnect), (volume unmount), destroy |
//! | `stop` | kill, [kill again after the grace period], die, stop |
//! | `kill` | kill, die; no stop |
//! | `kill -s USR1` | kill only: a signal was sent, the container did not die |
//! | `restart` | kill, die, stop, start, restart |
//! | restarted by its policy | die, a pause, start; no restart |
//! | `rm -f` while it runs | kill, die, destroy; no stop |
//! | `rename` | rename, with the new name, and the old one as an attribute |
//! | `container prune` | destroy of each, then one prune without an ID |
//! | `volume prune` | (volume prune) without an ID, and no destroy |
//! | `pause`, `unpause`, `update` | one of that name |
//! | out of memory | oom, die; only oom if only a child process was killed |
//! | it cannot be started | create, with `--rm` destroy; neither start nor die |
//! | a health check, an exec | exec_create, exec_start, exec_die; health_status only when it changed |
//! | the daemon stops | kill, die, stop of each, then the stream ends |
//! | the daemon is back | start of each; nothing for those that kept running (live-restore) |
//!
//! - The first lines of a container come before its `start`. At `die` all of its lines are on disk. At `destroy` its
//!   folder is gone.
//! - From Docker Engine 23 on, the network and volume events come before `die`.
//! - An event can arrive twice, once from the daemon's history and once live. [`Event::key`] identifies the repeat.
//! - Labels are copied over the attributes of the action, so a label `exitCode` forges the exit code. Name and image
//!   cannot be forged (moby `daemon/events.go`).
//! - Podman sends `remove` for `destroy` and `died` for `die` (podman `pkg/api/handlers/compat/events.go`).

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, Decoder};

use crate::model::container::{self, Container};
use crate::model::time::Timestamp;

/// One event, with Docker's names for actions even if Podman sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `container`, `volume`, `network`, `image`, `daemon`, ... or a type that is unknown to this program.
    pub kind: String,
    /// `start`, `die`, `health_status: healthy`, `exec_create: sh -c …`, ...
    pub action: String,
    /// The container's ID, the volume's name, and so on. Empty for events about no single object, such as a prune.
    pub id: String,
    /// The object's labels and what the action adds, mixed together. A container's creator can choose the labels, so a
    /// value may be forged.
    pub attributes: BTreeMap<String, String>,
    /// `local` or `swarm`; empty if the daemon sends none.
    pub scope: String,
    /// By the daemon's clock.
    pub time: Timestamp,
    /// The action again, if the daemon also sends the form from before API 1.22 (below 1.52, for containers and images,
    /// where the top level has an `id` too). Otherwise empty.
    pub status: String,
    /// The image, in that older form. Otherwise empty.
    pub from: String,
}

/// Identifies an event, so that a repeat of it can be recognised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    pub time: Timestamp,
    pub kind: String,
    /// As in the event, but a long action is shortened to its beginning and a hash.
    pub action: String,
    pub id: String,
}

/// Shortens a text so that different texts stay different. Hundreds of keys are remembered, and the action of an exec
/// contains its whole command.
fn abridged(text: &str) -> String {
    match (0..=MAX_KEY_ACTION).rev().find_map(|end| text.get(..end)) {
        Some(begin) if begin.len() < text.len() => {
            let hash = Sha256::digest(text);
            hash.iter().fold(begin.to_owned(), |text, byte| text + &format!("{byte:02x}"))
        }
        _ => text.to_owned(),
    }
}

/// In bytes. Longer actions are shortened with [`abridged`].
const MAX_KEY_ACTION: usize = 256;

impl Event {
    /// The action without what follows its colon: `health_status`, `exec_create`.
    pub fn base_action(&self) -> &str {
        self.action.split(':').next().unwrap_or_default()
    }

    /// The container as the event describes it; `None` for events of other types and for a prune, which names none. Its
    /// networks are empty, and its state is empty unless the action implies one.
    pub fn container(&self) -> Option<Container> {
        let attribute = |name: &str| self.attributes.get(name).cloned().unwrap_or_default();
        let labels = || {
            let is_reserved = |name: &str| self.own_attributes().contains(&name);
            self.attributes.iter().filter(move |(name, _)| !is_reserved(name))
        };
        (self.kind == "container" && !self.id.is_empty()).then(|| {
            let mut labels = labels().map(|(name, value)| (name.clone(), value.clone())).collect();
            container::bound(&mut labels);
            Container {
                id: self.id.clone(),
                name: attribute("name").trim_start_matches('/').to_owned(),
                image: attribute("image"),
                labels,
                state: self.state().to_owned(),
                exit_code: self.exit_code(),
                networks: BTreeMap::new(),
                hidden: self.own_attributes(),
            }
        })
    }

    /// The exit code of a `die` event. A label can forge it: use [`super::Docker::inspect`] where it matters.
    pub fn exit_code(&self) -> Option<i64> {
        self.attributes.get("exitCode").filter(|_| self.action == "die")?.parse().ok()
    }

    /// Equal for repeats of an event.
    pub fn key(&self) -> EventKey {
        EventKey { time: self.time, kind: self.kind.clone(), action: abridged(&self.action), id: self.id.clone() }
    }

    /// The attributes that the daemon adds for an action. A label with the same name cannot be distinguished: the
    /// daemon replaces labels named `name` and `image`, and any other label replaces the attribute.
    fn own_attributes(&self) -> &'static [&'static str] {
        match self.base_action() {
            "die" => &["name", "image", "exitCode", "execDuration", "containerExitCode"],
            "kill" => &["name", "image", "signal"],
            "rename" => &["name", "image", "oldName"],
            "exec_create" | "exec_start" | "exec_detach" => &["name", "image", "execID"],
            "exec_die" => &["name", "image", "execID", "exitCode"],
            "resize" => &["name", "image", "height", "width"],
            "commit" => &["name", "image", "comment", "imageID", "imageRef"],
            _ => &["name", "image"],
        }
    }

    /// The container's state after this event; empty if the action does not determine it.
    fn state(&self) -> &'static str {
        match self.base_action() {
            "create" => "created",
            "start" | "unpause" => "running",
            "pause" => "paused",
            // Not `stop` and `restart`, which report a finished request: `stop` can come before this, `restart` after
            // the next `start`.
            "die" => "exited",
            "destroy" => "removing",
            _ => "",
        }
    }
}

/// Why a line could not be decoded as an event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("the event has no time")]
    NoTime,
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("the event's type, scope or ID is longer than {MAX_NAME} bytes")]
    LongName,
}

/// Limit for type, scope and ID, in bytes. IDs are file names, image references or hashes, all of which are shorter.
const MAX_NAME: usize = 4096;

/// Limit for the number of attributes. An attribute can take many times the memory that it takes in JSON.
const MAX_ATTRIBUTES: usize = 16 * 1024;

/// Limit for a line, in bytes. The daemon sends all labels, which are limited only by the request that created the
/// container.
pub(super) const MAX_LINE: usize = 4 << 20;

/// Splits the body into lines and decodes each. Buffers at most one line, of which at most [`MAX_LINE`] bytes besides the
/// newest chunk.
pub(super) struct Splitter {
    buffer: BytesMut,
    /// Not `LinesCodec`, which refuses a line with invalid UTF-8 as a whole: here a single event may be repaired.
    lines: AnyDelimiterCodec,
}

impl Default for Splitter {
    fn default() -> Self {
        let lines = AnyDelimiterCodec::new_with_max_length(vec![b'\n'], Vec::new(), MAX_LINE);
        Splitter { buffer: BytesMut::new(), lines }
    }
}

impl Splitter {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Decodes the next complete line; `None` if more bytes are needed. A line that is too long is reported once, and
    /// skipped up to its end.
    pub(super) fn next(&mut self) -> Option<Result<Event, Malformed>> {
        loop {
            let line = self.lines.decode(&mut self.buffer).transpose()?;
            if let Some(event) = decode_line(line) {
                return Some(event);
            }
        }
    }

    /// At the end of the body: decodes what follows the last newline.
    pub(super) fn rest(&mut self) -> Option<Result<Event, Malformed>> {
        decode_line(self.lines.decode_eof(&mut self.buffer).transpose()?)
    }
}

/// `None` for a blank line. In `application/json-seq` a record separator comes before the object.
fn decode_line(line: Result<Bytes, AnyDelimiterCodecError>) -> Option<Result<Event, Malformed>> {
    // The codec's other error is one of input and output, of which it does none.
    let Ok(line) = line else { return Some(Err(Malformed::TooLong)) };
    let line = line.trim_ascii();
    let line = line.strip_prefix(&[0x1e]).unwrap_or(line).trim_ascii();
    (!line.is_empty()).then(|| decode(line))
}

#[derive(Deserialize)]
struct Message {
    status: Option<String>,
    id: Option<String>,
    from: Option<String>,
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Action")]
    action: Option<String>,
    #[serde(rename = "Actor")]
    actor: Option<Actor>,
    scope: Option<String>,
    time: Option<i64>,
    #[serde(rename = "timeNano")]
    time_nano: Option<i64>,
    /// Sent by Podman only.
    #[serde(rename = "HealthStatus")]
    health: Option<String>,
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "Attributes")]
    attributes: Option<Attributes>,
}

/// Attributes of an event, at most [`MAX_ATTRIBUTES`].
#[derive(Default)]
struct Attributes(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AttributesVisitor;

        impl<'de> Visitor<'de> for AttributesVisitor {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MAX_ATTRIBUTES} attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Attributes, A::Error> {
                let mut attributes = BTreeMap::new();
                while let Some((name, value)) = pairs.next_entry()? {
                    if attributes.len() == MAX_ATTRIBUTES {
                        return Err(de::Error::invalid_length(MAX_ATTRIBUTES + 1, &self));
                    }
                    attributes.insert(name, value);
                }
                Ok(Attributes(attributes))
            }
        }

        deserializer.deserialize_map(AttributesVisitor)
    }
}

fn decode(line: &[u8]) -> Result<Event, Malformed> {
    let message: Message = crate::model::json::from_slice(line)?;
    let actor = message.actor.unwrap_or_default();
    let mut attributes = actor.attributes.unwrap_or_default().0;
    let (status, from) = (message.status.unwrap_or_default(), message.from.unwrap_or_default());
    if message.kind.is_none() && !from.is_empty() {
        attributes.entry("image".to_owned()).or_insert_with(|| from.clone());
    }
    // Without a type it is the form from before API 1.22, in which all events are about containers.
    let kind = message.kind.unwrap_or_else(|| "container".to_owned());
    let seconds = || message.time.filter(|s| *s != 0).and_then(|seconds| seconds.checked_mul(1_000_000_000));
    let time = message.time_nano.filter(|nanos| *nanos != 0).or_else(seconds).ok_or(Malformed::NoTime)?;
    let scope = message.scope.unwrap_or_else(|| "local".to_owned());
    let id = actor.id.or(message.id).unwrap_or_default();
    if [&kind, &scope, &id].iter().any(|name| name.len() > MAX_NAME) {
        return Err(Malformed::LongName);
    }
    let action = message.action.unwrap_or_else(|| status.clone());
    Ok(Event {
        action: docker_action(action, &kind, &scope, message.health.as_deref()),
        id,
        time: Timestamp(time),
        kind,
        attributes,
        scope,
        status,
        from,
    })
}

/// Translates Podman's names of actions to Docker's. Docker itself uses `remove` too, but only for objects of a swarm
/// and for types other than these three.
fn docker_action(action: String, kind: &str, scope: &str, health: Option<&str>) -> String {
    let local = scope != "swarm" && matches!(kind, "container" | "volume" | "network");
    match (action.as_str(), health) {
        ("remove", _) if local => "destroy".to_owned(),
        ("died", _) if local => "die".to_owned(),
        ("health_status", Some(health)) if !health.is_empty() => format!("health_status: {health}"),
        _ => action,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: &str = r#"{"status":"start","id":"4ac9","from":"busybox:1","Type":"container","Action":"start","Actor":{"ID":"4ac9","Attributes":{"com.docker.compose.project":"shop","image":"busybox:1","name":"web-1","signal":"green"}},"scope":"local","time":1795215653,"timeNano":1795215653037882171}"#;

    /// Events as `kind action id name time`, errors as `! message`.
    fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(event) = splitter.next() {
                found.push(summary(event));
            }
        }
        found.extend(splitter.rest().map(summary));
        found
    }

    fn summary(event: Result<Event, Malformed>) -> String {
        match event {
            Ok(e) => {
                let name = e.attributes.get("name").map_or("-", String::as_str);
                format!("{} {} {} {name} {}", e.kind, e.action, e.id, e.time.0)
            }
            Err(e) => format!("! {e}"),
        }
    }

    #[test]
    fn every_form_of_an_event_is_decoded() {
        for (line, expected) in [
            (START, "container start 4ac9 web-1 1795215653037882171"),
            (
                r#"{"Type":"container","Action":"die","Actor":{"ID":"4ac9","Attributes":{"name":"web-1"}},"scope":"local","time":1,"timeNano":1000000002}"#,
                "container die 4ac9 web-1 1000000002",
            ),
            (r#"{"status":"start","id":"4ac9","from":"busybox","time":7}"#, "container start 4ac9 - 7000000000"),
            (r#"{"Type":"pod","Action":"create","Actor":{"ID":"p"},"new":{"x":[1]},"timeNano":5}"#, "pod create p - 5"),
            (r#"{"Type":"container","Action":"remove","Actor":{"ID":"c"},"timeNano":5}"#, "container destroy c - 5"),
            (r#"{"Type":"container","Action":"died","Actor":{"ID":"c"},"timeNano":5}"#, "container die c - 5"),
            (
                r#"{"Type":"container","Action":"health_status","HealthStatus":"healthy","Actor":{"ID":"c"},"timeNano":5}"#,
                "container health_status: healthy c - 5",
            ),
            (
                r#"{"Type":"network","Action":"remove","Actor":{"ID":"n"},"scope":"swarm","timeNano":5}"#,
                "network remove n - 5",
            ),
            (r#"{"Type":"image","Action":"remove","Actor":{"ID":"i"},"timeNano":5}"#, "image remove i - 5"),
            (
                r#"{"Type":"builder","Action":"prune","Actor":{"ID":"","Attributes":null},"timeNano":5}"#,
                "builder prune  - 5",
            ),
        ] {
            assert_eq!(split([line.as_bytes(), b"\n"]), [expected], "{line}");
        }
    }

    #[test]
    fn an_invalid_line_does_not_affect_other_lines() {
        for (line, expected) in [
            ("garbage", "! expected value at line 1 column 1"),
            ("[]", "! invalid length 0, expected struct Message with 11 elements at line 1 column 2"),
            (r#"{"Type":7,"timeNano":5}"#, "! invalid type: integer `7`, expected a string at line 1 column 9"),
            (r#"{"Type":"container","Action":"start"}"#, "! the event has no time"),
            (&START[..90], "! EOF while parsing a string at line 1 column 90"),
        ] {
            let body = format!("{line}\n\n{START}\n");
            let got = split([body.as_bytes()]);
            assert_eq!(got[1..], ["container start 4ac9 web-1 1795215653037882171"], "{line}");
            assert!(got[0].starts_with('!'), "{line}: {}", got[0]);
            if !expected.contains("Message") {
                assert_eq!(got[0], expected);
            }
        }
    }

    #[test]
    fn separators_and_blank_lines_are_skipped() {
        let body = format!("\u{1e}{START}\n\r\n\n\u{1e}{START}\r\n{START}");
        assert_eq!(split([body.as_bytes()]).len(), 3);
        assert!(split([body.as_bytes()]).iter().all(|event| event.starts_with("container start")));
    }

    #[test]
    fn an_endless_line_is_an_error_in_bounded_memory() {
        let mut splitter = Splitter::default();
        let chunk = vec![b'x'; 64 << 10];
        let mut found = Vec::new();
        for _ in 0..256 {
            splitter.push(&chunk);
            found.extend(splitter.next().map(summary));
            assert!(splitter.buffer.capacity() <= 2 * MAX_LINE + 2 * chunk.len());
        }
        splitter.push(format!("\n{START}\n").as_bytes());
        found.extend(splitter.next().map(summary));
        assert_eq!(
            found,
            ["! the line is longer than 4194304 bytes", "container start 4ac9 web-1 1795215653037882171"]
        );
    }

    #[test]
    fn the_length_limit_depends_on_neither_chunks_nor_ends() {
        let padded = |length: usize| format!("{}{START}", " ".repeat(length - START.len()));
        let (event, error) =
            ("container start 4ac9 web-1 1795215653037882171", "! the line is longer than 4194304 bytes");
        for (length, first) in [(MAX_LINE, event), (MAX_LINE + 1, error), (3 * MAX_LINE, error)] {
            for (end, others) in [("\n", 0), ("", 0), (&*format!("\n{START}\n"), 1), (&*format!("\n{START}"), 1)] {
                let body = padded(length) + end;
                let expected = [vec![first], vec![event; others]].concat();
                assert_eq!(split([body.as_bytes()]), expected, "{length} {others}");
                assert_eq!(split(body.as_bytes().chunks(100_000)), expected, "{length} {others} in chunks");
            }
        }
    }

    #[test]
    fn invalid_utf8_affects_only_its_own_line() {
        let body = [START.as_bytes(), b"\n{\"Type\":\"\xff\"}\n", START.as_bytes(), b"\n"].concat();
        let got = split([&body[..]]);
        assert_eq!((got.len(), got[0] == got[2]), (3, true), "{got:?}");
    }

    #[test]
    fn attributes_of_the_action_are_not_taken_for_labels() {
        let attributes = [
            ("image", "busybox:1"),
            ("name", "web-1"),
            ("tier", "front"),
            ("exitCode", "7"),
            ("execDuration", "3"),
            ("signal", "15"),
            ("oldName", "/web-0"),
            ("execID", "e"),
        ];
        for (action, state, labels) in [
            ("create", "created", "execDuration execID exitCode oldName signal tier"),
            ("start", "running", "execDuration execID exitCode oldName signal tier"),
            ("die", "exited", "execID oldName signal tier"),
            ("kill", "", "execDuration execID exitCode oldName tier"),
            ("stop", "", "execDuration execID exitCode oldName signal tier"),
            ("restart", "", "execDuration execID exitCode oldName signal tier"),
            ("rename", "", "execDuration execID exitCode signal tier"),
            ("exec_die", "", "execDuration oldName signal tier"),
            ("exec_create: sh -c x", "", "execDuration exitCode oldName signal tier"),
            ("health_status: healthy", "", "execDuration execID exitCode oldName signal tier"),
            ("pause", "paused", "execDuration execID exitCode oldName signal tier"),
            ("destroy", "removing", "execDuration execID exitCode oldName signal tier"),
        ] {
            let event = Event {
                kind: "container".to_owned(),
                action: action.to_owned(),
                id: "4ac9".to_owned(),
                attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                ..Event::default()
            };
            let container = event.container().unwrap();
            let got = container.labels.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
            assert_eq!((container.state.as_str(), got.as_str()), (state, labels), "{action}");
            assert_eq!((container.name.as_str(), container.image.as_str()), ("web-1", "busybox:1"));
            assert_eq!(event.exit_code(), (action == "die").then_some(7), "{action}");
        }
        for (kind, id) in [("volume", "v"), ("container", "")] {
            assert_eq!(Event { kind: kind.into(), id: id.into(), ..Event::default() }.container(), None, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_the_chunks(
            lines in proptest::collection::vec(0..5_usize, 0..12),
            cuts in proptest::collection::vec(0..4000_usize, 0..20),
            open: bool,
        ) {
            let forms = [START, "garbage", "", "\u{1e}{}", r#"{"Type":"volume","Action":"create","Actor":{"ID":"v"},"timeNano":9}"#];
            let mut body = lines.iter().map(|form| forms[*form]).collect::<Vec<_>>().join("\n");
            if !open {
                body.push('\n');
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|ends| &body.as_bytes()[ends[0]..ends[1]]);
            prop_assert_eq!(split(chunks), split([body.as_bytes()]));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = split(bytes.chunks(7));
        }
    }
}

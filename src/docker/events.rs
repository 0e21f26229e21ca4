//! The engine's events: bytes of `GET /events` to [`Event`]s.
//!
//! In: the body in whatever chunks it arrives. Out: events in the order of arrival, errors among them: a line that
//! makes no sense costs that line, not the stream. Called by [`super::EventStream`]. Knows nothing of the connection.
//!
//! What the engine sends for what happens to a container, as seen on 20.10.24 (network events come for
//! `--network none` as well):
//!
//! | what happens | events of type `container` (and others), in order |
//! |---|---|
//! | `run --rm -v` | (volume create), create, attach when somebody watches, (network connect), (volume mount), start, die, (network disconnect), (volume unmount), destroy |
//! | `stop` | kill, [kill again after the grace], die, stop |
//! | `kill` | kill, die; no stop |
//! | `kill -s USR1` | kill alone: it is a signal sent, not a death |
//! | `restart` | kill, die, stop, start, restart |
//! | its restart policy | die, a pause, start; no restart |
//! | `rm -f` while it runs | kill, die, destroy; no stop |
//! | `rename` | rename, under the new name, with the old one beside it |
//! | `container prune` | destroy of each, then one prune without an ID |
//! | `volume prune` | (volume prune) without an ID, and no destroy |
//! | `pause`, `unpause`, `update` | one of that name |
//! | out of memory | oom, die; oom alone when only a child was killed |
//! | it cannot be started | create, with `--rm` destroy; neither start nor die |
//! | a health check, an exec | exec_create, exec_start, exec_die; health_status only when it changed |
//! | the engine stops | kill, die, stop of each, then the stream ends |
//! | the engine returns | start of each; nothing at all for those that lived on (live-restore) |
//!
//! The first lines of a container come before its `start`; at `die` all of its lines are on disk; at `destroy` its
//! folder is gone. From engine 23 on the network and volume events come before `die`. An event can arrive twice, once
//! from the backlog and once live: [`Event::key`] tells. Labels are copied over the attributes of the action, so a
//! label `exitCode` forges the exit code; name and image cannot be forged (moby `daemon/events.go`).
//! Podman says `remove` for `destroy` and `died` for `die` (podman `pkg/api/handlers/compat/events.go`).

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf, BytesMut};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::model::container::{self, Container};
use crate::model::time::Timestamp;

/// One event, in the words of Docker whichever engine sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `container`, `volume`, `network`, `image`, `daemon`, ... or a word we have never heard.
    pub kind: String,
    /// `start`, `die`, `health_status: healthy`, `exec_create: sh -c …`, ...
    pub action: String,
    /// Of the object: the container's ID, the volume's name.
    pub id: String,
    /// Labels and whatever the action adds, all mixed; what a container can name itself is in it.
    pub attributes: BTreeMap<String, String>,
    /// `local` or `swarm`.
    pub scope: String,
    /// When the engine saw it.
    pub time: Timestamp,
    /// The action once more, where the engine still sends the form from before 1.22 beside the new one (API below
    /// 1.52, containers and images); there the top level has an `id` too. Else empty.
    pub status: String,
    /// The image, in that older form. Else empty.
    pub from: String,
}

/// Tells repeats of one event from another event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// As in the event.
    pub time: Timestamp,
    /// As in the event.
    pub kind: String,
    /// As in the event; of a long one the beginning and a hash.
    pub action: String,
    /// As in the event.
    pub id: String,
}

/// A text that tells itself from others in a few bytes. Hundreds of keys are remembered, and the action of an exec holds
/// its whole command.
fn abridged(text: &str) -> String {
    match (0..=LONG).rev().find_map(|end| text.get(..end)) {
        Some(begin) if begin.len() < text.len() => {
            let hash = Sha256::digest(text);
            hash.iter().fold(begin.to_owned(), |told, byte| told + &format!("{byte:02x}"))
        }
        _ => text.to_owned(),
    }
}

/// An action that is longer is remembered by its hash.
const LONG: usize = 256;

impl Event {
    /// The action without what follows its colon: `health_status`, `exec_create`.
    pub fn verb(&self) -> &str {
        self.action.split(':').next().unwrap_or_default()
    }

    /// What the event knows of its container; `None` for events of other types and for a prune, which names none. Networks
    /// are not in it, and its state only where the action implies one.
    pub fn container(&self) -> Option<Container> {
        let attribute = |name: &str| self.attributes.get(name).cloned().unwrap_or_default();
        let labels = || {
            let of_action = |name: &str| self.own_attributes().contains(&name);
            self.attributes.iter().filter(move |(name, _)| !of_action(name))
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

    /// Of `die`. A label can forge it: ask [`super::Docker::inspect`] where it matters.
    pub fn exit_code(&self) -> Option<i64> {
        self.attributes.get("exitCode").filter(|_| self.action == "die")?.parse().ok()
    }

    /// Equal for two copies of one event.
    pub fn key(&self) -> Key {
        Key { time: self.time, kind: self.kind.clone(), action: abridged(&self.action), id: self.id.clone() }
    }

    /// The attributes that the engine puts among the labels, by action. Of a label of the same name nothing is known: one
    /// named `name` or `image` is replaced, and any other replaces the attribute.
    fn own_attributes(&self) -> &'static [&'static str] {
        match self.verb() {
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

    fn state(&self) -> &'static str {
        match self.verb() {
            "create" => "created",
            "start" | "unpause" => "running",
            "pause" => "paused",
            // `stop` and `restart` tell of a request that was done: `stop` may come before this, `restart` behind the next.
            "die" => "exited",
            "destroy" => "removing",
            _ => "",
        }
    }
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("it has no time")]
    NoTime,
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error("its type, scope or ID is longer than {LONGEST_NAME} bytes")]
    LongName,
}

/// IDs are names of files, addresses of images or hashes, and all of those are shorter.
const LONGEST_NAME: usize = 4096;

/// An attribute takes many times the room in memory that it takes in JSON.
const MOST_ATTRIBUTES: usize = 16 * 1024;

/// The longest line that is an event. The engine sends labels whole, and nothing limits those but the request that
/// created the container.
pub(super) const LONGEST: usize = 4 << 20;

/// Cuts the body into lines. Holds one line at most, and no more than [`LONGEST`] of it beyond the newest chunk.
#[derive(Default)]
pub(super) struct Splitter {
    buffer: BytesMut,
    /// No newline lies before this.
    searched: usize,
    /// Inside a line that was given up.
    skipping: bool,
}

impl Splitter {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line, decoded; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Option<Result<Event, Malformed>> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
                return self.wait();
            };
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if let Some(event) = decode_line(&line) {
                return Some(event);
            }
        }
    }

    /// What stands behind the last newline when the body ends.
    pub(super) fn rest(&mut self) -> Option<Result<Event, Malformed>> {
        let line = self.buffer.split();
        self.searched = 0;
        if std::mem::take(&mut self.skipping) { None } else { decode_line(&line) }
    }

    fn wait(&mut self) -> Option<Result<Event, Malformed>> {
        self.searched = self.buffer.len();
        if self.buffer.len() <= LONGEST && !self.skipping {
            return None;
        }
        self.buffer = BytesMut::new();
        self.searched = 0;
        let first = !std::mem::replace(&mut self.skipping, true);
        first.then_some(Err(Malformed::TooLong))
    }
}

/// `None` for a blank line. A record separator before the object comes with `application/json-seq`.
fn decode_line(line: &[u8]) -> Option<Result<Event, Malformed>> {
    if line.len() > LONGEST {
        return Some(Err(Malformed::TooLong));
    }
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
    /// Podman's.
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

/// [`MOST_ATTRIBUTES`] at most.
#[derive(Default)]
struct Attributes(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MOST_ATTRIBUTES} attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Attributes, A::Error> {
                let mut attributes = BTreeMap::new();
                while let Some((name, value)) = pairs.next_entry()? {
                    if attributes.len() == MOST_ATTRIBUTES {
                        return Err(de::Error::invalid_length(MOST_ATTRIBUTES + 1, &self));
                    }
                    attributes.insert(name, value);
                }
                Ok(Attributes(attributes))
            }
        }

        deserializer.deserialize_map(Reader)
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
    // Without a type it is the form from before 1.22, which knows containers only.
    let kind = message.kind.unwrap_or_else(|| "container".to_owned());
    let whole = || message.time.filter(|s| *s != 0).and_then(|seconds| seconds.checked_mul(1_000_000_000));
    let time = message.time_nano.filter(|nanos| *nanos != 0).or_else(whole).ok_or(Malformed::NoTime)?;
    let scope = message.scope.unwrap_or_else(|| "local".to_owned());
    let id = actor.id.or(message.id).unwrap_or_default();
    if [&kind, &scope, &id].iter().any(|name| name.len() > LONGEST_NAME) {
        return Err(Malformed::LongName);
    }
    let action = message.action.unwrap_or_else(|| status.clone());
    Ok(Event {
        action: in_dockers_words(action, &kind, &scope, message.health.as_deref()),
        id,
        time: Timestamp(time),
        kind,
        attributes,
        scope,
        status,
        from,
    })
}

/// `remove` is Docker's own word for objects of a swarm, and Podman's for everything.
fn in_dockers_words(action: String, kind: &str, scope: &str, health: Option<&str>) -> String {
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

    /// Events as `kind action id name time`, errors as `! words`.
    fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut told = Vec::new();
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(event) = splitter.next() {
                told.push(tell(event));
            }
        }
        told.extend(splitter.rest().map(tell));
        told
    }

    fn tell(event: Result<Event, Malformed>) -> String {
        match event {
            Ok(e) => {
                let name = e.attributes.get("name").map_or("-", String::as_str);
                format!("{} {} {} {name} {}", e.kind, e.action, e.id, e.time.0)
            }
            Err(e) => format!("! {e}"),
        }
    }

    #[test]
    fn every_form_of_an_event_is_read() {
        for (line, told) in [
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
            assert_eq!(split([line.as_bytes(), b"\n"]), [told], "{line}");
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_costs_that_line_only() {
        for (line, told) in [
            ("garbage", "! expected value at line 1 column 1"),
            ("[]", "! invalid length 0, expected struct Message with 11 elements at line 1 column 2"),
            (r#"{"Type":7,"timeNano":5}"#, "! invalid type: integer `7`, expected a string at line 1 column 9"),
            (r#"{"Type":"container","Action":"start"}"#, "! it has no time"),
            (&START[..90], "! EOF while parsing a string at line 1 column 90"),
        ] {
            let body = format!("{line}\n\n{START}\n");
            let got = split([body.as_bytes()]);
            assert_eq!(got[1..], ["container start 4ac9 web-1 1795215653037882171"], "{line}");
            assert!(got[0].starts_with('!'), "{line}: {}", got[0]);
            if !told.contains("Message") {
                assert_eq!(got[0], told);
            }
        }
    }

    #[test]
    fn separators_blank_lines_and_a_missing_last_newline_do_no_harm() {
        let body = format!("\u{1e}{START}\n\r\n\n\u{1e}{START}\r\n{START}");
        assert_eq!(split([body.as_bytes()]).len(), 3);
        assert!(split([body.as_bytes()]).iter().all(|told| told.starts_with("container start")));
    }

    #[test]
    fn an_endless_line_is_an_error_and_holds_no_memory() {
        let mut splitter = Splitter::default();
        let chunk = vec![b'x'; 64 << 10];
        let mut told = Vec::new();
        for _ in 0..256 {
            splitter.push(&chunk);
            told.extend(splitter.next().map(tell));
            assert!(splitter.buffer.capacity() <= 2 * LONGEST + 2 * chunk.len());
        }
        splitter.push(format!("\n{START}\n").as_bytes());
        told.extend(splitter.next().map(tell));
        assert_eq!(told, ["! it is longer than 4194304 bytes", "container start 4ac9 web-1 1795215653037882171"]);
    }

    #[test]
    fn the_length_limit_does_not_depend_on_the_chunks() {
        let line = format!("{}{START}\n{START}\n", " ".repeat(LONGEST));
        let whole = split([line.as_bytes()]);
        assert_eq!(whole, split(line.as_bytes().chunks(100_000)));
        assert_eq!(whole, ["! it is longer than 4194304 bytes", "container start 4ac9 web-1 1795215653037882171"]);
    }

    #[test]
    fn a_container_is_told_apart_from_what_the_action_adds() {
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
        fn the_chunks_in_which_a_body_arrives_make_no_difference(
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
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = split(bytes.chunks(7));
        }
    }
}

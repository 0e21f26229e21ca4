//! Prints events as docker does, one per line.
//!
//! The output is the line of `docker events`, or the object of `docker events --format '{{json .}}'`, byte for byte
//! (docker/cli `cli/command/system/events.go`; Go's `encoding/json` as docker's `json` template function uses it: keys
//! sorted, empty values omitted, U+2028 and U+2029 escaped, but not `<`, `>` and `&`). Runs on the thread that writes.
//! Labels, image names and the command lines of `exec` are untrusted text: on a terminal their control characters are
//! made visible, elsewhere the bytes are unchanged.

use crate::model::json;
use crate::output::sanitizer::{self, Form};
use crate::output::sink::Sink;
use crate::output::stderr::diagnostics::{self, Diagnostic, Level, LogFormat};
use crate::output::{Error, OutputFormat};
use jiff::tz::TimeZone;

/// The printed parts of an event, in docker's terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventRecord<'a> {
    /// The type of the object, such as `container`.
    pub kind: &'a str,
    /// `die`, `exec_create: sh -c …`
    pub action: &'a str,
    /// The ID of the object that the event is about, or empty.
    pub id: &'a str,
    /// The attributes of the object, by name.
    pub attributes: &'a std::collections::BTreeMap<String, String>,
    /// `local` or `swarm`; empty if the daemon sends none.
    pub scope: &'a str,
    pub time: crate::model::time::Timestamp,
    /// The action in the deprecated part of the event, or empty.
    pub status: &'a str,
    /// The image in the deprecated part of the event, or empty.
    pub from: &'a str,
}

/// Formats events and writes them to stdout.
pub(crate) struct EventPrinter {
    sink: Sink,
    is_json: bool,
    is_quiet: bool,
    log_format: LogFormat,
    zone: TimeZone,
    out: Vec<u8>,
}

/// Buffered bytes that are written even if more events are waiting.
const FLUSH_SIZE: usize = 64 * 1024;

impl EventPrinter {
    /// Opens stdout. [`OutputFormat::Json`] prints objects, any other format prints text.
    pub(crate) fn open(format: OutputFormat, is_quiet: bool, log_format: LogFormat) -> Result<Self, Error> {
        let sink = Sink::stdout(if format == OutputFormat::Json { Form::Json } else { Form::Text })?;
        Ok(EventPrinter {
            sink,
            is_json: format == OutputFormat::Json,
            is_quiet,
            log_format,
            zone: TimeZone::system(),
            out: Vec::new(),
        })
    }

    /// Formats an event into the buffer, and writes the buffer if it is full.
    pub(crate) fn take(&mut self, event: &EventRecord<'_>) -> Result<(), Error> {
        match self.is_json {
            true => object(event, &mut self.out),
            false => line(event, &self.zone, self.sink.is_terminal, &mut self.out),
        }
        if self.out.len() >= FLUSH_SIZE { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer. When it returns `Ok`, the kernel has taken everything.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let written = self.sink.write(&self.out);
        self.out.clear();
        written
    }

    /// Writes a notice to stderr, after the events that preceded it.
    pub(crate) fn notice(&mut self, text: &str) -> Result<(), Error> {
        if self.is_quiet { Ok(()) } else { self.write_notice(Level::Info, text) }
    }

    /// Writes a warning to stderr even with `--quiet`, because a loss is never silent.
    pub(crate) fn warn(&mut self, text: &str) -> Result<(), Error> {
        self.write_notice(Level::Warn, text)
    }

    fn write_notice(&mut self, level: Level, text: &str) -> Result<(), Error> {
        self.flush()?;
        let text = sanitizer::safe(text);
        diagnostics::notice(self.log_format, &text, Diagnostic::new(level, &text));
        Ok(())
    }
}

/// `2026-11-20T23:00:53.037882171+01:00 container die 9f3c… (exitCode=1, image=nginx:1, name=web-1)`
fn line(event: &EventRecord<'_>, zone: &TimeZone, is_terminal: bool, out: &mut Vec<u8>) {
    stamp(event.time, zone, out);
    let put = |text: &str, out: &mut Vec<u8>| match is_terminal {
        true => out.extend_from_slice(sanitizer::safe(text).as_bytes()),
        false => out.extend_from_slice(text.as_bytes()),
    };
    for field in [event.kind, event.action, event.id] {
        out.push(b' ');
        put(field, out);
    }
    for (number, (name, value)) in event.attributes.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b" (" } else { b", " });
        put(name, out);
        out.push(b'=');
        put(value, out);
    }
    out.extend_from_slice(if event.attributes.is_empty() { b"\n" } else { b")\n" });
}

/// Appends the local time with nine digits, like Go's `2006-01-02T15:04:05.000000000Z07:00`: an offset of zero is `Z`.
fn stamp(time: crate::model::time::Timestamp, zone: &TimeZone, out: &mut Vec<u8>) {
    let moment = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let offset = zone.to_offset(moment).seconds();
    let local = crate::model::time::Timestamp(time.0.saturating_add(i64::from(offset) * 1_000_000_000));
    let written = local.written();
    out.extend_from_slice(&written[..written.len() - 1]);
    if offset == 0 {
        return out.push(b'Z');
    }
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
    out.extend_from_slice(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60).as_bytes());
}

fn object(event: &EventRecord<'_>, out: &mut Vec<u8>) {
    let member = |key: &str, value: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(key.as_bytes());
        string(value, out);
    };
    out.push(b'{');
    if !event.status.is_empty() {
        member("\"status\":", event.status, out);
        out.push(b',');
        for (key, value) in [("\"id\":", event.id), ("\"from\":", event.from)] {
            if !value.is_empty() {
                member(key, value, out);
                out.push(b',');
            }
        }
    }
    member("\"Type\":", event.kind, out);
    member(",\"Action\":", event.action, out);
    member(",\"Actor\":{\"ID\":", event.id, out);
    out.extend_from_slice(b",\"Attributes\":{");
    for (number, (name, value)) in event.attributes.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        string(name, out);
        member(":", value, out);
    }
    out.extend_from_slice(b"}}");
    if !event.scope.is_empty() {
        member(",\"scope\":", event.scope, out);
    }
    let (seconds, nanos) = (event.time.0.div_euclid(1_000_000_000), event.time.0);
    out.extend_from_slice(format!(",\"time\":{seconds},\"timeNano\":{nanos}}}\n").as_bytes());
}

/// Appends a JSON string as Go 1.22 and later write it. Earlier versions write backspace and form feed
/// as `\u0008` and `\u000c`.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.find(is_special) {
        json::escape(&rest.as_bytes()[..at], out);
        let mut behind = rest[at..].chars();
        match behind.next() {
            Some('\u{8}') => out.extend_from_slice(b"\\b"),
            Some('\u{c}') => out.extend_from_slice(b"\\f"),
            special => out.extend(special.into_iter().flat_map(|c| format!("\\u{:04x}", u32::from(c)).into_bytes())),
        }
        rest = behind.as_str();
    }
    json::escape(rest.as_bytes(), out);
    out.push(b'"');
}

/// Whether Go escapes this character differently from `json::escape`.
fn is_special(c: char) -> bool {
    matches!(c, '\u{8}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;
    use std::collections::BTreeMap;

    const NIGHT: Timestamp = Timestamp(1_795_215_653_037_882_171);

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn die(attributes: &BTreeMap<String, String>) -> EventRecord<'_> {
        let (kind, action, id, scope) = ("container", "die", "9f3c", "local");
        EventRecord { kind, action, id, attributes, scope, time: NIGHT, status: "die", from: "nginx:1" }
    }

    fn as_line(event: &EventRecord<'_>, zone: &TimeZone, is_terminal: bool) -> String {
        let mut out = Vec::new();
        line(event, zone, is_terminal, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn as_object(event: &EventRecord<'_>) -> String {
        let mut out = Vec::new();
        object(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_local_time_and_sorted_attributes() {
        let some = attributes(&[("name", "web"), ("exitCode", "1")]);
        let none = attributes(&[]);
        for (seconds, attributes, expected) in [
            (0, &some, "2026-11-20T23:00:53.037882171Z container die 9f3c (exitCode=1, name=web)\n"),
            (0, &none, "2026-11-20T23:00:53.037882171Z container die 9f3c\n"),
            (3600, &none, "2026-11-21T00:00:53.037882171+01:00 container die 9f3c\n"),
            (-12_600, &none, "2026-11-20T19:30:53.037882171-03:30 container die 9f3c\n"),
        ] {
            let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).unwrap());
            assert_eq!(as_line(&die(attributes), &zone, false), expected);
        }
    }

    #[test]
    fn an_object_keeps_the_deprecated_keys_of_an_event() {
        let (some, none) = (attributes(&[("name", "web"), ("image", "nginx:1")]), attributes(&[]));
        let end = r#""scope":"local","time":1795215653,"timeNano":1795215653037882171}"#;
        let new = EventRecord { status: "", from: "", ..die(&some) };
        let prune = EventRecord { id: "", action: "prune", status: "prune", from: "", ..die(&none) };
        for (event, expected) in [
            (
                die(&some),
                r#"{"status":"die","id":"9f3c","from":"nginx:1","Type":"container","Action":"die","Actor":{"ID":"9f3c","Attributes":{"image":"nginx:1","name":"web"}},"#,
            ),
            (
                new,
                r#"{"Type":"container","Action":"die","Actor":{"ID":"9f3c","Attributes":{"image":"nginx:1","name":"web"}},"#,
            ),
            (prune, r#"{"status":"prune","Type":"container","Action":"prune","Actor":{"ID":"","Attributes":{}},"#),
        ] {
            assert_eq!(as_object(&event), format!("{expected}{end}\n"));
        }
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        for (text, piped, shown) in [
            ("a<b>&'c", "a<b>&'c", "a<b>&'c"),
            ("\"\\", "\\\"\\\\", "\\\"\\\\"),
            ("\n\r\t\u{8}\u{c}\u{1}\u{1b}", "\\n\\r\\t\\b\\f\\u0001\\u001b", "\\n\\r\\t\\b\\f\\u0001\\u001b"),
            ("\u{2028}x\u{2029}", "\\u2028x\\u2029", "\\u2028x\\u2029"),
            ("\u{7f}\u{9b}\u{202e}ü😀\u{fffd}", "\u{7f}\u{9b}\u{202e}ü😀\u{fffd}", "\\u007f\\u009b\\u202eü😀\u{fffd}"),
        ] {
            for (is_terminal, expected) in [(false, piped), (true, shown)] {
                let (mut written, mut out) = (Vec::new(), Vec::new());
                string(text, &mut written);
                sanitizer::shield(&written, if is_terminal { Form::Json } else { Form::Verbatim }, &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
            }
        }
    }

    #[test]
    fn control_characters_are_visible_on_terminals_and_unchanged_elsewhere() {
        let hostile = attributes(&[("la\x1b]0;x\x07bel", "a\nb\u{9b}2J\x1b[31m")]);
        let event = EventRecord { action: "exec_create: \x1b[2J", status: "", ..die(&hostile) };
        let head = "2026-11-20T23:00:53.037882171Z container exec_create: ";
        let piped = format!("{head}\x1b[2J 9f3c (la\x1b]0;x\x07bel=a\nb\u{9b}2J\x1b[31m)\n");
        let shown = format!("{head}^[[2J 9f3c (la^[]0;x^Gbel=a^Jb\\u009b2J^[[31m)\n");
        assert_eq!([false, true].map(|is_terminal| as_line(&event, &TimeZone::UTC, is_terminal)), [piped, shown]);
    }
}

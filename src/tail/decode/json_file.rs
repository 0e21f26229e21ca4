//! Decodes one record of a `json-file` log.
//!
//! In: one line of the file without its newline. Out: the message as a slice of it, its stream and its time. Called by
//! [`super::block`] for every record; knows nothing of files, or of lines that span several records.
//!
//! The driver writes `{"log":"…\n","stream":"stdout","attrs":{…},"time":"…Z"}` without spaces, and `attrs` only if
//! there are any (moby `daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go`). It escapes quotes, backslashes and control
//! characters, and replaces bytes that are not UTF-8. This form is parsed from both ends. Any other JSON goes through
//! `serde_json`.

use crate::model::batch::Encoding;
use crate::model::json;
use crate::model::line_id::Stream;
use crate::model::time::{Timestamp, TimestampParser};
use crate::tail::Piece;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

const HEAD: &[u8] = b"{\"log\":\"";
/// Offset of the message in its record, if the piece borrows it.
pub(crate) const MESSAGE_AT: usize = HEAD.len();
const TIME: &[u8] = b"\"time\":\"";
const STDOUT: &[u8] = b"\",\"stream\":\"stdout\",";
const STDERR: &[u8] = b"\",\"stream\":\"stderr\",";
const ATTRS: &[u8] = b"\"attrs\":{";
/// Maximum size of a record in bytes. dockerd writes at most 16 KiB of text, each byte escaped to six, and attributes.
pub(crate) const MAX_RECORD: usize = 4 * 1024 * 1024;
/// Length of `"time":"`, a time with nine digits, and `"}`.
const FULL_TIME: usize = TIME.len() + crate::model::time::WRITTEN + 2;

/// Decodes a record, which must be valid UTF-8. `None` if it is not a record.
#[inline]
pub(crate) fn decode<'a>(record: &'a [u8], clock: &mut TimestampParser) -> Option<Piece<'a>> {
    driver_form(record, clock).or_else(|| any_json(record))
}

/// Finds where a record may start after the first byte of `bytes`. After a power cut or on a full disk, half a record
/// is followed by the next one on the same line.
pub(crate) fn resync(bytes: &[u8]) -> Option<usize> {
    find(bytes.get(1..)?).map(|at| at + 1)
}

/// Finds where a record may start.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, HEAD)
}

/// Parses the form that the driver writes.
#[inline]
fn driver_form<'a>(record: &'a [u8], clock: &mut TimestampParser) -> Option<Piece<'a>> {
    let body = record.strip_prefix(HEAD)?;
    let (rest, time) = split_time(body, clock)?;
    let (message, stream) = match split_stream(rest) {
        Some(split) => split,
        None => split_attrs(rest)?,
    };
    let (message, complete) = match message.strip_suffix(b"\\n") {
        // An `n` after an even number of backslashes is not a newline.
        Some(text) if !ends_in_open_escape(text) => (text, true),
        _ => (message, false),
    };
    Some(Piece { time, stream, text: Cow::Borrowed(message), encoding: inside_of_string(message)?, complete })
}

/// Cuts `"time":"…"}` off the end.
#[inline]
fn split_time<'a>(body: &'a [u8], clock: &mut TimestampParser) -> Option<(&'a [u8], Timestamp)> {
    let rest = body.strip_suffix(b"\"}")?;
    if let Some(at) = body.len().checked_sub(FULL_TIME)
        && let Some(text) = rest[at..].strip_prefix(TIME)
        && let Some(time) = clock.parse(text)
    {
        return Some((&body[..at], time));
    }
    // Trailing zeros of the fraction are omitted, so the time may be shorter.
    let from = rest.len().saturating_sub(crate::model::time::WRITTEN);
    let at = from + memchr::memrchr(b'"', &rest[from..])?;
    let time = clock.parse(&rest[at + 1..])?;
    Some((rest[..=at].strip_suffix(TIME)?, time))
}

#[inline]
fn split_stream(rest: &[u8]) -> Option<(&[u8], Stream)> {
    rest.strip_suffix(STDOUT)
        .map(|message| (message, Stream::Stdout))
        .or_else(|| rest.strip_suffix(STDERR).map(|message| (message, Stream::Stderr)))
}

/// Splits a record with attributes: the message ends at its first unescaped quote.
fn split_attrs(rest: &[u8]) -> Option<(&[u8], Stream)> {
    let end = end_of_string(rest)?;
    let (message, after) = rest.split_at(end);
    let (after, stream) = after
        .strip_prefix(STDOUT)
        .map(|after| (after, Stream::Stdout))
        .or_else(|| after.strip_prefix(STDERR).map(|after| (after, Stream::Stderr)))?;
    (after.starts_with(ATTRS) && after.ends_with(b"},")).then_some((message, stream))
}

fn end_of_string(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn ends_in_open_escape(text: &[u8]) -> bool {
    let backslashes = text.iter().rev().take_while(|&&byte| byte == b'\\').count();
    backslashes % 2 == 1
}

/// Returns the encoding of a message. `None` if it is not valid within a JSON string: it contains a raw quote or
/// control character, or an invalid escape.
#[inline]
fn inside_of_string(message: &[u8]) -> Option<Encoding> {
    let at = first_special(message);
    if at == message.len() { Some(Encoding::Plain) } else { escapes(message, at) }
}

/// Returns the index of the first quote, backslash or control character, or the length.
#[inline]
pub(crate) fn first_special(text: &[u8]) -> usize {
    const LANES: usize = 64;
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    // Without a branch, and with a sum that is as wide as a byte, so that the compiler vectorises it wherever it is
    // inlined.
    let has_special = |lanes: &[u8; LANES]| lanes.iter().fold(0, |any, &byte| any | u8::from(special(byte))) != 0;
    let mut at = 0;
    while let Some(lanes) = text[at..].first_chunk::<LANES>() {
        if has_special(lanes) {
            break;
        }
        at += LANES;
    }
    if let (true, Some(lanes)) = (text.len() - at < LANES, text.last_chunk::<LANES>()) {
        // Check the rest together with bytes that were already checked.
        if !has_special(lanes) {
            return text.len();
        }
    }
    text[at..].iter().position(|&byte| special(byte)).map_or(text.len(), |found| at + found)
}

fn escapes(message: &[u8], mut at: usize) -> Option<Encoding> {
    let mut encoding = Encoding::Json;
    while at < message.len() {
        if message[at] != b'\\' {
            return None;
        }
        at += match message.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => {
                let unit = unicode(message.get(at + 2..)?)?;
                match unit {
                    0xd800..0xdc00 if begins_with_low(&message[at + 6..]) => at += 6,
                    // In a long line the other half may be in the next record. Only the whole line decides.
                    0xd800..0xe000 => encoding = Encoding::Surrogates,
                    _ => {}
                }
                6
            }
            _ => return None,
        };
        at += next_special(message.get(at..)?);
    }
    Some(encoding)
}

/// Returns whether `text` starts with the second half of a surrogate pair.
fn begins_with_low(text: &[u8]) -> bool {
    let unit = text.strip_prefix(b"\\u").and_then(unicode);
    unit.is_some_and(|unit| (0xdc00..0xe000).contains(&unit))
}

/// Like [`first_special`], but faster if the next one is near.
fn next_special(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk::<8>() {
        if let Some(found) = json::first_special(*word) {
            return at + found;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count()
}

fn unicode(digits: &[u8]) -> Option<u16> {
    let digits = digits.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        // Four hexadecimal digits fill 16 bits.
        Some(value << 4 | digit as u16)
    })
}

/// Parses any JSON object with these keys, as other writers of the format may produce it.
fn any_json(record: &[u8]) -> Option<Piece<'static>> {
    #[derive(Deserialize)]
    struct JsonRecord<'a> {
        #[serde(default)]
        log: String,
        #[serde(borrow, default)]
        stream: Cow<'a, str>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let Ok(record) = serde_json::from_slice::<JsonRecord<'_>>(record) else { return with_surrogates(record) };
    let time = Timestamp::parse(record.time.as_bytes())?;
    let stream = stream(&record.stream);
    let (message, complete) = match record.log.strip_suffix('\n') {
        Some(message) => (message, true),
        None => (record.log.as_str(), false),
    };
    let mut text = Vec::with_capacity(message.len() + 16);
    json::escape(message.as_bytes(), &mut text);
    Some(Piece { time, stream, encoding: inside_of_string(&text)?, text: Cow::Owned(text), complete })
}

/// Like [`any_json`], for records with lone surrogates, which JSON allows but a `String` cannot contain.
fn with_surrogates(record: &[u8]) -> Option<Piece<'static>> {
    #[derive(Deserialize)]
    struct RawRecord<'a> {
        #[serde(borrow)]
        log: &'a RawValue,
        #[serde(borrow)]
        stream: Option<&'a RawValue>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let record: RawRecord<'_> = serde_json::from_slice(record).ok()?;
    let log = record.log.get().strip_prefix('"')?.strip_suffix('"')?;
    let newlines = ["\\n", "\\u000a", "\\u000A"];
    let line = newlines
        .iter()
        .find_map(|newline| log.strip_suffix(newline))
        .filter(|line| !ends_in_open_escape(line.as_bytes()));
    let message = line.unwrap_or(log).as_bytes().to_vec();
    let encoding = inside_of_string(&message)?;
    let stream = stream(record.stream.map_or("", |stream| stream.get()).trim_matches('"'));
    let time = Timestamp::parse(record.time.as_bytes())?;
    Some(Piece { time, stream, encoding, text: Cow::Owned(message), complete: line.is_some() })
}

fn stream(name: &str) -> Stream {
    if name == "stderr" { Stream::Stderr } else { Stream::Stdout }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(record: &str) -> Option<(String, Stream, i64, bool, Encoding)> {
        let piece = decode(record.as_bytes(), &mut TimestampParser::default())?;
        let text = String::from_utf8(piece.text.into_owned()).unwrap();
        Some((text, piece.stream, piece.time.0, piece.complete, piece.encoding))
    }

    #[test]
    fn every_form_the_driver_writes_is_read() {
        use Encoding::{Json, Plain, Surrogates};
        use Stream::{Stderr, Stdout};
        for (record, expected) in [
            (
                r#"{"log":"hello\n","stream":"stdout","time":"1970-01-01T00:00:01.000000001Z"}"#,
                ("hello", Stdout, 1_000_000_001, true, Plain),
            ),
            (
                r#"{"log":"hello\n","stream":"stderr","time":"1970-01-01T00:00:01.5Z"}"#,
                ("hello", Stderr, 1_500_000_000, true, Plain),
            ),
            (
                r#"{"log":"hello\n","stream":"stderr","time":"1970-01-01T00:00:01Z"}"#,
                ("hello", Stderr, 1_000_000_000, true, Plain),
            ),
            (r#"{"log":"\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#, ("", Stdout, 0, true, Plain)),
            (r#"{"log":"","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#, ("", Stdout, 0, false, Plain)),
            (r#"{"log":"half","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#, ("half", Stdout, 0, false, Plain)),
            (
                r#"{"log":"no newline \\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
                (r"no newline \\n", Stdout, 0, false, Json),
            ),
            (r#"{"log":"a \\\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#, (r"a \\", Stdout, 0, true, Json)),
            (
                r#"{"log":"say \"hi\"\u003c\t\r\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
                (r#"say \"hi\"\u003c\t\r"#, Stdout, 0, true, Json),
            ),
            (
                r#"{"log":"x\n","stream":"stdout","attrs":{"tag":"a\",\"b"},"time":"1970-01-01T00:00:00Z"}"#,
                ("x", Stdout, 0, true, Plain),
            ),
            (
                r#"{"log":"\"},\n","stream":"stderr","attrs":{"a":"1","b":"2"},"time":"1970-01-01T00:00:00.1Z"}"#,
                (r#"\"},"#, Stderr, 100_000_000, true, Json),
            ),
            (
                r#"{"log":"\",\"stream\":\"stderr\",\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
                (r#"\",\"stream\":\"stderr\","#, Stdout, 0, true, Json),
            ),
            // Other writers.
            (
                r#"{ "time": "1970-01-01T01:00:00+01:00", "stream": "stderr", "log": "spaced\n" }"#,
                ("spaced", Stderr, 0, true, Plain),
            ),
            (r#"{"log":"\u00e9\ud83d\ude00\n","time":"1970-01-01T00:00:00Z"}"#, ("é😀", Stdout, 0, true, Plain)),
            (r#"{"log":"\ud83d\n","time":"1970-01-01T00:00:00Z"}"#, (r"\ud83d", Stdout, 0, true, Surrogates)),
            (
                r#"{ "time": "1970-01-01T00:00:00Z", "stream": "stderr", "log": "\uDC00 \\\u000a" }"#,
                (r"\uDC00 \\", Stderr, 0, true, Surrogates),
            ),
        ] {
            let expected = (expected.0.to_owned(), expected.1, expected.2, expected.3, expected.4);
            assert_eq!(read(record), Some(expected), "{record}");
        }
    }

    /// Only lone surrogates get an encoding of their own. Everything else can be copied unchanged.
    #[test]
    fn lone_surrogates_are_noticed() {
        use Encoding::{Json, Surrogates};
        for (text, expected) in [
            (r"\ud83d\ude00", Json),
            (r"\uD83D\uDE00 \u00e9 \ue000 \ud7ff", Json),
            (r"\\ud83d", Json),
            (r"\ud83d", Surrogates),
            (r"\udc00", Surrogates),
            (r"\uDFFFx", Surrogates),
            (r"\ude00\ud83d", Surrogates),
            (r"\ud83d\u0041", Surrogates),
            (r"\ud83dx\ude00", Surrogates),
            (r"\ud83d\\\ude00", Surrogates),
            (r"\ud83d\ud83d\ude00", Surrogates),
            (r"\ud83d\ude00\ude00", Surrogates),
        ] {
            let record = format!(r#"{{"log":"{text}\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}}"#);
            assert_eq!(read(&record).map(|read| read.4), Some(expected), "{text}");
        }
    }

    #[test]
    fn invalid_records_are_refused() {
        for record in [
            "",
            "{",
            "plain text",
            r#"{"log":"a"#,
            r#"{"log":"a\n","stream":"stdout","time":"yesterday"}"#,
            r#"{"log":"a\n","stream":"stdout"}"#,
            r#"{"log":"raw " quote\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
            r#"{"log":"bad \x escape\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
            r#"{"log":"bad \u12g4\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
            "{\"log\":\"nul \0\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}",
            r#"{"log":"open \","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#,
            r#"["log"]"#,
        ] {
            assert_eq!(read(record), None, "{record}");
        }
    }

    #[test]
    fn a_record_after_half_a_record_is_found() {
        let line = br#"{"log":"half of {"log":"whole\n","stream":"stdout","time":"1970-01-01T00:00:00Z"}"#;
        assert!(decode(line, &mut TimestampParser::default()).is_none());
        let at = resync(line).unwrap();
        assert!(decode(&line[at..], &mut TimestampParser::default()).is_some());
    }

    /// A message as the driver escapes it, and the text that this encodes: each byte that is not UTF-8 becomes U+FFFD.
    fn as_the_driver_writes(message: &[u8]) -> (String, String) {
        let (mut escaped, mut meant) = (String::new(), String::new());
        for chunk in message.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => escaped.extend(['\\', character]),
                    '\n' => escaped.push_str("\\n"),
                    '\r' => escaped.push_str("\\r"),
                    '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                        escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
                    }
                    _ => escaped.push(character),
                }
            }
            meant.push_str(chunk.valid());
            escaped.push_str(&r"\ufffd".repeat(chunk.invalid().len()));
            meant.push_str(&"\u{fffd}".repeat(chunk.invalid().len()));
        }
        (escaped, meant)
    }

    fn check_driver_form(message: &[u8]) {
        let (escaped, meant) = as_the_driver_writes(message);
        let record = format!(r#"{{"log":"{escaped}","stream":"stderr","time":"2026-11-20T23:00:53.5Z"}}"#);
        // `driver_form` must accept everything that the driver writes.
        let piece = driver_form(record.as_bytes(), &mut TimestampParser::default()).unwrap();
        let mut text = Vec::new();
        json::unescape(&piece.text, &mut text);
        assert_eq!(String::from_utf8(text).unwrap(), meant.strip_suffix('\n').unwrap_or(&meant));
        assert_eq!(piece.complete, message.ends_with(b"\n"));
        assert_eq!(piece.encoding == Encoding::Plain, !piece.text.contains(&b'\\'));
    }

    #[test]
    fn every_byte_the_driver_escapes_is_read() {
        for byte in 0..=u8::MAX {
            for message in
                [&[byte][..], &[byte, b'\n'], &[b'a', byte, b'b', b'\n'], &[b'\\', byte], &[byte, byte, b'\n']]
            {
                check_driver_form(message);
            }
        }
        // Each position within the words that are compared at once.
        for at in 0..70 {
            for special in ["\"", "\\", "\u{1f}", "\u{7f}", "\u{2028}", "\u{2029}", "\u{fffd}", "😀"] {
                check_driver_form(format!("{}{special}{}\n", "a".repeat(at), "b".repeat(70 - at)).as_bytes());
            }
        }
    }

    #[test]
    fn every_multibyte_character_is_read() {
        for character in ('\u{80}'..=char::MAX).step_by(7).chain(['\u{d7ff}', '\u{e000}', '\u{ffff}', char::MAX]) {
            check_driver_form(format!("{character}\n").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_message_is_read_as_the_driver_means_it(message in prop::collection::vec(
            prop_oneof![4 => any::<u8>(), 1 => Just(b'\\'), 1 => Just(b'"'), 1 => Just(b'\n'), 2 => Just(0xe2), 1 => Just(0x80)],
            0..100,
        )) {
            check_driver_form(&message);
        }

        /// Compares with `serde_json`: both must agree on what they accept, and whatever the driver can
        /// write must be accepted.
        #[test]
        fn agrees_with_a_json_library(message in "(?s).{0,80}", newline: bool, attrs: bool, nanos in 0..i64::MAX) {
            let log = if newline { format!("{message}\n") } else { message };
            let mut record = serde_json::Map::new();
            record.insert("log".into(), log.clone().into());
            record.insert("stream".into(), "stderr".into());
            if attrs {
                record.insert("attrs".into(), serde_json::json!({ "k": log.clone() }));
            }
            let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap().to_string();
            // In the driver's order of keys, which a map does not keep.
            let line = format!(
                "{{\"log\":{},\"stream\":\"stderr\",{}\"time\":\"{time}\"}}",
                record["log"],
                if attrs { format!("\"attrs\":{},", record["attrs"]) } else { String::new() },
            );
            let piece = decode(line.as_bytes(), &mut TimestampParser::default()).unwrap();
            let quoted = format!("\"{}\"", std::str::from_utf8(&piece.text).unwrap());
            let text: String = serde_json::from_str(&quoted).unwrap();
            prop_assert_eq!(text, log.strip_suffix('\n').unwrap_or(&log));
            prop_assert_eq!(piece.complete, log.ends_with('\n'));
            prop_assert_eq!(piece.time.0, nanos);
            prop_assert!(driver_form(line.as_bytes(), &mut TimestampParser::default()).is_some());
        }

        #[test]
        fn invalid_json_is_never_accepted(mut line in Just(
            br#"{"log":"a\u003cb \"c\" \\ d\n","stream":"stdout","time":"2026-11-20T23:00:53.037882171Z"}"#.to_vec()
        ), at in 0..80_usize, byte: u8) {
            line[at] = byte;
            if std::str::from_utf8(&line).is_ok() && decode(&line, &mut TimestampParser::default()).is_some() {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
            }
        }

        #[test]
        fn the_first_special_byte_is_found(text in prop::collection::vec(prop_oneof![8 => 0x20..0xff_u8, 1 => any::<u8>()], 0..200)) {
            let plain = |&byte: &u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
            let expected = text.iter().take_while(|byte| plain(byte)).count();
            prop_assert_eq!(first_special(&text), expected);
            prop_assert_eq!(next_special(&text), expected);
        }
    }
}

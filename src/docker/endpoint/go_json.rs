//! Decodes JSON as Go's `encoding/json` does, for the files that docker's own CLI decodes with it.
//!
//! In: the bytes of a file. Out: values, which are slices of these bytes. Called by [`super::config_file`] and
//! [`super::context`].
//!
//! If this decoder differed from Go's, docker and this program could connect to different daemons. So it equals Go in
//! all that determines the endpoint: invalid UTF-8 and lone surrogates become U+FFFD, keys of structs match in any
//! case, the last of equal keys wins, `null` changes nothing (Go `src/encoding/json`: scanner.go, decode.go). Only
//! requested strings are copied, and nothing recurses.

use std::collections::BTreeMap;

/// How many brackets may be open at once, as in Go.
const MAX_DEPTH: usize = 10_000;

/// Why a text is not valid JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SyntaxError {
    #[error("empty input")]
    Empty,
    #[error("unexpected end of input")]
    Truncated,
    #[error("invalid JSON at byte {0}")]
    At(usize),
    #[error("nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// A syntactically valid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonValue<'a>(&'a [u8]);

/// The first value of a text, whatever follows it, as with Go's `Decoder`.
pub(super) fn first(text: &[u8]) -> Result<JsonValue<'_>, SyntaxError> {
    let begin = skip_whitespace(text, 0);
    if begin == text.len() {
        return Err(SyntaxError::Empty);
    }
    let end = scan(text, begin)?;
    Ok(JsonValue(text.get(begin..end).unwrap_or_default()))
}

/// The only value of a text, as with Go's `Unmarshal`.
pub(super) fn only(text: &[u8]) -> Result<JsonValue<'_>, SyntaxError> {
    let begin = skip_whitespace(text, 0);
    if begin == text.len() {
        return Err(SyntaxError::Empty);
    }
    let end = scan(text, begin)?;
    match skip_whitespace(text, end) {
        rest if rest == text.len() => Ok(JsonValue(text.get(begin..end).unwrap_or_default())),
        rest => Err(SyntaxError::At(rest)),
    }
}

impl<'a> JsonValue<'a> {
    pub(super) fn is_null(self) -> bool {
        self.0 == b"null"
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<String> {
        let inside = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(unquoted(inside))
    }

    /// The members of an object in order, including repeated keys; `None` for other values.
    pub(super) fn members(self) -> Option<impl Iterator<Item = (String, JsonValue<'a>)>> {
        let text = self.0;
        let mut at = (text.first() == Some(&b'{')).then_some(1)?;
        Some(std::iter::from_fn(move || {
            at = skip_whitespace(text, at);
            if text.get(at) == Some(&b',') {
                at = skip_whitespace(text, at + 1);
            }
            let key_end = (text.get(at) == Some(&b'"')).then(|| scan(text, at).ok()).flatten()?;
            let key = JsonValue(text.get(at..key_end)?).text()?;
            let begin = skip_whitespace(text, skip_whitespace(text, key_end) + 1);
            at = scan(text, begin).ok()?;
            Some((key, JsonValue(text.get(begin..at)?)))
        }))
    }
}

/// Whether a key matches the name of a struct's field.
pub(super) fn is_field(key: &str, field: &str) -> bool {
    // The only other characters that are case variants of an ASCII letter.
    let folded = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(field.chars().map(folded))
}

/// Sets a string field as Go does: `null` changes nothing. Returns `false` if the value has the wrong type.
pub(super) fn set_string(field: &mut String, value: JsonValue<'_>) -> bool {
    match value.text() {
        Some(text) => *field = text,
        None => return value.is_null(),
    }
    true
}

/// Sets a map of strings as Go does: an object adds to the map, `null` clears it, and a value that is not a string
/// becomes empty. Returns `false` if anything has the wrong type.
pub(super) fn set_strings(field: &mut BTreeMap<String, String>, value: JsonValue<'_>) -> bool {
    if value.is_null() {
        field.clear();
        return true;
    }
    let Some(members) = value.members() else { return false };
    let mut all_valid = true;
    for (key, value) in members {
        all_valid &= value.is_null() || value.text().is_some();
        field.insert(key, value.text().unwrap_or_default());
    }
    all_valid
}

/// The index of the first byte from `at` on that is not whitespace.
fn skip_whitespace(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Checks the value that begins at `at`. Returns the index after it.
fn scan(text: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Expected {
        Value,
        /// A value, or the end of an array that has just begun.
        First,
        Key,
        /// A key, or the end of an object that has just begun.
        FirstKey,
        /// A comma or a closing bracket.
        More,
    }
    let mut open: Vec<u8> = Vec::new();
    let mut next = Expected::Value;
    loop {
        at = skip_whitespace(text, at);
        let &byte = text.get(at).ok_or(SyntaxError::Truncated)?;
        let closes = match (byte, next) {
            (b']', Expected::First | Expected::More) => open.last() == Some(&b'['),
            (b'}', Expected::FirstKey | Expected::More) => open.last() == Some(&b'{'),
            _ => false,
        };
        if closes {
            open.pop();
            at += 1;
            next = Expected::More;
        } else {
            match (next, byte) {
                (Expected::More, b',') => {
                    at += 1;
                    next = if open.last() == Some(&b'{') { Expected::Key } else { Expected::Value };
                    continue;
                }
                (Expected::Key | Expected::FirstKey, b'"') => {
                    at = skip_whitespace(text, string(text, at)?);
                    match text.get(at) {
                        Some(b':') => at += 1,
                        Some(_) => return Err(SyntaxError::At(at)),
                        None => return Err(SyntaxError::Truncated),
                    }
                    next = Expected::Value;
                    continue;
                }
                (Expected::Value | Expected::First, b'{' | b'[') => {
                    open.push(byte);
                    if open.len() > MAX_DEPTH {
                        return Err(SyntaxError::TooDeep);
                    }
                    at += 1;
                    next = if byte == b'{' { Expected::FirstKey } else { Expected::First };
                    continue;
                }
                (Expected::Value | Expected::First, b'"') => at = string(text, at)?,
                (Expected::Value | Expected::First, b'-' | b'0'..=b'9') => at = number(text, at)?,
                (Expected::Value | Expected::First, b't') => at = literal(text, at, b"true")?,
                (Expected::Value | Expected::First, b'f') => at = literal(text, at, b"false")?,
                (Expected::Value | Expected::First, b'n') => at = literal(text, at, b"null")?,
                _ => return Err(SyntaxError::At(at)),
            }
            next = Expected::More;
        }
        if open.is_empty() {
            return Ok(at);
        }
    }
}

/// Checks the string that begins at `begin`. Returns the index after it.
fn string(text: &[u8], begin: usize) -> Result<usize, SyntaxError> {
    let mut at = begin + 1;
    loop {
        match text.get(at).ok_or(SyntaxError::Truncated)? {
            b'"' => return Ok(at + 1),
            b'\\' => {
                at += 1;
                match text.get(at).ok_or(SyntaxError::Truncated)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            at += 1;
                            if !text.get(at).ok_or(SyntaxError::Truncated)?.is_ascii_hexdigit() {
                                return Err(SyntaxError::At(at));
                            }
                        }
                    }
                    _ => return Err(SyntaxError::At(at)),
                }
            }
            0..=0x1f => return Err(SyntaxError::At(at)),
            _ => {}
        }
        at += 1;
    }
}

/// Checks the number that begins at `at`, of any size. Returns the index after it.
fn number(text: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    let digits = |mut at: usize| {
        let begin = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        match text.get(at) {
            _ if at > begin => Ok(at),
            Some(_) => Err(SyntaxError::At(at)),
            None => Err(SyntaxError::Truncated),
        }
    };
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = if text.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let signed = matches!(text.get(at + 1), Some(b'+' | b'-'));
        at = digits(at + 1 + usize::from(signed))?;
    }
    Ok(at)
}

/// Checks the literal that begins at `at`. Returns the index after it.
fn literal(text: &[u8], at: usize, expected: &[u8]) -> Result<usize, SyntaxError> {
    let wrong = expected.iter().enumerate().find(|(index, byte)| text.get(at + index) != Some(byte));
    match wrong.map(|(index, _)| at + index) {
        None => Ok(at + expected.len()),
        Some(index) if index < text.len() => Err(SyntaxError::At(index)),
        Some(_) => Err(SyntaxError::Truncated),
    }
}

/// Decodes the content between the quotes of a valid string.
fn unquoted(inside: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = inside;
    while let Some(escape) = memchr::memchr(b'\\', rest) {
        push_lossy(&mut text, rest.get(..escape).unwrap_or_default());
        rest = rest.get(escape + 1..).unwrap_or_default();
        let (&letter, behind) = rest.split_first().unwrap_or((&b'\\', &[]));
        rest = behind;
        let plain = match letter {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (c, used) = escaped(rest);
                rest = rest.get(used..).unwrap_or_default();
                c
            }
            letter => char::from(letter),
        };
        text.push(plain);
    }
    push_lossy(&mut text, rest);
    text
}

/// Decodes the hexadecimal digits of a `\u` escape, and a second escape if both form a surrogate pair. Returns the
/// number of bytes taken.
fn escaped(text: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(0).unwrap_or(0xfffd);
    if let 0xd800..0xdc00 = first
        && text.get(4..6) == Some(b"\\u")
        && let Some(second @ 0xdc00..0xe000) = unit(6)
    {
        let whole = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(whole).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

/// Appends text. Each invalid byte becomes one U+FFFD, while Rust's own conversion replaces several bytes with one.
fn push_lossy(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first value, or `! error`.
    fn first_or_error(text: &[u8]) -> String {
        first(text).map_or_else(|error| format!("! {error}"), |value| String::from_utf8_lossy(value.0).into_owned())
    }

    #[test]
    fn the_first_value_is_found_with_the_syntax_of_go() {
        for (text, value) in [
            (&b"{}x"[..], "{}"),
            (b" [1, {\"a\" : [ ] } ] [2]", "[1, {\"a\" : [ ] } ]"),
            (b"nullx", "null"),
            (b"01", "0"),
            (b"-1.5e+7,", "-1.5e+7"),
            (b"1e999", "1e999"),
            (b"\"\\u00e4\\/\\\"\" ", "\"\\u00e4\\/\\\"\""),
            (b"", "! empty input"),
            (b" \r\n\t", "! empty input"),
            (b"\x0b{}", "! invalid JSON at byte 0"),
            (b"\xef\xbb\xbf{}", "! invalid JSON at byte 0"),
            (b"// x\n{}", "! invalid JSON at byte 0"),
            (b"{\"a\":1,}", "! invalid JSON at byte 7"),
            (b"[1,]", "! invalid JSON at byte 3"),
            (b"[1}", "! invalid JSON at byte 2"),
            (b"{\"a\" 1}", "! invalid JSON at byte 5"),
            (b"{1:1}", "! invalid JSON at byte 1"),
            (b"{\"a\":01}", "! invalid JSON at byte 6"),
            (b"{\"a\":\"\x01\"}", "! invalid JSON at byte 6"),
            (b"{\"a\":\"\\q\"}", "! invalid JSON at byte 7"),
            (b"\"\\u12g4\"", "! invalid JSON at byte 5"),
            (b"trux", "! invalid JSON at byte 3"),
            (b"-x", "! invalid JSON at byte 1"),
            (b"1.", "! unexpected end of input"),
            (b"tru", "! unexpected end of input"),
            (b"{\"a\":1", "! unexpected end of input"),
            (b"{\"a\"", "! unexpected end of input"),
            (b"\"a\\", "! unexpected end of input"),
        ] {
            assert_eq!(first_or_error(text), value, "{}", text.escape_ascii());
        }
        let nested = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(first_or_error(&nested(MAX_DEPTH)).len(), 2 * MAX_DEPTH);
        assert_eq!(first_or_error(&nested(MAX_DEPTH + 1)), "! nested more than 10000 levels deep");
    }

    #[test]
    fn nothing_may_follow_the_only_value() {
        assert_eq!(only(b" {} \n"), Ok(JsonValue(b"{}")));
        assert_eq!(only(b"{} x"), Err(SyntaxError::At(3)));
        assert_eq!(only(b"{}{}"), Err(SyntaxError::At(2)));
        assert_eq!(only(b" "), Err(SyntaxError::Empty));
    }

    #[test]
    fn each_invalid_byte_becomes_a_replacement_character() {
        for (json, text) in [
            (&br#""Gr\u00fc\u00dfe \ud83d\ude00""#[..], "Gr\u{fc}\u{df}e \u{1f600}"),
            (b"\"Gr\xf6\xdfe\"", "Gr\u{fffd}\u{fffd}e"),
            (b"\"\xe2\x82x\"", "\u{fffd}\u{fffd}x"),
            (br#""\ud83d""#, "\u{fffd}"),
            (br#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (br#""\ude00\u0041""#, "\u{fffd}A"),
            (br#""\ud83dx\n\t\\\/""#, "\u{fffd}x\n\t\\/"),
        ] {
            assert_eq!(first(json).unwrap().text().unwrap(), text, "{}", json.escape_ascii());
        }
    }

    #[test]
    fn members_are_in_order_with_repeated_keys() {
        let value = first(br#"{ "a" : {"b":[1,"}"]} , "a":null,"\u0041" :"x"}"#).unwrap();
        let members: Vec<String> = value
            .members()
            .unwrap()
            .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value.0)))
            .collect();
        assert_eq!(members, [r#"a={"b":[1,"}"]}"#, "a=null", "A=\"x\""]);
        assert_eq!(first(b"{ }").unwrap().members().unwrap().count(), 0);
        assert!(first(b"[]").unwrap().members().is_none());
        for (key, is_same) in [("endpoints", true), ("ENDPOINTS", true), ("Endpoint\u{17f}", true), ("endpoint", false)]
        {
            assert_eq!(is_field(key, "Endpoints"), is_same, "{key}");
        }
    }

    proptest! {
        #[test]
        fn values_are_the_same_as_serde_json_decodes(text in "[\\[\\]{},:\" a0-9.eE\\\\ntu-]{0,24}") {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // serde_json refuses numbers that are too large, and lone surrogates.
            if let Ok(theirs) = theirs {
                let ours = only(text.as_bytes()).unwrap();
                let text = ours.text();
                prop_assert_eq!(text.as_deref(), theirs.as_str());
                prop_assert_eq!(ours.members().map(|all| all.count()).is_some(), theirs.is_object());
            } else if only(text.as_bytes()).is_ok() {
                let error = theirs.unwrap_err().to_string();
                prop_assert!(error.contains("out of range") || error.contains("surrogate") || error.contains("hex escape"), "{}", error);
            }
        }
    }
}

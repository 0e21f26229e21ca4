//! Converts between bytes and the inside of a JSON string.
//!
//! `serde_json` builds values, which is too slow for every line of a log. The decoders pass messages on in the
//! encoding of the log file, and the output uses these functions to write them as text or as JSON.

use serde::de::DeserializeOwned;

/// Appends `bytes` as the inside of a JSON string. Invalid UTF-8 becomes U+FFFD, one for each maximal invalid sequence.
pub fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    // Nearly all bytes are valid text, so check once instead of splitting into chunks.
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape_str(text, out);
    }
    for chunk in bytes.utf8_chunks() {
        escape_str(chunk.valid(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_str(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = copy_plain(rest, first_special, out);
        let Some((byte, after)) = rest.split_first() else { return };
        rest = after;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
}

/// Decodes the inside of a JSON string and appends the result. Invalid escapes are copied unchanged, and a
/// lone surrogate becomes U+FFFD.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut rest = text;
    loop {
        rest = copy_plain(rest, first_backslash, out);
        match rest {
            [b'\\', kind, after @ ..] => {
                rest = after;
                match kind {
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'r' => out.push(b'\r'),
                    b'b' => out.push(0x08),
                    b'f' => out.push(0x0c),
                    b'u' => rest = unicode(rest, out),
                    _ => out.push(*kind),
                }
            }
            [] => return,
            lone => return out.extend_from_slice(lone),
        }
    }
}

/// Copies the bytes before the first special one and returns the rest. Copies eight bytes at a time and truncates what
/// was copied too much: if special bytes are frequent, that is faster than searching first and copying afterwards.
#[inline]
fn copy_plain<'a>(mut rest: &'a [u8], first: impl Fn([u8; 8]) -> Option<usize>, out: &mut Vec<u8>) -> &'a [u8] {
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        out.extend_from_slice(word);
        if let Some(at) = first(*word) {
            out.truncate(out.len() - 8 + at);
            return &rest[at..];
        }
        rest = after;
    }
    let mut word = [b' '; 8];
    word[..rest.len()].copy_from_slice(rest);
    let (plain, after) = rest.split_at(first(word).unwrap_or(rest.len()));
    out.extend_from_slice(plain);
    after
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const TOPS: u64 = ONES << 7;

/// The index of the first backslash in eight bytes.
#[inline]
fn first_backslash(word: [u8; 8]) -> Option<usize> {
    lowest(zeros(u64::from_le_bytes(word) ^ (ONES * b'\\' as u64)))
}

/// The index of the first byte that must be escaped in a JSON string: a quote, backslash or control character.
#[inline]
pub fn first_special(word: [u8; 8]) -> Option<usize> {
    let word = u64::from_le_bytes(word);
    let below = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
    lowest(zeros(word ^ (ONES * b'\\' as u64)) | zeros(word ^ (ONES * b'"' as u64)) | below)
}

/// Sets the top bit of each byte that is zero. Bytes above the lowest zero byte may be reported falsely.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

#[inline]
fn lowest(tops: u64) -> Option<usize> {
    (tops != 0).then(|| tops.trailing_zeros() as usize / 8)
}

/// Appends the character of a `\uXXXX` escape, or of two that form a surrogate pair. Returns the rest of the text.
fn unicode<'a>(digits: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((unit, mut rest)) = unit(digits) else {
        out.extend_from_slice(b"\\u");
        return digits;
    };
    let mut code = u32::from(unit);
    if let (0xd800..0xdc00, Some((low @ 0xdc00..0xe000, after))) =
        (unit, rest.strip_prefix(b"\\u").and_then(self::unit))
    {
        code = 0x10000 + ((code - 0xd800) << 10) + (u32::from(low) - 0xdc00);
        rest = after;
    }
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

/// Parses JSON like Go, and so like docker: invalid UTF-8 and lone surrogates become U+FFFD.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|error| match repaired(json) {
        Some(repaired) => serde_json::from_slice(&repaired),
        None => Err(error),
    })
}

/// Replaces invalid UTF-8 and lone surrogates by U+FFFD. `None` if there are none.
fn repaired(json: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(json);
    let (mut out, mut rest) = (String::with_capacity(text.len()), &*text);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let code = |at: usize| escape.as_bytes().get(at..)?.strip_prefix(b"\\u").and_then(unit).map(|(unit, _)| unit);
        // An escaped backslash cannot start another escape.
        let len = match (code(0), code(6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => 0,
            _ => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
        };
        out.push_str(if len == 0 { r"\ufffd" } else { &escape[..len] });
        rest = &escape[if len == 0 { 6 } else { len }..];
    }
    out.push_str(rest);
    (out.as_bytes() != json).then(|| out.into_bytes())
}

fn unit(digits: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = digits.split_first_chunk::<4>()?;
    let value = digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))?;
    Some((u16::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn unescaped(text: &str) -> String {
        let mut out = Vec::new();
        unescape(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn invalid_utf8_is_escaped_as_replacement_characters() {
        assert_eq!(escaped(b"a\xff\xfeb\xe2\x82"), "a\u{fffd}\u{fffd}b\u{fffd}");
    }

    #[test]
    fn surrogate_pairs_decode_and_lone_surrogates_are_replaced() {
        for (text, expected) in [
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ude00x", "\u{fffd}x"),
            (r"\ud83dx\ude00", "\u{fffd}x\u{fffd}"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\u2028\/\b\f", "\u{2028}/\u{8}\u{c}"),
            (r"\\n\\\n", "\\n\\\n"),
        ] {
            assert_eq!(unescaped(text), expected, "{text}");
        }
    }

    /// The expected values are those of Go's `encoding/json`.
    #[test]
    fn lone_surrogates_and_invalid_utf8_parse_like_go() {
        for (json, expected) in [
            (&br#""\ud83d\ude00""#[..], "\u{1f600}"),
            (br#""\ud83d""#, "\u{fffd}"),
            (br#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (br#""\uD83D\u0041""#, "\u{fffd}A"),
            (br#""\\ud83d \\\ud83d""#, "\\ud83d \\\u{fffd}"),
            (b"\"a\xff\xc3(\"", "a\u{fffd}\u{fffd}("),
        ] {
            assert_eq!(from_slice::<String>(json).unwrap(), expected, "{}", json.escape_ascii());
        }
        for json in [&br#""\ud83""#[..], br#""\x""#, br#""open \"#, b"\"\0\xff\""] {
            assert!(from_slice::<String>(json).is_err(), "{}", json.escape_ascii());
        }
    }

    #[test]
    fn invalid_escapes_are_copied() {
        for text in [r"\", r"a\", r"\u12", r"\uzzzz!"] {
            assert_eq!(unescaped(text), text);
        }
    }

    proptest! {
        #[test]
        fn first_special_byte_agrees_with_a_simple_search(word: [u8; 8]) {
            let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
            prop_assert_eq!(first_special(word), word.iter().position(special));
            prop_assert_eq!(first_backslash(word), word.iter().position(|&byte| byte == b'\\'));
        }

        #[test]
        fn agrees_with_a_json_library(text in "(?s).*") {
            let quoted = format!("\"{}\"", escaped(text.as_bytes()));
            prop_assert_eq!(&serde_json::from_str::<String>(&quoted).unwrap(), &text);
            prop_assert_eq!(unescaped(&escaped(text.as_bytes())), text.clone());
            let theirs = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescaped(&theirs[1..theirs.len() - 1]), text);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(text: Vec<u8>) {
            let mut out = Vec::new();
            unescape(&text, &mut out);
            escape(&text, &mut out);
        }
    }
}

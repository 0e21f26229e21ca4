//! JSON as Go's `encoding/json` reads it, for the files that docker's own CLI reads with it.
//!
//! In: bytes of a file. Out: values, as slices of it. Called by [`super::endpoint`]. Where two readers differ, a user's
//! docker and we would talk to two engines, so this one differs from Go in nothing that decides which engine it is:
//! invalid UTF-8 and lone surrogates become U+FFFD, keys of structs match in any case, the last of equal keys wins, `null`
//! changes nothing (Go `src/encoding/json`: scanner.go, decode.go). Nothing is copied but the strings asked for, and
//! nothing recurses.

/// Brackets that may be open at one time, as in Go.
const DEPTH: usize = 10_000;

/// Why a text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it is empty")]
    Empty,
    #[error("it ends in the middle")]
    Cut,
    #[error("byte {0} makes no sense in JSON")]
    At(usize),
    #[error("it is nested more than {DEPTH} deep")]
    Deep,
}

/// A value whose syntax is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a>(&'a [u8]);

/// The first value of a text, whatever follows it: Go's `Decoder`.
pub(super) fn first(text: &[u8]) -> Result<Value<'_>, Malformed> {
    let begin = blanks(text, 0);
    if begin == text.len() {
        return Err(Malformed::Empty);
    }
    let end = scan(text, begin)?;
    Ok(Value(text.get(begin..end).unwrap_or_default()))
}

/// The one value of a text: Go's `Unmarshal`.
pub(super) fn only(text: &[u8]) -> Result<Value<'_>, Malformed> {
    let begin = blanks(text, 0);
    if begin == text.len() {
        return Err(Malformed::Empty);
    }
    let end = scan(text, begin)?;
    match blanks(text, end) {
        rest if rest == text.len() => Ok(Value(text.get(begin..end).unwrap_or_default())),
        rest => Err(Malformed::At(rest)),
    }
}

impl<'a> Value<'a> {
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

    /// Of an object: its members in their order, equal keys included.
    pub(super) fn members(self) -> Option<impl Iterator<Item = (String, Value<'a>)>> {
        let text = self.0;
        let mut at = (text.first() == Some(&b'{')).then_some(1)?;
        Some(std::iter::from_fn(move || {
            at = blanks(text, at);
            if text.get(at) == Some(&b',') {
                at = blanks(text, at + 1);
            }
            let key_end = (text.get(at) == Some(&b'"')).then(|| scan(text, at).ok()).flatten()?;
            let key = Value(text.get(at..key_end)?).text()?;
            let begin = blanks(text, blanks(text, key_end) + 1);
            at = scan(text, begin).ok()?;
            Some((key, Value(text.get(begin..at)?)))
        }))
    }
}

/// Whether a key is that of a struct's field.
pub(super) fn is_field(key: &str, field: &str) -> bool {
    // These two have an ASCII letter as their other case.
    let folded = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(field.chars().map(folded))
}

/// The place of the first byte from `at` on that is no blank.
fn blanks(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Checks the value that begins there, and tells where it ends.
fn scan(text: &[u8], mut at: usize) -> Result<usize, Malformed> {
    /// What may come next.
    #[derive(Clone, Copy, PartialEq)]
    enum Next {
        Value,
        /// A value, or the end of the array that has just begun.
        First,
        Key,
        /// A key, or the end of the object that has just begun.
        FirstKey,
        /// A comma or a closing bracket.
        More,
    }
    let mut open: Vec<u8> = Vec::new();
    let mut next = Next::Value;
    loop {
        at = blanks(text, at);
        let &byte = text.get(at).ok_or(Malformed::Cut)?;
        let closes = match (byte, next) {
            (b']', Next::First | Next::More) => open.last() == Some(&b'['),
            (b'}', Next::FirstKey | Next::More) => open.last() == Some(&b'{'),
            _ => false,
        };
        if closes {
            open.pop();
            at += 1;
            next = Next::More;
        } else {
            match (next, byte) {
                (Next::More, b',') => {
                    at += 1;
                    next = if open.last() == Some(&b'{') { Next::Key } else { Next::Value };
                    continue;
                }
                (Next::Key | Next::FirstKey, b'"') => {
                    at = blanks(text, string(text, at)?);
                    match text.get(at) {
                        Some(b':') => at += 1,
                        Some(_) => return Err(Malformed::At(at)),
                        None => return Err(Malformed::Cut),
                    }
                    next = Next::Value;
                    continue;
                }
                (Next::Value | Next::First, b'{' | b'[') => {
                    open.push(byte);
                    if open.len() > DEPTH {
                        return Err(Malformed::Deep);
                    }
                    at += 1;
                    next = if byte == b'{' { Next::FirstKey } else { Next::First };
                    continue;
                }
                (Next::Value | Next::First, b'"') => at = string(text, at)?,
                (Next::Value | Next::First, b'-' | b'0'..=b'9') => at = number(text, at)?,
                (Next::Value | Next::First, b't') => at = word(text, at, b"true")?,
                (Next::Value | Next::First, b'f') => at = word(text, at, b"false")?,
                (Next::Value | Next::First, b'n') => at = word(text, at, b"null")?,
                _ => return Err(Malformed::At(at)),
            }
            next = Next::More;
        }
        if open.is_empty() {
            return Ok(at);
        }
    }
}

/// Where the string ends that begins there.
fn string(text: &[u8], begin: usize) -> Result<usize, Malformed> {
    let mut at = begin + 1;
    loop {
        match text.get(at).ok_or(Malformed::Cut)? {
            b'"' => return Ok(at + 1),
            b'\\' => {
                at += 1;
                match text.get(at).ok_or(Malformed::Cut)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            at += 1;
                            if !text.get(at).ok_or(Malformed::Cut)?.is_ascii_hexdigit() {
                                return Err(Malformed::At(at));
                            }
                        }
                    }
                    _ => return Err(Malformed::At(at)),
                }
            }
            0..=0x1f => return Err(Malformed::At(at)),
            _ => {}
        }
        at += 1;
    }
}

/// Where the number ends that begins there. How large it is does not matter.
fn number(text: &[u8], mut at: usize) -> Result<usize, Malformed> {
    let digits = |mut at: usize| {
        let begin = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        match text.get(at) {
            _ if at > begin => Ok(at),
            Some(_) => Err(Malformed::At(at)),
            None => Err(Malformed::Cut),
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

fn word(text: &[u8], at: usize, word: &[u8]) -> Result<usize, Malformed> {
    let wrong = word.iter().enumerate().find(|(index, byte)| text.get(at + index) != Some(byte));
    match wrong.map(|(index, _)| at + index) {
        None => Ok(at + word.len()),
        Some(place) if place < text.len() => Err(Malformed::At(place)),
        Some(_) => Err(Malformed::Cut),
    }
}

/// What stands between the quotes of a string whose syntax is right.
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

/// The character whose digits begin here, and how many bytes it takes: a second escape may belong to it.
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

/// Each byte that belongs to no character becomes one of U+FFFD, where Rust's own has one for several.
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

    /// The first value, or why there is none.
    fn told(text: &[u8]) -> String {
        first(text).map_or_else(|why| format!("! {why}"), |value| String::from_utf8_lossy(value.0).into_owned())
    }

    #[test]
    fn the_first_value_is_taken_and_its_syntax_is_that_of_go() {
        for (text, value) in [
            (&b"{}x"[..], "{}"),
            (b" [1, {\"a\" : [ ] } ] [2]", "[1, {\"a\" : [ ] } ]"),
            (b"nullx", "null"),
            (b"01", "0"),
            (b"-1.5e+7,", "-1.5e+7"),
            (b"1e999", "1e999"),
            (b"\"\\u00e4\\/\\\"\" ", "\"\\u00e4\\/\\\"\""),
            (b"", "! it is empty"),
            (b" \r\n\t", "! it is empty"),
            (b"\x0b{}", "! byte 0 makes no sense in JSON"),
            (b"\xef\xbb\xbf{}", "! byte 0 makes no sense in JSON"),
            (b"// x\n{}", "! byte 0 makes no sense in JSON"),
            (b"{\"a\":1,}", "! byte 7 makes no sense in JSON"),
            (b"[1,]", "! byte 3 makes no sense in JSON"),
            (b"[1}", "! byte 2 makes no sense in JSON"),
            (b"{\"a\" 1}", "! byte 5 makes no sense in JSON"),
            (b"{1:1}", "! byte 1 makes no sense in JSON"),
            (b"{\"a\":01}", "! byte 6 makes no sense in JSON"),
            (b"{\"a\":\"\x01\"}", "! byte 6 makes no sense in JSON"),
            (b"{\"a\":\"\\q\"}", "! byte 7 makes no sense in JSON"),
            (b"\"\\u12g4\"", "! byte 5 makes no sense in JSON"),
            (b"trux", "! byte 3 makes no sense in JSON"),
            (b"-x", "! byte 1 makes no sense in JSON"),
            (b"1.", "! it ends in the middle"),
            (b"tru", "! it ends in the middle"),
            (b"{\"a\":1", "! it ends in the middle"),
            (b"{\"a\"", "! it ends in the middle"),
            (b"\"a\\", "! it ends in the middle"),
        ] {
            assert_eq!(told(text), value, "{}", text.escape_ascii());
        }
        let nested = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(told(&nested(DEPTH)).len(), 2 * DEPTH);
        assert_eq!(told(&nested(DEPTH + 1)), "! it is nested more than 10000 deep");
    }

    #[test]
    fn a_whole_text_has_one_value_and_nothing_else() {
        assert_eq!(only(b" {} \n"), Ok(Value(b"{}")));
        assert_eq!(only(b"{} x"), Err(Malformed::At(3)));
        assert_eq!(only(b"{}{}"), Err(Malformed::At(2)));
        assert_eq!(only(b" "), Err(Malformed::Empty));
    }

    #[test]
    fn what_is_no_text_becomes_replacement_characters_one_for_each_byte() {
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
    fn members_come_in_their_order_with_equal_keys() {
        let value = first(br#"{ "a" : {"b":[1,"}"]} , "a":null,"\u0041" :"x"}"#).unwrap();
        let told: Vec<String> = value
            .members()
            .unwrap()
            .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value.0)))
            .collect();
        assert_eq!(told, [r#"a={"b":[1,"}"]}"#, "a=null", "A=\"x\""]);
        assert_eq!(first(b"{ }").unwrap().members().unwrap().count(), 0);
        assert!(first(b"[]").unwrap().members().is_none());
        for (key, is_same) in [("endpoints", true), ("ENDPOINTS", true), ("Endpoint\u{17f}", true), ("endpoint", false)]
        {
            assert_eq!(is_field(key, "Endpoints"), is_same, "{key}");
        }
    }

    proptest! {
        #[test]
        fn what_a_library_takes_is_taken_for_the_same(text in "[\\[\\]{},:\" a0-9.eE\\\\ntu-]{0,24}") {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // The library refuses numbers that are too large, and lone surrogates.
            if let Ok(theirs) = theirs {
                let ours = only(text.as_bytes()).unwrap();
                let text = ours.text();
                prop_assert_eq!(text.as_deref(), theirs.as_str());
                prop_assert_eq!(ours.members().map(|all| all.count()).is_some(), theirs.is_object());
            } else if only(text.as_bytes()).is_ok() {
                let why = theirs.unwrap_err().to_string();
                prop_assert!(why.contains("out of range") || why.contains("surrogate") || why.contains("hex escape"), "{}", why);
            }
        }
    }
}

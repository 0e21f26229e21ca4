//! Checks of the parsers in `model` that hold for any input, and tools for such checks.
//!
//! In: any bytes. Out: nothing, or a panic that says which check failed. The targets in `fuzz/` call these functions,
//! for which this module is built with `cfg(fuzzing)`, and so do tests here and in the other modules of this name.
//! Our results are compared with independent libraries that read the same formats.

use super::json;
use super::time::{Timestamp, TimestampParser};

/// Compares escaping and unescaping of arbitrary bytes with `serde_json`.
pub fn escape(bytes: &[u8]) {
    let lossy = String::from_utf8_lossy(bytes);
    let escaped = with(json::escape, bytes);
    let quoted = quoted(&escaped);
    assert_eq!(serde_json::from_slice::<String>(&quoted).ok().as_deref(), Some(&*lossy), "escaped text");
    assert_eq!(with(json::unescape, &escaped), lossy.as_bytes(), "unescaping our own escapes");
    let theirs = serde_json::to_vec(&*lossy).unwrap_or_default();
    let inside = theirs.get(1..theirs.len() - 1).unwrap_or_default();
    assert_eq!(with(json::unescape, inside), lossy.as_bytes(), "unescaping a library's escapes");
}

/// Compares unescaping of arbitrary text with `serde_json`.
pub fn unescape(text: &[u8]) {
    let unescaped = with(json::unescape, text);
    // The longest replacement is that of a lone surrogate: six bytes become three.
    assert!(unescaped.len() <= text.len(), "unescape made the text longer");
    if let Ok(theirs) = serde_json::from_slice::<String>(&quoted(text)) {
        assert_eq!(unescaped, theirs.as_bytes(), "unescaping text that a library accepts");
    }
    for (at, word) in text.windows(8).enumerate() {
        let word = <[u8; 8]>::try_from(word).unwrap_or_default();
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        assert_eq!(json::first_special(word), word.iter().position(special), "at {at}");
    }
}

/// Compares the parsing of timestamps, one per line, with `jiff`, also through the parser that caches the last minute.
pub fn timestamp(bytes: &[u8]) {
    let mut parser = TimestampParser::default();
    for text in bytes.split(|byte| *byte == b'\n') {
        let ours = Timestamp::parse(text);
        assert_eq!(parser.parse(text), ours, "the parser on {:?}", text.escape_ascii().to_string());
        let theirs = by_library(text);
        // The range of the type starts in the middle of a minute of 1677, so the parser may reject times of that year.
        let is_shared = is_shared_form(text);
        if is_shared && (ours.is_some() || theirs.is_none_or(|time| time >= FIRST)) {
            assert_eq!(ours, theirs, "{:?}", text.escape_ascii().to_string());
        }
        if let Some(time) = ours {
            assert_eq!(Timestamp::parse(&time.written()), Some(time), "parsing the written form");
        }
    }
}

/// The start of 1678, 1678-01-01T00:00:00Z.
const FIRST: Timestamp = Timestamp(-9_214_560_000_000_000_000);

fn by_library(text: &[u8]) -> Option<Timestamp> {
    let time: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp)
}

/// Whether the text is in a form that RFC 3339 allows and that both parsers understand in the same way.
pub(crate) fn is_shared_form(text: &[u8]) -> bool {
    let shape = b"0000-00-00T00:00:00";
    let Some((seconds, rest)) = text.split_at_checked(shape.len()) else { return false };
    let fits = |(byte, shape): (&u8, &u8)| match *shape {
        b'0' => byte.is_ascii_digit(),
        shape => byte.to_ascii_uppercase() == shape,
    };
    let zone = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // The library accepts at most nine digits.
            if !(1..=9).contains(&digits) {
                return false;
            }
            &rest[digits..]
        }
        rest => rest,
    };
    let is_offset = |zone: &[u8]| match *zone {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h0, h1, b':', m0, m1] => {
            [h0, h1, m0, m1].iter().all(u8::is_ascii_digit) && (h0, h1) < (b'2', b'4') && m0 < b'6'
        }
        _ => false,
    };
    // The library takes a leap second for the second before it.
    seconds.iter().zip(shape).all(fits) && &seconds[17..] != b"60" && is_offset(zone)
}

fn with(convert: impl Fn(&[u8], &mut Vec<u8>), bytes: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    convert(bytes, &mut out);
    assert!(out.starts_with(b"before"), "existing content was changed");
    out.split_off(b"before".len())
}

fn quoted(inside: &[u8]) -> Vec<u8> {
    [b"\"", inside, b"\""].concat()
}

/// Interprets the bytes of a fuzzer as instructions. Reads zeros after their end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Script { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Reads `length` bytes, or as many as are left.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All bytes that are left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Interprets bytes as the lengths of chunks. At least one length is not 0.
pub(crate) fn lengths(bytes: &[u8]) -> Vec<usize> {
    let bytes = if bytes.iter().all(|length| *length == 0) { &[1] } else { bytes };
    bytes.iter().copied().map(usize::from).collect()
}

/// Cuts bytes into chunks of these lengths, which repeat. Some chunks may be empty.
pub(crate) fn chunks<'a>(lengths: &'a [usize], bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut script = Script::new(bytes);
    lengths.iter().cycle().map_while(move |length| (!script.is_empty()).then(|| script.take(*length)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::test_runner::{Config, TestRunner};
    use std::path::Path;

    /// The number of random inputs per target, besides the seeds.
    const CASES: u32 = 2000;

    /// Runs a target of `fuzz/` on its seeds and on random variations of them.
    pub(crate) fn try_out(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let program = std::fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("oracle::{name}(")), "targets/{name}.rs calls another function");
        let files = std::fs::read_dir(fuzz.join("seeds").join(name)).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| target(seed));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&changed(seeds), |bytes| {
            target(&bytes);
            Ok(())
        });
        result.unwrap();
    }

    #[derive(Clone, Debug)]
    enum Mutation {
        Byte(Index, u8),
        Bit(Index, u8),
        Insert(Index, Vec<u8>),
        Remove(Index, usize),
        Repeat(Index, usize),
        CutOff(Index),
    }

    /// One seed, or two in a row, with a few changes; or arbitrary bytes.
    fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let change = prop_oneof![
            4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
            4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Bit(at, bit)),
            2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
            2 => (any::<Index>(), 1..16_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
            2 => (any::<Index>(), 1..64_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
            1 => any::<Index>().prop_map(Mutation::CutOff),
        ];
        let seed = any::<Index>().prop_map(move |index| index.get(&seeds).clone());
        let one_or_two = prop::collection::vec(seed, 1..3).prop_map(|seeds| seeds.concat());
        let changed = (one_or_two, prop::collection::vec(change, 0..6))
            .prop_map(|(bytes, changes)| changes.into_iter().fold(bytes, apply));
        prop_oneof![15 => changed, 1 => prop::collection::vec(any::<u8>(), 0..200)]
    }

    fn apply(mut bytes: Vec<u8>, change: Mutation) -> Vec<u8> {
        if bytes.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        let piece = |at: usize, most: usize| at..(at + most).min(length);
        match change {
            Mutation::Byte(at, byte) => bytes[at.index(length)] = byte,
            Mutation::Bit(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Mutation::Insert(at, more) => drop(bytes.splice(piece(at.index(length), 0), more)),
            Mutation::Remove(at, most) => drop(bytes.drain(piece(at.index(length), most))),
            Mutation::Repeat(at, most) => {
                let again = bytes[piece(at.index(length), most)].to_vec();
                drop(bytes.splice(piece(at.index(length), 0), again));
            }
            Mutation::CutOff(at) => bytes.truncate(at.index(length)),
        }
        bytes
    }

    #[test]
    fn json_strings_agree_with_a_library() {
        try_out("escape", escape);
        try_out("unescape", unescape);
    }

    #[test]
    fn timestamps_agree_with_a_library() {
        try_out("timestamp", timestamp);
    }

    #[test]
    fn chunks_repeat_the_lengths_and_cover_all_bytes() {
        let cut = |cuts: &[u8]| chunks(&lengths(cuts), b"abcdefg").map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(cut(&[3, 0, 2]), [&b"abc"[..], b"", b"de", b"fg"]);
        assert_eq!(cut(&[0]).concat(), b"abcdefg");
        assert_eq!(cut(&[]).len(), 7);
    }
}

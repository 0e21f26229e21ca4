//! What holds of the shelf's decoders whatever they are given, and what such checks need.
//!
//! In: any bytes. Out: nothing, or a panic that says what does not hold. Called by the targets in `fuzz/`, for which
//! this is built with `cfg(fuzzing)`, and by the tests below and in the rooms, whose own checks lie in modules of this
//! name. The oracles are libraries that read the same forms, as little of our own as can be.

use super::json;
use super::time::{Timestamp, TimestampParser};

/// Bytes into a JSON string and out of it again, as `serde_json` does it.
pub fn escape(bytes: &[u8]) {
    let lossy = String::from_utf8_lossy(bytes);
    let escaped = with(json::escape, bytes);
    let quoted = quoted(&escaped);
    assert_eq!(serde_json::from_slice::<String>(&quoted).ok().as_deref(), Some(&*lossy), "what escape wrote");
    assert_eq!(with(json::unescape, &escaped), lossy.as_bytes(), "unescape of what escape wrote");
    let theirs = serde_json::to_vec(&*lossy).unwrap_or_default();
    let inside = theirs.get(1..theirs.len() - 1).unwrap_or_default();
    assert_eq!(with(json::unescape, inside), lossy.as_bytes(), "unescape of what a library wrote");
}

/// What may be the inside of a JSON string, as `serde_json` reads it.
pub fn unescape(text: &[u8]) {
    let unescaped = with(json::unescape, text);
    // The longest thing that becomes longer is half a surrogate pair, of six bytes, and that becomes three.
    assert!(unescaped.len() <= text.len(), "unescape made more of it");
    if let Ok(theirs) = serde_json::from_slice::<String>(&quoted(text)) {
        assert_eq!(unescaped, theirs.as_bytes(), "unescape of what a library reads");
    }
    for (at, word) in text.windows(8).enumerate() {
        let word = <[u8; 8]>::try_from(word).unwrap_or_default();
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        assert_eq!(json::first_special(word), word.iter().position(special), "at {at}");
    }
}

/// Written times, one a line, as `jiff` reads them, by a reader that keeps the last minute as well.
pub fn timestamp(bytes: &[u8]) {
    let mut clock = TimestampParser::default();
    for text in bytes.split(|byte| *byte == b'\n') {
        let ours = Timestamp::parse(text);
        assert_eq!(clock.parse(text), ours, "the reader on {:?}", text.escape_ascii().to_string());
        let theirs = by_library(text);
        // The range begins within a minute of 1677, and what is of that year may be refused.
        let is_shared = is_shared_form(text);
        if is_shared && (ours.is_some() || theirs.is_none_or(|time| time >= FIRST)) {
            assert_eq!(ours, theirs, "{:?}", text.escape_ascii().to_string());
        }
        if let Some(time) = ours {
            assert_eq!(Timestamp::parse(&time.written()), Some(time), "as it is written");
        }
    }
}

/// 1678-01-01T00:00:00Z.
const FIRST: Timestamp = Timestamp(-9_214_560_000_000_000_000);

fn by_library(text: &[u8]) -> Option<Timestamp> {
    let time: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp)
}

/// Of all that a library takes, what RFC 3339 allows and both take for the same.
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
            // The library takes no more than nine.
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
    // A library takes a leap second for the one before.
    seconds.iter().zip(shape).all(fits) && &seconds[17..] != b"60" && is_offset(zone)
}

fn with(convert: impl Fn(&[u8], &mut Vec<u8>), bytes: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    convert(bytes, &mut out);
    assert!(out.starts_with(b"before"), "what was there before is left alone");
    out.split_off(b"before".len())
}

fn quoted(inside: &[u8]) -> Vec<u8> {
    [b"\"", inside, b"\""].concat()
}

/// Reads what to do off a fuzzer's bytes. Past their end it reads zeros.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Script { rest: bytes }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next bytes, so many or all there are.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Everything behind.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Bytes as lengths to cut something into; not all of them are 0.
pub fn lengths(bytes: &[u8]) -> Vec<usize> {
    let bytes = if bytes.iter().all(|length| *length == 0) { &[1] } else { bytes };
    bytes.iter().copied().map(usize::from).collect()
}

/// Cuts bytes into chunks of these lengths, over and over. Some may be empty.
pub fn chunks<'a>(lengths: &'a [usize], bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
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

    /// So many inputs are tried beside the seeds.
    const TRIES: u32 = 2000;

    /// Runs a target of `fuzz/` on its seeds there, and on what chance makes of them.
    pub(crate) fn try_out(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let program = std::fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("fuzzing::{name}(")), "targets/{name}.rs calls something else");
        let files = std::fs::read_dir(fuzz.join("seeds").join(name)).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| target(seed));
        let config = Config { cases: TRIES, failure_persistence: None, ..Config::default() };
        let tried = TestRunner::new(config).run(&changed(seeds), |bytes| {
            target(&bytes);
            Ok(())
        });
        tried.unwrap();
    }

    #[derive(Clone, Debug)]
    enum Change {
        Byte(Index, u8),
        Bit(Index, u8),
        Insert(Index, Vec<u8>),
        Remove(Index, usize),
        Repeat(Index, usize),
        CutOff(Index),
    }

    /// One of some inputs, changed a little, or two of them behind each other, or bytes that are like none.
    fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let change = prop_oneof![
            4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
            4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Bit(at, bit)),
            2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
            2 => (any::<Index>(), 1..16_usize).prop_map(|(at, length)| Change::Remove(at, length)),
            2 => (any::<Index>(), 1..64_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
            1 => any::<Index>().prop_map(Change::CutOff),
        ];
        let seed = any::<Index>().prop_map(move |index| index.get(&seeds).clone());
        let one_or_two = prop::collection::vec(seed, 1..3).prop_map(|seeds| seeds.concat());
        let changed = (one_or_two, prop::collection::vec(change, 0..6))
            .prop_map(|(bytes, changes)| changes.into_iter().fold(bytes, apply));
        prop_oneof![15 => changed, 1 => prop::collection::vec(any::<u8>(), 0..200)]
    }

    fn apply(mut bytes: Vec<u8>, change: Change) -> Vec<u8> {
        if bytes.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        let piece = |at: usize, most: usize| at..(at + most).min(length);
        match change {
            Change::Byte(at, byte) => bytes[at.index(length)] = byte,
            Change::Bit(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Change::Insert(at, more) => drop(bytes.splice(piece(at.index(length), 0), more)),
            Change::Remove(at, most) => drop(bytes.drain(piece(at.index(length), most))),
            Change::Repeat(at, most) => {
                let again = bytes[piece(at.index(length), most)].to_vec();
                drop(bytes.splice(piece(at.index(length), 0), again));
            }
            Change::CutOff(at) => bytes.truncate(at.index(length)),
        }
        bytes
    }

    #[test]
    fn strings_pass_into_json_and_out_of_it_as_a_library_has_them_pass() {
        try_out("escape", escape);
        try_out("unescape", unescape);
    }

    #[test]
    fn times_are_read_as_a_library_reads_them() {
        try_out("timestamp", timestamp);
    }

    #[test]
    fn chunks_are_as_long_as_they_were_to_be_and_add_up() {
        let cut = |cuts: &[u8]| chunks(&lengths(cuts), b"abcdefg").map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(cut(&[3, 0, 2]), [&b"abc"[..], b"", b"de", b"fg"]);
        assert_eq!(cut(&[0]).concat(), b"abcdefg");
        assert_eq!(cut(&[]).len(), 7);
    }
}

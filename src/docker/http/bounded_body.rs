//! Limits for the bodies of responses, and lists that are decoded while they arrive.
//!
//! In: the pieces of a body as the daemon sends them. Out: the entries of a list, one by one. Called by
//! [`super::super::api`].
//!
//! A daemon may send anything, so memory use is bounded: only one entry is buffered at a time, and what the caller
//! keeps of the entries is counted.

use crate::docker::{ApiOperation, Error};

/// Limit for a list on the wire, in bytes: 12 KiB for each of ten thousand containers.
pub(crate) const MAX_LIST: usize = 128 << 20;
/// Limit for one entry of a list, and for a response that is a single object, in bytes. A container's labels are
/// limited only by the request that created it, and docker's own command line passes at most two megabytes.
pub(crate) const MAX_ENTRY: usize = 8 << 20;
/// Limit for what is kept of one list in memory, in bytes: 4 KiB for each of ten thousand containers.
pub(crate) const MAX_KEPT: usize = 40 << 20;

/// A value whose memory use is known.
pub(crate) trait Weigh {
    /// An upper estimate in bytes, including the allocator's overhead.
    fn weight(&self) -> usize;
}

impl Weigh for String {
    fn weight(&self) -> usize {
        size_of::<String>() + self.len() + 16
    }
}

/// The sum of the weights of the values that are kept of one list.
#[derive(Default)]
pub(crate) struct MemoryBudget(usize);

impl MemoryBudget {
    /// Adds a value. Fails once the sum exceeds [`MAX_KEPT`].
    pub(crate) fn add(&mut self, operation: ApiOperation, value: &impl Weigh) -> Result<(), Error> {
        self.0 += value.weight();
        if self.0 > MAX_KEPT { Err(Error::TooLarge { operation, limit: MAX_KEPT }) } else { Ok(()) }
    }
}

/// Why a body could not be split into entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListSyntaxError {
    #[error("not a list")]
    NotAList,
    #[error("unexpected end")]
    Truncated,
    #[error("an entry is longer than {MAX_ENTRY} bytes")]
    EntryTooLong,
}

/// Splits a JSON array into its entries while it arrives. Buffers at most one entry.
///
/// It follows only strings and brackets. Whether an entry is valid JSON is found out when the caller decodes it.
pub(crate) struct ArraySplitter {
    /// The array is the value of this key of an object; `None` if it is the whole body.
    key: Option<&'static str>,
    state: ListState,
    /// What has arrived of the current entry, or of the current key of the object around the array. At
    /// [`ListState::Start`], the letters of a possible `null`.
    text: Vec<u8>,
    /// How many brackets are open within the current entry or skipped value.
    depth: usize,
    string: Quote,
    /// How many entries were found so far.
    entries: usize,
}

/// What surrounds the next byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListState {
    /// Before the body's value.
    Start,
    /// In the object, before a key or the end of the object.
    BeforeKey,
    InKey,
    AfterKey,
    /// Before the value of a key; `true` if it is [`ArraySplitter::key`].
    BeforeValue(bool),
    /// In the value of a different key.
    Skipped,
    /// Inside an entry of the array.
    Entry,
    /// After the array, in the object around it.
    Rest,
    /// After the body's value.
    End,
}

/// Whether the next byte belongs to a string.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Quote {
    #[default]
    Outside,
    Inside,
    Escaped,
}

impl ArraySplitter {
    pub(crate) fn new(key: Option<&'static str>) -> ArraySplitter {
        let (text, depth, string) = (Vec::new(), 0, Quote::default());
        ArraySplitter { key, state: ListState::Start, text, depth, string, entries: 0 }
    }

    /// Takes the next piece of the body, and calls `found` with each entry that ends in it.
    pub(crate) fn push<E: From<ListSyntaxError>>(
        &mut self,
        mut piece: &[u8],
        found: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(&byte) = piece.first() {
            let taken = match self.state {
                ListState::Entry => self.entry(piece, found)?,
                ListState::Skipped => self.skip(piece),
                ListState::InKey => self.key(piece)?,
                // Nothing after the array matters.
                ListState::Rest => piece.len(),
                // In one step, as there may be any number of them.
                _ if byte.is_ascii_whitespace() => piece.len() - piece.trim_ascii_start().len(),
                _ => {
                    self.structural_byte(byte)?;
                    1
                }
            };
            piece = piece.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// To be called at the end of the body. Fails if the list is incomplete.
    pub(crate) fn end(&self) -> Result<(), ListSyntaxError> {
        match self.state {
            ListState::End | ListState::Rest => Ok(()),
            // Go encodes a nil slice as `null`.
            ListState::Start if self.text == b"null" => Ok(()),
            ListState::Start if !self.text.is_empty() => Err(ListSyntaxError::NotAList),
            _ => Err(ListSyntaxError::Truncated),
        }
    }

    /// Takes a byte that belongs to neither an entry nor a string and is not whitespace.
    fn structural_byte(&mut self, byte: u8) -> Result<(), ListSyntaxError> {
        self.state = match (self.state, byte) {
            (ListState::Start, b'[') if self.key.is_none() && self.text.is_empty() => ListState::Entry,
            (ListState::Start, b'{') if self.key.is_some() && self.text.is_empty() => ListState::BeforeKey,
            (ListState::Start, letter) if self.text.len() < 4 => {
                self.text.push(letter);
                ListState::Start
            }
            (ListState::BeforeKey, b'"') => {
                self.text.clear();
                ListState::InKey
            }
            (ListState::BeforeKey, b'}') => ListState::End,
            (ListState::AfterKey, b':') => {
                ListState::BeforeValue(self.key.is_some_and(|key| key.as_bytes() == self.text))
            }
            (ListState::BeforeValue(true), b'[') => {
                self.text.clear();
                ListState::Entry
            }
            (ListState::BeforeValue(is_wanted), _) => {
                // In place of the list only `null` is allowed.
                if is_wanted && byte != b'n' {
                    return Err(ListSyntaxError::NotAList);
                }
                (self.depth, self.string) = (0, Quote::Outside);
                self.track_nesting(byte);
                ListState::Skipped
            }
            (ListState::BeforeKey, b',') => ListState::BeforeKey,
            _ => return Err(ListSyntaxError::NotAList),
        };
        Ok(())
    }

    /// Takes a key up to its end. Returns the number of bytes taken.
    fn key(&mut self, piece: &[u8]) -> Result<usize, ListSyntaxError> {
        let Some(end) = memchr::memchr2(b'"', b'\\', piece) else {
            self.append_key(piece);
            return Ok(piece.len());
        };
        // The daemon writes its keys without escapes.
        if piece.get(end) == Some(&b'\\') {
            return Err(ListSyntaxError::NotAList);
        }
        self.append_key(piece.get(..end).unwrap_or_default());
        self.state = ListState::AfterKey;
        Ok(end + 1)
    }

    /// Keeps only the first 64 bytes of a key, which is more than any expected key has.
    fn append_key(&mut self, piece: &[u8]) {
        let free = 64_usize.saturating_sub(self.text.len());
        self.text.extend_from_slice(piece.get(..free.min(piece.len())).unwrap_or_default());
    }

    /// Skips a value and the comma or bracket after it. Returns the number of bytes taken.
    fn skip(&mut self, piece: &[u8]) -> usize {
        for (at, &byte) in piece.iter().enumerate() {
            if self.depth == 0 && self.string == Quote::Outside && matches!(byte, b',' | b'}') {
                self.state = if byte == b',' { ListState::BeforeKey } else { ListState::End };
                return at + 1;
            }
            self.track_nesting(byte);
        }
        piece.len()
    }

    /// Takes entries up to the end of the piece or of the array. Returns the number of bytes taken.
    fn entry<E: From<ListSyntaxError>>(
        &mut self,
        piece: &[u8],
        found: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (mut at, mut begin) = (0, 0);
        while let Some(&byte) = piece.get(at) {
            if self.string == Quote::Inside {
                // Most bytes of a list are in strings, so these are searched fast.
                match memchr::memchr2(b'"', b'\\', piece.get(at..).unwrap_or_default()) {
                    Some(0) => {}
                    Some(plain) => {
                        at += plain;
                        continue;
                    }
                    None => {
                        at = piece.len();
                        continue;
                    }
                }
            } else if self.string == Quote::Outside && self.depth == 0 && matches!(byte, b',' | b']') {
                self.append(piece.get(begin..at).unwrap_or_default())?;
                let is_last = byte == b']';
                // The array `[]` has no entry.
                if !(is_last && self.entries == 0 && self.text.is_empty()) {
                    self.entries += 1;
                    found(&self.text)?;
                }
                self.text.clear();
                if is_last {
                    self.state = if self.key.is_some() { ListState::Rest } else { ListState::End };
                    return Ok(at + 1);
                }
                (at, begin) = (at + 1, at + 1);
                continue;
            }
            self.track_nesting(byte);
            at += 1;
        }
        self.append(piece.get(begin..).unwrap_or_default())?;
        Ok(piece.len())
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), ListSyntaxError> {
        // There may be any amount of whitespace before an entry.
        let piece = if self.text.is_empty() { piece.trim_ascii_start() } else { piece };
        if self.text.len() + piece.len() > MAX_ENTRY {
            return Err(ListSyntaxError::EntryTooLong);
        }
        self.text.extend_from_slice(piece);
        Ok(())
    }

    /// Updates `string` and `depth` for one byte.
    fn track_nesting(&mut self, byte: u8) {
        self.string = match (self.string, byte) {
            (Quote::Outside, b'"') => Quote::Inside,
            (Quote::Inside, b'"') => Quote::Outside,
            (Quote::Inside, b'\\') => Quote::Escaped,
            (Quote::Escaped, _) => Quote::Inside,
            (Quote::Outside, b'{' | b'[') => {
                self.depth += 1;
                Quote::Outside
            }
            (Quote::Outside, b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                Quote::Outside
            }
            (string, _) => string,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The entries of a body that arrives in pieces of `size` bytes, joined by `|`, or `! error`.
    fn split(key: Option<&'static str>, body: &[u8], size: usize) -> String {
        let mut entries = ArraySplitter::new(key);
        let mut found = Vec::new();
        let mut take = |entry: &[u8]| {
            found.push(String::from_utf8_lossy(entry).trim().to_owned());
            Ok::<(), ListSyntaxError>(())
        };
        let read = body.chunks(size.max(1)).try_for_each(|piece| entries.push(piece, &mut take));
        match read.and_then(|()| entries.end()) {
            Ok(()) => found.join("|"),
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn a_list_is_split_the_same_however_it_arrives() {
        for (key, body, expected) in [
            (None, "[]", ""),
            (None, " [ ] ", ""),
            (None, "null", ""),
            (None, "[1]", "1"),
            (None, r#"[{"a":"],[{"},{"b":"\"]\\"}]"#, r#"{"a":"],[{"}|{"b":"\"]\\"}"#),
            (None, "[ {} ,\n[1,[2]] ]", "{}|[1,[2]]"),
            (None, "[{},]", "{}|"),
            (None, "[,]", "|"),
            (None, "", "! unexpected end"),
            (None, "  ", "! unexpected end"),
            (None, "[{}", "! unexpected end"),
            (None, "[\"", "! unexpected end"),
            (None, "nu", "! not a list"),
            (None, "nulls", "! not a list"),
            (None, "<html>[1]", "! not a list"),
            (None, r#"{"message":"no"}"#, "! not a list"),
            (None, "[1] x", "! not a list"),
            (Some("V"), r#"{"V":[1,2],"W":null}"#, "1|2"),
            (Some("V"), r#" { "W" : {"V":[7]} , "V" : [ 1 ] } "#, "1"),
            (Some("V"), r#"{"W":"}\",\"V\":[7]","V":[1]}"#, "1"),
            (Some("V"), r#"{"V":null,"W":[]}"#, ""),
            (Some("V"), "{}", ""),
            (Some("V"), r#"{"v":[1]}"#, ""),
            (Some("V"), r#"{"V":{}}"#, "! not a list"),
            (Some("V"), r#"{"\u0056":[1]}"#, "! not a list"),
            (Some("V"), r#"{"V":[1]"#, "1"),
            (Some("V"), r#"{"V""#, "! unexpected end"),
            (Some("V"), "[1]", "! not a list"),
        ] {
            for size in 1..=body.len().max(1) {
                assert_eq!(split(key, body.as_bytes(), size), expected, "{key:?} {body} by {size}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_for_an_endless_body() {
        let endless = |begin: &str, again: &str| {
            let again = again.repeat(1 << 16);
            let mut entries = ArraySplitter::new(None);
            let mut take = |_: &[u8]| Ok::<(), ListSyntaxError>(());
            let mut read = entries.push(begin.as_bytes(), &mut take);
            for _ in 0..MAX_ENTRY / again.len() + 2 {
                read = read.and_then(|()| entries.push(again.as_bytes(), &mut take));
                assert!(entries.text.capacity() <= 2 * MAX_ENTRY, "{begin}");
            }
            read
        };
        for (begin, again, outcome) in [
            ("", " ", Ok(())),
            ("[", " ", Ok(())),
            ("[1", ",1", Ok(())),
            ("[\"", "x", Err(ListSyntaxError::EntryTooLong)),
            ("[", "[", Err(ListSyntaxError::EntryTooLong)),
            ("[1", " ", Err(ListSyntaxError::EntryTooLong)),
            ("[{}", ",{}", Ok(())),
        ] {
            assert_eq!(endless(begin, again), outcome, "{begin} {again}");
        }
    }

    proptest! {
        #[test]
        fn entries_are_the_same_as_serde_json_finds(
            list in prop::collection::vec((".{0,9}", prop::collection::vec(".{0,9}", 0..3)), 0..6),
            size in 1usize..40,
        ) {
            let body = serde_json::to_vec(&serde_json::json!(list)).unwrap();
            let mut entries = ArraySplitter::new(None);
            let mut found: Vec<(String, Vec<String>)> = Vec::new();
            let mut take = |entry: &[u8]| {
                found.push(serde_json::from_slice(entry).unwrap());
                Ok::<(), ListSyntaxError>(())
            };
            for piece in body.chunks(size) {
                entries.push(piece, &mut take).unwrap();
            }
            entries.end().unwrap();
            prop_assert_eq!(found, list);
        }
    }
}

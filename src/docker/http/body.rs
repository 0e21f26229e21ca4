//! Bodies of answers that are read as a whole: how large they may be, and lists decoded while they arrive.
//!
//! In: the pieces of a body as the engine sends them. Out: one object, or the entries of a list one by one. Called by
//! [`super::wire`]. An engine may send anything, so nothing here grows with what arrives: one entry is held at a time, and
//! what the caller keeps of the entries is counted.

use crate::docker::Error;

/// A list may be this long on the wire: 12 KiB for each of ten thousand containers.
pub(crate) const LIST: usize = 128 << 20;
/// One entry of a list, or one answer that is a single object. Nothing limits a container's labels but the request that
/// created it, and docker's own command line passes two megabytes at most.
pub(crate) const ENTRY: usize = 8 << 20;
/// What is kept of one list in memory: 4 KiB for each of ten thousand containers.
pub(crate) const KEPT: usize = 40 << 20;

/// Memory that a value takes, counted generously.
pub(crate) trait Weigh {
    /// In bytes, with what the allocator adds.
    fn weight(&self) -> usize;
}

impl Weigh for String {
    fn weight(&self) -> usize {
        size_of::<String>() + self.len() + 16
    }
}

/// Whether a sum of weights has passed [`KEPT`].
#[derive(Default)]
pub(crate) struct Scale(usize);

impl Scale {
    /// Adds a value, or says that all of them together are too large to be kept.
    pub(crate) fn add(&mut self, what: &'static str, value: &impl Weigh) -> Result<(), Error> {
        self.0 += value.weight();
        if self.0 > KEPT { Err(Error::TooLarge { what, limit: KEPT }) } else { Ok(()) }
    }
}

/// Why a body is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoList {
    #[error("it is no list")]
    Shape,
    #[error("it ends in the middle")]
    Cut,
    #[error("an entry is longer than {ENTRY} bytes")]
    Long,
}

/// Cuts a JSON array into its entries while it arrives, and holds one entry at most. It knows strings and brackets only:
/// whoever decodes an entry finds out whether that is JSON.
pub(crate) struct Entries {
    /// The array is the value of this key of an object; `None` when it is the whole body.
    key: Option<&'static str>,
    place: Place,
    /// The entry that is arriving, or the key of the object that is.
    text: Vec<u8>,
    /// Brackets that are open within the value that is arriving.
    depth: usize,
    string: Quote,
    entries: usize,
}

/// Where the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the body's value.
    Start,
    /// In the object, before a key or its end; or in a key; or between a key and its value.
    Key,
    Name,
    Colon,
    /// Before the value of a key; `true` when it is the wanted one.
    Value(bool),
    /// In a value that nobody wants.
    Skipped,
    /// In the array.
    Entry,
    /// Behind the array, in the object around it.
    Rest,
    /// Behind everything.
    End,
}

/// Whether the next byte stands in a string.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Quote {
    #[default]
    Outside,
    Inside,
    Escaped,
}

impl Entries {
    pub(crate) fn new(key: Option<&'static str>) -> Entries {
        let (text, depth, string) = (Vec::new(), 0, Quote::default());
        Entries { key, place: Place::Start, text, depth, string, entries: 0 }
    }

    /// Takes a piece of the body, and passes each entry that ended in it to `found`.
    pub(crate) fn push<E: From<NoList>>(
        &mut self,
        mut piece: &[u8],
        found: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(&byte) = piece.first() {
            let taken = match self.place {
                Place::Entry => self.entry(piece, found)?,
                Place::Skipped => self.skip(piece),
                Place::Name => self.name(piece)?,
                // Behind the array nothing is wanted any more.
                Place::Rest => piece.len(),
                // There may be any number of them.
                _ if byte.is_ascii_whitespace() => piece.len() - piece.trim_ascii_start().len(),
                _ => {
                    self.between(byte)?;
                    1
                }
            };
            piece = piece.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// The body has ended.
    pub(crate) fn end(&self) -> Result<(), NoList> {
        match self.place {
            Place::End | Place::Rest => Ok(()),
            // `null`, which is how Go writes a list that was never made.
            Place::Start if self.text == b"null" => Ok(()),
            Place::Start if !self.text.is_empty() => Err(NoList::Shape),
            _ => Err(NoList::Cut),
        }
    }

    /// A byte that is neither in an entry nor in a string, and no blank.
    fn between(&mut self, byte: u8) -> Result<(), NoList> {
        self.place = match (self.place, byte) {
            (Place::Start, b'[') if self.key.is_none() && self.text.is_empty() => Place::Entry,
            (Place::Start, b'{') if self.key.is_some() && self.text.is_empty() => Place::Key,
            (Place::Start, letter) if self.text.len() < 4 => {
                self.text.push(letter);
                Place::Start
            }
            (Place::Key, b'"') => {
                self.text.clear();
                Place::Name
            }
            (Place::Key, b'}') => Place::End,
            (Place::Colon, b':') => Place::Value(self.key.is_some_and(|key| key.as_bytes() == self.text)),
            (Place::Value(true), b'[') => {
                self.text.clear();
                Place::Entry
            }
            (Place::Value(is_wanted), _) => {
                // Only `null` can stand for the list.
                if is_wanted && byte != b'n' {
                    return Err(NoList::Shape);
                }
                (self.depth, self.string) = (0, Quote::Outside);
                self.inside(byte);
                Place::Skipped
            }
            (Place::Key, b',') => Place::Key,
            _ => return Err(NoList::Shape),
        };
        Ok(())
    }

    /// A key up to its end. Of one that is longer than any we know only the beginning is kept.
    fn name(&mut self, piece: &[u8]) -> Result<usize, NoList> {
        let Some(end) = memchr::memchr2(b'"', b'\\', piece) else {
            self.keep_name(piece);
            return Ok(piece.len());
        };
        // A key that is written with escapes is none of those we look for.
        if piece.get(end) == Some(&b'\\') {
            return Err(NoList::Shape);
        }
        self.keep_name(piece.get(..end).unwrap_or_default());
        self.place = Place::Colon;
        Ok(end + 1)
    }

    fn keep_name(&mut self, piece: &[u8]) {
        let room = 64_usize.saturating_sub(self.text.len());
        self.text.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
    }

    /// A value that nobody wants, up to the comma or bracket behind it.
    fn skip(&mut self, piece: &[u8]) -> usize {
        for (at, &byte) in piece.iter().enumerate() {
            if self.depth == 0 && self.string == Quote::Outside && matches!(byte, b',' | b'}') {
                self.place = if byte == b',' { Place::Key } else { Place::End };
                return at + 1;
            }
            self.inside(byte);
        }
        piece.len()
    }

    /// Entries, up to the end of the piece or of the array.
    fn entry<E: From<NoList>>(
        &mut self,
        piece: &[u8],
        found: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (mut at, mut begin) = (0, 0);
        while let Some(&byte) = piece.get(at) {
            if self.string == Quote::Inside {
                // The bulk of a list is in strings.
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
                self.keep(piece.get(begin..at).unwrap_or_default())?;
                let is_last = byte == b']';
                // `[]`
                if !(is_last && self.entries == 0 && self.text.is_empty()) {
                    self.entries += 1;
                    found(&self.text)?;
                }
                self.text.clear();
                if is_last {
                    self.place = if self.key.is_some() { Place::Rest } else { Place::End };
                    return Ok(at + 1);
                }
                (at, begin) = (at + 1, at + 1);
                continue;
            }
            self.inside(byte);
            at += 1;
        }
        self.keep(piece.get(begin..).unwrap_or_default())?;
        Ok(piece.len())
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), NoList> {
        // Blanks before an entry may go on for ever.
        let piece = if self.text.is_empty() { piece.trim_ascii_start() } else { piece };
        if self.text.len() + piece.len() > ENTRY {
            return Err(NoList::Long);
        }
        self.text.extend_from_slice(piece);
        Ok(())
    }

    /// Follows strings and brackets.
    fn inside(&mut self, byte: u8) {
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

    /// The entries joined by `|`, or `! why not`, however the body is cut.
    fn cut(key: Option<&'static str>, body: &[u8], size: usize) -> String {
        let mut entries = Entries::new(key);
        let mut found = Vec::new();
        let mut take = |entry: &[u8]| {
            found.push(String::from_utf8_lossy(entry).trim().to_owned());
            Ok::<(), NoList>(())
        };
        let read = body.chunks(size.max(1)).try_for_each(|piece| entries.push(piece, &mut take));
        match read.and_then(|()| entries.end()) {
            Ok(()) => found.join("|"),
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn a_list_is_cut_into_its_entries_however_it_arrives() {
        for (key, body, told) in [
            (None, "[]", ""),
            (None, " [ ] ", ""),
            (None, "null", ""),
            (None, "[1]", "1"),
            (None, r#"[{"a":"],[{"},{"b":"\"]\\"}]"#, r#"{"a":"],[{"}|{"b":"\"]\\"}"#),
            (None, "[ {} ,\n[1,[2]] ]", "{}|[1,[2]]"),
            (None, "[{},]", "{}|"),
            (None, "[,]", "|"),
            (None, "", "! it ends in the middle"),
            (None, "  ", "! it ends in the middle"),
            (None, "[{}", "! it ends in the middle"),
            (None, "[\"", "! it ends in the middle"),
            (None, "nu", "! it is no list"),
            (None, "nulls", "! it is no list"),
            (None, "<html>[1]", "! it is no list"),
            (None, r#"{"message":"no"}"#, "! it is no list"),
            (None, "[1] x", "! it is no list"),
            (Some("V"), r#"{"V":[1,2],"W":null}"#, "1|2"),
            (Some("V"), r#" { "W" : {"V":[7]} , "V" : [ 1 ] } "#, "1"),
            (Some("V"), r#"{"W":"}\",\"V\":[7]","V":[1]}"#, "1"),
            (Some("V"), r#"{"V":null,"W":[]}"#, ""),
            (Some("V"), "{}", ""),
            (Some("V"), r#"{"v":[1]}"#, ""),
            (Some("V"), r#"{"V":{}}"#, "! it is no list"),
            (Some("V"), r#"{"\u0056":[1]}"#, "! it is no list"),
            (Some("V"), r#"{"V":[1]"#, "1"),
            (Some("V"), r#"{"V""#, "! it ends in the middle"),
            (Some("V"), "[1]", "! it is no list"),
        ] {
            for size in 1..=body.len().max(1) {
                assert_eq!(cut(key, body.as_bytes(), size), told, "{key:?} {body} by {size}");
            }
        }
    }

    #[test]
    fn an_endless_body_of_any_shape_is_never_held() {
        let endless = |begin: &str, again: &str| {
            let again = again.repeat(1 << 16);
            let mut entries = Entries::new(None);
            let mut take = |_: &[u8]| Ok::<(), NoList>(());
            let mut read = entries.push(begin.as_bytes(), &mut take);
            for _ in 0..ENTRY / again.len() + 2 {
                read = read.and_then(|()| entries.push(again.as_bytes(), &mut take));
                assert!(entries.text.capacity() <= 2 * ENTRY, "{begin}");
            }
            read
        };
        for (begin, again, outcome) in [
            ("", " ", Ok(())),
            ("[", " ", Ok(())),
            ("[1", ",1", Ok(())),
            ("[\"", "x", Err(NoList::Long)),
            ("[", "[", Err(NoList::Long)),
            ("[1", " ", Err(NoList::Long)),
            ("[{}", ",{}", Ok(())),
        ] {
            assert_eq!(endless(begin, again), outcome, "{begin} {again}");
        }
    }

    proptest! {
        #[test]
        fn entries_are_those_that_a_library_finds(
            list in prop::collection::vec((".{0,9}", prop::collection::vec(".{0,9}", 0..3)), 0..6),
            size in 1usize..40,
        ) {
            let body = serde_json::to_vec(&serde_json::json!(list)).unwrap();
            let mut entries = Entries::new(None);
            let mut found: Vec<(String, Vec<String>)> = Vec::new();
            let mut take = |entry: &[u8]| {
                found.push(serde_json::from_slice(entry).unwrap());
                Ok::<(), NoList>(())
            };
            for piece in body.chunks(size) {
                entries.push(piece, &mut take).unwrap();
            }
            entries.end().unwrap();
            prop_assert_eq!(found, list);
        }
    }
}

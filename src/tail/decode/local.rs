//! Decodes one record in the format of the `local` driver, which the dual-logging cache uses too.
//!
//! In: bytes of the file. Out: the length of the record at their start, and its content. Called by [`super::format`]
//! and [`super::block`]; knows nothing of files.
//!
//! A record is the length of its entry as four bytes, big-endian, a `LogEntry` as protocol buffers, and the length
//! again (moby `daemon/logger/local/doc.go`, `api/types/plugins/logdriver/entry.proto`). Fields with default values are
//! omitted.

use crate::model::batch::Encoding;
use crate::model::line_id::Stream;
use crate::model::time::Timestamp;
use crate::tail::Piece;
use std::borrow::Cow;

/// Size of a length field in bytes.
pub(crate) const WORD: usize = 4;
/// Maximum size of an entry in bytes. dockerd does not read longer
/// ones (moby `daemon/logger/local/read.go`, `maxMsgLen`).
const MAX_ENTRY: usize = 1_000_000;
/// Maximum size of a record in bytes, with both lengths.
pub(crate) const MAX_RECORD: usize = MAX_ENTRY + 2 * WORD;

/// What some bytes start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A complete record of this many bytes, including both lengths.
    Whole(usize),
    /// Probably the start of a record.
    Part,
    /// The bytes do not begin a record.
    Broken,
}

/// Returns the length of the record whose first or last word this is, including both lengths.
pub(crate) fn length(word: &[u8]) -> Option<usize> {
    let word: [u8; WORD] = word.try_into().ok()?;
    let entry = u32::from_be_bytes(word) as usize;
    // Entries are never empty: each has a time.
    (1..=MAX_ENTRY).contains(&entry).then_some(entry + 2 * WORD)
}

/// Checks for a record at the start of `bytes`.
#[inline]
pub(crate) fn frame(bytes: &[u8]) -> Frame {
    let Some((head, _)) = bytes.split_first_chunk::<WORD>() else { return Frame::Part };
    let Some(length) = length(head) else { return Frame::Broken };
    match bytes.get(length - WORD..length) {
        None => Frame::Part,
        Some(tail) if tail == head => Frame::Whole(length),
        Some(_) => Frame::Broken,
    }
}

/// Finds the first complete record that can be decoded. Returns its offset.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    // The first byte of a length is 0, and the second at most 15.
    memchr::memchr_iter(0, bytes).find(|&at| {
        let bytes = &bytes[at..];
        matches!(frame(bytes), Frame::Whole(length) if decode(&bytes[..length]).is_some())
    })
}

/// Decodes a complete record. `None` if its entry is invalid.
#[inline]
pub(crate) fn decode(record: &[u8]) -> Option<Piece<'_>> {
    let mut entry = Fields { rest: record.get(WORD..record.len().checked_sub(WORD)?)? };
    let (mut stream, mut time, mut text) = (None, 0, &[][..]);
    let (mut partial, mut last) = (false, false);
    while let Some(field) = entry.next()? {
        match field {
            (1, FieldValue::Bytes(b"stdout")) => stream = Some(Stream::Stdout),
            (1, FieldValue::Bytes(b"stderr")) => stream = Some(Stream::Stderr),
            // A signed number in two's complement.
            (2, FieldValue::Number(nanos)) => time = nanos.cast_signed(),
            (3, FieldValue::Bytes(line)) => text = line,
            (4, FieldValue::Number(is)) => partial = is != 0,
            // A repeated message is merged into the first.
            (5, FieldValue::Bytes(metadata)) => last = is_last(metadata, last)?,
            (1..=5, _) => return None,
            // Attributes, and fields of later versions.
            _ => {}
        }
    }
    let complete = !partial || last;
    Some(Piece { time: Timestamp(time), stream: stream?, text: Cow::Borrowed(text), encoding: Encoding::Raw, complete })
}

/// Returns whether a `PartialLogEntryMetadata` belongs to the last piece of a line. `last` is the default.
fn is_last(metadata: &[u8], mut last: bool) -> Option<bool> {
    let mut fields = Fields { rest: metadata };
    while let Some(field) = fields.next()? {
        match field {
            (1, FieldValue::Number(is)) => last = is != 0,
            (2, FieldValue::Bytes(id)) if std::str::from_utf8(id).is_ok() => {}
            (3, FieldValue::Number(_)) => {}
            (1..=3, _) => return None,
            _ => {}
        }
    }
    Some(last)
}

/// Iterates over the fields of a protocol buffers message.
struct Fields<'a> {
    rest: &'a [u8],
}

enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A field of fixed size. No known field has this type.
    Fixed,
}

impl<'a> Fields<'a> {
    /// Returns the next field. `Some(None)` at the end, `None` if the bytes are not a message.
    #[inline]
    fn next(&mut self) -> Option<Option<(u32, FieldValue<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => FieldValue::Number(self.varint()?),
            1 => self.take(8).map(|_| FieldValue::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                FieldValue::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| FieldValue::Fixed)?,
            _ => return None,
        };
        let number = tag >> 3;
        (number > 0).then_some(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has space for one bit only.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::fuzz_checks::{LogEntry, PartialLogEntryMetadata, framed, local_record};
    use proptest::prelude::*;
    use prost::Message;

    /// Decodes an entry into `stream time complete text`.
    fn read(entry: &[u8]) -> Option<String> {
        let record = framed(entry);
        assert_eq!(frame(&record), Frame::Whole(record.len()));
        let piece = decode(&record)?;
        assert_eq!(piece.encoding, Encoding::Raw);
        let text = piece.text.escape_ascii();
        Some(format!("{} {} {} {text}", piece.stream.name(), piece.time.0, piece.complete))
    }

    const STDOUT: &[u8] = b"\x0a\x06stdout";

    #[test]
    fn every_form_of_an_entry_is_read() {
        for (fields, expected) in [
            (&b""[..], "stdout 0 true "),
            (b"\x10\x07\x1a\x02hi", "stdout 7 true hi"),
            (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "stdout -1 true "),
            (b"\x1a\x02\xff\n", "stdout 0 true \\xff\\n"),
            (b"\x20\x01", "stdout 0 false "),
            (b"\x20\x01\x2a\x02\x18\x01", "stdout 0 false "),
            (b"\x20\x01\x2a\x02\x08\x01", "stdout 0 true "),
            // The last value of a field counts, and messages are merged.
            (b"\x10\x07\x10\x08\x0a\x06stderr", "stderr 8 true "),
            (b"\x20\x01\x2a\x02\x08\x01\x2a\x02\x18\x02", "stdout 0 true "),
            (b"\x20\x01\x2a\x02\x08\x01\x2a\x02\x08\x00", "stdout 0 false "),
            // Attributes and unknown fields.
            (b"\x32\x05\x0a\x01k\x12\x01\x3d\x01\x02\x03\x04\x41\x01\x02\x03\x04\x05\x06\x07\x08", "stdout 0 true "),
        ] {
            let entry = [STDOUT, fields].concat();
            assert_eq!(read(&entry).as_deref(), Some(expected), "{}", entry.escape_ascii());
            local_record(&entry);
        }
    }

    #[test]
    fn invalid_entries_are_refused() {
        for entry in [
            &b"\x10\x07"[..],
            b"\x0a\x06stdin!",
            b"\x0a\x07stdout",
            b"\x08\x06",
            b"\x0a\x06stdout\x12\x01a",
            b"\x0a\x06stdout\x18\x01",
            b"\x0a\x06stdout\x10",
            b"\x0a\x06stdout\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x0a\x06stdout\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x81\x00",
            b"\x0a\x06stdout\x00\x00",
            b"\x0a\x06stdout\x39\x01",
            b"\x0a\x06stdout\x3b\x3c",
            // The field number is too large.
            b"\x0a\x06stdout\x80\x80\x80\x80\x10\x00",
            // Metadata of a piece with a field of another type, or an ID that is not UTF-8.
            b"\x0a\x06stdout\x2a\x02\x0a\x00",
            b"\x0a\x06stdout\x2a\x03\x12\x01\xff",
        ] {
            assert_eq!(read(entry), None, "{}", entry.escape_ascii());
            local_record(entry);
        }
    }

    #[test]
    fn a_frame_needs_two_equal_lengths() {
        let record = framed(b"entry");
        for length in 0..record.len() {
            assert_eq!(frame(&record[..length]), Frame::Part, "{length}");
        }
        let more = [&*record, b"more"].concat();
        assert_eq!(frame(&more), Frame::Whole(record.len()));
        for (broken, what) in [
            (&[0, 0, 0, 0, 0, 0, 0, 0][..], "an empty entry"),
            (&[0, 0, 0, 1, b'a', 0, 0, 0, 2], "two lengths"),
            (&[0, 0x0f, 0x42, 0x41], "a byte too many"),
            (b"text", "none"),
        ] {
            assert_eq!(frame(broken), Frame::Broken, "{what}");
        }
        assert_eq!(frame(&[0, 0x0f, 0x42, 0x40]), Frame::Part);
        assert_eq!(length(&[0, 0x0f, 0x42, 0x40]), Some(MAX_RECORD));
    }

    fn entries() -> impl Strategy<Value = LogEntry> {
        let metadata = (any::<bool>(), "[0-9a-f]{0,64}", any::<i32>());
        let metadata = metadata.prop_map(|(last, id, ordinal)| PartialLogEntryMetadata { last, id, ordinal });
        let line = prop::collection::vec(any::<u8>(), 0..200);
        (any::<bool>(), any::<i64>(), line, any::<bool>(), prop::option::of(metadata)).prop_map(
            |(stderr, time_nano, line, partial, partial_log_metadata)| {
                let source = if stderr { "stderr" } else { "stdout" }.to_owned();
                LogEntry { source, time_nano, line, partial, partial_log_metadata }
            },
        )
    }

    proptest! {
        #[test]
        fn entries_written_by_a_library_are_read_unchanged(entry in entries()) {
            let record = framed(&entry.encode_to_vec());
            let (ours, theirs) = (decode(&record).unwrap(), entry.piece());
            prop_assert_eq!((ours.time, ours.stream, ours.complete), (theirs.time, theirs.stream, theirs.complete));
            prop_assert_eq!(ours.text, theirs.text);
        }

        #[test]
        fn a_library_reads_whatever_is_accepted(
            entry in entries(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut: prop::sample::Index,
        ) {
            let mut bytes = entry.encode_to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            local_record(&bytes);
            local_record(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn the_next_record_after_garbage_is_found(
            garbage in prop::collection::vec(1..=255_u8, 0..40),
            entry in entries(),
            torn: prop::sample::Index,
        ) {
            let record = framed(&entry.encode_to_vec());
            let log = [&garbage[..], &record].concat();
            prop_assert_eq!(find(&log), Some(garbage.len()));
            prop_assert_eq!(find(&log[..log.len() - 1]), None);
            // Half a record, as a full disk leaves it. If only its second length were missing, that of the next record
            // would fit.
            let next = framed(&LogEntry { source: "stdout".to_owned(), ..LogEntry::default() }.encode_to_vec());
            prop_assume!(record.len() != next.len());
            let half = torn.index(record.len());
            prop_assert_eq!(find(&[&record[..half], &next].concat()), Some(half));
        }
    }
}

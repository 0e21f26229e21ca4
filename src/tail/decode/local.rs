//! Takes one record of a log of the `local` driver apart, or of the cache that has its form.
//!
//! In: bytes of the file. Out: how long the record at their start is, and what it holds. Called by [`super::format`];
//! knows nothing of files.
//! A record is its length as four bytes, big end first, a `LogEntry` in protocol buffers, and the length again (moby
//! `daemon/logger/local/doc.go`, `api/types/plugins/logdriver/entry.proto`). A field with its default value is left out.

use crate::model::batch::Encoding;
use crate::model::cursor::Stream;
use crate::model::time::Timestamp;
use crate::tail::Piece;
use std::borrow::Cow;

/// Bytes of a length.
pub(crate) const WORD: usize = 4;
/// The engine reads back no longer entry (moby `daemon/logger/local/read.go`, `maxMsgLen`).
const LONGEST_ENTRY: usize = 1_000_000;
/// Bytes of the longest record.
pub(crate) const LONGEST: usize = LONGEST_ENTRY + 2 * WORD;

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A record of so many bytes, its lengths included.
    Whole(usize),
    /// The start of one, as far as can be seen.
    Part,
    /// No record.
    Broken,
}

/// The length of a whole record whose first or last word this is.
pub(crate) fn length(word: &[u8]) -> Option<usize> {
    let word: [u8; WORD] = word.try_into().ok()?;
    let entry = u32::from_be_bytes(word) as usize;
    // No entry is empty: each has a time.
    (1..=LONGEST_ENTRY).contains(&entry).then_some(entry + 2 * WORD)
}

/// Whether a record stands at the start.
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

/// Where the first whole record that decodes starts.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    // The first byte of a length is 0, and its second one of few.
    memchr::memchr_iter(0, bytes).find(|&at| {
        let bytes = &bytes[at..];
        matches!(frame(bytes), Frame::Whole(length) if decode(&bytes[..length]).is_some())
    })
}

/// What a whole record holds, or `None` when its entry is none.
#[inline]
pub(crate) fn decode(record: &[u8]) -> Option<Piece<'_>> {
    let mut entry = Entry { rest: record.get(WORD..record.len().checked_sub(WORD)?)? };
    let (mut stream, mut time, mut text) = (None, 0, &[][..]);
    let (mut partial, mut last) = (false, false);
    while let Some(field) = entry.next()? {
        match field {
            (1, Value::Bytes(b"stdout")) => stream = Some(Stream::Stdout),
            (1, Value::Bytes(b"stderr")) => stream = Some(Stream::Stderr),
            // A signed number, as its two's complement.
            (2, Value::Number(nanos)) => time = nanos.cast_signed(),
            (3, Value::Bytes(line)) => text = line,
            (4, Value::Number(is)) => partial = is != 0,
            // A second one is merged into the first.
            (5, Value::Bytes(metadata)) => last = is_last(metadata, last)?,
            (1..=5, _) => return None,
            // Attributes, and what later versions may add.
            _ => {}
        }
    }
    let complete = !partial || last;
    Some(Piece { time: Timestamp(time), stream: stream?, text: Cow::Borrowed(text), encoding: Encoding::Raw, complete })
}

/// Of `PartialLogEntryMetadata`, whether it is that of a line's last piece; `last` where it does not say.
fn is_last(metadata: &[u8], mut last: bool) -> Option<bool> {
    let mut fields = Entry { rest: metadata };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(is)) => last = is != 0,
            (2, Value::Bytes(id)) if std::str::from_utf8(id).is_ok() => {}
            (3, Value::Number(_)) => {}
            (1..=3, _) => return None,
            _ => {}
        }
    }
    Some(last)
}

/// The fields of a message in protocol buffers.
struct Entry<'a> {
    rest: &'a [u8],
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed size, which no field of ours has.
    Fixed,
}

impl<'a> Entry<'a> {
    /// `Some(None)` at the end, `None` when these bytes are no message.
    #[inline]
    fn next(&mut self) -> Option<Option<(u32, Value<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
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
            // Of the tenth byte only one bit has a place.
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
    use crate::tail::oracle::{LogEntry, PartialLogEntryMetadata, framed, local_record};
    use proptest::prelude::*;
    use prost::Message;

    /// `stream time complete text`, of what stands between the lengths.
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
        for (fields, told) in [
            (&b""[..], "stdout 0 true "),
            (b"\x10\x07\x1a\x02hi", "stdout 7 true hi"),
            (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "stdout -1 true "),
            (b"\x1a\x02\xff\n", "stdout 0 true \\xff\\n"),
            (b"\x20\x01", "stdout 0 false "),
            (b"\x20\x01\x2a\x02\x18\x01", "stdout 0 false "),
            (b"\x20\x01\x2a\x02\x08\x01", "stdout 0 true "),
            // The last of a field counts, and messages are merged.
            (b"\x10\x07\x10\x08\x0a\x06stderr", "stderr 8 true "),
            (b"\x20\x01\x2a\x02\x08\x01\x2a\x02\x18\x02", "stdout 0 true "),
            (b"\x20\x01\x2a\x02\x08\x01\x2a\x02\x08\x00", "stdout 0 false "),
            // Attributes, and what nobody knows yet.
            (b"\x32\x05\x0a\x01k\x12\x01\x3d\x01\x02\x03\x04\x41\x01\x02\x03\x04\x05\x06\x07\x08", "stdout 0 true "),
        ] {
            let entry = [STDOUT, fields].concat();
            assert_eq!(read(&entry).as_deref(), Some(told), "{}", entry.escape_ascii());
            local_record(&entry);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
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
            // A field whose number is too large.
            b"\x0a\x06stdout\x80\x80\x80\x80\x10\x00",
            // What tells of a piece, with a field of another kind, or an ID that is no text.
            b"\x0a\x06stdout\x2a\x02\x0a\x00",
            b"\x0a\x06stdout\x2a\x03\x12\x01\xff",
        ] {
            assert_eq!(read(entry), None, "{}", entry.escape_ascii());
            local_record(entry);
        }
    }

    #[test]
    fn a_frame_is_told_by_its_two_lengths() {
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
        assert_eq!(length(&[0, 0x0f, 0x42, 0x40]), Some(LONGEST));
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
        fn what_a_library_writes_is_read_as_it_was(entry in entries()) {
            let record = framed(&entry.encode_to_vec());
            let (ours, theirs) = (decode(&record).unwrap(), entry.piece());
            prop_assert_eq!((ours.time, ours.stream, ours.complete), (theirs.time, theirs.stream, theirs.complete));
            prop_assert_eq!(ours.text, theirs.text);
        }

        #[test]
        fn what_is_read_a_library_reads_as_well(
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
        fn behind_garbage_the_next_record_is_found(
            garbage in prop::collection::vec(1..=255_u8, 0..40),
            entry in entries(),
            torn: prop::sample::Index,
        ) {
            let record = framed(&entry.encode_to_vec());
            let log = [&garbage[..], &record].concat();
            prop_assert_eq!(find(&log), Some(garbage.len()));
            prop_assert_eq!(find(&log[..log.len() - 1]), None);
            // Half a record, as a full disk leaves it. If it lacked its second length alone, that of the next one would do.
            let next = framed(&LogEntry { source: "stdout".to_owned(), ..LogEntry::default() }.encode_to_vec());
            prop_assume!(record.len() != next.len());
            let half = torn.index(record.len());
            prop_assert_eq!(find(&[&record[..half], &next].concat()), Some(half));
        }
    }
}

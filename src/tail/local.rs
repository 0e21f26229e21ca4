//! Takes one record of a log of the `local` driver apart, or of the cache that has its form.
//!
//! In: bytes of the file. Out: how long the record at their start is, and what it holds. Called by [`super::format`];
//! knows nothing of files.
//! A record is its length as four bytes, big end first, a `LogEntry` in protocol buffers, and the length again (moby
//! `daemon/logger/local/doc.go`, `api/types/plugins/logdriver/entry.proto`). A field with its default value is left out.

use super::Piece;
use crate::batch::{Encoding, Stream};
use crate::time::Timestamp;
use std::borrow::Cow;

/// Bytes of a length.
pub(super) const WORD: usize = 4;
/// The engine reads back no longer entry (moby `daemon/logger/local/read.go`, `maxMsgLen`).
const LONGEST_ENTRY: usize = 1_000_000;
/// Bytes of the longest record.
pub(super) const LONGEST: usize = LONGEST_ENTRY + 2 * WORD;

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A record of so many bytes, its lengths included.
    Whole(usize),
    /// The start of one, as far as can be seen.
    Part,
    /// No record.
    Broken,
}

/// The length of a whole record whose first or last word this is.
pub(super) fn length(word: &[u8]) -> Option<usize> {
    let word: [u8; WORD] = word.try_into().ok()?;
    let entry = u32::from_be_bytes(word) as usize;
    // No entry is empty: each has a time.
    (1..=LONGEST_ENTRY).contains(&entry).then_some(entry + 2 * WORD)
}

/// Whether a record stands at the start.
#[inline]
pub(super) fn frame(bytes: &[u8]) -> Frame {
    let Some((head, _)) = bytes.split_first_chunk::<WORD>() else { return Frame::Part };
    let Some(length) = length(head) else { return Frame::Broken };
    match bytes.get(length - WORD..length) {
        None => Frame::Part,
        Some(tail) if tail == head => Frame::Whole(length),
        Some(_) => Frame::Broken,
    }
}

/// Where the first whole record that decodes starts.
pub(super) fn find(bytes: &[u8]) -> Option<usize> {
    // The first byte of a length is 0, and its second one of few.
    memchr::memchr_iter(0, bytes).find(|&at| {
        let bytes = &bytes[at..];
        matches!(frame(bytes), Frame::Whole(length) if decode(&bytes[..length]).is_some())
    })
}

/// What a whole record holds, or `None` when its entry is none.
#[inline]
pub(super) fn decode(record: &[u8]) -> Option<Piece<'_>> {
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
            (5, Value::Bytes(metadata)) => last = is_last(metadata)?,
            (1..=5, _) => return None,
            // Attributes, and what later versions may add.
            _ => {}
        }
    }
    let complete = !partial || last;
    Some(Piece { time: Timestamp(time), stream: stream?, text: Cow::Borrowed(text), encoding: Encoding::Raw, complete })
}

/// Of `PartialLogEntryMetadata`, whether it is that of a line's last piece.
fn is_last(metadata: &[u8]) -> Option<bool> {
    let mut fields = Entry { rest: metadata };
    let mut last = false;
    while let Some(field) = fields.next()? {
        if let (1, Value::Number(is)) = field {
            last = is != 0;
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
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
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

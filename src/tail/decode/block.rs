//! Decodes blocks of a log file: records become lines, and bytes that are not a record become gaps.
//!
//! In: the bytes of a block, which starts at a record, and its offset in the file. Out: lines and gaps, and how many
//! bytes were complete records. Called by `files::container_log`; does no I/O. Reports where the oldest
//! line starts that holds the position back, because a resumed run must read the log again from there.

use super::format::Format;
use super::{json_file, local};
use crate::model::batch::Reason;
use crate::model::time::{Timestamp, TimestampParser};
use crate::tail::Piece;
use crate::tail::lines::{Joiner, LineSink};
use crate::tail::resume::StreamProgress;
use std::borrow::Cow;
use std::ops::Range;

/// Maximum size of a record in bytes. dockerd writes at most 16 KiB of text, each byte escaped to six, and attributes.
const MAX_RECORD: usize = 4 * 1024 * 1024;

/// Decodes the blocks of one container's log.
pub(crate) struct BlockDecoder {
    format: Format,
    pub(crate) joiner: Joiner,
    clock: TimestampParser,
    /// Inside bytes that are not a record, searching for the next one.
    is_resyncing: bool,
    /// The last piece left a line that holds the position back. Always set while there is one.
    is_held_back: bool,
    /// The oldest such line, if it starts in the current block.
    held_back: Option<HeldBack>,
    /// A line after the window was read. The next run starts there.
    has_later_line: bool,
    /// No line after one with a later time is wanted.
    last: Timestamp,
    /// A line later than `last` was read.
    is_past_end: bool,
}

/// Where a line starts that holds the position back: it is unfinished, or lies after the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldBack {
    /// Offset in its file.
    pub(crate) offset: u64,
    /// The lines before it.
    pub(crate) before: [StreamProgress; 2],
}

/// What was decoded of a block.
#[derive(Debug)]
pub(crate) struct DecodedBlock {
    /// The index after the last complete record.
    pub(crate) taken: usize,
    /// The oldest line that holds the position back, if it starts in this block.
    pub(crate) held_back: Option<HeldBack>,
}

/// A block of a file.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) bytes: &'a [u8],
    /// Index in `bytes` at which the records start.
    pub(crate) from: usize,
    /// Offset of that index in the file.
    pub(crate) offset: u64,
    /// Lines before this offset in the file are not shown.
    pub(crate) shown_from: u64,
}

impl Block<'_> {
    fn offset_of(&self, at: usize) -> u64 {
        self.offset + (at - self.from) as u64
    }
}

/// The bytes do not have the file's format.
#[derive(Debug)]
pub(crate) struct UnknownFormat;

impl BlockDecoder {
    pub(crate) fn new(format: Format, joiner: Joiner, last: Timestamp) -> Self {
        BlockDecoder {
            format,
            joiner,
            clock: TimestampParser::default(),
            is_resyncing: false,
            is_held_back: false,
            held_back: None,
            has_later_line: false,
            last,
            is_past_end: false,
        }
    }

    /// Passes every complete record to the joiner.
    pub(crate) fn decode(&mut self, block: Block<'_>, sink: &mut LineSink<'_>) -> Result<DecodedBlock, UnknownFormat> {
        let taken = match self.format {
            Format::JsonFile => self.decode_lines(block, sink),
            Format::Local => self.decode_records(block, sink)?,
        };
        Ok(DecodedBlock { taken, held_back: self.held_back.take() })
    }

    /// Returns whether a line was later than any wanted line.
    pub(crate) fn is_past_end(&self) -> bool {
        self.is_past_end
    }

    /// Returns whether a line holds the position back.
    pub(crate) fn holds_back(&self) -> bool {
        self.joiner.has_unfinished() || self.has_later_line
    }

    /// Prepares for a block of another file, or of another place in this one.
    pub(crate) fn restart(&mut self) {
        self.is_resyncing = false;
        self.joiner.muted = false;
    }

    /// Decodes the incomplete record at the end of a log. Returns how many bytes were handled; the rest may still
    /// become a record. If a record of the `local` driver lost its end, the records after it seem to be part of it,
    /// and are decoded here.
    pub(crate) fn decode_rest(&mut self, mut rest: &[u8], sink: &mut LineSink<'_>) -> usize {
        let held = rest.len();
        while self.format == Format::Local
            && let Some(found) = rest.get(1..).and_then(local::find)
        {
            self.joiner.gap(Reason::Corrupt, Some(1 + found as u64), sink);
            rest = &rest[1 + found..];
            while let local::Frame::Whole(length) = local::frame(rest)
                && let Some(piece) = local::decode(&rest[..length])
            {
                self.joiner.push(piece, None, sink);
                rest = &rest[length..];
            }
        }
        held - rest.len()
    }

    fn decode_lines(&mut self, block: Block<'_>, sink: &mut LineSink<'_>) -> usize {
        let bytes = block.bytes;
        let mut from = if self.is_resyncing { self.find_line(&block, sink) } else { block.from };
        if let Some(last) = memchr::memrchr(b'\n', &bytes[from..]) {
            let end = from + last + 1;
            let is_text = simdutf8::basic::from_utf8(&bytes[from..end]).is_ok();
            let hidden = block.shown_from.saturating_sub(block.offset);
            let shown = block.from.saturating_add(usize::try_from(hidden).unwrap_or(usize::MAX)).clamp(from, end);
            self.joiner.muted = true;
            self.lines(&block, from..shown, is_text, sink);
            self.joiner.muted = false;
            self.lines(&block, shown..end, is_text, sink);
            from = end;
        }
        if bytes.len() - from > MAX_RECORD {
            self.joiner.gap(Reason::Corrupt, Some((bytes.len() - from) as u64), sink);
            self.is_resyncing = true;
            from = bytes.len();
        }
        from
    }

    /// Skips bytes that are not a record: up to the next newline, or to where a record starts.
    fn find_line(&mut self, block: &Block<'_>, sink: &mut LineSink<'_>) -> usize {
        let bytes = &block.bytes[block.from..];
        let newline = memchr::memchr(b'\n', bytes).map(|at| at + 1);
        let found = newline.into_iter().chain(json_file::find(bytes)).min();
        self.is_resyncing = found.is_none();
        let end = found.unwrap_or(bytes.len());
        self.joiner.gap(Reason::Corrupt, Some(end as u64), sink);
        block.from + end
    }

    /// Decodes the lines of a range, which starts and ends at a line boundary.
    fn lines(&mut self, block: &Block<'_>, range: Range<usize>, is_text: bool, sink: &mut LineSink<'_>) {
        let bytes = block.bytes;
        let mut from = range.start;
        for newline in memchr::memchr_iter(b'\n', &bytes[range.clone()]) {
            let end = range.start + newline;
            let record = &bytes[from..end];
            let valid = is_text || std::str::from_utf8(record).is_ok();
            match if valid { json_file::decode(record, &mut self.clock) } else { None } {
                Some(piece) => self.line(block, piece, from, sink),
                None => self.salvage(block, from..end, sink),
            }
            from = end + 1;
        }
    }

    #[inline]
    fn line(&mut self, block: &Block<'_>, piece: Piece<'_>, at: usize, sink: &mut LineSink<'_>) {
        let text_at = matches!(piece.text, Cow::Borrowed(_)).then_some(at + json_file::MESSAGE_AT);
        self.push(block, piece, at, text_at, sink);
    }

    #[inline]
    fn push(
        &mut self,
        block: &Block<'_>,
        piece: Piece<'_>,
        at: usize,
        text_at: Option<usize>,
        sink: &mut LineSink<'_>,
    ) {
        self.is_past_end |= piece.time > self.last;
        if piece.complete && !self.is_held_back && !self.joiner.filter.is_after_window(piece.time) {
            return self.joiner.push(piece, text_at, sink);
        }
        self.push_held_back(block, piece, at, text_at, sink);
    }

    #[cold]
    fn push_held_back(
        &mut self,
        block: &Block<'_>,
        piece: Piece<'_>,
        at: usize,
        text_at: Option<usize>,
        sink: &mut LineSink<'_>,
    ) {
        let before = (!self.holds_back()).then(|| self.joiner.filter.progress());
        self.has_later_line |= self.joiner.filter.is_after_window(piece.time);
        self.joiner.push(piece, text_at, sink);
        self.is_held_back = self.holds_back();
        if !self.is_held_back {
            self.held_back = None;
        } else if let Some(before) = before {
            self.held_back = Some(HeldBack { offset: block.offset_of(at), before });
        }
    }

    /// Decodes a record after damage in the same line: NULs after a power cut, or half a record after
    /// the disk was full.
    #[cold]
    fn salvage(&mut self, block: &Block<'_>, range: Range<usize>, sink: &mut LineSink<'_>) {
        let line = &block.bytes[range.clone()];
        let mut from = 0;
        while let Some(next) = json_file::resync(&line[from..]) {
            from += next;
            let record = &line[from..];
            if std::str::from_utf8(record).is_ok()
                && let Some(piece) = json_file::decode(record, &mut self.clock)
            {
                self.joiner.gap(Reason::Corrupt, Some(from as u64), sink);
                return self.line(block, piece, range.start + from, sink);
            }
        }
        self.joiner.gap(Reason::Corrupt, Some(line.len() as u64 + 1), sink);
    }

    fn decode_records(&mut self, block: Block<'_>, sink: &mut LineSink<'_>) -> Result<usize, UnknownFormat> {
        let bytes = block.bytes;
        let mut at = block.from;
        loop {
            let rest = &bytes[at..];
            match local::frame(rest) {
                local::Frame::Whole(length) => {
                    self.joiner.muted = block.offset_of(at) < block.shown_from;
                    match local::decode(&rest[..length]) {
                        Some(piece) => {
                            let text_at = offset_in(bytes, &piece.text);
                            self.push(&block, piece, at, Some(text_at), sink);
                        }
                        None => self.joiner.gap(Reason::Corrupt, Some(length as u64), sink),
                    }
                    at += length;
                }
                local::Frame::Part => return Ok(at),
                // The file does not start with a record.
                local::Frame::Broken if block.offset_of(at) == 0 => return Err(UnknownFormat),
                local::Frame::Broken => match local::find(&rest[1..]) {
                    Some(found) => {
                        self.joiner.gap(Reason::Corrupt, Some(1 + found as u64), sink);
                        at += 1 + found;
                    }
                    None if rest.len() > 2 * local::MAX_RECORD => return Err(UnknownFormat),
                    None => return Ok(at),
                },
            }
        }
    }
}

/// Returns the offset of `part` in `bytes`.
fn offset_in(bytes: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().saturating_sub(bytes.as_ptr().addr())
}

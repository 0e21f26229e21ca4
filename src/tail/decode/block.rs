//! Takes blocks of a log file apart: records into lines, and what is no record into gaps.
//!
//! In: the bytes of a block, which begins where a record does, and where it lies in its file. Out: lines and gaps, and how
//! much of the block was whole. Called by [`super::file`]; knows nothing of files. Remembers where the oldest line
//! began that has no end yet, which is where the log would have to be read again from.

use super::format::Format;
use super::{json_file, local};
use crate::model::batch::Reason;
use crate::model::time::{Timestamp, TimestampParser};
use crate::tail::Piece;
use crate::tail::lines::{Joiner, Sheet, Tally};
use std::borrow::Cow;
use std::ops::Range;

/// The engine writes no longer record: 16 KiB, each byte escaped to six, and attributes.
const LONGEST_RECORD: usize = 4 * 1024 * 1024;

pub(crate) struct Blocks {
    format: Format,
    pub(crate) joiner: Joiner,
    clock: TimestampParser,
    /// In a stretch that is no record, looking for the next one.
    is_lost: bool,
    /// The oldest line that is not whole, or is not wanted yet.
    begun: Option<Begun>,
    /// It is one that is not wanted yet.
    is_held: bool,
    /// Behind a line with a later time nothing is wanted.
    last: Timestamp,
    is_past: bool,
}

/// Where a line began, and what had been passed on before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// In its file.
    pub(crate) offset: u64,
    pub(crate) tally: Tally,
    /// Blocks ago: the file of the block at hand need not be its file.
    pub(crate) is_new: bool,
}

/// A block of a file.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    /// The records begin at `from`.
    pub(crate) bytes: &'a [u8],
    pub(crate) from: usize,
    /// Where that is in the file.
    pub(crate) offset: u64,
    /// Lines before this place in the file are not shown.
    pub(crate) shown_from: u64,
}

impl Block<'_> {
    fn offset_of(&self, at: usize) -> u64 {
        self.offset + (at - self.from) as u64
    }
}

/// These bytes are not of the form that the file should have.
#[derive(Debug)]
pub(crate) struct Strange;

impl Blocks {
    pub(crate) fn new(format: Format, joiner: Joiner, last: Timestamp) -> Self {
        Blocks {
            format,
            joiner,
            clock: TimestampParser::default(),
            is_lost: false,
            begun: None,
            is_held: false,
            last,
            is_past: false,
        }
    }

    /// Hands every whole record to the joiner; returns where the rest begins.
    pub(crate) fn take(&mut self, block: Block<'_>, sheet: &mut Sheet<'_>) -> Result<usize, Strange> {
        match self.format {
            Format::JsonFile => Ok(self.take_lines(block, sheet)),
            Format::Local => self.take_records(block, sheet),
        }
    }

    /// Whether lines came that are later than any that is wanted.
    pub(crate) fn is_past(&self) -> bool {
        self.is_past
    }

    /// The oldest line that is not whole or not wanted yet, if any.
    pub(crate) fn begun(&mut self) -> Option<&mut Begun> {
        if !self.joiner.is_open() && !self.is_held {
            self.begun = None;
        }
        self.begun.as_mut()
    }

    /// The next block is of another file, or of another place in this one.
    pub(crate) fn jump(&mut self) {
        self.is_lost = false;
        self.joiner.muted = false;
    }

    /// What is left at the end of a log is no whole record; returns how many bytes of it were told of, the rest may yet
    /// become one. A record of the `local` driver that lost its end looks as if those behind it were its own.
    pub(crate) fn take_rest(&mut self, mut rest: &[u8], sheet: &mut Sheet<'_>) -> usize {
        let held = rest.len();
        while self.format == Format::Local
            && let Some(found) = rest.get(1..).and_then(local::find)
        {
            self.joiner.gap(Reason::Corrupt, Some(1 + found as u64), sheet);
            rest = &rest[1 + found..];
            while let local::Frame::Whole(length) = local::frame(rest)
                && let Some(piece) = local::decode(&rest[..length])
            {
                self.joiner.push(piece, None, sheet);
                rest = &rest[length..];
            }
        }
        held - rest.len()
    }

    fn take_lines(&mut self, block: Block<'_>, sheet: &mut Sheet<'_>) -> usize {
        let bytes = block.bytes;
        let mut from = if self.is_lost { self.find_line(&block, sheet) } else { block.from };
        if let Some(last) = memchr::memrchr(b'\n', &bytes[from..]) {
            let end = from + last + 1;
            let is_text = simdutf8::basic::from_utf8(&bytes[from..end]).is_ok();
            let hidden = block.shown_from.saturating_sub(block.offset);
            let shown = block.from.saturating_add(usize::try_from(hidden).unwrap_or(usize::MAX)).clamp(from, end);
            self.joiner.muted = true;
            self.lines(&block, from..shown, is_text, sheet);
            self.joiner.muted = false;
            self.lines(&block, shown..end, is_text, sheet);
            from = end;
        }
        if bytes.len() - from > LONGEST_RECORD {
            self.joiner.gap(Reason::Corrupt, Some((bytes.len() - from) as u64), sheet);
            self.is_lost = true;
            from = bytes.len();
        }
        from
    }

    /// Past a stretch that is no record: behind its newline, or where a record starts inside it.
    fn find_line(&mut self, block: &Block<'_>, sheet: &mut Sheet<'_>) -> usize {
        let bytes = &block.bytes[block.from..];
        let newline = memchr::memchr(b'\n', bytes).map(|at| at + 1);
        let found = newline.into_iter().chain(json_file::find(bytes)).min();
        self.is_lost = found.is_none();
        let end = found.unwrap_or(bytes.len());
        self.joiner.gap(Reason::Corrupt, Some(end as u64), sheet);
        block.from + end
    }

    /// Takes the lines of a range apart; the range starts and ends where a line does.
    fn lines(&mut self, block: &Block<'_>, range: Range<usize>, is_text: bool, sheet: &mut Sheet<'_>) {
        let bytes = block.bytes;
        let mut from = range.start;
        for newline in memchr::memchr_iter(b'\n', &bytes[range.clone()]) {
            let end = range.start + newline;
            let record = &bytes[from..end];
            let valid = is_text || std::str::from_utf8(record).is_ok();
            match if valid { json_file::decode(record, &mut self.clock) } else { None } {
                Some(piece) => self.line(block, piece, from, sheet),
                None => self.salvage(block, from..end, sheet),
            }
            from = end + 1;
        }
    }

    #[inline]
    fn line(&mut self, block: &Block<'_>, piece: Piece<'_>, at: usize, sheet: &mut Sheet<'_>) {
        let text_at = matches!(piece.text, Cow::Borrowed(_)).then_some(at + json_file::MESSAGE_AT);
        self.push(block, piece, at, text_at, sheet);
    }

    #[inline]
    fn push(&mut self, block: &Block<'_>, piece: Piece<'_>, at: usize, text_at: Option<usize>, sheet: &mut Sheet<'_>) {
        self.is_past |= piece.time > self.last;
        if piece.complete && self.begun.is_none() && !self.joiner.is_late(piece.time) {
            return self.joiner.push(piece, text_at, sheet);
        }
        self.push_part(block, piece, at, text_at, sheet);
    }

    #[cold]
    fn push_part(
        &mut self,
        block: &Block<'_>,
        piece: Piece<'_>,
        at: usize,
        text_at: Option<usize>,
        sheet: &mut Sheet<'_>,
    ) {
        let before = self.begun.is_none().then(|| self.joiner.tally());
        self.is_held |= self.joiner.is_late(piece.time);
        self.joiner.push(piece, text_at, sheet);
        match before {
            _ if !self.joiner.is_open() && !self.is_held => self.begun = None,
            Some(tally) => self.begun = Some(Begun { offset: block.offset_of(at), tally, is_new: true }),
            None => {}
        }
    }

    /// A line that is no record may hold one behind its damage: NULs of a power cut, half a record of a full disk.
    #[cold]
    fn salvage(&mut self, block: &Block<'_>, range: Range<usize>, sheet: &mut Sheet<'_>) {
        let line = &block.bytes[range.clone()];
        let mut from = 0;
        while let Some(next) = json_file::resync(&line[from..]) {
            from += next;
            let record = &line[from..];
            if std::str::from_utf8(record).is_ok()
                && let Some(piece) = json_file::decode(record, &mut self.clock)
            {
                self.joiner.gap(Reason::Corrupt, Some(from as u64), sheet);
                return self.line(block, piece, range.start + from, sheet);
            }
        }
        self.joiner.gap(Reason::Corrupt, Some(line.len() as u64 + 1), sheet);
    }

    fn take_records(&mut self, block: Block<'_>, sheet: &mut Sheet<'_>) -> Result<usize, Strange> {
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
                            self.push(&block, piece, at, Some(text_at), sheet);
                        }
                        None => self.joiner.gap(Reason::Corrupt, Some(length as u64), sheet),
                    }
                    at += length;
                }
                local::Frame::Part => return Ok(at),
                // Nothing of this file was ever a record.
                local::Frame::Broken if block.offset_of(at) == 0 => return Err(Strange),
                local::Frame::Broken => match local::find(&rest[1..]) {
                    Some(found) => {
                        self.joiner.gap(Reason::Corrupt, Some(1 + found as u64), sheet);
                        at += 1 + found;
                    }
                    None if rest.len() > 2 * local::LONGEST => return Err(Strange),
                    None => return Ok(at),
                },
            }
        }
    }
}

/// Where a part of some bytes lies in them.
fn offset_in(bytes: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().saturating_sub(bytes.as_ptr().addr())
}

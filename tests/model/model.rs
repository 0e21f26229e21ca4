//! The expected output for the log of one container: it counts numbered lines and knows nothing about the bytes of
//! files.
//!
//! It is given the lines as they are written, and which of their records can still be read, and checks what the reader
//! delivered.

use logwatch::internals::model::{Cursor, Reason, Stream, Timestamp};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;

/// What the reader delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    Line(Cursor, Vec<u8>),
    Gap(Reason),
}

/// A line as the container wrote it.
#[derive(Debug)]
pub struct Line {
    pub stream: Stream,
    pub time: Timestamp,
    pub text: Vec<u8>,
    /// For each piece, the number of its record and the end offset in `text`.
    pub pieces: Vec<(usize, usize)>,
    /// No more pieces will follow.
    pub is_over: bool,
    /// Its last piece ends with a newline.
    pub has_end: bool,
    /// The reader reached the end of the container's run behind this line.
    pub is_flushed: bool,
}

/// What happened to a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// It was in an open file when the reader was last at rest, during this run of the reader.
    pub is_read: bool,
    /// It vanished before it could be read.
    pub is_gone: bool,
    /// Nothing can show that it vanished.
    pub is_silent: bool,
}

#[derive(Default)]
pub struct Model {
    pub lines: Vec<Line>,
    pub fates: Vec<Fate>,
    /// The line of each record, as an index into `lines`.
    pub of: Vec<usize>,
    /// The first record that the reader could know of.
    pub origin: usize,
    /// Pairs of records between which something happened after which continuity cannot be proven, and what it was.
    pub doubts: Vec<(usize, usize, &'static str)>,
    limit: usize,
    /// What the reader can see is known exactly: every readable line must come, and no gap excuses its absence.
    pub is_strict: bool,
    at: HashMap<(Stream, Timestamp), Vec<usize>>,
}

/// A delivered line, matched with the line that was written.
#[derive(Clone, Copy, Debug)]
struct Match {
    /// Its index in the output.
    at: usize,
    line: usize,
    /// Which part of the cut line it is; `None` when a piece of the line is missing from it.
    part: Option<usize>,
}

impl Model {
    /// Messages longer than `limit` are cut.
    pub fn new(limit: usize, is_strict: bool) -> Self {
        Model { limit, is_strict, ..Model::default() }
    }

    /// Adds a line, whose pieces follow with [`Model::record`]. Returns its index.
    pub fn add(&mut self, stream: Stream, time: Timestamp, text: Vec<u8>) -> usize {
        let pieces = Vec::new();
        self.at.entry((stream, time)).or_default().push(self.lines.len());
        self.lines.push(Line { stream, time, text, pieces, is_over: false, has_end: false, is_flushed: false });
        self.lines.len() - 1
    }

    /// Adds the record of this line that ends at this offset of its text. Returns its number.
    pub fn record(&mut self, line: usize, end: usize) -> usize {
        let number = self.fates.len();
        self.fates.push(Fate::default());
        self.of.push(line);
        self.lines[line].pieces.push((number, end));
        number
    }

    /// Describes how the output differs from what must come. `readable` are the records in files that the reader can
    /// read now.
    pub fn check(&self, out: &[Out], readable: &BTreeSet<usize>) -> Result<(), String> {
        let mut matches = [Vec::new(), Vec::new()];
        for (at, out) in out.iter().enumerate() {
            if let Out::Line(cursor, text) = out {
                let before: &mut Vec<Match> = &mut matches[cursor.stream as usize];
                before.push(self.find(at, *cursor, text, before.last().copied())?);
            }
        }
        let gaps: Vec<usize> = (0..out.len()).filter(|at| matches!(out[*at], Out::Gap(_))).collect();
        for (stream, matches) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&matches) {
            self.check_ordinals(stream, matches, out)?;
            self.check_missing(stream, matches, &gaps, readable)?;
        }
        gaps.iter().try_for_each(|gap| self.check_gap(*gap, &matches, out))
    }

    fn find(&self, at: usize, cursor: Cursor, text: &[u8], last: Option<Match>) -> Result<Match, String> {
        // A line that lost a piece also comes once, without the lost part.
        let is_later = |line: usize, part: Option<usize>| {
            last.is_none_or(|last| match (last.part, part) {
                (Some(before), Some(part)) => (last.line, before) < (line, part),
                _ if self.parts(&self.lines[line].text).count() > 1 => last.line <= line,
                _ => last.line < line,
            })
        };
        let candidates = || {
            let numbers = self.at.get(&(cursor.stream, cursor.time)).into_iter().flatten();
            numbers.map(|number| (*number, &self.lines[*number])).filter(|(_, line)| !line.pieces.is_empty())
        };
        for (number, line) in candidates() {
            for (part, expected) in self.parts(line.written()).enumerate() {
                if expected == text && is_later(number, Some(part)) {
                    return Ok(Match { at, line: number, part: Some(part) });
                }
            }
        }
        let damaged = candidates().find(|(number, line)| is_later(*number, None) && self.is_part_of(line, text));
        if let Some((line, _)) = damaged {
            return Ok(Match { at, line, part: None });
        }
        let size = text.len();
        let text = String::from_utf8_lossy(&text[..size.min(60)]).into_owned();
        Err(match candidates().any(|(number, _)| !is_later(number, None)) {
            true => format!("line {cursor} of {size} bytes comes twice or out of order: {text}"),
            false => format!("line {cursor} of {size} bytes was never written: {text}"),
        })
    }

    /// A message as it is cut at the limit.
    fn parts<'a>(&self, text: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let empty = text.is_empty().then_some(text);
        text.chunks(self.limit).chain(empty)
    }

    /// Whether `text` consists of some of the pieces of a line.
    fn is_part_of(&self, line: &Line, text: &[u8]) -> bool {
        let starts = [0].into_iter().chain(line.pieces.iter().map(|piece| piece.1));
        let pieces: Vec<&[u8]> = starts.zip(&line.pieces).map(|(start, (_, end))| &line.text[start..*end]).collect();
        (1..1_u32 << pieces.len()).any(|chosen| {
            let chosen = pieces.iter().enumerate().filter(|(number, _)| chosen >> number & 1 == 1);
            let whole = chosen.map(|(_, piece)| *piece).collect::<Vec<_>>().concat();
            self.parts(&whole).any(|part| part == text)
        })
    }

    /// Ordinals must be those of a log that is read from its beginning, unless earlier lines of the same time are
    /// missing.
    fn check_ordinals(&self, stream: Stream, matches: &[Match], out: &[Out]) -> Result<(), String> {
        let mut expected = HashMap::new();
        let mut last = None;
        for (number, line) in self.lines.iter().enumerate().filter(|(_, line)| line.stream == stream) {
            for part in (0..self.parts(line.written()).count()).filter(|_| !line.pieces.is_empty()) {
                let ordinal = last.filter(|(time, _)| *time == line.time).map_or(0, |(_, ordinal)| ordinal + 1);
                last = Some((line.time, ordinal));
                expected.insert((number, part), ordinal);
            }
        }
        for (place, found) in matches.iter().enumerate() {
            let (Out::Line(cursor, _), Some(part)) = (&out[found.at], found.part) else { continue };
            let expected = expected[&(found.line, part)];
            let time = self.lines[found.line].time;
            let came = matches[..place].iter().rev().take_while(|other| self.lines[other.line].time == time).count();
            if cursor.ordinal != expected && came >= expected as usize {
                return Err(format!("line {cursor} has the number {expected} among those of its time"));
            }
        }
        Ok(())
    }

    fn check_missing(
        &self,
        stream: Stream,
        matches: &[Match],
        gaps: &[usize],
        readable: &BTreeSet<usize>,
    ) -> Result<(), String> {
        let has_gap = |from: Option<usize>, to: Option<usize>| {
            gaps.iter().any(|gap| from.is_none_or(|from| from < *gap) && to.is_none_or(|to| *gap < to))
        };
        let mut next = 0;
        let came: HashSet<(usize, usize)> =
            matches.iter().filter_map(|found| Some((found.line, found.part?))).collect();
        for (number, line) in self.lines.iter().enumerate() {
            if line.stream != stream || line.pieces.is_empty() {
                continue;
            }
            while matches.get(next).is_some_and(|found| found.line < number) {
                next += 1;
            }
            let is_whole = (0..self.parts(line.written()).count()).all(|part| came.contains(&(number, part)));
            if is_whole || line.pieces[0].0 < self.origin {
                continue;
            }
            // A gap inside a long line is reported before it: a line is delivered with its last piece or, if that never
            // comes, before the next line.
            let before = matches[..next].iter().rev().find(|found| self.is_short(found.line)).map(|before| before.at);
            let own = matches[next..].iter().take_while(|found| found.line == number).count();
            let is_damaged = matches[next..next + own].iter().any(|found| found.part.is_none());
            let after = matches.get(next + own).map(|after| after.at);
            let has_gap = has_gap(before, after);
            if self.is_due(number, readable) && (self.is_strict || !has_gap) {
                return Err(format!("line {} could be read and did not come", line.describe()));
            }
            let is_silent = self.is_blurred(number, readable)
                || line.pieces.iter().any(|(record, _)| self.fates[*record].is_silent);
            let is_last = !is_damaged && after.is_none();
            if !has_gap && !is_silent && !is_last {
                return Err(format!("line {} is missing and no gap covers it", line.describe()));
            }
        }
        Ok(())
    }

    /// Whether a line is delivered as soon as a part of it is there.
    fn is_short(&self, number: usize) -> bool {
        self.lines[number].pieces.len() == 1 && self.lines[number].has_end
    }

    /// Whether earlier parts of it, or earlier lines of the same nanosecond, are lost. Where only times and counts show
    /// what was delivered, it is then taken for one of those.
    fn is_blurred(&self, number: usize, readable: &BTreeSet<usize>) -> bool {
        let line = &self.lines[number];
        let is_cut = line.text.len() > self.limit;
        let group = self.at.get(&(line.stream, line.time)).into_iter().flatten();
        let before = group.take_while(|other| **other < number || is_cut && **other == number);
        let mut before = before.flat_map(|other| &self.lines[*other].pieces);
        before.any(|(record, _)| !readable.contains(record))
    }

    /// Whether a line must have come by now.
    fn is_due(&self, number: usize, readable: &BTreeSet<usize>) -> bool {
        let line = &self.lines[number];
        let can_read = |record: usize| {
            let fate = self.fates[record];
            !fate.is_gone && (fate.is_read || readable.contains(&record))
        };
        let is_superseded = || {
            self.lines[number + 1..].iter().any(|other| {
                let first = other.pieces.first();
                other.stream == line.stream && first.is_some_and(|(record, _)| can_read(*record))
            })
        };
        let all = line.pieces.iter().all(|(record, _)| can_read(*record));
        !self.is_blurred(number, readable)
            && all
            && line.is_over
            && (line.has_end || line.is_flushed || is_superseded())
    }

    /// A gap must cover something that is missing.
    fn check_gap(&self, gap: usize, matches: &[Vec<Match>; 2], out: &[Out]) -> Result<(), String> {
        let mut between = String::new();
        for (stream, matches) in [Stream::Stdout, Stream::Stderr].into_iter().zip(matches) {
            let at = matches.partition_point(|found| found.at < gap);
            let (before, after) = (at.checked_sub(1).map(|before| matches[before]), matches.get(at).copied());
            if [before, after].into_iter().flatten().any(|found| found.part.is_none()) {
                return Ok(());
            }
            let (from, to) = (before.map_or(0, |found| found.line), after.map_or(usize::MAX, |found| found.line));
            let lines = self.lines.iter().enumerate().take(to.saturating_add(1)).skip(from);
            for (number, line) in lines.filter(|(_, line)| line.stream == stream && !line.pieces.is_empty()) {
                let parts = self.parts(line.written()).count();
                let is_missing = match number {
                    _ if number == from && before.is_some() => {
                        let last = before.and_then(|found| found.part).unwrap_or(0);
                        last + 1 < parts && after.is_none_or(|after| after.line != from || after.part > Some(last + 1))
                    }
                    _ if number == to => after.and_then(|found| found.part) > Some(0),
                    _ => true,
                };
                if is_missing
                    && (after.is_some()
                        || !self.is_strict
                        || line.pieces.iter().any(|(record, _)| self.fates[*record].is_gone))
                {
                    return Ok(());
                }
            }
            let low = before.and_then(|found| self.lines[found.line].pieces.first()).map_or(0, |piece| piece.0);
            // As above: a line that was begun before the gap is delivered after it.
            let after = matches[at..].iter().find(|found| self.is_short(found.line));
            let high = after.and_then(|found| self.lines[found.line].pieces.last()).map_or(usize::MAX, |piece| piece.0);
            if self.doubts.iter().any(|(from, to, _)| *from <= high && low <= *to) {
                return Ok(());
            }
            let _ = write!(between, " between {before:?} and {after:?}");
        }
        Err(format!("a gap without a loss: {:?}{between}, doubts {:?}", out[gap], self.doubts))
    }
}

impl Line {
    /// The part of its text that was written.
    fn written(&self) -> &[u8] {
        &self.text[..self.pieces.last().map_or(0, |piece| piece.1)]
    }

    fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.text[..self.text.len().min(30)]).into_owned();
        format!(
            "{}-{} of {} bytes, records {:?}: {text}",
            self.time.0,
            self.stream.letter(),
            self.text.len(),
            self.pieces
        )
    }
}

/// The output as text.
pub fn describe(out: &[Out]) -> String {
    let lines = out.iter().map(|out| match out {
        Out::Line(cursor, text) => {
            format!("{cursor} {}: {}", text.len(), String::from_utf8_lossy(&text[..text.len().min(20)]))
        }
        Out::Gap(reason) => format!("{reason:?}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

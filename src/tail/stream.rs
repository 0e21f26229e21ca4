//! A container's log as the API sends it.
//!
//! In: chunks of the body of `GET /containers/{id}/logs?timestamps=1`, cut anywhere. Out: batches. The engine room opens
//! the requests; this knows where the next one has to start so that no line is missed and none comes twice.
//! Without a terminal the body is frames of `[type, 0, 0, 0, length]` and a payload, one for each record; type 3 is an
//! error of the engine. With one it is bare bytes (moby `pkg/stdcopy`, `api/server/httputils/write_log_stream.go`). Each
//! record starts with its time in nine digits; `since` takes all nine and includes them.

use super::partial::{Joiner, Sheet};
use super::{Piece, Window};
use crate::batch::{Batch, Cursor, Encoding, Item, Key, Reason, Route, Stream};
use crate::position::Resume;
use crate::time::{Reader as Clock, Timestamp, WRITTEN};
use memchr::memmem;
use std::borrow::Cow;

/// The engine's buffer: a longer line comes in pieces of this size.
const PIECE: usize = 16 * 1024;
/// A record is a piece and its time; with attributes and room to spare. More is no frame.
const LONGEST_FRAME: usize = 4 * 1024 * 1024;
const HEADER: usize = 8;

/// One container's log over the API.
pub struct Frames {
    key: Key,
    /// Whether there is a terminal and so no frames; not known before the first byte.
    is_tty: Option<bool>,
    joiner: Joiner,
    clock: Clock,
    /// The start of a frame, or of a terminal's line.
    rest: Vec<u8>,
    /// Of the lines up to a position, those before this one are not wanted.
    first: Option<(Cursor, Resume)>,
    records: u64,
}

/// Why a body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine says so in the stream.
    #[error("the engine failed to read the log: {0}")]
    Engine(String),
    /// Something between us and the engine changed the bytes, or it is no engine.
    #[error("the log stream is malformed: {0}")]
    Malformed(&'static str),
}

impl Frames {
    /// From the first line that the request asks for.
    pub fn new(key: Key, window: Window, max_line_size: usize) -> Self {
        Frames {
            key,
            is_tty: None,
            joiner: Joiner::new(max_line_size, window),
            clock: Clock::default(),
            rest: Vec::new(),
            first: None,
            records: 0,
        }
    }

    /// Of the lines up to a position, shows none before this one.
    pub fn start_at(&mut self, first: Cursor, known: Resume) {
        self.first = Some((first, known));
    }

    /// How far it has come.
    pub fn position(&self) -> Resume {
        self.joiner.position()
    }

    /// A new body follows, of a request from its [`Resume::since`] on.
    pub fn resume(&mut self, position: Resume) {
        self.rest.clear();
        self.joiner.rewind(position);
    }

    /// Records seen so far, which is what the request's `tail` counts.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes a chunk.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Option<Item>, Error> {
        self.rest.extend_from_slice(chunk);
        let bytes = std::mem::take(&mut self.rest);
        // A terminal's bytes start with a year, a frame with a number below four.
        let is_tty = *self.is_tty.get_or_insert(bytes.first().is_some_and(u8::is_ascii_digit));
        let mut batch = Batch::new(self.key, Route::Stream, Vec::new(), Vec::new());
        let taken = if is_tty { self.lines(&bytes, &mut batch) } else { self.frames(&bytes, &mut batch)? };
        self.rest.extend_from_slice(&bytes[taken..]);
        batch.bytes = bytes;
        self.skip_to_first(&mut batch);
        Ok((!batch.is_empty()).then_some(Item::Lines(batch)))
    }

    /// The container has died and its log was read to the end.
    pub fn flush(&mut self) -> Option<Item> {
        let mut batch = Batch::new(self.key, Route::Stream, Vec::new(), Vec::new());
        let bytes = std::mem::take(&mut self.rest);
        if self.is_tty == Some(true) && bytes.len() > WRITTEN {
            self.line(&bytes, 0, false, &mut batch);
        }
        batch.bytes = bytes;
        self.joiner.flush_all(&mut Sheet::of(&mut batch));
        self.skip_to_first(&mut batch);
        (!batch.is_empty()).then_some(Item::Lines(batch))
    }

    fn frames(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<usize, Error> {
        let mut at = 0;
        while let Some((header, behind)) = bytes[at..].split_first_chunk::<HEADER>() {
            let [kind, 0, 0, 0, size @ ..] = *header else {
                return Err(Error::Malformed("no frame header where one should be"));
            };
            let size = u32::from_be_bytes(size) as usize;
            if size > LONGEST_FRAME {
                return Err(Error::Malformed("a frame longer than any record"));
            }
            let Some(payload) = behind.get(..size) else { break };
            let stream = match kind {
                0 | 1 => Stream::Stdout,
                2 => Stream::Stderr,
                3 => return Err(Error::Engine(String::from_utf8_lossy(payload).trim_end().to_owned())),
                _ => return Err(Error::Malformed("a frame of an unknown type")),
            };
            self.record(payload, at + HEADER, stream, batch);
            at += HEADER + size;
        }
        Ok(at)
    }

    fn record(&mut self, payload: &[u8], at: usize, stream: Stream, batch: &mut Batch) {
        self.records += 1;
        let (text, complete) = match payload.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (payload, false),
        };
        let Some((time, message)) = self.split_time(text) else {
            return self.joiner.gap(Reason::Corrupt, Some(payload.len() as u64), &mut Sheet::of(batch));
        };
        let at = at + text.len() - message.len();
        let piece = Piece { time, stream, text: Cow::Borrowed(message), encoding: Encoding::Raw, complete };
        self.joiner.push(piece, Some(at), &mut Sheet::of(batch));
    }

    fn lines(&mut self, bytes: &[u8], batch: &mut Batch) -> usize {
        let mut from = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            self.line(&bytes[from..newline], from, true, batch);
            from = newline + 1;
        }
        if bytes.len() - from > LONGEST_FRAME {
            self.line(&bytes[from..], from, false, batch);
            from = bytes.len();
        }
        from
    }

    /// A line of a terminal. One that was cut has the time again before each further piece.
    fn line(&mut self, line: &[u8], mut at: usize, complete: bool, batch: &mut Batch) {
        let (mut rest, mut is_cut) = (line, false);
        loop {
            let Some((time, message)) = self.split_time(rest) else {
                return self.joiner.gap(Reason::Corrupt, Some(rest.len() as u64), &mut Sheet::of(batch));
            };
            self.records += 1;
            // A piece is longer than the buffer it came from when bytes that are no UTF-8 were replaced in it.
            let again = message.get(PIECE..).and_then(|behind| memmem::find(behind, &rest[..=WRITTEN]));
            let (end, complete) = match again {
                Some(end) => (PIECE + end, false),
                None if is_cut => self.end_of_last(message).map_or((message.len(), complete), |end| (end, true)),
                None => (message.len(), complete),
            };
            is_cut = again.is_some();
            let (text, behind) = message.split_at(end);
            let piece =
                Piece { time, stream: Stream::Stdout, text: Cow::Borrowed(text), encoding: Encoding::Raw, complete };
            self.joiner.push(piece, Some(at + WRITTEN + 1), &mut Sheet::of(batch));
            if behind.is_empty() {
                return;
            }
            at += rest.len() - behind.len();
            rest = behind;
        }
    }

    /// Where the last piece of a line ends before another line. Engines before 23 forget the newline between the two when
    /// they read it from a `local` log; the terminal's carriage return is there, or was the end of the piece before.
    fn end_of_last(&mut self, message: &[u8]) -> Option<usize> {
        let returns = memchr::memchr_iter(b'\r', message).map(|at| at + 1);
        [0].into_iter().chain(returns).find(|&end| self.split_time(&message[end..]).is_some())
    }

    fn split_time<'a>(&mut self, record: &'a [u8]) -> Option<(Timestamp, &'a [u8])> {
        let (time, rest) = record.split_at_checked(WRITTEN)?;
        Some((self.clock.parse(time)?, rest.strip_prefix(b" ")?))
    }

    fn skip_to_first(&mut self, batch: &mut Batch) {
        let Some((first, known)) = self.first else { return };
        let is_first = |cursor: Cursor| cursor == first || !known.has(cursor);
        let found = batch.lines.iter().position(|line| is_first(line.cursor()));
        let dropped = found.unwrap_or(batch.lines.len());
        batch.lines.drain(..dropped);
        batch.gaps.retain(|(before, _)| *before >= dropped);
        batch.gaps.iter_mut().for_each(|(before, _)| *before -= dropped);
        if found.is_some() {
            self.first = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn at(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    fn told(items: impl IntoIterator<Item = Option<Item>>) -> Vec<String> {
        let mut told = Vec::new();
        for item in items.into_iter().flatten() {
            let Item::Lines(batch) = item else { panic!("{item:?}") };
            told.extend(
                batch
                    .lines
                    .iter()
                    .map(|line| format!("{} {}", line.cursor(), String::from_utf8_lossy(batch.text(line)))),
            );
        }
        told
    }

    fn frames() -> Frames {
        Frames::new(Key(1), Window::default(), 1 << 20)
    }

    #[test]
    fn frames_become_lines_whole_or_in_pieces() {
        let mut log = frames();
        let mut body = frame(1, &format!("{} one\n", at(1)));
        body.extend(frame(2, &format!("{} half", at(2))));
        body.extend(frame(1, &format!("{} \n", at(3))));
        body.extend(frame(2, &format!("{} and half\n", at(2))));
        let items = body.chunks(7).map(|chunk| log.push(chunk).unwrap()).collect::<Vec<_>>();
        assert_eq!(told(items), ["1-o0 one", "3-o0 ", "2-e0 halfand half"]);
    }

    #[test]
    fn an_error_of_the_engine_is_not_a_line() {
        let error = frames().push(&frame(3, "Error grabbing logs: gone\n")).unwrap_err();
        assert_eq!(error.to_string(), "the engine failed to read the log: Error grabbing logs: gone");
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for body in [&b"HTTP/1.1 500"[..8], &[9, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
            assert!(matches!(frames().push(body), Err(Error::Malformed(_))), "{body:?}");
        }
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let mut log = frames();
        let long = "x".repeat(PIECE);
        let body = format!("{t} a\r\n{u} {long}{u} rest\r\n{v} end", t = at(1), u = at(2), v = at(3));
        let mut items = body.as_bytes().chunks(1000).map(|chunk| log.push(chunk).unwrap()).collect::<Vec<_>>();
        items.push(log.flush());
        assert_eq!(told(items), ["1-o0 a\r".to_owned(), format!("2-o0 {long}rest\r"), "3-o0 end".to_owned()]);
    }

    #[test]
    fn a_terminals_long_line_ends_where_the_next_begins() {
        let long = "\u{fffd}".repeat(PIECE / 2);
        let body = format!(
            "{t} {long}{t} rest\r{u} next\r\n{v} \r2026-11-21T00:00:00.000000000Z no time\r\n",
            t = at(1),
            u = at(2),
            v = at(3)
        );
        assert_eq!(
            told([frames().push(body.as_bytes()).unwrap()]),
            [
                format!("1-o0 {long}rest\r"),
                "2-o0 next\r".to_owned(),
                "3-o0 \r2026-11-21T00:00:00.000000000Z no time\r".to_owned()
            ]
        );
    }

    proptest! {
        /// A log is read with breaks at any byte; each time the engine sends again what is at or after `since`.
        #[test]
        fn after_any_break_no_line_is_missing_and_none_comes_twice(
            log in prop::collection::vec((0..3_i64, any::<bool>(), 1..4_usize), 1..30),
            breaks in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            // Times of each stream in order; many equal, some lines in pieces.
            let (mut records, mut time) = (Vec::new(), 100);
            for (number, (step, stderr, pieces)) in log.iter().enumerate() {
                time += step;
                for piece in 1..=*pieces {
                    let end = if piece == *pieces { "\n" } else { "" };
                    records.push((at(time), frame(1 + u8::from(*stderr), &format!("{} {number}.{piece}{end}", at(time)))));
                }
                // A line that got no newline for another one to be joined to has the next time.
                time += i64::from(*pieces > 1);
            }
            let body = |since: Option<Timestamp>| {
                records.iter().filter(|(time, _)| since.is_none_or(|since| *time >= since)).flat_map(|(_, frame)| frame.clone()).collect::<Vec<_>>()
            };
            let whole = told([frames().push(&body(None)).unwrap()]);
            let (mut reader, mut items) = (frames(), Vec::new());
            for at in breaks {
                let position = reader.position();
                reader.resume(position);
                let body = body(position.since);
                if !body.is_empty() {
                    items.push(reader.push(&body[..at.index(body.len())]).unwrap());
                }
            }
            let position = reader.position();
            reader.resume(position);
            items.push(reader.push(&body(position.since)).unwrap());
            prop_assert_eq!(told(items), whole);
        }
    }
}

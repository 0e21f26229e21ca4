//! The body of an answer for a container's logs: bytes into records.
//!
//! In: chunks of the body of `GET /containers/{id}/logs?timestamps=1`, cut anywhere. Out: records, one by one. Called by
//! [`super::stream`], which knows which of them are new.
//! Without a terminal the body is frames of `[type, 0, 0, 0, length]` and a payload, one for each record; type 3 is an
//! error of the engine. With one it is bare bytes (moby `pkg/stdcopy`, `api/server/httputils/write_log_stream.go`). Each
//! record starts with its time and a space. Docker writes nine digits, Podman whole seconds.

use crate::model::cursor::Stream;
use crate::model::time::{LONGEST_STAMP, Stamp, Timestamp, TimestampParser};
use memchr::memmem;
use std::ops::ControlFlow;

/// The engine's buffer: a longer line comes in pieces of this size.
const PIECE: usize = 16 * 1024;
/// A record is a piece and its time; with attributes and room to spare. More is no frame.
const LONGEST_FRAME: usize = 4 * 1024 * 1024;
const HEADER: usize = 8;
/// Digits that Docker writes behind the dot.
const NANOSECONDS: usize = 9;
/// Of a terminal's line that has no end yet, more than this is taken as far as its pieces are whole. A piece is at most
/// three times as long as it was, when all of it is no UTF-8.
const LONG: usize = 8 * PIECE;

/// See the module.
#[derive(Default)]
pub(crate) struct Body {
    /// Whether there is a terminal and so no frames; not known before the first byte.
    is_tty: Option<bool>,
    clock: TimestampParser,
    /// The start of a frame, or of a terminal's line, ...
    rest: Vec<u8>,
    /// ... of which some pieces were taken before.
    is_cut: bool,
}

/// One record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The engine's time.
    pub time: Timestamp,
    /// Where it was written to.
    pub stream: Stream,
    /// With a newline, so that no piece follows it.
    pub is_complete: bool,
}

/// What a body is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A record, its message without the newline, and where in the bytes that lies.
    Record(Record, &'a [u8], usize),
    /// So many bytes where a record should be.
    Corrupt(usize),
}

/// How the bytes of a terminal's line end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// At its newline.
    InNewline,
    /// Where the body does.
    Here,
    /// More of it follows.
    Later,
}

/// Why there is no telling what comes next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine says so in the stream.
    #[error("the engine failed to read the log: {0}")]
    Engine(String),
    /// Something between us and the engine changed the bytes, or it is no engine.
    #[error("the log stream is malformed: {0}")]
    Malformed(&'static str),
}

impl Body {
    /// Another one follows.
    pub(crate) fn restart(&mut self) {
        self.rest.clear();
        (self.is_cut, self.is_tty) = (false, None);
    }

    /// What was not taken yet, and a chunk behind it.
    pub(crate) fn gather(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(chunk);
        std::mem::take(&mut self.rest)
    }

    /// Takes what was gathered apart, as far as it is whole, until it is told to stop.
    pub(crate) fn each(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Part<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // A terminal's bytes start with a year, a frame with a number below four.
        let is_tty = *self.is_tty.get_or_insert(bytes.first().is_some_and(u8::is_ascii_digit));
        let (taken, end) = match is_tty {
            true => (self.lines(bytes, &mut take), Ok(())),
            false => self.frames(bytes, &mut take),
        };
        self.rest.extend_from_slice(&bytes[taken..]);
        end
    }

    /// What was gathered is all there will be: of a terminal the line that it ends in.
    pub(crate) fn last(&mut self, bytes: &[u8], mut take: impl FnMut(Part<'_>) -> ControlFlow<()>) {
        let is_line = |clock: &mut TimestampParser| bytes.len() > LONGEST_STAMP || clock.stamp(bytes).is_some();
        if self.is_tty == Some(true) && is_line(&mut self.clock) {
            // Nothing comes behind it that could be left alone.
            let _ = self.line(bytes, 0, Ends::Here, &mut take);
        }
    }

    fn frames(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Part<'_>) -> ControlFlow<()>,
    ) -> (usize, Result<(), Error>) {
        let mut at = 0;
        while let Some((header, behind)) = bytes[at..].split_first_chunk::<HEADER>() {
            let (kind, size) = match split_header(*header) {
                Ok(header) => header,
                Err(error) => return (at, Err(error)),
            };
            let Some(payload) = behind.get(..size) else { break };
            let stream = match kind {
                Kind::Record(stream) => stream,
                Kind::Failure => {
                    let words = String::from_utf8_lossy(payload).trim_end().to_owned();
                    return (at, Err(Error::Engine(words)));
                }
            };
            if take(self.record(payload, at + HEADER, stream)).is_break() {
                break;
            }
            at += HEADER + size;
        }
        (at, Ok(()))
    }

    fn record<'a>(&mut self, payload: &'a [u8], at: usize, stream: Stream) -> Part<'a> {
        let (text, is_complete) = match payload.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (payload, false),
        };
        match self.split_time(text) {
            Some((Stamp { time, .. }, message)) => {
                Part::Record(Record { time, stream, is_complete }, message, at + text.len() - message.len())
            }
            None => Part::Corrupt(payload.len()),
        }
    }

    fn lines(&mut self, bytes: &[u8], take: &mut impl FnMut(Part<'_>) -> ControlFlow<()>) -> usize {
        let mut from = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            if self.line(&bytes[from..newline], from, Ends::InNewline, take).is_break() {
                return from;
            }
            from = newline + 1;
        }
        if bytes.len() - from > LONG {
            return self.line(&bytes[from..], from, Ends::Later, take).continue_value().unwrap_or(from);
        }
        from
    }

    /// A line of a terminal, or as much of it as is there; returns where what was not taken begins. A line that was cut has
    /// the time again before each further piece.
    fn line(
        &mut self,
        line: &[u8],
        mut at: usize,
        ends: Ends,
        take: &mut impl FnMut(Part<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<(), usize> {
        let (mut rest, mut is_cut) = (line, std::mem::take(&mut self.is_cut));
        let complete = ends == Ends::InNewline;
        loop {
            let Some((stamp, message)) = self.split_time(rest) else {
                take(Part::Corrupt(rest.len()))?;
                return ControlFlow::Continue(at + rest.len());
            };
            let again = Self::end_of_piece(stamp, rest, message);
            if again.is_none() && ends == Ends::Later && rest.len() <= LONGEST_FRAME {
                self.is_cut = is_cut;
                return ControlFlow::Continue(at);
            }
            let (end, is_complete) = match again {
                Some(end) => (end, false),
                None if is_cut => self.end_of_last(stamp, message).map_or((message.len(), complete), |end| (end, true)),
                None => (message.len(), complete),
            };
            is_cut = again.is_some();
            let (text, behind) = message.split_at(end);
            let record = Record { time: stamp.time, stream: Stream::Stdout, is_complete };
            take(Part::Record(record, text, at + stamp.len + 1))?;
            at += rest.len() - behind.len();
            if behind.is_empty() {
                return ControlFlow::Continue(at);
            }
            rest = behind;
        }
    }

    /// Where in the message of a line the next piece of that line begins: Docker writes the same time before each. A piece is
    /// longer than the buffer it came from when bytes that are no UTF-8 were replaced in it.
    fn end_of_piece(stamp: Stamp, line: &[u8], message: &[u8]) -> Option<usize> {
        let behind = message.get(PIECE..).filter(|_| stamp.digits == NANOSECONDS)?;
        memmem::find(behind, &line[..=stamp.len]).map(|at| PIECE + at)
    }

    /// Where the last piece of a line ends before another line. Engines before 23 forget the newline between the two when
    /// they read it from a `local` log; the terminal's carriage return is there, or was the end of the piece before. Only
    /// what has the very form of the engine's own times is taken for one: the container may write others.
    fn end_of_last(&mut self, stamp: Stamp, message: &[u8]) -> Option<usize> {
        let is_like = |next: Stamp| (next.digits, next.len) == (stamp.digits, stamp.len);
        let returns = memchr::memchr_iter(b'\r', message).map(|at| at + 1);
        let mut ends = [0].into_iter().chain(returns);
        ends.find(|&end| stamp.digits == NANOSECONDS && self.clock.stamp(&message[end..]).is_some_and(is_like))
    }

    #[inline]
    fn split_time<'a>(&mut self, record: &'a [u8]) -> Option<(Stamp, &'a [u8])> {
        let stamp = self.clock.stamp(record)?;
        Some((stamp, &record[stamp.len + 1..]))
    }
}

/// What a frame holds.
enum Kind {
    Record(Stream),
    /// Words of the engine.
    Failure,
}

fn split_header(header: [u8; HEADER]) -> Result<(Kind, usize), Error> {
    let [kind, 0, 0, 0, size @ ..] = header else {
        return Err(Error::Malformed("no frame header where one should be"));
    };
    let size = u32::from_be_bytes(size) as usize;
    if size > LONGEST_FRAME {
        return Err(Error::Malformed("a frame longer than any record"));
    }
    let kind = match kind {
        0 | 1 => Kind::Record(Stream::Stdout),
        2 => Kind::Record(Stream::Stderr),
        3 => Kind::Failure,
        _ => return Err(Error::Malformed("a frame of an unknown type")),
    };
    Ok((kind, size))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame of this type.
    pub(in crate::tail) fn frame(kind: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn at(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    /// What came of a body: time, stream and message of each record, with a dollar sign where its newline was.
    struct Told {
        body: Body,
        parts: Vec<String>,
    }

    impl Told {
        fn new() -> Self {
            Told { body: Body::default(), parts: Vec::new() }
        }

        fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
            let bytes = self.body.gather(chunk);
            self.body.each(&bytes, |part| tell(part, &bytes, &mut self.parts))
        }

        fn end(mut self) -> Vec<String> {
            let bytes = self.body.gather(&[]);
            self.body.last(&bytes, |part| tell(part, &bytes, &mut self.parts));
            self.parts
        }
    }

    fn tell(part: Part<'_>, bytes: &[u8], parts: &mut Vec<String>) -> ControlFlow<()> {
        parts.push(match part {
            Part::Record(Record { time, stream, is_complete }, text, at) => {
                assert_eq!(&bytes[at..at + text.len()], text);
                let end = if is_complete { "$" } else { "" };
                format!("{}{} {}{end}", time.0, stream.letter(), String::from_utf8_lossy(text))
            }
            Part::Corrupt(size) => format!("{size} bytes"),
        });
        ControlFlow::Continue(())
    }

    /// In chunks of that size.
    fn told(body: &[u8], size: usize) -> Vec<String> {
        let mut told = Told::new();
        body.chunks(size).for_each(|chunk| told.push(chunk).unwrap());
        told.end()
    }

    #[test]
    fn frames_are_records_with_their_newline_or_without() {
        let mut body = frame(1, &format!("{} one\n", at(1)));
        body.extend(frame(2, &format!("{} half", at(2))));
        body.extend(frame(1, &format!("{} \n", at(3))));
        body.extend(frame(1, "no time\n"));
        body.extend(frame(2, &format!("{} and half\n", at(2))));
        for size in [1, 7, 4096] {
            assert_eq!(told(&body, size), ["1o one$", "2e half", "3o $", "8 bytes", "2e and half$"]);
        }
    }

    #[test]
    fn whoever_takes_the_records_can_stop_at_any_of_them() {
        let framed: Vec<u8> = (1..9).flat_map(|time| frame(1, &format!("{} x\n", at(time)))).collect();
        let bare: Vec<u8> = (1..9).flat_map(|time| format!("{} x\r\n", at(time)).into_bytes()).collect();
        for bytes in [framed, bare] {
            let mut count = 0;
            let end = Body::default().each(&bytes, |_| {
                count += 1;
                if count < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            assert!(end.is_ok() && count == 3, "{count}");
        }
    }

    #[test]
    fn an_error_of_the_engine_is_no_record() {
        let mut told = Told::new();
        let end = told.push(&frame(3, "Error grabbing logs: gone\n"));
        assert_eq!(end.unwrap_err().to_string(), "the engine failed to read the log: Error grabbing logs: gone");
        assert_eq!(told.end(), [""; 0]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for body in [&b"HTTP/1.1 500"[..8], &[9, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
            let mut told = Told::new();
            assert!(matches!(told.push(body), Err(Error::Malformed(_))), "{body:?}");
            assert_eq!(told.parts, [""; 0], "{body:?}");
        }
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let long = "x".repeat(PIECE);
        let body = format!("{t} a\r\n{u} {long}{u} rest\r\n{v} end", t = at(1), u = at(2), v = at(3));
        let expected = ["1o a\r$".to_owned(), format!("2o {long}"), "2o rest\r$".to_owned(), "3o end".to_owned()];
        assert_eq!(told(body.as_bytes(), 1000), expected);
    }

    #[test]
    fn a_terminals_line_may_be_longer_than_what_is_held_of_it() {
        let (pieces, mut log) = (LONGEST_FRAME / PIECE + 3, Told::new());
        let piece = format!("{} {}", at(1), "x".repeat(PIECE));
        let body = format!("{}{} rest\r{} next\r\n", piece.repeat(pieces), at(1), at(2));
        for chunk in body.as_bytes().chunks(10_007) {
            log.push(chunk).unwrap();
            assert!(log.body.rest.len() <= LONG + chunk.len());
        }
        let mut parts = log.end();
        assert_eq!(parts.pop().as_deref(), Some("2o next\r$"));
        assert_eq!(parts.pop().as_deref(), Some("1o rest\r$"));
        let text: String = parts.iter().map(|part| part.split_once(' ').unwrap().1).collect();
        assert_eq!((parts.len(), text.len()), (pieces, pieces * PIECE));
    }

    /// Every engine's way of writing a time is read alike, whether or not the container has a terminal.
    #[test]
    fn times_of_every_form_stand_before_lines() {
        for (stamp, nanos) in [
            ("2026-11-30T19:58:03Z", 1_796_068_683_000_000_000),
            ("2026-11-30T20:58:03.5+01:00", 1_796_068_683_500_000_000),
            ("2026-11-30T20:58:03.000000007+01:00", 1_796_068_683_000_000_007_i64),
            ("2026-11-30T19:28:03.123456789-00:30", 1_796_068_683_123_456_789),
            ("2026-11-30t19:58:03.000000007z", 1_796_068_683_000_000_007),
            ("2026-11-30T19:58:03.0000000071Z", 1_796_068_683_000_000_007),
        ] {
            let framed: Vec<u8> = [frame(1, &format!("{stamp} one\n")), frame(2, &format!("{stamp} \n"))].concat();
            let bare = format!("{stamp} one\r\n{stamp} \r\n{stamp} three");
            for size in [1, 7, 4096] {
                assert_eq!(told(&framed, size), [format!("{nanos}o one$"), format!("{nanos}e $")], "{stamp}");
                let expected = [format!("{nanos}o one\r$"), format!("{nanos}o \r$"), format!("{nanos}o three")];
                assert_eq!(told(bare.as_bytes(), size), expected, "{stamp}");
            }
        }
    }

    /// A body that was cut off inside a time holds no line yet.
    #[test]
    fn half_a_time_is_neither_a_line_nor_corrupt() {
        for stamp in ["2026-11-30T19:58:03Z", "2026-11-30T20:58:03.000000007+01:00"] {
            for len in 1..=stamp.len() {
                assert_eq!(told(&stamp.as_bytes()[..len], 4096), [""; 0], "{}", &stamp[..len]);
            }
        }
    }

    /// Behind a carriage return only a time of the engine's own form begins a line.
    #[test]
    fn text_with_a_time_of_another_form_is_no_line() {
        let long = "x".repeat(PIECE);
        let line = |stamp: &str, text: &str| format!("{stamp} {long}{stamp} rest\r{text}\r\n");
        for (stamp, text) in [
            ("2026-11-30T19:58:03.000000007Z", "2026-11-30T19:58:03Z text"),
            ("2026-11-30T19:58:03.000000007Z", "2026-11-30T20:58:03.000000007+01:00 text"),
            ("2026-11-30T20:58:03.000000007+01:00", "2026-11-30T19:58:03.000000007Z text"),
            ("2026-11-30T20:58:03.000000007+01:00", "2026-11-30T20:58:03.7+01:00 text"),
        ] {
            let from = 1_796_068_683_000_000_007_i64;
            let expected = [format!("{from}o {long}"), format!("{from}o rest\r{text}\r$")];
            assert_eq!(told(line(stamp, text).as_bytes(), 1 << 20), expected, "{stamp} {text}");
        }
        let (first, second) = ("2026-11-30T20:58:03.000000007+01:00", "2026-11-30T20:58:04.000000007+01:00 next");
        let parts = told(line(first, second).as_bytes(), 1 << 20);
        assert_eq!(parts.last().map(String::as_str), Some("1796068684000000007o next\r$"));
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
        let expected = [
            format!("1o {long}"),
            "1o rest\r$".to_owned(),
            "2o next\r$".to_owned(),
            "3o \r2026-11-21T00:00:00.000000000Z no time\r$".to_owned(),
        ];
        assert_eq!(told(body.as_bytes(), 1 << 20), expected);
    }
}

//! Splits the body of a logs response into records.
//!
//! In: chunks of the body of `GET /containers/{id}/logs?timestamps=1`, cut anywhere. Out: records, one by one. Called
//! by [`super::frames`], which decides which of them are new.
//!
//! Without a terminal, the body consists of frames, one per record: `[type, 0, 0, 0, length]` and a payload. Type 3 is
//! an error from the daemon. With a terminal, the body is plain bytes (moby `pkg/stdcopy`,
//! `api/server/httputils/write_log_stream.go`). Each record starts with its time and a space. Docker writes nine digits
//! of the second, Podman whole seconds.

use crate::model::line_id::Stream;
use crate::model::time::{LONGEST_STAMP, Stamp, Timestamp, TimestampParser};
use memchr::memmem;
use std::ops::ControlFlow;

/// Size of dockerd's buffer in bytes: longer lines come in pieces of this size.
const PIECE_SIZE: usize = 16 * 1024;
/// Maximum size of a frame: a piece, its time and attributes, with space to spare.
const MAX_FRAME: usize = 4 * 1024 * 1024;
const HEADER: usize = 8;
/// Number of digits that Docker writes after the decimal point.
const NANOSECONDS: usize = 9;
/// From this size on, the complete pieces of an unfinished terminal line are passed on. A piece is at most three times
/// the buffer size, if none of it is UTF-8.
const MAX_UNFINISHED: usize = 8 * PIECE_SIZE;

/// Splits one body after another.
#[derive(Default)]
pub(crate) struct BodySplitter {
    /// Whether the container has a terminal, so that there are no frames. `None` before the first byte.
    is_tty: Option<bool>,
    clock: TimestampParser,
    /// The start of an incomplete frame, or of an unfinished terminal line.
    rest: Vec<u8>,
    /// Earlier pieces of the terminal line in `rest` were already passed on.
    is_cut: bool,
}

/// One record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The daemon's time, with the resolution of the [`crate::tail::Dialect`].
    pub time: Timestamp,
    /// Always stdout if the container has a terminal.
    pub stream: Stream,
    /// It ends with a newline, so that no piece follows.
    pub is_complete: bool,
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyPart<'a> {
    /// A record, its message without the newline, and the offset of the message in the gathered bytes.
    Record(Record, &'a [u8], usize),
    /// This many bytes that are not a record.
    Corrupt(usize),
}

/// How the bytes of a terminal line end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// With its newline, in this chunk.
    InNewline,
    /// At the end of the body, without a newline.
    Here,
    /// The line continues in the next chunk.
    Later,
}

/// Why a body cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// dockerd reports an error within the stream.
    #[error("the daemon failed to read the log: {0}")]
    Engine(String),
    /// A proxy changed the bytes, or the server is not a Docker Engine.
    #[error("the log stream is malformed: {0}")]
    Malformed(&'static str),
}

impl BodySplitter {
    /// Prepares for another body.
    pub(crate) fn restart(&mut self) {
        self.rest.clear();
        (self.is_cut, self.is_tty) = (false, None);
    }

    /// Returns the bytes left over from before, followed by a chunk. To be passed to [`BodySplitter::each`] or
    /// [`BodySplitter::last`].
    pub(crate) fn gather(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(chunk);
        std::mem::take(&mut self.rest)
    }

    /// Passes the complete records of the gathered bytes to `take`, until that breaks. Keeps the rest.
    pub(crate) fn each(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(BodyPart<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // A terminal's bytes start with a year, and a frame with a number below four.
        let is_tty = *self.is_tty.get_or_insert(bytes.first().is_some_and(u8::is_ascii_digit));
        let (taken, end) = match is_tty {
            true => (self.lines(bytes, &mut take), Ok(())),
            false => self.frames(bytes, &mut take),
        };
        self.rest.extend_from_slice(&bytes[taken..]);
        end
    }

    /// Handles the gathered bytes as the end of the body: passes on a terminal line without a newline.
    pub(crate) fn last(&mut self, bytes: &[u8], mut take: impl FnMut(BodyPart<'_>) -> ControlFlow<()>) {
        let is_line = |clock: &mut TimestampParser| bytes.len() > LONGEST_STAMP || clock.stamp(bytes).is_some();
        if self.is_tty == Some(true) && is_line(&mut self.clock) {
            // Nothing follows that could be skipped.
            let _ = self.line(bytes, 0, LineEnd::Here, &mut take);
        }
    }

    fn frames(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(BodyPart<'_>) -> ControlFlow<()>,
    ) -> (usize, Result<(), Error>) {
        let mut at = 0;
        while let Some((header, after)) = bytes[at..].split_first_chunk::<HEADER>() {
            let (kind, size) = match split_header(*header) {
                Ok(header) => header,
                Err(error) => return (at, Err(error)),
            };
            let Some(payload) = after.get(..size) else { break };
            let stream = match kind {
                FrameKind::Record(stream) => stream,
                FrameKind::Failure => {
                    let message = String::from_utf8_lossy(payload).trim_end().to_owned();
                    return (at, Err(Error::Engine(message)));
                }
            };
            if take(self.record(payload, at + HEADER, stream)).is_break() {
                break;
            }
            at += HEADER + size;
        }
        (at, Ok(()))
    }

    fn record<'a>(&mut self, payload: &'a [u8], at: usize, stream: Stream) -> BodyPart<'a> {
        let (text, is_complete) = match payload.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (payload, false),
        };
        match self.split_time(text) {
            Some((Stamp { time, .. }, message)) => {
                BodyPart::Record(Record { time, stream, is_complete }, message, at + text.len() - message.len())
            }
            None => BodyPart::Corrupt(payload.len()),
        }
    }

    fn lines(&mut self, bytes: &[u8], take: &mut impl FnMut(BodyPart<'_>) -> ControlFlow<()>) -> usize {
        let mut from = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            if self.line(&bytes[from..newline], from, LineEnd::InNewline, take).is_break() {
                return from;
            }
            from = newline + 1;
        }
        if bytes.len() - from > MAX_UNFINISHED {
            return self.line(&bytes[from..], from, LineEnd::Later, take).continue_value().unwrap_or(from);
        }
        from
    }

    /// Passes on the pieces of a terminal line, as far as they are complete. Returns the offset after them. dockerd
    /// repeats the time before each further piece of a line.
    fn line(
        &mut self,
        line: &[u8],
        mut at: usize,
        end: LineEnd,
        take: &mut impl FnMut(BodyPart<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<(), usize> {
        let (mut rest, mut is_cut) = (line, std::mem::take(&mut self.is_cut));
        let complete = end == LineEnd::InNewline;
        loop {
            let Some((stamp, message)) = self.split_time(rest) else {
                take(BodyPart::Corrupt(rest.len()))?;
                return ControlFlow::Continue(at + rest.len());
            };
            let again = Self::end_of_piece(stamp, rest, message);
            if again.is_none() && end == LineEnd::Later && rest.len() <= MAX_FRAME {
                self.is_cut = is_cut;
                return ControlFlow::Continue(at);
            }
            let (end, is_complete) = match again {
                Some(end) => (end, false),
                None if is_cut => self.end_of_last(stamp, message).map_or((message.len(), complete), |end| (end, true)),
                None => (message.len(), complete),
            };
            is_cut = again.is_some();
            let (text, after) = message.split_at(end);
            let record = Record { time: stamp.time, stream: Stream::Stdout, is_complete };
            take(BodyPart::Record(record, text, at + stamp.len + 1))?;
            at += rest.len() - after.len();
            if after.is_empty() {
                return ControlFlow::Continue(at);
            }
            rest = after;
        }
    }

    /// Returns where the next piece of a line starts in its message. Docker writes the same time before each piece. A
    /// piece is longer than dockerd's buffer if bytes that are not UTF-8 were replaced in it.
    fn end_of_piece(stamp: Stamp, line: &[u8], message: &[u8]) -> Option<usize> {
        let after = message.get(PIECE_SIZE..).filter(|_| stamp.digits == NANOSECONDS)?;
        memmem::find(after, &line[..=stamp.len]).map(|at| PIECE_SIZE + at)
    }

    /// Returns where the last piece of a line ends if another line follows without a newline. dockerd before 23 omits
    /// that newline when it reads a `local` log. The terminal's carriage return is there, or ended the piece before.
    /// Only a time in exactly the daemon's own form counts, because the container may print other times.
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

/// The content of a frame.
enum FrameKind {
    Record(Stream),
    /// An error message of the daemon.
    Failure,
}

fn split_header(header: [u8; HEADER]) -> Result<(FrameKind, usize), Error> {
    let [kind, 0, 0, 0, size @ ..] = header else {
        return Err(Error::Malformed("no frame header where one should be"));
    };
    let size = u32::from_be_bytes(size) as usize;
    if size > MAX_FRAME {
        return Err(Error::Malformed("a frame longer than any record"));
    }
    let kind = match kind {
        0 | 1 => FrameKind::Record(Stream::Stdout),
        2 => FrameKind::Record(Stream::Stderr),
        3 => FrameKind::Failure,
        _ => return Err(Error::Malformed("a frame of an unknown type")),
    };
    Ok((kind, size))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Builds a frame of type `kind`.
    pub(in crate::tail) fn frame(kind: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn at(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    /// The parts of a body: time, stream and message of each record, with a dollar sign for its newline.
    struct Splitting {
        body: BodySplitter,
        parts: Vec<String>,
    }

    impl Splitting {
        fn new() -> Self {
            Splitting { body: BodySplitter::default(), parts: Vec::new() }
        }

        fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
            let bytes = self.body.gather(chunk);
            self.body.each(&bytes, |part| render(part, &bytes, &mut self.parts))
        }

        fn end(mut self) -> Vec<String> {
            let bytes = self.body.gather(&[]);
            self.body.last(&bytes, |part| render(part, &bytes, &mut self.parts));
            self.parts
        }
    }

    fn render(part: BodyPart<'_>, bytes: &[u8], parts: &mut Vec<String>) -> ControlFlow<()> {
        parts.push(match part {
            BodyPart::Record(Record { time, stream, is_complete }, text, at) => {
                assert_eq!(&bytes[at..at + text.len()], text);
                let end = if is_complete { "$" } else { "" };
                format!("{}{} {}{end}", time.0, stream.letter(), String::from_utf8_lossy(text))
            }
            BodyPart::Corrupt(size) => format!("{size} bytes"),
        });
        ControlFlow::Continue(())
    }

    /// Splits a body that arrives in chunks of `size` bytes.
    fn parts_of(body: &[u8], size: usize) -> Vec<String> {
        let mut splitting = Splitting::new();
        body.chunks(size).for_each(|chunk| splitting.push(chunk).unwrap());
        splitting.end()
    }

    #[test]
    fn frames_are_records_with_their_newline_or_without() {
        let mut body = frame(1, &format!("{} one\n", at(1)));
        body.extend(frame(2, &format!("{} half", at(2))));
        body.extend(frame(1, &format!("{} \n", at(3))));
        body.extend(frame(1, "no time\n"));
        body.extend(frame(2, &format!("{} and half\n", at(2))));
        for size in [1, 7, 4096] {
            assert_eq!(parts_of(&body, size), ["1o one$", "2e half", "3o $", "8 bytes", "2e and half$"]);
        }
    }

    #[test]
    fn a_caller_can_stop_at_any_record() {
        let framed: Vec<u8> = (1..9).flat_map(|time| frame(1, &format!("{} x\n", at(time)))).collect();
        let bare: Vec<u8> = (1..9).flat_map(|time| format!("{} x\r\n", at(time)).into_bytes()).collect();
        for bytes in [framed, bare] {
            let mut count = 0;
            let end = BodySplitter::default().each(&bytes, |_| {
                count += 1;
                if count < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            assert!(end.is_ok() && count == 3, "{count}");
        }
    }

    #[test]
    fn an_error_frame_ends_the_body_without_a_record() {
        let mut splitting = Splitting::new();
        let end = splitting.push(&frame(3, "Error grabbing logs: gone\n"));
        assert_eq!(end.unwrap_err().to_string(), "the daemon failed to read the log: Error grabbing logs: gone");
        assert_eq!(splitting.end(), [""; 0]);
    }

    #[test]
    fn invalid_frames_are_refused() {
        for body in [&b"HTTP/1.1 500"[..8], &[9, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
            let mut splitting = Splitting::new();
            assert!(matches!(splitting.push(body), Err(Error::Malformed(_))), "{body:?}");
            assert_eq!(splitting.parts, [""; 0], "{body:?}");
        }
    }

    #[test]
    fn a_terminal_body_is_split_without_frames() {
        let long = "x".repeat(PIECE_SIZE);
        let body = format!("{t} a\r\n{u} {long}{u} rest\r\n{v} end", t = at(1), u = at(2), v = at(3));
        let expected = ["1o a\r$".to_owned(), format!("2o {long}"), "2o rest\r$".to_owned(), "3o end".to_owned()];
        assert_eq!(parts_of(body.as_bytes(), 1000), expected);
    }

    #[test]
    fn a_terminal_line_may_exceed_the_buffer() {
        let (pieces, mut log) = (MAX_FRAME / PIECE_SIZE + 3, Splitting::new());
        let piece = format!("{} {}", at(1), "x".repeat(PIECE_SIZE));
        let body = format!("{}{} rest\r{} next\r\n", piece.repeat(pieces), at(1), at(2));
        for chunk in body.as_bytes().chunks(10_007) {
            log.push(chunk).unwrap();
            assert!(log.body.rest.len() <= MAX_UNFINISHED + chunk.len());
        }
        let mut parts = log.end();
        assert_eq!(parts.pop().as_deref(), Some("2o next\r$"));
        assert_eq!(parts.pop().as_deref(), Some("1o rest\r$"));
        let text: String = parts.iter().map(|part| part.split_once(' ').unwrap().1).collect();
        assert_eq!((parts.len(), text.len()), (pieces, pieces * PIECE_SIZE));
    }

    /// Every form of a time is understood, with and without a terminal.
    #[test]
    fn every_form_of_a_time_is_understood() {
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
                assert_eq!(parts_of(&framed, size), [format!("{nanos}o one$"), format!("{nanos}e $")], "{stamp}");
                let expected = [format!("{nanos}o one\r$"), format!("{nanos}o \r$"), format!("{nanos}o three")];
                assert_eq!(parts_of(bare.as_bytes(), size), expected, "{stamp}");
            }
        }
    }

    /// A body that was cut off inside a time contains no line yet.
    #[test]
    fn half_a_time_is_neither_a_line_nor_corrupt() {
        for stamp in ["2026-11-30T19:58:03Z", "2026-11-30T20:58:03.000000007+01:00"] {
            for len in 1..=stamp.len() {
                assert_eq!(parts_of(&stamp.as_bytes()[..len], 4096), [""; 0], "{}", &stamp[..len]);
            }
        }
    }

    /// After a carriage return, only a time in the daemon's own form starts a line.
    #[test]
    fn only_a_time_in_the_daemons_form_starts_a_line() {
        let long = "x".repeat(PIECE_SIZE);
        let line = |stamp: &str, text: &str| format!("{stamp} {long}{stamp} rest\r{text}\r\n");
        for (stamp, text) in [
            ("2026-11-30T19:58:03.000000007Z", "2026-11-30T19:58:03Z text"),
            ("2026-11-30T19:58:03.000000007Z", "2026-11-30T20:58:03.000000007+01:00 text"),
            ("2026-11-30T20:58:03.000000007+01:00", "2026-11-30T19:58:03.000000007Z text"),
            ("2026-11-30T20:58:03.000000007+01:00", "2026-11-30T20:58:03.7+01:00 text"),
        ] {
            let from = 1_796_068_683_000_000_007_i64;
            let expected = [format!("{from}o {long}"), format!("{from}o rest\r{text}\r$")];
            assert_eq!(parts_of(line(stamp, text).as_bytes(), 1 << 20), expected, "{stamp} {text}");
        }
        let (first, second) = ("2026-11-30T20:58:03.000000007+01:00", "2026-11-30T20:58:04.000000007+01:00 next");
        let parts = parts_of(line(first, second).as_bytes(), 1 << 20);
        assert_eq!(parts.last().map(String::as_str), Some("1796068684000000007o next\r$"));
    }

    #[test]
    fn a_long_terminal_line_ends_before_the_next_one() {
        let long = "\u{fffd}".repeat(PIECE_SIZE / 2);
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
        assert_eq!(parts_of(body.as_bytes(), 1 << 20), expected);
    }
}

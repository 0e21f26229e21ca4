//! The only program in the containers of the tests: it writes numbered lines.
//!
//! It writes lines to stdout and stderr, each with a nine-digit number counting from 1; [`parse`] lists its options.
//! `support::engine` compiles it into one static program and imports that as an image, where it is `/chatter` and, for
//! `--health-cmd`, `/bin/sh`. It uses only `std`, so that `rustc` alone builds it. A process with PID 1 ignores SIGTERM
//! unless it handles it, which `std` cannot, so stop these containers with SIGKILL.
#![allow(clippy::disallowed_methods, reason = "what it prints comes from itself")]

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the number of the last line is stored between two runs of a container.
const LAST: &str = "/last";

/// Without a rate, this many bytes are collected for each write.
const BLOCK: usize = 64 * 1024;

/// For shorter delays, sleeping is less precise than writing several lines at once.
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Plain,
    Json,
    Text,
    Hostile,
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Streams {
    Stdout,
    Stderr,
    Alternating,
}

#[derive(Debug)]
struct Options {
    count: u64,
    rate: u64,
    size: usize,
    stream: Streams,
    shape: Shape,
    prefix: String,
    stamp: bool,
    unfinished: bool,
    resume: bool,
    exit: u8,
    before: Duration,
    after: Duration,
    burst: u64,
    surge: u64,
    every: Duration,
    idle: bool,
    records: bool,
    bytes: u64,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words = match words.as_slice() {
        [dash_c, line] if dash_c == "-c" => line.split_whitespace().map(str::to_owned).collect(),
        _ => words,
    };
    let options = match parse(&words) {
        Ok(options) => options,
        Err(why) => {
            // If this fails, there is nowhere to report it.
            let _ = writeln!(io::stderr(), "chatter: {why}");
            return ExitCode::from(64);
        }
    };
    match talk(&options) {
        Ok(()) => ExitCode::from(options.exit),
        Err(error) => {
            let _ = writeln!(io::stderr(), "chatter: {error}");
            ExitCode::from(65)
        }
    }
}

/// `--count N` (10), `--forever`, `--rate LINES_PER_SECOND` (0: flat out), `--burst N --every MS`, `--surge N --every MS` (so many lines
/// at once beside those of the rate), `--size BYTES` of a line
/// with its newline, `--stream stdout|stderr|alternating`, `--shape plain|json|text|hostile|empty`, `--prefix WORD`,
/// `--stamp` (`t=<ns>` in each line), `--unfinished` (no newline after the last line), `--resume` (count on where the
/// container's last life ended), `--exit CODE`, `--before MS`, `--after MS`, `--idle` (sleep for ever after the lines),
/// `--records` (each line as the engine's `json-file` driver writes it, a microsecond after the one before: a log without
/// an engine), `--bytes N` (end with the line that makes it so many).
fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        count: 10,
        rate: 0,
        size: 0,
        stream: Streams::Stdout,
        shape: Shape::Plain,
        prefix: "line".to_owned(),
        stamp: false,
        unfinished: false,
        resume: false,
        exit: 0,
        before: Duration::ZERO,
        after: Duration::ZERO,
        burst: 0,
        surge: 0,
        every: Duration::from_millis(100),
        idle: false,
        records: false,
        bytes: u64::MAX,
    };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--count" => options.count = number(word, &value()?)?,
            "--forever" => options.count = u64::MAX,
            "--rate" => options.rate = number(word, &value()?)?,
            "--size" => options.size = number(word, &value()?)?,
            "--stream" => {
                options.stream = match value()?.as_str() {
                    "stdout" => Streams::Stdout,
                    "stderr" => Streams::Stderr,
                    "alternating" => Streams::Alternating,
                    other => return Err(format!("no stream {other:?}")),
                };
            }
            "--shape" => {
                options.shape = match value()?.as_str() {
                    "plain" => Shape::Plain,
                    "json" => Shape::Json,
                    "text" => Shape::Text,
                    "hostile" => Shape::Hostile,
                    "empty" => Shape::Empty,
                    other => return Err(format!("no shape {other:?}")),
                };
            }
            "--prefix" => options.prefix = value()?,
            "--stamp" => options.stamp = true,
            "--unfinished" => options.unfinished = true,
            "--resume" => options.resume = true,
            "--exit" => options.exit = number(word, &value()?)?,
            "--before" => options.before = Duration::from_millis(number(word, &value()?)?),
            "--after" => options.after = Duration::from_millis(number(word, &value()?)?),
            "--burst" => options.burst = number(word, &value()?)?,
            "--surge" => options.surge = number(word, &value()?)?,
            "--every" => options.every = Duration::from_millis(number(word, &value()?)?),
            "--idle" => options.idle = true,
            "--records" => options.records = true,
            "--bytes" => options.bytes = number(word, &value()?)?,
            other => return Err(format!("no option {other:?}")),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{word} takes a number, not {value:?}"))
}

fn talk(options: &Options) -> io::Result<()> {
    sleep(options.before);
    let first = if options.resume { last_life() + 1 } else { 1 };
    let end = first.saturating_add(options.count);
    let paced = options.rate > 0 || options.burst > 0;
    let start = Instant::now();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let mut line = Vec::new();
    let mut blocks = [Vec::new(), Vec::new()];
    let mut written = 0;
    for n in first..end {
        if written >= options.bytes {
            break;
        }
        if paced {
            await_turn(options, start, n - first);
        }
        line.clear();
        compose(options, n, &mut line);
        if options.unfinished && n + 1 == end {
            line.pop();
        }
        if options.records {
            line = record(&line, began + (n - first) * 1000);
        }
        written += line.len() as u64;
        let stream = match options.stream {
            Streams::Stdout => 0,
            Streams::Stderr => 1,
            Streams::Alternating => (n % 2) as usize,
        };
        if paced {
            write(stream, &line)?;
        } else {
            blocks[stream].extend_from_slice(&line);
            if blocks[stream].len() >= BLOCK {
                write(stream, &blocks[stream])?;
                blocks[stream].clear();
            }
        }
    }
    for (stream, block) in blocks.iter().enumerate() {
        write(stream, block)?;
    }
    if options.resume {
        std::fs::write(LAST, (end - 1).to_string())?;
    }
    sleep(options.after);
    if options.idle {
        sleep(Duration::MAX);
    }
    Ok(())
}

fn last_life() -> u64 {
    std::fs::read_to_string(LAST).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Waits until line `index` is due. Lines that are due within one tick are written together after it, so that high
/// rates are exact.
fn await_turn(options: &Options, start: Instant, index: u64) {
    let at_rate = |index| Duration::from_nanos((u128::from(index) * 1_000_000_000 / u128::from(options.rate)) as u64);
    let due = match index.checked_div(options.burst) {
        Some(bursts) => start + options.every * u32::try_from(bursts).unwrap_or(u32::MAX),
        None if options.surge > 0 => {
            let of_rate = options.rate * options.every.as_millis() as u64 / 1000;
            let (periods, within) = (index / (options.surge + of_rate), index % (options.surge + of_rate));
            start + at_rate(periods * of_rate + within.saturating_sub(options.surge))
        }
        None => start + at_rate(index),
    };
    let now = Instant::now();
    if due > now {
        sleep((due - now).max(TICK));
    }
}

/// One write(2): what ends in a newline passes through the buffer of `std` untouched, and the rest is flushed.
fn write(stream: usize, bytes: &[u8]) -> io::Result<()> {
    if stream == 1 {
        return io::stderr().write_all(bytes);
    }
    let mut stdout = io::stdout();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn compose(options: &Options, n: u64, line: &mut Vec<u8>) {
    let mut head = String::new();
    // Writing to a string cannot fail.
    let _ = write!(head, "{} {n:09}", options.prefix);
    if options.stamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let _ = write!(head, " t={now}");
    }
    match options.shape {
        Shape::Plain => {
            line.extend_from_slice(head.as_bytes());
            fill(line, options.size, "x");
        }
        Shape::Json => {
            let _ = write!(
                line,
                "{{\"level\":\"info\",\"msg\":\"{head} said \\\"a\\\\b\\\"\",\"path\":\"C:\\\\tmp\\\\{n}\",\"fill\":\""
            );
            fill(line, options.size.saturating_sub(2), "y");
            line.extend_from_slice(b"\"}");
        }
        Shape::Text => {
            line.extend_from_slice(head.as_bytes());
            line.extend_from_slice(TEXTS[(n % TEXTS.len() as u64) as usize].as_bytes());
            fill(line, options.size, "é");
        }
        Shape::Hostile => {
            line.extend_from_slice(head.as_bytes());
            hostile(n, line);
        }
        Shape::Empty => {}
    }
    line.push(b'\n');
}

/// A line in the form of a `json-file` log (moby `daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go`).
fn record(line: &[u8], nanos: u64) -> Vec<u8> {
    let mut record = String::with_capacity(line.len() * 2 + 80);
    record.push_str("{\"log\":\"");
    for character in String::from_utf8_lossy(line).chars() {
        match character {
            '"' | '\\' => record.extend(['\\', character]),
            '\n' => record.push_str("\\n"),
            '\r' => record.push_str("\\r"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{fffd}' => {
                // Writing to a string cannot fail.
                let _ = write!(record, "\\u{:04x}", u32::from(character));
            }
            _ => record.push(character),
        }
    }
    let time = rfc3339(nanos);
    let _ = writeln!(record, "\",\"stream\":\"stdout\",\"time\":\"{time}\"}}");
    record.into_bytes()
}

/// Nanoseconds since the epoch in the engine's format, without trailing zeros.
fn rfc3339(nanos: u64) -> String {
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let whole = format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}", month + 1, days + 1);
    format!("{}Z", whole.trim_end_matches('0').trim_end_matches('.'))
}

/// Fills up to `size` bytes, including the newline to come.
fn fill(line: &mut Vec<u8>, size: usize, with: &str) {
    if line.len() + 1 + with.len() < size {
        line.push(b' ');
        while line.len() + with.len() < size {
            line.extend_from_slice(with.as_bytes());
        }
    }
}

const TEXTS: [&str; 8] = [
    " plain words",
    " <b>&amp;</b> \"quoted\" back\\slash /slash",
    " tab\there bell\u{7} backspace\u{8} formfeed\u{c} del\u{7f}",
    " 漢字 кириллица 🦀👩‍👩‍👧‍👦 e\u{301}",
    " separators \u{2028} and \u{2029} and \u{feff} and \u{85}",
    " colours \u{1b}[31mred\u{1b}[0m and 100% %s {} $HOME",
    " carriage\rreturn \u{1}\u{1f}",
    " \\u0041 \\n \\\" literal escapes, trailing spaces   ",
];

/// Lines that might break a reader or a terminal; each still has its number once, at its start.
fn hostile(n: u64, line: &mut Vec<u8>) {
    match n % 16 {
        0 => line.extend_from_slice(b"\x1b]0;owned\x07\x1b[2J\x1b[H\x1b[8m hidden"),
        1 => line.extend_from_slice(b" nul \0\0\0 inside"),
        2 => line.extend_from_slice(b" invalid \xff\xfe\xc3\x28\xe2\x82 \xf0\x9f\xa6 utf8"),
        3 => line.extend_from_slice(b" lone\rcarriage\r"),
        4 => line.extend_from_slice(b"\n\n\n after empty lines"),
        5 => line.resize(100_000, b'L'),
        6 => line.resize(16_383, b'a'),
        7 => line.resize(16_384, b'b'),
        8 => line.resize(16_385, b'c'),
        9 => line.resize(32_768, b'd'),
        10 => line.extend_from_slice(br#"{"log":"forged\n","stream":"stderr","time":"2020-01-01T00:00:00Z"}"#),
        11 => line.extend_from_slice(b" \x1bP+q544e\x1b\\ \x9b31m \x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\"),
        12 => {
            // A three-byte character across the end of the engine's buffer of 16,384 bytes is torn apart there.
            line.resize(16_383, b'e');
            line.extend_from_slice("€ after the seam".as_bytes());
        }
        13 => line.extend_from_slice(b" ends in a backslash \\"),
        14 => line.extend_from_slice(b" name | message | 2020-01-01T00:00:00.000000000Z"),
        _ => line.extend_from_slice(" \u{202e}reversed\u{202c} \u{200b}\u{2066}".as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(words: &str, n: u64) -> Vec<u8> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let mut line = Vec::new();
        compose(&parse(&words).unwrap(), n, &mut line);
        line
    }

    #[test]
    fn a_plain_line_has_its_length_and_number() {
        assert_eq!(lines("--prefix web --size 24", 123), b"web 000000123 xxxxxxxxx\n");
        assert_eq!(lines("--size 16384", 1).len(), 16384);
        assert_eq!(lines("", 7), b"line 000000007\n");
    }

    #[test]
    fn every_shape_holds_its_number_once() {
        for shape in ["plain", "json", "text", "hostile"] {
            for n in 1..=32 {
                let line = lines(&format!("--shape {shape} --size 300"), n);
                let digits = format!("{n:09}");
                let found = line.windows(9).filter(|window| *window == digits.as_bytes()).count();
                assert_eq!(found, 1, "{shape} {n}");
            }
        }
    }

    #[test]
    fn a_record_is_what_the_engine_writes() {
        assert_eq!(
            String::from_utf8(record("a\"b\\ <\t\u{2028}é\r\n".as_bytes(), 1_795_215_653_037_882_170)).unwrap(),
            concat!(
                r#"{"log":"a\"b\\ \u003c\u0009\u2028é\r\n","stream":"stdout","#,
                r#""time":"2026-11-20T23:00:53.03788217Z"}"#,
                "\n"
            )
        );
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_798_761_599_500_000_000), "2026-12-31T23:59:59.5Z");
    }

    #[test]
    fn the_lengths_around_the_engines_buffer_are_exact() {
        let without_newline = |n| lines("--shape hostile", n).len() - 1;
        assert_eq!([6, 7, 8, 9].map(without_newline), [16_383, 16_384, 16_385, 32_768]);
    }
}

//! The stopwatch of the scripts beside it: reads a follower's output and says how late, how complete, how soon it was.
//!
//! In: lines that `tests/chatter` wrote, on stdin, as a follower passes them on. Out: one line of numbers at the end.
//! Plain `std`, so that `rustc` alone builds it.
#![allow(clippy::disallowed_methods, reason = "what it prints comes from itself")]

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["latency", skip] => latency(Duration::from_millis(skip.parse().unwrap_or(0))),
        ["count"] => count(),
        ["all"] => all(),
        ["first"] => first(),
        _ => Err(io::Error::other("gauge latency SKIP_MS | count | all | first")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "gauge: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `LINES P50 P99 MAX`: milliseconds from the `t=<ns>` in a line to the read(2) that brought the line's end. What comes
/// in the first `skip` is not counted: followers are still coming up.
fn latency(skip: Duration) -> io::Result<()> {
    let mut from = None;
    let mut late = Vec::new();
    each_line(|line, now| {
        let from = *from.get_or_insert(now + skip);
        if now >= from
            && let Some(stamp) = stamp(line)
        {
            late.push(now.saturating_sub(stamp));
        }
        Ok(())
    })?;
    late.sort_unstable();
    let ms = |share: f64| quantile(&late, share).as_secs_f64() * 1e3;
    writeln!(io::stdout(), "{} {:.3} {:.3} {:.3}", late.len(), ms(0.5), ms(0.99), ms(1.0))
}

/// `DIFFERENT REPEATED BACKWARDS`: how many numbers came, how many lines had one that had come before, and how often a
/// number was followed by a smaller one.
fn count() -> io::Result<()> {
    let (mut seen, mut repeated, mut backwards, mut last) = (HashSet::new(), 0_u64, 0_u64, 0);
    each_line(|line, _| {
        if let Some(number) = number(line) {
            repeated += u64::from(!seen.insert(number));
            backwards += u64::from(number < last);
            last = number;
        }
        Ok(())
    })?;
    writeln!(io::stdout(), "{} {repeated} {backwards}", seen.len())
}

/// `DIFFERENT REPEATED BACKWARDS P50 P99 MAX`: both of the above, of every line.
fn all() -> io::Result<()> {
    let (mut seen, mut repeated, mut backwards, mut last) = (HashSet::new(), 0_u64, 0_u64, 0);
    let mut late = Vec::new();
    each_line(|line, now| {
        if let (Some(number), Some(stamp)) = (number(line), stamp(line)) {
            if seen.insert(number) {
                late.push(now.saturating_sub(stamp));
            } else {
                repeated += 1;
            }
            backwards += u64::from(number < last);
            last = number;
        }
        Ok(())
    })?;
    late.sort_unstable();
    let ms = |share: f64| quantile(&late, share).as_secs_f64() * 1e3;
    let (p50, p99, max) = (ms(0.5), ms(0.99), ms(1.0));
    writeln!(io::stdout(), "{} {repeated} {backwards} {p50:.3} {p99:.3} {max:.3}", seen.len())
}

/// `NAME NS` at once for the first `NAME | …` of each name: when it came, since the epoch.
fn first() -> io::Result<()> {
    let mut seen = HashSet::new();
    let mut stdout = io::stdout();
    each_line(|line, now| {
        let name = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        if seen.insert(name.to_vec()) {
            writeln!(stdout, "{} {}", String::from_utf8_lossy(name), now.as_nanos())?;
        }
        Ok(())
    })
}

/// Each whole line of stdin, and the time since the epoch at which its end was there.
fn each_line(mut each: impl FnMut(&[u8], Duration) -> io::Result<()>) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut block = vec![0; 1 << 20];
    let mut rest: Vec<u8> = Vec::new();
    loop {
        // Past the buffer of `std`: a block is larger.
        let read = stdin.read(&mut block)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if read == 0 {
            return Ok(());
        }
        for piece in block[..read].split_inclusive(|&byte| byte == b'\n') {
            rest.extend_from_slice(piece);
            if let Some(line) = rest.strip_suffix(b"\n") {
                each(line, now)?;
                rest.clear();
            }
        }
    }
}

fn stamp(line: &[u8]) -> Option<Duration> {
    let at = line.windows(3).position(|window| window == b" t=")? + 3;
    let digits = line[at..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_nanos)
}

/// The nine digits behind the first blank.
fn number(line: &[u8]) -> Option<u64> {
    let at = line.iter().position(|&byte| byte == b' ')? + 1;
    std::str::from_utf8(line.get(at..at + 9)?).ok()?.parse().ok()
}

/// Of sorted values; zero when there are none.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_chatter_is_understood() {
        let line = b"line 000000123 t=1795215653037882171 xxx";
        assert_eq!(number(line), Some(123));
        assert_eq!(stamp(line), Some(Duration::from_nanos(1_795_215_653_037_882_171)));
        assert_eq!((number(b"short 12"), stamp(b"none")), (None, None));
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let ms = |share| quantile(&values, share).as_millis();
        assert_eq!((ms(0.0), ms(0.5), ms(0.99), ms(1.0)), (1, 100, 198, 200));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}

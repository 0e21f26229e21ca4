//! Moments and spans as a user writes them.
//!
//! In: the text of `--since` or `--until`, or of an interval. Out: a [`Timestamp`] or a [`Duration`], or a sentence that
//! says what is allowed. What docker takes is taken, and days and weeks besides (moby `api/types/time/timestamp.go`: GetTimestamp).

use crate::config::value::{self, SECOND, SPANS};
use crate::model::time::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::time::Duration;

/// Bytes of `2026-11-20`.
const DAY: usize = 10;

/// Why a text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has none of the known forms.
    #[error(
        "expected a span back from now (`10m`, `1h30m`, `2d`), a date or time (`2026-11-20`, `2026-11-20T23:00:53`, \
         `2026-11-20T23:00:53Z`), or Unix seconds (`1795215653.5`)"
    )]
    Form,
    /// The engine counts nanoseconds in 64 bits.
    #[error("that lies outside the years 1678 to 2262")]
    Range,
}

/// Reads a moment; one without a zone is in the local zone.
pub fn parse(text: &str) -> Result<Timestamp, Error> {
    parse_at(text, Timestamp::now(), &TimeZone::system())
}

/// Reads a span of time longer than none, `30s` or `1m30s`.
pub fn span_of_time(text: &str) -> Result<Duration, String> {
    let span = value::span(text).filter(|span| !span.is_zero());
    span.ok_or_else(|| format!("expected a span longer than none: {SPANS}"))
}

fn parse_at(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Error> {
    let text = text.trim();
    if let Some(seconds) = seconds(text) {
        return seconds.map(Timestamp);
    }
    let (is_ahead, bare) = match text.strip_prefix('-') {
        Some(bare) => (true, bare),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(span) = value::nanos(bare) {
        let moment = |span| if is_ahead { now.0.checked_add(span) } else { now.0.checked_sub(span) };
        return span.ok().and_then(moment).map(Timestamp).ok_or(Error::Range);
    }
    date(text, zone)
}

/// `1795215653` or `1795215653.037882171`, exactly; `None` when the text is no such number.
fn seconds(text: &str) -> Option<Result<i64, Error>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = whole.parse::<i64>().ok().and_then(|whole| whole.checked_mul(SECOND)?.checked_add(scaled(fraction)?));
    Some(nanos.ok_or(Error::Range))
}

/// Digits behind the dot of a second to nanoseconds.
fn scaled(fraction: &str) -> Option<i64> {
    let scale = 9_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    fraction.parse::<i64>().ok()?.checked_mul(10_i64.pow(scale))
}

/// A date, with or without a time, with or without a zone.
fn date(text: &str, zone: &TimeZone) -> Result<Timestamp, Error> {
    // The library would read the date before a `[Europe/Berlin]` and pass over the zone.
    if text.contains('[') {
        return Err(Error::Form);
    }
    // Nor does it know of a day in a zone.
    let whole = match text.split_at_checked(DAY) {
        Some((day, zone)) if zone.starts_with(['Z', 'z', '+', '-']) => Cow::from(format!("{day}T00:00{zone}")),
        _ => Cow::from(text),
    };
    let moment = match whole.parse::<jiff::Timestamp>() {
        Ok(moment) => moment,
        Err(_) => {
            let local: DateTime = whole.parse().map_err(|_| Error::Form)?;
            local.to_zoned(zone.clone()).map_err(|_| Error::Range)?.timestamp()
        }
    };
    i64::try_from(moment.as_nanosecond()).map(Timestamp).map_err(|_| Error::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_written_time_is_read_back(nanos: i64) {
            prop_assert_eq!(parse(&Timestamp(nanos).to_string()), Ok(Timestamp(nanos)));
        }

        #[test]
        fn the_seconds_that_the_engine_takes_are_read_back(nanos in 0..i64::MAX) {
            prop_assert_eq!(parse(&Timestamp(nanos).api()), Ok(Timestamp(nanos)));
        }

        #[test]
        fn nothing_a_user_writes_is_a_panic(text in "[0-9a-zµ.:TZ+ -]{0,24}") {
            let _ = parse(&text);
        }
    }

    const NOW: &str = "2026-11-20T23:00:53.037882171Z";

    fn check(text: &str, expected: &str) {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = Timestamp::parse(NOW.as_bytes()).unwrap();
        let got = match parse_at(text, now, &zone) {
            Ok(moment) => moment.to_string(),
            Err(Error::Form) => "form".into(),
            Err(Error::Range) => "range".into(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn a_date_or_time_is_taken_in_its_zone_or_else_the_local_one() {
        for (text, expected) in [
            ("2026-11-20T23:00:53Z", "2026-11-20T23:00:53.000000000Z"),
            ("2026-11-20T23:00:53.037882171Z", NOW),
            ("2026-11-20T23:00:53.5+05:30", "2026-11-20T17:30:53.500000000Z"),
            ("2026-11-20T23:00:53-08:00", "2026-11-21T07:00:53.000000000Z"),
            ("2026-11-20 23:00:53Z", "2026-11-20T23:00:53.000000000Z"),
            ("2026-11-20T23:00:53", "2026-11-20T21:00:53.000000000Z"),
            ("2026-11-20 23:00:53.25", "2026-11-20T21:00:53.250000000Z"),
            ("2026-11-20T23:00Z", "2026-11-20T23:00:00.000000000Z"),
            ("2026-11-20T23:00+01:00", "2026-11-20T22:00:00.000000000Z"),
            ("2026-11-20T23", "2026-11-20T21:00:00.000000000Z"),
            ("2026-11-20T23:00", "2026-11-20T21:00:00.000000000Z"),
            ("2026-11-20T23Z", "2026-11-20T23:00:00.000000000Z"),
            ("2026-11-20T23-01:00", "2026-11-21T00:00:00.000000000Z"),
            ("2026-11-20", "2026-11-19T22:00:00.000000000Z"),
            ("2026-11-20Z", "2026-11-20T00:00:00.000000000Z"),
            ("2026-11-20+01:00", "2026-11-19T23:00:00.000000000Z"),
            ("2026-11-20-08:00", "2026-11-20T08:00:00.000000000Z"),
            (" 2026-11-20 ", "2026-11-19T22:00:00.000000000Z"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn a_span_counts_back_from_now_and_one_with_a_minus_ahead() {
        for (text, expected) in [
            ("0s", NOW),
            ("-1s", "2026-11-20T23:00:54.037882171Z"),
            ("-1h30m", "2026-11-21T00:30:53.037882171Z"),
            ("+10m", "2026-11-20T22:50:53.037882171Z"),
            ("10m", "2026-11-20T22:50:53.037882171Z"),
            ("1h30m", "2026-11-20T21:30:53.037882171Z"),
            ("1.5h", "2026-11-20T21:30:53.037882171Z"),
            (".5h", "2026-11-20T22:30:53.037882171Z"),
            ("2d", "2026-11-18T23:00:53.037882171Z"),
            ("1w", "2026-11-13T23:00:53.037882171Z"),
            ("1d12h", "2026-11-19T11:00:53.037882171Z"),
            ("37882171ns", "2026-11-20T23:00:53.000000000Z"),
            ("37ms882µs171ns", "2026-11-20T23:00:53.000000000Z"),
            ("37ms882us", "2026-11-20T23:00:53.000000171Z"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn unix_seconds_keep_all_nine_digits() {
        for (text, expected) in [
            ("0", "1970-01-01T00:00:00.000000000Z"),
            ("1795215653", "2026-11-20T23:00:53.000000000Z"),
            ("1795215653.037882171", NOW),
            ("1795215653.5", "2026-11-20T23:00:53.500000000Z"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn a_span_of_time_is_longer_than_none() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            (" 5m ", 300_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(span_of_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0", "0s", "0.0000000001s", "30", "-1s", "30 s", "s", "300000d", "2026-11-20"] {
            assert!(span_of_time(text).is_err_and(|error| error.starts_with("expected a span")), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "yesterday",
            "--10m",
            "-",
            "-5",
            "10x",
            "m",
            "h30",
            "1..5h",
            "1h30",
            "12:30",
            "2026-13-01",
            "2026-02-30",
            "20/11/2026",
            "2026-11-20ZZ",
            "2026-11-2001:00",
            "2026-11-20T23:00[Europe/Berlin]",
            "2026-11-20T23:00:00[UTC]",
            "1795215653.",
            ".5",
            "1795215653.0123456789",
            "1e9",
            "10 m",
        ] {
            check(text, "form");
        }
        for text in ["99999999999", "300000d", "-300000d", "99999999999999999999", "3000-01-01", "0001-01-01"] {
            check(text, "range");
        }
    }
}

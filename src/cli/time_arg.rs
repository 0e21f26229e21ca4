//! Times and durations as users write them.
//!
//! Parses `--since` and `--until` into a [`Timestamp`] and intervals into a [`Duration`], or returns a message that lists
//! the accepted forms. Accepts everything that docker accepts (moby `api/types/time/timestamp.go`: GetTimestamp), and days
//! and weeks as well.

use crate::config::value::{self, SECOND, SPANS};
use crate::model::time::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::time::Duration;

/// Length in bytes of a date such as `2026-11-20`.
const DATE_LEN: usize = 10;

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "expected a duration before now (`10m`, `1h30m`, `2d`), a date or time (`2026-11-20`, `2026-11-20T23:00:53`, \
         `2026-11-20T23:00:53Z`), or Unix seconds (`1795215653.5`)"
    )]
    Form,
    /// dockerd counts nanoseconds in 64 bits, and so does [`Timestamp`].
    #[error("the time is outside the years 1678 to 2262")]
    Range,
}

/// Parses a time. Without a zone, it is in the local zone.
pub(super) fn parse(text: &str) -> Result<Timestamp, Error> {
    parse_at(text, Timestamp::now(), &TimeZone::system())
}

/// Parses a duration greater than zero, such as `30s` or `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = value::span(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| format!("expected a duration greater than zero: {SPANS}"))
}

/// Refuses an `--until` before `--since`: no line or event can lie between them.
pub(super) fn check_range(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<(), String> {
    match (since, until) {
        (Some(since), Some(until)) if since > until => {
            Err(format!("`--since` ({since}) is later than `--until` ({until})"))
        }
        _ => Ok(()),
    }
}

fn parse_at(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Error> {
    let text = text.trim();
    if let Some(seconds) = seconds(text) {
        return seconds.map(Timestamp);
    }
    // As in docker, a minus sign before a duration means the future.
    let (is_future, bare) = match text.strip_prefix('-') {
        Some(bare) => (true, bare),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(nanos) = value::nanos(bare) {
        let time = |nanos| if is_future { now.0.checked_add(nanos) } else { now.0.checked_sub(nanos) };
        return nanos.ok().and_then(time).map(Timestamp).ok_or(Error::Range);
    }
    date(text, zone)
}

/// Parses Unix seconds such as `1795215653` or `1795215653.037882171` into nanoseconds, without rounding. Returns `None` if
/// the text has another form.
fn seconds(text: &str) -> Option<Result<i64, Error>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos =
        whole.parse::<i64>().ok().and_then(|whole| whole.checked_mul(SECOND)?.checked_add(fraction_nanos(fraction)?));
    Some(nanos.ok_or(Error::Range))
}

/// Converts up to nine digits after the decimal point of a second to nanoseconds.
fn fraction_nanos(digits: &str) -> Option<i64> {
    let scale = 9_u32.checked_sub(u32::try_from(digits.len()).ok()?)?;
    digits.parse::<i64>().ok()?.checked_mul(10_i64.pow(scale))
}

/// Parses a date, with or without a time and with or without a zone.
fn date(text: &str, zone: &TimeZone) -> Result<Timestamp, Error> {
    // jiff would accept a zone such as `[Europe/Berlin]` after the date, and ignore it.
    if text.contains('[') {
        return Err(Error::Form);
    }
    // jiff does not accept a date with a zone but without a time.
    let whole = match text.split_at_checked(DATE_LEN) {
        Some((day, zone)) if zone.starts_with(['Z', 'z', '+', '-']) => Cow::from(format!("{day}T00:00{zone}")),
        _ => Cow::from(text),
    };
    let time = match whole.parse::<jiff::Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let local: DateTime = whole.parse().map_err(|_| Error::Form)?;
            local.to_zoned(zone.clone()).map_err(|_| Error::Range)?.timestamp()
        }
    };
    i64::try_from(time.as_nanosecond()).map(Timestamp).map_err(|_| Error::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_displayed_time_parses_to_itself(nanos: i64) {
            prop_assert_eq!(parse(&Timestamp(nanos).to_string()), Ok(Timestamp(nanos)));
        }

        #[test]
        fn api_seconds_parse_to_the_same_time(nanos in 0..i64::MAX) {
            prop_assert_eq!(parse(&Timestamp(nanos).api()), Ok(Timestamp(nanos)));
        }

        #[test]
        fn no_input_panics(text in "[0-9a-zµ.:TZ+ -]{0,24}") {
            let _ = parse(&text);
        }
    }

    const NOW: &str = "2026-11-20T23:00:53.037882171Z";

    fn check(text: &str, expected: &str) {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = Timestamp::parse(NOW.as_bytes()).unwrap();
        let got = match parse_at(text, now, &zone) {
            Ok(time) => time.to_string(),
            Err(Error::Form) => "form".into(),
            Err(Error::Range) => "range".into(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn dates_use_their_zone_or_else_the_local_one() {
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
    fn durations_count_back_and_negative_ones_forward() {
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
    fn unix_seconds_keep_nanoseconds() {
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
    fn intervals_are_greater_than_zero() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            (" 5m ", 300_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0", "0s", "0.0000000001s", "30", "-1s", "30 s", "s", "300000d", "2026-11-20"] {
            assert!(duration(text).is_err_and(|error| error.starts_with("expected a duration")), "{text:?}");
        }
    }

    #[test]
    fn invalid_times_are_refused() {
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

//! Timestamps of the Docker Engine, in memory and in text.
//!
//! Engines write RFC 3339 in many forms. Docker's log files are in UTC, with up to nine digits after the dot and
//! trailing zeros removed, while its API keeps all nine (moby `daemon/logger/jsonfilelog/jsonlog/time_marshalling.go`,
//! `pkg/jsonmessage`). Up to 24.0.7, the API sends lines of the `local` driver and of the dual-logging cache with the
//! offset of the daemon's own time zone. Podman up to 4.3 sends whole seconds. So timestamps cannot be compared as
//! text, but values of this type can.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, UTC. Covers the years 1678 to 2262, like Go's `UnixNano`. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

const NANOS: i64 = 1_000_000_000;

/// The length of the written form, which has all nine digits: `2026-11-20T23:00:53.037882171Z`.
pub(crate) const WRITTEN: usize = 30;

impl Timestamp {
    /// The current time of the system clock.
    pub fn now() -> Self {
        Timestamp::of(SystemTime::now()).unwrap_or(Timestamp(0))
    }

    /// Converts a time of the operating system. `None` before 1970 and after 2262.
    pub fn of(time: SystemTime) -> Option<Self> {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        Some(Timestamp(i64::try_from(since.as_nanos()).ok()?))
    }

    /// Parses every form that RFC 3339 allows: any number of digits after the dot (digits after the ninth are
    /// dropped), an offset, lower-case letters, a leap second. Returns `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (minute, rest) = text.split_at_checked(17)?;
        let minute = parse_minute(minute)?;
        parse_rest(minute, rest).map(Timestamp)
    }

    /// The written form: UTC with nine digits after the dot.
    pub fn written(self) -> [u8; WRITTEN] {
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let seconds = self.0.div_euclid(NANOS);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], of_day / 3600);
        digits(&mut text[14..16], of_day / 60 % 60);
        digits(&mut text[17..19], of_day % 60);
        digits(&mut text[20..29], self.0.rem_euclid(NANOS));
        text
    }

    /// The start of the second that contains this time.
    pub fn whole_second(self) -> Self {
        Timestamp(self.0.saturating_sub(self.0.rem_euclid(NANOS)))
    }

    /// Adds a signed number of nanoseconds.
    pub fn plus(self, nanos: i64) -> Self {
        Timestamp(self.0.saturating_add(nanos))
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Timestamp) -> Duration {
        if self > earlier { Duration::from_nanos(self.0.abs_diff(earlier.0)) } else { Duration::ZERO }
    }

    /// Seconds and nanoseconds, in the form that the API takes for `since` and `until`: `1795215653.037882171`.
    pub fn api(self) -> String {
        format!("{}.{:09}", self.0.div_euclid(NANOS), self.0.rem_euclid(NANOS))
    }
}

/// A span in nanoseconds; spans of 292 years and more count as the longest.
fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos(span)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(nanos(span)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.written()))
    }
}

/// Parses a sequence of timestamps. Caches the last minute, which neighbouring lines of a log nearly always share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimestampParser {
    /// The text up to the seconds of the last timestamp, such as `2026-11-20T23:00:`.
    text: [u8; 17],
    /// The same in nanoseconds since the epoch.
    minute: i64,
}

impl Default for TimestampParser {
    fn default() -> Self {
        // Must be a valid minute: an invalid one would make equal invalid text look cached.
        TimestampParser { text: *b"1970-01-01T00:00:", minute: 0 }
    }
}

impl TimestampParser {
    /// Parses the same forms as [`Timestamp::parse`].
    #[inline]
    pub(crate) fn parse(&mut self, text: &[u8]) -> Option<Timestamp> {
        let (minute, rest) = text.split_first_chunk::<17>()?;
        if *minute != self.text {
            self.minute = parse_minute(minute)?;
            self.text = *minute;
        }
        parse_rest(self.minute, rest).map(Timestamp)
    }
}

/// A timestamp followed by a space at the start of a line. Engines put one before each line that they send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub time: Timestamp,
    /// The length of the timestamp in bytes, without the space.
    pub len: usize,
    /// The number of digits after the dot.
    pub digits: usize,
}

/// The longest text that is taken for a stamp. No engine writes that many digits.
pub(crate) const LONGEST_STAMP: usize = 64;

impl TimestampParser {
    /// Parses the stamp at the start of `text`.
    #[inline]
    pub(crate) fn stamp(&mut self, text: &[u8]) -> Option<Stamp> {
        // Nearly every engine writes nine digits and a `Z`.
        if let Some((written, [b' ', ..])) = text.split_at_checked(WRITTEN)
            && matches!(written, [.., b'Z'])
            && let Some(time) = self.parse(written)
        {
            return Some(Stamp { time, len: WRITTEN, digits: 9 });
        }
        self.stamp_of_any_length(text)
    }

    #[cold]
    fn stamp_of_any_length(&mut self, text: &[u8]) -> Option<Stamp> {
        let len = memchr::memchr(b' ', &text[..text.len().min(LONGEST_STAMP + 1)])?;
        let time = self.parse(&text[..len])?;
        let fraction = text.get(19..len).and_then(|rest| rest.strip_prefix(b"."));
        let digits = fraction.map_or(0, |fraction| fraction.iter().take_while(|byte| byte.is_ascii_digit()).count());
        Some(Stamp { time, len, digits })
    }
}

/// Converts text such as `2026-11-20T23:00:` to nanoseconds since the epoch.
fn parse_minute(text: &[u8]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't', h0, h1, b':', n0, n1, b':'] = *text else {
        return None;
    };
    let (year, month, day) = (number(&[y0, y1, y2, y3])?, number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute) = (number(&[h0, h1])?, number(&[n0, n1])?);
    let in_range = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day) && hour < 24 && minute < 60;
    in_range.then(|| days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60)?.checked_mul(NANOS)
}

/// Adds text such as `53.037882171Z` to a minute. Both are in nanoseconds since the epoch.
#[inline]
fn parse_rest(minute: i64, text: &[u8]) -> Option<i64> {
    if let [s0, s1, b'.', a, b, c, d, e, f, g, h, i, b'Z'] = *text {
        let seconds = number(&[s0, s1])?;
        if seconds < 60 {
            return minute.checked_add(seconds * NANOS + number(&[a, b, c, d, e, f, g, h, i])?);
        }
    }
    parse_any_rest(minute, text)
}

/// Handles the rarer forms, such as `53Z` and `53.5+01:00`.
fn parse_any_rest(minute: i64, text: &[u8]) -> Option<i64> {
    let (seconds, rest) = text.split_at_checked(2)?;
    let seconds = number(seconds)?;
    let (nanos, zone) = match rest {
        [b'.', rest @ ..] => {
            let (digits, zone) = rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
            let kept = &digits[..digits.len().min(9)];
            let scale = 10_i64.pow(9 - u32::try_from(kept.len()).ok()?);
            (number(kept).filter(|_| !kept.is_empty())? * scale, zone)
        }
        zone => (0, zone),
    };
    let offset = parse_offset(zone)?;
    let minute = minute.checked_sub(offset)?;
    // A leap second ends a day in UTC. It counts as the first second of the next day.
    let is_last_minute = minute.rem_euclid(86_400 * NANOS) == (86_400 - 60) * NANOS;
    let is_second = seconds < 60 || seconds == 60 && is_last_minute;
    minute.checked_add(is_second.then_some(seconds * NANOS + nanos)?)
}

/// Converts an offset such as `Z` or `+01:00` to nanoseconds.
fn parse_offset(zone: &[u8]) -> Option<i64> {
    let (sign, [h0, h1, b':', m0, m1]) = (match *zone {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ref rest @ ..] => (1, rest),
        [b'-', ref rest @ ..] => (-1, rest),
        _ => return None,
    }) else {
        return None;
    };
    let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60 * NANOS)
}

#[inline]
fn number(digits: &[u8]) -> Option<i64> {
    let mut value = 0_i64;
    let mut bad = false;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        bad |= digit > 9;
        value = value * 10 + i64::from(digit);
    }
    (!bad).then_some(value)
}

fn digits(out: &mut [u8], mut value: i64) {
    for place in out.iter_mut().rev() {
        // The remainder of a division by ten fits into a byte.
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days from 1970-01-01 to a proleptic Gregorian date. Years are counted from March, so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Converts days since 1970-01-01 to year, month and day: the inverse of [`days_since_epoch`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Engines write any of these.
    #[test]
    fn all_rfc_3339_forms_are_parsed() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("2026-11-20T23:00:53.037882171Z", 1_795_215_653_037_882_171),
            ("2026-11-20T23:00:53.03788217Z", 1_795_215_653_037_882_170),
            ("2026-11-20T23:00:53.5Z", 1_795_215_653_500_000_000),
            ("2024-02-29T23:59:59.999999999Z", 1_709_251_199_999_999_999),
            ("2026-11-20t23:00:53z", 1_795_215_653_000_000_000),
            ("2026-11-20T23:00:53.0378821719999Z", 1_795_215_653_037_882_171),
            ("2026-11-21T00:00:53.037882171+01:00", 1_795_215_653_037_882_171),
            ("2026-11-20T22:30:53-00:30", 1_795_215_653_000_000_000),
            ("2026-11-21T04:45:53.5+05:45", 1_795_215_653_500_000_000),
            ("2026-11-20T23:00:53-00:00", 1_795_215_653_000_000_000),
            ("2027-01-01T00:30:00+01:00", 1_798_759_800_000_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
            ("2017-01-01T00:59:60.25+01:00", 1_483_228_800_250_000_000),
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), Some(Timestamp(nanos)), "{text}");
            assert_eq!(TimestampParser::default().parse(text.as_bytes()), Some(Timestamp(nanos)), "{text}");
        }
    }

    #[test]
    fn invalid_timestamps_are_rejected() {
        for text in [
            "",
            "2026-11-20",
            "2026-11-20T23:00:53",
            "2026-11-20T23:00:53.Z",
            "2026-11-20T23:00:53.+01:00",
            "2026-11-20T23:00:53.5",
            "2026-11-20T23:00:53+0100",
            "2026-11-20T23:00:53+01",
            "2026-11-20T23:00:53+24:00",
            "2026-11-20T23:00:53+01:60",
            "2026-11-20T23:00:53+01:00Z",
            "2026-11-20T23:00:53 +01:00",
            "2026-11-20 23:00:53Z",
            "2026-11-20T23:00:53ZZ",
            "2026-13-20T23:00:53Z",
            "2026-02-29T23:00:53Z",
            "2026-11-20T24:00:53Z",
            "2026-11-20T23:60:53Z",
            "2026-11-20T23:00:60Z",
            "2026-11-20T23:59:60.5+01:00",
            "2026-11-20T23:59:61Z",
            "202x-11-20T23:00:53Z",
            "9999-11-20T23:00:53Z",
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), None, "{text}");
            assert_eq!(TimestampParser::default().parse(text.as_bytes()), None, "{text}");
        }
    }

    /// The stamp ends at the first space, whatever its length.
    #[test]
    fn a_stamp_is_a_timestamp_followed_by_a_space() {
        for (text, expected) in [
            ("2026-11-20T23:00:53.037882171Z one", Some((30, 9))),
            ("2026-11-20T23:00:53Z one", Some((20, 0))),
            ("2026-11-20T23:00:53.12Z ", Some((23, 2))),
            ("2026-11-21T00:00:53.037882171+01:00 one", Some((35, 9))),
            ("2026-11-21T00:00:53.0378+01:00 one", Some((30, 4))),
            ("2026-11-20T23:00:53.037882171Z", None),
            ("2026-11-20T23:00:53.037882171Zone", None),
            ("one", None),
            ("", None),
        ] {
            let stamp = TimestampParser::default().stamp(text.as_bytes());
            assert_eq!(stamp.map(|stamp| (stamp.len, stamp.digits)), expected, "{text}");
            let time = text.split(' ').next().and_then(|time| Timestamp::parse(time.as_bytes()));
            assert_eq!(stamp.map(|stamp| stamp.time), time.filter(|_| expected.is_some()), "{text}");
        }
    }

    #[test]
    fn a_new_parser_does_not_accept_nul_bytes() {
        let text = [&[0; 17][..], b"53.5Z"].concat();
        assert_eq!(Timestamp::parse(&text), None);
        assert_eq!(TimestampParser::default().parse(&text), None);
    }

    #[test]
    fn arithmetic_with_durations_saturates() {
        let second = Duration::from_secs(1);
        let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        for (result, expected) in [
            (Timestamp(5) + second, Timestamp(1_000_000_005)),
            (Timestamp(5) - second, Timestamp(-999_999_995)),
            (Timestamp(5) + Duration::ZERO, Timestamp(5)),
            (Timestamp(-1) + Duration::MAX, Timestamp(i64::MAX - 1)),
            (Timestamp(1) + Duration::MAX, last),
            (Timestamp(-2) - Duration::MAX, first),
            (last + second, last),
            (first - second, first),
        ] {
            assert_eq!(result, expected);
        }
        for (later, earlier, expected) in [
            (Timestamp(1_000_000_005), Timestamp(5), second),
            (Timestamp(5), Timestamp(-5), Duration::from_nanos(10)),
            (Timestamp(5), Timestamp(5), Duration::ZERO),
            (Timestamp(5), Timestamp(6), Duration::ZERO),
            (last, first, Duration::from_nanos(u64::MAX)),
            (first, last, Duration::ZERO),
        ] {
            assert_eq!(later.saturating_duration_since(earlier), expected, "{later} {earlier}");
        }
    }

    proptest! {
        #[test]
        fn a_written_timestamp_is_parsed_back(nanos: i64) {
            // The written year has four digits, and the whole range of the type fits into them.
            prop_assert_eq!(Timestamp::parse(&Timestamp(nanos).written()), Some(Timestamp(nanos)));
        }

        #[test]
        fn agrees_with_a_date_library(nanos: i64) {
            let theirs = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            prop_assert_eq!(Timestamp(nanos).to_string(), format!("{theirs:.9}"));
            let cut = theirs.to_string();
            prop_assert_eq!(Timestamp::parse(cut.as_bytes()), Some(Timestamp(nanos)));
            prop_assert_eq!(TimestampParser::default().parse(cut.as_bytes()), Some(Timestamp(nanos)));
        }
    }
}

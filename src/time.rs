//! A moment as the engine stamps it, and its one written form.
//!
//! The engine writes RFC 3339 in UTC with up to nine digits and cuts trailing zeros in log files, while the API keeps
//! all nine (moby `daemon/logger/jsonfilelog/jsonlog/time_marshalling.go`, `pkg/jsonmessage`). Written times can
//! therefore not be compared as text; this type can.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, UTC. Covers the years 1678 to 2262, as Go's `UnixNano` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

const NANOS: i64 = 1_000_000_000;

/// Length of the written form with all nine digits: `2026-11-20T23:00:53.037882171Z`.
pub const WRITTEN: usize = 30;

impl Timestamp {
    /// The system clock's reading.
    pub fn now() -> Self {
        Timestamp::of(SystemTime::now()).unwrap_or(Timestamp(0))
    }

    /// A time of the operating system's; `None` before 1970 and after 2262.
    pub fn of(time: SystemTime) -> Option<Self> {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        Some(Timestamp(i64::try_from(since.as_nanos()).ok()?))
    }

    /// Reads the form the engine writes: UTC with `Z`, no or one to nine digits behind the dot. Anything else, offsets
    /// included, is `None`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (minute, rest) = text.split_at_checked(17)?;
        let minute = parse_minute(minute)?;
        let nanos = parse_seconds(rest)?;
        minute.checked_add(nanos).map(Timestamp)
    }

    /// Appends the written form with nine digits, [`WRITTEN`] bytes.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.written());
    }

    /// The written form with nine digits.
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

    /// Whole seconds and the nanoseconds behind them, as the API's `since` and `until` take them: `1795215653.037882171`.
    pub fn api(self) -> String {
        format!("{}.{:09}", self.0.div_euclid(NANOS), self.0.rem_euclid(NANOS))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.written()))
    }
}

/// Reads written times one after the other, keeping the last minute: neighbours in a log nearly always share it.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    text: [u8; 17],
    minute: i64,
}

impl Default for Reader {
    fn default() -> Self {
        // A minute like any other: what is no minute must not be equal to the one that is kept.
        Reader { text: *b"1970-01-01T00:00:", minute: 0 }
    }
}

impl Reader {
    /// As [`Timestamp::parse`].
    #[inline]
    pub fn parse(&mut self, text: &[u8]) -> Option<Timestamp> {
        let (minute, rest) = text.split_first_chunk::<17>()?;
        if *minute != self.text {
            self.minute = parse_minute(minute)?;
            self.text = *minute;
        }
        self.minute.checked_add(parse_seconds(rest)?).map(Timestamp)
    }
}

/// `2026-11-20T23:00:` to nanoseconds since the epoch.
fn parse_minute(text: &[u8]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':'] = *text else {
        return None;
    };
    let (year, month, day) = (number(&[y0, y1, y2, y3])?, number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute) = (number(&[h0, h1])?, number(&[n0, n1])?);
    let in_range = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day) && hour < 24 && minute < 60;
    in_range.then(|| days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60)?.checked_mul(NANOS)
}

/// `53.037882171Z` or `53Z` to nanoseconds.
#[inline]
fn parse_seconds(text: &[u8]) -> Option<i64> {
    if let [s0, s1, b'.', a, b, c, d, e, f, g, h, i, b'Z'] = *text {
        let seconds = number(&[s0, s1])?;
        return (seconds < 60).then_some(seconds * NANOS + number(&[a, b, c, d, e, f, g, h, i])?);
    }
    let (seconds, rest) = text.split_at_checked(2)?;
    let seconds = number(seconds)?;
    let nanos = match rest {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            let scale = 10_i64.pow(9 - u32::try_from(digits.len()).ok()?);
            number(digits)? * scale
        }
        _ => return None,
    };
    (seconds < 60).then_some(seconds * NANOS + nanos)
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
        // The remainder of a division by ten fits a byte.
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days from 1970-01-01 of a proleptic Gregorian date; years are counted from March so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days_since_epoch`].
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

    #[test]
    fn every_form_the_engine_writes_is_read() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("2026-11-20T23:00:53.037882171Z", 1_795_215_653_037_882_171),
            ("2026-11-20T23:00:53.03788217Z", 1_795_215_653_037_882_170),
            ("2026-11-20T23:00:53.5Z", 1_795_215_653_500_000_000),
            ("2024-02-29T23:59:59.999999999Z", 1_709_251_199_999_999_999),
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), Some(Timestamp(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_utc_time_is_refused() {
        for text in [
            "",
            "2026-11-20",
            "2026-11-20T23:00:53",
            "2026-11-20T23:00:53.Z",
            "2026-11-20T23:00:53.0123456789Z",
            "2026-11-20T23:00:53+01:00",
            "2026-13-20T23:00:53Z",
            "2026-02-29T23:00:53Z",
            "2026-11-20T24:00:53Z",
            "2026-11-20T23:60:53Z",
            "2026-11-20T23:00:60Z",
            "2026-11-20t23:00:53Z",
            "202x-11-20T23:00:53Z",
            "9999-11-20T23:00:53Z",
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_reader_that_has_read_nothing_takes_no_nuls_for_a_minute() {
        let text = [&[0; 17][..], b"53.5Z"].concat();
        assert_eq!(Timestamp::parse(&text), None);
        assert_eq!(Reader::default().parse(&text), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos: i64) {
            // The written year has four digits; the type's whole range lies within them.
            let mut out = Vec::new();
            Timestamp(nanos).write(&mut out);
            prop_assert_eq!(Timestamp::parse(&out), Some(Timestamp(nanos)));
        }

        #[test]
        fn agrees_with_a_date_library(nanos: i64) {
            let theirs = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            prop_assert_eq!(Timestamp(nanos).to_string(), format!("{theirs:.9}"));
            let cut = theirs.to_string();
            prop_assert_eq!(Timestamp::parse(cut.as_bytes()), Some(Timestamp(nanos)));
            prop_assert_eq!(Reader::default().parse(cut.as_bytes()), Some(Timestamp(nanos)));
        }
    }
}

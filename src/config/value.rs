//! Parses values as users write them in the configuration file, in variables and in options.
//!
//! A parser returns `None` for invalid text; its caller reports the error and says what is expected.

use std::time::Duration;

/// Nanoseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// Examples of durations, for messages.
pub(crate) const SPANS: &str = "`500ms`, `30s`, `5m`, `1h`";

/// A duration of more nanoseconds than an `i64` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Parses a duration, which may be zero.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let nanos = nanos(text.trim())?.ok()?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Parses a duration in Go's syntax, such as `1h30m` or `1.5h`, extended by the units `d` and `w`. Returns nanoseconds.
pub(crate) fn nanos(mut text: &str) -> Option<Result<i64, TooLong>> {
    if text.is_empty() {
        return None;
    }
    let mut sum = Some(0_i64);
    while !text.is_empty() {
        let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, rest) = text.split_at(number);
        let unit = rest.len() - rest.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (unit, rest) = rest.split_at(unit);
        let part = times(number, unit_nanos(unit)?)?;
        sum = sum.zip(part.ok()).and_then(|(sum, part)| sum.checked_add(part));
        text = rest;
    }
    Some(sum.ok_or(TooLong))
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        "d" => 86_400 * SECOND,
        "w" => 7 * 86_400 * SECOND,
        _ => return None,
    })
}

/// Multiplies a decimal number by a unit in nanoseconds, rounding down to whole nanoseconds.
fn times(number: &str, unit: i64) -> Option<Result<i64, TooLong>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole = if whole.is_empty() { Some(0) } else { whole.parse::<i64>().ok() };
    // For all units except days and weeks, which nobody writes so precisely, the thirteenth decimal is below a
    // nanosecond.
    let kept = &fraction[..fraction.len().min(12)];
    let scale = 10_i128.pow(u32::try_from(kept.len()).ok()?);
    let part = if kept.is_empty() { 0 } else { kept.parse::<i128>().ok()? * i128::from(unit) / scale };
    let nanos = whole.and_then(|whole| whole.checked_mul(unit)?.checked_add(i64::try_from(part).ok()?));
    Some(nanos.ok_or(TooLong))
}

/// Formats a duration in the largest unit of which it is a whole multiple.
pub(crate) fn span_text(span: Duration) -> String {
    let nanos = span.as_nanos();
    let units =
        [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    match units.iter().find(|(_, unit)| nanos > 0 && nanos.is_multiple_of(*unit)) {
        _ if nanos == 0 => "0".to_owned(),
        Some((unit, length)) => format!("{}{unit}", nanos / length),
        None => format!("{nanos}ns"),
    }
}

/// Examples of sizes, for messages.
pub(crate) const SIZES: &str = "`1048576`, `64k` or `1MB` (powers of 1000), `64KiB` or `1MiB` (powers of 1024)";

/// Parses a size of at least one byte: `1048576`, `64k`, `1MB` (powers of 1000) or `1MiB` (powers of 1024).
pub(crate) fn size(text: &str) -> Option<usize> {
    let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(number);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(scale).filter(|bytes| *bytes > 0)
}

/// Formats a size in the largest unit of which it is a whole multiple.
pub(crate) fn size_text(bytes: usize) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, length)) => format!("{}{unit}", bytes / length),
        None => bytes.to_string(),
    }
}

/// Examples of listen addresses, for messages.
pub(crate) const LISTEN_ADDRESSES: &str = "`host:port`, such as `127.0.0.1:8519` or `[::1]:8519`";

/// Whether the text is `host:port`, where `host` is a name or an address, with brackets around an IPv6 address. The
/// host is required: to listen on all addresses of the machine, a user has to write `0.0.0.0` or `[::]`.
pub(crate) fn is_listen_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    is_port && is_host
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn formatted_values_parse_back(nanos in 1..i64::MAX as u64, bytes in 1..usize::MAX) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(span(&span_text(duration)), Some(duration));
            prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
        }
    }

    #[test]
    fn durations_and_sizes_are_formatted_in_one_unit() {
        for (millis, text) in
            [(0, "0"), (500, "500ms"), (30_000, "30s"), (90_000, "90s"), (300_000, "5m"), (3_600_000, "1h")]
        {
            assert_eq!(span_text(Duration::from_millis(millis)), text);
        }
        for (bytes, text) in [(1, "1"), (1000, "1000"), (1024, "1KiB"), (1 << 20, "1MiB"), (3 << 30, "3GiB")] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn sizes_distinguish_decimal_and_binary_units() {
        for (text, bytes) in [
            ("1048576", 1_048_576),
            ("1", 1),
            ("16b", 16),
            ("64k", 64_000),
            ("64kB", 64_000),
            ("64KiB", 65_536),
            ("64Ki", 65_536),
            ("1MB", 1_000_000),
            ("1MiB", 1_048_576),
            ("1 mib", 1_048_576),
            ("2GiB", 2_147_483_648),
        ] {
            assert_eq!(size(text), Some(bytes), "{text:?}");
        }
        for text in ["", "0", "k", "-1", "1.5MiB", "1TiB", "99999999999999999999", "99999999999999GiB", "one"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_listen_address_needs_a_host_and_a_port() {
        for text in ["127.0.0.1:8519", "0.0.0.0:0", "localhost:65535", "[::1]:8519", "[::]:80", "my-host.example:1"] {
            assert!(is_listen_address(text), "{text:?}");
        }
        for text in [
            "",
            ":",
            ":8519",
            "8519",
            "127.0.0.1",
            "127.0.0.1:",
            "h:65536",
            "h:+1",
            "::1:8519",
            "[::1]",
            "[x]:1",
            "a b:1",
            "http://h:1",
        ] {
            assert!(!is_listen_address(text), "{text:?}");
        }
    }
}

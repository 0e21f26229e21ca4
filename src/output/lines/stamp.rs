//! Formats the timestamps of lines quickly. Consecutive lines usually share a second, so only the nanoseconds change.

use crate::model::time::{Timestamp, WRITTEN};

/// The formatted time of the current line.
pub(super) struct StampWriter {
    /// The second, since the epoch, that `written` and `unix` show.
    second: i64,
    written: [u8; WRITTEN],
    /// `second` in decimal. Empty until the first [`StampWriter::set`] of another second than 0.
    unix: Vec<u8>,
}

/// The position of the nanoseconds in the written form.
const NANOS: std::ops::Range<usize> = 20..29;

impl Default for StampWriter {
    fn default() -> Self {
        StampWriter { second: 0, written: Timestamp(0).written(), unix: Vec::new() }
    }
}

impl StampWriter {
    #[inline]
    pub(super) fn set(&mut self, time: Timestamp) {
        let second = time.0.div_euclid(1_000_000_000);
        if second != self.second {
            self.second = second;
            self.written = time.written();
            self.unix = second.to_string().into_bytes();
        }
        // The remainder of a division by 10^9 fits in 32 bits.
        write_nine_digits(time.0.rem_euclid(1_000_000_000) as u32, &mut self.written);
    }

    /// The time in the form of [`Timestamp::written`].
    #[inline]
    pub(super) fn written(&self) -> &[u8; WRITTEN] {
        &self.written
    }

    /// Appends the nanoseconds since the epoch, as they appear in a cursor. `time` is the
    /// one passed to [`StampWriter::set`].
    #[inline]
    pub(super) fn write_nanos(&self, time: Timestamp, out: &mut Vec<u8>) {
        if self.second > 0 {
            out.extend_from_slice(&self.unix);
            out.extend_from_slice(&self.written[NANOS]);
        } else {
            out.extend_from_slice(time.0.to_string().as_bytes());
        }
    }
}

#[inline]
fn write_nine_digits(nanos: u32, written: &mut [u8; WRITTEN]) {
    let mut rest = nanos;
    for at in [28, 26, 24, 22] {
        let pair = rest % 100;
        rest /= 100;
        written[at] = b'0' + (pair % 10) as u8;
        written[at - 1] = b'0' + (pair / 10) as u8;
    }
    written[NANOS.start] = b'0' + rest as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_timestamp_formatter(times in prop::collection::vec(any::<i64>(), 1..5), steps in prop::collection::vec(0..3_000_000_000_i64, 1..5)) {
            let mut stamp = StampWriter::default();
            for start in times {
                for step in &steps {
                    let time = Timestamp(start.saturating_add(*step));
                    stamp.set(time);
                    prop_assert_eq!(stamp.written(), &time.written());
                    let mut nanos = Vec::new();
                    stamp.write_nanos(time, &mut nanos);
                    prop_assert_eq!(String::from_utf8(nanos).unwrap(), time.0.to_string());
                }
            }
        }
    }
}

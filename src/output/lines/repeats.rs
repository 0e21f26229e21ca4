//! Lines that the output holds already and that will be read again, each to be left out as often as it is there.
//!
//! Only after a power failure, and only in the formats whose lines do not say which line of which container they are.

use crate::model::time::Timestamp;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Beyond so many distinct lines more are not remembered, and come again.
const MOST: usize = 1 << 20;

/// A run reads first what was there before it.
const LONGEST: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Repeats {
    /// How often each line is there, by its hash.
    left: HashMap<u64, u32>,
    hasher: RandomState,
    /// The output was written last at this time, so it holds no line of a later one.
    until: Timestamp,
    made: Instant,
}

impl Repeats {
    /// None yet, of an output that was written last at that time.
    pub fn new(until: Timestamp) -> Self {
        Repeats { left: HashMap::new(), hasher: RandomState::new(), until, made: Instant::now() }
    }

    /// The output holds this line, given without its newline.
    pub fn add(&mut self, line: &[u8]) {
        let hash = self.hasher.hash_one(line);
        if self.left.len() < MOST || self.left.contains_key(&hash) {
            *self.left.entry(hash).or_default() += 1;
        }
    }

    /// Whether a line that was logged at `time` is one of those, and no longer expected then.
    pub(crate) fn take(&mut self, line: &[u8], time: Timestamp) -> bool {
        if time > self.until {
            return false;
        }
        let hash = self.hasher.hash_one(line);
        let Some(count) = self.left.get_mut(&hash) else { return false };
        *count -= 1;
        if *count == 0 {
            self.left.remove(&hash);
        }
        true
    }

    /// Whether none is expected any more: all have come, or the logs that held the others are gone.
    pub(crate) fn is_over(&self) -> bool {
        self.left.is_empty() || self.made.elapsed() > LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_left_out_as_often_as_it_was_there() {
        let mut repeats = Repeats::new(Timestamp(10));
        [b"a", b"b", b"a"].into_iter().for_each(|line| repeats.add(line));
        for (line, time, is_repeat) in [
            ("a", 10, true),
            ("c", 1, false),
            ("b", 11, false),
            ("a", 1, true),
            ("a", 1, false),
            ("b", 9, true),
            ("b", 9, false),
        ] {
            assert_eq!(repeats.take(line.as_bytes(), Timestamp(time)), is_repeat, "{line} at {time}");
        }
        assert!(repeats.is_over());
    }
}

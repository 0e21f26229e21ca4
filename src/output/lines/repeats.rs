//! Remembers lines that FILE already contains and that will be read again. Each is skipped as often as FILE contains
//! it.
//!
//! Needed only after a power failure, and only for the formats whose lines do not identify their container and cursor.

use crate::model::time::Timestamp;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The most distinct lines that are remembered; further ones are printed again.
const MAX_LINES: usize = 1 << 20;

/// How long lines are skipped. A run starts with the existing logs, so all repeats arrive early.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The lines to skip.
#[derive(Debug)]
pub struct Repeats {
    /// How often each line is still expected, by its hash; never 0.
    remaining: HashMap<u64, u32>,
    hasher: RandomState,
    /// When FILE was last written. It contains no line with a later timestamp.
    last_write: Timestamp,
    created: Instant,
}

impl Repeats {
    /// Creates an empty set for a FILE that was last written at `last_write`.
    pub fn new(last_write: Timestamp) -> Self {
        Repeats { remaining: HashMap::new(), hasher: RandomState::new(), last_write, created: Instant::now() }
    }

    /// Adds a line that FILE contains, without its newline.
    pub fn add(&mut self, line: &[u8]) {
        let hash = self.hasher.hash_one(line);
        if self.remaining.len() < MAX_LINES || self.remaining.contains_key(&hash) {
            *self.remaining.entry(hash).or_default() += 1;
        }
    }

    /// Whether a line that was logged at `time` is to be skipped. If so, it is expected once less.
    pub(crate) fn take(&mut self, line: &[u8], time: Timestamp) -> bool {
        if time > self.last_write {
            return false;
        }
        let hash = self.hasher.hash_one(line);
        let Some(count) = self.remaining.get_mut(&hash) else { return false };
        *count -= 1;
        if *count == 0 {
            self.remaining.remove(&hash);
        }
        true
    }

    /// Whether nothing is left to skip: all lines were seen, or the logs that contained the others are gone.
    pub(crate) fn is_over(&self) -> bool {
        self.remaining.is_empty() || self.created.elapsed() > MAX_AGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_skipped_as_often_as_it_was_added() {
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

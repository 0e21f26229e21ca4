//! What was read and what was lost, by route and by cause.
//!
//! In: batches on their way to the output. Out: numbers.

use crate::batch::{Batch, Reason, Route};
use std::fmt;

/// Of all containers' logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Lines by [`Route`].
    pub lines: [u64; Route::ALL.len()],
    /// Bytes of their messages, as they lie in the log.
    pub bytes: [u64; Route::ALL.len()],
    /// Losses by [`Reason`].
    pub gaps: [u64; Reason::ALL.len()],
    /// Bytes of log that were lost, where that is known.
    pub lost_bytes: u64,
}

impl Logs {
    /// Counts what is in a batch.
    pub fn add(&mut self, batch: &Batch) {
        let route = batch.route as usize;
        self.lines[route] += batch.lines.len() as u64;
        self.bytes[route] += batch.lines.iter().map(|line| batch.text(line).len() as u64).sum::<u64>();
        for (_, gap) in &batch.gaps {
            self.gaps[gap.reason as usize] += 1;
            self.lost_bytes += gap.lost_bytes.unwrap_or(0);
        }
    }
}

/// `2000 lines by file, 10 lines by stream; 1 gap (1 truncated), 0 bytes known to be lost`.
impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_route = Route::ALL.iter().filter(|route| self.lines[**route as usize] > 0);
        let lines: Vec<String> =
            by_route.map(|route| format!("{} lines by {}", self.lines[*route as usize], route.name())).collect();
        f.write_str(if lines.is_empty() { "no lines" } else { "" })?;
        f.write_str(&lines.join(", "))?;
        let gaps: u64 = self.gaps.iter().sum();
        if gaps == 0 {
            return f.write_str("; no gap");
        }
        let by_reason = Reason::ALL.iter().filter(|reason| self.gaps[**reason as usize] > 0);
        let causes: Vec<String> =
            by_reason.map(|reason| format!("{} {}", self.gaps[*reason as usize], reason.name())).collect();
        let s = if gaps == 1 { "" } else { "s" };
        write!(f, "; {gaps} gap{s} ({}), {} bytes known to be lost", causes.join(", "), self.lost_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Encoding, Gap, Head, Key, Line, Part, Stream};
    use crate::time::Timestamp;

    #[test]
    fn lines_and_losses_are_counted_by_route_and_cause() {
        let mut logs = Logs::default();
        assert_eq!(logs.to_string(), "no lines; no gap");
        let head = Head {
            time: Timestamp(1),
            ordinal: 0,
            stream: Stream::Stdout,
            encoding: Encoding::Plain,
            part: Part::Whole,
        };
        let mut batch = Batch::new(Key(0), Route::File, b"hello you".to_vec(), vec![Line::read(head, 0, 5)]);
        logs.add(&batch);
        batch.route = Route::Poll;
        batch.lines.push(Line::read(head, 6, 3));
        let gap = |reason, lost_bytes| (0, Gap { reason, lost_bytes, after: None });
        batch.gaps = vec![gap(Reason::Corrupt, Some(7)), gap(Reason::RotatedAway, None)];
        logs.add(&batch);
        assert_eq!((logs.bytes, logs.lost_bytes), ([5, 0, 0, 8], 7));
        let told = "1 lines by file, 2 lines by poll; 2 gaps (1 rotated_away, 1 corrupt), 7 bytes known to be lost";
        assert_eq!(logs.to_string(), told);
    }
}

//! Remembers what Podman sent, so that the next response can fill in what it left out.
//!
//! Podman loses lines of a response that follows a container. From a quarter of a second after the container has ended,
//! it drops every line for which the connection is not ready at once (nxadm/tail 1.4.11 `sendLine`, Podman 5), and a
//! service that is stopped does the same. Nothing marks the place. Podman's lines have no identity but their number
//! within a second, and such a response gets that wrong. So the pieces that it brought are remembered by their content,
//! and the next response is compared with them: a piece that was not received is new, wherever it stands.
//!
//! In: pieces, as they are decoded ([`Tracker`]) and as they are delivered ([`Received`]). Out: a [`Recall`] for the
//! next response. The memory is bounded, and no piece leaves it without all others of its second.

use crate::model::line_id::Stream;
use crate::model::position::TimePosition;
use crate::model::time::Timestamp;
use crate::tail::api::body::Record;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How far the memory reaches back from the newest piece. If a response lags behind its log by more, lines may be lost
/// that only a gap can report.
const MEMORY: Duration = Duration::from_secs(10);
/// Maximum number of pieces in memory if they are of more than one second, of 16 bytes each.
const MAX_PIECES: usize = 1 << 16;
/// Maximum number of pieces of one second, and of an unfinished line. No container writes as many; a hostile server may
/// send any number. Beyond it nothing is compared.
const MAX_IN_SECOND: usize = 1 << 20;

const SECOND: Duration = Duration::from_secs(1);

/// A piece: its second, and a hash of all that Podman sends of it.
type PieceId = (Timestamp, u64);

/// The pieces that were delivered and that responses brought which may lack others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Hashes by second, none of which is empty.
    seconds: BTreeMap<Timestamp, Vec<u64>>,
    /// Number of hashes in `seconds`.
    count: usize,
    /// Pieces that were decoded, but whose lines were not delivered: they are unfinished, or reading was cancelled. By
    /// their hash.
    undelivered: HashMap<u64, Timestamp>,
    /// Where the memory begins. Pieces up to there are not in it.
    origin: TimePosition,
    /// The last second that was forgotten. The memory has all delivered pieces that are later.
    forgotten: Option<Timestamp>,
    /// Nothing can be compared: the clock was set back, so that `since` does not select the end of the log, or there were
    /// too many pieces.
    is_unusable: bool,
    hasher: RandomState,
}

/// Identifies the pieces of one response.
#[derive(Debug)]
pub(crate) struct Tracker {
    hasher: RandomState,
    /// The pieces of each stream's unfinished line. Indexed by [`Stream`].
    unfinished: [Vec<PieceId>; 2],
    /// The pieces of decoded lines, until [`Received::add`] takes them.
    decoded: Vec<PieceId>,
    /// The latest second so far.
    latest: Timestamp,
    /// A piece was earlier than one before it, or a line has too many.
    is_unusable: bool,
}

/// What a response repeats.
#[derive(Debug)]
pub(crate) struct Recall {
    /// How often each piece was delivered and has not been repeated yet, by its hash.
    counts: HashMap<u64, u32>,
    /// Pieces from before the memory that were not delivered.
    undelivered: HashSet<u64>,
    /// Where the response has to begin. What this position covers is not compared.
    origin: TimePosition,
    /// The last second before the memory.
    forgotten: Option<Timestamp>,
    /// The last second in memory.
    last: Timestamp,
    /// Whether a piece in memory was repeated, so that the log is known to be complete up to there.
    has_matched: bool,
    /// Whether [`Comparison::NewAtEdge`] was returned.
    has_reported: bool,
}

/// The result of comparing a piece with a [`Recall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Delivered,
    New,
    /// New, and pieces from before the memory may be missing.
    NewAtEdge,
    /// Later than everything in memory, as is all that follows.
    Later,
}

impl Received {
    /// Returns the number of pieces in memory.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Forgets everything: the log was complete so far, and is read on from `origin`.
    pub(crate) fn clear(&mut self, origin: TimePosition) {
        *self = Received { origin, hasher: self.hasher.clone(), ..Received::default() };
    }

    pub(crate) fn tracker(&self) -> Tracker {
        Tracker {
            hasher: self.hasher.clone(),
            unfinished: Default::default(),
            decoded: Vec::new(),
            latest: Timestamp(i64::MIN),
            is_unusable: false,
        }
    }

    /// Adds the pieces of the lines that were decoded and are delivered now.
    pub(crate) fn add(&mut self, tracker: &mut Tracker) {
        self.is_unusable |= tracker.is_unusable;
        for (time, hash) in tracker.decoded.drain(..) {
            self.undelivered.remove(&hash);
            if self.forgotten.is_none_or(|forgotten| time > forgotten) {
                self.seconds.entry(time).or_default().push(hash);
                self.count += 1;
            }
        }
        let Some(last) = self.seconds.last_key_value().map(|(last, _)| *last) else { return };
        while let Some(first) = self.seconds.first_entry().filter(|first| {
            let is_old = self.count > MAX_PIECES || *first.key() + MEMORY < last;
            *first.key() < last && is_old
        }) {
            self.forgotten = Some(*first.key());
            self.count -= first.remove().len();
        }
        if self.is_unusable || self.count > MAX_IN_SECOND {
            self.is_unusable = true;
            (self.seconds, self.count, self.undelivered) = (BTreeMap::new(), 0, HashMap::new());
        }
    }

    /// Takes over from the tracker of a response that has ended what is not delivered.
    pub(crate) fn set_aside(&mut self, tracker: Tracker) {
        self.is_unusable |= tracker.is_unusable;
        let pieces = tracker.unfinished.into_iter().flatten().chain(tracker.decoded);
        self.undelivered.extend(pieces.map(|(time, hash)| (hash, time)));
    }

    /// Undelivered pieces from before the memory.
    fn older(&self) -> impl Iterator<Item = (u64, Timestamp)> {
        let is_older = |time: Timestamp| self.forgotten.is_some_and(|forgotten| time <= forgotten);
        self.undelivered.iter().map(|(hash, time)| (*hash, *time)).filter(move |(_, time)| is_older(*time))
    }

    /// Returns where the next response has to begin, or `None` if there is nothing to compare it with.
    pub(crate) fn origin(&self) -> Option<TimePosition> {
        if self.seconds.is_empty() || self.is_unusable {
            return None;
        }
        let Some(forgotten) = self.forgotten else { return Some(self.origin) };
        let since = self.older().map(|(_, time)| time).min().unwrap_or(forgotten + SECOND);
        let seen = self.origin.seen.map(|seen| seen.filter(|seen| seen.time >= since));
        Some(TimePosition { since: Some(since), seen })
    }

    /// Returns what the next response repeats, or `None` if there is nothing to compare it with.
    pub(crate) fn recall(&self) -> Option<Recall> {
        let origin = self.origin()?;
        let last = *self.seconds.last_key_value()?.0;
        let mut counts = HashMap::with_capacity(self.count);
        for hash in self.seconds.values().flatten() {
            *counts.entry(*hash).or_default() += 1;
        }
        Some(Recall {
            counts,
            undelivered: self.older().map(|(hash, _)| hash).collect(),
            origin,
            forgotten: self.forgotten,
            last,
            has_matched: false,
            has_reported: false,
        })
    }
}

impl Tracker {
    pub(crate) fn hash(&self, record: Record, text: &[u8]) -> u64 {
        self.hasher.hash_one((record.time.0, record.stream as u8, record.is_complete, text))
    }

    /// Adds a piece to the stream's unfinished line.
    pub(crate) fn add(&mut self, record: Record, hash: u64) {
        let unfinished = &mut self.unfinished[record.stream as usize];
        self.is_unusable |= record.time < self.latest || unfinished.len() >= MAX_IN_SECOND;
        self.latest = record.time;
        if self.is_unusable {
            unfinished.clear();
        } else {
            unfinished.push((record.time, hash));
        }
    }

    /// Notes that all pieces of the stream so far are part of decoded lines.
    pub(crate) fn decoded(&mut self, stream: Stream) {
        self.decoded.append(&mut self.unfinished[stream as usize]);
    }
}

impl Recall {
    /// Where the response has to begin. What this position covers is not compared.
    pub(crate) fn origin(&self) -> TimePosition {
        self.origin
    }

    /// Compares the next piece of the response.
    pub(crate) fn compare(&mut self, time: Timestamp, hash: u64) -> Comparison {
        if time > self.last {
            return Comparison::Later;
        }
        if self.forgotten.is_some_and(|forgotten| time <= forgotten) {
            return if self.undelivered.remove(&hash) { Comparison::New } else { Comparison::Delivered };
        }
        if let Some(count) = self.counts.get_mut(&hash).filter(|count| **count > 0) {
            *count -= 1;
            self.has_matched = true;
            return Comparison::Delivered;
        }
        let is_near = |forgotten: Timestamp| !self.has_matched || time <= forgotten + SECOND;
        // What is later than everything in memory was not left out.
        let is_at_edge = time < self.last && self.forgotten.is_some_and(is_near) && !self.has_reported;
        self.has_reported |= is_at_edge;
        if is_at_edge { Comparison::NewAtEdge } else { Comparison::New }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000_000)
    }

    fn record(second: i64) -> Record {
        Record { time: seconds(second), stream: Stream::Stdout, is_complete: true }
    }

    /// Delivers the lines of a text such as `1a 1b 2a`: second 1 with lines `a` and `b`, second 2 with line `a`.
    fn receive(received: &mut Received, lines: &str) {
        let mut tracker = received.tracker();
        for (second, text) in lines.split_whitespace().map(|line| line.split_at(1)) {
            let record = record(second.parse().unwrap());
            let hash = tracker.hash(record, text.as_bytes());
            tracker.add(record, hash);
            tracker.decoded(Stream::Stdout);
        }
        received.add(&mut tracker);
    }

    /// Returns the lines of a response that are new, with `!` for [`Comparison::NewAtEdge`].
    fn new_lines(received: &Received, response: &str) -> String {
        let tracker = received.tracker();
        let mut recall = received.recall();
        let mut new = Vec::new();
        for line in response.split_whitespace() {
            let (second, text) = line.split_at(1);
            let record = record(second.parse().unwrap());
            let hash = tracker.hash(record, text.as_bytes());
            match recall.as_mut().map_or(Comparison::Later, |recall| recall.compare(record.time, hash)) {
                Comparison::Delivered => {}
                Comparison::New => new.push(line.to_owned()),
                Comparison::NewAtEdge => new.push(format!("!{line}")),
                Comparison::Later => {
                    recall = None;
                    new.push(line.to_owned());
                }
            }
        }
        new.join(" ")
    }

    #[test]
    fn a_response_fills_in_what_the_last_one_lacked() {
        for (delivered, response, expected) in [
            ("1a 1b 2a", "1a 1b 2a", ""),
            ("1a 1b 2a", "1a 1b 2a 2b 3a", "2b 3a"),
            // In the middle, at the start and at the end.
            ("1a 1c 2b", "1a 1b 1c 2a 2b", "1b 2a"),
            ("1b", "1a 1b", "1a"),
            // Equal lines are counted.
            ("1a 1a", "1a 1a 1a 1b", "1a 1b"),
            ("1a", "2a", "2a"),
            // What the daemon has discarded is not missed.
            ("1a 1b 2a", "2a 2b", "2b"),
            // Nothing later can be a repetition.
            ("1a 1b", "2a 1b", "2a 1b"),
            ("", "1a", "1a"),
        ] {
            let mut received = Received::default();
            receive(&mut received, delivered);
            assert_eq!(new_lines(&received, response), expected, "{delivered:?} {response:?}");
        }
    }

    #[test]
    fn the_memory_ends_with_a_whole_second() {
        let mut received = Received::default();
        receive(&mut received, "1a 1b 2a");
        assert_eq!(received.recall().unwrap().origin().since, None);
        let mut tracker = received.tracker();
        for second in [9, 12] {
            let hash = tracker.hash(record(second), b"later");
            tracker.add(record(second), hash);
            tracker.decoded(Stream::Stdout);
        }
        received.add(&mut tracker);
        assert_eq!((received.len(), received.recall().unwrap().origin().since), (3, Some(seconds(2))));
        for (response, expected) in [
            ("2a 9later", ""),
            // A line that is missing from the first second may not be the only one.
            ("2a 2b 2c 9later", "!2b 2c"),
            ("3a 9later", "!3a"),
            // A later one is, if the log is known to be complete up to there.
            ("2a 3a 9later", "3a"),
            // Nothing is known of what was forgotten.
            ("1a 1c 2a", ""),
        ] {
            assert_eq!(new_lines(&received, response), expected, "{response}");
        }
    }

    #[test]
    fn many_pieces_are_forgotten_by_the_second() {
        let mut received = Received::default();
        let mut tracker = received.tracker();
        for second in [1, 2] {
            for number in 0..MAX_PIECES as u64 {
                tracker.add(record(second), number);
                tracker.decoded(Stream::Stdout);
            }
            received.add(&mut tracker);
        }
        // A single second is kept whatever it holds.
        assert_eq!((received.len(), received.recall().unwrap().origin().since), (MAX_PIECES, Some(seconds(2))));
    }

    #[test]
    fn a_clock_that_was_set_back_ends_the_comparison() {
        let mut received = Received::default();
        receive(&mut received, "2a 1a 2b");
        assert!(received.recall().is_none() && received.len() == 0);
        received.clear(TimePosition::default());
        receive(&mut received, "1a");
        assert!(received.recall().is_some());
    }

    #[test]
    fn undelivered_pieces_are_new_however_old_they_are() {
        let mut received = Received::default();
        receive(&mut received, "1a");
        let mut tracker = received.tracker();
        let hash = tracker.hash(record(1), b"b");
        tracker.add(record(1), hash);
        received.set_aside(tracker);
        let mut tracker = received.tracker();
        let later = tracker.hash(record(20), b"c");
        tracker.add(record(20), later);
        tracker.decoded(Stream::Stdout);
        received.add(&mut tracker);
        let mut recall = received.recall().unwrap();
        assert_eq!(recall.origin().since, Some(seconds(1)));
        let forgotten = tracker.hash(record(1), b"a");
        let verdicts =
            [(1, forgotten), (1, hash), (20, later)].map(|(second, hash)| recall.compare(seconds(second), hash));
        assert_eq!(verdicts, [Comparison::Delivered, Comparison::New, Comparison::Delivered]);
        // Once it is delivered, the log is compared from the memory on.
        tracker.add(record(20), hash);
        tracker.decoded(Stream::Stdout);
        received.add(&mut tracker);
        assert_eq!(received.recall().unwrap().origin().since, Some(seconds(2)));
    }

    #[test]
    fn too_many_pieces_cost_no_memory() {
        let mut received = Received::default();
        let mut tracker = received.tracker();
        for number in 0..=MAX_IN_SECOND as u64 {
            tracker.add(record(1), number);
            tracker.decoded(Stream::Stdout);
            received.add(&mut tracker);
        }
        assert!(received.len() == 0 && received.recall().is_none());
        received.clear(TimePosition::default());
        let mut tracker = received.tracker();
        (0..=MAX_IN_SECOND as u64).for_each(|number| tracker.add(record(1), number));
        assert!(tracker.unfinished[0].is_empty());
        tracker.decoded(Stream::Stdout);
        received.add(&mut tracker);
        assert!(received.recall().is_none());
    }

    #[test]
    fn unfinished_lines_are_not_received() {
        let mut received = Received::default();
        let mut tracker = received.tracker();
        tracker.add(record(1), 1);
        received.add(&mut tracker);
        assert_eq!(received.len(), 0);
        tracker.add(record(1), 2);
        tracker.decoded(Stream::Stdout);
        received.add(&mut tracker);
        assert_eq!(received.len(), 2);
    }
}

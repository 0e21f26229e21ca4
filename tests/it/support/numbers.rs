//! Checks that the numbered lines of containers are complete, unrepeated and in order.
//!
//! Takes lines as the program printed them, in any of its formats, and describes the first flaw. Order is checked for
//! each stream of a container separately: the engine reads the two streams with two writers that race.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

/// The numbers that were seen, by container and stream, in the order of the output.
#[derive(Debug, Default)]
pub struct Numbers(BTreeMap<String, BTreeMap<String, Vec<u64>>>);

impl Numbers {
    /// From `--format json`: its `log` records. A line that is not JSON fails the test.
    pub fn of_json<L: AsRef<str>>(lines: &[L]) -> Self {
        let mut numbers = Self::default();
        for line in lines {
            let record: serde_json::Value = serde_json::from_str(line.as_ref())
                .unwrap_or_else(|error| panic!("no JSON: {error}: {:?}", line.as_ref()));
            if record["type"] == "log" {
                let field = |key: &str| record[key].as_str().unwrap_or_else(|| panic!("no {key}: {record}"));
                numbers.add(field("container_name"), field("stream"), field("message"));
            }
        }
        numbers
    }

    /// From `--format text`, which does not show the stream: for containers that use only one.
    pub fn of_text<L: AsRef<str>>(lines: &[L]) -> Self {
        let mut numbers = Self::default();
        for line in lines {
            if let Some((name, message)) = line.as_ref().split_once('|') {
                numbers.add(name.trim(), "", message);
            }
        }
        numbers
    }

    /// From bare lines of one container, as `--format raw` and `docker logs` print them.
    pub fn of_raw<L: AsRef<str>>(container: &str, lines: &[L]) -> Self {
        let mut numbers = Self::default();
        for line in lines {
            numbers.add(container, "", line.as_ref());
        }
        numbers
    }

    /// Lines without a number, which some shapes of `chatter` write, are ignored.
    fn add(&mut self, container: &str, stream: &str, message: &str) {
        if let Some(number) = number(message) {
            let streams = self.0.entry(container.to_owned()).or_default();
            streams.entry(stream.to_owned()).or_default().push(number);
        }
    }

    /// The containers that were seen.
    pub fn containers(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// How many lines of the container were seen.
    pub fn count(&self, container: &str) -> usize {
        self.0.get(container).map_or(0, |streams| streams.values().map(Vec::len).sum())
    }

    /// How many lines of all containers were seen.
    pub fn total(&self) -> usize {
        self.0.keys().map(|container| self.count(container)).sum()
    }

    /// Fails unless the container's lines are exactly `expected`, in order.
    #[track_caller]
    pub fn assert_whole(&self, container: &str, expected: RangeInclusive<u64>) {
        if let Some(flaw) = self.flaw(container, expected) {
            panic!("{flaw}");
        }
    }

    /// Describes what is wrong with the container's lines, if anything.
    pub fn flaw(&self, container: &str, expected: RangeInclusive<u64>) -> Option<String> {
        let Some(streams) = self.0.get(container) else {
            return (!expected.is_empty()).then(|| format!("{container}: no line at all, expected {expected:?}"));
        };
        let mut seen = HashSet::new();
        let mut twice = Vec::new();
        for number in streams.values().flatten() {
            if !seen.insert(*number) {
                twice.push(*number);
            }
        }
        let missing: Vec<u64> = expected.clone().filter(|number| !seen.contains(number)).collect();
        let mut strange: Vec<u64> = seen.iter().copied().filter(|number| !expected.contains(number)).collect();
        strange.sort_unstable();
        let mut flaws = Vec::new();
        if let Some(first) = missing.first() {
            let end = missing
                .iter()
                .zip(*first..)
                .take_while(|(number, next)| *number == next)
                .last()
                .map_or(*first, |(number, _)| *number);
            flaws.push(format!("{} missing, first {first}..={end}", missing.len()));
        }
        if let Some(first) = twice.first() {
            flaws.push(format!("{} twice, first {first}", twice.len()));
        }
        if let Some(first) = strange.first() {
            flaws.push(format!("{} unexpected, first {first}", strange.len()));
        }
        for (stream, numbers) in streams {
            if let Some(at) = numbers.windows(2).position(|pair| pair[1] < pair[0]) {
                let stream = if stream.is_empty() { String::new() } else { format!(" on {stream}") };
                flaws.push(format!("out of order: {} after {}{stream}", numbers[at + 1], numbers[at]));
            }
        }
        let seen = seen.len() - strange.len();
        (!flaws.is_empty()).then(|| format!("{container}: {seen} of {}: {}", expected.count(), flaws.join("; ")))
    }
}

/// The nine digits that `chatter` writes into each line.
pub fn number(message: &str) -> Option<u64> {
    message.split(|c: char| !c.is_ascii_digit()).find(|run| run.len() == 9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(numbers: &[u64], flaw: &str) {
        let lines: Vec<String> = numbers.iter().map(|n| format!("web | line {n:09} t=1795228815976460227")).collect();
        assert_eq!(Numbers::of_text(&lines).flaw("web", 1..=5).as_deref().unwrap_or("whole"), flaw);
    }

    #[test]
    fn every_kind_of_loss_is_located() {
        check(&[1, 2, 3, 4, 5], "whole");
        check(&[1, 4, 5], "web: 3 of 5: 2 missing, first 2..=3");
        check(&[2, 3], "web: 2 of 5: 3 missing, first 1..=1");
        check(&[1, 2, 3, 3, 4, 5], "web: 5 of 5: 1 twice, first 3");
        check(&[1, 3, 2, 4, 5], "web: 5 of 5: out of order: 2 after 3");
        check(&[1, 2, 3, 4, 5, 6], "web: 5 of 5: 1 unexpected, first 6");
        check(&[], "web: no line at all, expected 1..=5");
    }

    #[test]
    fn streams_of_a_container_may_overtake() {
        let record = |n: u64, stream: &str| {
            format!(r#"{{"type":"log","container_name":"web","stream":"{stream}","message":"line {n:09}"}}"#)
        };
        let lines = [record(2, "stdout"), record(4, "stdout"), record(1, "stderr"), record(3, "stderr")];
        Numbers::of_json(&lines).assert_whole("web", 1..=4);
    }
}

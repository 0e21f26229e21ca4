//! A cache of the answers to lookups of single containers, for `--metadata`.
//!
//! In: answers and listings, and the events that make them out of date. Out: an answer that is still valid, so that
//! nothing is looked up twice. Callers pass the time.

use crate::metrics::LogMetrics;
use crate::model::container::Container;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Containers by ID, each with the time of the answer. An entry is valid for `ttl`; with a `ttl` of 0 nothing is kept.
pub(super) struct Metadata {
    ttl: Duration,
    logs: LogMetrics,
    known: HashMap<String, (Instant, Arc<Container>)>,
}

impl Metadata {
    pub(super) fn new(ttl: Duration, logs: LogMetrics) -> Self {
        Metadata { ttl, logs, known: HashMap::new() }
    }

    /// Returns a valid entry, and counts a hit or a miss.
    pub(super) fn find(&mut self, id: &str, now: Instant) -> Option<Arc<Container>> {
        let found = self.known.get(id).filter(|(answered, _)| now.duration_since(*answered) < self.ttl);
        let found = found.map(|(_, container)| Arc::clone(container));
        if found.is_some() { &self.logs.cache_hits } else { &self.logs.cache_misses }.inc();
        found
    }

    pub(super) fn insert(&mut self, container: Arc<Container>, now: Instant) {
        if !self.ttl.is_zero() {
            self.known.insert(container.id.clone(), (now, container));
        }
    }

    /// Drops the entry of a container that has changed or is gone.
    pub(super) fn forget(&mut self, id: &str) {
        self.known.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    #[test]
    fn an_answer_is_valid_until_it_expires_or_the_container_changes() {
        let logs = LogMetrics::new(&Registry::new()).unwrap();
        let (start, container) = (Instant::now(), Arc::new(Container { id: "a".into(), ..Container::default() }));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut metadata = Metadata::new(Duration::from_secs(10), logs.clone());
        let mut counted = Vec::new();
        let mut find = |metadata: &mut Metadata, seconds| {
            let found = metadata.find("a", at(seconds)).is_some();
            counted.push((found, logs.cache_hits.get(), logs.cache_misses.get()));
        };
        find(&mut metadata, 0);
        metadata.insert(Arc::clone(&container), at(0));
        find(&mut metadata, 9);
        find(&mut metadata, 10);
        metadata.insert(Arc::clone(&container), at(10));
        metadata.forget("b");
        find(&mut metadata, 11);
        metadata.forget("a");
        find(&mut metadata, 11);
        let mut never = Metadata::new(Duration::ZERO, logs.clone());
        never.insert(container, at(0));
        find(&mut never, 0);
        let expected = [(false, 0, 1), (true, 1, 1), (false, 1, 2), (true, 2, 2), (false, 2, 3), (false, 2, 4)];
        assert_eq!(counted, expected);
    }
}

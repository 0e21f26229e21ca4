//! The pool as it stands, for whoever reports on it.

use std::time::Duration;

use super::breaker::State;
use super::health::Check;
use crate::model::health::Status;

/// All clients at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Clients there are, ...
    pub size: usize,
    /// ... at least, ...
    pub min: usize,
    /// ... and at most.
    pub max: usize,
    /// Clients that calls go to.
    pub healthy: usize,
    /// Clients in use.
    pub active: usize,
    /// Part of the clients in use, 0.0 to 1.0.
    pub utilization: f64,
    /// Logs and events that are read, ...
    pub streams: usize,
    /// ... of so many that may be.
    pub max_streams: usize,
    /// Repetitions so far, over all calls.
    pub retries: u64,
    /// By number.
    pub clients: Vec<ClientReport>,
}

/// One client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientReport {
    /// From 0; that of one that was taken away is given again.
    pub id: u32,
    /// Whether calls go to it.
    pub status: Status,
    /// Of its last check, 0.0 to 1.0; 1.0 before the first.
    pub score: f64,
    /// Where its breaker stands.
    pub breaker: State,
    /// Calls it was given.
    pub usage_count: u64,
    /// Calls that its connection or the engine behind it failed.
    pub errors: u64,
    /// Since it, or its connection, was made or made anew.
    pub age: Duration,
    /// Its last checks; none before the first.
    pub checks: Vec<Check>,
}

impl Snapshot {
    /// How well they are, taken together: degraded where calls go to some of them only.
    pub fn status(&self) -> Status {
        match self.healthy {
            0 => Status::Unhealthy,
            healthy if healthy < self.size => Status::Degraded,
            _ => Status::Healthy,
        }
    }
}

/// What became of a call on its way through the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// In all, from asking to the answer.
    pub took: Duration,
    /// Of that, waiting for the rate limit, for a free client, or for an engine that was gone.
    pub waited: Duration,
    /// So many times it was asked again.
    pub retries: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_healthy_clients_are_a_degraded_pool() {
        for (size, healthy, name) in [(4, 4, "healthy"), (4, 3, "degraded"), (4, 1, "degraded"), (4, 0, "unhealthy")] {
            let snapshot = Snapshot {
                size,
                min: 1,
                max: 8,
                healthy,
                active: 0,
                utilization: 0.0,
                streams: 0,
                max_streams: 1,
                retries: 0,
                clients: Vec::new(),
            };
            assert_eq!(snapshot.status().name(), name, "{healthy} of {size}");
        }
    }
}

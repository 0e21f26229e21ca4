//! The state of the pool at one moment, for reports, and the times of one call.

use std::time::Duration;

use super::breaker::BreakerState;
use super::health::Check;
use crate::model::health::Status;

/// The pool at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Number of clients, within `min` and `max`.
    pub size: usize,
    pub min: usize,
    pub max: usize,
    /// Clients that receive calls.
    pub healthy: usize,
    /// Clients that are executing a call.
    pub active: usize,
    /// `active` divided by `size`, from 0.0 to 1.0.
    pub utilization: f64,
    /// Open log and event streams, at most `max_streams`.
    pub streams: usize,
    pub max_streams: usize,
    /// Retries of all calls so far.
    pub retries: u64,
    /// All clients, sorted by ID.
    pub clients: Vec<ClientReport>,
}

/// A client of the pool at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientReport {
    /// Counts from 0. The ID of a removed client is used again.
    pub id: u32,
    /// Whether it receives calls.
    pub status: Status,
    /// Result of its last checks, from 0.0 to 1.0; 1.0 before the first.
    pub score: f64,
    pub breaker: BreakerState,
    /// Calls that it has executed or is executing.
    pub usage_count: u64,
    /// Calls that failed because of its connection or of the daemon behind it.
    pub errors: u64,
    /// Time since the client was created or its connection renewed.
    pub age: Duration,
    /// Its last checks; empty before the first.
    pub checks: Vec<Check>,
}

impl Snapshot {
    /// The status of the whole pool: degraded if only some of the clients receive calls.
    pub fn status(&self) -> Status {
        match self.healthy {
            0 => Status::Unhealthy,
            healthy if healthy < self.size => Status::Degraded,
            _ => Status::Healthy,
        }
    }
}

/// How long a call took in the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// From the request to the response, waits and retries included.
    pub took: Duration,
    /// The part of `took` spent waiting for the rate limit, for a free client, or for an unreachable daemon.
    pub waited: Duration,
    pub retries: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_degraded_if_some_clients_are_unhealthy() {
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

//! How many log and event streams may be open at once.
//!
//! In: requests for a permit. Out: a permit, which becomes free when it is dropped. Called by [`super::Docker`] for
//! every response that stays open. If the limit is above one, one permit is reserved for events: without them nobody
//! would notice that there are more logs to read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Error;

/// Hands out permits to open a stream.
pub(super) struct StreamPermits {
    /// `docker.pool.max_concurrent_streams`, at least 1.
    limit: usize,
    /// Permits for any stream.
    shared: Arc<Semaphore>,
    /// The permit that only event streams may take.
    reserved: Arc<Semaphore>,
}

/// The right to have one stream open.
pub(super) struct StreamPermit(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

impl StreamPermits {
    pub(super) fn new(limit: usize) -> StreamPermits {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let reserved = usize::from(limit > 1);
        let (shared, reserved) = (Semaphore::new(limit - reserved), Semaphore::new(reserved));
        StreamPermits { limit, shared: Arc::new(shared), reserved: Arc::new(reserved) }
    }

    /// How many permits are in use, and how many there are.
    pub(super) fn in_use(&self) -> (usize, usize) {
        (self.limit - self.shared.available_permits() - self.reserved.available_permits(), self.limit)
    }

    /// How many permits logs can take.
    pub(super) fn max_logs(&self) -> usize {
        (self.limit - 1).max(1)
    }

    /// A permit for an event stream, without waiting.
    ///
    /// A single permit becomes reserved for events the first time it is taken for them. Event streams are reopened
    /// after an interruption, and no log may take the permit meanwhile.
    pub(super) fn for_events(&self) -> Result<StreamPermit, Error> {
        let reserved = || Arc::clone(&self.reserved).try_acquire_owned();
        let shared = || Arc::clone(&self.shared).try_acquire_owned();
        let permit = match reserved().or_else(|_| shared()) {
            Ok(permit) if self.limit == 1 && Arc::ptr_eq(permit.semaphore(), &self.shared) => {
                permit.forget();
                self.reserved.add_permits(1);
                reserved()
            }
            permit => permit,
        };
        permit.map(StreamPermit).map_err(|_| self.exhausted())
    }

    /// A permit for a log that is followed, without waiting: nobody knows when another stream will end.
    pub(super) fn for_following(&self) -> Result<StreamPermit, Error> {
        Arc::clone(&self.shared).try_acquire_owned().map(StreamPermit).map_err(|_| self.exhausted())
    }

    /// A permit for a log that is read to its end. Waits in order until the deadline, since other such reads end soon.
    pub(super) async fn for_reading(&self, deadline: Instant) -> Result<StreamPermit, Error> {
        match timeout_at(deadline, Arc::clone(&self.shared).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(StreamPermit(permit)),
            Ok(Err(_)) | Err(_) => Err(self.exhausted()),
        }
    }

    fn exhausted(&self) -> Error {
        Error::TooManyStreams { limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn one_permit_is_reserved_for_events_and_errors_name_the_setting() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let permits = StreamPermits::new(3);
        let one = permits.for_following().unwrap();
        let two = permits.for_reading(soon()).await.unwrap();
        let message = "all 3 log and event streams are in use (docker.pool.max_concurrent_streams)";
        assert_eq!(permits.for_following().err().unwrap().to_string(), message);
        assert_eq!(permits.for_reading(soon()).await.err().unwrap().to_string(), message);
        assert_eq!(permits.in_use(), (2, 3));
        let events = permits.for_events().unwrap();
        assert_eq!(permits.for_events().err().unwrap().to_string(), message);
        drop(one);
        // A second event stream can take a shared permit.
        let more = permits.for_events().unwrap();
        let (permit, ()) = tokio::join!(permits.for_reading(soon()), async { drop(two) });
        assert!(permit.is_ok() && permits.in_use() == (3, 3));
        drop((events, more, permit));
        assert_eq!(permits.in_use(), (0, 3));
    }

    #[test]
    fn a_single_permit_is_shared_until_events_take_it() {
        let permits = StreamPermits::new(1);
        let permit = permits.for_following().unwrap();
        assert!(permits.for_events().is_err());
        drop(permit);
        let events = permits.for_events().unwrap();
        assert_eq!(permits.in_use(), (1, 1));
        assert!(permits.for_events().is_err() && permits.for_following().is_err());
        drop(events);
        assert_eq!(permits.in_use(), (0, 1));
        assert!(permits.for_following().is_err());
        assert!(permits.for_events().is_ok());
    }
}

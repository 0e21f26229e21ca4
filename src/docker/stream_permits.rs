//! How many logs and events are read at one time.
//!
//! In: who wants to read. Out: a place, which is free again when it is dropped. Called by [`super::super::Docker`] for
//! whatever answer is read piece by piece. One place of several is kept for events, without which nobody would notice what
//! else is to be read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Error;

/// See the module.
pub(in crate::docker) struct StreamPermits {
    limit: usize,
    shared: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// Held while an answer is read.
pub(in crate::docker) struct StreamPermit(#[expect(dead_code, reason = "held, never looked at")] OwnedSemaphorePermit);

impl StreamPermits {
    pub(in crate::docker) fn new(limit: usize) -> StreamPermits {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let kept = usize::from(limit > 1);
        StreamPermits { limit, shared: Arc::new(Semaphore::new(limit - kept)), kept: Arc::new(Semaphore::new(kept)) }
    }

    /// So many are taken, of so many.
    pub(in crate::docker) fn taken(&self) -> (usize, usize) {
        (self.limit - self.shared.available_permits() - self.kept.available_permits(), self.limit)
    }

    /// What logs alone may take.
    pub(in crate::docker) fn most_logs(&self) -> usize {
        (self.limit - 1).max(1)
    }

    /// For events, at once or not at all. Where there is but one place, it is kept for them from the first time on: they
    /// come back after a break, and no log is to have taken it meanwhile.
    pub(in crate::docker) fn for_events(&self) -> Result<StreamPermit, Error> {
        let kept = || Arc::clone(&self.kept).try_acquire_owned();
        let shared = || Arc::clone(&self.shared).try_acquire_owned();
        let permit = match kept().or_else(|_| shared()) {
            Ok(permit) if self.limit == 1 && Arc::ptr_eq(permit.semaphore(), &self.shared) => {
                permit.forget();
                self.kept.add_permits(1);
                kept()
            }
            permit => permit,
        };
        permit.map(StreamPermit).map_err(|_| self.none_left())
    }

    /// For a log that is followed: at once or not at all, since nobody knows when one of the others ends.
    pub(in crate::docker) fn for_following(&self) -> Result<StreamPermit, Error> {
        Arc::clone(&self.shared).try_acquire_owned().map(StreamPermit).map_err(|_| self.none_left())
    }

    /// For a log that is read to its end: in order, for others like it end soon.
    pub(in crate::docker) async fn for_reading(&self, end: Instant) -> Result<StreamPermit, Error> {
        match timeout_at(end, Arc::clone(&self.shared).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(StreamPermit(permit)),
            Ok(Err(_)) | Err(_) => Err(self.none_left()),
        }
    }

    fn none_left(&self) -> Error {
        Error::TooManyStreams { limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn when_no_place_is_left_the_setting_is_named_and_one_is_kept_for_events() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let places = StreamPermits::new(3);
        let one = places.for_following().unwrap();
        let two = places.for_reading(soon()).await.unwrap();
        let told = "all 3 places for logs and events are taken (docker.pool.max_concurrent_streams)";
        assert_eq!(places.for_following().err().unwrap().to_string(), told);
        assert_eq!(places.for_reading(soon()).await.err().unwrap().to_string(), told);
        assert_eq!(places.taken(), (2, 3));
        let events = places.for_events().unwrap();
        assert_eq!(places.for_events().err().unwrap().to_string(), told);
        drop(one);
        // A second stream of events takes any place.
        let more = places.for_events().unwrap();
        let (place, ()) = tokio::join!(places.for_reading(soon()), async { drop(two) });
        assert!(place.is_ok() && places.taken() == (3, 3));
        drop((events, more, place));
        assert_eq!(places.taken(), (0, 3));
    }

    #[test]
    fn a_single_place_is_anybodys_until_it_was_wanted_for_events() {
        let places = StreamPermits::new(1);
        let place = places.for_following().unwrap();
        assert!(places.for_events().is_err());
        drop(place);
        let events = places.for_events().unwrap();
        assert_eq!(places.taken(), (1, 1));
        assert!(places.for_events().is_err() && places.for_following().is_err());
        drop(events);
        assert_eq!(places.taken(), (0, 1));
        assert!(places.for_following().is_err());
        assert!(places.for_events().is_ok());
    }
}

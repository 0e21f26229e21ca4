//! How running work learns that it has to end.
//!
//! In: a request to stop from the user, a service manager or docker. Out: two moments that work can wait for. `cli`
//! handles the signals and requests the stop; the commands wait for it.

use tokio_util::sync::CancellationToken;

/// A request to stop, with two levels of urgency. Clones share the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    requested: CancellationToken,
    hurried: CancellationToken,
}

impl Stop {
    /// Asks the work to end. It may take the time that its output needs.
    pub(crate) fn request(&self) {
        self.requested.cancel();
    }

    /// Asks the work to end at once, without waiting for its output.
    pub(crate) fn hurry(&self) {
        self.requested.cancel();
        self.hurried.cancel();
    }

    /// Whether the work has to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Returns when the work has to end.
    pub(crate) async fn cancelled(&self) {
        self.requested.cancelled().await;
    }

    /// Returns when the work has to end at once.
    pub(crate) async fn hurried(&self) {
        self.hurried.cancelled().await;
    }

    /// Returns the result of `work`, or `None` if the work has to end first.
    pub(crate) async fn run_until_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.requested.run_until_cancelled(work).await
    }
}

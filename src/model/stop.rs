//! How running work learns that it has to end.
//!
//! In: the order of a user, a service manager, or docker. Out: two moments that work can wait for. Given by the command
//! line, which hears the signals; waited for by the engine.

use tokio_util::sync::CancellationToken;

/// See the module. Clones share the moments.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    ordered: CancellationToken,
    hurried: CancellationToken,
}

impl Stop {
    /// The work has to end, and may take the time that its output needs.
    pub fn order(&self) {
        self.ordered.cancel();
    }

    /// The same, and nobody wants to wait for the output.
    pub fn hurry(&self) {
        self.ordered.cancel();
        self.hurried.cancel();
    }

    /// Whether the work has to end.
    pub fn is_cancelled(&self) -> bool {
        self.ordered.is_cancelled()
    }

    /// Returns when the work has to end.
    pub async fn cancelled(&self) {
        self.ordered.cancelled().await;
    }

    /// Returns when nobody wants to wait any longer.
    pub async fn hurried(&self) {
        self.hurried.cancelled().await;
    }

    /// What the work gives, or `None` when it has to end before.
    pub async fn run_until_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.ordered.run_until_cancelled(work).await
    }
}

//! Detects that this process did not run for a while: stopped by a signal, or on a machine that slept.
//!
//! Called by [`super::subscription`]. Nobody read the connection meanwhile, so the time at which a break was noticed
//! does not show when the connection broke. Nothing wakes up for this: the kernel is asked when it matters. A process
//! that is frozen with its control group is not detected; the kernel does not report that.

use futures_util::FutureExt;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Tolerance, since the two clocks are read one after the other.
const TOLERANCE: Duration = Duration::from_millis(100);

pub(super) struct SuspendDetector {
    /// SIGCONT, which ends a stop. `None` if no handler could be installed.
    continued: Option<Signal>,
    /// How long the machine had slept since boot at the last check.
    asleep: Duration,
}

impl SuspendDetector {
    pub(super) fn new() -> Self {
        let kind = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        let continued =
            signal(kind).inspect_err(|error| tracing::warn!(%error, "cannot detect that the process was stopped")).ok();
        SuspendDetector { continued, asleep: asleep() }
    }

    /// Returns whether the process was suspended since the last call, and clears the flag.
    pub(super) fn take(&mut self) -> bool {
        let was_stopped = self.continued.as_mut().is_some_and(|signal| signal.recv().now_or_never().is_some());
        let before = std::mem::replace(&mut self.asleep, asleep());
        was_stopped || self.asleep.saturating_sub(before) > TOLERANCE
    }
}

/// Returns how long the machine has slept since boot: only `CLOCK_BOOTTIME` goes on during sleep.
fn asleep() -> Duration {
    let [with, without] = [ClockId::Boottime, ClockId::Monotonic].map(|clock| {
        let now = clock_gettime(clock);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    });
    with.saturating_sub(without)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn reports_a_continued_process_once() {
        let mut detector = SuspendDetector::new();
        assert!(!detector.take());
        kill_process(getpid(), Signal::CONT).unwrap();
        tokio::time::timeout(Duration::from_secs(10), async {
            while !detector.take() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(!detector.take(), "reported twice");
    }
}

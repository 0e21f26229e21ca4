//! Whether this process stood still: stopped by a signal, or asleep with its machine.
//!
//! Called by [`super::subscription`]. What a connection had to tell meanwhile nobody has read, and when it broke is not known
//! by when that was noticed. Nothing wakes up for this: the kernel is asked when it matters. It does not tell of processes
//! that were frozen with their control group.

use futures_util::FutureExt;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// More than what the two clocks are read apart.
const A_MOMENT: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Standstill {
    continued: Option<Signal>,
    asleep: Duration,
}

impl Standstill {
    /// Looks from now on.
    pub(super) fn new() -> Self {
        let kind = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        let continued =
            signal(kind).inspect_err(|error| tracing::warn!(%error, "cannot tell whether we are stopped")).ok();
        Standstill { continued, asleep: asleep() }
    }

    /// Whether it did since it was looked last, which is forgotten.
    pub(super) fn take(&mut self) -> bool {
        let was_stopped = self.continued.as_mut().is_some_and(|signal| signal.recv().now_or_never().is_some());
        let before = std::mem::replace(&mut self.asleep, asleep());
        was_stopped || self.asleep.saturating_sub(before) > A_MOMENT
    }
}

/// How long the machine was since it was started; the one clock goes on meanwhile, the other does not.
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
    async fn a_process_that_is_continued_has_stood_still_and_one_that_is_left_alone_has_not() {
        let mut standstill = Standstill::new();
        assert!(!standstill.take());
        kill_process(getpid(), Signal::CONT).unwrap();
        tokio::time::timeout(Duration::from_secs(10), async {
            while !standstill.take() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(!standstill.take(), "told once");
    }
}

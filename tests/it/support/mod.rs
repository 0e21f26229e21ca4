//! Shared by all tests: a private engine, the program under test, and what stands between the two.
//!
//! [`Engine`] is a private `dockerd` with containers that write numbered lines, [`Podman`] another engine, [`Script`] a
//! scripted one for what a real engine cannot be made to do. [`Watch`] is the built program: tests wait for its output and
//! count it with [`Numbers`]. [`Proxy`] breaks the connection between program and engine.

pub mod cli;
pub mod client;
mod disk;
mod engine;
mod http;
mod kept;
mod numbers;
mod podman;
pub mod process;
mod proxy;
pub mod raw_script;
mod reports;
pub mod routes;
mod script;
mod tests;
mod watch;
pub mod watchdog;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use self::disk::Disk;
pub use self::engine::{Engine, IMAGE, chatter, mounts};
pub use self::http::{get, place};
pub use self::kept::{Kept, count_lines, lines, messages};
pub use self::numbers::Numbers;
pub use self::podman::Podman;
pub use self::proxy::{Fault, Proxy};
pub use self::reports::{assert_failure, assert_pool_check, counts, report, rows};
pub use self::script::{Answer, Request, Script};
pub use self::watch::{Finished, Watch, configured, records};
pub use rustix::process::Signal;

/// How long anything in a test may take before it counts as broken, on a machine with other work to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether tests that then take minutes run at full size: `LOGWATCH_LONG=1 tests/run.sh`.
pub fn long() -> bool {
    std::env::var_os("LOGWATCH_LONG").is_some_and(|value| value == "1")
}

/// The keys of a JSON text in their order, those of nested objects included.
pub fn keys(json: &str) -> Vec<&str> {
    let parts: Vec<&str> = json.split('"').collect();
    parts.windows(2).filter(|pair| pair[1].starts_with(':')).map(|pair| pair[0]).collect()
}

/// The line of the documents in `docs/` that starts with `begin`.
#[track_caller]
pub fn documented(begin: &str) -> &'static str {
    let documents = [include_str!("../../../docs/watch.md"), include_str!("../../../docs/operations.md")];
    let line = documents.into_iter().flat_map(str::lines).find(|line| line.starts_with(begin));
    line.unwrap_or_else(|| panic!("no line of docs/watch.md and docs/operations.md starts with {begin}"))
}

/// Repeats `again` on its own thread until `work` has returned or failed.
pub fn beside<T>(mut again: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                again();
            }
        });
        // The scope waits for the thread, so a failure of `work` must end that as well before it is passed on.
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|failure| panic::resume_unwind(failure))
    })
}

/// Polls until `condition` holds, for events that nothing announces: a process, a file, another program's socket.
pub fn eventually(promise: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out after {PATIENCE:?}, waiting until {promise}");
        thread::sleep(Duration::from_millis(10));
    }
}

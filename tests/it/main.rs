//! The tests that run the built program, most of them against a real engine, in one binary: `tests/run.sh` runs them.
#![allow(unreachable_pub, reason = "one binary that nobody links")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod arrows;
mod cli;
mod config;
mod content;
mod contrib;
mod endpoint;
mod errors;
mod events;
mod faults;
mod history;
mod life;
mod limits;
mod load;
mod local;
mod outages;
mod pipes;
mod pool;
mod pool_report;
mod reconcile;
mod resume;
mod rollover;
mod routes;
mod selection;
mod serve;
mod support;
mod terminal;
mod unread;

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
mod blocked;
mod bounds;
mod cli;
mod config;
mod content;
mod contrib;
mod endpoint;
mod errors;
mod events;
mod exactly_once;
mod faults;
mod history;
mod install;
mod life;
mod limits;
mod load;
mod local;
mod outages;
mod pipes;
mod podman;
mod pool;
mod pool_report;
mod quiet;
mod reconcile;
mod remount;
mod resume;
mod returns;
mod rollover;
mod routes;
mod selection;
mod serve;
mod support;
mod terminal;
mod unread;

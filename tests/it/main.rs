//! Tests that run the built program. Those in `no_engine` need neither root nor Docker nor anything installed; all others
//! start a private Docker daemon as root. `tests/run.sh` installs what they need and runs them.
#![allow(unreachable_pub, reason = "one binary that nobody links")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod config;
mod content;
mod contrib;
mod endpoint;
mod engine_returns;
mod errors;
mod events;
mod exactly_once;
mod faults;
mod history;
mod install;
mod interrupted_reads;
mod lifecycle;
mod limits;
mod load;
mod local_driver;
mod no_engine;
mod outages;
mod output_rotation;
mod pipes;
mod plugin;
mod podman;
mod pool;
mod pool_report;
mod reconcile;
mod remount;
mod resume;
mod routes;
mod selection;
mod serve;
mod socket_proxy;
mod support;

//! Tests that need neither root, nor a Docker daemon or CLI, nor anything that `tests/run.sh` installs: the command
//! line, the source itself, and the program with a scripted engine. The nextest profile `fast` runs them.

mod api_streams;
mod cli;
mod config;
mod connection;
mod contrib;
mod dependencies;
mod errors;
mod events;
mod interrupted_reads;
mod late_events;
mod memory;
mod pool;
mod pool_report;
mod readiness;
mod reconcile;
mod serve;
mod support;
mod terminal;

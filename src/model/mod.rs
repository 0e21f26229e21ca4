//! Types and helpers that all modules share. They depend on no other module of this crate.

pub(crate) mod batch;
pub(crate) mod bounded_read;
pub(crate) mod container;
pub(crate) mod error_chain;
pub(crate) mod file_id;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
pub(crate) mod health;
pub(crate) mod inventory;
pub mod json;
pub(crate) mod line_id;
pub(crate) mod plan;
pub(crate) mod position;
pub(crate) mod queue;
pub(crate) mod report_once;
pub(crate) mod selector;
pub(crate) mod stop;
pub(crate) mod time;

//! Types and helpers that all modules share. They depend on no other module of this crate.

pub(crate) mod batch;
pub(crate) mod causes;
pub(crate) mod container;
pub(crate) mod cursor;
pub(crate) mod file_id;
pub(crate) mod health;
pub(crate) mod inventory;
pub mod json;
pub(crate) mod once;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
pub(crate) mod plan;
pub(crate) mod position;
pub(crate) mod queue;
pub(crate) mod selector;
pub(crate) mod small_file;
pub(crate) mod stop;
pub(crate) mod time;

//! Types and helpers that all modules share. They depend on no other module of this crate.

pub mod batch;
pub mod causes;
pub mod container;
pub mod cursor;
pub mod file_id;
pub mod health;
pub mod inventory;
pub mod json;
pub mod once;
#[cfg(any(test, fuzzing))]
pub mod oracle;
pub mod plan;
pub mod position;
pub mod queue;
pub mod selector;
pub mod small_file;
pub mod stop;
pub mod time;

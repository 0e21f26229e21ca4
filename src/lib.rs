//! placeholder
pub mod batch;
pub mod cli;
pub mod container;
pub mod docker;
pub mod engine;
pub mod json;
pub mod output;
pub mod queue;
pub mod selector;
pub mod tail;
pub mod time;

//! placeholder
pub mod batch;
pub mod cli;
pub mod container;
pub mod engine;
pub mod output;
pub mod selector;
pub mod time;

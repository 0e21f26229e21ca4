//! placeholder
pub mod batch;
pub mod container;
pub mod docker;
pub mod engine;
pub mod output;
pub mod selector;
pub mod time;

//! What is counted: for `-v`, and for Prometheus.
//!
//! In: what the rooms count as they work. Out: numbers. No count is kept of a single container, and no label carries an ID
//! or a name: they come and go, and the series stay bounded.

mod logs;
mod pool;

pub use logs::Logs;
pub use pool::Pool;

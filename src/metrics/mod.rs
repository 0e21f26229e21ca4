//! What is counted: for `-v`, and for Prometheus.
//!
//! In: what the rooms count as they work. Out: numbers. No count is kept of a single container, and no label carries an ID
//! or a name: they come and go, and the series stay bounded.

pub mod events;
mod logs;
mod pool;
mod reconciliation;

pub use events::EventMetrics;
pub use logs::LogMetrics;
pub use pool::PoolMetrics;
pub use reconciliation::{Culprit, Extent, Origin, ReconciliationMetrics};

use prometheus::{IntGauge, Opts, Registry};

/// Everything that is counted, and where it is served from. Rooms are handed a clone of the part that is theirs.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// All series.
    pub registry: Registry,
    /// Of the connection pool.
    pub pool: PoolMetrics,
    /// Of the engine's events.
    pub events: EventMetrics,
    /// Of the inventory.
    pub reconciliation: ReconciliationMetrics,
    /// Of logs.
    pub logs: LogMetrics,
}

impl Metrics {
    /// All of it, at zero.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = Opts::new("logwatch_build_info", "Always 1; the label tells which version runs.");
        let build = IntGauge::with_opts(build.const_label("version", env!("CARGO_PKG_VERSION")))?;
        build.set(1);
        registry.register(Box::new(build))?;
        Ok(Metrics {
            pool: PoolMetrics::new(&registry)?,
            events: EventMetrics::new(&registry)?,
            reconciliation: ReconciliationMetrics::new(&registry)?,
            logs: LogMetrics::new(&registry)?,
            registry,
        })
    }
}

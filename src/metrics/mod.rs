//! Counts what the other modules do, for Prometheus and for the summary that `-v` logs.
//!
//! No metric is kept per container, and no label contains an ID or a name: containers come and go, but the number of
//! series has to stay bounded.

pub(crate) mod events;
mod logs;
mod pool;
mod reconciliation;

pub(crate) use events::EventMetrics;
pub(crate) use logs::LogMetrics;
pub use pool::PoolMetrics;
pub(crate) use reconciliation::{ChangeSource, Extent, FailureCause, ReconciliationMetrics};

use prometheus::{IntGauge, Opts, Registry};

/// All metrics and their registry. Each module receives a clone of its own part.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub registry: Registry,
    pub pool: PoolMetrics,
    pub events: EventMetrics,
    pub reconciliation: ReconciliationMetrics,
    pub logs: LogMetrics,
}

impl Metrics {
    /// Registers all series, at zero.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = Opts::new("logwatch_build_info", "Always 1; the label is the running version.");
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

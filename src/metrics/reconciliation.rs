//! Counts the comparisons of the inventory with the daemon, and the rows that they changed.
//!
//! A change counts as caused by an event if an event triggered it, even if a listing then provided the details. It
//! counts as caused by a reconciliation if no event reported it.

use crate::model::inventory::{ChangeCounts, ChangeSummary, Resource};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// What a comparison covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Full,
    /// The containers that events mentioned, and their mounts.
    Containers,
    /// Volumes, after an event about one.
    Volumes,
}

impl Extent {
    const ALL: [Extent; 3] = [Extent::Full, Extent::Containers, Extent::Volumes];

    /// `full`, `containers` or `volumes`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Extent::Full => "full",
            Extent::Containers => "containers",
            Extent::Volumes => "volumes",
        }
    }
}

/// The cause of a failed comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureCause {
    /// The daemon or the connection to it.
    Docker,
    /// The state file cannot be read or written.
    State,
    /// Anything else, such as a thread that cannot be started.
    Other,
}

impl FailureCause {
    const ALL: [FailureCause; 3] = [FailureCause::Docker, FailureCause::State, FailureCause::Other];

    fn name(self) -> &'static str {
        match self {
            FailureCause::Docker => "docker",
            FailureCause::State => "state",
            FailureCause::Other => "other",
        }
    }
}

/// What caused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeSource {
    Event,
    Reconcile,
}

impl ChangeSource {
    fn name(self) -> &'static str {
        match self {
            ChangeSource::Event => "event",
            ChangeSource::Reconcile => "reconcile",
        }
    }
}

/// The metrics of the inventory. Clones share their counters.
#[derive(Clone, Debug)]
pub(crate) struct ReconciliationMetrics {
    runs: IntCounterVec,
    duration: HistogramVec,
    failures: IntCounterVec,
    containers: IntCounterVec,
    volumes: IntCounterVec,
    mounts: IntCounterVec,
    removed: IntCounterVec,
}

impl ReconciliationMetrics {
    /// Registers the series, at zero.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("logwatch_docker_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let by_type = ["reconciliation_type"];
        let by_operation = ["operation", "source"];
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "logwatch_docker_reconciliation_duration_seconds",
                "Time from the first request to the Docker Engine until the inventory agreed with it",
            ),
            &by_type,
        )?;
        registry.register(Box::new(duration.clone()))?;
        let metrics = ReconciliationMetrics {
            runs: counter(
                "reconciliation_runs_total",
                "Comparisons of the inventory with the Docker Engine",
                &by_type,
            )?,
            duration,
            failures: counter(
                "reconciliation_failures_total",
                "Failed comparisons, and failed changes that events reported, by cause",
                &["reconciliation_type", "error_type"],
            )?,
            containers: counter(
                "containers_synced_total",
                "Containers created or updated in the inventory",
                &by_operation,
            )?,
            volumes: counter("volumes_synced_total", "Volumes created or updated in the inventory", &by_operation)?,
            mounts: counter("mounts_synced_total", "Mounts created or updated in the inventory", &by_operation)?,
            removed: counter(
                "resources_removed_total",
                "Rows removed from the inventory",
                &["resource_type", "source"],
            )?,
        };
        // Create the series now: to Prometheus, a series that first appears with a failure has never increased.
        for extent in Extent::ALL {
            metrics.runs(extent);
            FailureCause::ALL.into_iter().for_each(|cause| drop(metrics.failures(extent, cause)));
        }
        Ok(metrics)
    }

    /// Records a completed comparison.
    pub(crate) fn ran(&self, extent: Extent, took: Duration) {
        self.runs.with_label_values(&[extent.name()]).inc();
        self.duration.with_label_values(&[extent.name()]).observe(took.as_secs_f64());
    }

    /// Records a failed comparison, or a change reported by events that could not be stored.
    pub(crate) fn failed(&self, extent: Extent, cause: FailureCause) {
        self.failures(extent, cause).inc();
    }

    fn failures(&self, extent: Extent, cause: FailureCause) -> IntCounter {
        self.failures.with_label_values(&[extent.name(), cause.name()])
    }

    /// The number of completed comparisons.
    pub(crate) fn runs(&self, extent: Extent) -> u64 {
        self.runs.with_label_values(&[extent.name()]).get()
    }

    pub(crate) fn changed(&self, changes: &ChangeSummary, source: ChangeSource) {
        for (resource, counts) in Resource::ALL.into_iter().zip(changes.0) {
            let ChangeCounts { created, updated, removed, .. } = counts;
            let synced = match resource {
                Resource::Container => Some(&self.containers),
                Resource::Volume => Some(&self.volumes),
                Resource::Mount => Some(&self.mounts),
                Resource::Position => None,
            };
            for (operation, count) in [("created", created), ("updated", updated)] {
                if let Some(synced) = synced.filter(|_| count > 0) {
                    synced.with_label_values(&[operation, source.name()]).inc_by(count);
                }
            }
            if removed > 0 {
                self.removed.with_label_values(&[resource.name(), source.name()]).inc_by(removed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

    #[test]
    fn changes_are_counted_once_under_their_source() {
        let registry = Registry::new();
        let metrics = ReconciliationMetrics::new(&registry).unwrap();
        let changes = |created, updated, removed| ChangeCounts { created, updated, removed, unchanged: 9 };
        let summary = ChangeSummary([changes(2, 1, 3), changes(1, 0, 0), changes(0, 4, 0), changes(0, 0, 5)]);
        metrics.changed(&summary, ChangeSource::Event);
        metrics.changed(&summary, ChangeSource::Event);
        metrics.changed(&ChangeSummary([changes(1, 0, 0); 4]), ChangeSource::Reconcile);
        metrics.ran(Extent::Full, Duration::from_millis(31));
        metrics.failed(Extent::Volumes, FailureCause::Docker);
        let served = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(served.matches("_failures_total{").count(), 9, "zero counts are served as well");
        assert_eq!((metrics.runs(Extent::Full), metrics.runs(Extent::Containers)), (1, 0));
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let counted: Vec<&str> =
            text.lines().filter(|line| line.contains("_total{") && !line.ends_with(" 0")).collect();
        let expected = [
            r#"logwatch_docker_containers_synced_total{operation="created",source="event"} 4"#,
            r#"logwatch_docker_containers_synced_total{operation="created",source="reconcile"} 1"#,
            r#"logwatch_docker_containers_synced_total{operation="updated",source="event"} 2"#,
            r#"logwatch_docker_mounts_synced_total{operation="created",source="reconcile"} 1"#,
            r#"logwatch_docker_mounts_synced_total{operation="updated",source="event"} 8"#,
            r#"logwatch_docker_reconciliation_failures_total{error_type="docker",reconciliation_type="volumes"} 1"#,
            r#"logwatch_docker_reconciliation_runs_total{reconciliation_type="full"} 1"#,
            r#"logwatch_docker_resources_removed_total{resource_type="container",source="event"} 6"#,
            r#"logwatch_docker_resources_removed_total{resource_type="position",source="event"} 10"#,
            r#"logwatch_docker_volumes_synced_total{operation="created",source="event"} 2"#,
            r#"logwatch_docker_volumes_synced_total{operation="created",source="reconcile"} 1"#,
        ];
        assert_eq!(counted, expected);
        assert!(
            text.contains(r#"logwatch_docker_reconciliation_duration_seconds_count{reconciliation_type="full"} 1"#)
        );
    }
}

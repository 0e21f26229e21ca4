//! How often the inventory was compared with the engine, and what changed in it.
//!
//! In: what the state changed. Out: counters. A change counts as an event's where an event set it off, also when a listing
//! then told the rest; as a reconciliation's where a reconciliation found what no event had told.

use crate::model::inventory::{ChangeCounts, ChangeSummary, Resource};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Full,
    /// Containers that events told of, and their mounts.
    Containers,
    /// Volumes, after events.
    Volumes,
}

impl Extent {
    const ALL: [Extent; 3] = [Extent::Full, Extent::Containers, Extent::Volumes];

    /// `full`, `containers` or `volumes`.
    pub fn name(self) -> &'static str {
        match self {
            Extent::Full => "full",
            Extent::Containers => "containers",
            Extent::Volumes => "volumes",
        }
    }
}

/// What makes a comparison fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The engine, or the way to it.
    Docker,
    /// The state file.
    State,
    /// We ourselves.
    Other,
}

impl Culprit {
    const ALL: [Culprit; 3] = [Culprit::Docker, Culprit::State, Culprit::Other];

    fn name(self) -> &'static str {
        match self {
            Culprit::Docker => "docker",
            Culprit::State => "state",
            Culprit::Other => "other",
        }
    }
}

/// What set off a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An event.
    Event,
    /// A reconciliation.
    Reconcile,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Origin::Event => "event",
            Origin::Reconcile => "reconcile",
        }
    }
}

/// See the module. Clones count into the same.
#[derive(Clone, Debug)]
pub struct ReconciliationMetrics {
    runs: IntCounterVec,
    duration: HistogramVec,
    failures: IntCounterVec,
    containers: IntCounterVec,
    volumes: IntCounterVec,
    mounts: IntCounterVec,
    removed: IntCounterVec,
}

impl ReconciliationMetrics {
    /// To be served from this registry.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
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
                "From the first question to the engine until the inventory was in line with it",
            ),
            &by_type,
        )?;
        registry.register(Box::new(duration.clone()))?;
        let metrics = ReconciliationMetrics {
            runs: counter("reconciliation_runs_total", "Comparisons of the inventory with the engine", &by_type)?,
            duration,
            failures: counter(
                "reconciliation_failures_total",
                "Comparisons, and changes told by events, that could not be done, by what failed them",
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
        // A series that begins with its first failure never increases, as Prometheus sees it.
        for extent in Extent::ALL {
            metrics.runs(extent);
            Culprit::ALL.into_iter().for_each(|culprit| drop(metrics.failures(extent, culprit)));
        }
        Ok(metrics)
    }

    /// A comparison is done.
    pub fn ran(&self, extent: Extent, took: Duration) {
        self.runs.with_label_values(&[extent.name()]).inc();
        self.duration.with_label_values(&[extent.name()]).observe(took.as_secs_f64());
    }

    /// A comparison could not be done, or what events told not be kept.
    pub fn failed(&self, extent: Extent, culprit: Culprit) {
        self.failures(extent, culprit).inc();
    }

    fn failures(&self, extent: Extent, culprit: Culprit) -> IntCounter {
        self.failures.with_label_values(&[extent.name(), culprit.name()])
    }

    /// How many comparisons were done.
    pub fn runs(&self, extent: Extent) -> u64 {
        self.runs.with_label_values(&[extent.name()]).get()
    }

    /// Rows were changed.
    pub fn changed(&self, tally: &ChangeSummary, origin: Origin) {
        for (resource, changes) in Resource::ALL.into_iter().zip(tally.0) {
            let ChangeCounts { created, updated, removed, .. } = changes;
            let synced = match resource {
                Resource::Container => Some(&self.containers),
                Resource::Volume => Some(&self.volumes),
                Resource::Mount => Some(&self.mounts),
                Resource::Position => None,
            };
            for (operation, count) in [("created", created), ("updated", updated)] {
                if let Some(synced) = synced.filter(|_| count > 0) {
                    synced.with_label_values(&[operation, origin.name()]).inc_by(count);
                }
            }
            if removed > 0 {
                self.removed.with_label_values(&[resource.name(), origin.name()]).inc_by(removed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

    #[test]
    fn every_change_is_counted_once_under_what_set_it_off() {
        let registry = Registry::new();
        let metrics = ReconciliationMetrics::new(&registry).unwrap();
        let changes = |created, updated, removed| ChangeCounts { created, updated, removed, unchanged: 9 };
        let tally = ChangeSummary([changes(2, 1, 3), changes(1, 0, 0), changes(0, 4, 0), changes(0, 0, 5)]);
        metrics.changed(&tally, Origin::Event);
        metrics.changed(&tally, Origin::Event);
        metrics.changed(&ChangeSummary([changes(1, 0, 0); 4]), Origin::Reconcile);
        metrics.ran(Extent::Full, Duration::from_millis(31));
        metrics.failed(Extent::Volumes, Culprit::Docker);
        let served = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(served.matches("_failures_total{").count(), 9, "those that did not happen are served as well");
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

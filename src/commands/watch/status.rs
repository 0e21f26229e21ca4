//! Metrics and health of a running `watch`, for the HTTP server.
//!
//! In: the news that `watch` processes, and its metrics. Out: the shared health that [`crate::serve`] reads. Values
//! that are expensive to compute are updated only on request, so that they cost nothing if nobody scrapes them.

use super::feed::News;
use crate::metrics::{Extent, Metrics};
use crate::model::health::{EventsHealth, Reconciliations, SharedHealth, Status};
use crate::serve::{Server, StatusSource};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Maximum number of update requests that wait.
const PENDING: usize = 8;

/// Connects the loop of `watch` with the HTTP server.
pub(super) struct StatusReporter {
    health: SharedHealth,
    server: JoinSet<()>,
    requests: Sender<oneshot::Sender<()>>,
    received: Receiver<oneshot::Sender<()>>,
}

impl StatusReporter {
    /// `has_events` says whether `watch` subscribes to events. Nothing is served yet.
    pub(super) fn new(has_events: bool) -> Self {
        let health = SharedHealth::default();
        health.update(|health| health.events.is_enabled = has_events);
        let (requests, received) = channel(PENDING);
        StatusReporter { health, server: JoinSet::new(), requests, received }
    }

    /// The shared health, for the other parts that report theirs.
    pub(super) fn health(&self) -> SharedHealth {
        self.health.clone()
    }

    /// Starts to serve, for as long as this reporter lives.
    pub(super) fn serve(&mut self, server: Server, metrics: &Metrics) {
        let registry = metrics.registry.clone();
        self.server.spawn(server.run(StatusSource {
            registry,
            health: self.health.clone(),
            updates: self.requests.clone(),
        }));
    }

    /// Waits for a request to update the metrics. Reply to it once they are up to date.
    pub(super) async fn update_requested(&mut self) -> Option<oneshot::Sender<()>> {
        self.received.recv().await
    }

    /// Copies the metrics of events and reconciliations to the shared health.
    pub(super) fn update(&self, metrics: &Metrics) {
        let runs = |extent| metrics.reconciliation.runs(extent);
        let reconciliations = Reconciliations {
            full: runs(Extent::Full),
            volumes: runs(Extent::Volumes),
            containers: runs(Extent::Containers),
        };
        let events = metrics.events.health();
        self.health.update(|health| {
            health.events = EventsHealth { is_enabled: health.events.is_enabled, reconciliations, ..events };
        });
    }

    /// Sets the health of the connection to the daemon to what the news implies.
    pub(super) fn note(&self, news: &News) {
        let docker = match news {
            News::Listing(..) => Status::Healthy,
            News::Lost(_) => Status::Unhealthy,
            News::Event(_) | News::Back(_) => return,
        };
        self.health.update(|health| health.docker = docker);
    }
}

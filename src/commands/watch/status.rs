//! Metrics and health of a running `watch`, for the HTTP server.
//!
//! In: the news that `watch` processes, and its metrics. Out: the board that [`crate::serve`] reads. Values that are
//! expensive to determine are updated only when somebody asks, so that a `watch` that nobody scrapes does not pay for them.

use super::feed::News;
use crate::metrics::{Extent, Metrics};
use crate::model::health::{EventsHealth, Reconciliations, SharedHealth, Status};
use crate::serve::{Server, StatusSource};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Requests for an update that may wait.
const PENDING: usize = 8;

/// Connects the loop of `watch` with the HTTP server.
pub(super) struct StatusReporter {
    board: SharedHealth,
    server: JoinSet<()>,
    asks: Sender<oneshot::Sender<()>>,
    counts: Receiver<oneshot::Sender<()>>,
}

impl StatusReporter {
    /// `has_events` says whether `watch` subscribes to events. Nothing is served yet.
    pub(super) fn new(has_events: bool) -> Self {
        let board = SharedHealth::default();
        board.update(|health| health.events.is_enabled = has_events);
        let (asks, counts) = channel(PENDING);
        StatusReporter { board, server: JoinSet::new(), asks, counts }
    }

    /// The board, for others that report their health there.
    pub(super) fn board(&self) -> SharedHealth {
        self.board.clone()
    }

    /// Starts to serve, for as long as this reporter lives.
    pub(super) fn serve(&mut self, server: Server, metrics: &Metrics) {
        let registry = metrics.registry.clone();
        self.server.spawn(server.run(StatusSource { registry, board: self.board.clone(), counts: self.asks.clone() }));
    }

    /// A request for an update of the metrics. Answer it once they are up to date.
    pub(super) async fn asked(&mut self) -> Option<oneshot::Sender<()>> {
        self.counts.recv().await
    }

    /// Copies the metrics of events and reconciliations to the board.
    pub(super) fn count(&self, metrics: &Metrics) {
        let runs = |extent| metrics.reconciliation.runs(extent);
        let reconciliations = Reconciliations {
            full: runs(Extent::Full),
            volumes: runs(Extent::Volumes),
            containers: runs(Extent::Containers),
        };
        let events = metrics.events.health();
        self.board.update(|health| {
            health.events = EventsHealth { is_enabled: health.events.is_enabled, reconciliations, ..events };
        });
    }

    /// Sets the daemon's health to what the news imply.
    pub(super) fn note(&self, news: &News) {
        let docker = match news {
            News::Listing(..) => Status::Healthy,
            News::Lost(_) => Status::Unhealthy,
            News::Event(_) | News::Back(_) => return,
        };
        self.board.update(|health| health.docker = docker);
    }
}

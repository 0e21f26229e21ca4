//! What `watch` tells whoever asks over HTTP how it is doing.
//!
//! In: the news that `watch` hears, and what is counted. Out: the board that [`crate::serve`] reads. What costs something
//! to know is looked up when somebody asks, so that a watch nobody scrapes does not pay for it.

use super::feed::News;
use crate::metrics::{Extent, Metrics};
use crate::model::health::{EventsHealth, Reconciliations, SharedHealth, Status};
use crate::serve::{Server, StatusSource};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Questions of what is counted that may wait.
const ASKED: usize = 8;

/// See the module.
pub(super) struct StatusReporter {
    board: SharedHealth,
    server: JoinSet<()>,
    asks: Sender<oneshot::Sender<()>>,
    counts: Receiver<oneshot::Sender<()>>,
}

impl StatusReporter {
    /// Nobody is answered yet; whether events are listened to.
    pub(super) fn new(has_events: bool) -> Self {
        let board = SharedHealth::default();
        board.update(|health| health.events.is_enabled = has_events);
        let (asks, counts) = channel(ASKED);
        StatusReporter { board, server: JoinSet::new(), asks, counts }
    }

    /// Where others tell how they are doing.
    pub(super) fn board(&self) -> SharedHealth {
        self.board.clone()
    }

    /// Answers as long as the watch lasts.
    pub(super) fn serve(&mut self, server: Server, metrics: &Metrics) {
        let registry = metrics.registry.clone();
        self.server.spawn(server.run(StatusSource { registry, board: self.board.clone(), counts: self.asks.clone() }));
    }

    /// Somebody wants to know what is counted only then.
    pub(super) async fn asked(&mut self) -> Option<oneshot::Sender<()>> {
        self.counts.recv().await
    }

    /// Brings up to date what the metrics of events and reconciliations know.
    pub(super) fn count(&self, metrics: &Metrics) {
        let runs = |extent| metrics.reconciliation.runs(extent);
        let reconciliations = Reconciliations {
            full: runs(Extent::Full),
            volumes: runs(Extent::Volumes),
            containers: runs(Extent::Containers),
        };
        let told = metrics.events.health();
        self.board.update(|health| {
            health.events = EventsHealth { is_enabled: health.events.is_enabled, reconciliations, ..told };
        });
    }

    /// The engine is as well as this says.
    pub(super) fn note(&self, news: &News) {
        let docker = match news {
            News::Listing(..) => Status::Healthy,
            News::Lost(_) => Status::Unhealthy,
            News::Event(_) | News::Back(_) => return,
        };
        self.board.update(|health| health.docker = docker);
    }
}

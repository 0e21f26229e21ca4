//! Lookups: requests to the daemon about single containers, made in the background.
//!
//! In: a [`Lookup`]. Out: an [`Answer`] to each, when it arrives. A lookup that fails does not end `watch`: the
//! next listing makes up for it.

use super::discovery::Run;
use crate::docker::{Details, Docker};
use crate::model::container::Container;
use crate::model::selector::Filters;
use tokio::task::JoinSet;

/// What to look up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Whether a container passes these filters, which only the daemon can evaluate. With `needs_details`, the
    /// container itself as well, because the selector needs all of its labels.
    Passing { id: String, filters: Filters, needs_details: bool },
    /// The newest runs of these containers.
    Runs(Vec<String>),
    /// The current state of a container, with its labels and networks.
    Details(String),
    /// The exit code of a container's newest run.
    ExitCode(String),
}

#[derive(Debug)]
pub(super) enum Answer {
    /// Whether the container passes the filters.
    Passing(String, bool),
    /// The container passes them, and this is what it is, with the labels that its event could not show.
    PassingDetails(Box<Container>),
    Details(Box<Container>),
    /// The details could not be looked up.
    NoDetails(String),
    /// The exit code, if it is still known.
    Code(String, Option<i64>),
    /// The newest run of each container that was ever started.
    Runs(Vec<(String, Run)>),
    /// The task of the lookup was cancelled, or it panicked.
    Nothing,
}

/// The lookups that are not answered yet.
pub(super) struct Lookups {
    docker: Docker,
    pending: JoinSet<Answer>,
}

impl Lookups {
    pub(super) fn new(docker: Docker) -> Self {
        Lookups { docker, pending: JoinSet::new() }
    }

    /// The next answer; `None` if no lookup is pending.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        Some(self.pending.join_next().await?.unwrap_or(Answer::Nothing))
    }

    pub(super) fn start(&mut self, lookup: Lookup) {
        let docker = self.docker.clone();
        match lookup {
            Lookup::Passing { id, filters, needs_details } => {
                self.pending.spawn(passing(docker, id, filters, needs_details));
            }
            Lookup::Runs(ids) => drop(self.pending.spawn(runs(docker, ids))),
            Lookup::Details(id) => drop(self.pending.spawn(details(docker, id))),
            Lookup::ExitCode(id) => drop(self.pending.spawn(exit_code(docker, id))),
        }
    }
}

async fn passing(docker: Docker, id: String, mut filters: Filters, needs_details: bool) -> Answer {
    filters.insert("id".into(), vec![id.clone()]);
    if filters.contains_key("exited") {
        // A listing shows a death only after the daemon has cleaned up, and an inspection waits for that.
        let inspected = docker.inspect(&id).await;
        tracing::debug!(id, is_there = inspected.is_ok(), "inspected, because a filter needs the exit code");
    }
    let find = async |filters: &Filters| docker.list(filters).await.map(|found| found.into_iter().next());
    let passes = match find(&filters).await {
        Ok(Some(container)) if needs_details => return Answer::PassingDetails(Box::new(container)),
        Ok(Some(_)) => Ok(true),
        // A container that is gone passes no filter, but it may have passed while it was there.
        Ok(None) => find(&only(&id)).await.map(|found| found.is_none()),
        Err(error) => Err(error),
    };
    match passes {
        Ok(passes) => Answer::Passing(id, passes),
        Err(error) => {
            tracing::warn!(%error, id, "cannot find out whether a container matches: following it");
            Answer::Passing(id, true)
        }
    }
}

/// Inspects one container after the other, since there may be many. Unlike a listing, an inspection waits until the
/// daemon has cleaned up after a death.
async fn runs(docker: Docker, ids: Vec<String>) -> Answer {
    let mut runs = Vec::new();
    for id in ids {
        match docker.inspect(&id).await {
            Ok(details) => runs.extend(run(&details).map(|run| (id, run))),
            // Once the daemon is back, another listing leads to the same lookups.
            Err(error) if error.is_temporary() => break,
            Err(error) => tracing::debug!(%error, id, "cannot be inspected"),
        }
    }
    Answer::Runs(runs)
}

async fn details(docker: Docker, id: String) -> Answer {
    let found = docker.list(&only(&id)).await.ok().and_then(|found| found.into_iter().next());
    found.map_or(Answer::NoDetails(id), |container| Answer::Details(Box::new(container)))
}

async fn exit_code(docker: Docker, id: String) -> Answer {
    let details = docker.inspect(&id).await;
    let code = details.ok().and_then(|details| details.container.exit_code);
    Answer::Code(id, code)
}

fn only(id: &str) -> Filters {
    Filters::from([("id".to_owned(), vec![id.to_owned()])])
}

fn run(details: &Details) -> Option<Run> {
    let Details { container, started_at, finished_at, .. } = details;
    Some(Run { is_up: container.is_up(), started: (*started_at)?, finished: *finished_at, code: container.exit_code })
}

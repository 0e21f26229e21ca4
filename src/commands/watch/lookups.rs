//! Questions to the daemon about single containers, asked in the background.
//!
//! In: a [`Question`]. Out: an [`Answer`] to each, as soon as it is there. A question that fails does not end `watch`: the
//! next listing makes up for it.

use super::discovery::Run;
use crate::docker::{Details, Docker};
use crate::model::container::Container;
use crate::model::selector::Filters;
use tokio::task::JoinSet;

/// What can be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether a container passes these filters, which only the daemon can evaluate. With `must_see` also what it is,
    /// because the selector needs all of its labels.
    Passing { id: String, filters: Filters, must_see: bool },
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
    /// It passes them, and this is its state, with the labels that its event could not show.
    Seen(Box<Container>),
    Details(Box<Container>),
    /// The details could not be looked up.
    NoDetails(String),
    /// The exit code, if it is still known.
    Code(String, Option<i64>),
    /// Of those containers that were started at all.
    Runs(Vec<(String, Run)>),
    /// A question was cancelled.
    Nothing,
}

/// The questions that are not answered yet.
pub(super) struct Lookups {
    docker: Docker,
    pending: JoinSet<Answer>,
}

impl Lookups {
    pub(super) fn new(docker: Docker) -> Self {
        Lookups { docker, pending: JoinSet::new() }
    }

    /// The next answer; `None` if no question is pending.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        Some(self.pending.join_next().await?.unwrap_or(Answer::Nothing))
    }

    pub(super) fn ask(&mut self, question: Question) {
        let docker = self.docker.clone();
        match question {
            Question::Passing { id, filters, must_see } => {
                self.pending.spawn(passing(docker, id, filters, must_see));
            }
            Question::Runs(ids) => drop(self.pending.spawn(runs(docker, ids))),
            Question::Details(id) => drop(self.pending.spawn(details(docker, id))),
            Question::ExitCode(id) => drop(self.pending.spawn(exit_code(docker, id))),
        }
    }
}

async fn passing(docker: Docker, id: String, mut filters: Filters, must_see: bool) -> Answer {
    filters.insert("id".into(), vec![id.clone()]);
    if filters.contains_key("exited") {
        // A listing shows a death only after the daemon has cleaned up, and an inspection waits for that.
        let inspected = docker.inspect(&id).await;
        tracing::debug!(id, is_there = inspected.is_ok(), "asked how it ended");
    }
    let find = async |filters: &Filters| docker.list(filters).await.map(|found| found.into_iter().next());
    let passes = match find(&filters).await {
        Ok(Some(container)) if must_see => return Answer::Seen(Box::new(container)),
        Ok(Some(_)) => Ok(true),
        // A container that is gone passes no filter, but it may have passed while it was there.
        Ok(None) => find(&only(&id)).await.map(|found| found.is_none()),
        Err(error) => Err(error),
    };
    match passes {
        Ok(passes) => Answer::Passing(id, passes),
        Err(error) => {
            tracing::warn!(%error, id, "cannot tell whether it matches; it is followed");
            Answer::Passing(id, true)
        }
    }
}

/// Asks one after the other, since there may be many. An inspection waits until the daemon has cleaned up after a death,
/// which a listing does not.
async fn runs(docker: Docker, ids: Vec<String>) -> Answer {
    let mut runs = Vec::new();
    for id in ids {
        match docker.inspect(&id).await {
            Ok(details) => runs.extend(run(&details).map(|run| (id, run))),
            // When the daemon is back there is another listing, which raises the same doubts.
            Err(error) if error.is_passing() => break,
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

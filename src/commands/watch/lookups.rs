//! What `watch` asks the engine about single containers, while it goes on with everything else.
//!
//! In: IDs. Out: answers, each when it is there. Nothing that fails here ends a watch: what could not be asked the next
//! listing tells.

use super::discovery::Run;
use crate::docker::{Details, Docker};
use crate::model::container::Container;
use crate::model::selector::Filters;
use std::collections::HashMap;
use tokio::task::JoinSet;

/// What the engine said of one container.
pub(super) enum Answer {
    /// Whether it passes the filters.
    Passing(String, bool),
    /// It passes them, and this is what it is, labels included that its event could not show.
    Seen(Box<Container>),
    /// What it is now, networks included.
    Details(Box<Container>),
    /// What it is now could not be asked.
    NoDetails(String),
    /// The code that its newest run ended with, if that is still known.
    Code(String, Option<i64>),
    /// The newest runs of those that were started at all.
    Runs(Vec<(String, Run)>),
    /// It could not be asked.
    Nothing,
}

/// Those that are on their way.
pub(super) struct Lookups {
    docker: Docker,
    asked: JoinSet<Answer>,
    /// Of whom it is asked whether they pass, and whether they have changed since.
    doubted: HashMap<String, bool>,
}

impl Lookups {
    /// Nothing is asked yet.
    pub(super) fn new(docker: Docker) -> Self {
        Lookups { docker, asked: JoinSet::new(), doubted: HashMap::new() }
    }

    /// The next answer; `None` when none is waited for.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        // One that was ended early was asked for nothing.
        Some(self.asked.join_next().await?.unwrap_or(Answer::Nothing))
    }

    /// Whether it passes the filters that only the engine can evaluate, with all others; and what it is, where that has to
    /// be seen to decide on it.
    pub(super) fn is_passing(&mut self, id: &str, mut filters: Filters, must_see: bool) {
        self.doubted.insert(id.to_owned(), false);
        let (docker, id) = (self.docker.clone(), id.to_owned());
        filters.insert("id".into(), vec![id.clone()]);
        self.asked.spawn(async move {
            if filters.contains_key("exited") {
                // A listing tells of a death only when the engine has cleared up behind it, which an inspection waits for.
                let inspected = docker.inspect(&id).await;
                tracing::debug!(id, is_there = inspected.is_ok(), "asked how it ended");
            }
            let one = Filters::from([("id".to_owned(), vec![id.clone()])]);
            let find = async |filters| docker.list(true, filters).await.map(|found| found.into_iter().next());
            let passes = match find(&filters).await {
                Ok(Some(container)) if must_see => return Answer::Seen(Box::new(container)),
                Ok(Some(_)) => Ok(true),
                // One that is gone passes no filter, and yet it may have before.
                Ok(None) => find(&one).await.map(|found| found.is_none()),
                Err(error) => Err(error),
            };
            match passes {
                Ok(passes) => Answer::Passing(id, passes),
                Err(error) => {
                    tracing::warn!(%error, id, "cannot tell whether it matches; it is followed");
                    Answer::Passing(id, true)
                }
            }
        });
    }

    /// This container has changed: an answer that is on its way may be older than that.
    pub(super) fn doubt(&mut self, id: &str) {
        if let Some(is_doubted) = self.doubted.get_mut(id) {
            *is_doubted = true;
        }
    }

    /// Whether that happened to the answer that has come for this container.
    pub(super) fn was_doubted(&mut self, id: &str) -> bool {
        self.doubted.remove(id).unwrap_or(false)
    }

    /// One after the other, as there may be many. An inspection waits until the engine has cleared up behind a death, which
    /// no listing does.
    pub(super) fn runs(&mut self, ids: Vec<String>) {
        let docker = self.docker.clone();
        self.asked.spawn(async move {
            let mut runs = Vec::new();
            for id in ids {
                match docker.inspect(&id).await {
                    Ok(details) => runs.extend(run(&details).map(|run| (id, run))),
                    // When the engine is back a listing comes, and doubts anew.
                    Err(error) if error.is_passing() => break,
                    Err(error) => tracing::debug!(%error, id, "cannot be inspected"),
                }
            }
            Answer::Runs(runs)
        });
    }

    /// What it is now.
    pub(super) fn details(&mut self, id: &str) {
        let (docker, id) = (self.docker.clone(), id.to_owned());
        let filters = Filters::from([("id".to_owned(), vec![id.clone()])]);
        self.asked.spawn(async move {
            let found = docker.list(true, &filters).await.ok().and_then(|found| found.into_iter().next());
            found.map_or(Answer::NoDetails(id), |container| Answer::Details(Box::new(container)))
        });
    }

    /// What its newest run ended with.
    pub(super) fn code(&mut self, id: &str) {
        let (docker, id) = (self.docker.clone(), id.to_owned());
        self.asked.spawn(async move {
            let details = docker.inspect(&id).await;
            let code = details.ok().and_then(|details| details.container.exit_code);
            Answer::Code(id, code)
        });
    }
}

fn run(details: &Details) -> Option<Run> {
    let Details { container, started_at, finished_at, .. } = details;
    Some(Run { is_up: container.is_up(), started: (*started_at)?, finished: *finished_at, code: container.exit_code })
}

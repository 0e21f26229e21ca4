//! Decides which containers are followed: compares what the feed and the lookups report with the user's selection.

use super::reading::Addition;
use super::{Now, Supervisor};
use crate::commands::watch::discovery::Change;
use crate::commands::watch::feed::News;
use crate::commands::watch::lookups::{Answer, Lookup};
use crate::model::batch::Lifecycle;
use crate::model::container::Container;
use crate::model::time::Timestamp;
use crate::tail::{Command, Start};
use std::collections::HashSet;
use std::sync::Arc;

impl Supervisor {
    pub(super) fn news(&mut self, news: News, now: Now) {
        match news {
            News::Listing(containers, at, passing) => self.listing(containers, at, passing, now),
            News::Event(event) => {
                self.metadata.forget(&event.id);
                // A claimed container was removed, and its log is being read to the end.
                if !self.claimed.contains(&event.id) {
                    let changes = self.discovery.event(&event, now.instant);
                    self.apply(changes, Some(event.time), now);
                }
            }
            News::Lost(error) => {
                if self.reported_loss.is_first() {
                    self.notice(format!("{error}: trying again; log files are followed meanwhile"));
                }
            }
            News::Back(continuity) => self.notice(format!("{continuity}; listing the containers again")),
        }
    }

    fn listing(&mut self, containers: Vec<Container>, at: Timestamp, passing: Option<Vec<String>>, now: Now) {
        self.passing = passing.map(HashSet::from_iter);
        if !self.has_listed {
            self.report_selection(&containers);
        }
        if self.reported_loss.reset() {
            self.notice("the engine is back");
        }
        if self.settings.metadata {
            containers.iter().for_each(|container| self.metadata.insert(Arc::new(container.clone()), now.instant));
        }
        let changes = self.discovery.listing(containers, now.instant, at);
        self.apply(changes, None, now);
        self.has_listed = true;
    }

    /// Reports names that no container has, and a selection without running containers.
    fn report_selection(&mut self, containers: &[Container]) {
        let unmatched: Vec<String> =
            self.selector.unmatched(containers.iter()).into_iter().map(str::to_owned).collect();
        for name in &unmatched {
            let advice = "waiting for it to be started (`docker ps -a` lists all containers)";
            self.notice(format!("no container is called {name}: {advice}"));
        }
        let is_read = |container: &Container| {
            self.wants_history(container) && self.is_passing(&container.id) && self.selector.matches(container)
        };
        // Otherwise an empty screen could mean silent containers or a typing error.
        if unmatched.is_empty() && !containers.iter().any(is_read) {
            self.notice(match self.settings.follow {
                true => "no running container matches: waiting for one to start",
                false => "no container matches",
            });
        }
    }

    fn is_passing(&self, id: &str) -> bool {
        self.passing.as_ref().is_none_or(|passing| passing.contains(id))
    }

    /// Whether to read what a container wrote before this run.
    fn wants_history(&self, container: &Container) -> bool {
        // With `--resume`, a container that has no position was created since the last run, and may have ended since.
        let is_new = self.positions.as_ref().is_some_and(|positions| !positions.is_first);
        let wants_stopped =
            || self.settings.all || self.selector.includes_stopped() || self.selector.names_container(container);
        container.is_up() || is_new || wants_stopped()
    }

    /// Applies changes in order. `cause` is the daemon's time of the event that led to them; `None` for a listing.
    fn apply(&mut self, changes: Vec<Change>, cause: Option<Timestamp>, now: Now) {
        let mut uncertain = Vec::new();
        for change in changes {
            // Later changes wait for the end, whose exit code is being looked up.
            if let Some((_, waiting)) = self.ending.get_mut(change.id()) {
                waiting.push(change);
                continue;
            }
            match change {
                Change::MayHaveRun(id) => uncertain.push(id),
                change => self.change(change, cause, now),
            }
        }
        uncertain.retain(|id| self.is_followed(id));
        if !uncertain.is_empty() {
            self.look_up(Lookup::Runs(uncertain));
        }
    }

    fn change(&mut self, change: Change, cause: Option<Timestamp>, now: Now) {
        match change {
            Change::Found(container) => self.found(&container, cause, now),
            Change::Updated(container) => self.container_updated(&container, cause, now),
            Change::Up(id) => self.started(&id, cause, now),
            Change::Down(id, code, event) => self.down(&id, code, event),
            Change::DownUnknownCode(id, event) => {
                if self.is_followed(&id) {
                    self.look_up(Lookup::ExitCode(id.clone()));
                    self.ending.insert(id, (event, Vec::new()));
                }
            }
            Change::Gone(id) => {
                self.metadata.forget(&id);
                self.released.remove(&id);
                self.gone(&id);
            }
            Change::Event(id, event) => self.lifecycle_event(&id, event, cause, now),
            Change::MayHaveRun(_) => {}
        }
    }

    /// Processes the exit code of a container, then the changes that waited for it.
    fn ended(&mut self, id: String, code: Option<i64>, now: Now) {
        let Some((mut event, waiting)) = self.ending.remove(&id) else { return };
        if let Some(code) = code {
            event.attributes.insert("exitCode".into(), code.to_string());
        }
        self.discovery.set_exit_code(&id, code);
        self.apply([Change::Down(id, code, Some(event))].into_iter().chain(waiting).collect(), None, now);
    }

    /// Processes a removed container that no event or listing reported and whose log the reader holds open.
    pub(super) fn claim(&mut self, container: Container, now: Now) {
        let is_known = self.is_followed(&container.id) || self.discovery.container(&container.id).is_some();
        if is_known || !self.selector.matches(&container) {
            return self.command(Command::Ignore(container.id));
        }
        if self.passing.is_some() {
            tracing::warn!(name = container.name, "cannot find out whether a removed container matches: reading it");
        }
        self.claimed.insert(container.id.clone());
        self.read_open_log(&Arc::new(container), now);
    }

    /// An argument may have matched a container by the start of its ID. Once another container has the argument as its
    /// name, it selects that one, and the first is no longer followed.
    fn resolve_name(&mut self, container: &Container, now: Now) {
        let Some(id) = self.selector.update_names(container) else { return };
        let other = self.discovery.container(&id).map(Arc::clone);
        if other.is_none_or(|other| !self.selector.matches(&other)) {
            let reason = format!("is no longer followed: another container is now called {}", container.name);
            self.stop_following(&id, reason);
            self.released.insert(id, now.time);
        }
    }

    fn found(&mut self, container: &Arc<Container>, cause: Option<Timestamp>, now: Now) {
        self.resolve_name(container, now);
        if !self.selector.may_match(container) {
            return self.command(Command::Ignore(container.id.clone()));
        }
        if self.has_listed {
            // It may be found late, after its log was rotated.
            return self.add_new(container, Start::All, true, cause, now);
        }
        if !self.is_passing(&container.id) {
            return;
        }
        let position = self.positions.as_mut().and_then(|positions| positions.take(&container.id));
        let start = match (self.wants_history(container) || position.is_some(), self.settings.follow) {
            (true, _) => self.settings.history,
            (false, true) => Start::Last(0),
            (false, false) => return,
        };
        let is_history = !container.is_up();
        self.add(&Addition { container, start, position, is_held: false, is_history, cause }, now);
    }

    /// Adds a container that did not exist, or was not selected, when this run began. The reader opens its file before
    /// a lookup decides whether it is selected, because the container may be gone by the time of the answer. If it was
    /// just found, events report its end; otherwise nothing does.
    fn add_new(
        &mut self,
        container: &Arc<Container>,
        start: Start,
        is_just_found: bool,
        cause: Option<Timestamp>,
        now: Now,
    ) {
        let needs_details = !self.selector.matches(container);
        let needs_lookup = self.passing.is_some() || needs_details;
        // The event did not show all labels. The lookup that does has to wait until the container has started, because
        // only then does it have networks.
        let lacks_labels = is_just_found && self.settings.metadata && !container.hidden.is_empty();
        let needs_labels = !needs_lookup && lacks_labels;
        // It may be new to this run but known to an earlier one.
        let position = self.positions.as_mut().and_then(|positions| positions.take(&container.id));
        let start = if position.is_some() { Start::All } else { start };
        let is_held = needs_lookup || needs_labels;
        let is_history = !is_just_found && !container.is_up();
        self.add(&Addition { container, start, position, is_held, is_history, cause }, now);
        if needs_lookup {
            self.look_up_filters(&container.id, needs_details || lacks_labels);
        } else if needs_labels {
            self.hold_until_details(&container.id);
        }
    }

    fn look_up_filters(&mut self, id: &str, needs_details: bool) {
        self.filter_lookups.insert(id.to_owned(), false);
        let filters = self.selector.daemon_filters();
        self.look_up(Lookup::Passing { id: id.to_owned(), filters, needs_details });
    }

    /// Notes that the container has changed: a pending answer may be older than the change.
    fn mark_changed(&mut self, id: &str) {
        if let Some(has_changed) = self.filter_lookups.get_mut(id) {
            *has_changed = true;
        }
    }

    fn container_updated(&mut self, container: &Arc<Container>, cause: Option<Timestamp>, now: Now) {
        self.resolve_name(container, now);
        if self.is_followed(&container.id) {
            self.mark_changed(&container.id);
            self.update_container(container);
        } else if self.selector.may_match(container) {
            let since = self.released.remove(&container.id).unwrap_or(self.began);
            self.add_new(container, Start::Since(since), false, cause, now);
        }
    }

    fn started(&mut self, id: &str, cause: Option<Timestamp>, now: Now) {
        self.up(id, cause);
        if !(self.settings.metadata && self.is_followed(id) && self.has_listed) {
            return;
        }
        match self.metadata.find(id, now.instant) {
            Some(container) => {
                self.update_container(&container);
                self.details_known(id);
            }
            None => self.look_up(Lookup::Details(id.to_owned())),
        }
    }

    fn lifecycle_event(&mut self, id: &str, event: Lifecycle, cause: Option<Timestamp>, now: Now) {
        let is_health = event.action.starts_with("health_status");
        // Filters that only the daemon can evaluate, such as `health`, may pass now.
        let may_pass = self.passing.is_some() && !self.is_followed(id) && is_health;
        if may_pass
            && let Some(container) = self.discovery.container(id).map(Arc::clone)
            && self.selector.may_match(&container)
        {
            self.add_new(&container, Start::Since(self.began), false, cause, now);
        }
        if is_health {
            self.mark_changed(id);
        }
        self.record(id, event);
    }

    pub(super) fn answer(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Passing(id, is_passing) => match self.filter_lookups.remove(&id).unwrap_or(false) && !is_passing {
                true => self.look_up_filters(&id, true),
                false => self.admit(&id, is_passing),
            },
            Answer::PassingDetails(container) => {
                let container = self.discovery.add_details(&container);
                let is_selected = self.selector.matches(&container);
                if is_selected {
                    self.update_container(&container);
                }
                self.admit(&container.id, is_selected);
            }
            Answer::NoDetails(id) => self.details_known(&id),
            Answer::Code(id, code) => self.ended(id, code, now),
            Answer::Details(container) => {
                let container = Arc::new(*container);
                self.discovery.add_details(&container);
                self.update_container(&container);
                self.details_known(&container.id);
                // Otherwise nothing would remove the entry of a container that was removed meanwhile.
                if self.is_followed(&container.id) {
                    self.metadata.insert(container, now.instant);
                }
            }
            Answer::Runs(runs) => {
                for (id, run) in runs {
                    let changes = self.discovery.inspected(&id, &run);
                    self.apply(changes, None, now);
                }
            }
            Answer::Nothing => {}
        }
    }
}

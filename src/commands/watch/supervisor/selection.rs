//! Which containers are wanted: what the feed and the lookups report, compared with what the user asked for.

use super::reading::Addition;
use super::{Now, Supervisor};
use crate::commands::watch::discovery::Change;
use crate::commands::watch::feed::News;
use crate::commands::watch::lookups::{Answer, Question};
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
                // All there was of a claimed container has been read.
                if !self.claimed.contains(&event.id) {
                    let changes = self.discovery.event(&event, now.instant);
                    self.apply(changes, Some(event.time), now);
                }
            }
            News::Lost(error) => {
                if self.reported_loss.is_first() {
                    self.notice(format!("{error}: trying again, log files are followed meanwhile"));
                }
            }
            News::Back(continuity) => self.notice(format!("{continuity}; the containers are listed anew")),
        }
    }

    fn listing(&mut self, containers: Vec<Container>, at: Timestamp, passing: Option<Vec<String>>, now: Now) {
        self.passing = passing.map(HashSet::from_iter);
        if !self.has_listed {
            self.greet(&containers);
        }
        if self.reported_loss.reset() {
            self.notice("the engine is back");
        }
        if self.settings.metadata {
            containers.iter().for_each(|container| self.metadata.learn(Arc::new(container.clone()), now.instant));
        }
        let changes = self.discovery.listing(containers, now.instant, at);
        self.apply(changes, None, now);
        self.has_listed = true;
    }

    /// What a user should know before the first line.
    fn greet(&mut self, containers: &[Container]) {
        let unmatched: Vec<String> =
            self.selector.unmatched(containers.iter()).into_iter().map(str::to_owned).collect();
        for name in &unmatched {
            let advice = "waiting for it to be started (`docker ps -a` lists what there is)";
            self.notice(format!("no container is called {name}: {advice}"));
        }
        let is_read = |container: &Container| {
            self.wants_history(container) && self.is_passing(&container.id) && self.selector.matches(container)
        };
        // Without a word, an empty screen could mean quiet containers or a typing error.
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

    /// Applies changes in order. `cause` is the daemon's time of the event that they follow from, if it was one.
    fn apply(&mut self, changes: Vec<Change>, cause: Option<Timestamp>, now: Now) {
        let mut doubted = Vec::new();
        for change in changes {
            // The end comes first, and its exit code is being looked up.
            if let Some((_, waiting)) = self.ending.get_mut(change.id()) {
                waiting.push(change);
                continue;
            }
            match change {
                Change::Doubted(id) => doubted.push(id),
                change => self.change(change, cause, now),
            }
        }
        doubted.retain(|id| self.is_followed(id));
        if !doubted.is_empty() {
            self.ask(Question::Runs(doubted));
        }
    }

    fn change(&mut self, change: Change, cause: Option<Timestamp>, now: Now) {
        match change {
            Change::Found(container) => self.found(&container, cause, now),
            Change::Altered(container) => self.altered(&container, cause, now),
            Change::Up(id) => self.started(&id, cause, now),
            Change::Down(id, code, event) => self.down(&id, code, event),
            Change::DownSomehow(id, event) => {
                if self.is_followed(&id) {
                    self.ask(Question::ExitCode(id.clone()));
                    self.ending.insert(id, (event, Vec::new()));
                }
            }
            Change::Gone(id) => {
                self.metadata.forget(&id);
                self.released.remove(&id);
                self.gone(&id);
            }
            Change::Happened(id, event) => self.happened(&id, event, cause, now),
            Change::Doubted(_) => {}
        }
    }

    /// The exit code of a container is known. What happened to it meanwhile comes behind its end.
    fn ended(&mut self, id: String, code: Option<i64>, now: Now) {
        let Some((mut event, waiting)) = self.ending.remove(&id) else { return };
        if let Some(code) = code {
            event.attributes.insert("exitCode".into(), code.to_string());
        }
        self.discovery.ended(&id, code);
        self.apply([Change::Down(id, code, Some(event))].into_iter().chain(waiting).collect(), None, now);
    }

    /// A container that no event and no listing has reported is gone, and the reader holds its log open.
    pub(super) fn claim(&mut self, container: Container, now: Now) {
        let is_known = self.is_followed(&container.id) || self.discovery.container(&container.id).is_some();
        if is_known || !self.selector.matches(&container) {
            return self.command(Command::Ignore(container.id));
        }
        if self.passing.is_some() {
            tracing::warn!(name = container.name, "cannot tell whether it matches; it is followed");
        }
        self.claimed.insert(container.id.clone());
        self.read_open_log(&Arc::new(container), now);
    }

    /// A word on the command line may have stood for a container whose ID it begins. Once it is the name of another
    /// container, it stands for that, and the first one is let go.
    fn settle(&mut self, container: &Container, now: Now) {
        let Some(id) = self.selector.learn(container) else { return };
        let other = self.discovery.container(&id).map(Arc::clone);
        if other.is_none_or(|other| !self.selector.matches(&other)) {
            let reason = format!("is no longer followed: {} is the name of another container now", container.name);
            self.let_go(&id, reason);
            self.released.insert(id, now.time);
        }
    }

    fn found(&mut self, container: &Arc<Container>, cause: Option<Timestamp>, now: Now) {
        self.settle(container, now);
        if !self.selector.may_match(container) {
            return self.command(Command::Ignore(container.id.clone()));
        }
        if self.has_listed {
            // It may be found late, and its log may have been rotated since.
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

    /// Adds a container that did not exist, or was not wanted, when this run began. The reader opens its file before the
    /// daemon is asked whether it is wanted, because the container may be gone by the time of the answer. If it was just
    /// found, events report its end; otherwise nothing does.
    fn add_new(
        &mut self,
        container: &Arc<Container>,
        start: Start,
        is_just_found: bool,
        cause: Option<Timestamp>,
        now: Now,
    ) {
        let must_see = !self.selector.matches(container);
        let must_ask = self.passing.is_some() || must_see;
        // The event did not show all labels. The lookup that shows them has to wait until the container has networks,
        // which is when it has started.
        let lacks_labels = is_just_found && self.settings.metadata && !container.hidden.is_empty();
        let must_wait = !must_ask && lacks_labels;
        // It may be new to this run only.
        let position = self.positions.as_mut().and_then(|positions| positions.take(&container.id));
        let start = if position.is_some() { Start::All } else { start };
        let is_held = must_ask || must_wait;
        let is_history = !is_just_found && !container.is_up();
        self.add(&Addition { container, start, position, is_held, is_history, cause }, now);
        if must_ask {
            self.ask_whether_wanted(&container.id, must_see || lacks_labels);
        } else if must_wait {
            self.hold_until_described(&container.id);
        }
    }

    fn ask_whether_wanted(&mut self, id: &str, must_see: bool) {
        self.doubted.insert(id.to_owned(), false);
        let filters = self.selector.remote();
        self.ask(Question::Passing { id: id.to_owned(), filters, must_see });
    }

    /// The container has changed: an answer that is on its way may be older than the change.
    fn doubt(&mut self, id: &str) {
        if let Some(is_doubted) = self.doubted.get_mut(id) {
            *is_doubted = true;
        }
    }

    fn altered(&mut self, container: &Arc<Container>, cause: Option<Timestamp>, now: Now) {
        self.settle(container, now);
        if self.is_followed(&container.id) {
            self.doubt(&container.id);
            self.alter(container);
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
                self.alter(&container);
                self.described(id);
            }
            None => self.ask(Question::Details(id.to_owned())),
        }
    }

    fn happened(&mut self, id: &str, event: Lifecycle, cause: Option<Timestamp>, now: Now) {
        let is_health = event.action.starts_with("health_status");
        // Filters that only the daemon can evaluate may pass now.
        let may_pass = self.passing.is_some() && !self.is_followed(id) && is_health;
        if may_pass
            && let Some(container) = self.discovery.container(id).map(Arc::clone)
            && self.selector.may_match(&container)
        {
            self.add_new(&container, Start::Since(self.began), false, cause, now);
        }
        if is_health {
            self.doubt(id);
        }
        self.record(id, event);
    }

    pub(super) fn answer(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Passing(id, is_passing) => match self.doubted.remove(&id).unwrap_or(false) && !is_passing {
                true => self.ask_whether_wanted(&id, true),
                false => self.admit(&id, is_passing),
            },
            Answer::Seen(container) => {
                let seen = self.discovery.seen(&container);
                let is_wanted = self.selector.matches(&seen);
                if is_wanted {
                    self.alter(&seen);
                }
                self.admit(&seen.id, is_wanted);
            }
            Answer::NoDetails(id) => self.described(&id),
            Answer::Code(id, code) => self.ended(id, code, now),
            Answer::Details(container) => {
                let container = Arc::new(*container);
                self.discovery.seen(&container);
                self.alter(&container);
                self.described(&container.id);
                // Nothing would remove the entry of a container that has gone meanwhile.
                if self.is_followed(&container.id) {
                    self.metadata.learn(container, now.instant);
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

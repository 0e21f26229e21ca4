//! How each followed container is read: the transitions between its phases.

use super::phase::{Followed, HeldContainer, Phase};
use super::{Effect, Now, Supervisor};
use crate::commands::route::Choice;
use crate::commands::stream::{Signal, StreamPlan, StreamReport};
use crate::config::Source;
use crate::docker;
use crate::model::batch::{ContainerKey, Item, Lifecycle};
use crate::model::container::Container;
use crate::model::line_id::{Cursor, Route};
use crate::model::position::{Position, TimePosition};
use crate::model::time::Timestamp;
use crate::tail::{Command, Follow, Report, Start, Window};
use std::io;
use std::sync::Arc;

/// A container to follow, and how.
pub(super) struct Addition<'a> {
    pub(super) container: &'a Arc<Container>,
    pub(super) start: Start,
    pub(super) position: Option<Position>,
    /// Whether to read nothing of it before [`Supervisor::admit`].
    pub(super) is_held: bool,
    /// Whether it was already stopped when it was found, so that no event reports its end.
    pub(super) is_history: bool,
    /// The daemon's time of the event that reported it.
    pub(super) cause: Option<Timestamp>,
}

impl Supervisor {
    pub(super) fn is_followed(&self, id: &str) -> bool {
        self.followed.contains_key(id)
    }

    pub(super) fn add(&mut self, addition: &Addition<'_>, now: Now) {
        let container = addition.container;
        let key = self.register(addition, now);
        if !self.settings.follow {
            self.enter(&container.id, Phase::Waiting);
            return self.waiting.push_back(container.id.clone());
        }
        self.begin(key, addition, now);
        // A stopped container is read up to its end now, so that its next run is read from its first line.
        if !container.is_up() && container.state != "created" {
            let is_read = |followed: &Followed| followed.is_held() || !followed.phase.is_unread();
            let shows_end = addition.is_history && self.followed.get(&container.id).is_some_and(is_read);
            let end = shows_end.then_some(Item::End(key, container.exit_code));
            self.end(&container.id, end.into_iter().collect());
        }
    }

    /// Assigns a key to a container, and describes the container to the output.
    fn register(&mut self, addition: &Addition<'_>, now: Now) -> ContainerKey {
        let container = addition.container;
        let key = self.new_key();
        self.push([Item::Describe(key, Arc::clone(container))]);
        let phase = if addition.is_held { Phase::Held(HeldContainer::default()) } else { Phase::Idle };
        let followed = Followed {
            key,
            start: addition.start,
            position: addition.position,
            found_at: now.time,
            cause: addition.cause,
            is_up: container.is_up(),
            is_paused: is_paused(container),
            is_readable: false,
            has_died: false,
            has_run: container.state != "created",
            is_history: addition.is_history,
            is_with_reader: false,
            phase,
        };
        self.ids.insert(key, container.id.clone());
        self.unfinished += usize::from(followed.phase.is_unfinished());
        let before = self.followed.insert(container.id.clone(), followed);
        self.unfinished -= usize::from(before.is_some_and(|before| before.phase.is_unfinished()));
        key
    }

    fn new_key(&mut self) -> ContainerKey {
        let key = ContainerKey(self.next_key);
        self.next_key += 1;
        key
    }

    fn begin(&mut self, key: ContainerKey, addition: &Addition<'_>, now: Now) {
        let &Addition { container, start, is_held, .. } = addition;
        match self.files.choose(container) {
            Choice::File(_) => self.open_file(&container.id),
            // A stopped container needs no stream before it starts, unless its history is read.
            Choice::Stream if !is_held && (container.is_up() || start != Start::Last(0)) => {
                self.open_stream(&container.id, None);
            }
            // Recorded so that a later run knows: what it writes from now on is new.
            Choice::Stream if start == Start::Last(0) => {
                let resume = TimePosition::at(Some(now.time));
                self.push([Item::StartAt(key, Position { route: Route::Stream, resume, place: None })]);
            }
            // Held: it is not known yet whether it is selected.
            Choice::Stream => {}
            Choice::Nothing => self.report_no_file(key, Some(None)),
        }
    }

    /// Reads a removed container, of which only the log that the reader holds open is left.
    pub(super) fn read_open_log(&mut self, container: &Arc<Container>, now: Now) {
        let (start, position) = (Start::All, None);
        let addition = Addition { container, start, position, is_held: false, is_history: false, cause: None };
        self.register(&addition, now);
        self.open_file(&container.id);
        if self.is_finishing {
            self.finish(&container.id, Vec::new());
        }
        self.down(&container.id, None, None);
        self.gone(&container.id);
    }

    /// Reports that the rest of a container's log is lost: the container was removed before this run.
    pub(in crate::commands::watch) fn report_lost(
        &mut self,
        container: Container,
        route: Route,
        after: Option<Cursor>,
    ) -> Effect {
        let key = self.new_key();
        let description = Item::Describe(key, Arc::new(container));
        Effect::Push(vec![description, Item::unreadable(key, route, after), Item::Deselected(key)])
    }

    /// Passes a new name, state, labels or networks of the container on.
    pub(super) fn update_container(&mut self, container: &Arc<Container>) {
        let Some(followed) = self.followed.get_mut(&container.id) else { return };
        let key = followed.key;
        let was_paused = std::mem::replace(&mut followed.is_paused, is_paused(container));
        if followed.phase.is_streamed() && was_paused != followed.is_paused {
            self.effects.push(Effect::Pause(key, !was_paused));
        }
        self.push([Item::Describe(key, Arc::clone(container))]);
    }

    pub(super) fn up(&mut self, id: &str, cause: Option<Timestamp>) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        let was_up = std::mem::replace(&mut followed.is_up, true);
        followed.cause = cause;
        (followed.has_died, followed.has_run, followed.is_history) = (false, true, false);
        let is_read = was_up && !followed.phase.is_unread();
        let is_held = followed.is_held();
        if !self.is_finishing && !is_held && !is_read {
            self.continue_reading(id);
        }
    }

    fn continue_reading(&mut self, id: &str) {
        let Some(followed) = self.followed.get(id) else { return };
        let key = followed.key;
        match followed.phase {
            // The reader may have closed the file at the end of the last run.
            Phase::File | Phase::FileToEnd => {
                self.open_file(id);
                self.command(Command::Expect(key));
            }
            Phase::Stream => self.signal(key, Signal::Up),
            Phase::Idle if self.settings.source != Source::File => self.open_stream(id, None),
            Phase::Idle | Phase::StreamToEnd(_) | Phase::Waiting | Phase::Held(_) => {}
        }
    }

    /// The container has died. Its end is printed after its last line.
    pub(super) fn down(&mut self, id: &str, code: Option<i64>, event: Option<Lifecycle>) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        (followed.is_up, followed.has_died) = (false, true);
        let key = followed.key;
        let event = event.map(|event| Item::Lifecycle(key, event));
        self.end(id, event.into_iter().chain([Item::End(key, code)]).collect());
    }

    /// Prints items after the last line of a container that writes no more for now.
    fn end(&mut self, id: &str, then: Vec<Item>) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        let key = followed.key;
        match &mut followed.phase {
            Phase::File | Phase::FileToEnd | Phase::Held(HeldContainer { has_file: true, .. }) => {
                self.command(Command::Finish(key, then));
            }
            Phase::Stream => self.signal(key, Signal::Finish(then)),
            Phase::StreamToEnd(after) => after.extend(then),
            // Without items to print, its end needs no reading.
            Phase::Held(_) if then.is_empty() => {}
            Phase::Held(held) => held.after.get_or_insert_default().extend(then),
            Phase::Idle | Phase::Waiting => self.push(then),
        }
    }

    /// The container was removed.
    pub(super) fn gone(&mut self, id: &str) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        let (key, has_run) = (followed.key, followed.has_run);
        match followed.held_mut() {
            // It never ran, so its details are not looked up any more.
            Some(held) if held.awaits_start && !has_run => self.admit(id, true),
            // The lookup decides first whether it is selected: what it wrote may be in an open file.
            Some(held) => {
                held.is_removed = true;
                return;
            }
            None => {}
        }
        self.leave(id, vec![Item::Removed(key)]);
    }

    /// Stops following a container that is no longer selected. What it wrote until now is still printed.
    pub(super) fn stop_following(&mut self, id: &str, reason: String) {
        let Some(followed) = self.followed.get(id) else { return };
        if followed.is_held() {
            return self.admit(id, false);
        }
        let key = followed.key;
        let end = followed.is_up.then_some(Item::End(key, None));
        let notice = Item::Notice(Some(key), reason);
        self.leave(id, [notice].into_iter().chain(end).chain([Item::Deselected(key)]).collect());
    }

    fn leave(&mut self, id: &str, then: Vec<Item>) {
        let Some(followed) = self.remove(id) else { return };
        let key = followed.key;
        if followed.is_with_reader {
            // The reader may have refused its file a moment ago, and the resulting gap has to come first.
            self.departing.insert(key, followed.phase);
            self.command(Command::Forget(key, then));
        } else {
            let is_open = matches!(followed.phase, Phase::Stream);
            self.end_departed(key, followed.phase, then);
            if is_open {
                self.effects.push(Effect::Close(key));
            }
        }
    }

    /// Prints items after the last line of a removed container that the reader does not read.
    fn end_departed(&mut self, key: ContainerKey, phase: Phase, then: Vec<Item>) {
        match phase {
            Phase::Stream => self.signal(key, Signal::Finish(then)),
            Phase::StreamToEnd(after) => self.push(after.into_iter().chain(then)),
            Phase::Waiting | Phase::Held(_) | Phase::Idle | Phase::File | Phase::FileToEnd => self.push(then),
        }
    }

    /// Prints a lifecycle record at its place among the lines.
    pub(super) fn record(&mut self, id: &str, event: Lifecycle) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        let item = Item::Lifecycle(followed.key, event);
        let has_died = followed.has_died;
        match followed.held_mut() {
            Some(held) => held.before.push(item),
            // After its death, which is printed after its last line.
            None if has_died => self.end(id, vec![item]),
            None => self.push([item]),
        }
    }

    /// Marks a container that was just added: it stays held until it has started and its labels and networks are known.
    pub(super) fn hold_until_details(&mut self, id: &str) {
        if let Some(held) = self.followed.get_mut(id).and_then(Followed::held_mut) {
            held.awaits_start = true;
        }
    }

    /// Called when the labels and networks of a container are known, or cannot be looked up.
    pub(super) fn details_known(&mut self, id: &str) {
        let held = self.followed.get_mut(id).and_then(Followed::held_mut);
        if held.is_some_and(|held| held.awaits_start) {
            self.admit(id, true);
        }
    }

    /// Ends the phase `Held`: follows the container if it is selected, else drops it.
    pub(super) fn admit(&mut self, id: &str, is_selected: bool) {
        let Some(followed) = self.followed.get_mut(id).filter(|followed| followed.is_held()) else { return };
        let (key, is_up, has_died) = (followed.key, followed.is_up, followed.has_died);
        let Some(Phase::Held(held)) = self.enter(id, Phase::Idle) else { return };
        if !is_selected {
            self.remove(id);
            if held.has_file {
                self.command(Command::Drop(key));
            }
            return self.push([Item::Deselected(key)]);
        }
        self.push(held.before);
        match held.after {
            _ if held.has_file => self.admit_file(id, key, is_up, has_died),
            after if self.is_finishing => {
                self.continue_reading(id);
                self.finish(id, after.unwrap_or_default());
            }
            after if is_up => {
                self.push(after.into_iter().flatten());
                self.continue_reading(id);
            }
            Some(after) => {
                self.open_stream(id, None);
                self.end(id, after);
            }
            None => {}
        }
        if held.is_removed {
            self.gone(id);
        }
    }

    fn admit_file(&mut self, id: &str, key: ContainerKey, is_up: bool, has_died: bool) {
        self.enter(id, if self.is_finishing { Phase::FileToEnd } else { Phase::File });
        self.command(Command::Admit(key));
        if has_died {
            // If its file never appeared, it is too late to wait for it.
            self.command(Command::Expect(key));
        }
        if is_up && !self.is_finishing {
            self.continue_reading(id);
        }
    }

    /// Reads all logs to their current ends. Held containers first wait for their lookups.
    pub(super) fn finish_all(&mut self) {
        self.is_finishing = true;
        let mut ids: Vec<(ContainerKey, String)> =
            self.followed.iter().map(|(id, followed)| (followed.key, id.clone())).collect();
        ids.sort_unstable();
        for (_, id) in ids {
            self.details_known(&id);
            self.finish(&id, Vec::new());
        }
    }

    fn finish(&mut self, id: &str, then: Vec<Item>) {
        self.end(id, then);
        let Some(followed) = self.followed.get(id) else { return };
        let key = followed.key;
        match followed.phase {
            Phase::File => drop(self.enter(id, Phase::FileToEnd)),
            Phase::Stream => {
                self.effects.push(Effect::Close(key));
                self.enter(id, Phase::StreamToEnd(Vec::new()));
            }
            Phase::Waiting | Phase::Held(_) | Phase::Idle | Phase::FileToEnd | Phase::StreamToEnd(_) => {}
        }
    }

    /// Starts to read waiting containers, as long as fewer than the limit are being read.
    pub(super) fn start_waiting(&mut self) {
        while self.unfinished < self.settings.max_parallel
            && let Some(id) = self.waiting.pop_front()
        {
            self.read_once(&id);
        }
    }

    fn read_once(&mut self, id: &str) {
        let Some(key) = self.followed.get(id).map(|followed| followed.key) else { return };
        self.enter(id, Phase::Idle);
        // The state is left out: it matters only for containers without a file.
        let container = Container { id: id.to_owned(), ..Container::default() };
        match self.files.choose(&container) {
            Choice::File(_) => {
                self.open_file(id);
                self.enter(id, Phase::FileToEnd);
                self.command(Command::Finish(key, Vec::new()));
            }
            Choice::Stream => {
                self.open_stream(id, None);
                self.enter(id, Phase::StreamToEnd(Vec::new()));
            }
            Choice::Nothing => self.report_no_file(key, Some(None)),
        }
    }

    pub(super) fn report(&mut self, report: Report, now: Now) {
        match report {
            Report::Finished(key) => self.finished(key),
            Report::NotFollowed(key, then) => self.not_followed(key, then),
            Report::Forgotten(key) => self.forgotten(key),
            Report::NoWatches if self.reported_watches.is_first() => self.notice(
                "no inotify watches are left (fs.inotify.max_user_watches): some files are checked every second",
            ),
            Report::NoWatches => {}
            Report::NoDescriptors => self.notice(
                "no descriptors are left (ulimit -n): some files wait to be opened until others are read to their end",
            ),
            Report::Refused(key, error, resume, then) => self.refused(key, &error, resume, then),
            Report::Unclaimed(container) => self.claim(*container, now),
        }
    }

    /// Called when the reader has read a log to its end. A stream task that took over reports its own end.
    fn finished(&mut self, key: ContainerKey) {
        let Some(id) = self.ids.get(&key).cloned() else { return };
        if self.followed.get(&id).is_some_and(|followed| matches!(followed.phase, Phase::FileToEnd)) {
            self.enter(&id, Phase::Idle);
        }
    }

    /// Called when a [`Command::Finish`] reached the reader after it had refused the file. The stream task that
    /// reads the container now prints `then` after the last line.
    fn not_followed(&mut self, key: ContainerKey, then: Vec<Item>) {
        match self.departing.get_mut(&key) {
            Some(Phase::Stream) => self.signal(key, Signal::Finish(then)),
            Some(phase) => {
                let phase = std::mem::replace(phase, Phase::Idle);
                self.end_departed(key, phase, then);
            }
            None => {
                self.finished(key);
                if let Some(id) = self.ids.get(&key).cloned() {
                    self.end(&id, then);
                }
            }
        }
    }

    fn forgotten(&mut self, key: ContainerKey) {
        if let Some(Phase::Stream) = self.departing.remove(&key) {
            self.effects.push(Effect::Close(key));
        }
    }

    /// Called when the reader cannot read a container's file, or not beyond `resume`. With `then`, it had been
    /// asked to read it to the end.
    fn refused(&mut self, key: ContainerKey, error: &io::Error, resume: TimePosition, then: Option<Vec<Item>>) {
        let Some(id) = self.ids.get(&key).cloned() else {
            // It was removed meanwhile, and nothing of it is left to read. If it was not selected, nothing is reported.
            if self.departing.contains_key(&key) {
                self.push([Item::unreadable(key, Route::File, resume.last())]);
                self.push(then.into_iter().flatten());
            }
            return;
        };
        tracing::debug!(%error, id, "not read from its file");
        let reasons = self.explain_refusal(key, error, resume);
        let Some(followed) = self.followed.get_mut(&id) else { return };
        let must_end = then.is_some() || !followed.is_up;
        let then = then.unwrap_or_default();
        if let Some(held) = followed.held_mut() {
            held.has_file = false;
            held.before.extend(reasons);
            if must_end {
                held.after.get_or_insert_default().extend(then);
            }
            return;
        }
        self.push(reasons);
        if self.settings.source == Source::File {
            self.enter(&id, Phase::Idle);
            let after = Some(resume.last()).filter(|_| error.kind() == io::ErrorKind::NotFound);
            self.report_no_file(key, after);
            return self.push(then);
        }
        self.open_stream(&id, Some(resume).filter(|resume| *resume != TimePosition::default()));
        if !self.settings.follow {
            self.enter(&id, Phase::StreamToEnd(Vec::new()));
        } else if self.is_finishing {
            self.finish(&id, then);
        } else if must_end {
            self.end(&id, then);
        }
    }

    /// Returns what to print about a file that cannot be read. A missing permission concerns all files:
    /// it is reported once.
    fn explain_refusal(&mut self, key: ContainerKey, error: &io::Error, resume: TimePosition) -> Vec<Item> {
        let may_stream = self.settings.source != Source::File;
        match error.kind() {
            io::ErrorKind::NotFound => Vec::new(),
            _ if !may_stream => {
                vec![Item::unreadable(key, Route::File, resume.last()), Item::Notice(Some(key), error.to_string())]
            }
            io::ErrorKind::PermissionDenied => {
                if self.reported_denied.is_first() {
                    self.notice("no permission to read log files: reading through the engine instead");
                }
                Vec::new()
            }
            _ => vec![Item::Notice(Some(key), format!("{error}: reading through the engine instead"))],
        }
    }

    pub(super) fn stream_report(&mut self, report: StreamReport) {
        match report {
            StreamReport::Readable(key, is_readable) => {
                let id = self.ids.get(&key);
                if let Some(followed) = id.and_then(|id| self.followed.get_mut(id)) {
                    followed.is_readable = is_readable;
                }
            }
            StreamReport::NoPermit(error) => {
                if self.reported_permits.is_first() {
                    self.notice(format!("{error}: some logs have to wait until others end"));
                }
            }
            StreamReport::GaveUp(has_given_up) => {
                if std::mem::replace(&mut self.has_given_up, has_given_up) != has_given_up {
                    self.effects.push(Effect::ShortenRetries(has_given_up));
                }
            }
            StreamReport::Ended(key, id, result) => self.stream_ended(key, id, result),
        }
    }

    /// Called when a stream task has read its log to the requested end, or has given up.
    fn stream_ended(&mut self, key: ContainerKey, id: String, result: Result<(), Option<docker::Error>>) {
        let is_last = |followed: &&Followed| followed.key == key && matches!(followed.phase, Phase::StreamToEnd(_));
        if self.followed.get(&id).filter(is_last).is_some()
            && let Some(Phase::StreamToEnd(after)) = self.enter(&id, Phase::Idle)
        {
            self.push(after);
        }
        if let (Err(error), true) = (result, !self.settings.follow || self.is_finishing) {
            self.unread.push((id, error));
        }
    }

    fn open_file(&mut self, id: &str) {
        let Some(followed) = self.followed.get_mut(id) else { return };
        followed.is_with_reader = true;
        let key = followed.key;
        let announcement = match followed.is_history {
            true => Item::History(key, Route::File),
            false => Item::Followed(key, Route::File, followed.cause),
        };
        let once = !self.settings.follow;
        let follow = Follow {
            key,
            id: id.to_owned(),
            folder: self.settings.folder.join(id),
            start: followed.start,
            position: followed.position,
            window: window(self.settings.window, followed.start),
            max_line_size: self.settings.max_line_size,
            once,
            is_held: followed.is_held(),
            on_open: if once { Vec::new() } else { vec![announcement] },
        };
        match followed.held_mut() {
            Some(held) => held.has_file = true,
            None => drop(self.enter(id, Phase::File)),
        }
        self.command(Command::Follow(Box::new(follow)));
    }

    /// Reads a container over the API, from `resume` on if another route has read up to there.
    fn open_stream(&mut self, id: &str, resume: Option<TimePosition>) {
        let Some(followed) = self.followed.get(id) else { return };
        let resume = resume.or(followed.position.map(|position| position.resume));
        // Never `Last(0)`: the daemon evaluates `tail=0` when the request arrives, and the container may have written
        // lines before. Reading starts from when it was found instead.
        let start = match followed.start {
            Start::Last(0) => Start::Since(followed.found_at),
            start => start,
        };
        // An earlier run skipped its history, and only recorded from when on lines are new.
        let recorded = resume.filter(TimePosition::is_at_start).and_then(|resume| resume.since);
        let start = recorded.map_or(start, Start::Since);
        let plan = StreamPlan {
            key: followed.key,
            id: id.to_owned(),
            is_up: followed.is_up,
            has_run: followed.has_run,
            is_history: followed.is_history,
            is_paused: followed.is_paused,
            cause: followed.cause,
            start,
            resume,
            window: window(self.settings.window, start),
            once: !self.settings.follow,
        };
        self.effects.push(Effect::Spawn(Box::new(plan)));
        self.enter(id, Phase::Stream);
    }

    /// Reports that a container cannot be read. If its file is missing, `after` is `Some` with the last
    /// line that was read.
    fn report_no_file(&mut self, key: ContainerKey, after: Option<Option<Cursor>>) {
        let Some(id) = self.ids.get(&key).cloned() else { return };
        if !self.settings.follow || self.is_finishing {
            self.unread.push((id.clone(), None));
        }
        // A logging driver that keeps no file leaves the folder in place; without the folder, the container and its log
        // were removed.
        match after {
            Some(after) if self.files.is_gone(&id) => self.push([Item::unreadable(key, Route::File, after)]),
            _ => {
                let text = "has no log file that can be read, and `--source file` allows no other route";
                self.push([Item::Notice(Some(key), text.into())]);
            }
        }
    }

    /// Moves a container to another phase, and returns the previous one.
    fn enter(&mut self, id: &str, phase: Phase) -> Option<Phase> {
        let followed = self.followed.get_mut(id)?;
        self.unfinished += usize::from(phase.is_unfinished());
        let before = std::mem::replace(&mut followed.phase, phase);
        self.unfinished -= usize::from(before.is_unfinished());
        Some(before)
    }

    fn remove(&mut self, id: &str) -> Option<Followed> {
        let followed = self.followed.remove(id)?;
        self.ids.remove(&followed.key);
        self.unfinished -= usize::from(followed.phase.is_unfinished());
        Some(followed)
    }
}

fn is_paused(container: &Container) -> bool {
    container.state == "paused"
}

/// A start by time skips only some of the earlier lines, so the window has to exclude the others.
fn window(window: Window, start: Start) -> Window {
    match start {
        Start::Since(since) => Window { since: since.max(window.since), ..window },
        _ => window,
    }
}

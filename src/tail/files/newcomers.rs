//! Opens the logs of new containers before their Docker events arrive.
//!
//! In: inotify events of the folder that contains all containers' folders. Out: a watch and perhaps an open log file,
//! once the container is followed. Called by [`super::reader`].
//!
//! dockerd creates a container's folder before it sends the event. On a busy machine, a container of a few milliseconds
//! may be removed before its event is read, but an open file remains readable. If the event never comes, dockerd's
//! `config.v2.json` next to the log identifies the container (moby `container/container.go`).

use super::inotify::{Inotify, WatchId};
use super::log_file::Handle;
use crate::model::bounded_read;
use crate::model::container::{self, Container, is_full_id, short};
use crate::tail::decode::format::{LogLocation, inner_folder, is_log_name};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a container is kept until it is followed. After that its event counts as lost. If it still exists, a
/// listing will find it.
const KEEP_FOR: Duration = Duration::from_secs(60);
/// Number of containers kept at once.
const MAX_UNCLAIMED: usize = 1024;
/// Size limit of `config.v2.json` in bytes. Only huge labels exceed it.
const MAX_CONFIG: usize = 1024 * 1024;

/// The new containers that nobody follows yet.
#[derive(Default)]
pub(super) struct Newcomers {
    root: Option<Root>,
    /// The key is the container ID.
    unclaimed: HashMap<String, Newcomer>,
    /// The container ID of each watch in `unclaimed`.
    watches: HashMap<WatchId, String>,
}

/// The folder in which new containers' folders appear.
struct Root {
    path: PathBuf,
    /// `None` after the folder was unmounted or removed.
    watch: Option<WatchId>,
}

/// A container that nobody follows yet.
pub(super) struct Newcomer {
    /// Watch of `watched`. `None` after the folder was removed.
    pub(super) watch: Option<WatchId>,
    /// The folder in which its log is or will be created.
    pub(super) watched: PathBuf,
    /// Its log, once that exists.
    pub(super) log: Option<(LogLocation, Handle)>,
    /// Its `config.v2.json`, opened together with the log.
    config_file: Option<File>,
    folder: PathBuf,
    /// When it appeared or was reported.
    since: Instant,
    /// [`Newcomers::expire`] has returned it.
    is_reported: bool,
}

impl Newcomers {
    /// Watches `root` for new folders.
    pub(super) fn start(&mut self, inotify: &Inotify, root: PathBuf) {
        match inotify.add(&root) {
            Ok(watch) => self.root = Some(Root { path: root, watch: Some(watch) }),
            Err(error) => tracing::debug!(%error, "cannot watch for new containers; relying on events alone"),
        }
    }

    /// Returns whether periodic checks are needed: a container is not claimed yet, or the root folder is missing.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unclaimed.is_empty() || self.has_lost_root()
    }

    /// Returns whether the root folder is no longer watched.
    pub(super) fn has_lost_root(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.watch.is_none())
    }

    /// Watches the root folder again, at its path.
    pub(super) fn return_to_root(&mut self, inotify: &Inotify) {
        let Some(root) = &mut self.root else { return };
        let Ok(found) = inotify.add(&root.path) else { return };
        if let Some(before) = root.watch.replace(found).filter(|before| *before != found) {
            inotify.remove(before);
        }
    }

    /// Handles a file or folder that appeared. Returns whether it concerned this module. `is_taken` returns whether a
    /// watch belongs to a container that is followed already, because inotify returns the same watch for the same
    /// folder.
    pub(super) fn appeared(
        &mut self,
        inotify: &Inotify,
        watch: WatchId,
        name: &OsStr,
        is_taken: impl Fn(WatchId) -> bool,
    ) -> bool {
        if let Some(id) = self.watches.get(&watch).cloned() {
            if is_log_name(name, &id) {
                self.open_log(inotify, &id);
            }
            return true;
        }
        let Some(Root { path: root, .. }) = self.root.as_ref().filter(|root| root.watch == Some(watch)) else {
            return false;
        };
        if let Some(id) = name.to_str().filter(|name| is_full_id(name)) {
            if self.unclaimed.len() >= MAX_UNCLAIMED {
                tracing::warn!(id, "too many new containers without a Docker event");
                return true;
            }
            let folder = root.join(id);
            let Some(watch) = inotify.add(&folder).ok().filter(|watch| !is_taken(*watch)) else { return true };
            let found = Newcomer {
                watch: Some(watch),
                watched: folder.clone(),
                log: None,
                config_file: None,
                folder,
                since: Instant::now(),
                is_reported: false,
            };
            self.watches.insert(watch, id.to_owned());
            self.unclaimed.insert(id.to_owned(), found);
            // The log may have been created before the watch.
            self.open_log(inotify, id);
        }
        true
    }

    /// Opens a container's log if it exists, and watches the folder where it will be created.
    fn open_log(&mut self, inotify: &Inotify, id: &str) {
        let Some(found) = self.unclaimed.get_mut(id).filter(|found| found.log.is_none()) else { return };
        if let Some(inner) = inner_folder(&found.folder).filter(|inner| *inner != found.watched)
            && let Ok(watch) = inotify.add(&inner)
        {
            if let Some(outer) = found.watch.replace(watch) {
                self.watches.remove(&outer);
                inotify.remove(outer);
            }
            self.watches.insert(watch, id.to_owned());
            found.watched = inner;
        }
        if let Some(location) = LogLocation::find(&found.folder, id) {
            found.log = Handle::open(&location.live, location.format).ok().map(|handle| (location, handle));
            found.config_file = bounded_read::open(&found.folder.join("config.v2.json")).ok();
        }
    }

    /// Handles the removal of a watched folder. Open files stay open.
    pub(super) fn gone(&mut self, watch: WatchId) {
        if let Some(root) = self.root.as_mut().filter(|root| root.watch == Some(watch)) {
            root.watch = None;
        }
        if let Some(found) = self.watches.remove(&watch).and_then(|id| self.unclaimed.get_mut(&id)) {
            found.watch = None;
        }
    }

    /// Hands over a container that is followed from now on.
    pub(super) fn take(&mut self, id: &str) -> Option<Newcomer> {
        let found = self.unclaimed.remove(id)?;
        if let Some(watch) = found.watch {
            self.watches.remove(&watch);
        }
        Some(found)
    }

    /// Forgets a container that nobody will follow.
    pub(super) fn ignore(&mut self, inotify: &Inotify, id: &str) {
        if let Some(watch) = self.take(id).and_then(|found| found.watch) {
            inotify.remove(watch);
        }
    }

    /// Forgets containers that nobody followed in time. Returns those among them whose folder was removed, because no
    /// listing will contain them: they are kept until they expire once more, so that they can still be followed.
    pub(super) fn expire(&mut self, inotify: &Inotify, now: Instant) -> Vec<Container> {
        let is_old = |found: &Newcomer| now.duration_since(found.since) > KEEP_FOR;
        let old: Vec<String> =
            self.unclaimed.iter().filter(|(_, found)| is_old(found)).map(|(id, _)| id.clone()).collect();
        let mut unclaimed = Vec::new();
        for id in old {
            match self.unclaimed.get_mut(&id) {
                // inotify does not report the removal of a folder in which a file is open.
                Some(found) if found.log.is_some() && !found.is_reported && !found.folder.exists() => {
                    (found.is_reported, found.since) = (true, now);
                    unclaimed.push(found.read_config(&id));
                }
                _ => self.ignore(inotify, &id),
            }
        }
        unclaimed
    }
}

impl Newcomer {
    /// Returns what `config.v2.json` says about the container.
    fn read_config(&mut self, id: &str) -> Container {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct ConfigFile {
            name: String,
            config: ConfigSection,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct ConfigSection {
            image: String,
            labels: Option<BTreeMap<String, String>>,
        }
        let text = self.config_file.take().map(|file| bounded_read::read_open(&file, MAX_CONFIG));
        let text = text.unwrap_or_else(|| Ok(Vec::new()));
        tracing::debug!(failed = ?text.as_ref().err(), id, "no Docker event for this container");
        let text = text.unwrap_or_default();
        let ConfigFile { name, config } = serde_json::from_slice(&text).unwrap_or_default();
        let name = match name.trim_start_matches('/') {
            "" => short(id).to_owned(),
            name => name.to_owned(),
        };
        let mut labels = config.labels.unwrap_or_default();
        container::bound(&mut labels);
        let state = "exited".to_owned();
        Container { id: id.to_owned(), name, image: config.image, labels, state, ..Container::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::files::inotify::FileEvent;
    use std::fs;

    fn drain(inotify: &Inotify, newcomers: &mut Newcomers) {
        let mut seen = Vec::new();
        inotify.drain(|event| match event {
            FileEvent::Appeared(watch, name) => seen.push((watch, Some(name.to_owned()))),
            FileEvent::Gone(watch) => seen.push((watch, None)),
            _ => {}
        });
        for (watch, name) in seen {
            match name {
                Some(name) => drop(newcomers.appeared(inotify, watch, &name, |_| false)),
                None => newcomers.gone(watch),
            }
        }
    }

    #[test]
    fn a_removed_container_can_still_be_read() {
        let root = tempfile::tempdir().unwrap();
        let (inotify, mut newcomers) = (Inotify::new().unwrap(), Newcomers::default());
        newcomers.start(&inotify, root.path().to_owned());
        let id = "ab".repeat(32);
        let folder = root.path().join(&id);
        fs::create_dir(&folder).unwrap();
        fs::create_dir(root.path().join("no container")).unwrap();
        drain(&inotify, &mut newcomers);
        fs::write(folder.join(format!("{id}-json.log")), "{\"log\":\"x\\n\"}\n").unwrap();
        drain(&inotify, &mut newcomers);
        fs::remove_dir_all(&folder).unwrap();
        drain(&inotify, &mut newcomers);
        let mut found = newcomers.take(&id).unwrap();
        let (_, handle) = found.log.as_mut().unwrap();
        assert_eq!(handle.read(&mut [0; 64], 0).unwrap(), crate::tail::files::log_file::ReadOutcome::Bytes(14));
        assert!(newcomers.unclaimed.is_empty() && newcomers.watches.is_empty());
    }

    #[test]
    fn a_removed_unclaimed_container_is_described_once_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (inotify, mut newcomers) = (Inotify::new().unwrap(), Newcomers::default());
        newcomers.start(&inotify, root.path().to_owned());
        let described =
            r#"{"ID":"…","Name":"/web","Config":{"Image":"nginx:1","Labels":{"a":"b"}},"Driver":"overlay2"}"#;
        for (id, description) in [("ab", Some(described)), ("cd", Some("{")), ("ef", None), ("01", Some(described))] {
            let id = id.repeat(32);
            let folder = root.path().join(&id);
            fs::create_dir(&folder).unwrap();
            drain(&inotify, &mut newcomers);
            if let Some(description) = description {
                fs::write(folder.join("config.v2.json"), description).unwrap();
            }
            fs::write(folder.join(format!("{id}-json.log")), "{}\n").unwrap();
            drain(&inotify, &mut newcomers);
            // The last one still exists: a listing will find it.
            if !id.starts_with("01") {
                fs::remove_dir_all(folder).unwrap();
            }
        }
        drain(&inotify, &mut newcomers);
        assert_eq!(newcomers.expire(&inotify, Instant::now()), []);
        let late = Instant::now() + KEEP_FOR * 2;
        let mut unclaimed = newcomers.expire(&inotify, late);
        unclaimed.sort_by(|one, other| one.id.cmp(&other.id));
        let names: Vec<&str> = unclaimed.iter().map(|container| &*container.name).collect();
        assert_eq!(names, ["web", "cdcdcdcdcdcd", "efefefefefef"]);
        let first = &unclaimed[0];
        assert_eq!((&*first.image, &first.labels["a"], first.is_up()), ("nginx:1", &"b".to_owned(), false));
        assert_eq!(newcomers.expire(&inotify, late), [], "reported once");
        assert!(newcomers.take(&"ab".repeat(32)).is_some_and(|found| found.log.is_some()));
        newcomers.expire(&inotify, late + KEEP_FOR * 2);
        assert!(newcomers.unclaimed.is_empty() && newcomers.watches.is_empty());
    }

    #[test]
    fn unclaimed_containers_are_limited_and_expire() {
        let root = tempfile::tempdir().unwrap();
        let (inotify, mut newcomers) = (Inotify::new().unwrap(), Newcomers::default());
        newcomers.start(&inotify, root.path().to_owned());
        for number in 0..MAX_UNCLAIMED + 10 {
            fs::create_dir(root.path().join(format!("{number:064x}"))).unwrap();
        }
        drain(&inotify, &mut newcomers);
        assert_eq!(newcomers.unclaimed.len(), MAX_UNCLAIMED);
        newcomers.ignore(&inotify, &format!("{:064x}", 1));
        assert_eq!(newcomers.unclaimed.len(), MAX_UNCLAIMED - 1);
        newcomers.expire(&inotify, Instant::now());
        assert_eq!(newcomers.unclaimed.len(), MAX_UNCLAIMED - 1);
        newcomers.expire(&inotify, Instant::now() + KEEP_FOR * 2);
        assert!(newcomers.unclaimed.is_empty() && newcomers.watches.is_empty());
    }
}

//! The folders of new containers, watched before anybody has told of the container.
//!
//! In: what inotify says of the folder that holds them all. Out: a watch and perhaps an open log file, for when the
//! container is asked for. Called by [`super::reader`]. The engine makes the folder before it tells of the container, and
//! on a busy machine a container of a few milliseconds may be gone by the time its event is read: an open handle is not.
//! Where the event never comes, the engine's own file beside the log says who it was (moby `container/container.go`,
//! `config.v2.json`).

use super::inotify::{Inotify, Watch};
use super::log_file::Handle;
use crate::model::container::{self, Container, is_full_id, short};
use crate::model::small_file;
use crate::tail::decode::format::{Spot, inner_folder, is_log_name};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Whoever is not asked for by then is not told of any more: its event is lost. What is still there a listing will tell.
const KEPT: Duration = Duration::from_secs(60);
/// So many are held at once.
const MOST: usize = 1024;
/// The engine's description of a container is shorter than this but for huge labels.
const DESCRIPTION: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct Newcomers {
    root: Option<Root>,
    found: HashMap<String, Found>,
    watches: HashMap<Watch, String>,
}

/// The folder that new folders appear in.
struct Root {
    path: PathBuf,
    /// `None` once it was unmounted or removed.
    watch: Option<Watch>,
}

/// A container that nobody has asked for yet.
pub(super) struct Found {
    /// On the folder that its log is in, or will be made in.
    pub(super) watch: Option<Watch>,
    pub(super) watched: PathBuf,
    pub(super) log: Option<(Spot, Handle)>,
    /// What the engine has written down of it.
    description: Option<File>,
    folder: PathBuf,
    since: Instant,
    is_told: bool,
}

impl Newcomers {
    /// Looks out for new folders in this one.
    pub(super) fn start(&mut self, watcher: &Inotify, root: PathBuf) {
        match watcher.add(&root) {
            Ok(watch) => self.root = Some(Root { path: root, watch: Some(watch) }),
            Err(error) => tracing::debug!(%error, "new containers are seen by their events alone"),
        }
    }

    /// Whether it has to be asked again after some time: somebody is waited for, or the folder has to come back.
    pub(super) fn is_waiting(&self) -> bool {
        !self.found.is_empty() || self.has_lost_its_root()
    }

    /// Whether new folders are not reported any more.
    pub(super) fn has_lost_its_root(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.watch.is_none())
    }

    /// Watches the folder that its path leads to now.
    pub(super) fn return_to_root(&mut self, watcher: &Inotify) {
        let Some(root) = &mut self.root else { return };
        let Ok(found) = watcher.add(&root.path) else { return };
        if let Some(before) = root.watch.replace(found).filter(|before| *before != found) {
            watcher.remove(before);
        }
    }

    /// Something of this name appeared under this watch; whether that is our concern. `is_taken` tells a watch that
    /// belongs to a container which is followed already: inotify has one for each folder.
    pub(super) fn appeared(
        &mut self,
        watcher: &Inotify,
        watch: Watch,
        name: &OsStr,
        is_taken: impl Fn(Watch) -> bool,
    ) -> bool {
        if let Some(id) = self.watches.get(&watch).cloned() {
            if is_log_name(name, &id) {
                self.look(watcher, &id);
            }
            return true;
        }
        let Some(Root { path: root, .. }) = self.root.as_ref().filter(|root| root.watch == Some(watch)) else {
            return false;
        };
        if let Some(id) = name.to_str().filter(|name| is_full_id(name)) {
            if self.found.len() >= MOST {
                tracing::warn!(id, "too many new containers that the engine has not told of");
                return true;
            }
            let folder = root.join(id);
            let Some(watch) = watcher.add(&folder).ok().filter(|watch| !is_taken(*watch)) else { return true };
            let found = Found {
                watch: Some(watch),
                watched: folder.clone(),
                log: None,
                description: None,
                folder,
                since: Instant::now(),
                is_told: false,
            };
            self.watches.insert(watch, id.to_owned());
            self.found.insert(id.to_owned(), found);
            // It may have been made before the watch was.
            self.look(watcher, id);
        }
        true
    }

    /// Opens its log if it is there, and watches the folder where it will be.
    fn look(&mut self, watcher: &Inotify, id: &str) {
        let Some(found) = self.found.get_mut(id).filter(|found| found.log.is_none()) else { return };
        if let Some(inner) = inner_folder(&found.folder).filter(|inner| *inner != found.watched)
            && let Ok(watch) = watcher.add(&inner)
        {
            if let Some(outer) = found.watch.replace(watch) {
                self.watches.remove(&outer);
                watcher.remove(outer);
            }
            self.watches.insert(watch, id.to_owned());
            found.watched = inner;
        }
        if let Some(spot) = Spot::find(&found.folder, id) {
            found.log = Handle::open(&spot.live, spot.format).ok().map(|handle| (spot, handle));
            found.description = small_file::open(&found.folder.join("config.v2.json")).ok();
        }
    }

    /// A folder was removed; what is open stays open.
    pub(super) fn gone(&mut self, watch: Watch) {
        if let Some(root) = self.root.as_mut().filter(|root| root.watch == Some(watch)) {
            root.watch = None;
        }
        if let Some(found) = self.watches.remove(&watch).and_then(|id| self.found.get_mut(&id)) {
            found.watch = None;
        }
    }

    /// The container is followed from now on.
    pub(super) fn take(&mut self, id: &str) -> Option<Found> {
        let found = self.found.remove(id)?;
        if let Some(watch) = found.watch {
            self.watches.remove(&watch);
        }
        Some(found)
    }

    /// It is not wanted.
    pub(super) fn ignore(&mut self, watcher: &Inotify, id: &str) {
        if let Some(watch) = self.take(id).and_then(|found| found.watch) {
            watcher.remove(watch);
        }
    }

    /// Those that nobody asked for in time are forgotten; of those that are removed, so that no listing will tell of them
    /// either, says who they were: the next time is the last to ask for them.
    pub(super) fn expire(&mut self, watcher: &Inotify, now: Instant) -> Vec<Container> {
        let is_old = |found: &Found| now.duration_since(found.since) > KEPT;
        let old: Vec<String> = self.found.iter().filter(|(_, found)| is_old(found)).map(|(id, _)| id.clone()).collect();
        let mut unclaimed = Vec::new();
        for id in old {
            match self.found.get_mut(&id) {
                // Of a folder in which a file is open, inotify does not tell that it is gone.
                Some(found) if found.log.is_some() && !found.is_told && !found.folder.exists() => {
                    (found.is_told, found.since) = (true, now);
                    unclaimed.push(found.describe(&id));
                }
                _ => self.ignore(watcher, &id),
            }
        }
        unclaimed
    }
}

impl Found {
    /// The container as far as the engine has written it down.
    fn describe(&mut self, id: &str) -> Container {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Description {
            name: String,
            config: Config,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Config {
            image: String,
            labels: Option<BTreeMap<String, String>>,
        }
        let text = self.description.take().map(|file| small_file::read_open(&file, DESCRIPTION));
        let text = text.unwrap_or_else(|| Ok(Vec::new()));
        tracing::debug!(failed = ?text.as_ref().err(), id, "nobody told of this container");
        let text = text.unwrap_or_default();
        let Description { name, config } = serde_json::from_slice(&text).unwrap_or_default();
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
    use crate::tail::files::inotify::Happening;
    use std::fs;

    fn drain(watcher: &Inotify, scout: &mut Newcomers) {
        let mut seen = Vec::new();
        watcher.drain(|happening| match happening {
            Happening::Appeared(watch, name) => seen.push((watch, Some(name.to_owned()))),
            Happening::Gone(watch) => seen.push((watch, None)),
            _ => {}
        });
        for (watch, name) in seen {
            match name {
                Some(name) => drop(scout.appeared(watcher, watch, &name, |_| false)),
                None => scout.gone(watch),
            }
        }
    }

    #[test]
    fn a_container_that_is_gone_before_it_is_asked_for_can_still_be_read() {
        let root = tempfile::tempdir().unwrap();
        let (watcher, mut scout) = (Inotify::new().unwrap(), Newcomers::default());
        scout.start(&watcher, root.path().to_owned());
        let id = "ab".repeat(32);
        let folder = root.path().join(&id);
        fs::create_dir(&folder).unwrap();
        fs::create_dir(root.path().join("no container")).unwrap();
        drain(&watcher, &mut scout);
        fs::write(folder.join(format!("{id}-json.log")), "{\"log\":\"x\\n\"}\n").unwrap();
        drain(&watcher, &mut scout);
        fs::remove_dir_all(&folder).unwrap();
        drain(&watcher, &mut scout);
        let mut found = scout.take(&id).unwrap();
        let (_, handle) = found.log.as_mut().unwrap();
        assert_eq!(handle.read(&mut [0; 64], 0).unwrap(), crate::tail::files::log_file::Found::Bytes(14));
        assert!(scout.found.is_empty() && scout.watches.is_empty());
    }

    #[test]
    fn one_that_nobody_told_of_is_described_once_it_is_gone_and_then_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (watcher, mut scout) = (Inotify::new().unwrap(), Newcomers::default());
        scout.start(&watcher, root.path().to_owned());
        let described =
            r#"{"ID":"…","Name":"/web","Config":{"Image":"nginx:1","Labels":{"a":"b"}},"Driver":"overlay2"}"#;
        for (id, description) in [("ab", Some(described)), ("cd", Some("{")), ("ef", None), ("01", Some(described))] {
            let id = id.repeat(32);
            let folder = root.path().join(&id);
            fs::create_dir(&folder).unwrap();
            drain(&watcher, &mut scout);
            if let Some(description) = description {
                fs::write(folder.join("config.v2.json"), description).unwrap();
            }
            fs::write(folder.join(format!("{id}-json.log")), "{}\n").unwrap();
            drain(&watcher, &mut scout);
            // The last one is still there: a listing will tell of it.
            if !id.starts_with("01") {
                fs::remove_dir_all(folder).unwrap();
            }
        }
        drain(&watcher, &mut scout);
        assert_eq!(scout.expire(&watcher, Instant::now()), []);
        let late = Instant::now() + KEPT * 2;
        let mut told = scout.expire(&watcher, late);
        told.sort_by(|one, other| one.id.cmp(&other.id));
        let names: Vec<&str> = told.iter().map(|container| &*container.name).collect();
        assert_eq!(names, ["web", "cdcdcdcdcdcd", "efefefefefef"]);
        assert_eq!((&*told[0].image, &told[0].labels["a"], told[0].is_up()), ("nginx:1", &"b".to_owned(), false));
        assert_eq!(scout.expire(&watcher, late), [], "told once");
        assert!(scout.take(&"ab".repeat(32)).is_some_and(|found| found.log.is_some()));
        scout.expire(&watcher, late + KEPT * 2);
        assert!(scout.found.is_empty() && scout.watches.is_empty());
    }

    #[test]
    fn whom_nobody_asks_for_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (watcher, mut scout) = (Inotify::new().unwrap(), Newcomers::default());
        scout.start(&watcher, root.path().to_owned());
        for number in 0..MOST + 10 {
            fs::create_dir(root.path().join(format!("{number:064x}"))).unwrap();
        }
        drain(&watcher, &mut scout);
        assert_eq!(scout.found.len(), MOST);
        scout.ignore(&watcher, &format!("{:064x}", 1));
        assert_eq!(scout.found.len(), MOST - 1);
        scout.expire(&watcher, Instant::now());
        assert_eq!(scout.found.len(), MOST - 1);
        scout.expire(&watcher, Instant::now() + KEPT * 2);
        assert!(scout.found.is_empty() && scout.watches.is_empty());
    }
}

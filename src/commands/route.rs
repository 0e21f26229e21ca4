//! Decides by which route a container is read.
//!
//! Files are readable if the engine is on this machine, its folder of containers is where it reports, and permissions
//! allow it. Then the container's folder decides: the log file in it shows the logging driver, which creates the file
//! when the container is first started. IDs are random, so a folder of that name belongs to that container, whatever
//! else is mounted here. Podman's `json-file` driver writes another format, so its files are not read.

use crate::config::Source;
use crate::docker::{Docker, Engine};
use crate::model::container::{Container, is_full_id};
use crate::model::line_id::Route;
use crate::tail;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The routes that an engine and `--source` allow.
pub(super) struct Routes {
    /// The engine's folder of containers, with a folder for each ID.
    pub(super) folder: PathBuf,
    /// Whether log files can be read; else why not.
    files: Result<(), io::Error>,
    pub(super) source: Source,
}

/// The route of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The log file in this folder; the driver may not have created it yet.
    File(PathBuf),
    /// The API, whether as `stream`, `rotate` or `poll`.
    Stream,
    /// Neither: the container has no file, and `--source` allows nothing else.
    Nothing,
}

impl Routes {
    /// Checks whether log files of this engine can be read at all.
    pub(super) fn new(docker: &Docker, engine: &Engine, source: Source) -> Self {
        let folder = engine.root_dir.join("containers");
        let files = if !docker.endpoint().is_local() {
            Err(io::Error::new(io::ErrorKind::NotFound, "the engine is not on this machine"))
        } else if engine.is_podman {
            Err(io::Error::new(io::ErrorKind::Unsupported, "Podman's log files have another format"))
        } else if !is_plain(&folder) {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the engine reports no absolute path"))
        } else {
            tail::can_read(&folder)
        };
        Routes { folder, files, source }
    }

    /// Returns why files cannot be read, if `--source` asks for them.
    pub(super) fn file_error(&self) -> Option<&io::Error> {
        self.files.as_ref().err().filter(|_| matches!(self.source, Source::Auto | Source::File))
    }

    /// Returns the route of a container without a log file.
    pub(super) fn api_route(&self) -> Route {
        match self.source {
            Source::Rotate => Route::Rotate,
            Source::Poll => Route::Poll,
            Source::Auto | Source::File | Source::Stream => Route::Stream,
        }
    }

    /// Returns the folder of a container, if it can be read.
    pub(super) fn container_folder(&self, id: &str) -> Option<PathBuf> {
        (self.files.is_ok() && is_full_id(id)).then(|| self.folder.join(id))
    }

    /// Returns the folder in which the folders of new containers appear, if files are read.
    pub(super) fn folder_to_watch(&self) -> Option<&Path> {
        let may_file = self.files.is_ok() && matches!(self.source, Source::Auto | Source::File);
        may_file.then_some(&*self.folder)
    }

    /// Chooses the route of a container by its current state and log file.
    pub(super) fn choose(&self, container: &Container) -> Choice {
        let may_stream = self.source != Source::File;
        let is_allowed = matches!(self.source, Source::Auto | Source::File) && is_full_id(&container.id);
        let may_file = self.files.is_ok() && is_allowed;
        let folder = self.folder.join(&container.id);
        let has_file = may_file && tail::has_log(&folder, &container.id);
        match (has_file, may_file, may_stream) {
            (true, ..) => Choice::File(folder),
            (false, true, _) if container.state == "created" => Choice::File(folder),
            (false, _, true) => Choice::Stream,
            (false, _, false) => Choice::Nothing,
        }
    }
}

/// Returns whether a path is absolute and without `..`. The engine can report any path, and this process may be root.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_paths_only_from_valid_ids() {
        let folder = tempfile::tempdir().unwrap();
        let routes = Routes { folder: folder.path().to_owned(), files: Ok(()), source: Source::Auto };
        let id = "ab".repeat(32);
        std::fs::create_dir(folder.path().join(&id)).unwrap();
        std::fs::write(folder.path().join(&id).join(format!("{id}-json.log")), "").unwrap();
        for (id, state, expected) in [
            (id.as_str(), "running", Choice::File(folder.path().join(&id))),
            (&"cd".repeat(32), "running", Choice::Stream),
            (&"cd".repeat(32), "created", Choice::File(folder.path().join("cd".repeat(32)))),
            ("../../etc/passwd", "created", Choice::Stream),
            ("", "created", Choice::Stream),
            (&"AB".repeat(32), "created", Choice::Stream),
        ] {
            let container = Container { id: id.into(), state: state.into(), ..Container::default() };
            assert_eq!(routes.choose(&container), expected, "{id} {state}");
        }
        let only_files = Routes { source: Source::File, ..routes };
        let gone = Container { id: "cd".repeat(32), state: "exited".into(), ..Container::default() };
        assert_eq!(only_files.choose(&gone), Choice::Nothing);
        assert!(
            !is_plain(Path::new("/var/lib/../../etc")) && !is_plain(Path::new("var")) && is_plain(Path::new("/var"))
        );
    }
}

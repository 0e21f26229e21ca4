//! By which route a container is read.
//!
//! The file route is open when the engine is on this machine, keeps its containers where it says, and we may look
//! there. A container's file then decides: what stands there tells the driver, which makes it when the container is first
//! started. IDs are random, so a folder of that name is that container's, whatever else is mounted here. Podman calls a driver of another format `json-file`, so its files are left alone.

use crate::config::Source;
use crate::docker::{Docker, Engine};
use crate::model::container::Container;
use crate::model::cursor::Route;
use crate::tail;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Where log files are, or why they are not read.
pub(super) struct Routes {
    pub(super) folder: PathBuf,
    files: Result<(), io::Error>,
    pub(super) source: Source,
}

/// How one container is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// From the file in this folder, which may not be there yet.
    File(PathBuf),
    /// Over the API.
    Stream,
    /// Not at all: it has no file, and nothing else was allowed.
    Nothing,
}

impl Routes {
    /// Looks once whether files can be read at all.
    pub(super) fn new(docker: &Docker, engine: &Engine, source: Source) -> Self {
        let folder = engine.root_dir.join("containers");
        let files = if !docker.endpoint().is_local() {
            Err(io::Error::new(io::ErrorKind::NotFound, "the engine is not on this machine"))
        } else if engine.is_podman {
            Err(io::Error::new(io::ErrorKind::Unsupported, "Podman's log files have another form"))
        } else if !is_plain(&folder) {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the engine names no absolute path"))
        } else {
            tail::can_read(&folder)
        };
        Routes { folder, files, source }
    }

    /// Why files are not read though they were not ruled out.
    pub(super) fn refusal(&self) -> Option<&io::Error> {
        self.files.as_ref().err().filter(|_| matches!(self.source, Source::Auto | Source::File))
    }

    /// How a container without a file is read.
    pub(super) fn over_api(&self) -> Route {
        match self.source {
            Source::Rotate => Route::Rotate,
            Source::Poll => Route::Poll,
            Source::Auto | Source::File | Source::Stream => Route::Stream,
        }
    }

    /// Where a container's log lies, if that may be looked at.
    pub(super) fn visible(&self, id: &str) -> Option<PathBuf> {
        (self.files.is_ok() && is_id(id)).then(|| self.folder.join(id))
    }

    /// Where files of new containers will appear, if files are read.
    pub(super) fn new_files(&self) -> Option<&Path> {
        let may_file = self.files.is_ok() && matches!(self.source, Source::Auto | Source::File);
        may_file.then_some(&*self.folder)
    }

    /// For a container as it is now.
    pub(super) fn of(&self, container: &Container) -> Choice {
        let may_stream = self.source != Source::File;
        let is_allowed = matches!(self.source, Source::Auto | Source::File) && is_id(&container.id);
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

/// The engine can name any path, and we may be root: none that leads elsewhere by its form.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir))
}

/// An ID becomes part of a path.
fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_is_made_of_what_is_no_id() {
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
            assert_eq!(routes.of(&container), expected, "{id} {state}");
        }
        let only_files = Routes { source: Source::File, ..routes };
        let gone = Container { id: "cd".repeat(32), state: "exited".into(), ..Container::default() };
        assert_eq!(only_files.of(&gone), Choice::Nothing);
        assert!(
            !is_plain(Path::new("/var/lib/../../etc")) && !is_plain(Path::new("var")) && is_plain(Path::new("/var"))
        );
    }
}

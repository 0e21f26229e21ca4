//! By which route a container is read.
//!
//! The file route is open when the engine is on this machine, keeps its containers where it says, and we may look
//! there. A container's file then decides: only the `json-file` driver makes one of that name, and it makes it when the
//! container is first started. IDs are random, so a folder of that name is that container's, whatever else is mounted
//! here. Podman calls a driver of another format `json-file`, so its files are left alone.

use super::watch::Source;
use crate::container::Container;
use crate::docker::{Docker, Engine};
use crate::tail;
use std::io;
use std::path::PathBuf;

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
        } else {
            tail::can_read(&folder)
        };
        Routes { folder, files, source }
    }

    /// Why files are not read though they were not ruled out.
    pub(super) fn refusal(&self) -> Option<&io::Error> {
        self.files.as_ref().err().filter(|_| matches!(self.source, Source::Auto | Source::File))
    }

    /// For a container as it is now.
    pub(super) fn of(&self, container: &Container) -> Choice {
        let may_stream = self.source != Source::File;
        let may_file = self.files.is_ok() && matches!(self.source, Source::Auto | Source::File);
        let folder = self.folder.join(&container.id);
        let has_file = may_file && tail::path(&folder, &container.id).symlink_metadata().is_ok();
        match (has_file, may_file, may_stream) {
            (true, ..) => Choice::File(folder),
            (false, true, _) if container.state == "created" => Choice::File(folder),
            (false, _, true) => Choice::Stream,
            (false, _, false) => Choice::Nothing,
        }
    }
}

//! What to read of one container's log files, and where to start.
//!
//! The reader receives it ([`super::reader`]) and passes it on to the container's log ([`super::container_log`]).

use crate::model::batch::{ContainerKey, Item};
use crate::model::position::Position;
use crate::tail::{Start, Window};
use std::path::PathBuf;

/// A request to follow a container's log files.
#[derive(Debug)]
pub struct Follow {
    /// Identifies the container in batches and reports.
    pub key: ContainerKey,
    pub id: String,
    /// The container's folder, which holds its log.
    pub folder: PathBuf,
    /// Where to start without a position.
    pub start: Start,
    /// Where an earlier run stopped; `None` if it has no position.
    pub position: Option<Position>,
    /// Which lines to show.
    pub window: Window,
    /// Longer messages are cut. In bytes.
    pub max_line_size: usize,
    /// Read what exists now, then stop.
    pub once: bool,
    /// Open the file, but read nothing before [`super::reader::Command::Admit`], because the container may not match the selector.
    pub is_held: bool,
    /// Items to put on the queue when the file is opened, before its first line.
    pub on_open: Vec<Item>,
}

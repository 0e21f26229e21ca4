//! Follows the log files of all containers on this machine in one thread.
//!
//! [`reader`] is the thread. [`follow`] says what to read of a container; [`container_log`] reads one container's log, [`rotation`] manages its files, [`log_file`]
//! is one open file, [`seek`] finds where to start, and [`pread`] reads bytes. [`inotify`] reports changes, [`rescan`]
//! schedules checks for missed ones, [`mounts`] notices a new mount, and [`newcomers`] opens the logs of new containers
//! early.

mod container_log;
pub(crate) mod follow;
mod inotify;
pub(crate) mod log_file;
mod mounts;
mod newcomers;
pub(crate) mod pread;
pub(crate) mod reader;
mod rescan;
mod rotation;
mod seek;

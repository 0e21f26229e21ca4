//! Reads log files on this machine: one thread, told by inotify, follows the files of all containers.

mod container_log;
mod inotify;
pub(crate) mod log_file;
mod mounts;
mod newcomers;
pub(crate) mod pread;
pub(crate) mod reader;
mod rescan;
mod rotation;
mod seek;

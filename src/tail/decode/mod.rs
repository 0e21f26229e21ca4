//! Takes blocks of a log file apart into records, for each format that the engine writes.

pub(crate) mod block;
pub(crate) mod format;
pub(crate) mod json_file;
pub(crate) mod local;

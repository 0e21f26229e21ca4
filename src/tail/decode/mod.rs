//! Decodes log files: blocks into records, and records into pieces, for each of Docker's file formats.

pub(crate) mod block;
pub(crate) mod format;
pub(crate) mod json_file;
pub(crate) mod local;

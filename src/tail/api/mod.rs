//! Reads a container's log as the API sends it.

pub(crate) mod body;
pub(crate) mod frames;

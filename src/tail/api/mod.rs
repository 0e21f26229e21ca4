//! Decodes container logs from API responses: [`body`] splits a body into records, [`frames`] turns records into lines.

pub(crate) mod body;
pub(crate) mod frames;

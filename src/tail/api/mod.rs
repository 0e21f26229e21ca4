//! Decodes container logs from API responses: [`body`] splits a body into records, [`frames`] turns records into lines, and
//! `received` finds what Podman left out.

pub(crate) mod body;
pub(crate) mod frames;
mod received;

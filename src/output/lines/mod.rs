//! Writes log lines: as text, as JSON, or as they are.

mod color;
mod json;
pub(crate) mod printer;
pub(crate) mod repeats;
mod stamp;
mod text;

//! Formats log lines as text, as JSON, or as raw bytes.

mod color;
mod json;
pub(crate) mod printer;
pub(crate) mod repeats;
mod stamp;
mod text;

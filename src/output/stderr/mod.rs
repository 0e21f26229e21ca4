//! Writes notices, diagnostics and progress to standard error.

pub(crate) mod activity;
pub(crate) mod diagnostics;
pub(crate) mod history_progress;
pub(crate) mod status_line;

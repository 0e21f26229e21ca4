//! Reads container logs, from files and over the API, and turns them into batches of lines.
//!
//! [`files`] follows the log files of all containers in one thread ([`LogReader`]), and [`decode`] decodes their two
//! formats. [`api`] decodes API responses and continues from one to the next ([`Frames`]); the requests are sent
//! elsewhere. For both routes, [`lines`] joins pieces into lines, and [`resume`] decides which of them are new and computes
//! the position to resume from. [`log_stat`] shows whether a log has changed without reading it. [`config_v2`]
//! reads dockerd's own description of a container.
//!
//! Invariant: each line comes once and in the order of the log, whichever route reads it and wherever reading was
//! interrupted. What is known to be missing becomes a gap.

mod api;
mod config_v2;
mod decode;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod lines;
mod log_stat;
mod resume;

pub(crate) use api::body::Record;
pub(crate) use api::frames::{Decoded, Error, Frames, Receipt};
pub(crate) use config_v2::{ContainerConfig, describe};
pub(crate) use decode::format::has_log;
pub use files::follow::Follow;
pub use files::reader::{Command, LogReader, Report, Wake};
pub(crate) use files::reader::{Measure, can_read};
pub(crate) use log_stat::LogStat;
pub use resume::Window;
pub(crate) use resume::{Delivered, Dialect, Discontinuity, Mode, RequestRange};

use crate::model::batch::Encoding;
use crate::model::line_id::Stream;
use crate::model::time::Timestamp;
use std::borrow::Cow;

/// By how many nanoseconds times in a log may be out of order.
const SLACK: i64 = 10_000_000_000;

/// Returns an earlier time, from which reading misses no record whose time is out of order.
pub(crate) fn minus_slack(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(SLACK))
}

/// Where to start in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first line that exists, including rotated files.
    All,
    /// This many lines before the end. 0 starts with the next line to be written.
    Last(u64),
    /// The first line at or after a time.
    Since(Timestamp),
}

/// The content of one record: a line or a piece of one.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    time: Timestamp,
    stream: Stream,
    /// The message without its newline.
    text: Cow<'a, [u8]>,
    encoding: Encoding,
    /// The text was followed by a newline.
    complete: bool,
}

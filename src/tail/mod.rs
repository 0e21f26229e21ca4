//! Tails: from what the engine writes to lines.
//!
//! `reader` is one thread that follows the files of all containers ([`Reader`]); `file` reads those of one container,
//! `chain` knows which there are and what is missing between them, `handle` is one file, `seek` where to start in it,
//! `pread` how its bytes are read, `watcher` how it is told that they grow, `rounds` when they are looked at anyway,
//! `mounts` whether their folder was mounted anew, `scout` who is new. `format` knows the two forms of files, `block` takes
//! a block of one apart, `json_file` and `local` one record, and `partial` puts lines together. Over the API `body` takes the
//! bytes of an answer apart, `stream` goes on from one answer to the next ([`Frames`]), and `trace` tells whether there is
//! more. `description` is what the engine has written down of a container. Both routes end in batches on the one queue.

mod api;
mod container_config;
mod decode;
mod files;
mod lines;
mod log_stat;
#[cfg(any(test, fuzzing))]
pub mod oracle;

pub use api::body::Record;
pub use api::frames::{Delivered, Dialect, Error, Frames, RequestRange};
pub use container_config::{ContainerConfig, describe};
pub use decode::format::has_log;
pub use files::reader::{Command, Follow, Measure, Reader, Report, Wake, can_read};
pub use lines::Window;
pub use log_stat::LogStat;

use crate::model::batch::Encoding;
use crate::model::cursor::Stream;
use crate::model::time::Timestamp;
use std::borrow::Cow;

/// Nanoseconds by which times in a log may be out of order.
const SLACK: i64 = 10_000_000_000;

/// So much earlier that nothing with a time out of order is missed.
pub fn before(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(SLACK))
}

/// Where to start in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first line of the file that is there now: a container that has just started.
    Beginning,
    /// The first line there is, in rotated files too.
    All,
    /// The last so many lines; 0 is what is written from now on.
    Last(u64),
    /// The first line at or after a time.
    Since(Timestamp),
}

/// What one record of a log holds: a line or a piece of one.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    time: Timestamp,
    stream: Stream,
    /// Without the newline.
    text: Cow<'a, [u8]>,
    encoding: Encoding,
    /// The newline was there.
    complete: bool,
}

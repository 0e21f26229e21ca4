//! `docker logwatch` follows the logs of every container.
//!
//! # Modules
//!
//! ```text
//! main -> cli -> commands -> { docker, tail, state, output, serve } -> model, config, metrics
//! ```
//!
//! - [`cli`] turns arguments into options, makes one call and returns an exit code: docker's plugin protocol, clap,
//!   completion, man pages, signals, hints for errors.
//! - [`commands`] does the work behind each command. It connects the modules below and starts their tasks and threads;
//!   only `state`, `serve` and signal handling start their own.
//! - [`docker`] talks to the Docker Engine, and is the only module that speaks HTTP to it.
//! - [`tail`] turns logs, from files and from API streams, into lines.
//! - [`state`] keeps what outlasts a run, and is the only module that speaks SQL.
//! - [`output`] writes lines, reports and diagnostics, and is the only module that writes to stdout and stderr.
//! - [`serve`] serves metrics and health over HTTP, each connection in its own task.
//! - [`model`] holds the types that the others share; [`config`] the settings; [`metrics`] the counters.
//!
//! Dependencies point downwards, and the five modules below `commands` do not know each other: `commands` passes data
//! from one to the next. A command has the same name on both levels: `cli/watch.rs` parses the arguments,
//! `commands/watch/` does the work. `tests/it` checks these directions, and that no two files depend on each other.
//!
//! Everything but [`cli::main`] is private, so that the compiler finds what nobody uses. What tests, benches and fuzz
//! targets need is re-exported by [`internals`].
//!
//! # The path of a line
//!
//! `tail/files/reader.rs`, one thread for all files, learns from inotify that a file grew and reads a block of it
//! through an open handle (`log_file`, `container_log`). New files wait until the current one is read (`rotation`).
//! `tail/decode` finds the message of each record in the block, `tail/lines.rs` joins what dockerd split, and a
//! [`model::batch::Batch`] with the block and references into it enters the one bounded [`model::queue::Queue`].
//! `commands/deliver/`, another thread, passes it to [`output::Printer`], which formats it (`output/lines/`) and
//! writes when its buffer is full or nothing waits. With `--resume`, positions are committed after the output has
//! taken the lines (`checkpoint`). With `-o FILE`, `wal` records each write first, and `recovery` completes the file
//! of a run that was killed; `output_file` replaces a file that was rotated away. No line is allocated, locked or sent
//! on its own. A slow reader of the output fills the queue; then reading pauses, opening does not.
//!
//! # The path of a start
//!
//! `commands/events/subscription.rs` keeps the event stream open and passes each event once. Events wait in `backlog`,
//! so that the socket is read without ever blocking. `commands/watch/feed.rs` subscribes, lists, and lists again when
//! events may be missing. `discovery` turns listings and events, in any order, into changes. `watch/mod.rs` asks the
//! selector, `supervisor` and `commands/route.rs` choose the route, and the reader opens the file, or waits in its
//! directory until dockerd creates it. Without a readable file, `commands/stream/` reads over the API: `session` after
//! `session`, with an `idle` probe and a `retry` budget. After a `die` event, the log is still read to its end.
//!
//! # The path of a call
//!
//! Every request passes `docker/pool`: it waits for the rate limit and for a free client, is retried if that can help,
//! and fails at its deadline. Logs and events have connections of their own (`stream_permits` bounds them). While the
//! engine is down, one ping at a time looks for it (`wait_for_daemon`). A long-running command also runs
//! [`docker::Docker::upkeep`], which checks the health of the clients.
//!
//! # The path of an event to the inventory
//!
//! `commands/inventory/` receives the same news as `watch`. An event becomes a [`model::inventory::Update`], and the
//! state merges it with the row by the time of the event. `schedule` decides when to request what events do not
//! contain; `observe` requests it, [`model::plan`] compares within the transaction of the state, and the difference is
//! written. `commands/reconcile.rs` does the same once.
//!
//! # Invariants
//!
//! - Lines of a container keep their order, and each is delivered once by whichever route: every route ends in a position
//!   from which any route can continue (`tail/resume/`).
//! - A known loss becomes a [`model::batch::Gap`].
//! - What inotify misses is found by a periodic check (`tail/files/rescan.rs`): at once after an overflow or a new
//!   mount, within half a minute on local file systems, five seconds on file systems that others write to, one second
//!   for a file without a watch.
//! - A file is recognised by its [`model::file_id`] and its content, never by its device number; only its size shows
//!   that it was truncated.
//! - The queue is bounded in bytes. Events are dropped when the backlog is full, and a listing makes up for them.
//!   Where the events themselves are wanted, the stream is closed instead and requested again from there.
//! - A failure of one container's log does not affect the others.
//! - Container output, names, labels, files and answers of the engine are hostile. Whatever reaches a terminal passes
//!   `output/sanitizer.rs`.
//! - Decisions are pure: discovery, joining and resuming of lines, backoff, the decoders, and the pool's slots, breaker,
//!   health and rate limiter receive the time or need none, and tables test them.
//! - Following logs never waits for the inventory: a comparison makes up for what the inventory does not take or cannot
//!   write.
//! - Each decoder accepts what an independent library accepts, and reads the same: the modules named `fuzz_checks`, which
//!   only tests and `fuzz/` build.

pub mod cli;
mod commands;
mod config;
mod docker;
mod metrics;
mod model;
mod output;
mod serve;
mod state;
mod tail;

/// What tests, benches and fuzz targets use. Not an API: anything here may change at any time.
#[doc(hidden)]
pub mod internals {
    pub mod config {
        pub use crate::config::{CircuitBreaker, DockerConfig, PoolConfig, RateLimit};
    }

    pub mod docker {
        pub use crate::docker::endpoint::contexts;
        pub use crate::docker::{
            BreakerState, ClientReport, Docker, Endpoint, Environment, Error, Event, EventStream, EventsQuery, Flags,
            HEALTHY, Kind, LogStream, LogsQuery, Snapshot, Spent, Version,
        };
    }

    pub mod metrics {
        pub use crate::metrics::PoolMetrics;
    }

    pub mod model {
        pub use crate::model::batch::{Batch, ContainerKey, Encoding, Head, Item, Line, Part, Reason};
        pub use crate::model::container::Container;
        pub use crate::model::health::Status;
        pub use crate::model::json;
        pub use crate::model::line_id::{Cursor, Route, Stream};
        pub use crate::model::position::Position;
        pub use crate::model::queue::Queue;
        pub use crate::model::selector::Filters;
        pub use crate::model::time::Timestamp;
    }

    pub mod output {
        pub use crate::output::{Ansi, LogFormat, OutputFormat, Printer, PrinterSettings, When};
    }

    pub mod tail {
        pub use crate::tail::{Command, Follow, LogReader, Report, Start, Wake, Window};
    }

    /// Checks of the decoders that hold for any input.
    #[cfg(any(test, fuzzing))]
    pub mod oracle {
        pub use crate::docker::fuzz_checks::events;
        pub use crate::model::fuzz_checks::{escape, timestamp, unescape};
        pub use crate::tail::fuzz_checks::{frames, gzip, json_block, json_record, local_block, local_record};
    }
}

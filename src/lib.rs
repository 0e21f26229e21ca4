//! `docker logwatch`: follows the logs of every container.
//!
//! # The rooms
//!
//! ```text
//! main -> cli -> engine -> { docker, tail, state, output, serve } -> shelf
//! ```
//!
//! - [`cli`] takes words and gives an exit code: docker's plugin handshake, clap, completion, advice.
//! - [`engine`] connects the rooms and answers the verbs; the only one that spawns tasks and threads, but for
//!   the state's own.
//! - [`docker`] asks the engine, and is the only one that speaks HTTP to it.
//! - [`tail`] reads logs, from files and from API streams, into lines.
//! - [`state`] keeps what has to outlast a run, and is the only one that speaks SQL.
//! - [`output`] writes lines and reports, and is the only one that writes to stdout.
//! - [`serve`] tells metrics and health over HTTP, each connection in a task of its own.
//! - The shelf holds what travels and what all may use: [`model::batch`], [`model::queue`], [`model::position`], [`model::file_id`], [`model::container`],
//!   [`model::inventory`] and [`model::plan`], [`model::selector`], [`model::time`], [`model::json`], [`model::small_file`], [`config`], [`metrics`], [`model::health`],
//!   [`model::stop`].
//!
//! The five rooms below the engine do not know each other: it hands the bytes of one to the next. A verb has one name on
//! two floors: `cli/watch.rs` takes the words, `commands/watch/mod.rs` does the work.
//!
//! # A line, from disk to terminal
//!
//! `tail/files/reader.rs`, one thread for all files, is told by inotify (`watcher`) that a file grew and reads a block of it
//! through an open handle (`file`, `handle`); new files wait behind it (`chain`). `json_file` finds the message of each
//! record in the block, `partial` joins what the engine cut, and a [`model::batch::Batch`] with the block and references into
//! it goes on the one bounded [`model::queue::Queue`]. `commands/deliver/mod.rs`, another thread, hands it to [`output::Printer`],
//! which formats (`text`, `json`) and writes when its buffer is full or nothing waits; `commands/deliver/output_file.rs` replaces a
//! file that was moved away. With `--resume` what goes to a file goes to `commands/deliver/wal.rs` first, from which
//! `commands/deliver/recovery.rs` completes the file of a run that was killed. No line is allocated, locked or sent alone. A reader
//! of our output that is slow fills the queue; then reading stops, and opening does not.
//!
//! # A start, from event to new tail
//!
//! `commands/events/subscription.rs` keeps the event stream open for all verbs and passes each event once; they wait in
//! `commands/events/backlog.rs`, so the socket is read without ever waiting. `commands/watch/feed.rs` subscribes, then lists, and lists again
//! when events may be missing. `commands/watch/discovery.rs` turns listings and events into changes, whatever their order.
//! `commands/watch/mod.rs` asks the selector and `commands/watch/supervisor.rs` the route, and the reader opens the file, or waits in its
//! folder for the engine to make it; where there is none, `commands/stream/mod.rs` reads over the API. A `die` closes nothing: the
//! log is read to its end first.
//!
//! # A call
//!
//! Whatever is asked of the engine goes through `docker/pool`: a call waits for the rate limit and for a free client, is
//! repeated where that helps, and ends with its time. Logs and events have connections of their own, so many at one time.
//! Nobody hammers an engine that is gone: one ping at a time looks for it, while all others wait. A verb that lasts runs
//! [`docker::Docker::upkeep`] beside it, which checks the clients' health.
//!
//! # An event, from the engine to a row
//!
//! What `watch` hears `commands/inventory/mod.rs` hears too: an event becomes an [`model::inventory::Told`], and the state merges it with
//! the row by the time it tells of. `commands/inventory/schedule.rs` plans a look at what events do not tell; `commands/inventory/observe.rs` asks
//! the engine, [`model::plan`] compares within the transaction of the state, and what differs is written. `commands/reconcile.rs`
//! does the same once.
//!
//! # What always holds
//!
//! - A container's lines keep its order, and each comes once, from whichever route: every route ends in a position that
//!   any route can go on from.
//! - What is known to be lost is told as a [`model::batch::Gap`].
//! - What inotify misses is found by a look: at once after an overflow or a new mount, within half a minute on a file system
//!   of this machine, five seconds on one that others write to, a second for a file without a watch.
//! - A file is recognised by [`model::file_id`] and content, never by its device number; only its size tells that it was truncated.
//! - The queue is bounded by bytes. Events are dropped when nobody takes them, and a listing makes up for it; where the
//!   events themselves are wanted, the stream is closed meanwhile and asked for again from there.
//! - The trouble of one container ends no other's tail.
//! - Container output, names, labels and errors of the engine are hostile: what reaches a terminal was made safe.
//! - `discover`, `partial`, `backoff`, the stream decoder, and the pool's `roster`, `breaker`, `health` and `bucket` are given
//!   the time or need none: their tests are tables.
//! - The inventory is never in the way: what it does not take or cannot write, a comparison makes up for.
//! - What a decoder takes, a library takes for the same: the modules named `oracle`, which only tests and `fuzz/` build.

pub mod cli;
pub mod commands;
pub mod config;
pub mod docker;
pub mod metrics;
pub mod model;
pub mod output;
pub mod serve;
pub mod state;
pub mod tail;

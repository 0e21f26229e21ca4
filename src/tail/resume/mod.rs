//! Decides which lines of a log are new and where the next reader continues, for both routes. Pure: no I/O, no batches.
//!
//! Invariant:
//! 1. What was delivered of a log is a prefix of each stream, and a position names the last line of each prefix.
//! 2. A line is old exactly if its stream's prefix contains it; it is delivered if it is new and shown by the window.
//! 3. A position moves past a line only when the line and all lines before it, of both streams, were delivered or hidden.
//! 4. Any route may continue from any position: reading restarts at or before the first line that is not delivered.
//! 5. If lines behind the position are gone, the first new line after them is [`Verdict::NewAfterGap`].
//!
//! [`filter`] recognises lines in either of two ways. A file position counts the lines after an offset; a time position
//! compares times, which are ambiguous after the clock was set back, and needs the last line to reappear as proof that
//! nothing is lost. [`request`] chooses the range of each API request and checks that the response continues there;
//! [`tail_window`] is the number of records that it asks for. [`received`] fills in what Podman leaves out of responses.

mod filter;
mod received;
mod request;
mod tail_window;

pub use filter::Window;
pub(crate) use filter::{Completeness, ReplayFilter, RestartPoint, StreamProgress, Verdict};
pub(crate) use received::{Comparison, Recall, Received, Tracker};
pub(crate) use request::{Admission, ReadLines, RequestState};
pub(crate) use request::{Delivered, Dialect, Discontinuity, Mode, RequestRange};

#[cfg(test)]
mod tests;

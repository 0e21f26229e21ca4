//! The thread that carries items from the queue to the printer.
//!
//! It takes all that waits, and flushes when nothing waits any more: one line leaves at once, a flood in large writes.

use crate::output::{Error, Printer};
use crate::queue::Queue;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use tokio::sync::oneshot;

/// Starts it. The receiver is told how it ended: the queue was closed, or nothing can be written any more.
pub(super) fn start(queue: Arc<Queue>, printer: Printer) -> io::Result<oneshot::Receiver<Result<(), Error>>> {
    let (done, ended) = oneshot::channel();
    thread::Builder::new().name("deliver".into()).spawn(move || {
        let result = deliver(&queue, printer);
        queue.abandon();
        // Whoever stopped waiting has left already.
        let _ = done.send(result);
    })?;
    Ok(ended)
}

fn deliver(queue: &Queue, mut printer: Printer) -> Result<(), Error> {
    let mut items = VecDeque::new();
    while queue.take(&mut items, printer.patience()) {
        if items.is_empty() {
            printer.rest();
            continue;
        }
        while let Some(item) = items.pop_front() {
            let taken = printer.take(&item);
            queue.finish(item);
            taken?;
        }
        if queue.is_empty() {
            printer.flush()?;
        }
    }
    printer.flush()
}

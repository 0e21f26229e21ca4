//! The thread that takes items from the queue, prints them, and checkpoints the positions.
//!
//! It takes everything that is queued and flushes when the queue is empty: a single line is written at once, a flood in
//! large writes.

pub(crate) mod checkpoint;
pub(crate) mod output_file;
pub(crate) mod recovery;
pub(crate) mod wal;

use super::Error;
use crate::metrics::LogMetrics;
use crate::model::batch::Item;
use crate::model::queue::Queue;
use crate::model::time::Timestamp;
use crate::output::Printer;
use crate::state::OutputLock;
use checkpoint::Checkpointer;
use output_file::Rollover;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use tokio::sync::oneshot;

/// Everything that the thread works with.
pub(super) struct Deliver {
    pub(super) printer: Printer,
    /// Follows the rotation of the output file.
    pub(super) rollover: Rollover,
    /// Commits the positions; `None` without `--resume`, which stores none.
    pub(super) checkpointer: Option<Checkpointer>,
    /// Lock of the output file; held until the last write.
    pub(super) _lock: Option<OutputLock>,
    /// Counts lines and gaps.
    pub(super) logs: LogMetrics,
}

impl Deliver {
    /// Starts the thread. The receiver gets its result: `Ok` once the queue is closed and written, or an error of the
    /// output or the state.
    pub(super) fn start(self, queue: Arc<Queue>) -> io::Result<oneshot::Receiver<Result<(), Error>>> {
        let (sender, ended) = oneshot::channel();
        thread::Builder::new().name("deliver".into()).spawn(move || {
            let result = self.run(&queue);
            queue.abandon();
            // Fails if nobody waits for the result any more.
            let _ = sender.send(result);
        })?;
        Ok(ended)
    }

    fn run(mut self, queue: &Queue) -> Result<(), Error> {
        let delivered = self.deliver(queue);
        tracing::info!("delivered {}", self.logs);
        // Positions of lines that were written before a failure are committed as well.
        let committed = self.checkpointer.take().map_or(Ok(()), |checkpointer| checkpointer.finish(delivered.is_ok()));
        delivered.and(committed.map_err(Error::from))
    }

    fn deliver(&mut self, queue: &Queue) -> Result<(), Error> {
        let mut items = VecDeque::new();
        while queue.take(&mut items, self.max_wait()) {
            if items.is_empty() {
                self.printer.hide_idle_status();
            }
            while let Some(item) = items.pop_front() {
                self.rollover.check(&mut self.printer, self.checkpointer.as_mut())?;
                let taken = self.take(&item);
                match &item {
                    Item::Lines(batch) => self.logs.add(batch),
                    Item::Followed(_, _, Some(reported)) => self.logs.discovered(*reported, Timestamp::now()),
                    _ => {}
                }
                queue.finish(item);
                taken?;
                if self.printer.is_full() {
                    self.flush()?;
                }
                self.checkpoint()?;
            }
            if queue.is_empty() {
                self.flush()?;
                self.checkpoint()?;
            }
        }
        // Reports it if the file was removed after the last check, and what was written there is lost.
        self.rollover.check_now(&mut self.printer, self.checkpointer.as_mut())?;
        self.flush()
    }

    /// How long to wait for an item at most.
    fn max_wait(&self) -> Option<std::time::Duration> {
        let checkpoint = self.checkpointer.as_ref().and_then(Checkpointer::time_to_commit);
        self.printer.idle_timeout().into_iter().chain(checkpoint).min()
    }

    fn take(&mut self, item: &Item) -> Result<(), Error> {
        match item {
            Item::Lines(batch) => {
                let mut from = 0;
                while let Some(next) = self.printer.lines(batch, from)? {
                    if let Some(checkpointer) = &mut self.checkpointer {
                        checkpointer.take_part(batch, next);
                    }
                    self.flush()?;
                    from = next;
                }
            }
            item => self.printer.take(item)?,
        }
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.take(item);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        match &mut self.checkpointer {
            Some(checkpointer) => checkpointer.flush(&mut self.printer),
            None => Ok(self.printer.flush()?),
        }
    }

    /// Starts a commit if one is due. It flushes first: in a flood the queue is never empty, so nothing else does.
    fn checkpoint(&mut self) -> Result<(), Error> {
        if !self.checkpointer.as_ref().is_some_and(Checkpointer::is_due) {
            return Ok(());
        }
        self.flush()?;
        Ok(self.checkpointer.as_mut().map_or(Ok(()), Checkpointer::checkpoint)?)
    }
}

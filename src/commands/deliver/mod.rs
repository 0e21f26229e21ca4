//! The thread that carries items from the queue to the printer, and keeps how far it got.
//!
//! It takes all that waits, and flushes when nothing waits any more: one line leaves at once, a flood in large writes.

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

/// What becomes of items.
pub(super) struct Deliver {
    /// They are written, ...
    pub(super) printer: Printer,
    /// ... to the file that is under its name, ...
    pub(super) rollover: Rollover,
    /// ... how far that got is kept, ...
    pub(super) keeper: Option<Checkpointer>,
    /// Held as long as anything is written to the file.
    pub(super) _lock: Option<OutputLock>,
    /// ... and they are counted.
    pub(super) logs: LogMetrics,
}

impl Deliver {
    /// Starts it. The receiver is told how it ended: the queue was closed, or nothing can be written or kept any more.
    pub(super) fn start(self, queue: Arc<Queue>) -> io::Result<oneshot::Receiver<Result<(), Error>>> {
        let (done, ended) = oneshot::channel();
        thread::Builder::new().name("deliver".into()).spawn(move || {
            let result = self.run(&queue);
            queue.abandon();
            // Whoever stopped waiting has left already.
            let _ = done.send(result);
        })?;
        Ok(ended)
    }

    fn run(mut self, queue: &Queue) -> Result<(), Error> {
        let delivered = self.deliver(queue);
        tracing::info!("passed on {}", self.logs);
        // What was written before it failed is kept as well.
        let kept = self.keeper.take().map_or(Ok(()), |keeper| keeper.finish(delivered.is_ok()));
        delivered.and(kept.map_err(Error::from))
    }

    fn deliver(&mut self, queue: &Queue) -> Result<(), Error> {
        let mut items = VecDeque::new();
        while queue.take(&mut items, self.patience()) {
            if items.is_empty() {
                self.printer.hide_idle_status();
            }
            while let Some(item) = items.pop_front() {
                self.rollover.look(&mut self.printer, self.keeper.as_mut())?;
                let taken = self.take(&item);
                match &item {
                    Item::Lines(batch) => self.logs.add(batch),
                    Item::Begin(_, _, Some(told)) => self.logs.discovered(*told, Timestamp::now()),
                    _ => {}
                }
                queue.finish(item);
                taken?;
                if self.printer.is_full() {
                    self.flush()?;
                }
                self.keep()?;
            }
            if queue.is_empty() {
                self.flush()?;
                self.keep()?;
            }
        }
        // Nothing that was just written may be gone unseen.
        self.rollover.look_at_once(&mut self.printer, self.keeper.as_mut())?;
        self.flush()
    }

    fn patience(&self) -> Option<std::time::Duration> {
        let keeping = self.keeper.as_ref().and_then(Checkpointer::patience);
        self.printer.idle_timeout().into_iter().chain(keeping).min()
    }

    fn take(&mut self, item: &Item) -> Result<(), Error> {
        match item {
            Item::Lines(batch) => {
                let mut from = 0;
                while let Some(next) = self.printer.lines(batch, from)? {
                    if let Some(keeper) = &mut self.keeper {
                        keeper.take_part(batch, next);
                    }
                    self.flush()?;
                    from = next;
                }
            }
            item => self.printer.take(item)?,
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.take(item);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        match &mut self.keeper {
            Some(keeper) => keeper.flush(&mut self.printer),
            None => Ok(self.printer.flush()?),
        }
    }

    /// In a flood nothing is flushed because nothing waits, so it is when a commit is due.
    fn keep(&mut self) -> Result<(), Error> {
        if !self.keeper.as_ref().is_some_and(Checkpointer::is_due) {
            return Ok(());
        }
        self.flush()?;
        Ok(self.keeper.as_mut().map_or(Ok(()), Checkpointer::keep)?)
    }
}

//! The bounded queue between the readers and the output.
//!
//! The bound is in bytes. The bytes of an item count until the consumer has finished with it. There are two kinds of
//! producers. The reader thread must not block: it asks [`Queue::has_room`], calls [`Queue::push`], and is called back
//! once there is room again. Tasks that read API streams wait for room without blocking a thread ([`Queue::send`]).

use super::batch::{Item, Line};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The bytes of spare buffers that are kept for the next batches. Further buffers are freed.
const SPARE: usize = 2 * 1024 * 1024;

/// A bounded queue of items that also recycles the buffers of batches.
pub struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    room: Notify,
    limit: usize,
    on_room: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Bytes in `items`, and in items that the consumer took and has not finished.
    held: usize,
    /// Bytes of log files in the same items.
    unwritten: usize,
    closed: bool,
    /// The consumer is gone: new items are dropped.
    abandoned: bool,
    /// The reader thread found the queue full and waits for a call of `on_room`.
    callback_wanted: bool,
    spare: Vec<(Vec<u8>, Vec<Line>)>,
    /// Sum of the buffers in `spare`, at most [`SPARE`].
    spare_bytes: usize,
}

impl State {
    fn spare(&mut self, bytes: Vec<u8>, mut lines: Vec<Line>) {
        // An empty buffer is useless. A batch of joined lines has one.
        if !bytes.is_empty() && self.spare_bytes + bytes.len() <= SPARE {
            lines.clear();
            self.spare_bytes += bytes.len();
            self.spare.push((bytes, lines));
        }
    }
}

impl Queue {
    /// Creates a queue that is full when it holds `limit` bytes. `on_room` is called when there is room again
    /// after [`Queue::has_room`] returned `false`.
    pub fn new(limit: usize, on_room: impl Fn() + Send + Sync + 'static) -> Self {
        Queue { state: Mutex::default(), ready: Condvar::new(), room: Notify::new(), limit, on_room: Box::new(on_room) }
    }

    /// Whether there is room for a batch. After `false`, `on_room` will be called.
    pub fn has_room(&self) -> bool {
        let mut state = self.lock();
        let room = state.held < self.limit;
        state.callback_wanted = !room;
        room
    }

    /// Appends items even if the queue is full; the caller asks [`Queue::has_room`] first.
    pub fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = self.lock();
        if state.abandoned {
            return;
        }
        for item in items {
            state.held += item.weight();
            state.unwritten += item.file_bytes();
            state.items.push_back(item);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Waits until there is room, then appends the item.
    pub async fn send(&self, item: Item) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the check, so that a notification in between is not missed.
            room.as_mut().enable();
            if self.lock().held < self.limit {
                return self.push([item]);
            }
            room.await;
        }
    }

    /// Waits for items, at most for `timeout` if given, and moves all items to the end of `into`. Returns `false` once
    /// the queue is closed and empty.
    pub fn take(&self, into: &mut VecDeque<Item>, timeout: Option<Duration>) -> bool {
        let is_waiting = |state: &mut State| state.items.is_empty() && !state.closed;
        let state = self.lock();
        let mut state = match timeout {
            None => self.ready.wait_while(state, is_waiting).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.ready.wait_timeout_while(state, timeout, is_waiting).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let is_over = state.closed && state.items.is_empty();
        into.append(&mut state.items);
        !is_over
    }

    /// Whether no item waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// The approximate bytes of log files that were read and that the consumer has not finished with.
    pub fn unwritten(&self) -> usize {
        self.lock().unwritten
    }

    /// Called by the consumer when it has finished with an item: frees its room and recycles its buffer.
    pub fn finish(&self, item: Item) {
        let (weight, file_bytes) = (item.weight(), item.file_bytes());
        let mut state = self.lock();
        state.unwritten = state.unwritten.saturating_sub(file_bytes);
        if let Item::Lines(batch) = item {
            state.spare(batch.bytes, batch.lines);
        }
        state.held = state.held.saturating_sub(weight);
        // Half of the limit is enough to be worth a wake-up and still keeps the consumer busy meanwhile.
        let room = state.held <= self.limit / 2;
        let call = room && std::mem::take(&mut state.callback_wanted);
        drop(state);
        if room {
            self.room.notify_waiters();
        }
        if call {
            (self.on_room)();
        }
    }

    /// Returns a buffer of at least `size` bytes with arbitrary content, and an empty list of lines.
    pub fn buffer(&self, size: usize) -> (Vec<u8>, Vec<Line>) {
        let mut state = self.lock();
        let fit = state.spare.iter().position(|(bytes, _)| bytes.len() >= size && bytes.len() <= size * 2);
        match fit {
            Some(at) => {
                let spare = state.spare.swap_remove(at);
                state.spare_bytes -= spare.0.len();
                spare
            }
            None => (vec![0; size], Vec::new()),
        }
    }

    /// Returns a buffer that was not used for a batch.
    pub fn finish_unused(&self, bytes: Vec<u8>, lines: Vec<Line>) {
        self.lock().spare(bytes, lines);
    }

    /// Declares that no more items will come. Items in the queue can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// Called when the consumer ends: drops all present and future items, so that no producer waits any longer.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.items.clear();
        (state.held, state.unwritten) = (0, 0);
        drop(state);
        self.room.notify_waiters();
        (self.on_room)();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{Batch, ContainerKey};
    use crate::model::line_id::Route;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn batch(bytes: usize) -> Item {
        Item::Lines(Batch::new(ContainerKey(0), Route::File, vec![0; bytes], Vec::new()))
    }

    #[test]
    fn bytes_count_until_the_consumer_has_finished() {
        let calls = Arc::new(AtomicUsize::new(0));
        let queue = Queue::new(1000, {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        queue.push([batch(600), batch(600)]);
        assert!(!queue.has_room());
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken, None));
        assert!(!queue.has_room(), "taken items are not finished");
        queue.finish(taken.pop_front().unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 0, "more than half is still held");
        queue.finish(taken.pop_front().unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(queue.has_room());
    }

    #[test]
    fn buffers_are_reused_for_batches_of_similar_size() {
        let queue = Queue::new(1000, || ());
        for size in [64, 4096] {
            queue.push([batch(size)]);
            let mut taken = VecDeque::new();
            queue.take(&mut taken, None);
            queue.finish(taken.pop_front().unwrap());
        }
        assert_eq!(queue.buffer(64).0.len(), 64);
        assert_eq!(queue.buffer(64).0.len(), 64, "a new buffer");
        assert_eq!(queue.buffer(4000).0.len(), 4096);
    }

    #[test]
    fn items_can_be_taken_after_closing() {
        let queue = Queue::new(1000, || ());
        queue.push([Item::Notice(None, "last".into())]);
        queue.close();
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken, None));
        taken.clear();
        assert!(!queue.take(&mut taken, None));
    }

    #[tokio::test]
    async fn a_waiting_sender_is_released_when_the_consumer_leaves() {
        let queue = Arc::new(Queue::new(1000, || ()));
        queue.send(batch(2000)).await;
        let sender = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.send(batch(10)).await }
        });
        tokio::task::yield_now().await;
        assert!(!sender.is_finished());
        queue.abandon();
        sender.await.unwrap();
    }
}

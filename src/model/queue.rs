//! The bounded queue between the tails and the output.
//!
//! Bounded by the bytes it holds, counted until the consumer has finished with them. Two kinds of producers meet here:
//! the reader thread, which must not wait ([`Queue::has_room`] and [`Queue::push`], told of room by a call), and the
//! stream tasks, which wait for room without holding a thread ([`Queue::send`]).

use super::batch::{Item, Line};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes in buffers kept for the next batches; beyond these they are given back to the allocator.
const SPARE: usize = 2 * 1024 * 1024;

/// See the module.
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
    /// Bytes in `items` and in what the consumer took and has not finished.
    held: usize,
    /// Bytes of log files in the same.
    unwritten: usize,
    closed: bool,
    /// The consumer is gone: what is pushed is dropped.
    deaf: bool,
    /// The reader found the queue full and wants a call.
    wanted: bool,
    spare: Vec<(Vec<u8>, Vec<Line>)>,
    /// Bytes in `spare`.
    spared: usize,
}

impl State {
    fn spare(&mut self, bytes: Vec<u8>, mut lines: Vec<Line>) {
        // What joined lines made large, or never was a buffer, is not worth keeping.
        if !bytes.is_empty() && self.spared + bytes.len() <= SPARE {
            lines.clear();
            self.spared += bytes.len();
            self.spare.push((bytes, lines));
        }
    }
}

impl Queue {
    /// A queue that is full when it holds `limit` bytes; `on_room` is called when there is room again after
    /// [`Queue::has_room`] said no.
    pub fn new(limit: usize, on_room: impl Fn() + Send + Sync + 'static) -> Self {
        Queue { state: Mutex::default(), ready: Condvar::new(), room: Notify::new(), limit, on_room: Box::new(on_room) }
    }

    /// Whether a batch may be read for it now. After a no, the call comes.
    pub fn has_room(&self) -> bool {
        let mut state = self.lock();
        let room = state.held < self.limit;
        state.wanted = !room;
        room
    }

    /// Puts items behind the others, however full it is: the bound is kept by asking first.
    pub fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = self.lock();
        if state.deaf {
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

    /// Waits for room, then pushes.
    pub async fn send(&self, item: Item) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that room made in between is not missed.
            room.as_mut().enable();
            if self.lock().held < self.limit {
                return self.push([item]);
            }
            room.await;
        }
    }

    /// Waits for items, no longer than `patience` if there is one, and moves all there are behind those in `into`; `false`
    /// when the queue is closed and empty.
    pub fn take(&self, into: &mut VecDeque<Item>, patience: Option<Duration>) -> bool {
        let is_waiting = |state: &mut State| state.items.is_empty() && !state.closed;
        let state = self.lock();
        let mut state = match patience {
            None => self.ready.wait_while(state, is_waiting).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.ready.wait_timeout_while(state, patience, is_waiting).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let is_over = state.closed && state.items.is_empty();
        into.append(&mut state.items);
        !is_over
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Bytes of log files that were read and that the consumer has not finished with, roughly.
    pub fn unwritten(&self) -> usize {
        self.lock().unwritten
    }

    /// The consumer has finished with an item.
    pub fn finish(&self, item: Item) {
        let (weight, of_file) = (item.weight(), item.file_bytes());
        let mut state = self.lock();
        state.unwritten = state.unwritten.saturating_sub(of_file);
        if let Item::Lines(batch) = item {
            state.spare(batch.bytes, batch.lines);
        }
        state.held = state.held.saturating_sub(weight);
        // Half is enough to be worth a wake-up and still keeps the consumer busy meanwhile.
        let room = state.held <= self.limit / 2;
        let call = room && std::mem::take(&mut state.wanted);
        drop(state);
        if room {
            self.room.notify_waiters();
        }
        if call {
            (self.on_room)();
        }
    }

    /// A buffer of at least `size` bytes, its content left over from before, and a list to go with it.
    pub fn buffer(&self, size: usize) -> (Vec<u8>, Vec<Line>) {
        let mut state = self.lock();
        let fit = state.spare.iter().position(|(bytes, _)| bytes.len() >= size && bytes.len() <= size * 2);
        match fit {
            Some(at) => {
                let spare = state.spare.swap_remove(at);
                state.spared -= spare.0.len();
                spare
            }
            None => (vec![0; size], Vec::new()),
        }
    }

    /// Gives a buffer back that nothing came of.
    pub fn finish_unused(&self, bytes: Vec<u8>, lines: Vec<Line>) {
        self.lock().spare(bytes, lines);
    }

    /// No more items will come; what waits is still taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// The consumer leaves: what waits and what comes is dropped, and nobody waits for room any more.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.deaf = true;
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
    use crate::model::cursor::Route;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn batch(bytes: usize) -> Item {
        Item::Lines(Batch::new(ContainerKey(0), Route::File, vec![0; bytes], Vec::new()))
    }

    #[test]
    fn bytes_count_until_the_consumer_has_finished_with_them() {
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
        assert!(!queue.has_room(), "taken is not finished");
        queue.finish(taken.pop_front().unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 0, "more than half is still held");
        queue.finish(taken.pop_front().unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(queue.has_room());
    }

    #[test]
    fn a_buffer_is_used_again_but_not_a_large_one_for_a_small_batch() {
        let queue = Queue::new(1000, || ());
        for size in [64, 4096] {
            queue.push([batch(size)]);
            let mut taken = VecDeque::new();
            queue.take(&mut taken, None);
            queue.finish(taken.pop_front().unwrap());
        }
        assert_eq!(queue.buffer(64).0.len(), 64);
        assert_eq!(queue.buffer(64).0.len(), 64, "made anew");
        assert_eq!(queue.buffer(4000).0.len(), 4096);
    }

    #[test]
    fn closing_lets_the_rest_through() {
        let queue = Queue::new(1000, || ());
        queue.push([Item::Notice(None, "last".into())]);
        queue.close();
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken, None));
        taken.clear();
        assert!(!queue.take(&mut taken, None));
    }

    #[tokio::test]
    async fn a_sender_waits_for_room_and_is_let_go_when_the_consumer_leaves() {
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

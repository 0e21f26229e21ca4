//! Lends clients to calls and checks, in order, and looks for a daemon that is gone.
//!
//! In: requests for a client, and the outcomes of calls. Out: a [`Lease`], which returns the client when it is dropped.
//! Called by [`super::Pool`]. All decisions are made by [`Slots`] under one lock, which is never held across an await.
//!
//! Nothing is spawned: callers that wait for a client also do what has to be done meanwhile. One of them at a time
//! sends a ping to a daemon that is gone.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::docker::api::Api;
use crate::docker::backoff::{Backoff, Settings};
use crate::docker::{ApiOperation, Cause, Error, PoolLimit};
use crate::{config, metrics};

use super::breaker::{BreakerState, CallOutcome};
use super::health::{self, Check, CheckVerdict, HEALTHY, Round};
use super::pooled_client::Client;
use super::rate_limiter::Limiter;
use super::slots::{Pick, Slots};

/// The longest time between two pings to a daemon that is gone.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What all parts of the pool share.
pub(super) struct Core {
    pub(super) config: config::DockerConfig,
    /// Creates the clients' `Api`s. No call uses it itself.
    api: Api,
    state: Mutex<PoolState>,
    pub(super) limiter: Limiter,
    /// Held by the one task that looks for the daemon.
    probe: tokio::sync::Mutex<DaemonProbe>,
    /// Notified when a breaker has opened or closed, or when the daemon is back.
    pub(super) changed: Notify,
    /// Retries of all calls so far.
    pub(super) retries: AtomicU64,
    pub(super) metrics: metrics::PoolMetrics,
}

/// The state behind the lock.
pub(super) struct PoolState {
    pub(super) slots: Slots,
    /// By the IDs in `slots`. Created when first used.
    clients: HashMap<u32, Arc<Client>>,
    /// Callers that wait for a client, in order.
    waiting: VecDeque<Waiter>,
    /// The ticket of the next waiter.
    next_ticket: u64,
    /// Moving average of the time that a response takes; zero before the first.
    typical: Duration,
    /// The number of clients whose breakers the metrics show.
    counted: usize,
    /// The last failure of the daemon, for the callers that wait until it works again.
    trouble: Option<Error>,
}

impl PoolState {
    pub(super) fn remove_client(&mut self, id: u32) {
        self.clients.remove(&id);
    }
}

/// A caller that waits for a client.
struct Waiter {
    ticket: u64,
    deadline: Instant,
    sender: oneshot::Sender<Lease>,
}

/// When to send the next ping to a daemon that is gone.
struct DaemonProbe {
    backoff: Backoff,
    due: Instant,
}

/// A client that is lent to a call. Dropping it returns the client.
pub(super) struct Lease {
    core: Arc<Core>,
    id: u32,
    pub(super) client: Arc<Client>,
    since: Instant,
    /// [`CallOutcome::Unknown`] until [`Lease::settle`]: the call was abandoned.
    outcome: CallOutcome,
}

impl Lease {
    /// Returns the client with the outcome of the call.
    pub(super) fn settle(mut self, outcome: CallOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.core.end_call(self.id, self.since, self.outcome);
    }
}

/// A client that is lent to a check. Dropping it returns the client.
pub(super) struct CheckLease {
    core: Arc<Core>,
    id: u32,
    pub(super) client: Arc<Client>,
}

impl Drop for CheckLease {
    fn drop(&mut self) {
        let mut state = self.core.state();
        state.slots.end_check(self.id);
        let unclaimed = self.core.serve(&mut state);
        drop(state);
        drop(unclaimed);
    }
}

/// A place in the queue for a client. Dropping it leaves the queue.
struct QueueTicket {
    core: Arc<Core>,
    ticket: u64,
    lease: oneshot::Receiver<Lease>,
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let mut state = self.core.state();
        if let Some(index) = state.waiting.iter().position(|waiter| waiter.ticket == self.ticket) {
            state.waiting.remove(index);
        }
    }
}

impl Core {
    pub(super) fn new(api: Api, config: config::DockerConfig, metrics: metrics::PoolMetrics) -> Core {
        let now = Instant::now();
        let pool = &config.pool;
        let probe_backoff = Settings { max: MAX_PROBE_INTERVAL.min(pool.max_retry_delay), ..retry_backoff(pool) };
        let state = PoolState {
            slots: Slots::new(config.clone(), now),
            clients: HashMap::new(),
            waiting: VecDeque::new(),
            next_ticket: 0,
            typical: Duration::ZERO,
            counted: 0,
            trouble: None,
        };
        let core = Core {
            limiter: Limiter::new(&config.rate_limit),
            probe: tokio::sync::Mutex::new(DaemonProbe { backoff: Backoff::new(probe_backoff), due: now }),
            api,
            state: Mutex::new(state),
            changed: Notify::new(),
            retries: AtomicU64::new(0),
            metrics,
            config,
        };
        core.update_metrics(&mut core.state());
        core
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.state().slots.is_unreachable(Instant::now())
    }

    /// The error for a call whose deadline passed before anything was sent.
    pub(super) fn timed_out_waiting(&self, limit: PoolLimit) -> Error {
        Error::PoolTimeout { after: self.config.pool.request_timeout, limit }
    }

    /// How long an attempt must have lasted before a missing response counts as a failure of its connection.
    pub(super) fn fair_share(&self) -> Duration {
        self.config.pool.request_timeout / 4
    }

    /// With less than this time left, no attempt is begun while others wait.
    pub(super) fn min_time_left(&self, state: &PoolState) -> Duration {
        (2 * state.typical).min(self.fair_share())
    }

    /// How much of the time left an attempt may take. The last attempt may take all of it. Others may take about half,
    /// so that a retry on another client remains possible, but no less than a response usually needs.
    pub(super) fn attempt_limit(&self, deadline: Instant, may_retry: bool) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        let typical = self.state().typical;
        if may_retry { (left / 2).max(self.fair_share()).max(2 * typical).min(left) } else { left }
    }

    /// The error for a response that did not come in time.
    pub(super) fn timed_out(&self) -> Error {
        self.api.http.timed_out(self.config.pool.request_timeout)
    }

    /// The last failure of the daemon, if it is gone.
    pub(super) fn trouble(&self) -> Option<Error> {
        let state = self.state();
        state.trouble.as_ref().filter(|_| state.slots.is_gone(Instant::now())).map(copy_error)
    }

    /// Remembers a failure of the daemon, for the callers that wait until it works again.
    pub(super) fn note_trouble<T>(&self, result: &Result<T, Error>) {
        if let (Err(error), CallOutcome::Failed | CallOutcome::Lost) = (result, CallOutcome::of(result)) {
            self.state().trouble = Some(copy_error(error));
        }
    }

    /// Lends a client to a check, unless it is in use.
    pub(super) fn lease_for_check(self: &Arc<Self>, id: u32) -> Option<CheckLease> {
        let mut state = self.state();
        let client = self.client(&mut state, id);
        state.slots.begin_check(id).then(|| CheckLease { core: self.clone(), id, client })
    }

    pub(super) fn client(&self, state: &mut PoolState, id: u32) -> Arc<Client> {
        state.clients.entry(id).or_insert_with(|| Client::new(self.api.sibling())).clone()
    }

    /// Lends a client to the next call, if one is free.
    fn lend(self: &Arc<Self>, state: &mut PoolState) -> Option<Lease> {
        let id = match state.slots.pick(Instant::now()) {
            Pick::Take(id) => id,
            Pick::Renewed(id) => {
                state.clients.remove(&id);
                id
            }
            Pick::Full | Pick::Gone => return None,
        };
        let client = self.client(state, id);
        Some(Lease { core: self.clone(), id, client, since: Instant::now(), outcome: CallOutcome::Unknown })
    }

    /// The index of the first waiter that has enough time left for a response.
    fn next_waiter(&self, state: &PoolState) -> Option<usize> {
        let earliest = Instant::now() + self.min_time_left(state);
        state.waiting.iter().position(|waiter| waiter.deadline >= earliest)
    }

    /// Lends clients to waiters in order, as long as there are any. Returns leases whose waiters are gone; these must
    /// be dropped after the lock is released.
    #[must_use]
    fn serve(self: &Arc<Self>, state: &mut PoolState) -> Vec<Lease> {
        let mut unclaimed = Vec::new();
        while let Some(index) = self.next_waiter(state)
            && let Some(lease) = self.lend(state)
            && let Some(waiter) = state.waiting.remove(index)
        {
            // Sending fails if the waiter gave up at this very moment.
            unclaimed.extend(waiter.sender.send(lease).err());
        }
        self.update_metrics(state);
        unclaimed
    }

    /// Waits for a client, in order, for as long as the future is polled. Waiters whose `deadline` leaves too little
    /// time are passed over.
    pub(super) async fn checkout(self: &Arc<Self>, deadline: Instant) -> Result<Lease, Error> {
        let mut place = {
            let mut state = self.state();
            if self.next_waiter(&state).is_none()
                && let Some(lease) = self.lend(&mut state)
            {
                self.update_metrics(&mut state);
                return Ok(lease);
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let (sender, lease) = oneshot::channel();
            state.waiting.push_back(Waiter { ticket, deadline, sender });
            QueueTicket { core: self.clone(), ticket, lease }
        };
        loop {
            tokio::select! {
                biased;
                lease = &mut place.lease => {
                    let closed =
                        |_| Error::Protocol { operation: ApiOperation::Ping, source: "the pool is closed".into() };
                    return lease.map_err(closed);
                }
                () = self.wait_for_change() => {}
            }
        }
    }

    /// What a waiter does while it waits: looks for a daemon that is gone, and lends clients once something has
    /// changed.
    async fn wait_for_change(self: &Arc<Self>) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let now = Instant::now();
        let (is_unreachable, half_open) = {
            let state = self.state();
            (state.slots.is_unreachable(now), state.slots.next_half_open(now))
        };
        match (is_unreachable, half_open) {
            (true, _) => self.probe_once().await,
            (false, None) => changed.await,
            (false, Some(then)) => {
                let _ = timeout_at(then, changed).await;
            }
        }
        let unclaimed = self.serve(&mut self.state());
        drop(unclaimed);
    }

    /// Sends a ping to a daemon that is gone, when the next one is due. Others that call this wait for the same ping.
    pub(super) async fn probe_once(&self) {
        let mut probe = self.probe.lock().await;
        let half_open = self.state().slots.next_half_open(Instant::now());
        let due = half_open.map_or(probe.due, |then| probe.due.min(then));
        if !self.is_unreachable() || timeout_at(due, self.changed.notified()).await.is_ok() || !self.is_unreachable() {
            return;
        }
        // Before the ping: its caller may be dropped, and the next caller keeps the interval nevertheless.
        probe.due = Instant::now() + probe.backoff.wait(fastrand::f64());
        let api = self.api.sibling();
        let limit = self.config.pool.health_check_timeout;
        let result = timeout(limit, api.ping()).await.unwrap_or_else(|_| Err(api.http.timed_out(limit)));
        let mut state = self.state();
        match result {
            Ok(()) => {
                probe.backoff.reset();
                state.trouble = None;
                state.slots.ping_answered(Instant::now());
                self.update_breaker_metrics(&state);
                drop(state);
                self.changed.notify_waiters();
            }
            Err(error) => state.trouble = Some(error),
        }
    }

    fn end_call(self: &Arc<Self>, id: u32, since: Instant, outcome: CallOutcome) {
        let mut state = self.state();
        let now = Instant::now();
        if outcome == CallOutcome::Answered {
            state.typical = moving_average(state.typical, now - since);
        }
        let was_gone = state.slots.is_gone(now);
        let changed = state.slots.settle(id, now, outcome);
        let has_changed = changed.is_some() || was_gone != state.slots.is_gone(now);
        if has_changed {
            self.update_breaker_metrics(&state);
        }
        let unclaimed = self.serve(&mut state);
        drop(state);
        if has_changed {
            self.changed.notify_waiters();
        }
        if changed == Some(BreakerState::Closed) {
            self.metrics.recovered();
        }
        drop(unclaimed);
    }

    /// Takes the results of a client's checks, which took `took` together.
    pub(super) fn record_checks(self: &Arc<Self>, id: u32, took: Duration, checks: Vec<Check>, round: Round) {
        self.metrics.checked(took, health::score(&checks) >= HEALTHY);
        let mut state = self.state();
        let verdict = state.slots.record_checks(id, Instant::now(), checks, round);
        if verdict == CheckVerdict::Renew {
            state.clients.remove(&id);
        }
        match verdict {
            CheckVerdict::Same => {}
            CheckVerdict::Fell => tracing::info!(id, "a client of the pool is unhealthy"),
            CheckVerdict::Recovered => tracing::info!(id, "a client of the pool is healthy again"),
            CheckVerdict::Renew => {
                tracing::info!(id, "a client of the pool is still unhealthy, so its connection is replaced")
            }
        }
        if matches!(verdict, CheckVerdict::Recovered | CheckVerdict::Renew) {
            self.metrics.recovered();
        }
        self.update_breaker_metrics(&state);
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn update_metrics(&self, state: &mut PoolState) {
        let slots = &state.slots;
        let size = slots.all().len();
        self.metrics.clients(slots.active(), slots.healthy(Instant::now()), size);
        if state.counted != size {
            state.counted = size;
            self.update_breaker_metrics(state);
        }
    }

    pub(super) fn update_breaker_metrics(&self, state: &PoolState) {
        for (slot, breaker) in state.slots.all().iter().zip(state.slots.breakers(Instant::now())) {
            self.metrics.breaker(slot.id, Some(breaker_metric(breaker)));
        }
    }
}

/// The waits between the attempts of a call.
pub(super) fn retry_backoff(settings: &config::PoolConfig) -> Settings {
    Settings {
        initial: settings.initial_retry_delay,
        max: settings.max_retry_delay,
        multiplier: settings.retry_multiplier,
        jitter: settings.jitter,
    }
}

/// An exponential moving average: `average` with one more `value`.
fn moving_average(average: Duration, value: Duration) -> Duration {
    if average.is_zero() { value } else { (average * 7 + value) / 8 }
}

/// The value of the breaker metric.
fn breaker_metric(state: BreakerState) -> i64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

/// A copy of an error, for another caller that is affected by it.
fn copy_error(error: &Error) -> Error {
    let text = |source: &Cause| source.to_string().into();
    match error {
        Error::Unreachable { endpoint, source } => {
            Error::Unreachable { endpoint: endpoint.clone(), source: text(source) }
        }
        Error::Broken { endpoint, source } => Error::Broken { endpoint: endpoint.clone(), source: text(source) },
        Error::Timeout { endpoint, after } => Error::Timeout { endpoint: endpoint.clone(), after: *after },
        Error::Status { code, message } => Error::Status { code: *code, message: message.clone() },
        Error::Gateway { request, code, reason } => {
            Error::Gateway { request: request.clone(), code: *code, reason: reason.clone() }
        }
        Error::Refused { request, code, words } => {
            Error::Refused { request: request.clone(), code: *code, words: words.clone() }
        }
        other => Error::Protocol { operation: ApiOperation::Ping, source: other.to_string().into() },
    }
}

//! The connection pool: through which every call goes that is answered at once.
//!
//! In: a way to the engine, what is configured, and calls. Out: their answers, repeated where that helps. Called by
//! [`super::DockerConfig`] alone. Spawns nothing: whoever waits for an engine that is gone looks after it meanwhile.
//!
//! - `roster` knows the clients and who serves next; each has a `breaker` and a `health`
//! - `client` is one of them; `checks` are made of it
//! - `bucket` bounds the calls of a second, `places` the logs and events that are read at one time
//! - `report` is what is told of it all
//!
//! A call waits for the rate limit, then for a free client, first come first served; it is asked, and asked again with
//! [`super::backoff`] when the trouble may pass: all we do is ask, so everything may be repeated. All of that together ends
//! with the call's own time, of which one attempt gets a part, so that another client may still answer. Whoever waited so
//! long that there is no time left for an answer is passed over: cut off in the middle, it would cost a connection that
//! serves others. When no client gets an answer the engine is gone. Then calls wait, and one of them at a time looks with a
//! ping, at a growing distance of a second at most, whether it is back; when it is, all clients may serve at once.

mod breaker;
mod checks;
mod client;
mod health;
mod rate_limiter;
mod report;
mod slots;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::model::health::Status;
use crate::{config, metrics};

use super::api::Api;
use super::backoff::{Backoff, Settings};
use super::{Cause, Error};
use breaker::{Outcome, State};
use health::Verdict;
use rate_limiter::Limiter;
use slots::{Pick, Slots};

pub use breaker::State as BreakerState;
pub use health::{Check, HEALTHY};
pub use report::{ClientReport, Snapshot, Spent};

pub(super) use super::stream_permits::{StreamPermit, StreamPermits};
pub(super) use client::Client;

/// Between two turns of upkeep at least, whatever is due: all else goes on beside it.
const REST: Duration = Duration::from_millis(100);
/// Between two looks whether the engine is back, at most.
const PROBES: Duration = Duration::from_secs(1);

/// The settings by which a call may have to wait.
const RATE: &str = "docker.rate_limit.requests_per_second";
const CLIENTS: &str = "docker.pool.max_pool_size";

/// See the module.
pub(super) struct Pool(Arc<Core>);

struct Core {
    config: config::DockerConfig,
    /// New clients go beside it; it is used by none.
    way: Api,
    state: Mutex<Inner>,
    limiter: Limiter,
    /// Whoever holds it looks for the engine.
    probe: tokio::sync::Mutex<Probe>,
    /// A breaker has opened or closed, or the engine is back.
    turned: Notify,
    retries: AtomicU64,
    metrics: metrics::PoolMetrics,
}

/// What is decided under one lock, which is never held while anything is waited for.
struct Inner {
    roster: Slots,
    /// Of the roster's numbers; made when first used.
    clients: HashMap<u32, Arc<Client>>,
    /// In order.
    waiting: VecDeque<Waiter>,
    tickets: u64,
    /// How long an answer takes, on an average of the last ones.
    typical: Duration,
    /// Clients whose breakers are among the metrics.
    counted: usize,
    /// What the last look for an engine that is gone met with.
    trouble: Option<Error>,
}

/// Somebody in the line before the clients.
struct Waiter {
    ticket: u64,
    /// Of its time.
    end: Instant,
    turn: oneshot::Sender<Result<Lease, Error>>,
}

/// The pace of looking for an engine that is gone.
struct Probe {
    backoff: Backoff,
    due: Instant,
}

/// A client on loan; dropped, it is free again.
struct Lease {
    core: Arc<Core>,
    id: u32,
    client: Arc<Client>,
    since: Instant,
    outcome: Outcome,
}

impl Lease {
    /// How the call went. Unsaid, it was given up.
    fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

/// A client whose connection a check has; dropped, it is free again.
struct Held {
    core: Arc<Core>,
    id: u32,
    client: Arc<Client>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.core.state();
        state.roster.end_check(self.id);
        let refused = self.core.serve(&mut state);
        drop(state);
        drop(refused);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.core.give_back(self.id, self.since, self.outcome);
    }
}

/// A place in the line before the clients; dropped, it is given up.
struct Turn {
    core: Arc<Core>,
    ticket: u64,
    lease: oneshot::Receiver<Result<Lease, Error>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.core.state();
        if let Some(at) = state.waiting.iter().position(|waiter| waiter.ticket == self.ticket) {
            state.waiting.remove(at);
        }
    }
}

impl Pool {
    pub(super) fn new(way: Api, config: config::DockerConfig, metrics: metrics::PoolMetrics) -> Pool {
        let now = Instant::now();
        let pool = &config.pool;
        let probes = Settings { max: PROBES.min(pool.max_retry_delay), ..pace(pool) };
        let state = Inner {
            roster: Slots::new(config.clone(), now),
            clients: HashMap::new(),
            waiting: VecDeque::new(),
            tickets: 0,
            typical: Duration::ZERO,
            counted: 0,
            trouble: None,
        };
        let core = Core {
            limiter: Limiter::new(&config.rate_limit),
            probe: tokio::sync::Mutex::new(Probe { backoff: Backoff::new(probes), due: now }),
            way,
            state: Mutex::new(state),
            turned: Notify::new(),
            retries: AtomicU64::new(0),
            metrics,
            config,
        };
        core.count(&mut core.state());
        Pool(Arc::new(core))
    }

    /// The client that is used first.
    pub(super) fn first(&self) -> Arc<Client> {
        let mut state = self.0.state();
        let first = state.roster.seats().first().map_or(0, |seat| seat.id);
        self.0.client(&mut state, first)
    }

    /// Of the time of a call that begins now.
    pub(super) fn end(&self) -> Instant {
        Instant::now() + self.patience()
    }

    /// How long a call may take.
    fn patience(&self) -> Duration {
        self.0.config.pool.request_timeout
    }

    /// How long the checks of a client may take.
    pub(super) fn checks_patience(&self) -> Duration {
        self.0.config.pool.health_check_timeout
    }

    /// A call that is answered at once.
    pub(super) async fn call<T, A>(&self, operation: &str, ask: impl Fn(Arc<Client>) -> A) -> Result<T, Error>
    where
        A: Future<Output = Result<T, Error>>,
    {
        self.call_timed(operation, ask).await.0
    }

    /// As [`Pool::call`], with what became of it.
    pub(super) async fn call_timed<T, A>(
        &self,
        operation: &str,
        ask: impl Fn(Arc<Client>) -> A,
    ) -> (Result<T, Error>, Spent)
    where
        A: Future<Output = Result<T, Error>>,
    {
        let begun = Instant::now();
        let mut spent = Spent::default();
        let answer = self.ask(begun + self.patience(), &mut spent, ask).await;
        spent.took = begun.elapsed();
        self.0.metrics.called(operation, spent.took, spent.waited);
        (answer, spent)
    }

    async fn ask<T, A>(&self, end: Instant, spent: &mut Spent, ask: impl Fn(Arc<Client>) -> A) -> Result<T, Error>
    where
        A: Future<Output = Result<T, Error>>,
    {
        let settings = &self.0.config.pool;
        let mut backoff = Backoff::new(pace(settings));
        let mut last = None;
        loop {
            let begun = Instant::now();
            let turn = self.turn(end).await;
            spent.waited += begun.elapsed();
            // What it met with says more than that it then ran out of time.
            let (lease, narrow) = match turn {
                Ok(turn) => turn,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let may_repeat = spent.retries < settings.max_retries;
            let limit = self.0.share(end, may_repeat);
            let answer = match timeout(limit, ask(lease.client.clone())).await {
                Ok(answer) => answer,
                // Others had its time, which says nothing of this connection.
                Err(_) if limit < self.0.fair() => return Err(last.unwrap_or_else(|| self.0.no_turn(narrow))),
                Err(_) => Err(self.0.late()),
            };
            self.0.met_with(&answer);
            lease.settle(Outcome::of(&answer));
            let error = match answer {
                Err(error) if error.is_passing() && may_repeat => error,
                answer => return answer,
            };
            let wait = backoff.wait(fastrand::f64());
            if Instant::now() + wait >= end {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "asking again");
            last = Some(error);
            sleep(wait).await;
            spent.retries += 1;
            self.0.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the rate limit and for a client; also, which setting made it wait longest.
    async fn turn(&self, end: Instant) -> Result<(Lease, &'static str), Error> {
        let begun = Instant::now();
        // Later there would be no use for it.
        let latest = end.checked_sub(self.0.least(&self.0.state())).unwrap_or(end);
        if timeout_at(latest, self.0.limiter.pass()).await.is_err() {
            return Err(self.0.no_turn(RATE));
        }
        let passed = Instant::now();
        match timeout_at(end, self.0.checkout(end)).await {
            Ok(lease) => Ok((lease?, if passed - begun > passed.elapsed() { RATE } else { CLIENTS })),
            Err(_) => Err(self.0.trouble().unwrap_or_else(|| self.0.no_turn(CLIENTS))),
        }
    }

    /// Returns when an engine that was gone is back, or at the end: for what does not go through a client.
    pub(super) async fn engine_is_there(&self, end: Instant) -> Result<(), Error> {
        let back = async {
            while self.0.is_out_of_reach() {
                self.0.look_for_it().await;
            }
        };
        timeout_at(end, back).await.map_err(|_| self.0.trouble().unwrap_or_else(|| self.0.late()))
    }

    /// What does not go through a client, and is to be answered by then.
    pub(super) async fn by<T>(&self, end: Instant, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout_at(end, answer).await.unwrap_or_else(|_| Err(self.0.late()))
    }

    /// Checks who is due, brings back who is unwell and takes away who idles, for ever.
    pub(super) async fn upkeep(&self, streams: &Api) {
        loop {
            let due = {
                let mut state = self.0.state();
                let now = Instant::now();
                for id in state.roster.shrink(now) {
                    state.clients.remove(&id);
                    self.0.metrics.breaker(id, None);
                }
                self.0.count(&mut state);
                state.roster.due(now)
            };
            self.check(due, streams, self.checks_patience(), false).await;
            let turned = self.0.turned.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            let next = {
                let state = self.0.state();
                // Time alone makes a breaker half open.
                self.0.count_breakers(&state);
                let now = Instant::now();
                let (due, half_open) = (state.roster.next_due(now), state.roster.next_half_open(now));
                half_open.map_or(due, |then| due.min(then))
            };
            sleep(REST).await;
            let _ = timeout_at(next, turned).await;
        }
    }

    /// Checks all clients now that no call has; one check decides.
    pub(super) async fn check_all(&self, streams: &Api, limit: Duration) {
        let all = self.0.state().roster.seats().iter().map(|seat| seat.id).collect();
        self.check(all, streams, limit, true).await;
    }

    async fn check(&self, ids: Vec<u32>, streams: &Api, limit: Duration, is_decisive: bool) {
        let check = async |id| {
            let begun = Instant::now();
            let Some(held) = self.0.hold(id) else { return };
            let checks = checks::look(&held.client, streams, limit).await;
            self.0.judge(id, begun.elapsed(), checks, is_decisive);
        };
        join_all(ids.into_iter().map(check)).await;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let state = self.0.state();
        let (roster, pool) = (&state.roster, &self.0.config.pool);
        let (size, active) = (roster.seats().len(), roster.active());
        let is_gone = roster.is_gone(now);
        let clients = roster.seats().iter().zip(roster.breakers(now)).map(|(seat, breaker)| ClientReport {
            id: seat.id,
            status: if seat.serves(now) && !is_gone { Status::Healthy } else { Status::Unhealthy },
            score: seat.health.score,
            breaker,
            usage_count: seat.uses,
            errors: seat.errors,
            age: now - seat.made,
            checks: seat.health.checks.clone(),
        });
        let mut clients: Vec<_> = clients.collect();
        clients.sort_by_key(|client| client.id);
        Snapshot {
            size,
            min: pool.min_size,
            max: pool.max_size,
            healthy: roster.healthy(now),
            active,
            utilization: active as f64 / size.max(1) as f64,
            streams: 0,
            max_streams: 0,
            retries: self.0.retries.load(Ordering::Relaxed),
            clients,
        }
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_out_of_reach(&self) -> bool {
        self.state().roster.is_out_of_reach(Instant::now())
    }

    fn no_turn(&self, setting: &'static str) -> Error {
        Error::NoTurn { after: self.config.pool.request_timeout, setting }
    }

    /// What an attempt has to be given before it says anything of its connection that it was not answered.
    fn fair(&self) -> Duration {
        self.config.pool.request_timeout / 4
    }

    /// With less than this left no attempt is begun while others wait.
    fn least(&self, state: &Inner) -> Duration {
        (2 * state.typical).min(self.fair())
    }

    /// How long an attempt may take of the time that is left: about half, so that another client may answer, but no less
    /// than an answer needs; all of it where it is the last attempt.
    fn share(&self, end: Instant, may_repeat: bool) -> Duration {
        let left = end.saturating_duration_since(Instant::now());
        let typical = self.state().typical;
        if may_repeat { (left / 2).max(self.fair()).max(2 * typical).min(left) } else { left }
    }

    fn late(&self) -> Error {
        self.way.http.late(self.config.pool.request_timeout)
    }

    /// What an engine that is gone met us with.
    fn trouble(&self) -> Option<Error> {
        let state = self.state();
        state.trouble.as_ref().filter(|_| state.roster.is_gone(Instant::now())).map(retold)
    }

    /// Notes what the engine answers that is unwell, for those who wait until it is well.
    fn met_with<T>(&self, answer: &Result<T, Error>) {
        if let (Err(error), Outcome::Failed | Outcome::Lost) = (answer, Outcome::of(answer)) {
            self.state().trouble = Some(retold(error));
        }
    }

    /// Takes a client for a check, unless it has something else to do.
    fn hold(self: &Arc<Self>, id: u32) -> Option<Held> {
        let mut state = self.state();
        let client = self.client(&mut state, id);
        state.roster.begin_check(id).then(|| Held { core: self.clone(), id, client })
    }

    fn client(&self, state: &mut Inner, id: u32) -> Arc<Client> {
        state.clients.entry(id).or_insert_with(|| Client::new(self.way.beside())).clone()
    }

    /// A client for the next who is to have one, if there is any.
    fn lend(self: &Arc<Self>, state: &mut Inner) -> Option<Lease> {
        let id = match state.roster.pick(Instant::now()) {
            Pick::Take(id) => id,
            Pick::Renewed(id) => {
                state.clients.remove(&id);
                id
            }
            Pick::Full | Pick::Gone => return None,
        };
        let client = self.client(state, id);
        Some(Lease { core: self.clone(), id, client, since: Instant::now(), outcome: Outcome::Unknown })
    }

    /// The place in the line of the first who has time for an answer.
    fn next(&self, state: &Inner) -> Option<usize> {
        let latest = Instant::now() + self.least(state);
        state.waiting.iter().position(|waiter| waiter.end >= latest)
    }

    /// Gives clients to those who wait, in order, as far as there are any. What comes back is to be dropped without the lock.
    fn serve(self: &Arc<Self>, state: &mut Inner) -> Vec<Result<Lease, Error>> {
        let mut refused = Vec::new();
        while let Some(at) = self.next(state)
            && let Some(lease) = self.lend(state)
            && let Some(next) = state.waiting.remove(at)
        {
            // It stopped waiting at this very moment.
            refused.extend(next.turn.send(Ok(lease)).err());
        }
        self.count(state);
        refused
    }

    async fn checkout(self: &Arc<Self>, end: Instant) -> Result<Lease, Error> {
        let mut turn = {
            let mut state = self.state();
            if self.next(&state).is_none()
                && let Some(lease) = self.lend(&mut state)
            {
                self.count(&mut state);
                return Ok(lease);
            }
            let ticket = state.tickets;
            state.tickets += 1;
            let (turn, lease) = oneshot::channel();
            state.waiting.push_back(Waiter { ticket, end, turn });
            Turn { core: self.clone(), ticket, lease }
        };
        loop {
            tokio::select! {
                biased;
                lease = &mut turn.lease => {
                    let gone = |_| Err(Error::Protocol { what: "a client", source: "the pool is gone".into() });
                    return lease.unwrap_or_else(gone);
                }
                () = self.stir() => {}
            }
        }
    }

    /// What somebody who waits does meanwhile: sees to it that nobody waits longer than needed.
    async fn stir(self: &Arc<Self>) {
        let turned = self.turned.notified();
        tokio::pin!(turned);
        turned.as_mut().enable();
        let now = Instant::now();
        let (is_out_of_reach, half_open) = {
            let state = self.state();
            (state.roster.is_out_of_reach(now), state.roster.next_half_open(now))
        };
        match (is_out_of_reach, half_open) {
            (true, _) => self.look_for_it().await,
            (false, None) => turned.await,
            (false, Some(then)) => {
                let _ = timeout_at(then, turned).await;
            }
        }
        let refused = self.serve(&mut self.state());
        drop(refused);
    }

    /// One look whether an engine that is gone is back, when it is time for it; others wait until it was made.
    async fn look_for_it(&self) {
        let mut probe = self.probe.lock().await;
        let half_open = self.state().roster.next_half_open(Instant::now());
        let due = half_open.map_or(probe.due, |then| probe.due.min(then));
        if !self.is_out_of_reach() || timeout_at(due, self.turned.notified()).await.is_ok() || !self.is_out_of_reach() {
            return;
        }
        // Before the ping: whoever makes it may stop waiting, and the next then keeps the distance all the same.
        probe.due = Instant::now() + probe.backoff.wait(fastrand::f64());
        let way = self.way.beside();
        let limit = self.config.pool.health_check_timeout;
        let answer = timeout(limit, way.ping()).await.unwrap_or_else(|_| Err(way.http.late(limit)));
        let mut state = self.state();
        match answer {
            Ok(()) => {
                probe.backoff.reset();
                state.trouble = None;
                state.roster.seen(Instant::now());
                self.count_breakers(&state);
                drop(state);
                self.turned.notify_waiters();
            }
            Err(error) => state.trouble = Some(error),
        }
    }

    fn give_back(self: &Arc<Self>, id: u32, since: Instant, outcome: Outcome) {
        let mut state = self.state();
        let now = Instant::now();
        if outcome == Outcome::Answered {
            state.typical = mean(state.typical, now - since);
        }
        let was_gone = state.roster.is_gone(now);
        let turned = state.roster.settle(id, now, outcome);
        let has_turned = turned.is_some() || was_gone != state.roster.is_gone(now);
        if has_turned {
            self.count_breakers(&state);
        }
        let refused = self.serve(&mut state);
        drop(state);
        if has_turned {
            self.turned.notify_waiters();
        }
        if turned == Some(State::Closed) {
            self.metrics.recovered();
        }
        drop(refused);
    }

    fn judge(self: &Arc<Self>, id: u32, took: Duration, checks: Vec<Check>, is_decisive: bool) {
        self.metrics.checked(took, health::score(&checks) >= HEALTHY);
        let mut state = self.state();
        let verdict = state.roster.judge(id, Instant::now(), checks, is_decisive);
        if verdict == Verdict::Renew {
            state.clients.remove(&id);
        }
        match verdict {
            Verdict::Same => {}
            Verdict::Fell => tracing::info!(id, "a client of the pool is unhealthy"),
            Verdict::Recovered => tracing::info!(id, "a client of the pool is healthy again"),
            Verdict::Renew => tracing::info!(id, "a client of the pool stays unhealthy and is made anew"),
        }
        if matches!(verdict, Verdict::Recovered | Verdict::Renew) {
            self.metrics.recovered();
        }
        self.count_breakers(&state);
        drop(state);
        self.turned.notify_waiters();
    }

    fn count(&self, state: &mut Inner) {
        let roster = &state.roster;
        let size = roster.seats().len();
        self.metrics.clients(roster.active(), roster.healthy(Instant::now()), size);
        if state.counted != size {
            state.counted = size;
            self.count_breakers(state);
        }
    }

    fn count_breakers(&self, state: &Inner) {
        for (seat, breaker) in state.roster.seats().iter().zip(state.roster.breakers(Instant::now())) {
            self.metrics.breaker(seat.id, Some(level(breaker)));
        }
    }
}

fn pace(settings: &config::PoolConfig) -> Settings {
    Settings {
        initial: settings.initial_retry_delay,
        max: settings.max_retry_delay,
        multiplier: settings.retry_multiplier,
        jitter: settings.jitter,
    }
}

/// An average with one more; the newer weigh more.
fn mean(before: Duration, one: Duration) -> Duration {
    if before.is_zero() { one } else { (before * 7 + one) / 8 }
}

/// As the metric has it.
fn level(state: State) -> i64 {
    match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
    }
}

/// An error once more, for another who met with the same.
fn retold(error: &Error) -> Error {
    let words = |source: &Cause| source.to_string().into();
    match error {
        Error::Unreachable { endpoint, source } => {
            Error::Unreachable { endpoint: endpoint.clone(), source: words(source) }
        }
        Error::Broken { endpoint, source } => Error::Broken { endpoint: endpoint.clone(), source: words(source) },
        Error::Timeout { endpoint, after } => Error::Timeout { endpoint: endpoint.clone(), after: *after },
        Error::Status { code, message } => Error::Status { code: *code, message: message.clone() },
        Error::Gateway { request, code, reason } => {
            Error::Gateway { request: request.clone(), code: *code, reason: reason.clone() }
        }
        Error::Refused { request, code, words } => {
            Error::Refused { request: request.clone(), code: *code, words: words.clone() }
        }
        other => Error::Protocol { what: "a ping", source: other.to_string().into() },
    }
}

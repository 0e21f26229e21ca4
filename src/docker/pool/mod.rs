//! The connection pool: through which every call goes that is answered at once.
//!
//! In: a way to the engine, what is configured, and calls. Out: their answers, repeated where that helps. Called by
//! [`super::Docker`] alone. Spawns nothing: whoever waits for an engine that is gone looks after it meanwhile.
//!
//! - `roster` knows the clients and who serves next; each has a `breaker` and a `health`
//! - `client` is one of them; `checks` are made of it
//! - `bucket` bounds the calls of a second, `places` the logs and events that are read at one time
//! - `report` is what is told of it all
//!
//! A call waits for the rate limit, then for a free client, first come first served; it is asked, and asked again with
//! [`super::backoff`] when the trouble may pass: all we do is ask, so everything may be repeated. All of that together ends
//! with the call's own time. When no client gets an answer the engine is gone. Then calls wait, and one of them at a time
//! looks with a ping, at a growing distance of a second at most, whether it is back; when it is, all clients may serve at
//! once.

mod breaker;
mod bucket;
mod checks;
mod client;
mod health;
mod places;
mod report;
mod roster;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::health::Status;
use crate::{config, metrics};

use super::backoff::{Backoff, Settings};
use super::wire::Wire;
use super::{Cause, Error};
use breaker::{Outcome, State};
use bucket::Limiter;
use health::Verdict;
use roster::{Pick, Roster};

pub use breaker::State as BreakerState;
pub use health::{Check, HEALTHY};
pub use report::{ClientReport, Snapshot, Spent};

pub(super) use client::Client;
pub(super) use places::{Place, Places};

/// Between two looks whether the engine is back, at most.
const PROBES: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Pool(Arc<Core>);

struct Core {
    config: config::Docker,
    /// New clients go beside it; it is used by none.
    way: Wire,
    state: Mutex<Inner>,
    limiter: Limiter,
    /// Whoever holds it looks for the engine.
    probe: tokio::sync::Mutex<Probe>,
    /// A breaker has opened or closed, or the engine is back.
    turned: Notify,
    retries: AtomicU64,
    metrics: metrics::Pool,
}

/// What is decided under one lock, which is never held while anything is waited for.
struct Inner {
    roster: Roster,
    /// Of the roster's numbers; made when first used.
    clients: HashMap<u32, Arc<Client>>,
    /// In order, each with its ticket.
    waiting: VecDeque<(u64, oneshot::Sender<Lease>)>,
    tickets: u64,
    /// Clients whose breakers are among the metrics.
    counted: usize,
    /// What the last look for an engine that is gone met with.
    trouble: Option<Error>,
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
    outcome: Outcome,
}

impl Lease {
    /// How the call went. Unsaid, it was given up.
    fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.core.give_back(self.id, self.outcome);
    }
}

/// A place in the line before the clients; dropped, it is given up.
struct Turn {
    core: Arc<Core>,
    ticket: u64,
    lease: oneshot::Receiver<Lease>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.core.state();
        if let Some(at) = state.waiting.iter().position(|(ticket, _)| *ticket == self.ticket) {
            state.waiting.remove(at);
        }
    }
}

impl Pool {
    pub(super) fn new(way: Wire, config: config::Docker, metrics: metrics::Pool) -> Result<Pool, Error> {
        let now = Instant::now();
        let pool = &config.pool;
        let probes = Settings { max: PROBES.min(pool.max_retry_delay), ..pace(pool) };
        let state = Inner {
            roster: Roster::new(config.clone(), now),
            clients: HashMap::new(),
            waiting: VecDeque::new(),
            tickets: 0,
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
        Ok(Pool(Arc::new(core)))
    }

    /// The client that is used first.
    pub(super) fn first(&self) -> Result<Arc<Client>, Error> {
        let mut state = self.0.state();
        let first = state.roster.seats().first().map_or(0, |seat| seat.id);
        self.0.client(&mut state, first)
    }

    /// How long a call may take.
    pub(super) fn patience(&self) -> Duration {
        self.0.config.pool.request_timeout
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
            let lease = self.turn(end).await;
            spent.waited += begun.elapsed();
            // What it met with says more than that it then ran out of time.
            let lease = match lease {
                Ok(lease) => lease,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let answer = timeout_at(end, ask(lease.client.clone())).await.unwrap_or_else(|_| Err(self.0.late()));
            lease.settle(Outcome::of(&answer));
            let error = match answer {
                Err(error) if error.is_passing() && spent.retries < settings.max_retries => error,
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

    /// Waits for the rate limit and for a client.
    async fn turn(&self, end: Instant) -> Result<Lease, Error> {
        let no_turn = |setting| Error::NoTurn { after: self.patience(), setting };
        if timeout_at(end, self.0.limiter.pass()).await.is_err() {
            return Err(no_turn("docker.rate_limit.requests_per_second"));
        }
        match timeout_at(end, self.0.checkout()).await {
            Ok(lease) => lease,
            Err(_) => Err(self.0.trouble().unwrap_or_else(|| no_turn("docker.pool.max_pool_size"))),
        }
    }

    /// Returns when an engine that was gone is back, or when this time is over: for what does not go through a client.
    pub(super) async fn engine_is_there(&self, patience: Duration) -> Result<(), Error> {
        let back = async {
            while self.0.is_gone() {
                self.0.look_for_it().await;
            }
        };
        timeout(patience, back).await.map_err(|_| self.0.trouble().unwrap_or_else(|| self.0.late_after(patience)))
    }

    /// Checks who is due, brings back who is unwell and takes away who idles, for ever.
    pub(super) async fn upkeep(&self, streams: &Wire) {
        loop {
            let (due, next) = {
                let mut state = self.0.state();
                let now = Instant::now();
                for id in state.roster.shrink(now) {
                    state.clients.remove(&id);
                    self.0.metrics.breaker(id, None);
                }
                self.0.count(&mut state);
                (state.roster.due(now), state.roster.next_due(now))
            };
            match due.is_empty() {
                true => sleep_until(next).await,
                false => self.check(due, streams, false).await,
            }
        }
    }

    /// Checks all clients now; one check decides.
    pub(super) async fn check_all(&self, streams: &Wire) {
        let all = self.0.state().roster.seats().iter().map(|seat| seat.id).collect();
        self.check(all, streams, true).await;
    }

    async fn check(&self, ids: Vec<u32>, streams: &Wire, is_decisive: bool) {
        let check = async |id| {
            let begun = Instant::now();
            let client = self.0.client(&mut self.0.state(), id);
            let Ok(client) = client else { return };
            let checks = checks::look(&client, streams, self.0.config.pool.health_check_timeout).await;
            self.0.judge(id, begun.elapsed(), checks, is_decisive);
        };
        join_all(ids.into_iter().map(check)).await;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let state = self.0.state();
        let (roster, pool) = (&state.roster, &self.0.config.pool);
        let (size, active) = (roster.seats().len(), roster.active());
        let clients = roster.seats().iter().map(|seat| ClientReport {
            id: seat.id,
            status: if roster.serves(seat, now) { Status::Healthy } else { Status::Unhealthy },
            score: seat.health.score,
            breaker: roster.breaker(seat, now),
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

    fn is_gone(&self) -> bool {
        self.state().roster.is_gone(Instant::now())
    }

    fn late(&self) -> Error {
        self.late_after(self.config.pool.request_timeout)
    }

    fn late_after(&self, after: Duration) -> Error {
        Error::Timeout { endpoint: self.way.http.endpoint().to_owned(), after }
    }

    /// What an engine that is gone met us with.
    fn trouble(&self) -> Option<Error> {
        let state = self.state();
        state.trouble.as_ref().filter(|_| state.roster.is_gone(Instant::now())).map(retold)
    }

    fn client(&self, state: &mut Inner, id: u32) -> Result<Arc<Client>, Error> {
        if let Some(client) = state.clients.get(&id) {
            return Ok(client.clone());
        }
        let client = Client::new(self.way.beside())?;
        state.clients.insert(id, client.clone());
        Ok(client)
    }

    /// A client for the next who is to have one, if there is any.
    fn lend(self: &Arc<Self>, state: &mut Inner) -> Option<Result<Lease, Error>> {
        let id = match state.roster.pick(Instant::now()) {
            Pick::Take(id) => id,
            Pick::Renewed(id) => {
                state.clients.remove(&id);
                id
            }
            Pick::Full | Pick::Gone => return None,
        };
        let client = match self.client(state, id) {
            Ok(client) => client,
            Err(error) => {
                state.roster.settle(id, Instant::now(), Outcome::Unknown);
                return Some(Err(error));
            }
        };
        Some(Ok(Lease { core: self.clone(), id, client, outcome: Outcome::Unknown }))
    }

    /// Gives clients to those who wait, in order, as far as there are any. What comes back is to be dropped without the lock.
    fn serve(self: &Arc<Self>, state: &mut Inner) -> Vec<Lease> {
        let mut refused = Vec::new();
        while !state.waiting.is_empty()
            && let Some(Ok(lease)) = self.lend(state)
            && let Some((_, next)) = state.waiting.pop_front()
        {
            // It stopped waiting at this very moment.
            refused.extend(next.send(lease).err());
        }
        self.count(state);
        refused
    }

    async fn checkout(self: &Arc<Self>) -> Result<Lease, Error> {
        let mut turn = {
            let mut state = self.state();
            if state.waiting.is_empty()
                && let Some(lease) = self.lend(&mut state)
            {
                self.count(&mut state);
                return lease;
            }
            let ticket = state.tickets;
            state.tickets += 1;
            let (sender, lease) = oneshot::channel();
            state.waiting.push_back((ticket, sender));
            Turn { core: self.clone(), ticket, lease }
        };
        loop {
            tokio::select! {
                biased;
                lease = &mut turn.lease => {
                    return lease.map_err(|_| Error::Protocol { what: "a client", source: "the pool is gone".into() });
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
        let (is_gone, half_open) = {
            let state = self.state();
            (state.roster.is_gone(now), state.roster.next_half_open(now))
        };
        match (is_gone, half_open) {
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
        if !self.is_gone() || timeout_at(due, self.turned.notified()).await.is_ok() || !self.is_gone() {
            return;
        }
        // Before the ping: whoever makes it may stop waiting, and the next then keeps the distance all the same.
        probe.due = Instant::now() + probe.backoff.wait(fastrand::f64());
        let way = self.way.beside();
        let limit = self.config.pool.health_check_timeout;
        let answer = timeout(limit, way.ping()).await.unwrap_or_else(|_| Err(self.late_after(limit)));
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

    fn give_back(self: &Arc<Self>, id: u32, outcome: Outcome) {
        let mut state = self.state();
        let now = Instant::now();
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
        if outcome == Outcome::Lost {
            self.metrics.failed();
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
        let refused = self.serve(&mut state);
        drop(state);
        self.turned.notify_waiters();
        drop(refused);
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
        let now = Instant::now();
        for seat in state.roster.seats() {
            self.metrics.breaker(seat.id, Some(level(state.roster.breaker(seat, now))));
        }
    }
}

fn pace(settings: &config::Pool) -> Settings {
    Settings {
        initial: settings.initial_retry_delay,
        max: settings.max_retry_delay,
        multiplier: settings.retry_multiplier,
        jitter: settings.jitter,
    }
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
        other => Error::Protocol { what: "a ping", source: other.to_string().into() },
    }
}

//! The connection pool, which executes every call that is answered at once.
//!
//! In: the configuration and calls. Out: their results, after retries where these help. Called by [`super::Docker`]
//! only.
//!
//! - `slots` decides which client executes the next call; each client has a `breaker` and a `health`
//! - `checkout` lends clients to calls, in order; `client` is one of them
//! - `checks` checks the health of clients
//! - `rate_limiter` limits the calls per second
//! - `report` describes the state of the pool
//!
//! A call waits for the rate limit, then for a free client, first come, first served. If a failure may be temporary,
//! the call is repeated after a [`super::backoff`]; every call may be repeated, since all of them only read. All of
//! this together has one deadline. An attempt gets only a part of the time, so that another client may still answer. A
//! call whose time left is too short for a response is passed over, because aborting it half-way would cost a
//! connection that others need.
//!
//! If no client gets a response, the daemon is gone. Calls then wait, and one of them at a time pings the daemon, at
//! intervals that grow to one second. Once the daemon answers, all clients may be used at once.

mod breaker;
mod checkout;
mod checks;
mod health;
mod pooled_client;
mod rate_limiter;
mod slots;
mod snapshot;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::model::health::Status;
use crate::{config, metrics};

use super::api::Api;
use super::backoff::Backoff;
use super::{ApiOperation, Error, PoolLimit};
use breaker::CallOutcome;
use checkout::{Core, Lease, retry_backoff};
use health::Round;

pub use breaker::BreakerState;
pub(crate) use health::Check;
pub use health::HEALTHY;
pub use snapshot::{ClientReport, Snapshot, Spent};

pub(super) use pooled_client::Client;

/// The least time between two rounds of upkeep, whatever is due.
const MIN_UPKEEP_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Pool(Arc<Core>);

impl Pool {
    pub(super) fn new(api: Api, config: config::DockerConfig, metrics: metrics::PoolMetrics) -> Pool {
        Pool(Arc::new(Core::new(api, config, metrics)))
    }

    /// The client that is used first.
    pub(super) fn first(&self) -> Arc<Client> {
        let mut state = self.0.state();
        let first = state.slots.all().first().map_or(0, |slot| slot.id);
        self.0.client(&mut state, first)
    }

    /// The deadline of a call that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.config.pool.request_timeout
    }

    /// How long the checks of a client may take.
    pub(super) fn check_timeout(&self) -> Duration {
        self.0.config.pool.health_check_timeout
    }

    /// Executes a call: `request` is called with a client for each attempt.
    pub(super) async fn call<T, A>(
        &self,
        operation: ApiOperation,
        request: impl Fn(Arc<Client>) -> A,
    ) -> Result<T, Error>
    where
        A: Future<Output = Result<T, Error>>,
    {
        self.call_timed(operation, request).await.0
    }

    /// Like [`Pool::call`], with the times and retries of the call.
    pub(super) async fn call_timed<T, A>(
        &self,
        operation: ApiOperation,
        request: impl Fn(Arc<Client>) -> A,
    ) -> (Result<T, Error>, Spent)
    where
        A: Future<Output = Result<T, Error>>,
    {
        let start = Instant::now();
        let mut spent = Spent::default();
        let result = self.try_until(self.deadline(), &mut spent, request).await;
        spent.took = start.elapsed();
        self.0.metrics.called(operation.metric_name(), spent.took, spent.waited);
        (result, spent)
    }

    /// Attempts a call until it succeeds, fails for good, or the deadline passes.
    async fn try_until<T, A>(
        &self,
        deadline: Instant,
        spent: &mut Spent,
        request: impl Fn(Arc<Client>) -> A,
    ) -> Result<T, Error>
    where
        A: Future<Output = Result<T, Error>>,
    {
        let settings = &self.0.config.pool;
        let mut backoff = Backoff::new(retry_backoff(settings));
        let mut last = None;
        loop {
            let start = Instant::now();
            let turn = self.wait_for_turn(deadline).await;
            spent.waited += start.elapsed();
            let (lease, waited_for) = match turn {
                Ok(turn) => turn,
                // The failure of the last attempt says more than the timeout after it.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let may_retry = spent.retries < settings.max_retries;
            let limit = self.0.attempt_limit(deadline, may_retry);
            let result = match timeout(limit, request(lease.client.clone())).await {
                Ok(result) => result,
                // Other calls have used up the time, so the timeout shows nothing about this connection.
                Err(_) if limit < self.0.fair_share() => {
                    return Err(last.unwrap_or_else(|| self.0.timed_out_waiting(waited_for)));
                }
                Err(_) => Err(self.0.timed_out()),
            };
            self.0.note_trouble(&result);
            lease.settle(CallOutcome::of(&result));
            let error = match result {
                Err(error) if error.is_temporary() && may_retry => error,
                result => return result,
            };
            let wait = backoff.wait(fastrand::f64());
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "retrying");
            last = Some(error);
            sleep(wait).await;
            spent.retries += 1;
            self.0.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the rate limit and for a client. Also returns which of the two took longer.
    async fn wait_for_turn(&self, deadline: Instant) -> Result<(Lease, PoolLimit), Error> {
        let rate = PoolLimit::Rate(self.0.config.rate_limit.requests_per_second);
        let clients = PoolLimit::Clients(self.0.config.pool.max_size.max(1));
        let start = Instant::now();
        // After this time the call could not be completed any more.
        let latest_start = deadline.checked_sub(self.0.min_time_left(&self.0.state())).unwrap_or(deadline);
        if timeout_at(latest_start, self.0.limiter.pass()).await.is_err() {
            return Err(self.0.timed_out_waiting(rate));
        }
        let passed = Instant::now();
        match timeout_at(deadline, self.0.checkout(deadline)).await {
            Ok(lease) => Ok((lease?, if passed - start > passed.elapsed() { rate } else { clients })),
            Err(_) => Err(self.0.trouble().unwrap_or_else(|| self.0.timed_out_waiting(clients))),
        }
    }

    /// For requests that do not use a client: if the daemon is gone, waits until it is back. Fails at the deadline.
    pub(super) async fn wait_for_daemon(&self, deadline: Instant) -> Result<(), Error> {
        let is_back = async {
            while self.0.is_unreachable() {
                self.0.probe_once().await;
            }
        };
        timeout_at(deadline, is_back).await.map_err(|_| self.0.trouble().unwrap_or_else(|| self.0.timed_out()))
    }

    /// For requests that do not use a client: limits the time until the response.
    pub(super) async fn within<T>(
        &self,
        deadline: Instant,
        response: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout_at(deadline, response).await.unwrap_or_else(|_| Err(self.0.timed_out()))
    }

    /// Checks clients when due, restores unhealthy ones and removes idle ones. Never completes.
    pub(super) async fn upkeep(&self, streams: &Api) {
        loop {
            let due = {
                let mut state = self.0.state();
                let now = Instant::now();
                for id in state.slots.shrink(now) {
                    state.remove_client(id);
                    self.0.metrics.breaker(id, None);
                }
                self.0.update_metrics(&mut state);
                state.slots.due(now)
            };
            self.check(due, streams, self.check_timeout(), Round::Routine).await;
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = {
                let state = self.0.state();
                // A breaker becomes half open by the passing of time alone.
                self.0.update_breaker_metrics(&state);
                let now = Instant::now();
                let (due, half_open) = (state.slots.next_due(now), state.slots.next_half_open(now));
                half_open.map_or(due, |then| due.min(then))
            };
            sleep(MIN_UPKEEP_INTERVAL).await;
            let _ = timeout_at(next, changed).await;
        }
    }

    /// Checks all clients that no call is using, and treats each result as decisive.
    pub(super) async fn check_all(&self, streams: &Api, limit: Duration) {
        let all = self.0.state().slots.all().iter().map(|slot| slot.id).collect();
        self.check(all, streams, limit, Round::Decisive).await;
    }

    async fn check(&self, ids: Vec<u32>, streams: &Api, limit: Duration, round: Round) {
        let check = async |id| {
            let start = Instant::now();
            let Some(lease) = self.0.lease_for_check(id) else { return };
            let checks = checks::run(&lease.client, streams, limit).await;
            self.0.record_checks(id, start.elapsed(), checks, round);
        };
        join_all(ids.into_iter().map(check)).await;
    }

    /// The current state, without the streams, which the pool does not know.
    pub(super) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let state = self.0.state();
        let (slots, pool) = (&state.slots, &self.0.config.pool);
        let (size, active) = (slots.all().len(), slots.active());
        let is_gone = slots.is_gone(now);
        let clients = slots.all().iter().zip(slots.breakers(now)).map(|(slot, breaker)| ClientReport {
            id: slot.id,
            status: if slot.is_available(now) && !is_gone { Status::Healthy } else { Status::Unhealthy },
            score: slot.health.score,
            breaker,
            usage_count: slot.uses,
            errors: slot.errors,
            age: now - slot.made,
            checks: slot.health.checks.clone(),
        });
        let mut clients: Vec<_> = clients.collect();
        clients.sort_by_key(|client| client.id);
        Snapshot {
            size,
            min: pool.min_size,
            max: pool.max_size,
            healthy: slots.healthy(now),
            active,
            utilization: active as f64 / size.max(1) as f64,
            streams: 0,
            max_streams: 0,
            retries: self.0.retries.load(Ordering::Relaxed),
            clients,
        }
    }
}

//! Decides which client executes the next call, and how many clients there are.
//!
//! In: the current time and the outcomes of calls and checks. Out: the ID of a client. Owned by [`super::Pool`], which
//! has the connections for these IDs. Reads no clock and opens no connection, so its tests are tables.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;

use super::breaker::{Breaker, BreakerState, CallOutcome};
use super::health::{Check, CheckVerdict, ClientHealth, HEALTHY, Round};

/// The state of one client.
pub(super) struct ClientSlot {
    /// Unique within the pool. IDs of removed clients are used again.
    pub(super) id: u32,
    /// Calls it has executed or is executing.
    pub(super) uses: u64,
    /// Calls that failed because of its connection or the daemon behind it.
    pub(super) errors: u64,
    /// A call is using its connection.
    pub(super) is_busy: bool,
    /// A check is using its connection. Never together with `is_busy`.
    is_checked: bool,
    /// When the client was created or its connection renewed.
    pub(super) made: Instant,
    /// End of the last call, or creation of the slot. Checks do not count as use.
    last_used: Instant,
    /// Since when it has a connection; `None` if the next call opens one.
    connected: Option<Instant>,
    pub(super) breaker: Breaker,
    pub(super) health: ClientHealth,
}

/// Which client executes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// This client, which is busy from now on.
    Take(u32),
    /// This client, which is busy from now on, over a new connection because the old one has reached its maximum age.
    Renewed(u32),
    /// No client is free at the moment.
    Full,
    /// No client: the daemon is gone.
    Gone,
}

/// All clients of the pool.
pub(super) struct Slots {
    config: config::DockerConfig,
    slots: Vec<ClientSlot>,
    /// Consecutive calls without a response, counted over all clients.
    lost: u32,
}

impl Slots {
    pub(super) fn new(config: config::DockerConfig, now: Instant) -> Slots {
        let mut slots = Slots { config, slots: Vec::new(), lost: 0 };
        let initial = slots.config.pool.initial_size.clamp(slots.min_size(), slots.max_size());
        slots.grow_to(initial, now);
        slots
    }

    pub(super) fn all(&self) -> &[ClientSlot] {
        &self.slots
    }

    fn min_size(&self) -> usize {
        self.config.pool.min_size.clamp(1, self.max_size())
    }

    fn max_size(&self) -> usize {
        self.config.pool.max_size.max(1)
    }

    /// Picks the client for the next call: of the free and healthy clients, the least used. Grows the pool if there is
    /// none.
    pub(super) fn pick(&mut self, now: Instant) -> Pick {
        if self.is_gone(now) {
            return Pick::Gone;
        }
        // The limit for trial calls applies to all clients together, since each executes only one call at a time.
        let may_probe = self.probes(now) < self.config.circuit_breaker.half_open_max_calls.max(1) as usize;
        let is_held_back = |slot: &ClientSlot| !may_probe && slot.breaker.state(now) == BreakerState::HalfOpen;
        let free = |slot: &&mut ClientSlot| slot.is_free() && slot.breaker.admits(now) && !is_held_back(slot);
        // Prefer a client that is connected.
        let rank = |slot: &&mut ClientSlot| (!slot.health.is_healthy(), slot.connected.is_none(), slot.uses, slot.id);
        let best = self.slots.iter_mut().filter(free).min_by_key(rank);
        if let Some(slot) = best.filter(|slot| slot.health.is_healthy()) {
            return slot.take(now, &self.config.pool);
        }
        // While trial calls are in progress, another client would not find out sooner whether the daemon works.
        if self.slots.iter().any(|slot| slot.is_free() && slot.health.is_healthy() && is_held_back(slot)) {
            return Pick::Full;
        }
        let size = self.slots.len();
        if size < self.max_size() {
            let grown = (size as f64 * self.config.pool.growth_factor).ceil().max(0.0) as usize;
            self.grow_to(grown.max(size + 1).min(self.max_size()), now);
            return self.slots[size].take(now, &self.config.pool);
        }
        // If there is no healthy client to wait for, an unhealthy one is better than none.
        let has_healthy = self.slots.iter().any(|slot| slot.is_available(now));
        match self.slots.iter_mut().filter(free).min_by_key(rank) {
            Some(slot) if !has_healthy => slot.take(now, &self.config.pool),
            _ => Pick::Full,
        }
    }

    /// Whether the daemon is gone, and not just a connection broken: all breakers are open, or the number of
    /// consecutive calls without a response, over all clients, has reached the threshold of a breaker. The second rule
    /// does not depend on the breakers: it needs that many failures in total instead of per client, and no breaker has
    /// to be half open first when the daemon is back.
    pub(super) fn is_gone(&self, now: Instant) -> bool {
        let breaking = &self.config.circuit_breaker;
        breaking.enabled && self.lost >= breaking.failure_threshold.max(1) || self.all_are_open(now)
    }

    fn all_are_open(&self, now: Instant) -> bool {
        self.slots.iter().all(|slot| slot.breaker.state(now) == BreakerState::Open)
    }

    /// Whether a ping can show that a gone daemon is back. If it answers but fails, only the timeout helps.
    pub(super) fn is_unreachable(&self, now: Instant) -> bool {
        self.is_gone(now)
            && (!self.all_are_open(now) || self.slots.iter().any(|slot| slot.breaker.opened_by_lost_calls()))
    }

    /// The number of trial calls in progress.
    fn probes(&self, now: Instant) -> usize {
        self.slots.iter().filter(|slot| slot.is_busy && slot.breaker.state(now) == BreakerState::HalfOpen).count()
    }

    /// The states of the breakers, in the order of [`Slots::all`]. While the daemon is gone, all count as open.
    pub(super) fn breakers(&self, now: Instant) -> impl Iterator<Item = BreakerState> {
        let is_gone = self.is_gone(now);
        self.slots.iter().map(move |slot| if is_gone { BreakerState::Open } else { slot.breaker.state(now) })
    }

    /// When the next breaker becomes half open by itself.
    pub(super) fn next_half_open(&self, now: Instant) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| slot.breaker.open_until()).filter(|until| *until > now).min()
    }

    /// Ends a call. Returns the new state of the client's breaker if the outcome has changed it.
    pub(super) fn settle(&mut self, id: u32, now: Instant, outcome: CallOutcome) -> Option<BreakerState> {
        let slot = self.slot_mut(id)?;
        let before = slot.breaker.state(now);
        slot.is_busy = false;
        slot.last_used = now;
        slot.breaker.settle(now, outcome);
        let changed = Some(slot.breaker.state(now)).filter(|after| *after != before);
        slot.errors += u64::from(matches!(outcome, CallOutcome::Failed | CallOutcome::Lost));
        match outcome {
            CallOutcome::Answered | CallOutcome::Failed => self.lost = 0,
            CallOutcome::Lost => {
                slot.connected = None;
                self.lost = self.lost.saturating_add(1);
            }
            CallOutcome::Unknown => {}
        }
        changed
    }

    /// Notes that the daemon has answered a ping.
    pub(super) fn ping_answered(&mut self, now: Instant) {
        if self.all_are_open(now) {
            self.slots.iter_mut().for_each(|slot| slot.breaker.ping_answered());
        }
        self.lost = 0;
    }

    /// Takes the client's connection for a check. Returns `false` if a call is using it, whose outcome shows as much.
    pub(super) fn begin_check(&mut self, id: u32) -> bool {
        self.slot_mut(id).filter(|slot| slot.is_free()).map(|slot| slot.is_checked = true).is_some()
    }

    pub(super) fn end_check(&mut self, id: u32) {
        if let Some(slot) = self.slot_mut(id) {
            slot.is_checked = false;
        }
    }

    /// Takes the results of a client's checks.
    pub(super) fn record_checks(&mut self, id: u32, now: Instant, checks: Vec<Check>, round: Round) -> CheckVerdict {
        let Slots { config, slots, .. } = self;
        let Some(slot) = slots.iter_mut().find(|slot| slot.id == id) else { return CheckVerdict::Same };
        let verdict = slot.health.record_checks(now, checks, round, &config.pool);
        match verdict {
            CheckVerdict::Renew => {
                slot.connected = None;
                slot.made = now;
                slot.breaker = Breaker::new(config.circuit_breaker.clone());
            }
            CheckVerdict::Same | CheckVerdict::Fell | CheckVerdict::Recovered => {}
        }
        if slot.health.score >= HEALTHY {
            slot.breaker.checks_passed();
            self.lost = 0;
        }
        verdict
    }

    /// The clients whose checks are due.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        self.checks().filter(|(_, due)| *due <= now).map(|(id, _)| id).collect()
    }

    /// Which clients to check, and when. A client that was never used has no connection to check.
    fn checks(&self) -> impl Iterator<Item = (u32, Instant)> {
        let free = self.slots.iter().filter(|slot| slot.uses > 0 && slot.is_free());
        free.filter_map(|slot| slot.health.due().map(|due| (slot.id, due)))
    }

    /// Removes clients that have been idle for too long, the longest idle first, down to the minimum size. Returns
    /// their IDs.
    pub(super) fn shrink(&mut self, now: Instant) -> Vec<u32> {
        let mut removed = Vec::new();
        while self.slots.len() > self.min_size() {
            let idle = self.slots.iter().filter(|slot| slot.is_free() && self.idle_deadline(slot) <= now);
            // Of those that were never used, the newest.
            let longest = idle.min_by_key(|slot| (slot.last_used, slot.connected.is_some(), Reverse(slot.id)));
            let Some(id) = longest.map(|slot| slot.id) else { break };
            self.slots.retain(|slot| slot.id != id);
            removed.push(id);
        }
        removed
    }

    /// When the next check or removal is due.
    pub(super) fn next_due(&self, now: Instant) -> Instant {
        let pool = &self.config.pool;
        let usual = Some(pool.health_check_interval).filter(|interval| !interval.is_zero());
        let check = self.checks().map(|(_, due)| due);
        let surplus = self.slots.len() > self.min_size();
        let idle = self.slots.iter().filter(|slot| surplus && slot.is_free()).map(|slot| self.idle_deadline(slot));
        let next = check.chain(idle).min();
        next.into_iter().chain([now + usual.unwrap_or(pool.idle_timeout)]).min().unwrap_or(now)
    }

    pub(super) fn healthy(&self, now: Instant) -> usize {
        if self.is_gone(now) { 0 } else { self.slots.iter().filter(|slot| slot.is_available(now)).count() }
    }

    pub(super) fn active(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_busy).count()
    }

    fn idle_deadline(&self, slot: &ClientSlot) -> Instant {
        slot.last_used + self.config.pool.idle_timeout.max(Duration::from_millis(100))
    }

    fn slot_mut(&mut self, id: u32) -> Option<&mut ClientSlot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn grow_to(&mut self, size: usize, now: Instant) {
        let taken: HashSet<u32> = self.slots.iter().map(|slot| slot.id).collect();
        // The lowest free IDs, so that few different IDs are used however many clients come and go.
        let free = (0..).filter(|id| !taken.contains(id)).take(size.saturating_sub(self.slots.len()));
        let slots = free.map(|id| ClientSlot {
            id,
            uses: 0,
            errors: 0,
            is_busy: false,
            is_checked: false,
            made: now,
            last_used: now,
            connected: None,
            breaker: Breaker::new(self.config.circuit_breaker.clone()),
            health: ClientHealth::new(now, &self.config.pool),
        });
        self.slots.extend(slots);
    }
}

impl ClientSlot {
    /// Whether the client receives calls, now or once it is free, unless the daemon is gone.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        self.health.is_healthy() && self.breaker.state(now) != BreakerState::Open
    }

    fn is_free(&self) -> bool {
        !self.is_busy && !self.is_checked
    }

    fn take(&mut self, now: Instant, settings: &config::PoolConfig) -> Pick {
        self.breaker.admit(now);
        self.is_busy = true;
        self.uses += 1;
        let is_old = self.connected.is_some_and(|since| now >= since + settings.max_connection_age);
        if is_old {
            (self.connected, self.made) = (None, now);
        }
        self.connected.get_or_insert(now);
        if is_old { Pick::Renewed(self.id) } else { Pick::Take(self.id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CircuitBreaker, PoolConfig};

    fn slots(pool: PoolConfig, start: Instant) -> Slots {
        let circuit_breaker =
            CircuitBreaker { failure_threshold: 2, success_threshold: 1, half_open_max_calls: 2, ..Default::default() };
        Slots::new(config::DockerConfig { pool, circuit_breaker, ..config::DockerConfig::default() }, start)
    }

    fn sizes(min_size: usize, initial_size: usize, max_size: usize) -> PoolConfig {
        PoolConfig { min_size, initial_size, max_size, ..PoolConfig::default() }
    }

    /// Runs steps of (second, what happens, result and clients after it). A client is shown as its ID with `*` for
    /// busy, `+` being checked, `!` breaker open, `?` half open, `-` unhealthy.
    fn play(pool: PoolConfig, steps: &[(u64, &str, &str)]) {
        let start = Instant::now();
        let mut slots = slots(pool, start);
        for (number, (second, what, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_secs(*second);
            let command: Vec<&str> = what.split(' ').collect();
            let id = || command[1].parse::<u32>().unwrap();
            let result = match command[0] {
                "call" => match slots.pick(now) {
                    Pick::Take(id) => format!("{id}"),
                    Pick::Renewed(id) => format!("{id} renewed"),
                    Pick::Full => "full".to_owned(),
                    Pick::Gone => "gone".to_owned(),
                },
                "done" => format!("{:?}", slots.settle(id(), now, CallOutcome::Answered)),
                "fail" => format!("{:?}", slots.settle(id(), now, CallOutcome::Failed)),
                "lose" => format!("{:?}", slots.settle(id(), now, CallOutcome::Lost)),
                "sick" => format!("{:?}", slots.record_checks(id(), now, Vec::new(), Round::Decisive)),
                "well" => {
                    let ok = |name| Check { name, ok: true, latency: Duration::ZERO, error: None };
                    format!(
                        "{:?}",
                        slots.record_checks(id(), now, vec![ok("ping"), ok("container_list")], Round::Routine)
                    )
                }
                "ping" => {
                    slots.ping_answered(now);
                    String::new()
                }
                "check" => slots.begin_check(id()).to_string(),
                "checked" => {
                    slots.end_check(id());
                    String::new()
                }
                "unreachable" => slots.is_unreachable(now).to_string(),
                "shrink" => format!("{:?}", slots.shrink(now)),
                "due" => format!("{:?}", slots.due(now)),
                "" => String::new(),
                other => panic!("{other}"),
            };
            let clients = slots.all().iter().zip(slots.breakers(now)).map(|(slot, breaker)| {
                let breaker = match breaker {
                    BreakerState::Closed => "",
                    BreakerState::Open => "!",
                    BreakerState::HalfOpen => "?",
                };
                let busy = match (slot.is_busy, slot.is_checked) {
                    (true, true) => "*+",
                    (true, false) => "*",
                    (false, true) => "+",
                    (false, false) => "",
                };
                let unhealthy = if slot.health.is_healthy() { "" } else { "-" };
                format!("{}{busy}{breaker}{unhealthy}", slot.id)
            });
            let got = format!("{result} | {}", clients.collect::<Vec<_>>().join(" "));
            assert_eq!(got.trim_start(), *expected, "step {number}: {what:?} at {second} s");
        }
    }

    #[test]
    fn the_least_used_connected_client_is_picked() {
        play(
            sizes(1, 3, 3),
            &[
                (0, "call", "0 | 0* 1 2"),
                (0, "done 0", "None | 0 1 2"),
                (0, "call", "0 | 0* 1 2"),
                (0, "call", "1 | 0* 1* 2"),
                (0, "done 1", "None | 0* 1 2"),
                (0, "done 0", "None | 0 1 2"),
                (0, "call", "1 | 0 1* 2"),
                (0, "call", "0 | 0* 1* 2"),
                (0, "call", "2 | 0* 1* 2*"),
                (0, "call", "full | 0* 1* 2*"),
                (0, "done 0", "None | 0 1* 2*"),
                (0, "done 2", "None | 0 1* 2"),
                (0, "call", "2 | 0 1* 2*"),
            ],
        );
    }

    #[test]
    fn the_pool_grows_by_the_factor_and_shrinks_when_idle() {
        play(
            PoolConfig { growth_factor: 2.0, ..sizes(2, 2, 7) },
            &[
                (0, "call", "0 | 0* 1"),
                (0, "call", "1 | 0* 1*"),
                (0, "call", "2 | 0* 1* 2* 3"),
                (0, "call", "3 | 0* 1* 2* 3*"),
                (0, "call", "4 | 0* 1* 2* 3* 4* 5 6"),
                (0, "call", "5 | 0* 1* 2* 3* 4* 5* 6"),
                (0, "call", "6 | 0* 1* 2* 3* 4* 5* 6*"),
                (0, "call", "full | 0* 1* 2* 3* 4* 5* 6*"),
                (10, "done 0", "None | 0 1* 2* 3* 4* 5* 6*"),
                (20, "done 3", "None | 0 1* 2* 3 4* 5* 6*"),
                (30, "done 1", "None | 0 1 2* 3 4* 5* 6*"),
                (309, "shrink", "[] | 0 1 2* 3 4* 5* 6*"),
                (310, "shrink", "[0] | 1 2* 3 4* 5* 6*"),
                (400, "shrink", "[3, 1] | 2* 4* 5* 6*"),
                (400, "done 2", "None | 2 4* 5* 6*"),
                (400, "done 4", "None | 2 4 5* 6*"),
                (401, "done 5", "None | 2 4 5 6*"),
                (900, "shrink", "[4, 2] | 5 6*"),
                (900, "call", "5 | 5* 6*"),
                (900, "call", "0 | 5* 6* 0* 1"),
            ],
        );
    }

    #[test]
    fn an_invalid_growth_factor_still_grows_by_one() {
        for growth_factor in [1.0, 0.0, -3.0, f64::NAN] {
            play(
                PoolConfig { growth_factor, ..sizes(1, 1, 3) },
                &[
                    (0, "call", "0 | 0*"),
                    (0, "call", "1 | 0* 1*"),
                    (0, "call", "2 | 0* 1* 2*"),
                    (0, "call", "full | 0* 1* 2*"),
                ],
            );
        }
    }

    #[test]
    fn the_initial_size_is_within_the_limits() {
        play(sizes(3, 1, 8), &[(0, "", "| 0 1 2")]);
        play(sizes(1, 9, 2), &[(0, "", "| 0 1")]);
        play(sizes(0, 0, 0), &[(0, "", "| 0")]);
    }

    #[test]
    fn a_client_with_an_open_breaker_is_skipped() {
        play(
            sizes(1, 2, 2),
            &[
                (0, "call", "0 | 0* 1"),
                (0, "lose 0", "None | 0 1"),
                (0, "call", "1 | 0 1*"),
                (0, "done 1", "None | 0 1"),
                (0, "call", "1 | 0 1*"),
                (0, "call", "0 | 0* 1*"),
                (1, "lose 0", "Some(Open) | 0! 1*"),
                (1, "call", "full | 0! 1*"),
                (1, "done 1", "None | 0! 1"),
                (1, "call", "1 | 0! 1*"),
                (61, "call", "0 | 0*? 1*"),
                (61, "done 0", "Some(Closed) | 0 1*"),
            ],
        );
    }

    #[test]
    fn if_all_breakers_are_open_calls_wait_for_a_ping() {
        play(
            PoolConfig { growth_factor: 2.0, ..sizes(1, 2, 8) },
            &[
                (0, "call", "0 | 0* 1"),
                (0, "call", "1 | 0* 1*"),
                (0, "lose 0", "None | 0 1*"),
                (0, "fail 1", "None | 0 1"),
                (0, "call", "1 | 0 1*"),
                (0, "call", "0 | 0* 1*"),
                (0, "lose 0", "Some(Open) | 0! 1*"),
                (0, "lose 1", "Some(Open) | 0! 1!"),
                (1, "call", "gone | 0! 1!"),
                (9, "call", "gone | 0! 1!"),
                (9, "unreachable", "true | 0! 1!"),
                (10, "ping", "| 0? 1?"),
                (10, "call", "0 | 0*? 1?"),
                (10, "call", "1 | 0*? 1*?"),
                (10, "done 0", "Some(Closed) | 0 1*?"),
                (10, "fail 1", "Some(Open) | 0 1!"),
            ],
        );
    }

    #[test]
    fn pings_do_not_help_a_daemon_that_answers_with_failures() {
        play(
            sizes(1, 2, 8),
            &[
                (0, "call", "0 | 0* 1"),
                (0, "call", "1 | 0* 1*"),
                (0, "fail 0", "None | 0 1*"),
                (0, "fail 1", "None | 0 1"),
                (0, "call", "0 | 0* 1"),
                (0, "call", "1 | 0* 1*"),
                (0, "fail 0", "Some(Open) | 0! 1*"),
                (0, "unreachable", "false | 0! 1*"),
                (1, "fail 1", "Some(Open) | 0! 1!"),
                (1, "unreachable", "false | 0! 1!"),
                (1, "ping", "| 0! 1!"),
                (59, "call", "gone | 0! 1!"),
                (60, "call", "0 | 0*? 1!"),
                (60, "lose 0", "Some(Open) | 0! 1!"),
                // A ping can end the timeout of client 0 early.
                (60, "unreachable", "true | 0! 1!"),
                (60, "ping", "| 0? 1!"),
                (60, "call", "0 | 0*? 1!"),
            ],
        );
    }

    #[test]
    fn the_number_of_trial_calls_is_limited() {
        play(
            sizes(4, 4, 8),
            &[
                (0, "call", "0 | 0* 1 2 3"),
                (0, "call", "1 | 0* 1* 2 3"),
                (0, "call", "2 | 0* 1* 2* 3"),
                (0, "call", "3 | 0* 1* 2* 3*"),
                (0, "lose 0", "None | 0 1* 2* 3*"),
                (0, "lose 1", "None | 0! 1! 2*! 3*!"),
                (1, "ping", "| 0 1 2* 3*"),
                (1, "lose 2", "None | 0 1 2 3*"),
                (1, "call", "0 | 0* 1 2 3*"),
                (1, "lose 3", "None | 0*! 1! 2! 3!"),
                (2, "ping", "| 0* 1 2 3"),
                (2, "lose 0", "Some(Open) | 0! 1 2 3"),
                (2, "call", "1 | 0! 1* 2 3"),
                (2, "call", "2 | 0! 1* 2* 3"),
                (2, "lose 1", "Some(Open) | 0! 1! 2*! 3!"),
                (3, "ping", "| 0! 1! 2* 3"),
                (3, "lose 2", "Some(Open) | 0! 1! 2! 3"),
                (3, "call", "3 | 0! 1! 2! 3*"),
                (3, "lose 3", "Some(Open) | 0! 1! 2! 3!"),
                (4, "ping", "| 0? 1? 2? 3?"),
                (4, "call", "0 | 0*? 1? 2? 3?"),
                (4, "call", "1 | 0*? 1*? 2? 3?"),
                // At most two, and no further client is created for a third.
                (4, "call", "full | 0*? 1*? 2? 3?"),
                (5, "done 0", "Some(Closed) | 0 1*? 2? 3?"),
                (5, "call", "0 | 0* 1*? 2? 3?"),
                (5, "call", "2 | 0* 1*? 2*? 3?"),
                (5, "call", "full | 0* 1*? 2*? 3?"),
                (6, "done 1", "Some(Closed) | 0* 1 2*? 3?"),
            ],
        );
    }

    #[test]
    fn a_check_occupies_the_connection_and_is_not_counted_as_use() {
        play(
            sizes(1, 2, 3),
            &[
                (0, "call", "0 | 0* 1"),
                (30, "due", "[] | 0* 1"),
                (30, "check 0", "false | 0* 1"),
                (31, "done 0", "None | 0 1"),
                (31, "due", "[0] | 0 1"),
                (31, "check 0", "true | 0+ 1"),
                (31, "check 0", "false | 0+ 1"),
                (31, "due", "[] | 0+ 1"),
                (31, "call", "1 | 0+ 1*"),
                (31, "well 0", "Same | 0+ 1*"),
                (31, "checked 0", "| 0 1*"),
                (31, "done 1", "None | 0 1"),
                (60, "due", "[1] | 0 1"),
                (61, "due", "[0, 1] | 0 1"),
                (331, "check 0", "true | 0+ 1"),
                (331, "shrink", "[1] | 0+"),
                (331, "checked 0", "| 0"),
            ],
        );
    }

    #[test]
    fn ids_are_reused_from_the_lowest() {
        let start = Instant::now();
        let mut slots = slots(sizes(1000, 1000, 1000), start);
        let ids = |slots: &Slots| slots.all().iter().map(|slot| slot.id).collect::<Vec<_>>();
        assert_eq!(ids(&slots), (0..1000).collect::<Vec<_>>());
        slots.slots.retain(|slot| ![3, 700].contains(&slot.id));
        slots.grow_to(1000, start);
        assert_eq!(ids(&slots)[998..], [3, 700]);
    }

    #[test]
    fn the_daemon_is_gone_before_every_breaker_opens() {
        play(
            sizes(3, 3, 3),
            &[
                (0, "call", "0 | 0* 1 2"),
                (0, "call", "1 | 0* 1* 2"),
                (0, "lose 0", "None | 0 1* 2"),
                (0, "done 1", "None | 0 1 2"),
                (0, "call", "1 | 0 1* 2"),
                (0, "call", "2 | 0 1* 2*"),
                (0, "call", "0 | 0* 1* 2*"),
                (1, "lose 1", "None | 0* 1 2*"),
                (1, "lose 2", "None | 0*! 1! 2!"),
                (1, "call", "gone | 0*! 1! 2!"),
                (2, "ping", "| 0* 1 2"),
                (2, "call", "2 | 0* 1 2*"),
                // The client's own breaker keeps its count.
                (3, "lose 2", "Some(Open) | 0* 1 2!"),
                (3, "call", "1 | 0* 1* 2!"),
                (4, "lose 1", "Some(Open) | 0*! 1! 2!"),
                (5, "ping", "| 0* 1! 2!"),
                (6, "done 0", "None | 0 1! 2!"),
                (6, "call", "0 | 0* 1! 2!"),
                (6, "call", "full | 0* 1! 2!"),
                (63, "call", "2 | 0* 1! 2*?"),
                // Passed checks show that the daemon is back, as a ping does.
                (63, "well 1", "Same | 0* 1? 2*?"),
            ],
        );
    }

    #[test]
    fn an_unhealthy_client_is_the_last_choice_and_is_renewed() {
        play(
            PoolConfig { unhealthy_threshold: 2, ..sizes(1, 2, 2) },
            &[
                (0, "call", "0 | 0* 1"),
                (0, "done 0", "None | 0 1"),
                (0, "sick 0", "Fell | 0- 1"),
                (0, "call", "1 | 0- 1*"),
                (0, "call", "full | 0- 1*"),
                (0, "sick 1", "Fell | 0- 1*-"),
                (0, "call", "0 | 0*- 1*-"),
                (0, "fail 0", "None | 0- 1*-"),
                (0, "call", "0 | 0*- 1*-"),
                (0, "fail 0", "Some(Open) | 0!- 1*-"),
                (60, "due", "[0] | 0?- 1*-"),
                (60, "sick 0", "Same | 0?- 1*-"),
                (60, "due", "[] | 0?- 1*-"),
                (120, "sick 0", "Renew | 0- 1*-"),
                (120, "due", "[0] | 0- 1*-"),
                (120, "well 0", "Recovered | 0 1*-"),
                (149, "due", "[] | 0 1*-"),
                (150, "due", "[0] | 0 1*-"),
            ],
        );
    }

    #[test]
    fn an_old_connection_is_replaced_between_two_calls() {
        play(
            sizes(1, 1, 1),
            &[
                (5, "call", "0 | 0*"),
                (10, "done 0", "None | 0"),
                (3604, "call", "0 | 0*"),
                (3700, "call", "full | 0*"),
                (3800, "done 0", "None | 0"),
                (3800, "call", "0 renewed | 0*"),
                (3800, "done 0", "None | 0"),
                (3801, "call", "0 | 0*"),
                // After a broken connection the age starts again.
                (7000, "lose 0", "None | 0"),
                (7399, "call", "0 | 0*"),
                (7500, "done 0", "None | 0"),
                (7500, "call", "0 | 0*"),
            ],
        );
    }

    #[test]
    fn only_used_clients_are_checked() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut slots = slots(sizes(1, 3, 3), start);
        assert_eq!((slots.due(at(1000)), slots.next_due(start)), (vec![], at(30)));
        assert_eq!(slots.pick(start), Pick::Take(0));
        slots.settle(0, start, CallOutcome::Answered);
        assert_eq!((slots.due(at(29)), slots.due(at(30)), slots.next_due(at(1))), (vec![], vec![0], at(30)));
        // Checks do not count as use, so the client becomes idle all the same.
        slots.record_checks(0, at(299), Vec::new(), Round::Routine);
        assert_eq!(slots.next_due(at(299)), at(300));
        assert_eq!(slots.shrink(at(300)).len(), 2);
        assert_eq!(slots.next_due(at(300)), at(329));
    }
}

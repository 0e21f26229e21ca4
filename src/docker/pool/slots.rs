//! Which client serves the next call, and how many clients there are.
//!
//! In: moments, and how calls and checks went. Out: a client's number. Owned by [`super::PoolConfig`], which holds the connections
//! that go by these numbers. Reads no clock and opens nothing, so tests are tables.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;

use super::breaker::{Breaker, Outcome, State};
use super::health::{Check, HEALTHY, Health, Verdict};

/// What is known of one client.
pub(super) struct Slot {
    pub(super) id: u32,
    /// Calls it was given.
    pub(super) uses: u64,
    /// Calls that failed on it.
    pub(super) errors: u64,
    pub(super) is_busy: bool,
    /// Its connection is taken by a check.
    is_checked: bool,
    pub(super) made: Instant,
    /// Checks are no use.
    last_used: Instant,
    /// Since when it has a connection; `None` where the next call opens one.
    connected: Option<Instant>,
    pub(super) breaker: Breaker,
    pub(super) health: Health,
}

/// Who serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// This one; it is busy now.
    Take(u32),
    /// This one, over a new connection: the old one has come of age.
    Renewed(u32),
    /// Nobody at the moment.
    Full,
    /// Nobody: the engine is gone.
    Gone,
}

/// See the module.
pub(super) struct Slots {
    config: config::DockerConfig,
    seats: Vec<Slot>,
    /// Calls without an answer in a row, whichever clients they went to.
    lost: u32,
}

impl Slots {
    pub(super) fn new(config: config::DockerConfig, now: Instant) -> Slots {
        let mut roster = Slots { config, seats: Vec::new(), lost: 0 };
        let initial = roster.config.pool.initial_size.clamp(roster.least(), roster.most());
        roster.grow_to(initial, now);
        roster
    }

    pub(super) fn seats(&self) -> &[Slot] {
        &self.seats
    }

    fn least(&self) -> usize {
        self.config.pool.min_size.clamp(1, self.most())
    }

    fn most(&self) -> usize {
        self.config.pool.max_size.max(1)
    }

    /// Whom the next call goes to: of those who are free and healthy the least used. Grows where there is none.
    pub(super) fn pick(&mut self, now: Instant) -> Pick {
        if self.is_gone(now) {
            return Pick::Gone;
        }
        // At one time so many over all of them, for each carries but one call.
        let may_probe = self.probes(now) < self.config.circuit_breaker.half_open_max_calls.max(1) as usize;
        let is_held_back = |seat: &Slot| !may_probe && seat.breaker.state(now) == State::HalfOpen;
        let free = |seat: &&mut Slot| seat.is_free() && seat.breaker.admits(now) && !is_held_back(seat);
        // One that has a connection goes before one that would have to open it.
        let rank = |seat: &&mut Slot| (!seat.health.is_healthy(), seat.connected.is_none(), seat.uses, seat.id);
        let best = self.seats.iter_mut().filter(free).min_by_key(rank);
        if let Some(seat) = best.filter(|seat| seat.health.is_healthy()) {
            return seat.take(now, &self.config.pool);
        }
        // A client more would be no help to find out, and one fewer to wait for.
        if self.seats.iter().any(|seat| seat.is_free() && seat.health.is_healthy() && is_held_back(seat)) {
            return Pick::Full;
        }
        let size = self.seats.len();
        if size < self.most() {
            let grown = (size as f64 * self.config.pool.growth_factor).ceil().max(0.0) as usize;
            self.grow_to(grown.max(size + 1).min(self.most()), now);
            return self.seats[size].take(now, &self.config.pool);
        }
        // With no healthy one to wait for, one that is not is better than none.
        let has_healthy = self.seats.iter().any(|seat| seat.serves(now));
        match self.seats.iter_mut().filter(free).min_by_key(rank) {
            Some(seat) if !has_healthy => seat.take(now, &self.config.pool),
            _ => Pick::Full,
        }
    }

    /// Whether not one connection has trouble, but the engine: all breakers are open, or as many calls in a row as open one
    /// were not answered by any client. The second is no matter of the single breakers. Five failures show it instead of five
    /// for each client, and none has to be half open when the engine is back.
    pub(super) fn is_gone(&self, now: Instant) -> bool {
        let breaking = &self.config.circuit_breaker;
        breaking.enabled && self.lost >= breaking.failure_threshold.max(1) || self.all_are_open(now)
    }

    fn all_are_open(&self, now: Instant) -> bool {
        self.seats.iter().all(|seat| seat.breaker.state(now) == State::Open)
    }

    /// Whether a ping may show that an engine that is gone is back: where it answers and is unwell, only time does.
    pub(super) fn is_out_of_reach(&self, now: Instant) -> bool {
        self.is_gone(now) && (!self.all_are_open(now) || self.seats.iter().any(|seat| seat.breaker.is_lost()))
    }

    /// Calls that are under way to find out whether a client is well again.
    fn probes(&self, now: Instant) -> usize {
        self.seats.iter().filter(|seat| seat.is_busy && seat.breaker.state(now) == State::HalfOpen).count()
    }

    /// Where the clients' breakers stand. While the engine is gone no call passes any.
    pub(super) fn breakers(&self, now: Instant) -> impl Iterator<Item = State> {
        let is_gone = self.is_gone(now);
        self.seats.iter().map(move |seat| if is_gone { State::Open } else { seat.breaker.state(now) })
    }

    /// When a breaker lets calls pass again by itself.
    pub(super) fn next_half_open(&self, now: Instant) -> Option<Instant> {
        self.seats.iter().filter_map(|seat| seat.breaker.open_until()).filter(|until| *until > now).min()
    }

    /// A call is over; whether a breaker has opened or closed by it.
    pub(super) fn settle(&mut self, id: u32, now: Instant, outcome: Outcome) -> Option<State> {
        let seat = self.seat(id)?;
        let before = seat.breaker.state(now);
        seat.is_busy = false;
        seat.last_used = now;
        seat.breaker.settle(now, outcome);
        let turned = Some(seat.breaker.state(now)).filter(|after| *after != before);
        seat.errors += u64::from(matches!(outcome, Outcome::Failed | Outcome::Lost));
        match outcome {
            Outcome::Answered | Outcome::Failed => self.lost = 0,
            Outcome::Lost => {
                seat.connected = None;
                self.lost = self.lost.saturating_add(1);
            }
            Outcome::Unknown => {}
        }
        turned
    }

    /// A probe of the engine was answered.
    pub(super) fn seen(&mut self, now: Instant) {
        if self.all_are_open(now) {
            self.seats.iter_mut().for_each(|seat| seat.breaker.seen());
        }
        self.lost = 0;
    }

    /// A check takes the client's connection, unless a call has it: that tells as much.
    pub(super) fn begin_check(&mut self, id: u32) -> bool {
        self.seat(id).filter(|seat| seat.is_free()).map(|seat| seat.is_checked = true).is_some()
    }

    /// And gives it back.
    pub(super) fn end_check(&mut self, id: u32) {
        if let Some(seat) = self.seat(id) {
            seat.is_checked = false;
        }
    }

    /// A client was checked.
    pub(super) fn judge(&mut self, id: u32, now: Instant, checks: Vec<Check>, is_decisive: bool) -> Verdict {
        let Slots { config, seats, .. } = self;
        let Some(seat) = seats.iter_mut().find(|seat| seat.id == id) else { return Verdict::Same };
        let verdict = seat.health.judge(now, checks, is_decisive, &config.pool);
        match verdict {
            Verdict::Renew => {
                seat.connected = None;
                seat.made = now;
                seat.breaker = Breaker::new(config.circuit_breaker.clone());
            }
            Verdict::Same | Verdict::Fell | Verdict::Recovered => {}
        }
        if seat.health.score >= HEALTHY {
            seat.breaker.half_open();
            self.lost = 0;
        }
        verdict
    }

    /// Who is to be checked now.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        self.checks().filter(|(_, due)| *due <= now).map(|(id, _)| id).collect()
    }

    /// Whom to check, and when. One that was never used has nothing that could be unwell.
    fn checks(&self) -> impl Iterator<Item = (u32, Instant)> {
        let free = self.seats.iter().filter(|seat| seat.uses > 0 && seat.is_free());
        free.filter_map(|seat| seat.health.due().map(|due| (seat.id, due)))
    }

    /// Takes away who was idle for long, the longest idle first, down to the least number.
    pub(super) fn shrink(&mut self, now: Instant) -> Vec<u32> {
        let mut gone = Vec::new();
        while self.seats.len() > self.least() {
            let idle = self.seats.iter().filter(|seat| seat.is_free() && self.idles_until(seat) <= now);
            // Of those that nobody ever used, the youngest.
            let longest = idle.min_by_key(|seat| (seat.last_used, seat.connected.is_some(), Reverse(seat.id)));
            let Some(id) = longest.map(|seat| seat.id) else { break };
            self.seats.retain(|seat| seat.id != id);
            gone.push(id);
        }
        gone
    }

    /// When there is next something to check or to take away.
    pub(super) fn next_due(&self, now: Instant) -> Instant {
        let pool = &self.config.pool;
        let usual = Some(pool.health_check_interval).filter(|interval| !interval.is_zero());
        let check = self.checks().map(|(_, due)| due);
        let surplus = self.seats.len() > self.least();
        let idle = self.seats.iter().filter(|seat| surplus && seat.is_free()).map(|seat| self.idles_until(seat));
        let next = check.chain(idle).min();
        next.into_iter().chain([now + usual.unwrap_or(pool.idle_timeout)]).min().unwrap_or(now)
    }

    pub(super) fn healthy(&self, now: Instant) -> usize {
        if self.is_gone(now) { 0 } else { self.seats.iter().filter(|seat| seat.serves(now)).count() }
    }

    pub(super) fn active(&self) -> usize {
        self.seats.iter().filter(|seat| seat.is_busy).count()
    }

    fn idles_until(&self, seat: &Slot) -> Instant {
        seat.last_used + self.config.pool.idle_timeout.max(Duration::from_millis(100))
    }

    fn seat(&mut self, id: u32) -> Option<&mut Slot> {
        self.seats.iter_mut().find(|seat| seat.id == id)
    }

    fn grow_to(&mut self, size: usize, now: Instant) {
        let taken: HashSet<u32> = self.seats.iter().map(|seat| seat.id).collect();
        // The lowest that are free, so that however many come and go, the numbers stay few.
        let free = (0..).filter(|id| !taken.contains(id)).take(size.saturating_sub(self.seats.len()));
        let seats = free.map(|id| Slot {
            id,
            uses: 0,
            errors: 0,
            is_busy: false,
            is_checked: false,
            made: now,
            last_used: now,
            connected: None,
            breaker: Breaker::new(self.config.circuit_breaker.clone()),
            health: Health::new(now, &self.config.pool),
        });
        self.seats.extend(seats);
    }
}

impl Slot {
    /// Whether calls go to it, now or when it is free, unless the engine is gone.
    pub(super) fn serves(&self, now: Instant) -> bool {
        self.health.is_healthy() && self.breaker.state(now) != State::Open
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

    fn roster(pool: PoolConfig, start: Instant) -> Slots {
        let circuit_breaker =
            CircuitBreaker { failure_threshold: 2, success_threshold: 1, half_open_max_calls: 2, ..Default::default() };
        Slots::new(config::DockerConfig { pool, circuit_breaker, ..config::DockerConfig::default() }, start)
    }

    fn sizes(min_size: usize, initial_size: usize, max_size: usize) -> PoolConfig {
        PoolConfig { min_size, initial_size, max_size, ..PoolConfig::default() }
    }

    /// What happens, and the clients as they stand then: `0*` is busy, `0+` checked, `0!` open, `0?` half open, `0-`
    /// unhealthy.
    fn play(pool: PoolConfig, steps: &[(u64, &str, &str)]) {
        let start = Instant::now();
        let mut roster = roster(pool, start);
        for (number, (second, what, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_secs(*second);
            let words: Vec<&str> = what.split(' ').collect();
            let id = || words[1].parse::<u32>().unwrap();
            let told = match words[0] {
                "call" => match roster.pick(now) {
                    Pick::Take(id) => format!("{id}"),
                    Pick::Renewed(id) => format!("{id} anew"),
                    Pick::Full => "full".to_owned(),
                    Pick::Gone => "gone".to_owned(),
                },
                "done" => format!("{:?}", roster.settle(id(), now, Outcome::Answered)),
                "fail" => format!("{:?}", roster.settle(id(), now, Outcome::Failed)),
                "lose" => format!("{:?}", roster.settle(id(), now, Outcome::Lost)),
                "sick" => format!("{:?}", roster.judge(id(), now, Vec::new(), true)),
                "well" => {
                    let ok = |name| Check { name, ok: true, latency: Duration::ZERO, error: None };
                    format!("{:?}", roster.judge(id(), now, vec![ok("ping"), ok("container_list")], false))
                }
                "seen" => {
                    roster.seen(now);
                    String::new()
                }
                "check" => roster.begin_check(id()).to_string(),
                "checked" => {
                    roster.end_check(id());
                    String::new()
                }
                "look" => roster.is_out_of_reach(now).to_string(),
                "shrink" => format!("{:?}", roster.shrink(now)),
                "due" => format!("{:?}", roster.due(now)),
                "" => String::new(),
                other => panic!("{other}"),
            };
            let stand = roster.seats().iter().zip(roster.breakers(now)).map(|(seat, breaker)| {
                let breaker = match breaker {
                    State::Closed => "",
                    State::Open => "!",
                    State::HalfOpen => "?",
                };
                let busy = match (seat.is_busy, seat.is_checked) {
                    (true, true) => "*+",
                    (true, false) => "*",
                    (false, true) => "+",
                    (false, false) => "",
                };
                let sick = if seat.health.is_healthy() { "" } else { "-" };
                format!("{}{busy}{breaker}{sick}", seat.id)
            });
            let got = format!("{told} | {}", stand.collect::<Vec<_>>().join(" "));
            assert_eq!(got.trim_start(), *expected, "step {number}: {what:?} at {second} s");
        }
    }

    #[test]
    fn the_least_used_serves_and_a_connection_is_used_before_another_is_opened() {
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
    fn it_grows_by_the_factor_when_all_are_busy_and_shrinks_when_they_idle() {
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
    fn a_factor_of_one_or_none_still_grows_by_one() {
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
    fn the_initial_size_keeps_within_the_bounds() {
        play(sizes(3, 1, 8), &[(0, "", "| 0 1 2")]);
        play(sizes(1, 9, 2), &[(0, "", "| 0 1")]);
        play(sizes(0, 0, 0), &[(0, "", "| 0")]);
    }

    #[test]
    fn who_has_trouble_is_passed_over_and_the_rest_serve() {
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
    fn when_all_breakers_are_open_nobody_serves_until_the_engine_is_seen() {
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
                (9, "look", "true | 0! 1!"),
                (10, "seen", "| 0? 1?"),
                (10, "call", "0 | 0*? 1?"),
                (10, "call", "1 | 0*? 1*?"),
                (10, "done 0", "Some(Closed) | 0 1*?"),
                (10, "fail 1", "Some(Open) | 0 1!"),
            ],
        );
    }

    #[test]
    fn an_engine_that_answers_and_is_unwell_is_not_looked_for_but_left_alone_for_the_breakers_time() {
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
                (0, "look", "false | 0! 1*"),
                (1, "fail 1", "Some(Open) | 0! 1!"),
                (1, "look", "false | 0! 1!"),
                (1, "seen", "| 0! 1!"),
                (59, "call", "gone | 0! 1!"),
                (60, "call", "0 | 0*? 1!"),
                (60, "lose 0", "Some(Open) | 0! 1!"),
                // One of them may come back earlier.
                (60, "look", "true | 0! 1!"),
                (60, "seen", "| 0? 1!"),
                (60, "call", "0 | 0*? 1!"),
            ],
        );
    }

    #[test]
    fn so_many_calls_find_out_at_one_time_whether_clients_are_well_again() {
        play(
            sizes(4, 4, 8),
            &[
                (0, "call", "0 | 0* 1 2 3"),
                (0, "call", "1 | 0* 1* 2 3"),
                (0, "call", "2 | 0* 1* 2* 3"),
                (0, "call", "3 | 0* 1* 2* 3*"),
                (0, "lose 0", "None | 0 1* 2* 3*"),
                (0, "lose 1", "None | 0! 1! 2*! 3*!"),
                (1, "seen", "| 0 1 2* 3*"),
                (1, "lose 2", "None | 0 1 2 3*"),
                (1, "call", "0 | 0* 1 2 3*"),
                (1, "lose 3", "None | 0*! 1! 2! 3!"),
                (2, "seen", "| 0* 1 2 3"),
                (2, "lose 0", "Some(Open) | 0! 1 2 3"),
                (2, "call", "1 | 0! 1* 2 3"),
                (2, "call", "2 | 0! 1* 2* 3"),
                (2, "lose 1", "Some(Open) | 0! 1! 2*! 3!"),
                (3, "seen", "| 0! 1! 2* 3"),
                (3, "lose 2", "Some(Open) | 0! 1! 2! 3"),
                (3, "call", "3 | 0! 1! 2! 3*"),
                (3, "lose 3", "Some(Open) | 0! 1! 2! 3!"),
                (4, "seen", "| 0? 1? 2? 3?"),
                (4, "call", "0 | 0*? 1? 2? 3?"),
                (4, "call", "1 | 0*? 1*? 2? 3?"),
                // Two at one time, and no client more instead.
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
    fn a_check_takes_the_connection_as_a_call_does_and_counts_as_none() {
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
    fn numbers_are_given_again_from_the_lowest_on() {
        let start = Instant::now();
        let mut roster = roster(sizes(1000, 1000, 1000), start);
        let numbers = |roster: &Slots| roster.seats().iter().map(|seat| seat.id).collect::<Vec<_>>();
        assert_eq!(numbers(&roster), (0..1000).collect::<Vec<_>>());
        roster.seats.retain(|seat| ![3, 700].contains(&seat.id));
        roster.grow_to(1000, start);
        assert_eq!(numbers(&roster)[998..], [3, 700]);
    }

    #[test]
    fn an_engine_that_answers_no_client_is_gone_before_each_breaker_has_found_out() {
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
                (2, "seen", "| 0* 1 2"),
                (2, "call", "2 | 0* 1 2*"),
                // Its own breaker counts on.
                (3, "lose 2", "Some(Open) | 0* 1 2!"),
                (3, "call", "1 | 0* 1* 2!"),
                (4, "lose 1", "Some(Open) | 0*! 1! 2!"),
                (5, "seen", "| 0* 1! 2!"),
                (6, "done 0", "None | 0 1! 2!"),
                (6, "call", "0 | 0* 1! 2!"),
                (6, "call", "full | 0* 1! 2!"),
                (63, "call", "2 | 0* 1! 2*?"),
                // A check that passes shows it as well.
                (63, "well 1", "Same | 0* 1? 2*?"),
            ],
        );
    }

    #[test]
    fn an_unhealthy_one_serves_only_where_no_other_does_and_is_made_anew_when_it_stays_so() {
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
    fn a_connection_of_age_is_replaced_between_two_calls_and_not_in_one() {
        play(
            sizes(1, 1, 1),
            &[
                (5, "call", "0 | 0*"),
                (10, "done 0", "None | 0"),
                (3604, "call", "0 | 0*"),
                (3700, "call", "full | 0*"),
                (3800, "done 0", "None | 0"),
                (3800, "call", "0 anew | 0*"),
                (3800, "done 0", "None | 0"),
                (3801, "call", "0 | 0*"),
                // One that broke is young again.
                (7000, "lose 0", "None | 0"),
                (7399, "call", "0 | 0*"),
                (7500, "done 0", "None | 0"),
                (7500, "call", "0 | 0*"),
            ],
        );
    }

    #[test]
    fn only_who_was_used_is_checked_and_rest_is_slept_through() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut roster = roster(sizes(1, 3, 3), start);
        assert_eq!((roster.due(at(1000)), roster.next_due(start)), (vec![], at(30)));
        assert_eq!(roster.pick(start), Pick::Take(0));
        roster.settle(0, start, Outcome::Answered);
        assert_eq!((roster.due(at(29)), roster.due(at(30)), roster.next_due(at(1))), (vec![], vec![0], at(30)));
        // Checks are no use: it idles all the same.
        roster.judge(0, at(299), Vec::new(), false);
        assert_eq!(roster.next_due(at(299)), at(300));
        assert_eq!(roster.shrink(at(300)).len(), 2);
        assert_eq!(roster.next_due(at(300)), at(329));
    }
}

//! Plays random sequences of what an engine, its users and our own crashes do to one container's log files against the
//! real reader, beside a model that only counts numbered lines.
//!
//! The sequences are the same in each run, so that a change that breaks nothing fails nowhere; `MODEL_CASES` plays that many
//! others. A sequence that fails is shrunk and printed.
//!
//! Whenever the reader has come to rest: each line that could be read has come, once, in its stream's order and with its
//! cursor; what is missing lies in a gap between its neighbours; each gap stands for something that is missing. The
//! output is that of `-o FILE --resume`: a crash cuts it back to what was committed, and the reader goes on from there.
//!
//! Where that cannot be promised, and why:
//!
//! - A gap with nothing lost: the file was truncated, or the file that was read last is gone, or was removed by hand, or was
//!   compressed when it had no record yet, while we were away. What came behind what was read cannot be known.
//! - A loss with no gap: a file was truncated of which nothing had been read, so that there is nothing to compare it with;
//!   a file was removed by hand that was not open; nothing had been committed, or only times, and the stream's last line
//!   lies too far back to have to come again; the last file of a container was removed before it could be opened.
//! - By time alone, lines of one nanosecond, and the parts of a line that is cut, are told by their numbers: where the
//!   first of them are gone, others are taken for them. Of two lines of one nanosecond where the rest of the first is
//!   lost, the second is taken for it; such are not written here.
//! - After the clock was set back, what is new is not known where only times tell: readable lines may lie in a gap, or, when
//!   the file was truncated while we were away, be taken for those that were in it. No
//!   clock is set back here on a log with files removed by hand or copied, and none is removed by hand where files are
//!   compressed: a compressed file is as new as its compression.
//! - A gap in another place: a file that was truncated was rotated and compressed without a record. It is missed only when
//!   the files are counted.
//! - A gap that is met inside a line is told before it, and such a line is what is left of it.
//! - While the reader runs beside the engine, a file may come and go before it is opened: a gap is enough.
#![allow(unreachable_pub, reason = "one binary that nobody links")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod engine;
mod model;
mod play;
mod reader;

use engine::{Driver, Options};
use logwatch::model::cursor::Stream;
use play::{Action, BUFFER, Death, Play, Setup};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Sequences of the largest of the tests, unless told otherwise.
const CASES: u32 = 800;

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 0..40_usize,
        1 => BUFFER - 1..=BUFFER + 1,
        1 => Just(40_000),
    ]
}

fn streams() -> impl Strategy<Value = Stream> {
    prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)]
}

fn setups(driver: Driver, is_loose: bool) -> impl Strategy<Value = Setup> {
    let max_sizes = match is_loose {
        false => prop_oneof![3 => Just(300), 3 => Just(1500), 2 => Just(20_000), 1 => Just(u64::MAX)].boxed(),
        true => prop_oneof![3 => Just(20_000), 1 => Just(u64::MAX)].boxed(),
    };
    let options =
        (max_sizes, 1..5_u32, any::<bool>(), any::<bool>()).prop_map(move |(max_size, max_file, compress, unlinks)| {
            let compress = compress && max_file > 1;
            Options { driver, max_size, max_file, compress, unlinks }
        });
    let limits = prop_oneof![Just(1_usize), Just(64 * 1024), Just(4 * 1024 * 1024)];
    let max_line_sizes = prop_oneof![3 => Just(1024 * 1024_usize), 1 => Just(10_000)];
    (options, limits, max_line_sizes, prop::bool::weighted(0.1)).prop_map(
        move |(options, limit, max_line_size, is_removed)| Setup {
            options,
            limit,
            max_line_size,
            is_loose,
            is_removed,
        },
    )
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let to = prop::option::of(streams());
    let deaths = prop_oneof![Just(Death::Whole), Just(Death::Cut), (1..30_usize).prop_map(Death::Open)];
    let action = prop_oneof![
        30 => (1..12_u8, to, sizes(), prop_oneof![Just(0_u32), 0..20_000_u32])
            .prop_map(|(lines, to, size, step)| Action::Write { lines, to, size, step }),
        8 => (streams(), prop_oneof![BUFFER..=BUFFER + 1, Just(40_000)]).prop_map(|(to, size)| Action::Piece { to, size }),
        4 => streams().prop_map(|to| Action::Torn { to }),
        12 => any::<bool>().prop_map(|slowly| Action::Rotate { slowly }),
        6 => Just(Action::Pack),
        2 => Just(Action::Truncate),
        2 => Just(Action::CopyTruncate),
        2 => Just(Action::Unlink),
        4 => deaths.prop_map(Action::Die),
        6 => Just(Action::Start),
        10 => Just(Action::Step),
        15 => Just(Action::Rest),
        3 => Just(Action::Hold),
        6 => Just(Action::Release),
        8 => Just(Action::Commit),
        5 => Just(Action::Crash),
        8 => prop::bool::weighted(0.3).prop_map(|by_time| Action::Resume { by_time }),
        1 => Just(Action::SetBack),
        1 => Just(Action::Wait),
    ];
    prop::collection::vec(action, 1..50)
}

/// Plays as many new sequences as `MODEL_CASES` says, or a part of the usual ones.
fn play_all(driver: Driver, is_loose: bool, part: u32) {
    let asked = std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(CASES / part);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut runner = match asked {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let played = runner.run(&(setups(driver, is_loose), actions()), |(setup, actions)| {
        Play::new(setup).play(&actions).map_err(TestCaseError::fail)
    });
    match played {
        Ok(()) => {}
        Err(TestError::Fail(reason, (setup, actions))) => panic!("{reason}\n{setup:?}\n{actions:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn whatever_happens_to_a_json_file_each_line_comes_once_or_is_told_to_be_lost() {
    play_all(Driver::JsonFile, false, 1);
}

#[test]
fn whatever_happens_to_a_local_log_each_line_comes_once_or_is_told_to_be_lost() {
    play_all(Driver::Local, false, 2);
}

#[test]
fn whatever_happens_to_a_cache_each_line_comes_once_or_is_told_to_be_lost() {
    play_all(Driver::Cache, false, 4);
}

#[test]
fn whatever_happens_while_the_reader_runs_each_line_comes_once_or_is_told_to_be_lost() {
    play_all(Driver::JsonFile, true, 8);
}

fn plain(max_size: u64, max_file: u32) -> Setup {
    let options = Options { driver: Driver::JsonFile, max_size, max_file, compress: false, unlinks: false };
    Setup { options, limit: 1, max_line_size: 1024 * 1024, is_loose: false, is_removed: false }
}

fn check(setup: Setup, actions: &[Action]) {
    if let Err(wrong) = Play::new(setup).play(actions) {
        panic!("{wrong}\n{setup:?}\n{actions:?}");
    }
}

fn lines(lines: u8, to: Option<Stream>, size: usize) -> Action {
    Action::Write { lines, to, size, step: 1000 }
}

#[test]
fn files_that_were_all_opened_leave_no_gap_though_the_one_before_them_is_gone() {
    check(plain(300, 1), &[Action::Rest, lines(7, None, 25)]);
}

#[test]
fn a_line_that_begins_before_the_end_of_a_life_is_heard_of_is_not_cut_there() {
    let piece = Action::Piece { to: Stream::Stdout, size: BUFFER };
    let torn = Action::Torn { to: Stream::Stderr };
    check(plain(300, 4), &[Action::Die(Death::Whole), Action::Start, piece, torn, Action::Rest, lines(1, None, 0)]);
}

#[test]
fn a_stream_that_is_silent_since_a_loss_does_not_hide_the_next_one() {
    let first = Action::Piece { to: Stream::Stdout, size: 40_000 };
    let (out, life) = (Some(Stream::Stdout), [Action::Die(Death::Whole), Action::Rest, Action::Start]);
    let mut actions = vec![Action::Die(Death::Open(1)), Action::Start, first];
    actions.extend(life);
    actions.push(lines(8, out, 15));
    actions.extend(life);
    actions.push(lines(3, out, BUFFER));
    check(plain(300, 1), &actions);
}

#[test]
fn a_file_that_was_truncated_before_it_was_compressed_is_read_once() {
    let setup = plain(1500, 4);
    let setup = Setup { options: Options { compress: true, ..setup.options }, ..setup };
    let torn = Action::Torn { to: Stream::Stdout };
    let piece = Action::Piece { to: Stream::Stdout, size: 40_000 };
    check(setup, &[lines(7, None, 30), lines(9, None, 18), torn, Action::Truncate, piece, lines(1, None, 0)]);
}

#[test]
fn a_record_that_is_half_there_behind_a_hole_is_read_whole() {
    let setup = plain(1500, 2);
    let setup = Setup { options: Options { driver: Driver::Local, ..setup.options }, ..setup };
    let (rotate, torn) = (Action::Rotate { slowly: false }, Action::Torn { to: Stream::Stderr });
    check(setup, &[lines(3, None, 20), rotate, lines(3, None, 20), Action::Rest, Action::Truncate, torn, Action::Rest]);
}

#[test]
fn a_file_that_comes_and_goes_before_the_first_is_opened_is_told_to_be_lost() {
    let hidden = [Action::Rest, Action::Commit, Action::Die(Death::Whole), Action::Rest, Action::Start];
    check(plain(300, 1), &[&hidden[..], &[lines(9, None, 25), lines(9, None, 25)]].concat());
}

#[test]
fn lines_passed_inside_a_longer_one_that_were_truncated_since_do_not_hide_new_ones() {
    let (piece, out) = (Action::Piece { to: Stream::Stderr, size: 40_000 }, Some(Stream::Stdout));
    let killed = [Action::Rest, Action::Commit, Action::Crash, Action::Truncate];
    let again = [lines(3, out, 25), Action::Resume { by_time: false }, Action::Rest];
    check(plain(1500, 4), &[&[piece, lines(4, out, 25)], &killed[..], &again].concat());
}

#[test]
fn a_log_that_is_gone_on_with_by_time_tells_what_is_gone_and_reads_on() {
    let killed = [Action::Rest, Action::Commit, Action::Crash, lines(9, None, 25)];
    let again = [Action::Resume { by_time: true }, Action::Rest, lines(1, None, 25), Action::Rest];
    check(plain(300, 1), &[&[lines(2, None, 25)], &killed[..], &again].concat());
}

#[test]
fn a_file_that_was_empty_when_we_were_killed_is_not_taken_for_the_next_one_with_its_number() {
    let killed = [Action::Rest, Action::Commit, Action::Crash, lines(40, None, 25)];
    check(plain(300, 2), &[&killed[..], &[Action::Resume { by_time: false }, Action::Rest]].concat());
}

#[test]
fn a_line_stamped_before_the_one_that_had_only_begun_is_read_when_it_is_gone_on_by_time() {
    let setup = plain(1500, 1);
    let options = Options { driver: Driver::Cache, unlinks: true, ..setup.options };
    let write = |lines, size| Action::Write { lines, to: None, size, step: 0 };
    let begun = [write(5, 8), Action::Crash, write(1, 40_000)];
    let piece = Action::Piece { to: Stream::Stdout, size: BUFFER };
    let dies = [write(2, 0), Action::Die(Death::Whole), Action::Commit, Action::Crash];
    let again = [Action::Resume { by_time: true }];
    let first = [piece, Action::Resume { by_time: false }];
    check(Setup { options, ..setup }, &[&begun[..], &first, &dies, &again].concat());
}

#[test]
fn lines_that_a_copy_brings_back_are_not_taken_for_those_that_were_passed_on() {
    use Action::*;
    let setup = plain(u64::MAX, 2);
    let setup = Setup { options: Options { compress: true, ..setup.options }, ..setup };
    let write = |lines, to, size, step| Write { lines, to, size, step };
    let (err, piece) = (Some(Stream::Stderr), |to| Piece { to, size: 40_000 });
    let begun = [piece(Stream::Stdout), piece(Stream::Stderr), Crash, Resume { by_time: false }];
    let copied = [write(2, None, 34, 1826), CopyTruncate, Pack, write(10, err, 29, 0), Step, write(3, None, 20, 0)];
    let killed = [write(2, err, 12, 7032), Commit, Pack, Pack, write(6, None, 16_384, 2277), Step, Rest, Crash];
    check(setup, &[&begun[..], &copied, &killed, &[write(6, None, 23, 0), Rest]].concat());
}

#[test]
fn a_clock_that_is_set_back_hides_no_line_behind_a_start_by_time() {
    use Action::*;
    let setup = plain(300, 2);
    let setup = Setup { options: Options { driver: Driver::Local, ..setup.options }, ..setup };
    let begun = [Piece { to: Stream::Stdout, size: BUFFER }, Rest, Commit, Crash, Resume { by_time: true }];
    let again = [lines(1, None, 0), Rest, SetBack, lines(1, None, 0)];
    check(setup, &[&begun[..], &again].concat());
}

//! Plays random sequences of what an engine, its users and our own crashes do to the log files of one container. The
//! real reader reads them, and a model that only counts numbered lines checks its output.
//!
//! The sequences are the same in each run, so that an unrelated change never fails; `MODEL_CASES` plays that many other
//! ones. A failing sequence is shrunk and printed.
//!
//! Whenever the reader is at rest: each line that could be read came once, in the order of its stream and with its
//! cursor; missing lines are covered by a gap between their neighbours; each gap covers something that is missing. The
//! output is that of `-o FILE --resume`: a crash cuts it back to what was committed, and the reader continues from
//! there.
//!
//! Exceptions, and why nothing better is possible:
//!
//! - A gap without a loss: while we were away the file was truncated, or the file read last vanished, was removed by
//!   hand, or was compressed before it had a record. Nobody can know what came after the part that was read.
//! - A loss without a gap: a file was truncated of which nothing had been read, so that there is nothing to compare; a
//!   file was removed by hand that was not open; nothing had been committed, or only times, and the last line of the
//!   stream is too old to come again; the last file of a container was removed before it could be opened.
//! - By time alone, lines of the same nanosecond and the parts of a split line are identified by counting: if the first
//!   of them are lost, others are taken for them. If the rest of the first of two lines of one nanosecond is lost, the
//!   second is taken for it; the model does not write such lines.
//! - After the clock was set back, times alone do not show what is new: readable lines may lie in a gap or, if the file
//!   was truncated while we were away, be taken for lines that were in it. So the clock is not set back here on a log
//!   with files that were removed by hand or copied, and no file is removed by hand where files are compressed, since
//!   the time of a compressed file is that of its compression.
//! - A gap in another place: a truncated file was rotated and compressed without a record. It is missed only when files
//!   are counted.
//! - A gap inside a line is reported before the line, which then is what is left of it.
//! - While the reader runs in parallel to the engine, a file may come and go before it is opened: a gap is enough.
#![allow(unreachable_pub, reason = "one binary that nobody links")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod engine;
mod model;
mod play;
mod reader;

use engine::{Driver, Options};
use logwatch::internals::model::Stream;
use play::{Action, BUFFER, Death, Play, Setup};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How many sequences the largest of these tests plays.
const CASES: u32 = 800;

/// The same under the nextest profile `fast`.
const FAST_CASES: u32 = 80;

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

/// Plays as many new sequences as `MODEL_CASES` says, or the usual number divided by `part`.
fn play_all(driver: Driver, is_loose: bool, part: u32) {
    let asked = std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    let is_fast = std::env::var("NEXTEST_PROFILE").is_ok_and(|profile| profile == "fast");
    let usual = if is_fast { FAST_CASES } else { CASES };
    let cases = asked.unwrap_or(usual / part);
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

/// Each line comes once, or its loss is reported as a gap, whatever happens to the files.
#[test]
fn every_json_file_line_comes_once() {
    play_all(Driver::JsonFile, false, 1);
}

/// Each line comes once, or its loss is reported as a gap, whatever happens to the files.
#[test]
fn every_local_log_line_comes_once() {
    play_all(Driver::Local, false, 2);
}

/// Each line comes once, or its loss is reported as a gap, whatever happens to the files.
#[test]
fn every_cached_line_comes_once() {
    play_all(Driver::Cache, false, 4);
}

/// Each line comes once, or its loss is reported as a gap, whatever happens to the files meanwhile.
#[test]
fn a_running_reader_reads_every_line_once() {
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

/// This holds even when the file before them has vanished.
#[test]
fn opened_files_leave_no_gap() {
    check(plain(300, 1), &[Action::Rest, lines(7, None, 25)]);
}

/// A line that begins before the reader is notified of a death is not cut there.
#[test]
fn an_unfinished_line_spans_a_late_death() {
    let piece = Action::Piece { to: Stream::Stdout, size: BUFFER };
    let torn = Action::Torn { to: Stream::Stderr };
    check(plain(300, 4), &[Action::Die(Death::Whole), Action::Start, piece, torn, Action::Rest, lines(1, None, 0)]);
}

#[test]
fn a_silent_stream_hides_no_second_loss() {
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
fn a_truncated_then_compressed_file_comes_once() {
    let setup = plain(1500, 4);
    let setup = Setup { options: Options { compress: true, ..setup.options }, ..setup };
    let torn = Action::Torn { to: Stream::Stdout };
    let piece = Action::Piece { to: Stream::Stdout, size: 40_000 };
    check(setup, &[lines(7, None, 30), lines(9, None, 18), torn, Action::Truncate, piece, lines(1, None, 0)]);
}

#[test]
fn half_a_record_behind_a_hole_is_read() {
    let setup = plain(1500, 2);
    let setup = Setup { options: Options { driver: Driver::Local, ..setup.options }, ..setup };
    let (rotate, torn) = (Action::Rotate { slowly: false }, Action::Torn { to: Stream::Stderr });
    check(setup, &[lines(3, None, 20), rotate, lines(3, None, 20), Action::Rest, Action::Truncate, torn, Action::Rest]);
}

#[test]
fn a_file_gone_before_opening_is_a_gap() {
    let hidden = [Action::Rest, Action::Commit, Action::Die(Death::Whole), Action::Rest, Action::Start];
    check(plain(300, 1), &[&hidden[..], &[lines(9, None, 25), lines(9, None, 25)]].concat());
}

#[test]
fn truncated_delivered_lines_hide_no_new_ones() {
    let (piece, out) = (Action::Piece { to: Stream::Stderr, size: 40_000 }, Some(Stream::Stdout));
    let killed = [Action::Rest, Action::Commit, Action::Crash, Action::Truncate];
    let again = [lines(3, out, 25), Action::Resume { by_time: false }, Action::Rest];
    check(plain(1500, 4), &[&[piece, lines(4, out, 25)], &killed[..], &again].concat());
}

/// A run that resumes by time reports what is lost, and continues after it.
#[test]
fn resuming_by_time_reports_the_loss() {
    let killed = [Action::Rest, Action::Commit, Action::Crash, lines(9, None, 25)];
    let again = [Action::Resume { by_time: true }, Action::Rest, lines(1, None, 25), Action::Rest];
    check(plain(300, 1), &[&[lines(2, None, 25)], &killed[..], &again].concat());
}

/// A file that was empty at the crash is not taken for the next one with its inode number.
#[test]
fn a_reused_inode_number_is_another_file() {
    let killed = [Action::Rest, Action::Commit, Action::Crash, lines(40, None, 25)];
    check(plain(300, 2), &[&killed[..], &[Action::Resume { by_time: false }, Action::Rest]].concat());
}

/// A line stamped before one that had only begun is read when a run resumes by time.
#[test]
fn a_begun_line_hides_no_earlier_one() {
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
fn lines_copied_back_are_not_skipped() {
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
fn a_start_by_time_survives_a_clock_change() {
    use Action::*;
    let setup = plain(300, 2);
    let setup = Setup { options: Options { driver: Driver::Local, ..setup.options }, ..setup };
    let begun = [Piece { to: Stream::Stdout, size: BUFFER }, Rest, Commit, Crash, Resume { by_time: true }];
    let again = [lines(1, None, 0), Rest, SetBack, lines(1, None, 0)];
    check(setup, &[&begun[..], &again].concat());
}

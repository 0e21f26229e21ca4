//! Tests of the support that need no engine.

use std::process::Command;

use crate::support::{PATIENCE, Signal, Watch, eventually, process, watchdog};

/// A held watch blocks on its full pipe, as under a pager.
#[test]
fn held_output_stays_unread_until_released() {
    let mut command = Command::new("sh");
    let seq = Watch::spawn(command.args(["-c", "kill -STOP $$; echo before >&2; seq 1 200000; echo after >&2"]));
    seq.hold();
    // It may not have stopped itself yet.
    eventually("it went on", || {
        seq.signal(Signal::CONT);
        seq.notices() == ["before"]
    });
    // One last block and the pipe's 64 KiB may be read before the hold takes effect.
    assert!(process::lives(seq.pid()) && seq.lines().len() < 30_000);
    seq.release();
    let finished = seq.finish();
    assert_eq!((finished.code, finished.lines().len()), (Some(0), 200_000));
    assert_eq!(finished.stderr, "before\nafter\n");
}

/// Set in the environment of a test that runs itself: how it is to hang.
const HANGS: &str = "IT_HANGS";

/// A test that waits for a program forever fails at its time limit, with its name in the message, and what it started
/// is killed. A test that waits for nothing that can be killed ends the whole process. Neither needs nextest.
#[test]
fn a_hanging_test_ends_with_its_programs() {
    let name = "no_engine::support::a_hanging_test_ends_with_its_programs";
    match std::env::var(HANGS).as_deref() {
        Ok("program") => {
            let mut shell = Command::new("sh");
            let shell = Watch::spawn(shell.args(["-c", "setsid sleep 86399 & echo started; wait"]));
            return shell.wait_for(|lines| lines.len() > 1, PATIENCE * 100);
        }
        Ok(_) => {
            let mut shell = Command::new("sh");
            let _shell = Watch::spawn(shell.args(["-c", "sleep 86399"]));
            loop {
                std::thread::park();
            }
        }
        Err(_) => {}
    }
    for how in ["program", "nothing"] {
        let mut itself = Command::new(std::env::current_exe().unwrap());
        itself.args(["--exact", name, "--nocapture"]).env(HANGS, how).env(watchdog::LIMIT, "1000");
        let run = Watch::spawn(&mut itself);
        let started = format!("IT_STARTED_BY={}-", run.pid());
        let finished = run.finish();
        let reported = String::from_utf8_lossy(&finished.stdout).into_owned() + &finished.stderr;
        assert_eq!(finished.code, Some(101), "{how}: {reported}");
        assert!(
            reported.contains(&format!("{name} has taken more than 1s: all that it started is killed")),
            "{how}: {reported}"
        );
        assert_eq!(reported.contains("this process ends"), how == "nothing", "{reported}");
        assert_eq!(process::with_variable(&started).filter(|pid| process::lives(*pid)).count(), 0, "{how}");
    }
}

/// Other programs of a pipeline hold its pipes, in whatever session they are, and must not block a test that failed.
#[test]
fn a_dropped_watch_ends_its_grandchildren() {
    let mut shell = Command::new("sh");
    let watch = Watch::spawn(shell.args(["-c", "setsid sh -c 'echo $$; exec sleep 86399' & exit 0"]));
    watch.wait_for_count(1);
    let grandchild: u32 = watch.lines()[0].parse().unwrap();
    assert!(process::lives(grandchild));
    drop(watch);
    assert!(!process::lives(grandchild));
}

/// `nohup` makes everything below it ignore SIGHUP, which would break the tests of signals.
#[test]
fn programs_do_not_ignore_a_hang_up() {
    let name = "no_engine::support::programs_do_not_ignore_a_hang_up";
    if std::env::var_os(HANGS).is_none() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        let finished = Watch::spawn(shell.args(["--exact", name]).env(HANGS, "no")).finish();
        return assert_eq!(finished.code, Some(0), "{}", String::from_utf8_lossy(&finished.stdout));
    }
    assert!(process::ignores_hang_up());
    let mut shell = Command::new("sh");
    let finished = Watch::spawn(shell.args(["-c", "kill -HUP $$; echo ignored"])).finish();
    assert_eq!((finished.code, finished.stdout.len()), (None, 0));
}

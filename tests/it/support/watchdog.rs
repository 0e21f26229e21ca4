//! A time limit for every test, which `cargo test` lacks.
//!
//! A test is watched from its first engine or program until its thread ends. At the limit everything that it started is
//! killed, so whatever it waits for fails. If that does not end it, the process ends with all its tests, because a
//! thread cannot be stopped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{engine, long, process};

/// Overrides the limit, in milliseconds, for the watchdog's own test.
pub const LIMIT: &str = "IT_LIMIT";

/// An environment variable of every process that a test starts, which identifies its descendants wherever they are.
const MARK: &str = "IT_STARTED_BY";

static TESTS: Mutex<Vec<Test>> = Mutex::new(Vec::new());

struct Test {
    thread: thread::ThreadId,
    name: String,
    begun: Instant,
    engines: Vec<PathBuf>,
    is_killed: bool,
}

/// Watches the test on this thread.
pub fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        restore_hang_up();
        thread::spawn(guard);
    });
    WATCHED.with(|_| ());
}

/// Watches the test on this thread, which owns the engine in this directory.
pub fn watch_engine(home: &Path) {
    watch();
    with_own(|test| test.engines.push(home.to_owned()));
}

/// Marks a command, and whatever that starts, as belonging to this thread's test; returns the mark.
pub fn mark(command: &mut Command) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    watch();
    // No mark is a prefix of another one.
    let mark = format!("{}{}.", mark_of(thread::current().id()), NEXT.fetch_add(1, Ordering::Relaxed));
    command.env(MARK, &mark);
    mark
}

/// Kills every process whose mark starts with this, repeatedly until none is left: one may have started another
/// meanwhile.
pub fn kill_marked(mark: &str) {
    let line = format!("{MARK}={mark}");
    loop {
        let marked: Vec<u32> = process::with_variable(&line).filter(|pid| process::lives(*pid)).collect();
        if marked.is_empty() {
            return;
        }
        marked.iter().for_each(|pid| process::signal(*pid, super::Signal::KILL));
        thread::sleep(Duration::from_millis(5));
    }
}

thread_local! {
    static WATCHED: Watched = Watched::new();
}

/// Lives as long as its thread.
struct Watched;

impl Watched {
    fn new() -> Self {
        let current = thread::current();
        let name = current.name().unwrap_or("a thread of a test").to_owned();
        let (thread, begun) = (current.id(), Instant::now());
        tests().push(Test { thread, name, begun, engines: Vec::new(), is_killed: false });
        Self
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let id = thread::current().id();
        tests().retain(|test| test.thread != id);
    }
}

fn tests() -> MutexGuard<'static, Vec<Test>> {
    TESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_own(change: impl FnOnce(&mut Test)) {
    let id = thread::current().id();
    if let Some(test) = tests().iter_mut().find(|test| test.thread == id) {
        change(test);
    }
}

/// The common prefix of all marks of a thread's test.
fn mark_of(thread: thread::ThreadId) -> String {
    format!("{}-{thread:?}-", std::process::id())
}

/// Shorter than the limit of nextest, so that what the test started is killed before the test itself.
fn limit() -> Duration {
    let milliseconds = std::env::var(LIMIT).ok().and_then(|text| text.parse().ok());
    let usual = Duration::from_secs(if long() { 1800 } else { 220 });
    milliseconds.map_or(usual, Duration::from_millis)
}

fn guard() {
    let limit = limit();
    // How long a test may take to notice that everything it started is gone.
    let grace = (limit / 10).max(Duration::from_secs(2));
    loop {
        thread::sleep(limit / 20);
        let mut tests = tests();
        for test in tests.iter_mut().filter(|test| test.begun.elapsed() > limit && !test.is_killed) {
            eprintln!("{} has taken more than {limit:?}: all that it started is killed", test.name);
            test.is_killed = true;
            kill_marked(&mark_of(test.thread));
            test.engines.iter().for_each(|home| engine::kill(home));
        }
        let Some(stuck) = tests.iter().find(|test| test.begun.elapsed() > limit + grace) else { continue };
        eprintln!("{} does not end: this process ends, with all of its tests", stuck.name);
        for test in tests.iter() {
            kill_marked(&mark_of(test.thread));
            test.engines.iter().for_each(|home| engine::clear(home));
        }
        std::process::exit(101);
    }
}

/// Under `nohup` SIGHUP is ignored, and an ignored signal stays ignored in every child. A caught signal does not: a
/// child starts with the default action.
fn restore_hang_up() {
    if !process::ignores_hang_up() {
        return;
    }
    // On its own thread, because a test may run inside a runtime, where no second one can be dropped.
    let catch = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let signal = || tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        runtime.block_on(async { signal().map(drop) }).unwrap();
    };
    std::thread::spawn(catch).join().unwrap();
}

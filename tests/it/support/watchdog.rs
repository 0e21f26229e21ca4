//! A time limit for every test, for `cargo test` has none.
//!
//! A test is watched from its first engine or program on until its thread ends. At the limit all that it started is
//! killed, which fails whatever it waits for. If that does not end it, the process ends with all its tests, since a
//! thread cannot be stopped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{engine, long, process};

/// Names the limit in milliseconds, for the watchdog's own test.
pub const LIMIT: &str = "IT_LIMIT";

/// In the environment of everything that a test starts, so that it is found wherever it went.
const MARK: &str = "IT_STARTED_BY";

static TESTS: Mutex<Vec<Test>> = Mutex::new(Vec::new());

struct Test {
    thread: thread::ThreadId,
    name: String,
    begun: Instant,
    engines: Vec<PathBuf>,
    is_killed: bool,
}

/// Watches the test of this thread.
pub fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        restore_hang_up();
        thread::spawn(guard);
    });
    WATCHED.with(|_| ());
}

/// Watches the test of this thread, which has the engine in this folder.
pub fn watch_engine(home: &Path) {
    watch();
    with_own(|test| test.engines.push(home.to_owned()));
}

/// Marks what is to be started, and whatever that starts, as this thread's test's; returns the mark.
pub fn mark(command: &mut Command) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    watch();
    // No mark begins with another.
    let mark = format!("{}{}.", mark_of(thread::current().id()), NEXT.fetch_add(1, Ordering::Relaxed));
    command.env(MARK, &mark);
    mark
}

/// Kills every process whose mark begins so, again and again until there are none: one may have started another
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

/// As long as the thread lives.
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

/// The beginning of all marks of a thread's test.
fn mark_of(thread: thread::ThreadId) -> String {
    format!("{}-{thread:?}-", std::process::id())
}

/// Less than nextest gives a test, so that what the test started is killed before the test itself.
fn limit() -> Duration {
    let milliseconds = std::env::var(LIMIT).ok().and_then(|text| text.parse().ok());
    let usual = Duration::from_secs(if long() { 1800 } else { 220 });
    milliseconds.map_or(usual, Duration::from_millis)
}

fn guard() {
    let limit = limit();
    // As long as a test may take to notice that all it started is gone.
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

/// Under `nohup` SIGHUP is ignored, and what is ignored stays so in everything that is started. A signal that is caught
/// does not: a child begins with the system's default.
fn restore_hang_up() {
    if !process::ignores_hang_up() {
        return;
    }
    // On a thread of its own: a test may have a runtime, within which no other can end.
    let catch = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let signal = || tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        runtime.block_on(async { signal().map(drop) }).unwrap();
    };
    std::thread::spawn(catch).join().unwrap();
}

//! The program under test: starts it, waits for its output, measures it and ends it. Dropping a [`Watch`] kills it.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Engine, PATIENCE, Signal, eventually, process, watchdog};

/// A running program whose outputs are read.
pub struct Watch {
    child: Child,
    /// Identifies all processes that it started.
    mark: String,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

/// The exit code and all output of a program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// The lines of standard output, without newlines.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.stdout).lines().map(str::to_owned).collect()
    }

    /// The records of `--format json`: each line must be one complete object in UTF-8.
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        records(std::str::from_utf8(&self.stdout).unwrap().lines())
    }
}

/// Parses lines of `--format json`.
#[track_caller]
pub fn records<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    lines.into_iter().map(|line| parse(line.as_ref())).collect()
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stdout: Written,
    stderr: Written,
    /// How many of the two pipes have ended.
    ended: usize,
    /// Standard output is not read at the moment.
    held: bool,
}

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// The complete lines of `bytes`, and where the remainder starts.
    lines: Vec<String>,
    rest: usize,
}

impl Written {
    fn add(&mut self, more: &[u8]) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(more);
        for newline in more.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| before + at) {
            self.lines.push(String::from_utf8_lossy(&self.bytes[self.rest..newline]).into_owned());
            self.rest = newline + 1;
        }
    }
}

impl Watch {
    /// Starts `docker-logwatch -H … watch` with these arguments.
    pub fn start(engine: &Engine, args: &[&str]) -> Self {
        Self::subcommand(engine, "watch", args)
    }

    /// Runs `watch --no-follow` with these arguments; it must succeed and print nothing on stderr.
    #[track_caller]
    pub fn read(engine: &Engine, args: &[&str]) -> Finished {
        let finished = Self::start(engine, &[&["--no-follow"], args].concat()).finish();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{args:?}");
        finished
    }

    /// Starts a watch in JSON and waits for its notice of an idle container `beacon`, so that containers started
    /// afterwards are new to it.
    #[track_caller]
    pub fn ready(engine: &Engine, args: &[&str]) -> Self {
        Self::ready_at(engine, &engine.host(), args)
    }

    /// The same at another endpoint of that engine.
    #[track_caller]
    pub fn ready_at(engine: &Engine, host: &str, args: &[&str]) -> Self {
        let [watch] = Self::ready_each(engine, [(host, args)]);
        watch
    }

    /// The same for several watches, each with its endpoint and its arguments.
    #[track_caller]
    pub fn ready_each<const N: usize>(engine: &Engine, each: [(&str, &[&str]); N]) -> [Self; N] {
        engine.run("beacon", &[], &["--count", "0", "--idle"]);
        let watches = each.map(|(host, args)| {
            let args = [&["watch", "--format", "json"], args].concat();
            Self::at(engine, host, &args)
        });
        for watch in &watches {
            watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), PATIENCE);
        }
        watches
    }

    /// Waits until so many notices of ended containers are printed, and with them all their lines.
    #[track_caller]
    pub fn wait_for_ends(&self, count: usize) {
        let ends = |lines: &[String]| lines.iter().filter(|line| line.starts_with("- ")).count();
        self.wait_for_notice(|lines| ends(lines) >= count, PATIENCE * 4);
    }

    /// Starts another command on this engine.
    pub fn subcommand(engine: &Engine, subcommand: &str, args: &[&str]) -> Self {
        Self::at(engine, &engine.host(), &[&[subcommand], args].concat())
    }

    /// Starts the program at an endpoint that is not the engine itself, such as a [`super::Proxy`].
    pub fn at(engine: &Engine, host: &str, args: &[&str]) -> Self {
        let mut command = Self::command();
        engine.configure(&mut command);
        Self::spawn(command.env_remove("DOCKER_HOST").arg("-H").arg(host).args(args))
    }

    /// The built binary, to be configured and [`spawn`](Self::spawn)ed.
    pub fn command() -> Command {
        Command::new(env!("CARGO_BIN_EXE_docker-logwatch"))
    }

    /// Starts a command and reads both of its outputs.
    pub fn spawn(command: &mut Command) -> Self {
        let mark = watchdog::mark(command);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let readers = vec![read(&output, stdout, true), read(&output, stderr, false)];
        Self { child, mark, output, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the complete lines on standard output satisfy `condition`. Fails at the timeout, or when the program
    /// ends before.
    #[track_caller]
    pub fn wait_for(&self, condition: impl Fn(&[String]) -> bool, timeout: Duration) {
        self.wait(timeout, "standard output", |state| condition(&state.stdout.lines));
    }

    /// The same for standard error: notices and diagnostics.
    #[track_caller]
    pub fn wait_for_notice(&self, condition: impl Fn(&[String]) -> bool, timeout: Duration) {
        self.wait(timeout, "standard error", |state| condition(&state.stderr.lines));
    }

    /// Waits until it notices every container that starts from now on, whether or not one matches: it creates its
    /// inotify instance after it has subscribed and listed.
    #[track_caller]
    pub fn wait_until_up(&self) {
        let is_up = || process::open_files(self.pid()).iter().any(|file| file.contains("inotify"));
        eventually("it has subscribed and listed", is_up);
    }

    /// Waits for this many lines.
    #[track_caller]
    pub fn wait_for_count(&self, count: usize) {
        self.wait_for(|lines| lines.len() >= count, PATIENCE);
    }

    /// The lines of standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.state().stdout.lines.clone()
    }

    /// How many lines of standard output satisfy `condition` so far.
    pub fn count_lines(&self, condition: impl Fn(&str) -> bool) -> usize {
        self.state().stdout.lines.iter().filter(|line| condition(line)).count()
    }

    /// The lines of standard error so far.
    pub fn notices(&self) -> Vec<String> {
        self.state().stderr.lines.clone()
    }

    /// Stops reading its standard output, as a pager does, once the pipe's current content is read.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Reads standard output again.
    pub fn release(&self) {
        self.state().held = false;
        self.output.changed.notify_all();
    }

    /// `Signal::INT`, `Signal::TERM`, `Signal::STOP`, ...
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Its peak memory in bytes.
    pub fn peak_memory(&self) -> u64 {
        process::peak_memory(self.pid())
    }

    /// Its peak memory until it ends, until `is_done`, or until that exceeds `limit`: a program that takes all memory
    /// would take the machine down.
    #[track_caller]
    pub fn peak_memory_until(&self, limit: u64, is_done: impl Fn(&Self) -> bool) -> u64 {
        let mut peak = 0;
        eventually("it ends or is where it should be", || {
            peak = peak.max(self.peak_memory());
            peak > limit || !process::lives(self.pid()) || is_done(self)
        });
        peak
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid())
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid())
    }

    /// Interrupts it as Ctrl-C does and waits for its end.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::INT);
        self.finish()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        self.release();
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.ended < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it does not end; {}", tail(&state));
            state = self.output.changed.wait_timeout(state, left).unwrap().0;
        }
        drop(state);
        let status: ExitStatus = self.child.wait().unwrap();
        let state = std::mem::take(&mut *self.state());
        let stderr = String::from_utf8_lossy(&state.stderr.bytes).into_owned();
        Finished { code: status.code(), stdout: state.stdout.bytes, stderr }
    }

    /// Looks again when something was written, but not for each block: a condition may read all lines.
    #[track_caller]
    fn wait(&self, timeout: Duration, what: &str, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.state();
            if condition(&state) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(state.ended < 2, "it ended before its {what} was as expected; {}", tail(&state));
            assert!(!left.is_zero(), "after {timeout:?} its {what} is not as expected; {}", tail(&state));
            drop(self.output.changed.wait_timeout(state, left).unwrap());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.output.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.release();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            if !reader.is_finished() {
                // Programs that it started may hold the pipes for as long as they like.
                watchdog::kill_marked(&self.mark);
            }
            let _ = reader.join();
        }
    }
}

fn read(output: &Arc<Output>, mut pipe: impl Read + Send + 'static, stdout: bool) -> JoinHandle<()> {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut block = vec![0; 64 * 1024];
        loop {
            if stdout {
                let state = output.state.lock().unwrap_or_else(PoisonError::into_inner);
                drop(output.changed.wait_while(state, |state| state.held));
            }
            let length = pipe.read(&mut block).unwrap_or(0);
            let mut state = output.state.lock().unwrap_or_else(PoisonError::into_inner);
            let written = if stdout { &mut state.stdout } else { &mut state.stderr };
            written.add(&block[..length]);
            state.ended += usize::from(length == 0);
            drop(state);
            output.changed.notify_all();
            if length == 0 {
                return;
            }
        }
    })
}

/// The last lines of both outputs, for the message of a failure.
fn tail(state: &State) -> String {
    let last = |written: &Written| written.lines[written.lines.len().saturating_sub(8)..].join("\n  ");
    let (stdout, stderr) = (&state.stdout, &state.stderr);
    format!(
        "stdout has {} lines, the last:\n  {}\nstderr has {}:\n  {}",
        stdout.lines.len(),
        last(stdout),
        stderr.lines.len(),
        last(stderr)
    )
}

/// Starts a watch at this host, configured by environment variables.
pub fn configured(host: &str, variables: &[(&str, &str)], args: &[&str]) -> Watch {
    let mut command = Watch::command();
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", "/nowhere").envs(variables.iter().copied());
    Watch::spawn(command.args(["-H", host, "watch"]).args(args))
}

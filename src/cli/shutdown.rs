//! Turns signals, and the end of docker or of stdout's reader, into requests to [`Stop`].
//!
//! Every command calls [`listen`] once, and [`stop_without_reader`] if it prints to stdout. The first event requests a
//! stop. A second signal makes the command hurry, and a third one ends the process.
//!
//! What docker does when the user stops it depends on its version and on the terminal:
//! - With a terminal, docker does nothing, and Ctrl-C reaches this process directly.
//! - Without one, docker forwards no signal. It closes the socket that it gives its plugins, and kills this process at
//!   its own third signal (docker/cli `cmd/docker/docker.go`: tryPluginRun). With `docker … | less`, both happen.
//! - A docker that dies does not end this process, but the socket is closed.
//! - Before docker 25 there is no socket, and docker does not pass on its first two signals. A third one, SIGHUP or
//!   `kill -9` ends docker, and its end is all that this process can notice.
//!
//! SIGPIPE stays ignored, which is Rust's default. So a write fails if nobody reads stdout any more; as long as
//! nothing is written, [`stop_without_reader`] notices it.

use crate::commands::or_never;
use crate::model::bounded_read;
use crate::model::stop::Stop;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::thread;
use tokio::io::AsyncReadExt;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The environment variable with the address of docker's socket; set by docker 25 and newer.
pub(super) const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";

/// The signal that ends the process at once is the third one, as in docker.
const FATAL_SIGNAL: u32 = 3;

/// The docker CLI that runs this process as its plugin.
#[derive(Debug)]
pub(super) struct ParentDocker {
    socket: Option<OsString>,
    exit: ParentExit,
}

impl ParentDocker {
    /// The parent of this process. Call it only if docker runs us as its plugin. Otherwise the parent is something
    /// else, and the socket in the environment may belong to another plugin, whose shell has started us.
    pub(super) fn of_process() -> ParentDocker {
        ParentDocker { socket: std::env::var_os(SOCKET), exit: ParentExit::of_process() }
    }
}

/// How to notice that docker has ended.
#[derive(Debug)]
enum ParentExit {
    /// By polling its pidfd (pidfd_open(2)).
    Pidfd(OwnedFd),
    /// It ended before its pidfd could be opened.
    Ended,
    /// Not at all: the kernel has no pidfds (before Linux 5.3), or no docker runs us.
    Unknown,
}

impl ParentExit {
    /// PR_SET_PDEATHSIG cannot be used: it reports the end of the *thread* that started this process, and Go's threads
    /// can end at any time.
    fn of_process() -> ParentExit {
        let Some(parent) = getppid() else { return ParentExit::Unknown };
        match pidfd_open(parent, PidfdFlags::empty()) {
            // The second check excludes that the PID has been reused for another process.
            Ok(pidfd) if getppid() == Some(parent) => ParentExit::Pidfd(pidfd),
            Ok(_) | Err(Errno::SRCH) => ParentExit::Ended,
            Err(error) => {
                tracing::debug!(%error, parent = Pid::as_raw(Some(parent)), "cannot watch for the end of docker");
                ParentExit::Unknown
            }
        }
    }
}

/// Listens for signals and for the end of docker until the process ends, and passes them on to `stop`. `docker` is
/// given if docker runs this process as its plugin.
///
/// The listener has its own thread and runtime, so that the third signal is handled even if everything else is blocked
/// in a write to a pipe that nobody reads. The thread is never joined: it has nothing to clean up.
pub(super) fn listen(stop: Stop, docker: Option<ParentDocker>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // The handlers are installed before this function returns, so that no signal after it kills the process.
    let signals = runtime.block_on(async { Signals::catch() })?;
    let socket = docker.as_ref().and_then(|docker| docker.socket.as_deref()).and_then(connect);
    let exit = docker.map_or(ParentExit::Unknown, |docker| docker.exit);
    let listen = move || runtime.block_on(forward(stop, signals, socket, exit));
    thread::Builder::new().name("stop".into()).stack_size(128 << 10).spawn(listen)?;
    Ok(())
}

/// Requests a stop as soon as nobody can read stdout any more, if it is a pipe or a socket. For instance, `grep -q`
/// exits when it has found its line, and if the containers are silent, there may never be a write that fails.
///
/// The thread waits in poll(2) for no events: those that report a closed end need not be requested.
pub(super) fn stop_without_reader(stop: Stop) -> io::Result<()> {
    let stdout = rustix::stdio::stdout();
    let kind = FileType::from_raw_mode(fstat(stdout)?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::Socket) {
        return Ok(());
    }
    let stdout = stdout.try_clone_to_owned()?;
    let watch = move || {
        if wait_until_closed(&stdout) {
            tracing::debug!("stopping: the reader of stdout has gone");
            stop.request();
        }
    };
    thread::Builder::new().name("stdout".into()).stack_size(128 << 10).spawn(watch)?;
    Ok(())
}

/// Waits until the other end is closed. Returns `false` if that cannot be detected.
fn wait_until_closed(output: impl AsFd) -> bool {
    loop {
        let mut fds = [PollFd::new(&output, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => return true,
            Ok(_) if fds[0].revents().contains(PollFlags::NVAL) => return false,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

async fn forward(stop: Stop, mut signals: Signals, socket: Option<UnixStream>, exit: ParentExit) {
    let mut docker = socket.and_then(|stream| tokio::net::UnixStream::from_std(stream).ok());
    let mut exit = std::pin::pin!(parent_exit(exit));
    let mut has_docker_ended = false;
    let mut received = 0;
    loop {
        tokio::select! {
            number = signals.next() => {
                received += 1;
                if received >= FATAL_SIGNAL {
                    // The status that a shell reports for a process killed by this signal.
                    std::process::exit(128 + number);
                }
                if received > 1 {
                    stop.hurry();
                }
                tracing::debug!(signal = number, "stopping: received a signal");
            }
            () = socket_end(&mut docker) => {
                docker = None;
                tracing::debug!("stopping: docker has closed its socket");
            }
            () = &mut exit, if !has_docker_ended => {
                has_docker_ended = true;
                tracing::debug!("stopping: docker has ended");
            }
        }
        stop.request();
    }
}

/// Connects to docker's socket. A leading `@` in the name stands for the NUL byte of an abstract address. If docker has
/// ended already, the command starts all the same: it is for the reader of our output to decide.
fn connect(name: &OsStr) -> Option<UnixStream> {
    let address = match name.as_bytes() {
        [] => return None,
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    };
    let stream = address.and_then(|address| UnixStream::connect_addr(&address)).and_then(|stream| {
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    stream.inspect_err(|error| tracing::debug!(%error, "cannot connect to docker's plugin socket")).ok()
}

/// Returns when docker closes the socket or the connection breaks; docker never sends anything. Never
/// returns without a socket.
async fn socket_end(docker: &mut Option<tokio::net::UnixStream>) {
    let Some(stream) = docker else {
        return std::future::pending().await;
    };
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

/// Returns when docker has ended. Never returns if that cannot be noticed.
async fn parent_exit(exit: ParentExit) {
    match exit {
        ParentExit::Ended => {}
        ParentExit::Pidfd(pidfd) => {
            let (send, ended) = oneshot::channel();
            // This thread sleeps in poll(2) until docker ends.
            let wait = move || {
                let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
                while poll(&mut fds, None) == Err(Errno::INTR) {}
                let _ = send.send(());
            };
            let thread = thread::Builder::new().name("docker".into()).stack_size(128 << 10).spawn(wait);
            if thread.is_err() || ended.await.is_err() {
                std::future::pending().await
            }
        }
        ParentExit::Unknown => std::future::pending().await,
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if SIGHUP stays ignored.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. SIGHUP stays ignored if it is, because that is the purpose of `nohup`. SIGINT is caught
    /// even if it is ignored: the shell does that for each `&` in a script, and whoever sends SIGINT to such a process
    /// wants it to stop.
    fn catch() -> io::Result<Self> {
        let hang_up = SignalKind::hangup();
        let is_ignored = ignored() >> (hang_up.as_raw_value() - 1) & 1 == 1;
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: (!is_ignored).then(|| signal(hang_up)).transpose()?,
        })
    }

    /// Waits for the next signal and returns its number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = or_never(self.hang_up.as_mut().map(Signal::recv)) => SignalKind::hangup().as_raw_value(),
        }
    }
}

/// The set of ignored signals: bit `n - 1` is signal `n` (proc(5), `SigIgn`). Empty if the kernel does not report it.
fn ignored() -> u64 {
    let status = bounded_read::read_small(Path::new("/proc/self/status"), 64 << 10).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader, Lines};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;
    use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
    use std::time::Duration;

    /// Set for a child that does not end when it is stopped, as if it were blocked in a write.
    const BLOCKED: &str = "BLOCKED";

    /// Set for a child whose parent acts as docker.
    const PLUGIN: &str = "PLUGIN";

    /// Set if a test runs this test binary as its child process, which then calls [`child`].
    const CHILD: &str = "LOGWATCH_TEST_CHILD";

    /// The program under test: listens, prints `ready`, and ends when it is stopped. Its diagnostics go to stdout.
    #[expect(clippy::disallowed_methods, reason = "the parent reads it through a pipe")]
    fn child() {
        let log = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
        log.with_writer(io::stdout).without_time().with_target(false).with_ansi(false).init();
        let stop = Stop::default();
        let is_plugin = std::env::var_os(PLUGIN).is_some();
        let exit = if is_plugin { ParentExit::of_process() } else { ParentExit::Unknown };
        let docker = ParentDocker { socket: std::env::var_os(SOCKET), exit };
        listen(stop.clone(), Some(docker)).unwrap();
        println!("ready");
        runtime::Builder::new_current_thread().build().unwrap().block_on(stop.cancelled());
        println!("stopped");
        if std::env::var_os(BLOCKED).is_some() {
            thread::sleep(Duration::from_secs(60));
        }
    }

    /// Under `nohup`, this process ignores SIGHUP, and its children would inherit that. They do not inherit a handler.
    fn restore_hang_up() {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().unwrap();
        if ignored() & 1 == 1 {
            runtime.block_on(async { signal(SignalKind::hangup()).map(drop) }).unwrap();
        }
    }

    struct TestRun {
        child: Child,
        lines: Lines<BufReader<ChildStdout>>,
    }

    impl TestRun {
        fn start(variables: &[(&str, &str)]) -> TestRun {
            TestRun::start_under(Command::new(std::env::current_exe().unwrap()), variables)
        }

        fn start_under(mut command: Command, variables: &[(&str, &str)]) -> TestRun {
            let (_crate, module) = module_path!().split_once("::").unwrap();
            let test = format!("{module}::any_signal_stops");
            command.args(["--exact", &test, "--nocapture"]).env(CHILD, "1");
            command
                .stdout(Stdio::piped())
                .env_remove(SOCKET)
                .env_remove(BLOCKED)
                .env_remove(PLUGIN)
                .envs(variables.iter().copied());
            restore_hang_up();
            let mut child = command.spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut run = TestRun { child, lines };
            run.wait_for("ready");
            run
        }

        /// Reads lines until one contains `text`.
        fn wait_for(&mut self, text: &str) {
            assert!(self.lines.any(|line| line.unwrap().contains(text)), "the output has no line with {text:?}");
        }

        fn signal(&self, signal: Signal) {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }

        /// Sends a signal and waits until it is handled: pending signals of the same kind would merge.
        fn signal_and_wait(&mut self, signal: Signal) {
            self.signal(signal);
            self.wait_for("received a signal");
        }

        fn end(mut self) -> ExitStatus {
            self.child.wait().unwrap()
        }
    }

    impl Drop for TestRun {
        fn drop(&mut self) {
            let _ = self.child.kill();
        }
    }

    /// Docker's end of the plugin socket, and its name in the environment variable.
    fn docker(test: &str) -> (UnixListener, String) {
        let name = format!("docker_cli_{test}_{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        (UnixListener::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    #[test]
    fn any_signal_stops() {
        if std::env::var_os(CHILD).is_some() {
            return child();
        }
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut run = TestRun::start(&[]);
            run.signal(signal);
            run.wait_for("stopped");
            assert_eq!(run.end().code(), Some(0), "{signal:?}");
        }
    }

    #[test]
    fn the_third_signal_ends_a_blocked_process() {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let mut run = TestRun::start(&[(BLOCKED, "1")]);
            run.signal_and_wait(Signal::INT);
            run.signal_and_wait(signal);
            run.signal(signal);
            assert_eq!(run.end().code(), Some(code), "{signal:?}");
        }
    }

    #[test]
    fn a_closed_docker_socket_stops() {
        let (listener, name) = docker("end");
        let mut run = TestRun::start(&[(SOCKET, &name)]);
        let (connection, _) = listener.accept().unwrap();
        drop(connection);
        run.wait_for("stopped");
        assert_eq!(run.end().code(), Some(0));
    }

    #[test]
    fn a_closed_docker_socket_does_not_count_as_signal() {
        let (listener, name) = docker("both");
        let mut run = TestRun::start(&[(SOCKET, &name), (BLOCKED, "1")]);
        let (connection, _) = listener.accept().unwrap();
        drop(connection);
        run.wait_for("docker has closed its socket");
        run.wait_for("stopped");
        run.signal_and_wait(Signal::INT);
        run.signal_and_wait(Signal::INT);
        assert_eq!(run.child.try_wait().unwrap(), None);
        run.signal(Signal::INT);
        assert_eq!(run.end().code(), Some(130));
    }

    /// Before version 25, docker does not notify its plugins, and they survive when it is killed. Here a
    /// shell acts as docker.
    #[test]
    fn the_end_of_docker_stops() {
        for signal in [Signal::HUP, Signal::TERM, Signal::KILL] {
            let mut docker = Command::new("sh");
            docker.args(["-c", "\"$0\" \"$@\"; exit"]).arg(std::env::current_exe().unwrap());
            let mut run = TestRun::start_under(docker, &[(PLUGIN, "1")]);
            run.signal(signal);
            run.wait_for("docker has ended");
            run.wait_for("stopped");
        }
    }

    #[test]
    fn an_unreachable_docker_socket_is_ignored() {
        for name in ["@docker_cli_gone", "/nowhere/socket", "@", ""] {
            let mut run = TestRun::start(&[(SOCKET, name)]);
            run.signal(Signal::TERM);
            run.wait_for("stopped");
            assert_eq!(run.end().code(), Some(0), "{name:?}");
        }
    }

    #[test]
    fn an_ignored_hangup_stays_ignored_an_interrupt_does_not() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        let mut run = TestRun::start_under(shell, &[]);
        for _ in 0..4 {
            run.signal(Signal::HUP);
        }
        run.signal_and_wait(Signal::INT);
        run.wait_for("stopped");
        assert_eq!(run.end().code(), Some(0));
    }

    /// Holds for a pipe, a Unix socket and a TCP connection.
    #[test]
    fn the_end_of_the_reader_is_noticed_without_writing() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let server = tcp.accept().unwrap().0;
        let pipe = io::pipe().unwrap();
        let (left, right) = UnixStream::pair().unwrap();
        // Unread data makes closing this connection a reset.
        std::io::Write::write_all(&mut &client, b"unread").unwrap();
        for (writer, reader) in [
            (OwnedFd::from(pipe.1), OwnedFd::from(pipe.0)),
            (OwnedFd::from(left), OwnedFd::from(right)),
            (OwnedFd::from(client), OwnedFd::from(server)),
        ] {
            let (send, receive) = std::sync::mpsc::channel();
            let waiting = thread::spawn(move || send.send(wait_until_closed(&writer)));
            assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
            drop(reader);
            assert!(receive.recv().unwrap());
            waiting.join().unwrap().unwrap();
        }
    }
}

//! How we are told to stop.
//!
//! In: signals, the end of the socket that docker gives its plugins, the end of docker itself, and the end of stdout's
//! reader. Out: an order to [`Stop`], at the second signal one to hurry, and at the third the end of the process. Called
//! once by each command.
//! With a terminal docker does nothing and Ctrl-C reaches us directly; without one it forwards no signal but closes the
//! socket, and kills us at its third (docker/cli `cmd/docker/docker.go`: tryPluginRun). With `docker … | less` both
//! arrive. A docker that dies leaves us running and the socket at its end. Before docker 25 there is no socket, and docker
//! keeps its first two signals to itself; a third, SIGHUP or `kill -9` ends it, which is then all that we hear.
//! SIGPIPE stays ignored, as Rust starts us: a reader that went away is an error of a write, and where nothing is written
//! [`heed_reader`] notices.

use crate::model::small_file;
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

/// The variable that names docker's socket, from docker 25 on.
pub const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";

/// Signals after which the user has waited enough.
const PATIENCE: u32 = 3;

/// The docker that runs us as its plugin.
#[derive(Debug)]
pub struct Docker {
    socket: Option<OsString>,
    end: End,
}

impl Docker {
    /// Our parent. On our own it is somebody else, and the socket in the environment may be some other plugin's, left there
    /// by a shell that it started.
    pub fn of_process() -> Docker {
        Docker { socket: std::env::var_os(SOCKET), end: End::of_parent() }
    }
}

/// How the end of docker is noticed.
#[derive(Debug)]
enum End {
    /// By this handle of its process (pidfd_open(2)).
    Awaited(OwnedFd),
    /// It ended before we could look.
    Come,
    /// Not at all: this kernel has no such handles (before Linux 5.3), or there is no docker.
    Unknown,
}

impl End {
    /// PR_SET_PDEATHSIG would not do: it tells of the end of the thread that started us, and Go's threads come and go.
    fn of_parent() -> End {
        let Some(parent) = getppid() else { return End::Unknown };
        match pidfd_open(parent, PidfdFlags::empty()) {
            // Its number could be another process's by then.
            Ok(handle) if getppid() == Some(parent) => End::Awaited(handle),
            Ok(_) | Err(Errno::SRCH) => End::Come,
            Err(error) => {
                tracing::debug!(%error, parent = Pid::as_raw(Some(parent)), "the end of docker will not be noticed");
                End::Unknown
            }
        }
    }
}

/// Passes the order on when we are told to stop, from now until the process ends.
///
/// It has a thread and a runtime of its own, so that the third signal is heard while everything else is blocked in a write
/// to a pipe that nobody reads. The thread has nothing to clean up and is not awaited: it listens until the process ends.
/// `docker` is given when docker runs us as its plugin.
pub fn listen(stop: Stop, docker: Option<Docker>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // Signals are caught before this returns: one that comes right after must not kill us.
    let signals = runtime.block_on(async { Signals::catch() })?;
    let socket = docker.as_ref().and_then(|docker| docker.socket.as_deref()).and_then(connect);
    let end = docker.map_or(End::Unknown, |docker| docker.end);
    let listen = move || runtime.block_on(hear(stop, signals, socket, end));
    thread::Builder::new().name("stop".into()).stack_size(128 << 10).spawn(listen)?;
    Ok(())
}

/// Gives the order as soon as nobody can read stdout any more, where that is a pipe or a socket: `grep -q` leaves when it
/// has found its line, and the next one of a silent container may never come.
///
/// The thread sleeps in the kernel until then. It asks for no event: those that say that the other end is closed come
/// unasked.
pub fn heed_reader(stop: Stop) -> io::Result<()> {
    let stdout = rustix::stdio::stdout();
    let kind = FileType::from_raw_mode(fstat(stdout)?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::Socket) {
        return Ok(());
    }
    let stdout = stdout.try_clone_to_owned()?;
    let heed = move || {
        if is_left(&stdout) {
            tracing::debug!("told to stop: the reader of stdout has gone");
            stop.order();
        }
    };
    thread::Builder::new().name("stdout".into()).stack_size(128 << 10).spawn(heed)?;
    Ok(())
}

/// Waits until the other end is closed; `false` where that cannot be known.
fn is_left(output: impl AsFd) -> bool {
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

async fn hear(stop: Stop, mut signals: Signals, socket: Option<UnixStream>, end: End) {
    let mut docker = socket.and_then(|stream| tokio::net::UnixStream::from_std(stream).ok());
    let mut end = std::pin::pin!(has_ended(end));
    let mut is_docker_gone = false;
    let mut heard = 0;
    loop {
        tokio::select! {
            number = signals.next() => {
                heard += 1;
                if heard >= PATIENCE {
                    // As a shell reports a process that the signal killed.
                    std::process::exit(128 + number);
                }
                if heard > 1 {
                    stop.hurry();
                }
                tracing::debug!(signal = number, "told to stop by a signal");
            }
            () = end_of(&mut docker) => {
                docker = None;
                tracing::debug!("told to stop by docker");
            }
            () = &mut end, if !is_docker_gone => {
                is_docker_gone = true;
                tracing::debug!("told to stop by the end of docker");
            }
        }
        stop.order();
    }
}

/// Connects to docker's socket; `@` stands for the NUL byte of an abstract address. A docker that has gone meanwhile is no
/// reason not to start: whoever waits for our output decides.
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
    stream.inspect_err(|error| tracing::debug!(%error, "no connection to docker's plugin socket")).ok()
}

/// Returns when docker closes the socket or breaks it; it never sends. Without a socket it never returns.
async fn end_of(docker: &mut Option<tokio::net::UnixStream>) {
    let Some(stream) = docker else {
        return std::future::pending().await;
    };
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

/// Returns when docker has ended; where that cannot be noticed it never returns.
async fn has_ended(end: End) {
    match end {
        End::Come => {}
        End::Awaited(handle) => {
            let (ended, end) = oneshot::channel();
            // A thread that sleeps in the kernel until then, and wakes up for nothing else.
            let wait = move || {
                let mut handles = [PollFd::new(&handle, PollFlags::IN)];
                while poll(&mut handles, None) == Err(Errno::INTR) {}
                let _ = ended.send(());
            };
            let thread = thread::Builder::new().name("docker".into()).stack_size(128 << 10).spawn(wait);
            if thread.is_err() || end.await.is_err() {
                std::future::pending().await
            }
        }
        End::Unknown => std::future::pending().await,
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Catches them. SIGHUP stays ignored where it is, for that is what `nohup` is for; SIGINT is caught though a script's
    /// `&` starts programs that ignore it, for whoever sends it to such a one means it.
    fn catch() -> io::Result<Self> {
        let hang_up = SignalKind::hangup();
        let is_ignored = ignored() >> (hang_up.as_raw_value() - 1) & 1 == 1;
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: (!is_ignored).then(|| signal(hang_up)).transpose()?,
        })
    }

    /// Waits for one and returns its number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            () = hung_up(&mut self.hang_up) => SignalKind::hangup().as_raw_value(),
        }
    }
}

async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The set of ignored signals, a bit each, as the kernel tells it (proc(5), `SigIgn`); empty when it does not.
fn ignored() -> u64 {
    let status = small_file::read_small(Path::new("/proc/self/status"), 64 << 10).unwrap_or_default();
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

    /// Set for a child that stays when it is told to stop, as if blocked in a write.
    const STAYS: &str = "STAYS";

    /// Set for a child whose parent is its docker.
    const PLUGIN: &str = "PLUGIN";

    /// Set in the test binary that a test runs as its child.
    const CHILD: &str = "LOGWATCH_TEST_CHILD";

    /// The program under test: listens, says so, and ends when told to, with all happenings on stdout.
    #[expect(clippy::disallowed_methods, reason = "the parent reads it through a pipe")]
    fn child() {
        let log = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
        log.with_writer(io::stdout).without_time().with_target(false).with_ansi(false).init();
        let stop = Stop::default();
        let end = if std::env::var_os(PLUGIN).is_some() { End::of_parent() } else { End::Unknown };
        let docker = Docker { socket: std::env::var_os(SOCKET), end };
        listen(stop.clone(), Some(docker)).unwrap();
        println!("ready");
        runtime::Builder::new_current_thread().build().unwrap().block_on(stop.cancelled());
        println!("stopped");
        if std::env::var_os(STAYS).is_some() {
            thread::sleep(Duration::from_secs(60));
        }
    }

    /// Under `nohup` we ignore SIGHUP, and our children would; of a signal that we catch they do not even know.
    fn restore_hang_up() {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().unwrap();
        if ignored() & 1 == 1 {
            runtime.block_on(async { signal(SignalKind::hangup()).map(drop) }).unwrap();
        }
    }

    struct Run {
        child: Child,
        lines: Lines<BufReader<ChildStdout>>,
    }

    impl Run {
        fn start(variables: &[(&str, &str)]) -> Run {
            Run::start_under(Command::new(std::env::current_exe().unwrap()), variables)
        }

        fn start_under(mut command: Command, variables: &[(&str, &str)]) -> Run {
            command.args(["--exact", "cli::stop::tests::one_signal_of_any_kind_stops", "--nocapture"]).env(CHILD, "1");
            command
                .stdout(Stdio::piped())
                .env_remove(SOCKET)
                .env_remove(STAYS)
                .env_remove(PLUGIN)
                .envs(variables.iter().copied());
            restore_hang_up();
            let mut child = command.spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut run = Run { child, lines };
            run.wait_for("ready");
            run
        }

        /// Reads on until a line has this in it.
        fn wait_for(&mut self, text: &str) {
            assert!(self.lines.any(|line| line.unwrap().contains(text)), "ended without {text:?}");
        }

        fn signal(&self, signal: Signal) {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }

        /// Signals, and waits until it was heard: pending signals of a kind merge.
        fn signal_heard(&mut self, signal: Signal) {
            self.signal(signal);
            self.wait_for("by a signal");
        }

        fn end(mut self) -> ExitStatus {
            self.child.wait().unwrap()
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            let _ = self.child.kill();
        }
    }

    /// Docker's end of the plugin socket, with the name that it gives in the environment.
    fn docker(test: &str) -> (UnixListener, String) {
        let name = format!("docker_cli_{test}_{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        (UnixListener::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    #[test]
    fn one_signal_of_any_kind_stops() {
        if std::env::var_os(CHILD).is_some() {
            return child();
        }
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut run = Run::start(&[]);
            run.signal(signal);
            run.wait_for("stopped");
            assert_eq!(run.end().code(), Some(0), "{signal:?}");
        }
    }

    #[test]
    fn the_third_signal_ends_the_process_however_busy_it_is() {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let mut run = Run::start(&[(STAYS, "1")]);
            run.signal_heard(Signal::INT);
            run.signal_heard(signal);
            run.signal(signal);
            assert_eq!(run.end().code(), Some(code), "{signal:?}");
        }
    }

    #[test]
    fn the_end_of_dockers_socket_stops() {
        let (listener, name) = docker("end");
        let mut run = Run::start(&[(SOCKET, &name)]);
        let (connection, _) = listener.accept().unwrap();
        drop(connection);
        run.wait_for("stopped");
        assert_eq!(run.end().code(), Some(0));
    }

    #[test]
    fn the_end_of_dockers_socket_and_a_signal_are_one_order_and_count_as_one_signal() {
        let (listener, name) = docker("both");
        let mut run = Run::start(&[(SOCKET, &name), (STAYS, "1")]);
        let (connection, _) = listener.accept().unwrap();
        drop(connection);
        run.wait_for("by docker");
        run.wait_for("stopped");
        run.signal_heard(Signal::INT);
        run.signal_heard(Signal::INT);
        assert_eq!(run.child.try_wait().unwrap(), None);
        run.signal(Signal::INT);
        assert_eq!(run.end().code(), Some(130));
    }

    /// Docker before 25 tells its plugins nothing and leaves them behind when it is killed. A shell plays it here.
    #[test]
    fn the_end_of_docker_itself_stops() {
        for signal in [Signal::HUP, Signal::TERM, Signal::KILL] {
            let mut docker = Command::new("sh");
            docker.args(["-c", "\"$0\" \"$@\"; exit"]).arg(std::env::current_exe().unwrap());
            let mut run = Run::start_under(docker, &[(PLUGIN, "1")]);
            run.signal(signal);
            run.wait_for("by the end of docker");
            run.wait_for("stopped");
        }
    }

    #[test]
    fn a_docker_that_is_gone_hinders_nobody() {
        for name in ["@docker_cli_gone", "/nowhere/socket", "@", ""] {
            let mut run = Run::start(&[(SOCKET, name)]);
            run.signal(Signal::TERM);
            run.wait_for("stopped");
            assert_eq!(run.end().code(), Some(0), "{name:?}");
        }
    }

    #[test]
    fn a_hang_up_stays_ignored_and_an_interrupt_does_not() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        let mut run = Run::start_under(shell, &[]);
        for _ in 0..4 {
            run.signal(Signal::HUP);
        }
        run.signal_heard(Signal::INT);
        run.wait_for("stopped");
        assert_eq!(run.end().code(), Some(0));
    }

    /// A pipe and both kinds of sockets tell when their reader leaves, and before that nothing.
    #[test]
    fn a_reader_that_leaves_is_noticed_without_a_write() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let there = tcp.accept().unwrap().0;
        let pipe = io::pipe().unwrap();
        let (left, right) = UnixStream::pair().unwrap();
        // What nobody read makes the end of this connection a reset.
        std::io::Write::write_all(&mut &here, b"unread").unwrap();
        for (writer, reader) in [
            (OwnedFd::from(pipe.1), OwnedFd::from(pipe.0)),
            (OwnedFd::from(left), OwnedFd::from(right)),
            (OwnedFd::from(here), OwnedFd::from(there)),
        ] {
            let (told, hear) = std::sync::mpsc::channel();
            let heed = thread::spawn(move || told.send(is_left(&writer)));
            assert!(hear.recv_timeout(Duration::from_millis(100)).is_err());
            drop(reader);
            assert!(hear.recv().unwrap());
            heed.join().unwrap().unwrap();
        }
    }
}

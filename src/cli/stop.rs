//! How we are told to stop.
//!
//! In: signals, and the end of the socket that docker gives its plugins. Out: a cancelled token, or at the third signal
//! the end of the process. Called once by the verb that runs long.
//! With a terminal docker does nothing and Ctrl-C reaches us directly; without one it forwards no signal but closes the
//! socket, and kills us at its third (docker/cli `cmd/docker/docker.go`: tryPluginRun). With `docker … | less` both
//! arrive. A docker that dies leaves us running and the socket at its end. SIGPIPE stays ignored, as Rust starts us: a
//! reader that went away is an error of a write.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use tokio::io::AsyncReadExt;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The variable that names docker's socket, from docker 25 on.
pub const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";

/// Signals after which the user has waited enough.
const PATIENCE: u32 = 3;

/// Cancels the token when we are told to stop, from now until the process ends.
///
/// It has a thread and a runtime of its own, so that the third signal is heard while everything else is blocked in a write
/// to a pipe that nobody reads. The thread has nothing to clean up and is not awaited: it listens until the process ends.
/// `socket` is the value of [`SOCKET`] when docker runs us as its plugin; on our own it may be some other plugin's, left
/// in a shell's environment, and must not be given.
pub fn listen(token: CancellationToken, socket: Option<&OsStr>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // Signals are caught before this returns: one that comes right after must not kill us.
    let signals = runtime.block_on(async { Signals::catch() })?;
    let docker = socket.and_then(connect);
    let listen = move || runtime.block_on(hear(token, signals, docker));
    thread::Builder::new().name("stop".into()).stack_size(128 << 10).spawn(listen)?;
    Ok(())
}

async fn hear(token: CancellationToken, mut signals: Signals, docker: Option<UnixStream>) {
    let mut docker = docker.and_then(|stream| tokio::net::UnixStream::from_std(stream).ok());
    let mut heard = 0;
    loop {
        tokio::select! {
            number = signals.next() => {
                heard += 1;
                if heard >= PATIENCE {
                    // As a shell reports a process that the signal killed.
                    std::process::exit(128 + number);
                }
                tracing::debug!(signal = number, "told to stop by a signal");
            }
            () = end_of(&mut docker) => {
                docker = None;
                tracing::debug!("told to stop by docker");
            }
        }
        token.cancel();
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

struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Catches those that we were not started to ignore, as `nohup` and a shell's `&` start programs.
    fn catch() -> io::Result<Self> {
        let ignored = ignored();
        let catch = |kind: SignalKind| {
            let bit = kind.as_raw_value() - 1;
            (ignored >> bit & 1 == 0).then(|| signal(kind)).transpose()
        };
        Ok(Signals {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for one and returns its number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            () = next(&mut self.interrupt) => SignalKind::interrupt().as_raw_value(),
            () = next(&mut self.terminate) => SignalKind::terminate().as_raw_value(),
            () = next(&mut self.hang_up) => SignalKind::hangup().as_raw_value(),
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    let heard = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending().await
    }
}

/// The set of ignored signals, a bit each, as the kernel tells it (proc(5), `SigIgn`); empty when it does not.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

//! A connection through ssh: a child process whose stdin and stdout are the stream.
//!
//! In: an ssh address. Out: a byte stream in both directions. Called by [`super::connect`]. Knows nothing of HTTP.
//!
//! The command line is that of docker/cli `cli/connhelper`: `docker system dial-stdio` on the remote host connects its
//! stdin and stdout to the daemon's socket, so each connection needs one ssh process. ssh reports failures on stderr
//! only, while its stdout just ends. So if stdout ends before any byte arrived, reading fails with the text from
//! stderr.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Sleep;

use crate::docker::endpoint::address::Ssh;

/// How many of the last bytes of stderr are kept: enough for an error message.
const STDERR_KEPT: usize = 4096;

/// How long to wait for the end of stderr after stdout has ended. A shared master connection never closes stderr.
const STDERR_GRACE: Duration = Duration::from_millis(500);

/// A running ssh process, which is killed when this is dropped.
pub(crate) struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// `None` once it has ended.
    stderr: Option<ChildStderr>,
    /// The last [`STDERR_KEPT`] bytes from stderr.
    stderr_text: Vec<u8>,
    /// Whether any byte has arrived from stdout.
    has_read: bool,
    /// Runs out [`STDERR_GRACE`] after stdout ended without a byte.
    grace: Option<Pin<Box<Sleep>>>,
    _child: Child,
}

/// ssh's own error message, or why it could not be started.
#[derive(Debug, thiserror::Error)]
#[error("ssh: {0}")]
pub(crate) struct SshError(pub(crate) String);

/// The hidden subcommand that replaces this program with ssh: `docker-logwatch __ssh PARENT_PID ARGUMENTS`.
pub(crate) const SUBCOMMAND: &str = "__ssh";

/// Replaces this process with ssh, which then gets SIGTERM when its parent ends. Returns only on failure.
///
/// A process that is killed cannot end its children, and an ssh whose remote side hangs does not notice that nobody
/// writes to it any more. The kernel can send a signal (prctl(2), `PR_SET_PDEATHSIG`), but only the child can request
/// it, and Rust gives no guarantees for code between fork and exec. So the program starts itself, requests the
/// signal, and executes ssh.
///
/// `arguments` are the parent's process ID and the arguments of ssh.
pub(crate) fn become_ssh(arguments: &[OsString]) -> io::Error {
    let Some((parent, arguments)) = arguments.split_first() else { return io::ErrorKind::InvalidInput.into() };
    if let Err(errno) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return errno.into();
    }
    // The parent may have ended before the request.
    let parent_is_alive = getppid().is_some_and(|now| parent.to_str() == Some(&now.as_raw_pid().to_string()));
    if !parent_is_alive {
        return io::ErrorKind::BrokenPipe.into();
    }
    std::process::Command::new("ssh").args(arguments).exec()
}

/// Starts ssh through `program`, which becomes ssh ([`become_ssh`]), or directly if that is `None`. `path` replaces
/// `PATH`. An unreachable host is reported by the first read, not here.
pub(crate) fn open(to: &Ssh, path: Option<&OsStr>, program: Option<&Path>) -> io::Result<SshStream> {
    let mut command = match program {
        Some(program) => {
            let mut command = Command::new(program);
            command.arg(SUBCOMMAND).arg(std::process::id().to_string());
            command
        }
        None => Command::new("ssh"),
    };
    command.args(arguments(to)).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child =
        command.spawn().map_err(|e| io::Error::new(e.kind(), SshError(format!("cannot be started: {e}"))))?;
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), stderr) => Ok(SshStream {
            stdin,
            stdout,
            stderr,
            stderr_text: Vec::new(),
            has_read: false,
            grace: None,
            _child: child,
        }),
        _ => Err(io::Error::other("the pipes to ssh are missing")),
    }
}

fn arguments(to: &Ssh) -> Vec<String> {
    let mut arguments: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).into();
    if let Some(user) = &to.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = to.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    // After `--`, a host name that begins with a dash is not taken for an option.
    arguments.extend(["--".to_owned(), to.host.clone(), "docker".to_owned()]);
    if let Some(socket) = &to.socket {
        arguments.extend(["--host".to_owned(), quoted(&format!("unix://{socket}"))]);
    }
    arguments.extend(["system", "dial-stdio"].map(str::to_owned));
    arguments
}

/// Quotes an argument for the remote shell, to which ssh passes all arguments joined with spaces.
fn quoted(argument: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-+@%=,".contains(&b);
    match argument.bytes().all(is_plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

impl SshStream {
    /// Reads all that ssh has written to stderr, so that ssh never blocks on a full pipe. Ready when stderr has ended.
    fn poll_stderr(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; 512];
        while let Some(stderr) = &mut self.stderr {
            let mut piece = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(stderr).poll_read(cx, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                self.stderr = None;
            }
            self.stderr_text.extend_from_slice(piece.filled());
            let surplus = self.stderr_text.len().saturating_sub(STDERR_KEPT);
            self.stderr_text.drain(..surplus);
        }
        Poll::Ready(())
    }

    /// For a stdout that ended without a byte: waits for the rest of stderr and returns it as the error.
    fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_stderr(cx).is_pending() {
            let grace = self.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(STDERR_GRACE)));
            ready!(grace.as_mut().poll(cx));
        }
        let text = String::from_utf8_lossy(&self.stderr_text).trim().to_owned();
        let message = if text.is_empty() { "exited without an error message".to_owned() } else { text };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, SshError(message))))
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let _ = self.poll_stderr(cx);
        ready!(Pin::new(&mut self.stdout).poll_read(cx, into))?;
        if into.filled().len() > before {
            self.has_read = true;
        } else if !self.has_read {
            return self.poll_failure(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, bytes)) {
            // ssh has exited. The reading side reports the reason from stderr.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && !self.has_read => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_gets_the_same_arguments_as_from_docker() {
        for (user, port, socket, line) in [
            (None, None, None, "-o ConnectTimeout=30 -T -- build docker system dial-stdio"),
            (Some("me"), None, None, "-o ConnectTimeout=30 -T -l me -- build docker system dial-stdio"),
            (
                Some("me"),
                Some(2222),
                Some("/run/d.sock"),
                "-o ConnectTimeout=30 -T -l me -p 2222 -- build docker --host unix:///run/d.sock system dial-stdio",
            ),
            (
                None,
                None,
                Some("/run/it's; reboot"),
                r"-o ConnectTimeout=30 -T -- build docker --host 'unix:///run/it'\''s; reboot' system dial-stdio",
            ),
        ] {
            let to = Ssh {
                user: user.map(str::to_owned),
                host: "build".to_owned(),
                port,
                socket: socket.map(str::to_owned),
            };
            assert_eq!(arguments(&to).join(" "), line);
        }
    }
}

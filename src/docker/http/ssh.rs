//! A connection through ssh: a child process whose stdin and stdout are the stream.
//!
//! In: an ssh address. Out: bytes both ways. Called by [`super::transport`]. Knows nothing of HTTP.
//! The command line is that of docker/cli `cli/connhelper`: `docker system dial-stdio` over there joins its stdio to
//! the engine's socket, so each connection costs one ssh process. ssh says what went wrong on stderr only, and by then
//! its stdout has just ended: the end of a stream that never began is therefore turned into an error with those words.

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

/// Kept of what ssh writes to stderr: enough for its last words.
const WORDS: usize = 4096;

/// How long the last words may take after the stream ended. A shared master connection keeps stderr open for good.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Killed when dropped.
pub(crate) struct Session {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    words: Vec<u8>,
    has_begun: bool,
    patience: Option<Pin<Box<Sleep>>>,
    _child: Child,
}

/// What ssh said before it gave up.
#[derive(Debug, thiserror::Error)]
#[error("ssh: {0}")]
pub(crate) struct Failed(pub(crate) String);

/// The word by which our program is asked to become ssh: `docker-logwatch __ssh PARENT ARGUMENTS`.
pub const WORD: &str = "__ssh";

/// Becomes ssh, which is told to end when the process that started us does. Returns only if that cannot be done.
///
/// A process that is killed cannot end its children, and an ssh whose other side hangs does not notice that nobody writes
/// to it any more. The kernel can tell it (prctl(2), `PR_SET_PDEATHSIG`), but only a child can ask for that, and for code
/// between fork and exec Rust gives no guarantees. So the program starts itself, asks, and becomes ssh.
pub fn become_ssh(words: &[OsString]) -> io::Error {
    let Some((parent, arguments)) = words.split_first() else { return io::ErrorKind::InvalidInput.into() };
    if let Err(errno) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return errno.into();
    }
    // It may have ended before we asked.
    let lives = getppid().is_some_and(|now| parent.to_str() == Some(&now.as_raw_pid().to_string()));
    if !lives {
        return io::ErrorKind::BrokenPipe.into();
    }
    std::process::Command::new("ssh").args(arguments).exec()
}

/// Starts ssh, found by `path` when given, by way of our own program where there is one. An unreachable host shows at the
/// first read.
pub(crate) fn open(to: &Ssh, path: Option<&OsStr>, program: Option<&Path>) -> io::Result<Session> {
    let mut command = match program {
        Some(program) => {
            let mut command = Command::new(program);
            command.arg(WORD).arg(std::process::id().to_string());
            command
        }
        None => Command::new("ssh"),
    };
    command.args(arguments(to)).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.spawn().map_err(|e| io::Error::new(e.kind(), Failed(format!("cannot be started: {e}"))))?;
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), stderr) => {
            Ok(Session { stdin, stdout, stderr, words: Vec::new(), has_begun: false, patience: None, _child: child })
        }
        _ => Err(io::Error::other("ssh has no pipes")),
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
    // Behind `--` a host name that begins with a dash is no option.
    arguments.extend(["--".to_owned(), to.host.clone(), "docker".to_owned()]);
    if let Some(socket) = &to.socket {
        arguments.extend(["--host".to_owned(), quoted(&format!("unix://{socket}"))]);
    }
    arguments.extend(["system", "dial-stdio"].map(str::to_owned));
    arguments
}

/// ssh joins the words with blanks and gives them to a shell over there.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-+@%=,".contains(&b);
    if word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

impl Session {
    /// Takes what ssh writes to stderr as it comes, so that ssh never waits for us. Ready when it ended.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; 512];
        while let Some(stderr) = &mut self.stderr {
            let mut piece = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(stderr).poll_read(cx, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                self.stderr = None;
            }
            self.words.extend_from_slice(piece.filled());
            let surplus = self.words.len().saturating_sub(WORDS);
            self.words.drain(..surplus);
        }
        Poll::Ready(())
    }

    /// The stream ended before it began: waits for ssh's last words and makes them the error.
    fn explain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.listen(cx).is_pending() {
            let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
            ready!(patience.as_mut().poll(cx));
        }
        let words = String::from_utf8_lossy(&self.words).trim().to_owned();
        let words = if words.is_empty() { "ended without a word".to_owned() } else { words };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, Failed(words))))
    }
}

impl AsyncRead for Session {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let _ = self.listen(cx);
        ready!(Pin::new(&mut self.stdout).poll_read(cx, into))?;
        if into.filled().len() > before {
            self.has_begun = true;
        } else if !self.has_begun {
            return self.explain(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Session {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, bytes)) {
            // ssh is gone. Why, it says on stderr, which is for the reading side to tell.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && !self.has_begun => Poll::Ready(Ok(bytes.len())),
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
    fn ssh_is_called_as_docker_calls_it() {
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

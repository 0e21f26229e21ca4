//! Reports of failures on stderr, and the exit codes.
//!
//! A report consists of the error, its causes, and a hint what to do. The errors of the other modules contain no
//! advice: all hints are in this file.

use crate::docker::{self, Kind};
use crate::model::error_chain;
use crate::output::{Diagnostic, Level, LogFormat, safe};
use crate::{commands, output, state};
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

/// The exit codes that users rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, stopped by a signal, or nobody reads the output any more.
    Success = 0,
    /// A failure at run time.
    Failed = 1,
    /// An invalid command line or configuration.
    Usage = 2,
    /// The daemon cannot be reached, or refuses the connection or the request.
    Unreachable = 3,
    /// The result of `--check`, or of `--count` with `--timeout`, is negative.
    CheckFailed = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Reports the error of a command, and returns the exit code for it.
pub(super) fn failed(error: &commands::Error, format: LogFormat) -> ExitCode {
    let exit = match error {
        commands::Error::Docker(error) => match error.kind() {
            Kind::Usage => Exit::Usage,
            Kind::Unreachable => Exit::Unreachable,
            Kind::Failed => Exit::Failed,
        },
        commands::Error::State(state::Error::BadName { .. }) => Exit::Usage,
        commands::Error::StreamStillDown { .. } => Exit::Unreachable,
        commands::Error::Unread { source: Some(error), .. } if error.kind() == Kind::Unreachable => Exit::Unreachable,
        commands::Error::TooFew { .. } => Exit::CheckFailed,
        _ => Exit::Failed,
    };
    failed_as(error, exit, format)
}

/// Reports the error of a command, with a given exit code.
pub(super) fn failed_as(error: &commands::Error, exit: Exit, format: LogFormat) -> ExitCode {
    fail(error, hint(error), exit, format)
}

/// What the user can do about an error, if its own text does not say so.
fn hint(error: &commands::Error) -> Option<&'static str> {
    match error {
        commands::Error::Docker(error) => docker_hint(error),
        commands::Error::Lines(output::Error::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            Some("free some space there; the lines that were not written are still in the container logs")
        }
        commands::Error::Output(output::Error::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            Some("free some space there")
        }
        commands::Error::NoSuchContainer { is_read_once: true, .. } => {
            Some("`docker ps -a` lists all containers; without --no-follow, watch waits for this one")
        }
        commands::Error::NoSuchContainer { .. } => Some("`docker ps -a` lists all containers"),
        commands::Error::Ambiguous(_) => Some("use more characters of the ID, or the name"),
        commands::Error::NoFiles { .. } => Some("run as root, or read through the API with `--source stream`"),
        commands::Error::State(error) => match error {
            state::Error::Held { .. } => Some("stop that process, or use another name: `--resume=NAME`"),
            state::Error::Damaged { .. } => Some(
                "move it away to start again with the first line of each log, or use another state file with --state",
            ),
            state::Error::Newer { .. } => Some("use the newer docker-logwatch, or another state file with --state"),
            state::Error::NotAState { .. } | state::Error::Foreign { .. } => Some("use another file with --state"),
            state::Error::Full { .. } => Some("free some space there; the next run continues from the saved positions"),
            state::Error::ReadOnly { .. } | state::Error::Folder { .. } | state::Error::CannotOpen { .. } => {
                Some("use a writable file with --state")
            }
            state::Error::Busy { .. } => Some("stop the program that locks it (`fuser` shows which)"),
            _ => None,
        },
        commands::Error::Serve(error) => match error.source.kind() {
            io::ErrorKind::AddrInUse => {
                Some("another program listens there (`ss -ltnp` shows which); use another port")
            }
            io::ErrorKind::AddrNotAvailable => Some("this machine does not have this address"),
            io::ErrorKind::PermissionDenied => Some("ports below 1024 require root; use another port"),
            _ => None,
        },
        commands::Error::OutputInUse { .. } => Some("stop that process, or write to another file"),
        commands::Error::StreamStillDown { .. } => Some("check with `docker info` whether the daemon is running"),
        commands::Error::Unread { source, .. } => source.as_ref().and_then(docker_hint),
        commands::Error::Output(_)
        | commands::Error::Lines(_)
        | commands::Error::Start(_)
        | commands::Error::TooFew { .. } => None,
    }
}

fn docker_hint(error: &docker::Error) -> Option<&'static str> {
    use docker::Error as Docker;
    match error {
        Docker::UnknownContext { .. } => Some("`docker context ls` lists all contexts"),
        Docker::BadHost { .. } => Some("use `unix:///path`, `tcp://host:port` or `ssh://user@host`"),
        Docker::BadVersion { .. } => {
            Some("DOCKER_API_VERSION has the form `1.41`; if it is unset, the version is negotiated")
        }
        Docker::Forbidden { .. } => Some("run as root, or as a member of the group that owns the socket (`docker`)"),
        Docker::Unreachable { .. } => {
            Some("check with `docker info` whether the daemon is running; -H and -c select another one")
        }
        Docker::Timeout { .. } => Some("the daemon accepts connections but does not respond; check its log"),
        Docker::TooOld { .. } => {
            Some("Docker Engine 20.10 or newer is required; upgrade it, or unset DOCKER_API_VERSION")
        }
        Docker::TooNew { .. } => Some("unset DOCKER_API_VERSION, or look for a newer docker-logwatch"),
        Docker::TooManyStreams { .. } => Some("raise the setting, or select fewer containers"),
        Docker::PoolTimeout { .. } => Some("raise the setting, or docker.pool.request_timeout"),
        Docker::Tls { .. } => Some("check --tlscacert, --tlscert and --tlskey, or the files of the context"),
        _ => None,
    }
}

/// Writes a report to stderr and returns `exit` as an exit code.
pub(super) fn fail(error: &(dyn Error + 'static), hint: Option<&str>, exit: Exit, format: LogFormat) -> ExitCode {
    let report = match format {
        LogFormat::Text => report(error, hint),
        LogFormat::Json => report_json(error, hint),
    };
    output::report(format, &report);
    exit.into()
}

/// Formats the error, each of its causes, and the hint, one per line:
///
/// ```text
/// error: lost the event stream of the Docker daemon
///   caused by: connection refused
/// hint: check the daemon with `docker info`
/// ```
pub(super) fn report(error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let mut lines = String::new();
    for (depth, text) in safe_texts(error).iter().enumerate() {
        let head = if depth == 0 { "error" } else { "  caused by" };
        let _ = writeln!(lines, "{head}: {text}");
    }
    if let Some(hint) = hint {
        let _ = writeln!(lines, "hint: {}", safe(hint));
    }
    lines
}

/// The same as one JSON object, in the form of the other diagnostics.
fn report_json(error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let texts = safe_texts(error);
    let message = texts.first().map_or("", String::as_str);
    Diagnostic { causes: texts.get(1..), hint, ..Diagnostic::new(Level::Error, message) }.object()
}

fn safe_texts(error: &(dyn Error + 'static)) -> Vec<String> {
    error_chain::texts(error).iter().map(|text| safe(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error_chain::tests::error;

    #[test]
    fn error_causes_and_hint_are_on_separate_lines() {
        for (texts, hint, expected) in [
            (&["it broke"][..], None, "error: it broke\n"),
            (&["it broke"], Some("mend it"), "error: it broke\nhint: mend it\n"),
            (&["a", "b", "c"], Some("d"), "error: a\n  caused by: b\n  caused by: c\nhint: d\n"),
            (&["cannot read: no such file", "no such file"], None, "error: cannot read: no such file\n"),
            (&["daemon says \"no\"\n"], None, "error: daemon says \"no\"\n"),
        ] {
            assert_eq!(report(&error(texts), hint), expected);
        }
    }

    #[test]
    fn json_report_is_one_line() {
        let report = report_json(&error(&["a", "b\n\x1b"]), Some("c"));
        let object: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report.matches('\n').count(), 1);
        assert_eq!(object["level"], "ERROR");
        assert_eq!(object["message"], "a");
        assert_eq!(object["causes"], serde_json::json!(["b^J^["]));
        assert_eq!(object["hint"], "c");
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes =
            [Exit::Success, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::CheckFailed].map(|exit| exit as u8);
        assert_eq!(codes, [0, 1, 2, 3, 4]);
    }
}

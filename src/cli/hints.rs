//! Failures in words: what happened, what caused it, what to do; and the exit codes.
//!
//! In: an error of any room. Out: lines on stderr. The errors themselves carry no advice; it is given here.

use crate::docker::{self, Kind};
use crate::output::{Diagnostic, Level, LogFormat, safe};
use crate::{commands, output, state};
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

/// The exit codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, told to stop, or nobody reads our output any more.
    Done = 0,
    /// It failed at run time.
    Failed = 1,
    /// The command line or the configuration cannot be understood.
    Usage = 2,
    /// The engine cannot be reached or refuses us.
    Unreachable = 3,
    /// The check that was asked for failed.
    Unmet = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Reports what an engine call failed with, and says how that counts.
pub(super) fn failed(error: &commands::Error, format: LogFormat) -> ExitCode {
    let exit = match error {
        commands::Error::Docker(error) => match error.kind() {
            Kind::Usage => Exit::Usage,
            Kind::Unreachable => Exit::Unreachable,
            Kind::Failed => Exit::Failed,
        },
        commands::Error::State(state::Error::BadName { .. }) => Exit::Usage,
        commands::Error::Away { .. } => Exit::Unreachable,
        commands::Error::Unread { source: Some(error), .. } if error.kind() == Kind::Unreachable => Exit::Unreachable,
        commands::Error::TooFew { .. } => Exit::Unmet,
        _ => Exit::Failed,
    };
    failed_as(error, exit, format)
}

/// Reports what an engine call failed with, where it is said already how that counts.
pub(super) fn failed_as(error: &commands::Error, exit: Exit, format: LogFormat) -> ExitCode {
    fail(error, advice(error), exit, format)
}

/// What to do about it, where the error's own words do not say it all.
fn advice(error: &commands::Error) -> Option<&'static str> {
    match error {
        commands::Error::Docker(error) => advice_of_docker(error),
        commands::Error::Lines(output::Error::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            Some("make room there; what was not written is still in the engine's logs")
        }
        commands::Error::Output(output::Error::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            Some("make room there")
        }
        commands::Error::NoSuchContainer { is_read_once: true, .. } => {
            Some("`docker ps -a` lists those there are; without --no-follow it is waited for")
        }
        commands::Error::NoSuchContainer { .. } => Some("`docker ps -a` lists those there are"),
        commands::Error::Ambiguous(_) => Some("give more of the ID, or the name"),
        commands::Error::NoFiles { .. } => {
            Some("read through the engine instead: `--source stream`, or run it as root")
        }
        commands::Error::State(error) => match error {
            state::Error::Held { .. } => Some("end that process, or use a name of its own: `--resume=NAME`"),
            state::Error::Damaged { .. } => Some(
                "move it away to begin anew: logs are then read from their first lines; or name another with --state",
            ),
            state::Error::Newer { .. } => {
                Some("use the newer docker-logwatch, or name another state file with --state")
            }
            state::Error::NotAState { .. } | state::Error::Foreign { .. } => Some("name another file with --state"),
            state::Error::Full { .. } => Some("make room there; the next run goes on from what was kept"),
            state::Error::ReadOnly { .. } | state::Error::Folder { .. } | state::Error::CannotOpen { .. } => {
                Some("name a file that can be written with --state")
            }
            state::Error::Busy { .. } => Some("end the program that holds it (`fuser` on the file tells which)"),
            _ => None,
        },
        commands::Error::Serve(error) => match error.source.kind() {
            io::ErrorKind::AddrInUse => {
                Some("another program listens there (`ss -ltnp` tells which); take another port")
            }
            io::ErrorKind::AddrNotAvailable => Some("it is no address of this machine"),
            io::ErrorKind::PermissionDenied => Some("ports below 1024 are for root; take another"),
            _ => None,
        },
        commands::Error::OutputInUse { .. } => Some("end that process, or write to another file"),
        commands::Error::Away { .. } => Some("is the engine running? `docker info` tells"),
        commands::Error::Unread { source, .. } => source.as_ref().and_then(advice_of_docker),
        commands::Error::Output(_)
        | commands::Error::Lines(_)
        | commands::Error::Start(_)
        | commands::Error::TooFew { .. } => None,
    }
}

fn advice_of_docker(error: &docker::Error) -> Option<&'static str> {
    use docker::Error as Docker;
    match error {
        Docker::UnknownContext { .. } => Some("`docker context ls` lists those there are"),
        Docker::BadHost { .. } => Some("a host is `unix:///path`, `tcp://host:port` or `ssh://user@host`"),
        Docker::BadVersion { .. } => Some("DOCKER_API_VERSION is of the form `1.41`; unset, the version is agreed on"),
        Docker::Forbidden { .. } => Some("run it as root, or as a member of the group that owns the socket (`docker`)"),
        Docker::Unreachable { .. } => Some("is the engine running? `docker info` tells, `-H` and `-c` name another"),
        Docker::Timeout { .. } => Some("the engine takes connections but does not answer; look at its own log"),
        Docker::TooOld { .. } => Some("engines from 20.10 on are served; upgrade it, or unset DOCKER_API_VERSION"),
        Docker::TooNew { .. } => Some("unset DOCKER_API_VERSION, or look for a newer docker-logwatch"),
        Docker::TooManyStreams { .. } => Some("raise the setting, or select fewer containers"),
        Docker::PoolTimeout { .. } => Some("raise the setting, or docker.pool.request_timeout"),
        Docker::Tls { .. } => Some("check --tlscacert, --tlscert and --tlskey, or the files of the context"),
        _ => None,
    }
}

/// Writes the report of a failure to stderr and passes on the code that goes with it.
pub(super) fn fail(error: &(dyn Error + 'static), hint: Option<&str>, exit: Exit, format: LogFormat) -> ExitCode {
    let report = match format {
        LogFormat::Text => report(error, hint),
        LogFormat::Json => report_json(error, hint),
    };
    output::report(format, &report);
    exit.into()
}

/// The error, each of its causes, and the advice, a line each:
///
/// ```text
/// error: lost the event stream of the Docker daemon
///   caused by: connection refused
/// hint: check the daemon with `docker info`
/// ```
pub fn report(error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let mut lines = String::new();
    for (depth, text) in chain(error).iter().enumerate() {
        let head = if depth == 0 { "error" } else { "  caused by" };
        let _ = writeln!(lines, "{head}: {text}");
    }
    if let Some(hint) = hint {
        let _ = writeln!(lines, "hint: {}", safe(hint));
    }
    lines
}

/// The same as one JSON object, in the shape of the other diagnostics.
fn report_json(error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let texts = chain(error);
    let message = texts.first().map_or("", String::as_str);
    Diagnostic { causes: texts.get(1..), hint, ..Diagnostic::new(Level::Error, message) }.object()
}

/// The texts of an error and its causes. Some libraries repeat the cause in their own text; it is then said once.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = safe(error.to_string().trim_end());
        if !texts.last().is_some_and(|said| said.ends_with(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    fn told(texts: &[&'static str]) -> Told {
        let (text, rest) = texts.split_first().unwrap();
        Told { text, source: (!rest.is_empty()).then(|| Box::new(told(rest))) }
    }

    #[test]
    fn an_error_its_causes_and_its_advice_stand_on_a_line_each() {
        for (texts, hint, expected) in [
            (&["it broke"][..], None, "error: it broke\n"),
            (&["it broke"], Some("mend it"), "error: it broke\nhint: mend it\n"),
            (&["a", "b", "c"], Some("d"), "error: a\n  caused by: b\n  caused by: c\nhint: d\n"),
            (&["cannot read: no such file", "no such file"], None, "error: cannot read: no such file\n"),
            (&["daemon says \"no\"\n"], None, "error: daemon says \"no\"\n"),
        ] {
            assert_eq!(report(&told(texts), hint), expected);
        }
    }

    #[test]
    fn a_json_report_is_one_object_on_one_line() {
        let report = report_json(&told(&["a", "b\n\x1b"]), Some("c"));
        let object: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report.matches('\n').count(), 1);
        assert_eq!(object["level"], "ERROR");
        assert_eq!(object["message"], "a");
        assert_eq!(object["causes"], serde_json::json!(["b^J^["]));
        assert_eq!(object["hint"], "c");
    }

    #[test]
    fn the_exit_codes_are_those_of_the_contract() {
        let codes = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Unmet].map(|exit| exit as u8);
        assert_eq!(codes, [0, 1, 2, 3, 4]);
    }
}

//! Writes diagnostics to stderr: as a line of text, or as a JSON object of the shape that `tracing` uses.
//!
//! Everything that goes to stderr passes through [`write()`], which makes it safe for a terminal even if stderr is none:
//! a redirected log is often read on a terminal later.

use crate::model::time::Timestamp;
use crate::output::sanitizer::{self, Form};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The format of the program's own diagnostics (`--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per diagnostic.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The severity of a diagnostic, spelled as `tracing` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Info,
    /// The command goes on, but the result may not be what the user meant.
    Warn,
    Error,
}

/// A message for people, with its context. Text from outside has already been sanitised.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Diagnostic<'a> {
    pub level: Level,
    /// One sentence, without a full stop at the end.
    pub message: &'a str,
    /// The container that the message is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<&'a str>,
    /// The causes of a failure; each is caused by the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causes: Option<&'a [String]>,
    /// What the user can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

impl<'a> Diagnostic<'a> {
    /// Creates a diagnostic that consists of a message only.
    pub(crate) fn new(level: Level, message: &'a str) -> Self {
        Diagnostic { level, message, container_name: None, causes: None, hint: None }
    }

    /// Renders the diagnostic as one line of JSON with the current time as its timestamp.
    pub(crate) fn object(&self) -> String {
        #[derive(Serialize)]
        struct Timestamped<'a> {
            timestamp: String,
            #[serde(flatten)]
            diagnostic: Diagnostic<'a>,
        }
        let timestamped = Timestamped { timestamp: Timestamp::now().to_string(), diagnostic: *self };
        // Only strings, so serialization cannot fail.
        serde_json::to_string(&timestamped).unwrap_or_default() + "\n"
    }
}

/// Writes a diagnostic to stderr: `line` in text format, the object in JSON format.
pub(crate) fn notice(format: LogFormat, line: &str, diagnostic: Diagnostic<'_>) {
    // A closed stderr is no reason to stop.
    let _ = match format {
        LogFormat::Text => write_line(line),
        LogFormat::Json => write(diagnostic.object().as_bytes(), Form::Json),
    };
}

/// Writes sanitised bytes to stderr. `clippy.toml` forbids every other access to stderr.
pub(crate) fn write(bytes: &[u8], form: Form) -> io::Result<()> {
    let mut shielded = Vec::with_capacity(bytes.len());
    sanitizer::shield(bytes, form, &mut shielded);
    #[expect(clippy::disallowed_methods, reason = "the only place that writes to stderr")]
    io::stderr().write_all(&shielded)
}

fn write_line(line: &str) -> io::Result<()> {
    let mut shielded = Vec::with_capacity(line.len() + 1);
    sanitizer::shield(line.as_bytes(), Form::Line, &mut shielded);
    shielded.push(b'\n');
    write(&shielded, Form::Text)
}

pub(crate) fn is_stderr_terminal() -> bool {
    rustix::stdio::stderr().is_terminal()
}

/// Writes several lines to stderr: an error report, or the help text that follows a usage error.
pub(crate) fn report(format: LogFormat, text: &str) {
    let form = if format == LogFormat::Json { Form::Json } else { Form::Text };
    // If stderr is closed, nobody can be notified.
    let _ = write(text.as_bytes(), form);
}

/// Collects what `tracing` writes for one event, and writes it to stderr as one line when dropped.
pub(crate) struct Tracer {
    format: LogFormat,
    event: Vec<u8>,
}

impl Tracer {
    pub(crate) fn new(format: LogFormat) -> Self {
        Tracer { format, event: Vec::new() }
    }
}

impl Write for Tracer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.event.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let event = self.event.strip_suffix(b"\n").unwrap_or(&self.event);
        let _ = match self.format {
            LogFormat::Text => write_line(&String::from_utf8_lossy(event)),
            LogFormat::Json => write(&[event, b"\n"].concat(), Form::Json),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_diagnostic_has_the_shape_of_tracing_events() {
        let causes = ["a \"cause\"\n".to_owned()];
        let detailed = Diagnostic {
            container_name: Some("web"),
            causes: Some(&causes),
            hint: Some("mend it"),
            ..Diagnostic::new(Level::Warn, "it broke")
        };
        for (diagnostic, rest) in [
            (Diagnostic::new(Level::Info, "well"), r#""level":"INFO","message":"well"}"#),
            (
                detailed,
                r#""level":"WARN","message":"it broke","container_name":"web","causes":["a \"cause\"\n"],"hint":"mend it"}"#,
            ),
        ] {
            let line = diagnostic.object();
            let (time, body) = line.strip_prefix(r#"{"timestamp":""#).unwrap().split_once(r#"","#).unwrap();
            assert!(Timestamp::parse(time.as_bytes()).is_some(), "{time}");
            assert_eq!(body, format!("{rest}\n"));
        }
    }
}

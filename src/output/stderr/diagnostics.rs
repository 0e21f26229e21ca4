//! Our own words on stderr: a line, or an object in the shape in which `tracing` writes its diagnostics.
//!
//! Everything on stderr leaves by [`write`], which makes it safe for a terminal whether it is one or not: such logs are
//! read on terminals later.

use crate::model::time::Timestamp;
use crate::output::sanitizer::{self, Form};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The form of our own diagnostics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line each.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Good to know.
    Info,
    /// Something may not be as it was meant.
    Warn,
    /// It failed.
    Error,
}

/// What is said. What comes from outside was made safe.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Diagnostic<'a> {
    /// How much it matters.
    pub level: Level,
    /// In a sentence.
    pub message: &'a str,
    /// The container that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<&'a str>,
    /// Of a failure, each because of the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causes: Option<&'a [String]>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

impl<'a> Diagnostic<'a> {
    /// A sentence alone.
    pub fn new(level: Level, message: &'a str) -> Self {
        Diagnostic { level, message, container_name: None, causes: None, hint: None }
    }

    /// It as an object on a line, said now.
    pub fn object(&self) -> String {
        #[derive(Serialize)]
        struct Said<'a> {
            timestamp: String,
            #[serde(flatten)]
            what: Diagnostic<'a>,
        }
        let said = Said { timestamp: Timestamp::now().to_string(), what: *self };
        // Strings alone: there is nothing in it that JSON cannot hold.
        serde_json::to_string(&said).unwrap_or_default() + "\n"
    }
}

/// Says it on stderr, in text as this line.
pub fn notice(format: LogFormat, line: &str, said: Diagnostic<'_>) {
    // Nobody may be listening there, which is no reason to stop.
    let _ = match format {
        LogFormat::Text => write_line(line),
        LogFormat::Json => write(said.object().as_bytes(), Form::Json),
    };
}

/// Writes to stderr. Clippy refuses any other way there.
pub(crate) fn write(bytes: &[u8], form: Form) -> io::Result<()> {
    let mut shielded = Vec::with_capacity(bytes.len());
    sanitizer::shield(bytes, form, &mut shielded);
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    io::stderr().write_all(&shielded)
}

fn write_line(line: &str) -> io::Result<()> {
    let mut shielded = Vec::with_capacity(line.len() + 1);
    sanitizer::shield(line.as_bytes(), Form::Line, &mut shielded);
    shielded.push(b'\n');
    write(&shielded, Form::Text)
}

/// Whether stderr is a terminal.
pub fn is_on_terminal() -> bool {
    rustix::stdio::stderr().is_terminal()
}

/// Writes lines of text to stderr: a report of several, or help that nobody asked for.
pub fn report(format: LogFormat, text: &str) {
    let form = if format == LogFormat::Json { Form::Json } else { Form::Text };
    // With stderr gone there is nobody to tell.
    let _ = write(text.as_bytes(), form);
}

/// What `tracing` writes an event to, which goes to stderr as one line when it is dropped.
pub struct Tracer {
    format: LogFormat,
    event: Vec<u8>,
}

impl Tracer {
    /// For one event.
    pub fn new(format: LogFormat) -> Self {
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
    fn an_object_is_one_line_that_begins_as_those_of_tracing_do() {
        let causes = ["a \"cause\"\n".to_owned()];
        let said = Diagnostic {
            container_name: Some("web"),
            causes: Some(&causes),
            hint: Some("mend it"),
            ..Diagnostic::new(Level::Warn, "it broke")
        };
        for (said, rest) in [
            (Diagnostic::new(Level::Info, "well"), r#""level":"INFO","message":"well"}"#),
            (
                said,
                r#""level":"WARN","message":"it broke","container_name":"web","causes":["a \"cause\"\n"],"hint":"mend it"}"#,
            ),
        ] {
            let line = said.object();
            let (time, told) = line.strip_prefix(r#"{"timestamp":""#).unwrap().split_once(r#"","#).unwrap();
            assert!(Timestamp::parse(time.as_bytes()).is_some(), "{time}");
            assert_eq!(told, format!("{rest}\n"));
        }
    }
}

//! Our own words on stderr: a line, or an object in the shape in which `tracing` writes its diagnostics.

use crate::time::Timestamp;
use serde::Serialize;
use std::io::Write;

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
    let written = match format {
        LogFormat::Text => format!("{line}\n"),
        LogFormat::Json => said.object(),
    };
    // Nobody may be listening there, which is no reason to stop.
    let _ = std::io::stderr().write_all(written.as_bytes());
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

//! Prints the report of `watch --dry-run`.

use crate::model::container::{Container, short};
use crate::output::Error;
use crate::output::sanitizer::{self, Form};
use crate::output::sink::Sink;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How one container would be read.
pub(crate) struct PlannedContainer {
    pub container: Container,
    /// The logging driver; empty if it is unknown.
    pub driver: String,
    /// The route by which it would be read; `None` if it cannot be read.
    pub source: Option<&'static str>,
    /// How its configuration can lose lines.
    pub risk: Option<String>,
}

/// Writes the report to stdout: a table, or one JSON object per line.
pub(crate) fn plan(planned: &[PlannedContainer], is_json: bool) -> Result<(), Error> {
    let mut sink = Sink::stdout(if is_json { Form::Json } else { Form::Text })?;
    let text = if is_json { planned.iter().map(object).collect() } else { table(planned, sink.columns()) };
    match sink.write(text.as_bytes()) {
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

/// A JSON record. Its first keys are those of all record types.
#[derive(Serialize)]
struct PlanRecord<'a> {
    r#type: &'static str,
    container_id: &'a str,
    container_name: &'a str,
    image: &'a str,
    state: &'a str,
    driver: &'a str,
    source: Option<&'static str>,
    risk: Option<&'a str>,
}

fn object(planned: &PlannedContainer) -> String {
    let PlannedContainer { container, driver, source, risk } = planned;
    let record = PlanRecord {
        r#type: "plan",
        container_id: &container.id,
        container_name: &container.name,
        image: &container.image,
        state: &container.state,
        driver,
        source: *source,
        risk: risk.as_deref(),
    };
    // Only strings, so serialization cannot fail.
    serde_json::to_string(&record).unwrap_or_default() + "\n"
}

/// Blanks between two columns.
const COLUMN_GAP: usize = 2;
const HEADERS: [&str; 6] = ["CONTAINER", "NAME", "STATE", "DRIVER", "SOURCE", "MAY LOSE LINES"];

/// Renders the table. If the width is limited, long names are shortened, so that they do not wrap.
fn table(planned: &[PlannedContainer], columns: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADERS);
    let mut rows: Vec<[String; 6]> = planned.iter().map(row).collect();
    if let Some(columns) = columns {
        let width = name_width(&rows, columns);
        rows.iter_mut().for_each(|[_, name, ..]| *name = shorten(name, width));
    }
    table.add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn row(PlannedContainer { container, driver, source, risk }: &PlannedContainer) -> [String; 6] {
    [
        short(&container.id).to_owned(),
        sanitizer::safe(&container.name),
        sanitizer::safe(&container.state),
        sanitizer::safe(driver),
        source.unwrap_or("-").to_owned(),
        risk.clone().unwrap_or_default(),
    ]
}

/// The width that the other columns leave for names. The risk is a sentence and may wrap, so only its header counts.
fn name_width(rows: &[[String; 6]], columns: usize) -> usize {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count()).filter(|_| at != 5);
        cells.chain([HEADERS[at].len()]).max().unwrap_or_default()
    };
    let others: usize = [0, 2, 3, 4, 5].map(|at| width(at) + COLUMN_GAP).iter().sum();
    columns.saturating_sub(others).max(HEADERS[0].len())
}

fn shorten(name: &str, width: usize) -> String {
    match name.char_indices().nth(width) {
        None => name.to_owned(),
        Some(_) => name.chars().take(width - 1).chain(['\u{2026}']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned() -> [PlannedContainer; 2] {
        let planned = |name: &str, source, risk: Option<&str>| PlannedContainer {
            container: Container {
                id: "ab".repeat(32),
                name: name.into(),
                image: "nginx:1".into(),
                state: "running".into(),
                ..Container::default()
            },
            driver: "json-file".into(),
            source,
            risk: risk.map(str::to_owned),
        };
        [planned(&"long-".repeat(13), Some("file"), None), planned("web", None, Some("the driver keeps nothing"))]
    }

    #[test]
    fn long_names_are_shortened_to_fit_the_terminal() {
        let expected = "\
CONTAINER     NAME                    STATE    DRIVER     SOURCE  MAY LOSE LINES
abababababab  long-long-long-long-l…  running  json-file  file
abababababab  web                     running  json-file  -       the driver keeps nothing
";
        assert_eq!(table(&planned(), Some(80)), expected);
        for (columns, is_whole) in [(None, true), (Some(200), true), (Some(100), false), (Some(10), false)] {
            let text = table(&planned(), columns);
            assert_eq!(text.contains(&"long-".repeat(13)), is_whole, "{text}");
            assert!(text.contains("  web  "), "{text}");
        }
    }

    #[test]
    fn an_object_starts_like_every_record() {
        let [first, second] = planned();
        let head = format!(r#"{{"type":"plan","container_id":"{}","container_name":"#, "ab".repeat(32));
        let rest = r#""web","image":"nginx:1","state":"running","driver":"json-file","source":null,"risk":"the driver keeps nothing"}"#;
        assert_eq!(object(&second), format!("{head}{rest}\n"));
        assert!(object(&first).ends_with("\"source\":\"file\",\"risk\":null}\n"));
    }
}

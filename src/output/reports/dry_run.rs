//! The report of `watch --dry-run`.

use crate::model::container::{Container, short};
use crate::output::Error;
use crate::output::sanitizer::{self, Form};
use crate::output::sink::Sink;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How one container would be read.
pub struct PlannedContainer {
    /// Which.
    pub container: Container,
    /// Its logging driver.
    pub driver: String,
    /// By which route; `None` when it cannot be.
    pub source: Option<&'static str>,
    /// How it can lose lines.
    pub risk: Option<String>,
}

/// Writes it to stdout: a table, or one object a line.
pub fn plan(planned: &[PlannedContainer], is_json: bool) -> Result<(), Error> {
    let mut sink = Sink::stdout(if is_json { Form::Json } else { Form::Text })?;
    let text = if is_json { planned.iter().map(object).collect() } else { table(planned, sink.columns()) };
    match sink.write(text.as_bytes()) {
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

/// Its keys begin as those of all records do.
#[derive(Serialize)]
struct Record<'a> {
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
    let record = Record {
        r#type: "plan",
        container_id: &container.id,
        container_name: &container.name,
        image: &container.image,
        state: &container.state,
        driver,
        source: *source,
        risk: risk.as_deref(),
    };
    // Strings alone: there is nothing in it that JSON cannot hold.
    serde_json::to_string(&record).unwrap_or_default() + "\n"
}

/// Between two columns.
const APART: usize = 2;
const HEADS: [&str; 6] = ["CONTAINER", "NAME", "STATE", "DRIVER", "SOURCE", "MAY LOSE LINES"];

/// In so many columns, if they are limited, no name breaks its row.
fn table(planned: &[PlannedContainer], columns: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADS);
    let mut rows: Vec<[String; 6]> = planned.iter().map(row).collect();
    if let Some(columns) = columns {
        let room = room(&rows, columns);
        rows.iter_mut().for_each(|[_, name, ..]| *name = cut(name, room));
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

/// What all else leaves to the names. A risk is a sentence, and goes on where it has to.
fn room(rows: &[[String; 6]], columns: usize) -> usize {
    let width = |at: usize| {
        let words = rows.iter().map(|row| row[at].chars().count()).filter(|_| at != 5);
        words.chain([HEADS[at].len()]).max().unwrap_or_default()
    };
    let others: usize = [0, 2, 3, 4, 5].map(|at| width(at) + APART).iter().sum();
    columns.saturating_sub(others).max(HEADS[0].len())
}

fn cut(name: &str, room: usize) -> String {
    match name.char_indices().nth(room) {
        None => name.to_owned(),
        Some(_) => name.chars().take(room - 1).chain(['\u{2026}']).collect(),
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
    fn a_long_name_breaks_no_row_of_a_terminal() {
        let expected = "\
CONTAINER     NAME                    STATE    DRIVER     SOURCE  MAY LOSE LINES
abababababab  long-long-long-long-l…  running  json-file  file
abababababab  web                     running  json-file  -       the driver keeps nothing
";
        assert_eq!(table(&planned(), Some(80)), expected);
        for (columns, is_whole) in [(None, true), (Some(200), true), (Some(100), false), (Some(10), false)] {
            let told = table(&planned(), columns);
            assert_eq!(told.contains(&"long-".repeat(13)), is_whole, "{told}");
            assert!(told.contains("  web  "), "{told}");
        }
    }

    #[test]
    fn an_object_begins_as_all_records_do() {
        let [first, second] = planned();
        let head = format!(r#"{{"type":"plan","container_id":"{}","container_name":"#, "ab".repeat(32));
        let rest = r#""web","image":"nginx:1","state":"running","driver":"json-file","source":null,"risk":"the driver keeps nothing"}"#;
        assert_eq!(object(&second), format!("{head}{rest}\n"));
        assert!(object(&first).ends_with("\"source\":\"file\",\"risk\":null}\n"));
    }
}

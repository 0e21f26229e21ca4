//! The report of `watch --dry-run`.

use super::sink::Sink;
use super::{Error, terminal};
use crate::container::{Container, short};
use comfy_table::{Table, presets};
use serde::Serialize;

/// How one container would be read.
pub struct Planned {
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
pub fn plan(planned: &[Planned], is_json: bool) -> Result<(), Error> {
    let mut sink = Sink::stdout()?;
    let text = if is_json { planned.iter().map(object).collect() } else { table(planned, sink.is_terminal) };
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

fn object(planned: &Planned) -> String {
    let Planned { container, driver, source, risk } = planned;
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

/// On a terminal one long name would break every row.
const WIDEST_NAME: usize = 28;

fn table(planned: &[Planned], is_terminal: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CONTAINER", "NAME", "STATE", "DRIVER", "SOURCE", "MAY LOSE LINES"]);
    for Planned { container, driver, source, risk } in planned {
        let name = terminal::safe(&container.name);
        table.add_row([
            short(&container.id).to_owned(),
            if is_terminal { cut(&name) } else { name },
            container.state.clone(),
            terminal::safe(driver),
            source.unwrap_or("-").to_owned(),
            risk.clone().unwrap_or_default(),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(WIDEST_NAME) {
        None => name.to_owned(),
        Some(_) => name.chars().take(WIDEST_NAME - 1).chain(['\u{2026}']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned() -> [Planned; 2] {
        let planned = |name: &str, source, risk: Option<&str>| Planned {
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
    fn a_long_name_widens_the_table_on_no_terminal() {
        let expected = "\
CONTAINER     NAME                          STATE    DRIVER     SOURCE  MAY LOSE LINES
abababababab  long-long-long-long-long-lo…  running  json-file  file
abababababab  web                           running  json-file  -       the driver keeps nothing
";
        assert_eq!(table(&planned(), true), expected);
        assert!(table(&planned(), false).contains(&"long-".repeat(13)));
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

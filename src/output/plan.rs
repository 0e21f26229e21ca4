//! The report of `watch --dry-run`.

use super::sink::Sink;
use super::{Error, terminal};
use crate::container::{Container, short};
use comfy_table::{Table, presets};

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
    let text = if is_json { planned.iter().map(object).collect() } else { table(planned) };
    match Sink::stdout()?.write(text.as_bytes()) {
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

fn object(planned: &Planned) -> String {
    let Planned { container, driver, source, risk } = planned;
    let object = serde_json::json!({
        "type": "plan",
        "container_id": container.id,
        "container_name": container.name,
        "image": container.image,
        "state": container.state,
        "driver": driver,
        "source": source,
        "risk": risk,
    });
    format!("{object}\n")
}

fn table(planned: &[Planned]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CONTAINER", "NAME", "STATE", "DRIVER", "SOURCE", "MAY LOSE LINES"]);
    for Planned { container, driver, source, risk } in planned {
        table.add_row([
            short(&container.id).to_owned(),
            terminal::safe(&container.name),
            container.state.clone(),
            terminal::safe(driver),
            source.unwrap_or("-").to_owned(),
            risk.clone().unwrap_or_default(),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n") + "\n"
}

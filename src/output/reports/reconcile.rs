//! Prints the report of `reconcile`: tables for people, or one JSON object.

use crate::model::container::short;
use crate::model::inventory::{ChangeCounts, ChangeSummary, Field, Resource};
use crate::model::plan::{Plan, PlanStep};
use crate::model::time::Timestamp;
use crate::output::Error;
use crate::output::sanitizer::{self, Form};
use crate::output::sink::Sink;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::time::Duration;

/// The result of a comparison of the inventory with the daemon.
#[derive(Debug)]
pub(crate) struct Reconciled {
    pub engine_id: String,
    /// Whether the changes were only computed, not written.
    pub is_dry_run: bool,
    /// The local time at which the comparison started.
    pub started: Timestamp,
    /// From the first request to the daemon to the last write to the state.
    pub took: Duration,
    /// All differences, written or not.
    pub plan: Plan,
    /// Whether there was no state to compare with. A dry run does not create one.
    pub has_no_state: bool,
}

/// The JSON report. Users rely on the names and the order of its keys.
#[derive(Serialize)]
struct Object<'a> {
    engine_id: &'a str,
    r#type: &'static str,
    dry_run: bool,
    in_sync: bool,
    started: String,
    duration_seconds: f64,
    changes: Changes,
    details: Vec<PlanStep>,
    /// Names of removed containers whose last lines can no longer be read.
    lost: Vec<String>,
}

#[derive(Serialize)]
struct Changes {
    containers: ChangeCounts,
    volumes: ChangeCounts,
    mounts: ChangeCounts,
    positions: ChangeCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    Table,
    Json,
}

impl Reconciled {
    /// Whether the inventory in the state agreed with the daemon.
    pub(crate) fn is_in_sync(&self) -> bool {
        self.plan.summary().is_empty()
    }

    /// Writes the report to stdout, with every single change if `details` is set.
    pub(crate) fn write(&self, format: ReportFormat, details: bool) -> Result<(), Error> {
        let (text, form) = match format {
            ReportFormat::Table => (self.table(details), Form::Text),
            // Only numbers and strings, so serialization cannot fail.
            ReportFormat::Json => (serde_json::to_string(&self.object(details)).unwrap_or_default() + "\n", Form::Json),
        };
        match Sink::stdout(form)?.write(text.as_bytes()) {
            Err(Error::Closed) => Ok(()),
            written => written,
        }
    }

    fn object(&self, details: bool) -> Object<'_> {
        let ChangeSummary([containers, volumes, mounts, positions]) = self.plan.summary();
        Object {
            engine_id: &self.engine_id,
            r#type: "full",
            dry_run: self.is_dry_run,
            in_sync: self.is_in_sync(),
            started: self.started.to_string(),
            duration_seconds: self.took.as_secs_f64(),
            changes: Changes { containers, volumes, mounts, positions },
            details: if details { self.plan.steps() } else { Vec::new() },
            lost: self.plan.lost(),
        }
    }

    fn table(&self, details: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["RESOURCE", "CREATED", "UPDATED", "REMOVED", "UNCHANGED"]);
        let ChangeSummary(counts) = self.plan.summary();
        for (resource, ChangeCounts { created, updated, removed, unchanged }) in Resource::ALL.into_iter().zip(counts) {
            let name = format!("{}s", resource.name());
            table.add_row([name, count_text(created), count_text(updated), count_text(removed), unchanged.to_string()]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = lines(&table);
        let steps = self.plan.steps();
        if details && !steps.is_empty() {
            text += "\n";
            text += &lines(&step_table(&steps));
        }
        let verdict = match (self.is_in_sync(), self.is_dry_run) {
            (true, _) => "in sync",
            (false, true) => "out of sync; nothing was written",
            (false, false) => "synchronized",
        };
        text + &format!("\n{verdict} ({:.0} ms)\n", self.took.as_secs_f64() * 1e3)
    }
}

/// Renders a zero as a dash, so that changes stand out.
fn count_text(count: u64) -> String {
    if count == 0 { "-".to_owned() } else { count.to_string() }
}

fn lines(table: &Table) -> String {
    let lines: Vec<String> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn step_table(steps: &[PlanStep]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["OPERATION", "RESOURCE", "ID", "NAME", "WHAT"]);
    for PlanStep { resource, id, name, operation, fields } in steps {
        let what: Vec<String> = fields.iter().map(Field::to_string).collect();
        let id = if *resource == Resource::Volume { "-" } else { short(id) };
        table.add_row([
            operation.name().to_owned(),
            resource.name().to_owned(),
            sanitizer::safe(id),
            sanitizer::safe(name),
            sanitizer::safe(&what.join(", ")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::inventory::{ContainerRow, MountRow, PositionRow, VolumeRow};

    fn reconciled() -> Reconciled {
        let container = |name: &str, state: &str| ContainerRow {
            id: "ab".repeat(32),
            name: name.into(),
            state: state.into(),
            ..ContainerRow::default()
        };
        let mut plan = Plan::default();
        plan.containers.created.push(container("web\x1b[2J", "running"));
        plan.containers.updated.push((container("db", "running"), container("db", "exited")));
        plan.containers.kept = 7;
        plan.volumes.removed.push(VolumeRow { name: "shop".into(), ..VolumeRow::default() });
        let mount = MountRow { container_id: "cd".repeat(32), destination: "/data".into(), ..MountRow::default() };
        plan.mounts.created.push(mount);
        let position = PositionRow {
            resume: "default".into(),
            container_id: "ef".repeat(32),
            container_name: "old".into(),
            ..PositionRow::default()
        };
        plan.positions.removed.push(position);
        Reconciled {
            engine_id: "ABCD".into(),
            is_dry_run: true,
            started: Timestamp(1_795_215_653_037_882_171),
            took: Duration::from_millis(31),
            plan,
            has_no_state: false,
        }
    }

    #[test]
    fn the_object_has_the_documented_keys_in_order() {
        let object = |details| serde_json::to_string(&reconciled().object(details)).unwrap();
        let head = concat!(
            r#"{"engine_id":"ABCD","type":"full","dry_run":true,"in_sync":false,"#,
            r#""started":"2026-11-20T23:00:53.037882171Z","duration_seconds":0.031,"#,
            r#""changes":{"containers":{"created":1,"updated":1,"removed":0,"unchanged":7},"#,
            r#""volumes":{"created":0,"updated":0,"removed":1,"unchanged":0},"#,
            r#""mounts":{"created":1,"updated":0,"removed":0,"unchanged":0},"#,
            r#""positions":{"created":0,"updated":0,"removed":1,"unchanged":0}},"#,
        );
        assert_eq!(object(false), format!(r#"{head}"details":[],"lost":["old"]}}"#));
        let text = object(true);
        let updated = format!(
            r#"{{"resource":"container","id":"{}","name":"db","operation":"updated","fields":[{{"name":"state","before":"running","after":"exited"}}]}}"#,
            "ab".repeat(32)
        );
        assert!(text.starts_with(&format!(r#"{head}"details":[{{"resource":"container","#)), "{text}");
        assert!(text.contains(&format!(",{updated},")), "{text}");
        assert_eq!(text.matches(r#"{"resource":"#).count(), 5, "{text}");
    }

    #[test]
    fn the_table_is_sanitised_and_complete() {
        let expected = "\
RESOURCE    CREATED  UPDATED  REMOVED  UNCHANGED
containers        1        1        -          7
volumes           -        -        1          0
mounts            1        -        -          0
positions         -        -        1          0

OPERATION  RESOURCE   ID            NAME           WHAT
created    container  abababababab  web^[[2J
updated    container  abababababab  db             state: running -> exited
removed    volume     -             shop
created    mount      cdcdcdcdcdcd  /data
removed    position   efefefefefef  old (default)

out of sync; nothing was written (31 ms)
";
        assert_eq!(reconciled().table(true), expected);
        let applied = Reconciled { is_dry_run: false, ..reconciled() };
        assert!(applied.table(false).ends_with("0\n\nsynchronized (31 ms)\n"));
        let same = Reconciled { plan: Plan::default(), ..reconciled() };
        assert!(same.is_in_sync() && same.table(true).ends_with("0\n\nin sync (31 ms)\n"));
    }
}

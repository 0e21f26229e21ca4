//! The report of `reconcile`.

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

/// What was compared, and what came of it.
#[derive(Debug)]
pub struct Reconciled {
    /// Whose containers.
    pub engine_id: String,
    /// Nothing was written.
    pub is_dry_run: bool,
    /// By our clock.
    pub started: Timestamp,
    /// From the first question to the last write.
    pub took: Duration,
    /// What differed.
    pub plan: Plan,
    /// There was no state to compare with, and none was made.
    pub has_no_state: bool,
}

/// The report for programs, in the order of the contract.
#[derive(Serialize)]
struct Object<'a> {
    engine_id: &'a str,
    r#type: &'static str,
    dry_run: bool,
    in_sync: bool,
    started: String,
    duration_seconds: f64,
    changes: Counted,
    details: Vec<PlanStep>,
    /// Names of containers whose last lines nobody can read any more.
    lost: Vec<String>,
}

#[derive(Serialize)]
struct Counted {
    containers: ChangeCounts,
    volumes: ChangeCounts,
    mounts: ChangeCounts,
    positions: ChangeCounts,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// For people.
    Table,
    /// One object.
    Json,
}

impl Reconciled {
    /// Whether the state was as the engine is.
    pub fn is_in_sync(&self) -> bool {
        self.plan.tally().is_empty()
    }

    /// Writes it to stdout, with each change where `details` are wanted.
    pub fn write(&self, format: ReportFormat, details: bool) -> Result<(), Error> {
        let (text, form) = match format {
            ReportFormat::Table => (self.table(details), Form::Text),
            // Numbers and strings alone: there is nothing in it that JSON cannot hold.
            ReportFormat::Json => (serde_json::to_string(&self.object(details)).unwrap_or_default() + "\n", Form::Json),
        };
        match Sink::stdout(form)?.write(text.as_bytes()) {
            Err(Error::Closed) => Ok(()),
            written => written,
        }
    }

    fn object(&self, details: bool) -> Object<'_> {
        let ChangeSummary([containers, volumes, mounts, positions]) = self.plan.tally();
        Object {
            engine_id: &self.engine_id,
            r#type: "full",
            dry_run: self.is_dry_run,
            in_sync: self.is_in_sync(),
            started: self.started.to_string(),
            duration_seconds: self.took.as_secs_f64(),
            changes: Counted { containers, volumes, mounts, positions },
            details: if details { self.plan.steps() } else { Vec::new() },
            lost: self.plan.lost(),
        }
    }

    fn table(&self, details: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["RESOURCE", "CREATED", "UPDATED", "REMOVED", "UNCHANGED"]);
        let ChangeSummary(tally) = self.plan.tally();
        for (resource, ChangeCounts { created, updated, removed, unchanged }) in Resource::ALL.into_iter().zip(tally) {
            let name = format!("{}s", resource.name());
            table.add_row([name, shown(created), shown(updated), shown(removed), unchanged.to_string()]);
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
            (false, true) => "they differ; nothing was written",
            (false, false) => "brought in line",
        };
        text + &format!("\n{verdict} ({:.0} ms)\n", self.took.as_secs_f64() * 1e3)
    }
}

/// A change that did not happen is nothing to look at.
fn shown(count: u64) -> String {
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
    fn the_object_is_that_of_the_contract_in_its_order() {
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
        let told = object(true);
        let updated = format!(
            r#"{{"resource":"container","id":"{}","name":"db","operation":"updated","fields":[{{"name":"state","before":"running","after":"exited"}}]}}"#,
            "ab".repeat(32)
        );
        assert!(told.starts_with(&format!(r#"{head}"details":[{{"resource":"container","#)), "{told}");
        assert!(told.contains(&format!(",{updated},")), "{told}");
        assert_eq!(told.matches(r#"{"resource":"#).count(), 5, "{told}");
    }

    #[test]
    fn the_table_is_read_at_a_glance_and_obeys_no_name() {
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

they differ; nothing was written (31 ms)
";
        assert_eq!(reconciled().table(true), expected);
        let applied = Reconciled { is_dry_run: false, ..reconciled() };
        assert!(applied.table(false).ends_with("0\n\nbrought in line (31 ms)\n"));
        let same = Reconciled { plan: Plan::default(), ..reconciled() };
        assert!(same.is_in_sync() && same.table(true).ends_with("0\n\nin sync (31 ms)\n"));
    }
}

//! The words of `reconcile`, turned into [`ReconcileOptions`].

use super::hints::{self, Exit};
use super::plugin::DockerFlags;
use super::{Common, carry_out, misused, one_of, state};
use crate::commands;
use crate::commands::reconcile::ReconcileOptions;
use crate::model::stop::Stop;
use crate::output::{self, Diagnostic, Level, Reconciled, ReportFormat};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bring the inventory of containers, volumes, mounts and positions in line with the engine
///
/// All of it in one transaction of the state file; a second run finds nothing to do. `watch --resume` keeps the inventory
/// fresh while it runs. Positions of removed containers go too, but for those under a name that a run holds.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Reconcile {
    /// Tell what differs, write nothing
    #[arg(long, help_heading = INVENTORY)]
    dry_run: bool,

    /// As `--dry-run`; exit code 4 when anything differs
    ///
    /// The table is then shown only when it does. Without a state there is nothing to compare with, which is told instead,
    /// with exit code 4 as well. What differs is looked at twice, two seconds apart: a `watch` that keeps
    /// the state is a moment behind the engine.
    #[arg(long, help_heading = INVENTORY)]
    check: bool,

    /// Tell each change
    #[arg(long, help_heading = OUTPUT)]
    details: bool,

    /// Form of the report
    #[arg(long, value_name = "FORMAT", value_parser = one_of(FORMATS), default_value = "table", help_heading = OUTPUT)]
    format: ReportFormat,
}

const INVENTORY: &str = "Inventory";
const OUTPUT: &str = "Output";

const FORMATS: &[(&str, &str, ReportFormat)] =
    &[("table", "For people", ReportFormat::Table), ("json", "One object", ReportFormat::Json)];

const EXAMPLES: &str = "\
Examples:
  Take stock of everything the engine has
    $ docker logwatch reconcile

  What would change, one by one
    $ docker logwatch reconcile --dry-run --details

  In a crontab: silent while the inventory is true
    $ docker logwatch reconcile --check || docker logwatch reconcile";

/// Reads the last of the words, and answers.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, reconcile: &Reconcile, common: &Common) -> ExitCode {
    let config = match common.config(|_| {}) {
        Ok(config) => config,
        Err(message) => return misused(&message, common.log_format),
    };
    let state = match state(&config) {
        Ok(state) => state,
        Err(message) => return misused(&message, common.log_format),
    };
    let is_dry_run = reconcile.dry_run || reconcile.check;
    let (docker_config, quiet) = (config.docker, common.hides_status());
    let options =
        ReconcileOptions { state, dry_run: is_dry_run, must_last: reconcile.check, docker: docker_config, quiet };
    carry_out(docker, as_plugin, common, |endpoint, stop| {
        let reconciled = commands::reconcile::reconcile(endpoint, &options, stop)?;
        let state = &options.state;
        Ok(reconciled.map_or(Exit::Done.into(), |reconciled| report(reconciled, reconcile, state, common, stop)))
    })
}

/// What a check is told that has nothing to compare with.
#[derive(Debug, thiserror::Error)]
#[error("there is no state in {} yet to hold the engine against", .0.display())]
struct NoState(PathBuf);

fn report(reconciled: Reconciled, asked: &Reconcile, state: &Path, common: &Common, stop: &Stop) -> ExitCode {
    // A check that has nothing to compare with must not pass, not even beside an engine without containers: it would hide
    // a wrong path, or a watch that was never started, for good.
    let is_missing = asked.check && reconciled.has_no_state;
    let is_unmet = is_missing || asked.check && !reconciled.is_in_sync();
    // That all there is is new says nothing.
    let is_silent = asked.check && (!is_unmet || is_missing) && asked.format == ReportFormat::Table;
    if is_missing {
        let hint = "`reconcile` without --check creates it, and so does `watch --resume`";
        hints::fail(&NoState(state.to_owned()), Some(hint), Exit::Unmet, common.log_format);
    }
    let lost = commands::lost(&reconciled.plan.lost()).filter(|_| !common.quiet && !reconciled.is_dry_run);
    if let Some(lost) = lost {
        let lost = output::safe(&lost);
        output::notice(common.log_format, &lost, Diagnostic::new(Level::Warn, &lost));
    }
    let (format, details) = (asked.format, asked.details);
    let written = match is_silent {
        true => Ok(()),
        false => commands::write_report(stop, move || reconciled.write(format, details)),
    };
    match written {
        Ok(()) if is_unmet => Exit::Unmet.into(),
        Ok(()) => Exit::Done.into(),
        Err(error) => hints::failed(&error, common.log_format),
    }
}

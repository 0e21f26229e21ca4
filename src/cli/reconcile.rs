//! The arguments of `reconcile`, their conversion to [`ReconcileOptions`], and its report.

use super::hints::{self, Exit};
use super::plugin::DockerFlags;
use super::{Common, REPORT_FORMATS, one_of, run_command, state, usage_error};
use crate::commands;
use crate::commands::reconcile::ReconcileOptions;
use crate::model::stop::Stop;
use crate::output::{self, Diagnostic, Level, Reconciled, ReportFormat};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Update the inventory of containers, volumes, mounts and positions
///
/// Compares the state file with the Docker Engine and writes all differences in one transaction; running it again changes
/// nothing. `watch --resume` keeps the inventory up to date while it runs. Positions of removed containers are deleted as
/// well, except those of a resume name that is in use.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct ReconcileArgs {
    /// Report the differences without writing them
    #[arg(long, help_heading = INVENTORY)]
    dry_run: bool,

    /// Like `--dry-run`, but exit with code 4 if anything differs
    ///
    /// The table is printed only if there are differences. Without a state file there is nothing to compare with: this is
    /// an error with exit code 4. Differences are checked again after two seconds, because a running `watch` updates the
    /// state with a short delay.
    #[arg(long, help_heading = INVENTORY)]
    check: bool,

    /// List each change
    #[arg(long, help_heading = OUTPUT)]
    details: bool,

    /// Report format
    #[arg(long, value_name = "FORMAT", value_parser = one_of(REPORT_FORMATS), default_value = "table", help_heading = OUTPUT)]
    format: ReportFormat,
}

const INVENTORY: &str = "Inventory";
const OUTPUT: &str = "Output";

const EXAMPLES: &str = "\
Examples:
  Record everything that the Docker Engine has
    $ docker logwatch reconcile

  List what would change
    $ docker logwatch reconcile --dry-run --details

  From cron: no output while the inventory is correct
    $ docker logwatch reconcile --check || docker logwatch reconcile";

/// Runs `reconcile` and returns its exit code.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, args: &ReconcileArgs, common: &Common) -> ExitCode {
    let config = match common.config(|_| {}) {
        Ok(config) => config,
        Err(message) => return usage_error(&message, common.log_format),
    };
    let state = match state(&config) {
        Ok(state) => state,
        Err(message) => return usage_error(&message, common.log_format),
    };
    let is_dry_run = args.dry_run || args.check;
    let (docker_config, quiet) = (config.docker, common.hides_status());
    let options =
        ReconcileOptions { state, dry_run: is_dry_run, confirm_twice: args.check, docker: docker_config, quiet };
    run_command(docker, as_plugin, common, |endpoint, stop| {
        let reconciled = commands::reconcile::reconcile(endpoint, &options, stop)?;
        let state = &options.state;
        Ok(reconciled.map_or(Exit::Success.into(), |reconciled| report(reconciled, args, state, common, stop)))
    })
}

/// `--check` has nothing to compare with.
#[derive(Debug, thiserror::Error)]
#[error("no state file at {}: there is nothing to compare with the Docker Engine", .0.display())]
struct NoState(PathBuf);

fn report(reconciled: Reconciled, args: &ReconcileArgs, state: &Path, common: &Common, stop: &Stop) -> ExitCode {
    // Without a state, a check must fail, even if the Docker Engine has no containers. Passing would hide a wrong path, or a
    // `watch` that was never started, for good.
    let is_missing = args.check && reconciled.has_no_state;
    let has_failed = is_missing || args.check && !reconciled.is_in_sync();
    // Without a state, the table would only say that everything is new.
    let is_silent = args.check && (!has_failed || is_missing) && args.format == ReportFormat::Table;
    if is_missing {
        let hint = "create it with `reconcile` without --check, or with `watch --resume`";
        hints::fail(&NoState(state.to_owned()), Some(hint), Exit::CheckFailed, common.log_format);
    }
    let lost = commands::lost_notice(&reconciled.plan.lost()).filter(|_| !common.quiet && !reconciled.is_dry_run);
    if let Some(lost) = lost {
        let lost = output::safe(&lost);
        output::notice(common.log_format, &lost, Diagnostic::new(Level::Warn, &lost));
    }
    let (format, details) = (args.format, args.details);
    let written = match is_silent {
        true => Ok(()),
        false => commands::write_report(stop, move || reconciled.write(format, details)),
    };
    match written {
        Ok(()) if has_failed => Exit::CheckFailed.into(),
        Ok(()) => Exit::Success.into(),
        Err(error) => hints::failed(&error, common.log_format),
    }
}

//! The arguments of `pool`, and their conversion to [`PoolOptions`].

use super::hints::{self, Exit};
use super::plugin::DockerFlags;
use super::{Common, LogFormat, at_least_one, one_of, run_command, usage_error};
use crate::commands;
use crate::commands::pool::{Load, PoolOptions, PoolOutcome};
use crate::config::Config;
use crate::config::keys::MAX_CLIENTS;
use crate::docker::Kind;
use crate::output::{self, ReportFormat};
use std::process::ExitCode;

/// Check the connection pool: health, circuit breakers, latency under load
///
/// Opens the pool as all other commands do, checks each of its clients, and reports the results. With `--requests`, it also
/// sends that many pings through the pool, without the configured rate limit. The exit code is 3 if the Docker Engine
/// cannot be reached or no client is healthy.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct PoolArgs {
    /// Number of clients to open, at most 1000 [default: docker.pool.initial_pool_size, which is 2]
    #[arg(long, value_name = "N", value_parser = clients, allow_negative_numbers = true, help_heading = POOL)]
    size: Option<u16>,

    /// Number of requests to send through the pool as a load test
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, allow_negative_numbers = true, conflicts_with = "check", help_heading = POOL)]
    requests: Option<u64>,

    /// Number of these requests in flight at the same time [default: 8]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u16>, allow_negative_numbers = true, requires = "requests", help_heading = POOL)]
    concurrency: Option<u16>,

    /// Print nothing if all clients are healthy; otherwise print one line and exit with 4
    ///
    /// With `--format json`, the report is printed as well.
    #[arg(long, help_heading = POOL)]
    check: bool,

    /// Report format
    #[arg(long, value_name = "FORMAT", value_parser = one_of(super::REPORT_FORMATS), default_value = "table", help_heading = POOL)]
    format: ReportFormat,
}

const POOL: &str = "Pool";

const CONCURRENCY: u16 = 8;

const EXAMPLES: &str = "\
Examples:
  Check the Docker Engine and how fast it responds
    $ docker logwatch pool

  Measure the pool under load
    $ docker logwatch pool --requests 10000 --concurrency 16

  Check from cron, which mails the output: there is none while all is well
    */5 * * * * docker logwatch pool --check";

impl PoolArgs {
    /// Combines the arguments with the configuration.
    fn options(self, common: &Common, mut config: Config) -> PoolOptions {
        if let Some(size) = self.size.map(usize::from) {
            let pool = &mut config.docker.pool;
            pool.initial_size = size;
            pool.min_size = pool.min_size.min(size);
            pool.max_size = pool.max_size.max(size);
        }
        let load = self
            .requests
            .map(|requests| Load { requests, concurrency: usize::from(self.concurrency.unwrap_or(CONCURRENCY)) });
        PoolOptions {
            docker: config.docker,
            load,
            is_check: self.check,
            is_json: self.format == ReportFormat::Json,
            color: common.color(),
            quiet: common.hides_status(),
        }
    }
}

/// Parses a number of clients.
fn clients(text: &str) -> Result<u16, String> {
    let number = at_least_one(text)?;
    if number > MAX_CLIENTS { Err(format!("expected at most {MAX_CLIENTS}")) } else { Ok(number) }
}

/// Runs `pool` and returns its exit code.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, args: PoolArgs, common: &Common) -> ExitCode {
    let config = match common.config(|_| {}) {
        Ok(config) => config,
        Err(message) => return usage_error(&message, common.log_format),
    };
    let options = args.options(common, config);
    let is_check = options.is_check;
    run_command(docker, as_plugin, common, |endpoint, stop| {
        Ok(report(commands::pool::pool(endpoint, options, stop)?, is_check, common.log_format))
    })
}

/// Reports the outcome on stderr, unless the report on stdout already shows it, and returns the exit code.
fn report(outcome: PoolOutcome, is_check: bool, format: LogFormat) -> ExitCode {
    let fail = |status, reason| {
        let exit = if is_check { Exit::CheckFailed } else { Exit::Unreachable };
        hints::fail(&PoolError { status, reason }, None, exit, format)
    };
    match outcome {
        PoolOutcome::Healthy(failed) => {
            // Without `--check`, the report shows the failed check.
            if let Some(failed) = failed.filter(|_| is_check) {
                tracing::warn!("the connection pool is healthy, but a check failed: {}", output::safe(&failed));
            }
            Exit::Success.into()
        }
        PoolOutcome::Degraded(reason) if is_check => fail("degraded", reason),
        // The report shows it.
        PoolOutcome::Degraded(_) => Exit::Success.into(),
        PoolOutcome::Unhealthy(reason) => fail("unhealthy", reason),
        PoolOutcome::Unreachable(error) if error.kind() == Kind::Usage => hints::failed(&error.into(), format),
        PoolOutcome::Unreachable(error) if is_check => fail("unhealthy", error.in_full()),
        PoolOutcome::Unreachable(error) => hints::failed_as(&error.into(), Exit::Unreachable, format),
    }
}

/// `status` is `degraded` or `unhealthy`.
#[derive(Debug, thiserror::Error)]
#[error("the connection pool is {status}: {reason}")]
struct PoolError {
    status: &'static str,
    reason: String,
}

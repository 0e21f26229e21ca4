//! The words of `pool`, turned into [`PoolOptions`].

use super::hints::{self, Exit};
use super::plugin::DockerFlags;
use super::{Common, LogFormat, at_least_one, carry_out, misused, one_of};
use crate::commands;
use crate::commands::pool::{Load, PoolOptions, PoolOutcome};
use crate::config::Config;
use crate::config::keys::MAX_CLIENTS;
use crate::docker::Kind;
use crate::output;
use std::process::ExitCode;

/// Check the connection pool: health, circuit breakers, latency under load
///
/// Opens the pool as every other command does, checks each of its clients, and tells what it found. With `--requests` a
/// load of pings is put through it, without the configured rate limit. Exit code 3 when the engine cannot be reached or no
/// client is healthy.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Pool {
    /// Open so many clients, 1000 at most [default: the configured number, 2]
    #[arg(long, value_name = "N", value_parser = clients, allow_negative_numbers = true, help_heading = POOL)]
    size: Option<u16>,

    /// Put a load of so many requests through the pool
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, allow_negative_numbers = true, conflicts_with = "check", help_heading = POOL)]
    requests: Option<u64>,

    /// So many of them at one time [default: 8]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u16>, allow_negative_numbers = true, requires = "requests", help_heading = POOL)]
    concurrency: Option<u16>,

    /// Say nothing when all is well; else one line, and exit with 4 where clients are unhealthy
    ///
    /// With `--format json` the report is written as well.
    #[arg(long, help_heading = POOL)]
    check: bool,

    /// Form of the report
    #[arg(long, value_name = "FORMAT", value_parser = one_of(FORMATS), default_value = "table", help_heading = POOL)]
    format: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

const FORMATS: &[(&str, &str, Form)] = &[("table", "For people", Form::Table), ("json", "One object", Form::Json)];

const POOL: &str = "Pool";

const CONCURRENCY: u16 = 8;

const EXAMPLES: &str = "\
Examples:
  How well is the engine, and how fast does it answer?
    $ docker logwatch pool

  Under load
    $ docker logwatch pool --requests 10000 --concurrency 16

  From cron, which mails what is said: nothing as long as all is well
    */5 * * * * docker logwatch pool --check";

impl Pool {
    /// What was asked for.
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
            is_json: self.format == Form::Json,
            color: common.color(),
            quiet: common.hides_status(),
        }
    }
}

/// A number of clients.
fn clients(text: &str) -> Result<u16, String> {
    let number = at_least_one(text)?;
    if number > MAX_CLIENTS { Err(format!("at most {MAX_CLIENTS}")) } else { Ok(number) }
}

/// Reads the last of the words and hands over to the engine.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, pool: Pool, common: &Common) -> ExitCode {
    let config = match common.config(|_| {}) {
        Ok(config) => config,
        Err(message) => return misused(&message, common.log_format),
    };
    let options = pool.options(common, config);
    let is_check = options.is_check;
    carry_out(docker, as_plugin, common, |endpoint, stop| {
        Ok(told(commands::pool::pool(endpoint, options, stop)?, is_check, common.log_format))
    })
}

/// What the outcome is worth in words and as a code.
fn told(outcome: PoolOutcome, is_check: bool, format: LogFormat) -> ExitCode {
    let ill = |how, words| {
        let exit = if is_check { Exit::Unmet } else { Exit::Unreachable };
        hints::fail(&Ill(how, words), None, exit, format)
    };
    match outcome {
        PoolOutcome::Healthy(failed) => {
            // A report says it.
            if let Some(failed) = failed.filter(|_| is_check) {
                tracing::warn!("the connection pool is healthy, and yet a check failed: {}", output::safe(&failed));
            }
            Exit::Done.into()
        }
        PoolOutcome::Degraded(words) if is_check => ill("degraded", words),
        // The report says it.
        PoolOutcome::Degraded(_) => Exit::Done.into(),
        PoolOutcome::Unhealthy(words) => ill("unhealthy", words),
        PoolOutcome::Unreachable(error) if error.kind() == Kind::Usage => hints::failed(&error.into(), format),
        PoolOutcome::Unreachable(error) if is_check => ill("unhealthy", error.in_full()),
        PoolOutcome::Unreachable(error) => hints::failed_as(&error.into(), Exit::Unreachable, format),
    }
}

/// How the pool is, and why.
#[derive(Debug, thiserror::Error)]
#[error("the connection pool is {0}: {1}")]
struct Ill(&'static str, String);

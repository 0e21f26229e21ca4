//! The arguments of `events`, and their conversion to [`EventsOptions`].

use super::hints::Exit;
use super::plugin::DockerFlags;
use super::{Common, at_least_one, one_of, run_command, shutdown, time_arg, usage_error};
use crate::commands;
use crate::commands::events::EventsOptions;
use crate::metrics;
use crate::model::selector::{FilterKey, Filters};
use crate::model::time::Timestamp;
use crate::output::OutputFormat;
use prometheus::Registry;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Print the events of the Docker Engine, without gaps
///
/// Prints the same lines and JSON objects as `docker events`. If the daemon or the connection to it is lost, the command
/// reconnects and first prints the events that happened meanwhile, each of them once. If the daemon has already forgotten
/// some, this is reported.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct EventsArgs {
    /// Only events that `docker events --filter` would show; repeatable
    ///
    /// The keys are type, event, container, image, label, volume, network, daemon, scope, plugin, node, service, secret
    /// and config. Values of the same key are alternatives, but an event must have all given labels. Different
    /// keys must all match.
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = EVENTS)]
    filter: Vec<EventFilter>,

    /// Start at this time: `10m` or `1h30m` ago, a date or time, Unix seconds
    ///
    /// A duration counts back from now; one with a minus sign, such as `-5m`, lies ahead. A date or time without a zone is
    /// local. Unix seconds may have a fraction. The daemon remembers only its last 256 events.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = EVENTS)]
    since: Option<Timestamp>,

    /// Exit after the events up to this time, written as for `--since`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = EVENTS)]
    until: Option<Timestamp>,

    /// Exit after N events
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, allow_negative_numbers = true, help_heading = EVENTS)]
    count: Option<u64>,

    /// Exit after this time, with code 4 if `--count` is not reached
    #[arg(long, value_name = "DURATION", value_parser = time_arg::duration, help_heading = EVENTS)]
    timeout: Option<Duration>,

    /// Exit with code 3 if the connection is lost, instead of reconnecting
    #[arg(long, help_heading = EVENTS)]
    no_reconnect: bool,

    /// Output format
    #[arg(long, value_name = "FORMAT", value_parser = one_of(FORMATS), default_value = "text", help_heading = OUTPUT)]
    format: OutputFormat,
}

const EVENTS: &str = "Which events";
const OUTPUT: &str = "Output";

const EXAMPLES: &str = "\
Examples:
  Wait up to two minutes until a container with the label `db` is healthy
    $ docker logwatch events -f label=db -f event='health_status: healthy' --count 1 --timeout 2m

  Alert on containers that ran out of memory or failed
    $ docker logwatch events -f event=oom -f event=die --format json |
        jq 'select(.Actor.Attributes.exitCode != \"0\")'

  Print the volume events of the last hour, as far as the daemon remembers them
    $ docker logwatch events -f type=volume --since 1h --until 0s";

const FORMATS: &[(&str, &str, OutputFormat)] = &[
    ("text", "The line that `docker events` prints", OutputFormat::Text),
    ("json", "The object that `docker events --format '{{json .}}'` prints", OutputFormat::Json),
];

/// The keys of `--filter`: those that dockerd evaluates (moby `daemon/events/filter.go`).
pub(super) const KEYS: &[FilterKey] = &[
    FilterKey { name: "type", help: "Type of object", values: &metrics::events::TYPES },
    FilterKey { name: "event", help: "What happened", values: &[] },
    FilterKey { name: "container", help: "Container name or ID", values: &[] },
    FilterKey { name: "image", help: "Image name or ID", values: &[] },
    FilterKey { name: "label", help: "Label `key` or `key=value`", values: &[] },
    FilterKey { name: "volume", help: "Volume name", values: &[] },
    FilterKey { name: "network", help: "Network name or ID", values: &[] },
    FilterKey { name: "daemon", help: "Daemon name or ID", values: &[] },
    FilterKey { name: "scope", help: "Engine or swarm", values: &["local", "swarm"] },
    FilterKey { name: "plugin", help: "Plugin name or ID", values: &[] },
    FilterKey { name: "node", help: "Node name or ID", values: &[] },
    FilterKey { name: "service", help: "Service name or ID", values: &[] },
    FilterKey { name: "secret", help: "Secret name or ID", values: &[] },
    FilterKey { name: "config", help: "Config name or ID", values: &[] },
];

/// One `--filter` of `docker events`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EventFilter {
    key: &'static str,
    value: String,
}

impl FromStr for EventFilter {
    type Err = String;

    /// Accepts spaces around the key and value and capitals in the key, as docker does (docker/cli `opts/opts.go`:
    /// FilterOpt). Unknown keys and values are refused here, because dockerd does not: it ignores an unknown key and sends
    /// all events, and for an unknown value it never sends any.
    fn from_str(text: &str) -> Result<Self, String> {
        let keys = || KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
        let pair = text.split_once('=').map(|(key, value)| (key.trim().to_lowercase(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, value)| !key.is_empty() && !value.is_empty()) else {
            return Err(format!("expected KEY=VALUE with one of the keys {}", keys()));
        };
        match KEYS.iter().find(|known| known.name == key) {
            Some(known) if !known.values.is_empty() && !known.values.contains(&value) => {
                Err(format!("`{key}` cannot be `{value}`: expected one of {}", known.values.join(", ")))
            }
            Some(known) => Ok(EventFilter { key: known.name, value: value.to_owned() }),
            None => Err(format!("unknown filter `{key}`: expected one of {}", keys())),
        }
    }
}

impl EventsArgs {
    /// Combines the arguments with the configuration. The error is one line per problem.
    pub(super) fn options(self, common: &Common) -> Result<EventsOptions, String> {
        time_arg::check_range(self.since, self.until)?;
        let mut filters = Filters::new();
        for EventFilter { key, value } in self.filter {
            filters.entry(key.to_owned()).or_default().push(value);
        }
        let config = common.config(|_| {})?;
        Ok(EventsOptions {
            filters,
            since: self.since,
            until: self.until,
            count: self.count,
            timeout: self.timeout,
            reconnect: !self.no_reconnect,
            format: self.format,
            quiet: common.quiet,
            log_format: common.log_format,
            docker: config.docker,
            config: config.events,
            metrics: metrics::EventMetrics::new(&Registry::new()).map_err(|error| error.to_string())?,
        })
    }
}

/// Runs `events` and returns its exit code.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, args: EventsArgs, common: &Common) -> ExitCode {
    match args.options(common) {
        Ok(options) => run_command(docker, as_plugin, common, |endpoint, stop| {
            shutdown::stop_without_reader(stop.clone())?;
            commands::events::events(endpoint, options, stop).map(|()| Exit::Success.into())
        }),
        Err(message) => usage_error(&message, common.log_format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Commands, command};
    use clap::FromArgMatches;

    fn try_options(args: &[&str]) -> Result<EventsOptions, String> {
        let matches = command(true).no_binary_name(true).try_get_matches_from([&["events"], args].concat());
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| error.to_string())?;
        let Commands::Events(args) = cli.command else { panic!("another command") };
        args.options(&cli.common)
    }

    #[test]
    fn without_options_all_new_events_are_printed_as_text() {
        let options = try_options(&[]).unwrap();
        assert_eq!((options.filters, options.since, options.until), (Filters::new(), None, None));
        assert_eq!((options.count, options.timeout, options.reconnect), (None, None, true));
        assert_eq!((options.format, options.quiet), (OutputFormat::Text, false));
    }

    #[test]
    fn each_argument_sets_its_option() {
        let future = try_options(&["--since", "0s", "--until", "-1m"]).unwrap();
        assert!(future.since < future.until);
        let line = "-f type=container --filter TYPE=volume -f label=a=b -f label=c --since 100.5 --until 200 --count 3 \
                    --timeout 1m30s --no-reconnect --format json -q";
        let mut args: Vec<&str> = line.split_whitespace().collect();
        args.extend(["-f", " event = health_status: healthy "]);
        let options = try_options(&args).unwrap();
        let filters: Vec<String> =
            options.filters.iter().map(|(key, values)| format!("{key} {}", values.join("|"))).collect();
        assert_eq!(filters, ["event health_status: healthy", "label a=b|c", "type container|volume"]);
        assert_eq!(
            (options.since, options.until),
            (Some(Timestamp(100_500_000_000)), Some(Timestamp(200_000_000_000)))
        );
        assert_eq!((options.count, options.timeout), (Some(3), Some(Duration::from_secs(90))));
        assert_eq!((options.reconnect, options.format, options.quiet), (false, OutputFormat::Json, true));
    }

    #[test]
    fn invalid_arguments_are_refused_in_one_line() {
        let keys = "type, event, container, image, label, volume, network, daemon, scope, plugin, node, service, secret, \
                    config";
        let filter = |value: &str, reason: &str| {
            format!("error: invalid value '{value}' for '--filter <KEY=VALUE>': {reason} {keys}")
        };
        let count = |value: &str| {
            format!("error: invalid value '{value}' for '--count <N>': expected a whole number, at least 1")
        };
        for (args, expected) in [
            (&["-f", "name=web"][..], filter("name=web", "unknown filter `name`: expected one of")),
            (&["-f", "web"], filter("web", "expected KEY=VALUE with one of the keys")),
            (&["-f", "type="], filter("type=", "expected KEY=VALUE with one of the keys")),
            (&["-f", "=x"], filter("=x", "expected KEY=VALUE with one of the keys")),
            (
                &["-f", "type=containers"],
                "error: invalid value 'type=containers' for '--filter <KEY=VALUE>': `type` cannot be `containers`: \
                 expected one of builder, config, container, daemon, image, network, node, plugin, secret, service, volume"
                    .into(),
            ),
            (
                &["-f", "scope=global"],
                "error: invalid value 'scope=global' for '--filter <KEY=VALUE>': `scope` cannot be `global`: expected one of local, swarm"
                    .into(),
            ),
            (&["--count", "0"], count("0")),
            (&["--count", "-1"], count("-1")),
            (&["--count", "18446744073709551616"], count("18446744073709551616")),
            (&["--count", "few"], count("few")),
            (
                &["--timeout", "5"],
                "error: invalid value '5' for '--timeout <DURATION>': expected a duration greater than zero: `500ms`, `30s`, `5m`, `1h`"
                    .into(),
            ),
            (
                &["--since", "100", "--until", "50"],
                "`--since` (1970-01-01T00:01:40.000000000Z) is later than `--until` (1970-01-01T00:00:50.000000000Z)"
                    .into(),
            ),
        ] {
            let error = try_options(args).unwrap_err();
            assert_eq!(error.lines().next(), Some(&*expected), "{args:?}");
        }
    }
}

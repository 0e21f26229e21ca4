//! The words of `events`, turned into [`EventsOptions`].

use super::hints::Exit;
use super::plugin::DockerFlags;
use super::{Common, at_least_one, carry_out, misused, one_of, shutdown, time_arg};
use crate::commands;
use crate::commands::events::EventsOptions;
use crate::metrics;
use crate::model::selector::{FilterKey, Filters};
use crate::model::time::Timestamp;
use crate::output::Format;
use prometheus::Registry;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Print the engine's events, without gaps
///
/// The lines are those of `docker events`, and so are the JSON objects. When the engine or the way to it is gone, it is
/// tried again, and what happened meanwhile is told first, each event once. What the engine no longer remembers is said.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Events {
    /// Only events that `docker events --filter` would show
    ///
    /// The keys are type, event, container, image, label, volume, network, daemon, scope, plugin, node, service, secret
    /// and config. Values of one key are alternatives, but each label must be there; different keys must all hold.
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = EVENTS)]
    filter: Vec<Filter>,

    /// Events from here on: `10m`, `1h30m`, a date or time, Unix seconds
    ///
    /// A span counts back from now. A date or time without a zone is local. Unix seconds may have a fraction. The engine
    /// remembers its last 256 events.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = EVENTS)]
    since: Option<Timestamp>,

    /// Events up to here, written as for `--since`; then exit
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = EVENTS)]
    until: Option<Timestamp>,

    /// Exit after so many events
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, allow_negative_numbers = true, help_heading = EVENTS)]
    count: Option<u64>,

    /// Exit after so long; with `--count` not reached the exit code is 4
    #[arg(long, value_name = "SPAN", value_parser = time_arg::span_of_time, help_heading = EVENTS)]
    timeout: Option<Duration>,

    /// Exit with code 3 when the stream is lost, instead of going on when it is back
    #[arg(long, help_heading = EVENTS)]
    no_reconnect: bool,

    /// Form of a line
    #[arg(long, value_name = "FORMAT", value_parser = one_of(FORMATS), default_value = "text", help_heading = OUTPUT)]
    format: Format,
}

const EVENTS: &str = "Which events";
const OUTPUT: &str = "Output";

const EXAMPLES: &str = "\
Examples:
  Wait until a container with the label `db` is healthy, for two minutes at most
    $ docker logwatch events -f label=db -f event='health_status: healthy' --count 1 --timeout 2m

  Alert on containers that ran out of memory or failed
    $ docker logwatch events -f event=oom -f event=die --format json |
        jq 'select(.Actor.Attributes.exitCode != \"0\")'

  What happened to volumes in the last hour, as far as the engine remembers
    $ docker logwatch events -f type=volume --since 1h --until 0s";

const FORMATS: &[(&str, &str, Format)] = &[
    ("text", "The line that `docker events` prints", Format::Text),
    ("json", "The object of `docker events --format '{{json .}}'`", Format::Json),
];

/// The keys of `--filter`: those that the engine evaluates (moby `daemon/events/filter.go`).
pub(super) const KEYS: &[FilterKey] = &[
    FilterKey { name: "type", help: "Type of object", values: &metrics::events::TYPES },
    FilterKey { name: "event", help: "What happened", values: &[] },
    FilterKey { name: "container", help: "Container name or ID", values: &[] },
    FilterKey { name: "image", help: "Image name or ID", values: &[] },
    FilterKey { name: "label", help: "Label `key` or `key=value`", values: &[] },
    FilterKey { name: "volume", help: "Volume name", values: &[] },
    FilterKey { name: "network", help: "Network name or ID", values: &[] },
    FilterKey { name: "daemon", help: "Engine name or ID", values: &[] },
    FilterKey { name: "scope", help: "Engine or swarm", values: &["local", "swarm"] },
    FilterKey { name: "plugin", help: "Plugin name or ID", values: &[] },
    FilterKey { name: "node", help: "Node name or ID", values: &[] },
    FilterKey { name: "service", help: "Service name or ID", values: &[] },
    FilterKey { name: "secret", help: "Secret name or ID", values: &[] },
    FilterKey { name: "config", help: "Config name or ID", values: &[] },
];

/// A pair as docker takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    key: &'static str,
    value: String,
}

impl FromStr for Filter {
    type Err = String;

    /// Blanks and capitals in the key are forgiven as docker forgives them (docker/cli `opts/opts.go`: FilterOpt). The
    /// engine passes over a key that it does not know, and would show everything; with a value that it does not know, it
    /// would show nothing for ever.
    fn from_str(text: &str) -> Result<Self, String> {
        let keys = || KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
        let pair = text.split_once('=').map(|(key, value)| (key.trim().to_lowercase(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, value)| !key.is_empty() && !value.is_empty()) else {
            return Err(format!("expected KEY=VALUE, KEY being one of {}", keys()));
        };
        match KEYS.iter().find(|known| known.name == key) {
            Some(known) if !known.values.is_empty() && !known.values.contains(&value) => {
                Err(format!("`{key}` cannot be `{value}`, only {}", known.values.join(", ")))
            }
            Some(known) => Ok(Filter { key: known.name, value: value.to_owned() }),
            None => Err(format!("no filter is called `{key}`; there are {}", keys())),
        }
    }
}

impl Events {
    /// What was asked for; a pair of flags that cannot both hold is told in a sentence.
    pub fn options(self, common: &Common) -> Result<EventsOptions, String> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return Err(format!("nothing lies between: --since is {since}, --until is {until}"));
        }
        let mut filters = Filters::new();
        for Filter { key, value } in self.filter {
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

/// Reads the last of the words and hands over to the engine.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, events: Events, common: &Common) -> ExitCode {
    match events.options(common) {
        Ok(options) => carry_out(docker, as_plugin, common, |endpoint, stop| {
            shutdown::heed_reader(stop.clone())?;
            commands::events::events(endpoint, options, stop).map(|()| Exit::Done.into())
        }),
        Err(message) => misused(&message, common.log_format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb, command};
    use clap::FromArgMatches;

    fn try_options(words: &[&str]) -> Result<EventsOptions, String> {
        let matches = command(true).no_binary_name(true).try_get_matches_from([&["events"], words].concat());
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| error.to_string())?;
        let Verb::Events(events) = cli.verb else { panic!("another verb") };
        events.options(&cli.common)
    }

    #[test]
    fn without_flags_all_events_from_now_on_are_printed_as_text() {
        let asked = try_options(&[]).unwrap();
        assert_eq!((asked.filters, asked.since, asked.until), (Filters::new(), None, None));
        assert_eq!((asked.count, asked.timeout, asked.reconnect), (None, None, true));
        assert_eq!((asked.format, asked.quiet), (Format::Text, false));
    }

    #[test]
    fn every_flag_reaches_its_option() {
        let ahead = try_options(&["--since", "0s", "--until", "-1m"]).unwrap();
        assert!(ahead.since < ahead.until);
        let line = "-f type=container --filter TYPE=volume -f label=a=b -f label=c --since 100.5 --until 200 --count 3 \
                    --timeout 1m30s --no-reconnect --format json -q";
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.extend(["-f", " event = health_status: healthy "]);
        let asked = try_options(&words).unwrap();
        let told: Vec<String> =
            asked.filters.iter().map(|(key, values)| format!("{key} {}", values.join("|"))).collect();
        assert_eq!(told, ["event health_status: healthy", "label a=b|c", "type container|volume"]);
        assert_eq!((asked.since, asked.until), (Some(Timestamp(100_500_000_000)), Some(Timestamp(200_000_000_000))));
        assert_eq!((asked.count, asked.timeout), (Some(3), Some(Duration::from_secs(90))));
        assert_eq!((asked.reconnect, asked.format, asked.quiet), (false, Format::Json, true));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_one_line() {
        let keys = "type, event, container, image, label, volume, network, daemon, scope, plugin, node, service, secret, \
                    config";
        let filter = |value: &str, reason: &str| {
            format!("error: invalid value '{value}' for '--filter <KEY=VALUE>': {reason} {keys}")
        };
        let count = |value: &str| {
            format!("error: invalid value '{value}' for '--count <N>': expected a whole number, at least 1")
        };
        for (words, expected) in [
            (&["-f", "name=web"][..], filter("name=web", "no filter is called `name`; there are")),
            (&["-f", "web"], filter("web", "expected KEY=VALUE, KEY being one of")),
            (&["-f", "type="], filter("type=", "expected KEY=VALUE, KEY being one of")),
            (&["-f", "=x"], filter("=x", "expected KEY=VALUE, KEY being one of")),
            (
                &["-f", "type=containers"],
                "error: invalid value 'type=containers' for '--filter <KEY=VALUE>': `type` cannot be `containers`, only \
                 builder, config, container, daemon, image, network, node, plugin, secret, service, volume"
                    .into(),
            ),
            (
                &["-f", "scope=global"],
                "error: invalid value 'scope=global' for '--filter <KEY=VALUE>': `scope` cannot be `global`, only local, swarm"
                    .into(),
            ),
            (&["--count", "0"], count("0")),
            (&["--count", "-1"], count("-1")),
            (&["--count", "18446744073709551616"], count("18446744073709551616")),
            (&["--count", "few"], count("few")),
            (
                &["--timeout", "5"],
                "error: invalid value '5' for '--timeout <SPAN>': expected a span longer than none: `500ms`, `30s`, `5m`, `1h`"
                    .into(),
            ),
            (
                &["--since", "100", "--until", "50"],
                "nothing lies between: --since is 1970-01-01T00:01:40.000000000Z, --until is 1970-01-01T00:00:50.000000000Z"
                    .into(),
            ),
        ] {
            let error = try_options(words).unwrap_err();
            assert_eq!(error.lines().next(), Some(&*expected), "{words:?}");
        }
    }
}

//! The arguments of `watch`, and their conversion to [`WatchOptions`].

use super::hints::Exit;
use super::plugin::DockerFlags;
use super::{Common, name, one_of, run_command, shutdown, state, time_arg, usage_error};
use crate::commands;
use crate::commands::watch::WatchOptions;
use crate::commands::watch::resume::Resume;
use crate::config::value::{self, LISTEN_ADDRESSES, SIZES};
use crate::config::{self, Config, Layers, Source};
use crate::model::line_id::Stream;
use crate::model::selector::{self, Filter, Glob, Pattern, Selector};
use crate::model::time::Timestamp;
use crate::output::{Ansi, OutputFormat, PrinterSettings};
use clap::ValueHint;
use regex::bytes::Regex;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Follow the logs of every matching container, including those that start later
///
/// Prints every line once, in the order in which its container wrote it, even if the log is rotated, the Docker Engine
/// restarts or the container is removed meanwhile. Stopped containers are included if they are named, or with `--all`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// Name, ID prefix or glob such as `web-*` [default: all containers]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<Pattern>,

    /// Only containers that `docker ps --filter` would list; repeatable
    ///
    /// The keys are name, id, label, ancestor, status, network, volume, health, before, since, exited, expose, publish and
    /// is-task. Values of the same key are alternatives, but a container must have all given labels. Different keys must
    /// all match. As with `docker ps`, exited containers are only included with `--all`, or if `status` asks for them.
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = SELECTION)]
    filter: Vec<Filter>,

    /// Only containers of this Compose project; repeatable
    #[arg(short, long, value_name = "PROJECT", value_parser = name, help_heading = SELECTION)]
    project: Vec<String>,

    /// Only containers of this Compose service; repeatable
    #[arg(long, value_name = "SERVICE", value_parser = name, help_heading = SELECTION)]
    service: Vec<String>,

    /// Exclude containers whose name matches; repeatable
    #[arg(short = 'E', long, value_name = "GLOB", help_heading = SELECTION)]
    exclude_container: Vec<Glob>,

    /// Include the history of stopped containers
    #[arg(short, long, help_heading = SELECTION)]
    all: bool,

    /// Start at this time: `10m` or `1h30m` ago, a date or time, Unix seconds
    ///
    /// A duration counts back from now; one with a minus sign, such as `-5m`, lies ahead. A date or time without a zone is
    /// local. Unix seconds may have a fraction.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = READING)]
    since: Option<Timestamp>,

    /// Exit after the lines up to this time, written as for `--since`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = READING)]
    until: Option<Timestamp>,

    /// Lines of history, or `all` [default: 10; all with `--since`, `--no-follow` or `--resume`]
    ///
    /// This applies to each container. A container that starts later is always read from its first line.
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, allow_negative_numbers = true, help_heading = READING)]
    tail: Option<TailLines>,

    /// Exit at the end of the logs instead of following them
    #[arg(long, help_heading = READING)]
    no_follow: bool,

    /// Stream to print
    #[arg(long, value_name = "STREAM", value_parser = one_of(STREAMS), default_value = "all", help_heading = READING)]
    stream: StreamChoice,

    /// Print only lines whose message matches; repeatable, one match is enough
    #[arg(short, long, value_name = "REGEX", value_parser = regex, allow_hyphen_values = true, help_heading = READING)]
    include: Vec<Regex>,

    /// Omit lines whose message matches; repeatable
    #[arg(short = 'e', long, value_name = "REGEX", value_parser = regex, allow_hyphen_values = true, help_heading = READING)]
    exclude: Vec<Regex>,

    /// How to read containers [default: auto]
    #[arg(long, value_name = "ROUTE", value_parser = one_of(SOURCES), help_heading = READING)]
    source: Option<Source>,

    /// How often `--source rotate` renews each stream [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = time_arg::duration, help_heading = READING, hide_short_help = true)]
    rotate_interval: Option<Duration>,

    /// How often `--source poll` reads each container [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = time_arg::duration, help_heading = READING, hide_short_help = true)]
    poll_interval: Option<Duration>,

    /// Split longer messages into several records [default: 1MiB]
    ///
    /// `64k` and `64kB` are 64,000 bytes, `64KiB` is 65,536; a plain number is in bytes. In JSON, each
    /// piece is marked `"partial":true`.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = READING, hide_short_help = true)]
    max_line_size: Option<usize>,

    /// Show which containers match and how each would be read, then exit
    ///
    /// Also points out containers whose logging options can lose lines.
    #[arg(long, help_heading = READING)]
    dry_run: bool,

    /// Output format
    #[arg(long, value_name = "FORMAT", value_parser = one_of(FORMATS), default_value = "text", help_heading = OUTPUT)]
    format: OutputFormat,

    /// Start each line with its timestamp
    #[arg(short, long, help_heading = OUTPUT)]
    timestamps: bool,

    /// Add labels, networks and state to records; requires `--format json`
    #[arg(long, help_heading = OUTPUT)]
    metadata: bool,

    /// Add lifecycle records (start, die, ...); requires `--format json`
    #[arg(long, help_heading = OUTPUT)]
    lifecycle: bool,

    /// What to do with escape sequences in messages
    #[arg(
        long, value_name = "MODE", value_parser = one_of(ANSI), default_value = "auto", help_heading = OUTPUT,
        hide_short_help = true
    )]
    ansi: Ansi,

    /// Append to FILE instead of printing to stdout
    ///
    /// A new FILE is readable only by its owner. If FILE is removed or moved away, as logrotate does, the next line starts
    /// a new FILE with the same owner and permissions, and no line is in both. `-` means stdout.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    output: Option<PathBuf>,

    /// Continue where the last run with this name stopped [default name: default]
    ///
    /// Containers that are new to this name are read from their first line, and those that stopped meanwhile to their end.
    /// Positions are saved once the lines are written. With `-o FILE`, every line is in FILE exactly once, even after a
    /// crash: the next run completes what a killed one left, and no complete line is ever removed from FILE. After a power
    /// failure, half a record at the end is moved to FILE.damaged. On stdout, the last lines may be repeated after a crash.
    #[arg(
        long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "default",
        help_heading = OUTPUT
    )]
    resume: Option<String>,

    /// Serve Prometheus metrics and health checks at this address
    ///
    /// For example, `--listen 127.0.0.1:8519` serves `/metrics`, `/api/v1/health` and `/api/v1/health/events`. An IPv6
    /// address needs brackets. Port 0 selects a free port, which is printed even with `-q`. An empty value turns off the
    /// address of the configuration.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address, help_heading = OUTPUT, hide_short_help = true)]
    listen: Option<String>,
}

const SELECTION: &str = "Selection";
const READING: &str = "What to read";
const OUTPUT: &str = "Output";

const EXAMPLES: &str = "\
Examples:
  Follow all running containers, and those that start later
    $ docker logwatch watch

  Print the errors of a Compose project in the last hour, then exit
    $ docker logwatch watch -p shop --since 1h --no-follow -i '(?i)error|panic'

  Append JSON records of all web containers but one to a file
    $ docker logwatch watch 'web-*' -E web-canary --format json -o web.jsonl

`--source`, both intervals, `--max-line-size` and `--listen` can also be set in logwatch.yaml, see `--config-file`.";

const DEFAULT_TAIL: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TailLines {
    All,
    Last(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamChoice {
    All,
    Only(Stream),
}

const STREAMS: &[(&str, &str, StreamChoice)] = &[
    ("stdout", "Standard output only", StreamChoice::Only(Stream::Stdout)),
    ("stderr", "Standard error only", StreamChoice::Only(Stream::Stderr)),
    ("all", "Both", StreamChoice::All),
];

const SOURCES: &[(&str, &str, Source)] = &[
    ("auto", "The log file if it can be opened, otherwise an API stream", Source::Auto),
    ("file", "Log files only", Source::File),
    ("stream", "One long API stream per container", Source::Stream),
    ("rotate", "API streams that are renewed every `--rotate-interval`", Source::Rotate),
    ("poll", "API requests every `--poll-interval`", Source::Poll),
];

const FORMATS: &[(&str, &str, OutputFormat)] = &[
    ("text", "`NAME | MESSAGE`, aligned, in colour on a terminal", OutputFormat::Text),
    ("json", "One JSON object per line", OutputFormat::Json),
    ("raw", "The message only", OutputFormat::Raw),
];

const ANSI: &[(&str, &str, Ansi)] = &[
    ("auto", "On a terminal, show them as text, except colours; otherwise keep them", Ansi::Auto),
    ("keep", "Keep them", Ansi::Keep),
    ("strip", "Remove them", Ansi::Strip),
];

impl WatchArgs {
    /// Combines the arguments with the configuration. The error is one line per problem, for instance two options
    /// that exclude each other.
    pub(super) fn options(self, common: &Common) -> Result<WatchOptions, String> {
        time_arg::check_range(self.since, self.until)?;
        self.check_format()?;
        let config = common.config(|layers| self.add_flags(layers))?;
        let interval = self.interval(&config.watch)?;
        Ok(WatchOptions {
            all: self.all,
            since: self.since,
            until: self.until,
            tail: self.tail_lines(),
            follow: !self.no_follow,
            source: config.watch.source,
            interval,
            lock_base: state(&config).ok(),
            max_line_size: config.watch.max_line_size,
            metadata_cache_ttl: config.watch.metadata_cache_ttl,
            resume: self.resume(&config)?,
            inventory: self.inventory(&config)?,
            listen: config.listen,
            dry_run: self.dry_run,
            output: self.settings(common),
            docker: config.docker,
            events: config.events,
            selector: Selector {
                names: self.containers,
                exclude: self.exclude_container,
                projects: self.project,
                services: self.service,
                filters: self.filter,
            },
        })
    }

    /// Refuses options that have no effect with the output format: they are given by mistake.
    fn check_format(&self) -> Result<(), String> {
        let is_json = self.format == OutputFormat::Json;
        if let Some(flag) = [("--metadata", self.metadata), ("--lifecycle", self.lifecycle)]
            .into_iter()
            .find_map(|(flag, is_given)| (is_given && !is_json).then_some(flag))
        {
            return Err(format!("`{flag}` requires `--format json`"));
        }
        if self.timestamps && is_json {
            return Err("`--timestamps` has no effect with `--format json`: each record has its time".to_owned());
        }
        Ok(())
    }

    /// Adds the options that override a configuration key.
    fn add_flags(&self, layers: &mut Layers) {
        if let Some(source) = self.source {
            layers.flag("watch.source", "--source", |config| config.watch.source = source);
        }
        if let Some(interval) = self.rotate_interval {
            layers.flag("watch.rotate_interval", "--rotate-interval", |config| config.watch.rotate_interval = interval);
        }
        if let Some(interval) = self.poll_interval {
            layers.flag("watch.poll_interval", "--poll-interval", |config| config.watch.poll_interval = interval);
        }
        if let Some(size) = self.max_line_size {
            layers.flag("watch.max_line_size", "--max-line-size", |config| config.watch.max_line_size = size);
        }
        if let Some(address) = &self.listen {
            let address = Some(address.clone()).filter(|address| !address.is_empty());
            layers.flag("metrics.listen", "--listen", |config| config.listen = address);
        }
    }

    /// The time from one API request to the next. Refuses the interval of a route that is not taken: it
    /// is given by mistake.
    fn interval(&self, watch: &config::WatchConfig) -> Result<Duration, String> {
        for (flag, given, route, source) in [
            ("--rotate-interval", self.rotate_interval, "rotate", Source::Rotate),
            ("--poll-interval", self.poll_interval, "poll", Source::Poll),
        ] {
            if given.is_some() && watch.source != source {
                return Err(format!("`{flag}` requires `--source {route}`"));
            }
        }
        Ok(if watch.source == Source::Poll { watch.poll_interval } else { watch.rotate_interval })
    }

    /// Lines of history to print; `None` means all.
    fn tail_lines(&self) -> Option<u64> {
        match self.tail {
            Some(TailLines::All) => None,
            Some(TailLines::Last(lines)) => Some(lines),
            None if self.no_follow || self.since.is_some() || self.resume.is_some() => None,
            None => Some(DEFAULT_TAIL),
        }
    }

    fn resume(&self, config: &Config) -> Result<Option<Resume>, String> {
        let Some(name) = self.resume.clone() else { return Ok(None) };
        let state = state(config)?;
        Ok(Some(Resume { state, name }))
    }

    /// The state file whose inventory is kept up to date: only if the user asked for a state file, by its
    /// path or with `--resume`.
    fn inventory(&self, config: &Config) -> Result<Option<PathBuf>, String> {
        let is_wanted = self.resume.is_some() || config.state.is_some();
        is_wanted.then(|| state(config)).transpose()
    }

    fn settings(&self, common: &Common) -> PrinterSettings {
        PrinterSettings {
            format: self.format,
            timestamps: self.timestamps,
            metadata: self.metadata,
            lifecycle: self.lifecycle,
            ansi: self.ansi,
            color: common.color(),
            stream: match self.stream {
                StreamChoice::All => None,
                StreamChoice::Only(stream) => Some(stream),
            },
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            file: self.output.clone().filter(|path| path.as_os_str() != "-"),
            quiet: common.quiet,
            log_format: common.log_format,
        }
    }
}

fn tail(text: &str) -> Result<TailLines, String> {
    match text {
        "all" => Ok(TailLines::All),
        // `docker logs` takes negative numbers as all, too.
        number if number.parse::<i64>().is_ok_and(|number| number < 0) => Ok(TailLines::All),
        number => number.parse().map(TailLines::Last).map_err(|_| "expected a number of lines or `all`".to_owned()),
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| selector::reason(&error))
}

/// Parses `host:port`, or an empty value, which overrides a configured address with none.
fn listen_address(text: &str) -> Result<String, String> {
    let is_valid = text.is_empty() || value::is_listen_address(text);
    is_valid.then(|| text.to_owned()).ok_or_else(|| format!("expected {LISTEN_ADDRESSES}"))
}

fn size(text: &str) -> Result<usize, String> {
    value::size(text).ok_or_else(|| format!("expected a number of bytes: {SIZES}"))
}

/// Runs `watch` and returns its exit code.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, args: WatchArgs, common: &Common) -> ExitCode {
    match args.options(common) {
        Ok(options) => run_command(docker, as_plugin, common, |endpoint, stop| {
            if options.output.file.is_none() {
                shutdown::stop_without_reader(stop.clone())?;
            }
            commands::watch::watch(endpoint, options, stop).map(|()| Exit::Success.into())
        }),
        Err(message) => usage_error(&message, common.log_format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Commands, command};
    use crate::output::When;
    use clap::FromArgMatches;

    fn try_options(line: &str) -> Result<WatchOptions, String> {
        let args = line.split_whitespace();
        let matches = command(true).no_binary_name(true).try_get_matches_from(["watch"].into_iter().chain(args));
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| error.to_string())?;
        let Commands::Watch(args) = cli.command else { panic!("another command") };
        args.options(&cli.common)
    }

    fn options(line: &str) -> WatchOptions {
        try_options(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn without_options_all_containers_are_followed_from_ten_lines_back() {
        let WatchOptions {
            selector,
            all,
            since,
            until,
            tail,
            follow,
            source,
            interval,
            max_line_size,
            dry_run,
            output,
            resume,
            docker,
            metadata_cache_ttl,
            listen,
            events,
            inventory,
            lock_base,
        } = options("--color never");
        assert_eq!((resume, listen, metadata_cache_ttl), (None, None, Duration::from_secs(300)));
        assert_eq!((docker, events), (config::DockerConfig::default(), config::EventsConfig::default()));
        assert_eq!(inventory, None);
        assert!(lock_base.is_none_or(|state| state.ends_with("docker-logwatch/state.db")));
        assert!(selector.names.is_empty() && selector.filters.is_empty() && selector.exclude.is_empty());
        assert_eq!((all, since, until, tail, follow, dry_run), (false, None, None, Some(10), true, false));
        assert_eq!((source, interval, max_line_size), (Source::Auto, Duration::from_secs(30), 1_048_576));
        assert_eq!((output.format, output.ansi, output.stream), (OutputFormat::Text, Ansi::Auto, None));
        assert_eq!((output.timestamps, output.metadata, output.lifecycle, output.quiet), (false, false, false, false));
        assert_eq!((output.color, output.file), (When::Never, None));
        assert!(output.include.is_empty() && output.exclude.is_empty());
    }

    #[test]
    fn tail_defaults_to_ten_or_to_all() {
        for (line, tail) in [
            ("", Some(10)),
            ("--until 1h", Some(10)),
            ("--no-follow", None),
            ("--since 1h", None),
            ("--since 1h --no-follow", None),
            ("--resume --state s", None),
            ("--tail all", None),
            ("-n -1", None),
            ("-n 0", Some(0)),
            ("-n 5", Some(5)),
            ("-n 5 --no-follow", Some(5)),
            ("--tail=7 --since 1h", Some(7)),
        ] {
            assert_eq!(options(line).tail, tail, "{line:?}");
        }
    }

    #[test]
    fn each_argument_sets_its_option() {
        let watch = options(
            "web-* db -f status=running -f label=a=b -p shop -p blog --service web -E x -E y -a --since 100.5 --until 200 \
             --no-follow --stream stderr -i a -i b -e c --source file --max-line-size 64KiB --dry-run --format json \
             --metadata --lifecycle --ansi strip -o out.log --color always -q",
        );
        let Selector { names, exclude, projects, services, filters } = watch.selector;
        assert_eq!((names.len(), exclude.len(), filters.len()), (2, 2, 2));
        assert_eq!((projects, services), (vec!["shop".to_owned(), "blog".into()], vec!["web".to_owned()]));
        assert_eq!((watch.since, watch.until), (Some(Timestamp(100_500_000_000)), Some(Timestamp(200_000_000_000))));
        assert_eq!((watch.all, watch.follow, watch.dry_run), (true, false, true));
        assert_eq!((watch.source, watch.max_line_size), (Source::File, 65_536));
        let output = watch.output;
        assert_eq!(
            (output.format, output.ansi, output.stream),
            (OutputFormat::Json, Ansi::Strip, Some(Stream::Stderr))
        );
        assert_eq!((output.timestamps, output.metadata, output.lifecycle, output.quiet), (false, true, true, true));
        assert!(options("-t --format raw").output.timestamps);
        assert_eq!((output.color, output.file), (When::Always, Some("out.log".into())));
        let patterns = |regexes: &[Regex]| regexes.iter().map(Regex::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!((patterns(&output.include), patterns(&output.exclude)), ("a b".into(), "c".into()));
    }

    #[test]
    fn resume_has_a_name_a_state_and_full_history() {
        for (line, name, tail) in [
            ("--resume --state s", "default", None),
            ("--resume=web --state s", "web", None),
            ("--resume=web --state s -n 5", "web", Some(5)),
        ] {
            let WatchOptions { resume, tail: lines, inventory, .. } = options(line);
            assert_eq!(inventory, Some("s".into()), "{line}");
            assert_eq!((resume, lines), (Some(Resume { state: "s".into(), name: name.into() }), tail), "{line}");
        }
        assert_eq!(
            options("--resume").resume.map(|resume| resume.state.ends_with("docker-logwatch/state.db")),
            Some(true)
        );
    }

    #[test]
    fn options_override_the_configuration_only_if_given() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file.yaml");
        let text = "watch: {source: poll, poll_interval: 7s, max_line_size: 2KiB}\nstate: {path: /f}\nmetrics: {listen: 'h:1'}\n";
        std::fs::write(&file, text).unwrap();
        let with_file = |line: &str| options(&format!("--config-file {} {line}", file.display()));
        let values = |options: &WatchOptions| {
            let state = options.resume.as_ref().map(|resume| resume.state.display().to_string());
            (options.source, options.interval.as_secs(), options.max_line_size, state)
        };
        assert_eq!(values(&with_file("--resume")), (Source::Poll, 7, 2048, Some("/f".into())));
        let flags = "--resume --source rotate --rotate-interval 9s --max-line-size 5 --state /g";
        assert_eq!(values(&with_file(flags)), (Source::Rotate, 9, 5, Some("/g".into())));
        assert_eq!(values(&with_file("--poll-interval 1s")), (Source::Poll, 1, 2048, None));
        let listen = |line: &str| with_file(line).listen;
        assert_eq!(
            [listen(""), listen("--listen=[::1]:80"), listen("--listen=")],
            [Some("h:1".into()), Some("[::1]:80".into()), None]
        );
        assert_eq!(values(&with_file("--source auto")), (Source::Auto, 30, 2048, None));
    }

    #[test]
    fn a_regex_may_start_with_a_dash() {
        let output = options("-i -x -e --y").output;
        assert_eq!((output.include[0].as_str(), output.exclude[0].as_str()), ("-x", "--y"));
    }

    #[test]
    fn output_file_dash_means_stdout() {
        assert_eq!(options("-o -").output.file, None);
    }

    #[test]
    fn each_source_and_stream_is_parsed() {
        for (line, source) in [
            ("auto", Source::Auto),
            ("file", Source::File),
            ("stream", Source::Stream),
            ("rotate", Source::Rotate),
            ("poll", Source::Poll),
        ] {
            assert_eq!(options(&format!("--source {line}")).source, source);
        }
        for (line, stream) in [("stdout", Some(Stream::Stdout)), ("stderr", Some(Stream::Stderr)), ("all", None)] {
            assert_eq!(options(&format!("--stream {line}")).output.stream, stream);
        }
    }

    #[test]
    fn rotate_and_poll_have_their_own_interval() {
        for (line, seconds) in [
            ("--source rotate", 30.0),
            ("--source rotate --rotate-interval 5m", 300.0),
            ("--source poll", 2.0),
            ("--poll-interval 500ms --source poll", 0.5),
        ] {
            assert_eq!(options(line).interval, Duration::from_secs_f64(seconds), "{line}");
        }
    }

    #[test]
    fn invalid_arguments_are_refused_in_one_line() {
        for (line, expected) in [
            ("-i (", "error: invalid value '(' for '--include <REGEX>': unclosed group"),
            (
                "-e [z-a]",
                "error: invalid value '[z-a]' for '--exclude <REGEX>': invalid character class range, the start must be <= the end",
            ),
            ("-n ten", "error: invalid value 'ten' for '--tail <N>': expected a number of lines or `all`"),
            ("--stream both", "error: invalid value 'both' for '--stream <STREAM>'"),
            ("--source tail", "error: invalid value 'tail' for '--source <ROUTE>'"),
            ("--rotate-interval 5s", "`--rotate-interval` requires `--source rotate`"),
            ("--source poll --rotate-interval 5s", "`--rotate-interval` requires `--source rotate`"),
            ("--source rotate --poll-interval 5s", "`--poll-interval` requires `--source poll`"),
            (
                "--source poll --poll-interval 0s",
                "error: invalid value '0s' for '--poll-interval <DURATION>': expected a duration greater than zero: `500ms`, `30s`, `5m`, `1h`",
            ),
            (
                "--source rotate --rotate-interval 30",
                "error: invalid value '30' for '--rotate-interval <DURATION>': expected a duration greater than zero: `500ms`, `30s`, `5m`, `1h`",
            ),
            (
                "--since 100 --until 50",
                "`--since` (1970-01-01T00:01:40.000000000Z) is later than `--until` (1970-01-01T00:00:50.000000000Z)",
            ),
            ("--metadata", "`--metadata` requires `--format json`"),
            ("--lifecycle --format raw", "`--lifecycle` requires `--format json`"),
            ("-t --format json", "`--timestamps` has no effect with `--format json`: each record has its time"),
            ("--project=", "error: invalid value '' for '--project <PROJECT>': a name cannot be empty"),
            ("--service=", "error: invalid value '' for '--service <SERVICE>': a name cannot be empty"),
            ("-q -v", "error: the argument '--quiet' cannot be used with '--verbose...'"),
            (
                "--listen 8519",
                "error: invalid value '8519' for '--listen <ADDR:PORT>': expected `host:port`, such as `127.0.0.1:8519` or `[::1]:8519`",
            ),
        ] {
            let error = try_options(line).unwrap_err();
            assert_eq!(error.lines().next(), Some(expected), "{line:?}");
        }
    }
}

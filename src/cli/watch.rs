//! The words of `watch`, turned into [`WatchOptions`].

use super::hints::Exit;
use super::plugin::DockerFlags;
use super::{Common, carry_out, misused, name, one_of, shutdown, state, time_arg};
use crate::commands;
use crate::commands::watch::WatchOptions;
use crate::commands::watch::resume::Resume;
use crate::config::value::{self, LISTEN_ADDRESSES, SIZES};
use crate::config::{self, Config, Layers, Source};
use crate::model::cursor::Stream;
use crate::model::selector::{self, Filter, Glob, Pattern, Selector};
use crate::model::time::Timestamp;
use crate::output::{Ansi, Format, Settings};
use clap::ValueHint;
use regex::bytes::Regex;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Follow the logs of every matching container, including those that start later
///
/// Each line is shown once, in the order in which its container wrote it, whether its log is rotated meanwhile, the engine
/// restarted or the container removed. A stopped container is shown when it is named, or with `--all`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Watch {
    /// Name, ID prefix or glob such as `web-*`; all containers if omitted
    #[arg(value_name = "CONTAINER")]
    containers: Vec<Pattern>,

    /// Only containers that `docker ps --filter` would list
    ///
    /// The keys are name, id, label, ancestor, status, network, volume, health, before, since, exited, expose, publish and
    /// is-task. Values of one key are alternatives, but each label must be there; different keys must all hold. As with
    /// `docker ps`, containers that have exited are listed with `--all`, or where `status` asks for them.
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = SELECTION)]
    filter: Vec<Filter>,

    /// Only containers of this Compose project
    #[arg(short, long, value_name = "PROJECT", value_parser = name, help_heading = SELECTION)]
    project: Vec<String>,

    /// Only instances of this Compose service
    #[arg(long, value_name = "SERVICE", value_parser = name, help_heading = SELECTION)]
    service: Vec<String>,

    /// Leave out containers whose name matches
    #[arg(short = 'E', long, value_name = "GLOB", help_heading = SELECTION)]
    exclude_container: Vec<Glob>,

    /// Stopped containers' history too
    #[arg(short, long, help_heading = SELECTION)]
    all: bool,

    /// Lines from here on: `10m`, `1h30m`, a date or time, Unix seconds
    ///
    /// A span counts back from now. A date or time without a zone is local. Unix seconds may have a fraction.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = READING)]
    since: Option<Timestamp>,

    /// Lines up to here, written as for `--since`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time_arg::parse, help_heading = READING)]
    until: Option<Timestamp>,

    /// Lines of history, or `all` [default: 10; all with `--since`, `--no-follow`]
    ///
    /// They are counted for each container. One that starts after the watch began is read from its first line.
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, allow_negative_numbers = true, help_heading = READING)]
    tail: Option<Tail>,

    /// Read what is there, then exit
    #[arg(long, help_heading = READING)]
    no_follow: bool,

    /// Which of a container's streams
    #[arg(long, value_name = "STREAM", value_parser = one_of(STREAMS), default_value = "all", help_heading = READING)]
    stream: StreamChoice,

    /// Only lines whose message matches; repeatable, one match is enough
    #[arg(short, long, value_name = "REGEX", value_parser = regex, allow_hyphen_values = true, help_heading = READING)]
    include: Vec<Regex>,

    /// No lines whose message matches; repeatable
    #[arg(short = 'e', long, value_name = "REGEX", value_parser = regex, allow_hyphen_values = true, help_heading = READING)]
    exclude: Vec<Regex>,

    /// How containers are read [default: auto]
    #[arg(long, value_name = "ROUTE", value_parser = one_of(SOURCES), help_heading = READING)]
    source: Option<Source>,

    /// With `--source rotate`: renew each stream so often [default: 30s]
    #[arg(long, value_name = "SPAN", value_parser = time_arg::span_of_time, help_heading = READING, hide_short_help = true)]
    rotate_interval: Option<Duration>,

    /// With `--source poll`: read each container so often [default: 2s]
    #[arg(long, value_name = "SPAN", value_parser = time_arg::span_of_time, help_heading = READING, hide_short_help = true)]
    poll_interval: Option<Duration>,

    /// Cut longer messages into several records [default: 1MiB]
    ///
    /// `64k` and `64kB` are 64,000 bytes, `64KiB` is 65,536; a bare number is bytes. In JSON a cut record is marked
    /// `"partial":true`.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = READING, hide_short_help = true)]
    max_line_size: Option<usize>,

    /// Tell which containers match and how each would be read, then exit
    ///
    /// Containers that are set up to lose lines are pointed out.
    #[arg(long, help_heading = READING)]
    dry_run: bool,

    /// Form of a line
    #[arg(long, value_name = "FORMAT", value_parser = one_of(FORMATS), default_value = "text", help_heading = OUTPUT)]
    format: Format,

    /// Begin each line with its time
    #[arg(short, long, help_heading = OUTPUT)]
    timestamps: bool,

    /// Add labels, networks and state to JSON records
    #[arg(long, help_heading = OUTPUT)]
    metadata: bool,

    /// Add lifecycle records (start, die, ...) to JSON
    #[arg(long, help_heading = OUTPUT)]
    lifecycle: bool,

    /// What becomes of escape sequences in messages
    #[arg(
        long, value_name = "MODE", value_parser = one_of(ANSI), default_value = "auto", help_heading = OUTPUT,
        hide_short_help = true
    )]
    ansi: Ansi,

    /// Append to FILE instead of stdout
    ///
    /// A new FILE is readable by its owner alone. When FILE is moved away, as logrotate does, or removed, a new one with
    /// the same owner and permissions takes its place with the next line, and no line is in both.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    output: Option<PathBuf>,

    /// Go on where the last run of this name stopped [default name: default]
    ///
    /// A container that is new to the name is read from its first line, one that stopped meanwhile to its end. Where it
    /// stopped is kept once the lines are written. With `-o FILE` every line is in FILE exactly once, whatever happens,
    /// and no complete line is ever taken out of it: the next run completes what a killed one left. After a power
    /// failure, half a record at the end is moved to FILE.damaged. On stdout the last lines may come again after a
    /// crash.
    #[arg(
        long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "default",
        help_heading = OUTPUT
    )]
    resume: Option<String>,

    /// Serve Prometheus metrics and health at this address
    ///
    /// `/metrics`, `/api/v1/health` and `/api/v1/health/events`, such as `--listen 127.0.0.1:8519`. An IPv6 address stands
    /// in brackets; port 0 is any that is free, and told with `-q` as well.
    #[arg(long, value_name = "ADDR:PORT", value_parser = place, help_heading = OUTPUT, hide_short_help = true)]
    listen: Option<String>,
}

const SELECTION: &str = "Selection";
const READING: &str = "What to read";
const OUTPUT: &str = "Output";

const EXAMPLES: &str = "\
Examples:
  Everything that runs, and whatever starts from now on
    $ docker logwatch watch

  The last hour of a Compose project's errors, then exit
    $ docker logwatch watch -p shop --since 1h --no-follow -i '(?i)error|panic'

  JSON records of all web containers but one, appended to a file
    $ docker logwatch watch 'web-*' -E web-canary --format json -o web.jsonl

What has a default can be set in logwatch.yaml, see `--config-file`.";

const DEFAULT_TAIL: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    All,
    Last(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamChoice {
    All,
    Only(Stream),
}

const STREAMS: &[(&str, &str, StreamChoice)] = &[
    ("stdout", "Standard output alone", StreamChoice::Only(Stream::Stdout)),
    ("stderr", "Standard error alone", StreamChoice::Only(Stream::Stderr)),
    ("all", "Both", StreamChoice::All),
];

const SOURCES: &[(&str, &str, Source)] = &[
    ("auto", "The log file where it can be opened, else the stream", Source::Auto),
    ("file", "Log files only", Source::File),
    ("stream", "One long API stream per container", Source::Stream),
    ("rotate", "API streams, each renewed after `--rotate-interval`", Source::Rotate),
    ("poll", "An API read every `--poll-interval`", Source::Poll),
];

const FORMATS: &[(&str, &str, Format)] = &[
    ("text", "`NAME | MESSAGE`, aligned, and coloured on a terminal", Format::Text),
    ("json", "One object a line", Format::Json),
    ("raw", "The message alone", Format::Raw),
];

const ANSI: &[(&str, &str, Ansi)] = &[
    ("auto", "On a terminal all but colours are shown, not obeyed; else kept", Ansi::Auto),
    ("keep", "Kept as they are", Ansi::Keep),
    ("strip", "Removed", Ansi::Strip),
];

impl Watch {
    /// What was asked for; a pair of flags that cannot both hold is told in a sentence.
    pub fn options(self, common: &Common) -> Result<WatchOptions, String> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return Err(format!("nothing lies between: --since is {since}, --until is {until}"));
        }
        self.check_format()?;
        let config = common.config(|layers| self.lay(layers))?;
        let interval = self.interval(&config.watch)?;
        Ok(WatchOptions {
            all: self.all,
            since: self.since,
            until: self.until,
            tail: self.lines_of_history(),
            follow: !self.no_follow,
            source: config.watch.source,
            interval,
            lock_beside: state(&config).ok(),
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

    /// A flag for a form of lines that is not written is a slip.
    fn check_format(&self) -> Result<(), String> {
        let is_json = self.format == Format::Json;
        if let Some(flag) = [("--metadata", self.metadata), ("--lifecycle", self.lifecycle)]
            .into_iter()
            .find_map(|(flag, is_given)| (is_given && !is_json).then_some(flag))
        {
            return Err(format!("{flag} says nothing without --format json"));
        }
        if self.timestamps && is_json {
            return Err("--timestamps says nothing with --format json, whose records have a time".to_owned());
        }
        Ok(())
    }

    /// The flags that have a key.
    fn lay(&self, layers: &mut Layers) {
        if let Some(source) = self.source {
            layers.flag("watch.source", "--source", |config| config.watch.source = source);
        }
        if let Some(span) = self.rotate_interval {
            layers.flag("watch.rotate_interval", "--rotate-interval", |config| config.watch.rotate_interval = span);
        }
        if let Some(span) = self.poll_interval {
            layers.flag("watch.poll_interval", "--poll-interval", |config| config.watch.poll_interval = span);
        }
        if let Some(size) = self.max_line_size {
            layers.flag("watch.max_line_size", "--max-line-size", |config| config.watch.max_line_size = size);
        }
        if let Some(place) = &self.listen {
            let place = Some(place.clone()).filter(|place| !place.is_empty());
            layers.flag("metrics.listen", "--listen", |config| config.listen = place);
        }
    }

    /// From one request to the next; a flag for a route that is not taken is a slip.
    fn interval(&self, watch: &config::WatchConfig) -> Result<Duration, String> {
        for (flag, given, route, source) in [
            ("--rotate-interval", self.rotate_interval, "rotate", Source::Rotate),
            ("--poll-interval", self.poll_interval, "poll", Source::Poll),
        ] {
            if given.is_some() && watch.source != source {
                return Err(format!("{flag} says nothing without --source {route}"));
            }
        }
        Ok(if watch.source == Source::Poll { watch.poll_interval } else { watch.rotate_interval })
    }

    fn lines_of_history(&self) -> Option<u64> {
        match self.tail {
            Some(Tail::All) => None,
            Some(Tail::Last(lines)) => Some(lines),
            None if self.no_follow || self.since.is_some() || self.resume.is_some() => None,
            None => Some(DEFAULT_TAIL),
        }
    }

    fn resume(&self, config: &Config) -> Result<Option<Resume>, String> {
        let Some(name) = self.resume.clone() else { return Ok(None) };
        let state = state(config)?;
        Ok(Some(Resume { state, name }))
    }

    /// Kept where a state was asked for, by name or to resume from.
    fn inventory(&self, config: &Config) -> Result<Option<PathBuf>, String> {
        let is_wanted = self.resume.is_some() || config.state.is_some();
        is_wanted.then(|| state(config)).transpose()
    }

    fn settings(&self, common: &Common) -> Settings {
        Settings {
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

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        // As `docker logs` takes it.
        number if number.parse::<i64>().is_ok_and(|number| number < 0) => Ok(Tail::All),
        number => number.parse().map(Tail::Last).map_err(|_| "expected a number of lines or `all`".to_owned()),
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| selector::reason(&error))
}

/// Empty is nowhere, whatever is configured.
fn place(text: &str) -> Result<String, String> {
    let is_place = text.is_empty() || value::is_listen_address(text);
    is_place.then(|| text.to_owned()).ok_or_else(|| format!("expected {LISTEN_ADDRESSES}"))
}

fn size(text: &str) -> Result<usize, String> {
    value::size(text).ok_or_else(|| format!("expected bytes: {SIZES}"))
}

/// Reads the last of the words and hands over to the engine.
pub(super) fn run(docker: &DockerFlags, as_plugin: bool, watch: Watch, common: &Common) -> ExitCode {
    match watch.options(common) {
        Ok(options) => carry_out(docker, as_plugin, common, |endpoint, stop| {
            if options.output.file.is_none() {
                shutdown::heed_reader(stop.clone())?;
            }
            commands::watch::watch(endpoint, options, stop).map(|()| Exit::Done.into())
        }),
        Err(message) => misused(&message, common.log_format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb, command};
    use crate::output::When;
    use clap::FromArgMatches;

    fn try_options(line: &str) -> Result<WatchOptions, String> {
        let words = line.split_whitespace();
        let matches = command(true).no_binary_name(true).try_get_matches_from(["watch"].into_iter().chain(words));
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| error.to_string())?;
        let Verb::Watch(watch) = cli.verb else { panic!("another verb") };
        watch.options(&cli.common)
    }

    fn options(line: &str) -> WatchOptions {
        try_options(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn without_flags_everything_is_followed_from_its_last_ten_lines() {
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
            lock_beside,
        } = options("--color never");
        assert_eq!((resume, listen, metadata_cache_ttl), (None, None, Duration::from_secs(300)));
        assert_eq!((docker, events), (config::DockerConfig::default(), config::EventsConfig::default()));
        assert_eq!(inventory, None);
        assert!(lock_beside.is_none_or(|state| state.ends_with("docker-logwatch/state.db")));
        assert!(selector.names.is_empty() && selector.filters.is_empty() && selector.exclude.is_empty());
        assert_eq!((all, since, until, tail, follow, dry_run), (false, None, None, Some(10), true, false));
        assert_eq!((source, interval, max_line_size), (Source::Auto, Duration::from_secs(30), 1_048_576));
        assert_eq!((output.format, output.ansi, output.stream), (Format::Text, Ansi::Auto, None));
        assert_eq!((output.timestamps, output.metadata, output.lifecycle, output.quiet), (false, false, false, false));
        assert_eq!((output.color, output.file), (When::Never, None));
        assert!(output.include.is_empty() && output.exclude.is_empty());
    }

    #[test]
    fn history_is_ten_lines_when_following_and_all_of_it_when_asked_by_time_or_once() {
        for (line, tail) in [
            ("", Some(10)),
            ("--until 1h", Some(10)),
            ("--no-follow", None),
            ("--since 1h", None),
            ("--since 1h --no-follow", None),
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
    fn every_flag_reaches_its_option() {
        let asked = options(
            "web-* db -f status=running -f label=a=b -p shop -p blog --service web -E x -E y -a --since 100.5 --until 200 \
             --no-follow --stream stderr -i a -i b -e c --source file --max-line-size 64KiB --dry-run --format json \
             --metadata --lifecycle --ansi strip -o out.log --color always -q",
        );
        let Selector { names, exclude, projects, services, filters } = asked.selector;
        assert_eq!((names.len(), exclude.len(), filters.len()), (2, 2, 2));
        assert_eq!((projects, services), (vec!["shop".to_owned(), "blog".into()], vec!["web".to_owned()]));
        assert_eq!((asked.since, asked.until), (Some(Timestamp(100_500_000_000)), Some(Timestamp(200_000_000_000))));
        assert_eq!((asked.all, asked.follow, asked.dry_run), (true, false, true));
        assert_eq!((asked.source, asked.max_line_size), (Source::File, 65_536));
        let output = asked.output;
        assert_eq!((output.format, output.ansi, output.stream), (Format::Json, Ansi::Strip, Some(Stream::Stderr)));
        assert_eq!((output.timestamps, output.metadata, output.lifecycle, output.quiet), (false, true, true, true));
        assert!(options("-t --format raw").output.timestamps);
        assert_eq!((output.color, output.file), (When::Always, Some("out.log".into())));
        let patterns = |regexes: &[Regex]| regexes.iter().map(Regex::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!((patterns(&output.include), patterns(&output.exclude)), ("a b".into(), "c".into()));
    }

    #[test]
    fn a_resumed_watch_has_a_name_a_state_and_the_whole_history() {
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
    fn a_flag_goes_before_the_configuration_and_its_absence_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file.yaml");
        let text = "watch: {source: poll, poll_interval: 7s, max_line_size: 2KiB}\nstate: {path: /f}\nmetrics: {listen: 'h:1'}\n";
        std::fs::write(&file, text).unwrap();
        let named = |line: &str| options(&format!("--config-file {} {line}", file.display()));
        let told = |options: &WatchOptions| {
            let state = options.resume.as_ref().map(|resume| resume.state.display().to_string());
            (options.source, options.interval.as_secs(), options.max_line_size, state)
        };
        assert_eq!(told(&named("--resume")), (Source::Poll, 7, 2048, Some("/f".into())));
        let flags = "--resume --source rotate --rotate-interval 9s --max-line-size 5 --state /g";
        assert_eq!(told(&named(flags)), (Source::Rotate, 9, 5, Some("/g".into())));
        assert_eq!(told(&named("--poll-interval 1s")), (Source::Poll, 1, 2048, None));
        let listen = |line: &str| named(line).listen;
        assert_eq!(
            [listen(""), listen("--listen=[::1]:80"), listen("--listen=")],
            [Some("h:1".into()), Some("[::1]:80".into()), None]
        );
        assert_eq!(told(&named("--source auto")), (Source::Auto, 30, 2048, None));
    }

    #[test]
    fn a_pattern_may_begin_with_a_dash() {
        let output = options("-i -x -e --y").output;
        assert_eq!((output.include[0].as_str(), output.exclude[0].as_str()), ("-x", "--y"));
    }

    #[test]
    fn a_dash_as_file_is_stdout() {
        assert_eq!(options("-o -").output.file, None);
    }

    #[test]
    fn every_route_and_stream_has_its_word() {
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
    fn a_route_by_intervals_has_its_own() {
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
    fn what_cannot_be_meant_is_refused_in_one_line() {
        for (line, expected) in [
            ("-i (", "error: invalid value '(' for '--include <REGEX>': unclosed group"),
            (
                "-e [z-a]",
                "error: invalid value '[z-a]' for '--exclude <REGEX>': invalid character class range, the start must be <= the end",
            ),
            ("-n ten", "error: invalid value 'ten' for '--tail <N>': expected a number of lines or `all`"),
            ("--stream both", "error: invalid value 'both' for '--stream <STREAM>'"),
            ("--source tail", "error: invalid value 'tail' for '--source <ROUTE>'"),
            ("--rotate-interval 5s", "--rotate-interval says nothing without --source rotate"),
            ("--source poll --rotate-interval 5s", "--rotate-interval says nothing without --source rotate"),
            ("--source rotate --poll-interval 5s", "--poll-interval says nothing without --source poll"),
            (
                "--source poll --poll-interval 0s",
                "error: invalid value '0s' for '--poll-interval <SPAN>': expected a span longer than none: `500ms`, `30s`, `5m`, `1h`",
            ),
            (
                "--source rotate --rotate-interval 30",
                "error: invalid value '30' for '--rotate-interval <SPAN>': expected a span longer than none: `500ms`, `30s`, `5m`, `1h`",
            ),
            (
                "--since 100 --until 50",
                "nothing lies between: --since is 1970-01-01T00:01:40.000000000Z, --until is 1970-01-01T00:00:50.000000000Z",
            ),
            ("--metadata", "--metadata says nothing without --format json"),
            ("--lifecycle --format raw", "--lifecycle says nothing without --format json"),
            ("-t --format json", "--timestamps says nothing with --format json, whose records have a time"),
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

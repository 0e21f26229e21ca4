//! The words of `watch`, turned into [`Options`].

use super::explain::{self, Exit};
use super::plugin::DockerFlags;
use super::{Common, one_of, refuse, stop, usage, when};
use crate::batch::Stream;
use crate::engine::watch::{Options, Source};
use crate::output::{Ansi, Format, Settings};
use crate::selector::{self, Filter, Glob, Pattern, Selector};
use crate::time::Timestamp;
use clap::ValueHint;
use regex::bytes::Regex;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Follow the logs of every matching container, including those that start later
///
/// A container that starts after the watch began is read from its first line. A stopped one is shown when it is named, or
/// with `--all`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Watch {
    /// Name, ID prefix or glob such as `web-*`; all containers if omitted
    #[arg(value_name = "CONTAINER")]
    containers: Vec<Pattern>,

    /// Only containers that `docker ps --filter` would list
    ///
    /// The keys are name, id, label, ancestor, status, network, volume and health. Values of one key are alternatives, but
    /// each label must be there; different keys must all hold.
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = SELECTION)]
    filter: Vec<Filter>,

    /// Only containers of this Compose project
    #[arg(short, long, value_name = "PROJECT", help_heading = SELECTION)]
    project: Vec<String>,

    /// Only instances of this Compose service
    #[arg(long, value_name = "SERVICE", help_heading = SELECTION)]
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
    #[arg(long, value_name = "TIME", value_parser = when::parse, help_heading = READING)]
    since: Option<Timestamp>,

    /// Lines up to here, written as for `--since`
    #[arg(long, value_name = "TIME", value_parser = when::parse, help_heading = READING)]
    until: Option<Timestamp>,

    /// Lines of history per container, or `all` [default: 10; all with `--since` or `--no-follow`]
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, help_heading = READING)]
    tail: Option<Tail>,

    /// Read what is there, then exit
    #[arg(long, help_heading = READING)]
    no_follow: bool,

    /// Which of a container's streams
    #[arg(long, value_name = "STREAM", value_parser = one_of(STREAMS), default_value = "all", help_heading = READING)]
    stream: StreamChoice,

    /// Only lines whose message matches; repeatable, one match is enough
    #[arg(short, long, value_name = "REGEX", value_parser = regex, help_heading = READING)]
    include: Vec<Regex>,

    /// No lines whose message matches; repeatable
    #[arg(short = 'e', long, value_name = "REGEX", value_parser = regex, help_heading = READING)]
    exclude: Vec<Regex>,

    /// How containers are read
    #[arg(long, value_name = "ROUTE", value_parser = one_of(SOURCES), default_value = "auto", help_heading = READING)]
    source: Source,

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
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    output: Option<PathBuf>,
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
    $ docker logwatch watch 'web-*' -E web-canary --format json -o web.jsonl";

const DEFAULT_TAIL: u64 = 10;
const MAX_LINE_SIZE: usize = 1 << 20;
const INTERVAL: Duration = Duration::from_secs(30);

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
    pub fn options(self, common: &Common) -> Result<Options, String> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return Err(format!("nothing lies between: --since is {since}, --until is {until}"));
        }
        let history = if self.no_follow || self.since.is_some() { None } else { Some(DEFAULT_TAIL) };
        Ok(Options {
            selector: Selector {
                names: self.containers,
                exclude: self.exclude_container,
                projects: self.project,
                services: self.service,
                filters: self.filter,
            },
            all: self.all,
            since: self.since,
            until: self.until,
            tail: match self.tail {
                None => history,
                Some(Tail::All) => None,
                Some(Tail::Last(lines)) => Some(lines),
            },
            follow: !self.no_follow,
            source: self.source,
            interval: INTERVAL,
            max_line_size: self.max_line_size.unwrap_or(MAX_LINE_SIZE),
            dry_run: self.dry_run,
            output: Settings {
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
                include: self.include,
                exclude: self.exclude,
                file: self.output.filter(|path| path.as_os_str() != "-"),
                quiet: common.quiet,
            },
        })
    }
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number.parse().map(Tail::Last).map_err(|_| "expected a number of lines or `all`".to_owned()),
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| selector::reason(&error))
}

/// Bytes from `1048576`, `64k`, `1MB` (powers of 1000) or `1MiB` (powers of 1024).
fn size(text: &str) -> Result<usize, String> {
    let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(number);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1_000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "ki" | "kib" => Some(1 << 10),
        "mi" | "mib" => Some(1 << 20),
        "gi" | "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<usize>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| {
        "expected bytes: `1048576`, `64k` or `1MB` (powers of 1000), `64KiB` or `1MiB` (powers of 1024)".to_owned()
    })
}

/// Reads the last of the words, starts to listen for the order to stop, and answers.
pub(super) fn run(docker: DockerFlags, as_plugin: bool, watch: Watch, common: &Common) -> ExitCode {
    let options = match watch.options(common) {
        Ok(options) => options,
        Err(message) => return refuse(&usage(message)),
    };
    let stop = CancellationToken::new();
    let socket = std::env::var_os(stop::SOCKET).filter(|_| as_plugin);
    match stop::listen(stop.clone(), socket.as_deref()) {
        Ok(()) => answer(docker, options, stop),
        Err(error) => explain::fail(&error, None, common.log_format),
    }
}

/// Hands over to the engine.
fn answer(docker: DockerFlags, options: Options, _stop: CancellationToken) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{docker:?}\n{options:?}");
    Exit::Done.into()
}

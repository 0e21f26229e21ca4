//! The command line: parses arguments, calls one function of [`crate::commands`], and returns an exit code.
//!
//! [`main`] first answers the requests of the docker CLI and of shells ([`plugin`], [`complete`]). Then clap parses the
//! arguments, each command turns its options into the `…Options` of its namesake in `commands`, and [`hints`] reports a
//! failure. Every option is described once, in the clap definitions: help, completions and man pages are generated from
//! them.

mod complete;
mod events;
mod hints;
mod man_pages;
mod man_text;
mod plugin;
mod pool;
mod reconcile;
mod shutdown;
mod time_arg;
mod watch;

use crate::config::{Config, ConfigInputs, Layers};
use crate::docker::{self, Endpoint, Environment, Flags, endpoint};
use crate::model::selector::Filters;
use crate::model::stop::Stop;
use crate::output::{Diagnostic, Level, LogFormat, ReportFormat, When};
use crate::{commands, output};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use hints::Exit;
use plugin::DockerFlags;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Follow the logs of every container without losing or repeating a line
#[derive(Clone, Debug, Parser)]
#[command(name = "docker-logwatch", version, after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Clone, Debug, Subcommand)]
enum Commands {
    Watch(Box<watch::WatchArgs>),
    Events(events::EventsArgs),
    Pool(pool::PoolArgs),
    Reconcile(reconcile::ReconcileArgs),
}

const EXAMPLES: &str = "\
Examples:
  Follow all running containers, and those that start later
    $ docker logwatch watch

  Show which containers match and how each would be read
    $ docker logwatch watch --dry-run 'web-*'

  Append the logs of a Compose project to a file, as JSON
    $ docker logwatch watch -p shop --format json -o shop.jsonl";

/// Options that every command has; help lists them after the command's own.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = GLOBAL, disable_help_flag = true)]
pub struct Common {
    /// Configuration file [default: logwatch.yaml in Docker's configuration directory]
    ///
    /// A YAML file, which LOGWATCH_CONFIG_FILE can name as well. Each key also has an environment variable, such as
    /// LOGWATCH_WATCH_SOURCE for watch.source. Options override environment variables, and those override the file.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    config_file: Option<PathBuf>,

    /// Where configuration comes from besides the options. [`main`] sets it; in tests it stays empty.
    #[arg(skip)]
    inputs: ConfigInputs,

    /// State file: resume positions and inventory [default: ~/.local/state/docker-logwatch/state.db]
    ///
    /// An SQLite database. If XDG_STATE_HOME is set, it replaces ~/.local/state. With `--state` (or state.path in the
    /// configuration) or `--resume`, `watch` also keeps the inventory of `reconcile` up to date.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    state: Option<PathBuf>,

    /// When to colour names and notices
    ///
    /// With `auto`, NO_COLOR turns colours off and CLICOLOR_FORCE turns them on (unless it is 0). If neither is set, the
    /// output is coloured on a terminal.
    #[arg(long, global = true, value_name = "WHEN", value_parser = one_of(WHEN), default_value = "auto")]
    color: When,

    /// Print more diagnostics to stderr; `-vv` and `-vvv` print even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// Print only errors to stderr: no notices, no status line
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Format of notices and diagnostics on stderr
    #[arg(
        long, global = true, value_name = "FORMAT", value_parser = one_of(LOG_FORMATS), default_value = "text",
        hide_short_help = true
    )]
    log_format: LogFormat,

    /// Print help; `-h` prints a summary
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

const GLOBAL: &str = "Global options";

// The docker CLI's global options, which the standalone program has as its own. When docker runs the program as a plugin,
// `plugin::split` has already removed them. This is no doc comment because clap would use it as the program's help.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Docker Engine")]
struct StandaloneFlags {
    /// Docker Engine, such as `unix:///run/docker.sock` [default: the one that docker uses]
    #[arg(short = 'H', long, global = true, value_name = "HOST", conflicts_with = "context")]
    host: Option<String>,

    /// Docker context; overrides DOCKER_HOST and the current context
    #[arg(short, long, global = true, value_name = "CONTEXT")]
    context: Option<String>,

    /// Docker's configuration directory [default: DOCKER_CONFIG or ~/.docker]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, hide_short_help = true)]
    config: Option<PathBuf>,

    /// Use TLS without verifying the daemon's certificate
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", hide_short_help = true)]
    tls: Option<bool>,

    /// Use TLS and verify the daemon's certificate
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", hide_short_help = true)]
    tlsverify: Option<bool>,

    /// Trust only certificates signed by this CA
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    tlscacert: Option<PathBuf>,

    /// Client certificate
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    tlscert: Option<PathBuf>,

    /// Private key of the client certificate
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    tlskey: Option<PathBuf>,
}

impl From<StandaloneFlags> for DockerFlags {
    fn from(flags: StandaloneFlags) -> Self {
        let StandaloneFlags { host, context, config, tls, tlsverify, tlscacert, tlscert, tlskey } = flags;
        let endpoint = Flags { host, context, tls, tlsverify, tlscacert, tlscert, tlskey, config_dir: config };
        DockerFlags { endpoint, ..DockerFlags::default() }
    }
}

const WHEN: &[(&str, &str, When)] =
    &[("auto", "On a terminal", When::Auto), ("always", "Always", When::Always), ("never", "Never", When::Never)];

const LOG_FORMATS: &[(&str, &str, LogFormat)] =
    &[("text", "One line each", LogFormat::Text), ("json", "One JSON object per line", LogFormat::Json)];

const REPORT_FORMATS: &[(&str, &str, ReportFormat)] =
    &[("table", "Table for people", ReportFormat::Table), ("json", "One JSON object", ReportFormat::Json)];

/// A parser that accepts one of `choices`: each has a name, a help text, and the value it stands for.
fn one_of<T>(choices: &'static [(&str, &str, T)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let names = choices.iter().map(|(name, help, _)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).try_map(|given| {
        let choice = choices.iter().find(|(name, ..)| *name == given);
        choice.map(|(.., value)| *value).ok_or("unknown value")
    })
}

/// Parses a whole number greater than zero.
fn at_least_one<T: TryFrom<u64>>(text: &str) -> Result<T, &'static str> {
    let number: u64 = text.parse().ok().filter(|number| *number > 0).ok_or("expected a whole number, at least 1")?;
    number.try_into().map_err(|_| "the number is too large")
}

/// Parses a name to select by. An empty one is refused: it is probably an unset variable in a script.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name cannot be empty".to_owned()) } else { Ok(text.to_owned()) }
}

impl Common {
    /// Returns the configuration, or all its errors, one per line. `add_flags` adds the command's options that override
    /// configuration keys. Warnings are logged.
    fn config(&self, add_flags: impl FnOnce(&mut Layers)) -> Result<Config, String> {
        let mut layers = Layers::read(&self.inputs, self.config_file.as_deref());
        if let Some(state) = &self.state {
            layers.flag("state.path", "--state", |config| config.state = Some(state.clone()));
        }
        add_flags(&mut layers);
        let safe = |text: String| text.lines().map(output::safe).collect::<Vec<_>>().join("\n");
        let (config, warnings) = layers.finish().map_err(safe)?;
        for warning in warnings {
            tracing::warn!("{}", output::safe(&warning));
        }
        Ok(config)
    }

    /// Whether to show no progress or status on the terminal.
    fn hides_status(&self) -> bool {
        self.quiet || self.log_format == LogFormat::Json
    }

    /// The value of `--color`, or else what the environment
    /// asks for (<https://no-color.org>, <https://bixense.com/clicolors>).
    fn color(&self) -> When {
        color(self.color, |name| std::env::var_os(name))
    }
}

/// Returns the path of the state file, or a message if there is no directory for it.
fn state(config: &Config) -> Result<PathBuf, String> {
    let home = || std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".local/state"));
    let xdg = || std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let in_folder = |folder: PathBuf| folder.join("docker-logwatch/state.db");
    let state = config.state.clone().or_else(|| xdg().or_else(home).map(in_folder));
    state.ok_or_else(|| "no home directory for the state file: set its path with --state".to_owned())
}

fn color(flag: When, variable: impl Fn(&str) -> Option<OsString>) -> When {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    match flag {
        When::Auto if set("NO_COLOR").is_some() => When::Never,
        When::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => When::Always,
        flag => flag,
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|arg| arg == plugin::METADATA) {
        return print(&plugin::metadata());
    }
    if args.first().is_some_and(|arg| arg == docker::SSH) {
        return ssh(&args[1..]);
    }
    let invocation = plugin::split(args);
    let command = command(invocation.as_plugin);
    if let Some(request) = complete::request(&invocation.args) {
        return print(&complete::answer(command, request, fetch_names));
    }
    if invocation.args.first().is_some_and(|arg| arg == man_pages::COMMAND) {
        return man_pages::run(&invocation.args[1..]);
    }
    let (as_plugin, format) = (invocation.as_plugin, log_format(&invocation.args));
    match parse(command, invocation) {
        Ok((docker, mut cli)) => {
            let folder = endpoint::config_dir(&docker.endpoint, &Environment::of_process());
            cli.common.inputs = ConfigInputs { folder: Some(folder), variables: std::env::vars_os().collect() };
            run(docker, as_plugin, cli)
        }
        Err(error) => report_clap_error(&error, format),
    }
}

/// Replaces this process with ssh. A failure is reported the way ssh reports its own, to the process that started this one.
fn ssh(args: &[OsString]) -> ExitCode {
    let error = docker::become_ssh(args);
    output::report(LogFormat::Text, &format!("cannot be started: {error}\n"));
    // ssh exits with 255 when it fails itself.
    ExitCode::from(255)
}

/// Finds the requested format of diagnostics in arguments that clap could not parse.
fn log_format(args: &[OsString]) -> LogFormat {
    let arg = |at: usize| args.get(at).map(|arg| arg.to_string_lossy());
    let is_json = |at| match arg(at) {
        Some(flag) if flag == "--log-format" => arg(at + 1).is_some_and(|value| value == "json"),
        flag => flag.is_some_and(|flag| flag == "--log-format=json"),
    };
    if (0..args.len()).any(is_json) { LogFormat::Json } else { LogFormat::Text }
}

/// Returns the clap definition of the whole command line, for parsing, help and completion.
pub fn command(as_plugin: bool) -> Command {
    let command = Cli::command();
    if as_plugin {
        return command.bin_name("docker logwatch");
    }
    let standalone = |command: Command| match command.get_after_long_help() {
        Some(text) => {
            let text = text.to_string().replace("docker logwatch", "docker-logwatch");
            command.after_long_help(text)
        }
        None => command,
    };
    StandaloneFlags::augment_args(standalone(command).mut_subcommands(standalone)).bin_name("docker-logwatch")
}

fn parse(command: Command, invocation: plugin::Invocation) -> Result<(DockerFlags, Cli), clap::Error> {
    let mut command = command.no_binary_name(true);
    let is_watch = invocation.args.iter().any(|arg| arg == "watch");
    let add_tip = |error| {
        let error = if is_watch { follow_tip(error) } else { error };
        if invocation.as_plugin { docker_flag_tip(error) } else { error }
    };
    let matches = command.try_get_matches_from_mut(invocation.args).map_err(add_tip)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let docker = match invocation.as_plugin {
        true => invocation.docker,
        false => StandaloneFlags::from_arg_matches(&matches)?.into(),
    };
    Ok((docker, cli))
}

/// Explains where docker's own options go: as a plugin, the program only accepts them before its name.
fn docker_flag_tip(error: clap::Error) -> clap::Error {
    let flags = StandaloneFlags::augment_args(Command::new("docker"));
    let is_dockers = |flag: &str| {
        flags.get_arguments().any(|argument| {
            let short = argument.get_short().map(|letter| format!("-{letter}"));
            let long = argument.get_long().map(|name| format!("--{name}"));
            short.as_deref() == Some(flag) || long.as_deref() == Some(flag)
        })
    };
    match unknown_flag(&error) {
        Some(flag) if is_dockers(&flag) => {
            with_tip(error, format!("`{flag}` is an option of docker: put it before `logwatch`"))
        }
        _ => error,
    }
}

/// Explains that `watch` follows by default. For `--follow` and misspellings of it, clap would suggest `--color`.
fn follow_tip(mut error: clap::Error) -> clap::Error {
    match unknown_flag(&error) {
        Some(flag) if flag.starts_with("--fol") => {
            // The usage would show the option that clap suggests.
            error.remove(ContextKind::Usage);
            with_tip(error, "`--follow` is the default; to exit at the end of the logs, use `--no-follow`".to_owned())
        }
        _ => error,
    }
}

/// The option that clap does not know, if this is the error.
fn unknown_flag(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => Some(flag.clone()),
        _ => None,
    }
}

/// Replaces clap's suggestions with `tip`.
fn with_tip(mut error: clap::Error, tip: String) -> clap::Error {
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

/// Prints what clap returned instead of options: help, the version, or an error with its tip, in the requested format.
fn report_clap_error(error: &clap::Error, format: LogFormat) -> ExitCode {
    if format == LogFormat::Text || !error.use_stderr() {
        return print_clap_error(error);
    }
    let text = error.to_string();
    let mut parts = text.trim_end().split("\n\n").map(str::trim);
    let first = parts.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = parts.find_map(|part| part.strip_prefix("tip: "));
    output::notice(format, first, Diagnostic { hint, ..Diagnostic::new(Level::Error, &message) });
    Exit::Usage.into()
}

/// As [`report_clap_error`], as text. Help and the version go to stdout with exit code 0, everything else is a usage
/// error; clap knows which is which.
fn print_clap_error(error: &clap::Error) -> ExitCode {
    let text = |is_terminal| match color(When::Auto, |name| std::env::var_os(name)).is_enabled(is_terminal) {
        true => error.render().ansi().to_string(),
        false => error.render().to_string(),
    };
    if error.use_stderr() {
        output::report(LogFormat::Text, &text(output::is_stderr_terminal()));
        return Exit::Usage.into();
    }
    print(&text(output::is_stdout_terminal()))
}

/// Writes `text` to stdout. It is no error if nobody reads it any more.
fn print(text: &str) -> ExitCode {
    match output::answer(text) {
        Ok(()) => Exit::Success.into(),
        Err(error) => hints::fail(&error, None, Exit::Failed, LogFormat::Text),
    }
}

fn run(docker: DockerFlags, as_plugin: bool, cli: Cli) -> ExitCode {
    match level(&docker, &cli.common) {
        Ok(level) => start_diagnostics(level, cli.common.log_format),
        Err(message) => return usage_error(&message, cli.common.log_format),
    }
    match cli.command {
        Commands::Watch(args) => watch::run(&docker, as_plugin, *args, &cli.common),
        Commands::Events(args) => events::run(&docker, as_plugin, args, &cli.common),
        Commands::Pool(args) => pool::run(&docker, as_plugin, args, &cli.common),
        Commands::Reconcile(args) => reconcile::run(&docker, as_plugin, &args, &cli.common),
    }
}

/// Finds the Docker Engine that the options and the environment select.
fn endpoint(docker: &DockerFlags) -> Result<Endpoint, commands::Error> {
    let mut endpoint = Endpoint::resolve(&docker.endpoint, &Environment::of_process())?;
    // This link works even if the program's file is replaced while it runs.
    endpoint.program = Some("/proc/self/exe".into());
    for warning in &endpoint.warnings {
        tracing::warn!("{}", output::safe(warning));
    }
    Ok(endpoint)
}

/// Listens for signals, finds the Docker Engine and runs `work`, the command itself. Reports its error.
fn run_command(
    docker: &DockerFlags,
    as_plugin: bool,
    common: &Common,
    work: impl FnOnce(Endpoint, &Stop) -> Result<ExitCode, commands::Error>,
) -> ExitCode {
    let format = common.log_format;
    let stop = Stop::default();
    let parent = as_plugin.then(shutdown::ParentDocker::of_process);
    if let Err(error) = shutdown::listen(stop.clone(), parent) {
        return hints::fail(&ListenError(error), None, Exit::Failed, format);
    }
    match endpoint(docker).and_then(|endpoint| work(endpoint, &stop)) {
        Ok(exit) => exit,
        Err(error) => hints::failed(&error, format),
    }
}

/// Fatal: without signal handlers the output would not be flushed when the program is stopped.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals")]
struct ListenError(#[source] std::io::Error);

/// Reports usage errors, one per line of `message`.
fn usage_error(message: &str, format: LogFormat) -> ExitCode {
    match format {
        LogFormat::Text => {
            let text = message.replace('\n', "\nerror: ") + "\n";
            print_clap_error(&clap::Error::raw(ErrorKind::ValueValidation, text))
        }
        LogFormat::Json => {
            for line in message.lines() {
                output::notice(format, line, Diagnostic::new(Level::Error, line));
            }
            Exit::Usage.into()
        }
    }
}

/// The level from which on diagnostics are printed. Our `-q` and `-v` override docker's `-D` and `-l`.
fn level(docker: &DockerFlags, common: &Common) -> Result<LevelFilter, String> {
    match (common.quiet, common.verbose) {
        (true, _) => return Ok(LevelFilter::ERROR),
        (_, 0) => {}
        (_, 1) => return Ok(LevelFilter::INFO),
        (_, 2) => return Ok(LevelFilter::DEBUG),
        _ => return Ok(LevelFilter::TRACE),
    }
    match docker.log_level.as_deref() {
        _ if docker.debug => Ok(LevelFilter::DEBUG),
        None => Ok(LevelFilter::WARN),
        Some(name) => match name.to_ascii_lowercase().as_str() {
            "debug" => Ok(LevelFilter::DEBUG),
            "info" => Ok(LevelFilter::INFO),
            "warn" | "warning" => Ok(LevelFilter::WARN),
            "error" | "fatal" | "panic" => Ok(LevelFilter::ERROR),
            "trace" => Ok(LevelFilter::TRACE),
            _ => Err(format!("invalid log level `{name}` of docker: expected debug, info, warn, error or fatal")),
        },
    }
}

/// Sends diagnostics to stderr. Those of libraries are limited to warnings, unless everything is asked for. Text has no
/// time stamps because it is meant for a terminal or the journal, which adds them; JSON has them.
fn start_diagnostics(level: LevelFilter, format: LogFormat) {
    let of_libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_target("logwatch", level).with_default(of_libraries);
    let layer = tracing_subscriber::fmt::layer().with_writer(move || output::Tracer::new(format)).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.without_time().with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let set = tracing_subscriber::registry().with(filter).with(layer).try_init();
    // Only a second call fails; the first one then stays in effect.
    debug_assert!(set.is_ok());
}

/// Asks the daemon for the names that completion needs; returns none on any error.
fn fetch_names(flags: &Flags, kind: complete::NameKind) -> complete::DaemonNames {
    use complete::{DaemonNames, NameKind};
    let Ok(endpoint) = Endpoint::resolve(flags, &Environment::of_process()) else {
        return DaemonNames::default();
    };
    let names = commands::query(endpoint, async |docker| {
        Ok(match kind {
            NameKind::Containers => {
                DaemonNames { containers: docker.list(&Filters::new()).await?, ..DaemonNames::default() }
            }
            NameKind::Networks => DaemonNames { networks: docker.networks().await?, ..DaemonNames::default() },
            NameKind::Volumes => DaemonNames { volumes: docker.volumes().await?, ..DaemonNames::default() },
        })
    });
    names.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_definitions() {
        command(true).debug_assert();
        command(false).debug_assert();
    }

    #[test]
    fn color_option_overrides_the_environment() {
        use When::{Always, Auto, Never};
        for (flag, no_color, force, expected) in [
            (Auto, None, None, Auto),
            (Auto, Some(""), Some(""), Auto),
            (Auto, Some("1"), None, Never),
            (Auto, Some("1"), Some("1"), Never),
            (Auto, None, Some("1"), Always),
            (Auto, None, Some("0"), Auto),
            (Always, Some("1"), None, Always),
            (Never, None, Some("1"), Never),
        ] {
            let variable = |name: &str| if name == "NO_COLOR" { no_color } else { force }.map(OsString::from);
            assert_eq!(color(flag, variable), expected, "{flag:?} NO_COLOR={no_color:?} CLICOLOR_FORCE={force:?}");
        }
    }

    #[test]
    fn verbosity_options_override_dockers_log_level() {
        for (line, expected) in [
            ("logwatch watch", Ok(LevelFilter::WARN)),
            ("logwatch -v watch", Ok(LevelFilter::INFO)),
            ("logwatch watch -vv", Ok(LevelFilter::DEBUG)),
            ("logwatch watch -vvv", Ok(LevelFilter::TRACE)),
            ("logwatch watch -q", Ok(LevelFilter::ERROR)),
            ("-D logwatch watch", Ok(LevelFilter::DEBUG)),
            ("-D logwatch watch -q", Ok(LevelFilter::ERROR)),
            ("-l info logwatch watch", Ok(LevelFilter::INFO)),
            ("-l FATAL logwatch watch", Ok(LevelFilter::ERROR)),
            ("-l error logwatch watch -v", Ok(LevelFilter::INFO)),
            (
                "-l loud logwatch watch",
                Err("invalid log level `loud` of docker: expected debug, info, warn, error or fatal"),
            ),
        ] {
            let invocation = plugin::split(line.split_whitespace().map(OsString::from).collect());
            let (docker, cli) = parse(command(true), invocation).unwrap();
            assert_eq!(level(&docker, &cli.common), expected.map_err(str::to_owned), "{line}");
        }
    }

    #[test]
    fn standalone_accepts_dockers_options_before_and_after_the_command() {
        let line = "-H unix:///s watch --tls=false --tlsverify --tlscacert a --tlscert b --tlskey c --config d";
        let flags = Flags {
            host: Some("unix:///s".into()),
            context: None,
            tls: Some(false),
            tlsverify: Some(true),
            tlscacert: Some("a".into()),
            tlscert: Some("b".into()),
            tlskey: Some("c".into()),
            config_dir: Some("d".into()),
        };
        let invocation = plugin::split(line.split_whitespace().map(OsString::from).collect());
        let (docker, _) = parse(command(false), invocation).unwrap();
        assert_eq!(docker, DockerFlags { endpoint: flags, ..DockerFlags::default() });
    }
}

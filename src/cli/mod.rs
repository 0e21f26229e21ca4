//! The command line: words in, one call of the engine out, an exit code back.
//!
//! [`main`] answers docker's own questions first ([`plugin`], [`complete`]), then reads our words with clap and hands the
//! options to the verb. The clap tree is the one place where a flag is described: help, completions and man pages all
//! come from it.

pub mod complete;
pub mod events;
pub mod hints;
pub mod man_pages;
mod man_text;
pub mod plugin;
pub mod pool;
pub mod reconcile;
pub mod shutdown;
pub mod time_arg;
pub mod watch;

use crate::config::{Config, ConfigInputs, Layers};
use crate::docker::{self, Endpoint, Environment, Flags, endpoint};
use crate::model::selector::Filters;
use crate::model::stop::Stop;
use crate::output::{Diagnostic, Level, LogFormat, When};
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

/// Follow the logs of every container: no line lost, none twice
#[derive(Clone, Debug, Parser)]
#[command(name = "docker-logwatch", version, after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    Watch(Box<watch::Watch>),
    Events(events::Events),
    Pool(pool::Pool),
    Reconcile(reconcile::Reconcile),
}

const EXAMPLES: &str = "\
Examples:
  Follow everything that runs, and whatever starts from now on
    $ docker logwatch watch

  See which containers match, and how each would be read
    $ docker logwatch watch --dry-run 'web-*'

  Keep a Compose project's records in a file
    $ docker logwatch watch -p shop --format json -o shop.jsonl";

/// Flags of every verb, below its own.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = GLOBAL, disable_help_flag = true)]
pub struct Common {
    /// Configuration [default: logwatch.yaml in docker's configuration folder]
    ///
    /// YAML. LOGWATCH_CONFIG_FILE names another as well, and each key has a variable of its own, such as
    /// LOGWATCH_WATCH_SOURCE for watch.source. Flags go before variables, and these before the file.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    config_file: Option<PathBuf>,

    /// Where else something is configured.
    #[arg(skip)]
    surroundings: ConfigInputs,

    /// What is kept between runs [default: ~/.local/state/docker-logwatch/state.db]
    ///
    /// Below `XDG_STATE_HOME` where that is set. An SQLite file. With it, or with `--resume`, `watch` keeps the inventory of
    /// `reconcile` fresh.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    state: Option<PathBuf>,

    /// Colour names and notices
    ///
    /// With `auto` the terminal decides, and before it `NO_COLOR` and `CLICOLOR_FORCE`.
    #[arg(long, global = true, value_name = "WHEN", value_parser = one_of(WHEN), default_value = "auto")]
    color: When,

    /// Say more on stderr; `-vv` still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// No notices and no status line
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Form of notices and diagnostics on stderr
    #[arg(
        long, global = true, value_name = "FORMAT", value_parser = one_of(LOG_FORMATS), default_value = "text",
        hide_short_help = true
    )]
    log_format: LogFormat,

    /// Print help, with `-h` in short
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

const GLOBAL: &str = "Global options";

// Docker's flags, for the program that runs on its own; a plugin has them taken off by `plugin::split`. No doc comment:
// it would become the program's.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Docker engine")]
struct OwnDocker {
    /// Engine, such as `unix:///run/docker.sock` [default: as docker finds it]
    #[arg(short = 'H', long, global = true, value_name = "HOST", conflicts_with = "context")]
    host: Option<String>,

    /// Docker context to use, instead of `DOCKER_HOST` and the current one
    #[arg(short, long, global = true, value_name = "CONTEXT")]
    context: Option<String>,

    /// Docker's configuration directory [default: ~/.docker]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, hide_short_help = true)]
    config: Option<PathBuf>,

    /// Use TLS, without verifying the engine
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", hide_short_help = true)]
    tls: Option<bool>,

    /// Use TLS and verify the engine
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", hide_short_help = true)]
    tlsverify: Option<bool>,

    /// Trust engines certified by this CA only
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    tlscacert: Option<PathBuf>,

    /// Our certificate
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    tlscert: Option<PathBuf>,

    /// Our key
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    tlskey: Option<PathBuf>,
}

impl From<OwnDocker> for DockerFlags {
    fn from(own: OwnDocker) -> Self {
        let OwnDocker { host, context, config, tls, tlsverify, tlscacert, tlscert, tlskey } = own;
        let endpoint = Flags { host, context, tls, tlsverify, tlscacert, tlscert, tlskey, config_dir: config };
        DockerFlags { endpoint, ..DockerFlags::default() }
    }
}

const WHEN: &[(&str, &str, When)] = &[
    ("auto", "On a terminal", When::Auto),
    ("always", "In any case", When::Always),
    ("never", "In no case", When::Never),
];

const LOG_FORMATS: &[(&str, &str, LogFormat)] =
    &[("text", "One line each", LogFormat::Text), ("json", "One object a line", LogFormat::Json)];

/// A parser that takes one of these words; each stands with its help text and its meaning.
fn one_of<T>(choices: &'static [(&str, &str, T)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let words = choices.iter().map(|(word, help, _)| PossibleValue::new(*word).help(*help));
    PossibleValuesParser::new(words).try_map(|given| {
        let choice = choices.iter().find(|(word, ..)| *word == given);
        choice.map(|(.., meaning)| *meaning).ok_or("unknown word")
    })
}

/// A number of what there has to be some of.
fn at_least_one<T: TryFrom<u64>>(text: &str) -> Result<T, &'static str> {
    let number: u64 = text.parse().ok().filter(|number| *number > 0).ok_or("expected a whole number, at least 1")?;
    number.try_into().map_err(|_| "that is too many")
}

/// A name that selects. An empty one is an unset variable in a script, most likely.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name cannot be empty".to_owned()) } else { Ok(text.to_owned()) }
}

impl Common {
    /// What is configured, or all that is wrong with it, a line each. The flags of a verb that have a key are laid over the
    /// rest; what was passed over is told.
    fn config(&self, flags: impl FnOnce(&mut Layers)) -> Result<Config, String> {
        let mut layers = Layers::read(&self.surroundings, self.config_file.as_deref());
        if let Some(state) = &self.state {
            layers.flag("state.path", "--state", |config| config.state = Some(state.clone()));
        }
        flags(&mut layers);
        let safe = |text: String| text.lines().map(output::safe).collect::<Vec<_>>().join("\n");
        let (config, warnings) = layers.settle().map_err(safe)?;
        for warning in warnings {
            tracing::warn!("{}", output::safe(&warning));
        }
        Ok(config)
    }

    /// Whether what takes long shall not be told of on the terminal.
    fn hides_status(&self) -> bool {
        self.quiet || self.log_format == LogFormat::Json
    }

    /// What the flag says, or else the environment (<https://no-color.org>, <https://bixense.com/clicolors>).
    fn color(&self) -> When {
        color(self.color, |name| std::env::var_os(name))
    }
}

/// The state file, or why there is no place for one.
fn state(config: &Config) -> Result<PathBuf, String> {
    let home = || std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".local/state"));
    let of_user = || std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let in_folder = |folder: PathBuf| folder.join("docker-logwatch/state.db");
    let state = config.state.clone().or_else(|| of_user().or_else(home).map(in_folder));
    state.ok_or_else(|| "there is no home folder to keep the state in: name a file with --state".to_owned())
}

fn color(flag: When, variable: impl Fn(&str) -> Option<OsString>) -> When {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    match flag {
        When::Auto if set("NO_COLOR").is_some() => When::Never,
        When::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => When::Always,
        flag => flag,
    }
}

/// Runs the program: reads the process's arguments, answers, and returns the exit code of the contract.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == plugin::METADATA) {
        return say(&plugin::metadata());
    }
    if words.first().is_some_and(|word| word == docker::SSH) {
        return ssh(&words[1..]);
    }
    let called = plugin::split(words);
    let command = command(called.as_plugin);
    if let Some(question) = complete::asked(&called.rest) {
        return say(&complete::answer(command, question, live));
    }
    if called.rest.first().is_some_and(|word| word == man_pages::WORD) {
        return man_pages::run(&called.rest[1..]);
    }
    let (as_plugin, format) = (called.as_plugin, log_format(&called.rest));
    match read(command, called) {
        Ok((docker, mut cli)) => {
            let folder = endpoint::config_dir(&docker.endpoint, &Environment::of_process());
            cli.common.surroundings = ConfigInputs { folder: Some(folder), variables: std::env::vars_os().collect() };
            run(docker, as_plugin, cli)
        }
        Err(error) => refuse_in(&error, format),
    }
}

/// Becomes ssh. What hinders that is said as ssh says it, to the process that started us.
fn ssh(words: &[OsString]) -> ExitCode {
    let error = docker::become_ssh(words);
    output::report(LogFormat::Text, &format!("cannot be started: {error}\n"));
    // As ssh ends itself on an error of its own.
    ExitCode::from(255)
}

/// The form of diagnostics that is asked for in words that cannot be read.
fn log_format(words: &[OsString]) -> LogFormat {
    let word = |at: usize| words.get(at).map(|word| word.to_string_lossy());
    let is_json = |at| match word(at) {
        Some(flag) if flag == "--log-format" => word(at + 1).is_some_and(|value| value == "json"),
        flag => flag.is_some_and(|flag| flag == "--log-format=json"),
    };
    if (0..words.len()).any(is_json) { LogFormat::Json } else { LogFormat::Text }
}

/// The clap tree as help, completion and parsing see it.
pub fn command(as_plugin: bool) -> Command {
    let command = Cli::command();
    if as_plugin {
        return command.bin_name("docker logwatch");
    }
    let on_its_own = |command: Command| match command.get_after_long_help() {
        Some(text) => {
            let text = text.to_string().replace("docker logwatch", "docker-logwatch");
            command.after_long_help(text)
        }
        None => command,
    };
    OwnDocker::augment_args(on_its_own(command).mut_subcommands(on_its_own)).bin_name("docker-logwatch")
}

fn read(command: Command, called: plugin::Invocation) -> Result<(DockerFlags, Cli), clap::Error> {
    let mut command = command.no_binary_name(true);
    let advise = |error| if called.as_plugin { put_before(error) } else { error };
    let matches = command.try_get_matches_from_mut(called.rest).map_err(advise)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let docker = match called.as_plugin {
        true => called.docker,
        false => OwnDocker::from_arg_matches(&matches)?.into(),
    };
    Ok((docker, cli))
}

/// Docker's own flags stand before our name; behind it they are unknown, and a user is told where they go.
fn put_before(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg).cloned() else {
        return error;
    };
    let own = OwnDocker::augment_args(Command::new("docker"));
    let is_dockers = own.get_arguments().any(|argument| {
        let short = argument.get_short().map(|letter| format!("-{letter}"));
        let long = argument.get_long().map(|word| format!("--{word}"));
        short.as_ref() == Some(&flag) || long.as_ref() == Some(&flag)
    });
    if is_dockers && error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::SuggestedArg);
        let advice = format!("`{flag}` is docker's own: put it before `logwatch`").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![advice]));
    }
    error
}

/// As [`refuse`], in the form of all diagnostics: what it is, and the tip that goes with it.
fn refuse_in(error: &clap::Error, format: LogFormat) -> ExitCode {
    if format == LogFormat::Text || !error.use_stderr() {
        return refuse(error);
    }
    let text = error.to_string();
    let mut parts = text.trim_end().split("\n\n").map(str::trim);
    let said = parts.next().unwrap_or_default();
    let message = said.strip_prefix("error: ").unwrap_or(said).split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = parts.find_map(|part| part.strip_prefix("tip: "));
    output::notice(format, said, Diagnostic { hint, ..Diagnostic::new(Level::Error, &message) });
    Exit::Usage.into()
}

/// Help and version are answers, all else is a usage error; clap knows which stream and code is whose.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = |is_terminal| match color(When::Auto, |name| std::env::var_os(name)).is_enabled(is_terminal) {
        true => error.render().ansi().to_string(),
        false => error.render().to_string(),
    };
    if error.use_stderr() {
        output::report(LogFormat::Text, &text(output::is_stderr_terminal()));
        return Exit::Usage.into();
    }
    say(&text(output::is_stdout_terminal()))
}

/// Writes an answer to stdout; a reader that went away had enough.
fn say(answer: &str) -> ExitCode {
    match output::answer(answer) {
        Ok(()) => Exit::Done.into(),
        Err(error) => hints::fail(&error, None, Exit::Failed, LogFormat::Text),
    }
}

fn run(docker: DockerFlags, as_plugin: bool, cli: Cli) -> ExitCode {
    match level(&docker, &cli.common) {
        Ok(level) => diagnose(level, cli.common.log_format),
        Err(message) => return misused(&message, cli.common.log_format),
    }
    match cli.verb {
        Verb::Watch(watch) => watch::run(&docker, as_plugin, *watch, &cli.common),
        Verb::Events(events) => events::run(&docker, as_plugin, events, &cli.common),
        Verb::Pool(pool) => pool::run(&docker, as_plugin, pool, &cli.common),
        Verb::Reconcile(reconcile) => reconcile::run(&docker, as_plugin, &reconcile, &cli.common),
    }
}

/// The engine that is meant.
fn endpoint(docker: &DockerFlags) -> Result<Endpoint, commands::Error> {
    let mut endpoint = Endpoint::resolve(&docker.endpoint, &Environment::of_process())?;
    // Though it may be replaced on disk while it runs.
    endpoint.program = Some("/proc/self/exe".into());
    for warning in &endpoint.warnings {
        tracing::warn!("{}", output::safe(warning));
    }
    Ok(endpoint)
}

/// Starts to listen for the order to stop, finds the engine and has the verb do its work.
fn carry_out(
    docker: &DockerFlags,
    as_plugin: bool,
    common: &Common,
    work: impl FnOnce(Endpoint, &Stop) -> Result<ExitCode, commands::Error>,
) -> ExitCode {
    let format = common.log_format;
    let stop = Stop::default();
    let caller = as_plugin.then(shutdown::Docker::of_process);
    if let Err(error) = shutdown::listen(stop.clone(), caller) {
        return hints::fail(&Deaf(error), None, Exit::Failed, format);
    }
    match endpoint(docker).and_then(|endpoint| work(endpoint, &stop)) {
        Ok(exit) => exit,
        Err(error) => hints::failed(&error, format),
    }
}

/// Without ears for the order to stop nothing would be flushed at the end.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals")]
struct Deaf(#[source] std::io::Error);

/// What cannot be meant, a line for each, in the form of all diagnostics.
fn misused(message: &str, format: LogFormat) -> ExitCode {
    match format {
        LogFormat::Text => {
            let text = message.replace('\n', "\nerror: ") + "\n";
            refuse(&clap::Error::raw(ErrorKind::ValueValidation, text))
        }
        LogFormat::Json => {
            for line in message.lines() {
                output::notice(format, line, Diagnostic::new(Level::Error, line));
            }
            Exit::Usage.into()
        }
    }
}

/// What is worth a diagnostic: our own flags first, then docker's `-D` and `-l`.
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
        Some(word) => match word.to_ascii_lowercase().as_str() {
            "debug" => Ok(LevelFilter::DEBUG),
            "info" => Ok(LevelFilter::INFO),
            "warn" | "warning" => Ok(LevelFilter::WARN),
            "error" | "fatal" | "panic" => Ok(LevelFilter::ERROR),
            "trace" => Ok(LevelFilter::TRACE),
            _ => Err(format!("docker's log level cannot be `{word}`, only debug, info, warn, error or fatal")),
        },
    }
}

/// Diagnostics go to stderr, those of the libraries below us only when they matter or everything is asked for. Text is for
/// a terminal or a journal, which knows the time; JSON may go anywhere.
fn diagnose(level: LevelFilter, format: LogFormat) {
    let theirs = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_target("logwatch", level).with_default(theirs);
    let layer = tracing_subscriber::fmt::layer().with_writer(move || output::Tracer::new(format)).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.without_time().with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let set = tracing_subscriber::registry().with(filter).with(layer).try_init();
    // Only a second call can fail, and then the first one's choice stands.
    debug_assert!(set.is_ok());
}

/// Asks the engine for names to complete; whatever fails, there are none.
fn live(flags: &Flags, want: complete::Want) -> complete::Live {
    let Ok(endpoint) = Endpoint::resolve(flags, &Environment::of_process()) else {
        return complete::Live::default();
    };
    let asked = commands::ask(endpoint, async |docker| {
        Ok(match want {
            complete::Want::Containers => {
                let containers = docker.list(true, &Filters::new()).await?;
                complete::Live { containers, ..Default::default() }
            }
            complete::Want::Networks => complete::Live { networks: docker.networks().await?, ..Default::default() },
            complete::Want::Volumes => complete::Live { volumes: docker.volumes().await?, ..Default::default() },
        })
    });
    asked.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clap_tree_holds_together() {
        command(true).debug_assert();
        command(false).debug_assert();
    }

    #[test]
    fn the_color_flag_goes_before_the_environment() {
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
    fn our_flags_set_the_level_before_dockers() {
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
                Err("docker's log level cannot be `loud`, only debug, info, warn, error or fatal"),
            ),
        ] {
            let called = plugin::split(line.split_whitespace().map(OsString::from).collect());
            let (docker, cli) = read(command(true), called).unwrap();
            assert_eq!(level(&docker, &cli.common), expected.map_err(str::to_owned), "{line}");
        }
    }

    #[test]
    fn on_our_own_dockers_flags_are_ours_before_and_behind_the_verb() {
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
        let called = plugin::split(line.split_whitespace().map(OsString::from).collect());
        let (docker, _) = read(command(false), called).unwrap();
        assert_eq!(docker, DockerFlags { endpoint: flags, ..DockerFlags::default() });
    }
}

//! The plugin protocol of the docker CLI: metadata, and docker's own options on our command line.
//!
//! [`split`] turns the arguments of the process into an [`Invocation`]: docker's global options, and the arguments for
//! us, which are not interpreted here. Docker passes its **whole** argument list to a plugin, so docker's global
//! options come before our name (docker/cli `cli-plugins/manager/manager.go`: PluginRunCommand). It parses them with
//! pflag, up to the first argument that is no option.

use crate::docker::Flags;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The name of the plugin, which follows `docker` on the command line.
pub(super) const NAME: &str = "logwatch";

/// The argument with which docker asks for the metadata: before each use of the plugin, and of all plugins for
/// `docker --help`, without a time limit.
pub(super) const METADATA: &str = "docker-cli-plugin-metadata";

/// The schema version that all docker versions accept. Up to 28.4, docker requires exactly this one.
const SCHEMA: &str = "0.1.0";

/// Returns the plugin metadata as JSON.
pub(super) fn metadata() -> String {
    let answer = serde_json::json!({
        "SchemaVersion": SCHEMA,
        "Vendor": "docker-logwatch",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Follow the logs of every container",
        "URL": env!("CARGO_PKG_REPOSITORY"),
    });
    format!("{answer:#}\n")
}

/// Docker's global flags that concern this program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DockerFlags {
    /// The options that select the Docker Engine and how to connect to it.
    pub endpoint: Flags,
    pub debug: bool,
    pub log_level: Option<String>,
}

/// The arguments of the process, separated into docker's and ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// Docker's options before our name. Empty if the program runs standalone: it then parses them itself.
    pub docker: DockerFlags,
    /// Whether docker runs the program as its plugin (`docker logwatch …`).
    pub as_plugin: bool,
    /// Our arguments, without our name. A request to docker for help on us becomes `help watch`.
    pub args: Vec<OsString>,
}

/// Separates docker's options from our arguments. Arguments that docker cannot have passed mean that the program runs
/// standalone. An environment variable of docker would be no proof: a shell that some plugin started has inherited it.
pub(super) fn split(args: Vec<OsString>) -> Invocation {
    match from_docker(&args) {
        Some(invocation) => invocation,
        None => Invocation { args, ..Invocation::default() },
    }
}

fn from_docker(args: &[OsString]) -> Option<Invocation> {
    let (global, args) = GlobalFlags::parse(args)?;
    let (first, rest) = args.split_first()?;
    let args = match (first.to_str()?, rest) {
        (NAME, rest) if global.help => help_for(rest),
        (NAME, _) if global.version => vec!["--version".into()],
        (NAME, rest) => rest.to_vec(),
        // Docker always passes the argument being typed, even if it is empty. So `__complete logwatch` without anything
        // after it comes from our own completion scripts, and `logwatch` is the argument being typed.
        (request @ ("help" | "__complete" | "__completeNoDesc"), [name, rest @ ..])
            if name == NAME && (request == "help" || !rest.is_empty()) =>
        {
            [first.clone()].into_iter().chain(rest.iter().cloned()).collect()
        }
        _ => return None,
    };
    Some(Invocation { docker: global.flags, as_plugin: true, args })
}

/// Turns `docker --help logwatch watch …` into `help watch`, whatever follows.
fn help_for(rest: &[OsString]) -> Vec<OsString> {
    let command = rest.first().filter(|arg| !arg.as_bytes().starts_with(b"-"));
    std::iter::once("help".into()).chain(command.cloned()).collect()
}

/// Docker's options before the first argument that is no option.
#[derive(Default)]
struct GlobalFlags {
    flags: DockerFlags,
    help: bool,
    version: bool,
}

impl GlobalFlags {
    /// Parses docker's options and returns them with the arguments that follow. Returns `None` for an option that
    /// docker does not have or that lacks its value: docker itself would have refused it.
    fn parse(mut args: &[OsString]) -> Option<(GlobalFlags, &[OsString])> {
        let mut global = GlobalFlags::default();
        while let Some((arg, rest)) = args.split_first() {
            match arg.as_bytes() {
                b"--" => return Some((global, rest)),
                [b'-', b'-', long @ ..] => args = global.long(long, rest)?,
                [b'-', shorts @ ..] if !shorts.is_empty() => args = global.shorts(shorts, rest)?,
                _ => break,
            }
        }
        Some((global, args))
    }

    fn long<'a>(&mut self, flag: &[u8], rest: &'a [OsString]) -> Option<&'a [OsString]> {
        let equals = flag.iter().position(|&byte| byte == b'=');
        let (name, value) = flag.split_at(equals.unwrap_or(flag.len()));
        let flag = Flag::with_name(std::str::from_utf8(name).ok()?)?;
        match value.split_first() {
            Some((_, value)) => self.set(flag, OsStr::from_bytes(value))?,
            None if flag.is_switch() => self.set(flag, OsStr::new("true"))?,
            None => return self.set_to_next(flag, rest),
        }
        Some(rest)
    }

    /// Parses `-D`, `-Dc foo`, `-Hv`, `-H=v` or `-H v`: several options without a value can share a dash, and the
    /// first one with a value ends them.
    fn shorts<'a>(&mut self, mut letters: &[u8], rest: &'a [OsString]) -> Option<&'a [OsString]> {
        while let Some((&letter, rest_of_arg)) = letters.split_first() {
            let flag = Flag::with_letter(letter)?;
            match rest_of_arg {
                [b'=', value @ ..] => return self.set(flag, OsStr::from_bytes(value)).map(|()| rest),
                _ if flag.is_switch() => self.set(flag, OsStr::new("true"))?,
                [] => return self.set_to_next(flag, rest),
                value => return self.set(flag, OsStr::from_bytes(value)).map(|()| rest),
            }
            letters = rest_of_arg;
        }
        Some(rest)
    }

    /// The value is the next argument, even if it is `--` or looks like an option.
    fn set_to_next<'a>(&mut self, flag: Flag, rest: &'a [OsString]) -> Option<&'a [OsString]> {
        let (value, rest) = rest.split_first()?;
        self.set(flag, value)?;
        Some(rest)
    }

    fn set(&mut self, flag: Flag, value: &OsStr) -> Option<()> {
        let text = || value.to_str().map(str::to_owned);
        let endpoint = &mut self.flags.endpoint;
        match flag {
            Flag::Config => endpoint.config_dir = Some(value.into()),
            Flag::Context => endpoint.context = Some(text()?),
            Flag::Host => endpoint.host = Some(text()?),
            Flag::Tls => endpoint.tls = Some(parse_bool(value)?),
            Flag::TlsVerify => endpoint.tlsverify = Some(parse_bool(value)?),
            Flag::TlsCaCert => endpoint.tlscacert = Some(unquoted(value).into()),
            Flag::TlsCert => endpoint.tlscert = Some(unquoted(value).into()),
            Flag::TlsKey => endpoint.tlskey = Some(unquoted(value).into()),
            Flag::Debug => self.flags.debug = parse_bool(value)?,
            Flag::LogLevel => self.flags.log_level = Some(text()?),
            Flag::Version => self.version = parse_bool(value)?,
            Flag::Help => self.help = parse_bool(value)?,
        }
        Some(())
    }
}

/// Docker's global flags (docker/cli `cli/flags/options.go`: InstallFlags).
#[derive(Clone, Copy)]
enum Flag {
    Config,
    Context,
    Debug,
    Help,
    Host,
    LogLevel,
    Tls,
    TlsCaCert,
    TlsCert,
    TlsKey,
    TlsVerify,
    Version,
}

impl Flag {
    fn with_name(name: &str) -> Option<Flag> {
        Some(match name {
            "config" => Flag::Config,
            "context" => Flag::Context,
            "debug" => Flag::Debug,
            "help" => Flag::Help,
            "host" => Flag::Host,
            "log-level" => Flag::LogLevel,
            "tls" => Flag::Tls,
            "tlscacert" => Flag::TlsCaCert,
            "tlscert" => Flag::TlsCert,
            "tlskey" => Flag::TlsKey,
            "tlsverify" => Flag::TlsVerify,
            "version" => Flag::Version,
            _ => return None,
        })
    }

    fn with_letter(letter: u8) -> Option<Flag> {
        Some(match letter {
            b'c' => Flag::Context,
            b'D' => Flag::Debug,
            b'h' => Flag::Help,
            b'H' => Flag::Host,
            b'l' => Flag::LogLevel,
            b'v' => Flag::Version,
            _ => return None,
        })
    }

    fn is_switch(self) -> bool {
        matches!(self, Flag::Debug | Flag::Help | Flag::Tls | Flag::TlsVerify | Flag::Version)
    }
}

/// Parses a boolean as Go's `strconv.ParseBool` does.
fn parse_bool(value: &OsStr) -> Option<bool> {
    match value.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// Removes quotes around a path. Up to version 28, docker does so for the `--tls*` paths, so that `--tlscert="…"`
/// works in files that no shell reads.
fn unquoted(value: &OsStr) -> &OsStr {
    match value.as_bytes() {
        [first @ (b'"' | b'\''), inner @ .., last] if first == last => OsStr::from_bytes(inner),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(|arg| if arg == "''" { "".into() } else { arg.into() }).collect()
    }

    fn check(line: &str, as_plugin: bool, ours: &str, docker: DockerFlags) {
        let expected = Invocation { docker, as_plugin, args: args(ours) };
        assert_eq!(split(args(line)), expected, "{line}");
    }

    fn endpoint(endpoint: Flags) -> DockerFlags {
        DockerFlags { endpoint, ..DockerFlags::default() }
    }

    fn host(host: &str) -> DockerFlags {
        endpoint(Flags { host: Some(host.into()), ..Flags::default() })
    }

    fn context(context: &str) -> DockerFlags {
        endpoint(Flags { context: Some(context.into()), ..Flags::default() })
    }

    #[test]
    fn our_arguments_follow_our_name() {
        for (line, ours) in [
            ("logwatch", ""),
            ("logwatch watch -x", "watch -x"),
            ("logwatch --context foo watch", "--context foo watch"),
            ("logwatch watch -- logwatch", "watch -- logwatch"),
            ("-- logwatch x", "x"),
            ("logwatch --help", "--help"),
            ("logwatch -h", "-h"),
            ("logwatch help watch", "help watch"),
            ("help logwatch", "help"),
            ("help logwatch watch", "help watch"),
            ("--help logwatch", "help"),
            ("-h logwatch", "help"),
            ("--help logwatch watch --tail 5", "help watch"),
            ("--help logwatch --tail", "help"),
            ("--help=false logwatch watch", "watch"),
            ("-v logwatch", "--version"),
            ("--version logwatch watch", "--version"),
            ("__complete logwatch watch --fo", "__complete watch --fo"),
            ("__complete logwatch ''", "__complete ''"),
            ("__completeNoDesc logwatch watch ''", "__completeNoDesc watch ''"),
        ] {
            check(line, true, ours, DockerFlags::default());
        }
    }

    #[test]
    fn without_our_name_the_program_runs_standalone() {
        for line in [
            "",
            "watch -x",
            "watch logwatch",
            "-v watch",
            "--color always watch",
            "-H unix:///s watch",
            "-c logwatch watch",
            "help",
            "help watch",
            "--help",
            "-h",
            "--version",
            "__complete watch --fo",
            "__complete logwatch",
            "__completeNoDesc ''",
            "--tls=perhaps logwatch watch",
            "--host",
            "-",
            "-x logwatch",
        ] {
            check(line, false, line, DockerFlags::default());
        }
    }

    #[test]
    fn every_form_of_dockers_options_is_parsed() {
        check("--context foo logwatch watch", true, "watch", context("foo"));
        check("--context=foo logwatch watch", true, "watch", context("foo"));
        check("-c foo logwatch", true, "", context("foo"));
        check("-cfoo logwatch", true, "", context("foo"));
        check("-c=foo logwatch", true, "", context("foo"));
        check("-c logwatch logwatch", true, "", context("logwatch"));
        check("-Dc foo logwatch", true, "", DockerFlags { debug: true, ..context("foo") });
        check("-DHv logwatch", true, "", DockerFlags { debug: true, ..host("v") });
        check("-D=false logwatch", true, "", DockerFlags::default());
        check("-H=unix:///s logwatch a", true, "a", host("unix:///s"));
        check("-H unix:///s logwatch a", true, "a", host("unix:///s"));
        check("-Hunix:///s logwatch a", true, "a", host("unix:///s"));
        check("--host=a=b -- logwatch a", true, "a", host("a=b"));
        check("-H -- logwatch a", true, "a", host("--"));
        let debug = DockerFlags { debug: true, log_level: Some("warn".into()), ..DockerFlags::default() };
        check("--debug --log-level warn logwatch", true, "", debug.clone());
        check("-Dlwarn logwatch", true, "", debug);
        let dir = endpoint(Flags { config_dir: Some("/etc/d".into()), ..Flags::default() });
        check("--config /etc/d logwatch watch", true, "watch", dir);
    }

    #[test]
    fn tls_options_can_be_false_and_lose_quotes() {
        let tls = |tls, tlsverify| endpoint(Flags { tls, tlsverify, ..Flags::default() });
        check("--tls logwatch", true, "", tls(Some(true), None));
        check("--tls=false logwatch", true, "", tls(Some(false), None));
        check("--tlsverify=0 --tls=T logwatch", true, "", tls(Some(true), Some(false)));
        let line = r#"-H tcp://h:1 --tlsverify --tlscacert F --tlscert="a.pem" --tlskey='k' logwatch watch -- a"#;
        let flags = Flags {
            host: Some("tcp://h:1".into()),
            tlsverify: Some(true),
            tlscacert: Some("F".into()),
            tlscert: Some("a.pem".into()),
            tlskey: Some("k".into()),
            ..Flags::default()
        };
        check(line, true, "watch -- a", endpoint(flags));
    }

    proptest! {
        /// Every value is returned unchanged, in whatever form it is attached, and so are the arguments after our name.
        #[test]
        fn values_are_unchanged_in_every_form(value in "[^\0]{1,12}", form in 0..5, rest: Vec<String>) {
            let global: Vec<String> = match form {
                0 => vec!["--host".into(), value.clone()],
                1 => vec![format!("--host={value}")],
                2 => vec!["-H".into(), value.clone()],
                3 => vec![format!("-DH={value}")],
                _ => vec![format!("-DH{value}")],
            };
            // In this form, a `=` at the start of the value belongs to the option.
            prop_assume!(form != 4 || !value.starts_with('='));
            let args = global.into_iter().chain(["logwatch".into()]).chain(rest.iter().cloned());
            let invocation = split(args.map(OsString::from).collect());
            prop_assert_eq!(invocation.docker.endpoint.host, Some(value));
            prop_assert_eq!(invocation.args, rest.into_iter().map(OsString::from).collect::<Vec<_>>());
        }

        #[test]
        fn standalone_arguments_are_unchanged(args: Vec<String>) {
            let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            let invocation = split(args.clone());
            prop_assert!(invocation.as_plugin || invocation.args == args);
        }
    }

    #[test]
    fn arguments_may_be_invalid_utf8() {
        let raw = OsStr::from_bytes(b"caf\xe9").to_owned();
        let invocation = split(vec!["--config".into(), raw.clone(), "logwatch".into(), raw.clone()]);
        assert_eq!(invocation.docker.endpoint.config_dir, Some(std::path::PathBuf::from(&raw)));
        assert_eq!(invocation.args, [raw]);
    }

    #[test]
    fn docker_accepts_the_metadata() {
        let answer: serde_json::Value = serde_json::from_str(&metadata()).unwrap();
        assert_eq!(answer["SchemaVersion"], "0.1.0");
        assert_eq!(answer["Version"], env!("CARGO_PKG_VERSION"));
        assert!(answer["Vendor"].as_str().is_some_and(|vendor| !vendor.is_empty()));
        assert_eq!(answer["ShortDescription"], "Follow the logs of every container");
    }
}

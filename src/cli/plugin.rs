//! Docker's handshake: what the docker CLI says to a plugin, before any word of our own.
//!
//! In: the words after the program's name. Out: whether docker asks for the metadata, or an [`Invocation`] with docker's
//! flags taken off. Called by [`crate::cli::main`]. Knows nothing of our flags.
//! Docker hands on its **whole** argument list, so its global flags stand before our own name (docker/cli
//! `cli-plugins/manager/manager.go`: PluginRunCommand); it parses them with pflag, up to the first word that is no flag.

use crate::docker::Flags;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The word behind `docker`.
pub const NAME: &str = "logwatch";

/// Docker runs us with this one word before each use, and with all plugins for `docker --help`, with no time limit.
pub const METADATA: &str = "docker-cli-plugin-metadata";

/// Answered by older and newer docker alike: up to 28.4 this very version is demanded.
const SCHEMA: &str = "0.1.0";

/// The answer to [`METADATA`].
pub fn metadata() -> String {
    let answer = serde_json::json!({
        "SchemaVersion": SCHEMA,
        "Vendor": "docker-logwatch",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Follow the logs of every container",
        "URL": env!("CARGO_PKG_REPOSITORY"),
    });
    format!("{answer:#}\n")
}

/// Docker's global flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerFlags {
    /// Those that choose the engine.
    pub endpoint: Flags,
    /// `-D`, `--debug`.
    pub debug: bool,
    /// `-l`, `--log-level`.
    pub log_level: Option<String>,
}

/// How we were called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// What docker was told before our name; empty when we run on our own, where these flags are ours.
    pub docker: DockerFlags,
    /// By docker, as `docker logwatch …`.
    pub as_plugin: bool,
    /// Our own words, without our name. Help asked of docker is put in our words: `help watch`.
    pub rest: Vec<OsString>,
}

/// Takes docker's words apart. A first word that docker cannot have sent means that we run on our own: an environment
/// variable would not do, for it is inherited by a shell that some plugin started.
pub fn split(words: Vec<OsString>) -> Invocation {
    match from_docker(&words) {
        Some(invocation) => invocation,
        None => Invocation { rest: words, ..Invocation::default() },
    }
}

fn from_docker(words: &[OsString]) -> Option<Invocation> {
    let (front, words) = Front::read(words)?;
    let (first, rest) = words.split_first()?;
    let rest = match (first.to_str()?, rest) {
        (NAME, rest) if front.help => help_for(rest),
        (NAME, _) if front.version => vec!["--version".into()],
        (NAME, rest) => rest.to_vec(),
        // Docker always sends the word being typed, be it empty: a lone `logwatch` here is such a word of our own.
        (word @ ("help" | "__complete" | "__completeNoDesc"), [name, rest @ ..])
            if name == NAME && (word == "help" || !rest.is_empty()) =>
        {
            [first.clone()].into_iter().chain(rest.iter().cloned()).collect()
        }
        _ => return None,
    };
    Some(Invocation { docker: front.flags, as_plugin: true, rest })
}

/// `docker --help logwatch watch …` is `help watch`, whatever follows.
fn help_for(rest: &[OsString]) -> Vec<OsString> {
    let verb = rest.first().filter(|word| !word.as_bytes().starts_with(b"-"));
    std::iter::once("help".into()).chain(verb.cloned()).collect()
}

/// What stands before the first word that is no flag.
#[derive(Default)]
struct Front {
    flags: DockerFlags,
    help: bool,
    version: bool,
}

impl Front {
    /// Reads docker's flags and returns the words behind them; `None` when a flag is not docker's or lacks its value,
    /// for docker refuses those itself.
    fn read(mut words: &[OsString]) -> Option<(Front, &[OsString])> {
        let mut front = Front::default();
        while let Some((word, rest)) = words.split_first() {
            match word.as_bytes() {
                b"--" => return Some((front, rest)),
                [b'-', b'-', long @ ..] => words = front.long(long, rest)?,
                [b'-', shorts @ ..] if !shorts.is_empty() => words = front.shorts(shorts, rest)?,
                _ => break,
            }
        }
        Some((front, words))
    }

    fn long<'a>(&mut self, flag: &[u8], rest: &'a [OsString]) -> Option<&'a [OsString]> {
        let equals = flag.iter().position(|&byte| byte == b'=');
        let (name, value) = flag.split_at(equals.unwrap_or(flag.len()));
        let flag = Flag::named(std::str::from_utf8(name).ok()?)?;
        match value.split_first() {
            Some((_, value)) => self.set(flag, OsStr::from_bytes(value))?,
            None if flag.is_switch() => self.set(flag, OsStr::new("true"))?,
            None => return self.take(flag, rest),
        }
        Some(rest)
    }

    /// `-D`, `-Dc foo`, `-Hv`, `-H=v`, `-H v`: switches may be joined, and the first flag with a value ends them.
    fn shorts<'a>(&mut self, mut letters: &[u8], rest: &'a [OsString]) -> Option<&'a [OsString]> {
        while let Some((&letter, behind)) = letters.split_first() {
            let flag = Flag::lettered(letter)?;
            match behind {
                [b'=', value @ ..] => return self.set(flag, OsStr::from_bytes(value)).map(|()| rest),
                _ if flag.is_switch() => self.set(flag, OsStr::new("true"))?,
                [] => return self.take(flag, rest),
                value => return self.set(flag, OsStr::from_bytes(value)).map(|()| rest),
            }
            letters = behind;
        }
        Some(rest)
    }

    /// The value is the next word, be it `--` or look like a flag.
    fn take<'a>(&mut self, flag: Flag, rest: &'a [OsString]) -> Option<&'a [OsString]> {
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
            Flag::Tls => endpoint.tls = Some(truth(value)?),
            Flag::TlsVerify => endpoint.tlsverify = Some(truth(value)?),
            Flag::TlsCaCert => endpoint.tlscacert = Some(unquoted(value).into()),
            Flag::TlsCert => endpoint.tlscert = Some(unquoted(value).into()),
            Flag::TlsKey => endpoint.tlskey = Some(unquoted(value).into()),
            Flag::Debug => self.flags.debug = truth(value)?,
            Flag::LogLevel => self.flags.log_level = Some(text()?),
            Flag::Version => self.version = truth(value)?,
            Flag::Help => self.help = truth(value)?,
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
    fn named(name: &str) -> Option<Flag> {
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

    fn lettered(letter: u8) -> Option<Flag> {
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

/// The words that Go's `strconv.ParseBool` takes.
fn truth(value: &OsStr) -> Option<bool> {
    match value.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// Docker up to 28 takes off quotes around the `--tls*` paths, for `--tlscert="…"` in files that no shell reads.
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

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(|word| if word == "''" { "".into() } else { word.into() }).collect()
    }

    fn check(line: &str, as_plugin: bool, rest: &str, docker: DockerFlags) {
        let expected = Invocation { docker, as_plugin, rest: words(rest) };
        assert_eq!(split(words(line)), expected, "{line}");
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
    fn our_words_stand_behind_our_name() {
        for (line, rest) in [
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
            check(line, true, rest, DockerFlags::default());
        }
    }

    #[test]
    fn without_our_name_in_front_every_word_is_ours() {
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
    fn every_form_of_dockers_own_flags_is_read() {
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
    fn the_tls_flags_tell_false_from_absent_and_lose_their_quotes() {
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
        /// However a value is attached, it arrives, and what stands behind our name is not looked at.
        #[test]
        fn any_value_survives_any_form(value in "[^\0]{1,12}", form in 0..5, rest: Vec<String>) {
            let front: Vec<String> = match form {
                0 => vec!["--host".into(), value.clone()],
                1 => vec![format!("--host={value}")],
                2 => vec!["-H".into(), value.clone()],
                3 => vec![format!("-DH={value}")],
                _ => vec![format!("-DH{value}")],
            };
            // In this form a value's own `=` in front is the flag's.
            prop_assume!(form != 4 || !value.starts_with('='));
            let words = front.into_iter().chain(["logwatch".into()]).chain(rest.iter().cloned());
            let invocation = split(words.map(OsString::from).collect());
            prop_assert_eq!(invocation.docker.endpoint.host, Some(value));
            prop_assert_eq!(invocation.rest, rest.into_iter().map(OsString::from).collect::<Vec<_>>());
        }

        #[test]
        fn words_that_docker_did_not_send_stay_as_they_are(words: Vec<String>) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let invocation = split(words.clone());
            prop_assert!(invocation.as_plugin || invocation.rest == words);
        }
    }

    #[test]
    fn a_word_that_is_no_text_survives() {
        let raw = OsStr::from_bytes(b"caf\xe9").to_owned();
        let invocation = split(vec!["--config".into(), raw.clone(), "logwatch".into(), raw.clone()]);
        assert_eq!(invocation.docker.endpoint.config_dir, Some(std::path::PathBuf::from(&raw)));
        assert_eq!(invocation.rest, [raw]);
    }

    #[test]
    fn the_metadata_are_what_docker_accepts() {
        let answer: serde_json::Value = serde_json::from_str(&metadata()).unwrap();
        assert_eq!(answer["SchemaVersion"], "0.1.0");
        assert_eq!(answer["Version"], env!("CARGO_PKG_VERSION"));
        assert!(answer["Vendor"].as_str().is_some_and(|vendor| !vendor.is_empty()));
        assert_eq!(answer["ShortDescription"], "Follow the logs of every container");
    }
}

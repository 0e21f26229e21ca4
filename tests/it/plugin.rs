//! The program as docker's plugin, and completion in each shell.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

use serde_json::Value;

use crate::support::cli::{BINARY, check, here, outcome, quiet, run};
use crate::support::{Answer, Engine, PATIENCE, Request, Script, Signal, Watch, documented, eventually, keys, process};

const WATCH: &str = "Follow the logs of every matching container, including those that start later";

/// The keys that a section of a man page lists.
fn explained(page: &str, section: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(here("man").join(page)).unwrap().replace("\\-", "-");
    let (_, behind) = text.split_once(&format!("{section}\n")).unwrap_or_else(|| panic!("{page} has no {section}"));
    let end = [".SH", ".SS"].iter().filter_map(|mark| behind.find(mark)).min().unwrap_or(behind.len());
    let terms = behind[..end].split(".TP\n\\fB").skip(1).filter_map(|entry| entry.split_once("\\fR\n"));
    terms.flat_map(|(terms, _)| terms.split(", ").map(str::to_owned)).collect()
}

/// Every key in a JSON value, at any depth.
fn all_keys(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => {
            members.iter().flat_map(|(key, value)| all_keys(value).into_iter().chain([key.clone()])).collect()
        }
        Value::Array(values) => values.iter().flat_map(all_keys).collect(),
        _ => BTreeSet::new(),
    }
}

/// Every key that is written is explained, and no other one.
#[test]
fn manual_and_documents_explain_every_key() {
    let engine = Engine::start();
    let compose = ["--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=web"];
    let watch = Watch::ready(&engine, &["--metadata", "--lifecycle", "--max-line-size", "8"]);
    let id = engine.run("web", &compose, &["--count", "3"]);
    watch.wait_for_ends(1);
    let mut records = watch.stop().records();
    let log = engine.data().join(format!("containers/{id}/{id}-json.log"));
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen('\n', "\nno record\n", 1)).unwrap();
    records.extend(Watch::start(&engine, &["--format", "json", "--no-follow", "web"]).finish().records());
    records.extend(Watch::start(&engine, &["--format", "json", "--dry-run"]).finish().records());
    let whole = Watch::start(&engine, &["--format", "json", "--no-follow", "-n", "1", "web"]).finish().lines();
    assert_eq!(keys(&whole[0]), keys(documented("{\"type\":\"log\"")));
    for kind in ["log", "gap", "lifecycle", "plan"] {
        let of_kind = records.iter().filter(|record| record["type"] == kind).filter_map(Value::as_object);
        let written: BTreeSet<String> = of_kind.flat_map(|record| record.keys().cloned()).collect();
        let mut reported = explained("docker-logwatch-watch.1", &format!(".SS {kind}"));
        reported.insert("type".into());
        assert_eq!(reported, written, "{kind}");
        let keys_of_kind =
            documented(&format!("| `{kind}` | ")).split('`').skip(3).step_by(2).filter(|word| !word.starts_with('-'));
        let mut reported: BTreeSet<String> = keys_of_kind.map(str::to_owned).collect();
        reported.insert("type".into());
        assert_eq!(reported, written, "{kind} in docs/watch.md");
    }
    let state = engine.home().join("state.db");
    for (subcommand, args) in
        [("pool", &["--requests", "10"][..]), ("reconcile", &["--details", "--state", state.to_str().unwrap()])]
    {
        let args = [args, &["--format", "json"]].concat();
        let report = Watch::subcommand(&engine, subcommand, &args).finish().records().remove(0);
        let page = format!("docker-logwatch-{subcommand}.1");
        let written: BTreeSet<String> = report.as_object().unwrap().keys().cloned().collect();
        let intro = fs::read_to_string(here("man").join(&page)).unwrap();
        let (_, intro) = intro.split_once(".SH REPORT\n").unwrap();
        let heading = format!(".SH REPORT\n{}", intro.lines().next().unwrap().replace("\\-", "-"));
        assert_eq!(explained(&page, &heading), written, "{subcommand}");
        let deeper = all_keys(&report);
        let unnamed: Vec<_> =
            deeper.iter().filter(|key| !written.contains(*key) && !intro.contains(&format!("`{key}`"))).collect();
        assert_eq!(unnamed, Vec::<&String>::new(), "{subcommand}");
    }
}

/// What a shell offers for a line with the committed script: candidates in the form of that shell, and how completion
/// continues.
fn offered(shell: &str, typed: &str, host: &str) -> String {
    let (file, options, driver) = match shell {
        "bash" => (
            "docker-logwatch.bash",
            &["--norc", "--noprofile"][..],
            r#"
            compopt() { echo "compopt $*"; }
            source "$1"
            # As readline cuts it.
            COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=($(sed 's/[=:]/ & /g' <<<"$2"))
            [[ $2 == *' ' ]] && COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _docker_logwatch
            printf '%s\n' "${COMPREPLY[@]}""#,
        ),
        "zsh" => (
            "_docker-logwatch",
            &["-f"][..],
            r#"
            compdef() {}
            compset() { IPREFIX=${PREFIX%%\=*}= PREFIX=${PREFIX#*=}; print -r -- "behind $IPREFIX" }
            _describe() { print -rl -- "${(@P)3}" "${@[4]}" }
            _files() { print -r -- files "$@" }
            source "$1"
            words=("${(@s: :)2}") CURRENT=${#words} PREFIX=${words[-1]}
            _docker-logwatch"#,
        ),
        _ => ("docker-logwatch.fish", &["--no-config"][..], "source $argv[1]; complete -C $argv[2]"),
    };
    let programs = Path::new(BINARY).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut command = quiet(shell);
    command.args(options).args(["-c", driver]);
    // bash and zsh take the first argument as the name of the script, fish does not.
    command.args(Some("driver").filter(|_| shell != "fish"));
    command.arg(here("completions").join(file)).arg(typed).current_dir("/").env("PATH", path).env("DOCKER_HOST", host);
    let output = command.output().unwrap_or_else(|error| panic!("{shell} must be installed for these tests: {error}"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}: {typed}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}

/// The committed scripts offer the same candidates in bash, zsh and fish.
#[test]
fn each_shell_completes_as_docker_does() {
    let script = Script::start(|request: &Request, answer: &mut Answer| {
        let listed = |letter: &str, name: &str| {
            format!(
                r#"{{"Id":"{}","Names":["/{name}"],"Image":"img","State":"running","Labels":{{"a":"b"}}}}"#,
                letter.repeat(64)
            )
        };
        match request.path.split('?').next().unwrap() {
            "/_ping" => answer.json(200, "OK"),
            "/containers/json" => answer.json(200, &format!("[{},{}]", listed("a", "web-1"), listed("b", "web-2"))),
            _ => answer.json(404, r#"{"message":"not in the script"}"#),
        }
    });
    let never = "never\tNever";
    for (typed, bash, zsh, fish) in [
        ("docker-logwatch wa", "watch", format!("watch:{WATCH}"), format!("watch\t{WATCH}")),
        ("docker-logwatch watch ", "web-1 | web-2", "web-1:img | web-2:img".into(), "web-1\timg | web-2\timg".into()),
        (
            "docker-logwatch watch -q -f name=w",
            "web-1 | web-2",
            "name=web-1:img | name=web-2:img".into(),
            "name=web-1\timg | name=web-2\timg".into(),
        ),
        (
            "docker-logwatch watch --filter=na",
            "compopt -o nospace | name=",
            "behind --filter= | name=:Name, as a regular expression | -S".into(),
            "--filter=name=\tName, as a regular expression".into(),
        ),
        (
            "docker-logwatch watch --filter=label=a=",
            "b",
            "behind --filter= | label=a=b".into(),
            "--filter=label=a=b".into(),
        ),
        (
            "docker-logwatch watch --color=n",
            "never",
            "behind --color= | never:Never".into(),
            format!("--color={never}"),
        ),
        ("docker-logwatch watch -o etc/hostn", "compopt -o default", "files".into(), "etc/hostname".into()),
        (
            "docker-logwatch watch --output=etc/hostn",
            "compopt -o default",
            "behind --output= | files".into(),
            "--output=etc/hostname".into(),
        ),
        ("docker-logwatch --config et", "compopt -o dirnames", "files -/".into(), "etc/\tDirectory".into()),
        ("docker-logwatch watch --since ", "", String::new(), String::new()),
    ] {
        let reported = ["bash", "zsh", "fish"].map(|shell| offered(shell, typed, &script.host()));
        assert_eq!(reported, [bash.to_owned(), zsh, fish], "{typed}");
    }
}

/// A docker configuration with us as a plugin.
struct Docker {
    config: TempDir,
}

impl Docker {
    fn with_us() -> Docker {
        let config = TempDir::new().unwrap();
        fs::create_dir(config.path().join("cli-plugins")).unwrap();
        symlink(BINARY, config.path().join("cli-plugins/docker-logwatch")).unwrap();
        Docker { config }
    }

    fn run(&self, line: &str) -> Output {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &str, last: &[&str]) -> Output {
        let mut docker = quiet("docker");
        docker.env("DOCKER_CONFIG", self.config.path()).args(line.split_whitespace()).args(last);
        docker.output().expect("the docker CLI must be installed for these tests")
    }
}

/// The major version of the docker CLI in PATH.
fn docker_major() -> u32 {
    let output = quiet("docker").arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.strip_prefix("Docker version ").unwrap();
    version.split('.').next().unwrap().parse().unwrap()
}

/// `docker --help` lists the plugin with its description.
#[test]
fn docker_lists_us_as_a_plugin() {
    let docker = Docker::with_us();
    let help = String::from_utf8(docker.run("--help").stdout).unwrap();
    let entry = help.lines().find(|line| line.trim().starts_with("logwatch*"));
    assert!(entry.is_some_and(|line| line.contains("Follow the logs of every container")), "{help}");
    assert!(!help.contains("Invalid Plugins"), "{help}");
}

/// Each way to ask docker for help prints our help.
#[test]
fn docker_passes_on_every_help_request() {
    let docker = Docker::with_us();
    for (line, ours) in [
        ("logwatch --help", "logwatch --help"),
        ("logwatch -h", "logwatch -h"),
        ("help logwatch", "logwatch --help"),
        ("help logwatch watch", "logwatch watch --help"),
        ("--help logwatch", "logwatch --help"),
        ("logwatch help", "logwatch --help"),
        ("logwatch watch --help", "logwatch watch --help"),
        ("logwatch help watch", "logwatch watch --help"),
        ("--context default logwatch watch -h", "logwatch watch -h"),
        ("-D logwatch watch -h", "logwatch watch -h"),
        ("-H unix:///nowhere logwatch watch -h", "logwatch watch -h"),
    ] {
        let mut output = docker.run(line);
        // With -D the CLI of Docker 26.1 prints debug messages of its own.
        let is_of_docker = |line: &&str| line.starts_with("time=") && line.contains("level=debug");
        let stderr = String::from_utf8(output.stderr).unwrap();
        output.stderr = stderr.split_inclusive('\n').filter(|line| !is_of_docker(line)).collect::<String>().into();
        assert_eq!(outcome(&output), outcome(&run(ours)), "{line}");
    }
}

/// docker ends with the plugin's exit code.
#[test]
fn docker_passes_on_our_exit_code() {
    let docker = Docker::with_us();
    let output = docker.run("logwatch watch --nope");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.lines().next()),
        (Some(2), Some("error: unexpected argument '--nope' found"))
    );
}

/// This holds even when there is no context of that name.
#[test]
fn dockers_context_reaches_us() {
    let output = Docker::with_us().run("--context nosuch logwatch watch --no-follow");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuch"), "{}", outcome(&output));
    assert_eq!(&*output.stdout, b"");
}

/// docker's completion returns what ours does.
#[test]
fn docker_completes_our_arguments() {
    if docker_major() < 23 {
        // Older versions leave completion to their own shell script, which calls us directly.
        return check("__completeNoDesc watch --tai", "exit 0\n--- stdout\n--tail\n:4\n--- stderr\n");
    }
    let docker = Docker::with_us();
    for (line, last, expected) in [
        (
            "__complete logwatch",
            "wa",
            "watch\tFollow the logs of every matching container, including those that start later\n:4\n",
        ),
        (
            "__complete logwatch watch",
            "--no-",
            "--no-follow\tExit at the end of the logs instead of following them\n:4\n",
        ),
        (
            "__complete logwatch watch --format",
            "",
            "text\t`NAME | MESSAGE`, aligned, in colour on a terminal\njson\tOne JSON object per line\nraw\tThe message only\n:4\n",
        ),
        (
            "__completeNoDesc logwatch watch",
            "-f",
            "-f\tOnly containers that `docker ps --filter` would list; repeatable\n:4\n",
        ),
        ("__complete logwatch watch -o", "", ":0\n"),
    ] {
        let output = docker.run_with(line, &[last]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{line} {last:?}");
        assert_eq!(output.status.code(), Some(0));
    }
    let flags = docker.run_with("__complete logwatch watch", &["--"]);
    let flags = String::from_utf8(flags.stdout).unwrap();
    for flag in ["--since\t", "--exclude-container\t", "--color\t", "--help\t"] {
        assert!(flags.lines().any(|line| line.starts_with(flag)), "{flag}: {flags}");
    }
}

/// `docker info` lists the plugin with its version and without an error.
#[test]
fn docker_accepts_our_metadata() {
    let output = Docker::with_us().run_with("info", &["--format", "{{json .ClientInfo.Plugins}}"]);
    let plugins: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let us = plugins.as_array().and_then(|all| all.iter().find(|plugin| plugin["Name"] == "logwatch"));
    let us = us.unwrap_or_else(|| panic!("{}", outcome(&output)));
    assert_eq!(us["Version"], env!("CARGO_PKG_VERSION"));
    assert!(us.get("Err").is_none_or(serde_json::Value::is_null), "{us}");
}

/// Docker before 25 does not pass on the signals that it receives to its plugins, and is ended only by SIGHUP, SIGKILL
/// or the third SIGTERM. A shell's `kill $!` reaches only docker.
#[test]
fn killing_docker_ends_us() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let plugins = engine.config_dir().join("cli-plugins");
    fs::create_dir(&plugins).unwrap();
    symlink(BINARY, plugins.join("docker-logwatch")).unwrap();
    for suite in ["bookworm", "unstable"] {
        let docker = engine.client_of(suite);
        for signal in [Signal::HUP, Signal::TERM, Signal::KILL] {
            let mut command = Command::new(&docker);
            engine.configure(&mut command);
            let watch = Watch::spawn(command.args(["logwatch", "watch"]));
            watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("+ beacon")), PATIENCE);
            let ours = process::children(watch.pid());
            assert_eq!(ours.len(), 1, "{suite}: {ours:?}");
            eventually("docker ended", || {
                watch.signal(signal);
                !process::lives(watch.pid())
            });
            eventually(&format!("{suite}: we ended after {signal:?}"), || !process::lives(ours[0]));
            let finished = watch.finish();
            assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        }
    }
}

//! The command line as a user and the docker CLI meet it: whole runs of the built program.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

use serde_json::Value;

use crate::support::{
    Answer, Engine, PATIENCE, Request, Script, Signal, Watch, eventually, keys, process, readme, watchdog,
};

const BINARY: &str = env!("CARGO_BIN_EXE_docker-logwatch");

const WATCH: &str = "Follow the logs of every matching container, including those that start later";

/// A command whose output depends on nothing around the test.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    watchdog::mark(&mut command);
    for variable in
        ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CLI_PLUGIN_SOCKET"]
    {
        command.env_remove(variable);
    }
    command
}

fn run(line: &str) -> Output {
    quiet(BINARY).args(line.split_whitespace()).output().unwrap()
}

/// Exit code, stdout and stderr, to compare whole.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy;
    let code = output.status.code().unwrap_or(-1);
    format!("exit {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

fn check(line: &str, expected: &str) {
    assert_eq!(told(&run(line)), expected, "{line}");
}

/// Compares with a committed file, or writes it when `UPDATE` is set.
fn golden(path: &Path, text: &[u8]) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, text).unwrap();
    }
    let committed = fs::read(path).unwrap_or_default();
    let (committed, text) = (String::from_utf8_lossy(&committed), String::from_utf8_lossy(text));
    let stale = committed.lines().zip(text.lines()).position(|(old, new)| old != new);
    assert!(
        committed == text,
        "{} is stale from line {} on; refresh it with `UPDATE=1 cargo test --test it`",
        path.display(),
        stale.unwrap_or_else(|| committed.lines().count().min(text.lines().count())) + 1,
    );
}

fn here(path: impl AsRef<Path>) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn help_reads_as_it_was_last_approved() {
    for (line, file) in [
        ("-h", "h.txt"),
        ("--help", "help.txt"),
        ("watch -h", "watch-h.txt"),
        ("watch --help", "watch-help.txt"),
        ("logwatch -h", "plugin-h.txt"),
        ("logwatch watch -h", "plugin-watch-h.txt"),
        ("events -h", "events-h.txt"),
        ("events --help", "events-help.txt"),
        ("pool --help", "pool-help.txt"),
        ("reconcile --help", "reconcile-help.txt"),
    ] {
        let output = run(line);
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{line}");
        golden(&here("tests/it/golden").join(file), &output.stdout);
    }
}

#[test]
fn short_help_fits_a_screen_and_long_help_ends_with_three_examples() {
    for line in ["-h", "watch -h", "logwatch -h", "logwatch watch -h", "events -h", "pool -h", "reconcile -h"] {
        let help = String::from_utf8(run(line).stdout).unwrap();
        let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(help.lines().count() <= 48 && widest <= 100, "{line}: {} x {widest}", help.lines().count());
    }
    for (line, prompt) in [
        ("--help", "$ docker-logwatch "),
        ("logwatch watch --help", "$ docker logwatch watch"),
        ("logwatch events --help", "$ docker logwatch events"),
    ] {
        let help = String::from_utf8(run(line).stdout).unwrap();
        let (_, examples) = help.split_once("\nExamples:\n").unwrap();
        assert_eq!(examples.lines().filter(|line| line.trim().starts_with(prompt)).count(), 3, "{line}");
    }
}

#[test]
fn every_example_of_the_help_is_understood() {
    for line in ["logwatch --help", "logwatch watch --help", "logwatch events --help"] {
        let help = String::from_utf8(run(line).stdout).unwrap();
        for example in help.lines().filter_map(|line| line.trim().strip_prefix("$ docker logwatch ")) {
            // `--help` behind it keeps the engine out; a flag not understood before it would be exit 2.
            let example = example.trim_end_matches(" |").split(" | ").next().unwrap();
            let line = format!("{BINARY} logwatch {example} --help");
            let output = quiet("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{line}");
        }
    }
}

#[test]
fn help_asked_of_docker_is_our_help() {
    for line in ["help logwatch", "logwatch help", "--help logwatch", "-h logwatch"] {
        assert_eq!(told(&run(line)), told(&run("logwatch --help")), "{line}");
    }
    for line in ["help logwatch watch", "logwatch help watch", "--help logwatch watch"] {
        assert_eq!(told(&run(line)), told(&run("logwatch watch --help")), "{line}");
    }
}

#[test]
fn a_usage_error_is_said_on_stderr_and_ends_with_2() {
    check(
        "logwatch watch --nope",
        "exit 2\n--- stdout\n--- stderr\n\
         error: unexpected argument '--nope' found\n\n  \
         tip: to pass '--nope' as a value, use '-- --nope'\n\n\
         Usage: docker logwatch watch [OPTIONS] [CONTAINER]...\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "watch --tial 5",
        "exit 2\n--- stdout\n--- stderr\n\
         error: unexpected argument '--tial' found\n\n  \
         tip: a similar argument exists: '--tail'\n\n\
         Usage: docker-logwatch watch --tail <N> [CONTAINER]...\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "logwatch watch -i a(b",
        "exit 2\n--- stdout\n--- stderr\n\
         error: invalid value 'a(b' for '--include <REGEX>': unclosed group\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "logwatch watch --since yesterday",
        "exit 2\n--- stdout\n--- stderr\n\
         error: invalid value 'yesterday' for '--since <TIME>': expected a span back from now (`10m`, `1h30m`, `2d`), a date \
         or time (`2026-11-20`, `2026-11-20T23:00:53`, `2026-11-20T23:00:53Z`), or Unix seconds (`1795215653.5`)\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "logwatch watch -f limit=1",
        "exit 2\n--- stdout\n--- stderr\n\
         error: invalid value 'limit=1' for '--filter <KEY=VALUE>': no filter is called `limit`; there are name, id, label, \
         ancestor, status, network, volume, health, before, since, exited, expose, publish, is-task\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "logwatch watch --since 100 --until 50",
        "exit 2\n--- stdout\n--- stderr\n\
         error: nothing lies between: --since is 1970-01-01T00:01:40.000000000Z, --until is 1970-01-01T00:00:50.000000000Z\n",
    );
    check(
        "logwatch watch --context far",
        "exit 2\n--- stdout\n--- stderr\n\
         error: unexpected argument '--context' found\n\n  \
         tip: `--context` is docker's own: put it before `logwatch`\n\n\
         Usage: docker logwatch watch [OPTIONS] [CONTAINER]...\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "wacth",
        "exit 2\n--- stdout\n--- stderr\n\
         error: unrecognized subcommand 'wacth'\n\n  \
         tip: a similar subcommand exists: 'watch'\n\n\
         Usage: docker-logwatch [OPTIONS] <COMMAND>\n\n\
         For more information, try '--help'.\n",
    );
}

#[test]
fn without_a_command_the_help_is_shown_as_an_error() {
    let (bare, asked) = (run("logwatch"), run("logwatch -h"));
    assert_eq!((bare.status.code(), &bare.stderr, &*bare.stdout), (Some(2), &asked.stdout, &b""[..]));
}

#[test]
fn the_version_is_told_in_every_way_to_ask() {
    let version = concat!("exit 0\n--- stdout\ndocker-logwatch ", env!("CARGO_PKG_VERSION"), "\n--- stderr\n");
    for line in ["--version", "-V", "logwatch --version", "-v logwatch"] {
        check(line, version);
    }
}

#[test]
fn the_metadata_are_answered_before_all_else() {
    let output = quiet(BINARY).env_clear().arg("docker-cli-plugin-metadata").output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    assert_eq!(answer["SchemaVersion"], "0.1.0");
}

#[test]
fn a_completion_request_is_answered_with_0_whatever_it_says() {
    let since = "exit 0\n--- stdout\n--since\tLines from here on: `10m`, `1h30m`, a date or time, Unix seconds\n:4\n--- stderr\n";
    check("__complete logwatch watch --si", since);
    let bare = "exit 0\n--- stdout\n--since\n:4\n--- stderr\n";
    check("__completeNoDesc logwatch watch --si", bare);
    check("__completeNoDesc watch --si", bare);
    check("__complete watch --si", since);
    check("__complete", "exit 0\n--- stdout\n:4\n--- stderr\n");
    check("__complete nonsense --nonsense=x y", "exit 0\n--- stdout\n:4\n--- stderr\n");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let line = format!(
        "{BINARY} --help | true; echo ${{PIPESTATUS[0]}}; {BINARY} docker-cli-plugin-metadata | true; echo ${{PIPESTATUS[0]}}"
    );
    let output = quiet("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(told(&output), "exit 0\n--- stdout\n0\n0\n--- stderr\n");
}

#[test]
fn the_committed_completions_and_man_pages_are_those_generated_now() {
    let dir = TempDir::new().unwrap();
    let output = quiet(BINARY).arg("generate").arg(dir.path()).output().unwrap();
    assert_eq!(told(&output), "exit 0\n--- stdout\n--- stderr\n");
    let mut names = Vec::new();
    for folder in ["completions", "man"] {
        for entry in fs::read_dir(dir.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = Path::new(folder).join(path.file_name().unwrap());
            golden(&here(&name), &fs::read(&path).unwrap());
            names.push(name);
        }
    }
    let committed = ["completions", "man"].iter().flat_map(|folder| fs::read_dir(here(folder)).unwrap());
    assert_eq!(
        committed.count(),
        names.len(),
        "a file is committed that is no longer generated; now there are {names:?}"
    );
}

/// The keys that a section of a man page explains: what is listed in it.
fn explained(page: &str, section: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(here("man").join(page)).unwrap().replace("\\-", "-");
    let (_, behind) = text.split_once(&format!("{section}\n")).unwrap_or_else(|| panic!("{page} has no {section}"));
    let end = [".SH", ".SS"].iter().filter_map(|mark| behind.find(mark)).min().unwrap_or(behind.len());
    let terms = behind[..end].split(".TP\n\\fB").skip(1).filter_map(|entry| entry.split_once("\\fR\n"));
    terms.flat_map(|(terms, _)| terms.split(", ").map(str::to_owned)).collect()
}

/// Every key in it, at whatever depth.
fn all_keys(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => {
            members.iter().flat_map(|(key, value)| all_keys(value).into_iter().chain([key.clone()])).collect()
        }
        Value::Array(values) => values.iter().flat_map(all_keys).collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn the_manual_and_the_readme_explain_every_key_that_is_written_and_no_other() {
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
    assert_eq!(keys(&whole[0]), keys(readme("{\"type\":\"log\"")));
    for kind in ["log", "gap", "lifecycle", "plan"] {
        let of_kind = records.iter().filter(|record| record["type"] == kind).filter_map(Value::as_object);
        let written: BTreeSet<String> = of_kind.flat_map(|record| record.keys().cloned()).collect();
        let mut told = explained("docker-logwatch-watch.1", &format!(".SS {kind}"));
        told.insert("type".into());
        assert_eq!(told, written, "{kind}");
        let words =
            readme(&format!("| `{kind}` | ")).split('`').skip(3).step_by(2).filter(|word| !word.starts_with('-'));
        let mut told: BTreeSet<String> = words.map(str::to_owned).collect();
        told.insert("type".into());
        assert_eq!(told, written, "{kind} in README.md");
    }
    let state = engine.home().join("state.db");
    for (verb, words) in
        [("pool", &["--requests", "10"][..]), ("reconcile", &["--details", "--state", state.to_str().unwrap()])]
    {
        let words = [words, &["--format", "json"]].concat();
        let report = Watch::verb(&engine, verb, &words).finish().records().remove(0);
        let page = format!("docker-logwatch-{verb}.1");
        let written: BTreeSet<String> = report.as_object().unwrap().keys().cloned().collect();
        let intro = fs::read_to_string(here("man").join(&page)).unwrap();
        let (_, intro) = intro.split_once(".SH \"REPORT\"\n").unwrap();
        let heading = format!(".SH \"REPORT\"\n{}", intro.lines().next().unwrap().replace("\\-", "-"));
        assert_eq!(explained(&page, &heading), written, "{verb}");
        let deeper = all_keys(&report);
        let unnamed: Vec<_> =
            deeper.iter().filter(|key| !written.contains(*key) && !intro.contains(&format!("`{key}`"))).collect();
        assert_eq!(unnamed, Vec::<&String>::new(), "{verb}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_ends_with_1() {
    check(
        "generate /dev/null/x",
        "exit 1\n--- stdout\n--- stderr\n\
         error: cannot write /dev/null/x/completions/docker-logwatch.bash\n  \
         caused by: Not a directory (os error 20)\n",
    );
    check(
        "generate",
        "exit 2\n--- stdout\n--- stderr\n\
         error: the following required arguments were not provided:\n  <DIR>\n\n\
         Usage: docker-logwatch generate <DIR>\n\n\
         For more information, try '--help'.\n",
    );
}

/// What a shell offers for a line, by the committed script: candidates in the form of that shell, then how it goes on.
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
    // Where bash and zsh have the name of the script, fish has its first argument.
    command.args(Some("driver").filter(|_| shell != "fish"));
    command.arg(here("completions").join(file)).arg(typed).current_dir("/").env("PATH", path).env("DOCKER_HOST", host);
    let output = command.output().unwrap_or_else(|error| panic!("{shell} must be installed for these tests: {error}"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}: {typed}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}

#[test]
fn each_shell_offers_what_docker_would() {
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
    let never = "never\tIn no case";
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
            "behind --color= | never:In no case".into(),
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
        let told = ["bash", "zsh", "fish"].map(|shell| offered(shell, typed, &script.host()));
        assert_eq!(told, [bash.to_owned(), zsh, fish], "{typed}");
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

#[test]
fn docker_takes_us_as_a_plugin() {
    let docker = Docker::with_us();
    let help = String::from_utf8(docker.run("--help").stdout).unwrap();
    let entry = help.lines().find(|line| line.trim().starts_with("logwatch*"));
    assert!(entry.is_some_and(|line| line.contains("Follow the logs of every container")), "{help}");
    assert!(!help.contains("Invalid Plugins"), "{help}");
}

#[test]
fn docker_hands_us_every_way_to_ask_for_help() {
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
        let of_docker = |line: &&str| line.starts_with("time=") && line.contains("level=debug");
        let stderr = String::from_utf8(output.stderr).unwrap();
        output.stderr = stderr.split_inclusive('\n').filter(|line| !of_docker(line)).collect::<String>().into();
        assert_eq!(told(&output), told(&run(ours)), "{line}");
    }
}

#[test]
fn docker_hands_on_our_exit_code_for_a_usage_error() {
    let docker = Docker::with_us();
    let output = docker.run("logwatch watch --nope");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.lines().next()),
        (Some(2), Some("error: unexpected argument '--nope' found"))
    );
}

#[test]
fn a_context_given_to_docker_reaches_us_even_when_there_is_none_such() {
    let output = Docker::with_us().run("--context nosuch logwatch watch --no-follow");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuch"), "{}", told(&output));
    assert_eq!(&*output.stdout, b"");
}

#[test]
fn docker_completes_our_words() {
    if docker_major() < 23 {
        // Older ones leave completion to a shell script of theirs, which asks us directly.
        return check("__completeNoDesc watch --tai", "exit 0\n--- stdout\n--tail\n:4\n--- stderr\n");
    }
    let docker = Docker::with_us();
    for (line, last, expected) in [
        (
            "__complete logwatch",
            "wa",
            "watch\tFollow the logs of every matching container, including those that start later\n:4\n",
        ),
        ("__complete logwatch watch", "--no-", "--no-follow\tRead what is there, then exit\n:4\n"),
        (
            "__complete logwatch watch --format",
            "",
            "text\t`NAME | MESSAGE`, aligned, and coloured on a terminal\njson\tOne object a line\nraw\tThe message alone\n:4\n",
        ),
        ("__completeNoDesc logwatch watch", "-f", "-f\tOnly containers that `docker ps --filter` would list\n:4\n"),
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

#[test]
fn docker_finds_our_metadata_valid() {
    let output = Docker::with_us().run_with("info", &["--format", "{{json .ClientInfo.Plugins}}"]);
    let plugins: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let us = plugins.as_array().and_then(|all| all.iter().find(|plugin| plugin["Name"] == "logwatch"));
    let us = us.unwrap_or_else(|| panic!("{}", told(&output)));
    assert_eq!(us["Version"], env!("CARGO_PKG_VERSION"));
    assert!(us.get("Err").is_none_or(serde_json::Value::is_null), "{us}");
}

/// Docker before 25 tells its plugins nothing of the signals that it gets, and dies of SIGHUP, SIGKILL and the third SIGTERM
/// alone; a shell's `kill $!` reaches nobody but docker.
#[test]
fn a_docker_that_is_killed_takes_us_along_whatever_its_version() {
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "0", "--idle"]);
    let plugins = engine.config_dir().join("cli-plugins");
    fs::create_dir(&plugins).unwrap();
    symlink(BINARY, plugins.join("docker-logwatch")).unwrap();
    for suite in ["bookworm", "unstable"] {
        let docker = engine.client_of(suite);
        for signal in [Signal::HUP, Signal::TERM, Signal::KILL] {
            let mut command = Command::new(&docker);
            engine.furnish(&mut command);
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

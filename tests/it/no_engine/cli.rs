//! The command line: help, usage errors, completion requests and the files generated from it.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::cli::{BINARY, check, here, outcome, quiet, run};

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

/// A change of any help page shows in a diff.
#[test]
fn help_matches_the_golden_files() {
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

/// The short help fits a screen, and the long help ends with three examples.
#[test]
fn help_fits_a_screen() {
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

/// Each example in a help page is accepted by the parser.
#[test]
fn every_example_parses() {
    for line in ["logwatch --help", "logwatch watch --help", "logwatch events --help"] {
        let help = String::from_utf8(run(line).stdout).unwrap();
        for example in help.lines().filter_map(|line| line.trim().strip_prefix("$ docker logwatch ")) {
            // `--help` after the example keeps it from connecting; an unknown option before it would end with 2.
            let example = example.trim_end_matches(" |").split(" | ").next().unwrap();
            let line = format!("{BINARY} logwatch {example} --help");
            let output = quiet("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{line}");
        }
    }
}

/// However docker asks for help, the page is the same.
#[test]
fn docker_help_is_our_help() {
    for line in ["help logwatch", "logwatch help", "--help logwatch", "-h logwatch"] {
        assert_eq!(outcome(&run(line)), outcome(&run("logwatch --help")), "{line}");
    }
    for line in ["help logwatch watch", "logwatch help watch", "--help logwatch watch"] {
        assert_eq!(outcome(&run(line)), outcome(&run("logwatch watch --help")), "{line}");
    }
}

/// A wrong argument is one message with a tip, and exit code 2.
#[test]
fn usage_errors_end_with_2() {
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
         error: invalid value 'yesterday' for '--since <TIME>': expected a duration before now (`10m`, `1h30m`, `2d`), a date \
         or time (`2026-11-20`, `2026-11-20T23:00:53`, `2026-11-20T23:00:53Z`), or Unix seconds (`1795215653.5`)\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "logwatch watch -f limit=1",
        "exit 2\n--- stdout\n--- stderr\n\
         error: invalid value 'limit=1' for '--filter <KEY=VALUE>': unknown filter `limit`; expected one of name, id, label, \
         ancestor, status, network, volume, health, before, since, exited, expose, publish, is-task\n\n\
         For more information, try '--help'.\n",
    );
    check(
        "logwatch watch --since 100 --until 50",
        "exit 2\n--- stdout\n--- stderr\n\
         error: `--since` (1970-01-01T00:01:40.000000000Z) is later than `--until` (1970-01-01T00:00:50.000000000Z)\n",
    );
    check(
        "logwatch watch --context far",
        "exit 2\n--- stdout\n--- stderr\n\
         error: unexpected argument '--context' found\n\n  \
         tip: `--context` is an option of docker: put it before `logwatch`\n\n\
         Usage: docker logwatch watch [OPTIONS] [CONTAINER]...\n\n\
         For more information, try '--help'.\n",
    );
    for (line, flag) in [("watch --folow", "--folow"), ("logwatch watch --follow", "--follow")] {
        let error = format!(
            "exit 2\n--- stdout\n--- stderr\n\
             error: unexpected argument '{flag}' found\n\n  \
             tip: `--follow` is the default; to exit at the end of the logs, use `--no-follow`\n\n\
             For more information, try '--help'.\n"
        );
        check(line, &error);
    }
    check(
        "wacth",
        "exit 2\n--- stdout\n--- stderr\n\
         error: unrecognized subcommand 'wacth'\n\n  \
         tip: a similar subcommand exists: 'watch'\n\n\
         Usage: docker-logwatch [OPTIONS] <COMMAND>\n\n\
         For more information, try '--help'.\n",
    );
}

/// Without a command the help goes to stderr, with exit code 2.
#[test]
fn without_a_command_the_help_is_an_error() {
    let (bare, asked) = (run("logwatch"), run("logwatch -h"));
    assert_eq!((bare.status.code(), &bare.stderr, &*bare.stdout), (Some(2), &asked.stdout, &b""[..]));
}

/// Each form that docker knows prints the version.
#[test]
fn every_way_to_ask_for_the_version() {
    let version = concat!("exit 0\n--- stdout\ndocker-logwatch ", env!("CARGO_PKG_VERSION"), "\n--- stderr\n");
    for line in ["--version", "-V", "logwatch --version", "-v logwatch"] {
        check(line, version);
    }
}

/// The metadata are printed whatever else is wrong.
#[test]
fn plugin_metadata_come_first() {
    let output = quiet(BINARY).env_clear().arg("docker-cli-plugin-metadata").output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    assert_eq!(answer["SchemaVersion"], "0.1.0");
}

/// A shell never sees an error, whatever is completed.
#[test]
fn completion_requests_always_end_with_0() {
    let since = "exit 0\n--- stdout\n--since\tStart at this time: `10m` or `1h30m` ago, a date or time, Unix seconds\n:4\n--- stderr\n";
    check("__complete logwatch watch --si", since);
    let bare = "exit 0\n--- stdout\n--since\n:4\n--- stderr\n";
    check("__completeNoDesc logwatch watch --si", bare);
    check("__completeNoDesc watch --si", bare);
    check("__complete watch --si", since);
    check("__complete", "exit 0\n--- stdout\n:4\n--- stderr\n");
    check("__complete nonsense --nonsense=x y", "exit 0\n--- stdout\n:4\n--- stderr\n");
}

/// A closed pipe ends the output with 0.
#[test]
fn a_reader_that_left_is_no_failure() {
    let line = format!(
        "{BINARY} --help | true; echo ${{PIPESTATUS[0]}}; {BINARY} docker-cli-plugin-metadata | true; echo ${{PIPESTATUS[0]}}"
    );
    let output = quiet("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(outcome(&output), "exit 0\n--- stdout\n0\n0\n--- stderr\n");
}

/// The generated files in the repository are those that the program generates.
#[test]
fn committed_completions_and_man_pages_are_current() {
    let dir = TempDir::new().unwrap();
    let output = quiet(BINARY).arg("generate").arg(dir.path()).output().unwrap();
    assert_eq!(outcome(&output), "exit 0\n--- stdout\n--- stderr\n");
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

/// A directory that cannot be written to is an error with its cause.
#[test]
fn an_unwritable_file_ends_with_1() {
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

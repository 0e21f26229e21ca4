//! A failure is one short message on stderr, with nothing on stdout and the documented exit code.
//! These tests need a real engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Engine, Numbers, PATIENCE, Watch, assert_failure, records};
use serde_json::Value;

/// The user `nobody`, without groups.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// Copies the built program to where every user may run it.
fn public_binary(engine: &Engine) -> PathBuf {
    let copy = engine.home().join("docker-logwatch");
    fs::copy(Watch::command().get_program(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn as_nobody(engine: &Engine, args: &[&str]) -> Watch {
    let mut command = Command::new("setpriv");
    engine.configure(&mut command);
    command.args(NOBODY).arg(engine.home().join("docker-logwatch")).args(args);
    Watch::spawn(&mut command)
}

/// With `--log-format json` each line of stderr is one object.
#[test]
fn diagnostics_and_notices_are_json_objects() {
    let engine = Engine::start();
    let args = ["-v", "--log-format", "json", "gone", "web", "--listen", "127.0.0.1:0"];
    let watch = Watch::start(&engine, &args);
    watch.wait_until_up();
    engine.run("web", &[], &["--count", "3"]);
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains("has ended")), PATIENCE);
    let said = records(watch.stop().stderr.lines());
    let reported = |name: Option<&str>| -> Vec<String> {
        let of = said.iter().filter(|said| said.get("container_name").and_then(Value::as_str) == name);
        of.map(|said| format!("{} {}", said["level"].as_str().unwrap(), said["message"].as_str().unwrap())).collect()
    };
    assert_eq!(reported(Some("web")), ["INFO is followed via file", "INFO has ended (exit 0)"]);
    let general = reported(None);
    for part in
        ["INFO serving metrics and health at http://", "INFO no container is called gone", "INFO delivered 3 lines"]
    {
        assert!(general.iter().any(|line| line.starts_with(part)), "{part}: {general:?}");
    }
    assert!(said.iter().all(|said| said["timestamp"].as_str().is_some_and(|time| time.ends_with('Z'))), "{said:?}");
}

/// The error explains how to get access to the socket, and the exit code is 3.
#[test]
fn a_forbidden_socket_has_a_hint() {
    let engine = Engine::start();
    public_binary(&engine);
    let reported = format!(
        "error: permission denied on the Docker socket at {}\n  caused by: Permission denied (os error 13)\n\
         hint: run as root, or as a member of the group that owns the socket (`docker`)\n",
        engine.host()
    );
    assert_failure(&as_nobody(&engine, &["watch"]).finish(), 3, &reported);
}

/// With access to the socket alone, logs are read through the engine, and one notice says so.
#[test]
fn without_file_rights_the_api_is_used() {
    let engine = Engine::start();
    public_binary(&engine);
    fs::set_permissions(engine.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    engine.run("early", &[], &["--count", "5", "--idle"]);
    let watch = as_nobody(&engine, &["watch", "--format", "json"]);
    watch.wait_for_count(5);
    engine.run("late", &[], &["--count", "2000", "--rate", "1000"]);
    watch.wait_for_ends(1);
    let finished = watch.stop();
    let lines = finished.lines();
    let numbers = Numbers::of_json(&lines);
    numbers.assert_whole("early", 1..=5);
    numbers.assert_whole("late", 1..=2000);
    assert!(lines.iter().all(|line| line.contains(r#""source":"stream""#)));
    let folder = engine.data().join("containers");
    let notice = format!(
        "no permission to read {}: reading through the engine instead (root can read the files directly)\n",
        folder.display()
    );
    assert_eq!(finished.stderr.matches("no permission").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(&notice), "{}", finished.stderr);

    let reported = format!(
        "error: no log file can be read in {}\n  caused by: Permission denied (os error 13)\n\
         hint: run as root, or read through the API with `--source stream`\n",
        folder.display()
    );
    assert_failure(&as_nobody(&engine, &["watch", "--source", "file"]).finish(), 1, &reported);
}

/// With `--no-follow` or `--dry-run` a missing container is an error; when following, it is waited for.
#[test]
fn a_missing_container_fails_unless_followed() {
    let engine = Engine::start();
    let reported = "error: no such container: web\n\
                hint: `docker ps -a` lists all containers; without --no-follow, watch waits for this one\n";
    assert_failure(&Watch::start(&engine, &["--no-follow", "web"]).finish(), 1, reported);
    for args in [&["--dry-run", "web"][..], &["--dry-run", "--no-follow", "web"]] {
        let reported = "error: no such container: web\nhint: `docker ps -a` lists all containers\n";
        assert_failure(&Watch::start(&engine, args).finish(), 1, reported);
    }
    let watch = Watch::start(&engine, &["--format", "json", "web"]);
    let notice = "no container is called web: waiting for it to be started (`docker ps -a` lists all containers)";
    watch.wait_for_notice(|lines| lines == [notice], PATIENCE);
    engine.run("other", &[], &["--count", "5"]);
    engine.run("web", &[], &["--count", "5"]);
    watch.wait_for_ends(1);
    let numbers = Numbers::of_json(&watch.stop().lines());
    numbers.assert_whole("web", 1..=5);
    assert_eq!(numbers.containers(), ["web"]);
}

/// A report that cannot be written is an error, not a success.
#[test]
fn reports_to_a_full_disk_fail() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1"]);
    let program = env!("CARGO_BIN_EXE_docker-logwatch");
    let subcommands =
        ["watch --dry-run", "pool", "pool --format json", "reconcile --dry-run", "events --since 1h --until 0s"];
    for subcommand in subcommands {
        let mut command = Command::new("sh");
        engine.configure(&mut command);
        command.env("XDG_STATE_HOME", engine.home()).args(["-c", &format!("{program} {subcommand} > /dev/full")]);
        let reported = "error: cannot write to stdout\n  caused by: No space left on device (os error 28)\nhint: free some space there\n";
        assert_failure(&Watch::spawn(&mut command).finish(), 1, reported);
    }
}

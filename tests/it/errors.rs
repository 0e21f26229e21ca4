//! What cannot be done is told in a few words on standard error, with nothing on standard output and the exit code of the
//! contract.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::{Answer, Engine, Finished, Numbers, PATIENCE, Request, Script, Watch, records};
use serde_json::Value;

/// Nobody, in no group.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// Runs it without anything of the caller's environment that would lead it to an engine.
fn run(variables: &[(&str, &str)], words: &[&str]) -> Finished {
    let mut command = Watch::command();
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS", "DOCKER_TLS_VERIFY"] {
        command.env_remove(name);
    }
    let none = tempfile::tempdir().unwrap();
    command.env("DOCKER_CONFIG", none.path()).envs(variables.iter().copied());
    Watch::spawn(command.args(words)).finish()
}

#[track_caller]
fn assert_told(finished: &Finished, code: i32, told: &str) {
    let stdout = String::from_utf8_lossy(&finished.stdout);
    assert_eq!((finished.code, &*stdout, &*finished.stderr), (Some(code), "", told));
}

#[test]
fn without_an_engine_it_says_where_it_looked_and_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let missing = format!("unix://{}", dir.path().join("missing.sock").display());
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let stale = format!("unix://{}", stale.display());
    for (host, why) in [
        (missing.as_str(), "No such file or directory (os error 2)"),
        (&stale, "Connection refused (os error 111)"),
        ("tcp://127.0.0.1:1", "Connection refused (os error 111)"),
    ] {
        let told = format!(
            "error: cannot reach the Docker engine at {host}\n  caused by: {why}\n\
             hint: check with `docker info` whether the daemon is running; -H and -c select another one\n"
        );
        assert_told(&run(&[], &["-H", host, "watch"]), 3, &told);
        assert_told(&run(&[("DOCKER_HOST", host)], &["watch", "--no-follow"]), 3, &told);
    }
}

#[test]
fn what_is_given_wrong_is_said_and_ends_with_2() {
    for (variables, words, part) in [
        (&[][..], &["watch", "--include", "["][..], "unclosed character class"),
        (&[], &["watch", "--since", "yesterday"], "--since"),
        (&[], &["watch", "--nonsense"], "--nonsense"),
        (&[], &["watch", "--tail", "many"], "--tail"),
        (&[], &["watch", "--filter", "colour=red"], "--filter"),
        (&[], &["-c", "nowhere", "watch"], "context \"nowhere\" does not exist"),
        (&[("DOCKER_CONTEXT", "nowhere")], &["watch"], "context \"nowhere\" does not exist"),
        (&[("DOCKER_HOST", "ftp://example.org")], &["watch"], "invalid host \"ftp://example.org\""),
        (&[], &["-H", "http://example.org", "watch"], "invalid host \"http://example.org\""),
        (&[("DOCKER_API_VERSION", "newest")], &["watch"], "invalid API version \"newest\""),
    ] {
        let finished = run(variables, words);
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(2), &b""[..]), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.lines().count() <= 10, "{words:?}: {}", finished.stderr);
    }
}

/// The built program where everybody may run it.
fn public_binary(engine: &Engine) -> PathBuf {
    let copy = engine.home().join("docker-logwatch");
    fs::copy(Watch::command().get_program(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn as_nobody(engine: &Engine, words: &[&str]) -> Watch {
    let mut command = Command::new("setpriv");
    engine.furnish(&mut command);
    command.args(NOBODY).arg(engine.home().join("docker-logwatch")).args(words);
    Watch::spawn(&mut command)
}

#[test]
fn as_objects_diagnostics_notices_and_refusals_are_all_alike() {
    let engine = Engine::start();
    let words = ["-v", "--log-format", "json", "gone", "web", "--listen", "127.0.0.1:0"];
    let watch = Watch::start(&engine, &words);
    watch.wait_until_up();
    engine.run("web", &[], &["--count", "3"]);
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.contains("has ended")), PATIENCE);
    let said = records(watch.stop().stderr.lines());
    let told = |name: Option<&str>| -> Vec<String> {
        let of = said.iter().filter(|said| said.get("container_name").and_then(Value::as_str) == name);
        of.map(|said| format!("{} {}", said["level"].as_str().unwrap(), said["message"].as_str().unwrap())).collect()
    };
    assert_eq!(told(Some("web")), ["INFO is followed by file", "INFO has ended (exit 0)"]);
    let general = told(None);
    for part in
        ["INFO serving metrics and health at http://", "INFO no container is called gone", "INFO passed on 3 lines"]
    {
        assert!(general.iter().any(|line| line.starts_with(part)), "{part}: {general:?}");
    }
    assert!(said.iter().all(|said| said["timestamp"].as_str().is_some_and(|time| time.ends_with('Z'))), "{said:?}");

    for (words, told) in [
        (&["watch", "--metadata"][..], &["`--metadata` requires `--format json`"][..]),
        (
            &["pool"],
            &[
                "LOGWATCH_EVENTS_ENABLED is `7`: expected `true` or `false`",
                "LOGWATCH_WATCH_SOURCE is `x`: expected one of auto, file, stream, rotate, poll",
            ],
        ),
        (&["watch", "--since", "now"], &["invalid value 'now' for '--since <TIME>': expected a duration before now"]),
        (&["watch", "--tial"], &["unexpected argument '--tial' found"]),
        (&["-H", "ftp://x", "events"], &["invalid host \"ftp://x\""]),
    ] {
        let variables: &[(&str, &str)] =
            if words == ["pool"] { &[("LOGWATCH_WATCH_SOURCE", "x"), ("LOGWATCH_EVENTS_ENABLED", "7")] } else { &[] };
        let finished = run(variables, &[words, &["--log-format", "json"]].concat());
        assert_eq!((finished.code, finished.stdout.len()), (Some(2), 0), "{words:?}");
        let said = records(finished.stderr.lines());
        assert_eq!(said.len(), told.len(), "{said:?}");
        for (said, told) in said.iter().zip(told) {
            assert_eq!(said["level"], "ERROR");
            assert!(said["message"].as_str().unwrap().starts_with(told), "{said}");
        }
    }
}

#[test]
fn without_rights_on_the_socket_it_says_how_to_get_them_and_ends_with_3() {
    let engine = Engine::start();
    public_binary(&engine);
    let told = format!(
        "error: permission denied on the Docker socket at {}\n  caused by: Permission denied (os error 13)\n\
         hint: run as root, or as a member of the group that owns the socket (`docker`)\n",
        engine.host()
    );
    assert_told(&as_nobody(&engine, &["watch"]).finish(), 3, &told);
}

#[test]
fn with_rights_on_the_socket_alone_it_reads_through_the_engine_and_says_so_once() {
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
        "no permission to read {}: reading through the engine instead (root reads the files themselves)\n",
        folder.display()
    );
    assert_eq!(finished.stderr.matches("no permission").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(&notice), "{}", finished.stderr);

    let told = format!(
        "error: no log file can be read in {}\n  caused by: Permission denied (os error 13)\n\
         hint: run as root, or read through the API with `--source stream`\n",
        folder.display()
    );
    assert_told(&as_nobody(&engine, &["watch", "--source", "file"]).finish(), 1, &told);
}

#[test]
fn a_container_that_is_not_there_is_an_error_once_read_and_is_waited_for_when_followed() {
    let engine = Engine::start();
    let told = "error: no such container: web\n\
                hint: `docker ps -a` lists all containers; without --no-follow, watch waits for this one\n";
    assert_told(&Watch::start(&engine, &["--no-follow", "web"]).finish(), 1, told);
    for words in [&["--dry-run", "web"][..], &["--dry-run", "--no-follow", "web"]] {
        let told = "error: no such container: web\nhint: `docker ps -a` lists all containers\n";
        assert_told(&Watch::start(&engine, words).finish(), 1, told);
    }
    let watch = Watch::start(&engine, &["--format", "json", "web"]);
    let notice = "no container is called web: waiting for it to be started (`docker ps -a` lists what there is)";
    watch.wait_for_notice(|lines| lines == [notice], PATIENCE);
    engine.run("other", &[], &["--count", "5"]);
    engine.run("web", &[], &["--count", "5"]);
    watch.wait_for_ends(1);
    let numbers = Numbers::of_json(&watch.stop().lines());
    numbers.assert_whole("web", 1..=5);
    assert_eq!(numbers.containers(), ["web"]);
}

/// An engine without containers that speaks from `oldest` to `newest`, in minor numbers.
fn speaking(oldest: u32, newest: u32) -> Script {
    speaking_after(oldest, newest, Duration::ZERO)
}

/// The same, which takes so long to answer the first question.
fn speaking_after(oldest: u32, newest: u32, pause: Duration) -> Script {
    Script::start(move |request: &Request, answer: &mut Answer| {
        if request.version.is_none() {
            thread::sleep(pause);
        }
        let minor = request.version.as_deref().map(|version| version.trim_start_matches("1.").parse::<u32>().unwrap());
        let refusal = match minor {
            Some(minor) if minor > newest => {
                Some(format!("client version 1.{minor} is too new. Maximum supported API version is 1.{newest}"))
            }
            Some(minor) if minor < oldest => {
                Some(format!("client version 1.{minor} is too old. Minimum supported API version is 1.{oldest}"))
            }
            _ => None,
        };
        let (status, body) = match (&refusal, request.path.split('?').next().unwrap()) {
            (Some(why), _) => ("400 Bad Request", format!("{{\"message\":\"{why}\"}}")),
            (None, "/_ping") => ("200 OK", "OK".to_owned()),
            (None, "/info") => ("200 OK", r#"{"ID":"x","DockerRootDir":"/nowhere"}"#.to_owned()),
            (None, "/containers/json") => ("200 OK", "[]".to_owned()),
            (None, "/events") => {
                answer.begin("application/json");
                return answer.hold();
            }
            (None, _) => ("404 Not Found", r#"{"message":"not in the script"}"#.to_owned()),
        };
        let body = if request.method == "HEAD" { String::new() } else { body };
        let head = format!("HTTP/1.1 {status}\r\nApi-Version: 1.{newest}\r\nConnection: close");
        answer.raw(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    })
}

#[test]
fn every_engine_is_spoken_to_in_its_own_version_or_refused_in_one_line() {
    for (oldest, newest, pinned, spoken) in
        [(12, 41, "", 41), (44, 52, "", 44), (24, 51, "", 44), (12, 41, "1.40", 40), (44, 52, "1.50", 50)]
    {
        let script = speaking(oldest, newest);
        let words = ["-H", &script.host(), "watch", "--no-follow"];
        assert_told(&run(&[("DOCKER_API_VERSION", pinned)], &words), 0, "no container matches\n");
        let requests = script.requests();
        let versioned = requests.iter().filter(|request| !request.ends_with(" /_ping"));
        let prefix = format!("GET /v1.{spoken}/");
        assert!(versioned.clone().count() >= 2 && versioned.clone().all(|r| r.starts_with(&prefix)), "{requests:?}");
    }
    for (oldest, newest, pinned, told) in [
        (12, 20, "", "the engine speaks API 1.20 at most and 1.24 is needed: it is too old"),
        (12, 41, "1.44", "the engine speaks API 1.41 at most and 1.44 is needed: it is too old"),
        (44, 52, "1.41", "the engine takes API 1.44 at least and 1.41 was to be spoken: it is too new"),
    ] {
        let script = speaking(oldest, newest);
        let finished = run(&[("DOCKER_API_VERSION", pinned)], &["-H", &script.host(), "watch"]);
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(3), &b""[..]));
        assert_eq!(finished.stderr.lines().next(), Some(format!("error: {told}").as_str()));
        assert!(finished.stderr.lines().skip(1).all(|line| line.starts_with("hint: ")), "{}", finished.stderr);
    }
}

#[test]
fn a_report_that_finds_no_room_promises_nothing() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1"]);
    let program = env!("CARGO_BIN_EXE_docker-logwatch");
    let verbs =
        ["watch --dry-run", "pool", "pool --format json", "reconcile --dry-run", "events --since 1h --until 0s"];
    for verb in verbs {
        let mut command = Command::new("sh");
        engine.furnish(&mut command);
        command.env("XDG_STATE_HOME", engine.home()).args(["-c", &format!("{program} {verb} > /dev/full")]);
        let told = "error: cannot write to stdout\n  caused by: No space left on device (os error 28)\nhint: free some space there\n";
        assert_told(&Watch::spawn(&mut command).finish(), 1, told);
    }
}

#[test]
fn who_waits_for_a_slow_engine_is_told_on_a_terminal_until_it_answers() {
    let script = speaking_after(12, 41, Duration::from_secs(3));
    let program = env!("CARGO_BIN_EXE_docker-logwatch");
    let runs = [
        ("watch --no-follow", true),
        ("events --timeout 4s", true),
        ("watch --no-follow -q", false),
        ("watch --no-follow --log-format json", false),
    ]
    .map(|(verb, is_told)| {
        let line = format!("{program} -H {} {verb}", script.host());
        let mut command = Command::new("script");
        command.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
        (verb, is_told, Watch::spawn(&mut command))
    });
    for (verb, is_told, run) in runs {
        let finished = run.finish();
        let text = String::from_utf8(finished.stdout).unwrap();
        assert_eq!(finished.code, Some(0), "{verb}: {text:?}");
        let status = format!("waiting for the engine at {}", script.host());
        assert_eq!(text.contains(&status), is_told, "{verb}: {text:?}");
        assert!(is_told || !text.contains('\x1b'), "{verb}: {text:?}");
        let rest = text.trim_end_matches("no container matches\r\n");
        assert!(!is_told || rest.ends_with("\r\x1b[2K"), "{verb}: {text:?}");
    }
}

#[test]
fn an_engine_that_talks_nonsense_is_refused_in_a_few_words_and_ends_us() {
    let garbage = Script::start(|_: &Request, answer: &mut Answer| answer.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"));
    let silent = Script::start(|_: &Request, _: &mut Answer| {});
    let website = Script::start(|request: &Request, answer: &mut Answer| {
        let body = if request.method == "HEAD" { "" } else { "<html>\x1b[2J</html>" };
        answer.raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    });
    let half = Script::start(|request: &Request, answer: &mut Answer| match request.path.as_str() {
        "/_ping" => answer.json(200, "OK"),
        "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
        _ => answer.json(200, "[{\"Id\":7"),
    });
    for (script, code) in [(&garbage, 3), (&silent, 3), (&website, 1), (&half, 1)] {
        let finished = run(&[], &["-H", &script.host(), "watch", "--no-follow"]);
        let told = (finished.code, finished.stdout.as_slice());
        assert_eq!(told, (Some(code), &b""[..]), "{}", finished.stderr);
        assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
        assert!(finished.stderr.lines().count() <= 4 && !finished.stderr.contains('\x1b'), "{}", finished.stderr);
    }
}

#[test]
fn what_came_before_an_error_of_the_engine_in_a_log_is_shown() {
    let id = "4".repeat(64);
    let listed = format!(r#"[{{"Id":"{id}","Names":["/web"],"Image":"busybox","State":"running","Labels":{{}}}}]"#);
    let inspected = format!(
        r#"{{"Id":"{id}","Name":"/web","State":{{"Status":"running"}},"Config":{{"Tty":false}},"HostConfig":{{"LogConfig":{{"Type":"journald","Config":{{}}}}}}}}"#
    );
    let script = Script::start(move |request: &Request, answer: &mut Answer| {
        let path = request.path.split('?').next().unwrap();
        match path {
            "/_ping" => answer.json(200, "OK"),
            "/info" => answer.json(200, r#"{"ID":"x","DockerRootDir":"/nowhere"}"#),
            "/containers/json" => answer.json(200, &listed),
            "/events" => {
                answer.begin("application/json");
                answer.hold();
            }
            _ if path.ends_with("/json") => answer.json(200, &inspected),
            _ if path.ends_with("/logs") => {
                let frame =
                    |kind: u8, text: &str| [&[kind, 0, 0, 0, 0, 0, 0, text.len() as u8], text.as_bytes()].concat();
                let line = frame(1, "2026-11-20T23:00:53.037882171Z the last words\n");
                answer.begin("application/vnd.docker.multiplexed-stream");
                answer.chunk(&[line, frame(3, "Error grabbing logs: gone\n")].concat());
            }
            _ => answer.json(404, r#"{"message":"not in the script"}"#),
        }
    });
    let finished = run(&[], &["-H", &script.host(), "watch", "--no-follow", "--format", "raw"]);
    assert_eq!(String::from_utf8_lossy(&finished.stdout), "the last words\n", "{}", finished.stderr);
    assert!(
        finished.stderr.contains("the engine failed to read the log: Error grabbing logs: gone"),
        "{}",
        finished.stderr
    );
}

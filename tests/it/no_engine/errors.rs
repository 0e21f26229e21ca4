//! A failure is one short message on stderr, with nothing on stdout and the documented exit code.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::{Answer, Fault, Finished, Proxy, Request, Script, Watch, assert_failure, records};

/// Runs the program without environment variables that would lead it to an engine.
fn run(variables: &[(&str, &str)], args: &[&str]) -> Finished {
    let mut command = Watch::command();
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS", "DOCKER_TLS_VERIFY"] {
        command.env_remove(name);
    }
    let none = tempfile::tempdir().unwrap();
    command.env("DOCKER_CONFIG", none.path()).envs(variables.iter().copied());
    Watch::spawn(command.args(args)).finish()
}

/// The error says where the engine was looked for.
#[test]
fn an_unreachable_engine_ends_with_3() {
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
        let reported = format!(
            "error: cannot reach the Docker Engine at {host}\n  caused by: {why}\n\
             hint: check with `docker info` whether the daemon is running; -H and -c select another one\n"
        );
        assert_failure(&run(&[], &["-H", host, "watch"]), 3, &reported);
        assert_failure(&run(&[("DOCKER_HOST", host)], &["watch", "--no-follow"]), 3, &reported);
    }
}

/// A mistake in an argument or a variable is found before the engine is asked.
#[test]
fn invalid_arguments_end_with_2() {
    for (variables, args, part) in [
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
        let finished = run(variables, args);
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.lines().count() <= 10, "{args:?}: {}", finished.stderr);
    }
}

/// With `--log-format json` each refusal is one object.
#[test]
fn refusals_are_objects_with_log_format_json() {
    for (args, reported) in [
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
            if args == ["pool"] { &[("LOGWATCH_WATCH_SOURCE", "x"), ("LOGWATCH_EVENTS_ENABLED", "7")] } else { &[] };
        let finished = run(variables, &[args, &["--log-format", "json"]].concat());
        assert_eq!((finished.code, finished.stdout.len()), (Some(2), 0), "{args:?}");
        let said = records(finished.stderr.lines());
        assert_eq!(said.len(), reported.len(), "{said:?}");
        for (said, reported) in said.iter().zip(reported) {
            assert_eq!(said["level"], "ERROR");
            assert!(said["message"].as_str().unwrap().starts_with(reported), "{said}");
        }
    }
}

/// An engine without containers that supports API minor versions from `oldest` to `newest`.
fn speaking(oldest: u32, newest: u32) -> Script {
    speaking_after(oldest, newest, Duration::ZERO)
}

/// The same with a delay before the first answer.
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

/// What the engine supports decides the version, and an engine that is too old is reported.
#[test]
fn the_api_version_is_negotiated_or_refused() {
    for (oldest, newest, pinned, spoken) in
        [(12, 41, "", 41), (44, 52, "", 44), (24, 51, "", 44), (12, 41, "1.40", 40), (44, 52, "1.50", 50)]
    {
        let script = speaking(oldest, newest);
        let args = ["-H", &script.host(), "watch", "--no-follow"];
        assert_failure(&run(&[("DOCKER_API_VERSION", pinned)], &args), 0, "no container matches\n");
        let requests = script.requests();
        let versioned = requests.iter().filter(|request| !request.ends_with(" /_ping"));
        let prefix = format!("GET /v1.{spoken}/");
        assert!(versioned.clone().count() >= 2 && versioned.clone().all(|r| r.starts_with(&prefix)), "{requests:?}");
    }
    for (oldest, newest, pinned, reported) in [
        (12, 20, "", "the Docker Engine is too old: it supports API versions up to 1.20, and 1.24 is needed"),
        (12, 41, "1.44", "the Docker Engine is too old: it supports API versions up to 1.41, and 1.44 is needed"),
        (44, 52, "1.41", "the Docker Engine is too new: it supports API versions from 1.44 on, and 1.41 was requested"),
    ] {
        let script = speaking(oldest, newest);
        let finished = run(&[("DOCKER_API_VERSION", pinned)], &["-H", &script.host(), "watch"]);
        assert_eq!((finished.code, finished.stdout.as_slice()), (Some(3), &b""[..]));
        assert_eq!(finished.stderr.lines().next(), Some(format!("error: {reported}").as_str()));
        assert!(finished.stderr.lines().skip(1).all(|line| line.starts_with("hint: ")), "{}", finished.stderr);
    }
}

/// Until the engine answers, a terminal shows what the command waits for.
#[test]
fn a_slow_engine_is_reported_on_a_terminal() {
    let script = speaking_after(12, 41, Duration::from_secs(3));
    let program = env!("CARGO_BIN_EXE_docker-logwatch");
    let runs = [
        ("watch --no-follow", true),
        ("events --timeout 4s", true),
        ("watch --no-follow -q", false),
        ("watch --no-follow --log-format json", false),
    ]
    .map(|(subcommand, is_reported)| {
        let line = format!("{program} -H {} {subcommand}", script.host());
        let mut command = Command::new("script");
        command.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
        (subcommand, is_reported, Watch::spawn(&mut command))
    });
    for (subcommand, is_reported, run) in runs {
        let finished = run.finish();
        let text = String::from_utf8(finished.stdout).unwrap();
        assert_eq!(finished.code, Some(0), "{subcommand}: {text:?}");
        let status = format!("waiting for the engine at {}", script.host());
        assert_eq!(text.contains(&status), is_reported, "{subcommand}: {text:?}");
        assert!(is_reported || !text.contains('\x1b'), "{subcommand}: {text:?}");
        let rest = text.trim_end_matches("no container matches\r\n");
        assert!(!is_reported || rest.ends_with("\r\x1b[2K"), "{subcommand}: {text:?}");
    }
}

/// An answer that cannot be understood is an error of a few lines, without its control characters.
#[test]
fn nonsense_answers_end_in_few_words() {
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
        let reported = (finished.code, finished.stdout.as_slice());
        assert_eq!(reported, (Some(code), &b""[..]), "{}", finished.stderr);
        assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
        assert!(finished.stderr.lines().count() <= 4 && !finished.stderr.contains('\x1b'), "{}", finished.stderr);
    }
}

/// Lines that arrived before an error of the log stream are printed.
#[test]
fn lines_before_an_api_error_are_shown() {
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
        finished.stderr.contains("the daemon failed to read the log: Error grabbing logs: gone"),
        "{}",
        finished.stderr
    );
}

/// The error names what is wrong in a few words.
#[test]
fn garbage_at_the_start_is_an_error() {
    let engine = Script::idle();
    let check = |part: &str| {
        for (fault, code, first) in [
            (Fault::Status(500), 1, "error: the Docker Engine answered 500: the proxy says 500\n"),
            (Fault::Page(502), 1, "error: the Docker Engine or a proxy in front of it answers GET /"),
            (Fault::Page(200), 1, "error: unexpected response to "),
            (Fault::Half, 3, "error: lost the connection to unix://"),
            (Fault::Hangup, 3, "error: lost the connection to unix://"),
        ] {
            // An old engine does not send its API version either, and an event stream may end.
            if fault == Fault::Page(200) && matches!(part, "/_ping" | "/events") {
                continue;
            }
            let proxy = Proxy::before(&engine);
            proxy.on(part, fault);
            let finished = run(&[], &["-H", &proxy.host(), "watch"]);
            let said = (finished.code, finished.stderr.get(..first.len()));
            assert_eq!(said, (Some(code), Some(first)), "{part} {fault:?}: {}", finished.stderr);
        }
    };
    thread::scope(|scope| {
        for part in ["/_ping", "/info", "/events", "/containers/json"] {
            let check = &check;
            scope.spawn(move || check(part));
        }
    });
}

//! A terminal gets nothing that it would interpret, whatever an engine, its containers and the command line contain.

use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Answer, PATIENCE, Request, Script, Signal, Watch};

const ID: &str = "4444444444444444444444444444444444444444444444444444444444444444";

/// A string that would clear the screen, set the title, reverse text, hide it and forge lines; `word` marks where it is
/// printed.
fn hostile(word: &str) -> String {
    format!(
        "{word}\u{9d}0;X\u{9c}\x1b]0;t\x07\x1b[2J\u{9b}2J\u{202e}\u{2066}\u{61c}\u{200f}\u{feff}\u{e0041}\u{2028}\r\n\x7f\x08{word}"
    )
}

/// An engine whose every string is hostile. With `is_refusing` it answers everything with a hostile error.
fn engine(is_refusing: bool) -> Script {
    let labels = json!({
        hostile("labelkey"): hostile("labelvalue"),
        "com.docker.compose.project": hostile("project"),
        "com.docker.compose.service": hostile("service"),
    });
    let listed = json!([{
        "Id": ID, "Names": [format!("/{}", hostile("name"))], "Image": hostile("image"), "State": "running",
        "Labels": labels, "Created": 1, "Mounts": [{"Type": "volume", "Name": hostile("mounted"), "Source": hostile("source"),
        "Destination": hostile("destination"), "Driver": hostile("driver"), "Mode": hostile("mode"), "RW": true}],
        "NetworkSettings": {"Networks": {hostile("network"): {"IPAddress": hostile("address")}}},
    }])
    .to_string();
    let inspected = json!({
        "Id": ID, "Name": format!("/{}", hostile("name")), "State": {"Status": "running"},
        "Config": {"Tty": false, "Image": hostile("image"), "Labels": labels},
        "HostConfig": {"LogConfig": {"Type": hostile("logdriver"), "Config": {"cache-disabled": "false"}}},
    })
    .to_string();
    let volumes = json!({"Volumes": [{"Name": hostile("volume"), "Driver": hostile("driver"), "Mountpoint": hostile("mountpoint"),
        "Labels": labels, "Scope": "local", "Options": {}}], "Warnings": []})
    .to_string();
    let mut attributes = labels;
    attributes["name"] = hostile("name").into();
    attributes["image"] = hostile("image").into();
    let event = |action: &str, number: u64| {
        json!({
            "status": action, "id": ID, "from": hostile("image"), "Type": "container", "Action": action,
            "Actor": {"ID": ID, "Attributes": attributes}, "scope": "local", "time": 4_000_000_000_u64 + number,
            "timeNano": (4_000_000_000 + number) * 1_000_000_000,
        })
        .to_string()
            + "\n"
    };
    let events = [event(&hostile("exec_create: action"), 1), event("rename", 2)].concat();
    let info = json!({
        "ID": hostile("engine"), "DockerRootDir": "/nowhere", "ServerVersion": hostile("version"), "OSType": hostile("os"),
        "LoggingDriver": hostile("logging"), "Driver": hostile("storage"),
    })
    .to_string();
    let refusal = json!({"message": hostile("refusal")}).to_string();
    Script::start(move |request: &Request, answer: &mut Answer| match request.path.split('?').next().unwrap() {
        "/_ping" => answer.json(200, "OK"),
        _ if is_refusing => answer.json(500, &refusal),
        "/info" => answer.json(200, &info),
        "/containers/json" => answer.json(200, &listed),
        "/volumes" => answer.json(200, &volumes),
        "/events" => {
            answer.begin("application/json");
            answer.chunk(events.as_bytes());
            answer.hold();
        }
        path if path.ends_with("/json") => answer.json(200, &inspected),
        path if path.ends_with("/logs") => {
            answer.begin("application/vnd.docker.multiplexed-stream");
            for number in 0..3 {
                let message = hostile("message").replace('\n', "");
                answer.frame(1, format!("2026-11-20T23:00:53.03788217{number}Z {message}\n").as_bytes());
            }
            match request.path.contains("follow=1") {
                true => answer.hold(),
                false => answer.frame(3, hostile("failure").as_bytes()),
            }
        }
        _ => answer.json(404, &refusal),
    })
}

/// What one command line writes to a terminal.
fn on_terminal(host: &str, line: &str) -> String {
    let is_endless = line.contains("watch --source");
    let state = tempfile::tempdir().unwrap();
    let line = format!("{} -H {host} {line}", env!("CARGO_BIN_EXE_docker-logwatch"));
    let mut command = Command::new("script");
    command.env("TERM", "xterm").env("NO_COLOR", "1").env("XDG_STATE_HOME", state.path()).env_remove("DOCKER_CONFIG");
    command.env("HOME", state.path()).args(["-qec", &line, "/dev/null"]);
    let run = Watch::spawn(&mut command);
    if is_endless {
        run.wait_for(|lines| lines.iter().any(|line| line.contains("message")), PATIENCE);
        run.signal(Signal::TERM);
    }
    String::from_utf8(run.finish().stdout).unwrap()
}

/// Without line ends, which the terminal driver adds, and without the sequence that removes a status line.
fn obeyed(screen: &str) -> Vec<char> {
    let bare = screen.replace("\r\n", "").replace("\r\x1b[2K", "");
    let is_unsafe = |c: &char| {
        (c.is_control() && *c != '\t')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{feff}' | '\u{e0041}')
    };
    bare.chars().filter(is_unsafe).collect()
}

/// Every command prints hostile text in every field, and a terminal interprets none of it.
#[test]
fn hostile_text_never_controls_a_terminal() {
    let (hostile_engine, refusing) = (engine(false), engine(true));
    let (host, refusal) = (hostile_engine.host(), refusing.host());
    let metadata = "--metadata --lifecycle";
    let of_text: [(&String, String, &[&str]); _] = [
        (&host, "watch --source stream".into(), &["+ name", "message"]),
        (&host, "watch --source stream --log-format json".into(), &["name", "message"]),
        (&host, "watch --no-follow --format raw".into(), &["message", "failure"]),
        (&host, "watch --no-follow --ansi strip".into(), &["name", "message"]),
        (&host, "watch --dry-run".into(), &["name", "logdriver"]),
        (&host, "events --count 2".into(), &["action", "labelkey", "labelvalue", "name", "image"]),
        (&host, "reconcile --details".into(), &["name", "volume"]),
        (&host, "pool".into(), &["version", "os", "logging"]),
        (&host, format!("watch --no-follow '{}'", hostile("word")), &["word"]),
        (&host, format!("watch --format '{}'", hostile("form")), &["form"]),
        (&host, format!("'{}'", hostile("verb")), &["verb"]),
        (&host, format!("watch --state '/dev/null/{}' --resume", hostile("state")), &["state"]),
        (&host, format!("watch --log-format json -f 'name={}('", hostile("regex")), &["regex"]),
        (&host, "__complete watch ''".into(), &[]),
        (&host, "-v watch --no-follow".into(), &["name"]),
        (&refusal, "watch".into(), &["refusal"]),
        (&refusal, "watch --log-format json".into(), &["refusal"]),
        (&refusal, "events".into(), &["refusal"]),
        (&refusal, "pool".into(), &["refusal"]),
        (&refusal, "pool --check".into(), &["refusal"]),
        (&refusal, "reconcile".into(), &["refusal"]),
    ];
    let of_json: [(&String, String, &[&str]); _] = [
        (
            &host,
            format!("watch --no-follow --format json {metadata}"),
            &["name", "image", "project", "service", "message", "labelvalue", "labelkey", "network", "address"],
        ),
        (&host, format!("watch --no-follow --format json --ansi keep {metadata}"), &["name", "message"]),
        (&host, "watch --dry-run --format json".into(), &["name", "image", "logdriver"]),
        (
            &host,
            "events --count 2 --format json".into(),
            &["exec_create: action", "labelkey", "labelvalue", "name", "image"],
        ),
        (&host, "reconcile --details --format json".into(), &["engine", "name", "volume"]),
        (&host, "pool --format json".into(), &["engine", "version", "os", "logging"]),
        (&refusal, "pool --format json".into(), &["refusal"]),
    ];
    let is_shown = |screen: &str, word: &str| screen.contains(word);
    let is_value = |screen: &str, word: &str| {
        let objects =
            screen.split("\r\n").filter_map(|line| serde_json::from_str::<Value>(&line[line.find('{')?..]).ok());
        let value = hostile(word);
        let mut strings = objects.flat_map(|object| strings(&object));
        strings.any(|string| string.contains(&value) || string.contains(&value.replace('\n', "")))
    };
    let verdict = |host: &str, line: &str, args: &[&str], has: &dyn Fn(&str, &str) -> bool| {
        let screen = on_terminal(host, line);
        let missing: Vec<&&str> = args.iter().filter(|word| !has(&screen, word)).collect();
        let obeyed = obeyed(&screen);
        let is_well = missing.is_empty() && obeyed.is_empty();
        (!is_well).then(|| format!("{}: obeyed {obeyed:?}, missing {missing:?}: {screen:?}", line.escape_debug()))
    };
    // Each command waits for something, so they run side by side.
    let verdicts: Vec<String> = thread::scope(|scope| {
        let text = of_text.iter().map(|(host, line, args)| scope.spawn(|| verdict(host, line, args, &is_shown)));
        let json = of_json.iter().map(|(host, line, args)| scope.spawn(|| verdict(host, line, args, &is_value)));
        let runs: Vec<_> = text.chain(json).collect();
        runs.into_iter().filter_map(|run| run.join().unwrap()).collect()
    });
    assert!(verdicts.is_empty(), "{}", verdicts.join("\n\n"));
}

/// All strings in it, keys included.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(members) => {
            members.iter().flat_map(|(key, value)| [vec![key.clone()], strings(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}

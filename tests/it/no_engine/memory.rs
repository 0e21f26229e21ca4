//! How much memory an engine can cost us: a scripted one sends endless bodies and huge descriptions.

use crate::support::{Answer, Finished, Request, Script, Watch, process};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs::{self};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The limit for every answer, in bytes.
const MOST: u64 = 128 << 20;

/// Whatever is in place of docker's files, the program reports it or continues without it, and never blocks on it.
#[test]
fn odd_docker_files_neither_block_nor_fill_memory() {
    let script = Script::start(answer_plainly);
    let context = "cb1c9ef1d5c4e6c5b8cd0cd64a9cd9bd2e0ad4d1ee2d4a1f0a0f3d6a5ec2a3b1";
    let with = |at: &str, target: Option<&str>| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(at.replace("CONTEXT", context));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match target {
            Some(target) => symlink(target, &path).unwrap(),
            None => mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap(),
        }
        home
    };
    for target in [None, Some("/dev/zero")] {
        for (at, args, code, reported) in [
            ("config.json", &["watch", "--dry-run"][..], 0, "ignoring HOME/config.json: not a regular file"),
            ("logwatch.yaml", &["watch", "--dry-run"], 2, "cannot read HOME/logwatch.yaml: not a regular file"),
            ("ca.pem", &["--tls", "watch", "--dry-run"], 2, "error: cannot read HOME/ca.pem"),
            ("x.pem", &["--tls", "--tlscacert", "HOME/x.pem", "watch"], 2, "error: cannot read HOME/x.pem"),
            ("contexts/meta/CONTEXT/meta.json", &["__complete", "--context", ""], 0, ""),
        ] {
            let home = with(at, target);
            let place = home.path().to_str().unwrap();
            let args: Vec<String> = args.iter().map(|word| word.replace("HOME", place)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut command = Watch::command();
            command.env("HOME", place).env("DOCKER_CONFIG", place).env("DOCKER_HOST", script.host());
            let watch = Watch::spawn(command.env_remove("DOCKER_CONTEXT").args(&args));
            let peak = watch.peak_memory_until(MOST, |_| false);
            let finished = watch.finish();
            let said = finished.stderr.replace(place, "HOME");
            assert_eq!(finished.code, Some(code), "{at} {target:?}: {said}");
            assert!(said.contains(reported), "{at} {target:?}: {said}");
            assert!(peak < MOST, "{at} {target:?}: {} MiB", peak >> 20);
        }
    }
}

/// The answers of an engine without containers; `None` for paths it does not know.
fn plain(request: &Request) -> Option<&'static str> {
    match request.path.split('?').next().unwrap_or_default() {
        "/_ping" => Some("OK"),
        "/info" => Some(r#"{"ID":"script","DockerRootDir":"/nowhere"}"#),
        "/containers/json" | "/networks" => Some("[]"),
        "/volumes" => Some(r#"{"Volumes":null}"#),
        _ => None,
    }
}

/// The same with an event stream on which nothing happens; requests for past events end at once.
fn answer_plainly(request: &Request, answer: &mut Answer) {
    match plain(request) {
        Some(body) => answer.json(200, body),
        None if request.path.starts_with("/events") => {
            answer.begin("application/json");
            if !request.path.contains("until=") {
                answer.hold();
            }
        }
        None => answer.json(404, r#"{"message":"page not found"}"#),
    }
}

/// Runs a command to its end, and returns its peak memory.
fn measure(script: &Script, home: &Path, args: &[&str], is_done: impl Fn(&Watch) -> bool) -> (Finished, u64) {
    measure_within("20s", script, home, args, is_done)
}

/// The same with a time limit for each answer.
fn measure_within(
    limit: &str,
    script: &Script,
    home: &Path,
    args: &[&str],
    is_done: impl Fn(&Watch) -> bool,
) -> (Finished, u64) {
    let mut command = Watch::command();
    command.env("HOME", home).env("XDG_STATE_HOME", home).env("DOCKER_HOST", script.host()).args(args);
    command.env_remove("DOCKER_CONFIG").env_remove("DOCKER_CONTEXT");
    command.env("LOGWATCH_DOCKER_POOL_REQUEST_TIMEOUT", limit).env("LOGWATCH_DOCKER_POOL_MAX_RETRIES", "0");
    let watch = Watch::spawn(&mut command);
    let peak = watch.peak_memory_until(MOST, is_done);
    assert!(peak < MOST, "{args:?}: {} MiB", peak >> 20);
    let finished = if process::lives(watch.pid()) { watch.stop() } else { watch.finish() };
    (finished, peak)
}

/// The endless part of an answer.
#[derive(Clone, Copy, Debug)]
enum Endless {
    /// A chunked body: its beginning, then the rest again and again.
    Body(&'static str, &'static str),
    /// The same with status 500.
    Refusal(&'static str),
    /// Headers.
    Headers,
    /// The length of one chunk.
    ChunkLength,
    /// The extension of one chunk.
    ChunkExtension,
    /// Trailers behind an empty body.
    Trailers,
    /// Interim responses before the answer.
    Continue,
}

impl Endless {
    fn send(self, answer: &mut Answer, is_over: &AtomicBool) {
        // With an API version above ours, a ping is sent again with GET.
        let chunked = "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (begin, again) = match self {
            Endless::Body("", again) => (chunked.to_owned(), again),
            Endless::Body(begin, again) => (format!("{chunked}{:x}\r\n{begin}\r\n", begin.len()), again),
            Endless::Refusal(again) => (chunked.replace("200 OK", "500 Oh"), again),
            Endless::Headers => ("HTTP/1.1 200 OK\r\n".to_owned(), "A: b\r\n"),
            Endless::ChunkLength => (chunked.to_owned(), "0"),
            Endless::ChunkExtension => (format!("{chunked}1;"), "x"),
            Endless::Trailers => (format!("{chunked}0\r\n"), "A: b\r\n"),
            Endless::Continue => (String::new(), "HTTP/1.1 100 Continue\r\n\r\n"),
        };
        answer.raw(begin.as_bytes());
        // An answer to HEAD has no body, which would be taken for the next answer.
        if answer.is_bodiless && matches!(self, Endless::Body(..) | Endless::Refusal(_)) {
            return;
        }
        let block = again.repeat((256 << 10) / again.len());
        let block = match self {
            Endless::Body(..) | Endless::Refusal(_) => format!("{:x}\r\n{block}\r\n", block.len()),
            _ => block,
        };
        while !is_over.load(Ordering::Relaxed) && answer.try_raw(block.as_bytes()) {}
    }
}

/// An engine that answers requests to this path endlessly, and all others plainly.
fn endless_at(path: &'static str, endless: Endless) -> (Script, Arc<AtomicBool>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let script = Script::start(move |request, answer| match request.path.starts_with(path) {
        true => endless.send(answer, &over),
        false => answer_plainly(request, answer),
    });
    (script, is_over)
}

/// An endless answer is refused in one line, and costs no more memory than any other.
#[test]
fn endless_answers_cost_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state.db");
    let state = state.to_str().unwrap();
    const BLANKS: Endless = Endless::Body("", " ");
    const STRING: Endless = Endless::Body("[{\"Id\":\"", "x");
    const OBJECTS: Endless = Endless::Body("[{\"Id\":\"a\"}", ",{\"Id\":\"a\"}");
    const NAMES: Endless = Endless::Body("[{\"Id\":\"a\",\"Names\":[\"/a\"", ",\"/a\"");
    const MOUNTS: Endless = Endless::Body("[{\"Id\":\"a\",\"Mounts\":[{}", ",{}");
    const NESTED: Endless = Endless::Body("[", "[");
    const VOLUMES: Endless = Endless::Body("{\"Volumes\":[{\"Name\":\"a\"}", ",{\"Name\":\"a\"}");
    const KEYS: Endless = Endless::Body("{\"a\":1", ",\"a\":1");
    let list = "the response to the container list is too large: the limit is ";
    let watch = &["watch"][..];
    for (args, path, endless, code, reported) in [
        (watch, "/containers/json", BLANKS, 1, format!("{list}128 MiB")),
        (watch, "/containers/json", STRING, 1, format!("{list}8 MiB")),
        (watch, "/containers/json", OBJECTS, 1, format!("{list}40 MiB")),
        (watch, "/containers/json", NAMES, 1, format!("{list}8 MiB")),
        (watch, "/containers/json", MOUNTS, 1, format!("{list}8 MiB")),
        (watch, "/containers/json", NESTED, 1, format!("{list}8 MiB")),
        (&["watch", "--dry-run"], "/containers/json", OBJECTS, 1, format!("{list}40 MiB")),
        (&["watch", "--no-follow"], "/containers/json", OBJECTS, 1, format!("{list}40 MiB")),
        (watch, "/info", KEYS, 1, "the response to the info request is too large: the limit is 8 MiB".into()),
        (watch, "/info", BLANKS, 1, "the response to the info request is too large: the limit is 8 MiB".into()),
        (watch, "/info", Endless::Refusal("no "), 1, "the Docker Engine answered 500: Internal Server Error".into()),
        (watch, "/info", Endless::Headers, 3, "lost the connection to HOST".into()),
        (watch, "/info", Endless::ChunkLength, 3, "no answer from HOST within 1s".into()),
        (watch, "/info", Endless::ChunkExtension, 3, "lost the connection to HOST".into()),
        (watch, "/info", Endless::Trailers, 3, "lost the connection to HOST".into()),
        (watch, "/info", Endless::Continue, 3, "no answer from HOST within 1s".into()),
        (watch, "/_ping", BLANKS, 1, "the response to the ping is too large: the limit is 0.0625 MiB".into()),
        (
            &["events"],
            "/events",
            Endless::Refusal("no "),
            1,
            "the Docker Engine answered 500: Internal Server Error".into(),
        ),
        (&["reconcile", "--state", state], "/containers/json", OBJECTS, 1, format!("{list}40 MiB")),
        (&["reconcile", "--state", state], "/containers/json", MOUNTS, 1, format!("{list}8 MiB")),
        (
            &["reconcile", "--state", state],
            "/volumes",
            VOLUMES,
            1,
            "the response to the volume list is too large: the limit is 40 MiB".into(),
        ),
        (&["pool", "--check"], "/containers/json", OBJECTS, 4, "the connection pool is unhealthy".into()),
        (&["pool", "--check"], "/containers/json", BLANKS, 4, "the connection pool is unhealthy".into()),
        (&["pool", "--check"], "/events", Endless::Body("", "x"), 0, String::new()),
    ] {
        let (script, is_over) = endless_at(path, endless);
        // Only these end with the time limit for an answer.
        let limit = if matches!(endless, Endless::ChunkLength | Endless::Continue) { "1s" } else { "20s" };
        let (finished, _) = measure_within(limit, &script, home.path(), args, |_| false);
        is_over.store(true, Ordering::Relaxed);
        let said = finished.stderr.replace(&script.host(), "HOST");
        assert_eq!(finished.code, Some(code), "{args:?} {path} {endless:?}: {said}");
        let first = format!("error: {reported}");
        assert!(reported.is_empty() || said.starts_with(&first), "{args:?} {path} {endless:?}: {said}");
    }
}

/// A container whose labels have a million bytes, in one label or in thousands.
fn labelled(number: usize, of: usize) -> String {
    let value = "x".repeat(1_000_000 / of);
    let labels: Vec<String> = (0..of).map(|label| format!(r#""label-{label}":"{value}""#)).collect();
    let (labels, id) = (labels.join(","), format!("{number:064x}"));
    let state = r#""State":"running","Status":"Up 1 second","Created":1795215653"#;
    format!(r#"{{"Id":"{id}","Names":["/web-{number}"],"Image":"web",{state},"Labels":{{"app":"web",{labels}}}}}"#)
}

fn inspection(id: &str) -> String {
    let labels = format!(r#"{{"app":"web","large":"{}"}}"#, "x".repeat(1_000_000));
    let state = r#""State":{"Status":"running","StartedAt":"2026-11-20T23:00:53.5Z"}"#;
    let host = r#""HostConfig":{"LogConfig":{"Type":"local","Config":{}}}"#;
    format!(r#"{{"Id":"{id}","Name":"/web",{state},"Config":{{"Labels":{labels}}},{host}}}"#)
}

/// An engine with a hundred containers, each with a megabyte of labels.
fn hundred_megabytes(of: usize) -> Script {
    Script::start(move |request, answer| {
        let path = request.path.split('?').next().unwrap_or_default();
        let id = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json"));
        if path == "/containers/json" {
            answer.begin("application/json");
            for number in 0..100 {
                answer.chunk(if number == 0 { b"[" } else { b"," });
                answer.chunk(labelled(number, of).as_bytes());
            }
            answer.chunk(b"]");
        } else if let Some(id) = id {
            answer.json(200, &inspection(id));
        } else if path.ends_with("/logs") {
            answer.begin("application/octet-stream");
            answer.hold();
        } else {
            answer_plainly(request, answer);
        }
    })
}

/// Everything else about these containers is still printed.
#[test]
fn huge_labels_cost_little_memory() {
    for of in [1, 200] {
        let script = hundred_megabytes(of);
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state.db");
        let state = state.to_str().unwrap();
        let followed = |_: &Watch| script.requests().iter().filter(|asked| asked.contains("/logs?")).count() >= 100;
        let (finished, _) = measure(&script, home.path(), &["watch", "--state", state], followed);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        for (args, reported) in [
            (&["watch", "--dry-run", "-f", "label=app=web"][..], "web-99"),
            (&["watch", "--dry-run", "-f", "label=app=web", "-f", "network=none"], "web-99"),
            (&["reconcile", "--state", state], ""),
            (&["pool", "--format", "json"], "container_list"),
            // Completion gives up what takes long.
            (&["__complete", "watch", "web-9"], ":4"),
        ] {
            let (finished, _) = measure(&script, home.path(), args, |_| false);
            assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
            assert!(finished.lines().iter().any(|line| line.contains(reported)), "{args:?}: {:?}", finished.lines());
        }
    }
}

/// Events that reach or exceed the size limit cost no more memory than others, whether or not somebody reads them.
#[test]
fn huge_events_cost_little_memory() {
    let long = |length: usize| "x".repeat(length);
    let event = |action: &str, id: &str, attributes: &str| {
        let actor = format!(r#"{{"ID":"{id}","Attributes":{{{attributes}}}}}"#);
        format!(r#"{{"Type":"container","Action":"{action}","Actor":{actor},"timeNano":TIME}}"#) + "\n"
    };
    let many: Vec<String> = (0..16_000).map(|number| format!(r#""label-{number}":"{}""#, long(100))).collect();
    let id = format!("{:064x}", 7);
    let lines = [
        ("long labels", event("start", &id, &format!(r#""name":"web","a":"{}""#, long(3_900_000)))),
        ("many labels", event("update", &id, &many.join(","))),
        (
            "too many labels",
            event("start", &id, &(0..400_000).map(|n| format!(r#""{n}":"""#)).collect::<Vec<_>>().join(",")),
        ),
        ("long actions", event(&format!("exec_create: {}", long(3_900_000)), &id, "")),
        ("long IDs", event("start", &long(3_900_000), "")),
        ("no end of a line", long(1 << 20)),
    ];
    for (what, line) in lines {
        for args in [&["watch"][..], &["events", "--format", "json"]] {
            let line = line.clone();
            let is_over = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&is_over);
            let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let count = Arc::clone(&sent);
            let script = Script::start(move |request, answer| {
                if !request.path.starts_with("/events") || request.path.contains("until=") {
                    return answer_plainly(request, answer);
                }
                answer.begin("application/json");
                for number in 0.. {
                    let time = (1_795_215_653_000_000_000_u64 + number).to_string();
                    let line = line.replace("TIME", &time);
                    if over.load(Ordering::Relaxed)
                        || !answer.try_raw(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
                    {
                        return;
                    }
                    count.fetch_add(line.len(), Ordering::Relaxed);
                }
            });
            let home = tempfile::tempdir().unwrap();
            let (finished, _) = measure(&script, home.path(), args, |_| sent.load(Ordering::Relaxed) > 100 << 20);
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(finished.code, Some(0), "{what} {args:?}: {}", finished.stderr);
        }
    }
}

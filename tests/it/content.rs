//! What a container wrote is what is printed: on every route, in every format, byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::support::{Engine, PATIENCE, Signal, Watch, chatter, records};

/// Lines without their final newline, which not every program writes.
fn lines(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    // Not lossy, so that bytes that are not UTF-8 are compared as well.
    bytes.split(|byte| *byte == b'\n').map(|line| line.escape_ascii().to_string()).collect()
}

/// Fails with the first line that differs; some lines are 100 KB long.
#[track_caller]
fn same(ours: &[String], theirs: &[String], what: &str) {
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        if ours != theirs {
            let at = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
            let near = |line: &str| line[at.saturating_sub(40)..line.len().min(at + 40)].to_owned();
            panic!("{what}: line {} differs at {at}:\n  {}\n  {}", number + 1, near(ours), near(theirs));
        }
    }
    assert_eq!(ours.len(), theirs.len(), "{what}: lines");
}

/// What all routes must agree on: everything except `source`.
fn without_source(mut records: Vec<Value>, source: &str) -> Vec<Value> {
    for record in &mut records {
        assert_eq!(record.as_object_mut().unwrap().remove("source"), Some(json!(source)));
    }
    records
}

/// Checks time, stream and cursor against the contract; cursors number the lines of equal times.
#[track_caller]
fn check_identity(records: &[Value]) {
    let mut last: BTreeMap<&str, (i128, u32)> = BTreeMap::new();
    for record in records {
        let (time, stream) = (record["time"].as_str().unwrap(), record["stream"].as_str().unwrap());
        assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
        let nanos = time.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
        let ordinal = match last.get(stream) {
            Some((before, ordinal)) if *before == nanos => ordinal + 1,
            _ => 0,
        };
        last.insert(stream, (nanos, ordinal));
        let letter = if stream == "stdout" { "o" } else { "e" };
        assert_eq!(record["cursor"], format!("{nanos}-{letter}{ordinal}"));
    }
}

const SOURCES: [&str; 4] = ["stream", "rotate", "poll", "file"];

const KEYS: [&str; 9] =
    ["container_id", "container_name", "cursor", "image", "message", "source", "stream", "time", "type"];

/// Each shape of message from each driver, by each route, is byte for byte what `docker logs` prints.
#[test]
fn every_route_shows_what_docker_logs_shows() {
    let engine = Engine::start();
    // Docker forgets the newline after the last piece of a long `local` line.
    let glues = engine.version().starts_with("20.");
    let shapes = ["plain", "json", "text", "hostile"];
    let args = |shape| ["--shape", shape, "--count", "64", "--size", "200", "--stream", "alternating", "--unfinished"];
    let cases: Vec<(String, &str, &str)> = ["json-file", "local"]
        .iter()
        .flat_map(|driver| shapes.map(|shape| (format!("{driver}-{shape}"), *driver, shape)))
        .collect();
    for (name, driver, shape) in &cases {
        engine.run(name, &["--log-driver", driver], &args(shape));
    }
    for (name, driver, shape) in &cases {
        engine.wait(name);
        let (wrote, reported) = (chatter(&args(shape)), engine.docker(&["logs", name]));
        for (stream, wrote, reported) in
            [("stdout", wrote.stdout, reported.stdout), ("stderr", wrote.stderr, reported.stderr)]
        {
            for source in SOURCES {
                let ours = Watch::read(&engine, &[name, "--source", source, "--stream", stream, "--format", "raw"]);
                let (ours, what) = (lines(&ours.stdout), format!("{name} {stream} by {source}"));
                // Bytes that are not UTF-8 do not survive the way into `json-file`.
                if *driver == "local" || *shape != "hostile" {
                    same(&ours, &lines(&wrote), &format!("{what} and what it wrote"));
                }
                if *driver == "json-file" || !glues {
                    same(&ours, &lines(&reported), &format!("{what} and docker logs"));
                }
            }
        }
        let json = |source: &str| Watch::read(&engine, &[name, "--source", source, "--format", "json"]).records();
        let by_stream = json("stream");
        for record in &by_stream {
            assert_eq!(record.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>(), KEYS);
        }
        check_identity(&by_stream);
        let by_stream = without_source(by_stream, "stream");
        let texts = |records: &[Value]| records.iter().map(Value::to_string).collect::<Vec<_>>();
        // A line whose newline is forgotten is known to be complete only when the next line of its stream, which is
        // later, arrives.
        let apart = |mut records: Vec<Value>| {
            if *driver == "local" && glues {
                records.sort_by_key(|record| record["stream"] == "stderr");
            }
            texts(&records)
        };
        for source in SOURCES {
            let others = without_source(json(source), source);
            if source == "file" {
                same(&apart(others), &apart(by_stream.clone()), &format!("{name} as json by file and by stream"));
            } else {
                same(&texts(&others), &texts(&by_stream), &format!("{name} as json by {source} and by stream"));
            }
        }
        let messages = |stream| by_stream.iter().filter(move |record| record["stream"] == stream);
        for stream in ["stdout", "stderr"] {
            let raw = Watch::read(&engine, &[name, "--stream", stream, "--format", "raw"]);
            let ours: Vec<String> =
                messages(stream).map(|record| record["message"].as_str().unwrap().to_owned()).collect();
            let raw = String::from_utf8_lossy(&raw.stdout).into_owned();
            same(&ours, &raw.strip_suffix('\n').unwrap().split('\n').map(str::to_owned).collect::<Vec<_>>(), name);
        }
    }
}

/// A container with a TTY has one stream without frames; its lines come by each route.
#[test]
fn a_terminals_container_is_read_like_any_other() {
    let engine = Engine::start();
    let glues = engine.version().starts_with("20.");
    let args = |shape| ["--shape", shape, "--count", "32"];
    let cases = [("json-file", "text"), ("json-file", "hostile"), ("local", "text"), ("local", "hostile")];
    for (driver, shape) in cases {
        engine.run(&format!("{driver}-{shape}"), &["--tty", "--log-driver", driver], &args(shape));
    }
    for (driver, shape) in cases {
        let name = format!("{driver}-{shape}");
        engine.wait(&name);
        let reported = lines(&engine.docker(&["logs", &name]).stdout);
        let wrote: Vec<String> = lines(&chatter(&args(shape)).stdout).iter().map(|line| format!("{line}\\r")).collect();
        let read = |source| lines(&Watch::read(&engine, &[&name, "--source", source, "--format", "raw"]).stdout);
        let by_stream = read("stream");
        if shape == "text" || driver == "local" {
            same(&by_stream, &wrote, &format!("{name} and what it wrote"));
        }
        if driver == "json-file" || !glues {
            same(&by_stream, &reported, &format!("{name} and docker logs"));
        }
        for source in ["rotate", "poll", "file"] {
            same(&read(source), &by_stream, &format!("{name} by {source}"));
        }
        let json = |source: &'static str| {
            without_source(Watch::read(&engine, &[&name, "--source", source, "--format", "json"]).records(), source)
        };
        let by_stream = json("stream");
        check_identity(&by_stream);
        assert!(["file", "rotate", "poll"].map(json).iter().all(|others| *others == by_stream), "{name} as json");
    }
}

/// `--max-line-size` cuts at the same byte on each route, and the parts have the same cursors.
#[test]
fn every_route_cuts_long_messages_alike() {
    let engine = Engine::start();
    for (driver, shape) in [("json-file", "text"), ("json-file", "hostile"), ("local", "text"), ("local", "hostile")] {
        let name = format!("{driver}-{shape}");
        engine.run(&name, &["--log-driver", driver], &["--shape", shape, "--count", "32", "--size", "300"]);
        engine.wait(&name);
        let read = |source: &'static str, size: &str| {
            let args = [&name, "--source", source, "--format", "json", "--max-line-size", size];
            without_source(Watch::read(&engine, &args).records(), source)
        };
        let whole = read("file", "1MiB");
        assert!(whole.iter().all(|record| record.get("partial").is_none()));
        for (size, limit) in [("100", 100), ("16KiB", 16_384), ("20k", 20_000)] {
            let cut = read("file", size);
            for source in ["stream", "rotate", "poll"] {
                assert!(cut == read(source, size), "{name} cut at {size} by {source}");
            }
            check_identity(&cut);
            // Joined again, they are the original lines.
            let mut joined: Vec<(String, usize)> = Vec::new();
            let mut is_open = false;
            for record in &cut {
                let message = record["message"].as_str().unwrap();
                assert!(message.len() <= limit, "{} bytes", message.len());
                assert!(record.get("partial").is_none_or(|partial| *partial == true));
                assert!(record.get("partial_last").is_none_or(|last| *last == true && record["partial"] == true));
                match joined.last_mut() {
                    Some((text, parts)) if is_open => {
                        text.push_str(message);
                        *parts += 1;
                    }
                    _ => joined.push((message.to_owned(), 1)),
                }
                is_open = record["partial"] == true && record["partial_last"].is_null();
            }
            let expected: Vec<&str> = whole.iter().map(|record| record["message"].as_str().unwrap()).collect();
            assert!(joined.iter().map(|(text, _)| text.as_str()).eq(expected.iter().copied()), "{name} at {size}");
            for ((_, parts), message) in joined.iter().zip(expected) {
                assert!((*parts > 1) == (message.len() > limit), "{parts} parts of {} bytes", message.len());
            }
        }
    }
}

/// `--format`, `--stream`, `--timestamps` and patterns decide what is written, and of which lines.
#[test]
fn each_format_and_stream_is_written_as_asked() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "4", "--rate", "10", "--stream", "alternating"]);
    engine.run("longer", &[], &["--count", "2", "--shape", "json"]);
    engine.wait("web");
    engine.wait("longer");
    let reported = |args: &[&str]| String::from_utf8(engine.docker(args).stdout).unwrap();
    let timed = reported(&["logs", "--timestamps", "longer"]);
    let json = reported(&["logs", "longer"]);
    let named = |text: &str, name: &str| text.lines().map(|line| format!("{name} | {line}\n")).collect::<String>();
    let first = json.lines().next().unwrap().to_owned() + "\n";
    let check = |args: &[&str], expected: &str| {
        let ours = Watch::read(&engine, args);
        assert_eq!(String::from_utf8_lossy(&ours.stdout), expected, "{args:?}");
    };
    let [one, two, three, four] = [1, 2, 3, 4].map(|number| format!("line 00000000{number}\n"));
    check(&["web"], &named(&[&*one, &two, &three, &four].concat(), "web"));
    check(&["web", "--format", "raw"], &[&*one, &two, &three, &four].concat());
    check(&["web", "--format", "raw", "--stream", "stdout"], &[&*two, &four].concat());
    check(&["web", "--format", "raw", "--stream", "stderr"], &[&*one, &three].concat());
    check(&["longer", "--timestamps"], &named(&timed, "longer"));
    check(&["longer", "-t", "--format", "raw"], &timed);
    // Patterns match the message, not the form in which the engine stored it.
    check(&["longer", "-i", r#"^\{"level":"info","#], &named(&json, "longer"));
    check(&["longer", "-i", r#"said \\"a\\\\b\\"""#, "--format", "raw"], &json);
    check(&["longer", "-i", r#"said \\\\"#, "--format", "raw"], "");
    check(&["longer", "-i", "0001 ", "-i", "nowhere", "--format", "raw"], &first);
    check(&["longer", "-e", "0002 ", "--format", "raw"], &first);
    check(&["longer", "-i", "info", "-e", "0002 ", "-e", "nowhere", "--format", "raw"], &first);
    check(&["web", "-i", "1$", "--source", "stream"], &named(&one, "web"));
    // Into a pipe, names are not aligned, and coloured only when forced.
    let both = Watch::read(&engine, &["web", "longer", "-i", "01", "-e", "stderr"]).lines();
    let mut both: Vec<&str> = both.iter().map(|line| line.split(" | ").next().unwrap()).collect();
    both.sort_unstable();
    assert_eq!(both, ["longer", "web"]);
    check(&["web", "-i", "1$", "--color", "always"], "\u{1b}[35mweb\u{1b}[0m \u{1b}[2m|\u{1b}[0m line 000000001\n");

    let file = engine.home().join("out.log");
    let appended = ["web", "-i", "1$", "-o", file.to_str().unwrap()];
    fs::write(&file, "before\n").unwrap();
    check(&appended, "");
    check(&appended, "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "before\nweb | line 000000001\nweb | line 000000001\n");
}

/// Whatever escapes a log file holds, the JSON output can be parsed and has the text that `docker logs` prints; so has
/// the text output.
#[test]
fn unpaired_surrogates_are_read_as_docker_does() {
    let engine = Engine::start();
    let id = engine.run("web", &[], &["--count", "1"]);
    engine.wait("web");
    let messages = [
        r"high \ud83d",
        r"low \udc00",
        r"pair \ud83d\ude00",
        r"turned \ude00\ud83d",
        r"letter \ud83d\u0041",
        r"\ud83d\ud83d\ude00",
        r"backslash \\ud83d \\\ud83d",
        r"capitals \uD83D\uDE00 \uDBFF",
        r"controls \u0000\u001b\u0085\u007f\u2028",
        r"\u00e9 \ufffd",
    ];
    let record = |(number, message): (usize, &&str)| {
        format!(
            "{{\"log\":\"{message}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-20T23:00:53.00000000{number}Z\"}}\n"
        )
    };
    fs::write(engine.log_path(&id), messages.iter().enumerate().map(record).collect::<String>()).unwrap();
    let theirs = engine.docker(&["logs", "web"]).stdout;
    let theirs = String::from_utf8(theirs).unwrap();
    assert_eq!(theirs.matches('\u{fffd}').count(), 9, "{theirs:?}");
    for source in ["file", "stream"] {
        let records = Watch::read(&engine, &["web", "--format", "json", "--source", source]);
        let records: Vec<Value> = std::str::from_utf8(&records.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let ours: String = records.iter().map(|record| format!("{}\n", record["message"].as_str().unwrap())).collect();
        assert_eq!(ours, theirs, "{source}");
        let text = Watch::read(&engine, &["web", "--format", "raw", "--source", source]);
        assert_eq!(String::from_utf8(text.stdout).unwrap(), theirs, "{source}");
    }
}

/// Runs the program on a terminal made by `script` of util-linux; returns what it wrote there.
fn on_terminal(engine: &Engine, environment: &[(&str, &str)], args: &[&str]) -> String {
    let binary = env!("CARGO_BIN_EXE_docker-logwatch");
    let line = format!("{binary} -H {} watch --no-follow {}", engine.host(), args.join(" "));
    let mut script = Command::new("script");
    engine.configure(&mut script);
    script.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("DOCKER_HOST").env("TERM", "xterm");
    script.envs(environment.iter().copied()).args(["-qec", &line, "/dev/null"]);
    let output = script.output().expect("script of util-linux is needed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// When lines go to a file and stderr is a terminal, that shows how much of a long history has been read.
#[test]
fn a_long_history_shows_progress_on_a_terminal() {
    const LINES: usize = 300_000;
    let engine = Engine::start();
    engine.run("long", &[], &["--count", &LINES.to_string(), "--size", "150"]);
    engine.run("short", &[], &["--count", "3"]);
    for (name, expected, is_shown) in [("long", LINES, true), ("short", 3, false)] {
        engine.wait(name);
        let file = engine.home().join(name);
        let text = on_terminal(&engine, &[], &["--source", "stream", "-o", file.to_str().unwrap(), name]);
        assert_eq!(text.contains("catching up: "), is_shown, "{name}: {text:?}");
        // Padding a line with blanks would leave it visible behind a `^C`.
        assert!(!text.contains("    "), "{name}: {text:?}");
        let written = std::fs::read_to_string(file).unwrap();
        assert_eq!(written.lines().count(), expected, "{name}");
        assert!(!written.contains("catching up"), "{name}");
    }
}

/// Names are aligned and coloured, and of a message's control characters only colours reach the terminal.
#[test]
fn a_terminal_gets_aligned_coloured_names() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "8", "--shape", "text"]);
    engine.run("longer", &[], &["--count", "1"]);
    engine.run("evil", &[], &["--count", "16", "--shape", "hostile"]);
    for name in ["web", "longer", "evil"] {
        engine.wait(name);
    }
    let check = |environment: &[(&str, &str)], args: &[&str], expected: &[&str]| {
        let text = on_terminal(&engine, environment, args);
        let mut lines: Vec<&str> = text.split_terminator("\r\n").collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{args:?} {environment:?}");
    };
    let plain = &[("NO_COLOR", "1")][..];
    check(
        &[],
        &["web", "longer", "-i", "000001"],
        &[
            "\u{1b}[35mweb\u{1b}[0m    \u{1b}[2m|\u{1b}[0m line 000000001 <b>&amp;</b> \"quoted\" back\\slash /slash",
            "\u{1b}[93mlonger\u{1b}[0m \u{1b}[2m|\u{1b}[0m line 000000001",
        ],
    );
    check(
        plain,
        &["web", "longer", "-i", "000001"],
        &["longer | line 000000001", "web    | line 000000001 <b>&amp;</b> \"quoted\" back\\slash /slash"],
    );
    check(
        plain,
        &["web"],
        &[
            "web | line 000000001 <b>&amp;</b> \"quoted\" back\\slash /slash",
            "web | line 000000002 tab\there bell^G backspace^H formfeed^L del^?",
            "web | line 000000003 漢字 кириллица 🦀👩‍👩‍👧‍👦 e\u{301}",
            "web | line 000000004 separators \\u2028 and \\u2029 and \\ufeff and \\u0085",
            "web | line 000000005 colours \u{1b}[31mred\u{1b}[0m and 100% %s {} $HOME\u{1b}[0m",
            "web | line 000000006 carriage^Mreturn ^A^_",
            "web | line 000000007 \\u0041 \\n \\\" literal escapes, trailing spaces   ",
            "web | line 000000008 plain words",
        ],
    );
    let hostile = |form| vec!["evil", "--format", form, "-i", "'0(11|16|15|03) '", "--source", "stream"];
    let hostile_16 = vec!["evil", "-i", "0016"];
    check(plain, &hostile_16, &["evil | line 000000016^[]0;owned^G^[[2J^[[H\u{1b}[8m hidden\u{1b}[0m"]);
    check(plain, &[&hostile_16[..], &["--ansi", "strip"]].concat(), &["evil | line 000000016 hidden"]);
    check(
        plain,
        &[&hostile_16[..], &["--ansi", "keep"]].concat(),
        &["evil | line 000000016\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[H\u{1b}[8m hidden"],
    );
    check(
        plain,
        &hostile("raw"),
        &[
            "line 000000003 lone^Mcarriage",
            "line 000000011 ^[P+q544e^[\\ \u{fffd}31m ^[]8;;http://evil^[\\link^[]8;;^[\\",
            "line 000000015 \\u202ereversed\\u202c \\u200b\\u2066",
        ],
    );
    // JSON leaves C1 controls and DEL unescaped, but a terminal interprets them.
    let json = on_terminal(&engine, plain, &["web", "--format", "json", "-i", "'0(02|04) '"]);
    assert!(json.contains("del\\u007f\"") && json.contains(" and \\u2029 and \\ufeff and \\u0085\""), "{json}");
    let forbidden = |c: char| c.is_control() && c != '\r' && c != '\n';
    assert!(!json.contains(forbidden), "{json:?}");
    let messages = |records: Vec<Value>| records.iter().map(|record| record["message"].clone()).collect::<Vec<_>>();
    let piped = Watch::read(&engine, &["web", "--format", "json", "-i", "0(02|04) "]).records();
    assert_eq!(messages(records(json.lines())), messages(piped));
}

/// A start and an end are records with the lines of that run between them, and with the container's metadata.
#[test]
fn lifecycle_records_enclose_the_lines() {
    let engine = Engine::start();
    engine.run("before", &["--label", "tier=back"], &["--count", "1", "--idle"]);
    let often = ["--poll-interval", "100ms"];
    for (source, rm, more) in [
        ("file", &["--rm"][..], &[][..]),
        ("stream", &[], &[]),
        ("rotate", &[], &[]),
        // With a longer polling interval it would be dead before its lines come.
        ("poll", &[], &often),
    ] {
        let args = ["--format", "json", "--metadata", "--lifecycle", "--source", source];
        let watch = Watch::start(&engine, &[&args, more].concat());
        watch.wait_for_count(1);
        let options = [&["--label", "tier=front", "--label", "com.docker.compose.project=shop"], rm].concat();
        let id = engine.run("job", &options, &["--count", "3", "--rate", "5", "--exit", "7", "--after", "300"]);
        if rm.is_empty() {
            engine.wait("job");
            engine.must(&["rm", "job"]);
        }
        watch.wait_for(|lines| lines.iter().any(|line| line.contains("\"destroy\"")), PATIENCE);
        let finished = watch.stop();
        assert_eq!(finished.code, Some(0));
        let notices =
            [format!("+ before ({source})"), format!("+ job ({source})"), "- job (exit 7)".to_owned(), String::new()];
        assert_eq!(finished.stderr, notices.join("\n"), "{source}");
        let records = finished.records();
        let reported: Vec<&Value> = records.iter().filter(|record| record["container_name"] == "job").collect();
        let shown = reported.iter().filter_map(|record| record["message"].as_str()).collect::<Vec<_>>();
        assert_eq!(shown, ["line 000000001", "line 000000002", "line 000000003"], "{source}");
        let actions: Vec<&str> = reported.iter().filter_map(|record| record["action"].as_str()).collect();
        assert_eq!(actions, ["create", "start", "die", "destroy"], "{source}");
        // The first lines may come before the engine announces the start, the last ones before it announces the end.
        let at = |action: &str| reported.iter().position(|record| record["action"] == action).unwrap();
        assert_eq!((at("create"), at("die"), at("destroy")), (0, 5, 6), "{source}: {reported:#?}");
        assert_eq!(reported[5]["attributes"]["exitCode"], "7");
        for record in reported.iter().filter(|record| record["type"] == "log") {
            assert_eq!(record["container_id"], id.as_str());
            assert_eq!((&record["image"], &record["project"]), (&json!("logwatch-test"), &json!("shop")));
            let labels = json!({"container_label_tier": "front", "container_label_com.docker.compose.project": "shop"});
            assert_eq!((&record["labels"], &record["state"]), (&labels, &json!("running")), "{source}");
        }
        let last = reported.iter().rfind(|record| record["type"] == "log").unwrap();
        assert_eq!(last["networks"], json!({"network_none": ""}), "{source}");
        assert_eq!(records[0]["labels"], json!({"container_label_tier": "back"}));
        assert_eq!(records[0]["networks"], json!({"network_none": ""}));
    }
    // Nothing on stderr when no notices are wanted.
    let watch = Watch::start(&engine, &["--quiet", "before", "later"]);
    engine.run("later", &[], &["--count", "1"]);
    watch.wait_for_count(2);
    watch.signal(Signal::TERM);
    let finished = watch.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert_eq!(finished.lines(), ["before | line 000000001", "later | line 000000001"]);
}

//! Logs that are not `json-file`: those of the `local` driver, and the cache that the engine keeps for drivers which it
//! cannot read back, both read from their files; and containers without a log.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::support::{Engine, Numbers, PATIENCE, Proxy, Watch, eventually, messages};

/// A receiver for remote drivers: without one, the engine rejects every other line and stores it in no log.
fn listener() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    (socket, address)
}

/// Drivers that send lines to a remote server.
const REMOTE: [&str; 3] = ["gelf", "syslog", "fluentd"];

fn options(engine: &Engine, driver: &str, address: &str) -> Vec<String> {
    let option = match driver {
        // This driver waits until it can connect.
        "fluentd" if engine.version().starts_with("20.") => "fluentd-async-connect=true".to_owned(),
        "fluentd" => "fluentd-async=true".to_owned(),
        driver => format!("{driver}-address={address}"),
    };
    ["--log-driver", driver, "--log-opt", &option].map(str::to_owned).to_vec()
}

fn local_log(engine: &Engine, name: &str) -> PathBuf {
    engine.container_dir(name).join("local-logs/container.log")
}

/// The log is rotated and compressed meanwhile.
#[test]
fn a_local_log_is_followed_from_its_file() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let watch = Watch::ready_at(&engine, &proxy.host(), &["--source", "file"]);
    proxy.forget();
    let args = ["--count", "30000", "--rate", "6000", "--stream", "alternating", "--size", "80"];
    let small = ["--log-driver", "local", "--log-opt", "max-size=100k"];
    engine.run("packed", &[&small[..], &["--log-opt", "max-file=3"]].concat(), &args);
    engine.run("plain", &[&small[..], &["--log-opt", "max-file=3", "--log-opt", "compress=false"]].concat(), &args);
    engine.run("one", &[&small[..], &["--log-opt", "max-file=1", "--log-opt", "compress=false"]].concat(), &args);
    engine.run("text", &["--log-driver", "local"], &["--count", "64", "--shape", "hostile"]);
    watch.wait_for_ends(4);
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    for name in ["packed", "plain", "one"] {
        numbers.assert_whole(name, 1..=30_000);
    }
    assert!(!finished.stderr.contains('!'), "{}", finished.stderr);
    assert_eq!(messages(&finished.lines(), "text"), messages(&read(&engine, "stream", "text"), "text"));
    assert!(proxy.requests().iter().all(|request| !request.contains("/logs")), "no log was asked for");
}

/// All records of a container on one route.
fn read(engine: &Engine, source: &str, name: &str) -> Vec<String> {
    Watch::read(engine, &["--format", "json", "--source", source, name]).lines()
}

/// Logs of drivers that Docker cannot read back are followed from the cache that dockerd keeps.
#[test]
fn the_cache_of_unreadable_drivers_is_read() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &["--source", "file"]);
    let (_socket, address) = listener();
    for name in REMOTE {
        let options = options(&engine, name, &address);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        engine.run(name, &options, &["--count", "500", "--rate", "500", "--stream", "alternating"]);
    }
    watch.wait_for_ends(REMOTE.len());
    let finished = watch.stop();
    let numbers = Numbers::of_json(&finished.lines());
    for name in REMOTE {
        numbers.assert_whole(name, 1..=500);
        let cursors = |lines: &[String]| {
            let own = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let own = own.filter(|record| record["container_name"] == name);
            own.map(|record| record["cursor"].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(cursors(&finished.lines()), cursors(&read(&engine, "stream", name)), "{name}");
    }
}

/// `--tail` and `--since` select from rotated `local` files what they mean for the whole log.
#[test]
fn local_history_matches_docker_logs() {
    let engine = Engine::start();
    let options = ["--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=5"];
    engine.run("web", &options, &["--count", "1500", "--stream", "alternating", "--size", "60", "--rate", "5000"]);
    engine.wait("web");
    let all = read(&engine, "file", "web");
    assert!(all.len() > 300, "{}", all.len());
    let records: Vec<serde_json::Value> = all.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for tail in ["0", "1", "2", "10", "299", "100000"] {
        let ours = Watch::read(&engine, &["web", "--format", "json", "--tail", tail, "--source", "file"]).lines();
        let wanted: usize = tail.parse().unwrap();
        assert_eq!(ours, all[all.len().saturating_sub(wanted)..], "--tail {tail}");
    }
    for at in [0, 1, all.len() / 3, all.len() - 1] {
        let time = records[at]["time"].as_str().unwrap();
        let ours = Watch::read(&engine, &["web", "--format", "json", "--since", time, "--source", "file"]).lines();
        let expected: Vec<&String> = all
            .iter()
            .zip(&records)
            .filter(|(_, record)| record["time"].as_str().unwrap() >= time)
            .map(|(line, _)| line)
            .collect();
        assert_eq!(ours.iter().collect::<Vec<_>>(), expected, "--since {time}");
    }
}

/// The damage is reported and skipped.
#[test]
fn damage_in_a_local_log_is_skipped() {
    let engine = Engine::start();
    engine.run("web", &["--log-driver", "local"], &["--count", "300", "--size", "50"]);
    engine.wait("web");
    let path = local_log(&engine, "web");
    let size = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().write_all_at(&[0; 700], size / 2).unwrap();
    let finished = Watch::start(&engine, &["--no-follow", "--format", "json", "--source", "file", "web"]).finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let records = finished.records();
    let gaps: Vec<usize> = (0..records.len()).filter(|at| records[*at]["type"] == "gap").collect();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(records[gap]["reason"], "corrupt");
    let lost = records[gap]["lost_bytes"].as_u64().unwrap();
    assert!((700..1000).contains(&lost), "{lost}");
    let lines = finished.lines();
    let (before, after) = (Numbers::of_json(&lines[..gap]), Numbers::of_json(&lines[gap + 1..]));
    before.assert_whole("web", 1..=before.count("web") as u64);
    let first = 301 - after.count("web") as u64;
    after.assert_whole("web", first..=300);
    assert!((270..300).contains(&Numbers::of_json(&lines).total()), "{}", lines.len());
}

/// A record without its end is a gap, and the records behind it are read.
#[test]
fn a_cut_record_costs_no_later_one() {
    let engine = Engine::start();
    engine.run("web", &["--log-driver", "local"], &["--count", "10", "--size", "2000"]);
    engine.wait("web");
    let path = local_log(&engine, "web");
    let log = fs::read(&path).unwrap();
    let length = log.len() / 10;
    let mut longer = [&log[..length / 2], &log[9 * length..]].concat();
    // Its length field exceeds the rest of the file.
    longer[..4].copy_from_slice(&100_000_u32.to_be_bytes());
    fs::write(&path, &longer).unwrap();
    let mut shown = Vec::new();
    for follow in [false, true] {
        let args = ["--format", "json", "--source", "file", "--all", "--tail", "all", "web"];
        let records = if follow {
            let watch = Watch::start(&engine, &args);
            watch.wait_for(|lines| lines.len() == 2, PATIENCE);
            watch.stop().records()
        } else {
            Watch::start(&engine, &[&["--no-follow"], &args[..]].concat()).finish().records()
        };
        shown.push(records.iter().map(|record| record["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        assert_eq!(records[0]["lost_bytes"], length as u64 / 2);
        assert!(records[1]["message"].as_str().unwrap().contains("000000010"));
    }
    assert_eq!(shown, [["gap", "log"]; 2]);
}

/// A file in an unknown format is read through the engine, and a notice says so.
#[test]
fn an_unknown_file_format_uses_the_api() {
    let engine = Engine::start();
    engine.run("web", &["--log-driver", "local"], &["--count", "20"]);
    engine.wait("web");
    let path = local_log(&engine, "web");
    let log = fs::read(&path).unwrap();
    // As a later engine might write it: the fields that we look for are gone.
    fs::write(&path, [&b"\0LOG2"[..], &log].concat()).unwrap();
    let finished = Watch::start(&engine, &["--no-follow", "--format", "json", "web"]).finish();
    let reported = "! web: its log file has an unknown format: reading through the engine instead\n";
    assert!(finished.stderr.starts_with(reported), "{}", finished.stderr);
    let finished = Watch::start(&engine, &["--no-follow", "--format", "json", "--source", "file", "web"]).finish();
    let records = finished.records();
    assert_eq!((records.len(), &records[0]["reason"]), (1, &serde_json::json!("unreadable")));
}

/// Such a container is reported once, and the others are followed.
#[test]
fn a_container_without_log_is_reported_once() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &[]);
    let (_socket, address) = listener();
    let uncached = options(&engine, "gelf", &address);
    let uncached: Vec<&str> = uncached.iter().map(String::as_str).chain(["--log-opt", "cache-disabled=true"]).collect();
    engine.run("silent", &["--log-driver", "none"], &["--count", "5", "--idle"]);
    engine.run("uncached", &uncached, &["--count", "5", "--idle"]);
    engine.run("web", &[], &["--count", "50"]);
    let reported =
        |lines: &[String], name: &str| lines.iter().filter(|line| line.starts_with(&format!("! {name}: "))).count();
    watch.wait_for_notice(|lines| reported(lines, "silent") > 0 && reported(lines, "uncached") > 0, PATIENCE);
    eventually("the other was read", || Numbers::of_json(&watch.lines()).count("web") == 50);
    engine.must(&["restart", "silent"]);
    engine.must(&["kill", "silent", "uncached"]);
    let ended = |lines: &[String], name: &str| lines.iter().any(|line| line.starts_with(&format!("- {name}")));
    watch.wait_for_notice(|lines| ended(lines, "silent") && ended(lines, "uncached"), PATIENCE);
    let notices = watch.stop().stderr;
    let lines: Vec<String> = notices.lines().map(str::to_owned).collect();
    assert_eq!((reported(&lines, "silent"), reported(&lines, "uncached")), (1, 1), "{notices}");
}

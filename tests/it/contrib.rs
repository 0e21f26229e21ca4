//! The programs for which the files in `contrib/` are made accept them.

use super::support::cli::{here, text};
use super::support::{Engine, Numbers, PATIENCE, Watch, eventually, get, place};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

const RULES: &str = "contrib/prometheus-rules.yml";
const UNIT: &str = "contrib/docker-logwatch.service";

/// Runs Prometheus's own checker, the machine's or the one that `tests/run.sh` unpacked, with `input` on stdin. It must
/// not complain.
#[track_caller]
fn promtool(args: &[&str], input: &str) {
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools/usr/bin/promtool");
    let program = if unpacked.exists() { unpacked } else { "promtool".into() };
    let mut command = Command::new(program);
    command.args(args).current_dir(here("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("promtool cannot be started: {error}; try tests/run.sh"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "{args:?}: {said}");
    // It only warns about metrics and still succeeds.
    assert!(args[1] != "metrics" || said.is_empty(), "{said}");
}

/// Prometheus loads the alert rules, and each fires in the situations of its test file and in no other.
#[test]
fn prometheus_accepts_the_rules() {
    promtool(&["check", "rules", RULES], "");
    promtool(&["test", "rules", "contrib/prometheus-rules-test.yml"], "");
}

/// promtool has nothing to say about what `--listen` serves.
#[test]
fn prometheus_accepts_the_metrics() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &["--listen", "127.0.0.1:0"]);
    engine.run("talker", &[], &["--count", "3"]);
    watch.wait_for_ends(1);
    let (status, series) = get(&place(&watch), "/metrics");
    assert_eq!(status, 200);
    promtool(&["check", "metrics"], &series);
}

/// Panels do not overlap, each query is restricted to the chosen jobs, and Prometheus can parse it.
#[test]
fn grafana_can_read_the_dashboard() {
    let dashboard: serde_json::Value = serde_json::from_str(&text("contrib/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()) && places.insert(panel["gridPos"].to_string()), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            // Every query is restricted to the selected jobs and instances.
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("{job=~\"$job\", instance=~\"$instance\"}"), "{query}");
        }
    }
    assert!(panels.len() > 10);
    // Prometheus checks the queries as if they were rules, with Grafana's variables filled in.
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let rules = queries.enumerate().map(|(number, target)| {
        let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        serde_json::json!({ "record": format!("panel:{number}"), "expr": query })
    });
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules.collect::<Vec<_>>() }] });
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    fs::write(file.path(), groups.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

/// The arguments in the unit's `ExecStart`, with the directories and the port of this test.
fn start(state: &Path, logs: &Path) -> Vec<String> {
    let unit = text(UNIT);
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let line = line.replace("${STATE_DIRECTORY}", state.to_str().unwrap());
    let line = line.replace("${LOGS_DIRECTORY}", logs.to_str().unwrap()).replace(":8519", ":0");
    line.split(' ').skip(1).map(str::to_owned).collect()
}

/// systemd-analyze verifies the unit and rates its exposure as low.
#[test]
fn systemd_accepts_the_hardened_unit() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("docker-logwatch.service");
    // The documentation and the program are at these paths only after installation.
    let unit = text(UNIT).replace("/usr/local/bin/docker-logwatch", env!("CARGO_BIN_EXE_docker-logwatch"));
    fs::write(&copy, unit.replace("Documentation=", "# ")).unwrap();
    let analyze = |args: &[&str]| {
        let output = Command::new("systemd-analyze").args(args).arg(&copy).output();
        let output =
            output.unwrap_or_else(|error| panic!("systemd-analyze cannot be started: {error}; try tests/run.sh"));
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    assert_eq!(analyze(&["verify"]), "");
    // Docker's documentation lets dockerd's own metrics (`metrics-addr`) listen on 9323.
    assert!(unit.contains(":8519") && !unit.contains(":9323"), "{unit}");
    // In tenths: below 2.0 counts as good. What remains is the network, the socket's group and the one capability.
    analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]);
}

/// With the one capability of the unit, a user who owns nothing reads log files.
#[test]
fn the_service_user_reads_log_files() {
    const NOBODY: u32 = 65534;
    let engine = Engine::start();
    engine.run("beacon", &[], &["--count", "5", "--idle"]);
    let [state, logs] = ["state", "logs"].map(|name| engine.home().join(name));
    for folder in [&state, &logs] {
        fs::create_dir(folder).unwrap();
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let group = fs::metadata(engine.socket()).unwrap().gid();
    let unit = text(UNIT);
    let only = "CAP_DAC_READ_SEARCH";
    assert!(unit.contains(&format!("AmbientCapabilities={only}\nCapabilityBoundingSet={only}\n")));
    let mut command = Command::new("setpriv");
    engine.configure(&mut command);
    let caps = "-all,+dac_read_search";
    command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), &format!("--groups={group}")]);
    command.args(["--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", caps, "--no-new-privs"]);
    let watch = Watch::spawn(command.arg(env!("CARGO_BIN_EXE_docker-logwatch")).args(start(&state, &logs)));
    watch.wait_for_notice(|lines| lines.iter().any(|line| line == "+ beacon (file)"), PATIENCE);
    engine.run("talker", &[], &["--count", "20"]);
    watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with("- talker")), PATIENCE);
    assert_eq!(get(&place(&watch), "/api/v1/health").0, 200);
    let finished = watch.stop();
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(0), &b""[..]), "{}", finished.stderr);
    let records = fs::read_to_string(logs.join("containers.jsonl")).unwrap();
    assert_eq!(records.lines().filter(|line| line.contains("\"source\":\"file\"")).count(), 25, "{records}");
    assert!(state.join("state.db").exists());
}

/// logrotate moves the output with the rules of contrib while lines are written: all files together hold each once.
#[test]
fn logrotate_loses_and_repeats_no_line() {
    let engine = Engine::start();
    let [state, logs] = ["state", "logs"].map(|name| engine.home().join(name));
    fs::create_dir(&logs).unwrap();
    let folder = "/var/log/docker-logwatch/";
    let rules = text("contrib/logrotate.d/docker-logwatch");
    assert!(rules.contains(&format!("\n{folder}*.jsonl {{\n")), "{rules}");
    let copy = engine.home().join("logrotate.conf");
    fs::write(&copy, rules.replace(folder, &format!("{}/", logs.display()))).unwrap();
    let file = logs.join("containers.jsonl");
    let mut command = Watch::command();
    engine.configure(&mut command);
    let watch = Watch::spawn(command.args(start(&state, &logs)));
    engine.run("talker", &[], &["--count", "4000", "--rate", "1000"]);
    let written = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    for turn in 1..=3 {
        eventually("it is written to", || written() > 10_000);
        let memory = engine.home().join("logrotate.state");
        let output = Command::new("logrotate").args(["--force", "--state"]).args([&memory, &copy]).output();
        let output = output.unwrap_or_else(|error| panic!("logrotate cannot be started: {error}; try tests/run.sh"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let reported = |lines: &[String]| lines.iter().filter(|line| line.contains("was moved away")).count() == turn;
        watch.wait_for_notice(reported, PATIENCE);
    }
    watch.wait_for_ends(1);
    assert_eq!(watch.stop().code, Some(0));
    let mut lines = Vec::new();
    for name in ["containers.jsonl.3.gz", "containers.jsonl.2.gz", "containers.jsonl.1", "containers.jsonl"] {
        let mut bytes = fs::read(logs.join(name)).unwrap();
        if name.ends_with(".gz") {
            let packed = std::mem::take(&mut bytes);
            flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        }
        lines.extend(String::from_utf8(bytes).unwrap().lines().map(str::to_owned));
    }
    Numbers::of_json(&lines).assert_whole("talker", 1..=4000);
}

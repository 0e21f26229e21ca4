//! The inventory matches the engine: `reconcile` establishes that, `watch` maintains it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::support::{Engine, Finished, PATIENCE, Proxy, Signal, Watch, beside, counts, eventually, rows};

fn state_of(engine: &Engine) -> PathBuf {
    engine.home().join("state/state.db")
}

fn reconcile(engine: &Engine, state: &Path, args: &[&str]) -> Finished {
    Watch::subcommand(engine, "reconcile", &[&["--state", state.to_str().unwrap()], args].concat()).finish()
}

/// The report of a run that must succeed.
#[track_caller]
fn report(engine: &Engine, state: &Path, args: &[&str]) -> Value {
    let finished = reconcile(engine, state, &[&["--format", "json"], args].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.records().pop().unwrap()
}

#[track_caller]
fn assert_nothing_to_do(engine: &Engine, state: &Path) {
    let again = report(engine, state, &["--details"]);
    assert_eq!((&again["in_sync"], &again["details"]), (&json!(true), &json!([])), "{again}");
    let checked = reconcile(engine, state, &["--check"]);
    assert_eq!((checked.code, checked.stdout.len(), checked.stderr.as_str()), (Some(0), 0, ""));
}

/// What docker says about all containers and volumes.
fn as_docker_reports(engine: &Engine) -> Vec<String> {
    let ids = engine.must(&["ps", "-aq", "--no-trunc"]);
    let mut reported = Vec::new();
    for id in ids.lines() {
        let object: Value = serde_json::from_str::<Vec<Value>>(&engine.must(&["inspect", id])).unwrap().remove(0);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let labels: BTreeMap<String, String> =
            serde_json::from_value(object["Config"]["Labels"].clone()).unwrap_or_default();
        reported.push(format!(
            "container {id} {} {} {} {} {}",
            text(&object["Name"]).trim_start_matches('/'),
            text(&object["Config"]["Image"]),
            text(&object["State"]["Status"]),
            text(&object["HostConfig"]["LogConfig"]["Type"]),
            serde_json::to_string(&labels).unwrap(),
        ));
        for mount in object["Mounts"].as_array().unwrap() {
            let access = if mount["RW"] == json!(true) { 0 } else { 1 };
            let name = mount["Name"].as_str().unwrap_or("-");
            reported.push(format!(
                "mount {id} {} {} {name} {} {access}",
                text(&mount["Destination"]),
                text(&mount["Type"]),
                text(&mount["Source"])
            ));
        }
    }
    for name in engine.must(&["volume", "ls", "-q"]).lines() {
        let object: Value =
            serde_json::from_str::<Vec<Value>>(&engine.must(&["volume", "inspect", name])).unwrap().remove(0);
        let labels: BTreeMap<String, String> = serde_json::from_value(object["Labels"].clone()).unwrap_or_default();
        reported.push(format!(
            "volume {name} {} {} {}",
            object["Driver"].as_str().unwrap(),
            object["Mountpoint"].as_str().unwrap(),
            serde_json::to_string(&labels).unwrap()
        ));
    }
    reported.sort();
    reported
}

/// Fails unless inventory and engine match.
#[track_caller]
fn assert_true(engine: &Engine, state: &Path, when: &str) {
    let (reported, kept) = (as_docker_reports(engine), as_kept(state));
    let missing: Vec<&String> = reported.iter().filter(|row| !kept.contains(row)).collect();
    let wrong: Vec<&String> = kept.iter().filter(|row| !reported.contains(row)).collect();
    assert!(reported == kept, "{when}: docker has {missing:#?}, kept is {wrong:#?}");
}

/// The same rows from the inventory.
fn as_kept(state: &Path) -> Vec<String> {
    let mut kept = rows(
        state,
        "SELECT 'container ' || container_id || ' ' || name || ' ' || image || ' ' || state || ' ' || log_driver || ' ' ||
            labels FROM containers
        UNION ALL SELECT 'mount ' || container_id || ' ' || destination || ' ' || type || ' ' || coalesce(volume, '-') ||
            ' ' || source || ' ' || read_only FROM mounts
        UNION ALL SELECT 'volume ' || name || ' ' || driver || ' ' || mountpoint || ' ' || labels FROM volumes",
    );
    kept.sort();
    kept
}

/// A first run writes what docker reports, a second one finds nothing to do, and `--dry-run` and `--check` write
/// nothing.
#[test]
fn a_second_run_changes_nothing() {
    let engine = Engine::start();
    let state = state_of(&engine);
    let source = engine.home().join("source");
    fs::create_dir(&source).unwrap();
    let bind = format!("{}:/etc/app:ro", source.display());
    engine.must(&["volume", "create", "--label", "of=shop", "shop"]);
    engine.run("web", &["-v", "shop:/data", "-v", &bind, "-v", "/anonymous", "--label", "tier=front"], &["--idle"]);
    engine.create("spare", &["--log-driver", "local", "-v", "shop:/data:ro"], &[]);
    engine.run("job", &["--log-driver", "none"], &["--count", "1"]);
    engine.wait("job");
    let dry = reconcile(&engine, &state, &["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    let table = String::from_utf8(dry.stdout).unwrap();
    let reported: Vec<&str> = table.lines().collect();
    assert_eq!(reported[1].split_whitespace().collect::<Vec<_>>(), ["containers", "3", "-", "-", "0"], "{table}");
    assert!(reported[6].starts_with("out of sync; nothing was written ("), "{table}");
    assert!(!state.exists() && !state.parent().unwrap().exists(), "nothing was written");
    let check = reconcile(&engine, &state, &["--check", "--format", "json"]);
    assert_eq!((check.code, &check.records()[0]["in_sync"]), (Some(4), &json!(false)));
    let reported = format!(
        "error: no state file at {}: there is nothing to compare with the Docker Engine\nhint: create it with `reconcile` without \
         --check, or with `watch --resume`\n",
        state.display()
    );
    assert_eq!(check.stderr, reported);
    let check = reconcile(&engine, &state, &["--check"]);
    assert_eq!((check.code, check.stdout.len(), check.stderr), (Some(4), 0, reported));
    assert!(!state.exists() && !state.parent().unwrap().exists(), "nothing was written");
    let first = report(&engine, &state, &["--details"]);
    assert_eq!(counts(&first, "containers"), [3, 0, 0, 0]);
    assert_eq!(counts(&first, "volumes"), [2, 0, 0, 0]);
    assert_eq!(counts(&first, "mounts"), [4, 0, 0, 0]);
    assert_eq!((&first["type"], &first["dry_run"], &first["in_sync"]), (&json!("full"), &json!(false), &json!(false)));
    assert_eq!(first["engine_id"], json!(engine.must(&["info", "--format", "{{.ID}}"])));
    assert_true(&engine, &state, "in the end");
    let times =
        "SELECT name || ' ' || coalesce(exit_code, '-') || ' ' || (started_at IS NOT NULL) || (finished_at IS NOT NULL)
        || ' ' || coalesce(log_route, '-') || ' ' || (created_at <= first_seen_at) FROM containers ORDER BY name";
    assert_eq!(rows(&state, times), ["job 0 11 - 1", "spare - 00 file 1", "web - 10 file 1"]);
    assert_nothing_to_do(&engine, &state);
    engine.must(&["rename", "spare", "other"]);
    engine.must(&["rm", "-f", "-v", "web"]);
    let next = report(&engine, &state, &["--details"]);
    assert_eq!(counts(&next, "containers"), [0, 1, 1, 1]);
    assert_eq!(counts(&next, "volumes"), [0, 0, 1, 1]);
    assert_eq!(counts(&next, "mounts"), [0, 0, 3, 1]);
    let renamed = json!([{"name": "name", "before": "spare", "after": "other"}]);
    assert_eq!(next["details"][0]["fields"], renamed);
    assert_true(&engine, &state, "in the end");
    assert_nothing_to_do(&engine, &state);
}

/// Each SQL query in the documentation runs and finds what it says.
#[test]
fn documented_queries_work() {
    let engine = Engine::start();
    let state = state_of(&engine);
    engine.must(&["volume", "create", "unused"]);
    engine.create("writer", &["-v", "used:/data", "--label", "com.docker.compose.project=shop"], &[]);
    engine.create("reader", &["-v", "used:/data:ro", "--log-driver", "none"], &[]);
    report(&engine, &state, &[]);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reconcile.md")).unwrap();
    let connection = Connection::open_with_flags(&state, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let answers = page.split("sqlite3 \"$db\" \"").skip(1).map(|query| {
        // A shell's interpretation of a double-quoted text.
        let query = query.split("\"\n").next().unwrap().replace("\\$", "$").replace("\\\"", "\"");
        let mut statement = connection.prepare(&query).unwrap_or_else(|error| panic!("{error}: {query}"));
        let mut rows = statement.query([]).unwrap();
        let mut firsts = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            firsts.push(row.get::<_, Option<String>>(0).unwrap().unwrap_or("-".into()));
        }
        firsts
    });
    let answers: Vec<Vec<String>> = answers.collect();
    let (last, others) = answers.split_last().unwrap();
    assert_eq!(others, [vec!["used"], vec!["unused"], vec!["-", "shop"], vec!["reader"]]);
    assert_eq!(last.len(), 1, "{last:?}");
}

/// One random operation on containers and volumes of a few names.
fn change(engine: &Engine, random: &mut fastrand::Rng, number: usize) {
    let containers = engine.must(&["ps", "-a", "--format", "{{.Names}}"]);
    let containers: Vec<&str> = containers.lines().filter(|name| *name != "beacon").collect();
    let any = |random: &mut fastrand::Rng| containers.get(random.usize(..containers.len().max(1))).copied();
    let volume = format!("volume{}", random.usize(..5));
    let mount = format!("{volume}:/data{}", if random.bool() { ":ro" } else { "" });
    // Not every operation is possible on every container; a failed one changes nothing.
    let args: Vec<&str> = match (random.usize(..14), any(random)) {
        (0..=2, _) | (_, None) => {
            let name = format!("c{number}");
            let idle = if random.bool() { "--idle" } else { "--count" };
            let args = if idle == "--idle" { vec![idle] } else { vec![idle, "1"] };
            let kind = format!("kind={}", &idle[2..]);
            engine.run(&name, &["-v", &mount, "--label", &format!("number={number}"), "--label", &kind], &args);
            return;
        }
        (3, _) => {
            engine.create(&format!("c{number}"), &["-v", "/anonymous", "-v", &mount], &["--idle"]);
            return;
        }
        (4, Some(name)) => {
            engine.docker(&["rename", name, &format!("renamed{number}")]);
            return;
        }
        (5, Some(name)) => vec!["start", name],
        (6, Some(name)) => vec!["stop", "-t", "0", name],
        (7, Some(name)) => vec!["kill", name],
        (8, Some(name)) => vec![if random.bool() { "pause" } else { "unpause" }, name],
        (9, Some(name)) => vec!["rm", "-f", "-v", name],
        (10, _) => vec!["volume", "rm", &volume],
        (11, _) => vec!["volume", "prune", "--force"],
        (12, _) if random.bool() => vec!["container", "prune", "--force"],
        _ => vec!["volume", "create", "--label", "a=b", &volume],
    };
    engine.docker(&args);
}

/// Waits for containers that end by themselves: if one ended between the two queries, they would differ.
fn settle(engine: &Engine) {
    let brief = ["--filter", "label=kind=count", "--format", "{{.Names}}"];
    for name in engine.must(&[&["ps", "-a", "--filter", "status=paused"], &brief[..]].concat()).lines() {
        engine.must(&["unpause", name]);
    }
    for name in engine.must(&[&["ps"], &brief[..]].concat()).lines() {
        engine.wait(name);
    }
}

/// Whatever happens while a watch runs, is suspended or killed, the inventory ends like the engine.
#[test]
fn random_changes_end_in_a_true_inventory() {
    let engine = Engine::start();
    let state = state_of(&engine);
    let seed = u64::from(std::process::id()) ^ 0x10_6a7c;
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let file = engine.home().join("out");
    let args = ["--state", state.to_str().unwrap(), "--resume", "-o", file.to_str().unwrap()];
    let mut number = 0..;
    let mut changes =
        |count: usize| number.by_ref().take(count).for_each(|number| change(&engine, &mut random, number));
    let is_in_sync = || reconcile(&engine, &state, &["--check"]).code == Some(0);
    changes(10);
    let watch = Watch::start(&engine, &args);
    watch.wait_until_up();
    changes(40);
    settle(&engine);
    eventually("the watch has brought the inventory in line by itself", is_in_sync);
    assert_true(&engine, &state, "in the end");
    assert_eq!(watch.stop().code, Some(0));
    changes(20);
    settle(&engine);
    report(&engine, &state, &[]);
    assert_true(&engine, &state, "changed while nobody watched");
    assert_nothing_to_do(&engine, &state);
    for _ in 0..3 {
        let watch = Watch::start(&engine, &args);
        watch.wait_until_up();
        changes(10);
        watch.signal(Signal::KILL);
        watch.finish();
        settle(&engine);
        report(&engine, &state, &[]);
        assert_true(&engine, &state, "killed half-way");
        assert_nothing_to_do(&engine, &state);
    }
    let by_watch = rows(&state, "SELECT source FROM reconciliations WHERE source = 'watch'");
    assert!(!by_watch.is_empty());
}

/// The watch is suspended while its connection is cut and more happens than the engine remembers.
#[test]
fn an_overrun_history_is_made_up_for() {
    let engine = Engine::start();
    let proxy = Proxy::start(&engine);
    let state = state_of(&engine);
    engine.run("web", &["-v", "shop:/data"], &["--idle"]);
    let id = engine.create("busy", &["-v", "old:/data"], &[]);
    let watch = Watch::at(&engine, &proxy.host(), &["watch", "--state", state.to_str().unwrap()]);
    watch.wait_until_up();
    let is_in_sync = || reconcile(&engine, &state, &["--check"]).code == Some(0);
    eventually("the first listing is kept", is_in_sync);
    watch.signal(Signal::STOP);
    proxy.cut();
    engine.must(&["rm", "-f", "web"]);
    engine.must(&["volume", "rm", "shop"]);
    engine.run("new", &["-v", "fresh:/data"], &["--idle"]);
    for number in 0..300 {
        engine.post(&format!("/containers/{id}/rename?name=busy{number}")).unwrap();
    }
    watch.signal(Signal::CONT);
    let names = || rows(&state, "SELECT name FROM containers ORDER BY name");
    let begun = Instant::now();
    eventually("the inventory knows of it", || names() == ["busy299", "new"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    eventually("and is in line again", is_in_sync);
    assert_true(&engine, &state, "in the end");
    assert_eq!(watch.stop().code, Some(0));
}

/// The engine names the containers that it has pruned, but of volumes it only says that it did.
#[test]
fn pruned_objects_leave_the_inventory_at_once() {
    let engine = Engine::start();
    let state = state_of(&engine);
    engine.create("spare", &["-v", "/anonymous"], &[]);
    engine.run("web", &["-v", "shop:/data"], &["--idle"]);
    // Without a name, because newer engines prune only anonymous volumes by default.
    engine.must(&["volume", "create"]);
    let watch = Watch::start(&engine, &["--state", state.to_str().unwrap()]);
    watch.wait_until_up();
    let names = || rows(&state, "SELECT name FROM containers ORDER BY name");
    let volumes = || rows(&state, "SELECT name FROM volumes").len();
    eventually("all is known", || names() == ["spare", "web"] && volumes() == 3);
    engine.must(&["volume", "prune", "--force"]);
    eventually("the unused volume is gone", || volumes() == 2);
    engine.must(&["system", "prune", "--force", "--volumes"]);
    eventually("the stopped container and its volume are gone", || names() == ["web"] && volumes() == 1);
    assert_true(&engine, &state, "in the end");
    assert_eq!(rows(&state, "SELECT source FROM reconciliations").len(), 1, "events alone did it");
    assert_eq!(watch.stop().code, Some(0));
}

/// As cron runs it, on a host where something happens all the time: changes that a running watch will store in a moment
/// are no difference, and changes that nobody stores are one.
#[test]
fn a_watched_busy_host_passes_the_check() {
    let engine = Engine::start();
    let state = state_of(&engine);
    engine.run("web", &[], &["--idle"]);
    let watch = Watch::start(&engine, &["--state", state.to_str().unwrap()]);
    watch.wait_until_up();
    eventually("everything was compared", || rows(&state, "SELECT source FROM reconciliations").len() == 1);
    let mut numbers = 0..;
    let make = || {
        let number: usize = numbers.next().unwrap();
        engine.create(&format!("c{number}"), &["-v", &format!("v{number}:/data")], &[]);
        if number % 3 == 2 {
            engine.must(&["rm", &format!("c{number}")]);
        }
    };
    let codes = beside(make, || [(); 2].map(|()| reconcile(&engine, &state, &["--check"]).code));
    assert_eq!(codes, [Some(0); 2]);
    watch.signal(Signal::STOP);
    engine.create("unkept", &[], &[]);
    let checked = reconcile(&engine, &state, &["--check", "--details"]);
    let reported = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.code == Some(4) && reported.contains("unkept"), "{reported}");
    watch.signal(Signal::CONT);
    assert_eq!(watch.stop().code, Some(0));
}

/// After a restart of the engine everything is compared, not only what events report.
#[test]
fn an_engine_that_returns_is_compared_again() {
    let engine = Engine::start();
    let state = state_of(&engine);
    engine.run("web", &["-v", "shop:/data"], &["--idle"]);
    engine.run("db", &["--restart", "always"], &["--idle"]);
    let watch = Watch::start(&engine, &["--state", state.to_str().unwrap()]);
    watch.wait_until_up();
    let is_in_sync = || reconcile(&engine, &state, &["--check"]).code == Some(0);
    eventually("the first listing is kept", is_in_sync);
    engine.restart();
    engine.must(&["rm", "web"]);
    engine.must(&["volume", "rm", "shop"]);
    eventually("the inventory is in line again", is_in_sync);
    assert_true(&engine, &state, "in the end");
    // Events alone may have caused it.
    let runs = || rows(&state, "SELECT source FROM reconciliations");
    eventually("everything was compared again", || runs().len() >= 2);
    assert!(runs().iter().all(|source| source == "watch"));
    watch.stop();
}

/// What is lost with them is reported; a name that is in use keeps its positions.
#[test]
fn positions_of_removed_containers_are_removed() {
    let engine = Engine::start();
    let (state, file) = (state_of(&engine), engine.home().join("out"));
    let resume = |name: &str, more: &[&str]| {
        let name = format!("--resume={name}");
        let file = file.with_extension(&name);
        let args = ["--state", state.to_str().unwrap(), &name, "-o", file.to_str().unwrap()];
        Watch::start(&engine, &[&args, more].concat())
    };
    engine.run("cut", &[], &["--count", "5", "--idle"]);
    engine.run("done", &[], &["--count", "5", "--idle"]);
    let positions = || rows(&state, "SELECT name || ' ' || container_name FROM positions ORDER BY 1");
    let first = resume("first", &["cut", "done"]);
    first.wait_until_up();
    eventually("both are read", || positions().len() == 2);
    engine.must(&["kill", "done"]);
    let ended = || rows(&state, "SELECT container_name FROM positions WHERE ended");
    eventually("one is read to its end", || ended() == ["done"]);
    assert_eq!(first.stop().code, Some(0));
    let held = resume("held", &["cut", "done"]);
    let all = ["first cut", "first done", "held cut", "held done"];
    eventually("both are kept", || positions() == all);
    // The run that holds the name is not affected.
    held.signal(Signal::STOP);
    engine.must(&["rm", "-f", "cut", "done"]);
    let dry = reconcile(&engine, &state, &["--check", "--format", "json"]);
    assert_eq!((dry.code, counts(&dry.records()[0], "positions")), (Some(4), [0, 0, 2, 2]));
    let finished = reconcile(&engine, &state, &["--format", "json", "--details"]);
    let reported = "cut was removed while no watch was running: its last lines cannot be read\n";
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), reported));
    let report = finished.records().pop().unwrap();
    assert_eq!((counts(&report, "positions"), &report["lost"]), ([0, 0, 2, 2], &json!(["cut"])));
    assert_eq!(positions(), ["held cut", "held done"]);
    assert_nothing_to_do(&engine, &state);
    held.signal(Signal::CONT);
    eventually("it forgets them itself", || positions().is_empty());
    assert_eq!(resume("first", &["--no-follow"]).finish().stderr, "no container matches\n", "reported once");
    held.stop();
}

/// Two watches and repeated reconciliations on one state agree in the end and are never locked out.
#[test]
fn watches_and_reconciliations_share_a_state() {
    let engine = Engine::start();
    let state = state_of(&engine);
    let watch = |name: &str| {
        let (name, file) = (format!("--resume={name}"), engine.home().join(name));
        Watch::start(&engine, &["--state", state.to_str().unwrap(), &name, "-o", file.to_str().unwrap()])
    };
    let watches = [watch("one"), watch("two")];
    watches.iter().for_each(Watch::wait_until_up);
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..20 {
        change(&engine, &mut random, number);
        if number % 5 == 0 {
            let begun = Instant::now();
            report(&engine, &state, &[]);
            // SQLite's busy timeout, and what the rest takes on a machine with other work to do.
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
    }
    eventually("they agree", || reconcile(&engine, &state, &["--check"]).code == Some(0));
    assert_true(&engine, &state, "in the end");
    for watch in watches {
        let finished = watch.stop();
        assert_eq!((finished.code, finished.stderr.contains("locked")), (Some(0), false), "{}", finished.stderr);
    }
}

/// The locked state is reported once, and the inventory is corrected later.
#[test]
fn a_locked_state_does_not_stop_following() {
    let engine = Engine::start();
    let state = state_of(&engine);
    engine.run("web", &[], &["--forever", "--rate", "50"]);
    let watch = Watch::start(&engine, &["--state", state.to_str().unwrap(), "web"]);
    let is_in_sync = || reconcile(&engine, &state, &["--check"]).code == Some(0);
    eventually("the first listing is kept", || state.exists() && is_in_sync());
    let other = Connection::open(&state).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    engine.create("first", &[], &[]);
    let locked = |lines: &[String]| lines.iter().filter(|line| line.contains("is locked by another program")).count();
    watch.wait_for_notice(|lines| locked(lines) == 1, PATIENCE);
    engine.create("second", &[], &[]);
    let seen = watch.lines().len();
    watch.wait_for(|lines| lines.len() > seen + 100, PATIENCE);
    other.execute_batch("ROLLBACK").unwrap();
    eventually("the next reconciliation makes up for it", is_in_sync);
    let finished = watch.stop();
    assert_eq!(locked(&finished.stderr.lines().map(str::to_owned).collect::<Vec<_>>()), 1, "{}", finished.stderr);
}

/// A damaged, newer, full or read-only state, or a dead engine, is an error that changes nothing.
#[test]
fn failures_leave_the_state_unchanged() {
    let engine = Engine::start();
    let state = state_of(&engine);
    report(&engine, &state, &[]);
    let good = fs::read(&state).unwrap();
    let folder = engine.home().join("bad");
    fs::create_dir(&folder).unwrap();
    let damaged: Vec<u8> = good.iter().enumerate().map(|(at, byte)| if at < 4096 { *byte } else { 0xa5 }).collect();
    let mut newer = good.clone();
    // `user_version` is at offset 60 of the header (https://sqlite.org/fileformat2.html).
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    for (name, content, reported) in [
        ("damaged", damaged, "is damaged"),
        ("newer", newer, "was written by a newer docker-logwatch (schema 99, this one knows 6)"),
    ] {
        let path = folder.join(name);
        fs::write(&path, &content).unwrap();
        for args in [&[][..], &["--dry-run"], &["--check"]] {
            let finished = reconcile(&engine, &path, args);
            let expected = format!("error: the state in {} {reported}\n", path.display());
            assert!(
                finished.stderr.starts_with(&expected) && finished.stderr.contains("\nhint: "),
                "{}",
                finished.stderr
            );
            assert_eq!((finished.code, finished.stdout.len()), (Some(1), 0));
            assert!(fs::read(&path).unwrap() == content, "{name} was written to");
        }
    }
    let disk = engine.home().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", options, "-t", "tmpfs", "tmpfs"]).arg(&disk);
        assert!(command.status().unwrap().success());
    };
    mount("size=256k");
    let path = disk.join("state.db");
    report(&engine, &path, &[]);
    engine.create("web", &[], &[]);
    let ballast = disk.join("ballast");
    // Fill the rest of the disk, however much that is.
    let _ = fs::write(&ballast, vec![1; 1 << 20]);
    let full = reconcile(&engine, &path, &[]);
    let reported = format!("error: no space left for the state in {}\n", path.display());
    assert!(full.code == Some(1) && full.stderr.starts_with(&reported), "{}", full.stderr);
    fs::remove_file(&ballast).unwrap();
    mount("remount,ro");
    let read_only = reconcile(&engine, &path, &[]);
    let reported = format!("error: the state in {} cannot be written: it is read-only\n", path.display());
    assert!(read_only.code == Some(1) && read_only.stderr.starts_with(&reported), "{}", read_only.stderr);
    mount("remount,rw");
    assert_eq!(counts(&report(&engine, &path, &[]), "containers"), [1, 0, 0, 0]);
    engine.kill();
    let dead = reconcile(&engine, &state, &["--check"]);
    assert!(dead.code == Some(3) && dead.stderr.starts_with("error: "), "{:?} {}", dead.code, dead.stderr);
}

/// A check that succeeds there would hide a wrong path for as long as the engine has no container.
#[test]
fn a_check_without_state_fails() {
    let engine = Engine::start();
    let state = engine.home().join("none/state.db");
    let check = reconcile(&engine, &state, &["--check"]);
    let reported = format!("error: no state file at {}:", state.display());
    assert_eq!(
        (check.code, check.stdout.len(), check.stderr.starts_with(&reported)),
        (Some(4), 0, true),
        "{}",
        check.stderr
    );
    assert_eq!(report(&engine, &state, &["--dry-run"])["in_sync"], json!(true));
    report(&engine, &state, &[]);
    assert_eq!(reconcile(&engine, &state, &["--check"]).code, Some(0));
}

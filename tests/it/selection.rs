//! Which containers a watch follows: those that `docker ps` lists for the same arguments, now and later.

use std::collections::BTreeSet;

use super::support::{Engine, Numbers, PATIENCE, Watch, eventually};

/// The names in order, without duplicates.
fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Containers in every state, of two Compose projects, on two networks.
fn fleet() -> Engine {
    let engine = Engine::start();
    let project = |name: &str| format!("com.docker.compose.project={name}");
    let service = |name: &str| format!("com.docker.compose.service={name}");
    let once = ["--count", "1"];
    let idle = ["--count", "1", "--idle"];
    let (shop, blog, web, db) = (project("shop"), project("blog"), service("web"), service("db"));
    engine.run("shop-web-1", &["-l", &shop, "-l", &web, "-l", "tier=front"], &idle);
    engine.run("shop-web-2", &["-l", &shop, "-l", &web, "-v", "data:/data"], &once);
    let id = engine.run("shop-db-1", &["-l", &shop, "-l", &db, "-l", "tier=back", "-v", "data:/srv"], &idle);
    engine.run("blog-web-1", &["-l", &blog, "-l", &web, "-l", "tier=front", "-l", "empty"], &once);
    engine.run("paused", &["-v", "/mnt"], &idle);
    engine.must(&["pause", "paused"]);
    engine.create("made", &[], &once);
    // A name that could be an ID prefix, and is the ID prefix of another container.
    engine.run(&id[..4], &[], &idle);
    engine.must(&["run", "-d", "--name", "host", "--network", "host", "logwatch-test", "--count", "1", "--idle"]);
    let health = |exit: &str| format!("--health-cmd=--count 0 --exit {exit}");
    let often = "--health-interval=1s";
    engine.run("well", &[&health("0"), often], &idle);
    engine.run("sick", &[&health("1"), often, "--health-retries=1"], &idle);
    for name in ["shop-web-2", "blog-web-1"] {
        engine.wait(name);
    }
    let healthy = |state: &str| engine.must(&["ps", "-q", "--filter", &format!("health={state}")]);
    eventually("the health checks were made", || !healthy("healthy").is_empty() && !healthy("unhealthy").is_empty());
    engine
}

/// The containers in the plan of `watch`.
fn planned(engine: &Engine, args: &[&str]) -> Vec<String> {
    let plan = Watch::start(engine, &[&["--dry-run", "--format", "json"], args].concat()).finish();
    assert_eq!((plan.code, plan.stderr.as_str()), (Some(0), ""), "{args:?}");
    sorted(plan.records().iter().map(|record| record["container_name"].as_str().unwrap()))
}

/// For each filter the plan lists the containers that `docker ps` lists, with and without `--all`.
#[test]
fn filters_match_docker_ps() {
    let engine = fleet();
    let ids = ["shop-web-1", "shop-db-1", "made"].map(|name| engine.id(name));
    let (first, second, made) = (format!("id={}", &ids[0][..12]), format!("id={}", ids[1]), format!("id={}", ids[2]));
    let image = engine.must(&["image", "inspect", "-f", "{{.Id}}", "logwatch-test"]);
    let ancestor = format!("ancestor={image}");
    let before = format!("before={}", ids[1]);
    engine.run("ports", &["--expose", "80", "--expose", "53/udp", "-p", "8080:80"], &["--count", "1", "--idle"]);
    engine.run("failed", &[], &["--count", "1", "--exit", "3"]);
    engine.wait("failed");
    for filters in [
        &[][..],
        &["name=web"],
        &["name=^/shop-web-1$"],
        &["name=^shop-"],
        &["name=db-1$", "name=well"],
        &["name=NoSuch"],
        &[first.as_str()],
        &[first.as_str(), second.as_str()],
        &[made.as_str()],
        &["label=tier"],
        &["label=tier=front"],
        &["label=tier=front", "label=com.docker.compose.project=blog"],
        &["label=tier=front", "label=tier=back"],
        &["label=empty"],
        &["label=empty="],
        &["label=empty=no"],
        &["ancestor=logwatch-test"],
        &["ancestor=logwatch-test:latest"],
        &[ancestor.as_str()],
        &["ancestor=nobody"],
        &["status=running"],
        &["status=exited"],
        &["status=created"],
        &["status=paused"],
        &["status=exited", "status=created"],
        &["status=running", "status=exited", "name=web"],
        &["network=none"],
        &["network=host"],
        &["network=host", "network=none"],
        &["network=nowhere"],
        &["volume=data"],
        &["volume=/data"],
        &["volume=/mnt"],
        &["volume=data", "status=running"],
        &["health=healthy"],
        &["health=unhealthy"],
        &["health=none"],
        &["health=healthy", "health=unhealthy"],
        &["label=tier=front", "volume=data", "status=exited"],
        &["label=tier", "volume=data", "name=db"],
        &["before=shop-db-1"],
        &["since=shop-db-1"],
        &["since=shop-web-1", "before=well"],
        &[before.as_str()],
        &["since=shop-web-1", "label=tier"],
        &["exited=0"],
        &["exited=3"],
        &["exited=137"],
        &["exited=0", "exited=3"],
        &["exited=0", "label=tier"],
        &["expose=80"],
        &["expose=80/tcp", "expose=53/udp"],
        &["expose=70-90"],
        &["expose=80/udp"],
        &["publish=8080"],
        &["publish=80"],
        &["publish=8000-9000/tcp", "expose=80"],
        &["is-task=true"],
        &["is-task=false", "exited=3"],
        &["is-task=false"],
        &[r"name=^shop\-\Qweb\E-\d+$"],
    ] {
        let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        for all in [&[][..], &["--all"]] {
            let args = [all, &filters].concat();
            let listed = engine.must(&[&["ps", "--format", "{{.Names}}"], args.as_slice()].concat());
            assert_eq!(planned(&engine, &args), sorted(listed.lines()), "{args:?}");
        }
    }
}

/// Exclusions remove containers from the selection.
#[test]
fn names_globs_and_labels_select() {
    let engine = fleet();
    let id = engine.id("shop-db-1");
    let (lookalike, prefix) = (&id[..4], &id[..12]);
    let running = [lookalike, "host", "paused", "shop-db-1", "shop-web-1", "sick", "well"];
    let all = [&running[..], &["blog-web-1", "made", "shop-web-2"]].concat();
    let shop = ["shop-db-1", "shop-web-1", "shop-web-2"];
    for (args, expected) in [
        (&[][..], &running[..]),
        (&["-a"], &all),
        (&["shop-web-1"], &["shop-web-1"]),
        // A stopped container is included if it is named.
        (&["shop-web-2", "made"], &["made", "shop-web-2"]),
        (&["/shop-web-2"], &["shop-web-2"]),
        (&[prefix], &["shop-db-1"]),
        (&[id.as_str()], &["shop-db-1"]),
        (&[lookalike], &[lookalike]),
        (&["shop-*"], &shop),
        (&["shop-web-?", "w[a-f]ll"], &["shop-web-1", "shop-web-2", "well"]),
        (&["{sick,host}"], &["host", "sick"]),
        (&["*"], &all),
        (&["nothing-*"], &[]),
        (&["shop-*", "-E", "*-db-*"], &["shop-web-1", "shop-web-2"]),
        (&["shop-*", "-E", "*-db-*", "-E", "shop-web-2"], &["shop-web-1"]),
        (&["-E", "*-*", "-E", lookalike], &["host", "paused", "sick", "well"]),
        (&["-p", "shop"], &["shop-db-1", "shop-web-1"]),
        (&["-p", "shop", "-a"], &shop),
        (&["-p", "shop", "-p", "blog", "-a"], &["blog-web-1", "shop-db-1", "shop-web-1", "shop-web-2"]),
        (&["--service", "web", "-a"], &["blog-web-1", "shop-web-1", "shop-web-2"]),
        (&["-p", "blog", "--service", "web", "-a"], &["blog-web-1"]),
        (&["-p", "blog", "--service", "db", "-a"], &[]),
        (&["shop-*", "--service", "web", "-f", "status=running"], &["shop-web-1"]),
        (&["shop-*", "-f", "volume=data"], &["shop-db-1", "shop-web-2"]),
    ] {
        let expected = sorted(expected.iter().copied());
        assert_eq!(planned(&engine, args), expected, "{args:?}");
        // What is planned is read; a container that never ran has no lines.
        let finished = Watch::start(&engine, &[&["--no-follow", "--format", "json"], args].concat()).finish();
        let reported = if expected.is_empty() { "no container matches\n" } else { "" };
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), reported), "{args:?}");
        let read = finished.records();
        let read = sorted(read.iter().map(|record| record["container_name"].as_str().unwrap()));
        let spoken: Vec<String> = expected.into_iter().filter(|name| name != "made").collect();
        assert_eq!(read, spoken, "{args:?}");
    }
    for args in [&["--no-follow", "nobody", "host"][..], &["--dry-run", "nobody"]] {
        let refused = Watch::start(&engine, args).finish();
        assert_eq!((refused.code, refused.stdout.len()), (Some(1), 0));
        assert!(refused.stderr.contains("no such container: nobody"), "{}", refused.stderr);
    }
}

/// An empty selection is one notice, and no notice comes where something matches.
#[test]
fn where_nothing_matches_that_is_said() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1", "--idle"]);
    engine.run("done", &[], &["--count", "1"]);
    engine.wait("done");
    for args in
        [&["db*"][..], &["-p", "nope"], &["-f", "label=nope"], &["-f", "network=nope"], &["done*", "-E", "done"]]
    {
        let finished = Watch::start(&engine, &[args, &["--no-follow"]].concat()).finish();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), "no container matches\n"), "{args:?}");
        let watch = Watch::start(&engine, args);
        let reported = "no running container matches: waiting for one to start";
        watch.wait_for_notice(|lines| lines.contains(&reported.to_owned()), PATIENCE);
        assert_eq!(watch.stop().stderr.lines().count(), 1, "{args:?}");
    }
    for args in [&[][..], &["we*"], &["--no-follow", "done"]] {
        let watch = Watch::start(&engine, args);
        watch.wait_for_count(1);
        assert!(!watch.stop().stderr.contains("match"), "{args:?}");
    }
}

/// A container that starts later is selected by the same arguments, on each route.
#[test]
fn later_containers_are_followed_if_they_match() {
    let engine = Engine::start();
    let labels = ["-l", "tier=front", "-l", "com.docker.compose.project=shop"];
    let matching = [&labels[..], &["-v", "data:/data"]].concat();
    // Containers that differ in one property each.
    let other_volume = [&labels[..], &["-v", "other:/other"]].concat();
    let cases: [(&[&str], &[&str]); 7] = [
        (&["hit-*"], &[]),
        (&["-f", "label=tier=front"], &["miss-volume"]),
        (&["-f", "volume=data"], &["miss-label"]),
        (&["-f", "volume=/data", "-f", "label=tier=front"], &[]),
        (&["-p", "shop", "-E", "miss-*"], &[]),
        (&["-f", "name=^hit"], &[]),
        (&["-f", "ancestor=logwatch-test", "-f", "network=none"], &["miss-label", "miss-volume"]),
    ];
    for source in ["auto", "stream"] {
        let watches = cases.map(|(args, also)| {
            let watch = Watch::start(&engine, &[&["--source", source, "--format", "json"], args].concat());
            (args, also, watch)
        });
        for (_, _, watch) in &watches {
            watch.wait_until_up();
        }
        engine.run("miss-label", &["-v", "data:/data"], &["--count", "3"]);
        engine.run("miss-volume", &other_volume, &["--count", "3"]);
        engine.run("hit-1", &matching, &["--count", "20"]);
        // Over the API a container has to live until it can be requested.
        let short = [&matching[..], &["--rm"]].concat();
        if source == "auto" {
            engine.run("hit-2", &short, &["--count", "20"]);
        } else {
            engine.run("hit-2", &matching, &["--count", "20"]);
        }
        for (args, also, watch) in watches {
            let all = [also, &["hit-1", "hit-2"][..]].concat();
            let expected = 40 + 3 * also.len();
            watch.wait_for(|lines| lines.len() >= expected, PATIENCE);
            let finished = watch.stop();
            let numbers = Numbers::of_json(&finished.lines());
            assert_eq!(sorted(numbers.containers()), sorted(all.iter().copied()), "{args:?} by {source}");
            for name in all {
                numbers.assert_whole(name, 1..=if name.starts_with("hit") { 20 } else { 3 });
            }
        }
        engine.must(&["rm", "-f", "miss-label", "miss-volume", "hit-1"]);
        if source == "stream" {
            engine.must(&["rm", "-f", "hit-2"]);
        }
    }
}

/// A container that gets a wanted name, state or health is followed from then on.
#[test]
fn a_changed_container_can_start_to_match() {
    let engine = Engine::start();
    // Nothing is printed from before the watch began, and nothing from later is lost.
    engine.run("other", &[], &["--count", "1", "--idle"]);
    let by_name = Watch::start(&engine, &["wanted"]);
    by_name.wait_for_notice(|lines| !lines.is_empty(), PATIENCE);
    assert_eq!(
        by_name.notices(),
        ["no container is called wanted: waiting for it to be started (`docker ps -a` lists all containers)"]
    );
    let by_state = Watch::start(&engine, &["-f", "status=exited", "--format", "json"]);
    let by_health = Watch::start(&engine, &["-f", "health=healthy", "--format", "json"]);
    let renamed = Watch::start(&engine, &["other", "-n", "all"]);
    renamed.wait_for_count(1);
    by_state.wait_until_up();
    by_health.wait_until_up();
    engine.run("wanted", &[], &["--count", "2"]);
    engine.wait("wanted");
    let check = ["--health-cmd=--count 0", "--health-interval=1s"];
    engine.run("checked", &check, &["--forever", "--rate", "20"]);
    by_name.wait_for_count(2);
    assert_eq!(by_name.stop().lines(), ["wanted | line 000000001", "wanted | line 000000002"]);
    by_state.wait_for_count(2);
    Numbers::of_json(&by_state.stop().lines()).assert_whole("wanted", 1..=2);
    by_health.wait_for(|lines| lines.len() > 30, PATIENCE);
    let seen = Numbers::of_json(&by_health.stop().lines());
    assert_eq!(seen.containers(), ["checked"]);
    seen.assert_whole("checked", 1..=seen.count("checked") as u64);

    engine.must(&["rename", "other", "another"]);
    engine.must(&["restart", "--time", "0", "another"]);
    renamed.wait_for_count(2);
    let finished = renamed.stop();
    assert_eq!(finished.lines(), ["other | line 000000001", "another | line 000000001"]);
    assert_eq!(
        finished.stderr,
        "+ other (file)\nother is now called another\n- another (exit 137)\n+ another (file)\n"
    );
}

/// Each filter matches later containers as `docker ps` would, also when the container it refers to is gone.
#[test]
fn containers_that_appear_later_pass_the_same_filters() {
    let engine = Engine::start();
    engine.run("first", &[], &["--count", "0", "--idle"]);
    let all = &["failed", "open", "plain"][..];
    let cases: [(&[&str], &[&str]); 9] = [
        (&["since=first"], all),
        (&["since=first", "name=^open"], &["open"]),
        (&["before=first"], &[]),
        (&["exited=3"], &["failed"]),
        (&["exited=3", "exited=0"], &["failed", "plain"]),
        // Docker shows no ports for a container without its own network.
        (&["expose=70-90/tcp"], &[]),
        (&["publish=8080"], &[]),
        (&["is-task=false"], all),
        (&["is-task=true"], &[]),
    ];
    let watches = cases.map(|(filters, expected)| {
        let filters: Vec<&str> = filters.iter().flat_map(|filter| ["-f", filter]).collect();
        let watch = Watch::start(&engine, &[&["--format", "json"], filters.as_slice()].concat());
        watch.wait_until_up();
        (filters, expected, watch)
    });
    engine.must(&["rm", "-f", "first"]);
    engine.run("plain", &[], &["--count", "3"]);
    engine.run("failed", &[], &["--count", "3", "--exit", "3"]);
    engine.run("open", &["--expose", "80", "-p", "8080:80"], &["--count", "3", "--idle"]);
    for (filters, expected, watch) in watches {
        let what = format!("{filters:?} has its lines");
        eventually(&what, || watch.lines().len() >= 3 * expected.len());
        let finished = watch.stop();
        assert!(!finished.stderr.contains("trying again"), "{filters:?}: {}", finished.stderr);
        let numbers = Numbers::of_json(&finished.lines());
        assert_eq!(sorted(numbers.containers()), sorted(expected.iter().copied()), "{filters:?}");
        expected.iter().for_each(|name| numbers.assert_whole(name, 1..=3));
    }
    // As docker prints it, and values that cannot match.
    let unknown = Watch::start(&engine, &["-f", "since=nobody"]).finish();
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
    assert!(
        unknown.stderr.to_lowercase().contains("no such container") && unknown.stderr.contains("nobody"),
        "{}",
        unknown.stderr
    );
    let misused = Watch::start(&engine, &["-f", "exited=soon"]).finish();
    assert_eq!(misused.code, Some(2), "{}", misused.stderr);
    assert!(misused.stderr.contains("`exited` cannot be `soon`: expected a whole number"), "{}", misused.stderr);
}

/// Facts that only the engine knows are requested when a container appears; until they arrive nothing is printed.
#[test]
fn what_the_engine_refuses_leaves_no_trace() {
    let engine = Engine::start();
    engine.run("refused", &["-v", "other:/other"], &["--count", "1"]);
    engine.run("wanted", &["-v", "data:/data"], &["--count", "1"]);
    engine.wait("refused");
    engine.wait("wanted");
    for source in ["file", "stream"] {
        let args = ["-f", "volume=data", "--format", "json", "--lifecycle", "--source", source];
        let watch = Watch::start(&engine, &args);
        watch.wait_until_up();
        // Restarted and recreated.
        engine.must(&["start", "--attach", "refused"]);
        engine.run("refused-too", &["--rm", "-v", "other:/other"], &["--count", "1"]);
        engine.must(&["start", "--attach", "wanted"]);
        let ends = |lines: &[String]| lines.iter().filter(|line| line.contains("\"die\"")).count();
        watch.wait_for(|lines| ends(lines) == 1, PATIENCE);
        let finished = watch.stop();
        let records = finished.records();
        assert_eq!(sorted(records.iter().map(|record| record["container_name"].as_str().unwrap())), ["wanted"]);
        assert_eq!(records.iter().filter(|record| record["type"] == "log").count(), 1, "{records:#?}");
        let notices: BTreeSet<&str> = finished.stderr.lines().collect();
        let first = "no running container matches: waiting for one to start";
        assert_eq!(notices, [first, &*format!("+ wanted ({source})"), "- wanted (exit 0)"].into(), "{source}");
    }
}

/// The plan names the route of each container and why it may lose lines.
#[test]
fn a_dry_run_shows_routes_and_risks() {
    let engine = Engine::start();
    let args = ["--count", "1", "--idle"];
    type Case<'a> = (&'a str, &'a [&'a str], Option<&'a str>, Option<&'a str>);
    let away = ["--log-driver", "gelf", "--log-opt", "gelf-address=udp://127.0.0.1:9", "--log-opt"];
    let cached = [&away[..], &["mode=blocking"]].concat();
    let lossy = [&away[..], &["mode=non-blocking"]].concat();
    let uncached = [&away[..], &["cache-disabled=true"]].concat();
    let cases: [Case<'_>; 8] = [
        ("deaf", &["--log-driver", "none"], None, Some("the driver keeps nothing")),
        ("local", &["--log-driver", "local"], Some("file"), None),
        ("cached", &cached, Some("file"), None),
        ("lossy", &lossy, Some("file"), Some("mode=non-blocking drops lines when the driver is slow")),
        ("uncached", &uncached, None, Some("cache-disabled=true keeps nothing of what this driver sends away")),
        (
            "hasty",
            &["--log-opt", "mode=non-blocking"],
            Some("file"),
            Some("mode=non-blocking drops lines when the driver is slow"),
        ),
        (
            "small",
            &["--log-opt", "max-size=1m"],
            Some("file"),
            Some("max-file=1 with a small max-size: a burst removes its own lines"),
        ),
        ("sound", &["--log-opt", "max-size=1m", "--log-opt", "max-file=3"], Some("file"), None),
    ];
    for (name, options, _, _) in cases {
        engine.run(name, options, &args);
    }
    let plan = |args: &[&str]| Watch::start(&engine, &[&["--dry-run"], args].concat()).finish();
    for (name, _, source, risk) in cases {
        let reported = plan(&[name, "--format", "json"]);
        let driver = match name {
            "deaf" => "none",
            "local" => "local",
            "cached" | "lossy" | "uncached" => "gelf",
            _ => "json-file",
        };
        let expected = serde_json::json!({
            "type": "plan", "container_id": engine.id(name), "container_name": name, "image": "logwatch-test",
            "state": "running", "driver": driver, "source": source, "risk": risk,
        });
        assert_eq!((reported.code, reported.records()), (Some(0), vec![expected]));
        let reported = plan(&[name]).lines();
        assert_eq!(
            reported[0].split_whitespace().collect::<Vec<_>>().join(" "),
            "CONTAINER NAME STATE DRIVER SOURCE MAY LOSE LINES"
        );
        let row = format!(
            "{} {name} running {driver} {} {}",
            &engine.id(name)[..12],
            source.unwrap_or("-"),
            risk.unwrap_or_default()
        );
        assert_eq!(reported[1].split_whitespace().collect::<Vec<_>>().join(" "), row.trim());
        assert_eq!(reported.len(), 2);
    }
    for (name, source) in [("sound", "stream"), ("sound", "rotate"), ("local", "poll")] {
        let planned = plan(&[name, "--source", source, "--format", "json"]).records();
        assert_eq!(planned[0]["source"], source);
    }
    let by_file = plan(&["deaf", "--source", "file", "--format", "json"]).records();
    assert_eq!(by_file[0]["source"], serde_json::Value::Null);
}

/// A name takes precedence over an ID prefix also when it appears only later.
#[test]
fn an_id_prefix_yields_to_a_name() {
    let engine = Engine::start();
    for source in ["file", "stream"] {
        let id = engine.run("other", &[], &["--forever", "--rate", "50"]);
        let word = &id[..2];
        let watch = Watch::start(&engine, &["--format", "json", "--source", source, word]);
        watch.wait_for_count(20);
        engine.run(word, &[], &["--count", "5", "--idle"]);
        watch.wait_for_notice(|lines| lines.iter().any(|line| line == "- other"), PATIENCE);
        let of_the_name = |lines: &[String]| Numbers::of_json(lines).count(word) >= 5;
        watch.wait_for(of_the_name, PATIENCE);
        let reported = watch.notices();
        let why = format!("! other: is no longer followed: another container is now called {word}");
        assert!(reported.contains(&why), "{reported:?}");
        let so_far = Numbers::of_json(&watch.lines()).count("other");
        // While no container has the name none is selected; one that takes it is followed from then on.
        engine.must(&["rm", "--force", word]);
        watch.wait_for_notice(|lines| lines.iter().any(|line| line.starts_with(&format!("- {word} "))), PATIENCE);
        engine.must(&["rename", "other", "another"]);
        engine.must(&["rename", "another", word]);
        watch.wait_for(|lines| Numbers::of_json(lines).count(word) > 5, PATIENCE);
        let numbers = Numbers::of_json(&watch.stop().lines());
        assert_eq!(numbers.count("other"), so_far, "{source}");
        engine.must(&["rm", "--force", word]);
    }
}

/// Where docker refuses an ambiguous prefix, we refuse it too.
#[test]
fn the_beginning_of_several_ids_is_refused() {
    let engine = Engine::start();
    let mut first = std::collections::BTreeMap::new();
    let word = loop {
        let name = format!("made-{}", first.len());
        let id = engine.create(&name, &[], &["--count", "1"]);
        if first.insert(id[..1].to_owned(), name).is_some() {
            break id[..1].to_owned();
        }
    };
    for args in [&[][..], &["--no-follow"], &["--dry-run"]] {
        let finished = Watch::start(&engine, &[args, &[word.as_str()]].concat()).finish();
        let reported = format!("error: 2 container IDs start with {word}, ");
        assert_eq!((finished.code, finished.stdout.len()), (Some(1), 0), "{}", finished.stderr);
        assert!(finished.stderr.starts_with(&reported), "{}", finished.stderr);
        assert!(
            finished.stderr.ends_with("\nhint: use more characters of the ID, or the name\n"),
            "{}",
            finished.stderr
        );
    }
}

/// An event cannot show labels whose names are those of its own attributes. They select all the same.
#[test]
fn attribute_like_labels_select_later_containers() {
    let engine = Engine::start();
    // `docker/event_decoder.rs` has a row for each event and attribute.
    for label in ["name", "image", "exitCode", "oldName"] {
        let (own, other) = (format!("{label}=front"), format!("{label}=back"));
        let filter = format!("label={own}");
        let watch = Watch::start(&engine, &["--format", "json", "-f", &filter]);
        watch.wait_until_up();
        engine.run("wanted", &["-l", &own, "--rm"], &["--count", "5", "--after", "500"]);
        engine.run("unwanted", &["-l", &other], &["--count", "5"]);
        engine.run("plain", &[], &["--count", "5"]);
        engine.must(&["rename", "plain", "renamed"]);
        // The container that starts last is read last.
        engine.run("last", &["-l", &own], &["--count", "1"]);
        watch.wait_for_ends(2);
        let finished = watch.stop();
        let numbers = Numbers::of_json(&finished.lines());
        numbers.assert_whole("wanted", 1..=5);
        assert_eq!(sorted(numbers.containers()), ["last", "wanted"], "{label}: {}", finished.stderr);
        engine.must(&["rm", "--force", "unwanted", "renamed", "last"]);
    }
}

/// From its first line on a record has labels of any name.
#[test]
fn metadata_has_attribute_like_labels() {
    let engine = Engine::start();
    for source in ["file", "stream"] {
        let watch = Watch::ready(&engine, &["--metadata", "--lifecycle", "--source", source]);
        engine.run("web", &["-l", "name=front", "-l", "image=x", "-l", "tier=1"], &["--count", "200", "--rate", "400"]);
        engine.create("never", &["-l", "name=front"], &["--count", "1"]);
        engine.must(&["rm", "never"]);
        watch.wait_for_ends(1);
        let records = watch.stop().records();
        let of_web: Vec<_> = records.iter().filter(|record| record["container_name"] == "web").collect();
        let logs: Vec<_> = of_web.iter().filter(|record| record["type"] == "log").collect();
        assert_eq!(logs.len(), 200, "{source}");
        for log in logs {
            let labels = &log["labels"];
            let got = ["name", "image", "tier"].map(|label| labels[format!("container_label_{label}")].as_str());
            assert_eq!(got, [Some("front"), Some("x"), Some("1")], "{source} {log}");
        }
        let actions = |name: &str| {
            let own = records.iter().filter(|record| record["type"] == "lifecycle" && record["container_name"] == name);
            own.map(|record| record["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(actions("web"), ["create", "start", "die"], "{source}");
        assert_eq!(actions("never"), ["create", "destroy"], "{source}");
        engine.must(&["rm", "--force", "web", "beacon"]);
    }
}

/// A label named like the attribute cannot set the exit code of a container.
#[test]
fn a_label_cannot_forge_an_exit_code() {
    let engine = Engine::start();
    let watch = Watch::ready(&engine, &["--lifecycle"]);
    let label = ["-l", "exitCode=42"];
    engine.run("web", &label, &["--count", "3", "--exit", "7"]);
    watch.wait_for_ends(1);
    engine.must(&["start", "web"]);
    watch.wait_for_ends(2);
    engine.run(
        "again",
        &[&label[..], &["--restart", "on-failure:1"]].concat(),
        &["--count", "3", "--exit", "5", "--resume"],
    );
    watch.wait_for_ends(4);
    let finished = watch.stop();
    let ends: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("- ")).collect();
    assert_eq!(ends[..2], ["- web (exit 7)"; 2], "{}", finished.stderr);
    assert!(!finished.stderr.contains("42"), "{}", finished.stderr);
    let records = finished.records();
    let codes = |name: &str| {
        let own = records.iter().filter(|record| record["container_name"] == name && record["action"] == "die");
        own.map(|record| record["attributes"]["exitCode"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(codes("web"), [Some("7".to_owned()), Some("7".to_owned())]);
    // A container that runs again has no exit code any more.
    assert!(codes("again").iter().all(|code| code.as_deref().is_none_or(|code| code == "5")), "{:?}", codes("again"));
    let numbers = Numbers::of_json(&finished.lines());
    assert_eq!(numbers.count("web"), 6);
    numbers.assert_whole("again", 1..=6);
}

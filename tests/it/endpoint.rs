//! The module `docker` with a private engine: endpoints, SSH, TLS, calls and streams.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{at, chain, connect_with, environment, failure, free_port, resolve};
use crate::support::raw_script::http_proxy;
use crate::support::{Engine, Proxy, Signal, Watch, eventually, process};
use logwatch::internals::config;
use logwatch::internals::docker::{
    Docker, Endpoint, Error, Event, EventStream, EventsQuery, Flags, Kind, LogStream, LogsQuery, contexts,
};
use logwatch::internals::model::{Container, Filters, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Imports an image `talk` whose program prints lines.
fn import(engine: &Engine) {
    let root = engine.home().join("image");
    std::fs::create_dir(&root).unwrap();
    let source = engine.home().join("talk.rs");
    std::fs::write(&source, TALK).unwrap();
    let built = Command::new("rustc")
        .args(["-O", "-C", "target-feature=+crt-static", "-o"])
        .args([root.join("talk"), source])
        .status();
    assert!(built.unwrap().success());
    let tar = engine.home().join("image.tar");
    assert!(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status().unwrap().success());
    engine.must(&["import", tar.to_str().unwrap(), "talk"]);
}

/// `talk COUNT MILLISECONDS CODE` writes COUNT lines to each stream, that far apart, then exits with CODE.
const TALK: &str = r#"fn main() {
    let words: Vec<u64> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    for line in 0..words[0] {
        println!("out {line}");
        eprintln!("err {line}");
        std::thread::sleep(std::time::Duration::from_millis(words[1]));
    }
    std::process::exit(words[2] as i32);
}"#;

/// As PID 1 of its container the program would ignore SIGTERM.
const RUN: &[&str] = &["run", "--network", "none", "--stop-signal", "KILL"];

async fn whole(mut stream: LogStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    all
}

/// Each frame as `1 TIME out 0`, where the digit is the stream.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let [stream, 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        lines.push(format!("{stream} {}", String::from_utf8_lossy(payload).trim_end()));
        bytes = rest;
    }
    assert_eq!(bytes, b"");
    lines
}

fn time_of(frame: &str) -> Timestamp {
    Timestamp::parse(frame.split(' ').nth(1).unwrap().as_bytes()).unwrap()
}

/// Reads events up to the first one with this action.
async fn events_until(events: &mut EventStream, action: &str) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        let event = events.next().await.expect("the stream ended").unwrap();
        let last = event.action == action;
        seen.push(event);
        if last {
            return seen;
        }
    }
}

/// An engine has the same identity, and the same name in messages as was given, by each transport.
#[tokio::test]
async fn socket_tcp_and_ssh_reach_the_same_engine() {
    let port = free_port();
    let engine = Engine::with(&["-H", &format!("tcp://127.0.0.1:{port}")]);
    let path = fake_ssh(&engine);
    let socket = engine.socket().display().to_string();
    let ssh = resolve(&format!("ssh://me@build:2222{socket}"), &[("PATH", &path)]);
    let id = engine.must(&["info", "-f", "{{.ID}}"]);
    for (endpoint, shown) in [
        (at(&engine.host()), engine.host()),
        (at(&format!("tcp://127.0.0.1:{port}")), format!("tcp://127.0.0.1:{port}")),
        (at(&format!("127.0.0.1:{port}")), format!("tcp://127.0.0.1:{port}")),
        (ssh, format!("ssh://me@build:2222{socket}")),
    ] {
        let docker = Docker::connect(endpoint).await.unwrap();
        assert_eq!(docker.endpoint().to_string(), shown);
        assert_eq!(docker.info().await.unwrap().id, id, "{shown}");
        docker.ping().await.unwrap();
    }
    let called = std::fs::read_to_string(engine.home().join("ssh.log")).unwrap();
    let line =
        format!("-o ConnectTimeout=30 -T -l me -p 2222 -- build docker --host {} system dial-stdio", engine.host());
    assert_eq!(called.lines().collect::<Vec<_>>(), [line], "one connection, used for all calls");
}

/// Makes an `ssh` that records its arguments and runs the command locally. Returns the `PATH` that finds it.
fn fake_ssh(engine: &Engine) -> String {
    let log = engine.home().join("ssh.log");
    let pid = engine.home().join("ssh.pid");
    script(
        engine.home(),
        &format!(
            "echo \"$*\" >> {}\necho $$ > {}\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\neval exec \"$*\"",
            log.display(),
            pid.display()
        ),
    )
}

fn script(folder: &Path, body: &str) -> String {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("ssh"), format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())
}

/// No ssh process stays behind when a client is dropped.
#[tokio::test]
async fn an_ssh_connection_ends_with_its_client() {
    let engine = Engine::with(&[]);
    let path = fake_ssh(&engine);
    let endpoint = resolve(&format!("ssh://build{}", engine.socket().display()), &[("PATH", &path)]);
    let docker = Docker::connect(endpoint).await.unwrap();
    let pid = std::fs::read_to_string(engine.home().join("ssh.pid")).unwrap().trim().to_owned();
    let lives = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    assert!(lives());
    drop(docker);
    let start = Instant::now();
    while lives() {
        assert!(start.elapsed() < Duration::from_secs(10), "ssh lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// However the program ends, it leaves no ssh process behind, not even one that reads nothing and never ends.
#[test]
fn no_ssh_outlives_a_program_that_was_killed() {
    let engine = Engine::with(&[]);
    let pids = engine.home().join("ssh.pids");
    let note = format!("echo $$ >> {}\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n", pids.display());
    let hang = format!("{note}exec sleep 1000");
    let serve = format!("{note}eval exec \"$*\"");
    for (body, connections) in [(hang, 1), (serve, 2)] {
        let _ = std::fs::remove_file(&pids);
        let path = script(engine.home(), &body);
        let mut command = Watch::command();
        engine.configure(&mut command);
        command.env("PATH", &path).env_remove("DOCKER_HOST");
        let host = format!("ssh://build{}", engine.socket().display());
        let watch = Watch::spawn(command.args(["-H", &host, "watch"]));
        let started = || -> Vec<u32> {
            let text = std::fs::read_to_string(&pids).unwrap_or_default();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        eventually("its connections are open", || started().len() >= connections);
        watch.signal(Signal::KILL);
        eventually("no ssh is left", || !started().into_iter().any(process::lives));
    }
}

/// An ssh that fills its stderr pipe still carries requests.
#[tokio::test]
async fn a_talkative_ssh_does_not_block() {
    let engine = Engine::with(&[]);
    let more_than_a_pipe_holds = "head -c 300000 /dev/zero | tr '\\0' x >&2";
    let serve = "while [ \"$1\" != -- ]; do shift; done\nshift 2\neval exec \"$*\"";
    let path = script(engine.home(), &format!("{more_than_a_pipe_holds}\n{serve}"));
    let endpoint = resolve(&format!("ssh://build{}", engine.socket().display()), &[("PATH", &path)]);
    let pool = config::PoolConfig { request_timeout: Duration::from_secs(10), ..config::PoolConfig::default() };
    connect_with(endpoint, pool).await.unwrap().ping().await.unwrap();
}

/// The last line of ssh's stderr is the cause of the error, and nobody waits for a master connection that holds it
/// open.
#[tokio::test]
async fn complaints_of_ssh_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    for (body, cause) in [
        (
            "echo 'ssh: connect to host build port 22: Connection refused' >&2; exit 255",
            "ssh: ssh: connect to host build port 22: Connection refused",
        ),
        ("exit 1", "ssh: exited without an error message"),
        // Like a shared master connection, it keeps stderr open after the client has gone.
        ("echo 'kex failed' >&2; sleep 5 >/dev/null </dev/null & exec >&-; exit 255", "ssh: kex failed"),
    ] {
        let path = script(folder.path(), body);
        let start = Instant::now();
        let error = failure(resolve("ssh://build", &[("PATH", &path)])).await;
        assert!(start.elapsed() < Duration::from_secs(3), "it waits for an end that may never come");
        assert_eq!(chain(&error), format!("cannot reach the Docker Engine at ssh://build\n{cause}"));
        assert_eq!(error.kind(), Kind::Unreachable);
    }
    let error = failure(resolve("ssh://build", &[("PATH", "/nowhere")])).await;
    assert!(chain(&error).contains("ssh: cannot be started: No such file"), "{}", chain(&error));
}

/// Creates a CA, another CA, a server certificate for 127.0.0.1 and a client certificate in `folder`.
fn certificates(folder: &Path) {
    let run = |line: &str| {
        let out = Command::new("sh").arg("-ec").arg(line).current_dir(folder).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    for (ca, name) in [("ca", "ours"), ("other", "theirs")] {
        run(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -keyout {ca}-key.pem -out {ca}.pem"
        ));
    }
    std::fs::write(
        folder.join("server.ext"),
        "subjectAltName=IP:127.0.0.1,DNS:engine.example\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for who in ["server", "client"] {
        run(&format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={who} -keyout {who}-key.pem -out {who}.csr"
        ));
        run(&format!(
            "openssl x509 -req -in {who}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile {who}.ext -out {who}.pem"
        ));
    }
    run("mkdir certs; cp ca.pem certs/ca.pem; cp client.pem certs/cert.pem; cp client-key.pem certs/key.pem");
}

/// With and without verification, client certificates and names, TLS connects exactly where docker does.
#[tokio::test]
async fn tls_verifies_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let tcp = format!("tcp://127.0.0.1:{port}");
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
    let engine = Engine::with(&["-H", &tcp, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]);
    let id = engine.must(&["info", "-f", "{{.ID}}"]);
    let flags = |verify: bool| Flags {
        host: Some(tcp.clone()),
        tlsverify: Some(verify),
        tlscacert: Some(file("ca.pem").into()),
        tlscert: Some(file("client.pem").into()),
        tlskey: Some(file("client-key.pem").into()),
        ..Flags::default()
    };
    let reach = async |flags: Flags, variables: &[(&str, &str)]| {
        let endpoint = Endpoint::resolve(&flags, &environment(variables)).unwrap();
        match Docker::connect(endpoint).await {
            Ok(docker) => docker.info().await.unwrap().id,
            Err(error) => chain(&error).replace(&tcp, "HOST"),
        }
    };
    let plain = Flags { host: Some(tcp.clone()), ..Flags::default() };
    let certs = [("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &*file("certs"))];
    assert_eq!(reach(flags(true), &[]).await, id);
    assert_eq!(reach(plain.clone(), &certs).await, id);
    let strange = || Some(file("other.pem").into());
    assert_eq!(reach(Flags { tlscacert: strange(), ..flags(false) }, &[]).await, id, "nothing is verified");
    let reported = reach(Flags { tlscacert: strange(), ..flags(true) }, &[]).await;
    assert!(reported.starts_with("the TLS handshake with HOST failed\ninvalid peer certificate: "), "{reported}");
    let reported = reach(Flags { tlscert: None, tlskey: None, ..flags(true) }, &[]).await;
    assert!(reported.starts_with("the TLS handshake with HOST failed\nreceived fatal alert: "), "{reported}");
    let reported = reach(Flags { host: Some(format!("tcp://localhost:{port}")), ..flags(true) }, &[]).await;
    assert!(reported.contains("certificate not valid for name \"localhost\""), "{reported}");
    let reported = reach(plain, &[]).await;
    assert_eq!(reported, "the Docker Engine answered 400: Client sent an HTTP request to an HTTPS server.");
    let reported = reach(Flags { tlskey: Some(file("client.pem").into()), ..flags(true) }, &[]).await;
    assert!(reported.starts_with("cannot use the TLS key for HOST\n"), "{reported}");
}

/// A context created by docker is used with its host and its TLS files.
#[tokio::test]
async fn a_docker_context_leads_to_its_engine() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tcp = format!("tcp://127.0.0.1:{}", free_port());
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
    let engine = Engine::with(&["-H", &tcp, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]);
    let config = engine.home().join("contexts").to_str().unwrap().to_owned();
    let create = |name: &str, docker: &str| {
        engine.must(&["--config", &config, "context", "create", name, "--docker", docker]);
    };
    create("near", &format!("host={}", engine.host()));
    let client = format!("ca={ca},cert={},key={}", file("client.pem"), file("client-key.pem"));
    create("far.tls+1", &format!("host={tcp},{client}"));
    let variables = environment(&[("DOCKER_CONFIG", &config)]);
    let flags = |name: &str| Flags { context: Some(name.to_owned()), ..Flags::default() };
    for (name, host) in [("near", engine.host()), ("far.tls+1", tcp)] {
        let docker = Docker::connect(Endpoint::resolve(&flags(name), &variables).unwrap()).await.unwrap();
        assert_eq!(docker.endpoint().to_string(), host);
        assert_eq!(docker.endpoint().is_local(), name == "near");
    }
    let listed = contexts(&Flags::default(), &variables);
    let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "far.tls+1", "near"]);
}

/// What `info`, listings and inspection return matches what the docker CLI prints.
#[tokio::test]
async fn the_engine_is_described_as_docker_describes_it() {
    let engine = Engine::with(&[]);
    import(&engine);
    let docker = Docker::connect(at(&engine.host())).await.unwrap();

    let info = docker.info().await.unwrap();
    let reported = format!(
        "{} {} {} {} {} {} {}",
        info.id,
        info.version,
        info.os,
        info.operating_system,
        info.root_dir.display(),
        info.logging_driver,
        info.live_restore
    );
    let form = "{{.ID}} {{.ServerVersion}} {{.OSType}} {{.OperatingSystem}} {{.DockerRootDir}} {{.LoggingDriver}} {{.LiveRestoreEnabled}}";
    assert_eq!(reported, engine.must(&["info", "-f", form]));
    assert_eq!(info.api_version, engine.must(&["version", "-f", "{{.Server.APIVersion}}"]));
    assert!(!info.is_podman);

    let web = engine.must(
        &[RUN, &["-d", "--name", "web-1", "--label", "tier=front", "talk", "/talk", "1000", "1000", "0"]].concat(),
    );
    let once = engine.must(
        &[RUN, &["-d", "--name", "once", "-t", "--log-opt", "max-size=1m", "talk", "/talk", "1", "0", "7"]].concat(),
    );
    engine.must(&["wait", &once]);
    engine.must(&["create", "--name", "never", "--rm", "--log-driver", "local", "talk", "/talk", "1", "0", "0"]);

    let running = Filters::from([("status".to_owned(), vec!["running".to_owned()])]);
    let running = docker.list(&running).await.unwrap();
    let [container] = &running[..] else { panic!("{running:?}") };
    let labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
    assert_eq!((&container.id, &*container.name, &*container.image), (&web, "web-1", "talk"));
    assert_eq!((&container.labels, &*container.state), (&labels, "running"));
    assert_eq!(container.networks, BTreeMap::from([("none".to_owned(), String::new())]));
    let names = |found: Vec<Container>| {
        found.into_iter().map(|c| format!("{} {}", c.name, c.state)).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(names(docker.list(&Filters::new()).await.unwrap()), "never created, once exited, web-1 running");
    let label = Filters::from([("label".to_owned(), vec!["tier=front".to_owned()])]);
    assert_eq!(names(docker.list(&label).await.unwrap()), "web-1 running");

    for (reference, exit_code, log_driver, tty, auto_remove) in [
        ("web-1", None, "json-file", false, false),
        (&once[..12], Some(7), "json-file", true, false),
        ("never", None, "local", false, true),
    ] {
        let details = docker.inspect(reference).await.unwrap();
        let form = "{{.ID}} {{.LogPath}} {{.HostsPath}} {{.State.StartedAt}} {{.State.FinishedAt}}";
        let said = engine.must(&["inspect", "-f", form, reference]);
        let path = |path: &Option<PathBuf>| path.as_ref().map_or(String::new(), |path| path.display().to_string());
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let mut fields = said.split(' ');
        assert_eq!(fields.next(), Some(&*details.container.id));
        assert_eq!(fields.next(), Some(&*path(&details.log_path)));
        assert_eq!(fields.next(), Some(&*path(&details.hosts_path)));
        let mut same_time = |ours: Option<Timestamp>| {
            let theirs = fields.next().unwrap().as_bytes();
            assert_eq!(time(ours), time(Timestamp::parse(theirs)), "{reference}");
        };
        same_time(details.started_at);
        same_time(details.finished_at);
        assert_eq!(details.container.exit_code, exit_code, "{reference}");
        assert_eq!((&*details.log_driver, details.tty, details.auto_remove), (log_driver, tty, auto_remove));
    }
    assert_eq!(docker.inspect("web-1").await.unwrap().container, *container, "both agree");
    let options = docker.inspect("once").await.unwrap().log_options;
    assert_eq!(options, BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]));

    for reference in ["nosuch", "../info", "", "a b", "a/../../info?x"] {
        let error = docker.inspect(reference).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        assert_eq!(error.to_string(), format!("No such container: {reference}"));
        let error = docker.logs(reference, &LogsQuery::default()).await.err().unwrap();
        assert_eq!(error.to_string(), format!("No such container: {reference}"));
    }
}

/// A followed log ends with its container, and its times have nine digits.
#[tokio::test]
async fn logs_have_nanoseconds_and_an_end() {
    let engine = Engine::with(&[]);
    import(&engine);
    let docker = Docker::connect(at(&engine.host())).await.unwrap();
    let run = |name: &str, options: &[&str], args: &[&str]| {
        engine.must(&[RUN, &["-d", "--name", name], options, &["talk", "/talk"], args].concat())
    };
    let read = async |name: &str, query: LogsQuery| whole(docker.logs(name, &query).await.unwrap()).await;

    run("slow", &[], &["20", "50", "0"]);
    let follow = LogsQuery { follow: true, ..LogsQuery::default() };
    let followed = frames(&read("slow", follow).await);
    let count = |stream: &str| followed.iter().filter(|line| line.starts_with(stream)).count();
    assert_eq!((count("1 "), count("2 ")), (20, 20), "the stream ended with the container");
    let stderr = LogsQuery { stdout: false, ..LogsQuery::default() };
    let lines = frames(&read("slow", stderr).await);
    let theirs = Command::new("docker").args(["-H", &engine.host(), "logs", "-t", "slow"]).output().unwrap().stderr;
    let ours: String = lines.iter().map(|line| format!("{}\n", &line[2..])).collect();
    assert_eq!(ours, String::from_utf8(theirs).unwrap());

    let (since, until) = (Some(time_of(&lines[5])), Some(time_of(&lines[8])));
    let between = |since, until| LogsQuery { since, until, ..stderr };
    assert_eq!(frames(&read("slow", between(since, until)).await), lines[5..=8]);
    let after = since.map(|time| Timestamp(time.0 + 1));
    let before = until.map(|time| Timestamp(time.0 - 1));
    assert_eq!(frames(&read("slow", between(after, before)).await), lines[6..=7]);
    assert_eq!(frames(&read("slow", LogsQuery { tail: Some(3), ..LogsQuery::default() }).await).len(), 3);

    let tty = run("tty", &["-t"], &["2", "0", "0"]);
    engine.must(&["wait", &tty]);
    let text = String::from_utf8(read("tty", LogsQuery::default()).await).unwrap();
    let lines_of_tty: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines_of_tty, ["out 0", "err 0", "out 1", "err 1"], "no frames, only text");

    run("mute", &["--log-driver", "none"], &["1", "0", "0"]);
    let error = docker.logs("mute", &LogsQuery::default()).await.err().unwrap();
    assert!(matches!(&error, Error::NoLogs { id, .. } if id == "mute"), "{error}");
    assert!(error.to_string().ends_with("configured logging driver does not support reading"), "{error}");
}

/// The events of one container arrive in order with their attributes.
#[tokio::test]
async fn events_show_the_life_of_a_container() {
    let engine = Engine::with(&[]);
    import(&engine);
    let docker = Docker::connect(at(&engine.host())).await.unwrap();
    let filters = Filters::from([("type".to_owned(), vec!["container".to_owned()])]);
    let query = EventsQuery { filters, ..EventsQuery::default() };
    let mut events = docker.events(&query).await.unwrap();
    let label = "com.docker.compose.project=shop";
    let id = engine.must(&[
        "create",
        "--network",
        "none",
        "--name",
        "web",
        "--label",
        label,
        "talk",
        "/talk",
        "1",
        "0",
        "7",
    ]);
    engine.must(&["rename", "web", "web-1"]);
    engine.must(&["start", &id]);
    engine.must(&["wait", &id]);
    engine.must(&["rm", &id]);

    let seen = events_until(&mut events, "destroy").await;
    let actions: Vec<&str> = seen.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["create", "rename", "start", "die", "destroy"]);
    for event in &seen {
        let container = event.container().unwrap();
        let name = if event.action == "create" { "web" } else { "web-1" };
        assert_eq!((&container.id, &*container.name, &*container.image), (&id, name, "talk"));
        assert_eq!(container.project(), Some("shop"), "{}", event.action);
        assert_eq!(container.labels.len(), 1, "{}", event.action);
        assert_eq!((&*event.kind, &*event.scope), ("container", "local"));
    }
    assert_eq!(seen[1].attributes["oldName"], "/web");
    assert_eq!(seen[3].exit_code(), Some(7));

    // Docker prints the same events for the same time, key for key.
    let (first, last) = (seen[0].time, seen[4].time);
    let theirs = engine.must(&[
        "events",
        "--since",
        &first.api(),
        "--until",
        &last.api(),
        "-f",
        "type=container",
        "--format",
        "{{json .}}",
    ]);
    let ours: Vec<String> = seen
        .iter()
        .map(|e| {
            serde_json::json!({
                "status": e.status, "id": e.id, "from": e.from, "Type": e.kind, "Action": e.action,
                "Actor": {"ID": e.id, "Attributes": e.attributes}, "scope": e.scope,
                "time": e.time.0 / 1_000_000_000, "timeNano": e.time.0,
            })
            .to_string()
        })
        .collect();
    let sorted = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap().to_string();
    assert_eq!(ours, theirs.lines().map(sorted).collect::<Vec<_>>());

    // A stream since a certain time starts with the event of exactly that time, and ends at `until`.
    let again = EventsQuery { since: Some(seen[2].time), until: Some(last), ..query };
    let mut events = docker.events(&again).await.unwrap();
    let mut repeated = Vec::new();
    while let Some(event) = events.next().await {
        repeated.push(event.unwrap().key());
    }
    assert_eq!(repeated, seen[2..].iter().map(Event::key).collect::<Vec<_>>());
}

/// Calls share one connection; a stream has its own, which closes when the stream is dropped.
#[tokio::test]
async fn connections_are_used_again_and_streams_close_theirs() {
    let engine = Engine::with(&[]);
    import(&engine);
    let id = engine.must(&[RUN, &["-d", "talk", "/talk", "100000", "10", "0"]].concat());
    let proxy = Proxy::start(&engine);
    let docker = Docker::connect(at(&proxy.host())).await.unwrap();
    let connecting = proxy.requests().len();
    for _ in 0..20 {
        docker.list(&Filters::new()).await.unwrap();
        docker.inspect(&id).await.unwrap();
        docker.inspect("nosuch").await.unwrap_err();
    }
    assert_eq!(proxy.connections(), 1);
    assert_eq!(proxy.requests().len() - connecting, 60);

    let follow = LogsQuery { follow: true, ..LogsQuery::default() };
    let mut logs = docker.logs(&id, &follow).await.unwrap();
    let mut events = docker.events(&EventsQuery::default()).await.unwrap();
    logs.next().await.unwrap().unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
    assert!(waited.is_err(), "nothing happened");
    docker.info().await.unwrap();
    assert_eq!(proxy.open(), 3, "two streams, and one for calls");
    let before = proxy.requests().len();
    for _ in 0..10 {
        logs.next().await.unwrap().unwrap();
    }
    assert_eq!(proxy.requests().len(), before, "a stream asks once");
    drop((logs, events));
    let start = Instant::now();
    while proxy.open() > 1 {
        assert!(start.elapsed() < Duration::from_secs(10), "a stream's connection stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// While the engine is down each call says so; once it is back, the same client works again.
#[tokio::test]
async fn an_engine_that_returns_is_used_again() {
    let engine = Engine::with(&[]);
    let pool = config::PoolConfig { request_timeout: Duration::from_secs(4), ..config::PoolConfig::default() };
    let docker = connect_with(at(&engine.host()), pool).await.unwrap();
    let mut events = docker.events(&EventsQuery::default()).await.unwrap();
    engine.stop();
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            assert!(matches!(error, Error::Broken { .. }), "{error}");
        }
    }
    let error = docker.list(&Filters::new()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_temporary(), "{}", chain(&error));
    assert_eq!(error.to_string(), format!("cannot reach the Docker Engine at {}", engine.host()));
    assert!(docker.renegotiate().await.is_err());
    engine.up();
    docker.renegotiate().await.unwrap();
    assert_eq!(docker.list(&Filters::new()).await.unwrap(), []);
}

/// An HTTPS proxy gets a CONNECT request, and TLS is spoken through it.
#[tokio::test]
async fn tls_goes_through_a_proxy_in_a_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let to = format!("127.0.0.1:{}", free_port());
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
    let listen = format!("tcp://{to}");
    let engine =
        Engine::with(&["-H", &listen, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let proxied = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let asked = head_of(&mut near).await;
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        asked
    });
    let certs = file("certs");
    let variables = [("HTTPS_PROXY", &*proxy), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &*certs)];
    let docker = Docker::connect(resolve("tcp://engine.example:2376", &variables)).await.unwrap();
    assert_eq!(docker.info().await.unwrap().id, engine.must(&["info", "-f", "{{.ID}}"]));
    drop(docker);
    let asked = proxied.await.unwrap();
    assert!(asked.starts_with("CONNECT engine.example:2376 HTTP/1.1\r\n"), "{asked}");
}

async fn head_of(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The refusal of a tunnel is an error without the proxy password.
#[tokio::test]
async fn a_refused_proxy_tunnel_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (port, heard) = http_proxy(|_| "HTTP/1.1 403 No\r\n\r\n".to_owned());
    let proxy = format!("http://me:secret@127.0.0.1:{port}");
    let certs = folder.path().join("certs").to_str().unwrap().to_owned();
    let variables = [("HTTPS_PROXY", &*proxy), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &*certs)];
    let error = failure(resolve("tcp://engine.example:2376", &variables)).await;
    let reported = "cannot reach the Docker Engine at tcp://engine.example:2376\ntunnel error: unsuccessful";
    assert_eq!(chain(&error), reported);
    let heard = heard.lock().unwrap().clone();
    assert!(heard[0].contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{}", heard[0]);
}

/// Root may open every socket, so the test runs itself once more as another user.
#[tokio::test]
async fn a_forbidden_socket_is_reported() {
    const SOCKET: &str = "LOGWATCH_TEST_FORBIDDEN";
    if let Ok(socket) = std::env::var(SOCKET) {
        let error = failure(at(&format!("unix://{socket}"))).await;
        print!("<{}|{:?}>", chain(&error), error.kind());
        return;
    }
    let folder = tempfile::Builder::new().prefix("lw").tempdir_in("/tmp").unwrap();
    let socket = folder.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    // The build directory may be readable by root alone.
    let copy = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let out = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(copy)
        .args(["--exact", "endpoint::a_forbidden_socket_is_reported", "--nocapture"])
        .env(SOCKET, &socket)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let host = format!("unix://{}", socket.display());
    let reported =
        format!("<permission denied on the Docker socket at {host}\nPermission denied (os error 13)|Unreachable>");
    assert!(said.contains(&reported), "{said}{}", String::from_utf8_lossy(&out.stderr));
}

/// What docker's CLI prints, or `None` where it fails. Contacts no engine.
fn docker_says(config: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("docker");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("DOCKER_CONFIG", config);
    let out = command.envs(variables.iter().copied()).args(arguments).output().unwrap();
    out.status.success().then(|| String::from_utf8(out.stdout).unwrap().trim_end().to_owned())
}

/// Each form of a host leads where docker goes, or is refused where docker refuses it.
#[test]
fn hosts_are_read_as_docker_reads_them() {
    let config = tempfile::tempdir().unwrap();
    let is_20 = docker_says(config.path(), &[], &["--version"]).unwrap().contains(" 20.");
    for written in [
        "",
        " ",
        "unix://",
        "unix:///run/x.sock",
        "unix://x.sock",
        "tcp://",
        "tcp://:4243",
        "tcp://engine",
        "tcp://engine:",
        "tcp://engine:4243/a/prefix",
        "tcp://engine/prefix?query#fragment",
        "tcp://me@engine",
        "tcp://[::1]:4243/x",
        "engine",
        "engine:4243",
        " engine:4243 ",
        ":4243",
        "10.0.0.1",
        "/var/run/docker.sock",
        "ssh://me@build:2222",
        "ssh://me@build:2222/run/x.sock",
        "http://engine",
        "https://engine:2376",
        "tcp://unix:///x",
        "tcp://engine:x",
        "tcp://::1",
        "tcp://[::1",
        "tcp://a b",
        "unix://tcp://x",
        "nosuch://x",
    ] {
        let form = "{{.Endpoints.docker.Host}}";
        let theirs = docker_says(config.path(), &[], &["-H", written, "context", "inspect", "default", "-f", form]);
        let flags = Flags { host: Some(written.to_owned()), ..Flags::default() };
        let ours = Endpoint::resolve(&flags, &environment(&[])).map(|endpoint| endpoint.to_string());
        if is_20 && written.ends_with("/run/x.sock") && written.starts_with("ssh") {
            assert_eq!((theirs, ours.unwrap().as_str()), (None, written), "a path behind ssh came with 23");
            continue;
        }
        assert_eq!(ours.as_ref().ok(), theirs.as_ref(), "{written:?} {ours:?}");
    }
}

/// Of options, variables and the current context, the same one decides as for docker.
#[test]
fn contexts_are_chosen_as_docker_chooses_them() {
    let config = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let host = format!("host=unix:///run/{name}.sock");
        docker_says(config.path(), &[], &["context", "create", name, "--docker", &host]).unwrap();
    }
    let directory = config.path().to_str().unwrap();
    // Docker 20.10 has no `docker context show`.
    let current_of = &["context", "ls", "--format", "{{if .Current}}{{.Name}}{{end}}"][..];
    for current in ["default", "one"] {
        docker_says(config.path(), &[], &["context", "use", current]).unwrap();
        for host in ["", "tcp://env:1"] {
            for context in ["", "two", "default"] {
                for flag in [&[][..], &["-c", "two"], &["-H", "tcp://flag:1"]] {
                    // An empty variable counts as unset, but 20.10 takes it for a host.
                    let set = |(_, value): &(&str, &str)| !value.is_empty();
                    let variables = [("DOCKER_HOST", host), ("DOCKER_CONTEXT", context)].into_iter().filter(set);
                    let variables: Vec<_> = variables.collect();
                    let theirs = docker_says(config.path(), &variables, &[flag, current_of].concat());
                    let given = |name: &str| (flag.first() == Some(&name)).then(|| flag[1].to_owned());
                    let flags = Flags { host: given("-H"), context: given("-c"), ..Flags::default() };
                    let all = [&variables[..], &[("DOCKER_CONFIG", directory)]].concat();
                    let ours = Endpoint::resolve(&flags, &environment(&all)).unwrap();
                    assert_eq!(
                        Some(ours.context),
                        theirs.map(|lines| lines.trim().to_owned()),
                        "{current} {variables:?} {flag:?}"
                    );
                }
            }
        }
    }
}

/// Files that a strict JSON parser reads differently from Go, or not at all.
#[test]
fn odd_json_is_read_as_docker_reads_it() {
    let deep = |depth: usize| {
        [b"{\"x\":".to_vec(), vec![b'['; depth], vec![b']'; depth], b",\"currentContext\":\"aa\"}".to_vec()].concat()
    };
    let plain = [
        &b"{\"psFormat\":\"Gr\xf6\xdfe\",\"currentContext\":\"aa\"}"[..],
        b"{\"currentContext\":\"aa\"}trailing",
        b"{\"currentContext\":\"aa\"}{\"currentContext\":\"bb\"}",
        b"{\"currentContext\":\"aa\",\"CURRENTCONTEXT\":\"bb\"}",
        b"{\"CURRENTCONTEXT\":\"bb\",\"currentContext\":\"aa\"}",
        b"{\"currentContext\":\"aa\",\"currentContext\":null}",
        b"{\"currentContext\":\"aa\",\"currentContext\":5}",
        b"{\"currentContext\":[\"bb\"]}",
        b"{\"psFormat\":5,\"currentContext\":\"aa\"}",
        b"{\"auths\":5,\"currentContext\":\"aa\"}",
        b"{\"HttpHeaders\":5,\"currentContext\":\"aa\"}",
        b"{\"HttpHeaders\":{\"x\":5},\"currentContext\":\"aa\"}",
        b"\xef\xbb\xbf{\"currentContext\":\"aa\"}",
        b"// comment\n{\"currentContext\":\"aa\"}",
        b"{\"currentContext\":\"aa\",}",
        b"{\"currentContext\":\"aa\"",
        b"",
        b" \n",
        b"null",
        b"nullx",
        b"null{\"currentContext\":\"aa\"}",
        b"[]",
        b"5",
        b"{\"x\":\"\\ud83d\",\"currentContext\":\"aa\"}",
        b"{\"x\":1e999,\"currentContext\":\"aa\"}",
        b"{\"x\":01,\"currentContext\":\"aa\"}",
        b"{\"x\":\"\x01\",\"currentContext\":\"aa\"}",
        b"{\"x\":\"\\q\",\"currentContext\":\"aa\"}",
        b"{\"current\\u0043ontext\":\"\\u0061a\"}",
    ];
    for json in plain.into_iter().map(<[u8]>::to_vec).chain([deep(9_999), deep(10_000)]) {
        let config = tempfile::tempdir().unwrap();
        for name in ["aa", "bb"] {
            let host = format!("host=unix:///run/{name}.sock");
            docker_says(config.path(), &[], &["context", "create", name, "--docker", &host]).unwrap();
        }
        std::fs::write(config.path().join("config.json"), &json).unwrap();
        let theirs = docker_says(
            config.path(),
            &[],
            &["context", "ls", "--format", "{{if .Current}}{{.Name}} {{.DockerEndpoint}}{{end}}"],
        );
        let variables = [("DOCKER_CONFIG", config.path().to_str().unwrap())];
        let ours = Endpoint::resolve(&Flags::default(), &environment(&variables)).unwrap();
        let ours = format!("{} {ours}", ours.context);
        let reported = json.escape_ascii().to_string();
        assert_eq!(theirs.unwrap().trim(), ours, "{}", reported.get(..100).unwrap_or(&reported));
    }
    for json in [
        &b"{\"Name\":\"aa\",\"x\":\"\\ud83d\",\"Endpoints\":{\"docker\":{\"Host\":\"unix:///run/x\xf6\xdf.sock\"}}}"[..],
        b" {\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}}}\n ",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}}}tail",
        b"{\"Endpoints\":{\"DOCKER\":{\"Host\":\"unix:///x\"}}}",
        b"{\"ENDPOINTS\":{\"docker\":{\"HOST\":\"unix:///x\"}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}},\"Endpoints\":{\"other\":{}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}},\"Endpoints\":null}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"},\"docker\":{\"SkipTLSVerify\":true}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"},\"docker\":null}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\",\"Host\":null}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\",\"host\":\"unix:///y\"}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":5}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\",\"SkipTLSVerify\":\"yes\"}}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"},\"other\":5}}",
        b"{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"},\"other\":null}}",
        b"{\"Endpoints\":{\"docker\":5}}",
        b"{\"Endpoints\":{\"docker\":{}}}",
        b"{\"Endpoints\":{}}",
        b"{\"Endpoints\":5}",
        b"{\"Name\":5,\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}}}",
        b"{\"Metadata\":5,\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}}}",
        b"{\"Metadata\":null,\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}}}",
        b"null",
        b"",
        b"[]",
        b"\xef\xbb\xbf{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///x\"}}}",
    ] {
        let config = tempfile::tempdir().unwrap();
        docker_says(config.path(), &[], &["context", "create", "aa", "--docker", "host=unix:///run/aa.sock"]).unwrap();
        let folder = std::fs::read_dir(config.path().join("contexts/meta")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(folder.join("meta.json"), json).unwrap();
        // Nobody listens there, so docker names the address, unless it finds none.
        let out = Command::new("docker")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("DOCKER_CONFIG", config.path())
            .args(["-c", "aa", "ps"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let place = said.split_once("daemon at ").map(|(_, rest)| rest.split(". Is the").next().unwrap().to_owned());
        let variables = [("DOCKER_CONFIG", config.path().to_str().unwrap())];
        let flags = Flags { context: Some("aa".to_owned()), ..Flags::default() };
        let ours = Endpoint::resolve(&flags, &environment(&variables)).map(|endpoint| endpoint.to_string());
        assert_eq!(ours.as_ref().ok(), place.as_ref(), "{}: {said} {ours:?}", json.escape_ascii());
    }
}

/// A TLS handshake that nobody answers ends at the connection timeout.
#[tokio::test]
async fn a_slow_connection_times_out() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let certs = folder.path().join("certs").to_str().unwrap().to_owned();
    // The kernel accepts the connection, but nobody answers the TLS handshake.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", silent.local_addr().unwrap());
    let endpoint = resolve(&host, &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &certs)]);
    let pool = config::PoolConfig { connection_timeout: Duration::from_millis(200), ..config::PoolConfig::default() };
    let error = connect_with(endpoint, pool).await.err().unwrap();
    assert_eq!(chain(&error), format!("cannot reach the Docker Engine at {host}\nconnection attempt timed out"));
}

/// No option of `docker run` makes the answer to an inspection unreadable.
#[tokio::test]
async fn a_container_with_every_option_is_inspected() {
    let engine = Engine::with(&[]);
    import(&engine);
    let docker = Docker::connect(at(&engine.host())).await.unwrap();
    let options = "--restart on-failure:3 --health-cmd true --health-interval 1h -v data:/d -v /tmp:/b:ro
        --tmpfs /t --mount type=tmpfs,dst=/m --ulimit nofile=64:64 --cap-add SYS_PTRACE --device /dev/null:/dev/x:r
        --security-opt no-new-privileges --ipc shareable --pid host --cgroupns host --memory 64m --cpus 0.5
        --network none --hostname h --add-host a:10.0.0.1 --dns 10.0.0.2 --env A=b --workdir /w --user 1:1 --init
        --stop-signal KILL --stop-timeout 3 --oom-score-adj 5 --shm-size 1m --sysctl kernel.shm_rmid_forced=1
        --log-driver json-file --log-opt max-size=1m --log-opt max-file=3 --log-opt mode=non-blocking -l k=v -it";
    let options: Vec<&str> = options.split_whitespace().collect();
    let args = ["talk", "/talk", "1000", "1000", "0"];
    let id = engine.must(&[&["run", "-d", "--name", "all"], &options[..], &args].concat());
    let details = docker.inspect("all").await.unwrap();
    assert_eq!(details.container, docker.list(&Filters::new()).await.unwrap()[0]);
    assert_eq!((&details.container.id, &*details.container.state), (&id, "running"));
    assert_eq!(
        details.log_options.into_iter().map(|(k, v)| k + "=" + &v).collect::<Vec<_>>(),
        ["max-file=3", "max-size=1m", "mode=non-blocking"]
    );
    engine.must(&["pause", "all"]);
    assert_eq!(docker.inspect("all").await.unwrap().container.state, "paused");
    engine.must(&["rm", "-f", "all"]);
}

/// Tasks hold these, so their futures must be `Send`.
#[allow(dead_code, reason = "it is enough that it compiles")]
fn every_future_can_be_sent(docker: &'static Docker, logs: &'static mut LogStream, events: &'static mut EventStream) {
    fn is_send(_: impl Send + 'static) {}
    const LOGS: &LogsQuery =
        &LogsQuery { follow: false, stdout: true, stderr: true, since: None, until: None, tail: None };
    const EVENTS: &EventsQuery = &EventsQuery { since: None, until: None, filters: Filters::new() };
    const NONE: &Filters = &Filters::new();
    is_send(Docker::connect(docker.endpoint().clone()));
    is_send(docker.renegotiate());
    is_send(docker.ping());
    is_send(docker.info());
    is_send(docker.list(NONE));
    is_send(docker.inspect(""));
    is_send(docker.logs("", LOGS));
    is_send(docker.events(EVENTS));
    is_send(logs.next());
    is_send(events.next());
}

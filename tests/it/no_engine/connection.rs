//! Connecting to an engine, and what is made of answers that a real engine does not give.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logwatch::internals::config;
use logwatch::internals::docker::{Docker, Error, EventsQuery, Kind, LogsQuery};
use logwatch::internals::model::Filters;

use crate::support::client::{at, chain, connect_with, failure, free_port, resolve};
use crate::support::raw_script::{CLOSE, RawScript, answer, engine_of, http_proxy};

/// The newest version that both sides know is spoken, or an error says which side is too old.
#[tokio::test]
async fn the_api_version_suits_every_engine() {
    for (newest, oldest, pin, reported) in [
        ("1.41", "1.12", "", "/v1.41/"),
        ("1.44", "1.24", "", "/v1.44/"),
        ("1.51", "1.24", "", "/v1.44/"),
        ("1.52", "1.44", "", "/v1.44/"),
        ("1.54", "1.50", "", "/v1.54/"),
        ("1.51", "1.24", "1.30", "/v1.30/"),
        ("1.51", "1.24", "1.51", "/v1.51/"),
        ("1.23", "1.12", "", "the Docker Engine is too old: it supports API versions up to 1.23, and 1.24 is needed"),
        (
            "1.41",
            "1.12",
            "1.50",
            "the Docker Engine is too old: it supports API versions up to 1.41, and 1.50 is needed",
        ),
        (
            "1.54",
            "1.44",
            "1.41",
            "the Docker Engine is too new: it supports API versions from 1.44 on, and 1.41 was requested",
        ),
        (
            "2.0",
            "2.0",
            "",
            "the Docker Engine is too new: it supports API versions from 2.0 on, and 1.44 was requested",
        ),
    ] {
        let script = RawScript::play(engine_of(newest, oldest));
        let got = match Docker::connect(resolve(&script.host(), &[("DOCKER_API_VERSION", pin)])).await {
            Ok(docker) => {
                docker.list(&Filters::new()).await.unwrap();
                let path = script.lines().pop().unwrap();
                path.strip_prefix("GET ").unwrap().split("containers").next().unwrap().to_owned()
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unreachable);
                error.to_string()
            }
        };
        assert_eq!(got, reported, "{newest} {oldest} {pin}");
    }
}

/// An engine that refuses HEAD is pinged by GET.
#[tokio::test]
async fn podman_is_recognised_without_head() {
    let script = RawScript::play(|head| match head.split(' ').next() {
        Some("HEAD") => answer("405 Method Not Allowed", "", "").to_owned(),
        _ if head.contains("/info") => answer("200 OK", "", r#"{"ID":"x"}"#),
        _ => answer("200 OK", "Api-Version: 1.41\r\nLibpod-API-Version: 5.0.0\r\n", "OK"),
    });
    let docker = Docker::connect(at(&script.host())).await.unwrap();
    assert_eq!(script.lines(), ["HEAD /_ping HTTP/1.1", "GET /_ping HTTP/1.1"]);
    assert!(docker.info().await.unwrap().is_podman);
}

/// After a renegotiation all clones speak the new version.
#[tokio::test]
async fn an_upgraded_engine_is_negotiated_with_again() {
    let upgraded = Arc::new(AtomicUsize::new(0));
    let now = upgraded.clone();
    let script = RawScript::play(move |head| match now.load(Ordering::SeqCst) {
        0 => engine_of("1.41", "1.12")(head),
        _ => engine_of("1.52", "1.44")(head),
    });
    let docker = Docker::connect(at(&script.host())).await.unwrap();
    upgraded.store(1, Ordering::SeqCst);
    let error = docker.list(&Filters::new()).await.unwrap_err();
    assert!(matches!(error, Error::TooNew { .. }), "{error}");
    let clone = docker.clone();
    docker.renegotiate().await.unwrap();
    clone.list(&Filters::new()).await.unwrap();
    assert_eq!(clone.api_version().to_string(), "1.44");
}

/// Calls, log streams and event streams have the configured headers.
#[tokio::test]
async fn every_request_has_custom_headers_and_host() {
    let script = RawScript::play(engine_of("1.41", "1.12"));
    let endpoint = resolve(&script.host(), &[("DOCKER_CUSTOM_HEADERS", "X-Tenant=a b")]);
    let docker = Docker::connect(endpoint).await.unwrap();
    docker.list(&Filters::new()).await.unwrap();
    docker.logs("x", &LogsQuery::default()).await.unwrap();
    docker.events(&EventsQuery::default()).await.unwrap();
    let heard = script.heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 4);
    for head in heard {
        let lower = head.to_lowercase();
        assert!(lower.contains("\r\nx-tenant: a b\r\n") && lower.contains("\r\nhost: localhost\r\n"), "{head}");
        assert!(lower.contains("\r\nuser-agent: docker-logwatch/"), "{head}");
        assert!(!lower.contains("\r\naccept:"), "{head}");
    }
}

/// What answers like no Docker Engine is reported with the endpoint.
#[tokio::test]
async fn other_servers_are_reported_in_one_line() {
    for (said, reported) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "lost the connection to HOST"),
        ("", "lost the connection to HOST"),
        ("HTTP/1.1 200 OK\r\nApi-Version: x\r\n\r\n", "unexpected response to the ping"),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "the Docker Engine answered 500: Internal Server Error"),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
            "the Docker Engine or a proxy in front of it refuses GET /_ping (403): allow it (PING=1)",
        ),
    ] {
        let script = RawScript::play(move |_| said.to_owned());
        let error = failure(at(&script.host())).await;
        assert_eq!(error.to_string().replace(&script.host(), "HOST"), reported, "{said}");
    }
    let error = failure(at("unix:///nowhere/docker.sock")).await;
    let reported =
        "cannot reach the Docker Engine at unix:///nowhere/docker.sock\nNo such file or directory (os error 2)";
    assert_eq!(chain(&error), reported);
    let closed = format!("tcp://127.0.0.1:{}", free_port());
    let reported = format!("cannot reach the Docker Engine at {closed}\nConnection refused (os error 111)");
    assert_eq!(chain(&failure(at(&closed)).await), reported);
}

/// A call has a deadline, and an event stream may be silent for any time.
#[tokio::test]
async fn silence_ends_a_call_but_no_stream() {
    let limit = Duration::from_millis(200);
    let pool = config::PoolConfig { request_timeout: limit, ..config::PoolConfig::default() };
    let script = RawScript::play(|head| match head {
        // Headers and the beginning of a body that never ends.
        list if list.contains("/containers/json") => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[".to_owned(),
        events if events.contains("/events") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        other => engine_of("1.41", "1.12")(other),
    });
    let docker = connect_with(at(&script.host()), pool).await.unwrap();
    let error = docker.list(&Filters::new()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { after, .. } if after == limit), "{error}");
    assert_eq!(error.to_string(), format!("no answer from {} within 0.2s", script.host()));
    let mut events = docker.events(&EventsQuery::default()).await.unwrap();
    assert!(tokio::time::timeout(3 * limit, events.next()).await.is_err(), "silence is no failure");
}

/// A malformed answer is an error; a malformed event does not end the stream.
#[tokio::test]
async fn malformed_answers_are_errors() {
    let event = r#"{"Type":"container","Action":"start","Actor":{"ID":"x"},"timeNano":5}"#;
    let body = format!("{{\"Type\":\n{event}\nnonsense\n\u{1e}{event}\n");
    let script = RawScript::play(move |head| match head {
        list if list.contains("/containers/json") => answer("200 OK", "", r#"[{"Id":7}]"#),
        x if x.contains("/containers/x/json") => answer("200 OK", "", r#"{"Name":"/x"}"#),
        y if y.contains("/containers/y/json") => answer("200 OK", "", "<html>"),
        events if events.contains("/events") => answer("200 OK", "", &body),
        cut if cut.contains("/containers/cut/logs") => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_owned(),
        gone if gone.contains("/containers/gone/") => answer("409 Conflict", "", r#"{"message":"is dead"}"#),
        other => engine_of("1.41", "1.12")(other),
    });
    let docker = Docker::connect(at(&script.host())).await.unwrap();
    let error = docker.list(&Filters::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "unexpected response to the container list");
    let error = docker.inspect("x").await.unwrap_err();
    assert_eq!(chain(&error), "unexpected response to the container inspection\nId is missing");
    let error = docker.inspect("y").await.unwrap_err();
    assert_eq!(error.to_string(), "unexpected response to the container inspection");
    let error = docker.logs("gone", &LogsQuery::default()).await.err().unwrap();
    assert!(matches!(&error, Error::Conflict { message } if message == "is dead"), "{error}");

    let mut events = docker.events(&EventsQuery::default()).await.unwrap();
    let mut reported = Vec::new();
    while let Some(event) = events.next().await {
        reported.push(event.map_or_else(|error| error.to_string(), |event| event.action));
    }
    let nonsense = "unexpected response to the event request";
    assert_eq!(reported, [nonsense, "start", nonsense, "start"]);
}

/// A stream that is cut off yields its error once and then ends.
#[tokio::test]
async fn a_cut_body_is_one_last_error() {
    let script = RawScript::play(|head| match head {
        logs if logs.contains("/logs") => format!("{CLOSE}Content-Length: 9\r\n\r\nabc"),
        events if events.contains("/events") => {
            format!("{CLOSE}Transfer-Encoding: chunked\r\n\r\n4\r\n{{\"Ty\r\n")
        }
        other => engine_of("1.41", "1.12")(other),
    });
    let docker = Docker::connect(at(&script.host())).await.unwrap();
    let mut logs = docker.logs("x", &LogsQuery::default()).await.unwrap();
    assert_eq!(&logs.next().await.unwrap().unwrap()[..], b"abc");
    let error = logs.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), format!("lost the connection to {}", script.host()));
    assert!(error.is_temporary() && logs.next().await.is_none());
    let mut events = docker.events(&EventsQuery::default()).await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert!(events.next().await.is_none());
}

/// An HTTP proxy gets the engine's address, its Host header and the credentials.
#[tokio::test]
async fn a_proxy_gets_the_name_of_the_engine() {
    let (port, heard) = http_proxy(|head| {
        let (method, rest) = head.split_once(' ').unwrap();
        let rest = rest.strip_prefix("http://engine.example:2375").unwrap_or("/refused");
        engine_of("1.41", "1.12")(&format!("{method} {rest}"))
    });
    let proxy = format!("http://me:secret@127.0.0.1:{port}");
    let docker = Docker::connect(resolve("tcp://engine.example", &[("HTTP_PROXY", &proxy)])).await.unwrap();
    assert_eq!(docker.api_version().to_string(), "1.41");
    let heard = heard.lock().unwrap().clone();
    assert!(heard[0].starts_with("HEAD http://engine.example:2375/_ping HTTP/1.1\r\n"), "{}", heard[0]);
    assert!(heard[0].to_lowercase().contains("\r\nproxy-authorization: basic bwu6c2vjcmv0\r\n"), "{}", heard[0]);
    assert!(heard[0].to_lowercase().contains("\r\nhost: engine.example:2375\r\n"), "{}", heard[0]);
}

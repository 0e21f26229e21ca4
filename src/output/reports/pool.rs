//! Prints the report of `pool`: a table for people, or one JSON object.

use crate::model::health::Status;
use crate::output::sanitizer::{self, Form};
use crate::output::sink::Sink;
use crate::output::{Error, When};
use comfy_table::{CellAlignment, Table, presets};
use owo_colors::{OwoColorize, Style};
use serde::Serialize;
use std::fmt::Write as _;

/// The report. Its fields are the keys of the JSON object, which users rely on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolReport {
    /// The address of the daemon, such as `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// The status of the pool as a whole.
    pub status: Status,
    /// `None` if the daemon cannot be reached.
    pub engine: Option<PoolEngine>,
    pub pool: PoolSize,
    pub clients: Vec<PoolClient>,
    /// The result of the load test, if one was requested.
    pub load: Option<PoolLoad>,
    /// Why the pool is not healthy; `None` if it is.
    pub error: Option<String>,
}

/// What the daemon reports about itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolEngine {
    /// The daemon's ID, which survives restarts and upgrades.
    pub id: String,
    /// The daemon's version, such as `20.10.24`.
    pub version: String,
    /// The negotiated API version, such as `1.41`.
    pub api_version: String,
    /// The daemon's operating system, such as `linux`.
    pub os: String,
    /// The default logging driver. Empty for Podman up to 4.3, which does not report it.
    pub logging_driver: String,
    /// `Docker`, or `Podman` if it provides Docker's API.
    pub name: &'static str,
}

/// The size and use of the pool, in clients.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PoolSize {
    /// The current number of clients.
    pub size: usize,
    pub min: usize,
    pub max: usize,
    pub healthy: usize,
    /// Clients that are executing a call.
    pub active: usize,
    /// `active` divided by `size`, 0 to 1.
    pub utilization: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolClient {
    pub id: u32,
    /// Either `healthy` or `unhealthy`.
    pub status: &'static str,
    /// Health score, 0 to 1.
    pub score: f64,
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// Calls so far, without health checks.
    pub usage_count: u64,
    /// Calls of this client that failed.
    pub errors: u64,
    /// Seconds since the client's connection was opened.
    pub age_seconds: f64,
    /// The latest check of each kind.
    pub checks: Vec<PoolCheck>,
}

/// The result of one health check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolCheck {
    /// `ping`, `container_list` or `event_stream`.
    pub name: &'static str,
    pub ok: bool,
    /// Milliseconds until the response or the failure.
    pub latency_ms: f64,
    /// Why the check failed; `None` if it passed.
    pub error: Option<String>,
}

/// The result of a load test.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PoolLoad {
    /// Requests that were completed or failed.
    pub requests: u64,
    /// Requests that failed after all retries.
    pub errors: u64,
    /// Retries of all requests together.
    pub retries: u64,
    /// Duration of the whole test.
    pub seconds: f64,
    pub requests_per_second: f64,
    /// The time of a request, including the wait.
    pub latency_ms: Spread,
    /// The time that a request waited for the rate limit and a free client.
    pub wait_ms: Spread,
}

/// The distribution of a duration, in milliseconds: percentiles 50, 95 and 99, and the maximum.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Spread {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

fn colour(status: Status) -> Style {
    match status {
        Status::Healthy | Status::NotConfigured => Style::new().green(),
        Status::Degraded => Style::new().yellow(),
        Status::Unhealthy => Style::new().red(),
    }
}

/// Writes the report to stdout.
pub(crate) fn pool(report: &PoolReport, is_json: bool, color: When) -> Result<(), Error> {
    let mut sink = Sink::stdout(if is_json { Form::Json } else { Form::Text })?;
    let text = if is_json { object(report) } else { table(report, color.is_enabled(sink.is_terminal)) };
    match sink.write(text.as_bytes()) {
        Err(Error::Closed) => Ok(()),
        written => written,
    }
}

fn object(report: &PoolReport) -> String {
    // Only numbers and strings, so serialization cannot fail.
    serde_json::to_string(report).unwrap_or_default() + "\n"
}

fn table(report: &PoolReport, is_coloured: bool) -> String {
    let PoolReport { endpoint, status, engine, pool, clients, load, error } = report;
    let mut text = format!("Endpoint  {}\n", sanitizer::safe(endpoint));
    if let Some(PoolEngine { name, version, api_version, os, logging_driver, .. }) = engine {
        let mut engine = format!("{name} {version} on {os}, API {api_version}");
        // Podman up to 4.3 does not report it.
        if !logging_driver.is_empty() {
            let _ = write!(engine, ", logs to {logging_driver}");
        }
        push(&mut text, "Engine", &sanitizer::safe(&engine));
    }
    let status = match is_coloured {
        true => status.name().style(colour(*status)).to_string(),
        false => status.name().to_owned(),
    };
    push(&mut text, "Status", &format!("{status}: {} of {} clients healthy", pool.healthy, pool.size));
    let PoolSize { min, max, active, utilization, .. } = pool;
    push(&mut text, "Pool", &format!("{min} to {max} clients, {active} active ({:.0} %)", utilization * 100.0));
    if let Some(error) = error {
        push(&mut text, "Problem", &sanitizer::safe(error));
    }
    if !clients.is_empty() {
        text.push('\n');
        text.push_str(&clients_table(clients));
    }
    for client in clients {
        for PoolCheck { name, error, .. } in &client.checks {
            if let Some(error) = error {
                let _ = writeln!(text, "! client {}: {name}: {}", client.id, sanitizer::safe(error));
            }
        }
    }
    if let Some(load) = load {
        text.push('\n');
        text.push_str(&load_text(load));
    }
    text
}

fn push(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<9} {value}");
}

fn clients_table(clients: &[PoolClient]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let checks = clients.first().map_or(&[][..], |client| &client.checks);
    let headers = ["CLIENT", "STATUS", "SCORE", "BREAKER", "CALLS", "ERRORS", "AGE"].map(str::to_owned);
    table.set_header(headers.into_iter().chain(checks.iter().map(|check| check.name.to_uppercase().replace('_', " "))));
    for client in clients {
        let PoolClient { id, status, score, breaker, usage_count, errors, age_seconds, checks } = client;
        let cells = [
            id.to_string(),
            (*status).to_owned(),
            format!("{score:.2}"),
            breaker.replace('_', " "),
            usage_count.to_string(),
            errors.to_string(),
            seconds(*age_seconds),
        ];
        let outcome = |check: &PoolCheck| if check.ok { milliseconds(check.latency_ms) } else { "failed".to_owned() };
        table.add_row(cells.into_iter().chain(checks.iter().map(outcome)));
    }
    align_numbers(&mut table, &[1, 3]);
    lines(&table)
}

fn load_text(load: &PoolLoad) -> String {
    let PoolLoad { requests, errors, retries, seconds, requests_per_second, latency_ms, wait_ms } = load;
    let mut text = String::new();
    let summary = format!(
        "{requests} requests in {seconds:.2} s, {requests_per_second:.0} per second; {errors} failed, {retries} retries"
    );
    push(&mut text, "Load", &summary);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "P50", "P95", "P99", "MAX"]);
    for (name, Spread { p50, p95, p99, max }) in [("Latency", latency_ms), ("Wait", wait_ms)] {
        table.add_row([name.to_owned()].into_iter().chain([p50, p95, p99, max].map(|ms| milliseconds(*ms))));
    }
    align_numbers(&mut table, &[0]);
    text + &lines(&table)
}

/// Aligns all columns to the right except those that contain text.
fn align_numbers(table: &mut Table, text_columns: &[usize]) {
    for (at, column) in table.column_iter_mut().enumerate() {
        if !text_columns.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n").collect()
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 3600.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 60.0 => format!("{:.1} min", s / 60.0),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, ms: f64, error: Option<&str>) -> PoolCheck {
        PoolCheck { name, ok: error.is_none(), latency_ms: ms, error: error.map(str::to_owned) }
    }

    fn report() -> PoolReport {
        let client = |id, status, breaker, checks| PoolClient {
            id,
            status,
            score: if status == "healthy" { 1.0 } else { 0.4 },
            breaker,
            usage_count: 12,
            errors: 0,
            age_seconds: 75.0,
            checks,
        };
        let passed =
            vec![check("ping", 0.42, None), check("container_list", 1.1, None), check("event_stream", 0.7, None)];
        let failed = vec![
            check("ping", 10_000.0, Some("no answer\u{1b}[2J")),
            check("container_list", 120.4, None),
            check("event_stream", 0.7, None),
        ];
        PoolReport {
            endpoint: "unix:///run/docker.sock".into(),
            status: Status::Degraded,
            engine: Some(PoolEngine {
                id: "ABCD".into(),
                version: "20.10.24".into(),
                api_version: "1.41".into(),
                os: "linux".into(),
                logging_driver: "json-file".into(),
                name: "Docker",
            }),
            pool: PoolSize { size: 2, min: 1, max: 8, healthy: 1, active: 0, utilization: 0.0 },
            clients: vec![client(0, "healthy", "closed", passed), client(1, "unhealthy", "half_open", failed)],
            load: Some(PoolLoad {
                requests: 1000,
                errors: 0,
                retries: 3,
                seconds: 0.41,
                requests_per_second: 2439.0,
                latency_ms: Spread { p50: 1.1, p95: 2.0, p99: 3.1, max: 1005.0 },
                wait_ms: Spread { p50: 0.0, p95: 0.1, p99: 0.4, max: 0.9 },
            }),
            error: None,
        }
    }

    #[test]
    fn the_table_is_sanitised_and_complete() {
        let expected = "\
Endpoint  unix:///run/docker.sock
Engine    Docker 20.10.24 on linux, API 1.41, logs to json-file
Status    degraded: 1 of 2 clients healthy
Pool      1 to 8 clients, 0 active (0 %)

CLIENT  STATUS     SCORE  BREAKER    CALLS  ERRORS      AGE    PING  CONTAINER LIST  EVENT STREAM
     0  healthy     1.00  closed        12       0  1.2 min  0.4 ms          1.1 ms        0.7 ms
     1  unhealthy   0.40  half open     12       0  1.2 min  failed          120 ms        0.7 ms
! client 1: ping: no answer^[[2J

Load      1000 requests in 0.41 s, 2439 per second; 0 failed, 3 retries
            P50     P95     P99     MAX
Latency  1.1 ms  2.0 ms  3.1 ms  1.00 s
Wait     0.0 ms  0.1 ms  0.4 ms  0.9 ms
";
        assert_eq!(table(&report(), false), expected);
        assert!(table(&report(), true).contains("\u{1b}[33mdegraded\u{1b}[0m"));
    }

    #[test]
    fn the_object_has_the_documented_keys_in_order() {
        let mut report = report();
        report.clients.truncate(1);
        report.load = None;
        let expected = concat!(
            r#"{"endpoint":"unix:///run/docker.sock","status":"degraded","#,
            r#""engine":{"id":"ABCD","version":"20.10.24","api_version":"1.41","os":"linux","logging_driver":"json-file","name":"Docker"},"#,
            r#""pool":{"size":2,"min":1,"max":8,"healthy":1,"active":0,"utilization":0.0},"#,
            r#""clients":[{"id":0,"status":"healthy","score":1.0,"breaker":"closed","usage_count":12,"errors":0,"#,
            r#""age_seconds":75.0,"checks":[{"name":"ping","ok":true,"latency_ms":0.42,"error":null},"#,
            r#"{"name":"container_list","ok":true,"latency_ms":1.1,"error":null},"#,
            r#"{"name":"event_stream","ok":true,"latency_ms":0.7,"error":null}]}],"load":null,"error":null}"#,
            "\n",
        );
        assert_eq!(object(&report), expected);
    }
}

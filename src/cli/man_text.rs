//! The parts of the man pages that are not generated from the clap definitions: environment variables, files, JSON
//! records and reports, exit codes.
//!
//! [`super::man_pages`] appends them. A test checks that the documented keys are those that the program writes.

use crate::config::Config;
use crate::config::keys::KEYS;
use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Returns the end of a page. `page` is `docker-logwatch` or the name of a command.
pub(super) fn end_of(page: &str) -> Roff {
    let mut roff = Roff::new();
    match page {
        "watch" => objects(&mut roff, "RECORDS", RECORDS_INTRO, WATCH),
        "pool" => objects(&mut roff, "REPORT", POOL_INTRO, POOL),
        "reconcile" => objects(&mut roff, "REPORT", RECONCILE_INTRO, RECONCILE),
        "docker-logwatch" => {
            section(&mut roff, "ENVIRONMENT").text([roman("An empty variable is treated as unset.")]);
            list(&mut roff, VARIABLES);
            let defaults = Config::default();
            for key in KEYS {
                let default = Some(key.text(&defaults)).filter(|default| !default.is_empty());
                let default = default.map_or_else(String::new, |default| format!(" [default: {default}]"));
                entry(&mut roff, &key.variable(), &format!("{}: {}{default}", key.path, key.allowed()));
            }
            list(section(&mut roff, "FILES"), FILES);
        }
        _ => {}
    }
    list(section(&mut roff, "EXIT STATUS"), EXIT_STATUS);
    section(&mut roff, "SEE ALSO").text(references(page));
    if page != "docker-logwatch" {
        roff.control("PP", []).text([roman("The first page lists environment variables and files.")]);
    }
    roff
}

/// The names of all other pages, separated by commas.
fn references(page: &str) -> Vec<Inline> {
    let others = [None, Some("watch"), Some("events"), Some("pool"), Some("reconcile")]
        .into_iter()
        .filter(|command| command.unwrap_or("docker-logwatch") != page)
        .map(|command| command.map_or("docker-logwatch".to_owned(), |command| format!("docker-logwatch-{command}")));
    let separated = others.flat_map(|name| [roman(", "), bold(name), roman("(1)")]);
    separated.skip(1).collect()
}

/// A term and its explanation.
type Definition = (&'static str, &'static str);

const VARIABLES: &[Definition] = &[
    ("DOCKER_HOST, DOCKER_CONTEXT", "The Docker Engine, as for docker(1). `--host` and `--context` override them."),
    ("DOCKER_TLS, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH", "TLS for the connection to the daemon, as for docker(1)."),
    ("DOCKER_API_VERSION", "The API version to use, such as `1.41`, instead of the negotiated one."),
    ("DOCKER_CUSTOM_HEADERS", "HTTP headers for each request, as for docker(1)."),
    ("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "The proxy for connections over TCP, as for docker(1)."),
    ("DOCKER_CONFIG", "Docker's configuration directory, instead of ~/.docker."),
    ("NO_COLOR", "Disables colours, unless `--color` is `always`."),
    ("CLICOLOR_FORCE", "Enables colours even without a terminal, unless it is `0`."),
    ("XDG_STATE_HOME", "The directory of docker-logwatch/state.db, the default state file, instead of ~/.local/state."),
    ("TZ", "The time zone of arguments without a zone, and of the times that `events` prints."),
    ("NOTIFY_SOCKET", "The socket on which systemd expects that `watch` and `events` report that they are ready."),
    ("LOGWATCH_CONFIG_FILE", "The configuration file. `--config-file` overrides it."),
];

const FILES: &[Definition] = &[
    (
        "~/.docker/logwatch.yaml",
        "The configuration: a YAML file with the keys above, nested at each dot. Options override environment variables, and \
         those override the file. The file is optional; if it is invalid, the exit status is 2.",
    ),
    ("~/.docker/config.json, ~/.docker/contexts", "Docker's configuration, which is read to find the Docker Engine."),
    (
        "~/.local/state/docker-logwatch/state.db",
        "The state (`--state`, `state.path`): an SQLite database with the positions of `watch --resume` and the inventory of \
         `reconcile`. The same directory also holds the files that SQLite itself creates, the locks of resume names and \
         of output files, and the write-ahead logs of output files.",
    ),
];

const EXIT_STATUS: &[Definition] = &[
    ("0", "Done, or stopped by SIGINT or SIGTERM, or because the reader of stdout has gone."),
    ("1", "A failure at run time, or a log was not read to the requested end."),
    ("2", "An unknown option, an invalid value, or an invalid configuration file or variable."),
    ("3", "The Docker daemon cannot be reached or refuses the connection."),
    ("4", "The result of `--check` is negative, or `--count` was not reached within `--timeout`."),
];

/// The name of an object, what it describes, and its keys in their order.
type ObjectKind = (&'static str, &'static str, &'static [Definition]);

const RECORDS_INTRO: &str = "With `--format json`, each line is one object. Its `type` is one of the following. Keys may be added in later versions.";

const TIME: Definition = ("time", "Docker's timestamp: RFC 3339 in UTC, with nanoseconds.");
const CONTAINER_ID: Definition = ("container_id", "64 hexadecimal digits.");
const CONTAINER_NAME: Definition = ("container_name", "The name of the container at that time.");
const IMAGE: Definition = ("image", "The image, as it was given when the container was created.");

const WATCH: &[ObjectKind] = &[
    (
        "log",
        "A log line.",
        &[
            TIME,
            CONTAINER_ID,
            CONTAINER_NAME,
            IMAGE,
            ("project, service", "Compose project and service; missing for other containers."),
            ("stream", "`stdout` or `stderr`."),
            ("message", "The line without its newline."),
            ("partial", "`true` for each piece of a message longer than `--max-line-size`, otherwise missing."),
            ("partial_last", "`true` for the last piece of such a message, otherwise missing."),
            ("source", "The route: `file`, `stream`, `rotate` or `poll`."),
            ("cursor", "Identifies the line within its container. It is the same for every route and every run."),
            ("labels", "With `--metadata`: an object with a `container_label_KEY` for each label."),
            (
                "networks",
                "With `--metadata`: an object with a `network_NAME` for each network, whose value is the IP address.",
            ),
            ("state", "With `--metadata`: the container's state, such as `running`."),
        ],
    ),
    (
        "gap",
        "A known loss of log data.",
        &[
            ("time", "When the loss was detected, by the clock of this machine."),
            CONTAINER_ID,
            CONTAINER_NAME,
            ("reason", "`rotated_away`, `truncated`, `corrupt` or `unreadable`."),
            ("lost_bytes", "Number of lost bytes, or `null` if unknown."),
            ("after_cursor", "The cursor of the last line before the gap, or `null` if there is none."),
            ("message", "A description for people."),
        ],
    ),
    (
        "lifecycle",
        "With `--lifecycle`: an event of a container.",
        &[
            TIME,
            CONTAINER_ID,
            CONTAINER_NAME,
            ("action", "Docker's name of the event: `start`, `die`, ..."),
            ("attributes", "The other attributes of the event, including the labels of the container."),
        ],
    ),
    (
        "plan",
        "With `--dry-run`, instead of all others: a container that matches.",
        &[
            CONTAINER_ID,
            CONTAINER_NAME,
            IMAGE,
            ("state", "The state of the container, such as `running`."),
            ("driver", "The logging driver."),
            ("source", "The route, or `null` if the container cannot be read."),
            ("risk", "How its logging options can lose lines no matter who reads them, or `null` if they cannot."),
        ],
    ),
];

const POOL_INTRO: &str = "With `--format json`, the report is one object, which is also printed with `--check`. Keys may be added in later versions.";

const POOL: &[ObjectKind] = &[(
    "",
    "",
    &[
        ("endpoint", "The address of the Docker Engine."),
        ("status", "`healthy`: all clients are healthy; `degraded`: some are; `unhealthy`: none is."),
        ("engine", "`id`, `version`, `api_version`, `os`, `logging_driver`; `null` if it cannot be reached."),
        ("pool", "`size`, `min`, `max`, the numbers of `healthy` and `active` clients, and `utilization` from 0 to 1."),
        (
            "clients",
            "For each client: `id`, `status`, `score` from 0 to 1, `breaker` (`closed`, `open`, `half_open`), `usage_count`, \
                 `errors`, `age_seconds`, and `checks` with `name`, `ok`, `latency_ms` and `error`.",
        ),
        (
            "load",
            "`null` without `--requests`. Otherwise `requests`, `errors`, `retries`, `seconds`, `requests_per_second`, \
                 and `latency_ms` and `wait_ms`, each with `p50`, `p95`, `p99` and `max`.",
        ),
        ("error", "Why the pool is not healthy, or `null` if it is."),
    ],
)];

const RECONCILE_INTRO: &str = "With `--format json`, the report is one object. Keys may be added in later versions.";

const RECONCILE: &[ObjectKind] = &[(
    "",
    "",
    &[
        ("engine_id", "The ID of the Docker Engine."),
        ("type", "Always `full`."),
        ("dry_run", "Whether this was only a comparison, which writes nothing."),
        ("in_sync", "Whether nothing differed."),
        ("started", "When the run started, by the clock of this machine."),
        ("duration_seconds", "Time from the first request to the last write."),
        (
            "changes",
            "For `containers`, `volumes`, `mounts` and `positions`: how many were `created`, `updated`, `removed` and \
                 `unchanged`.",
        ),
        (
            "details",
            "With `--details`, each change: `resource`, `id`, `name`, `operation`, and `fields` with `name`, `before` and \
                 `after`.",
        ),
        (
            "lost",
            "The names of removed containers that `watch --resume` had not read to the end. Their last lines are lost.",
        ),
    ],
)];

fn objects(roff: &mut Roff, heading: &str, intro: &str, kinds: &[ObjectKind]) {
    section(roff, heading).text([roman(intro)]);
    for (name, meaning, keys) in kinds {
        if !name.is_empty() {
            roff.control("SS", [*name]).text([roman(*meaning)]);
        }
        list(roff, keys);
    }
}

fn section<'a>(roff: &'a mut Roff, heading: &str) -> &'a mut Roff {
    roff.control("SH", [heading])
}

fn list(roff: &mut Roff, entries: &[Definition]) {
    entries.iter().for_each(|(term, meaning)| entry(roff, term, meaning));
}

fn entry(roff: &mut Roff, term: &str, meaning: &str) {
    roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
}

//! What the man pages say besides the flags: files, variables, records, reports, exit codes.
//!
//! Called by [`super::generate`]. A test compares the keys that stand here with those that the program writes.

use crate::config::Config;
use crate::config::keys::KEYS;
use std::fmt::Write as _;

/// A page's end, in roff, for `docker-logwatch` or one of its commands by their names.
pub(super) fn end_of(page: &str) -> String {
    let mut text = String::new();
    match page {
        "watch" => records(&mut text, "RECORDS", RECORDS_INTRO, WATCH),
        "pool" => records(&mut text, "REPORT", POOL_INTRO, POOL),
        "reconcile" => records(&mut text, "REPORT", RECONCILE_INTRO, RECONCILE),
        "docker-logwatch" => {
            section(&mut text, "ENVIRONMENT", "An empty variable counts as unset.");
            list(&mut text, VARIABLES);
            let defaults = Config::default();
            for key in KEYS {
                let default = Some(key.text(&defaults)).filter(|default| !default.is_empty());
                let default = default.map_or_else(String::new, |default| format!(" [default: {default}]"));
                entry(&mut text, &key.variable(), &format!("{}: {}{default}", key.path, key.allowed()));
            }
            section(&mut text, "FILES", "");
            list(&mut text, FILES);
        }
        _ => {}
    }
    section(&mut text, "EXIT STATUS", "");
    list(&mut text, EXIT_STATUS);
    let pages = ["docker-logwatch", "docker-logwatch-watch", "docker-logwatch-events"];
    let pages = pages.into_iter().chain(["docker-logwatch-pool", "docker-logwatch-reconcile"]);
    let others = pages.filter(|other| *other != page && other.strip_prefix("docker-logwatch-") != Some(page));
    let others: Vec<String> = others.map(|other| format!("\\fB{}\\fR(1)", escaped(other))).collect();
    section(&mut text, "SEE ALSO", "");
    let _ = writeln!(text, "{}", others.join(", "));
    if page != "docker-logwatch" {
        text += ".PP\nThe first has the environment variables and the files.\n";
    }
    text
}

/// A term and what it means.
type Entry = (&'static str, &'static str);

const VARIABLES: &[Entry] = &[
    ("DOCKER_HOST, DOCKER_CONTEXT", "The engine, as for docker(1); `--host` and `--context` go before them."),
    ("DOCKER_TLS, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH", "TLS with the engine, as for docker(1)."),
    ("DOCKER_API_VERSION", "The version of the API to speak, such as `1.41`, instead of the one agreed on."),
    ("DOCKER_CUSTOM_HEADERS", "Headers for each request, as for docker(1)."),
    ("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "The proxy to an engine over TCP, as for docker(1)."),
    ("DOCKER_CONFIG", "Docker's configuration folder, instead of ~/.docker."),
    ("NO_COLOR", "No colours, unless `--color` says otherwise."),
    ("CLICOLOR_FORCE", "Colours where there is no terminal as well, unless it is `0`."),
    ("XDG_STATE_HOME", "Where the state file lies by default, instead of ~/.local/state."),
    ("TZ", "The zone of times that name none, and of the times that `events` prints."),
    ("LOGWATCH_CONFIG_FILE", "The configuration file; `--config-file` goes before it."),
];

const FILES: &[Entry] = &[
    (
        "~/.docker/logwatch.yaml",
        "The configuration: YAML with the keys named above, each in its groups. Variables go before it, and flags before \
         those. It need not be there; one that cannot be understood is refused with exit status 2.",
    ),
    ("~/.docker/config.json, ~/.docker/contexts", "Docker's own, read to find the engine."),
    (
        "~/.local/state/docker-logwatch/state.db",
        "The state (`--state`, `state.path`): an SQLite file with the positions of `watch --resume` and the inventory of \
         `reconcile`. SQLite keeps files beside it. So do the locks of resume names and of outputs, and the logs of \
         what is written to an output.",
    ),
];

const EXIT_STATUS: &[Entry] = &[
    ("0", "Done; or stopped by SIGINT or SIGTERM, or by the reader of stdout going away."),
    ("1", "It failed at run time, or a log was not read to the end that was asked for."),
    ("2", "Usage: an unknown flag, a bad value, or a configuration file or variable that is refused."),
    ("3", "The Docker engine cannot be reached or refuses us."),
    ("4", "The check that was asked for failed."),
];

/// A kind of object, what it is, and its keys in order.
type Kind = (&'static str, &'static str, &'static [Entry]);

const RECORDS_INTRO: &str =
    "With `--format json` each line is one object, whose `type` tells what it is. Keys may be added.";

const TIME: Entry = ("time", "The engine's time, RFC 3339 in UTC with nanoseconds.");
const CONTAINER_ID: Entry = ("container_id", "64 hexadecimal digits.");
const CONTAINER_NAME: Entry = ("container_name", "Its name at that time.");
const IMAGE: Entry = ("image", "The image as the container names it.");

const WATCH: &[Kind] = &[
    (
        "log",
        "A line.",
        &[
            TIME,
            CONTAINER_ID,
            CONTAINER_NAME,
            IMAGE,
            ("project, service", "Of Compose; only where there are such."),
            ("stream", "`stdout` or `stderr`."),
            ("message", "The line without its newline."),
            ("partial", "`true` on each piece of a message longer than `--max-line-size`, else missing."),
            ("partial_last", "`true` on the last piece of such a message, else missing."),
            ("source", "The route: `file`, `stream`, `rotate` or `poll`."),
            ("cursor", "The line's identity within its container, the same by whichever route and in whichever run."),
            ("labels", "With `--metadata`: an object of `container_label_KEY`."),
            ("networks", "With `--metadata`: an object of `network_NAME`, the address in each."),
            ("state", "With `--metadata`: the container's state, such as `running`."),
        ],
    ),
    (
        "gap",
        "Something that is known to be lost.",
        &[
            ("time", "When it was found, by our clock."),
            CONTAINER_ID,
            CONTAINER_NAME,
            ("reason", "`rotated_away`, `truncated`, `corrupt` or `unreadable`."),
            ("lost_bytes", "Bytes of log, `null` where that cannot be known."),
            ("after_cursor", "The last line before it, `null` where there is none."),
            ("message", "The same in words."),
        ],
    ),
    (
        "lifecycle",
        "With `--lifecycle`: what happened to a container.",
        &[
            TIME,
            CONTAINER_ID,
            CONTAINER_NAME,
            ("action", "The engine's word: `start`, `die`, ..."),
            ("attributes", "What the engine tells besides, labels included."),
        ],
    ),
    (
        "plan",
        "With `--dry-run`, instead of the others: a container that matches.",
        &[
            CONTAINER_ID,
            CONTAINER_NAME,
            IMAGE,
            ("state", "Its state, such as `running`."),
            ("driver", "Its logging driver."),
            ("source", "The route, `null` where it cannot be read."),
            ("risk", "How it can lose lines whoever reads them, `null` where it cannot."),
        ],
    ),
];

const POOL_INTRO: &str =
    "With `--format json` the report is one object, written with `--check` as well. Keys may be added.";

const POOL: &[Kind] = &[(
    "",
    "",
    &[
        ("endpoint", "The engine's address."),
        ("status", "`healthy`: all clients are; `degraded`: some; `unhealthy`: none."),
        ("engine", "`id`, `version`, `api_version`, `os`, `logging_driver`; `null` where it cannot be reached."),
        ("pool", "`size`, `min`, `max`, and how many clients are `healthy` and `active`; `utilization` from 0 to 1."),
        (
            "clients",
            "Of each: `id`, `status`, `score` from 0 to 1, `breaker` (`closed`, `open`, `half_open`), `usage_count`, \
                 `errors`, `age_seconds`, and `checks`, of each `name`, `ok`, `latency_ms`, `error`.",
        ),
        (
            "load",
            "`null` without `--requests`, else `requests`, `errors`, `retries`, `seconds`, `requests_per_second`, and \
                 `latency_ms` and `wait_ms` with `p50`, `p95`, `p99`, `max`.",
        ),
        ("error", "Why it is not healthy, in words, else `null`."),
    ],
)];

const RECONCILE_INTRO: &str = "With `--format json` the report is one object. Keys may be added.";

const RECONCILE: &[Kind] = &[(
    "",
    "",
    &[
        ("engine_id", "Whose containers, volumes and mounts."),
        ("type", "`full`."),
        ("dry_run", "Whether nothing was written."),
        ("in_sync", "Whether nothing differed."),
        ("started", "When, by our clock."),
        ("duration_seconds", "From the first question to the last write."),
        (
            "changes",
            "Of `containers`, `volumes`, `mounts` and `positions` each how many were `created`, `updated`, `removed` \
                 and `unchanged`.",
        ),
        (
            "details",
            "With `--details` each change: `resource`, `id`, `name`, `operation`, and `fields`, of each `name`, `before` \
                 and `after`.",
        ),
        (
            "lost",
            "Names of removed containers that `watch --resume` had not read to their end: nobody can read the rest.",
        ),
    ],
)];

fn records(text: &mut String, heading: &str, intro: &str, kinds: &[Kind]) {
    section(text, heading, intro);
    for (name, what, keys) in kinds {
        if !name.is_empty() {
            let _ = writeln!(text, ".SS {name}\n{}", escaped(what));
        }
        list(text, keys);
    }
}

fn section(text: &mut String, heading: &str, intro: &str) {
    let _ = writeln!(text, ".SH \"{heading}\"");
    if !intro.is_empty() {
        let _ = writeln!(text, "{}", escaped(intro));
    }
}

fn list(text: &mut String, entries: &[Entry]) {
    entries.iter().for_each(|(term, what)| entry(text, term, what));
}

fn entry(text: &mut String, term: &str, what: &str) {
    let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(what));
}

/// A dash of a flag is to be copied, and a quote to be none of typography.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-").replace('\'', "\\*(Aq")
}

//! The files in `contrib/` name nothing that does not exist.

use std::collections::BTreeSet;
use std::fs;

use crate::support::cli::{here, text};

/// The names of metrics in a text, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = text.match_indices("logwatch_").filter(|(at, _)| !text[..*at].ends_with(word));
    let names = begins.map(|(at, _)| text[at..].split(|c| !word(c)).next().unwrap());
    let bare = |name: &str| {
        ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    names.map(bare).collect()
}

/// A series that appears only after a failure is not served before, so the names are compared with those in the source.
#[test]
fn dashboard_and_rules_use_existing_metrics() {
    let folder = fs::read_dir(here("src/metrics")).unwrap().map(|entry| entry.unwrap().path());
    let made: String = folder.map(|path| fs::read_to_string(path).unwrap()).collect();
    let made = names(&made);
    // Each subject has its own file, and prefixes that all its names have.
    let subjects = [
        (
            "pool",
            &[
                "docker_pool_",
                "docker_connection_",
                "docker_health_",
                "docker_operation_",
                "docker_recovery_",
                "docker_circuit_",
            ][..],
        ),
        ("events", &["docker_events_"]),
        (
            "reconciliation",
            &["docker_reconciliation_", "docker_volumes_", "docker_containers_", "docker_mounts_", "docker_resources_"],
        ),
        ("logs", &["containers_", "log_", "metadata_", "discovery_", "build_"]),
    ];
    for file in ["contrib/grafana-dashboard.json", "contrib/prometheus-rules.yml"] {
        let named = names(&text(file));
        assert!(named.len() > 5, "{file} names only {named:?}");
        for name in named {
            let of = |(_, begins): &&(&str, &[&str])| {
                begins.iter().any(|begin| name["logwatch_".len()..].starts_with(begin))
            };
            let (subject, _) = subjects.iter().find(of).unwrap_or_else(|| panic!("{file}: {name} is of no subject"));
            assert!(here(format!("src/metrics/{subject}.rs")).exists(), "{subject} has no file");
            assert!(made.contains(&name), "{file} names {name}, which is nowhere in src/metrics");
        }
    }
}

/// Each line of the crontab has a schedule, a user, and the program with `--check`.
#[test]
fn the_cron_lines_are_valid() {
    let cron = text("contrib/cron.d/docker-logwatch");
    let jobs: Vec<&str> = cron.lines().filter(|line| line.contains(" root ") && !line.starts_with('#')).collect();
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        let fields: Vec<&str> = job.split_whitespace().collect();
        let is_time = |field: &&str| field.bytes().all(|byte| byte.is_ascii_digit() || b"*/,-".contains(&byte));
        assert!(fields[..5].iter().all(is_time), "{job}");
        assert_eq!((fields[5], fields[6], fields.contains(&"--check")), ("root", "docker-logwatch", true), "{job}");
    }
    // The last line of a file in cron.d must end with a newline, and the name of the file must not contain a dot.
    assert!(cron.ends_with('\n'));
}

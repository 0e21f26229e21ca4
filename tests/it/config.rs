//! What is configured reaches the program, from wherever it was said, and a slip is refused before anything else happens.

use super::support::{Engine, Finished, Watch};
use std::fs;
use std::path::Path;

/// `watch` with these words and variables; nothing else in the environment leads anywhere.
fn watch(home: &Path, words: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Watch::command();
    let engine = [("DOCKER_HOST", "unix:///nowhere"), ("LC_ALL", "C.UTF-8")];
    command.env_clear().env("HOME", home).envs(engine).envs(variables.iter().copied()).arg("watch").args(words);
    Watch::spawn(&mut command).finish()
}

#[test]
fn the_route_is_the_one_that_was_configured_last() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1", "--idle"]);
    let (usual, other) = (engine.config_dir().join("logwatch.yaml"), engine.home().join("other.yaml"));
    fs::write(&other, "watch: {source: rotate}\n").unwrap();
    let source = |before: &[&str], words: &[&str], variables: &[(&str, &str)]| {
        let mut command = Watch::command();
        engine.furnish(&mut command);
        let all = [before, &["watch", "--dry-run", "--format", "json"], words].concat();
        let plan = Watch::spawn(command.args(all).envs(variables.iter().copied())).finish();
        assert_eq!((plan.code, plan.stderr.as_str()), (Some(0), ""), "{before:?} {words:?} {variables:?}");
        plan.records()[0]["source"].as_str().unwrap().to_owned()
    };
    let variable = ("LOGWATCH_WATCH_SOURCE", "stream");
    assert_eq!(source(&[], &[], &[]), "file");
    fs::write(&usual, "watch: {source: poll}\n").unwrap();
    assert_eq!(source(&[], &[], &[]), "poll");
    let other = other.to_str().unwrap();
    assert_eq!(source(&[], &[], &[("LOGWATCH_CONFIG_FILE", other)]), "rotate");
    assert_eq!(source(&["--config-file", other], &[], &[("LOGWATCH_CONFIG_FILE", "/nowhere")]), "rotate");
    assert_eq!(source(&["--config-file", other], &[], &[variable]), "stream");
    assert_eq!(source(&[], &["--source", "file"], &[variable]), "file");
    // As docker hands on where its own configuration is.
    let folder = engine.config_dir();
    let home = engine.home().display().to_string();
    let as_plugin = |folder: &str| source(&["--config", folder, "logwatch"], &[], &[("DOCKER_CONFIG", &home)]);
    assert_eq!([as_plugin(folder.to_str().unwrap()), as_plugin("/nowhere")], ["poll", "file"]);
}

#[test]
fn a_slip_is_refused_with_its_place_and_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".docker")).unwrap();
    let (file, named) = (home.path().join(".docker/logwatch.yaml"), home.path().join("named.yaml"));
    let told = |text: &str, words: &[&str], variables: &[(&str, &str)]| {
        fs::write(&file, text).unwrap();
        let finished = watch(home.path(), words, variables);
        assert_eq!((finished.code, finished.lines()), (Some(2), Vec::new()), "{text:?}");
        finished.stderr.replace(&home.path().display().to_string(), "~")
    };
    assert_eq!(
        told(
            "docker:\n  pool:\n    min_pool_size: 9\n  co\x1blour: red\n",
            &[],
            &[("LOGWATCH_EVENTS_QUEUE_SIZE", "\x1b[2J")]
        ),
        "error: ~/.docker/logwatch.yaml:4: unknown key docker.co^[lour; the keys of docker are pool, circuit_breaker, rate_limit\n\
         error: LOGWATCH_EVENTS_QUEUE_SIZE is `^[[2J`: expected a whole number from 1 to 1000000\n\
         error: ~/.docker/logwatch.yaml:3: docker.pool.min_pool_size is 9, greater than docker.pool.max_pool_size, which is 8 (default)\n",
    );
    assert_eq!(
        told("colour: red", &["--config-file", named.to_str().unwrap()], &[]),
        "error: cannot read ~/named.yaml (from --config-file): No such file or directory (os error 2)\n",
    );
    assert_eq!(
        told("", &[], &[("LOGWATCH_CONFIG_FILE", "/dev")]),
        "error: cannot read /dev (from LOGWATCH_CONFIG_FILE): is a directory\n",
    );
}

#[test]
fn a_variable_of_nobody_is_warned_of() {
    let home = tempfile::tempdir().unwrap();
    let finished = watch(home.path(), &[], &[("LOGWATCH_WATCH_SORCE", "poll")]);
    // The engine is the next thing that is missing.
    assert_eq!(finished.code, Some(3));
    let warning = " WARN ignoring LOGWATCH_WATCH_SORCE: unknown variable; did you mean LOGWATCH_WATCH_SOURCE?";
    assert_eq!(finished.stderr.lines().next(), Some(warning));
}

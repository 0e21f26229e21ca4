//! Configuration reaches the program from files, variables and options.

use super::support::{Engine, Watch};
use std::fs;

/// The route comes from the configuration file, a variable or an option, and the later of these wins.
#[test]
fn the_last_configured_route_wins() {
    let engine = Engine::start();
    engine.run("web", &[], &["--count", "1", "--idle"]);
    let (usual, other) = (engine.config_dir().join("logwatch.yaml"), engine.home().join("other.yaml"));
    fs::write(&other, "watch: {source: rotate}\n").unwrap();
    let source = |before: &[&str], args: &[&str], variables: &[(&str, &str)]| {
        let mut command = Watch::command();
        engine.configure(&mut command);
        let all = [before, &["watch", "--dry-run", "--format", "json"], args].concat();
        let plan = Watch::spawn(command.args(all).envs(variables.iter().copied())).finish();
        assert_eq!((plan.code, plan.stderr.as_str()), (Some(0), ""), "{before:?} {args:?} {variables:?}");
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
    // Docker passes on where its own configuration is.
    let folder = engine.config_dir();
    let home = engine.home().display().to_string();
    let as_plugin = |folder: &str| source(&["--config", folder, "logwatch"], &[], &[("DOCKER_CONFIG", &home)]);
    assert_eq!([as_plugin(folder.to_str().unwrap()), as_plugin("/nowhere")], ["poll", "file"]);
}

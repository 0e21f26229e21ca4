//! The configuration file and the environment: what is refused, and what is warned of.

use std::fs;
use std::path::Path;

use crate::support::{Finished, Watch};

/// `watch` with these arguments and variables, and no others.
fn watch(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Watch::command();
    let engine = [("DOCKER_HOST", "unix:///nowhere"), ("LC_ALL", "C.UTF-8")];
    command.env_clear().env("HOME", home).envs(engine).envs(variables.iter().copied()).arg("watch").args(args);
    Watch::spawn(&mut command).finish()
}

/// The errors end with exit code 2 and name the file and line, or the variable.
#[test]
fn configuration_errors_name_their_place() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".docker")).unwrap();
    let (file, named) = (home.path().join(".docker/logwatch.yaml"), home.path().join("named.yaml"));
    let reported = |text: &str, args: &[&str], variables: &[(&str, &str)]| {
        fs::write(&file, text).unwrap();
        let finished = watch(home.path(), args, variables);
        assert_eq!((finished.code, finished.lines()), (Some(2), Vec::new()), "{text:?}");
        finished.stderr.replace(&home.path().display().to_string(), "~")
    };
    assert_eq!(
        reported(
            "docker:\n  pool:\n    min_pool_size: 9\n  co\x1blour: red\n",
            &[],
            &[("LOGWATCH_EVENTS_QUEUE_SIZE", "\x1b[2J")]
        ),
        "error: ~/.docker/logwatch.yaml:4: unknown key docker.co^[lour; the keys of docker are pool, circuit_breaker, rate_limit\n\
         error: LOGWATCH_EVENTS_QUEUE_SIZE is `^[[2J`: expected a whole number from 1 to 1000000\n\
         error: ~/.docker/logwatch.yaml:3: docker.pool.min_pool_size is 9, greater than docker.pool.max_pool_size, which is 8 (default)\n",
    );
    assert_eq!(
        reported("colour: red", &["--config-file", named.to_str().unwrap()], &[]),
        "error: cannot read ~/named.yaml (from --config-file): No such file or directory (os error 2)\n",
    );
    assert_eq!(
        reported("", &[], &[("LOGWATCH_CONFIG_FILE", "/dev")]),
        "error: cannot read /dev (from LOGWATCH_CONFIG_FILE): is a directory\n",
    );
}

/// A variable that belongs to no key is warned of and ignored.
#[test]
fn an_unknown_variable_is_warned_of() {
    let home = tempfile::tempdir().unwrap();
    let finished = watch(home.path(), &[], &[("LOGWATCH_WATCH_SORCE", "poll")]);
    // Without an engine the run fails afterwards.
    assert_eq!(finished.code, Some(3));
    let warning = " WARN ignoring LOGWATCH_WATCH_SORCE: unknown variable; did you mean LOGWATCH_WATCH_SOURCE?";
    assert_eq!(finished.stderr.lines().next(), Some(warning));
}

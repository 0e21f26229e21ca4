//! Runs the built program, or docker's CLI, to its end without environment variables that would change its output.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::watchdog;

pub const BINARY: &str = env!("CARGO_BIN_EXE_docker-logwatch");

/// A command whose output does not depend on the environment of the test.
pub fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    watchdog::mark(&mut command);
    for variable in
        ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CLI_PLUGIN_SOCKET"]
    {
        command.env_remove(variable);
    }
    command
}

pub fn run(line: &str) -> Output {
    quiet(BINARY).args(line.split_whitespace()).output().unwrap()
}

/// Exit code, stdout and stderr as one text.
pub fn outcome(output: &Output) -> String {
    let text = String::from_utf8_lossy;
    let code = output.status.code().unwrap_or(-1);
    format!("exit {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

pub fn check(line: &str, expected: &str) {
    assert_eq!(outcome(&run(line)), expected, "{line}");
}

pub fn here(path: impl AsRef<Path>) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file in this repository.
pub fn text(path: &str) -> String {
    fs::read_to_string(here(path)).unwrap()
}

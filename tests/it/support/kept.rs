//! A run with `--resume -o FILE`: its positions and its file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Engine, Finished, Watch};

/// The arguments of a run that keeps its positions in `state` and appends to `file`.
fn args<'a>(state: &'a str, file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--state", state, "--resume", "--format", "json", "-o", file], more].concat()
}

pub struct Kept {
    pub state: PathBuf,
    pub file: PathBuf,
}

impl Kept {
    pub fn of(engine: &Engine) -> Self {
        Kept { state: engine.home().join("state/state.db"), file: engine.home().join("out.jsonl") }
    }

    pub fn start(&self, engine: &Engine, more: &[&str]) -> Watch {
        Watch::start(engine, &args(self.state.to_str().unwrap(), self.file.to_str().unwrap(), more))
    }

    /// Reads what exists and ends.
    #[track_caller]
    pub fn read(&self, engine: &Engine, more: &[&str]) -> Finished {
        let finished = self.start(engine, &[&["--no-follow"], more].concat()).finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished
    }

    pub fn lines(&self) -> Vec<String> {
        lines(&self.file)
    }

    /// How many complete lines its file has.
    pub fn count(&self) -> usize {
        count_lines(&self.file)
    }
}

pub fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How many complete lines a file has. It is asked again and again, so none of them is copied.
pub fn count_lines(path: &Path) -> usize {
    memchr::memchr_iter(b'\n', &fs::read(path).unwrap_or_default()).count()
}

/// The messages of a container, in the order of the records.
pub fn messages(lines: &[String], container: &str) -> Vec<String> {
    let records = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own = records.filter(|record| record["type"] == "log" && record["container_name"] == container);
    own.map(|record| record["message"].as_str().unwrap().to_owned()).collect()
}

//! Reads docker's `config.json`.
//!
//! As in docker's CLI, only the first JSON value in the file counts, and a member with the wrong type is skipped with a
//! warning (docker/cli `cli/config/configfile/file.go`: LoadFromReader).

use std::collections::BTreeMap;
use std::path::Path;

use super::{files, go_json};

/// The members of `config.json` that are used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigFile {
    pub(super) current_context: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl ConfigFile {
    /// Reads `config.json` in `directory`. Without the file, the defaults apply. A file that cannot be
    /// used is a warning.
    pub(super) fn load(directory: &Path, warnings: &mut Vec<String>) -> ConfigFile {
        let path = directory.join("config.json");
        let (config, problem) = match files::read(&path) {
            Ok(json) => ConfigFile::decode(&json),
            Err(e) if files::is_not_found(&e) => (ConfigFile::default(), None),
            Err(e) => (ConfigFile::default(), Some(e.to_string())),
        };
        if let Some(problem) = problem {
            let part = if config == ConfigFile::default() { "" } else { "invalid values in " };
            warnings.push(format!("ignoring {part}{}: {problem}", path.display()));
        }
        config
    }

    /// Decodes what is valid. Also returns the first problem.
    fn decode(json: &[u8]) -> (ConfigFile, Option<String>) {
        let mut config = ConfigFile::default();
        let value = match go_json::first(json) {
            Ok(value) if value.is_null() => return (config, None),
            Ok(value) => value,
            Err(go_json::SyntaxError::Empty) => return (config, None),
            Err(error) => return (config, Some(error.to_string())),
        };
        let Some(members) = value.members() else {
            return (config, Some("not a JSON object".to_owned()));
        };
        let mut problem = None;
        for (key, value) in members {
            let is_valid = if go_json::is_field(&key, "currentContext") {
                go_json::set_string(&mut config.current_context, value)
            } else if go_json::is_field(&key, "HttpHeaders") {
                go_json::set_strings(&mut config.headers, value)
            } else {
                true
            };
            if !is_valid {
                problem.get_or_insert(format!("{key} has the wrong type"));
            }
        }
        (config, problem)
    }
}

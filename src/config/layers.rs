//! Combines the layers of the configuration: defaults, the file, environment variables, options. Later layers win.
//!
//! The result is a [`Config`], or a list of all errors with their locations. The origin of every value is recorded, so
//! that the message about two conflicting values names the origin of both.

use super::Config;
use super::file;
use super::keys::{self, CONSTRAINTS, Constraint, KEYS, Key};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the file in docker's configuration directory.
const FILE: &str = "logwatch.yaml";
/// The variable that names another file.
const FILE_VARIABLE: &str = "LOGWATCH_CONFIG_FILE";
/// The prefix of all variables that set keys.
const PREFIX: &str = "LOGWATCH_";
/// This key follows the limits on both sides unless it is set.
const INITIAL_SIZE: &str = "docker.pool.initial_pool_size";
/// The number of characters at which a value is truncated in messages.
const MAX_SHOWN: usize = 60;

/// Where the configuration comes from, apart from options. The default is nowhere, so that tests do not
/// read the user's configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigInputs {
    /// Docker's configuration directory, which may contain [`FILE`].
    pub folder: Option<PathBuf>,
    /// All environment variables of the process.
    pub variables: Vec<(OsString, OsString)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Line(PathBuf, usize),
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// The layers read so far, combined.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    config: Config,
    /// The origins of all values that are not defaults, by the path of the key.
    origins: HashMap<&'static str, Origin>,
    /// Keys for which a value was rejected. Whatever value they have now was not intended.
    rejected: HashSet<&'static str>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Layers {
    /// Reads the file, which is named by the option, by the variable, or by default in docker's configuration
    /// directory, and then the environment.
    pub(crate) fn read(inputs: &ConfigInputs, flag: Option<&Path>) -> Layers {
        let mut layers = Layers::default();
        let named = inputs.variables.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        match (flag, named, &inputs.folder) {
            (Some(path), ..) => layers.named_file(path, "--config-file"),
            (None, Some((_, path)), _) => layers.named_file(Path::new(path), FILE_VARIABLE),
            (None, None, Some(folder)) => layers.default_file(&folder.join(FILE)),
            (None, None, None) => {}
        }
        layers.environment(&inputs.variables);
        layers
    }

    /// Applies the value of an option, which is already parsed.
    pub(crate) fn flag(&mut self, path: &'static str, name: &'static str, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.origins.insert(path, Origin::Flag(name));
    }

    /// Checks the combined configuration. Returns it with the warnings, or all errors, one per line.
    pub(crate) fn finish(mut self) -> Result<(Config, Vec<String>), String> {
        let is_initial_default = !self.origins.contains_key(INITIAL_SIZE);
        if is_initial_default {
            // Only an explicit value can conflict with the limits.
            let pool = &mut self.config.docker.pool;
            pool.initial_size = pool.initial_size.max(pool.min_size).min(pool.max_size);
        }
        let applies = |pair: &&Constraint| !is_initial_default || ![pair.lesser, pair.greater].contains(&INITIAL_SIZE);
        let violated = CONSTRAINTS.iter().filter(applies).filter(|pair| !(pair.holds)(&self.config));
        let conflicts: Vec<String> = violated.filter_map(|pair| self.conflict(pair)).collect();
        self.problems.extend(conflicts);
        if self.problems.is_empty() { Ok((self.config, self.warnings)) } else { Err(self.problems.join("\n")) }
    }

    fn named_file(&mut self, path: &Path, by: &str) {
        match file::read(path) {
            Ok(bytes) => self.file(path, &bytes),
            Err(error) => {
                self.problems.push(format!("cannot read {} (from {by}): {error}", path.display()));
            }
        }
    }

    /// Reads the file at the default location, if there is one. As docker does with its own configuration, a file that
    /// may not be read is ignored with a warning.
    fn default_file(&mut self, path: &Path) {
        match file::read(path) {
            Ok(bytes) => self.file(path, &bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.warnings.push(format!("ignoring {}: {error}", path.display()));
            }
            Err(error) => self.problems.push(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn file(&mut self, path: &Path, bytes: &[u8]) {
        let (leaves, faults) = file::leaves(bytes);
        let mut problems = Vec::new();
        for leaf in leaves {
            let origin = Origin::Line(path.to_owned(), leaf.line);
            problems.extend(self.set(leaf.key, &leaf.text, origin).map(|problem| (leaf.line, problem)));
        }
        problems.extend(
            faults.into_iter().map(|fault| (fault.line, format!("{}:{}: {}", path.display(), fault.line, fault.text))),
        );
        problems.sort_by_key(|(line, _)| *line);
        self.problems.extend(problems.into_iter().map(|(_, problem)| problem));
    }

    /// Applies the environment variables. As in docker's CLI, an empty variable counts as unset. An unknown variable
    /// with our prefix causes only a warning: it may be inherited by accident, and the log analyser `logwatch`
    /// also uses this prefix.
    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut ours: Vec<_> = variables
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value)))
            .filter(|(name, value)| name.starts_with(PREFIX) && *name != FILE_VARIABLE && !value.is_empty())
            .collect();
        ours.sort();
        for (name, value) in ours {
            let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
                self.warnings.push(unknown(name));
                continue;
            };
            let problem = match value.to_str() {
                Some(text) => self.set(key, text, Origin::Variable(name.to_owned())),
                None => Some(format!("{name} is not valid UTF-8: expected {}", key.allowed())),
            };
            self.problems.extend(problem);
        }
    }

    /// Sets a value, or returns what is wrong with it.
    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) -> Option<String> {
        if key.set(&mut self.config, text).is_some() {
            self.origins.insert(key.path, origin);
            return None;
        }
        let what = match &origin {
            Origin::Variable(_) => String::new(),
            Origin::Line(..) | Origin::Flag(_) => format!(": {}", key.path),
        };
        self.rejected.insert(key.path);
        let value = if text.is_empty() { "has no value".to_owned() } else { format!("is `{}`", shorten(text)) };
        Some(format!("{origin}{what} {value}: expected {}", key.allowed()))
    }

    /// Describes the conflict between two values; `None` if one of them was already rejected.
    fn conflict(&self, Constraint { lesser, greater, .. }: &Constraint) -> Option<String> {
        if [lesser, greater].into_iter().any(|path| self.rejected.contains(path)) {
            return None;
        }
        let origin = |path| self.origins.get(path);
        let value = |path| keys::find(path).map(|key| key.text(&self.config));
        let (first, relation, second) = match origin(lesser) {
            Some(_) => (lesser, "greater than", greater),
            None => (greater, "less than", lesser),
        };
        let (at, one, other) = (origin(first)?, value(first)?, value(second)?);
        let source = origin(second).map_or_else(|| "default".to_owned(), Origin::to_string);
        Some(format!("{at}: {first} is {one}, {relation} {second}, which is {other} ({source})"))
    }
}

fn unknown(name: &str) -> String {
    let known = KEYS.iter().map(Key::variable).chain([FILE_VARIABLE.to_owned()]);
    let likeness = |known: String| (strsim::normalized_damerau_levenshtein(name, &known), known);
    let nearest = known.map(likeness).max_by(|one, other| one.0.total_cmp(&other.0));
    let advice = match nearest {
        Some((likeness, meant)) if likeness > 0.75 => format!("; did you mean {meant}?"),
        _ => String::new(),
    };
    format!("ignoring {name}: unknown variable{advice}")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Setup {
        dir: tempfile::TempDir,
        inputs: ConfigInputs,
    }

    impl Setup {
        /// Writes `file` to docker's configuration directory.
        fn new(file: &str, variables: &[(&str, &str)]) -> Setup {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), file).unwrap();
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            Setup { inputs: ConfigInputs { folder: Some(dir.path().to_owned()), variables }, dir }
        }

        fn finish(&self, change: impl FnOnce(&mut Layers)) -> Result<(Config, Vec<String>), String> {
            let mut layers = Layers::read(&self.inputs, None);
            change(&mut layers);
            // The directory has a random name.
            let folder = format!("{}/", self.dir.path().display());
            layers.finish().map_err(|text| text.replace(&folder, ""))
        }
    }

    #[track_caller]
    fn refused(file: &str, variables: &[(&str, &str)], expected: &str) {
        assert_eq!(Setup::new(file, variables).finish(|_| {}).unwrap_err(), expected, "{file} {variables:?}");
    }

    #[test]
    fn defaults_apply_without_any_layer() {
        assert_eq!(Layers::read(&ConfigInputs::default(), None).finish(), Ok((Config::default(), Vec::new())));
        assert_eq!(Setup::new("", &[]).finish(|_| {}), Ok((Config::default(), Vec::new())));
    }

    #[test]
    fn options_override_the_environment_and_the_file() {
        let file = "watch: {poll_interval: 1s, rotate_interval: 1s, metadata_cache_ttl: 1s}\n";
        let variables = [
            ("LOGWATCH_WATCH_ROTATE_INTERVAL", "2s"),
            ("LOGWATCH_WATCH_METADATA_CACHE_TTL", "2s"),
            ("LOGWATCH_WATCH_POLL_INTERVAL", ""),
        ];
        let flags = |layers: &mut Layers| {
            layers.flag("watch.metadata_cache_ttl", "--ttl", |config| {
                config.watch.metadata_cache_ttl = Duration::from_secs(3);
            });
        };
        let (config, warnings) = Setup::new(file, &variables).finish(flags).unwrap();
        let watch = config.watch;
        let seconds = [watch.poll_interval, watch.rotate_interval, watch.metadata_cache_ttl].map(|span| span.as_secs());
        assert_eq!((seconds, warnings), ([1, 2, 3], Vec::new()));
    }

    #[test]
    fn every_key_can_be_set_by_its_variable() {
        for key in KEYS {
            let mut expected = Config::default();
            let different = ["7", "false", "7s", "7.5", "poll", "7KiB", "h:7", "/7"];
            let mut fits = |text: &&&str| key.set(&mut expected, text).is_some() && expected != Config::default();
            let text = *different.iter().find(|text| fits(text)).unwrap();
            let variable = format!("LOGWATCH_{}", key.path.to_uppercase().replace('.', "_"));
            let orders = [("LOGWATCH_DOCKER_POOL_MAX_POOL_SIZE", "7"), ("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "7s")];
            let other = orders
                .iter()
                .filter(|(name, _)| *name != variable && variable.contains("SIZE") | variable.contains("BACKOFF"));
            let variables: Vec<_> = other.copied().chain([(variable.as_str(), text)]).collect();
            let (config, warnings) = Setup::new("", &variables).finish(|_| {}).unwrap();
            assert_eq!((key.text(&config), warnings), (key.text(&expected), Vec::new()), "{}", key.path);
        }
    }

    #[test]
    fn invalid_values_are_reported_with_location_and_expectation() {
        refused(
            "docker:\n  pool:\n    max_pool_size: many\n    jitter:\n  rate_limt: {}\nevents:\n  queue_size: 0\n",
            &[("LOGWATCH_WATCH_SOURCE", "files"), ("LOGWATCH_EVENTS_ENABLED", "1")],
            "logwatch.yaml:3: docker.pool.max_pool_size is `many`: expected a whole number from 1 to 1000\n\
             logwatch.yaml:4: docker.pool.jitter has no value: expected `true` or `false`\n\
             logwatch.yaml:5: unknown key docker.rate_limt; did you mean docker.rate_limit?\n\
             logwatch.yaml:7: events.queue_size is `0`: expected a whole number from 1 to 1000000\n\
             LOGWATCH_EVENTS_ENABLED is `1`: expected `true` or `false`\n\
             LOGWATCH_WATCH_SOURCE is `files`: expected one of auto, file, stream, rotate, poll",
        );
        let long = format!("watch:\n  source: {}\n", "ü".repeat(100));
        let expected = format!(
            "logwatch.yaml:2: watch.source is `{}…`: expected one of auto, file, stream, rotate, poll",
            "ü".repeat(60)
        );
        refused(&long, &[], &expected);
    }

    #[test]
    fn conflicting_values_are_reported_with_both_origins() {
        let pool = "docker:\n  pool:\n";
        for (file, variables, expected) in [
            (
                "    min_pool_size: 10\n    max_pool_size: 5\n",
                &[][..],
                "logwatch.yaml:3: docker.pool.min_pool_size is 10, greater than docker.pool.max_pool_size, which is 5 (logwatch.yaml:4)",
            ),
            (
                "    min_pool_size: 10\n",
                &[],
                "logwatch.yaml:3: docker.pool.min_pool_size is 10, greater than docker.pool.max_pool_size, which is 8 (default)",
            ),
            (
                "    min_pool_size: 3\n",
                &[("LOGWATCH_DOCKER_POOL_MAX_POOL_SIZE", "2")],
                "logwatch.yaml:3: docker.pool.min_pool_size is 3, greater than docker.pool.max_pool_size, which is 2 (LOGWATCH_DOCKER_POOL_MAX_POOL_SIZE)",
            ),
            (
                "    initial_pool_size: 9\n",
                &[],
                "logwatch.yaml:3: docker.pool.initial_pool_size is 9, greater than docker.pool.max_pool_size, which is 8 (default)",
            ),
            (
                "    min_pool_size: 3\n    initial_pool_size: 2\n",
                &[],
                "logwatch.yaml:3: docker.pool.min_pool_size is 3, greater than docker.pool.initial_pool_size, which is 2 (logwatch.yaml:4)",
            ),
            (
                "    max_retry_delay: 50ms\n",
                &[],
                "logwatch.yaml:3: docker.pool.max_retry_delay is 50ms, less than docker.pool.initial_retry_delay, which is 100ms (default)",
            ),
            (
                "events: {backoff_min_duration: 10m}\n",
                &[("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "90s")],
                "logwatch.yaml:3: events.backoff_min_duration is 10m, greater than events.backoff_max_duration, which is 90s (LOGWATCH_EVENTS_BACKOFF_MAX_DURATION)",
            ),
        ] {
            refused(&format!("{pool}{file}"), variables, expected);
        }
        // A rejected value conflicts with nothing.
        for (sizes, problem) in [
            ("min_pool_size: 10, max_pool_size: twenty", "max_pool_size is `twenty`"),
            ("min_pool_size: 2000", "min_pool_size is `2000`"),
        ] {
            let expected = format!("logwatch.yaml:1: docker.pool.{problem}: expected a whole number from 1 to 1000");
            refused(&format!("docker: {{pool: {{{sizes}}}}}"), &[], &expected);
        }
        let flag = |layers: &mut Layers| {
            layers.flag("docker.pool.max_pool_size", "--size", |config| config.docker.pool.max_size = 1)
        };
        let error = Setup::new("", &[("LOGWATCH_DOCKER_POOL_MIN_POOL_SIZE", "2")]).finish(flag).unwrap_err();
        assert_eq!(
            error,
            "LOGWATCH_DOCKER_POOL_MIN_POOL_SIZE: docker.pool.min_pool_size is 2, greater than docker.pool.max_pool_size, which is 1 (--size)"
        );
    }

    #[test]
    fn the_default_initial_size_follows_the_limits() {
        for (pool, initial) in [("max_pool_size: 1", 1), ("min_pool_size: 4", 4), ("min_pool_size: 2", 2)] {
            let (config, _) = Setup::new(&format!("docker: {{pool: {{{pool}}}}}"), &[]).finish(|_| {}).unwrap();
            assert_eq!(config.docker.pool.initial_size, initial, "{pool}");
        }
    }

    #[test]
    fn unknown_variables_with_our_prefix_cause_warnings() {
        let variables = [
            ("LOGWATCH_EVENT_QUEUE_SIZE", "5"),
            ("LOGWATCH_DATE_RANGE", "yesterday"),
            ("LOGWATCH_CONFIG_FILE", ""),
            ("LOGWATCH_LONG", ""),
            ("LOG", "x"),
            ("HOME", "/"),
        ];
        let (config, warnings) = Setup::new("", &variables).finish(|_| {}).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(
            warnings,
            [
                "ignoring LOGWATCH_DATE_RANGE: unknown variable",
                "ignoring LOGWATCH_EVENT_QUEUE_SIZE: unknown variable; did you mean LOGWATCH_EVENTS_QUEUE_SIZE?",
            ]
        );
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_one_need_not() {
        let dir = tempfile::tempdir().unwrap();
        let (other, missing) = (dir.path().join("other.yaml"), dir.path().join("missing.yaml"));
        std::fs::write(&other, "watch: {source: poll}").unwrap();
        std::fs::write(dir.path().join(FILE), "watch: {source: stream}").unwrap();
        let source = |variable: Option<&Path>, flag: Option<&Path>| {
            let variables = variable.map(|path| (FILE_VARIABLE.into(), path.into())).into_iter().collect();
            let inputs = ConfigInputs { folder: Some(dir.path().to_owned()), variables };
            Layers::read(&inputs, flag).finish().map(|(config, _)| config.watch.source)
        };
        use crate::config::Source;
        assert_eq!(source(None, None), Ok(Source::Stream));
        assert_eq!(source(Some(&other), None), Ok(Source::Poll));
        assert_eq!(source(Some(&missing), Some(&other)), Ok(Source::Poll));
        assert_eq!(source(None, Some(Path::new("/dev/null"))), Ok(Source::Auto));
        let unreadable = |by: &str| {
            Err(format!("cannot read {} (from {by}): No such file or directory (os error 2)", missing.display()))
        };
        assert_eq!(source(Some(&missing), None), unreadable(FILE_VARIABLE));
        assert_eq!(source(Some(&other), Some(&missing)), unreadable("--config-file"));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_eq!(source(None, None), Ok(Source::Auto));
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        let error = source(None, None).unwrap_err();
        assert_eq!(error, format!("cannot read {}: is a directory", dir.path().join(FILE).display()));
    }
}

//! The layers of a configuration: defaults, then the file, then the environment, then flags; the later wins.
//!
//! In: where to look, and what the flags say. Out: a [`Config`], or everything that is wrong with it, each with its place.
//! Every value remembers where it came from, so that two that cannot both be are told with both places.

use super::Config;
use super::file;
use super::keys::{self, KEYS, Key, ORDERS, Order};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the file in docker's configuration folder.
const FILE: &str = "logwatch.yaml";
/// The variable that names another.
const FILE_VARIABLE: &str = "LOGWATCH_CONFIG_FILE";
/// What our variables begin with.
const PREFIX: &str = "LOGWATCH_";
/// What follows the bounds on either side of it unless somebody sets it.
const INITIAL: &str = "docker.pool.initial_pool_size";
/// What is shown of a value at most, in characters.
const SHOWN: usize = 60;

/// Where a configuration is looked for besides the flags. By default nowhere, so that tests need not touch the user's own.
#[derive(Clone, Debug, Default)]
pub struct ConfigInputs {
    /// Docker's configuration folder.
    pub folder: Option<PathBuf>,
    /// The environment.
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

/// See the module.
#[derive(Debug, Default)]
pub struct Layers {
    config: Config,
    origins: HashMap<&'static str, Origin>,
    /// Paths of which a value was refused: what stands there instead says nothing.
    refused: HashSet<&'static str>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Layers {
    /// Reads the file, which the flag, the variable or docker's folder names, and the environment.
    pub fn read(surroundings: &ConfigInputs, flag: Option<&Path>) -> Layers {
        let mut layers = Layers::default();
        let named = surroundings.variables.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        match (flag, named, &surroundings.folder) {
            (Some(path), ..) => layers.named_file(path, "--config-file"),
            (None, Some((_, path)), _) => layers.named_file(Path::new(path), FILE_VARIABLE),
            (None, None, Some(folder)) => layers.usual_file(&folder.join(FILE)),
            (None, None, None) => {}
        }
        layers.environment(&surroundings.variables);
        layers
    }

    /// What a flag says instead, its value being read already.
    pub fn flag(&mut self, path: &'static str, name: &'static str, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.origins.insert(path, Origin::Flag(name));
    }

    /// The whole, once all layers are there, and what could be passed over; or all that is wrong, in one text of a line for
    /// each.
    pub fn settle(mut self) -> Result<(Config, Vec<String>), String> {
        let is_initial_free = !self.origins.contains_key(INITIAL);
        if is_initial_free {
            // Nobody has asked for it to be outside.
            let pool = &mut self.config.docker.pool;
            pool.initial_size = pool.initial_size.max(pool.min_size).min(pool.max_size);
        }
        let is_meant = |order: &&Order| !is_initial_free || ![order.lesser, order.greater].contains(&INITIAL);
        let wrong = ORDERS.iter().filter(is_meant).filter(|order| !(order.holds)(&self.config));
        let wrong: Vec<String> = wrong.filter_map(|order| self.disorder(order)).collect();
        self.problems.extend(wrong);
        if self.problems.is_empty() { Ok((self.config, self.warnings)) } else { Err(self.problems.join("\n")) }
    }

    fn named_file(&mut self, path: &Path, by: &str) {
        match file::read(path) {
            Ok(bytes) => self.file(path, &bytes),
            Err(error) => {
                self.problems.push(format!("cannot read {}, which {by} names: {error}", path.display()));
            }
        }
    }

    /// As docker does with its own, one that we may not look for is as good as none, with a warning.
    fn usual_file(&mut self, path: &Path) {
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

    /// An empty variable counts as unset, as it does for docker's CLI. One that has our prefix and no meaning is only warned
    /// of: it is inherited, not written to us, and the log analyser of the same name has such variables, too.
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
                None => Some(format!("{name} is no text in UTF-8: expected {}", key.allowed())),
            };
            self.problems.extend(problem);
        }
    }

    /// Takes a value; what is wrong with it otherwise.
    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) -> Option<String> {
        if key.set(&mut self.config, text).is_some() {
            self.origins.insert(key.path, origin);
            return None;
        }
        let what = match &origin {
            Origin::Variable(_) => String::new(),
            Origin::Line(..) | Origin::Flag(_) => format!(": {}", key.path),
        };
        self.refused.insert(key.path);
        let said = if text.is_empty() { "has no value".to_owned() } else { format!("is `{}`", cut(text)) };
        Some(format!("{origin}{what} {said}: expected {}", key.allowed()))
    }

    /// Two values that cannot both be; nothing where one of them was refused already.
    fn disorder(&self, Order { lesser, greater, .. }: &Order) -> Option<String> {
        if [lesser, greater].into_iter().any(|path| self.refused.contains(path)) {
            return None;
        }
        let place = |path| self.origins.get(path);
        let value = |path| keys::find(path).map(|key| key.text(&self.config));
        let (first, relation, second) = match place(lesser) {
            Some(_) => (lesser, "above", greater),
            None => (greater, "below", lesser),
        };
        let (begin, one, other) = (place(first)?, value(first)?, value(second)?);
        let source = place(second).map_or_else(|| "by default".to_owned(), |origin| format!("by {origin}"));
        Some(format!("{begin}: {first} is {one}, {relation} {second}, which is {other} {source}"))
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
    format!("ignoring {name}: no key has this variable{advice}")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Given {
        dir: tempfile::TempDir,
        surroundings: ConfigInputs,
    }

    impl Given {
        /// With this file in docker's folder, and these variables.
        fn new(file: &str, variables: &[(&str, &str)]) -> Given {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), file).unwrap();
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            Given { surroundings: ConfigInputs { folder: Some(dir.path().to_owned()), variables }, dir }
        }

        fn settle(&self, change: impl FnOnce(&mut Layers)) -> Result<(Config, Vec<String>), String> {
            let mut layers = Layers::read(&self.surroundings, None);
            change(&mut layers);
            // The folder has another name each time.
            let folder = format!("{}/", self.dir.path().display());
            layers.settle().map_err(|text| text.replace(&folder, ""))
        }
    }

    #[track_caller]
    fn refused(file: &str, variables: &[(&str, &str)], expected: &str) {
        assert_eq!(Given::new(file, variables).settle(|_| {}).unwrap_err(), expected, "{file} {variables:?}");
    }

    #[test]
    fn without_anything_said_the_defaults_hold() {
        assert_eq!(Layers::read(&ConfigInputs::default(), None).settle(), Ok((Config::default(), Vec::new())));
        assert_eq!(Given::new("", &[]).settle(|_| {}), Ok((Config::default(), Vec::new())));
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
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
        let (config, warnings) = Given::new(file, &variables).settle(flags).unwrap();
        let watch = config.watch;
        let seconds = [watch.poll_interval, watch.rotate_interval, watch.metadata_cache_ttl].map(|span| span.as_secs());
        assert_eq!((seconds, warnings), ([1, 2, 3], Vec::new()));
    }

    #[test]
    fn every_key_is_taken_from_its_variable() {
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
            let (config, warnings) = Given::new("", &variables).settle(|_| {}).unwrap();
            assert_eq!((key.text(&config), warnings), (key.text(&expected), Vec::new()), "{}", key.path);
        }
    }

    #[test]
    fn a_bad_value_is_told_with_its_place_and_what_is_allowed() {
        refused(
            "docker:\n  pool:\n    max_pool_size: many\n    jitter:\n  rate_limt: {}\nevents:\n  queue_size: 0\n",
            &[("LOGWATCH_WATCH_SOURCE", "files"), ("LOGWATCH_EVENTS_ENABLED", "1")],
            "logwatch.yaml:3: docker.pool.max_pool_size is `many`: expected a whole number from 1 to 1000\n\
             logwatch.yaml:4: docker.pool.jitter has no value: expected `true` or `false`\n\
             logwatch.yaml:5: there is no key docker.rate_limt; did you mean docker.rate_limit?\n\
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
    fn a_pair_that_cannot_be_is_told_with_both_places() {
        let pool = "docker:\n  pool:\n";
        for (file, variables, expected) in [
            (
                "    min_pool_size: 10\n    max_pool_size: 5\n",
                &[][..],
                "logwatch.yaml:3: docker.pool.min_pool_size is 10, above docker.pool.max_pool_size, which is 5 by logwatch.yaml:4",
            ),
            (
                "    min_pool_size: 10\n",
                &[],
                "logwatch.yaml:3: docker.pool.min_pool_size is 10, above docker.pool.max_pool_size, which is 8 by default",
            ),
            (
                "    min_pool_size: 3\n",
                &[("LOGWATCH_DOCKER_POOL_MAX_POOL_SIZE", "2")],
                "logwatch.yaml:3: docker.pool.min_pool_size is 3, above docker.pool.max_pool_size, which is 2 by LOGWATCH_DOCKER_POOL_MAX_POOL_SIZE",
            ),
            (
                "    initial_pool_size: 9\n",
                &[],
                "logwatch.yaml:3: docker.pool.initial_pool_size is 9, above docker.pool.max_pool_size, which is 8 by default",
            ),
            (
                "    min_pool_size: 3\n    initial_pool_size: 2\n",
                &[],
                "logwatch.yaml:3: docker.pool.min_pool_size is 3, above docker.pool.initial_pool_size, which is 2 by logwatch.yaml:4",
            ),
            (
                "    max_retry_delay: 50ms\n",
                &[],
                "logwatch.yaml:3: docker.pool.max_retry_delay is 50ms, below docker.pool.initial_retry_delay, which is 100ms by default",
            ),
            (
                "events: {backoff_min_duration: 10m}\n",
                &[("LOGWATCH_EVENTS_BACKOFF_MAX_DURATION", "90s")],
                "logwatch.yaml:3: events.backoff_min_duration is 10m, above events.backoff_max_duration, which is 90s by LOGWATCH_EVENTS_BACKOFF_MAX_DURATION",
            ),
        ] {
            refused(&format!("{pool}{file}"), variables, expected);
        }
        // Of which one was refused: what it would have been nobody knows.
        for (sizes, told) in [
            ("min_pool_size: 10, max_pool_size: twenty", "max_pool_size is `twenty`"),
            ("min_pool_size: 2000", "min_pool_size is `2000`"),
        ] {
            let expected = format!("logwatch.yaml:1: docker.pool.{told}: expected a whole number from 1 to 1000");
            refused(&format!("docker: {{pool: {{{sizes}}}}}"), &[], &expected);
        }
        let tell = |layers: &mut Layers| {
            layers.flag("docker.pool.max_pool_size", "--size", |config| config.docker.pool.max_size = 1)
        };
        let told = Given::new("", &[("LOGWATCH_DOCKER_POOL_MIN_POOL_SIZE", "2")]).settle(tell).unwrap_err();
        assert_eq!(
            told,
            "LOGWATCH_DOCKER_POOL_MIN_POOL_SIZE: docker.pool.min_pool_size is 2, above docker.pool.max_pool_size, which is 1 by --size"
        );
    }

    #[test]
    fn where_nobody_said_how_many_clients_to_begin_with_the_bounds_do() {
        for (pool, initial) in [("max_pool_size: 1", 1), ("min_pool_size: 4", 4), ("min_pool_size: 2", 2)] {
            let (config, _) = Given::new(&format!("docker: {{pool: {{{pool}}}}}"), &[]).settle(|_| {}).unwrap();
            assert_eq!(config.docker.pool.initial_size, initial, "{pool}");
        }
    }

    #[test]
    fn a_variable_without_a_meaning_is_warned_of_and_ours_are_not() {
        let variables = [
            ("LOGWATCH_EVENT_QUEUE_SIZE", "5"),
            ("LOGWATCH_DATE_RANGE", "yesterday"),
            ("LOGWATCH_CONFIG_FILE", ""),
            ("LOGWATCH_LONG", ""),
            ("LOG", "x"),
            ("HOME", "/"),
        ];
        let (config, warnings) = Given::new("", &variables).settle(|_| {}).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(
            warnings,
            [
                "ignoring LOGWATCH_DATE_RANGE: no key has this variable",
                "ignoring LOGWATCH_EVENT_QUEUE_SIZE: no key has this variable; did you mean LOGWATCH_EVENTS_QUEUE_SIZE?",
            ]
        );
    }

    #[test]
    fn a_named_file_must_be_there_and_the_usual_one_need_not_be() {
        let dir = tempfile::tempdir().unwrap();
        let (other, missing) = (dir.path().join("other.yaml"), dir.path().join("missing.yaml"));
        std::fs::write(&other, "watch: {source: poll}").unwrap();
        std::fs::write(dir.path().join(FILE), "watch: {source: stream}").unwrap();
        let source = |variable: Option<&Path>, flag: Option<&Path>| {
            let variables = variable.map(|path| (FILE_VARIABLE.into(), path.into())).into_iter().collect();
            let surroundings = ConfigInputs { folder: Some(dir.path().to_owned()), variables };
            Layers::read(&surroundings, flag).settle().map(|(config, _)| config.watch.source)
        };
        use crate::config::Source;
        assert_eq!(source(None, None), Ok(Source::Stream));
        assert_eq!(source(Some(&other), None), Ok(Source::Poll));
        assert_eq!(source(Some(&missing), Some(&other)), Ok(Source::Poll));
        assert_eq!(source(None, Some(Path::new("/dev/null"))), Ok(Source::Auto));
        let told = |by: &str| {
            Err(format!("cannot read {}, which {by} names: No such file or directory (os error 2)", missing.display()))
        };
        assert_eq!(source(Some(&missing), None), told(FILE_VARIABLE));
        assert_eq!(source(Some(&other), Some(&missing)), told("--config-file"));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_eq!(source(None, None), Ok(Source::Auto));
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        let told = source(None, None).unwrap_err();
        assert_eq!(told, format!("cannot read {}: is a directory", dir.path().join(FILE).display()));
    }
}

//! Parses the configuration file.
//!
//! Returns the values with their line numbers, and all errors with theirs. The file is YAML without the features that a
//! file of keys and single values does not need: lists, anchors, tags, and further documents.

use super::keys::{self, Key};
use crate::model::bounded_read;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// The maximum size of a configuration file in bytes.
const MAX_SIZE: usize = 256 * 1024;

/// A value in the file. Null and missing values are empty.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) key: &'static Key,
    pub(super) text: String,
    /// The line number, counted from 1.
    pub(super) line: usize,
}

/// An error and its line number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Reads the file, up to [`MAX_SIZE`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    bounded_read::read_small(path, MAX_SIZE)
}

/// Parses the bytes of a file into values and errors.
pub(super) fn leaves(bytes: &[u8]) -> (Vec<Leaf>, Vec<Fault>) {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            return (Vec::new(), vec![Fault { line, text: "not valid UTF-8".to_owned() }]);
        }
    };
    let mut walk = Walk { parser: Parser::new_from_str(text), leaves: Vec::new(), faults: Vec::new() };
    if let Err(fault) = walk.file() {
        walk.faults.push(fault);
    }
    (walk.leaves, walk.faults)
}

struct Walk<'a> {
    parser: Parser<'a, StrInput<'a>>,
    leaves: Vec<Leaf>,
    faults: Vec<Fault>,
}

/// A parser event and its line number.
type LocatedEvent<'a> = (Event<'a>, usize);

impl<'a> Walk<'a> {
    /// Returns the next event. Syntax errors and unsupported features end the parsing.
    fn next(&mut self) -> Result<LocatedEvent<'a>, Fault> {
        let (event, Span { start, .. }) = match self.parser.next_event() {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                return Err(fault(error.marker().line(), format!("invalid YAML: {}", error.info())));
            }
            None => (Event::StreamEnd, Span::default()),
        };
        let line = start.line();
        let (anchor, tag) = match &event {
            Event::Alias(anchor) => (*anchor, &None),
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag)
            }
            _ => (0, &None),
        };
        if anchor != 0 || tag.is_some() {
            return Err(fault(line, "YAML anchors, aliases and tags are not supported: write the value itself"));
        }
        Ok((event, line))
    }

    fn file(&mut self) -> Result<(), Fault> {
        let mut has_document = false;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), line) if has_document => {
                    return Err(fault(line, "a second YAML document starts here; only one is allowed"));
                }
                (Event::DocumentStart(_), _) => has_document = true,
                (Event::MappingStart(..), _) => self.group("")?,
                (Event::Scalar(text, style, ..), _) if is_null(&text, style) => {}
                (Event::Scalar(..) | Event::SequenceStart(..), line) => {
                    return Err(fault(line, format!("expected keys: {}", list(keys::members("")))));
                }
                _ => {}
            }
        }
    }

    /// Parses the members of a group up to its end.
    fn group(&mut self, group: &str) -> Result<(), Fault> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            let (name, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(()),
                (Event::Scalar(name, ..), line) => (name.into_owned(), line),
                (_, line) => return Err(fault(line, "a key must be a single word")),
            };
            let (is_path, shown) = (name.is_empty() || name.contains('.'), name.clone());
            let path = if group.is_empty() { name.clone() } else { format!("{group}.{name}") };
            let value = self.next()?;
            if let Some(first) = seen.insert(name, line) {
                self.faults.push(fault(line, format!("duplicate key {path}, already set on line {first}")));
                self.skip(value)?;
            } else if is_path {
                // A dotted path could set the same key as nested keys do without being noticed as a duplicate.
                let text = format!("`{shown}` is not a single word: write a path as nested keys");
                self.faults.push(fault(line, text));
                self.skip(value)?;
            } else if let Some(key) = keys::find(&path) {
                self.value(key, value)?;
            } else if keys::is_group(&path) {
                self.members(&path, value)?;
            } else {
                self.faults.push(fault(line, unknown(group, &path)));
                self.skip(value)?;
            }
        }
    }

    fn members(&mut self, group: &str, (event, line): LocatedEvent<'a>) -> Result<(), Fault> {
        match event {
            Event::MappingStart(..) => self.group(group),
            // All members are commented out.
            Event::Scalar(text, style, ..) if is_null(&text, style) => Ok(()),
            event => {
                let expected = format!("{group} is a group, not a value; its keys are {}", list(keys::members(group)));
                // If the value is not valid YAML, that is the only error to report.
                self.skip((event, line))?;
                self.faults.push(fault(line, expected));
                Ok(())
            }
        }
    }

    fn value(&mut self, key: &'static Key, (event, line): LocatedEvent<'a>) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, ..) => {
                let text = if is_null(&text, style) { String::new() } else { text.into_owned() };
                self.leaves.push(Leaf { key, text, line });
                Ok(())
            }
            event => {
                let what = if matches!(event, Event::SequenceStart(..)) { "a list" } else { "a group of keys" };
                let text = format!("{} is {what}: expected {}", key.path, key.allowed());
                self.skip((event, line))?;
                self.faults.push(fault(line, text));
                Ok(())
            }
        }
    }

    /// Skips a value with everything in it.
    fn skip(&mut self, (mut event, _): LocatedEvent<'a>) -> Result<(), Fault> {
        let mut depth = 0_usize;
        loop {
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
            (event, _) = self.next()?;
        }
    }
}

fn fault(line: usize, text: impl Into<String>) -> Fault {
    Fault { line, text: text.into() }
}

/// Whether a scalar is null (YAML 1.2.2, 10.2.1.1).
fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn unknown(group: &str, path: &str) -> String {
    let advice = match keys::nearest(path) {
        Some(meant) => format!("did you mean {meant}?"),
        None if group.is_empty() => format!("the top-level keys are {}", list(keys::members(group))),
        None => format!("the keys of {group} are {}", list(keys::members(group))),
    };
    format!("unknown key {path}; {advice}")
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders values as `PATH=TEXT@LINE` and errors as `LINE: TEXT`, one per line.
    fn parsed(text: &[u8]) -> String {
        let (leaves, faults) = leaves(text);
        let leaves = leaves.iter().map(|leaf| format!("{}={}@{}", leaf.key.path, leaf.text, leaf.line));
        let faults = faults.iter().map(|fault| format!("{}: {}", fault.line, fault.text));
        leaves.chain(faults).collect::<Vec<_>>().join("\n")
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(parsed(text.as_bytes()), expected, "{text:?}");
    }

    #[test]
    fn values_have_path_and_line_in_every_yaml_style() {
        let expected = "watch.source=poll@2\nwatch.poll_interval=5s@3\nmetrics.listen=[::1]:8519@5";
        check("watch:\n  source: poll\n  poll_interval: 5s\nmetrics:\n  listen: \"[::1]:8519\"\n", expected);
        check(
            "---\nwatch: {source: 'poll',\n  poll_interval: 5s} # why\n\nmetrics: {listen: '[::1]:8519'}\n...\n",
            expected,
        );
        check("watch:\r\n  source: poll\r\n  poll_interval: 5s\r\nmetrics:\r\n  listen: '[::1]:8519'\r\n", expected);
        check("\u{feff}watch:\n  source: poll", "watch.source=poll@2");
        check("{\"watch\": {\"source\": \"poll\"}}", "watch.source=poll@1");
        check("events:\n  queue_size: 5\n  enabled: false", "events.queue_size=5@2\nevents.enabled=false@3");
    }

    #[test]
    fn empty_files_and_groups_set_nothing() {
        for text in [
            "",
            "\n",
            "# all of it is\n# commented out\n",
            "---\n",
            "~",
            "null\n",
            "{}",
            "\u{feff}",
            "watch:\ndocker: ~\n",
        ] {
            check(text, "");
        }
        check("docker:\n  pool:\n    # jitter: true\nwatch:\n  source:\n", "watch.source=@5");
        check("state:\n  path: ~\n", "state.path=@2");
        check("state:\n  path: '~'\n", "state.path=~@2");
    }

    #[test]
    fn unknown_keys_are_reported_with_a_suggestion() {
        check(
            "watch:\n  sorce: [a, {b: c}]\n  source: poll\ncolour: {red: {a: b}}\nevents:\n  xyz: 5\n",
            "watch.source=poll@3\n\
             2: unknown key watch.sorce; did you mean watch.source?\n\
             4: unknown key colour; the top-level keys are docker, events, watch, metrics, state\n\
             6: unknown key events.xyz; the keys of events are enabled, queue_size, backoff_min_duration, backoff_max_duration, reconcile_interval",
        );
        check("<<: {a: b}\n", "1: unknown key <<; the top-level keys are docker, events, watch, metrics, state");
    }

    #[test]
    fn duplicate_keys_are_reported() {
        check(
            "watch:\n  source: poll\n  source: file\nwatch:\n  source: auto\n",
            "watch.source=poll@2\n\
             3: duplicate key watch.source, already set on line 2\n\
             4: duplicate key watch, already set on line 1",
        );
    }

    #[test]
    fn dotted_and_empty_keys_are_rejected() {
        let advice = "is not a single word: write a path as nested keys";
        check(
            "watch.source: poll\nwatch:\n  source: file\n\"\":\n  watch: {source: auto}\n",
            &format!("watch.source=file@3\n1: `watch.source` {advice}\n4: `` {advice}"),
        );
        check("docker:\n  pool.jitter: true\n", &format!("2: `pool.jitter` {advice}"));
    }

    #[test]
    fn groups_and_values_cannot_replace_each_other() {
        check("docker: 5\n", "1: docker is a group, not a value; its keys are pool, circuit_breaker, rate_limit");
        check(
            "docker:\n  - pool\n",
            "2: docker is a group, not a value; its keys are pool, circuit_breaker, rate_limit",
        );
        check(
            "events:\n  enabled:\n    really: true\n  queue_size: [1, 2]\n",
            "3: events.enabled is a group of keys: expected `true` or `false`\n\
             4: events.queue_size is a list: expected a whole number from 1 to 1000000",
        );
    }

    #[test]
    fn files_that_contain_no_keys_are_rejected() {
        let none = "expected keys: docker, events, watch, metrics, state";
        check("- a\n- b\n", &format!("1: {none}"));
        check("\n\nwatch\n", &format!("3: {none}"));
        check("[[[\n", &format!("1: {none}"));
        assert!(parsed("[".repeat(200_000).as_bytes()).starts_with("1: invalid YAML: "));
        check(
            "watch:\n  source: poll\n---\nwatch: ~\n",
            "watch.source=poll@2\n3: a second YAML document starts here; only one is allowed",
        );
        let unsupported = "YAML anchors, aliases and tags are not supported: write the value itself";
        check("watch: &w\n  source: poll\nevents: *w\n", &format!("1: {unsupported}"));
        check("events:\n  queue_size: !!int 5\n", &format!("2: {unsupported}"));
        check("? [a, b]\n: c\n", "1: a key must be a single word");
        for text in ["watch: [\n", "watch:\n  source: [a\n"] {
            let found = parsed(text.as_bytes());
            assert!(found.contains(": invalid YAML: ") && found.lines().count() == 1, "{found}");
        }
        assert!(
            parsed(b"watch:\n\tsource: poll\n").starts_with("2: invalid YAML: "),
            "{}",
            parsed(b"watch:\n\tsource: poll\n")
        );
        assert!(parsed(b"watch:\n  source: \"poll\n").contains(": invalid YAML: "));
        assert!(parsed(b"watch:\n  source: poll\n enabled: x\n").contains("3: invalid YAML: "));
        assert_eq!(parsed(b"watch:\n  source: \xff\n"), "2: not valid UTF-8");
        assert_eq!(parsed(b"\xff\xfew\0a\0"), "1: not valid UTF-8");
    }

    #[test]
    fn the_example_contains_every_key_with_its_default() {
        let text = include_bytes!("../../contrib/logwatch.yaml");
        let (leaves, faults) = leaves(text);
        assert_eq!(faults, []);
        let default = crate::config::Config::default();
        let paths = |leaves: &[Leaf]| leaves.iter().map(|leaf| leaf.key.path).collect::<Vec<_>>();
        assert_eq!(paths(&leaves), keys::KEYS.iter().map(|key| key.path).collect::<Vec<_>>());
        for leaf in leaves {
            let mut config = default.clone();
            assert_eq!(leaf.key.set(&mut config, &leaf.text), Some(()), "{}", leaf.key.path);
            assert_eq!(leaf.key.text(&config), leaf.key.text(&default), "{}", leaf.key.path);
        }
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("large"), vec![b'#'; 300 * 1024]).unwrap();
        std::fs::write(at("small"), "watch:").unwrap();
        std::os::unix::fs::symlink(at("small"), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let contents = |path: &Path| match read(path) {
            Ok(bytes) => String::from_utf8(bytes).unwrap(),
            Err(error) => error.to_string(),
        };
        for (path, expected) in [
            (at("small"), "watch:"),
            (at("link"), "watch:"),
            (at("large"), "larger than 262144 bytes"),
            (at("fifo"), "not a regular file"),
            (at("none"), "No such file or directory (os error 2)"),
            (dir.path().to_owned(), "is a directory"),
            ("/dev/null".into(), ""),
            ("/dev/zero".into(), "not a regular file"),
        ] {
            assert_eq!(contents(&path), expected, "{}", path.display());
        }
    }
}

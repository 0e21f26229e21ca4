//! The configuration file.
//!
//! In: a path. Out: the values in it, each with its line, or what is wrong, with the line where that stands. YAML, but for
//! what a file of keys and single values has no use for: lists, anchors, tags, a second document.

use super::keys::{self, Key};
use crate::model::small_file;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// Bytes beyond which it is no configuration.
const LIMIT: usize = 256 * 1024;

/// A value in the file.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) key: &'static Key,
    pub(super) text: String,
    /// From one on.
    pub(super) line: usize,
}

/// What is wrong in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) text: String,
}

/// The bytes of the file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    small_file::read_small(path, LIMIT)
}

/// The values in a file, and all that is wrong with it.
pub(super) fn leaves(bytes: &[u8]) -> (Vec<Leaf>, Vec<Fault>) {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            return (Vec::new(), vec![Fault { line, text: "this is no text in UTF-8".to_owned() }]);
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

/// With its line.
type Happening<'a> = (Event<'a>, usize);

impl<'a> Walk<'a> {
    /// The next event. What has no place anywhere in the file ends the reading.
    fn next(&mut self) -> Result<Happening<'a>, Fault> {
        let (event, Span { start, .. }) = match self.parser.next_event() {
            Some(Ok(happening)) => happening,
            Some(Err(error)) => {
                return Err(fault(error.marker().line(), format!("this is no YAML: {}", error.info())));
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
            return Err(fault(line, "anchors, aliases and tags of YAML have no meaning here: write the value"));
        }
        Ok((event, line))
    }

    fn file(&mut self) -> Result<(), Fault> {
        let mut has_document = false;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), line) if has_document => {
                    return Err(fault(line, "a second document begins here: there can be only one"));
                }
                (Event::DocumentStart(_), _) => has_document = true,
                (Event::MappingStart(..), _) => self.group("")?,
                (Event::Scalar(text, style, ..), _) if is_nothing(&text, style) => {}
                (Event::Scalar(..) | Event::SequenceStart(..), line) => {
                    return Err(fault(line, format!("expected keys: {}", list(keys::members("")))));
                }
                _ => {}
            }
        }
    }

    /// What stands in a group, up to its end.
    fn group(&mut self, group: &str) -> Result<(), Fault> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            let (word, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(()),
                (Event::Scalar(word, ..), line) => (word.into_owned(), line),
                (_, line) => return Err(fault(line, "a key is a single word")),
            };
            let (is_path, shown) = (word.is_empty() || word.contains('.'), word.clone());
            let path = if group.is_empty() { word.clone() } else { format!("{group}.{word}") };
            let value = self.next()?;
            if let Some(first) = seen.insert(word, line) {
                self.faults.push(fault(line, format!("{path} stands here a second time, after line {first}")));
                self.skip(value)?;
            } else if is_path {
                // Its parts may stand elsewhere once more, and nobody would be told.
                let text = format!("a key is a single word, which `{shown}` is not: write it as nested keys");
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

    fn members(&mut self, group: &str, (event, line): Happening<'a>) -> Result<(), Fault> {
        match event {
            Event::MappingStart(..) => self.group(group),
            // All that stood in it is commented out.
            Event::Scalar(text, style, ..) if is_nothing(&text, style) => Ok(()),
            event => {
                let expected = format!("{group} is no value but has keys of its own: {}", list(keys::members(group)));
                // What is no YAML from here on says nothing of what was meant here.
                self.skip((event, line))?;
                self.faults.push(fault(line, expected));
                Ok(())
            }
        }
    }

    fn value(&mut self, key: &'static Key, (event, line): Happening<'a>) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, ..) => {
                let text = if is_nothing(&text, style) { String::new() } else { text.into_owned() };
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

    /// Passes over a value, whatever is in it.
    fn skip(&mut self, (mut event, _): Happening<'a>) -> Result<(), Fault> {
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

/// The words for nothing (YAML 1.2.2, 10.2.1.1), or no word.
fn is_nothing(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn unknown(group: &str, path: &str) -> String {
    let advice = match keys::nearest(path) {
        Some(meant) => format!("did you mean {meant}?"),
        None if group.is_empty() => format!("there are {}", list(keys::members(group))),
        None => format!("{group} has {}", list(keys::members(group))),
    };
    format!("there is no key {path}; {advice}")
}

fn list(words: impl Iterator<Item = &'static str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values as `PATH=TEXT@LINE`, and what is wrong as `LINE: TEXT`, a line each.
    fn told(text: &[u8]) -> String {
        let (leaves, faults) = leaves(text);
        let leaves = leaves.iter().map(|leaf| format!("{}={}@{}", leaf.key.path, leaf.text, leaf.line));
        let faults = faults.iter().map(|fault| format!("{}: {}", fault.line, fault.text));
        leaves.chain(faults).collect::<Vec<_>>().join("\n")
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(told(text.as_bytes()), expected, "{text:?}");
    }

    #[test]
    fn values_come_with_their_path_and_line_in_every_form_of_yaml() {
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
    fn nothing_is_nothing() {
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
    fn a_key_that_is_none_is_told_with_the_one_that_was_meant_and_the_rest_is_read_on() {
        check(
            "watch:\n  sorce: [a, {b: c}]\n  source: poll\ncolour: {red: {a: b}}\nevents:\n  xyz: 5\n",
            "watch.source=poll@3\n\
             2: there is no key watch.sorce; did you mean watch.source?\n\
             4: there is no key colour; there are docker, events, watch, metrics, state\n\
             6: there is no key events.xyz; events has enabled, queue_size, backoff_min_duration, backoff_max_duration, reconcile_interval",
        );
        check("<<: {a: b}\n", "1: there is no key <<; there are docker, events, watch, metrics, state");
    }

    #[test]
    fn a_key_stands_once() {
        check(
            "watch:\n  source: poll\n  source: file\nwatch:\n  source: auto\n",
            "watch.source=poll@2\n\
             3: watch.source stands here a second time, after line 2\n\
             4: watch stands here a second time, after line 1",
        );
    }

    #[test]
    fn a_path_is_no_key_and_neither_is_nothing() {
        let told = "is not: write it as nested keys";
        check(
            "watch.source: poll\nwatch:\n  source: file\n\"\":\n  watch: {source: auto}\n",
            &format!(
                "watch.source=file@3\n1: a key is a single word, which `watch.source` {told}\n\
                 4: a key is a single word, which `` {told}"
            ),
        );
        check("docker:\n  pool.jitter: true\n", &format!("2: a key is a single word, which `pool.jitter` {told}"));
    }

    #[test]
    fn a_value_where_keys_belong_and_keys_where_a_value_belongs_are_told() {
        check("docker: 5\n", "1: docker is no value but has keys of its own: pool, circuit_breaker, rate_limit");
        check(
            "docker:\n  - pool\n",
            "2: docker is no value but has keys of its own: pool, circuit_breaker, rate_limit",
        );
        check(
            "events:\n  enabled:\n    really: true\n  queue_size: [1, 2]\n",
            "3: events.enabled is a group of keys: expected `true` or `false`\n\
             4: events.queue_size is a list: expected a whole number from 1 to 1000000",
        );
    }

    #[test]
    fn what_is_no_file_of_keys_is_told_with_its_line() {
        let none = "expected keys: docker, events, watch, metrics, state";
        check("- a\n- b\n", &format!("1: {none}"));
        check("\n\nwatch\n", &format!("3: {none}"));
        check("[[[\n", &format!("1: {none}"));
        assert!(told("[".repeat(200_000).as_bytes()).starts_with("1: this is no YAML: "));
        check(
            "watch:\n  source: poll\n---\nwatch: ~\n",
            "watch.source=poll@2\n3: a second document begins here: there can be only one",
        );
        let no_meaning = "anchors, aliases and tags of YAML have no meaning here: write the value";
        check("watch: &w\n  source: poll\nevents: *w\n", &format!("1: {no_meaning}"));
        check("events:\n  queue_size: !!int 5\n", &format!("2: {no_meaning}"));
        check("? [a, b]\n: c\n", "1: a key is a single word");
        for text in ["watch: [\n", "watch:\n  source: [a\n"] {
            let told = told(text.as_bytes());
            assert!(told.contains(": this is no YAML: ") && told.lines().count() == 1, "{told}");
        }
        assert!(
            told(b"watch:\n\tsource: poll\n").starts_with("2: this is no YAML: "),
            "{}",
            told(b"watch:\n\tsource: poll\n")
        );
        assert!(told(b"watch:\n  source: \"poll\n").contains(": this is no YAML: "));
        assert!(told(b"watch:\n  source: poll\n enabled: x\n").contains("3: this is no YAML: "));
        assert_eq!(told(b"watch:\n  source: \xff\n"), "2: this is no text in UTF-8");
        assert_eq!(told(b"\xff\xfew\0a\0"), "1: this is no text in UTF-8");
    }

    #[test]
    fn the_example_holds_every_key_with_its_default() {
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
    fn only_a_file_of_reasonable_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("large"), vec![b'#'; 300 * 1024]).unwrap();
        std::fs::write(at("small"), "watch:").unwrap();
        std::os::unix::fs::symlink(at("small"), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let told = |path: &Path| match read(path) {
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
            assert_eq!(told(&path), expected, "{}", path.display());
        }
    }
}

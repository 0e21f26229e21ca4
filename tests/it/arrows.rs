//! The arrows between the rooms of `src/` point one way.
//!
//! `main -> cli -> commands -> { docker, tail, state, output, serve } -> shelf`: a room names only what stands to the
//! right of it, and the five between commands and shelf never name each other. In: the text of each file. Out: each arrow that is not
//! drawn here, with its place.

use std::fs;
use std::path::Path;

/// The shelf is every file that lies directly in `src/`, and these folders.
const SHELF: [&str; 3] = ["config", "metrics", "model"];

/// What a room may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli", "shelf"]),
    ("cli", &["cli", "commands", "docker", "state", "output", "shelf"]),
    ("commands", &["commands", "docker", "tail", "state", "output", "serve", "shelf"]),
    ("docker", &["docker", "shelf"]),
    ("tail", &["tail", "shelf"]),
    ("state", &["state", "shelf"]),
    ("output", &["output", "shelf"]),
    ("serve", &["serve", "shelf"]),
    ("shelf", &["shelf"]),
];

/// What only one room does, since the others would have to agree on it.
const OWNERS: &[(&str, &[&str])] = &[
    ("bollard", &["docker"]),
    ("rusqlite", &["state"]),
    ("stdout()", &["output", "cli"]),
    ("println!", &["output", "cli"]),
    ("print!", &["output", "cli"]),
];

#[test]
fn no_arrow_points_up_or_sideways() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 5, "found only {files:?}");
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let wrong = wrong_arrows(&files);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else if name.ends_with(".rs") {
            files.push((name, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// `lib.rs` is the map and names every room.
fn wrong_arrows(files: &[(&str, &str)]) -> Vec<String> {
    let rooms: Vec<&str> =
        ARROWS.iter().map(|(room, _)| *room).filter(|room| *room != "main" && *room != "shelf").collect();
    let on_shelf = files.iter().filter_map(|(path, _)| path.strip_suffix(".rs")).filter(|name| !name.contains('/'));
    let shelf: Vec<&str> = on_shelf.chain(SHELF).collect();
    let mut wrong = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| *path != "lib.rs") {
        let room = match path.split_once('/') {
            Some((folder, _)) if SHELF.contains(&folder) => "shelf",
            Some((folder, _)) => folder,
            None if *path == "main.rs" => "main",
            None => "shelf",
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("src/{path}: {room:?} is no room of the design"));
            continue;
        };
        for (line, code) in code_lines(text) {
            for named in named_modules(&code) {
                let target = if rooms.contains(&named.as_str()) {
                    named.as_str()
                } else if shelf.contains(&named.as_str()) {
                    "shelf"
                } else {
                    continue;
                };
                if !allowed.contains(&target) {
                    wrong.push(format!("src/{path}:{line}: {room} must not name {target}: {}", code.trim()));
                }
            }
            for (word, owners) in OWNERS {
                if !owners.contains(&room) && has_word(&code, word) {
                    wrong.push(format!(
                        "src/{path}:{line}: only {} may use {word}: {}",
                        owners.join(" and "),
                        code.trim()
                    ));
                }
            }
        }
    }
    wrong
}

/// The statements of a file with the number of their first line: a `use` over several lines is one statement, and
/// comments, string literals and what follows `#[cfg(test)]` are no arrows.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let code = without_comment_and_strings(line);
        match statements.last_mut().filter(|_| open) {
            Some((_, statement)) => statement.push_str(code.trim()),
            None => statements.push((index + 1, code.clone())),
        }
        let begins = code.trim_start();
        let begins_use = begins.starts_with("use ") || (begins.starts_with("pub") && begins.contains(" use "));
        open = (open || begins_use) && !code.contains(';');
    }
    statements
}

fn without_comment_and_strings(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            // A quote as a character is no string.
            '\'' if !in_string && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if !in_string => code.push(c),
            _ => {}
        }
    }
    code
}

/// The modules right below the crate that a statement names: `crate::a::B`, `crate::{a, b::C}`, `logwatch::a`, and
/// `super::super::a`, which is the same from a room's file.
fn named_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for root in ["crate::", "logwatch::", "super::super::"] {
        for (at, _) in code.match_indices(root) {
            let boundary = code[..at].chars().next_back();
            if boundary.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => modules.extend(group_heads(group)),
                None => modules.extend(head(rest)),
            }
        }
    }
    modules
}

/// The first words of a group's entries at its own depth.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut entry_begins = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entry_begins = true,
            c if depth == 0 && entry_begins && !c.is_whitespace() => {
                heads.extend(head(&group[at..]));
                entry_begins = false;
            }
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let word: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part)
    })
}

#[test]
fn every_kind_of_wrong_arrow_is_found() {
    let files = [
        ("lib.rs", "pub mod tail; pub mod docker;"),
        ("time.rs", "use crate::tail::Tail;"),
        ("batch.rs", "use crate::time;\n/// See [`crate::commands`].\nfn f() -> &'static str { \"crate::commands\" }"),
        ("main.rs", "fn main() { logwatch::commands::run(); logwatch::cli::run() }"),
        (
            "tail/mod.rs",
            "use std::fs;\nuse crate::{\n    batch::Batch,\n    docker::{Client, events},\n};\nuse crate::tail::file;",
        ),
        ("tail/file.rs", "fn f() { super::super::state::open(); let (a, b) = ('\"', crate::output::B); }"),
        ("state/mod.rs", "use bollard::Docker;\nfn f() { println!(\"x\"); my_bollard(); }"),
        ("docker/mod.rs", "use bollard::Docker;\n#[cfg(test)]\nmod tests { use crate::commands; }"),
        ("output/mod.rs", "fn f() { std::io::stdout(); }"),
        ("docker/ssh.rs", "fn f() { child.stdout.take(); command.stdout(Stdio::piped()); io::stdout(); }"),
        ("cli/mod.rs", "pub(crate) use crate::tail::Reader;"),
        ("config/mod.rs", "use crate::metrics::Logs;\nuse crate::docker::Client;"),
        ("util/mod.rs", ""),
    ];
    let expected = "\
src/time.rs:1: shelf must not name tail: use crate::tail::Tail;
src/main.rs:1: main must not name commands: fn main() { logwatch::commands::run(); logwatch::cli::run() }
src/tail/mod.rs:2: tail must not name docker: use crate::{batch::Batch,docker::{Client, events},};
src/tail/file.rs:1: tail must not name output: fn f() { super::super::state::open(); let (a, b) = (', crate::output::B); }
src/tail/file.rs:1: tail must not name state: fn f() { super::super::state::open(); let (a, b) = (', crate::output::B); }
src/state/mod.rs:1: only docker may use bollard: use bollard::Docker;
src/state/mod.rs:2: only output and cli may use println!: fn f() { println!(); my_bollard(); }
src/docker/ssh.rs:1: only output and cli may use stdout(): fn f() { child.stdout.take(); command.stdout(Stdio::piped()); io::stdout(); }
src/cli/mod.rs:1: cli must not name tail: pub(crate) use crate::tail::Reader;
src/config/mod.rs:2: shelf must not name docker: use crate::docker::Client;
src/util/mod.rs: \"util\" is no room of the design";
    let found = wrong_arrows(&files).join("\n");
    assert_eq!(found, expected);
}

//! Modules in `src/` depend on each other in one direction only.
//!
//! Two checks, both pure functions from the text of all files to a list of complaints: [`forbidden`] compares the
//! modules that each file names with the tables below, and [`cycles`] finds files that depend on each other. Code
//! below `#[cfg(test)]` is exempt from both. `src/lib.rs` lists every module and is exempt from the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// In these tables, stands for every module that all others may use.
const SHARED: &str = "shared";

/// The folders that are [`SHARED`]; so is each file directly in `src/`.
const SHARED_FOLDERS: &[&str] = &["config", "metrics", "model"];

/// Which modules the files below each top-level module may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("main", &["cli", SHARED]),
    ("cli", &["cli", "commands", "docker", "state", "output", SHARED]),
    ("commands", &["commands", "docker", "tail", "state", "output", "serve", SHARED]),
    ("docker", &["docker", SHARED]),
    ("tail", &["tail", SHARED]),
    ("state", &["state", SHARED]),
    ("output", &["output", SHARED]),
    ("serve", &["serve", SHARED]),
    (SHARED, &[SHARED]),
];

/// What only these top-level modules may use: a crate, a macro, or a call.
const OWNERS: &[(&str, &[&str])] = &[
    ("bollard", &["docker"]),
    ("rusqlite", &["state"]),
    ("stdout()", &["output", "cli"]),
    ("println!", &["output", "cli"]),
    ("print!", &["output", "cli"]),
];

/// The groups of files in `src/` that still depend on each other. This list may only shrink: remove a group here when
/// the code no longer has it.
const REMAINING_CYCLES: &[&[&str]] = &[];

/// Dependencies between modules point downwards.
#[test]
fn modules_name_only_what_lies_below_them() {
    let found = forbidden(&borrowed(&sources()));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// There is no cycle between files but the listed ones.
#[test]
fn no_files_depend_on_each_other() {
    let files = sources();
    let found = cycles(&borrowed(&files));
    let new: Vec<String> =
        found.iter().filter(|cycle| !is_listed(&cycle.files)).map(|cycle| cycle.edges.join("\n")).collect();
    assert!(new.is_empty(), "these files depend on each other:\n{}", new.join("\n\n"));
    let gone: Vec<_> =
        REMAINING_CYCLES.iter().filter(|listed| !found.iter().any(|cycle| cycle.files == **listed)).collect();
    assert!(gone.is_empty(), "no longer cycles, so remove them from REMAINING_CYCLES: {gone:?}");
}

fn is_listed(files: &[&str]) -> bool {
    REMAINING_CYCLES.contains(&files)
}

/// The path below `src/` and the text of every file there.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 5, "found only {files:?}");
    files
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

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

/// Every use of a module or an owned name that the tables do not allow, one per line of output.
fn forbidden(files: &[(&str, &str)]) -> Vec<String> {
    let is_folder = |name: &&str| *name != "main" && *name != SHARED;
    let folders: Vec<&str> = MAY_NAME.iter().map(|(module, _)| *module).filter(is_folder).collect();
    let single_files = files.iter().filter_map(|(path, _)| path.strip_suffix(".rs")).filter(|name| !name.contains('/'));
    let shared: Vec<&str> = single_files.chain(SHARED_FOLDERS.iter().copied()).collect();
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| *path != "lib.rs") {
        let module = match path.split_once('/') {
            Some((folder, _)) if SHARED_FOLDERS.contains(&folder) => SHARED,
            Some((folder, _)) => folder,
            None if *path == "main.rs" => "main",
            None => SHARED,
        };
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            found.push(format!("src/{path}: the tables of this test do not list {module}"));
            continue;
        };
        let names = Names::of(path, text);
        for reference in &names.references {
            let Some(full) = absolute(&reference.module, &reference.path) else { continue };
            let target = match full.first().map(String::as_str) {
                Some(name) if folders.contains(&name) => name,
                Some(name) if shared.contains(&name) => SHARED,
                _ => continue,
            };
            if !allowed.contains(&target) {
                let (line, named) = (reference.line, reference.path.join("::"));
                found.push(format!("src/{path}:{line}: {module} must not name {target}: {named}"));
            }
        }
        for (line, word) in &names.words {
            let owned = OWNERS.iter().find(|(owned, _)| owned == word);
            if let Some((_, owners)) = owned.filter(|(_, owners)| !owners.contains(&module)) {
                found.push(format!("src/{path}:{line}: only {} may use {word}", owners.join(" and ")));
            }
        }
    }
    found
}

/// Files that depend on each other, directly or through others.
struct Cycle<'a> {
    /// In the order of their names.
    files: Vec<&'a str>,
    /// One place for each dependency between two of them, such as `a.rs:3 -> b.rs: crate::b::B`.
    edges: Vec<String>,
}

/// The strongly connected components of more than one file.
///
/// A file depends on another when it names something that the other defines; what a module only passes on with
/// `pub use` leads to the file behind it. Declaring a module is no dependency, and neither is naming a module above
/// one's own: a module and those below it are one unit, of which the upper one is the entrance.
fn cycles<'a>(files: &[(&'a str, &str)]) -> Vec<Cycle<'a>> {
    let mut crates = Crate::of(files);
    crates.drop_test_modules();
    let edges = crates.edges();
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        crates.files.values().map(|(path, _)| (*path, reachable(path, &edges))).collect();
    let mut found: Vec<Cycle> = Vec::new();
    for (path, from_here) in &reach {
        let files: Vec<&str> = from_here.iter().copied().filter(|other| reach[other].contains(path)).collect();
        if files.len() < 2 || found.iter().any(|cycle| cycle.files == files) {
            continue;
        }
        let within = edges.iter().filter(|((from, to), _)| files.contains(from) && files.contains(to));
        let edges = within.map(|((from, to), (line, named))| format!("{from}:{line} -> {to}: {named}")).collect();
        found.push(Cycle { files, edges });
    }
    found
}

/// The place of the first dependency for each pair of files.
type Edges<'a> = BTreeMap<(&'a str, &'a str), (usize, String)>;

fn reachable<'a>(from: &'a str, edges: &Edges<'a>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        let ahead = edges.keys().filter(|(from, _)| *from == next).map(|(_, to)| *to);
        open.extend(ahead.filter(|to| reached.insert(*to)));
    }
    reached
}

/// Every file of a crate by the path of its module; the library's own is empty.
struct Crate<'a> {
    files: BTreeMap<Vec<String>, (&'a str, Names)>,
}

impl<'a> Crate<'a> {
    fn of(files: &[(&'a str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (module_of(path), (*path, Names::of(path, text)))).collect();
        Self { files }
    }

    /// Forgets the files whose `mod` stands below `#[cfg(test)]`.
    fn drop_test_modules(&mut self) {
        let tests: Vec<Vec<String>> = self.files.values().flat_map(|(_, names)| names.test_modules.clone()).collect();
        self.files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    }

    fn edges(&self) -> Edges<'a> {
        let mut edges = Edges::new();
        for (module, (from, names)) in &self.files {
            for reference in names.references.iter().filter(|reference| !reference.is_passed_on) {
                let Some(to) = self.resolve(&reference.module, &reference.path, 0) else { continue };
                if module.starts_with(&to) {
                    continue;
                }
                let to = self.files[&to].0;
                // The library's root only lists the modules.
                if *from != "lib.rs" {
                    edges.entry((from, to)).or_insert_with(|| (reference.line, reference.path.join("::")));
                }
            }
        }
        edges
    }

    /// The module whose file defines what `path`, written in `module`, names; `None` for other crates and local names.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        // A `use` that names itself, such as `use bytes::bytes`.
        if depth > 16 {
            return None;
        }
        let rest = match absolute(module, path) {
            Some(full) => return self.descend(Vec::new(), &full, depth),
            None => path,
        };
        let file = self.file_of(module);
        let child = [file.as_slice(), &rest[..1]].concat();
        // A single lower-case word may as well be a variable.
        if rest.len() > 1 && self.files.contains_key(&child) {
            return self.descend(child, &rest[1..], depth);
        }
        let target = [self.alias(module, &rest[0])?, &rest[1..]].concat();
        self.resolve(module, &target, depth + 1)
    }

    /// Follows `rest` from a module down to the file that defines what it ends with.
    fn descend(&self, mut module: Vec<String>, rest: &[String], depth: usize) -> Option<Vec<String>> {
        for (at, word) in rest.iter().enumerate() {
            let child = [module.as_slice(), std::slice::from_ref(word)].concat();
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let Some(target) = self.alias(&module, word) else { break };
            let target = [target, &rest[at + 1..]].concat();
            return self.resolve(&module, &target, depth + 1);
        }
        self.files.contains_key(&module).then_some(module)
    }

    /// The path that a `use` in this module gives this name to.
    fn alias(&self, module: &[String], name: &str) -> Option<&[String]> {
        let (_, names) = self.files.get(&self.file_of(module))?;
        names.aliases.get(&(module.to_vec(), name.to_owned())).map(Vec::as_slice)
    }

    /// The nearest module at or above this one that has a file of its own.
    fn file_of(&self, module: &[String]) -> Vec<String> {
        let mut module = module.to_vec();
        while !module.is_empty() && !self.files.contains_key(&module) {
            module.pop();
        }
        module
    }
}

/// `docker/pool/mod.rs` is `["docker", "pool"]`, `lib.rs` is empty. `main.rs` is a crate of its own; here it is a module.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
}

/// `path`, written in `module`, from the root of the crate on; `None` when it begins with a name that is in scope.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" | "logwatch" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let above = &module[..module.len().saturating_sub(1)];
            match rest.first().map(String::as_str) {
                Some("super") => absolute(above, rest),
                _ => Some([above, rest].concat()),
            }
        }
        _ => None,
    }
}

/// A path that a file names.
struct Reference {
    /// Where it is written; inline modules included.
    module: Vec<String>,
    path: Vec<String>,
    line: usize,
    /// It is only a `pub use`.
    is_passed_on: bool,
}

/// What the code of one file names, outside of tests.
#[derive(Default)]
struct Names {
    /// The module that is being visited.
    module: Vec<String>,
    references: Vec<Reference>,
    /// What a `use` brings into scope: the path, by the module where it is written and the name there.
    aliases: BTreeMap<(Vec<String>, String), Vec<String>>,
    /// First words of paths, macros such as `print!`, and calls without arguments such as `stdout()`, with their lines.
    words: BTreeSet<(usize, String)>,
    /// Modules that only tests have.
    test_modules: Vec<Vec<String>>,
}

impl Names {
    fn of(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("src/{path}: {error}"));
        let mut names = Names { module: module_of(path), ..Names::default() };
        names.visit_file(&file);
        names
    }

    fn name(&mut self, line: usize, path: Vec<String>, is_passed_on: bool) {
        self.words.extend(path.first().map(|word| (line, word.clone())));
        self.references.push(Reference { module: self.module.clone(), path, line, is_passed_on });
    }

    /// The paths of a `use`, each with what stands before the braces.
    fn add_use(&mut self, tree: &syn::UseTree, before: &[String], is_passed_on: bool) {
        let joined = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_use(&path.tree, &joined(&path.ident), is_passed_on),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_use(tree, before, is_passed_on));
            }
            // The line of the star stands for the whole path, which names the module itself.
            syn::UseTree::Glob(glob) => self.name(glob.star_token.spans[0].start().line, before.to_vec(), is_passed_on),
            syn::UseTree::Name(name) => self.add_name(&name.ident, &name.ident, before, is_passed_on),
            syn::UseTree::Rename(rename) => self.add_name(&rename.ident, &rename.rename, before, is_passed_on),
        }
    }

    fn add_name(&mut self, ident: &syn::Ident, alias: &syn::Ident, before: &[String], is_passed_on: bool) {
        let path = match ident == "self" {
            true => before.to_vec(),
            false => [before, &[ident.to_string()]].concat(),
        };
        let alias = if alias == "self" { path.last().cloned().unwrap_or_default() } else { alias.to_string() };
        self.aliases.insert((self.module.clone(), alias), path.clone());
        self.name(ident.span().start().line, path, is_passed_on);
    }

    /// The paths, macros and calls in the tokens of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: &TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        // Colons since the last word; what follows a dot is a field or a method.
        let (mut colons, mut is_member) = (0, false);
        for token in tokens.clone() {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 || path.is_empty() {
                        self.end_path(&mut path, line);
                        line = ident.span().start().line;
                    }
                    if !is_member {
                        path.push(ident.to_string());
                    }
                    (colons, is_member) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Punct(punct) => {
                    if punct.as_char() == '!'
                        && let Some(last) = path.last()
                    {
                        self.words.insert((line, format!("{last}!")));
                    }
                    self.end_path(&mut path, line);
                    (colons, is_member) = (0, punct.as_char() == '.');
                }
                TokenTree::Group(group) => {
                    let is_empty_call = group.delimiter() == Delimiter::Parenthesis && group.stream().is_empty();
                    if is_empty_call && let Some(last) = path.last() {
                        self.words.insert((line, format!("{last}()")));
                    }
                    self.end_path(&mut path, line);
                    (colons, is_member) = (0, false);
                    self.add_tokens(&group.stream());
                }
                TokenTree::Literal(_) => self.end_path(&mut path, line),
            }
        }
        self.end_path(&mut path, line);
    }

    fn end_path(&mut self, path: &mut Vec<String>, line: usize) {
        if !path.is_empty() {
            self.name(line, std::mem::take(path), false);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            return visit::visit_item(self, item);
        }
        if let syn::Item::Mod(module) = item {
            self.test_modules.push([self.module.as_slice(), &[module.ident.to_string()]].concat());
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.name(path.segments[0].ident.span().start().line, words, false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(last) = call.path.segments.last() {
            self.words.insert((last.ident.span().start().line, format!("{}!", last.ident)));
        }
        self.add_tokens(&call.tokens);
        visit::visit_macro(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && call.args.is_empty()
            && let Some(last) = function.path.segments.last()
        {
            self.words.insert((last.ident.span().start().line, format!("{}()", last.ident)));
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The check above sees each way in which a module can be named.
#[test]
fn every_forbidden_name_is_found() {
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
        (
            "tail/seek.rs",
            "mod inner { use super::super::super::docker::Client; }\nmacro_rules! m { () => { $crate::state::open() } }\n\
             fn f() { assert_eq!(1, crate::output::b(\"crate::cli\")); g::<crate::serve::S>(); }",
        ),
        ("state/mod.rs", "use bollard::Docker;\nfn f() { println!(\"x\"); my_bollard(); }"),
        ("docker/mod.rs", "use bollard::Docker;\n#[cfg(test)]\nmod tests { use crate::commands; }"),
        ("output/mod.rs", "fn f() { std::io::stdout(); }"),
        ("docker/ssh.rs", "fn f() { child.stdout.take(); command.stdout(Stdio::piped()); io::stdout(); }"),
        ("docker/tls.rs", "fn f() { write!(io::stdout(), \"{}\", { print!(\"x\"); child.stdout() }); }"),
        ("cli/mod.rs", "pub(crate) use crate::tail::Reader;"),
        ("config/mod.rs", "use crate::metrics::LogMetrics;\nuse crate::docker::Client;"),
        ("util/mod.rs", ""),
    ];
    let expected = "\
src/time.rs:1: shared must not name tail: crate::tail::Tail
src/main.rs:1: main must not name commands: logwatch::commands::run
src/tail/mod.rs:4: tail must not name docker: crate::docker::Client
src/tail/mod.rs:4: tail must not name docker: crate::docker::events
src/tail/file.rs:1: tail must not name state: super::super::state::open
src/tail/file.rs:1: tail must not name output: crate::output::B
src/tail/seek.rs:1: tail must not name docker: super::super::super::docker::Client
src/tail/seek.rs:2: tail must not name state: crate::state::open
src/tail/seek.rs:3: tail must not name output: crate::output::b
src/tail/seek.rs:3: tail must not name serve: crate::serve::S
src/state/mod.rs:1: only docker may use bollard
src/state/mod.rs:2: only output and cli may use println!
src/docker/ssh.rs:1: only output and cli may use stdout()
src/docker/tls.rs:1: only output and cli may use print!
src/docker/tls.rs:1: only output and cli may use stdout()
src/cli/mod.rs:1: cli must not name tail: crate::tail::Reader
src/config/mod.rs:2: shared must not name docker: crate::docker::Client
src/util/mod.rs: the tables of this test do not list util";
    assert_eq!(forbidden(&files).join("\n"), expected);
}

/// The check above sees each way in which files can name each other.
#[test]
fn every_kind_of_cycle_is_found() {
    for (files, expected) in [
        // Each way to name another file.
        (&[("a.rs", "use crate::b::B;"), ("b.rs", "fn f() { crate::a::f() }")][..], "a.rs b.rs"),
        (&[("a.rs", "use super::b::{self, B};"), ("b.rs", "fn f() { m!(x, crate::a::A) }")], "a.rs b.rs"),
        (&[("a.rs", "use crate::b as c;"), ("b.rs", "struct B(crate::a::A);")], "a.rs b.rs"),
        (&[("a.rs", "use crate::b::*;"), ("b.rs", "use crate::a::*;")], "a.rs b.rs"),
        // A parent that uses its child, which uses the parent by way of another file.
        (
            &[
                ("p/mod.rs", "mod c; fn f() { c::f(); }"),
                ("p/c.rs", "mod inner { use super::super::super::a::f; }"),
                ("a.rs", "fn f() { crate::p::f() }"),
            ],
            "a.rs p/c.rs p/mod.rs",
        ),
        // Through a third, and two groups apart from each other.
        (
            &[
                ("a.rs", "use crate::b::B;"),
                ("b.rs", "use crate::c::C;"),
                ("c.rs", "use crate::a::A; use crate::x::X;"),
                ("x.rs", "use crate::y::Y;"),
                ("y.rs", "use crate::x::X;"),
            ],
            "a.rs b.rs c.rs; x.rs y.rs",
        ),
        // What is passed on leads to the file behind it, by whatever name.
        (
            &[
                ("p/mod.rs", "mod c; mod d; pub use self::c::C as Other;"),
                ("p/c.rs", "use super::d::D;"),
                ("p/d.rs", "use super::Other;"),
            ],
            "p/c.rs p/d.rs",
        ),
        // Neither the parent itself, nor a declaration, nor passing on, nor what only tests name.
        (&[("p/mod.rs", "mod c; fn f() { c::f(); }"), ("p/c.rs", "mod inner { use super::super::f; }")], ""),
        (&[("p/mod.rs", "mod c; pub use c::C; fn f() -> C {}"), ("p/c.rs", "use super::f;")], ""),
        (&[("p/mod.rs", "mod c; pub use self::c::C; struct P;"), ("p/c.rs", "use super::P;")], ""),
        (&[("a.rs", "#[cfg(test)] mod tests { use crate::b::B; }"), ("b.rs", "use crate::a::A;")], ""),
        (&[("p/mod.rs", "#[cfg(test)] mod c; mod d; use d::D;"), ("p/c.rs", ""), ("p/d.rs", "use super::c::C;")], ""),
        (&[("a.rs", "impl A { #[cfg(test)] fn f() { crate::b::f(); } }"), ("b.rs", "use crate::a::A;")], ""),
        (&[("lib.rs", "pub mod a; use a::A;"), ("a.rs", "use crate::A; use bytes::bytes; fn f() { bytes(); }")], ""),
        (&[("p/mod.rs", "mod c; fn f(c: u8) { g(c) }"), ("p/c.rs", "use super::f;")], ""),
    ] {
        let found: Vec<String> = cycles(files).iter().map(|cycle| cycle.files.join(" ")).collect();
        assert_eq!(found.join("; "), expected, "{files:?}");
    }
    let files = [("a.rs", "\nuse crate::b::B;"), ("b.rs", "fn f() { crate::a::f(); crate::a::g() }")];
    let [cycle] = &cycles(&files)[..] else { panic!("one cycle") };
    assert_eq!(cycle.edges, ["a.rs:2 -> b.rs: crate::b::B", "b.rs:1 -> a.rs: crate::a::f"]);
}

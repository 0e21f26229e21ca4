//! Man pages, written from the clap tree, and completions.
//!
//! In: a directory. Out: `completions/` and `man/` in it, as they are committed; a test compares them with what is
//! generated now. The completions hold no flag and no name: they ask [`super::complete`], as docker does, so that both
//! ways offer the same, live names included, and no shell knows anything that can become stale.

use super::hints::{self, Exit};
use super::{LogFormat, command, man_text, refuse};
use clap::{Command, Parser, ValueHint};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// The word that asks for it. It is no part of the clap tree, where it would be in every generated file.
pub(super) const WORD: &str = "generate";

/// Write shell completions and man pages
#[derive(Debug, Parser)]
#[command(name = "docker-logwatch generate", no_binary_name = true)]
struct Generate {
    /// Directory that gets `completions/` and `man/`
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

pub(super) fn run(words: &[OsString]) -> ExitCode {
    match Generate::try_parse_from(words).map(|generate| write(&generate.dir)) {
        Ok(Ok(())) => Exit::Done.into(),
        Ok(Err(error)) => hints::fail(&error, None, Exit::Failed, LogFormat::Text),
        Err(error) => refuse(&error),
    }
}

fn write(dir: &Path) -> Result<(), Error> {
    for (path, text) in files() {
        let path = dir.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text)).map_err(|source| Error { path, source })?;
    }
    Ok(())
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
struct Error {
    path: PathBuf,
    source: io::Error,
}

const COMPLETIONS: [(&str, &str); 3] = [
    ("docker-logwatch.bash", include_str!("../../completions/docker-logwatch.bash")),
    ("docker-logwatch.fish", include_str!("../../completions/docker-logwatch.fish")),
    ("_docker-logwatch", include_str!("../../completions/_docker-logwatch")),
];

/// Every file: its path below the directory, and its text.
fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let completion = |(name, text): (&str, &str)| (Path::new("completions").join(name), text.as_bytes().to_vec());
    let mut files: Vec<_> = COMPLETIONS.map(completion).into();
    let mut tree = command(false).disable_help_subcommand(true);
    tree.build();
    files.push(page(&tree));
    files.extend(tree.get_subcommands().map(page));
    files
}

fn page(command: &Command) -> (PathBuf, Vec<u8>) {
    // A flag that `-h` leaves out for want of room would stand here without its help.
    let command = command.clone().mut_args(|flag| flag.hide_short_help(false));
    let end = man_text::end_of(command.get_name());
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let page = clap_mangen::Man::new(command).title(&name).manual("User Commands");
    let page = page.source(concat!("docker-logwatch ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = page.render(&mut text);
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n") + &end;
    (Path::new("man").join(format!("{name}.1")), text.into_bytes())
}

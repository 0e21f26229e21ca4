//! Generates man pages from the clap definitions, and copies the shell completions.
//!
//! `docker-logwatch generate DIR` writes `DIR/completions/` and `DIR/man/`. A test compares them with the committed files.
//! The completions contain no options or names. They ask [`super::complete`], as the docker CLI does, so that all shells
//! offer the same candidates, including live names, and never go stale.

use super::hints::{self, Exit};
use super::{LogFormat, command, man_text, print_clap_error};
use clap::{Command, Parser, ValueHint};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// The name of this command. It is not part of the clap definitions, so that no generated file mentions it.
pub(super) const COMMAND: &str = "generate";

/// Write shell completions and man pages
#[derive(Debug, Parser)]
#[command(name = "docker-logwatch generate", no_binary_name = true)]
struct Generate {
    /// Directory in which to create `completions/` and `man/`
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

pub(super) fn run(args: &[OsString]) -> ExitCode {
    match Generate::try_parse_from(args).map(|generate| write(&generate.dir)) {
        Ok(Ok(())) => Exit::Success.into(),
        Ok(Err(error)) => hints::fail(&error, None, Exit::Failed, LogFormat::Text),
        Err(error) => print_clap_error(&error),
    }
}

fn write(dir: &Path) -> Result<(), Error> {
    for (path, text) in files() {
        let path = dir.join(path);
        let created = path.parent().map_or(Ok(()), fs::create_dir_all);
        created.and_then(|()| fs::write(&path, text)).map_err(|source| Error { path, source })?;
    }
    Ok(())
}

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

/// Returns all files: path relative to the directory, and content.
fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let completion = |(name, text): (&str, &str)| (Path::new("completions").join(name), text.as_bytes().to_vec());
    let mut files: Vec<_> = COMPLETIONS.map(completion).into();
    let mut root = command(false).disable_help_subcommand(true);
    root.build();
    files.push(page(&root));
    files.extend(root.get_subcommands().map(page));
    files
}

fn page(command: &Command) -> (PathBuf, Vec<u8>) {
    // clap_mangen omits the help text of options that `-h` hides.
    let command = command.clone().mut_args(|flag| flag.hide_short_help(false));
    let end = man_text::end_of(command.get_name());
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let page = clap_mangen::Man::new(command).title(&name).manual("User Commands");
    let page = page.source(concat!("docker-logwatch ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = page.render(&mut text);
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n") + &end.render();
    (Path::new("man").join(format!("{name}.1")), text.into_bytes())
}

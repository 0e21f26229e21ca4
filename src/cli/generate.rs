//! Completions and man pages, written from the clap tree.
//!
//! In: a directory. Out: `completions/` and `man/` in it, as they are committed; a test compares them with what is
//! generated now. Static completions are for the program that runs on its own; docker asks [`super::complete`] instead.

use super::{LogFormat, command, explain};
use crate::cli::explain::Exit;
use clap::{Command, ValueHint};
use clap_complete::Shell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// Write shell completions and man pages into a directory
#[derive(Clone, Debug, clap::Args)]
pub struct Generate {
    /// Directory that gets `completions/` and `man/`
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

pub(super) fn run(generate: &Generate, format: LogFormat) -> ExitCode {
    match write(&generate.dir) {
        Ok(()) => Exit::Done.into(),
        Err(error) => explain::fail(&error, None, format),
    }
}

fn write(dir: &Path) -> io::Result<()> {
    for (path, text) in files()? {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Every generated file: its path below the directory, and its text.
pub fn files() -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut visible(), "docker-logwatch", &mut text);
        let name = match shell {
            Shell::Bash => "docker-logwatch.bash",
            Shell::Fish => "docker-logwatch.fish",
            _ => "_docker-logwatch",
        };
        files.push((Path::new("completions").join(name), text));
    }
    let mut tree = visible().disable_help_subcommand(true);
    tree.build();
    files.push(page(&tree)?);
    for verb in tree.get_subcommands() {
        files.push(page(verb)?);
    }
    Ok(files)
}

/// The tree without its hidden commands, which the generators would show.
fn visible() -> Command {
    let all = command(false);
    let verbs: Vec<Command> = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let hidden = all.get_subcommands().any(Command::is_hide_set);
    assert!(hidden && !verbs.is_empty());
    all
}

fn page(command: &Command) -> io::Result<(PathBuf, Vec<u8>)> {
    let mut text = Vec::new();
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok((Path::new("man").join(format!("{name}.1")), text))
}

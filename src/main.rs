//! The `docker-logwatch` program; everything lies in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    logwatch::cli::main()
}

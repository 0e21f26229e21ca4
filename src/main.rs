//! The `docker-logwatch` program. All code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    logwatch::cli::main()
}

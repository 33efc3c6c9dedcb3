//! `cargo xtask chaos` runs this.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaos::main()
}

//! `cargo xtask bench` runs this in release mode.

use std::process::ExitCode;

fn main() -> ExitCode {
    bench::main()
}

//! `cargo xtask`: what is done in this repository besides compiling it, each as one command.

#![expect(clippy::print_stdout, reason = "a command that talks to a shell")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "plain blocking code: there is no runtime to block and no clock to pause"
)]

mod bench;
mod built;
mod capture;
mod chaos;
mod ci;
mod command;
mod fuzz;
mod interrupt;
mod peers;
mod process;
mod protoc;
mod servers;
mod shell;
mod side_by_side;
mod test;
mod tools;
mod version;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The development tasks of this repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start, stop or list the real servers that tests need
    #[command(subcommand)]
    Servers(servers::command::Command),
    /// Run all tests, with every server, or some of them
    Test(test::Options),
    /// Run the benchmarks, in release mode
    Bench(bench::Options),
    /// Hold elections under faults, and check what the candidates did
    Chaos(chaos::Options),
    /// Look for input that does harm, with LLVM's fuzzer
    Fuzz(fuzz::Options),
    #[command(flatten)]
    Ci(ci::Command),
    /// Print the shell variables for building sd-etcd without an installed protoc
    Protoc,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            interrupt::exit_code().map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// False when it failed and has said why.
fn run(task: &Task) -> Result<bool> {
    interrupt::listen()?;
    let workspace = Workspace::load()?;
    match task {
        Task::Servers(command) => command.run(&workspace)?,
        Task::Test(options) => return Ok(test::run(&workspace, options)?.is_empty()),
        Task::Bench(options) => bench::run(&workspace, options)?,
        Task::Chaos(options) => chaos::run(&workspace, options)?,
        Task::Fuzz(options) => fuzz::run(&workspace, options)?,
        Task::Ci(command) => return command.run(&workspace),
        Task::Protoc => protoc::print()?,
    }
    Ok(true)
}

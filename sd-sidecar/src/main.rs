//! `sdctl`: read and change a service registry from a shell. The crate's documentation says how.

mod cli;
mod commands;
mod failure;
mod output;
mod session;
mod signals;
mod stop_request;
#[cfg(target_os = "linux")]
mod watchdog;

use std::io::IsTerminal;
use std::process::ExitCode;

use sd_core::Override;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::commands::operate::{self, Act};
use crate::failure::Failure;
use crate::session::Session;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    #[cfg(target_os = "linux")]
    if let Some(role) = watchdog::role::Role::from_arguments(&arguments) {
        return role.run();
    }
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(told) => return told.tell(),
    };
    log_to_stderr(cli.verbose);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(format!("cannot start: {error}")).exit(),
    };
    let done = runtime.block_on(run(cli));
    // A look-up of a host name may still hang in a thread that nothing can end.
    runtime.shutdown_background();
    match done {
        Ok(status) => status,
        Err(failure) => failure.exit(),
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let session = Session::open(&cli)?;
    match cli.command {
        Command::Services { watch: false, wait } => {
            commands::services::run(&session, &wait).await?;
        }
        Command::Services { watch: true, .. } => commands::services::watch(&session).await?,
        Command::List { service, wait } => commands::list::run(&session, &service, &wait).await?,
        Command::Watch { service } => commands::watch::run(&session, &service).await?,
        Command::Register(wanted) => commands::register::run(&session, &wanted).await?,
        Command::Drain(target) => {
            operate::run(&session, &target, Act::Set(Override::Draining)).await?;
        }
        Command::Ready(target) => {
            operate::run(&session, &target, Act::Set(Override::Ready)).await?;
        }
        Command::Unready(target) => {
            operate::run(&session, &target, Act::Set(Override::Unready)).await?;
        }
        Command::Clear(target) => operate::run(&session, &target, Act::Clear).await?,
        Command::Deregister(target) => operate::run(&session, &target, Act::Remove).await?,
        Command::Elect(candidacy) => return commands::elect::run(&session, &candidacy).await,
        Command::Leader { name, watch, wait } => {
            return commands::leader::run(&session, &name, watch, &wait).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing unless asked for: a failure is one line.
fn log_to_stderr(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "sd_core=debug,sd_consul=debug,sd_etcd=debug,sd_election=debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

//! `sdctl`: read and change a service registry from a shell. The crate's documentation says how.

mod cli;
mod commands;
mod exit;
mod failure;
mod hint;
mod logging;
#[cfg(not(target_os = "linux"))]
mod no_watchdog;
mod output;
mod session;
mod signals;
mod stop_request;
#[cfg(target_os = "linux")]
mod watchdog;

use std::process::ExitCode;

use sd_core::Override;

#[cfg(feature = "config-service")]
use crate::cli::arguments::ConfigServiceAct;
use crate::cli::{Cli, Command};
use crate::commands::operate::{self, Act};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;
use crate::signals::end_as_first_process;

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
    logging::start(cli.verbose, cli.command.is_service());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(format!("cannot start: {error}")).exit(),
    };
    let done = runtime.block_on(run(&cli));
    // A look-up of a host name may still hang in a thread that nothing can end.
    runtime.shutdown_background();
    match done {
        Ok(status) => status,
        Err(failure) => failure.exit(),
    }
}

async fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        // These undo what they did before they end.
        Command::Register(wanted) => commands::register::run(&Session::open(cli)?, wanted).await,
        Command::Elect(candidacy) => commands::elect::run(cli, candidacy).await,
        #[cfg(feature = "config-service")]
        Command::ConfigService {
            act: ConfigServiceAct::Serve(serving),
            ..
        } => commands::config_service::serve(cli, serving)
            .await
            .map(ExitCode::from),
        _ => {
            end_as_first_process()?;
            run_until_signalled(cli).await.map(ExitCode::from)
        }
    }
}

/// For commands that leave nothing behind when a signal ends them.
async fn run_until_signalled(cli: &Cli) -> Result<Exit, Failure> {
    let session = || Session::open(cli);
    match &cli.command {
        Command::Services { watch: false, wait } => {
            commands::services::run(&session()?, wait).await?;
        }
        Command::Services { watch: true, .. } => commands::services::watch(&session()?).await?,
        Command::List { service, wait } => {
            return commands::list::run(&session()?, service, wait).await;
        }
        Command::Watch { service } => commands::watch::run(&session()?, service).await?,
        Command::WaitFor(awaited) => return commands::wait_for::run(&session()?, awaited).await,
        Command::Drain(target) => {
            operate::run(&session()?, target, Act::Set(Override::Draining)).await?;
        }
        Command::Ready(target) => {
            operate::run(&session()?, target, Act::Set(Override::Ready)).await?;
        }
        Command::Unready(target) => {
            operate::run(&session()?, target, Act::Set(Override::Unready)).await?;
        }
        Command::Clear(target) => operate::run(&session()?, target, Act::Clear).await?,
        Command::Deregister(target) => operate::run(&session()?, target, Act::Remove).await?,
        Command::Leader { name, watch, wait } => {
            return commands::leader::run(&session()?, name, *watch, wait).await;
        }
        Command::Agent { at, act } => commands::agent::run(cli, at, act).await?,
        Command::ConfigService { at, act } => commands::config_service::run(cli, at, act).await?,
        Command::Completion { shell } => commands::manual::completion(*shell)?,
        Command::Man { folder } => commands::manual::pages(folder.as_deref())?,
        Command::Register(_) | Command::Elect(_) => {}
    }
    Ok(Exit::Done)
}

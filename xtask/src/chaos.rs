//! `cargo xtask chaos`: runs the package `chaos`, with the programs of all releases of one server, which it starts and breaks itself,
//! or in virtual time.

use anyhow::Result;
use clap::Args;

use crate::servers::all::chosen;
use crate::servers::program::provide_all;
use crate::servers::variables;
use crate::workspace::Workspace;

/// Whose servers. Without it no server is needed.
const BACKEND: &str = "--backend";

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Arguments for the chaos program; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let run = workspace.cargo("run")?;
    let run = run.args(["--release", "--package", "chaos", "--"]);
    let run = run.args(&options.arguments);
    let Some(backend) = backend(&options.arguments) else {
        return run.succeed();
    };
    let servers = chosen(workspace, &[backend.to_owned()])?;
    let programs = provide_all(workspace, &servers)?;
    run.shared_envs(variables::of_programs(&servers, &programs))
        .succeed()
}

/// What follows `--backend`, or stands behind its `=`.
fn backend(arguments: &[String]) -> Option<&str> {
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(BACKEND) {
            Some("") => return arguments.next(),
            Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_is_found_however_it_is_written() {
        let found = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            backend(&arguments).map(str::to_owned)
        };
        assert_eq!(found("--minutes 3 --backend etcd").as_deref(), Some("etcd"));
        assert_eq!(found("--backend=consul --quick").as_deref(), Some("consul"));
        assert_eq!(found("--simulate --seed 4"), None);
        assert_eq!(found("--backend"), None);
    }
}

//! `cargo xtask servers`: servers that stay, for a shell in which tests are run by hand.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Subcommand;

use crate::peers;
use crate::servers::all::chosen;
use crate::servers::{fleet, variables};
use crate::shell::export;
use crate::workspace::Workspace;

/// `cargo xtask servers ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start what does not run yet; print variables for `eval "$(cargo xtask servers up)"`
    Up {
        /// Only these: `etcd`, `etcd-3.4`. Without names, those of all backends in this workspace
        names: Vec<String>,
    },
    /// Stop what `up` started; print `unset` for the same shell
    Down,
    /// Say what runs
    Status,
}

impl Command {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Up { names } => {
                let servers = chosen(workspace, names)?;
                let peers = peers::provide(workspace, &servers)?;
                let running = fleet::up(workspace, &servers)?;
                for (name, value) in variables::of(&running).into_iter().chain(peers) {
                    println!("{}", export(&name, &value));
                }
            }
            Self::Down => {
                let stopped = fleet::down(workspace)?;
                let peers = stopped.iter().flat_map(|one| peers::variables(one.server));
                let names = variables::of(&stopped).into_iter().map(|(name, _)| name);
                for name in names.chain(peers.collect::<BTreeSet<_>>()) {
                    println!("unset {name}");
                }
            }
            Self::Status => fleet::print_status(workspace)?,
        }
        Ok(())
    }
}

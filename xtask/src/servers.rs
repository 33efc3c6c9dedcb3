//! The real servers that tests need: found or installed, started, recorded, ended.
//!
//! To add one: a file beside `etcd.rs` with an `impl Server`, and its name in [`ALL`].

mod consul;
mod debian;
mod etcd;
pub(crate) mod go;
mod program;
mod python;
mod record;
mod running;
mod start;
mod variables;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;

pub(crate) use self::program::{Program, provide_all};
pub(crate) use self::running::{Fleet, Running};
pub(crate) use self::variables::{
    of as variables, of_programs as program_variables, plain as plain_variables,
};

use crate::command::Run;
use crate::peers;
use crate::shell::export;
use crate::tools::Tools;
use crate::version::Version;
use crate::workspace::Workspace;

/// Every server. The first of a backend is the one that its plain variables name: `SD_TEST_ETCD` is the 3.6.
pub(crate) const ALL: &[&dyn Server] = &[&etcd::ETCD_3_6, &etcd::ETCD_3_4, &consul::CONSUL_1_20];

/// One kind of server in one release line.
pub(crate) trait Server: Debug + Sync {
    /// Whose tests need it. Package `sd-<backend>` and the variables `SD_TEST_<BACKEND>` are named after it.
    fn backend(&self) -> &'static str;
    /// Major and minor version.
    fn line(&self) -> (u32, u32);
    /// What it is called on PATH.
    fn executable(&self) -> &'static str;
    /// Installs it into the cache; quick when it is there already.
    fn install(&self, workspace: &Workspace, tools: &Tools) -> Result<PathBuf>;
    /// How many free ports it takes.
    fn ports(&self) -> usize;
    /// The command that runs it, in the foreground, with all of its state in `data`.
    fn command(&self, program: &Path, data: &Path, ports: &[u16]) -> Run;
    /// What clients are told.
    fn url(&self, ports: &[u16]) -> String;
    /// Its version, from the server itself, once it does what a client asks and not only listens.
    fn serving(&self, url: &str) -> Result<Version>;

    /// `etcd-3.6`
    fn name(&self) -> String {
        let (major, minor) = self.line();
        format!("{}-{major}.{minor}", self.backend())
    }
}

/// Those with one of these names (`etcd-3.6`) or backends (`etcd`); all when none is given.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static dyn Server>> {
    let is =
        |server: &dyn Server, name: &String| *name == server.name() || name == server.backend();
    if let Some(unknown) = names
        .iter()
        .find(|name| !ALL.iter().any(|server| is(*server, name)))
    {
        let known: Vec<String> = ALL.iter().map(|server| server.name()).collect();
        bail!(
            "there is no server {unknown}; there are {}",
            known.join(", ")
        );
    }
    let wanted =
        |server: &dyn Server| names.is_empty() || names.iter().any(|name| is(server, name));
    Ok(ALL
        .iter()
        .copied()
        .filter(|server| wanted(*server))
        .collect())
}

/// `cargo xtask servers ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start what does not run yet; print variables for `eval "$(cargo xtask servers up)"`
    Up {
        /// Only these: `etcd`, `etcd-3.4`
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
                let servers = chosen(names)?;
                let peers = peers::provide(workspace, &servers)?;
                let running = running::up(workspace, &servers)?;
                for (name, value) in variables(&running).into_iter().chain(peers) {
                    println!("{}", export(&name, &value));
                }
            }
            Self::Down => {
                let stopped = running::down(workspace)?;
                let peers = stopped.iter().map(|one| peers::variable(one.server));
                let names = variables(&stopped).into_iter().map(|(name, _)| name);
                for name in names.chain(peers.collect::<BTreeSet<_>>()) {
                    println!("unset {name}");
                }
            }
            Self::Status => running::print_status(workspace)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(servers: &[&dyn Server]) -> Vec<String> {
        servers.iter().map(|server| server.name()).collect()
    }

    #[test]
    fn a_server_is_chosen_by_name_or_backend() {
        let choose = |name: &str| names_of(&chosen(&[name.to_owned()]).unwrap());
        assert_eq!(choose("etcd"), ["etcd-3.6", "etcd-3.4"]);
        assert_eq!(choose("etcd-3.4"), ["etcd-3.4"]);
        assert_eq!(names_of(&chosen(&[]).unwrap()), names_of(ALL));
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let error = chosen(&["etcd-2".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("etcd-2") && error.contains("etcd-3.6"),
            "{error}"
        );
    }
}

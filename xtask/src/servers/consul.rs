//! Where Consul comes from.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use server_programs::{Consul, LocalServer};

use crate::servers::go;
use crate::servers::server::Server;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Built from the module that `xtask/servers/consul-1.20/go.mod` names.
pub(crate) const CONSUL_1_20: ConsulRelease = ConsulRelease;

const VERSION: &str = "1.20.6";
const OLDEST_GO: &str = "1.23.8";

/// The release line 1.20.
#[derive(Debug)]
pub(crate) struct ConsulRelease;

impl Server for ConsulRelease {
    fn backend(&self) -> &'static str {
        "consul"
    }

    fn line(&self) -> (u32, u32) {
        (1, 20)
    }

    fn executable(&self) -> &'static str {
        "consul"
    }

    fn install(&self, workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
        let source = workspace.root.join("xtask/servers/consul-1.20");
        let folder = tools.get(&format!("consul-{VERSION}"), |folder| {
            go::build(tools, &source, OLDEST_GO, &folder.join("consul"))
        })?;
        Ok(folder.join("consul"))
    }

    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>> {
        Ok(Box::new(Consul::new(program, free_port)?))
    }

    fn serving_at(&self, url: &str) -> io::Result<Option<String>> {
        Consul::serving_at(url).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_module_names_the_same_versions() {
        let go_mod = include_str!("../../servers/consul-1.20/go.mod");
        assert!(go_mod.contains(&format!("github.com/hashicorp/consul v{VERSION}\n")));
        assert!(go_mod.contains(&format!("\ngo {OLDEST_GO}\n")));
    }
}

//! Where etcd comes from: the current release, and the one that Debian 12 carries and many teams still run.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use server_programs::{Etcd, LocalServer};

use crate::servers::server::Server;
use crate::servers::{debian, go};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Built from the module that `xtask/servers/etcd-3.6/go.mod` names.
pub(crate) const ETCD_3_6: EtcdRelease = EtcdRelease {
    minor: 6,
    source: Source::Module {
        version: "3.6.16",
        oldest_go: "1.26.0",
    },
};

/// Debian 12's 3.4.23, which has lease bugs that we must survive.
pub(crate) const ETCD_3_4: EtcdRelease = EtcdRelease {
    minor: 4,
    source: Source::Debian,
};

/// One release line of etcd 3.
#[derive(Debug)]
pub(crate) struct EtcdRelease {
    minor: u32,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Module {
        version: &'static str,
        oldest_go: &'static str,
    },
    Debian,
}

impl Server for EtcdRelease {
    fn backend(&self) -> &'static str {
        "etcd"
    }

    fn line(&self) -> (u32, u32) {
        (3, self.minor)
    }

    fn executable(&self) -> &'static str {
        "etcd"
    }

    fn install(&self, workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
        match self.source {
            Source::Module { version, oldest_go } => {
                let source = workspace.root.join("xtask/servers/etcd-3.6");
                let folder = tools.get(&format!("etcd-{version}"), |folder| {
                    go::build(tools, &source, oldest_go, &folder.join("etcd"))
                })?;
                Ok(folder.join("etcd"))
            }
            Source::Debian => {
                let name = format!("etcd-3.{}-debian", self.minor);
                let folder = tools.get(&name, |folder| debian::unpack(&["etcd-server"], folder))?;
                Ok(folder.join("usr/bin/etcd"))
            }
        }
    }

    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>> {
        Ok(Box::new(Etcd::new(program, free_port)?))
    }

    fn serving_at(&self, url: &str) -> io::Result<Option<String>> {
        Etcd::serving_at(url).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_module_names_the_same_versions() {
        let go_mod = include_str!("../../servers/etcd-3.6/go.mod");
        let Source::Module { version, oldest_go } = ETCD_3_6.source else {
            panic!("3.6 is built from its module");
        };
        assert!(go_mod.contains(&format!("go.etcd.io/etcd/server/v3 v{version}\n")));
        assert!(go_mod.contains(&format!("\ngo {oldest_go}\n")));
    }
}

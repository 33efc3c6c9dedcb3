//! etcd: the current release, and the one that Debian 12 carries and many teams still run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Run;
use crate::http;
use crate::servers::server::Server;
use crate::servers::{debian, go};
use crate::tools::Tools;
use crate::version::Version;
use crate::workspace::Workspace;

/// Built from the module that `xtask/servers/etcd-3.6/go.mod` names.
pub(crate) const ETCD_3_6: Etcd = Etcd {
    minor: 6,
    source: Source::Module {
        version: "3.6.16",
        oldest_go: "1.26.0",
    },
};

/// Debian 12's 3.4.23, which has lease bugs that we must survive.
pub(crate) const ETCD_3_4: Etcd = Etcd {
    minor: 4,
    source: Source::Debian,
};

/// One release line of etcd 3.
#[derive(Debug)]
pub(crate) struct Etcd {
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

impl Server for Etcd {
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
                let folder = tools.get(&name, |folder| debian::unpack("etcd-server", folder))?;
                Ok(folder.join("usr/bin/etcd"))
            }
        }
    }

    fn ports(&self) -> usize {
        2
    }

    fn command(&self, program: &Path, data: &Path, ports: &[u16]) -> Run {
        let client = self.url(ports);
        let peer = format!("http://127.0.0.1:{}", ports[1]);
        Run::new(program)
            .arg("--data-dir")
            .arg(data)
            .args(["--name", "test"])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
    }

    fn url(&self, ports: &[u16]) -> String {
        format!("http://127.0.0.1:{}", ports[0])
    }

    fn serving(&self, url: &str) -> Result<Version> {
        let url = url.trim_end_matches('/');
        // It answers true only while it has a leader and commits.
        let health: Health = serde_json::from_str(&http::get(&format!("{url}/health"))?)?;
        if health.health != "true" {
            bail!("etcd at {url} says that its health is {}", health.health);
        }
        let versions: Versions = serde_json::from_str(&http::get(&format!("{url}/version"))?)?;
        Version::find(&versions.etcdserver)
            .with_context(|| format!("etcd at {url} has version `{}`", versions.etcdserver))
    }
}

#[derive(Deserialize)]
struct Health {
    health: String,
}

#[derive(Deserialize)]
struct Versions {
    etcdserver: String,
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

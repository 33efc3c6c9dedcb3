//! Consul: one agent that is its own server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Run;
use crate::http;
use crate::servers::go;
use crate::servers::server::Server;
use crate::tools::Tools;
use crate::version::Version;
use crate::workspace::Workspace;

/// Built from the module that `xtask/servers/consul-1.20/go.mod` names.
pub(crate) const CONSUL_1_20: Consul = Consul;

const VERSION: &str = "1.20.6";
const OLDEST_GO: &str = "1.23.8";

/// The release line 1.20.
#[derive(Debug)]
pub(crate) struct Consul;

impl Server for Consul {
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

    fn ports(&self) -> usize {
        3
    }

    fn command(&self, program: &Path, data: &Path, ports: &[u16]) -> Run {
        let [http, server, gossip] = [ports[0], ports[1], ports[2]].map(|port| port.to_string());
        Run::new(program)
            .args(["agent", "-server", "-bootstrap-expect=1", "-node=test"])
            .arg("-data-dir")
            .arg(data)
            .args(["-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-http-port", &http, "-server-port", &server])
            .args(["-serf-lan-port", &gossip, "-serf-wan-port=-1"])
            .args(["-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1"])
            // It elects itself sooner, and asks nobody on the internet for newer versions.
            .args(["-hcl", "performance { raft_multiplier = 1 }"])
            .args(["-hcl", "disable_update_check = true"])
    }

    fn url(&self, ports: &[u16]) -> String {
        format!("http://127.0.0.1:{}", ports[0])
    }

    fn serving(&self, url: &str) -> Result<Version> {
        let url = url.trim_end_matches('/');
        // It names a leader before it takes writes. This one goes through its log like any other, and leaves nothing.
        let deleted = http::delete(&format!("{url}/v1/kv/xtask/no-such-key"))?;
        if deleted.trim() != "true" {
            bail!("Consul at {url} answers a write with `{deleted}`");
        }
        // Its node comes into the catalog a moment later, and sessions are refused until then.
        let passing = http::get(&format!("{url}/v1/health/service/consul?passing"))?;
        if passing.trim() == "[]" {
            bail!("Consul at {url} is not in its own catalog yet");
        }
        let itself: Itself = serde_json::from_str(&http::get(&format!("{url}/v1/agent/self"))?)?;
        let version = itself.config.version;
        Version::find(&version).with_context(|| format!("Consul at {url} has version `{version}`"))
    }
}

#[derive(Deserialize)]
struct Itself {
    #[serde(rename = "Config")]
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Version")]
    version: String,
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

//! What a server is to xtask: where its program comes from, and what is started and asked then.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use server_programs::LocalServer;

use crate::tools::Tools;
use crate::version::Version;
use crate::workspace::Workspace;

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
    /// One that `program` runs on free ports of this machine.
    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>>;
    /// What the one at `url` says about its version, once it does what a client asks and not only listens.
    fn serving_at(&self, url: &str) -> io::Result<String>;

    /// The version of `program`, which most programs print.
    fn version_of(&self, program: &Path) -> Result<Version> {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Version::find(&text)
            .with_context(|| format!("{} --version prints `{text}`", program.display()))
    }

    /// The version of the one at `url`, once it serves.
    fn serving(&self, url: &str) -> Result<Version> {
        let said = self.serving_at(url)?;
        Version::find(&said)
            .with_context(|| format!("{} at {url} has version `{said}`", self.backend()))
    }

    /// `etcd-3.6`
    fn name(&self) -> String {
        let (major, minor) = self.line();
        format!("{}-{major}.{minor}", self.backend())
    }
}

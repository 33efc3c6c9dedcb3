//! What a server is to xtask: how it is installed, started and asked whether it serves.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::Run;
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

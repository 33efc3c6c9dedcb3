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
    /// Its own name, where several products serve one backend or none has the backend's name.
    fn product(&self) -> &'static str {
        self.backend()
    }
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
    /// What the one at `url` says about its version, once it does what a client asks and not only listens. None if servers of this kind do
    /// not tell.
    fn serving_at(&self, url: &str) -> io::Result<Option<String>>;

    /// What prints the version of `program`.
    fn version_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("--version");
        command
    }

    fn version_of(&self, program: &Path) -> Result<Version> {
        let mut command = self.version_command(program);
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let [text, errors] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        Version::find(&text).with_context(|| {
            let (program, text, errors) = (program.display(), text.trim(), errors.trim());
            format!("{program}, asked for its version, prints `{text}` and the errors `{errors}`")
        })
    }

    /// The version of the one at `url`, once it serves.
    fn serving(&self, url: &str) -> Result<Option<Version>> {
        let Some(said) = self.serving_at(url)? else {
            return Ok(None);
        };
        let version = Version::find(&said);
        let version =
            version.with_context(|| format!("{} at {url} has version `{said}`", self.product()))?;
        Ok(Some(version))
    }

    /// `etcd-3.6`
    fn name(&self) -> String {
        let (major, minor) = self.line();
        format!("{}-{major}.{minor}", self.product())
    }

    /// Whose own tests run with every release line.
    fn package(&self) -> String {
        format!("sd-{}", self.backend())
    }
}

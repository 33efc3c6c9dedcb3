//! Where moto comes from, which emulates AWS.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use server_programs::{LocalServer, Moto};

use crate::servers::python;
use crate::servers::server::Server;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// From PyPI, with what its server, Cloud Map and SNS need.
pub(crate) const MOTO_5_2: MotoRelease = MotoRelease;

const VERSION: &str = "5.2.5";

/// The release line 5.2.
#[derive(Debug)]
pub(crate) struct MotoRelease;

impl Server for MotoRelease {
    fn backend(&self) -> &'static str {
        "cloudmap"
    }

    fn product(&self) -> &'static str {
        "moto"
    }

    fn line(&self) -> (u32, u32) {
        (5, 2)
    }

    fn executable(&self) -> &'static str {
        "moto_server"
    }

    fn install(&self, _workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
        let environment = tools.get(&format!("moto-{VERSION}"), |folder| {
            let requirement = format!("moto[server,servicediscovery,sns]=={VERSION}");
            python::install(&requirement, folder)
        })?;
        Ok(environment.join("bin/moto_server"))
    }

    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>> {
        Ok(Box::new(Moto::new(program, free_port)?))
    }

    fn serving_at(&self, url: &str) -> io::Result<Option<String>> {
        Moto::serving_at(url).map(|()| None)
    }

    /// The program does not tell, but the package beside it does.
    fn version_command(&self, program: &Path) -> Command {
        let program = program
            .canonicalize()
            .unwrap_or_else(|_| program.to_owned());
        let mut command = Command::new(program.with_file_name("python3"));
        let code = "import importlib.metadata; print(importlib.metadata.version('moto'))";
        command.args(["-c", code]);
        command
    }
}

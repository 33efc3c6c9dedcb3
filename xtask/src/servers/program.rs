//! The program of a server: the one that a variable names, the one on PATH, or an installed one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::servers::names::program_names;
use crate::servers::server::Server;
use crate::tools::Tools;
use crate::version::Version;
use crate::workspace::Workspace;

/// A program that was seen to be of the right release line.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
}

/// Finds or installs the programs of all `servers` at the same time, in their order.
pub(crate) fn provide_all(
    workspace: &Workspace,
    servers: &[&'static dyn Server],
) -> Result<Vec<Program>> {
    let tools = Tools::open(workspace)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(|| provide(workspace, &tools, *server)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow!("an installation panicked"))?
            })
            .collect()
    })
}

fn provide(workspace: &Workspace, tools: &Tools, server: &dyn Server) -> Result<Program> {
    let name = server.name();
    for variable in program_names(server) {
        let Some(path) = std::env::var_os(&variable).map(PathBuf::from) else {
            continue;
        };
        let program = ask(server, &path).with_context(|| format!("{variable} names no {name}"))?;
        if program.version.is_of(server.line()) {
            return Ok(program);
        }
        // The plain variable may well speak of another release line of this server.
        if variable == program_names(server)[0] {
            bail!(
                "{variable}={} is a {}, not a {name}",
                path.display(),
                program.version
            );
        }
    }
    if let Some(program) = on_path(server) {
        return Ok(program);
    }
    let path = server.install(workspace, tools)?;
    let program = ask(server, &path)?;
    if !program.version.is_of(server.line()) {
        bail!(
            "what could be installed is a {}, not a {name}: name one by {}",
            program.version,
            program_names(server)[0]
        );
    }
    Ok(program)
}

fn on_path(server: &dyn Server) -> Option<Program> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(server.executable()))
        .filter(|path| path.is_file())
        .filter_map(|path| ask(server, &path).ok())
        .find(|program| program.version.is_of(server.line()))
}

fn ask(server: &dyn Server, path: &Path) -> Result<Program> {
    Ok(Program {
        path: path.to_owned(),
        version: server.version_of(path)?,
    })
}

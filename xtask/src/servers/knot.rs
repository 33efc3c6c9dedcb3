//! Where Knot DNS comes from: Debian 12's 3.2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use server_programs::{Knot, LocalServer};

use crate::servers::server::Server;
use crate::servers::{debian, script};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Debian 12's 3.2.6.
pub(crate) const KNOT_3_2: KnotRelease = KnotRelease;

/// The program, and the libraries that a small Debian lacks.
const DEBIAN_PACKAGES: [&str; 10] = [
    "knot",
    "libbpf1",
    "libcap-ng0",
    "libdnssec9",
    "libelf1",
    "libknot13",
    "liblmdb0",
    "liburcu8",
    "libxdp1",
    "libzscanner4",
];

/// The release line of Knot DNS that Debian 12 carries.
#[derive(Debug)]
pub(crate) struct KnotRelease;

impl Server for KnotRelease {
    fn backend(&self) -> &'static str {
        "dns"
    }

    fn product(&self) -> &'static str {
        "knot"
    }

    fn line(&self) -> (u32, u32) {
        (3, 2)
    }

    fn executable(&self) -> &'static str {
        "knotd"
    }

    fn install(&self, _workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
        let folder = tools.get("knot-3.2-debian", |folder| {
            debian::unpack(&DEBIAN_PACKAGES, folder)?;
            let libraries = fs::read_dir(folder.join("usr/lib"))?
                .filter_map(|architecture| Some(architecture.ok()?.file_name()))
                .find(|name| folder.join("usr/lib").join(name).join("libknot.so.13").exists())
                .context("the packages hold no libknot.so.13")?;
            let lines = format!(
                "LD_LIBRARY_PATH=$here/usr/lib/{}\nexport LD_LIBRARY_PATH\nexec \"$here/usr/sbin/knotd\" \"$@\"\n",
                libraries.display()
            );
            script::write(&folder.join("knotd"), &lines)
        })?;
        Ok(folder.join("knotd"))
    }

    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>> {
        Ok(Box::new(Knot::new(program, free_port)?))
    }

    fn serving_at(&self, url: &str) -> io::Result<Option<String>> {
        Knot::serving_at(url).map(Some)
    }
}

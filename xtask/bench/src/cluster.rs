//! isp modules: this workspace's client and config service, beside isp-kit's client in Go.

mod comparing;
mod config_change;
mod crowd;
mod host_change;
mod module;
mod polled;
mod service;

use std::time::Duration;

use tokio::runtime::Runtime;

pub(crate) use self::module::join as join_modules;
use self::module::version;
use self::service::Service;
pub(crate) use self::service::keep_configs;
use crate::part::section;
use crate::process::raise_open_files;
use crate::report::Section;
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    raise_open_files()?;
    let runtime = Runtime::new()?;
    let service = Service::start()?;
    let parts = [
        config_change::measure(effort, &runtime, &service)?,
        host_change::measure(effort, &runtime, &service)?,
        polled::measure(effort, &runtime)?,
        crowd::measure(effort, &runtime)?,
    ];
    let isp_kit = format!("isp-kit {}", version());
    let introduction = format!("{INTRODUCTION}In Go: {isp_kit}.");
    let chart = format!("Milliseconds beside {isp_kit}, median and quartiles");
    Ok(section(
        "isp modules",
        &introduction,
        ("cluster", chart),
        parts,
    ))
}

const INTRODUCTION: &str = "\
The config service of `sd-cluster` is a process of its own and keeps everything in memory. A module in Rust is a process with a client of
`sd-cluster`, and one in Go a process with the client of isp-kit, whose log goes nowhere; each notes the time at which it is told something,
by the system's clock. isp-config-service itself is not measured: see *Polled*.

";

//! The processes of a run that are under test: they stand in elections, observe, register, read, and tell what they see, line by line, on their
//! standard output. Orders come on their standard input.

mod belief;
mod journal;
mod naive;
mod node;
mod observer;
mod ours;
mod prober;
mod reader;
mod service;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::{Error, Result};

pub(crate) use self::node::{connect, run as run_node};
pub(crate) use self::observer::run as run_observer;
pub(crate) use self::reader::run as run_reader;
pub(crate) use self::service::{SERVICE, run as run_service};

/// What a child is told when it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Brief {
    /// Its name in the history: no two processes have the same.
    pub(crate) name: String,
    /// Who started it. It ends when that process does.
    pub(crate) parent: u32,
    pub(crate) backend: Backend,
    /// Where it reaches the servers.
    pub(crate) endpoints: Vec<String>,
    /// Where the register is, for a candidate.
    pub(crate) register: Option<SocketAddr>,
    /// Where a service says that it listens.
    pub(crate) listens_at: Option<SocketAddr>,
    pub(crate) ttl: Duration,
    /// Where the server has such a thing.
    pub(crate) lock_delay: Duration,
    /// What it does of its own accord follows from this.
    pub(crate) seed: u64,
}

/// What a candidate's process is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Campaign and lead; now and then resign, drop a term or cancel a campaign.
    Wander,
    /// Campaign and lead, and end nothing of one's own accord.
    Stay,
    /// Leave all elections, and say so.
    Leave,
}

/// Replaces this process by `program`, which is then killed when `parent` ends. For servers, which do not know whose they are.
///
/// # Errors
/// The program cannot be started. Otherwise this does not return.
pub(crate) fn exec(parent: u32, program: &[String]) -> Result<()> {
    die_with(parent)?;
    let (program, arguments) = program
        .split_first()
        .ok_or("no program is given after --")?;
    Err(Command::new(program).args(arguments).exec().into())
}

/// Has the kernel kill this process when the thread of `parent` that started it ends.
fn die_with(parent: u32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before.
    let now = getppid().map(Pid::as_raw_nonzero);
    if now.map(|pid| pid.get().cast_unsigned()) == Some(parent) {
        Ok(())
    } else {
        Err(Error::from("the process that started this one is gone"))
    }
}

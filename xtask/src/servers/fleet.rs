//! Sets of running servers: the shared ones of `servers up`, and the own ones of one run.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::ProcessId;
use crate::servers::program::{Program, provide_all};
use crate::servers::record::{Record, Records};
use crate::servers::running::Running;
use crate::servers::server::Server;
use crate::servers::start::start;
use crate::workspace::Workspace;

/// The servers of one run, ended when it is dropped; those that a variable names are used and left alone.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) running: Vec<Running>,
    started: Vec<(PathBuf, Record)>,
}

impl Fleet {
    /// `programs` are those of `servers`, in the same order.
    pub(crate) fn start(
        workspace: &Workspace,
        servers: &[&'static dyn Server],
        programs: &[Program],
    ) -> Result<Self> {
        let records = Records::lock(workspace)?;
        records.sweep()?;
        let owner = ProcessId::of(std::process::id())?;
        let mut fleet = Self {
            running: Vec::new(),
            started: Vec::new(),
        };
        for (&server, program) in servers.iter().zip(programs) {
            if let Some(named) = Running::named(server, program)? {
                fleet.running.push(named);
                continue;
            }
            let folder = records.of_run(owner).join(server.name());
            fleet
                .running
                .push(start(server, program, &folder, Some(owner))?);
            if let Some(record) = Record::read(&folder)? {
                fleet.started.push((folder, record));
            }
        }
        Ok(fleet)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (folder, record) in &self.started {
            if let Err(error) = record.end(folder) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Starts those of `servers` that neither run already nor are named by a variable.
pub(crate) fn up(workspace: &Workspace, servers: &[&'static dyn Server]) -> Result<Vec<Running>> {
    let programs = provide_all(workspace, servers)?;
    let records = Records::lock(workspace)?;
    records.sweep()?;
    let mut all = Vec::new();
    for (&server, program) in servers.iter().zip(&programs) {
        let folder = records.shared().join(server.name());
        let recorded = Record::read(&folder)?.filter(|record| record.process.is_alive());
        let running = if let Some(running) = recorded.as_ref().and_then(Running::recorded) {
            server.serving(&running.url).with_context(|| {
                format!(
                    "{} runs but does not serve: cargo xtask servers down",
                    server.name()
                )
            })?;
            running
        } else if let Some(named) = Running::named(server, program)? {
            named
        } else {
            start(server, program, &folder, None)?
        };
        all.push(running);
    }
    Ok(all)
}

/// Ends what `up` started and what killed runs left.
pub(crate) fn down(workspace: &Workspace) -> Result<Vec<Running>> {
    let records = Records::lock(workspace)?;
    records.sweep()?;
    let mut ended = Vec::new();
    for (folder, record) in records.all()? {
        if record.owner.is_none() {
            record.end(&folder)?;
            eprintln!("ended {} ({})", record.server, record.process.pid);
            ended.extend(Running::recorded(&record));
        }
    }
    Ok(ended)
}

/// One line for each recorded server.
pub(crate) fn print_status(workspace: &Workspace) -> Result<()> {
    let records = Records::lock(workspace)?.all()?;
    if records.is_empty() {
        println!("nothing runs: cargo xtask servers up");
    }
    for (_, record) in records {
        let state = match Running::recorded(&record) {
            _ if !record.process.is_alive() => "ended by itself",
            Some(running) if running.server.serving(&record.url).is_ok() => "serving",
            _ => "not serving",
        };
        let owner = match record.owner {
            None => "shared".to_owned(),
            Some(owner) => format!("of run {}", owner.pid),
        };
        println!(
            "{:<13} {:<8} pid {:<8} {:<24} {state}, {owner}",
            record.server, record.version, record.process.pid, record.url
        );
    }
    Ok(())
}

//! Which cores clients and servers run on, and how much time the client's have used.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// The cores of this process in two halves. A thread that is started later runs where its parent does.
#[derive(Debug)]
pub(crate) struct Halves {
    all: CpuSet,
    clients: CpuSet,
    servers: CpuSet,
}

impl Halves {
    /// Splits the cores that this thread may use. With one core, both halves are that one.
    pub(crate) fn split() -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| all.is_set(*core))
            .collect();
        let (clients, servers) = cores.split_at(cores.len() / 2);
        let clients = if clients.is_empty() { servers } else { clients };
        Ok(Self {
            all,
            clients: set(clients),
            servers: set(servers),
        })
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.count().try_into().unwrap_or(1)
    }

    pub(crate) fn servers(&self) -> usize {
        self.servers.count().try_into().unwrap_or(1)
    }

    /// Confines this thread to the servers' half while `start` starts them, and then to the clients'.
    pub(crate) fn place<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(None, &self.servers)?;
        let started = start();
        sched_setaffinity(None, &self.clients)?;
        started
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        // It was allowed before, and what comes next only measures more slowly otherwise.
        let _ = sched_setaffinity(None, &self.all);
    }
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// The processor time that this process has used, in all its threads.
pub(crate) fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

//! What the kernel tells of a process: its private memory, how long its threads have run, and how many files it may open.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Result;

/// Lets this process, and those that it starts, open as many files as the system grants it. Each connection is one, and the usual limit is
/// low.
pub(crate) fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Memory that a process shares with no other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// All of it, in MiB, with the pages of its program that no other process has mapped.
    pub(crate) private: f64,
    /// What of that the process has written to: it could not be read again from a file.
    pub(crate) written: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Self::parse(&rollup).ok_or_else(|| "smaps_rollup does not tell private memory".into())
    }

    fn parse(rollup: &str) -> Option<Self> {
        let mebibytes = |field: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(field))?;
            let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kibibytes / 1024.0)
        };
        let written = mebibytes("Private_Dirty:")?;
        Some(Self {
            private: written + mebibytes("Private_Clean:")?,
            written,
        })
    }
}

/// How long threads ran on a core, and how often they were put on one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) time: Duration,
    pub(crate) times: u64,
}

/// Tells how the threads of a process ran since it was asked last. Of a thread that has ended meanwhile, it misses the last part.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    threads: BTreeMap<OsString, Ran>,
}

impl Meter {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let threads = threads(pid)?;
        Ok(Self { pid, threads })
    }

    pub(crate) fn since(&mut self) -> Result<Ran> {
        let now = threads(self.pid)?;
        let mut sum = Ran::default();
        for (thread, ran) in &now {
            let before = self.threads.get(thread).copied().unwrap_or_default();
            sum.time += ran.time.saturating_sub(before.time);
            sum.times += ran.times.saturating_sub(before.times);
        }
        self.threads = now;
        Ok(sum)
    }
}

fn threads(pid: u32) -> Result<BTreeMap<OsString, Ran>> {
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        // One that has just ended has no figures.
        let figures = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        if let Some(ran) = parse_schedstat(&figures) {
            threads.insert(thread.file_name(), ran);
        }
    }
    Ok(threads)
}

/// Nanoseconds on a core, nanoseconds of waiting for one, and how often it was given one.
fn parse_schedstat(figures: &str) -> Option<Ran> {
    let mut figures = figures.split_whitespace().map(str::parse);
    let (time, _, times) = (figures.next()?, figures.next()?, figures.next()?);
    Some(Ran {
        time: Duration::from_nanos(time.ok()?),
        times: times.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_what_was_written_and_what_was_not() {
        let rollup = "55-7f ---p 00000000 00:00 0    [rollup]\nRss:    4096 kB\nShared_Clean:  1000 kB\n\
            Private_Clean:      1024 kB\nPrivate_Dirty:      2048 kB\nPrivate_Hugetlb:   0 kB\n";
        let memory = Memory {
            private: 3.0,
            written: 2.0,
        };
        assert_eq!(Memory::parse(rollup), Some(memory));
        assert_eq!(Memory::parse("Rss:    4096 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory_of_its_own_and_runs() {
        let pid = std::process::id();
        assert!(Memory::of(pid).unwrap().written > 0.1);
        let mut meter = Meter::of(pid).unwrap();
        let mut ran = Ran::default();
        while ran.time.is_zero() {
            ran = meter.since().unwrap();
        }
        let figures = "132257568 162641702 255\n";
        let told = parse_schedstat(figures).unwrap();
        assert_eq!((told.time.as_millis(), told.times), (132, 255));
        assert_eq!(parse_schedstat(""), None);
    }
}

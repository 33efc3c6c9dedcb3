//! What descends from this process. A subreaper loses none of it: an orphan becomes its child, in whatever process group or session
//! it is.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// How long after a [`kill`] to look for what was forked meanwhile.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// All children of this process, the dead ones included that were not waited for.
pub(super) fn children() -> io::Result<Vec<Pid>> {
    let process = getpid().as_raw_pid();
    // Those of the main thread: it is what adopts, and what starts others here.
    children_of_thread(Path::new(&format!("/proc/{process}/task/{process}")))
}

/// All that descends from this process, but for the children that are `spared` and what descends from them.
pub(super) fn all(spared: &[Pid]) -> io::Result<Vec<Pid>> {
    let mut found = children()?;
    found.retain(|child| !spared.contains(child));
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        next += 1;
        // It may have died since.
        found.extend(children_of(process).unwrap_or_default());
    }
    Ok(found)
}

/// Sends a signal to each. No number can have become another process's: for that, all numbers would have to be used up since it was
/// found.
pub(super) fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // It fails if it has died, or has gained privileges that we have not.
        let _ = kill_process(*process, signal);
    }
}

/// Kills [all] descendants. Returns whether there were any, which then have to be waited for, and followed by another look.
pub(super) fn kill(spared: &[Pid]) -> io::Result<bool> {
    let found = all(spared)?;
    signal(&found, Signal::KILL);
    Ok(!found.is_empty())
}

fn children_of(process: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", process.as_raw_pid()))? {
        // Threads come and go.
        found.extend(children_of_thread(&thread?.path()).unwrap_or_default());
    }
    Ok(found)
}

fn children_of_thread(thread: &Path) -> io::Result<Vec<Pid>> {
    let children = fs::read_to_string(thread.join("children"))?;
    let children = children.split_ascii_whitespace();
    Ok(children
        .filter_map(|child| Pid::from_raw(child.parse().ok()?))
        .collect())
}

//! What the figures depend on: machine, kernel, compiler, versions.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use crate::report::Table;

/// The crates whose versions matter to a figure.
const CRATES: [&str; 18] = [
    "axum",
    "tonic",
    "hyper",
    "h2",
    "tower",
    "tokio",
    "arc-swap",
    "etcd-client",
    "reqwest",
    "zookeeper-client",
    "sd-cluster",
    "sd-consul",
    "sd-core",
    "sd-election",
    "sd-etcd",
    "sd-grpc",
    "sd-sidecar",
    "sd-zk",
];
const LOCK: &str = include_str!("../../../Cargo.lock");

/// What hardly changes from one run to the next.
pub(crate) fn conditions() -> Table {
    let mut table = Table::new(["condition", "value"]);
    let system = rustix::system::uname();
    let versions: Vec<String> = CRATES
        .iter()
        .filter_map(|name| Some(format!("{name} {}", version(LOCK, name)?)))
        .collect();
    let rows = [
        ("processor", processor()),
        (
            "kernel",
            format!(
                "{} {}",
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy()
            ),
        ),
        ("compiler", compiler()),
        (
            "profile",
            "release, thin LTO, the system's allocator".to_owned(),
        ),
        ("crates", versions.join(", ")),
    ];
    for (condition, value) in rows {
        table.row([condition, &value]);
    }
    table
}

/// When a run begins and how, in a sentence.
pub(crate) fn moment(quick: bool) -> String {
    let mode = if quick {
        "a quick run, too short for conclusions"
    } else {
        "a full run"
    };
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    format!(
        "Measured {now}, in {mode}; load average before it {}.",
        load()
    )
}

/// The version of a crate in the lock file; the highest, if there are several.
fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let after = lock.rsplit_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.1.split('"').next()
}

fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown model".to_owned());
    format!("{model}, {cores} cores")
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg").map_or_else(
        |_| "unknown".to_owned(),
        |text| text.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}

fn compiler() -> String {
    Command::new("rustc")
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_is_named_is_in_the_lock_file() {
        for name in CRATES {
            assert!(version(LOCK, name).is_some(), "{name}");
        }
    }
}

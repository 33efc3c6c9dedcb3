//! A short run with fixed choices over each backend: that everything works together, and that nothing is broken that breaks at once.

use std::io;
use std::path::Path;
use std::process::Command;

/// Whether the run was good, and all that it said.
fn quick_run(backend: &str, what: &[&str]) -> io::Result<(bool, String)> {
    let histories = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--backend", backend, "--quick", "--seed", "1"])
        .args(what)
        .arg("--histories")
        .arg(histories.join(backend))
        .output()?;
    let rounds = String::from_utf8_lossy(&output.stderr);
    let report = String::from_utf8_lossy(&output.stdout);
    Ok((output.status.success(), format!("{rounds}\n{report}")))
}

#[test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
fn a_quick_run_breaks_no_promise_and_catches_the_naive_candidate() {
    let (good, said) = quick_run("etcd", &[]).unwrap();
    assert!(good, "{said}");
}

#[test]
#[ignore = "needs Consul: cargo xtask test --backend consul"]
fn a_quick_run_over_consul_breaks_no_promise_and_catches_the_naive_candidate() {
    let (good, said) = quick_run("consul", &[]).unwrap();
    assert!(good, "{said}");
}

#[test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
fn a_quick_run_over_zookeeper_breaks_no_promise_and_catches_the_naive_candidate() {
    let (good, said) = quick_run("zk", &[]).unwrap();
    assert!(good, "{said}");
}

#[test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
fn a_quick_run_over_redis_breaks_no_promise_and_catches_the_naive_candidate() {
    let (good, said) = quick_run("redis", &[]).unwrap();
    assert!(good, "{said}");
}

#[test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
fn a_quick_run_of_discovery_breaks_no_promise_and_catches_the_naive_reader() {
    let (good, said) = quick_run("etcd", &["--discovery"]).unwrap();
    assert!(good, "{said}");
}

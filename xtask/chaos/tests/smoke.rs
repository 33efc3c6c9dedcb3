//! A short run with fixed choices: that everything works together, and that nothing is broken that breaks at once.

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
fn a_quick_run_breaks_no_promise_and_catches_the_naive_candidate() {
    let histories = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--backend", "etcd", "--quick", "--seed", "1", "--histories"])
        .arg(&histories)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let rounds = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{rounds}\n{report}");
}

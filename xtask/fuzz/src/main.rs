//! LLVM's fuzzer, driving the target that `SD_FUZZ_TARGET` names. Its arguments are the fuzzer's: files are tried, folders hold a corpus.

#![no_main]

use std::sync::OnceLock;

use fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("SD_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.into_iter().find(|target| target.name == name);
        TARGET.get_or_init(|| target.expect("SD_FUZZ_TARGET names a target"));
        if std::env::var_os("SD_FUZZ_PLANTED").is_some() {
            fuzz::plant();
        }
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);

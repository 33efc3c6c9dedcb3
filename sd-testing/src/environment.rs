//! The contract with `cargo xtask test`: variables that name real servers.
//!
//! `SD_TEST_ETCD` is the URL of a running server. `SD_TEST_ETCD_BIN` is its program, for tests that kill and freeze their own
//! servers. Every other backend has the same variables.

use sd_core::{Error, ErrorKind, Result};

/// The value of a variable that `cargo xtask test` sets.
///
/// # Errors
/// `NotFound` with the command to run if the variable is not set: a test that was asked for must not pass without its server.
pub fn required_env(name: &str) -> Result<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| {
            let backend = backend_of(name);
            Error::new(ErrorKind::NotFound, "test environment").because(format!(
                "{name} is not set, run: cargo xtask test --backend {backend}"
            ))
        })
}

/// `SD_TEST_ETCD_BIN` belongs to `etcd`.
fn backend_of(name: &str) -> String {
    let rest = name.strip_prefix("SD_TEST_").unwrap_or(name);
    let backend = rest.split('_').next().unwrap_or(rest);
    backend.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_says_what_to_run() {
        let error = required_env("SD_TEST_NOSUCHSERVER_BIN").unwrap_err();
        let text = error.report().to_string();
        assert!(
            text.contains("SD_TEST_NOSUCHSERVER_BIN is not set")
                && text.ends_with("run: cargo xtask test --backend nosuchserver"),
            "{text}"
        );
    }
}

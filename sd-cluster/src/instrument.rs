//! The metrics that this crate emits through the `metrics` facade. Names and labels are stable.

use metrics::{counter, gauge};

/// Gauge, label `module`: 1 while the session of the module is established, else 0.
pub const SESSION: &str = "sd_cluster_session";
/// Counter, label `module`: sessions that were established.
pub const SESSIONS: &str = "sd_cluster_sessions_total";
/// Counter, labels `module` and `outcome` (`applied`, `rejected`): configurations that came and differed from the last one that was
/// applied.
pub const CONFIGS: &str = "sd_cluster_configs_total";
/// Gauge, label `module`: 1 while the last configuration that came is rejected, else 0.
pub const CONFIG_REJECTED: &str = "sd_cluster_config_rejected";

pub(crate) fn session(module: &str, is_established: bool) {
    let value = if is_established { 1.0 } else { 0.0 };
    gauge!(SESSION, "module" => module.to_owned()).set(value);
    if is_established {
        counter!(SESSIONS, "module" => module.to_owned()).increment(1);
    }
}

/// A configuration was applied or rejected.
pub(crate) fn config(module: &str, is_applied: bool) {
    let outcome = if is_applied { "applied" } else { "rejected" };
    counter!(CONFIGS, "module" => module.to_owned(), "outcome" => outcome).increment(1);
    config_in_use(module, is_applied);
}

/// Whether the configuration that came last is in use.
pub(crate) fn config_in_use(module: &str, is_so: bool) {
    let rejected = if is_so { 0.0 } else { 1.0 };
    gauge!(CONFIG_REJECTED, "module" => module.to_owned()).set(rejected);
}

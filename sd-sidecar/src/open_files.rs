//! The limit of open files. Each connection is one, and the usual limit is low.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Raises this process's limit of open files to the highest that the system grants it. Logs why if it cannot.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files cannot be raised");
    }
}

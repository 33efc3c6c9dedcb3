//! Writes to Redis that only the current leader can make.

use sd_backend::backend_of;
use sd_core::port::CandidateId;
use sd_core::{ElectionName, Error, FencingToken, Registry, Result};

use crate::backend::RedisBackend;
use crate::client::topology::slot_of;
use crate::config::topology::Topology;
use crate::election::keys::ElectionKeys;
use crate::election::scripts::LEADS;

/// How the answer of a guarded script begins that did nothing because the term is over.
pub const TERM_OVER: &str = "TERMOVER";

/// What makes a script of your own one that only the leader can run: see [`leads`].
#[derive(Clone, Debug)]
pub struct LeaderGuard {
    name: ElectionName,
    keys: [String; 3],
    args: [String; 3],
    is_in_cluster: bool,
}

/// A guard for your own scripts on the Redis of `registry`. A guarded script runs only as long as the term lasts that the candidate `id` won
/// with `token` in the election `name`. Redis checks that and runs the script as one, so it refuses the writes of a former leader, whatever
/// that leader believes. Otherwise the script does nothing, and its answer is an error that begins with [`TERM_OVER`].
///
/// The arguments are `leadership.name()`, `leadership.id()` and `leadership.token()`. The crate's documentation has an example.
///
/// It holds at the server that has the election. Where a replica has taken the place of a primary that is still reached by some, both have
/// one, and each checks against what it has: see [`Safety`](sd_core::port::Safety).
///
/// Asks nothing of Redis; it is async like the same call on the other backends.
///
/// # Errors
/// `InvalidInput` if `registry` is not over Redis.
pub async fn leads(
    registry: &Registry,
    name: &ElectionName,
    id: CandidateId,
    token: &FencingToken,
) -> Result<LeaderGuard> {
    let backend: &RedisBackend = backend_of("redis: guard write", registry, "sd_redis::connect")?;
    let config = backend.client.config();
    let keys = ElectionKeys::new(&config.election_prefix, name);
    let (domain, token) = (token.domain().to_owned(), token.value().to_string());
    Ok(LeaderGuard {
        name: name.clone(),
        keys: [keys.order, keys.leases, keys.history],
        args: [domain, id.to_string(), token],
        is_in_cluster: config.topology == Topology::Cluster,
    })
}

impl LeaderGuard {
    /// Your script behind the guard. What it finds in `KEYS` and `ARGV` begins with your own, in their order. A first line with flags, such
    /// as `#!lua flags=allow-oom`, stays the first.
    pub fn script(&self, script: &str) -> String {
        let (flags, rest) = match script.split_once('\n') {
            Some((first, rest)) if first.starts_with("#!") => (Some(first), rest),
            None if script.starts_with("#!") => (Some(script), ""),
            _ => (None, script),
        };
        match flags {
            Some(flags) => format!("{flags}\n{LEADS}{rest}"),
            None => format!("{LEADS}{rest}"),
        }
    }

    /// The keys of a guarded script: yours, and behind them those of the guard.
    ///
    /// # Errors
    /// `InvalidInput` in a Cluster, if a key of yours is not in the slot of the election: no script can change both as one. Put the name
    /// of the election in braces into the key, for instance `report:{reports/nightly}`.
    pub fn keys<K: Into<String>>(&self, yours: impl IntoIterator<Item = K>) -> Result<Vec<String>> {
        let mut keys: Vec<String> = yours.into_iter().map(Into::into).collect();
        let name = self.name.as_str();
        let is_elsewhere = |key: &&String| self.is_in_cluster && slot_of(key) != slot_of(name);
        if let Some(key) = keys.iter().find(is_elsewhere) {
            let why = format!(
                "the key {key:?} may be at another node of the Cluster than the election: put {{{name}}} into it, for instance \
                 report:{{{name}}}"
            );
            return Err(Error::invalid_input("redis: guard write", why));
        }
        keys.extend_from_slice(&self.keys);
        Ok(keys)
    }

    /// The arguments of a guarded script: yours, and behind them those of the guard.
    pub fn args<A: Into<Vec<u8>>>(&self, yours: impl IntoIterator<Item = A>) -> Vec<Vec<u8>> {
        let yours = yours.into_iter().map(Into::into);
        let own = self.args.iter().map(|arg| arg.as_bytes().to_vec());
        yours.chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    fn guard(is_in_cluster: bool) -> LeaderGuard {
        let name = ElectionName::new("reports/nightly").unwrap();
        let keys = ElectionKeys::new("elections", &name);
        LeaderGuard {
            name,
            keys: [keys.order, keys.leases, keys.history],
            args: ["d", "i", "7"].map(str::to_owned),
            is_in_cluster,
        }
    }

    #[test]
    fn what_is_yours_comes_first() {
        let guard = guard(false);
        let keys = guard.keys(["a", "b"]).unwrap();
        assert_eq!(keys[..3], ["a", "b", "elections:{reports/nightly}:order"]);
        assert_eq!(keys.len(), 5);
        assert_eq!(guard.args(["x"]), [b"x", b"d", b"i", b"7"]);
        assert!(guard.script("return 1").ends_with("end\nreturn 1"));
    }

    #[test]
    fn a_line_with_flags_stays_the_first() {
        let guard = guard(false);
        let script = guard.script("#!lua flags=allow-oom\r\nreturn 1");
        assert!(
            script.starts_with("#!lua flags=allow-oom\r\n-- "),
            "{script}"
        );
        assert!(script.ends_with("end\nreturn 1"), "{script}");
        let script = guard.script("#!lua");
        assert!(script.starts_with("#!lua\n-- ") && script.ends_with("end\n"));
    }

    #[test]
    fn in_a_cluster_a_key_in_another_slot_is_refused_with_what_to_write() {
        let guard = guard(true);
        guard.keys(["a:{reports/nightly}"]).unwrap();
        // As a whole it is hashed to the same.
        guard.keys(["reports/nightly"]).unwrap();
        let error = guard
            .keys(["a:{reports/nightly}", "a:{other}"])
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(
            report.contains("a:{other}") && report.contains("{reports/nightly}"),
            "{report}"
        );
    }
}

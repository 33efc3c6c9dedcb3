//! Writes to etcd that only the current leader can make.

use etcd_client::{Compare, CompareOp};
use sd_backend::backend_of;
use sd_core::port::CandidateId;
use sd_core::{ElectionName, FencingToken, Registry, Result};

use crate::backend::EtcdBackend;
use crate::election::keys::ElectionKeys;

/// A condition for your own transactions on the cluster of `registry`. It is true as long as the term lasts that the candidate `id` won
/// with `token` in the election `name`. etcd checks it and writes atomically, so it refuses the writes of a former leader, whatever that
/// leader believes.
///
/// The arguments are `leadership.name()`, `leadership.id()` and `leadership.token()`. The crate's documentation has an example.
///
/// The token's [domain](FencingToken::domain) is the id of the cluster in which it was won, in 16 hexadecimal digits. It is not
/// compared: in another cluster no candidate has this random id, so the condition is false there.
///
/// Asks nothing of etcd; it is async like the same call on the other backends.
///
/// # Errors
/// `InvalidInput` if `registry` is not over etcd.
pub async fn leads(
    registry: &Registry,
    name: &ElectionName,
    id: CandidateId,
    token: &FencingToken,
) -> Result<Compare> {
    let backend: &EtcdBackend = backend_of("etcd: guard write", registry, "sd_etcd::connect")?;
    let prefix = backend
        .client
        .config()
        .election_prefix
        .trim_end_matches('/');
    let key = ElectionKeys::new(prefix, name).entry(id);
    // A number that is no revision is never found: 0 would stand for a key that is not there.
    let created = i64::try_from(token.value())
        .ok()
        .filter(|created| *created > 0);
    let created = created.unwrap_or(i64::MAX);
    Ok(Compare::create_revision(key, CompareOp::Equal, created))
}

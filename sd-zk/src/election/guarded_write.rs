//! Writes to ZooKeeper that only the current leader can make.

use sd_backend::backend_of;
use sd_core::port::CandidateId;
use sd_core::{ElectionName, Error, ErrorKind, FencingToken, Registry, Result};
use zookeeper_client as zk;

use crate::backend::ZkBackend;
use crate::client::error::{for_readers, translate};
use crate::client::session::Session;
use crate::election::keys::ElectionKeys;

/// The path of a node for a check in your own multi on the ensemble of `registry`, with any version. The node is there as long as the term
/// lasts that the candidate `id` won with `token` in the election `name`. ZooKeeper checks it and writes atomically, so it refuses the
/// writes of a former leader, whatever that leader believes.
///
/// The arguments are `leadership.name()`, `leadership.id()` and `leadership.token()`. The path is seen from the chroot of the registry; no
/// other node ever has it. The crate's documentation has an example.
///
/// Reads the names of the candidates, once for each call: ask once in each term.
///
/// # Errors
/// `InvalidInput` if `registry` is not over ZooKeeper. `LeaseLost` if the term is over. Otherwise why the server did not answer.
pub async fn leads(
    registry: &Registry,
    name: &ElectionName,
    id: CandidateId,
    token: &FencingToken,
) -> Result<String> {
    const OP: &str = "zk: guard write";
    let backend: &ZkBackend = backend_of(OP, registry, "sd_zk::connect")?;
    let keys = ElectionKeys::new(backend.client.config(), name);
    let find = async |session: Session| find(&session, OP, &keys, id, token).await;
    let found = backend.client.read(OP, find).await.map_err(for_readers)?;
    found.ok_or_else(|| {
        let why = format!(
            "the term of {id} in {name} with the token {} is over",
            token.value()
        );
        Error::new(ErrorKind::LeaseLost, OP).because(why)
    })
}

/// The node that the candidate leads with.
async fn find(
    session: &Session,
    op: &'static str,
    keys: &ElectionKeys,
    id: CandidateId,
    token: &FencingToken,
) -> Result<Option<String>> {
    let client = session.client(op).await?;
    // This session may be at another member than the candidate's, which has not heard of it yet.
    let synced = session.answer(op, client.sync("/"));
    let nodes = session.answer(op, client.list_children(keys.candidates()));
    let nodes = match tokio::try_join!(synced, nodes)? {
        (Err(error), _) => return Err(translate(op, error)),
        (Ok(()), Err(zk::Error::NoNode)) => return Ok(None),
        (Ok(()), nodes) => nodes.map_err(|error| translate(op, error))?,
    };
    for node in nodes.iter().filter(|node| keys.id_of(node) == Some(id)) {
        let path = keys.candidate(node);
        let stat = session.call(op, client.check_stat(&path)).await?;
        if stat.is_some_and(|stat| u64::try_from(stat.czxid) == Ok(token.value())) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

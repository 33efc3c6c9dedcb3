//! Writes to Consul that only the current leader can make.

use sd_backend::backend_of;
use sd_core::port::CandidateId;
use sd_core::{ElectionName, Error, ErrorKind, FencingToken, Registry, Result};
use serde::Serialize;

use crate::backend::ConsulBackend;
use crate::client::kv::KvOp;
use crate::election::keys::ElectionKeys;
use crate::election::leader_record;
use crate::election::token_domain;

/// A step for your own transactions. The whole transaction fails unless a certain term still lasts. It serializes to what
/// `PUT /v1/txn` accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leads {
    key: String,
    session: String,
}

impl Leads {
    /// The key that the leader has locked.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The session that holds the lock.
    pub fn session(&self) -> &str {
        &self.session
    }
}

impl Serialize for Leads {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        KvOp::check_session(&self.key, &self.session).serialize(serializer)
    }
}

/// A step for your own transactions in the datacenter of `registry`. It succeeds as long as the term lasts that the candidate `id` won
/// with `token` in the election `name`. Consul checks the step and writes atomically, so it refuses the writes of a former leader,
/// whatever that leader believes. Call this once for each term.
///
/// The arguments are `leadership.name()`, `leadership.id()` and `leadership.token()`. The crate's documentation has an example.
///
/// # Errors
/// `InvalidInput` if `registry` is not over Consul, `Conflict` if the term is over. Otherwise why Consul did not answer.
pub async fn leads(
    registry: &Registry,
    name: &ElectionName,
    id: CandidateId,
    token: &FencingToken,
) -> Result<Leads> {
    const OP: &str = "consul: guard write";
    let backend: &ConsulBackend = backend_of(OP, registry, "sd_consul::connect")?;
    let client = &backend.client;
    let keys = ElectionKeys::new(&client.config().election_prefix, name);
    let (domain, read) = tokio::join!(
        token_domain::find(client, OP, &keys),
        client.kv_get(OP, keys.leader()),
    );
    let domain = domain?.unwrap_or_default();
    let leader = read?.0;
    let current = leader.filter(|leader| {
        leader_record::leader(leader, &domain)
            .is_some_and(|leader| leader.id == Some(id) && leader.token == *token)
    });
    match current {
        Some(leader) => Ok(Leads {
            key: keys.leader().to_owned(),
            session: leader.session,
        }),
        None => Err(Error::new(ErrorKind::Conflict, OP)
            .because(format!("the term {token} of {id} in {name} is over"))),
    }
}

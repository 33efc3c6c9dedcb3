//! Writes to Consul that only the current leader can make.

use sd_core::port::CandidateId;
use sd_core::{ElectionName, Error, ErrorKind, FencingToken, Result};
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

impl ConsulBackend {
    /// A step for your own transactions in the same datacenter. It succeeds as long as the term lasts that the candidate `id` won with
    /// `token` in the election `name`. Consul checks the step and writes atomically, so it refuses the writes of a former leader,
    /// whatever that leader believes. Call this once for each term.
    ///
    /// ```no_run
    /// use sd_consul::{ConsulBackend, ConsulConfig};
    /// use sd_core::port::CandidateId;
    /// use sd_core::{ElectionName, FencingToken, Result};
    /// use serde_json::json;
    ///
    /// # async fn example(name: ElectionName, id: CandidateId, token: FencingToken) -> Result<()> {
    /// let consul = ConsulBackend::new(ConsulConfig::new(["10.0.0.1:8500"]))?;
    /// let leads = consul.leads(&name, id, &token).await?;
    /// let write = json!({"KV": {"Verb": "set", "Key": "reports/nightly/last", "Value": "MjAzMS0wMi0wMw=="}});
    /// // The body of a `PUT /v1/txn`. If Consul answers 409, the term is over, and nothing was written.
    /// let body = json!([leads, write]);
    /// # drop(body);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Conflict` if the term is over. Otherwise why Consul did not answer.
    pub async fn leads(
        &self,
        name: &ElectionName,
        id: CandidateId,
        token: &FencingToken,
    ) -> Result<Leads> {
        const OP: &str = "consul: guard write";
        let client = self.client();
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
}

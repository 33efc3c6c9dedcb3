//! Writes to etcd that only the current leader can make.

use etcd_client::{Compare, CompareOp};
use sd_core::port::CandidateId;
use sd_core::{ElectionName, FencingToken};

use crate::config::EtcdConfig;
use crate::election::keys::ElectionKeys;

impl EtcdConfig {
    /// A condition for your own transactions on the same cluster. It is true as long as the term lasts that candidate `id` won with
    /// `token` in the election `name`. etcd checks it and writes in one step, so a write of an earlier leader is refused, even if that
    /// leader still believes that it leads.
    ///
    /// ```no_run
    /// use sd_core::port::CandidateId;
    /// use sd_core::{ElectionName, FencingToken};
    /// use sd_etcd::EtcdConfig;
    /// use sd_etcd::etcd_client::{Client, Error, Txn, TxnOp};
    ///
    /// # async fn example(name: ElectionName, id: CandidateId, token: FencingToken) -> Result<bool, Error> {
    /// let config = EtcdConfig::new(["http://10.0.0.1:2379"]);
    /// let mut client = Client::connect(["http://10.0.0.1:2379"], None).await?;
    /// let report = Txn::new()
    ///     .when([config.leads(&name, id, &token)])
    ///     .and_then([TxnOp::put("/reports/nightly/last", "2031-02-03", None)]);
    /// Ok(client.txn(report).await?.succeeded())
    /// # }
    /// ```
    ///
    /// The token's [domain](FencingToken::domain) is the id of the cluster in which it was won, in 16 hexadecimal digits. It is not
    /// compared: in another cluster no candidate has this random id, so the condition is false there.
    #[must_use]
    pub fn leads(&self, name: &ElectionName, id: CandidateId, token: &FencingToken) -> Compare {
        let prefix = self.election_prefix.trim_end_matches('/');
        let key = ElectionKeys::new(prefix, name).entry(id);
        // A number that is no revision is never found: 0 would stand for a key that is not there.
        let created = i64::try_from(token.value())
            .ok()
            .filter(|created| *created > 0);
        let created = created.unwrap_or(i64::MAX);
        Compare::create_revision(key, CompareOp::Equal, created)
    }
}

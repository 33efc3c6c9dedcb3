//! Writing: each record is an ephemeral node of the one session that all records of a registry share.
//!
//! A record is ours if it says our incarnation, or if its node is of a session in which this client wrote that id. Anything else under its
//! id is another's and is never touched. ZooKeeper compares the version of a node, but not which node it is: one that was deleted and
//! made again between a read and a write may have the same version. So each write follows a read at once, and a record that is being
//! withdrawn is not written meanwhile.

use std::sync::Arc;

use async_trait::async_trait;
use sd_backend::{Owner, Record};
use sd_core::port::{Attempt, Limits, Registration};
use sd_core::{Error, ErrorKind, Instance, RecordId, Registrar, Result};
use zookeeper_client::{self as zk, CreateMode};

use crate::client::Client;
use crate::client::error::translate;
use crate::client::parents::make_parents;
use crate::client::session::Session;
use crate::codec::reception::protected_name;
use crate::codec::{Layout, Place};
use crate::config::rules::SESSION_TIMEOUTS;
use crate::writing::claims::Claims;
use crate::writing::records::{Found, MOST_ROUNDS, Records, changes_too_fast};
use crate::writing::registration::{Node, ZkRegistration};
use crate::writing::withdrawals::Withdrawals;

/// Far below what ZooKeeper takes in one request (1 MiB by default), and large enough for any sensible metadata.
const MOST_RECORD_BYTES: usize = 64 * 1024;

/// Writes records to one ensemble.
#[derive(Debug)]
pub(crate) struct ZkRegistrar {
    client: Arc<Client>,
    layout: Layout,
    limits: Limits,
    claims: Arc<Claims>,
    withdrawals: Withdrawals,
}

impl ZkRegistrar {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        let claims = Arc::<Claims>::default();
        let withdrawals =
            Withdrawals::new(Arc::clone(&client), layout.clone(), Arc::clone(&claims));
        Self {
            withdrawals,
            client,
            layout,
            limits: Limits::new(SESSION_TIMEOUTS, MOST_RECORD_BYTES),
            claims,
        }
    }

    /// Makes the node of a record, or takes the one that an earlier attempt has made. Returns it.
    async fn put(
        &self,
        records: Records<'_>,
        record: &RecordId,
        instance: &Instance,
    ) -> Result<Node> {
        let (op, session) = (records.op, records.session);
        let client = session.client(op).await?;
        let data = self.layout.encode(op, instance)?;
        let options = CreateMode::Ephemeral.with_acls(self.client.acls());
        let (folder, path) = match self.layout.place(record) {
            Place::Node(path) => (self.layout.folder(&record.service), path),
            Place::Sequential {
                folder,
                node_prefix,
            } => {
                return self
                    .put_sequential(records, record, instance, &folder, &node_prefix)
                    .await;
            }
        };
        for _ in 0..MOST_ROUNDS {
            match session
                .answer(op, client.create(&path, &data, &options))
                .await?
            {
                Ok((stat, _)) => {
                    self.claims.made(record, session.id());
                    let czxid = stat.czxid;
                    return Ok(Node { path, czxid });
                }
                Err(zk::Error::NoNode) => {
                    make_parents(session, self.client.acls(), op, &folder).await?;
                    continue;
                }
                Err(zk::Error::NodeExists) => {}
                Err(error) => return Err(translate(op, error)),
            }
            let Some(found) = records.read(record, &path).await? else {
                continue;
            };
            if let Some(czxid) = self.take_over(records, record, instance, &found).await? {
                return Ok(Node { path, czxid });
            }
        }
        Err(changes_too_fast(op, record))
    }

    /// In reception's layout each run has a node of its own name.
    async fn put_sequential(
        &self,
        records: Records<'_>,
        record: &RecordId,
        instance: &Instance,
        folder: &str,
        node_prefix: &str,
    ) -> Result<Node> {
        let (op, session) = (records.op, records.session);
        let client = session.client(op).await?;
        let data = self.layout.encode(op, instance)?;
        let options = CreateMode::EphemeralSequential.with_acls(self.client.acls());
        for _ in 0..MOST_ROUNDS {
            let Some(nodes) = records.nodes(folder).await? else {
                make_parents(session, self.client.acls(), op, folder).await?;
                continue;
            };
            let under_id = |node: &&String| {
                protected_name(node).is_some_and(|protected| protected.id == record.id.as_str())
            };
            if let Some(node) = nodes.iter().find(under_id) {
                let path = format!("{folder}/{node}");
                let Some(found) = records.read(record, &path).await? else {
                    continue;
                };
                if let Some(czxid) = self.take_over(records, record, instance, &found).await? {
                    return Ok(Node { path, czxid });
                }
                continue;
            }
            let path = format!("{folder}/{node_prefix}");
            match session
                .answer(op, client.create(&path, &data, &options))
                .await?
            {
                Ok((stat, sequence)) => {
                    self.claims.made(record, session.id());
                    let (path, czxid) = (format!("{path}{sequence}"), stat.czxid);
                    return Ok(Node { path, czxid });
                }
                Err(zk::Error::NoNode) => {}
                Err(error) => return Err(translate(op, error)),
            }
        }
        Err(changes_too_fast(op, record))
    }

    /// Makes a node that was found under the record's id the record's, if it is ours. Returns which change made it; `None` if it
    /// changed meanwhile.
    async fn take_over(
        &self,
        records: Records<'_>,
        record: &RecordId,
        instance: &Instance,
        found: &Found,
    ) -> Result<Option<i64>> {
        let (op, session) = (records.op, records.session);
        let client = session.client(op).await?;
        let (path, version) = (found.path.as_str(), Some(found.stat.version));
        if !self.claims.has(record, found.stat.ephemeral_owner) {
            Owner::of(&found.stored, record).check_writable(op, path)?;
        }
        let done = if found.stat.ephemeral_owner == session.id() {
            let data = self.layout.update(op, &found.data, instance)?;
            if data == found.data {
                return Ok(Some(found.stat.czxid));
            }
            let written = session
                .answer(op, client.set_data(path, &data, version))
                .await?;
            written.map(|stat| Some(stat.czxid))
        } else {
            // It would go with an earlier session, which may take a while. What others have said of this run goes on to the new node.
            let data = match &found.stored {
                Ok(Record::Live(stored)) if self.is_run(stored, record) => {
                    self.layout.update(op, &found.data, instance)?
                }
                _ => self.layout.encode(op, instance)?,
            };
            let options = CreateMode::Ephemeral.with_acls(self.client.acls());
            let mut writer = client.new_multi_writer();
            let added = writer.add_delete(path, version);
            let added = added.and_then(|()| writer.add_create(path, &data, &options));
            added.map_err(|error| translate(op, error))?;
            let written = session.answer(op, writer.commit()).await?;
            let results = written.map_err(zk::Error::from);
            results.map(|results| {
                // Before 3.9, ZooKeeper does not tell it: the node is read again.
                results.into_iter().find_map(|result| match result {
                    zk::MultiWriteResult::Create { stat, .. } if !stat.is_invalid() => {
                        Some(stat.czxid)
                    }
                    _ => None,
                })
            })
        };
        match done {
            Ok(czxid) => Ok(czxid),
            Err(zk::Error::BadVersion | zk::Error::NoNode | zk::Error::NodeExists) => Ok(None),
            Err(error) => Err(translate(op, error)),
        }
    }

    fn is_run(&self, stored: &Instance, record: &RecordId) -> bool {
        self.layout.says_run() && stored.incarnation() == record.incarnation
    }

    async fn register_in(
        &self,
        op: &'static str,
        session: &Session,
        record: &Instance,
    ) -> Result<Node> {
        let records = Records {
            session,
            layout: &self.layout,
            op,
        };
        let id = record.record_id();
        self.claims.claim(&id, session.id());
        let put = self.put(records, &id, record).await;
        if let Err(error) = &put
            && error.kind() == ErrorKind::Conflict
        {
            self.claims.forget(&id);
        }
        put
    }
}

#[async_trait]
impl Registrar for ZkRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        Ok(self.layout.encode("zk: register", record)?.len())
    }

    async fn register(
        &self,
        record: &Instance,
        _attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "zk: register";
        self.withdrawals.make_way(OP, &record.record_id()).await?;
        let mut session = self.client.session(OP).await?;
        let mut node = self.register_in(OP, &session, record).await;
        // It ended just now, and its client had not yet heard of it.
        if matches!(&node, Err(error) if error.kind() == ErrorKind::LeaseLost) {
            session = self.client.session(OP).await?;
            node = self.register_in(OP, &session, record).await;
        }
        Ok(Box::new(ZkRegistration {
            session,
            layout: self.layout.clone(),
            record: record.record_id(),
            node: node?,
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        self.withdrawals.withdraw(record).await
    }

    fn abandoned(&self, record: &RecordId) {
        self.withdrawals.abandoned(record);
    }

    async fn release(&self, record: &RecordId) -> Result<()> {
        Err(
            Error::new(ErrorKind::Unsupported, "zk: release").because(format!(
                "the record of {:?} ends with the session of this registry",
                record.id
            )),
        )
    }
}

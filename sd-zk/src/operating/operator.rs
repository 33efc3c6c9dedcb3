//! What operators say of records, and the removal of records. Every write is guarded by the version of the node, at the server.
//!
//! An override is a field of the record's payload. It ends with the record, and readers have it with the record. The owner leaves it,
//! since it, too, writes only what it has read.

use std::sync::Arc;

use async_trait::async_trait;
use sd_backend::Record;
use sd_core::port::{Operator, check_run, no_such_record};
use sd_core::{Error, ErrorKind, Override, RecordId, Result};
use zookeeper_client as zk;

use crate::client::Client;
use crate::client::error::{for_readers, translate};
use crate::codec::{Layout, is_writable, set_override};
use crate::writing::records::{Found, MOST_ROUNDS, Records, changes_too_fast};

/// Changes records of other processes at one ensemble.
#[derive(Debug)]
pub(crate) struct ZkOperator {
    client: Arc<Client>,
    layout: Layout,
}

impl ZkOperator {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        Self { client, layout }
    }
}

/// The record that an operator means.
async fn find(records: Records<'_>, record: &RecordId) -> Result<Found> {
    let op = records.op;
    // The owner may have another member of the ensemble.
    records.sync().await?;
    let found = records.find_anywhere(record).await?;
    let found = found.ok_or_else(|| no_such_record(op, record))?;
    match &found.stored {
        Ok(stored) => check_run(op, record, stored.instance())?,
        Err(reason) => {
            return Err(Error::new(ErrorKind::InvalidData, op).because(format!(
                "{} holds something that is not a record: {reason}",
                found.path
            )));
        }
    }
    Ok(found)
}

#[async_trait]
impl Operator for ZkOperator {
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()> {
        let op = match wanted {
            Some(_) => "zk: set override",
            None => "zk: clear override",
        };
        let session = self.client.session(op).await.map_err(for_readers)?;
        let client = session.client(op).await.map_err(for_readers)?;
        let records = Records {
            session: &session,
            layout: &self.layout,
            op,
        };
        for _ in 0..MOST_ROUNDS {
            let found = find(records, record).await.map_err(for_readers)?;
            if matches!(found.stored, Ok(Record::Withdrawn(_))) {
                return Err(no_such_record(op, record));
            }
            let Some(data) = set_override(&found.data, wanted) else {
                return Err(Error::new(ErrorKind::Unsupported, op).because(format!(
                    "{} is kept in a form that has no room for an override: change it at its owner, or remove it",
                    found.path
                )));
            };
            if data == found.data {
                return Ok(());
            }
            if !is_writable(&data) {
                return Err(Error::new(ErrorKind::Rejected, op).because(format!(
                    "with an override, {} is too large for ZooKeeper: remove what others have added, or the record",
                    found.path
                )));
            }
            let version = Some(found.stat.version);
            let writing = client.set_data(&found.path, &data, version);
            let written = session.answer(op, writing).await.map_err(for_readers)?;
            match written {
                Ok(_) => return Ok(()),
                Err(zk::Error::BadVersion | zk::Error::NoNode) => {}
                Err(error) => return Err(for_readers(translate(op, error))),
            }
        }
        Err(changes_too_fast(op, record))
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "zk: remove record";
        let session = self.client.session(OP).await.map_err(for_readers)?;
        let records = Records {
            session: &session,
            layout: &self.layout,
            op: OP,
        };
        for _ in 0..MOST_ROUNDS {
            let found = find(records, record).await.map_err(for_readers)?;
            if records.remove(&found).await.map_err(for_readers)? {
                return Ok(());
            }
        }
        Err(changes_too_fast(OP, record))
    }
}

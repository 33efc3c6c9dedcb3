//! What operators say of records, and the removal of records. Every write is guarded by the record's modification, at the server.
//!
//! An override hangs on the lease of its record, and so ends with it.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use sd_backend::Record;
use sd_core::port::{Operator, check_run, no_such_record};
use sd_core::{Error, ErrorKind, Override, RecordId, Result};

use crate::client::Client;
use crate::client::answer::found_sets;
use crate::codec::overrides::{self, StoredOverride};
use crate::codec::{Layout, is_json};
use crate::writing::removal::{Beside, MOST_ROUNDS, Removal, changes_too_fast};

/// Changes records of other processes at one cluster.
#[derive(Debug)]
pub(crate) struct EtcdOperator {
    client: Arc<Client>,
    layout: Layout,
}

/// The record that an operator means.
#[derive(Debug)]
struct Found {
    key: String,
    entry: KeyValue,
    stored: Record,
    /// What lies where its override does.
    beside: Option<KeyValue>,
}

impl EtcdOperator {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        Self { client, layout }
    }

    /// Looks up the record of this run, where we or go-kit keep it.
    async fn find(&self, op: &'static str, record: &RecordId) -> Result<Found> {
        let keys = self.layout.keys(&record.service, &record.id);
        let beside = self.layout.override_key(&record.service, &record.id);
        let reads = keys.iter().chain(&beside);
        let reads: Vec<_> = reads.map(|key| TxnOp::get(key.as_str(), None)).collect();
        let answer = self
            .client
            .repeatable_txn(op, &Txn::new().and_then(reads))
            .await?;
        let mut sets = found_sets(&answer).into_iter();
        let places: Vec<_> = keys.into_iter().zip(sets.by_ref()).collect();
        let beside = sets.flatten().next();
        let found = places.into_iter().enumerate().find_map(|(at, (key, set))| {
            let entry = set.into_iter().next()?;
            // JSON where go-kit alone would write is of another service.
            (at == 0 || !is_json(entry.value())).then_some((key, entry))
        });
        let (key, entry) = found.ok_or_else(|| no_such_record(op, record))?;
        let stored = self.layout.stored_in(&entry, record).map_err(|reason| {
            Error::new(ErrorKind::InvalidData, op).because(format!(
                "{key} holds a value that is not a record: {reason}"
            ))
        })?;
        check_run(op, record, stored.instance())?;
        Ok(Found {
            key,
            entry,
            stored,
            beside,
        })
    }
}

impl Found {
    /// Where an override of this record is, if `key` is that place.
    fn override_place<'a>(&self, op: &'static str, key: Option<&'a str>) -> Result<&'a str> {
        let Some(key) = key.filter(|_| is_json(self.entry.value())) else {
            return Err(Error::new(ErrorKind::Unsupported, op).because(format!(
                "{} is kept as go-kit keeps it, where everything beside it is taken for an address: change it at its owner, or remove it",
                self.key
            )));
        };
        if self.beside.is_some() && !self.is_overridden() {
            return Err(Error::new(ErrorKind::Conflict, op).because(format!(
                "{key} holds an entry of another program, where the override would be: remove that"
            )));
        }
        Ok(key)
    }

    /// What lies at `key`, where its override would be.
    fn beside_at<'a>(&self, key: &'a str) -> Beside<'a> {
        Beside {
            key,
            revision: self.beside.as_ref().map_or(0, KeyValue::mod_revision),
            is_override: self.is_overridden(),
        }
    }

    /// Whether an override lies beside it, and not what another program keeps there.
    fn is_overridden(&self) -> bool {
        self.beside
            .as_ref()
            .is_some_and(|beside| overrides::is_override(beside.value()))
    }
}

#[async_trait]
impl Operator for EtcdOperator {
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()> {
        let op = match wanted {
            Some(_) => "etcd: set override",
            None => "etcd: clear override",
        };
        let key = self.layout.override_key(&record.service, &record.id);
        for _ in 0..MOST_ROUNDS {
            let found = self.find(op, record).await?;
            let key = found.override_place(op, key.as_deref())?;
            if matches!(found.stored, Record::Withdrawn(_)) {
                return Err(no_such_record(op, record));
            }
            if found.entry.lease() == 0 {
                return Err(Error::new(ErrorKind::Unsupported, op).because(format!(
                    "{} has no lease, with which an override would end: change the record itself, or remove it",
                    found.key
                )));
            }
            let step = match wanted {
                None => TxnOp::delete(key, None),
                Some(said) => {
                    let overriding = StoredOverride {
                        said,
                        incarnation: record.incarnation,
                        created: found.entry.create_revision(),
                    };
                    let value = overrides::encode(&overriding).map_err(|error| {
                        Error::new(ErrorKind::InvalidInput, op).with_source(error)
                    })?;
                    let with_record = PutOptions::new().with_lease(found.entry.lease());
                    TxnOp::put(key, value, Some(with_record))
                }
            };
            let unchanged = [
                (found.key.as_str(), found.entry.mod_revision()),
                (key, found.beside_at(key).revision),
            ];
            let unchanged =
                unchanged.map(|(key, at)| Compare::mod_revision(key, CompareOp::Equal, at));
            let txn = Txn::new().when(unchanged).and_then([step]);
            match self.client.txn(op, &txn).await {
                Ok(answer) if answer.succeeded() => return Ok(()),
                // Or the lease has just ended, and the record with it.
                Err(error) if error.kind() != ErrorKind::LeaseLost => return Err(error),
                _ => {}
            }
        }
        Err(changes_too_fast(
            op,
            &self.layout.key(&record.service, &record.id),
        ))
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "etcd: remove record";
        let key = self.layout.override_key(&record.service, &record.id);
        let mut was_announced = false;
        for _ in 0..MOST_ROUNDS {
            let found = match self.find(OP, record).await {
                // What was announced is gone, and its id may be taken again.
                Err(error)
                    if was_announced
                        && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) =>
                {
                    return Ok(());
                }
                found => found?,
            };
            let removal = Removal {
                client: &self.client,
                op: OP,
                key: &found.key,
                beside: key.as_deref().map(|key| found.beside_at(key)),
            };
            let announced = removal.announce(&found.entry, Some(&found.stored)).await?;
            let Some(last) = announced else {
                continue;
            };
            was_announced = true;
            if removal.delete(&found.entry, last).await? {
                return Ok(());
            }
        }
        Err(changes_too_fast(
            OP,
            &self.layout.key(&record.service, &record.id),
        ))
    }
}

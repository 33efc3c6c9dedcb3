//! Sessions over the embedded registry: one keeps all records of a client.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sd_core::RecordId;
use sd_core::memory::Memory;
use tokio::sync::watch;

use crate::flawed::Flaw;

/// All sessions of a store.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Vec<Arc<Session>>>);

#[derive(Debug)]
pub(crate) struct Session {
    records: Mutex<BTreeSet<RecordId>>,
    ended: watch::Sender<bool>,
}

impl Sessions {
    pub(crate) fn open(&self) -> Arc<Session> {
        let session = Arc::new(Session {
            records: Mutex::default(),
            ended: watch::Sender::new(false),
        });
        self.0.lock().unwrap().push(Arc::clone(&session));
        session
    }

    /// Ends the session that keeps this record.
    pub(crate) fn end_of(&self, record: &RecordId, memory: &Memory, flaw: Flaw) {
        for session in &*self.0.lock().unwrap() {
            if session.keeps(record) || flaw == Flaw::EndsAllSessions {
                session.end(memory, flaw);
            }
        }
    }
}

impl Session {
    /// Returns whether it is the first record.
    pub(crate) fn keep(&self, record: &RecordId) -> bool {
        let mut records = self.records.lock().unwrap();
        records.insert(record.clone());
        records.len() == 1
    }

    fn keeps(&self, record: &RecordId) -> bool {
        self.records.lock().unwrap().contains(record)
    }

    pub(crate) fn end(&self, memory: &Memory, flaw: Flaw) {
        if flaw != Flaw::KeepsTheRecordsOfAnEndedSession {
            for record in &*self.records.lock().unwrap() {
                memory.operator().remove(record);
            }
        }
        self.ended.send_replace(true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

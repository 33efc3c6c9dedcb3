//! Draining everything, before it is deregistered.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sd_core::sync::lock;
use tokio::time::timeout;
use tracing::warn;

use super::table::Slot;
use super::{Registrations, Selector, over};

impl Registrations {
    /// Has readers see everything as not ready, and returns once all is gone that they may have seen, or after `grace`. What was never at
    /// the registry is not waited for.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was begun goes on.
    pub async fn drain_all(&self, grace: Duration) {
        let slots: Vec<Arc<Slot>> = lock(&self.shared.table).slots().cloned().collect();
        let was_seen = |slot: &Arc<Slot>| slot.view.borrow().was_seen;
        let (seen, unseen): (Vec<_>, Vec<_>) = slots.into_iter().partition(was_seen);
        let gone = join_all(seen.iter().map(async |slot| {
            self.drain_one(slot, grace).await;
            over(slot).await;
        }));
        // What comes to be seen meanwhile is not ready.
        let others = join_all(unseen.iter().map(|slot| self.drain_one(slot, grace)));
        let all_gone = async {
            tokio::select! {
                _ = gone => {}
                () = async { others.await; pending().await } => {}
            }
        };
        // What is left then is deregistered all the same.
        let _ = timeout(grace, all_gone).await;
    }

    async fn drain_one(&self, slot: &Slot, grace: Duration) {
        let (owner, record) = {
            let entry = &slot.view.borrow().entry;
            (entry.owner.clone(), entry.record.clone())
        };
        let which = Selector::Record {
            service: record.service.to_string(),
            id: record.id.to_string(),
        };
        if let Err(error) = self.drain(&owner, &which, grace).await {
            warn!(?record, %error, "cannot be drained");
        }
    }
}

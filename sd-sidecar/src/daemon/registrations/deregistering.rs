//! Deregistering what a caller names.

use std::sync::Arc;

use futures_util::future::join_all;
use sd_core::sync::lock;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::entry::{Caller, Entry, Refused, Selector, Stage};
use super::keeping::{Command, unwithdrawn};
use super::table::Slot;
use super::{Registrations, over};

impl Registrations {
    /// Withdraws what is selected, and returns it as it is then. What is gone already is returned as it was. Returns after
    /// [`Settings::confirm_within`](super::Settings::confirm_within) at the latest: if the registry has not confirmed by then, the entry says
    /// so, and withdrawing goes on. The entry says as well if the state on disk still has it.
    ///
    /// # Errors
    /// `NotFound` or `NotYours`; nothing is changed then. `Stopping` after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// If the future is dropped, what was begun goes on.
    pub async fn deregister(&self, by: &Caller, which: &Selector) -> Result<Vec<Entry>, Refused> {
        let until = Instant::now() + self.confirm_within;
        let owned = self.owned(by, which);
        let parked = match &owned {
            Ok(_) | Err(Refused::NotFound(_)) => self.deregister_parked(by, which),
            Err(_) => Vec::new(),
        };
        let slots = match owned {
            Err(Refused::NotFound(_)) if !parked.is_empty() => {
                return Ok(self.forgotten(parked, until).await);
            }
            Err(Refused::NotFound(why)) => {
                let gone = lock(&self.shared.table).gone(which);
                let own: Vec<Entry> = gone
                    .into_iter()
                    .filter(|entry| entry.owner == *by)
                    .collect();
                return if own.is_empty() {
                    Err(Refused::NotFound(why))
                } else {
                    Ok(self.forgotten(own, until).await)
                };
            }
            slots => slots?,
        };
        let leaving = slots.iter().map(|slot| self.leave(slot, until));
        let left = self.forgotten(join_all(leaving).await, until).await;
        // One that is kept for the next agent has taken no more commands.
        if left.iter().any(|entry| entry.stage != Stage::Deregistered) {
            return Err(Refused::Stopping);
        }
        Ok(left)
    }

    async fn leave(&self, slot: &Arc<Slot>, until: Instant) -> Entry {
        // The rest is for the disk.
        let within = self.confirm_within * 4 / 5;
        let (reply, answer) = oneshot::channel();
        let command = Command::Deregister { within, reply };
        if slot.commands.send(command).await.is_ok()
            && let Ok(entry) = answer.await
        {
            return entry;
        }
        // It was leaving already.
        let is_over = timeout_at(until, over(slot)).await.is_ok();
        let mut entry = slot.entry();
        if !is_over {
            entry.stage = Stage::Deregistered;
            entry.error = Some(unwithdrawn(self.confirm_within));
        }
        entry
    }

    /// Waits until the disk no longer has what is gone, or has it said in each entry.
    async fn forgotten(&self, mut gone: Vec<Entry>, until: Instant) -> Vec<Entry> {
        if let Some(store) = &self.shared.store
            && let Err(why) = store.saved_now(until).await
        {
            for entry in &mut gone {
                let why = format!(
                    "the state on disk still has it, and an agent that is killed now brings it back: {why}"
                );
                entry.error = Some(match entry.error.take() {
                    Some(error) => format!("{error}; {why}"),
                    None => why,
                });
            }
        }
        gone
    }
}

//! The end of a registration's task.

use std::sync::Arc;

use sd_core::sync::lock;

use super::super::entry::{Key, Stage};
use super::super::shared::Shared;
use super::super::table::Slot;

/// Takes a registration out of the table when its task ends, however it ends.
pub(super) struct Leave {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    pub(super) slot: Arc<Slot>,
    pub(super) stays: bool,
}

impl Leave {
    /// It stays: the next agent goes on with it.
    pub(super) fn not(mut self) {
        self.stays = true;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let view = &self.slot.view;
        view.send_modify(|view| {
            view.unconfirmed_since = None;
            view.entry.stage = Stage::Deregistered;
        });
        lock(&self.shared.table).leave(&self.key, &self.slot);
        // Those who wait for this look at the table next.
        view.send_modify(|view| view.is_over = true);
        self.shared.changed();
        self.shared.save();
    }
}

//! How large the state may become: never larger than the next agent reads.

use std::sync::Mutex;

use sd_core::sync::lock;

use super::found::MOST_BYTES;
use crate::wire::Declaration;

/// What a registration takes beside its declaration and its instance, which says the same again: its owner, its times, and the records
/// that it takes the place of.
const BESIDE: u64 = 4 * 1024;
/// Not to be promised: registrations that are there grow as well.
const SPARE: u64 = MOST_BYTES / 8;

/// How much of the file is taken.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// As it was written last, or should have been.
    written: u64,
    /// What has been let in since.
    promised: u64,
}

impl Room {
    /// Whether there is room for what the file grows by.
    pub(super) fn is_there_for(&self, growth: u64) -> bool {
        let taken = lock(&self.0);
        let all = taken.written.saturating_add(taken.promised);
        all.saturating_add(growth) <= MOST_BYTES - SPARE
    }

    /// Has what was let in counted until it is written.
    pub(super) fn promise(&self, growth: u64) {
        let mut taken = lock(&self.0);
        taken.promised = taken.promised.saturating_add(growth);
    }

    /// What has been let in until now: a snapshot that is made after this has it.
    pub(super) fn promised(&self) -> u64 {
        lock(&self.0).promised
    }

    /// The file has so many bytes, `promised` among them.
    pub(super) fn is_written(&self, bytes: usize, promised: u64) {
        let mut taken = lock(&self.0);
        taken.written = u64::try_from(bytes).unwrap_or(u64::MAX);
        taken.promised = taken.promised.saturating_sub(promised);
    }
}

/// What a declaration takes in the file, at most.
pub(crate) fn bytes_of(declaration: &Declaration) -> u64 {
    let json = serde_json::to_vec(declaration).map_or(usize::MAX, |json| json.len());
    u64::try_from(json)
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
        .saturating_add(BESIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_in_counts_before_it_is_written_and_once_after_that() {
        let room = Room::default();
        let half = (MOST_BYTES - SPARE) / 2;
        assert!(room.is_there_for(2 * half));
        room.promise(half);
        let promised = room.promised();
        // Let in while that is being written.
        room.promise(half);
        assert!(!room.is_there_for(1));
        room.is_written(usize::try_from(half).unwrap(), promised);
        assert!(!room.is_there_for(1));
        room.is_written(usize::try_from(half).unwrap(), half);
        assert!(room.is_there_for(half) && !room.is_there_for(half + 1));
        room.is_written(usize::MAX, u64::MAX);
        assert!(!room.is_there_for(0));
    }
}

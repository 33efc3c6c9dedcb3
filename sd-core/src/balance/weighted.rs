//! Smooth weighted round robin by static-stride scheduling, as in gRPC's `weighted_round_robin`.
//!
//! Turns go round a table of slots. In generation `g` a slot of relative weight `w` (0 to 1) takes its turn if `g·w` passed a
//! whole number since `g − 1`. Otherwise its turn is skipped. A slot therefore takes a share `w` of its turns, evenly spaced,
//! and the only shared state is the turn. With one slot for each entry, a single heavy entry would make nearly all turns skips.
//! An entry above the mean weight is therefore spread over several slots, none heavier than the mean. There are then fewer than
//! twice as many slots as entries, and a pick takes fewer than two turns on average, whatever the weights.

use crate::balance::rotation::Rotation;

/// A table of slots.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: u32,
    /// The share of its turns that it takes, in units of 2⁻³².
    stride: u32,
    /// Where its first generation begins, so that slots of equal weight do not skip in step.
    phase: u32,
}

impl Weighted {
    /// The table for these weights, of which at least one must not be 0.
    pub(super) fn new(weights: &[u16]) -> Self {
        let entries = || (0u32..).zip(weights).filter(|(_, weight)| **weight > 0);
        let count = entries().count() as u64;
        let total: u64 = entries().map(|(_, weight)| u64::from(*weight)).sum();
        let parts = |weight: u16| (u64::from(weight) * count).div_ceil(total.max(1)).max(1);

        // Slots lie at (place, entry) along the round. The slots of a heavy entry are equally far apart.
        let mut placed = Vec::with_capacity(weights.len() * 2);
        let mut heaviest = 0.0_f64;
        for (nth, (entry, &weight)) in entries().enumerate() {
            let parts = parts(weight);
            let share = f64::from(weight) / as_f64(parts);
            heaviest = heaviest.max(share);
            let offset = (as_f64(nth as u64) + 0.5) / as_f64(count);
            for part in 0..parts {
                placed.push(((as_f64(part) + offset) / as_f64(parts), entry, share));
            }
        }
        placed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let slots = (0u32..)
            .zip(placed)
            .map(|(nth, (_, entry, share))| Slot {
                entry,
                stride: stride(share / heaviest),
                phase: nth.wrapping_mul(GOLDEN),
            })
            .collect();
        Self { slots }
    }

    pub(super) fn in_turn(&self, rotation: &Rotation) -> usize {
        // The heaviest slot takes every turn of its own, so the loop ends within one round.
        loop {
            let turn = rotation.advance();
            let count = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
            let (generation, index) = (turn / count, turn % count);
            let Some(slot) = self.slots.get(index as usize) else {
                continue;
            };
            let at = slot
                .stride
                .wrapping_mul(generation)
                .wrapping_add(slot.phase);
            if slot.stride == u32::MAX || at.checked_add(slot.stride).is_none() {
                return slot.entry as usize;
            }
        }
    }

    /// A slot is drawn, and drawn again if it has more chances than its share. Takes fewer than two draws on average.
    pub(super) fn at_random(&self) -> usize {
        loop {
            let index = fastrand::usize(..self.slots.len().max(1));
            let Some(slot) = self.slots.get(index) else {
                return 0;
            };
            if fastrand::u32(..) <= slot.stride {
                return slot.entry as usize;
            }
        }
    }
}

/// 2³² divided by the golden ratio: multiples of it spread evenly.
const GOLDEN: u32 = 0x9E37_79B9;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share between 0 and 1 of the largest u32; `as` saturates"
)]
fn stride(share: f64) -> u32 {
    (share * f64::from(u32::MAX)).round() as u32
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of entries stay far below 2^52"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

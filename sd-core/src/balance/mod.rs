//! Pickers: which entry of a set gets the next call.
//!
//! A [`Picker`] is built once for a set. It then picks from any thread without locking or allocating. It knows nothing about
//! gRPC or instances: it returns an index into whatever set its owner holds.

mod rotation;
mod weighted;

pub use crate::balance::rotation::Rotation;
use crate::balance::weighted::Weighted;

/// Picks indices of a set in turn. With equal weights it is round robin, otherwise smooth weighted round robin by static-stride
/// scheduling, as in gRPC's `weighted_round_robin`.
///
/// ```
/// use sd_core::balance::{Picker, Rotation};
///
/// let rotation = Rotation::new();
/// let servers = ["a", "b", "c"];
/// let picker = Picker::new(&rotation, [2, 1, 1]);
/// let picked = picker.pick().map(|index| servers[index]);
/// assert!(picked.is_some());
///
/// // The set changed: the new picker goes on where the old one stood.
/// let picker = Picker::new(&rotation, [2, 1]);
/// assert!(picker.pick().is_some_and(|index| index < 2));
/// ```
#[derive(Clone, Debug)]
pub struct Picker {
    rotation: Rotation,
    table: Table,
}

#[derive(Clone, Debug)]
enum Table {
    Empty,
    Even(u32),
    Weighted(Weighted),
}

impl Picker {
    /// A picker for a set with these weights, which continues where `rotation` stands. An entry of weight 0 is never picked,
    /// unless all weights are 0. Uses the first 2³² − 1 entries.
    pub fn new(rotation: &Rotation, weights: impl IntoIterator<Item = u16>) -> Self {
        let mut weights = weights.into_iter();
        let Some(first) = weights.next() else {
            return Self::even(rotation, 0);
        };
        let mut equal = 1;
        let odd = loop {
            match weights.next() {
                None => return Self::even(rotation, equal),
                Some(weight) if weight == first => equal += 1,
                Some(weight) => break weight,
            }
        };
        let mut all = vec![first; equal];
        all.push(odd);
        all.extend(weights);
        Self {
            rotation: rotation.clone(),
            table: Table::Weighted(Weighted::new(&all)),
        }
    }

    /// A picker for a set of `len` entries of equal weight. Uses the first 2³² − 1 entries.
    pub fn even(rotation: &Rotation, len: usize) -> Self {
        let table = match u32::try_from(len).unwrap_or(u32::MAX) {
            0 => Table::Empty,
            len => Table::Even(len),
        };
        Self {
            rotation: rotation.clone(),
            table,
        }
    }

    /// The index of the entry whose turn it is. `None` if the set is empty.
    pub fn pick(&self) -> Option<usize> {
        match &self.table {
            Table::Empty => None,
            // After 2^32 picks the turn wraps: one entry may be skipped or picked twice.
            Table::Even(len) => Some((self.rotation.advance() % len) as usize),
            Table::Weighted(weighted) => Some(weighted.pick(&self.rotation)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(picker: &Picker, entries: usize, picks: usize) -> Vec<u32> {
        let mut counts = vec![0; entries];
        for _ in 0..picks {
            counts[picker.pick().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn an_empty_set_has_nothing_to_pick() {
        assert_eq!(Picker::new(&Rotation::new(), []).pick(), None);
    }

    #[test]
    fn a_rebuilt_picker_goes_on_where_the_old_one_stood() {
        let rotation = Rotation::starting_at(0);
        assert_eq!(Picker::even(&rotation, 3).pick(), Some(0));
        assert_eq!(Picker::even(&rotation, 3).pick(), Some(1));
        assert_eq!(Picker::new(&rotation, [7, 7, 7]).pick(), Some(2));
    }

    #[test]
    fn weight_zero_gets_nothing_unless_all_have_it() {
        let rotation = Rotation::new();
        assert_eq!(
            counts(&Picker::new(&rotation, [0, 3, 0]), 3, 100),
            [0, 100, 0]
        );
        assert_eq!(
            counts(&Picker::new(&rotation, [0, 0, 0]), 3, 99),
            [33, 33, 33]
        );
    }

    #[test]
    fn heavy_entries_are_interleaved_with_light_ones() {
        let picker = Picker::new(&Rotation::starting_at(0), [5, 1, 1]);
        let (mut run, mut longest) = (0, 0);
        for _ in 0..7_000 {
            run = if picker.pick() == Some(0) { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        assert!(longest <= 6, "{longest} picks of one entry in a row");
    }

    #[test]
    fn threads_that_share_a_picker_share_the_turns() {
        let picker = Picker::even(&Rotation::new(), 8);
        let totals = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| counts(&picker, 8, 2_000)))
                .collect();
            threads.into_iter().fold(vec![0; 8], |mut totals, thread| {
                for (total, count) in totals.iter_mut().zip(thread.join().unwrap()) {
                    *total += count;
                }
                totals
            })
        });
        assert_eq!(totals, [1_000; 8]);
    }

    proptest! {
        #[test]
        fn equal_weights_share_exactly(entries in 1..200usize, weight in 0..9u16, rounds in 1..20u32) {
            let picker = Picker::new(&Rotation::starting_at(17), vec![weight; entries]);
            prop_assert_eq!(counts(&picker, entries, entries * rounds as usize), vec![rounds; entries]);
        }

        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(0..1_000u16, 2..60)) {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            prop_assume!(total > 0.0);
            let entries: f64 = weights.iter().map(|_| 1.0).sum();
            let picks = 50_000u16;
            let counts = counts(&Picker::new(&Rotation::starting_at(5), weights.clone()), weights.len(), picks.into());
            for (weight, count) in weights.iter().zip(counts) {
                let due = f64::from(*weight) / total * f64::from(picks);
                // Each slot of an entry is off by at most one turn, and the last generation may be cut short.
                let slots = (f64::from(*weight) * entries / total).ceil();
                prop_assert!((f64::from(count) - due).abs() <= 2.0 * slots + due * 0.01 + 1.0, "{weights:?}: {count} for {due}");
            }
        }

        #[test]
        fn one_pick_takes_few_turns_however_skewed_the_weights(weights in prop::collection::vec(0..=u16::MAX, 2..300)) {
            let rotation = Rotation::starting_at(0);
            let picker = Picker::new(&rotation, weights);
            let before = rotation.turns();
            for _ in 0..10_000 {
                picker.pick();
            }
            prop_assert!(rotation.turns() - before <= 21_000);
        }
    }
}

//! Entries drawn by weight.

use crate::balance::rotation::Rotation;
use crate::balance::weighted::Weighted;

/// The entries of a set with their shares. Uses the first 2³² − 1 entries.
#[derive(Clone, Debug)]
pub(super) enum Table {
    Empty,
    Even(u32),
    Weighted(Weighted),
}

impl Table {
    /// The table for these weights. An entry of weight 0 is never drawn, unless all weights are 0.
    pub(super) fn new(mut weights: impl ExactSizeIterator<Item = u16>) -> Self {
        let len = weights.len();
        let Some(first) = weights.next() else {
            return Self::Empty;
        };
        let Some(odd) = weights.find(|weight| *weight != first) else {
            return Self::Even(u32::try_from(len).unwrap_or(u32::MAX));
        };
        let equal = len - weights.len() - 1;
        let mut all = vec![first; equal];
        all.push(odd);
        all.extend(weights);
        Self::Weighted(Weighted::new(&all))
    }

    /// The entry whose turn it is. `None` if there are none.
    pub(super) fn in_turn(&self, rotation: &Rotation) -> Option<usize> {
        match self {
            Self::Empty => None,
            // After 2^32 turns they wrap: one entry may be skipped or picked twice.
            Self::Even(len) => Some((rotation.advance() % len) as usize),
            Self::Weighted(weighted) => Some(weighted.in_turn(rotation)),
        }
    }

    /// A random entry. `None` if there are none.
    pub(super) fn at_random(&self) -> Option<usize> {
        match self {
            Self::Empty => None,
            Self::Even(len) => Some(fastrand::u32(..*len) as usize),
            Self::Weighted(weighted) => Some(weighted.at_random()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(entries: usize, draws: usize, mut draw: impl FnMut() -> Option<usize>) -> Vec<u32> {
        let mut counts = vec![0; entries];
        for _ in 0..draws {
            counts[draw().unwrap()] += 1;
        }
        counts
    }

    fn in_turn(rotation: &Rotation, weights: &[u16], turns: usize) -> Vec<u32> {
        let table = Table::new(weights.iter().copied());
        counts(weights.len(), turns, || table.in_turn(rotation))
    }

    #[test]
    fn an_empty_set_has_nothing_to_draw() {
        let table = Table::new([].into_iter());
        assert_eq!(table.in_turn(&Rotation::new()), None);
        assert_eq!(table.at_random(), None);
    }

    #[test]
    fn weight_zero_gets_nothing_unless_all_have_it() {
        let rotation = Rotation::new();
        assert_eq!(in_turn(&rotation, &[0, 3, 0], 100), [0, 100, 0]);
        assert_eq!(in_turn(&rotation, &[0, 0, 0], 99), [33, 33, 33]);
    }

    #[test]
    fn heavy_entries_are_interleaved_with_light_ones() {
        let rotation = Rotation::starting_at(0);
        let table = Table::new([5, 1, 1].into_iter());
        let (mut run, mut longest) = (0, 0);
        for _ in 0..7_000 {
            let heavy = table.in_turn(&rotation) == Some(0);
            run = if heavy { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        assert!(longest <= 6, "{longest} turns of one entry in a row");
    }

    #[test]
    fn random_draws_follow_the_weights_too() {
        for weights in [&[1, 1, 1, 1][..], &[7, 1, 2], &[0, 5, 1000]] {
            let table = Table::new(weights.iter().copied());
            let drawn = counts(weights.len(), 40_000, || table.at_random());
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (weight, count) in weights.iter().zip(drawn) {
                let due = f64::from(*weight) / total * 40_000.0;
                // Six standard deviations and more.
                let bound = 6.0 * due.sqrt();
                assert!(
                    (f64::from(count) - due).abs() <= bound,
                    "{weights:?}: {count} for {due}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn equal_weights_share_exactly(entries in 1..200usize, weight in 0..9u16, rounds in 1..20u32) {
            let rotation = Rotation::starting_at(17);
            let counts = in_turn(&rotation, &vec![weight; entries], entries * rounds as usize);
            prop_assert_eq!(counts, vec![rounds; entries]);
        }

        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(0..1_000u16, 2..60)) {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            prop_assume!(total > 0.0);
            let entries: f64 = weights.iter().map(|_| 1.0).sum();
            let turns = 50_000u16;
            let counts = in_turn(&Rotation::starting_at(5), &weights, turns.into());
            for (weight, count) in weights.iter().zip(counts) {
                let due = f64::from(*weight) / total * f64::from(turns);
                // Each slot of an entry is off by at most one turn, and the last generation may be cut short.
                let slots = (f64::from(*weight) * entries / total).ceil();
                prop_assert!((f64::from(count) - due).abs() <= 2.0 * slots + due * 0.01 + 1.0, "{weights:?}: {count} for {due}");
            }
        }

        #[test]
        fn one_draw_takes_few_turns_however_skewed_the_weights(weights in prop::collection::vec(0..=u16::MAX, 2..300)) {
            let rotation = Rotation::starting_at(0);
            let before = rotation.turns();
            in_turn(&rotation, &weights, 10_000);
            prop_assert!(rotation.turns() - before <= 21_000);
        }
    }
}

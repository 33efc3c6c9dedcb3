//! Which of the connected endpoints are picked.

use std::sync::Arc;

use crate::model::instance::Instance;

/// How far an endpoint stands from being picked. Smaller is better: first whether it has a weight, then its tier, then whether it is
/// in the caller's zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u32);

impl Rank {
    /// The rank of `instance` for a caller in `zone`.
    pub(super) fn of(instance: &Instance, zone: Option<&str>) -> Self {
        let weightless = u32::from(instance.weight() == 0);
        let far = u32::from(zone.is_some() && instance.zone() != zone);
        Self(weightless << 17 | u32::from(instance.priority()) << 1 | far)
    }
}

/// Whom to pick: of the endpoints that can take calls (connected, and not ejected), those of the best rank. `usable` has indices of
/// `ranks`, in any order, which the result keeps.
pub(super) fn to_pick(ranks: &[Rank], usable: &[u32]) -> Arc<[u32]> {
    let rank = |index: &u32| ranks.get(*index as usize).copied();
    let Some(best) = usable.iter().filter_map(rank).min() else {
        return Arc::default();
    };
    if usable.iter().all(|index| rank(index) == Some(best)) {
        return usable.into();
    }
    let best = |index: &u32| rank(index) == Some(best);
    usable.iter().copied().filter(best).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::combine::switched::instance;

    fn picked(instances: &[Instance], usable: &[u32]) -> Vec<u32> {
        let ranks: Vec<_> = instances
            .iter()
            .map(|instance| Rank::of(instance, Some("a")))
            .collect();
        to_pick(&ranks, usable).to_vec()
    }

    #[test]
    fn the_lowest_tier_that_can_be_reached_is_picked_and_in_it_the_own_zone() {
        let at = |priority, zone: &str| instance("i").with_priority(priority).with_zone(zone);
        let all = [
            at(0, "a"),
            at(0, "b"),
            at(0, "b"),
            at(1, "a"),
            at(2, "b"),
            instance("i"),
        ];
        assert_eq!(picked(&all, &[0, 1, 2, 3, 4, 5]), [0]);
        assert_eq!(picked(&all, &[1, 2, 3, 4, 5]), [1, 2, 5]);
        assert_eq!(picked(&all, &[3, 4]), [3]);
        assert_eq!(picked(&all, &[4]), [4]);
        assert_eq!(picked(&all, &[]), [0; 0]);
    }

    #[test]
    fn what_has_no_weight_is_picked_only_if_nothing_else_can_be_reached() {
        let all = [
            instance("i").with_weight(0).with_zone("a"),
            instance("i").with_priority(u16::MAX).with_zone("b"),
        ];
        assert_eq!(picked(&all, &[0, 1]), [1]);
        assert_eq!(picked(&all, &[0]), [0]);
    }

    proptest! {
        #[test]
        fn something_is_picked_whenever_something_can_be_reached(
            all in prop::collection::vec((0..3u16, 0..3u16, 0..2u8), 1..40),
            usable in prop::collection::vec(any::<bool>(), 40),
        ) {
            let instances: Vec<_> = all.iter().map(|(weight, priority, zone)| {
                let zone = if *zone == 0 { "a" } else { "b" };
                instance("i").with_weight(*weight).with_priority(*priority).with_zone(zone)
            }).collect();
            let usable: Vec<u32> = (0u32..).zip(&instances).filter(|(index, _)| usable[*index as usize]).map(|(index, _)| index).collect();
            let picked = picked(&instances, &usable);
            prop_assert_eq!(picked.is_empty(), usable.is_empty());
            prop_assert!(picked.iter().all(|index| usable.contains(index)));
            let tiers: std::collections::BTreeSet<_> = picked.iter().map(|index| all[*index as usize].1).collect();
            prop_assert!(tiers.len() <= 1);
        }
    }
}

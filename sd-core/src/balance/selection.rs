//! Which endpoints of a service a client uses.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::balance::rank::Rank;
use crate::model::instance::Instance;
use crate::model::snapshot::Snapshot;

/// Which endpoints of a service a client uses. By default all of them.
///
/// - *Connected* are the instances that have all [`labels`](Self::labels), or a [`subset`](Self::subset) of these.
/// - *Picked* are, of the connected ones that want calls, those with a weight above 0, of these those of the lowest
///   [`priority`](Instance::priority), and of these those in the own [`zone`](Self::zone). Where a step would leave nothing, it is
///   left out: a tier or a zone whose last endpoint is no longer connected hands over to the next, and takes the calls back as soon
///   as one of its endpoints is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Selection {
    /// What an instance's metadata must have to be connected. Default nothing.
    pub labels: BTreeMap<String, String>,
    /// The zone whose endpoints are preferred, usually the client's own. Default none.
    pub zone: Option<String>,
    /// How many of the instances to connect. Default all.
    pub subset: Option<Subset>,
}

/// A part of the instances: so many of each tier, and of the own zone and the other zones each; those that are not ready or have
/// weight 0 count apart. A tier or zone to which calls fail over therefore has connections too.
///
/// The instances are chosen by rendezvous hashing of the seed and their ids, as in gRPC A68: if one comes or goes, at most one other
/// changes. An instance that cannot be reached is not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Subset {
    /// How many, at least 1: 0 counts as 1.
    pub size: usize,
    /// Decides which. Clients with one seed choose the same instances. Default random.
    #[serde(default = "random_seed")]
    pub seed: u64,
}

fn random_seed() -> u64 {
    fastrand::u64(..)
}

impl Subset {
    /// So many, with a random seed.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            seed: random_seed(),
        }
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The standard library's hash: one seed may choose others in programs of different Rust versions.
    fn hash(self, instance: &Instance) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, instance.id().as_str()).hash(&mut hasher);
        hasher.finish()
    }

    fn of(self, instances: Vec<Arc<Instance>>, zone: Option<&str>) -> Vec<Arc<Instance>> {
        let mut ranked: Vec<_> = instances
            .into_iter()
            .map(|instance| {
                let rank = Rank::of(&instance, zone);
                ((!instance.is_ready(), rank), self.hash(&instance), instance)
            })
            .collect();
        ranked.sort_unstable_by(|a, b| {
            let ids = || a.2.id().cmp(b.2.id());
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(ids)
        });
        ranked
            .chunk_by(|a, b| a.0 == b.0)
            .flat_map(|group| group.iter().take(self.size.max(1)))
            .map(|(_, _, instance)| Arc::clone(instance))
            .collect()
    }
}

impl Selection {
    /// Adds a label: an instance must have this value under this key of its metadata to be connected.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets the zone whose endpoints are preferred.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets how many of the instances to connect.
    #[must_use]
    pub fn with_subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    /// Whom to connect: the part of `set` that a client with this selection connects.
    pub fn to_connect(&self, set: &Snapshot) -> Snapshot {
        if self.labels.is_empty() && self.subset.is_none() {
            return set.clone();
        }
        let has = |instance: &Instance, (key, value): (&String, &String)| {
            instance.metadata().get(key) == Some(value)
        };
        let mut chosen: Vec<_> = set
            .instances()
            .iter()
            .filter(|instance| self.labels.iter().all(|label| has(instance, label)))
            .cloned()
            .collect();
        if let Some(subset) = self.subset {
            chosen = subset.of(chosen, self.zone.as_deref());
        }
        set.clone().with_instances(chosen)
    }

    /// The labels as text.
    pub fn show_labels(&self) -> String {
        let shown: Vec<String> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key:?}={value:?}"))
            .collect();
        shown.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Moment;
    use crate::combine::switched::{instance, service};
    use crate::model::snapshot::Revision;

    fn connected(selection: &Selection, all: &[Instance]) -> Vec<String> {
        let all = all.iter().cloned().map(Arc::new).collect();
        let set = Snapshot::new(service(), Revision::new("test", 1), Moment::ZERO, all);
        let chosen = selection.to_connect(&set);
        chosen
            .instances()
            .iter()
            .map(|i| i.id().to_string())
            .collect()
    }

    #[test]
    fn without_labels_and_subset_all_are_connected_whatever_the_zone() {
        let all = [instance("x").with_zone("a"), instance("y").with_zone("b")];
        let selection = Selection::default().with_zone("a");
        assert_eq!(connected(&selection, &all), ["x", "y"]);
    }

    #[test]
    fn an_instance_must_have_all_labels() {
        let all = [
            instance("both")
                .with_metadata("k", "v")
                .with_metadata("l", "w"),
            instance("one").with_metadata("k", "v"),
            instance("other")
                .with_metadata("k", "w")
                .with_metadata("l", "w"),
        ];
        let selection = Selection::default()
            .with_label("k", "v")
            .with_label("l", "w");
        assert_eq!(connected(&selection, &all), ["both"]);
        assert_eq!(selection.show_labels(), r#""k"="v", "l"="w""#);
    }

    #[test]
    fn a_subset_has_so_many_of_each_group_that_calls_can_fail_over_to() {
        let mut all = Vec::new();
        for nth in 0..20 {
            all.push(instance(&format!("0a{nth:02}")).with_zone("a"));
            all.push(instance(&format!("0b{nth:02}")).with_zone("b"));
            all.push(
                instance(&format!("1a{nth:02}"))
                    .with_zone("a")
                    .with_priority(1),
            );
            all.push(
                instance(&format!("un{nth:02}"))
                    .with_zone("a")
                    .with_ready(false),
            );
        }
        let subset = Subset::new(3).with_seed(7);
        let selection = Selection::default().with_zone("a").with_subset(subset);
        let chosen = connected(&selection, &all);
        for group in ["0a", "0b", "1a", "un"] {
            let of_group = chosen.iter().filter(|id| id.starts_with(group));
            assert_eq!(of_group.count(), 3, "{group} of {chosen:?}");
        }
        assert!(chosen.is_sorted());
    }

    #[test]
    fn different_seeds_spread_over_all_instances() {
        let all: Vec<_> = (0..10).map(|nth| instance(&format!("i{nth}"))).collect();
        let chosen: BTreeSet<_> = (0..100)
            .flat_map(|seed| {
                let subset = Subset::new(2).with_seed(seed);
                connected(&Selection::default().with_subset(subset), &all)
            })
            .collect();
        assert_eq!(chosen.len(), 10);
    }

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let json = r#"{"labels":{"k":"v"},"subset":{"size":3}}"#;
        let selection: Selection = serde_json::from_str(json).unwrap();
        assert_eq!(selection.subset.map(|subset| subset.size), Some(3));
        assert!(serde_json::from_str::<Selection>(r#"{"zones":"a"}"#).is_err());
    }

    proptest! {
        #[test]
        fn when_one_goes_at_most_one_other_of_a_subset_changes(count in 2..40usize, size in 1..10usize, seed: u64, gone in 0..40usize) {
            let all: Vec<_> = (0..count).map(|nth| instance(&format!("i{nth:02}"))).collect();
            let selection = Selection::default().with_subset(Subset::new(size).with_seed(seed));
            let before: BTreeSet<_> = connected(&selection, &all).into_iter().collect();
            prop_assert_eq!(before.len(), size.min(count));
            let mut rest = all;
            rest.remove(gone % count);
            let after: BTreeSet<_> = connected(&selection, &rest).into_iter().collect();
            prop_assert!(after.difference(&before).count() <= 1);
        }
    }
}

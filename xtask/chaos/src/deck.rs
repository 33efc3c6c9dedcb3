//! Which fault comes next: the one that was made least often of those that the site can make. So all kinds are made about equally
//! often, however many sites play side by side.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fastrand::Rng;
use sd_core::sync::lock;

use crate::backend::Backend;
use crate::kind::Kind;

/// Shared by all sites of a run.
#[derive(Debug, Default)]
pub(crate) struct Deck(Mutex<BTreeMap<Kind, u32>>);

impl Deck {
    /// The next kind for a site with this many members.
    pub(crate) fn draw(&self, backend: Backend, members: usize, rng: &mut Rng) -> Kind {
        let mut drawn = lock(&self.0);
        let mut kinds = Kind::of_site(backend, members);
        rng.shuffle(&mut kinds);
        let times = |kind: &Kind| drawn.get(kind).copied().unwrap_or(0);
        let kind = kinds
            .into_iter()
            .min_by_key(times)
            .unwrap_or(Kind::KillCandidate);
        *drawn.entry(kind).or_default() += 1;
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_as_often_as_every_other_and_each_where_it_can() {
        let deck = Deck::default();
        let mut rng = Rng::with_seed(1);
        let mut counts: BTreeMap<Kind, u32> = BTreeMap::new();
        for turn in 0..17 * 6 {
            let members = if turn % 3 == 0 { 3 } else { 1 };
            let kind = deck.draw(Backend::Etcd, members, &mut rng);
            assert!(Kind::of_site(Backend::Etcd, members).contains(&kind));
            *counts.entry(kind).or_default() += 1;
        }
        assert_eq!(counts.len(), Kind::of_backend(Backend::Etcd).len());
        assert!(
            counts.values().all(|count| (5..=7).contains(count)),
            "{counts:?}"
        );
    }
}

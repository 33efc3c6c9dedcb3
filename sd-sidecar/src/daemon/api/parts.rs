//! The parts of a view that readers with a filter are told: each is rendered once for all who want the same.

use std::sync::{Arc, Mutex};

use sd_core::sync::lock;

use super::view::View;
use super::wanted::Wanted;

/// So many parts of one view are kept. Readers of others have theirs rendered for themselves.
const MOST_KEPT: usize = 8;

/// The parts of one view, until there is another view.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<Vec<(Wanted, Arc<View>)>>);

impl Parts {
    pub(super) fn get(&self, wanted: &Wanted) -> Option<Arc<View>> {
        let parts = lock(&self.0);
        let found = parts.iter().find(|(other, _)| other == wanted);
        found.map(|(_, part)| Arc::clone(part))
    }

    /// Keeps a part for the readers to come, if there is room.
    pub(super) fn keep(&self, wanted: &Wanted, part: &Arc<View>) {
        let mut parts = lock(&self.0);
        // Another reader may have had it rendered meanwhile.
        if parts.len() < MOST_KEPT && parts.iter().all(|(other, _)| other != wanted) {
            parts.push((wanted.clone(), Arc::clone(part)));
        }
    }
}

#[cfg(test)]
mod tests {
    use sd_core::Instance;
    use sd_core::clock::BootClock;
    use sd_core::memory::Memory;
    use sd_testing::{is_live_with, until};

    use super::*;

    const COUNT: usize = MOST_KEPT + 2;

    async fn view() -> Arc<View> {
        let registry = Memory::new().connect();
        let mut guards = Vec::new();
        for at in 0..COUNT {
            let instance = Instance::new("greeter", format!("h:{}", at + 1)).unwrap();
            let instance = instance.with_zone(format!("zone-{at}"));
            guards.push(registry.register(instance).await.unwrap());
        }
        let mut seen = registry.subscribe("greeter").unwrap();
        let state = until(&mut seen, "all", is_live_with(COUNT)).await;
        Arc::new(View::of_service(state, &BootClock))
    }

    fn zone(zone: &str) -> Wanted {
        Wanted::new(None, Some(zone.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn what_several_readers_want_is_rendered_once_and_only_so_much_is_kept() {
        let view = view().await;
        let of = |wanted: &Wanted| wanted.of(&view, &BootClock);
        let (first, looked_at) = of(&zone("zone-0"));
        assert_eq!(looked_at, COUNT);
        let (again, looked_at) = of(&zone("zone-0"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(looked_at, 0);
        // What names no instance takes no place.
        for at in 0..COUNT {
            of(&zone(&format!("elsewhere-{at}")));
        }
        for at in 1..COUNT {
            let wanted = zone(&format!("zone-{at}"));
            let (part, _) = of(&wanted);
            let (again, looked_at) = of(&wanted);
            assert_eq!(Arc::ptr_eq(&part, &again), at < MOST_KEPT, "{at}");
            assert_eq!(looked_at == 0, at < MOST_KEPT, "{at}");
            assert_eq!(part.index(), again.index());
        }
        let (all, looked_at) = of(&Wanted::default());
        assert!(Arc::ptr_eq(&all, &view));
        assert_eq!(looked_at, 0);
    }
}

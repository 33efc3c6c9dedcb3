//! Several runs at one address: the records of those that crashed still stand, and readers see the one that counts.

use sd_core::{Instance, InstanceId, Registry, Snapshot, Subscription};
use tokio::time::timeout;

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::follower::TOLD_WITHIN;
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(
        of_several_runs_at_one_address_the_newest_counts,
        RunOrder,
        ReadOnDemand
    ),
    case!(
        an_update_makes_an_older_run_no_newer,
        RunOrder,
        ReadOnDemand,
        Metadata
    ),
    case!(
        a_ready_run_counts_before_a_newer_one_that_is_not,
        RunOrder,
        ReadOnDemand,
        Metadata
    ),
];

/// Readers as users have them.
struct Readers {
    scene: Scene,
    registry: Registry,
    early: Subscription,
}

impl Readers {
    async fn open(fixture: &dyn Fixture) -> Result<Self, Failure> {
        let scene = Scene::open(fixture).await?;
        let registry = scene.registry();
        let early = registry.subscribe(&scene.service)?;
        Ok(Self {
            scene,
            registry,
            early,
        })
    }

    /// Two runs at the address, the first of which has the larger id or the smaller one.
    fn two_runs(&self, address: &str, larger_first: bool) -> Result<[Instance; 2], Failure> {
        let run = || Instance::new(&self.scene.service, address);
        let mut runs = [run()?, run()?];
        runs.sort_by(|a, b| a.id().cmp(b.id()));
        if larger_first {
            runs.reverse();
        }
        Ok(runs)
    }

    /// Fails unless exactly these are listed, and told by a feed that was opened before and by one that is opened now.
    async fn all_see(&mut self, when: &str, expected: &[Instance]) -> Outcome {
        let sight = self.scene.sight;
        let read = || self.registry.list(&self.scene.service);
        let holds = |set: &Snapshot| sight.holds(set, expected);
        let listed = self.scene.read_until(read, holds).await?;
        ensure(holds(&listed), || {
            format!(
                "{when}: {expected:?} expected, {:?} listed",
                listed.instances()
            )
        })?;
        let other = self.scene.registry();
        let mut late = other.subscribe(&self.scene.service)?;
        for seen in [&mut self.early, &mut late] {
            let told = async {
                while !holds(seen.state().snapshot()) {
                    seen.changed().await?;
                }
                Ok::<_, sd_core::Error>(())
            };
            if let Ok(told) = timeout(TOLD_WITHIN + self.scene.late, told).await {
                told?;
            } else {
                return Err(Failure::Broken(format!(
                    "{when}: {expected:?} expected, {:?} told",
                    seen.state().snapshot().instances()
                )));
            }
        }
        Ok(())
    }
}

async fn of_several_runs_at_one_address_the_newest_counts(fixture: &dyn Fixture) -> Outcome {
    let mut readers = Readers::open(fixture).await?;
    // It was chosen by a user, and stays whatever happens at its address.
    let chosen = Instance::new(&readers.scene.service, "10.0.0.7:1")?
        .with_id(InstanceId::new("10.0.0.7:1-0")?);
    readers.scene.register(&chosen).await?;
    let mut expected = vec![chosen];
    for (address, larger_first) in [("10.0.0.7:1", false), ("10.0.0.7:2", true)] {
        let [old, new] = readers.two_runs(address, larger_first)?;
        readers.scene.register(&old).await?;
        expected.push(old.clone());
        readers.all_see("after the first run", &expected).await?;
        readers.scene.register(&new).await?;
        expected.pop();
        expected.push(new);
        readers.all_see("after the second run", &expected).await?;
    }
    Ok(())
}

async fn an_update_makes_an_older_run_no_newer(fixture: &dyn Fixture) -> Outcome {
    let mut readers = Readers::open(fixture).await?;
    for (address, larger_first) in [("10.0.0.7:1", false), ("10.0.0.7:2", true)] {
        let [old, new] = readers.two_runs(address, larger_first)?;
        let registration = readers.scene.register(&old).await?;
        readers.scene.register(&new).await?;
        registration.update(&old.with_metadata("k", "v")).await?;
        let counts = [new.clone()];
        readers.all_see("after the update", &counts).await?;
        readers.scene.registrar.withdraw(&new.record_id()).await?;
        let left = readers.scene.list().await?;
        for run in left.instances() {
            readers.scene.registrar.withdraw(&run.record_id()).await?;
        }
    }
    Ok(())
}

async fn a_ready_run_counts_before_a_newer_one_that_is_not(fixture: &dyn Fixture) -> Outcome {
    let mut readers = Readers::open(fixture).await?;
    let [old, new] = readers.two_runs("10.0.0.7:1", true)?;
    let old_registration = readers.scene.register(&old).await?;
    let new_registration = readers.scene.register(&new).await?;
    let drained = new.with_ready(false);
    new_registration.update(&drained).await?;
    let counts = [old.clone()];
    readers
        .all_see("after the newer was drained", &counts)
        .await?;
    old_registration.update(&old.with_ready(false)).await?;
    readers.all_see("after both were drained", &[drained]).await
}

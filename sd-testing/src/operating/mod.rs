//! What every [`Operator`] must do, and what every reader, registrar and registration must make of it.

mod overriding;
mod owning;
mod removing;

use std::sync::Arc;

use sd_core::{Instance, Operator, Override, Result, Snapshot};

use super::case::{Case, Failure, Outcome, SuiteReport, ensure};
use super::scene::Scene;
use crate::Fixture;

/// All cases, in the order in which they run.
pub fn cases() -> Vec<Case> {
    [overriding::CASES, owning::CASES, removing::CASES].concat()
}

/// Runs all cases one after the other.
pub async fn run_all(fixture: &dyn Fixture) -> SuiteReport {
    SuiteReport::of(cases(), fixture).await
}

/// A scene with an operator, who is not the client that writes.
struct Stage {
    scene: Scene,
    operator: Arc<dyn Operator>,
}

impl Stage {
    async fn open(fixture: &dyn Fixture) -> Result<Self, Failure> {
        let scene = Scene::open(fixture).await?;
        let operator = Arc::clone(&scene.reader).operator().ok_or_else(|| {
            Failure::Broken(
                "this backend cannot change records of others: implement it, or state what the source lacks".to_owned(),
            )
        })?;
        Ok(Self { scene, operator })
    }

    /// As the operator says of this run's record.
    async fn say(&self, record: &Instance, said: Option<Override>) -> Result<()> {
        let record = record.record_id();
        self.operator.set_override(&record, said).await
    }

    async fn set(&self, record: &Instance, said: Override) -> Outcome {
        Ok(self.say(record, Some(said)).await?)
    }

    async fn clear(&self, record: &Instance) -> Outcome {
        Ok(self.say(record, None).await?)
    }

    /// Fails unless readers see the record as it is, with this override.
    async fn ensure_said(
        &self,
        when: &str,
        record: &Instance,
        said: impl Into<Option<Override>>,
    ) -> Outcome {
        let expected = overridden(record, said);
        let listed = self.scene.read_until(|| self.scene.list(), has(&expected));
        let listed = listed.await?;
        ensure(has(&expected)(&listed), || {
            format!(
                "{when}: {expected:?} expected, {:?} listed",
                listed.get(record.id())
            )
        })
    }
}

/// The record as readers see it with this override.
fn overridden(record: &Instance, said: impl Into<Option<Override>>) -> Instance {
    record.clone().with_override(said)
}

/// Whether the set has this record, as it is.
fn has(expected: &Instance) -> impl Fn(&Snapshot) -> bool {
    let expected = expected.clone();
    move |set| set.get(expected.id()).is_some_and(|one| **one == expected)
}

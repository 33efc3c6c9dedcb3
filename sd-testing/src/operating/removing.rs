//! Removing another process's record: this run's, with its override, and as readers see what goes on purpose.

use sd_core::{ErrorKind, Incarnation, Override};

use super::Stage;
use crate::case::{Case, Outcome, case, ensure, ensure_fails};
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[
    case!(a_removed_record_is_gone_and_named_as_withdrawn, Operators),
    case!(removing_spares_another_run_and_what_is_not_there, Operators),
    case!(
        a_living_owner_notices_that_its_record_was_removed_and_registers_it_as_it_says,
        Operators
    ),
];

async fn a_removed_record_is_gone_and_named_as_withdrawn(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let records = stage.scene.register_all(&["a", "b", "stays"]).await?;
    let mut follower = stage.scene.follow().await?;
    follower.until("the records", |set| set.len() == 3).await?;
    for (record, said) in records.iter().zip([None, Some(Override::Draining)]) {
        let id = record.record_id();
        stage.operator.set_override(&id, said).await?;
        stage.operator.remove(&id).await?;
        let scene = &stage.scene;
        let is_gone = |set: &sd_core::Snapshot| set.get(&id.id).is_none();
        let listed = scene.read_until(|| scene.list(), is_gone).await?;
        ensure(is_gone(&listed), || {
            format!("{id:?} is listed after it was removed")
        })?;
        if fixture.has(Ability::Withdrawals) {
            follower
                .until("that it was withdrawn", |set| {
                    set.get(&id.id).is_none() && set.withdrawn().contains(&id.id)
                })
                .await?;
        }
    }
    stage
        .scene
        .ensure_lists("after the others were removed", &records[2..])
        .await
}

async fn removing_spares_another_run_and_what_is_not_there(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    stage.scene.register(&record).await?;
    let earlier = record.clone().with_incarnation(Incarnation::random());
    let removed = stage.operator.remove(&earlier.record_id()).await;
    ensure_fails("removing an earlier run", removed, &[ErrorKind::Conflict])?;
    let never = stage.scene.instance("never")?;
    let removed = stage.operator.remove(&never.record_id()).await;
    ensure_fails(
        "removing what is not there",
        removed,
        &[ErrorKind::NotFound],
    )?;
    stage.scene.ensure_lists("after that", &[record]).await
}

async fn a_living_owner_notices_that_its_record_was_removed_and_registers_it_as_it_says(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    let held = stage.scene.register(&record).await?;
    stage.set(&record, Override::Draining).await?;
    stage.operator.remove(&record.record_id()).await?;
    let loss = [ErrorKind::LeaseLost, ErrorKind::NotFound];
    ensure_fails("renewing what was removed", held.renew().await, &loss)?;
    ensure_fails(
        "updating what was removed",
        held.update(&record).await,
        &loss,
    )?;
    // What core does next.
    let held = stage.scene.register(&record).await?;
    stage
        .ensure_said("registered again after it was removed", &record, None)
        .await?;
    let told = held.renew().await?.overridden;
    ensure(told.is_none(), || format!("its owner is told {told:?}"))
}

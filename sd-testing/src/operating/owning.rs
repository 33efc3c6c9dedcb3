//! Owning a record that is overridden: the owner is told, and neither writes it away nor takes it along into another record.

use sd_core::port::{Attempt, Liveness};
use sd_core::{ErrorKind, Incarnation, Override};
use tokio::time::sleep;

use super::Stage;
use crate::case::{Case, Failure, Outcome, case, done, ensure};
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[
    case!(the_owner_is_told_when_it_renews, Operators),
    case!(renewals_and_updates_leave_an_override, Operators),
    case!(an_override_ends_with_its_record, Operators),
    case!(an_override_says_nothing_of_the_next_run, Operators),
    case!(a_released_record_keeps_its_override, Operators, Release),
];

async fn the_owner_is_told_when_it_renews(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    let held = stage.scene.register(&record).await?;
    for said in [
        None,
        Some(Override::Draining),
        Some(Override::Unready),
        None,
    ] {
        stage.say(&record, said).await?;
        let told = held.renew().await?.overridden;
        ensure(told == said, || {
            format!("an operator said {said:?}, and the owner is told {told:?}")
        })?;
    }
    Ok(())
}

async fn renewals_and_updates_leave_an_override(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    let held = stage.scene.register(&record).await?;
    stage.set(&record, Override::Draining).await?;
    let steps = [
        record.clone().with_weight(7),
        record.clone().with_ready(false),
        record.clone().with_metadata("k", "v"),
        record.clone().with_ready(false).with_weight(3),
    ];
    for changed in &steps {
        held.update(changed).await?;
        stage
            .ensure_said("after an update", changed, Override::Draining)
            .await?;
        held.renew().await?;
        stage
            .ensure_said("after a renewal", changed, Override::Draining)
            .await?;
    }
    // What the owner says now counts when it has heard of it.
    for changed in [&record.clone().with_ready(false), &record] {
        stage.set(&record, Override::Draining).await?;
        held.update(changed).await?;
        stage.clear(&record).await?;
        held.renew().await?;
        stage
            .ensure_said("after it was cleared", changed, None)
            .await?;
    }
    Ok(())
}

async fn an_override_ends_with_its_record(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    stage.scene.register(&record).await?;
    stage.set(&record, Override::Draining).await?;
    stage.scene.registrar.withdraw(&record.record_id()).await?;
    stage.scene.register(&record).await?;
    stage
        .ensure_said("registered again after it was withdrawn", &record, None)
        .await?;
    for how in [Ability::Removal, Ability::Expiry] {
        stage.set(&record, Override::Draining).await?;
        let id = record.record_id();
        match how {
            lacking if !fixture.has(lacking) => continue,
            Ability::Removal => done(fixture.remove_record(&id).await)?,
            _ => match fixture.expire(&id).await {
                // To wait for the end of a lease is another case's matter.
                Err(error) if error.kind() == ErrorKind::Unsupported => continue,
                expired => expired?,
            },
        }
        let held = stage.scene.register(&record).await?;
        stage.ensure_said(&how.to_string(), &record, None).await?;
        let told = held.renew().await?.overridden;
        ensure(told.is_none(), || {
            format!("the owner of the record that follows one that ended ({how}) is told {told:?}")
        })?;
    }
    Ok(())
}

async fn an_override_says_nothing_of_the_next_run(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    stage.scene.register(&record).await?;
    stage.set(&record, Override::Draining).await?;
    stage.scene.registrar.withdraw(&record.record_id()).await?;
    let next = record.with_incarnation(Incarnation::random());
    let held = stage.scene.register(&next).await?;
    stage
        .ensure_said("when the next run has the id", &next, None)
        .await?;
    let told = held.renew().await?.overridden;
    ensure(told.is_none(), || format!("the next run is told {told:?}"))
}

/// It outlives what the first owner kept it alive with.
async fn a_released_record_keeps_its_override(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    let short = Attempt::new(fixture.ttl());
    let held = stage.scene.registrar.register(&record, &short).await?;
    stage.set(&record, Override::Draining).await?;
    stage.scene.registrar.release(&record.record_id()).await?;
    let next = fixture.backend().await?;
    let Some(next) = next.registrar() else {
        return Err(Failure::Broken("the next client cannot write".to_owned()));
    };
    let continued = next.register(&record, &stage.scene.lasting).await?;
    if let Liveness::Lease { ttl } = held.liveness() {
        sleep(ttl + fixture.expiry_slack()).await;
    }
    stage
        .ensure_said(
            "after another client continued it",
            &record,
            Override::Draining,
        )
        .await?;
    let told = continued.renew().await?.overridden;
    ensure(told == Some(Override::Draining), || {
        format!("the next owner is told {told:?}")
    })
}

//! Overriding: readers see what an operator says of one record, and everything else as it is.

use std::sync::Arc;

use sd_core::{ErrorKind, Incarnation, Override};

use super::{Stage, has, overridden};
use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure, ensure_fails};

pub(super) const CASES: &[Case] = &[
    case!(
        an_override_decides_on_readiness_and_changes_nothing_else,
        Operators
    ),
    case!(
        ready_wins_over_a_record_that_is_not_ready,
        Operators,
        ReadyOverrides
    ),
    case!(a_cleared_override_leaves_what_the_owner_says, Operators),
    case!(a_feed_tells_each_override_as_the_same_run, Operators),
    case!(of_two_operators_the_last_one_counts, Operators),
    case!(an_odd_id_is_overridden_like_any_other, Operators),
    case!(another_run_is_not_overridden, Operators),
    case!(what_is_not_there_cannot_be_overridden, Operators),
    case!(a_closed_backend_neither_overrides_nor_removes, Operators),
];

async fn an_override_decides_on_readiness_and_changes_nothing_else(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let one = stage.scene.instance("a")?.with_zone("z").with_weight(7);
    stage.scene.register(&one).await?;
    let other = stage.scene.instance("a.b")?;
    stage.scene.register(&other).await?;
    for said in [Override::Draining, Override::Unready, Override::Draining] {
        stage.set(&one, said).await?;
        let expected = [overridden(&one, said), other.clone()];
        stage
            .scene
            .ensure_lists("after an override", &expected)
            .await?;
    }
    Ok(())
}

async fn ready_wins_over_a_record_that_is_not_ready(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?.with_ready(false);
    stage.scene.register(&record).await?;
    stage.set(&record, Override::Ready).await?;
    stage
        .ensure_said("after it was made ready", &record, Override::Ready)
        .await
}

async fn a_cleared_override_leaves_what_the_owner_says(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    for (id, ready) in [("ready", true), ("unready", false)] {
        let record = stage.scene.instance(id)?.with_ready(ready);
        stage.scene.register(&record).await?;
        stage.set(&record, Override::Draining).await?;
        stage.set(&record, Override::Unready).await?;
        // The second time there is nothing to clear.
        for _ in 0..2 {
            stage.clear(&record).await?;
            stage
                .ensure_said("after the override was cleared", &record, None)
                .await?;
        }
    }
    Ok(())
}

async fn a_feed_tells_each_override_as_the_same_run(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    stage.scene.register(&record).await?;
    let mut follower = stage.scene.follow().await?;
    follower.until("the record", has(&record)).await?;
    let drained = overridden(&record, Override::Draining);
    stage.set(&record, Override::Draining).await?;
    follower.until("the override", has(&drained)).await?;
    let last = stage.scene.instance("last")?;
    let changing = async {
        for _ in 0..5 {
            for said in [Override::Unready, Override::Draining] {
                stage.set(&record, said).await?;
                tokio::task::yield_now().await;
            }
        }
        stage.scene.register(&last).await?;
        Ok::<(), Failure>(())
    };
    // From one override to the next, no reader may see the record as its owner says.
    let watching = async {
        loop {
            follower.step().await?;
            let latest = follower.latest();
            let seen = latest.and_then(|set| set.get(record.id()));
            let is_said = seen.is_some_and(|seen| {
                seen.is_same_run(&record) && seen.overridden().is_some() && !seen.is_ready()
            });
            ensure(is_said, || {
                format!("{seen:?} is told while one override follows another")
            })?;
            if latest.is_some_and(|set| set.get(last.id()).is_some()) {
                return Ok(());
            }
        }
    };
    tokio::try_join!(changing, watching)?;
    follower.until("the last override", has(&drained)).await?;
    stage.clear(&record).await?;
    let cleared = follower.until("that it was cleared", has(&record)).await?;
    ensure(cleared.withdrawn().is_empty(), || {
        "the end of an override is told as a withdrawal".to_owned()
    })
}

async fn of_two_operators_the_last_one_counts(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let Some(second) = Arc::clone(&stage.scene.writer).operator() else {
        return Err(Failure::Broken(
            "one client can change records of others, and the next one cannot".to_owned(),
        ));
    };
    let record = stage.scene.instance("a")?;
    let id = record.record_id();
    stage.scene.register(&record).await?;
    let (drain, unready) = (Some(Override::Draining), Some(Override::Unready));
    for _ in 0..5 {
        let (one, two) = tokio::join!(
            stage.operator.set_override(&id, drain),
            second.set_override(&id, unready),
        );
        one?;
        two?;
        let listed = stage.scene.list().await?;
        let said = listed.get(record.id()).and_then(|one| one.overridden());
        ensure(said == drain || said == unready, || {
            format!("two operators said draining and unready at once, and {said:?} is listed")
        })?;
        second.set_override(&id, unready).await?;
        stage
            .ensure_said("after the second operator", &record, unready)
            .await?;
        stage.operator.set_override(&id, drain).await?;
        stage
            .ensure_said("after the first operator", &record, drain)
            .await?;
    }
    Ok(())
}

async fn an_odd_id_is_overridden_like_any_other(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let ids = [
        "a/b",
        "a_b",
        "/a",
        "/override/a",
        "//override/a",
        "two words",
        "größe",
        "a%2Fb",
    ];
    for id in ids {
        let record = stage.scene.instance(id)?;
        stage.scene.register(&record).await?;
        stage.set(&record, Override::Draining).await?;
        stage.ensure_said(id, &record, Override::Draining).await?;
    }
    let listed = stage.scene.list().await?;
    ensure(
        listed.len() == ids.len() && listed.skipped().is_empty(),
        || format!("{} records expected, {listed:?} listed", ids.len()),
    )
}

async fn another_run_is_not_overridden(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    stage.scene.register(&record).await?;
    let before = record.clone().with_incarnation(Incarnation::random());
    for said in [Some(Override::Draining), None] {
        let set = stage.say(&before, said).await;
        let holder = set.as_ref().err().and_then(|error| error.holder().cloned());
        ensure_fails("overriding an earlier run", set, &[ErrorKind::Conflict])?;
        let names_it = holder.is_some_and(|run| run.incarnation == record.incarnation());
        ensure(names_it, || "the conflict does not name the run".to_owned())?;
    }
    stage
        .ensure_said("after an earlier run was overridden", &record, None)
        .await
}

async fn what_is_not_there_cannot_be_overridden(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let never = stage.scene.instance("never")?;
    let not_found = &[ErrorKind::NotFound];
    for said in [Some(Override::Draining), None] {
        let set = stage.say(&never, said).await;
        ensure_fails("overriding what is not there", set, not_found)?;
    }
    let gone = stage.scene.instance("gone")?;
    stage.scene.register(&gone).await?;
    stage.scene.registrar.withdraw(&gone.record_id()).await?;
    let set = stage.say(&gone, Some(Override::Draining)).await;
    ensure_fails("overriding what is gone", set, not_found)?;
    stage.scene.ensure_lists("after that", &[]).await
}

async fn a_closed_backend_neither_overrides_nor_removes(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let record = stage.scene.instance("a")?;
    stage.scene.register(&record).await?;
    stage.scene.reader.close().await?;
    let id = record.record_id();
    let set = stage.say(&record, Some(Override::Draining)).await;
    ensure_fails("overriding after it was closed", set, &[ErrorKind::Closed])?;
    let removed = stage.operator.remove(&id).await;
    ensure_fails(
        "removing after it was closed",
        removed,
        &[ErrorKind::Closed],
    )
}

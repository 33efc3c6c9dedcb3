//! Leaving: takes away this ticket's entry, whatever became of its join, and no other's.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use crate::Fixture;
use crate::case::{Case, Outcome, case, ensure, ensure_fails};
use crate::electing::stage::{LOSS, Stage};

pub(super) const CASES: &[Case] = &[
    case!(leaving_an_election_that_was_never_joined_is_fine),
    case!(leaving_again_spares_a_later_leader),
    case!(a_candidate_that_has_left_is_gone_for_good),
    case!(a_join_that_was_dropped_is_cleaned_up),
    case!(dropping_an_entry_changes_nothing_at_the_server),
];

async fn leaving_an_election_that_was_never_joined_is_fine(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    stage.leave_by(0, &stage.ticket()).await?;
    let leader = stage.join(stage.ticket()).await?;
    stage.leave_by(0, &stage.ticket()).await?;
    leader.goes_on_leading("after a stranger left").await
}

async fn leaving_again_spares_a_later_leader(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    let second = stage.join(stage.ticket()).await?;
    let third = stage.join_by(1, stage.ticket()).await?;
    for _ in 0..2 {
        // The second time as when the first answer was lost.
        stage.leave(&first).await?;
        second.leads("after the first left").await?;
        second.entry.confirm().await?;
    }
    stage.leave(&second).await?;
    stage.leave(&first).await?;
    stage.leave(&second).await?;
    third.goes_on_leading("after two have left twice").await?;
    stage.ensure_entries("after two of three left", 1).await
}

async fn a_candidate_that_has_left_is_gone_for_good(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let candidate = stage.join(stage.ticket()).await?;
    candidate.leads("alone").await?;
    stage.leave(&candidate).await?;
    let error = candidate.is_gone("after it left").await?;
    ensure(LOSS.contains(&error.kind()), || {
        format!("it is gone because of {}", error.report())
    })?;
    let entry = &candidate.entry;
    ensure_fails("confirming what has left", entry.confirm().await, &LOSS)?;
    ensure_fails("proclaiming", entry.proclaim(b"late").await, &LOSS)?;
    stage.ensure_entries("after it left", 0).await
}

async fn a_join_that_was_dropped_is_cleaned_up(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    for wait in [0, 1, 2, 5] {
        let ticket = stage.ticket();
        let joining = stage.electors[0].join(&ticket);
        if wait == 0 {
            drop(joining.now_or_never());
        } else {
            drop(timeout(Duration::from_millis(wait), joining).await);
        }
        stage.leave_by(0, &ticket).await?;
    }
    let next = stage.join_by(1, stage.ticket()).await?;
    next.leads("after dropped joins were left").await?;
    stage.leave_by(1, &next.ticket).await?;
    // Nothing that was still on its way may arrive later.
    sleep(Duration::from_millis(200)).await;
    stage
        .ensure_entries("after dropped joins were left", 0)
        .await
}

async fn dropping_an_entry_changes_nothing_at_the_server(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    let token = first.leads("alone").await?.token;
    let second = stage.join(stage.ticket()).await?;
    let ticket = first.ticket.clone();
    drop(first);
    second.waits("after the leader's entry was dropped").await?;
    let again = stage.join(ticket).await?;
    let found = again.leads("joined again").await?.token;
    ensure(found == token, || {
        format!("the entry had the token {token:?}, joined again {found:?}")
    })
}

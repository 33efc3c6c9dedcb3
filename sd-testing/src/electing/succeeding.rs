//! Succeeding: who leads next, with which token, and how the others learn of it.

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use sd_core::port::Standing;
use tokio::time::{Duration, timeout};

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::electing::stage::{Stage, Term};

pub(super) const CASES: &[Case] = &[
    case!(when_the_leader_leaves_the_next_one_leads_with_a_greater_token),
    case!(
        candidates_lead_in_the_order_in_which_they_joined,
        FairElections
    ),
    case!(many_candidates_lead_one_after_the_other),
    case!(tokens_grow_also_when_no_candidate_took_part_in_between),
    case!(a_candidate_in_the_middle_that_leaves_makes_no_other_lead),
    case!(a_standing_is_not_told_again_while_nothing_changes),
    case!(dropped_questions_lose_nothing),
];

/// Fails unless the token is greater than the last one.
fn follow(last: &mut Option<Term>, term: Term) -> Outcome {
    let grows = last.as_ref().is_none_or(|last| last.token < term.token);
    ensure(grows, || format!("{term:?} comes after {last:?}"))?;
    *last = Some(term);
    Ok(())
}

async fn when_the_leader_leaves_the_next_one_leads_with_a_greater_token(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    let second = stage.join_by(1, stage.ticket()).await?;
    let mut last = None;
    follow(&mut last, first.leads("alone").await?)?;
    let leaving = async {
        second.waits("while the first leads").await?;
        stage.leave(&first).await
    };
    let (left, term) = tokio::join!(leaving, second.leads("after the first left"));
    left?;
    follow(&mut last, term?)?;
    second.goes_on_leading("after the first left").await?;
    first.is_gone("after it left").await.map(drop)
}

async fn candidates_lead_in_the_order_in_which_they_joined(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let mut candidates = Vec::new();
    for client in 0..6 {
        candidates.push(stage.join_by(client, stage.ticket()).await?);
    }
    for (client, candidate) in candidates.iter().enumerate() {
        candidate.leads("when all before it have left").await?;
        for behind in &candidates[client + 1..] {
            let standing = behind.standing("behind the leader").await?;
            ensure(matches!(standing, Standing::Waiting { .. }), || {
                format!("two lead, or one has overtaken: {standing:?}")
            })?;
        }
        stage.leave_by(client, &candidate.ticket).await?;
    }
    Ok(())
}

async fn many_candidates_lead_one_after_the_other(fixture: &dyn Fixture) -> Outcome {
    const CANDIDATES: usize = 50;
    let stage = Stage::open(fixture).await?;
    let joining = (0..CANDIDATES).map(|client| stage.join_by(client, stage.ticket()));
    let candidates = try_join_all(joining).await?;
    // Each leaves as soon as it leads, so no two of these overlap.
    let leading = candidates
        .iter()
        .enumerate()
        .map(async |(client, candidate)| {
            let term = candidate.leads("after those before it left").await?;
            stage.leave_by(client, &candidate.ticket).await?;
            Ok::<Term, Failure>(term)
        });
    let terms = try_join_all(leading).await?;
    let mut tokens: Vec<u64> = terms.iter().map(|term| term.token.value()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    ensure(tokens.len() == CANDIDATES, || {
        format!("{CANDIDATES} terms had {} tokens", tokens.len())
    })?;
    stage.ensure_entries("after all have left", 0).await
}

async fn tokens_grow_also_when_no_candidate_took_part_in_between(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let mut last = None;
    for client in 0..5 {
        let alone = stage.join_by(client, stage.ticket()).await?;
        follow(&mut last, alone.leads("alone").await?)?;
        stage.leave_by(client, &alone.ticket).await?;
    }
    Ok(())
}

async fn a_candidate_in_the_middle_that_leaves_makes_no_other_lead(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    let middle = stage.join_by(1, stage.ticket()).await?;
    let last = stage.join(stage.ticket()).await?;
    let leaving = async {
        last.waits("while two are before it").await?;
        stage.leave_by(1, &middle.ticket).await?;
        last.waits("after the one before it left").await?;
        first.goes_on_leading("after one behind it left").await?;
        stage.leave(&first).await
    };
    let (left, led) = tokio::join!(leaving, last.leads("after both before it left"));
    left?;
    led.map(drop)
}

async fn a_standing_is_not_told_again_while_nothing_changes(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    let second = stage.join(stage.ticket()).await?;
    for _ in 0..3 {
        // Both fail when they are told what they have seen.
        let (one, two) = tokio::join!(
            first.goes_on_leading("while nothing changes"),
            second.waits("while nothing changes")
        );
        one.and(two)?;
        first.entry.confirm().await?;
        second.entry.confirm().await?;
    }
    let term = first.leads("all the time").await?;
    let again = first.leads("asked again").await?;
    ensure(term.token == again.token, || {
        format!("one term has two tokens: {term:?}, then {again:?}")
    })
}

async fn dropped_questions_lose_nothing(fixture: &dyn Fixture) -> Outcome {
    const ROUNDS: usize = 16;
    let stage = Stage::open(fixture).await?;
    let mut leader = stage.join(stage.ticket()).await?;
    leader.leads("alone").await?;
    for round in 0..ROUNDS {
        let next = stage.join(stage.ticket()).await?;
        let seen = next.standing("behind the leader").await?;
        stage.leave(&leader).await?;
        // At their first wait and at a later one, in some rounds before the change can have arrived. What they answered is lost.
        for drops in 0..round % 4 {
            drop(next.entry.standing(Some(&seen)).now_or_never());
            if drops > 0 {
                let moment = Duration::from_millis(1);
                drop(timeout(moment, next.entry.standing(Some(&seen))).await);
            }
        }
        next.leads_since("after questions were dropped", seen)
            .await?;
        leader = next;
    }
    Ok(())
}

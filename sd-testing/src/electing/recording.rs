//! Recording: how the term before ended, for those who wait a while before they take over.

use sd_core::port::{Predecessor, Ticket};

use crate::Fixture;
use crate::case::{Case, Outcome, case, ensure};
use crate::electing::stage::{Candidate, Stage};

pub(super) const CASES: &[Case] = &[
    case!(the_first_recorded_term_has_none_before_it),
    case!(the_next_leader_learns_that_the_one_before_had_stopped),
    case!(the_next_leader_learns_that_the_one_before_may_still_believe),
    case!(a_term_that_ends_early_does_not_hide_a_longer_one_before_it),
    case!(the_next_leader_may_be_left_to_think_that_the_one_before_still_believes),
    case!(without_records_nothing_is_known_of_the_term_before),
];

fn recorded(ticket: Ticket) -> Ticket {
    ticket.with_term_record()
}

fn without_record(ticket: &Ticket) -> Ticket {
    let mut ticket = ticket.clone();
    ticket.records_term = false;
    ticket
}

/// Fails unless the candidate is told so, also when it asks again.
async fn finds(
    candidate: &Candidate,
    when: &str,
    expected: impl Fn(Predecessor) -> bool,
) -> Outcome {
    for _ in 0..3 {
        let before = candidate.leads(when).await?.before;
        ensure(expected(before), || format!("{when}: {before:?} was told"))?;
        candidate.entry.confirm().await?;
    }
    Ok(())
}

async fn the_first_recorded_term_has_none_before_it(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(recorded(stage.ticket())).await?;
    let none = |before| before == Predecessor::None;
    finds(&first, "in an election without a term before", none).await
}

async fn the_next_leader_learns_that_the_one_before_had_stopped(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let resigned = |before| before == Predecessor::Resigned;
    let first = stage.join(recorded(stage.ticket())).await?;
    first.leads("alone").await?;
    let second = stage.join_by(1, recorded(stage.ticket())).await?;
    // Its end is no end of a term.
    let waiting = stage.join(recorded(stage.ticket())).await?;
    stage.leave(&waiting).await?;
    stage.leave(&first).await?;
    finds(&second, "behind one that left", resigned).await?;
    stage.leave_by(1, &second.ticket).await?;
    let third = stage.join(recorded(stage.ticket())).await?;
    finds(&third, "alone, after one that left", resigned).await
}

async fn the_next_leader_learns_that_the_one_before_may_still_believe(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(recorded(stage.short_ticket())).await?;
    first.leads("alone").await?;
    let granted = first.entry.confirm().await?.ttl;
    let second = stage.join_by(1, recorded(stage.ticket())).await?;
    stage.expire(&first.ticket).await?;
    let unknown = |before| match before {
        Predecessor::Unknown { ttl } => ttl == granted,
        Predecessor::None | Predecessor::Resigned => false,
    };
    finds(&second, "behind one whose lease ended", unknown).await
}

async fn a_term_that_ends_early_does_not_hide_a_longer_one_before_it(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(recorded(stage.ticket())).await?;
    first.leads("alone").await?;
    let longest = first.entry.confirm().await?.ttl;
    let second = stage.join_by(1, recorded(stage.short_ticket())).await?;
    stage.leave_by(0, &without_record(&first.ticket)).await?;
    let unknown = |before| before == Predecessor::Unknown { ttl: longest };
    finds(&second, "behind one that left without a record", unknown).await?;
    stage.leave_by(1, &without_record(&second.ticket)).await?;
    let third = stage.join(recorded(stage.short_ticket())).await?;
    finds(&third, "behind two that left without a record", unknown).await
}

async fn the_next_leader_may_be_left_to_think_that_the_one_before_still_believes(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(recorded(stage.ticket())).await?;
    first.leads("alone").await?;
    let second = stage.join_by(1, recorded(stage.ticket())).await?;
    stage.leave_by(0, &without_record(&first.ticket)).await?;
    let unknown = |before| matches!(before, Predecessor::Unknown { .. });
    finds(&second, "behind one that left without a record", unknown).await
}

async fn without_records_nothing_is_known_of_the_term_before(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let none = |before| before == Predecessor::None;
    let first = stage.join(stage.ticket()).await?;
    finds(&first, "without records", none).await?;
    stage.leave(&first).await?;
    let second = stage.join(stage.ticket()).await?;
    finds(&second, "behind one that left without a record", none).await?;
    stage.leave(&second).await?;
    let third = stage.join(recorded(stage.ticket())).await?;
    finds(&third, "with a record, behind one without", none).await
}

//! Joining: one entry for each ticket, and nothing for what can never work.

use std::sync::Arc;
use std::time::Duration;

use sd_core::port::{AnyElector, Guarantee, Ticket};
use sd_core::{ElectionName, ErrorKind};

use crate::case::{Case, Failure, Outcome, case, ensure, ensure_fails};
use crate::electing::stage::{Stage, elector_of};
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[
    case!(what_is_promised_is_told_and_fits_the_type),
    case!(a_candidate_alone_leads_at_once),
    case!(a_second_candidate_waits),
    case!(joining_again_with_one_ticket_finds_the_same_entry),
    case!(an_id_that_another_client_took_part_with_is_a_conflict),
    case!(a_join_repeated_after_leaving_spares_the_leader),
    case!(a_ticket_that_can_never_work_is_refused_and_nothing_is_entered),
    case!(elections_whose_names_begin_alike_do_not_mix),
    case!(a_closed_client_takes_part_in_nothing),
];

/// Values larger than this are not tried.
const LARGEST_TRIED: usize = 16 * 1024 * 1024;

async fn what_is_promised_is_told_and_fits_the_type(fixture: &dyn Fixture) -> Outcome {
    let client = fixture.backend().await?;
    let elector = elector_of(&client)?;
    let typed = match &elector {
        AnyElector::Strict(_) => Guarantee::Strict,
        AnyElector::BestEffort(_) => Guarantee::BestEffort,
    };
    let safety = elector.into_any().safety().await?;
    ensure(safety.guarantee == typed, || {
        format!("{typed:?} by type, {:?} when asked", safety.guarantee)
    })?;
    let strict = safety.guarantee == Guarantee::Strict;
    for (ability, has) in [
        (Ability::StrictElections, strict),
        (Ability::FairElections, safety.fair),
    ] {
        ensure(fixture.has(ability) == has, || {
            format!("the fixture and the elector differ about {ability}: {safety:?}")
        })?;
    }
    let ttl = fixture.election_ttl();
    ensure(safety.early_expiry < ttl, || {
        format!("a lease of {ttl:?} may end {:?} early", safety.early_expiry)
    })?;
    ensure(safety.failover_within(ttl) >= ttl, || {
        format!("a leader is replaced before its {ttl:?} have passed: {safety:?}")
    })
}

async fn a_candidate_alone_leads_at_once(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let alone = stage.join(stage.ticket()).await?;
    alone.goes_on_leading("alone").await
}

async fn a_second_candidate_waits(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    for client in 0..2 {
        let second = stage.join_by(client, stage.ticket()).await?;
        second.waits("while another leads").await?;
    }
    first.goes_on_leading("while others wait").await
}

async fn joining_again_with_one_ticket_finds_the_same_entry(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let once = stage.join(stage.ticket()).await?;
    let waiting = stage.join(stage.ticket()).await?;
    // As after an answer that was lost.
    let again = stage.join(once.ticket.clone()).await?;
    let waiting_again = stage.join(waiting.ticket.clone()).await?;
    stage.ensure_entries("after two joined twice", 2).await?;
    let tokens = [
        once.leads("after it joined twice").await?.token,
        again.leads("joined again").await?.token,
    ];
    ensure(tokens[0] == tokens[1], || {
        format!("one entry has two tokens: {tokens:?}")
    })?;
    once.entry.confirm().await?;
    again.entry.confirm().await?;
    stage.leave(&again).await?;
    once.is_gone("after it left").await?;
    again.is_gone("after it left").await?;
    let tokens = [
        waiting.leads("after the first left").await?.token,
        waiting_again.leads("after the first left").await?.token,
    ];
    ensure(tokens[0] == tokens[1], || {
        format!("one entry has two tokens: {tokens:?}")
    })
}

async fn an_id_that_another_client_took_part_with_is_a_conflict(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let holder = stage.join(stage.ticket()).await?;
    let waiting = stage.join(stage.ticket()).await?;
    for ticket in [&holder.ticket, &waiting.ticket] {
        ensure_fails(
            "joining with another client's id",
            stage.electors[1].join(ticket).await,
            &[ErrorKind::Conflict],
        )?;
        // What is done after any join that failed.
        stage.leave_by(1, ticket).await?;
    }
    stage
        .ensure_entries("after another client tried", 2)
        .await?;
    holder.entry.confirm().await?;
    holder
        .goes_on_leading("after another client tried its id")
        .await?;
    waiting.waits("after another client tried its id").await
}

async fn a_join_repeated_after_leaving_spares_the_leader(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let first = stage.join(stage.ticket()).await?;
    let before = first.leads("alone").await?;
    stage.leave(&first).await?;
    let next = stage.join_by(1, stage.ticket()).await?;
    let leading = next.leads("after the first left").await?;
    match stage.join(first.ticket.clone()).await {
        Ok(again) => {
            again.waits("joined again behind another").await?;
            first.is_gone("after it left").await?;
            stage.leave_by(1, &next.ticket).await?;
            let after = again.leads("after the other one left").await?;
            ensure(leading.token < after.token, || {
                format!("{after:?} comes after {leading:?} and {before:?}")
            })
        }
        Err(_) => {
            next.goes_on_leading("after another could not join again")
                .await
        }
    }
}

async fn a_ticket_that_can_never_work_is_refused_and_nothing_is_entered(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let limits = stage.electors[0].limits();
    let step = Duration::from_nanos(1);
    let mut bad = vec![Ticket::new(stage.name.clone(), *b"", stage.ticket().ttl)];
    let (shortest, longest) = (limits.ttl.start(), limits.ttl.end());
    let outside = [shortest.checked_sub(step), longest.checked_add(step)];
    for ttl in outside.into_iter().flatten() {
        bad.push(Ticket::new(stage.name.clone(), *b"v", ttl));
    }
    if limits.record_bytes <= LARGEST_TRIED {
        let value = vec![b'v'; limits.record_bytes + 1];
        bad.push(Ticket::new(stage.name.clone(), value, stage.ticket().ttl));
    }
    for ticket in bad {
        ensure_fails(
            &format!(
                "joining with a value of {} bytes for {:?}",
                ticket.value.len(),
                ticket.ttl
            ),
            stage.electors[0].join(&ticket).await,
            &[ErrorKind::InvalidInput],
        )?;
    }
    let good = stage.join(stage.ticket()).await?;
    ensure_fails(
        "proclaiming nothing",
        good.entry.proclaim(b"").await,
        &[ErrorKind::InvalidInput],
    )?;
    stage
        .ensure_entries("after the others were refused", 1)
        .await
}

async fn elections_whose_names_begin_alike_do_not_mix(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let outer = stage.join(stage.ticket()).await?;
    let mut all = vec![outer];
    // Also one that is named as an entry of the first.
    let names = [
        format!("{}/b", stage.name),
        format!("{}b", stage.name),
        format!("{}/{}", stage.name, all[0].ticket.id),
    ];
    for name in names {
        let mut ticket = stage.ticket();
        ticket.name = ElectionName::new(name)?;
        ticket.value = Arc::from(*b"another");
        all.push(stage.join(ticket).await?);
    }
    for candidate in &all {
        candidate.leads("alone in its election").await?;
    }
    stage
        .ensure_entries("among elections with names alike", 1)
        .await?;
    let [outer, others @ ..] = all.as_slice() else {
        return Err(Failure::Broken("no candidate joined".to_owned()));
    };
    stage.leave(outer).await?;
    for candidate in others {
        candidate
            .goes_on_leading("after one left another election")
            .await?;
    }
    let next = stage.join(stage.ticket()).await?;
    for candidate in others {
        stage.leave(candidate).await?;
    }
    next.goes_on_leading("after all left other elections").await
}

async fn a_closed_client_takes_part_in_nothing(fixture: &dyn Fixture) -> Outcome {
    const CLOSED: &[ErrorKind] = &[ErrorKind::Closed];
    let stage = Stage::open(fixture).await?;
    let candidate = stage.join(stage.ticket()).await?;
    let leading = candidate.standing("alone").await?;
    let mut feed = stage.electors[0].observe(&stage.name).await?;
    feed.next().await?;
    let waiting = async { tokio::join!(candidate.entry.standing(Some(&leading)), feed.next()) };
    let closing = async {
        tokio::task::yield_now().await;
        stage.clients[0].close().await
    };
    let within = super::stage::AT_ONCE;
    let ended = tokio::time::timeout(within, async { tokio::join!(waiting, closing) }).await;
    let Ok(((standing, told), closed)) = ended else {
        return Err(Failure::Broken(format!(
            "closing did not end what waits within {within:?}"
        )));
    };
    closed?;
    ensure_fails("a standing that was waited for", standing, CLOSED)?;
    ensure_fails("a feed that was waited for", told, CLOSED)?;
    let (elector, entry) = (&stage.electors[0], &candidate.entry);
    ensure_fails("standing", entry.standing(None).await, CLOSED)?;
    ensure_fails("confirming", entry.confirm().await, CLOSED)?;
    ensure_fails("proclaiming", entry.proclaim(b"v").await, CLOSED)?;
    ensure_fails("joining", elector.join(&stage.ticket()).await, CLOSED)?;
    ensure_fails("leaving", elector.leave(&candidate.ticket).await, CLOSED)?;
    ensure_fails("observing", elector.observe(&stage.name).await, CLOSED)
}

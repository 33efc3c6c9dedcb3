//! Confirming: keeps an entry, and proves that it is there. Some of these cases wait for a time-to-live to pass.

use sd_core::ElectionName;
use sd_core::port::{Confirmation, CountsFrom, Standing};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, done, ensure, ensure_fails};
use crate::electing::stage::{Candidate, LOSS, Stage};

pub(super) const CASES: &[Case] = &[
    case!(at_least_the_time_to_live_that_was_asked_for_is_granted),
    case!(confirmations_keep_the_leader_beyond_its_ttl),
    case!(
        without_confirmations_the_next_one_leads_in_time_and_not_before,
        Leases
    ),
    case!(a_waiting_candidate_whose_lease_ended_is_told),
    case!(a_leader_whose_lease_ended_is_told_and_never_comes_back),
    case!(a_waiting_candidate_that_was_removed_is_told),
    case!(a_leader_that_was_removed_is_told_and_never_comes_back),
    case!(the_end_of_a_session_is_the_end_of_all_its_entries, Sessions),
];

async fn at_least_the_time_to_live_that_was_asked_for_is_granted(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let half = Duration::from_millis(500);
    let (short, long) = (stage.short_ticket(), stage.ticket());
    let mut odd = stage.short_ticket();
    odd.ttl = (odd.ttl + half).min(*stage.electors[0].limits().ttl.end());
    for ticket in [short, odd, long] {
        let asked = ticket.ttl;
        let candidate = stage.join(ticket).await?;
        for _ in 0..2 {
            let Confirmation { ttl, .. } = candidate.entry.confirm().await?;
            ensure(ttl >= asked, || {
                format!("{asked:?} were asked for, {ttl:?} granted")
            })?;
        }
    }
    Ok(())
}

async fn confirmations_keep_the_leader_beyond_its_ttl(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let leader = stage.join(stage.short_ticket()).await?;
    let leading = leader.standing("alone").await?;
    let next = stage.join_by(1, stage.ticket()).await?;
    let waiting = next.standing("behind the leader").await?;
    let granted = leader.entry.confirm().await?.ttl;
    let confirming = async {
        for _ in 0..8 {
            sleep(granted / 3).await;
            leader.entry.confirm().await?;
        }
        Ok::<(), Failure>(())
    };
    tokio::select! {
        biased;
        confirmed = confirming => confirmed?,
        told = leader.entry.standing(Some(&leading)) => {
            return Err(Failure::Broken(format!("while it was confirmed the leader was told {told:?}")));
        }
        told = takes_over(&next, waiting) => {
            return Err(Failure::Broken(format!("while the leader was confirmed another {}", told?)));
        }
    }
    leader
        .goes_on_leading("after more than two times its ttl")
        .await?;
    next.waits("after more than two times the leader's ttl")
        .await
}

/// Returns when a waiting candidate does not wait any more.
async fn takes_over(next: &Candidate, mut seen: Standing) -> Result<&'static str, Failure> {
    loop {
        seen = next.entry.standing(Some(&seen)).await?;
        match seen {
            Standing::Waiting { .. } => {}
            Standing::First { .. } => return Ok("was first"),
            Standing::Gone(_) => return Ok("was gone"),
        }
    }
}

async fn without_confirmations_the_next_one_leads_in_time_and_not_before(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let safety = stage.electors[0].safety().await?;
    let leader = stage.join(stage.short_ticket()).await?;
    let leading = leader.standing("alone").await?;
    let next = stage.join_by(1, stage.ticket()).await?;
    let waiting = next.standing("behind the leader").await?;
    // The last confirmations count, not the join.
    let earlier = Instant::now();
    leader.entry.confirm().await?;
    sleep(leader.ticket.ttl / 3).await;
    let sent = Instant::now();
    let confirmed = leader.entry.confirm().await?;
    let granted = confirmed.ttl;
    let counted_from = match confirmed.counts_from {
        CountsFrom::ThisSend => sent,
        // They were far enough apart.
        CountsFrom::EarlierSend(_) => earlier,
    };
    let taking_over = async {
        let told = takes_over(&next, waiting).await?;
        Ok::<_, Failure>((told, counted_from.elapsed()))
    };
    // Asking where it stands keeps nothing alive.
    let losing = async { Ok(leader.entry.standing(Some(&leading)).await?) };
    let limit = safety.failover_within(granted) + fixture.expiry_slack();
    let both = timeout(limit, async { tokio::try_join!(taking_over, losing) }).await;
    let Ok(both) = both else {
        return Err(Failure::Broken(format!(
            "not done {:?} after the leader was last confirmed for {granted:?}",
            sent.elapsed()
        )));
    };
    let ((took_over, after), lost_it) = both?;
    ensure(took_over == "was first", || {
        format!("the next one {took_over}")
    })?;
    ensure(matches!(lost_it, Standing::Gone(_)), || {
        format!("the leader was told {lost_it:?}")
    })?;
    ensure(after + safety.early_expiry >= granted, || {
        format!("the next one led {after:?} after the leader was confirmed for {granted:?}")
    })?;
    lost(&leader, "after another took over").await?;
    next.goes_on_leading("after it took over").await
}

async fn a_waiting_candidate_whose_lease_ended_is_told(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let leader = stage.join(stage.ticket()).await?;
    // The others of its client would end with its session, where there is one.
    let waiting = stage.join_by(1, stage.short_ticket()).await?;
    let behind = stage.join(stage.ticket()).await?;
    let ending = async {
        waiting.waits("behind the leader").await?;
        stage.expire(&waiting.ticket).await
    };
    let (ended, told) = tokio::join!(ending, waiting.is_gone("after its lease ended"));
    ended?;
    told?;
    lost(&waiting, "after its lease ended").await?;
    behind.waits("after the one before it was lost").await?;
    leader.goes_on_leading("after one behind it was lost").await
}

async fn a_leader_whose_lease_ended_is_told_and_never_comes_back(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let leader = stage.join(stage.short_ticket()).await?;
    leader.leads("alone").await?;
    let next = stage.join_by(1, stage.ticket()).await?;
    let ending = async {
        next.waits("behind the leader").await?;
        stage.expire(&leader.ticket).await
    };
    let (ended, told, led) = tokio::join!(
        ending,
        leader.is_gone("after its lease ended"),
        next.leads("after the leader's lease ended"),
    );
    ended?;
    told?;
    led?;
    lost(&leader, "after its lease ended").await?;
    stage.ensure_entries("after the leader was lost", 1).await
}

async fn a_waiting_candidate_that_was_removed_is_told(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let leader = stage.join(stage.ticket()).await?;
    let waiting = stage.join(stage.ticket()).await?;
    let behind = stage.join(stage.ticket()).await?;
    let removing = async {
        waiting.waits("behind the leader").await?;
        done(stage.fixture.remove_entry(&waiting.ticket).await)
    };
    let (removed, told) = tokio::join!(removing, waiting.is_gone("after it was removed"));
    removed?;
    told?;
    lost(&waiting, "after it was removed").await?;
    behind.waits("after the one before it was removed").await?;
    leader
        .goes_on_leading("after one behind it was removed")
        .await
}

async fn a_leader_that_was_removed_is_told_and_never_comes_back(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let leader = stage.join(stage.ticket()).await?;
    let token = leader.leads("alone").await?.token;
    let next = stage.join_by(1, stage.ticket()).await?;
    let removing = async {
        next.waits("behind the leader").await?;
        done(stage.fixture.remove_entry(&leader.ticket).await)
    };
    let (removed, told, led) = tokio::join!(
        removing,
        leader.is_gone("after it was removed"),
        next.leads("after the leader was removed"),
    );
    removed?;
    told?;
    let after = led?.token;
    ensure(token < after, || format!("{after:?} comes after {token:?}"))?;
    lost(&leader, "after it was removed").await?;
    next.goes_on_leading("after the other one tried to come back")
        .await?;
    stage
        .ensure_entries("after the leader was removed", 1)
        .await
}

async fn the_end_of_a_session_is_the_end_of_all_its_entries(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let second = ElectionName::new(format!("{}/second", stage.name))?;
    let ticket_of_second = || {
        let mut ticket = stage.short_ticket();
        ticket.name = second.clone();
        ticket
    };
    let leader = stage.join(stage.short_ticket()).await?;
    leader.leads("alone").await?;
    let next = stage.join_by(1, stage.ticket()).await?;
    let behind = stage.join(stage.short_ticket()).await?;
    let elsewhere = stage.join(ticket_of_second()).await?;
    elsewhere.leads("alone in another election").await?;
    next.waits("behind the leader").await?;
    behind.waits("behind two").await?;

    let (ended, first, second, third, led) = tokio::join!(
        stage.expire(&leader.ticket),
        leader.is_gone("after its session ended"),
        behind.is_gone("after the session of its client ended"),
        elsewhere.is_gone("after the session of its client ended"),
        next.leads("after the leader's session ended"),
    );
    ended?;
    for told in [first, second, third] {
        told?;
    }
    led?;
    for candidate in [&leader, &behind, &elsewhere] {
        lost(candidate, "after its session ended").await?;
    }
    stage.ensure_entries("after a session ended", 1).await?;
    // In a new session.
    let again = stage.join(stage.ticket()).await?;
    again.waits("joined again behind another").await?;
    let elsewhere = stage.join(ticket_of_second()).await?;
    elsewhere.leads("joined again alone").await?;
    next.goes_on_leading("after the others joined again").await
}

/// Fails unless the entry is gone for good and says so, whatever it is asked.
async fn lost(candidate: &Candidate, when: &str) -> Outcome {
    let entry = &candidate.entry;
    for _ in 0..2 {
        ensure_fails("confirming what is gone", entry.confirm().await, &LOSS)?;
        ensure_fails(
            "proclaiming what is gone",
            entry.proclaim(b"late").await,
            &LOSS,
        )?;
    }
    candidate.is_gone(when).await.map(drop)
}

//! Observing: who leads, and with which value; never an older term after a newer one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::FencingToken;
use sd_core::port::{Leader, LeaderFeed, LeaderWatcher};
use tokio::time::{Instant, timeout, timeout_at};

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::electing::stage::{AT_ONCE, Candidate, Stage};
use crate::follower::TOLD_WITHIN;

pub(super) const CASES: &[Case] = &[
    case!(an_observers_first_call_answers_at_once),
    case!(an_observer_is_told_who_leads_with_its_value_and_token),
    case!(an_observer_sees_each_handover_and_at_last_no_leader),
    case!(an_observer_is_told_what_the_leader_proclaims),
    case!(what_a_waiting_candidate_proclaims_is_told_when_it_leads),
    case!(a_dropped_call_of_an_observer_loses_nothing),
    case!(a_quiet_feed_of_an_election_says_that_it_is_alive),
];

/// Reads a feed, and checks on the way what holds for each.
struct Observer {
    feed: Box<dyn LeaderWatcher>,
    /// What was told last; `None` before the first call.
    told: Option<LeaderFeed>,
    newest: Option<FencingToken>,
}

impl Observer {
    async fn open(stage: &Stage<'_>) -> Result<Self, Failure> {
        let feed = stage.electors[1].observe(&stage.name).await?;
        Ok(Self {
            feed,
            told: None,
            newest: None,
        })
    }

    /// The first answer.
    async fn begin(stage: &Stage<'_>) -> Result<Self, Failure> {
        let mut observer = Self::open(stage).await?;
        match timeout(AT_ONCE, observer.feed.next()).await {
            Ok(told) => observer.take(told?)?,
            Err(_) => {
                return Err(Failure::Broken(format!(
                    "the first call was not answered within {AT_ONCE:?}"
                )));
            }
        }
        Ok(observer)
    }

    fn take(&mut self, told: LeaderFeed) -> Outcome {
        match &told {
            LeaderFeed::Leader { leader, .. } => {
                if let Some(Leader { token, .. }) = leader {
                    let back = self.newest.as_ref().is_some_and(|newest| token < newest);
                    ensure(!back, || {
                        format!("{token:?} was told after {:?}", self.newest)
                    })?;
                    self.newest = Some(token.clone());
                }
                self.told = Some(told);
            }
            LeaderFeed::Alive { .. } => ensure(self.told.is_some(), || {
                "the feed said that nothing changed before it told who leads".to_owned()
            })?,
            other => {
                return Err(Failure::Broken(format!(
                    "the feed told {other:?}, which this suite does not know"
                )));
            }
        }
        Ok(())
    }

    fn leader(&self) -> Option<&Leader> {
        match &self.told {
            Some(LeaderFeed::Leader { leader, .. }) => leader.as_ref(),
            _ => None,
        }
    }

    fn sees(&self, candidate: &Candidate, value: &[u8]) -> bool {
        self.leader()
            .is_some_and(|leader| leader.id == Some(candidate.ticket.id) && *leader.value == *value)
    }

    /// Waits until what was told last is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) -> Outcome {
        let deadline = Instant::now() + TOLD_WITHIN;
        while !wanted(self) {
            match timeout_at(deadline, self.feed.next()).await {
                Ok(told) => self.take(told?)?,
                Err(_) => {
                    return Err(Failure::Broken(format!(
                        "{what} was not told within {TOLD_WITHIN:?}; last told was {:?}",
                        self.told
                    )));
                }
            }
        }
        Ok(())
    }

    /// Waits until it is told that this candidate leads, with this value.
    async fn until_leads(&mut self, candidate: &Candidate, value: &[u8]) -> Outcome {
        let what = format!("{} with \"{}\"", candidate.ticket.id, value.escape_ascii());
        self.until(&what, |observer| observer.sees(candidate, value))
            .await
    }
}

async fn an_observers_first_call_answers_at_once(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let empty = Observer::begin(&stage).await?;
    ensure(empty.leader().is_none(), || {
        format!(
            "of an election without candidates {:?} was told",
            empty.told
        )
    })?;
    stage.ensure_entries("after it was observed", 0).await?;
    let leader = stage.join(stage.ticket()).await?;
    leader.leads("alone").await?;
    let behind = stage.join(stage.ticket()).await?;
    behind.standing("behind the leader").await?;
    let led = Observer::begin(&stage).await?;
    ensure(led.sees(&leader, &leader.ticket.value), || {
        format!("of an election with a leader {:?} was told", led.told)
    })?;
    stage.ensure_entries("after it was observed", 2).await
}

async fn an_observer_is_told_who_leads_with_its_value_and_token(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let mut observer = Observer::begin(&stage).await?;
    let mut ticket = stage.ticket();
    ticket.value = Arc::from([0, 255, b'/', b'"', b'\n'].as_slice());
    let candidate = stage.join(ticket).await?;
    let term = candidate.leads("alone").await?;
    observer
        .until_leads(&candidate, &candidate.ticket.value)
        .await?;
    let told = observer.leader().map(|leader| &leader.token);
    ensure(told == Some(&term.token), || {
        format!("the leader has {term:?}, the observer was told {told:?}")
    })
}

async fn an_observer_sees_each_handover_and_at_last_no_leader(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let mut observer = Observer::begin(&stage).await?;
    let mut candidates = Vec::new();
    for client in 0..4 {
        candidates.push(stage.join_by(client, stage.ticket()).await?);
    }
    for (client, candidate) in candidates.iter().enumerate() {
        candidate.leads("when all before it have left").await?;
        observer
            .until_leads(candidate, &candidate.ticket.value)
            .await?;
        stage.leave_by(client, &candidate.ticket).await?;
    }
    observer
        .until("that there is no leader", |observer| {
            observer.leader().is_none()
        })
        .await?;
    let late = stage.join(stage.ticket()).await?;
    late.leads("alone").await?;
    observer.until_leads(&late, &late.ticket.value).await
}

async fn an_observer_is_told_what_the_leader_proclaims(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let mut observer = Observer::begin(&stage).await?;
    let candidate = stage.join(stage.ticket()).await?;
    let term = candidate.leads("alone").await?;
    observer
        .until_leads(&candidate, &candidate.ticket.value)
        .await?;
    for value in [b"one".as_slice(), b"two"] {
        candidate.entry.proclaim(value).await?;
        observer.until_leads(&candidate, value).await?;
        let late = Observer::begin(&stage).await?;
        ensure(late.sees(&candidate, value), || {
            format!("a new observer was told {:?}", late.told)
        })?;
    }
    let told = observer.leader().map(|leader| &leader.token);
    ensure(told == Some(&term.token), || {
        format!("what was proclaimed changed the token {term:?} to {told:?}")
    })?;
    candidate.goes_on_leading("after it proclaimed").await
}

async fn what_a_waiting_candidate_proclaims_is_told_when_it_leads(
    fixture: &dyn Fixture,
) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let leader = stage.join(stage.ticket()).await?;
    leader.leads("alone").await?;
    leader.entry.proclaim(b"leader").await?;
    let next = stage.join(stage.ticket()).await?;
    next.standing("behind the leader").await?;
    next.entry.proclaim(b"next").await?;
    let mut observer = Observer::begin(&stage).await?;
    ensure(observer.sees(&leader, b"leader"), || {
        format!("while one leads, {:?} was told", observer.told)
    })?;
    next.waits("after it proclaimed").await?;
    stage.leave(&leader).await?;
    // Where there is no queue at the server, it has to be asked where it stands before it can lead.
    let (led, seen) = tokio::join!(
        next.leads("after the leader left"),
        observer.until_leads(&next, b"next"),
    );
    led?;
    seen
}

async fn a_dropped_call_of_an_observer_loses_nothing(fixture: &dyn Fixture) -> Outcome {
    const ROUNDS: usize = 16;
    let stage = Stage::open(fixture).await?;
    let mut observer = Observer::begin(&stage).await?;
    let leader = stage.join(stage.ticket()).await?;
    leader.leads("alone").await?;
    for round in 0..ROUNDS {
        let value = round.to_string().into_bytes();
        leader.entry.proclaim(&value).await?;
        // At their first wait and at a later one, in some rounds before the change can have arrived.
        for drops in 0..round % 4 {
            if let Some(told) = observer.feed.next().now_or_never() {
                observer.take(told?)?;
            }
            let moment = Duration::from_millis(1);
            if drops > 0
                && let Ok(told) = timeout(moment, observer.feed.next()).await
            {
                observer.take(told?)?;
            }
        }
        observer.until_leads(&leader, &value).await?;
    }
    Ok(())
}

async fn a_quiet_feed_of_an_election_says_that_it_is_alive(fixture: &dyn Fixture) -> Outcome {
    let stage = Stage::open(fixture).await?;
    let mut observer = Observer::begin(&stage).await?;
    let limit = observer.feed.silence_limit();
    let sane = Duration::from_millis(100)..=Duration::from_secs(30 * 60);
    ensure(sane.contains(&limit), || {
        format!("a silence limit of {limit:?} is outside of {sane:?}")
    })?;
    ensure(limit <= fixture.patience(), || {
        format!(
            "a feed may be silent for {limit:?}, and the fixture waits for {:?}",
            fixture.patience()
        )
    })?;
    match timeout(limit, observer.feed.next()).await {
        Ok(told) => observer.take(told?),
        Err(_) => Err(Failure::Broken(format!(
            "silent for {limit:?}: it would be taken for dead"
        ))),
    }
}

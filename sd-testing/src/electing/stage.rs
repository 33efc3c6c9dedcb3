//! Where a case plays: an election of its own, and two clients whose candidates take part in it.

use std::sync::Arc;
use std::time::Duration;

use sd_core::port::{AnyElector, Entry, Predecessor, Standing, Ticket};
use sd_core::{Backend, ElectionName, Elector, Error, ErrorKind, FencingToken};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::case::{Failure, Outcome, done, ensure};
use crate::follower::TOLD_WITHIN;
use crate::{Ability, Fixture};

/// How long a loopback and a busy machine may take for an answer that must come at once.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);
/// How long a case watches that nothing happens.
pub(super) const QUIET: Duration = Duration::from_millis(300);
/// What a call on an entry says when that is gone for good.
pub(super) const LOSS: [ErrorKind; 3] = [
    ErrorKind::LeaseLost,
    ErrorKind::NotFound,
    ErrorKind::Conflict,
];
/// Long enough for an entry to outlive a case without confirmations.
const OUTLIVES_A_CASE: Duration = Duration::from_secs(5 * 60);

pub(super) struct Stage<'a> {
    pub(super) fixture: &'a dyn Fixture,
    pub(super) name: ElectionName,
    /// Two clients, as independent as those of two processes.
    pub(super) clients: [Arc<dyn Backend>; 2],
    pub(super) electors: [Arc<dyn Elector>; 2],
}

/// A ticket with the entry that it was joined with.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) ticket: Ticket,
    pub(super) entry: Box<dyn Entry>,
}

/// A term as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) token: FencingToken,
    pub(super) before: Predecessor,
}

pub(super) fn elector_of(client: &Arc<dyn Backend>) -> Result<AnyElector, Failure> {
    let elector = Arc::clone(client).elector();
    elector.ok_or_else(|| Failure::Broken("the fixture's backend has no elections".to_owned()))
}

impl<'a> Stage<'a> {
    pub(super) async fn open(fixture: &'a dyn Fixture) -> Result<Self, Failure> {
        let clients = [fixture.backend().await?, fixture.backend().await?];
        let [one, two] = &clients;
        let electors = [elector_of(one)?.into_any(), elector_of(two)?.into_any()];
        Ok(Self {
            fixture,
            name: fixture.election(),
            clients,
            electors,
        })
    }

    /// A ticket whose entry needs no confirmation while a case runs.
    pub(super) fn ticket(&self) -> Ticket {
        let range = &self.electors[0].limits().ttl;
        let lasting = OUTLIVES_A_CASE.clamp(*range.start(), *range.end());
        Ticket::new(self.name.clone(), *b"a stranger", lasting)
    }

    /// A ticket whose entry ends soon unless it is confirmed.
    pub(super) fn short_ticket(&self) -> Ticket {
        let mut ticket = self.ticket();
        ticket.ttl = self.fixture.election_ttl();
        ticket
    }

    /// Joins with the first client.
    pub(super) async fn join(&self, ticket: Ticket) -> Result<Candidate, Failure> {
        self.join_by(0, ticket).await
    }

    /// Joins with one of the two clients.
    pub(super) async fn join_by(
        &self,
        client: usize,
        ticket: Ticket,
    ) -> Result<Candidate, Failure> {
        let joining = timeout(TOLD_WITHIN, self.electors[client % 2].join(&ticket)).await;
        let entry = joining.map_err(|_| hangs("joining"))??;
        Ok(Candidate { ticket, entry })
    }

    /// Lets a candidate of the first client leave.
    pub(super) async fn leave(&self, candidate: &Candidate) -> Outcome {
        self.leave_by(0, &candidate.ticket).await
    }

    pub(super) async fn leave_by(&self, client: usize, ticket: &Ticket) -> Outcome {
        let leaving = timeout(TOLD_WITHIN, self.electors[client % 2].leave(ticket)).await;
        Ok(leaving.map_err(|_| hangs("leaving"))??)
    }

    /// Fails unless the server has this many entries in the election.
    pub(super) async fn ensure_entries(&self, when: &str, expected: usize) -> Outcome {
        match self.fixture.entries(&self.name).await {
            Ok(found) => ensure(found == expected, || {
                format!("{when}: {expected} entries expected, {found} found")
            }),
            unable => done(unable.map(drop)),
        }
    }

    /// Ends the lease of a candidate that is not confirmed any more, or the session of its client.
    pub(super) async fn expire(&self, ticket: &Ticket) -> Outcome {
        let leases = self.fixture.has(Ability::Leases);
        match self.fixture.expire_entry(ticket).await {
            Err(error) if leases && error.kind() == ErrorKind::Unsupported => {
                let safety = self.electors[0].safety().await?;
                sleep(safety.failover_within(ticket.ttl) + self.fixture.expiry_slack()).await;
                Ok(())
            }
            expired => done(expired),
        }
    }
}

impl Candidate {
    /// Asks where the entry stands, which must be answered at once.
    pub(super) async fn standing(&self, when: &str) -> Result<Standing, Failure> {
        match timeout(AT_ONCE, self.entry.standing(None)).await {
            Ok(standing) => Ok(standing?),
            Err(_) => Err(Failure::Broken(format!(
                "{when}: a first question was not answered within {AT_ONCE:?}"
            ))),
        }
    }

    /// Waits until it leads.
    pub(super) async fn leads(&self, when: &str) -> Result<Term, Failure> {
        let told = self.until(when, None, |standing| {
            matches!(standing, Standing::First { .. })
        });
        Self::term(when, told.await?)
    }

    /// Waits until it leads, when it was last told `seen`.
    pub(super) async fn leads_since(&self, when: &str, seen: Standing) -> Result<Term, Failure> {
        let told = self.until(when, Some(seen), |standing| {
            matches!(standing, Standing::First { .. })
        });
        Self::term(when, told.await?)
    }

    fn term(when: &str, standing: Standing) -> Result<Term, Failure> {
        match standing {
            Standing::First { token, before } => Ok(Term { token, before }),
            other => Err(Failure::Broken(format!("{when}: {other:?}, not first"))),
        }
    }

    /// Waits until it is told that its entry is gone.
    pub(super) async fn is_gone(&self, when: &str) -> Result<Error, Failure> {
        let told = self.until(when, None, |standing| matches!(standing, Standing::Gone(_)));
        match told.await? {
            Standing::Gone(error) => Ok(error),
            other => Err(Failure::Broken(format!("{when}: {other:?}, not gone"))),
        }
    }

    /// Fails unless it waits, and goes on to do so for a while.
    pub(super) async fn waits(&self, when: &str) -> Outcome {
        self.stays(when, |standing| {
            matches!(standing, Standing::Waiting { .. })
        })
        .await
    }

    /// Fails unless it leads, and goes on to do so for a while.
    pub(super) async fn goes_on_leading(&self, when: &str) -> Outcome {
        self.stays(when, |standing| matches!(standing, Standing::First { .. }))
            .await
    }

    async fn until(
        &self,
        when: &str,
        mut seen: Option<Standing>,
        wanted: impl Fn(&Standing) -> bool,
    ) -> Result<Standing, Failure> {
        let deadline = Instant::now() + TOLD_WITHIN;
        loop {
            let Ok(told) = timeout_at(deadline, self.entry.standing(seen.as_ref())).await else {
                return Err(Failure::Broken(format!(
                    "{when}: still {seen:?} after {TOLD_WITHIN:?}"
                )));
            };
            let told = differing(when, seen.as_ref(), told?)?;
            if wanted(&told) {
                return Ok(told);
            }
            if matches!(told, Standing::Gone(_)) {
                return Err(Failure::Broken(format!("{when}: {told:?}")));
            }
            seen = Some(told);
        }
    }

    async fn stays(&self, when: &str, wanted: impl Fn(&Standing) -> bool) -> Outcome {
        let mut seen = self.standing(when).await?;
        let deadline = Instant::now() + QUIET;
        loop {
            ensure(wanted(&seen), || format!("{when}: {seen:?}"))?;
            match timeout_at(deadline, self.entry.standing(Some(&seen))).await {
                Ok(told) => seen = differing(when, Some(&seen), told?)?,
                Err(_) => return Ok(()),
            }
        }
    }
}

/// A standing that was told must differ from the one that was seen.
fn differing(when: &str, seen: Option<&Standing>, told: Standing) -> Result<Standing, Failure> {
    ensure(!seen.is_some_and(|seen| seen.is_same(&told)), || {
        format!("{when}: {told:?} was told again, though nothing changed")
    })?;
    Ok(told)
}

pub(super) fn hangs(what: &str) -> Failure {
    Failure::Broken(format!("{what} was not done within {TOLD_WITHIN:?}"))
}

//! Elections while the server or the application has trouble.

use std::sync::Arc;
use std::time::Duration;

use sd_core::port::{AnyElector, Ticket};
use sd_core::{Backend, ElectionName, Elector, ErrorKind, FencingToken, Incarnation};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::FaultFixture;
use super::stage::{proxy, unused_service};
use crate::case::tell_skipped;
use crate::standings::{after, first, gone, leads, now, told_at_last, waits};
use crate::{Ability, Fault, LONG};

/// Long enough that nothing expires meanwhile.
const LASTING: Duration = Duration::from_secs(5 * 60);
/// Long enough for a candidate to wait for a change.
const SETTLED: Duration = Duration::from_millis(300);

/// The leader goes on leading with its token, the waiting candidate goes on waiting, and both were told that the server was
/// away. Needs strict elections: best-effort ones may lose what was confirmed just before.
pub async fn killed_and_restarted_the_server_still_has_the_candidates(
    mut fixture: impl FaultFixture,
) {
    let backend = fixture.backend(fixture.address());
    if is_skipped(
        "killed_and_restarted_the_server_still_has_the_candidates",
        &backend,
    ) {
        return;
    }
    let (one, two) = (elector(&backend), elector(&backend));
    let [a, b] = tickets(&*one);
    let (leader, next) = (one.join(&a).await.unwrap(), two.join(&b).await.unwrap());
    let token = leads(&*leader).await;
    let waiting = waits(&*next).await;
    let killing = async {
        tokio::time::sleep(SETTLED).await;
        fixture.server().kill().unwrap();
    };
    let (told, ()) = tokio::join!(timeout(LONG, next.standing(Some(&waiting))), killing);
    assert_eq!(told.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    let error = leader.confirm().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    fixture.server().restart().await.unwrap();
    leader.confirm().await.unwrap();
    next.confirm().await.unwrap();
    assert_eq!(leads(&*leader).await, token);
    waits(&*next).await;
    let (standing, left) = tokio::join!(after(&*next, &waiting), one.leave(&a));
    left.unwrap();
    assert!(first(standing).0 > token);
}

/// The leader leaves while the next candidate's connection is cut.
pub async fn a_candidate_that_was_cut_off_sees_what_happened_meanwhile(fixture: impl FaultFixture) {
    let proxy = proxy(&fixture).await;
    let near = elector(&fixture.backend(fixture.address()));
    let far = elector(&fixture.backend(proxy.address()));
    let [a, b] = tickets(&*near);
    let leader = near.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = far.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let early = timeout(SETTLED, next.standing(Some(&waiting))).await;
    assert!(early.is_err(), "{early:?}");

    proxy.set(Fault::Cut);
    let told = timeout(LONG, next.standing(Some(&waiting))).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Unavailable);
    near.leave(&a).await.unwrap();
    proxy.set(Fault::Pass);
    let standing = told_at_last(&*next, &waiting).await;
    assert!(first(standing).0 > token);
    next.confirm().await.unwrap();
}

/// The entry is gone, the observer is told that its feed has ended, and there can be a leader again. Returns the tokens of
/// before and after.
pub async fn restarted_without_its_data_the_server_has_no_candidate(
    mut fixture: impl FaultFixture,
) -> [FencingToken; 2] {
    let elector = elector(&fixture.backend(fixture.address()));
    let [ticket, _] = tickets(&*elector);
    let entry = elector.join(&ticket).await.unwrap();
    let before = leads(&*entry).await;
    let mut feed = elector.observe(&ticket.name).await.unwrap();
    feed.next().await.unwrap();
    fixture.server().restart_empty().await.unwrap();
    let answering = async {
        loop {
            let error = entry.confirm().await.unwrap_err();
            if error.kind() != ErrorKind::Unavailable {
                return error.kind();
            }
        }
    };
    let lost = timeout(LONG, answering).await.unwrap();
    assert!(
        matches!(lost, ErrorKind::NotFound | ErrorKind::LeaseLost),
        "{lost:?}"
    );
    gone(now(&*entry).await);
    let ended = timeout(LONG, async { while feed.next().await.is_ok() {} }).await;
    assert!(ended.is_ok());
    let again = elector.join(&ticket).await.unwrap();
    [before, leads(&*again).await]
}

/// This includes electors that are still held. They answer `Closed`.
pub async fn a_closed_backend_lets_go_of_the_connections_of_its_electors(
    fixture: impl FaultFixture,
) {
    let proxy = proxy(&fixture).await;
    let backend = fixture.backend(proxy.address());
    let electors = [elector(&backend), elector(&backend)];
    let tickets = tickets(&*electors[0]);
    for (elector, ticket) in electors.iter().zip(&tickets) {
        now(&*elector.join(ticket).await.unwrap()).await;
    }
    for (elector, ticket) in electors.iter().zip(&tickets) {
        elector.leave(ticket).await.unwrap();
    }
    // Electors on one runtime may share one.
    assert!(proxy.counts().open > 0);
    backend.close().await.unwrap();
    let closed = timeout(LONG, proxy.counted(|counts| counts.open == 0)).await;
    closed.unwrap();
    let [one, two] = electors;
    for elector in [one, two, elector(&backend)] {
        let error = elector.safety().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

/// The runtime that drove the elector's connections ends, as in an application that starts one for each election. Returns
/// whether the first call after that failed. A call that is not safe to send twice may fail once.
pub async fn an_elector_outlives_the_runtime_that_it_was_first_used_on(
    backend: &Arc<dyn Backend>,
) -> bool {
    let elector = elector(backend);
    let first_use = Arc::clone(&elector);
    let gone = tokio::task::spawn_blocking(move || {
        runtime().block_on(async {
            let [other, _] = tickets(&*first_use);
            first_use.join(&other).await?;
            first_use.leave(&other).await
        })
    });
    gone.await.unwrap().unwrap();
    let [ticket, _] = tickets(&*elector);
    let joined = elector.join(&ticket).await;
    let failed = matches!(&joined, Err(error) if error.kind() == ErrorKind::Unavailable);
    let entry = if failed {
        elector.join(&ticket).await
    } else {
        joined
    };
    leads(&*entry.unwrap()).await;
    elector.leave(&ticket).await.unwrap();
    failed
}

/// The application's runtime is not driven, as if something blocked it. Not for a test that runs inside a runtime.
pub fn an_election_goes_on_while_the_application_is_blocked(backend: &Arc<dyn Backend>) {
    let (application, elections) = (runtime(), runtime());
    let service = unused_service();
    application.block_on(backend.list(&service)).unwrap();
    let elector = elector(backend);
    elections.block_on(async {
        let [ticket, _] = tickets(&*elector);
        let entry = elector.join(&ticket).await.unwrap();
        leads(&*entry).await;
        entry.confirm().await.unwrap();
        elector.leave(&ticket).await.unwrap();
    });
    drop(elections);
    // Nor is anything of it left behind that only its runtime could have moved.
    application.block_on(backend.list(&service)).unwrap();
}

/// Whether a case that needs strict elections is skipped, which is told.
fn is_skipped(name: &str, backend: &Arc<dyn Backend>) -> bool {
    let is_best_effort = matches!(
        Arc::clone(backend).elector(),
        Some(AnyElector::BestEffort(_))
    );
    if is_best_effort {
        tell_skipped(name, Ability::StrictElections);
    }
    is_best_effort
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn elector(backend: &Arc<dyn Backend>) -> Arc<dyn Elector> {
    Arc::clone(backend).elector().unwrap().into_any()
}

/// Tickets of two candidates in a new election.
fn tickets(elector: &dyn Elector) -> [Ticket; 2] {
    let name = ElectionName::new(format!("faults-{}", Incarnation::random())).unwrap();
    let range = &elector.limits().ttl;
    let ttl = LASTING.clamp(*range.start(), *range.end());
    ["a", "b"].map(|value| Ticket::new(name.clone(), value.as_bytes(), ttl))
}

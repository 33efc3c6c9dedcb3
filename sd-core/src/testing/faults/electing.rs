//! Elections while the server or the application is in trouble.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::FaultFixture;
use super::stage::{proxy, unused_service};
use crate::backend::Backend;
use crate::elector::{Elector, Ticket};
use crate::error::ErrorKind;
use crate::name::ElectionName;
use crate::testing::standings::{after, first, leads, told_at_last, waits};
use crate::testing::{Fault, LONG};

/// So that nothing expires meanwhile.
const LASTING: Duration = Duration::from_mins(5);
/// Long enough for a candidate to wait for a change.
const SETTLED: Duration = Duration::from_millis(300);

/// The leader leads on with its token, who waits goes on to wait, and both were told that the server was away.
pub async fn killed_and_restarted_the_server_still_has_the_candidates(
    mut fixture: impl FaultFixture,
) {
    let backend = fixture.backend(fixture.address());
    let (one, two) = (elector(&backend), elector(&backend));
    let [a, b] = tickets();
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

/// The leader leaves while the line of the next one is cut.
pub async fn a_candidate_that_was_cut_off_sees_what_happened_meanwhile(fixture: impl FaultFixture) {
    let proxy = proxy(&fixture).await;
    let near = elector(&fixture.backend(fixture.address()));
    let far = elector(&fixture.backend(proxy.address()));
    let [a, b] = tickets();
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

/// The application's runtime is not driven, as if something blocked it. Not for a test that runs on a runtime itself.
pub fn an_election_goes_on_while_the_application_is_blocked(backend: &Arc<dyn Backend>) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (application, elections) = (runtime(), runtime());
    let service = unused_service();
    application.block_on(backend.list(&service)).unwrap();
    let elector = elector(backend);
    elections.block_on(async {
        let [ticket, _] = tickets();
        let entry = elector.join(&ticket).await.unwrap();
        leads(&*entry).await;
        entry.confirm().await.unwrap();
        elector.leave(&ticket).await.unwrap();
    });
    drop(elections);
    // Nor is anything of it left behind that only its runtime could have moved.
    application.block_on(backend.list(&service)).unwrap();
}

fn elector(backend: &Arc<dyn Backend>) -> Arc<dyn Elector> {
    Arc::clone(backend).elector().unwrap().into_any()
}

fn tickets() -> [Ticket; 2] {
    let name = ElectionName::new("faults").unwrap();
    ["a", "b"].map(|value| Ticket::new(name.clone(), value.as_bytes(), LASTING))
}

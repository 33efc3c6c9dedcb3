//! Observers of an election at the embedded registry.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::{ErrorKind, Status};
use sd_election::{Candidate, Observer};
use tokio::runtime::Handle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

fn candidate(memory: &Memory, value: &str) -> Candidate {
    Candidate::builder(&memory.connect(), "a")
        .value(value)
        .on_runtime(Handle::current())
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_always_knows_who_leads_and_since_which_term() {
    let memory = Memory::new();
    let mut observer = Observer::new(&memory.connect(), "a").unwrap();
    let view = observer.wait_until_known(SOON).await.unwrap();
    assert!(view.leader.is_none() && matches!(view.status, Status::Live));
    observer.changed().await.unwrap();

    let first = candidate(&memory, "first").campaign().await.unwrap();
    let leader = observer.changed().await.unwrap().leader.unwrap();
    assert_eq!(&*leader.value, b"first");
    assert_eq!(
        (leader.id, &leader.token),
        (Some(first.id()), first.token())
    );

    first.proclaim("still the first").await.unwrap();
    let leader = observer.changed().await.unwrap().leader.unwrap();
    assert_eq!(&*leader.value, b"still the first");
    assert_eq!(&leader.token, first.token());

    first.resign().await.unwrap();
    let second = candidate(&memory, "second").campaign().await.unwrap();
    let told = timeout(SOON, async {
        loop {
            if let Some(leader) = observer.changed().await.unwrap().leader {
                break leader;
            }
        }
    });
    let leader = told.await.unwrap();
    assert_eq!(
        (&*leader.value, &leader.token),
        (b"second".as_slice(), second.token())
    );
    assert_eq!(observer.view().lineage, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_proclaims_nothing() {
    let memory = Memory::new();
    let leadership = candidate(&memory, "a").campaign().await.unwrap();
    let term = leadership.term();
    leadership.resign().await.unwrap();
    let error = term.proclaim("b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_observer_ends_with_its_registry() {
    let memory = Memory::new();
    let registry = memory.connect();
    let mut observer = Observer::new(&registry, "a").unwrap();
    observer.wait_until_known(SOON).await.unwrap();
    observer.changed().await.unwrap();
    registry.close().await.unwrap();
    let last = observer.changed().await.unwrap();
    assert!(matches!(last.status, Status::Stale { .. }), "{last:?}");
    assert_eq!(
        observer.changed().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[test]
fn outside_a_runtime_a_wait_is_an_error_and_no_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let inside = runtime.enter();
    let observer = Observer::new(&Memory::new().connect(), "a").unwrap();
    drop(inside);
    let waiting = observer.wait_until_known(SOON);
    let refused = std::pin::pin!(waiting).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

//! Candidates at the embedded registry.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sd_core::ErrorKind;
use sd_core::memory::Memory;
use sd_election::{Candidate, CandidateBuilder, CandidatePhase, ElectionEvent, EndReason, Term};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(3);

/// A candidate with a client of its own, on the paused runtime.
fn candidate(memory: &Memory) -> CandidateBuilder {
    Candidate::builder(&memory.connect(), "reports/nightly")
        .ttl(TTL)
        .on_runtime(Handle::current())
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_the_second_when_it_resigns() {
    let memory = Memory::new();
    let first = candidate(&memory).value("a").build().unwrap();
    let second = candidate(&memory).value("b").build().unwrap();
    let leadership = first.campaign().await.unwrap();
    assert!(leadership.is_leader());

    let mut waiting = tokio::spawn(async move { second.campaign().await });
    assert!(timeout(TTL * 10, &mut waiting).await.is_err(), "one leads");
    assert!(leadership.is_leader(), "it was renewed");
    let token = leadership.token().clone();
    let term = leadership.term();
    leadership.resign().await.unwrap();
    assert!(!term.is_leader());
    assert!(matches!(term.lost().await, EndReason::Resigned));

    let next = timeout(TTL, waiting).await.unwrap().unwrap().unwrap();
    assert!(*next.token() > token);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_leadership_and_a_dropped_campaign_leave_nothing_behind() {
    let memory = Memory::new();
    let first = candidate(&memory).build().unwrap();
    let second = candidate(&memory).build().unwrap();
    let third = candidate(&memory).build().unwrap();
    let leadership = first.campaign().await.unwrap();
    assert!(timeout(TTL, second.campaign()).await.is_err());
    drop(leadership);
    let third = timeout(TTL / 10, third.campaign()).await.unwrap().unwrap();
    drop(third);
    sleep(Duration::from_millis(10)).await;
    assert!(memory.operator().entries(first.name()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_removed_ends_the_term_at_once_and_once() {
    let memory = Memory::new();
    let candidate = candidate(&memory).build().unwrap();
    let mut events = candidate.events();
    let leadership = candidate.campaign().await.unwrap();
    assert!(
        memory
            .operator()
            .remove_entry(candidate.name(), leadership.id())
    );
    assert!(matches!(leadership.lost().await, EndReason::EntryGone(_)));
    assert!(!leadership.is_leader());
    leadership.resign().await.unwrap();
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(TTL * 3, events.next()).await {
        told.push(event.as_str());
    }
    assert_eq!(told, ["taking", "elected", "ended"]);
}

#[tokio::test(start_paused = true)]
async fn work_runs_while_its_leader_leads_and_again_after_a_loss() {
    let memory = Memory::new();
    let candidate = candidate(&memory).build().unwrap();
    let mut terms = Vec::new();
    let name = candidate.name().clone();
    let done = candidate.run_while_leader(|term| {
        terms.push(term.token().value());
        let first = terms.len() == 1;
        let (memory, name) = (memory.clone(), name.clone());
        async move {
            assert!(term.is_leader());
            if first {
                memory.operator().remove_entry(&name, term.id());
                term.lost().await;
            }
            "done"
        }
    });
    assert_eq!(done.await.unwrap(), "done");
    assert_eq!(terms.len(), 2);
    assert!(terms[0] < terms[1]);
    assert!(
        memory.operator().entries(&name).is_empty(),
        "it has resigned"
    );
}

#[test]
fn outside_a_runtime_work_is_an_error_and_no_panic() {
    let candidate = Candidate::builder(&Memory::new().connect(), "reports/nightly")
        .build()
        .unwrap();
    let working = pin!(candidate.run_while_leader(|_| async {}));
    let refused = working.poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_makes_no_progress_is_not_renewed() {
    let memory = Memory::new();
    let candidate = candidate(&memory).progress_within(TTL).build().unwrap();
    let mut events = candidate.events();
    let leadership = candidate.campaign().await.unwrap();
    for _ in 0..20 {
        sleep(TTL / 2).await;
        leadership.alive();
        assert!(leadership.is_leader());
    }
    let reason = timeout(TTL * 3, leadership.lost()).await.unwrap();
    assert_eq!(reason.as_str(), "lease_expired");
    assert!(reason.to_string().contains("no progress"), "{reason}");
    let mut at_risk = 0;
    while let Ok(Some(event)) = timeout(TTL, events.next()).await {
        at_risk += u32::from(matches!(event, ElectionEvent::AtRisk { .. }));
    }
    assert_eq!(at_risk, 1);
}

#[tokio::test(start_paused = true)]
async fn each_later_deadline_is_told_until_the_term_ends() {
    let memory = Memory::new();
    let candidate = candidate(&memory).build().unwrap();
    let leadership = candidate.campaign().await.unwrap();
    let term = leadership.term();
    let mut deadline = term.deadline();
    for _ in 0..5 {
        let later = timeout(TTL, term.deadline_moved(deadline)).await.unwrap();
        assert!(later > deadline);
        deadline = later;
    }
    leadership.resign().await.unwrap();
    let told = timeout(TTL * 3, term.deadline_moved(term.deadline())).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_can_never_work_is_refused_before_anything_is_sent() {
    let memory = Memory::new();
    let registry = memory.connect();
    for name in ["", "/a", "a/", "a//b", "a b"] {
        let error = Candidate::builder(&registry, name).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
    }
    let refused = [
        candidate(&memory).value(""),
        candidate(&memory).ttl(Duration::ZERO),
        candidate(&memory).stop_margin(TTL),
        candidate(&memory).progress_within(Duration::ZERO),
    ];
    for builder in refused {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_the_registry_ends_the_term_and_leaves() {
    let memory = Memory::new();
    let registry = memory.connect();
    let candidate = Candidate::builder(&registry, "a")
        .ttl(TTL)
        .on_runtime(Handle::current())
        .build()
        .unwrap();
    let leadership = candidate.campaign().await.unwrap();
    registry.close().await.unwrap();
    assert!(!leadership.is_leader());
    assert!(matches!(leadership.lost().await, EndReason::Cancelled));
    assert!(memory.operator().entries(candidate.name()).is_empty());
    let error = candidate.campaign().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn work_has_its_stop_margin_also_when_the_registry_is_closed() {
    let memory = Memory::new();
    let registry = memory.connect();
    let margin = TTL / 10;
    let busy = Candidate::builder(&registry, "reports/nightly")
        .ttl(TTL)
        .stop_margin(margin)
        .on_runtime(Handle::current())
        .build()
        .unwrap();
    let (working, mut at_work) = tokio::sync::watch::channel(false);
    let work = tokio::spawn(async move {
        let work = |term: Term| {
            let working = working.clone();
            async move {
                working.send_replace(true);
                term.lost().await;
                sleep(margin / 2).await;
                working.send_replace(false);
            }
        };
        busy.run_while_leader(work).await
    });
    at_work.wait_for(|working| *working).await.unwrap();
    let next = candidate(&memory).build().unwrap();
    let next = tokio::spawn(async move { next.campaign().await });
    registry.close().await.unwrap();
    let next = timeout(TTL, next).await.unwrap().unwrap().unwrap();
    assert!(next.is_leader());
    assert!(
        !*at_work.borrow(),
        "the next one leads while the work goes on"
    );
    assert_eq!(work.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_new_campaign_says_where_the_candidate_stands_and_an_old_one_does_not() {
    let memory = Memory::new();
    let candidate = candidate(&memory).build().unwrap();
    let first = candidate.campaign().await.unwrap();
    memory.operator().expire_entry(candidate.name(), first.id());
    first.lost().await;
    drop(first);
    let second = candidate.campaign().await.unwrap();
    sleep(TTL).await;
    let token = second.token().clone();
    assert_eq!(candidate.state().phase, CandidatePhase::Leading { token });
}

#[tokio::test]
async fn a_term_whose_driver_is_gone_has_ended_and_says_so() {
    let memory = Memory::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let candidate = Candidate::builder(&memory.connect(), "a")
        .on_runtime(runtime.handle().clone())
        .build()
        .unwrap();
    let mut events = candidate.events();
    let leadership = candidate.campaign().await.unwrap();
    runtime.shutdown_background();
    assert_eq!(leadership.lost().await.as_str(), "fatal");
    assert!(!leadership.is_leader());
    let mut told = Vec::new();
    while told.last() != Some(&"ended") {
        told.push(events.next().await.unwrap().as_str());
    }
    assert_eq!(told, ["taking", "elected", "ended"]);
}

#[test]
fn a_blocked_application_loses_no_term() {
    let memory = Memory::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ttl = Duration::from_millis(600);
    let candidate = Candidate::builder(&memory.connect(), "a")
        .ttl(ttl)
        .build()
        .unwrap();
    let leadership = runtime.block_on(candidate.campaign()).unwrap();
    // Nothing runs on the application's runtime meanwhile.
    let until = std::time::Duration::from_secs(2);
    let (sender, never) = std::sync::mpsc::channel::<()>();
    assert!(never.recv_timeout(until).is_err());
    drop(sender);
    assert!(leadership.is_leader());
    runtime.block_on(leadership.resign()).unwrap();
}

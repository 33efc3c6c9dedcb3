//! What agents leave that are killed while they stop, or while they clean up after such a one.

use std::fs;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_sidecar::daemon::registrations::{How, Registrations, Settings};
use sd_testing::{Answer, LONG, Op, eventually};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, advance, timeout};

use crate::registrations::{declared, me, scripted};
use crate::store::{killed_after, once_free};

const GRACE: Duration = Duration::from_secs(20);

fn declaration(service: &str) -> sd_sidecar::wire::Declaration {
    declared(json!({"service": service, "address": "10.0.0.7:50051"}))
}

#[tokio::test]
async fn what_an_agent_has_left_is_withdrawn_also_if_the_next_one_is_killed_before_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let path = state.clone();
    killed_after(async move || {
        let open = Registrations::open(Memory::new().connect(), Settings::default(), &path);
        let stopping = open.await.unwrap();
        let left = declaration("left");
        stopping.register(&me(), left).await.unwrap();
        stopping.note_end().await;
    })
    .await;
    let path = state.clone();
    killed_after(async move || {
        let (backend, registry) = scripted();
        backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
        let open = || Registrations::open(registry.clone(), Settings::default(), &path);
        let cleaning = once_free(open).await;
        let called = backend.registrar.called(Op::Withdraw, 1);
        timeout(LONG, called).await.unwrap();
        // The state is written meanwhile.
        let new = declaration("new");
        cleaning.register(&me(), new).await.unwrap();
    })
    .await;
    let (backend, registry) = scripted();
    let open = || Registrations::open(registry.clone(), Settings::default(), &state);
    let last = once_free(open).await;
    let entries = last.entries().into_iter();
    let services: Vec<_> = entries.map(|one| one.record.service.to_string()).collect();
    assert_eq!(services, ["new"]);
    let called = backend.registrar.called(Op::Withdraw, 1);
    timeout(LONG, called).await.unwrap();
    let forgotten = async || !fs::read_to_string(&state).unwrap().contains("left");
    eventually("forgotten", LONG, forgotten).await;
    last.close(How::Keep, GRACE).await;
}

/// Its threads are as many as hang.
#[test]
fn a_disk_that_does_not_answer_leaves_time_to_withdraw() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (backend, registry) = scripted();
        let open = Registrations::open(registry, Settings::default(), folder.path());
        let registrations = open.await.unwrap();
        let greeter = declaration("greeter");
        registrations.register(&me(), greeter).await.unwrap();
        let (disk, answers) = std::sync::mpsc::channel::<()>();
        let hanging = spawn_blocking(move || answers.recv().is_err());

        let limit = Duration::from_millis(800);
        let begin = Instant::now();
        let closing = registrations.clone();
        let closing = tokio::spawn(async move { closing.close(How::Deregister, limit).await });
        while backend.registrar.calls_of(Op::Withdraw).is_empty() {
            advance(Duration::from_millis(10)).await;
            for _ in 0..100 {
                yield_now().await;
            }
            assert!(begin.elapsed() < limit / 2, "nothing is withdrawn");
        }
        drop(disk);
        assert!(hanging.await.unwrap());
        let left = closing.await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}

//! What the events of a source lead to, in a time that passes by itself.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "only a method's result becomes an `Arc` of the trait"
)]

use std::sync::Mutex;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::fakes::{FakeClient, FakeSource, connected, disconnected, heartbeat, node};
use super::super::parts::ConnectionEvents;
use super::super::status::Status;
use super::*;
use crate::wire::{ServiceNode, parse_rfc3339};

struct Running {
    client: Arc<FakeClient>,
    controller: Arc<Controller>,
    events: Sender<ConnectionEvent>,
    errors: watch::Sender<Vec<String>>,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Running {
    fn start(nodes: Vec<ServiceNode>) -> Self {
        let client = FakeClient::new();
        let controller = Arc::new(Controller::new(client.clone()));
        for node in nodes {
            controller.add(node).unwrap();
        }
        let (source, events) = FakeSource::new();
        let errors = watch::Sender::new(Vec::new());
        let told = errors.clone();
        let handler: ErrorHandler =
            Arc::new(move |error| told.send_modify(|told| told.push(error.to_string())));
        let runner = Runner::new(source, controller.clone(), Some(handler));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Self {
            client,
            controller,
            events,
            errors,
            stop,
            task: tokio::spawn(async move { runner.run(&stopped).await }),
        }
    }

    async fn tell(&self, event: ConnectionEvent) {
        self.events.send(event).await.unwrap();
    }

    async fn status(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut changes = self.controller.status_changes();
        let status = changes.wait_for(wanted);
        let status = tokio::time::timeout(Duration::from_secs(600), status).await;
        status
            .expect("a status that is waited for")
            .unwrap()
            .clone()
    }

    async fn errors(&self, count: usize) -> Vec<String> {
        let mut errors = self.errors.subscribe();
        let errors = errors.wait_for(|errors| errors.len() >= count);
        errors.await.unwrap().clone()
    }
}

fn auth() -> Running {
    Running::start(vec![node("auth", 9090)])
}

/// R1.
#[tokio::test(start_paused = true)]
async fn each_connection_registers_once() {
    let running = auth();
    running.tell(connected()).await;
    let status = running.status(|status| status.registered).await;
    assert_eq!(
        (status.last_service_name.as_str(), status.last_service_port),
        ("auth", 9090)
    );
    running.tell(connected()).await;
    let status = running
        .status(|status| status.register_replay_count == 2)
        .await;
    assert_eq!((status.connected, status.registered), (true, true));
    assert_eq!(
        running.client.calls(),
        ["register auth:9090", "register auth:9090"]
    );
}

/// R2, and the reference system's heartbeats that count as disconnections (C1).
#[tokio::test(start_paused = true)]
async fn a_heartbeat_registers_nothing_and_is_no_disconnection() {
    let running = auth();
    running.tell(connected()).await;
    running.status(|status| status.registered).await;
    running.tell(heartbeat()).await;
    running.tell(heartbeat()).await;
    let status = running.status(|status| status.heartbeat_count == 2).await;
    assert_eq!(
        (status.last_disconnected_at, status.disconnect_count),
        (None, 0)
    );
    assert!(status.last_heartbeat_at.is_some() && status.registered);
    assert_eq!(status.last_event_type, "heartbeat");
    assert_eq!(running.client.calls().len(), 1);
}

/// R3, and the reference system's registrations that are never tried again (C2).
#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_again_while_the_agent_is_connected() {
    let running = auth();
    running.client.fails_next(6);
    running.tell(connected()).await;
    let status = running
        .status(|status| status.register_replay_failure_count == 1)
        .await;
    assert!(status.connected && !status.registered);
    let status = running.status(|status| status.registered).await;
    assert_eq!(
        (
            status.register_replay_failure_count,
            status.disconnect_count
        ),
        (6, 0)
    );
    assert_eq!(status.last_error_kind, "register_replay");
    assert_eq!(status.services[0].error, None);
    let errors = running.errors(6).await;
    assert_eq!(
        errors,
        vec!["register replay failed: service=auth port=9090: no"; 6]
    );
    assert_eq!(running.client.calls().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_again_without_a_connection_and_pauses_grow_only_so_far() {
    let running = auth();
    running.client.fails_next(1000);
    running.tell(connected()).await;
    running.client.called(20).await;
    let begin = Instant::now();
    running.client.called(30).await;
    let passed = begin.elapsed();
    assert!(
        passed > LONGEST_PAUSE && passed < 10 * LONGEST_PAUSE,
        "{passed:?}"
    );
    running.tell(disconnected()).await;
    running.status(|status| !status.connected).await;
    let calls = running.client.calls().len();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(running.client.calls().len(), calls);
}

/// R4.
#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_is_noted_with_its_error() {
    let running = auth();
    running.tell(connected()).await;
    running.status(|status| status.registered).await;
    running.tell(disconnected()).await;
    let status = running.status(|status| status.disconnect_count == 1).await;
    assert_eq!((status.connected, status.registered), (false, false));
    assert!(status.last_disconnected_at.is_some());
    let errors = running.errors(1).await;
    assert_eq!(errors, ["watch stream closed"]);
    let status = running
        .status(|status| !status.last_error_kind.is_empty())
        .await;
    assert_eq!(status.last_error_kind, "watch_stream_closed");
}

/// R5.
#[tokio::test(start_paused = true)]
async fn a_source_that_ends_ends_the_runner_without_an_error() {
    let Running { events, task, .. } = auth();
    drop(events);
    task.await.unwrap().unwrap();
}

/// R6.
#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_watched_is_an_error() {
    let (source, _events) = FakeSource::new();
    source.fails_next(1);
    let controller = Arc::new(Controller::new(FakeClient::new()));
    let runner = Runner::new(source, controller, None);
    let error = runner.run(&CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "no source");
}

/// R9.
#[tokio::test(start_paused = true)]
async fn the_agents_time_counts_before_the_own() {
    let running = auth();
    let at = parse_rfc3339("2026-04-17T10:00:00Z");
    running
        .tell(ConnectionEvent {
            generated_at: at,
            event_id: "7".into(),
            ..heartbeat()
        })
        .await;
    let status = running.status(|status| status.heartbeat_count == 1).await;
    assert_eq!(
        (status.last_event_at, status.last_event_id.as_str()),
        (at, "7")
    );
    let before = SystemTime::now();
    running.tell(heartbeat()).await;
    let status = running.status(|status| status.heartbeat_count == 2).await;
    assert!(status.last_event_at >= Some(before));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_asks_for_it_is_told_everything_again() {
    let running = auth();
    running.tell(connected()).await;
    running.status(|status| status.registered).await;
    running.tell(ConnectionEvent::new(EventKind::Resync)).await;
    let status = running
        .status(|status| status.register_replay_count == 2)
        .await;
    assert!(status.connected);
}

/// The reference system's single service per process, which never changes (C14).
#[tokio::test(start_paused = true)]
async fn services_are_added_changed_and_taken_out_at_run_time() {
    let running = auth();
    running.tell(connected()).await;
    running.status(|status| status.registered).await;
    let users = running.controller.add(node("users", 9091)).unwrap();
    running
        .status(|status| status.registered && status.services.len() == 2)
        .await;

    let mut changed = node("users", 9091);
    changed.methods.push("/users.v1.S/New".into());
    running.controller.update(users, changed.clone()).unwrap();
    running.client.called(3).await;
    // Another port is there before the old one goes.
    changed.options.server_port = 9092;
    running.controller.update(users, changed).unwrap();
    running.client.called(5).await;

    running.controller.deregister_one(users).await.unwrap();
    let status = running.status(|status| status.services.len() == 1).await;
    assert!(status.registered);
    assert_eq!(
        running.client.calls(),
        [
            "register auth:9090",
            "register users:9091",
            "register users:9091",
            "register users:9092",
            "deregister users:9091",
            "deregister users:9092",
        ]
    );
    running.tell(connected()).await;
    assert_eq!(running.client.called(7).await[6], "register auth:9090");
}

#[tokio::test(start_paused = true)]
async fn one_service_that_is_refused_holds_up_no_other() {
    let running = Running::start(vec![node("bad", 1), node("good", 2)]);
    running.client.fails_next(1);
    running.client.succeeds_next();
    running.client.fails_next(3);
    running.tell(connected()).await;
    let good = |status: &Status| status.services[1].registered;
    let status = running.status(good).await;
    assert!(!status.services[0].registered && !status.registered);
    let error = status.services[0].error.clone().unwrap();
    assert_eq!(error, "register replay failed: service=bad port=1: no");
    running.status(|status| status.registered).await;
}

#[tokio::test(start_paused = true)]
async fn what_drains_goes_on_draining_at_an_agent_that_was_restarted() {
    let running = auth();
    running.tell(connected()).await;
    running.status(|status| status.registered).await;
    running
        .controller
        .drain(Some(Duration::from_secs(20)))
        .await
        .unwrap();
    running.tell(disconnected()).await;
    running.tell(connected()).await;
    let calls = running.client.called(4).await;
    assert_eq!(
        calls[1..],
        [
            "drain 20 auth:9090",
            "register auth:9090",
            "drain 20 auth:9090"
        ]
    );
    let status = running.status(|status| status.services[0].draining).await;
    assert!(!status.services[0].leaving);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_done_after_its_service_was_taken_out_is_taken_out_again() {
    let running = auth();
    running.client.takes(Duration::from_secs(2));
    running.tell(connected()).await;
    running.client.called(1).await;
    // Both are under way now, and the first one is done last.
    running.client.takes(Duration::from_secs(1));
    running.controller.deregister().await.unwrap();
    let calls = running.client.called(3).await;
    assert_eq!(
        calls,
        [
            "register auth:9090",
            "deregister auth:9090",
            "deregister auth:9090"
        ]
    );
    running.status(|status| status.services.is_empty()).await;
}

/// The reference system's connection that ends while a registration is under way.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_connection_accepted_counts_for_nothing() {
    let running = auth();
    running.client.takes(Duration::from_secs(1));
    running.tell(connected()).await;
    running.client.called(1).await;
    running.tell(disconnected()).await;
    running.tell(connected()).await;
    running.client.called(2).await;
    let status = running
        .status(|status| status.register_replay_count == 1)
        .await;
    assert!(
        !status.registered,
        "the agent of this connection has not answered yet"
    );
    running.status(|status| status.registered).await;
}

/// The reference system's error handler, which is called within the loop (C12).
#[tokio::test(start_paused = true)]
async fn an_error_handler_that_blocks_or_panics_holds_nothing_up() {
    let client = FakeClient::new();
    let controller = Arc::new(Controller::new(client.clone()));
    controller.add(node("auth", 9090)).unwrap();
    let (source, events) = FakeSource::new();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let handler: ErrorHandler = Arc::new(move |_| {
        let _ = blocked
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .recv();
        panic!("a handler that fails");
    });
    let runner = Runner::new(source, controller.clone(), Some(handler));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move { runner.run(&stopped).await });
    for _ in 0..200 {
        events.send(disconnected()).await.unwrap();
    }
    events.send(connected()).await.unwrap();
    client.called(1).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    drop(release);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_answer_of_what_is_under_way() {
    let running = auth();
    running.client.takes(Duration::from_secs(1));
    running.tell(connected()).await;
    running.client.called(1).await;
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
    assert_eq!(running.controller.status().register_replay_count, 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_answer_of_what_is_under_way_nothing_further_is_registered() {
    let running = Running::start(vec![node("auth", 9090), node("users", 9091)]);
    running.client.takes(Duration::from_secs(1));
    running.tell(connected()).await;
    running.client.called(1).await;
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
    assert_eq!(running.client.calls(), ["register auth:9090"]);
}

struct NeverThere;

#[async_trait]
impl EventSource for NeverThere {
    async fn subscribe(&self) -> Result<ConnectionEvents> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_never_there_is_waited_for_only_until_the_stop() {
    let controller = Arc::new(Controller::new(FakeClient::new()));
    let runner = Runner::new(Arc::new(NeverThere), controller, None);
    let stop = CancellationToken::new();
    let stopping = async { stop.cancel() };
    let (ended, ()) = tokio::join!(runner.run(&stop), stopping);
    ended.unwrap();
}

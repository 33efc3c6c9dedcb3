//! A run from its begin to its end, in a time that passes by itself.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "only a method's result becomes an `Arc` of the trait"
)]

use futures_util::FutureExt;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::fakes::{FakeClient, FakeSource, connected, disconnected, node};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Process {
    agent: Arc<Agent>,
    client: Arc<FakeClient>,
    source: Arc<FakeSource>,
    events: Sender<ConnectionEvent>,
    /// What happened, besides the client's calls.
    notes: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn new(config: AgentConfig) -> Self {
        let client = FakeClient::new();
        let (source, events) = FakeSource::new();
        let agent =
            Agent::with_parts(node("auth", 9090), config, client.clone(), source.clone()).unwrap();
        Self {
            agent: Arc::new(agent),
            client,
            source,
            events,
            notes: Arc::default(),
        }
    }

    async fn registered(&self) {
        self.agent.start();
        self.events.send(connected()).await.unwrap();
        let mut changes = self.agent.status_changes();
        changes.wait_for(|status| status.registered).await.unwrap();
    }

    /// Notes what happened so far, with the client's calls.
    fn noting(&self, what: &str) -> impl Fn() + Send + 'static + use<> {
        let (notes, client, what) = (self.notes.clone(), self.client.clone(), what.to_owned());
        move || {
            let note = format!("{what} after {} calls", client.calls().len());
            notes.lock().unwrap().push(note);
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    /// Serves until it is asked to stop.
    fn serving(&self) -> RunConfig {
        let (began, ended) = (self.noting("serve"), self.noting("stop serving"));
        RunConfig::new().with_serve(async move |stop: CancellationToken| {
            began();
            stop.cancelled().await;
            ended();
            Ok::<_, std::io::Error>(())
        })
    }

    fn run(
        &self,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<std::result::Result<(), AgentRunError>> {
        let agent = self.agent.clone();
        tokio::spawn(async move { agent.run(until).await })
    }
}

fn with_grace(seconds: u64) -> AgentConfig {
    AgentConfig::new("").with_grace_period(Duration::from_secs(seconds))
}

#[path = "exit_tests.rs"]
mod exit;

/// The reference system's lifecycle error, which leaves the process's work behind and cleans up nothing (C7).
#[tokio::test(start_paused = true)]
async fn a_process_goes_on_serving_when_its_agent_cannot_be_watched() {
    let process = Process::new(AgentConfig::new(""));
    process.source.fails_next(3);
    process.agent.configure_run(process.serving());
    let (stop, stopped) = oneshot::channel::<()>();
    let run = process.run(async { drop(stopped.await) });
    // It is watched again by itself.
    process.events.send(connected()).await.unwrap();
    let mut changes = process.agent.status_changes();
    let status = changes
        .wait_for(|status| status.registered)
        .await
        .unwrap()
        .clone();
    assert_eq!(
        (status.last_error_kind.as_str(), status.last_error.as_str()),
        ("runtime_error", "no source")
    );
    assert_eq!(process.notes(), ["serve after 0 calls"]);
    drop(stop);
    run.await.unwrap().unwrap();
    assert_eq!(
        process.client.calls(),
        ["register auth:9090", "deregister auth:9090"]
    );
}

#[tokio::test(start_paused = true)]
async fn if_the_policy_says_so_a_process_ends_in_order_when_its_agent_cannot_be_watched() {
    let process =
        Process::new(AgentConfig::new("").with_on_lifecycle_failure(OnLifecycleFailure::Exit));
    process.source.fails_next(1);
    process.agent.configure_run(process.serving());
    let error = process
        .run(std::future::pending())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.to_string(), "agent lifecycle failed: no source");
    assert_eq!(error.stage(), Stage::Lifecycle);
    assert_eq!(
        process.notes(),
        ["serve after 0 calls", "stop serving after 0 calls"]
    );
    let ended = process.agent.start().ended().await.unwrap_err();
    assert_eq!(ended.to_string(), "agent lifecycle run failed: no source");
}

/// A8.
#[tokio::test(start_paused = true)]
async fn work_goes_on_after_the_source_has_ended() {
    let mut process = Process::new(AgentConfig::new(""));
    process
        .agent
        .configure_run(RunConfig::new().with_serve(async |_| {
            sleep(60 * SECOND).await;
            Ok::<_, std::io::Error>(())
        }));
    process.events = tokio::sync::mpsc::channel(1).0;
    let begin = Instant::now();
    process.run(std::future::pending()).await.unwrap().unwrap();
    assert_eq!(begin.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ends_is_watched_again_or_ends_the_process_if_the_policy_says_so() {
    let process =
        Process::new(AgentConfig::new("").with_on_lifecycle_failure(OnLifecycleFailure::Exit));
    process.registered().await;
    let Process { agent, events, .. } = process;
    drop(events);
    let error = agent.run(std::future::pending()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "agent lifecycle failed: watch stream closed"
    );

    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    let Process { agent, events, .. } = process;
    drop(events);
    let mut changes = agent.status_changes();
    let again = changes.wait_for(|status| status.last_error == "subscribed twice");
    again.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_crosses_another_one_loses_nothing() {
    let process = Process::new(AgentConfig::new(""));
    let service = process.agent.service();
    let mut crossed = false;
    let heavier = |mut node: ServiceNode| {
        if !std::mem::replace(&mut crossed, true) {
            service.set_ready(false).unwrap();
        }
        node.options.service.weight = 7;
        node
    };
    service.update(heavier).unwrap();
    let node = service.node().unwrap();
    assert_eq!((node.ready, node.options.service.weight), (false, 7));
}

/// A9, and the reference system's handler, which is replaced without synchronisation (C12).
#[tokio::test(start_paused = true)]
async fn what_is_configured_later_takes_the_place_of_what_was_before() {
    let process = Process::new(with_grace(20));
    let (told, hearing) = std::sync::mpsc::channel();
    process
        .agent
        .configure_run(RunConfig::new().with_on_error(|_| panic!("replaced")));
    process
        .agent
        .configure_run(process.serving().with_shutdown(async || Err("replaced")));
    process.registered().await;
    process.agent.configure_run(
        RunConfig::new()
            .with_on_error(move |error| drop(told.send(error.to_string())))
            .with_shutdown(async || Ok::<_, std::io::Error>(()))
            .with_grace_period(2 * SECOND),
    );
    process.events.send(disconnected()).await.unwrap();
    process.events.send(connected()).await.unwrap();
    process.client.called(2).await;
    let begin = Instant::now();
    process.run(async {}).await.unwrap().unwrap();
    assert!(begin.elapsed() < 3 * SECOND);
    assert_eq!(hearing.recv().unwrap(), "watch stream closed");
}

/// A10, and the reference system's channel, of which the second reader hears nothing (C13).
#[tokio::test(start_paused = true)]
async fn starting_twice_watches_once_and_every_reader_hears_of_the_end() {
    let process = Process::new(AgentConfig::new(""));
    let (mut one, mut other) = (process.agent.start(), process.agent.start());
    process.registered().await;
    process.agent.shutdown().await.unwrap();
    one.ended().await.unwrap();
    other.ended().await.unwrap();
    process.agent.start().ended().await.unwrap();
    assert_eq!(process.client.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_deregistered_is_not_registered_by_the_next_connection() {
    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    process.agent.deregister().await.unwrap();
    process.events.send(connected()).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(
        process.client.calls(),
        ["register auth:9090", "deregister auth:9090"]
    );
    assert!(process.agent.status().connected && !process.agent.status().registered);
}

#[tokio::test(start_paused = true)]
async fn dropping_an_agent_ends_its_task() {
    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    let Process { agent, events, .. } = process;
    drop(agent);
    events.closed().await;
}

/// R7.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_registered_is_refused_with_the_field() {
    let mut wrong = node("auth", 9090);
    wrong.options.app.env = String::new();
    let (source, _events) = FakeSource::new();
    let config = AgentConfig::new("");
    let error = Agent::with_parts(wrong, config.clone(), FakeClient::new(), source).unwrap_err();
    assert_eq!(error.to_string(), "app.env is required");
    let agent = Agent::new(node("auth", 9090), config).unwrap();
    let error = agent.add(node("auth", 9090)).unwrap_err().to_string();
    assert!(
        error.starts_with("there is a service auth at port 9090 already"),
        "{error}"
    );
    let users = agent.add(node("users", 9090)).unwrap();
    let error = users
        .update(|node| ServiceNode {
            methods: Vec::new(),
            ..node
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "methods must not be empty");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_names_no_run_gets_one_for_all_of_its_services() {
    let without_run = |name, port| {
        let mut node = node(name, port);
        node.options.app.instance_id = String::new();
        node
    };
    let agent = Agent::new(without_run("auth", 1), AgentConfig::new("")).unwrap();
    let users = agent.add(without_run("users", 2)).unwrap();
    let run = |node: Arc<ServiceNode>| node.options.app.instance_id.clone();
    let (one, other) = (
        run(agent.service().node().unwrap()),
        run(users.node().unwrap()),
    );
    assert_eq!(one, other);
    assert_eq!(one.len(), 36);
}

#[test]
fn outside_a_runtime_starting_fails_and_panics_not() {
    let agent = Agent::new(node("auth", 9090), AgentConfig::new("")).unwrap();
    let ended = agent.start().ended().now_or_never().expect("it has ended");
    assert!(ended.unwrap_err().to_string().contains("start it there"));
}

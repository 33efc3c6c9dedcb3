//! How a run ends.

use super::*;

/// A5, and the reference system's order, in which calls arrive at a process that has stopped (C5).
#[tokio::test(start_paused = true)]
async fn the_end_is_drain_wait_shutdown_and_deregistration() {
    let process = Process::new(with_grace(20));
    process.registered().await;
    let shutdown = process.noting("shutdown");
    process
        .agent
        .configure_run(process.serving().with_shutdown(async move || {
            shutdown();
            Ok::<_, std::io::Error>(())
        }));
    let begin = Instant::now();
    process.run(sleep(SECOND)).await.unwrap().unwrap();
    assert!(
        begin.elapsed() >= 21 * SECOND && begin.elapsed() < 22 * SECOND,
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        process.client.calls(),
        [
            "register auth:9090",
            "drain 20 auth:9090",
            "deregister auth:9090"
        ]
    );
    let mut notes = process.notes();
    notes[1..].sort();
    assert_eq!(
        notes,
        [
            "serve after 1 calls",
            "shutdown after 2 calls",
            "stop serving after 2 calls"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_with_the_last_call_under_way() {
    let process = Process::new(with_grace(20));
    process.registered().await;
    process
        .agent
        .configure_run(process.serving().with_idle(sleep(3 * SECOND)));
    let begin = Instant::now();
    process.run(async {}).await.unwrap().unwrap();
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_period_there_is_no_drain() {
    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    process.agent.shutdown().await.unwrap();
    assert_eq!(
        process.client.calls(),
        ["register auth:9090", "deregister auth:9090"]
    );
}

/// A6, A7, and the reference system's first error, which keeps the rest of the end from happening (C5).
#[tokio::test(start_paused = true)]
async fn every_step_is_taken_and_every_failure_told() {
    let process = Process::new(with_grace(1).with_deregister_within(2 * SECOND));
    process.registered().await;
    process.client.fails_next(1000);
    process.agent.configure_run(
        RunConfig::new()
            .with_serve(async |stop: CancellationToken| {
                stop.cancelled().await;
                Err("serve")
            })
            .with_shutdown(async || Err("shutdown")),
    );
    let error = process.run(async {}).await.unwrap().unwrap_err();
    let failures: Vec<_> = error
        .failures()
        .iter()
        .map(|(stage, error)| (*stage, error.to_string()))
        .collect();
    assert_eq!(
        failures,
        [
            (Stage::AgentShutdown, "no".to_owned()),
            (Stage::Shutdown, "shutdown".to_owned()),
            (Stage::Serve, "serve".to_owned()),
            (Stage::AgentShutdown, "no".to_owned()),
        ]
    );
    let calls = process.client.calls();
    assert_eq!(calls[..2], ["register auth:9090", "drain 1 auth:9090"]);
    let leaving = calls.iter().filter(|call| *call == "deregister auth:9090");
    assert!(leaving.count() > 1, "it is tried again: {calls:?}");
}

/// The reference system's end, which has no deadline (C5).
#[tokio::test(start_paused = true)]
async fn every_step_has_its_time() {
    let config = with_grace(1)
        .with_shutdown_within(2 * SECOND)
        .with_deregister_within(3 * SECOND);
    let process = Process::new(config);
    process.registered().await;
    process.client.takes(Duration::from_secs(3600));
    process.agent.configure_run(
        RunConfig::new()
            .with_serve(|_| std::future::pending::<std::io::Result<()>>())
            .with_shutdown(std::future::pending::<std::io::Result<()>>),
    );
    let begin = Instant::now();
    let error = process.run(async {}).await.unwrap().unwrap_err();
    assert!(begin.elapsed() < 20 * SECOND, "{:?}", begin.elapsed());
    let stages: Vec<_> = error.failures().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(
        stages,
        [
            Stage::AgentShutdown,
            Stage::Shutdown,
            Stage::Serve,
            Stage::AgentShutdown
        ]
    );
    assert!(
        error
            .failures()
            .iter()
            .all(|(_, error)| matches!(error, AgentError::TimedOut { .. }))
    );
}

/// The reference system's race between the end of the context and that of the lifecycle, in which half of the ends do not deregister (C6).
#[tokio::test(start_paused = true)]
async fn a_run_without_work_deregisters_every_time() {
    for _ in 0..50 {
        let process = Process::new(AgentConfig::new(""));
        process.registered().await;
        let Process {
            agent,
            client,
            events,
            ..
        } = process;
        // The source ends in the same moment.
        drop(events);
        agent.run(async {}).await.unwrap();
        assert_eq!(
            client.calls(),
            ["register auth:9090", "deregister auth:9090"]
        );
    }
}

/// The reference system's runner, which goes on after the work has ended and registers a dead service (C8).
#[tokio::test(start_paused = true)]
async fn when_the_work_ends_by_itself_nothing_registers_the_service_again() {
    let process = Process::new(with_grace(20));
    process.registered().await;
    process
        .agent
        .configure_run(RunConfig::new().with_serve(async |_| Err::<(), _>("broken")));
    let begin = Instant::now();
    let error = process
        .run(std::future::pending())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.to_string(), "agent serve failed: broken");
    assert!(
        begin.elapsed() < SECOND,
        "there is nothing to wait for: {:?}",
        begin.elapsed()
    );
    let calls = process.client.calls();
    assert_eq!(
        calls,
        [
            "register auth:9090",
            "drain 20 auth:9090",
            "deregister auth:9090"
        ]
    );
    // The agent connects again.
    assert!(
        process.events.send(connected()).await.is_err(),
        "no one listens"
    );
    assert!(!process.agent.status().connected);
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_has_failed_and_the_process_is_deregistered() {
    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    process.agent.configure_run(
        RunConfig::new().with_serve(async |_| -> std::io::Result<()> { panic!("a bug") }),
    );
    let error = process
        .run(std::future::pending())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.stage(), Stage::Serve);
    assert_eq!(
        process.client.calls().last().unwrap(),
        "deregister auth:9090"
    );
}

#[tokio::test(start_paused = true)]
async fn what_no_agent_knows_of_is_neither_drained_nor_deregistered() {
    let process = Process::new(with_grace(3600));
    let begin = Instant::now();
    process.run(async {}).await.unwrap().unwrap();
    assert!(begin.elapsed() < SECOND);
    assert!(process.client.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_may_have_under_an_old_port_is_deregistered_as_well() {
    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    process.client.fails_next(1);
    let moved = |mut node: ServiceNode| {
        node.options.server_port = 9091;
        node
    };
    process.agent.service().update(moved).unwrap();
    process.client.called(2).await;
    process.run(async {}).await.unwrap().unwrap();
    let mut leaving = process.client.calls().split_off(2);
    leaving.sort();
    assert_eq!(leaving, ["deregister auth:9090", "deregister auth:9091"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_agent_knows_of_is_not_registered_at_the_end_either() {
    let process = Process::new(with_grace(20));
    process.registered().await;
    process.events.send(disconnected()).await.unwrap();
    let mut changes = process.agent.status_changes();
    changes.wait_for(|status| !status.connected).await.unwrap();
    process.agent.add(node("users", 9091)).unwrap();
    let run = process.run(async {});
    process.client.called(2).await;
    // The agent is back while calls are waited for.
    process.events.send(connected()).await.unwrap();
    run.await.unwrap().unwrap();
    assert_eq!(
        process.client.calls(),
        [
            "register auth:9090",
            "drain 20 auth:9090",
            "register auth:9090",
            "drain 20 auth:9090",
            "deregister auth:9090"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_does_not_have_yet_needs_no_drain() {
    let process = Process::new(with_grace(20));
    process.client.takes(2 * SECOND);
    process.agent.start();
    process.events.send(connected()).await.unwrap();
    process.client.called(1).await;
    process.client.takes(Duration::ZERO);
    process.client.does_not_find_next();
    process.run(async {}).await.unwrap().unwrap();
    assert_eq!(
        process.client.calls(),
        [
            "register auth:9090",
            "drain 20 auth:9090",
            "drain 20 auth:9090",
            "deregister auth:9090"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_in_the_work_is_an_error_and_the_process_is_deregistered() {
    type Never = std::future::Ready<std::io::Result<()>>;
    let process = Process::new(with_grace(2));
    process.registered().await;
    process.agent.configure_run(
        process
            .serving()
            .with_idle(async { panic!("a bug") })
            .with_shutdown(|| -> Never { panic!("a bug") }),
    );
    let begin = Instant::now();
    let error = process.run(async {}).await.unwrap().unwrap_err();
    assert!(begin.elapsed() >= 2 * SECOND, "the grace period counts");
    let stages: Vec<_> = error.failures().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, [Stage::Shutdown, Stage::Shutdown]);
    assert_eq!(
        process.client.calls().last().unwrap(),
        "deregister auth:9090"
    );

    let process = Process::new(AgentConfig::new(""));
    process.registered().await;
    process
        .agent
        .configure_run(RunConfig::new().with_serve(|_| -> Never { panic!("a bug") }));
    let error = process
        .run(std::future::pending())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.stage(), Stage::Serve);
    assert_eq!(
        process.client.calls().last().unwrap(),
        "deregister auth:9090"
    );
}

#[tokio::test(start_paused = true)]
async fn times_without_a_bound_end_nothing() {
    let config = AgentConfig::new("")
        .with_shutdown_within(Duration::MAX)
        .with_deregister_within(Duration::MAX);
    let process = Process::new(config);
    process.registered().await;
    process.agent.configure_run(process.serving());
    process.run(async {}).await.unwrap().unwrap();
}

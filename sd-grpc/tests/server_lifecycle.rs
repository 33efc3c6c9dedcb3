//! The server's side: healthy before it is registered; at the end unready, drained, deregistered, stopped.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join;
use sd_core::memory::Memory;
use sd_core::{ErrorKind, Instance, Registry, Subscription};
use sd_grpc::{Server, Services};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const SOON: Duration = Duration::from_secs(10);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn instance(address: SocketAddr) -> Instance {
    Instance::new("greeter", address).unwrap()
}

fn server(registry: &Registry, address: SocketAddr) -> Server {
    Server::new(registry, instance(address))
        .drain(Duration::from_millis(100))
        .stop_within(Duration::from_millis(500))
}

async fn client(address: SocketAddr) -> Option<HealthClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await;
    channel.ok().map(HealthClient::new)
}

async fn health(address: SocketAddr, service: &str) -> Option<i32> {
    let mut client = client(address).await?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    Some(client.check(request).await.ok()?.into_inner().status)
}

/// Waits until the set looks as wanted.
async fn wait_for(
    greeters: &mut Subscription,
    what: &str,
    wanted: impl Fn(&[std::sync::Arc<Instance>]) -> bool,
) {
    let waiting = async {
        let mut state = greeters.state_and_mark_seen();
        while !(state.is_known() && wanted(state.snapshot().instances())) {
            state = greeters.changed().await.unwrap();
        }
    };
    timeout(SOON, waiting)
        .await
        .unwrap_or_else(|_| panic!("never saw: {what}"));
}

#[tokio::test]
async fn is_healthy_when_registered_and_unready_then_gone_then_stopped_at_the_end() {
    let registry = Memory::new().connect();
    let mut greeters = registry.subscribe("greeter").unwrap();
    let (listener, address) = listener().await;
    let (stop, shutdown) = oneshot::channel::<()>();
    let draining = server(&registry, address).drain(Duration::from_secs(2));
    let running = tokio::spawn(draining.listen(listener, Services::new()).serve(async {
        shutdown.await.unwrap();
    }));

    wait_for(&mut greeters, "registered", |set| set.len() == 1).await;
    for service in ["", "greeter"] {
        assert_eq!(
            health(address, service).await,
            Some(ServingStatus::Serving as i32)
        );
    }

    stop.send(()).unwrap();
    wait_for(&mut greeters, "unready", |set| {
        set.len() == 1 && !set[0].is_ready()
    })
    .await;
    assert_eq!(
        health(address, "greeter").await,
        Some(ServingStatus::NotServing as i32),
        "still answers while draining"
    );

    wait_for(&mut greeters, "deregistered", <[_]>::is_empty).await;
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the listener is closed"
    );
}

#[tokio::test]
async fn a_watcher_of_the_health_service_does_not_hold_up_the_stop() {
    let registry = Memory::new().connect();
    let mut greeters = registry.subscribe("greeter").unwrap();
    let (listener, address) = listener().await;
    let (stop, shutdown) = oneshot::channel::<()>();
    let patient = server(&registry, address).stop_within(Duration::from_secs(10 * 60));
    let running = tokio::spawn(patient.listen(listener, Services::new()).serve(async {
        shutdown.await.unwrap();
    }));
    wait_for(&mut greeters, "registered", |set| set.len() == 1).await;
    let mut client = client(address).await.unwrap();
    let request = HealthCheckRequest {
        service: "greeter".to_owned(),
    };
    let mut statuses = client.watch(request).await.unwrap().into_inner();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status,
        ServingStatus::Serving as i32
    );

    stop.send(()).unwrap();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status,
        ServingStatus::NotServing as i32
    );
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_register_stops_and_says_why() {
    let registry = Memory::new().connect();
    registry.close().await.unwrap();
    let (listener, address) = listener().await;
    let server = server(&registry, address).listen(listener, Services::new());
    let error = timeout(SOON, server.serve(pending()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_while_registering_leaves_nothing_registered() {
    let memory = Memory::new();
    let (taken, registry) = (memory.connect(), memory.connect());
    let (listener, address) = listener().await;
    let holder = taken
        .register(instance(address).with_id("one".try_into().unwrap()))
        .await
        .unwrap();
    let waiting = Server::new(
        &registry,
        instance(address).with_id("one".try_into().unwrap()),
    )
    .in_background();
    let served = waiting
        .drain(Duration::ZERO)
        .listen(listener, Services::new())
        .serve(async {});
    timeout(SOON, served).await.unwrap().unwrap();
    holder.deregister().await.unwrap();
    let left = registry.list("greeter").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_dropped_server_cuts_its_connections_and_withdraws() {
    let registry = Memory::new().connect();
    let mut greeters = registry.subscribe("greeter").unwrap();
    let (listener, address) = listener().await;
    let server = server(&registry, address).listen(listener, Services::new());
    let running = tokio::spawn(server.serve(pending()));
    wait_for(&mut greeters, "registered", |set| set.len() == 1).await;
    let mut client = client(address).await.unwrap();
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut statuses = client.watch(request).await.unwrap().into_inner();
    statuses.message().await.unwrap();

    running.abort();
    let cut = timeout(SOON, statuses.message()).await.unwrap();
    assert!(!matches!(cut, Ok(Some(_))), "{cut:?}");
    wait_for(&mut greeters, "withdrawn", <[_]>::is_empty).await;
}

#[tokio::test]
async fn is_registered_when_the_registry_has_confirmed_it_however_late() {
    let memory = Memory::new();
    let (taken, registry) = (memory.connect(), memory.connect());
    let (listener, address) = listener().await;
    let with_id = || instance(address).with_id("one".try_into().unwrap());
    let holder = taken.register(with_id()).await.unwrap();
    let running = Server::new(&registry, with_id())
        .in_background()
        .drain(Duration::ZERO)
        .listen(listener, Services::new())
        .start();
    let early = timeout(Duration::from_millis(200), running.registered()).await;
    assert!(early.is_err(), "the id is another's");
    holder.deregister().await.unwrap();
    timeout(SOON, running.registered()).await.unwrap().unwrap();
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
    timeout(SOON, running.shutdown()).await.unwrap().unwrap();
    let after = running.registered().await.unwrap_err();
    assert_eq!(after.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn waiting_for_a_registration_that_fails_says_why() {
    let registry = Memory::new().connect();
    registry.close().await.unwrap();
    let (listener, address) = listener().await;
    let running = server(&registry, address)
        .listen(listener, Services::new())
        .start();
    for told in [running.registered().await, running.ended().await] {
        assert_eq!(told.unwrap_err().kind(), ErrorKind::Closed);
    }
    let update = running.update(|instance| instance).await;
    assert_eq!(update.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn readiness_and_record_change_while_it_serves() {
    let registry = Memory::new().connect();
    let mut greeters = registry.subscribe("greeter").unwrap();
    let (listener, address) = listener().await;
    let running = server(&registry, address)
        .listen(listener, Services::new())
        .start();
    running
        .update(|instance| instance.with_weight(7))
        .await
        .unwrap();
    running.set_ready(false).await.unwrap();
    wait_for(&mut greeters, "unready", |set| {
        set.len() == 1 && !set[0].is_ready() && set[0].weight() == 7
    })
    .await;
    for service in ["", "greeter"] {
        let status = health(address, service).await;
        assert_eq!(status, Some(ServingStatus::NotServing as i32));
    }
    running.set_ready(true).await.unwrap();
    wait_for(&mut greeters, "ready", |set| set[0].is_ready()).await;
    let status = health(address, "greeter").await;
    assert_eq!(status, Some(ServingStatus::Serving as i32));
    timeout(SOON, running.shutdown()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_change_during_the_shutdown_fails_at_once() {
    let registry = Memory::new().connect();
    let mut greeters = registry.subscribe("greeter").unwrap();
    let (listener, address) = listener().await;
    let running = server(&registry, address)
        .drain(Duration::from_secs(600))
        .listen(listener, Services::new())
        .start();
    running.registered().await.unwrap();
    let changing = async {
        wait_for(&mut greeters, "unready", |set| {
            set.len() == 1 && !set[0].is_ready()
        })
        .await;
        running.set_ready(true).await
    };
    let changed = tokio::select! {
        _ = running.shutdown() => panic!("it drains for minutes"),
        changed = timeout(SOON, changing) => changed,
    };
    let error = changed.expect("it does not wait for the end").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn all_ports_and_instances_end_in_one_order() {
    let registry = Memory::new().connect();
    let mut greeters = registry.subscribe("greeter").unwrap();
    let mut admins = registry.subscribe("admin").unwrap();
    let (public, address) = listener().await;
    let (internal, internal_address) = listener().await;
    let running = server(&registry, address)
        .also(Instance::new("admin", internal_address).unwrap())
        .drain(Duration::from_secs(2))
        .listen(public, Services::new())
        .listen(internal, Services::new())
        .start();
    running.registered().await.unwrap();
    wait_for(&mut greeters, "registered", |set| set.len() == 1).await;
    wait_for(&mut admins, "registered", |set| set.len() == 1).await;

    let stopping = running.shutdown();
    let watching = async {
        for subscription in [&mut greeters, &mut admins] {
            wait_for(subscription, "unready", |set| {
                set.len() == 1 && !set[0].is_ready()
            })
            .await;
        }
        for port in [address, internal_address] {
            for service in ["", "greeter", "admin"] {
                let status = health(port, service).await;
                assert_eq!(
                    status,
                    Some(ServingStatus::NotServing as i32),
                    "still answers while draining"
                );
            }
        }
        for subscription in [&mut greeters, &mut admins] {
            wait_for(subscription, "deregistered", <[_]>::is_empty).await;
        }
    };
    let (stopped, ()) = timeout(SOON, join(stopping, watching)).await.unwrap();
    stopped.unwrap();
    for port in [address, internal_address] {
        assert!(TcpStream::connect(port).await.is_err(), "{port} is closed");
    }
}

#[tokio::test]
async fn when_one_instance_cannot_be_registered_none_is() {
    let memory = Memory::new();
    let (taken, registry) = (memory.connect(), memory.connect());
    let (listener, address) = listener().await;
    let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let twin = |address| {
        let admin = Instance::new("admin", address).unwrap();
        admin.with_id("one".try_into().unwrap())
    };
    let _holder = taken.register(twin(elsewhere)).await.unwrap();
    let server = server(&registry, address)
        .also(twin(address))
        .listen(listener, Services::new());
    let error = timeout(SOON, server.serve(pending()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(registry.list("greeter").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_without_a_port_registers_nothing() {
    let registry = Memory::new().connect();
    let (_listener, address) = listener().await;
    let error = server(&registry, address)
        .serve(pending())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(registry.list("greeter").await.unwrap().is_empty());
}

//! Instances that the agent itself asks how they are, by HTTP, by gRPC and by connecting to them, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::{LONG, Operator, config_at, is_live_with, registry_at, server, service, until};
use sd_consul::{CheckKind, ConsulBackend, ConsulConfig};
use sd_core::port::{Attempt, Liveness, Registration};
use sd_core::{Backend, Instance, Registrar, ServiceName, Subscription};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

/// How often the agent asks.
const EVERY: Duration = Duration::from_secs(1);

/// An instance that listens, registered with a check that the agent makes, and a reader that has seen it.
struct Stage {
    one: Instance,
    registrar: Arc<dyn Registrar>,
    held: Box<dyn Registration>,
    seen: Subscription,
}

async fn stage(listener: &TcpListener, service: &ServiceName, config: ConsulConfig) -> Stage {
    let address = listener.local_addr().unwrap();
    let one = Instance::new(service, address).unwrap();
    let backend = Arc::new(ConsulBackend::new(config).unwrap());
    let registrar = backend.registrar().unwrap();
    let held = registrar
        .register(&one, &Attempt::new(EVERY))
        .await
        .unwrap();
    assert!(matches!(held.liveness(), Liveness::Permanent { .. }));
    let mut seen = registry_at(&server()).subscribe(service).unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    Stage {
        one,
        registrar,
        held,
        seen,
    }
}

impl Stage {
    /// Unwell is not withdrawn, and its owner, who is there, loses nothing by it.
    async fn is_unwell(&mut self) {
        until(&mut self.seen, "unwell", is_live_with(0)).await;
        assert!(self.seen.state().snapshot().withdrawn().is_empty());
        self.held.renew().await.unwrap();
    }

    async fn is_well(&mut self) {
        until(&mut self.seen, "well", is_live_with(1)).await;
    }

    async fn end(self) {
        let changed = self.one.clone().with_weight(7);
        self.held.update(&changed).await.unwrap();
        self.registrar
            .withdraw(&self.one.record_id())
            .await
            .unwrap();
        let operator = Operator::at(&server());
        assert!(operator.entries(self.one.service()).await.is_empty());
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_instance_is_well_while_it_accepts_connections() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = config_at(&server()).with_check(CheckKind::Tcp);
    let mut stage = stage(&listener, &service(), config).await;
    timeout(LONG, listener.accept()).await.unwrap().unwrap();
    drop(listener);
    stage.is_unwell().await;
    stage.end().await;
}

/// Answers one request with this status, and returns what was asked for.
async fn answer(stream: TcpStream, status: &str) -> String {
    let mut stream = BufReader::new(stream);
    let (mut asked, mut line) = (String::new(), String::new());
    stream.read_line(&mut asked).await.unwrap();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    let told = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(told.as_bytes()).await.unwrap();
    asked
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_instance_is_well_while_its_path_is_answered_with_success() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = config_at(&server())
        .with_check(CheckKind::Http)
        .with_check_path("/alive?deep=1");
    let mut stage = stage(&listener, &service(), config).await;
    let (status, current) = watch::channel("200 OK");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let now = *current.borrow();
            let asked = answer(stream, now).await;
            assert_eq!(asked, "GET /alive?deep=1 HTTP/1.1\r\n");
        }
    });
    let story = async {
        for _ in 0..2 {
            status.send_replace("503 Service Unavailable");
            stage.is_unwell().await;
            status.send_replace("200 OK");
            stage.is_well().await;
        }
    };
    tokio::select! {
        () = story => {}
        failed = serving.join_next() => panic!("{failed:?}"),
    }
    stage.end().await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_instance_is_well_while_its_grpc_service_says_that_it_serves() {
    const SERVICE: &str = "greeter.Greeter";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = config_at(&server())
        .with_check(CheckKind::Grpc)
        .with_check_path(SERVICE);
    let mut stage = stage(&listener, &service(), config).await;
    let (reporter, health) = tonic_health::server::health_reporter();
    let says = async |status| reporter.set_service_status(SERVICE, status).await;
    says(ServingStatus::Serving).await;
    let mut serving = JoinSet::new();
    serving.spawn(
        Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    for _ in 0..2 {
        says(ServingStatus::NotServing).await;
        stage.is_unwell().await;
        says(ServingStatus::Serving).await;
        stage.is_well().await;
    }
    stage.end().await;
}

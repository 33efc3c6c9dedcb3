//! Instances that the agent itself asks how they are, by HTTP, by gRPC and by connecting to them, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::operator::{plain_id, service_id};
use common::{LONG, Operator, config_at, is_live_with, registry_at, server, service, until};
use sd_consul::{CheckKind, ConsulBackend, ConsulConfig};
use sd_core::port::{Attempt, Liveness, Registration};
use sd_core::{
    Backend, ErrorKind, Holder, Incarnation, Instance, InstanceId, Registrar, ServiceName,
    Subscription,
};
use sd_testing::{HttpProxy, HttpRule};
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

/// Where another datacenter is read, records are still those of the agent's own, and so is what replaces them.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_record_is_replaced_where_it_is_whatever_datacenter_is_read() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = config_at(&server())
        .with_check(CheckKind::Tcp)
        .with_datacenter("elsewhere");
    let old = stage(&listener, &service(), config).await;
    let next = next_run(&old.one);
    let replaced = old.registrar.register(&next, &Attempt::new(EVERY)).await;
    let held = replaced.unwrap();
    held.renew().await.unwrap();
    old.registrar.withdraw(&next.record_id()).await.unwrap();
}

/// The next run under the same id.
fn next_run(of: &Instance) -> Instance {
    of.clone().with_incarnation(Incarnation::random())
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_record_that_lives_on_a_check_belongs_to_what_listens_there_now() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = config_at(&server()).with_check(CheckKind::Tcp);
    let (service, operator) = (service(), Operator::at(&server()));
    let old = stage(&listener, &service, config.clone()).await;
    let mut seen = registry_at(&server()).subscribe(&service).unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    // The earlier run has crashed, and this one listens at its address.
    let next = next_run(&old.one);
    let registry = sd_consul::connect(config.clone()).unwrap();
    let registering = registry.register(next.clone()).ttl(EVERY);
    let watching = async {
        loop {
            let state = seen.changed().await.unwrap();
            let set = state.snapshot();
            assert_eq!(set.len(), 1, "the instance vanished: {set:?}");
            if set.instances()[0].incarnation() == next.incarnation() {
                return;
            }
        }
    };
    let both = async { tokio::join!(registering, watching).0 };
    let guard = timeout(LONG, both).await.unwrap().unwrap();
    assert_eq!(operator.entries(&service).await.len(), 1);

    // The run that was replaced learns it, and does not take the record back.
    let lost = old.held.renew().await.unwrap_err();
    let again = Attempt::new(EVERY).with_was_confirmed();
    let refused = old.registrar.register(&old.one, &again).await.unwrap_err();
    for error in [lost, refused] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
        assert_eq!(error.holder(), Some(&Holder::from(&next)));
    }
    old.registrar.withdraw(&old.one.record_id()).await.unwrap();

    // An instance at another address is refused at once.
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = elsewhere.local_addr().unwrap().to_string();
    let other = next_run(&next).with_endpoint(address.parse().unwrap());
    let other_process = sd_consul::connect(config).unwrap();
    let error = other_process.register(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());

    // It is the agent's own record, and not only the catalog's.
    guard.update(|i| i.with_weight(7)).await.unwrap();
    let found = registry_at(&server()).list(&service).await.unwrap();
    assert_eq!(*found.instances()[0], next.with_weight(7));
    guard.deregister().await.unwrap();
    assert!(operator.entries(&service).await.is_empty());
}

/// The new run answers the checks of those that crashed, so that nothing else would ever end their records.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn runs_that_crashed_at_an_address_leave_no_record_beside_that_of_the_next_one() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (service, operator) = (service(), Operator::at(&server()));
    let address = listener.local_addr().unwrap();
    let config = config_at(&server()).with_check(CheckKind::Tcp);
    let of_run = || Instance::new(&service, address).unwrap();
    let register = async |one: &Instance, attempt: Attempt| {
        let backend = Arc::new(ConsulBackend::new(config.clone()).unwrap());
        let registrar = backend.registrar().unwrap();
        registrar.register(one, &attempt).await.unwrap()
    };
    let ids = async || {
        let entries = operator.entries(&service).await;
        let ids = entries.iter().map(|entry| entry["Service"]["ID"].clone());
        ids.map(|id| id.as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let id_of = |one: &Instance| service_id(&one.record_id());

    // What is not of an earlier run at this address, under an id that was made of it, is not touched.
    let chosen = of_run().with_id(InstanceId::new("chosen").unwrap());
    register(&chosen, Attempt::new(EVERY)).await;
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let elsewhere = Instance::new(&service, elsewhere.local_addr().unwrap()).unwrap();
    register(&elsewhere, Attempt::new(EVERY)).await;
    let (host, port) = (address.ip(), address.port());
    let check = format!(r#""Check":{{"TCP":"{address}","Interval":"1s"}}"#);
    let rest = format!(r#","Address":"{host}","Port":{port},{check}"#);
    operator.register(&service, "theirs", &rest).await;
    let others = [
        id_of(&chosen),
        id_of(&elsewhere),
        plain_id(&service, "theirs"),
    ];

    let mut earlier: Option<(Instance, Box<dyn Registration>)> = None;
    for _ in 0..3 {
        let one = of_run();
        let held = register(&one, Attempt::new(EVERY).with_id_is_new()).await;
        let expected = others.iter().cloned().chain([id_of(&one)]);
        assert_eq!(ids().await, expected.collect());
        if let Some((_, held)) = earlier.replace((one, held)) {
            assert_eq!(held.renew().await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
    let (newest, _held) = earlier.unwrap();
    // It is not the catalog's word alone: the agent does not bring them back.
    let agents = operator.get("/v1/agent/services").await;
    let at_agent = agents.as_object().unwrap().values();
    let at_agent = at_agent.filter(|found| found["Service"] == service.as_str());
    assert_eq!(at_agent.count(), others.len() + 1);

    // A run that was there before and comes back late removes nothing.
    let late = of_run();
    let again = Attempt::new(EVERY).with_was_confirmed();
    register(&late, again).await;
    assert!(ids().await.contains(&id_of(&newest)));
    for id in ids().await {
        operator.remove(&service, &id).await;
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_record_that_changed_meanwhile_is_not_replaced() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = |url: &str| config_at(url).with_check(CheckKind::Tcp);
    let (service, operator) = (service(), Operator::at(&server()));
    let stage = stage(&listener, &service, config(&server())).await;
    let listing = format!("/v1/health/service/{service}");
    let before = operator.get(&listing).await.to_string();
    let changed = stage.one.clone().with_weight(7);
    stage.held.update(&changed).await.unwrap();

    let target = server().strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    proxy.set_rules([HttpRule::new("GET", &listing).answer(200, before)]);
    let backend = Arc::new(ConsulBackend::new(config(&proxy.url())).unwrap());
    let registrar = backend.registrar().unwrap();
    let next = next_run(&changed);
    let refused = registrar.register(&next, &Attempt::new(EVERY)).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    let found = registry_at(&server()).list(&service).await.unwrap();
    assert_eq!(*found.instances()[0], changed);
    stage.end().await;
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

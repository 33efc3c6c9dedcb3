//! What a server serves beside the calls themselves: health for every name, layers, resets by the hundred.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::SOON;
use common::echo::{Echo, EchoClient, EchoServer, Text};
use sd_core::memory::Memory;
use sd_core::{Instance, Registry};
use sd_grpc::{BalancedChannel, RunningServer, Server, Services, ServingStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::service::InterceptorLayer;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as OnTheWire;
use tonic_health::pb::health_client::HealthClient;

struct Loud;

#[tonic::async_trait]
impl Echo for Loud {
    async fn unary(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        let text = request.into_inner().text.to_uppercase();
        Ok(Response::new(Text::new(text)))
    }
}

fn echo() -> EchoServer<Loud> {
    EchoServer(Loud.into())
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves as the instance of `echo` that it registers.
async fn start(
    registry: &Registry,
    listen: impl FnOnce(Server, TcpListener) -> Server,
) -> (RunningServer, SocketAddr) {
    let (listener, address) = listener().await;
    let server = Server::new(registry, Instance::new("echo", address).unwrap());
    let server = server.drain(Duration::ZERO);
    let running = listen(server, listener).start();
    timeout(SOON, running.registered()).await.unwrap().unwrap();
    (running, address)
}

async fn health_client(address: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(client: &mut HealthClient<Channel>, service: &str) -> Result<OnTheWire, Code> {
    let response = client.check(of(service)).await;
    Ok(response
        .map_err(|status| status.code())?
        .into_inner()
        .status())
}

#[tokio::test]
async fn a_server_that_is_registered_is_called_at_once() {
    let registry = Memory::new().connect();
    let (running, _) = start(&registry, |server, listener| {
        server.listen(listener, Services::new().add_service(echo()))
    })
    .await;
    let channel = BalancedChannel::builder(&registry, "echo").build().unwrap();
    let answer = EchoClient::new(channel).say("hello").await.unwrap();
    assert_eq!(answer, "HELLO");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn health_knows_every_service_and_says_what_it_is_told() {
    let registry = Memory::new().connect();
    let (running, address) = start(&registry, |server, listener| {
        server.listen(listener, Services::new().add_service(echo()))
    })
    .await;
    let mut client = health_client(address).await;
    for name in ["", "echo", "test.Echo"] {
        assert_eq!(check(&mut client, name).await, Ok(OnTheWire::Serving));
    }
    assert_eq!(check(&mut client, "other").await, Err(Code::NotFound));
    running.set_health("test.Echo", ServingStatus::NotServing);
    assert_eq!(
        check(&mut client, "test.Echo").await,
        Ok(OnTheWire::NotServing)
    );
    assert_eq!(check(&mut client, "").await, Ok(OnTheWire::Serving));
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_waits_until_it_is_known() {
    let registry = Memory::new().connect();
    let (running, address) = start(&registry, |server, listener| {
        server.listen(listener, Services::new())
    })
    .await;
    let mut client = health_client(address).await;
    let mut told = client.watch(of("late")).await.unwrap().into_inner();
    let mut next = async || told.message().await.unwrap().map(|told| told.status());
    assert_eq!(next().await, Some(OnTheWire::ServiceUnknown));
    running.set_health("other", ServingStatus::Serving);
    running.set_health("late", ServingStatus::Serving);
    assert_eq!(next().await, Some(OnTheWire::Serving));
    let (ended, last) = tokio::join!(running.shutdown(), async { (next().await, next().await) });
    ended.unwrap();
    assert_eq!(last, (Some(OnTheWire::NotServing), None));
}

#[tokio::test]
async fn a_health_service_of_ones_own_takes_the_place_of_ours() {
    let registry = Memory::new().connect();
    let (reporter, own) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("mine", tonic_health::ServingStatus::Serving)
        .await;
    let (_running, address) = start(&registry, |server, listener| {
        server.listen(
            listener,
            Services::new().add_service(own).add_service(echo()),
        )
    })
    .await;
    let mut client = health_client(address).await;
    assert_eq!(check(&mut client, "mine").await, Ok(OnTheWire::Serving));
    assert_eq!(check(&mut client, "test.Echo").await, Err(Code::NotFound));
}

#[tokio::test]
async fn tower_layers_see_every_call() {
    let registry = Memory::new().connect();
    let refuse = InterceptorLayer::new(|request: Request<()>| {
        if request.metadata().contains_key("ticket") {
            Ok(request)
        } else {
            Err(Status::permission_denied("no ticket"))
        }
    });
    let (_running, _) = start(&registry, |server, listener| {
        let transport = tonic::transport::Server::builder().layer(refuse);
        server.listen(
            listener,
            Services::new().add_service(echo()).transport(transport),
        )
    })
    .await;
    let channel = BalancedChannel::builder(&registry, "echo").build().unwrap();
    let mut client = EchoClient::new(channel);
    let refused = client.say("hello").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut request = Request::new(Text::new("hello"));
    request
        .metadata_mut()
        .insert("ticket", "1".parse().unwrap());
    let answer = client.unary(request).await.unwrap();
    assert_eq!(answer.into_inner().text, "HELLO");
}

#[tokio::test]
async fn a_thousand_calls_cancelled_at_once_do_not_cost_the_connection() {
    let registry = Memory::new().connect();
    let (_running, address) = start(&registry, |server, listener| {
        server.listen(listener, Services::new().add_service(echo()))
    })
    .await;
    // Begun and cancelled in one write, so that the server sees both before it begins the call.
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frames.extend(frame(SETTINGS, 0, 0, &[]));
    for nth in 0..1_000 {
        let stream = 2 * nth + 1;
        frames.extend(frame(HEADERS, END_HEADERS, stream, &health_check_headers()));
        frames.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    let last = 2_001;
    frames.extend(frame(HEADERS, END_HEADERS, last, &health_check_headers()));
    frames.extend(frame(DATA, END_STREAM, last, &[0; 5]));
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&frames).await.unwrap();
    let answered = async {
        loop {
            let mut head = [0; 9];
            connection.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            connection.read_exact(&mut payload).await.unwrap();
            match (head[3], stream) {
                (GOAWAY, _) => panic!("{}", String::from_utf8_lossy(&payload)),
                (DATA, stream) if stream == last => return payload,
                _ => {}
            }
        }
    };
    let message = timeout(SOON, answered).await.unwrap();
    assert_eq!(message, [0, 0, 0, 0, 2, 8, OnTheWire::Serving as u8]);
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// In HPACK, without the dynamic table.
fn health_check_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    // Static names, and a value.
    let literals: [(&[u8], &str); 3] = [
        (&[0x01], "localhost"),
        (&[0x04], "/grpc.health.v1.Health/Check"),
        (&[0x0f, 0x10], "application/grpc"),
    ];
    for (name, value) in literals {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    block
}

//! One copy of the service: what your server does to be found, and to leave without a failed call.

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use examples::Hello;
use examples::greeter::{Greeter, GreeterServer, HelloReply, HelloRequest};
use sd_core::{Instance, InstanceId, Registry};
use sd_grpc::{Server, Services};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::Result;

/// How long the registry keeps a server that is silent. Longer than the pause in `story.rs`, which a server survives.
pub(crate) const TTL: Duration = Duration::from_secs(8);

/// How long a server goes on answering after it has said that it wants no more calls.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a call takes, so that some are in flight when a server dies.
const WORK: Duration = Duration::from_millis(20);

/// Serves until `drain` completes. Tells when it began to register.
pub(crate) async fn serve(
    registry: &Registry,
    service: &str,
    name: &str,
    began: oneshot::Sender<SystemTime>,
    drain: impl Future<Output = ()>,
) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let instance = Instance::new(service, listener.local_addr()?)?.with_id(InstanceId::new(name)?);
    let greeter = GreeterServer::new(HardWorking(Hello::from(name)));
    // There may be no listener.
    let _ = began.send(SystemTime::now());
    Server::new(registry, instance)
        .ttl(TTL)
        .drain(DRAIN)
        .listen(listener, Services::new().add_service(greeter))
        .serve(drain)
        .await?;
    Ok(())
}

/// Takes its time.
struct HardWorking(Hello);

#[tonic::async_trait]
impl Greeter for HardWorking {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        tokio::time::sleep(WORK).await;
        self.0.say_hello(request).await
    }
}

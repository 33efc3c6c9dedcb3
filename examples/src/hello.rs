//! A greeter that can be found, for examples about other questions. `server_lifecycle` shows how to write a server.

use std::net::Ipv4Addr;
use std::time::Duration;

use sd_core::{Error, ErrorKind, Instance, InstanceId, Registry, Result};
use sd_grpc::{RunningServer, Server, Services};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::greeter::{Greeter, GreeterServer, HelloReply, HelloRequest};

/// Says hello, and which copy of the service says so.
#[derive(Clone, Debug)]
pub struct Hello {
    copy: String,
}

impl Hello {
    /// A greeter that calls itself `copy`.
    pub fn from(copy: impl Into<String>) -> Self {
        Self { copy: copy.into() }
    }
}

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let HelloRequest { name } = request.into_inner();
        let message = format!("Hello, {name}, from {}", self.copy);
        Ok(Response::new(HelloReply { message }))
    }
}

/// A running [`Hello`]. Dropping it stops it at once.
#[derive(Debug)]
pub struct HelloServer(RunningServer);

impl HelloServer {
    /// Serves a greeter on a free port and registers it as the instance `copy` of `service`.
    ///
    /// # Errors
    /// When there is no free port, or the name cannot be registered.
    pub async fn start(registry: &Registry, service: &str, copy: &str) -> Result<Self> {
        const OP: &str = "start hello server";
        let failed = |error| Error::new(ErrorKind::Unavailable, OP).with_source(error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let instance = Instance::new(service, address)?.with_id(InstanceId::new(copy)?);
        let server = Server::new(registry, instance)
            .drain(Duration::from_millis(200))
            .listen(
                listener,
                Services::new().add_service(GreeterServer::new(Hello::from(copy))),
            );
        Ok(Self(server.start()))
    }

    /// Drains and deregisters the server, and waits until it has stopped.
    ///
    /// # Errors
    /// When the server could not register or deregister.
    pub async fn stop(self) -> Result<()> {
        self.0.shutdown().await
    }
}

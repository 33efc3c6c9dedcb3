//! A greeter that can be found, for examples about other questions. `server_lifecycle` shows how to write a server.

use std::net::Ipv4Addr;
use std::time::Duration;

use sd_core::{Error, ErrorKind, Instance, InstanceId, Registry, Result};
use sd_grpc::Server;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::Routes;
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

/// A running [`Hello`]. Dropping it drains it in the background.
#[derive(Debug)]
pub struct HelloServer {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

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
        let server = Server::new(registry, instance).drain(Duration::from_millis(200));
        let routes = Routes::new(GreeterServer::new(Hello::from(copy)));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async {
                // Dropped or told: both mean the same.
                let _ = stopped.await;
            };
            server.serve(routes, listener, stopped).await
        });
        Ok(Self { stop, serving })
    }

    /// Drains and deregisters the server, and waits until it has stopped.
    ///
    /// # Errors
    /// When the server could not register or deregister.
    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.serving.await.unwrap_or_else(|panicked| {
            Err(Error::new(ErrorKind::Closed, "stop hello server").with_source(panicked))
        })
    }
}

//! The service of `proto/greeter.proto`, as tonic's generator writes it, but shorter, so that examples and benches do not need
//! `protoc`. In your own service, let `tonic-prost-build` do this.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body, BoxFuture, Bytes, Service, StdError};
use tonic::server::{NamedService, UnaryService};
use tonic::{GrpcMethod, IntoRequest, Request, Response, Status};
use tonic_prost::ProstCodec;

const SERVICE: &str = "examples.v1.Greeter";
const SAY_HELLO: &str = "/examples.v1.Greeter/SayHello";

/// Who is to be greeted.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HelloRequest {
    /// A name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The greeting.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HelloReply {
    /// A sentence.
    #[prost(string, tag = "1")]
    pub message: String,
}

/// The client, over any channel.
#[derive(Clone, Debug)]
pub struct GreeterClient<T> {
    inner: Grpc<T>,
}

impl<T> GreeterClient<T>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client that sends its calls through `channel`.
    pub fn new(channel: T) -> Self {
        Self {
            inner: Grpc::new(channel),
        }
    }

    /// Greets.
    ///
    /// # Errors
    /// The status with which the call ended.
    pub async fn say_hello(
        &mut self,
        request: impl IntoRequest<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unknown(format!("service was not ready: {}", error.into())))?;
        let mut request = request.into_request();
        let method = GrpcMethod::new(SERVICE, "SayHello");
        request.extensions_mut().insert(method);
        let path = PathAndQuery::from_static(SAY_HELLO);
        self.inner.unary(request, path, ProstCodec::default()).await
    }
}

/// What a server of the service does.
#[tonic::async_trait]
pub trait Greeter: Send + Sync + 'static {
    /// Greets.
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status>;
}

/// Serves a [`Greeter`].
#[derive(Debug)]
pub struct GreeterServer<T> {
    inner: Arc<T>,
}

impl<T: Greeter> GreeterServer<T> {
    /// A server that answers with `greeter`.
    pub fn new(greeter: T) -> Self {
        Self {
            inner: Arc::new(greeter),
        }
    }
}

impl<T> Clone for GreeterServer<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T> NamedService for GreeterServer<T> {
    const NAME: &'static str = SERVICE;
}

impl<T, B> Service<http::Request<B>> for GreeterServer<T>
where
    T: Greeter,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = SayHello(Arc::clone(&self.inner));
        Box::pin(async move {
            if request.uri().path() != SAY_HELLO {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(method, request).await)
        })
    }
}

/// The one method, in the form that tonic serves.
struct SayHello<T>(Arc<T>);

impl<T: Greeter> UnaryService<HelloRequest> for SayHello<T> {
    type Response = HelloReply;
    type Future = BoxFuture<Response<HelloReply>, Status>;

    fn call(&mut self, request: Request<HelloRequest>) -> Self::Future {
        let greeter = Arc::clone(&self.0);
        Box::pin(async move { greeter.say_hello(request).await })
    }
}

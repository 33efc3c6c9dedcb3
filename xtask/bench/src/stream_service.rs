//! A service with a method that answers with a stream and one that streams both ways, as tonic's generator would write it, but shorter.

use std::convert::Infallible;
use std::task::{Context, Poll};

use examples::greeter::{HelloReply, HelloRequest};
use tokio_stream::{StreamExt, iter};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, BoxStream, Service, StdError, http};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::transport::Transport;

const SERVICE: &str = "bench.Streams";
const DOWNLOAD: &str = "/bench.Streams/Download";
const ECHO: &str = "/bench.Streams/Echo";
/// 16 bytes, as in the unary calls.
const TEXT: &str = "sixteen bytes ok";

fn message() -> HelloRequest {
    HelloRequest {
        name: TEXT.to_owned(),
    }
}

/// Calls both methods.
#[derive(Debug)]
pub(crate) struct StreamsClient<T>(Grpc<T>);

impl<T: Transport> StreamsClient<T> {
    pub(crate) fn new(channel: T) -> Self {
        Self(Grpc::new(channel))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let not_ready = |error| Status::unknown(Into::<StdError>::into(error).to_string());
        self.0.ready().await.map_err(not_ready)
    }

    /// Receives so many messages.
    pub(crate) async fn download(&mut self, request: Request<usize>) -> Result<(), Status> {
        self.ready().await?;
        let messages = *request.get_ref();
        let request = request.map(|messages| HelloRequest {
            name: messages.to_string(),
        });
        let path = PathAndQuery::from_static(DOWNLOAD);
        let codec = ProstCodec::default();
        let response = self.0.server_streaming(request, path, codec).await?;
        all_came(response.into_inner(), messages).await
    }

    /// Sends so many messages, and receives as many.
    pub(crate) async fn echo(&mut self, request: Request<usize>) -> Result<(), Status> {
        self.ready().await?;
        let messages = *request.get_ref();
        let request = request.map(|messages| iter((0..messages).map(|_| message())));
        let path = PathAndQuery::from_static(ECHO);
        let codec = ProstCodec::default();
        let response = self.0.streaming(request, path, codec).await?;
        all_came(response.into_inner(), messages).await
    }
}

async fn all_came(mut replies: Streaming<HelloReply>, messages: usize) -> Result<(), Status> {
    let mut came = 0;
    while replies.message().await?.is_some() {
        came += 1;
    }
    if came == messages {
        Ok(())
    } else {
        let why = format!("{came} of {messages} messages came");
        Err(Status::data_loss(why))
    }
}

/// Serves both methods.
#[derive(Clone, Debug)]
pub(crate) struct StreamsServer;

impl tonic::server::NamedService for StreamsServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for StreamsServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(match request.uri().path() {
                DOWNLOAD => grpc.server_streaming(Download, request).await,
                ECHO => grpc.streaming(Echo, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

fn reply(message: String) -> HelloReply {
    HelloReply { message }
}

struct Download;

impl tonic::server::ServerStreamingService<HelloRequest> for Download {
    type Response = HelloReply;
    type ResponseStream = BoxStream<HelloReply>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<HelloRequest>) -> Self::Future {
        Box::pin(async move {
            let messages: usize = request
                .get_ref()
                .name
                .parse()
                .map_err(|error| not_a_number(&error))?;
            let all = (0..messages).map(|_| Ok(reply(TEXT.to_owned())));
            Ok(Response::new(Box::pin(iter(all)) as BoxStream<_>))
        })
    }
}

fn not_a_number(error: &std::num::ParseIntError) -> Status {
    Status::invalid_argument(error.to_string())
}

struct Echo;

impl tonic::server::StreamingService<HelloRequest> for Echo {
    type Response = HelloReply;
    type ResponseStream = BoxStream<HelloReply>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<HelloRequest>>) -> Self::Future {
        Box::pin(async move {
            let replies = request.into_inner();
            let replies = replies.map(|message| message.map(|message| reply(message.name)));
            Ok(Response::new(Box::pin(replies) as BoxStream<_>))
        })
    }
}

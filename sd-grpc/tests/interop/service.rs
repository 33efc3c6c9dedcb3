//! The service of gRPC's public [interop tests], as far as its cases are expressible with tonic: its messages, a client, a server.
//!
//! [interop tests]: https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use http_body::Frame;
use http_body_util::BodyExt;
use sd_grpc::BalancedChannel;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

pub const SERVICE: &str = "grpc.testing.TestService";
const EMPTY_CALL: &str = "/grpc.testing.TestService/EmptyCall";
const UNARY_CALL: &str = "/grpc.testing.TestService/UnaryCall";
const INPUT_CALL: &str = "/grpc.testing.TestService/StreamingInputCall";
const OUTPUT_CALL: &str = "/grpc.testing.TestService/StreamingOutputCall";
const DUPLEX_CALL: &str = "/grpc.testing.TestService/FullDuplexCall";

pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";
pub const ENCODING: &str = "grpc-encoding";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BoolValue {
    #[prost(bool, tag = "1")]
    pub value: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    #[prost(bytes = "vec", tag = "2")]
    pub body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SimpleRequest {
    #[prost(int32, tag = "2")]
    pub response_size: i32,
    #[prost(message, optional, tag = "3")]
    pub payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    pub response_status: Option<EchoStatus>,
    #[prost(message, optional, tag = "8")]
    pub expect_compressed: Option<BoolValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SimpleResponse {
    #[prost(message, optional, tag = "1")]
    pub payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InputRequest {
    #[prost(message, optional, tag = "1")]
    pub payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InputResponse {
    #[prost(int32, tag = "1")]
    pub aggregated_payload_size: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseParameters {
    #[prost(int32, tag = "1")]
    pub size: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OutputRequest {
    #[prost(message, repeated, tag = "2")]
    pub response_parameters: Vec<ResponseParameters>,
    #[prost(message, optional, tag = "3")]
    pub payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    pub response_status: Option<EchoStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OutputResponse {
    #[prost(message, optional, tag = "1")]
    pub payload: Option<Payload>,
}

pub fn payload(size: i32) -> Payload {
    let body = vec![0; usize::try_from(size).unwrap()];
    Payload { body }
}

pub fn size(payload: Option<&Payload>) -> i32 {
    let size = payload.map_or(0, |payload| payload.body.len());
    i32::try_from(size).unwrap()
}

pub fn sized(sizes: &[i32]) -> Vec<ResponseParameters> {
    let parameters = sizes.iter().map(|size| ResponseParameters { size: *size });
    parameters.collect()
}

#[derive(Clone)]
pub struct InteropClient(tonic::client::Grpc<BalancedChannel>);

impl InteropClient {
    pub fn new(channel: BalancedChannel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    /// Compresses what it sends, and takes what is compressed.
    pub fn gzip(self) -> Self {
        let grpc = self.0.send_compressed(CompressionEncoding::Gzip);
        Self(grpc.accept_compressed(CompressionEncoding::Gzip))
    }

    async fn simple<Q, A>(
        mut self,
        path: &'static str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        self.0
            .unary(request, path, ProstCodec::<Q, A>::default())
            .await
    }

    pub async fn empty(self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.simple(EMPTY_CALL, request).await
    }

    /// Calls what no server has.
    pub async fn unimplemented(self, path: &'static str) -> Result<Response<Empty>, Status> {
        self.simple(path, Request::new(Empty {})).await
    }

    pub async fn unary(
        self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        self.simple(UNARY_CALL, request).await
    }

    pub async fn input(
        mut self,
        requests: impl Stream<Item = InputRequest> + Send + 'static,
    ) -> Result<InputResponse, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static(INPUT_CALL);
        let codec = ProstCodec::default();
        let response = self.0.client_streaming(Request::new(requests), path, codec);
        Ok(response.await?.into_inner())
    }

    pub async fn output(
        mut self,
        request: OutputRequest,
    ) -> Result<Response<Streaming<OutputResponse>>, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static(OUTPUT_CALL);
        let codec = ProstCodec::default();
        self.0
            .server_streaming(Request::new(request), path, codec)
            .await
    }

    pub async fn duplex(
        mut self,
        request: Request<impl Stream<Item = OutputRequest> + Send + 'static>,
    ) -> Result<Response<Streaming<OutputResponse>>, Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_static(DUPLEX_CALL);
        self.0.streaming(request, path, ProstCodec::default()).await
    }
}

#[derive(Clone)]
pub struct InteropServer;

impl tonic::server::NamedService for InteropServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for InteropServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let initial = request.headers().get(ECHO_INITIAL).cloned();
        let trailing = request.headers().get(ECHO_TRAILING).cloned();
        Box::pin(async move {
            let mut response = answer(request).await;
            if let Some(initial) = initial {
                response.headers_mut().insert(ECHO_INITIAL, initial);
            }
            let Some(trailing) = trailing else {
                return Ok(response);
            };
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        trailers.insert(ECHO_TRAILING, trailing.clone());
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }))
        })
    }
}

async fn answer(request: http::Request<Body>) -> http::Response<Body> {
    match request.uri().path() {
        EMPTY_CALL => {
            let empty = |_: Request<Empty>| async { Ok(Response::new(Empty {})) };
            grpc().unary(service_fn(empty), request).await
        }
        UNARY_CALL => grpc().unary(service_fn(unary), request).await,
        INPUT_CALL => grpc().client_streaming(service_fn(input), request).await,
        OUTPUT_CALL => grpc().server_streaming(service_fn(output), request).await,
        DUPLEX_CALL => grpc().streaming(service_fn(duplex), request).await,
        _ => Status::new(Code::Unimplemented, "no such method").into_http(),
    }
}

fn grpc<A, Q>() -> tonic::server::Grpc<ProstCodec<A, Q>>
where
    A: prost::Message + 'static,
    Q: prost::Message + Default + 'static,
{
    tonic::server::Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
}

fn check(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => Err(Status::new(code.into(), message)),
        _ => Ok(()),
    }
}

async fn unary(request: Request<SimpleRequest>) -> Result<Response<SimpleResponse>, Status> {
    // tonic does not show the flag of a single message.
    let is_compressed = request.metadata().contains_key(ENCODING);
    let request = request.into_inner();
    if let Some(BoolValue { value }) = request.expect_compressed
        && value != is_compressed
    {
        return Err(Status::invalid_argument("not compressed as expected"));
    }
    check(request.response_status)?;
    Ok(Response::new(SimpleResponse {
        payload: Some(payload(request.response_size)),
    }))
}

async fn input(
    request: Request<Streaming<InputRequest>>,
) -> Result<Response<InputResponse>, Status> {
    let (mut requests, mut sum) = (request.into_inner(), 0);
    while let Some(request) = requests.message().await? {
        sum += size(request.payload.as_ref());
    }
    Ok(Response::new(InputResponse {
        aggregated_payload_size: sum,
    }))
}

type Responses = BoxStream<'static, Result<OutputResponse, Status>>;

fn responses(request: OutputRequest) -> Vec<Result<OutputResponse, Status>> {
    if let Err(status) = check(request.response_status) {
        return vec![Err(status)];
    }
    let sizes = request.response_parameters.into_iter();
    let response = |one: ResponseParameters| OutputResponse {
        payload: Some(payload(one.size)),
    };
    sizes.map(|one| Ok(response(one))).collect()
}

async fn output(request: Request<OutputRequest>) -> Result<Response<Responses>, Status> {
    let responses = responses(request.into_inner());
    Ok(Response::new(stream::iter(responses).boxed()))
}

async fn duplex(request: Request<Streaming<OutputRequest>>) -> Result<Response<Responses>, Status> {
    let responses = request.into_inner().flat_map(|request| {
        stream::iter(match request {
            Ok(request) => responses(request),
            Err(status) => vec![Err(status)],
        })
    });
    Ok(Response::new(responses.boxed()))
}

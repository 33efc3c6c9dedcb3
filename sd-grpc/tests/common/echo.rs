//! The service that the tests call, as generated code would have it: one method of each kind.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

pub const UNARY: &str = "/test.Echo/Unary";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

impl Text {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

#[derive(Clone, Debug)]
pub struct EchoClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> EchoClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    pub fn new(transport: T) -> Self {
        Self {
            inner: tonic::client::Grpc::new(transport),
        }
    }

    /// Compresses what it sends, and takes what is compressed.
    pub fn compressed(self, encoding: CompressionEncoding) -> Self {
        let inner = self.inner.send_compressed(encoding);
        Self {
            inner: inner.accept_compressed(encoding),
        }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.inner
            .ready()
            .await
            .map_err(|e| Status::unknown(e.into().to_string()))
    }

    pub async fn unary(&mut self, request: Request<Text>) -> Result<Response<Text>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(UNARY);
        self.inner.unary(request, path, ProstCodec::default()).await
    }

    pub async fn say(&mut self, text: &str) -> Result<String, Status> {
        let response = self.unary(Request::new(Text::new(text))).await?;
        Ok(response.into_inner().text)
    }

    pub async fn split(&mut self, text: &str) -> Result<Streaming<Text>, Status> {
        let response = self.split_with(Request::new(Text::new(text))).await?;
        Ok(response.into_inner())
    }

    pub async fn split_with(
        &mut self,
        request: Request<Text>,
    ) -> Result<Response<Streaming<Text>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Split");
        let codec = ProstCodec::default();
        self.inner.server_streaming(request, path, codec).await
    }

    pub async fn join(
        &mut self,
        texts: impl Stream<Item = Text> + Send + 'static,
    ) -> Result<Text, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Join");
        let (request, codec) = (Request::new(texts), ProstCodec::default());
        let response = self.inner.client_streaming(request, path, codec).await?;
        Ok(response.into_inner())
    }

    pub async fn chat(
        &mut self,
        texts: impl Stream<Item = Text> + Send + 'static,
    ) -> Result<Streaming<Text>, Status> {
        self.chat_with(Request::new(texts)).await
    }

    pub async fn chat_with(
        &mut self,
        request: Request<impl Stream<Item = Text> + Send + 'static>,
    ) -> Result<Streaming<Text>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Chat");
        let codec = ProstCodec::default();
        let response = self.inner.streaming(request, path, codec).await?;
        Ok(response.into_inner())
    }
}

pub type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

#[tonic::async_trait]
pub trait Echo: Send + Sync + 'static {
    async fn unary(&self, request: Request<Text>) -> Result<Response<Text>, Status>;

    /// Sends each word back.
    async fn split(&self, request: Request<Text>) -> Result<Response<Texts>, Status> {
        let text = request.into_inner().text;
        let words: Vec<_> = text.split(' ').map(|word| Ok(Text::new(word))).collect();
        Ok(Response::new(Box::pin(futures_util::stream::iter(words))))
    }

    /// Sends the words back in one.
    async fn join(&self, request: Request<Streaming<Text>>) -> Result<Response<Text>, Status> {
        let mut words = Vec::new();
        let mut texts = request.into_inner();
        while let Some(text) = texts.message().await? {
            words.push(text.text);
        }
        Ok(Response::new(Text::new(words.join(" "))))
    }

    /// Answers each text at once.
    async fn chat(&self, request: Request<Streaming<Text>>) -> Result<Response<Texts>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}

pub struct EchoServer<E>(pub Arc<E>);

impl<E> Clone for EchoServer<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> tonic::server::NamedService for EchoServer<E> {
    const NAME: &'static str = "test.Echo";
}

struct Unary<E>(Arc<E>);
struct Split<E>(Arc<E>);
struct Join<E>(Arc<E>);
struct Chat<E>(Arc<E>);

impl<E: Echo> tonic::server::UnaryService<Text> for Unary<E> {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;
    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let echo = Arc::clone(&self.0);
        Box::pin(async move { echo.unary(request).await })
    }
}

impl<E: Echo> tonic::server::ServerStreamingService<Text> for Split<E> {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = BoxFuture<Response<Texts>, Status>;
    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let echo = Arc::clone(&self.0);
        Box::pin(async move { echo.split(request).await })
    }
}

impl<E: Echo> tonic::server::ClientStreamingService<Text> for Join<E> {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;
    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        let echo = Arc::clone(&self.0);
        Box::pin(async move { echo.join(request).await })
    }
}

impl<E: Echo> tonic::server::StreamingService<Text> for Chat<E> {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = BoxFuture<Response<Texts>, Status>;
    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        let echo = Arc::clone(&self.0);
        Box::pin(async move { echo.chat(request).await })
    }
}

impl<E: Echo> Service<http::Request<Body>> for EchoServer<E> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = Arc::clone(&self.0);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
                grpc = grpc.accept_compressed(encoding).send_compressed(encoding);
            }
            Ok(match request.uri().path() {
                UNARY => grpc.unary(Unary(echo), request).await,
                "/test.Echo/Split" => grpc.server_streaming(Split(echo), request).await,
                "/test.Echo/Join" => grpc.client_streaming(Join(echo), request).await,
                "/test.Echo/Chat" => grpc.streaming(Chat(echo), request).await,
                _ => Status::new(Code::Unimplemented, "no such method").into_http(),
            })
        })
    }
}

/// All texts of a stream.
pub async fn texts(stream: Streaming<Text>) -> Result<Vec<String>, Status> {
    let all: Vec<_> = stream.collect().await;
    all.into_iter()
        .map(|text| text.map(|text| text.text))
        .collect()
}

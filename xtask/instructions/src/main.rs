//! `cargo xtask instructions` runs this under callgrind, with a client and a number of calls: unary calls, one after the other, on one
//! thread, over a pipe in memory, to the smallest server that h2 makes. What calls cost is the difference between two numbers of
//! calls.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use sd_core::Instance;
use sd_core::memory::Memory;
use sd_grpc::BalancedChannel;
use tokio::io::{DuplexStream, duplex};
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body, StdError};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// More than a call has on its way.
const PIPE: usize = 64 * 1024;
/// Connects, and fills what is filled once.
const WARM_UP: usize = 50;
const TEXT: &str = "sixteen bytes ok";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (client, calls) = (arguments.next(), arguments.next());
    let calls: usize = calls.unwrap_or_default().parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        match client.as_deref() {
            Some("ours") => {
                let registry = Memory::new().connect();
                let _guard = registry.register(Instance::new("echo", "pipe:1")?).await?;
                let connector = |_: Arc<Instance>| async { Ok(to_server()) };
                let channel = BalancedChannel::builder(&registry, "echo").connector(connector);
                call(channel.build()?, WARM_UP + calls).await
            }
            Some("tonic") => {
                let connector = |_: Uri| async { Ok::<_, StdError>(TokioIo::new(to_server())) };
                let endpoint = Endpoint::from_static("http://pipe:1");
                let channel = endpoint.connect_with_connector_lazy(tower::service_fn(connector));
                call(channel, WARM_UP + calls).await
            }
            _ => Err("neither ours nor tonic".into()),
        }
    })
}

async fn call<T>(channel: T, calls: usize) -> Result<()>
where
    T: GrpcService<tonic::body::Body, Error: Into<StdError>>,
    T::ResponseBody: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    let mut client = Grpc::new(channel);
    for _ in 0..calls {
        client.ready().await.map_err(Into::into)?;
        let mut request = tonic::Request::new(TEXT.to_owned());
        // Counting takes its time.
        request.set_timeout(Duration::from_hours(1));
        let path = PathAndQuery::from_static("/test.Echo/Unary");
        let codec = ProstCodec::<String, String>::default();
        let answer = client.unary(request, path, codec).await?;
        if answer.into_inner() != TEXT {
            return Err("another answer".into());
        }
    }
    Ok(())
}

/// The client's end of a new pipe.
fn to_server() -> DuplexStream {
    let (ours, theirs) = duplex(PIPE);
    // Ends with the pipe.
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(theirs).await?;
        while let Some(call) = connection.accept().await {
            let (request, respond) = call?;
            tokio::spawn(answer(request, respond));
        }
        Ok::<_, h2::Error>(())
    });
    ours
}

/// Sends the request back.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut headers = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    headers.headers_mut().insert(CONTENT_TYPE, kind);
    let mut response = respond.send_response(headers, false)?;
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        // h2 ends a connection over many empty ones.
        if !data.is_empty() {
            response.send_data(data, false)?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    response.send_trailers(trailers)
}

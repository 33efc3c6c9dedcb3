//! The cases, each over a client of ours. A case fails by panicking.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tonic::metadata::{BinaryMetadataValue, MetadataMap, MetadataValue};
use tonic::{Code, Request};

use crate::service::{
    BoolValue, ECHO_INITIAL, ECHO_TRAILING, ENCODING, EchoStatus, Empty, InputRequest,
    InteropClient, OutputRequest, SimpleRequest, payload, size, sized,
};

pub type Case = fn(InteropClient) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),*) => {
        [$((stringify!($name), |client| Box::pin($name(client)))),*]
    };
}

/// What every server must answer. grpc-go's client knows the same names.
pub const CASES: [(&str, Case); 15] = cases![
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    custom_metadata,
    status_code_and_message,
    special_status_message,
    unimplemented_method,
    unimplemented_service,
    timeout_on_sleeping_server,
    cancel_after_begin,
    cancel_after_first_response,
    gzip
];

const REQUEST_SIZES: [i32; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSE_SIZES: [i32; 4] = [31_415, 9, 2_653, 58_979];
const LARGE_REQUEST: i32 = 271_828;
const LARGE_RESPONSE: i32 = 314_159;

fn large() -> SimpleRequest {
    SimpleRequest {
        response_size: LARGE_RESPONSE,
        payload: Some(payload(LARGE_REQUEST)),
        ..SimpleRequest::default()
    }
}

async fn empty_unary(client: InteropClient) {
    let response = client.empty(Request::new(Empty {})).await.unwrap();
    assert_eq!(response.into_inner(), Empty {});
}

async fn large_unary(client: InteropClient) {
    let response = client.unary(Request::new(large())).await.unwrap();
    assert_eq!(size(response.get_ref().payload.as_ref()), LARGE_RESPONSE);
}

async fn client_streaming(client: InteropClient) {
    let requests = REQUEST_SIZES.map(|size| InputRequest {
        payload: Some(payload(size)),
    });
    let response = client.input(stream::iter(requests)).await.unwrap();
    assert_eq!(response.aggregated_payload_size, 74_922);
}

async fn server_streaming(client: InteropClient) {
    let request = OutputRequest {
        response_parameters: sized(&RESPONSE_SIZES),
        ..OutputRequest::default()
    };
    let mut responses = client.output(request).await.unwrap().into_inner();
    for expected in RESPONSE_SIZES {
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(size(response.payload.as_ref()), expected);
    }
    assert_eq!(responses.message().await.unwrap(), None);
}

async fn ping_pong(client: InteropClient) {
    let mut pings = REQUEST_SIZES.into_iter().zip(RESPONSE_SIZES);
    let (send, requests) = tokio::sync::mpsc::channel(1);
    // Some servers send headers only with the first message.
    let (request, response) = pings.next().unwrap();
    send.send(ping(request, response)).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let responses = client.duplex(Request::new(requests)).await;
    let mut responses = responses.unwrap().into_inner();
    for expected in RESPONSE_SIZES {
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(size(response.payload.as_ref()), expected);
        if let Some((request, response)) = pings.next() {
            send.send(ping(request, response)).await.unwrap();
        }
    }
    drop(send);
    assert_eq!(responses.message().await.unwrap(), None);
}

fn ping(request: i32, response: i32) -> OutputRequest {
    OutputRequest {
        response_parameters: sized(&[response]),
        payload: Some(payload(request)),
        ..OutputRequest::default()
    }
}

async fn empty_stream(client: InteropClient) {
    let responses = client.duplex(Request::new(stream::empty())).await;
    let mut responses = responses.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap(), None);
}

async fn custom_metadata(client: InteropClient) {
    let trailing = || MetadataValue::from_bytes(&[0xab; 3]);
    let mut request = Request::new(large());
    mark(request.metadata_mut(), trailing());
    let response = client.clone().unary(request).await.unwrap();
    let echoed = response.metadata();
    assert_eq!(echoed.get(ECHO_INITIAL).unwrap(), INITIAL);
    assert_eq!(echoed.get_bin(ECHO_TRAILING).unwrap(), trailing());

    let mut request = Request::new(stream::iter([ping(LARGE_REQUEST, 1)]));
    mark(request.metadata_mut(), trailing());
    let response = client.duplex(request).await.unwrap();
    assert_eq!(response.metadata().get(ECHO_INITIAL).unwrap(), INITIAL);
    let mut responses = response.into_inner();
    assert!(responses.message().await.unwrap().is_some());
    assert_eq!(responses.message().await.unwrap(), None);
    let trailers = responses.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get_bin(ECHO_TRAILING).unwrap(), trailing());
}

const INITIAL: &str = "test_initial_metadata_value";

fn mark(metadata: &mut MetadataMap, trailing: BinaryMetadataValue) {
    metadata.insert(ECHO_INITIAL, INITIAL.parse().unwrap());
    metadata.insert_bin(ECHO_TRAILING, trailing);
}

async fn status_code_and_message(client: InteropClient) {
    let wanted = EchoStatus {
        code: Code::Unknown as i32,
        message: "test status message".to_owned(),
    };
    let request = SimpleRequest {
        response_status: Some(wanted.clone()),
        ..SimpleRequest::default()
    };
    let unary = client.clone().unary(Request::new(request)).await;
    let request = OutputRequest {
        response_status: Some(wanted.clone()),
        ..OutputRequest::default()
    };
    let duplex = client.duplex(Request::new(stream::iter([request]))).await;
    // Without a message before it, the status may come in place of the headers.
    let duplex = match duplex {
        Ok(response) => response.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    for status in [unary.unwrap_err(), duplex] {
        assert_eq!(status.code(), Code::Unknown);
        assert_eq!(status.message(), wanted.message);
    }
}

async fn special_status_message(client: InteropClient) {
    let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    let wanted = EchoStatus {
        code: Code::Unknown as i32,
        message: message.to_owned(),
    };
    let request = SimpleRequest {
        response_status: Some(wanted),
        ..SimpleRequest::default()
    };
    let status = client.unary(Request::new(request)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, message));
}

async fn unimplemented_method(client: InteropClient) {
    let path = "/grpc.testing.TestService/UnimplementedCall";
    let status = client.unimplemented(path).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

async fn unimplemented_service(client: InteropClient) {
    let path = "/grpc.testing.UnimplementedService/UnimplementedCall";
    let status = client.unimplemented(path).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

async fn timeout_on_sleeping_server(client: InteropClient) {
    let request = OutputRequest {
        payload: Some(payload(REQUEST_SIZES[0])),
        ..OutputRequest::default()
    };
    let requests = stream::iter([request]).chain(stream::pending());
    let mut request = Request::new(requests);
    request.set_timeout(Duration::from_millis(1));
    let status = match client.duplex(request).await {
        Ok(response) => response.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

async fn cancel_after_begin(client: InteropClient) {
    let (began, begins) = tokio::sync::oneshot::channel();
    let mut began = Some(began);
    let requests = stream::poll_fn(move |_| {
        // Asked for the first message: the call has begun.
        began.take().map(|began| began.send(()));
        std::task::Poll::Pending
    });
    tokio::select! {
        answer = client.clone().input(requests) => panic!("answered without a request: {answer:?}"),
        told = begins => told.unwrap(),
    }
    empty_unary(client).await;
}

async fn cancel_after_first_response(client: InteropClient) {
    let requests = stream::iter([ping(REQUEST_SIZES[0], RESPONSE_SIZES[0])]);
    let requests = requests.chain(stream::pending());
    let response = client.clone().duplex(Request::new(requests)).await.unwrap();
    let mut responses = response.into_inner();
    assert!(responses.message().await.unwrap().is_some());
    drop(responses);
    empty_unary(client).await;
}

async fn gzip(client: InteropClient) {
    let client = client.gzip();
    let response = client.clone().unary(Request::new(large())).await.unwrap();
    assert_eq!(response.metadata().get(ENCODING).unwrap(), "gzip");
    assert_eq!(size(response.get_ref().payload.as_ref()), LARGE_RESPONSE);
    client_streaming(client.clone()).await;
    server_streaming(client).await;
}

/// grpc-go's server does not look whether a message is compressed.
pub async fn client_compressed_unary(client: InteropClient) {
    let expecting = |value| {
        Request::new(SimpleRequest {
            expect_compressed: Some(BoolValue { value }),
            ..large()
        })
    };
    let probe = client.clone().unary(expecting(true)).await.unwrap_err();
    assert_eq!(probe.code(), Code::InvalidArgument);
    client.clone().unary(expecting(false)).await.unwrap();
    client.gzip().unary(expecting(true)).await.unwrap();
}

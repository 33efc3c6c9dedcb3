//! One question to an Exhibitor over HTTP.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Where Exhibitor tells the servers.
const PATH: &str = "/exhibitor/v1/cluster/list";
/// The form that Curator reads, or else JSON.
const FORMS: &str = "application/x-www-form-urlencoded, application/json;q=0.5";
/// More than a list of the longest names takes.
const MOST_BYTES: usize = 64 * 1024;

/// The answer of the Exhibitor at an address, over a connection of its own. Has no time limit. Cancel-safe.
///
/// # Errors
/// Why there is none.
pub(crate) async fn get(exhibitor: &str) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(exhibitor)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(PATH)
        .header(HOST, exhibitor)
        .header(ACCEPT, FORMS)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| format!("its answer: {error}"))?;
    Ok(body.to_bytes().to_vec())
}

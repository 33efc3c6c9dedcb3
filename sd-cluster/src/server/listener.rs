//! Accepting connections within bounds, and what of HTTP comes before each is a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{ALLOW, LOCATION, ORIGIN, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::instrument::{Counted, connection_refused};
use super::session::Host;
use crate::etp::upgrade::{UpgradeError, read_request, refusal};
use crate::protocol::events::{MODULE_NAME, PATH};

/// How long a client may take for its request.
const UPGRADE_WITHIN: Duration = Duration::from_secs(5);
/// Before accepting is tried again where the process may open no more files.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What accepts connections.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    pub(super) host: Host,
    pub(super) places: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
}

impl Acceptor {
    /// Accepts connections until the service stops.
    pub(super) async fn accept(self, listener: TcpListener) {
        let mut is_full = false;
        loop {
            let accepted = tokio::select! {
                () = self.host.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a connection of a module cannot be accepted");
                    sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            // Without a place it is closed without a word: a module tries again.
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                connection_refused();
                // Once for all that are refused in a row.
                if !is_full {
                    warn!("connections of modules are refused: there are too many");
                }
                is_full = true;
                continue;
            };
            is_full = false;
            let host = self.host.clone();
            self.tasks.spawn(async move {
                let counted = Counted::begin();
                serve(&host, stream).await;
                drop((counted, place));
            });
        }
    }
}

async fn serve(host: &Host, mut stream: TcpStream) {
    // Lists and answers are small, and each is waited for. What fails here shows when it is written to.
    let _ = stream.set_nodelay(true);
    let upgraded = tokio::select! {
        () = host.stop.cancelled() => return,
        upgraded = timeout(UPGRADE_WITHIN, upgrade(&mut stream)) => upgraded,
    };
    match upgraded {
        Ok(Ok(Some((read, module)))) => host.serve(stream, read, module).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => debug!(?error, "a connection does not become a WebSocket"),
        Err(_) => debug!("a connection does not become a WebSocket in time"),
    }
}

/// What came behind the request, and the module's name. `None` if the request was refused.
async fn upgrade(stream: &mut TcpStream) -> Result<Option<(BytesMut, Arc<str>)>, UpgradeError> {
    let mut read = BytesMut::new();
    let request = read_request(stream, &mut read).await?;
    let header = |name: HeaderName, value| (name, HeaderValue::from_static(value));
    let refused = if request.headers.contains_key(ORIGIN) {
        // Only a browser says so. A WebSocket is not bound to the origin of a page, so that any page could read configurations here.
        refusal(StatusCode::FORBIDDEN, &[])
    } else if request.target.path().starts_with(PATH) {
        match request.accept() {
            Ok(answer) => {
                stream.write_all(&answer).await?;
                return Ok(Some((read, module_name(&request.target))));
            }
            Err(status @ StatusCode::UPGRADE_REQUIRED) => {
                // `refusal` says that the connection ends.
                refusal(status, &[header(UPGRADE, "websocket")])
            }
            Err(status @ StatusCode::METHOD_NOT_ALLOWED) => {
                refusal(status, &[header(ALLOW, "GET")])
            }
            Err(status) => refusal(status, &[]),
        }
    } else if request.target.path() == PATH.trim_end_matches('/') {
        let query = request.target.query().map(|query| format!("?{query}"));
        let place = format!("{PATH}{}", query.unwrap_or_default());
        let place = HeaderValue::try_from(place);
        let place = place.map(|place| (LOCATION, place)).ok();
        refusal(StatusCode::TEMPORARY_REDIRECT, place.as_slice())
    } else {
        refusal(StatusCode::NOT_FOUND, &[])
    };
    stream.write_all(&refused).await?;
    stream.shutdown().await?;
    Ok(None)
}

/// The first of this name, decoded as forms are. Empty if there is none.
fn module_name(target: &Uri) -> Arc<str> {
    let query = target.query().unwrap_or_default();
    let mut parameters = query.split('&').filter_map(|pair| pair.split_once('='));
    let named = parameters.find(|(name, _)| *name == MODULE_NAME);
    let spaced = named.map_or(String::new(), |(_, value)| value.replace('+', " "));
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.as_deref().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_module_is_decoded_as_go_encodes_it_and_the_first_counts() {
        for (query, name) in [
            ("module_name=a", "a"),
            ("module_name=mod+b%26c", "mod b&c"),
            ("x=1&module_name=a&module_name=b", "a"),
            ("module_name=%D1%8F", "я"),
            ("module_name=%FF", ""),
            ("module_name", ""),
            ("", ""),
        ] {
            let target = format!("/isp-etp/?{query}").parse().unwrap();
            assert_eq!(&*module_name(&target), name, "{query}");
        }
    }
}

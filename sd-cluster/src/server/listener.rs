//! Accepting connections within bounds, and what of HTTP comes before each is a WebSocket.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{ALLOW, LOCATION, ORIGIN, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::instrument::{Counted, What, refused};
use super::places::{Place, Places};
use super::session::Host;
use super::throttle::Throttle;
use super::tls::ServerTls;
use crate::etp::upgrade::{UpgradeError, read_request, refusal};
use crate::protocol::events::{MODULE_NAME, PATH};

/// How long a client may take for its request.
const UPGRADE_WITHIN: Duration = Duration::from_secs(5);
/// Before accepting is tried again where the process may open no more files.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What is told of connections now and then.
#[derive(Debug, Default)]
pub(super) struct Told {
    refused: Throttle,
    left: Throttle,
    tls: Throttle,
}

/// What accepts connections.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    pub(super) host: Host,
    pub(super) places: Places,
    pub(super) told: Arc<Told>,
    pub(super) tasks: TaskTracker,
}

impl Acceptor {
    /// Accepts connections until the service stops, over TLS if there is any.
    pub(super) async fn accept(self, listener: TcpListener, tls: Option<ServerTls>) {
        loop {
            let accepted = tokio::select! {
                () = self.host.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                Err(error) => {
                    warn!(%error, "a connection of a module cannot be accepted");
                    sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            // Without a place it is closed without a word: a module tries again.
            let place = match self.places.take(peer) {
                Ok(place) => place,
                Err(why) => {
                    refused(What::Connection);
                    if let Some(times) = self.told.refused.count() {
                        warn!(%peer, times, "a connection of a module is refused: {why}");
                    }
                    continue;
                }
            };
            if place.is_taken_over {
                refused(What::Idle);
                if let Some(times) = self.told.left.count() {
                    warn!(%peer, times, "places for modules are scarce: a connection that had asked for nothing leaves its own");
                }
            }
            let (acceptor, tls) = (self.clone(), tls.clone());
            self.tasks.spawn(async move {
                let counted = Counted::begin();
                acceptor.serve(&place, tls.as_ref(), stream, peer).await;
                drop((counted, place));
            });
        }
    }

    async fn serve(&self, place: &Place, tls: Option<&ServerTls>, stream: TcpStream, peer: IpAddr) {
        // Lists and answers are small, and each is waited for. What fails here shows when it is written to.
        let _ = stream.set_nodelay(true);
        let by = Instant::now() + UPGRADE_WITHIN;
        let Some(tls) = tls else {
            return self.upgrade(place, stream, peer, by).await;
        };
        let agreed = tokio::select! {
            () = self.host.stop.cancelled() => return,
            () = place.leave.cancelled() => return,
            agreed = timeout_at(by, tls.accept(stream)) => agreed,
        };
        let why = match agreed {
            Ok(Ok(stream)) => return Box::pin(self.upgrade(place, stream, peer, by)).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the handshake took too long".to_owned(),
        };
        refused(What::Tls);
        if let Some(times) = self.told.tls.count() {
            warn!(%peer, times, why, "TLS cannot be agreed on with a module");
        }
    }

    async fn upgrade<S>(&self, place: &Place, mut stream: S, peer: IpAddr, by: Instant)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let upgraded = tokio::select! {
            () = self.host.stop.cancelled() => return,
            () = place.leave.cancelled() => return,
            upgraded = timeout_at(by, upgrade(&mut stream)) => upgraded,
        };
        match upgraded {
            Ok(Ok(Some((read, module)))) => {
                if place.keep() {
                    self.host.serve(stream, read, module, peer).await;
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => debug!(?error, "a connection does not become a WebSocket"),
            Err(_) => debug!("a connection does not become a WebSocket in time"),
        }
    }
}

/// What came behind the request, and the module's name. `None` if the request was refused.
async fn upgrade<S>(stream: &mut S) -> Result<Option<(BytesMut, Arc<str>)>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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
                stream.flush().await?;
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

//! Why a server makes no session, as far as that can be found out. The client crate does not say.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sd_backend::with_hint;
use sd_core::{Address, Endpoint};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::client::credentials::Tls;

/// How long one server may take to accept a connection that only finds out whether it does.
const ACCEPTED_WITHIN: Duration = Duration::from_millis(500);
/// How long the handshake of TLS may take, and a server's word that it does not like our certificate, which comes after it.
const AGREED_WITHIN: Duration = Duration::from_secs(1);

/// What may be wrong if a server makes no session. It hangs up without saying why.
pub(crate) const CAUSES: &str = "no server runs there, the name is wrong, there is no quorum, the server speaks TLS (write zks://) or does not, \
                                 asks for a client certificate, or takes no more connections from this address (maxClientCnxns)";

/// What is known of a server that made no session, an error if it is not there.
pub(crate) async fn probe(server: &Endpoint, tls: Option<&Tls>) -> Result<String, String> {
    let stream = connect(server).await?;
    if let (Some(stream), Some(tls), Address::Tcp { host, .. }) = (stream, tls, server.address())
        && let Ok(Err(error)) = timeout(AGREED_WITHIN, agree(&tls.connector, host, stream)).await
    {
        return Ok(format!("{server}: {}", fault(error, tls.shows_certificate)));
    }
    Ok(format!(
        "{server} accepts connections and makes no session: {CAUSES}"
    ))
}

/// A connection, or none if the server hangs up before we know that there is one.
async fn connect(server: &Endpoint) -> Result<Option<TcpStream>, String> {
    match timeout(ACCEPTED_WITHIN, TcpStream::connect(server.to_string())).await {
        Ok(Ok(stream)) => Ok(Some(stream)),
        Ok(Err(error)) if has_hung_up(&error) => Ok(None),
        Ok(Err(error)) => Err(format!("{server}: {error}")),
        Err(_) => Err(format!(
            "{server}: no connection within {ACCEPTED_WITHIN:?}"
        )),
    }
}

/// The address at which a server accepts connections, if it does.
pub(crate) async fn reach(server: &Endpoint) -> Option<SocketAddr> {
    connect(server).await.ok()??.peer_addr().ok()
}

/// The addresses that a server has now. None if its name cannot be looked up.
pub(crate) async fn addresses(server: &Endpoint) -> Vec<SocketAddr> {
    let found = timeout(ACCEPTED_WITHIN, lookup_host(server.to_string())).await;
    found.map_or_else(
        |_| Vec::new(),
        |found| found.into_iter().flatten().collect(),
    )
}

/// Shakes hands, and waits for what the server says of our certificate.
async fn agree(tls: &TlsConnector, host: &str, stream: TcpStream) -> io::Result<()> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut agreed = tls.connect(name, stream).await?;
    agreed.read(&mut [0]).await.map(drop)
}

/// Whether a server has accepted a connection and ended it: by a reset, before or after its last word.
fn has_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

/// What to do about a failure of TLS, and the failure.
fn fault(error: io::Error, shows_certificate: bool) -> String {
    let text = error.to_string();
    let hint = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            "it hangs up while TLS is agreed on: it does not speak TLS at this port, asks for a client certificate (set cert and key), or \
             takes no more connections from this address (maxClientCnxns)"
        }
        _ if text.contains("not valid for name") || text.contains("NotValidForName") => {
            "its certificate is for another name: write the endpoint with a name that it has"
        }
        _ if !shows_certificate && text.contains("received fatal alert") => {
            "it refuses a client without a certificate: set cert and key"
        }
        _ => {
            let hinted = with_hint(error);
            let cause = hinted.source().map(|cause| format!(": {cause}"));
            return format!("{hinted}{}", cause.unwrap_or_default());
        }
    };
    format!("{hint}: {text}")
}

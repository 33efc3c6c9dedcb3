//! Whether a server is there. The client crate does not say why it makes no session.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long one server may take to accept a connection that only finds out whether it does.
const PROBED_WITHIN: Duration = Duration::from_millis(500);

/// What may be wrong if a server makes no session. It hangs up without saying why.
pub(crate) const CAUSES: &str = "no server runs there, the name is wrong, there is no quorum, the server speaks TLS (zks://) or does not, asks for a client certificate, \
     or takes no more connections from this address (maxClientCnxns)";

/// What is known of a server that made no session, an error if it is not there.
pub(crate) async fn probe(server: String) -> Result<String, String> {
    reach(&server).await?;
    Ok(format!(
        "{server} accepts connections and makes no session: {CAUSES}"
    ))
}

/// The address at which a server accepts connections, or why it does not.
pub(crate) async fn reach(server: &str) -> Result<SocketAddr, String> {
    let connecting = async { TcpStream::connect(server).await?.peer_addr() };
    match timeout(PROBED_WITHIN, connecting).await {
        Ok(reached) => reached.map_err(|error| format!("{server}: {error}")),
        Err(_) => Err(format!("{server}: no connection within {PROBED_WITHIN:?}")),
    }
}

/// The addresses that a server has now. None if its name cannot be looked up.
pub(crate) async fn addresses(server: &str) -> Vec<SocketAddr> {
    let found = timeout(PROBED_WITHIN, lookup_host(server)).await;
    found.map_or_else(
        |_| Vec::new(),
        |found| found.into_iter().flatten().collect(),
    )
}

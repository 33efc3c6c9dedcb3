//! The members of an ensemble, as its own configuration names them in `/zookeeper/config`.

use std::net::IpAddr;
use std::time::Duration;

use sd_core::{Endpoint, Result};
use tokio::time::sleep;
use tracing::debug;
use zookeeper_client as zk;

use crate::client::session::Session;
use crate::client::watch::fired;

const OP: &str = "zk: read members";
/// When to read again what could not be read.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Tells the members of the ensemble, now and whenever its configuration changes. Never returns. Cancel-safe.
pub(crate) async fn follow(session: &Session, tell: impl Fn(Vec<Endpoint>)) {
    loop {
        match read(session).await {
            Ok((config, watch)) => {
                tell(members(&String::from_utf8_lossy(&config)));
                // If it is the end of the session, who follows it ends this.
                if fired(OP, watch).await.is_ok() {
                    continue;
                }
            }
            Err(error) => debug!(error = %error.report(), "the members were not told"),
        }
        sleep(AGAIN_AFTER).await;
    }
}

async fn read(session: &Session) -> Result<(Vec<u8>, zk::OneshotWatcher)> {
    let client = session.client(OP).await?;
    let (config, _, watch) = session.call(OP, client.get_and_watch_config()).await?;
    Ok((config, watch))
}

/// Where the members of a configuration serve clients, as far as it says so:
/// `server.<id>=<host>:<port>:<port>[|<further addresses>][:<role>];[<client host>:]<client port>`
fn members(config: &str) -> Vec<Endpoint> {
    config.lines().filter_map(client_address).collect()
}

fn client_address(line: &str) -> Option<Endpoint> {
    let (key, member) = line.trim().split_once('=')?;
    key.strip_prefix("server.")?;
    let (servers, client) = member.split_once(';')?;
    let (host, port) = client.rsplit_once(':').unwrap_or(("", client));
    let host = without_brackets(host);
    let is_any_address = |address: IpAddr| address.is_unspecified();
    let host = if host.is_empty() || host.parse().is_ok_and(is_any_address) {
        // All addresses of the member, of which the other members use this one.
        first_host(servers)?
    } else {
        host
    };
    Endpoint::tcp(host, port.parse().ok()?).ok()
}

/// The host that `<host>:<port>:…` begins with.
fn first_host(address: &str) -> Option<&str> {
    match address.strip_prefix('[') {
        Some(ipv6) => Some(ipv6.split_once(']')?.0),
        None => Some(address.split_once(':')?.0),
    }
}

fn without_brackets(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_client_addresses_of_members_are_read_in_each_form_that_they_have() {
        let config = "server.1=10.0.0.1:2888:3888:participant;10.0.0.9:2181\n\
                      server.2=zoo2:2888:3888:observer;2182\n\
                      server.3=zoo3:2888:3888;0.0.0.0:2183\r\n\
                      server.4=[fd00::4]:2888:3888:participant;[::]:2184\n\
                      server.5=zoo5:2888:3888|zoo6:2889:3889:participant;0:0:0:0:0:0:0:0:2185\n\
                      server.6=zoo7:2888:3888:participant\n\
                      version=100000000";
        let found: Vec<_> = members(config).iter().map(Endpoint::to_string).collect();
        let expected = [
            "10.0.0.9:2181",
            "zoo2:2182",
            "zoo3:2183",
            "[fd00::4]:2184",
            "zoo5:2185",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_names_no_client_address_names_no_member() {
        for config in [
            "",
            "version=0",
            "server.1=",
            "server.1=;",
            "server.1=h:1:2;",
            "server.1=h:1:2;0",
            "server.1=h:1:2;65536",
            "server.1=0.0.0.0:1:2;2181",
            "server.1=a b:1:2;2181",
            "server.1=[::1:1:2;2181",
            "group.1=h:1:2;2181",
        ] {
            assert_eq!(members(config), [], "{config}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(config in "(server.1=)?[\\[\\]a-z0-9.:;|=\n]{0,60}") {
            members(&config);
        }
    }
}

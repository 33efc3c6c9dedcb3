//! The server that everything is measured at: a client for it as a program has that has no more, and what it counts.

use std::net::SocketAddr;

use server_programs::ZooKeeper;
use zookeeper_client as zk;

use super::SESSION;
use crate::Result;

/// A ZooKeeper that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server(SocketAddr);

impl Server {
    pub(super) fn from_env() -> Result<Self> {
        let named = std::env::var("SD_TEST_ZK");
        let missing = "SD_TEST_ZK must hold the address of a ZooKeeper: `cargo xtask bench` starts one and sets it";
        Ok(Self(named.map_err(|_| missing)?.parse()?))
    }

    /// The same one, by way of another address.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self(address)
    }

    pub(super) fn address(self) -> SocketAddr {
        self.0
    }

    pub(super) fn version(self) -> Result<String> {
        let said = ZooKeeper::serving_at(&self.0.to_string())?;
        // `3.9.5-` and what it was built from.
        Ok(said.split(['-', ',']).next().unwrap_or_default().to_owned())
    }

    /// The client crate alone, with a session of its own.
    pub(super) async fn client(self) -> Result<zk::Client> {
        let connector = zk::Client::connector().with_session_timeout(SESSION);
        Ok(connector.connect(&self.0.to_string()).await?)
    }

    /// How many requests have come so far in the session with this id, or in all that there are. Blocks.
    pub(super) fn requests(self, session: Option<&str>) -> Result<u64> {
        let said = ZooKeeper::four_letter_word_at(self.0, "cons")?;
        Ok(requests(&said, session))
    }
}

/// Of lines such as `/127.0.0.1:7[1](queued=0,recved=3,sent=3,sid=0x1000,lop=PING,...)`. Connections without a session are left out.
fn requests(said: &str, session: Option<&str>) -> u64 {
    let in_session = |line: &&str| {
        let id = value(line, "sid=");
        id.is_some() && session.is_none_or(|session| id == Some(session))
    };
    let counts = said.lines().filter(in_session);
    counts
        .filter_map(|line| value(line, "recved=")?.parse::<u64>().ok())
        .sum()
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(name)?;
    rest.split([',', ')']).next()
}

/// A node that goes with its session.
pub(super) fn ephemeral() -> zk::CreateOptions<'static> {
    zk::CreateMode::Ephemeral.with_acls(zk::Acls::anyone_all())
}

/// A node that stays, and all above it.
pub(super) async fn make(client: &zk::Client, path: &str) -> Result<()> {
    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    Ok(client.mkdir(path, &persistent).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_session_and_in_all() {
        let said = " /127.0.0.1:50[0](queued=0,recved=1,sent=0)\n \
            /127.0.0.1:51[1](queued=0,recved=7,sent=8,sid=0x10a,lop=GETD,est=1)\n \
            /127.0.0.1:52[1](queued=0,recved=30,sent=30,sid=0x10,lop=PING)\n";
        assert_eq!(requests(said, Some("0x10")), 30);
        assert_eq!(requests(said, Some("0x1")), 0);
        assert_eq!(requests(said, None), 37);
    }
}

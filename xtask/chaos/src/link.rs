//! The connection of one process to one server, which can be broken in the ways networks do.

use std::net::SocketAddr;

use sd_core::testing::{Direction, Fault, TcpProxy};

use crate::Result;

/// Two proxies in a row: the first stays where the process connects to, the second can be replaced under it, so that old
/// connections die and new ones do not.
#[derive(Debug)]
pub(crate) struct Link {
    front: TcpProxy,
    back: TcpProxy,
    server: SocketAddr,
    /// Carries the connections from before it became half-open.
    dead: Option<TcpProxy>,
}

/// What is done to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Connections are reset, new ones refused.
    Cut,
    /// Everything is swallowed.
    BlackHole,
    /// Requests do not arrive.
    NoRequests,
    /// Answers do not arrive.
    NoAnswers,
    /// What is connected is dead without a sign; new connections work.
    HalfOpen,
}

impl Link {
    pub(crate) async fn to(server: SocketAddr) -> Result<Self> {
        let back = TcpProxy::start(server).await?;
        let front = TcpProxy::start(back.address()).await?;
        Ok(Self {
            front,
            back,
            server,
            dead: None,
        })
    }

    /// Where the process connects to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.front.address())
    }

    pub(crate) async fn break_it(&mut self, how: Break) -> Result<()> {
        match how {
            Break::Cut => self.front.set(Fault::Cut),
            Break::BlackHole => self.front.set(Fault::BlackHole),
            Break::NoRequests => self.front.set(Fault::Hold(Direction::ToServer)),
            Break::NoAnswers => self.front.set(Fault::Hold(Direction::ToClient)),
            Break::HalfOpen => {
                let fresh = TcpProxy::start(self.server).await?;
                self.front.set_target(fresh.address());
                let old = std::mem::replace(&mut self.back, fresh);
                old.set(Fault::BlackHole);
                self.dead = Some(old);
            }
        }
        Ok(())
    }

    pub(crate) fn heal(&mut self) {
        self.front.set(Fault::Pass);
        // Dropping it ends what nobody noticed to be dead.
        self.dead = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const SILENT: Duration = Duration::from_millis(200);

    /// Sends everything back.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = connection.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn connect(link: &Link) -> TcpStream {
        TcpStream::connect(link.front.address()).await.unwrap()
    }

    async fn answers(connection: &mut TcpStream) -> bool {
        connection.write_all(b"x").await.unwrap();
        timeout(SOON, connection.read_u8()).await.unwrap().is_ok()
    }

    #[tokio::test]
    async fn half_open_kills_old_connections_in_silence_and_lets_new_ones_through() {
        let mut link = Link::to(echo().await).await.unwrap();
        let mut old = connect(&link).await;
        assert!(answers(&mut old).await);
        link.break_it(Break::HalfOpen).await.unwrap();

        let mut new = connect(&link).await;
        assert!(answers(&mut new).await);
        old.write_all(b"x").await.unwrap();
        let silent = timeout(SILENT, old.read_u8()).await;
        assert!(silent.is_err(), "{silent:?}");

        link.heal();
        let ended = timeout(SOON, old.read_u8()).await.unwrap();
        assert!(ended.is_err(), "{ended:?}");
        assert!(answers(&mut new).await);
    }

    #[tokio::test]
    async fn what_does_not_arrive_one_way_arrives_after_healing() {
        let mut link = Link::to(echo().await).await.unwrap();
        let mut connection = connect(&link).await;
        assert!(answers(&mut connection).await);
        for how in [Break::NoRequests, Break::NoAnswers] {
            link.break_it(how).await.unwrap();
            connection.write_all(b"x").await.unwrap();
            let silent = timeout(SILENT, connection.read_u8()).await;
            assert!(silent.is_err(), "{how:?}: {silent:?}");
            link.heal();
            let answer = timeout(SOON, connection.read_u8()).await.unwrap();
            assert_eq!(answer.unwrap(), b'x', "{how:?}");
        }
    }
}

//! The connection of one process to one server, which can be broken in the ways networks do.

use std::net::SocketAddr;

use fastrand::Rng;
use sd_testing::{Direction, Fault, HttpProxy, HttpRule, TcpProxy};

use crate::Result;
use crate::kind::Kind;
use crate::witness::{Question, Sees, Witness};

/// Two proxies in a row: the first stays where the process connects to, the second can be replaced under it, so that old
/// connections die and new ones do not.
#[derive(Debug)]
pub(crate) struct Link {
    front: TcpProxy,
    back: TcpProxy,
    server: SocketAddr,
    /// What any client may ask the server for.
    question: Question,
    witness: Option<(Witness, Sees)>,
    /// Carries the connections from before it became half-open.
    dead: Option<TcpProxy>,
    /// Answers instead of the server.
    refusing: Option<HttpProxy>,
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
    /// Connections are reset, and each request over new ones gets an error of the server. Only for servers that speak HTTP/1.
    Errors,
}

impl Link {
    pub(crate) async fn to(server: SocketAddr, question: Question) -> Result<Self> {
        let back = TcpProxy::start(server).await?;
        let front = TcpProxy::start(back.address()).await?;
        Ok(Self {
            front,
            back,
            server,
            question,
            witness: None,
            dead: None,
            refusing: None,
        })
    }

    /// Where the process connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// The server has to work: whether the fault does is asked there.
    pub(crate) async fn break_it(&mut self, how: Break) -> Result<()> {
        let mut witness = Witness::connect(self.front.address(), self.question).await?;
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
                Witness::connect(self.front.address(), self.question).await?;
            }
            Break::Errors => {
                const STATUS: u16 = 500;
                let proxy = HttpProxy::start(self.server).await?;
                proxy.set_rules([HttpRule::new("", "/").answer(STATUS, "No cluster leader")]);
                self.front.set_target(proxy.address());
                self.front.cut_connections();
                self.refusing = Some(proxy);
                let refused = Witness::connect(self.front.address(), self.question).await?;
                if refused.status() != Some(STATUS) {
                    return Err("the server still answers".into());
                }
            }
        }
        witness.ask().await;
        self.witness = Some((witness, how.seen()));
        Ok(())
    }

    /// # Errors
    /// The fault did not do what it should have done.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        let was_broken = match self.witness.take() {
            Some((mut witness, sees)) => witness.check(sees).await,
            None => Ok(()),
        };
        self.front.set(Fault::Pass);
        // Dropping it ends what neither end noticed to be dead.
        self.dead = None;
        if self.refusing.take().is_some() {
            self.front.set_target(self.back.address());
            self.front.cut_connections();
        }
        was_broken
    }
}

impl Break {
    /// How a fault of this kind breaks the links of a process.
    pub(crate) fn of(kind: Kind, rng: &mut Rng) -> Self {
        match kind {
            Kind::BlackHole => Self::BlackHole,
            Kind::OneWay if rng.bool() => Self::NoRequests,
            Kind::OneWay => Self::NoAnswers,
            Kind::HalfOpen => Self::HalfOpen,
            Kind::Errors => Self::Errors,
            _ => Self::Cut,
        }
    }

    fn seen(self) -> Sees {
        match self {
            Self::Cut | Self::Errors => Sees::Reset,
            Self::BlackHole | Self::NoRequests | Self::NoAnswers | Self::HalfOpen => Sees::Silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;
    use crate::witness::tests::{ANSWER, REQUEST, server};

    const SOON: Duration = Duration::from_secs(10);
    const SILENT: Duration = Duration::from_millis(200);

    async fn link() -> Link {
        let question = Question::Http("/x");
        Link::to(server().await, question).await.unwrap()
    }

    /// After a cut the proxy takes a moment to listen again.
    async fn connect(link: &Link) -> TcpStream {
        let connected = async {
            loop {
                match TcpStream::connect(link.front.address()).await {
                    Ok(connection) => return connection,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        timeout(SOON, connected).await.unwrap()
    }

    async fn ask(connection: &mut TcpStream) {
        connection.write_all(REQUEST).await.unwrap();
    }

    async fn is_answered(connection: &mut TcpStream) -> bool {
        let mut answer = [0; ANSWER.len()];
        let read = timeout(SOON, connection.read_exact(&mut answer)).await;
        read.unwrap().is_ok() && answer == ANSWER.as_bytes()
    }

    #[tokio::test]
    async fn half_open_kills_old_connections_in_silence_and_lets_new_ones_through() {
        let mut link = link().await;
        let mut old = connect(&link).await;
        ask(&mut old).await;
        assert!(is_answered(&mut old).await);
        link.break_it(Break::HalfOpen).await.unwrap();

        let mut new = connect(&link).await;
        ask(&mut new).await;
        assert!(is_answered(&mut new).await);
        ask(&mut old).await;
        let silent = timeout(SILENT, old.read_u8()).await;
        assert!(silent.is_err(), "{silent:?}");

        link.heal().await.unwrap();
        let ended = timeout(SOON, old.read_u8()).await.unwrap();
        assert!(ended.is_err(), "{ended:?}");
        ask(&mut new).await;
        assert!(is_answered(&mut new).await);
    }

    #[tokio::test]
    async fn what_does_not_arrive_one_way_arrives_after_healing() {
        let mut link = link().await;
        let mut connection = connect(&link).await;
        ask(&mut connection).await;
        assert!(is_answered(&mut connection).await);
        for how in [Break::NoRequests, Break::NoAnswers] {
            link.break_it(how).await.unwrap();
            ask(&mut connection).await;
            let silent = timeout(SILENT, connection.read_u8()).await;
            assert!(silent.is_err(), "{how:?}: {silent:?}");
            link.heal().await.unwrap();
            assert!(is_answered(&mut connection).await, "{how:?}");
        }
    }

    #[tokio::test]
    async fn every_way_of_breaking_takes_effect_and_is_healed() {
        let mut link = link().await;
        for how in [
            Break::Cut,
            Break::BlackHole,
            Break::NoRequests,
            Break::NoAnswers,
            Break::HalfOpen,
            Break::Errors,
        ] {
            link.break_it(how).await.unwrap();
            link.heal().await.unwrap();
            let mut connection = connect(&link).await;
            ask(&mut connection).await;
            assert!(is_answered(&mut connection).await, "{how:?}");
        }
    }
}

//! Sentinels, which agree on the primary.
//!
//! A former primary that was restarted takes writes until Sentinel demotes it, seconds later, and they are lost then. So Sentinel is asked
//! before each connection, and now and then while there is one, and a server must itself say that it is the primary. The connection to the
//! Sentinel that has answered is kept for the next question.

use std::sync::Arc;
use std::time::Duration;

use redis::Pipeline;
use sd_backend::{CloseSignal, SharedConnection, Unanswered, hinted};
use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::client::answer::Answers;
use crate::client::connection::{Dialer, Link, Purpose, no_primary};
use crate::client::error::translate;
use crate::client::topology::recheck::{Recheck, WITHIN};
use crate::client::topology::rotation::Rotation;
use crate::client::topology::standalone::none_of;
use crate::config::RedisConfig;

/// The Sentinels that are named.
#[derive(Debug)]
pub(crate) struct Sentinels {
    named: Vec<Endpoint>,
    dialer: Arc<Dialer>,
    rotation: Rotation,
    recheck: Recheck,
    /// The connection to the one that answered last.
    asked: SharedConnection<Link>,
}

impl Sentinels {
    pub(crate) fn new(named: Vec<Endpoint>, dialer: Arc<Dialer>, signal: &CloseSignal) -> Self {
        Self {
            named,
            dialer,
            rotation: Rotation::default(),
            recheck: Recheck::default(),
            asked: SharedConnection::new(signal),
        }
    }

    /// Connects to the server that the first Sentinel names which names one that is the primary.
    pub(crate) async fn open(&self, op: &'static str, purpose: Purpose) -> Result<Link> {
        let (mut failed, mut tried) = (Vec::new(), Vec::new());
        for turn in self.rotation.turns(&self.named) {
            let opened = match self.ask(op, turn.server()).await {
                // They mostly agree, and one that hangs is waited for only once.
                Ok(primary) if tried.contains(&primary) => continue,
                Ok(primary) => {
                    tried.push(primary.clone());
                    open_primary(op, &self.dialer, &primary, purpose.clone()).await
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(link) => {
                    turn.went_well();
                    self.recheck.done();
                    return Ok(link);
                }
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    /// Whether they name another primary than this server now. Asks one of them now and then; one that does not answer has said nothing.
    pub(crate) async fn have_left(&self, op: &'static str, server: &Endpoint) -> bool {
        if !self.recheck.is_due() {
            return false;
        }
        let Some(turn) = self.rotation.turns(&self.named).next() else {
            return false;
        };
        let Ok(Ok(primary)) = timeout(WITHIN, self.ask(op, turn.server())).await else {
            return false;
        };
        turn.went_well();
        primary != *server
    }

    /// Asks one Sentinel where the primary is, over the connection that is kept or on a new one.
    async fn ask(&self, op: &'static str, sentinel: &Endpoint) -> Result<Endpoint> {
        let config = self.dialer.config();
        if let Some(link) = self.asked.current()
            && link.address() == sentinel
        {
            // One that does not answer is not asked over this connection again, also if this call is dropped.
            let unanswered = Unanswered::new(&self.asked, &link, Duration::ZERO);
            match ask(op, config, &link).await {
                Ok(primary) => {
                    unanswered.answered();
                    return Ok(primary);
                }
                Err(error) if error.kind() == ErrorKind::Timeout => return Err(error),
                // It may have ended since it was used.
                Err(_) => {}
            }
        }
        let link = self.dialer.dial(op, sentinel, Purpose::Sentinel).await?;
        let primary = ask(op, config, &link).await?;
        self.asked.put(link);
        Ok(primary)
    }
}

/// Connects to the primary that a Sentinel has named.
async fn open_primary(
    op: &'static str,
    dialer: &Dialer,
    primary: &Endpoint,
    purpose: Purpose,
) -> Result<Link> {
    let link = dialer.dial(op, primary, purpose).await?;
    if !link.is_primary() {
        return Err(no_primary(op, primary));
    }
    Ok(link)
}

/// Asks one Sentinel where the primary is.
async fn ask(op: &'static str, config: &RedisConfig, link: &Link) -> Result<Endpoint> {
    let sentinel = link.address();
    let mut question = Pipeline::new();
    question
        .cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(&config.primary);
    let limit = config.connect_timeout;
    let answered = timeout(limit, link.send(&question)).await;
    let answered = answered.map_err(|_| {
        let why = format!("the Sentinel {sentinel} did not answer within {limit:?}");
        Error::new(ErrorKind::Timeout, op).because(why)
    })?;
    let values = answered.map_err(|error| translate(op, error))?;
    if matches!(values.as_slice(), [redis::Value::Nil]) {
        let why = format!(
            "the Sentinel {sentinel} watches none of this name: {:?}",
            config.primary
        );
        let hint = "set primary to the name that it has in sentinel monitor";
        return Err(Error::new(ErrorKind::Unavailable, op).with_source(hinted(hint, why)));
    }
    let mut answers = Answers::new(op, values);
    let mut address = answers.list()?;
    let (host, port) = (address.text()?, address.number()?);
    Endpoint::tcp(&host, port).map_err(|_| address.odd())
}

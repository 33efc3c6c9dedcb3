//! Sentinels, which agree on the primary.
//!
//! A former primary that was restarted takes writes until Sentinel demotes it, seconds later, and they are lost then. So Sentinel is asked
//! before each connection, and now and then while there is one, and a server must itself say that it is the primary.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::Pipeline;
use sd_backend::hinted;
use sd_core::sync::lock;
use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::time::{Instant, timeout};

use crate::client::answer::Answers;
use crate::client::connection::{Dialer, Link, Purpose, no_primary};
use crate::client::error::translate;
use crate::client::topology::standalone::none_of;

/// How often they are asked while there is a connection to the primary.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// How long that may hold up a request.
const ASKED_WITHIN: Duration = Duration::from_millis(500);

/// The Sentinels that are named.
#[derive(Debug)]
pub(crate) struct Sentinels {
    named: Vec<Endpoint>,
    /// Which one is asked first.
    first: AtomicUsize,
    asked: Mutex<Option<Instant>>,
}

impl Sentinels {
    pub(crate) fn new(named: Vec<Endpoint>) -> Self {
        Self {
            named,
            first: AtomicUsize::new(0),
            asked: Mutex::new(None),
        }
    }

    /// Connects to the server that the first Sentinel names which names one that is the primary.
    pub(crate) async fn open(
        &self,
        op: &'static str,
        dialer: &Dialer,
        purpose: Purpose,
    ) -> Result<Link> {
        let first = self.first.load(Ordering::Relaxed);
        let mut failed: Vec<Error> = Vec::new();
        for turn in 0..self.named.len() {
            let at = first.wrapping_add(turn) % self.named.len();
            match self.open_by(op, dialer, at, purpose.clone()).await {
                Ok(link) => {
                    self.first.store(at, Ordering::Relaxed);
                    *lock(&self.asked) = Some(Instant::now());
                    return Ok(link);
                }
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    async fn open_by(
        &self,
        op: &'static str,
        dialer: &Dialer,
        at: usize,
        purpose: Purpose,
    ) -> Result<Link> {
        let primary = self.ask(op, dialer, at).await?;
        let link = dialer.dial(op, &primary, purpose).await?;
        if !link.is_primary() {
            return Err(no_primary(op, &primary));
        }
        Ok(link)
    }

    /// Asks one Sentinel where the primary is.
    async fn ask(&self, op: &'static str, dialer: &Dialer, at: usize) -> Result<Endpoint> {
        let config = dialer.config();
        let Some(sentinel) = self.named.get(at) else {
            return Err(Error::new(ErrorKind::Unavailable, op).because("there is no Sentinel"));
        };
        let link = dialer.dial(op, sentinel, Purpose::Sentinel).await?;
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

    /// Whether they name another primary than this server now. Asks one of them now and then; one that does not answer has said nothing.
    pub(crate) async fn have_left(
        &self,
        op: &'static str,
        dialer: &Dialer,
        server: &Endpoint,
    ) -> bool {
        {
            let mut asked = lock(&self.asked);
            if asked.is_some_and(|asked| asked.elapsed() < ASKED_EVERY) {
                return false;
            }
            *asked = Some(Instant::now());
        }
        let first = self.first.load(Ordering::Relaxed);
        let asking = self.ask(op, dialer, first % self.named.len().max(1));
        if let Ok(Ok(primary)) = timeout(ASKED_WITHIN, asking).await {
            return primary != *server;
        }
        // The next one may be there.
        self.first.fetch_add(1, Ordering::Relaxed);
        false
    }
}
